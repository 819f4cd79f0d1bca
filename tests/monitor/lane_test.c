/* One-sided append between monitors: entries go through lanes where they can, by messages where they cannot, and a commit that only
 * memory knows of outlives its leader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

#include "monitor/registry_inside.h"

#include <stdio.h>

#define LEADER 0

static uint32_t put_begin(world_t *w, test_client_t *c, unsigned number)
{
    struct {
        rf_client_registry_t head;
        char name[9];
    } r = {.head = {.what = RF_REGISTRY_PUT, .kind = RF_REGISTRY_KIND_KEY, .name_size = 8, .user = "alice"}};
    snprintf(r.name, sizeof r.name, "key%05u", number);
    return world_send(w, c, RF_CLIENT_REGISTRY_CHANGE, &r, sizeof r.head + 8, 0);
}

static bool put_done(const test_client_t *c, uint32_t tag)
{
    const message_t *m = world_reply(c, tag);
    return m && m->header.err == RF_OK;
}

static void put(world_t *w, test_client_t *c, unsigned number)
{
    uint32_t tag = put_begin(w, c, number);
    world_pass(w, RF_NS_PER_MS);
    assert_true(put_done(c, tag));
}

static bool holds(const world_t *w, rf_core_t core, unsigned number)
{
    char name[9];
    registry_entry_t e;
    snprintf(name, sizeof name, "key%05u", number);
    return registry_get(w->monitor[core]->registry, REGISTRY_KEY, name, 8, &e);
}

static world_t *three_hosts(uint64_t seed)
{
    world_t *w = world_new_one_sided(3, 1, seed);
    world_form(w);
    assert_int_equal(w->monitor[0]->agree.state.leader.core, LEADER);
    return w;
}

static unsigned lanes_of(world_t *w, rf_core_t core)
{
    agreement_state_t s;
    agreement_query(w->monitor[core]->agree.engine, &s);
    return s.role == AGREEMENT_ROLE_LEADER ? s.lanes : s.lane;
}

static void entries_go_through_lanes(void **state)
{
    (void)state;
    world_t *w = three_hosts(1);
    test_client_t *c[3];
    for (rf_core_t core = 0; core < 3; core++) c[core] = world_node_client(w, core);
    for (unsigned i = 0; i < 600; i++) put(w, c[i % 3], i); /* several laps */
    assert_int_equal(lanes_of(w, LEADER), 2);
    assert_int_equal(world_status(w, c[LEADER]).lanes, 2);
    for (rf_core_t core = 1; core < 3; core++) {
        assert_int_equal(world_status(w, c[core]).lanes, 1);
        for (unsigned i = 0; i < 600; i++) assert_true(holds(w, core, i));
    }
    assert_true(w->n_lane_writes >= 600);
    world_free(w);
}

static void without_the_option_there_are_none(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 2);
    world_form(w);
    test_client_t *c = world_node_client(w, LEADER);
    put(w, c, 1);
    assert_int_equal(w->n_lane_writes, 0);
    assert_int_equal(world_status(w, c).lanes, RF_CLIENT_LANES_OFF);
    world_free(w);
}

/* The owners of the memory stand still, and never hear of it but by reading what is there before they vote. */
static void what_only_memory_knows_outlives_its_leader(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 20; seed++) {
        world_t *w = three_hosts(seed);
        test_client_t *c = world_node_client(w, LEADER);
        put(w, c, 0);
        world_stall(w, 1, true);
        world_stall(w, 2, true);
        uint32_t tags[4];
        for (unsigned i = 0; i < 4; i++) tags[i] = put_begin(w, c, 1 + i);
        world_pass(w, 100 * RF_NS_PER_MS);
        for (unsigned i = 0; i < 4; i++) assert_true(put_done(c, tags[i]));
        world_kill(w, LEADER);
        world_stall(w, 1, false);
        world_stall(w, 2, false);
        world_pass(w, 5 * RF_NS_PER_S);
        put(w, world_node_client(w, 1), 9);
        for (rf_core_t core = 1; core < 3; core++) {
            for (unsigned i = 0; i < 5; i++) assert_true(holds(w, core, i));
        }
        assert_int_equal(lanes_of(w, 1) + lanes_of(w, 2), 2); /* and the next leader writes the other's */
        world_free(w);
    }
}

