/* The engine, one guarantee at a time, on the network of net.h; consensus_random_test.c has all of them at once. */
#include "net.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

static net_t *formed(net_knobs_t knobs, uint64_t seed)
{
    net_t *n = net_new(&knobs, seed);
    net_form(n);
    net_run(n, 3 * MS);
    for (rf_core_t core = 0; core < knobs.cores; core++) assert_true(net_state(n, core).formed);
    return n;
}

static void settle(net_t *n)
{
    assert_true(net_all_answered(n, 50 * MS));
    net_run(n, 30 * MS);
    net_check_quiet(n);
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
        settle(n);
        for (unsigned i = 0; i < 100; i++) assert_int_equal(n->proposed[i].err, RF_OK);
        assert_int_equal(n->n_history, 100);
        net_free(n);
    }
}

static void forming_is_once_and_by_the_lowest(void **state)
{
    (void)state;
    net_t *n = net_new(&(net_knobs_t){.cores = 3}, 1);
    rf_core_t all[] = {0, 1, 2}, twice[] = {0, 0}, stranger[] = {0, 7};
    const struct {
        rf_core_t by;
        const rf_core_t *cores, *voters;
        unsigned n_cores, n_voters;
    } wrong[] = {
        {1, all, NULL, 3, 0},  {0, stranger, NULL, 2, 0}, {0, all + 1, NULL, 2, 0},
        {0, all, twice, 3, 2}, {0, all, stranger, 3, 2},  {0, NULL, NULL, 0, 0},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        agreement_event_t event = {.kind = AGREEMENT_FORM, .now_ns = n->now_ns};
        event.form.cores = wrong[i].cores;
        event.form.n_cores = wrong[i].n_cores;
        event.form.voters = wrong[i].voters;
        event.form.n_voters = wrong[i].n_voters;
        const agreement_output_t *out = agreement_step(n->cores[wrong[i].by].engine, &event);
        assert_non_null(out->ignored);
        assert_int_equal(net_state(n, wrong[i].by).last, 0);
    }
    unsigned early = net_propose(n, 1);
    assert_int_equal(n->proposed[early].err, RF_ERR_FORMING);
    net_form(n);
    net_run(n, MS);
    assert_int_equal(net_state(n, 2).view, 1);
    net_form(n); /* again: nothing */
    assert_int_equal(net_state(n, 0).last, 1);
    net_free(n);
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
    assert_true(net_answered(n, p, MS)); /* on the kernel's evidence: no timeout */
    assert_int_equal(n->proposed[p].err, RF_OK);
    settle(n);
    agreement_state_t s = net_state(n, 1);
    assert_int_equal(s.members, 2);
    assert_int_equal(s.n_voters, 2);
    assert_int_equal(s.role, AGREEMENT_ROLE_LEADER);
    net_free(n);
}

static void a_silent_leader_is_replaced(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 2);
    net_isolate(n, 0, true);
    net_run(n, 25 * MS);
    rf_core_t leader = net_leader(n);
    assert_true(leader == 1 || leader == 2);
    assert_false(net_state(n, 0).quorum);
    assert_int_equal(n->proposed[net_propose(n, 0)].err, RF_ERR_NO_QUORUM);
    unsigned p = net_propose(n, (rf_core_t)(3 - leader));
    assert_true(net_answered(n, p, 5 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    net_isolate(n, 0, false); /* cut off is not dead: the same incarnation goes on */
    net_run(n, 20 * MS);
    p = net_propose(n, 0);
    assert_true(net_answered(n, p, 5 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    assert_int_equal(net_state(n, 0).members, 3);
    settle(n);
    net_free(n);
}

static void two_halves_are_not_both_expelled(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .per_host = 2}, 3);
    for (rf_core_t a = 0; a < 2; a++) {
        for (rf_core_t b = 2; b < 4; b++) {
            net_cut(n, a, b, true);
            net_tell_death(n, a, b, AGREEMENT_EVIDENCE_SILENCE);
            net_tell_death(n, b, a, AGREEMENT_EVIDENCE_SILENCE);
        }
    }
    net_run(n, 100 * MS);
    assert_true(net_state(n, 0).quorum); /* two of the three voters are there */
    assert_int_equal(net_state(n, 0).members, 2);
    assert_false(net_state(n, 2).quorum);
    assert_int_equal(net_state(n, 2).members, 4);
    net_free(n);
}

static void a_lost_majority_is_said(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 4);
    net_kill(n, 0);
    net_kill(n, 1);
    net_run(n, 30 * MS);
    assert_false(net_state(n, 2).lost); /* silence proves nothing: it waits, and says for whom */
    assert_false(net_state(n, 2).quorum);
    assert_int_equal(net_state(n, 2).n_waiting, 2);
    net_tell_all(n, 0);
    net_tell_all(n, 1);
    assert_true(net_state(n, 2).lost);
    assert_int_equal(n->proposed[net_propose(n, 2)].err, RF_ERR_NO_QUORUM);
    net_free(n);
}

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

