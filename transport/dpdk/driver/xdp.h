/* What a link driver over XDP sockets has to do with its interface before DPDK does. For other devices than DPDK's net_af_xdp these do
 * nothing. */
#ifndef RF_DPDK_DRIVER_XDP_H
#define RF_DPDK_DRIVER_XDP_H

#include "base/error.h"

#include <stddef.h>

/* Makes the interface this process's, as long as it lives, and takes its XDP program: one of a driver that was killed stays there, and
 * hands packets to sockets that are no more. RF_ERR_EXISTS: another link driver has it, in this network namespace;
 * RF_ERR_LIMIT: it has more queues than are served, and the kernel would spread packets over all. */
rf_err_t xdp_take(const char *device);

/* More arguments for the device, so that it has a socket for each of the interface's queues: the kernel spreads packets over all. "" where
 * it has one, or the device says of queues itself. Returns `out`. */
const char *xdp_queues(const char *device, char *out, size_t max);

#endif
