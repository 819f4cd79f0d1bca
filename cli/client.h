/*
 * A connection to a node's control socket (node/control.proto): length-prefixed frames, blocking with deadlines, or, for
 * `run`, driven by its caller's event loop.
 */
#ifndef RF_CLI_CLIENT_H
#define RF_CLI_CLIENT_H

#include "cli/cli.h"
#include "control.pb-c.h"

#define CLIENT_FRAME_MAX      (1u << 20)
#define CLIENT_PROTOCOL_MAJOR 1
#define CLIENT_PROTOCOL_MINOR 0

typedef Rackfish__ControlRequest request_t;
typedef Rackfish__ControlReply reply_t;

typedef struct client {
    int fd;
    uint64_t last_id;
    char machine[RF_NAME_MAX], node[RF_NAME_MAX]; /* who answers */
    uint8_t *in;                                  /* received, not yet taken */
    size_t in_used, in_room;
    uint8_t *out; /* packed, not yet sent */
    size_t out_used, out_room;
} client_t;

/* Connects to the machine that cli names: to --via's node, else to the first node that answers. Prints why not and
 * returns an exit status, CLI_OK on success. */
int client_open(const cli_t *cli, client_t *client);

/* As client_open, but quiet: an rf_err_t, to this very socket. RF_ERR_NO_MACHINE: nobody listens. */
rf_err_t client_connect(client_t *client, const char *socket_path, int timeout_ms, char *why, size_t why_max);

void client_close(client_t *client);

/* Packs a request behind those not yet sent; gives it the next id (returned) unless it has one. 0: too large. */
uint64_t client_queue(client_t *client, request_t *request);

/* Sends what is queued, as much as the socket takes. RF_OK: all; RF_ERR_AGAIN: some is left; RF_ERR_CLOSED. */
rf_err_t client_flush(client_t *client);

/* The next reply, if one is complete, without waiting: the caller frees it with client_reply_free. RF_ERR_AGAIN: none
 * yet, RF_ERR_CLOSED: the node closed, RF_ERR_PROTOCOL. */
rf_err_t client_poll(client_t *client, reply_t **reply);

/* client_poll has something to say at once: before waiting for the socket, which says nothing of what was received already. */
bool client_has_reply(const client_t *client);

/* Waits for the next reply until the deadline (CLOCK_MONOTONIC ns, RF_NEVER). */
rf_err_t client_receive(client_t *client, uint64_t deadline_ns, reply_t **reply);

void client_reply_free(reply_t *reply);

/* Sends a request and waits for a reply; on an error of the connection or of the node prints it and returns an exit
 * status. On CLI_OK *reply is the caller's. */
int client_ask(const cli_t *cli, client_t *client, request_t *request, int timeout_ms, reply_t **reply);

/* Prints what a failed connection or an error reply means. Returns the exit status. */
int client_lost(const cli_t *cli, const client_t *client, rf_err_t err);
int client_refused(const cli_t *cli, const reply_t *reply);

#define REQUEST_INIT RACKFISH__CONTROL_REQUEST__INIT

#endif
