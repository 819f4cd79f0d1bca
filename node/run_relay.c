#include "node/run_relay.h"

#include "node/remote.h"

#include <stdlib.h>

struct rf_relay {
    rf_garbage_t garbage;
    rf_client_t *client;
    rf_remote_t *remote;
    uint64_t id;
    bool answered; /* something came back: the program may have started */
};

static void relay_free(rf_relay_t *relay)
{
    rf_client_t *client = relay->client;
    rf_remote_close(relay->remote);
    client->relay = NULL;
    rf_conn_resume(client->conn);
    rf_loop_free_later(&client->daemon->loop, &relay->garbage);
}

static void on_frame(void *context, const uint8_t *bytes, size_t size)
{
    rf_relay_t *relay = context;
    relay->answered = true;
    rf_conn_send(relay->client->conn, bytes, size);
    if (rf_conn_full(relay->client->conn)) rf_remote_pause(relay->remote);
}

static void on_room(void *context)
{
    rf_conn_resume(((rf_relay_t *)context)->client->conn);
}

static void on_ended(void *context, rf_err_t err, const char *why)
{
    rf_relay_t *relay = context;
    if (relay->answered)
        rf_client_error(relay->client, relay->id, RF_ERR_UNKNOWN_OUTCOME,
                        "the connection ended (%s); whether the program finished is not known", why);
    else
        rf_client_error(relay->client, relay->id, err == RF_ERR_CLOSED ? RF_ERR_PEER_DEAD : err, "%s", why);
    relay_free(relay);
}

static const rf_remote_handlers_t handlers = {.on_frame = on_frame, .on_room = on_room, .on_ended = on_ended};

void rf_relay_start(rf_client_t *client, uint64_t id, rf_node_t node, const uint8_t *frame, size_t size)
{
    rf_daemon_t *daemon = client->daemon;
    rf_relay_t *relay = calloc(1, sizeof *relay);
    if (!relay || rf_remote_open(daemon, node, client->user, client->privileged, &handlers, relay,
                                 &relay->remote) != RF_OK) {
        free(relay);
        rf_client_error(client, id, RF_ERR_PEER_DEAD, "node %s is out of reach",
                        daemon->config->nodes[node].name);
        return;
    }
    relay->client = client;
    relay->id = id;
    client->relay = relay;
    rf_remote_send(relay->remote, frame, size);
}

void rf_relay_client_frame(rf_relay_t *relay, const uint8_t *frame, size_t size)
{
    rf_remote_send(relay->remote, frame, size);
    if (rf_remote_full(relay->remote)) rf_conn_pause(relay->client->conn);
}

void rf_relay_client_room(rf_relay_t *relay)
{
    rf_remote_resume(relay->remote);
}

void rf_relay_client_gone(rf_relay_t *relay)
{
    rf_loop_t *loop = &relay->client->daemon->loop;
    rf_remote_close(relay->remote);
    rf_loop_free_later(loop, &relay->garbage);
}
