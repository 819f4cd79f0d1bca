#include "node/bootstrap.h"

#include "base/log.h"
#include "base/prng.h"
#include "node/boot.h"
#include "node/control_server.h"
#include "node/monitors.h"
#include "node/proto.h"
#include "node/run_dir.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REDIAL_FIRST_NS (50 * RF_NS_PER_MS)
#define REDIAL_MAX_NS   (1000 * RF_NS_PER_MS)
#define LOG_AGAIN_NS    (30 * RF_NS_PER_S)
#define FINISH_MS       1000
#define ACCEPTS_MAX     16
#define DYING_TRIES     50 /* of 10 ms */
#define CONFIG_LINES    (RF_NODES_MAX + 16)

/* One other node. */
typedef struct peer {
    rf_daemon_t *daemon;
    rf_node_t node;
    rf_conn_t *conn; /* standing; NULL: none */
    bool accepted;   /* both hellos are fine */
    uint8_t instance[16];
    rf_timer_t redial, late;
    uint64_t redial_ns; /* the next pause */
    uint64_t logged_ns;
    /* What it told. */
    unsigned n_addresses;
    char (*addresses)[RF_CLIENT_ADDRESS_MAX];
    char medium[16];
    uint64_t memory_bytes;
    char cpu_model[128];
} peer_t;

/* A connection that came in and has not said who it is. */
typedef struct stranger {
    rf_daemon_t *daemon;
    rf_conn_t *conn; /* NULL: free */
    rf_timer_t late;
    uint64_t since_ns;
    char from[INET6_ADDRSTRLEN + 8];
} stranger_t;

struct rf_peers {
    int listen_fd;
    rf_source_t source;
    uint8_t instance[16]; /* of this life of rackfishd */
    uint64_t strangers_logged_ns;
    unsigned strangers_unlogged;
    stranger_t strangers[RF_PEER_STRANGERS_MAX];
    peer_t peers[RF_NODES_MAX];
};

static void dial(peer_t *peer);

/* ---- hello ---- */

/* "name=value" for everything that the digest covers and a person may want to compare. */
static unsigned config_lines(const rf_daemon_t *daemon, char lines[][320], char **pointers)
{
    const rf_config_t *c = daemon->config;
    unsigned n = 0;
    snprintf(lines[n++], 320, "machine=%s", c->machine);
    snprintf(lines[n++], 320, "encrypt=%s", c->encrypt ? "on" : "off");
    snprintf(lines[n++], 320, "allow_root=%s", c->allow_root ? "on" : "off");
    snprintf(lines[n++], 320, "emulated=%s", c->emulated ? "on" : "off");
    snprintf(lines[n++], 320, "heartbeat_ms=%u", c->heartbeat_ms);
    snprintf(lines[n++], 320, "host_deadline_ms=%u", c->host_deadline_ms);
    snprintf(lines[n++], 320, "scheduler=%u", c->sched);
    snprintf(lines[n++], 320, "number of hosts=%u", c->n_nodes);
    for (unsigned i = 0; i < c->n_nodes; i++) {
        const rf_config_node_t *node = &c->nodes[i];
        char cores[16] = "all";
        if (node->cores_form != RF_CONFIG_CORES_ALL) snprintf(cores, sizeof cores, "%u", node->n_cores);
        snprintf(lines[n++], 320, "host %u=%s, address %s, port %u, %s cores, memory %llu", i, node->name,
                 node->address, node->port, cores, (unsigned long long)node->memory_bytes);
    }
    for (unsigned i = 0; i < n; i++) pointers[i] = lines[i];
    return n;
}

static void send_frame(rf_conn_t *conn, const Rackfish__Node__PeerFrame *frame)
{
    uint8_t *room = rf_conn_reserve(conn, rackfish__node__peer_frame__get_packed_size(frame));
    if (!room) return;
    rackfish__node__peer_frame__pack(frame, room);
    rf_conn_commit(conn);
}

