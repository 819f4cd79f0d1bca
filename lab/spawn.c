#include "lab/spawn.h"
#include "lab/exec.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>
#include <linux/mount.h>

static pid_t kernel_pid; /* in the guest's first process: what an order stops; -1: all of its namespace */

static pid_t fork_into_namespaces(unsigned long more)
{
    unsigned long flags = CLONE_NEWPID | CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER) | SIGCHLD | more;
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
static bool prepare_mounts(uid_t uid, gid_t gid, bool own_proc)
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
    if (own_proc) (void)!mount("lab", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    return true;
}

bool lab_guest_possible(char *why, size_t max)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    pid_t pid = fork_into_namespaces(0);
    if (pid == 0) _exit(prepare_mounts(uid, gid, true) ? 0 : errno);
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

/* In a network of its own: whether there are bridges, and what wire.sh wants. The exit status says what is not. */
static int try_network(void)
{
    static const char *const tries[] = {
        "ip link add lan type bridge && ip link add v1 type veth peer name w1", "nft add table bridge lab",
        "command -v tc nsenter"};
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            int null = open("/dev/null", O_RDWR);
            dup2(null, STDOUT_FILENO);
            dup2(null, STDERR_FILENO);
            execl("/bin/sh", "sh", "-c", tries[i], (char *)NULL);
            _exit(127);
        }
        int status = 1;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            return i + 1;
    }
    return 0;
}

bool lab_hosts_possible(char *why, size_t max)
{
    static const char *const missing[] = {"", "bridges and veth pairs; install iproute2",
                                          "a packet filter for bridges; install nftables",
                                          "tc and nsenter; install iproute2 and util-linux"};
    if (geteuid() != 0) {
        snprintf(why, max, "hosts with ports for DPDK take root: network namespaces joined by veth pairs");
        return false;
    }
    if (!lab_guest_possible(why, max)) return false;
    pid_t pid = fork_into_namespaces(CLONE_NEWNET);
    if (pid == 0) _exit(try_network());
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        snprintf(why, max, "hosts need network namespaces, which this host refuses: %s", strerror(errno));
        return false;
    }
    if (WEXITSTATUS(status) == 0) return true;
    snprintf(why, max, "hosts need %s", missing[WEXITSTATUS(status) & 3]);
    return false;
}

/* ---- the guest's first process on the host ---- */

/* One order at a time: the signal is masked meanwhile, so that the next one is carried out after this. */
static void on_order(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)context;
    int before = errno;
    if (kernel_pid) kill(kernel_pid, info->si_value.sival_int ? SIGSTOP : SIGCONT);
    errno = before;
}

static void be_first_process(const lab_guest_plan_t *plan, uid_t uid, gid_t gid)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "rf-lab guest");
    /* The supervisor may have died before that line: then its end of the guest's line is closed. */
    close(plan->line_far);
    struct pollfd far = {.fd = plan->line, .events = POLLIN};
    if (poll(&far, 1, 0) > 0 && (far.revents & POLLHUP)) _exit(125);
    if (!prepare_mounts(uid, gid, plan->kernel != NULL)) {
        dprintf(plan->log, "lab: namespaces: %s\n", strerror(errno));
        _exit(125);
    }
    struct sigaction action = {.sa_sigaction = on_order, .sa_flags = SA_RESTART | SA_SIGINFO};
    sigaction(LAB_SIGNAL_ORDER, &action, NULL);
    setsid();
    pid_t child = fork();
    if (child == 0) lab_exec(plan);
    kernel_pid = plan->kernel ? child : -1;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(0, ~0u, 0);
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, 0)) != child;) {
        if (pid < 0 && errno != EINTR) break;
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

pid_t lab_guest_start(const lab_guest_plan_t *plan)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    pid_t pid = fork_into_namespaces(plan->kernel ? 0 : CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC);
    if (pid == 0) be_first_process(plan, uid, gid);
    return pid;
}
