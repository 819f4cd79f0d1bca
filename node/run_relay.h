/*
 * A session whose core belongs to another node: frames go there and back as they are (remote.h). Backpressure goes through:
 * what one side does not take, the other is not asked for.
 */
#ifndef RF_NODE_RUN_RELAY_H
#define RF_NODE_RUN_RELAY_H

#include "node/control_server.h"

typedef struct rf_relay rf_relay_t;

/* `frame` is the packed RunStart request. */
void rf_relay_start(rf_client_t *client, uint64_t id, rf_node_t node, const uint8_t *frame, size_t size);

void rf_relay_client_frame(rf_relay_t *relay, const uint8_t *frame, size_t size);
void rf_relay_client_room(rf_relay_t *relay);

/* Closes the other side, which hangs the program up. */
void rf_relay_client_gone(rf_relay_t *relay);

#endif
