/* How late a monitor runs when it is due: measured by itself, shown, and warned of when timeouts are no longer far from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "world.h"

static void a_stall_is_seen_by_who_had_it(void **state)
{
    (void)state;
    world_t *w = world_new(1, 3, 1);
    world_form(w);
    world_pass(w, 5 * RF_NS_PER_S);
    const uint64_t stall_ns = w->boot.election_ms * RF_NS_PER_MS / 4,
                   beat_ns = w->boot.heartbeat_ms * RF_NS_PER_MS;
    assert_true(stall_ns > beat_ns / 2);
    for (rf_core_t core = 0; core < 3; core++)
        assert_true(world_status(w, world_node_client(w, core)).late_worst_ns < RF_NS_PER_MS);
    world_stall(w, 0, true); /* the gateway, which beats */
    world_pass(w, stall_ns + beat_ns);
    world_stall(w, 0, false);
    world_pass(w, RF_NS_PER_S);
    rf_client_status_t s = world_status(w, world_node_client(w, 0));
    assert_true(s.late_worst_ns >= stall_ns && s.late_worst_ns <= stall_ns + beat_ns);
    assert_true(world_status(w, world_node_client(w, 1)).late_worst_ns < RF_NS_PER_MS);
    world_free(w);
}

static void often_is_what_counts(void **state)
{
    (void)state;
    world_t *w = world_new(1, 1, 2);
    world_form(w);
    monitor_t *m = w->monitor[0];
    const uint64_t long_ns = w->boot.election_ms * RF_NS_PER_MS;
    m->out = w->output;
    m->now_ns += 10 * long_ns;
    rf_histogram_reset(&m->lateness.samples);
    lateness_note(m, m->now_ns - long_ns);
    for (unsigned i = 0; i < 2000; i++) lateness_note(m, m->now_ns - RF_NS_PER_MS);
    assert_true(lateness_often_ns(m) < 2 * RF_NS_PER_MS && m->lateness.worst_ns == long_ns);
    assert_false(m->lateness.warned); /* one of two thousand */
    for (unsigned i = 0; i < 200; i++) lateness_note(m, m->now_ns - long_ns);
    assert_true(lateness_often_ns(m) >= long_ns - long_ns / 32);
    assert_true(m->lateness.warned);
    for (unsigned i = 0; i < 40000; i++) lateness_note(m, m->now_ns - RF_NS_PER_MS);
    assert_false(m->lateness.warned); /* it is well again, and would warn again */
    assert_true(lateness_often_ns(m) < 2 * RF_NS_PER_MS);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stall_is_seen_by_who_had_it),
        cmocka_unit_test(often_is_what_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
