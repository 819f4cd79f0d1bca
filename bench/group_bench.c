/*
 * Operations of a group, asked by its owner, member 0.
 *
 *   direct      all members in one thread, messages are calls: the machine alone
 *   single      the owner on the first core, all other members on the second, one link to each; one operation at a
 *               time. Raw limit: a bare slot to each member and one back from each, as many times as the protocol
 *               cannot avoid, over the same links.
 *   pipelined   the same with a window of operations. Raw limit: the same trips, one operation at a time.
 *
 * With two CPUs the second core stands for all others, so the members' part is serial; in a tree they reach each other by
 * calls. What plans save on more cores is the simulator's to say.
 *
 * Plans, by name: broadcast, unicast, and trees by package, by host, and weighted by latency. Packages and hosts are emulated: so many
 * members each, by number, said with the figure. Latencies are measured once, at the start of the run: from the owner and back over
 * each link, and by a call between the others.
 */
#include "group_bench.h"
#include "bracket.h"
#include "pair.h"
#include "shm_pair.h"

#include "base/clock.h"
#include "base/os.h"

#include <pthread.h>
#include <string.h>

#define SAMPLES    2000
#define CHUNKS     100
#define CHUNK      512 /* operations of a throughput sample */
#define WARM_UP    100
#define RING_SLOTS 1024
#define FORM_NS    RF_NS_PER_S

#define LATENCY_BATCHES 20
#define LATENCY_ROUNDS  50

typedef enum plan { PLAN_BROADCAST, PLAN_UNICAST, PLAN_PACKAGE, PLAN_HOST, PLAN_WEIGHTED, PLAN_COUNT } plan_t;

typedef struct measured {
    const group_series_t *series;
    plan_t plan;
    unsigned members, outstanding;
    group_thread_t *threads[2]; /* direct: the first only */
    shm_pair_t pair;
    bench_samples_t *out;
    rf_cache_aligned _Atomic(bool) done;
    _Atomic(bool) failed;
} measured_t;

static const char *const plan_names[] = {"broadcast", "unicast", "package", "host", "weighted"};
static const char *const pieces[] = {"direct", "single", "pipelined"};

/* What group_plan_weigh() takes, of as many members as there may be; what a tree is made of. */
typedef struct latencies {
    uint32_t ns[GROUP_NODES_MAX * GROUP_NODES_MAX];
    uint32_t from_owner_ns, send_ns; /* the mean; what a slot keeps the owner from the next */
    shm_pair_t pair;
} latencies_t;

typedef struct tree {
    uint8_t order[GROUP_NODES_MAX], parents[GROUP_NODES_MAX];
    unsigned per_package, per_host, fed_by_owner;
} tree_t;

static latencies_t latencies;

static bool bad(const measured_t *m)
{
    return m->failed || m->pair.failed || m->threads[0]->failed || (m->threads[1] && m->threads[1]->failed) ||
           m->threads[0]->nodes[0]->refused > 0;
}

static bool report_bad(const measured_t *m)
{
    fprintf(stderr, "rf-bench %s: an operation failed, or a message got lost: %s\n", m->series->bench,
            rf_err_text(m->threads[0]->nodes[0]->last_err));
    return false;
}

/* The tree of this plan; false: it has none. */
static bool make_tree(const measured_t *m, tree_t *t)
{
    agreement_member_t members[GROUP_NODES_MAX];
    uint16_t host[GROUP_NODES_MAX];
    uint32_t package[GROUP_NODES_MAX], ns[GROUP_NODES_MAX * GROUP_NODES_MAX];
    unsigned n = m->members;
    *t = (tree_t){.per_package = n < 16 ? 2 : 4, .per_host = n < 4 ? 1 : n / 2};
    for (unsigned i = 0; i < n; i++) {
        members[i] = (agreement_member_t){.core = (rf_core_t)i, .incarnation = 1};
        host[i] = (uint16_t)(i / t->per_host);
        package[i] = i / t->per_package;
        for (unsigned k = 0; k < n; k++) ns[i * n + k] = latencies.ns[i * GROUP_NODES_MAX + k];
    }
    if (m->plan == PLAN_PACKAGE)
        group_plan_by_package(members, n, host, package, t->order, t->parents);
    else if (m->plan == PLAN_HOST)
        group_plan_by_host(members, n, host, t->order, t->parents);
    else if (m->plan == PLAN_WEIGHTED)
        group_plan_weigh(n, ns, latencies.send_ns, t->order, t->parents);
    else
        return false;
    for (unsigned i = 1; i < n; i++) t->fed_by_owner += t->parents[i] == 0;
    return true;
}

