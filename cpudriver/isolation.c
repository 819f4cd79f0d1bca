#include "cpudriver/isolation.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t rf_isolation_clone(const rf_isolation_t *isolation, int *pidfd)
{
    int fd = -1;
    struct clone_args args = {
        .flags = CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&fd,
        .exit_signal = SIGCHLD,
    };
    if (isolation->level != RF_ISOLATION_NONE)
        args.flags |= CLONE_NEWPID | CLONE_NEWNS | (isolation->user_namespace ? CLONE_NEWUSER : 0);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid > 0) *pidfd = fd;
    return pid;
}

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    ssize_t wrote = write(fd, text, strlen(text));
    int err = wrote == (ssize_t)strlen(text) ? 0 : errno;
    close(fd);
    return err;
}

int rf_isolation_map_user(const rf_isolation_t *isolation, unsigned uid, unsigned gid)
{
    char map[48];
    if (!isolation->user_namespace) return 0;
    /* The maps of a process that is not dumpable belong to root; nobody else sees this one yet. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    int err = write_text("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1\n", uid, uid);
    if (err == 0) err = write_text("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1\n", gid, gid);
    if (err == 0) err = write_text("/proc/self/gid_map", map);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return err;
}

int rf_isolation_mount(rf_isolation_level_t level)
{
    if (level == RF_ISOLATION_NONE) return 0;
    if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return errno;
    if (level == RF_ISOLATION_PID_PROC &&
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return errno;
    return 0;
}

/* Whether a child of this kind comes to life; errno of what was refused else. */
static int try_level(const rf_isolation_t *isolation)
{
    unsigned uid = geteuid(), gid = getegid();
    int pidfd = -1, status = 0;
    pid_t pid = rf_isolation_clone(isolation, &pidfd);
    if (pid < 0) return errno;
    if (pid == 0) {
        int err = rf_isolation_map_user(isolation, uid, gid);
        if (err == 0) err = rf_isolation_mount(isolation->level);
        _exit(err);
    }
    close(pidfd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINVAL;
}

void rf_isolation_probe(rf_isolation_t *out)
{
    static const rf_isolation_t tries[] = {
        {.level = RF_ISOLATION_PID_PROC, .text = "PID and mount namespace"},
        {.level = RF_ISOLATION_PID_PROC, .user_namespace = true, .text = "user, PID and mount namespace"},
        {.level = RF_ISOLATION_PID, .text = "PID namespace, with the host's /proc"},
        {.level = RF_ISOLATION_PID,
         .user_namespace = true,
         .text = "user and PID namespace, with the host's /proc"},
    };
    const char *wanted = getenv("RACKFISH_ISOLATION");
    int refused = 0;
    *out = (rf_isolation_t){.level = RF_ISOLATION_NONE};
    if (wanted && strcmp(wanted, "none") == 0) {
        snprintf(out->text, sizeof out->text, "none: asked for by RACKFISH_ISOLATION");
        return;
    }
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        int err = try_level(&tries[i]);
        if (err == 0) {
            *out = tries[i];
            return;
        }
        refused = err;
    }
    snprintf(out->text, sizeof out->text, "none: this host refuses PID namespaces (%s)", strerror(refused));
}
