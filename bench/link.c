/*
 * Links of any medium, both ends on a thread of their own, spinning, exactly as two processes would.
 *
 *   one-way    a slot there and one back; half of it
 *   monitors   the same over DPDK, beside what it is made of: two link drivers, and URPC at either end
 *   message    a message of so many bytes there and back (message.h); half of it
 *   rate       slots one way, `batch` of them a flush
 *   pipelined  slots there and answers back, so many outstanding
 *   bulk       remote writes of 1 MiB, one way
 *
 * Raw limits over TCP: a bare spinning ping-pong of 64 bytes, and a bare stream with sends of as many bytes, on the
 * same path, without encryption; the encrypted link stands beside the plain one, against the same limit. In shared
 * memory: a bare slot bounce, and a bare stream of slots. Over DPDK: two link drivers with a wire of shared memory between them, and
 * that wire by itself. Then four processors are wanted: with fewer, ends that find nothing sleep.
 */
#include "bracket.h"
#include "link_dpdk.h"
#include "link_hosts.h"
#include "pair.h"
#include "raw.h"

#include "base/clock.h"
#include "base/os.h"
#include "transport/message.h"
#include "transport/registry.h"
#include "transport/shm/shm.h"
#include "transport/wait.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define LATENCY_SAMPLES 10000
#define WARM_UP         1000
#define RATE_CHUNKS     50
#define CHUNK_SLOTS     16384 /* a sample of single slots; of batches more: a socket buffer holds megabytes */
#define CHUNK_BATCHED   131072
#define BATCH_MAX       256
#define SLOTS_DEFAULT   4096
#define OUTSTANDING     64
#define BULK_SIZE       (1u << 20)
#define BULK_CHUNKS     50
#define BULK_PER_SAMPLE 16
#define BULK_AT_ONCE    4
#define JOIN_NS_MAX     (10 * RF_NS_PER_S)
#define SLEEP_NS_MAX    RF_NS_PER_MS
#define DPDK_CPUS       4 /* two ends and two link drivers that poll */

typedef struct link_pair {
    const rf_transport_t *transport;
    bool encrypted, over_dpdk, sleeps;
    rf_wait_t waits[2];
    rf_endpoint_t *endpoints[2];
    rf_link_t *links[2];
    rf_doorbell_t bells[2];
    unsigned slots, batch, size, rounds, chunk;
    bench_samples_t *out;
    unsigned up;
    _Atomic(bool) failed;
    _Atomic(uint64_t) sum;
    rf_region_t *region;
    unsigned written;
    uint8_t *source;
} link_pair_t;

/* ---- making a link ---- */

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)info;
    link_pair_t *l = context;
    rf_link_params_t params = {.socket = -1, .slots = l->slots, .slots_max = l->slots};
    switch (event) {
    case RF_LINK_INCOMING:
        l->links[1] = link;
        if (link->transport->accept(link, &params) != RF_OK) l->failed = true;
        break;
    case RF_LINK_UP:
        l->up++;
        break;
    case RF_LINK_WRITTEN:
        l->written++;
        break;
    case RF_LINK_BROKEN:
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        l->failed = true;
        break;
    default:
        break;
    }
}

static void pair_close(link_pair_t *l)
{
    for (unsigned i = 0; i < 2; i++) {
        if (l->endpoints[i]) l->transport->endpoint_close(l->endpoints[i]);
        if (l->bells[i].word) rf_doorbell_destroy(&l->bells[i]);
    }
    free(l->source);
}

static void progress(link_pair_t *l)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t next_ns;
        l->transport->endpoint_progress(l->endpoints[i], rf_clock_ns(), &next_ns);
    }
}

