/*
 * Inside of monitor_step; only monitor/ includes it.
 *
 *   step.c           memory, the step: one flat switch; timers
 *   output.c         making actions
 *   agree.c          the engine: proposals of this monitor, entries to apply, deaths
 *   replica.c        the agreed state: cores, domains, names; a function of the log alone
 *   registry*.c      keys, locks, semaphores, barriers, queues, on their own (registry.h): agreed, too
 *   peers.c          links to other monitors: dialling on demand, messages by type
 *   clients.c        clients and what each may ask; query.c answers what needs no operation
 *   kernel.c         the CPU driver: its answers and events, the dispatchers of this core
 *   op_*.c           one distributed operation each, as a state machine with named states
 *   snapshot.c       the replica as bytes, and back
 *   op_member.c      forming, joining, deaths; heartbeat.c: silence, contact
 *   op_change.c      joins and leaves that somebody asks for; op_fence.c: fencing who has left
 *   names.c          exporting and withdrawing names
 *   op_registry.c    changing the registry and waiting in it; op_registry_read.c: reading and watching it; op_session.c: its owners
 *   machine_events.c what subscribers are told
 *
 * Two layers of truth about who is alive:
 *   agreed   in the replica, changed only by applied entries; the same function of the log at every monitor
 *   told     what this monitor knows besides: evidence of deaths, ends of dispatchers, that are not (or, without a
 *            quorum, cannot be) agreed yet. Every answer to a question shows both; no applied entry depends on it.
 */
#ifndef RF_MONITOR_STATE_H
#define RF_MONITOR_STATE_H

#include "monitor/peer.h"
#include "monitor/registry.h"
#include "monitor/step.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "consensus/agreement.h"

#include <string.h>

#define BOOT_NS                 (30 * RF_NS_PER_S)  /* forming waits so long for all configured cores */
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
#define AGREE_LOG_MAX           256         /* entries */
#define AGREE_ENTRY_MAX         REGISTRY_COMMAND_MAX /* bytes */
#define AGREE_PROPOSALS_MAX     AGREEMENT_WINDOW
#define AGREE_SESSIONS_MAX      0
#define AGREE_VOTERS_MAX        AGREEMENT_VOTERS_MAX
#define REPLICA_MAX             (1u << 20)            /* bytes of full cores, domains and names */
#define SNAPSHOT_MAX            (REPLICA_MAX * 5 / 2) /* ... and of a full registry */
#define DRIFT_PPM               1000 /* by which clocks of hosts may differ in rate; ten times what NTP corrects at most */
#define CHANGE_NS               (10 * RF_NS_PER_S) /* a change of membership, all in all */
#define FENCE_GRACE_NS          RF_NS_PER_S        /* for who leaves in order, to end by itself */
#define FENCE_AGAIN_NS          RF_NS_PER_S        /* between words that a core cannot be fenced */
#define FENCE_MS                1000 /* the CPU driver's answer; killing and reaping takes about a millisecond */

/* ---- replica: agreed ---- */

enum command_op {                               /* what proposals say; a struct command */
                  COMMAND_DOMAIN_ADD = 1,       /* -> value: the domain */
                  COMMAND_DISPATCHER_ADD = 2,   /* -> value: the index */
                  COMMAND_DISPATCHER_STATE = 3, /* running, or ended */
                  COMMAND_NAME_PUT = 4,
                  COMMAND_NAME_DELETE = 5,
};

