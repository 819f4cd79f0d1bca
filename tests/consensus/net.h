/*
 * Engines joined by an in-memory network with a seed and virtual time. Messages take some time, and by the knobs are
 * lost, repeated or overtaken; links are cut; members die, stall, are suspected wrongly; new incarnations join.
 *
 * A model beside it knows every entry that was applied anywhere, every answer that was given, and checks after every step:
 * one leader a term; all replicas apply the same entries, each command once; what was acknowledged stays, what was
 * denied, a command or a change of members, never happens; a read sees all that was acknowledged before it began. A breach goes to net_unsafe().
 */
#ifndef RF_TESTS_CONSENSUS_NET_H
#define RF_TESTS_CONSENSUS_NET_H

#include "consensus/agreement.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/prng.h"

#include <setjmp.h>
#include <string.h>

#define NET_CORES_MAX    9
#define NET_LOG_MAX      65536 /* indices */
#define NET_FLIGHT_MAX   4096
#define NET_PROPOSED_MAX 8192
#define NET_TERMS_MAX    4096
#define NET_READS_MAX    4096

#define US RF_NS_PER_US
#define MS RF_NS_PER_MS

typedef struct net_knobs {
    unsigned cores, per_host, per_package; /* cores of a host, of a package of it; 0: all */
    unsigned lose_percent, repeat_percent;
    bool reorder, lossless; /* lossless: resend is never, new links are told */
    unsigned log_max, entry_max, voters_max, sessions_max, proposals_max;
    unsigned witness_host;  /* 1 + host; 0: none */
    unsigned snapshot_size; /* of the machine; 0: a small one */
    agreement_plan_t plan;
    uint64_t lease_ns;
    bool no_timeouts;      /* elections on evidence only */
    uint64_t election_ns;  /* 0: 5 ms */
    uint64_t behind_ns;    /* 0: never */
    unsigned hold_percent; /* of what may be: the next event follows at once */
    bool plain;            /* engines without their shortcuts */
    unsigned lane_lines;   /* one-sided append; the test carries out what is written */
    group_params_t group;  /* groups_max 0: none; the test's watch does what they ask for */
    unsigned defects;
} net_knobs_t;

typedef struct net_proposal {
    rf_core_t core;
    rf_incarnation_t incarnation;
    uint64_t session, sequence, number; /* number: the payload; 0: a change of members or sessions */
    bool answered;
    bool carried_out,
        denied; /* of a change: some replica has applied it; its proposer was told that it never will be */
    rf_err_t err;
    uint64_t value;
} net_proposal_t;

typedef struct net_read {
    rf_core_t core;
    rf_incarnation_t incarnation;
    uint64_t needs; /* so many commands were acknowledged at least */
    bool answered;
    rf_err_t err;
} net_read_t;

typedef struct net_core {
    bool alive, expelled;
    rf_incarnation_t incarnation;
    agreement_t *engine;
    void *memory;
    uint64_t tick_ns, stalled_until_ns;
    uint64_t next_sequence;
    uint64_t n_done; /* commands executed: a prefix of net.history */
    uint64_t applied, committed, term;
    bool view_changed, role_changed;
    unsigned n_loads;
} net_core_t;

typedef struct net_message {
    agreement_member_t from, to;
    uint64_t at_ns, order;
    uint8_t type;
    size_t size;
    uint8_t bytes[];
} net_message_t;

