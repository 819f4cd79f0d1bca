/*
 * Hosts: replicas in processes of their own, linked over TCP on loopback without encryption, as the monitors of hosts
 * with one core each would be. What they measure lies in memory that all share with the bench.
 *
 *      the bench ---- agree_hosts_start() ----> host 0 (leader)   host 1   host 2     each runs `body`
 *                <--- agree_hosts_end() ------- ended, whatever they do
 *
 * With a client there is one more process, which is no member and has a link to host 0 only: over TCP, as a client of another
 * host; or over shared memory, as a dispatcher has one to the monitor of its core: it sleeps on a futex, host 0 in poll().
 *
 * A host is always in one of three ways: it spins on its links, it sleeps until a message comes (`sleeps`), or it wakes up by
 * the clock and looks at what has come (`look_us`), as behind a network card that moderates its interrupts.
 */
#ifndef RF_BENCH_AGREE_HOSTS_H
#define RF_BENCH_AGREE_HOSTS_H

#include "agree_node.h"
#include "result.h"

#include "transport/wait.h"

#include <stdatomic.h>
#include <sys/types.h>

#define AGREE_HOSTS_MAX 7
#define AGREE_LANES_MAX (AGREEMENT_PROPOSALS_MAX / AGREEMENT_WINDOW)

typedef struct agree_host agree_host_t;
typedef void (*agree_host_fn)(agree_host_t *host);

/* What a host has seen of the leader's end, by CLOCK_MONOTONIC; 0: not yet. */
typedef struct agree_sighting {
    _Atomic(uint64_t) evidence_ns; /* the kernel said that it is dead */
    _Atomic(uint64_t) leader_ns;   /* this host leads */
    _Atomic(uint64_t) commit_ns;   /* a command of this host was answered in a later term */
} agree_sighting_t;

typedef struct agree_shared {
    _Atomic(uint32_t) listening, up, formed, working; /* hosts that have come so far */
    _Atomic(uint32_t) serving;                        /* host 0 takes requests */
    _Atomic(uint32_t) ended;                          /* who measures has done so: host 0, or the client */
    _Atomic(bool) stop, failed;
    _Atomic(uint32_t) cut[AGREE_HOSTS_MAX]; /* bits: hosts that it has lost contact with */
    _Atomic(int) pids[AGREE_HOSTS_MAX];
    char addresses[AGREE_HOSTS_MAX][RF_ADDRESS_MAX];
    agree_sighting_t sightings[AGREE_HOSTS_MAX];
    double messages_per_commit, slots_per_commit;
    uint32_t n_samples;
    double samples[]; /* n_samples_max of them */
} agree_shared_t;

typedef enum agree_client {
    AGREE_CLIENT_NONE, /* in the process of host 0 */
    AGREE_CLIENT_TCP,
    AGREE_CLIENT_SHM,
} agree_client_t;

typedef struct agree_hosts {
    const bench_options_t *options;
    agree_config_t config;
    bool sleeps[AGREE_HOSTS_MAX];
    unsigned look_us[AGREE_HOSTS_MAX]; /* 0: never by the clock */
    unsigned cpus[AGREE_HOSTS_MAX];
    int nice[AGREE_HOSTS_MAX];
    unsigned batch, outstanding; /* proposals */
    unsigned per_proposal;       /* commands that one holds */
    size_t command_bytes;
    unsigned n_samples_max;
    agree_client_t client; /* measures, instead of host 0 */
    uint64_t lazy_ns;      /* see agree_node.h */
    int side[2];           /* of AGREE_CLIENT_SHM: host 0's, the client's */
    agree_host_fn body;    /* in each host, once the machine has formed */
    agree_shared_t *shared;
    pid_t pids[AGREE_HOSTS_MAX];
} agree_hosts_t;

/* A client of this host, with as many commands outstanding as its session may have. */
typedef struct agree_lane {
    uint64_t session, sequence;
} agree_lane_t;

struct agree_host {
    const agree_hosts_t *hosts;
    agree_shared_t *shared;
    unsigned index;
    agree_node_t *node;
    rf_endpoint_t *endpoint; /* over TCP; NULL: none */
    rf_endpoint_t *local;    /* over shared memory; NULL: none */
    rf_doorbell_t bell;      /* of a client over shared memory */
    rf_wait_t wait;
    uint64_t progress_ns;        /* when the endpoint wants to be called */
    unsigned idle;               /* looks in vain since the endpoint was */
    int pidfds[AGREE_HOSTS_MAX]; /* -1: not watched */
    agree_lane_t lanes[AGREE_LANES_MAX];
    unsigned n_lanes, lane; /* lane: whose turn it is */
};

/* How many processes. */
unsigned agree_hosts_n(const agree_hosts_t *hosts);

/* Starts them, and returns when all work. False, with a message; agree_hosts_end() is due in any case. */
bool agree_hosts_start(agree_hosts_t *hosts);
/* Waits until it has been measured. */
bool agree_hosts_wait(agree_hosts_t *hosts, uint64_t until_ns);
void agree_hosts_end(agree_hosts_t *hosts);

/* For bodies. One look at all links, and the endpoint now and then; what is to be sent is flushed. */
unsigned agree_host_look(agree_host_t *host);
/* The same, and if there was nothing, sleeps or goes on, as the host does. */
void agree_host_turn(agree_host_t *host);
/* Watches the process of another host; its end is an event of death to the engine. */
void agree_host_watch(agree_host_t *host, unsigned other);
/* Opens sessions for so many commands at once. */
bool agree_host_open_lanes(agree_host_t *host, unsigned outstanding);
/* Proposes a command of the next of them; `hold`: more follows at once. Nothing is flushed. */
void agree_host_propose(agree_host_t *host, const void *bytes, size_t size, bool hold);
bool agree_host_leads(const agree_host_t *host);

#endif
