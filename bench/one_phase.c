/* one-phase: every member applies, then the owner goes on, as in a TLB shootdown; see group_bench.c. */
#include "group_bench.h"

static rf_err_t run(const bench_options_t *options)
{
    group_series_t series = {.options = options, .bench = "one-phase", .phase = GROUP_ONE_PHASE, .trips = 1};
    return group_series_run(&series);
}

const bench_t bench_one_phase = {"one-phase", "group operations by plan and group size (shootdown)", run};
