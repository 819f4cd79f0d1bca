/*
 * Spawn blocks as memory objects: checking one that a client handed over, copying it with changes, and putting together
 * one that comes in pieces. The source is hostile: it is read, never mapped, and everything is decided on the copy.
 */
#ifndef RF_MONITOR_BLOCK_H
#define RF_MONITOR_BLOCK_H

#include "monitor/step.h"

typedef struct block_result {
    int fd; /* sealed, read-only, exactly the block; the caller's */
    uint32_t size, flags, uid;
    char user[32];
    char program[RF_NAME_MAX]; /* last part of argv[0], control characters replaced */
} block_result_t;

/*
 * Reads the block behind `fd` (which stays the caller's) and makes a checked copy, changed as `change` says. A block
 * without a user gets `default_user`. RF_ERR_PROTOCOL: no block. RF_ERR_PERMISSION: it names another user than it may.
 * RF_ERR_NOT_FOUND: no such user on this host. RF_ERR_LIMIT, RF_ERR_NO_MEMORY, RF_ERR_OS.
 */
rf_err_t block_copy(int fd, const monitor_block_t *change, const char *default_user, block_result_t *out);

/* The same from bytes in memory, which are the caller's and must not change meanwhile. */
rf_err_t block_copy_bytes(const void *bytes, size_t size, const monitor_block_t *change,
                          const char *default_user, block_result_t *out);

/* Reads up to `size` bytes at `offset`. RF_ERR_OS; RF_ERR_PROTOCOL when there are fewer. */
rf_err_t block_read(int fd, uint32_t offset, void *out, size_t size);

#endif
