/*
 * User-level threads: cooperative, one host thread. A thread is in exactly one place:
 *
 *   RUNNING   rf_me.current
 *   READY     in the ready queue
 *   BLOCKED   in rf_me.blocked; and, when a mutex, condition or join is what it waits for, in that object's queue
 *   ENDED     nowhere, until joined
 *
 * Whoever blocks runs the loop (loop.c) on its own stack until somebody is ready, which is often itself: a program with one thread
 * never switches.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD_BYTES RF_PAGE

static void thread_unmap(rf_thread_t *thread)
{
    rf_lib_context_free(&thread->context);
    if (thread->stack) munmap(thread->stack, thread->stack_bytes + GUARD_BYTES);
    free(thread);
    rf_me.n_threads--;
}

/* The next to run frees a thread that has left its stack for good. */
static void reap_dead(void)
{
    rf_thread_t *dead = rf_me.dead;
    if (!dead) return;
    rf_me.dead = NULL;
    thread_unmap(dead);
}

void rf_lib_make_ready(rf_thread_t *thread)
{
    if (thread->blocked_previous)
        thread->blocked_previous->blocked_next = thread->blocked_next;
    else if (rf_me.blocked == thread)
        rf_me.blocked = thread->blocked_next;
    if (thread->blocked_next) thread->blocked_next->blocked_previous = thread->blocked_previous;
    thread->blocked_next = thread->blocked_previous = NULL;
    thread->state = LIB_THREAD_READY;
    thread->next = NULL;
    if (rf_me.ready_last)
        rf_me.ready_last->next = thread;
    else
        rf_me.ready_first = thread;
    rf_me.ready_last = thread;
}

static void switch_to(rf_thread_t *next)
{
    rf_thread_t *self = rf_me.current;
    next->state = LIB_THREAD_RUNNING;
    if (next == self) return;
    rf_me.current = next;
    rf_lib_context_switch(&self->context, &next->context, self->state == LIB_THREAD_ENDED);
    reap_dead();
}

/* Takes the first ready thread and runs it; false when there is none. */
static bool run_ready(void)
{
    rf_thread_t *next = rf_me.ready_first;
    if (!next) return false;
    rf_me.ready_first = next->next;
    if (!rf_me.ready_first) rf_me.ready_last = NULL;
    next->next = NULL;
    switch_to(next);
    return true;
}

/* Blocks the calling thread, already in whatever queue will wake it. True: woken; false: the deadline passed. */
static bool block(const lib_wait_t *wait, uint64_t deadline_ns)
{
    rf_thread_t *self = rf_me.current;
    self->wait = wait;
    self->deadline_ns = deadline_ns;
    self->timed_out = false;
    self->state = LIB_THREAD_BLOCKED;
    self->blocked_previous = NULL;
    self->blocked_next = rf_me.blocked;
    if (self->blocked_next) self->blocked_next->blocked_previous = self;
    rf_me.blocked = self;
    rf_lib_schedule();
    self->wait = NULL;
    return !self->timed_out;
}

#define SWITCHES_PER_LOOK 64 /* links are looked at, however busy the threads keep each other */

void rf_lib_schedule(void)
{
    rf_thread_t *self = rf_me.current;
    for (;;) {
        if (++rf_me.n_switches % SWITCHES_PER_LOOK == 0) rf_lib_loop_look();
        if (!rf_me.ready_first) rf_lib_loop_wait();
        run_ready();
        if (self->state == LIB_THREAD_RUNNING) return;
    }
}

rf_err_t rf_lib_block(const lib_wait_t *wait, uint64_t deadline_ns)
{
    if (!rf_me.blocked) rf_me.news_tried = rf_me.news; /* nobody else is there to be asked */
    if (wait->ready(wait->context)) return RF_OK;
    if (deadline_ns != RF_NEVER && rf_clock_ns() >= deadline_ns) {
        rf_lib_loop_look();
        return wait->ready(wait->context) ? RF_OK : RF_ERR_TIMEOUT;
    }
    return block(wait, deadline_ns) ? RF_OK : RF_ERR_TIMEOUT;
}

