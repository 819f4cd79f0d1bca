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
        assert_int_equal(s.view, 2);
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
    world_pass(w, (2 * w->boot.host_deadline_ms + 3 * w->boot.heartbeat_ms) * RF_NS_PER_MS);
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
        assert_true(s.has_quorum);
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

/* Nobody is suspected, elected or expelled for want of something to say. */
static void an_idle_machine_only_beats(void **state)
{
    (void)state;
    world_t *w = world_new(4, 4, 12);
    world_form(w);
    world_pass(w, 10 * RF_NS_PER_S);
    world_pass(w, 100 * RF_NS_PER_S);
    rf_client_status_t s = world_status(w, world_node_client(w, 5));
    assert_int_equal(s.cores_up, 16);
    assert_int_equal(s.view, 1);
    assert_int_equal(s.elections, 0);
    world_free(w);
}

static rf_core_t leader_of(world_t *w, rf_core_t asked)
{
    return world_status(w, world_node_client(w, asked)).leader;
}

/* Three cores of one host: the leader's monitor dies, changes go on without time passing, and the core comes back. */
static void the_leader_dies_and_comes_back(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        world_t *w = world_new(1, 3, seed);
        world_form(w);
        rf_domain_t on0, on1;
        world_domain_on(w, 0, &on0);
        test_client_t *x = world_domain_on(w, 1, &on1), *c1 = world_node_client(w, 1);
        assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "kept"), RF_OK);
        assert_int_equal(leader_of(w, 1), 0);
        rf_client_target_t t0 = {.domain = on0};
        uint32_t waits = world_send(w, c1, RF_CLIENT_WAIT, &t0, sizeof t0, 0);
        world_settle(w);
        world_kill(w, 0);
        world_settle(w);
        const uint64_t died_ns = w->now_ns;
        rf_domain_t after;
        assert_int_equal(world_spawn(w, c1, 2, &after), RF_OK);
        assert_true(w->now_ns - died_ns < 100 * RF_NS_PER_MS); /* on evidence, not by a timeout */
        assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "new"), RF_OK);
        rf_client_domain_t d;
        memcpy(&d, world_reply(c1, waits)->body, sizeof d);
        assert_int_equal(d.reason, RF_ERR_PEER_DEAD);
        world_pass(w, RF_NS_PER_S);
        rf_client_status_t s = world_status(w, c1);
        assert_true(s.has_quorum);
        assert_int_not_equal(s.leader, 0);
        assert_int_equal(s.cores_up, 2);
        assert_int_equal(w->n_fenced,
                         1); /* also what died by itself is fenced: its dispatchers may not be dead */

        assert_int_equal(world_rejoin(w, 0, 1), RF_OK);
        world_pass(w, 5 * RF_NS_PER_S);
        assert_true(w->monitor[0]->formed);
        test_client_t *c0 = world_node_client(w, 0);
        s = world_status(w, c0);
        assert_int_equal(s.incarnation, 2);
        assert_int_equal(s.cores_up, 3);
        assert_int_equal(s.n_voters, 3);
        assert_int_equal(s.survives_cores, 1);
        /* It holds what was agreed before and while it was away, and works. */
        assert_int_equal(world_domain(w, c0, after, &d), RF_OK);
        assert_int_equal(d.state, RF_DOMAIN_RUNNING);
        rf_client_name_request_t name = {.name = "new"};
        assert_int_equal(world_ask(w, c0, RF_CLIENT_NAME_GET, &name, sizeof name, NULL, 0), RF_OK);
        assert_int_equal(world_spawn(w, c0, 0, &after), RF_OK);
        assert_int_equal(world_spawn(w, c1, 0, &after), RF_OK);
        world_check(w);
        /* And now another one may die. */
        world_kill(w, s.leader);
        world_settle(w);
        rf_core_t left = s.leader == 1 ? 2 : 1;
        assert_int_equal(world_spawn(w, world_node_client(w, left), 0, &after), RF_OK);
        world_free(w);
    }
}

/* One core a host: nobody there sees it die but its rackfishd, who tells the others. */
static void a_death_on_another_host_is_told(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 30);
    world_form(w);
    rf_client_dead_t dead = {.core = 0, .incarnation = 1};
    test_client_t *c[3] = {NULL, world_node_client(w, 1), world_node_client(w, 2)};
    rf_client_dead_t earlier = {.core = 0, .incarnation = 0}, nobody = {.core = 77, .incarnation = 1};
    assert_int_equal(world_ask(w, c[1], RF_CLIENT_DEAD, &earlier, sizeof earlier, NULL, 0), RF_OK);
    assert_int_equal(world_ask(w, c[1], RF_CLIENT_DEAD, &nobody, sizeof nobody, NULL, 0), RF_OK);
    assert_int_equal(world_status(w, c[1]).cores_up, 3);
    world_kill(w, 0);
    const uint64_t died_ns = w->now_ns;
    for (rf_core_t core = 1; core < 3; core++)
        assert_int_equal(world_ask(w, c[core], RF_CLIENT_DEAD, &dead, sizeof dead, NULL, 0), RF_OK);
    assert_int_equal(world_spawn(w, c[2], 2, NULL), RF_OK);
    assert_true(w->now_ns - died_ns < 100 * RF_NS_PER_MS);
    assert_int_equal(world_status(w, c[1]).cores_up, 2);
    world_free(w);
}

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

