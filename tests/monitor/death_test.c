/* Deaths of cores and hosts, of the leader, and of the machine itself: who learns what, and what goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

#include <stdio.h>

static void death_of_a_core(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 9);
    world_form(w);
    rf_domain_t victim, other;
    test_client_t *x = world_domain_on(w, 3, &victim), *y = world_domain_on(w, 1, &other);
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "lost"), RF_OK);
    rf_client_spawn_t span = {.core = 3};
    assert_int_equal(world_ask(w, y, RF_CLIENT_SPAN, &span, sizeof span, NULL, 0), RF_OK);
    test_client_t *c[3];
    uint32_t tags[3];
    rf_client_target_t target = {.domain = victim};
    rf_client_subscribe_t all = {.mask = RF_EVENTS_CORES | RF_EVENTS_NODES | RF_EVENTS_DOMAINS};
    for (rf_core_t core = 0; core < 3; core++) {
        c[core] = world_node_client(w, core);
        assert_int_equal(world_ask(w, c[core], RF_CLIENT_SUBSCRIBE, &all, sizeof all, NULL, 0), RF_OK);
        tags[core] = world_send(w, c[core], RF_CLIENT_WAIT, &target, sizeof target, 0);
    }
    world_settle(w);
    world_kill(w, 3);
    world_settle(w);
    for (rf_core_t core = 0; core < 3; core++) {
        rf_client_domain_t d;
        const message_t *m = world_reply(c[core], tags[core]);
        assert_non_null(m);
        memcpy(&d, m->body, sizeof d);
        assert_int_equal(d.state, RF_DOMAIN_ENDED);
        assert_int_equal(d.reason, RF_ERR_PEER_DEAD);
        rf_client_status_t s = world_status(w, c[core]);
        assert_int_equal(s.cores_up, 3);
        assert_int_equal(s.nodes_up, 2);
        assert_true(s.view > 1);
        assert_true(s.has_quorum);
        unsigned at = 0, downs = 0, ends = 0;
        for (const message_t *e; (e = world_event(c[core], RF_CLIENT_EVENT_MACHINE, &at));) {
            rf_client_machine_event_t event;
            memcpy(&event, e->body, sizeof event);
            downs += event.what == RF_MACHINE_CORE_DOWN && event.core == 3;
            ends += event.what == RF_MACHINE_DOMAIN_ENDED && event.domain == victim;
        }
        assert_int_equal(downs, 1);
        assert_int_equal(ends, 1);
        rf_client_name_request_t name = {.name = "lost"};
        assert_int_equal(world_ask(w, c[core], RF_CLIENT_NAME_GET, &name, sizeof name, NULL, 0),
                         RF_ERR_NOT_FOUND);
        /* The domain that had only a part there goes on without it. */
        assert_int_equal(world_domain(w, c[core], other, &d), RF_OK);
        assert_int_equal(d.state, RF_DOMAIN_RUNNING);
        assert_int_equal(d.alive[0], 1);
        assert_int_equal(world_spawn(w, c[core], 3, NULL), RF_ERR_PEER_DEAD);
        assert_int_equal(world_spawn(w, c[core], core, NULL), RF_OK);
    }
    world_free(w);
}

static void death_of_a_host(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 10);
    world_form(w);
    rf_domain_t victim;
    world_domain_on(w, 4, &victim);
    test_client_t *c = world_node_client(w, 1);
    rf_client_target_t target = {.domain = victim};
    uint32_t tag = world_send(w, c, RF_CLIENT_WAIT, &target, sizeof target, 0);
    world_settle(w);
    world_kill_node(w, 2);
    world_settle(w);
    assert_null(world_reply(c, tag));
    world_pass(w, (w->boot.host_deadline_ms + 3 * w->boot.heartbeat_ms) * RF_NS_PER_MS);
    const message_t *m = world_reply(c, tag);
    assert_non_null(m);
    rf_client_domain_t d;
    memcpy(&d, m->body, sizeof d);
    assert_int_equal(d.reason, RF_ERR_PEER_DEAD);
    for (rf_core_t core = 0; core < 4; core++) {
        rf_client_status_t s = world_status(w, world_node_client(w, core));
        assert_int_equal(s.cores_up, 4);
        assert_int_equal(s.nodes_up, 2);
        assert_true(s.view > 1);
    }
    world_free(w);
}