static bool formed(measured_t *m, const tree_t *tree)
{
    group_thread_form(m->threads[0], m->members, tree ? tree->order : NULL, tree ? tree->parents : NULL);
    uint64_t until_ns = rf_clock_ns() + FORM_NS;
    while (m->threads[0]->nodes[0]->completed == 0 && !bad(m) && rf_clock_ns() < until_ns) {
        for (unsigned i = 0; i < 2; i++) {
            if (m->threads[i]) group_thread_poll(m->threads[i]);
        }
    }
    return m->threads[0]->nodes[0]->completed == 1 || report_bad(m);
}

/* All members have applied the same, in the same order, but for what is still on its way to them. */
static bool agreed(const measured_t *m)
{
    const group_node_t *owner = m->threads[0]->nodes[0];
    for (unsigned i = 1; i < m->members; i++) {
        const group_node_t *node = m->threads[m->threads[1] ? 1 : 0]->nodes[i];
        if (node->applied == owner->applied && node->sum != owner->sum) return report_bad(m);
        if (node->applied > owner->applied + GROUP_WINDOW || node->applied + GROUP_WINDOW < owner->applied)
            return report_bad(m);
    }
    return true;
}

/* ---- the owner ---- */

static void owner_main(void *context)
{
    measured_t *m = context;
    group_thread_t *t = m->threads[0];
    group_node_t *owner = t->nodes[0];
    bool rate = m->outstanding > 1;
    unsigned per_sample = rate ? CHUNK : BENCH_ROUNDS_PER_SAMPLE;
    double ns_per_tick = bench_ns_per_tick();
    uint64_t start = owner->completed, asked = start, mark = start + per_sample;
    uint64_t warm = start + (rate ? CHUNK : WARM_UP * BENCH_ROUNDS_PER_SAMPLE), before = rf_clock_ticks();
    while (m->out->n < m->out->max && !bad(m)) {
        while (asked - owner->completed < m->outstanding && owner->completed < mark)
            group_thread_operate(t, m->series->phase, ++asked);
        if (owner->completed < mark) group_thread_poll(t);
        if (owner->completed < mark) continue;
        uint64_t now = rf_clock_ticks();
        double ns = (double)(now - before) * ns_per_tick, n = (double)(owner->completed - mark + per_sample);
        if (mark > warm) bench_samples_add(m->out, rate ? n * 1000 / ns : ns / n);
        before = now;
        mark = owner->completed + per_sample;
    }
    m->done = true;
}

static void members_main(void *context)
{
    measured_t *m = context;
    while (!m->failed) {
        if (group_thread_poll(m->threads[1]) == 0 && m->done) return;
    }
}

/* ---- raw: a slot to each and one back from each ---- */

static void raw_owner(void *context)
{
    measured_t *m = context;
    unsigned others = m->members - 1, trips = m->series->trips;
    double ns = bench_ns_per_tick() / BENCH_ROUNDS_PER_SAMPLE;
    uint64_t sum = 0, before = rf_clock_ticks();
    for (unsigned sample = 0; sample < m->out->max + WARM_UP; sample++) {
        for (unsigned round = 0; round < BENCH_ROUNDS_PER_SAMPLE * trips; round++) {
            for (unsigned i = 0; i < others; i++) shm_pair_send(m->pair.links[0][others + i], sample);
            for (unsigned i = 0; i < others; i++) sum += shm_pair_poll(m->pair.links[0][others + i]);
        }
        uint64_t now = rf_clock_ticks();
        if (sample >= WARM_UP) bench_samples_add(m->out, (double)(now - before) * ns);
        before = now;
    }
    m->failed = sum == 0;
}

static void raw_members(void *context)
{
    measured_t *m = context;
    unsigned others = m->members - 1;
    uint64_t rounds = (uint64_t)(m->out->max + WARM_UP) * BENCH_ROUNDS_PER_SAMPLE * m->series->trips;
    for (uint64_t round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < others; i++) {
            rf_link_t *link = m->pair.links[1][others + i];
            shm_pair_send(link, shm_pair_poll(link));
        }
    }
}

/* ---- the pieces ---- */

static bool urpc_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    measured_t *m = context;
    m->done = false;
    m->out = samples;
    if (!bench_pair_run(options->cores, owner_main, members_main, m)) return false;
    if (bad(m)) return report_bad(m);
    m->out = raw;
    if (!agreed(m) || !bench_pair_run(options->cores, raw_owner, raw_members, m)) return false;
    for (uint32_t i = 0; m->outstanding > 1 && i < raw->n; i++) raw->values[i] = 1000 / raw->values[i];
    return true;
}