static bool one_has_left(net_t *n, void *context)
{
    (void)context;
    for (unsigned i = 0; i < n->n_flight; i++) { /* no SNAPSHOT arrives */
        if (n->flight[i]->type == 0xd9) n->flight[i]->at_ns = RF_NEVER;
    }
    return net_state(n, 0).members == 3;
}

/* A member that lives, and never gets its snapshot, is expelled; a voter, and one that learns. */
static void who_stays_behind_is_expelled(void **state)
{
    (void)state;
    for (unsigned voters = 3; voters < 5; voters++) {
        net_t *n =
            formed((net_knobs_t){.cores = 4, .voters_max = voters, .log_max = 16, .behind_ns = 50 * MS}, 3);
        net_isolate(n, 3, true);
        for (unsigned i = 0; i < 40; i++) assert_true(net_answered(n, net_propose(n, i % 3), 5 * MS));
        net_isolate(n, 3, false);
        assert_false(net_until(n, one_has_left, NULL, 40 * MS));
        assert_true(net_until(n, one_has_left, NULL, 40 * MS));
        net_propose(n, 3); /* it asks for something, and is told */
        net_run(n, 5 * MS);
        assert_true(n->cores[3].expelled);
        net_free(n);
    }
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

static void a_restarted_core_joins_as_another_member(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .log_max = 16}, 7);
    net_kill(n, 2);
    net_tell_all(n, 2);
    for (unsigned i = 0; i < 60; i++) { /* more than the ring holds: it will need a snapshot */
        net_propose(n, 0);
        net_run(n, 200 * US);
    }
    rf_core_t core = 2;
    unsigned join = net_change(n, 1, &core, 1, NULL, 0);
    assert_true(net_answered(n, join, 20 * MS));
    assert_int_equal(n->proposed[join].err, RF_OK);
    assert_int_equal(n->proposed[join].value, 2);
    net_start(n, 2, 2);
    net_run(n, 30 * MS);
    assert_int_equal(n->cores[2].n_loads, 1);
    unsigned p = net_propose(n, 2);
    assert_true(net_answered(n, p, 10 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    settle(n);
    assert_int_equal(net_state(n, 0).members, 4);
    assert_int_equal(net_state(n, 0).n_voters, 3);
    net_free(n);
}

static void leaving_in_order_may_end_with_one(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 8);
    for (rf_core_t core = 0; core < 2; core++) { /* the leader first */
        agreement_member_t leaver = net_member(n, core);
        unsigned p = net_change(n, 2, NULL, 0, &leaver, 1);
        assert_true(net_answered(n, p, 60 * MS));
        assert_int_equal(n->proposed[p].err, RF_OK);
        net_run(n, 30 * MS);
        assert_true(n->cores[core].expelled);
    }
    assert_int_equal(net_state(n, 2).n_voters, 1);
    agreement_member_t last = net_member(n, 2);
    unsigned p = net_change(n, 2, NULL, 0, &last, 1);
    assert_true(net_answered(n, p, 20 * MS));
    assert_int_equal(n->proposed[p].err, RF_ERR_INVALID); /* nobody would be left */
    p = net_propose(n, 2);
    assert_true(net_answered(n, p, 5 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    net_free(n);
}

/* Who is expelled because it was asked for counts as any that is expelled, and two voters stay. */
static void expelling_leaves_two(void **state)
{
    (void)state;
    for (rf_core_t asked = 0; asked < 2; asked++) {
        net_t *n = formed((net_knobs_t){.cores = 4}, 8);
        agreement_member_t out[2] = {net_member(n, 2), net_member(n, 3)};
        unsigned p = net_expel(n, asked, out, 2);
        assert_true(net_answered(n, p, 60 * MS));
        assert_int_equal(n->proposed[p].err, RF_OK);
        agreement_state_t s = net_state(n, asked);
        assert_int_equal(s.members, 2);
        assert_int_equal(s.n_voters, 2);
        assert_int_equal(s.expulsions, 2);
        p = net_expel(n, asked, out, 2); /* they are no more */
        assert_true(net_answered(n, p, 60 * MS));
        assert_int_equal(net_state(n, asked).expulsions, 2);
        out[0] = net_member(n, 1);
        p = net_expel(n, asked, out, 1);
        assert_true(net_answered(n, p, 60 * MS));
        assert_int_equal(n->proposed[p].err, RF_ERR_INVALID);
        assert_int_equal(net_state(n, asked).n_voters, 2);
        p = net_change(n, 0, NULL, 0, out, 1); /* in order it may leave */
        assert_true(net_answered(n, p, 60 * MS));
        assert_int_equal(n->proposed[p].err, RF_OK);
        net_run(n, 30 * MS);
        assert_int_equal(net_state(n, 0).n_voters, 1);
        assert_int_equal(net_state(n, 0).expulsions, 2);
        net_free(n);
    }
}

static void the_leader_hands_over(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .witness_host = 2, .per_host = 1}, 9);
    agreement_event_t event = {.kind = AGREEMENT_TRANSFER};
    net_step(n, 0, &event);
    net_run(n, 2 * MS);
    assert_int_equal(net_leader(n), 2); /* core 1 is a witness */
    unsigned p = net_propose(n, 0);
    assert_true(net_answered(n, p, 5 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    settle(n);
    net_free(n);
}

static void a_lease_reads_without_a_round(void **state)
{
    (void)state;
    for (unsigned lease = 0; lease < 2; lease++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lease_ns = lease * 4 * MS}, 10);
        net_propose(n, 1);
        assert_true(net_all_answered(n, 5 * MS));
        net_run(n, 5 * MS);
        unsigned r = net_read(n, 0);
        assert_int_equal(n->reads[r].answered, lease == 1);
        assert_true(net_all_answered(n, 5 * MS));
        assert_int_equal(n->reads[r].err, RF_OK);
        net_free(n);
    }
}

