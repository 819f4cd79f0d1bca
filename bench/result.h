/*
 * Samples, their summary, and how it is shown: a table for people, one JSON object a line for programs
 * (bench, what, parameters, unit, n, min, p50, p90, p99, p99_9, max, mean, raw, raw_p50, ratio, placement),
 * or in the columns of other suites (format.h).
 */
#ifndef RF_BENCH_RESULT_H
#define RF_BENCH_RESULT_H

#include "bench.h"

/* Samples are kept whole and sorted, so that percentiles are exact: ratios are asserted on them. */
typedef struct bench_samples {
    double *values;
    uint32_t n, max;
} bench_samples_t;

/* Room for `max` samples, touched. Aborts the program when there is no memory. */
void bench_samples_init(bench_samples_t *samples, uint32_t max);
void bench_samples_free(bench_samples_t *samples);
/* Adds one; beyond `max` it is dropped. */
static inline void bench_samples_add(bench_samples_t *samples, double value)
{
    if (samples->n < samples->max) samples->values[samples->n++] = value;
}
/* Sorts the samples. The value at or below which `percent` of them lie; 0 when there are none. */
double bench_samples_percentile(bench_samples_t *samples, double percent);
/* The same of samples that are sorted. */
double bench_samples_at(const bench_samples_t *sorted, double percent);

typedef enum bench_placement {
    BENCH_ONE_CORE, /* no two cores are involved */
    BENCH_NEAR,
    BENCH_FAR, /* the host's CPUs sat far apart, or flipped meanwhile: the figure is inconclusive */
} bench_placement_t;

#define BENCH_PARAMS_MAX 6

typedef struct bench_result {
    const char *bench, *what; /* "urpc", "one-way" */
    struct {
        const char *name;
        uint64_t value;
    } params[BENCH_PARAMS_MAX];
    unsigned n_params;
    const char *unit; /* "ns", "us", "M/s", "MB/s", "GB/s" */
    uint64_t size;    /* bytes of what was sent at a time; 0: nothing was */
    bench_samples_t *samples;
    const char *raw; /* what the raw limit is; NULL: none */
    double raw_p50;
    double ratio; /* to the raw limit, where both took turns; 0: of the two p50 */
    bench_placement_t placement;
} bench_result_t;

void bench_result_param(bench_result_t *result, const char *name, uint64_t value);

/* Prints the result, and appends to the HdrHistogram file when its unit is a time. */
void bench_report(const bench_options_t *options, const bench_result_t *result);

#endif
