/*
 * A random run of three voters and a spare, printed as steps of the model of the log (sim/steps.h). Up to two processes crash, one core comes back
 * as a new incarnation, links to the leader break, the voters change, who falls behind the ring is sent a snapshot, and in every fourth run a voter that has not
 * been sent FORM votes. `test_consensus_trace SEED`.
 */
#include "net.h"

#include "sim/steps.h"

#include <stdlib.h>

#define VOTERS      3
#define CORES       STEPS_CORES
#define CRASHES_MAX 2

static steps_log_t *steps;

static void watch(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    agreement_state_t state = net_state(n, core);
    agreement_member_t self = {.core = core, .incarnation = n->cores[core].incarnation};
    steps_log_stepped(steps, self, &state, out);
}

/* Crashes never take the majority: all voters live. */
static bool may_crash(const net_t *n)
{
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return false;
    agreement_state_t s = net_state(n, leader);
    if (s.joint || s.n_voters < VOTERS || s.committed < s.last) return false;
    for (unsigned i = 0; i < s.n_voters; i++) {
        const net_core_t *c = &n->cores[s.voters[i].core];
        if (!c->alive || c->incarnation != s.voters[i].incarnation) return false;
    }
    return true;
}

/* To whoever is linked with it. */
static void break_links(net_t *n, rf_core_t core)
{
    for (rf_core_t to = 0; to < CORES; to++) {
        if (to != core && n->cores[to].alive) net_tell_death(n, to, core, AGREEMENT_EVIDENCE_SILENCE);
    }
}

static void crash(net_t *n, rf_core_t core, bool told)
{
    steps_log_ended(steps, (agreement_member_t){.core = core, .incarnation = n->cores[core].incarnation});
    net_kill(n, core);
    if (told)
        net_tell_all(n, core);
    else
        break_links(n, core);
}

/* The core's new incarnation joins, if the members agree to it in time. */
static void restart(net_t *n, rf_core_t core)
{
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return;
    unsigned join = net_change(n, leader, &core, 1, NULL, 0);
    if (!net_answered(n, join, 20 * MS) || n->proposed[join].err != RF_OK) return;
    steps_log_started_anew(steps, core);
    net_start(n, core, 2);
}

/* Two of three have formed the machine, and the first is cut off: the third, whose log is empty, decides who leads. */
static void form_without_one(net_t *n)
{
    net_isolate(n, 2, true);
    net_form(n);
    net_run(n, 2 * MS);
    net_isolate(n, 2, false);
    net_isolate(n, 0, true);
    net_run(n, 40 * MS);
    net_isolate(n, 0, false);
}

/* More is agreed on without it than a small ring holds. */
static void fall_behind(net_t *n, rf_core_t core, rf_core_t leader)
{
    net_isolate(n, core, true);
    for (unsigned i = 0; i < 24; i++) {
        net_propose(n, leader);
        net_run(n, 100 * US);
    }
    net_isolate(n, core, false);
    net_run(n, 4 * MS);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    rf_prng_t prng;
    rf_core_t crashed = RF_CORE_NONE;
    bool tried = false;
    unsigned fallen = 0, crashes = 0;
    net_knobs_t knobs = {
        .cores = CORES, .voters_max = VOTERS, .reorder = seed % 2 == 0, .log_max = seed % 3 == 0 ? 256 : 16};
    rf_prng_seed(&prng, seed);
    net_t *n = net_new(&knobs, seed);
    n->watch = watch;
    steps = steps_log_new();
    printf("# seed %llu\n", (unsigned long long)seed);
    if (seed % 4 == 1)
        form_without_one(n);
    else
        net_form(n);
    net_run(n, 2 * MS);
    n->knobs.lose_percent = (unsigned)rf_prng_below(&prng, 15);
    n->knobs.repeat_percent = 5;
    for (unsigned i = 0; i < 14; i++) {
        rf_core_t core = (rf_core_t)rf_prng_below(&prng, CORES), leader = net_leader(n);
        switch (rf_prng_below(&prng, 7)) {
        case 0:
            if (leader == RF_CORE_NONE) break;
            net_isolate(n, leader, true);
            if (rf_prng_below(&prng, 2) == 0) break_links(n, leader);
            break;
        case 1:
            net_isolate(n, core, rf_prng_below(&prng, 2) == 0);
            break;
        case 2:
            if (crashes == CRASHES_MAX || !n->cores[core].alive || !may_crash(n)) break;
            if (crashes++ == 0) crashed = core;
            crash(n, core, rf_prng_below(&prng, 3) != 0);
            break;
        case 3:
            if (crashed == RF_CORE_NONE || tried) break;
            tried = true;
            restart(n, crashed);
            break;
        case 4:
            if (leader != RF_CORE_NONE && leader != core && n->cores[core].alive && fallen++ == 0)
                fall_behind(n, core, leader);
            break;
        default:
            for (uint64_t k = rf_prng_below(&prng, 8); n->cores[core].alive && k > 0; k--) {
                net_propose(n, core);
                net_run(n, rf_prng_below(&prng, 200 * US));
            }
            break;
        }
        net_run(n, rf_prng_below(&prng, 8 * MS));
        if (rf_prng_below(&prng, 3) == 0) net_isolate(n, (rf_core_t)rf_prng_below(&prng, CORES), false);
    }
    net_heal(n);
    net_run(n, 60 * MS);
    net_check_quiet(n);
    steps_log_write(steps, stdout);
    steps_log_free(steps);
    net_free(n);
    return 0;
}
