/*
 * The dispatcher's loop: what runs when no thread can.
 *
 *   look    take what arrived on the kernel and the client link, look at descriptors where the lookout says so, and
 *           evaluate the predicates of blocked threads
 *   poll    the same for about the cost of a wake-up; not at all where a peer shares this CPU, or when everybody waits for the CPU
 *           driver or the monitor, which do
 *   block   unless asking the predicates brought news (internal.h): arm the links that matter, one fence, one more look, one
 *           futex wait
 *
 * A link is armed only if something that arrives on it would make a predicate true; else what lies unread in it would keep the
 * process awake.
 */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* How often descriptors are seen to while the dispatcher is too busy to block: with network channels, and without. */
#define LOOK_NETWORK_US 10
#define LOOK_LOCAL_US   500

#define POLLS_PER_LOOK   16 /* predicates are evaluated this often between two looks at everything else */
#define FALSE_ALARMS_MAX 64 /* so many times a link was "ready", or there was news, and nobody helped: rest */
#define EPOLL_BATCH      32

static char reason[256];

rf_err_t rf_lib_fail(rf_err_t err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    return err;
}

const char *rf_reason(void)
{
    return reason;
}

/* ---- descriptors ---- */

rf_err_t rf_lib_watch_endpoint(lib_watch_t *watch, rf_endpoint_t *endpoint)
{
    watch->kind = LIB_WATCH_ENDPOINT;
    watch->endpoint = endpoint;
    watch->fd = endpoint->transport->endpoint_fd(endpoint);
    watch->next_ns = 0; /* ask it at once */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};
    if (watch->fd >= 0 && epoll_ctl(rf_me.epoll, EPOLL_CTL_ADD, watch->fd, &event) != 0)
        return rf_lib_fail(RF_ERR_OS, "epoll_ctl: %s", strerror(errno));
    watch->next = rf_me.endpoints;
    rf_me.endpoints = watch;
    return RF_OK;
}

void rf_lib_unwatch_endpoint(lib_watch_t *watch)
{
    for (lib_watch_t **at = &rf_me.endpoints; *at; at = &(*at)->next) {
        if (*at != watch) continue;
        *at = watch->next;
        if (watch->fd >= 0) epoll_ctl(rf_me.epoll, EPOLL_CTL_DEL, watch->fd, NULL);
        break;
    }
    watch->endpoint = NULL;
}

static void progress(lib_watch_t *watch, uint64_t now_ns)
{
    uint64_t next_ns = RF_NEVER;
    watch->endpoint->transport->endpoint_progress(watch->endpoint, now_ns, &next_ns);
    watch->next_ns = next_ns;
}

void rf_lib_look_at_descriptors(void)
{
    rf_me.looked = true;
    rf_me.looked_ticks = rf_clock_ticks();
    if (rf_me.epoll < 0) return;
    struct epoll_event events[EPOLL_BATCH];
    int n = epoll_wait(rf_me.epoll, events, EPOLL_BATCH, 0);
    uint64_t now_ns = n > 0 ? rf_clock_ns() : 0;
    for (int i = 0; i < n; i++) {
        lib_watch_t *watch = events[i].data.ptr;
        if (watch->kind == LIB_WATCH_FD) {
            watch->fired |= events[i].events; /* one-shot: quiet until armed again */
            rf_me.news++;
        } else {
            progress(watch, now_ns);
        }
    }
}

/* Endpoints that asked to be called by a time. Callbacks only mark channels, so the list stays as it is meanwhile. */
static void run_endpoint_timers(void)
{
    uint64_t first_ns = RF_NEVER;
    for (lib_watch_t *watch = rf_me.endpoints; watch; watch = watch->next)
        if (watch->next_ns < first_ns) first_ns = watch->next_ns;
    if (first_ns == RF_NEVER) return;
    uint64_t now_ns = rf_clock_ns();
    if (now_ns < first_ns) return;
    for (lib_watch_t *watch = rf_me.endpoints; watch; watch = watch->next)
        if (watch->next_ns <= now_ns) progress(watch, now_ns);
}

/* ---- looking ---- */

static bool look_is_due(void)
{
    bool network = rf_me.endpoints && rf_me.endpoints->next;
    uint64_t us = network ? LOOK_NETWORK_US : LOOK_LOCAL_US;
    return rf_clock_ticks() - rf_me.looked_ticks > us * rf_clock_ticks_per_us();
}

void rf_lib_service(void)
{
    rf_lib_servers_poll();
    if ((rf_lib_lookout_fired() && !rf_me.looked) || look_is_due()) rf_lib_look_at_descriptors();
    run_endpoint_timers();
    rf_lib_connect_service();
}

