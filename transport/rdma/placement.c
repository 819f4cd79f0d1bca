#include "transport/rdma/placement.h"

#include <string.h>

/* Drivers that the litmus test found to place slots in order (tests/lab/rdma/litmus.c), and how many slots it looked at. */
static const struct {
    const char *driver, *why;
} in_order[] = {
    /* Linux 6.1.192, between two guests of the lab (litmus_test.sh BUILD rxe 1500000): it copies a packet's bytes in one
     * go, packets of a queue pair in order. */
    {"rxe", "the litmus test looked at 1,500,000 slots of this driver, all placed in order"},
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
    for (unsigned i = 0; i < sizeof in_order / sizeof *in_order; i++) {
        if (strcmp(driver, in_order[i].driver) == 0) {
            *why = in_order[i].why;
            return RDMA_MODE_WRITE;
        }
    }
    *why = "no litmus test has looked at this driver's order of placement";
    return RDMA_MODE_SEND;
}
