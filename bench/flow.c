/*
 * What a flow of transport/dpdk costs, without any port: a frame of so many slots made and taken in, by seal, and a frame
 * dropped that is forged, replayed or cut. One core, frames and windows in its caches.
 *
 *   transmit   commit of the slots, and the frame written and sealed. Raw limit: copying that many bytes.
 *   receive    the frame checked, opened and copied into the window, and the slots given back. The same limit.
 *   forged     a frame whose tag does not fit; replayed, truncated: refused before the tag is looked at
 *
 * Seal 0: none, 1: sign, 2: encrypt.
 */
#include "pair.h"
#include "result.h"

#include "base/clock.h"
#include "base/os.h"
#include "transport/dpdk/flow.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BATCH           8 /* frames a sample */
#define SAMPLES_DEFAULT 20000
#define WARM_UP         2000 /* samples that are not kept */
#define STEP_NS         1000 /* virtual time between batches */

enum { TRANSMIT, RECEIVE, FORGED, REPLAYED, TRUNCATED, COPY, PIECES };
static const char *const names[PIECES] = {"transmit", "receive", "forged", "replayed", "truncated", "copy"};

typedef struct ends {
    rf_flow_t *sender, *receiver;
    uint8_t frames[BATCH][RF_FLOW_FRAME_MAX], copy[BATCH][RF_FLOW_FRAME_MAX];
    uint64_t now_ns;
    rf_seal_mode_t seal;
    unsigned frame_slots;
    bool failed;
} ends_t;

static bool ends_open(ends_t *e, rf_seal_mode_t seal, unsigned frame_slots)
{
    uint32_t frame = RF_FLOW_OVERHEAD + frame_slots * 64;
    if (frame < RF_FLOW_FRAME_MIN) frame = RF_FLOW_FRAME_MIN;
    rf_flow_params_t p = {.seal = seal,
                          .frame_max = frame,
                          .frame_safe = frame,
                          .send_slots = 4096,
                          .receive_slots = 4096,
                          .credit = 4096,
                          .deadline_ns = RF_NS_PER_S};
    *e = (ends_t){.seal = seal, .frame_slots = frame_slots};
    p.id = 1, p.id_peer = 2, p.dialer = true;
    if (rf_flow_open(&p, 0, &e->sender) != RF_OK) return false;
    p.id = 2, p.id_peer = 1, p.dialer = false;
    return rf_flow_open(&p, 0, &e->receiver) == RF_OK;
}

static void ends_close(ends_t *e)
{
    rf_flow_close(e->sender);
    rf_flow_close(e->receiver);
}

static bool commit(rf_flow_t *flow, unsigned n)
{
    while (n > 0) {
        rf_slot_t *slots;
        unsigned room = rf_flow_send_span(flow, &slots);
        if (room == 0) return false;
        if (room > n) room = n;
        rf_flow_send_commit(flow, room);
        n -= room;
    }
    return true;
}

static void take_all(rf_flow_t *flow)
{
    const rf_slot_t *slots;
    for (unsigned n; (n = rf_flow_take_span(flow, &slots)) > 0;) rf_flow_take_commit(flow, n);
}

/* What one end has to say beside the measurement: acknowledgements. */
static void settle(rf_flow_t *from, rf_flow_t *to, uint64_t now_ns)
{
    uint8_t frame[RF_FLOW_FRAME_MAX];
    for (size_t size; (size = rf_flow_transmit(from, frame, sizeof frame, now_ns)) > 0;)
        rf_flow_receive(to, frame, size, now_ns);
}

