#include "format.h"

#include "base/histogram.h"

#include <stdlib.h>
#include <string.h>

void bench_samples_init(bench_samples_t *samples, uint32_t max)
{
    samples->values = malloc(max * sizeof(double));
    if (!samples->values) {
        fprintf(stderr, "rf-bench: no memory for %u samples\n", max);
        abort();
    }
    memset(samples->values, 0, max * sizeof(double));
    samples->max = max;
    samples->n = 0;
}

void bench_samples_free(bench_samples_t *samples)
{
    free(samples->values);
    *samples = (bench_samples_t){0};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_samples_at(const bench_samples_t *sorted, double percent)
{
    if (sorted->n == 0) return 0;
    double place = percent / 100 * (sorted->n - 1);
    return sorted->values[(uint32_t)(place + 0.5)];
}

double bench_samples_percentile(bench_samples_t *samples, double percent)
{
    qsort(samples->values, samples->n, sizeof(double), by_value);
    return bench_samples_at(samples, percent);
}

void bench_result_param(bench_result_t *result, const char *name, uint64_t value)
{
    if (result->n_params < BENCH_PARAMS_MAX) {
        result->params[result->n_params].name = name;
        result->params[result->n_params++].value = value;
    }
}

static const char *placement_text(bench_placement_t placement)
{
    return placement == BENCH_ONE_CORE ? "one core" : placement == BENCH_NEAR ? "near" : "far, inconclusive";
}

static const char *placement_word(bench_placement_t placement)
{
    return placement == BENCH_ONE_CORE ? "one-core" : placement == BENCH_NEAR ? "near" : "far";
}

static double ratio_of(const bench_result_t *r)
{
    return r->ratio > 0 ? r->ratio : bench_samples_at(r->samples, 50) / r->raw_p50;
}

static void print_json(const bench_options_t *options, const bench_result_t *r, double mean)
{
    const bench_samples_t *s = r->samples;
    printf("{\"bench\":\"%s\",\"what\":\"%s\",\"cores\":[%u,%u]", r->bench, r->what, options->cores[0],
           options->cores[1]);
    for (unsigned i = 0; i < r->n_params; i++)
        printf(",\"%s\":%llu", r->params[i].name, (unsigned long long)r->params[i].value);
    printf(",\"unit\":\"%s\",\"n\":%u,\"min\":%.4g,\"p50\":%.4g,\"p90\":%.4g,\"p99\":%.4g,\"p99_9\":%.4g,"
           "\"max\":%.4g,\"mean\":%.4g",
           r->unit, s->n, bench_samples_at(s, 0), bench_samples_at(s, 50), bench_samples_at(s, 90),
           bench_samples_at(s, 99), bench_samples_at(s, 99.9), bench_samples_at(s, 100), mean);
    if (r->raw && r->raw_p50 > 0)
        printf(",\"raw\":\"%s\",\"raw_p50\":%.4g,\"ratio\":%.3f", r->raw, r->raw_p50, ratio_of(r));
    printf(",\"placement\":\"%s\"}\n", placement_word(r->placement));
}

static void print_row(const bench_result_t *r, double mean)
{
    const bench_samples_t *s = r->samples;
    static const char *header_of; /* of which bench the header is on the screen */
    if (!header_of || strcmp(header_of, r->bench) != 0) {
        printf("%s%-34s %-5s %9s %9s %9s %9s %9s %9s %9s  %s\n", header_of ? "\n" : "", r->bench, "unit",
               "min", "p50", "p90", "p99", "p99.9", "max", "mean", "p50 / raw limit");
        header_of = r->bench;
    }
    char label[128];
    int used = snprintf(label, sizeof label, "%s", r->what);
    for (unsigned i = 0; i < r->n_params && used > 0 && (size_t)used < sizeof label; i++)
        used += snprintf(label + used, sizeof label - (size_t)used, "%s %s %llu", i ? "," : "",
                         r->params[i].name, (unsigned long long)r->params[i].value);
    printf("%-34s %-5s %9.4g %9.4g %9.4g %9.4g %9.4g %9.4g %9.4g", label, r->unit, bench_samples_at(s, 0),
           bench_samples_at(s, 50), bench_samples_at(s, 90), bench_samples_at(s, 99),
           bench_samples_at(s, 99.9), bench_samples_at(s, 100), mean);
    if (r->raw && r->raw_p50 > 0) printf("  %.2f of %.4g (%s)", ratio_of(r), r->raw_p50, r->raw);
    printf("  [%s]\n", placement_text(r->placement));
}

/* Histogram cells are whole numbers: thousandths of the unit. */
static void append_hdr(FILE *out, const bench_result_t *r)
{
    rf_histogram_t *h = malloc(sizeof *h);
    if (!h) return;
    rf_histogram_reset(h);
    for (uint32_t i = 0; i < r->samples->n; i++)
        rf_histogram_add(h, (uint64_t)(r->samples->values[i] * 1000));
    fprintf(out, "#[%s %s", r->bench, r->what);
    for (unsigned i = 0; i < r->n_params; i++)
        fprintf(out, " %s=%llu", r->params[i].name, (unsigned long long)r->params[i].value);
    fprintf(out, ", %s, %s]\n", r->unit, placement_word(r->placement));
    rf_histogram_write_hdr(h, 1000, out);
    fflush(out);
    free(h);
}

void bench_report(const bench_options_t *options, const bench_result_t *result)
{
    bench_samples_percentile(result->samples, 0); /* sorts */
    double sum = 0;
    for (uint32_t i = 0; i < result->samples->n; i++) sum += result->samples->values[i];
    double mean = result->samples->n ? sum / result->samples->n : 0;
    switch (options->format) {
    case BENCH_TABLE:
        print_row(result, mean);
        break;
    case BENCH_JSON:
        print_json(options, result, mean);
        break;
    case BENCH_OSU:
        bench_format_osu(result, mean);
        break;
    case BENCH_PERFTEST:
        bench_format_perftest(result, mean);
        break;
    }
    fflush(stdout);
    bool is_time = strcmp(result->unit, "ns") == 0 || strcmp(result->unit, "us") == 0;
    if (options->hdr && is_time) append_hdr(options->hdr, result);
}
