/* What only one process of a network namespace may do at a time. */
#ifndef RF_DPDK_DRIVER_CLAIM_H
#define RF_DPDK_DRIVER_CLAIM_H

#include <stdbool.h>

/*
 * Makes `name` this process's as long as it lives; at most 64 bytes, without '/'. False: a process of this user, of root or of the
 * installation has it, or claims it at the same moment. What other users do changes nothing, where the kernel tells whose
 * sockets there are (UNIX_DIAG, which Debian has); elsewhere who has the name has it, whoever that is.
 */
bool claim_take(const char *name);

#endif
