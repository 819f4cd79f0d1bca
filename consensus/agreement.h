/*
 * The agreement engine: how the monitors' replicas stay one state. A pure state machine,
 *
 *      agreement_step(engine, event) -> output
 *
 * without clock, I/O, randomness or allocation: time, messages, proposals and evidence of deaths come in as
 * events; messages to send and answers to proposals go out, and committed entries are applied, in order, by the
 * caller's callbacks from within the step. All memory is one block given at init. The same events give the same
 * outputs, bit for bit: the simulator and the tests lean on it.
 *
 * The protocol, message by message and with its sources, is doc/agreement.md. In short:
 *
 *   - members are incarnations of cores; voters (at most 7) decide, the others learn
 *   - one leader a term; a leader's log is the log; committed is what majorities of all voter sets in force hold,
 *     in an entry of the leader's own term (Raft, Ongaro 2014, 3.4-3.6, 5.4.2)
 *   - a change of voters is joint consensus, one at a time (Raft 4.3); a restarted core is another member, never
 *     the old one (Michael et al., DISC 2017)
 *   - sessions make commands exactly once (Raft 6.3); reads by read index (6.4), leases opt-in
 *   - whoever is behind what the ring still holds is sent a snapshot (Raft 5)
 *   - learners get committed entries from their parent in the plan in force, which is a function of the view
 *   - where a voter's memory can be written from afar the leader may append to it one-sidedly (Mu, OSDI 2020); late-bound
 *     for each pair, by AGREEMENT_LANE events; messages stay for all else
 *   - group operations (two-phase, one-phase): consensus/group.h, which stands alone
 *
 * Reports of death by kernel evidence must be true; silence is only a suspicion, which the leader judges.
 *
 * Owner: one thread.
 */
#ifndef RF_CONSENSUS_AGREEMENT_H
#define RF_CONSENSUS_AGREEMENT_H

#include "base/error.h"
#include "base/types.h"
#include "consensus/group.h"
#include "consensus/member.h"

#define AGREEMENT_MESSAGE_MAX     4096 /* bytes of one message */
#define AGREEMENT_MESSAGES_MAX    16   /* messages of one output; `more` says that there are others */
#define AGREEMENT_COMPLETIONS_MAX 64   /* answers of one output */
#define AGREEMENT_WINDOW          64   /* sequences of a session that may be outstanding at once */
#define AGREEMENT_ENTRY_MAX       1024 /* bytes of one proposal, whatever the parameters say */
#define AGREEMENT_PROPOSALS_MAX   1024 /* proposals outstanding at one member, of all its sessions */
#define AGREEMENT_LOG_RESERVED    8    /* slots of the log ring that only the engine's own entries may use */
#define AGREEMENT_READS_MAX       32   /* linearizable reads outstanding at one member */
#define AGREEMENT_VOTERS_MAX      7
#define AGREEMENT_CHANGES_MAX     64 /* members that join or leave by one entry; see CHANGE */
#define AGREEMENT_JOINS_MAX       (AGREEMENT_CHANGES_MAX / 2) /* members that one CHANGE has join */
#define AGREEMENT_CHILDREN_MAX    64                          /* learners that one member feeds */
#define AGREEMENT_WEIGHT_MAX      64                          /* of an edge, in a plan by weights */
#define AGREEMENT_WRITES_MAX      8   /* writes of one output; `more` says that there are others */
#define AGREEMENT_LANE_LINES_MIN  256 /* lines of a lane, at least */
#define AGREEMENT_LANE_LINE       64  /* bytes of a line */
#define AGREEMENT_LANE_WRITES_MAX 64  /* writes to one lane that may be under way */
#define AGREEMENT_TYPE_FIRST      0xd0
#define AGREEMENT_TYPE_LAST       0xdf

typedef struct agreement agreement_t;

typedef enum agreement_entry_kind {
    AGREEMENT_ENTRY_FORM = 1,    /* the machine has been formed: `members` are in it */
    AGREEMENT_ENTRY_COMMAND = 2, /* a proposal's bytes */
    AGREEMENT_ENTRY_VIEW = 3,    /* a new view: `changes` have joined or left (may be none: voters changed) */
    AGREEMENT_ENTRY_SESSION_OPEN = 4,
    AGREEMENT_ENTRY_SESSION_END = 5,
    AGREEMENT_ENTRY_TERM = 6, /* a leader's first entry: nothing to execute */
} agreement_entry_kind_t;

