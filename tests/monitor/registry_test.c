/* The registry as a pure state machine: its rules one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "registry_bench.h"

#include <stdio.h>
#include <string.h>

/* A wait of `domain`, numbered; the number is its cookie too. */
static rf_err_t line_up(bench_t *b, enum registry_op op, registry_kind_t kind, const char *name,
                        uint64_t domain, uint32_t n, uint16_t flags, uint64_t *value)
{
    registry_command_t c = bench_command(op, kind, domain);
    c.n = n;
    c.flags = flags;
    c.wait = ++b->waits;
    c.cookie = (uint32_t)c.wait;
    return bench_apply(b, &c, name, NULL, NULL, value);
}

static rf_err_t release(bench_t *b, registry_kind_t kind, const char *name, uint64_t domain, uint64_t token)
{
    registry_command_t c = bench_command(REGISTRY_RELEASE, kind, domain);
    c.number = token;
    return bench_apply(b, &c, name, NULL, NULL, NULL);
}

static void keys(void **state)
{
    (void)state;
    bench_t b;
    uint64_t first, second, r;
    bench_open(&b, &bench_small, 1);
    assert_int_equal(bench_put(&b, "a/b", "1", &first), RF_OK);
    assert_int_equal(bench_put(&b, "a/b", "two", &second), RF_OK);
    assert_true(second > first && bench_has(&b, "a/b", "two"));
    registry_entry_t e;
    assert_true(registry_get(b.r, REGISTRY_KEY, "a/b", 3, &e));
    assert_int_equal(e.version, 2);
    assert_int_equal(e.created, first);
    assert_int_equal(e.revision, second);
    assert_string_equal(e.user, "ann");
    assert_int_equal(bench_put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_ABSENT, 0, NULL, NULL),
                     RF_ERR_EXISTS);
    assert_int_equal(bench_put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_REVISION, first, NULL, NULL),
                     RF_ERR_BUSY);
    assert_int_equal(bench_put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_VALUE, 0, "tw", NULL),
                     RF_ERR_BUSY);
    assert_int_equal(bench_put_as(&b, "ann", "none", "x", 0, 0, REGISTRY_IF_VERSION, 1, NULL, NULL),
                     RF_ERR_NOT_FOUND);
    assert_int_equal(bench_put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_VALUE, 0, "two", &r), RF_OK);
    assert_int_equal(bench_put_as(&b, "ann", "a/b", "", 0, 0, REGISTRY_IF_REVISION, r, NULL, NULL), RF_OK);
    assert_int_equal(bench_put_as(&b, "ann", "a/b", "y", 0, 0, REGISTRY_IF_VERSION, 4, NULL, NULL), RF_OK);
    assert_true(bench_has(&b, "a/b", "y"));
    /* In sequence: the name is what the revision makes of it. */
    char name[64];
    assert_int_equal(bench_put_as(&b, "ann", "job-", "", 0, REGISTRY_SEQUENTIAL, 0, 0, NULL, &r), RF_OK);
    snprintf(name, sizeof name, "job-%016llu", (unsigned long long)r);
    assert_true(bench_has(&b, name, ""));
    /* In order, by prefix. */
    const char *all[] = {"p/1", "p/10", "p/2", "p/3/x"};
    for (unsigned i = 4; i-- > 0;) assert_int_equal(bench_put(&b, all[i], all[i], NULL), RF_OK);
    assert_int_equal(bench_put(&b, "p", "", NULL), RF_OK);
    assert_int_equal(bench_put(&b, "p0", "", NULL), RF_OK);
    char from[REGISTRY_NAME_MAX + 2] = "";
    size_t from_size = 0;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(registry_next(b.r, REGISTRY_KEY, "p/", 2, from, from_size, &e));
        assert_string_equal(e.name, all[i]);
        from_size = e.name_size + 1u;
        memcpy(from, e.name, from_size);
    }
    assert_false(registry_next(b.r, REGISTRY_KEY, "p/", 2, from, from_size, &e));
    registry_command_t c = bench_command(REGISTRY_DELETE, REGISTRY_KEY, 0);
    assert_int_equal(bench_apply(&b, &c, "p", NULL, NULL, &r), RF_OK);
    assert_int_equal(r, registry_revision(b.r));
    assert_int_equal(bench_apply(&b, &c, "p", NULL, NULL, NULL), RF_ERR_NOT_FOUND);
    c.kind = REGISTRY_LOCK;
    assert_int_equal(bench_apply(&b, &c, "p", NULL, NULL, NULL), RF_ERR_INVALID);
    assert_int_equal(bench_put(&b, "", "", NULL), RF_ERR_INVALID);
    assert_int_equal(bench_put(&b, "a b", "", NULL), RF_ERR_INVALID);
    bench_close(&b);
}

