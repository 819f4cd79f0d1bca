/* rackfishd: arguments, start-up as a table of steps, the main loop. daemon.h says what is where. */
#include "base/log.h"
#include "base/os.h"
#include "base/prng.h"
#include "node/boot.h"
#include "node/bootstrap.h"
#include "node/peers.h"
#include "node/cgroup.h"
#include "node/control_server.h"
#include "node/cores.h"
#include "node/down.h"
#include "node/link_driver.h"
#include "node/form.h"
#include "node/logs.h"
#include "node/monitors.h"
#include "node/privileges.h"
#include "node/rejoin.h"
#include "node/reload.h"
#include "node/run_dir.h"
#include "node/run_session.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define EXIT_USAGE 2
#define ERROR_MAX  RF_CONFIG_ERROR_MAX

static const char usage[] =
    "usage: rackfishd --config FILE [--node NAME] [--run-dir DIR] [--form] [--listen-fd N] [--ready-fd N]\n"
    "       rackfishd --sweep --node NAME --run-dir DIR\n"
    "\n"
    "Boots one node of a Rackfish machine and serves it. 'rackfish up' starts it; so does systemd.\n"
    "\n"
    "  --config FILE     the machine's configuration, the same on all hosts\n"
    "  --node NAME       which of its hosts this is (default: by host name or address)\n"
    "  --run-dir DIR     the machine's run directory (default: /run/rackfish/MACHINE for root, else\n"
    "                    $XDG_RUNTIME_DIR/rackfish/MACHINE, else /tmp/rackfish-UID/MACHINE)\n"
    "  --form            this node forms the machine if a majority of the hosts knows of none: give it on\n"
    "                    exactly one host\n"
    "  --listen-fd N     a listening socket for the bootstrap port\n"
    "  --ready-fd N      progress lines go there, then \"ready\" or \"error TEXT\"\n"
    "  --log-stderr      log to standard error (the journal) instead of DIR/NAME/rackfishd.log\n"
    "  --sweep           end and remove what is left of a node whose rackfishd died\n"
    "  --help, --version\n"
    "\n"
    "Signals: TERM and INT stop the node, HUP reads the configuration again.\n"
    "Exit status: 0 stopped as asked, 1 failed, 2 wrong use.\n";

/* ---- start-up ---- */

static rf_err_t step_config(rf_daemon_t *daemon, char *error)
{
    rf_err_t err = rf_config_load(daemon->options.config_path, &daemon->config, error);
    if (err != RF_OK) return err;
    daemon->node = rf_config_this_node(daemon->config, daemon->options.node_name);
    if (daemon->node == RF_NODE_NONE) {
        if (daemon->options.node_name)
            snprintf(error, ERROR_MAX, "%.300s: there is no host '%.100s'; give one of its hosts by --node",
                     daemon->config->path, daemon->options.node_name);
        else
            snprintf(error, ERROR_MAX,
                     "%.300s: this host is not in it, by name or address; name it by --node",
                     daemon->config->path);
        return RF_ERR_CONFIG;
    }
    err = rf_config_resolve_local(daemon->config, daemon->node, error);
    if (err != RF_OK) return err;
    rf_config_digest(daemon->config, daemon->config_digest);
    rf_log_set_level((rf_log_level_t)daemon->config->log_level);
    if (daemon->config->warning[0])
        rf_log(RF_LOG_WARN, "%.150s:%s", daemon->config->path, daemon->config->warning);
    for (unsigned i = 0; i < daemon->config->n_nodes; i++)
        daemon->places[i].n_cores = daemon->config->nodes[i].n_cores;
    rf_boot_resolve_places(daemon);
    return rf_boot_resolve_addresses(daemon, error, ERROR_MAX);
}

static rf_err_t step_privileges_find(rf_daemon_t *daemon, char *error)
{
    return rf_privileges_find(daemon, error, ERROR_MAX);
}

static rf_err_t step_run_dir(rf_daemon_t *daemon, char *error)
{
    rf_err_t err = rf_run_dir_prepare(daemon, error, ERROR_MAX);
    if (err != RF_OK) return err;
    err = rf_run_dir_read_machine(daemon);
    if (err == RF_OK) {
        daemon->adopted = true;
        rf_config_digest(daemon->config, daemon->config_digest); /* with what its cores run by */
        return RF_OK;
    }
    if (err == RF_ERR_NOT_FOUND) return RF_OK;
    snprintf(error, ERROR_MAX, "%s/machine is not this configuration's; 'rackfish down' removes it",
             daemon->node_dir);
    return err;
}

static rf_err_t step_log(rf_daemon_t *daemon, char *error)
{
    char path[RF_PATH_MAX + 16];
    if (daemon->options.log_stderr) return RF_OK;
    snprintf(path, sizeof path, "%s/rackfishd.log", daemon->node_dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fchown(fd, daemon->system_uid, daemon->system_gid) < 0 || dup2(fd, STDERR_FILENO) < 0 ||
        dup2(fd, STDOUT_FILENO) < 0) {
        snprintf(error, ERROR_MAX, "cannot open %s: %s", path, strerror(errno));
        return RF_ERR_OS;
    }
    close(fd);
    return RF_OK;
}