typedef struct agreement_change {
    agreement_member_t member;
    bool joined;   /* else it left: expelled or in order */
    bool in_order; /* left because it was asked to */
} agreement_change_t;

/* A committed entry, applied exactly once, in order of `index`. */
typedef struct agreement_apply {
    uint64_t index, term, view; /* view: the number in force after it */
    agreement_entry_kind_t kind;
    bool duplicate; /* the session has executed that sequence already: not passed to apply(), counted only */
    uint64_t session, sequence;
    const void *bytes; /* COMMAND */
    size_t size;
    const agreement_change_t *changes; /* VIEW; none when only the voters change */
    unsigned n_changes;
    const uint8_t
        *members; /* FORM: bitmap of n_cores bits, low bits first: the members, all of incarnation 1 */
} agreement_apply_t;

/*
 * The replicated state machine. Called from within a step; must not call the engine; functions of the log alone.
 * apply: the result goes into the session and to the proposer. save: writes the whole state as of the last applied
 * entry, returns its bytes, at most `max`. load: replaces the state by a saved one (bytes come from a member of the
 * machine but are to be checked all the same; RF_ERR_PROTOCOL: not loaded, state unchanged).
 */
typedef struct agreement_machine {
    void *context;
    rf_err_t (*apply)(void *context, const agreement_apply_t *entry, uint64_t *value);
    size_t (*save)(void *context, void *bytes, size_t max);
    rf_err_t (*load)(void *context, uint64_t index, const void *bytes, size_t size);
} agreement_machine_t;

/* Who feeds those who do not vote: consensus/plan.h. The same for all members. */
typedef enum agreement_plan {
    AGREEMENT_PLAN_BROADCAST = 0, /* the leader, one message for all */
    AGREEMENT_PLAN_HOST = 1,      /* one hop per host: one member of each feeds the others there */
    AGREEMENT_PLAN_PACKAGE = 2,   /* one hop per host, then one per package */
    AGREEMENT_PLAN_UNICAST = 3,   /* the leader, one message for each, in turn */
    AGREEMENT_PLAN_WEIGHTED = 4,  /* hosts, packages, cores, on each level by `weights` */
    AGREEMENT_PLANS
} agreement_plan_t;

/* "broadcast", "host", "package", "unicast", "weighted"; NULL: no plan. A constant string. */
const char *agreement_plan_name(unsigned plan);

/* Of each class of edge: how many messages a member can send while one is under way, until the receiver could pass it on. 1 to
 * AGREEMENT_WEIGHT_MAX: from there on nothing is gained by sending through another. */
typedef struct agreement_weights {
    uint16_t package; /* between cores of a package */
    uint16_t host;    /* between packages of a host */
    uint16_t between; /* between hosts */
} agreement_weights_t;

/* Deliberate defects, for tests of the tests: one bit each (see doc/agreement.md). 0 in every real machine. */
typedef enum agreement_defect {
    AGREEMENT_DEFECT_NEW_INCARNATION_VOTES = 1 << 0, /* a new incarnation is counted in the old quorum */
    AGREEMENT_DEFECT_CHANGE_BEFORE_TERM = 1 << 1,    /* membership change before a commit in the own term */
    AGREEMENT_DEFECT_OLD_TERM_COMMIT = 1 << 2,       /* an entry of an older term committed by counting */
    AGREEMENT_DEFECT_ELECT_IN_LEASE = 1 << 3,        /* votes while a lease may be held */
    AGREEMENT_DEFECT_STALE_NOW = 1 << 4,             /* judges a lease by the time of the step before */
    AGREEMENT_DEFECT_NO_SESSIONS_SAVED = 1 << 5,     /* sessions missing from the snapshot */
    AGREEMENT_DEFECT_RESET_ON_PARTITION = 1 << 6,    /* a voter without quorum forgets its promises */
    AGREEMENT_DEFECT_SINGLE_MAJORITY = 1 << 7,       /* joint: only the new set's majority counts */
    AGREEMENT_DEFECT_VOTE_BEFORE_FENCE = 1 << 8,     /* enters a later term while its lane can be written */
    AGREEMENT_DEFECT_TORN_RECORD = 1 << 9,           /* takes a record of which a part has arrived */
    AGREEMENT_DEFECT_OLD_COMPLETION =
        1 << 10, /* a write completed in a lane that was revoked counts in the next */
    AGREEMENT_DEFECT_EXPEL_TO_ONE = 1 << 11,   /* expulsions leave one voter */
    AGREEMENT_DEFECT_NO_PROMISE = 1 << 12,     /* a round is answered without the promise of a lease */
    AGREEMENT_DEFECT_BREAK_FREES = 1 << 13,    /* votes within its promise on the word of a link error */
    AGREEMENT_DEFECT_LEASE_ENDLESS = 1 << 14,  /* its holder never sees the end of a lease */
    AGREEMENT_DEFECT_NO_DRIFT = 1 << 15,       /* takes nothing off a lease for the drift of clocks */
    AGREEMENT_DEFECT_CHANGE_UNASKED = 1 << 16, /* voters change without a round to who is needed */
    AGREEMENT_DEFECT_CHANGE_DENIED =
        1 << 17, /* a change that waits is answered "never" by its session's window */
} agreement_defect_t;

