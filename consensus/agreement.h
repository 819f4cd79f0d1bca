/*
 * The agreement engine: how the monitors' replicas stay one state. A pure state machine,
 *
 *      agreement_step(engine, event) -> output
 *
 * without clock, I/O, randomness or allocation: time, messages, proposals and evidence of deaths come in as
 * events; messages to send, entries to apply and answers to proposals go out. All memory is one block given
 * at init. The same events give the same outputs, bit for bit: the simulator and the tests lean on it.
 *
 * The interface is the one that the fault-tolerant engine keeps: terms, views, incarnations, sessions, an
 * ordered log, group operations, read index. Behind it there is today the simplest honest thing:
 *
 *   - the machine is formed once, by one entry that names its members; the view is fixed but for deaths
 *   - the lowest configured core orders (the *orderer*: leader of term 1, the only term there is)
 *   - an entry is committed when every live member has accepted it (read-one/write-all; Bernstein, Hadzilacos
 *     and Goodman 1987, ch. 8: safe with crash-stop members and a correct report of every death, stalls on a
 *     silent one)
 *   - a member reported dead leaves the set by an agreed entry, and the view number rises
 *   - when the orderer is reported dead nothing can be agreed on any more: proposals answer RF_ERR_NO_QUORUM
 *     at once, those already under way RF_ERR_UNKNOWN_OUTCOME. The survivors tell each other how far they know
 *     the log to be committed and apply up to the furthest, so that nothing acknowledged to a survivor is
 *     missing on another.
 *
 * Guarantees (asserted, always on): one total order, the same at all members; exactly once by (session,
 * sequence); applied is a prefix of committed is a prefix of accepted; nothing is acknowledged before all
 * live members hold it.
 *
 * Reports of death must be true, or made true by fencing (AGREEMENT, "Failure and fencing"): the engine
 * neither sends to nor listens to a member that was reported dead.
 *
 * Messages (slot types 0xd0-0xdf; O orderer, M any other member; every one may be lost, repeated and
 * reordered):
 *
 *   0xd0 FORWARD    M -> O     a proposal: session, sequence, bytes
 *   0xd1 APPEND     O -> M     entries from an index on, and how far the log is committed
 *   0xd2 ACCEPTED   M -> O     the log is held up to here, and applied up to there
 *   0xd3 REFUSED    O -> M     a forwarded proposal is not appended, and why
 *   0xd4 REPORT     M -> O     a member is dead
 *   0xd5 COMMITTED  M -> M     the orderer is dead; I know the log to be committed up to here
 *   0xd6 READ       M -> O     how far is the log committed (linearizable read)?
 *   0xd7 READ_INDEX O -> M     that far
 *   0xd8 GROUP      owner -> member   one-phase operation: apply this
 *   0xd9 GROUP_DONE member -> owner   applied
 *
 * Owner: one thread. Sources: Viewstamped Replication Revisited (Liskov and Cowling 2012) for view and op
 * numbers; Raft (Ongaro 2014) 6.3 for sessions, 6.4 for the read index; the anti-replay window of RFC
 * 4303, 3.4.3 for sequences.
 */
#ifndef RF_CONSENSUS_AGREEMENT_H
#define RF_CONSENSUS_AGREEMENT_H

#include "base/error.h"
#include "base/types.h"

#define AGREEMENT_MESSAGE_MAX     4096 /* bytes of one message */
#define AGREEMENT_MESSAGES_MAX    8    /* messages of one output; `more` says that there are others */
#define AGREEMENT_APPLIES_MAX     32   /* entries of one output */
#define AGREEMENT_COMPLETIONS_MAX 64   /* answers of one output */
#define AGREEMENT_WINDOW          64   /* sequences of a session that may be outstanding at once */
#define AGREEMENT_ENTRY_MAX       1024 /* bytes of one proposal, whatever the parameters say */
#define AGREEMENT_LOG_RESERVED    8    /* slots of the log ring that only membership entries may use */
#define AGREEMENT_READS_MAX       32   /* linearizable reads outstanding at one member */
#define AGREEMENT_GROUP_OPS_MAX   32   /* one-phase operations outstanding at one owner */
#define AGREEMENT_TYPE_FIRST      0xd0
#define AGREEMENT_TYPE_LAST       0xdf

typedef struct agreement agreement_t;

/* Who takes part: one life of a core's monitor. */
typedef struct agreement_member {
    rf_core_t core;
    rf_incarnation_t incarnation;
} agreement_member_t;

