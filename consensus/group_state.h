/*
 * What a member knows of its groups; see group.h for the contract. Private to group_*.c:
 *
 *   group_step.c     init, the one step, output and its room
 *   group_wire.c     bytes of messages
 *   group_recv.c     what each message does
 *   group_request.c  the caller's own requests, and operations on several objects
 *   group_member.c   carrying operations out in order, acknowledging them
 *   group_owner.c    numbering, stages, locks, changes of the members
 *   group_resolve.c  wedge, report, decide, install
 *
 * Every message is made from state, by group_run(), when the state says that it is due: what was lost is due again.
 */
#ifndef RF_CONSENSUS_GROUP_STATE_H
#define RF_CONSENSUS_GROUP_STATE_H

#include <string.h>

#include "base/assert.h"
#include "consensus/group.h"

#define NONE_16     UINT16_MAX
#define NO_POSITION UINT8_MAX
#define PAST_MAX    4                   /* members that have left, whose results are still kept */
#define NUMBER_MAX  ((uint64_t)1 << 62) /* numbers, epochs, counters of messages are below it */
#define EPHEMERAL   ((uint64_t)1 << 63) /* ids of groups that carry one operation on several objects */
#define BITS(n)     ((n) >= 64 ? UINT64_MAX : ((uint64_t)1 << (n)) - 1)
#define BIT(i)      ((uint64_t)1 << (i))
#define ARENA_BYTES                                                                                          \
    (3 * GROUP_MESSAGE_MAX + GROUP_MESSAGES_MAX * GROUP_MEMBERS_MAX * sizeof(agreement_member_t))

typedef enum stage {
    STAGE_PREPARE = 1,
    STAGE_DECIDED = 2, /* committed: recorded, invisible */
    STAGE_STABLE = 3,  /* to be carried out: `err` 0: applied, else aborted. One-phase: from the start */
} stage_t;

/* What has been done here with an operation. */
typedef enum acted {
    ACTED_NONE = 0,
    ACTED_PREPARING = 1, /* the caller has been asked */
    ACTED_PREPARED = 2,
    ACTED_REFUSED = 3,
    ACTED_APPLYING = 4, /* the caller has been asked */
    ACTED_PASSED = 5,
} acted_t;

/* An operation with a number, in its group's ring. */
typedef struct op {
    uint64_t number; /* 0: none */
    agreement_member_t requester;
    uint64_t counter;
    uint8_t phase, stage, err, n_groups;
    uint8_t acted;
    uint8_t requester_at; /* its position */
    uint8_t refused;      /* why, here */
    bool ack_due;
    bool holds;      /* its objects are held here: see group_t.held */
    bool result_due; /* owner: one-phase, done everywhere: the requester is to be told */
    uint32_t size;
    uint64_t groups[GROUP_OBJECTS_MAX], epochs[GROUP_OBJECTS_MAX];
    agreement_member_t up; /* who is told what is done here */
    uint64_t done;         /* who has done `stage`, as far as is known here: this member and what it feeds */
    bool feeds;            /* this stage came by the tree: answers for all that it feeds */
    uint64_t feed;         /* still to be fed */
    uint64_t waiting;      /* owner: who has not done `stage` */
    uint64_t send;         /* owner: who is still to be sent `stage` */
    bool direct;           /* owner: sent again: not by the tree */
    uint64_t sent_ns;
    uint8_t bytes[];
} op_t;

typedef struct entry {
    agreement_member_t member;
    uint32_t nonce; /* of its JOIN; 0: a founder */
    uint8_t parent;
    bool leaving;     /* no member any more, still to be told so */
    bool gone;        /* has said that it does not hold the group */
    bool left;        /* has left the view */
    uint64_t highest; /* its last counter that was carried out */
    uint8_t results[GROUP_WINDOW];
    uint64_t assigned; /* owner: its last counter that has a number */
    uint64_t lock_id;  /* owner: the lock that it asks for */
} entry_t;

