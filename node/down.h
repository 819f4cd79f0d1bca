/*
 * Stopping a node and leaving nothing behind: monitors are told to end their domains and exit, CPU drivers follow; what still
 * lives after the grace is killed; then sockets, control groups, private libraries, state and logs are removed.
 * `rackfish down` on one node goes to all, through their rackfishds.
 */
#ifndef RF_NODE_DOWN_H
#define RF_NODE_DOWN_H

#include "node/control_server.h"

#define RF_DOWN_GRACE_MS 2000 /* usual; monitors give domains TERM first */

/* Starts going down; harmless when already on the way (a shorter grace then counts). grace_ms 0: at once. */
void rf_down_begin(rf_daemon_t *daemon, unsigned grace_ms);

void rf_query_down(rf_client_t *client, uint64_t id, const Rackfish__DownRequest *request);

/* A CPU driver ended. */
void rf_down_core_ended(rf_daemon_t *daemon);

/* Removes what a finished node leaves. */
void rf_down_clean(rf_daemon_t *daemon);

/* `rackfishd --sweep`: the same for a node whose rackfishd died, by its state file alone. Exit status. */
int rf_down_sweep(const char *run_dir, const char *node_name);

#endif
