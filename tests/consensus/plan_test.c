/*
 * Plans of the ordered log: whoever is a member works out its own children, of the same view; together that must be a tree that
 * reaches every learner once, whatever the machine, the voters and the leader are, and feeds nobody by more than it can bear.
 */
#include "consensus/plan.h"

#include "base/assert.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define CORES_MAX 16384
#define ROUNDS    200 /* random machines, of each plan */
#define UNFED     RF_CORE_NONE

typedef struct machine {
    plan_view_t view;
    uint32_t members[CORES_MAX], package[CORES_MAX];
    uint16_t host[CORES_MAX];
    uint8_t witness[CORES_MAX];
    /* what came of it */
    rf_core_t parent[CORES_MAX], asked;
    unsigned depth[CORES_MAX], n_children, children_max, depth_max,
        edges[3]; /* edges: in a package, in a host, between */
    rf_core_t order[AGREEMENT_CHILDREN_MAX];
} machine_t;

static machine_t m;

static bool in(rf_core_t core)
{
    return (m.members[core] & 3) == AGREEMENT_MEMBER_IN;
}

static bool votes(rf_core_t core)
{
    for (unsigned i = 0; i < m.view.n_voters; i++) {
        if (m.view.voters[i] == core) return true;
    }
    return false;
}

static void fresh(agreement_plan_t plan, unsigned cores)
{
    memset(&m, 0, sizeof m);
    m.view = (plan_view_t){.plan = plan,
                           .weights = {4, 8, 16},
                           .n_cores = (rf_core_t)cores,
                           .leader = RF_CORE_NONE,
                           .members = m.members,
                           .host = m.host,
                           .package = m.package,
                           .witness = m.witness};
}

/* Hosts of so many cores of so many packages in turn; all are members; the lowest of each of the first hosts votes, the first leads. */
static void regular(agreement_plan_t plan, unsigned cores, unsigned per_host, unsigned packages,
                    unsigned voters)
{
    fresh(plan, cores);
    for (unsigned c = 0; c < cores; c++) {
        m.members[c] = 1u << 2 | AGREEMENT_MEMBER_IN;
        m.host[c] = (uint16_t)(c / per_host);
        m.package[c] = c % packages;
    }
    for (unsigned i = 0; i < voters; i++) m.view.voters[m.view.n_voters++] = (rf_core_t)(i * per_host);
    m.view.leader = 0;
}

static void keep(void *context, rf_core_t core)
{
    (void)context;
    assert_true(core < m.view.n_cores && in(core) && !votes(core) && core != m.view.leader &&
                core != m.asked);
    assert_int_equal(m.parent[core], UNFED); /* by one only */
    m.parent[core] = m.asked;
    assert_true(m.n_children < AGREEMENT_CHILDREN_MAX);
    m.order[m.n_children++] = core;
}

/* Each member in turn, as it would itself. */
static void work_out(void)
{
    for (unsigned c = 0; c < m.view.n_cores; c++) m.parent[c] = UNFED;
    m.children_max = 0;
    for (rf_core_t c = 0; c < m.view.n_cores; c++) {
        m.asked = c;
        m.n_children = 0;
        if (in(c)) plan_children(&m.view, c, keep, NULL);
        if (m.n_children > m.children_max) m.children_max = m.n_children;
    }
}

/* Up to the leader, or a voter, whom the leader feeds. */
static unsigned depth_of(rf_core_t core)
{
    unsigned depth = 0;
    for (; m.parent[core] != UNFED; core = m.parent[core]) assert_true(++depth <= m.view.n_cores);
    assert_true(core == m.view.leader || votes(core)); /* a root, not one that nobody feeds */
    return depth;
}

static void check_tree(void)
{
    m.depth_max = 0;
    memset(m.edges, 0, sizeof m.edges);
    for (rf_core_t c = 0; c < m.view.n_cores; c++) {
        if (!in(c) || votes(c) || c == m.view.leader) {
            assert_int_equal(m.parent[c], UNFED);
            continue;
        }
        m.depth[c] = depth_of(c);
        assert_true(m.depth[c] > 0);
        if (m.depth[c] > m.depth_max) m.depth_max = m.depth[c];
        rf_core_t p = m.parent[c];
        m.edges[m.host[p] != m.host[c] ? 2 : m.package[p] != m.package[c]]++;
    }
    assert_true(m.children_max <= AGREEMENT_CHILDREN_MAX);
}

