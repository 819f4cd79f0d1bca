/*
 * Group operations inside whole engines: views come out of the log and of snapshots, members die, are expelled while they
 * live, leave, join again, and are fenced some time later. What is checked (groups_world.c), by the numbers of doc/agreement.md: while
 * it runs G1 to G5; after the faults that everything is answered, no group is wedged, and all who hold one agree (G8). Of the
 * engine: groups have been told of the view that the engine is at, whenever it is at rest.
 *
 * `consensus_groups_test SEED` replays one run.
 */
#include "groups_world.h"

#include <stdio.h>
#include <stdlib.h>

#define RUNS 400

/* One is cut off while another leaves, perhaps comes back, and the log goes on beyond what is kept of it: it learns of the
 * departure by a snapshot, of a later view than those who saw it in the log. */
static void behind(void)
{
    net_t *n = world->n;
    rf_core_t cut = (rf_core_t)world_below(n->knobs.cores), dead = (rf_core_t)world_below(n->knobs.cores);
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE || cut == leader || dead == cut || !world_runs(dead) || !world_runs(cut))
        return;
    net_isolate(n, cut, true);
    if (net_may_die(n, dead)) world_kill(dead);
    world_tell_deaths(true);
    net_run(n, 10 * MS);
    for (unsigned i = 0; i < 60; i++) {
        rf_core_t at = net_leader(n);
        world_poll_joins();
        if (at != RF_CORE_NONE && i == 20 && world_below(2)) world_join(at, dead);
        if (at != RF_CORE_NONE) net_propose(n, at);
        net_run(n, world_below(300) * US);
    }
    net_isolate(n, cut, false);
}

static void one_step(void)
{
    net_t *n = world->n;
    rf_core_t core = (rf_core_t)world_below(n->knobs.cores), peer = (rf_core_t)world_below(n->knobs.cores);
    bool up = world_runs(core) && n->cores[core].stalled_until_ns <= n->now_ns;
    unsigned what = world_below(100);
    world_poll_joins();
    for (unsigned i = world_below(6); i > 0; i--) world_answer((rf_core_t)world_below(n->knobs.cores));
    if (what < 20) { /* the log goes on, so that who is behind takes a snapshot */
        if (up) net_propose(n, core);
    } else if (what < 32) {
        if (up && world->n_groups > 0) {
            unsigned g = world_below(world->n_groups);
            world_operate(core, GROUP_ONE_PHASE, g, g);
        }
    } else if (what < 44) {
        if (up && world->n_groups > 0) {
            unsigned g = world_below(world->n_groups);
            world_operate(core, GROUP_TWO_PHASE, g, g);
        }
    } else if (what < 45) {
        if (up && world->n_groups > 1) {
            unsigned g = world_below(world->n_groups - 1);
            world_operate(core, GROUP_TWO_PHASE, g, g + 1);
        }
    } else if (what < 47) {
        if (up && world_below(3) == 0) world_form(core);
    } else if (what < 51) {
        if (up && world->n_groups > 0 && peer != core)
            world_change(core, GROUP_JOIN, world_below(world->n_groups), peer);
    } else if (what < 52) {
        if (up && world->n_groups > 0) world_change(core, GROUP_LEAVE, world_below(world->n_groups), core);
    } else if (what < 56) {
        if (world_runs(core) && net_may_die(n, core)) world_kill(core);
    } else if (what < 66) {
        world_tell_deaths(false);
    } else if (what < 68) {
        if (world_runs(core)) n->cores[core].stalled_until_ns = n->now_ns + world_below(12) * MS;
    } else if (what < 70) {
        if (world_runs(peer) && core != peer && net_may_die(n, peer))
            net_tell_death(n, core, peer, AGREEMENT_EVIDENCE_SILENCE);
    } else if (what < 78) {
        if (up) world_tell_fenced(core, false);
    } else if (what < 86) {
        if (up && !world_runs(peer)) world_join(core, peer);
    } else if (what < 87) {
        agreement_member_t leaver = net_member(n, peer);
        if (up && world_runs(peer) && net_may_die(n, peer)) net_change(n, core, NULL, 0, &leaver, 1);
    } else if (what < 89) {
        for (rf_core_t b = 0; b < n->knobs.cores; b++) {
            if (b != core && world_below(2)) net_cut(n, core, b, true);
        }
    } else if (what < 94) {
        for (rf_core_t a = 0; a < n->knobs.cores; a++) {
            for (rf_core_t b = 0; b < a; b++) net_cut(n, a, b, false);
        }
    } else if (what < 96) {
        agreement_event_t event = {.kind = AGREEMENT_TRANSFER};
        if (up) net_step(n, core, &event);
    } else if (what < 97) {
        behind();
    }
}

