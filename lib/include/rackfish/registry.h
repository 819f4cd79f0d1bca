/*
 * What the whole machine agrees on, for programs: keys with values, locks, semaphores, barriers and queues. Every change is
 * an entry of the machine's ordered log, so all cores see the same changes in the same order, and what was acknowledged
 * outlives the death of any core that the machine survives. Source: lib/registry.c, lib/lock.c.
 *
 * Names are 1 to RF_REGISTRY_NAME_MAX bytes without spaces or control characters; "/" between parts is a custom. Each kind
 * of object has names of its own. Everybody may read everything; an object is its maker's, and other users (but root and
 * the machine's owner) may change or use it only if its name begins with "shared/". Names that begin with "machine/" are
 * root's and the machine's owner's.
 *
 * Revision: a number for the whole registry that rises with every change. Every change returns its own. The *token* of a
 * lock or of permits is the revision that granted them: give it along with what you do under the lock, and let whoever
 * does it refuse lower ones than it has seen (fencing).
 *
 * Ephemeral things belong to the calling dispatcher and vanish when it ends, however it ends, or its core dies. So do
 * locks and permits that it holds, and its places in lines. Of a core that died, or was given up, that is when the last of
 * what ran there is dead, or frozen for good on a host out of reach: it may still run until then, and nobody else is let in
 * (but for its places in lines). What no fence reaches is what it has sent out of the machine before, a host whose clock
 * stood still, and programs outside of the machine that a command holds a lock for: there it is the token that keeps two
 * holders apart.
 *
 * Deadlines and errors. Waiting calls (lock, semaphore, barrier, pop) answer RF_ERR_TIMEOUT only when the machine has agreed
 * that the wait is over: nothing was granted then, nor will be. The others, like any request, may still take effect after
 * RF_ERR_TIMEOUT. RF_ERR_NO_QUORUM: nothing can be agreed on now, nothing happened. RF_ERR_UNKNOWN_OUTCOME: it may have
 * happened; look. RF_ERR_PERMISSION: another user's. RF_ERR_LIMIT: a quota of this user, or a maximum of the machine.
 * RF_ERR_AGAIN: too much is under way at this core, nothing happened. RF_ERR_LOST, of any call: as RF_ERR_NO_QUORUM, for good.
 * RF_ERR_INVALID: a name or a size that cannot be.
 */
#ifndef RACKFISH_REGISTRY_H
#define RACKFISH_REGISTRY_H

#include "rackfish/api.h"
#include "rackfish/domain.h"
#include "rackfish/error.h"
#include "rackfish/types.h"

RF_BEGIN_DECLS

#define RF_REGISTRY_NAME_MAX    127
#define RF_REGISTRY_VALUE_MAX   512
#define RF_REGISTRY_CAS_MAX     800 /* bytes of both values of rf_registry_cas_value() */
#define RF_REGISTRY_SUFFIX      16  /* digits that a sequential name gets */
#define RF_REGISTRY_WATCHES_MAX 64  /* of one dispatcher */

/* Which state a read sees. On a host that is cut off, or whose clock stood still, a local one is as old as the cut, until the host is frozen:
 * nobody can fence it. */
typedef enum rf_read {
    RF_READ_LOCAL = 0,        /* of this core's replica, at once: maybe not the newest, never out of order */
    RF_READ_LINEARIZABLE = 1, /* with every change that was acknowledged to anybody before the call */
} rf_read_t;

/* ---- keys ---- */

enum { /* flags of rf_registry_put() */
       RF_REGISTRY_PUT_EPHEMERAL = 1u << 0,
       RF_REGISTRY_PUT_NEW = 1u << 1, /* RF_ERR_EXISTS if it is there */
};

typedef struct rf_registry_entry {
    char name[RF_REGISTRY_NAME_MAX + 1];
    uint64_t created;  /* revision that made it */
    uint64_t revision; /* ... that changed it last */
    uint64_t version;  /* changes, from 1 */
    size_t size;       /* of its value; 0 in lists */
    bool ephemeral;
    rf_domain_t domain; /* ephemeral: whose */
    uint16_t index;
    char user[32]; /* who made it */
} rf_registry_entry_t;

