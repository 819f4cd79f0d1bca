#include "transport/rdma/sleep.h"

bool rdma_sleep_arm(rdma_sleep_t *sleep, uint64_t *look_ns)
{
    bool says = sleep->state == RDMA_AWAKE;
    if (says) {
        sleep->state = RDMA_ASKED;
        sleep->look_ns = RDMA_LOOK_NS_MIN;
    }
    *look_ns = 0;
    if (sleep->state != RDMA_ASKED) return false;
    *look_ns = sleep->look_ns;
    if (sleep->look_ns < RDMA_LOOK_NS_MAX) sleep->look_ns *= 2;
    return says;
}

void rdma_sleep_granted(rdma_sleep_t *sleep)
{
    if (sleep->state == RDMA_ASKED) sleep->state = RDMA_GRANTED;
}

void rdma_sleep_rung(rdma_sleep_t *sleep)
{
    if (sleep->state == RDMA_GRANTED) sleep->state = RDMA_AWAKE;
}

void rdma_sleep_grants(rdma_sleep_t *sleep)
{
    sleep->peer_sleeps = true;
}

bool rdma_sleep_rings(rdma_sleep_t *sleep)
{
    bool rings = sleep->peer_sleeps;
    sleep->peer_sleeps = false;
    return rings;
}

bool rdma_sleep_timer(uint64_t *set_ns, uint64_t ns)
{
    if (*set_ns != 0 && *set_ns <= ns) return false; /* it goes off earlier */
    *set_ns = ns;
    return true;
}
