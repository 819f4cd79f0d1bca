/*
 * What an engine holds: its maxima, and the state of each of its parts; engine.h says which file keeps what, and what they offer each
 * other. Only consensus/ includes it, through engine.h.
 */
#ifndef RF_CONSENSUS_ENGINE_STATE_H
#define RF_CONSENSUS_ENGINE_STATE_H

#include "consensus/agreement.h"
#include "consensus/agreement_wire.h"

#define SESSION_OPENED   (1ull << 63) /* in ids of opened sessions; the rest is the index of the entry */
#define SERVED_READS_MAX 128          /* leader: reads waiting for a round */
#define SUSPICIONS_MAX   64           /* leader: members reported silent, not believed yet */
#define EARLY_DEATHS_MAX 16           /* evidence about members that the log has not named yet */
#define CANDIDATES_MAX   AGREEMENT_VOTERS_MAX
#define PROGRESS_MAX     (2 * AGREEMENT_VOTERS_MAX + AGREEMENT_CHILDREN_MAX)
#define ROUNDS_KEPT      16        /* send times of rounds, for the lease */
#define STAGGER_NS       200000ull /* for messages that are under way */
#define EVIDENCE_TURNS   4         /* of that, between the ranks that stand on evidence */
#define EVIDENCE_STANDS  5 /* elections without a pre-vote; who has no majority by then may be cut off */
#define TERM_AHEAD_MAX                                                                                       \
    (1u << 24) /* elections that a member may have missed: an hour of one every STAGGER_NS */
#define UNKNOWN_SESSIONS_MAX 16
#define ARENA_SIZE           (4 * AGREEMENT_MESSAGE_MAX)
#define INCARNATION_MAX      ((1u << 30) - 1)
#define INCARNATION_INLINE   62 /* larger ones take four more bytes in a snapshot */
#define ESCAPES_MAX          1024

/* A configuration: who votes from the entry at `index` on. Not joint: only voters_new. */
typedef struct config {
    uint64_t index, view;
    uint64_t session, sequence; /* who asked for the change */
    bool joint;
    uint8_t n_old, n_new;
    uint16_t n_changes; /* joint: what the final entry is to do */
    agreement_member_t voters_old[AGREEMENT_VOTERS_MAX], voters_new[AGREEMENT_VOTERS_MAX];
    wire_member_t changes[AGREEMENT_CHANGES_MAX];
} config_t;

enum { SET_OLD = 1, SET_NEW = 2 };

typedef enum progress_mode {
    PROGRESS_STREAM,   /* entries are sent as they come */
    PROGRESS_PROBE,    /* something was missing: one message at a time, until one fits (etcd's StateProbe) */
    PROGRESS_SILENT,   /* not heard for long: asked only */
    PROGRESS_SNAPSHOT, /* is behind the ring */
    PROGRESS_LANE,     /* entries are written into its lane (lane_feed.c); only questions go as messages */
} progress_mode_t;

typedef struct progress {
    agreement_member_t member;
    uint8_t sets; /* SET_OLD, SET_NEW; 0: learns, is sent committed entries only */
    uint8_t mode; /* progress_mode_t */
    bool ask;     /* to be asked for an answer, entries or not */
    bool dead, fetched, candidate;
    bool leaving;         /* is sent the entry that it leaves by, once; then forgotten */
    uint8_t window;       /* chunks of a snapshot that may be in flight */
    uint64_t match;       /* holds the same log up to here */
    uint64_t next;        /* is to be sent from here on */
    uint64_t commit_sent; /* was told that much is committed */
    uint64_t applied;     /* has applied that much */
    uint64_t round;       /* has answered that round, as the voter or learner that it is now */
    uint64_t heard_ns;
} progress_t;
_Static_assert(sizeof(progress_t) == 64, "one cache line");

typedef struct
    transfer { /* beside progress[i]: its snapshot, if it is sent one, and the resend timer's memory */
    uint64_t id;
    uint32_t sent, acked;
    uint64_t match_seen, applied_seen; /* when the resend timer last looked */
    uint64_t rewound_ns;               /* when an answer last took the stream back */
    struct {
        uint64_t applied; /* has applied that much, */
        uint64_t looks;   /* and no more for so many looks of the resend timer at which it lacked something */
    } moved;
} transfer_t;

