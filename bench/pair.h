/* Two pinned threads that start together: what everything between two cores is measured with. */
#ifndef RF_BENCH_PAIR_H
#define RF_BENCH_PAIR_H

#include "bench.h"

typedef void (*bench_side_fn)(void *context);

/* Runs `first` on cores[0] and `second` on cores[1], at once, and waits for both. False, with a message, when the
 * CPUs are not this process's to use. */
bool bench_pair_run(const unsigned cores[2], bench_side_fn first, bench_side_fn second, void *context);

/* The tick counter of some hosts goes in steps of 10 ns: a sample of a polled round trip is the mean of so many. */
#define BENCH_ROUNDS_PER_SAMPLE 10

/* Nanoseconds a tick of rf_clock_ticks(). */
double bench_ns_per_tick(void);

#endif
