/*
 * What a monitor holds: its maxima, what is agreed, what is of this core, operations under way. state.h has what its files offer each
 * other. Only monitor/ includes it, through state.h.
 */
#ifndef RF_MONITOR_TYPES_H
#define RF_MONITOR_TYPES_H

#include "monitor/peer.h"
#include "monitor/registry.h"
#include "monitor/step.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "base/log.h"
#include "consensus/agreement.h"

#include <string.h>

#define BOOT_NS                 (30 * RF_NS_PER_S)   /* forming waits so long for all configured cores */
#define ASK_NS                  (500 * RF_NS_PER_MS) /* who waits for core 0 in vain asks the others so often */
#define JOIN_SILENCE_NS         (10 * RF_NS_PER_S)  /* one that joins and hears nobody for so long gives up */
#define REQUEST_NS              (5 * RF_NS_PER_S)   /* another monitor's, CPU driver's or exporter's answer */
#define SPAWN_NS                (30 * RF_NS_PER_S)  /* a spawn, all in all */
#define SHUTDOWN_GRACE_NS       (2 * RF_NS_PER_S)   /* between TERM and KILL */
#define SHUTDOWN_KILL_NS        (3 * RF_NS_PER_S)   /* after KILL */
#define RETRY_NS                (20 * RF_NS_PER_MS) /* after a full log */
#define REDIAL_NS               (20 * RF_NS_PER_MS) /* after a dial that failed */
#define PING_ROUNDS             5
#define PING_NS                 (300 * RF_NS_PER_MS)
#define PING_FRESH_NS           RF_NS_PER_S /* so long a measurement serves further pages of the list */
#define OPS_RESERVED            (2 * MONITOR_LOCAL_MAX) /* operations that only ends of dispatchers may use */
#define OPS_WAITS_MAX           (MONITOR_OPS_MAX / 4) /* outstanding WAITs above which dispatchers get no more */
#define OPS_PER_USER_MAX        128 /* outstanding requests of all dispatchers of one user here */
#define OPS_DISPATCHERS_MAX     384 /* ... of all dispatchers: the rest is rackfishd's and other monitors' */
#define PARKED_RESERVED         256 /* places for descriptors that only monitors and rackfishd may fill */
#define NAMES_PER_USER_MAX      256 /* exported at once by all domains of one user */
#define LOCAL_RESERVED          64  /* places for dispatchers that only rackfishd may fill */
#define INCOMING_MAX            32  /* connects that one exporter has not answered yet */
#define NO_CLIENT               UINT32_MAX
#define NO_SLOT                 UINT16_MAX
#define REGISTRY_SLOTS_MAX      128         /* commands of the registry that are being agreed on */
#define REGISTRY_SLOTS_RESERVED 32          /* ... that only rackfishd may fill */
#define REGISTRY_RETRY_NS       RF_NS_PER_S /* what must be given up, and was not for want of a quorum */
#define SESSIONS_MAX            256         /* of rackfishd here */
#define NOTICE_NS               (50 * RF_NS_PER_US) /* for entries that tell it by the way: about a round trip */
#define AGREE_LOG_MAX           256                 /* entries */
#define AGREE_BEHIND_NS         (60 * RF_NS_PER_S)
#define AGREE_ENTRY_MAX         REGISTRY_COMMAND_MAX /* bytes */
#define AGREE_PROPOSALS_MAX     AGREEMENT_WINDOW
#define AGREE_SESSIONS_MAX      64 /* of rackfishds: op_once.c */
#define AGREE_VOTERS_MAX        AGREEMENT_VOTERS_MAX
#define SMALL_LOG_MAX                                                                                        \
    16 /* of these where the boot block says small; and of the registry: registry_params_of() */