static void permission_and_quotas(void **state)
{
    (void)state;
    bench_t b;
    bench_open(&b, &bench_small, 2);
    assert_int_equal(bench_put(&b, "mine", "1", NULL), RF_OK);
    assert_int_equal(bench_put_as(&b, "bob", "mine", "2", 0, 0, 0, 0, NULL, NULL), RF_ERR_PERMISSION);
    assert_int_equal(bench_put_as(&b, "bob", "mine", "2", 0, REGISTRY_PRIVILEGED, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(bench_put(&b, "machine/x", "", NULL), RF_ERR_PERMISSION);
    assert_int_equal(bench_put_as(&b, "root", "machine/x", "", 0, REGISTRY_PRIVILEGED, 0, 0, NULL, NULL),
                     RF_OK);
    assert_int_equal(bench_put(&b, "shared/x", "ann", NULL), RF_OK);
    assert_int_equal(bench_put_as(&b, "bob", "shared/x", "bob", 0, 0, 0, 0, NULL, NULL), RF_OK);
    assert_true(bench_has(&b, "shared/x", "bob"));
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_LOCK, "lock", 7, 1, 0, NULL), RF_OK);
    registry_command_t c = bench_command(REGISTRY_ACQUIRE, REGISTRY_LOCK, 8);
    c.wait = 99;
    snprintf(c.user, sizeof c.user, "bob");
    assert_int_equal(bench_apply(&b, &c, "lock", NULL, NULL, NULL), RF_ERR_PERMISSION);
    /* Objects: a user's quota, then the table. */
    char name[32];
    unsigned made = 0;
    rf_err_t err;
    do {
        snprintf(name, sizeof name, "k%u", made++);
    } while ((err = bench_put(&b, name, "", NULL)) == RF_OK);
    assert_int_equal(err, RF_ERR_LIMIT);
    registry_usage_t usage;
    registry_usage(b.r, &usage);
    assert_true(usage.objects < bench_small.objects_max);
    made = 0;
    do {
        snprintf(name, sizeof name, "b%u", made++);
    } while ((err = bench_put_as(&b, "bob", name, "", 0, 0, 0, 0, NULL, NULL)) == RF_OK);
    assert_int_equal(err, RF_ERR_LIMIT);
    registry_usage(b.r, &usage);
    assert_int_equal(usage.objects, bench_small.objects_max);
    bench_close(&b);
    /* Values; and users. */
    bench_open(&b, &bench_small, 3);
    char large[REGISTRY_VALUE_MAX + 1];
    memset(large, 'v', sizeof large - 1);
    large[sizeof large - 1] = 0;
    for (made = 0;; made++) {
        snprintf(name, sizeof name, "k%u", made);
        if (bench_put(&b, name, large, NULL) != RF_OK) break;
    }
    assert_int_equal(made, bench_small.user_blocks_max / (REGISTRY_VALUE_MAX / REGISTRY_BLOCK));
    assert_int_equal(bench_put(&b, "k0", large, NULL), RF_OK); /* replacing needs none */
    for (made = 0; made < 8; made++) {
        snprintf(name, sizeof name, "user%u", made);
        if (bench_put_as(&b, name, name, "", 0, 0, 0, 0, NULL, NULL) != RF_OK) break;
    }
    assert_int_equal(made, bench_small.users_max - 1);
    bench_close(&b);
}