static void *direct_main(void *context)
{
    measured_t *m = context;
    if (rf_cpu_pin(m->series->options->cores[0]) == RF_OK)
        owner_main(m);
    else
        m->failed = true;
    return NULL;
}

static bool direct_piece(measured_t *m, bench_samples_t *samples)
{
    pthread_t thread;
    m->out = samples;
    if (pthread_create(&thread, NULL, direct_main, m) != 0) return false;
    pthread_join(thread, NULL);
    return bad(m) ? report_bad(m) : agreed(m);
}

static bool open_members(measured_t *m, bool direct)
{
    unsigned n = m->members;
    group_plan_t plan = m->plan == PLAN_BROADCAST ? GROUP_PLAN_BROADCAST
                        : m->plan == PLAN_UNICAST ? GROUP_PLAN_UNICAST
                                                  : GROUP_PLAN_TREE;
    m->threads[0] = group_thread_open(0, direct ? n : 1, n, plan);
    if (!m->threads[0] || direct) return m->threads[0] != NULL;
    m->threads[1] = group_thread_open(1, n - 1, n, plan);
    if (!m->threads[1] || !shm_pair_open(&m->pair, 2 * (n - 1), RING_SLOTS)) return false;
    for (unsigned i = 1; i < n; i++) {
        m->threads[0]->nodes[0]->links[i] = m->pair.links[0][i - 1];
        m->threads[1]->nodes[i]->links[0] = m->pair.links[1][i - 1];
    }
    m->threads[0]->transport = m->threads[1]->transport = &rf_transport_shm;
    return true;
}

