/*
 * The client link: a dispatcher or the node asks the monitor of a core. An shm link. Requests are answered by an
 * RF_CLIENT_REPLY of the same tag (op repeated), in any order; long lists by several, the last with more == 0.
 * Descriptors travel by pass_fds(), sent before the message that needs them, with rf_client_fds as bytes.
 *
 * D: for dispatchers, N: for the node (rackfishd) only, both without a letter.
 */
#ifndef RF_WIRE_CLIENT_H
#define RF_WIRE_CLIENT_H

#include "wire/wire.h"

#define RF_CLIENT_VOTERS_MAX  8
#define RF_CLIENT_ADDRESS_MAX 128 /* as RF_ADDRESS_MAX of transport.h */

enum { /* slot types */
       RF_CLIENT_REQUEST = 0x40,
       RF_CLIENT_REPLY = 0x41,
       RF_CLIENT_EVENT = 0x42,
};

typedef struct rf_client_fds {
    uint32_t tag; /* of the request or reply they belong to, 0: of an event */
    uint16_t op;
    uint16_t reserved;
    uint64_t key; /* events: the channel id */
} rf_client_fds_t;

enum rf_client_op {
    RF_CLIENT_PING = 1,     /* answered at once; header only */
    RF_CLIENT_STATUS = 2,   /* -> rf_client_status */
    RF_CLIENT_CORES = 3,    /* rf_client_list -> rf_client_core[] */
    RF_CLIENT_DOMAINS = 4,  /* rf_client_list -> rf_client_domain[] */
    RF_CLIENT_NAMES = 5,    /* rf_client_list -> rf_client_name[] */
    RF_CLIENT_LINKS = 6,    /* rf_client_list -> rf_client_link[]: links of this monitor, freshly pinged */
    RF_CLIENT_STATS = 7,    /* rf_client_list -> rf_kernel_stat[]: this core's dispatchers (wire/kernel.h) */
    RF_CLIENT_NAME_PUT = 8, /* D rf_client_name_request: exports a name; agreed; RF_ERR_EXISTS */
    RF_CLIENT_NAME_DELETE = 9, /* D rf_client_name_request: the exporter's own name */
    RF_CLIENT_NAME_GET = 10,   /* rf_client_name_request -> rf_client_name, from the local replica */
    RF_CLIENT_CONNECT =
        11,                /* D rf_client_connect -> rf_client_connected (+ fd of an shm socket when local) */
    RF_CLIENT_ACCEPT = 12, /* D rf_client_accept: answers RF_CLIENT_EVENT_INCOMING; no reply */
    RF_CLIENT_SPAWN = 13,  /* rf_client_spawn + fds {block[, stdin, stdout, stderr][, executable]}
                                      -> rf_client_spawned, once it runs or could not be started */
    RF_CLIENT_SPAN = 14, /* D rf_client_spawn (core): another dispatcher of the caller's domain, same program
                                      and environment; -> rf_client_spawned */
    RF_CLIENT_WAIT = 15, /* rf_client_target -> rf_client_domain when it has ended; may take for ever */
    RF_CLIENT_KILL = 16, /* rf_client_kill: a signal to all dispatchers of a domain */
    RF_CLIENT_SUBSCRIBE = 17, /* rf_client_subscribe: events of the machine from now on */
    RF_CLIENT_CANCEL =
        18, /* rf_client_target.domain = tag of an outstanding WAIT, or wait of the registry; it answers
                                 CANCELLED, or, if that came first, what it waited for */
    RF_CLIENT_REGISTRY_CHANGE =
        19, /* rf_client_registry + name, value, compare, by agreement -> rf_client_registry_done
                                       + the name in sequence, or the popped message. A wait answers when it is over */
    RF_CLIENT_REGISTRY_READ =
        20, /* rf_client_registry + name or prefix, where to go on -> rf_client_registry_page */
    RF_CLIENT_REGISTRY_WATCH =
        21, /* rf_client_registry + name or prefix; number: from which revision (0: what comes)
                                      -> rf_client_registry_events, once there are any. CANCEL ends it */
    RF_CLIENT_SESSION_OPEN = 22, /* N -> rf_client_session: an owner of what vanishes, for a command */
    RF_CLIENT_SESSION_END = 23,  /* N rf_client_session: all that it owns goes; also when the link ends */
    RF_CLIENT_ONCE_OPEN =
        24, /* N -> rf_client_session: a session of the log: what is changed in it is changed once */
    RF_CLIENT_ONCE_END = 25, /* N rf_client_session */
    RF_CLIENT_REGISTRY_ONCE =
        26, /* N rf_client_once, then as REGISTRY_CHANGE, that neither waits nor owns: a repetition, through whichever monitor,
               answers what the first gave; RF_ERR_AGAIN: it is under way here; RF_ERR_SESSION: that session has ended */
    RF_CLIENT_NODE_ADDRESSES = 32, /* N rf_client_addresses: where the monitors of another node listen */
    RF_CLIENT_LISTEN_ADDRESS = 33, /* N -> rf_client_address: where this monitor listens for other hosts */
    RF_CLIENT_RELOAD = 34,         /* N rf_client_reload: reloadable settings */
    RF_CLIENT_JOIN =
        36, /* N rf_client_join -> rf_client_joined: the next incarnation of a core of the node, agreed; it is
                             then to be started */
    RF_CLIENT_LEAVE =
        37, /* N rf_client_leave -> rf_client_left: this core leaves the machine in order, and ends. UNKNOWN_OUTCOME: it will, when it can */
    RF_CLIENT_DEAD =
        38, /* N rf_client_dead: the kernel of its host says that the monitor of a core is dead; header */
    RF_CLIENT_HOLDINGS = 39, /* rf_client_list -> rf_client_holdings[], one: what this monitor holds */
    RF_CLIENT_SHUTDOWN = 35, /* N rf_client_shutdown: end this core's domains (TERM, KILL), answer, exit */
};

