/* A simulated network of group machines, with callers, views, fences, and a model that checks what becomes visible. */
#ifndef RF_TESTS_GROUP_NET_H
#define RF_TESTS_GROUP_NET_H

#include "base/prng.h"
#include "consensus/group_state.h"

#define NET_NODES  8
#define NET_FLIGHT 4096
#define NET_OPS    1024
#define NET_GROUPS 3
#define NET_VIEWS  64

typedef struct packet {
    unsigned from, to;
    uint8_t type;
    size_t size;
    uint8_t *bytes;
} packet_t;

typedef struct pending {
    uint64_t token;
    bool prepare, refuse;
} pending_t;

typedef enum node_state { NODE_UP, NODE_STALLED, NODE_DEAD } node_state_t;

typedef struct node {
    agreement_member_t id;
    void *memory;
    groups_t *groups;
    node_state_t state;
    bool left, fenced;    /* the machine has expelled it; nothing of it runs */
    unsigned views;       /* applied here */
    uint64_t told_fenced; /* bits of nodes */
    pending_t pending[64];
    unsigned n_pending;
    uint64_t tick_ns;
    bool more;
    bool holds[NET_GROUPS]; /* its caller has a mapping of that group's object */
    uint16_t order[NET_GROUPS][NET_OPS];
    unsigned n_order[NET_GROUPS];
} node_t;

typedef struct model_op {
    unsigned node, phase, n_groups;
    unsigned groups[GROUP_OBJECTS_MAX];
    bool done, ok, failed;
    rf_err_t err;
    uint64_t applied, aborted, prepared; /* bits of nodes */
    uint64_t number;
} model_op_t;

typedef struct net {
    rf_prng_t prng;
    uint64_t now;
    unsigned n, loss, dup, refuse, hostile; /* per mille */
    node_t nodes[NET_NODES];
    packet_t flight[NET_FLIGHT];
    unsigned n_flight;
    model_op_t ops[NET_OPS];
    unsigned n_ops;
    uint64_t left_order[NET_VIEWS]; /* nodes that left, by view */
    unsigned n_views;
    bool fifo, weighted;
    uint64_t formed, hash;
    unsigned completions, others; /* answers to operations, to other requests */
    rf_err_t other_err[64];
    const char *violation;
    char text[160];
    void (*watch)(struct net *net, unsigned node, const group_event_t *event); /* after each step; or NULL */
} net_t;

typedef struct net_knobs {
    unsigned nodes, loss, dup, refuse, hostile, defects;
    bool fifo;
    group_plan_t plan;
    bool weighted; /* TREE: parents by group_plan_weigh() */
    uint64_t resend_ns;
} net_knobs_t;

void net_init(net_t *net, uint64_t seed, const net_knobs_t *knobs);
void net_free(net_t *net);
void net_event(net_t *net, unsigned node, const group_event_t *event);
void net_form(net_t *net, unsigned node, unsigned group, unsigned n);
int net_operate(net_t *net, unsigned node, group_phase_t phase, unsigned groups_mask); /* which; -1: none */
void net_change(net_t *net, unsigned node, group_event_kind_t kind, unsigned group, unsigned through,
                uint64_t cookie);
void net_die(net_t *net, unsigned node);
void net_leave_view(net_t *net, unsigned node); /* agreed; members learn it each in its time */
void net_fence(net_t *net, unsigned node);
bool net_step(net_t *net); /* something random; false: nothing is left to do but to wait */
void net_quiet(net_t *net, unsigned steps_max); /* all views, fences and messages arrive */
void net_check_end(net_t *net);
uint64_t net_group(unsigned group);

#endif
