/*
 * Group operations under faults at any point: a model beside them checks what callers see. RF_GROUP_SEED=n replays a run
 * (RF_GROUP_LOSSLESS, RF_GROUP_HOSTILE: of those kinds; RF_GROUP_TRACE: every message), RF_GROUP_SEEDS and RF_GROUP_FIRST
 * choose how many and which.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "group_net.h"

typedef struct mix {
    unsigned defects;
    bool lossless, hostile;
} mix_t;

static const char *run(uint64_t seed, const mix_t *mix, uint64_t *hash, bool verbose)
{
    static net_t net;
    static char text[160];
    rf_prng_t prng;
    rf_prng_seed(&prng, seed ^ 0x5eed);
    net_knobs_t knobs = {.nodes = 3 + (unsigned)rf_prng_below(&prng, 4),
                         .loss = (unsigned)rf_prng_below(&prng, 3) * 60,
                         .dup = (unsigned)rf_prng_below(&prng, 3) * 60,
                         .refuse = (unsigned)rf_prng_below(&prng, 3) * 80,
                         .plan = (group_plan_t)rf_prng_below(&prng, 3),
                         .fifo = rf_prng_below(&prng, 4) == 0,
                         .weighted = rf_prng_below(&prng, 2) == 0,
                         .resend_ns = 1000,
                         .defects = mix->defects};
    if (mix->lossless) {
        knobs.loss = 0;
        knobs.fifo = true;
        knobs.resend_ns = UINT64_MAX;
    }
    knobs.hostile = mix->hostile ? 200 : 0;
    net_init(&net, seed, &knobs);
    unsigned deaths_max = (unsigned)rf_prng_below(&prng, knobs.nodes); /* at least one survives */
    unsigned deaths = 0;
    unsigned ops = 10 + (unsigned)rf_prng_below(&prng, 50);
    for (unsigned k = 0; k < NET_GROUPS; k++) {
        unsigned n = 2 + (unsigned)rf_prng_below(&prng, knobs.nodes - 1);
        net_form(&net, (unsigned)rf_prng_below(&prng, knobs.nodes), k, n);
        if (rf_prng_below(&prng, 4) != 0) net_quiet(&net, 20000);
    }
    for (unsigned step = 0; step < ops * 60 && !net.violation; step++) {
        net_step(&net);
        unsigned at = (unsigned)rf_prng_below(&prng, net.n);
        node_t *node = &net.nodes[at];
        unsigned group = (unsigned)rf_prng_below(&prng, NET_GROUPS);
        switch (rf_prng_below(&prng, 120)) {
        case 0:
        case 1:
            if (node->state == NODE_UP) net_operate(&net, at, GROUP_ONE_PHASE, 1u << group);
            break;
        case 2:
        case 3:
            if (node->state == NODE_UP) net_operate(&net, at, GROUP_TWO_PHASE, 1u << group);
            break;
        case 4:
            if (node->state == NODE_UP && rf_prng_below(&prng, 3) == 0)
                net_operate(&net, at, GROUP_TWO_PHASE, 1 + (unsigned)rf_prng_below(&prng, 7));
            break;
        case 5:
            if (node->state == NODE_UP && rf_prng_below(&prng, 3) == 0)
                net_change(&net, at, GROUP_JOIN, group, (unsigned)rf_prng_below(&prng, net.n), 1);
            break;
        case 6:
            if (node->state == NODE_UP && rf_prng_below(&prng, 4) == 0)
                net_change(&net, at, GROUP_LEAVE, group, 0, 2);
            break;
        case 7: /* a crash; or a stall, whose dispatchers run on */
            if (node->state != NODE_UP || deaths == deaths_max || rf_prng_below(&prng, 3) != 0) break;
            deaths++;
            if (rf_prng_below(&prng, 2)) {
                net_die(&net, at);
            } else {
                node->state = NODE_STALLED;
            }
            break;
        case 8:
        case 9: /* the machine notices */
            for (unsigned i = 0; i < net.n; i++) {
                if (net.nodes[i].state != NODE_UP && !net.nodes[i].left) {
                    net_leave_view(&net, i);
                    break;
                }
            }
            break;
        case 10: /* it comes back after it has left, and does not know it yet */
            if (node->state == NODE_STALLED && !node->fenced) node->state = NODE_UP;
            break;
        case 11:
            if (node->left) net_fence(&net, at);
            break;
        case 12:
            if (node->state == NODE_UP && rf_prng_below(&prng, 30) == 0)
                net_change(&net, at, GROUP_DESTROY, group, 0, 3);
            break;
        case 13:
            if (node->state == NODE_UP)
                net_event(
                    &net, at,
                    &(group_event_t){.kind = GROUP_ROOM, .peer = net.nodes[rf_prng_below(&prng, net.n)].id});
            break;
        default:
            break;
        }
    }
    /* Faults stop. */
    for (unsigned i = 0; i < net.n; i++) {
        if (net.nodes[i].state != NODE_UP) net_leave_view(&net, i);
    }
    for (unsigned i = 0; i < net.n; i++) {
        if (net.nodes[i].left) net_fence(&net, i);
    }
    net.loss = net.dup = 0;
    if (!net.violation) net_quiet(&net, mix->hostile ? 2000 : 60000);
    if (!net.violation) net_check_end(&net);
    *hash = net.hash;
    snprintf(text, sizeof text, "%s", net.violation ? net.violation : "");
    const char *violation = net.violation ? text : NULL;
    if (verbose) {
        unsigned ok = 0, errs[RF_ERR_COUNT] = {0};
        for (unsigned i = 0; i < net.n_ops; i++) ok += net.ops[i].ok, errs[net.ops[i].err]++;
        printf("seed %llu: %u nodes, %u operations, %u ok, %u views, %u answers\n", (unsigned long long)seed,
               net.n, net.n_ops, ok, net.n_views, net.completions);
        for (unsigned i = 1; i < RF_ERR_COUNT; i++) {
            if (errs[i]) printf("  %u %s\n", errs[i], rf_err_name((rf_err_t)i));
        }
        for (unsigned i = 0; i < net.n; i++) {
            for (unsigned k = 0; k < 8; k++) {
                const group_t *g = &net.nodes[i].groups->groups[k];
                if (!g->used) continue;
                printf("  node %u st %d left %d: group %llx epoch %llu n %u self %u last %llu passed %llu "
                       "retired %llu wedged %d coll "
                       "%d inst %d wait %llx lock %llx held %u token %llx ending %d rep %llx mem %llx "
                       "report_to %u\n",
                       i, net.nodes[i].state, net.nodes[i].left, (unsigned long long)g->id,
                       (unsigned long long)g->epoch, g->n, g->self, (unsigned long long)g->last,
                       (unsigned long long)g->passed, (unsigned long long)g->retired, g->wedged,
                       g->collecting, g->installing, (unsigned long long)g->install_waiting,
                       (unsigned long long)g->lock_id, g->held, (unsigned long long)g->token, g->ending,
                       (unsigned long long)g->reported, (unsigned long long)g->members, g->report_to.core);
            }
        }
    }
    net_free(&net);
    return violation;
}

