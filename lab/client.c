/* The commands' side: one connection to the supervisor, one session on it. Every wait has an end where one was asked for, also that for
 * who reads our stdout. */
#include "lab/lab.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define BUFFER_MAX ((size_t)4 << 20)
#define PRINT_MAX  4096 /* at a time: what a pipe takes without blocking once it takes anything */

extern char **environ;

/* What is to be printed, in the order in which it came. */
typedef struct printer {
    lab_buffer_t waits; /* frames */
    uint8_t bytes[LAB_PAYLOAD_MAX];
    size_t at, n; /* of the frame that is being printed */
    int fd;
} printer_t;

typedef struct session {
    int fd, signals;
    bool input_open, terminal;
    uint32_t input_on_the_way;
    uint32_t written; /* of output, not yet acknowledged */
    uint64_t deadline_ns;
    lab_buffer_t in, out;
    printer_t printer;
    lab_text_t *text; /* what it prints goes there; NULL: to our stdout and stderr */
    int status;       /* -1: runs */
    bool interrupted; /* after its end, while what it printed is not taken */
} session_t;

static int connect_to(const lab_place_t *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(place->socket) >= sizeof address.sun_path) return -1;
    memcpy(address.sun_path, place->socket, strlen(place->socket));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        fd = -1;
    }
    if (fd >= 0) fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static bool session_open(session_t *s, const lab_place_t *place, unsigned timeout_ms)
{
    *s = (session_t){.signals = -1,
                     .status = -1,
                     .in.max = BUFFER_MAX,
                     .out.max = BUFFER_MAX,
                     .printer.waits.max = BUFFER_MAX};
    signal(SIGPIPE, SIG_IGN);
    s->deadline_ns = timeout_ms ? rf_clock_ns() + timeout_ms * RF_NS_PER_MS : RF_NEVER;
    s->fd = connect_to(place);
    if (s->fd < 0)
        lab_error("no lab of that name runs here (%s); start one with `rackfish lab rdma`", place->socket);
    return s->fd >= 0;
}

static void session_close(session_t *s)
{
    close(s->fd);
    if (s->signals >= 0) close(s->signals);
    lab_free(&s->in);
    lab_free(&s->out);
    lab_free(&s->printer.waits);
}

/* The descriptor that is to take what waits; -1: nothing does. */
static int printer_fd(printer_t *printer)
{
    lab_frame_t frame;
    while (printer->at == printer->n && lab_next(&printer->waits, &frame) == RF_OK) {
        memcpy(printer->bytes, frame.payload, frame.length);
        printer->at = 0;
        printer->n = frame.length;
        printer->fd = frame.type == LAB_OUTPUT ? STDOUT_FILENO : STDERR_FILENO;
    }
    return printer->at < printer->n ? printer->fd : -1;
}

/* Once poll says that it is taken. A reader that has gone is no reason to stop the program: it ends as the program decides. */
static void print_some(session_t *s)
{
    printer_t *printer = &s->printer;
    size_t left = printer->n - printer->at;
    ssize_t n = write(printer->fd, printer->bytes + printer->at, left < PRINT_MAX ? left : PRINT_MAX);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n < 0) n = (ssize_t)left;
    printer->at += (size_t)n;
    s->written += (uint32_t)n;
}

static void on_output(session_t *s, const lab_frame_t *frame)
{
    lab_text_t *text = s->text;
    if (!text) {
        if (lab_put(&s->printer.waits, frame->type, 0, frame->payload, frame->length) != RF_OK)
            s->status = LAB_LOST; /* more than the window */
        return;
    }
    s->written += frame->length;
    size_t room = sizeof text->bytes - 1 - text->used, n = frame->length < room ? frame->length : room;
    memcpy(text->bytes + text->used, frame->payload, n);
    text->used += n;
    text->bytes[text->used] = '\0';
}

static void on_frame(session_t *s, const lab_frame_t *frame)
{
    switch (frame->type) {
    case LAB_OUTPUT:
    case LAB_ERROR:
        on_output(s, frame);
        break;
    case LAB_INPUT_MORE: {
        uint32_t taken = lab_u32(frame);
        s->input_on_the_way -= taken < s->input_on_the_way ? taken : s->input_on_the_way;
        break;
    }
    case LAB_EXIT:
        s->status = (int)lab_u32(frame);
        break;
    default:
        break;
    }
}