typedef struct agreement_params {
    agreement_member_t self; /* incarnation > 1: joins, knows nothing until the leader feeds it */
    rf_machine_id_t machine;
    rf_core_t n_cores;  /* core numbers are below it */
    unsigned log_max;   /* entries of the log ring, a power of two, at least 16 */
    unsigned entry_max; /* bytes of a proposal, at most AGREEMENT_ENTRY_MAX, at least 160 */
    /* Own proposals outstanding, at most AGREEMENT_PROPOSALS_MAX: those that the leader's log ring has no room for wait.
     * Of one session, more than AGREEMENT_WINDOW may be answered RF_ERR_SESSION where messages are lost. */
    unsigned proposals_max;
    unsigned sessions_max;   /* of the machine, besides the members' own: one more ends the first opened */
    unsigned snapshot_max;   /* bytes that save() may need; two buffers of it */
    unsigned voters_max;     /* 1 to AGREEMENT_VOTERS_MAX; odd is preferred */
    const uint16_t *host;    /* [n_cores] failure domain: host; the caller's, lives as long as the engine */
    const uint32_t *package; /* [n_cores] within the host; NULL: unknown */
    const uint8_t *witness; /* [n_cores] 1: on a host that only votes: preferred last as leader; NULL: none */
    const uint8_t *no_vote; /* [n_cores] 1: no voter as long as there is another member; NULL: none */
    agreement_plan_t plan;
    agreement_weights_t
        weights; /* of AGREEMENT_PLAN_WEIGHTED; 1 to AGREEMENT_WEIGHT_MAX each; the same for all members */
    uint64_t resend_ns;    /* what is unacknowledged is sent again after this; RF_NEVER: links lose nothing */
    uint64_t heartbeat_ns; /* leader to voters, when there is nothing else; RF_NEVER: none */
    uint64_t election_ns;  /* silence of the leader after which a voter stands; RF_NEVER: on evidence only */
    uint64_t silence_ns;   /* silence after which the leader believes a SILENCE report of a member */
    uint64_t
        behind_ns; /* who is fed, and applies nothing of what it lacks for so long, is expelled; 0: never. Needs
                           `resend_ns` */
    uint64_t
        lease_ns; /* 0: reads by read index. Else: the leader answers alone for so long, less drift_ppm, and who answers its rounds votes for nobody else; the same for all members */
    unsigned
        drift_ppm; /* by how much the rates of two clocks may differ at most, parts per million; less than 500000 */
    uint64_t seed; /* spreads election times; any */
    unsigned
        lane_lines; /* lines of each lane, a power of two, the same for all members; 0: no one-sided append. Needs
                            `resend_ns`: what comes while a lane is being fenced may be dropped */
    unsigned defects; /* agreement_defect_t; 0 */
    bool
        plain; /* for tests: without the shortcuts of the steady state, which must be the same in all but time */
    agreement_machine_t state_machine;
    group_params_t group;
} agreement_params_t;

