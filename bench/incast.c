/*
 * Incast: several hosts send to one at the same time.
 *
 *   rf-bench --transport rdma incast --senders 2 listen 10.77.0.1:4712     on the receiver; it measures, and prints
 *   rf-bench --transport rdma incast 10.77.0.1:4712                        on each of the senders
 *
 *   rate       slots of all senders together that the receiver took, `batch` a flush
 *   bulk       bytes of all senders together, in remote writes of `bytes`, `depth` under way at each sender
 *   share      of each piece: what the slowest sender got through, of an equal share, in percent
 *
 * All start when the last has come, and go on until the receiver says that it has seen enough.
 */
#include "hosts.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define SAMPLES         20
#define SENDERS         2
#define BATCH           16
#define DEPTH           4
#define BYTES           (64u << 10)
#define SLOTS_A_SAMPLE  16384
#define WRITES_A_SAMPLE 64

enum { TYPE_START_RATE = 1, TYPE_START_BULK, TYPE_STOP, TYPE_STOPPED, TYPE_ITEM };

/* ---- a sender ---- */

typedef struct sender {
    hosts_end_t end;
    rf_slot_t start; /* what is sent now; no control word: nothing */
    rf_region_key_t key;
    uint8_t *source;
    unsigned posted;
    bool stops; /* its remote writes come to an end, and then it has stopped */
} sender_t;

/* As much as the link takes now. */
static void send_slots(sender_t *s, unsigned batch)
{
    hosts_peer_t *peer = &s->end.peers[0];
    rf_slot_t slots[HOSTS_BATCH_MAX];
    for (unsigned i = 0; i < batch; i++) slots[i] = hosts_slot(TYPE_ITEM);
    if (s->end.transport->send(peer->link, slots, batch) > 0) s->end.transport->flush(peer->link);
}

static void send_writes(sender_t *s, unsigned bytes, unsigned depth)
{
    hosts_peer_t *peer = &s->end.peers[0];
    rf_slot_t notify = hosts_slot(TYPE_ITEM);
    while (s->posted - peer->written < depth &&
           s->end.transport->remote_write(peer->link, &s->key, 0, s->source, bytes, &notify, s->posted) ==
               RF_OK)
        s->posted++;
}

static bool sender_hears(sender_t *s, const rf_slot_t *slot)
{
    hosts_peer_t *peer = &s->end.peers[0];
    switch (rf_control_type(slot->control)) {
    case TYPE_START_RATE:
    case TYPE_START_BULK:
        s->start = *slot;
        s->stops = false;
        s->posted = peer->written = 0;
        memcpy(&s->key, &slot->words[2], sizeof s->key);
        return slot->words[0] >= 1 && slot->words[0] <= HOSTS_BATCH_MAX && slot->words[1] <= BENCH_BYTES_MAX;
    case TYPE_STOP:
        s->stops = true;
        return true;
    default:
        return false;
    }
}

/* A turn of what it is to send. False: the link ended. */
static bool sender_turn(sender_t *s)
{
    hosts_peer_t *peer = &s->end.peers[0];
    unsigned at_once = (unsigned)s->start.words[0], bytes = (unsigned)s->start.words[1];
    bool bulk = rf_control_type(s->start.control) == TYPE_START_BULK;
    if (s->stops) {
        if (bulk && peer->written != s->posted) return true;
        s->stops = false;
        s->start = (rf_slot_t){.control = 0};
        rf_slot_t stopped = hosts_slot(TYPE_STOPPED);
        return hosts_send(&s->end, peer, &stopped, 1);
    }
    if (bulk)
        send_writes(s, bytes, at_once);
    else
        send_slots(s, at_once);
    return true;
}

static rf_err_t run_sender(const bench_options_t *options)
{
    sender_t s = {.source = calloc(1, BENCH_BYTES_MAX)};
    if (!s.source) return RF_ERR_NO_MEMORY;
    rf_err_t err = hosts_open(&s.end, options, NULL, 1);
    if (err == RF_OK) err = hosts_connect(&s.end, options->argv[0]);
    hosts_peer_t *peer = &s.end.peers[0];
    while (err == RF_OK && !peer->ended) {
        rf_slot_t slot;
        bool heard = s.end.transport->poll(peer->link, &slot, 1) == 1;
        if (heard && !sender_hears(&s, &slot)) err = RF_ERR_PROTOCOL;
        bool sends = s.start.control != 0;
        if (sends && !sender_turn(&s) && !peer->ended) err = RF_ERR_PROTOCOL;
        s.end.sleeps = !sends;
        if (!heard) hosts_wait(&s.end);
    }
    if (err == RF_OK && peer->why != RF_ERR_CLOSED) err = peer->why;
    hosts_close(&s.end);
    free(s.source);
    return err;
}

