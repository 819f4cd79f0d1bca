/*
 * RF_KERNEL_CREATE in two halves. Prepare checks everything and reserves everything that the host could refuse: the
 * slot, the share, the descriptors, the group, and the process itself, which waits at its first instruction. Commit
 * lets it go. Abandoning a prepared one leaves nothing behind.
 */
#ifndef RF_CPUDRIVER_SPAWN_H
#define RF_CPUDRIVER_SPAWN_H

#include "cpudriver/core.h"

/*
 * `fds` as in RF_KERNEL_CREATE: {spawn block[, stdin, stdout, stderr][, executable]}; they stay the caller's.
 * On failure `why` names errno and what, where there is something to name, and nothing has changed.
 */
rf_err_t rf_spawn_prepare(rf_cpudriver_t *driver, const rf_kernel_create_t *create, const int *fds,
                          unsigned n_fds, rf_dispatcher_t **out, rf_kernel_created_t *why);

/* The dispatcher is STARTING; its creation is answered under `tag` by rf_dispatchers_settle(). */
void rf_spawn_commit(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, uint32_t tag);

/* Starts the monitor: a plain process of the system's user, with kernel link and boot block. */
rf_err_t rf_spawn_monitor(rf_cpudriver_t *driver);

#endif
