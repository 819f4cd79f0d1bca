#include "cpudriver/core.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "wire/death.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64

static void on_timer(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    uint64_t expirations;
    (void)events;
    if (read(source->fd, &expirations, sizeof expirations) > 0)
        driver->timer_armed_ns = RF_NEVER; /* the verbs look at the clock themselves */
}

rf_err_t rf_core_open(rf_cpudriver_t *driver)
{
    for (size_t i = 0; i <= RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = i == 0 ? &driver->monitor : &driver->dispatchers[i - 1];
        d->exit.fd = d->report.fd = d->socket.fd = d->client_socket = -1;
        d->timers_next_ns = RF_NEVER;
        for (size_t k = 0; k < RF_KERNEL_TIMERS_MAX; k++) d->timers[k].deadline_ns = RF_NEVER;
        for (size_t k = 0; k < RF_KERNEL_WATCHES_MAX; k++) d->watches[k].source.fd = -1;
    }
    driver->timer.fd = driver->signals.fd = driver->endpoint_source.fd = driver->lease_timer.fd = -1;
    driver->cgroup_fd = -1;
    driver->wake_ns = driver->timer_armed_ns = driver->slice_next_ns = RF_NEVER;
    driver->epoll = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (driver->epoll < 0 || timer < 0) {
        rf_log(RF_LOG_ERROR, "no descriptors for the event loop: %s; raise the limit on open files",
               strerror(errno));
        return RF_ERR_OS;
    }
    return rf_source_open(driver, &driver->timer, timer, EPOLLIN, on_timer, NULL);
}

void rf_core_wake_at(rf_cpudriver_t *driver, uint64_t at_ns)
{
    if (at_ns < driver->wake_ns) driver->wake_ns = at_ns;
}

rf_err_t rf_source_open(rf_cpudriver_t *driver, rf_source_t *source, int fd, uint32_t events,
                        void (*on_ready)(rf_cpudriver_t *, rf_source_t *, uint32_t),
                        rf_dispatcher_t *dispatcher)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    rf_assert(source->fd < 0 && fd >= 0);
    if (epoll_ctl(driver->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return RF_ERR_OS;
    }
    *source = (rf_source_t){.on_ready = on_ready, .dispatcher = dispatcher, .fd = fd};
    return RF_OK;
}

rf_err_t rf_source_rearm(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(driver->epoll, EPOLL_CTL_MOD, source->fd, &event) == 0 ? RF_OK : RF_ERR_OS;
}

int rf_source_release(rf_cpudriver_t *driver, rf_source_t *source)
{
    int fd = source->fd;
    if (fd >= 0) {
        /* Explicitly: others may hold the same open file, and then closing ours would leave it in the set. */
        epoll_ctl(driver->epoll, EPOLL_CTL_DEL, fd, NULL);
        source->fd = -1;
    }
    return fd;
}

void rf_source_close(rf_cpudriver_t *driver, rf_source_t *source)
{
    int fd = rf_source_release(driver, source);
    if (fd >= 0) close(fd);
}

static void timer_arm(rf_cpudriver_t *driver)
{
    if (driver->wake_ns == driver->timer_armed_ns) return;
    struct itimerspec spec = {0};
    if (driver->wake_ns != RF_NEVER) {
        spec.it_value.tv_sec = (time_t)(driver->wake_ns / RF_NS_PER_S);
        spec.it_value.tv_nsec = (long)(driver->wake_ns % RF_NS_PER_S);
        if (driver->wake_ns == 0) spec.it_value.tv_nsec = 1; /* zero would disarm */
    }
    if (timerfd_settime(driver->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
        driver->timer_armed_ns = driver->wake_ns;
}

void rf_core_sleep(rf_cpudriver_t *driver, bool more)
{
    struct epoll_event events[EVENTS_PER_TURN];
    if (!more) timer_arm(driver);
    int n = epoll_wait(driver->epoll, events, EVENTS_PER_TURN, more ? 0 : -1);
    for (int i = 0; i < n; i++) {
        rf_source_t *source = events[i].data.ptr;
        if (source->fd >= 0) /* an earlier event of this batch may have closed it */
            source->on_ready(driver, source, events[i].events);
    }
}

void rf_core_step_aside(rf_cpudriver_t *driver)
{
    if (driver->boot->cores[driver->core].cpu_shared) rf_clock_sleep_ms(RF_DEATH_ASIDE_MS);
}

rf_dispatcher_t *rf_core_find(rf_cpudriver_t *driver, rf_domain_t domain, uint16_t index)
{
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        if (d->state != RF_DISPATCHER_FREE && d->domain == domain && d->index == index) return d;
    }
    return NULL;
}

const char *rf_dispatcher_name(const rf_dispatcher_t *dispatcher)
{
    static char name[40];
    if (dispatcher->is_monitor) return "monitor";
    snprintf(name, sizeof name, "domain %llu.%u", (unsigned long long)dispatcher->domain, dispatcher->index);
    return name;
}
