/*
 * Cores that come back, and that go: a core whose processes died is started anew as the next incarnation that the machine
 * assigns it; `core on|off` and `node remove` do the same on purpose.
 *
 *   DOWN, nothing of it runs --pause--> an incarnation is asked for, of a monitor here or of another node's --> started
 *
 * Each asks for itself, at once; those that ask another node share one connection to it, so that they come together and join by one change.
 * The pause is nothing at first and grows while the core goes on dying. A core that was turned off stays off.
 */
#ifndef RF_NODE_REJOIN_H
#define RF_NODE_REJOIN_H

#include "node/control_server.h"

/* A core of this node has ended: it will be back, unless it is meant to be off or the node is going. */
void rf_rejoin_core_ended(rf_local_core_t *core);

/* At once, without its pause; nothing if it runs or is being started. */
void rf_rejoin_now(rf_local_core_t *core);

/* A core is in reach again. */
void rf_rejoin_core_up(rf_local_core_t *core);

/* Another node is connected: cores that found nobody to ask need not wait any longer. */
void rf_rejoin_node_connected(rf_daemon_t *daemon);

void rf_rejoin_close(rf_daemon_t *daemon);

/* Requests. They are passed on to the node whose core it is. */
void rf_query_join(rf_client_t *client, uint64_t id, const Rackfish__CoreRequest *request);
void rf_query_core_on(rf_client_t *client, uint64_t id, const Rackfish__CoreRequest *request);
void rf_query_core_off(rf_client_t *client, uint64_t id, const Rackfish__CoreRequest *request);
void rf_query_node_remove(rf_client_t *client, uint64_t id, const Rackfish__NodeRequest *request);

#endif