void rf_peer_send_hello(rf_daemon_t *daemon, rf_conn_t *conn, bool control, const char *user,
                        bool privileged_user)
{
    static char lines[CONFIG_LINES][320];
    char *pointers[CONFIG_LINES], software[] = RF_SOFTWARE;
    Rackfish__Node__PeerHello hello;
    rackfish__node__peer_hello__init(&hello);
    hello.major = RF_PEER_MAJOR;
    hello.minor = RF_PEER_MINOR;
    hello.software = software;
    hello.machine = daemon->config->machine;
    hello.node = daemon->node;
    hello.node_name = daemon->config->nodes[daemon->node].name;
    hello.config_digest =
        (ProtobufCBinaryData){.data = daemon->config_digest, .len = sizeof daemon->config_digest};
    hello.n_config = config_lines(daemon, lines, pointers);
    hello.config = pointers;
    if (daemon->machine_known)
        hello.machine_id =
            (ProtobufCBinaryData){.data = daemon->machine.bytes, .len = sizeof daemon->machine.bytes};
    hello.instance =
        (ProtobufCBinaryData){.data = daemon->peers->instance, .len = sizeof daemon->peers->instance};
    hello.n_cores = daemon->places[daemon->node].n_cores;
    hello.purpose = control ? RACKFISH__NODE__PEER_PURPOSE__CONTROL : RACKFISH__NODE__PEER_PURPOSE__STANDING;
    if (control) {
        hello.user = (char *)(uintptr_t)user;
        hello.privileged_user = privileged_user;
    }
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_HELLO;
    frame.hello = &hello;
    send_frame(conn, &frame);
}

static void send_refusal(rf_conn_t *conn, rf_err_t err, const char *why)
{
    Rackfish__Node__PeerRefused refused;
    rackfish__node__peer_refused__init(&refused);
    refused.err = err;
    refused.message = (char *)(uintptr_t)why;
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_REFUSED;
    frame.refused = &refused;
    send_frame(conn, &frame);
}

/* Names the first setting that is not the same on both sides. */
static void name_difference(const rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, char *out,
                            size_t max)
{
    static char lines[CONFIG_LINES][320];
    char *own[CONFIG_LINES];
    unsigned n = config_lines(daemon, lines, own);
    for (unsigned i = 0; i < n && i < hello->n_config; i++) {
        if (strcmp(own[i], hello->config[i]) != 0) {
            snprintf(out, max, "%.120s here, %.120s there", own[i], hello->config[i]);
            return;
        }
    }
    snprintf(out, max, "transports, or CPUs of a host");
}

rf_err_t rf_peer_judge(rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, rf_node_t expected,
                       char *why, size_t why_max)
{
    const rf_config_t *config = daemon->config;
    if (hello->major != RF_PEER_MAJOR) {
        snprintf(why, why_max,
                 "version %u of the node protocol (%.40s) and version %d (" RF_SOFTWARE
                 ") do not fit together; install the same release on all hosts",
                 hello->major, hello->software, RF_PEER_MAJOR);
        return RF_ERR_VERSION;
    }
    if (hello->config_digest.len != sizeof daemon->config_digest ||
        memcmp(hello->config_digest.data, daemon->config_digest, sizeof daemon->config_digest) != 0) {
        char difference[256];
        name_difference(daemon, hello, difference, sizeof difference);
        snprintf(why, why_max, "the configurations of %.63s and %.63s differ: %s; copy one file to all hosts",
                 config->nodes[daemon->node].name, hello->node_name, difference);
        return RF_ERR_CONFIG;
    }
    if (hello->node >= config->n_nodes || strcmp(config->nodes[hello->node].name, hello->node_name) != 0) {
        snprintf(why, why_max, "%.63s is not host %u of the configuration", hello->node_name, hello->node);
        return RF_ERR_CONFIG;
    }
    if (hello->node == daemon->node || (expected != RF_NODE_NONE && hello->node != expected)) {
        snprintf(why, why_max,
                 "two hosts say that they are %.63s, or its address leads to the wrong host; check --node "
                 "and 'address:'",
                 hello->node_name);
        return RF_ERR_EXISTS;
    }
    if (hello->n_cores == 0 || hello->n_cores > RF_CORES_PER_NODE_MAX) {
        snprintf(why, why_max, "%.63s says that it has %u cores", hello->node_name, hello->n_cores);
        return RF_ERR_PROTOCOL;
    }
    const rf_place_t *place = &daemon->places[hello->node];
    if (place->n_cores != 0 && place->n_cores != hello->n_cores) {
        snprintf(why, why_max,
                 "%.63s has %u cores now and had %u when the machine was formed; 'rackfish down' and 'up' "
                 "form it anew",
                 hello->node_name, hello->n_cores, place->n_cores);
        return RF_ERR_CONFIG;
    }
    if (hello->machine_id.len != 0 && hello->machine_id.len != sizeof daemon->machine.bytes) {
        snprintf(why, why_max, "its machine id has %zu bytes", hello->machine_id.len);
        return RF_ERR_PROTOCOL;
    }
    if (hello->machine_id.len != 0 && daemon->machine_known &&
        memcmp(hello->machine_id.data, daemon->machine.bytes, sizeof daemon->machine.bytes) != 0) {
        snprintf(why, why_max,
                 "%.63s belongs to another machine named %.63s, formed at another time; 'rackfish down' on "
                 "the one that is "
                 "not wanted",
                 hello->node_name, config->machine);
        return RF_ERR_AUTH;
    }
    return RF_OK;
}

