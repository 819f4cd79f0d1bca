#include "node/control_server.h"

#include "base/log.h"
#include "base/os.h"
#include "node/control_events.h"
#include "node/control_queries.h"
#include "node/down.h"
#include "node/dump.h"
#include "node/listener.h"
#include "node/logs.h"
#include "node/privileges.h"
#include "node/run_relay.h"
#include "node/rejoin.h"
#include "node/run_session.h"
#include "node/tls.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 16
#define FINISH_MS        2000
#define REFUSALS_NS      (10 * RF_NS_PER_S) /* one line in the log in this time */
#define GROUPS_MAX       256
#define CLIENTS_KEPT     64 /* places for owner and root outside domains: nobody else keeps them out */
#define FOREBEARS_MAX    64

struct rf_control {
    int fd;
    rf_listener_t listener;
    unsigned n_clients;
    rf_client_t *clients;
    uint64_t refused_ns, garbage_ns;
};

static const rf_conn_handlers_t client_handlers = {
    .on_frame = rf_client_frame, .on_room = rf_client_room, .on_closed = rf_client_closed};

/* ---- replies ---- */

bool rf_client_reply(rf_client_t *client, const Rackfish__ControlReply *reply)
{
    size_t size = rackfish__control_reply__get_packed_size(reply);
    uint8_t *room = client->conn ? rf_conn_reserve(client->conn, size) : NULL;
    if (!room) return false;
    rackfish__control_reply__pack(reply, room);
    rf_conn_commit(client->conn);
    return true;
}

bool rf_client_error(rf_client_t *client, uint64_t id, rf_err_t err, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = id;
    reply.err = err;
    reply.message = text;
    return rf_client_reply(client, &reply);
}

/* ---- operations ---- */

void *rf_operation_new(rf_client_t *client, uint64_t id, size_t size, void (*cancel)(rf_operation_t *))
{
    rf_operation_t *operation = client->n_operations < RF_OPERATIONS_MAX ? calloc(1, size) : NULL;
    if (!operation) {
        rf_client_error(client, id, RF_ERR_LIMIT, "more than %d requests at once; wait for answers first",
                        RF_OPERATIONS_MAX);
        return NULL;
    }
    operation->client = client;
    operation->id = id;
    operation->cancel = cancel;
    operation->next = client->operations;
    operation->link = &client->operations;
    if (operation->next) operation->next->link = &operation->next;
    client->operations = operation;
    client->n_operations++;
    return operation;
}

void rf_operation_end(rf_operation_t *operation)
{
    *operation->link = operation->next;
    if (operation->next) operation->next->link = operation->link;
    operation->client->n_operations--;
    rf_loop_free_later(&operation->client->daemon->loop, &operation->garbage);
}

/* ---- who may ---- */

bool rf_control_user_allowed(const rf_daemon_t *daemon, uid_t uid, const char *user)
{
    if (uid == 0 || uid == daemon->owner_uid) return true;
    gid_t groups[GROUPS_MAX];
    int n_groups = 0;
    const struct passwd *entry = getpwnam(user);
    if (entry) {
        n_groups = GROUPS_MAX;
        if (getgrouplist(user, entry->pw_gid, groups, &n_groups) < 0) n_groups = GROUPS_MAX;
    }
    for (unsigned i = 0; i < daemon->config->n_users; i++) {
        const char *allowed = daemon->config->users[i];
        if (allowed[0] != '@') {
            if (strcmp(allowed, user) == 0) return true;
            continue;
        }
        const struct group *group = getgrnam(allowed + 1);
        for (int g = 0; group && g < n_groups; g++) {
            if (groups[g] == group->gr_gid) return true;
        }
    }
    return false;
}

/* Reads what everybody may about a process: its parent, and in how many PID namespaces it is. */
static bool process_look(pid_t pid, pid_t *parent, unsigned *namespaces)
{
    char path[32], text[8192];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (rf_file_read(path, text, sizeof text) < 0) return false;
    const char *at = strstr(text, "\nPPid:");
    if (!at) return false;
    *parent = (pid_t)strtol(at + 6, NULL, 10);
    at = strstr(text, "\nNSpid:");
    *namespaces = 0;
    if (at) {
        at += 7;
        size_t line = strcspn(at, "\n");
        for (size_t i = 0; i < line; i++)
            *namespaces += at[i] >= '0' && at[i] <= '9' && (i == 0 || at[i - 1] < '0' || at[i - 1] > '9');
    }
    return true;
}