/* ---- the receiver ---- */

typedef struct receiver {
    hosts_end_t end;
    rf_region_t *regions[HOSTS_PEERS_MAX];
    uint64_t items[HOSTS_PEERS_MAX]; /* taken from each, while it was measured */
    unsigned stopped;
} receiver_t;

static bool all_there(const receiver_t *r)
{
    for (unsigned i = 0; i < r->end.n_peers; i++) {
        if (r->end.peers[i].ended) return false;
    }
    return true;
}

/* Takes what has come. The number of items. */
static unsigned take(receiver_t *r)
{
    rf_slot_t slots[HOSTS_BATCH_MAX];
    unsigned all = 0;
    for (unsigned i = 0; i < r->end.n_peers; i++) {
        unsigned n = r->end.transport->poll(r->end.peers[i].link, slots, HOSTS_BATCH_MAX), items = 0;
        for (unsigned k = 0; k < n; k++) {
            items += rf_control_type(slots[k].control) == TYPE_ITEM;
            r->stopped += rf_control_type(slots[k].control) == TYPE_STOPPED;
        }
        r->items[i] += items;
        all += items;
    }
    if (all == 0) hosts_wait(&r->end);
    return all;
}

static bool say_all(receiver_t *r, rf_slot_t *slot)
{
    for (unsigned i = 0; i < r->end.n_peers; i++) {
        hosts_peer_t *peer = &r->end.peers[i];
        if (r->regions[i]) memcpy(&slot->words[2], &r->regions[i]->key, sizeof r->regions[i]->key);
        unsigned sent = 0;
        while (sent == 0 && all_there(r)) { /* what comes from those who have started is taken meanwhile */
            sent = r->end.transport->send(peer->link, slot, 1);
            r->end.transport->flush(peer->link);
            if (sent == 0) take(r);
        }
    }
    return all_there(r);
}

static double share_of_slowest(const receiver_t *r)
{
    uint64_t all = 0, least = UINT64_MAX;
    for (unsigned i = 0; i < r->end.n_peers; i++) {
        all += r->items[i];
        if (r->items[i] < least) least = r->items[i];
    }
    return all == 0 ? 0 : 100.0 * (double)least * r->end.n_peers / (double)all;
}

/* Starts all, takes samples of `each` items, stops all. The first is for warming up. */
static bool flood(receiver_t *r, rf_slot_t *start, unsigned each, double scale, bench_samples_t *samples)
{
    memset(r->items, 0, sizeof r->items);
    r->stopped = 0;
    if (!say_all(r, start)) return false;
    uint64_t before = rf_clock_ticks();
    unsigned got = 0;
    for (unsigned i = 0; i <= samples->max && all_there(r);) {
        got += take(r);
        if (got < each) continue;
        uint64_t now = rf_clock_ticks();
        double us = (double)(now - before) / (double)rf_clock_ticks_per_us();
        if (i++ > 0)
            bench_samples_add(samples, got * scale / us);
        else
            memset(r->items, 0, sizeof r->items);
        before = now;
        got = 0;
    }
    rf_slot_t stop = hosts_slot(TYPE_STOP);
    uint64_t counted[HOSTS_PEERS_MAX];
    memcpy(counted, r->items, sizeof counted);
    if (!say_all(r, &stop)) return false;
    while (r->stopped < r->end.n_peers && all_there(r)) take(r);
    memcpy(r->items, counted, sizeof counted);
    return all_there(r);
}

