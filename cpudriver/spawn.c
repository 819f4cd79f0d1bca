#include "cpudriver/fence.h"
#include "cpudriver/spawn.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"
#include "cpudriver/dispatcher.h"
#include "cpudriver/init.h"
#include "cpudriver/isolation.h"
#include "cpudriver/kernel_link.h"
#include "cpudriver/program.h"
#include "cpudriver/realtime.h"
#include "cpudriver/scheduler.h"
#include "cpudriver/share.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PASSWD_BYTES  65536
#define GROUPS_MAX    1024
#define FD_OUT_OF_WAY 300 /* above every number that rf-init expects something at */
#define SEALS_ALL     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

/* One creation at a time: prepare runs to its end in one turn. */
static uint8_t block[RF_SPAWN_BYTES_MAX];
static const char *pointers[RF_SPAWN_ARGS_MAX + 2];

/* What the new process, still an image of this one, needs to become rf-init. */
typedef struct rf_newborn {
    const rf_spawn_t *spawn;
    const char *name;
    int stdio[3], link, report, block, executable; /* -1: none */
    int entry;                                     /* of the scheduler's group; -1: none */
    uint64_t nofile_soft;
} rf_newborn_t;

/* ---- in the new process ---- */

static _Noreturn void newborn_fail(const rf_newborn_t *n, rf_err_t err, int os_errno, const char *what,
                                   const char *on)
{
    rf_init_report_t report = {.kind = RF_INIT_FAILED, .err = err, .os_errno = (uint32_t)os_errno};
    snprintf(report.what, sizeof report.what, "%s%s%s", what, *on ? " " : "", on);
    send(n->report, &report, sizeof report, MSG_NOSIGNAL);
    _exit(127);
}

static void raise_ambient(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0) return;
    for (unsigned i = 0; i < 2; i++) data[i].inheritable = data[i].permitted;
    if (syscall(SYS_capset, &header, data) < 0) return;
    for (unsigned cap = 0; cap < 64; cap++) {
        if (data[cap / 32].permitted & (1u << (cap % 32)))
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
    }
}

/* Whom the program runs as, by name; blocks as long as the host's user database does, here where it hurts nobody. */
static void find_user(rf_cpudriver_t *driver, const rf_newborn_t *n, unsigned *uid, unsigned *gid)
{
    static char room[PASSWD_BYTES];
    const char *name = n->spawn->user;
    struct passwd entry, *found = NULL;
    *uid = geteuid();
    *gid = getegid();
    if (!*name) {
        if (driver->boot->privileged) newborn_fail(n, RF_ERR_PERMISSION, 0, "user", "(none was named)");
        return;
    }
    int err = getpwnam_r(name, &entry, room, sizeof room, &found);
    if (!found) newborn_fail(n, RF_ERR_NOT_FOUND, err, "user", name);
    if (!driver->isolation.changes_user) {
        if (entry.pw_uid != *uid) newborn_fail(n, RF_ERR_PERMISSION, EPERM, "user", name);
        return;
    }
    if (entry.pw_uid == 0 && !(driver->boot->allow_root && (n->spawn->flags & RF_SPAWN_ROOT)))
        newborn_fail(n, RF_ERR_PERMISSION, 0, "user root, without allow_root:", name);
    if (driver->boot->privileged && entry.pw_uid != 0 && entry.pw_uid == driver->boot->system_uid)
        newborn_fail(n, RF_ERR_PERMISSION, 0, "the system's own user", name);
    if (initgroups(name, entry.pw_gid) < 0) newborn_fail(n, RF_ERR_OS, errno, "groups of", name);
    *uid = entry.pw_uid;
    *gid = entry.pw_gid;
}

