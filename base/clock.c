#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>

#define CALIBRATE_NS  (2 * RF_NS_PER_MS)
#define CALIBRATE_ASK 8

typedef struct moment {
    uint64_t ns, ticks;
} moment_t;

/* The same moment by the clock and in ticks: of a few, the one between whose ticks least has passed. Whoever was kept from the CPU between
 * the two, as in a guest or on a busy host, would have them milliseconds apart. */
static moment_t moment_now(void)
{
    moment_t best = {0};
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < CALIBRATE_ASK; i++) {
        uint64_t before = rf_clock_ticks(), ns = rf_clock_ns(), took = rf_clock_ticks() - before;
        if (took >= least) continue;
        least = took;
        best = (moment_t){.ns = ns, .ticks = before + took / 2};
    }
    return best;
}

uint64_t rf_clock_ticks_per_us(void)
{
    static _Atomic(uint64_t) cached;
    uint64_t known = atomic_load_explicit(&cached, memory_order_relaxed);
    if (known) return known;
    moment_t from = moment_now(), to;
    do {
        to = moment_now();
    } while (to.ns - from.ns < CALIBRATE_NS);
    uint64_t per_us = (to.ticks - from.ticks) * 1000 / (to.ns - from.ns);
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
