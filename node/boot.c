#include "node/boot.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/os.h"
#include "base/prng.h"
#include "node/peers.h"
#include "node/cores.h"
#include "node/down.h"
#include "node/link_driver.h"
#include "node/form.h"
#include "node/rejoin.h"
#include "node/monitors.h"
#include "node/run_dir.h"
#include "node/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMED_POLL_NS (20 * RF_NS_PER_MS)
#define ABSENT_NS      (30 * RF_NS_PER_S)
#define MEET_NS        (2 * RF_NS_PER_S)
#define COME_BACK_NS   (15 * RF_NS_PER_S) /* more than a join takes */
#define WAITING_SAY_NS (2 * RF_NS_PER_S)

static rf_monitor_call_t formed_call;
static rf_timer_t formed_timer;
static rf_monitor_call_t address_calls[RF_CORES_PER_NODE_MAX];
static unsigned cores_told;   /* how many were reported as up */
static unsigned cores_formed; /* the first so many know that they are of the machine */

static void ready_line(rf_daemon_t *daemon, const char *word, const char *text)
{
    char line[RF_LOG_LINE_MAX];
    if (daemon->ready_fd < 0) return;
    int n = snprintf(line, sizeof line, "%s%s%s\n", word, text[0] ? " " : "", text);
    if (n >= (int)sizeof line) {
        n = sizeof line - 1;
        line[n - 1] = '\n';
    }
    /* Whoever listens may be gone; the boot goes on without him. */
    if (rf_write_all(daemon->ready_fd, line, (size_t)n) != RF_OK) {
        close(daemon->ready_fd);
        daemon->ready_fd = -1;
    }
}

static void ready_close(rf_daemon_t *daemon)
{
    if (daemon->ready_fd >= 0) close(daemon->ready_fd);
    daemon->ready_fd = -1;
}

static void boot_log(rf_daemon_t *daemon, const char *word, const char *text)
{
    char path[RF_PATH_MAX + 16], line[RF_LOG_LINE_MAX];
    if (!daemon->node_dir[0]) return;
    snprintf(path, sizeof path, "%s/boot.log", daemon->node_dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return;
    int n = snprintf(line, sizeof line, "%6lu ms %s%s%s\n",
                     (unsigned long)((rf_clock_ns() - daemon->started_ns) / RF_NS_PER_MS), word,
                     text[0] ? " " : "", text);
    rf_write_all(fd, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1);
    close(fd);
}

void rf_boot_progress(rf_daemon_t *daemon, const char *format, ...)
{
    char text[RF_LOG_LINE_MAX - 32];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    boot_log(daemon, "progress", text);
    ready_line(daemon, "progress", text);
}

void rf_boot_failed(rf_daemon_t *daemon, const char *format, ...)
{
    char text[RF_LOG_LINE_MAX - 32];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rf_log(RF_LOG_ERROR, "%s", text);
    boot_log(daemon, "error", text);
    ready_line(daemon, "error", text);
    ready_close(daemon);
    daemon->exit_status = EXIT_FAILURE;
    if (daemon->adopted) {
        daemon->left_as_is = true;
        daemon->phase = RF_PHASE_GONE;
    } else {
        rf_down_begin(daemon, 0);
    }
}

void rf_boot_refused(rf_daemon_t *daemon, const char *error)
{
    rf_log(RF_LOG_ERROR, "%s", error);
    ready_line(daemon, "error", error);
    ready_close(daemon);
}

bool rf_boot_resolve_places(rf_daemon_t *daemon)
{
    unsigned total = 0;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        rf_place_t *place = &daemon->places[i];
        if (place->n_cores == 0) return false;
        place->first_core = (rf_core_t)total;
        total += place->n_cores;
    }
    if (total > RF_CORES_MAX) return false;
    daemon->machine_cores = (rf_core_t)total;
    for (unsigned i = 0; i < daemon->n_cores; i++)
        daemon->cores[i].core = (rf_core_t)(daemon->places[daemon->node].first_core + i);
    return true;
}