static void ephemeral(void **state)
{
    (void)state;
    bench_t b;
    bench_open(&b, &bench_small, 4);
    assert_int_equal(bench_put_as(&b, "ann", "here", "", 0, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL),
                     RF_ERR_INVALID);
    assert_int_equal(bench_put_as(&b, "ann", "here", "a", 5, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(bench_put_as(&b, "ann", "here", "b", 5, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(bench_put_as(&b, "ann", "here", "c", 6, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL),
                     RF_ERR_EXISTS);
    assert_int_equal(bench_put_as(&b, "ann", "other", "", 6, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(bench_put(&b, "kept", "", NULL), RF_OK);
    registry_owner_ended(b.r, 5, 0);
    assert_false(bench_has(&b, "here", "b"));
    assert_true(bench_has(&b, "other", "") && bench_has(&b, "kept", ""));
    registry_owner_ended(b.r, 5, 0);
    /* A session goes with its core. */
    registry_command_t c = bench_command(REGISTRY_ACQUIRE, REGISTRY_LOCK, 0);
    c.session = 3ull << 48 | 1;
    c.wait = 1;
    assert_int_equal(bench_apply(&b, &c, "lock", NULL, NULL, NULL), RF_OK);
    registry_core_ended(b.r, 2, 0);
    registry_entry_t e;
    assert_true(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e));
    /* While it may still run it keeps what it holds, and stands in no line; its next incarnation's sessions are others. */
    registry_command_t again = c;
    again.wait = 2;
    assert_int_equal(bench_apply(&b, &again, "lock", NULL, NULL, NULL), RF_OK);
    assert_true(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e) && e.waiting == 1);
    assert_false(registry_core_leaves(b.r, 2));
    assert_true(registry_core_leaves(b.r, 3));
    assert_true(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e) && e.waiting == 0 && e.session == c.session);
    again.session = registry_number_of(3, 2, 1);
    assert_int_equal(bench_apply(&b, &again, "lock", NULL, NULL, NULL), RF_OK);
    registry_core_ended(b.r, 3, 2);
    assert_true(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e) && e.session == again.session);
    registry_core_ended(b.r, 3, 0);
    assert_false(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e));
    bench_close(&b);
}

static void locks(void **state)
{
    (void)state;
    bench_t b;
    uint64_t first, token;
    bench_open(&b, &bench_small, 5);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_LOCK, "l", 1, 0, 0, &first), RF_OK);
    assert_true(first > 0 && b.n_answers == 1 && b.answers[0].revision == first);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_LOCK, "l", 2, 0, REGISTRY_TRY, &token),
                     RF_ERR_BUSY);
    for (uint64_t domain = 2; domain <= 4; domain++) {
        assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_LOCK, "l", domain, 0, 0, &token), RF_OK);
        assert_int_equal(token, 0);
        assert_int_equal(b.n_answers, 0);
    }
    assert_int_equal(release(&b, REGISTRY_LOCK, "l", 2, first), RF_ERR_NOT_FOUND); /* not the holder */
    assert_int_equal(release(&b, REGISTRY_LOCK, "l", 1, first + 1), RF_ERR_NOT_FOUND);
    assert_int_equal(release(&b, REGISTRY_LOCK, "l", 1, first), RF_OK);
    assert_int_equal(b.n_answers, 1);
    assert_int_equal(b.answers[0].wait, 3); /* domain 2's */
    assert_true(b.answers[0].revision > first);
    /* The third in line gives up; the holder dies: the fourth has it. */
    registry_command_t c = bench_command(REGISTRY_CANCEL, 0, 3);
    c.wait = 4;
    assert_int_equal(bench_apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
    assert_int_equal(token, 1);
    assert_int_equal(bench_apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
    assert_int_equal(token, 0);
    b.n_answers = 0;
    registry_owner_ended(b.r, 2, 0);
    assert_int_equal(b.n_answers, 1);
    assert_int_equal(b.answers[0].wait, 5);
    token = b.answers[0].revision;
    uint64_t held;
    assert_int_equal(registry_wait_state(b.r, 5, &held), REGISTRY_WAIT_HELD);
    assert_int_equal(held, token);
    /* A cancel that comes too late takes nothing back, unless it says so. */
    c.domain = 4;
    c.wait = 5;
    assert_int_equal(bench_apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
    assert_int_equal(token, 0);
    c.flags = REGISTRY_GIVE_BACK;
    assert_int_equal(bench_apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
    assert_int_equal(token, 1);
    registry_usage_t usage;
    registry_usage(b.r, &usage);
    assert_int_equal(usage.objects + usage.claims + usage.users, 0);
    bench_close(&b);
}

static void semaphores_and_barriers(void **state)
{
    (void)state;
    bench_t b;
    uint64_t value, tokens[3];
    bench_open(&b, &bench_small, 6);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 1, 1, 0, NULL), RF_ERR_NOT_FOUND);
    registry_command_t c = bench_command(REGISTRY_CREATE, REGISTRY_SEMAPHORE, 0);
    c.n = 3;
    assert_int_equal(bench_apply(&b, &c, "s", NULL, NULL, NULL), RF_OK);
    assert_int_equal(bench_apply(&b, &c, "s", NULL, NULL, NULL), RF_OK);
    c.n = 4;
    assert_int_equal(bench_apply(&b, &c, "s", NULL, NULL, NULL), RF_ERR_EXISTS);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 1, 4, 0, NULL), RF_ERR_INVALID);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 1, 1, 0, &tokens[i]), RF_OK);
    assert_true(tokens[0] > 0 && tokens[1] > tokens[0]);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 2, 3, 0, &value), RF_OK);
    assert_int_equal(value, 0);
    /* One is free, but somebody stands in line for three. */
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 3, 1, 0, &value), RF_OK);
    assert_int_equal(value, 0);
    assert_int_equal(release(&b, REGISTRY_SEMAPHORE, "s", 1, tokens[0]), RF_OK);
    assert_int_equal(b.n_answers, 0);
    b.n_answers = 0;
    registry_owner_ended(b.r, 2, 0); /* who wanted three is gone */
    assert_int_equal(b.n_answers, 2);
    assert_int_equal(b.answers[0].err, RF_ERR_PEER_DEAD);
    assert_int_equal(b.answers[1].err, RF_OK);
    c = bench_command(REGISTRY_DELETE, REGISTRY_SEMAPHORE, 0);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 4, 2, 0, &value), RF_OK);
    assert_int_equal(bench_apply(&b, &c, "s", NULL, NULL, NULL), RF_OK);
    assert_int_equal(b.n_answers, 1);
    assert_int_equal(b.answers[0].err, RF_ERR_CANCELLED);

    uint64_t generation = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t domain = 1; domain <= 3; domain++) {
            assert_int_equal(line_up(&b, REGISTRY_WAIT, REGISTRY_BARRIER, "b", domain, 3, 0, &value), RF_OK);
            assert_int_equal(value > 0, domain == 3);
            assert_int_equal(b.n_answers, domain == 3 ? 3 : 0);
        }
        assert_true(value > generation);
        for (unsigned i = 0; i < 3; i++) assert_int_equal(b.answers[i].revision, value);
        generation = value;
    }
    assert_int_equal(line_up(&b, REGISTRY_WAIT, REGISTRY_BARRIER, "b", 1, 3, 0, &value), RF_OK);
    assert_int_equal(line_up(&b, REGISTRY_WAIT, REGISTRY_BARRIER, "b", 2, 2, 0, &value), RF_ERR_EXISTS);
    registry_owner_ended(b.r, 1, 0); /* one who left does not count any more */
    assert_int_equal(line_up(&b, REGISTRY_WAIT, REGISTRY_BARRIER, "b", 2, 2, 0, &value), RF_OK);
    assert_int_equal(value, 0);
    bench_close(&b);
}

