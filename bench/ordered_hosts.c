/*
 * Commits on three hosts, each replica on its own, in both variants, beside bare loops over the same links with the same polling:
 *
 *   rf-bench --transport rdma ordered-hosts voter 1 10.77.0.2:4711          on one host: serves one leader, and ends with it
 *   rf-bench --transport rdma ordered-hosts voter 2 10.77.0.3:4711 500      on another; looks every 500 us only, and needs no CPU
 *   rf-bench --transport rdma ordered-hosts leader 10.77.0.2:4711 10.77.0.3:4711 [message] [one-sided]
 *
 *   message     a proposal of 64 bytes until it is answered. Raw limit: a slot to both voters, until the first has sent it back
 *   one-sided   the same, entries written into the voters' lanes. Raw limit: a remote write of as many bytes to both voters, until the
 *               first is complete
 *
 * A majority of three is the leader and the faster of the others, in both. Raw and ours take turns, TURN samples each, so that
 * whatever else the hosts do hits both. No replica is a monitor here: what a monitor adds is wake-ups and its clients.
 */
#include "agree_node.h"
#include "hosts.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VOTERS        2 /* besides the leader */
#define SAMPLES       2000
#define TURN          50
#define WARM_TURNS    4
#define COMMAND_BYTES 64
#define LANE_LINES    1024
#define LANE_BYTES    (LANE_LINES * AGREEMENT_LANE_LINE)
#define RAW_BYTES     192 /* a record of one such command */
#define LAZY_NS       (50 * RF_NS_PER_US)
#define WAIT_NS       (20 * RF_NS_PER_S)
#define UNSURE        5.0 /* a bare loop whose p99 is so many times its p50 tells of the host's scheduler */

enum { SAY_ECHO = 1, SAY_LANE, SAY_GRANT };

typedef struct say { /* what is none of the protocol's; one slot */
    uint64_t what, number, term;
    rf_region_key_t key;
} say_t;
_Static_assert(sizeof(say_t) <= RF_SLOT_PAYLOAD, "one slot");

typedef struct voter { /* as the leader knows it */
    rf_region_key_t key;
    rf_region_t *source; /* the lane's mirror, and what raw writes are made from behind it */
    uint64_t id, term;   /* of its lane; 0: none */
    uint64_t lane_told;  /* writes of the lane that the engine has heard of */
    uint64_t posted;     /* writes in all */
    uint64_t raw;        /* ... of them bare ones: between turns of ours nothing is under way */
    uint64_t echoed;
} voter_t;

typedef struct remote {
    hosts_end_t end;
    agree_node_t node;
    voter_t voters[VOTERS]; /* leader */
    rf_region_t *region;    /* voter */
    uint64_t lane_id, echo;
    bool granted;
} remote_t;

static hosts_peer_t *peer_of(remote_t *r, unsigned core)
{
    return &r->end.peers[r->node.replica.core == 0 ? core - 1 : 0];
}

static void send_say(remote_t *r, unsigned to, const say_t *m)
{
    agree_node_send_other(&r->node, to, m, sizeof *m);
}

/* ---- a voter ---- */

static bool region_make(remote_t *r)
{
    hosts_peer_t *peer = peer_of(r, 0);
    if (r->region) return true;
    return peer->link->transport->region_create(peer->link, LANE_BYTES + RAW_BYTES, &r->region) == RF_OK;
}

static void voter_heard(agree_node_t *node, unsigned from, const void *bytes, size_t size, bool hold)
{
    remote_t *r = node->context;
    say_t m;
    (void)hold;
    if (size != sizeof m) return;
    memcpy(&m, bytes, sizeof m);
    if (m.what == SAY_ECHO) {
        send_say(r, from, &m);
    } else if (m.what == SAY_LANE && region_make(r)) {
        agreement_event_t event = {.kind = AGREEMENT_LANE};
        event.lane = (agreement_lane_event_t){.kind = AGREEMENT_LANE_READY, .peer = agree_member(0)};
        node->now_ns = agree_clock_ns();
        agree_node_step(node, &event);
    }
}

