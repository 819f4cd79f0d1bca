/*
 * The supervisor: owns the guests and the cables between them, and passes frames between commands (session.c) and guests.
 *
 * One thread, one poll.
 */
#include "lab/supervisor.h"
#include "lab/halt.h"
#include "lab/session.h"
#include "lab/spawn.h"

#include "base/clock.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CABLE_BUFFER (1 << 20)

lab_supervisor_t lab;
static int signals, owner;
static int cables[LAB_HOSTS_MAX + 1][LAB_HOSTS_MAX + 1]; /* [a][b]: a's end of its cable to b */

/* ---- guests ---- */

/* Plugs guest g into the wire, in a child that is not waited for: the guest is ready when its cable is there. */
static void guest_join(unsigned g)
{
    char script[LAB_PATH_MAX + 16], words[4][16];
    snprintf(script, sizeof script, "%s/host-join.sh", lab.place->lib);
    snprintf(words[0], sizeof words[0], "%d", (int)lab.guests[lab_wire_of(lab.options->hosts)].pid);
    snprintf(words[1], sizeof words[1], "%d", (int)lab.guests[g].pid);
    snprintf(words[2], sizeof words[2], "%u", g);
    snprintf(words[3], sizeof words[3], "%u", lab.options->mtu);
    if (fork() != 0) return;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(lab.guests[g].log, STDERR_FILENO);
    execl("/bin/sh", "sh", script, words[0], words[1], words[2], words[3], (char *)NULL);
    _exit(127);
}

/* What a guest that died has not read must not reach its successor. */
static void drain_cable(int fd)
{
    char bytes[64];
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_TRUNC) > 0)
        ;
}

bool lab_guest_boot(unsigned g)
{
    lab_guest_t *guest = &lab.guests[g];
    int line[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) < 0) return false;
    bool wire = !lab.kernel && g == lab_wire_of(lab.options->hosts);
    lab_guest_plan_t plan = {
        .guest = wire ? 0 : g,
        .hosts = lab.options->hosts,
        .memory_mib = lab.options->memory_mib,
        .mtu = lab.options->mtu,
        .device = lab.options->device,
        .kernel = lab.kernel,
        .lib = lab.place->lib,
        .line = line[1],
        .line_far = line[0],
        .log = guest->log,
    };
    for (unsigned other = 0; other <= LAB_HOSTS_MAX; other++) {
        plan.cable[other] = cables[g][other];
        if (plan.cable[other] >= 0) drain_cable(plan.cable[other]);
    }
    pid_t pid = lab_guest_start(&plan);
    close(line[1]);
    if (pid < 0) {
        close(line[0]);
        return false;
    }
    guest->pid = pid;
    fcntl(line[0], F_SETFL, O_NONBLOCK);
    lab_line_open(&guest->line, line[0], LAB_BUFFER_MAX, rf_clock_ns());
    guest->state = LAB_STATE_BOOTING;
    guest->boots++;
    if (!lab.kernel && !wire) guest_join(g);
    return true;
}

void lab_guest_off(unsigned g)
{
    lab_guest_t *guest = &lab.guests[g];
    if (guest->state == LAB_STATE_OFF) return;
    if (guest->pid > 0) kill(guest->pid, SIGKILL);
    lab_line_close(&guest->line);
    guest->state = LAB_STATE_OFF;
    lab_sessions_guest_off(g);
}

static void reap(void)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD) lab.stop = true;
    }
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
        for (unsigned g = 1; g <= lab.parts; g++) {
            if (lab.guests[g].pid != pid) continue;
            lab.guests[g].pid = 0;
            lab_guest_off(g);
        }
    }
}

static void on_guest_frame(unsigned g, const lab_frame_t *frame)
{
    if (frame->type == LAB_LINE_MORE) {
        lab_line_taken(&lab.guests[g].line, lab_u32(frame), rf_clock_ns());
        return;
    }
    if (frame->type == LAB_READY) {
        if (lab.guests[g].state == LAB_STATE_BOOTING) lab.guests[g].state = LAB_STATE_READY;
        lab_sessions_guest_ready();
        return;
    }
    lab_sessions_frame(g, frame);
}

static void guest_read(unsigned g)
{
    lab_guest_t *guest = &lab.guests[g];
    rf_err_t err;
    while ((err = lab_line_read(&guest->line, rf_clock_ns())) == RF_OK) {
        lab_frame_t frame;
        while ((err = lab_next(&guest->line.in, &frame)) == RF_OK) on_guest_frame(g, &frame);
        if (err != RF_ERR_AGAIN) break;
    }
    if (err != RF_ERR_AGAIN) lab_guest_off(g);
}

/* ---- the loop ---- */

