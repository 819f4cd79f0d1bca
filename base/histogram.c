#include "base/histogram.h"

#include <string.h>

#define SUB       (1u << RF_HISTOGRAM_SUB_BITS)
#define VALUE_MAX ((1ull << 40) - 1)

static unsigned bucket_of(uint64_t value)
{
    if (value > VALUE_MAX) value = VALUE_MAX;
    if (value < SUB) return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - RF_HISTOGRAM_SUB_BITS;
    return ((shift + 1) << RF_HISTOGRAM_SUB_BITS) + (unsigned)((value >> shift) - SUB);
}

/* The largest value that falls into `bucket`. */
static uint64_t bucket_top(unsigned bucket)
{
    unsigned group = bucket >> RF_HISTOGRAM_SUB_BITS;
    if (group == 0) return bucket;
    unsigned shift = group - 1;
    return ((((uint64_t)(bucket & (SUB - 1)) + SUB) + 1) << shift) - 1;
}

void rf_histogram_reset(rf_histogram_t *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void rf_histogram_add(rf_histogram_t *h, uint64_t value)
{
    if (h->count == 0) h->min = UINT64_MAX;
    h->count++;
    h->sum += (double)value;
    if (value < h->min) h->min = value;
    if (value > h->max) h->max = value;
    h->buckets[bucket_of(value)]++;
}

void rf_histogram_merge(rf_histogram_t *into, const rf_histogram_t *from)
{
    if (from->count == 0) return;
    if (into->count == 0) into->min = UINT64_MAX;
    into->count += from->count;
    into->sum += from->sum;
    if (from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    for (unsigned i = 0; i < RF_HISTOGRAM_BUCKETS; i++) into->buckets[i] += from->buckets[i];
}

uint64_t rf_histogram_percentile(const rf_histogram_t *h, double percent)
{
    if (h->count == 0) return 0;
    uint64_t rank = (uint64_t)(percent / 100.0 * (double)h->count + 0.5);
    if (rank < 1) rank = 1;
    if (rank > h->count) rank = h->count;
    uint64_t seen = 0;
    for (unsigned i = 0; i < RF_HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank) {
            uint64_t top = bucket_top(i);
            if (top > h->max) top = h->max;
            return top < h->min ? h->min : top;
        }
    }
    return h->max;
}

double rf_histogram_mean(const rf_histogram_t *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}

void rf_histogram_write_hdr(const rf_histogram_t *h, double scale, FILE *out)
{
    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    uint64_t seen = 0;
    for (unsigned i = 0; i < RF_HISTOGRAM_BUCKETS && seen < h->count; i++) {
        if (h->buckets[i] == 0) continue;
        seen += h->buckets[i];
        double q = (double)seen / (double)h->count;
        uint64_t top = bucket_top(i) > h->max ? h->max : bucket_top(i);
        if (seen < h->count)
            fprintf(out, "%12.3f %14.12f %10llu %14.2f\n", (double)top / scale, q, (unsigned long long)seen,
                    1 / (1 - q));
        else
            fprintf(out, "%12.3f %14.12f %10llu\n", (double)top / scale, q, (unsigned long long)seen);
    }
    fprintf(out, "#[Mean = %.3f, Max = %.3f, Total count = %llu]\n", rf_histogram_mean(h) / scale,
            (double)h->max / scale, (unsigned long long)h->count);
}