static void voter_lane(agree_node_t *node, const agreement_lane_output_t *out)
{
    remote_t *r = node->context;
    if (out->order != AGREEMENT_LANE_GRANT) return;
    say_t m = {.what = SAY_GRANT, .number = out->id, .term = out->term, .key = r->region->key};
    r->lane_id = out->id;
    r->granted = true;
    send_say(r, 0, &m);
}

/* One word says whether there is anything. */
static bool look_at_lane(remote_t *r)
{
    uint32_t offset;
    uint64_t number = r->granted ? agreement_lane_next(r->node.replica.engine, &offset) : 0;
    if (number == 0) return false;
    const uint8_t *at = (const uint8_t *)r->region->base + offset;
    if (__atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE) != number) return false;
    agreement_event_t event = {.kind = AGREEMENT_LANE};
    event.lane =
        (agreement_lane_event_t){.kind = AGREEMENT_LANE_LINES, .id = r->lane_id, .lines = r->region->base};
    r->node.now_ns = agree_clock_ns();
    agree_node_step(&r->node, &event);
    return true;
}

static rf_err_t serve(remote_t *r, const bench_options_t *options, const char *address, unsigned look_us)
{
    rf_err_t err = hosts_open(&r->end, options, address, 1);
    if (err != RF_OK) return err;
    r->end.sleeps = true;
    while (r->end.n_peers == 0 || (!r->end.peers[0].up && !r->end.peers[0].ended)) hosts_wait(&r->end);
    r->end.sleeps = options->events;
    r->node.links[0] = r->end.peers[0].link;
    r->node.on_other = voter_heard;
    r->node.on_lane = voter_lane;
    struct timespec nap = {.tv_nsec = (long)look_us * 1000};
    while (!r->end.peers[0].ended && !r->node.failed) {
        bool any = agree_node_poll(&r->node) > 0;
        any = look_at_lane(r) || any;
        agree_node_flush(&r->node);
        if (any) continue;
        if (look_us) nanosleep(&nap, NULL);
        hosts_wait(&r->end);
    }
    return r->node.failed ? RF_ERR_PROTOCOL : RF_OK;
}

/* ---- the leader ---- */

static void leader_heard(agree_node_t *node, unsigned from, const void *bytes, size_t size, bool hold)
{
    remote_t *r = node->context;
    voter_t *v = &r->voters[from - 1];
    say_t m;
    (void)hold;
    if (size != sizeof m) return;
    memcpy(&m, bytes, sizeof m);
    if (m.what == SAY_ECHO) {
        v->echoed = m.number;
    } else if (m.what == SAY_GRANT) {
        v->key = m.key;
        v->id = m.number;
        v->term = m.term;
        agreement_event_t event = {.kind = AGREEMENT_LANE};
        event.lane = (agreement_lane_event_t){
            .kind = AGREEMENT_LANE_GRANTED, .peer = agree_member(from), .id = v->id, .term = v->term};
        agree_node_step(node, &event);
    }
}

static bool post(remote_t *r, unsigned core, uint64_t offset, size_t size)
{
    voter_t *v = &r->voters[core - 1];
    rf_link_t *link = r->node.links[core];
    rf_err_t err = link->transport->remote_write(link, &v->key, offset, (uint8_t *)v->source->base + offset,
                                                 size, NULL, v->posted);
    v->posted += err == RF_OK;
    return err == RF_OK;
}

static void leader_lane(agree_node_t *node, const agreement_lane_output_t *out)
{
    remote_t *r = node->context;
    for (unsigned i = 0; i < out->n_writes; i++) {
        const agreement_write_t *w = &out->writes[i];
        memcpy((uint8_t *)r->voters[w->to.core - 1].source->base + w->offset, w->bytes, w->size);
        if (!post(r, w->to.core, w->offset, w->size))
            node->failed = true, node->why = "a link did not take a write"; /* less is under way than fits */
    }
}