typedef enum agreement_event_kind {
    AGREEMENT_TICK = 1, /* time has passed; also asks for the rest of an output that said `more` */
    AGREEMENT_RECEIVE,  /* a message from a member */
    AGREEMENT_ROOM,     /* the link to `peer` is up, or takes messages again: resend what it may lack */
    AGREEMENT_DEATH,    /* evidence of a member's death */
    AGREEMENT_FENCED, /* a member that has left is fenced: nothing of it runs, nothing it sends is delivered */
    AGREEMENT_FORM,   /* lowest listed core, once: the machine has these members */
    AGREEMENT_CHANGE, /* members join and leave; answered like a proposal. One that joins counts twice (who is in leaves
                         by the same entry): at most AGREEMENT_CHANGES_MAX, and (entry_max - 144) / 8 */
    AGREEMENT_PROPOSE,      /* a command, through a session */
    AGREEMENT_SESSION_OPEN, /* a new session (sessions_max); its id is the completion's value */
    AGREEMENT_SESSION_END,  /* ends a session */
    AGREEMENT_READ,     /* completes when the local replica holds all that was committed when it was asked */
    AGREEMENT_TRANSFER, /* the leader hands its office to the best other voter (before it leaves in order) */
    AGREEMENT_GROUP,    /* `group`: anything that consensus/group.h knows */
    AGREEMENT_LANE,     /* `lane`: of one-sided append */
} agreement_event_kind_t;

/*
 * One-sided append (consensus/lane.h). A lane is memory of a voter that one other member, the leader of one term, may write
 * from afar. Who owns the lane hears READY, LINES and REVOKED; the leader, who writes it, GRANTED and WRITTEN.
 */
typedef enum agreement_lane_kind {
    AGREEMENT_LANE_READY = 1, /* `peer` could be granted a lane at once, and told */
    AGREEMENT_LANE_UNREADY,   /* ... no more; what it was granted stays until REVOKED */
    AGREEMENT_LANE_LINES,     /* `lines` may hold something new */
    AGREEMENT_LANE_REVOKED, /* asked for or not: nobody will ever write there again, by confirmation, and what was placed can be
                               seen. `lines`: NULL: it was never granted */
    AGREEMENT_LANE_GRANTED, /* `peer` has granted its lane `id` in `term` */
    AGREEMENT_LANE_WRITTEN, /* writes up to `number` are placed by the medium's rule: whatever happens to this member,
                               `peer` sees them when it has revoked. Or `err`: the lane takes no more */
} agreement_lane_kind_t;

typedef struct agreement_lane_event {
    agreement_lane_kind_t kind;
    agreement_member_t peer;
    uint64_t id; /* of the owner's lanes */
    uint64_t term, number;
    const uint64_t *lines; /* lane_lines x AGREEMENT_LANE_LINE bytes, which may change at any time */
    rf_err_t err;
} agreement_lane_event_t;

typedef enum agreement_evidence {
    AGREEMENT_EVIDENCE_KERNEL = 1, /* the kernel says so, on its own host: true for ever */
    AGREEMENT_EVIDENCE_SILENCE,    /* not heard, or a link broke: a suspicion */
    AGREEMENT_EVIDENCE_BEHIND, /* in a REPORT only: fed by who says so, it has not caught up for behind_ns */
} agreement_evidence_t;

/* All pointers in an event are only read during the step. */
typedef struct agreement_event {
    agreement_event_kind_t kind;
    uint64_t
        now_ns; /* CLOCK_BOOTTIME or virtual; read after the event was taken from its queue; never falls */
    bool hold;  /* more events follow at once: nothing is sent, committed or answered before a step without */
    union {
        struct {
            agreement_member_t from; /* as the link knows it */
            uint8_t type;
            const void *bytes; /* hostile until checked */
            size_t size;
        } receive;
        agreement_member_t peer; /* ROOM */
        struct {
            agreement_member_t member;
            agreement_evidence_t evidence;
        } death;
        agreement_member_t fenced;
        struct {
            const rf_core_t *cores; /* each in incarnation 1; must hold the caller's own */
            unsigned n_cores;
            const rf_core_t *voters; /* NULL: chosen, spread over hosts, then packages */
            unsigned n_voters;
        } form;
        struct {
            uint64_t sequence;     /* of the member's own session */
            const rf_core_t *join; /* new incarnations of these; one that is in leaves by the same entry. The
                                      completion's value is the incarnation of the first */
            unsigned n_join;
            const agreement_member_t *leave; /* those of them that are in */
            unsigned n_leave;
            bool expel; /* ... not in order: counted as expelled, and two voters stay, else RF_ERR_INVALID */
        } change;
        struct {
            uint64_t session;  /* agreement_own_session(), or one that was opened */
            uint64_t sequence; /* from 1, each used once; a repetition with the same number is answered, not
                                  executed */
            const void *bytes; /* copied */
            size_t size;
        } propose;
        struct {
            uint64_t sequence; /* of the member's own session: opening and ending are proposals too */
            uint64_t session;  /* END: which */
        } session;
        struct {
            uint64_t cookie; /* the caller's */
        } read;
        group_event_t group;
        agreement_lane_event_t lane;
    };
} agreement_event_t;

