/*
 * The cores of this node: starting their CPU drivers, adopting those that an earlier rackfishd started, and noticing their
 * death through pidfds. A core is the unit of failure: one whose CPU driver died is down for good, and said to be.
 */
#ifndef RF_NODE_CORES_H
#define RF_NODE_CORES_H

#include "node/daemon.h"

/* Fills daemon->cores for this node; none runs yet. */
void rf_cores_init(rf_daemon_t *daemon);

/* Starts a core that does not run, as that incarnation. The caller then writes the state and connects to its monitor. */
rf_err_t rf_core_start(rf_local_core_t *core, rf_incarnation_t incarnation, int boot_fd, char *error,
                       size_t error_max);

/* Starts the CPU driver of every core in its first incarnation; the first that cannot be started ends it. */
rf_err_t rf_cores_start(rf_daemon_t *daemon, int boot_fd, char *error, size_t error_max);

/* Takes over the CPU drivers that the state file names and that still live; the others are down. Returns how many live. */
unsigned rf_cores_adopt(rf_daemon_t *daemon);

/* How many are not down. */
unsigned rf_cores_alive(const rf_daemon_t *daemon);

/* Kills what is left of all cores. */
void rf_cores_kill(rf_daemon_t *daemon);

/* Ends and reaps processes that became this one's children because the CPU driver they belonged to died: where domains
 * have no PID namespace, that is how what they forked is contained. */
void rf_cores_end_orphans(rf_daemon_t *daemon);

/* Stops watching; processes stay as they are. */
void rf_cores_release(rf_daemon_t *daemon);

/* After a SIGCHLD: a CPU driver that was stopped, and still is after host_deadline_ms, is killed, and its core joins anew. Its monitor may be
 * well, so nobody else would notice that the core serves nobody. Of adopted ones the kernel tells another parent. */
void rf_cores_look_for_stopped(rf_daemon_t *daemon);

#endif
