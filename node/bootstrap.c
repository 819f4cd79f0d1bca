#include "node/bootstrap.h"

#include "base/log.h"
#include "node/control_server.h"
#include "node/listener.h"
#include "node/peer_hello.h"
#include "node/peers.h"

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

#define LOG_AGAIN_NS     (30 * RF_NS_PER_S)
#define FINISH_MS        1000
#define ACCEPTS_PER_TURN 16
#define DYING_TRIES      50 /* of 10 ms */

/*
 * What the network does to a connection. After a cut it must be found out soon, by both ends, that the other one has given up:
 * an idle end asks every second, and is told so. An end with unanswered bytes asks ever more rarely, so a standing connection
 * is given up before the pauses get long; one that carries a session is kept for as long as a person may pull a cable.
 */
#define KEEPALIVE_S         1
#define KEEPALIVE_PROBES    20
#define SESSION_TIMEOUT_MS  20000
#define STANDING_TIMEOUT_MS 3000

/* A connection that came in and has not said who it is. */
typedef struct stranger {
    rf_daemon_t *daemon;
    rf_conn_t *conn; /* NULL: free */
    rf_timer_t late;
    uint64_t since_ns;
    char from[INET6_ADDRSTRLEN + 8];
} stranger_t;

struct rf_bootstrap {
    int listen_fd; /* -1: a machine of one node */
    rf_listener_t listener;
    uint64_t logged_ns;
    unsigned unlogged; /* refusals since the last line about one */
    stranger_t strangers[RF_STRANGERS_MAX];
};

/* ---- sockets ---- */

