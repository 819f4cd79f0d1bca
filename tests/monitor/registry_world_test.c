/* The registry in whole machines: changes, waits, deaths of those who hold, sessions, reads and watches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

#include <stdio.h>

typedef struct answer {
    rf_err_t err;
    rf_client_registry_done_t done;
    uint8_t bytes[4096];
    size_t size; /* of bytes */
} answer_t;

static rf_client_registry_t body_of(uint16_t what, uint8_t kind)
{
    return (rf_client_registry_t){.what = what, .kind = kind, .timeout_ns = UINT64_MAX, .user = "somebody"};
}

static uint32_t send(world_t *w, test_client_t *c, uint16_t op, rf_client_registry_t body, const char *name,
                     const char *value)
{
    uint8_t bytes[4000];
    body.name_size = (uint16_t)strlen(name);
    body.value_size = (uint16_t)strlen(value);
    memcpy(bytes, &body, sizeof body);
    memcpy(bytes + sizeof body, name, body.name_size);
    memcpy(bytes + sizeof body + body.name_size, value, body.value_size);
    return world_send(w, c, op, bytes, sizeof body + body.name_size + body.value_size, 0);
}

static bool fetch(const test_client_t *c, uint32_t tag, answer_t *out)
{
    const message_t *m = world_reply(c, tag);
    if (!m) return false;
    *out = (answer_t){.err = (rf_err_t)m->header.err};
    size_t head = m->size < sizeof out->done ? m->size : sizeof out->done;
    memcpy(&out->done, m->body, head);
    out->size = m->size - head;
    memcpy(out->bytes, m->body + head, out->size);
    return true;
}

static answer_t change(world_t *w, test_client_t *c, rf_client_registry_t body, const char *name,
                       const char *value)
{
    answer_t out;
    uint32_t tag = send(w, c, RF_CLIENT_REGISTRY_CHANGE, body, name, value);
    world_settle(w);
    rf_assert(fetch(c, tag, &out));
    return out;
}

static rf_err_t put(world_t *w, test_client_t *c, const char *name, const char *value)
{
    return change(w, c, body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY), name, value).err;
}

/* How many objects there are at that monitor; the first's value and entry. */
static unsigned look(world_t *w, test_client_t *c, uint16_t what, uint8_t kind, uint16_t flags,
                     const char *name, rf_client_registry_entry_t *entry, char *value)
{
    rf_client_registry_t body = body_of(what, kind);
    rf_client_registry_page_t page;
    rf_client_registry_entry_t e;
    body.flags = flags;
    uint32_t tag = send(w, c, RF_CLIENT_REGISTRY_READ, body, name, "");
    world_settle(w);
    const message_t *m = world_reply(c, tag);
    rf_assert(m && m->header.err == RF_OK);
    memcpy(&page, m->body, sizeof page);
    if (page.n == 0) return 0;
    memcpy(&e, m->body + sizeof page, sizeof e);
    if (entry) *entry = e;
    if (value) {
        memcpy(value, m->body + sizeof page + sizeof e + e.name_size, e.value_size);
        value[e.value_size] = 0;
    }
    return page.n;
}

