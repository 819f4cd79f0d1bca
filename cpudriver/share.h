/*
 * The arithmetic of shares: pure.
 *
 * A core's time is 1000 permille. At most RF_SHARE_RESERVED_MAX of it is given out as reserved shares; best effort
 * divides what is left by weights:
 *
 *   the CPU ─┬─ CPU driver (SCHED_FIFO), monitor
 *            └─ core ─┬─ reserved share R1 permille
 *                     ├─ reserved share R2 permille ...
 *                     └─ best effort    1000 - R1 - R2 - ... permille, at least RF_SHARE_BEST_EFFORT_MIN
 *                          ├─ domain  weight 100
 *                          └─ domain  weight 50 ...
 *
 * The monitor is beside its core's domains as a whole, and ahead of them: a task that mostly sleeps is run at once when it
 * wakes, as long as it has used less than its half. Inside the core's group it would wait for that group's turn.
 * A reserved share is a floor while its domain wants it; time that nobody reserved wants goes to whoever runs.
 */
#ifndef RF_CPUDRIVER_SHARE_H
#define RF_CPUDRIVER_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#define RF_SHARE_RESERVED_MAX    900
#define RF_SHARE_BEST_EFFORT_MIN 50
#define RF_SHARE_WEIGHT_USUAL    100
#define RF_SHARE_WEIGHT_MAX      1000

/* May a dispatcher's reservation go from `old` to `wanted` permille, when `total` is given out now (with `old`)? */
bool rf_share_admits(uint32_t total, uint32_t old, uint32_t wanted);

/* What best effort as a whole gets beside `total` reserved permille. */
uint32_t rf_share_best_effort(uint32_t total);

/* Weights of a cgroup cpu controller, the same numbers for v1 (cpu.shares) and v2 (cpu.weight). */
uint32_t rf_share_weight_permille(uint32_t permille);
uint32_t rf_share_weight_best_effort(uint32_t weight);

/* What a dispatcher is due, in units of 1/1000 permille, when it is one of those that want time: a reserved one its
 * permille, a best-effort one its part, by weight, of what is left. `weights` is the sum over all of the latter. */
uint64_t rf_share_due(uint32_t total_reserved, uint32_t reserved_permille, uint32_t weight, uint32_t weights);

#endif
