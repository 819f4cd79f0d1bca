/* Who owns something in the registry lives, whatever comes late; and who lives is not replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t saved[SNAPSHOT_MAX];

/* A command of the registry as a monitor proposes it: an ephemeral key of this owner. */
static size_t here(uint8_t *bytes, uint64_t domain, uint64_t session, uint64_t number)
{
    registry_command_t c = {.op = REGISTRY_PUT,
                            .kind = REGISTRY_KEY,
                            .flags = REGISTRY_EPHEMERAL,
                            .name_size = 4,
                            .domain = domain,
                            .session = session,
                            .wait = number,
                            .user = "root"};
    memcpy(bytes, &c, sizeof c);
    memcpy(bytes + sizeof c, "here", 4);
    return sizeof c + 4;
}

static bool is_there(const world_t *w, rf_core_t core)
{
    registry_entry_t e;
    return registry_get(w->monitor[core]->registry, REGISTRY_KEY, "here", 4, &e);
}

/* As of an operation whose client has been told that the outcome is unknown, and that gets into the log after all. */
static void propose_late(world_t *w, rf_core_t core, uint64_t session)
{
    monitor_t *m = w->monitor[core];
    op_t *op = op_begin(m, OP_REGISTRY, RF_NEVER);
    assert_non_null(op);
    op->state = 4; /* nobody waits for it */
    op->registry.slot = NO_SLOT;
    op->registry.wait = registry_number(m);
    agree_propose_bytes(m, op, m->slots[0].bytes, here(m->slots[0].bytes, 0, session, op->registry.wait));
}

static void what_comes_behind_the_end_of_its_session_goes(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 1);
    world_form(w);
    test_client_t *node = world_node_client(w, 1);
    rf_client_session_t s = world_session(w, node);
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_END, &s, sizeof s, NULL, 0), RF_OK);
    world_pass(w, RF_NS_PER_S);
    assert_int_equal(w->monitor[1]->n_sessions, 0);
    uint64_t revision = registry_revision(w->monitor[0]->registry);
    propose_late(w, 1, s.session);
    world_pass(w, 3 * RF_NS_PER_S);
    for (rf_core_t core = 0; core < 3; core++) {
        assert_true(registry_revision(w->monitor[core]->registry) > revision); /* it was there */
        assert_false(is_there(w, core));
    }
    world_free(w);
}

/* The same, where the late entry went by in a snapshot: the load tells. */
static void what_a_snapshot_says_of_an_ended_session_goes(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 2);
    world_form(w);
    monitor_t *m = w->monitor[1];
    uint64_t session = registry_number(m), value;
    uint8_t bytes[256];
    for (rf_core_t core = 0; core < 3; core++) {
        size_t size = here(bytes, 0, session, session + 1);
        assert_int_equal(registry_apply(w->monitor[core]->registry, bytes, size, &value), RF_OK);
    }
    m->sessions_late = true; /* what registry_loaded() does */
    world_pass(w, 3 * RF_NS_PER_S);
    for (rf_core_t core = 0; core < 3; core++) assert_false(is_there(w, core));
    world_free(w);
}

/* A snapshot in which this owner has the key; what was there is as it was if it is refused. */
static rf_err_t loads(monitor_t *m, uint64_t domain, uint64_t session)
{
    uint8_t bytes[256];
    uint64_t value;
    registry_entry_t e;
    size_t size = here(bytes, domain, session, registry_number(m));
    assert_int_equal(registry_apply(m->registry, bytes, size, &value), RF_OK);
    size = replica_save(m, saved, sizeof saved);
    registry_owner_ended(m->registry, domain, session);
    m->out->n_actions = 0;
    m->out->n_bytes = 0;
    rf_err_t err = replica_load(m, saved, size);
    assert_int_equal(registry_get(m->registry, REGISTRY_KEY, "here", 4, &e), err == RF_OK);
    registry_owner_ended(m->registry, domain, session);
    return err;
}

static void a_snapshot_whose_owners_do_not_live_is_refused(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 3);
    world_form(w);
    rf_domain_t runs, over;
    world_domain_on(w, 1, &runs);
    world_domain_on(w, 1, &over);
    world_exit_dispatcher(w, 1, over, 0, 0);
    world_kill(w, 3);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_false(core_is_member(w->monitor[0], 3));
    /* a monitor on its own, with what they agree on */
    size_t size = monitor_size(w->monitor[0]->boot, 0), n = replica_save(w->monitor[0], saved, sizeof saved);
    void *memory = world_memory(size);
    monitor_output_t *output = calloc(1, sizeof *output);
    monitor_t *m;
    assert_true(memory && output);
    assert_int_equal(monitor_init(memory, size, w->monitor[0]->boot, 0, 2, "owner", w->now_ns, &m), RF_OK);
    m->out = output;
    assert_int_equal(replica_load(m, saved, n), RF_OK);
    assert_int_equal(loads(m, runs, 0), RF_OK);
    assert_int_equal(loads(m, runs, 1), RF_ERR_PROTOCOL);
    assert_int_equal(loads(m, over, 0), RF_ERR_PROTOCOL);
    assert_int_equal(loads(m, over + 1, 0), RF_ERR_PROTOCOL);
    assert_int_equal(loads(m, 0, registry_number_of(1, 1, 77)), RF_OK);
    assert_int_equal(loads(m, 0, registry_number_of(1, 2, 77)), RF_ERR_PROTOCOL);
    assert_int_equal(loads(m, 0, registry_number_of(3, 1, 77)), RF_ERR_PROTOCOL);
    assert_int_equal(loads(m, 0, registry_number_of(9, 1, 77)), RF_ERR_PROTOCOL);
    free(memory);
    free(output);
    world_free(w);
}

static void who_lives_is_not_replaced(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 4);
    world_form(w);
    rf_client_join_t join = {.core = 1};
    rf_client_joined_t joined;
    test_client_t *node = world_node_client(w, 0);
    world_pass(w, RF_NS_PER_S);
    assert_int_equal(
        world_ask_for(w, node, RF_CLIENT_JOIN, &join, sizeof join, &joined, sizeof joined, 15 * RF_NS_PER_S),
        RF_ERR_BUSY);
    join.core = 0; /* the one that is asked */
    assert_int_equal(
        world_ask_for(w, node, RF_CLIENT_JOIN, &join, sizeof join, &joined, sizeof joined, 15 * RF_NS_PER_S),
        RF_ERR_BUSY);
    join.core = 1; /* of another host, by one that has no link with it */
    assert_int_not_equal(w->monitor[3]->cores[1].link, PEER_LINKED);
    assert_int_equal(world_ask_for(w, world_node_client(w, 3), RF_CLIENT_JOIN, &join, sizeof join, &joined,
                                   sizeof joined, 15 * RF_NS_PER_S),
                     RF_ERR_BUSY);
    world_pass(w, RF_NS_PER_S);
    for (rf_core_t core = 0; core < 4; core++) {
        assert_true(w->alive[core]);
        assert_int_equal(w->monitor[core]->incarnation, 1);
    }
    world_kill(w, 1); /* and who has died is, at once: the kernel says so */
    assert_int_equal(world_rejoin(w, 1, 0), RF_OK);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_true(w->monitor[1]->formed && w->monitor[1]->incarnation == 2);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_behind_the_end_of_its_session_goes),
        cmocka_unit_test(what_a_snapshot_says_of_an_ended_session_goes),
        cmocka_unit_test(a_snapshot_whose_owners_do_not_live_is_refused),
        cmocka_unit_test(who_lives_is_not_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