/* ---- on any machine ---- */

static void draw(rf_prng_t *prng, agreement_plan_t plan)
{
    static const unsigned sizes[] = {1, 2, 7, 30, 200, 1500};
    unsigned cores = 1 + (unsigned)rf_prng_below(prng, sizes[rf_prng_below(prng, 6)]), n_in = 0;
    unsigned per_host = 1 + (unsigned)rf_prng_below(prng, 1 + rf_prng_below(prng, cores));
    unsigned packages = 1 + (unsigned)rf_prng_below(prng, 1 + rf_prng_below(prng, per_host));
    unsigned absent = (unsigned)rf_prng_below(prng, 3) * 30;
    fresh(plan, cores);
    for (unsigned c = 0; c < cores; c++) {
        bool next = c > 0 && rf_prng_below(prng, per_host) == 0;
        m.host[c] = (uint16_t)(c == 0 ? 0 : m.host[c - 1] + next);
        m.package[c] = rf_prng_below(prng, 50) ? (uint32_t)rf_prng_below(prng, packages) : UINT32_MAX;
        m.witness[c] = rf_prng_below(prng, 9) == 0;
        agreement_member_state_t state =
            rf_prng_below(prng, 100) < absent ? AGREEMENT_MEMBER_OUT : AGREEMENT_MEMBER_IN;
        m.members[c] = (uint32_t)(1 + rf_prng_below(prng, 9)) << 2 | (uint32_t)state;
        n_in += in((rf_core_t)c);
    }
    if (n_in == 0) m.members[0] = 1u << 2 | AGREEMENT_MEMBER_IN;
    unsigned voters = 1 + (unsigned)rf_prng_below(prng, 2 * AGREEMENT_VOTERS_MAX);
    for (unsigned i = 0; i < voters; i++) {
        rf_core_t c = (rf_core_t)rf_prng_below(prng, cores);
        if (in(c)) m.view.voters[m.view.n_voters++] = c;
    }
    do
        m.view.leader =
            (rf_core_t)rf_prng_below(prng, cores); /* one that is about to vote no more leads, too */
    while (!in(m.view.leader));
    agreement_weights_t *w = &m.view.weights;
    static const uint16_t most[] = {1, 4, 20, AGREEMENT_WEIGHT_MAX};
    w->package = (uint16_t)(1 + rf_prng_below(prng, most[rf_prng_below(prng, 4)]));
    w->host = (uint16_t)(1 + rf_prng_below(prng, most[rf_prng_below(prng, 4)]));
    w->between = (uint16_t)(1 + rf_prng_below(prng, most[rf_prng_below(prng, 4)]));
    if (rf_prng_below(prng, 10) == 0) m.view.package = NULL;
    if (rf_prng_below(prng, 10) == 0) m.view.witness = NULL;
    if (rf_prng_below(prng, 20) == 0) m.view.host = NULL;
}

static void every_learner_has_one_parent(void **state)
{
    (void)state;
    for (unsigned plan = 0; plan < AGREEMENT_PLANS; plan++) {
        rf_prng_t prng;
        rf_prng_seed(&prng, 1 + plan);
        for (unsigned round = 0; round < ROUNDS; round++) {
            draw(&prng, (agreement_plan_t)plan);
            work_out();
            check_tree();
        }
    }
}