/* Local media over a socket pair, others over loopback. */
static bool join(link_pair_t *l)
{
    bool local = l->transport->flags & RF_TRANSPORT_LOCAL;
    static const uint8_t key[32] = {1};
    int sockets[2] = {-1, -1};
    if (local && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) return false;
    for (unsigned i = 0; i < 2; i++) {
        rf_endpoint_params_t params = {.doorbell = &l->bells[i], .on_event = on_event, .context = l};
        params.self.version_major = RF_VERSION_MAJOR;
        params.address = i == 1 && !local ? "127.0.0.1:0" : NULL;
        params.key = l->encrypted ? key : NULL;
        params.key_size = sizeof key;
        rf_wait_init(&l->waits[i], RF_POLL_BUDGET_US_MAX);
        if (l->over_dpdk) params.medium = (void *)(uintptr_t)link_dpdk_medium(i);
        if (rf_doorbell_create(&l->bells[i]) != RF_OK ||
            l->transport->endpoint_open(&params, &l->endpoints[i]) != RF_OK)
            return false;
    }
    char address[RF_ADDRESS_MAX];
    if (!local && l->transport->endpoint_address(l->endpoints[1], address, sizeof address) != RF_OK)
        return false;
    for (unsigned i = 0; i < (local ? 2u : 1u); i++) {
        rf_link_params_t params = {.address = local ? NULL : address,
                                   .socket = sockets[i],
                                   .slots = l->slots,
                                   .slots_max = l->slots};
        if (l->transport->connect(l->endpoints[i], &params, &l->links[i]) != RF_OK) return false;
    }
    uint64_t until_ns = rf_clock_ns() + JOIN_NS_MAX;
    while (l->up < 2 && !l->failed && rf_clock_ns() < until_ns) progress(l);
    return l->up == 2;
}

/* ---- latency ---- */

/* Nothing has come yet. */
static inline void idle(link_pair_t *l, unsigned side)
{
    if (!l->sleeps) return;
    (void)rf_wait_links(&l->waits[side], &l->bells[side], &l->links[side], 1, rf_clock_ns() + SLEEP_NS_MAX);
}

static inline bool send_one(link_pair_t *l, unsigned side, uint64_t number)
{
    rf_slot_t slot = {.words = {number}, .control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0)};
    while (l->transport->send(l->links[side], &slot, 1) == 0) {
        rf_slot_t none;
        if (l->failed || l->transport->poll(l->links[side], &none, 1) > 0) return false;
    }
    return l->transport->flush(l->links[side]) == RF_OK;
}

static inline bool poll_one(link_pair_t *l, unsigned side, uint64_t *sum)
{
    rf_slot_t slot;
    while (l->transport->poll(l->links[side], &slot, 1) == 0) {
        if (l->failed) return false;
        idle(l, side);
    }
    *sum += slot.words[0];
    return true;
}

static void latency_first(void *context)
{
    link_pair_t *l = context;
    double half = bench_ns_per_tick() / 2;
    uint64_t sum = 0;
    for (unsigned i = 0; i < l->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        if (!send_one(l, 0, i) || !poll_one(l, 0, &sum)) return;
        if (i >= WARM_UP) bench_samples_add(l->out, (double)(rf_clock_ticks() - before) * half);
    }
    l->sum += sum;
}

static void latency_second(void *context)
{
    link_pair_t *l = context;
    uint64_t sum = 0;
    for (unsigned i = 0; i < l->rounds; i++) {
        if (!poll_one(l, 1, &sum) || !send_one(l, 1, sum)) return;
    }
    l->sum += sum;
}

static bool raw_one_way(const bench_options_t *options, const link_pair_t *l, bench_samples_t *raw)
{
    if (l->over_dpdk) return link_dpdk_bounce(options, "one-way", raw);
    return l->transport->flags & RF_TRANSPORT_LOCAL ? raw_slot_bounce(options->cores, l->slots, raw->max, raw)
                                                    : raw_tcp_pingpong(options->cores, raw->max, raw);
}

static bool latency_run(const bench_options_t *options, link_pair_t *l, bench_samples_t *samples)
{
    l->out = samples;
    l->rounds = samples->max + WARM_UP;
    return bench_pair_run(options->cores, latency_first, latency_second, l) && !l->failed;
}

static bool latency_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                          bench_samples_t *raw)
{
    return latency_run(options, context, samples) && raw_one_way(options, context, raw);
}

static bool monitors_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                           bench_samples_t *raw)
{
    const link_pair_t *l = context;
    return latency_run(options, context, samples) && (l->sleeps || link_dpdk_parts(options, raw));
}

static bool message_send(link_pair_t *l, unsigned side, const uint8_t *bytes)
{
    rf_err_t err;
    while ((err = rf_message_send(l->links[side], 1, bytes, l->size)) == RF_ERR_AGAIN) {
        rf_slot_t none;
        if (l->failed || l->transport->poll(l->links[side], &none, 1) > 0) return false;
    }
    return err == RF_OK && l->transport->flush(l->links[side]) == RF_OK;
}