/* A process belongs to a domain when it is in a PID namespace below ours, or has a CPU driver of this node among its
 * forebears (where domains have no namespace of their own). One that cannot be looked at, or whose forebears end while
 * they are, is taken for one; those that this host hides are not ours. */
static bool process_is_in_domain(const rf_daemon_t *daemon, pid_t pid)
{
    pid_t parent, next, again;
    unsigned own, its;
    if (!process_look(getpid(), &parent, &own) || pid <= 0 || !process_look(pid, &parent, &its) || its > own)
        return true;
    for (unsigned depth = 0; depth < FOREBEARS_MAX && parent > 1; depth++) {
        for (unsigned i = 0; i < daemon->n_cores; i++) {
            if (daemon->cores[i].pid == parent) return true;
        }
        if (!process_look(parent, &next, &its)) return !process_look(pid, &again, &its) || again != parent;
        pid = parent;
        parent = next;
    }
    return parent > 1; /* so long a chain that its beginning was not reached */
}

static bool control_token_fits(const rf_daemon_t *daemon, const char *user, const char *token)
{
    char right[65];
    if (!daemon->machine_known || strlen(token) != 64 ||
        rf_control_token(daemon->config->key, daemon->config->key_size, &daemon->machine, user, right) !=
            RF_OK)
        return false;
    unsigned difference = 0;
    for (unsigned i = 0; i < 64; i++) difference |= (unsigned)(right[i] ^ token[i]);
    return difference == 0;
}

/* ---- clients ---- */

static void hello_late(void *context)
{
    rf_client_end(context);
}

static rf_client_t *client_new(rf_daemon_t *daemon)
{
    rf_control_t *control = daemon->control;
    rf_client_t *client = control->n_clients < RF_CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;
    if (!client) return NULL;
    client->daemon = daemon;
    client->next = control->clients;
    client->link = &control->clients;
    if (client->next) client->next->link = &client->next;
    control->clients = client;
    control->n_clients++;
    return client;
}

void rf_client_end(rf_client_t *client)
{
    rf_daemon_t *daemon = client->daemon;
    rf_timer_clear(&client->hello_timer);
    while (client->operations) client->operations->cancel(client->operations);
    rf_registry_client_end(client);
    if (client->run) rf_run_client_gone(client->run);
    if (client->relay) rf_relay_client_gone(client->relay);
    client->run = NULL;
    client->relay = NULL;
    rf_conn_finish(client->conn, FINISH_MS);
    client->conn = NULL;
    *client->link = client->next;
    if (client->next) client->next->link = client->link;
    daemon->control->n_clients--;
    rf_loop_free_later(&daemon->loop, &client->garbage);
}

void rf_client_closed(void *context, rf_err_t err, const char *why)
{
    rf_client_t *client = context;
    if (err == RF_ERR_PROTOCOL && rf_log_once_per(&client->daemon->control->garbage_ns, REFUSALS_NS))
        rf_log(RF_LOG_WARN, "a control client of user %s was cut off: %s", client->user, why);
    rf_client_end(client);
}

void rf_client_room(void *context)
{
    rf_client_t *client = context;
    if (client->relay) rf_relay_client_room(client->relay);
    if (client->run) rf_run_client_room(client->run);
    rf_operation_t *operation = client->operations;
    while (operation && !(client->conn && rf_conn_full(client->conn))) {
        rf_operation_t *next = operation->next;
        if (operation->room) operation->room(operation);
        operation = next;
    }
}

/* Returns the reason for refusing a connected peer, or NULL; fills in who it is. `in_domain`: only with a token. */
static const char *judge_peer(rf_client_t *client, int fd, bool *in_domain)
{
    const rf_daemon_t *daemon = client->daemon;
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return "its credentials cannot be read";
    client->uid = peer.uid;
    if (!rf_user_name(peer.uid, client->user)) {
        snprintf(client->user, sizeof client->user, "%u", (unsigned)peer.uid);
        if (peer.uid != daemon->owner_uid) return "it has no name on this host";
    }
    client->privileged = peer.uid == 0 || peer.uid == daemon->owner_uid;
    if (!rf_control_user_allowed(daemon, peer.uid, client->user))
        return "this user may not use the machine; its owner can add the name to 'users:' of the "
               "configuration";
    *in_domain = process_is_in_domain(daemon, peer.pid);
    return NULL;
}