/* True: there was something to tell. */
static bool tell_written(remote_t *r)
{
    bool any = false;
    for (unsigned core = 1; core <= VOTERS; core++) {
        voter_t *v = &r->voters[core - 1];
        uint64_t written = peer_of(r, core)->written - v->raw;
        if (v->id == 0 || written == v->lane_told || v->posted == v->raw) continue;
        v->lane_told = written;
        any = true;
        agreement_event_t event = {.kind = AGREEMENT_LANE};
        event.lane = (agreement_lane_event_t){
            .kind = AGREEMENT_LANE_WRITTEN, .peer = agree_member(core), .id = v->id, .number = written};
        r->node.now_ns = agree_clock_ns();
        agree_node_step(&r->node, &event);
    }
    return any;
}

static bool works(const remote_t *r)
{
    for (unsigned i = 0; i < VOTERS; i++) {
        if (r->end.peers[i].ended) return false;
    }
    return !r->node.failed;
}

static void turn(remote_t *r)
{
    bool any = agree_node_poll(&r->node) > 0;
    any = tell_written(r) || any; /* what that commits may be all that its caller waits for */
    agree_node_flush(&r->node);
    if (!any) hosts_wait(&r->end);
}

/* Nothing is under way: all writes are complete. */
static bool drain(remote_t *r)
{
    uint64_t until_ns = rf_clock_ns() + WAIT_NS;
    for (bool all = false; !all && works(r);) {
        turn(r);
        all = true;
        for (unsigned i = 0; i < VOTERS; i++) all = all && r->end.peers[i].written >= r->voters[i].posted;
        if (rf_clock_ns() > until_ns) return false;
    }
    return works(r);
}

static bool form(remote_t *r, const agree_config_t *config)
{
    agreement_event_t event = agree_replica_form(&r->node.replica, config);
    agreement_state_t state = {0};
    uint64_t until_ns = rf_clock_ns() + WAIT_NS;
    r->node.now_ns = agree_clock_ns();
    agree_node_step(&r->node, &event);
    while ((!state.formed || !state.quorum) && works(r) && rf_clock_ns() < until_ns) {
        turn(r);
        agreement_query(r->node.replica.engine, &state);
    }
    if (!state.quorum) return false;
    agreement_event_t session = {.kind = AGREEMENT_SESSION_OPEN};
    session.session.sequence = ++r->node.replica.own_sequence;
    r->node.now_ns = agree_clock_ns();
    agree_node_step(&r->node, &session);
    while (r->node.answered == 0 && works(r) && rf_clock_ns() < until_ns) turn(r);
    r->node.replica.session = r->node.last_value;
    return r->node.answered > 0;
}

static bool commit(remote_t *r)
{
    uint64_t before = r->node.answered;
    uint8_t command[COMMAND_BYTES] = {1};
    agree_node_propose(&r->node, command, sizeof command, false);
    agree_node_flush(&r->node);
    while (r->node.answered == before && works(r)) turn(r);
    return works(r);
}

static bool grant(remote_t *r)
{
    agreement_state_t state = {0};
    uint64_t until_ns = rf_clock_ns() + WAIT_NS;
    say_t m = {.what = SAY_LANE};
    for (unsigned core = 1; core <= VOTERS; core++) {
        rf_link_t *link = r->node.links[core];
        if (link->transport->region_create(link, LANE_BYTES + RAW_BYTES, &r->voters[core - 1].source) !=
            RF_OK)
            return false;
        send_say(r, core, &m);
    }
    while (state.lanes < VOTERS && works(r) && rf_clock_ns() < until_ns) {
        if (!commit(r)) return false; /* a voter is fed through its lane when there is something to feed */
        agreement_query(r->node.replica.engine, &state);
    }
    return state.lanes == VOTERS && drain(r);
}

