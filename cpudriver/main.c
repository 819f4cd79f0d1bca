/*
 * rf-cpudriver CORE INCARNATION: the kernel of one core, for one life of it. Started by rackfishd with the boot block on RF_BOOT_FD; starts the
 * core's monitor and, at its bidding, everything that runs on the core. How it ended: RF_CPUDRIVER_EXIT_*.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"
#include "cpudriver/dispatcher.h"
#include "cpudriver/fence.h"
#include "cpudriver/isolation.h"
#include "cpudriver/kernel_link.h"
#include "cpudriver/lease.h"
#include "cpudriver/objects.h"
#include "cpudriver/realtime.h"
#include "cpudriver/scheduler.h"
#include "cpudriver/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static rf_cpudriver_t the_driver; /* a few MiB, touched as slots are used */

static rf_err_t start_process(rf_cpudriver_t *driver)
{
    char who[32];
    snprintf(who, sizeof who, "cpudriver/%u", driver->core);
    rf_log_init(who, (rf_log_level_t)driver->boot->log_level);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    fcntl(driver->boot_fd, F_SETFD, FD_CLOEXEC);
    umask(022);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        driver->nofile_soft = files.rlim_cur;
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    return RF_OK;
}

static rf_err_t start_cpu(rf_cpudriver_t *driver)
{
    unsigned cpu = driver->boot->cores[driver->core].cpu;
    rf_err_t err = rf_cpu_pin(cpu);
    if (err != RF_OK) {
        rf_log(RF_LOG_ERROR,
               "core %u cannot have CPU %u: %s; name CPUs this process may use in the configuration",
               driver->core, cpu, strerror(errno));
        return err;
    }
    driver->realtime = rf_realtime_start();
    if (!driver->realtime)
        rf_log(RF_LOG_INFO, "no real-time priority (%s): not ahead of what it serves", strerror(errno));
    return RF_OK;
}

static void on_signal(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    struct signalfd_siginfo info;
    (void)events;
    while (read(source->fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            if (driver->isolation.level == RF_ISOLATION_NONE) rf_adopted_end(driver);
            continue;
        }
        rf_log(RF_LOG_INFO, "stopping: %s", strsignal((int)info.ssi_signo));
        if (!driver->stopping) rf_core_stop(driver, true, RF_CPUDRIVER_EXIT_OK);
    }
}

static rf_err_t start_loop(rf_cpudriver_t *driver)
{
    sigset_t watched;
    rf_err_t err = rf_core_open(driver);
    if (err != RF_OK) return err;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGCHLD);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    int fd = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? RF_ERR_OS : rf_source_open(driver, &driver->signals, fd, EPOLLIN, on_signal, NULL);
}

static bool has_capability(unsigned capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[capability / 32].effective & (1u << (capability % 32)));
}

static rf_err_t start_isolation(rf_cpudriver_t *driver)
{
    rf_isolation_probe(&driver->isolation);
    driver->isolation.changes_user =
        !driver->isolation.user_namespace && has_capability(CAP_SETUID) && has_capability(CAP_SETGID);
    rf_log(RF_LOG_INFO, "isolation: %s", driver->isolation.text);
    return RF_OK;
}

/* Loads what the host's user database needs, once, instead of in every new process that looks its user up. */
static rf_err_t start_users(rf_cpudriver_t *driver)
{
    gid_t groups[1];
    int n = 1;
    (void)driver;
    const struct passwd *root = getpwnam("root");
    if (root) getgrouplist(root->pw_name, root->pw_gid, groups, &n);
    return RF_OK;
}

static rf_err_t start_scheduler(rf_cpudriver_t *driver)
{
    rf_scheduler_open(driver);
    return RF_OK;
}

static const struct {
    const char *name;
    rf_err_t (*start)(rf_cpudriver_t *driver);
} start_table[] = {
    {"process", start_process},
    {"isolation", start_isolation}, /* tries it in children, so before this process has its priority */
    {"users", start_users},
    {"processor", start_cpu},
    {"event loop", start_loop},
    {"scheduler", start_scheduler},
    {"kernel links", rf_kernel_link_open},
    {"lease", rf_lease_open},
    {"monitor", rf_spawn_monitor},
};

static void run(rf_cpudriver_t *driver)
{
    while (!driver->done) {
        driver->wake_ns = RF_NEVER;
        bool more = rf_kernel_link_serve(driver);
        rf_timers_run(driver);
        if (driver->scheduler->tick) driver->scheduler->tick(driver);
        rf_dispatchers_settle(driver);
        rf_fences_run(driver);
        rf_lease_run(driver);
        if (!driver->done) rf_kernel_link_sleep(driver, more);
    }
}

static int usage(const char *why)
{
    fprintf(stderr,
            "rf-cpudriver: %s\nusage: rf-cpudriver CORE INCARNATION   (started by rackfishd, boot block on "
            "descriptor %d)\n",
            why, RF_BOOT_FD);
    return RF_CPUDRIVER_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    rf_cpudriver_t *driver = &the_driver;
    char *end;
    if (argc != 3) return usage("two arguments are needed");
    unsigned long core = strtoul(argv[1], &end, 10);
    if (end == argv[1] || *end) return usage("the core is no number");
    unsigned long incarnation = strtoul(argv[2], &end, 10);
    if (end == argv[2] || *end || incarnation == 0 || incarnation >= UINT32_MAX)
        return usage("the incarnation is no number from 1 on");
    driver->boot_fd = RF_BOOT_FD;
    if (rf_boot_map(RF_BOOT_FD, &driver->boot) != RF_OK) return usage("there is no boot block");
    const rf_boot_node_t *node = &driver->boot->nodes[driver->boot->node];
    if (core < node->first_core || core >= (unsigned long)node->first_core + node->n_cores ||
        core >= RF_CORES_MAX)
        return usage("the core is not of this node");
    driver->core = (rf_core_t)core;
    driver->incarnation = (rf_incarnation_t)incarnation;
    for (size_t i = 0; i < sizeof start_table / sizeof *start_table; i++) {
        rf_err_t err = start_table[i].start(driver);
        if (err != RF_OK) {
            rf_log(RF_LOG_ERROR, "core %u cannot start (%s): %s", driver->core, start_table[i].name,
                   rf_err_text(err));
            rf_realtime_stop();
            if (driver->scheduler) driver->scheduler->close(driver);
            return RF_CPUDRIVER_EXIT_FAILED;
        }
    }
    run(driver);
    rf_realtime_stop();
    driver->transport->endpoint_close(driver->endpoint);
    driver->scheduler->close(driver);
    rf_log(RF_LOG_INFO, "core %u ended", driver->core);
    return driver->exit_status;
}