static void gateways_take_over(void **state)
{
    (void)state;
    world_t *w = world_new(2, 3, 11);
    world_form(w);
    world_kill(w, 3); /* the second host's gateway */
    world_pass(w, 5 * RF_NS_PER_S);
    test_client_t *c = world_node_client(w, 0);
    assert_int_equal(world_status(w, c).cores_up, 5);
    world_kill_node(w, 1);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(world_status(w, c).cores_up, 3);
    assert_int_equal(world_status(w, c).nodes_up, 1);
    world_free(w);
}

static void an_idle_machine_only_beats(void **state)
{
    (void)state;
    world_t *w = world_new(2, 3, 12);
    world_form(w);
    for (rf_core_t core = 0; core < 6; core++) {
        bool beats = core == 0 || core == 3; /* gateways; the leader, to the voters. The others only wait */
        assert_true(beats || w->tick_ns[core] >= w->now_ns + w->boot.host_deadline_ms / 2 * RF_NS_PER_MS);
    }
    world_pass(w, 100 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 5)).cores_up, 6);
    world_free(w);
}

static void without_a_quorum_reads_and_runs_go_on(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 13);
    world_form(w);
    rf_domain_t on0, on1, on3;
    world_domain_on(w, 0, &on0);
    test_client_t *x = world_domain_on(w, 1, &on1), *y = world_domain_on(w, 3, &on3);
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "kept"), RF_OK);
    test_client_t *c1 = world_node_client(w, 1), *c3 = world_node_client(w, 3);
    rf_client_target_t t0 = {.domain = on0}, t1 = {.domain = on1}, t3 = {.domain = on3};
    uint32_t w0 = world_send(w, c1, RF_CLIENT_WAIT, &t0, sizeof t0, 0);
    uint32_t w1 = world_send(w, c3, RF_CLIENT_WAIT, &t1, sizeof t1, 0);
    uint32_t w3 = world_send(w, c1, RF_CLIENT_WAIT, &t3, sizeof t3, 0);
    world_settle(w);
    world_kill(w, 0); /* two of the voters 0, 1 and 2, at once */
    world_kill(w, 2);
    world_pass(w, 8 * RF_NS_PER_S);

    /* Who waited for a domain of the dead core has learnt it. */
    rf_client_domain_t d;
    memcpy(&d, world_reply(c1, w0)->body, sizeof d);
    assert_int_equal(d.reason, RF_ERR_PEER_DEAD);
    /* Changes: refused at once. */
    assert_int_equal(world_spawn(w, c1, 1, NULL), RF_ERR_NO_QUORUM);
    assert_int_equal(world_spawn(w, c3, 3, NULL), RF_ERR_NO_QUORUM);
    assert_int_equal(world_name(w, y, RF_CLIENT_NAME_PUT, "new"), RF_ERR_NO_QUORUM);
    rf_client_spawn_t span = {.core = 3};
    assert_int_equal(world_ask(w, x, RF_CLIENT_SPAN, &span, sizeof span, NULL, 0), RF_ERR_NO_QUORUM);
    /* Questions and channels: as before. */
    rf_client_status_t s = world_status(w, c3);
    assert_false(s.has_quorum);
    assert_int_equal(s.leader, RF_CORE_NONE);
    assert_int_equal(s.cores_up, 2);
    assert_int_equal(world_domain(w, c3, on1, &d), RF_OK);
    assert_int_equal(d.state, RF_DOMAIN_RUNNING);
    rf_client_connected_t asker;
    rf_client_incoming_t incoming;
    bool fds;
    assert_int_equal(world_connect(w, y, x, "kept", RF_OK, &asker, &incoming, &fds), RF_OK);
    /* Ends are still learnt everywhere, and kill works. */
    world_exit_dispatcher(w, 1, on1, 0, 5 << 8);
    world_settle(w);
    memcpy(&d, world_reply(c3, w1)->body, sizeof d);
    assert_int_equal(d.state, RF_DOMAIN_ENDED);
    assert_int_equal(d.wait_status, 5 << 8);
    assert_int_equal(world_domain(w, c3, on1, &d), RF_OK);
    assert_int_equal(d.state, RF_DOMAIN_ENDED);
    rf_client_kill_t kill = {.domain = on3, .signo = 9, .user = "alice"};
    assert_int_equal(world_ask(w, c1, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_OK);
    memcpy(&d, world_reply(c1, w3)->body, sizeof d);
    assert_int_equal(d.wait_status, 9);
    /* And `down`. */
    for (rf_core_t core = 1; core < 4; core += 2) {
        world_send(w, world_node_client(w, core), RF_CLIENT_SHUTDOWN, NULL, 0, 0);
        world_settle(w);
        assert_true(w->exited[core]);
        assert_int_equal(w->exit_status[core], MONITOR_EXIT_SHUTDOWN);
    }
    world_free(w);
}

