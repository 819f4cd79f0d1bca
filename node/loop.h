/*
 * The event loop of rackfishd: one epoll set, timers, and memory that outlives the callback which gave it up.
 *
 *   source   a descriptor with a callback; level-triggered. Removing one inside any callback is safe: events of it that
 *            were already fetched are dropped.
 *   timer    one shot, CLOCK_MONOTONIC; kept in order, so that setting is linear and looking is constant
 *   garbage  objects that a callback up the stack may still touch are freed when the loop is between events
 *
 * One thread.
 */
#ifndef RF_NODE_LOOP_H
#define RF_NODE_LOOP_H

#include "base/clock.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define RF_LOOP_EVENTS_MAX 64

typedef void (*rf_source_fn)(void *context, uint32_t events);
typedef struct rf_source {
    int fd;
    uint32_t events; /* EPOLLIN, ...; 0: only errors and hang-ups */
    rf_source_fn fn;
    void *context;
    bool active;
} rf_source_t;

typedef void (*rf_timer_fn)(void *context);
typedef struct rf_timer {
    uint64_t deadline_ns;
    rf_timer_fn fn;
    void *context;
    struct rf_timer *next, **link; /* link: NULL when not set */
} rf_timer_t;

/* First member of whatever is given to rf_loop_free_later(). */
typedef struct rf_garbage {
    struct rf_garbage *next;
} rf_garbage_t;

typedef struct rf_loop {
    int epoll_fd;
    rf_timer_t *timers;
    rf_garbage_t *garbage;
    struct epoll_event batch[RF_LOOP_EVENTS_MAX];
    int batch_size, batch_at;
} rf_loop_t;

rf_err_t rf_loop_init(rf_loop_t *loop);
void rf_loop_finish(rf_loop_t *loop);

/* Watches `fd` for `events`. The source is the caller's and must stay until removed. */
rf_err_t rf_loop_add(rf_loop_t *loop, rf_source_t *source, int fd, uint32_t events, rf_source_fn fn,
                     void *context);

/* Changes what is watched for; nothing happens when it is the same. */
void rf_loop_modify(rf_loop_t *loop, rf_source_t *source, uint32_t events);

/* Stops watching; the descriptor stays open. Harmless on a source that is not watched. */
void rf_loop_remove(rf_loop_t *loop, rf_source_t *source);

/* (Re)sets a timer; it fires once at or after `deadline_ns`. A zeroed timer is a valid unset one. */
void rf_timer_set(rf_loop_t *loop, rf_timer_t *timer, uint64_t deadline_ns, rf_timer_fn fn, void *context);
void rf_timer_clear(rf_timer_t *timer);
static inline bool rf_timer_is_set(const rf_timer_t *timer)
{
    return timer->link != NULL;
}

/* free()s `object` (allocated by malloc, with its rf_garbage_t first) between events. */
void rf_loop_free_later(rf_loop_t *loop, rf_garbage_t *object);

/* Waits for events at most until the next timer or `limit_ns`, and handles them. */
void rf_loop_turn(rf_loop_t *loop, uint64_t limit_ns);

#endif
