/* Deaths of cores and hosts, of the leader, and of the machine itself: who learns what, who is fenced, and what goes on. */
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
    assert_int_equal(world_status(w, c).cores_up, 4);
    assert_null(world_reply(c, tag)); /* for all that anybody knows it still runs */
    world_pass(w, boot_expel_ns(&w->boot));
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
        for (rf_core_t core = 1; core < 3;
             core++) /* evidence is of one life: another that leaves in order has its moment */
            assert_false(w->monitor[core]->cores[0].dead || w->monitor[core]->cores[0].dead_kernel);
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

/* What is asked for each second, until it has come about, is under way once; and it is one change. */
static void a_host_is_expelled_once(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 45);
    world_form(w);
    monitor_t *m = w->monitor[0];
    unsigned before = m->n_ops;
    const uint64_t view = world_status(w, world_node_client(w, 0)).view;
    for (unsigned i = 0; i < 100; i++) expel_node(m, 2);
    assert_int_equal(m->n_ops, before + 1);
    world_settle(w);
    rf_client_status_t s = world_status(w, world_node_client(w, 0));
    assert_int_equal(s.cores_up, 4);
    assert_int_equal(s.view, view + 2); /* one change for all its cores: joint, final */
    world_pass(w, RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 4);
    assert_int_equal(m->n_ops, before);
    world_free(w);
}

/* It is for those lives that were there when it was asked for: who has come back meanwhile stays. */
static void who_came_back_is_not_expelled(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 45);
    world_form(w);
    monitor_t *m = w->monitor[0];
    m->agree.retry_ns = w->now_ns + 8 * RF_NS_PER_S; /* its log is full so long */
    expel_node(m, 2);
    world_kill_node(w, 2);
    world_pass(w, 4 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 4);
    for (rf_core_t core = 4; core < 6; core++) assert_int_equal(world_rejoin(w, core, 2), RF_OK);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_true(w->now_ns > m->agree.retry_ns);
    assert_int_equal(m->n_ops, 0);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 6);
    for (rf_core_t core = 4; core < 6; core++) {
        assert_true(w->alive[core]);
        assert_int_equal(w->monitor[core]->incarnation, 2);
    }
    world_check(w);
    world_free(w);
}

/* Nor by a word of a core that is long fenced: its host has left since, and come back. */
static void a_late_word_expels_nobody(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 45);
    world_form(w);
    world_kill_node(w, 2);
    world_pass(w, 8 * RF_NS_PER_S);
    for (rf_core_t core = 4; core < 6; core++) assert_int_equal(world_rejoin(w, core, 2), RF_OK);
    world_pass(w, 2 * RF_NS_PER_S);
    monitor_t *m = w->monitor[0];
    assert_int_equal(m->cores[5].fence, FENCE_DONE);
    peer_core_t who = {.core = 5, .incarnation = 1, .err = RF_ERR_TIMEOUT};
    fence_told(m, 4, (const uint8_t *)&who, sizeof who);
    assert_int_equal(m->n_ops, 0);
    world_pass(w, 2 * RF_NS_PER_S);
    assert_int_equal(world_status(w, world_node_client(w, 0)).cores_up, 6);
    world_free(w);
}

