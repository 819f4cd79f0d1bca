#include "monitor/shell.h"

#include "base/os.h"
#include "transport/registry.h"
#include "transport/wait.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define EPOLL_EVENTS_MAX 16
#define STEPS_MORE_MAX   1024                /* continuations of one event */
#define BACKLOG_NS       (10 * RF_NS_PER_MS) /* between tries to send what waits for more than a link's room */

static bool conn_is_local(const conn_t *conn)
{
    return (conn->link->transport->flags & RF_TRANSPORT_LOCAL) != 0;
}

uint64_t shell_real_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * RF_NS_PER_S + (uint64_t)t.tv_nsec;
}

void shell_step(shell_t *s, monitor_event_t *event)
{
    for (unsigned i = 0; i < STEPS_MORE_MAX && s->exit_status < 0; i++) {
        event->now_ns = rf_clock_boot_ns();
        event->real_ns = shell_real_ns();
        monitor_step(s->monitor, event, s->output);
        s->tick_ns = s->output->next_tick_ns;
        atomic_store(&s->lease->until_ns, s->output->lease_ns);
        actions_run(s);
        if (!s->output->more) break;
        *event = (monitor_event_t){.kind = MONITOR_TICK};
    }
}

void shell_progress(shell_t *s)
{
    s->shm->endpoint_progress(s->host, rf_clock_ns(), &s->host_next_ns);
    for (unsigned i = 0; i < s->n_networks; i++)
        s->networks[i].transport->endpoint_progress(s->networks[i].endpoint, rf_clock_ns(),
                                                    &s->networks[i].next_ns);
}

void shell_tell_arrived(shell_t *s)
{
    while (s->n_arrived > 0 && s->exit_status < 0) {
        arrived_t a = s->arrived[s->arrived_head];
        s->arrived_head = (s->arrived_head + 1) % SHELL_ARRIVED_MAX;
        s->n_arrived--;
        if (!a.conn || a.conn->ended) {
            for (unsigned i = 0; i < a.n_fds; i++) close(a.fds[i]);
            continue;
        }
        monitor_event_t event = {.core = a.conn->core,
                                 .client = a.conn->client,
                                 .bytes = a.bytes,
                                 .size = a.size,
                                 .n_fds = a.n_fds};
        memcpy(event.fds, a.fds, a.n_fds * sizeof *a.fds);
        event.kind = a.conn->kind == CONN_KERNEL ? MONITOR_KERNEL_FDS
                     : a.conn->kind == CONN_PEER ? MONITOR_PEER_FDS
                                                 : MONITOR_CLIENT_FDS;
        shell_step(s, &event);
    }
}

/* Other hosts first: a client or neighbour that is woken may take the CPU at once. */
void shell_flush(shell_t *s)
{
    for (unsigned local = 0; local < 2; local++) {
        for (conn_t *conn = s->conns; conn; conn = conn->next) {
            if (!conn->dirty || conn->ended || local != conn_is_local(conn)) continue;
            conn->dirty = false;
            conn->link->transport->flush(conn->link); /* a dead link reports itself */
        }
    }
    lanes_flush(s);
    if (s->say_ns != RF_NEVER && rf_clock_ns() >= s->say_ns) actions_say(s);
}

/* One turn: everything that is there, of each link a bounded amount. False: there was nothing. */
static bool turn(shell_t *s)
{
    bool any = false;
    shell_progress(s);
    conn_settle(s);
    while (s->exit_status < 0 && watch_settle(s)) any = true;
    shell_tell_arrived(s);
    for (conn_t *conn = s->conns; conn && s->exit_status < 0; conn = conn->next) {
        for (unsigned round = 0; round < SHELL_ROUNDS_MAX && conn_pump(s, conn); round++) any = true;
        if (conn->kept && backlog_drain(conn)) any = true;
    }
    while (s->n_answers > 0 && s->exit_status < 0) {
        actions_tell_answer(s);
        any = true;
    }
    if (s->exit_status < 0 && lanes_settle(s)) any = true;
    if (s->exit_status < 0 && rf_clock_boot_ns() >= s->tick_ns) {
        monitor_event_t event = {.kind = MONITOR_TICK};
        shell_step(s, &event);
        any = true;
    }
    shell_flush(s);
    return any || s->n_answers > 0 || s->n_arrived > 0;
}

