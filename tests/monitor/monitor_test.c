/* Whole machines of monitors in one process: what each distributed operation promises, and what it says when it cannot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

#include <stdio.h>

static void forms_when_all_are_there(void **state)
{
    (void)state;
    static const unsigned shapes[][4] = {/* nodes, cores of each, cores and nodes that it survives */
                                         {1, 1, 0, 0}, {1, 2, 0, 0}, {2, 1, 0, 0},
                                         {2, 2, 1, 0}, {3, 2, 2, 1}, {1, 8, 3, 0}};
    for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        world_t *w = world_new(shapes[i][0], shapes[i][1], i);
        test_client_t *c = world_node_client(w, 0);
        if (w->n_cores > 1 && shapes[i][0] > 1) assert_true(world_status(w, c).forming);
        world_form(w);
        rf_client_status_t s = world_status(w, c);
        assert_false(s.forming);
        assert_int_equal(s.cores_up, w->n_cores);
        assert_int_equal(s.nodes_up, shapes[i][0]);
        assert_int_equal(s.view, 1);
        assert_int_equal(s.leader, 0);
        assert_true(s.has_quorum);
        assert_int_equal(s.survives_cores, shapes[i][2]);
        assert_int_equal(s.survives_hosts, shapes[i][3]);
        assert_string_equal(s.scheduler, "fake shares");
        world_free(w);
    }
}

static void forms_without_who_does_not_come(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 1);
    w->alive[3] = false; /* never started */
    world_form_late(w);
    test_client_t *c = world_node_client(w, 0);
    rf_client_status_t s = world_status(w, c);
    assert_int_equal(s.cores_up, 3);
    assert_false(s.forming);
    rf_domain_t d;
    assert_int_equal(world_spawn(w, c, 3, &d), RF_ERR_PEER_DEAD);
    assert_int_equal(world_spawn(w, c, 2, &d), RF_OK);
    world_free(w);
}

/* Two of three hosts die before there is a machine, and that is known: one host is no majority of the voters that were configured. */
static void does_not_form_without_a_majority(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 1);
    test_client_t *c = world_node_client(w, 0);
    for (rf_node_t node = 1; node < 3; node++) {
        world_kill_node(w, node);
        rf_client_dead_t dead = {.core = node, .incarnation = 1};
        world_send(w, c, RF_CLIENT_DEAD, &dead, sizeof dead, 0);
    }
    world_pass(w, 2 * BOOT_NS + RF_NS_PER_S);
    rf_client_status_t s = world_status(w, c);
    assert_true(s.forming);
    assert_false(s.has_quorum);
    world_free(w);
}

static void spawns_waits_and_forgets(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 2);
    world_form(w);
    test_client_t *clients[4];
    for (rf_core_t core = 0; core < 4; core++) clients[core] = world_node_client(w, core);
    rf_domain_t domains[4];
    for (rf_core_t core = 0; core < 4; core++) {
        assert_int_equal(world_spawn(w, clients[core], core, &domains[core]), RF_OK);
        assert_true(world_runs(w, core, domains[core], 0));
    }
    /* From anywhere: running, then ended with its status, and those who waited are answered. */
    for (rf_core_t core = 0; core < 4; core++) {
        rf_client_target_t target = {.domain = domains[core]};
        uint32_t tags[4];
        for (unsigned i = 0; i < 4; i++)
            tags[i] = world_send(w, clients[i], RF_CLIENT_WAIT, &target, sizeof target, 0);
        world_settle(w);
        rf_client_domain_t d;
        assert_int_equal(world_domain(w, clients[(core + 1) % 4], domains[core], &d), RF_OK);
        assert_int_equal(d.state, RF_DOMAIN_RUNNING);
        assert_string_equal(d.user, "alice");
        assert_string_equal(d.program, "prog");
        for (unsigned i = 0; i < 4; i++) assert_null(world_reply(clients[i], tags[i]));
        world_exit_dispatcher(w, core, domains[core], 0, 3 << 8);
        world_settle(w);
        for (unsigned i = 0; i < 4; i++) {
            const message_t *m = world_reply(clients[i], tags[i]);
            assert_non_null(m);
            memcpy(&d, m->body, sizeof d);
            assert_int_equal(d.state, RF_DOMAIN_ENDED);
            assert_int_equal(d.wait_status, 3 << 8);
            assert_int_equal(d.reason, RF_OK);
        }
    }
    world_check(w);
    /* Ended ones are remembered, but not for ever. */
    rf_domain_t d = 0;
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        assert_int_equal(world_spawn(w, clients[0], 0, &d), RF_OK);
        world_exit_dispatcher(w, 0, d, 0, 0);
        world_settle(w);
        world_forget_inbox(clients[0]);
    }
    rf_client_domain_t out;
    assert_int_equal(world_domain(w, clients[1], domains[0], &out), RF_ERR_NOT_FOUND);
    assert_int_equal(world_domain(w, clients[1], d, &out), RF_OK);
    rf_client_target_t gone = {.domain = domains[0]};
    assert_int_equal(world_ask(w, clients[0], RF_CLIENT_WAIT, &gone, sizeof gone, NULL, 0), RF_ERR_NOT_FOUND);
    world_free(w);
}