static bool measure(const group_series_t *series, const char *piece, plan_t plan, unsigned members,
                    unsigned outstanding)
{
    static measured_t m; /* large, and one at a time */
    const bench_options_t *options = series->options;
    bool direct = strcmp(piece, "direct") == 0, rate = outstanding > 1;
    m = (measured_t){.series = series, .plan = plan, .members = members, .outstanding = outstanding};
    unsigned n = options->samples ? options->samples : rate ? CHUNKS : SAMPLES;
    bench_samples_t samples, raw;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bracket_t bracket = {.placement = BENCH_ONE_CORE};
    tree_t tree;
    bool has_tree = make_tree(&m, &tree);
    bool ok = open_members(&m, direct) && formed(&m, has_tree ? &tree : NULL) &&
              (direct ? direct_piece(&m, &samples)
                      : bracket_run(options, urpc_piece, &m, &samples, &raw, &bracket));
    if (ok) {
        char what[64];
        snprintf(what, sizeof what, "%s, %s", piece, plan_names[plan]);
        bench_result_t result = {.bench = series->bench,
                                 .what = what,
                                 .unit = rate ? "M/s" : "ns",
                                 .samples = &samples,
                                 .raw = direct ? NULL : "bare slots to each and back",
                                 .raw_p50 = bench_samples_percentile(&raw, 50),
                                 .placement = bracket.placement};
        bench_result_param(&result, "members", members);
        bench_result_param(&result, "outstanding", outstanding);
        if (!direct) bench_result_param(&result, "trips", series->trips);
        if (has_tree) bench_result_param(&result, "fed_by_owner", tree.fed_by_owner);
        if (plan == PLAN_PACKAGE) bench_result_param(&result, "per_package", tree.per_package);
        if (plan == PLAN_PACKAGE || plan == PLAN_HOST) bench_result_param(&result, "per_host", tree.per_host);
        if (plan == PLAN_WEIGHTED) bench_result_param(&result, "latency_ns", latencies.from_owner_ns);
        if (plan == PLAN_WEIGHTED) bench_result_param(&result, "send_ns", latencies.send_ns);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    if (m.pair.n_links > 0) shm_pair_close(&m.pair);
    group_thread_close(m.threads[0]);
    group_thread_close(m.threads[1]);
    return ok;
}

/* ---- latencies ---- */

/* Medians of batches: what interrupts some of them says nothing of the links. */
static void latency_owner(void *context)
{
    latencies_t *l = context;
    double ns_per_tick = bench_ns_per_tick();
    uint64_t total = 0, sum = 0;
    bench_samples_t batches;
    bench_samples_init(&batches, LATENCY_BATCHES);
    for (unsigned i = 1; i < GROUP_NODES_MAX; i++) {
        rf_link_t *link = l->pair.links[0][i - 1];
        batches.n = 0;
        for (unsigned batch = 0; batch < LATENCY_BATCHES; batch++) {
            uint64_t before = rf_clock_ticks();
            for (unsigned round = 1; round <= LATENCY_ROUNDS; round++) {
                shm_pair_send(link, round);
                sum += shm_pair_poll(link);
            }
            bench_samples_add(&batches, (double)(rf_clock_ticks() - before));
        }
        double ns = bench_samples_percentile(&batches, 50) * ns_per_tick / (2 * LATENCY_ROUNDS);
        l->ns[i] = l->ns[i * GROUP_NODES_MAX] = 1 + (uint32_t)ns;
        total += l->ns[i];
    }
    batches.n = 0;
    for (unsigned batch = 0; batch < LATENCY_BATCHES; batch++) {
        uint64_t took = 0;
        for (unsigned round = 1; round <= LATENCY_ROUNDS; round++) {
            uint64_t before = rf_clock_ticks();
            for (unsigned i = 1; i < GROUP_NODES_MAX; i++) shm_pair_send(l->pair.links[0][i - 1], round);
            took += rf_clock_ticks() - before;
            for (unsigned i = 1; i < GROUP_NODES_MAX; i++) sum += shm_pair_poll(l->pair.links[0][i - 1]);
        }
        bench_samples_add(&batches, (double)took);
    }
    l->from_owner_ns = (uint32_t)(total / (GROUP_NODES_MAX - 1));
    l->send_ns = (uint32_t)(bench_samples_percentile(&batches, 50) * ns_per_tick /
                            (LATENCY_ROUNDS * (GROUP_NODES_MAX - 1)));
    bench_samples_free(&batches);
    if (sum == 0) l->pair.failed = true;
}

static void latency_members(void *context)
{
    latencies_t *l = context;
    for (unsigned i = 1; i < GROUP_NODES_MAX; i++) {
        rf_link_t *link = l->pair.links[1][i - 1];
        for (unsigned round = 0; round < LATENCY_BATCHES * LATENCY_ROUNDS; round++)
            shm_pair_send(link, shm_pair_poll(link));
    }
    for (unsigned round = 0; round < LATENCY_BATCHES * LATENCY_ROUNDS; round++) {
        for (unsigned i = 1; i < GROUP_NODES_MAX; i++) {
            rf_link_t *link = l->pair.links[1][i - 1];
            shm_pair_send(link, shm_pair_poll(link));
        }
    }
}

static bool measure_latencies(const bench_options_t *options)
{
    uint32_t hop_ns = group_thread_hop_ns();
    for (unsigned i = 0; i < GROUP_NODES_MAX * GROUP_NODES_MAX; i++) latencies.ns[i] = hop_ns;
    if (!shm_pair_open(&latencies.pair, GROUP_NODES_MAX - 1, RING_SLOTS)) return false;
    bool ok =
        bench_pair_run(options->cores, latency_owner, latency_members, &latencies) && !latencies.pair.failed;
    shm_pair_close(&latencies.pair);
    return ok;
}

/* ---- the series ---- */

static bool named(const bench_options_t *options, const char *name)
{
    return options->argc > 0 && bench_wanted(options, name);
}

/* Whether one of these is named; without any, all are wanted. */
static bool any_named(const bench_options_t *options, const char *const *names, unsigned n)
{
    bool any = false;
    for (unsigned i = 0; i < n; i++) any |= named(options, names[i]);
    return any;
}

rf_err_t group_series_run(const group_series_t *series)
{
    static const unsigned sizes[] = {2, 4, 8, 16};
    const bench_options_t *options = series->options;
    bool two = options->cores[0] != options->cores[1], ok = true;
    bool by_piece = any_named(options, pieces, 3), by_plan = any_named(options, plan_names, PLAN_COUNT);
    if (options->argc > 0 && !by_piece && !by_plan) return RF_OK; /* none of what is measured here */
    if (!two) fprintf(stderr, "rf-bench %s: two cores need two different CPUs: direct only\n", series->bench);
    if (two && (by_plan ? named(options, "weighted") : !by_piece || named(options, "single")))
        ok = measure_latencies(options);
    for (unsigned k = 0; k < 3; k++) {
        if ((by_piece && !named(options, pieces[k])) || (k > 0 && !two)) continue;
        /* All plans are measured one operation at a time; otherwise those that are named, or broadcast. */
        for (unsigned plan = 0; plan < PLAN_COUNT; plan++) {
            if (by_plan ? !named(options, plan_names[plan]) : k != 1 && plan != PLAN_BROADCAST) continue;
            for (unsigned i = plan != PLAN_BROADCAST; i < 4 && ok; i++)
                ok = measure(series, pieces[k], (plan_t)plan, sizes[i], k == 2 ? GROUP_WINDOW : 1);
        }
    }
    return ok ? RF_OK : RF_ERR_OS;
}