/* ---- what is known of other nodes, to monitors and back ---- */

static void tell_addresses(rf_daemon_t *daemon, rf_local_core_t *core, const peer_t *peer)
{
    rf_client_addresses_t message;
    for (unsigned from = 0; from < peer->n_addresses; from += RF_CLIENT_ADDRESSES_MAX) {
        unsigned n = peer->n_addresses - from;
        memset(&message, 0, sizeof message);
        message.node = peer->node;
        message.first = (rf_core_t)(daemon->places[peer->node].first_core + from);
        message.n = (uint16_t)(n < RF_CLIENT_ADDRESSES_MAX ? n : RF_CLIENT_ADDRESSES_MAX);
        memcpy(message.medium, peer->medium, sizeof message.medium);
        for (unsigned i = 0; i < message.n; i++)
            memcpy(message.address[i], peer->addresses[from + i], sizeof message.address[i]);
        rf_err_t err = rf_monitor_tell(core, RF_CLIENT_NODE_ADDRESSES, &message, sizeof message);
        if (err != RF_OK)
            rf_log(RF_LOG_ERROR, "core %u could not be told where the cores of %s listen: %s", core->core,
                   daemon->config->nodes[peer->node].name, rf_err_text(err));
    }
}

void rf_peers_tell_monitor(rf_daemon_t *daemon, rf_local_core_t *core)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node) tell_addresses(daemon, core, &daemon->peers->peers[i]);
    }
}

/* Living cores' addresses are all there, so that they can be told. */
static bool own_cores_known(const rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        const rf_local_core_t *core = &daemon->cores[i];
        if (core->life == RF_LIFE_NONE || (core->life != RF_LIFE_DOWN && !core->listen_address[0]))
            return false;
    }
    return true;
}

static void send_cores(peer_t *peer)
{
    rf_daemon_t *daemon = peer->daemon;
    char *addresses[RF_CORES_PER_NODE_MAX];
    if (!peer->conn || !peer->accepted || !own_cores_known(daemon)) return;
    for (unsigned i = 0; i < daemon->n_cores; i++) addresses[i] = daemon->cores[i].listen_address;
    Rackfish__Node__PeerCores cores;
    rackfish__node__peer_cores__init(&cores);
    cores.first_core = daemon->places[daemon->node].first_core;
    cores.n_addresses = daemon->n_cores;
    cores.addresses = addresses;
    cores.medium = daemon->config->medium[daemon->node][peer->node];
    cores.memory_bytes = daemon->topology.memory_bytes;
    cores.cpu_model = daemon->topology.cpu_model;
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_CORES;
    frame.cores = &cores;
    send_frame(peer->conn, &frame);
}