static rf_err_t push(bench_t *b, const char *name, const char *message)
{
    registry_command_t c = bench_command(REGISTRY_PUSH, REGISTRY_QUEUE, 0);
    c.value_size = (uint16_t)strlen(message);
    return bench_apply(b, &c, name, message, NULL, NULL);
}

static void queues(void **state)
{
    (void)state;
    bench_t b;
    uint64_t value;
    bench_open(&b, &bench_small, 7);
    registry_command_t c = bench_command(REGISTRY_CREATE, REGISTRY_QUEUE, 9);
    c.n = 2;
    c.flags = REGISTRY_EPHEMERAL;
    assert_int_equal(push(&b, "q", "x"), RF_ERR_NOT_FOUND);
    assert_int_equal(bench_apply(&b, &c, "q", NULL, NULL, NULL), RF_OK);
    assert_int_equal(line_up(&b, REGISTRY_POP, REGISTRY_QUEUE, "q", 1, 0, REGISTRY_TRY, NULL), RF_ERR_BUSY);
    assert_int_equal(push(&b, "q", "one"), RF_OK);
    assert_int_equal(push(&b, "q", "two"), RF_OK);
    assert_int_equal(push(&b, "q", "three"), RF_ERR_BUSY);
    assert_int_equal(line_up(&b, REGISTRY_POP, REGISTRY_QUEUE, "q", 1, 0, 0, &value), RF_OK);
    assert_true(value > 0 && b.n_answers == 1 && b.answers[0].size == 3 && memcmp(b.bytes, "one", 3) == 0);
    assert_int_equal(line_up(&b, REGISTRY_POP, REGISTRY_QUEUE, "q", 1, 0, 0, &value), RF_OK);
    assert_int_equal(memcmp(b.bytes, "two", 3), 0);
    for (uint64_t domain = 1; domain <= 2; domain++) {
        assert_int_equal(line_up(&b, REGISTRY_POP, REGISTRY_QUEUE, "q", domain, 0, 0, &value), RF_OK);
        assert_int_equal(value, 0);
    }
    assert_int_equal(push(&b, "q", ""), RF_OK);
    assert_true(b.n_answers == 1 && b.answers[0].wait == 4 && b.answers[0].size == 0);
    b.n_answers = 0;
    registry_owner_ended(b.r, 9, 0); /* whose queue it was */
    assert_int_equal(b.n_answers, 1);
    assert_int_equal(b.answers[0].err, RF_ERR_CANCELLED);
    assert_int_equal(push(&b, "q", "x"), RF_ERR_NOT_FOUND);
    bench_close(&b);
}

