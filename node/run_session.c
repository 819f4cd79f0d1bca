#include "node/run_session.h"

#include "base/log.h"
#include "base/os.h"
#include "node/logs.h"
#include "node/monitors.h"
#include "node/peers.h"
#include "node/run_relay.h"
#include "node/run_streams.h"
#include "node/ship.h"
#include "node/tls.h"
#include "wire/spawn.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPAWN_NS   (30 * RF_NS_PER_S) /* agreement and execution together */
#define AGAIN_NS   (50 * RF_NS_PER_MS)
#define LINGER_NS  (1 * RF_NS_PER_S) /* for output after the end, held open by somebody outside the domain */
#define ELECTIONS  10 /* that may fail on a busy host; who has no quorum for longer is cut off */
#define LIMITS_SET ((size_t)RF_SPAWN_LIMITS)

typedef enum run_phase { PREPARING, WAITING, SPAWNING, RUNNING } run_phase_t;

struct rf_run {
    rf_garbage_t garbage;
    rf_daemon_t *daemon;
    rf_client_t *client; /* NULL: gone */
    uint64_t id;
    run_phase_t phase;
    Rackfish__ControlRequest *request; /* own copy, until it runs */
    rf_local_core_t *core;
    rf_core_t core_number;
    rf_ship_t *ship;
    rf_run_streams_t streams;
    int block_fd, child_fds[3]; /* until the CPU driver has them; -1: none */
    uint64_t quorum_by_ns;      /* WAITING: not refused for the want of a quorum before; 0: not refused yet */
    rf_domain_t domain;
    char user[RF_USER_MAX];
    bool privileged, detach, ended, lingering;
    int32_t wait_status;
    rf_err_t reason;
    uint64_t user_us, system_us, max_rss_kib;
    rf_monitor_call_t call; /* SPAWN, then WAIT */
    rf_timer_t timer;       /* WAITING, hang-up, linger */
    rf_run_t *next, **link;
};

static void close_fds(rf_run_t *run)
{
    if (run->block_fd >= 0) close(run->block_fd);
    run->block_fd = -1;
    for (unsigned i = 0; i < 3; i++) {
        if (run->child_fds[i] >= 0) close(run->child_fds[i]);
        run->child_fds[i] = -1;
    }
}

static void run_free(rf_run_t *run)
{
    rf_monitor_call_cancel(&run->call);
    rf_timer_clear(&run->timer);
    rf_run_streams_close(&run->streams);
    close_fds(run);
    rf_ship_free(run->ship);
    rf_control_request_free(run->request);
    if (run->client) run->client->run = NULL;
    *run->link = run->next;
    if (run->next) run->next->link = run->link;
    rf_loop_free_later(&run->daemon->loop, &run->garbage);
}

/* Answers with an error instead of RunStarted; the connection can be used again. */
static void run_fail(rf_run_t *run, rf_err_t err, int os_errno, const char *message)
{
    if (run->client) {
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = run->id;
        reply.err = err;
        reply.os_errno = os_errno;
        reply.message = (char *)(uintptr_t)message;
        rf_client_reply(run->client, &reply);
    }
    run_free(run);
}

/* ---- the end ---- */

static void linger_over(void *context);

/* RunExit follows the last output. */
static void settle(rf_run_t *run)
{
    if (!run->ended) return;
    if (!rf_run_streams_drained(&run->streams)) {
        if (!run->lingering) {
            run->lingering = true;
            rf_timer_set(&run->daemon->loop, &run->timer, rf_clock_ns() + LINGER_NS, linger_over, run);
        }
        return;
    }
    if (run->client) {
        Rackfish__RunExit exit_message;
        rackfish__run_exit__init(&exit_message);
        exit_message.wait_status = run->wait_status;
        exit_message.reason = run->reason;
        exit_message.user_us = run->user_us;
        exit_message.system_us = run->system_us;
        exit_message.max_rss_kib = run->max_rss_kib;
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = run->id;
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_EXIT;
        reply.run_exit = &exit_message;
        rf_client_reply(run->client, &reply);
    }
    run_free(run);
}

