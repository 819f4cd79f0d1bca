/*
 * User-level threads of one dispatcher: cooperative, on the one host thread that called rf_init(). Source:
 * lib/thread.c.
 *
 * A thread runs until it blocks in an rf_ call, yields or returns; between two such calls nothing of this
 * dispatcher interferes, so that most data need no lock. A call of the host that blocks (read, sleep) blocks
 * them all. The first thread is the program's own; when it leaves main() the process ends.
 */
#ifndef RACKFISH_THREAD_H
#define RACKFISH_THREAD_H

#include "rackfish/api.h"
#include "rackfish/error.h"

RF_BEGIN_DECLS

#define RF_THREADS_MAX          1024         /* of one dispatcher, the first included */
#define RF_THREAD_STACK_DEFAULT (256u << 10) /* bytes; memory is taken as it is touched */
#define RF_THREAD_STACK_MIN     (128u << 10)
#define RF_THREAD_STACK_MAX     (64u << 20)

typedef struct rf_thread rf_thread_t;

/* Starts `function(argument)` in a thread of its own, which runs when the caller next blocks or yields.
 * `stack_bytes` 0: RF_THREAD_STACK_DEFAULT. An inaccessible page lies below the stack: running over it kills
 * the process and nothing else. The caller joins or detaches it. RF_ERR_LIMIT, RF_ERR_NO_MEMORY. */
RF_API rf_err_t rf_thread_create(void *(*function)(void *argument), void *argument, size_t stack_bytes,
                                 rf_thread_t **out);

/* Waits until the thread has returned, and frees it; `*result` (may be NULL) is what it returned. With
 * RF_ERR_TIMEOUT it lives on. RF_ERR_INVALID: itself, or somebody else is joining it. */
RF_API rf_err_t rf_thread_join(rf_thread_t *thread, void **result, uint64_t deadline_ns);

/* Nobody will join it: it is freed when it returns. */
RF_API void rf_thread_detach(rf_thread_t *thread);

/* Lets the others run, and looks at the dispatcher's links. Returns at once when there is nothing else to do.
 */
RF_API void rf_thread_yield(void);

/* Blocks until the time has come. */
RF_API void rf_thread_sleep(uint64_t until_ns);

/* The calling thread; never NULL after rf_init(). */
RF_API rf_thread_t *rf_thread_current(void);

/* Between threads of one dispatcher. Zero-initialise; no destruction needed. Fair: first come, first served.
 */
typedef struct rf_mutex {
    rf_thread_t *owner;
    rf_thread_t *first, *last;
} rf_mutex_t;
#define RF_MUTEX_INIT                                                                                        \
    {                                                                                                        \
        NULL, NULL, NULL                                                                                     \
    }

/* RF_ERR_INVALID: the caller holds it already. */
RF_API rf_err_t rf_mutex_lock(rf_mutex_t *mutex, uint64_t deadline_ns);
/* RF_ERR_BUSY: somebody else holds it. */
RF_API rf_err_t rf_mutex_try_lock(rf_mutex_t *mutex);
/* RF_ERR_PERMISSION: the caller does not hold it. */
RF_API rf_err_t rf_mutex_unlock(rf_mutex_t *mutex);

/* Zero-initialise. */
typedef struct rf_condition {
    rf_thread_t *first, *last;
} rf_condition_t;
#define RF_CONDITION_INIT                                                                                    \
    {                                                                                                        \
        NULL, NULL                                                                                           \
    }

/* Gives the mutex up, waits to be signalled, takes the mutex again: held on return in every case but
 * RF_ERR_PERMISSION (the caller did not hold it). No spurious return. */
RF_API rf_err_t rf_condition_wait(rf_condition_t *condition, rf_mutex_t *mutex, uint64_t deadline_ns);
RF_API void rf_condition_signal(rf_condition_t *condition);    /* wakes the one that waits longest */
RF_API void rf_condition_broadcast(rf_condition_t *condition); /* wakes all */

RF_END_DECLS

#endif
