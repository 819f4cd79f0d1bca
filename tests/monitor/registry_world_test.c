/* The registry in whole machines: changes, waits, sessions, reads and watches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "asks.h"

#include <stdio.h>

static void keys_are_everywhere(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 1);
    world_form(w);
    rf_domain_t domain;
    test_client_t *c = world_domain_on(w, 1, &domain);
    char value[600];
    rf_client_registry_entry_t e;
    assert_int_equal(ask_put(w, c, "a/1", "one"), RF_OK);
    assert_int_equal(ask_put(w, c, "a/2", "two"), RF_OK);
    rf_client_registry_t sequence = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    sequence.flags = RF_REGISTRY_SEQUENTIAL;
    answer_t a = ask_change(w, c, sequence, "a/s-", "");
    assert_int_equal(a.err, RF_OK);
    assert_int_equal(a.size, 4 + 16);
    for (rf_core_t core = 0; core < 4; core++) {
        test_client_t *node = world_node_client(w, core);
        for (uint16_t flags = 0; flags <= RF_REGISTRY_LINEARIZABLE; flags += RF_REGISTRY_LINEARIZABLE) {
            assert_int_equal(
                ask_look(w, node, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, flags, "a/2", &e, value), 1);
            assert_string_equal(value, "two");
            assert_int_equal(
                ask_look(w, node, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, flags, "a/", NULL, value), 3);
            assert_string_equal(value, "one");
            assert_int_equal(
                ask_look(w, node, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, flags, "a/3", NULL, NULL), 0);
        }
    }
    /* A linearizable read sees what was agreed before it was asked, at a monitor that has heard nothing of it yet. */
    test_client_t *far = world_node_client(w, 3);
    for (unsigned i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        rf_client_registry_t body = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
        uint32_t tag = ask_send(w, c, RF_CLIENT_REGISTRY_CHANGE, body, "a/1", text);
        while (!world_reply(c, tag)) world_deliver(w, 1);
        assert_int_equal(ask_look(w, far, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, RF_REGISTRY_LINEARIZABLE,
                                  "a/1", NULL, value),
                         1);
        assert_string_equal(value, text);
        world_forget_inbox(c);
        world_forget_inbox(far);
    }
    world_free(w);
}

static void lists_come_in_pages(void **state)
{
    (void)state;
    world_t *w = world_new(1, 2, 2);
    world_form(w);
    test_client_t *c = world_node_client(w, 0);
    char name[32], large[513];
    memset(large, 'x', 512);
    large[512] = 0;
    for (unsigned i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "page/%02u", i);
        assert_int_equal(ask_put(w, c, name, large), RF_OK);
    }
    world_forget_inbox(c);
    unsigned seen = 0;
    char from[128] = "";
    for (bool more = true; more;) {
        rf_client_registry_page_t page;
        uint32_t tag = ask_send(w, c, RF_CLIENT_REGISTRY_READ,
                                ask_body(RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY), "page/", from);
        world_settle(w);
        const message_t *m = world_reply(c, tag);
        memcpy(&page, m->body, sizeof page);
        size_t at = sizeof page;
        for (unsigned i = 0; i < page.n; i++) {
            rf_client_registry_entry_t e;
            memcpy(&e, m->body + at, sizeof e);
            snprintf(name, sizeof name, "page/%02u", seen++);
            snprintf(from, sizeof from, "%.*s", e.name_size, (const char *)m->body + at + sizeof e);
            assert_string_equal(from, name);
            at += (sizeof e + e.name_size + e.value_size + 7) & ~(size_t)7;
        }
        assert_int_equal(at, m->size);
        more = page.more;
    }
    assert_int_equal(seen, 40);
    world_free(w);
}