static uint64_t seeds_of(uint64_t otherwise)
{
    const char *s = getenv("RF_GROUP_SEEDS");
    return s ? strtoull(s, NULL, 10) : otherwise;
}

static void safe_and_live_with(mix_t mix)
{
    uint64_t n = seeds_of(2000), bad = 0;
    const char *from = getenv("RF_GROUP_FIRST");
    uint64_t first = from ? strtoull(from, NULL, 10) : 1;
    for (uint64_t seed = first; seed < first + n && bad < 10; seed++) {
        uint64_t hash;
        const char *violation = run(seed, &mix, &hash, false);
        if (!violation) continue;
        bad++;
        printf("RF_GROUP_SEED=%llu: %s\n", (unsigned long long)seed, violation);
    }
    assert_int_equal(bad, 0);
}

static void safe_and_live(void **state)
{
    (void)state;
    safe_and_live_with((mix_t){0});
}

/* Links in order that lose nothing: little is ever sent again. */
static void lossless(void **state)
{
    (void)state;
    safe_and_live_with((mix_t){.lossless = true});
}

/* Changed, cut, replayed messages: no assertion, no access outside (with sanitizers), whatever comes. */
static void hostile_bytes(void **state)
{
    (void)state;
    mix_t mix = {.hostile = true};
    uint64_t n = seeds_of(2000);
    for (uint64_t seed = 1; seed <= n; seed++) {
        uint64_t hash;
        run(seed, &mix, &hash, false);
    }
}

static void replays(void **state)
{
    (void)state;
    mix_t mix = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t first, second;
        run(seed, &mix, &first, false);
        run(seed, &mix, &second, false);
        assert_true(first == second);
    }
}

static void caught(unsigned defect, const char *name)
{
    mix_t mix = {.defects = defect};
    uint64_t seeds = seeds_of(2000);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        uint64_t hash;
        const char *violation = run(seed, &mix, &hash, false);
        if (!violation || strstr(violation, "stuck")) continue;
        printf("%s: caught by seed %llu: %s\n", name, (unsigned long long)seed, violation);
        return;
    }
    fail_msg("%s was not caught", name);
}

static void defects_are_caught(void **state)
{
    (void)state;
    caught(GROUP_DEFECT_REPLY_BEFORE_STABLE, "reply before stable");
    caught(GROUP_DEFECT_REPORT_BEFORE_WEDGE, "report before wedge");
    caught(GROUP_DEFECT_ONE_PHASE_UNNUMBERED, "one-phase unnumbered");
}

int main(void)
{
    const char *one = getenv("RF_GROUP_SEED");
    if (one) {
        mix_t mix = {.lossless = getenv("RF_GROUP_LOSSLESS") != NULL,
                     .hostile = getenv("RF_GROUP_HOSTILE") != NULL};
        uint64_t hash;
        const char *violation = run(strtoull(one, NULL, 10), &mix, &hash, true);
        printf("%s\n", violation ? violation : "nothing wrong");
        return violation != NULL;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safe_and_live),      cmocka_unit_test(lossless),
        cmocka_unit_test(hostile_bytes),      cmocka_unit_test(replays),
        cmocka_unit_test(defects_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
