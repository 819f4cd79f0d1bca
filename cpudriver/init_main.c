/*
 * rf-init: the first process of a dispatcher (init.h). PID 1 of its namespace, where there is one; a subreaper where
 * not. Starts the program as its child, reaps whatever is orphaned, tells the CPU driver how the program ended, and
 * ends; with it the kernel ends its namespace. Without a namespace it kills what is left itself, before it ends.
 *
 * It runs as the system's user, without any capability (but that to kill, without a namespace), non-dumpable, and dies with
 * its CPU driver.
 */
#include "base/clock.h"
#include "cpudriver/init.h"
#include "cpudriver/isolation.h"
#include "cpudriver/processes.h"
#include "cpudriver/program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MACHINE_ENV  2 /* variables that the machine adds */
#define KILL_WAIT_MS 20
#define KILL_TRIES   250

static const char *pointers[RF_SPAWN_ARGS_MAX + 2];
static const char *env[RF_SPAWN_ARGS_MAX + MACHINE_ENV + 1];
static rf_processes_t processes;

typedef struct rf_init {
    rf_isolation_level_t level;
    rf_spawn_t spawn;
    pid_t program;
    bool ended;
} rf_init_t;

static void report(const rf_init_report_t *what)
{
    /* The socket is never full: at most three reports are sent in its life. */
    ssize_t sent;
    do {
        sent = send(RF_INIT_REPORT_FD, what, sizeof *what, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
}

static _Noreturn void fail(rf_err_t err, int os_errno, const char *what)
{
    rf_init_report_t failed = {.kind = RF_INIT_FAILED, .err = err, .os_errno = (uint32_t)os_errno};
    snprintf(failed.what, sizeof failed.what, "%s", what);
    report(&failed);
    _exit(127);
}

static bool driver_gone(void)
{
    struct pollfd p = {.fd = RF_INIT_REPORT_FD};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void read_block(rf_init_t *init)
{
    struct stat st;
    if (fstat(RF_INIT_BLOCK_FD, &st) < 0 || st.st_size <= 0 || st.st_size > RF_SPAWN_BYTES_MAX)
        fail(RF_ERR_PROTOCOL, 0, "spawn block");
    const void *block = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, RF_INIT_BLOCK_FD, 0);
    if (block == MAP_FAILED) fail(RF_ERR_OS, errno, "spawn block");
    rf_err_t err = rf_spawn_decode(block, (size_t)st.st_size, &init->spawn, pointers,
                                   sizeof pointers / sizeof *pointers);
    if (err != RF_OK) fail(err, 0, "spawn block");
    close(RF_INIT_BLOCK_FD);
}

/* The program's environment: the block's, with the machine's own variables in place of any of that name. */
static void make_env(const rf_init_t *init, const char *modules)
{
    static char fd_entry[sizeof RF_ENV_DISPATCHER_FD + 16], module_entry[600];
    static const char *const own[] = {RF_ENV_DISPATCHER_FD "=", "RACKFISH_MODULE_PATH="};
    size_t n = 0;
    snprintf(fd_entry, sizeof fd_entry, "%s%d", own[0], RF_DISPATCHER_FD);
    snprintf(module_entry, sizeof module_entry, "%s%s", own[1], modules);
    for (uint32_t i = 0; i < init->spawn.n_env; i++) {
        const char *entry = init->spawn.env[i];
        if (strncmp(entry, own[0], strlen(own[0])) != 0 && strncmp(entry, own[1], strlen(own[1])) != 0)
            env[n++] = entry;
    }
    env[n++] = fd_entry;
    env[n++] = module_entry;
    env[n] = NULL;
}

static void start_program(rf_init_t *init, char **argv, const sigset_t *unblocked)
{
    int failure[2];
    if (pipe2(failure, O_CLOEXEC) < 0) fail(RF_ERR_OS, errno, "pipe");
    init->program = fork();
    if (init->program < 0) fail(RF_ERR_OS, errno, "fork");
    if (init->program == 0) {
        rf_program_t program = {
            .spawn = &init->spawn,
            .uid = (unsigned)strtoul(argv[RF_INIT_ARG_UID], NULL, 10),
            .gid = (unsigned)strtoul(argv[RF_INIT_ARG_GID], NULL, 10),
            .nofile_soft = strtoull(argv[RF_INIT_ARG_NOFILE], NULL, 10),
            .env = env,
            .executable = init->spawn.flags & RF_SPAWN_EXECUTABLE ? RF_INIT_EXECUTABLE_FD : -1,
            .failure = failure[1],
        };
        report(&(rf_init_report_t){.kind = RF_INIT_CHILD});
        close(RF_INIT_REPORT_FD);
        for (int signo = 1; signo < NSIG; signo++) signal(signo, SIG_DFL);
        sigprocmask(SIG_SETMASK, unblocked, NULL);
        rf_program_exec(&program);
    }
    /* Nothing of the program's may be held open by us, or its readers would never see the end. */
    rf_privileges_drop(init->level == RF_ISOLATION_NONE ? 1ull << CAP_KILL : 0); /* for kill_descendants() */
    close(failure[1]);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= 2; fd++) {
        if (null >= 0)
            dup2(null, fd);
        else
            close(fd);
    }
    close(RF_DISPATCHER_FD);
    close(RF_INIT_EXECUTABLE_FD);
    if (null > 2) close(null);
    rf_init_report_t said = {0};
    ssize_t got;
    do {
        got = read(failure[0], &said, sizeof said);
    } while (got < 0 && errno == EINTR);
    close(failure[0]);
    if (got == (ssize_t)sizeof said) {
        report(&said);
        _exit(127);
    }
    report(&(rf_init_report_t){.kind = RF_INIT_STARTED});
}

static void reap(rf_init_t *init)
{
    int status;
    struct rusage usage;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &usage)) > 0;) {
        if (pid != init->program) continue;
        struct rusage all;
        getrusage(RUSAGE_CHILDREN, &all);
        init->ended = true;
        report(&(rf_init_report_t){
            .kind = RF_INIT_ENDED,
            .wait_status = status,
            .user_us = (uint64_t)all.ru_utime.tv_sec * 1000000 + (uint64_t)all.ru_utime.tv_usec,
            .system_us = (uint64_t)all.ru_stime.tv_sec * 1000000 + (uint64_t)all.ru_stime.tv_usec,
            .max_rss_kib = (uint64_t)all.ru_maxrss,
        });
    }
}

