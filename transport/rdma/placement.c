#include "transport/rdma/placement.h"

#include <string.h>

/* Drivers whose placement the litmus test of tests/lab found in order. */
static const char *const tested[] = {
    "rxe", /* Linux 6.1: copies a packet's bytes in one go, packets of a queue pair in order */
};

rdma_mode_t rdma_placement(rdma_mode_t wanted, const char *driver, bool iwarp, const char **why)
{
    if (wanted != RDMA_MODE_AUTO) {
        *why = "as configured";
        return wanted;
    }
    if (iwarp) {
        *why = "iWARP promises no order of placement";
        return RDMA_MODE_SEND;
    }
    for (unsigned i = 0; i < sizeof tested / sizeof *tested; i++) {
        if (strcmp(driver, tested[i]) == 0) {
            *why = "the driver's order of placement is tested";
            return RDMA_MODE_WRITE;
        }
    }
    *why = "the driver's order of placement is not tested";
    return RDMA_MODE_SEND;
}