static void a_start_that_fails_says_why(void **state)
{
    (void)state;
    world_t *w = world_new(1, 2, 3);
    world_form(w);
    test_client_t *c = world_node_client(w, 1);
    w->fake.create_err = RF_ERR_EXEC;
    rf_client_spawn_t body = {.core = 1, .n_fds = 4};
    w->fake.block_flags = RF_SPAWN_STDIO;
    uint32_t tag = world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 4);
    world_settle(w);
    const message_t *m = world_reply(c, tag);
    rf_client_spawned_t out;
    memcpy(&out, m->body, sizeof out);
    assert_int_equal(m->header.err, RF_ERR_EXEC);
    assert_int_equal(out.os_errno, 2);
    assert_string_equal(out.what, "exec ./missing");
    rf_client_domain_t d;
    assert_int_equal(world_domain(w, world_node_client(w, 0), out.domain, &d), RF_OK);
    assert_int_equal(d.state, RF_DOMAIN_ENDED);
    assert_int_equal(d.reason, RF_ERR_EXEC);

    /* A block that is none, descriptors that do not fit its flags. */
    w->fake.create_err = RF_OK;
    w->fake.block_err = RF_ERR_PROTOCOL;
    assert_int_equal(world_spawn(w, c, 1, NULL), RF_ERR_PROTOCOL);
    w->fake.block_err = RF_OK;
    assert_int_equal(world_spawn(w, c, 1, NULL), RF_ERR_INVALID);
    w->fake.block_flags = 0;
    assert_int_equal(world_spawn(w, c, 1, NULL), RF_OK);
    assert_int_equal(world_spawn(w, c, 7, NULL), RF_ERR_INVALID);
    world_free(w);
}

