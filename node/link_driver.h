/*
 * The link drivers of this node's DPDK ports: a process each, rackfish-dpdk, which monitors and dispatchers reach over shared
 * memory. Started before the cores where the configuration has links over DPDK; they outlive rackfishd, which adopts them again.
 * When one dies, however that is, it is started anew after a pause that grows as long as it goes on dying; links notice by
 * themselves, and nothing on them is lost or doubled (transport/dpdk).
 */
#ifndef RF_NODE_LINK_DRIVER_H
#define RF_NODE_LINK_DRIVER_H

#include "node/daemon.h"

/* As root: makes the folder of their sockets, which dispatchers must reach and the node's own folder hides. */
rf_err_t rf_link_drivers_prepare(rf_daemon_t *daemon, char *error, size_t error_max);

/* Adopts those that live, starts the others, and waits until they serve. RF_OK also where none is wanted, and for one that does not
 * start while cores are taken over: it is tried again. */
rf_err_t rf_link_drivers_start(rf_daemon_t *daemon, char *error, size_t error_max);

/* The options of this node's DPDK endpoints, "" where it has no link driver (transport/dpdk/dpdk.h). */
void rf_link_drivers_options(const rf_daemon_t *daemon, char *out, size_t max);

/* When all cores are down: ends them, and waits until they are gone. */
void rf_link_drivers_stop(rf_daemon_t *daemon);

/* Stops watching; the processes stay as they are. */
void rf_link_drivers_release(rf_daemon_t *daemon);

/* Their folder, after the name of the node, below the machine's run directory, and the first one's socket there; that of port N > 0
 * has N behind its name. */
#define RF_LINK_DRIVER_FOLDER ".dpdk"
#define RF_LINK_DRIVER_SOCKET "sock"
#define RF_LINK_DRIVER_ROLE   "linkdriver" /* in the state file */

#endif