static void place_descriptors(const rf_newborn_t *n)
{
    const struct {
        int from, to;
    } moves[] = {
        {n->stdio[0], 0},
        {n->stdio[1], 1},
        {n->stdio[2], 2},
        {n->link, RF_DISPATCHER_FD},
        {n->report, RF_INIT_REPORT_FD},
        {n->block, RF_INIT_BLOCK_FD},
        {n->executable, RF_INIT_EXECUTABLE_FD},
    };
    enum { MOVES = sizeof moves / sizeof *moves };
    int high[MOVES];
    for (size_t i = 0; i < MOVES; i++) {
        high[i] = moves[i].from < 0 ? -1 : fcntl(moves[i].from, F_DUPFD_CLOEXEC, FD_OUT_OF_WAY);
        if (high[i] < 0 && moves[i].from >= 0) newborn_fail(n, RF_ERR_LIMIT, errno, "descriptors", "");
    }
    for (size_t i = 0; i < MOVES; i++) {
        if (high[i] < 0)
            close(moves[i].to);
        else
            dup2(high[i], moves[i].to);
    }
    close_range(3, RF_DISPATCHER_FD - 1, 0);
    close_range(RF_DISPATCHER_FD + 1, RF_INIT_REPORT_FD - 1, 0);
    close_range(RF_INIT_FDS_END, ~0u, 0);
}

static void restore_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int signo = 1; signo < NSIG; signo++) signal(signo, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Our guard against running without end (realtime.c) is no limit of the program's. */
static void restore_limits(void)
{
    struct rlimit guard;
    if (getrlimit(RLIMIT_RTTIME, &guard) < 0) return;
    guard.rlim_cur = guard.rlim_max;
    setrlimit(RLIMIT_RTTIME, &guard);
}

static _Noreturn void newborn_main(rf_cpudriver_t *driver, const rf_newborn_t *n)
{
    char life[RF_FENCE_LIFE_MAX], level[12], uid_text[12], gid_text[12], nofile[24],
        path[sizeof driver->boot->libexec_dir + 16], go;
    unsigned uid = 0, gid = 0;
    restore_signals();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (recv(n->report, &go, sizeof go, 0) != sizeof go)
        _exit(127); /* abandoned, or the CPU driver is dead */
    restore_limits();
    int err = n->entry >= 0 ? driver->scheduler->enter(driver, n->entry) : 0;
    if (err != 0) newborn_fail(n, RF_ERR_OS, err, "cgroup", "");
    err = rf_isolation_map_user(&driver->isolation, driver->boot->system_uid, driver->boot->system_gid);
    if (err != 0) newborn_fail(n, RF_ERR_OS, err, "user namespace", "");
    find_user(driver, n, &uid, &gid);
    raise_ambient();
    place_descriptors(n);
    rf_fence_life(life, &driver->boot->machine, driver->core, driver->incarnation);
    snprintf(level, sizeof level, "%d", (int)driver->isolation.level);
    snprintf(uid_text, sizeof uid_text, "%u", uid);
    snprintf(gid_text, sizeof gid_text, "%u", gid);
    snprintf(nofile, sizeof nofile, "%llu", (unsigned long long)n->nofile_soft);
    snprintf(path, sizeof path, "%s/rf-init", driver->boot->libexec_dir);
    const char *argv[RF_INIT_ARGS + 1] = {
        [0] = "rf-init",
        [RF_INIT_ARG_NAME] = n->name,
        [RF_INIT_ARG_LIFE] = life,
        [RF_INIT_ARG_LEVEL] = level,
        [RF_INIT_ARG_UID] = uid_text,
        [RF_INIT_ARG_GID] = gid_text,
        [RF_INIT_ARG_MODULES] = driver->boot->module_dir,
        [RF_INIT_ARG_NOFILE] = nofile,
    };
    const char *env[] = {NULL};
    if (driver->isolation.level == RF_ISOLATION_NONE)
        prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0); /* it kills what it started first, then itself */
    execve(path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    rf_newborn_t placed = *n;
    placed.report = RF_INIT_REPORT_FD;
    newborn_fail(&placed, RF_ERR_EXEC, errno, "exec", path);
}

/* ---- in the CPU driver ---- */

static void close_newborn(rf_newborn_t *n)
{
    int *const owned[] = {&n->link, &n->report, &n->block, &n->entry};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        if (*owned[i] >= 0) close(*owned[i]);
        *owned[i] = -1;
    }
}

