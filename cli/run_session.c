#include "cli/run.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/run_output.h"
#include "cli/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define UPLOAD_AHEAD     (512u << 10) /* bytes of a shipped file packed but not yet sent */
#define UPLOAD_CHUNK     (128u << 10)
#define REPLIES_PER_TURN 64
#define START_TIMEOUT_MS 60000 /* for a node to start the program, shipping not counted */

enum { OUT = 0, ERR = 1 };

typedef enum session_state { STARTING, SHIPPING, RUNNING, ENDED } session_state_t;

typedef struct session {
    client_t client;
    session_state_t state;
    uint32_t core;
    uint64_t id, domain;
    uint64_t started_waiting_ns;
    uint64_t stdin_credit;
    bool stdin_open;
    uint64_t owed[2]; /* credit to give back when the sink has drained */
    run_lines_t lines[2];
    int upload_fd;
    char **wanted; /* paths that the node asked for */
    size_t n_wanted, next_wanted;
    int status; /* as an exit status */
    int signo;  /* it died by this */
} session_t;

typedef struct run {
    const cli_t *cli;
    run_plan_t *plan;
    session_t *sessions;
    size_t n_sessions, n_ended;
    run_sink_t sinks[2];
    bool stdin_eof;
    int signals;
    struct pollfd *polls;
} run_t;

/* ---- sending ---- */

static void session_send(session_t *s, request_t *request)
{
    request->id = s->id;
    client_queue(&s->client, request);
}

static void session_send_data(session_t *s, Rackfish__RunStream stream, const void *bytes, size_t size,
                              bool end)
{
    Rackfish__RunData data = RACKFISH__RUN_DATA__INIT;
    data.stream = stream;
    data.data = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)bytes};
    data.end = end;
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_RUN_DATA;
    request.run_data = &data;
    session_send(s, &request);
}

static void session_send_signal(session_t *s, int signo)
{
    Rackfish__RunSignal signal_message = RACKFISH__RUN_SIGNAL__INIT;
    signal_message.signal = signo;
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_RUN_SIGNAL;
    request.run_signal = &signal_message;
    session_send(s, &request);
}

static void session_send_size(session_t *s)
{
    Rackfish__RunResize size = RACKFISH__RUN_RESIZE__INIT;
    terminal_size(&size.rows, &size.columns);
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_RUN_RESIZE;
    request.run_resize = &size;
    session_send(s, &request);
}

static void session_send_credit(session_t *s, unsigned stream)
{
    Rackfish__RunCredit credit = RACKFISH__RUN_CREDIT__INIT;
    credit.stream = stream == OUT ? RACKFISH__RUN_STREAM__STDOUT : RACKFISH__RUN_STREAM__STDERR;
    credit.bytes = s->owed[stream];
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_RUN_CREDIT;
    request.run_credit = &credit;
    session_send(s, &request);
    s->owed[stream] = 0;
}

/* ---- our output ---- */

static void write_sink(run_t *run, unsigned which)
{
    int failed = run_sink_write(&run->sinks[which], run->plan->cores != NULL);
    if (failed == 0) return;
    if (failed != EPIPE)
        cli_error(run->cli, "writing %s: %s", which == OUT ? "stdout" : "stderr", strerror(failed));
    for (size_t i = 0; i < run->n_sessions; i++) {
        if (run->sessions[i].state == RUNNING)
            session_send_data(&run->sessions[i],
                              which == OUT ? RACKFISH__RUN_STREAM__STDOUT : RACKFISH__RUN_STREAM__STDERR,
                              NULL, 0, true);
    }
}

/* What its lines begin with; good until the next call. */
static const char *label_of(const run_t *run, const session_t *s)
{
    static char label[32];
    if (!run->plan->label) return "";
    snprintf(label, sizeof label, "core %u: ", s->core);
    return label;
}

/* ---- a session's life ---- */

static void session_end(run_t *run, session_t *s, int status)
{
    if (s->state == ENDED) return;
    s->state = ENDED;
    s->status = status;
    s->stdin_open = false;
    run->n_ended++;
    for (unsigned which = 0; which < 2; which++)
        run_lines_end(&s->lines[which], &run->sinks[which], label_of(run, s));
    client_close(&s->client);
}

