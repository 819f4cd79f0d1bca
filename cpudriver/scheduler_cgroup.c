/*
 * One cgroup a dispatcher, under the folder that the node was given (boot->cgroup):
 *
 *   <prefix>/core-N/r-DOMAIN.INDEX        reserved shares
 *                  /best/DOMAIN.INDEX     best effort; `best` has what is not reserved
 *
 * The monitor is in none of them: it stays in the CPU driver's own group, beside all domains, see share.h.
 *
 * Weights are share.h's, written as cpu.shares (v1) or cpu.weight (v2). The kernel's scheduler is work-conserving, so
 * an idle reservation is used by others. All core-N groups have the same weight: emulated cores that share a CPU share
 * it equally. Groups are joined by the new process itself before it changes its user (v1 lets only root and a process's
 * own user move it), and removed when its processes are gone.
 *
 * v2 asks whoever moves a process for the right to write to the nearest group above both ends, and that is root's when this
 * CPU driver was started outside of <prefix>. A privileged one may become any user, so the new process joins as root, and
 * then is itself again (cgroup_as_root). What is needed is tried when the CPU driver starts.
 */
#include "cpudriver/scheduler.h"

#include "base/log.h"
#include "cpudriver/isolation.h"
#include "cpudriver/realtime.h"
#include "cpudriver/share.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GROUP_NAME_MAX 64
#define REMOVE_TRIES   100
#define REMOVE_WAIT_MS 10
#define TRIAL_GROUP    "best/trial"
#define MOVE_PASSES    64 /* over a group's processes, which may fork meanwhile */

static rf_err_t write_at(int folder, const char *path, const char *text)
{
    int fd = openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return RF_ERR_OS;
    ssize_t wrote = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return wrote == (ssize_t)strlen(text) ? RF_OK : RF_ERR_OS;
}

static ssize_t read_at(int folder, const char *path, char *out, size_t max)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t got = read(fd, out, max - 1);
    close(fd);
    if (got >= 0) out[got] = 0;
    return got;
}

static rf_err_t set_weight(rf_cpudriver_t *driver, const char *group, uint32_t weight)
{
    char path[GROUP_NAME_MAX + 16], text[16];
    snprintf(path, sizeof path, "%s/%s", group, driver->cgroup_v2 ? "cpu.weight" : "cpu.shares");
    snprintf(text, sizeof text, "%u", weight);
    return write_at(driver->cgroup_fd, path, text);
}

static void group_name(char out[GROUP_NAME_MAX], const rf_dispatcher_t *d, bool reserved)
{
    snprintf(out, GROUP_NAME_MAX, "%s%llu.%u", reserved ? "r-" : "best/", (unsigned long long)d->domain,
             d->index);
}

/* Removes the groups below `folder` and then `name` itself; those that hold processes stay. */
static void remove_groups(int folder, const char *name, unsigned depth)
{
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    if (dir) {
        while (depth > 0 && (entry = readdir(dir))) {
            if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
                remove_groups(dirfd(dir), entry->d_name, depth - 1);
        }
        closedir(dir);
    } else if (fd >= 0) {
        close(fd);
    }
    unlinkat(folder, name, AT_REMOVEDIR);
}

/* Joins by a new opening of `entry` as root, whose only right here is to be root: the file is open to our group. */
static int enter_as_root(int entry)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    const uid_t uid = geteuid();
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", entry);
    prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (syscall(SYS_capget, &header, data) < 0 || setresuid((uid_t)-1, 0, (uid_t)-1) < 0) return errno;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int err = fd >= 0 && write(fd, "0", 1) == 1 ? 0 : errno;
    if (fd >= 0) close(fd);
    if (setresuid((uid_t)-1, uid, (uid_t)-1) < 0 || syscall(SYS_capset, &header, data) < 0) return errno;
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return err;
}

static int cgroup_enter(const rf_cpudriver_t *driver, int entry)
{
    if (driver->cgroup_as_root) return enter_as_root(entry);
    return write(entry, "0", 1) == 1 ? 0 : errno;
}

/* The group's list of processes, to be written by those who join. */
static int procs_open(const rf_cpudriver_t *driver, const char *group)
{
    char path[GROUP_NAME_MAX + 16];
    snprintf(path, sizeof path, "%s/cgroup.procs", group);
    if (driver->cgroup_as_root && fchmodat(driver->cgroup_fd, path, 0664, 0) < 0) return -1;
    return openat(driver->cgroup_fd, path, O_WRONLY | O_CLOEXEC);
}

