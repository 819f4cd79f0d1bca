#include "cpudriver/objects.h"

#include "base/clock.h"
#include "cpudriver/kernel_link.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

static void timers_find_next(rf_dispatcher_t *d)
{
    d->timers_next_ns = RF_NEVER;
    for (size_t i = 0; i < RF_KERNEL_TIMERS_MAX; i++) {
        if (d->timers[i].deadline_ns < d->timers_next_ns) d->timers_next_ns = d->timers[i].deadline_ns;
    }
}

void rf_timer_set(rf_cpudriver_t *driver, rf_dispatcher_t *d, const rf_kernel_timer_t *timer)
{
    d->timers[timer->id] = (rf_timer_t){.deadline_ns = timer->deadline_ns, .period_ns = timer->period_ns};
    timers_find_next(d);
    rf_core_wake_at(driver, d->timers_next_ns);
}

void rf_timer_cancel(rf_dispatcher_t *d, uint32_t id)
{
    d->timers[id] = (rf_timer_t){.deadline_ns = RF_NEVER};
    timers_find_next(d);
}

void rf_timers_clear(rf_dispatcher_t *d)
{
    for (size_t i = 0; i < RF_KERNEL_TIMERS_MAX; i++) d->timers[i] = (rf_timer_t){.deadline_ns = RF_NEVER};
    d->timers_next_ns = RF_NEVER;
}

static void timers_run(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint64_t now_ns)
{
    if (d->timers_next_ns <= now_ns) {
        for (size_t i = 0; i < RF_KERNEL_TIMERS_MAX; i++) {
            rf_timer_t *timer = &d->timers[i];
            if (timer->deadline_ns > now_ns) continue;
            uint64_t times = timer->period_ns ? (now_ns - timer->deadline_ns) / timer->period_ns + 1 : 1;
            timer->expirations += times;
            timer->deadline_ns = timer->period_ns ? timer->deadline_ns + times * timer->period_ns : RF_NEVER;
        }
        timers_find_next(d);
        d->events_due = true;
    }
    rf_core_wake_at(driver, d->timers_next_ns);
}

void rf_timers_run(rf_cpudriver_t *driver)
{
    const uint64_t now_ns = rf_clock_ns();
    timers_run(driver, &driver->monitor, now_ns);
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        if (driver->dispatchers[i].link) timers_run(driver, &driver->dispatchers[i], now_ns);
    }
}

rf_err_t rf_watch_check(int fd)
{
    static const char *const known[] = {"anon_inode:[eventfd]", "anon_inode:[timerfd]", "anon_inode:inotify",
                                        "anon_inode:[pidfd]", "pidfd:"};
    struct stat st;
    if (fstat(fd, &st) < 0) return RF_ERR_INVALID;
    if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || S_ISCHR(st.st_mode)) return RF_OK;
    char path[32], target[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) return RF_ERR_INVALID;
    target[length] = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(target, known[i], strlen(known[i])) == 0) return RF_OK;
    }
    return RF_ERR_INVALID;
}

static void on_watched(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    rf_watch_t *watch = (rf_watch_t *)((char *)source - offsetof(rf_watch_t, source));
    (void)driver;
    watch->fired |= events;
    source->dispatcher->events_due = true;
}

rf_err_t rf_watch_add(rf_cpudriver_t *driver, rf_dispatcher_t *d, const rf_kernel_watch_t *watch, int fd)
{
    rf_watch_t *place = &d->watches[watch->id];
    rf_watch_remove(driver, d, watch->id);
    return rf_source_open(driver, &place->source, fd, watch->events | EPOLLONESHOT, on_watched, d);
}

rf_err_t rf_watch_rearm(rf_cpudriver_t *driver, rf_dispatcher_t *d, const rf_kernel_watch_t *watch)
{
    return rf_source_rearm(driver, &d->watches[watch->id].source, watch->events | EPOLLONESHOT);
}

void rf_watch_remove(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint32_t id)
{
    rf_source_close(driver, &d->watches[id].source);
    d->watches[id].fired = 0;
}

void rf_watches_clear(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    for (uint32_t i = 0; i < RF_KERNEL_WATCHES_MAX; i++) rf_watch_remove(driver, d, i);
}

static rf_err_t tell(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint16_t op, const void *body, size_t size)
{
    return rf_kernel_link_send(driver, d, RF_KERNEL_EVENT, (rf_wire_header_t){.op = op}, body, size);
}

void rf_objects_tell(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    for (uint32_t i = 0; i < RF_KERNEL_TIMERS_MAX; i++) {
        rf_kernel_timer_event_t event = {.id = i, .expirations = d->timers[i].expirations};
        if (event.expirations == 0) continue;
        if (tell(driver, d, RF_KERNEL_EVENT_TIMER, &event, sizeof event) != RF_OK) return;
        d->timers[i].expirations = 0;
    }
    for (uint32_t i = 0; i < RF_KERNEL_WATCHES_MAX; i++) {
        rf_kernel_watch_t event = {.id = i, .events = d->watches[i].fired};
        if (event.events == 0) continue;
        if (tell(driver, d, RF_KERNEL_EVENT_FD, &event, sizeof event) != RF_OK) return;
        d->watches[i].fired = 0;
    }
    while (d->signals_pending) {
        unsigned bit = (unsigned)__builtin_ctzll(d->signals_pending);
        rf_kernel_signal_event_t event = {.signo = bit + 1};
        if (tell(driver, d, RF_KERNEL_EVENT_SIGNAL, &event, sizeof event) != RF_OK) return;
        d->signals_pending &= ~(1ull << bit);
    }
    d->events_due = false;
}