static void read_socket(session_t *s)
{
    rf_err_t err;
    while (s->status < 0 && (err = lab_read(&s->in, s->fd)) == RF_OK) {
        lab_frame_t frame;
        while (s->status < 0 && (err = lab_next(&s->in, &frame)) == RF_OK) on_frame(s, &frame);
        if (s->status < 0 && err != RF_ERR_AGAIN) break;
    }
    if (s->status < 0 && err != RF_ERR_AGAIN) s->status = LAB_LOST;
}

static void read_stdin(session_t *s)
{
    char bytes[LAB_CHUNK];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
        s->input_open = false;
        (void)lab_put(&s->out, LAB_INPUT_END, 0, NULL, 0);
        return;
    }
    s->input_on_the_way += (uint32_t)n;
    (void)lab_put(&s->out, LAB_INPUT, 0, bytes, (size_t)n);
}

static uint32_t terminal_size(void)
{
    struct winsize size;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0) return 80u << 16 | 24;
    return (uint32_t)size.ws_col << 16 | size.ws_row;
}

static void read_signals(session_t *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (s->status >= 0)
            s->interrupted |= info.ssi_signo != SIGWINCH;
        else if (info.ssi_signo == SIGWINCH)
            (void)lab_put_u32(&s->out, LAB_SIZE, 0, terminal_size());
        else
            (void)lab_put_u32(&s->out, LAB_SIGNAL, 0, info.ssi_signo);
    }
}

/* Sends what is to be sent. Where nobody takes it any more, the status may lie in the socket all the same. */
static void write_socket(session_t *s)
{
    if (s->written) {
        (void)lab_put_u32(&s->out, LAB_OUTPUT_MORE, 0, s->written);
        s->written = 0;
    }
    if (lab_flush(&s->out, s->fd) == RF_OK) return;
    read_socket(s);
    if (s->status < 0) s->status = LAB_LOST;
}

/* Until the session has ended and what it printed is taken, or its time is over; its status. */
static int session_follow(session_t *s)
{
    for (;;) {
        if (s->status < 0) write_socket(s);
        int output = printer_fd(&s->printer);
        bool runs = s->status < 0;
        if (!runs && (output < 0 || s->interrupted)) return s->status;
        bool may_read = runs && s->input_open && s->input_on_the_way + LAB_CHUNK <= LAB_WINDOW;
        struct pollfd fds[4] = {
            {.fd = runs ? s->fd : -1, .events = lab_left(&s->out) ? POLLIN | POLLOUT : POLLIN},
            {.fd = s->signals, .events = POLLIN},
            {.fd = may_read ? STDIN_FILENO : -1, .events = POLLIN},
            {.fd = output, .events = POLLOUT},
        };
        int timeout = -1;
        if (s->deadline_ns != RF_NEVER) {
            uint64_t now = rf_clock_ns();
            if (now >= s->deadline_ns) return LAB_TIMEOUT;
            timeout = (int)((s->deadline_ns - now) / RF_NS_PER_MS) + 1;
        }
        if (poll(fds, 4, timeout) < 0) continue;
        if (fds[1].revents) read_signals(s);
        if (fds[2].revents) read_stdin(s);
        if (fds[0].revents) read_socket(s);
        if (fds[3].revents) print_some(s);
    }
}

