/*
 * All to all: every host sends to every other at the same time, over one link a pair.
 *
 *   rf-bench --transport dpdk alltoall NUMBER HOST:PORT HOST:PORT... [PIECE...]      on each host, NUMBER being its place from 0
 *
 *   rate       slots that all hosts together took, `batch` a flush
 *   bulk       bytes of all hosts together, in remote writes of `bytes`, `depth` under way from each host to each other
 *   share      of each piece: what the slowest pair got through, one way, of an equal share, in percent
 *
 * Host 0 says when a round begins and ends, adds up what the others say that they took in it, and prints. A round ends for a host when
 * all others have said that nothing more comes from them.
 */
#include "hosts.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS       10
#define ROUND_NS     (200 * RF_NS_PER_MS)
#define WARM_UP      1 /* rounds */
#define BATCH        16
#define DEPTH        2
#define BYTES        (64u << 10)
#define DUE_MAX      4
#define UP_NS_MAX    (30 * RF_NS_PER_S)
#define REPORT_WORDS 3

enum { TYPE_START = 1, TYPE_KEY, TYPE_STOP, TYPE_STOPPED, TYPE_REPORT, TYPE_ITEM };

/* What is exchanged with one other host. */
typedef struct pair {
    rf_region_t *region;    /* that it writes to */
    rf_region_key_t key;    /* of what is written to there */
    bool may_write;         /* the key has come, in this round */
    bool stopped;           /* nothing more comes of it in this round */
    unsigned posted;        /* remote writes of this round; end.peers[].written counts them, too */
    uint64_t items;         /* that have come of it in this round */
    rf_slot_t due[DUE_MAX]; /* to be said, in order, as soon as there is room */
    unsigned n_due;
} pair_t;

typedef struct all {
    hosts_end_t end;
    pair_t pairs[HOSTS_PEERS_MAX];
    uint8_t *source;
    unsigned at_once, bytes; /* of this round; bytes 0: slots */
    bool running, sending;   /* a round is; and is not to end */
    bool conducts;           /* host 0 */
    uint64_t started_ns;
    rf_err_t why; /* turn() said that it is over */
    /* Host 0's sums of a round. */
    unsigned reports;
    double items_a_us;
    uint64_t least, items;
} all_t;

static void say(all_t *a, unsigned i, const rf_slot_t *slot)
{
    pair_t *pair = &a->pairs[i];
    if (pair->n_due < DUE_MAX) pair->due[pair->n_due++] = *slot;
}

static void say_all(all_t *a, const rf_slot_t *slot)
{
    for (unsigned i = 0; i < a->end.n_peers; i++) say(a, i, slot);
}

/* ---- a round ---- */

/* Where the other host is to write: a region of its own, of the size of this round. */
static bool key_say(all_t *a, unsigned i)
{
    const rf_transport_t *t = a->end.transport;
    pair_t *pair = &a->pairs[i];
    rf_slot_t slot = hosts_slot(TYPE_KEY);
    if (pair->region && pair->region->size != a->bytes) {
        t->region_destroy(a->end.peers[i].link, pair->region);
        pair->region = NULL;
    }
    if (!pair->region && t->region_create(a->end.peers[i].link, a->bytes, &pair->region) != RF_OK)
        return false;
    memset(pair->region->base, 0, a->bytes);
    memcpy(slot.payload, &pair->region->key, sizeof pair->region->key);
    say(a, i, &slot);
    return true;
}

static bool round_begin(all_t *a, unsigned at_once, unsigned bytes)
{
    a->at_once = at_once;
    a->bytes = bytes;
    a->running = a->sending = true;
    a->started_ns = rf_clock_ns();
    for (unsigned i = 0; i < a->end.n_peers; i++) {
        pair_t *pair = &a->pairs[i];
        pair->may_write = pair->stopped = false;
        pair->posted = a->end.peers[i].written = 0;
        pair->items = 0;
        if (bytes > 0 && !key_say(a, i)) return false;
    }
    return true;
}

static void count(all_t *a, uint64_t items, uint64_t least, uint64_t ns)
{
    a->reports++;
    a->items += items;
    a->items_a_us += (double)items * 1e3 / (double)ns;
    if (least < a->least) a->least = least;
}

/* All others have stopped: what came is known. */
static void round_end(all_t *a)
{
    uint64_t all = 0, least = UINT64_MAX, ns = rf_clock_ns() - a->started_ns;
    for (unsigned i = 0; i < a->end.n_peers; i++) {
        all += a->pairs[i].items;
        if (a->pairs[i].items < least) least = a->pairs[i].items;
    }
    a->running = false;
    if (a->conducts) {
        count(a, all, least, ns);
        return;
    }
    rf_slot_t report = hosts_slot(TYPE_REPORT);
    const uint64_t words[REPORT_WORDS] = {all, least, ns};
    memcpy(report.words, words, sizeof words);
    say(a, 0, &report);
}