/* Which of the last AGREEMENT_WINDOW sequences were executed: bit i is `high` - i. */
typedef struct result {
    uint64_t sequence, value;
    uint32_t err, reserved;
} result_t;

typedef struct session {
    uint64_t id; /* 0: free */
    uint64_t high, bits;
    result_t *results; /* [AGREEMENT_WINDOW]; NULL: a member's own */
} session_t;

typedef struct proposal { /* an own one, until it is answered */
    uint64_t session, sequence;
    uint64_t since_ns, order;
    union {
        uint64_t sent_ns;
        uint64_t refused_at; /* `refused`: err is the answer once that much is applied here */
    };
    uint64_t loads; /* snapshots loaded before it was made */
    uint16_t before,
        after; /* in the order of being made: places + 1; a free one: `after`, the next free one */
    uint16_t kind, size;
    uint16_t err;
    bool sent;      /* to the leader of now, or in its log */
    bool ever_sent; /* to any leader: it may be in the log */
    bool refused;   /* the leader says that it will never be executed */
    uint8_t reserved[3];
    uint8_t bytes[]; /* entry_max */
} proposal_t;
_Static_assert(sizeof(proposal_t) == 64, "one cache line, and the bytes");

typedef struct reading {
    bool used, sent;
    uint64_t id, cookie, index; /* index: UINT64_MAX until the leader has answered */
    uint64_t since_ns;
} reading_t;

typedef struct served_read { /* leader: waits until majorities have answered `round` */
    agreement_member_t from; /* self: an own one */
    uint64_t id, round, index;
} served_read_t;

typedef struct unknown {        /* a proposal that may be in the log */
    uint64_t session, sequence; /* session 0: free */
} unknown_t;

typedef struct suspicion {
    agreement_member_t member;
    uint64_t since_ns; /* not heard since */
} suspicion_t;

enum {                    /* what the epilogue has to look at beyond the ordinary */
       DUE_COMMIT = 1,    /* leader: somebody acknowledged, or the log grew */
       DUE_CHANGE = 2,    /* leader: a change of membership may be possible */
       DUE_PROPOSALS = 4, /* own proposals to be sent */
       DUE_READS = 8,     /* own reads to be sent or finished */
       DUE_REPORTS = 16,  /* deaths to be told to the leader */
       DUE_VOTES = 32,    /* candidate: votes to be asked for */
       DUE_FEED = 64,     /* somebody fed here may lack something */
       DUE_SERVED = 128,  /* leader: reads may be confirmed */
       DUE_REFUSED = 256, /* refused proposals may be answered now */
       DUE_FAIL = 512,    /* no quorum: answer what is outstanding */
       DUE_FETCH = 1024,  /* learner: ask for what is missing */
       DUE_LEFT = 2048,   /* leader: tell members that left in order */
       DUE_LOADED = 4096, /* own proposals that a snapshot passed over are to be answered */
};

typedef enum steady {
    STEADY_NOT,
    STEADY_LEADS,
    STEADY_FOLLOWS,
} steady_t;

struct agreement {
    agreement_params_t params;
    uint64_t now_ns, prev_now_ns;
    uint32_t due;
    uint8_t steady; /* steady_t: by which shortcuts the next event may go */
    bool holding;
    bool
        lazy; /* leader: what is committed is only waited for here: the next APPEND says it, or the next tick */
    uint64_t own_session;
    uint64_t n_shortcuts;
    agreement_apply_t command; /* what commands are applied by: what does not differ between them stays */