#define SMALL_PROPOSALS_MAX 8
#define SMALL_SESSIONS_MAX  4
#define REPLICA_MAX         (1u << 20)            /* bytes of full cores, domains and names */
#define SNAPSHOT_MAX        (REPLICA_MAX * 5 / 2) /* ... and of a full registry */
#define CHANGE_NS           (10 * RF_NS_PER_S)    /* a change of membership, all in all */
#define JOIN_GATHER_NS      (5 * RF_NS_PER_MS) /* so long the first waits for others, to join by one change */
#define FENCE_GRACE_NS      RF_NS_PER_S        /* for who leaves in order, to end by itself */
#define FENCE_AGAIN_NS      RF_NS_PER_S        /* between words that a core cannot be fenced */
#define FENCE_MS            1000 /* the CPU driver's answer; killing and reaping takes about a millisecond */
#define RECLAIM_NS          RF_NS_PER_S /* for the leader to have proposed it; and between proposals */

/* ---- replica: agreed ---- */

enum command_op {                               /* what proposals say; a struct command */
                  COMMAND_DOMAIN_ADD = 1,       /* -> value: the domain */
                  COMMAND_DISPATCHER_ADD = 2,   /* -> value: the index */
                  COMMAND_DISPATCHER_STATE = 3, /* running, or ended */
                  COMMAND_NAME_PUT = 4,
                  COMMAND_NAME_DELETE = 5,
                  COMMAND_RECLAIM = 6, /* `core`, in `incarnation`, has left and is fenced */
};

typedef struct command {
    uint16_t op;
    rf_core_t core;
    rf_incarnation_t
        incarnation; /* of it, who proposes: only while it is a member. RECLAIM: of it, who has left */
    uint32_t uid;
    uint16_t index;
    uint16_t state;
    rf_domain_t domain;
    int32_t wait_status;
    uint32_t reason;
    uint64_t at_ns;         /* CLOCK_REALTIME at the proposer */
    char name[RF_NAME_MAX]; /* program, or exported name */
    char user[32];
} command_t;
_Static_assert(sizeof(command_t) == 136, "wire layout");

/*
 * Of a dispatcher at most one bit is set, and what it has (locks, names) goes with that:
 *   alive   it is of its core's last incarnation, which is in the view
 *   ending  its domain has ended, and its core has not said yet that it has gone, too
 *   left    its core has left the view, and has not been reclaimed: it may still run
 */
typedef struct domain {
    rf_domain_t id; /* 0: free */
    uint32_t uid;
    uint16_t state; /* RF_DOMAIN_* */
    uint16_t n_dispatchers;
    int32_t wait_status;
    rf_err_t reason;
    uint64_t started_ns, ended_ns, alive, ending, left; /* the last three: bit per index */
    rf_core_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX];
    char user[32];
    char program[RF_NAME_MAX];
    bool stale; /* while a snapshot is loaded: not in it */
    /* told */
    bool told_ended;
    int32_t told_status;
    rf_err_t told_reason;
    uint64_t told_ns, told_dead;              /* told_dead: bit per index */
    uint64_t user_us, system_us, max_rss_kib; /* of dispatcher 0, when it ended on this core */
} domain_t;

typedef struct name {
    bool used;
    char name[RF_NAME_MAX];
    rf_domain_t domain;
    uint16_t index;
    rf_core_t core;
} name_t;

typedef enum fence_state { FENCE_NONE, FENCE_DUE, FENCE_ASKED, FENCE_FAILED, FENCE_DONE } fence_state_t;

/* This core's lane for another voter to write: standby.c. */
typedef struct standby {
    bool unfit;        /* the medium to it takes no memory back: there will be none */
    uint64_t again_ns; /* waited the last time before dialling; 0: the last link was ready */
    enum { STANDBY_NONE, STANDBY_DIALLED, STANDBY_READY, STANDBY_GRANTED } state;
    rf_incarnation_t incarnation; /* whom it is for */
    uint64_t redial_ns;           /* not before */
} standby_t;

/*
 * Of a core that nothing is known of but that it is a member in its first life, all is 0, and stays untouched: a large machine's monitors deal
 * with few others, and memory that was never written to is not there.
 */
