/*
 * Three hosts over TCP on loopback, as three processes on two CPUs, not encrypted.
 *
 *   tcp        The leader on the first CPU and one follower on the second, both spinning: a commit needs two of three. The third
 *              host shares the second CPU and wakes up by the clock, every THIRD_LOOK_US, as behind a network card that moderates
 *              its interrupts: it takes in what has come meanwhile at once, and costs no wake-up a commit. The client is in
 *              the leader's process. Raw limit: 64 bytes there and back by bare spinning sockets.
 *   blocking   All three sleep between messages. The client is in the leader's process; then a process of its own on the leader's
 *              core, over shared memory ("beside": as a dispatcher and its monitor, one asleep on a futex, the other in poll());
 *              then a process of its own there over TCP ("outside": as any client of etcd). Raw limit: 64 bytes
 *              there and back by bare blocking sockets. What lies between the two raw limits is wake-ups, what lies above them
 *              is protocol and links.
 *
 * A client has up to `outstanding` commands under way, in sessions of 64. It asks for new ones as answers come, a sixteenth
 * of all at a time, and each command has its own session check, result and answer; but "batched", where as many
 * as a proposal holds are one, with one answer; each of them is carried out. That something is committed is told with
 * the entries that follow it, or after LAZY_NS.
 */
#include "agree_hosts.h"
#include "bracket.h"
#include "ordered.h"
#include "pair.h"
#include "raw.h"

#include <string.h>

#define SAMPLES       3000
#define RATE_CHUNKS   200
#define CLIENT_SLOTS  2 /* of a request */
#define CHUNK         4096
#define WARM_UP       500
#define HOSTS         3
#define LOG           16384
#define LAZY_NS       (50 * RF_NS_PER_US)
#define THIRD_LOOK_US 500
#define MEASURE_NS    (60 * RF_NS_PER_S)

static bool is_client(const agree_host_t *host)
{
    return host->index >= host->hosts->config.n;
}

/* Makes n proposals: to the engine in this process, or of host 0. */
static void ask(agree_host_t *host, unsigned n)
{
    uint8_t bytes[AGREEMENT_ENTRY_MAX] = {1};
    size_t size = host->hosts->command_bytes * host->hosts->per_proposal;
    for (unsigned i = 0; i < n; i++) {
        if (is_client(host))
            agree_node_send_other(host->node, 0, bytes, size);
        else
            agree_host_propose(host, bytes, size, i + 1 < n);
    }
}

/* ---- host 0 and its client ---- */

typedef struct answer {
    uint64_t sequence, value, err;
} answer_t;

static void serve_request(agree_node_t *node, unsigned from, const void *bytes, size_t size, bool hold)
{
    (void)from;
    agree_host_propose(node->context, bytes, size, hold);
}

static void serve_answer(agree_node_t *node, const agreement_completion_t *completion)
{
    answer_t answer = {completion->sequence, completion->value, (uint64_t)completion->err};
    agree_node_send_other(node, node->n - 1, &answer, sizeof answer);
}

static void take_answer(agree_node_t *node, unsigned from, const void *bytes, size_t size, bool hold)
{
    answer_t answer = {0};
    (void)from, (void)hold;
    memcpy(&answer, bytes, size < sizeof answer ? size : sizeof answer);
    node->answered += answer.err == RF_OK;
    node->refused_err += answer.err != RF_OK;
}

/* False: this process has nothing to measure. */
static bool prepare(agree_host_t *host)
{
    agree_node_t *node = host->node;
    if (is_client(host)) {
        node->on_other = take_answer;
        while (!host->shared->serving && !host->shared->failed) agree_host_turn(host);
        return true;
    }
    if (host->index != 0 || !agree_host_open_lanes(host, host->hosts->outstanding)) return false;
    if (!host->hosts->client) return true;
    node->context = host;
    node->on_other = serve_request;
    node->on_answer = serve_answer;
    host->shared->serving = 1;
    return false;
}

/* ---- what is measured ---- */

/* A client that always has as many commands under way as it may. */
typedef struct client {
    agree_host_t *host;
    uint64_t asked, since, begun, mark;
    double us_per_tick;
} client_t;

static uint64_t answers(const client_t *c)
{
    return c->host->node->answered + c->host->node->refused_err;
}

static void add_sample(agree_host_t *host, double value)
{
    if (host->shared->n_samples < host->hosts->n_samples_max)
        host->shared->samples[host->shared->n_samples++] = value;
}

static bool is_done(const agree_host_t *host)
{
    return host->shared->n_samples == host->hosts->n_samples_max || host->node->failed;
}