typedef struct seen {
    uint64_t ops, ok, views, loads, lost;
} seen_t;

static char breach[160];

static const char *run(uint64_t seed, bool verbose, seen_t *seen)
{
    rf_prng_t prng;
    jmp_buf unsafe;
    rf_prng_seed(&prng, seed ^ 0x9109);
    net_knobs_t knobs = {.cores = 3 + (unsigned)rf_prng_below(&prng, 5),
                         .log_max = 16u << rf_prng_below(&prng, 2),
                         .voters_max = rf_prng_below(&prng, 3) ? 3 : 5,
                         .group = world_group_params((group_plan_t)rf_prng_below(&prng, 3))};
    if (rf_prng_below(&prng, 2)) knobs.per_host = 1 + (unsigned)rf_prng_below(&prng, 2);
    if (rf_prng_below(&prng, 3) == 0) knobs.hold_percent = 10 + (unsigned)rf_prng_below(&prng, 50);
    if (rf_prng_below(&prng, 2)) {
        knobs.lose_percent = (unsigned)rf_prng_below(&prng, 10);
        knobs.repeat_percent = (unsigned)rf_prng_below(&prng, 5);
        knobs.reorder = rf_prng_below(&prng, 2);
    }
    net_t *n = world_begin(&knobs, seed)->n;
    if (setjmp(unsafe)) {
        snprintf(breach, sizeof breach, "%s", world->n->breach);
        if (verbose) {
            net_print(world->n);
            world_print();
        }
        world_end();
        return breach;
    }
    n->unsafe = &unsafe;
    n->trace = verbose && getenv("NET_TRACE");
    net_form(n);
    net_run(n, 10 * MS);
    for (unsigned i = 0; i < 2; i++) world_form((rf_core_t)world_below(knobs.cores));
    net_run(n, world_below(5) * MS);
    for (unsigned i = 0; i < 300; i++) {
        one_step();
        net_run(n, world_below(4) ? world_below(150 * US) : world_below(3 * MS));
    }
    if (world_below(2)) behind();
    /* Faults stop. */
    net_heal(n);
    world_tell_deaths(true);
    bool done = false, lost = false;
    for (unsigned i = 0; i < 600 && !done && !lost; i++) {
        net_run(n, MS);
        world_poll_joins();
        world_tell_silence();
        world_tell_deaths(true);
        for (rf_core_t core = 0; core < knobs.cores; core++) {
            world_tell_fenced(core, true);
            while (world_answer(core)) {
            }
        }
        done = world_settled();
        lost = i > 100 && world_is_lost();
    }
    if (!lost && !done) world_violate("stuck: a group is not at rest, or something is not answered", 0, 0);
    if (!lost) world_check_end();
    rf_core_t at = net_leader(n);
    seen->ops += world->n_ops;
    seen->ok += world->n_ok;
    seen->views += at == RF_CORE_NONE ? 0 : net_state(n, at).view;
    seen->lost += lost;
    for (rf_core_t core = 0; core < knobs.cores; core++) seen->loads += n->cores[core].n_loads;
    world_end();
    return NULL;
}

/* ---- one thing at a time ---- */

static bool op_done(net_t *n, void *context)
{
    (void)n;
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) {
        while (world_answer(core)) {
        }
    }
    return world->ops[*(int *)context].done;
}

/* Five cores, of which three vote; `owner` has formed a group of all of them. */
static net_t *begin_formed(rf_core_t owner)
{
    net_knobs_t knobs = {
        .cores = 5, .log_max = 16, .voters_max = 3, .group = world_group_params(GROUP_PLAN_BROADCAST)};
    agreement_member_t all[NET_CORES_MAX] = {0};
    net_t *n = world_begin(&knobs, 11)->n;
    net_form(n);
    net_run(n, 10 * MS);
    for (rf_core_t i = 0; i < 5; i++) all[i] = net_member(n, (owner + i) % 5);
    world->n_groups = 1;
    for (rf_core_t core = 0; core < 5; core++) world_life(core)->holds[0] = true;
    world_tell(owner,
               &(group_event_t){
                   .kind = GROUP_FORM,
                   .form = {.group = FIRST, .cookie = world_other(owner), .members = all, .n_members = 5}});
    net_run(n, 10 * MS);
    rf_assert(world->others[0].done && world->others[0].err == RF_OK);
    return n;
}

