/* Clocks. Any thread. */
#ifndef RF_BASE_CLOCK_H
#define RF_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define RF_NS_PER_US 1000ull
#define RF_NS_PER_MS 1000000ull
#define RF_NS_PER_S  1000000000ull
#define RF_NEVER     UINT64_MAX /* a deadline that does not come */

/* CLOCK_MONOTONIC in nanoseconds: deadlines, durations. About 25 ns. */
static inline uint64_t rf_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * RF_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* CLOCK_BOOTTIME in nanoseconds: goes on while the host sleeps; for leases and self-freezing. */
static inline uint64_t rf_clock_boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * RF_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The core's cycle (or timer) counter, unserialised: for poll budgets and benches. */
static inline uint64_t rf_clock_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return rf_clock_ns();
#endif
}

/* A pause, cut short by no signal: only between looks at something that cannot wake its waiter, in a loop that has an end. */
void rf_clock_sleep_ms(uint64_t ms);

/* Ticks of rf_clock_ticks() per microsecond, measured once against CLOCK_MONOTONIC (about 2 ms), then cached; right also for who is kept from
 * its CPU meanwhile. */
uint64_t rf_clock_ticks_per_us(void);

#endif