void rf_boot_find_programs(rf_daemon_t *daemon)
{
    char self[RF_PATH_MAX], candidate[RF_PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    snprintf(candidate, sizeof candidate, "%s/rf-cpudriver", self);
    snprintf(daemon->libexec_dir, sizeof daemon->libexec_dir, "%s",
             access(candidate, X_OK) == 0 ? self : RF_LIBEXEC_FOLDER);
    slash = strrchr(self, '/');
    if (slash) *slash = 0;
    /* In a build folder, in an installed tree wherever it was moved to, where it was to be installed. */
    snprintf(candidate, sizeof candidate, "%s/modules", self);
    if (access(candidate, X_OK) != 0)
        snprintf(candidate, sizeof candidate, "%s/../" RF_LIBDIR "/rackfish", self);
    if (access(candidate, X_OK) != 0 || strlen(candidate) >= sizeof daemon->module_dir)
        snprintf(candidate, sizeof candidate, "%s", RF_MODULE_FOLDER);
    memcpy(daemon->module_dir, candidate, strlen(candidate) + 1);
}

rf_err_t rf_boot_resolve_addresses(rf_daemon_t *daemon, char *error, size_t error_max)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        const rf_config_node_t *node = &daemon->config->nodes[i];
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
        int failed = getaddrinfo(node->address, NULL, &hints, &found);
        if (!failed)
            failed = getnameinfo(found->ai_addr, found->ai_addrlen, daemon->places[i].address,
                                 sizeof daemon->places[i].address, NULL, 0, NI_NUMERICHOST);
        if (found) freeaddrinfo(found);
        if (failed) {
            snprintf(error, error_max,
                     "%s:%d: the address of node %s, '%s', cannot be resolved: %s; give it a numeric "
                     "'address:'",
                     daemon->config->path, node->line, node->name, node->address, gai_strerror(failed));
            return RF_ERR_CONFIG;
        }
    }
    return RF_OK;
}

static const rf_topology_cpu_t *topology_of_cpu(const rf_daemon_t *daemon, unsigned cpu)
{
    for (unsigned i = 0; i < daemon->topology.n_cpus; i++) {
        if (daemon->topology.cpus[i].cpu == cpu) return &daemon->topology.cpus[i];
    }
    return NULL;
}

/* Another core of this host's nodes has the same CPU; on an emulated machine all nodes are on this host. */
static bool cpu_is_shared(const rf_daemon_t *daemon, unsigned node, unsigned index)
{
    const rf_config_t *config = daemon->config;
    unsigned cpu = config->nodes[node].cpus[index];
    for (unsigned n = 0; n < config->n_nodes; n++) {
        if (n != node && !config->emulated) continue;
        for (unsigned i = 0; i < config->nodes[n].n_cores; i++) {
            if (!(n == node && i == index) && config->nodes[n].cpus[i] == cpu) return true;
        }
    }
    return false;
}

static void fill_nodes(const rf_daemon_t *daemon, rf_boot_t *boot)
{
    const rf_config_t *config = daemon->config;
    for (unsigned n = 0; n < config->n_nodes; n++) {
        const rf_place_t *place = &daemon->places[n];
        rf_boot_node_t *node = &boot->nodes[n];
        snprintf(node->name, sizeof node->name, "%s", config->nodes[n].name);
        snprintf(node->address, sizeof node->address, "%s", place->address);
        node->first_core = place->first_core;
        node->n_cores = place->n_cores;
        snprintf(boot->medium[n], sizeof boot->medium[n], "%s", config->medium[daemon->node][n]);
        bool here = n == daemon->node || config->emulated;
        for (unsigned i = 0; i < place->n_cores; i++) {
            rf_boot_core_t *core = &boot->cores[place->first_core + i];
            bool has_cpu = i < config->nodes[n].n_cores;
            const rf_topology_cpu_t *cpu =
                here && has_cpu ? topology_of_cpu(daemon, config->nodes[n].cpus[i]) : NULL;
            *core = (rf_boot_core_t){
                .cpu = has_cpu ? config->nodes[n].cpus[i] : 0,
                .numa = cpu ? cpu->numa : UINT32_MAX,
                .cpu_shared = has_cpu && cpu_is_shared(daemon, n, i),
            };
            boot->node_of[place->first_core + i] = (rf_node_t)n;
            boot->package_of[place->first_core + i] = cpu ? cpu->package : UINT32_MAX;
        }
    }
}