static void socket_options(int fd)
{
    int on = 1, every_s = KEEPALIVE_S, count = KEEPALIVE_PROBES, timeout_ms = SESSION_TIMEOUT_MS;
    /* Else what remains of a connection keeps a restarted rackfishd from the port: a listening socket that was handed over
     * may not have had it. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &every_s, sizeof every_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof every_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

void rf_bootstrap_set_standing(rf_conn_t *conn)
{
    int timeout_ms = STANDING_TIMEOUT_MS;
    setsockopt(conn->source.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
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

/* The socket of a connect() that is under way; -1: there is no way to that node. */
static int dial(rf_daemon_t *daemon, rf_node_t node, rf_tls_t **tls)
{
    struct sockaddr_storage address;
    socklen_t size = address_of(daemon, node, &address);
    int fd = size ? socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (fd < 0) return -1;
    socket_options(fd);
    if ((connect(fd, (struct sockaddr *)&address, size) < 0 && errno != EINPROGRESS) ||
        rf_tls_open(false, fd, daemon->config->key, daemon->config->key_size, tls) != RF_OK) {
        close(fd);
        return -1;
    }
    return fd;
}

rf_err_t rf_bootstrap_dial(rf_daemon_t *daemon, rf_node_t node, const rf_conn_handlers_t *handlers,
                           void *context, rf_conn_t **out)
{
    rf_tls_t *tls;
    int fd = dial(daemon, node, &tls);
    return fd < 0 ? RF_ERR_CLOSED : rf_conn_open(&daemon->loop, fd, tls, true, handlers, context, out);
}

void rf_bootstrap_dial_again(rf_daemon_t *daemon, rf_node_t node, rf_conn_t *conn)
{
    rf_tls_t *tls;
    int fd = dial(daemon, node, &tls);
    if (fd >= 0) rf_conn_replace(conn, fd, tls);
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
    rf_bootstrap_t *bootstrap = stranger->daemon->bootstrap;
    if (!rf_log_once_per(&bootstrap->logged_ns, LOG_AGAIN_NS)) {
        bootstrap->unlogged++;
        return;
    }
    if (bootstrap->unlogged > 0)
        rf_log(RF_LOG_WARN, "refused %u more connections to the bootstrap port meanwhile",
               bootstrap->unlogged);
    bootstrap->unlogged = 0;
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

static void on_stranger_hello(stranger_t *stranger, const Rackfish__Node__PeerHello *hello)
{
    rf_daemon_t *daemon = stranger->daemon;
    rf_conn_t *conn = stranger->conn;
    char why[512];
    rf_err_t err = rf_peer_judge(daemon, hello, RF_NODE_NONE, why, sizeof why);
    bool control = hello->purpose == RACKFISH__NODE__PEER_PURPOSE__CONTROL;
    if (err == RF_OK && control && (!hello->user[0] || strlen(hello->user) >= RF_USER_MAX)) {
        err = RF_ERR_PROTOCOL;
        snprintf(why, sizeof why, "a relayed session names no user");
    }
    if (err == RF_OK && control && rf_peers_are_two(daemon, hello, why, sizeof why)) err = RF_ERR_EXISTS;
    if (err == RF_OK && !control) err = rf_peers_take(daemon, conn, hello, why, sizeof why);
    if (err != RF_OK) {
        rf_peer_send_refusal(conn, err, why);
        stranger_drop(stranger, why);
        if (err == RF_ERR_AUTH) rf_peers_other_machine(daemon, why);
        return;
    }
    stranger_free(stranger);
    if (control) {
        rf_peers_heard(daemon, (rf_node_t)hello->node);
        rf_peer_send_hello(daemon, conn, false, NULL, false);
        rf_control_adopt(daemon, conn, hello->user, hello->privileged_user);
    }
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
static stranger_t *stranger_place(rf_bootstrap_t *bootstrap)
{
    stranger_t *oldest = &bootstrap->strangers[0];
    for (unsigned i = 0; i < RF_STRANGERS_MAX; i++) {
        stranger_t *stranger = &bootstrap->strangers[i];
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
    for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof from;
        int fd = rf_listener_accept(&daemon->bootstrap->listener, (struct sockaddr *)&from, &size);
        if (fd < 0) return;
        socket_options(fd);
        rf_tls_t *tls;
        if (rf_tls_open(true, fd, daemon->config->key, daemon->config->key_size, &tls) != RF_OK) {
            close(fd);
            return;
        }
        stranger_t *stranger = stranger_place(daemon->bootstrap);
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
        rf_clock_sleep_ms(10);
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

rf_err_t rf_bootstrap_open(rf_daemon_t *daemon, char *error, size_t error_max)
{
    rf_bootstrap_t *bootstrap = calloc(1, sizeof *bootstrap);
    if (!bootstrap) {
        snprintf(error, error_max, "no memory for the bootstrap port");
        return RF_ERR_NO_MEMORY;
    }
    daemon->bootstrap = bootstrap;
    bootstrap->listen_fd = daemon->options.listen_fd;
    if (daemon->config->n_nodes == 1) {
        if (bootstrap->listen_fd >= 0) close(bootstrap->listen_fd);
        bootstrap->listen_fd = -1;
        return RF_OK;
    }
    if (bootstrap->listen_fd < 0) {
        rf_err_t err = listen_self(daemon, &bootstrap->listen_fd, error, error_max);
        if (err != RF_OK) return err;
    }
    if (fcntl(bootstrap->listen_fd, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(bootstrap->listen_fd, F_SETFL, O_NONBLOCK) < 0 || listen(bootstrap->listen_fd, 64) < 0 ||
        rf_listener_open(&bootstrap->listener, &daemon->loop, bootstrap->listen_fd, "the bootstrap port",
                         on_listen, daemon) != RF_OK) {
        snprintf(error, error_max, "the bootstrap port cannot be used: %s", strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}

void rf_bootstrap_close(rf_daemon_t *daemon)
{
    rf_bootstrap_t *bootstrap = daemon->bootstrap;
    if (!bootstrap) return;
    rf_listener_close(&bootstrap->listener);
    if (bootstrap->listen_fd >= 0) close(bootstrap->listen_fd);
    for (unsigned i = 0; i < RF_STRANGERS_MAX; i++) {
        rf_timer_clear(&bootstrap->strangers[i].late);
        rf_conn_close(bootstrap->strangers[i].conn);
    }
    free(bootstrap);
    daemon->bootstrap = NULL;
}