typedef struct command {
    uint16_t op;
    rf_core_t core;
    rf_incarnation_t incarnation; /* of it, who proposes: only while it is a member */
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

/* A dispatcher that is alive is of its core's last incarnation: when one leaves, all of its dispatchers have ended. */
typedef struct domain {
    rf_domain_t id; /* 0: free */
    uint32_t uid;
    uint16_t state; /* RF_DOMAIN_* */
    uint16_t n_dispatchers;
    int32_t wait_status;
    rf_err_t reason;
    uint64_t started_ns, ended_ns, alive; /* alive: bit per index, agreed */
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

typedef struct core {
    /* agreed */
    bool member;             /* `agreed` is in the view */
    rf_incarnation_t agreed; /* the last that was; 0: none yet */
    /* told */
    rf_incarnation_t incarnation; /* the last that is known of; an earlier one is never heard of again */
    bool dead;                    /* ... has left, or is known to be dead */
    bool dead_kernel;             /* ... by the kernel of its host */
    rf_err_t dead_err;
    /* fencing */
    rf_incarnation_t left; /* the last that has left */
    fence_state_t fence;   /* ... of it */
    uint64_t fence_ns;     /* not before; who leaves in order ends by itself */
    uint64_t expel_ns;     /* when it runs no more, even if nobody there can see to that */
    monitor_process_t process;
    /* peer link */
    enum { PEER_NONE, PEER_DIALING, PEER_LINKED, PEER_GONE } link;
    rf_incarnation_t linked; /* LINKED: with whom; else with whom last, 0: never */
    uint16_t unanswered;     /* requests at it */
    bool ready;              /* core 0: it has said READY */
    uint8_t death_due;       /* AGREEMENT_EVIDENCE_*: the engine is to be told */
    bool room_due, fenced_due;
    bool redial; /* a dial failed: again at redial_ns */
    uint64_t redial_ns;
    uint64_t heard_ns, their_sent_ns; /* the last word of it; what its last heartbeat said */
    uint64_t led_ns;                  /* its last entries or leader's heartbeat */
    uint16_t silent;                  /* beats of mine since it was heard */
    /* last measurement */
    uint64_t ping_sent_ns; /* 0: none outstanding */
    unsigned n_pings;
    uint64_t pings[PING_ROUNDS];
    bool wanted;       /* to be dialled when its address comes */
    bool address_news; /* the address has changed since it joined: it may be its next life's */
    char address[RF_CLIENT_ADDRESS_MAX]; /* other hosts; "" : not known */
} core_t;

/* ---- this core ---- */

typedef struct local {                                                      /* a dispatcher of this core */
    enum { LOCAL_FREE, LOCAL_CREATING, LOCAL_RUNNING, LOCAL_ENDING } state; /* ENDING: gone, not agreed yet */
    rf_domain_t domain;
    uint16_t index;
    uint32_t flags; /* of its spawn block */
    uint32_t block_size;
    int block_fd, executable_fd; /* kept for spanning; -1: none */
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
    OP_SHUTDOWN,
    OP_RUNNING,
    OP_CHANGE,
    OP_FENCE,
    OP_REGISTRY,
    OP_READ, /* of the registry */
    OP_WATCH,
    OP_SESSION
} op_kind_t;

typedef struct op {
    op_kind_t kind;
    uint8_t state; /* of its kind's own enum */
    uint16_t generation;
    uint32_t client; /* who asked; NO_CLIENT: nobody here */
    uint32_t client_tag;
    uint16_t client_op;
    bool counted;      /* in core[peer].unanswered */
    bool transfer;     /* SPAWN: counted in n_transfers */
    rf_core_t peer;    /* RF_CORE_NONE, or the other monitor */
    uint32_t peer_tag; /* its operation, when it asked */
    uint64_t deadline_ns;
    bool proposing;       /* a proposal of it is queued or under way */
    const void *proposal; /* ... these bytes: its command, or a slot of the registry's */
    uint16_t proposal_size;
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
            bool join, kill;
            rf_core_t core;
            rf_incarnation_t incarnation; /* who leaves */
        } change;
        struct {
            rf_core_t core;
        } fence;
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
    void (*peer_dead)(monitor_t *m, op_t *op);
    void (*kernel)(monitor_t *m, op_t *op, rf_err_t err, const uint8_t *bytes, size_t size);
    void (*answer)(monitor_t *m, op_t *op, const monitor_event_t *event); /* BLOCK, CHUNK, SOCKETPAIR, ... */
    void (*timeout)(monitor_t *m, op_t *op);
    void (*client_gone)(monitor_t *m, op_t *op, uint32_t client);
} op_class_t;

typedef struct agree {
    agreement_t *engine;
    agreement_state_t state;         /* as last asked */
    rf_err_t received_err;           /* of the last message */
    bool busy;                       /* inside run(): what comes meanwhile is queued */
    bool peers_due;                  /* something of a core is to be told */
    uint64_t tick_ns;                /* the engine wants a tick; RF_NEVER */
    uint64_t retry_ns;               /* the log was full: no proposal before that; 0 */
    uint64_t sequence;               /* last used of this member's own session */
    uint32_t queue[MONITOR_OPS_MAX]; /* operations that want to propose, in order */
    unsigned queue_head, n_queue;
    struct {
        uint64_t sequence;
        uint32_t op;
    } inflight[AGREE_PROPOSALS_MAX];
    unsigned n_inflight;
    uint32_t reads[MONITOR_OPS_MAX]; /* operations that want to read, in order */
    unsigned reads_head, n_reads, n_reading;
} agree_t;

/* A session of rackfishd: owns what vanishes with a command. Ends by an agreed entry, behind all that it still proposes. */
typedef struct session {
    bool used, ending, op; /* op: its end is being agreed on */
    uint32_t client;       /* NO_CLIENT: gone */
    unsigned proposing;
    uint64_t id;
} session_t;

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
} monitor_defect_t;