static void domains_spawn_and_span_anywhere(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 4);
    world_form(w);
    rf_domain_t a, child;
    w->fake.block_size = 3 * PEER_CHUNK_MAX + 17; /* several pieces to another host */
    test_client_t *c = world_domain_on(w, 1, &a);
    for (rf_core_t core = 0; core < 4; core++) {
        assert_int_equal(world_spawn(w, c, core, &child), RF_OK);
        assert_true(world_runs(w, core, child, 0));
        rf_client_domain_t d;
        assert_int_equal(world_domain(w, c, child, &d), RF_OK);
        assert_string_equal(d.user, "alice"); /* its parent's, whatever the block says */
    }
    rf_client_domain_t d;
    for (unsigned i = 1; i <= 4; i++) {
        rf_client_spawn_t span = {.core = (rf_core_t)(i % 4), .span_args_size = 3, .span_args = "abc"};
        rf_client_spawned_t out;
        assert_int_equal(world_ask(w, c, RF_CLIENT_SPAN, &span, sizeof span, &out, sizeof out), RF_OK);
        assert_int_equal(out.domain, a);
        assert_int_equal(out.index, i);
        assert_int_equal(out.core, i % 4);
        assert_true(world_runs(w, out.core, a, out.index));
    }
    assert_int_equal(world_domain(w, c, a, &d), RF_OK);
    assert_int_equal(d.n_dispatchers, 5);
    assert_int_equal(d.alive[0], 0x1f);

    /* Another dispatcher may span too; one that ends leaves the others; the first takes all with it. */
    test_client_t *second = world_dispatcher_client(w, 2, a, 2);
    rf_client_spawn_t span = {.core = 0};
    assert_int_equal(world_ask(w, second, RF_CLIENT_SPAN, &span, sizeof span, NULL, 0), RF_OK);
    world_exit_dispatcher(w, 3, a, 3, 0);
    world_settle(w);
    assert_int_equal(world_domain(w, c, a, &d), RF_OK);
    assert_int_equal(d.alive[0], 0x37);
    assert_int_equal(d.state, RF_DOMAIN_RUNNING);
    world_exit_dispatcher(w, 1, a, 0, 0);
    world_settle(w);
    for (unsigned i = 0; i < 6; i++)
        for (rf_core_t core = 0; core < 4; core++) assert_false(world_runs(w, core, a, (uint16_t)i));
    world_free(w);
}

static void names_are_unique_and_vanish(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 5);
    world_form(w);
    rf_domain_t a, b;
    test_client_t *x = world_domain_on(w, 1, &a), *y = world_domain_on(w, 2, &b);
    test_client_t *node = world_node_client(w, 3);
    /* Both at once: one wins, everywhere the same one. */
    rf_client_name_request_t name = {.name = "service"};
    uint32_t t1 = world_send(w, x, RF_CLIENT_NAME_PUT, &name, sizeof name, 0);
    uint32_t t2 = world_send(w, y, RF_CLIENT_NAME_PUT, &name, sizeof name, 0);
    world_settle(w);
    rf_err_t e1 = (rf_err_t)world_reply(x, t1)->header.err, e2 = (rf_err_t)world_reply(y, t2)->header.err;
    assert_true((e1 == RF_OK && e2 == RF_ERR_EXISTS) || (e1 == RF_ERR_EXISTS && e2 == RF_OK));
    test_client_t *winner = e1 == RF_OK ? x : y, *loser = e1 == RF_OK ? y : x;
    rf_client_name_t got;
    assert_int_equal(world_ask(w, node, RF_CLIENT_NAME_GET, &name, sizeof name, &got, sizeof got), RF_OK);
    assert_int_equal(got.domain, winner->domain);
    assert_int_equal(world_name(w, loser, RF_CLIENT_NAME_DELETE, "service"), RF_ERR_PERMISSION);
    assert_int_equal(world_name(w, winner, RF_CLIENT_NAME_DELETE, "service"), RF_OK);
    assert_int_equal(world_name(w, winner, RF_CLIENT_NAME_DELETE, "service"), RF_ERR_NOT_FOUND);
    assert_int_equal(world_name(w, loser, RF_CLIENT_NAME_PUT, "service"), RF_OK);
    assert_int_equal(world_name(w, loser, RF_CLIENT_NAME_PUT, ""), RF_ERR_INVALID);
    assert_int_equal(world_name(w, loser, RF_CLIENT_NAME_PUT, "a b"), RF_ERR_INVALID);
    assert_int_equal(world_name(w, node, RF_CLIENT_NAME_PUT, "mine"), RF_ERR_PERMISSION);
    world_exit_dispatcher(w, loser->core, loser->domain, 0, 0);
    world_settle(w);
    assert_int_equal(world_ask(w, node, RF_CLIENT_NAME_GET, &name, sizeof name, &got, sizeof got),
                     RF_ERR_NOT_FOUND);
    assert_int_equal(world_name(w, winner, RF_CLIENT_NAME_PUT, "service"), RF_OK);
    world_free(w);
}

