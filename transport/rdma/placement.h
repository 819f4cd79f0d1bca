/*
 * How the other end puts slots here: by SEND, or by WRITE into a ring that is polled.
 *
 * Polling a ring relies on the device placing the eight bytes of the control word no earlier than the rest of its slot. No
 * standard promises that, so it is done only for drivers of the table in placement.c, each with how many slots the litmus test looked at; an
 * iWARP device never does it unless it is told to (RFC 5040 promises no order of placement within and between messages).
 */
#ifndef RF_TRANSPORT_RDMA_PLACEMENT_H
#define RF_TRANSPORT_RDMA_PLACEMENT_H

#include "transport/rdma/options.h"

#include <stdbool.h>

/* The mode for slots that come in over `driver` ("rxe", "siw", "mlx5"); *why is the reason, static. */
rdma_mode_t rdma_placement(rdma_mode_t wanted, const char *driver, bool iwarp, const char **why);

#endif