/* Takes a batch through; ticks of each piece. */
static void batch(ends_t *e, uint64_t ticks[PIECES])
{
    size_t size = RF_FLOW_OVERHEAD + 64 * (size_t)e->frame_slots;
    uint64_t t[PIECES + 1];
    e->now_ns += STEP_NS;
    t[0] = rf_clock_ticks();
    for (unsigned i = 0; i < BATCH; i++)
        if (!commit(e->sender, e->frame_slots) ||
            rf_flow_transmit(e->sender, e->frames[i], RF_FLOW_FRAME_MAX, e->now_ns) != size)
            e->failed = true;
    t[1] = rf_clock_ticks();
    for (unsigned i = 0; i < BATCH; i++) memcpy(e->copy[i], e->frames[i], size);
    t[2] = rf_clock_ticks();
    ticks[TRANSMIT] = t[1] - t[0];
    ticks[COPY] = t[2] - t[1];

    for (unsigned i = 0; i < BATCH; i++) e->copy[i][size - 1] ^= 1;
    t[0] = rf_clock_ticks();
    for (unsigned i = 0; i < BATCH; i++) rf_flow_receive(e->receiver, e->copy[i], size - 1, e->now_ns);
    t[1] = rf_clock_ticks();
    ticks[TRUNCATED] = t[1] - t[0];
    t[0] = rf_clock_ticks();
    for (unsigned i = 0; i < BATCH && e->seal != RF_SEAL_NONE; i++)
        rf_flow_receive(e->receiver, e->copy[i], size, e->now_ns);
    t[1] = rf_clock_ticks();
    ticks[FORGED] = t[1] - t[0];
    t[0] = rf_clock_ticks();
    for (unsigned i = 0; i < BATCH; i++) {
        rf_flow_receive(e->receiver, e->frames[i], size, e->now_ns);
        take_all(e->receiver);
    }
    t[1] = rf_clock_ticks();
    for (unsigned i = 0; i < BATCH; i++) rf_flow_receive(e->receiver, e->copy[i], size, e->now_ns);
    t[2] = rf_clock_ticks();
    ticks[RECEIVE] = t[1] - t[0];
    ticks[REPLAYED] = t[2] - t[1];
    settle(e->receiver, e->sender, e->now_ns + STEP_NS / 2);
    settle(e->sender, e->receiver, e->now_ns + STEP_NS / 2);
}

/* Without a seal a forged frame is a real one. */
static bool measured(unsigned what, rf_seal_mode_t seal)
{
    return what != COPY && (seal != RF_SEAL_NONE || what != FORGED);
}

typedef struct context {
    const bench_options_t *options;
    bool ok;
} context_t;

static bool one(const bench_options_t *options, ends_t *e, rf_seal_mode_t seal, unsigned frame_slots)
{
    bench_samples_t samples[PIECES];
    unsigned n = options->samples ? options->samples : SAMPLES_DEFAULT;
    if (!ends_open(e, seal, frame_slots)) return false;
    for (unsigned i = 0; i < PIECES; i++) bench_samples_init(&samples[i], n);
    double ns = bench_ns_per_tick() / BATCH;
    for (unsigned i = 0; i < n + WARM_UP; i++) {
        uint64_t ticks[PIECES];
        batch(e, ticks);
        for (unsigned k = 0; k < PIECES && i >= WARM_UP; k++)
            bench_samples_add(&samples[k], (double)ticks[k] * ns);
    }
    double copy = bench_samples_percentile(&samples[COPY], 50);
    for (unsigned k = 0; k < PIECES && !e->failed; k++) {
        if (!measured(k, seal) || !bench_wanted(options, names[k])) continue;
        bench_result_t r = {.bench = "flow",
                            .what = names[k],
                            .unit = "ns",
                            .samples = &samples[k],
                            .raw = k <= RECEIVE ? "copy" : NULL,
                            .raw_p50 = copy,
                            .placement = BENCH_ONE_CORE};
        bench_result_param(&r, "slots", frame_slots);
        bench_result_param(&r, "seal", seal);
        bench_report(options, &r);
    }
    for (unsigned i = 0; i < PIECES; i++) bench_samples_free(&samples[i]);
    ends_close(e);
    return !e->failed;
}

static void *pinned(void *argument)
{
    context_t *context = argument;
    const bench_options_t *options = context->options;
    static const unsigned sizes[] = {1, 22, 139};
    ends_t *e = aligned_alloc(64, (sizeof *e + 63) / 64 * 64);
    context->ok = e && rf_cpu_pin(options->cores[0]) == RF_OK;
    for (unsigned i = 0; i < 3 && context->ok; i++) {
        for (unsigned seal = RF_SEAL_NONE; seal <= RF_SEAL_ENCRYPT && context->ok; seal++)
            context->ok = one(options, e, (rf_seal_mode_t)seal, options->batch ? options->batch : sizes[i]);
        if (options->batch) break;
    }
    free(e);
    return NULL;
}

static rf_err_t run(const bench_options_t *options)
{
    if (options->batch > 143) {
        fprintf(stderr, "rf-bench flow: --batch is slots of a frame, at most 143\n");
        return RF_ERR_INVALID;
    }
    context_t context = {.options = options};
    pthread_t thread;
    if (pthread_create(&thread, NULL, pinned, &context) != 0) return RF_ERR_OS;
    pthread_join(thread, NULL);
    if (!context.ok) fprintf(stderr, "rf-bench flow: a flow did not take a frame\n");
    return context.ok ? RF_OK : RF_ERR_OS;
}

const bench_t bench_flow = {
    "flow", "a flow of transport/dpdk without a port: frames made, taken in and dropped, by seal", run};
