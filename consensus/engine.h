/*
 * Inside of the engine; only consensus/ includes it.
 *
 *   agreement.c        parameters, memory, the step: one flat switch, then the epilogue (engine_finish)
 *   log.c              the ring of entries; appending, committing, handing out
 *   session.c          exactly once: which sequences were used, and the results that are kept
 *   proposal.c read.c  own proposals and reads until they are answered
 *   role.c             the two changes of role there are: forming, and the loss of the orderer
 *   send.c             the epilogue: what every member still has to be told, from state alone
 *   recv_*.c           one received message type each
 *   group.c            one-phase group operations
 *
 * Messages are made from state, never queued: what a member lacks follows from (sent, commit_sent, flags), so
 * a lost message costs a resend and no memory.
 */
#ifndef RF_CONSENSUS_ENGINE_H
#define RF_CONSENSUS_ENGINE_H

#include "consensus/agreement.h"

#include "base/assert.h"
#include "base/clock.h"

#include <string.h>

#define ORDERER        ((rf_core_t)0) /* the lowest configured core */
#define TERM           1ull
#define SESSION_OPENED (1ull << 63) /* in ids of opened sessions; the rest is the index of the entry */
#define REFUSALS_MAX   64
#define COMMIT_TELLS   16 /* COMMITTED is not acknowledged: repeated so often on links that lose */

enum {
    MESSAGE_FORWARD = 0xd0,
    MESSAGE_APPEND = 0xd1,
    MESSAGE_ACCEPTED = 0xd2,
    MESSAGE_REFUSED = 0xd3,
    MESSAGE_REPORT = 0xd4,
    MESSAGE_COMMITTED = 0xd5,
    MESSAGE_READ = 0xd6,
    MESSAGE_READ_INDEX = 0xd7,
    MESSAGE_GROUP = 0xd8,
    MESSAGE_GROUP_DONE = 0xd9,
};

/* ---- on the wire: little-endian, 8-byte aligned within a message ---- */

typedef struct wire_proposal { /* FORWARD: these, each followed by `size` bytes padded to 8 */
    uint64_t session, sequence;
    uint16_t kind; /* agreement_entry_kind_t: COMMAND, SESSION_OPEN or SESSION_END */
    uint16_t size;
    uint32_t reserved;
} wire_proposal_t;

typedef struct wire_append { /* APPEND: followed by n entries from index `first` on */
    uint64_t view, term, first, committed;
    uint32_t n, reserved;
} wire_append_t;

typedef struct wire_entry { /* followed by `size` bytes padded to 8 */
    uint64_t view, session, sequence;
    uint16_t kind, size;
    uint32_t reserved;
} wire_entry_t;

typedef struct wire_accepted {
    uint64_t view, term, match, committed, applied;
} wire_accepted_t;

typedef struct wire_refused { /* REFUSED: one or more */
    uint64_t session, sequence;
    uint32_t err, reserved;
} wire_refused_t;

typedef struct wire_member { /* REPORT: one or more; body of MEMBER_DOWN */
    rf_core_t core;
    uint16_t reserved;
    rf_incarnation_t incarnation;
} wire_member_t;

typedef struct wire_committed {
    uint64_t view, term, committed;
} wire_committed_t;

typedef struct wire_read { /* READ and READ_INDEX */
    uint64_t id, index;
} wire_read_t;

typedef struct wire_group { /* GROUP: followed by `size` bytes; GROUP_DONE: alone, size 0 */
    uint64_t number, group, epoch;
    uint32_t size, reserved;
} wire_group_t;

typedef struct wire_form { /* body of the FORM entry: followed by a bitmap of n_cores bits */
    rf_machine_id_t machine;
    uint16_t n_cores;
    uint16_t reserved[3];
} wire_form_t;

_Static_assert(sizeof(wire_proposal_t) == 24 && sizeof(wire_append_t) == 40 && sizeof(wire_entry_t) == 32 &&
                   sizeof(wire_accepted_t) == 40 && sizeof(wire_refused_t) == 24 &&
                   sizeof(wire_member_t) == 8 && sizeof(wire_committed_t) == 24 &&
                   sizeof(wire_read_t) == 16 && sizeof(wire_group_t) == 32 && sizeof(wire_form_t) == 24,
               "wire layout");