void rf_lib_threads_start(void)
{
    rf_thread_t *first = &rf_me.first_thread;
    memset(first, 0, sizeof *first);
    first->state = LIB_THREAD_RUNNING;
    rf_lib_context_adopt(&first->context);
    rf_me.current = first;
    rf_me.n_threads = 1;
}

void rf_lib_threads_stop(void)
{
    reap_dead();
    rf_thread_t *next;
    for (rf_thread_t *thread = rf_me.ready_first; thread; thread = next) {
        next = thread->next;
        thread_unmap(thread);
    }
    for (rf_thread_t *thread = rf_me.blocked; thread; thread = next) {
        next = thread->blocked_next;
        thread_unmap(thread);
    }
    rf_me.ready_first = rf_me.ready_last = rf_me.blocked = NULL;
    rf_lib_context_free(&rf_me.first_thread.context);
}

/* ---- life of a thread ---- */

static void thread_main(void)
{
    rf_thread_t *self = rf_me.current;
    rf_lib_context_entered(&self->context);
    reap_dead();
    self->result = self->function(self->argument);
    self->state = LIB_THREAD_ENDED;
    if (self->joiner && self->joiner->state == LIB_THREAD_BLOCKED) rf_lib_make_ready(self->joiner);
    if (self->detached) rf_me.dead = self;
    rf_lib_schedule();
    abort(); /* nobody switches to an ended thread */
}

rf_err_t rf_thread_create(void *(*function)(void *), void *argument, size_t stack_bytes, rf_thread_t **out)
{
    if (!rf_me.up) return rf_lib_fail(RF_ERR_NO_MACHINE, "rf_thread_create: call rf_init() first");
    if (stack_bytes == 0) stack_bytes = RF_THREAD_STACK_DEFAULT;
    if (!function || stack_bytes < RF_THREAD_STACK_MIN || stack_bytes > RF_THREAD_STACK_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "rf_thread_create: a stack has %u to %u bytes",
                           RF_THREAD_STACK_MIN, RF_THREAD_STACK_MAX);
    if (rf_me.n_threads == RF_THREADS_MAX)
        return rf_lib_fail(RF_ERR_LIMIT, "%d threads exist already: join or detach some", RF_THREADS_MAX);
    stack_bytes = (stack_bytes + RF_PAGE - 1) & ~(size_t)(RF_PAGE - 1);
    rf_thread_t *thread = calloc(1, sizeof *thread);
    if (!thread) return RF_ERR_NO_MEMORY;
    void *map = mmap(NULL, stack_bytes + GUARD_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED) goto free_thread;
    if (mprotect(map, GUARD_BYTES, PROT_NONE) != 0) goto unmap;
    if (rf_lib_context_make(&thread->context, (char *)map + GUARD_BYTES, stack_bytes, thread_main) != 0)
        goto unmap;
    thread->function = function;
    thread->argument = argument;
    thread->stack = map;
    thread->stack_bytes = stack_bytes;
    rf_me.n_threads++;
    rf_lib_make_ready(thread);
    *out = thread;
    return RF_OK;
unmap:
    munmap(map, stack_bytes + GUARD_BYTES);
free_thread:
    free(thread);
    return RF_ERR_NO_MEMORY;
}

rf_err_t rf_thread_join(rf_thread_t *thread, void **result, uint64_t deadline_ns)
{
    if (thread == rf_me.current || thread == &rf_me.first_thread || thread->joiner || thread->detached)
        return rf_lib_fail(RF_ERR_INVALID, "rf_thread_join: itself, detached, or being joined by another");
    if (thread->state != LIB_THREAD_ENDED) {
        thread->joiner = rf_me.current;
        bool woken = block(NULL, deadline_ns);
        thread->joiner = NULL;
        if (!woken && thread->state != LIB_THREAD_ENDED) return RF_ERR_TIMEOUT;
    }
    if (result) *result = thread->result;
    thread_unmap(thread);
    return RF_OK;
}

void rf_thread_detach(rf_thread_t *thread)
{
    if (thread->state == LIB_THREAD_ENDED)
        thread_unmap(thread);
    else
        thread->detached = true;
}

