/*
 * The other nodes of the machine (peer.proto): one standing TLS connection a pair, dialled by the node with the higher
 * index and dialled again when it breaks; and the bootstrap port where they, and relayed control sessions, come in.
 *
 * Whoever has not proved that it holds the cluster's key costs one socket of a bounded number for at most five seconds.
 * Whoever has, but does not fit (another machine, configuration, version, or a node index already taken), is told why.
 */
#ifndef RF_NODE_BOOTSTRAP_H
#define RF_NODE_BOOTSTRAP_H

#include "node/conn.h"
#include "node/daemon.h"

#define RF_PEER_MAJOR         1
#define RF_PEER_MINOR         0
#define RF_PEER_STRANGERS_MAX 16 /* connections that have not said hello yet; the oldest gives way */
#define RF_PEER_HELLO_NS      (5 * RF_NS_PER_S)

/* Listens (or takes over --listen-fd) and starts dialling. Nothing to do on a machine of one node. */
rf_err_t rf_peers_open(rf_daemon_t *daemon, char *error, size_t error_max);
void rf_peers_close(rf_daemon_t *daemon);

/* True when every other node has told its cores' addresses. */
bool rf_peers_all_known(const rf_daemon_t *daemon);

/* Names those that have not, "node1 (10.0.0.2:7117), node2 (...)"; "" when none. */
void rf_peers_missing(const rf_daemon_t *daemon, char *out, size_t max);

/* A monitor of this node is (again) in reach: tell it what is known of other nodes. */
void rf_peers_tell_monitor(rf_daemon_t *daemon, rf_local_core_t *core);

/* A core of this node came up or went down: tell the other nodes. */
void rf_peers_cores_changed(rf_daemon_t *daemon);

/* Is the standing connection to this node up? (True of this node.) */
bool rf_peer_is_connected(const rf_daemon_t *daemon, rf_node_t node);

/* What a node told of its host; false when it has not. */
bool rf_peer_host(const rf_daemon_t *daemon, rf_node_t node, uint64_t *memory_bytes, const char **cpu_model);

/* Dials a node's bootstrap port; the result is not authenticated yet. For bootstrap.c and remote.c. */
rf_err_t rf_peer_dial(rf_daemon_t *daemon, rf_node_t node, const rf_conn_handlers_t *handlers, void *context,
                      rf_conn_t **out);

/* Sends this node's hello on a connection. */
void rf_peer_send_hello(rf_daemon_t *daemon, rf_conn_t *conn, bool control, const char *user,
                        bool privileged_user);

/* Judges the first frame of the other side: RF_OK, with its index in *node; else the error, one line in `why`, and whether the
 * other side is to be told. `expected`: who was dialled, or RF_NODE_NONE. */
struct Rackfish__Node__PeerHello;
rf_err_t rf_peer_judge(rf_daemon_t *daemon, const struct Rackfish__Node__PeerHello *hello, rf_node_t expected,
                       char *why, size_t why_max);

#endif
