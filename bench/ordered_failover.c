/*
 * Fail-over: three hosts of one core over TCP on loopback, all asleep between messages; clients on the two that stay propose one
 * command after the other. The leader is killed, stopped, or cut off; measured is the time until a command of either
 * client is answered in a later term. Each sample is a machine of its own.
 *
 *   killed    kill -9; the others learn of it by its pidfd. Raw limit: until the kernel says so.
 *   stopped   SIGSTOP; found by silence. Raw limit: the configured timeout.
 *   cut off   what it sends and what is sent to it is dropped. Raw limit: the configured timeout.
 */
#include "agree_hosts.h"
#include "bracket.h"
#include "ordered.h"

#include <signal.h>
#include <string.h>

#define HOSTS         3
#define COMMAND_BYTES 64
#define KILL_ROUNDS   200
#define OTHER_ROUNDS  100
#define RUN_MS        3 /* of the workload before, and a little of chance */
#define SPREAD_MS     3
#define TRIES         20 /* at a round whose leader had lost its office before */
#define WAIT_NS       (5 * RF_NS_PER_S)
#define ELECTION_NS   (50 * RF_NS_PER_MS)
#define HEARTBEAT_NS  (10 * RF_NS_PER_MS)

typedef enum cause { KILLED, STOPPED, CUT_OFF, CAUSES } cause_t;

static const char *const what_of[CAUSES] = {"failover, killed", "failover, stopped", "failover, cut off"};
static const char *const raw_of[CAUSES] = {"until the kernel says so", "the configured timeout",
                                           "the configured timeout"};

/* A host that stays leads. */
static void look_who_leads(agree_host_t *host)
{
    agree_sighting_t *saw = &host->shared->sightings[host->index];
    if (saw->leader_ns == 0 && agree_host_leads(host)) saw->leader_ns = rf_clock_ns();
}

/* The client of a host that stays: sees the new leader, and the first answer under it. */
static void client_body(agree_host_t *host)
{
    agree_node_t *node = host->node;
    agree_sighting_t *saw = &host->shared->sightings[host->index];
    uint8_t bytes[COMMAND_BYTES] = {1};
    if (host->index == 0) return;
    agree_host_watch(host, 0);
    agreement_state_t state;
    node->replica.session = agreement_own_session(node->replica.engine);
    look_who_leads(host);
    while (!host->shared->stop) {
        uint64_t done = node->answered + node->refused_err;
        agree_node_propose(node, bytes, sizeof bytes, false);
        agree_node_flush(node);
        uint64_t answered = node->answered;
        do { /* also after a refusal that came at once */
            agree_host_turn(host);
            if (node->role_changed) look_who_leads(host);
        } while (node->answered + node->refused_err == done && !host->shared->stop);
        agreement_query(node->replica.engine, &state);
        if (node->answered > answered && state.leader.core != 0 && state.leader.core != RF_CORE_NONE &&
            saw->commit_ns == 0)
            saw->commit_ns = rf_clock_ns();
    }
}

static uint64_t first_of(_Atomic(uint64_t) *a, _Atomic(uint64_t) *b)
{
    uint64_t x = atomic_load(a), y = atomic_load(b);
    return x == 0 || (y != 0 && y < x) ? y : x;
}

static uint64_t break_leader(agree_hosts_t *hosts, cause_t cause)
{
    uint64_t now_ns = rf_clock_ns();
    if (cause == CUT_OFF) {
        for (unsigned i = 1; i < HOSTS; i++) hosts->shared->cut[i] = 1;
        hosts->shared->cut[0] = 6;
    } else {
        kill(hosts->pids[0], cause == KILLED ? SIGKILL : SIGSTOP);
    }
    return now_ns;
}

typedef struct failover {
    cause_t cause;
    agree_config_t config;
    bench_samples_t election, proof; /* parts: until somebody leads; until the kernel said so */
} failover_t;

typedef enum outcome { MEASURED, NOTHING_BROKEN, NO_COMMIT } outcome_t;