static rf_err_t step_topology(rf_daemon_t *daemon, char *error)
{
    if (rf_topology_discover(&daemon->topology) != RF_OK)
        snprintf(error, ERROR_MAX, "hwloc cannot tell this host's topology");
    rf_cores_init(daemon);
    rf_boot_resolve_places(daemon);
    return daemon->topology.n_cpus ? RF_OK : RF_ERR_OS;
}

static rf_err_t step_cgroup(rf_daemon_t *daemon, char *error)
{
    (void)error;
    if (!daemon->adopted) rf_cgroup_prepare(daemon);
    return RF_OK;
}

static rf_err_t step_control_socket(rf_daemon_t *daemon, char *error)
{
    return rf_control_open(daemon, error, ERROR_MAX);
}

static rf_err_t step_peers(rf_daemon_t *daemon, char *error)
{
    /* An old machine has its id; of a new one others may know (form.h). */
    if (!daemon->machine_known && daemon->config->n_nodes == 1) rf_form_alone(daemon);
    rf_random_secret(daemon->instance, sizeof daemon->instance);
    rf_err_t err = rf_peers_open(daemon);
    if (err != RF_OK) {
        snprintf(error, ERROR_MAX, "no memory for the other nodes");
        return err;
    }
    err = rf_bootstrap_open(daemon, error, ERROR_MAX);
    if (err == RF_OK) rf_peers_dial(daemon);
    return err;
}

static rf_err_t step_privileges_drop(rf_daemon_t *daemon, char *error)
{
    return rf_privileges_drop(daemon, error, ERROR_MAX);
}

static rf_err_t step_logs(rf_daemon_t *daemon, char *error)
{
    return rf_logs_open(daemon, error, ERROR_MAX);
}

static rf_err_t step_link_driver_folder(rf_daemon_t *daemon, char *error)
{
    return rf_link_drivers_prepare(daemon, error, ERROR_MAX);
}

static rf_err_t step_link_driver(rf_daemon_t *daemon, char *error)
{
    return rf_link_drivers_start(daemon, error, ERROR_MAX);
}

static rf_err_t step_cores(rf_daemon_t *daemon, char *error)
{
    if (!daemon->adopted) return RF_OK;
    if (daemon->lease_kept)
        rf_log(
            RF_LOG_WARN,
            "%.200s:%d: leases: the machine that runs has them %s (%u ms, %u %% for clocks), and keeps that; "
            "'rackfish down' and 'up' change it",
            daemon->config->path, daemon->config->leases_line, daemon->config->lease_ms ? "on" : "off",
            daemon->config->lease_ms, daemon->config->lease_drift);
    rf_err_t err = rf_monitors_open(daemon, error, ERROR_MAX);
    if (err != RF_OK) return err;
    unsigned alive = rf_cores_adopt(daemon);
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].life == RF_LIFE_DOWN) rf_rejoin_core_ended(&daemon->cores[i]);
    }
    rf_run_dir_write_state(daemon);
    rf_boot_progress(daemon, "adopted %u of %u cores%s", alive, daemon->n_cores,
                     alive == daemon->n_cores ? "" : "; the others join again");
    rf_log(RF_LOG_INFO, "adopted %u of %u cores of an earlier rackfishd", alive, daemon->n_cores);
    return RF_OK;
}

static const struct {
    const char *name;
    rf_err_t (*init)(rf_daemon_t *daemon, char *error);
} steps[] = {
    {"configuration", step_config},
    {"users", step_privileges_find},
    {"run directory", step_run_dir},
    {"folder of the link drivers", step_link_driver_folder},
    {"log", step_log},
    {"topology", step_topology},
    {"control groups", step_cgroup},
    {"control socket", step_control_socket},
    {"bootstrap port", step_peers},
    {"privileges", step_privileges_drop},
    {"logs", step_logs},
    {"link drivers", step_link_driver},
    {"cores", step_cores},
};

/* ---- signals ---- */

static void on_signal(void *context, uint32_t events)
{
    (void)events;
    rf_daemon_t *daemon = context;
    struct signalfd_siginfo info;
    while (read(daemon->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            rf_cores_end_orphans(daemon);
            rf_cores_look_for_stopped(daemon);
        } else if (info.ssi_signo == SIGHUP) {
            rf_reload(daemon);
        } else {
            rf_down_begin(daemon, RF_DOWN_GRACE_MS);
        }
    }
}

static rf_err_t catch_signals(rf_daemon_t *daemon)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (daemon->signal_fd < 0) return RF_ERR_OS;
    return rf_loop_add(&daemon->loop, &daemon->signal_source, daemon->signal_fd, EPOLLIN, on_signal, daemon);
}

/* ---- main ---- */