/* Milliseconds until the next guest is to be nudged, for poll. One that is frozen owes nothing. */
static int nudge_those_who_owe(void)
{
    uint64_t now = rf_clock_ns(), next = RF_NEVER;
    for (unsigned g = 1; g <= lab.parts; g++) {
        lab_guest_t *guest = &lab.guests[g];
        if (guest->state != LAB_STATE_READY) continue;
        bool busy = lab_sessions_in(g);
        lab_line_nudge(&guest->line, busy, now);
        if (lab_line_flush(&guest->line, now) != RF_OK) continue; /* its line says so to poll, too */
        uint64_t due = lab_line_due(&guest->line, busy);
        if (due < next) next = due;
    }
    if (next == RF_NEVER) return -1;
    return next > now ? (int)((next - now) / RF_NS_PER_MS) + 1 : 1;
}

/* One turn. */
static void wait_and_read(void)
{
    enum { SIGNALS, OWNER, GUESTS, SESSIONS = GUESTS + LAB_HOSTS_MAX + 1, FDS = SESSIONS + LAB_SESSION_FDS };
    struct pollfd fds[FDS];
    for (unsigned g = 1; g <= lab.parts; g++) {
        lab_guest_t *guest = &lab.guests[g];
        if (guest->state != LAB_STATE_OFF && lab_line_flush(&guest->line, rf_clock_ns()) != RF_OK)
            lab_guest_off(g);
    }
    int again_ms = lab_sessions_prepare(&fds[SESSIONS]);
    int nudge_ms = nudge_those_who_owe();
    fds[SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
    fds[OWNER] = (struct pollfd){.fd = owner, .events = POLLIN};
    for (unsigned g = 0; g <= LAB_HOSTS_MAX; g++) {
        const lab_guest_t *guest = &lab.guests[g];
        short events = lab_left(&guest->line.out) && guest->line.room ? POLLIN | POLLOUT : POLLIN;
        fds[GUESTS + g] =
            (struct pollfd){.fd = guest->state == LAB_STATE_OFF ? -1 : guest->line.fd, .events = events};
    }
    if (poll(fds, FDS, again_ms < 0 || (nudge_ms >= 0 && nudge_ms < again_ms) ? nudge_ms : again_ms) < 0)
        return;
    if (fds[SIGNALS].revents) reap();
    if (fds[OWNER].revents) lab.stop = true;
    for (unsigned g = 1; g <= lab.parts; g++) {
        if (lab.guests[g].state != LAB_STATE_OFF && fds[GUESTS + g].revents & (POLLIN | POLLHUP | POLLERR))
            guest_read(g);
    }
    lab_sessions_read(&fds[SESSIONS]);
}

static bool make_cables(void)
{
    memset(cables, -1, sizeof cables);
    for (unsigned a = 1; lab.kernel && a <= lab.options->hosts; a++) {
        for (unsigned b = a + 1; b <= lab.options->hosts; b++) {
            int ends[2], size = CABLE_BUFFER;
            if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return false;
            for (unsigned i = 0; i < 2; i++) {
                if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
                    setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
            }
            cables[a][b] = ends[0];
            cables[b][a] = ends[1];
        }
    }
    return true;
}

static bool open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return signals >= 0;
}

static bool boot_all(void)
{
    for (unsigned g = lab.parts; g >= 1; g--) { /* the wire first */
        char path[LAB_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/console-%u.log", lab.place->folder, g);
        lab.guests[g].log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (lab.guests[g].log < 0 || !lab_guest_boot(g)) return false;
    }
    return true;
}

static void end_everything(void)
{
    pid_t pids[LAB_HOSTS_MAX + 1] = {0};
    for (unsigned g = 1; g <= lab.parts; g++) {
        lab_guest_off(g);
        pids[g] = lab.guests[g].pid;
    }
    if (!lab_wait_ended(pids, lab.parts + 1, rf_clock_ns() + LAB_HALT_TIMEOUT_MS * RF_NS_PER_MS))
        lab_sessions_tell_of_those_left(pids);
    lab_place_clear(lab.place);
}

int lab_supervise(const lab_options_t *options, const lab_place_t *place, const char *kernel, int ready)
{
    lab.options = options;
    lab.place = place;
    lab.kernel = kernel;
    lab.parts = kernel ? options->hosts : lab_wire_of(options->hosts);
    owner = options->owner ? rf_process_open(options->owner, 0) : -1;
    if (options->owner && owner < 0)
        return lab_error("there is no process %d to follow", (int)options->owner);
    int status = LAB_OK;
    if (!open_signals() || !lab_sessions_open() || !make_cables() || !boot_all()) {
        status = lab_error("cannot start the lab: %s", strerror(errno));
        lab.stop = true;
    } else {
        (void)!write(ready, "r", 1);
        /* Whoever started us may read what we print to its end. */
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        close(null);
    }
    close(ready);
    while (!lab.stop) wait_and_read();
    end_everything();
    return status;
}