/* As a shell says it. A name that no folder of PATH has is not found, also when one of them may not be looked into. */
static int status_of_failed_start(const run_t *run, const reply_t *reply)
{
    if (reply->err != RF_ERR_EXEC) return CLI_RUN_FAILED;
    bool absent = reply->os_errno == 0 || reply->os_errno == ENOENT || reply->os_errno == ENOTDIR;
    return absent || !strchr(run->plan->start.executable, '/') ? CLI_RUN_NOT_FOUND : CLI_RUN_NOT_EXECUTABLE;
}

static void on_started(run_t *run, session_t *s, const Rackfish__RunStarted *started)
{
    s->state = RUNNING;
    s->domain = started->domain;
    s->core = started->core;
    s->stdin_credit = started->stdin_credit;
    if (run->plan->start.detach) {
        if (run->cli->json) {
            json_t json = json_on(stdout);
            json_object_begin(&json, NULL);
            json_u64(&json, "domain", started->domain);
            json_u64(&json, "core", started->core);
            json_string(&json, "node", started->node);
            json_object_end(&json);
            json_line_end(&json);
        } else {
            printf("%llu\n", (unsigned long long)started->domain);
            fflush(stdout);
        }
        session_end(run, s, CLI_OK);
        return;
    }
    if (!s->stdin_open || run->stdin_eof) session_send_data(s, RACKFISH__RUN_STREAM__STDIN, NULL, 0, true);
    if (run->plan->interactive) session_send_size(s);
}

static void on_exit_message(run_t *run, session_t *s, const Rackfish__RunExit *end)
{
    if (end->reason != RF_OK) {
        cli_error(run->cli, "domain %llu on core %u was lost: %s", (unsigned long long)s->domain, s->core,
                  end->reason == RF_ERR_PEER_DEAD ? "its core or host died"
                                                  : rf_err_text((rf_err_t)end->reason));
        session_end(run, s, CLI_RUN_FAILED);
    } else if (WIFSIGNALED(end->wait_status)) {
        s->signo = WTERMSIG(end->wait_status);
        session_end(run, s, 128 + s->signo);
    } else {
        session_end(run, s, WEXITSTATUS(end->wait_status));
    }
}

static void on_need(run_t *run, session_t *s, Rackfish__RunNeedExecutable *need)
{
    if (s->state != STARTING || need->n_paths == 0) {
        cli_error(run->cli, "the node asked for files at a time when it may not");
        session_end(run, s, CLI_RUN_FAILED);
        return;
    }
    /* Only files that we offered are ever sent. */
    for (size_t i = 0; i < need->n_paths; i++) {
        bool offered = false;
        for (size_t k = 0; k < run->plan->n_files && !offered; k++)
            offered = run->plan->files[k].known && strcmp(run->plan->files[k].path, need->paths[i]) == 0;
        if (!offered) {
            cli_error(run->cli, "the node asked for %s, which this run did not offer", need->paths[i]);
            session_end(run, s, CLI_RUN_FAILED);
            return;
        }
    }
    s->wanted = need->paths;
    s->n_wanted = need->n_paths;
    s->next_wanted = 0;
    need->paths = NULL; /* now ours */
    need->n_paths = 0;
    s->state = SHIPPING;
}

