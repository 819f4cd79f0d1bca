#include "cpudriver/dispatcher.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"
#include "cpudriver/init.h"
#include "cpudriver/kernel_link.h"
#include "cpudriver/objects.h"
#include "cpudriver/realtime.h"
#include "cpudriver/scheduler.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define FREEZE_PASSES   8
#define KILL_AGAIN_NS   (50 * RF_NS_PER_MS) /* without a namespace: looks for what is left */
#define KILL_INIT_LOOKS 20                  /* after which rf-init itself is killed */
#define STAT_AGE_NS     (5 * RF_NS_PER_MS)  /* figures may be this old ... */
#define STAT_AGE_COSTS  20                  /* ... or this many times what it took to gather them */
#define SIGNAL_BIT(n)   (1ull << ((n)-1))

/* ---- reports of rf-init ---- */

/* Receives one report with the sender's pid as this namespace sees it. */
static rf_err_t receive_report(int fd, rf_init_report_t *report, pid_t *sender)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {.iov_base = report, .iov_len = sizeof *report};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? RF_ERR_AGAIN : RF_ERR_CLOSED;
    if (got == 0) return RF_ERR_CLOSED;
    *sender = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        struct ucred credentials;
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
            *sender = credentials.pid;
        }
    }
    return got == (ssize_t)sizeof *report ? RF_OK : RF_ERR_PROTOCOL;
}

static void take_report(rf_cpudriver_t *driver, rf_dispatcher_t *d, rf_init_report_t *report, pid_t sender)
{
    switch (report->kind) {
    case RF_INIT_CHILD:
        d->pid = sender;
        break;
    case RF_INIT_STARTED:
        if (d->state != RF_DISPATCHER_STARTING) break;
        d->state = RF_DISPATCHER_RUNNING;
        d->create_err = RF_OK;
        d->created = (rf_kernel_created_t){.pid = d->pid};
        d->created_due = true;
        driver->scheduler->update(driver);
        break;
    case RF_INIT_FAILED: /* the reply comes when it is reaped */
        report->what[sizeof report->what - 1] = 0;
        d->create_err =
            report->err != RF_OK && report->err < RF_ERR_COUNT ? (rf_err_t)report->err : RF_ERR_EXEC;
        d->created = (rf_kernel_created_t){.os_errno = report->os_errno};
        memcpy(d->created.what, report->what, sizeof d->created.what);
        break;
    case RF_INIT_ENDED:
        d->pid = 0;
        d->has_status = true;
        d->exited.wait_status = report->wait_status;
        d->exited.user_us = report->user_us;
        d->exited.system_us = report->system_us;
        d->exited.max_rss_kib = report->max_rss_kib;
        break;
    }
}

static void drain_reports(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    rf_init_report_t report;
    pid_t sender;
    rf_err_t err = RF_OK;
    while (d->report.fd >= 0 && err == RF_OK) {
        err = receive_report(d->report.fd, &report, &sender);
        if (err == RF_OK)
            take_report(driver, d, &report, sender);
        else if (err != RF_ERR_AGAIN)
            rf_source_close(driver, &d->report);
    }
}

static void on_report(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    (void)events;
    drain_reports(driver, source->dispatcher);
}

/* ---- death ---- */

static void monitor_ended(rf_cpudriver_t *driver, int status)
{
    rf_dispatcher_t *d = &driver->monitor;
    d->state = RF_DISPATCHER_FREE;
    d->init_pid = d->pid = 0;
    rf_source_close(driver, &d->exit);
    rf_kernel_link_detach(driver, d);
    if (driver->stopping) return;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        rf_log(RF_LOG_INFO, "the monitor ended in order");
        rf_core_stop(driver, false, RF_CPUDRIVER_EXIT_OK);
        return;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == RF_MONITOR_EXIT_EXPELLED) {
        rf_log(RF_LOG_WARN, "the machine has gone on without this core; it ends");
        rf_core_stop(driver, false, RF_CPUDRIVER_EXIT_EXPELLED);
        return;
    }
    rf_log(RF_LOG_ERROR, "the monitor died (%s %d); this core ends",
           WIFSIGNALED(status) ? "signal" : "status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    rf_core_stop(driver, false, RF_CPUDRIVER_EXIT_MONITOR);
}

