/*
 * Writing a tar archive (POSIX.1-1988 ustar) into a regular file, member by member, of sizes not known before: the header
 * is written again once the member has ended.
 */
#ifndef RF_CLI_USTAR_H
#define RF_CLI_USTAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ustar {
    int fd;
    int64_t header_at; /* of the open member; -1: none */
    char path[256];
    uint64_t size;
    int64_t mtime;
    bool failed; /* errno of the first failure was kept */
    int error;
} ustar_t;

/* Starts an archive in `fd`, a regular file open for writing, at its start; it stays the caller's. */
void ustar_start(ustar_t *tar, int fd);

/* Starts a member; ends an open one. False: the path is not relative and plain ("..", empty parts), or too long. */
bool ustar_member(ustar_t *tar, const char *path);
void ustar_write(ustar_t *tar, const void *bytes, size_t size);

/* Ends the archive. False with errno when anything could not be written. */
bool ustar_finish(ustar_t *tar);

#endif
