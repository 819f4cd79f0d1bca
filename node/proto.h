/*
 * Protobuf messages of the control API and between nodes, decoded from hostile bytes: memory for one message comes from a
 * budget, so that a small frame cannot ask for a lot of it.
 */
#ifndef RF_NODE_PROTO_H
#define RF_NODE_PROTO_H

#include "control.pb-c.h"
#include "peer.pb-c.h"

#include <stddef.h>
#include <stdint.h>

#define RF_PROTO_BUDGET (8u << 20) /* bytes that one decoded message may take */

/* NULL when the bytes are no such message or it is over budget. Free with the function below it. One thread. */
Rackfish__ControlRequest *rf_control_request_unpack(const uint8_t *bytes, size_t size);
void rf_control_request_free(Rackfish__ControlRequest *request);

Rackfish__ControlReply *rf_control_reply_unpack(const uint8_t *bytes, size_t size);
void rf_control_reply_free(Rackfish__ControlReply *reply);

Rackfish__Node__PeerFrame *rf_peer_frame_unpack(const uint8_t *bytes, size_t size);
void rf_peer_frame_free(Rackfish__Node__PeerFrame *frame);

#endif
