#include "transport/dpdk/driver/loop.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/wait.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLEEP_BLIND_NS (100 * RF_NS_PER_US)
#define LOOK_NS        (50 * RF_NS_PER_US) /* between two looks at what is not on the path of slots, while busy */
#define LINK_LOOK_NS   RF_NS_PER_S
#define WOKE_NS                                                                                              \
    (2 * RF_NS_PER_US) /* after so long without anything it yields to a process that it has woken, ... */
#define YIELD_NS   (10 * RF_NS_PER_US)  /* ... and to anybody each time so much later */
#define AWAY_NS    RF_NS_PER_MS         /* a yield that took longer gave somebody a time slice: ... */
#define CROWDED_NS (100 * RF_NS_PER_MS) /* ... for so long it sleeps rather than yield */
#define EVENTS_MAX 8
#define PASSES                                                                                               \
    4 /* while nothing moves the time is asked for in every so many: asking takes a third of a pass */
#define TICK_SHIFT 24
#define PROCESSES  (1ull << 32) /* in an event's data: the processes' descriptor, not the port's */

struct loop {
    port_t *port;
    server_t *server;
    int epoll;
    bool blind; /* the port does not say when packets come */
    bool up;
    rf_wait_t wait;
    uint64_t moved_ns;   /* the last time that something did; 0: just now */
    uint64_t yield_ns;   /* while nothing moves: when to yield next */
    uint64_t crowded_ns; /* until then others want its CPU */
    uint64_t look_ns, link_ns, next_ns;
    unsigned passes;                 /* since the time was asked for */
    uint64_t now_ns;                 /* as loop_now() said last */
    uint64_t ticks, ticks_ns;        /* of one moment */
    uint64_t ticks_max, ns_per_tick; /* of LOOK_NS; times 2^TICK_SHIFT */
};

static rf_err_t loop_watch(loop_t *loop, int fd, bool processes)
{
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = (uint64_t)(uint32_t)fd | (processes ? PROCESSES : 0)};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? RF_OK : RF_ERR_OS;
}

