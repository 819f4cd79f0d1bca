/*
 * The state of one CPU driver, and its event loop's vocabulary.
 *
 * One process a core, one thread, one epoll set. A turn of the loop (main.c) is a list of verbs:
 *
 *   serve links -> run timers -> tick the scheduler -> settle dispatchers -> carry on fences -> look at the lease -> sleep
 *   -> dispatch what woke us
 *
 * Every verb does a bounded amount of work, tells when it wants to run again by rf_core_wake_at(), and never
 * blocks: what takes time (looking up a user, starting a program, dying) happens in a child and is reported by a
 * descriptor. All memory is in this one structure, set aside at start; a dispatcher is a slot of a fixed table.
 *
 * Life of a dispatcher's slot:
 *
 *   FREE --decode--> FREE, reserved --invoke--> STARTING --program runs--> RUNNING
 *   STARTING, RUNNING --destroy--> ENDING
 *   STARTING, RUNNING, ENDING --init reaped--> ENDED --monitor was told--> FREE
 *
 * Invariants: a slot's processes are children of its rf-init, which is this process's child, so `init_pid` stays
 * ours until we reap it. Sources are removed from the epoll set before their descriptor is closed. Slots become
 * FREE only in rf_dispatchers_settle(), never while events of a batch are being dispatched.
 */
#ifndef RF_CPUDRIVER_CORE_H
#define RF_CPUDRIVER_CORE_H

#include "cpudriver/processes.h"
#include "transport/message.h"
#include "transport/transport.h"
#include "wire/boot.h"
#include "wire/kernel.h"
#include "wire/lease.h"
#include "wire/spawn.h"

#include <sys/types.h>

#define RF_CORE_DISPATCHERS_MAX 128
#define RF_CORE_FDS_PARKED_MAX  4   /* sets of descriptors whose invocation has not come yet, a dispatcher */
#define RF_CORE_CREATE_FDS_MAX  5   /* spawn block, three streams, executable */
#define RF_CORE_FENCES_MAX      8   /* other cores that are being fenced at once */
#define RF_CORE_FENCE_LEFT_MAX  512 /* processes of one that are waited for at once */
#define RF_FENCE_LIFE_MAX       56
#define RF_CORE_STOP_GRACE_MS   1500 /* between TERM and KILL when the core stops */
#define RF_CORE_SERVE_WINDOW_NS (10 * 1000000ull)
#define RF_CORE_SERVE_BUDGET_NS (3 * 1000000ull) /* of this process's time for one dispatcher in a window */

typedef struct rf_cpudriver rf_cpudriver_t;
typedef struct rf_dispatcher rf_dispatcher_t;
typedef struct rf_source rf_source_t;

/* One descriptor in the epoll set. */
struct rf_source {
    void (*on_ready)(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events);
    rf_dispatcher_t *dispatcher; /* whose, or NULL: the driver's own */
    int fd;                      /* -1: not in use */
};

typedef struct rf_timer {
    uint64_t deadline_ns; /* RF_NEVER: not set */
    uint64_t period_ns;
    uint64_t expirations; /* not yet told */
} rf_timer_t;

typedef struct rf_watch {
    rf_source_t source;
    uint32_t fired; /* events not yet told */
} rf_watch_t;

typedef struct rf_parked_fds {
    uint32_t tag;
    uint16_t op;
    uint16_t n; /* 0: free */
    int fds[RF_CORE_CREATE_FDS_MAX];
} rf_parked_fds_t;

typedef enum rf_dispatcher_state {
    RF_DISPATCHER_FREE,
    RF_DISPATCHER_STARTING,
    RF_DISPATCHER_RUNNING,
    RF_DISPATCHER_ENDING,
    RF_DISPATCHER_ENDED,
} rf_dispatcher_state_t;

struct rf_dispatcher {
    rf_dispatcher_state_t state;
    bool is_monitor;
    rf_domain_t domain;
    uint16_t index;

    /* Processes. */
    pid_t init_pid;     /* rf-init; of the monitor: itself */
    pid_t pid;          /* first process of the program; 0: not known, or gone */
    rf_source_t exit;   /* pidfd of init_pid */
    rf_source_t report; /* what rf-init says */
    bool tty, frozen;
    bool frozen_with_all;   /* by FREEZE_ALL, and thawed with all */
    uint64_t started_ns;    /* CLOCK_REALTIME */
    uint64_t kill_again_ns; /* ENDING without a namespace: when to look whether something is left */
    unsigned kill_looks;
    bool has_status; /* rf-init told how the program ended */
    uint16_t span_args_size;
    uint8_t span_args[RF_SPAN_ARGS_MAX];

    /* What the monitor still has to be told; kept here until its link takes it. */
    bool created_due, exited_due, started_due;
    uint32_t create_tag;
    rf_err_t create_err;
    rf_kernel_created_t created;
    rf_kernel_exited_t exited;
    int client_socket; /* started_due: the monitor's end of the client link */

    /* Kernel link. */
    rf_source_t socket; /* until the dispatcher connects */
    rf_link_t *link;
    rf_assembler_t assembler;
    rf_parked_fds_t parked[RF_CORE_FDS_PARKED_MAX];
    bool identified;
    uint64_t blocked_until_ns; /* no room for answers, or its share of our time is used up */
    uint64_t window_started_ns, served_ns;

    /* What comes to it as messages. */
    uint64_t timers_next_ns; /* the nearest of `timers` */
    rf_timer_t timers[RF_KERNEL_TIMERS_MAX];
    rf_watch_t watches[RF_KERNEL_WATCHES_MAX];
    uint64_t signals_mask, signals_pending;
    bool events_due; /* something of the above waits for room in the link */