enum rf_client_event_op {
    RF_CLIENT_EVENT_INCOMING = 1, /* D rf_client_incoming (+ fd of an shm socket when local; key = channel) */
    RF_CLIENT_EVENT_MACHINE = 2,  /* rf_client_machine_event */
    RF_CLIENT_EVENT_ADDRESS =
        3, /* N rf_client_wanted: is to be dialled, and its address is not known here. A rackfishd that tells all
                                    addresses as it learns them has nothing to do */
};

/* Requests and replies: header, then the struct. */
typedef struct rf_client_list {
    uint64_t from; /* the first key wanted: core number, domain id, index; list replies come in key order */
} rf_client_list_t;

typedef struct rf_client_list_reply { /* followed by n records */
    uint32_t n;
    uint32_t more; /* 1: ask again from `next` */
    uint64_t next;
} rf_client_list_reply_t;

#define RF_CLIENT_LANES_OFF   UINT16_MAX
#define RF_CLIENT_LANES_UNFIT (UINT16_MAX - 1)
typedef struct rf_client_status {
    rf_machine_id_t machine;
    char machine_name[RF_NAME_MAX];
    uint64_t view, term, log_committed, log_applied;
    rf_core_t leader; /* RF_CORE_NONE: none in reach */
    rf_core_t core, cores, cores_up;
    rf_node_t node, nodes, nodes_up;
    uint16_t has_quorum, n_voters, forming;
    uint16_t lost;  /* a majority of the voters is proved dead: it can never agree again */
    uint16_t joint; /* a change of voters is under way */
    uint16_t frozen;
    uint32_t domains;
    uint32_t survives_cores; /* how many, whichever, may still die without agreed changes stopping */
    uint32_t survives_hosts; /* how many hosts, whichever */
    uint64_t uptime_ns;
    rf_incarnation_t incarnation; /* of the monitor that answers */
    uint16_t n_waiting;
    uint16_t
        lanes; /* of one-sided append: a leader writes so many voters' lanes; a voter: 1, its leader writes its own.
                       RF_CLIENT_LANES_OFF: the machine has none; RF_CLIENT_LANES_UNFIT: none here, since a medium
                       between voters takes no memory back */
    rf_core_t voters[RF_CLIENT_VOTERS_MAX];
    rf_core_t waiting[RF_CLIENT_VOTERS_MAX]; /* without a quorum: for whom; lost: who is proved dead */
    uint64_t log_first, elections, expulsions, snapshots_sent,
        snapshots_loaded; /* counted here since its start; expulsions: who left and was not asked to */
    char scheduler[96];   /* the CPU driver's mechanism and what it promises */
    char isolation[96];   /* ... and of isolation */
    uint64_t
        expulsions_silent; /* of the expulsions: no kernel's word of a death had come here before the view */
    uint64_t reads_leased,
        reads_asked; /* as leader it answered so many reads by its lease, and so many by asking a majority */
    uint64_t late_often_ns,
        late_worst_ns; /* how late this monitor has run when it was due: p99.9 of the last some thousand times (of few: the worst), and the worst since its start; ns */
} rf_client_status_t;

