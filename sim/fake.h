/*
 * What stands around monitor_step where there is no host: a fake CPU driver for each core, which creates, signals and ends
 * dispatchers at once, and the shell's answers about descriptors, spawn blocks and secrets. The tests' worlds
 * (tests/monitor/world.h) and the simulator's monitors (monitors.h) share it; each brings its own queue of events, links and
 * clients.
 *
 * Descriptors are numbers that are counted and never used twice: one that is closed twice, or used after closing, fails
 * an assertion.
 */
#ifndef RF_SIM_FAKE_H
#define RF_SIM_FAKE_H

#include "base/assert.h"
#include "base/prng.h"
#include "monitor/state.h"

/* Whence an event comes to a monitor: order is kept within one. */
enum {
    CHANNEL_PEER = 0, /* and the core's number */
    CHANNEL_KERNEL = 1000,
    CHANNEL_SHELL = 1001,
    CHANNEL_LANE = 1100,  /* and the core's number */
    CHANNEL_CLIENT = 2000 /* and the client's handle */
};

typedef struct fake_dispatcher {
    bool used;
    rf_domain_t domain;
    uint16_t index;
} fake_dispatcher_t;

typedef struct fake_core {
    fake_dispatcher_t *dispatchers; /* [MONITOR_LOCAL_MAX] */
    bool frozen;                    /* all of them, by the monitor's wish */
    uint64_t
        lease_ns; /* ... or once its lease has ended, by the clock of its host (wire/lease.h); RF_NEVER: never */
} fake_core_t;

typedef struct fake {
    void *world;
    /* An event for a monitor, to be filled in at once; the bytes are copied. */
    monitor_event_t *(*push)(void *world, rf_core_t to, uint32_t channel, monitor_event_kind_t kind,
                             const void *bytes, size_t size);
    /* A dispatcher has ended: its client link goes as well. */
    void (*exited)(void *world, rf_core_t core, rf_domain_t domain, uint16_t index);
    /* The CPU driver of `core` is to kill and reap another core of its host; what it answers. */
    rf_err_t (*fence)(void *world, rf_core_t core, const rf_kernel_fence_t *fence);
    rf_prng_t *prng;
    fake_core_t *cores;
    fake_dispatcher_t *dispatchers; /* of all cores: by themselves, since most are never touched */
    rf_err_t create_err;            /* what CREATE answers */
    bool ignore_term;               /* dispatchers survive TERM */
    bool kernel_stuck;              /* CREATE and SIGNAL are not answered */
    uint32_t block_flags, block_size;
    rf_err_t block_err;
    char block_user[32];
    uint8_t *fd_open;
    unsigned fd_next, fds_max;
} fake_t;

void fake_init(fake_t *f, void *world, rf_prng_t *prng, unsigned n_cores);
void fake_free(fake_t *f);

int fake_fd_new(fake_t *f);
void fake_fd_check(const fake_t *f, int fd);
void fake_fd_close(fake_t *f, int fd);
unsigned fake_fds_open(const fake_t *f);

fake_dispatcher_t *fake_dispatcher(fake_t *f, rf_core_t core, rf_domain_t domain, unsigned index);
void fake_exit_dispatcher(fake_t *f, rf_core_t core, rf_domain_t domain, uint16_t index, int wait_status);

/* Carries out what a monitor wants of its CPU driver, and of its shell besides links and clients. False: it is none of that. */
bool fake_act(fake_t *f, rf_core_t core, const monitor_action_t *action);

/* The process of a core's monitor has ended: its descriptors and all dispatchers of the core go with it. */
void fake_core_died(fake_t *f, rf_core_t core, const monitor_t *m);

/* Its dispatchers, if it has any, are not frozen; `now_ns`: by the clock of its host. */
static inline bool fake_core_runs(const fake_core_t *core, uint64_t now_ns)
{
    return !core->frozen && now_ns < core->lease_ns;
}

/* Two replicas that have applied equally much are equal; asserted. */
void fake_check_pair(const monitor_t *a, const monitor_t *b);

#endif
