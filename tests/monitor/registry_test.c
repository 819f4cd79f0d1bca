/* The registry as a pure state machine: its rules one by one, then random commands against a model and other replicas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "monitor/registry.h"

#include "base/assert.h"
#include "base/prng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWERS_MAX 64

typedef struct bench {
    registry_t *r;
    void *memory;
    unsigned n_answers;
    registry_answer_t answers[ANSWERS_MAX]; /* of the last command */
    uint8_t bytes[REGISTRY_VALUE_MAX];      /* of the last message */
    uint64_t waits;
} bench_t;

static const registry_params_t small = {
    .objects_max = 64,
    .claims_max = 48,
    .blocks_max = 96,
    .users_max = 4,
    .events_max = 16,
    .events_bytes = 1024,
    .user_objects_max = 40,
    .user_claims_max = 40,
    .user_blocks_max = 60,
};

static void on_answer(void *context, const registry_answer_t *answer)
{
    bench_t *b = context;
    rf_assert(b->n_answers < ANSWERS_MAX);
    b->answers[b->n_answers++] = *answer;
    if (answer->size > 0) memcpy(b->bytes, answer->bytes, answer->size);
}

static void bench_open(bench_t *b, const registry_params_t *params, uint64_t seed)
{
    registry_params_t p = *params;
    p.seed = seed;
    *b = (bench_t){0};
    size_t size = registry_size(&p);
    rf_assert(size > 0);
    b->memory = malloc(size);
    rf_assert(b->memory && registry_init(b->memory, size, &p, on_answer, b, &b->r) == RF_OK);
}

static void bench_close(bench_t *b)
{
    registry_check(b->r);
    free(b->memory);
}

static size_t encode(const registry_command_t *c, const char *name, const void *value, const void *compare,
                     uint8_t *out)
{
    registry_command_t head = *c;
    if (name) head.name_size = (uint16_t)strlen(name);
    if (head.user[0] == 0) snprintf(head.user, sizeof head.user, "ann");
    size_t at = sizeof head;
    memcpy(out, &head, sizeof head);
    if (name) memcpy(out + at, name, head.name_size);
    at += head.name_size;
    if (head.value_size > 0) memcpy(out + at, value, head.value_size);
    at += head.value_size;
    if (head.compare_size > 0) memcpy(out + at, compare, head.compare_size);
    return at + head.compare_size;
}

static rf_err_t apply(bench_t *b, const registry_command_t *c, const char *name, const void *value,
                      const void *compare, uint64_t *result)
{
    uint8_t bytes[REGISTRY_COMMAND_MAX + 2 * REGISTRY_VALUE_MAX];
    uint64_t ignored;
    b->n_answers = 0;
    rf_err_t err =
        registry_apply(b->r, bytes, encode(c, name, value, compare, bytes), result ? result : &ignored);
    registry_check(b->r);
    return err;
}

static registry_command_t command(enum registry_op op, registry_kind_t kind, uint64_t domain)
{
    return (registry_command_t){.op = (uint16_t)op, .kind = (uint8_t)kind, .domain = domain};
}

static rf_err_t put_as(bench_t *b, const char *user, const char *name, const char *value, uint64_t domain,
                       uint16_t flags, uint8_t condition, uint64_t number, const char *compare,
                       uint64_t *result)
{
    registry_command_t c = command(REGISTRY_PUT, REGISTRY_KEY, domain);
    c.flags = flags;
    c.condition = condition;
    c.number = number;
    c.value_size = (uint16_t)strlen(value);
    c.compare_size = (uint16_t)(compare ? strlen(compare) : 0);
    snprintf(c.user, sizeof c.user, "%s", user);
    return apply(b, &c, name, value, compare, result);
}

static rf_err_t put(bench_t *b, const char *name, const char *value, uint64_t *result)
{
    return put_as(b, "ann", name, value, 0, 0, REGISTRY_ALWAYS, 0, NULL, result);
}

