#include "transport/wait.h"

#include "base/clock.h"

#define BUDGET_US_MIN                                                                                        \
    1 /* never zero while polling is allowed at all: a budget of nothing finds nothing and stays */

void rf_wait_init(rf_wait_t *wait, uint32_t budget_max_us)
{
    wait->budget_max_us = budget_max_us;
    wait->budget_us = budget_max_us;
}

void rf_wait_adapt(rf_wait_t *wait, bool found_polling)
{
    if (wait->budget_max_us == 0) return;
    if (found_polling)
        wait->budget_us =
            wait->budget_us < wait->budget_max_us / 2 ? wait->budget_us * 2 : wait->budget_max_us;
    else
        wait->budget_us = wait->budget_us / 2 > BUDGET_US_MIN ? wait->budget_us / 2 : BUDGET_US_MIN;
}

static bool any_ready(rf_link_t *const *links, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (links[i]->transport->ready(links[i])) return true;
    }
    return false;
}

bool rf_wait_arm_all(rf_link_t *const *links, unsigned n)
{
    for (unsigned i = 0; i < n; i++) links[i]->transport->arm(links[i]);
    rf_full_fence(); /* asleep words, before the last look at the rings: the other half is in flush */
    if (!any_ready(links, n)) return true;
    rf_wait_disarm_all(links, n);
    return false;
}

void rf_wait_disarm_all(rf_link_t *const *links, unsigned n)
{
    for (unsigned i = 0; i < n; i++) links[i]->transport->disarm(links[i]);
}

rf_err_t rf_wait_links(rf_wait_t *wait, const rf_doorbell_t *doorbell, rf_link_t *const *links, unsigned n,
                       uint64_t deadline_ns)
{
    if (wait->budget_us > 0) {
        uint64_t start = rf_clock_ticks(), budget = wait->budget_us * rf_clock_ticks_per_us();
        do {
            if (any_ready(links, n)) {
                rf_wait_adapt(wait, true);
                return RF_OK;
            }
            rf_cpu_pause();
        } while (rf_clock_ticks() - start < budget);
    }
    uint32_t value = rf_doorbell_value(doorbell); /* before arming: a ring from here on ends the wait */
    if (!rf_wait_arm_all(links, n)) return RF_OK;
    rf_wait_adapt(wait, false);
    rf_err_t err = rf_doorbell_wait(doorbell, value, deadline_ns);
    rf_wait_disarm_all(links, n);
    return err;
}