/* One after the other: the next is asked for with the answer in hand, before anything is flushed. */
static void latency_turn(agree_node_t *node)
{
    client_t *c = node->context;
    if (c->asked > answers(c) || is_done(c->host)) return;
    if (node->refused_err > 0) node->failed = true;
    uint64_t now = rf_clock_ticks();
    if (c->asked > WARM_UP) add_sample(c->host, (double)(now - c->since) * c->us_per_tick);
    c->since = now;
    c->asked++;
    ask(c->host, 1);
}

/* A new command for each that was answered, as soon as there are enough of them. One that the log had no room for (AGAIN) is
 * made anew, and does not count. */
static void rate_turn(agree_node_t *node)
{
    client_t *c = node->context;
    uint64_t done = node->answered;
    unsigned room = c->host->hosts->outstanding - (unsigned)(c->asked - answers(c));
    if (room >= c->host->hosts->batch && !is_done(c->host)) {
        ask(c->host, room);
        c->asked += room;
    }
    if (done < c->mark) return;
    uint64_t now = rf_clock_ticks();
    if (c->begun > 0)
        add_sample(c->host, (double)(done - c->begun) * c->host->hosts->per_proposal /
                                ((double)(now - c->since) * c->us_per_tick));
    c->since = now;
    c->begun = done;
    c->mark = done + CHUNK / c->host->hosts->per_proposal;
}

static void body(agree_host_t *host)
{
    agree_node_t *node = host->node;
    if (!prepare(host)) return;
    client_t client = {.host = host, .asked = node->answered, .us_per_tick = bench_ns_per_tick() / 1000};
    client.mark = node->answered + CHUNK;
    uint64_t start = node->answered, slots = node->slots;
    node->context = &client;
    node->on_turn = host->hosts->outstanding > 1 ? rate_turn : latency_turn;
    while (!is_done(host)) agree_host_turn(host);
    node->on_turn = NULL;
    host->shared->slots_per_commit =
        (double)(node->slots - slots) / (double)(node->answered - start) / host->hosts->per_proposal;
}

typedef struct three {
    agree_hosts_t hosts;
    bool blocking, rate;
} three_t;

static bool three_raw(const bench_options_t *options, const three_t *t, bench_samples_t *raw)
{
    if (t->rate) {
        /* B/ns to million commands a second, each of as many slots as the leader sent for it */
        double slots = t->hosts.client ? CLIENT_SLOTS : t->hosts.shared->slots_per_commit;
        if (!raw_tcp_stream(options->cores, 4096, (size_t)CHUNK * 64, raw->max, raw)) return false;
        for (uint32_t i = 0; i < raw->n; i++) raw->values[i] *= 1000.0 / 64 / slots;
        return true;
    }
    bool ok = t->blocking ? raw_tcp_blocking(options->cores, raw->max, raw)
                          : raw_tcp_pingpong(options->cores, raw->max, raw);
    for (uint32_t i = 0; ok && i < raw->n; i++) raw->values[i] *= 2.0 / 1000; /* there and back */
    return ok;
}

static bool three_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                        bench_samples_t *raw)
{
    three_t *t = context;
    bool ok = agree_hosts_start(&t->hosts) && agree_hosts_wait(&t->hosts, rf_clock_ns() + MEASURE_NS);
    if (ok) {
        for (unsigned i = 0; i < t->hosts.shared->n_samples; i++)
            bench_samples_add(samples, t->hosts.shared->samples[i]);
        ok = samples->n > 0 && three_raw(options, t, raw);
    }
    if (!ok) fprintf(stderr, "rf-bench ordered: three hosts over TCP did not answer everything\n");
    agree_hosts_end(&t->hosts);
    return ok;
}

unsigned ordered_outstanding(const bench_options_t *options)
{
    return options->outstanding ? options->outstanding : ORDERED_OUTSTANDING;
}

unsigned ordered_tcp_batch(unsigned outstanding)
{
    return outstanding > ORDERED_TCP_BATCH ? outstanding / ORDERED_TCP_BATCH : 1;
}

const char *ordered_tcp_name(ordered_way_t way, ordered_load_t load)
{
    static const char *const names[ORDERED_WAYS][ORDERED_LOADS] = {
        {"tcp, spinning", "tcp rate, spinning", "tcp rate, spinning, batched"},
        {"tcp, blocking", "tcp rate, blocking", "tcp rate, blocking, batched"},
        {"tcp, client beside", "tcp rate, client beside", NULL},
        {"tcp, client outside", "tcp rate, client outside", NULL},
    };
    return names[way][load];
}

const char *ordered_tcp_raw(ordered_way_t way, ordered_load_t load)
{
    return load != ORDERED_ONE       ? "bare TCP stream of as many bytes"
           : way == ORDERED_SPINNING ? "bare TCP there and back"
                                     : "bare TCP there and back, blocking";
}