/* ... also where its owner has proposals of its own in it, more than one step answers, and more behind them than one step takes. */
static void a_long_tail_is_read_whole(void **state)
{
    (void)state;
    enum { OWN = 2 * AGREEMENT_COMPLETIONS_MAX, MORE = AGREE_LOG_MAX / 2 };
    for (uint64_t seed = 30; seed < 36; seed++) {
        world_t *w = three_hosts(seed);
        test_client_t *c[2] = {world_node_client(w, LEADER), world_node_client(w, 1)};
        put(w, c[LEADER], 0);
        world_stall(w, 2, true);
        static uint32_t tags[MORE];
        for (unsigned i = 0; i < OWN; i++) put_begin(w, c[1], 1 + i);
        world_pass(w, 30 * RF_NS_PER_US); /* they are on their way to the leader */
        world_stall(w, 1, true);
        unsigned n = 0;
        while (n < MORE) {
            for (unsigned i = 0; i < 16; i++, n++) tags[n] = put_begin(w, c[LEADER], 1000 + n);
            world_pass(w, RF_NS_PER_MS);
        }
        world_kill(w, LEADER);
        world_stall(w, 1, false);
        world_stall(w, 2, false);
        world_pass(w, 5 * RF_NS_PER_S);
        put(w, world_node_client(w, 1), 999);
        unsigned done = 0;
        for (unsigned i = 0; i < MORE; i++) {
            if (!put_done(c[LEADER], tags[i])) continue;
            done++;
            assert_true(holds(w, 1, 1000 + i) && holds(w, 2, 1000 + i));
        }
        assert_true(done > 0);
        world_free(w);
    }
}

/* It is cut off and does not know it: what it writes then is placed nowhere, and nobody hears that it is. */
static void a_leader_that_was_replaced_writes_nowhere(void **state)
{
    (void)state;
    world_t *w = three_hosts(3);
    test_client_t *c = world_node_client(w, LEADER);
    put(w, c, 0);
    uint32_t tag = put_begin(w, c, 1);
    world_cut(w, 0, 1, true);
    world_cut(w, 0, 2, true);
    world_pass(w, 3 * RF_NS_PER_S);
    put(w, world_node_client(w, 1), 2);
    world_cut(w, 0, 1, false);
    world_cut(w, 0, 2, false);
    world_pass(w, 10 * RF_NS_PER_S);
    bool done = put_done(c, tag);
    for (rf_core_t core = 0; core < 3; core++) {
        if (!w->alive[core]) continue;
        assert_true(!done || holds(w, core, 1));
        assert_true(holds(w, core, 0) && holds(w, core, 2));
    }
    world_free(w);
}

/* A voter that comes back has another lane, of its next life. */
static void a_voter_that_comes_back_grants_another(void **state)
{
    (void)state;
    world_t *w = three_hosts(4);
    test_client_t *c = world_node_client(w, LEADER);
    put(w, c, 0);
    world_kill(w, 2);
    world_pass(w, 5 * RF_NS_PER_S);
    put(w, c, 1);
    assert_int_equal(world_rejoin(w, 2, 1), RF_OK);
    world_pass(w, 3 * RF_NS_PER_S);
    for (unsigned i = 2; i < 40; i++) put(w, c, i);
    world_pass(w, RF_NS_PER_S);
    assert_int_equal(lanes_of(w, LEADER), 2);
    assert_int_equal(lanes_of(w, 2), 1);
    for (unsigned i = 0; i < 40; i++) assert_true(holds(w, 2, i));
    world_free(w);
}

/* The link of a lane ends and no other does: messages at once, and a lane again. */
static void a_lane_that_ends_is_replaced(void **state)
{
    (void)state;
    world_t *w = three_hosts(5);
    test_client_t *c = world_node_client(w, LEADER);
    for (unsigned i = 0; i < 30; i++) {
        put(w, c, i);
        if (i % 3 == 0) world_lanes_end(w, LEADER, 1 + i % 2);
        if (i % 5 == 0) world_lanes_end(w, LEADER, 2 - i % 2);
    }
    world_pass(w, RF_NS_PER_S);
    put(w, c, 30);
    assert_int_equal(lanes_of(w, LEADER), 2);
    assert_int_equal(w->monitor[1]->agree.state.term, 1);
    for (rf_core_t core = 1; core < 3; core++) {
        for (unsigned i = 0; i < 31; i++) assert_true(holds(w, core, i));
    }
    world_free(w);
}