typedef struct past {
    agreement_member_t member; /* core RF_CORE_NONE: none */
    uint64_t highest;
    uint8_t results[GROUP_WINDOW];
} past_t;

typedef struct joiner {
    agreement_member_t member; /* core RF_CORE_NONE: none */
    uint32_t nonce;
} joiner_t;

#define JOINERS_MAX 4

typedef struct group {
    uint64_t id, epoch;
    uint16_t index, chain, dirty_next;
    bool used, dirty;
    unsigned n, self;               /* entries; this member's */
    uint64_t members;               /* positions of members: not leaving, not gone */
    uint64_t fed;                   /* positions that this member answers for in the tree, itself too */
    uint64_t last, passed, retired; /* known; carried out here; owner: carried out everywhere */
    uint64_t counter;               /* of the last own request */
    uint16_t own[GROUP_WINDOW];     /* own requests, by counter */
    uint64_t token;                 /* of the action that the caller is carrying out; 0: none */
    uint64_t token_number;
    unsigned
        held; /* operations on several objects, of which this is one, prepared and not carried out here */
    uint8_t plan;
    bool acks_due, results_due, change_maybe; /* false: there is none to look for */
    bool changed_due;                         /* the caller is to be told */
    bool ending;                              /* the group ends: everybody is leaving */
    bool ended;                               /* the caller has been told that this member holds it no more */

    /* A member has left the view, or is being asked to help those who know of one. */
    bool wedged, report_due, collecting;
    uint64_t wedge_view;
    uint64_t collect_view; /* asked for a report once this view has been applied; 0: not */
    agreement_member_t collect_from, report_to;
    uint64_t collect_epoch;
    uint64_t reported, blank; /* collecting, installing: who has reported; who does not hold the group yet */
    uint64_t collect_send, collect_base;

    /* Installing an epoch. */
    bool installing, install_ack_due;
    agreement_member_t install_from;
    uint64_t install_waiting, install_send;
    uint64_t sent_ns;

    /* Owner: what has been asked of it. */
    uint64_t pulls, locks, leaves;
    uint64_t drop_send, drop_waiting; /* told that they have left; have not said that they know */
    unsigned turn;
    joiner_t joiners[JOINERS_MAX];
    uint64_t lock_id; /* 0: not locked */
    agreement_member_t lock_holder;
    bool grant_due, destroy_asked;
    uint16_t form_request; /* whose completion waits */
    bool lock_yields;      /* operations go before the next lock */

    past_t past[PAST_MAX];
    unsigned past_next;
    entry_t *entries;
    uint8_t *ring;
} group_t;

typedef enum request_kind {
    REQUEST_NONE = 0,
    REQUEST_FORM,
    REQUEST_JOIN,
    REQUEST_LEAVE,
    REQUEST_DESTROY,
    REQUEST_OPERATE, /* of one group */
    REQUEST_SEVERAL, /* of several */
    REQUEST_QUERY,
    REQUEST_FINISHED, /* its completion waits for room */
} request_kind_t;

typedef enum several {
    SEVERAL_QUEUED = 0,
    SEVERAL_LOCKING = 1,
    SEVERAL_FORMING = 2,
    SEVERAL_OPERATING = 3,
    SEVERAL_ENDING = 4,
} several_t;

typedef struct request {
    uint8_t kind, phase, n_groups, several, err;
    bool send_due;
    uint32_t nonce;
    uint64_t cookie, group, counter;
    agreement_member_t to; /* JOIN */
    uint64_t groups[GROUP_OBJECTS_MAX], epochs[GROUP_OBJECTS_MAX];
    unsigned locked;  /* SEVERAL: how many */
    uint64_t lock_id; /* SEVERAL: this attempt, and its group */
    group_op_id_t id; /* the operation's name; QUERY: asked for */
    uint64_t sent_ns;
    uint64_t order;
    uint32_t size;
    uint8_t bytes[];
} request_t;