static void send_machine(peer_t *peer)
{
    rf_daemon_t *daemon = peer->daemon;
    if (!peer->conn || !peer->accepted) return;
    Rackfish__Node__PeerMachine machine;
    rackfish__node__peer_machine__init(&machine);
    machine.machine_id =
        (ProtobufCBinaryData){.data = daemon->machine.bytes, .len = sizeof daemon->machine.bytes};
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_MACHINE;
    frame.machine = &machine;
    send_frame(peer->conn, &frame);
}

static void learn_machine(rf_daemon_t *daemon, const ProtobufCBinaryData *id)
{
    if (daemon->machine_known || id->len != sizeof daemon->machine.bytes) return;
    memcpy(daemon->machine.bytes, id->data, sizeof daemon->machine.bytes);
    daemon->machine_known = true;
    rf_boot_progress(daemon, "the machine's id is known");
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) send_machine(&daemon->peers->peers[i]);
}

void rf_peers_cores_changed(rf_daemon_t *daemon)
{
    if (!daemon->peers) return;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node) send_cores(&daemon->peers->peers[i]);
    }
}

static rf_err_t on_cores(peer_t *peer, const Rackfish__Node__PeerCores *cores)
{
    rf_daemon_t *daemon = peer->daemon;
    const rf_place_t *place = &daemon->places[peer->node];
    if (cores->n_addresses != place->n_cores || strlen(cores->medium) >= sizeof peer->medium)
        return RF_ERR_PROTOCOL;
    for (size_t i = 0; i < cores->n_addresses; i++) {
        if (strlen(cores->addresses[i]) >= RF_CLIENT_ADDRESS_MAX) return RF_ERR_PROTOCOL;
    }
    if (!peer->addresses && !(peer->addresses = calloc(place->n_cores, sizeof *peer->addresses)))
        return RF_ERR_NO_MEMORY;
    bool first = peer->n_addresses == 0;
    peer->n_addresses = place->n_cores;
    for (size_t i = 0; i < cores->n_addresses; i++)
        snprintf(peer->addresses[i], sizeof peer->addresses[i], "%s", cores->addresses[i]);
    snprintf(peer->medium, sizeof peer->medium, "%s", cores->medium);
    peer->memory_bytes = cores->memory_bytes;
    snprintf(peer->cpu_model, sizeof peer->cpu_model, "%s", cores->cpu_model);
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].link_up) tell_addresses(daemon, &daemon->cores[i], peer);
    }
    if (first && daemon->phase == RF_PHASE_BOOTING)
        rf_boot_progress(daemon, "node %s is up", daemon->config->nodes[peer->node].name);
    rf_boot_step(daemon);
    return RF_OK;
}

/* ---- standing connections ---- */

static void say(peer_t *peer, const char *why)
{
    if (!rf_log_once_per(&peer->logged_ns, LOG_AGAIN_NS)) return;
    const char *name = peer->daemon->config->nodes[peer->node].name;
    rf_log(RF_LOG_WARN, "node %s: %s", name, why);
    if (peer->daemon->phase == RF_PHASE_BOOTING) rf_boot_progress(peer->daemon, "node %s: %s", name, why);
}

static void redial(void *context)
{
    dial(context);
}

static void peer_drop(peer_t *peer)
{
    rf_timer_clear(&peer->late);
    if (peer->conn) rf_conn_finish(peer->conn, FINISH_MS);
    peer->conn = NULL;
    peer->accepted = false;
    if (peer->daemon->node < peer->node || peer->daemon->phase == RF_PHASE_GONE)
        return; /* the other side dials */
    if (peer->redial_ns < REDIAL_FIRST_NS) peer->redial_ns = REDIAL_FIRST_NS;
    rf_timer_set(&peer->daemon->loop, &peer->redial, rf_clock_ns() + peer->redial_ns, redial, peer);
    peer->redial_ns = peer->redial_ns * 2 < REDIAL_MAX_NS ? peer->redial_ns * 2 : REDIAL_MAX_NS;
}

