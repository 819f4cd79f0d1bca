/*
 * Another node's rackfishd as a control server: a TLS connection of its own (peer.proto, purpose CONTROL) on which
 * ControlRequests go one way and ControlReplies come back, on behalf of a client of this node.
 */
#ifndef RF_NODE_REMOTE_H
#define RF_NODE_REMOTE_H

#include "node/control_server.h"

typedef struct rf_remote rf_remote_t;

typedef struct rf_remote_handlers {
    void (*on_frame)(void *context, const uint8_t *bytes, size_t size); /* a ControlReply, still packed */
    void (*on_room)(void *context);                                     /* may be NULL */
    /* Refused, out of reach, or ended; `why` is one line. Comes once, then close it. */
    void (*on_ended)(void *context, rf_err_t err, const char *why);
} rf_remote_handlers_t;

/* Starts; what is sent meanwhile waits. RF_ERR_CLOSED: there is no way to that node now. */
rf_err_t rf_remote_open(rf_daemon_t *daemon, rf_node_t node, const char *user, bool privileged,
                        const rf_remote_handlers_t *handlers, void *context, rf_remote_t **out);

/* The same, and sends one request on behalf of `client`. */
rf_err_t rf_remote_ask(rf_daemon_t *daemon, rf_node_t node, const rf_client_t *client,
                       const Rackfish__ControlRequest *request, const rf_remote_handlers_t *handlers,
                       void *context, rf_remote_t **out);

bool rf_remote_send(rf_remote_t *remote, const uint8_t *bytes, size_t size);
bool rf_remote_full(rf_remote_t *remote);
void rf_remote_pause(rf_remote_t *remote);
void rf_remote_resume(rf_remote_t *remote);

/* NULL is fine. No callbacks follow. */
void rf_remote_close(rf_remote_t *remote);

#endif
