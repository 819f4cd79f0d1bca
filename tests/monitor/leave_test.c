/* Cores that come late, come back, and leave in order; domains that end with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

/* More entries than the ring holds while a core is away: it is sent a snapshot. */
static void a_new_incarnation_gets_a_snapshot(void **state)
{
    (void)state;
    world_t *w = world_new(2, 3, 31);
    world_form(w);
    test_client_t *c = world_node_client(w, 1);
    rf_domain_t d, kept;
    test_client_t *x = world_domain_on(w, 1, &kept);
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "kept"), RF_OK);
    world_kill(w, 5);
    world_pass(w, RF_NS_PER_S);
    for (unsigned i = 0; i < 2 * AGREE_LOG_MAX; i++) {
        assert_int_equal(world_spawn(w, c, 1, &d), RF_OK);
        world_exit_dispatcher(w, 1, d, 0, 0);
        world_settle(w);
        world_forget_inbox(c);
    }
    assert_int_equal(world_rejoin(w, 5, 3), RF_OK);
    world_pass(w, 5 * RF_NS_PER_S);
    test_client_t *c5 = world_node_client(w, 5);
    rf_client_status_t s = world_status(w, c5);
    assert_false(s.forming);
    assert_true(s.snapshots_loaded >= 1);
    rf_client_domain_t out;
    assert_int_equal(world_domain(w, c5, kept, &out), RF_OK);
    assert_int_equal(out.state, RF_DOMAIN_RUNNING);
    assert_int_equal(world_domain(w, c5, d, &out), RF_OK);
    assert_int_equal(out.state, RF_DOMAIN_ENDED);
    assert_int_equal(world_spawn(w, c5, 5, &d), RF_OK);
    world_check(w);
    world_free(w);
}

/* Who comes when the machine has been formed is told so, and joins. */
static void a_late_comer_joins(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 47);
    w->alive[3] = false;
    world_form_late(w);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 3);
    w->alive[3] = true;
    w->tick_ns[3] = w->now_ns;
    world_introduce(w, 3);
    world_pass(w, 2 * RF_NS_PER_S);
    assert_true(w->exited[3]);
    assert_int_equal(w->exit_status[3], MONITOR_EXIT_EXPELLED);
    assert_int_equal(world_rejoin(w, 3, 0), RF_OK);
    world_pass(w, 3 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 4);
    assert_int_equal(world_spawn(w, world_node_client(w, 3), 3, NULL), RF_OK);
    world_free(w);
}

/* Who is expelled before it has heard of its own view has nobody to tell it so: it gives up, and joins again. */
static void a_joiner_that_is_forgotten_gives_up(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 48);
    world_form(w);
    world_kill_node(w, 2);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(world_rejoin(w, 2, 0), RF_OK);
    for (rf_node_t node = 0; node < 2; node++) world_cut(w, node, 2, true);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 2);
    for (rf_node_t node = 0; node < 2; node++) world_cut(w, node, 2, false);
    world_pass(w, 15 * RF_NS_PER_S);
    assert_false(w->alive[2]);
    assert_int_equal(w->exit_status[2], MONITOR_EXIT_EXPELLED);
    assert_int_equal(world_rejoin(w, 2, 0), RF_OK);
    world_pass(w, 3 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 2)).cores_up, 3);
    world_free(w);
}

/* A first life that came too late for the forming is told so by any member when core 0 is dead. */
static void a_late_comer_is_told_when_core_0_is_dead(void **state)
{
    (void)state;
    world_t *w = world_new(5, 1, 49);
    world_settle(w);
    world_introduce(w, 0);
    world_introduce(w, 4);
    world_settle(w);
    assert_int_equal(w->monitor[4]->phase, PHASE_READY);
    for (rf_node_t node = 0; node < 4; node++) world_cut(w, node, 4, true);
    for (rf_core_t core = 1; core < 4; core++) world_introduce(w, core);
    world_pass(w, BOOT_NS + RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 1)).cores_up, 4);
    world_kill_node(w, 0);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 1)).cores_up, 3);
    assert_true(w->alive[4]);
    assert_false(w->monitor[4]->formed);
    for (rf_node_t node = 0; node < 4; node++) world_cut(w, node, 4, false);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_true(w->exited[4]);
    assert_int_equal(w->exit_status[4], MONITOR_EXIT_EXPELLED);
    world_free(w);
}