struct groups {
    group_params_t params;
    unsigned pipeline, buckets_mask;
    size_t op_stride, request_stride;
    uint64_t now, view, token, timer_ns, order;
    uint32_t nonce;
    uint16_t dirty_first, dirty_last;
    uint16_t several;    /* the request that locks; NONE_16 */
    uint16_t forming;    /* the group that is being formed */
    uint32_t form_nonce; /* ... which FORM of this member that is */
    bool requests_due;
    uint32_t *left, *fenced; /* [n_cores] last incarnation that has left the view, is fenced */
    uint64_t *formed;        /* [n_cores] incarnation and nonce of the last group that it formed here */
    uint16_t *buckets;
    group_t *groups;
    uint8_t *requests;
    size_t arena_used;
    group_output_t output;
    _Alignas(8) uint8_t arena[ARENA_BYTES];
};

/* Every message begins with it; what follows depends on `kind`. */
typedef struct wire_member {
    uint16_t core, zero;
    uint32_t incarnation;
} wire_member_t;

typedef struct wire {
    uint8_t kind;
    uint8_t stage : 4, phase : 4; /* low bits first */
    uint8_t err, flags;
    uint8_t n_groups : 4, n_ops : 4;
    uint8_t n_entries;
    uint16_t size;
    uint64_t group, epoch;
    uint64_t number;  /* of an operation; INSTALL, REPORT: the last */
    uint64_t value;   /* mask, nonce, lock id or cookie, by kind; INSTALL, REPORT: carried out up to here */
    uint64_t counter; /* of an operation; COLLECT, REPORT: view */
    wire_member_t member;
} wire_t;
_Static_assert(sizeof(wire_t) == 56, "no padding, and one slot of a link");
_Static_assert(GROUP_OBJECTS_MAX < 16 && PAST_MAX < 16 && GROUP_WINDOW < 16, "four bits each");

typedef struct wire_entry {
    wire_member_t member;
    uint32_t nonce;
    uint8_t parent, leaving, zero[2];
    uint64_t highest;
    uint8_t results[GROUP_WINDOW];
} wire_entry_t;
_Static_assert(sizeof(wire_entry_t) == 32, "no padding");

typedef struct wire_op {
    uint64_t number, counter;
    wire_member_t member;
    uint8_t phase, stage, err, n_groups;
    uint32_t size;
} wire_op_t;
_Static_assert(sizeof(wire_op_t) == 32, "no padding");

/* For one message of any size, one action, one completion. */
static inline bool group_output_room(const groups_t *s)
{
    const group_output_t *o = &s->output;
    return o->n_messages < GROUP_MESSAGES_MAX && o->n_actions < GROUP_ACTIONS_MAX &&
           o->n_completions < GROUP_COMPLETIONS_MAX &&
           s->arena_used + GROUP_MESSAGE_MAX + GROUP_MEMBERS_MAX * sizeof(agreement_member_t) <= ARENA_BYTES;
}

typedef enum kind {
    KIND_OPERATE = 1, /* GROUP_REQUEST */
    KIND_JOIN,
    KIND_LEAVE,
    KIND_LOCK,
    KIND_UNLOCK,
    KIND_QUERY,
    KIND_OP, /* GROUP */
    KIND_INSTALL,
    KIND_PULL,
    KIND_RESULT,
    KIND_GRANT,
    KIND_DROP,
    KIND_ANSWER,
    KIND_COLLECT,
    KIND_REDIRECT,
    KIND_DONE, /* GROUP_ACK */
    KIND_INSTALLED,
    KIND_GONE,
    KIND_REPORT, /* GROUP_REPORT */
    KIND_COUNT,
} kind_t;

#define FLAG_TREE 1 /* OP: the receiver feeds its children, and answers for them */
#define FLAG_BLANK                                                                                           \
    2 /* REPORT: does not hold the group, waits to join it. INSTALL: receiver holds nothing yet */
