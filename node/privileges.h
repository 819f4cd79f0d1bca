/*
 * Who rackfishd is. Started as root (a *privileged* machine) it prepares what only root can, then becomes the system user
 * and keeps the capabilities named in privileges.c; CPU drivers inherit some of them. Otherwise it stays who it is.
 */
#ifndef RF_NODE_PRIVILEGES_H
#define RF_NODE_PRIVILEGES_H

#include "node/daemon.h"

/* Finds out who started this, and who the system user is. `error` is one line. */
rf_err_t rf_privileges_find(rf_daemon_t *daemon, char *error, size_t error_max);

/* Becomes the system user (privileged), not dumpable in any case; unlimited descriptors as far as allowed. */
rf_err_t rf_privileges_drop(rf_daemon_t *daemon, char *error, size_t error_max);

/* For what is started next: the capabilities that a link driver needs for its device (as the EAL names it), and no others; NULL: those
 * of CPU drivers again. Nothing where the machine is not privileged. */
void rf_privileges_lend(const rf_daemon_t *daemon, const char *device);

/* The name of a user; false when the host knows none. */
bool rf_user_name(uid_t uid, char out[RF_USER_MAX]);

#endif