unsigned ordered_tcp_per_proposal(unsigned outstanding)
{
    unsigned batch = ordered_tcp_batch(outstanding), most = AGREEMENT_ENTRY_MAX / ORDERED_TCP_BYTES;
    return batch < most ? batch : most;
}

static three_t three_of(const bench_options_t *options, ordered_way_t way, ordered_load_t load)
{
    static const agree_client_t clients[ORDERED_WAYS] = {AGREE_CLIENT_NONE, AGREE_CLIENT_NONE,
                                                         AGREE_CLIENT_SHM, AGREE_CLIENT_TCP};
    bool rate = load != ORDERED_ONE;
    unsigned outstanding = rate ? ordered_outstanding(options) : 1;
    unsigned per = load == ORDERED_RATE_BATCHED ? ordered_tcp_per_proposal(outstanding) : 1;
    three_t t = {.blocking = way != ORDERED_SPINNING,
                 .rate = rate,
                 .hosts = {.options = options,
                           .config = {.n = HOSTS,
                                      .log_max = LOG / per,
                                      .entry_max = per * ORDERED_TCP_BYTES,
                                      .command_bytes = ORDERED_TCP_BYTES,
                                      .proposals = AGREEMENT_PROPOSALS_MAX},
                           .client = clients[way],
                           .lazy_ns = LAZY_NS,
                           .per_proposal = per,
                           .batch = ordered_tcp_batch(outstanding / per),
                           .outstanding = outstanding / per,
                           .command_bytes = ORDERED_TCP_BYTES,
                           .n_samples_max = options->samples ? options->samples
                                            : rate           ? RATE_CHUNKS
                                                             : SAMPLES,
                           .body = body}};
    if (t.hosts.config.entry_max < AGREE_COMMAND_MAX) t.hosts.config.entry_max = AGREE_COMMAND_MAX;
    for (unsigned i = 0; i < agree_hosts_n(&t.hosts); i++) {
        t.hosts.cpus[i] = options->cores[i > 0 && i < HOSTS];
        t.hosts.sleeps[i] = t.blocking;
    }
    if (!t.blocking) t.hosts.look_us[HOSTS - 1] = THIRD_LOOK_US;
    return t;
}

bool ordered_tcp_measure(const bench_options_t *options, ordered_way_t way, ordered_load_t load,
                         ordered_figure_t *out)
{
    three_t t = three_of(options, way, load);
    bench_samples_t samples, raw;
    bench_samples_init(&samples, t.hosts.n_samples_max);
    bench_samples_init(&raw, t.hosts.n_samples_max);
    bracket_t bracket;
    bool ok = bracket_run(options, three_piece, &t, &samples, &raw, &bracket);
    ordered_figure_t figure = {0};
    if (ok)
        figure = (ordered_figure_t){.p50 = bench_samples_percentile(&samples, 50),
                                    .raw_p50 = bench_samples_percentile(&raw, 50),
                                    .placement = bracket.placement};
    if (ok && out) {
        *out = figure;
    } else if (ok) {
        bench_result_t result = {.bench = "ordered",
                                 .what = ordered_tcp_name(way, load),
                                 .unit = t.rate ? "M/s" : "us",
                                 .samples = &samples,
                                 .raw = ordered_tcp_raw(way, load),
                                 .raw_p50 = figure.raw_p50,
                                 .placement = figure.placement};
        bench_result_param(&result, "hosts", HOSTS);
        bench_result_param(&result, "outstanding", t.hosts.outstanding * t.hosts.per_proposal);
        if (load == ORDERED_RATE_BATCHED) bench_result_param(&result, "batch", t.hosts.per_proposal);
        bench_result_param(&result, "bytes", ORDERED_TCP_BYTES);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    return ok;
}

static bool measure_both(const bench_options_t *options, ordered_way_t way)
{
    if (options->cores[0] == options->cores[1]) {
        fprintf(stderr, "rf-bench ordered: leader and follower need two different CPUs\n");
        return false;
    }
    return ordered_tcp_measure(options, way, ORDERED_ONE, NULL) &&
           ordered_tcp_measure(options, way, ORDERED_RATE, NULL) &&
           (!ordered_tcp_name(way, ORDERED_RATE_BATCHED) ||
            ordered_tcp_measure(options, way, ORDERED_RATE_BATCHED, NULL));
}

bool ordered_tcp(const bench_options_t *options)
{
    return measure_both(options, ORDERED_SPINNING);
}

bool ordered_blocking(const bench_options_t *options)
{
    return measure_both(options, ORDERED_BLOCKING) && measure_both(options, ORDERED_BESIDE) &&
           measure_both(options, ORDERED_OUTSIDE);
}
