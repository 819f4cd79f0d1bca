/* Contact with the quorum: whose dispatchers freeze when it is lost, who may count on that, and what is no contact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

/* A host that is cut off freezes, also while its gateway is stopped and judges nothing. */
static void a_stalled_gateway_does_not_keep_its_host_running(void **state)
{
    (void)state;
    world_t *w = world_new(3, 3, 48);
    world_form(w);
    world_stall(w, 6, true);
    world_cut(w, 2, 0, true);
    world_cut(w, 2, 1, true);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_true(w->alive[7] && w->fake.cores[7].frozen);
    assert_true(w->alive[8] && w->fake.cores[8].frozen);
    assert_false(w->fake.cores[0].frozen);
    world_free(w);
}

/* Stopped alone it is expelled, and nobody stays frozen. */
static void a_stalled_gateway_leaves_its_host_running(void **state)
{
    (void)state;
    world_t *w = world_new(3, 3, 49);
    world_form(w);
    world_stall(w, 6, true);
    world_pass(w, 6 * RF_NS_PER_S);
    rf_client_status_t s = world_status(w, world_node_client(w, 7));
    assert_int_equal(s.cores_up, 8);
    for (rf_core_t core = 7; core < 9; core++) {
        assert_false(w->fake.cores[core].frozen);
        assert_int_equal(world_spawn(w, world_node_client(w, core), core, NULL), RF_OK);
    }
    world_free(w);
}

/* All monitors of a host stop: nobody there can freeze anything any more, so its CPU drivers do, by the leases, before the others take
 * anything there for fenced. Back again they have heard nothing of the quorum, whatever they were told before, and put nothing off. */
static void a_host_of_stalled_monitors_freezes(void **state)
{
    (void)state;
    for (unsigned leads = 0; leads < 2; leads++) {
        world_t *w = world_new(3, 2, 61 + leads);
        rf_core_t first = leads ? 0 : 4;
        world_form(w);
        world_pass(w, 3 * RF_NS_PER_S);
        assert_int_equal(world_status(w, world_node_client(w, first)).leader, 0);
        for (rf_core_t core = first; core < first + 2; core++) {
            assert_true(fake_core_runs(&w->fake.cores[core], w->now_ns + boot_self_ns(&w->boot) -
                                                                 w->boot.heartbeat_ms * RF_NS_PER_MS));
            world_stall(w, core, true);
        }
        uint64_t ends_ns = w->now_ns + boot_lease_ns(&w->boot);
        for (unsigned ms = 0; ms < 8000; ms++) {
            world_pass(w, RF_NS_PER_MS);
            for (rf_core_t core = first; core < first + 2; core++) {
                bool runs = fake_core_runs(&w->fake.cores[core], w->now_ns);
                assert_false(runs && w->now_ns >= ends_ns);
                for (rf_core_t other = 2; other < 4; other++)
                    assert_false(runs && w->monitor[other]->cores[core].fence == FENCE_DONE);
            }
        }
        assert_int_equal(w->monitor[2]->cores[first].fence, FENCE_DONE);
        assert_int_equal(world_status(w, world_node_client(w, 2)).cores_up, 4);
        for (rf_core_t core = first; core < first + 2; core++) world_stall(w, core, false);
        for (unsigned us = 0; us < 20000; us++) {
            world_pass(w, RF_NS_PER_MS / 10);
            for (rf_core_t core = first; core < first + 2; core++)
                assert_false(w->alive[core] && fake_core_runs(&w->fake.cores[core], w->now_ns));
        }
        /* Expelled, each by what it has heard, or by its neighbour that had heard it before. */
        assert_false(w->alive[first] || w->alive[first + 1]);
        world_free(w);
    }
}

/* They stop for a moment that nobody notices beyond their host: frozen and thawed, and members all the time. */
static void a_host_that_stalls_shortly_goes_on(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 63);
    world_form(w);
    world_pass(w, 3 * RF_NS_PER_S);
    for (rf_core_t core = 0; core < 6; core++) world_stall(w, core, true);
    world_pass(w, boot_lease_ns(&w->boot));
    for (rf_core_t core = 0; core < 6; core++) assert_false(fake_core_runs(&w->fake.cores[core], w->now_ns));
    for (rf_core_t core = 0; core < 6; core++) world_stall(w, core, false);
    world_pass(w, 5 * RF_NS_PER_S);
    for (rf_core_t core = 0; core < 6; core++) {
        assert_true(w->alive[core] && fake_core_runs(&w->fake.cores[core], w->now_ns));
        assert_int_equal(world_spawn(w, world_node_client(w, core), core, NULL), RF_OK);
    }
    world_free(w);
}

