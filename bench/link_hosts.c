/*
 * A link between two hosts, an end on each: what `link` measures in one process, where both ends have a CPU of their own.
 *
 *   rf-bench --transport rdma link-hosts listen 10.77.0.1:4711      on one host: serves one client, and ends with it
 *   rf-bench --transport rdma link-hosts 10.77.0.1:4711 [PIECE...]  on the other
 *
 *   one-way    a slot there and one back, both ends polling (--events: sleeping); half of it
 *   rate       slots one way, `batch` a flush; all are numbered, and have to come once and in order
 *   bulk       remote writes of `bytes` from registered memory, `depth` under way; who is written to sleeps, as that of
 *              ib_write_bw does but by rdma_cm (-R, on iWARP), where it polls: there, too, ours sleeps, for a guest of one
 *              CPU that polls lets no thread of its kernel answer the READs behind writes until its next tick
 *   read       a remote read of `bytes` (64), one after the other, into registered memory; who is read from sleeps
 *
 * The raw limit of the medium is measured by its own programs in the same minute (tests/lab/rdma/link_bench.sh runs them in
 * turn with this).
 */
#include "link_hosts.h"

#include "hosts.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define ONE_WAY_SAMPLES 2000
#define WARM_UP         200
#define RATE_SAMPLES    20
#define RATE_SLOTS      16384
#define BULK_SAMPLES    20
#define BULK_PER_SAMPLE 16
#define BULK_DEPTH      4
#define READ_BYTES      64
#define LONGEST_NS      (20 * RF_NS_PER_S) /* after that, and SAMPLES_LEAST, goodput is known well enough */
#define SAMPLES_LEAST   20

enum { TYPE_ECHO = 1, TYPE_SINK, TYPE_SINK_END, TYPE_REGION, TYPE_BULK_END };

/* ---- the end that serves ---- */

typedef struct server {
    hosts_end_t end;
    rf_region_t *region;
    uint64_t next;  /* number of the next slot that is only taken */
    uint64_t wrong; /* that had another */
} server_t;

/* The first payload word says how large. */
static bool region_make(server_t *server, rf_slot_t *slot)
{
    const rf_transport_t *t = server->end.transport;
    uint64_t size = slot->words[0];
    if (server->region) t->region_destroy(server->end.peers[0].link, server->region);
    server->region = NULL;
    if (t->region_create(server->end.peers[0].link, size, &server->region) != RF_OK) return false;
    memset(server->region->base, 0, size);
    memcpy(slot->payload, &server->region->key, sizeof server->region->key);
    return true;
}

static bool serve_slot(server_t *server, const rf_slot_t *slot)
{
    hosts_end_t *end = &server->end;
    rf_slot_t answer = *slot;
    switch (rf_control_type(slot->control)) {
    case TYPE_SINK:
        server->wrong += slot->words[0] != server->next;
        server->next = slot->words[0] + 1;
        return true;
    case TYPE_SINK_END:
        answer.words[0] = server->next;
        answer.words[1] = server->wrong;
        server->next = server->wrong = 0;
        break;
    case TYPE_REGION:
        if (!region_make(server, &answer)) return false;
        end->sleeps = true;
        break;
    case TYPE_BULK_END:
        end->sleeps = end->options->events;
        break;
    default: /* ECHO */
        break;
    }
    return hosts_send(end, &end->peers[0], &answer, 1);
}

static rf_err_t serve(server_t *server, const bench_options_t *options, const char *address)
{
    hosts_end_t *end = &server->end;
    hosts_peer_t *peer = &end->peers[0];
    rf_err_t err = hosts_open(end, options, address, 1);
    if (err != RF_OK) return err;
    end->sleeps = true;
    while (!peer->up && !peer->ended) hosts_wait(end);
    end->sleeps = options->events;
    rf_slot_t slots[HOSTS_BATCH_MAX];
    while (!peer->ended) {
        unsigned n = end->transport->poll(peer->link, slots, HOSTS_BATCH_MAX);
        for (unsigned i = 0; i < n; i++) {
            if (!serve_slot(server, &slots[i])) return peer->ended ? RF_OK : RF_ERR_OS;
        }
        if (n == 0) hosts_wait(end);
    }
    return RF_OK;
}

/* ---- the end that measures ---- */

static bool came_wrong(const char *what)
{
    fprintf(stderr, "rf-bench link-hosts: %s did not come once and in order\n", what);
    return false;
}