static uint32_t acquire(world_t *w, test_client_t *c, const char *name, uint64_t timeout_ns)
{
    rf_client_registry_t body = body_of(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
    body.timeout_ns = timeout_ns;
    uint32_t tag = send(w, c, RF_CLIENT_REGISTRY_CHANGE, body, name, "");
    world_settle(w);
    return tag;
}

static void keys_are_everywhere(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 1);
    world_form(w);
    rf_domain_t domain;
    test_client_t *c = world_domain_on(w, 1, &domain);
    char value[600];
    rf_client_registry_entry_t e;
    assert_int_equal(put(w, c, "a/1", "one"), RF_OK);
    assert_int_equal(put(w, c, "a/2", "two"), RF_OK);
    rf_client_registry_t sequence = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    sequence.flags = RF_REGISTRY_SEQUENTIAL;
    answer_t a = change(w, c, sequence, "a/s-", "");
    assert_int_equal(a.err, RF_OK);
    assert_int_equal(a.size, 4 + 16);
    for (rf_core_t core = 0; core < 4; core++) {
        test_client_t *node = world_node_client(w, core);
        for (uint16_t flags = 0; flags <= RF_REGISTRY_LINEARIZABLE; flags += RF_REGISTRY_LINEARIZABLE) {
            assert_int_equal(look(w, node, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, flags, "a/2", &e, value),
                             1);
            assert_string_equal(value, "two");
            assert_int_equal(look(w, node, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, flags, "a/", NULL, value),
                             3);
            assert_string_equal(value, "one");
            assert_int_equal(look(w, node, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, flags, "a/3", NULL, NULL),
                             0);
        }
    }
    /* A linearizable read sees what was agreed before it was asked, at a monitor that has heard nothing of it yet. */
    test_client_t *far = world_node_client(w, 3);
    for (unsigned i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        rf_client_registry_t body = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
        uint32_t tag = send(w, c, RF_CLIENT_REGISTRY_CHANGE, body, "a/1", text);
        while (!world_reply(c, tag)) world_deliver(w, 1);
        assert_int_equal(
            look(w, far, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, RF_REGISTRY_LINEARIZABLE, "a/1", NULL, value),
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
        assert_int_equal(put(w, c, name, large), RF_OK);
    }
    world_forget_inbox(c);
    unsigned seen = 0;
    char from[128] = "";
    for (bool more = true; more;) {
        rf_client_registry_page_t page;
        uint32_t tag = send(w, c, RF_CLIENT_REGISTRY_READ, body_of(RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY),
                            "page/", from);
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

static void what_a_dead_core_held(void **state)
{
    (void)state;
    world_t *w = world_new(2, 2, 3);
    world_form(w);
    rf_domain_t a, b, d;
    answer_t got;
    test_client_t *holder = world_domain_on(w, 3, &a), *next = world_domain_on(w, 1, &b),
                  *last = world_domain_on(w, 2, &d);
    rf_client_registry_t here = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    here.flags = RF_REGISTRY_EPHEMERAL;
    assert_int_equal(change(w, holder, here, "here", "core 3").err, RF_OK);
    rf_assert(fetch(holder, acquire(w, holder, "lock", UINT64_MAX), &got) && got.err == RF_OK);
    uint64_t token = got.done.revision;
    uint32_t second = acquire(w, next, "lock", UINT64_MAX), third = acquire(w, last, "lock", UINT64_MAX);
    assert_false(fetch(next, second, &got));
    rf_client_registry_t watch = body_of(RF_REGISTRY_KEY, RF_REGISTRY_KIND_KEY);
    uint32_t watched = send(w, next, RF_CLIENT_REGISTRY_WATCH, watch, "here", "");
    world_settle(w);
    world_kill(w, 3);
    world_settle(w);
    assert_true(fetch(next, second, &got));
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
    assert_int_equal(look(w, next, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "here", NULL, NULL), 0);
    /* A program that just ends, too. */
    assert_false(fetch(last, third, &got));
    world_exit_dispatcher(w, 1, b, 0, 0);
    world_settle(w);
    assert_true(fetch(last, third, &got));
    assert_true(got.err == RF_OK && got.done.revision > token);
    rf_client_registry_t release = body_of(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
    release.number = got.done.revision;
    assert_int_equal(change(w, last, release, "lock", "").err, RF_OK);
    assert_int_equal(change(w, last, release, "lock", "").err, RF_ERR_NOT_FOUND);
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
    rf_assert(fetch(holder, acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
    uint32_t tag = acquire(w, waiter, "shared/l", 50 * RF_NS_PER_MS);
    world_pass(w, 40 * RF_NS_PER_MS);
    assert_false(fetch(waiter, tag, &got));
    world_pass(w, 20 * RF_NS_PER_MS);
    assert_true(fetch(waiter, tag, &got));
    assert_int_equal(got.err, RF_ERR_TIMEOUT);
    tag = acquire(w, waiter, "shared/l", UINT64_MAX);
    rf_client_target_t target = {.domain = tag};
    world_send(w, waiter, RF_CLIENT_CANCEL, &target, sizeof target, 0);
    world_settle(w);
    assert_true(fetch(waiter, tag, &got));
    assert_int_equal(got.err, RF_ERR_CANCELLED);
    rf_client_registry_t try = body_of(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
    try.flags = RF_REGISTRY_TRY;
    assert_int_equal(change(w, waiter, try, "shared/l", "").err, RF_ERR_AGAIN);
    rf_client_registry_entry_t e;
    assert_int_equal(look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL), 1);
    assert_true(e.waiting == 0 && e.domain == a);
    /* Grant and time-out at the same moment, in any order: the lock is held exactly when that was told. */
    for (unsigned i = 0; i < 30; i++) {
        world_forget_inbox(waiter);
        world_forget_inbox(holder);
        rf_client_registry_t release = body_of(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
        look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL);
        release.number = e.revision;
        tag = acquire(w, waiter, "shared/l", RF_NS_PER_MS);
        assert_false(fetch(waiter, tag, &got));
        w->now_ns += i % 3 * RF_NS_PER_MS;
        send(w, holder, RF_CLIENT_REGISTRY_CHANGE, release, "shared/l", "");
        target.domain = tag;
        world_send(w, waiter, RF_CLIENT_CANCEL, &target, sizeof target, 0);
        world_settle(w);
        assert_true(fetch(waiter, tag, &got));
        bool held =
            look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL) && e.domain == b;
        assert_int_equal(held, got.err == RF_OK);
        if (held) {
            release.number = got.done.revision;
            assert_int_equal(change(w, waiter, release, "shared/l", "").err, RF_OK);
        }
        tag = acquire(w, holder, "shared/l", UINT64_MAX);
        assert_true(fetch(holder, tag, &got) && got.err == RF_OK);
    }
    world_free(w);
}

static void sessions_own_for_a_command(void **state)
{
    (void)state;
    world_t *w = world_new(3, 1, 5);
    world_form(w);
    test_client_t *node = world_node_client(w, 1), *other = world_node_client(w, 0);
    rf_client_session_t s, t;
    answer_t got;
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_OPEN, NULL, 0, &s, sizeof s), RF_OK);
    assert_int_equal(world_ask(w, other, RF_CLIENT_SESSION_OPEN, NULL, 0, &t, sizeof t), RF_OK);
    rf_client_registry_t body = body_of(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
    assert_int_equal(change(w, node, body, "l", "").err, RF_ERR_INVALID); /* whose? */
    body.session = t.session;
    assert_int_equal(change(w, node, body, "l", "").err, RF_ERR_SESSION); /* another's */
    body.session = s.session;
    assert_int_equal(change(w, node, body, "l", "").err, RF_OK);
    body.session = t.session;
    uint32_t tag = send(w, other, RF_CLIENT_REGISTRY_CHANGE, body, "l", "");
    world_settle(w);
    assert_false(fetch(other, tag, &got));
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_END, &s, sizeof s, NULL, 0), RF_OK);
    assert_true(fetch(other, tag, &got) && got.err == RF_OK);
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_END, &s, sizeof s, NULL, 0), RF_ERR_SESSION);
    /* The link ends with a command on its way: everything goes all the same. */
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_OPEN, NULL, 0, &s, sizeof s), RF_OK);
    rf_client_registry_t here = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    here.flags = RF_REGISTRY_EPHEMERAL;
    here.session = s.session;
    send(w, node, RF_CLIENT_REGISTRY_CHANGE, here, "here", "");
    world_client_leave(w, node);
    world_settle(w);
    assert_int_equal(look(w, other, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "", NULL, NULL), 0);
    assert_int_equal(w->monitor[1]->n_sessions, 0);
    /* A core takes its sessions with it. */
    node = world_node_client(w, 1);
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_OPEN, NULL, 0, &s, sizeof s), RF_OK);
    here.session = s.session;
    assert_int_equal(change(w, node, here, "here", "").err, RF_OK);
    assert_int_equal(look(w, other, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "", NULL, NULL), 1);
    world_kill_node(w, 1);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_int_equal(look(w, other, RF_REGISTRY_LIST, RF_REGISTRY_KIND_KEY, 0, "", NULL, NULL), 0);
    world_free(w);
}