/* Hosts are not crossed more often than there are any to be reached, and packages neither. */
static void far_edges_are_few(void **state)
{
    (void)state;
    static const agreement_plan_t by_host[] = {AGREEMENT_PLAN_HOST, AGREEMENT_PLAN_PACKAGE,
                                               AGREEMENT_PLAN_WEIGHTED};
    for (unsigned i = 0; i < 3; i++) {
        rf_prng_t prng;
        rf_prng_seed(&prng, 100 + i);
        for (unsigned round = 0; round < ROUNDS; round++) {
            draw(&prng, by_host[i]);
            m.view.host = m.host;
            m.view.package = m.package;
            work_out();
            check_tree();
            unsigned hosts = 0, packages = 0, other = 0;
            for (unsigned c = 0; c < m.view.n_cores; c++) {
                if (c == 0 || m.host[c] != m.host[c - 1]) hosts++;
                unsigned first = c;
                while (first > 0 && m.host[first - 1] == m.host[c]) first--;
                bool seen = false;
                for (unsigned k = first; k < c && !seen; k++)
                    seen = in((rf_core_t)k) && m.package[k] == m.package[c];
                packages += in((rf_core_t)c) && !seen;
                other += in((rf_core_t)c) && !votes((rf_core_t)c);
            }
            assert_true(m.edges[2] < hosts + (other == 0));
            if (by_host[i] != AGREEMENT_PLAN_HOST && packages <= 64 * hosts && packages < 64)
                assert_true(m.edges[1] <= packages);
        }
    }
}

/* A leader that is unknown, or no member: who has a voter on its host is fed, whoever else is so by one at most. */
static void nobody_leads(void **state)
{
    (void)state;
    for (unsigned plan = 0; plan < AGREEMENT_PLANS; plan++) {
        regular((agreement_plan_t)plan, 64, 8, 2, 3);
        m.view.leader = RF_CORE_NONE;
        work_out();
        bool by_leader = plan == AGREEMENT_PLAN_BROADCAST || plan == AGREEMENT_PLAN_UNICAST;
        for (rf_core_t c = 0; c < 24; c++) assert_int_equal(m.parent[c] == UNFED, by_leader || c % 8 == 0);
        rf_core_t alone[2];
        memcpy(alone, &m.parent[24], sizeof alone);
        m.view.leader = 5;
        m.members[5] = 1u << 2 | AGREEMENT_MEMBER_OUT;
        work_out();
        assert_memory_equal(alone, &m.parent[24], sizeof alone);
    }
}

/* ---- what each plan is ---- */

static void stars_are_flat(void **state)
{
    (void)state;
    static const agreement_plan_t plans[] = {AGREEMENT_PLAN_BROADCAST, AGREEMENT_PLAN_UNICAST};
    for (unsigned i = 0; i < 2; i++) {
        regular(plans[i], PLAN_STAR_MAX + 3, 10, 2, 3);
        work_out();
        check_tree();
        assert_int_equal(m.depth_max, 1);
        assert_int_equal(m.children_max, PLAN_STAR_MAX);
        m.asked = 0;
        m.n_children = 0;
        for (rf_core_t c = 0; c < m.view.n_cores; c++) m.parent[c] = UNFED;
        plan_children(&m.view, 0, keep, NULL);
        for (unsigned k = 0; k < m.n_children; k++) /* those beside the leader last */
            assert_int_equal(m.host[m.order[k]] == 0, k + 9 >= m.n_children);
        regular(plans[i], 16384, 64, 8, 7);
        work_out();
        check_tree();
        assert_true(m.depth_max <= 3);
    }
}

static void one_hop_per_host(void **state)
{
    (void)state;
    regular(AGREEMENT_PLAN_HOST, 64, 8, 2, 3);
    work_out();
    check_tree();
    for (rf_core_t c = 0; c < 64; c++) {
        rf_core_t head = (rf_core_t)(c / 8 * 8);
        if (c < 24 && c == head) continue;
        assert_int_equal(m.parent[c], c == head ? 0 : head);
    }
    m.witness[32] = 1; /* is fed, feeds nobody */
    m.view.leader = 8;
    work_out();
    check_tree();
    assert_int_equal(m.parent[33], 8);
    assert_int_equal(m.parent[32], 33);
    assert_int_equal(m.parent[24], 8);
}

static void one_hop_per_package(void **state)
{
    (void)state;
    regular(AGREEMENT_PLAN_PACKAGE, 32, 16, 4, 1); /* host 1 from core 16 on: packages 0 to 3 in turn */
    work_out();
    check_tree();
    assert_int_equal(m.parent[16], 0);
    for (rf_core_t c = 17; c < 32; c++) assert_int_equal(m.parent[c], c < 20 ? 16 : 16 + c % 4);
    assert_int_equal(m.edges[2], 1);
    assert_int_equal(m.edges[1], 6);
}