/* One message for several members. If a link does not take it, drop it and report AGREEMENT_ROOM when it would. */
typedef struct agreement_message {
    const agreement_member_t *to;
    unsigned n_to;
    uint8_t type;
    const void *bytes;
    size_t size;
} agreement_message_t;

typedef enum agreement_completion_kind {
    AGREEMENT_COMPLETED_PROPOSAL = 1, /* also CHANGE, SESSION_OPEN and SESSION_END */
    AGREEMENT_COMPLETED_READ = 2,
} agreement_completion_kind_t;

/*
 * The answer to a proposal or read. Proposals: what applying it gave, or
 *   RF_ERR_FORMING          not a member of a formed machine yet; nothing happened
 *   RF_ERR_NO_QUORUM        no leader with a quorum in reach (for election_ns, or by evidence); nothing happened
 *   RF_ERR_AGAIN            too many outstanding here; nothing happened, nor will with this sequence: take a new one
 *   RF_ERR_UNKNOWN_OUTCOME  it was under way when the quorum was lost, or its result went by in a snapshot: ask
 *                           again with the same sequence to learn
 *   RF_ERR_SESSION          the session has ended, or the sequence is older than its window; not executed
 *   RF_ERR_INVALID          larger than entry_max, sequence 0, a session that is none of this protocol's, or a change of
 *                           members that makes no sense (no such core, too many, nobody left)
 *   RF_ERR_LIMIT            more members have proposed than own sessions are kept for; not executed
 * Proposals that are outstanding at the same time may be ordered either way.
 */
typedef struct agreement_completion {
    agreement_completion_kind_t kind;
    uint64_t session, sequence; /* PROPOSAL */
    uint64_t cookie;            /* READ */
    rf_err_t err;
    uint64_t value;
} agreement_completion_t;

typedef enum agreement_lane_order {
    AGREEMENT_LANE_KEEP = 0,
    AGREEMENT_LANE_GRANT,  /* `peer` alone may write lane `id`, and is told (GRANTED at it), with `term` */
    AGREEMENT_LANE_REVOKE, /* ... may not any more: fence, confirm, then say REVOKED */
} agreement_lane_order_t;

/* One write of whole lines to the lane that `to` has granted; in order. If it cannot be posted: WRITTEN with an error. */
typedef struct agreement_write {
    agreement_member_t to;
    uint64_t id, number;
    uint32_t offset, size; /* bytes */
    const void *bytes;     /* 8-byte aligned */
} agreement_write_t;

typedef struct agreement_lane_output {
    agreement_lane_order_t order;
    agreement_member_t peer;
    uint64_t id, term;
    bool
        again; /* the lane holds more than could be taken: show it again (LINES, or REVOKED if that was it) soon */
    unsigned n_writes;
    agreement_write_t writes[AGREEMENT_WRITES_MAX];
} agreement_lane_output_t;

/* Lives in the engine; valid until the next step. */
typedef struct agreement_output {
    unsigned n_messages, n_completions;
    rf_err_t err;      /* RECEIVE: RF_ERR_PROTOCOL when the bytes are none of this protocol's */
    bool view_changed; /* a view was applied: ask agreement_member_*(), fence who left, then say FENCED */
    bool role_changed; /* leader, term or quorum: ask agreement_query() */
    bool loaded;       /* a snapshot was loaded: entries up to applied_to were not passed to apply() */
    bool more;         /* step again with AGREEMENT_TICK after acting on this */
    uint64_t applied_from, applied_to; /* indices applied in this step; from > to: none */
    uint64_t next_tick_ns;             /* when time matters next; RF_NEVER if it does not */
    bool
        only_notice; /* next_tick_ns is now, and only to tell the others what is committed: may be put off, for the next entries tell it */
    const char *ignored;                 /* why the event was dropped, for the log; NULL if it was not */
    const group_output_t *group;         /* NULL: nothing of groups */
    const agreement_lane_output_t *lane; /* NULL: nothing of one-sided append */
    bool expelled; /* this incarnation is not in a committed view: end; it never votes again */
    agreement_message_t messages[AGREEMENT_MESSAGES_MAX];
    agreement_completion_t completions[AGREEMENT_COMPLETIONS_MAX];
} agreement_output_t;