static void waits_end_by_agreement(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 4);
    world_form(w);
    rf_domain_t a, b;
    answer_t got;
    test_client_t *holder = world_domain_on(w, 0, &a), *waiter = world_domain_on(w, 3, &b);
    rf_assert(ask_fetch(holder, ask_acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
    uint32_t tag = ask_acquire(w, waiter, "shared/l", 50 * RF_NS_PER_MS);
    world_pass(w, 40 * RF_NS_PER_MS);
    assert_false(ask_fetch(waiter, tag, &got));
    world_pass(w, 20 * RF_NS_PER_MS);
    assert_true(ask_fetch(waiter, tag, &got));
    assert_int_equal(got.err, RF_ERR_TIMEOUT);
    tag = ask_acquire(w, waiter, "shared/l", UINT64_MAX);
    rf_client_target_t target = {.domain = tag};
    world_send(w, waiter, RF_CLIENT_CANCEL, &target, sizeof target, 0);
    world_settle(w);
    assert_true(ask_fetch(waiter, tag, &got));
    assert_int_equal(got.err, RF_ERR_CANCELLED);
    rf_client_registry_t try = ask_body(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
    try.flags = RF_REGISTRY_TRY;
    assert_int_equal(ask_change(w, waiter, try, "shared/l", "").err, RF_ERR_AGAIN);
    rf_client_registry_entry_t e;
    assert_int_equal(ask_look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL), 1);
    assert_true(e.waiting == 0 && e.domain == a);
    /* Grant and time-out at the same moment, in any order: the lock is held exactly when that was told. */
    for (unsigned i = 0; i < 30; i++) {
        world_forget_inbox(waiter);
        world_forget_inbox(holder);
        rf_client_registry_t release = ask_body(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
        ask_look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL);
        release.number = e.revision;
        tag = ask_acquire(w, waiter, "shared/l", RF_NS_PER_MS);
        assert_false(ask_fetch(waiter, tag, &got));
        w->now_ns += i % 3 * RF_NS_PER_MS;
        ask_send(w, holder, RF_CLIENT_REGISTRY_CHANGE, release, "shared/l", "");
        target.domain = tag;
        world_send(w, waiter, RF_CLIENT_CANCEL, &target, sizeof target, 0);
        world_settle(w);
        assert_true(ask_fetch(waiter, tag, &got));
        bool held = ask_look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL) &&
                    e.domain == b;
        assert_int_equal(held, got.err == RF_OK);
        if (held) {
            release.number = got.done.revision;
            assert_int_equal(ask_change(w, waiter, release, "shared/l", "").err, RF_OK);
        }
        tag = ask_acquire(w, holder, "shared/l", UINT64_MAX);
        assert_true(ask_fetch(holder, tag, &got) && got.err == RF_OK);
    }
    world_free(w);
}

static void sessions_own_for_a_command(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 5);
    world_form(w);
    test_client_t *node = world_node_client(w, 1), *other = world_node_client(w, 0);
    rf_client_session_t s = world_session(w, node), t = world_session(w, other);
    answer_t got;
    rf_client_registry_t body = ask_body(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
    assert_int_equal(ask_change(w, node, body, "l", "").err, RF_ERR_INVALID); /* whose? */
    body.session = t.session;
    assert_int_equal(ask_change(w, node, body, "l", "").err, RF_ERR_SESSION); /* another's */
    body.session = s.session;
    assert_int_equal(ask_change(w, node, body, "l", "").err, RF_OK);
    body.session = t.session;
    uint32_t tag = ask_send(w, other, RF_CLIENT_REGISTRY_CHANGE, body, "l", "");
    world_settle(w);
    assert_false(ask_fetch(other, tag, &got));
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_END, &s, sizeof s, NULL, 0), RF_OK);
    assert_true(ask_fetch(other, tag, &got) && got.err == RF_OK);
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_END, &s, sizeof s, NULL, 0), RF_ERR_SESSION);
    /* The link ends with a command on its way: everything goes all the same. */
    s = world_session(w, node);
    rf_client_registry_t here = ask_ephemeral(s.session);
    ask_send(w, node, RF_CLIENT_REGISTRY_CHANGE, here, "here", "");
    world_client_leave(w, node);
    world_settle(w);
    assert_int_equal(ask_look(w, other, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "", NULL, NULL), 0);
    assert_int_equal(w->monitor[1]->n_sessions, 0);
    /* A core takes its sessions with it. */
    node = world_node_client(w, 1);
    s = world_session(w, node);
    here.session = s.session;
    assert_int_equal(ask_change(w, node, here, "here", "").err, RF_OK);
    assert_int_equal(ask_look(w, other, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "", NULL, NULL), 1);
    world_kill_node(w, 1);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_int_equal(ask_look(w, other, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "", NULL, NULL), 0);
    world_free(w);
}