/* When the last is reached, in slots of one message: whoever is reached sends to its children in order. */
static unsigned reached_in(unsigned reach)
{
    static unsigned at[CORES_MAX];
    unsigned last = 0;
    for (rf_core_t c = 0; c < m.view.n_cores; c++) { /* parents are lower in a regular machine */
        m.asked = c;
        m.n_children = 0;
        rf_core_t was = m.parent[c];
        for (unsigned k = 0; k < m.view.n_cores; k++) m.parent[k] = UNFED;
        plan_children(&m.view, c, keep, NULL);
        m.parent[c] = was;
        for (unsigned k = 0; k < m.n_children; k++) {
            at[m.order[k]] = at[c] + k + reach;
            if (at[m.order[k]] > last) last = at[m.order[k]];
        }
    }
    return last;
}

/* The least number of slots that any tree needs: all who are reached send all the time (Bar-Noy and Kipnis, 1992). */
static unsigned least(unsigned n, unsigned reach)
{
    uint64_t by[2048] = {1};
    unsigned t = 0;
    while (by[t] < n) {
        t++;
        by[t] = by[t - 1] + (t >= reach ? by[t - reach] : 0);
    }
    return t;
}

static void weighted_is_as_early_as_can_be(void **state)
{
    (void)state;
    for (unsigned reach = 1; reach <= 12; reach++) {
        for (unsigned n = 2; n <= 120; n += 7) {
            regular(AGREEMENT_PLAN_WEIGHTED, n, n, 1, 1);
            m.view.weights.package = (uint16_t)reach;
            work_out();
            check_tree();
            if (least(n, reach) < reach + PLAN_CORES_MAX)
                assert_int_equal(reached_in(reach), least(n, reach));
            regular(AGREEMENT_PLAN_WEIGHTED, n, 1, 1, 1);
            m.view.weights.between = (uint16_t)reach;
            work_out();
            check_tree();
            if (least(n, reach) < reach + PLAN_HOSTS_MAX)
                assert_int_equal(reached_in(reach), least(n, reach));
        }
    }
}

/* Cheap to send, or far: a star. The other way round: through others. */
static void weights_shape_the_tree(void **state)
{
    (void)state;
    regular(AGREEMENT_PLAN_WEIGHTED, 17, 17, 1, 1);
    m.view.weights.package = AGREEMENT_WEIGHT_MAX;
    work_out();
    check_tree();
    assert_int_equal(m.depth_max, 1);
    regular(AGREEMENT_PLAN_WEIGHTED, 16, 16, 1, 1);
    m.view.weights.package = 1;
    work_out();
    check_tree();
    assert_int_equal(m.depth_max, 4); /* a binomial tree */
    assert_int_equal(m.children_max, 4);
}

static void a_rack_of_16384(void **state)
{
    (void)state;
    for (unsigned plan = 0; plan < AGREEMENT_PLANS; plan++) {
        regular((agreement_plan_t)plan, CORES_MAX, 64, 8, 7);
        if (plan == AGREEMENT_PLAN_WEIGHTED) m.view.weights = (agreement_weights_t){1, 1, 1};
        work_out();
        check_tree();
        print_message("%s: depth %u, at most %u children, %u edges in packages, %u in hosts, %u between\n",
                      agreement_plan_name(plan), m.depth_max, m.children_max, m.edges[0], m.edges[1],
                      m.edges[2]);
        bool by_leader = plan == AGREEMENT_PLAN_BROADCAST || plan == AGREEMENT_PLAN_UNICAST;
        if (!by_leader) assert_int_equal(m.edges[2], 256 - 7);
        assert_true(m.depth_max <= (plan == AGREEMENT_PLAN_WEIGHTED ? 14 : 4));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_learner_has_one_parent),
        cmocka_unit_test(far_edges_are_few),
        cmocka_unit_test(nobody_leads),
        cmocka_unit_test(stars_are_flat),
        cmocka_unit_test(one_hop_per_host),
        cmocka_unit_test(one_hop_per_package),
        cmocka_unit_test(weighted_is_as_early_as_can_be),
        cmocka_unit_test(weights_shape_the_tree),
        cmocka_unit_test(a_rack_of_16384),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
