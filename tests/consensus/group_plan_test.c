/* Plans as data: what group_plan_weigh() promises, on machines with a shape, on random ones, and beside the best there is; trees by placement. */
#include "consensus/group.h"

#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SEND 20

static uint32_t latency[GROUP_MEMBERS_MAX * GROUP_MEMBERS_MAX];
static uint8_t order[GROUP_MEMBERS_MAX], parents[GROUP_MEMBERS_MAX];

/* Every member once, the owner first, each after its parent; reached when it says. */
static uint64_t weigh(unsigned n, uint32_t send_ns)
{
    bool listed[GROUP_MEMBERS_MAX] = {false};
    uint64_t reach = group_plan_weigh(n, latency, send_ns, order, parents);
    assert_int_equal(order[0], 0);
    assert_int_equal(parents[0], 0);
    for (unsigned i = 0; i < n; i++) {
        assert_true(order[i] < n && !listed[order[i]]);
        assert_true(i == 0 || parents[i] < i);
        listed[order[i]] = true;
    }
    assert_int_equal(group_plan_reach_ns(n, latency, send_ns, order, parents), reach);
    return reach;
}

/* One message to each from the owner, in the order of the list, and by a binary tree of it. */
static uint64_t listed_ns(unsigned n, uint32_t send_ns, bool binary)
{
    uint8_t as_listed[GROUP_MEMBERS_MAX], fed_by[GROUP_MEMBERS_MAX];
    for (unsigned i = 0; i < n; i++) {
        as_listed[i] = (uint8_t)i;
        fed_by[i] = (uint8_t)(binary && i > 0 ? (i - 1) / 2 : 0);
    }
    return group_plan_reach_ns(n, latency, send_ns, as_listed, fed_by);
}

/* `packages` of `cores`, so far from each other; the members in order. */
static unsigned shape(unsigned packages, unsigned cores, uint32_t near_ns, uint32_t far_ns)
{
    unsigned n = packages * cores;
    for (unsigned a = 0; a < n; a++) {
        for (unsigned b = 0; b < n; b++) latency[a * n + b] = a / cores == b / cores ? near_ns : far_ns;
    }
    return n;
}

/* Where a message costs its sender about what it takes to a neighbour, others send as well: far sooner than by the owner alone. */
static void others_send_too(void **state)
{
    (void)state;
    unsigned n = shape(4, 4, 100, 1000);
    assert_int_equal(listed_ns(n, 90, false), 14 * 90 + 1000);
    assert_true(weigh(n, 90) <= 1400);
}

/* Messages that cost their sender nothing: nobody is reached sooner than by the owner itself, on any machine that keeps the triangle. */
static void who_sends_for_nothing_sends_to_all(void **state)
{
    (void)state;
    unsigned n = shape(2, 8, 180, 570);
    assert_int_equal(weigh(n, 0), 570);
}

static void none_and_one_other(void **state)
{
    (void)state;
    shape(1, 1, 0, 0);
    assert_int_equal(weigh(1, SEND), 0);
    shape(2, 1, 0, 40);
    assert_int_equal(weigh(2, SEND), 40);
}

static uint64_t best_of_all; /* trees of few members, each in the best order */

static void try_all(unsigned n, unsigned k, uint8_t *all, uint8_t *fed_by, unsigned taken)
{
    if (k == n) {
        uint64_t ns = group_plan_reach_ns(n, latency, SEND, all, fed_by);
        if (ns < best_of_all) best_of_all = ns;
        return;
    }
    for (unsigned to = 1; to < n; to++) {
        if (taken >> to & 1) continue;
        all[k] = (uint8_t)to;
        for (unsigned at = 0; at < k; at++) {
            fed_by[k] = (uint8_t)at;
            try_all(n, k + 1, all, fed_by, taken | 1u << to);
        }
    }
}

/* Never later than one message to each; of few members seldom later than the best tree there is. */
static void beside_all_others(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 11);
    uint64_t ours = 0, best = 0;
    for (unsigned round = 0; round < 200; round++) {
        unsigned n = 2 + (unsigned)rf_prng_below(&prng, 4);
        uint8_t all[GROUP_MEMBERS_MAX] = {0}, fed_by[GROUP_MEMBERS_MAX] = {0};
        for (unsigned i = 0; i < n * n; i++) latency[i] = 20 + (uint32_t)rf_prng_below(&prng, 600);
        best_of_all = UINT64_MAX;
        try_all(n, 1, all, fed_by, 1);
        uint64_t ns = weigh(n, SEND);
        assert_true(ns >= best_of_all);
        ours += ns;
        best += best_of_all;
    }
    assert_true(ours * 100 <= best * 115);
    for (unsigned round = 0; round < 100; round++) {
        unsigned n = 2 + (unsigned)rf_prng_below(&prng, GROUP_MEMBERS_MAX - 1);
        for (unsigned i = 0; i < n * n; i++) latency[i] = 20 + (uint32_t)rf_prng_below(&prng, 600);
        assert_true(weigh(n, SEND) <= listed_ns(n, SEND, false));
    }
}

