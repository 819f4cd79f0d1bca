/*
 * What waiting costs.
 *
 *   look        once over so many idle links: is any ready? Raw limit: reading as many cache lines.
 *   arm         arming so many links, the fence, the last look, and disarming: what blocking adds to the system call
 *   late        an answer comes after `after_us`: how late the waiter notices, having polled for at most `budget_us`
 *               before it blocked. Raw limit: a bare futex wake.
 */
#include "bracket.h"
#include "pair.h"
#include "raw.h"
#include "shm_pair.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/os.h"
#include "transport/wait.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_SAMPLES     20000
#define LATE_SAMPLES     1000
#define LOOKS_PER_SAMPLE 64
#define RING_SLOTS       64
#define WAIT_NS_MAX      RF_NS_PER_S

typedef struct waiting {
    shm_pair_t pair;
    unsigned n_links, after_us, budget_us, samples;
    bench_samples_t *out, *raw;
    bool arms, ok;
} waiting_t;

/* ---- one core: looking and arming ---- */

typedef struct line {
    _Atomic(uint64_t) word;
} rf_cache_aligned line_t;

/* As many lines as the links have rings and heads to look at. */
static bool look_raw(const waiting_t *w, double ns_per_look)
{
    unsigned n = 2 * w->n_links;
    line_t *lines = aligned_alloc(RF_CACHE_LINE, n * sizeof *lines);
    if (!lines) return false;
    memset(lines, 0, n * sizeof *lines);
    uint64_t sum = 0;
    for (unsigned i = 0; i < w->samples; i++) {
        uint64_t before = rf_clock_ticks();
        for (unsigned k = 0; k < LOOKS_PER_SAMPLE; k++) {
            for (unsigned j = 0; j < n; j++)
                sum += atomic_load_explicit(&lines[j].word, memory_order_acquire);
        }
        bench_samples_add(w->raw, (double)(rf_clock_ticks() - before) * ns_per_look);
    }
    free(lines);
    return sum == 0;
}

static void *look_main(void *context)
{
    waiting_t *w = context;
    double ns_per_look = bench_ns_per_tick() / LOOKS_PER_SAMPLE;
    unsigned found = 0;
    for (unsigned i = 0; i < w->samples; i++) {
        uint64_t before = rf_clock_ticks();
        for (unsigned k = 0; k < LOOKS_PER_SAMPLE; k++) {
            if (w->arms) {
                found += !rf_wait_arm_all(w->pair.links[0], w->n_links);
                rf_wait_disarm_all(w->pair.links[0], w->n_links);
                continue;
            }
            for (unsigned j = 0; j < w->n_links; j++) found += rf_transport_shm.ready(w->pair.links[0][j]);
        }
        bench_samples_add(w->out, (double)(rf_clock_ticks() - before) * ns_per_look);
    }
    w->ok = found == 0 && look_raw(w, ns_per_look);
    return NULL;
}

typedef struct pinned {
    waiting_t *waiting;
    unsigned core;
} pinned_t;

static void *pinned_main(void *context)
{
    pinned_t *p = context;
    return rf_cpu_pin(p->core) == RF_OK ? look_main(p->waiting) : NULL;
}

static bool look_piece(const bench_options_t *options, waiting_t *w)
{
    pthread_t thread;
    pinned_t pinned = {.waiting = w, .core = options->cores[0]};
    if (pthread_create(&thread, NULL, pinned_main, &pinned) != 0) return false;
    pthread_join(thread, NULL);
    return w->ok && !w->pair.failed;
}

/* ---- two cores: an answer after a while ---- */

static void late_waiter(void *context)
{
    waiting_t *w = context;
    double us_per_tick = bench_ns_per_tick() / 1000;
    rf_link_t *link = w->pair.links[0][0];
    rf_wait_t wait;
    for (unsigned i = 0; i < w->samples; i++) {
        rf_wait_init(&wait, w->budget_us); /* the same budget each time: what is measured is the budget */
        shm_pair_send(link, i);
        rf_slot_t slot;
        while (rf_transport_shm.poll(link, &slot, 1) == 0)
            rf_wait_links(&wait, &w->pair.bells[0], &link, 1, rf_clock_ns() + WAIT_NS_MAX);
        uint64_t now = rf_clock_ticks();
        bench_samples_add(w->out, (double)(now > slot.words[0] ? now - slot.words[0] : 0) * us_per_tick);
    }
}

