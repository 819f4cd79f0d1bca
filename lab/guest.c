/*
 * rf-lab-guest: process 1 of a guest of the lab, once guest-init.sh has made its file systems and its network. It runs
 * programs for the supervisor, over the serial line /dev/ttyS0 (frame.h), and reaps. In a guest that has no kernel of its own
 * (host-init.sh) the line is a socket that it inherits, and process 1 its parent.
 *
 * One thread, one poll. Invariants: a session has at most LAB_WINDOW bytes of output on their way; EXIT is the last frame
 * of a session, sent when its program has ended and what it wrote has been read. A background process that keeps its
 * parent's stdout open does not delay it.
 */
#include "lab/frame.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define LINE_BACKLOG_MAX ((size_t)1 << 20) /* beyond it, no output is read from programs */
#define KILL_AFTER_MS    2000              /* between HUP and KILL to a program that nobody waits for */
#define SESSIONS_MAX     64
#define NOT_FOUND        127
#define NOT_EXECUTABLE   126

typedef struct session {
    bool used, ended, gone;
    uint16_t id;
    pid_t pid;                   /* also of its process group */
    int input, output, error;    /* -1: closed; with a terminal input and output are its master */
    bool terminal, input_ending; /* close stdin when what is left of it is written */
    uint32_t on_the_way;         /* bytes of output not yet acknowledged */
    int status;
    uint64_t kill_at_ns;
    lab_buffer_t pending_input;
} session_t;

static struct {
    bool own_kernel;
    int line, signals;
    lab_buffer_t in, out;
    session_t sessions[SESSIONS_MAX];
} guest = {.in = {.max = 4 * LAB_FRAME_MAX}, .out = {.max = 8 * LINE_BACKLOG_MAX}};

static void give_up(const char *what)
{
    fprintf(stderr, "rf-lab-guest: %s: %s\n", what, strerror(errno));
    if (guest.own_kernel) {
        sync();
        reboot(RB_POWER_OFF);
    }
    _exit(1);
}

static void put(lab_type_t type, uint16_t session, const void *payload, size_t length)
{
    if (lab_put(&guest.out, type, session, payload, length) != RF_OK) give_up("no memory for the line");
}

static void refuse(uint16_t id, int status, const char *text)
{
    put(LAB_ERROR, id, text, strlen(text));
    uint32_t word = (uint32_t)status;
    put(LAB_EXIT, id, &word, sizeof word);
}

static session_t *session_find(uint16_t id)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        if (guest.sessions[i].used && guest.sessions[i].id == id) return &guest.sessions[i];
    }
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void session_free(session_t *s)
{
    close_fd(&s->input);
    close_fd(&s->output);
    close_fd(&s->error);
    lab_free(&s->pending_input);
    *s = (session_t){0};
}

/* ---- starting a program ---- */

typedef struct words {
    char *all[1024];
    char **arguments, **environment; /* in `all`, each ended by NULL */
    const char *directory;
} words_t;

/* Decodes what follows lab_run_t in `text`, which ends with 0. */
static bool words_decode(const lab_run_t *run, char *text, size_t length, words_t *words)
{
    size_t n = 0, wanted = (size_t)run->n_arguments + run->n_environment;
    if (length == 0 || text[length - 1] != '\0' || run->n_arguments == 0) return false;
    if (wanted + 2 >= sizeof words->all / sizeof words->all[0]) return false;
    char *at = text, *end = text + length;
    words->directory = at;
    words->arguments = words->all;
    for (at += strlen(at) + 1; at < end && n < wanted + 1; at += strlen(at) + 1) {
        if (n == run->n_arguments) words->all[n++] = NULL;
        words->all[n++] = at;
    }
    if (n == run->n_arguments) words->all[n++] = NULL;
    words->all[n] = NULL;
    words->environment = words->all + run->n_arguments + 1;
    return at == end && n == wanted + 1;
}