static void changes_go_on_without_the_leader(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 16);
    world_form(w);
    rf_domain_t d;
    test_client_t *x = world_domain_on(w, 1, &d);
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "kept"), RF_OK);
    world_kill(w, 0);
    world_settle(w); /* the kernel's evidence: no time has to pass */
    for (rf_core_t core = 1; core < 4; core++) {
        test_client_t *c = world_node_client(w, core);
        rf_client_status_t s = world_status(w, c);
        assert_true(s.has_quorum);
        assert_int_equal(s.leader, 1);
        assert_int_equal(s.cores_up, 3);
        assert_int_equal(s.survives_cores, 1);
        assert_int_equal(world_spawn(w, c, core, NULL), RF_OK);
    }
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "new"), RF_OK);
    world_free(w);
}

static void spawns_under_way_when_the_leader_dies(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        world_t *w = world_new(2, 2, seed);
        world_form(w);
        test_client_t *c = world_node_client(w, 2);
        rf_client_spawn_t body = {.core = 2, .n_fds = 1};
        uint32_t tags[8];
        for (unsigned i = 0; i < 8; i++) tags[i] = world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 1);
        world_deliver(w, (unsigned)rf_prng_below(&w->prng, 60));
        world_kill(w, 0);
        world_pass(w, 8 * RF_NS_PER_S);
        for (unsigned i = 0; i < 8; i++) {
            const message_t *m = world_reply(c, tags[i]);
            assert_non_null(m); /* answered soon, one way or the other */
            rf_client_spawned_t out;
            memcpy(&out, m->body, sizeof out);
            if (m->header.err == RF_OK)
                assert_true(world_runs(w, 2, out.domain, 0));
            else
                assert_true(m->header.err == RF_ERR_NO_QUORUM || m->header.err == RF_ERR_UNKNOWN_OUTCOME);
        }
        world_free(w);
    }
}

static void a_partition_leaves_one_side(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 14);
    world_form(w);
    world_cut(w, 0, 1, true);
    world_pass(w, 8 * RF_NS_PER_S);
    rf_client_status_t a = world_status(w, world_node_client(w, 1)),
                       b = world_status(w, world_node_client(w, 3));
    assert_true(a.has_quorum);
    assert_int_equal(a.cores_up, 2);
    assert_false(b.has_quorum);
    assert_int_equal(b.cores_up, 4); /* cut off is not dead */
    assert_int_equal(world_spawn(w, world_node_client(w, 0), 0, NULL), RF_OK);
    assert_int_equal(world_spawn(w, world_node_client(w, 2), 2, NULL), RF_ERR_NO_QUORUM);
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
        w->ignore_term = stubborn;
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

static void a_dial_that_fails_is_no_death(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 20);
    w->refuse_dials = 12;
    world_form(w);
    rf_domain_t a, b;
    test_client_t *exporter = world_domain_on(w, 1, &a), *c = world_domain_on(w, 3, &b);
    assert_int_equal(world_name(w, exporter, RF_CLIENT_NAME_PUT, "far"), RF_OK);
    w->refuse_dials = 5;
    rf_client_connect_t body = {.name = "far"};
    uint32_t tag = world_send(w, c, RF_CLIENT_CONNECT, &body, sizeof body, 0);
    world_pass(w, RF_NS_PER_S);
    unsigned at = 0;
    const message_t *event = world_event(exporter, RF_CLIENT_EVENT_INCOMING, &at);
    assert_non_null(event);
    rf_client_incoming_t incoming;
    memcpy(&incoming, event->body, sizeof incoming);
    rf_client_accept_t accept = {.channel = incoming.channel.channel, .address = "127.0.0.1:1"};
    world_send(w, exporter, RF_CLIENT_ACCEPT, &accept, sizeof accept, 0);
    world_settle(w);
    assert_int_equal(world_reply(c, tag)->header.err, RF_OK);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 4);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(death_of_a_core),
        cmocka_unit_test(death_of_a_host),
        cmocka_unit_test(gateways_take_over),
        cmocka_unit_test(an_idle_machine_only_beats),
        cmocka_unit_test(without_a_quorum_reads_and_runs_go_on),
        cmocka_unit_test(changes_go_on_without_the_leader),
        cmocka_unit_test(spawns_under_way_when_the_leader_dies),
        cmocka_unit_test(a_partition_leaves_one_side),
        cmocka_unit_test(shutdown_ends_domains_first),
        cmocka_unit_test(a_dial_that_fails_is_no_death),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