/* The side without a majority refuses, freezes its dispatchers and forgets nothing; it is expelled by the other, and joins. */
static void a_partition_leaves_one_side(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 14);
    world_form(w);
    rf_client_status_t a = world_status(w, world_node_client(w, 1));
    unsigned voters[2] = {0};
    for (unsigned i = 0; i < a.n_voters; i++) voters[a.voters[i] / 2]++;
    rf_node_t major = voters[0] > voters[1] ? 0 : 1, minor = 1 - major;
    rf_core_t in = (rf_core_t)(2 * major), out = (rf_core_t)(2 * minor);
    assert_true(2 * voters[major] > a.n_voters);
    world_cut(w, 0, 1, true);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_true(w->fake.cores[out].frozen || !w->alive[out]);
    assert_false(w->fake.cores[in].frozen);
    a = world_status(w, world_node_client(w, in + 1));
    assert_true(a.has_quorum);
    assert_int_equal(a.cores_up, 2);
    assert_int_equal(world_spawn(w, world_node_client(w, in), in, NULL), RF_OK);
    assert_true(w->alive[out]);
    rf_client_status_t b = world_status(w, world_node_client(w, out));
    assert_false(b.has_quorum);
    assert_int_equal(world_spawn(w, world_node_client(w, out), out, NULL), RF_ERR_NO_QUORUM);
    world_cut(w, 0, 1, false);
    world_pass(w, 10 * RF_NS_PER_S);
    for (rf_core_t core = out; core < out + 2; core++) {
        assert_false(w->alive[core]); /* it has learnt that it was expelled */
        assert_int_equal(w->exit_status[core], MONITOR_EXIT_EXPELLED);
        assert_int_equal(world_rejoin(w, core, in), RF_OK);
    }
    world_pass(w, 5 * RF_NS_PER_S);
    a = world_status(w, world_node_client(w, out));
    assert_true(a.has_quorum);
    assert_int_equal(a.cores_up, 4);
    world_free(w);
}

/* Without a majority anywhere nobody is expelled: all wait, and go on when it heals. */
static void all_cut_off_and_healed(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 15);
    world_form(w);
    for (rf_node_t i = 0; i < 3; i++)
        for (rf_node_t k = 0; k < i; k++) world_cut(w, i, k, true);
    world_pass(w, 20 * RF_NS_PER_S);
    for (rf_core_t core = 0; core < 3; core++) {
        rf_client_status_t s = world_status(w, world_node_client(w, core));
        assert_true(w->alive[core] && w->fake.cores[core].frozen);
        assert_false(s.has_quorum);
        assert_false(s.lost);
        assert_int_equal(s.n_waiting, 2);
        assert_int_equal(world_spawn(w, world_node_client(w, core), core, NULL), RF_ERR_NO_QUORUM);
    }
    for (rf_node_t i = 0; i < 3; i++)
        for (rf_node_t k = 0; k < i; k++) world_cut(w, i, k, false);
    world_pass(w, 5 * RF_NS_PER_S);
    for (rf_core_t core = 0; core < 3; core++) {
        rf_client_status_t s = world_status(w, world_node_client(w, core));
        assert_true(s.has_quorum);
        assert_int_equal(s.cores_up, 3);
        assert_int_equal(s.incarnation, 1);
        assert_false(w->fake.cores[core].frozen);
        assert_int_equal(world_spawn(w, world_node_client(w, core), core, NULL), RF_OK);
    }
    world_free(w);
}

static bool runs(const world_t *w, rf_core_t core)
{
    return w->alive[core] && fake_core_runs(&w->fake.cores[core], w->now_ns);
}

/* What a cut-off host reads late, from whomever, with its monitor awake all the time, is no contact: it has asked nothing meanwhile. */
static void what_is_read_late_is_no_contact(void **state)
{
    (void)state;
    for (unsigned defect = 0; defect <= MONITOR_DEFECT_LEASE_LED; defect += MONITOR_DEFECT_LEASE_LED) {
        world_t *w = world_new(3, 1, 64);
        world_form(w);
        world_pass(w, 3 * RF_NS_PER_S);
        monitor_t *m = w->monitor[2];
        m->defects = defect;
        assert_int_equal(m->agree.state.leader.core, 0);
        uint64_t since_ns = w->now_ns;
        for (rf_core_t core = 0; core < 2; core++) {
            world_hold(w, core, 2, true);
            world_hold(w, 2, core, true);
        }
        world_pass(w, boot_self_ns(&w->boot) * 8 / 10);
        for (rf_core_t core = 0; core < 2; core++) world_hold(w, core, 2, false);
        world_pass(w, RF_NS_PER_MS);
        assert_true(m->cores[0].heard_ns >= since_ns + boot_self_ns(&w->boot) * 8 / 10);
        assert_int_equal(m->contact_ns > since_ns, defect != 0);
        world_pass(w, boot_self_ns(&w->boot) * 2 / 10 + 2 * w->boot.heartbeat_ms * RF_NS_PER_MS);
        assert_int_equal(m->frozen, defect == 0);
        world_free(w);
    }
}