static void dispatcher_ended(rf_cpudriver_t *driver, rf_dispatcher_t *d, int status)
{
    drain_reports(driver, d);
    if (d->state == RF_DISPATCHER_STARTING || d->create_err != RF_OK) {
        d->created_due = true; /* it never ran: the creation failed */
        rf_log(RF_LOG_INFO, "%s could not be started: %s%s%s", rf_dispatcher_name(d), d->created.what,
               d->created.what[0] ? ": " : "",
               d->created.os_errno ? strerror((int)d->created.os_errno) : rf_err_text(d->create_err));
    } else {
        d->exited_due = true;
        d->exited.domain = d->domain;
        d->exited.index = d->index;
        if (!d->has_status) /* killed with all of it */
            d->exited.wait_status = WIFSIGNALED(status) ? status : SIGKILL;
    }
    d->state = RF_DISPATCHER_ENDED;
    d->init_pid = d->pid = 0;
    rf_source_close(driver, &d->exit);
    rf_source_close(driver, &d->report);
    rf_kernel_link_detach(driver, d);
    if (driver->isolation.level == RF_ISOLATION_NONE) rf_adopted_end(driver);
    driver->scheduler->remove(driver, d);
    driver->reserved_permille_total -= d->reserved_permille;
    driver->scheduler->update(driver);
}

static void on_exit_of(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    rf_dispatcher_t *d = source->dispatcher;
    int status;
    (void)events;
    if (rf_realtime_reap(driver->realtime, d->init_pid, &status, WNOHANG) != d->init_pid) return;
    if (d->is_monitor)
        monitor_ended(driver, status);
    else
        dispatcher_ended(driver, d, status);
}

rf_err_t rf_dispatcher_adopt(rf_cpudriver_t *driver, rf_dispatcher_t *d, int pidfd, int report)
{
    rf_err_t err = rf_source_open(driver, &d->exit, pidfd, EPOLLIN, on_exit_of, d);
    if (report < 0) return err;
    if (err != RF_OK) {
        close(report);
        return err;
    }
    return rf_source_open(driver, &d->report, report, EPOLLIN, on_report, d);
}

void rf_dispatcher_clear(rf_dispatcher_t *d)
{
    rf_timers_clear(d);
    memset(&d->assembler, 0, offsetof(rf_assembler_t, bytes));
    d->state = RF_DISPATCHER_FREE;
    d->domain = RF_DOMAIN_NONE;
    d->index = 0;
    d->init_pid = d->pid = 0;
    d->tty = d->frozen = d->frozen_with_all = d->stopped_by_scheduler = d->wants = d->joined = false;
    d->kill_again_ns = 0;
    d->kill_looks = 0;
    d->created_due = d->exited_due = d->started_due = d->has_status = d->identified = d->events_due = false;
    d->create_err = RF_OK;
    d->created = (rf_kernel_created_t){0};
    d->exited = (rf_kernel_exited_t){0};
    d->window_started_ns = d->served_ns = d->blocked_until_ns = 0;
    d->ran_ns = d->virtual_ns = d->slice_ns = 0;
    d->stat_ns = d->stat_cost_ns = 0;
    d->reserved_permille = 0;
    d->span_args_size = 0;
}

void rf_dispatchers_scan(rf_cpudriver_t *driver)
{
    pid_t roots[RF_CORE_DISPATCHERS_MAX + 1];
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) roots[i] = driver->dispatchers[i].init_pid;
    roots[RF_CORE_DISPATCHERS_MAX] = driver->monitor.init_pid;
    const uint64_t start_ns = rf_clock_ns();
    rf_processes_scan(&driver->processes, roots, RF_CORE_DISPATCHERS_MAX + 1);
    driver->scanned_ns = rf_clock_ns();
    driver->scan_cost_ns = driver->scanned_ns - start_ns;
}

static int index_of(const rf_cpudriver_t *driver, const rf_dispatcher_t *d)
{
    return d->is_monitor ? RF_CORE_DISPATCHERS_MAX : (int)(d - driver->dispatchers);
}

/* Fills driver->processes with those of `d` at least. */
static void look_at(rf_cpudriver_t *driver, const rf_dispatcher_t *d)
{
    driver->scanned_ns = 0;
    if (!driver->scheduler->members || !driver->scheduler->members(driver, d, index_of(driver, d)))
        rf_dispatchers_scan(driver);
}