static void plans_feed_everybody(void **state)
{
    (void)state;
    for (unsigned plan = 0; plan < AGREEMENT_PLANS; plan++) {
        net_t *n = formed(
            (net_knobs_t){.cores = 9, .per_host = 3, .per_package = 2, .plan = (agreement_plan_t)plan}, 11);
        for (unsigned i = 0; i < 50; i++) net_propose(n, (rf_core_t)(i % 9));
        settle(n);
        assert_int_equal(n->n_history, 50);
        agreement_state_t s = net_state(n, 0);
        assert_int_equal(s.survives, 1);
        assert_int_equal(s.survives_hosts, 1); /* a voter on each host */
        net_free(n);
    }
}

/* No heartbeat and no other command says it to the voters, and they to the learners that they feed. */
static void a_single_commit_reaches_everybody(void **state)
{
    (void)state;
    for (unsigned plan = 0; plan < AGREEMENT_PLANS; plan++) {
        net_t *n = formed((net_knobs_t){.cores = 9,
                                        .per_host = 3,
                                        .plan = (agreement_plan_t)plan,
                                        .lossless = true,
                                        .no_timeouts = true},
                          11);
        net_propose(n, 0);
        assert_true(net_all_answered(n, MS));
        net_run(n, MS);
        for (rf_core_t core = 0; core < 9; core++)
            assert_int_equal(net_state(n, core).applied, net_state(n, 0).applied);
        net_free(n);
    }
}