static void watchers_miss_nothing_unknowingly(void **state)
{
    (void)state;
    world_t *w = world_new(1, 2, 6);
    world_form(w);
    test_client_t *c = world_node_client(w, 0), *watcher = world_node_client(w, 1);
    rf_client_registry_t watch = ask_body(RF_REGISTRY_PREFIX, RF_REGISTRY_KIND_KEY);
    watch.number = 1;
    uint64_t last = 0;
    unsigned seen = 0;
    for (unsigned i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s/%u", i % 2 ? "w" : "other", i);
        assert_int_equal(ask_put(w, c, name, "value"), RF_OK);
        world_forget_inbox(c);
    }
    for (bool more = true; more;) {
        rf_client_registry_events_t events;
        rf_client_registry_event_t event;
        uint32_t tag = ask_send(w, watcher, RF_CLIENT_REGISTRY_WATCH, watch, "w/", "");
        world_settle(w);
        const message_t *m = world_reply(watcher, tag);
        more = m != NULL;
        if (!more) break;
        memcpy(&events, m->body, sizeof events);
        assert_int_equal(events.missed, 0);
        size_t at = sizeof events;
        for (unsigned i = 0; i < events.n; i++) {
            memcpy(&event, m->body + at, sizeof event);
            assert_true(event.revision > last);
            last = event.revision;
            at += (sizeof event + event.name_size + event.value_size + 7) & ~(size_t)7;
            seen++;
        }
        watch.number = events.next;
    }
    assert_int_equal(seen, 150);
    /* The one that waits now is cancelled; then the ring is overrun. */
    rf_client_target_t target = {.domain = w->tag_next};
    world_send(w, watcher, RF_CLIENT_CANCEL, &target, sizeof target, 0);
    world_settle(w);
    assert_int_equal(world_reply(watcher, (uint32_t)target.domain)->header.err, RF_ERR_CANCELLED);
    for (unsigned i = 0; i < 1100; i++) {
        assert_int_equal(ask_put(w, c, "w/again", "value"), RF_OK);
        world_forget_inbox(c);
    }
    rf_client_registry_events_t events;
    uint32_t tag = ask_send(w, watcher, RF_CLIENT_REGISTRY_WATCH, watch, "w/", "");
    world_settle(w);
    memcpy(&events, world_reply(watcher, tag)->body, sizeof events);
    assert_int_equal(events.missed, 1);
    assert_true(events.next > watch.number);
    world_free(w);
}

static void bad_requests(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 8);
    world_form(w);
    test_client_t *c = world_node_client(w, 0);
    rf_client_registry_t body = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    assert_int_equal(ask_change(w, c, body, "", "").err, RF_ERR_INVALID);
    assert_int_equal(ask_change(w, c, body, "a b", "").err, RF_ERR_INVALID);
    body.flags = 8; /* privileged: not the client's to say */
    assert_int_equal(ask_change(w, c, body, "machine/x", "").err, RF_ERR_INVALID);
    body = ask_body(RF_REGISTRY_POP + 1, RF_REGISTRY_KIND_KEY);
    assert_int_equal(ask_change(w, c, body, "x", "").err, RF_ERR_INVALID);
    body = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    memset(body.user, 'u', sizeof body.user);
    assert_int_equal(ask_change(w, c, body, "x", "").err, RF_ERR_INVALID);
    body = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    body.name_size = 100;
    assert_int_equal(world_ask(w, c, RF_CLIENT_REGISTRY_CHANGE, &body, sizeof body, NULL, 0), RF_ERR_INVALID);
    assert_int_equal(world_ask(w, c, RF_CLIENT_REGISTRY_READ, &body, sizeof body, NULL, 0), RF_ERR_INVALID);
    assert_int_equal(world_ask(w, c, RF_CLIENT_REGISTRY_WATCH, &body, sizeof body, NULL, 0), RF_ERR_INVALID);
    snprintf(body.user, sizeof body.user, "root");
    assert_int_equal(ask_change(w, c, body, "machine/x", "").err, RF_OK);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_everywhere),
        cmocka_unit_test(lists_come_in_pages),
        cmocka_unit_test(waits_end_by_agreement),
        cmocka_unit_test(sessions_own_for_a_command),
        cmocka_unit_test(watchers_miss_nothing_unknowingly),
        cmocka_unit_test(bad_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
