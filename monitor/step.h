/*
 * The monitor of one core, as a pure state machine:
 *
 *      monitor_step(monitor, event, output)
 *
 * It holds the replicas (cores, domains, names), speaks for its core in the agreement, serves clients (dispatchers and
 * rackfishd), and runs the distributed operations. It does no I/O, reads no clock, draws no randomness and allocates
 * nothing after init: links, descriptors, time, secrets and memory objects come in as events, and everything it wants
 * done goes out as actions. Descriptors are opaque integers to it. The same events give the same actions, so whole
 * machines run inside one test process.
 *
 *   shell (epoll, links) --- event ---> monitor_step --- actions ---> shell
 *
 * Rules of the shell: it carries out the actions of a step in order before the next step; what an action answers comes
 * as an event of its own, later; events of one link keep its order; descriptors that an event brings belong to the
 * monitor until it closes them (MONITOR_DO_CLOSE_FD) or gives them away (ADOPT, BLOCK with `consume`).
 *
 * Owner: one thread.
 */
#ifndef RF_MONITOR_STEP_H
#define RF_MONITOR_STEP_H

#include "monitor/peer.h"
#include "wire/boot.h"
#include "wire/client.h"
#include "wire/kernel.h"

#define MONITOR_CLIENTS_MAX 256 /* client links; handles are below it */
#define MONITOR_DOMAINS_MAX                                                                                  \
    2048 /* of the machine, running and remembered; ended ones are forgotten oldest first */
#define MONITOR_NAMES_MAX           1024 /* exported at once, machine-wide */
#define MONITOR_LOCAL_MAX           256  /* dispatchers of this core at once */
#define MONITOR_OPS_MAX             1024 /* operations under way at this monitor */
#define MONITOR_CLIENT_REQUESTS_MAX 64   /* unanswered requests of one client; above: RF_ERR_AGAIN */
#define MONITOR_PARKED_FDS_MAX      1024 /* sets of descriptors that wait for their message */
#define MONITOR_TRANSFERS_MAX       8    /* spawn blocks being received from other hosts */
#define MONITOR_EVENTS_KEPT         1024 /* machine events that a slow subscriber may lag behind */
#define MONITOR_FDS_MAX             5    /* block, stdin, stdout, stderr, executable */
#define MONITOR_LANE_LINES_MAX      1024 /* of 64 bytes, of each lane */
#define MONITOR_ACTIONS_MAX         8192
#define MONITOR_BYTES_MAX           (1u << 20)

typedef struct monitor monitor_t;

typedef enum monitor_event_kind {
    MONITOR_TICK = 1,
    MONITOR_KERNEL_UP, /* the link to the CPU driver */
    MONITOR_KERNEL_MESSAGE,
    MONITOR_KERNEL_FDS,
    MONITOR_PEER_UP, /* `incarnation` of `core`'s monitor is linked; it replaces the link of an earlier one */
    MONITOR_PEER_DOWN,   /* its link is dead, or a dial failed: `err`; proves nothing about the process */
    MONITOR_PEER_BROKEN, /* the connection under its link broke, and is being made again: proves even less */
    MONITOR_PEER_DIED, /* the kernel says that the process of `incarnation` of `core`, on this host, has died */
    MONITOR_PEER_ROOM, /* takes messages again */
    MONITOR_PEER_MESSAGE,
    MONITOR_PEER_FDS,
    MONITOR_CLIENT_UP, /* `client` is new: a dispatcher that was adopted, or rackfishd (domain 0) */
    MONITOR_CLIENT_GONE,
    MONITOR_CLIENT_FULL, /* machine events from number `op` on (as in the action) were not taken */
    MONITOR_CLIENT_ROOM,
    MONITOR_CLIENT_MESSAGE,
    MONITOR_CLIENT_FDS,
    MONITOR_BLOCK,      /* answers BLOCK, BLOCK_PUT */
    MONITOR_CHUNK,      /* answers BLOCK_GET */
    MONITOR_SOCKETPAIR, /* answers SOCKETPAIR */
    MONITOR_RANDOM,     /* answers RANDOM */
    MONITOR_LISTENING,  /* answers LISTEN */
    MONITOR_LINK_STATS, /* answers LINK_STATS */
    MONITOR_HOLDINGS,   /* answers HOLDINGS */
    /* One-sided append (standby.c): `core`, `incarnation` and `lane` say whose lane it is about. */
    MONITOR_LANE_READY,   /* this core's lane for that one could be granted at once */
    MONITOR_LANE_UNREADY, /* ... not any more, or never: its link ended before it was granted */
    MONITOR_LANE_LINES,   /* this core's lane, which was granted, has the word that was looked for */
    MONITOR_LANE_REVOKED, /* ... can be written by nobody any more, asked for or not; its memory stays until DROP */
    MONITOR_LANE_GRANTED, /* that core's lane may be written by this one; number: in which term */
    MONITOR_LANE_WRITTEN, /* ... writes up to `number` are placed; or `err`: it takes no more */
} monitor_event_kind_t;