static void voters_are_spread(void **state)
{
    (void)state;
    static const uint16_t host[] = {0, 0, 0, 1, 1, 2};
    static const uint8_t witness[] = {0, 0, 0, 0, 0, 1};
    agreement_params_t p = {.n_cores = 6, .voters_max = 3, .host = host, .witness = witness};
    agreement_member_t all[6], out[AGREEMENT_VOTERS_MAX];
    for (rf_core_t core = 0; core < 6; core++)
        all[core] = (agreement_member_t){.core = core, .incarnation = 1};
    assert_int_equal(agreement_choose_voters(&p, all, 6, NULL, 0, out), 3);
    assert_int_equal(out[0].core, 0);
    assert_int_equal(out[1].core, 3);
    assert_int_equal(out[2].core, 5);
    assert_int_equal(agreement_choose_voters(&p, all, 6, all + 4, 1, out), 3);
    assert_int_equal(out[1].core, 4); /* that it is one already decides */
    assert_int_equal(agreement_choose_voters(&p, all, 2, NULL, 0, out), 2);
    static const uint8_t no_vote[] = {1, 0, 0, 1, 0, 1};
    p.no_vote = no_vote;
    assert_int_equal(agreement_choose_voters(&p, all, 6, NULL, 0, out), 3);
    assert_true(out[0].core == 1 && out[1].core == 2 && out[2].core == 4);
    assert_int_equal(agreement_choose_voters(&p, all, 1, NULL, 0, out), 1); /* nobody else is there */
    p.no_vote = NULL;
    p.voters_max = 4; /* odd is preferred */
    assert_int_equal(agreement_choose_voters(&p, all, 6, NULL, 0, out), 3);
    unsigned members, hosts;
    agreement_survives(&p, all, 3, &members, &hosts);
    assert_int_equal(members, 1);
    assert_int_equal(hosts, 0);
    agreement_survives(&p, all + 3, 3, &members, &hosts); /* two on one host */
    assert_int_equal(hosts, 0);
}

static void parameters_are_checked(void **state)
{
    (void)state;
    net_t *n = net_new(&(net_knobs_t){.cores = 3}, 1);
    agreement_params_t good = net_params(n, (agreement_member_t){.core = 0, .incarnation = 1}), p;
    assert_true(agreement_size(&good) > 0);
#define BAD(change)                                                                                          \
    p = good;                                                                                                \
    change;                                                                                                  \
    assert_int_equal(agreement_size(&p), 0)
    BAD(p.self.core = 3);
    BAD(p.self.incarnation = 0);
    BAD(p.log_max = 48);
    BAD(p.entry_max = 100);
    BAD(p.proposals_max = AGREEMENT_PROPOSALS_MAX + 1);
    BAD(p.voters_max = 8);
    BAD(p.voters_max = 0);
    BAD(p.heartbeat_ns = p.election_ns);
    BAD(p.state_machine.apply = NULL);
#undef BAD
    agreement_t *e;
    assert_int_equal(agreement_init(NULL, 0, &good, &e), RF_ERR_NO_MEMORY);
    /* As many as a simulated rack has: bounded. */
    p = good;
    p.n_cores = 16384;
    p.sessions_max = 0;
    p.snapshot_max = 4096;
    assert_true(agreement_size(&p) <= 256 * 1024);
    net_free(n);
}

