/* two-phase: prepare, committed, stable, applied; see group_bench.c. Any member may refuse, so two trips are due before
 * anything may be visible, and a third says that it is. */
#include "group_bench.h"

#define TRIPS 3

static rf_err_t run(const bench_options_t *options)
{
    group_series_t series = {
        .options = options, .bench = "two-phase", .phase = GROUP_TWO_PHASE, .trips = TRIPS};
    return group_series_run(&series);
}

const bench_t bench_two_phase = {"two-phase", "group operations that any member may refuse", run};
