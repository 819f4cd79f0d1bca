/*
 * A replica behind links, of any medium: polls them, feeds the engine, carries out what it wants sent. One thread.
 *
 * A burst of messages that one poll found is stepped with `hold` but for the last, so that one message answers them all;
 * nothing is flushed before agree_node_flush().
 */
#ifndef RF_BENCH_AGREE_NODE_H
#define RF_BENCH_AGREE_NODE_H

#include "agree_replica.h"

#include "base/clock.h"
#include "transport/message.h"

#define AGREE_NODES_MAX 16
#define AGREE_BURST     64 /* slots a poll, unless the node says otherwise */
#define AGREE_BURST_MAX 512
#define AGREE_OTHER     1 /* type of messages that are not the protocol's */

typedef struct agree_node agree_node_t;

struct agree_node {
    agree_replica_t replica;           /* a client's has no engine */
    const rf_transport_t *transport;   /* between members */
    unsigned n;                        /* members, then clients */
    unsigned n_members;                /* clients' links are flushed first: they wait; 0: no matter */
    unsigned burst;                    /* slots a poll; 0: AGREE_BURST */
    rf_link_t *links[AGREE_NODES_MAX]; /* by core; NULL: none */
    bool touched[AGREE_NODES_MAX];     /* sent to, not flushed */
    bool refused[AGREE_NODES_MAX];     /* a message was dropped for want of room */
    bool cut[AGREE_NODES_MAX];         /* what comes from there and goes there is dropped: a partition */
    bool
        failed; /* a link carried what is no message, or bytes that are not the protocol's; or the engine refused an event */
    const char *why;
    uint64_t now_ns, next_tick_ns;
    /* What the engine would say at its next tick, and that tick were due at once, waits so long for a message to ride on. */
    uint64_t lazy_ns, lazy_at_ns;
    uint64_t messages, slots;       /* sent */
    uint64_t answered, refused_err; /* proposals answered with RF_OK, with anything else */
    rf_err_t last_err;
    uint64_t last_value;
    bool role_changed;
    /* A message that is not the protocol's: from a client, or to one; `hold`: more follows at once. */
    void (*on_other)(agree_node_t *node, unsigned from, const void *bytes, size_t size, bool hold);
    void (*on_lane)(agree_node_t *node,
                    const agreement_lane_output_t *out); /* one-sided append; NULL: none */
    void (*on_answer)(agree_node_t *node, const agreement_completion_t *completion);
    /* A client's turn: the links have been looked at, and nothing is flushed yet. */
    void (*on_turn)(agree_node_t *node);
    void *context; /* of whoever set these */
    rf_assembler_t assemblers[AGREE_NODES_MAX];
};

/* The engine's time: the tick counter, without a system call. */
void agree_clock_start(void);
uint64_t agree_clock_ns(void);

/* Steps the engine and sends what it says; nothing is flushed. Sets now_ns of the event from the node's. */
void agree_node_step(agree_node_t *node, agreement_event_t *event);

/* Looks once at every link, and at the time. Returns how many slots there were. */
unsigned agree_node_poll(agree_node_t *node);

/* Makes what was sent visible. */
void agree_node_flush(agree_node_t *node);

/* Proposes a command of the replica's session; `hold`: more follows at once. */
void agree_node_propose(agree_node_t *node, const void *bytes, size_t size, bool hold);

/* Sends a message that is not the protocol's. */
void agree_node_send_other(agree_node_t *node, unsigned to, const void *bytes, size_t size);

agreement_member_t agree_member(unsigned core);

#endif