static bool one_way(hosts_end_t *end, bench_samples_t *samples)
{
    hosts_peer_t *peer = &end->peers[0];
    double half_ns = 0.5 * 1000 / (double)rf_clock_ticks_per_us();
    for (unsigned i = 0; i < samples->max + WARM_UP; i++) {
        rf_slot_t slot = hosts_slot(TYPE_ECHO);
        slot.words[0] = i;
        uint64_t before = rf_clock_ticks();
        if (!hosts_send(end, peer, &slot, 1) || !hosts_receive(end, peer, &slot)) return false;
        if (slot.words[0] != i) return came_wrong("an echo");
        if (i >= WARM_UP) bench_samples_add(samples, (double)(rf_clock_ticks() - before) * half_ns);
    }
    return true;
}

/* On a wire that loses much, all samples might take minutes. */
static bool long_enough(const bench_samples_t *samples, uint64_t began_ns)
{
    return samples->n >= SAMPLES_LEAST && rf_clock_ns() - began_ns > LONGEST_NS;
}

/* One sample: so many slots sent, until their last has been answered. *whole_slots_s: over all of them. */
static bool rate(hosts_end_t *end, bench_samples_t *samples, unsigned batch, double *whole_slots_s)
{
    hosts_peer_t *peer = &end->peers[0];
    rf_slot_t slots[HOSTS_BATCH_MAX];
    uint64_t began_ns = rf_clock_ns(), all_ns = 0;
    for (unsigned i = 0; i < HOSTS_BATCH_MAX; i++) slots[i] = hosts_slot(TYPE_SINK);
    for (unsigned i = 0; i < samples->max + 1 && !long_enough(samples, began_ns); i++) {
        uint64_t next = 0;
        uint64_t before_ns = rf_clock_ns();
        for (unsigned sent = 0; sent < RATE_SLOTS; sent += batch) {
            for (unsigned k = 0; k < batch; k++) slots[k].words[0] = next++;
            if (!hosts_send(end, peer, slots, batch)) return false;
        }
        rf_slot_t last = hosts_slot(TYPE_SINK_END);
        if (!hosts_send(end, peer, &last, 1) || !hosts_receive(end, peer, &last)) return false;
        if (last.words[0] != next || last.words[1] != 0) return came_wrong("slots");
        if (i == 0) continue;
        uint64_t ns = rf_clock_ns() - before_ns;
        bench_samples_add(samples, RATE_SLOTS * 1000.0 / (double)ns);
        all_ns += ns;
    }
    *whole_slots_s = (double)samples->n * RATE_SLOTS * RF_NS_PER_S / (double)all_ns;
    return true;
}

/* Keeps `depth` writes under way, all from and to one place, as ib_write_bw does; a sample a few of them. *whole_mb_s: over all of
 * them, which is what ib_write_bw calls its average. */
static bool bulk_writes(hosts_end_t *end, const rf_region_key_t *key, const uint8_t *source, unsigned bytes,
                        unsigned depth, bench_samples_t *samples, double *whole_mb_s)
{
    hosts_peer_t *peer = &end->peers[0];
    unsigned posted = 0, total = samples->max * BULK_PER_SAMPLE, seen = 0;
    uint64_t began = rf_clock_ticks(), before = began, began_ns = rf_clock_ns();
    double bytes_per_us = (double)bytes * (double)rf_clock_ticks_per_us();
    peer->written = 0;
    while (peer->written < total && !peer->ended) {
        bool posts = posted < total && posted - peer->written < depth;
        if (posts && end->transport->remote_write(peer->link, key, 0, source, bytes, NULL, posted) == RF_OK) {
            posted++;
            continue;
        }
        rf_slot_t none;
        if (end->transport->poll(peer->link, &none, 1) == 0 && posted - peer->written == depth)
            hosts_wait(end);
        if (peer->written < seen + BULK_PER_SAMPLE) continue;
        uint64_t now = rf_clock_ticks();
        bench_samples_add(samples, (double)(peer->written - seen) * bytes_per_us / (double)(now - before));
        before = now;
        seen = peer->written;
        if (long_enough(samples, began_ns)) total = posted;
    }
    *whole_mb_s = (double)peer->written * bytes_per_us / (double)(rf_clock_ticks() - began);
    return peer->written >= total;
}

