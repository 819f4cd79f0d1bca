/*
 * The life of dispatchers after their creation: what rf-init reports, signals, freezing, figures, death, and what the
 * monitor has to be told of it. The state machine is in core.h.
 */
#ifndef RF_CPUDRIVER_DISPATCHER_H
#define RF_CPUDRIVER_DISPATCHER_H

#include "cpudriver/core.h"

/* Watches a new process and its reports (-1: the monitor has none). Owns both descriptors, also on failure. */
rf_err_t rf_dispatcher_adopt(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, int pidfd, int report);

/* Makes a slot as good as new. Everything it held is closed already. */
void rf_dispatcher_clear(rf_dispatcher_t *dispatcher);

/* To the foreground process group of its program, or to all its processes; as a message if it asked for that. */
void rf_dispatcher_signal(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, int signo, bool whole);
void rf_dispatcher_signal_all(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, int signo);

void rf_dispatcher_freeze(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, bool frozen);

/* All that are not frozen by themselves; thaws exactly those. For a core that has no contact with the machine. */
void rf_dispatchers_freeze_all(rf_cpudriver_t *driver, bool frozen);

/* Kills all of it; RF_KERNEL_EVENT_EXITED follows when all is reaped. */
void rf_dispatcher_destroy(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);

/* Figures of `n` dispatchers, at one look at the host's processes. */
void rf_dispatchers_stat(rf_cpudriver_t *driver, rf_dispatcher_t *const *dispatchers, unsigned n,
                         rf_kernel_stat_t *out);

/* Fills driver->processes, owners being indices of driver->dispatchers. */
void rf_dispatchers_scan(rf_cpudriver_t *driver);

/* The verb: tells the monitor and the dispatchers what is due, ends what is ending, frees slots, and carries on with
 * stopping the core. */
void rf_dispatchers_settle(rf_cpudriver_t *driver);

/* Begins to stop the core: TERM and a grace if `gently`, else KILL; then the monitor; then driver->done. */
void rf_core_stop(rf_cpudriver_t *driver, bool gently, int exit_status);

/* Without namespaces: ends and reaps processes that became ours because their rf-init was killed. */
void rf_adopted_end(rf_cpudriver_t *driver);

#endif
