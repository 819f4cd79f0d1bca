/* What a core had that has left stays its own until it is fenced: until nothing of it runs any more. Then it is the next one's, whoever
 * dies meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "asks.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t saved[SNAPSHOT_MAX];

static bool is_granted(const test_client_t *c, uint32_t tag)
{
    answer_t got;
    if (!ask_fetch(c, tag, &got)) return false;
    assert_int_equal(got.err, RF_OK);
    return true;
}

static rf_err_t put_here(world_t *w, test_client_t *c)
{
    rf_client_registry_t here = ask_ephemeral(0);
    here.condition = RF_REGISTRY_IF_ABSENT;
    return ask_change(w, c, here, "shared/here", "").err;
}

static unsigned n_keys(world_t *w, test_client_t *c)
{
    return ask_look(w, c, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "shared/", NULL, NULL);
}

static unsigned n_waiting(world_t *w, test_client_t *c, const char *lock)
{
    rf_client_registry_entry_t e;
    assert_int_equal(ask_look(w, c, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, lock, &e, NULL), 1);
    return e.waiting;
}

/* A whole core is stopped, and its host cannot kill what runs there: it has left, and keeps everything but its places in lines. */
static void what_cannot_be_fenced_yet_keeps_what_it_has(void **state)
{
    (void)state;
    world_t *w = world_new(1, 3, 1);
    world_form(w);
    rf_domain_t dead, alive, d;
    test_client_t *holder = world_domain_on(w, 2, &dead), *waiter = world_domain_on(w, 1, &alive);
    test_client_t *node = world_node_client(w, 0);
    assert_true(is_granted(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX)));
    assert_true(is_granted(waiter, ask_acquire(w, waiter, "shared/m", UINT64_MAX)));
    ask_acquire(w, holder, "shared/m", UINT64_MAX);
    assert_int_equal(n_waiting(w, node, "shared/m"), 1);
    assert_int_equal(put_here(w, holder), RF_OK);
    assert_int_equal(world_name(w, holder, RF_CLIENT_NAME_PUT, "name"), RF_OK);
    uint32_t tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
    rf_client_target_t target = {.domain = dead};
    uint32_t wait = world_send(w, node, RF_CLIENT_WAIT, &target, sizeof target, 0);

    w->fence_err = RF_ERR_TIMEOUT;
    world_stall(w, 2, true);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_int_equal(world_status(w, node).cores_up, 2);
    assert_true(world_runs(w, 2, dead, 0));
    assert_false(is_granted(waiter, tag));
    assert_null(world_reply(node, wait));
    assert_int_equal(n_waiting(w, node, "shared/m"), 0);
    assert_int_equal(n_keys(w, node), 1);
    assert_int_equal(put_here(w, waiter), RF_ERR_EXISTS);
    assert_int_equal(world_name(w, waiter, RF_CLIENT_NAME_PUT, "name"), RF_ERR_EXISTS);
    rf_client_name_request_t name = {.name = "name"};
    assert_int_equal(world_ask(w, node, RF_CLIENT_NAME_GET, &name, sizeof name, NULL, 0), RF_ERR_NOT_FOUND);
    assert_int_equal(world_spawn(w, node, 0, &d), RF_OK); /* the machine goes on */

    /* A snapshot has it, and who takes it up goes on from there. */
    monitor_t *m = w->monitor[0], *again;
    size_t n = replica_save(m, saved, sizeof saved), size = (monitor_size(m->boot, 0) + 63) & ~(size_t)63;
    void *memory = world_memory(size);
    monitor_output_t *output = calloc(1, sizeof *output);
    assert_true(memory && output);
    assert_int_equal(monitor_init(memory, size, m->boot, 0, 2, "owner", w->now_ns, &again), RF_OK);
    again->out = output;
    assert_int_equal(replica_load(again, saved, n), RF_OK);
    monitor_check(again);
    assert_int_equal(again->cores[2].holding, 1);
    assert_int_equal(again->cores[2].fence, FENCE_DUE);
    registry_entry_t e;
    assert_true(registry_get(again->registry, REGISTRY_LOCK, "shared/l", 8, &e) && e.domain == dead);
    command_t command = {.op = COMMAND_RECLAIM, .core = 2, .incarnation = 1, .at_ns = 7};
    uint64_t value;
    assert_int_equal(replica_apply(again, &command, sizeof command, &value), RF_OK);
    assert_true(registry_get(again->registry, REGISTRY_LOCK, "shared/l", 8, &e) && e.domain == alive);
    assert_true(again->cores[2].holding == 0 && domain_find(again, dead)->ended_ns == 7);
    assert_int_equal(replica_apply(again, &command, sizeof command, &value), RF_OK); /* twice: as once */
    monitor_check(again);
    /* Of a life that has not left: it would be taken for fenced when it does. */
    const rf_incarnation_t wrong[] = {core_agreed(again, 1), core_agreed(again, 1) + 1, UINT32_MAX};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        command_t of_alive = {.op = COMMAND_RECLAIM, .core = 1, .incarnation = wrong[i], .at_ns = 8};
        assert_int_equal(replica_apply(again, &of_alive, sizeof of_alive, &value), RF_ERR_INVALID);
    }
    free(memory);
    free(output);

    w->fence_err = RF_OK;
    world_pass(w, 3 * RF_NS_PER_S);
    assert_false(world_runs(w, 2, dead, 0));
    assert_true(is_granted(waiter, tag));
    assert_non_null(world_reply(node, wait));
    assert_int_equal(n_keys(w, node), 0);
    assert_int_equal(put_here(w, waiter), RF_OK);
    assert_int_equal(world_name(w, waiter, RF_CLIENT_NAME_PUT, "name"), RF_OK);
    world_check(w);
    world_free(w);
}

