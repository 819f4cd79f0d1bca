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

#define PEER_CHUNK   4096 /* commits of one throughput sample */
#define PEER_WARM_UP 500

typedef struct peer_options {
    unsigned outstanding, batch, samples, cores[2];
    size_t bytes;
} peer_options_t;

/* False, with a message on standard error. */
bool peer_parse(int argc, char **argv, peer_options_t *out);

/* Counts answered commits, and prints samples as they come. */
typedef struct peer_meter {
    const peer_options_t *options;
    uint64_t answered, begun, begun_ns;
    unsigned printed;
} peer_meter_t;

/* One answer; `asked_ns` is when it was asked for. True: that was the last sample. */
bool peer_answered(peer_meter_t *meter, uint64_t asked_ns);

/* A folder of this run's own in memory. False, with a message. */
bool peer_folder_make(char *out, size_t max);
void peer_folder_remove(const char *path);

/* `n` free ports on 127.0.0.1. */
bool peer_ports(uint16_t *out, unsigned n);

#endif