typedef struct net {
    net_knobs_t knobs;
    rf_prng_t prng;
    uint64_t now_ns;
    net_core_t cores[NET_CORES_MAX];
    uint16_t host[NET_CORES_MAX];
    uint32_t package[NET_CORES_MAX];
    uint8_t witness[NET_CORES_MAX];
    bool cut[NET_CORES_MAX][NET_CORES_MAX]; /* from, to */
    uint64_t link_ns[NET_CORES_MAX][NET_CORES_MAX];
    uint64_t slow_ns[NET_CORES_MAX]
                    [NET_CORES_MAX]; /* a slow line: each message takes so long, behind the one before */
    uint64_t far_ns;                 /* all are apart by so much more */
    net_message_t *flight[NET_FLIGHT_MAX];
    unsigned n_flight;
    uint64_t order;
    net_proposal_t *proposed;
    unsigned n_proposed;
    net_read_t *reads;
    unsigned n_reads;
    uint64_t next_number;

    /* the model */
    uint64_t *entries; /* [NET_LOG_MAX] by index: hash of what was applied there; 0: nothing yet */
    uint64_t *history; /* commands, in the order executed */
    uint64_t *hashes;  /* of the first i commands */
    uint64_t n_history;
    uint64_t n_acked;                   /* the longest prefix whose last command was acknowledged */
    uint8_t *executed, *denied, *maybe; /* by number */
    agreement_member_t leaders[NET_TERMS_MAX];
    uint8_t *delivering; /* the last message delivered: a check that fails may leave by a jump */
    unsigned n_delivered, n_lost, n_steps;
    uint64_t types;  /* bits of the message types delivered */
    jmp_buf *unsafe; /* where a breach goes, instead of an abort */
    const char *breach;
    uint64_t hash;      /* of all that the engines have put out */
    uint64_t shortcuts; /* of engines that have ended */
    bool trace;         /* prints what is delivered, for a person */
    void (*watch)(struct net *n, rf_core_t core,
                  const agreement_output_t *out); /* after each step; or NULL */
} net_t;

net_t *net_new(const net_knobs_t *knobs, uint64_t seed);
void net_free(net_t *n);
void net_print(const net_t *n);
agreement_params_t net_params(net_t *n, agreement_member_t self);
_Noreturn void net_unsafe(net_t *n, const char *what);

/* One event into one engine, with everything that follows from it at that core. */
void net_step(net_t *n, rf_core_t core, agreement_event_t *event);
void net_form(net_t *n);
void net_receive(net_t *n, rf_core_t to, agreement_member_t from, uint8_t type, const void *bytes,
                 size_t size);

/* A command by the core's own session, or by another; its place in n->proposed. */
unsigned net_propose(net_t *n, rf_core_t core);
unsigned net_propose_as(net_t *n, rf_core_t core, uint64_t session, uint64_t sequence, uint64_t number);
/* These are to be expelled. */
unsigned net_expel(net_t *n, rf_core_t core, const agreement_member_t *leave, unsigned n_leave);
unsigned net_change(net_t *n, rf_core_t core, const rf_core_t *join, unsigned n_join,
                    const agreement_member_t *leave, unsigned n_leave);
unsigned net_session(net_t *n, rf_core_t core, agreement_event_kind_t kind, uint64_t session);
unsigned net_read(net_t *n, rf_core_t core);

/* Runs for so long. */
void net_run(net_t *n, uint64_t ns);
/* Until the condition holds, at most so long; whether it does. */
bool net_until(net_t *n, bool (*condition)(net_t *n, void *context), void *context, uint64_t ns);
bool net_answered(net_t *n, unsigned proposal, uint64_t ns);
bool net_all_answered(net_t *n, uint64_t ns);

void net_kill(net_t *n, rf_core_t core);
void net_tell_death(net_t *n, rf_core_t to, rf_core_t dead, agreement_evidence_t evidence);
void net_tell_all(net_t *n, rf_core_t dead); /* kernel evidence, everybody */
/* A process on `core` as that incarnation. */
void net_start(net_t *n, rf_core_t core, rf_incarnation_t incarnation);
void net_cut(net_t *n, rf_core_t a, rf_core_t b, bool cut);
void net_isolate(net_t *n, rf_core_t core, bool cut);
void net_heal(net_t *n); /* all links, stalls, loss */

agreement_state_t net_state(const net_t *n, rf_core_t core);
agreement_member_t net_member(const net_t *n, rf_core_t core);
/* Steps that all engines have made by shortcuts. */
uint64_t net_shortcuts(const net_t *n);
/* Who leads in the latest term; RF_CORE_NONE. */
rf_core_t net_leader(const net_t *n);
unsigned net_live_voters(const net_t *n, const agreement_state_t *s);
/* May this core die without the machine being lost? In a joint configuration nobody does. */
bool net_may_die(const net_t *n, rf_core_t core);
/* After quiet: live members hold the same. */
void net_check_quiet(net_t *n);

#endif