static void linger_over(void *context)
{
    rf_run_t *run = context;
    if (run->client && !rf_run_streams_idle(&run->streams)) {
        /* The client has not taken everything yet: its own time. */
        rf_timer_set(&run->daemon->loop, &run->timer, rf_clock_ns() + LINGER_NS, linger_over, run);
        return;
    }
    rf_run_streams_close(&run->streams);
    settle(run);
}

static void on_streams_changed(void *context)
{
    settle(context);
}

static void on_domain_ended(void *context, rf_err_t err, const void *body, size_t size)
{
    rf_run_t *run = context;
    rf_client_domain_t domain;
    run->ended = true;
    run->reason = err;
    if (err == RF_OK && size >= sizeof domain) {
        memcpy(&domain, body, sizeof domain);
        run->wait_status = domain.wait_status;
        run->reason = domain.reason;
        run->user_us = domain.user_us;
        run->system_us = domain.system_us;
        run->max_rss_kib = domain.max_rss_kib;
    }
    rf_timer_clear(&run->timer);
    settle(run);
}

static void send_signal(rf_run_t *run, int signo, bool whole)
{
    rf_client_kill_t kill = {.domain = run->domain, .signo = (uint32_t)signo, .whole = whole};
    snprintf(kill.user, sizeof kill.user, "%s", run->privileged ? "root" : run->user);
    rf_err_t err = rf_monitor_tell(run->core, RF_CLIENT_KILL, &kill, sizeof kill);
    if (err != RF_OK && err != RF_ERR_PEER_DEAD)
        rf_log(RF_LOG_WARN, "signal %d for domain %llu was not passed on: %s", signo,
               (unsigned long long)run->domain, rf_err_text(err));
}

static void hangup_is_over(void *context)
{
    rf_run_t *run = context;
    if (run->lingering || run->ended) {
        run_free(run);
        return;
    }
    send_signal(run, SIGKILL, true);
    run->lingering = true;
    rf_timer_set(&run->daemon->loop, &run->timer, rf_clock_ns() + RF_RUN_HANGUP_NS, hangup_is_over, run);
}

static void hang_up(rf_run_t *run)
{
    send_signal(run, SIGHUP, false);
    send_signal(run, SIGCONT, false); /* a stopped program could not hear it */
    rf_timer_set(&run->daemon->loop, &run->timer, rf_clock_ns() + RF_RUN_HANGUP_NS, hangup_is_over, run);
}

void rf_run_client_gone(rf_run_t *run)
{
    run->client = NULL;
    if (run->phase < SPAWNING) {
        run_free(run);
        return;
    }
    rf_run_streams_abandon(&run->streams);
    if (run->phase == RUNNING && !run->ended) hang_up(run);
}

void rf_run_client_room(rf_run_t *run)
{
    if (run->phase == RUNNING) rf_run_streams_room(&run->streams);
}

/* ---- the start ---- */

static void ask_to_spawn(void *context);

/* A machine that is starved, or between two leaders, has no quorum for a moment: nothing was done, and the same is asked again. */
static bool waits_for_quorum(rf_run_t *run, rf_err_t err)
{
    if (err != RF_ERR_NO_QUORUM && err != RF_ERR_FORMING) return false;
    uint64_t now_ns = rf_clock_ns();
    if (run->quorum_by_ns == 0)
        run->quorum_by_ns = now_ns + ELECTIONS * run->daemon->config->election_ms * RF_NS_PER_MS;
    if (!run->client || now_ns >= run->quorum_by_ns) return false;
    run->phase = WAITING;
    rf_timer_set(&run->daemon->loop, &run->timer, now_ns + AGAIN_NS, ask_to_spawn, run);
    return true;
}

