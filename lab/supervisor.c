/*
 * The supervisor: owns the guests and the cables between them, and passes frames between commands and guests.
 *
 * One thread, one poll. A connection is one session; it has a number of its own on the guest's line for as long as it
 * lives. When a guest dies its sessions end with LAB_LOST; when a command goes, the guest is told.
 */
#include "lab/halt.h"
#include "lab/lab.h"
#include "lab/line.h"
#include "lab/spawn.h"
#include "lab/status.h"

#include "base/clock.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTIONS_MAX LAB_SESSIONS_MAX
#define BUFFER_MAX      ((size_t)16 << 20)
#define CABLE_BUFFER    (1 << 20)
#define LISTEN_BACKLOG  32
#define LOOK_MS         2 /* between looks at a guest that is to stand still */

typedef enum state { STATE_OFF, STATE_BOOTING, STATE_READY, STATE_FROZEN } state_t;
static const char *const state_names[] = {"off", "booting", "ready", "frozen"};

typedef struct guest {
    state_t state;
    pid_t pid;
    int log;
    lab_line_t line;
    unsigned boots;
} guest_t;

/* What a command waits for that asked for a guest's stop or end. */
typedef enum wait { WAIT_NONE, WAIT_STILL, WAIT_ENDED } wait_t;

typedef struct connection {
    int fd; /* -1: free */
    uint16_t session;
    unsigned guest;   /* whose program it follows; 0: none */
    bool waits_ready; /* it asked for `ready`, and is answered when all guests are */
    bool closing;     /* to be closed when its output is written */
    wait_t waits;     /* for the guest below; answered with an error at the deadline */
    unsigned waits_for;
    uint64_t deadline_ns;
    lab_buffer_t in, out;
} connection_t;

static struct {
    const lab_options_t *options;
    const lab_place_t *place;
    const char *kernel; /* NULL: guests have none of their own */
    unsigned parts;     /* guests, and the wire where it is one */
    int listener, signals, owner;
    bool stop;
    uint16_t next_session;
    guest_t guests[LAB_HOSTS_MAX + 1];                /* from 1 */
    int cables[LAB_HOSTS_MAX + 1][LAB_HOSTS_MAX + 1]; /* [a][b]: a's end of its cable to b */
    connection_t connections[CONNECTIONS_MAX];
} lab;

/* ---- answers to commands ---- */

static void connection_free(connection_t *c)
{
    if (c->guest && lab.guests[c->guest].state != STATE_OFF)
        (void)lab_put(&lab.guests[c->guest].line.out, LAB_GONE, c->session, NULL, 0);
    close(c->fd);
    lab_free(&c->in);
    lab_free(&c->out);
    *c = (connection_t){.fd = -1};
}

static void say(connection_t *c, lab_type_t type, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(connection_t *c, lab_type_t type, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t size = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    (void)lab_put(&c->out, type, c->session, text, size);
}

static void finish(connection_t *c, uint32_t status)
{
    (void)lab_put_u32(&c->out, LAB_EXIT, c->session, status);
    c->guest = 0;
    c->waits_ready = false;
    c->waits = WAIT_NONE;
    c->closing = true;
}

static void refuse(connection_t *c, uint32_t status, const char *text)
{
    say(c, LAB_ERROR, "rf-lab: %s\n", text);
    finish(c, status);
}

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

static bool guest_boot(unsigned g)
{
    guest_t *guest = &lab.guests[g];
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
        plan.cable[other] = lab.cables[g][other];
        if (plan.cable[other] >= 0) drain_cable(plan.cable[other]);
    }
    guest->pid = lab_guest_start(&plan);
    close(line[1]);
    if (guest->pid < 0) {
        close(line[0]);
        return false;
    }
    fcntl(line[0], F_SETFL, O_NONBLOCK);
    lab_line_open(&guest->line, line[0], BUFFER_MAX, rf_clock_ns());
    guest->state = STATE_BOOTING;
    guest->boots++;
    if (!lab.kernel && !wire) guest_join(g);
    return true;
}

static void answer_those_who_wait(void)
{
    unsigned booting = 0, off = 0;
    for (unsigned g = 1; g <= lab.parts; g++) {
        booting += lab.guests[g].state == STATE_BOOTING;
        off += lab.guests[g].state == STATE_OFF;
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd < 0 || !c->waits_ready || (booting && !off)) continue;
        if (off)
            refuse(c, LAB_FAILED, "a guest is off; its console is in the lab's folder, see `status`");
        else
            finish(c, LAB_OK);
    }
}