/* Bytes the engine needs, and whether the parameters make sense (0: they do not). */
size_t agreement_size(const agreement_params_t *params);

/* Sets up an engine in `memory` (at least agreement_size, 64-byte aligned, the caller's until the end).
 * RF_ERR_INVALID: senseless parameters. RF_ERR_NO_MEMORY: too small. */
rf_err_t agreement_init(void *memory, size_t size, const agreement_params_t *params, agreement_t **out);

/* The one operation. Never fails: what cannot be done is said in the output. */
const agreement_output_t *agreement_step(agreement_t *engine, const agreement_event_t *event);

/* Groups held here, for groups_query(); NULL: not used. They are stepped by agreement_step() alone. */
const groups_t *agreement_groups(const agreement_t *engine);

/* The session that a member has by being one. Results are not kept for it: the member has the replica. */
uint64_t agreement_own_session(const agreement_t *engine);

typedef enum agreement_role {
    AGREEMENT_ROLE_LEARNER = 0,
    AGREEMENT_ROLE_FOLLOWER = 1, /* a voter that follows */
    AGREEMENT_ROLE_CANDIDATE = 2,
    AGREEMENT_ROLE_LEADER = 3,
} agreement_role_t;

typedef struct agreement_state {
    uint64_t view, term;
    uint64_t first, last, committed, applied; /* log indices; first: the oldest that the ring still holds */
    agreement_role_t role;
    agreement_member_t leader; /* core RF_CORE_NONE: none known */
    unsigned members;          /* in the view */
    unsigned n_voters;         /* of the newest set */
    agreement_member_t voters[AGREEMENT_VOTERS_MAX];
    bool joint;              /* a change of voters is under way */
    unsigned survives;       /* how many members, whichever, may still die without agreed changes stopping */
    unsigned survives_hosts; /* how many hosts, whichever */
    bool formed, quorum;     /* quorum: changes can be agreed on, as far as is known here */
    bool lost;          /* a majority of a voter set is proved dead: this machine can never agree again */
    unsigned n_waiting; /* without a quorum: for whom */
    agreement_member_t waiting[AGREEMENT_VOTERS_MAX];
    uint64_t elections, snapshots_sent, snapshots_loaded, expulsions; /* counted here since the start */
    uint64_t expelled_behind;           /* ... of these, as leader, because they did not catch up, */
    agreement_member_t behind;          /* of which this is the last */
    uint64_t reads_leased, reads_asked; /* a leader: reads answered by its lease, and by asking a majority */
    uint64_t shortcuts;                 /* steps of the steady state */
    bool lane;                          /* a voter: the leader may write its lane */
    unsigned lanes;                     /* a leader: lanes of voters that it writes instead of sending */
} agreement_state_t;

void agreement_query(const agreement_t *engine, agreement_state_t *out);

/* Of the own lane, while it is granted: how many bytes into it the next record will begin, and what its first word will be then; 0: there
 * is none to wait for. Who polls that word knows when LINES is due. */
uint64_t agreement_lane_next(const agreement_t *engine, uint32_t *offset);

/* Of a leader: when it sent the last round that majorities have answered, hence a time at which it led a quorum, whatever happened to it
 * since. 0: not known, or no leader. */
uint64_t agreement_contact_ns(const agreement_t *engine);

typedef enum agreement_member_state {
    AGREEMENT_MEMBER_NONE = 0, /* the core never was in a view */
    AGREEMENT_MEMBER_IN = 1,
    AGREEMENT_MEMBER_OUT = 2, /* its last incarnation has left */
} agreement_member_state_t;

/* What the applied log says of a core; `incarnation` (may be NULL): its last. */
agreement_member_state_t agreement_member_state(const agreement_t *engine, rf_core_t core,
                                                rf_incarnation_t *incarnation);

/* The voters that a machine of these members would have: spread over hosts first, then packages; prefers those
 * of `current`, and an odd number of three or more. Pure; returns how many. */
unsigned agreement_choose_voters(const agreement_params_t *params, const agreement_member_t *members,
                                 unsigned n_members, const agreement_member_t *current, unsigned n_current,
                                 agreement_member_t *out);

/* How many hosts, and how many single members, whichever they are, a machine with these voters survives. */
void agreement_survives(const agreement_params_t *params, const agreement_member_t *voters, unsigned n_voters,
                        unsigned *members, unsigned *hosts);

/* The name of a message type, for logs and protocol tables; "?" for others. */
const char *agreement_type_name(uint8_t type);

#endif