static void connects_on_core_host_and_network(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 6);
    world_form(w);
    rf_domain_t a, b;
    test_client_t *exporter = world_domain_on(w, 0, &a);
    assert_int_equal(world_name(w, exporter, RF_CLIENT_NAME_PUT, "echo"), RF_OK);
    static const uint16_t kinds[] = {RF_CHANNEL_LMP, RF_CHANNEL_URPC, RF_CHANNEL_NETWORK};
    uint64_t channels[3];
    for (rf_core_t core = 0; core < 3; core++) {
        test_client_t *c = world_domain_on(w, core, &b);
        rf_client_connected_t asker;
        rf_client_incoming_t incoming;
        bool fds;
        assert_int_equal(world_connect(w, c, exporter, "echo", RF_OK, &asker, &incoming, &fds), RF_OK);
        assert_int_equal(asker.kind, kinds[core]);
        assert_int_equal(incoming.channel.kind, kinds[core]);
        assert_int_equal(asker.channel, incoming.channel.channel);
        assert_int_equal(asker.domain, a);
        assert_int_equal(incoming.channel.domain, b);
        assert_int_equal(incoming.channel.core, core);
        assert_int_equal(incoming.slots, 128);
        assert_string_equal(incoming.name, "echo");
        assert_string_equal(incoming.channel.user, "alice");
        assert_string_equal(asker.user, "alice");
        assert_int_equal(asker.uid, 1000);
        assert_int_equal(asker.same_cpu, core == 0);
        assert_int_equal(fds, kinds[core] != RF_CHANNEL_NETWORK);
        if (kinds[core] == RF_CHANNEL_NETWORK) {
            static const uint8_t none[32];
            assert_string_equal(asker.address, "127.0.0.1:77");
            assert_string_equal(asker.medium, "tcp");
            assert_memory_equal(asker.key, incoming.channel.key, 32);
            assert_memory_equal(asker.token, incoming.channel.token, 32);
            assert_memory_not_equal(asker.key, none, 32);
            assert_memory_not_equal(asker.key, asker.token, 32);
        } else {
            assert_string_equal(asker.medium, "shm");
        }
        channels[core] = asker.channel;
        assert_int_equal(world_connect(w, c, exporter, "echo", RF_ERR_BUSY, &asker, &incoming, &fds),
                         RF_ERR_BUSY);
        rf_client_connect_t nobody = {.name = "nobody"};
        assert_int_equal(world_ask(w, c, RF_CLIENT_CONNECT, &nobody, sizeof nobody, NULL, 0),
                         RF_ERR_NOT_FOUND);
    }
    assert_true(channels[0] != channels[1] && channels[1] != channels[2]);

    /* An exporter that does not answer, and one that goes. */
    test_client_t *c = world_domain_on(w, 3, &b);
    rf_client_connect_t body = {.name = "echo"};
    uint32_t silent = world_send(w, c, RF_CLIENT_CONNECT, &body, sizeof body, 0);
    world_pass(w, 2 * REQUEST_NS);
    assert_int_equal(world_reply(c, silent)->header.err, RF_ERR_TIMEOUT);
    uint32_t left = world_send(w, c, RF_CLIENT_CONNECT, &body, sizeof body, 0);
    world_settle(w);
    world_exit_dispatcher(w, 0, a, 0, 0);
    world_settle(w);
    assert_int_equal(world_reply(c, left)->header.err, RF_ERR_PEER_DEAD);
    world_free(w);
}