static void on_spawned(void *context, rf_err_t err, const void *body, size_t size)
{
    rf_run_t *run = context;
    const Rackfish__RunStart *start = run->request->run;
    rf_client_spawned_t spawned = {0};
    char message[512];
    if (size >= sizeof spawned) memcpy(&spawned, body, sizeof spawned);
    spawned.what[sizeof spawned.what - 1] = 0;
    if (err == RF_OK && size < sizeof spawned) err = RF_ERR_PROTOCOL;
    if (err == RF_ERR_EXEC && strncmp(spawned.what, "chdir ", 6) == 0)
        err = RF_ERR_OS; /* the program is not to blame */
    if (waits_for_quorum(run, err)) return;
    close_fds(run);
    if (err != RF_OK) {
        if (spawned.what[0] && spawned.os_errno)
            snprintf(message, sizeof message, "%s: %s", spawned.what, strerror((int)spawned.os_errno));
        else if (spawned.what[0])
            snprintf(message, sizeof message, "%s", spawned.what);
        else
            snprintf(message, sizeof message, "core %u could not start %.200s: %s", run->core_number,
                     start->argv[0], rf_err_text(err));
        run_fail(run, err, (int)spawned.os_errno, message);
        return;
    }
    run->domain = spawned.domain;
    run->phase = RUNNING;
    if (run->client) {
        Rackfish__RunStarted started;
        rackfish__run_started__init(&started);
        started.domain = run->domain;
        started.core = run->core_number;
        started.node = run->daemon->config->nodes[run->daemon->node].name;
        started.stdin_credit = run->detach ? 0 : RF_RUN_STDIN_CREDIT;
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = run->id;
        reply.more = !run->detach;
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_STARTED;
        reply.run_started = &started;
        rf_client_reply(run->client, &reply);
    }
    if (run->detach) {
        rf_logs_give(run->daemon, run->domain, run->user);
        run_free(run);
        return;
    }
    rf_run_streams_start(&run->streams, start->stdout_credit, start->stderr_credit);
    rf_control_request_free(run->request);
    run->request = NULL;
    rf_client_target_t target = {.domain = run->domain};
    err = rf_monitor_call(run->core, &run->call, RF_CLIENT_WAIT, &target, sizeof target, NULL, 0, 0,
                          on_domain_ended, run);
    if (err != RF_OK)
        on_domain_ended(run, err, NULL, 0);
    else if (!run->client)
        hang_up(run);
}

/* The environment as the client sent it, without what only belongs to the process it came from, with what a domain needs. */
static uint32_t make_environment(rf_run_t *run, const Rackfish__RunStart *start, const char **env,
                                 char *extra[2])
{
    uint32_t n = 0;
    unsigned n_extra = 0;
    const char *libraries = rf_ship_library_folder(run->ship);
    for (size_t i = 0; i < start->n_env; i++) {
        if (strncmp(start->env[i], "RACKFISH_CONTROL=", 17) == 0 ||
            strncmp(start->env[i], RF_ENV_DISPATCHER_FD "=", sizeof RF_ENV_DISPATCHER_FD) == 0)
            continue;
        if (libraries && strncmp(start->env[i], "LD_LIBRARY_PATH=", 16) == 0) continue;
        env[n++] = start->env[i];
    }
    if (libraries) {
        const char *old = NULL;
        for (size_t i = 0; i < start->n_env; i++) {
            if (strncmp(start->env[i], "LD_LIBRARY_PATH=", 16) == 0 && start->env[i][16])
                old = start->env[i] + 16;
        }
        if (asprintf(&extra[n_extra], "LD_LIBRARY_PATH=%s%s%s", libraries, old ? ":" : "", old ? old : "") >
            0)
            env[n++] = extra[n_extra++];
    }
    if (start->control) {
        char token[65];
        if (rf_control_token(run->daemon->config->key, run->daemon->config->key_size, &run->daemon->machine,
                             run->user, token) == RF_OK &&
            asprintf(&extra[n_extra], "RACKFISH_CONTROL=%s", token) > 0)
            env[n++] = extra[n_extra++];
    }
    return n;
}