static void become(const words_t *words, int input, int output, int error, bool terminal)
{
    setsid();
    if (terminal) ioctl(input, TIOCSCTTY, 0);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (chdir(words->directory) < 0 && chdir("/") < 0) _exit(NOT_EXECUTABLE);
    for (char *const *e = words->environment; *e; e++) putenv(*e);
    execvp(words->arguments[0], words->arguments);
    dprintf(STDERR_FILENO, "rf-lab: %s: %s\n", words->arguments[0], strerror(errno));
    _exit(errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

static bool open_terminal(const lab_run_t *run, int *master, int *slave)
{
    *master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*master < 0) return false;
    char name[64];
    if (grantpt(*master) < 0 || unlockpt(*master) < 0 || ptsname_r(*master, name, sizeof name) != 0 ||
        (*slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
        close(*master);
        return false;
    }
    struct winsize size = {.ws_row = run->rows, .ws_col = run->columns};
    ioctl(*master, TIOCSWINSZ, &size);
    return true;
}

/* The child's ends of stdin, stdout and stderr into `ends`, ours into the session. */
static bool open_streams(session_t *s, const lab_run_t *run, int ends[3])
{
    s->input = s->output = s->error = -1;
    ends[0] = ends[1] = ends[2] = -1;
    if (run->terminal) {
        int slave;
        if (!open_terminal(run, &s->output, &slave)) return false;
        s->input = fcntl(s->output, F_DUPFD_CLOEXEC, 3);
        ends[0] = ends[1] = ends[2] = slave;
    } else {
        int in[2], out[2], err[2];
        if (pipe2(in, O_CLOEXEC) < 0) return false;
        s->input = in[1], ends[0] = in[0];
        if (pipe2(out, O_CLOEXEC) < 0) return false;
        s->output = out[0], ends[1] = out[1];
        if (pipe2(err, O_CLOEXEC) < 0) return false;
        s->error = err[0], ends[2] = err[1];
        fcntl(s->error, F_SETFL, O_NONBLOCK);
    }
    fcntl(s->input, F_SETFL, O_NONBLOCK);
    fcntl(s->output, F_SETFL, O_NONBLOCK);
    return true;
}

static void on_run(const lab_frame_t *frame)
{
    static char text[LAB_PAYLOAD_MAX];
    static words_t words;
    lab_run_t run;
    if (frame->length < sizeof run || session_find(frame->session)) return;
    memcpy(&run, frame->payload, sizeof run);
    size_t length = frame->length - sizeof run;
    memcpy(text, frame->payload + sizeof run, length);
    if (!words_decode(&run, text, length, &words)) {
        refuse(frame->session, NOT_EXECUTABLE, "rf-lab: the guest cannot read these arguments\n");
        return;
    }
    session_t *s = NULL;
    for (unsigned i = 0; i < SESSIONS_MAX && !s; i++) {
        if (!guest.sessions[i].used) s = &guest.sessions[i];
    }
    if (!s) {
        refuse(frame->session, NOT_EXECUTABLE, "rf-lab: the guest runs as many programs as it can\n");
        return;
    }
    int ends[3];
    bool opened = open_streams(s, &run, ends);
    pid_t pid = opened ? fork() : -1;
    if (pid == 0) become(&words, ends[0], ends[1], ends[2], run.terminal);
    for (unsigned i = 0; i < (run.terminal ? 1 : 3); i++) {
        if (ends[i] >= 0) close(ends[i]);
    }
    if (pid < 0) {
        refuse(frame->session, NOT_EXECUTABLE, "rf-lab: the guest has no memory or descriptors left\n");
        session_free(s);
        return;
    }
    s->used = true;
    s->id = frame->session;
    s->pid = pid;
    s->terminal = run.terminal;
    s->pending_input.max = 2 * LAB_WINDOW;
}

/* ---- running programs ---- */

/* Writes what is left of its stdin, and tells how much went. */
static void feed(session_t *s)
{
    if (s->input < 0) return;
    size_t before = lab_left(&s->pending_input);
    bool broken = lab_flush(&s->pending_input, s->input) != RF_OK;
    uint32_t taken = (uint32_t)(before - (broken ? 0 : lab_left(&s->pending_input)));
    if (taken) put(LAB_INPUT_MORE, s->id, &taken, sizeof taken);
    if (broken) {
        lab_free(&s->pending_input);
        close_fd(&s->input);
    } else if (s->input_ending && lab_left(&s->pending_input) == 0) {
        close_fd(&s->input);
    }
}

static void on_input(session_t *s, const lab_frame_t *frame)
{
    lab_buffer_t *pending = &s->pending_input;
    if (s->input < 0) { /* closed: swallowed, so that the sender goes on */
        put(LAB_INPUT_MORE, s->id, &frame->length, sizeof frame->length);
        return;
    }
    if (lab_append(pending, frame->payload, frame->length) != RF_OK) return; /* beyond the window */
    feed(s);
}

static void end_of_input(session_t *s)
{
    if (s->terminal) return; /* the user's Ctrl-D came as a byte */
    s->input_ending = true;
    feed(s);
}

/* Sends what is there, within the window. True: more may be there at once. */
static bool drain(session_t *s, int *fd, lab_type_t type)
{
    char bytes[LAB_CHUNK];
    size_t room = LAB_WINDOW - s->on_the_way;
    if (*fd < 0) return false;
    if (room == 0 || lab_left(&guest.out) > LINE_BACKLOG_MAX) return true;
    ssize_t n = read(*fd, bytes, room < sizeof bytes ? room : sizeof bytes);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) { /* a terminal whose last user is gone gives EIO */
        close_fd(fd);
        return false;
    }
    s->on_the_way += (uint32_t)n;
    put(type, s->id, bytes, (size_t)n);
    return true;
}

static void session_step(session_t *s)
{
    bool more = drain(s, &s->output, LAB_OUTPUT);
    more = drain(s, &s->error, LAB_ERROR) || more;
    if (s->gone && !s->ended && rf_clock_ns() >= s->kill_at_ns) {
        kill(-s->pid, SIGKILL);
        s->kill_at_ns = RF_NEVER;
    }
    if (!s->ended || (more && !s->gone)) return;
    uint32_t status = (uint32_t)s->status;
    if (!s->gone) put(LAB_EXIT, s->id, &status, sizeof status);
    session_free(s);
}

static void reap(void)
{
    struct signalfd_siginfo info;
    while (read(guest.signals, &info, sizeof info) == (ssize_t)sizeof info)
        ;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        for (unsigned i = 0; i < SESSIONS_MAX; i++) {
            session_t *s = &guest.sessions[i];
            if (!s->used || s->pid != pid || s->ended) continue;
            s->ended = true;
            s->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            break;
        }
    }
}

