/*
 * One end of links between hosts, for benches that have each end in a process of its own: it listens or connects, and
 * waits by polling or by sleeping.
 *
 * Polling is bare: nothing but poll(), as the medium's own programs do, and progress() once in HOSTS_PROGRESS_US, for what
 * comes by other ways than slots (links that come and go). Sleeping is the protocol of transport.h: arm, look, block.
 */
#ifndef RF_BENCH_HOSTS_H
#define RF_BENCH_HOSTS_H

#include "result.h"

#include "transport/transport.h"

#define HOSTS_PEERS_MAX   BENCH_SENDERS_MAX
#define HOSTS_RING_SLOTS  1024
#define HOSTS_BATCH_MAX   256
#define HOSTS_PROGRESS_US 10000 /* it makes system calls, 15 us each in a guest of the lab */

typedef struct hosts_peer {
    rf_link_t *link;
    bool up, ended;
    rf_err_t why;     /* ended; RF_ERR_CLOSED: in order */
    unsigned written; /* remote writes that are complete */
    unsigned read;    /* ... reads, ... */
    bool refused;     /* ... and one of either came to nothing */
} hosts_peer_t;

typedef struct hosts_end {
    const bench_options_t *options;
    const rf_transport_t *transport;
    rf_endpoint_t *endpoint;
    hosts_peer_t peers[HOSTS_PEERS_MAX];
    unsigned n_peers, peers_max;
    bool sleeps;                    /* waiting is sleeping now */
    uint64_t progress_at;           /* ticks: when polling is to call progress() */
    uint64_t next_ns;               /* ... and sleeping */
    uint64_t clock_ns, clock_ticks; /* the clock was read: in a guest of the lab that is a system call */
} hosts_end_t;

/* Opens the medium of the options (tcp where none is named); a NULL address only connects. Says what is wrong. */
rf_err_t hosts_open(hosts_end_t *end, const bench_options_t *options, const char *listen, unsigned peers_max);
/* A link to `address`, up. Says what is wrong. */
rf_err_t hosts_connect(hosts_end_t *end, const char *address);
/* Closes all links in order, and the endpoint. */
void hosts_close(hosts_end_t *end);

/* Nothing has come: waits for a short while, or until something comes. */
void hosts_wait(hosts_end_t *end);
/* Sends all. False: the link ended, or something came that nobody asked for. */
bool hosts_send(hosts_end_t *end, hosts_peer_t *peer, const rf_slot_t *slots, unsigned n);
/* The next slot. False: the link ended. */
bool hosts_receive(hosts_end_t *end, hosts_peer_t *peer, rf_slot_t *out);

rf_slot_t hosts_slot(uint8_t type);

#endif