/* Nobody can kill what runs on a host that is cut off: what it had is free when it has frozen, by time. */
static void a_host_out_of_reach_keeps_it_until_it_has_frozen(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 2);
    world_form(w);
    world_pass(w, RF_NS_PER_S);
    rf_domain_t a, b;
    test_client_t *holder = world_domain_on(w, 2, &a), *waiter = world_domain_on(w, 1, &b);
    assert_true(is_granted(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX)));
    uint32_t tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
    world_cut(w, 0, 2, true);
    world_cut(w, 1, 2, true);
    unsigned ms = 0;
    for (; ms < 20000 && !is_granted(waiter, tag); ms++) world_pass(w, RF_NS_PER_MS);
    assert_true(ms < 20000);
    assert_true(world_runs(w, 2, a, 0));
    assert_false(fake_core_runs(&w->fake.cores[2], w->now_ns));
    world_free(w);
}

/* At whatever point of it the leader dies, too, and who fences: somebody else proposes it. */
static void who_reclaims_may_die(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 120; k++) {
        world_t *w = world_new(1 + k % 2, 5 - k % 2, 100 + k);
        const rf_core_t victim = (rf_core_t)(w->n_cores - 1);
        world_form(w);
        rf_domain_t a, b;
        test_client_t *holder = world_domain_on(w, victim, &a), *waiter = world_domain_on(w, 1, &b);
        assert_true(is_granted(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX)));
        uint32_t tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
        world_kill(w, victim);
        world_deliver(w, k);
        world_kill(w, 0);
        world_pass(w, 10 * RF_NS_PER_S);
        world_check(w);
        assert_true(is_granted(waiter, tag));
        for (rf_core_t core = 1; core < victim; core++) {
            for (rf_core_t of = 0; of < w->n_cores; of++)
                assert_int_equal(w->monitor[core]->cores[of].holding, 0);
        }
        world_free(w);
    }
}

