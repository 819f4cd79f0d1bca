/*
 * How domains are kept apart on this host, found out once by trying it in a child. Privileged: a PID and a mount
 * namespace each. Unprivileged: the same inside a user namespace, where the host allows that. Else none: programs
 * are contained by a subreaper and a scan of processes, and can see and signal what their user can.
 */
#ifndef RF_CPUDRIVER_ISOLATION_H
#define RF_CPUDRIVER_ISOLATION_H

#include "cpudriver/core.h"

/* Never fails: the answer may be RF_ISOLATION_NONE with the reason in `text`. The environment variable
 * RACKFISH_ISOLATION=none asks for that, for tests and for hosts where namespaces misbehave. */
void rf_isolation_probe(rf_isolation_t *out);

/* Clones the calling process into a dispatcher's namespaces; the child must soon exec or exit. 0 in the child, the pid
 * in the parent with `*pidfd`, -1 and errno. */
pid_t rf_isolation_clone(const rf_isolation_t *isolation, int *pidfd);

/* In the child: maps its user into the user namespace, if there is one. 0, or errno. */
int rf_isolation_map_user(const rf_isolation_t *isolation, unsigned uid, unsigned gid);

/* In the child: its own view of mounts, and its own /proc where the level says so. 0, or errno. */
int rf_isolation_mount(rf_isolation_level_t level);

#endif
