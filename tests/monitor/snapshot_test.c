/* The replica as bytes: saved and loaded it is the same, and bytes that are no replica change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t bytes[SNAPSHOT_MAX], again[SNAPSHOT_MAX];

static void change(world_t *w, test_client_t *c, uint16_t what, uint8_t kind, uint16_t flags,
                   const char *name)
{
    struct {
        rf_client_registry_t head;
        char name[8];
    } r = {.head = {.what = what,
                    .kind = kind,
                    .flags = flags,
                    .n = 2,
                    .timeout_ns = UINT64_MAX,
                    .name_size = (uint16_t)strlen(name)}};
    memcpy(r.name, name, r.head.name_size);
    world_send(w, c, RF_CLIENT_REGISTRY_CHANGE, &r, sizeof r.head + r.head.name_size, 0);
    world_settle(w);
}

/* A machine in which there is something of everything: domains that run, span and ended, names, keys, a lock that is held, a
 * barrier that is waited for, a core that left. */
static world_t *lived_in(uint64_t seed)
{
    world_t *w = world_new(2, 2, seed);
    world_form(w);
    rf_domain_t a, b, c;
    test_client_t *x = world_domain_on(w, 0, &a);
    world_domain_on(w, 1, &b);
    rf_client_spawn_t span = {.core = 2};
    assert_int_equal(world_ask(w, x, RF_CLIENT_SPAN, &span, sizeof span, NULL, 0), RF_OK);
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "one"), RF_OK);
    assert_int_equal(world_name(w, x, RF_CLIENT_NAME_PUT, "two"), RF_OK);
    test_client_t *y = world_domain_on(w, 3, &c);
    change(w, x, RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY, 0, "key");
    change(w, x, RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY, RF_REGISTRY_EPHEMERAL, "here");
    change(w, x, RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK, 0, "l");
    change(w, x, RF_REGISTRY_WAIT, RF_REGISTRY_KIND_BARRIER, 0, "b");
    change(w, y, RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK, 0, "l");
    change(w, y, RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY, RF_REGISTRY_EPHEMERAL, "gone");
    world_exit_dispatcher(w, 1, b, 0, 3 << 8);
    world_settle(w);
    world_kill(w, 3);
    world_pass(w, 5 * RF_NS_PER_S);
    return w;
}

/* A monitor of core 1 on its own, with an output to act into. */
typedef struct alone {
    rf_boot_t boot;
    void *memory;
    monitor_t *monitor;
    monitor_output_t *output;
} alone_t;

static alone_t *alone_new(const world_t *w)
{
    alone_t *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->boot = *w->monitor[1]->boot;
    size_t size = monitor_size(&a->boot, 1);
    a->memory = world_memory(size);
    a->output = calloc(1, sizeof *a->output);
    assert_true(a->memory && a->output);
    assert_int_equal(monitor_init(a->memory, size, &a->boot, 1, 2, "owner", w->now_ns, &a->monitor), RF_OK);
    a->monitor->out = a->output;
    return a;
}

static void alone_free(alone_t *a)
{
    free(a->memory);
    free(a->output);
    free(a);
}

static void saved_and_loaded_it_is_the_same(void **state)
{
    (void)state;
    world_t *w = lived_in(1);
    alone_t *a = alone_new(w);
    size_t size = replica_save(w->monitor[0], bytes, sizeof bytes);
    assert_true(size > 0);
    assert_int_equal(replica_load(a->monitor, bytes, size), RF_OK);
    assert_int_equal(replica_save(a->monitor, again, sizeof again), size);
    assert_memory_equal(bytes, again, size);
    assert_int_equal(a->monitor->n_domains_live, w->monitor[0]->n_domains_live);
    assert_true(core_is_member(a->monitor, 0) && core_is_member(a->monitor, 2));
    assert_false(core_is_member(a->monitor, 3));
    assert_non_null(name_find(a->monitor, "two"));
    registry_entry_t e;
    assert_true(registry_get(a->monitor->registry, REGISTRY_KEY, "here", 4, &e) && e.ephemeral);
    assert_true(registry_get(a->monitor->registry, REGISTRY_LOCK, "l", 1, &e) && e.waiting == 0 &&
                e.used == 1);
    assert_true(registry_get(a->monitor->registry, REGISTRY_BARRIER, "b", 1, &e) && e.waiting == 1);
    assert_false(registry_get(a->monitor->registry, REGISTRY_KEY, "gone", 4, &e));
    a->output->n_actions = 0;
    a->output->n_bytes = 0;
    assert_int_equal(replica_load(a->monitor, bytes, size), RF_OK); /* once more: nothing changes */
    assert_int_equal(replica_save(a->monitor, again, sizeof again), size);
    assert_memory_equal(bytes, again, size);
    alone_free(a);
    world_free(w);
}

