/* The registry in machines that lose cores, or their quorum: who holds, who waits, who comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "asks.h"

#include <stdio.h>

static void what_a_dead_core_held(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 3);
    world_form(w);
    rf_domain_t a, b, d;
    answer_t got;
    test_client_t *holder = world_domain_on(w, 3, &a), *next = world_domain_on(w, 1, &b),
                  *last = world_domain_on(w, 2, &d);
    assert_int_equal(ask_change(w, holder, ask_ephemeral(0), "here", "core 3").err, RF_OK);
    rf_assert(ask_fetch(holder, ask_acquire(w, holder, "lock", UINT64_MAX), &got) && got.err == RF_OK);
    uint64_t token = got.done.revision;
    uint32_t second = ask_acquire(w, next, "lock", UINT64_MAX),
             third = ask_acquire(w, last, "lock", UINT64_MAX);
    assert_false(ask_fetch(next, second, &got));
    rf_client_registry_t watch = ask_body(RF_REGISTRY_KEY, RF_REGISTRY_KIND_KEY);
    uint32_t watched = ask_send(w, next, RF_CLIENT_REGISTRY_WATCH, watch, "here", "");
    world_settle(w);
    world_kill(w, 3);
    world_settle(w);
    assert_true(ask_fetch(next, second, &got));
    assert_int_equal(got.err, RF_OK);
    assert_true(got.done.revision > token);
    token = got.done.revision;
    const message_t *m = world_reply(next, watched);
    assert_non_null(m);
    rf_client_registry_events_t events;
    rf_client_registry_event_t event;
    memcpy(&events, m->body, sizeof events);
    memcpy(&event, m->body + sizeof events, sizeof event);
    assert_int_equal(events.n, 1);
    assert_int_equal(event.what, RF_REGISTRY_EVENT_EXPIRED);
    assert_int_equal(ask_look(w, next, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "here", NULL, NULL), 0);
    /* A program that just ends, too. */
    assert_false(ask_fetch(last, third, &got));
    world_exit_dispatcher(w, 1, b, 0, 0);
    world_settle(w);
    assert_true(ask_fetch(last, third, &got));
    assert_true(got.err == RF_OK && got.done.revision > token);
    rf_client_registry_t release = ask_body(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
    release.number = got.done.revision;
    assert_int_equal(ask_change(w, last, release, "lock", "").err, RF_OK);
    assert_int_equal(ask_change(w, last, release, "lock", "").err, RF_ERR_NOT_FOUND);
    world_free(w);
}

/* A majority stands still: waits end, nothing is agreed on, what is known is still read; and when it goes on, what nobody
 * was told to have is nobody's. */
static void without_a_quorum(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 7);
    world_form(w);
    rf_domain_t a, b;
    answer_t got;
    test_client_t *holder = world_domain_on(w, 1, &a), *waiter = world_domain_on(w, 2, &b);
    rf_assert(ask_fetch(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
    rf_client_registry_t release = ask_body(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
    release.number = got.done.revision;
    assert_int_equal(ask_put(w, waiter, "k", "v"), RF_OK);
    uint32_t tag = ask_acquire(w, waiter, "shared/l", 5 * RF_NS_PER_S);
    world_stall(w, 0, true);
    world_stall(w, 1, true);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_true(ask_fetch(waiter, tag, &got));
    assert_int_equal(got.err, RF_ERR_UNKNOWN_OUTCOME);
    assert_int_equal(ask_put(w, waiter, "k", "w"), RF_ERR_NO_QUORUM);
    char value[600];
    assert_int_equal(ask_look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "k", NULL, value), 1);
    assert_string_equal(value, "v");
    tag = ask_send(
        w, waiter, RF_CLIENT_REGISTRY_READ,
        (rf_client_registry_t){.what = RF_REGISTRY_GET, .kind = 1, .flags = RF_REGISTRY_LINEARIZABLE}, "k",
        "");
    world_pass(w, 10 * RF_NS_PER_S);
    assert_true(ask_fetch(waiter, tag, &got));
    assert_true(got.err == RF_ERR_NO_QUORUM || got.err == RF_ERR_TIMEOUT);
    world_stall(w, 0, false);
    world_stall(w, 1, false);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_int_equal(ask_change(w, holder, release, "shared/l", "").err, RF_OK);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(ask_look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, RF_REGISTRY_LINEARIZABLE,
                              "shared/l", NULL, NULL),
                     0);
    assert_int_equal(ask_put(w, waiter, "k", "w"), RF_OK);
    world_check(w);
    world_free(w);
}

/* How many of the waiters were told that they have the lock, and nobody anything else. */
static unsigned grants(test_client_t *const *waiters, const uint32_t *tags, unsigned n)
{
    unsigned granted = 0;
    for (unsigned i = 0; i < n; i++) {
        answer_t got;
        if (!ask_fetch(waiters[i], tags[i], &got)) continue;
        assert_int_equal(got.err, RF_OK);
        granted++;
    }
    return granted;
}