static void refuse(rf_client_t *client, const char *reason)
{
    if (rf_log_once_per(&client->daemon->control->refused_ns, REFUSALS_NS))
        rf_log(RF_LOG_WARN, "refused user %s on the control socket: %s", client->user, reason);
    rf_client_error(client, 0, RF_ERR_PERMISSION, "refused: %s", reason);
    rf_client_end(client);
}

static void accept_one(rf_daemon_t *daemon, int fd)
{
    rf_client_t *client = client_new(daemon);
    if (!client) {
        if (rf_log_once_per(&daemon->control->refused_ns, REFUSALS_NS))
            rf_log(RF_LOG_WARN, "more than %d clients on the control socket", RF_CLIENTS_MAX);
        close(fd);
        return;
    }
    bool in_domain = false;
    const char *reason = judge_peer(client, fd, &in_domain);
    client->hello_done = false;
    if (rf_conn_open(&daemon->loop, fd, NULL, false, &client_handlers, client, &client->conn) != RF_OK) {
        client->conn = NULL;
        rf_client_end(client);
        return;
    }
    if (!reason && (in_domain || !client->privileged) &&
        daemon->control->n_clients > RF_CLIENTS_MAX - CLIENTS_KEPT)
        reason = "there are too many clients; the last places are for its owner and root";
    if (reason) {
        refuse(client, reason);
        return;
    }
    client->needs_token = in_domain;
    rf_timer_set(&daemon->loop, &client->hello_timer, rf_clock_ns() + RF_CONTROL_HELLO_NS, hello_late,
                 client);
}

static void on_listen(void *context, uint32_t events)
{
    (void)events;
    rf_daemon_t *daemon = context;
    for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = rf_listener_accept(&daemon->control->listener, NULL, NULL);
        if (fd < 0) return;
        accept_one(daemon, fd);
    }
}

rf_client_t *rf_control_adopt(rf_daemon_t *daemon, rf_conn_t *conn, const char *user, bool privileged)
{
    rf_client_t *client = client_new(daemon);
    if (!client) {
        rf_conn_close(conn);
        return NULL;
    }
    client->conn = conn;
    conn->handlers = &client_handlers;
    conn->context = client;
    client->relayed = client->hello_done = true;
    client->privileged = privileged;
    snprintf(client->user, sizeof client->user, "%s", user);
    return client;
}

/* ---- requests ---- */

static uint32_t lower_minor(uint32_t theirs)
{
    const uint32_t ours = RF_CONTROL_MINOR;
    return theirs < ours ? theirs : ours;
}

static void on_hello(rf_client_t *client, uint64_t id, const Rackfish__Hello *hello)
{
    rf_daemon_t *daemon = client->daemon;
    if (hello->major != RF_CONTROL_MAJOR) {
        rf_client_error(
            client, id, RF_ERR_VERSION,
            "this node speaks version %d of the control API, the client %u; install the same release",
            RF_CONTROL_MAJOR, hello->major);
        rf_client_end(client);
        return;
    }
    if (client->needs_token && !control_token_fits(daemon, client->user, hello->control_token)) {
        refuse(client,
               "it is inside a domain (or a PID namespace); start the domain with --control to allow this");
        return;
    }
    client->needs_token = false;
    client->hello_done = true;
    rf_timer_clear(&client->hello_timer);
    Rackfish__Hello own;
    rackfish__hello__init(&own);
    own.major = RF_CONTROL_MAJOR;
    own.minor = lower_minor(hello->minor);
    char software[] = RF_SOFTWARE;
    own.software = software;
    own.machine = daemon->config->machine;
    own.node = daemon->config->nodes[daemon->node].name;
    if (daemon->machine_known) {
        own.machine_id.data = daemon->machine.bytes;
        own.machine_id.len = sizeof daemon->machine.bytes;
    }
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = id;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_HELLO;
    reply.hello = &own;
    rf_client_reply(client, &reply);
}