static void peer_accept(peer_t *peer, const Rackfish__Node__PeerHello *hello)
{
    rf_daemon_t *daemon = peer->daemon;
    memset(peer->instance, 0, sizeof peer->instance);
    if (hello->instance.len == sizeof peer->instance)
        memcpy(peer->instance, hello->instance.data, sizeof peer->instance);
    peer->accepted = true;
    peer->redial_ns = REDIAL_FIRST_NS;
    rf_timer_clear(&peer->late);
    rf_log(RF_LOG_INFO, "node %s is connected", daemon->config->nodes[peer->node].name);
    if (daemon->places[peer->node].n_cores == 0) {
        daemon->places[peer->node].n_cores = (rf_core_t)hello->n_cores;
        rf_config_resolve_remote(daemon->config, peer->node, (rf_core_t)hello->n_cores);
    }
    learn_machine(daemon, &hello->machine_id);
    if (daemon->machine_known && hello->machine_id.len == 0) send_machine(peer);
    send_cores(peer);
    rf_boot_step(daemon);
}

static void on_peer_frame(void *context, const uint8_t *bytes, size_t size)
{
    peer_t *peer = context;
    rf_daemon_t *daemon = peer->daemon;
    char why[512] = "it sent bytes that are no frame of the node protocol";
    rf_err_t err = RF_ERR_PROTOCOL;
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, size);
    switch (frame ? frame->kind_case : RACKFISH__NODE__PEER_FRAME__KIND__NOT_SET) {
    case RACKFISH__NODE__PEER_FRAME__KIND_HELLO:
        if (peer->accepted) break;
        err = rf_peer_judge(daemon, frame->hello, peer->node, why, sizeof why);
        if (err == RF_OK)
            peer_accept(peer, frame->hello);
        else
            send_refusal(peer->conn, err, why);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_REFUSED:
        snprintf(why, sizeof why, "it refused this node: %.400s", frame->refused->message);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_MACHINE:
        if (!peer->accepted || frame->machine->machine_id.len != sizeof daemon->machine.bytes) break;
        if (daemon->machine_known && memcmp(frame->machine->machine_id.data, daemon->machine.bytes,
                                            sizeof daemon->machine.bytes) != 0) {
            snprintf(why, sizeof why,
                     "it was told the id of another machine; only one node may form ('rackfish down')");
            break;
        }
        learn_machine(daemon, &frame->machine->machine_id);
        err = RF_OK;
        rf_boot_step(daemon);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_CORES:
        if (peer->accepted) err = on_cores(peer, frame->cores);
        break;
    default:
        break;
    }
    rf_peer_frame_free(frame);
    if (err != RF_OK) {
        say(peer, why);
        peer_drop(peer);
    }
}

static void on_peer_closed(void *context, rf_err_t err, const char *why)
{
    peer_t *peer = context;
    (void)err;
    bool booting = peer->daemon->phase == RF_PHASE_BOOTING && !peer->accepted && err == RF_ERR_CLOSED;
    if (!booting) /* while hosts start one after the other, "connection refused" is no news */
        say(peer, why);
    peer_drop(peer);
}

static void on_peer_late(void *context)
{
    peer_t *peer = context;
    say(peer, "it does not answer on its bootstrap port");
    peer_drop(peer);
}

static const rf_conn_handlers_t peer_handlers = {.on_frame = on_peer_frame, .on_closed = on_peer_closed};