static bool take_one(all_t *a, unsigned i, const rf_slot_t *slot)
{
    pair_t *pair = &a->pairs[i];
    switch (rf_control_type(slot->control)) {
    case TYPE_ITEM:
        pair->items++;
        return true;
    case TYPE_START:
        if (a->conducts || i != 0 || slot->words[0] < 1 || slot->words[0] > HOSTS_BATCH_MAX ||
            slot->words[1] > BENCH_BYTES_MAX)
            return false;
        return round_begin(a, (unsigned)slot->words[0], (unsigned)slot->words[1]);
    case TYPE_KEY:
        memcpy(&pair->key, slot->payload, sizeof pair->key);
        pair->may_write = true;
        return true;
    case TYPE_STOP:
        a->sending = false;
        return !a->conducts;
    case TYPE_STOPPED:
        pair->stopped = true;
        return true;
    case TYPE_REPORT:
        count(a, slot->words[0], slot->words[1], slot->words[2]);
        return a->conducts && slot->words[2] > 0;
    default:
        return false;
    }
}

/* What there is to say, then what there is to send. */
static void give(all_t *a, unsigned i)
{
    const rf_transport_t *t = a->end.transport;
    hosts_peer_t *peer = &a->end.peers[i];
    pair_t *pair = &a->pairs[i];
    if (pair->n_due > 0) {
        unsigned sent = t->send(peer->link, pair->due, pair->n_due);
        t->flush(peer->link);
        pair->n_due -= sent;
        memmove(pair->due, pair->due + sent, pair->n_due * sizeof *pair->due);
        return;
    }
    if (!a->running || !a->sending) return;
    rf_slot_t slots[HOSTS_BATCH_MAX];
    slots[0] = hosts_slot(TYPE_ITEM);
    if (a->bytes > 0) {
        while (pair->may_write && pair->posted - peer->written < a->at_once &&
               t->remote_write(peer->link, &pair->key, 0, a->source, a->bytes, &slots[0], pair->posted) ==
                   RF_OK)
            pair->posted++;
        return;
    }
    for (unsigned k = 1; k < a->at_once; k++) slots[k] = slots[0];
    if (t->send(peer->link, slots, a->at_once) > 0) t->flush(peer->link);
}

/* This host sends no more, and its remote writes are through: it says so, once. */
static void stop_say(all_t *a, bool *said)
{
    if (a->sending || *said) return;
    for (unsigned i = 0; i < a->end.n_peers; i++) {
        if (a->bytes > 0 && a->end.peers[i].written != a->pairs[i].posted) return;
    }
    rf_slot_t stopped = hosts_slot(TYPE_STOPPED);
    say_all(a, &stopped);
    *said = true;
}

/* One look at everything. False: a link ended, or something came that makes no sense. */
static bool turn(all_t *a, bool *said)
{
    rf_slot_t slots[HOSTS_BATCH_MAX];
    unsigned heard = 0, stopped = 0;
    for (unsigned i = 0; i < a->end.n_peers; i++) {
        hosts_peer_t *peer = &a->end.peers[i];
        unsigned n = peer->ended ? 0 : a->end.transport->poll(peer->link, slots, HOSTS_BATCH_MAX);
        for (unsigned k = 0; k < n; k++) {
            if (!take_one(a, i, &slots[k])) {
                a->why = RF_ERR_PROTOCOL;
                return false;
            }
        }
        heard += n;
        if (peer->ended) {
            a->why = peer->why;
            return false;
        }
        give(a, i);
        stopped += a->pairs[i].stopped;
    }
    if (a->running) stop_say(a, said);
    if (a->running && *said && stopped == a->end.n_peers) {
        round_end(a);
        *said = false;
    }
    a->end.sleeps = a->end.options->events || !a->running;
    if (heard == 0) hosts_wait(&a->end);
    return true;
}

/* ---- host 0 ---- */

static bool round_conduct(all_t *a, unsigned at_once, unsigned bytes)
{
    bool said = false;
    rf_slot_t start = hosts_slot(TYPE_START), stop = hosts_slot(TYPE_STOP);
    start.words[0] = at_once;
    start.words[1] = bytes;
    a->reports = 0;
    a->items = 0;
    a->items_a_us = 0;
    a->least = UINT64_MAX;
    say_all(a, &start);
    if (!round_begin(a, at_once, bytes)) return false;
    while (rf_clock_ns() - a->started_ns < ROUND_NS) {
        if (!turn(a, &said)) return false;
    }
    a->sending = false;
    say_all(a, &stop);
    while (a->reports <= a->end.n_peers) {
        if (!turn(a, &said)) return false;
    }
    return true;
}

static void report(const all_t *a, const char *piece, const char *unit, const char *what_at_once,
                   unsigned at_once, unsigned size, bench_samples_t *samples)
{
    char what[64];
    snprintf(what, sizeof what, "%s %s", a->end.transport->name, piece);
    bench_result_t result = {
        .bench = "alltoall", .what = what, .unit = unit, .size = size, .samples = samples};
    bench_result_param(&result, "hosts", a->end.n_peers + 1);
    bench_result_param(&result, what_at_once, at_once);
    bench_report(a->end.options, &result);
}