/* The leader dies with everybody in line, in the midst of the release: the next leader's log says who is next, once. */
static void the_leader_dies_while_they_wait(void **state)
{
    (void)state;
    for (unsigned delivered = 0; delivered < 40; delivered += 3) {
        world_t *w = world_new(3, 2, 20 + delivered);
        world_form(w);
        rf_domain_t domain;
        answer_t got;
        test_client_t *holder = world_domain_on(w, 1, &domain), *waiters[4];
        uint32_t tags[4];
        rf_assert(ask_fetch(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX), &got) &&
                  got.err == RF_OK);
        for (rf_core_t core = 2; core < 6; core++) {
            waiters[core - 2] = world_domain_on(w, core, &domain);
            tags[core - 2] = ask_acquire(w, waiters[core - 2], "shared/l", UINT64_MAX);
        }
        assert_int_equal(grants(waiters, tags, 4), 0);
        assert_int_equal(w->monitor[5]->agree.state.leader.core, 0);
        rf_client_registry_t release = ask_body(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
        release.number = got.done.revision;
        uint32_t released = ask_send(w, holder, RF_CLIENT_REGISTRY_CHANGE, release, "shared/l", "");
        world_deliver(w, delivered);
        world_kill(w, 0);
        world_pass(w, 10 * RF_NS_PER_S);
        assert_true(ask_fetch(holder, released, &got));
        if (got.err != RF_OK) { /* it asks again: the token says whether it had been released */
            assert_true(got.err == RF_ERR_NO_QUORUM || got.err == RF_ERR_UNKNOWN_OUTCOME);
            rf_err_t err = ask_change(w, holder, release, "shared/l", "").err;
            assert_true(err == RF_OK || err == RF_ERR_NOT_FOUND);
        }
        world_pass(w, RF_NS_PER_S);
        assert_int_equal(grants(waiters, tags, 4), 1);
        assert_true(ask_fetch(waiters[0], tags[0], &got)); /* first come, first served */
        rf_client_registry_entry_t e;
        assert_int_equal(
            ask_look(w, waiters[3], RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL), 1);
        assert_int_equal(e.revision, got.done.revision);
        assert_int_equal(e.waiting, 3);
        world_check(w);
        world_free(w);
    }
}

/* A command's client goes while as much is under way at its monitor as can be: what it held is given up when there is room again, though no
 * other session ends. */
static void a_session_ends_when_there_is_room_again(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 12);
    world_form(w);
    test_client_t *gone = world_node_client(w, 1), *other = world_node_client(w, 2), *many[64];
    unsigned n_many = 0;
    rf_client_session_t session = world_session(w, gone);
    assert_int_equal(ask_change(w, gone, ask_ephemeral(session.session), "here", "").err, RF_OK);
    rf_client_registry_t watch = ask_body(RF_REGISTRY_KEY, RF_REGISTRY_KIND_KEY);
    answer_t got;
    do { /* each may ask so much, and no more */
        assert_true(n_many < sizeof many / sizeof *many);
        many[n_many] = world_node_client(w, 1);
        do {
            uint32_t tag = ask_send(w, many[n_many], RF_CLIENT_REGISTRY_WATCH, watch, "never", "");
            world_settle(w);
            got.err = RF_OK;
            ask_fetch(many[n_many], tag, &got);
        } while (got.err == RF_OK);
        n_many++;
    } while (got.err == RF_ERR_AGAIN);
    assert_int_equal(got.err, RF_ERR_LIMIT);
    world_client_leave(w, gone);
    world_pass(w, RF_NS_PER_S);
    assert_int_equal(ask_look(w, other, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "here", NULL, NULL), 1);
    for (unsigned i = 0; i < n_many; i++) world_client_leave(w, many[i]);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_int_equal(ask_look(w, other, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "here", NULL, NULL), 0);
    world_check(w);
    world_free(w);
}

