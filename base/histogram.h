/*
 * A bounded log-linear histogram (after HdrHistogram): values 0 to 2^40-1, relative error at most 1/64.
 * Fixed size, no allocation; one writer. Values are in whatever unit the caller chose.
 */
#ifndef RF_BASE_HISTOGRAM_H
#define RF_BASE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define RF_HISTOGRAM_SUB_BITS 6
#define RF_HISTOGRAM_BUCKETS  ((40 - RF_HISTOGRAM_SUB_BITS + 1) << RF_HISTOGRAM_SUB_BITS)

typedef struct rf_histogram {
    uint64_t count, min, max;
    double sum;
    uint64_t buckets[RF_HISTOGRAM_BUCKETS];
} rf_histogram_t;

void rf_histogram_reset(rf_histogram_t *h);
void rf_histogram_add(rf_histogram_t *h, uint64_t value);
void rf_histogram_merge(rf_histogram_t *into, const rf_histogram_t *from);

/* The value below or at which `percent` (0 to 100) of the samples lie; 0 when empty. */
uint64_t rf_histogram_percentile(const rf_histogram_t *h, double percent);
double rf_histogram_mean(const rf_histogram_t *h);

/* HdrHistogram's percentile text (value, percentile, total count, 1/(1-percentile)), values divided by `scale`. */
void rf_histogram_write_hdr(const rf_histogram_t *h, double scale, FILE *out);

#endif