static rf_err_t read_block(int fd, rf_spawn_t *spawn, size_t *size)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > RF_SPAWN_BYTES_MAX) return RF_ERR_PROTOCOL;
    /* A memory object, so that reading it can neither block nor fault; copied, since its maker may still write. */
    rf_err_t err = rf_memory_check(fd, (size_t)st.st_size);
    if (err != RF_OK) return err;
    if (pread(fd, block, (size_t)st.st_size, 0) != st.st_size) return RF_ERR_PROTOCOL;
    *size = (size_t)st.st_size;
    return rf_spawn_decode(block, *size, spawn, pointers, sizeof pointers / sizeof *pointers);
}

/* A copy for rf-init that nobody can change any more. */
static int seal_block(size_t size)
{
    int fd = memfd_create("rackfish-spawn", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && (rf_write_all(fd, block, size) != RF_OK || fcntl(fd, F_ADD_SEALS, SEALS_ALL) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static rf_dispatcher_t *free_slot(rf_cpudriver_t *driver)
{
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        if (driver->dispatchers[i].state == RF_DISPATCHER_FREE) return &driver->dispatchers[i];
    }
    return NULL;
}

static int open_domain_log(const rf_cpudriver_t *driver, const rf_dispatcher_t *d)
{
    char path[sizeof driver->boot->run_dir + 64];
    snprintf(path, sizeof path, "%s/domain-%llu.%u.log", driver->boot->run_dir, (unsigned long long)d->domain,
             d->index);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static uint64_t realtime_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * RF_NS_PER_S + (uint64_t)t.tv_nsec;
}

static rf_err_t check(rf_cpudriver_t *driver, const rf_kernel_create_t *create, const int *fds,
                      unsigned n_fds, rf_spawn_t *spawn, size_t *size)
{
    if (driver->stopping) return RF_ERR_CLOSED;
    if (create->domain == RF_DOMAIN_NONE || create->index >= RF_DISPATCHERS_PER_DOMAIN_MAX || n_fds == 0 ||
        create->n_fds != n_fds)
        return RF_ERR_INVALID;
    if (rf_core_find(driver, create->domain, create->index)) return RF_ERR_EXISTS;
    rf_err_t err = read_block(fds[0], spawn, size);
    if (err != RF_OK) return err;
    if (n_fds !=
        1 + (spawn->flags & RF_SPAWN_STDIO ? 3u : 0u) + (spawn->flags & RF_SPAWN_EXECUTABLE ? 1u : 0u))
        return RF_ERR_INVALID;
    if (!(spawn->flags & RF_SPAWN_STDIO) && (spawn->flags & RF_SPAWN_TTY)) return RF_ERR_INVALID;
    if (!rf_share_admits(driver->reserved_permille_total, 0, spawn->reserved_permille)) return RF_ERR_LIMIT;
    return RF_OK;
}

rf_err_t rf_spawn_prepare(rf_cpudriver_t *driver, const rf_kernel_create_t *create, const int *fds,
                          unsigned n_fds, rf_dispatcher_t **out, rf_kernel_created_t *why)
{
    rf_spawn_t spawn;
    size_t size = 0;
    char name[64];
    int link[2] = {-1, -1}, report[2] = {-1, -1}, null = -1, log = -1, pidfd = -1;
    rf_newborn_t n = {.spawn = &spawn, .name = name, .link = -1, .report = -1, .block = -1, .entry = -1};
    rf_err_t err = check(driver, create, fds, n_fds, &spawn, &size);
    if (err != RF_OK) return err;
    rf_dispatcher_t *d = free_slot(driver);
    if (!d) return RF_ERR_LIMIT;
    d->domain = create->domain;
    d->index = create->index;
    d->tty = (spawn.flags & RF_SPAWN_TTY) != 0;
    d->reserved_permille = spawn.reserved_permille;
    d->weight = spawn.weight ? spawn.weight : RF_SHARE_WEIGHT_USUAL;
    d->span_args_size = spawn.span_args_size;
    if (spawn.span_args_size) memcpy(d->span_args, spawn.span_args, spawn.span_args_size);
    snprintf(name, sizeof name, "core %u, domain %llu.%u", driver->core, (unsigned long long)d->domain,
             d->index);

    const int one = 1;
    const char *what = "descriptors";
    n.block = seal_block(size);
    bool made = n.block >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) == 0 &&
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) == 0 &&
                setsockopt(report[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0;
    n.link = link[1];
    n.report = report[1];
    if (made && spawn.flags & RF_SPAWN_STDIO) {
        memcpy(n.stdio, fds + 1, sizeof n.stdio);
    } else if (made) {
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        log = open_domain_log(driver, d);
        n.stdio[0] = null;
        n.stdio[1] = n.stdio[2] = log;
        what = "log of the domain";
        made = null >= 0 && log >= 0;
    }
    n.executable = spawn.flags & RF_SPAWN_EXECUTABLE ? fds[n_fds - 1] : -1;
    n.nofile_soft = driver->nofile_soft;
    if (!made) {
        err = RF_ERR_OS;
        goto close_descriptors;
    }
    what = "cgroup";
    err = driver->scheduler->add(driver, d);
    if (err != RF_OK) goto close_descriptors;
    n.entry = driver->scheduler->entry_open(driver, d);
    what = "process";
    pid_t pid = rf_isolation_clone(&driver->isolation, &pidfd);
    if (pid < 0) {
        err = RF_ERR_OS;
        goto remove_group;
    }
    if (pid == 0) newborn_main(driver, &n);
    d->init_pid = pid;
    what = "descriptors";
    /* From here on the sources own what they are given. */
    err = rf_dispatcher_adopt(driver, d, pidfd, report[0]);
    report[0] = -1;
    if (err == RF_OK) {
        fcntl(link[0], F_SETFL, O_NONBLOCK);
        err = rf_kernel_link_attach(driver, d, link[0]);
        link[0] = -1;
    }
    if (err != RF_OK) goto kill_newborn;
    close_newborn(&n);
    if (null >= 0) close(null);
    if (log >= 0) close(log);
    *out = d;
    return RF_OK;

kill_newborn:
    why->os_errno = (uint32_t)errno;
    kill(pid, SIGKILL); /* it waits for us, has touched nothing, and is at once gone */
    rf_realtime_reap(driver->realtime, pid, NULL, 0);
    rf_source_close(driver, &d->exit);
    rf_source_close(driver, &d->report);
    rf_kernel_link_detach(driver, d);
    errno = (int)why->os_errno;
remove_group:
    why->os_errno = (uint32_t)errno;
    driver->scheduler->remove(driver, d);
    errno = (int)why->os_errno;
close_descriptors:
    why->os_errno = (uint32_t)errno;
    snprintf(why->what, sizeof why->what, "%s", what);
    close_newborn(&n);
    const int rest[] = {link[0], report[0], null, log};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        if (rest[i] >= 0) close(rest[i]);
    }
    rf_dispatcher_clear(d);
    rf_log(RF_LOG_WARN, "cannot create domain %llu.%u: %s: %s", (unsigned long long)create->domain,
           create->index, why->what, strerror((int)why->os_errno));
    return err;
}

void rf_spawn_commit(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint32_t tag)
{
    const char go = 1;
    d->state = RF_DISPATCHER_STARTING;
    d->create_tag = tag;
    d->create_err = RF_ERR_CANCELLED; /* unless it reports something better */
    d->started_ns = realtime_ns();
    driver->reserved_permille_total += d->reserved_permille;
    driver->scheduler->update(driver);
    if (send(d->report.fd, &go, sizeof go, MSG_NOSIGNAL) != sizeof go)
        rf_log(RF_LOG_WARN, "%s died before it began", rf_dispatcher_name(d));
}

/* ---- the monitor ---- */

static _Noreturn void monitor_main(rf_cpudriver_t *driver, int link, int log, pid_t parent)
{
    char path[sizeof driver->boot->libexec_dir + 16], core[12], incarnation[16];
    char fd_entry[64], module_entry[600], level_entry[64] = "", sanitizer_entry[256] = "";
    restore_signals();
    restore_limits();
    if (getegid() != driver->boot->system_gid || geteuid() != driver->boot->system_uid) {
        const gid_t gid = driver->boot->system_gid;
        const uid_t uid = driver->boot->system_uid;
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0) {
            rf_log(RF_LOG_ERROR, "the monitor cannot become user %u: %s", uid, strerror(errno));
            _exit(127);
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent) _exit(127);
    rf_privileges_drop(0);
    if (log >= 0) dup2(log, 2);
    dup2(2, 1);
    int null = open("/dev/null", O_RDONLY);
    if (null > 0) dup2(null, 0);
    int high_link = fcntl(link, F_DUPFD_CLOEXEC, FD_OUT_OF_WAY);
    int high_boot = fcntl(driver->boot_fd, F_DUPFD_CLOEXEC, FD_OUT_OF_WAY);
    int high_lease = fcntl(driver->lease_fd, F_DUPFD_CLOEXEC, FD_OUT_OF_WAY);
    dup2(high_link, RF_DISPATCHER_FD);
    dup2(high_boot, RF_BOOT_FD);
    dup2(high_lease, RF_LEASE_FD);
    _Static_assert(RF_BOOT_FD == RF_DISPATCHER_FD + 1 && RF_LEASE_FD == RF_BOOT_FD + 1,
                   "all between is kept");
    close_range(3, RF_DISPATCHER_FD - 1, 0);
    close_range(RF_LEASE_FD + 1, ~0u, 0);
    snprintf(path, sizeof path, "%s/rf-monitor", driver->boot->libexec_dir);
    snprintf(core, sizeof core, "%u", driver->core);
    snprintf(incarnation, sizeof incarnation, "%u", driver->incarnation);
    snprintf(fd_entry, sizeof fd_entry, "%s=%d", RF_ENV_DISPATCHER_FD, RF_DISPATCHER_FD);
    snprintf(module_entry, sizeof module_entry, "RACKFISH_MODULE_PATH=%s", driver->boot->module_dir);
    const char *argv[] = {"rf-monitor", core, incarnation, NULL};
    const char *env[8] = {"PATH=/usr/local/bin:/usr/bin:/bin", fd_entry, module_entry};
    size_t n_env = 3;
    const char *level = getenv("RACKFISH_LOG"), *sanitizer = getenv("ASAN_OPTIONS");
    if (level) {
        snprintf(level_entry, sizeof level_entry, "RACKFISH_LOG=%.32s", level);
        env[n_env++] = level_entry;
    }
    if (sanitizer) {
        snprintf(sanitizer_entry, sizeof sanitizer_entry, "ASAN_OPTIONS=%.200s", sanitizer);
        env[n_env++] = sanitizer_entry;
    }
    execve(path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    rf_log(RF_LOG_ERROR, "cannot start %s: %s", path, strerror(errno));
    _exit(127);
}

rf_err_t rf_spawn_monitor(rf_cpudriver_t *driver)
{
    static const rf_isolation_t plain = {.level = RF_ISOLATION_NONE};
    char path[sizeof driver->boot->run_dir + 32];
    rf_dispatcher_t *d = &driver->monitor;
    int link[2], pidfd = -1;
    const pid_t self = getpid();
    d->is_monitor = true;
    d->weight = RF_SHARE_WEIGHT_USUAL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0) {
        rf_log(RF_LOG_ERROR, "no socket for the monitor's kernel link: %s", strerror(errno));
        return RF_ERR_OS;
    }
    snprintf(path, sizeof path, "%s/monitor-%u.log", driver->boot->run_dir, driver->core);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log < 0) rf_log(RF_LOG_WARN, "the monitor logs here, since %s: %s", path, strerror(errno));
    pid_t pid = rf_isolation_clone(&plain, &pidfd);
    if (pid == 0) monitor_main(driver, link[1], log, self);
    close(link[1]);
    if (log >= 0) close(log);
    if (pid < 0) {
        rf_log(RF_LOG_ERROR, "cannot start the monitor: %s", strerror(errno));
        close(link[0]);
        return RF_ERR_OS;
    }
    d->init_pid = d->pid = pid;
    d->state = RF_DISPATCHER_RUNNING;
    d->started_ns = realtime_ns();
    rf_err_t err = rf_dispatcher_adopt(driver, d, pidfd, -1);
    fcntl(link[0], F_SETFL, O_NONBLOCK);
    if (err == RF_OK) return rf_kernel_link_attach(driver, d, link[0]);
    close(link[0]);
    return err;
}