rf_err_t loop_open(port_t *port, server_t *server, loop_t **out)
{
    int fds[PORT_FDS_MAX], rung = server_fd(server);
    loop_t *loop = calloc(1, sizeof *loop);
    if (!loop) return RF_ERR_NO_MEMORY;
    *loop = (loop_t){.port = port, .server = server, .up = true, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    unsigned n = port_fds(port, fds);
    loop->blind = n == 0;
    rf_wait_init(&loop->wait, RF_POLL_BUDGET_US_MAX);
    loop->ticks_max = rf_clock_ticks_per_us() * (LOOK_NS / RF_NS_PER_US);
    loop->ns_per_tick = (RF_NS_PER_US << TICK_SHIFT) / rf_clock_ticks_per_us();
    loop->ticks = rf_clock_ticks() - loop->ticks_max - 1; /* the first look at the time asks the kernel */
    rf_err_t err = loop->epoll < 0 ? RF_ERR_OS : RF_OK;
    if (err == RF_OK && rung >= 0) err = loop_watch(loop, rung, true);
    for (unsigned i = 0; i < n && err == RF_OK; i++) err = loop_watch(loop, fds[i], false);
    if (err != RF_OK) {
        loop_close(loop);
        return err;
    }
    *out = loop;
    return RF_OK;
}

void loop_close(loop_t *loop)
{
    if (loop->epoll >= 0) close(loop->epoll);
    free(loop);
}

bool loop_is_blind(const loop_t *loop)
{
    return loop->blind;
}

static void link_look(loop_t *loop, uint64_t now_ns)
{
    port_stats_t stats;
    port_stats(loop->port, &stats);
    loop->link_ns = now_ns + LINK_LOOK_NS;
    if (stats.up == loop->up) return;
    loop->up = stats.up;
    rf_log(loop->up ? RF_LOG_INFO : RF_LOG_WARN, "the port's link is %s", loop->up ? "up again" : "down");
}

/* The time, from the CPU's counter: by the kernel's clock it is set right in each look, so that an error does not grow. It never runs
 * backwards. */
static uint64_t loop_now(loop_t *loop)
{
    uint64_t ticks = rf_clock_ticks() - loop->ticks;
    if (rf_unlikely(ticks > loop->ticks_max)) { /* or below 0: on another CPU, whose counter is behind */
        uint64_t ns = rf_clock_ns();
        loop->ticks = rf_clock_ticks();
        loop->ticks_ns = ns > loop->now_ns ? ns : loop->now_ns;
        ticks = 0;
    }
    uint64_t ns = loop->ticks_ns + (ticks * loop->ns_per_tick >> TICK_SHIFT);
    if (ns > loop->now_ns) loop->now_ns = ns;
    return loop->now_ns;
}

/* The time of a pass; while nothing moves, of one of the last few. */
static uint64_t pass_now(loop_t *loop)
{
    if (loop->moved_ns != 0 && ++loop->passes < PASSES) return loop->now_ns;
    loop->passes = 0;
    return loop_now(loop);
}

/* What is not on the path of slots. */
static void look(loop_t *loop, uint64_t now_ns)
{
    server_progress(loop->server, now_ns, &loop->next_ns);
    loop->look_ns = now_ns + LOOK_NS;
    if (now_ns >= loop->link_ns) link_look(loop, now_ns);
}

/* True: something moved. */
static bool turn(loop_t *loop, uint64_t now_ns)
{
    server_turn(loop->server, now_ns);
    bool moved = port_rx(loop->port, server_packet, loop->server) > 0;
    moved |= server_pass(loop->server);
    moved |= !port_tx_flush(loop->port, now_ns);
    return moved;
}

/* True: a process rang, or may have. */
static bool sleep_until(loop_t *loop, uint64_t now_ns, uint64_t at_ns)
{
    struct epoll_event events[EVENTS_MAX];
    struct timespec left;
    if (loop->blind && at_ns > now_ns + SLEEP_BLIND_NS) at_ns = now_ns + SLEEP_BLIND_NS;
    uint64_t ns = at_ns > now_ns ? at_ns - now_ns : 0;
    left = (struct timespec){.tv_sec = (time_t)(ns / RF_NS_PER_S), .tv_nsec = (long)(ns % RF_NS_PER_S)};
    int n = epoll_pwait2(loop->epoll, events, EVENTS_MAX, at_ns == RF_NEVER ? NULL : &left, NULL), error;
    bool rang = false;
    for (int i = 0; i < n; i++) {
        rang |= (events[i].data.u64 & PROCESSES) != 0;
        /* An error that nobody reads (the port's interface went down) would not let it sleep again. */
        if (events[i].events & EPOLLERR)
            getsockopt(events[i].data.fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
    }
    return rang;
}

/* Sleeps, unless something has come meanwhile. */
static void rest(loop_t *loop, uint64_t now_ns)
{
    uint64_t at_ns = loop->next_ns;
    bool rang = false, idle = server_arm(loop->server, &at_ns);
    port_arm(loop->port);
    if (idle && port_rx(loop->port, server_packet, loop->server) == 0)
        rang = sleep_until(loop, now_ns, at_ns);
    port_disarm(loop->port);
    server_disarm(loop->server);
    now_ns = loop_now(loop);
    if (rang || now_ns >= loop->next_ns || now_ns >= loop->link_ns)
        look(loop, now_ns);
    else
        loop->look_ns = now_ns + LOOK_NS;
}

/* Others may run. One that only computes takes a whole time slice of that, where one that sleeps comes back with what it waits for. */
static void yield(loop_t *loop)
{
    uint64_t before_ns = loop_now(loop);
    sched_yield();
    uint64_t now_ns = loop_now(loop);
    if (now_ns - before_ns >= AWAY_NS) loop->crowded_ns = now_ns + CROWDED_NS;
    loop->yield_ns = now_ns + YIELD_NS;
}

/* How long it polls for what comes next. */
static uint64_t patience_ns(const loop_t *loop, uint64_t now_ns)
{
    uint64_t budget_ns = loop->wait.budget_us * RF_NS_PER_US;
    return now_ns < loop->crowded_ns && WOKE_NS < budget_ns ? WOKE_NS : budget_ns;
}

void loop_run(loop_t *loop, const volatile sig_atomic_t *stopping)
{
    while (!*stopping) {
        uint64_t now_ns = pass_now(loop);
        if (now_ns >= loop->look_ns) look(loop, now_ns);
        if (turn(loop, now_ns)) {
            if (loop->moved_ns) rf_wait_adapt(&loop->wait, true);
            loop->moved_ns = 0;
            continue;
        }
        if (loop->moved_ns == 0) {
            loop->moved_ns = now_ns;
            loop->yield_ns = now_ns + WOKE_NS;
        }
        uint64_t idle_ns = now_ns - loop->moved_ns;
        if (idle_ns >= patience_ns(loop, now_ns)) {
            rf_wait_adapt(&loop->wait, false);
            rest(loop, now_ns);
        } else if (now_ns >= loop->yield_ns) {
            loop->yield_ns = now_ns + YIELD_NS;
            if (idle_ns >= YIELD_NS || server_woke(loop->server)) yield(loop);
        } else if (idle_ns >= WOKE_NS) {
            rf_cpu_pause(); /* nobody answers as soon as that: the core's other thread may have it */
        }
    }
}