/* Whether a process of ours can join a group, this way; errno else. */
static int try_enter(rf_cpudriver_t *driver, bool as_root)
{
    static const rf_isolation_t plain = {.level = RF_ISOLATION_NONE};
    int pidfd, status = -1, err = 0;
    driver->cgroup_as_root = as_root;
    if (mkdirat(driver->cgroup_fd, TRIAL_GROUP, 0755) < 0 && errno != EEXIST) return errno;
    int entry = procs_open(driver, TRIAL_GROUP);
    pid_t pid = entry >= 0 ? rf_isolation_clone(&plain, &pidfd) : -1;
    if (pid == 0) _exit(cgroup_enter(driver, entry));
    if (pid < 0) err = errno;
    if (entry >= 0) close(entry);
    if (pid > 0) {
        close(pidfd);
        rf_realtime_reap(driver->realtime, pid, &status, 0);
        err = WIFEXITED(status) ? WEXITSTATUS(status) : EINVAL;
    }
    unlinkat(driver->cgroup_fd, TRIAL_GROUP, AT_REMOVEDIR);
    return err;
}

static void cgroup_close(rf_cpudriver_t *driver)
{
    char name[32];
    close(driver->cgroup_fd);
    driver->cgroup_fd = -1;
    int prefix = open(driver->boot->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (prefix < 0) return;
    snprintf(name, sizeof name, "core-%u", driver->core);
    for (unsigned i = 0; i < REMOVE_TRIES; i++) { /* what was killed may still be on its way out */
        remove_groups(prefix, name, 2);
        if (faccessat(prefix, name, F_OK, 0) < 0) break;
        poll(NULL, 0, REMOVE_WAIT_MS);
    }
    close(prefix);
}

static rf_err_t cgroup_open(rf_cpudriver_t *driver, char *why, size_t why_max)
{
    const rf_boot_core_t *core = &driver->boot->cores[driver->core];
    char name[32], text[256];
    if (driver->boot->cgroup[0] == 0) {
        snprintf(why, why_max, "no cgroup with a cpu controller was given to this node");
        return RF_ERR_NOT_SUPPORTED;
    }
    int prefix = open(driver->boot->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (prefix < 0) {
        snprintf(why, why_max, "%.100s: %s", driver->boot->cgroup, strerror(errno));
        return RF_ERR_NOT_SUPPORTED;
    }
    driver->cgroup_best_weight = 0;
    driver->cgroup_v2 = faccessat(prefix, "cpu.shares", F_OK, 0) < 0;
    if (driver->cgroup_v2) {
        write_at(prefix, "cgroup.subtree_control", "+cpu");
        write_at(prefix, "cgroup.subtree_control", "+cpuset");
    }
    snprintf(name, sizeof name, "core-%u", driver->core);
    remove_groups(prefix, name, 2); /* what a predecessor may have left */
    if ((mkdirat(prefix, name, 0755) < 0 && errno != EEXIST) ||
        (driver->cgroup_fd = openat(prefix, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        snprintf(why, why_max, "%.100s/%s: %s", driver->boot->cgroup, name, strerror(errno));
        close(prefix);
        return RF_ERR_NOT_SUPPORTED;
    }
    close(prefix);
    if (driver->cgroup_v2) {
        snprintf(text, sizeof text, "%u", core->cpu);
        write_at(driver->cgroup_fd, "cpuset.cpus", text); /* where the controller is delegated too */
        write_at(driver->cgroup_fd, "cgroup.subtree_control", "+cpu");
    }
    if (mkdirat(driver->cgroup_fd, "best", 0755) == 0 && driver->cgroup_v2)
        write_at(driver->cgroup_fd, "best/cgroup.subtree_control", "+cpu");
    if (set_weight(driver, "best", rf_share_weight_permille(1000)) != RF_OK) {
        snprintf(why, why_max, "%.100s has no cpu controller that may be used: %s", driver->boot->cgroup,
                 strerror(errno));
        cgroup_close(driver);
        return RF_ERR_NOT_SUPPORTED;
    }
    int err = try_enter(driver, false);
    if (err != 0 && driver->isolation.changes_user) err = try_enter(driver, true);
    if (err != 0) {
        snprintf(why, why_max, "%.100s cannot be joined from this group: %s", driver->boot->cgroup,
                 strerror(err));
        cgroup_close(driver);
        return RF_ERR_NOT_SUPPORTED;
    }
    if (core->cpu_shared)
        snprintf(driver->scheduler_text, sizeof driver->scheduler_text,
                 "cgroup %s weights; shares its CPU equally with other emulated cores, promises nothing",
                 driver->cgroup_v2 ? "v2" : "v1");
    else
        snprintf(driver->scheduler_text, sizeof driver->scheduler_text,
                 "cgroup %s weights; reserved shares hold under load%s", driver->cgroup_v2 ? "v2" : "v1",
                 driver->realtime ? ", the CPU driver preempts" : "");
    return RF_OK;
}

static rf_err_t group_make(rf_cpudriver_t *driver, const rf_dispatcher_t *d, uint16_t reserved_permille,
                           uint16_t weight)
{
    char group[GROUP_NAME_MAX];
    group_name(group, d, reserved_permille > 0);
    if (mkdirat(driver->cgroup_fd, group, 0755) < 0 && errno != EEXIST) return RF_ERR_OS;
    rf_err_t err = set_weight(driver, group,
                              reserved_permille > 0 ? rf_share_weight_permille(reserved_permille)
                                                    : rf_share_weight_best_effort(weight));
    if (err != RF_OK) {
        int saved = errno;
        unlinkat(driver->cgroup_fd, group, AT_REMOVEDIR);
        errno = saved;
    }
    return err;
}

static rf_err_t cgroup_add(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    return group_make(driver, d, d->reserved_permille, d->weight);
}

static void cgroup_remove(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    char group[GROUP_NAME_MAX];
    group_name(group, d, d->reserved_permille > 0);
    if (unlinkat(driver->cgroup_fd, group, AT_REMOVEDIR) < 0 && errno != ENOENT)
        rf_log(RF_LOG_WARN, "group of %s stays: %s", rf_dispatcher_name(d), strerror(errno));
}

static int cgroup_entry_open(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    char group[GROUP_NAME_MAX];
    group_name(group, d, d->reserved_permille > 0);
    return procs_open(driver, group);
}

/* Moves every process of one group to another. errno says why not. */
static rf_err_t move_processes(int folder, const char *from, const char *to)
{
    char from_path[GROUP_NAME_MAX + 16], to_path[GROUP_NAME_MAX + 16], pids[4096];
    snprintf(from_path, sizeof from_path, "%s/cgroup.procs", from);
    snprintf(to_path, sizeof to_path, "%s/cgroup.procs", to);
    for (unsigned pass = 0; pass < MOVE_PASSES; pass++) {
        ssize_t got = read_at(folder, from_path, pids, sizeof pids);
        if (got < 0) return RF_ERR_OS;
        if (got == 0) return RF_OK;
        char *rest = pids;
        for (char *pid; (pid = strsep(&rest, "\n")) && rest;) {
            if (write_at(folder, to_path, pid) != RF_OK && errno != ESRCH) return RF_ERR_OS;
        }
    }
    errno = EBUSY; /* it forks faster than it can be moved */
    return RF_ERR_BUSY;
}

/*
 * The same, where v1 refuses: it lets only root, or a process's own user, move it. A child becomes root for that, by
 * the right to set users that a privileged CPU driver has; the group's file is opened to our group before, since that
 * root has no other right.
 */
static rf_err_t move_processes_as_root(rf_cpudriver_t *driver, const char *from, const char *to)
{
    static const rf_isolation_t plain = {.level = RF_ISOLATION_NONE};
    char path[GROUP_NAME_MAX + 16];
    int pidfd, status = -1;
    snprintf(path, sizeof path, "%s/cgroup.procs", to);
    if (fchmodat(driver->cgroup_fd, path, 0664, 0) < 0) return RF_ERR_OS;
    pid_t pid = rf_isolation_clone(&plain, &pidfd);
    if (pid == 0) {
        if (setresuid((uid_t)-1, 0, (uid_t)-1) < 0) _exit(errno);
        _exit(move_processes(driver->cgroup_fd, from, to) == RF_OK ? 0 : errno);
    }
    if (pid < 0) return RF_ERR_OS;
    close(pidfd);
    rf_realtime_reap(driver->realtime, pid, &status, 0);
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINVAL;
    return errno == 0 ? RF_OK : RF_ERR_PERMISSION;
}

static rf_err_t cgroup_change(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint16_t reserved_permille,
                              uint16_t weight)
{
    char from[GROUP_NAME_MAX], to[GROUP_NAME_MAX];
    rf_err_t err = group_make(driver, d, reserved_permille, weight);
    if (err != RF_OK) return err;
    if ((reserved_permille > 0) == (d->reserved_permille > 0))
        return RF_OK; /* the same group with another weight */
    group_name(from, d, d->reserved_permille > 0);
    group_name(to, d, reserved_permille > 0);
    err = move_processes(driver->cgroup_fd, from, to);
    if (err == RF_ERR_OS && driver->isolation.changes_user) err = move_processes_as_root(driver, from, to);
    if (err != RF_OK) {
        rf_log(RF_LOG_WARN, "cannot move %s between reserved and best effort: %s", rf_dispatcher_name(d),
               strerror(errno));
        move_processes(driver->cgroup_fd, to, from);
        unlinkat(driver->cgroup_fd, to, AT_REMOVEDIR);
        return err;
    }
    unlinkat(driver->cgroup_fd, from, AT_REMOVEDIR);
    return RF_OK;
}

/* Groups keep their weights; what changes with every reservation is what is left for best effort. */
static void cgroup_update(rf_cpudriver_t *driver)
{
    uint32_t weight = rf_share_weight_permille(rf_share_best_effort(driver->reserved_permille_total));
    if (weight != driver->cgroup_best_weight && set_weight(driver, "best", weight) == RF_OK)
        driver->cgroup_best_weight = weight;
}

static bool cgroup_members(rf_cpudriver_t *driver, const rf_dispatcher_t *d, int owner)
{
    char group[GROUP_NAME_MAX], path[GROUP_NAME_MAX + 16];
    if (d->is_monitor) return false;
    group_name(group, d, d->reserved_permille > 0);
    snprintf(path, sizeof path, "%s/cgroup.procs", group);
    int fd = openat(driver->cgroup_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    rf_processes_read(&driver->processes, fd, owner, d->init_pid);
    close(fd);
    return true;
}

static rf_err_t cgroup_cpu_ns(rf_cpudriver_t *driver, const rf_dispatcher_t *d, uint64_t *out)
{
    char group[GROUP_NAME_MAX], path[GROUP_NAME_MAX + 16], text[512];
    if (d->is_monitor) return RF_ERR_NOT_SUPPORTED;
    group_name(group, d, d->reserved_permille > 0);
    snprintf(path, sizeof path, "%s/%s", group, driver->cgroup_v2 ? "cpu.stat" : "cpuacct.usage");
    if (read_at(driver->cgroup_fd, path, text, sizeof text) <= 0)
        return RF_ERR_NOT_SUPPORTED; /* v1 with cpuacct mounted elsewhere */
    if (!driver->cgroup_v2) {
        *out = strtoull(text, NULL, 10);
        return RF_OK;
    }
    const char *usage = strstr(text, "usage_usec ");
    if (!usage) return RF_ERR_NOT_SUPPORTED;
    *out = strtoull(usage + strlen("usage_usec "), NULL, 10) * 1000;
    return RF_OK;
}

static rf_err_t cgroup_freeze(rf_cpudriver_t *driver, rf_dispatcher_t *d, bool frozen)
{
    char group[GROUP_NAME_MAX], path[GROUP_NAME_MAX + 16];
    if (!driver->cgroup_v2) return RF_ERR_NOT_SUPPORTED; /* v1 has a freezer of its own, elsewhere */
    group_name(group, d, d->reserved_permille > 0);
    snprintf(path, sizeof path, "%s/cgroup.freeze", group);
    return write_at(driver->cgroup_fd, path, frozen ? "1" : "0") == RF_OK ? RF_OK : RF_ERR_NOT_SUPPORTED;
}

const rf_scheduler_t rf_scheduler_cgroup = {
    .name = "cgroup",
    .open = cgroup_open,
    .close = cgroup_close,
    .add = cgroup_add,
    .remove = cgroup_remove,
    .entry_open = cgroup_entry_open,
    .enter = cgroup_enter,
    .change = cgroup_change,
    .update = cgroup_update,
    .members = cgroup_members,
    .cpu_ns = cgroup_cpu_ns,
    .freeze = cgroup_freeze,
};