static void kill_is_for_the_same_user(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 7);
    world_form(w);
    rf_domain_t a, b, c2;
    test_client_t *alice = world_domain_on(w, 0, &a);
    snprintf(w->fake.block_user, sizeof w->fake.block_user, "bob");
    test_client_t *bob = world_domain_on(w, 1, &b);
    test_client_t *node = world_node_client(w, 2);
    assert_int_equal(world_spawn(w, node, 3, &c2), RF_OK);
    rf_client_kill_t kill = {.domain = c2, .signo = 9};
    assert_int_equal(world_ask(w, alice, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_ERR_PERMISSION);
    assert_true(world_runs(w, 3, c2, 0));
    snprintf(kill.user, sizeof kill.user, "alice");
    assert_int_equal(world_ask(w, node, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_ERR_PERMISSION);
    kill.signo = 10;
    assert_int_equal(world_ask(w, bob, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_OK);
    assert_true(world_runs(w, 3, c2, 0));
    kill.signo = 0;
    assert_int_equal(world_ask(w, bob, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_OK);
    kill.signo = 65;
    assert_int_equal(world_ask(w, bob, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_ERR_INVALID);
    kill.signo = 9;
    assert_int_equal(world_ask(w, bob, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_OK);
    assert_false(world_runs(w, 3, c2, 0));
    assert_int_equal(world_ask(w, bob, RF_CLIENT_KILL, &kill, sizeof kill, NULL, 0), RF_ERR_NOT_FOUND);
    static const char *const mighty[] = {"root", "owner"};
    for (unsigned i = 0; i < 2; i++) {
        rf_domain_t d;
        assert_int_equal(world_spawn(w, world_node_client(w, i == 0 ? 0 : 3), i == 0 ? 0 : 3, &d), RF_OK);
        rf_client_kill_t k = {.domain = d, .signo = 9};
        snprintf(k.user, sizeof k.user, "%s", mighty[i]);
        assert_int_equal(world_ask(w, node, RF_CLIENT_KILL, &k, sizeof k, NULL, 0), RF_OK);
        assert_false(world_runs(w, i == 0 ? 0 : 3, d, 0));
    }
    /* A spanning domain: every dispatcher gets it. */
    for (rf_core_t core = 1; core < 4; core++) {
        rf_client_spawn_t span = {.core = core};
        assert_int_equal(world_ask(w, alice, RF_CLIENT_SPAN, &span, sizeof span, NULL, 0), RF_OK);
    }
    rf_client_kill_t all = {.domain = a, .signo = 9, .user = "alice"};
    assert_int_equal(world_ask(w, node, RF_CLIENT_KILL, &all, sizeof all, NULL, 0), RF_OK);
    for (rf_core_t core = 0; core < 4; core++) assert_false(world_runs(w, core, a, core));
    world_free(w);
}

static void waits_are_cancelled(void **state)
{
    (void)state;
    world_t *w = world_new(1, 2, 8);
    world_form(w);
    test_client_t *c = world_node_client(w, 0);
    rf_domain_t d;
    assert_int_equal(world_spawn(w, c, 0, &d), RF_OK);
    rf_client_target_t target = {.domain = d};
    uint32_t tag = world_send(w, c, RF_CLIENT_WAIT, &target, sizeof target, 0);
    rf_client_target_t which = {.domain = tag};
    assert_int_equal(world_ask(w, c, RF_CLIENT_CANCEL, &which, sizeof which, NULL, 0), RF_OK);
    assert_int_equal(world_reply(c, tag)->header.err, RF_ERR_CANCELLED);
    /* Only so many at once. */
    uint32_t last = 0;
    for (unsigned i = 0; i <= MONITOR_CLIENT_REQUESTS_MAX; i++)
        last = world_send(w, c, RF_CLIENT_WAIT, &target, sizeof target, 0);
    world_settle(w);
    assert_int_equal(world_reply(c, last)->header.err, RF_ERR_AGAIN);
    assert_null(world_reply(c, last - 1));
    world_client_leave(w, c);
    world_settle(w);
    assert_int_equal(w->monitor[0]->n_waits, 0);
    world_free(w);
}

static void garbage_costs_a_client_its_link(void **state)
{
    (void)state;
    world_t *w = world_new(1, 2, 16);
    world_form(w);
    rf_domain_t d;
    test_client_t *c = world_domain_on(w, 1, &d);
    uint32_t tag = world_send(w, c, RF_CLIENT_SHUTDOWN, NULL, 0, 0); /* not its to ask */
    world_settle(w);
    assert_int_equal(world_reply(c, tag)->header.err, RF_ERR_PERMISSION);
    world_send(w, c, 999, NULL, 0, 0);
    world_settle(w);
    assert_true(c->gone);
    assert_true(world_runs(w, 1, d, 0));
    test_client_t *n = world_node_client(w, 1);
    rf_client_spawn_t spawn = {.core = 1, .n_fds = 3};
    world_send(w, n, RF_CLIENT_SPAWN, &spawn, sizeof spawn, 1); /* fewer than announced */
    world_settle(w);
    assert_true(n->gone);
    n = world_node_client(w, 1);
    world_send(w, n, RF_CLIENT_WAIT, NULL, 0, 0); /* cut short */
    world_settle(w);
    assert_true(n->gone);
    world_free(w);
}

static void lists_links_and_stats(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 17);
    world_form(w);
    test_client_t *c = world_node_client(w, 1);
    for (unsigned i = 0; i < 30; i++) assert_int_equal(world_spawn(w, c, 1, NULL), RF_OK);
    uint64_t from = 0;
    unsigned n = 0, pages = 0;
    for (uint32_t more = 1; more; pages++) {
        struct {
            rf_client_list_reply_t head;
            rf_client_domain_t records[14];
        } out;
        rf_client_list_t list = {.from = from};
        assert_int_equal(world_ask(w, c, RF_CLIENT_DOMAINS, &list, sizeof list, &out, sizeof out), RF_OK);
        for (unsigned i = 0; i < out.head.n; i++) assert_int_equal(out.records[i].domain, ++n);
        from = out.head.next;
        more = out.head.more;
    }
    assert_int_equal(n, 30);
    assert_int_equal(pages, 3);
    struct {
        rf_client_list_reply_t head;
        rf_client_core_t records[4];
    } cores;
    rf_client_list_t list = {0};
    assert_int_equal(world_ask(w, c, RF_CLIENT_CORES, &list, sizeof list, &cores, sizeof cores), RF_OK);
    assert_int_equal(cores.head.n, 4);
    assert_string_equal(cores.records[3].node_name, "node1");
    assert_int_equal(cores.records[2].state, RF_CORE_UP);
    assert_int_equal(cores.records[2].incarnation, 1);
    struct {
        rf_client_list_reply_t head;
        rf_kernel_stat_t records[RF_KERNEL_STATS_MAX + 1];
    } stats;
    assert_int_equal(world_ask(w, c, RF_CLIENT_STATS, &list, sizeof list, &stats, sizeof stats), RF_OK);
    assert_int_equal(stats.head.n, 31);
    assert_int_equal(stats.records[0].domain, 0);
    assert_int_equal(stats.records[1].domain, 1);
    struct {
        rf_client_list_reply_t head;
        rf_client_holdings_t record;
    } holdings;
    assert_int_equal(world_ask(w, c, RF_CLIENT_HOLDINGS, &list, sizeof list, &holdings, sizeof holdings),
                     RF_OK);
    assert_int_equal(holdings.head.n, 1);
    assert_int_equal(holdings.head.more, 0);
    assert_int_equal(holdings.record.links, 3);
    struct {
        rf_client_list_reply_t head;
        rf_client_link_t records[4];
    } links;
    assert_int_equal(world_ask(w, c, RF_CLIENT_LINKS, &list, sizeof list, &links, sizeof links), RF_OK);
    assert_int_equal(links.head.n, 1); /* its host's other core; nobody of the other host had a word for it */
    assert_int_equal(links.records[0].to, 0);
    rf_client_address_t address;
    assert_int_equal(world_ask(w, c, RF_CLIENT_LISTEN_ADDRESS, NULL, 0, &address, sizeof address), RF_OK);
    assert_string_equal(address.address, "127.0.0.1:1");
    assert_int_equal(world_ask(w, c, RF_CLIENT_PING, NULL, 0, NULL, 0), RF_OK);
    rf_client_reload_t reload = {.log_level = RF_LOG_DEBUG};
    assert_int_equal(world_ask(w, c, RF_CLIENT_RELOAD, &reload, sizeof reload, NULL, 0), RF_OK);
    reload.log_level = 9;
    assert_int_equal(world_ask(w, c, RF_CLIENT_RELOAD, &reload, sizeof reload, NULL, 0), RF_ERR_INVALID);
    world_free(w);
}

static void limits_are_answers(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 18);
    world_form(w);
    test_client_t *c = world_node_client(w, 0);
    rf_domain_t d = 0;
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        rf_domain_t id;
        assert_int_equal(world_spawn(w, c, 0, &id), RF_OK);
        if (i == 0) d = id;
        world_forget_inbox(c);
    }
    assert_int_equal(world_spawn(w, c, 0, NULL), RF_ERR_LIMIT);
    test_client_t *x = world_dispatcher_client(w, 0, d, 0);
    for (unsigned i = 0; i < NAMES_PER_USER_MAX; i++) {
        char name[RF_NAME_MAX];
        snprintf(name, sizeof name, "name-%u", i);
        assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, name), RF_OK);
        world_forget_inbox(x);
    }
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "one-more"), RF_ERR_LIMIT);
    world_exit_dispatcher(w, 0, d, 0, 0);
    world_settle(w);
    assert_int_equal(world_spawn(w, c, 0, &d), RF_OK);
    world_free(w);
}