static void watchers_miss_nothing_unknowingly(void **state)
{
    (void)state;
    world_t *w = world_new(1, 2, 6);
    world_form(w);
    test_client_t *c = world_node_client(w, 0), *watcher = world_node_client(w, 1);
    rf_client_registry_t watch = body_of(RF_REGISTRY_PREFIX, RF_REGISTRY_KIND_KEY);
    watch.number = 1;
    uint64_t last = 0;
    unsigned seen = 0;
    for (unsigned i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s/%u", i % 2 ? "w" : "other", i);
        assert_int_equal(put(w, c, name, "value"), RF_OK);
        world_forget_inbox(c);
    }
    for (bool more = true; more;) {
        rf_client_registry_events_t events;
        rf_client_registry_event_t event;
        uint32_t tag = send(w, watcher, RF_CLIENT_REGISTRY_WATCH, watch, "w/", "");
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
        assert_int_equal(put(w, c, "w/again", "value"), RF_OK);
        world_forget_inbox(c);
    }
    rf_client_registry_events_t events;
    uint32_t tag = send(w, watcher, RF_CLIENT_REGISTRY_WATCH, watch, "w/", "");
    world_settle(w);
    memcpy(&events, world_reply(watcher, tag)->body, sizeof events);
    assert_int_equal(events.missed, 1);
    assert_true(events.next > watch.number);
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
    rf_assert(fetch(holder, acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
    rf_client_registry_t release = body_of(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
    release.number = got.done.revision;
    assert_int_equal(put(w, waiter, "k", "v"), RF_OK);
    uint32_t tag = acquire(w, waiter, "shared/l", 5 * RF_NS_PER_S);
    world_stall(w, 0, true);
    world_stall(w, 1, true);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_true(fetch(waiter, tag, &got));
    assert_int_equal(got.err, RF_ERR_UNKNOWN_OUTCOME);
    assert_int_equal(put(w, waiter, "k", "w"), RF_ERR_NO_QUORUM);
    char value[600];
    assert_int_equal(look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "k", NULL, value), 1);
    assert_string_equal(value, "v");
    tag = send(w, waiter, RF_CLIENT_REGISTRY_READ,
               (rf_client_registry_t){.what = RF_REGISTRY_GET, .kind = 1, .flags = RF_REGISTRY_LINEARIZABLE},
               "k", "");
    world_pass(w, 10 * RF_NS_PER_S);
    assert_true(fetch(waiter, tag, &got));
    assert_true(got.err == RF_ERR_NO_QUORUM || got.err == RF_ERR_TIMEOUT);
    world_stall(w, 0, false);
    world_stall(w, 1, false);
    world_pass(w, 10 * RF_NS_PER_S);
    assert_int_equal(change(w, holder, release, "shared/l", "").err, RF_OK);
    world_pass(w, 5 * RF_NS_PER_S);
    assert_int_equal(look(w, waiter, RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, RF_REGISTRY_LINEARIZABLE,
                          "shared/l", NULL, NULL),
                     0);
    assert_int_equal(put(w, waiter, "k", "w"), RF_OK);
    world_check(w);
    world_free(w);
}

/* How many of the waiters were told that they have the lock, and nobody anything else. */
static unsigned grants(test_client_t *const *waiters, const uint32_t *tags, unsigned n)
{
    unsigned granted = 0;
    for (unsigned i = 0; i < n; i++) {
        answer_t got;
        if (!fetch(waiters[i], tags[i], &got)) continue;
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
        rf_assert(fetch(holder, acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
        for (rf_core_t core = 2; core < 6; core++) {
            waiters[core - 2] = world_domain_on(w, core, &domain);
            tags[core - 2] = acquire(w, waiters[core - 2], "shared/l", UINT64_MAX);
        }
        assert_int_equal(grants(waiters, tags, 4), 0);
        assert_int_equal(w->monitor[5]->agree.state.leader.core, 0);
        rf_client_registry_t release = body_of(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
        release.number = got.done.revision;
        uint32_t released = send(w, holder, RF_CLIENT_REGISTRY_CHANGE, release, "shared/l", "");
        world_deliver(w, delivered);
        world_kill(w, 0);
        world_pass(w, 10 * RF_NS_PER_S);
        assert_true(fetch(holder, released, &got));
        if (got.err != RF_OK) { /* it asks again: the token says whether it had been released */
            assert_true(got.err == RF_ERR_NO_QUORUM || got.err == RF_ERR_UNKNOWN_OUTCOME);
            rf_err_t err = change(w, holder, release, "shared/l", "").err;
            assert_true(err == RF_OK || err == RF_ERR_NOT_FOUND);
        }
        world_pass(w, RF_NS_PER_S);
        assert_int_equal(grants(waiters, tags, 4), 1);
        assert_true(fetch(waiters[0], tags[0], &got)); /* first come, first served */
        rf_client_registry_entry_t e;
        assert_int_equal(look(w, waiters[3], RF_REGISTRY_GET, RF_REGISTRY_KIND_LOCK, 0, "shared/l", &e, NULL),
                         1);
        assert_int_equal(e.revision, got.done.revision);
        assert_int_equal(e.waiting, 3);
        world_check(w);
        world_free(w);
    }
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
    rf_client_session_t session;
    assert_int_equal(world_ask(w, lost, RF_CLIENT_SESSION_OPEN, NULL, 0, &session, sizeof session), RF_OK);
    rf_client_registry_t here = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    here.flags = RF_REGISTRY_EPHEMERAL;
    here.session = session.session;
    assert_int_equal(change(w, lost, here, "here", "").err, RF_OK);
    world_kill(w, 2);
    world_pass(w, 20 * RF_NS_PER_S);
    assert_int_equal(look(w, holder, RF_REGISTRY_GET, RF_REGISTRY_KIND_KEY, 0, "here", NULL, NULL), 0);
    for (unsigned i = 0; i < 2 * AGREE_LOG_MAX; i++) {
        snprintf(name, sizeof name, "many/%u", i);
        assert_int_equal(put(w, holder, name, "value"), RF_OK);
        world_forget_inbox(holder);
    }
    rf_assert(fetch(holder, acquire(w, holder, "shared/l", UINT64_MAX), &got) && got.err == RF_OK);
    rf_client_registry_t release = body_of(RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK);
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
    rf_client_session_t again;
    assert_int_equal(world_ask(w, node, RF_CLIENT_SESSION_OPEN, NULL, 0, &again, sizeof again), RF_OK);
    assert_true(again.session != session.session);
    assert_int_equal(change(w, node, here, "here", "").err, RF_ERR_SESSION);
    here.session = again.session;
    assert_int_equal(change(w, node, here, "here", "").err, RF_OK);
    uint32_t tag = acquire(w, waiter, "shared/l", UINT64_MAX);
    assert_false(fetch(waiter, tag, &got));
    assert_int_equal(change(w, holder, release, "shared/l", "").err, RF_OK);
    assert_true(fetch(waiter, tag, &got) && got.err == RF_OK);
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
    rf_assert(fetch(holder, acquire(w, holder, "l", UINT64_MAX), &got) && got.err == RF_OK);
    uint32_t tag = acquire(w, waiter, "l", UINT64_MAX);
    rf_client_registry_t body = body_of(RF_REGISTRY_WAIT, RF_REGISTRY_KIND_BARRIER);
    body.n = 2;
    uint32_t at_barrier = send(w, waiter, RF_CLIENT_REGISTRY_CHANGE, body, "b", "");
    rf_client_registry_t watch = body_of(RF_REGISTRY_KEY, RF_REGISTRY_KIND_KEY);
    uint32_t watched = send(w, waiter, RF_CLIENT_REGISTRY_WATCH, watch, "k", "");
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

static void bad_requests(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 8);
    world_form(w);
    test_client_t *c = world_node_client(w, 0);
    rf_client_registry_t body = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    assert_int_equal(change(w, c, body, "", "").err, RF_ERR_INVALID);
    assert_int_equal(change(w, c, body, "a b", "").err, RF_ERR_INVALID);
    body.flags = 8; /* privileged: not the client's to say */
    assert_int_equal(change(w, c, body, "machine/x", "").err, RF_ERR_INVALID);
    body = body_of(RF_REGISTRY_POP + 1, RF_REGISTRY_KIND_KEY);
    assert_int_equal(change(w, c, body, "x", "").err, RF_ERR_INVALID);
    body = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    memset(body.user, 'u', sizeof body.user);
    assert_int_equal(change(w, c, body, "x", "").err, RF_ERR_INVALID);
    body = body_of(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    body.name_size = 100;
    assert_int_equal(world_ask(w, c, RF_CLIENT_REGISTRY_CHANGE, &body, sizeof body, NULL, 0), RF_ERR_INVALID);
    assert_int_equal(world_ask(w, c, RF_CLIENT_REGISTRY_READ, &body, sizeof body, NULL, 0), RF_ERR_INVALID);
    assert_int_equal(world_ask(w, c, RF_CLIENT_REGISTRY_WATCH, &body, sizeof body, NULL, 0), RF_ERR_INVALID);
    snprintf(body.user, sizeof body.user, "root");
    assert_int_equal(change(w, c, body, "machine/x", "").err, RF_OK);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_everywhere),
        cmocka_unit_test(lists_come_in_pages),
        cmocka_unit_test(what_a_dead_core_held),
        cmocka_unit_test(waits_end_by_agreement),
        cmocka_unit_test(sessions_own_for_a_command),
        cmocka_unit_test(watchers_miss_nothing_unknowingly),
        cmocka_unit_test(without_a_quorum),
        cmocka_unit_test(the_leader_dies_while_they_wait),
        cmocka_unit_test(who_comes_back_has_it_all),
        cmocka_unit_test(a_snapshot_hides_the_grant),
        cmocka_unit_test(bad_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