enum { RF_CORE_DOWN = 0, RF_CORE_UP = 1, RF_CORE_JOINING = 2 };

typedef struct rf_client_core {
    rf_core_t core;
    rf_node_t node;
    uint16_t cpu;
    uint16_t state;
    rf_incarnation_t incarnation;
    uint32_t package, numa; /* topology; UINT32_MAX: unknown */
    char node_name[RF_NAME_MAX];
} rf_client_core_t;

enum { RF_DOMAIN_STARTING = 1, RF_DOMAIN_RUNNING = 2, RF_DOMAIN_ENDED = 3 };

typedef struct rf_client_domain {
    rf_domain_t domain;
    uint32_t state;
    int32_t wait_status; /* ENDED: as wait(2) gives it, of dispatcher 0 */
    rf_err_t reason;     /* ENDED: RF_OK, or RF_ERR_PEER_DEAD when its core or host died, RF_ERR_EXEC, ... */
    uint16_t n_dispatchers;
    uint16_t reserved;
    rf_core_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX]; /* where dispatcher i is */
    uint8_t alive[RF_DISPATCHERS_PER_DOMAIN_MAX / 8];
    uint64_t started_ns, ended_ns; /* CLOCK_REALTIME */
    char user[32];
    char program[RF_NAME_MAX];                /* last part of argv[0] */
    uint64_t user_us, system_us, max_rss_kib; /* ENDED, if the core that ran dispatcher 0 answers; else 0 */
} rf_client_domain_t;

typedef struct rf_client_name {
    char name[RF_NAME_MAX];
    rf_domain_t domain;
    uint16_t index;
    rf_core_t core;
    uint32_t reserved;
} rf_client_name_t;

typedef struct rf_client_link {
    rf_core_t from, to;
    char medium[16];
    uint16_t state; /* as rf_link.state */
    uint16_t encrypted;
    uint64_t
        one_way_ns_p50; /* half of the median round trip of a few pings, between monitors; 0: no answer */
    uint64_t slots_sent, slots_received, broken;
    char address[RF_NAME_MAX];
} rf_client_link_t;

/* What the process of a monitor holds of its host, whatever it is for. */
typedef struct rf_client_holdings {
    uint32_t descriptors;
    uint32_t links;       /* to monitors, for lanes, to its node's rackfishd, CPU driver and dispatchers */
    uint32_t queue_pairs; /* of RDMA, of these links */
    uint32_t reserved;
    uint64_t ring_bytes;   /* of these links' slots, both ways, as large as the rings are now */
    uint64_t pinned_bytes; /* that may not be paged out: locked, or known to a device */
} rf_client_holdings_t;

typedef struct rf_client_name_request {
    char name[RF_NAME_MAX];
} rf_client_name_request_t;

typedef struct rf_client_connect {
    char name[RF_NAME_MAX]; /* "" : by dispatcher */
    rf_domain_t domain;
    uint16_t index;
    uint16_t reserved;
    uint32_t slots; /* ring size to start with; 0: default */
} rf_client_connect_t;

enum { RF_CHANNEL_LMP = 1, RF_CHANNEL_URPC = 2, RF_CHANNEL_NETWORK = 3 };

typedef struct rf_client_connected {
    uint64_t channel;   /* machine-wide unique */
    rf_domain_t domain; /* the other side */
    uint16_t index;
    rf_core_t core;
    uint16_t kind;                       /* RF_CHANNEL_* */
    uint16_t same_cpu;                   /* the two sides run on one CPU: do not poll */
    char medium[16];                     /* transport to use: "shm", "tcp", ... */
    char address[RF_CLIENT_ADDRESS_MAX]; /* network: where the exporter listens */
    uint8_t token[32];                   /* network: to show in the hello */
    uint8_t key[32];                     /* network: pre-shared key of this channel alone */
    uint32_t uid;                        /* the other side's user on its host */
    char user[32];
} rf_client_connected_t;

typedef struct rf_client_incoming { /* at the exporter; same fields, seen from the other side */
    rf_client_connected_t channel;
    char name[RF_NAME_MAX]; /* which exported name; "" : by dispatcher */
    uint32_t slots, reserved;
} rf_client_incoming_t;

typedef struct rf_client_accept {
    uint64_t channel;
    uint32_t err; /* RF_OK: accepted */
    uint32_t reserved;
    char address[RF_CLIENT_ADDRESS_MAX]; /* network: where this dispatcher listens */
} rf_client_accept_t;