/* A write to each, until one is complete; a slower one may have several under way, as in the engine. */
static bool bare_write(remote_t *r)
{
    uint64_t target[VOTERS];
    bool first = false;
    for (unsigned i = 0; i < VOTERS; i++) {
        while (!post(r, i + 1, LANE_BYTES, RAW_BYTES)) {
            if (!works(r)) return false;
            turn(r);
        }
        r->voters[i].raw++;
        target[i] = r->voters[i].posted;
    }
    while (!first && works(r)) {
        unsigned n = agree_node_poll(&r->node); /* a slow voter may still say something of the turn before */
        for (unsigned i = 0; i < VOTERS; i++) first = first || r->end.peers[i].written >= target[i];
        if (n == 0 && !first) hosts_wait(&r->end);
    }
    return works(r);
}

/* A slot to each, until the first has sent it back; a slower one that has no room for more is waited for. */
static bool bare_echo(remote_t *r)
{
    say_t m = {.what = SAY_ECHO, .number = ++r->echo};
    for (unsigned core = 1; core <= VOTERS; core++) {
        rf_link_t *link = r->node.links[core];
        while (link->transport->room(link, 1) == 0) {
            if (!works(r)) return false;
            turn(r);
        }
        send_say(r, core, &m);
    }
    agree_node_flush(&r->node);
    for (bool first = false; !first && works(r);) {
        if (agree_node_poll(&r->node) == 0) hosts_wait(&r->end);
        for (unsigned i = 0; i < VOTERS; i++) first = first || r->voters[i].echoed == m.number;
    }
    return works(r);
}

typedef struct piece {
    const char *word, *what, *raw;
    bool one_sided;
    bool (*bare)(remote_t *r);
} piece_t;

static const piece_t pieces[] = {
    {"message", "hosts, by messages", "a slot to both voters, and the first back", false, bare_echo},
    {"one-sided", "hosts, one-sided", "a write to both voters, and the first completion", true, bare_write},
};

static bool take_turn(remote_t *r, bool (*one)(remote_t *r), bench_samples_t *samples)
{
    double us = 1.0 / (double)rf_clock_ticks_per_us();
    for (unsigned i = 0; i < TURN; i++) {
        uint64_t before = rf_clock_ticks();
        if (!one(r)) return false;
        bench_samples_add(samples, (double)(rf_clock_ticks() - before) * us);
    }
    return drain(r);
}

static void report(const remote_t *r, const piece_t *piece, bench_samples_t *ours, bench_samples_t *raw)
{
    static char what[96];
    double p50 = bench_samples_percentile(raw, 50), p99 = bench_samples_percentile(raw, 99);
    bool unsure = p99 > UNSURE * p50;
    snprintf(what, sizeof what, "%s %s%s", r->end.transport->name, piece->what,
             r->end.options->events ? ", sleeping" : "");
    bench_result_t bare = {.bench = "ordered-hosts", .what = piece->raw, .unit = "us", .samples = raw};
    bench_report(r->end.options, &bare);
    bench_result_t result = {.bench = "ordered-hosts",
                             .what = what,
                             .unit = "us",
                             .samples = ours,
                             .raw = piece->raw,
                             .raw_p50 = p50};
    bench_result_param(&result, "hosts", 1 + VOTERS);
    bench_result_param(&result, "inconclusive", unsure);
    bench_report(r->end.options, &result);
    if (unsure)
        fprintf(stderr,
                "rf-bench ordered-hosts: inconclusive: the bare loop's p99 is %.1f times its p50, so that "
                "the hosts' "
                "schedulers were measured\n",
                p99 / p50);
}

