/* A running driver's counters, for people and scripts: `rackfish-dpdk --stats SOCKET [--json]`. */
#ifndef RF_DPDK_DRIVER_ASK_H
#define RF_DPDK_DRIVER_ASK_H

#include "base/error.h"

#include <stdbool.h>

/* Prints them to standard output. Blocks for at most a few seconds. */
rf_err_t ask_stats(const char *socket, bool json);

/* Somebody listens there. */
bool ask_is_there(const char *socket);

#endif