/* A host that is linked and ready is cut off before it hears of the machine, which goes on without it; and the cores of the only other
 * host, `n_dead` of them, core 0 first, die and come again, of which its monitors are told. Whoever lives there says so. */
static void forget_a_host(uint64_t seed, unsigned n_dead, bool again)
{
    world_t *w = world_new(2, 4, seed);
    world_stall(w, 1, true); /* whom core 0 waits for */
    for (rf_core_t core = 0; core < 8; core++) {
        if (core != 1) world_introduce(w, core);
    }
    world_settle(w);
    for (rf_core_t core = 4; core < 8; core++) {
        assert_int_equal(w->monitor[core]->phase, PHASE_READY);
        for (rf_core_t from = 0; from < 4; from++) world_hold(w, from, core, true);
    }
    world_stall(w, 1, false);
    world_introduce(w, 1);
    world_settle(w);
    assert_true(w->monitor[0]->formed && !w->monitor[4]->formed);
    world_cut(w, 0, 1, true);
    for (rf_core_t core = 4; core < 8; core++) {
        for (rf_core_t from = 0; from < 4; from++) {
            world_unsay(w, core, CHANNEL_PEER + from, MONITOR_PEER_MESSAGE);
            world_hold(w, from, core, false);
        }
    }
    world_pass(w, 5 * RF_NS_PER_S);
    for (rf_core_t dead = 0; dead < n_dead; dead++) {
        rf_client_dead_t word = {.core = dead, .incarnation = 1};
        world_kill(w, dead);
        for (rf_core_t core = 4; core < 8; core++)
            world_ask(w, world_node_client(w, core), RF_CLIENT_DEAD, &word, sizeof word, NULL, 0);
        world_pass(w, 5 * RF_NS_PER_S);
        if (again) assert_int_equal(world_rejoin(w, dead, dead == 3 ? 2 : 3), RF_OK);
        world_pass(w, 5 * RF_NS_PER_S);
    }
    assert_int_equal(world_status(w, world_node_client(w, 3)).cores_up, again ? 4 : 4 - n_dead);
    for (rf_core_t core = 4; core < 8; core++) assert_true(w->alive[core] && !w->monitor[core]->formed);
    world_cut(w, 0, 1, false);
    world_pass(w, 5 * RF_NS_PER_S);
    for (rf_core_t core = 4; core < 8; core++) {
        assert_true(w->exited[core]);
        assert_int_equal(w->exit_status[core], MONITOR_EXIT_EXPELLED);
    }
    assert_int_equal(world_rejoin(w, 4, 3), RF_OK);
    world_pass(w, 3 * RF_NS_PER_S);
    assert_true(w->monitor[4]->formed);
    world_free(w);
}

static void a_host_that_was_forgotten_is_told_by_the_other(void **state)
{
    (void)state;
    forget_a_host(50, 0, false); /* by core 0, which it dials all the time */
    forget_a_host(51, 1, false);
    forget_a_host(52, 1, true);
    forget_a_host(53, 4, true); /* nobody there is in the life that it knows */
}

/* Who is linked with members of its own host alone is told by those. */
static void a_late_comer_is_told_by_its_host(void **state)
{
    (void)state;
    world_t *w = world_new(2, 3, 54);
    w->alive[4] = false;
    world_form_late(w);
    world_cut(w, 0, 1, true);
    w->alive[4] = true;
    w->tick_ns[4] = w->now_ns;
    world_introduce(w, 4);
    world_pass(w, 2 * RF_NS_PER_S);
    assert_true(w->exited[4]);
    assert_int_equal(w->exit_status[4], MONITOR_EXIT_EXPELLED);
    world_free(w);
}

/* What JOIN answered to that request; 0: an error. */
static rf_incarnation_t joined_as(const test_client_t *c, uint32_t tag)
{
    const message_t *reply = world_reply(c, tag);
    rf_client_joined_t joined = {0};
    assert_non_null(reply);
    assert_true(reply->size >= sizeof joined);
    memcpy(&joined, reply->body, sizeof joined);
    assert_int_equal(reply->header.err == RF_OK, joined.incarnation > 0);
    return joined.incarnation;
}

static uint32_t ask_to_join(world_t *w, test_client_t *c, rf_core_t core)
{
    rf_client_join_t join = {.core = core};
    return world_send(w, c, RF_CLIENT_JOIN, &join, sizeof join, 0);
}