#define FLAG_ENDING    4
#define FLAG_FORM      8 /* INSTALL: a new group; value of `counter`: the former's nonce */
#define FLAG_UNICAST   16
#define FLAG_PLAN_TREE 32

static inline bool same(agreement_member_t a, agreement_member_t b)
{
    return a.core == b.core && a.incarnation == b.incarnation;
}

static inline const agreement_member_t *nobody(void)
{
    static const agreement_member_t none = {.core = RF_CORE_NONE};
    return &none;
}

static inline op_t *ring_at(const groups_t *s, const group_t *g, uint64_t number)
{
    return (op_t *)(void *)(g->ring + (number & (s->pipeline - 1)) * s->op_stride);
}

/* The operation of this number; NULL: not known here (any more). */
static inline op_t *op_find(const groups_t *s, const group_t *g, uint64_t number)
{
    op_t *op = ring_at(s, g, number);
    return number != 0 && op->number == number ? op : NULL;
}

static inline request_t *request_at(const groups_t *s, unsigned index)
{
    return (request_t *)(void *)(s->requests + index * s->request_stride);
}

static inline bool is_owner(const group_t *g)
{
    return g->self == 0;
}

static inline bool has_left(const groups_t *s, agreement_member_t m)
{
    return m.core < s->params.n_cores && m.incarnation <= s->left[m.core];
}

static inline bool is_fenced(const groups_t *s, agreement_member_t m)
{
    return m.core < s->params.n_cores && m.incarnation <= s->fenced[m.core];
}

static inline wire_member_t to_wire(agreement_member_t m)
{
    return (wire_member_t){.core = m.core, .incarnation = m.incarnation};
}

static inline agreement_member_t from_wire(wire_member_t m)
{
    return (agreement_member_t){.core = m.core, .incarnation = m.incarnation};
}

/* group_step.c */
group_t *group_find(const groups_t *s, uint64_t id);
group_t *group_create(groups_t *s, uint64_t id); /* NULL: groups_max are held */
void group_drop(groups_t *s, group_t *g);
void group_dirty(groups_t *s, group_t *g);
unsigned group_position(const group_t *g, agreement_member_t m); /* NO_POSITION: not in it */
void group_send_one(groups_t *s, agreement_member_t to, uint8_t type, const wire_t *wire);
uint8_t *group_send_begin(groups_t *s); /* GROUP_MESSAGE_MAX bytes to write a message to */
void group_send_end(groups_t *s, uint8_t type, size_t size, const group_t *g, uint64_t mask);
void group_send_end_one(groups_t *s, uint8_t type, size_t size, agreement_member_t to);
const void *group_output_copy(groups_t *s, const void *bytes,
                              size_t size); /* until the next step; after group_output_room() */
void group_complete(groups_t *s, uint64_t cookie, rf_err_t err, const group_op_id_t *id);
group_action_t *group_act(groups_t *s, group_t *g, group_action_kind_t kind, op_t *op);
void group_timer(groups_t *s, uint64_t sent_ns);
bool group_timer_due(const groups_t *s, uint64_t sent_ns);
void group_ignore(groups_t *s, const char *why);

/* group_wire.c */
bool group_wire_check(uint8_t type, const void *bytes, size_t size, wire_t *out);
size_t group_wire_op_message(const groups_t *s, const group_t *g, const op_t *op, uint8_t flags, uint8_t *to);
size_t group_wire_state(const groups_t *s, const group_t *g, kind_t kind, uint8_t flags, uint64_t counter,
                        uint8_t *to);

/* A state as received: checked, copied field by field by whoever adopts it. */
typedef struct state_view {
    wire_t head;
    wire_entry_t entries[GROUP_MEMBERS_MAX];
    wire_entry_t past[PAST_MAX];
    unsigned n_past;
    struct {
        wire_op_t op;
        uint64_t groups[GROUP_OBJECTS_MAX], epochs[GROUP_OBJECTS_MAX];
        const uint8_t *bytes;
    } ops[GROUP_WINDOW];
} state_view_t;

