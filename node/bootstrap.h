/*
 * The bootstrap port, where other nodes and the sessions they relay come in, and dialling that of another node.
 *
 * Whoever has not proved that it holds the cluster's key costs one of a bounded number of places for at most five seconds; who
 * has, but does not fit, is told why (peer_hello.h). Nothing that a stranger does is logged more than now and then.
 */
#ifndef RF_NODE_BOOTSTRAP_H
#define RF_NODE_BOOTSTRAP_H

#include "node/conn.h"
#include "node/daemon.h"

#define RF_STRANGERS_MAX 16 /* connections that have not said hello yet; the oldest gives way */

/* Listens, or takes over --listen-fd. Nothing to do on a machine of one node. `error` is one line. */
rf_err_t rf_bootstrap_open(rf_daemon_t *daemon, char *error, size_t error_max);
void rf_bootstrap_close(rf_daemon_t *daemon);

/* A connect() that is not answered for so long was lost, and is tried anew: the kernel would do so after 1, 3, 7 seconds, when a bad
 * wire has long since let another through. */
#define RF_CONNECT_NS (500 * RF_NS_PER_MS)

/* How long the next try has when one of so long was in vain: longer, since the way may be as long. */
static inline uint64_t rf_connect_longer_ns(uint64_t ns)
{
    return ns < 4 * RF_CONNECT_NS ? 2 * ns : ns;
}

/* A connection that only stands there for news: it is given up after seconds of silence, since a new one costs nothing. */
void rf_bootstrap_set_standing(rf_conn_t *conn);

/* Dials a node's bootstrap port; what is sent waits until both sides are authenticated. */
rf_err_t rf_bootstrap_dial(rf_daemon_t *daemon, rf_node_t node, const rf_conn_handlers_t *handlers,
                           void *context, rf_conn_t **out);

/* Again, for a connection of rf_bootstrap_dial() that is still connecting; when that fails, it waits on. */
void rf_bootstrap_dial_again(rf_daemon_t *daemon, rf_node_t node, rf_conn_t *conn);

#endif
