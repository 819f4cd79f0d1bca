/* The engine, one guarantee at a time, on the network of net.h; consensus_random_test.c has all of them at once. */
#include "net_script.h"

#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_and_agrees),
        cmocka_unit_test(forming_is_once_and_by_the_lowest),
        cmocka_unit_test(a_dead_leader_is_replaced_at_once),
        cmocka_unit_test(a_silent_leader_is_replaced),
        cmocka_unit_test(two_halves_are_not_both_expelled),
        cmocka_unit_test(a_lost_majority_is_said),
        cmocka_unit_test(who_stays_behind_is_expelled),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