/* A core that cannot be ended takes its host with it: the rest of it is expelled, and what ran there was lost, not ended in order. */
static void what_cannot_be_fenced_costs_its_host(void **state)
{
    (void)state;
    world_t *w = world_new(3, 2, 46);
    world_form(w);
    w->fence_err = RF_ERR_TIMEOUT;
    rf_domain_t d;
    world_domain_on(w, 4, &d);
    world_stall(w, 5, true);
    world_pass(w, 8 * RF_NS_PER_S);
    rf_client_status_t s = world_status(w, world_node_client(w, 1));
    assert_true(s.has_quorum);
    assert_int_equal(s.cores_up, 4);
    assert_int_equal(s.nodes_up, 2);
    assert_int_equal(s.expulsions, 2);
    rf_client_domain_t out;
    assert_int_equal(world_domain(w, world_node_client(w, 1), d, &out), RF_OK);
    assert_int_equal(out.state, RF_DOMAIN_ENDED);
    assert_int_equal(out.reason, RF_ERR_PEER_DEAD);
    assert_int_equal(w->monitor[1]->cores[4].dead_err, RF_ERR_TIMEOUT); /* as events tell it: not CLOSED */
    assert_true(w->exited[4]);                                          /* told that it was expelled */
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

/* A link breaks while something is asked over it. Who lives at its other end is not called dead: the asker hears that nothing was done, or that
 * it may have been, as soon as they are linked again. Who died meanwhile is. */
static void a_link_that_breaks_is_no_death(void **state)
{
    (void)state;
    enum { TARGET = 2, LINKED_AGAIN = 0, DIES, N_FATES };
    unsigned n_done = 0, n_closed = 0, n_unknown = 0, n_dead[N_FATES] = {0};
    for (uint64_t seed = 0; seed < 120; seed++) {
        unsigned fate = seed % N_FATES;
        world_t *w = world_new(3, 2, seed);
        world_form(w);
        rf_client_spawn_t body = {.core = TARGET, .n_fds = 1};
        test_client_t *c = world_node_client(w, 0);
        uint32_t tag = world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 1);
        world_deliver(w, (unsigned)(seed / N_FATES));
        world_cut(w, 0, 1, true);
        world_deliver(w, 200);
        if (fate != LINKED_AGAIN) world_kill(w, TARGET);
        world_cut(w, 0, 1, false);
        world_pass(w, 4 * RF_NS_PER_S);
        const message_t *m = world_reply(c, tag);
        assert_non_null(m);
        rf_client_spawned_t out;
        memcpy(&out, m->body, sizeof out);
        n_done += m->header.err == RF_OK;
        n_closed += m->header.err == RF_ERR_CLOSED;
        n_unknown += m->header.err == RF_ERR_UNKNOWN_OUTCOME;
        n_dead[fate] += m->header.err == RF_ERR_PEER_DEAD;
        if (fate == LINKED_AGAIN && m->header.err == RF_OK) assert_true(world_runs(w, TARGET, out.domain, 0));
        if (m->header.err == RF_ERR_CLOSED) assert_int_equal(w->monitor[TARGET]->n_domains_live, 0);
        world_free(w);
    }
    assert_true(n_done > 0 && n_closed > 0 && n_unknown > 0);
    assert_int_equal(n_dead[LINKED_AGAIN], 0);
    assert_true(n_dead[DIES] > 0);
}

/* A link takes the place of another with the same life, whose end nobody was told: what was asked over that is lost with it. */
static void a_link_that_is_replaced_is_one_that_broke(void **state)
{
    (void)state;
    enum { TARGET = 2 };
    world_t *w = world_new(3, 2, 5);
    world_form(w);
    rf_client_spawn_t body = {.core = TARGET, .n_fds = 1};
    test_client_t *c = world_node_client(w, 0);
    rf_domain_t domain;
    assert_int_equal(world_spawn(w, c, TARGET, &domain), RF_OK);
    uint32_t tag = world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 1);
    while (w->monitor[0]->cores[TARGET].unanswered == 0) world_deliver(w, 1);
    world_unsay(w, TARGET, CHANNEL_PEER + 0, MONITOR_PEER_MESSAGE);
    world_unsay(w, 0, CHANNEL_PEER + TARGET, MONITOR_PEER_MESSAGE);
    monitor_event_t *up = world_push(w, 0, CHANNEL_PEER + TARGET, MONITOR_PEER_UP, NULL, 0);
    up->core = TARGET;
    up->incarnation = w->monitor[TARGET]->incarnation;
    world_pass(w, RF_NS_PER_S);
    const message_t *m = world_reply(c, tag);
    assert_non_null(m);
    assert_int_equal(m->header.err, RF_ERR_CLOSED); /* before the block was sent whole */
    assert_int_equal(w->monitor[TARGET]->n_domains_live, 1);
    world_free(w);
}

/* Who asked for a spawn dies, and its next life asks for one with the same tag, before the first is answered: each answer is of its own
 * question. */