typedef struct core {
    /* agreed; whether it is a member, and was ever one: monitor.members, .named */
    rf_incarnation_t agreed; /* core_agreed(), where that is above 1; else 0 */
    rf_incarnation_t
        holding; /* the last that has left, while what it, or one before it, had is not reclaimed; 0 */
    /* told */
    rf_incarnation_t after_first; /* core_life(), less 1 */
    bool dead;                    /* ... has left, or is known to be dead */
    bool dead_kernel;             /* ... by the kernel of its host */
    rf_err_t dead_err;
    /* fencing */
    rf_incarnation_t left;        /* the last that has left */
    fence_state_t fence;          /* ... of it */
    uint64_t fence_ns;            /* not before; who leaves in order ends by itself */
    uint64_t expel_ns;            /* when it runs no more, even if nobody there can see to that */
    rf_incarnation_t told_fenced; /* the last of which that was said, whether it has left here or not */
    bool fence_said;              /* that it cannot be fenced */
    uint64_t fenced_ns;           /* when it was DONE */
    bool reclaiming;              /* proposed: op_reclaim.c */
    uint64_t reclaim_ns;          /* not again before */
    rf_incarnation_t expelling;   /* its host's expulsion was asked for in this life of it; 0: never */
    monitor_process_t process;
    /* peer link */
    enum { PEER_NONE, PEER_DIALING, PEER_LINKED, PEER_GONE } link;
    rf_incarnation_t linked;   /* LINKED: with whom; else with whom last, 0: never */
    uint16_t unanswered;       /* requests at it */
    bool ready;                /* core 0: it has said READY */
    uint8_t death_due;         /* AGREEMENT_EVIDENCE_*: the engine is to be told, */
    rf_incarnation_t death_of; /* of this incarnation */
    bool room_due, fenced_due;
    bool redial; /* a dial failed: again at redial_ns */
    uint64_t redial_ns;
    uint64_t heard_ns, their_sent_ns; /* the last word of it: core_heard_ns(); what its last heartbeat said */
    uint16_t silent;                  /* beats of mine since it was heard */
    /* last measurement */
    uint64_t ping_sent_ns; /* 0: none outstanding */
    unsigned n_pings;
    uint64_t pings[PING_ROUNDS];
    bool wanted;       /* to be dialled when its address comes */
    bool address_news; /* the address has changed since it joined: it may be its next life's */
    char address[RF_CLIENT_ADDRESS_MAX]; /* other hosts; "" : not known */
    standby_t standby;
} core_t;

/* ---- this core ---- */

typedef struct local {                                                      /* a dispatcher of this core */
    enum { LOCAL_FREE, LOCAL_CREATING, LOCAL_RUNNING, LOCAL_ENDING } state; /* ENDING: gone, not agreed yet */
    rf_domain_t domain;
    uint16_t index;
    uint32_t flags; /* of its spawn block */
    uint32_t block_size;
    int block_fd, executable_fd; /* not FREE: kept for spanning; -1: none */
    uint32_t client;             /* NO_CLIENT: it has not identified itself */
    bool started;                /* ... and never will again */
    int32_t wait_status;
    rf_err_t reason;
    uint64_t ended_ns;
} local_t;

typedef struct client {
    bool used;
    rf_domain_t domain; /* 0: rackfishd */
    uint16_t index;
    uint16_t outstanding, incoming;
    uint32_t mask;       /* subscribed */
    bool blocked;        /* its link does not take events */
    uint64_t event_next; /* number of the next machine event for it */
} client_t;

typedef struct parked { /* descriptors whose message has not come yet */
    bool used, peer;
    uint32_t who; /* client, or core */
    uint32_t tag;
    unsigned n_fds;
    int fds[MONITOR_FDS_MAX];
} parked_t;

/* ---- operations ---- */

typedef enum op_kind {
    OP_FREE,
    OP_SPAWN,
    OP_END,
    OP_WAIT,
    OP_KILL,
    OP_CONNECT,
    OP_NAME,
    OP_LINKS,
    OP_STATS,
    OP_LISTEN,
    OP_HOLDINGS,
    OP_SHUTDOWN,
    OP_RUNNING,
    OP_CHANGE,
    OP_FENCE,
    OP_RECLAIM,
    OP_REGISTRY,
    OP_READ, /* of the registry */
    OP_WATCH,
    OP_SESSION,
    OP_ONCE
} op_kind_t;