/* Without a namespace: ends every descendant. Those whose parents die become our children, so this comes to an end. */
static void kill_descendants(void)
{
    const pid_t self = getpid();
    /* Who cannot be killed in that time (uninterruptible in the kernel) is left to the CPU driver, which reports it. */
    for (unsigned i = 0; i < KILL_TRIES; i++) {
        rf_processes_scan(&processes, &self, 1);
        rf_processes_signal(&processes, 0, SIGSTOP); /* so that nobody forks away meanwhile */
        rf_processes_signal(&processes, 0, SIGKILL);
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (pid < 0 && errno == ECHILD) return;
        poll(NULL, 0, KILL_WAIT_MS);
    }
}

int main(int argc, char **argv)
{
    static rf_init_t init;
    sigset_t watched, unblocked;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (argc != RF_INIT_ARGS) {
        fprintf(stderr, "rf-init: started by rf-cpudriver only\n");
        return 2;
    }
    init.level = (rf_isolation_level_t)strtoul(argv[RF_INIT_ARG_LEVEL], NULL, 10);
    if (init.level != RF_ISOLATION_NONE) prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (driver_gone()) return 1;
    sigemptyset(&unblocked);
    sigfillset(&watched);
    sigprocmask(SIG_SETMASK, &watched, NULL);
    int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) fail(RF_ERR_OS, errno, "signalfd");
    if (init.level == RF_ISOLATION_NONE && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        fail(RF_ERR_OS, errno, "subreaper");
    int err = rf_isolation_mount(init.level);
    if (err != 0) fail(RF_ERR_OS, err, "mount /proc");
    setsid();
    read_block(&init);
    make_env(&init, argv[RF_INIT_ARG_MODULES]);
    start_program(&init, argv, &unblocked);

    struct pollfd waits[] = {{.fd = signals, .events = POLLIN}, {.fd = RF_INIT_REPORT_FD, .events = 0}};
    while (!init.ended) {
        struct signalfd_siginfo info;
        if (poll(waits, 2, -1) < 0 && errno != EINTR) break;
        if (waits[1].revents & (POLLHUP | POLLERR)) break; /* the CPU driver has ended, or wants us to */
        while (read(signals, &info, sizeof info) > 0)
            ;
        reap(&init);
    }
    if (init.level == RF_ISOLATION_NONE) kill_descendants();
    return 0;
}