static bool message_poll(link_pair_t *l, unsigned side, rf_assembler_t *assembler)
{
    rf_slot_t slots[32];
    for (;;) {
        unsigned n = l->transport->poll(l->links[side], slots, 32);
        if (n == 0 && l->failed) return false;
        for (unsigned i = 0; i < n; i++) {
            rf_err_t err = rf_assembler_feed(assembler, &slots[i]);
            if (err == RF_OK) return true; /* one message is outstanding: it was the last slot */
            if (err != RF_ERR_AGAIN) return false;
        }
    }
}

static void message_first(void *context)
{
    link_pair_t *l = context;
    static rf_assembler_t assembler;
    static uint8_t bytes[RF_MESSAGE_MAX];
    double half = bench_ns_per_tick() / 2;
    memset(&assembler, 0, sizeof assembler);
    for (unsigned i = 0; i < l->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        if (!message_send(l, 0, bytes) || !message_poll(l, 0, &assembler)) return;
        if (i >= WARM_UP) bench_samples_add(l->out, (double)(rf_clock_ticks() - before) * half);
    }
}

static void message_second(void *context)
{
    link_pair_t *l = context;
    static rf_assembler_t assembler;
    memset(&assembler, 0, sizeof assembler);
    for (unsigned i = 0; i < l->rounds; i++) {
        if (!message_poll(l, 1, &assembler) || !message_send(l, 1, assembler.bytes)) return;
    }
}

static bool message_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                          bench_samples_t *raw)
{
    link_pair_t *l = context;
    l->out = samples;
    l->rounds = samples->max + WARM_UP;
    return bench_pair_run(options->cores, message_first, message_second, l) && !l->failed &&
           raw_one_way(options, l, raw);
}

/* ---- rate ---- */

/* Slots taken by the receiver so far, one sample a chunk. */
typedef struct counter {
    uint64_t got, mark, begun, before;
    unsigned chunk;
    double ns_per_tick;
} counter_t;

static counter_t counter_start(unsigned chunk)
{
    return (counter_t){
        .chunk = chunk, .mark = chunk, .before = rf_clock_ticks(), .ns_per_tick = bench_ns_per_tick()};
}

static void counter_add(counter_t *c, unsigned n, bench_samples_t *out)
{
    c->got += n;
    if (c->got < c->mark) return;
    uint64_t now = rf_clock_ticks();
    if (c->begun > 0)
        bench_samples_add(out,
                          (double)(c->got - c->begun) * 1000 / ((double)(now - c->before) * c->ns_per_tick));
    c->before = now;
    c->begun = c->got;
    c->mark = c->got + c->chunk;
}

static void fill_slots(rf_slot_t *slots, unsigned n, uint64_t first)
{
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < 7; k++) slots[i].words[k] = first + i;
        slots[i].control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0);
    }
}

/* Sends all of a batch; what comes back meanwhile (acknowledgements, answers) is polled and counted. */
static uint64_t send_batch(link_pair_t *l, unsigned side, const rf_slot_t *slots, unsigned n)
{
    rf_slot_t back[BATCH_MAX];
    uint64_t got = 0;
    unsigned sent = l->transport->send(l->links[side], slots, n);
    while (sent < n && !l->failed) {
        l->transport->flush(l->links[side]);
        got += l->transport->poll(l->links[side], back, BATCH_MAX);
        if (sent < n) idle(l, side);
        sent += l->transport->send(l->links[side], slots + sent, n - sent);
    }
    l->transport->flush(l->links[side]);
    return got;
}

static void rate_sender(void *context)
{
    link_pair_t *l = context;
    rf_slot_t slots[BATCH_MAX];
    uint64_t total = (uint64_t)l->rounds * l->chunk;
    for (uint64_t i = 0; i < total && !l->failed; i += l->batch) {
        fill_slots(slots, l->batch, i);
        send_batch(l, 0, slots, l->batch);
    }
}

static void rate_receiver(void *context)
{
    link_pair_t *l = context;
    rf_slot_t slots[BATCH_MAX];
    counter_t counter = counter_start(l->chunk);
    uint64_t total = (uint64_t)l->rounds * l->chunk, sum = 0;
    while (counter.got < total && !l->failed) {
        unsigned n = l->transport->poll(l->links[1], slots, BATCH_MAX);
        for (unsigned i = 0; i < n; i++) sum += slots[i].words[0] + slots[i].words[6];
        if (n > 0)
            counter_add(&counter, n, l->out);
        else
            idle(l, 1);
    }
    l->sum += sum;
}

