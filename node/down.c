#include "node/down.h"

#include "base/log.h"
#include "base/os.h"
#include "node/cgroup.h"
#include "node/control_queries.h"
#include "node/cores.h"
#include "node/monitors.h"
#include "node/remote.h"
#include "node/run_dir.h"
#include "node/run_session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define KILLED_NS      (5 * RF_NS_PER_S) /* how long killed processes may take to go */
#define KILL_MARGIN_MS 1500              /* CPU drivers' own TERM, then KILL, within the monitors' grace */
#define DYING_TRIES    50                /* of 10 ms */
#define SWEEP_WAIT_MS  5000

static void down_finish(rf_daemon_t *daemon)
{
    rf_timer_clear(&daemon->down_timer);
    daemon->phase = RF_PHASE_GONE;
}

static void killed_late(void *context)
{
    rf_daemon_t *daemon = context;
    rf_log(RF_LOG_ERROR,
           "%u CPU drivers are still there after having been killed; their CPUs may be stuck in the kernel",
           rf_cores_alive(daemon));
    daemon->exit_status = EXIT_FAILURE;
    down_finish(daemon);
}

static void grace_is_over(void *context)
{
    rf_daemon_t *daemon = context;
    if (rf_cores_alive(daemon) > 0)
        rf_log(RF_LOG_WARN, "%u cores did not end in time; killing them", rf_cores_alive(daemon));
    rf_cores_kill(daemon);
    rf_timer_set(&daemon->loop, &daemon->down_timer, rf_clock_ns() + KILLED_NS, killed_late, daemon);
}

void rf_down_core_ended(rf_daemon_t *daemon)
{
    if (daemon->phase == RF_PHASE_DOWN && rf_cores_alive(daemon) == 0) down_finish(daemon);
}

void rf_down_begin(rf_daemon_t *daemon, unsigned grace_ms)
{
    if (daemon->phase == RF_PHASE_GONE) return;
    bool first = daemon->phase != RF_PHASE_DOWN;
    uint64_t until = rf_clock_ns() + (grace_ms ? grace_ms + KILL_MARGIN_MS : 0) * RF_NS_PER_MS;
    daemon->phase = RF_PHASE_DOWN;
    if (first) {
        rf_log(RF_LOG_INFO, "node %s is going down", daemon->config->nodes[daemon->node].name);
        rf_timer_clear(&daemon->boot_timer);
        rf_control_refuse_new(daemon);
        rf_registry_once_end(daemon);
        for (unsigned i = 0; i < daemon->n_cores && grace_ms > 0; i++) {
            rf_local_core_t *core = &daemon->cores[i];
            rf_client_shutdown_t shutdown = {.grace_ms = grace_ms};
            if (core->link_up)
                rf_monitor_tell(core, RF_CLIENT_SHUTDOWN, &shutdown, sizeof shutdown);
            else if (core->pidfd >= 0)
                pidfd_send_signal(core->pidfd, SIGTERM, NULL, 0); /* its monitor is not there to be asked */
        }
    }
    if (rf_cores_alive(daemon) == 0) {
        down_finish(daemon);
        return;
    }
    if (first || daemon->down_timer.deadline_ns > until)
        rf_timer_set(&daemon->loop, &daemon->down_timer, until, grace_is_over, daemon);
}

void rf_down_clean(rf_daemon_t *daemon)
{
    rf_core_t cores[RF_CORES_PER_NODE_MAX];
    for (unsigned i = 0; i < daemon->n_cores; i++) cores[i] = daemon->cores[i].core;
    rf_cgroup_remove(daemon->cgroup, cores, daemon->n_cores);
    rf_run_dir_remove(daemon->run_dir, daemon->config->nodes[daemon->node].name);
}

/* ---- the request ---- */

typedef struct down_query {
    rf_operation_t operation;
    unsigned outstanding, n_failed;
    unsigned grace_ms;
    rf_timer_t late;
    char failed[256];
    struct down_part {
        struct down_query *query;
        rf_node_t node;
        rf_remote_t *remote;
    } parts[RF_NODES_MAX];
} down_query_t;

static void down_cancel(rf_operation_t *operation)
{
    down_query_t *query = (down_query_t *)operation;
    rf_timer_clear(&query->late);
    for (unsigned i = 0; i < RF_NODES_MAX; i++) rf_remote_close(query->parts[i].remote);
    rf_operation_end(operation);
}

/* All others have answered or are out of reach: now this node. The answer goes out first; its client sees the end of this node
 * by the end of the connection. */
static void down_here(down_query_t *query)
{
    rf_client_t *client = query->operation.client;
    rf_daemon_t *daemon = client->daemon;
    unsigned grace_ms = query->grace_ms;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    char message[320];
    reply.id = query->operation.id;
    if (query->failed[0]) {
        snprintf(message, sizeof message, "out of reach, and not told: %s", query->failed);
        reply.message = message;
    }
    rf_client_reply(client, &reply);
    down_cancel(&query->operation);
    rf_down_begin(daemon, grace_ms);
}

static void part_done(struct down_part *part, rf_err_t err)
{
    down_query_t *query = part->query;
    rf_daemon_t *daemon = query->operation.client->daemon;
    rf_remote_close(part->remote);
    part->remote = NULL;
    if (err != RF_OK) {
        size_t at = strlen(query->failed);
        snprintf(query->failed + at, sizeof query->failed - at, "%s%s", at ? ", " : "",
                 daemon->config->nodes[part->node].name);
    }
    if (--query->outstanding == 0) down_here(query);
}

static void on_part_reply(void *context, const uint8_t *bytes, size_t size)
{
    Rackfish__ControlReply *reply = rf_control_reply_unpack(bytes, size);
    rf_err_t err = reply ? (rf_err_t)reply->err : RF_ERR_PROTOCOL;
    rf_control_reply_free(reply);
    part_done(context, err);
}