struct monitor {
    const rf_boot_t *boot;
    unsigned defects;
    rf_core_t core;
    rf_incarnation_t incarnation; /* which life of this core's monitor this is */
    rf_node_t node;
    uint64_t now_ns, real_ns, started_ns; /* now: CLOCK_BOOTTIME */
    uint64_t form_ns;                     /* core 0: forms with who is there */
    char owner[32];                       /* who did `up`; "" : not known */
    phase_t phase;
    bool forming; /* core 0: the first entry is proposed */
    bool begun;
    monitor_output_t *out;     /* of the step under way */
    uint64_t next_deadline_ns; /* no operation's is earlier */

    agree_t agree;
    bool formed, quorum; /* quorum: changes can be agreed on */

    core_t *cores;                         /* [boot->n_cores] */
    uint16_t *host;                        /* [boot->n_cores] failure domains, for the engine */
    uint32_t *package;                     /* [boot->n_cores] */
    bool fences_due;                       /* somebody who has left is to be fenced */
    unsigned n_redials;                    /* cores to be dialled again: none is looked for when it is 0 */
    domain_t domains[MONITOR_DOMAINS_MAX]; /* of domain id at id % MONITOR_DOMAINS_MAX */
    rf_domain_t domain_last;
    unsigned n_domains_live;
    name_t names[MONITOR_NAMES_MAX];
    registry_t *registry;
    bool loading; /* a snapshot: the registry comes behind the rest */

    struct {
        bool used;
        uint16_t size;
        uint8_t bytes[REGISTRY_COMMAND_MAX] __attribute__((aligned(8)));
    } slots[REGISTRY_SLOTS_MAX];
    session_t sessions[SESSIONS_MAX];
    unsigned n_sessions, n_watches;
    bool sessions_late;        /* one of mine that has ended may own something again */
    uint64_t registry_next;    /* waits and sessions are numbered */
    uint64_t registry_watched; /* watchers have been told of everything up to this revision */

    local_t locals[MONITOR_LOCAL_MAX];
    client_t clients[MONITOR_CLIENTS_MAX];
    parked_t parked[MONITOR_PARKED_FDS_MAX];
    op_t ops[MONITOR_OPS_MAX];
    unsigned n_ops, n_transfers, n_waits;
    uint32_t op_next;

    rf_client_machine_event_t events[MONITOR_EVENTS_KEPT];
    uint64_t event_last; /* events are numbered from 1 */

    bool kernel_up;
    char scheduler[96], isolation[96];
    uint64_t channel_next;
    uint64_t heartbeat_ns, beat_ns; /* the next one and the last */
    uint16_t silent[RF_NODES_MAX];  /* beats of mine since a host was heard */
    uint64_t pinged_ns;             /* when the last measurement was complete */
    bool pinging, beating;
    unsigned n_beats;
    uint64_t contact_ns; /* when this host last had contact with the quorum, at least */
    bool frozen;         /* the dispatchers of this core, for want of it */
    uint64_t ping_deadline_ns;
    int exit_status; /* -1: goes on */
    uint64_t logged_ns[4];
};

/* ---- output.c ---- */
monitor_action_t *out_action(monitor_t *m, monitor_action_kind_t kind);
/* Copies two parts into the output behind each other. */
void out_bytes(monitor_t *m, monitor_action_t *action, const void *a, size_t a_size, const void *b,
               size_t b_size);
