/* Sessions of clients, on the network of net.h: once each, through any member, over changes of leaders, and as many as are kept. */
#include "net_script.h"

#include <stdlib.h>

static void unknown_stays_unknown_until_it_is_known(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 5);
    unsigned p = net_propose(n, 2);
    net_isolate(n, 2, true); /* sent, perhaps taken on; the answer is lost */
    assert_true(net_answered(n, p, 60 * MS));
    assert_int_equal(n->proposed[p].err, RF_ERR_UNKNOWN_OUTCOME);
    unsigned again =
        net_propose_as(n, 2, n->proposed[p].session, n->proposed[p].sequence, n->proposed[p].number);
    assert_int_equal(n->proposed[again].err, RF_ERR_UNKNOWN_OUTCOME); /* never "nothing happened" */
    net_isolate(n, 2, false);
    net_run(n, 30 * MS);
    again = net_propose_as(n, 2, n->proposed[p].session, n->proposed[p].sequence, n->proposed[p].number);
    assert_true(net_answered(n, again, 10 * MS));
    assert_int_equal(n->proposed[again].err, RF_OK);
    settle(n);
    assert_int_equal(n->n_history, 1);
    net_free(n);
}

static void a_session_executes_once_through_any_member(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 6);
    unsigned open = net_session(n, 1, AGREEMENT_SESSION_OPEN, 0);
    assert_true(net_answered(n, open, 5 * MS));
    uint64_t session = n->proposed[open].value, number = ++n->next_number;
    for (rf_core_t core = 0; core < 3; core++) {
        unsigned p = net_propose_as(n, core, session, 1, number);
        assert_true(net_answered(n, p, 5 * MS));
        assert_int_equal(n->proposed[p].err, RF_OK);
        assert_int_equal(n->proposed[p].value, 0);
    }
    assert_int_equal(n->n_history, 1);
    unsigned end = net_session(n, 0, AGREEMENT_SESSION_END, session);
    assert_true(net_answered(n, end, 5 * MS));
    net_run(n, 5 * MS);
    unsigned late = net_propose_as(n, 2, session, 2, ++n->next_number);
    assert_true(net_answered(n, late, 5 * MS));
    assert_int_equal(n->proposed[late].err, RF_ERR_SESSION);
    settle(n);
    net_free(n);
}

static bool somebody_else_leads(net_t *n, void *context)
{
    (void)context;
    return net_state(n, 1).role == AGREEMENT_ROLE_LEADER || net_state(n, 2).role == AGREEMENT_ROLE_LEADER;
}

/* A leader that was replaced, and has not heard of it, knows nothing of a session that its successor opened. It must not say "never" of what is
 * asked in it: the same forwarded to the successor is executed. */
static void a_replaced_leader_denies_nothing_of_a_session_to_come(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3, .sessions_max = 4}, 1);
    net_run(n, 3 * MS);
    for (rf_core_t old = 0; old < 4; old += 3) { /* the leader and a learner; the other two voters */
        for (rf_core_t other = 1; other < 3; other++) {
            net_cut(n, old, other, true);
            if (old == 0) net_tell_death(n, other, 0, AGREEMENT_EVIDENCE_SILENCE);
        }
    }
    assert_true(net_until(n, somebody_else_leads, NULL, 3 * MS));
    unsigned open = net_session(n, 2, AGREEMENT_SESSION_OPEN, 0);
    assert_true(net_answered(n, open, 2 * MS));
    assert_int_equal(n->proposed[open].err, RF_OK);
    unsigned p = net_propose_as(n, 3, n->proposed[open].value, 1, ++n->next_number);
    assert_int_equal(net_state(n, 3).leader.core, 0);
    assert_false(net_answered(n, p, 2 * MS));
    net_heal(n);
    assert_true(net_answered(n, p, 50 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    settle(n);
    net_free(n);
}

/* As many sessions as are kept, and more: the one opened first has made way everywhere, also where a snapshot told it, and for the one
 * that asks in it; what is repeated in it is not executed again. */
static void the_first_session_makes_way(void **state)
{
    (void)state;
    enum { KEPT = 3, ALL = 8 };
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3, .log_max = 16, .sessions_max = KEPT}, 8);
    uint64_t sessions[ALL], numbers[ALL];
    net_isolate(n, 3, true);
    for (unsigned i = 0; i < ALL; i++) {
        unsigned open = net_session(n, i % 3, AGREEMENT_SESSION_OPEN, 0);
        assert_true(net_answered(n, open, 5 * MS));
        assert_int_equal(n->proposed[open].err, RF_OK);
        sessions[i] = n->proposed[open].value;
        numbers[i] = ++n->next_number;
        unsigned p = net_propose_as(n, (i + 1) % 3, sessions[i], 1, numbers[i]);
        assert_true(net_answered(n, p, 5 * MS));
        assert_int_equal(n->proposed[p].err, RF_OK);
    }
    for (unsigned i = 0; i < 40; i++) assert_true(net_answered(n, net_propose(n, 0), 5 * MS));
    net_isolate(n, 3, false);
    net_run(n, 30 * MS);
    assert_true(n->cores[3].n_loads > 0);
    unsigned done = n->n_history;
    for (rf_core_t core = 0; core < 4; core++) {
        for (unsigned i = 0; i < ALL; i++) {
            n->maybe[numbers[i]] = 1; /* that it is not executed says one who repeats it */
            unsigned p = net_propose_as(n, core, sessions[i], 1, numbers[i]);
            assert_true(net_answered(n, p, 5 * MS));
            assert_int_equal(n->proposed[p].err, i < ALL - KEPT ? RF_ERR_SESSION : RF_OK);
        }
    }
    assert_int_equal(n->n_history, done);
    settle(n);
    net_free(n);
}