/* Makes every blocked thread ready that can go on. */
static void try_blocked(void)
{
    rf_me.news_tried = rf_me.news;
    for (rf_thread_t *thread = rf_me.blocked, *next; thread; thread = next) {
        next = thread->blocked_next;
        if (thread->wait && thread->wait->ready(thread->wait->context)) rf_lib_make_ready(thread);
    }
}

static void expire_blocked(void)
{
    uint64_t now_ns = 0;
    for (rf_thread_t *thread = rf_me.blocked, *next; thread; thread = next) {
        next = thread->blocked_next;
        if (thread->deadline_ns == RF_NEVER) continue;
        if (now_ns == 0) now_ns = rf_clock_ns();
        if (now_ns < thread->deadline_ns) continue;
        thread->timed_out = true;
        rf_lib_make_ready(thread);
    }
}

void rf_lib_loop_look(void)
{
    rf_lib_service();
    try_blocked();
    expire_blocked();
}

/* ---- polling and blocking ---- */

static void arm_add(lib_arm_t *arm, rf_link_t *link)
{
    if (arm->n < LIB_LINKS_MAX) arm->links[arm->n++] = link;
}

/* What blocked threads wait for: links, times, and whether polling is of any use. */
static void gather(lib_arm_t *arm)
{
    arm->n = 0;
    arm->round++;
    arm->poll = arm->never_poll = false;
    arm->wake_ns = RF_NEVER;
    if (rf_me.kernel.port.link) arm_add(arm, rf_me.kernel.port.link);
    if (rf_me.client.port.link) arm_add(arm, rf_me.client.port.link);
    for (rf_thread_t *thread = rf_me.blocked; thread; thread = thread->blocked_next) {
        if (thread->deadline_ns < arm->wake_ns) arm->wake_ns = thread->deadline_ns;
        if (thread->wait && thread->wait->arm) thread->wait->arm(thread->wait->context, arm);
    }
    for (lib_watch_t *watch = rf_me.endpoints; watch; watch = watch->next)
        if (watch->next_ns < arm->wake_ns) arm->wake_ns = watch->next_ns;
}

/* Polls for the budget; true when a thread became ready. */
static bool poll_a_while(void)
{
    uint64_t start = rf_clock_ticks(), budget = rf_me.wait.budget_us * rf_clock_ticks_per_us();
    do {
        for (unsigned i = 0; i < POLLS_PER_LOOK && !rf_me.ready_first; i++) try_blocked();
        if (!rf_me.ready_first) rf_lib_service();
        if (rf_me.ready_first) {
            rf_wait_adapt(&rf_me.wait, true);
            return true;
        }
    } while (rf_clock_ticks() - start < budget);
    rf_wait_adapt(&rf_me.wait, false);
    return false;
}

void rf_lib_loop_wait(void)
{
    unsigned false_alarms = 0;
    bool polled = false;
    /* A thread that blocks alone has just tried; the links it does not wait for are looked at when arming finds them ready. Not so
     * one that is alone because another has ended: that may have closed what it waits for. */
    bool look = rf_me.blocked != rf_me.current || rf_me.blocked->blocked_next;
    for (;; look = true) {
        if (look) rf_lib_loop_look();
        if (rf_me.ready_first) return;
        bool restless = rf_me.news != rf_me.news_tried;
        if (restless && ++false_alarms < FALSE_ALARMS_MAX) continue;
        lib_arm_t *arm = &rf_me.arm;
        gather(arm);
        if (arm->poll && !arm->never_poll && !polled && rf_me.wait.budget_us > 0) {
            polled = true;
            if (poll_a_while()) return;
            continue; /* what is waited for may have changed */
        }
        rf_lib_lookout_arm();
        rf_me.looked = false;
        uint32_t value = rf_doorbell_value(&rf_me.doorbell);
        if (rf_lib_lookout_fired()) continue; /* it rings after that, so from here on the value changes */
        if (restless || !rf_wait_arm_all(arm->links, arm->n)) {
            if (!restless && ++false_alarms < FALSE_ALARMS_MAX) continue;
            /* Something is to be done that polling a link does not do. */
            rf_lib_look_at_descriptors();
            arm->n = 0;
            rf_lib_arm_nap(arm);
        }
        rf_err_t err = rf_doorbell_wait(&rf_me.doorbell, value, arm->wake_ns);
        rf_wait_disarm_all(arm->links, arm->n);
        polled = false;
        false_alarms = 0;
        if (err == RF_OK) try_blocked(); /* the usual case first; a time that has come wants the whole look */
    }
}
