#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>

uint64_t rf_clock_ticks_per_us(void)
{
    static _Atomic(uint64_t) cached;
    uint64_t known = atomic_load_explicit(&cached, memory_order_relaxed);
    if (known) return known;
    uint64_t ns0 = rf_clock_ns(), ticks0 = rf_clock_ticks(), ns1;
    do {
        ns1 = rf_clock_ns();
    } while (ns1 - ns0 < 2 * RF_NS_PER_MS);
    uint64_t per_us = (rf_clock_ticks() - ticks0) * 1000 / (ns1 - ns0);
    if (per_us == 0) per_us = 1;
    atomic_store_explicit(&cached, per_us, memory_order_relaxed);
    return per_us;
}

void rf_clock_sleep_ms(uint64_t ms)
{
    uint64_t end_ns = rf_clock_ns() + ms * RF_NS_PER_MS;
    struct timespec end = {.tv_sec = (time_t)(end_ns / RF_NS_PER_S), .tv_nsec = (long)(end_ns % RF_NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) continue;
}
