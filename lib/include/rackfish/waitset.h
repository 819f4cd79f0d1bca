/*
 * Wait sets: one place to wait for everything a dispatcher can hear of. Source: lib/waitset.c.
 *
 * A set has sources, added by the functions below; rf_waitset_wait() says which have something. Except for
 * those that carry news themselves (timers, signals, machine events, finished operations) sources are levels,
 * not edges: one that stays readable is reported again. Waiting polls for about the cost of a wake-up, not at
 * all where that would keep a peer off the CPU, then blocks on the dispatcher's one doorbell.
 *
 * Closing a channel, stream or export, and finishing an operation, removes it from all sets.
 */
#ifndef RACKFISH_WAITSET_H
#define RACKFISH_WAITSET_H

#include "rackfish/channel.h"
#include "rackfish/domain.h"
#include "rackfish/machine.h"
#include "rackfish/registry.h"
#include "rackfish/stream.h"

RF_BEGIN_DECLS

#define RF_WAITSETS_MAX        16   /* of one dispatcher */
#define RF_WAITSET_SOURCES_MAX 1024 /* of one set */

typedef struct rf_waitset rf_waitset_t;

enum { /* what happened, and what to ask for */
       RF_EVENT_READABLE =
           1u << 0, /* a message, stream bytes, a client to accept, a readable descriptor; or the end */
       RF_EVENT_WRITABLE =
           1u << 1, /* room for a message of full length, for stream bytes, a writable descriptor */
       RF_EVENT_ENDED = 1u << 2, /* the channel or stream has ended or failed; always asked for */
       RF_EVENT_TIMER = 1u << 3,
       RF_EVENT_SIGNAL = 1u << 4,
       RF_EVENT_MACHINE = 1u << 5,
       RF_EVENT_DONE = 1u << 6, /* an operation finished: fetch it with rf_operation_wait() */
};

typedef struct rf_event {
    void *cookie;  /* what was given when the source was added */
    uint32_t id;   /* of the source */
    uint32_t what; /* RF_EVENT_* */
    union {
        uint64_t expirations;       /* TIMER: periods that passed since it was last reported */
        uint32_t signo;             /* SIGNAL */
        rf_machine_event_t machine; /* MACHINE */
    };
} rf_event_t;

RF_API rf_err_t rf_waitset_create(rf_waitset_t **out);
RF_API void rf_waitset_destroy(rf_waitset_t *set);

/* Add a source. `*id` (may be NULL) is for rf_waitset_remove(); `cookie` comes back in events. RF_ERR_LIMIT:
 * the set is full. */

/* `events`: RF_EVENT_READABLE, RF_EVENT_WRITABLE or both. */
RF_API rf_err_t rf_waitset_add_channel(rf_waitset_t *set, rf_channel_t *channel, uint32_t events,
                                       void *cookie, uint32_t *id);
RF_API rf_err_t rf_waitset_add_stream(rf_waitset_t *set, rf_channel_stream_t *stream, uint32_t events,
                                      void *cookie, uint32_t *id);

/* RF_EVENT_READABLE when rf_accept() would not block. */
RF_API rf_err_t rf_waitset_add_export(rf_waitset_t *set, rf_export_t *export_, void *cookie, uint32_t *id);

/* Expires at `first_ns` (rf_now_ns() time), then every `period_ns`; 0: once, and the source is gone then. */
RF_API rf_err_t rf_waitset_add_timer(rf_waitset_t *set, uint64_t first_ns, uint64_t period_ns, void *cookie,
                                     uint32_t *id);

/* A host descriptor that epoll(7) can wait for; it stays the caller's, who removes the source before closing
 * it. It may be in one set, once: RF_ERR_EXISTS. RF_ERR_NOT_SUPPORTED: such descriptors (regular files)
 * cannot be waited for. */
RF_API rf_err_t rf_waitset_add_fd(rf_waitset_t *set, int fd, uint32_t events, void *cookie, uint32_t *id);

/* The signals of `mask` (bit signo - 1) come as messages from the CPU driver from now on, instead of
 * interrupting the program: those sent by rf_kill() or `rackfish kill` and Ctrl-C, not those a program raises
 * itself. RF_ERR_INVALID: KILL and STOP. A signal pending more than once is reported once. Removing the
 * source gives the signals back. */
RF_API rf_err_t rf_waitset_add_signals(rf_waitset_t *set, uint64_t mask, void *cookie, uint32_t *id,
                                       uint64_t deadline_ns);

/* Events of the machine, RF_MACHINE_EVENTS_* ored (machine.h). At most 64 wait; when more came, one with
 * `what` RF_MACHINE_EVENT_LOST says so: look at the state again. */
RF_API rf_err_t rf_waitset_add_machine(rf_waitset_t *set, uint32_t mask, void *cookie, uint32_t *id,
                                       uint64_t deadline_ns);

/* RF_EVENT_DONE, once, when the operation (domain.h) has finished. */
RF_API rf_err_t rf_waitset_add_operation(rf_waitset_t *set, rf_operation_t *operation, void *cookie,
                                         uint32_t *id);

/* RF_EVENT_READABLE when rf_registry_watch_next() (registry.h) would not block. */
RF_API rf_err_t rf_waitset_add_watch(rf_waitset_t *set, rf_registry_watch_t *watch, void *cookie,
                                     uint32_t *id);

/* RF_ERR_NOT_FOUND: no such source, or it is gone already. */
RF_API rf_err_t rf_waitset_remove(rf_waitset_t *set, uint32_t id);

/* Waits until at least one source has something and fills `events`, `*n` of at most `max`. Sources take turns
 * when there are more than `max`. */
RF_API rf_err_t rf_waitset_wait(rf_waitset_t *set, rf_event_t *events, unsigned max, unsigned *n,
                                uint64_t deadline_ns);

RF_END_DECLS

#endif
