#include "net.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static net_t *formed(net_knobs_t knobs, uint64_t seed)
{
    net_t *n = net_new(&knobs, seed);
    net_form(n);
    net_run(n, 2 * MS);
    for (rf_core_t core = 0; core < knobs.cores; core++) assert_true(net_state(n, core).formed);
    return n;
}

static void forms_and_agrees(void **state)
{
    (void)state;
    for (unsigned cores = 1; cores <= 9; cores++) {
        net_t *n = formed((net_knobs_t){.cores = cores}, cores);
        for (unsigned i = 0; i < 100; i++) {
            net_propose(n, (rf_core_t)(i % cores));
            if (i % 5 == 0) net_run(n, 100 * US);
        }
        assert_true(net_all_answered(n, 20 * MS));
        for (unsigned i = 0; i < 100; i++) assert_int_equal(n->proposed[i].err, RF_OK);
        net_run(n, 5 * MS);
        net_check_quiet(n);
        assert_int_equal(n->n_history, 100);
        net_free(n);
    }
}

static void a_dead_leader_is_replaced_at_once(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 1);
    net_propose(n, 1);
    assert_true(net_all_answered(n, MS));
    net_kill(n, 0);
    net_tell_all(n, 0);
    unsigned p = net_propose(n, 2);
    assert_true(net_answered(n, p, MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    net_run(n, 5 * MS);
    agreement_state_t s = net_state(n, 1);
    assert_int_equal(s.members, 2);
    assert_int_equal(s.n_voters, 2);
    assert_int_equal(s.role, AGREEMENT_ROLE_LEADER);
    net_check_quiet(n);
    net_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_and_agrees),
        cmocka_unit_test(a_dead_leader_is_replaced_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