void out_log(monitor_t *m, rf_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void out_close_fds(monitor_t *m, int *fds, unsigned n);
void out_close_fd(monitor_t *m, int *fd);
bool out_is_nearly_full(const monitor_t *m);
void kernel_invoke(monitor_t *m, uint32_t tag, uint16_t op, const void *body, size_t size, const int *fds,
                   unsigned n_fds);
void client_reply(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, rf_err_t err, const void *body,
                  size_t size);
void client_reply_fd(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, const void *body, size_t size,
                     int fd);
void client_event_fd(monitor_t *m, uint32_t client, uint16_t op, uint64_t key, const void *body, size_t size,
                     int fd);
void client_close(monitor_t *m, uint32_t client, const char *why);

/* ---- agree.c ---- */
rf_err_t agree_init(monitor_t *m, void *memory, size_t size);
agreement_params_t agree_params(const rf_boot_t *boot, rf_core_t core, rf_incarnation_t incarnation,
                                const uint16_t *host, const uint32_t *package);
/* Proposes for `op`, when there is room; its class's `proposed` gets the answer, never before this returns. */
void agree_propose(monitor_t *m, op_t *op, const command_t *command);
/* The same with other bytes, which stay put until then. */
void agree_propose_bytes(monitor_t *m, op_t *op, const void *bytes, size_t size);
/* The same with the proposal it has already; or, OP_CHANGE, its change. */
void agree_queue(monitor_t *m, op_t *op);
/* A linearizable read (Raft 6.4): its class's `readable` is called once the replica holds all that was committed by now. */
void agree_read(monitor_t *m, op_t *op);
void agree_form(monitor_t *m, const rf_core_t *cores, unsigned n);
void agree_transfer(monitor_t *m); /* not from within a step */
void agree_death(monitor_t *m, rf_core_t core, agreement_evidence_t evidence);
void agree_fenced(monitor_t *m, rf_core_t core);
void agree_room(monitor_t *m, rf_core_t core);
rf_err_t agree_receive(monitor_t *m, rf_core_t from, uint8_t type, const void *bytes, size_t size);
void agree_tick(monitor_t *m);
void agree_note_state(monitor_t *m); /* whether there is a quorum, and who leads */

/* ---- snapshot.c ---- */
size_t replica_save(const monitor_t *m, void *bytes, size_t max);
rf_err_t replica_load(monitor_t *m, const void *bytes,
                      size_t size); /* RF_ERR_PROTOCOL: nothing has changed */

/* ---- replica.c ---- */
domain_t *domain_find(monitor_t *m, rf_domain_t id);
bool domain_has_ended(const domain_t *d); /* agreed or told */
bool dispatcher_is_alive(const monitor_t *m, const domain_t *d,
                         unsigned index); /* agreed, and nothing else told */
name_t *name_find(monitor_t *m, const char *name);
bool name_is_alive(monitor_t *m, const name_t *name); /* its dispatcher is, agreed and told */
rf_err_t replica_apply(monitor_t *m, const void *bytes, size_t size, uint64_t *value);
void replica_core_left(monitor_t *m, rf_core_t core); /* with its dispatchers */
void replica_ended_seen(monitor_t *m, domain_t *d);   /* what follows when its end is first seen */
/* Besides the log: dispatcher `index` has ended. */
void replica_tell_ended(monitor_t *m, rf_domain_t domain, unsigned index, int32_t wait_status,
                        rf_err_t reason, uint64_t at_ns);
void replica_tell_core_dead(monitor_t *m, rf_core_t core);
bool text_is_valid(const char *text, size_t max); /* printable, ends within max, not empty */

/* ---- ops ---- */
op_t *op_begin(monitor_t *m, op_kind_t kind, uint64_t deadline_ns); /* NULL: too many */
void op_end(monitor_t *m, op_t *op);
void op_deadline(monitor_t *m, op_t *op, uint64_t deadline_ns);
uint32_t op_id(const monitor_t *m, const op_t *op);
op_t *op_find(monitor_t *m, uint32_t id, op_kind_t kind); /* OP_FREE: of any kind */
/* For a request of a client. Answers RF_ERR_LIMIT itself and returns NULL when there are too many. */
op_t *op_begin_for_client(monitor_t *m, op_kind_t kind, uint32_t client, const rf_wire_header_t *request,
                          uint64_t deadline_ns);
void op_reply(monitor_t *m, op_t *op, rf_err_t err, const void *body,
              size_t size); /* to its client, and ends it */

extern const op_class_t op_spawn_class, op_end_class, op_running_class, op_wait_class, op_kill_class,
    op_connect_class, op_name_class, op_links_class, op_stats_class, op_listen_class, op_shutdown_class,
    op_change_class, op_fence_class, op_registry_class, op_read_class, op_watch_class, op_session_class;

const op_class_t *op_class_of(const op_t *op);

/* ---- peers.c ---- */
/* RF_OK: linked. RF_ERR_AGAIN: being dialled, or will be when its address comes: peer_up() of the operation follows.
 * RF_ERR_PEER_DEAD. */
rf_err_t peer_need(monitor_t *m, rf_core_t core);
/* Linked with that very incarnation; if not, it is being dialled, unless that makes no sense. */
bool peer_reach(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
void peer_send(monitor_t *m, rf_core_t core, uint8_t type, const void *a, size_t a_size, const void *b,
               size_t b_size);
/* A request for an operation; counted. RF_ERR_AGAIN: too many unanswered. */
rf_err_t peer_request(monitor_t *m, op_t *op, rf_core_t core, uint8_t type, const void *body, size_t size,
                      const int *fds, unsigned n_fds);
void peer_answered(monitor_t *m, op_t *op);
void peer_up(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, const monitor_process_t *process);
void peer_process_died(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
/* Closes the link with `incarnation` of a core, or an earlier one, and listens to none of these any more. */
void peer_fence(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
void peer_fail_ops(monitor_t *m, rf_core_t core); /* those that wait for it */
void peer_room(monitor_t *m, rf_core_t core);
void peer_down(monitor_t *m, rf_core_t core, rf_err_t err);
void peer_broken(monitor_t *m, rf_core_t core);
void peer_message(monitor_t *m, rf_core_t core, uint8_t type, const uint8_t *bytes, size_t size);
void peer_address(monitor_t *m, rf_core_t core, const char *address);
static inline bool same_node(const monitor_t *m, rf_core_t core)
{
    return m->boot->cores[core].node == m->node;
}
void park_fds(monitor_t *m, bool peer, uint32_t who, uint32_t tag, const monitor_event_t *event);
unsigned unpark_fds(monitor_t *m, bool peer, uint32_t who, uint32_t tag, int *fds); /* how many */
void unpark_all(monitor_t *m, bool peer, uint32_t who);

/* ---- clients.c, query.c, machine_events.c ---- */
void client_up(monitor_t *m, uint32_t client, rf_domain_t domain, uint16_t index);
void client_gone(monitor_t *m, uint32_t client);
void client_message(monitor_t *m, uint32_t client, uint8_t type, const uint8_t *bytes, size_t size);
bool query_answer(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const uint8_t *body);
void query_domain(const monitor_t *m, const domain_t *d, rf_client_domain_t *out);
void machine_event(monitor_t *m, uint32_t what, rf_err_t err, rf_core_t core, rf_node_t node,
                   rf_domain_t domain);
void machine_events_deliver(monitor_t *m);

/* ---- kernel.c ---- */
void kernel_up(monitor_t *m);
void kernel_message(monitor_t *m, uint8_t type, const uint8_t *bytes, size_t size);
void kernel_fds(monitor_t *m, const monitor_event_t *event);
local_t *local_find(monitor_t *m, rf_domain_t domain, unsigned index);
local_t *local_add(monitor_t *m,
                   bool reserved); /* reserved: also the last LOCAL_RESERVED places; NULL: full */
void local_free(monitor_t *m, local_t *local);
void kernel_reconcile(monitor_t *m); /* the replica was replaced: ends what it knows to have ended */
void local_kill_domain(monitor_t *m, rf_domain_t domain); /* its dispatchers here: the domain has ended */

/* ---- operations ---- */
void spawn_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_spawn_t *body);
void spawn_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_peer_chunk(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_peer_more(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_peer_spawned(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_check_span(op_t *op); /* op_span.c's operation waits for its block */
void span_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                  const rf_client_spawn_t *body);
void end_local(monitor_t *m, local_t *local, int32_t wait_status, rf_err_t reason);
void end_orphan(monitor_t *m, rf_domain_t domain,
                unsigned index);      /* agreed for this core, but never started */
void end_propose_again(monitor_t *m); /* the quorum is back */
void end_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void end_tell_all(monitor_t *m, rf_core_t to); /* RF_CORE_NONE: everybody in reach */
void wait_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, rf_domain_t domain);
void wait_cancel(monitor_t *m, uint32_t client, uint32_t tag);
void wait_domain_ended(monitor_t *m, rf_domain_t domain);
void wait_domain_forgotten(monitor_t *m, rf_domain_t domain);
void kill_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                  const rf_client_kill_t *body);
void kill_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void kill_peer_killed(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void connect_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                     const rf_client_connect_t *body);
void connect_accept(monitor_t *m, uint32_t client, const rf_client_accept_t *body);
void connect_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void connect_peer_connected(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void name_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const char *name);
/* `size`: of the bytes behind the header. */
void registry_change(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                     const rf_client_registry_t *body, size_t size);
void registry_cancel(monitor_t *m, op_t *op); /* a wait, because its client says so */
void registry_op_ended(monitor_t *m, op_t *op);
void registry_answered(void *monitor,
                       const registry_answer_t *answer); /* by the registry, while it applies */
/* A snapshot was loaded into the registry: waits whose end it hides are answered. */
void registry_loaded(monitor_t *m);
registry_params_t registry_params_of(const rf_boot_t *boot);
/* Names a wait or a session, of all that ever were in this machine. */
uint64_t registry_number(monitor_t *m);
void registry_read(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_registry_t *body, size_t size);
void registry_watch(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                    const rf_client_registry_t *body, size_t size);
void registry_watches_deliver(monitor_t *m);
void registry_session_open(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void registry_session_end(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t id);
session_t *registry_session_find(monitor_t *m, uint32_t client,
                                 uint64_t id); /* open; NO_CLIENT: of whomever, in any state */
void registry_session_client_gone(monitor_t *m, uint32_t client);
void registry_session_proposed(monitor_t *m, uint64_t id); /* one less that it proposes */
/* A change of that session has been applied: one of mine that has ended is ended again. */
void registry_session_owns(monitor_t *m, uint64_t id);
void registry_sessions_tick(monitor_t *m);
void links_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from);
void links_pong(monitor_t *m, rf_core_t core, const uint8_t *bytes, size_t size);
void links_tick(monitor_t *m);
void stats_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from);
void listen_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void shutdown_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void shutdown_progress(monitor_t *m);

/* ---- op_member.c ---- */
void member_start(monitor_t *m);
void member_tick(monitor_t *m);
uint64_t member_next_ns(const monitor_t *m);
void member_linked(monitor_t *m, rf_core_t core);
void member_ready(monitor_t *m, rf_core_t core);
void member_joined(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation); /* by an applied entry */
void member_left(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, bool in_order);
/* The kernel's evidence of a core's death: first-hand, or told. */
void member_dead(monitor_t *m, rf_core_t core, bool first_hand);
void member_tell_deaths(monitor_t *m, rf_core_t to);
void member_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void member_expelled(monitor_t *m, rf_core_t from, rf_err_t err); /* RF_CORE_NONE: the engine says so */
/* A member of the view, and nothing else is known of it. */
static inline bool core_is_alive(const core_t *c)
{
    return c->member && c->agreed == c->incarnation && !c->dead;
}

/* ---- op_change.c ---- */
void join_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, rf_core_t core);
void leave_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_leave_t *body);
void leave_tick(monitor_t *m);
bool leave_done(monitor_t *m); /* this core was asked to leave, and has: answers and ends. Else false */
void expel_node(monitor_t *m, rf_node_t node);

