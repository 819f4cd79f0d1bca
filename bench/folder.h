/* Folders of a bench's own in /tmp, for sockets and what else has a name. A run that is killed leaves its folder; the next one
 * removes it. */
#ifndef RF_BENCH_FOLDER_H
#define RF_BENCH_FOLDER_H

#include <stdbool.h>

#define BENCH_FOLDER_MAX 40 /* bytes of a path with its final zero */

typedef struct bench_folder {
    char path[BENCH_FOLDER_MAX]; /* "": none */
    int lock;                    /* held while the run lives; not inherited by programs that are started */
} bench_folder_t;

/* Makes one whose name begins with `name` ("rf-link-"), and removes those of that name that nobody has any more. False: a message is
 * on standard error. */
bool bench_folder_make(bench_folder_t *folder, const char *name);

/* With all that is in it. Harmless on a zeroed one. */
void bench_folder_remove(bench_folder_t *folder);

#endif
