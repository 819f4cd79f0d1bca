/*
 * Replicas in one thread by direct calls: a commit is the proposal, the appends, the acceptances, execution at every
 * replica that learns of it meanwhile, the session's check and the answer; no clock, no link.
 *
 * Raw limit: copying what was sent, as many bytes in as many pieces, which no engine avoids.
 */
#include "agree_direct.h"
#include "ordered.h"
#include "pair.h"

#include "base/clock.h"
#include "base/os.h"

#include <pthread.h>
#include <string.h>

#define SAMPLES       20000
#define WARM_UP       1000
#define ONE_A_SAMPLE  16 /* commits timed together: the tick counter of some hosts goes in steps of 10 ns */
#define COMMAND_BYTES 16

typedef struct alone {
    const bench_options_t *options;
    agree_config_t config;
    unsigned batch;
    bench_samples_t samples, raw;
    double messages_per_commit, bytes_per_commit;
    bool ok;
} alone_t;

/* Proposes a batch; false when not all of it was answered. */
static bool commit(agree_direct_t *direct, unsigned batch)
{
    agree_replica_t *leader = agree_direct_replica(direct, 0);
    uint64_t words[COMMAND_BYTES / 8] = {1};
    unsigned answered = 0;
    for (unsigned i = 0; i < batch; i++) {
        agreement_event_t event;
        event.now_ns = 1;
        words[1] = leader->sequence;
        agree_replica_command(leader, &event, words, sizeof words, i + 1 < batch);
        answered += agree_direct_step(direct, 0, &event);
    }
    return answered == batch;
}

static void measure_raw(alone_t *a, unsigned samples)
{
    static uint8_t from[AGREEMENT_MESSAGE_MAX], to[AGREEMENT_MESSAGE_MAX];
    double ns_per_tick = bench_ns_per_tick();
    size_t size = (size_t)(a->bytes_per_commit / a->messages_per_commit);
    unsigned pieces = (unsigned)(a->messages_per_commit * 64);
    if (size > sizeof from) size = sizeof from;
    for (unsigned i = 0; i < samples; i++) {
        uint64_t before = rf_clock_ticks();
        for (unsigned k = 0; k < pieces; k++) {
            memcpy(to, from, size);
            __asm__ volatile("" ::"r"(to), "r"(from) : "memory");
        }
        bench_samples_add(&a->raw, (double)(rf_clock_ticks() - before) * ns_per_tick / 64);
    }
}

static bool measure_on(alone_t *a, agree_direct_t *direct)
{
    unsigned a_sample = a->batch == 1 ? ONE_A_SAMPLE : 1;
    double ns_per_commit = bench_ns_per_tick() / a_sample / a->batch;
    uint64_t messages = 0, bytes = 0;
    for (unsigned i = 0; i < a->samples.max + WARM_UP; i++) {
        if (i == WARM_UP) {
            messages = agree_direct_messages(direct);
            bytes = agree_direct_bytes(direct);
        }
        uint64_t before = rf_clock_ticks();
        for (unsigned k = 0; k < a_sample; k++) {
            if (!commit(direct, a->batch)) {
                fprintf(stderr, "rf-bench ordered: a proposal was not answered\n");
                return false;
            }
        }
        if (i >= WARM_UP) bench_samples_add(&a->samples, (double)(rf_clock_ticks() - before) * ns_per_commit);
    }
    double commits = (double)a->samples.max * a_sample * a->batch;
    a->messages_per_commit = (double)(agree_direct_messages(direct) - messages) / commits;
    a->bytes_per_commit = (double)(agree_direct_bytes(direct) - bytes) / commits;
    return true;
}

/* Every replica holds what the leader answered, but for what only the next message will say. */
static bool agree(agree_direct_t *direct, const alone_t *a)
{
    const agree_replica_t *leader = agree_direct_replica(direct, 0);
    for (unsigned i = 1; i < a->config.n; i++) {
        const agree_replica_t *r = agree_direct_replica(direct, i);
        if (r->applied + a->batch < leader->applied || r->sum != r->applied) {
            fprintf(stderr, "rf-bench ordered: replica %u has executed %llu commands of %llu\n", i,
                    (unsigned long long)r->applied, (unsigned long long)leader->applied);
            return false;
        }
    }
    return true;
}

static void *alone_main(void *context)
{
    alone_t *a = context;
    if (rf_cpu_pin(a->options->cores[0]) != RF_OK) return NULL;
    agree_direct_t *direct = agree_direct_open(&a->config);
    if (!direct) return NULL;
    a->ok = measure_on(a, direct) && agree(direct, a);
    agree_direct_close(direct);
    if (a->ok && a->messages_per_commit > 0) measure_raw(a, a->raw.max);
    return NULL;
}

static bool measure(alone_t *a, const char *what)
{
    const bench_options_t *options = a->options;
    unsigned n = options->samples ? options->samples : SAMPLES;
    bench_samples_init(&a->samples, n);
    bench_samples_init(&a->raw, n);
    pthread_t thread;
    if (pthread_create(&thread, NULL, alone_main, a) == 0) pthread_join(thread, NULL);
    if (a->ok) {
        bench_result_t result = {.bench = "ordered",
                                 .what = what,
                                 .unit = "ns",
                                 .samples = &a->samples,
                                 .raw = "copying its messages",
                                 .raw_p50 = bench_samples_percentile(&a->raw, 50),
                                 .placement = BENCH_ONE_CORE};
        bench_result_param(&result, "replicas", a->config.n);
        bench_result_param(&result, "batch", a->batch);
        bench_result_param(&result, "messages_x100", (uint64_t)(a->messages_per_commit * 100 + 0.5));
        bench_result_param(&result, "bytes", (uint64_t)(a->bytes_per_commit + 0.5));
        bench_report(options, &result);
    }
    bench_samples_free(&a->samples);
    bench_samples_free(&a->raw);
    return a->ok;
}

bool ordered_direct(const bench_options_t *options)
{
    static const unsigned replicas[] = {1, 3, 5, 7}, batches[] = {1, ORDERED_BATCH};
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < 2; k++) {
            if (options->batch > 0 && options->batch != batches[k]) continue;
            alone_t a = {.options = options, .config = {.n = replicas[i]}, .batch = batches[k]};
            if (!measure(&a, "direct")) return false;
        }
    }
    return true;
}

bool ordered_plan_rate(const bench_options_t *options, const agree_config_t *config, const char *what)
{
    alone_t a = {.options = options, .config = *config, .batch = ORDERED_BATCH};
    return measure(&a, what);
}