static bool measure(all_t *a, bool bulk)
{
    const bench_options_t *o = a->end.options;
    unsigned rounds = o->samples ? o->samples : ROUNDS, n = a->end.n_peers;
    unsigned at_once = bulk ? (o->depth ? o->depth : DEPTH) : (o->batch ? o->batch : BATCH);
    unsigned bytes = bulk ? (o->bytes ? o->bytes : BYTES) : 0;
    bench_samples_t rates, shares;
    bench_samples_init(&rates, rounds);
    bench_samples_init(&shares, rounds);
    bool ok = true;
    for (unsigned i = 0; ok && i < rounds + WARM_UP; i++) {
        ok = round_conduct(a, at_once, bytes);
        if (!ok || i < WARM_UP) continue;
        double pairs = (double)n * (n + 1);
        bench_samples_add(&rates, bulk ? a->items_a_us * bytes : a->items_a_us);
        bench_samples_add(&shares, a->items ? 100.0 * (double)a->least * pairs / (double)a->items : 0);
    }
    const char *at = bulk ? "depth" : "batch";
    unsigned size = bulk ? bytes : (unsigned)sizeof(rf_slot_t);
    if (ok) report(a, bulk ? "bulk" : "rate", bulk ? "MB/s" : "M/s", at, at_once, size, &rates);
    if (ok)
        report(a, bulk ? "bulk, share of the slowest pair" : "rate, share of the slowest pair", "%", at,
               at_once, size, &shares);
    bench_samples_free(&rates);
    bench_samples_free(&shares);
    return ok;
}

/* ---- the hosts ---- */

static bool wanted(const bench_options_t *options, unsigned first, const char *piece)
{
    for (int i = (int)first; i < options->argc; i++) {
        if (strcmp(options->argv[i], piece) == 0) return true;
    }
    return options->argc == (int)first;
}

/* A link to each host before this one; those behind it come. */
static rf_err_t links_make(all_t *a, unsigned number, unsigned hosts)
{
    uint64_t until_ns = rf_clock_ns() + UP_NS_MAX;
    rf_err_t err = RF_OK;
    for (unsigned i = 0; err == RF_OK && i < number; i++)
        err = hosts_connect(&a->end, a->end.options->argv[1 + i]);
    a->end.sleeps = true;
    for (unsigned up = 0; err == RF_OK && up + 1 < hosts;) {
        hosts_wait(&a->end);
        up = 0;
        for (unsigned i = 0; i < a->end.n_peers; i++) up += a->end.peers[i].up;
        if (rf_clock_ns() > until_ns) err = RF_ERR_TIMEOUT;
    }
    return err;
}

static rf_err_t run_host(const bench_options_t *options, unsigned number, unsigned hosts)
{
    static all_t a;
    a = (all_t){.conducts = number == 0, .source = calloc(1, BENCH_BYTES_MAX)};
    if (!a.source) return RF_ERR_NO_MEMORY;
    rf_err_t err = hosts_open(&a.end, options, options->argv[1 + number], hosts - 1);
    if (err == RF_OK) err = links_make(&a, number, hosts);
    bool ok = err == RF_OK, said = false;
    if (ok && a.conducts) {
        if (wanted(options, 1 + hosts, "rate")) ok = measure(&a, false);
        if (ok && wanted(options, 1 + hosts, "bulk")) ok = measure(&a, true);
    }
    while (ok && !a.conducts) ok = turn(&a, &said);
    /* Host 0 closes its links when it has seen enough, and then all others do. */
    bool in_order = a.conducts ? ok : a.why == RF_ERR_CLOSED && !a.running;
    if (err == RF_OK && !in_order) {
        fprintf(stderr, "rf-bench alltoall: a link ended: %s\n", rf_err_text(a.why));
        err = a.why;
    }
    hosts_close(&a.end);
    free(a.source);
    return err;
}

static rf_err_t run(const bench_options_t *options)
{
    unsigned hosts = 0;
    char *end = NULL;
    unsigned long number = options->argc > 0 ? strtoul(options->argv[0], &end, 10) : 0;
    while ((int)hosts + 1 < options->argc && strchr(options->argv[1 + hosts], ':')) hosts++;
    if (!end || *end != 0 || hosts < 2 || hosts > HOSTS_PEERS_MAX + 1 || number >= hosts ||
        options->batch > HOSTS_BATCH_MAX) {
        fprintf(stderr,
                "rf-bench alltoall: say this host's number from 0, and then HOST:PORT of each, 2 to %u; a "
                "batch is at most %u slots\n",
                HOSTS_PEERS_MAX + 1, HOSTS_BATCH_MAX);
        return RF_ERR_INVALID;
    }
    return run_host(options, (unsigned)number, hosts);
}

const bench_t bench_alltoall = {"alltoall",
                                "every host sends to every other: rate, bulk, the slowest pair's share", run};