static bool has(bench_t *b, const char *name, const char *value)
{
    registry_entry_t e;
    char held[REGISTRY_VALUE_MAX];
    if (!registry_get(b->r, REGISTRY_KEY, name, strlen(name), &e)) return false;
    registry_value(b->r, &e, held);
    return e.value_size == strlen(value) && memcmp(held, value, e.value_size) == 0;
}

/* A wait of `domain`, numbered; the number is its cookie too. */
static rf_err_t line_up(bench_t *b, enum registry_op op, registry_kind_t kind, const char *name,
                        uint64_t domain, uint32_t n, uint16_t flags, uint64_t *value)
{
    registry_command_t c = command(op, kind, domain);
    c.n = n;
    c.flags = flags;
    c.wait = ++b->waits;
    c.cookie = (uint32_t)c.wait;
    return apply(b, &c, name, NULL, NULL, value);
}

static rf_err_t release(bench_t *b, registry_kind_t kind, const char *name, uint64_t domain, uint64_t token)
{
    registry_command_t c = command(REGISTRY_RELEASE, kind, domain);
    c.number = token;
    return apply(b, &c, name, NULL, NULL, NULL);
}

static void keys(void **state)
{
    (void)state;
    bench_t b;
    uint64_t first, second, r;
    bench_open(&b, &small, 1);
    assert_int_equal(put(&b, "a/b", "1", &first), RF_OK);
    assert_int_equal(put(&b, "a/b", "two", &second), RF_OK);
    assert_true(second > first && has(&b, "a/b", "two"));
    registry_entry_t e;
    assert_true(registry_get(b.r, REGISTRY_KEY, "a/b", 3, &e));
    assert_int_equal(e.version, 2);
    assert_int_equal(e.created, first);
    assert_int_equal(e.revision, second);
    assert_string_equal(e.user, "ann");
    assert_int_equal(put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_ABSENT, 0, NULL, NULL), RF_ERR_EXISTS);
    assert_int_equal(put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_REVISION, first, NULL, NULL),
                     RF_ERR_BUSY);
    assert_int_equal(put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_VALUE, 0, "tw", NULL), RF_ERR_BUSY);
    assert_int_equal(put_as(&b, "ann", "none", "x", 0, 0, REGISTRY_IF_VERSION, 1, NULL, NULL),
                     RF_ERR_NOT_FOUND);
    assert_int_equal(put_as(&b, "ann", "a/b", "x", 0, 0, REGISTRY_IF_VALUE, 0, "two", &r), RF_OK);
    assert_int_equal(put_as(&b, "ann", "a/b", "", 0, 0, REGISTRY_IF_REVISION, r, NULL, NULL), RF_OK);
    assert_int_equal(put_as(&b, "ann", "a/b", "y", 0, 0, REGISTRY_IF_VERSION, 4, NULL, NULL), RF_OK);
    assert_true(has(&b, "a/b", "y"));
    /* In sequence: the name is what the revision makes of it. */
    char name[64];
    assert_int_equal(put_as(&b, "ann", "job-", "", 0, REGISTRY_SEQUENTIAL, 0, 0, NULL, &r), RF_OK);
    snprintf(name, sizeof name, "job-%016llu", (unsigned long long)r);
    assert_true(has(&b, name, ""));
    /* In order, by prefix. */
    const char *all[] = {"p/1", "p/10", "p/2", "p/3/x"};
    for (unsigned i = 4; i-- > 0;) assert_int_equal(put(&b, all[i], all[i], NULL), RF_OK);
    assert_int_equal(put(&b, "p", "", NULL), RF_OK);
    assert_int_equal(put(&b, "p0", "", NULL), RF_OK);
    char from[REGISTRY_NAME_MAX + 2] = "";
    size_t from_size = 0;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(registry_next(b.r, REGISTRY_KEY, "p/", 2, from, from_size, &e));
        assert_string_equal(e.name, all[i]);
        from_size = e.name_size + 1u;
        memcpy(from, e.name, from_size);
    }
    assert_false(registry_next(b.r, REGISTRY_KEY, "p/", 2, from, from_size, &e));
    registry_command_t c = command(REGISTRY_DELETE, REGISTRY_KEY, 0);
    assert_int_equal(apply(&b, &c, "p", NULL, NULL, &r), RF_OK);
    assert_int_equal(r, registry_revision(b.r));
    assert_int_equal(apply(&b, &c, "p", NULL, NULL, NULL), RF_ERR_NOT_FOUND);
    c.kind = REGISTRY_LOCK;
    assert_int_equal(apply(&b, &c, "p", NULL, NULL, NULL), RF_ERR_INVALID);
    assert_int_equal(put(&b, "", "", NULL), RF_ERR_INVALID);
    assert_int_equal(put(&b, "a b", "", NULL), RF_ERR_INVALID);
    bench_close(&b);
}