/* What a writer may write is not to be trusted: nothing of it is agreed on, nobody ends, and what is acknowledged stays. Who
 * leads may keep others from agreeing; with another leader all goes on. */
static void garbage_in_a_lane_harms_nobody(void **state)
{
    (void)state;
    unsigned spoiled = 0;
    for (uint64_t seed = 0; seed < 80; seed++) {
        world_t *w = three_hosts(100 + seed);
        test_client_t *c = world_node_client(w, LEADER);
        for (unsigned i = 0; i < 40; i++) put(w, c, i);
        for (unsigned i = 0; i < 8; i++) {
            spoiled += world_lane_spoil(w, 1 + i % 2, LEADER, 8 * seed + seed / 2 + i);
            world_pass(w, 20 * RF_NS_PER_MS);
        }
        world_kill(w, LEADER);
        world_pass(w, 5 * RF_NS_PER_S);
        assert_true(w->alive[1] && w->alive[2] && !w->exited[1] && !w->exited[2]);
        put(w, world_node_client(w, 1), 99);
        world_pass(w, RF_NS_PER_S);
        for (rf_core_t core = 1; core < 3; core++) {
            for (unsigned i = 0; i < 40; i++) assert_true(holds(w, core, i));
            assert_true(holds(w, core, 99));
            assert_true(registry_revision(w->monitor[1]->registry) ==
                        registry_revision(w->monitor[2]->registry));
        }
        world_free(w);
    }
    assert_true(spoiled >= 80);
}

/* A link that never gets ready is dialled ever more rarely, and soon when it can be; messages do meanwhile. */
static void a_lane_that_is_refused_is_dialled_rarely(void **state)
{
    (void)state;
    world_t *w = world_new_one_sided(3, 1, 6);
    w->lanes_refused = RF_ERR_NO_MEMORY;
    world_form(w);
    test_client_t *c = world_node_client(w, LEADER);
    put(w, c, 0);
    world_pass(w, 60 * RF_NS_PER_S);
    unsigned dialled = w->n_lanes_dialled; /* by each of three for each of two others */
    assert_true(dialled >= 6 * 6 && dialled <= 6 * 14);
    assert_int_equal(world_status(w, c).lanes, 0);
    w->lanes_refused = RF_OK;
    world_pass(w, 11 * RF_NS_PER_S);
    for (unsigned i = 1; i < 40; i++) put(w, c, i);
    assert_int_equal(lanes_of(w, LEADER), 2);
    for (unsigned i = 0; i < 10; i++) { /* one that was ready is dialled at once, each time */
        world_lanes_end(w, LEADER, 1);
        world_pass(w, 150 * RF_NS_PER_MS);
        put(w, c, 40 + i);
    }
    world_pass(w, 150 * RF_NS_PER_MS);
    put(w, c, 50);
    assert_int_equal(lanes_of(w, LEADER), 2);
    world_free(w);
}

static void a_medium_that_keeps_memory_is_said(void **state)
{
    (void)state;
    world_t *w = world_new_one_sided(3, 1, 7);
    w->lanes_refused = RF_ERR_NOT_SUPPORTED;
    world_form(w);
    test_client_t *c = world_node_client(w, LEADER);
    put(w, c, 0);
    assert_int_equal(world_status(w, c).lanes, RF_CLIENT_LANES_UNFIT);
    unsigned dialled = w->n_lanes_dialled;
    world_pass(w, 60 * RF_NS_PER_S);
    assert_int_equal(w->n_lanes_dialled, dialled); /* it does not change */
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_go_through_lanes),
        cmocka_unit_test(without_the_option_there_are_none),
        cmocka_unit_test(what_only_memory_knows_outlives_its_leader),
        cmocka_unit_test(a_long_tail_is_read_whole),
        cmocka_unit_test(a_leader_that_was_replaced_writes_nowhere),
        cmocka_unit_test(a_voter_that_comes_back_grants_another),
        cmocka_unit_test(a_lane_that_ends_is_replaced),
        cmocka_unit_test(garbage_in_a_lane_harms_nobody),
        cmocka_unit_test(a_lane_that_is_refused_is_dialled_rarely),
        cmocka_unit_test(a_medium_that_keeps_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