/* Cut, lengthened, and with every byte changed in turn: refused, or a replica that holds together. */
static void bytes_that_are_none_change_nothing(void **state)
{
    (void)state;
    world_t *w = lived_in(2);
    alone_t *a = alone_new(w);
    rf_prng_t prng;
    rf_prng_seed(&prng, 7);
    size_t size = replica_save(w->monitor[0], bytes, sizeof bytes);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1); /* so that reading beyond is seen */
        memcpy(exact, bytes, cut);
        assert_int_equal(replica_load(a->monitor, exact, cut), RF_ERR_PROTOCOL);
        free(exact);
        a->output->n_actions = 0;
        a->output->n_bytes = 0;
    }
    memcpy(again, bytes, size);
    assert_int_equal(replica_load(a->monitor, again, size + 8), RF_ERR_PROTOCOL);
    assert_int_equal(a->monitor->domain_last, 0);
    for (size_t i = 0; i < size; i++) {
        memcpy(again, bytes, size);
        again[i] ^= (uint8_t)(1u << rf_prng_below(&prng, 8));
        replica_load(a->monitor, again, size);
        a->output->n_actions = 0;
        a->output->n_bytes = 0;
        monitor_check(a->monitor);
    }
    assert_int_equal(replica_load(a->monitor, bytes, size), RF_OK);
    monitor_check(a->monitor);
    alone_free(a);
    world_free(w);
}

/* What a core had in a life that it has not had yet is nothing that can be left. */
static void a_life_to_come_has_left_nothing(void **state)
{
    (void)state;
    world_t *w = lived_in(3);
    alone_t *a = alone_new(w);
    const struct {
        uint32_t incarnation, holding;
        uint16_t member, reserved[3];
    } lives = {.incarnation = 1, .member = 1};
    size_t size = replica_save(w->monitor[0], bytes, sizeof bytes);
    uint8_t *at = memmem(bytes, size, &lives, sizeof lives);
    assert_non_null(at);
    const uint32_t wrong[] = {1, 2, UINT32_MAX};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(at + sizeof wrong[i], &wrong[i], sizeof wrong[i]);
        assert_int_equal(replica_load(a->monitor, bytes, size), RF_ERR_PROTOCOL);
    }
    alone_free(a);
    world_free(w);
}

/* Linked with an incarnation that joined after the last that was heard of, and has left: the snapshot names only the next one. */
static void who_left_unheard_of_is_listened_to_no_more(void **state)
{
    (void)state;
    world_t *w = lived_in(4);
    alone_t *a = alone_new(w);
    monitor_process_t process = {.incarnation = 1};
    peer_up(a->monitor, 3, 1, &process);
    assert_int_equal(a->monitor->cores[3].link, PEER_LINKED);
    assert_int_equal(world_rejoin(w, 3, 0), RF_OK);
    world_pass(w, RF_NS_PER_S);
    assert_true(core_is_member(w->monitor[0], 3));
    size_t size = replica_save(w->monitor[0], bytes, sizeof bytes);
    assert_int_equal(replica_load(a->monitor, bytes, size), RF_OK);
    assert_true(core_is_member(a->monitor, 3));
    assert_int_not_equal(a->monitor->cores[3].link, PEER_LINKED);
    assert_int_equal(a->monitor->cores[3].left, 1);
    alone_free(a);
    world_free(w);
}

/* Who asks whether it is in the machine is told that it is not by a view, not by one that is behind what it has joined by. */
static void who_lags_behind_expels_nobody(void **state)
{
    (void)state;
    world_t *w = lived_in(5);
    for (rf_incarnation_t life = 1; life < 3; life++) {
        alone_t *a = alone_new(w);
        monitor_process_t process = {.incarnation = life};
        a->monitor->phase = PHASE_FORMED;
        peer_up(a->monitor, 3, life, &process);
        a->output->n_actions = 0;
        member_ready(a->monitor, 3);
        assert_int_equal(a->output->n_actions, life == 1);
        alone_free(a);
    }
    world_free(w);
}

/* The largest replica there is fits. */
static void a_full_replica_fits(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 3);
    world_form(w);
    monitor_t *m = w->monitor[0];
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        memset(d, 0, sizeof *d);
        d->id = MONITOR_DOMAINS_MAX + i;
        d->state = RF_DOMAIN_RUNNING;
        d->n_dispatchers = RF_DISPATCHERS_PER_DOMAIN_MAX;
        d->alive = UINT64_MAX;
        snprintf(d->user, sizeof d->user, "alice");
    }
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        m->names[i] = (name_t){.used = true, .domain = MONITOR_DOMAINS_MAX + i};
        snprintf(m->names[i].name, sizeof m->names[i].name, "name%u", i);
    }
    m->domain_last = 2 * MONITOR_DOMAINS_MAX;
    m->n_domains_live = MONITOR_DOMAINS_MAX;
    size_t size = replica_save(m, bytes, sizeof bytes);
    assert_true(size > 0 && size <= SNAPSHOT_MAX);
    alone_t *a = calloc(1, sizeof *a);
    a->boot = *m->boot;
    size_t memory = monitor_size(&a->boot, 0);
    a->memory = world_memory(memory);
    a->output = calloc(1, sizeof *a->output);
    assert_int_equal(monitor_init(a->memory, memory, &a->boot, 0, 2, "owner", w->now_ns, &a->monitor), RF_OK);
    a->monitor->out = a->output;
    assert_int_equal(replica_load(a->monitor, bytes, size), RF_OK);
    monitor_check(a->monitor);
    assert_int_equal(a->monitor->n_domains_live, MONITOR_DOMAINS_MAX);
    alone_free(a);
    memset(m->domains, 0, sizeof m->domains);
    memset(m->names, 0, sizeof m->names);
    m->n_domains_live = 0;
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saved_and_loaded_it_is_the_same),
        cmocka_unit_test(bytes_that_are_none_change_nothing),
        cmocka_unit_test(a_life_to_come_has_left_nothing),
        cmocka_unit_test(who_lags_behind_expels_nobody),
        cmocka_unit_test(who_left_unheard_of_is_listened_to_no_more),
        cmocka_unit_test(a_full_replica_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
