#include "format.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIB 1048576.0

typedef enum kind { KIND_NONE, KIND_TIME, KIND_BANDWIDTH, KIND_RATE, KIND_OTHER } kind_t;

/* What a unit measures; *scale makes it us, bytes a second, or items a second. */
static kind_t kind_of(const char *unit, double *scale)
{
    static const struct {
        const char *unit;
        kind_t kind;
        double scale;
    } units[] = {
        {"ns", KIND_TIME, 1e-3},       {"us", KIND_TIME, 1},          {"ms", KIND_TIME, 1e3},
        {"MB/s", KIND_BANDWIDTH, 1e6}, {"GB/s", KIND_BANDWIDTH, 1e9}, {"M/s", KIND_RATE, 1e6},
    };
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].unit) != 0) continue;
        *scale = units[i].scale;
        return units[i].kind;
    }
    *scale = 1;
    return KIND_OTHER;
}

/* True, once each time, where what follows is another thing than before. */
static bool begins(const bench_result_t *r, kind_t kind)
{
    static char before[128];
    char now[sizeof before];
    snprintf(now, sizeof now, "%s %s %d", r->bench, r->what, (int)kind);
    if (strcmp(before, now) == 0) return false;
    memcpy(before, now, sizeof before);
    return true;
}

static void heading(const bench_result_t *r)
{
    printf("# rackfish %s: %s", r->bench, r->what);
    for (unsigned i = 0; i < r->n_params; i++)
        printf(", %s %llu", r->params[i].name, (unsigned long long)r->params[i].value);
    if (r->raw && r->raw_p50 > 0) printf("; %s: p50 %.4g %s", r->raw, r->raw_p50, r->unit);
    printf("\n");
}

static void other(const bench_result_t *r, double mean)
{
    heading(r);
    printf("# %s: mean %.4g, p50 %.4g\n", r->unit, mean, bench_samples_at(r->samples, 50));
}

void bench_format_osu(const bench_result_t *r, double mean)
{
    const bench_samples_t *s = r->samples;
    double scale;
    kind_t kind = kind_of(r->unit, &scale);
    unsigned long long size = (unsigned long long)r->size;
    if (kind == KIND_OTHER) {
        other(r, mean);
        return;
    }
    bool first = begins(r, kind);
    if (first || r->n_params > 0) heading(r);
    switch (kind) {
    case KIND_TIME:
        if (first)
            printf("%-10s%18s%18s%18s%12s%18s%18s%18s\n", "# Size", "Avg Latency(us)", "Min Latency(us)",
                   "Max Latency(us)", "Iterations", "P50 Tail Lat(us)", "P90 Tail Lat(us)",
                   "P99 Tail Lat(us)");
        printf("%-10llu%18.2f%18.2f%18.2f%12u%18.2f%18.2f%18.2f\n", size, mean * scale,
               bench_samples_at(s, 0) * scale, bench_samples_at(s, 100) * scale, s->n,
               bench_samples_at(s, 50) * scale, bench_samples_at(s, 90) * scale,
               bench_samples_at(s, 99) * scale);
        break;
    case KIND_BANDWIDTH:
        if (first) printf("%-10s%20s\n", "# Size", "Bandwidth (MB/s)");
        printf("%-10llu%20.2f\n", size, mean * scale / 1e6);
        break;
    default:
        if (first) printf("%-10s%20s%20s\n", "# Size", "MB/s", "Messages/s");
        printf("%-10llu%20.2f%20.2f\n", size, mean * scale * (double)r->size / 1e6, mean * scale);
        break;
    }
}

static double deviation(const bench_samples_t *s, double mean)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n; i++) sum += (s->values[i] - mean) * (s->values[i] - mean);
    return s->n > 0 ? sqrt(sum / s->n) : 0;
}

static void rule(void)
{
    for (unsigned i = 0; i < 87; i++) putchar('-');
    putchar('\n');
}

void bench_format_perftest(const bench_result_t *r, double mean)
{
    const bench_samples_t *s = r->samples;
    double scale;
    kind_t kind = kind_of(r->unit, &scale);
    unsigned long long size = (unsigned long long)r->size;
    if (kind == KIND_OTHER) {
        other(r, mean);
        return;
    }
    bool first = begins(r, kind);
    if (first) rule();
    if (first || r->n_params > 0) heading(r);
    if (kind == KIND_TIME) {
        if (first)
            printf(" #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    "
                   "t_stdev[usec]   99%% percentile[usec]   99.9%% percentile[usec] \n");
        printf(" %-7llu %-14u %-14.2f %-14.2f %-17.2f %-14.2f %-16.2f %-21.2f %-21.2f\n", size, s->n,
               bench_samples_at(s, 0) * scale, bench_samples_at(s, 100) * scale,
               bench_samples_at(s, 50) * scale, mean * scale, deviation(s, mean) * scale,
               bench_samples_at(s, 99) * scale, bench_samples_at(s, 99.9) * scale);
        return;
    }
    double each = kind == KIND_RATE ? (double)r->size : 1; /* bytes a second of one unit */
    double rate = kind == KIND_RATE ? mean * scale : r->size ? mean * scale / (double)r->size : 0;
    if (first) printf(" #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n");
    printf(" %-10llu %-14u %-18.2f %-20.2f %-.6f\n", size, s->n,
           bench_samples_at(s, 100) * scale * each / MIB, mean * scale * each / MIB, rate / 1e6);
}
