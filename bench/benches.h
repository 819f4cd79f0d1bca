/* Every bench there is, in the order `rf-bench list` shows them. One line here adds one. */
#ifndef RF_BENCH_BENCHES_H
#define RF_BENCH_BENCHES_H

#include "bench.h"

#define BENCHES(X)                                                                                           \
    X(limits)                                                                                                \
    X(link)                                                                                                  \
    X(link_hosts)                                                                                            \
    X(bulk)                                                                                                  \
    X(incast)                                                                                                \
    X(alltoall)                                                                                              \
    X(flow)                                                                                                  \
    X(dpdk)                                                                                                  \
    X(urpc)                                                                                                  \
    X(poll)                                                                                                  \
    X(channel)                                                                                               \
    X(lmp)                                                                                                   \
    X(spawn)                                                                                                 \
    X(ordered)                                                                                               \
    X(ordered_hosts)                                                                                         \
    X(two_phase)                                                                                             \
    X(one_phase)

#define BENCH_DECLARE(name) extern const bench_t bench_##name;
BENCHES(BENCH_DECLARE)
#undef BENCH_DECLARE

#endif