/* A host is expelled, and heard by one that has not learnt it, but hears others who have, of their contact. It does not pass that
 * on to the expelled, which freezes before the others take it for fenced. */
static void contact_is_not_taken_from_who_has_gone_on(void **state)
{
    (void)state;
    for (unsigned defect = 0; defect <= MONITOR_DEFECT_CONTACT_BEHIND;
         defect += MONITOR_DEFECT_CONTACT_BEHIND) {
        enum { LEADER, BEHIND = 3, LOST = 4 };
        world_t *w = world_new(5, 1, 65);
        world_form(w);
        world_pass(w, 3 * RF_NS_PER_S);
        assert_int_equal(w->monitor[BEHIND]->agree.state.leader.core, LEADER);
        for (rf_core_t core = 0; core < 5; core++) w->monitor[core]->defects = defect;
        world_hold(w, LEADER, BEHIND, true);
        for (rf_node_t node = 0; node < BEHIND; node++) world_cut(w, node, LOST, true);
        bool both = false;
        for (unsigned ms = 0; ms < 8000 && w->monitor[1]->cores[LOST].fence != FENCE_DONE; ms++) {
            world_pass(w, RF_NS_PER_MS);
            both |= runs(w, LOST) && w->monitor[1]->cores[LOST].fence == FENCE_DONE;
        }
        assert_int_equal(w->monitor[1]->cores[LOST].fence, FENCE_DONE);
        assert_true(w->monitor[BEHIND]->agree.state.view < w->monitor[1]->agree.state.view);
        assert_true(w->alive[LOST]);
        assert_int_equal(both, defect != 0);
        world_hold(w, LEADER, BEHIND, false);
        world_free(w);
    }
}

/* A host is cut off before a core of it is given its next life, which starts late and is heard by nobody, but reads the view that names
 * it. It has no contact by that: it does not run, and has nobody of its host go on. */
static void who_joins_late_does_not_thaw_its_host(void **state)
{
    (void)state;
    enum { LATE = 4, OLD = 5 };
    world_t *w = world_new(3, 2, 66);
    world_form(w);
    world_kill(w, LATE);
    world_pass(w, RF_NS_PER_S);
    for (rf_core_t core = 0; core < LATE; core++) {
        world_hold(w, core, OLD, true);
        world_hold(w, OLD, core, true);
    }
    rf_incarnation_t incarnation;
    assert_int_equal(world_join(w, LATE, 0, &incarnation), RF_OK);
    for (rf_core_t core = 0; core < LATE; core++) world_hold(w, LATE, core, true);
    for (unsigned ms = 0; ms < 3000 && !w->fake.cores[OLD].frozen; ms++) world_pass(w, RF_NS_PER_MS);
    assert_true(w->alive[OLD] && w->fake.cores[OLD].frozen);
    world_start(w, LATE, incarnation);
    for (rf_core_t core = 0; core < LATE; core++) world_hold(w, LATE, core, false);
    for (unsigned i = 0; i < 10000 && !w->monitor[LATE]->formed; i++) world_deliver(w, 1);
    for (rf_core_t core = 0; core < LATE; core++) world_hold(w, LATE, core, true);
    for (unsigned ms = 0; ms < 400; ms++) {
        world_pass(w, RF_NS_PER_MS);
        assert_true(w->alive[LATE] && w->monitor[LATE]->formed);
        assert_int_equal(w->monitor[LATE]->contact_ns, 0);
        assert_true(w->fake.cores[OLD].frozen || !w->alive[OLD]);
        assert_false(runs(w, LATE));
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stalled_gateway_does_not_keep_its_host_running),
        cmocka_unit_test(a_stalled_gateway_leaves_its_host_running),
        cmocka_unit_test(a_host_of_stalled_monitors_freezes),
        cmocka_unit_test(a_host_that_stalls_shortly_goes_on),
        cmocka_unit_test(a_partition_leaves_one_side),
        cmocka_unit_test(all_cut_off_and_healed),
        cmocka_unit_test(what_is_read_late_is_no_contact),
        cmocka_unit_test(contact_is_not_taken_from_who_has_gone_on),
        cmocka_unit_test(who_joins_late_does_not_thaw_its_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
