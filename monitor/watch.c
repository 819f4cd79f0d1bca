/*
 * The processes of the other monitors of this host. A link may end for many reasons; that a process has died says only the
 * kernel, through a pidfd that was opened while its link was up. Told after the link's end, so that everything it said
 * before is heard.
 */
#include "monitor/shell.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static void forget(shell_t *s, watched_t *w)
{
    if (w->incarnation == 0) return;
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, w->pidfd, NULL);
    close(w->pidfd);
    *w = (watched_t){0};
}

/* Monitor and CPU driver, for who has to end them: taken only if they are what they are said to be. */
static void identify(watched_t *w, int pid)
{
    char path[32], text[1024], command[32];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (rf_file_read(path, text, sizeof text) <= 0) return;
    const char *end = strrchr(text, ')');
    if (!end || sscanf(end, ") %*c %d", &parent) != 1 || parent <= 1) return;
    snprintf(path, sizeof path, "/proc/%d/comm", parent);
    bool driver =
        rf_file_read(path, command, sizeof command) > 0 && strncmp(command, "rf-cpudriver", 12) == 0;
    w->process = (monitor_process_t){
        .incarnation = w->incarnation, .monitor_pid = pid, .monitor_start = rf_process_start_time(pid)};
    if (!driver) return; /* it died, and this monitor is dying, too */
    w->process.driver_pid = parent;
    w->process.driver_start = rf_process_start_time(parent);
}

void watch_peer(shell_t *s, conn_t *conn)
{
    watched_t *w = &s->watched[conn->core];
    int pid = 0;
    unsigned uid = 0;
    if (w->incarnation == conn->incarnation) return;
    forget(s, w);
    if (conn->link->transport->peer_credentials(conn->link, &pid, &uid) != RF_OK) return;
    int pidfd = rf_process_open(pid, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = pidfd};
    if (pidfd < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, pidfd, &event) < 0) {
        /* It died meanwhile, or there are no descriptors: then its silence has to do. */
        rf_log(RF_LOG_WARN, "the process of core %u's monitor cannot be watched", conn->core);
        if (pidfd >= 0) close(pidfd);
        return;
    }
    *w = (watched_t){.incarnation = conn->incarnation, .pidfd = pidfd};
    identify(w, pid);
}

void watch_readable(shell_t *s, int fd)
{
    for (rf_core_t core = 0; core < s->boot->n_cores; core++) {
        watched_t *w = &s->watched[core];
        if (w->incarnation != 0 && w->pidfd == fd && !w->died) {
            w->died = true;
            s->n_died++;
            epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
        }
    }
}

bool watch_settle(shell_t *s)
{
    for (rf_core_t core = 0; s->n_died > 0 && core < s->boot->n_cores; core++) {
        watched_t *w = &s->watched[core];
        const conn_t *conn = s->peers[core];
        if (!w->died || (conn && !conn->ended && conn->incarnation == w->incarnation)) continue;
        monitor_event_t event = {.kind = MONITOR_PEER_DIED, .core = core, .incarnation = w->incarnation};
        s->n_died--;
        forget(s, w);
        shell_step(s, &event);
        return true;
    }
    return false;
}

void watch_end(shell_t *s)
{
    for (rf_core_t core = 0; s->watched && core < s->boot->n_cores; core++) forget(s, &s->watched[core]);
    free(s->watched);
}