/* One byte, until it is there: what remote writes go over is made with the first. */
static bool bulk_opens(hosts_end_t *end, const rf_region_key_t *key, const uint8_t *source)
{
    hosts_peer_t *peer = &end->peers[0];
    rf_slot_t none;
    peer->written = 0;
    if (end->transport->remote_write(peer->link, key, 0, source, 1, NULL, 0) != RF_OK) return false;
    while (peer->written == 0 && !peer->ended) {
        if (end->transport->poll(peer->link, &none, 1) == 0 && peer->written == 0) hosts_wait(end);
    }
    return peer->written == 1;
}

/* The peer makes a region of so many bytes, and sleeps from then on. */
static bool region_ask(hosts_end_t *end, unsigned bytes, rf_region_key_t *key)
{
    hosts_peer_t *peer = &end->peers[0];
    rf_slot_t slot = hosts_slot(TYPE_REGION);
    slot.words[0] = bytes;
    if (!hosts_send(end, peer, &slot, 1) || !hosts_receive(end, peer, &slot)) return false;
    memcpy(key, slot.payload, sizeof *key);
    return true;
}

static bool region_done(hosts_end_t *end)
{
    hosts_peer_t *peer = &end->peers[0];
    rf_slot_t slot = hosts_slot(TYPE_BULK_END);
    return !peer->refused && hosts_send(end, peer, &slot, 1) && hosts_receive(end, peer, &slot);
}

/* From memory of a region, which its device knows once and for all, as ib_write_bw writes from a registered buffer. */
static bool bulk(hosts_end_t *end, bench_samples_t *samples, unsigned bytes, unsigned depth,
                 double *whole_mb_s)
{
    rf_link_t *link = end->peers[0].link;
    rf_region_t *source;
    rf_region_key_t key;
    if (!region_ask(end, bytes, &key) || end->transport->region_create(link, bytes, &source) != RF_OK)
        return false;
    memset(source->base, 1, bytes);
    bool done = bulk_opens(end, &key, source->base) &&
                bulk_writes(end, &key, source->base, bytes, depth, samples, whole_mb_s) && region_done(end);
    end->transport->region_destroy(link, source);
    return done;
}

/* One after the other, as ib_read_lat does. */
static bool reads(hosts_end_t *end, const rf_region_key_t *key, void *to, unsigned bytes,
                  bench_samples_t *samples)
{
    const rf_transport_t *t = end->transport;
    hosts_peer_t *peer = &end->peers[0];
    double ns = 1000 / (double)rf_clock_ticks_per_us();
    rf_slot_t none;
    peer->read = 0;
    for (unsigned i = 0; i < samples->max + WARM_UP; i++) {
        uint64_t before = rf_clock_ticks();
        if (t->remote_read(peer->link, key, 0, to, bytes, i) != RF_OK) return false;
        while (peer->read <= i) {
            if (t->poll(peer->link, &none, 1) == 0 && peer->read <= i) hosts_wait(end);
            if (peer->ended) return false;
        }
        if (i >= WARM_UP) bench_samples_add(samples, (double)(rf_clock_ticks() - before) * ns);
    }
    return true;
}

static bool read_latency(hosts_end_t *end, bench_samples_t *samples, unsigned bytes)
{
    const rf_transport_t *t = end->transport;
    rf_link_t *link = end->peers[0].link;
    rf_region_key_t key;
    rf_region_t *to;
    if (!region_ask(end, bytes, &key) || t->region_create(link, bytes, &to) != RF_OK) return false;
    bool done = reads(end, &key, to->base, bytes, samples);
    t->region_destroy(link, to);
    return done && region_done(end);
}

static bool wanted(const bench_options_t *options, const char *piece)
{
    for (int i = 1; i < options->argc; i++) {
        if (strcmp(options->argv[i], piece) == 0) return true;
    }
    return options->argc == 1;
}

static bench_result_t result_of(const hosts_end_t *end, const char *piece, const char *unit, unsigned size,
                                bench_samples_t *samples)
{
    static char what[64]; /* one at a time */
    snprintf(what, sizeof what, "%s %s%s", end->transport->name, piece,
             end->options->events ? ", sleeping" : "");
    return (bench_result_t){
        .bench = "link-hosts", .what = what, .unit = unit, .size = size, .samples = samples};
}

static bool measure_one_way(hosts_end_t *end)
{
    bench_samples_t samples;
    bench_samples_init(&samples, end->options->samples ? end->options->samples : ONE_WAY_SAMPLES);
    bool ok = one_way(end, &samples);
    bench_result_t result = result_of(end, "one-way", "ns", sizeof(rf_slot_t), &samples);
    if (ok) bench_report(end->options, &result);
    bench_samples_free(&samples);
    return ok;
}

