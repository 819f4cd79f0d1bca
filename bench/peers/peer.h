/*
 * What the programs of this folder have in common: each runs another system on this host and prints one figure a line,
 * microseconds of one commit with one outstanding, else million commits a second of a stretch. rf-bench starts
 * them (ordered_peers.c); they are built only where what they need is installed.
 *
 *      rf-peer-X --outstanding N --batch N --bytes N --samples N --cores A,B
 */
#ifndef RF_BENCH_PEER_H
#define RF_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_WARM_UP     500
#define PEER_SECONDS_MAX 5 /* then the samples that there are must do */
#define PEER_SAMPLES_MIN 5 /* of which there must be so many */

typedef struct peer_options {
    unsigned outstanding, batch, samples, cores[2];
    size_t bytes;
} peer_options_t;

/* False, with a message on standard error. */
bool peer_parse(int argc, char **argv, peer_options_t *out);

/* Counts answered commits, and prints samples as they come. */
typedef struct peer_meter {
    const peer_options_t *options;
    unsigned chunk; /* commits of one throughput sample */
    uint64_t answered, begun, begun_ns, first_ns;
    unsigned printed;
} peer_meter_t;

/* One answer; `asked_ns` is when it was asked for. True: that was the last sample. */
bool peer_answered(peer_meter_t *meter, uint64_t asked_ns);

/* A folder of this run's own in memory; those of runs that were killed are removed. False, with a message. */
bool peer_folder_make(char *out, size_t max);
void peer_folder_remove(const char *path);

/* `n` free ports on 127.0.0.1. */
bool peer_ports(uint16_t *out, unsigned n);

/* For a process that has started others: they end with it (PR_SET_PDEATHSIG, in them), and `clean` runs, once, when it calls
 * peer_clean_up(), or is asked to end, also because who started it has died. */
void peer_clean_up_by(void (*clean)(void));
void peer_clean_up(void);

#endif