/* A monitor that is stopped for longer than the timeout is expelled and fenced; its core joins anew. */
static void who_stalls_is_fenced(void **state)
{
    (void)state;
    for (rf_core_t victim = 0; victim < 3; victim++) {
        world_t *w = world_new(1, 3, 40 + victim);
        world_form(w);
        rf_core_t other = (victim + 1) % 3;
        test_client_t *c = world_node_client(w, other);
        rf_domain_t d;
        world_domain_on(w, victim, &d);
        world_stall(w, victim, true);
        world_pass(w, 5 * RF_NS_PER_S);
        rf_client_status_t s = world_status(w, c);
        assert_true(s.has_quorum);
        assert_int_equal(s.cores_up, 2);
        assert_false(w->alive[victim]); /* killed, stopped as it was */
        assert_int_equal(w->n_fenced, 1);
        assert_false(world_runs(w, victim, d, 0));
        assert_int_equal(world_spawn(w, c, other, &d), RF_OK);
        assert_int_equal(world_rejoin(w, victim, other), RF_OK);
        world_pass(w, 3 * RF_NS_PER_S);
        assert_int_equal(world_status(w, c).cores_up, 3);
        assert_int_equal(world_spawn(w, c, victim, &d), RF_OK);
        world_free(w);
    }
}

/* ... also the leader's: it makes way for a leader on another host, not for the next one on its own, which expels it. */
static void what_cannot_be_fenced_costs_the_leaders_host(void **state)
{
    (void)state;
    for (unsigned hosts = 2; hosts < 4; hosts++) {
        const unsigned cores = 5 - hosts;
        world_t *w = world_new(hosts, cores, 47);
        world_form(w);
        test_client_t *c = world_node_client(w, cores);
        assert_int_equal(world_status(w, c).leader, 0);
        w->fence_err = RF_ERR_TIMEOUT;
        world_stall(w, cores - 1, true);
        world_pass(w, 12 * RF_NS_PER_S);
        rf_client_status_t s = world_status(w, c);
        assert_true(s.has_quorum);
        assert_true(s.leader >= cores);
        assert_int_equal(s.cores_up, (hosts - 1) * cores);
        assert_int_equal(s.nodes_up, hosts - 1);
        assert_true(w->exited[0]); /* told that it was expelled */
        for (rf_core_t core = cores; core < hosts * cores; core++) {
            for (rf_core_t of = 0; of < cores; of++)
                assert_int_equal(w->monitor[core]->cores[of].fence, FENCE_DONE); /* by time */
        }
        assert_int_equal(world_spawn(w, c, cores, NULL), RF_OK);
        world_free(w);
    }
}

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

/* A core that cannot be ended takes its host with it. */
static void what_cannot_be_fenced_costs_its_host(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 46);
    world_form(w);
    w->fence_err = RF_ERR_TIMEOUT;
    world_stall(w, 5, true);
    world_pass(w, 8 * RF_NS_PER_S);
    rf_client_status_t s = world_status(w, world_node_client(w, 1));
    assert_true(s.has_quorum);
    assert_int_equal(s.cores_up, 4);
    assert_int_equal(s.nodes_up, 2);
    assert_true(w->exited[4]); /* told that it was expelled */
    for (rf_core_t core = 0; core < 4; core++) {
        assert_int_equal(w->monitor[core]->cores[5].fence, FENCE_DONE); /* by time */
        assert_int_equal(w->monitor[core]->cores[4].fence, FENCE_DONE);
    }
    assert_int_equal(world_spawn(w, world_node_client(w, 0), 2, NULL), RF_OK);
    world_stall(w, 5, false);
    world_pass(w, 2 * RF_NS_PER_S);
    assert_true(w->exited[5]);
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

/* Short of the timeout nothing happens. */
static void a_short_stall_costs_nothing(void **state)
{
    (void)state;
    world_t *w = world_new(1, 3, 44);
    world_form(w);
    for (rf_core_t core = 0; core < 3; core++) {
        world_stall(w, core, true);
        world_pass(w, w->boot.election_ms * RF_NS_PER_MS / 4);
        world_stall(w, core, false);
        world_pass(w, RF_NS_PER_S);
    }
    rf_client_status_t s = world_status(w, world_node_client(w, 2));
    assert_int_equal(s.cores_up, 3);
    assert_int_equal(s.view, 1);
    assert_int_equal(w->n_fenced, 0);
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
        world_pass(w, 10 * RF_NS_PER_S);
        for (unsigned i = 0; i < 8; i++) {
            const message_t *m = world_reply(c, tags[i]);
            assert_non_null(m); /* answered, one way or the other */
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
        cmocka_unit_test(the_leader_dies_and_comes_back),
        cmocka_unit_test(a_death_on_another_host_is_told),
        cmocka_unit_test(a_new_incarnation_gets_a_snapshot),
        cmocka_unit_test(who_stalls_is_fenced),
        cmocka_unit_test(what_cannot_be_fenced_costs_its_host),
        cmocka_unit_test(what_cannot_be_fenced_costs_the_leaders_host),
        cmocka_unit_test(a_stalled_gateway_does_not_keep_its_host_running),
        cmocka_unit_test(a_stalled_gateway_leaves_its_host_running),
        cmocka_unit_test(a_late_comer_joins),
        cmocka_unit_test(a_joiner_that_is_forgotten_gives_up),
        cmocka_unit_test(a_late_comer_is_told_when_core_0_is_dead),
        cmocka_unit_test(a_short_stall_costs_nothing),
        cmocka_unit_test(all_cut_off_and_healed),
        cmocka_unit_test(a_core_leaves_in_order),
        cmocka_unit_test(the_last_core_stays),
        cmocka_unit_test(spawns_under_way_when_the_leader_dies),
        cmocka_unit_test(a_partition_leaves_one_side),
        cmocka_unit_test(shutdown_ends_domains_first),
        cmocka_unit_test(a_dial_that_fails_is_no_death),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