_Static_assert(sizeof(wire_append_t) + sizeof(wire_entry_t) + AGREEMENT_ENTRY_MAX <= AGREEMENT_MESSAGE_MAX,
               "any entry fits a message");

/* ---- state ---- */

typedef struct log_entry {
    uint64_t index, view, session, sequence;
    uint16_t kind, size;
    uint8_t bytes[] __attribute__((aligned(8))); /* entry_max */
} log_entry_t;

/* Which of the last AGREEMENT_WINDOW sequences were used: bit i is `high` - i. */
typedef struct window {
    uint64_t high, bits;
} window_t;

typedef struct result {
    uint64_t sequence, value;
    uint32_t err, reserved;
} result_t;

typedef struct session {
    uint64_t id; /* 0: free */
    bool ended;
    window_t appended; /* orderer: in the log, committed or not */
    window_t refused;  /* orderer: answered RF_ERR_AGAIN; a late repetition must not be executed after that */
    window_t applied;  /* a function of the applied log */
    result_t results[AGREEMENT_WINDOW]; /* of sequence s at s % AGREEMENT_WINDOW */
} session_t;

typedef struct member {
    rf_incarnation_t incarnation;
    uint8_t state;            /* agreement_member_state_t, of what was handed out */
    bool voting;              /* orderer: in the set whose acknowledgement counts, since FORM was appended */
    bool dead;                /* evidence; never sent to nor listened to again */
    bool report, report_sent; /* member: the orderer is to be told of the death; was told */
    bool down_appended;       /* orderer: its MEMBER_DOWN is in the log */
    uint8_t commit_tells;     /* orderer lost: how often this one is still to be told how far I know */
    uint64_t match;           /* orderer: it holds the log up to here */
    uint64_t sent;            /* ... was sent it up to here */
    uint64_t commit_sent;     /* ... was told that much is committed */
    uint64_t commit_known;    /* ... has said that it knows */
    uint64_t applied;         /* ... has applied it up to here */
    window_t group_seen;      /* operations of this owner that arrived */
    window_t group_done;      /* ... and were applied */
} member_t;

typedef struct proposal { /* an own one, until it is answered */
    bool used, sent;
    uint16_t kind, size;
    uint64_t session, sequence;
    uint8_t bytes[] __attribute__((aligned(8))); /* entry_max */
} proposal_t;

typedef struct reading {
    bool used, sent;
    uint64_t id, cookie, index; /* index: UINT64_MAX until the orderer has answered */
} reading_t;

typedef struct group_op { /* at its owner */
    bool used, started;
    uint64_t cookie, number, group, epoch;
    uint32_t size, n_remaining;
    uint8_t *bytes;              /* entry_max */
    uint8_t *remaining, *unsent; /* bitmaps of cores: have not applied it; are to be sent it */
} group_op_t;

struct agreement {
    agreement_params_t params;
    uint64_t now_ns;
    uint64_t view; /* of what was handed out; 0: not formed */
    uint64_t last; /* the log is held up to here */
    uint64_t committed, handed, applied;
    uint64_t applied_told; /* member: the orderer knows that much is applied */
    bool lost;             /* the orderer is dead */
    bool accept_due;       /* member: ACCEPTED is to be sent */
    uint64_t resend_at_ns; /* RF_NEVER: nothing is unacknowledged */
    uint64_t read_next, group_next;
    size_t entry_stride, proposal_stride;

    member_t *members;   /* [n_cores] */
    uint8_t *log;        /* [log_max] of entry_stride */
    session_t *sessions; /* [n_cores] the members' own, then [sessions_max] opened ones */
    uint8_t *proposals;  /* [proposals_max] of proposal_stride */
    reading_t reads[AGREEMENT_READS_MAX];
    group_op_t group_ops[AGREEMENT_GROUP_OPS_MAX];

    /* What the current step answers to its sender besides state: at most one message of each. */
    rf_core_t reply_to;
    unsigned n_refusals, n_read_replies;
    wire_refused_t refusals[REFUSALS_MAX];
    wire_read_t read_replies[AGREEMENT_READS_MAX];
    wire_group_t group_reply; /* number 0: none */
    uint8_t *group_bytes;     /* [entry_max] of the received operation that is handed out */

