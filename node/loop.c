#include "node/loop.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

rf_err_t rf_loop_init(rf_loop_t *loop)
{
    memset(loop, 0, sizeof *loop);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->epoll_fd >= 0 ? RF_OK : RF_ERR_OS;
}

static void collect_garbage(rf_loop_t *loop)
{
    while (loop->garbage) {
        rf_garbage_t *object = loop->garbage;
        loop->garbage = object->next;
        free(object);
    }
}

void rf_loop_finish(rf_loop_t *loop)
{
    collect_garbage(loop);
    close(loop->epoll_fd);
    loop->epoll_fd = -1;
}

rf_err_t rf_loop_add(rf_loop_t *loop, rf_source_t *source, int fd, uint32_t events, rf_source_fn fn,
                     void *context)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) return RF_ERR_OS;
    *source = (rf_source_t){.fd = fd, .events = events, .fn = fn, .context = context, .active = true};
    return RF_OK;
}

void rf_loop_modify(rf_loop_t *loop, rf_source_t *source, uint32_t events)
{
    if (!source->active || source->events == events) return;
    struct epoll_event event = {.events = events, .data.ptr = source};
    int failed = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
    rf_assert(!failed);
    source->events = events;
}

void rf_loop_remove(rf_loop_t *loop, rf_source_t *source)
{
    if (!source->active) return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->active = false;
    for (int i = loop->batch_at; i < loop->batch_size; i++) {
        if (loop->batch[i].data.ptr == source) loop->batch[i].data.ptr = NULL;
    }
}

void rf_timer_clear(rf_timer_t *timer)
{
    if (!timer->link) return;
    *timer->link = timer->next;
    if (timer->next) timer->next->link = timer->link;
    timer->link = NULL;
    timer->next = NULL;
}

void rf_timer_set(rf_loop_t *loop, rf_timer_t *timer, uint64_t deadline_ns, rf_timer_fn fn, void *context)
{
    rf_timer_clear(timer);
    timer->deadline_ns = deadline_ns;
    timer->fn = fn;
    timer->context = context;
    rf_timer_t **at = &loop->timers;
    while (*at && (*at)->deadline_ns <= deadline_ns) at = &(*at)->next;
    timer->next = *at;
    timer->link = at;
    if (timer->next) timer->next->link = &timer->next;
    *at = timer;
}

void rf_loop_free_later(rf_loop_t *loop, rf_garbage_t *object)
{
    object->next = loop->garbage;
    loop->garbage = object;
}

/* Fires what is due now; timers set meanwhile wait for the next turn, so that none can keep the loop here. */
static void fire_timers(rf_loop_t *loop)
{
    uint64_t now = rf_clock_ns();
    for (unsigned budget = 1024; budget > 0 && loop->timers && loop->timers->deadline_ns <= now; budget--) {
        rf_timer_t *timer = loop->timers;
        rf_timer_clear(timer);
        timer->fn(timer->context);
    }
}

void rf_loop_turn(rf_loop_t *loop, uint64_t limit_ns)
{
    uint64_t until =
        loop->timers && loop->timers->deadline_ns < limit_ns ? loop->timers->deadline_ns : limit_ns;
    int timeout_ms = -1;
    if (until != RF_NEVER) {
        uint64_t now = rf_clock_ns();
        uint64_t wait_ms = until <= now ? 0 : (until - now + RF_NS_PER_MS - 1) / RF_NS_PER_MS;
        timeout_ms = wait_ms > 3600000 ? 3600000 : (int)wait_ms;
    }
    int n = epoll_wait(loop->epoll_fd, loop->batch, RF_LOOP_EVENTS_MAX, timeout_ms);
    loop->batch_size = n > 0 ? n : 0;
    for (loop->batch_at = 0; loop->batch_at < loop->batch_size;) {
        struct epoll_event *event = &loop->batch[loop->batch_at++];
        rf_source_t *source = event->data.ptr;
        if (source) source->fn(source->context, event->events);
    }
    loop->batch_size = 0;
    fire_timers(loop);
    collect_garbage(loop);
}