static void on_frame(const lab_frame_t *frame)
{
    if (frame->type == LAB_RUN) {
        on_run(frame);
        return;
    }
    session_t *s = session_find(frame->session);
    if (!s) return; /* it has ended meanwhile */
    uint32_t number = lab_u32(frame);
    switch (frame->type) {
    case LAB_INPUT:
        on_input(s, frame);
        break;
    case LAB_INPUT_END:
        end_of_input(s);
        break;
    case LAB_OUTPUT_MORE:
        s->on_the_way -= number < s->on_the_way ? number : s->on_the_way;
        break;
    case LAB_SIGNAL:
        if (!s->ended && number > 0 && number < NSIG) kill(-s->pid, (int)number);
        break;
    case LAB_SIZE: {
        struct winsize size = {.ws_row = (unsigned short)(number & 0xffff),
                               .ws_col = (unsigned short)(number >> 16)};
        if (s->terminal) ioctl(s->output, TIOCSWINSZ, &size);
        break;
    }
    case LAB_GONE:
        s->gone = true;
        s->kill_at_ns = rf_clock_ns() + KILL_AFTER_MS * RF_NS_PER_MS;
        if (!s->ended) kill(-s->pid, SIGHUP);
        break;
    default:
        break;
    }
}

static void read_line(void)
{
    for (size_t before = lab_left(&guest.in); lab_read(&guest.in, guest.line) == RF_OK;) {
        lab_frame_t frame;
        rf_err_t err;
        uint32_t n = (uint32_t)(lab_left(&guest.in) - before);
        put(LAB_LINE_MORE, 0, &n, sizeof n);
        while ((err = lab_next(&guest.in, &frame)) == RF_OK) on_frame(&frame);
        if (err != RF_ERR_AGAIN) {
            errno = EPROTO;
            give_up("the line carries no frames");
        }
        before = lab_left(&guest.in);
    }
}

static void wait_for_something(void)
{
    struct pollfd fds[2 + 3 * SESSIONS_MAX];
    nfds_t n = 0;
    int timeout = -1;
    fds[n++] = (struct pollfd){.fd = guest.line, .events = lab_left(&guest.out) ? POLLIN | POLLOUT : POLLIN};
    fds[n++] = (struct pollfd){.fd = guest.signals, .events = POLLIN};
    bool full = lab_left(&guest.out) > LINE_BACKLOG_MAX;
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        session_t *s = &guest.sessions[i];
        if (!s->used) continue;
        if (s->gone) timeout = 100;
        bool may_send = !full && s->on_the_way < LAB_WINDOW;
        if (s->output >= 0 && may_send) fds[n++] = (struct pollfd){.fd = s->output, .events = POLLIN};
        if (s->error >= 0 && may_send) fds[n++] = (struct pollfd){.fd = s->error, .events = POLLIN};
        if (s->input >= 0 && lab_left(&s->pending_input))
            fds[n++] = (struct pollfd){.fd = s->input, .events = POLLOUT};
    }
    poll(fds, n, timeout);
}

static void open_serial_line(void)
{
    const char *path = getenv("lab_line"); /* from the kernel's command line */
    if (!path) path = "/dev/ttyS0";
    guest.line = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (guest.line < 0) give_up(path);
    struct termios mode;
    if (tcgetattr(guest.line, &mode) < 0) return; /* no terminal, which is as well */
    cfmakeraw(&mode);
    tcsetattr(guest.line, TCSANOW, &mode);
}

static void open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    guest.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (guest.signals < 0) give_up("signalfd");
}

/* rf-lab-guest [FD]: the descriptor of the line, where the guest has no kernel of its own and so no serial line. */
int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    guest.own_kernel = argc < 2;
    if (guest.own_kernel) {
        open_serial_line();
    } else {
        guest.line = (int)strtol(argv[1], NULL, 10);
        fcntl(guest.line, F_SETFL, O_NONBLOCK);
        fcntl(guest.line, F_SETFD, FD_CLOEXEC);
    }
    open_signals();
    uint32_t version = LAB_VERSION;
    put(LAB_READY, 0, &version, sizeof version);
    for (;;) {
        if (lab_flush(&guest.out, guest.line) != RF_OK) give_up("the line");
        wait_for_something();
        read_line();
        reap();
        for (unsigned i = 0; i < SESSIONS_MAX; i++) {
            if (!guest.sessions[i].used) continue;
            feed(&guest.sessions[i]);
            session_step(&guest.sessions[i]);
        }
    }
}
