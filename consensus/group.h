/*
 * Group operations: two-phase and one-phase agreement on a small set of members. A pure state machine,
 *
 *      groups_step(groups, event) -> output
 *
 * without clock, I/O, randomness or allocation after init; it needs no quorum, only the views. What it keeps true
 * (doc/agreement.md, "Group operations", has the messages, states and arguments):
 *
 *   - a group is an object with an owner, which numbers the operations on it; members carry them out in that order
 *   - one-phase: completes when every member has applied it or is fenced
 *   - two-phase: prepare, committed (recorded everywhere, invisible), stable (every member not fenced has recorded
 *     it), applied; completes only then. Any member may refuse: aborted everywhere
 *   - several objects: locked in id order at their owners, losers queue; then one two-phase operation among the
 *     members of all of them
 *   - a member leaves the view: survivors wedge (refuse the old epoch), then report to the owner, or to the first
 *     survivor of the list if the owner has left, who decides when all survivors have reported: any committed or
 *     stable means commit, else abort; recorded at all before it is acted on; a further departure repeats this
 *   - joining goes through the owner and waits for earlier operations; all members have recorded a new holder
 *     before anything is sent to it
 *   - a request is executed once, however often it is sent, also by the next owner (op id = member, counter)
 *
 * Sources: view synchrony and wedging: Birman and Joseph 1987, Derecho (Jha et al., TOCS 2019, 3-4); group
 * operations on cores: Baumann et al., SOSP 2009, 4.4 and 5; capability locks: Barrelfish TN-013.
 *
 * Owner: one thread.
 */
#ifndef RF_CONSENSUS_GROUP_H
#define RF_CONSENSUS_GROUP_H

#include "base/error.h"
#include "base/types.h"
#include "consensus/member.h"

#define GROUP_MEMBERS_MAX     64 /* of one group: RF_DISPATCHERS_PER_DOMAIN_MAX */
#define GROUP_OBJECTS_MAX     4  /* objects of one operation */
#define GROUP_WINDOW          8  /* own operations outstanding in one group; results kept, for each member */
#define GROUP_BYTES_MAX       1024 /* of one operation, whatever the parameters say */
#define GROUP_MESSAGE_MAX     4096 /* bytes of one message */
#define GROUP_MESSAGES_MAX    16   /* of one output; `more` says that there are others */
#define GROUP_ACTIONS_MAX     16
#define GROUP_COMPLETIONS_MAX 16
#define GROUP_TYPE_FIRST      0xdc
#define GROUP_TYPE_LAST       0xdf

typedef struct groups groups_t;

/* Deliberate defects, for tests of the tests; 0 in every real machine. */
typedef enum group_defect {
    GROUP_DEFECT_REPLY_BEFORE_STABLE = 1
                                       << 0, /* two-phase: applied and answered when committed at the owner */
    GROUP_DEFECT_REPORT_BEFORE_WEDGE =
        1 << 1, /* reports, goes on taking the old epoch's messages, decides at once */
    GROUP_DEFECT_ONE_PHASE_UNNUMBERED = 1 << 2, /* members apply one-phase operations as they come */
} group_defect_t;

/* How the owner reaches the members. */
typedef enum group_plan {
    GROUP_PLAN_BROADCAST = 0, /* one message to all at once */
    GROUP_PLAN_UNICAST = 1,   /* one message to each, in turn */
    GROUP_PLAN_TREE = 2,      /* each member feeds its children (FORM's parents) and answers for them */
} group_plan_t;

typedef struct group_params {
    agreement_member_t self;
    rf_core_t n_cores;    /* core numbers are below it */
    unsigned groups_max;  /* groups held here at once; 0: groups are not used, nothing is kept for them */
    unsigned members_max; /* of one group, at most GROUP_MEMBERS_MAX */
    unsigned ops_max;     /* own requests outstanding at once */
    unsigned bytes_max;   /* of one operation, at most GROUP_BYTES_MAX */
    uint64_t
        resend_ns; /* what is unanswered is sent again after this, or after 1 s if that is less. Needed also where
                             links lose nothing: what races with a departure is dropped */
    group_plan_t plan; /* of groups formed here */
    unsigned defects;  /* group_defect_t; 0 */
} group_params_t;

/* An operation's name, for ever: `counter` rises by one for each operation that `member` asks of `group`. */
typedef struct group_op_id {
    uint64_t group; /* the first, of several */
    agreement_member_t member;
    uint64_t counter;
} group_op_id_t;

