/*
 * URPC: shared-memory links between two cores, at the level of slots. Both ends live in this process, on a thread
 * each, over a socket pair, exactly as two processes would.
 *
 *   one-way    a slot there and one back, polled; half of it. Raw limit: a bare slot bounce in rings
 *              of the same size.
 *   rate       slots one way, `batch` of them a flush. Raw limit: a bare stream through a ring of the same size.
 *   pipelined  slots there and answers back, `batch` outstanding. Raw limit: the same bare stream.
 *   wake-up    the other side sleeps on its doorbell until a slot comes, and answers. Raw limit: a bare futex wake.
 */
#include "bracket.h"
#include "pair.h"
#include "raw.h"
#include "shm_pair.h"

#include "base/clock.h"
#include "transport/wait.h"

#include <string.h>

#define LATENCY_SAMPLES     20000
#define RATE_CHUNKS         200
#define CHUNK_SLOTS         16384
#define WAKE_SAMPLES        2000
#define WARM_UP             1000
#define WAKE_PAUSE_US       30
#define BATCH_MAX           256
#define OUTSTANDING_DEFAULT 16

static const rf_transport_t *const shm = &rf_transport_shm;

typedef struct urpc {
    shm_pair_t pair;
    rf_link_t *links[2];
    unsigned slots, batch, rounds;
    bench_samples_t *out;
    _Atomic(uint64_t) sum;
} urpc_t;

/* ---- one-way ---- */

static void latency_first(void *context)
{
    urpc_t *u = context;
    double half = bench_ns_per_tick() / 2 / BENCH_ROUNDS_PER_SAMPLE;
    uint64_t sum = 0, before = rf_clock_ticks();
    for (unsigned sample = 0; sample < u->rounds; sample++) {
        for (unsigned round = 0; round < BENCH_ROUNDS_PER_SAMPLE; round++) {
            shm_pair_send(u->links[0], sample);
            sum += shm_pair_poll(u->links[0]);
        }
        uint64_t now = rf_clock_ticks();
        if (sample >= WARM_UP) bench_samples_add(u->out, (double)(now - before) * half);
        before = now;
    }
    u->sum += sum;
}

static void latency_second(void *context)
{
    urpc_t *u = context;
    for (uint64_t i = 0; i < (uint64_t)u->rounds * BENCH_ROUNDS_PER_SAMPLE; i++)
        shm_pair_send(u->links[1], shm_pair_poll(u->links[1]));
}

static bool latency_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                          bench_samples_t *raw)
{
    urpc_t *u = context;
    u->out = samples;
    u->rounds = samples->max + WARM_UP;
    return bench_pair_run(options->cores, latency_first, latency_second, u) && !u->pair.failed &&
           raw_slot_bounce(options->cores, u->slots, raw->max, raw);
}

/* ---- rate ---- */

/* Each slot gets a number of its own; the rest of it is as it was, as in the bare stream. */
static void rate_sender(void *context)
{
    urpc_t *u = context;
    rf_slot_t slots[BATCH_MAX];
    uint64_t total = (uint64_t)u->rounds * CHUNK_SLOTS;
    memset(slots, 0, sizeof slots);
    for (unsigned i = 0; i < BATCH_MAX; i++) slots[i].control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0);
    for (uint64_t i = 0; i < total;) {
        unsigned batch = total - i < u->batch ? (unsigned)(total - i) : u->batch, sent = 0;
        for (unsigned j = 0; j < batch; j++) slots[j].words[0] = i + j;
        while (sent < batch) sent += shm->send(u->links[0], slots + sent, batch - sent);
        shm->flush(u->links[0]);
        i += batch;
    }
}