static rf_err_t make_block(rf_run_t *run, int *fd_out)
{
    const Rackfish__RunStart *start = run->request->run;
    char *extra[2] = {NULL, NULL};
    const char **pointers = calloc(start->n_argv + start->n_env + 8, sizeof *pointers);
    uint8_t *bytes = malloc(RF_SPAWN_BYTES_MAX);
    rf_err_t err = RF_ERR_NO_MEMORY;
    int fd = -1;
    if (!pointers || !bytes) goto free_memory;
    for (size_t i = 0; i < start->n_argv; i++) pointers[i] = start->argv[i];
    rf_spawn_t spawn = {
        .flags = (start->tty ? RF_SPAWN_TTY : 0) | (start->control ? RF_SPAWN_CONTROL : 0) |
                 (run->daemon->config->allow_root ? RF_SPAWN_ROOT : 0) |
                 (rf_ship_executable_fd(run->ship) >= 0 ? RF_SPAWN_EXECUTABLE : 0) |
                 (start->detach ? RF_SPAWN_DAEMON : RF_SPAWN_STDIO),
        .umask = start->umask & 0777,
        .reserved_permille = (uint16_t)start->reserved_permille,
        .weight = (uint16_t)start->weight,
        .user = run->user,
        .cwd = start->cwd,
        .executable = start->executable,
        .n_args = (uint32_t)start->n_argv,
        .argv = pointers,
        .env = pointers + start->n_argv + 1,
    };
    spawn.n_env = make_environment(run, start, spawn.env, extra);
    if (start->n_limits_soft > 0) {
        spawn.flags |= RF_SPAWN_LIMITS_SET;
        for (size_t i = 0; i < LIMITS_SET; i++) {
            spawn.limits[i][0] = i < start->n_limits_soft ? start->limits_soft[i] : UINT64_MAX;
            spawn.limits[i][1] = i < start->n_limits_hard ? start->limits_hard[i] : UINT64_MAX;
        }
    }
    size_t size;
    err = rf_spawn_encode(&spawn, bytes, RF_SPAWN_BYTES_MAX, &size);
    if (err == RF_OK) err = rf_memory_create("rackfish-spawn", size, &fd);
    if (err == RF_OK && pwrite(fd, bytes, size, 0) != (ssize_t)size) err = RF_ERR_OS;
    if (err == RF_OK)
        *fd_out = fd;
    else if (fd >= 0)
        close(fd);

free_memory:
    free(extra[0]);
    free(extra[1]);
    free(bytes);
    free(pointers);
    return err;
}

static void ask_to_spawn(void *context)
{
    rf_run_t *run = context;
    char message[256];
    int fds[5] = {run->block_fd};
    unsigned n_fds = 1;
    for (unsigned i = 0; i < 3 && !run->detach; i++) fds[n_fds++] = run->child_fds[i];
    if (rf_ship_executable_fd(run->ship) >= 0) fds[n_fds++] = rf_ship_executable_fd(run->ship);
    rf_client_spawn_t request = {.core = run->core_number, .n_fds = (uint16_t)n_fds};
    run->phase = SPAWNING;
    rf_err_t err = rf_monitor_call(run->core, &run->call, RF_CLIENT_SPAWN, &request, sizeof request, fds,
                                   n_fds, SPAWN_NS, on_spawned, run);
    if (err != RF_OK) {
        snprintf(message, sizeof message, "core %u cannot be asked to start it: %s", run->core_number,
                 rf_err_text(err));
        run_fail(run, err, 0, message);
    }
}

static void spawn_now(rf_run_t *run)
{
    const Rackfish__RunStart *start = run->request->run;
    char message[256];
    rf_err_t err = make_block(run, &run->block_fd);
    if (err != RF_OK) {
        snprintf(message, sizeof message, "arguments and environment are too large, or memory is short: %s",
                 rf_err_text(err));
        run_fail(run, err, 0, message);
        return;
    }
    const struct passwd *user = run->daemon->privileged ? getpwnam(run->user) : NULL;
    if (!start->detach && rf_run_streams_open(&run->streams, start->tty, start->rows, start->columns,
                                              user ? user->pw_uid : (uid_t)-1, run->child_fds) != RF_OK) {
        snprintf(message, sizeof message, "cannot make %s for the program: %s",
                 start->tty ? "a terminal" : "pipes", strerror(errno));
        run_fail(run, RF_ERR_OS, errno, message);
        return;
    }
    ask_to_spawn(run);
}

static void on_shipped(void *context, rf_err_t err, const char *why)
{
    rf_run_t *run = context;
    if (err != RF_OK)
        run_fail(run, err, 0, why);
    else
        spawn_now(run);
}

static void on_ship_needs(void *context, char **paths, size_t n_paths)
{
    rf_run_t *run = context;
    Rackfish__RunNeedExecutable need;
    rackfish__run_need_executable__init(&need);
    need.n_paths = n_paths;
    need.paths = paths;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = run->id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_NEED_EXECUTABLE;
    reply.run_need_executable = &need;
    rf_client_reply(run->client, &reply);
}