static void report(receiver_t *r, const char *piece, const char *unit, unsigned size, unsigned at_once,
                   bench_samples_t *samples)
{
    char what[64];
    snprintf(what, sizeof what, "%s %s", r->end.transport->name, piece);
    bench_result_t result = {.bench = "incast", .what = what, .unit = unit, .size = size, .samples = samples};
    bench_result_param(&result, "senders", r->end.n_peers);
    bench_result_param(&result, size > sizeof(rf_slot_t) ? "depth" : "batch", at_once);
    if (size > sizeof(rf_slot_t)) bench_result_param(&result, "bytes", size);
    bench_report(r->end.options, &result);
    bench_samples_t share;
    bench_samples_init(&share, 1);
    bench_samples_add(&share, share_of_slowest(r));
    snprintf(what, sizeof what, "%s %s, share of the slowest", r->end.transport->name, piece);
    result.unit = "%";
    result.samples = &share;
    bench_report(r->end.options, &result);
    bench_samples_free(&share);
}

static bool measure_rate(receiver_t *r)
{
    const bench_options_t *options = r->end.options;
    bench_samples_t samples;
    bench_samples_init(&samples, options->samples ? options->samples : SAMPLES);
    rf_slot_t start = hosts_slot(TYPE_START_RATE);
    start.words[0] = options->batch ? options->batch : BATCH;
    bool ok = flood(r, &start, SLOTS_A_SAMPLE, 1, &samples);
    if (ok) report(r, "rate", "M/s", sizeof(rf_slot_t), (unsigned)start.words[0], &samples);
    bench_samples_free(&samples);
    return ok;
}

static bool measure_bulk(receiver_t *r)
{
    const bench_options_t *options = r->end.options;
    rf_slot_t start = hosts_slot(TYPE_START_BULK);
    start.words[0] = options->depth ? options->depth : DEPTH;
    start.words[1] = options->bytes ? options->bytes : BYTES;
    for (unsigned i = 0; i < r->end.n_peers; i++) {
        if (r->end.transport->region_create(r->end.peers[i].link, start.words[1], &r->regions[i]) != RF_OK)
            return false;
        memset(r->regions[i]->base, 0, start.words[1]);
    }
    bench_samples_t samples;
    bench_samples_init(&samples, options->samples ? options->samples : SAMPLES);
    bool ok = flood(r, &start, WRITES_A_SAMPLE, (double)start.words[1], &samples);
    if (ok) report(r, "bulk", "MB/s", (unsigned)start.words[1], (unsigned)start.words[0], &samples);
    bench_samples_free(&samples);
    return ok;
}

static bool wanted(const bench_options_t *options, const char *piece)
{
    for (int i = 2; i < options->argc; i++) {
        if (strcmp(options->argv[i], piece) == 0) return true;
    }
    return options->argc == 2;
}

static rf_err_t run_receiver(const bench_options_t *options)
{
    receiver_t r = {.stopped = 0};
    unsigned senders = options->senders ? options->senders : SENDERS, up = 0;
    rf_err_t err = hosts_open(&r.end, options, options->argv[1], senders);
    r.end.sleeps = true;
    while (err == RF_OK && up < senders) {
        hosts_wait(&r.end);
        up = 0;
        for (unsigned i = 0; i < r.end.n_peers; i++) up += r.end.peers[i].up;
        if (!all_there(&r)) err = RF_ERR_PEER_DEAD;
    }
    r.end.sleeps = options->events;
    bool ok = err == RF_OK;
    if (ok && wanted(options, "rate")) ok = measure_rate(&r);
    if (ok && wanted(options, "bulk")) ok = measure_bulk(&r);
    if (!ok && err == RF_OK) {
        fprintf(stderr, "rf-bench incast: a sender's link ended\n");
        err = RF_ERR_PEER_DEAD;
    }
    hosts_close(&r.end);
    return err;
}

static rf_err_t run(const bench_options_t *options)
{
    bool listens = options->argc > 0 && strcmp(options->argv[0], "listen") == 0;
    if (options->argc < 1 || (listens && options->argc < 2) || options->batch > HOSTS_BATCH_MAX) {
        fprintf(stderr, "rf-bench incast: say `listen HOST:PORT [rate] [bulk]` on one host and HOST:PORT on "
                        "the others; a batch is at most 256 slots\n");
        return RF_ERR_INVALID;
    }
    return listens ? run_receiver(options) : run_sender(options);
}

const bench_t bench_incast = {"incast", "several hosts send to one: rate, bulk, the slowest one's share",
                              run};