static bool measure_rate(hosts_end_t *end, unsigned batch)
{
    bench_samples_t samples;
    bench_samples_init(&samples, end->options->samples ? end->options->samples : RATE_SAMPLES);
    double whole_slots_s = 0;
    bool ok = rate(end, &samples, batch, &whole_slots_s);
    bench_result_t result = result_of(end, "rate", "M/s", sizeof(rf_slot_t), &samples);
    bench_result_param(&result, "batch", batch);
    bench_result_param(&result, "whole_slots_s", (uint64_t)(whole_slots_s + 0.5));
    if (ok) bench_report(end->options, &result);
    bench_samples_free(&samples);
    return ok;
}

static bool measure_bulk(hosts_end_t *end, unsigned bytes)
{
    unsigned depth = end->options->depth ? end->options->depth : BULK_DEPTH;
    bench_samples_t samples;
    bench_samples_init(&samples, end->options->samples ? end->options->samples : BULK_SAMPLES);
    double whole_mb_s = 0;
    bool ok = bulk(end, &samples, bytes, depth, &whole_mb_s);
    bench_result_t result = result_of(end, "bulk", "MB/s", bytes, &samples);
    bench_result_param(&result, "bytes", bytes);
    bench_result_param(&result, "depth", depth);
    bench_result_param(&result, "whole_mb_s", (uint64_t)(whole_mb_s + 0.5));
    if (ok) bench_report(end->options, &result);
    bench_samples_free(&samples);
    return ok;
}

static bool measure_read(hosts_end_t *end)
{
    unsigned bytes = end->options->bytes ? end->options->bytes : READ_BYTES;
    bench_samples_t samples;
    bench_samples_init(&samples, end->options->samples ? end->options->samples : ONE_WAY_SAMPLES);
    bool ok = read_latency(end, &samples, bytes);
    bench_result_t result = result_of(end, "read", "ns", bytes, &samples);
    bench_result_param(&result, "bytes", bytes);
    if (ok) bench_report(end->options, &result);
    bench_samples_free(&samples);
    return ok;
}

static bool measure(hosts_end_t *end)
{
    static const unsigned batches[] = {1, 16, 64}, sizes[] = {64u << 10, 1u << 20};
    const bench_options_t *options = end->options;
    bool ok = true;
    if (wanted(options, "one-way")) ok = measure_one_way(end);
    for (unsigned i = 0; i < 3 && ok && wanted(options, "rate"); i++) {
        if (options->batch && i > 0) break;
        ok = measure_rate(end, options->batch ? options->batch : batches[i]);
    }
    for (unsigned i = 0; i < 2 && ok && wanted(options, "bulk"); i++) {
        if (options->bytes && i > 0) break;
        ok = measure_bulk(end, options->bytes ? options->bytes : sizes[i]);
    }
    bool reads = end->transport->flags & RF_TRANSPORT_REMOTE_READ;
    if (ok && (reads || options->argc > 1) && wanted(options, "read")) ok = measure_read(end);
    return ok;
}

static rf_err_t client(hosts_end_t *end, const bench_options_t *options)
{
    rf_err_t err = hosts_open(end, options, NULL, 1);
    if (err == RF_OK) err = hosts_connect(end, options->argv[0]);
    if (err != RF_OK || measure(end)) return err;
    fprintf(stderr, "rf-bench link-hosts: the link to %s ended: %s\n", options->argv[0],
            rf_err_text(end->peers[0].why));
    return end->peers[0].why != RF_OK ? end->peers[0].why : RF_ERR_PROTOCOL;
}

rf_err_t bench_between_hosts(const bench_options_t *options)
{
    bool listens = options->argc > 0 && strcmp(options->argv[0], "listen") == 0;
    if (options->argc < 1 || options->batch > HOSTS_BATCH_MAX || (listens && options->argc != 2)) {
        fprintf(stderr,
                "rf-bench link-hosts: say `listen HOST:PORT` on one host and HOST:PORT on the other%s\n",
                options->batch > HOSTS_BATCH_MAX ? "; a batch is at most 256 slots" : "");
        return RF_ERR_INVALID;
    }
    server_t server = {0};
    rf_err_t err = listens ? serve(&server, options, options->argv[1]) : client(&server.end, options);
    hosts_close(&server.end);
    return err;
}

const bench_t bench_link_hosts = {"link-hosts", "a link between two hosts: latency, rate, bulk",
                                  bench_between_hosts};