static void all_fenced(void)
{
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) world_tell_fenced(core, true);
}

static bool is_wedged(rf_core_t core)
{
    group_info_t info;
    rf_assert(groups_query(world_groups(core), FIRST, &info) == RF_OK);
    return info.wedged;
}

/* A member dies while an operation is under way: nobody is answered before it is fenced, then all are. */
static void waits_for_the_fence(group_phase_t phase)
{
    net_t *n = begin_formed(0);
    uint64_t view = net_state(n, 0).view;
    int before = world_operate(0, phase, 0, 0);
    net_kill(n, 4);
    net_tell_all(n, 4);
    net_run(n, 60 * MS);
    int after = world_operate(0, phase, 0, 0);
    rf_assert(net_state(n, 0).view > view && is_wedged(0));
    rf_assert(!net_until(n, op_done, &after, 100 * MS) && !world->ops[before].done && is_wedged(0));
    all_fenced();
    rf_assert(net_until(n, op_done, &after, 100 * MS) && world->ops[after].ok);
    rf_assert(net_until(n, op_done, &before, 100 * MS));
    net_run(n, 10 * MS);
    for (rf_core_t core = 0; core < 4; core++) rf_assert(!is_wedged(core));
    world_end();
}

/* The owner does not vote, is cut off, and learns of a departure by a snapshot, of a later view than the departure's: one in which
 * the core has joined again, and nobody has left. The others learned of it by the log. */
static void owner_takes_a_snapshot(void)
{
    net_t *n = begin_formed(4);
    agreement_state_t s = net_state(n, 0);
    rf_core_t dead = s.voters[0].core != s.leader.core ? s.voters[0].core : s.voters[1].core;
    uint64_t view = s.view;
    for (unsigned i = 0; i < s.n_voters; i++) rf_assert(s.voters[i].core != 4);
    rf_assert(s.n_voters == 3);
    net_isolate(n, 4, true);
    net_kill(n, dead);
    net_tell_all(n, dead);
    net_run(n, 20 * MS);
    rf_core_t leader = net_leader(n);
    uint64_t departed = net_state(n, leader).view;
    rf_assert(departed > view);
    world_join(leader, dead);
    for (unsigned i = 0; i < 60; i++) {
        world_poll_joins();
        net_propose(n, leader);
        net_run(n, MS / 2);
    }
    rf_assert(net_state(n, leader).view > departed && world_runs(dead));
    all_fenced();
    net_isolate(n, 4, false);
    net_run(n, 60 * MS);
    all_fenced();
    rf_assert(n->cores[4].n_loads > 0);
    int after = world_operate(4, GROUP_TWO_PHASE, 0, 0);
    rf_assert(net_until(n, op_done, &after, 200 * MS) && world->ops[after].ok);
    net_run(n, 10 * MS);
    for (rf_core_t core = 0; core < 5; core++) rf_assert(core == dead || !is_wedged(core));
    rf_assert(!group_find(world_groups(dead), FIRST));
    world_end();
}

int main(int argc, char **argv)
{
    seen_t seen = {0};
    if (argc > 1 && !strchr(argv[1], '+')) {
        const char *text = run(strtoull(argv[1], NULL, 10), true, &seen);
        printf("%s\n", text ? text : "nothing wrong");
        return text != NULL;
    }
    waits_for_the_fence(GROUP_ONE_PHASE);
    waits_for_the_fence(GROUP_TWO_PHASE);
    owner_takes_a_snapshot();
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    uint64_t many = argc > 1 ? strtoull(strchr(argv[1], '+') + 1, NULL, 10) : RUNS;
    unsigned failed = 0;
    for (uint64_t seed = first; seed < first + many && failed < 10; seed++) {
        const char *text = run(seed, false, &seen);
        if (!text) continue;
        printf("seed %llu: %s\n", (unsigned long long)seed, text);
        fflush(stdout);
        failed++;
    }
    printf("%llu runs: %llu operations, %llu done, %llu views, %llu snapshots loaded, %llu machines lost\n",
           (unsigned long long)many, (unsigned long long)seen.ops, (unsigned long long)seen.ok,
           (unsigned long long)seen.views, (unsigned long long)seen.loads, (unsigned long long)seen.lost);
    if (failed > 0) return 1;
    return seen.ok < 10 * many || seen.loads < many / 10 || seen.lost > many / 10;
}