static void the_same_events_give_the_same_messages(void **state)
{
    (void)state;
    uint64_t hash[2] = {0, 0};
    for (unsigned run = 0; run < 2; run++) {
        net_t *n =
            formed((net_knobs_t){.cores = 4, .lose_percent = 5, .repeat_percent = 5, .reorder = true}, 13);
        for (unsigned i = 0; i < 200; i++) {
            net_propose(n, (rf_core_t)(i % 4));
            net_run(n, 100 * US);
            for (unsigned k = 0; k < n->n_flight; k++) {
                for (size_t b = 0; b < n->flight[k]->size; b++)
                    hash[run] = hash[run] * 31 + n->flight[k]->bytes[b];
            }
        }
        net_free(n);
    }
    assert_true(hash[0] == hash[1] && hash[0] != 0);
}

/* ---- deliberate defects that random runs hardly ever find: a script each, that breaks with the defect and holds without ---- */

typedef void (*script_fn)(net_t *n);

static bool breaks(script_fn script, net_knobs_t knobs, unsigned defects)
{
    jmp_buf unsafe;
    knobs.defects = defects;
    net_t *n = formed(knobs, 21);
    net_propose(n, 0);
    assert_true(net_all_answered(n, 5 * MS));
    net_run(n, 5 * MS);
    volatile bool breach = true;
    if (setjmp(unsafe) == 0) {
        n->unsafe = &unsafe;
        script(n);
        breach = false;
    }
    net_free(n);
    return breach;
}

static void only_links(net_t *n, const rf_core_t (*links)[2], unsigned n_links)
{
    for (rf_core_t core = 0; core < n->knobs.cores; core++) net_isolate(n, core, true);
    for (unsigned i = 0; i < n_links; i++) net_cut(n, links[i][0], links[i][1], false);
}

static bool leads_now(net_t *n, void *context)
{
    const rf_core_t *of = context; /* the lower of the two, and how many from there on */
    for (rf_core_t core = of[0]; core < of[0] + of[1]; core++) {
        if (net_state(n, core).role == AGREEMENT_ROLE_LEADER) return true;
    }
    return false;
}

static void a_command_only_two_hold(net_t *n)
{
    static const rf_core_t rest[][2] = {{1, 2}};
    net_isolate(n, 2, true);
    unsigned p = net_propose(n, 0);
    assert_true(net_answered(n, p, 3 * MS));
    net_kill(n, 1);
    net_start(n, 1, 2); /* nothing has agreed on that incarnation: it knows nothing, and has no say */
    only_links(n, rest, 1);
    net_run(n, 60 * MS);
}

/* Those that the change needs are cut off when they have answered. */
static void a_joint_change_only_the_leader_holds(net_t *n)
{
    static const rf_core_t again[][2] = {{0, 1}, {0, 3}}, fresh[][2] = {{0, 3}}, others[][2] = {{1, 2}};
    agreement_member_t leave[] = {net_member(n, 1), net_member(n, 2)};
    only_links(n, NULL, 0);
    net_change(n, 0, NULL, 0, leave, 2);
    assert_true(net_state(n, 0).joint);
    net_run(n, 20 * MS);
    only_links(n, again, 2);
    assert_true(net_until(n, leads_now, (rf_core_t[]){0, 1}, 100 * MS));
    only_links(n, fresh, 1);
    net_run(n, 3 * MS); /* of the old voters only one holds the change */
    only_links(n, others, 1);
    net_run(n, 60 * MS); /* so the two others may decide */
}

typedef struct longer {
    rf_core_t core;
    uint64_t than;
} longer_t;

static bool has_more(net_t *n, void *context)
{
    const longer_t *l = context;
    return net_state(n, l->core).last > l->than;
}

