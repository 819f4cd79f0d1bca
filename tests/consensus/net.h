/*
 * Engines joined by an in-memory network with a seed: messages are delivered in any order the knobs allow, lost and
 * repeated. Members die; everybody else is told, some time later. A model beside it knows what was proposed, answered
 * and applied, and checks after every step that the logs agree and nothing is applied twice.
 */
#ifndef RF_TESTS_CONSENSUS_NET_H
#define RF_TESTS_CONSENSUS_NET_H

#include "consensus/agreement.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/prng.h"

#include <string.h>

#define NET_CORES_MAX    8
#define NET_LOG_MAX      8192
#define NET_FLIGHT_MAX   8192
#define NET_PROPOSED_MAX 8192

typedef struct net_knobs {
    unsigned cores;
    unsigned lose_percent, repeat_percent;
    bool reorder;
    unsigned log_max, entry_max;
    uint64_t resend_ns; /* RF_NEVER with links that lose nothing */
} net_knobs_t;

typedef struct net_proposal {
    rf_core_t core;
    uint64_t session, sequence, number; /* number: the payload */
    bool answered;
    rf_err_t err;
    uint64_t value;
} net_proposal_t;

typedef struct net_core {
    bool alive;
    agreement_t *engine;
    void *memory;
    uint64_t tick_ns;
    uint64_t next_sequence;
    unsigned n_log;
    uint64_t log[NET_LOG_MAX]; /* payload numbers, in the order applied; down entries as DOWN | core */
    unsigned n_group;
    uint64_t group_log[256];
    unsigned reads_done, groups_done;
    rf_err_t read_err, group_err;
    uint64_t read_value;
    bool view_changed;
} net_core_t;

#define NET_DOWN (1ull << 63)

typedef struct net_message {
    rf_core_t from, to;
    uint8_t type;
    size_t size;
    uint8_t bytes[AGREEMENT_MESSAGE_MAX];
} net_message_t;

typedef struct net {
    net_knobs_t knobs;
    rf_prng_t prng;
    uint64_t now_ns;
    net_core_t cores[NET_CORES_MAX];
    net_message_t *flight[NET_FLIGHT_MAX];
    unsigned n_flight;
    net_proposal_t *proposed;
    unsigned n_proposed;
    uint64_t next_number;
    unsigned n_delivered, n_lost;
} net_t;

net_t *net_new(const net_knobs_t *knobs, uint64_t seed);
void net_free(net_t *n);

/* One event into one engine, with everything that follows from it at that core. */
void net_step(net_t *n, rf_core_t core, agreement_event_t *event);
void net_form(net_t *n);

/* A command, by the core's own session unless `session` says another; returns its place in n->proposed. */
unsigned net_propose(net_t *n, rf_core_t core);
unsigned net_propose_as(net_t *n, rf_core_t core, uint64_t session, uint64_t sequence, uint64_t number);

/* Delivers one message, or loses it; false: none is under way. */
bool net_deliver(net_t *n);
/* Until nothing is under way and nobody waits for time. */
void net_settle(net_t *n);

void net_kill(net_t *n, rf_core_t core); /* silently */
void net_tell_death(net_t *n, rf_core_t to, rf_core_t dead);

agreement_state_t net_state(const net_t *n, rf_core_t core);

/* Logs are prefixes of one another, no number twice. */
void net_check(const net_t *n);
/* After settling: every proposal is answered; what was answered RF_OK is in every live log; live logs are equal. */
void net_check_quiet(const net_t *n);

#endif