typedef struct op {
    op_kind_t kind;
    uint8_t state; /* of its kind's own enum */
    uint16_t generation;
    uint32_t client; /* who asked; NO_CLIENT: nobody here */
    uint32_t client_tag;
    uint16_t client_op;
    bool counted;           /* in core[peer].unanswered */
    bool transfer;          /* SPAWN: counted in n_transfers */
    rf_core_t peer;         /* RF_CORE_NONE, or the other monitor */
    uint32_t peer_tag;      /* its operation, when it asked */
    rf_incarnation_t asked; /* which life of it has been asked by peer_request(); 0: none */
    rf_incarnation_t asker; /* ... has asked this one (peer_tag), and alone is answered */
    uint64_t deadline_ns;
    bool proposing;       /* a proposal of it is queued or under way */
    const void *proposal; /* ... these bytes: its command, or a slot of the registry's */
    uint16_t proposal_size;
    uint64_t log_session, log_sequence; /* ... in this session of the log; 0: in this member's own */
    union {
        command_t command;
        registry_command_t registry_command; /* without name and value */
    };
    union {
        struct {
            bool span;
            uint16_t index, n_fds, local; /* local: of the target, its place in locals */
            rf_domain_t domain;
            rf_core_t core;
            int fds[MONITOR_FDS_MAX];
            uint32_t size, sent, flags, uid;
            char user[32];
            char program[RF_NAME_MAX];
        } spawn;
        struct {
            rf_domain_t domain;
            uint16_t index;
        } end; /* OP_END, OP_RUNNING */
        struct {
            bool join, kill, unsure, /* unsure: an earlier attempt to leave may be carried out */
                expel; /* expel: what is left on the node of `core` of the lives that it was asked for */
            rf_core_t core;
            rf_incarnation_t incarnation; /* who leaves; who has joined, once the view is applied */
            uint64_t sequence;            /* join: of the change that it is part of; 0: of none yet */
        } change;
        struct {
            rf_core_t core;
            rf_incarnation_t incarnation; /* OP_FENCE: the life that was asked about */
        } fence;                          /* OP_FENCE, OP_RECLAIM */
        struct {
            rf_domain_t domain;
        } wait;
        struct {
            uint16_t pending, done; /* of the one that collects */
            rf_err_t err;
            uint32_t parent; /* of a part */
            rf_kernel_signal_t signal;
        } kill;
        struct {
            uint64_t channel;
            uint32_t exporter; /* the client here that has been asked; NO_CLIENT */
            rf_domain_t domain, from_domain;
            uint16_t index, from_index, kind;
            rf_core_t core, from_core;
            uint32_t slots, from_uid;
            int fds[2]; /* the asker's end and the exporter's; -1: none */
            char name[RF_NAME_MAX];
            char from_user[32];
            uint8_t token[32], key[32];
        } connect;
        struct {
            uint64_t wait, session; /* its number in the registry; whose it is: a session's */
            rf_domain_t domain;     /* ... or a dispatcher's */
            uint16_t index, what, flags, slot;
            rf_err_t over; /* why a wait is to end: TIMEOUT, CANCELLED; RF_OK: it is not */
        } registry;
        struct {
            uint64_t next; /* WATCH: the revision to look at next */
            uint16_t what, flags, name_size, from_size;
            uint8_t kind;
            char name[REGISTRY_NAME_MAX], from[REGISTRY_NAME_MAX];
        } read; /* OP_READ, OP_WATCH */
        struct {
            uint64_t id;
            uint16_t place; /* NO_PLACE: it had ended, and owns again */
        } session;
        struct {
            bool end;
            uint64_t id;
        } once;
        struct {
            uint64_t from;
            bool has_own;
            rf_kernel_stat_t own;
        } list;
    };
} op_t;

/* What an operation does when something comes for it. NULL: does not happen to it. Each may end the operation. */
typedef struct op_class {
    const char *name;
    void (*proposed)(monitor_t *m, op_t *op, rf_err_t err, uint64_t value);
    void (*readable)(monitor_t *m, op_t *op,
                     rf_err_t err); /* the replica is as new as when agree_read() was called */
    void (*peer_up)(monitor_t *m, op_t *op);
    /* PEER_DEAD: it is. UNKNOWN_OUTCOME: it lives, but the link broke over which it was asked, and it may have done that. Else why
     * there is no link with it. */
    void (*peer_lost)(monitor_t *m, op_t *op, rf_err_t err);
    void (*kernel)(monitor_t *m, op_t *op, rf_err_t err, const uint8_t *bytes, size_t size);
    void (*answer)(monitor_t *m, op_t *op, const monitor_event_t *event); /* BLOCK, CHUNK, SOCKETPAIR, ... */
    void (*timeout)(monitor_t *m, op_t *op);
    void (*client_gone)(monitor_t *m, op_t *op, uint32_t client);
} op_class_t;

