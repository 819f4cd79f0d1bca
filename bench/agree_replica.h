/*
 * One replica for benches: an agreement engine and the smallest state machine that has something to answer, a sum of
 * the first words of all commands. What carries its messages is agree_direct.h (calls) or agree_node.h (links).
 */
#ifndef RF_BENCH_AGREE_REPLICA_H
#define RF_BENCH_AGREE_REPLICA_H

#include "bench.h"

#include "consensus/agreement.h"

#define AGREE_REPLICAS_MAX 64
#define AGREE_COMMAND_MAX  256 /* bytes */

typedef struct agree_config {
    unsigned n;                     /* members, cores 0 to n - 1, each on its own host unless `per_host` */
    unsigned voters;                /* how many, spread over hosts; 0: all, as far as voters go */
    unsigned per_host, per_package; /* cores; per_package 0: packages do not count */
    unsigned log_max;               /* 0: a default */
    unsigned entry_max;             /* bytes of a proposal; 0: AGREE_COMMAND_MAX */
    unsigned command_bytes;         /* a proposal holds several commands of so many bytes; 0: one */
    unsigned proposals;             /* outstanding at one member; 0: those of one session */
    unsigned lane_lines;            /* 0: no one-sided append */
    agreement_plan_t plan;
    agreement_weights_t weights;
    uint64_t resend_ns, heartbeat_ns, election_ns; /* 0: never */
} agree_config_t;

typedef struct agree_replica {
    agreement_t *engine;
    void *memory;
    rf_core_t core;
    unsigned command_bytes; /* of each of several commands in a proposal; 0: it is one */
    uint64_t sum, applied;  /* the state: commands' first words, and how many there were */
    uint64_t session;       /* opened by agree_*_open_session */
    uint64_t sequence;      /* of `session`: used so far */
    uint64_t own_sequence;  /* of the member's own session */
    uint16_t hosts[AGREE_REPLICAS_MAX];
    uint32_t packages[AGREE_REPLICAS_MAX];
    rf_core_t cores[AGREE_REPLICAS_MAX];
} agree_replica_t;

/* `r` must stay where it is. False, with a message, when it cannot be had. */
bool agree_replica_init(agree_replica_t *r, rf_core_t core, const agree_config_t *config);
void agree_replica_free(agree_replica_t *r);

/* The event that forms the machine of `config`, for core 0. */
agreement_event_t agree_replica_form(const agree_replica_t *r, const agree_config_t *config);

/* The next command of the session. Sets all of the event that is read but its time. */
static inline void agree_replica_command(agree_replica_t *r, agreement_event_t *event, const void *bytes,
                                         size_t size, bool hold)
{
    event->kind = AGREEMENT_PROPOSE;
    event->hold = hold;
    event->propose.session = r->session;
    event->propose.sequence = ++r->sequence;
    event->propose.bytes = bytes;
    event->propose.size = size;
}

#endif
