/* The registry under random commands, against a model and other replicas; and snapshots that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "registry_bench.h"

#include "base/prng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    assert_true(size > 0 && size <= registry_save_max(&bench_small));
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
    bench_open(&a, &bench_small, seed);
    bench_open(&b, &bench_small, ~seed);
    for (unsigned step = 0; step < steps; step++) {
        char name[32] = "";
        uint8_t value[REGISTRY_VALUE_MAX];
        uint64_t va, vb;
        if (rf_prng_below(&prng, 40) == 0) {
            uint64_t owner = 1 + rf_prng_below(&prng, 5);
            a.n_answers = b.n_answers = 0;
            if (rf_prng_below(&prng, 2)) { /* first out of all lines, which ends up the same */
                registry_owner_leaves(a.r, owner, 0);
                registry_check(a.r);
            }
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
        rf_err_t err = bench_apply(&a, &c, sent, value, NULL, &va);
        assert_int_equal(bench_apply(&b, &c, sent, value, NULL, &vb), err);
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
    bench_open(&a, &bench_small, 1);
    bench_open(&b, &bench_small, 2);
    for (unsigned i = 0; i < 400; i++) {
        char name[32] = "";
        uint8_t value[REGISTRY_VALUE_MAX] = {0};
        registry_command_t c = draw(&prng, name, sizeof name, &waits);
        bench_apply(&a, &c, c.op == REGISTRY_CANCEL ? NULL : name, value, NULL, NULL);
    }
    size_t size = registry_save(a.r, saved, sizeof saved);
    assert_int_equal(bench_put(&b, "before", "x", NULL), RF_OK);
    for (size_t cut = 0; cut < size; cut++) assert_int_equal(registry_load(b.r, saved, cut), RF_ERR_PROTOCOL);
    assert_true(bench_has(&b, "before", "x")); /* what is refused changes nothing */
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
        cmocka_unit_test(random_against_a_model),
        cmocka_unit_test(hostile_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
