/*
 * Two voters on two cores over shared memory: both must acknowledge every command. The leader's side proposes; each
 * command passes the session's check and is answered with what executing it gave.
 *
 *   one    one outstanding, a batch a message of one: from the proposal to its answer. Raw limit: a slot there and one
 *          back through the same links, which no commit avoids. `budget_ns` is 4 of its one-ways and 150 ns.
 *   rate   64 outstanding, a batch proposed as soon as so many are answered. Raw limit: the stream of bare slots that
 *          carries as many bytes.
 */
#include "agree_node.h"
#include "bracket.h"
#include "ordered.h"
#include "pair.h"
#include "raw.h"
#include "shm_pair.h"

#include <stdlib.h>
#include <string.h>

#define LATENCY_SAMPLES 10000
#define RATE_CHUNKS     200
#define CHUNK_COMMANDS  16384
#define WARM_UP         1000
#define COMMAND_BYTES   16
#define RING_SLOTS      1024
#define FORM_NS         RF_NS_PER_S
#define BUDGET_NS       150 /* besides four one-ways */

typedef struct two {
    shm_pair_t pair;
    agree_node_t *nodes[2];
    unsigned batch;
    bench_samples_t *out;
    bench_samples_t *one_way;
    rf_cache_aligned _Atomic(bool) done;
    _Atomic(bool) failed;
    double slots_per_command;
} two_t;

static bool bad(const two_t *t)
{
    return t->pair.failed || t->failed || t->nodes[0]->failed || t->nodes[1]->failed;
}

/* ---- the two voters ---- */

static bool two_open(two_t *t, const agree_config_t *config)
{
    for (unsigned i = 0; i < 2; i++) {
        agree_node_t *node = calloc(1, sizeof *node);
        t->nodes[i] = node;
        if (!node || !agree_replica_init(&node->replica, (rf_core_t)i, config)) return false;
        node->n = 2;
        node->transport = &rf_transport_shm;
        node->next_tick_ns = RF_NEVER;
        node->links[1 - i] = t->pair.links[i][0];
    }
    return true;
}

static void two_close(two_t *t)
{
    for (unsigned i = 0; i < 2; i++) {
        if (t->nodes[i]) agree_replica_free(&t->nodes[i]->replica);
        free(t->nodes[i]);
    }
}

/* Both by turns, before they have threads, until the leader has had so many answers. */
static bool two_settle(two_t *t, uint64_t answers)
{
    uint64_t until_ns = rf_clock_ns() + FORM_NS;
    for (unsigned turn = 0; rf_clock_ns() < until_ns && !bad(t); turn++) {
        agree_node_poll(t->nodes[turn % 2]);
        agree_node_flush(t->nodes[turn % 2]);
        if (t->nodes[0]->answered >= answers && turn > 16) return true;
    }
    return false;
}

static bool two_form(two_t *t, const agree_config_t *config)
{
    agree_node_t *leader = t->nodes[0];
    agreement_event_t event = agree_replica_form(&leader->replica, config);
    leader->now_ns = agree_clock_ns();
    agree_node_step(leader, &event);
    agree_node_flush(leader);
    if (!two_settle(t, 0)) return false;
    event = (agreement_event_t){.kind = AGREEMENT_SESSION_OPEN};
    event.session.sequence = ++leader->replica.own_sequence;
    agree_node_step(leader, &event);
    agree_node_flush(leader);
    bool ok = two_settle(t, 1);
    leader->replica.session = leader->last_value;
    if (!ok) fprintf(stderr, "rf-bench ordered: two voters over shared memory do not form a machine\n");
    return ok;
}

/* ---- the sides ---- */

static void propose(two_t *t, unsigned n)
{
    agree_node_t *leader = t->nodes[0];
    uint64_t words[COMMAND_BYTES / 8] = {1};
    for (unsigned i = 0; i < n; i++) {
        words[1] = leader->replica.sequence;
        agree_node_propose(leader, words, sizeof words, i + 1 < n);
    }
    agree_node_flush(leader);
}

static void follower(void *context)
{
    two_t *t = context;
    while (!t->failed) {
        if (agree_node_poll(t->nodes[1]) > 0)
            agree_node_flush(t->nodes[1]);
        else if (t->done)
            return;
    }
}

static void latency_leader(void *context)
{
    two_t *t = context;
    agree_node_t *leader = t->nodes[0];
    double ns = bench_ns_per_tick() / BENCH_ROUNDS_PER_SAMPLE;
    uint64_t before = rf_clock_ticks();
    for (unsigned sample = 0; sample < t->out->max + WARM_UP && !bad(t); sample++) {
        for (unsigned round = 0; round < BENCH_ROUNDS_PER_SAMPLE; round++) {
            uint64_t answered = leader->answered + leader->refused_err;
            propose(t, 1);
            while (leader->answered + leader->refused_err == answered) agree_node_poll(leader);
        }
        uint64_t now = rf_clock_ticks();
        if (sample >= WARM_UP) bench_samples_add(t->out, (double)(now - before) * ns);
        before = now;
    }
    t->done = true;
}