    /* Figures, as last gathered. */
    rf_kernel_stat_t stat;
    uint64_t stat_ns, stat_cost_ns;

    /* Share of the core. */
    uint16_t reserved_permille, weight;

    /* scheduler_signals */
    uint64_t ran_ns, slice_ns; /* CPU time at the last look, and since the one before */
    uint64_t virtual_ns;       /* CPU time over share */
    unsigned idle_slices;      /* in a row without CPU time */
    bool wants, joined;        /* wants time; only since this look */
    bool stopped_by_scheduler;
};

/* Another core of this host that is being fenced (fence.h). */
typedef struct rf_fence {
    bool used, hard;
    uint32_t tag;
    rf_core_t core;
    pid_t driver_pid;
    int driver, monitor; /* pidfds; -1: dead */
    uint64_t started_ns, deadline_ns;
    char life[RF_FENCE_LIFE_MAX];
    unsigned n_left;
    int left[RF_CORE_FENCE_LEFT_MAX]; /* pidfds */
} rf_fence_t;

typedef struct rf_scheduler rf_scheduler_t;

typedef enum rf_isolation_level {
    RF_ISOLATION_NONE,     /* subreaper and scan */
    RF_ISOLATION_PID,      /* PID and mount namespace, the host's /proc */
    RF_ISOLATION_PID_PROC, /* PID and mount namespace, a /proc of its own */
} rf_isolation_level_t;

typedef struct rf_isolation {
    rf_isolation_level_t level;
    bool user_namespace;
    bool changes_user; /* may start programs as other users */
    char text[96];     /* for people, in rf_kernel_identity */
} rf_isolation_t;

struct rf_cpudriver {
    const rf_boot_t *boot;
    int boot_fd;
    rf_core_t core;
    rf_incarnation_t incarnation; /* which life of the core this is */
    bool realtime;                /* SCHED_FIFO: preempts what it serves */

    int epoll;
    rf_source_t timer, signals, endpoint_source;
    uint64_t wake_ns, timer_armed_ns;

    const rf_transport_t *transport;
    rf_endpoint_t *endpoint;
    unsigned restless_turns; /* of the loop: a link says that it is ready, but there is nothing */
    uint64_t progress_ns;    /* when the endpoint wants to be looked after, whatever its descriptor says */

    rf_isolation_t isolation;
    const rf_scheduler_t *scheduler;
    char scheduler_text[96];
    int cgroup_fd;                    /* scheduler_cgroup: <prefix>/core-N */
    bool cgroup_v2, cgroup_as_root;   /* groups are joined as root, see scheduler_cgroup.c */
    uint32_t cgroup_best_weight;      /* as last written */
    uint64_t slice_ns, slice_next_ns; /* scheduler_signals: length, and when it ends */
    unsigned slices;                  /* scheduler_signals: since the last change */
    uint32_t reserved_permille_total;

    bool stopping, done;
    uint64_t stop_deadline_ns;
    int exit_status;

    uint64_t nofile_soft; /* limit before ours was raised; programs get it back */
    uint64_t logged_protocol_ns, logged_refused_ns;

    rf_processes_t processes; /* of all dispatchers, owners being their indices; the monitor's is one more */
    uint64_t scanned_ns;      /* when `processes` last held those of all; 0: it does not now */
    uint64_t scan_cost_ns;    /* what that took */

    rf_lease_t *lease; /* lease.h: shared with the monitor, which inherits lease_fd */
    int lease_fd;
    rf_source_t lease_timer;
    uint64_t lease_armed_ns; /* the timer's; RF_NEVER: not set */
    bool lease_over;
    bool frozen_told; /* by the monitor */
    bool frozen_all;  /* for either reason */
    rf_fence_t fences[RF_CORE_FENCES_MAX];

    rf_dispatcher_t monitor;
    rf_dispatcher_t dispatchers[RF_CORE_DISPATCHERS_MAX];
};

/* The event loop's vocabulary (core.c). */
rf_err_t rf_core_open(rf_cpudriver_t *driver);
void rf_core_wake_at(rf_cpudriver_t *driver, uint64_t at_ns);

/* Puts `fd` into the epoll set; it belongs to the source from then on, also on failure. */
rf_err_t rf_source_open(rf_cpudriver_t *driver, rf_source_t *source, int fd, uint32_t events,
                        void (*on_ready)(rf_cpudriver_t *, rf_source_t *, uint32_t),
                        rf_dispatcher_t *dispatcher);
rf_err_t rf_source_rearm(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events);
/* Takes it out of the set and closes it, or hands the descriptor to the caller. Without effect when not in use. */
void rf_source_close(rf_cpudriver_t *driver, rf_source_t *source);
int rf_source_release(rf_cpudriver_t *driver, rf_source_t *source);

/* Blocks until something happened or wake_ns has come (returns at once if `more`), and dispatches it. */
void rf_core_sleep(rf_cpudriver_t *driver, bool more);

/* The monitor has died: where cores share a CPU the others may elect on this very one. To end this core is in no hurry: nothing of it is
 * taken for fenced before, and what it would do now it would do ahead of them. There it blocks for some milliseconds (wire/death.h). */
void rf_core_step_aside(rf_cpudriver_t *driver);

/* The dispatcher, running or ending; NULL when there is none. */
rf_dispatcher_t *rf_core_find(rf_cpudriver_t *driver, rf_domain_t domain, uint16_t index);

/* "17.0" or "monitor", for log lines. Static storage, until the next call. */
const char *rf_dispatcher_name(const rf_dispatcher_t *dispatcher);

#endif