typedef enum group_event_kind {
    GROUP_TICK = 1, /* time has passed; also asks for the rest of an output that said `more` */
    GROUP_RECEIVE,  /* a message from another member of the machine */
    GROUP_ROOM,     /* the link to `peer` is up, or takes messages again */
    GROUP_VIEW, /* a view was applied, in which these members are no longer. Every view is told, also one that
                       nobody has left with, in the views' order; several at once by the last's number, with all who
                       have left until then. After a snapshot: its view, and all that have ever left, of each core
                       the last. Whoever says a number has been told of the same departures as all who say it */
    GROUP_FENCED, /* a member that has left is fenced: nothing of it runs, nothing it sends is delivered */
    GROUP_FORM,   /* a new group, owned by the caller; completes when all members have it */
    GROUP_JOIN,   /* the caller becomes a member, asking `through`, any member of the group */
    GROUP_LEAVE, /* the caller leaves the group; not its owner, whose groups pass on when it leaves the view */
    GROUP_DESTROY,  /* the group ends at all members; owner only */
    GROUP_OPERATE,  /* an operation, of one or (two-phase) of several groups that the caller is a member of */
    GROUP_PREPARED, /* the answer to GROUP_ACTION_PREPARE */
    GROUP_APPLIED,  /* the answer to GROUP_ACTION_APPLY */
    GROUP_QUERY,    /* what became of an operation, asked of the group's owner */
} group_event_kind_t;

typedef enum group_phase {
    GROUP_ONE_PHASE = 1,
    GROUP_TWO_PHASE = 2,
} group_phase_t;

/* All pointers in an event are only read during the step. */
typedef struct group_event {
    group_event_kind_t kind;
    uint64_t now_ns; /* never falls */
    union {
        struct {
            agreement_member_t from; /* as the link knows it */
            uint8_t type;
            const void *bytes; /* hostile until checked */
            size_t size;
        } receive;
        agreement_member_t peer; /* ROOM */
        struct {
            uint64_t view; /* its number, of full 64 bits, rising */
            const agreement_member_t *left;
            unsigned n_left;
        } view;
        agreement_member_t fenced;
        struct {
            uint64_t group, cookie;            /* group: never used before, below 2^63 */
            const agreement_member_t *members; /* in the order of succession; the first is the caller */
            unsigned n_members;
            const uint8_t
                *parents; /* GROUP_PLAN_TREE: [n_members] index of each one's parent, which is lower; the
                                       caller's own is 0; NULL: a binary tree by the list's order */
        } form;
        struct {
            uint64_t group, cookie;
            agreement_member_t through; /* JOIN */
        } change;                       /* JOIN, LEAVE, DESTROY */
        struct {
            uint64_t cookie;
            group_phase_t phase;
            const uint64_t *groups; /* different ones */
            unsigned n_groups;
            const void *bytes; /* copied */
            size_t size;
        } operate;
        struct {
            uint64_t token; /* the action's */
            rf_err_t err;   /* PREPARED: RF_OK, reserved; else refused, for this reason. APPLIED: ignored */
        } done;
        struct {
            uint64_t cookie;
            group_op_id_t id; /* of a group that the caller is a member of */
        } query;
    };
} group_event_t;

/* One message for several members. If a link does not take it, drop it and report GROUP_ROOM when it would. */
typedef struct group_message {
    const agreement_member_t *to;
    unsigned n_to;
    uint8_t type;
    const void *bytes;
    size_t size;
} group_message_t;

typedef enum group_action_kind {
    GROUP_ACTION_PREPARE = 1, /* validate and reserve; answer GROUP_PREPARED. Nothing may become visible */
    GROUP_ACTION_APPLY = 2,   /* carry out, make visible; answer GROUP_APPLIED */
    GROUP_ACTION_ABORT = 3,   /* release what PREPARE has reserved here; needs no answer */
    GROUP_ACTION_CHANGED =
        4, /* the group has other members, or another owner: groups_query(). At the owner: all
                                 members hold it, a new one may be sent to */
    GROUP_ACTION_ENDED = 5, /* the group is no longer held here */
} group_action_kind_t;

/* What the caller is to do, before it sends the step's messages. Those of one group come in order, and one at a time:
 * the next comes when the one before is answered. An action with a token may be answered at any later step. */
typedef struct group_action {
    group_action_kind_t kind;
    uint64_t token; /* for the answer; 0: needs none */
    uint64_t groups[GROUP_OBJECTS_MAX];
    unsigned n_groups;
    uint64_t epoch, number; /* of the group; of several: of their own agreement */
    group_op_id_t id;       /* PREPARE, APPLY, ABORT */
    group_phase_t phase;
    const void *bytes; /* until the next step */
    size_t size;
} group_action_t;