/* A host that comes back: its cores join by one change. Who asks twice for a core gets two lives. */
static void cores_that_ask_together_join_together(void **state)
{
    (void)state;
    for (rf_core_t asked = 0; asked < 8; asked += 5) { /* the leader, and one that forwards */
        world_t *w = world_new(2, 8, 71 + asked);
        world_form(w);
        test_client_t *c = world_node_client(w, asked);
        for (rf_core_t core = 8; core < 16; core++) world_kill(w, core);
        world_pass(w, 5 * RF_NS_PER_S);
        rf_client_status_t before = world_status(w, c);
        assert_int_equal(before.cores_up, 8);
        uint32_t tags[8];
        for (rf_core_t i = 0; i < 8; i++) tags[i] = ask_to_join(w, c, (rf_core_t)(8 + i));
        world_pass(w, RF_NS_PER_S / 2); /* in less than which nobody is given up */
        for (rf_core_t i = 0; i < 8; i++) assert_int_equal(joined_as(c, tags[i]), 2);
        rf_client_status_t after = world_status(w, c);
        assert_int_equal(after.cores_up, 16);
        assert_int_equal(after.view, before.view + 1);
        for (rf_core_t i = 0; i < 8; i++) world_start(w, (rf_core_t)(8 + i), 2);
        world_pass(w, 3 * RF_NS_PER_S);
        for (rf_core_t core = 8; core < 16; core++) assert_int_equal(world_spawn(w, c, core, NULL), RF_OK);
        world_kill(w, 15);
        world_pass(w, 5 * RF_NS_PER_S);
        uint32_t twice[2] = {ask_to_join(w, c, 15), ask_to_join(w, c, 15)};
        world_pass(w, RF_NS_PER_S);
        assert_int_equal(joined_as(c, twice[0]) + joined_as(c, twice[1]), 3 + 4);
        world_check(w);
        world_free(w);
    }
}

/* Whatever becomes of who is asked, of the leader and of what was agreed: no life is given to two. */
static void no_life_is_given_twice(void **state)
{
    (void)state;
    unsigned n_given = 0, n_not = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        world_t *w = world_new(3, 3, seed);
        world_form(w);
        test_client_t *c[2] = {world_node_client(w, 4), world_node_client(w, 3)};
        world_kill_node(w, 2);
        world_pass(w, 5 * RF_NS_PER_S);
        uint32_t tags[12];
        rf_incarnation_t given[12];
        for (unsigned i = 0; i < 12; i++) { /* three cores, each twice at two monitors */
            tags[i] = ask_to_join(w, c[i / 6], (rf_core_t)(6 + i % 3));
            world_deliver(w, (unsigned)rf_prng_below(&w->prng, 12));
        }
        if (seed % 4 == 0) world_kill(w, 0);
        if (seed % 4 == 1) world_kill_node(w, 0);
        if (seed % 4 == 2) world_cut(w, 0, 1, true);
        world_pass(w, 3 * RF_NS_PER_S);
        if (seed % 4 == 2) world_cut(w, 0, 1, false);
        world_pass(w, 20 * RF_NS_PER_S);
        for (unsigned i = 0; i < 12; i++) {
            given[i] = joined_as(c[i / 6], tags[i]);
            n_given += given[i] > 0;
            n_not += given[i] == 0;
            assert_true(given[i] == 0 || given[i] > 1);
            for (unsigned k = 0; k < i; k++)
                assert_true(given[i] == 0 || k % 3 != i % 3 || given[k] != given[i]);
        }
        world_check(w);
        world_free(w);
    }
    assert_true(n_given > 100);
    assert_true(n_not > 0);
}