static void dispatch(rf_client_t *client, const Rackfish__ControlRequest *request, const uint8_t *bytes,
                     size_t size)
{
    uint64_t id = request->id;
    switch (request->kind_case) {
    case RACKFISH__CONTROL_REQUEST__KIND_HELLO:
        on_hello(client, id, request->hello);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_STATUS:
        rf_query_status(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_CORES:
        rf_query_cores(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_NODES:
        rf_query_nodes(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_DOMAINS:
        rf_query_domains(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_NAMES:
        rf_query_names(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_LINKS:
        rf_query_links(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_RESOURCES:
        rf_query_resources(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_HOLDINGS:
        rf_query_holdings(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_KILL:
        rf_query_kill(client, id, request->kill);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_WAIT:
        rf_query_wait(client, id, request->wait);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_RUN:
        rf_run_start(client, id, request->run, bytes, size);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_LOGS:
        rf_query_logs(client, id, request->logs);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_DOWN:
        rf_query_down(client, id, request->down);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_EVENTS:
        rf_query_events(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_DUMP:
        rf_query_dump(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_PING:
        rf_query_ping(client, id);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_REGISTRY:
        rf_query_registry(client, id, request->registry);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_JOIN:
        rf_query_join(client, id, request->join);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_CORE_ON:
        rf_query_core_on(client, id, request->core_on);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_CORE_OFF:
        rf_query_core_off(client, id, request->core_off);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_NODE_REMOVE:
        rf_query_node_remove(client, id, request->node_remove);
        return;
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_DATA:
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_CREDIT:
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_SIGNAL:
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_RESIZE:
    case RACKFISH__CONTROL_REQUEST__KIND_RUN_EXECUTABLE:
        return; /* of a session that ended while this was on its way */
    default:
        rf_client_error(client, id, RF_ERR_NOT_SUPPORTED, "this node does not know that request");
        return;
    }
}

void rf_client_frame(void *context, const uint8_t *bytes, size_t size)
{
    rf_client_t *client = context;
    if (client->relay) {
        rf_relay_client_frame(client->relay, bytes, size);
        return;
    }
    Rackfish__ControlRequest *request = rf_control_request_unpack(bytes, size);
    if (!request) {
        if (rf_log_once_per(&client->daemon->control->garbage_ns, REFUSALS_NS))
            rf_log(RF_LOG_WARN, "a control client of user %s sent bytes that are no request", client->user);
        rf_client_error(client, 0, RF_ERR_PROTOCOL, "these bytes are no ControlRequest");
        rf_client_end(client);
        return;
    }
    bool is_hello = request->kind_case == RACKFISH__CONTROL_REQUEST__KIND_HELLO;
    if (!client->hello_done && !is_hello) {
        rf_client_error(client, request->id, RF_ERR_PROTOCOL, "a connection starts with Hello");
        rf_client_end(client);
    } else if (client->run && !is_hello) {
        rf_run_request(client->run, request);
    } else {
        dispatch(client, request, bytes, size);
    }
    rf_control_request_free(request);
}

/* ---- the socket ---- */

rf_err_t rf_control_open(rf_daemon_t *daemon, char *error, size_t error_max)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    rf_control_t *control = calloc(1, sizeof *control);
    if (!control) {
        snprintf(error, error_max, "no memory for the control socket");
        return RF_ERR_NO_MEMORY;
    }
    daemon->control = control;
    snprintf(address.sun_path, sizeof address.sun_path, "%s.sock", daemon->node_dir);
    control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(address.sun_path); /* of a rackfishd that died: the lock says that none lives */
    if (control->fd < 0 || bind(control->fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        chmod(address.sun_path, daemon->privileged ? 0666 : 0600) < 0 || listen(control->fd, 128) < 0 ||
        rf_listener_open(&control->listener, &daemon->loop, control->fd, "the control socket", on_listen,
                         daemon) != RF_OK) {
        snprintf(error, error_max, "cannot make the control socket %s: %s", address.sun_path,
                 strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}

void rf_control_refuse_new(rf_daemon_t *daemon)
{
    rf_control_t *control = daemon->control;
    if (!control || control->fd < 0) return;
    rf_listener_close(&control->listener);
    close(control->fd);
    control->fd = -1;
}

void rf_control_close(rf_daemon_t *daemon)
{
    if (!daemon->control) return;
    rf_control_refuse_new(daemon);
    while (daemon->control->clients) rf_client_end(daemon->control->clients);
    free(daemon->control);
    daemon->control = NULL;
}
