/*
 * Three hosts over TCP on loopback, as three processes on two CPUs, not encrypted.
 *
 *   tcp        leader on the first CPU and one follower on the second, both spinning; the third host sleeps between
 *              messages, on the second CPU: a commit needs two of three, and what the third costs is its wake-ups. The
 *              client is in the leader's process, as a domain's request is in its monitor. Raw limit: 64 bytes
 *              there and back by bare spinning sockets.
 *   blocking   all three sleep between messages; then the same with the client in a process of its own, over TCP too.
 *              Raw limit: 64 bytes there and back by bare blocking sockets. What lies between the two raw limits is
 *              wake-ups, what lies above them is protocol and links.
 */
#include "agree_hosts.h"
#include "bracket.h"
#include "ordered.h"
#include "pair.h"
#include "raw.h"

#include <string.h>

#define SAMPLES      5000
#define RATE_CHUNKS  100
#define CLIENT_SLOTS 2 /* of a request */
#define CHUNK        4096
#define WARM_UP      500
#define HOSTS        3
#define MEASURE_NS   (60 * RF_NS_PER_S)

static bool is_client(const agree_host_t *host)
{
    return host->index >= host->hosts->config.n;
}

/* Asks for n commands: of the engine in this process, or of host 0. */
static void ask(agree_host_t *host, unsigned n)
{
    uint8_t bytes[AGREE_COMMAND_MAX] = {1};
    size_t size = host->hosts->command_bytes;
    for (unsigned i = 0; i < n; i++) {
        if (is_client(host))
            agree_node_send_other(host->node, 0, bytes, size);
        else
            agree_node_propose(host->node, bytes, size, i + 1 < n);
    }
    agree_node_flush(host->node);
}

/* ---- host 0 and its client ---- */

typedef struct answer {
    uint64_t sequence, value, err;
} answer_t;

static void serve_request(agree_node_t *node, unsigned from, const void *bytes, size_t size, bool hold)
{
    (void)from;
    agree_node_propose(node, bytes, size, hold);
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
    if (host->index != 0 || !agree_host_open_session(host)) return false;
    if (!host->hosts->client) return true;
    node->on_other = serve_request;
    node->on_answer = serve_answer;
    host->shared->serving = 1;
    return false;
}

/* ---- what is measured ---- */

static void add_sample(agree_host_t *host, double value)
{
    if (host->shared->n_samples < host->hosts->n_samples_max)
        host->shared->samples[host->shared->n_samples++] = value;
}

static void latency_body(agree_host_t *host)
{
    agree_node_t *node = host->node;
    double us_per_tick = bench_ns_per_tick() / 1000;
    if (!prepare(host)) return;
    for (unsigned i = 0; i < host->hosts->n_samples_max + WARM_UP; i++) {
        uint64_t before = rf_clock_ticks(), done = node->answered + node->refused_err;
        ask(host, 1);
        while (node->answered + node->refused_err == done && !node->failed) agree_host_turn(host);
        if (node->refused_err > 0 || node->failed) return;
        if (i >= WARM_UP) add_sample(host, (double)(rf_clock_ticks() - before) * us_per_tick);
    }
}

/* Proposals answered with AGAIN are made anew: the log was full for the moment. */
static void rate_body(agree_host_t *host)
{
    agree_node_t *node = host->node;
    unsigned batch = host->hosts->batch, outstanding = host->hosts->outstanding;
    double ns_per_tick = bench_ns_per_tick();
    if (!prepare(host)) return;
    uint64_t start = node->answered, asked = start, mark = start + CHUNK, begun = start,
             before = rf_clock_ticks(), slots = node->slots;
    while (host->shared->n_samples < host->hosts->n_samples_max && !node->failed) {
        while (asked - node->answered - node->refused_err + batch <= outstanding) {
            ask(host, batch);
            asked += batch;
        }
        agree_host_turn(host);
        if (node->answered < mark) continue;
        uint64_t now = rf_clock_ticks();
        if (begun > start)
            add_sample(host,
                       (double)(node->answered - begun) * 1000 / ((double)(now - before) * ns_per_tick));
        before = now;
        begun = node->answered;
        mark = begun + CHUNK;
    }
    host->shared->slots_per_commit = (double)(node->slots - slots) / (double)(node->answered - start);
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

bool ordered_tcp_measure(const bench_options_t *options, ordered_way_t way, unsigned outstanding,
                         unsigned batch, double *p50)
{
    static const char *const what_one[] = {"tcp, spinning", "tcp, blocking", "tcp, client outside"};
    static const char *const what_rate[] = {"tcp rate, spinning", "tcp rate, blocking",
                                            "tcp rate, client outside"};
    bool blocking = way != ORDERED_SPINNING;
    bool rate = outstanding > 1;
    three_t t = {.blocking = blocking,
                 .rate = rate,
                 .hosts = {.options = options,
                           .config = {.n = HOSTS, .log_max = 8192},
                           .client = way == ORDERED_OUTSIDE,
                           .batch = batch,
                           .outstanding = outstanding,
                           .command_bytes = ORDERED_TCP_BYTES,
                           .body = rate ? rate_body : latency_body}};
    unsigned n = options->samples ? options->samples : rate ? RATE_CHUNKS : SAMPLES;
    t.hosts.n_samples_max = n;
    for (unsigned i = 0; i < agree_hosts_n(&t.hosts); i++) {
        t.hosts.cpus[i] = options->cores[i > 0];
        t.hosts.sleeps[i] = blocking || i == 2;
    }
    bench_samples_t samples, raw;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bracket_t bracket;
    bool ok = bracket_run(options, three_piece, &t, &samples, &raw, &bracket);
    if (ok) {
        bench_result_t result = {.bench = "ordered",
                                 .what = (rate ? what_rate : what_one)[way],
                                 .unit = rate ? "M/s" : "us",
                                 .samples = &samples,
                                 .raw = rate       ? "bare TCP stream of as many bytes"
                                        : blocking ? "bare TCP there and back, blocking"
                                                   : "bare TCP there and back",
                                 .raw_p50 = bench_samples_percentile(&raw, 50),
                                 .placement = bracket.placement};
        bench_result_param(&result, "hosts", HOSTS);
        bench_result_param(&result, "outstanding", outstanding);
        bench_result_param(&result, "batch", batch);
        bench_result_param(&result, "bytes", ORDERED_TCP_BYTES);
        bench_report(options, &result);
        if (p50) *p50 = bench_samples_percentile(&samples, 50);
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
    return ordered_tcp_measure(options, way, 1, 1, NULL) &&
           ordered_tcp_measure(options, way, ORDERED_OUTSTANDING, ORDERED_TCP_BATCH, NULL);
}

bool ordered_tcp(const bench_options_t *options)
{
    return measure_both(options, ORDERED_SPINNING);
}

bool ordered_blocking(const bench_options_t *options)
{
    return measure_both(options, ORDERED_BLOCKING) && measure_both(options, ORDERED_OUTSIDE);
}