static void a_core_leaves_in_order(void **state)
{
    (void)state;
    for (rf_core_t victim = 0; victim < 3; victim++) {
        world_t *w = world_new(1, 3, 50 + victim);
        world_form(w);
        rf_domain_t d;
        test_client_t *c = world_node_client(w, victim), *other = world_node_client(w, (victim + 1) % 3);
        world_domain_on(w, victim, &d);
        rf_client_leave_t leave = {.mode = RF_LEAVE_IF_IDLE};
        rf_client_left_t left;
        assert_int_equal(world_ask(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, &left, sizeof left),
                         RF_ERR_BUSY);
        assert_int_equal(left.dispatchers, 1);
        leave.mode = victim == 1 ? RF_LEAVE_WAIT : RF_LEAVE_KILL;
        uint32_t tag = world_send(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, 0);
        world_pass(w, RF_NS_PER_S);
        if (victim == 1) {
            assert_null(world_reply(c, tag));
            assert_int_equal(world_spawn(w, other, victim, NULL), RF_ERR_CLOSED);
            world_exit_dispatcher(w, victim, d, 0, 0);
        }
        world_pass(w, 5 * RF_NS_PER_S);
        assert_int_equal(world_reply(c, tag)->header.err, RF_OK);
        assert_true(w->exited[victim]);
        assert_int_equal(w->exit_status[victim], MONITOR_EXIT_SHUTDOWN);
        rf_client_status_t s = world_status(w, other);
        assert_true(s.has_quorum);
        assert_int_equal(s.cores_up, 2);
        assert_int_equal(world_rejoin(w, victim, (victim + 1) % 3), RF_OK);
        world_pass(w, 3 * RF_NS_PER_S);
        assert_int_equal(world_status(w, other).cores_up, 3);
        world_free(w);
    }
}

/* Who waits for what runs there is overtaken by who does not; both are answered. */
static void a_leave_that_waits_is_hurried(void **state)
{
    (void)state;
    world_t *w = world_new(1, 3, 53);
    world_form(w);
    rf_domain_t d;
    test_client_t *c = world_node_client(w, 1);
    world_domain_on(w, 1, &d);
    rf_client_leave_t leave = {.mode = RF_LEAVE_WAIT};
    uint32_t waits = world_send(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, 0);
    world_pass(w, RF_NS_PER_S);
    assert_int_equal(world_ask(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, NULL, 0), RF_ERR_BUSY);
    w->fake.ignore_term = true;
    leave.mode = RF_LEAVE_KILL;
    uint32_t kills = world_send(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, 0);
    world_pass(w, RF_NS_PER_S);
    assert_null(world_reply(c, waits));
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(world_reply(c, waits)->header.err, RF_OK);
    assert_int_equal(world_reply(c, kills)->header.err, RF_OK);
    assert_false(world_runs(w, 1, d, 0));
    assert_true(w->exited[1]);
    assert_int_equal(w->exit_status[1], MONITOR_EXIT_SHUTDOWN);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 2);
    world_free(w);
}

static void put_often(world_t *w, test_client_t *c, unsigned n)
{
    struct {
        rf_client_registry_t head;
        char name[4];
    } r = {.head = {.what = RF_REGISTRY_PUT, .kind = RF_REGISTRY_KIND_KEY, .name_size = 3, .user = "alice"},
           .name = "key"};
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(world_ask_for(w, c, RF_CLIENT_REGISTRY_CHANGE, &r, sizeof r.head + r.head.name_size,
                                       NULL, 0, RF_NS_PER_S),
                         RF_OK);
        world_forget_inbox(c);
    }
}

/* Its change waits until a host that is silent is expelled; meanwhile it makes more entries than its session's window holds. The change is
 * not denied, so the core does not go on as a member, to leave when nobody expects it. */
static void a_leave_that_waits_is_not_denied(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 71);
    world_form(w);
    test_client_t *c = world_node_client(w, 1);
    for (rf_node_t node = 0; node < 2; node++) world_cut(w, node, 2, true);
    rf_client_leave_t leave = {.mode = RF_LEAVE_IF_IDLE};
    world_pass(w, 600 * RF_NS_PER_MS); /* longer than who is there may be silent */
    uint32_t tag = world_send(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, 0);
    world_pass(w, 10 * RF_NS_PER_MS);
    put_often(w, c, 2 * AGREEMENT_WINDOW);
    world_pass(w, 300 * RF_NS_PER_MS); /* it is sent again meanwhile */
    assert_int_equal(w->monitor[1]->phase, PHASE_LEAVING);
    assert_null(world_reply(c, tag));
    world_pass(w, 6 * RF_NS_PER_S);
    assert_true(w->exited[1]);
    assert_int_equal(w->exit_status[1], MONITOR_EXIT_SHUTDOWN);
    world_free(w);
}

/* The machine loses its quorum at any moment of a leave, for longer than the request lasts. If it is answered that nothing was done the core
 * stays; if that is not known it leaves, and takes nothing on until then. */