static void events(void **state)
{
    (void)state;
    bench_t b;
    registry_event_t e;
    uint64_t next, r;
    bench_open(&b, &bench_small, 8);
    assert_false(registry_event(b.r, 1, "w/", 2, false, &e, &next));
    assert_int_equal(bench_put(&b, "w/1", "a", &r), RF_OK);
    assert_int_equal(bench_put(&b, "elsewhere", "b", NULL), RF_OK);
    assert_int_equal(bench_put_as(&b, "ann", "w/2", "c", 3, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    registry_owner_ended(b.r, 3, 0);
    assert_true(registry_event(b.r, next, "w/", 2, false, &e, &next));
    assert_true(e.revision == r && e.version == 1 && e.value_size == 1 && memcmp(e.name, "w/1", 3) == 0);
    assert_true(registry_event(b.r, next + 1, "w/", 2, false, &e, &next));
    assert_int_equal(e.what, REGISTRY_EVENT_PUT);
    assert_true(registry_event(b.r, next + 1, "w/", 2, false, &e, &next));
    assert_int_equal(e.what, REGISTRY_EVENT_EXPIRED);
    assert_false(registry_event(b.r, next + 1, "w/", 2, false, &e, &next));
    assert_int_equal(next, registry_revision(b.r) + 1);
    assert_false(registry_event(b.r, 1, "w/", 2, true, &e, NULL));
    /* Who falls behind sees where what is left begins. */
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(bench_put(&b, "w/1",
                                   i % 3 ? "short" : "a longer one, so that the bytes wrap at odd places",
                                   NULL),
                         RF_OK);
        uint64_t first = registry_events_first(b.r);
        assert_true(registry_event(b.r, first, "", 0, false, &e, NULL));
        for (uint64_t at = first; registry_event(b.r, at, "", 0, false, &e, NULL); at = e.revision + 1)
            assert_true(e.revision >= first && e.name_size > 0);
    }
    assert_true(registry_events_first(b.r) > next);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),   cmocka_unit_test(permission_and_quotas),   cmocka_unit_test(ephemeral),
        cmocka_unit_test(locks),  cmocka_unit_test(semaphores_and_barriers), cmocka_unit_test(queues),
        cmocka_unit_test(events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
