/*
 * The kernel link: between a dispatcher (a monitor is one, with rights) and the CPU driver of its core. An
 * shm link over the socket RF_DISPATCHER_FD; the dispatcher connects when it first needs its CPU driver, so
 * an unmodified program never does.
 *
 * The CPU driver's answer to every invocation is an RF_KERNEL_REPLY with the same tag; tag 0: no answer is
 * wanted. Descriptors travel by pass_fds(), sent *before* the message that needs them, whose bytes are the
 * rf_kernel_fds below.
 */
#ifndef RF_WIRE_KERNEL_H
#define RF_WIRE_KERNEL_H

#include "wire/wire.h"

enum {                          /* slot types */
       RF_KERNEL_INVOKE = 0x10, /* dispatcher -> CPU driver */
       RF_KERNEL_REPLY = 0x11,  /* CPU driver -> dispatcher */
       RF_KERNEL_EVENT = 0x12,  /* CPU driver -> dispatcher */
};

/* Descriptors belong to the invocation or event with this tag (tag 0: to the event named by op and key). */
typedef struct rf_kernel_fds {
    uint32_t tag;
    uint16_t op;
    uint16_t reserved;
    uint64_t key;
} rf_kernel_fds_t;

/* Invocations. M: only for the monitor of the core. Arguments follow the header as the struct named after it.
 */
enum rf_kernel_op {
    RF_KERNEL_IDENTIFY = 1, /* -> rf_kernel_identity, and (tag) the socket of the client link to the monitor;
                            the socket comes with the first IDENTIFY of a dispatcher only, the monitor gets none */
    RF_KERNEL_YIELD = 2,    /* ends the caller's time slice, where the CPU driver slices time; else a no-op */
    RF_KERNEL_TIMER_SET = 3,    /* rf_kernel_timer */
    RF_KERNEL_TIMER_CANCEL = 4, /* rf_kernel_timer (id) */
    RF_KERNEL_FD_WATCH = 5,     /* rf_kernel_watch + fd: one event when ready, then disarmed */
    RF_KERNEL_FD_REARM = 6,     /* rf_kernel_watch (id, events) */
    RF_KERNEL_FD_UNWATCH = 7,   /* rf_kernel_watch (id) */
    RF_KERNEL_SIGNALS_SET = 8,  /* rf_kernel_signals: these come as events instead of POSIX signals */
    RF_KERNEL_STAT = 9,         /* -> rf_kernel_stat of the caller */
    RF_KERNEL_SHARE_SET = 10,   /* rf_kernel_share: a dispatcher may only lower its own weight; M: any */
    RF_KERNEL_NULL = 11,        /* does nothing: the cost of an invocation */
    RF_KERNEL_CREATE = 32,  /* M: rf_kernel_create + fds {spawn block, stdin, stdout, stderr[, executable]} */
    RF_KERNEL_SIGNAL = 33,  /* M: rf_kernel_signal */
    RF_KERNEL_DESTROY = 34, /* M: rf_kernel_target: kills and reaps all of a dispatcher's processes */
    RF_KERNEL_FREEZE = 35,  /* M: rf_kernel_target */
    RF_KERNEL_THAW = 36,    /* M: rf_kernel_target */
    RF_KERNEL_STAT_ALL = 37, /* M: rf_kernel_target {from} -> rf_kernel_stats: dispatchers at and after
                                `from`, in order of (domain, index), without the monitor, whose own is STAT */
    RF_KERNEL_FENCE =
        38, /* M: rf_kernel_fence: kills all processes of another core of this host; answered when nothing of
                             them is left; RF_ERR_TIMEOUT */
    RF_KERNEL_FREEZE_ALL =
        39, /* M: rf_kernel_freeze_all: all dispatchers, besides those that were frozen one by one; the lease is looked at again */
};

enum rf_kernel_event_op {
    RF_KERNEL_EVENT_TIMER = 1,    /* rf_kernel_timer_event */
    RF_KERNEL_EVENT_FD = 2,       /* rf_kernel_watch */
    RF_KERNEL_EVENT_SIGNAL = 3,   /* rf_kernel_signal_event */
    RF_KERNEL_EVENT_STARTED = 32, /* M: rf_kernel_target + fd (key = domain<<16|index): its client-link
                                     socket. Comes when the dispatcher first identifies itself */
    RF_KERNEL_EVENT_EXITED = 33,  /* M: rf_kernel_exited: its last process is gone and reaped */
};

typedef struct rf_kernel_message { /* head of every kernel message; arguments follow */
    rf_wire_header_t header;
} rf_kernel_message_t;