static void a_leave_that_was_denied_never_happens(void **state)
{
    (void)state;
    unsigned n_left = 0;
    for (unsigned k = 0; k < 24; k++) {
        world_t *w = world_new(3, 1, 72 + k);
        world_form(w);
        test_client_t *c = world_node_client(w, 1);
        rf_client_leave_t leave = {.mode = RF_LEAVE_IF_IDLE};
        uint32_t tag = world_send(w, c, RF_CLIENT_LEAVE, &leave, sizeof leave, 0);
        world_deliver(w, k);
        for (rf_node_t node = 0; node < 3; node++) world_cut(w, node, (node + 1) % 3, true);
        world_pass(w, CHANGE_NS + 5 * RF_NS_PER_S);
        if (w->exited[1]) {
            world_free(w);
            continue;
        }
        const message_t *reply = world_reply(c, tag);
        assert_non_null(reply);
        rf_err_t err = reply->header.err;
        assert_int_not_equal(err, RF_OK);
        assert_int_equal(w->monitor[1]->phase, err == RF_ERR_UNKNOWN_OUTCOME ? PHASE_LEAVING : PHASE_FORMED);
        for (rf_node_t node = 0; node < 3; node++) world_cut(w, node, (node + 1) % 3, false);
        world_pass(w, 10 * RF_NS_PER_S);
        assert_int_equal(w->exited[1], err == RF_ERR_UNKNOWN_OUTCOME);
        if (w->exited[1]) assert_int_equal(w->exit_status[1], MONITOR_EXIT_SHUTDOWN);
        n_left += w->exited[1];
        world_check(w);
        world_free(w);
    }
    assert_true(n_left > 0);
}

static void the_last_core_stays(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 60);
    world_form(w);
    rf_client_leave_t leave = {.mode = RF_LEAVE_KILL};
    assert_int_equal(world_ask(w, world_node_client(w, 0), RF_CLIENT_LEAVE, &leave, sizeof leave, NULL, 0),
                     RF_ERR_PERMISSION);
    world_free(w);
}

static void shutdown_ends_domains_first(void **state)
{
    (void)state;
    for (int stubborn = 0; stubborn < 2; stubborn++) {
        world_t *w = world_new(1, 2, 15);
        world_form(w);
        rf_domain_t d;
        test_client_t *c = world_node_client(w, 1);
        assert_int_equal(world_spawn(w, c, 1, &d), RF_OK);
        w->fake.ignore_term = stubborn;
        uint32_t tag = world_send(w, c, RF_CLIENT_SHUTDOWN, NULL, 0, 0);
        world_settle(w);
        assert_int_equal(w->exited[1], !stubborn);
        if (stubborn) {
            assert_true(world_runs(w, 1, d, 0));
            assert_int_equal(world_spawn(w, c, 1, NULL), RF_ERR_CLOSED);
            world_pass(w, SHUTDOWN_GRACE_NS + RF_NS_PER_S);
        }
        assert_false(world_runs(w, 1, d, 0));
        assert_true(w->exited[1]);
        assert_int_equal(world_reply(c, tag)->header.err, RF_OK);
        rf_client_domain_t out;
        assert_int_equal(world_domain(w, world_node_client(w, 0), d, &out), RF_OK);
        assert_int_equal(out.state, RF_DOMAIN_ENDED);
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_incarnation_gets_a_snapshot),
        cmocka_unit_test(a_late_comer_joins),
        cmocka_unit_test(a_joiner_that_is_forgotten_gives_up),
        cmocka_unit_test(a_late_comer_is_told_when_core_0_is_dead),
        cmocka_unit_test(a_host_that_was_forgotten_is_told_by_the_other),
        cmocka_unit_test(a_late_comer_is_told_by_its_host),
        cmocka_unit_test(cores_that_ask_together_join_together),
        cmocka_unit_test(no_life_is_given_twice),
        cmocka_unit_test(a_core_leaves_in_order),
        cmocka_unit_test(a_leave_that_waits_is_hurried),
        cmocka_unit_test(a_leave_that_waits_is_not_denied),
        cmocka_unit_test(a_leave_that_was_denied_never_happens),
        cmocka_unit_test(the_last_core_stays),
        cmocka_unit_test(shutdown_ends_domains_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