void rf_dispatcher_signal_all(rf_cpudriver_t *driver, rf_dispatcher_t *d, int signo)
{
    look_at(driver, d);
    rf_processes_signal(&driver->processes, index_of(driver, d), signo);
}

/* The foreground process group of the program's terminal; without one, the program's own group. */
static pid_t foreground_group(const rf_dispatcher_t *d)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)d->pid);
    if (d->tty && rf_file_read(path, text, sizeof text) > 0) {
        char *at = strrchr(text, ')');
        for (int field = 3; field < 8 && at; field++) at = strchr(at + 1, ' ');
        at = at ? strchr(at + 1, ' ') : NULL; /* field 8, tpgid: as the reader's namespace numbers it */
        long group = at ? strtol(at, NULL, 10) : 0;
        if (group > 1) return (pid_t)group;
    }
    return d->pid;
}

void rf_dispatcher_signal(rf_cpudriver_t *driver, rf_dispatcher_t *d, int signo, bool whole)
{
    if (signo > 0 && rf_kernel_link_up(d) && (d->signals_mask & SIGNAL_BIT(signo))) {
        d->signals_pending |= SIGNAL_BIT(signo);
        d->events_due = true;
    } else if (whole) {
        rf_dispatcher_signal_all(driver, d, signo);
    } else if (d->pid > 0) {
        kill(-foreground_group(d), signo);
    }
}

void rf_dispatcher_freeze(rf_cpudriver_t *driver, rf_dispatcher_t *d, bool frozen)
{
    if (d->frozen == frozen) return;
    d->frozen = frozen;
    if (driver->scheduler->freeze(driver, d, frozen) == RF_OK) return;
    if (!frozen) { /* all, also who has not taken its stop yet: SIGCONT takes it back */
        rf_dispatcher_signal_all(driver, d, SIGCONT);
        return;
    }
    for (unsigned pass = 0; pass < FREEZE_PASSES; pass++) {
        unsigned running = 0;
        look_at(driver, d);
        for (unsigned i = 0; i < driver->processes.n; i++) {
            const rf_process_t *process = &driver->processes.at[i];
            running += process->owner == index_of(driver, d) && !process->is_root && process->state != 'Z' &&
                       process->state != 'T';
        }
        if (running == 0) break;
        rf_processes_signal(&driver->processes, index_of(driver, d), SIGSTOP);
    }
}

void rf_dispatchers_freeze_all(rf_cpudriver_t *driver, bool frozen)
{
    driver->frozen_all = frozen;
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        bool there = d->state == RF_DISPATCHER_STARTING || d->state == RF_DISPATCHER_RUNNING;
        if (d->state == RF_DISPATCHER_RUNNING && frozen &&
            !d->frozen) { /* of one that starts there is nothing yet */
            d->frozen_with_all = true;
            rf_dispatcher_freeze(driver, d, true);
        } else if (!frozen && d->frozen_with_all) {
            d->frozen_with_all = false;
            if (there) rf_dispatcher_freeze(driver, d, false);
        }
    }
}

void rf_dispatcher_destroy(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    if (d->state != RF_DISPATCHER_STARTING && d->state != RF_DISPATCHER_RUNNING) return;
    if (d->state == RF_DISPATCHER_STARTING) d->create_err = RF_ERR_CANCELLED;
    d->state = RF_DISPATCHER_ENDING;
    if (driver->isolation.level != RF_ISOLATION_NONE) {
        kill(d->init_pid, SIGKILL); /* and with it the kernel ends its namespace */
        return;
    }
    rf_dispatcher_signal_all(driver, d, SIGKILL);
    if (d->report.fd >= 0) shutdown(d->report.fd, SHUT_RDWR); /* rf-init goes on with it, and ends itself */
    d->kill_looks = 0;
    d->kill_again_ns = rf_clock_ns() + KILL_AGAIN_NS;
}

/* Without a namespace a domain can kill or stop its rf-init; then it is up to us. */
static void kill_again(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    const uint64_t now_ns = rf_clock_ns();
    if (driver->isolation.level != RF_ISOLATION_NONE) return;
    if (now_ns >= d->kill_again_ns) {
        rf_dispatcher_signal_all(driver, d, SIGKILL);
        kill(d->init_pid, ++d->kill_looks < KILL_INIT_LOOKS ? SIGCONT : SIGKILL);
        d->kill_again_ns = now_ns + KILL_AGAIN_NS;
    }
    rf_core_wake_at(driver, d->kill_again_ns);
}