static bool raw_rate(const bench_options_t *options, const link_pair_t *l, unsigned batch,
                     bench_samples_t *raw)
{
    if (l->over_dpdk) return link_dpdk_bounce(options, "rate", raw);
    if (l->transport->flags & RF_TRANSPORT_LOCAL)
        return raw_slot_stream(options->cores, l->slots, raw->max, raw);
    if (!raw_tcp_stream(options->cores, batch * sizeof(rf_slot_t), l->chunk * sizeof(rf_slot_t), raw->max,
                        raw))
        return false;
    for (uint32_t i = 0; i < raw->n; i++)
        raw->values[i] *= 1000.0 / sizeof(rf_slot_t); /* B/ns to M slots/s */
    return true;
}

static bool rate_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    link_pair_t *l = context;
    l->out = samples;
    l->rounds = samples->max + 2;
    return bench_pair_run(options->cores, rate_sender, rate_receiver, l) && !l->failed &&
           raw_rate(options, l, l->batch, raw);
}

static void pipelined_first(void *context)
{
    link_pair_t *l = context;
    rf_slot_t slots[BATCH_MAX];
    counter_t counter = counter_start(l->chunk);
    uint64_t total = (uint64_t)l->rounds * l->chunk, asked = 0;
    while (counter.got < total && !l->failed) {
        uint64_t room = l->batch - (asked - counter.got), left = total - asked;
        unsigned n = (unsigned)(room < left ? room : left);
        uint64_t got = 0;
        if (n > 0) {
            fill_slots(slots, n, asked);
            asked += n;
            got = send_batch(l, 0, slots, n);
        }
        got += l->transport->poll(l->links[0], slots, BATCH_MAX);
        if (got > 0) counter_add(&counter, (unsigned)got, l->out);
    }
}

static void pipelined_second(void *context)
{
    link_pair_t *l = context;
    rf_slot_t slots[BATCH_MAX];
    uint64_t total = (uint64_t)l->rounds * l->chunk, done = 0;
    while (done < total && !l->failed) {
        unsigned n = l->transport->poll(l->links[1], slots, BATCH_MAX);
        if (n > 0) send_batch(l, 1, slots, n);
        done += n;
    }
}

static bool pipelined_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                            bench_samples_t *raw)
{
    link_pair_t *l = context;
    l->out = samples;
    l->rounds = samples->max + 2;
    return bench_pair_run(options->cores, pipelined_first, pipelined_second, l) && !l->failed &&
           raw_rate(options, l, l->batch, raw);
}

/* ---- bulk ---- */

/* Keeps BULK_AT_ONCE writes going; one sample a completed write, after the first. */
static void bulk_first(void *context)
{
    link_pair_t *l = context;
    double ns_per_tick = bench_ns_per_tick();
    unsigned posted = 0, seen = 0;
    l->written = 0;
    uint64_t before = rf_clock_ticks();
    while (l->written < l->rounds && !l->failed) {
        uint64_t offset = (uint64_t)(posted % BULK_AT_ONCE) * BULK_SIZE;
        if (posted < l->rounds && posted - l->written < BULK_AT_ONCE) {
            rf_err_t err = l->transport->remote_write(l->links[0], &l->region->key, offset, l->source,
                                                      BULK_SIZE, NULL, posted);
            if (err == RF_OK) posted++;
            if (err != RF_OK && err != RF_ERR_AGAIN) l->failed = true;
        }
        rf_slot_t none;
        uint64_t next_ns;
        l->transport->poll(l->links[0], &none, 1);
        l->transport->endpoint_progress(l->endpoints[0], rf_clock_ns(), &next_ns);
        if (l->written < seen + BULK_PER_SAMPLE) {
            idle(l, 0);
            continue;
        }
        uint64_t now = rf_clock_ticks();
        if (seen > 0)
            bench_samples_add(l->out, (double)(l->written - seen) * BULK_SIZE /
                                          ((double)(now - before) * ns_per_tick));
        before = now;
        seen = l->written;
    }
    atomic_store(&l->sum, 1); /* the other side may stop */
}

static void bulk_second(void *context)
{
    link_pair_t *l = context;
    while (atomic_load(&l->sum) == 0 && !l->failed) {
        rf_slot_t none;
        uint64_t next_ns;
        l->transport->poll(l->links[1], &none, 1);
        l->transport->endpoint_progress(l->endpoints[1], rf_clock_ns(), &next_ns);
        idle(l, 1);
    }
}

