/* What the benches two-phase and one-phase share: operations of a group, by medium, plan, size and how many at once. */
#ifndef RF_BENCH_GROUP_BENCH_H
#define RF_BENCH_GROUP_BENCH_H

#include "group_node.h"
#include "result.h"

typedef struct group_series {
    const bench_options_t *options;
    const char *bench;
    group_phase_t phase;
    unsigned trips; /* there and back that the protocol cannot avoid */
} group_series_t;

/* Measures all pieces that are wanted: `direct`, `single`, `pipelined`. */
rf_err_t group_series_run(const group_series_t *series);

#endif
