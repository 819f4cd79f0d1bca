/*
 * Waiting on links: poll for about the cost of a wake-up, then block. With the budget at the cost of blocking, the
 * total is at most twice the optimum (Karlin et al., SODA 1990). The budget is zero when the waiter shares its CPU
 * with the peer it waits for; it adapts otherwise: it falls while polling finds nothing and rises when it does.
 */
#ifndef RF_TRANSPORT_WAIT_H
#define RF_TRANSPORT_WAIT_H

#include "transport/transport.h"

#define RF_POLL_BUDGET_US_MAX 50 /* about a wake-up on another core and back */

typedef struct rf_wait {
    uint32_t budget_us;     /* now */
    uint32_t budget_max_us; /* 0: never polls */
} rf_wait_t;

void rf_wait_init(rf_wait_t *wait, uint32_t budget_max_us);

/* Reports how the last waiting ended, so that the budget adapts: found while polling, or had to block. */
void rf_wait_adapt(rf_wait_t *wait, bool found_polling);

/* arm all, one fence, ready any: true if the caller may block now. Otherwise all are disarmed again. */
bool rf_wait_arm_all(rf_link_t *const *links, unsigned n);
void rf_wait_disarm_all(rf_link_t *const *links, unsigned n);

/*
 * For processes that block on a futex doorbell: returns RF_OK when some link is ready (or a spurious wake-up came),
 * RF_ERR_TIMEOUT at `deadline_ns`. Polls within the budget first.
 */
rf_err_t rf_wait_links(rf_wait_t *wait, const rf_doorbell_t *doorbell, rf_link_t *const *links, unsigned n,
                       uint64_t deadline_ns);

#endif
