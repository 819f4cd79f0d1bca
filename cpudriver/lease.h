/*
 * The core's lease (wire/lease.h), which its monitor puts off: when it has run out, the core's dispatchers are frozen, whatever the
 * monitor does or cannot do any more, until it has been put off again. What the monitor itself asks for (FREEZE_ALL) counts besides.
 */
#ifndef RF_CPUDRIVER_LEASE_H
#define RF_CPUDRIVER_LEASE_H

#include "cpudriver/core.h"

/* Start-up: before the monitor is spawned, which inherits driver->lease_fd. */
rf_err_t rf_lease_open(rf_cpudriver_t *driver);

/* What the monitor asks for. */
void rf_lease_freeze(rf_cpudriver_t *driver, bool frozen);

/* The verb: freezes and thaws what is due, and has the loop woken when the lease runs out, while there is anything to freeze. */
void rf_lease_run(rf_cpudriver_t *driver);

#endif