/* Its process has ended (then pid is 0: the number may be another's), or is to. */
static void guest_off(unsigned g)
{
    guest_t *guest = &lab.guests[g];
    if (guest->state == STATE_OFF) return;
    if (guest->pid > 0) kill(guest->pid, SIGKILL);
    lab_line_close(&guest->line);
    guest->state = STATE_OFF;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd < 0 || c->guest != g) continue;
        say(c, LAB_ERROR, "rf-lab: guest %u is off\n", g);
        finish(c, LAB_LOST);
    }
    answer_those_who_wait();
}

static void reap(void)
{
    struct signalfd_siginfo info;
    while (read(lab.signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD) lab.stop = true;
    }
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
        for (unsigned g = 1; g <= lab.parts; g++) {
            if (lab.guests[g].pid != pid) continue;
            lab.guests[g].pid = 0;
            guest_off(g);
        }
    }
}

static connection_t *connection_of(unsigned guest, uint16_t session)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd >= 0 && c->guest == guest && c->session == session) return c;
    }
    return NULL;
}

static void on_guest_frame(unsigned g, const lab_frame_t *frame)
{
    if (frame->type == LAB_LINE_MORE) {
        lab_line_taken(&lab.guests[g].line, lab_u32(frame), rf_clock_ns());
        return;
    }
    if (frame->type == LAB_READY) {
        if (lab.guests[g].state == STATE_BOOTING) lab.guests[g].state = STATE_READY;
        answer_those_who_wait();
        return;
    }
    connection_t *c = connection_of(g, frame->session);
    if (!c) return; /* the command has gone meanwhile */
    if (lab_put(&c->out, frame->type, frame->session, frame->payload, frame->length) != RF_OK) {
        connection_free(c);
        return;
    }
    if (frame->type == LAB_EXIT) {
        c->guest = 0;
        c->closing = true;
    }
}

static void guest_read(unsigned g)
{
    guest_t *guest = &lab.guests[g];
    rf_err_t err;
    while ((err = lab_line_read(&guest->line, rf_clock_ns())) == RF_OK) {
        lab_frame_t frame;
        while ((err = lab_next(&guest->line.in, &frame)) == RF_OK) on_guest_frame(g, &frame);
        if (err != RF_ERR_AGAIN) break;
    }
    if (err != RF_ERR_AGAIN) guest_off(g);
}

/* ---- those who wait for a guest's stop or end ---- */

static void wait_for(connection_t *c, wait_t what, unsigned g)
{
    c->waits = what;
    c->waits_for = g;
    c->deadline_ns = rf_clock_ns() + LAB_HALT_TIMEOUT_MS * RF_NS_PER_MS;
}

/* Answered when it stands still: nothing of it reaches anybody from then on. A guest's own kernel is one process, and all that runs
 * in it goes through that; without one all its processes are to stand. */
static void answer_still(connection_t *c, unsigned g, bool late)
{
    const guest_t *guest = &lab.guests[g];
    char why[160] = "";
    if (guest->state == STATE_OFF)
        refuse(c, LAB_FAILED, "that guest went off");
    else if (guest->state != STATE_FROZEN)
        refuse(c, LAB_FAILED, "that guest was thawed meanwhile");
    else if (lab_guest_stands(guest->pid, lab.kernel ? 1 : UINT_MAX, why, sizeof why))
        finish(c, LAB_OK);
    else if (late) {
        say(c, LAB_ERROR, "rf-lab: guest %u (process %d) does not stand still after %d s: %s\n", g,
            (int)guest->pid, LAB_HALT_TIMEOUT_MS / 1000, why);
        finish(c, LAB_FAILED);
    }
}

/* Answered when it is gone for good: its cables are silent from then on. */
static void answer_ended(connection_t *c, unsigned g, bool late)
{
    char text[160];
    pid_t pid = lab.guests[g].pid;
    if (pid == 0)
        finish(c, LAB_OK);
    else if (late) {
        lab_process_text(pid, text, sizeof text);
        say(c, LAB_ERROR, "rf-lab: guest %u has not ended %d s after it was killed: %s\n", g,
            LAB_HALT_TIMEOUT_MS / 1000, text);
        finish(c, LAB_FAILED);
    }
}

/* Milliseconds until it is to be called again, for poll; -1: nobody waits. */
static int answer_those_who_wait_for_a_guest(void)
{
    int next = -1;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd < 0 || c->waits == WAIT_NONE) continue;
        bool late = rf_clock_ns() >= c->deadline_ns;
        (c->waits == WAIT_STILL ? answer_still : answer_ended)(c, c->waits_for, late);
        if (c->waits != WAIT_NONE) next = LOOK_MS;
    }
    return next;
}

