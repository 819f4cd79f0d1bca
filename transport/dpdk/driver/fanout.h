/* The number of DPDK's packet sockets, which is not always to be had. */
#ifndef RF_DPDK_DRIVER_FANOUT_H
#define RF_DPDK_DRIVER_FANOUT_H

#include <stdbool.h>

/*
 * A device on packet sockets is a group of sockets with a number in its network namespace (packet(7), PACKET_FANOUT). DPDK makes it of the
 * process and the interface, so that two of them may come to the same one; another process comes to another.
 * True: `device` is such a one, and what this process comes to is another interface's.
 */
bool fanout_is_taken(const char *device);

#endif
