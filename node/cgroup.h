/*
 * The control group that the CPU drivers of a machine on this host share: one folder "rackfish/MACHINE" in the hierarchy
 * of the cpu controller (v1, or v2 where it is this user's to use). CPU drivers make core-N below it, domains below that.
 * Emulated nodes of one machine use the same folder, so that all their cores share CPUs equally.
 */
#ifndef RF_NODE_CGROUP_H
#define RF_NODE_CGROUP_H

#include "node/daemon.h"

/* Makes the folder and gives it to the system user; writes its path into daemon->cgroup, or "" with the reason logged: then
 * CPU drivers slice time by signals. */
void rf_cgroup_prepare(rf_daemon_t *daemon);

/* Kills whatever is still in the groups of these cores and removes them; then the folder, if no other node uses it. */
void rf_cgroup_remove(const char *cgroup, const rf_core_t *cores, unsigned n_cores);

#endif