static bool is_ours(const rf_cpudriver_t *driver, pid_t pid)
{
    if (pid == driver->monitor.init_pid) return true;
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        if (driver->dispatchers[i].init_pid == pid) return true;
    }
    return false;
}

void rf_adopted_end(rf_cpudriver_t *driver)
{
    const pid_t self = getpid();
    rf_dispatchers_scan(driver);
    for (unsigned i = 0; i < driver->processes.n; i++) {
        const rf_process_t *process = &driver->processes.at[i];
        if (process->parent == self && !is_ours(driver, process->pid)) kill(process->pid, SIGKILL);
    }
    for (unsigned i = 0; i < driver->processes.n; i++) {
        const rf_process_t *process = &driver->processes.at[i];
        if (process->parent == self && !is_ours(driver, process->pid))
            rf_realtime_reap(driver->realtime, process->pid, NULL, WNOHANG);
    }
}

/* ---- figures ---- */

static void gather(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    const int owner = index_of(driver, d);
    rf_kernel_stat_t *stat = &d->stat;
    stat->processes = 0;
    stat->rss_kib = stat->cpu_ns = 0;
    for (unsigned i = 0; i < driver->processes.n; i++) {
        const rf_process_t *process = &driver->processes.at[i];
        if (process->owner != owner) continue;
        stat->cpu_ns += process->cpu_ns; /* rf-init's too: what it reaped was the domain's */
        if ((process->is_root && !d->is_monitor) || process->state == 'Z') continue;
        stat->rss_kib += process->rss_kib;
        if (stat->processes < UINT16_MAX) stat->processes++;
    }
    driver->scheduler->cpu_ns(driver, d, &stat->cpu_ns);
}

/* Anybody may ask, and looking is dear: figures are used again for a while, longer when they took long. */
static bool still_fresh(uint64_t at_ns, uint64_t cost_ns, uint64_t now_ns)
{
    const uint64_t age_ns_max =
        cost_ns * STAT_AGE_COSTS > STAT_AGE_NS ? cost_ns * STAT_AGE_COSTS : STAT_AGE_NS;
    return at_ns != 0 && now_ns - at_ns < age_ns_max;
}

void rf_dispatchers_stat(rf_cpudriver_t *driver, rf_dispatcher_t *const *dispatchers, unsigned n,
                         rf_kernel_stat_t *out)
{
    for (unsigned i = 0; i < n; i++) {
        rf_dispatcher_t *d = dispatchers[i];
        const uint64_t now_ns = rf_clock_ns();
        if (!still_fresh(d->stat_ns, d->stat_cost_ns, now_ns)) {
            if (driver->scheduler->members)
                look_at(driver, d);
            else if (!still_fresh(driver->scanned_ns, driver->scan_cost_ns, now_ns))
                rf_dispatchers_scan(driver); /* one look for all that are asked about */
            gather(driver, d);
            d->stat_ns = rf_clock_ns();
            d->stat_cost_ns = d->stat_ns - now_ns;
        }
        out[i] = d->stat;
        out[i].domain = d->domain;
        out[i].index = d->index;
        out[i].pid = d->pid;
        out[i].started_ns = d->started_ns;
        out[i].reserved_permille = d->reserved_permille;
        out[i].weight = d->weight;
        out[i].frozen = d->frozen;
        out[i].reserved = 0;
    }
}

/* ---- telling, ending, stopping ---- */

static bool tell_created(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    rf_wire_header_t header = {.tag = d->create_tag, .err = (uint16_t)d->create_err, .op = RF_KERNEL_CREATE};
    return rf_kernel_link_send(driver, &driver->monitor, RF_KERNEL_REPLY, header, &d->created,
                               sizeof d->created) == RF_OK;
}

static bool tell_started(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    rf_kernel_target_t target = {.domain = d->domain, .index = d->index};
    if (d->client_socket >= 0) {
        rf_kernel_fds_t head = {.op = RF_KERNEL_EVENT_STARTED, .key = d->domain << 16 | d->index};
        if (rf_kernel_link_pass(&driver->monitor, head, d->client_socket) != RF_OK) return false;
        close(d->client_socket);
        d->client_socket = -1;
    }
    return rf_kernel_link_send(driver, &driver->monitor, RF_KERNEL_EVENT,
                               (rf_wire_header_t){.op = RF_KERNEL_EVENT_STARTED}, &target,
                               sizeof target) == RF_OK;
}