static void main_loop(rf_daemon_t *daemon)
{
    while (daemon->phase != RF_PHASE_GONE) {
        if (!daemon->endpoint) {
            rf_loop_turn(&daemon->loop, RF_NEVER);
            continue;
        }
        rf_monitors_pump(daemon);
        bool armed = rf_monitors_arm(daemon);
        rf_loop_turn(&daemon->loop, armed ? RF_NEVER : 0);
        if (armed && daemon->endpoint) rf_monitors_disarm(daemon);
    }
}

static bool parse_number(const char *text, int *out)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || end == text || value < 0 || value > 1 << 20) return false;
    *out = (int)value;
    return true;
}

/* 0, or the exit status with everything said. */
static int parse_arguments(int argc, char **argv, rf_options_t *options, bool *sweep, bool *said)
{
    enum { OPT_CONFIG = 1, OPT_NODE, OPT_RUN_DIR, OPT_FORM, OPT_LISTEN, OPT_READY, OPT_STDERR, OPT_SWEEP };
    static const struct option long_options[] = {
        {"config", required_argument, NULL, OPT_CONFIG},
        {"node", required_argument, NULL, OPT_NODE},
        {"run-dir", required_argument, NULL, OPT_RUN_DIR},
        {"form", no_argument, NULL, OPT_FORM},
        {"listen-fd", required_argument, NULL, OPT_LISTEN},
        {"ready-fd", required_argument, NULL, OPT_READY},
        {"log-stderr", no_argument, NULL, OPT_STDERR},
        {"sweep", no_argument, NULL, OPT_SWEEP},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    *options = (rf_options_t){.listen_fd = -1, .ready_fd = -1};
    bool ok = true;
    int opt;
    while ((opt = getopt_long(argc, argv, "hV", long_options, NULL)) >= 0) {
        switch (opt) {
        case OPT_CONFIG:
            options->config_path = optarg;
            break;
        case OPT_NODE:
            options->node_name = optarg;
            break;
        case OPT_RUN_DIR:
            options->run_dir = optarg;
            break;
        case OPT_FORM:
            options->form = true;
            break;
        case OPT_LISTEN:
            ok = ok && parse_number(optarg, &options->listen_fd);
            break;
        case OPT_READY:
            ok = ok && parse_number(optarg, &options->ready_fd);
            break;
        case OPT_STDERR:
            options->log_stderr = true;
            break;
        case OPT_SWEEP:
            *sweep = true;
            break;
        case 'h':
            fputs(usage, stdout);
            *said = true;
            return EXIT_SUCCESS;
        case 'V':
            puts(RF_SOFTWARE);
            *said = true;
            return EXIT_SUCCESS;
        default:
            ok = false;
        }
    }
    bool complete = *sweep ? options->node_name && options->run_dir : options->config_path != NULL;
    if (ok && complete && optind == argc) return EXIT_SUCCESS;
    fputs(usage, stderr);
    *said = true;
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    static rf_daemon_t daemon;
    char error[ERROR_MAX] = "";
    bool sweep = false, said = false;
    int status = parse_arguments(argc, argv, &daemon.options, &sweep, &said);
    if (said) return status;
    rf_log_init("rackfishd", RF_LOG_INFO);
    if (sweep) return rf_down_sweep(daemon.options.run_dir, daemon.options.node_name);

    daemon.started_ns = rf_clock_ns();
    daemon.ready_fd = daemon.options.ready_fd;
    daemon.lock_fd = daemon.signal_fd = daemon.boot_fd = -1;
    daemon.events_core = -1;
    if (daemon.ready_fd >= 0) fcntl(daemon.ready_fd, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    rf_sched_prompt();
    rf_boot_find_programs(&daemon);
    if (rf_loop_init(&daemon.loop) != RF_OK || catch_signals(&daemon) != RF_OK) {
        rf_log(RF_LOG_ERROR, "cannot set up the event loop: %m");
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && daemon.phase == RF_PHASE_BOOTING; i++) {
        if (steps[i].init(&daemon, error) == RF_OK) continue;
        if (daemon.lock_fd < 0) {
            /* Nothing is ours yet: another rackfishd may have it. */
            rf_boot_refused(&daemon, error);
            return EXIT_FAILURE;
        }
        rf_boot_failed(&daemon, "%s", error);
    }
    rf_boot_step(&daemon);
    main_loop(&daemon);

    rf_rejoin_close(&daemon);
    rf_runs_close(&daemon);
    rf_control_close(&daemon);
    rf_bootstrap_close(&daemon);
    rf_peers_close(&daemon);
    rf_monitors_close(&daemon);
    rf_cores_release(&daemon);
    rf_logs_close(&daemon);
    if (!daemon.left_as_is) rf_link_drivers_stop(&daemon);
    rf_link_drivers_release(&daemon);
    if (!daemon.left_as_is) rf_down_clean(&daemon);
    rf_loop_finish(&daemon.loop);
    if (daemon.config) explicit_bzero(daemon.config, sizeof *daemon.config);
    free(daemon.config);
    return daemon.exit_status;
}