    agreement_output_t output;
    rf_core_t *to; /* pool of destinations of this output */
    unsigned n_to, to_max;
    uint8_t (*buffers)[AGREEMENT_MESSAGE_MAX]; /* one a message */
};

static inline bool engine_orders(const agreement_t *e)
{
    return e->params.self.core == ORDERER;
}

static inline size_t engine_padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* The handler leaves early, and says why. */
static inline void engine_ignore(agreement_t *e, const char *why)
{
    e->output.ignored = why;
}

static inline void engine_protocol_error(agreement_t *e, const char *why)
{
    e->output.ignored = why;
    e->output.err = RF_ERR_PROTOCOL;
}

/* Adds an answer; the caller has made sure of room where one step may give many. */
void engine_complete(agreement_t *e, agreement_completion_t completion);
static inline unsigned engine_completion_room(const agreement_t *e)
{
    return AGREEMENT_COMPLETIONS_MAX - e->output.n_completions;
}

/* log.c */
log_entry_t *log_at(agreement_t *e, uint64_t index);
/* Orderer: puts an entry at the end. RF_ERR_AGAIN: the ring is full of what some member has not applied. */
rf_err_t log_append(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size);
/* Member: puts a received entry at last + 1, if the ring has room. */
bool log_accept(agreement_t *e, const wire_entry_t *entry, const void *bytes);
/* Orderer: commits what every voting live member holds. */
void log_commit(agreement_t *e);
/* Hands committed entries to the caller, as far as the output has room. */
void log_hand_out(agreement_t *e);

/* session.c */
session_t *session_find(agreement_t *e, uint64_t id);
session_t *session_open(agreement_t *e, uint64_t id); /* NULL: all used */
/* RF_OK: fresh. RF_ERR_EXISTS: used before. RF_ERR_SESSION: older than the window. */
rf_err_t window_check(const window_t *window, uint64_t sequence);
void window_mark(window_t *window, uint64_t sequence);
const result_t *session_result(const session_t *session, uint64_t sequence);

/* proposals */
proposal_t *proposal_at(agreement_t *e, unsigned i);
proposal_t *proposal_find(agreement_t *e, uint64_t session, uint64_t sequence);
void proposal_step(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                   const void *bytes, size_t size);
/* Orderer: checks session and sequence and appends. RF_OK also when it is there already. */
rf_err_t proposal_order(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                        const void *bytes, size_t size);

/* role.c */
void role_form(agreement_t *e, const rf_core_t *cores, unsigned n_cores);
void role_form_apply(agreement_t *e, const log_entry_t *entry);
bool role_form_valid(const agreement_t *e, const void *bytes, size_t size);
/* Tells every member what is known to be committed, once the orderer is dead. */
void role_tell_committed(agreement_t *e);
void role_death(agreement_t *e, agreement_member_t member);
void role_fail_proposals(agreement_t *e);

/* recv_*.c; `bytes` is hostile */
void recv_forward(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_append(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_accepted(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_refused(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_report(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_committed(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_read(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_read_index(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_group(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);
void recv_group_done(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size);

/* read.c */
void read_start(agreement_t *e, uint64_t cookie);
void read_finish(agreement_t *e);

/* group.c */
void group_start(agreement_t *e, const agreement_event_t *event);
void group_applied(agreement_t *e, rf_core_t owner, uint64_t number);
void group_member_died(agreement_t *e, rf_core_t core);
void group_finish(agreement_t *e);
static inline bool group_bit(const uint8_t *map, rf_core_t core)
{
    return map[core / 8] >> (core % 8) & 1;
}

/* send.c */
/* A message being made: `bytes` has AGREEMENT_MESSAGE_MAX. NULL: the output is full. */
uint8_t *send_begin(agreement_t *e);
void send_end(agreement_t *e, uint8_t type, size_t size, const rf_core_t *to, unsigned n_to);
void send_all(agreement_t *e);
/* Forgets what `core` was sent, down to what it acknowledged. */
void send_rewind(agreement_t *e, rf_core_t core);
/* Somebody has not acknowledged something. */
bool send_waits(agreement_t *e);

#endif