static void socket_options(int fd)
{
    int on = 1, idle = 10, interval = 5, count = 3, timeout_ms = 20000;
    /* Else what remains of a connection keeps a restarted rackfishd from the port: a listening socket that was handed over
     * may not have had it. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

static socklen_t address_of(const rf_daemon_t *daemon, rf_node_t node, struct sockaddr_storage *out)
{
    const char *text = daemon->places[node].address;
    uint16_t port = htons(daemon->config->nodes[node].port);
    memset(out, 0, sizeof *out);
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = port;
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = port;
        return sizeof *v6;
    }
    return 0;
}

rf_err_t rf_peer_dial(rf_daemon_t *daemon, rf_node_t node, const rf_conn_handlers_t *handlers, void *context,
                      rf_conn_t **out)
{
    struct sockaddr_storage address;
    socklen_t size = address_of(daemon, node, &address);
    int fd = size ? socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (fd < 0) return RF_ERR_CLOSED;
    socket_options(fd);
    rf_tls_t *tls = NULL;
    if ((connect(fd, (struct sockaddr *)&address, size) < 0 && errno != EINPROGRESS) ||
        rf_tls_open(false, fd, daemon->config->key, daemon->config->key_size, &tls) != RF_OK) {
        close(fd);
        return RF_ERR_CLOSED;
    }
    return rf_conn_open(&daemon->loop, fd, tls, true, handlers, context, out);
}

static void dial(peer_t *peer)
{
    rf_daemon_t *daemon = peer->daemon;
    if (peer->conn) return;
    if (rf_peer_dial(daemon, peer->node, &peer_handlers, peer, &peer->conn) != RF_OK) {
        peer->conn = NULL;
        peer_drop(peer);
        return;
    }
    rf_peer_send_hello(daemon, peer->conn, false, NULL, false);
    rf_timer_set(&daemon->loop, &peer->late, rf_clock_ns() + RF_PEER_HELLO_NS, on_peer_late, peer);
}

/* ---- the bootstrap port ---- */

static void stranger_free(stranger_t *stranger)
{
    rf_timer_clear(&stranger->late);
    stranger->conn = NULL;
}

/* One line for the first of a kind of trouble, and how many there were since. */
static void stranger_log(stranger_t *stranger, const char *why)
{
    rf_peers_t *peers = stranger->daemon->peers;
    if (!rf_log_once_per(&peers->strangers_logged_ns, LOG_AGAIN_NS)) {
        peers->strangers_unlogged++;
        return;
    }
    if (peers->strangers_unlogged > 0)
        rf_log(RF_LOG_WARN, "refused %u more connections to the bootstrap port meanwhile",
               peers->strangers_unlogged);
    peers->strangers_unlogged = 0;
    rf_log(RF_LOG_WARN, "refused a connection from %s to the bootstrap port: %s", stranger->from, why);
}

static void stranger_drop(stranger_t *stranger, const char *why)
{
    rf_conn_t *conn = stranger->conn;
    stranger_log(stranger, why);
    stranger_free(stranger);
    rf_conn_finish(conn, FINISH_MS);
}

static void on_stranger_closed(void *context, rf_err_t err, const char *why)
{
    (void)err;
    stranger_drop(context, why);
}

static void on_stranger_late(void *context)
{
    stranger_drop(context, "it did not prove within 5 s that it holds the machine's key");
}

/* A standing connection of a node that has one already: the old one is of an earlier life that the kernel has not reported
 * dead yet, or two hosts claim one index. The old one counts as long as it is up; the other side dials again. */
static bool is_claimed(peer_t *peer, const Rackfish__Node__PeerHello *hello)
{
    return peer->accepted && !(hello->instance.len == sizeof peer->instance &&
                               memcmp(hello->instance.data, peer->instance, sizeof peer->instance) == 0);
}

static void on_stranger_hello(stranger_t *stranger, const Rackfish__Node__PeerHello *hello)
{
    rf_daemon_t *daemon = stranger->daemon;
    rf_conn_t *conn = stranger->conn;
    char why[512];
    rf_err_t err = rf_peer_judge(daemon, hello, RF_NODE_NONE, why, sizeof why);
    bool control = hello->purpose == RACKFISH__NODE__PEER_PURPOSE__CONTROL;
    peer_t *peer = err == RF_OK ? &daemon->peers->peers[hello->node] : NULL;
    if (err == RF_OK && !control && hello->node < daemon->node) {
        err = RF_ERR_PROTOCOL;
        snprintf(why, sizeof why, "the node with the higher index dials, not %s", hello->node_name);
    }
    if (err == RF_OK && !control && is_claimed(peer, hello)) {
        err = RF_ERR_EXISTS;
        snprintf(why, sizeof why, "a living node is %s already; give each host its own name (--node)",
                 hello->node_name);
    }
    if (err == RF_OK && control && (!hello->user[0] || strlen(hello->user) >= RF_USER_MAX)) {
        err = RF_ERR_PROTOCOL;
        snprintf(why, sizeof why, "a relayed session names no user");
    }
    if (err != RF_OK) {
        send_refusal(conn, err, why);
        stranger_drop(stranger, why);
        return;
    }
    rf_peer_send_hello(daemon, conn, false, NULL, false);
    stranger_free(stranger);
    if (control) {
        rf_control_adopt(daemon, conn, hello->user, hello->privileged_user);
        return;
    }
    if (peer->conn) rf_conn_close(peer->conn);
    peer->conn = conn;
    conn->handlers = &peer_handlers;
    conn->context = peer;
    peer_accept(peer, hello);
}

static void on_stranger_frame(void *context, const uint8_t *bytes, size_t size)
{
    stranger_t *stranger = context;
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, size);
    if (frame && frame->kind_case == RACKFISH__NODE__PEER_FRAME__KIND_HELLO)
        on_stranger_hello(stranger, frame->hello);
    else if (frame && frame->kind_case == RACKFISH__NODE__PEER_FRAME__KIND_REFUSED)
        stranger_drop(stranger, frame->refused->message);
    else
        stranger_drop(stranger, "it sent bytes that are no hello");
    rf_peer_frame_free(frame);
}