/* Raft, figure 8. */
static void an_older_term_on_a_majority(net_t *n)
{
    static const rf_core_t two[][2] = {{0, 1}}, three[][2] = {{2, 3}, {2, 4}, {3, 4}};
    only_links(n, two, 1);
    for (unsigned i = 0; i < 120; i++) net_propose(n, (rf_core_t)(i % 2)); /* more than a message holds */
    net_run(n, 20 * MS);
    only_links(n, three, 3);
    assert_true(net_until(n, leads_now, (rf_core_t[]){2, 3}, 200 * MS));
    only_links(n, NULL, 0); /* its entry of term 2 is nowhere else */
    rf_core_t other = net_state(n, 2).role == AGREEMENT_ROLE_LEADER ? 3 : 2;
    net_run(n, 20 * MS);
    const rf_core_t mixed[][2] = {{0, 1}, {0, other}, {1, other}};
    longer_t longer = {.core = other, .than = net_state(n, other).last + 2};
    only_links(n, mixed, 3);
    assert_true(net_until(n, leads_now, (rf_core_t[]){0, 2}, 200 * MS));
    assert_true(net_until(n, has_more, &longer, 20 * MS));
    n->cut[0][other] = n->cut[1][other] =
        true; /* three of five hold some of the first term, none of the third */
    net_run(n, MS);
    only_links(n, three, 3);
    net_run(n, 200 * MS);
}

static void a_leader_that_stood_still(net_t *n)
{
    n->cores[0].stalled_until_ns = n->now_ns + 1000 * MS;
    assert_true(net_until(n, leads_now, (rf_core_t[]){1, 2}, 100 * MS));
    unsigned p = net_propose(n, 1);
    assert_true(net_answered(n, p, 10 * MS));
    net_read(n, 0);
}

static void defects_break_what_they_should(void **state)
{
    (void)state;
    net_knobs_t three = {.cores = 3}, five = {.cores = 5},
                voters = {.cores = 5, .voters_max = 5, .log_max = 256},
                lease = {.cores = 3, .lease_ns = 4 * MS};
    assert_false(breaks(a_command_only_two_hold, three, 0));
    assert_true(breaks(a_command_only_two_hold, three, AGREEMENT_DEFECT_NEW_INCARNATION_VOTES));
    assert_false(breaks(a_joint_change_only_the_leader_holds, five, AGREEMENT_DEFECT_CHANGE_UNASKED));
    assert_true(breaks(a_joint_change_only_the_leader_holds, five,
                       AGREEMENT_DEFECT_CHANGE_UNASKED | AGREEMENT_DEFECT_CHANGE_BEFORE_TERM));
    assert_false(breaks(an_older_term_on_a_majority, voters, 0));
    assert_true(breaks(an_older_term_on_a_majority, voters, AGREEMENT_DEFECT_OLD_TERM_COMMIT));
    assert_false(breaks(a_leader_that_stood_still, lease, 0));
    assert_true(breaks(a_leader_that_stood_still, lease, AGREEMENT_DEFECT_STALE_NOW));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_and_agrees),
        cmocka_unit_test(forming_is_once_and_by_the_lowest),
        cmocka_unit_test(a_dead_leader_is_replaced_at_once),
        cmocka_unit_test(a_silent_leader_is_replaced),
        cmocka_unit_test(two_halves_are_not_both_expelled),
        cmocka_unit_test(a_lost_majority_is_said),
        cmocka_unit_test(unknown_stays_unknown_until_it_is_known),
        cmocka_unit_test(a_session_executes_once_through_any_member),
        cmocka_unit_test(a_replaced_leader_denies_nothing_of_a_session_to_come),
        cmocka_unit_test(who_stays_behind_is_expelled),
        cmocka_unit_test(the_first_session_makes_way),
        cmocka_unit_test(a_thousand_are_outstanding),
        cmocka_unit_test(a_restarted_core_joins_as_another_member),
        cmocka_unit_test(leaving_in_order_may_end_with_one),
        cmocka_unit_test(expelling_leaves_two),
        cmocka_unit_test(the_leader_hands_over),
        cmocka_unit_test(a_lease_reads_without_a_round),
        cmocka_unit_test(plans_feed_everybody),
        cmocka_unit_test(a_single_commit_reaches_everybody),
        cmocka_unit_test(voters_are_spread),
        cmocka_unit_test(parameters_are_checked),
        cmocka_unit_test(the_same_events_give_the_same_messages),
        cmocka_unit_test(defects_break_what_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