/* Who a monitor of this host, and its CPU driver, are to the host's kernel. */
typedef struct monitor_process {
    rf_incarnation_t incarnation; /* whose; 0: not known */
    int32_t monitor_pid, driver_pid;
    uint64_t monitor_start, driver_start;
} monitor_process_t;

typedef struct monitor_link_stats {
    rf_core_t core;
    uint16_t state, encrypted;
    char medium[16];
    char address[RF_NAME_MAX];
    uint64_t slots_sent, slots_received, broken;
} monitor_link_stats_t;

/* Pointers in an event are only read during the step. */
typedef struct monitor_event {
    monitor_event_kind_t kind;
    uint64_t now_ns;  /* CLOCK_BOOTTIME, read after the event was taken from its queue; never falls */
    uint64_t real_ns; /* CLOCK_REALTIME, to show to people */
    rf_core_t core;   /* PEER_* */
    rf_incarnation_t incarnation; /* PEER_UP, PEER_DIED */
    monitor_process_t process;    /* PEER_UP, inside the host */
    uint32_t client;              /* CLIENT_*: the shell's handle */
    uint32_t op;                  /* answers: the operation that asked, as in its action */
    uint8_t type;                 /* *_MESSAGE: slot type */
    rf_err_t err;
    const void *
        bytes; /* *_MESSAGE, *_FDS, CHUNK, RANDOM (64 bytes), LISTENING (address), HOLDINGS (rf_client_holdings_t); hostile until checked */
    size_t size;
    int fds[8];
    unsigned n_fds;
    rf_domain_t domain; /* CLIENT_UP */
    uint16_t index;
    unsigned n; /* LINK_STATS */
    struct {    /* BLOCK */
        uint32_t size, flags, uid;
        char user[32];
        char program[RF_NAME_MAX];
    } block;
    const monitor_link_stats_t *links; /* LINK_STATS */
    struct {                           /* LANE_* */
        uint64_t id, number;
        const uint64_t *
            lines; /* REVOKED, LINES: the memory, which may change at any time; REVOKED: NULL if it never was granted */
    } lane;
} monitor_event_t;

typedef enum monitor_action_kind {
    MONITOR_DO_SEND_KERNEL =
        1, /* a message on the kernel link; with fds: passed before it, they stay the monitor's */
    MONITOR_DO_SEND_PEER,   /* ... to `core`; when the link does not take it: dropped, PEER_ROOM follows */
    MONITOR_DO_SEND_CLIENT, /* ... to `client`; when it does not take it the link is closed */
    MONITOR_DO_SEND_EVENT,  /* a machine event to `client`; may be refused, see CLIENT_FULL */
    MONITOR_DO_DIAL, /* link to `core`; `bytes`: address, empty inside the host. PEER_UP or PEER_DOWN follow */
    MONITOR_DO_FENCE_PEER, /* after flushing: fence and close the link with `incarnation` of `core` or an earlier one, and
                              never listen to any of these again. No event follows */
    MONITOR_DO_CLOSE_CLIENT, /* no event follows */
    MONITOR_DO_ADOPT, /* fds[0] is a socket to (domain, index): CLIENT_UP follows when it can be linked */
    MONITOR_DO_CLOSE_FD,
    MONITOR_DO_BLOCK,     /* check fds[0] as a spawn block and copy it with changes, see monitor_block_t; a
                                   second descriptor is duplicated: BLOCK brings {copy[, duplicate]} */
    MONITOR_DO_BLOCK_GET, /* read `size` bytes at `offset` of fds[0] */
    MONITOR_DO_BLOCK_PUT, /* bytes at `offset` of a block of `size` in all; complete: checked, BLOCK follows */
    MONITOR_DO_BLOCK_DROP, /* forget what was PUT */
    MONITOR_DO_SOCKETPAIR,
    MONITOR_DO_RANDOM,
    MONITOR_DO_LISTEN, /* for other hosts, if not yet done */
    MONITOR_DO_LINK_STATS,
    MONITOR_DO_HOLDINGS,  /* count what this process holds */
    MONITOR_DO_LOG,       /* bytes: a line; type: rf_log_level_t */
    MONITOR_DO_LOG_LEVEL, /* type */
    MONITOR_DO_EXIT,      /* flush everything, end with status `size` */
    MONITOR_DO_LANE_STANDBY, /* have a lane ready for `incarnation` of `core`; `bytes`: its address. LANE_READY or UNREADY follow,
                                or, where the medium cannot take memory back, nothing ever */
    MONITOR_DO_LANE_DROP,   /* forget it: it was never granted, or all of it has been read */
    MONITOR_DO_LANE_GRANT,  /* as number `lane`, in term `number`: tell `core`, who may write from now on */
    MONITOR_DO_LANE_REVOKE, /* fence it, whatever its writer does; LANE_REVOKED follows */
    MONITOR_DO_LANE_WRITE,  /* bytes at `offset` of lane `lane` of `core`; LANE_WRITTEN follows, in order */
} monitor_action_kind_t;