static void an_answer_is_for_the_life_that_asked(void **state)
{
    (void)state;
    enum { FROM = 3, TO = 5, ASKED = 40 };
    unsigned n_same = 0;
    for (uint64_t seed = 0; seed < 10; seed++) {
        world_t *w = world_new(3, 2, seed);
        world_form(w);
        rf_client_spawn_t body = {.core = TO, .n_fds = 1};
        test_client_t *c = world_node_client(w, FROM);
        world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 1);
        const op_t *old = NULL;
        while (!old) { /* until it has proposed the domain */
            world_deliver(w, 1);
            for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
                const op_t *op = &w->monitor[TO]->ops[i];
                if (op->kind == OP_SPAWN && op->peer == FROM && op->proposing) old = op;
            }
        }
        uint32_t tag = old->peer_tag;
        for (rf_core_t core = 0; core < TO; core++) world_hold(w, TO, core, true);
        world_kill(w, FROM);
        world_pass(w, 30 * RF_NS_PER_MS);
        assert_int_equal(world_rejoin(w, FROM, 0), RF_OK);
        world_pass(w, 20 * RF_NS_PER_MS);
        c = world_node_client(w, FROM);
        uint32_t mine = 0;
        bool same = false;
        for (unsigned sent = 0; sent < ASKED && !same; sent++) {
            mine = world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 1);
            world_pass(w, RF_NS_PER_MS / 5);
            for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
                const op_t *op = &w->monitor[FROM]->ops[i];
                same |= op->kind == OP_SPAWN && op->client_tag == mine && op_id(w->monitor[FROM], op) == tag;
            }
        }
        n_same += same;
        for (rf_core_t core = 0; core < TO; core++) world_hold(w, TO, core, false);
        world_pass(w, 3 * RF_NS_PER_S);
        const message_t *m = world_reply(c, mine);
        assert_non_null(m);
        rf_client_spawned_t out;
        memcpy(&out, m->body, sizeof out);
        if (m->header.err ==
            RF_OK) { /* domains are numbered as they are agreed on, and the first was before */
            assert_int_equal(out.domain, w->monitor[TO]->domain_last);
            assert_true(world_runs(w, TO, out.domain, 0));
        }
        world_free(w);
    }
    assert_true(n_same > 0);
}

/* Four of five are restarted one by one while the fifth is cut off, and told by its rackfishd, back again, that those it knew are dead. To
 * itself the machine is lost. Once it can ask, who lives in their places says that the machine goes on without it, and it joins again; until
 * then it goes on as what it is. */
static void a_loss_that_is_none(void **state)
{
    (void)state;
    enum { OUT = 4 };
    for (uint64_t seed = 0; seed < 10; seed++) {
        world_t *w = world_new(5, 1, 70 + seed);
        world_form(w);
        for (rf_node_t node = 0; node < OUT; node++) world_cut(w, node, OUT, true);
        world_pass(w, 5 * RF_NS_PER_S);
        for (rf_core_t core = 0; core < OUT; core++) {
            rf_core_t other = (core + 1) % OUT;
            world_kill(w, core);
            world_pass(w, 5 * RF_NS_PER_S);
            assert_int_equal(world_rejoin(w, core, other), RF_OK);
            world_pass(w, 5 * RF_NS_PER_S);
            assert_true(w->monitor[core]->formed);
        }
        test_client_t *c = world_node_client(w, OUT);
        assert_true(w->alive[OUT] && !world_status(w, c).lost);
        for (rf_core_t core = 0; core < OUT; core++) {
            rf_client_dead_t dead = {.core = core, .incarnation = 1};
            assert_int_equal(world_ask(w, c, RF_CLIENT_DEAD, &dead, sizeof dead, NULL, 0), RF_OK);
        }
        world_pass(w, 10 * RF_NS_PER_S);
        assert_true(w->alive[OUT] && world_status(w, c).lost);
        for (rf_node_t node = 0; node < OUT; node++) world_cut(w, node, OUT, false);
        world_pass(w, 2 * RF_NS_PER_S);
        assert_true(w->exited[OUT]);
        assert_int_equal(w->exit_status[OUT], MONITOR_EXIT_EXPELLED);
        assert_int_equal(world_rejoin(w, OUT, 0), RF_OK);
        world_pass(w, 5 * RF_NS_PER_S);
        rf_client_status_t s = world_status(w, world_node_client(w, OUT));
        assert_true(s.has_quorum && !s.lost);
        assert_int_equal(s.cores_up, 5);
        world_free(w);
    }
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
        cmocka_unit_test(who_stalls_is_fenced),
        cmocka_unit_test(what_cannot_be_fenced_costs_the_leaders_host),
        cmocka_unit_test(a_host_is_expelled_once),
        cmocka_unit_test(who_came_back_is_not_expelled),
        cmocka_unit_test(a_late_word_expels_nobody),
        cmocka_unit_test(what_cannot_be_fenced_costs_its_host),
        cmocka_unit_test(a_short_stall_costs_nothing),
        cmocka_unit_test(spawns_under_way_when_the_leader_dies),
        cmocka_unit_test(a_dial_that_fails_is_no_death),
        cmocka_unit_test(a_link_that_breaks_is_no_death),
        cmocka_unit_test(a_link_that_is_replaced_is_one_that_broke),
        cmocka_unit_test(an_answer_is_for_the_life_that_asked),
        cmocka_unit_test(a_loss_that_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