int lab_ask(const lab_place_t *place, const char *const *words, unsigned n, unsigned timeout_ms,
            lab_text_t *answer)
{
    session_t s;
    if (!session_open(&s, place, timeout_ms)) return LAB_NO_LAB;
    s.text = answer;
    char text[256];
    size_t used = 0;
    for (unsigned i = 0; i < n && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s", words[i]) + 1;
    (void)lab_put(&s.out, LAB_ASK, 0, text, used < sizeof text ? used : sizeof text);
    int status = session_follow(&s);
    session_close(&s);
    return status;
}

/* What of our environment a guest's program gets: what says how to work, not where things are on this host. */
static bool is_wanted(const char *entry)
{
    static const char *const wanted[] = {"PATH=",
                                         "TERM=",
                                         "LANG=",
                                         "LC_",
                                         "TZ=",
                                         "RACKFISH_",
                                         "RF_",
                                         "LAB_",
                                         "NO_COLOR=",
                                         "HOME=",
                                         "LD_LIBRARY_PATH=",
                                         "ASAN_OPTIONS=",
                                         "UBSAN_OPTIONS=",
                                         "TSAN_OPTIONS=",
                                         "RDMAV_",
                                         "IBV_"};
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (strncmp(entry, wanted[i], strlen(wanted[i])) == 0) return true;
    }
    return false;
}

typedef struct words {
    char bytes[LAB_PAYLOAD_MAX];
    size_t used;
    bool full;
} words_t;

static void words_add(words_t *text, const char *word)
{
    size_t size = strlen(word) + 1;
    if (size > sizeof text->bytes - text->used) {
        text->full = true;
        return;
    }
    memcpy(text->bytes + text->used, word, size);
    text->used += size;
}

static bool put_run(session_t *s, const lab_program_t *program)
{
    static words_t text;
    char here[LAB_PATH_MAX];
    uint32_t size = terminal_size();
    lab_run_t run = {.guest = (uint16_t)program->guest,
                     .terminal = program->terminal,
                     .rows = (uint16_t)(size & 0xffff),
                     .columns = (uint16_t)(size >> 16),
                     .n_arguments = (uint16_t)program->n_arguments};
    text.used = sizeof run;
    text.full = false;
    const char *directory = program->directory;
    if (!directory) directory = getcwd(here, sizeof here);
    words_add(&text, directory ? directory : "/");
    for (unsigned i = 0; i < program->n_arguments; i++) words_add(&text, program->arguments[i]);
    for (char *const *e = environ; *e; e++) {
        if (!is_wanted(*e)) continue;
        words_add(&text, *e);
        run.n_environment++;
    }
    memcpy(text.bytes, &run, sizeof run);
    return !text.full && lab_put(&s->out, LAB_RUN, 0, text.bytes, text.used) == RF_OK;
}

int lab_run_quietly(const lab_place_t *place, const lab_program_t *program, lab_text_t *output)
{
    session_t s;
    if (!session_open(&s, place, program->timeout_ms)) return LAB_NO_LAB;
    int status = LAB_FAILED;
    s.text = output;
    if (put_run(&s, program)) {
        (void)lab_put(&s.out, LAB_INPUT_END, 0, NULL, 0);
        status = session_follow(&s);
    }
    session_close(&s);
    return status;
}

int lab_run_program(const lab_place_t *place, const lab_program_t *program)
{
    session_t s;
    if (!session_open(&s, place, program->timeout_ms)) return LAB_NO_LAB;
    if (!put_run(&s, program)) {
        session_close(&s);
        return lab_error("arguments and environment are longer than the %d bytes that fit", LAB_PAYLOAD_MAX);
    }
    s.input_open = true;
    s.terminal = program->terminal;
    sigset_t set, before;
    sigemptyset(&set);
    static const int passed[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};
    for (unsigned i = 0; i < sizeof passed / sizeof passed[0]; i++) sigaddset(&set, passed[i]);
    if (program->terminal) sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, &before);
    s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct termios mode, raw;
    bool is_raw = program->terminal && tcgetattr(STDIN_FILENO, &mode) == 0;
    if (is_raw) {
        raw = mode;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    int status = session_follow(&s);
    bool late = status == LAB_TIMEOUT && rf_clock_ns() >= s.deadline_ns;
    if (is_raw) tcsetattr(STDIN_FILENO, late ? TCSANOW : TCSADRAIN, &mode);
    if (late && s.status >= 0) {
        lab_error("guest %u: '%s' has ended, but what it printed was not taken in time", program->guest,
                  program->arguments[0]);
    } else if (late) {
        lab_explain(place, program->guest);
        lab_error("guest %u: '%s' did not end in time and is being killed", program->guest,
                  program->arguments[0]);
    }
    session_close(&s);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}