/* ---- questions to the supervisor ---- */

static void print_status(FILE *out, bool json)
{
    lab_row_t rows[LAB_HOSTS_MAX + 1];
    for (unsigned g = 1; g <= lab.options->hosts; g++)
        rows[g - 1] = (lab_row_t){state_names[lab.guests[g].state], lab.guests[g].pid, lab.guests[g].boots};
    (json ? lab_status_json : lab_status_text)(out, lab.options, lab.place, rows);
}

static void answer_status(connection_t *c, bool json)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out) print_status(out, json);
    if (!out || fclose(out) != 0)
        refuse(c, LAB_FAILED, "out of memory");
    else {
        (void)lab_put(&c->out, LAB_OUTPUT, c->session, text, size);
        finish(c, LAB_OK);
    }
    free(text);
}

/* For silent.c: the pid of its first process here, for how long it has been silent, and what is on its line. */
static void answer_silent(connection_t *c, unsigned g)
{
    const guest_t *guest = &lab.guests[g];
    uint64_t now = rf_clock_ns();
    if (guest->state == STATE_OFF) {
        refuse(c, LAB_LOST, "that guest is off");
        return;
    }
    say(c, LAB_OUTPUT, "%d %llu %llu %zu %zu %u %s", (int)guest->pid,
        (unsigned long long)(lab_line_silent_ns(&guest->line, now) / RF_NS_PER_MS),
        (unsigned long long)((now - guest->line.heard_ns) / RF_NS_PER_MS), lab_line_unread(&guest->line),
        lab_left(&guest->line.out), guest->line.nudges, state_names[guest->state]);
    finish(c, LAB_OK);
}

static void on_guest_command(connection_t *c, const char *verb, unsigned g)
{
    guest_t *guest = &lab.guests[g];
    bool off = guest->state == STATE_OFF;
    if (strcmp(verb, "boot") == 0) {
        if (!off)
            refuse(c, LAB_FAILED, "that guest is on; `kill` it first");
        else if (guest->pid > 0)
            refuse(c, LAB_FAILED, "that guest is just ending; try again");
        else if (guest_boot(g))
            c->waits_ready = true;
        else
            refuse(c, LAB_FAILED, strerror(errno));
        return;
    }
    if (off) {
        refuse(c, LAB_FAILED, "that guest is off; `boot` it first");
        return;
    }
    if (strcmp(verb, "kill") == 0) {
        guest_off(g);
        wait_for(c, WAIT_ENDED, g);
        return;
    }
    if (guest->state == STATE_BOOTING) {
        refuse(c, LAB_FAILED, "that guest is booting; try again when `status` calls it ready");
        return;
    }
    bool stop = strcmp(verb, "freeze") == 0;
    if (!lab_guest_order(guest->pid, stop)) {
        refuse(c, LAB_FAILED, strerror(errno));
        return;
    }
    guest->state = stop ? STATE_FROZEN : STATE_READY;
    if (stop) {
        wait_for(c, WAIT_STILL, g);
    } else {
        lab_line_forgive(&guest->line, rf_clock_ns());
        finish(c, LAB_OK);
    }
}

static void on_ask(connection_t *c, const lab_frame_t *frame)
{
    char words[2][32] = {"", ""};
    const char *at = (const char *)frame->payload, *end = at + frame->length;
    for (unsigned i = 0; i < 2 && at < end; i++) {
        size_t n = strnlen(at, (size_t)(end - at));
        snprintf(words[i], sizeof words[i], "%.*s", (int)n, at);
        at += n + 1;
    }
    unsigned long g = strtoul(words[1], NULL, 10);
    const char *verb = words[0];
    bool of_guest = strcmp(verb, "boot") == 0 || strcmp(verb, "kill") == 0 || strcmp(verb, "freeze") == 0 ||
                    strcmp(verb, "thaw") == 0 || strcmp(verb, "on") == 0 || strcmp(verb, "silent") == 0;
    if (strcmp(verb, "status") == 0) {
        answer_status(c, strcmp(words[1], "json") == 0);
    } else if (strcmp(verb, "hosts") == 0) {
        finish(c, LAB_OK);
    } else if (strcmp(verb, "ready") == 0) {
        c->waits_ready = true;
        answer_those_who_wait();
    } else if (strcmp(verb, "down") == 0) {
        lab.stop = true; /* the command waits for the end of the connection */
    } else if (!of_guest) {
        refuse(c, LAB_USAGE, "the lab does not know this command; is it of another version?");
    } else if (g < 1 || g > (strcmp(verb, "silent") == 0 ? lab.parts : lab.options->hosts)) {
        refuse(c, LAB_USAGE, "there is no guest of that number");
    } else if (strcmp(verb, "on") == 0) {
        finish(c, lab.guests[g].state == STATE_OFF ? LAB_FAILED : LAB_OK);
    } else if (strcmp(verb, "silent") == 0) {
        answer_silent(c, (unsigned)g);
    } else {
        on_guest_command(c, verb, (unsigned)g);
    }
}