static void on_part_ended(void *context, rf_err_t err, const char *why)
{
    (void)why;
    part_done(context, err);
}

static const rf_remote_handlers_t part_handlers = {.on_frame = on_part_reply, .on_ended = on_part_ended};

static void down_late(void *context)
{
    down_query_t *query = context;
    for (unsigned i = 0; i < RF_NODES_MAX && query->outstanding > 0; i++) {
        if (query->parts[i].remote) {
            bool last = query->outstanding == 1;
            part_done(&query->parts[i], RF_ERR_TIMEOUT);
            if (last) return;
        }
    }
}

void rf_query_down(rf_client_t *client, uint64_t id, const Rackfish__DownRequest *request)
{
    rf_daemon_t *daemon = client->daemon;
    if (!client->privileged) {
        rf_client_error(client, id, RF_ERR_PERMISSION, "only root and the machine's owner, %s, may stop it",
                        daemon->owner);
        return;
    }
    down_query_t *query = rf_operation_new(client, id, sizeof *query, down_cancel);
    if (!query) return;
    query->grace_ms = request->grace_ms ? request->grace_ms : RF_DOWN_GRACE_MS;
    query->outstanding = 1;
    for (unsigned i = 0; i < daemon->config->n_nodes && !request->this_node_only && !client->relayed; i++) {
        struct down_part *part = &query->parts[i];
        part->query = query;
        part->node = (rf_node_t)i;
        if (i == daemon->node) continue;
        Rackfish__DownRequest down;
        rackfish__down_request__init(&down);
        down.grace_ms = query->grace_ms;
        down.this_node_only = true;
        Rackfish__ControlRequest forward;
        rackfish__control_request__init(&forward);
        forward.id = 1;
        forward.kind_case = RACKFISH__CONTROL_REQUEST__KIND_DOWN;
        forward.down = &down;
        query->outstanding++;
        if (rf_remote_ask(daemon, part->node, client, &forward, &part_handlers, part, &part->remote) != RF_OK)
            part_done(part, RF_ERR_CLOSED);
    }
    rf_timer_set(&daemon->loop, &query->late, rf_clock_ns() + 2 * RF_ANSWER_NS, down_late, query);
    if (--query->outstanding == 0) down_here(query);
}

/* ---- without a living rackfishd ---- */

static bool is_taken(const char *node_dir)
{
    char path[RF_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/lock", node_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool taken = flock(fd, LOCK_EX | LOCK_NB) < 0;
    for (unsigned tries = 0; taken && tries < DYING_TRIES; tries++) { /* killed a moment ago */
        rf_clock_sleep_ms(10);
        taken = flock(fd, LOCK_EX | LOCK_NB) < 0;
    }
    close(fd);
    return taken;
}

static void sweep_cgroup(const char *node_dir, const rf_state_t *state)
{
    char path[RF_PATH_MAX + 16], text[4096], cgroup[RF_PATH_MAX];
    rf_core_t cores[RF_CORES_PER_NODE_MAX];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/machine", node_dir);
    if (rf_file_read(path, text, sizeof text) < 0) return;
    const char *line = strstr(text, "\ncgroup ");
    if (!line || sscanf(line + 8, "%255s", cgroup) != 1 || strncmp(cgroup, "/sys/fs/cgroup/", 15) != 0)
        return;
    for (unsigned i = 0; i < state->n && n < RF_CORES_PER_NODE_MAX; i++) {
        if (strcmp(state->processes[i].role, "cpudriver") == 0 && state->processes[i].core >= 0)
            cores[n++] = (rf_core_t)state->processes[i].core;
    }
    rf_cgroup_remove(cgroup, cores, n);
}

int rf_down_sweep(const char *run_dir, const char *node_name)
{
    static rf_state_t state;
    static int pidfds[RF_STATE_PROCESSES_MAX];
    char node_dir[RF_PATH_MAX];
    int status = EXIT_SUCCESS;
    if (snprintf(node_dir, sizeof node_dir, "%s/%s", run_dir, node_name) >= (int)sizeof node_dir ||
        strchr(node_name, '/') || node_name[0] == '.') {
        rf_log(RF_LOG_ERROR, "%s is no node's name", node_name);
        return 2;
    }
    if (is_taken(node_dir)) {
        rf_log(RF_LOG_ERROR, "the rackfishd of node %s lives; ask it ('rackfish down')", node_name);
        return EXIT_FAILURE;
    }
    rf_err_t err = rf_run_dir_read_state(node_dir, &state);
    if (err != RF_OK && err != RF_ERR_NOT_FOUND) {
        rf_log(RF_LOG_ERROR, "the state file in %s cannot be used: %s; end rf-cpudriver processes by hand",
               node_dir, rf_err_text(err));
        return EXIT_FAILURE;
    }
    for (unsigned i = 0; i < state.n; i++) {
        const rf_state_process_t *p = &state.processes[i];
        pidfds[i] = rf_process_open(p->pid, p->start_time);
        if (pidfds[i] >= 0 && pidfd_send_signal(pidfds[i], SIGKILL, NULL, 0) < 0 && errno != ESRCH) {
            rf_log(RF_LOG_ERROR, "cannot kill %s %d: %m", p->role, (int)p->pid);
            status = EXIT_FAILURE;
        }
    }
    for (unsigned i = 0; i < state.n; i++) {
        if (pidfds[i] < 0) continue;
        if (rf_process_wait_dead(pidfds[i], SWEEP_WAIT_MS) != RF_OK) status = EXIT_FAILURE;
        close(pidfds[i]);
    }
    sweep_cgroup(node_dir, &state);
    rf_run_dir_remove(run_dir, node_name);
    return status;
}