static bool anything_to_settle(const shell_t *s)
{
    for (const conn_t *conn = s->conns; conn; conn = conn->next) {
        if (conn->ended || conn->room || conn->broken || (conn->up && !conn->told_up)) return true;
    }
    return false;
}

static bool anything_waits(const shell_t *s)
{
    for (const conn_t *conn = s->conns; conn; conn = conn->next) {
        if (conn->kept) return true;
    }
    return false;
}

static unsigned collect_links(shell_t *s)
{
    if (s->n_conns > s->links_room) {
        unsigned room = s->n_conns * 2;
        rf_link_t **links = realloc(s->links, room * sizeof(rf_link_t *));
        if (!links) return 0;
        s->links = links;
        s->links_room = room;
    }
    unsigned n = 0;
    for (conn_t *conn = s->conns; conn; conn = conn->next) {
        if (conn->told_up && !conn->ended) s->links[n++] = conn->link;
    }
    return n;
}

/* A monitor shares its CPU with whom it serves, so it never polls: it blocks as soon as there is nothing. */
static void block(shell_t *s)
{
    struct epoll_event events[EPOLL_EVENTS_MAX];
    uint64_t now = rf_clock_ns(), boot = rf_clock_boot_ns(), until = s->host_next_ns;
    if (s->tick_ns != RF_NEVER) {
        uint64_t tick = now + (s->tick_ns > boot ? s->tick_ns - boot : 0);
        until = tick < until ? tick : until;
    }
    for (unsigned i = 0; i < s->n_networks; i++)
        until = s->networks[i].next_ns < until ? s->networks[i].next_ns : until;
    uint64_t lanes_ns = lanes_next_ns(s);
    until = lanes_ns < until ? lanes_ns : until;
    until = s->say_ns < until ? s->say_ns : until;
    unsigned n = collect_links(s);
    if (!rf_wait_arm_all(s->links, n)) return;
    if (anything_to_settle(s) ||
        s->n_arrived > 0) { /* a medium may have reported something in the last look */
        rf_wait_disarm_all(s->links, n);
        return;
    }
    now = rf_clock_ns();
    if (anything_waits(s) && now + BACKLOG_NS < until) until = now + BACKLOG_NS;
    uint64_t left = until > now ? until - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / RF_NS_PER_S), .tv_nsec = (long)(left % RF_NS_PER_S)};
    int got = epoll_pwait2(s->epoll, events, EPOLL_EVENTS_MAX, until == RF_NEVER ? NULL : &timeout, NULL);
    rf_wait_disarm_all(s->links, n);
    for (int i = 0; i < got; i++) watch_readable(s, events[i].data.fd);
}

static bool watch(shell_t *s, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return fd >= 0 && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* The user's name, or the number of one that has none. */
static void user_name(uid_t uid, char *out, size_t max)
{
    char buffer[4096];
    struct passwd entry, *found = NULL;
    if (getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found)
        snprintf(out, max, "%s", found->pw_name);
    else
        snprintf(out, max, "%u", (unsigned)uid);
}

/* Links take several descriptors each. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static rf_err_t start_monitor(shell_t *s)
{
    size_t size = monitor_size(s->boot, s->core);
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* 0, untouched */
    if (memory == MAP_FAILED) return RF_ERR_NO_MEMORY;
    s->output = calloc(1, sizeof *s->output);
    s->peers = calloc(s->boot->n_cores, sizeof *s->peers);
    s->lowest = calloc(s->boot->n_cores, sizeof *s->lowest);
    s->watched = calloc(s->boot->n_cores, sizeof *s->watched);
    if (!s->output || !s->peers || !s->lowest || !s->watched) {
        munmap(memory, size);
        return RF_ERR_NO_MEMORY;
    }
    for (rf_core_t core = 0; core < s->boot->n_cores; core++) s->lowest[core] = 1;
    rf_err_t err = monitor_init(memory, size, s->boot, s->core, s->incarnation, s->owner, rf_clock_boot_ns(),
                                &s->monitor);
    if (err != RF_OK) munmap(memory, size);
    return err;
}