static rf_err_t publish(rf_daemon_t *daemon, int *boot_fd)
{
    static rf_boot_t boot;
    const rf_config_t *config = daemon->config;
    boot = (rf_boot_t){
        .magic = RF_BOOT_MAGIC,
        .size = sizeof boot,
        .machine = daemon->machine,
        .node = daemon->node,
        .n_nodes = config->n_nodes,
        .n_cores = daemon->machine_cores,
        .sched = (uint16_t)config->sched,
        .privileged = daemon->privileged,
        .allow_root = config->allow_root,
        .encrypt = config->encrypt,
        .one_sided = config->one_sided,
        .system_uid = daemon->system_uid,
        .system_gid = daemon->system_gid,
        .owner_uid = daemon->owner_uid,
        .heartbeat_ms = config->heartbeat_ms,
        .host_deadline_ms = config->host_deadline_ms,
        .election_ms = config->election_ms,
        .lease_ms = config->lease_ms,
        .lease_drift = config->lease_drift,
        .log_level = config->log_level,
        .voters_max = (uint16_t)config->voters_max,
        .weights = {config->weights[0], config->weights[1], config->weights[2]},
        .memory_bytes_per_core = config->nodes[daemon->node].memory_bytes / daemon->n_cores,
    };
    snprintf(boot.machine_name, sizeof boot.machine_name, "%s", config->machine);
    snprintf(boot.plan, sizeof boot.plan, "%s", config->plan);
    snprintf(boot.run_dir, sizeof boot.run_dir, "%s", daemon->node_dir);
    snprintf(boot.libexec_dir, sizeof boot.libexec_dir, "%s", daemon->libexec_dir);
    snprintf(boot.module_dir, sizeof boot.module_dir, "%s", daemon->module_dir);
    snprintf(boot.rdma, sizeof boot.rdma, "%s", config->nodes[daemon->node].rdma);
    rf_link_drivers_options(daemon, boot.dpdk, sizeof boot.dpdk);
    snprintf(boot.cgroup, sizeof boot.cgroup, "%s", daemon->cgroup);
    fill_nodes(daemon, &boot);
    if (config->n_voters > 0) memset(boot.no_vote, 1, sizeof boot.no_vote);
    for (unsigned i = 0; i < config->n_voters; i++) boot.no_vote[config->voters[i]] = 0;
    for (unsigned n = 0; n < config->n_nodes; n++)
        memset(boot.witness + boot.nodes[n].first_core, config->nodes[n].witness, boot.nodes[n].n_cores);
    rf_err_t err = rf_key_derive(config->key, config->key_size, &daemon->machine, "links", boot.link_key);
    if (err == RF_OK) err = rf_boot_publish(&boot, boot_fd);
    explicit_bzero(boot.link_key, sizeof boot.link_key);
    return err;
}

rf_err_t rf_boot_block(rf_daemon_t *daemon)
{
    if (daemon->boot_fd >= 0) return RF_OK;
    return publish(daemon, &daemon->boot_fd);
}