/* Makes a key or changes its value. An ephemeral key is changed, not taken over: RF_ERR_EXISTS if it is another's, or is
 * not ephemeral. `*revision` (may be NULL) is the change's. */
RF_API rf_err_t rf_registry_put(const char *name, const void *value, size_t size, unsigned flags,
                                uint64_t *revision, uint64_t deadline_ns);

/* Makes a key whose name is `base` and RF_REGISTRY_SUFFIX digits, which rise from each such key to the next, in the order
 * of the log. `made` has RF_REGISTRY_NAME_MAX + 1 bytes. Flags: RF_REGISTRY_PUT_EPHEMERAL. */
RF_API rf_err_t rf_registry_put_sequential(const char *base, const void *value, size_t size, unsigned flags,
                                           char *made, uint64_t *revision, uint64_t deadline_ns);

/* Changes a key only if `expected` last changed it, or if it holds that value. RF_ERR_BUSY: it does not; RF_ERR_NOT_FOUND:
 * there is none. */
RF_API rf_err_t rf_registry_cas(const char *name, uint64_t expected, const void *value, size_t size,
                                uint64_t *revision, uint64_t deadline_ns);
RF_API rf_err_t rf_registry_cas_value(const char *name, const void *expected, size_t expected_size,
                                      const void *value, size_t size, uint64_t *revision,
                                      uint64_t deadline_ns);

/* Deletes a key; with `expected` other than 0 only if that revision last changed it (RF_ERR_BUSY). RF_ERR_NOT_FOUND. */
RF_API rf_err_t rf_registry_delete(const char *name, uint64_t expected, uint64_t deadline_ns);

/* Reads a key: its entry (may be NULL) and at most `max` bytes of its value. RF_ERR_NOT_FOUND; RF_ERR_TRUNCATED: the value is
 * longer, nothing is written. */
RF_API rf_err_t rf_registry_get(const char *name, rf_read_t read, rf_registry_entry_t *entry, void *value,
                                size_t max, uint64_t deadline_ns);

/* The keys whose names begin with `prefix` ("" : all), in order of name, from the first behind `after` ("" or NULL: from
 * the beginning): at most `max`, `*n` says how many; fewer than `max` are the last. Each page is of one state. */
RF_API rf_err_t rf_registry_list(const char *prefix, const char *after, rf_read_t read,
                                 rf_registry_entry_t *rows, unsigned max, unsigned *n, uint64_t deadline_ns);

/* ---- watching keys ---- */

typedef struct rf_registry_watch rf_registry_watch_t;

typedef enum rf_registry_event_what {
    RF_REGISTRY_CHANGED = 1, /* made (version 1) or changed */
    RF_REGISTRY_DELETED = 2,
    RF_REGISTRY_EXPIRED = 3, /* with the dispatcher that it belonged to */
    RF_REGISTRY_MISSED =
        4, /* events before `revision` are no longer kept: list the keys again; goes on from there */
} rf_registry_event_what_t;

typedef struct rf_registry_event {
    rf_registry_event_what_t what;
    uint64_t revision; /* rises from event to event */
    uint64_t version;
    char name[RF_REGISTRY_NAME_MAX + 1];
    size_t size;
    uint8_t value[RF_REGISTRY_VALUE_MAX]; /* CHANGED */
} rf_registry_event_t;

enum { RF_REGISTRY_WATCH_PREFIX = 1u << 0 }; /* all keys whose names begin so */

/* Watches a key, or a prefix, from revision `from` on: one more than what an entry was seen at, or 0 for what happens from
 * now on. The machine keeps about the last thousand events. RF_ERR_LIMIT; RF_ERR_AGAIN: the link to the monitor is full. */
RF_API rf_err_t rf_registry_watch(const char *name, unsigned flags, uint64_t from, rf_registry_watch_t **out);

/* The next event. After an error other than RF_ERR_TIMEOUT the watch goes on where it was, if it can. */
RF_API rf_err_t rf_registry_watch_next(rf_registry_watch_t *watch, rf_registry_event_t *event,
                                       uint64_t deadline_ns);

/* Would rf_registry_watch_next() return at once? Never blocks. In a wait set: rf_waitset_add_watch(). */
RF_API bool rf_registry_watch_ready(rf_registry_watch_t *watch);
RF_API void rf_registry_watch_close(rf_registry_watch_t *watch); /* NULL is allowed */