typedef struct agreement_params {
    agreement_member_t self;
    rf_machine_id_t machine;
    rf_core_t n_cores;      /* configured; core numbers are below it; core 0 orders */
    unsigned log_max;       /* entries of the log ring, a power of two, at least 16 */
    unsigned entry_max;     /* bytes of a proposal, at most AGREEMENT_ENTRY_MAX, at least 160 */
    unsigned proposals_max; /* own proposals outstanding, at most AGREEMENT_WINDOW */
    unsigned sessions_max;  /* sessions of the machine besides the members' own */
    uint64_t
        resend_ns; /* what is unacknowledged is sent again after this; RF_NEVER on links that lose nothing */
} agreement_params_t;

typedef enum agreement_event_kind {
    AGREEMENT_TICK = 1,     /* time has passed; also asks for the rest of an output that said `more` */
    AGREEMENT_RECEIVE,      /* a message from a member */
    AGREEMENT_ROOM,         /* the link to `peer` is up, or takes messages again: resend what it may lack */
    AGREEMENT_DEATH,        /* local or reported evidence: the member is dead and fenced */
    AGREEMENT_FORM,         /* orderer only, once: the machine has these members */
    AGREEMENT_PROPOSE,      /* a change, through a session */
    AGREEMENT_SESSION_OPEN, /* a new session; its id is the completion's value */
    AGREEMENT_SESSION_END,  /* ends a session */
    AGREEMENT_APPLIED,      /* the caller has applied the entry at `index` with this result */
    AGREEMENT_READ,      /* completes when the local replica holds all that was committed when it was asked */
    AGREEMENT_GROUP_ONE, /* one-phase operation; the caller is the group's owner */
    AGREEMENT_GROUP_TWO, /* two-phase operation: RF_ERR_NOT_SUPPORTED from this engine */
    AGREEMENT_GROUP_APPLIED, /* the caller has applied the group operation (owner, number) */
} agreement_event_kind_t;

/* All pointers in an event are only read during the step. */
typedef struct agreement_event {
    agreement_event_kind_t kind;
    uint64_t now_ns; /* CLOCK_MONOTONIC or virtual; never falls */
    union {
        struct {
            agreement_member_t from;
            uint8_t type;
            const void *bytes; /* hostile until checked */
            size_t size;
        } receive;
        agreement_member_t peer;   /* ROOM */
        agreement_member_t member; /* DEATH */
        struct {
            const rf_core_t *cores; /* each in its first incarnation; must hold the caller's own */
            unsigned n_cores;
        } form;
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
            uint64_t index;
            rf_err_t err; /* both a function of the log alone: they must be equal at all members */
            uint64_t value;
        } applied;
        struct {
            uint64_t cookie; /* the caller's */
        } read;
        struct {
            uint64_t cookie;        /* the caller's */
            uint64_t group, epoch;  /* carried to the members, who check the epoch */
            const rf_core_t *cores; /* may include the owner */
            unsigned n_cores;
            const void *bytes; /* copied; at most entry_max */
            size_t size;
        } group;
        struct {
            rf_core_t owner;
            uint64_t number;
        } group_applied;
    };
} agreement_event_t;

/* One message for several members. If a link does not take it, drop it and report AGREEMENT_ROOM when it
 * would. */
typedef struct agreement_message {
    const rf_core_t *to;
    unsigned n_to;
    uint8_t type;
    const void *bytes;
    size_t size;
} agreement_message_t;

typedef enum agreement_entry_kind {
    AGREEMENT_ENTRY_FORM = 1,        /* the machine has been formed; see agreement_member_state() */
    AGREEMENT_ENTRY_COMMAND = 2,     /* a proposal's bytes */
    AGREEMENT_ENTRY_MEMBER_DOWN = 3, /* `member` has left; the view has risen */
    AGREEMENT_ENTRY_SESSION_OPEN = 4,
    AGREEMENT_ENTRY_SESSION_END = 5,
    AGREEMENT_ENTRY_VOID = 6, /* nothing: not to be executed */
} agreement_entry_kind_t;

/* An entry to apply, in order; every one is to be answered by AGREEMENT_APPLIED (only COMMAND's result is
 * used). */
typedef struct agreement_apply {
    uint64_t index, view;
    agreement_entry_kind_t kind;
    uint64_t session, sequence;
    const void *bytes; /* COMMAND */
    size_t size;
    agreement_member_t member; /* MEMBER_DOWN */
} agreement_apply_t;