static rf_err_t start_links(shell_t *s, int kernel_socket)
{
    char path[RF_ADDRESS_MAX], why[256] = "";
    rf_err_t err = rf_transport_find("shm", &s->shm, why, sizeof why);
    if (err != RF_OK) return err;
    if (snprintf(path, sizeof path, "%s/monitor-%u.sock", s->boot->run_dir, s->core) >= (int)sizeof path) {
        rf_log(RF_LOG_ERROR, "the run directory's path %s is too long; choose a shorter one",
               s->boot->run_dir);
        return RF_ERR_LIMIT;
    }
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0) return RF_ERR_OS;
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR,
                                            .version_minor = RF_VERSION_MINOR,
                                            .kind = RF_ROLE_MONITOR,
                                            .core = s->core,
                                            .incarnation = s->incarnation,
                                            .machine = s->boot->machine},
                                   .on_event = conn_event,
                                   .context = s,
                                   .address = path,
                                   .deadline_ns = 30 * RF_NS_PER_S};
    err = s->shm->endpoint_open(&params, &s->host);
    if (err != RF_OK) return err;
    if (!watch(s, s->shm->endpoint_fd(s->host))) return RF_ERR_OS;
    s->kernel = conn_new(s, CONN_KERNEL);
    if (!s->kernel) return RF_ERR_NO_MEMORY;
    rf_link_params_t link = {.socket = kernel_socket, .slots_max = SHELL_SLOTS_MAX, .user = s->kernel};
    return s->shm->connect(s->host, &link, &s->kernel->link);
}

/* Everything that was said goes out before the links close. */
static void finish(shell_t *s)
{
    shell_flush(s);
    actions_say(s);
    while (s->conns) conn_free(s, s->conns);
    watch_end(s);
    for (unsigned i = 0; i < s->n_networks; i++)
        s->networks[i].transport->endpoint_close(s->networks[i].endpoint);
    if (s->host) s->shm->endpoint_close(s->host);
    if (s->epoll >= 0) close(s->epoll);
    for (unsigned i = 0; i < MONITOR_TRANSFERS_MAX; i++) free(s->transfers[i].bytes);
    if (s->monitor) munmap(s->monitor, monitor_size(s->boot, s->core));
    free(s->output);
    free(s->peers);
    free(s->lowest);
    free(s->lanes);
    free(s->links);
}

int shell_run(const rf_boot_t *boot, rf_core_t core, rf_incarnation_t incarnation, int kernel_socket,
              rf_lease_t *lease)
{
    shell_t *s = calloc(1, sizeof *s);
    if (!s) return MONITOR_EXIT_FAILED;
    s->boot = boot;
    s->core = core;
    s->incarnation = incarnation;
    s->lease = lease;
    s->epoll = -1;
    s->exit_status = -1;
    s->host_next_ns = 0;
    s->say_ns = RF_NEVER;
    user_name(boot->owner_uid, s->owner, sizeof s->owner);
    user_name(geteuid(), s->self_user, sizeof s->self_user);
    raise_descriptor_limit();
    rf_err_t err = start_monitor(s);
    if (err == RF_OK) err = lanes_init(s);
    if (err == RF_OK) err = start_links(s, kernel_socket);
    if (err != RF_OK) {
        rf_log(RF_LOG_ERROR, "cannot start the monitor of core %u: %s", core, rf_err_text(err));
        s->exit_status = MONITOR_EXIT_FAILED;
    } else {
        rf_log(RF_LOG_INFO, "the monitor of core %u is up, incarnation %u", core, incarnation);
    }
    while (s->exit_status < 0) {
        if (!turn(s) && s->exit_status < 0) block(s);
    }
    int status = s->exit_status;
    finish(s);
    free(s);
    return status;
}