typedef struct rf_kernel_identity {
    rf_machine_id_t machine;
    char machine_name[RF_NAME_MAX];
    char node_name[RF_NAME_MAX];
    rf_domain_t domain;
    uint16_t index;
    rf_node_t node;
    rf_core_t core;
    rf_core_t cores; /* of the machine */
    rf_node_t nodes;
    rf_core_t node_first_core; /* this node's cores are [first, first+node_cores) */
    rf_core_t node_cores;
    uint16_t cpu;                   /* the host CPU this core is */
    uint16_t cpu_shared;            /* 1: other cores of the machine are emulated on the same CPU */
    uint16_t encrypt;               /* 1: TCP links of this machine are encrypted */
    char host_address[64];          /* numeric address other nodes reach this host by */
    char rdma[RF_RDMA_OPTIONS_MAX]; /* options of RDMA endpoints of this node, as of rf_boot */
    char dpdk[RF_DPDK_OPTIONS_MAX]; /* of DPDK endpoints likewise */
    uint8_t span_args[256];         /* what rf_span was given; zero for index 0 */
    uint16_t span_args_size;
    uint16_t host_deadline_ms; /* a peer on another host that is out of reach this long is dead; 0: 1000 */
    uint16_t reserved[2];
    char scheduler[96]; /* how this core is shared, and what that may promise; one line for people */
    char isolation[96]; /* how domains are kept apart; "none: REASON" where they are not */
} rf_kernel_identity_t;

#define RF_KERNEL_TIMERS_MAX  64 /* a dispatcher */
#define RF_KERNEL_WATCHES_MAX 64 /* a dispatcher */

typedef struct rf_kernel_timer {
    uint32_t id; /* the dispatcher's own choice, below RF_KERNEL_TIMERS_MAX */
    uint32_t reserved;
    uint64_t deadline_ns; /* CLOCK_MONOTONIC */
    uint64_t period_ns;   /* 0: once; else at least 1 ms */
} rf_kernel_timer_t;

typedef struct rf_kernel_timer_event {
    uint32_t id;
    uint32_t reserved;
    uint64_t expirations;
} rf_kernel_timer_event_t;

typedef struct rf_kernel_watch {
    uint32_t id;     /* the dispatcher's own choice, below RF_KERNEL_WATCHES_MAX */
    uint32_t events; /* EPOLLIN, EPOLLOUT, ... */
} rf_kernel_watch_t;

typedef struct rf_kernel_signals {
    uint64_t mask; /* bit (signo - 1); KILL and STOP are refused */
} rf_kernel_signals_t;

typedef struct rf_kernel_signal_event {
    uint32_t signo;
    uint32_t reserved;
} rf_kernel_signal_event_t;

typedef struct rf_kernel_share {
    rf_domain_t domain; /* M; 0: the caller */
    uint16_t index;
    uint16_t reserved_permille; /* of the core; 0: best effort */
    uint16_t weight;            /* of best effort, 1 to 1000, 100 usual; 0: unchanged */
    uint16_t reserved;
} rf_kernel_share_t;

typedef struct rf_kernel_target {
    rf_domain_t domain;
    uint16_t index;
    uint16_t reserved[3];
} rf_kernel_target_t;

typedef struct rf_kernel_fence {
    rf_core_t core;
    uint16_t reserved;
    rf_incarnation_t incarnation;
    int32_t monitor_pid, driver_pid;      /* 0: not known; else as this host's system processes see them */
    uint64_t monitor_start, driver_start; /* start times as in /proc, so that nobody else is meant */
    uint32_t deadline_ms, reserved32;
} rf_kernel_fence_t;
_Static_assert(sizeof(rf_kernel_fence_t) == 40, "wire layout");

typedef struct rf_kernel_freeze_all {
    uint32_t frozen; /* 0: thaws */
    uint32_t reserved;
} rf_kernel_freeze_all_t;

typedef struct rf_kernel_create {
    rf_domain_t domain; /* already agreed */
    uint16_t index;
    uint16_t n_fds;
    uint32_t reserved;
} rf_kernel_create_t; /* -> rf_kernel_created */

typedef struct rf_kernel_created {
    int32_t pid;       /* of its first process, as this host's system processes see it */
    uint32_t os_errno; /* with RF_ERR_EXEC or RF_ERR_OS: why (ENOENT, EACCES, ...) */
    char what[120];    /* ... and on what: "chdir /nowhere", "exec ./prog", "interpreter /bin/foo" */
} rf_kernel_created_t;

typedef struct rf_kernel_signal {
    rf_domain_t domain;
    uint16_t index;
    uint16_t signo;
    uint32_t whole; /* 0: to the foreground process group of its first process; 1: to every process */
} rf_kernel_signal_t;

typedef struct rf_kernel_exited {
    rf_domain_t domain;
    uint16_t index;
    uint16_t reserved;
    int32_t wait_status; /* as wait(2) gives it */
    uint64_t user_us, system_us;
    uint64_t max_rss_kib;
} rf_kernel_exited_t;

typedef struct rf_kernel_stat {
    rf_domain_t domain;
    uint16_t index;
    uint16_t processes; /* alive now */
    int32_t pid;
    uint64_t cpu_ns; /* used so far, all its processes */
    uint64_t rss_kib;
    uint64_t started_ns; /* CLOCK_REALTIME */
    uint16_t reserved_permille, weight;
    uint16_t frozen, reserved;
} rf_kernel_stat_t;

#define RF_KERNEL_STATS_MAX 60
typedef struct rf_kernel_stats {
    uint32_t n;
    uint32_t more; /* 1: ask again from behind the last */
    rf_kernel_stat_t stat[RF_KERNEL_STATS_MAX];
} rf_kernel_stats_t;

_Static_assert(sizeof(rf_kernel_message_t) + sizeof(rf_kernel_stats_t) <= 4096, "fits a control message");
_Static_assert(sizeof(rf_kernel_message_t) + sizeof(rf_kernel_identity_t) <= 4096, "fits a control message");

#endif