/* Where it is to run. NULL: `message` says why nowhere. */
static rf_local_core_t *choose_core(rf_daemon_t *daemon, int32_t wanted, char *message, size_t max)
{
    if (wanted >= 0) {
        rf_local_core_t *core = rf_daemon_core(daemon, wanted);
        if (core && core->link_up) return core;
        snprintf(message, max, "core %d is down", wanted);
        return NULL;
    }
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[daemon->next_core++ % daemon->n_cores];
        if (core->link_up) return core;
    }
    snprintf(message, max, "no core of node %s is up", daemon->config->nodes[daemon->node].name);
    return NULL;
}

/* What is wrong with a request by itself, or NULL. */
static const char *check_start(const Rackfish__RunStart *start)
{
    if (start->n_argv == 0) return "there is no program to run";
    if (start->cwd[0] != '/') return "the working directory is not absolute";
    if (start->executable[0] == 0) return "the executable is not named";
    if (start->reserved_permille > 1000 || start->weight > 1000)
        return "a share is at most 1000 permille, a weight at most 1000";
    if (start->n_limits_soft > LIMITS_SET || start->n_limits_hard != start->n_limits_soft)
        return "there are more resource limits than this system has";
    if (start->tty && start->detach) return "a detached program has no terminal";
    return NULL;
}

static void run_here(rf_client_t *client, uint64_t id, const uint8_t *frame, size_t frame_size)
{
    rf_daemon_t *daemon = client->daemon;
    rf_run_t *run = calloc(1, sizeof *run);
    Rackfish__ControlRequest *copy = run ? rf_control_request_unpack(frame, frame_size) : NULL;
    if (!copy) {
        free(run);
        rf_client_error(client, id, RF_ERR_NO_MEMORY, "no memory for another program");
        return;
    }
    *run = (rf_run_t){.daemon = daemon, .client = client, .id = id, .request = copy};
    run->privileged = client->privileged;
    run->detach = copy->run->detach;
    /* Unprivileged, everything runs as the one user there is. */
    snprintf(run->user, sizeof run->user, "%s", daemon->privileged ? client->user : daemon->owner);
    run->block_fd = run->child_fds[0] = run->child_fds[1] = run->child_fds[2] = -1;
    run->streams = (rf_run_streams_t){.daemon = daemon,
                                      .client = client,
                                      .id = id,
                                      .stdin_fd = -1,
                                      .changed = on_streams_changed,
                                      .context = run};
    run->streams.outputs[0].fd = run->streams.outputs[1].fd = -1;
    run->next = daemon->runs;
    run->link = &daemon->runs;
    if (run->next) run->next->link = &run->next;
    daemon->runs = run;
    client->run = run;

    char message[256];
    const Rackfish__RunStart *start = copy->run;
    run->core = choose_core(daemon, start->core, message, sizeof message);
    if (!run->core) {
        run_fail(run, RF_ERR_PEER_DEAD, 0, message);
        return;
    }
    run->core_number = run->core->core;
    if (daemon->privileged && strcmp(run->user, "root") == 0 && !daemon->config->allow_root) {
        run_fail(run, RF_ERR_PERMISSION, 0,
                 "programs do not run as root on this machine; ask as another user, or set 'allow_root: on'");
        return;
    }
    if (!client->relayed) { /* the client is on this host: the file it means is this host's */
        spawn_now(run);
        return;
    }
    rf_err_t err = rf_ship_start(daemon, start, run->user, on_shipped, on_ship_needs, run, &run->ship);
    if (err != RF_OK) run_fail(run, err, 0, "no memory for the program's files");
}

/* Where a program without a wish goes: it stays, unless this node only votes. RF_NODE_NONE: nowhere. */
static rf_node_t choose_node(rf_daemon_t *daemon)
{
    const rf_config_t *config = daemon->config;
    if (!config->nodes[daemon->node].witness) return daemon->node;
    for (unsigned i = 0; i < config->n_nodes; i++) {
        rf_node_t node = (rf_node_t)(daemon->next_node++ % config->n_nodes);
        if (!config->nodes[node].witness && rf_peer_is_connected(daemon, node)) return node;
    }
    return RF_NODE_NONE;
}