typedef enum agreement_completion_kind {
    AGREEMENT_COMPLETED_PROPOSAL = 1, /* also SESSION_OPEN and SESSION_END */
    AGREEMENT_COMPLETED_READ = 2,
    AGREEMENT_COMPLETED_GROUP = 3,
} agreement_completion_kind_t;

/*
 * The answer to a proposal, read or group operation. Proposals: what applying it gave, or
 *   RF_ERR_FORMING          not formed yet; nothing happened
 *   RF_ERR_NO_QUORUM        the orderer is dead; nothing happened
 *   RF_ERR_AGAIN            too many outstanding, or the log is full; nothing happened, nor will with this
 *                           sequence: take a new one
 *   RF_ERR_UNKNOWN_OUTCOME  the orderer died while it was under way
 *   RF_ERR_SESSION          the session has ended, or the sequence is older than its window; not executed
 *   RF_ERR_INVALID          larger than entry_max, or sequence 0
 * Proposals that are outstanding at the same time may be ordered either way where links reorder.
 */
typedef struct agreement_completion {
    agreement_completion_kind_t kind;
    uint64_t session, sequence; /* PROPOSAL */
    uint64_t cookie;            /* READ, GROUP */
    rf_err_t err;
    uint64_t value;
} agreement_completion_t;

/* An operation of a group to apply; answer with AGREEMENT_GROUP_APPLIED. */
typedef struct agreement_group_apply {
    rf_core_t owner;
    uint64_t number, group, epoch;
    const void *bytes;
    size_t size;
} agreement_group_apply_t;

/* Lives in the engine; valid until the next step. */
typedef struct agreement_output {
    unsigned n_messages, n_applies, n_completions, n_group_applies;
    agreement_message_t messages[AGREEMENT_MESSAGES_MAX];
    agreement_apply_t applies[AGREEMENT_APPLIES_MAX];
    agreement_completion_t completions[AGREEMENT_COMPLETIONS_MAX];
    agreement_group_apply_t group_applies[AGREEMENT_GROUP_OPS_MAX];
    bool view_changed;     /* a member left, the machine was formed, or the orderer was lost */
    bool more;             /* step again with AGREEMENT_TICK after acting on this */
    uint64_t next_tick_ns; /* when time matters next; RF_NEVER if it does not */
    const char *ignored;   /* why the event was dropped, for the log; NULL if it was not */
    rf_err_t err;          /* RECEIVE: RF_ERR_PROTOCOL when the bytes are none of this protocol's */
} agreement_output_t;

/* Bytes the engine needs, and whether the parameters make sense (0: they do not). */
size_t agreement_size(const agreement_params_t *params);

/* Sets up an engine in `memory` (at least agreement_size, 16-byte aligned, the caller's until the end).
 * RF_ERR_INVALID: senseless parameters. RF_ERR_NO_MEMORY: too small. */
rf_err_t agreement_init(void *memory, size_t size, const agreement_params_t *params, agreement_t **out);

/* The one operation. Never fails: what cannot be done is said in the output. */
const agreement_output_t *agreement_step(agreement_t *engine, const agreement_event_t *event);

/* The session that a member has by being one. */
uint64_t agreement_own_session(const agreement_t *engine);

typedef struct agreement_state {
    uint64_t view, term;
    uint64_t accepted, committed, applied; /* log indices */
    rf_core_t leader;                      /* RF_CORE_NONE: none in reach */
    unsigned members;                      /* alive, in the view */
    unsigned voters;                       /* whose acknowledgement a commit needs */
    unsigned survives;   /* how many members, whichever, may still die without agreed changes stopping */
    bool formed, quorum; /* quorum: changes can be agreed on */
} agreement_state_t;

void agreement_query(const agreement_t *engine, agreement_state_t *out);

typedef enum agreement_member_state {
    AGREEMENT_MEMBER_NONE = 0, /* never was in a view */
    AGREEMENT_MEMBER_IN = 1,
    AGREEMENT_MEMBER_DOWN = 2, /* left by an agreed entry */
} agreement_member_state_t;

/* What the applied log says of a core. */
agreement_member_state_t agreement_member_state(const agreement_t *engine, rf_core_t core);

/* The name of a message type, for logs and protocol tables; "?" for others. */
const char *agreement_type_name(uint8_t type);

#endif
