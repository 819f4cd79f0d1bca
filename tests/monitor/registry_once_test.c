/* Changes made once, in sessions of the log, however often and through whichever monitor they are asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "asks.h"

#include <stdio.h>

/* A monitor dies with a change on its way, wherever that is; asked again through another one, it has been made once, and is answered
 * what it gave, also if that is a refusal, or a name. */
static void a_change_is_made_once(void **state)
{
    (void)state;
    unsigned n_done = 0, n_not = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        world_t *w = world_new(5, 1, seed);
        world_form(w);
        rf_core_t dies = (rf_core_t)(seed % 2); /* the leader, or another */
        test_client_t *first = world_node_client(w, dies), *second = world_node_client(w, 2);
        rf_client_registry_t put = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY), new = put;
        rf_client_registry_entry_t e = {0};
        rf_client_session_t s;
        new.flags = RF_REGISTRY_SEQUENTIAL;
        assert_int_equal(world_ask(w, first, RF_CLIENT_ONCE_OPEN, NULL, 0, &s, sizeof s), RF_OK);
        assert_int_equal(ask_change_once(w, first, (rf_client_once_t){s.session, 1}, put, "k", "0").err,
                         RF_OK);
        ask_send_once(w, first, (rf_client_once_t){s.session, 2}, put, "k", "1");
        ask_send_once(w, first, (rf_client_once_t){s.session, 3}, new, "q/", "1");
        world_deliver(w, (unsigned)rf_prng_below(&w->prng, 5));
        world_kill(w, dies);
        world_pass(w, 10 * RF_NS_PER_S);
        n_done +=
            ask_look(w, second, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "k", &e, NULL) && e.version == 2;
        n_not += e.version == 1;
        answer_t made = {0};
        for (unsigned i = 0; i < 3; i++) {
            answer_t again = ask_change_once(w, second, (rf_client_once_t){s.session, 2}, put, "k", "1");
            assert_int_equal(again.err, RF_OK);
            assert_int_equal(ask_look(w, second, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "k", &e, NULL), 1);
            assert_int_equal(e.version, 2);
            assert_int_equal(again.done.revision, e.revision);
            again = ask_change_once(w, world_node_client(w, (rf_core_t)(2 + i)),
                                    (rf_client_once_t){s.session, 3}, new, "q/", "1");
            assert_int_equal(again.err, RF_OK);
            if (i > 0)
                assert_true(again.size == made.size && memcmp(again.bytes, made.bytes, made.size) == 0);
            made = again;
            assert_int_equal(ask_look(w, second, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "q/", NULL, NULL),
                             1);
        }
        put.condition = RF_REGISTRY_IF_ABSENT;
        assert_int_equal(ask_change_once(w, second, (rf_client_once_t){s.session, 4}, put, "k", "2").err,
                         RF_ERR_EXISTS);
        assert_int_equal(ask_change_once(w, second, (rf_client_once_t){0, 5}, put, "m", "").err,
                         RF_ERR_INVALID);
        assert_int_equal(world_ask(w, second, RF_CLIENT_ONCE_END, &s, sizeof s, NULL, 0), RF_OK);
        assert_int_equal(ask_change_once(w, second, (rf_client_once_t){s.session, 2}, put, "k", "1").err,
                         RF_ERR_SESSION);
        assert_int_equal(ask_look(w, second, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "k", &e, NULL), 1);
        assert_int_equal(e.version, 2);
        world_free(w);
    }
    print_message("%u were made before, %u not\n", n_done, n_not);
    assert_true(n_done > 5 && n_not > 5); /* both were met */
}

/* Nobody ends what they have opened: whoever opens one more than are kept ends the oldest, whose changes are then refused, not made. */
static void sessions_that_nobody_ends(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 5);
    world_form(w);
    static rf_client_session_t sessions[AGREE_SESSIONS_MAX + 6];
    const unsigned n = sizeof sessions / sizeof *sessions;
    rf_client_registry_t put = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    rf_client_registry_entry_t e;
    test_client_t *c = world_node_client(w, 1);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(world_ask(w, c, RF_CLIENT_ONCE_OPEN, NULL, 0, &sessions[i], sizeof *sessions),
                         RF_OK);
        assert_int_equal(ask_change_once(w, c, (rf_client_once_t){sessions[i].session, 1}, put, "k", "1").err,
                         RF_OK);
        world_forget_inbox(c);
    }
    for (rf_core_t core = 0; core < 3; core++) {
        test_client_t *at = world_node_client(w, core);
        for (unsigned i = 0; i < n; i++) {
            answer_t got = ask_change_once(w, at, (rf_client_once_t){sessions[i].session, 1}, put, "k", "1");
            assert_int_equal(got.err, i < n - AGREE_SESSIONS_MAX ? RF_ERR_SESSION : RF_OK);
            world_forget_inbox(at);
        }
        assert_int_equal(ask_look(w, at, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "k", &e, NULL), 1);
        assert_int_equal(e.version, n);
    }
    world_check(w);
    world_free(w);
}

/* That the queue is full is an answer, other than that too much is under way for one, however often it is asked for. */
static void a_full_queue_is_an_answer(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 6);
    world_form(w);
    test_client_t *first = world_node_client(w, 1), *second = world_node_client(w, 2);
    rf_client_registry_t queue = ask_body(RF_REGISTRY_CREATE, RF_REGISTRY_KIND_QUEUE);
    rf_client_registry_t push = ask_body(RF_REGISTRY_PUSH, RF_REGISTRY_KIND_QUEUE);
    queue.n = 1;
    rf_client_session_t s;
    assert_int_equal(world_ask(w, first, RF_CLIENT_ONCE_OPEN, NULL, 0, &s, sizeof s), RF_OK);
    assert_int_equal(ask_change_once(w, first, (rf_client_once_t){s.session, 1}, queue, "shared/q", "").err,
                     RF_OK);
    assert_int_equal(ask_change_once(w, first, (rf_client_once_t){s.session, 2}, push, "shared/q", "a").err,
                     RF_OK);
    ask_send_once(w, first, (rf_client_once_t){s.session, 3}, push, "shared/q", "b");
    answer_t under_way;
    uint32_t again = ask_send_once(w, first, (rf_client_once_t){s.session, 3}, push, "shared/q", "b");
    world_settle(w);
    assert_true(ask_fetch(first, again, &under_way));
    assert_int_equal(under_way.err, RF_ERR_AGAIN);
    assert_int_equal(ask_change_once(w, second, (rf_client_once_t){s.session, 3}, push, "shared/q", "b").err,
                     RF_ERR_BUSY);
    assert_int_equal(ask_change_once(w, second, (rf_client_once_t){s.session, 2}, push, "shared/q", "a").err,
                     RF_OK);
    /* Asked for outside of a session nothing is repeated, and the queue is full for now. */
    assert_int_equal(ask_change(w, second, push, "shared/q", "c").err, RF_ERR_AGAIN);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_is_made_once),
        cmocka_unit_test(sessions_that_nobody_ends),
        cmocka_unit_test(a_full_queue_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
