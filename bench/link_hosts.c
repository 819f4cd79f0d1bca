/*
 * A link between two hosts, an end on each: what `link` measures in one process, where both ends have a CPU of their own.
 *
 *   rf-bench --transport rdma link-hosts listen 10.77.0.1:4711      on one host: serves one client, and ends with it
 *   rf-bench --transport rdma link-hosts 10.77.0.1:4711 [PIECE...]  on the other
 *
 *   one-way   a slot there and one back, both ends polling; half of it
 *   rate      slots one way, `batch` a flush
 *   bulk      remote writes of `bytes`, a few outstanding
 *
 * The raw limit of the medium is measured by its own programs in the same minute (tests/lab/rdma/link_bench.sh runs them in
 * turn with this).
 */
#include "result.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/registry.h"
#include "transport/transport.h"

#include <stdlib.h>
#include <string.h>

#define ONE_WAY_SAMPLES 2000
#define WARM_UP         200
#define RATE_SAMPLES    20
#define RATE_SLOTS      16384
#define BULK_SAMPLES    20
#define BULK_PER_SAMPLE 16
#define BULK_AT_ONCE    4
#define BULK_MAX        (1u << 20)
#define BATCH_MAX       256
#define RING_SLOTS      1024
#define WAIT_NS_MAX     (20 * RF_NS_PER_S)

enum { TYPE_ECHO = 1, TYPE_SINK, TYPE_SINK_END, TYPE_REGION };

typedef struct side {
    const bench_options_t *options;
    const rf_transport_t *transport;
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    bool up, ended;
    rf_err_t why;
    unsigned written;
    rf_region_t *region;
} side_t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    side_t *side = context;
    rf_link_params_t params = {.socket = -1, .slots = RING_SLOTS, .slots_max = RING_SLOTS};
    switch (event) {
    case RF_LINK_INCOMING:
        if (side->link) {
            link->transport->reject(link, RF_ERR_BUSY);
            break;
        }
        side->link = link;
        if (link->transport->accept(link, &params) != RF_OK) side->ended = true;
        break;
    case RF_LINK_UP:
        side->up = true;
        break;
    case RF_LINK_WRITTEN:
        side->written++;
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        side->ended = true;
        side->why = event == RF_LINK_DEAD ? info->err : RF_OK;
        break;
    default:
        break;
    }
}

static void progress(side_t *side)
{
    uint64_t next_ns;
    side->transport->endpoint_progress(side->endpoint, rf_clock_ns(), &next_ns);
}

static rf_err_t side_open(side_t *side, const char *listen)
{
    rf_endpoint_params_t params = {.on_event = on_event, .context = side, .address = listen};
    params.self.version_major = RF_VERSION_MAJOR;
    return side->transport->endpoint_open(&params, &side->endpoint);
}

static bool send_all(side_t *side, const rf_slot_t *slots, unsigned n)
{
    const rf_transport_t *t = side->transport;
    for (unsigned sent = 0; sent < n && !side->ended;) {
        unsigned k = t->send(side->link, slots + sent, n - sent);
        sent += k;
        t->flush(side->link);
        rf_slot_t none;
        if (k == 0 && t->poll(side->link, &none, 1) > 0) return false;
        if (k == 0) progress(side);
    }
    return !side->ended;
}

/* The next slot; polls, and now and then lets the medium do what it has to. */
static bool receive(side_t *side, rf_slot_t *out)
{
    for (unsigned i = 1; !side->ended; i++) {
        if (side->transport->poll(side->link, out, 1) == 1) return true;
        if (i % 1024 == 0) progress(side);
    }
    return false;
}

/* ---- the end that serves ---- */

static bool serve_slot(side_t *side, const rf_slot_t *slot)
{
    rf_slot_t answer = *slot;
    rf_region_key_t key;
    switch (rf_control_type(slot->control)) {
    case TYPE_SINK:
        return true;
    case TYPE_REGION:
        if (!side->region && side->transport->region_create(side->link, BULK_AT_ONCE * (size_t)BULK_MAX,
                                                            &side->region) != RF_OK)
            return false;
        key = side->region->key;
        memcpy(answer.payload, &key, sizeof key);
        break;
    default: /* ECHO, SINK_END */
        break;
    }
    return send_all(side, &answer, 1);
}