static bool start_cores(rf_daemon_t *daemon)
{
    char error[RF_CONFIG_ERROR_MAX];
    rf_assert(!daemon->adopted && rf_form_may_start(daemon));
    for (unsigned i = 0; i < daemon->config->n_voters;
         i++) { /* of `cores: all` the configuration alone did not tell */
        if (daemon->config->voters[i] < daemon->machine_cores) continue;
        rf_boot_failed(daemon,
                       "voters: there is no core %u; the machine has cores 0 to %u; mend 'voters' in %s",
                       daemon->config->voters[i], daemon->machine_cores - 1, daemon->config->path);
        return false;
    }
    rf_err_t err = rf_run_dir_write_machine(daemon);
    if (err == RF_OK) err = rf_boot_block(daemon);
    if (err != RF_OK) {
        rf_boot_failed(daemon, "the boot block cannot be made: %s", rf_err_text(err));
        return false;
    }
    err = rf_monitors_open(daemon, error, sizeof error);
    if (err == RF_OK && daemon->join_only) {
        for (unsigned i = 0; i < daemon->n_cores; i++) daemon->cores[i].life = RF_LIFE_DOWN;
        rf_peers_cores_changed(daemon); /* what an earlier life of this node had is dead */
        for (unsigned i = 0; i < daemon->n_cores; i++) rf_rejoin_now(&daemon->cores[i]);
        rf_boot_progress(daemon, "the machine is formed already: its %u core%s join", daemon->n_cores,
                         daemon->n_cores == 1 ? "" : "s");
        return true;
    }
    if (err == RF_OK) err = rf_cores_start(daemon, daemon->boot_fd, error, sizeof error);
    if (err != RF_OK) {
        rf_boot_failed(daemon, "%s", error);
        return false;
    }
    rf_boot_progress(daemon, "starting %u core%s", daemon->n_cores, daemon->n_cores == 1 ? "" : "s");
    return true;
}

static void become_ready(rf_daemon_t *daemon)
{
    daemon->phase = RF_PHASE_READY;
    rf_timer_clear(&daemon->boot_timer);
    rf_peers_tell_machine(daemon);
    rf_log(RF_LOG_INFO, "node %s is ready: %u of %u cores, after %lu ms",
           daemon->config->nodes[daemon->node].name, rf_cores_alive(daemon), daemon->n_cores,
           (unsigned long)((rf_clock_ns() - daemon->started_ns) / RF_NS_PER_MS));
    boot_log(daemon, "ready", "");
    ready_line(daemon, "ready", "");
    ready_close(daemon);
}

static void ask_formed_again(void *context)
{
    rf_boot_step(context);
}

static void look_again(rf_daemon_t *daemon)
{
    rf_timer_set(&daemon->loop, &formed_timer, rf_clock_ns() + FORMED_POLL_NS, ask_formed_again, daemon);
}

static void on_formed_reply(void *context, rf_err_t err, const void *body, size_t size)
{
    rf_local_core_t *core = context;
    rf_daemon_t *daemon = core->daemon;
    rf_client_status_t status;
    if (daemon->phase != RF_PHASE_BOOTING) return;
    bool formed = false;
    if (err == RF_OK && size >= sizeof status) {
        memcpy(&status, body, sizeof status);
        formed = !status.forming;
    }
    /* One core that takes longer does not keep the others of an earlier rackfishd's node from being used. */
    if (!formed && !(daemon->adopted && rf_clock_ns() >= daemon->started_ns + COME_BACK_NS)) {
        look_again(daemon);
        return;
    }
    cores_formed = (unsigned)(core - daemon->cores) + 1;
    rf_boot_step(daemon);
}

/* For whom, or what, this boot waits. */
static void waiting_for(const rf_daemon_t *daemon, char *out, size_t max)
{
    char missing[512];
    unsigned silent = daemon->machine_known ? 0 : rf_peers_silent(daemon, missing, sizeof missing), up = 0;
    if (daemon->options.form && silent > 0) {
        snprintf(out, max, "asking whether there is a machine already: waiting for %u more of %s", silent,
                 missing);
        return;
    }
    if (rf_form_waits(daemon, out, max)) return;
    rf_peers_missing(daemon, missing, sizeof missing);
    for (unsigned i = 0; i < daemon->n_cores; i++) up += daemon->cores[i].link_up;
    if (daemon->cores[0].life != RF_LIFE_NONE && up < daemon->n_cores)
        snprintf(out, max, "waiting for %u of %u cores%s", daemon->n_cores - up, daemon->n_cores,
                 daemon->join_err == RF_ERR_NO_QUORUM
                     ? ": the machine has no quorum, without which nobody joins; 'rackfish status' on a host "
                       "that is up says for whom it waits"
                     : "");
    else if (daemon->adopted || daemon->join_only)
        snprintf(out, max, "waiting until core %u has joined the machine",
                 daemon->cores[0].core + cores_formed);
    else if (missing[0])
        snprintf(out, max, "waiting for %s", missing);
    else
        snprintf(out, max, "waiting for the machine to form");
}

