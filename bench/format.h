/*
 * Results in the columns of other suites, so that what reads theirs reads ours: sizes in bytes, times in us. A header is
 * printed where the measured thing, or its columns, change. A figure that such a suite has no column for (cores, permille)
 * is a comment line there.
 */
#ifndef RF_BENCH_FORMAT_H
#define RF_BENCH_FORMAT_H

#include "result.h"

/* "# Size   Avg Latency(us) ..." as osu_latency, "# Size   Bandwidth (MB/s)" as osu_bw, "# Size   MB/s   Messages/s" as
 * osu_mbw_mr. The samples are sorted. Size is 0 where nothing is sent. */
void bench_format_osu(const bench_result_t *result, double mean);
/* "#bytes #iterations t_min[usec] ..." as ib_write_lat, "#bytes #iterations BW peak[MB/sec] ..." as ib_write_bw, where MB
 * is 2^20. The samples are sorted. */
void bench_format_perftest(const bench_result_t *result, double mean);

#endif