static rf_err_t serve(side_t *side, const char *address)
{
    rf_err_t err = side_open(side, address);
    if (err != RF_OK) return err;
    while (!side->up && !side->ended) progress(side);
    rf_slot_t slots[BATCH_MAX];
    for (unsigned idle = 1; !side->ended; idle++) {
        unsigned n = side->transport->poll(side->link, slots, BATCH_MAX);
        for (unsigned i = 0; i < n; i++) {
            if (!serve_slot(side, &slots[i])) return side->ended ? RF_OK : RF_ERR_OS;
        }
        if (n == 0 && idle % 64 == 0) progress(side);
    }
    return RF_OK;
}

/* ---- the end that measures ---- */

static rf_slot_t slot_of(uint8_t type)
{
    return (rf_slot_t){.control = rf_control_make(type, RF_SLOT_PAYLOAD, false, 0)};
}

static bool one_way(side_t *side, bench_samples_t *samples)
{
    double half_ns = 0.5 * 1000 / (double)rf_clock_ticks_per_us();
    for (unsigned i = 0; i < samples->max + WARM_UP; i++) {
        rf_slot_t slot = slot_of(TYPE_ECHO);
        uint64_t before = rf_clock_ticks();
        if (!send_all(side, &slot, 1) || !receive(side, &slot)) return false;
        if (i >= WARM_UP) bench_samples_add(samples, (double)(rf_clock_ticks() - before) * half_ns);
    }
    return true;
}

/* One sample: so many slots sent, until their last has been answered. */
static bool rate(side_t *side, bench_samples_t *samples, unsigned batch)
{
    rf_slot_t slots[BATCH_MAX];
    for (unsigned i = 0; i < BATCH_MAX; i++) slots[i] = slot_of(TYPE_SINK);
    for (unsigned i = 0; i < samples->max + 1; i++) {
        uint64_t before_ns = rf_clock_ns();
        for (unsigned sent = 0; sent < RATE_SLOTS; sent += batch) {
            if (!send_all(side, slots, batch)) return false;
        }
        rf_slot_t end = slot_of(TYPE_SINK_END);
        if (!send_all(side, &end, 1) || !receive(side, &end)) return false;
        if (i > 0) bench_samples_add(samples, RATE_SLOTS * 1000.0 / (double)(rf_clock_ns() - before_ns));
    }
    return true;
}

static bool bulk(side_t *side, bench_samples_t *samples, unsigned bytes)
{
    rf_slot_t slot = slot_of(TYPE_REGION);
    rf_region_key_t key;
    if (!send_all(side, &slot, 1) || !receive(side, &slot)) return false;
    memcpy(&key, slot.payload, sizeof key);
    uint8_t *source = calloc(1, BULK_MAX);
    unsigned posted = 0, total = (samples->max + 1) * BULK_PER_SAMPLE, seen = 0;
    uint64_t before_ns = 0;
    side->written = 0;
    while (source && side->written < total && !side->ended) {
        uint64_t offset = (uint64_t)(posted % BULK_AT_ONCE) * BULK_MAX;
        if (posted < total && posted - side->written < BULK_AT_ONCE &&
            side->transport->remote_write(side->link, &key, offset, source, bytes, NULL, posted) == RF_OK)
            posted++;
        rf_slot_t none;
        side->transport->poll(side->link, &none, 1);
        progress(side);
        if (side->written < seen + BULK_PER_SAMPLE) continue;
        uint64_t now_ns = rf_clock_ns();
        if (seen > 0)
            bench_samples_add(samples,
                              (double)(side->written - seen) * bytes * 1000 / (double)(now_ns - before_ns));
        before_ns = now_ns;
        seen = side->written;
    }
    bool done = source && side->written >= total;
    free(source);
    return done;
}

static bool wanted(const side_t *side, const char *piece)
{
    const bench_options_t *options = side->options;
    for (int i = 1; i < options->argc; i++) {
        if (strcmp(options->argv[i], piece) == 0) return true;
    }
    return options->argc == 1;
}