static const rf_conn_handlers_t stranger_handlers = {.on_frame = on_stranger_frame,
                                                     .on_closed = on_stranger_closed};

/* A free place; when there is none, the oldest gives way: strangers that stay silent must not keep nodes out. */
static stranger_t *stranger_place(rf_peers_t *peers)
{
    stranger_t *oldest = &peers->strangers[0];
    for (unsigned i = 0; i < RF_PEER_STRANGERS_MAX; i++) {
        stranger_t *stranger = &peers->strangers[i];
        if (!stranger->conn) return stranger;
        if (stranger->since_ns < oldest->since_ns) oldest = stranger;
    }
    stranger_drop(oldest, "too many that have not proved that they hold the key");
    return oldest;
}

static void on_listen(void *context, uint32_t events)
{
    (void)events;
    rf_daemon_t *daemon = context;
    for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof from;
        int fd =
            accept4(daemon->peers->listen_fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) return;
        socket_options(fd);
        rf_tls_t *tls;
        if (rf_tls_open(true, fd, daemon->config->key, daemon->config->key_size, &tls) != RF_OK) {
            close(fd);
            return;
        }
        stranger_t *stranger = stranger_place(daemon->peers);
        stranger->daemon = daemon;
        stranger->since_ns = rf_clock_ns();
        char text[INET6_ADDRSTRLEN] = "?";
        if (from.ss_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)&from)->sin_addr, text, sizeof text);
        else if (from.ss_family == AF_INET6)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&from)->sin6_addr, text, sizeof text);
        snprintf(stranger->from, sizeof stranger->from, "%s", text);
        if (rf_conn_open(&daemon->loop, fd, tls, false, &stranger_handlers, stranger, &stranger->conn) !=
            RF_OK) {
            stranger->conn = NULL;
            return;
        }
        rf_timer_set(&daemon->loop, &stranger->late, stranger->since_ns + RF_PEER_HELLO_NS, on_stranger_late,
                     stranger);
    }
}

static rf_err_t listen_self(rf_daemon_t *daemon, int *out, char *error, size_t error_max)
{
    struct sockaddr_storage address;
    const rf_config_node_t *node = &daemon->config->nodes[daemon->node];
    socklen_t size = address_of(daemon, daemon->node, &address);
    int on = 1;
    int fd = size ? socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    bool bound = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                 bind(fd, (struct sockaddr *)&address, size) == 0;
    /* After a restart: the killed one's socket may not be closed yet. */
    for (unsigned tries = 0;
         fd >= 0 && !bound && errno == EADDRINUSE && daemon->adopted && tries < DYING_TRIES; tries++) {
        usleep(10000);
        bound = bind(fd, (struct sockaddr *)&address, size) == 0;
    }
    if (bound && listen(fd, 64) == 0) {
        *out = fd;
        return RF_OK;
    }
    int failed = errno;
    char place[RF_CONFIG_ERROR_MAX / 2];
    if (fd >= 0) close(fd);
    rf_config_port_place(daemon->config, daemon->node, place, sizeof place);
    snprintf(error, error_max, "%s: cannot listen on %s port %u: %s; %s", place,
             daemon->places[daemon->node].address, node->port, strerror(failed),
             failed == EADDRINUSE      ? "choose another port, or stop who uses it"
             : failed == EADDRNOTAVAIL ? "that address is not this host's; mend 'address:'"
                                       : "choose another address or port");
    return RF_ERR_OS;
}