static void on_run(connection_t *c, const lab_frame_t *frame)
{
    lab_run_t run;
    if (frame->length < sizeof run) {
        refuse(c, LAB_USAGE, "the lab does not know this command; is it of another version?");
        return;
    }
    memcpy(&run, frame->payload, sizeof run);
    if (run.guest < 1 || run.guest > lab.parts) {
        refuse(c, LAB_USAGE, "there is no guest of that number");
        return;
    }
    guest_t *guest = &lab.guests[run.guest];
    if (guest->state == STATE_OFF || guest->state == STATE_BOOTING) {
        refuse(c, LAB_LOST, "that guest is off");
        return;
    }
    do {
        c->session = ++lab.next_session;
        c->guest = 0;
    } while (c->session == 0 || connection_of(run.guest, c->session));
    if (lab_put(&guest->line.out, LAB_RUN, c->session, frame->payload, frame->length) != RF_OK)
        refuse(c, LAB_LOST, "that guest takes no commands any more");
    else
        c->guest = run.guest;
}

static void on_connection_frame(connection_t *c, const lab_frame_t *frame)
{
    if (c->closing) return;
    if (frame->type == LAB_ASK)
        on_ask(c, frame);
    else if (frame->type == LAB_RUN && !c->guest)
        on_run(c, frame);
    else if (c->guest && lab_put(&lab.guests[c->guest].line.out, frame->type, c->session, frame->payload,
                                 frame->length) != RF_OK)
        refuse(c, LAB_LOST, "that guest takes no input any more");
}

static void connection_read(connection_t *c)
{
    rf_err_t err;
    while ((err = lab_read(&c->in, c->fd)) == RF_OK) {
        lab_frame_t frame;
        while ((err = lab_next(&c->in, &frame)) == RF_OK) on_connection_frame(c, &frame);
        if (err != RF_ERR_AGAIN) break;
    }
    if (err != RF_ERR_AGAIN) connection_free(c);
}

static void accept_connection(void)
{
    int fd = accept4(lab.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (lab.connections[i].fd >= 0) continue;
        lab.connections[i] = (connection_t){.fd = fd, .in.max = BUFFER_MAX, .out.max = BUFFER_MAX};
        return;
    }
    close(fd);
}

/* ---- the loop ---- */

static void write_out(void)
{
    for (unsigned g = 1; g <= lab.parts; g++) {
        guest_t *guest = &lab.guests[g];
        if (guest->state != STATE_OFF && lab_line_flush(&guest->line, rf_clock_ns()) != RF_OK) guest_off(g);
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd < 0) continue;
        if (lab_flush(&c->out, c->fd) != RF_OK || (c->closing && lab_left(&c->out) == 0)) connection_free(c);
    }
}

static bool is_busy(unsigned g)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (lab.connections[i].fd >= 0 && lab.connections[i].guest == g) return true;
    }
    return false;
}

/* Milliseconds until the next guest is to be nudged, for poll. One that is frozen owes nothing. */
static int nudge_those_who_owe(void)
{
    uint64_t now = rf_clock_ns(), next = RF_NEVER;
    for (unsigned g = 1; g <= lab.parts; g++) {
        guest_t *guest = &lab.guests[g];
        if (guest->state != STATE_READY) continue;
        bool busy = is_busy(g);
        lab_line_nudge(&guest->line, busy, now);
        if (lab_line_flush(&guest->line, now) != RF_OK) continue; /* its line says so to poll, too */
        uint64_t due = lab_line_due(&guest->line, busy);
        if (due < next) next = due;
    }
    if (next == RF_NEVER) return -1;
    return next > now ? (int)((next - now) / RF_NS_PER_MS) + 1 : 1;
}

