/* What the engines send each other, to the byte; doc/agreement.md has it as a table. Little-endian, 8-byte aligned within a
 * message. Only consensus/ includes it. */
#ifndef RF_CONSENSUS_AGREEMENT_WIRE_H
#define RF_CONSENSUS_AGREEMENT_WIRE_H

#include "consensus/agreement.h"

#define FORWARDS_MAX 64 /* proposals of one FORWARD */

enum {
    MESSAGE_FORWARD = 0xd0,
    MESSAGE_APPEND = 0xd1,
    MESSAGE_ACCEPTED = 0xd2,
    MESSAGE_REFUSED = 0xd3,
    MESSAGE_REPORT = 0xd4,
    MESSAGE_VOTE_REQUEST = 0xd5,
    MESSAGE_VOTE = 0xd6,
    MESSAGE_READ = 0xd7,
    MESSAGE_READ_INDEX = 0xd8,
    MESSAGE_SNAPSHOT = 0xd9,
    MESSAGE_SNAPSHOT_ACK = 0xda,
    MESSAGE_FETCH = 0xdb,
};

typedef struct wire_member {
    rf_core_t core;
    uint16_t flags; /* REPORT: agreement_evidence_t; of a change: CHANGE_* */
    rf_incarnation_t incarnation;
} wire_member_t;

enum { CHANGE_JOINED = 1, CHANGE_IN_ORDER = 2 };

typedef struct wire_proposal { /* FORWARD: these, each followed by `size` bytes padded to 8 */
    uint64_t session, sequence;
    uint16_t kind; /* COMMAND, SESSION_OPEN, SESSION_END, or VIEW: a wire_request_t */
    uint16_t size;
    uint32_t again; /* may be in the log already */
} wire_proposal_t;

typedef struct wire_request { /* CHANGE: followed by n_join members (core only), then n_leave */
    uint16_t n_join, n_leave;
    uint32_t flags;
} wire_request_t;

enum { REQUEST_EXPEL = 1 /* those who leave are expelled */ };

typedef struct wire_append { /* APPEND: followed by n entries from prev_index + 1 on */
    uint64_t view, term, prev_index, prev_term, committed, round;
    wire_member_t leader; /* of `term`; the sender unless FEED */
    uint32_t n, flags;
} wire_append_t;

enum {
    APPEND_ASK = 1,  /* answer, also if there are no entries */
    APPEND_FEED = 2, /* the entries are committed, all of them; the sender need not be the leader */
    APPEND_SEAL = 4, /* its last entry is the leader's last: sealed (log.c) */
};

typedef struct wire_entry { /* followed by `size` bytes padded to 8 */
    uint64_t term, session, sequence;
    uint16_t kind, size;
    uint32_t reserved;
} wire_entry_t;

typedef struct wire_accepted {
    uint64_t view, term, round, match, committed, applied;
    uint32_t flags, reserved;
} wire_accepted_t;

enum {
    ACCEPTED_REJECT = 1, /* entries were missing or did not fit: go on from match + 1 */
    ACCEPTED_FED = 2,    /* to the leader: somebody else feeds me, too */
    ACCEPTED_LANE = 4,   /* a wire_lane_t follows */
    ACCEPTED_FEED = 8,   /* of a FEED: its round is no voter's */
};

typedef struct wire_lane { /* how many lines of the sender's lane it has taken */
    uint64_t id, lines;
} wire_lane_t;

typedef struct wire_refused { /* REFUSED: one or more, all of one header */
    uint64_t session, sequence, value;
    uint32_t why, err;
} wire_refused_t;

typedef struct wire_refused_head {
    uint64_t view, term, applied;
    wire_member_t leader; /* core RF_CORE_NONE: none known */
} wire_refused_head_t;

enum {
    REFUSED_NOT_LEADER = 1,
    REFUSED_FULL,     /* no room, or not now: send it again later; value 1: when the term has a commit */
    REFUSED_HELD,     /* it is in the log: wait */
    REFUSED_ANSWER,   /* executed: err and value are kept in the session */
    REFUSED_ERR,      /* never to be executed: err */
    REFUSED_EXPELLED, /* the receiver is not in a committed view */
};

typedef struct wire_vote_request {
    uint64_t view, term, last_term, last_index;
    wire_member_t dead; /* EVIDENCE: this one is dead */
    uint32_t flags, reserved;
} wire_vote_request_t;

enum {
    VOTE_PRE = 1,
    VOTE_EVIDENCE = 2,
    VOTE_TRANSFER =
        4, /* the leader has asked the candidate to stand; it will never use its lease in its term again */
    VOTE_STAND = 8,  /* from the leader: stand now */
    VOTE_CLAIM = 16, /* with PRE: who would vote votes; the candidate enters the term when a vote has come */
};

typedef struct wire_vote {
    uint64_t view, term; /* of the request, if granted */
    uint32_t granted, pre;
    uint64_t applied, last; /* the sender's */
} wire_vote_t;

enum { VOTE_GRANTED = 1, VOTE_BEHIND = 2 /* refused, and its log is behind this one's */ };

typedef struct wire_read { /* READ and READ_INDEX: a head, then at most AGREEMENT_READS_MAX of these */
    uint64_t id, index;    /* index: UINT64_MAX: no room, ask again later */
} wire_read_t;

typedef struct wire_head {
    uint64_t view, term;
} wire_head_t;

typedef struct wire_snapshot { /* followed by the chunk's bytes */
    uint64_t view, term, id, index, index_term, total, offset;
    wire_member_t leader;
} wire_snapshot_t;

typedef struct wire_snapshot_ack {
    uint64_t view, term, id, offset; /* offset: holds all before it */
} wire_snapshot_ack_t;

typedef struct wire_fetch {
    uint64_t view, term, match;
} wire_fetch_t;

typedef struct
    wire_form { /* body of the FORM entry: followed by voters as uint16_t[n_voters], then the members */
    rf_machine_id_t machine;
    uint16_t n_cores, n_voters;
    uint16_t mode, n; /* mode 0: bitmap of n bytes; 1: n runs {first, count} as uint16_t */
} wire_form_t;

typedef struct wire_view {            /* body of a VIEW entry: followed by n_old, n_new, n_changes members */
    uint64_t view, session, sequence; /* who asked for it; session 0: nobody */
    uint16_t n_changes;
    uint8_t n_old, n_new;
    uint8_t joint, err, reserved[2]; /* err: not carried out, why */
} wire_view_t;

_Static_assert(sizeof(wire_member_t) == 8 && sizeof(wire_proposal_t) == 24 && sizeof(wire_append_t) == 64 &&
                   sizeof(wire_entry_t) == 32 && sizeof(wire_accepted_t) == 56 && sizeof(wire_lane_t) == 16 &&
                   sizeof(wire_refused_t) == 32 && sizeof(wire_vote_request_t) == 48 &&
                   sizeof(wire_vote_t) == 40 && sizeof(wire_read_t) == 16 && sizeof(wire_snapshot_t) == 64 &&
                   sizeof(wire_form_t) == 24 && sizeof(wire_view_t) == 32 &&
                   sizeof(wire_refused_head_t) == 32,
               "wire layout");
_Static_assert(sizeof(wire_append_t) + sizeof(wire_entry_t) + AGREEMENT_ENTRY_MAX <= AGREEMENT_MESSAGE_MAX,
               "any entry fits a message");
_Static_assert(sizeof(wire_refused_head_t) + FORWARDS_MAX * sizeof(wire_refused_t) <= AGREEMENT_MESSAGE_MAX,
               "an answer to any FORWARD fits a message");

#endif