    /* term and role */
    uint64_t term;
    agreement_member_t voted; /* in `term`; core RF_CORE_NONE: nobody */
    agreement_member_t leader;
    agreement_role_t role;
    bool pre; /* candidate: of the pre-vote */
    bool stands_on_evidence, stands_by_transfer;
    bool quorum, lost, expelled, formed;
    bool hears_candidate; /* is about to judge a VOTE_REQUEST */
    bool leader_dead;     /* kernel evidence about dead_leader, who led last, and no leader since */
    bool leader_unheard; /* the link to the leader broke, and it was not heard since: nothing is sent there */
    agreement_member_t
        asked; /* for a pre-vote, refused because the leader is heard: `asked_for`, at asked_ns; core RF_CORE_NONE: nobody */
    wire_vote_request_t asked_for;
    uint64_t asked_ns;
    agreement_member_t dead_leader, promised_to;
    bool transferring; /* leader: a successor is asked to stand; nothing new is taken on meanwhile */
    bool lease_over;   /* leader: this term has no lease any more */
    uint8_t granted_old, granted_new; /* candidate: bits of the voters */
    uint64_t granted_applied;         /* candidate: all of them have applied that much, at least */
    uint64_t granted_last;            /* and their logs end there, at least */
    unsigned attempts;                /* elections since a leader was heard */
    uint64_t term_index;              /* leader: its first entry */
    uint64_t leader_heard_ns, promise_until_ns;
    uint64_t spread_ns, spread_term; /* of this voter's election time, in that term */
    uint64_t election_at_ns, heartbeat_at_ns, resend_at_ns, check_at_ns, retry_at_ns, fetch_at_ns;
    uint64_t transfer_until_ns;
    uint64_t waits_term;         /* proposals were refused until an entry of this term is committed; 0: not */
    agreement_member_t stand_to; /* leader: to be asked to stand; core RF_CORE_NONE: nobody */

    /* log */
    uint64_t first, last, committed, applied;
    uint64_t first_term; /* term of the entry before `first` */
    uint64_t last_term;
    uint64_t sealed_index, sealed_term; /* log.c; index 0: not */
    uint64_t matched;                   /* follower: the log is its leader's up to here */
    uint64_t trim_limit;                /* leader: majorities have applied that much, at least */
    uint64_t view;                      /* applied */
    uint8_t *log;
    uint32_t *offsets; /* [log_max] where entry i begins, at i & (log_max - 1) */
    uint32_t log_end, log_size, entry_stride;

    /* configurations: committed, and the one uncommitted, if any */
    config_t configs[2];
    unsigned config; /* which is the committed one */
    bool pending;    /* the other one is in force */

    /* progress of who is fed here: voters first (leader only), then learners */
    unsigned n_voters, n_progress;
    progress_t progress[PROGRESS_MAX];
    transfer_t transfers[PROGRESS_MAX];
    uint64_t round, rounds_ns[ROUNDS_KEPT];
    bool round_wanted; /* a read waits for one that is not sent yet */
    bool ack_due;      /* answer to this step's APPEND */
    uint32_t ack_flags;
    uint64_t ack_round;
    agreement_member_t ack_to;
    agreement_member_t parent; /* learner: who fed it last */
    uint64_t parent_heard_ns;  /* ... or, if later, since when it knows that it lacks something */
    uint64_t known_committed, n_fetches, fetched_ns;
    uint64_t fed_ns; /* learner: by another than the leader, last */