static void late_answerer(void *context)
{
    waiting_t *w = context;
    rf_link_t *link = w->pair.links[1][0];
    uint64_t after_ticks = w->after_us * rf_clock_ticks_per_us();
    for (unsigned i = 0; i < w->samples; i++) {
        shm_pair_poll(link);
        uint64_t start = rf_clock_ticks();
        while (rf_clock_ticks() - start < after_ticks) rf_cpu_pause();
        shm_pair_send(link, rf_clock_ticks());
    }
}

static bool late_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    waiting_t *w = context;
    w->out = samples;
    if (!bench_pair_run(options->cores, late_waiter, late_answerer, w) || w->pair.failed ||
        !raw_futex_wake(options->cores, raw->max, raw))
        return false;
    for (uint32_t i = 0; i < raw->n; i++) raw->values[i] /= 1000;
    return true;
}

/* ---- the series ---- */

static bool measure_look(const bench_options_t *options, waiting_t *w, unsigned n_links, bool arms)
{
    bench_samples_t samples, raw;
    unsigned n = options->samples ? options->samples : LOOK_SAMPLES;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    *w = (waiting_t){.n_links = n_links, .arms = arms, .samples = n, .out = &samples, .raw = &raw};
    bool ok = shm_pair_open(&w->pair, n_links, RING_SLOTS);
    if (ok) {
        ok = look_piece(options, w);
        shm_pair_close(&w->pair);
    }
    if (ok) {
        bench_result_t result = {.bench = "poll",
                                 .what = arms ? "arm" : "look",
                                 .unit = "ns",
                                 .samples = &samples,
                                 .raw = "reading two lines a link",
                                 .raw_p50 = bench_samples_percentile(&raw, 50),
                                 .placement = BENCH_ONE_CORE};
        bench_result_param(&result, "links", n_links);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    return ok;
}

static bool measure_late(const bench_options_t *options, waiting_t *w, unsigned after_us, unsigned budget_us)
{
    bench_samples_t samples, raw;
    unsigned n = options->samples ? options->samples : LATE_SAMPLES;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    *w = (waiting_t){.n_links = 1, .after_us = after_us, .budget_us = budget_us, .samples = n};
    bracket_t bracket;
    bool ok = shm_pair_open(&w->pair, 1, RING_SLOTS);
    if (ok) {
        ok = bracket_run(options, late_piece, w, &samples, &raw, &bracket);
        shm_pair_close(&w->pair);
    }
    if (ok) {
        bench_result_t result = {.bench = "poll",
                                 .what = "late",
                                 .unit = "us",
                                 .samples = &samples,
                                 .raw = "bare futex wake",
                                 .raw_p50 = bench_samples_percentile(&raw, 50),
                                 .placement = bracket.placement};
        bench_result_param(&result, "after_us", after_us);
        bench_result_param(&result, "budget_us", budget_us);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    return ok;
}

static rf_err_t run(const bench_options_t *options)
{
    static const unsigned links_series[] = {1, 8, 64}, after_series[] = {5, 30, 200};
    static waiting_t waiting; /* large, and one at a time */
    if (options->cores[0] == options->cores[1]) {
        fprintf(stderr, "rf-bench poll: the waiter and its peer need two different CPUs\n");
        return RF_ERR_INVALID;
    }
    for (unsigned i = 0; i < 3; i++) {
        if (bench_wanted(options, "look") && !measure_look(options, &waiting, links_series[i], false))
            return RF_ERR_OS;
        if (bench_wanted(options, "arm") && !measure_look(options, &waiting, links_series[i], true))
            return RF_ERR_OS;
    }
    for (unsigned i = 0; i < 3 && bench_wanted(options, "late"); i++) {
        if (!measure_late(options, &waiting, after_series[i], 0) ||
            !measure_late(options, &waiting, after_series[i], RF_POLL_BUDGET_US_MAX))
            return RF_ERR_OS;
    }
    return RF_OK;
}

const bench_t bench_poll = {"poll", "cost of waiting: looking at links, arming them, poll budgets", run};