/* All that one member may have outstanding, at the leader and elsewhere: in order as far as the leader's ring has room, each
 * once, also when all of it was under way while the quorum was lost. */
static void a_thousand_are_outstanding(void **state)
{
    (void)state;
    enum { SESSIONS = AGREEMENT_PROPOSALS_MAX / AGREEMENT_WINDOW };
    for (rf_core_t core = 0; core < 2; core++) {
        net_t *n = formed((net_knobs_t){.cores = 3,
                                        .log_max = 256,
                                        .sessions_max = SESSIONS,
                                        .proposals_max = AGREEMENT_PROPOSALS_MAX,
                                        .lose_percent = core},
                          21 + core);
        uint64_t sessions[SESSIONS];
        for (unsigned i = 0; i < SESSIONS; i++) {
            unsigned open = net_session(n, core, AGREEMENT_SESSION_OPEN, 0);
            assert_true(net_answered(n, open, 50 * MS));
            sessions[i] = n->proposed[open].value;
        }
        unsigned first = n->n_proposed;
        for (unsigned i = 0; i < AGREEMENT_PROPOSALS_MAX; i++)
            net_propose_as(n, core, sessions[i % SESSIONS], 1 + i / SESSIONS, ++n->next_number);
        unsigned more = net_propose(n, core);
        assert_true(n->proposed[more].answered);
        assert_int_equal(n->proposed[more].err, RF_ERR_AGAIN);
        assert_true(net_all_answered(n, 100 * MS));
        for (unsigned i = first; i < more; i++) assert_int_equal(n->proposed[i].err, RF_OK);
        assert_int_equal(n->n_history, AGREEMENT_PROPOSALS_MAX);

        uint64_t number = n->next_number;
        first = n->n_proposed;
        for (unsigned i = 0; i < AGREEMENT_PROPOSALS_MAX; i++)
            net_propose_as(n, core, sessions[i % SESSIONS], 1 + AGREEMENT_WINDOW + i / SESSIONS,
                           ++n->next_number);
        net_run(n, 20 * US);
        net_isolate(n, core, true);
        assert_true(net_all_answered(n, 100 * MS));
        unsigned unknown = 0;
        for (unsigned i = first; i < n->n_proposed; i++)
            unknown += n->proposed[i].err == RF_ERR_UNKNOWN_OUTCOME;
        assert_true(unknown > AGREEMENT_WINDOW);
        net_heal(n);
        net_run(n, 30 * MS);
        for (unsigned i = 0; i < AGREEMENT_PROPOSALS_MAX; i++)
            net_propose_as(n, core, sessions[i % SESSIONS], 1 + AGREEMENT_WINDOW + i / SESSIONS,
                           n->proposed[first + i].err == RF_ERR_NO_QUORUM ? ++n->next_number
                                                                          : number + 1 + i);
        assert_true(net_all_answered(n, 100 * MS));
        for (unsigned i = n->n_proposed - AGREEMENT_PROPOSALS_MAX; i < n->n_proposed; i++)
            assert_int_equal(n->proposed[i].err, RF_OK);
        assert_int_equal(n->n_history, 2 * AGREEMENT_PROPOSALS_MAX);
        settle(n);
        net_free(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_stays_unknown_until_it_is_known),
        cmocka_unit_test(a_session_executes_once_through_any_member),
        cmocka_unit_test(a_replaced_leader_denies_nothing_of_a_session_to_come),
        cmocka_unit_test(the_first_session_makes_way),
        cmocka_unit_test(a_thousand_are_outstanding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
