#include "node/cores.h"

#include "base/log.h"
#include "base/os.h"
#include "node/boot.h"
#include "node/down.h"
#include "node/evidence.h"
#include "node/monitors.h"
#include "node/run_dir.h"
#include "node/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

rf_local_core_t *rf_daemon_core(rf_daemon_t *daemon, int core)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].core == core) return &daemon->cores[i];
    }
    return NULL;
}

rf_node_t rf_daemon_node_of_core(const rf_daemon_t *daemon, int core)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        const rf_place_t *place = &daemon->places[i];
        if (core >= place->first_core && core < place->first_core + place->n_cores) return (rf_node_t)i;
    }
    return RF_NODE_NONE;
}

void rf_cores_init(rf_daemon_t *daemon)
{
    const rf_config_node_t *node = &daemon->config->nodes[daemon->node];
    daemon->n_cores = node->n_cores;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[i];
        *core = (rf_local_core_t){.daemon = daemon, .pidfd = -1, .monitor_pidfd = -1};
        core->core = (rf_core_t)(daemon->places[daemon->node].first_core + i);
    }
}

/* How it ended, in words; only of a child of ours. */
static void describe_end(rf_local_core_t *core, char *out, size_t max)
{
    siginfo_t info = {0};
    core->expelled = false;
    if (!core->child || waitid(P_PIDFD, (id_t)core->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        snprintf(out, max, "died");
    else if ((core->expelled = info.si_code == CLD_EXITED && info.si_status == RF_CPUDRIVER_EXIT_EXPELLED))
        snprintf(out, max, "ended, because the machine has gone on without it");
    else if (info.si_code != CLD_EXITED)
        snprintf(out, max, "was killed by signal %d (%s)", info.si_status, strsignal(info.si_status));
    else if (info.si_status == RF_CPUDRIVER_EXIT_OK)
        snprintf(out, max, "ended in order");
    else if (info.si_status == RF_CPUDRIVER_EXIT_MONITOR)
        snprintf(out, max, "ended, because its monitor died");
    else
        snprintf(out, max, "failed with status %d", info.si_status);
}

static void core_ended(rf_local_core_t *core)
{
    rf_daemon_t *daemon = core->daemon;
    char how[96];
    rf_monitors_pump(daemon); /* the last answers of its monitor come before its end */
    describe_end(core, how, sizeof how);
    daemon->expelled_alive += core->expelled;
    rf_log(daemon->phase == RF_PHASE_DOWN ? RF_LOG_INFO : RF_LOG_ERROR,
           "core %u is down: its CPU driver (pid %d) %s", core->core, (int)core->pid, how);
    rf_loop_remove(&daemon->loop, &core->source);
    rf_timer_clear(&core->stopped);
    close(core->pidfd);
    core->pidfd = -1;
    core->life = RF_LIFE_DOWN;
    core->pid = core->monitor_pid = 0;
    core->listen_address[0] = 0;
    rf_monitor_disconnect(core);
    rf_cores_end_orphans(daemon);
    rf_run_dir_write_state(daemon);
    rf_boot_core_down(core, how);
    rf_down_core_ended(daemon);
}

static void on_pidfd(void *context, uint32_t events)
{
    (void)events;
    core_ended(context);
}

static bool is_stopped(const rf_local_core_t *core)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)core->pid);
    const char *end = rf_file_read(path, text, sizeof text) > 0 ? strrchr(text, ')') : NULL;
    return end && end[1] == ' ' && end[2] == 'T' && rf_process_start_time(core->pid) == core->start_time;
}

static void on_still_stopped(void *context)
{
    rf_local_core_t *core = context;
    if (core->pidfd < 0 || !is_stopped(core)) return;
    rf_log(RF_LOG_ERROR,
           "the CPU driver of core %u is stopped for %u ms: it is ended, and the core joins anew", core->core,
           core->daemon->config->host_deadline_ms);
    pidfd_send_signal(core->pidfd, SIGKILL, NULL, 0);
}

void rf_cores_look_for_stopped(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[i];
        if (core->pidfd < 0 || rf_timer_is_set(&core->stopped) || !is_stopped(core)) continue;
        rf_timer_set(&daemon->loop, &core->stopped,
                     rf_clock_ns() + daemon->config->host_deadline_ms * RF_NS_PER_MS, on_still_stopped, core);
    }
}

static rf_err_t watch(rf_local_core_t *core)
{
    return rf_loop_add(&core->daemon->loop, &core->source, core->pidfd, EPOLLIN, on_pidfd, core);
}