static void wait_and_read(int again_ms)
{
    struct pollfd fds[3 + LAB_HOSTS_MAX + CONNECTIONS_MAX];
    unsigned guest_of[3 + LAB_HOSTS_MAX + CONNECTIONS_MAX] = {0};
    connection_t *connection[3 + LAB_HOSTS_MAX + CONNECTIONS_MAX] = {0};
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = lab.listener, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = lab.signals, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = lab.owner, .events = POLLIN};
    for (unsigned g = 1; g <= lab.parts; g++) {
        guest_t *guest = &lab.guests[g];
        if (guest->state == STATE_OFF) continue;
        short events = lab_left(&guest->line.out) && guest->line.room ? POLLIN | POLLOUT : POLLIN;
        guest_of[n] = g;
        fds[n++] = (struct pollfd){.fd = guest->line.fd, .events = events};
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd < 0) continue;
        connection[n] = c;
        fds[n++] = (struct pollfd){.fd = c->fd, .events = lab_left(&c->out) ? POLLIN | POLLOUT : POLLIN};
    }
    int nudge_ms = nudge_those_who_owe();
    if (poll(fds, n, again_ms < 0 || (nudge_ms >= 0 && nudge_ms < again_ms) ? nudge_ms : again_ms) < 0)
        return;
    if (fds[1].revents) reap();
    if (fds[2].revents) lab.stop = true;
    for (nfds_t i = 3; i < n; i++) {
        if (!(fds[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
        if (guest_of[i] && lab.guests[guest_of[i]].line.fd == fds[i].fd) guest_read(guest_of[i]);
        if (connection[i] && connection[i]->fd == fds[i].fd) connection_read(connection[i]);
    }
    if (fds[0].revents) accept_connection();
}

static bool make_cables(void)
{
    memset(lab.cables, -1, sizeof lab.cables);
    for (unsigned a = 1; lab.kernel && a <= lab.options->hosts; a++) {
        for (unsigned b = a + 1; b <= lab.options->hosts; b++) {
            int ends[2], size = CABLE_BUFFER;
            if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return false;
            for (unsigned i = 0; i < 2; i++) {
                if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
                    setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
            }
            lab.cables[a][b] = ends[0];
            lab.cables[b][a] = ends[1];
        }
    }
    return true;
}

static bool open_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(lab.place->socket) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address.sun_path, lab.place->socket, strlen(lab.place->socket));
    unlink(lab.place->socket);
    lab.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return lab.listener >= 0 && bind(lab.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(lab.listener, LISTEN_BACKLOG) == 0;
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
    lab.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return lab.signals >= 0;
}

static bool boot_all(void)
{
    for (unsigned g = lab.parts; g >= 1; g--) { /* the wire first */
        char path[LAB_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/console-%u.log", lab.place->folder, g);
        lab.guests[g].log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (lab.guests[g].log < 0 || !guest_boot(g)) return false;
    }
    return true;
}

/* To all who still listen, whoever asked for the end among them. */
static void tell_of_those_left(const pid_t *pids)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        connection_t *c = &lab.connections[i];
        if (c->fd < 0 || c->closing) continue;
        for (unsigned g = 1; g <= lab.parts; g++) {
            char text[160];
            if (pids[g] == 0) continue;
            lab_process_text(pids[g], text, sizeof text);
            say(c, LAB_ERROR, "rf-lab: guest %u has not ended %d s after it was killed: %s\n", g,
                LAB_HALT_TIMEOUT_MS / 1000, text);
        }
        finish(c, LAB_FAILED);
        (void)lab_flush(&c->out, c->fd);
    }
}

static void end_everything(void)
{
    pid_t pids[LAB_HOSTS_MAX + 1] = {0};
    for (unsigned g = 1; g <= lab.parts; g++) {
        guest_off(g);
        pids[g] = lab.guests[g].pid;
    }
    if (!lab_wait_ended(pids, lab.parts + 1, rf_clock_ns() + LAB_HALT_TIMEOUT_MS * RF_NS_PER_MS))
        tell_of_those_left(pids);
    lab_place_clear(lab.place);
}

int lab_supervise(const lab_options_t *options, const lab_place_t *place, const char *kernel, int ready)
{
    lab.options = options;
    lab.place = place;
    lab.kernel = kernel;
    lab.parts = kernel ? options->hosts : lab_wire_of(options->hosts);
    lab.owner = options->owner ? rf_process_open(options->owner, 0) : -1;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) lab.connections[i].fd = -1;
    if (options->owner && lab.owner < 0)
        return lab_error("there is no process %d to follow", (int)options->owner);
    int status = LAB_OK;
    if (!open_signals() || !open_socket() || !make_cables() || !boot_all()) {
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
    while (!lab.stop) {
        int again_ms = answer_those_who_wait_for_a_guest();
        write_out();
        wait_and_read(again_ms);
    }
    end_everything();
    return status;
}