typedef struct agree {
    agreement_t *engine;
    agreement_state_t state;        /* as last asked */
    rf_err_t received_err;          /* of the last message */
    bool busy;                      /* inside run(): what comes meanwhile is queued */
    bool peers_due;                 /* something of a core is to be told ... */
    rf_core_t peers_from, peers_to; /* ... of these, at most */
    uint64_t tick_ns;               /* the engine wants a tick; RF_NEVER */
    uint64_t
        notice_ns; /* then others are told what is committed, if nothing tells them before; 0: they know */
    bool awaited;  /* what was applied in this step is waited for at another monitor */
    uint64_t retry_ns; /* the log was full: no proposal before that; 0 */
    uint64_t sequence; /* last used of this member's own session */
    unsigned queue_head, n_queue;
    unsigned n_inflight;
    uint64_t joins_ns; /* when the next change goes by which some join; 0: nobody waits for it */
    uint64_t joins;    /* sequence of the one that is under way; 0: none */
    unsigned reads_head, n_reads, n_reading;
    struct {
        uint64_t session, sequence;
        uint32_t op; /* 0: a change by which some join */
    } inflight[AGREE_PROPOSALS_MAX];
    uint32_t queue[MONITOR_OPS_MAX]; /* operations that want to propose, in order */
    uint32_t reads[MONITOR_OPS_MAX]; /* operations that want to read, in order */
} agree_t;

/* A session of rackfishd: owns what vanishes with a command. Ends by an agreed entry, behind all that it still proposes. */
typedef struct session {
    bool used, ending, op; /* op: its end is being agreed on */
    uint32_t client;       /* NO_CLIENT: gone */
    unsigned proposing;
    uint64_t id;
} session_t;

/* How late steps come that were due: lateness.c. */
typedef struct lateness {
    rf_histogram_t samples;
    uint64_t often_ns, worst_ns; /* often: p99.9 of enough of them; 0: there were not enough yet */
    bool warned;
} lateness_t;

typedef enum phase {
    PHASE_LINKING,
    PHASE_READY,
    PHASE_FORMED,
    PHASE_LEAVING,
    PHASE_EXPELLED,
    PHASE_SHUTDOWN
} phase_t;

/* Deliberate defects, for tests of the simulator: one bit each. 0 in every real monitor. */
typedef enum monitor_defect {
    MONITOR_DEFECT_WATCH_GAP = 1 << 0,      /* a watcher is not told that changes are no longer kept */
    MONITOR_DEFECT_EPHEMERAL_KEPT = 1 << 1, /* what a core's owners had stays when the core leaves */
    MONITOR_DEFECT_READ_STALE = 1 << 2,     /* a linearizable read is answered from the replica at once */
    MONITOR_DEFECT_LEFT_HEARD = 1 << 3,     /* who has left is listened to all the same */
    MONITOR_DEFECT_OUTCOME_DENIED =
        1 << 4, /* of a change whose outcome is unknown it says that nothing happened */
    MONITOR_DEFECT_NOT_FROZEN = 1 << 5, /* a host without contact lets its dispatchers run on */
    MONITOR_DEFECT_NO_LEASE = 1 << 6,   /* a core whose monitor stands still does, too */
    MONITOR_DEFECT_LEASE_LED =
        1 << 7, /* a voter's lease is put off by whatever its leader said, however long ago */
    MONITOR_DEFECT_CONTACT_BEHIND = 1 << 8,   /* contact is taken also from who has applied a later view */
    MONITOR_DEFECT_RECLAIM_UNFENCED = 1 << 9, /* what a core had is another's as soon as the core leaves */
} monitor_defect_t;

