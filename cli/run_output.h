/* What programs print, on its way to our own stdout and stderr: kept while those are full, cut into lines where there are several. */
#ifndef RF_CLI_RUN_OUTPUT_H
#define RF_CLI_RUN_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One of our descriptors. Zeroes but for `fd` are a new one; its bytes are freed by the owner. */
typedef struct run_sink {
    int fd;
    uint8_t *bytes;
    size_t used, room;
    bool closed; /* takes nothing any more, and drops what it is given */
    bool direct; /* a regular file; never blocks for long */
} run_sink_t;

/* Of one program and one of its streams, until a newline comes. Zeroes are a new one; its bytes are freed by the owner. */
typedef struct run_lines {
    uint8_t *bytes;
    size_t used;
} run_lines_t;

/* Looks what kind of descriptor it is. */
void run_sink_open(run_sink_t *sink, int fd);
void run_sink_append(run_sink_t *sink, const void *bytes, size_t size);

/* Writes what the descriptor takes without blocking, whole lines where several programs write. 0, or the errno of a write that
 * failed: then it is closed. */
int run_sink_write(run_sink_t *sink, bool several);

/* Collects bytes into lines and hands whole ones on, each piece behind `label`. */
void run_lines_add(run_lines_t *lines, run_sink_t *sink, const char *label, const uint8_t *bytes,
                   size_t size);

/* Hands on a last line that has no end. */
void run_lines_end(run_lines_t *lines, run_sink_t *sink, const char *label);

#endif