static void one_user_does_not_starve_the_others(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 19);
    world_form(w);
    rf_domain_t alice[3], bob;
    test_client_t *a[3];
    for (unsigned i = 0; i < 3; i++) a[i] = world_domain_on(w, 0, &alice[i]);
    snprintf(w->fake.block_user, sizeof w->fake.block_user, "bob");
    test_client_t *b = world_domain_on(w, 0, &bob), *node = world_node_client(w, 0);
    rf_client_target_t target = {.domain = bob};
    unsigned refused = 0;
    for (unsigned i = 0; i < 3 * MONITOR_CLIENT_REQUESTS_MAX; i++) {
        uint32_t tag = world_send(w, a[i % 3], RF_CLIENT_WAIT, &target, sizeof target, 0);
        world_settle(w);
        const message_t *m = world_reply(a[i % 3], tag);
        if (m) assert_int_equal(m->header.err, RF_ERR_LIMIT);
        refused += m != NULL;
    }
    assert_int_equal(refused, 3 * MONITOR_CLIENT_REQUESTS_MAX - OPS_PER_USER_MAX);
    for (unsigned i = 0; i < MONITOR_CLIENT_REQUESTS_MAX + 10; i++) { /* descriptors without a message */
        rf_client_fds_t head = {.tag = 100000 + i, .op = RF_CLIENT_SPAWN};
        monitor_event_t *event =
            world_push(w, 0, CHANNEL_CLIENT + a[0]->handle, MONITOR_CLIENT_FDS, &head, sizeof head);
        event->client = a[0]->handle;
        event->fds[event->n_fds++] = fake_fd_new(&w->fake);
    }
    world_settle(w);
    assert_int_equal(world_spawn(w, b, 0, NULL), RF_OK);
    uint32_t t1 = world_send(w, b, RF_CLIENT_WAIT, &target, sizeof target, 0);
    uint32_t t2 = world_send(w, node, RF_CLIENT_WAIT, &target, sizeof target, 0);
    world_settle(w);
    assert_null(world_reply(b, t1));
    assert_null(world_reply(node, t2));
    world_exit_dispatcher(w, 0, bob, 0, 0);
    world_settle(w);
    assert_int_equal(world_reply(node, t2)->header.err, RF_OK);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_when_all_are_there),
        cmocka_unit_test(forms_without_who_does_not_come),
        cmocka_unit_test(does_not_form_without_a_majority),
        cmocka_unit_test(spawns_waits_and_forgets),
        cmocka_unit_test(a_start_that_fails_says_why),
        cmocka_unit_test(domains_spawn_and_span_anywhere),
        cmocka_unit_test(names_are_unique_and_vanish),
        cmocka_unit_test(connects_on_core_host_and_network),
        cmocka_unit_test(kill_is_for_the_same_user),
        cmocka_unit_test(waits_are_cancelled),
        cmocka_unit_test(garbage_costs_a_client_its_link),
        cmocka_unit_test(lists_links_and_stats),
        cmocka_unit_test(limits_are_answers),
        cmocka_unit_test(one_user_does_not_starve_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