/* The core joins anew before what it had is reclaimed: what it has by then is its own. */
static void the_next_life_keeps_its_own(void **state)
{
    (void)state;
    for (rf_core_t victim = 0; victim < 3; victim++) {
        const rf_core_t first = (victim + 1) % 3;
        world_t *w = world_new(1, 3, 30 + victim);
        world_form(w);
        rf_domain_t a, b, c;
        test_client_t *holder = world_domain_on(w, victim, &a), *waiter = world_domain_on(w, first, &b);
        test_client_t *node = world_node_client(w, victim);
        rf_client_session_t s = world_session(w, node);
        rf_client_registry_t lock = ask_body(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
        lock.session = s.session;
        assert_int_equal(ask_change(w, node, lock, "shared/s", "").err, RF_OK);
        assert_true(is_granted(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX)));
        uint32_t tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
        uint32_t session_tag = ask_acquire(w, waiter, "shared/s", UINT64_MAX);
        w->fence_err = RF_ERR_TIMEOUT;
        world_kill(w, victim);
        world_pass(w, RF_NS_PER_S);
        assert_int_equal(world_rejoin(w, victim, first), RF_OK);
        world_pass(w, 3 * RF_NS_PER_S);
        test_client_t *next = world_domain_on(w, victim, &c);
        assert_true(is_granted(next, ask_acquire(w, next, "shared/n", UINT64_MAX)));
        uint32_t next_tag = ask_acquire(w, waiter, "shared/n", UINT64_MAX);
        assert_false(is_granted(waiter, tag) || is_granted(waiter, session_tag));
        assert_int_equal(w->monitor[first]->cores[victim].holding, 1);
        w->fence_err = RF_OK;
        world_pass(w, 3 * RF_NS_PER_S);
        assert_true(is_granted(waiter, tag) && is_granted(waiter, session_tag));
        assert_false(is_granted(waiter, next_tag));
        assert_true(world_runs(w, victim, c, 0));
        world_check(w);
        world_free(w);
    }
}

/* A domain has ended with its first dispatcher: another, on a core whose monitor has not got to it, keeps what it has. */
static void the_rest_of_a_domain_keeps_what_it_has(void **state)
{
    (void)state;
    world_t *w = world_new(1, 3, 5);
    world_form(w);
    rf_domain_t a, b;
    test_client_t *first = world_domain_on(w, 1, &a), *waiter = world_domain_on(w, 0, &b);
    rf_client_spawn_t span = {.core = 2};
    assert_int_equal(world_ask(w, first, RF_CLIENT_SPAN, &span, sizeof span, NULL, 0), RF_OK);
    test_client_t *holder = world_dispatcher_client(w, 2, a, 1);
    assert_true(is_granted(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX)));
    uint32_t tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
    world_stall(w, 2, true);
    world_exit_dispatcher(w, 1, a, 0, 0);
    world_settle(w);
    rf_client_domain_t d;
    assert_int_equal(world_domain(w, world_node_client(w, 0), a, &d), RF_OK);
    assert_int_equal(d.state, RF_DOMAIN_ENDED);
    assert_true(world_runs(w, 2, a, 1));
    assert_false(is_granted(waiter, tag));
    world_stall(w, 2, false);
    world_settle(w);
    assert_false(world_runs(w, 2, a, 1));
    assert_true(is_granted(waiter, tag));
    for (rf_core_t core = 0; core < 3; core++) assert_int_equal(w->monitor[core]->n_domains_live, 1);
    world_check(w);
    world_free(w);
}

/* The CPU driver's answer about one life says nothing of the next, which has left meanwhile and is asked about, too. */
static void an_answer_is_of_one_life(void **state)
{
    (void)state;
    const rf_err_t answers[] = {RF_OK, RF_ERR_TIMEOUT};
    world_t *w = world_new(1, 3, 6);
    world_form(w);
    monitor_t *m = w->monitor[0];
    core_t *c = &m->cores[2];
    for (unsigned i = 0; i < 2; i++) {
        op_t *op = op_begin(m, OP_FENCE, RF_NEVER);
        assert_non_null(op);
        op->fence.core = 2;
        op->fence.incarnation = 1;
        c->left = 2;
        c->fence = FENCE_ASKED;
        op_fence_class.kernel(m, op, answers[i], NULL, 0);
        assert_int_equal(c->fence, FENCE_ASKED);
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_of_one_life),
        cmocka_unit_test(what_cannot_be_fenced_yet_keeps_what_it_has),
        cmocka_unit_test(a_host_out_of_reach_keeps_it_until_it_has_frozen),
        cmocka_unit_test(who_reclaims_may_die),
        cmocka_unit_test(the_next_life_keeps_its_own),
        cmocka_unit_test(the_rest_of_a_domain_keeps_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