    /* membership as of the applied log, and what is known of deaths */
    uint32_t *members; /* [n_cores] incarnation << 2 | agreement_member_state_t */
    unsigned n_members;
    uint8_t *dead;     /* bitmap: kernel evidence about the incarnation that is in */
    uint8_t *believed; /* bitmap, leader: to be expelled */
    uint8_t *silent;   /* bitmap: silence to be reported to the leader */
    unsigned n_silent_tells;
    agreement_member_t stuck;  /* fed here, does not catch up: to be told to the leader */
    agreement_member_t behind; /* leader: the last whose expulsion for that has gone into the log */
    uint64_t n_behind;         /* ... and been carried out */
    unsigned n_escapes;        /* members whose incarnation exceeds INCARNATION_INLINE */
    agreement_member_t early[EARLY_DEATHS_MAX];
    unsigned n_early;
    suspicion_t suspicions[SUSPICIONS_MAX];
    unsigned n_suspicions;
    agreement_member_t candidates[CANDIDATES_MAX]; /* leader: desired voters that are not yet */
    unsigned n_candidates;
    uint64_t candidates_ns;
    uint64_t change_round;      /* leader: majorities are to answer it before voters change; 0: none */
    uint64_t change_round_next; /* ... or this one, which was sent last, at change_asked_ns */
    uint64_t change_asked_ns;
    bool change_waits; /* one that change_step() has looked at waits for that */
    agreement_member_t
        late; /* leader: to be expelled because it does not catch up, unless it is heard first */
    struct {  /* leader: the ring keeps what follows on a voter's snapshot (snapshot.c) */
        agreement_member_t member;
        bool on;
        uint64_t floor; /* what is above stays, or what is above what the voter has acknowledged */
        uint64_t since_ns, next_ns; /* not again before next_ns */
    } hold;
    struct { /* leader: the change that was asked for */
        bool used, expel;
        uint64_t session, sequence;
        unsigned n_join, n_leave;
        rf_core_t join[AGREEMENT_CHANGES_MAX];
        agreement_member_t leave[AGREEMENT_CHANGES_MAX];
    } request;
    agreement_member_t left[AGREEMENT_CHANGES_MAX]; /* by the view just applied: told once */
    unsigned n_left;

    /* sessions */
    session_t *sessions;     /* [own_max + sessions_max] */
    session_t *session_last; /* used last */
    uint16_t *session_map;   /* open addressing: place + 1 */
    unsigned session_map_max, own_max, n_own, n_opened, n_places;
    uint16_t *free_opened; /* places of results */
    result_t *results;     /* [sessions_max][AGREEMENT_WINDOW] */
    result_t own_results[AGREEMENT_WINDOW];

    /* own proposals and reads */
    uint8_t *proposals; /* [proposals_max] of proposal_stride; those that were never used are not touched */
    uint16_t *proposal_map;      /* open addressing: place + 1 */
    unsigned proposal_map_shift; /* 64 less the bits of a place in it */
    unsigned n_proposals, n_refused, n_proposal_places;
    uint16_t free_proposal, oldest, newest,
        unsent; /* places + 1; unsent: none before it is to be sent; 0: none */
    uint32_t proposal_stride;
    uint64_t proposal_order, read_next;
    reading_t reads[AGREEMENT_READS_MAX];
    unsigned n_reads;
    served_read_t served[SERVED_READS_MAX];
    unsigned n_served;
    unknown_t *unknown; /* open addressing; proposal.c */
    unsigned n_unknown;
    unknown_t unknown_until[UNKNOWN_SESSIONS_MAX]; /* of these sessions all up to that sequence */
    unsigned n_unknown_until;
    uint64_t unknown_old; /* of opened sessions up to this one any may be; 0: none */

    /* snapshots */
    struct {
        uint64_t id, index, term;
        uint32_t size;
        uint8_t *bytes;
    } out;
    struct {
        agreement_member_t from;
        uint64_t id, index, index_term, total, got;
        uint64_t heard_ns;
        uint8_t *bytes;
    } in;
    uint32_t snapshot_size; /* bytes of each buffer */
    uint64_t n_loads, n_elections, n_snapshots_sent, n_expulsions, n_snapshots, n_reads_leased, n_reads_asked;
    uint8_t *form_map; /* bitmap, for FORM's apply */

    groups_t *groups;                     /* NULL: not used */
    uint64_t groups_tick_ns, groups_view; /* groups_view: the last that they were told of */
    bool groups_more;
    agreement_member_t *group_left; /* [n_cores + AGREEMENT_CHANGES_MAX] to be told: who has left */
    unsigned n_group_left;
    bool reported;       /* a REPORT is to be repeated until the log says it */
    struct lanes *lanes; /* lane.h; NULL: no one-sided append */

    agreement_output_t output;
    agreement_member_t *to; /* destinations of this output */
    unsigned n_to, to_max;
    uint32_t arena_used;
    uint8_t *arena; /* ARENA_SIZE: this output's messages */
};

#endif
