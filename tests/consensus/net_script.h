/*
 * What scripted runs on the network of net.h begin with, and go on with. For tests: what does not hold fails one.
 */
#ifndef RF_TESTS_CONSENSUS_NET_SCRIPT_H
#define RF_TESTS_CONSENSUS_NET_SCRIPT_H

#include "net.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* A network whose members have formed a machine, and know it. */
static inline net_t *formed(net_knobs_t knobs, uint64_t seed)
{
    net_t *n = net_new(&knobs, seed);
    net_form(n);
    net_run(n, 3 * MS);
    for (rf_core_t core = 0; core < knobs.cores; core++) assert_true(net_state(n, core).formed);
    return n;
}

/* All that was proposed is answered, and then nothing is left to say. */
static inline void settle(net_t *n)
{
    assert_true(net_all_answered(n, 50 * MS));
    net_run(n, 30 * MS);
    net_check_quiet(n);
}

/* A command that core proposes is carried out. */
static inline void goes_on(net_t *n, rf_core_t core)
{
    unsigned p = net_propose(n, core);
    assert_true(net_answered(n, p, 200 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
}

/* The first incarnation of a core. */
static inline agreement_member_t m1(rf_core_t c)
{
    return (agreement_member_t){.core = c, .incarnation = 1};
}

#endif