static int spawn_driver(rf_local_core_t *core, int boot_fd, const char *program, pid_t *pid)
{
    char log_path[RF_PATH_MAX + 32], number[16], incarnation[16];
    snprintf(log_path, sizeof log_path, "%s/cpudriver-%u.log", core->daemon->node_dir, core->core);
    snprintf(number, sizeof number, "%u", core->core);
    snprintf(incarnation, sizeof incarnation, "%u", core->incarnation);
    char name[] = "rf-cpudriver";
    char *argv[] = {name, number, incarnation, NULL};
    rf_spawn_t plan = {
        .program = program, .argv = argv, .log = log_path, .fd = boot_fd, .fd_there = RF_BOOT_FD};
    return rf_spawn(&plan, pid);
}

rf_err_t rf_core_start(rf_local_core_t *core, rf_incarnation_t incarnation, int boot_fd, char *error,
                       size_t error_max)
{
    char program[RF_PATH_MAX + 32];
    snprintf(program, sizeof program, "%s/rf-cpudriver", core->daemon->libexec_dir);
    if (!core->looked) rf_evidence_look(core->daemon); /* later what it starts is there */
    core->incarnation = incarnation;
    int failed = spawn_driver(core, boot_fd, program, &core->pid);
    if (failed) {
        snprintf(error, error_max, "cannot start %s: %s; is Rackfish installed as a whole?", program,
                 strerror(failed));
        return RF_ERR_OS;
    }
    core->child = true;
    core->life = RF_LIFE_STARTING;
    core->start_time = rf_process_start_time(core->pid);
    core->pidfd = pidfd_open(core->pid, 0);
    if (core->pidfd < 0 || watch(core) != RF_OK) {
        snprintf(error, error_max, "cannot watch the CPU driver of core %u: %s", core->core, strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}

rf_err_t rf_cores_start(rf_daemon_t *daemon, int boot_fd, char *error, size_t error_max)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_err_t err = rf_core_start(&daemon->cores[i], 1, boot_fd, error, error_max);
        if (err != RF_OK) return err;
    }
    rf_run_dir_write_state(daemon);
    for (unsigned i = 0; i < daemon->n_cores; i++) rf_monitor_connect(&daemon->cores[i]);
    return RF_OK;
}

unsigned rf_cores_adopt(rf_daemon_t *daemon)
{
    static rf_state_t state;
    unsigned alive = 0;
    rf_err_t err = rf_run_dir_read_state(daemon->node_dir, &state);
    if (err != RF_OK)
        rf_log(RF_LOG_ERROR, "the state file of %s cannot be used: %s", daemon->node_dir, rf_err_text(err));
    for (unsigned i = 0; i < daemon->n_cores; i++) daemon->cores[i].life = RF_LIFE_DOWN;
    for (unsigned i = 0; i < state.n; i++) {
        const rf_state_process_t *p = &state.processes[i];
        rf_local_core_t *core = rf_daemon_core(daemon, p->core);
        if (!core || strcmp(p->role, "cpudriver") != 0 || core->life != RF_LIFE_DOWN) continue;
        core->pidfd = rf_process_open(p->pid, p->start_time);
        if (core->pidfd >= 0 && rf_process_wait_dead(core->pidfd, 0) == RF_OK) {
            close(core->pidfd); /* dead, and not yet reaped by its parent */
            core->pidfd = -1;
        }
        if (core->pidfd < 0) continue;
        core->pid = p->pid;
        core->start_time = p->start_time;
        core->life = RF_LIFE_STARTING;
        if (watch(core) != RF_OK) {
            core->life = RF_LIFE_DOWN;
            continue;
        }
        alive++;
        rf_monitor_connect(core);
    }
    return alive;
}

unsigned rf_cores_alive(const rf_daemon_t *daemon)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < daemon->n_cores; i++)
        alive += daemon->cores[i].life == RF_LIFE_STARTING || daemon->cores[i].life == RF_LIFE_UP;
    return alive;
}

void rf_cores_kill(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[i];
        if (core->pidfd >= 0 && pidfd_send_signal(core->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            rf_log(RF_LOG_WARN, "cannot kill the CPU driver of core %u: %m", core->core);
    }
}

static bool is_driver(const rf_daemon_t *daemon, pid_t pid)
{
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++) {
        if (daemon->link_drivers[i].pid == pid) return true;
    }
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].pid == pid) return true;
    }
    return false;
}

void rf_cores_end_orphans(rf_daemon_t *daemon)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    if (rf_file_read(path, text, sizeof text) < 0)
        return; /* a kernel without that file: domains' namespaces contain them */
    char *save = NULL;
    for (char *at = strtok_r(text, " ", &save); at; at = strtok_r(NULL, " ", &save)) {
        pid_t pid = (pid_t)strtol(at, NULL, 10);
        if (pid <= 1 || is_driver(daemon, pid)) continue;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, WNOHANG); /* else SIGCHLD brings us back */
    }
}

void rf_cores_release(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[i];
        rf_loop_remove(&daemon->loop, &core->source);
        rf_timer_clear(&core->stopped);
        if (core->pidfd >= 0) close(core->pidfd);
        core->pidfd = -1;
    }
}