static void report(const side_t *side, const char *piece, const char *unit, const char *parameter,
                   unsigned value, bench_samples_t *samples)
{
    char what[64];
    snprintf(what, sizeof what, "%s %s", side->transport->name, piece);
    bench_result_t result = {.bench = "link-hosts", .what = what, .unit = unit, .samples = samples};
    if (parameter) bench_result_param(&result, parameter, value);
    bench_report(side->options, &result);
}

static bool measure(side_t *side)
{
    static const unsigned batches[] = {1, 16, 64}, sizes[] = {64u << 10, 1u << 20};
    const bench_options_t *options = side->options;
    bench_samples_t samples;
    bool ok = true;
    if (wanted(side, "one-way")) {
        bench_samples_init(&samples, options->samples ? options->samples : ONE_WAY_SAMPLES);
        ok = one_way(side, &samples);
        if (ok) report(side, "one-way", "ns", NULL, 0, &samples);
        bench_samples_free(&samples);
    }
    for (unsigned i = 0; i < 3 && ok && wanted(side, "rate"); i++) {
        if (options->batch && i > 0) break;
        unsigned batch = options->batch ? options->batch : batches[i];
        bench_samples_init(&samples, RATE_SAMPLES);
        ok = rate(side, &samples, batch);
        if (ok) report(side, "rate", "M/s", "batch", batch, &samples);
        bench_samples_free(&samples);
    }
    for (unsigned i = 0; i < 2 && ok && wanted(side, "bulk"); i++) {
        bench_samples_init(&samples, BULK_SAMPLES);
        ok = bulk(side, &samples, sizes[i]);
        if (ok) report(side, "bulk", "MB/s", "bytes", sizes[i], &samples);
        bench_samples_free(&samples);
    }
    return ok;
}

static rf_err_t client(side_t *side, const char *address)
{
    rf_err_t err = side_open(side, NULL);
    if (err != RF_OK) return err;
    rf_link_params_t params = {
        .address = address, .socket = -1, .slots = RING_SLOTS, .slots_max = RING_SLOTS};
    err = side->transport->connect(side->endpoint, &params, &side->link);
    if (err != RF_OK) return err;
    uint64_t until_ns = rf_clock_ns() + WAIT_NS_MAX;
    while (!side->up && !side->ended && rf_clock_ns() < until_ns) progress(side);
    if (!side->up) {
        fprintf(stderr, "rf-bench link-hosts: no link to %s: %s\n", address, rf_err_text(side->why));
        return side->why != RF_OK ? side->why : RF_ERR_TIMEOUT;
    }
    if (!measure(side)) {
        fprintf(stderr, "rf-bench link-hosts: the link to %s ended: %s\n", address, rf_err_text(side->why));
        return RF_ERR_OS;
    }
    return RF_OK;
}

static rf_err_t run(const bench_options_t *options)
{
    char why[512] = "";
    const char *name = options->transport ? options->transport : "tcp";
    side_t side = {.options = options};
    if (options->argc < 1 || options->batch > BATCH_MAX) {
        fprintf(stderr,
                "rf-bench link-hosts: say `listen HOST:PORT` on one host and HOST:PORT on the other%s\n",
                options->batch > BATCH_MAX ? "; a batch is at most 256 slots" : "");
        return RF_ERR_INVALID;
    }
    rf_err_t err = rf_transport_find(name, &side.transport, why, sizeof why);
    if (err != RF_OK) {
        fprintf(stderr, "rf-bench link-hosts: no medium \"%s\": %s\n", name, why);
        return err;
    }
    bool listens = strcmp(options->argv[0], "listen") == 0;
    if (listens && options->argc != 2) return RF_ERR_INVALID;
    err = listens ? serve(&side, options->argv[1]) : client(&side, options->argv[0]);
    if (side.link && !side.ended) side.transport->close(side.link);
    for (unsigned i = 0; i < 1000 && side.endpoint && !listens; i++) progress(&side); /* its last words */
    if (side.endpoint) side.transport->endpoint_close(side.endpoint);
    return err;
}

const bench_t bench_link_hosts = {"link-hosts", "a link between two hosts: latency, rate, bulk", run};
