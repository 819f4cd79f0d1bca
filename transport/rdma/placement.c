#include "transport/rdma/placement.h"

#include <string.h>

/* Drivers that the litmus test (tests/lab/rdma/litmus.c) has looked at: how many slots, and what it found. */
static const struct {
    const char *driver;
    rdma_mode_t mode;
    const char *why;
} looked_at[] = {
    /* Linux 6.1.192, between two guests of the lab on two CPUs. The words of a slot were still of the lap before, all or the
     * first four, under a new control word, and right a moment later. A processor copies the bytes here, and a fast string
     * move may store out of order as other processors see it (Intel SDM, volume 3A, "Fast-String Operation and Out-of-Order
     * Stores"). The first 1,500,000 slots had shown none; of another
     * 100,000,000, 6 were so. */
    {"rxe", RDMA_MODE_SEND, "the litmus test saw 5 of 73 million slots of this driver before their payload"},
};

/* What the litmus test found; -1: it has not looked at this driver. */
static int found(const char *driver)
{
    for (unsigned i = 0; i < sizeof looked_at / sizeof *looked_at; i++) {
        if (strcmp(driver, looked_at[i].driver) == 0) return (int)i;
    }
    return -1;
}

bool rdma_placement_doubtful(rdma_mode_t mode, const char *driver, bool iwarp)
{
    int at = found(driver);
    return mode == RDMA_MODE_WRITE && (iwarp || (at >= 0 && looked_at[at].mode != RDMA_MODE_WRITE));
}

static const char *why_as_told(rdma_mode_t mode, const char *driver, bool iwarp)
{
    if (!rdma_placement_doubtful(mode, driver, iwarp)) return "as configured";
    return iwarp ? "as configured, though iWARP promises no order of placement: for measuring only"
                 : "as configured, though the litmus test saw slots before their payload here: for measuring "
                   "only";
}

rdma_mode_t rdma_placement(rdma_mode_t wanted, const char *driver, bool iwarp, const char **why)
{
    int at = found(driver);
    if (wanted != RDMA_MODE_AUTO) {
        *why = why_as_told(wanted, driver, iwarp);
        return wanted;
    }
    *why = iwarp     ? "iWARP promises no order of placement"
           : at >= 0 ? looked_at[at].why
                     : "no litmus test has looked at this driver's order of placement";
    return iwarp || at < 0 ? RDMA_MODE_SEND : looked_at[at].mode;
}
