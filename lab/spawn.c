#include "lab/spawn.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>
#include <linux/mount.h>

#define FD_LINE  9
#define FD_CABLE 10 /* and one more for each other guest */
#define FD_END   (FD_CABLE + LAB_HOSTS_MAX + 1)

static pid_t kernel_pid; /* in the guest's first process */

static pid_t fork_into_namespaces(void)
{
    unsigned long flags = CLONE_NEWPID | CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER) | SIGCHLD;
    return (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, 0);
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool well = fd >= 0 && rf_write_all(fd, text, strlen(text)) == RF_OK;
    if (fd >= 0) close(fd);
    return well;
}

/* In the new namespaces: the host's files read-only, a fresh /dev/shm for the guest's memory, a /proc of its own. */
static bool prepare_mounts(uid_t uid, gid_t gid)
{
    if (uid != 0) {
        char map[64];
        snprintf(map, sizeof map, "0 %u 1", uid);
        if (!write_text("/proc/self/uid_map", map)) return false;
        if (!write_text("/proc/self/setgroups", "deny")) return false;
        snprintf(map, sizeof map, "0 %u 1", gid);
        if (!write_text("/proc/self/gid_map", map)) return false;
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return false;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr) < 0) return false;
    if (mount("lab", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700") < 0) return false;
    /* Read-only too: a guest's root may be root here. Refused in some containers, and only nicer with it. */
    (void)!mount("lab", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    return true;
}

bool lab_guest_possible(char *why, size_t max)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    pid_t pid = fork_into_namespaces();
    if (pid == 0) _exit(prepare_mounts(uid, gid) ? 0 : errno);
    int status = 0;
    if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    int error = pid < 0 ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
    snprintf(why, max, "guests need %s, which this host refuses: %s; %s",
             uid == 0 ? "pid and mount namespaces" : "user, pid and mount namespaces", strerror(error),
             uid == 0 ? "start it outside of a container, or in one with CAP_SYS_ADMIN"
                      : "start it as root, or allow them: sysctl kernel.unprivileged_userns_clone=1");
    return false;
}

/* ---- the kernel's own process ---- */

#define ARGUMENTS_MAX 64

typedef struct arguments {
    char text[8192];
    size_t used, n;
    char *words[ARGUMENTS_MAX];
} arguments_t;

static void add(arguments_t *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(arguments_t *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *at = a->text + a->used;
    int n = vsnprintf(at, sizeof a->text - a->used, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof a->text - a->used || a->n + 1 >= ARGUMENTS_MAX) _exit(125);
    a->used += (size_t)n + 1;
    a->words[a->n++] = at;
}

static void take_fd(int from, int to)
{
    if (from == to)
        fcntl(to, F_SETFD, 0);
    else
        dup2(from, to);
}

static void become_kernel(const lab_guest_plan_t *plan)
{
    static arguments_t a;
    /* First above all the numbers that are wanted, so that none is overwritten. */
    int line = fcntl(plan->line, F_DUPFD, FD_END), log = fcntl(plan->log, F_DUPFD, FD_END);
    int cable[LAB_HOSTS_MAX + 1];
    for (unsigned g = 1; g <= plan->hosts; g++)
        cable[g] = plan->cable[g] < 0 ? -1 : fcntl(plan->cable[g], F_DUPFD, FD_END);
    take_fd(log, STDOUT_FILENO);
    take_fd(log, STDERR_FILENO);
    int null = open("/dev/null", O_RDONLY);
    take_fd(null, STDIN_FILENO);
    take_fd(line, FD_LINE);
    add(&a, "linux");
    add(&a, "mem=%uM", plan->memory_mib);
    add(&a, "root=/dev/root");
    add(&a, "rootfstype=hostfs");
    add(&a, "rootflags=/");
    add(&a, "ro");
    add(&a, "con=null");
    add(&a, "con0=null,fd:1");
    add(&a, "con1=null");
    add(&a, "ssl=null");
    add(&a, "ssl0=fd:%d", FD_LINE);
    add(&a, "quiet");
    add(&a, "panic=-1");
    add(&a, "uml_dir=/dev/shm/uml");
    add(&a, "umid=lab%u", plan->guest);
    for (unsigned g = 1; g <= plan->hosts; g++) {
        if (cable[g] < 0) continue;
        take_fd(cable[g], FD_CABLE + (int)g);
        add(&a, "vec%u:transport=fd,fd=%d,mac=02:52:46:00:%02x:%02x,mtu=%u,depth=64", g, FD_CABLE + (int)g, g,
            plan->guest, plan->mtu);
    }
    close_range(FD_END, ~0u, 0);
    add(&a, "init=%s/guest-init.sh", plan->lib);
    add(&a, "lab_lib=%s", plan->lib);
    add(&a, "lab_guest=%u", plan->guest);
    add(&a, "lab_hosts=%u", plan->hosts);
    add(&a, "lab_device=%s", plan->device);
    add(&a, "lab_mtu=%u", plan->mtu);
    static char tmpdir[] = "TMPDIR=/dev/shm", path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *environment[] = {tmpdir, path, NULL};
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    sigset_t empty;
    sigemptyset(&empty);
    sigprocmask(SIG_SETMASK, &empty, NULL);
    execve(plan->kernel, a.words, environment);
    dprintf(STDOUT_FILENO, "lab: cannot start %s: %s\n", plan->kernel, strerror(errno));
    _exit(127);
}

/* ---- the guest's first process on the host ---- */

static void freeze_or_thaw(int signo)
{
    if (kernel_pid > 0) kill(kernel_pid, signo == LAB_SIGNAL_FREEZE ? SIGSTOP : SIGCONT);
}

static void be_first_process(const lab_guest_plan_t *plan, uid_t uid, gid_t gid)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "rf-lab guest");
    /* The supervisor may have died before that line: then its end of the guest's line is closed. */
    close(plan->line_far);
    struct pollfd far = {.fd = plan->line, .events = POLLIN};
    if (poll(&far, 1, 0) > 0 && (far.revents & POLLHUP)) _exit(125);
    if (!prepare_mounts(uid, gid)) {
        dprintf(plan->log, "lab: namespaces: %s\n", strerror(errno));
        _exit(125);
    }
    struct sigaction action = {.sa_handler = freeze_or_thaw, .sa_flags = SA_RESTART};
    sigaction(LAB_SIGNAL_FREEZE, &action, NULL);
    sigaction(LAB_SIGNAL_THAW, &action, NULL);
    setsid();
    kernel_pid = fork();
    if (kernel_pid == 0) become_kernel(plan);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(0, ~0u, 0);
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, 0)) != kernel_pid;) {
        if (pid < 0 && errno != EINTR) break;
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

pid_t lab_guest_start(const lab_guest_plan_t *plan)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    pid_t pid = fork_into_namespaces();
    if (pid == 0) be_first_process(plan, uid, gid);
    return pid;
}
