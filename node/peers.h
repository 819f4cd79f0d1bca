/*
 * The other nodes of the machine: one standing connection a pair, dialled by the node with the higher index and dialled again
 * when it breaks. Over it nodes learn the machine's id and where each other's monitors listen; monitors of this node are told.
 */
#ifndef RF_NODE_PEERS_H
#define RF_NODE_PEERS_H

#include "node/conn.h"
#include "node/daemon.h"
#include "node/proto.h"

/* Makes room for the other nodes; then starts dialling those that are this one's to dial. */
rf_err_t rf_peers_open(rf_daemon_t *daemon);
void rf_peers_dial(rf_daemon_t *daemon);
void rf_peers_close(rf_daemon_t *daemon);

/* Takes over a standing connection whose hello was judged fine. RF_ERR_EXISTS, RF_ERR_PROTOCOL with one line in `why`: it stays
 * the caller's. */
rf_err_t rf_peers_take(rf_daemon_t *daemon, rf_conn_t *conn, const Rackfish__Node__PeerHello *hello,
                       char *why, size_t why_max);

/* Tells every connected node of which machine this one is, with its word (form.h): when this node has begun to take part, and when the machine
 * has formed. */
void rf_peers_tell_machine(rf_daemon_t *daemon);

/* Another node is of another machine, `why` says which. A node that has nothing running yet cannot come up, and says so at once. */
void rf_peers_other_machine(rf_daemon_t *daemon, const char *why);

/* Another living rackfishd than the one that says this hello is that node: two hosts claim one name. One line in `why`. */
bool rf_peers_are_two(const rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, char *why,
                      size_t why_max);

/* How many nodes are connected, this one counted. */
unsigned rf_peers_connected(const rf_daemon_t *daemon);

/* True when every other node has told its cores' addresses. */
bool rf_peers_all_known(const rf_daemon_t *daemon);

/* Names those that are not connected in the same way; returns how many more of them make a majority. */
unsigned rf_peers_silent(const rf_daemon_t *daemon, char *out, size_t max);

/* Names those that have not, "node1 (10.0.0.2:7117), node2 (...)"; "" when none. */
void rf_peers_missing(const rf_daemon_t *daemon, char *out, size_t max);

/* A monitor of this node is (again) in reach: tell it what is known of other nodes. */
void rf_peers_tell_monitor(rf_daemon_t *daemon, rf_local_core_t *core);

/* A core of this node came up or went down: tell the other nodes. */
void rf_peers_cores_changed(rf_daemon_t *daemon);

/* The monitor of a core of this node is dead, the kernel says: tell the monitors here and the other nodes. */
void rf_peers_core_dead(rf_daemon_t *daemon, rf_core_t core, rf_incarnation_t incarnation);

/* It has just proved, or there is reason to hope, that it can be reached: if this node is to dial it, that need not wait. */
void rf_peers_heard(rf_daemon_t *daemon, rf_node_t node);

/* Is the standing connection to this node up? (True of this node.) */
bool rf_peer_is_connected(const rf_daemon_t *daemon, rf_node_t node);

/* What a node told of its host; false when it has not. */
bool rf_peer_host(const rf_daemon_t *daemon, rf_node_t node, uint64_t *memory_bytes, const char **cpu_model);

#endif
