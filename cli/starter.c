#include "cli/starter.h"

#include "base/clock.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINES_FD_MIN 64 /* out of the way of the numbers that children are given */

static int signals_fd = -1;
static sigset_t mask_before;

bool starter_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &mask_before);
    signals_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return signals_fd >= 0;
}

/* In the child: descriptors to their places, then the program. */
_Noreturn static void become(const starter_exec_t *exec, int line_fd)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    /* The line descriptor first: its number may be one that is overwritten next. */
    int lines = fcntl(line_fd, F_DUPFD_CLOEXEC, LINES_FD_MIN);
    int pass = exec->pass_fd;
    dup2(exec->stdin_fd >= 0 ? exec->stdin_fd : null_fd, STDIN_FILENO);
    dup2(exec->log_fd >= 0 ? exec->log_fd : lines, STDERR_FILENO);
    dup2(exec->line_fd_target == STDOUT_FILENO ? lines
         : exec->log_fd >= 0                   ? exec->log_fd
                                               : null_fd,
         STDOUT_FILENO);
    if (exec->line_fd_target != STDOUT_FILENO) dup2(lines, exec->line_fd_target);
    /* Nothing else that our caller gave us goes to a process that outlives us. */
    close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    if (exec->line_fd_target != STDOUT_FILENO) fcntl(exec->line_fd_target, F_SETFD, 0);
    if (pass >= 0) fcntl(pass, F_SETFD, 0);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &mask_before, NULL);
    umask(022);
    if (chdir("/") < 0) _exit(127);
    execvp(exec->argv[0], (char **)(uintptr_t)exec->argv);
    dprintf(lines, "error cannot execute %s: %s\n", exec->argv[0], strerror(errno));
    _exit(127);
}

bool starter_start(starter_t *starter, const starter_exec_t *exec)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) return false;
    fflush(NULL);
    starter->pid = fork();
    if (starter->pid == 0) become(exec, fds[1]);
    close(fds[1]);
    if (starter->pid < 0) {
        close(fds[0]);
        return false;
    }
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    starter->fd = fds[0];
    starter->state = STARTER_WAITING;
    if (starter->expected == 0) starter->expected = 1;
    return true;
}

static void take_line(starter_t *starter, const char *line)
{
    if (strncmp(line, "progress ", 9) == 0) {
        snprintf(starter->said, sizeof starter->said, "%s", line + 9);
    } else if (strcmp(line, "ready") == 0 || strncmp(line, "ready ", 6) == 0) {
        if (starter->state == STARTER_WAITING && --starter->expected == 0) starter->state = STARTER_READY;
    } else if (strncmp(line, "error ", 6) == 0) {
        snprintf(starter->said, sizeof starter->said, "%s", line + 6);
        starter->state = STARTER_FAILED;
    } else if (*line && starter->state == STARTER_WAITING) {
        snprintf(starter->said, sizeof starter->said, "%s", line);
    }
}

/* The last line of the log: the reason of a rackfishd that ended without a word. */
static void last_words(starter_t *starter)
{
    char text[4096];
    int fd = starter->log[0] ? open(starter->log, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    off_t size = lseek(fd, 0, SEEK_END);
    off_t from = size > (off_t)sizeof text - 1 ? size - (off_t)sizeof text + 1 : 0;
    ssize_t n = pread(fd, text, sizeof text - 1, from);
    close(fd);
    if (n <= 0) return;
    text[n] = '\0';
    while (n > 0 && text[n - 1] == '\n') text[--n] = '\0';
    const char *line = strrchr(text, '\n');
    snprintf(starter->said, sizeof starter->said, "%.*s", (int)sizeof starter->said - 1,
             line ? line + 1 : text);
}

static void on_end(starter_t *starter)
{
    int status = 0;
    close(starter->fd);
    starter->fd = -1;
    if (starter->state != STARTER_WAITING) return;
    /* Closed without "ready": it has died, or is about to. */
    starter->state = STARTER_FAILED;
    for (unsigned i = 0; i < 100 && waitpid(starter->pid, &status, WNOHANG) == 0; i++) rf_clock_sleep_ms(10);
    if (!starter->said[0] || starter->log[0]) last_words(starter);
    if (!starter->said[0])
        snprintf(starter->said, sizeof starter->said,
                 WIFSIGNALED(status) ? "killed by signal %d" : "ended with status %d",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void read_lines(starter_t *starter)
{
    for (;;) {
        char chunk[512];
        ssize_t n = read(starter->fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        for (ssize_t i = 0; i < n; i++) {
            if (chunk[i] == '\n') {
                starter->line[starter->used] = '\0';
                take_line(starter, starter->line);
                starter->used = 0;
            } else if (starter->used + 1 < sizeof starter->line) {
                starter->line[starter->used++] = chunk[i];
            }
        }
        if (n <= 0) {
            on_end(starter);
            return;
        }
    }
}

static int take_signal(void)
{
    struct signalfd_siginfo info;
    while (read(signals_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGCHLD) return (int)info.ssi_signo;
    }
    return 0;
}

int starter_follow(starter_t *starters, size_t n, uint64_t deadline_ns,
                   void (*progress)(const starter_t *starters, size_t n, void *context), void *context)
{
    struct pollfd p[RF_NODES_MAX + 1];
    for (;;) {
        size_t ready = 0;
        for (size_t i = 0; i < n; i++) {
            if (starters[i].state == STARTER_FAILED) return CLI_FAILED;
            ready += starters[i].state == STARTER_READY;
            p[i] = (struct pollfd){.fd = starters[i].state == STARTER_WAITING ? starters[i].fd : -1,
                                   .events = POLLIN};
        }
        if (ready == n) return CLI_OK;
        uint64_t now = rf_clock_ns();
        if (now >= deadline_ns) return CLI_TIMEOUT;
        p[n] = (struct pollfd){.fd = signals_fd, .events = POLLIN};
        uint64_t left_ms = (deadline_ns - now) / RF_NS_PER_MS + 1;
        if (poll(p, n + 1, left_ms > 60000 ? 60000 : (int)left_ms) < 0 && errno != EINTR) return CLI_FAILED;
        int signo = take_signal();
        if (signo) return 128 + signo;
        for (size_t i = 0; i < n; i++) {
            if (p[i].fd >= 0 && p[i].revents) read_lines(&starters[i]);
        }
        progress(starters, n, context);
    }
}
