/*
 * What nodes say of themselves when they meet (peer.proto), and the judgement on it: another version, configuration, machine,
 * index or number of cores is refused with a reason that a person can act on.
 */
#ifndef RF_NODE_PEER_HELLO_H
#define RF_NODE_PEER_HELLO_H

#include "node/conn.h"
#include "node/daemon.h"
#include "node/proto.h"

#define RF_PEER_MAJOR    2
#define RF_PEER_MINOR    1
#define RF_PEER_HELLO_NS (5 * RF_NS_PER_S) /* how long the other side may take to say its own */

void rf_peer_send_frame(rf_conn_t *conn, const Rackfish__Node__PeerFrame *frame);

/* Sends this node's hello. `control`: the connection is to carry control requests of `user`. */
void rf_peer_send_hello(rf_daemon_t *daemon, rf_conn_t *conn, bool control, const char *user,
                        bool privileged_user);

void rf_peer_send_refusal(rf_conn_t *conn, rf_err_t err, const char *why);

/* RF_OK, or the error with one line in `why`. `expected`: who was dialled, or RF_NODE_NONE. Changes nothing. */
rf_err_t rf_peer_judge(rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, rf_node_t expected,
                       char *why, size_t why_max);

#endif
