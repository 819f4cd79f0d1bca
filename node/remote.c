#include "node/remote.h"

#include "node/bootstrap.h"
#include "node/peer_hello.h"
#include "node/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a node may take to be connected to: longer if it has a standing connection, since then it is there, and either a packet was lost or
 * its host is busy. */
#define AWAY_NS (2 * RF_NS_PER_S)
#define BUSY_NS RF_PEER_HELLO_NS

struct rf_remote {
    rf_garbage_t garbage;
    rf_daemon_t *daemon;
    rf_conn_t *conn;
    rf_node_t node;
    bool accepted;
    uint64_t since_ns;
    uint64_t connect_ns; /* how long the try of now has */
    rf_timer_t late;
    const rf_remote_handlers_t *handlers;
    void *context;
};

static void ended(rf_remote_t *remote, rf_err_t err, const char *why)
{
    char line[256];
    snprintf(line, sizeof line, "node %s: %s", remote->daemon->config->nodes[remote->node].name, why);
    rf_timer_clear(&remote->late);
    remote->handlers->on_ended(remote->context, err, line);
}

static void on_first_frame(rf_remote_t *remote, const uint8_t *bytes, size_t size)
{
    char why[384] = "";
    rf_err_t err = RF_ERR_PROTOCOL;
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, size);
    if (frame && frame->kind_case == RACKFISH__NODE__PEER_FRAME__KIND_HELLO)
        err = rf_peer_judge(remote->daemon, frame->hello, remote->node, why, sizeof why);
    else if (frame && frame->kind_case == RACKFISH__NODE__PEER_FRAME__KIND_REFUSED) {
        err = frame->refused->err ? (rf_err_t)frame->refused->err : RF_ERR_PERMISSION;
        snprintf(why, sizeof why, "%s", frame->refused->message);
    } else
        snprintf(why, sizeof why, "it sent bytes that are no hello");
    rf_peer_frame_free(frame);
    if (err != RF_OK) {
        ended(remote, err, why);
        return;
    }
    remote->accepted = true;
    rf_timer_clear(&remote->late);
    rf_peers_heard(remote->daemon, remote->node);
}

static void on_frame(void *context, const uint8_t *bytes, size_t size)
{
    rf_remote_t *remote = context;
    if (!remote->accepted)
        on_first_frame(remote, bytes, size);
    else
        remote->handlers->on_frame(remote->context, bytes, size);
}

static void on_room(void *context)
{
    rf_remote_t *remote = context;
    if (remote->handlers->on_room) remote->handlers->on_room(remote->context);
}

static void on_closed(void *context, rf_err_t err, const char *why)
{
    ended(context, err, why);
}

static void on_late_hello(void *context)
{
    ended(context, RF_ERR_TIMEOUT,
          "its rackfishd does not answer: see on that host whether it is stopped, or overloaded");
}

static void on_late(void *context);

/* For its connect(): judged again each time, for a standing connection may have been given up meanwhile. */
static uint64_t until_ns(const rf_remote_t *remote)
{
    return remote->since_ns + (rf_peer_is_connected(remote->daemon, remote->node) ? BUSY_NS : AWAY_NS);
}

static void await_connect(rf_remote_t *remote, uint64_t now_ns)
{
    uint64_t at_ns = now_ns + remote->connect_ns, end_ns = until_ns(remote);
    rf_timer_set(&remote->daemon->loop, &remote->late, at_ns < end_ns ? at_ns : end_ns, on_late, remote);
}

static void on_late(void *context)
{
    rf_remote_t *remote = context;
    rf_daemon_t *daemon = remote->daemon;
    uint64_t now_ns = rf_clock_ns();
    if (!rf_conn_is_connecting(remote->conn)) {
        rf_timer_set(&daemon->loop, &remote->late, now_ns + RF_PEER_HELLO_NS, on_late_hello, remote);
    } else if (now_ns < until_ns(remote)) {
        rf_bootstrap_dial_again(daemon, remote->node, remote->conn);
        remote->connect_ns = rf_connect_longer_ns(remote->connect_ns);
        await_connect(remote, now_ns);
    } else {
        char why[192];
        snprintf(why, sizeof why,
                 "no answer from %s port %u: see whether that host is up, and the network lets it through",
                 daemon->places[remote->node].address, daemon->config->nodes[remote->node].port);
        ended(remote, RF_ERR_TIMEOUT, why);
    }
}

static const rf_conn_handlers_t remote_conn_handlers = {
    .on_frame = on_frame, .on_room = on_room, .on_closed = on_closed};

rf_err_t rf_remote_open(rf_daemon_t *daemon, rf_node_t node, const char *user, bool privileged,
                        const rf_remote_handlers_t *handlers, void *context, rf_remote_t **out)
{
    rf_remote_t *remote = calloc(1, sizeof *remote);
    if (!remote) return RF_ERR_NO_MEMORY;
    remote->daemon = daemon;
    remote->node = node;
    remote->handlers = handlers;
    remote->context = context;
    rf_err_t err = rf_bootstrap_dial(daemon, node, &remote_conn_handlers, remote, &remote->conn);
    if (err != RF_OK) {
        free(remote);
        return err;
    }
    rf_peer_send_hello(daemon, remote->conn, true, user, privileged);
    uint64_t now_ns = rf_clock_ns();
    remote->since_ns = now_ns;
    remote->connect_ns = RF_CONNECT_NS;
    await_connect(remote, now_ns);
    *out = remote;
    return RF_OK;
}

rf_err_t rf_remote_ask(rf_daemon_t *daemon, rf_node_t node, const rf_client_t *client,
                       const Rackfish__ControlRequest *request, const rf_remote_handlers_t *handlers,
                       void *context, rf_remote_t **out)
{
    rf_remote_t *remote;
    rf_err_t err = rf_remote_open(daemon, node, client->user, client->privileged, handlers, context, &remote);
    if (err != RF_OK) return err;
    uint8_t *room = rf_conn_reserve(remote->conn, rackfish__control_request__get_packed_size(request));
    if (!room) {
        rf_remote_close(remote);
        return RF_ERR_LIMIT;
    }
    rackfish__control_request__pack(request, room);
    rf_conn_commit(remote->conn);
    *out = remote;
    return RF_OK;
}

bool rf_remote_send(rf_remote_t *remote, const uint8_t *bytes, size_t size)
{
    return rf_conn_send(remote->conn, bytes, size);
}

bool rf_remote_full(rf_remote_t *remote)
{
    return rf_conn_full(remote->conn);
}
void rf_remote_pause(rf_remote_t *remote)
{
    rf_conn_pause(remote->conn);
}
void rf_remote_resume(rf_remote_t *remote)
{
    rf_conn_resume(remote->conn);
}

void rf_remote_close(rf_remote_t *remote)
{
    if (!remote) return;
    rf_timer_clear(&remote->late);
    rf_conn_close(remote->conn);
    rf_loop_free_later(&remote->daemon->loop, &remote->garbage);
}