/* Packs the next pieces of the files that the node asked for, a bounded amount ahead of the socket. */
static void ship(run_t *run, session_t *s)
{
    static uint8_t chunk[UPLOAD_CHUNK];
    while (s->state == SHIPPING && s->client.out_used < UPLOAD_AHEAD) {
        char *path = s->wanted[s->next_wanted];
        if (s->upload_fd < 0 && (s->upload_fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
            cli_error(run->cli, "cannot read %s to ship it: %s", path, strerror(errno));
            session_end(run, s, CLI_RUN_FAILED);
            return;
        }
        ssize_t n = read(s->upload_fd, chunk, sizeof chunk);
        if (n < 0) {
            cli_error(run->cli, "cannot read %s to ship it: %s", path, strerror(errno));
            session_end(run, s, CLI_RUN_FAILED);
            return;
        }
        Rackfish__RunExecutable piece;
        rackfish__run_executable__init(&piece);
        piece.path = path;
        piece.data = (ProtobufCBinaryData){(size_t)n, chunk};
        piece.end = n == 0;
        request_t request = REQUEST_INIT;
        request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_RUN_EXECUTABLE;
        request.run_executable = &piece;
        session_send(s, &request);
        if (n == 0) {
            close(s->upload_fd);
            s->upload_fd = -1;
            free(path);
            s->wanted[s->next_wanted++] = NULL;
            if (s->next_wanted == s->n_wanted) {
                s->state = STARTING;
                s->started_waiting_ns = rf_clock_ns();
            }
        }
    }
}

static void on_data(run_t *run, session_t *s, const Rackfish__RunData *data)
{
    unsigned which = data->stream == RACKFISH__RUN_STREAM__STDERR ? ERR : OUT;
    s->owed[which] += data->data.len;
    if (run->plan->cores)
        run_lines_add(&s->lines[which], &run->sinks[which], label_of(run, s), data->data.data,
                      data->data.len);
    else
        run_sink_append(&run->sinks[which], data->data.data, data->data.len);
}

static void on_reply(run_t *run, session_t *s, reply_t *reply)
{
    if (reply->err != RF_OK) {
        client_refused(run->cli, reply);
        session_end(run, s, s->state == RUNNING ? CLI_RUN_FAILED : status_of_failed_start(run, reply));
        return;
    }
    switch (reply->kind_case) {
    case RACKFISH__CONTROL_REPLY__KIND_RUN_STARTED:
        if (s->state == STARTING) on_started(run, s, reply->run_started);
        break;
    case RACKFISH__CONTROL_REPLY__KIND_RUN_NEED_EXECUTABLE:
        on_need(run, s, reply->run_need_executable);
        break;
    case RACKFISH__CONTROL_REPLY__KIND_RUN_DATA:
        on_data(run, s, reply->run_data);
        break;
    case RACKFISH__CONTROL_REPLY__KIND_RUN_CREDIT:
        if (reply->run_credit->stream == RACKFISH__RUN_STREAM__STDIN)
            s->stdin_credit += reply->run_credit->bytes;
        break;
    case RACKFISH__CONTROL_REPLY__KIND_RUN_EXIT:
        on_exit_message(run, s, reply->run_exit);
        break;
    default: /* of a later minor version */
        break;
    }
}

static void session_receive(run_t *run, session_t *s)
{
    /* A bounded number at a time: signals and the other sessions get their turn. turn() comes back for the rest. */
    for (unsigned i = 0; i < REPLIES_PER_TURN && s->state != ENDED; i++) {
        reply_t *reply;
        rf_err_t err = client_poll(&s->client, &reply);
        if (err == RF_ERR_AGAIN) return;
        if (err != RF_OK) {
            if (s->state == RUNNING)
                cli_error(
                    run->cli,
                    "node %s closed the connection: the outcome of domain %llu is unknown; `rackfish ps -a` "
                    "may tell",
                    s->client.node, (unsigned long long)s->domain);
            else
                client_lost(run->cli, &s->client, err);
            session_end(run, s, CLI_RUN_FAILED);
            return;
        }
        on_reply(run, s, reply);
        client_reply_free(reply);
    }
}

/* ---- our input and signals ---- */

/* How much of stdin every session that gets it can take now; 0: wait. */
static size_t stdin_room(const run_t *run)
{
    size_t room = RUN_DATA_MAX;
    bool anyone = false;
    for (size_t i = 0; i < run->n_sessions; i++) {
        const session_t *s = &run->sessions[i];
        if (!s->stdin_open || s->state == ENDED) continue;
        anyone = true;
        if (s->state != RUNNING || s->client.out_used > RUN_DATA_MAX) return 0;
        if (s->stdin_credit < room) room = s->stdin_credit;
    }
    return anyone ? room : 0;
}

static void read_stdin(run_t *run)
{
    static uint8_t bytes[RUN_DATA_MAX];
    size_t room = stdin_room(run);
    if (room == 0) return;
    ssize_t n = read(STDIN_FILENO, bytes, room);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    run->stdin_eof = n <= 0;
    for (size_t i = 0; i < run->n_sessions; i++) {
        session_t *s = &run->sessions[i];
        if (!s->stdin_open || s->state != RUNNING) continue;
        session_send_data(s, RACKFISH__RUN_STREAM__STDIN, bytes, n > 0 ? (size_t)n : 0, n <= 0);
        s->stdin_credit -= n > 0 ? (uint64_t)n : 0;
        if (n <= 0) s->stdin_open = false;
    }
}

static void send_now(run_t *run)
{
    for (size_t i = 0; i < run->n_sessions; i++) {
        if (run->sessions[i].state != ENDED) client_flush(&run->sessions[i].client);
    }
}

/* True: the command is to die by this signal now. */
static bool on_signal(run_t *run, int signo)
{
    if (signo == SIGWINCH) {
        for (size_t i = 0; i < run->n_sessions && run->plan->interactive; i++) {
            if (run->sessions[i].state == RUNNING) session_send_size(&run->sessions[i]);
        }
        return false;
    }
    bool forwarded = false;
    for (size_t i = 0; i < run->n_sessions; i++) {
        if (run->sessions[i].state == RUNNING) {
            session_send_signal(&run->sessions[i], signo);
            forwarded = true;
        }
    }
    if (signo == SIGTSTP) {
        send_now(run);
        terminal_restore();
        raise(SIGSTOP);
        if (run->plan->interactive) terminal_raw();
        return false;
    }
    if (signo == SIGCONT) {
        if (run->plan->interactive) terminal_raw();
        return false;
    }
    /* Before the program runs, and after it ended, there is nobody to tell. */
    return !forwarded;
}

static int open_signals(void)
{
    static const int forwarded[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH};
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++) sigaddset(&set, forwarded[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool take_signals(run_t *run, int *signo)
{
    struct signalfd_siginfo info;
    while (read(run->signals, &info, sizeof info) == sizeof info) {
        if (on_signal(run, (int)info.ssi_signo)) {
            *signo = (int)info.ssi_signo;
            return false;
        }
    }
    return true;
}

/* ---- the loop ---- */

static void give_credit_back(run_t *run)
{
    for (unsigned which = 0; which < 2; which++) {
        if (run->sinks[which].used > RUN_SINK_MAX) continue;
        for (size_t i = 0; i < run->n_sessions; i++) {
            session_t *s = &run->sessions[i];
            /* Not for every byte: a message for each half of the window. */
            uint64_t least = (run->plan->cores ? RUN_CREDIT_ALL : RUN_CREDIT) / 2;
            if (s->state == RUNNING && s->owed[which] >= least) session_send_credit(s, which);
        }
    }
}

static int next_deadline_ms(const run_t *run)
{
    int timeout = -1;
    for (size_t i = 0; i < run->n_sessions; i++) {
        const session_t *s = &run->sessions[i];
        if (s->state != ENDED && client_has_reply(&s->client)) return 0;
        if (s->state == STARTING) timeout = 1000;
    }
    /* A background job may come to the foreground without a signal: look again now and then. */
    if (!run->stdin_eof && !terminal_may_read() && (timeout < 0 || timeout > 300)) timeout = 300;
    return timeout;
}

static void check_deadlines(run_t *run)
{
    uint64_t now = rf_clock_ns();
    for (size_t i = 0; i < run->n_sessions; i++) {
        session_t *s = &run->sessions[i];
        if (s->state == STARTING && now > s->started_waiting_ns + START_TIMEOUT_MS * RF_NS_PER_MS) {
            cli_error(run->cli, "the node did not start the program within %d s", START_TIMEOUT_MS / 1000);
            session_end(run, s, CLI_RUN_FAILED);
        }
    }
}

/* Waits for something to do and does it. False: die by *signo. */
static bool turn(run_t *run, int *signo)
{
    enum { SIGNALS, INPUT, OUTPUT, ERRORS, FIXED };
    struct pollfd *p = run->polls;
    bool may_read = !run->stdin_eof && stdin_room(run) > 0 && terminal_may_read();
    p[SIGNALS] = (struct pollfd){.fd = run->signals, .events = POLLIN};
    p[INPUT] = (struct pollfd){.fd = may_read ? STDIN_FILENO : -1, .events = POLLIN};
    for (unsigned which = 0; which < 2; which++)
        p[OUTPUT + which] =
            (struct pollfd){.fd = run->sinks[which].used ? run->sinks[which].fd : -1, .events = POLLOUT};
    for (size_t i = 0; i < run->n_sessions; i++) {
        session_t *s = &run->sessions[i];
        /* A sink that is full takes nothing more: then the sockets wait, and the nodes run out of credit. */
        p[FIXED + i] = (struct pollfd){.fd = s->state == ENDED ? -1 : s->client.fd,
                                       .events = (short)(POLLIN | (s->client.out_used ? POLLOUT : 0))};
    }
    int n = poll(p, FIXED + run->n_sessions, next_deadline_ms(run));
    if (n < 0 && errno != EINTR) return true;
    if (p[SIGNALS].revents && !take_signals(run, signo)) return false;
    if (n > 0 && p[INPUT].revents) read_stdin(run);
    for (size_t i = 0; i < run->n_sessions; i++) {
        session_t *s = &run->sessions[i];
        bool due = (n > 0 && p[FIXED + i].revents) || client_has_reply(&s->client);
        if (due && s->state != ENDED) session_receive(run, s);
        if (s->state == SHIPPING) ship(run, s);
    }
    for (unsigned which = 0; which < 2; which++) {
        if (run->sinks[which].used) write_sink(run, which);
    }
    give_credit_back(run);
    send_now(run);
    check_deadlines(run);
    return true;
}

static bool open_session(run_t *run, size_t i)
{
    session_t *s = &run->sessions[i];
    run_plan_t *plan = run->plan;
    bool first = i == 0;
    int status = client_open(run->cli, &s->client);
    if (status != CLI_OK) {
        session_end(run, s, CLI_RUN_FAILED);
        return false;
    }
    if (plan->cores) s->core = plan->cores[i];
    plan->start.core = plan->cores ? (int32_t)plan->cores[i] : plan->start.core;
    s->stdin_open = !plan->start.detach && (first || plan->stdin_all);
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_RUN;
    request.run = &plan->start;
    s->id = client_queue(&s->client, &request);
    s->started_waiting_ns = rf_clock_ns();
    if (s->id == 0) {
        cli_error(run->cli, "arguments and environment take more than %u KiB", CLIENT_FRAME_MAX >> 10);
        session_end(run, s, CLI_RUN_FAILED);
        return false;
    }
    client_flush(&s->client);
    return true;
}

static void free_run(run_t *run)
{
    for (size_t i = 0; i < run->n_sessions; i++) {
        session_t *s = &run->sessions[i];
        if (s->state != ENDED) client_close(&s->client);
        if (s->upload_fd >= 0) close(s->upload_fd);
        for (size_t k = 0; k < s->n_wanted; k++) free(s->wanted[k]);
        free(s->wanted);
        free(s->lines[OUT].bytes);
        free(s->lines[ERR].bytes);
    }
    free(run->sinks[OUT].bytes);
    free(run->sinks[ERR].bytes);
    free(run->sessions);
    free(run->polls);
    if (run->signals >= 0) close(run->signals);
}

static int worst_status(const run_t *run, int *signo)
{
    int worst = CLI_OK;
    for (size_t i = 0; i < run->n_sessions; i++) {
        if (run->sessions[i].status > worst) worst = run->sessions[i].status;
    }
    if (run->n_sessions == 1) *signo = run->sessions[0].signo;
    return worst;
}

int run_sessions(const cli_t *cli, run_plan_t *plan, int *signo)
{
    run_t run = {.cli = cli, .plan = plan, .n_sessions = plan->cores ? plan->n_cores : 1, .signals = -1};
    *signo = 0;
    run.sessions = calloc(run.n_sessions, sizeof *run.sessions);
    run.polls = calloc(run.n_sessions + 4, sizeof *run.polls);
    if (!run.sessions || !run.polls) {
        free(run.sessions);
        free(run.polls);
        cli_error(cli, "out of memory");
        return CLI_RUN_FAILED;
    }
    for (size_t i = 0; i < run.n_sessions; i++) {
        run.sessions[i].upload_fd = -1;
        run.sessions[i].client.fd = -1;
    }
    run.signals = open_signals();
    run_sink_open(&run.sinks[OUT], STDOUT_FILENO);
    run_sink_open(&run.sinks[ERR], STDERR_FILENO);
    for (size_t i = 0; i < run.n_sessions; i++) open_session(&run, i);
    if (plan->interactive && run.n_ended < run.n_sessions) terminal_raw();
    bool alive = true;
    while (alive && (run.n_ended < run.n_sessions || run.sinks[OUT].used || run.sinks[ERR].used))
        alive = turn(&run, signo);
    terminal_restore();
    int status = alive ? worst_status(&run, signo) : 128 + *signo;
    free_run(&run);
    return status;
}