static void rate_receiver(void *context)
{
    urpc_t *u = context;
    rf_slot_t slots[BATCH_MAX];
    double ns_per_tick = bench_ns_per_tick();
    uint64_t total = (uint64_t)u->rounds * CHUNK_SLOTS, got = 0, mark = CHUNK_SLOTS, sum = 0, begun = 0;
    uint64_t before = rf_clock_ticks();
    while (got < total) {
        unsigned n = shm->poll(u->links[1], slots, BATCH_MAX);
        for (unsigned i = 0; i < n; i++) sum += slots[i].words[0] + slots[i].words[6];
        got += n;
        if (got < mark) continue;
        uint64_t now = rf_clock_ticks();
        if (mark > CHUNK_SLOTS)
            bench_samples_add(u->out, (double)(got - begun) * 1000 / ((double)(now - before) * ns_per_tick));
        before = now;
        begun = got;
        mark += CHUNK_SLOTS;
    }
    u->sum += sum;
}

static bool rate_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    urpc_t *u = context;
    u->out = samples;
    u->rounds = samples->max + 1;
    return bench_pair_run(options->cores, rate_sender, rate_receiver, u) && !u->pair.failed &&
           raw_slot_stream(options->cores, u->slots, raw->max, raw);
}

/* ---- pipelined ---- */

static void pipelined_first(void *context)
{
    urpc_t *u = context;
    rf_slot_t slots[BATCH_MAX];
    double ns_per_tick = bench_ns_per_tick();
    uint64_t total = (uint64_t)u->rounds * CHUNK_SLOTS, asked = 0, answered = 0, mark = CHUNK_SLOTS,
             begun = 0;
    uint64_t before = rf_clock_ticks();
    memset(slots, 0, sizeof slots);
    while (answered < total) {
        uint64_t room = u->batch - (asked - answered), left = total - asked;
        unsigned n = (unsigned)(room < left ? room : left);
        for (unsigned i = 0; i < n; i++) {
            slots[i].words[0] = asked + i;
            slots[i].control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0);
        }
        if (n > 0) {
            asked += shm->send(u->links[0], slots, n);
            shm->flush(u->links[0]);
        }
        answered += shm->poll(u->links[0], slots, BATCH_MAX);
        if (answered < mark) continue;
        uint64_t now = rf_clock_ticks();
        if (mark > CHUNK_SLOTS)
            bench_samples_add(u->out,
                              (double)(answered - begun) * 1000 / ((double)(now - before) * ns_per_tick));
        before = now;
        begun = answered;
        mark += CHUNK_SLOTS;
    }
}

static void pipelined_second(void *context)
{
    urpc_t *u = context;
    rf_slot_t slots[BATCH_MAX];
    uint64_t total = (uint64_t)u->rounds * CHUNK_SLOTS, done = 0;
    while (done < total) {
        unsigned n = shm->poll(u->links[1], slots, BATCH_MAX), sent = 0;
        if (n == 0) continue;
        while (sent < n) sent += shm->send(u->links[1], slots + sent, n - sent);
        shm->flush(u->links[1]);
        done += n;
    }
}

static bool pipelined_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                            bench_samples_t *raw)
{
    urpc_t *u = context;
    u->out = samples;
    u->rounds = samples->max + 1;
    return bench_pair_run(options->cores, pipelined_first, pipelined_second, u) && !u->pair.failed &&
           raw_slot_stream(options->cores, u->slots, raw->max, raw);
}

/* ---- wake-up ---- */

static void wake_first(void *context)
{
    urpc_t *u = context;
    double us_per_tick = bench_ns_per_tick() / 1000;
    uint64_t pause_ticks = WAKE_PAUSE_US * rf_clock_ticks_per_us();
    for (uint64_t i = 0; i < u->rounds; i++) {
        uint64_t start = rf_clock_ticks();
        while (rf_clock_ticks() - start < pause_ticks) rf_cpu_pause();
        uint64_t before = rf_clock_ticks();
        shm_pair_send(u->links[0], i);
        shm_pair_poll(u->links[0]);
        bench_samples_add(u->out, (double)(rf_clock_ticks() - before) * us_per_tick);
    }
}

static void wake_second(void *context)
{
    urpc_t *u = context;
    rf_wait_t wait;
    rf_wait_init(&wait, 0);
    rf_slot_t slot;
    for (uint64_t i = 0; i < u->rounds; i++) {
        while (shm->poll(u->links[1], &slot, 1) == 0)
            rf_wait_links(&wait, &u->pair.bells[1], &u->links[1], 1, rf_clock_ns() + RF_NS_PER_S);
        shm_pair_send(u->links[1], i);
    }
}