static void copy_alone(void *context)
{
    link_pair_t *l = context;
    double ns_per_tick = bench_ns_per_tick();
    uint8_t *to = malloc(BULK_AT_ONCE * BULK_SIZE);
    for (unsigned i = 0; to && i < l->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        memcpy(to + (size_t)(i % BULK_AT_ONCE) * BULK_SIZE, l->source, BULK_SIZE);
        l->sum += to[i % BULK_SIZE];
        if (i >= BULK_AT_ONCE)
            bench_samples_add(l->out, BULK_SIZE / ((double)(rf_clock_ticks() - before) * ns_per_tick));
    }
    free(to);
}

static void nothing(void *context)
{
    (void)context;
}

static bool bulk_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    link_pair_t *l = context;
    l->out = samples;
    l->rounds = (samples->max + 1) * BULK_PER_SAMPLE;
    l->sum = 0;
    if (!l->source) {
        l->source = calloc(1, BULK_SIZE);
        if (!l->source ||
            l->transport->region_create(l->links[1], BULK_AT_ONCE * BULK_SIZE, &l->region) != RF_OK)
            return false;
        memset(l->region->base, 0, l->region->size);
    }
    if (!bench_pair_run(options->cores, bulk_first, bulk_second, l) || l->failed) return false;
    if (!(l->transport->flags & RF_TRANSPORT_LOCAL))
        return raw_tcp_stream(options->cores, BULK_SIZE, BULK_PER_SAMPLE * BULK_SIZE, raw->max, raw);
    l->out = raw;
    l->rounds = raw->max + BULK_AT_ONCE;
    return bench_pair_run(options->cores, copy_alone, nothing, l);
}

/* ---- the series ---- */

typedef struct piece {
    const char *what, *unit, *raw_local, *raw_tcp;
    bracket_piece_fn run;
    unsigned samples;
} piece_t;

static const piece_t one_way = {"one-way",     "ns",           "bare slot bounce", "bare TCP ping-pong",
                                latency_piece, LATENCY_SAMPLES};
static const piece_t monitors = {
    .what = "monitors", .unit = "ns", .run = monitors_piece, .samples = LATENCY_SAMPLES};
static const piece_t message = {"message",     "ns",           "bare slot bounce", "bare TCP ping-pong",
                                message_piece, LATENCY_SAMPLES};
static const piece_t rate = {"rate", "M/s", "bare slot stream", "bare TCP stream", rate_piece, RATE_CHUNKS};
static const piece_t pipelined = {"pipelined",       "M/s",           "bare slot stream",
                                  "bare TCP stream", pipelined_piece, RATE_CHUNKS};
static const piece_t bulk = {"bulk", "GB/s", "bare memcpy", "bare TCP stream", bulk_piece, BULK_CHUNKS};

typedef struct series {
    const bench_options_t *options;
    const rf_transport_t *transport;
    bool encrypted;
} series_t;

static const char *raw_name(const piece_t *piece, const link_pair_t *l)
{
    if (l->transport->flags & RF_TRANSPORT_LOCAL) return piece->raw_local;
    if (!l->over_dpdk || piece == &bulk) return piece->raw_tcp;
    if (piece != &monitors) return "bare wire";
    return l->sleeps ? NULL : "drivers and two URPC"; /* which spin */
}