static void rate_leader(void *context)
{
    two_t *t = context;
    agree_node_t *leader = t->nodes[0];
    double ns_per_tick = bench_ns_per_tick();
    uint64_t start = leader->answered, asked = start, mark = start + CHUNK_COMMANDS, begun = start,
             total = start + (uint64_t)(t->out->max + 1) * CHUNK_COMMANDS, slots = leader->slots;
    uint64_t before = rf_clock_ticks();
    while (leader->answered < total && !bad(t) && leader->refused_err == 0) {
        while (asked < total && asked - leader->answered + t->batch <= AGREEMENT_WINDOW) {
            propose(t, t->batch);
            asked += t->batch;
        }
        agree_node_poll(leader);
        agree_node_flush(leader);
        if (leader->answered < mark) continue;
        uint64_t now = rf_clock_ticks();
        if (begun > start)
            bench_samples_add(t->out, (double)(leader->answered - begun) * 1000 /
                                          ((double)(now - before) * ns_per_tick));
        before = now;
        begun = leader->answered;
        mark = begun + CHUNK_COMMANDS;
    }
    t->slots_per_command = (double)(leader->slots - slots) / (double)(total - start);
    t->done = true;
}

/* ---- raw limits ---- */

/* A slot there and one back through links, as in the bench urpc. */
static void one_way_first(void *context)
{
    two_t *t = context;
    double ns = bench_ns_per_tick() / BENCH_ROUNDS_PER_SAMPLE;
    uint64_t sum = 0, before = rf_clock_ticks();
    for (unsigned sample = 0; sample < t->one_way->max + WARM_UP; sample++) {
        for (unsigned round = 0; round < BENCH_ROUNDS_PER_SAMPLE; round++) {
            shm_pair_send(t->pair.links[0][1], sample);
            sum += shm_pair_poll(t->pair.links[0][1]);
        }
        uint64_t now = rf_clock_ticks();
        if (sample >= WARM_UP) bench_samples_add(t->one_way, (double)(now - before) * ns);
        before = now;
    }
    t->failed = sum == 0;
}

static void one_way_second(void *context)
{
    two_t *t = context;
    for (uint64_t i = 0; i < (uint64_t)(t->one_way->max + WARM_UP) * BENCH_ROUNDS_PER_SAMPLE; i++)
        shm_pair_send(t->pair.links[1][1], shm_pair_poll(t->pair.links[1][1]));
}

static bool answered_all(const two_t *t)
{
    if (bad(t) || t->nodes[0]->refused_err > 0) {
        fprintf(stderr, "rf-bench ordered: a link failed, or a proposal was answered with \"%s\"\n",
                rf_err_text(t->nodes[0]->last_err));
        return false;
    }
    const agree_replica_t *r[2] = {&t->nodes[0]->replica, &t->nodes[1]->replica};
    return r[0]->sum == r[0]->applied && r[1]->applied <= r[0]->applied &&
           r[1]->applied + AGREEMENT_WINDOW >= r[0]->applied;
}

static bool latency_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                          bench_samples_t *raw)
{
    two_t *t = context;
    t->out = samples;
    t->one_way = raw;
    t->done = false;
    return bench_pair_run(options->cores, one_way_first, one_way_second, t) &&
           bench_pair_run(options->cores, latency_leader, follower, t) && answered_all(t);
}

static bool rate_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    two_t *t = context;
    t->out = samples;
    t->done = false;
    if (!bench_pair_run(options->cores, rate_leader, follower, t) || !answered_all(t) ||
        !raw_slot_stream(options->cores, RING_SLOTS, raw->max, raw))
        return false;
    for (uint32_t i = 0; i < raw->n; i++) raw->values[i] /= t->slots_per_command;
    return true;
}

/* ---- the series ---- */

typedef struct piece {
    const char *what, *unit, *raw;
    bracket_piece_fn run;
    unsigned samples;
} piece_t;

static bool measure(const bench_options_t *options, const piece_t *piece, unsigned batch)
{
    static two_t t; /* large, and one at a time */
    t = (two_t){.batch = batch};
    agree_config_t config = {.n = 2};
    agree_clock_start();
    if (!shm_pair_open(&t.pair, 2, options->slots ? options->slots : RING_SLOTS)) return false;
    bench_samples_t samples, raw;
    unsigned n = options->samples ? options->samples : piece->samples;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bracket_t bracket;
    bool ok = two_open(&t, &config) && two_form(&t, &config) &&
              bracket_run(options, piece->run, &t, &samples, &raw, &bracket);
    if (ok) {
        double raw_p50 = bench_samples_percentile(&raw, 50);
        bench_result_t result = {.bench = "ordered",
                                 .what = piece->what,
                                 .unit = piece->unit,
                                 .samples = &samples,
                                 .raw = piece->raw,
                                 .raw_p50 = raw_p50,
                                 .placement = bracket.placement};
        bench_result_param(&result, "batch", batch);
        if (batch == 1)
            bench_result_param(&result, "budget_ns", (uint64_t)(2 * raw_p50) + BUDGET_NS);
        else
            bench_result_param(&result, "slots_x100", (uint64_t)(t.slots_per_command * 100));
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    two_close(&t);
    shm_pair_close(&t.pair);
    return ok;
}

bool ordered_urpc(const bench_options_t *options)
{
    static const piece_t one = {"urpc, 2 voters", "ns", "slot there and back, same links", latency_piece,
                                LATENCY_SAMPLES};
    static const piece_t rate = {"urpc rate, 2 voters", "M/s", "bare slots of as many bytes", rate_piece,
                                 RATE_CHUNKS};
    static const unsigned batches[] = {8, 16, 32};
    if (options->cores[0] == options->cores[1]) {
        fprintf(stderr, "rf-bench ordered: two spinning voters need two different CPUs\n");
        return false;
    }
    if (!measure(options, &one, 1)) return false;
    for (unsigned i = 0; i < 3; i++) {
        if (options->batch > 0 && options->batch != batches[i]) continue;
        if (!measure(options, &rate, batches[i])) return false;
    }
    return true;
}
