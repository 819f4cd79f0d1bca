/*
 * From "nothing runs" to "ready". Driven by events; rf_boot_step() looks at what is known and does what can be done next:
 *
 *   machine id and all places known -> boot block, CPU drivers started -> every monitor linked and its address told
 *   -> addresses of all other nodes told to the monitors -> each monitor says that it is of the machine -> ready
 *
 * A node that an earlier rackfishd booted begins with the cores that still live, and waits for those that may be joining again.
 *
 * Progress goes to the boot log, and to --ready-fd as lines "progress TEXT", then "ready" or "error TEXT".
 */
#ifndef RF_NODE_BOOT_H
#define RF_NODE_BOOT_H

#include "node/daemon.h"

void rf_boot_step(rf_daemon_t *daemon);

void rf_boot_progress(rf_daemon_t *daemon, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the boot, and with it everything that was started (nothing that was adopted); one line of cause and mend. */
void rf_boot_failed(rf_daemon_t *daemon, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same before anything was touched: only says so, to --ready-fd and standard error. */
void rf_boot_refused(rf_daemon_t *daemon, const char *error);

/* Makes the boot block, once: daemon->boot_fd. */
rf_err_t rf_boot_block(rf_daemon_t *daemon);

/* Called when a core's monitor is in reach, and when a core died. */
void rf_boot_core_up(rf_local_core_t *core);
void rf_boot_core_down(rf_local_core_t *core, const char *how);

/* Numbers the machine's cores once every node has told how many it has. False: some have not. */
bool rf_boot_resolve_places(rf_daemon_t *daemon);

/* Finds libexec and modules: beside this program in a build tree, else where it is installed. */
void rf_boot_find_programs(rf_daemon_t *daemon);

/* A numeric address for each node's name; `error` is one line. */
rf_err_t rf_boot_resolve_addresses(rf_daemon_t *daemon, char *error, size_t error_max);

#endif
