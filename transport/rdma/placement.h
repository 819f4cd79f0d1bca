/*
 * How the other end puts slots here: by SEND, or by WRITE into a ring that is polled.
 *
 * Polling a ring relies on the device placing the eight bytes of the control word no earlier than the rest of its slot. No
 * standard promises that, so it is done only where it is configured (mode=write), or for a driver of which the table in
 * placement.c says that the litmus test looked at 10^8 slots and found all in order: today for none. An iWARP device never
 * does it unless it is told to (RFC 5040 promises no order of placement within and between messages).
 */
#ifndef RF_TRANSPORT_RDMA_PLACEMENT_H
#define RF_TRANSPORT_RDMA_PLACEMENT_H

#include "transport/rdma/options.h"

#include <stdbool.h>

/* The mode for slots that come in over `driver` ("rxe", "siw", "mlx5"); *why is the reason, static. */
rdma_mode_t rdma_placement(rdma_mode_t wanted, const char *driver, bool iwarp, const char **why);

/* Slots by WRITE where the litmus test saw them before their payload, or on iWARP: for measuring only, whatever is configured. */
bool rdma_placement_doubtful(rdma_mode_t mode, const char *driver, bool iwarp);

#endif