typedef struct rf_client_spawn {
    rf_core_t core;
    uint16_t n_fds;
    uint16_t span_args_size; /* SPAN */
    uint16_t reserved;
    uint8_t span_args[256];
} rf_client_spawn_t;

typedef struct rf_client_spawned {
    rf_domain_t domain;
    uint16_t index;
    rf_core_t core;
    uint32_t os_errno;
    char what[120];
} rf_client_spawned_t;

typedef struct rf_client_target {
    rf_domain_t domain;
} rf_client_target_t;

typedef struct rf_client_kill {
    rf_domain_t domain;
    uint32_t signo;
    uint32_t whole; /* see rf_kernel_signal */
    char user[32];  /* N: on whose behalf; "root" and the machine's owner may signal all */
} rf_client_kill_t;

enum { RF_EVENTS_CORES = 1, RF_EVENTS_NODES = 2, RF_EVENTS_DOMAINS = 4 };
typedef struct rf_client_subscribe {
    uint32_t mask;
    uint32_t reserved;
} rf_client_subscribe_t;

enum {
    RF_MACHINE_CORE_UP = 1,
    RF_MACHINE_CORE_DOWN,
    RF_MACHINE_NODE_UP,
    RF_MACHINE_NODE_DOWN,
    RF_MACHINE_DOMAIN_STARTED,
    RF_MACHINE_DOMAIN_ENDED,
    RF_MACHINE_CORE_LEAVING /* told on that core alone: its dispatchers are to end */
};
typedef struct rf_client_machine_event {
    uint32_t what;
    uint32_t err; /* why it went down */
    rf_core_t core;
    rf_node_t node;
    uint32_t reserved;
    rf_domain_t domain;
    uint64_t at_ns; /* CLOCK_REALTIME, when this monitor learnt it */
} rf_client_machine_event_t;

typedef struct rf_client_address {
    char address[RF_CLIENT_ADDRESS_MAX];
} rf_client_address_t;

typedef struct rf_client_wanted {
    rf_core_t core;
    uint16_t reserved[3];
} rf_client_wanted_t;

#define RF_CLIENT_ADDRESSES_MAX 28
typedef struct rf_client_addresses { /* several messages for a large node; ends behind address[n - 1] */
    rf_node_t node;
    rf_core_t first; /* core of address[0] */
    uint16_t n;
    uint16_t reserved;
    char medium[16];
    char address[RF_CLIENT_ADDRESSES_MAX][RF_CLIENT_ADDRESS_MAX];
} rf_client_addresses_t;

typedef struct rf_client_shutdown {
    uint32_t grace_ms; /* between TERM and KILL */
    uint32_t reserved;
} rf_client_shutdown_t;

typedef struct rf_client_join {
    rf_core_t core;
    uint16_t reserved[3];
} rf_client_join_t;

typedef struct rf_client_dead {
    rf_core_t core;
    uint16_t reserved;
    rf_incarnation_t incarnation;
} rf_client_dead_t;

typedef struct rf_client_joined {
    rf_incarnation_t incarnation;
    uint32_t reserved;
} rf_client_joined_t;

enum {
    RF_LEAVE_IF_IDLE = 0,
    RF_LEAVE_WAIT = 1,
    RF_LEAVE_KILL = 2
}; /* what becomes of the core's dispatchers */
typedef struct rf_client_leave {
    uint32_t mode;
    uint32_t whole_node; /* all cores of the node are asked: somebody must be left on another one */
} rf_client_leave_t;

typedef struct rf_client_left { /* with RF_ERR_BUSY: how many dispatchers run there */
    uint32_t dispatchers, reserved;
} rf_client_left_t;

typedef struct rf_client_reload {
    uint32_t log_level;
    uint32_t reserved;
} rf_client_reload_t;

/* ---- the registry (monitor/registry.h has the rules) ---- */

#define RF_CLIENT_REGISTRY_NAME_MAX  127
#define RF_CLIENT_REGISTRY_VALUE_MAX 512
#define RF_CLIENT_REGISTRY_BYTES_MAX 936 /* name, value and compare together */

enum {
    RF_REGISTRY_KIND_KEY = 1,
    RF_REGISTRY_KIND_LOCK,
    RF_REGISTRY_KIND_SEMAPHORE,
    RF_REGISTRY_KIND_BARRIER,
    RF_REGISTRY_KIND_QUEUE
};