/*
 * The answer to FORM, JOIN, LEAVE, DESTROY, OPERATE and QUERY, by `cookie`:
 *   RF_OK                   done: see the group operation's guarantee
 *   RF_ERR_NOT_FOUND        no such group here (or, JOIN, at `through`); nothing happened
 *   RF_ERR_AGAIN            too many outstanding, here or at the owner; nothing happened
 *   RF_ERR_LIMIT            a maximum is reached (members, groups, bytes); nothing happened
 *   RF_ERR_EXISTS           FORM, JOIN: the caller holds that group
 *   RF_ERR_CANCELLED        two-phase: aborted because a member left the view meanwhile; nothing happened
 *   RF_ERR_PEER_DEAD        JOIN: `through` has left; or nobody that knew the group is left
 *   RF_ERR_UNKNOWN_OUTCOME  the result is no longer kept, or went with the members that knew it
 *   RF_ERR_PERMISSION       DESTROY: not the owner; LEAVE: the owner
 *   RF_ERR_BUSY             QUERY: under way
 *   RF_ERR_INVALID          senseless
 * and whatever a member refused PREPARE with.
 */
typedef struct group_completion {
    uint64_t cookie;
    rf_err_t err;
    group_op_id_t id; /* OPERATE, QUERY */
} group_completion_t;

/* Lives in the machine; valid until the next step. */
typedef struct group_output {
    unsigned n_messages, n_actions, n_completions;
    group_message_t messages[GROUP_MESSAGES_MAX];
    group_action_t actions[GROUP_ACTIONS_MAX];
    group_completion_t completions[GROUP_COMPLETIONS_MAX];
    bool more;             /* step again with GROUP_TICK after acting on this */
    uint64_t next_tick_ns; /* UINT64_MAX if time does not matter */
    const char *ignored;   /* why the event was dropped; NULL if it was not */
    rf_err_t err;          /* RECEIVE: RF_ERR_PROTOCOL when the bytes are none of this protocol's */
} group_output_t;

/* Bytes that it needs; 0: the parameters make no sense. */
size_t groups_size(const group_params_t *params);

/* Sets up in `memory` (64-byte aligned, the caller's until the end). RF_ERR_INVALID, RF_ERR_NO_MEMORY: too small. */
rf_err_t groups_init(void *memory, size_t size, const group_params_t *params, groups_t **out);

/* The one operation. Never fails: what cannot be done is said in the output. */
const group_output_t *groups_step(groups_t *groups, const group_event_t *event);

/* Is this message type one of groups? */
static inline bool groups_type(uint8_t type)
{
    return type >= GROUP_TYPE_FIRST && type <= GROUP_TYPE_LAST;
}

typedef struct group_info {
    uint64_t group, epoch, number; /* number: of the last operation known here */
    agreement_member_t owner;
    unsigned n_members;
    agreement_member_t members[GROUP_MEMBERS_MAX];
    bool wedged; /* a member has left, what it leaves behind is not resolved yet */
} group_info_t;

/* A group held here. RF_ERR_NOT_FOUND. */
rf_err_t groups_query(const groups_t *groups, uint64_t group, group_info_t *out);

/*
 * A tree weighted by latency, for GROUP_PLAN_TREE and FORM. `latency_ns[a * n + b]`: one way from member a to member b; `send_ns`: what one
 * message keeps its sender from the next. Member 0 is the owner. order[i] is which member to list as FORM's i-th, parents[i] what FORM
 * takes; each has room for n, at least 1 and at most GROUP_MEMBERS_MAX. Returns when the last member is reached: never later than by one message to
 * each from the owner. n^3 steps: when a group is formed, not when it operates.
 */
uint64_t group_plan_weigh(unsigned n, const uint32_t *latency_ns, uint32_t send_ns, uint8_t *order,
                          uint8_t *parents);
/*
 * Trees by placement, likewise for FORM: `members`, of which the first is the owner, on hosts and packages given by core, as the engine has
 * them (package NULL: one a host). By package: the owner feeds the lowest member of each other package, and that one the others there; by
 * host: of each other host, so one message goes to it. Members of the owner's own are fed by the owner. Listed: those fed by it that feed
 * others, on other hosts first; then the rest, by core.
 */
void group_plan_by_package(const agreement_member_t *members, unsigned n, const uint16_t *host,
                           const uint32_t *package, uint8_t *order, uint8_t *parents);
void group_plan_by_host(const agreement_member_t *members, unsigned n, const uint16_t *host, uint8_t *order,
                        uint8_t *parents);
/* When the last member is reached by such a list, each feeding its children in the list's order. */
uint64_t group_plan_reach_ns(unsigned n, const uint32_t *latency_ns, uint32_t send_ns, const uint8_t *order,
                             const uint8_t *parents);

/* The name of a message type, "?" for others. */
const char *groups_type_name(uint8_t type);

#endif
