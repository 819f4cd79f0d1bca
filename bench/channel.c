/*
 * A channel between two domains' dispatchers on two cores, through librackfish: what `urpc` measures at the level of slots.
 *
 *   one-way   a message of 56 bytes there and back, both sides polling; half of it. Raw limit: the bare slot bounce.
 *   rate      messages one way, in batches. Raw limit: a bare stream of slots.
 *
 * On a machine whose cores share CPUs nobody polls: then "one-way" is two wake-ups, and there is no bare bounce to compare it with.
 */
#include "bracket.h"
#include "domain.h"
#include "pair.h"
#include "raw.h"

#include "base/clock.h"
#include "transport/transport.h"

#include <string.h>

#define LATENCY_SAMPLES 20000
#define WARM_UP         200
#define RATE_CHUNKS     100
#define CHUNK_SLOTS     16384
#define BATCH_DEFAULT   32
#define BATCH_MAX       256
#define RING_SLOTS      1024

typedef struct channel_bench {
    rf_channel_t *channel;
    unsigned cpus[2];
    unsigned batch;
    rf_err_t err;
} channel_bench_t;

static bool failed(channel_bench_t *c, rf_err_t err)
{
    if (err == RF_OK) return false;
    fprintf(stderr, "rf-bench: channel: %s\n", rf_err_text(err));
    c->err = err;
    return true;
}

static bool latency(const bench_options_t *options, void *context, bench_samples_t *samples,
                    bench_samples_t *raw)
{
    channel_bench_t *c = context;
    uint64_t words[7] = {0};
    rf_message_t answer = {.bytes = words, .room = sizeof words};
    double half = bench_ns_per_tick() / 2 / BENCH_ROUNDS_PER_SAMPLE;
    uint64_t deadline_ns = rf_deadline_ms(BENCH_DOMAIN_MS), before = rf_clock_ticks();
    (void)options;
    for (unsigned sample = 0; sample < samples->max + WARM_UP; sample++) {
        for (unsigned round = 0; round < BENCH_ROUNDS_PER_SAMPLE; round++) {
            rf_err_t err = rf_channel_send(c->channel, BENCH_ECHO, words, sizeof words, deadline_ns);
            if (err == RF_OK) err = rf_channel_receive(c->channel, &answer, deadline_ns);
            if (failed(c, err)) return false;
        }
        uint64_t now = rf_clock_ticks();
        if (sample >= WARM_UP) bench_samples_add(samples, (double)(now - before) * half);
        before = now;
    }
    return raw_slot_bounce(c->cpus, RF_RING_SLOTS_MIN, raw->max, raw);
}

static bool rate(const bench_options_t *options, void *context, bench_samples_t *samples,
                 bench_samples_t *raw)
{
    channel_bench_t *c = context;
    rf_channel_slot_t slots[BATCH_MAX];
    (void)options;
    memset(slots, 0, sizeof slots);
    for (unsigned i = 0; i < c->batch; i++) {
        slots[i].type = BENCH_SINK;
        slots[i].size = RF_CHANNEL_SLOT_BYTES;
    }
    uint64_t total = (uint64_t)(samples->max + 1) * CHUNK_SLOTS, sent = 0, mark = CHUNK_SLOTS, begun = 0;
    double ns_per_tick = bench_ns_per_tick();
    uint64_t deadline_ns = rf_deadline_ms(BENCH_DOMAIN_MS);
    if (failed(c, rf_channel_send(c->channel, BENCH_SUNK, &total, sizeof total, deadline_ns))) return false;
    uint64_t before = rf_clock_ticks();
    while (sent < total) {
        unsigned n = total - sent < c->batch ? (unsigned)(total - sent) : c->batch, taken = 0;
        rf_err_t err = rf_channel_send_slots(c->channel, slots, n, &taken);
        if (err == RF_ERR_AGAIN) continue;
        if (failed(c, err)) return false;
        sent += taken;
        if (sent < mark) continue;
        uint64_t now = rf_clock_ticks();
        if (mark > CHUNK_SLOTS)
            bench_samples_add(samples,
                              (double)(sent - begun) * 1000 / ((double)(now - before) * ns_per_tick));
        before = now;
        begun = sent;
        mark += CHUNK_SLOTS;
    }
    rf_message_t done = {0};
    if (failed(c, rf_channel_receive(c->channel, &done, deadline_ns))) return false;
    return raw_slot_stream(c->cpus, RING_SLOTS, raw->max, raw);
}

static rf_err_t measure(const bench_options_t *options, channel_bench_t *c, bracket_piece_fn piece,
                        unsigned n, bench_result_t *result)
{
    bench_samples_t samples, raw;
    bracket_t bracket;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bench_options_t on_cpus = *options;
    memcpy(on_cpus.cores, c->cpus, sizeof on_cpus.cores);
    bool ok = bracket_run(&on_cpus, piece, c, &samples, &raw, &bracket);
    if (ok) {
        result->bench = "channel";
        result->samples = &samples;
        result->raw_p50 = bench_samples_percentile(&raw, 50);
        result->placement = bracket.placement;
        bench_report(options, result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    return ok ? RF_OK : c->err != RF_OK ? c->err : RF_ERR_OS;
}

static rf_err_t run(const bench_options_t *options)
{
    channel_bench_t c = {.batch =
                             options->batch && options->batch <= BATCH_MAX ? options->batch : BATCH_DEFAULT};
    rf_err_t err = bench_domain_enter(options);
    if (err != RF_OK) return err;
    rf_core_t own = rf_self()->core,
              peer = own == rf_self()->node_first_core ? own + 1 : rf_self()->node_first_core;
    if (!bench_domain_cpus(own, peer, c.cpus)) err = RF_ERR_NOT_FOUND;
    if (err == RF_OK) err = bench_domain_peer(peer, &c.channel);
    if (err == RF_OK && bench_wanted(options, "one-way")) {
        bench_result_t result = {
            .what = "one-way", .unit = "ns", .size = sizeof(rf_slot_t), .raw = "bare slot bounce"};
        if (rf_self()->cpu_shared) {
            result.what = "one-way, both asleep";
            result.raw = NULL;
        }
        err = measure(options, &c, latency, options->samples ? options->samples : LATENCY_SAMPLES, &result);
    }
    if (err == RF_OK && bench_wanted(options, "rate")) {
        bench_result_t result = {
            .what = "rate", .unit = "M/s", .size = sizeof(rf_slot_t), .raw = "bare slot stream"};
        bench_result_param(&result, "batch", c.batch);
        unsigned chunks = options->samples && options->samples < RATE_CHUNKS ? options->samples : RATE_CHUNKS;
        err = measure(options, &c, rate, chunks, &result);
    }
    rf_finish();
    return err;
}

const bench_t bench_channel = {"channel", "messages between two domains through librackfish; in a machine",
                               run};