static void say_waiting(void *context)
{
    rf_daemon_t *daemon = context;
    char text[640];
    if (daemon->phase != RF_PHASE_BOOTING) return;
    waiting_for(daemon, text, sizeof text);
    rf_boot_progress(daemon, "%s", text);
    rf_timer_set(&daemon->loop, &daemon->boot_timer, rf_clock_ns() + WAITING_SAY_NS, say_waiting, daemon);
    rf_boot_step(daemon);
}

/* Every living core of this node answers, and where it listens is known. */
static bool cores_are_up(const rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        const rf_local_core_t *core = &daemon->cores[i];
        if (core->life == RF_LIFE_DOWN) continue;
        if (!core->link_up || (daemon->config->n_nodes > 1 && !core->listen_address[0])) return false;
    }
    return true;
}

/* An earlier rackfishd's node is not ready while cores of it that are dead may be about to join: at first nobody knows whether the machine
 * that it remembers is there; then somebody is in reach who can let them, and has not said that nobody joins now. */
static bool is_coming_back(const rf_daemon_t *daemon)
{
    bool wanted = false, in_reach = false;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        wanted = wanted || (daemon->cores[i].life == RF_LIFE_DOWN && !daemon->cores[i].off);
        in_reach = in_reach || daemon->cores[i].link_up;
    }
    for (rf_node_t node = 0; node < daemon->config->n_nodes && !in_reach; node++)
        in_reach = node != daemon->node && rf_peer_is_connected(daemon, node);
    uint64_t patience_ns = in_reach && daemon->join_err == RF_OK                        ? COME_BACK_NS
                           : daemon->config->n_nodes > 1 && rf_cores_alive(daemon) == 0 ? MEET_NS
                                                                                        : 0;
    return wanted && rf_clock_ns() < daemon->started_ns + patience_ns;
}

/* What this node needs before its monitors can be asked whether they are of the machine. */
static bool is_assembled(rf_daemon_t *daemon)
{
    if (daemon->adopted) { /* what was formed stays formed; peers are met again as they come */
        for (unsigned i = 0; i < daemon->n_cores; i++) {
            if (daemon->cores[i].life != RF_LIFE_DOWN && !daemon->cores[i].link_up) return false;
        }
        if (!is_coming_back(daemon)) return true;
        look_again(daemon);
        return false;
    }
    /* Hosts that do not come join later: the monitors form without them when the boot time has passed. */
    bool late = daemon->join_only || rf_clock_ns() >= daemon->started_ns + ABSENT_NS;
    return cores_are_up(daemon) && (rf_peers_all_known(daemon) || late);
}

void rf_boot_step(rf_daemon_t *daemon)
{
    if (daemon->phase != RF_PHASE_BOOTING) return;
    if (!rf_timer_is_set(&daemon->boot_timer))
        rf_timer_set(&daemon->loop, &daemon->boot_timer, rf_clock_ns() + WAITING_SAY_NS, say_waiting, daemon);
    if (rf_form_draw(daemon)) rf_peers_tell_machine(daemon);
    if (!daemon->machine_known || !rf_boot_resolve_places(daemon)) return;
    if (daemon->cores[0].life == RF_LIFE_NONE && !start_cores(daemon)) return;
    if (!is_assembled(daemon)) return;
    rf_local_core_t *next = rf_monitor_first(daemon, cores_formed);
    if (!next && (cores_formed > 0 || daemon->adopted)) become_ready(daemon);
    if (!next || rf_monitor_call_is_under_way(&formed_call)) return;
    if (rf_monitor_call(next, &formed_call, RF_CLIENT_STATUS, NULL, 0, NULL, 0, RF_ANSWER_NS, on_formed_reply,
                        next) != RF_OK)
        look_again(daemon);
}

/* What a log says of its end: the first error in it, which later ones follow from, or else its last line; without its time; "" if
 * there is none. The log goes with the run directory when a boot fails. */