static bool wake_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    urpc_t *u = context;
    u->out = samples;
    u->rounds = samples->max;
    if (!bench_pair_run(options->cores, wake_first, wake_second, u) || u->pair.failed ||
        !raw_futex_wake(options->cores, raw->max, raw))
        return false;
    for (uint32_t i = 0; i < raw->n; i++) raw->values[i] /= 1000;
    return true;
}

/* ---- the series ---- */

typedef struct piece {
    const char *what, *unit, *raw;
    bracket_piece_fn run;
    unsigned samples;
} piece_t;

static const piece_t one_way = {"one-way", "ns", "bare slot bounce", latency_piece, LATENCY_SAMPLES};
static const piece_t rate = {"rate", "M/s", "bare slot stream", rate_piece, RATE_CHUNKS};
static const piece_t pipelined = {"pipelined", "M/s", "bare slot stream", pipelined_piece, RATE_CHUNKS};
static const piece_t wake_up = {"wake-up", "us", "bare futex wake", wake_piece, WAKE_SAMPLES};

static bool measure(const bench_options_t *options, const piece_t *piece, unsigned slots, unsigned batch)
{
    static urpc_t u; /* large, and one at a time */
    u = (urpc_t){.slots = slots, .batch = batch};
    if (!shm_pair_open(&u.pair, 1, slots)) return false;
    u.links[0] = u.pair.links[0][0];
    u.links[1] = u.pair.links[1][0];
    bench_samples_t samples, raw;
    unsigned n = options->samples ? options->samples : piece->samples;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bracket_t bracket;
    bool ok = bracket_run(options, piece->run, &u, &samples, &raw, &bracket);
    if (ok) {
        bench_result_t result = {.bench = "urpc",
                                 .what = piece->what,
                                 .unit = piece->unit,
                                 .size = sizeof(rf_slot_t),
                                 .samples = &samples,
                                 .raw = piece->raw,
                                 .raw_p50 = bench_samples_percentile(&raw, 50),
                                 .placement = bracket.placement};
        bench_result_param(&result, "slots", slots);
        bench_result_param(&result, "batch", batch);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    shm_pair_close(&u.pair);
    return ok;
}

static rf_err_t run(const bench_options_t *options)
{
    static const unsigned ring_series[] = {64, 256, 1024, 4096}, batch_series[] = {1, 8, 32};
    unsigned n_rings = options->slots ? 1 : 4, n_batches = options->batch ? 1 : 3;
    const unsigned *rings = options->slots ? &options->slots : ring_series;
    const unsigned *batches = options->batch ? &options->batch : batch_series;
    if (options->batch > BATCH_MAX) {
        fprintf(stderr, "rf-bench urpc: a batch is at most %u slots\n", BATCH_MAX);
        return RF_ERR_INVALID;
    }
    if (options->cores[0] == options->cores[1]) {
        fprintf(stderr, "rf-bench urpc: two spinning sides need two different CPUs\n");
        return RF_ERR_INVALID;
    }
    if (bench_wanted(options, one_way.what) && !measure(options, &one_way, rings[0], 1)) return RF_ERR_OS;
    for (unsigned i = 0; i < n_rings && bench_wanted(options, rate.what); i++) {
        for (unsigned j = 0; j < n_batches; j++) {
            if (!measure(options, &rate, rings[i], batches[j])) return RF_ERR_OS;
        }
    }
    unsigned outstanding = options->batch ? options->batch : OUTSTANDING_DEFAULT;
    if (bench_wanted(options, pipelined.what) && !measure(options, &pipelined, rings[0], outstanding))
        return RF_ERR_OS;
    if (bench_wanted(options, wake_up.what) && !measure(options, &wake_up, rings[0], 1)) return RF_ERR_OS;
    return RF_OK;
}

const bench_t bench_urpc = {"urpc", "shared-memory links: latency, rate by ring and batch, wake-up", run};