/* Shapes of the SOSP 2009 paper's machines (sim/models): never later than a binary tree of the list either. */
static void machines(void **state)
{
    static const struct {
        unsigned packages, cores;
        uint32_t near_ns, far_ns;
    } of[] = {{4, 2, 68, 214}, {2, 2, 161, 190}, {4, 4, 179, 218}, {8, 4, 269, 307}};
    (void)state;
    for (unsigned i = 0; i < sizeof of / sizeof *of; i++) {
        unsigned n = shape(of[i].packages, of[i].cores, of[i].near_ns, of[i].far_ns);
        uint64_t ours = weigh(n, SEND);
        assert_true(ours <= listed_ns(n, SEND, true));
        assert_true(ours <= listed_ns(n, SEND, false));
    }
}

/* ---- by placement ---- */

static agreement_member_t members[GROUP_MEMBERS_MAX];
static uint16_t host[4 * GROUP_MEMBERS_MAX];
static uint32_t package[4 * GROUP_MEMBERS_MAX];

static bool together(unsigned a, unsigned b, bool by_package)
{
    rf_core_t x = members[a].core, y = members[b].core;
    return host[x] == host[y] && (!by_package || package[x] == package[y]);
}

/* `order` and `parents` of n members are what group.h says. */
static void check_placed(unsigned n, bool by_package)
{
    bool listed[GROUP_MEMBERS_MAX] = {false};
    unsigned crossings = 0, others = 0;
    assert_int_equal(order[0], 0);
    assert_int_equal(parents[0], 0);
    for (unsigned i = 0; i < n; i++) {
        assert_true(order[i] < n && !listed[order[i]]);
        listed[order[i]] = true;
        if (i == 0) continue;
        assert_true(parents[i] < i);
        assert_int_equal(parents[parents[i]], 0); /* two levels at most */
        unsigned lowest = order[i];
        for (unsigned k = 0; k < n; k++) {
            if (together(k, order[i], by_package) && members[k].core < members[lowest].core) lowest = k;
        }
        bool with_owner = together(0, order[i], by_package);
        assert_int_equal(order[parents[i]], with_owner || lowest == order[i] ? 0 : lowest);
        crossings += !together(order[parents[i]], order[i], by_package);
        others += !with_owner && lowest == order[i];
    }
    assert_int_equal(crossings, others); /* one message to each other package, or host */
}

/* Two hosts of two packages of four cores; the owner is none of the lowest. */
static void one_message_to_each_place(void **state)
{
    static const rf_core_t cores[] = {6, 15, 3, 12, 1, 9, 5, 14};
    static const uint8_t by_package[] = {0, 5, 3, 4, 2, 6, 7, 1}, fed_by_package[] = {0, 0, 0, 0, 3, 0, 2, 2};
    static const uint8_t by_host[] = {0, 5, 4, 2, 6, 3, 7, 1}, fed_by_host[] = {0, 0, 0, 0, 0, 1, 1, 1};
    (void)state;
    for (unsigned i = 0; i < 8; i++) members[i] = (agreement_member_t){.core = cores[i], .incarnation = 1};
    for (unsigned core = 0; core < 16; core++) {
        host[core] = (uint16_t)(core / 8);
        package[core] = core / 4 % 2; /* counted from 0 on each host */
    }
    group_plan_by_package(members, 8, host, package, order, parents);
    check_placed(8, true);
    assert_memory_equal(order, by_package, 8);
    assert_memory_equal(parents, fed_by_package, 8);
    group_plan_by_host(members, 8, host, order, parents);
    check_placed(8, false);
    assert_memory_equal(order, by_host, 8);
    assert_memory_equal(parents, fed_by_host, 8);
    group_plan_by_package(members, 8, host, NULL, order, parents);
    check_placed(8, false);
}

static void placed_anyhow(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 12);
    for (unsigned round = 0; round < 500; round++) {
        unsigned n = 1 + (unsigned)rf_prng_below(&prng, GROUP_MEMBERS_MAX),
                 hosts = 1 + (unsigned)rf_prng_below(&prng, 8);
        unsigned packages = 1 + (unsigned)rf_prng_below(&prng, 4);
        bool taken[4 * GROUP_MEMBERS_MAX] = {false};
        for (unsigned core = 0; core < 4 * GROUP_MEMBERS_MAX; core++) {
            host[core] = (uint16_t)rf_prng_below(&prng, hosts);
            package[core] = (uint32_t)rf_prng_below(&prng, packages);
        }
        for (unsigned i = 0; i < n; i++) {
            rf_core_t core = (rf_core_t)rf_prng_below(&prng, 4 * GROUP_MEMBERS_MAX);
            while (taken[core]) core = (rf_core_t)((core + 1) % (4 * GROUP_MEMBERS_MAX));
            taken[core] = true;
            members[i] = (agreement_member_t){.core = core, .incarnation = 1};
        }
        group_plan_by_package(members, n, host, package, order, parents);
        check_placed(n, true);
        group_plan_by_host(members, n, host, order, parents);
        check_placed(n, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_send_too),    cmocka_unit_test(who_sends_for_nothing_sends_to_all),
        cmocka_unit_test(none_and_one_other), cmocka_unit_test(beside_all_others),
        cmocka_unit_test(machines),           cmocka_unit_test(one_message_to_each_place),
        cmocka_unit_test(placed_anyhow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
