#include "lab/session.h"
#include "lab/halt.h"
#include "lab/status.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 32
#define LOOK_MS        2   /* between looks at a guest that is to stand still */
#define PAUSE_MS       100 /* until the next connection is accepted, where one could not be */

static const char *const state_names[] = {"off", "booting", "ready", "frozen"};

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

static connection_t connections[LAB_SESSIONS_MAX];
static uint16_t next_session;
static int listener = -1;
static uint64_t accept_ns; /* not before */

/* ---- answers to commands ---- */

static void connection_free(connection_t *c)
{
    if (c->guest && lab.guests[c->guest].state != LAB_STATE_OFF)
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

void lab_sessions_guest_ready(void)
{
    unsigned booting = 0, off = 0;
    for (unsigned g = 1; g <= lab.parts; g++) {
        booting += lab.guests[g].state == LAB_STATE_BOOTING;
        off += lab.guests[g].state == LAB_STATE_OFF;
    }
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
        if (c->fd < 0 || !c->waits_ready || (booting && !off)) continue;
        if (off)
            refuse(c, LAB_FAILED, "a guest is off; its console is in the lab's folder, see `status`");
        else
            finish(c, LAB_OK);
    }
}

void lab_sessions_guest_off(unsigned g)
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
        if (c->fd < 0 || c->guest != g) continue;
        say(c, LAB_ERROR, "rf-lab: guest %u is off\n", g);
        finish(c, LAB_LOST);
    }
    lab_sessions_guest_ready();
}

static connection_t *connection_of(unsigned guest, uint16_t session)
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
        if (c->fd >= 0 && c->guest == guest && c->session == session) return c;
    }
    return NULL;
}

void lab_sessions_frame(unsigned g, const lab_frame_t *frame)
{
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
    const lab_guest_t *guest = &lab.guests[g];
    char why[160] = "";
    if (guest->state == LAB_STATE_OFF)
        refuse(c, LAB_FAILED, "that guest went off");
    else if (guest->state != LAB_STATE_FROZEN)
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
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
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
    const lab_guest_t *guest = &lab.guests[g];
    uint64_t now = rf_clock_ns();
    if (guest->state == LAB_STATE_OFF) {
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
    lab_guest_t *guest = &lab.guests[g];
    bool off = guest->state == LAB_STATE_OFF;
    if (strcmp(verb, "boot") == 0) {
        if (!off)
            refuse(c, LAB_FAILED, "that guest is on; `kill` it first");
        else if (guest->pid > 0)
            refuse(c, LAB_FAILED, "that guest is just ending; try again");
        else if (lab_guest_boot(g))
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
        lab_guest_off(g);
        wait_for(c, WAIT_ENDED, g);
        return;
    }
    if (guest->state == LAB_STATE_BOOTING) {
        refuse(c, LAB_FAILED, "that guest is booting; try again when `status` calls it ready");
        return;
    }
    bool stop = strcmp(verb, "freeze") == 0;
    if (!lab_guest_order(guest->pid, stop)) {
        refuse(c, LAB_FAILED, strerror(errno));
        return;
    }
    guest->state = stop ? LAB_STATE_FROZEN : LAB_STATE_READY;
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
        lab_sessions_guest_ready();
    } else if (strcmp(verb, "down") == 0) {
        lab.stop = true; /* the command waits for the end of the connection */
    } else if (!of_guest) {
        refuse(c, LAB_USAGE, "the lab does not know this command; is it of another version?");
    } else if (g < 1 || g > (strcmp(verb, "silent") == 0 ? lab.parts : lab.options->hosts)) {
        refuse(c, LAB_USAGE, "there is no guest of that number");
    } else if (strcmp(verb, "on") == 0) {
        finish(c, lab.guests[g].state == LAB_STATE_OFF ? LAB_FAILED : LAB_OK);
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
    lab_guest_t *guest = &lab.guests[run.guest];
    if (guest->state == LAB_STATE_OFF || guest->state == LAB_STATE_BOOTING) {
        refuse(c, LAB_LOST, "that guest is off");
        return;
    }
    do {
        c->session = ++next_session;
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
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            accept_ns = rf_clock_ns() + PAUSE_MS * RF_NS_PER_MS;
        return;
    }
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        if (connections[i].fd >= 0) continue;
        connections[i] = (connection_t){.fd = fd, .in.max = LAB_BUFFER_MAX, .out.max = LAB_BUFFER_MAX};
        return;
    }
    close(fd);
}

/* ---- for the loop ---- */

bool lab_sessions_open(void)
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) connections[i].fd = -1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(lab.place->socket) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address.sun_path, lab.place->socket, strlen(lab.place->socket));
    unlink(lab.place->socket);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(listener, LISTEN_BACKLOG) == 0;
}

static void write_out(void)
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
        if (c->fd < 0) continue;
        if (lab_flush(&c->out, c->fd) != RF_OK || (c->closing && lab_left(&c->out) == 0)) connection_free(c);
    }
}

int lab_sessions_prepare(struct pollfd fds[LAB_SESSION_FDS])
{
    int again_ms = answer_those_who_wait_for_a_guest();
    write_out();
    uint64_t now = rf_clock_ns();
    bool pauses = now < accept_ns;
    if (pauses && again_ms < 0) again_ms = (int)((accept_ns - now) / RF_NS_PER_MS) + 1;
    fds[0] = (struct pollfd){.fd = pauses ? -1 : listener, .events = POLLIN};
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        const connection_t *c = &connections[i];
        fds[1 + i] = (struct pollfd){.fd = c->fd, .events = lab_left(&c->out) ? POLLIN | POLLOUT : POLLIN};
    }
    return again_ms;
}

void lab_sessions_read(const struct pollfd fds[LAB_SESSION_FDS])
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
        if (c->fd >= 0 && fds[1 + i].revents & (POLLIN | POLLHUP | POLLERR)) connection_read(c);
    }
    if (fds[0].revents) accept_connection();
}

bool lab_sessions_in(unsigned g)
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        if (connections[i].fd >= 0 && connections[i].guest == g) return true;
    }
    return false;
}

void lab_sessions_tell_of_those_left(const pid_t *pids)
{
    for (unsigned i = 0; i < LAB_SESSIONS_MAX; i++) {
        connection_t *c = &connections[i];
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