void rf_thread_yield(void)
{
    rf_lib_loop_look();
    if (!rf_me.ready_first) return;
    rf_lib_make_ready(rf_me.current);
    rf_lib_schedule();
}

void rf_thread_sleep(uint64_t until_ns)
{
    block(NULL, until_ns);
}

rf_thread_t *rf_thread_current(void)
{
    return rf_me.current;
}

/* ---- mutex and condition ----
 *
 * Their queues are linked by `queued_next`, not by the ready queue's `next`: a thread whose deadline passed is made ready by the
 * loop while it is still in such a queue, and takes itself out when it runs.
 */

static void queue_append(rf_thread_t **first, rf_thread_t **last, rf_thread_t *thread)
{
    thread->queued_next = NULL;
    if (*last)
        (*last)->queued_next = thread;
    else
        *first = thread;
    *last = thread;
}

static void queue_remove(rf_thread_t **first, rf_thread_t **last, rf_thread_t *thread)
{
    rf_thread_t *previous = NULL;
    for (rf_thread_t *at = *first; at; previous = at, at = at->queued_next) {
        if (at != thread) continue;
        if (previous)
            previous->queued_next = at->queued_next;
        else
            *first = at->queued_next;
        if (*last == at) *last = previous;
        return;
    }
}

/* The first that is still waiting, taken out of the queue; those whose deadline has passed are skipped. */
static rf_thread_t *queue_take(rf_thread_t **first, rf_thread_t **last)
{
    rf_thread_t *thread = *first;
    while (thread && thread->state != LIB_THREAD_BLOCKED) thread = thread->queued_next;
    if (thread) queue_remove(first, last, thread);
    return thread;
}

rf_err_t rf_mutex_lock(rf_mutex_t *mutex, uint64_t deadline_ns)
{
    rf_thread_t *self = rf_me.current;
    if (mutex->owner == self)
        return rf_lib_fail(RF_ERR_INVALID, "rf_mutex_lock: the caller holds it already");
    if (!mutex->owner) {
        mutex->owner = self;
        return RF_OK;
    }
    queue_append(&mutex->first, &mutex->last, self);
    block(NULL, deadline_ns);
    if (mutex->owner == self) return RF_OK; /* unlock() passed it on */
    queue_remove(&mutex->first, &mutex->last, self);
    return RF_ERR_TIMEOUT;
}

rf_err_t rf_mutex_try_lock(rf_mutex_t *mutex)
{
    if (mutex->owner) return RF_ERR_BUSY;
    mutex->owner = rf_me.current;
    return RF_OK;
}

rf_err_t rf_mutex_unlock(rf_mutex_t *mutex)
{
    if (mutex->owner != rf_me.current)
        return rf_lib_fail(RF_ERR_PERMISSION, "rf_mutex_unlock: the caller does not hold it");
    mutex->owner = queue_take(&mutex->first, &mutex->last);
    if (mutex->owner) rf_lib_make_ready(mutex->owner);
    return RF_OK;
}

rf_err_t rf_condition_wait(rf_condition_t *condition, rf_mutex_t *mutex, uint64_t deadline_ns)
{
    rf_err_t err = rf_mutex_unlock(mutex);
    if (err != RF_OK) return err;
    rf_thread_t *self = rf_me.current;
    queue_append(&condition->first, &condition->last, self);
    self->woken = false;
    block(NULL, deadline_ns);
    if (!self->woken) {
        queue_remove(&condition->first, &condition->last, self);
        err = RF_ERR_TIMEOUT;
    }
    (void)rf_mutex_lock(mutex, RF_NEVER); /* can only succeed: the caller does not hold it */
    return err;
}

static bool wake_one(rf_condition_t *condition)
{
    rf_thread_t *thread = queue_take(&condition->first, &condition->last);
    if (!thread) return false;
    thread->woken = true;
    rf_lib_make_ready(thread);
    return true;
}

void rf_condition_signal(rf_condition_t *condition)
{
    wake_one(condition);
}

void rf_condition_broadcast(rf_condition_t *condition)
{
    while (wake_one(condition)) continue;
}
