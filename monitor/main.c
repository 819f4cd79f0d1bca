/*
 * rf-monitor CORE INCARNATION: one life of the monitor of one core. Started by the core's CPU driver with the boot block on RF_BOOT_FD, the
 * core's lease on RF_LEASE_FD and the socket of its kernel link on RF_DISPATCHER_FD; ends with it. Exit statuses: monitor/step.h.
 */
#include "monitor/keeper.h"
#include "monitor/shell.h"

#include "base/os.h"
#include "transport/registry.h"
#include "transport/shm/shm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static bool parse_number(const char *text, unsigned long least, unsigned long most, unsigned long *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < least || value > most) return false;
    *out = value;
    return true;
}

int main(int argc, char **argv)
{
    unsigned long number, incarnation;
    if (argc != 3 || !parse_number(argv[1], 0, RF_CORES_MAX - 1, &number) ||
        !parse_number(argv[2], 1, UINT32_MAX - 1, &incarnation)) {
        fprintf(stderr,
                "usage: rf-monitor CORE INCARNATION\nStarted by rf-cpudriver, with the boot block on "
                "descriptor %d and the "
                "kernel link on %d; use `rackfish up`.\n",
                RF_BOOT_FD, RF_DISPATCHER_FD);
        return MONITOR_EXIT_USAGE;
    }
    rf_core_t core = (rf_core_t)number;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);

    char who[32];
    snprintf(who, sizeof who, "monitor/%u", core);
    rf_log_init(who, RF_LOG_INFO);
    const rf_boot_t *boot;
    rf_err_t err = rf_boot_map(RF_BOOT_FD, &boot);
    if (err != RF_OK || core >= boot->n_cores || boot->node_of[core] != boot->node) {
        rf_log(RF_LOG_ERROR,
               "descriptor %d holds no boot block for core %u (%s); start the machine with `rackfish up`",
               RF_BOOT_FD, core, rf_err_text(err));
        return MONITOR_EXIT_FAILED;
    }
    rf_log_init(who, boot->log_level <= RF_LOG_DEBUG ? (rf_log_level_t)boot->log_level : RF_LOG_INFO);
    rf_sched_prompt();
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* elections are due to the microsecond */
    keeper_start();
    rf_lease_t *lease;
    err = rf_lease_map(RF_LEASE_FD, &lease);
    if (err != RF_OK) {
        rf_log(RF_LOG_ERROR, "descriptor %d holds no lease of core %u (%s)", RF_LEASE_FD, core,
               rf_err_text(err));
        return MONITOR_EXIT_FAILED;
    }
    close(RF_LEASE_FD);
    fcntl(RF_BOOT_FD, F_SETFD, FD_CLOEXEC);
    fcntl(RF_DISPATCHER_FD, F_SETFD, FD_CLOEXEC);
    if (boot->module_dir[0]) setenv("RACKFISH_MODULE_PATH", boot->module_dir, 0);
    err = rf_transport_register(&rf_transport_shm);
    if (err != RF_OK) return MONITOR_EXIT_FAILED;
    /* A dying process's descriptors are closed from the highest on: so this one, which has its CPU driver end the core, after the links to
     * other hosts, which tell them that it is dead. */
    int kernel = fcntl(RF_DISPATCHER_FD, F_DUPFD_CLOEXEC, 3);
    if (kernel < 0) return MONITOR_EXIT_FAILED;
    close(RF_DISPATCHER_FD);
    return shell_run(boot, core, (rf_incarnation_t)incarnation, kernel, lease);
}