/* One machine from its forming to its end. On a loaded machine host 0 may lead no more when it is broken: that says nothing. */
static outcome_t once(const bench_options_t *options, failover_t *f, unsigned round, bench_samples_t *samples)
{
    agree_hosts_t hosts = {.options = options, .config = f->config, .body = client_body};
    for (unsigned i = 0; i < HOSTS; i++) {
        hosts.cpus[i] = options->cores[i % 2];
        hosts.sleeps[i] = true;
    }
    outcome_t outcome = NO_COMMIT;
    if (agree_hosts_start(&hosts)) {
        agree_sighting_t *saw = hosts.shared->sightings;
        rf_clock_sleep_ms(RUN_MS + round % SPREAD_MS);
        uint64_t start_ns = break_leader(&hosts, f->cause), done_ns = 0;
        while (done_ns == 0 && !hosts.shared->failed && rf_clock_ns() < start_ns + WAIT_NS) {
            rf_clock_sleep_ms(1);
            done_ns = first_of(&saw[1].commit_ns, &saw[2].commit_ns);
        }
        uint64_t leader_ns = first_of(&saw[1].leader_ns, &saw[2].leader_ns);
        if (leader_ns != 0 && leader_ns < start_ns) {
            outcome = NOTHING_BROKEN;
        } else if (done_ns > 0) {
            outcome = MEASURED;
            uint64_t proof_ns = first_of(&saw[1].evidence_ns, &saw[2].evidence_ns);
            bench_samples_add(samples, (double)(done_ns - start_ns) / 1000);
            bench_samples_add(&f->election, (double)(leader_ns - start_ns) / 1000);
            bench_samples_add(&f->proof, (double)(proof_ns - start_ns) / 1000);
        }
    }
    agree_hosts_end(&hosts);
    return outcome;
}

static bool failover_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                           bench_samples_t *raw)
{
    failover_t *f = context;
    f->election.n = f->proof.n = 0;
    for (unsigned i = 0; i < samples->max; i++) {
        outcome_t outcome = once(options, f, i, samples);
        for (unsigned tries = 0; outcome == NOTHING_BROKEN && tries < TRIES; tries++)
            outcome = once(options, f, i, samples);
        if (outcome != MEASURED) {
            fprintf(stderr,
                    "rf-bench ordered: no command committed after the leader was gone (%s, round %u)\n",
                    what_of[f->cause], i);
            return false;
        }
        bench_samples_add(raw, f->cause == KILLED ? f->proof.values[i] : (double)(ELECTION_NS / 1000));
    }
    return true;
}

static void report(const bench_options_t *options, const failover_t *f, const char *what,
                   bench_samples_t *samples, bench_samples_t *raw, bench_placement_t placement)
{
    bench_result_t result = {.bench = "ordered",
                             .what = what,
                             .unit = "us",
                             .samples = samples,
                             .raw = raw_of[f->cause],
                             .raw_p50 = bench_samples_percentile(raw, 50),
                             .placement = placement};
    bench_result_param(&result, "hosts", HOSTS);
    if (f->cause != KILLED) bench_result_param(&result, "timeout_ms", ELECTION_NS / RF_NS_PER_MS);
    bench_report(options, &result);
}

static bool measure(const bench_options_t *options, cause_t cause)
{
    failover_t f = {
        .cause = cause,
        .config = {
            .n = HOSTS, .resend_ns = HEARTBEAT_NS, .heartbeat_ns = HEARTBEAT_NS, .election_ns = ELECTION_NS}};
    bench_options_t once_only =
        *options; /* each sample is long, and the distance of two CPUs short beside it */
    once_only.tries = 1;
    unsigned n = options->samples ? options->samples : cause == KILLED ? KILL_ROUNDS : OTHER_ROUNDS;
    bench_samples_t samples, raw;
    bench_samples_init(&samples, n);
    bench_samples_init(&raw, n);
    bench_samples_init(&f.election, n);
    bench_samples_init(&f.proof, n);
    bracket_t bracket;
    bool ok = bracket_run(&once_only, failover_piece, &f, &samples, &raw, &bracket);
    if (ok) {
        report(options, &f, what_of[cause], &samples, &raw, bracket.placement);
        report(options, &f, "  of that, until it leads", &f.election, &raw, bracket.placement);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    bench_samples_free(&f.election);
    bench_samples_free(&f.proof);
    return ok;
}

bool ordered_failover(const bench_options_t *options)
{
    for (unsigned cause = 0; cause < CAUSES; cause++) {
        if (!measure(options, (cause_t)cause)) return false;
    }
    return true;
}