/* bytes of MONITOR_DO_BLOCK: how the copy differs. */
typedef struct monitor_block {
    uint32_t flags_clear;
    uint8_t consume; /* close fds[0] */
    uint8_t span_args_set;
    uint16_t span_args_size;
    char user[32]; /* "" : as it is; else this, and a block that names another is refused (PERMISSION) */
    uint8_t span_args[RF_SPAN_ARGS_MAX];
} monitor_block_t;

typedef struct monitor_action {
    uint8_t kind, type, n_fds;
    rf_core_t core;
    rf_incarnation_t incarnation; /* FENCE_PEER */
    uint16_t index;
    uint32_t client, op, offset;
    rf_domain_t domain;
    size_t size;           /* of bytes; BLOCK_GET, EXIT: see there */
    uint32_t total;        /* BLOCK_PUT */
    uint64_t lane, number; /* LANE_* */
    const void *bytes;     /* in the output; valid until the next step */
    const void *head;      /* what comes with fds */
    size_t head_size;
    int fds[MONITOR_FDS_MAX];
} monitor_action_t;

typedef struct monitor_output {
    unsigned n_actions;
    monitor_action_t actions[MONITOR_ACTIONS_MAX];
    size_t n_bytes;
    uint8_t bytes[MONITOR_BYTES_MAX] __attribute__((aligned(8)));
    bool more;             /* step again with MONITOR_TICK after these actions */
    uint64_t next_tick_ns; /* RF_NEVER: only events matter */
    uint64_t
        lease_ns; /* until then this core's dispatchers may run without another step; to be known to the CPU driver (wire/lease.h)
                              before the actions are carried out; RF_NEVER: for ever */
    uint64_t
        lane_number; /* LANE_LINES is due when the first word at `lane_offset` of the lane that is granted is this; 0: never */
    uint32_t lane_offset;
} monitor_output_t;

/* Exit statuses of rf-monitor. */
enum {
    MONITOR_EXIT_SHUTDOWN = 0,
    MONITOR_EXIT_FAILED = 1,
    MONITOR_EXIT_USAGE = 2,
    MONITOR_EXIT_EXPELLED = RF_MONITOR_EXIT_EXPELLED
};

size_t monitor_size(const rf_boot_t *boot, rf_core_t core);

/* In `memory` (monitor_size bytes, 64-byte aligned, all 0, the caller's): much of it is never touched, so it is best fresh from the kernel.
 * `boot` outlives the monitor. `incarnation`: which life of
 * the core's monitor this is; 1 takes part in forming, a later one joins. `owner`: the name of the user who started the
 * machine, who may signal every domain. */
rf_err_t monitor_init(void *memory, size_t size, const rf_boot_t *boot, rf_core_t core,
                      rf_incarnation_t incarnation, const char *owner, uint64_t now_ns, monitor_t **out);

void monitor_step(monitor_t *monitor, const monitor_event_t *event, monitor_output_t *output);

/* Asserts every invariant of the state; for tests and fuzzers. */
void monitor_check(const monitor_t *monitor);

#endif