enum rf_client_registry_what {
    RF_REGISTRY_PUT = 64,
    RF_REGISTRY_DELETE,
    RF_REGISTRY_CREATE,
    RF_REGISTRY_ACQUIRE,
    RF_REGISTRY_RELEASE,
    RF_REGISTRY_WAIT,
    RF_REGISTRY_PUSH,
    RF_REGISTRY_POP,
    RF_REGISTRY_GET = 128, /* READ; an empty page: no such object */
    RF_REGISTRY_LIST,      /* READ; value: the name behind which to go on */
    RF_REGISTRY_KEY,       /* WATCH: this key */
    RF_REGISTRY_PREFIX,    /* WATCH: all keys whose names begin so */
};

enum { /* flags */
       RF_REGISTRY_EPHEMERAL = 1,
       RF_REGISTRY_SEQUENTIAL = 2,
       RF_REGISTRY_TRY = 4,
       RF_REGISTRY_LINEARIZABLE = 256, /* READ: everything that was agreed on before the question is seen */
       RF_REGISTRY_NAMES_ONLY = 512,   /* LIST: no values */
};

enum { /* conditions */
       RF_REGISTRY_ALWAYS = 0,
       RF_REGISTRY_IF_ABSENT,
       RF_REGISTRY_IF_REVISION,
       RF_REGISTRY_IF_VERSION,
       RF_REGISTRY_IF_VALUE,
       RF_REGISTRY_IF_PRESENT
};

typedef struct rf_client_registry { /* then name, value, compare, back to back */
    uint16_t what;
    uint8_t kind, condition;
    uint16_t flags, name_size, value_size, compare_size;
    uint32_t n;          /* permits, parties, messages at most */
    uint64_t number;     /* expected revision or version; token; WATCH: from */
    uint64_t timeout_ns; /* of a wait, from now; UINT64_MAX: none */
    uint64_t session;    /* N: whose; 0: nobody's */
    char user[32];       /* N: on whose behalf */
} rf_client_registry_t;

typedef struct rf_client_registry_done { /* then a name or a message */
    uint64_t revision;                   /* of the change; the token; the generation */
    uint32_t size, reserved;
} rf_client_registry_done_t;

typedef struct rf_client_registry_page { /* then n entries */
    uint64_t revision;                   /* of the registry when it was answered */
    uint32_t n;
    uint32_t more; /* 1: ask again behind the last name */
} rf_client_registry_page_t;

typedef struct rf_client_registry_entry { /* then name and value, padded to 8 */
    uint8_t kind, ephemeral;
    uint16_t name_size, value_size, reserved;
    uint32_t n, used, waiting, reserved2;
    uint64_t created, revision, version; /* LOCK: revision is the holder's token */
    uint64_t domain, session;            /* whom it vanishes with; LOCK: who holds it */
    char user[32];
} rf_client_registry_entry_t;

typedef struct rf_client_registry_events { /* then n events */
    uint64_t next;                         /* go on from here */
    uint32_t n;
    uint32_t missed; /* 1: events before `next` are no longer kept: look at the keys again */
} rf_client_registry_events_t;

enum { RF_REGISTRY_EVENT_PUT = 1, RF_REGISTRY_EVENT_DELETED, RF_REGISTRY_EVENT_EXPIRED };
typedef struct rf_client_registry_event { /* then name and value, padded to 8 */
    uint64_t revision, version;
    uint16_t what, name_size, value_size, reserved;
} rf_client_registry_event_t;

typedef struct rf_client_session {
    uint64_t session;
} rf_client_session_t;

typedef struct rf_client_once {
    uint64_t session,
        sequence; /* sequence: of 64 in a row, those below the highest, any that was not given before */
} rf_client_once_t;

_Static_assert(sizeof(rf_client_registry_t) == 72 && sizeof(rf_client_once_t) == 16 &&
                   sizeof(rf_client_registry_done_t) == 16 && sizeof(rf_client_registry_page_t) == 16 &&
                   sizeof(rf_client_registry_entry_t) == 96 && sizeof(rf_client_registry_events_t) == 16 &&
                   sizeof(rf_client_registry_event_t) == 24,
               "wire layout");

_Static_assert(sizeof(rf_wire_header_t) + sizeof(rf_client_addresses_t) <= 4096, "fits a control message");
_Static_assert(sizeof(rf_wire_header_t) + sizeof(rf_client_incoming_t) <= 4096, "fits a control message");

#endif