/* A core that died comes back when the log no longer holds what it missed: it is sent the registry, and goes on with it. */
static void who_comes_back_has_it_all(void **state)
{
    (void)state;
    static uint8_t theirs[SNAPSHOT_MAX], its[SNAPSHOT_MAX];
    world_t *w = world_new(3, 1, 11);
    world_form(w);
    rf_domain_t a, b;
    answer_t got;
    char name[32];
    test_client_t *holder = world_domain_on(w, 0, &a);
    test_client_t *lost = world_node_client(w, 2);
    rf_client_session_t session = world_session(w, lost);
    rf_client_registry_t here = ask_ephemeral(session.session);
    assert_int_equal(ask_change(w, lost, here, "here", "").err, RF_OK);
    world_kill(w, 2);
    world_pass(w, 20 * RF_NS_PER_S);
    assert_int_equal(ask_look(w, holder, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "here", NULL, NULL), 0);
    for (unsigned i = 0; i < 2 * AGREE_LOG_MAX; i++) {
        snprintf(name, sizeof name, "many/%u", i);
        assert_int_equal(ask_put(w, holder, name, "value"), RF_OK);
        world_forget_inbox(holder);
    }
    rf_assert(ask_fetch(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
    rf_client_registry_t release = ask_body(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
    release.number = got.done.revision;
    assert_int_equal(world_rejoin(w, 2, 1), RF_OK);
    world_pass(w, 10 * RF_NS_PER_S);
    monitor_t *back = w->monitor[2];
    assert_true(back->formed && back->incarnation == 2);
    assert_true(back->agree.state.snapshots_loaded > 0);
    size_t size = registry_save(w->monitor[0]->registry, theirs, sizeof theirs);
    assert_int_equal(registry_save(back->registry, its, sizeof its), size);
    assert_memory_equal(theirs, its, size);
    /* It takes part: a session of its own, whose numbers are no earlier life's, and a place in line. */
    test_client_t *node = world_node_client(w, 2), *waiter = world_domain_on(w, 2, &b);
    rf_client_session_t again = world_session(w, node);
    assert_true(again.session != session.session);
    assert_int_equal(ask_change(w, node, here, "here", "").err, RF_ERR_SESSION);
    here.session = again.session;
    assert_int_equal(ask_change(w, node, here, "here", "").err, RF_OK);
    uint32_t tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
    assert_false(ask_fetch(waiter, tag, &got));
    assert_int_equal(ask_change(w, holder, release, "shared/l", "").err, RF_OK);
    assert_true(ask_fetch(waiter, tag, &got) && got.err == RF_OK);
    world_check(w);
    world_free(w);
}

/* What the engine does when this monitor has fallen behind: the registry as another has it replaces its own. */
static void a_snapshot_hides_the_grant(void **state)
{
    (void)state;
    static uint8_t saved[1 << 20];
    world_t *w = world_new(2, 1, 9);
    world_form(w);
    rf_domain_t a, b;
    answer_t got;
    test_client_t *holder = world_domain_on(w, 0, &a), *waiter = world_domain_on(w, 1, &b);
    rf_assert(ask_fetch(holder, ask_acquire(w, holder, "l", UINT64_MAX), &got) && got.err == RF_OK);
    uint32_t tag = ask_acquire(w, waiter, "l", UINT64_MAX);
    rf_client_registry_t body = ask_body(RF_REGISTRY_WAIT, RF_REGISTRY_KIND_BARRIER);
    body.n = 2;
    uint32_t at_barrier = ask_send(w, waiter, RF_CLIENT_REGISTRY_CHANGE, body, "b", "");
    rf_client_registry_t watch = ask_body(RF_REGISTRY_KEY, RF_REGISTRY_KIND_KEY);
    uint32_t watched = ask_send(w, waiter, RF_CLIENT_REGISTRY_WATCH, watch, "k", "");
    world_settle(w);
    /* Core 0 goes on alone; core 1 hears of it by snapshot. */
    registry_t *r = w->monitor[0]->registry;
    uint8_t bytes[256];
    uint64_t value;
    registry_command_t c = {.op = REGISTRY_RELEASE,
                            .kind = REGISTRY_LOCK,
                            .domain = a,
                            .number = got.done.revision,
                            .name_size = 1,
                            .user = "alice"};
    memcpy(bytes, &c, sizeof c);
    bytes[sizeof c] = 'l';
    assert_int_equal(registry_apply(r, bytes, sizeof c + 1, &value), RF_OK);
    c = (registry_command_t){.op = REGISTRY_WAIT,
                             .kind = REGISTRY_BARRIER,
                             .domain = a,
                             .n = 2,
                             .wait = 5,
                             .name_size = 1,
                             .user = "alice"};
    snprintf(c.user, sizeof c.user, "%s", w->monitor[0]->domains[a % MONITOR_DOMAINS_MAX].user);
    memcpy(bytes, &c, sizeof c);
    bytes[sizeof c] = 'b';
    assert_int_equal(registry_apply(r, bytes, sizeof c + 1, &value), RF_OK);
    monitor_t *m = w->monitor[1];
    size_t size = registry_save(r, saved, sizeof saved);
    assert_int_equal(registry_load(m->registry, saved, size), RF_OK);
    m->out = w->output;
    m->out->n_actions = 0;
    m->out->n_bytes = 0;
    registry_loaded(m);
    registry_watches_deliver(m);
    unsigned granted = 0, unknown = 0, missed = 0;
    for (unsigned i = 0; i < m->out->n_actions; i++) {
        rf_wire_header_t header;
        if (m->out->actions[i].kind != MONITOR_DO_SEND_CLIENT) continue;
        memcpy(&header, m->out->actions[i].bytes, sizeof header);
        granted += header.tag == tag && header.err == RF_OK;
        unknown += header.tag == at_barrier && header.err == RF_ERR_UNKNOWN_OUTCOME;
        missed += header.tag == watched && header.err == RF_OK;
    }
    m->out = NULL;
    assert_true(granted == 1 && unknown == 1 && missed == 1);
    monitor_check(m);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_dead_core_held),
        cmocka_unit_test(without_a_quorum),
        cmocka_unit_test(the_leader_dies_while_they_wait),
        cmocka_unit_test(who_comes_back_has_it_all),
        cmocka_unit_test(a_session_ends_when_there_is_room_again),
        cmocka_unit_test(a_snapshot_hides_the_grant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