static void line_that_tells(const rf_daemon_t *daemon, const char *kind, unsigned core, char *out, size_t max)
{
    char path[RF_PATH_MAX + 32], text[8192];
    snprintf(path, sizeof path, "%s/%s-%u.log", daemon->node_dir, kind, core);
    out[0] = 0;
    ssize_t size = rf_file_read(path, text, sizeof text);
    while (size > 0 && text[size - 1] == '\n') text[--size] = 0;
    if (size <= 0) return;
    const char *line = strstr(text, "Z error ");
    while (line && line > text && line[-1] != '\n') line--;
    if (!line) line = strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text;
    const char *words = strchr(line, ' ');
    if (words && line[0] == '2') line = words + 1;
    snprintf(out, max, "%.*s", (int)strcspn(line, "\n"), line);
}

static void ask_address(rf_local_core_t *core);

/* A node that nobody can reach is of no use, and waiting does not mend it: a module that is missing, an address that is not this host's. */
static void address_failed(rf_local_core_t *core, rf_err_t err)
{
    char line[256];
    if (err == RF_ERR_TIMEOUT) { /* a busy host */
        ask_address(core);
        return;
    }
    line_that_tells(core->daemon, "monitor", core->core, line, sizeof line);
    if (core->daemon->phase == RF_PHASE_BOOTING && !core->daemon->adopted)
        rf_boot_failed(core->daemon,
                       "core %u cannot listen for other hosts: %s%s%s; install Rackfish as a whole, or "
                       "look at `rackfish doctor`",
                       core->core, rf_err_text(err), line[0] ? "; it said: " : "", line);
    else
        rf_log(RF_LOG_ERROR, "core %u does not tell where it listens for other hosts: %s", core->core,
               rf_err_text(err));
}

static void on_address_reply(void *context, rf_err_t err, const void *body, size_t size)
{
    rf_local_core_t *core = context;
    rf_client_address_t address;
    if (err != RF_OK || size < sizeof address) {
        if (err != RF_ERR_PEER_DEAD) address_failed(core, err);
        return;
    }
    memcpy(&address, body, sizeof address);
    snprintf(core->listen_address, sizeof core->listen_address, "%.*s", (int)sizeof address.address - 1,
             address.address);
    rf_peers_cores_changed(core->daemon);
    rf_boot_step(core->daemon);
}

static void ask_address(rf_local_core_t *core)
{
    rf_monitor_call_t *call = &address_calls[core - core->daemon->cores];
    rf_monitor_call_cancel(call);
    if (rf_monitor_call(core, call, RF_CLIENT_LISTEN_ADDRESS, NULL, 0, NULL, 0, RF_ANSWER_NS,
                        on_address_reply, core) != RF_OK)
        rf_log(RF_LOG_ERROR, "core %u cannot be asked where it listens", core->core);
}

void rf_boot_core_up(rf_local_core_t *core)
{
    rf_daemon_t *daemon = core->daemon;
    rf_rejoin_core_up(core);
    if (daemon->phase == RF_PHASE_BOOTING)
        rf_boot_progress(daemon, "core %u is up (%u of %u)", core->core, ++cores_told, daemon->n_cores);
    if (daemon->config->n_nodes > 1) {
        rf_peers_tell_monitor(daemon, core);
        ask_address(core);
    }
    rf_boot_step(daemon);
}

void rf_boot_core_down(rf_local_core_t *core, const char *how)
{
    rf_daemon_t *daemon = core->daemon;
    unsigned index = (unsigned)(core - daemon->cores);
    if (index < cores_formed) { /* its next life has yet to join */
        cores_formed = index;
        rf_monitor_call_cancel(&formed_call);
    }
    rf_peers_cores_changed(daemon);
    if (daemon->phase != RF_PHASE_BOOTING || daemon->adopted || core->expelled) {
        /* Expelled while it booted: the machine was formed before it came, and it joins as a later incarnation. */
        rf_rejoin_core_ended(core);
        rf_boot_step(daemon);
        return;
    }
    char line[256];
    line_that_tells(daemon, "monitor", core->core, line, sizeof line);
    if (!line[0]) line_that_tells(daemon, "cpudriver", core->core, line, sizeof line);
    rf_boot_failed(daemon, "core %u did not start: its CPU driver %s%s%s", core->core, how,
                   line[0] ? "; it said: " : "", line);
}
