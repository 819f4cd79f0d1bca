/*
 * Fencing another core of this host: its monitor, its CPU driver and all that they started are killed, also stopped ones,
 * and the answer says that nothing of them runs any more. Any living core can do it, whatever the fenced one does.
 *
 *   KILLED    its monitor; a CPU driver that works then ends the core by itself
 *   HARD      it did not, in time: the CPU driver is stopped (so that it starts nothing more), its processes are listed, it
 *             and they are killed
 *   answered  every process is dead, and a last look finds no rf-init of that life; or the deadline has passed
 *
 * A life's rf-inits are found by their arguments, also when their CPU driver is dead. What they started is in their
 * namespace and dead with them; without namespaces it is listed below its CPU driver, or ended by rackfishd, whose child it
 * becomes.
 */
#ifndef RF_CPUDRIVER_FENCE_H
#define RF_CPUDRIVER_FENCE_H

#include "cpudriver/core.h"

/* RF_ERR_INVALID: not another core of this host. RF_ERR_LIMIT: too many at once. */
rf_err_t rf_fence_check(const rf_cpudriver_t *driver, const rf_kernel_fence_t *what);

/* Begins; the reply to `tag` follows. */
void rf_fence_begin(rf_cpudriver_t *driver, const rf_kernel_fence_t *what, uint32_t tag);

/* The verb: carries on with those under way. */
void rf_fences_run(rf_cpudriver_t *driver);

/* What rf-init carries in its arguments: which life of which core started it. */
void rf_fence_life(char out[RF_FENCE_LIFE_MAX], const rf_machine_id_t *machine, rf_core_t core,
                   rf_incarnation_t incarnation);

#endif