bool group_wire_state_read(const groups_t *s, const wire_t *head, const uint8_t *bytes, size_t size,
                           state_view_t *out);

/* group_recv.c */
void group_receive(groups_t *s, agreement_member_t from, uint8_t type, const uint8_t *bytes, size_t size);

/* group_request.c */
void group_request_event(groups_t *s, const group_event_t *event);
void group_requests_run(groups_t *s);
void group_requests_tick(groups_t *s);
void group_request_finish(groups_t *s, unsigned index, rf_err_t err);
void group_requests_view(groups_t *s);
void group_requests_changed(groups_t *s,
                            group_t *g); /* another epoch, or it ends: what is not numbered is due */
void group_requests_again(groups_t *s, group_t *g); /* the owner has room */
void group_requests_own_passed(groups_t *s, group_t *g, uint64_t counter, rf_err_t err);
void group_requests_granted(groups_t *s, uint64_t lock_id, uint64_t group, uint64_t epoch);
void group_requests_formed(groups_t *s, group_t *g, rf_err_t err);
void group_requests_gone(groups_t *s, group_t *g);
bool group_request_pull(groups_t *s, group_t *g); /* numbers the owner's own next request; false: none */
uint16_t group_request_joining(const groups_t *s, uint64_t group); /* waits to join it; NONE_16 */

/* group_member.c */
void group_member_run(groups_t *s, group_t *g);
void group_member_answer(groups_t *s, uint64_t token, rf_err_t err, bool prepared);
void group_member_learnt(groups_t *s, group_t *g, op_t *op, agreement_member_t from,
                         bool tree); /* op->stage is new here */
void group_member_again(groups_t *s, group_t *g, op_t *op, agreement_member_t from, bool tree); /* is not */
void group_dedup_note(uint64_t *highest, uint8_t *results, uint64_t counter, uint8_t err);

/* group_owner.c */
void group_owner_run(groups_t *s, group_t *g);
void group_owner_tick(groups_t *s, group_t *g);
bool group_owner_can_number(const groups_t *s, const group_t *g);
void group_owner_number(groups_t *s, group_t *g, unsigned requester, uint64_t counter, group_phase_t phase,
                        const request_t *several, const void *bytes, size_t size);
void group_owner_done(groups_t *s, group_t *g, op_t *op, uint64_t mask, uint8_t err);
void group_owner_unlock(groups_t *s, group_t *g);
void group_owner_installed(groups_t *s, group_t *g);
op_t *group_op_in_progress(const groups_t *s, const group_t *g, agreement_member_t m, uint64_t counter);

/* group_resolve.c */
void group_resolve_run(groups_t *s, group_t *g);
void group_resolve_tick(groups_t *s, group_t *g);
void group_resolve_view(groups_t *s, group_t *g);
void group_resolve_gone(groups_t *s, group_t *g, unsigned position);
void group_resolve_collect(groups_t *s, group_t *g, agreement_member_t from, uint64_t epoch, uint64_t view);
void group_resolve_report(groups_t *s, group_t *g, agreement_member_t from, const state_view_t *in);
void group_resolve_blank(groups_t *s, group_t *g, unsigned position);
void group_adopt(groups_t *s, group_t *g, const state_view_t *in, bool blank);
void group_install(groups_t *s, group_t *g, uint64_t blank); /* entries are the new ones; sends them to all */
void group_recompute(groups_t *s, group_t *g);
uint64_t group_compact(group_t *g, uint64_t keep,
                       uint64_t mask); /* keeps these entries; mask in their new positions */

/* What is due of a group, as far as there is room. */
void group_run(groups_t *s, group_t *g);

#endif