/* ---- op_fence.c ---- */
void fence_left(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, bool in_order);
void fence_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void fence_tell(monitor_t *m, rf_core_t to); /* what a new link may have missed */
void fence_tick(monitor_t *m);
uint64_t fence_next_ns(const monitor_t *m);

/* ---- heartbeat.c ---- */
void heartbeat_tick(monitor_t *m);
uint64_t heartbeat_next_ns(const monitor_t *m);
rf_core_t heartbeat_gateway(const monitor_t *m, rf_node_t node); /* RF_CORE_NONE: no member lives there */
void heartbeat_received(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void heartbeat_frozen(monitor_t *m, bool frozen);
void heartbeat_tell_frozen(monitor_t *m, rf_core_t to);
rf_core_t heartbeat_speaker(const monitor_t *m); /* whose word on this host's contact counts */
/* A host without contact to the quorum for so long freezes its dispatchers ... */
static inline uint64_t boot_self_ns(const rf_boot_t *boot)
{
    return boot->host_deadline_ms * RF_NS_PER_MS;
}
/* ... and the others wait so long after the view without it: a voter may take its quorum to be there for an election's time,
 * contact is judged at beats, and clocks differ in rate (a tenth is far more than they do). */
static inline uint64_t boot_expel_ns(const rf_boot_t *boot)
{
    return boot_self_ns(boot) + boot_self_ns(boot) / 10 +
           ((uint64_t)boot->election_ms + 3 * boot->heartbeat_ms) * RF_NS_PER_MS;
}

#endif