static bool measure(remote_t *r, const piece_t *piece)
{
    bench_samples_t ours, raw, warm;
    unsigned n = r->end.options->samples ? r->end.options->samples : SAMPLES;
    bench_samples_init(&ours, n);
    bench_samples_init(&raw, n);
    bench_samples_init(&warm, 1);
    bool ok = drain(r);
    for (unsigned i = 0; ok && i < WARM_TURNS; i++)
        ok = take_turn(r, piece->bare, &warm) && take_turn(r, commit, &warm);
    for (unsigned i = 0; ok && ours.n < n; i++) {
        bool first = i % 2; /* whoever is first finds what the other left behind */
        ok = take_turn(r, first ? commit : piece->bare, first ? &ours : &raw) &&
             take_turn(r, first ? piece->bare : commit, first ? &raw : &ours);
    }
    if (ok) report(r, piece, &ours, &raw);
    bench_samples_free(&ours);
    bench_samples_free(&raw);
    bench_samples_free(&warm);
    return ok;
}

static rf_err_t lead(remote_t *r, const bench_options_t *options, const agree_config_t *config)
{
    bench_options_t words = *options;
    rf_err_t err = hosts_open(&r->end, options, NULL, VOTERS);
    for (unsigned i = 0; i < VOTERS && err == RF_OK; i++) err = hosts_connect(&r->end, options->argv[1 + i]);
    if (err != RF_OK) return err;
    for (unsigned i = 0; i < VOTERS; i++) r->node.links[1 + i] = r->end.peers[i].link;
    r->node.on_other = leader_heard;
    r->node.on_lane = leader_lane;
    words.argc -= 1 + VOTERS;
    words.argv += 1 + VOTERS;
    bool ok = form(r, config);
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces && ok; i++) { /* lanes stay when they are there */
        if (!bench_wanted(&words, pieces[i].word)) continue;
        ok = (!pieces[i].one_sided || grant(r)) && measure(r, &pieces[i]);
    }
    if (!ok)
        fprintf(stderr, "rf-bench ordered-hosts: %s\n",
                r->node.failed ? r->node.why
                : works(r)     ? "nothing was agreed on in time"
                               : "a link ended");
    return ok ? RF_OK : RF_ERR_TIMEOUT;
}

static bool number(const char *text, unsigned long least, unsigned long most, unsigned *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *out = (unsigned)value;
    return *text >= '0' && *text <= '9' && !*end && value >= least && value <= most;
}

static rf_err_t run(const bench_options_t *options)
{
    bool leads = options->argc >= 1 + VOTERS && strcmp(options->argv[0], "leader") == 0;
    bool votes = (options->argc == 3 || options->argc == 4) && strcmp(options->argv[0], "voter") == 0;
    unsigned core = 0, look_us = 0;
    votes = votes && number(options->argv[1], 1, VOTERS, &core) &&
            (options->argc == 3 || number(options->argv[3], 1, 100000, &look_us));
    agree_config_t config = {.n = 1 + VOTERS, .resend_ns = 100 * RF_NS_PER_MS, .lane_lines = LANE_LINES};
    if (!leads && !votes) {
        fprintf(
            stderr,
            "rf-bench ordered-hosts: say `voter 1 HOST:PORT` and `voter 2 HOST:PORT [MICROSECONDS]` on two "
            "hosts, and `leader HOST:PORT HOST:PORT` on the third\n");
        return RF_ERR_INVALID;
    }
    remote_t *r = calloc(1, sizeof *r);
    if (!r) return RF_ERR_NO_MEMORY;
    r->node.n = r->node.n_members = 1 + VOTERS;
    r->node.lazy_ns = LAZY_NS;
    r->node.next_tick_ns = RF_NEVER;
    r->node.context = r;
    agree_clock_start();
    rf_err_t err = agree_replica_init(&r->node.replica, (rf_core_t)core, &config) ? RF_OK : RF_ERR_NO_MEMORY;
    if (err == RF_OK) err = leads ? lead(r, options, &config) : serve(r, options, options->argv[2], look_us);
    hosts_close(&r->end);
    agree_replica_free(&r->node.replica);
    free(r);
    return err;
}

const bench_t bench_ordered_hosts = {"ordered-hosts", "commits on three hosts, by messages and one-sided",
                                     run};