/* ---- locks ---- */

/* One holder in the machine; those that wait get it in the order in which they came. It need not be made, and is gone when
 * nobody wants it. Not recursive: a second acquire of the same dispatcher waits too. `*token` may not be NULL. */
RF_API rf_err_t rf_lock_acquire(const char *name, uint64_t *token, uint64_t deadline_ns);
RF_API rf_err_t rf_lock_try(const char *name, uint64_t *token,
                            uint64_t deadline_ns); /* RF_ERR_AGAIN: it is held */
RF_API rf_err_t rf_lock_release(const char *name, uint64_t token,
                                uint64_t deadline_ns); /* RF_ERR_NOT_FOUND: not held */

/* ---- semaphores ---- */

enum {
    RF_OBJECT_EPHEMERAL = 1u << 0
}; /* flag of rf_semaphore_create(), rf_queue_create(): gone with this dispatcher */

/* RF_OK also if it is there with as many permits; RF_ERR_EXISTS: with another number. */
RF_API rf_err_t rf_semaphore_create(const char *name, uint32_t permits, unsigned flags, uint64_t deadline_ns);
RF_API rf_err_t rf_semaphore_delete(const char *name,
                                    uint64_t deadline_ns); /* who waits gets RF_ERR_CANCELLED */

/* Takes `n` permits. Strictly in turn: one that wants few does not overtake one that wants many. RF_ERR_NOT_FOUND: no such
 * semaphore. */
RF_API rf_err_t rf_semaphore_acquire(const char *name, uint32_t n, uint64_t *token, uint64_t deadline_ns);
RF_API rf_err_t rf_semaphore_try(const char *name, uint32_t n, uint64_t *token, uint64_t deadline_ns);
RF_API rf_err_t rf_semaphore_release(const char *name, uint64_t token,
                                     uint64_t deadline_ns); /* all `n` of that acquire */

/* ---- barriers ---- */

/* Waits until `parties` are here, then all go on; `*generation` (may be NULL) is then the same number for all of them, and
 * higher at the next use. One who dies or gives up waiting is not here any more. RF_ERR_EXISTS: others wait with another
 * number of parties. */
RF_API rf_err_t rf_barrier_wait(const char *name, uint32_t parties, uint64_t *generation,
                                uint64_t deadline_ns);

/* ---- queues ---- */

#define RF_QUEUE_MESSAGE_MAX RF_REGISTRY_VALUE_MAX

/* First in, first out, of at most `max` messages of at most RF_QUEUE_MESSAGE_MAX bytes. RF_OK also if it is there with that
 * `max`; RF_ERR_EXISTS: with another. For work that must not be lost when cores die; channels are a thousand times faster. */
RF_API rf_err_t rf_queue_create(const char *name, uint32_t max, unsigned flags, uint64_t deadline_ns);
RF_API rf_err_t rf_queue_delete(const char *name, uint64_t deadline_ns);

/* RF_ERR_AGAIN: full. */
RF_API rf_err_t rf_queue_push(const char *name, const void *message, size_t size, uint64_t deadline_ns);

/* Takes the oldest message, or waits for one, in turn. `message` has RF_QUEUE_MESSAGE_MAX bytes. A message is taken at most
 * once: what a dispatcher took and died with is gone. */
RF_API rf_err_t rf_queue_pop(const char *name, void *message, size_t *size, uint64_t deadline_ns);
RF_API rf_err_t rf_queue_try_pop(const char *name, void *message, size_t *size,
                                 uint64_t deadline_ns); /* RF_ERR_AGAIN */

/* ---- waiting, split-phase (domain.h): rf_operation_wait() gives `revision` (token or generation) and the message.
 * rf_operation_cancel() leaves the line, and gives back what was granted meanwhile (a popped message is lost). ---- */

RF_API rf_err_t rf_lock_acquire_begin(const char *name, rf_operation_t **out);
RF_API rf_err_t rf_semaphore_acquire_begin(const char *name, uint32_t n, rf_operation_t **out);
RF_API rf_err_t rf_barrier_wait_begin(const char *name, uint32_t parties, rf_operation_t **out);
RF_API rf_err_t rf_queue_pop_begin(const char *name, rf_operation_t **out);

RF_END_DECLS

#endif