static bool tell_exited(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    return rf_kernel_link_send(driver, &driver->monitor, RF_KERNEL_EVENT,
                               (rf_wire_header_t){.op = RF_KERNEL_EVENT_EXITED}, &d->exited,
                               sizeof d->exited) == RF_OK;
}

/* In this order, and none before the one ahead of it was taken. */
static void tell_monitor(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    if (d->created_due && !tell_created(driver, d)) return;
    d->created_due = false;
    if (d->started_due && !tell_started(driver, d)) return;
    d->started_due = false;
    if (d->exited_due && !tell_exited(driver, d)) return;
    d->exited_due = false;
}

static void settle(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    if (d->state == RF_DISPATCHER_ENDING) kill_again(driver, d);
    if (driver->monitor.state == RF_DISPATCHER_FREE)
        d->created_due = d->started_due = d->exited_due = false; /* there is nobody left to tell */
    if (driver->monitor.blocked_until_ns <= rf_clock_ns()) tell_monitor(driver, d);
    if (d->state == RF_DISPATCHER_ENDED && !d->created_due && !d->started_due && !d->exited_due) {
        if (d->client_socket >= 0) close(d->client_socket);
        d->client_socket = -1;
        rf_dispatcher_clear(d);
        return;
    }
    if (d->events_due && d->blocked_until_ns <= rf_clock_ns()) rf_objects_tell(driver, d);
}

void rf_core_stop(rf_cpudriver_t *driver, bool gently, int exit_status)
{
    if (driver->frozen_all)
        gently = false; /* it may be expelled: nothing of it may run again, not even to end in order */
    if (!driver->stopping) {
        driver->stopping = true;
        driver->exit_status = exit_status;
        driver->stop_deadline_ns = rf_clock_ns() + (gently ? RF_CORE_STOP_GRACE_MS * RF_NS_PER_MS : 0);
    }
    if (gently) rf_dispatchers_scan(driver);
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        if (d->state != RF_DISPATCHER_STARTING && d->state != RF_DISPATCHER_RUNNING) continue;
        if (!gently) {
            rf_dispatcher_destroy(driver, d);
            continue;
        }
        rf_processes_signal(&driver->processes, (int)i, SIGTERM);
        if (d->frozen) driver->scheduler->freeze(driver, d, false);
        d->frozen = false;
        rf_processes_signal(&driver->processes, (int)i, SIGCONT); /* frozen, or its time slice is over */
    }
}

static void carry_on_stopping(rf_cpudriver_t *driver, unsigned alive)
{
    const uint64_t now_ns = rf_clock_ns();
    const bool late = now_ns >= driver->stop_deadline_ns;
    if (alive > 0) {
        for (size_t i = 0; late && i < RF_CORE_DISPATCHERS_MAX; i++)
            rf_dispatcher_destroy(driver, &driver->dispatchers[i]);
        if (!late) rf_core_wake_at(driver, driver->stop_deadline_ns);
        return;
    }
    if (driver->monitor.state == RF_DISPATCHER_FREE) {
        driver->done = true;
        return;
    }
    if (driver->monitor.state == RF_DISPATCHER_RUNNING) {
        driver->monitor.state = RF_DISPATCHER_ENDING;
        driver->stop_deadline_ns = now_ns + RF_CORE_STOP_GRACE_MS * RF_NS_PER_MS;
        kill(driver->monitor.init_pid, SIGTERM);
    } else if (late) {
        kill(driver->monitor.init_pid, SIGKILL);
        return;
    }
    rf_core_wake_at(driver, driver->stop_deadline_ns);
}

void rf_dispatchers_settle(rf_cpudriver_t *driver)
{
    unsigned alive = 0;
    if (driver->monitor.events_due) rf_objects_tell(driver, &driver->monitor);
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        if (d->state == RF_DISPATCHER_FREE) continue;
        settle(driver, d);
        alive += d->state != RF_DISPATCHER_FREE && d->state != RF_DISPATCHER_ENDED;
    }
    if (driver->stopping) carry_on_stopping(driver, alive);
}
