/*
 * Members of a group for benches: each a group machine that takes part in everything at once. What goes to a member of the same
 * thread is handed over through a queue, what goes to another thread through a link. Actions are answered at once.
 */
#ifndef RF_BENCH_GROUP_NODE_H
#define RF_BENCH_GROUP_NODE_H

#include "bench.h"

#include "consensus/group.h"
#include "transport/message.h"

#define GROUP_NODES_MAX 16
#define GROUP_QUEUE_MAX 512 /* messages on their way within a thread, a power of two */
#define GROUP_DUE_MAX   64  /* actions not answered yet, a power of two */
#define GROUP_BENCHED   1   /* the group's number */

typedef struct group_queued {
    uint32_t size;
    uint8_t from, to, type;
    uint8_t bytes[GROUP_MESSAGE_MAX];
} group_queued_t;

typedef struct group_node {
    groups_t *groups;
    void *memory;
    unsigned index;
    rf_link_t *links[GROUP_NODES_MAX]; /* to members of other threads */
    bool touched[GROUP_NODES_MAX];
    rf_assembler_t assemblers[GROUP_NODES_MAX];
    struct {
        group_action_kind_t kind;
        uint64_t token;
    } due[GROUP_DUE_MAX];
    unsigned due_head, due_tail;
    uint64_t completed, refused; /* completions with RF_OK, with anything else */
    uint64_t prepared, applied;
    uint64_t sum; /* of what was applied, in order: the same at all members */
    rf_err_t last_err;
    uint64_t messages;
} group_node_t;

/* The members of one thread. */
typedef struct group_thread {
    unsigned n, first;                    /* members `first` to `first + n - 1` */
    group_node_t *nodes[GROUP_NODES_MAX]; /* by index; others NULL */
    const rf_transport_t *transport;
    unsigned head, tail;
    bool failed;
    group_queued_t queue[GROUP_QUEUE_MAX];
} group_thread_t;

/* NULL, with a message. */
group_thread_t *group_thread_open(unsigned first, unsigned n, unsigned members, group_plan_t plan);
void group_thread_close(group_thread_t *thread);

/* Steps one member, and all of this thread for as long as there are messages between them; flushes. */
void group_thread_step(group_thread_t *thread, unsigned index, const group_event_t *event);

/* What it takes to hand a message over to a member of the same thread, in ns. */
uint32_t group_thread_hop_ns(void);

/* Looks once at all links. Returns how many slots there were. */
unsigned group_thread_poll(group_thread_t *thread);

/* Events of member 0: forms the group of `members`, in this order (NULL: by number) and with these parents; asks for an operation. */
void group_thread_form(group_thread_t *thread, unsigned members, const uint8_t *order,
                       const uint8_t *parents);
void group_thread_operate(group_thread_t *thread, group_phase_t phase, uint64_t cookie);

#endif