struct monitor {
    const rf_boot_t *boot;
    unsigned defects;
    rf_core_t core;
    rf_incarnation_t incarnation; /* which life of this core's monitor this is */
    rf_node_t node;
    uint64_t now_ns, real_ns, started_ns; /* now: CLOCK_BOOTTIME */
    uint64_t form_ns;                     /* core 0: forms with who is there */
    uint64_t ask_ns;                      /* the others: whoever is linked is asked again whether it has */
    char owner[32];                       /* who did `up`; "" : not known */
    phase_t phase;
    bool forming; /* core 0: the first entry is proposed */
    bool begun;
    monitor_output_t *out;     /* of the step under way */
    uint64_t next_deadline_ns; /* no operation's is earlier */
    uint64_t due_ns;           /* the last step asked for the time then; RF_NEVER: not behind itself */

    struct {
        uint64_t due_ns; /* when to look whether each voter has what it needs */
        bool again;      /* the engine wants to see the lane once more */
    } lane;
    bool formed, quorum; /* quorum: changes can be agreed on */

    core_t *cores;            /* [boot->n_cores] */
    uint8_t *members, *named; /* bitmaps: whose core_agreed() is in the view; of whom there was one */
    uint64_t heard_ns;        /* the last word of anybody */
    uint64_t
        silent_since_ns; /* nobody's last word counts as older: when this core came to be in the machine */
    bool some_dead;      /* by the kernel of its host, perhaps */
    bool fences_due;     /* somebody who has left is to be fenced */
    rf_core_t fences_from, fences_to; /* ... of these, at most */
    bool reclaims_due;                /* ... holds something */
    unsigned n_fenced;                /* how often one was found to be DONE */
    unsigned n_wanted;                /* cores to be dialled when their addresses come */
    unsigned n_redials;               /* cores to be dialled again: none is looked for when it is 0 */
    rf_domain_t domain_last;
    unsigned n_domains_live;
    registry_t *registry;
    bool loading; /* a snapshot: the registry comes behind the rest */

    unsigned n_sessions, n_watches;
    bool sessions_late; /* one of mine that has ended may own something again, or could not be ended yet */
    uint64_t registry_next;    /* waits and sessions are numbered */
    uint64_t registry_watched; /* watchers have been told of everything up to this revision */

    unsigned n_ops, n_transfers, n_waits;
    uint32_t op_next;

    unsigned n_subscribers;
    uint64_t event_last; /* events are numbered from 1 */

    bool kernel_up;
    char scheduler[96], isolation[96];
    uint64_t channel_next;
    uint64_t heartbeat_ns, beat_ns; /* the next one and the last */
    uint16_t silent[RF_NODES_MAX];  /* beats of mine since a host was heard */
    uint64_t pinged_ns;             /* when the last measurement was complete */
    bool pinging, beating;
    unsigned n_beats;
    uint64_t contact_ns;        /* when this host last had contact with the quorum, at least */
    uint64_t lease_ns;          /* as last put out */
    uint64_t expulsions_silent; /* views seen here that expelled a core of whose death no kernel had told */
    bool frozen;                /* the dispatchers of this core, for want of contact */
    uint64_t ping_deadline_ns;
    int exit_status; /* -1: goes on */
    uint64_t logged_ns[4];

    /* Behind all that each step looks at: most of it is never touched. */
    agree_t agree;
    lateness_t lateness;
    client_t clients[MONITOR_CLIENTS_MAX]; /* rackfishd is the first: on the page of the end of `lateness` */
    local_t locals[MONITOR_LOCAL_MAX];
    session_t sessions[SESSIONS_MAX];
    op_t ops[MONITOR_OPS_MAX];
    struct {
        bool used;
        uint16_t size;
        uint8_t bytes[REGISTRY_COMMAND_MAX] __attribute__((aligned(8)));
    } slots[REGISTRY_SLOTS_MAX];
    parked_t parked[MONITOR_PARKED_FDS_MAX];
    name_t names[MONITOR_NAMES_MAX];
    rf_client_machine_event_t events[MONITOR_EVENTS_KEPT];
    domain_t domains[MONITOR_DOMAINS_MAX]; /* of domain id at id % MONITOR_DOMAINS_MAX */
};

#endif
