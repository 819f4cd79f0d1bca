/*
 * Dissemination plans of the log, by direct calls in one thread: three voters, the other members learn.
 *
 *   plan NAME        one command at a time: from the proposal until the last learner has executed it; `commit_ns` until it is
 *                    answered. All steps of all members, one after the other: what the plan costs all together. What it saves
 *                    where members run side by side is the simulator's to say (rackfish sim --model).
 *   plan NAME rate   batches of 64, sixteen members
 */
#include "agree_direct.h"
#include "ordered.h"
#include "pair.h"

#include "base/clock.h"
#include "base/os.h"

#include <pthread.h>
#include <string.h>

#define VOTERS        3
#define PER_HOST      8
#define PER_PACKAGE   4
#define SAMPLES       5000
#define WARM_UP       200
#define COMMAND_BYTES 16

typedef struct planned {
    const bench_options_t *options;
    agree_config_t config;
    bench_samples_t last, commit;
    double messages;
    bool ok;
} planned_t;

/* The leader's next message, which says to the voters what is committed, is sent at once: as where somebody there waits for it. */
static const agreement_event_t notice = {.kind = AGREEMENT_TICK, .now_ns = 1};

static bool all_hold(agree_direct_t *direct, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        if (agree_direct_replica(direct, i)->applied != agree_direct_replica(direct, 0)->applied)
            return false;
    }
    return true;
}

static bool measure_on(planned_t *p, agree_direct_t *direct)
{
    agree_replica_t *leader = agree_direct_replica(direct, 0);
    const double ns_per_tick = bench_ns_per_tick();
    uint64_t words[COMMAND_BYTES / 8] = {1}, messages = 0;
    agree_direct_time(direct);
    for (unsigned i = 0; i < p->last.max + WARM_UP; i++) {
        agreement_event_t event;
        if (i == WARM_UP) messages = agree_direct_messages(direct);
        event.now_ns = 1;
        words[1] = leader->sequence;
        uint64_t before = rf_clock_ticks();
        agree_replica_command(leader, &event, words, sizeof words, false);
        bool answered = agree_direct_step(direct, 0, &event) == 1;
        agree_direct_step(direct, 0, &notice);
        uint64_t after = rf_clock_ticks();
        if (!answered || !all_hold(direct, p->config.n)) {
            fprintf(stderr, "rf-bench ordered: a command did not reach all members\n");
            return false;
        }
        if (i < WARM_UP) continue;
        bench_samples_add(&p->last, (double)(after - before) * ns_per_tick);
        bench_samples_add(&p->commit, (double)(agree_direct_answered_ticks(direct) - before) * ns_per_tick);
    }
    p->messages = (double)(agree_direct_messages(direct) - messages) / p->last.max;
    return true;
}

static void *plan_main(void *context)
{
    planned_t *p = context;
    if (rf_cpu_pin(p->options->cores[0]) != RF_OK) return NULL;
    agree_direct_t *direct = agree_direct_open(&p->config);
    if (!direct) return NULL;
    p->ok = measure_on(p, direct);
    agree_direct_close(direct);
    return NULL;
}

static bool measure(const bench_options_t *options, const agree_config_t *config, const char *what)
{
    planned_t p = {.options = options, .config = *config};
    unsigned n = options->samples ? options->samples : SAMPLES;
    bench_samples_init(&p.last, n);
    bench_samples_init(&p.commit, n);
    pthread_t thread;
    if (pthread_create(&thread, NULL, plan_main, &p) == 0) pthread_join(thread, NULL);
    if (p.ok) {
        double commit_ns = bench_samples_percentile(&p.commit, 50);
        bench_result_t result = {.bench = "ordered",
                                 .what = what,
                                 .unit = "ns",
                                 .samples = &p.last,
                                 .raw = "the commit alone",
                                 .raw_p50 = commit_ns,
                                 .placement = BENCH_ONE_CORE};
        bench_result_param(&result, "learners", config->n - VOTERS);
        bench_result_param(&result, "commit_ns", (uint64_t)(commit_ns + 0.5));
        bench_result_param(&result, "messages_x100", (uint64_t)(p.messages * 100 + 0.5));
        bench_report(options, &result);
    }
    bench_samples_free(&p.last);
    bench_samples_free(&p.commit);
    return p.ok;
}

bool ordered_plan(const bench_options_t *options)
{
    static const unsigned members[] = {8, 16, 32, AGREE_REPLICAS_MAX};
    for (unsigned plan = 0; plan < AGREEMENT_PLANS; plan++) {
        char what[64];
        agree_config_t config = {.voters = VOTERS,
                                 .per_host = PER_HOST,
                                 .per_package = PER_PACKAGE,
                                 .plan = (agreement_plan_t)plan,
                                 .weights = {4, 8, 8}}; /* a configuration's defaults */
        snprintf(what, sizeof what, "plan %s", agreement_plan_name(plan));
        for (unsigned i = 0; i < sizeof members / sizeof *members; i++) {
            config.n = members[i];
            if (!measure(options, &config, what)) return false;
        }
        snprintf(what, sizeof what, "plan %s, rate", agreement_plan_name(plan));
        config.n = 16;
        if (!ordered_plan_rate(options, &config, what)) return false;
    }
    return true;
}