static void permission_and_quotas(void **state)
{
    (void)state;
    bench_t b;
    bench_open(&b, &small, 2);
    assert_int_equal(put(&b, "mine", "1", NULL), RF_OK);
    assert_int_equal(put_as(&b, "bob", "mine", "2", 0, 0, 0, 0, NULL, NULL), RF_ERR_PERMISSION);
    assert_int_equal(put_as(&b, "bob", "mine", "2", 0, REGISTRY_PRIVILEGED, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(put(&b, "machine/x", "", NULL), RF_ERR_PERMISSION);
    assert_int_equal(put_as(&b, "root", "machine/x", "", 0, REGISTRY_PRIVILEGED, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(put(&b, "shared/x", "ann", NULL), RF_OK);
    assert_int_equal(put_as(&b, "bob", "shared/x", "bob", 0, 0, 0, 0, NULL, NULL), RF_OK);
    assert_true(has(&b, "shared/x", "bob"));
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_LOCK, "lock", 7, 1, 0, NULL), RF_OK);
    registry_command_t c = command(REGISTRY_ACQUIRE, REGISTRY_LOCK, 8);
    c.wait = 99;
    snprintf(c.user, sizeof c.user, "bob");
    assert_int_equal(apply(&b, &c, "lock", NULL, NULL, NULL), RF_ERR_PERMISSION);
    /* Objects: a user's quota, then the table. */
    char name[32];
    unsigned made = 0;
    rf_err_t err;
    do {
        snprintf(name, sizeof name, "k%u", made++);
    } while ((err = put(&b, name, "", NULL)) == RF_OK);
    assert_int_equal(err, RF_ERR_LIMIT);
    registry_usage_t usage;
    registry_usage(b.r, &usage);
    assert_true(usage.objects < small.objects_max);
    made = 0;
    do {
        snprintf(name, sizeof name, "b%u", made++);
    } while ((err = put_as(&b, "bob", name, "", 0, 0, 0, 0, NULL, NULL)) == RF_OK);
    assert_int_equal(err, RF_ERR_LIMIT);
    registry_usage(b.r, &usage);
    assert_int_equal(usage.objects, small.objects_max);
    bench_close(&b);
    /* Values; and users. */
    bench_open(&b, &small, 3);
    char large[REGISTRY_VALUE_MAX + 1];
    memset(large, 'v', sizeof large - 1);
    large[sizeof large - 1] = 0;
    for (made = 0;; made++) {
        snprintf(name, sizeof name, "k%u", made);
        if (put(&b, name, large, NULL) != RF_OK) break;
    }
    assert_int_equal(made, small.user_blocks_max / (REGISTRY_VALUE_MAX / REGISTRY_BLOCK));
    assert_int_equal(put(&b, "k0", large, NULL), RF_OK); /* replacing needs none */
    for (made = 0; made < 8; made++) {
        snprintf(name, sizeof name, "user%u", made);
        if (put_as(&b, name, name, "", 0, 0, 0, 0, NULL, NULL) != RF_OK) break;
    }
    assert_int_equal(made, small.users_max - 1);
    bench_close(&b);
}

static void ephemeral(void **state)
{
    (void)state;
    bench_t b;
    bench_open(&b, &small, 4);
    assert_int_equal(put_as(&b, "ann", "here", "", 0, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_ERR_INVALID);
    assert_int_equal(put_as(&b, "ann", "here", "a", 5, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(put_as(&b, "ann", "here", "b", 5, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(put_as(&b, "ann", "here", "c", 6, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_ERR_EXISTS);
    assert_int_equal(put_as(&b, "ann", "other", "", 6, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
    assert_int_equal(put(&b, "kept", "", NULL), RF_OK);
    registry_owner_ended(b.r, 5, 0);
    assert_false(has(&b, "here", "b"));
    assert_true(has(&b, "other", "") && has(&b, "kept", ""));
    registry_owner_ended(b.r, 5, 0);
    /* A session goes with its core. */
    registry_command_t c = command(REGISTRY_ACQUIRE, REGISTRY_LOCK, 0);
    c.session = 3ull << 48 | 1;
    c.wait = 1;
    assert_int_equal(apply(&b, &c, "lock", NULL, NULL, NULL), RF_OK);
    registry_core_ended(b.r, 2);
    registry_entry_t e;
    assert_true(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e));
    registry_core_ended(b.r, 3);
    assert_false(registry_get(b.r, REGISTRY_LOCK, "lock", 4, &e));
    bench_close(&b);
}

static void locks(void **state)
{
    (void)state;
    bench_t b;
    uint64_t first, token;
    bench_open(&b, &small, 5);
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
    registry_command_t c = command(REGISTRY_CANCEL, 0, 3);
    c.wait = 4;
    assert_int_equal(apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
    assert_int_equal(token, 1);
    assert_int_equal(apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
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
    assert_int_equal(apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
    assert_int_equal(token, 0);
    c.flags = REGISTRY_GIVE_BACK;
    assert_int_equal(apply(&b, &c, NULL, NULL, NULL, &token), RF_OK);
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
    bench_open(&b, &small, 6);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 1, 1, 0, NULL), RF_ERR_NOT_FOUND);
    registry_command_t c = command(REGISTRY_CREATE, REGISTRY_SEMAPHORE, 0);
    c.n = 3;
    assert_int_equal(apply(&b, &c, "s", NULL, NULL, NULL), RF_OK);
    assert_int_equal(apply(&b, &c, "s", NULL, NULL, NULL), RF_OK);
    c.n = 4;
    assert_int_equal(apply(&b, &c, "s", NULL, NULL, NULL), RF_ERR_EXISTS);
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
    c = command(REGISTRY_DELETE, REGISTRY_SEMAPHORE, 0);
    assert_int_equal(line_up(&b, REGISTRY_ACQUIRE, REGISTRY_SEMAPHORE, "s", 4, 2, 0, &value), RF_OK);
    assert_int_equal(apply(&b, &c, "s", NULL, NULL, NULL), RF_OK);
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
    registry_command_t c = command(REGISTRY_PUSH, REGISTRY_QUEUE, 0);
    c.value_size = (uint16_t)strlen(message);
    return apply(b, &c, name, message, NULL, NULL);
}

static void queues(void **state)
{
    (void)state;
    bench_t b;
    uint64_t value;
    bench_open(&b, &small, 7);
    registry_command_t c = command(REGISTRY_CREATE, REGISTRY_QUEUE, 9);
    c.n = 2;
    c.flags = REGISTRY_EPHEMERAL;
    assert_int_equal(push(&b, "q", "x"), RF_ERR_NOT_FOUND);
    assert_int_equal(apply(&b, &c, "q", NULL, NULL, NULL), RF_OK);
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
    bench_open(&b, &small, 8);
    assert_false(registry_event(b.r, 1, "w/", 2, false, &e, &next));
    assert_int_equal(put(&b, "w/1", "a", &r), RF_OK);
    assert_int_equal(put(&b, "elsewhere", "b", NULL), RF_OK);
    assert_int_equal(put_as(&b, "ann", "w/2", "c", 3, REGISTRY_EPHEMERAL, 0, 0, NULL, NULL), RF_OK);
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
        assert_int_equal(
            put(&b, "w/1", i % 3 ? "short" : "a longer one, so that the bytes wrap at odd places", NULL),
            RF_OK);
        uint64_t first = registry_events_first(b.r);
        assert_true(registry_event(b.r, first, "", 0, false, &e, NULL));
        for (uint64_t at = first; registry_event(b.r, at, "", 0, false, &e, NULL); at = e.revision + 1)
            assert_true(e.revision >= first && e.name_size > 0);
    }
    assert_true(registry_events_first(b.r) > next);
    bench_close(&b);
}

/* ---- random commands ---- */

#define N_KEYS   24
#define N_LOCKS  6
#define LINE_MAX 64

typedef struct model {
    struct {
        bool used;
        uint64_t revision, version, owner;
        unsigned size;
        uint8_t byte; /* all bytes of the value are alike */
    } keys[N_KEYS];
    struct {
        unsigned n;
        struct {
            uint64_t owner, wait;
        } line[LINE_MAX]; /* the first holds it */
        uint64_t token;
    } locks[N_LOCKS];
} model_t;

static void model_owner_ended(model_t *m, uint64_t owner)
{
    for (unsigned i = 0; i < N_KEYS; i++)
        if (m->keys[i].used && m->keys[i].owner == owner) m->keys[i].used = false;
    for (unsigned i = 0; i < N_LOCKS; i++) {
        unsigned n = 0;
        for (unsigned k = 0; k < m->locks[i].n; k++)
            if (m->locks[i].line[k].owner != owner) m->locks[i].line[n++] = m->locks[i].line[k];
        m->locks[i].n = n;
    }
}

static void model_compare(const model_t *m, const registry_t *r)
{
    char name[16];
    registry_entry_t e;
    for (unsigned i = 0; i < N_KEYS; i++) {
        uint8_t value[REGISTRY_VALUE_MAX];
        snprintf(name, sizeof name, "key/%u", i);
        bool there = registry_get(r, REGISTRY_KEY, name, strlen(name), &e);
        assert_int_equal(there, m->keys[i].used);
        if (!there) continue;
        assert_int_equal(e.revision, m->keys[i].revision);
        assert_int_equal(e.version, m->keys[i].version);
        assert_int_equal(e.domain, m->keys[i].owner);
        assert_int_equal(e.value_size, m->keys[i].size);
        registry_value(r, &e, value);
        for (unsigned k = 0; k < m->keys[i].size; k++) assert_int_equal(value[k], m->keys[i].byte);
    }
    for (unsigned i = 0; i < N_LOCKS; i++) {
        snprintf(name, sizeof name, "lock/%u", i);
        bool there = registry_get(r, REGISTRY_LOCK, name, strlen(name), &e);
        assert_int_equal(there, m->locks[i].n > 0);
        if (!there) continue;
        assert_int_equal(e.domain, m->locks[i].line[0].owner);
        assert_int_equal(e.waiting, m->locks[i].n - 1);
        for (unsigned k = 0; k < m->locks[i].n; k++) {
            uint64_t token;
            assert_int_equal(registry_wait_state(r, m->locks[i].line[k].wait, &token),
                             k == 0 ? REGISTRY_WAIT_HELD : REGISTRY_WAIT_WAITING);
        }
    }
}

static registry_command_t draw(rf_prng_t *prng, char *name, size_t max, uint64_t *waits)
{
    registry_command_t c = {
        .op = (uint16_t)(REGISTRY_OP_FIRST + rf_prng_below(prng, REGISTRY_OP_LAST - REGISTRY_OP_FIRST))};
    static const registry_kind_t kinds[] = {REGISTRY_SEMAPHORE, REGISTRY_BARRIER, REGISTRY_QUEUE};
    uint64_t which = rf_prng_below(prng, 100);
    c.domain = 1 + rf_prng_below(prng, 5);
    c.n = (uint32_t)rf_prng_below(prng, 5);
    if (c.op == REGISTRY_PUT || (c.op == REGISTRY_DELETE && which < 60)) {
        c.kind = REGISTRY_KEY;
        snprintf(name, max, "key/%u", (unsigned)rf_prng_below(prng, N_KEYS));
        c.flags = rf_prng_below(prng, 4) == 0 ? REGISTRY_EPHEMERAL : 0;
        c.value_size = (uint16_t)rf_prng_below(prng, rf_prng_below(prng, 4) == 0 ? 513 : 20);
        c.condition = (uint8_t)(rf_prng_below(prng, 3) == 0 ? REGISTRY_IF_PRESENT : REGISTRY_ALWAYS);
    } else if ((c.op == REGISTRY_ACQUIRE || c.op == REGISTRY_RELEASE) && which < 70) {
        c.kind = REGISTRY_LOCK;
        snprintf(name, max, "lock/%u", (unsigned)rf_prng_below(prng, N_LOCKS));
    } else {
        c.kind = (uint8_t)kinds[rf_prng_below(prng, 3)];
        snprintf(name, max, "other/%u", (unsigned)rf_prng_below(prng, 3));
        c.value_size = (uint16_t)(c.op == REGISTRY_PUSH ? rf_prng_below(prng, 200) : 0);
    }
    if (c.op == REGISTRY_ACQUIRE || c.op == REGISTRY_WAIT || c.op == REGISTRY_POP) c.wait = ++*waits;
    if (c.op == REGISTRY_CANCEL) {
        c.wait = *waits > 20 ? *waits - rf_prng_below(prng, 20) : 1;
        c.flags = rf_prng_below(prng, 2) ? REGISTRY_GIVE_BACK : 0;
    }
    return c;
}

/* What the model knows of a command that succeeded. */
static void model_apply(model_t *m, const registry_command_t *c, const char *name, uint8_t byte,
                        uint64_t value, bool had)
{
    unsigned i = (unsigned)strtoul(strchr(name, '/') + 1, NULL, 10);
    if (c->op == REGISTRY_PUT) {
        bool made = !m->keys[i].used;
        m->keys[i].used = true;
        m->keys[i].version = made ? 1 : m->keys[i].version + 1;
        m->keys[i].revision = value;
        if (made) m->keys[i].owner = c->flags & REGISTRY_EPHEMERAL ? c->domain : 0;
        m->keys[i].size = c->value_size;
        m->keys[i].byte = byte;
    } else if (c->op == REGISTRY_DELETE && c->kind == REGISTRY_KEY) {
        m->keys[i].used = false;
    } else if (c->op == REGISTRY_ACQUIRE && c->kind == REGISTRY_LOCK) {
        assert_int_equal(value > 0, m->locks[i].n == 0);
        m->locks[i].line[m->locks[i].n].owner = c->domain;
        m->locks[i].line[m->locks[i].n++].wait = c->wait;
    } else if (c->op == REGISTRY_RELEASE && c->kind == REGISTRY_LOCK) {
        memmove(m->locks[i].line, m->locks[i].line + 1, --m->locks[i].n * sizeof m->locks[i].line[0]);
    } else if (c->op == REGISTRY_CANCEL && value > 0 && had) {
        for (unsigned l = 0; l < N_LOCKS; l++)
            for (unsigned k = 0; k < m->locks[l].n; k++)
                if (m->locks[l].line[k].wait == c->wait) {
                    memmove(&m->locks[l].line[k], &m->locks[l].line[k + 1],
                            (--m->locks[l].n - k) * sizeof m->locks[l].line[0]);
                    break;
                }
    }
}

static uint8_t saved[1 << 18], saved_too[1 << 18];

static void compare_saved(bench_t *a, bench_t *b)
{
    size_t size = registry_save(a->r, saved, sizeof saved);
    assert_true(size > 0 && size <= registry_save_max(&small));
    assert_int_equal(registry_save(b->r, saved_too, sizeof saved_too), size);
    assert_memory_equal(saved, saved_too, size);
    assert_int_equal(registry_save(a->r, saved_too, size - 1), 0);
}

static void compare_answers(const bench_t *a, const bench_t *b)
{
    assert_int_equal(a->n_answers, b->n_answers);
    for (unsigned i = 0; i < a->n_answers; i++) {
        assert_int_equal(a->answers[i].wait, b->answers[i].wait);
        assert_int_equal(a->answers[i].err, b->answers[i].err);
        assert_int_equal(a->answers[i].revision, b->answers[i].revision);
        assert_int_equal(a->answers[i].size, b->answers[i].size);
    }
}

/* Two replicas of different seeds; the second is loaded from the first's snapshot now and then. */
static void random_run(uint64_t seed, unsigned steps)
{
    bench_t a, b;
    model_t m = {0};
    rf_prng_t prng;
    uint64_t waits = 0;
    rf_prng_seed(&prng, seed);
    bench_open(&a, &small, seed);
    bench_open(&b, &small, ~seed);
    for (unsigned step = 0; step < steps; step++) {
        char name[32] = "";
        uint8_t value[REGISTRY_VALUE_MAX];
        uint64_t va, vb;
        if (rf_prng_below(&prng, 40) == 0) {
            uint64_t owner = 1 + rf_prng_below(&prng, 5);
            a.n_answers = b.n_answers = 0;
            registry_owner_ended(a.r, owner, 0);
            registry_owner_ended(b.r, owner, 0);
            model_owner_ended(&m, owner);
            compare_answers(&a, &b);
            continue;
        }
        registry_command_t c = draw(&prng, name, sizeof name, &waits);
        registry_entry_t e;
        /* Releases are of what somebody holds, mostly. */
        if (c.op == REGISTRY_RELEASE && registry_get(a.r, c.kind, name, strlen(name), &e) && e.domain != 0) {
            c.domain = e.domain;
            c.number = e.revision;
        }
        uint8_t byte = (uint8_t)rf_prng_next(&prng);
        memset(value, byte, sizeof value);
        const char *sent = c.op == REGISTRY_CANCEL ? NULL : name;
        rf_err_t err = apply(&a, &c, sent, value, NULL, &va);
        assert_int_equal(apply(&b, &c, sent, value, NULL, &vb), err);
        assert_int_equal(va, vb);
        compare_answers(&a, &b);
        if (err == RF_OK) model_apply(&m, &c, name, byte, va, true);
        model_compare(&m, a.r);
        if (step % 97 == 0) {
            compare_saved(&a, &b);
            size_t size = registry_save(a.r, saved, sizeof saved);
            assert_int_equal(registry_load(b.r, saved, size), RF_OK);
            registry_check(b.r);
            compare_saved(&a, &b);
        }
    }
    compare_saved(&a, &b);
    bench_close(&a);
    bench_close(&b);
}

static void random_against_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) random_run(seed, 3000);
}

static void hostile_snapshots(void **state)
{
    (void)state;
    bench_t a, b;
    rf_prng_t prng;
    uint64_t waits = 0;
    rf_prng_seed(&prng, 77);
    bench_open(&a, &small, 1);
    bench_open(&b, &small, 2);
    for (unsigned i = 0; i < 400; i++) {
        char name[32] = "";
        uint8_t value[REGISTRY_VALUE_MAX] = {0};
        registry_command_t c = draw(&prng, name, sizeof name, &waits);
        apply(&a, &c, c.op == REGISTRY_CANCEL ? NULL : name, value, NULL, NULL);
    }
    size_t size = registry_save(a.r, saved, sizeof saved);
    assert_int_equal(put(&b, "before", "x", NULL), RF_OK);
    for (size_t cut = 0; cut < size; cut++) assert_int_equal(registry_load(b.r, saved, cut), RF_ERR_PROTOCOL);
    assert_true(has(&b, "before", "x")); /* what is refused changes nothing */
    unsigned loaded = 0;
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(saved_too, saved, size);
        for (unsigned k = (unsigned)rf_prng_below(&prng, 3) + 1; k > 0; k--)
            saved_too[rf_prng_below(&prng, size)] ^= (uint8_t)(1u << rf_prng_below(&prng, 8));
        loaded += registry_load(b.r, saved_too, size) == RF_OK;
        registry_check(b.r);
    }
    assert_true(loaded > 0);
    bench_close(&a);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),
        cmocka_unit_test(permission_and_quotas),
        cmocka_unit_test(ephemeral),
        cmocka_unit_test(locks),
        cmocka_unit_test(semaphores_and_barriers),
        cmocka_unit_test(queues),
        cmocka_unit_test(events),
        cmocka_unit_test(random_against_a_model),
        cmocka_unit_test(hostile_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