rf_err_t rf_peers_open(rf_daemon_t *daemon, char *error, size_t error_max)
{
    rf_peers_t *peers = calloc(1, sizeof *peers);
    if (!peers) {
        snprintf(error, error_max, "no memory for the other nodes");
        return RF_ERR_NO_MEMORY;
    }
    daemon->peers = peers;
    peers->listen_fd = -1;
    rf_random_secret(peers->instance, sizeof peers->instance);
    for (unsigned i = 0; i < daemon->config->n_nodes; i++)
        peers->peers[i] = (peer_t){.daemon = daemon, .node = (rf_node_t)i};
    if (daemon->config->n_nodes == 1) {
        if (daemon->options.listen_fd >= 0) close(daemon->options.listen_fd);
        return RF_OK;
    }
    rf_err_t err = RF_OK;
    if (daemon->options.listen_fd >= 0) {
        peers->listen_fd = daemon->options.listen_fd;
        fcntl(peers->listen_fd, F_SETFD, FD_CLOEXEC);
    } else {
        err = listen_self(daemon, &peers->listen_fd, error, error_max);
    }
    if (err != RF_OK) return err;
    if (fcntl(peers->listen_fd, F_SETFL, O_NONBLOCK) < 0 || listen(peers->listen_fd, 64) < 0 ||
        rf_loop_add(&daemon->loop, &peers->source, peers->listen_fd, EPOLLIN, on_listen, daemon) != RF_OK) {
        snprintf(error, error_max, "the bootstrap port cannot be used: %s", strerror(errno));
        return RF_ERR_OS;
    }
    for (unsigned i = 0; i < daemon->node; i++) dial(&peers->peers[i]);
    return RF_OK;
}

void rf_peers_close(rf_daemon_t *daemon)
{
    rf_peers_t *peers = daemon->peers;
    if (!peers) return;
    rf_loop_remove(&daemon->loop, &peers->source);
    if (peers->listen_fd >= 0) close(peers->listen_fd);
    for (unsigned i = 0; i < RF_PEER_STRANGERS_MAX; i++) {
        rf_timer_clear(&peers->strangers[i].late);
        rf_conn_close(peers->strangers[i].conn);
    }
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        rf_timer_clear(&peers->peers[i].redial);
        rf_timer_clear(&peers->peers[i].late);
        rf_conn_close(peers->peers[i].conn);
        free(peers->peers[i].addresses);
    }
    free(peers);
    daemon->peers = NULL;
}

bool rf_peers_all_known(const rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node && daemon->peers->peers[i].n_addresses == 0) return false;
    }
    return true;
}

void rf_peers_missing(const rf_daemon_t *daemon, char *out, size_t max)
{
    size_t at = 0;
    out[0] = 0;
    for (unsigned i = 0; i < daemon->config->n_nodes && at < max; i++) {
        if (i != daemon->node && daemon->peers->peers[i].n_addresses == 0) {
            int n = snprintf(out + at, max - at, "%snode %s (%s port %u)", at ? ", " : "",
                             daemon->config->nodes[i].name, daemon->places[i].address,
                             daemon->config->nodes[i].port);
            at += n > 0 ? (size_t)n : 0;
        }
    }
}

bool rf_peer_is_connected(const rf_daemon_t *daemon, rf_node_t node)
{
    return node == daemon->node || (daemon->peers->peers[node].conn && daemon->peers->peers[node].accepted);
}

bool rf_peer_host(const rf_daemon_t *daemon, rf_node_t node, uint64_t *memory_bytes, const char **cpu_model)
{
    const peer_t *peer = &daemon->peers->peers[node];
    if (peer->n_addresses == 0) return false;
    *memory_bytes = peer->memory_bytes;
    *cpu_model = peer->cpu_model;
    return true;
}