static bool measure(const series_t *series, const piece_t *piece, unsigned batch, unsigned size)
{
    const bench_options_t *options = series->options;
    link_pair_t l = {.chunk = batch > 1 ? CHUNK_BATCHED : CHUNK_SLOTS,
                     .transport = series->transport,
                     .over_dpdk = strcmp(series->transport->name, "dpdk") == 0,
                     .encrypted = series->encrypted,
                     .batch = batch,
                     .size = size,
                     .slots = options->slots ? options->slots : SLOTS_DEFAULT};
    unsigned cpus[DPDK_CPUS];
    l.sleeps = l.over_dpdk && rf_cpu_allowed(cpus, DPDK_CPUS) < DPDK_CPUS;
    if (l.sleeps) l.chunk = CHUNK_SLOTS;
    bool ok = join(&l);
    if (!ok) fprintf(stderr, "rf-bench link: cannot make a link over %s\n", series->transport->name);
    bench_samples_t samples, raw;
    unsigned n = options->samples ? options->samples : piece->samples;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bracket_t bracket;
    ok = ok && bracket_run(options, piece->run, &l, &samples, &raw, &bracket);
    if (ok) {
        char what[64];
        snprintf(what, sizeof what, "%s %s%s", series->transport->name, piece->what,
                 series->encrypted ? ", encrypted" : "");
        bench_result_t result = {.bench = "link",
                                 .what = what,
                                 .unit = piece->unit,
                                 .size = size > 0 ? size : sizeof(rf_slot_t),
                                 .samples = &samples,
                                 .raw = raw_name(piece, &l),
                                 .raw_p50 = raw.n > 0 ? bench_samples_percentile(&raw, 50) : 0,
                                 .placement = bracket.placement};
        bench_result_param(&result, "slots", l.slots);
        if (batch > 0) bench_result_param(&result, "batch", batch);
        if (size > 0) bench_result_param(&result, "bytes", size);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    pair_close(&l);
    return ok;
}

static bool run_series(const series_t *series)
{
    static const unsigned sizes[] = {56, 256, 1024, 4096}, batch_series[] = {1, 8, 64};
    const bench_options_t *options = series->options;
    unsigned n_batches = options->batch ? 1 : 3;
    const unsigned *batches = options->batch ? &options->batch : batch_series;
    bool dpdk = strcmp(series->transport->name, "dpdk") == 0;
    if (bench_wanted(options, one_way.what) && !measure(series, &one_way, 0, 0)) return false;
    if (dpdk && bench_wanted(options, monitors.what) && !measure(series, &monitors, 0, 0)) return false;
    for (unsigned i = 0; i < 4 && bench_wanted(options, message.what); i++) {
        if (!measure(series, &message, 0, sizes[i])) return false;
    }
    for (unsigned i = 0; i < n_batches && bench_wanted(options, rate.what); i++) {
        if (!measure(series, &rate, batches[i], 0)) return false;
    }
    unsigned outstanding = options->batch ? options->batch : OUTSTANDING;
    if (bench_wanted(options, pipelined.what) && !measure(series, &pipelined, outstanding, 0)) return false;
    return !bench_wanted(options, bulk.what) || measure(series, &bulk, 0, BULK_SIZE);
}

static rf_err_t run(const bench_options_t *options)
{
    char why[512] = "";
    const char *name = options->transport ? options->transport : "tcp";
    const rf_transport_t *transport;
    if (bench_names_host(options)) return bench_between_hosts(options);
    if (options->batch > BATCH_MAX) {
        return bench_refused("link", "a batch is at most %u slots", BATCH_MAX);
    }
    if (options->cores[0] == options->cores[1]) {
        return bench_refused("link", "two spinning sides need two different CPUs; see --cores");
    }
    rf_transport_register(&rf_transport_shm);
    if (rf_transport_find(name, &transport, why, sizeof why) != RF_OK) {
        return bench_refused("link", "%s", why);
    }
    if (strcmp(name, "rdma") == 0) {
        return bench_refused("link",
                             "over rdma an end is on each of two hosts: say `listen HOST:PORT` on one and "
                             "HOST:PORT on the other");
    }
    series_t series = {.options = options, .transport = transport};
    if (strcmp(name, "dpdk") == 0) { /* its frames are always authenticated: there is no other series */
        bool ok = link_dpdk_start() && run_series(&series);
        link_dpdk_stop();
        return ok ? RF_OK : RF_ERR_OS;
    }
    if (!run_series(&series)) return RF_ERR_OS;
    series.encrypted = true;
    return transport->flags & RF_TRANSPORT_LOCAL || run_series(&series) ? RF_OK : RF_ERR_OS;
}

const bench_t bench_link = {"link", "links of any medium (--transport): latency, sizes, rate, bulk", run};

/* One piece of `link`, here or between hosts, by its own name. */
static rf_err_t run_bulk(const bench_options_t *options)
{
    static char piece[] = "bulk";
    char *words[] = {options->argc > 0 ? options->argv[0] : NULL, piece};
    bench_options_t only = *options;
    bool listens = options->argc > 0 && strcmp(options->argv[0], "listen") == 0;
    if (!bench_names_host(options)) {
        only.argc = 1;
        only.argv = &words[1];
    } else if (!listens) {
        only.argc = 2;
        only.argv = words;
    }
    return run(&only);
}

const bench_t bench_bulk = {"bulk", "remote writes alone, of `link`, here or between two hosts", run_bulk};
