/* The program that `run` was given: found as a shell finds it, and described so that a host that lacks it can ask for it. */
#ifndef RF_CLI_EXECUTABLE_H
#define RF_CLI_EXECUTABLE_H

#include "cli/cli.h"

#define EXECUTABLE_LIBRARIES_MAX 256

typedef struct executable_file {
    char path[CLI_PATH_MAX];
    uint8_t sha256[32];
    uint64_t size;
    uint32_t mode;
    bool known; /* it is here, and hash and size are valid */
} executable_file_t;

/*
 * Finds `program` by `search_path` (PATH's value) when it holds no slash, else relative to the current directory, and
 * hashes it. What is not here may still be on the target host: then CLI_OK with known == false, and path as given, or made
 * absolute. CLI_RUN_NOT_EXECUTABLE (with its message printed) for what is here but no executable file.
 */
int executable_find(const cli_t *cli, const char *program, const char *search_path, executable_file_t *out);

/* The shared libraries that the dynamic loader would give `path` here. Writes at most `max`; prints why not and returns an
 * exit status. A static program has none. */
int executable_libraries(const cli_t *cli, const char *path, executable_file_t *out, size_t max, size_t *n);

/* Hash and size of a file; -1 and errno when it cannot be read. */
int executable_hash(executable_file_t *file);

#endif