void rf_run_start(rf_client_t *client, uint64_t id, const Rackfish__RunStart *start, const uint8_t *frame,
                  size_t frame_size)
{
    rf_daemon_t *daemon = client->daemon;
    const char *wrong = check_start(start);
    if (wrong) {
        rf_client_error(client, id, RF_ERR_INVALID, "%s", wrong);
        return;
    }
    if (client->operations) {
        rf_client_error(client, id, RF_ERR_BUSY, "a session needs a connection of its own");
        return;
    }
    if (daemon->phase != RF_PHASE_READY) {
        rf_client_error(client, id, RF_ERR_FORMING, "node %s is %s", daemon->config->nodes[daemon->node].name,
                        daemon->phase == RF_PHASE_BOOTING ? "still booting" : "going down");
        return;
    }
    rf_node_t node = daemon->node;
    if (start->core >= 0) {
        node = rf_daemon_node_of_core(daemon, start->core);
        if (node == RF_NODE_NONE) {
            rf_client_error(client, id, RF_ERR_NOT_FOUND,
                            "there is no core %d; the machine has cores 0 to %u", start->core,
                            daemon->machine_cores - 1u);
            return;
        }
    } else if (start->node[0]) {
        for (node = 0; node < daemon->config->n_nodes; node++) {
            if (strcmp(daemon->config->nodes[node].name, start->node) == 0) break;
        }
        if (node == daemon->config->n_nodes) {
            rf_client_error(client, id, RF_ERR_NOT_FOUND,
                            "there is no node %.64s; 'rackfish nodes' lists them", start->node);
            return;
        }
    } else if (!client->relayed) {
        node = choose_node(daemon);
        if (node == RF_NODE_NONE) {
            rf_client_error(
                client, id, RF_ERR_PEER_DEAD,
                "node %s only votes (a witness), and no other node is in reach; --node %s runs it "
                "here nevertheless",
                daemon->config->nodes[daemon->node].name, daemon->config->nodes[daemon->node].name);
            return;
        }
    }
    if (node == daemon->node)
        run_here(client, id, frame, frame_size);
    else if (client->relayed)
        rf_client_error(client, id, RF_ERR_INVALID, "core %d is not of node %s", start->core,
                        daemon->config->nodes[daemon->node].name);
    else
        rf_relay_start(client, id, node, frame, frame_size);
}

/* ---- while it runs ---- */

void rf_run_request(rf_run_t *run, const Rackfish__ControlRequest *request)
{
    rf_err_t err = RF_ERR_PROTOCOL;
    switch (request->kind_case) {
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_EXECUTABLE:
        if (run->phase == PREPARING && run->ship) {
            rf_ship_receive(run->ship, request->run_executable);
            return;
        }
        break;
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_DATA:
        if (run->phase == RUNNING) err = rf_run_streams_data(&run->streams, request->run_data);
        break;
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_CREDIT:
        if (run->phase == RUNNING) err = rf_run_streams_credit(&run->streams, request->run_credit);
        break;
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_RESIZE:
        if (run->phase == RUNNING)
            rf_run_streams_resize(&run->streams, request->run_resize->rows, request->run_resize->columns);
        err = RF_OK;
        break;
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_SIGNAL: {
        int signo = request->run_signal->signal;
        if (signo >= 1 && signo <= 64) err = RF_OK;
        if (err == RF_OK && run->phase == RUNNING && !run->ended) send_signal(run, signo, false);
        break;
    }
    default:
        break;
    }
    if (err != RF_OK && run->client) {
        rf_client_t *client = run->client;
        rf_client_error(client, run->id, err, "the client broke the rules of a session");
        rf_client_end(client);
    }
}

void rf_runs_close(rf_daemon_t *daemon)
{
    while (daemon->runs) {
        rf_run_t *run = daemon->runs;
        if (run->client)
            rf_client_error(run->client, run->id, RF_ERR_UNKNOWN_OUTCOME,
                            "node %s went down; whether the program finished is not known",
                            daemon->config->nodes[daemon->node].name);
        run_free(run);
    }
}
