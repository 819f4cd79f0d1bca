/*
 * Runs that broke the engine once, each scripted message by message: what a step must do when votes, snapshots, reads, views or
 * terms cross in ways that the random runs seldom hit. Speaks in wire structures, so it includes engine.h.
 */
#include "net_script.h"
#include "consensus/engine.h"

#include <stdlib.h>

static size_t put(uint8_t *b, size_t at, const void *x, size_t size)
{
    memcpy(b + at, x, size);
    return at + size;
}

static size_t put_view(uint8_t *b, size_t at, uint64_t view, unsigned n_old)
{
    wire_entry_t e = {.term = 1, .kind = AGREEMENT_ENTRY_VIEW, .size = (uint16_t)(32 + 8 * (n_old + 3))};
    wire_view_t v = {.view = view, .n_old = (uint8_t)n_old, .n_new = 3, .joint = n_old > 0};
    at = put(b, put(b, at, &e, sizeof e), &v, sizeof v);
    for (rf_core_t c = 0; c < n_old; c++) at = put(b, at, &(wire_member_t){.core = c, .incarnation = 1}, 8);
    for (rf_core_t c = 2; c < 5; c++) at = put(b, at, &(wire_member_t){.core = c, .incarnation = 1}, 8);
    return at;
}

static void votes_of_other_sets_do_not_count(void **state)
{
    (void)state;
    net_t *n = net_new(&(net_knobs_t){.cores = 5, .voters_max = 5}, 1);
    _Alignas(8) uint8_t b[4096] = {0};
    agreement_params_t params = net_params(n, m1(4));
    wire_append_t a = {
        .term = 1, .committed = 1, .round = 1, .leader = {.core = 0, .incarnation = 1}, .n = 1};
    wire_form_t form = {.machine = params.machine, .n_cores = 5, .n_voters = 5, .n = 1};
    wire_entry_t e = {.term = 1, .kind = AGREEMENT_ENTRY_FORM, .size = sizeof form + 10 + 1};
    size_t at = put(b, put(b, put(b, 0, &a, sizeof a), &e, sizeof e), &form, sizeof form);
    for (rf_core_t c = 0; c < 5; c++) at = put(b, at, &c, 2);
    b[at] = 0x1f;
    net_receive(n, 4, m1(0), MESSAGE_APPEND, b, sizeof a + sizeof e + ((e.size + 7u) & ~7u));
    assert_true(net_state(n, 4).formed);
    n->now_ns += 40 * MS;
    net_step(n, 4, &(agreement_event_t){.kind = AGREEMENT_TICK});
    assert_int_equal(net_state(n, 4).role, AGREEMENT_ROLE_CANDIDATE);
    wire_vote_t v = {.term = 2, .granted = 1, .pre = 1};
    for (rf_core_t c = 1; c < 3; c++) net_receive(n, 4, m1(c), MESSAGE_VOTE, &v, sizeof v);
    v.pre = 0;
    net_receive(n, 4, m1(1), MESSAGE_VOTE, &v, sizeof v); /* 2 of 5 */
    assert_int_equal(net_state(n, 4).term, 2);
    assert_int_equal(net_state(n, 4).role, AGREEMENT_ROLE_CANDIDATE);
    memset(b, 0, sizeof b);
    a = (wire_append_t){.term = 1,
                        .prev_index = 1,
                        .prev_term = 1,
                        .committed = 3,
                        .leader = {.core = RF_CORE_NONE},
                        .n = 2,
                        .flags = APPEND_FEED};
    at = put_view(b, put_view(b, put(b, 0, &a, sizeof a), 2, 5), 3, 0);
    net_receive(n, 4, m1(1), MESSAGE_APPEND, b, at); /* committed: 2, 3 and 4 vote now, 1 does not */
    assert_int_equal(net_state(n, 4).n_voters, 3);
    net_receive(n, 4, m1(1), MESSAGE_VOTE, &v, sizeof v); /* the same vote, repeated */
    assert_int_not_equal(net_state(n, 4).role, AGREEMENT_ROLE_LEADER);
    net_free(n);
}

static void a_change_goes_on_when_completions_are_full(void **state)
{
    (void)state;
    net_t *n = formed(
        (net_knobs_t){
            .cores = 5, .voters_max = 5, .log_max = 256, .defects = AGREEMENT_DEFECT_CHANGE_UNASKED},
        1); /* who is needed is cut off when it has answered */
    for (rf_core_t c = 2; c < 4; c++) net_cut(n, 0, c, true);
    net_kill(n, 4);
    net_tell_death(n, 0, 4, AGREEMENT_EVIDENCE_KERNEL); /* JOINT */
    for (unsigned i = 0; i < 64; i++) net_propose(n, 0);
    unsigned other = net_propose(n, 1);
    net_run(n, MS);
    assert_false(n->proposed[other].answered);
    uint64_t last = net_state(n, 0).last; /* all of it is acknowledged by one message */
    wire_accepted_t all = {.view = 1, .term = 1, .match = last, .committed = 1, .applied = 1};
    net_receive(n, 0, m1(2), MESSAGE_ACCEPTED, &all, sizeof all);
    net_run(n, 2 * MS);
    assert_true(n->proposed[other].answered);
    assert_false(net_state(n, 0).joint);
    assert_int_equal(net_state(n, 0).members, 4);
    net_free(n);
}

/* The dying leader's kernel closes its links one after the other: who is asked for a vote may hear of it only then. It gives the vote
 * then, not after the time that a refusal costs: elected and committed after a vote's way and one round trip, of at most 90 us; what was
 * proposed meanwhile goes with the first entry. */
static void a_refusal_is_taken_back(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 20; seed++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true}, seed);
        assert_true(net_answered(n, net_propose(n, 1), MS));
        net_run(n, 2 * MS);
        net_kill(n, 0);
        net_tell_death(n, 1, 0, AGREEMENT_EVIDENCE_SILENCE);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_CANDIDATE);
        net_run(n, 100 * US); /* refused: the other one hears a leader */
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_CANDIDATE);
        unsigned p = net_propose(n, 1);
        net_tell_death(n, 2, 0, AGREEMENT_EVIDENCE_SILENCE);
        net_run(n, (45 + 90) * US);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_LEADER);
        assert_true(n->proposed[p].answered);
        assert_int_equal(n->proposed[p].err, RF_OK);
        net_free(n);
    }
}

static void kill_the_leader(net_t *n)
{
    net_kill(n, 0);
    for (rf_core_t core = 1; core < 3; core++) net_tell_death(n, core, 0, AGREEMENT_EVIDENCE_SILENCE);
}

/* Both know at once: one round trip for the vote, which was claimed, and one for the first entry; nobody is asked whether it would vote. */
static void a_claimed_vote_elects(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 20; seed++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true}, seed);
        assert_true(net_answered(n, net_propose(n, 1), MS));
        net_run(n, 2 * MS);
        uint64_t term = net_state(n, 1).term;
        kill_the_leader(n);
        unsigned p = net_propose(n, 1);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_CANDIDATE);
        assert_int_equal(net_state(n, 1).term, term); /* it enters the next when it has a vote of it */
        net_run(n, 90 * US);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_LEADER);
        assert_int_equal(net_state(n, 1).term, term + 1);
        net_run(n, 90 * US);
        assert_true(n->proposed[p].answered);
        net_free(n);
    }
}

/* The ring has gone round; in every other run the new leader's log holds a command of its own that is not committed, and that the other voter
 * lacks: still one round trip for the vote, and one for the first entry, with which a new command goes. */
static void what_waits_goes_with_the_first_entry(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 20; seed++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true, .log_max = 64}, seed);
        for (unsigned i = 0; i < 200; i++) assert_true(net_answered(n, net_propose(n, 1), MS));
        net_run(n, 2 * MS);
        uint64_t last = net_state(n, 1).last;
        net_cut(n, 0, 2, seed % 2 == 1);
        unsigned held = net_propose(n, 1);
        for (unsigned us = 0; us < 1000 && net_state(n, 1).last == last; us++) net_run(n, US);
        net_kill(n, 0);
        net_run(n, 90 * US); /* what is under way */
        if (seed % 2 == 1) assert_false(n->proposed[held].answered);
        for (rf_core_t core = 1; core < 3; core++) net_tell_death(n, core, 0, AGREEMENT_EVIDENCE_SILENCE);
        unsigned p = net_propose(n, 1);
        net_run(n, 2 * 90 * US);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_LEADER);
        assert_true(n->proposed[held].answered);
        assert_int_equal(n->proposed[held].err, RF_OK);
        assert_true(n->proposed[p].answered);
        assert_int_equal(n->proposed[p].err, RF_OK);
        net_free(n);
    }
}

/* The second's turn has come when the first learns of it: their claims cross, and the first is elected. */
static void of_claims_that_cross_the_first_wins(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 20; seed++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true, .election_ns = 300 * MS}, seed);
        assert_true(net_answered(n, net_propose(n, 1), MS));
        net_run(n, 400 * MS); /* time has to have begun an election ago */
        net_kill(n, 0);
        net_tell_death(n, 2, 0, AGREEMENT_EVIDENCE_SILENCE);
        for (unsigned us = 0; us < 1000 && net_state(n, 2).role != AGREEMENT_ROLE_CANDIDATE; us++)
            net_run(n, US);
        net_tell_death(n, 1, 0, AGREEMENT_EVIDENCE_SILENCE);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_CANDIDATE);
        assert_int_equal(net_state(n, 2).role, AGREEMENT_ROLE_CANDIDATE);
        net_run(n, 2 * 90 * US);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_LEADER);
        net_free(n);
    }
}

/* The second hears of it so late that it does not remember having been asked: when its turn has come the first, which refuses it, asks again. */
static void who_hears_late_is_asked_again(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 20; seed++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true, .election_ns = 300 * MS}, seed);
        assert_true(net_answered(n, net_propose(n, 1), MS));
        net_run(n, 400 * MS);
        net_kill(n, 0);
        net_tell_death(n, 1, 0, AGREEMENT_EVIDENCE_SILENCE);
        net_run(n, MS);
        net_tell_death(n, 2, 0, AGREEMENT_EVIDENCE_SILENCE);
        net_run(n, (800 + 3 * 45 + 1) * US);
        assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_LEADER);
        net_free(n);
    }
}

/* The one whose turn it is lacks an entry: who is asked, and has it, claims votes itself, without waiting for its turn. */
static void who_holds_more_claims_at_once(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 20; seed++) {
        net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true}, seed);
        assert_true(net_answered(n, net_propose(n, 1), MS));
        net_run(n, 2 * MS);
        net_cut(n, 0, 1, true);
        assert_true(net_answered(n, net_propose(n, 2), MS));
        assert_true(net_state(n, 2).last > net_state(n, 1).last);
        kill_the_leader(n);
        net_run(n, 3 * 45 * US);
        assert_int_equal(net_state(n, 2).role, AGREEMENT_ROLE_LEADER);
        net_free(n);
    }
}

/* A link that broke, and a leader that lives: the others hear it, and no term is spent. */
static void a_broken_link_costs_no_election(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 1);
    uint64_t term = net_state(n, 0).term;
    net_tell_death(n, 1, 0, AGREEMENT_EVIDENCE_SILENCE);
    unsigned p = net_propose(n, 1);
    assert_true(net_answered(n, p, 50 * MS));
    net_run(n, 50 * MS);
    assert_int_equal(net_state(n, 0).role, AGREEMENT_ROLE_LEADER);
    for (rf_core_t core = 0; core < 3; core++) assert_int_equal(net_state(n, core).term, term);
    net_free(n);
}

static void many_reads_at_once_are_all_answered(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true, .lease_ns = 4 * MS}, 1);
    unsigned p = net_propose(n, 0);
    assert_true(net_answered(n, p, MS));
    net_run(n, 2 * MS);
    net_cut(n, 0, 1, true);
    for (unsigned i = 0; i < 30; i++) net_read(n, 1);
    net_cut(n, 0, 1, false); /* all in one READ */
    net_run(n, 50 * MS);
    for (unsigned i = 0; i < n->n_reads; i++) assert_true(n->reads[i].answered);
    net_free(n);
}

static void a_lost_stand_does_not_stop_the_machine(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .lossless = true, .no_timeouts = true}, 1);
    net_isolate(n, 0, true);
    net_step(n, 0, &(agreement_event_t){.kind = AGREEMENT_TRANSFER});
    net_run(n, MS);
    net_isolate(n, 0, false);
    net_run(n, 200 * MS);
    unsigned p = net_propose(n, 0);
    assert_true(net_answered(n, p, 50 * MS));
    net_free(n);
}

static void what_is_executed_is_not_unknown(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 1);
    unsigned p = net_propose(n, 2);
    n->cut[0][2] = true; /* it hears nothing; it is heard */
    net_run(n, 3 * MS);
    uint8_t b[128] = {0};
    wire_proposal_t w = {.session = n->proposed[p].session,
                         .sequence = n->proposed[p].sequence,
                         .kind = AGREEMENT_ENTRY_COMMAND,
                         .size = 8,
                         .again = 1};
    put(b, 0, &w, sizeof w);
    n->cut[0][2] = false;
    net_receive(n, 0, m1(2), MESSAGE_FORWARD, b, sizeof w + 8);
    net_run(n, 20 * MS);
    assert_true(n->proposed[p].answered);
    assert_int_equal(n->proposed[p].err, RF_OK);
    net_free(n);
}

static void a_view_is_not_half_carried_out(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 5, .voters_max = 5, .log_max = 1024}, 1);
    net_kill(n, 4);
    net_tell_death(n, 0, 4, AGREEMENT_EVIDENCE_KERNEL);
    agreement_member_t leaves = m1(2);
    net_change(n, 0, NULL, 0, &leaves, 1); /* of the two one waits for the other */
    for (unsigned k = 0; k < 40; k++) {
        for (unsigned i = 0; i < 30; i++) net_propose(n, 0);
        net_run(n, 10 * US);
    }
    net_run(n, 20 * MS);
    agreement_state_t s = net_state(n, 0);
    bool votes = false;
    for (unsigned i = 0; i < s.n_voters; i++) votes |= s.voters[i].core == 2;
    assert_false(s.joint || votes);
    assert_int_equal(s.members, 3);
    assert_int_equal(agreement_member_state(n->cores[0].engine, 2, NULL), AGREEMENT_MEMBER_OUT);
    net_free(n);
}

static void a_learner_of_a_later_term_is_not_left_out(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3}, 1);
    rf_core_t l = 0;
    for (rf_core_t c = 0; c < 4; c++)
        if (net_state(n, c).role == AGREEMENT_ROLE_LEARNER) l = c;
    assert_true(l > 0);
    /* from a candidate of term 6 that fed it, and died */
    wire_append_t a = {.view = 1,
                       .term = 6,
                       .prev_index = 1,
                       .prev_term = 1,
                       .committed = 1,
                       .leader = {.core = RF_CORE_NONE},
                       .flags = APPEND_FEED};
    net_receive(n, l, m1(l == 1 ? 2 : 1), MESSAGE_APPEND, &a, sizeof a);
    net_run(n, 500 * MS);
    unsigned p = net_propose(n, l);
    net_run(n, 100 * MS);
    assert_true(n->proposed[p].answered);
    assert_int_equal(n->proposed[p].err, RF_OK);
    net_free(n);
}

/* The sender has made another snapshot since: an answer about the one before says nothing of it. */
static void an_answer_about_another_snapshot(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .log_max = 16}, 1);
    agreement_t *e = n->cores[0].engine;
    progress_t *p = progress_find(e, m1(2));
    p->mode = PROGRESS_SNAPSHOT;
    e->transfers[p - e->progress] = (transfer_t){.id = 1};
    e->out.id = 65537;
    e->out.index = e->applied;
    e->out.size = 5000;
    uint64_t next = p->next = 1;
    snapshot_acked(e, p, 1, 5000);
    assert_int_equal(p->next, next);
    net_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(votes_of_other_sets_do_not_count),
        cmocka_unit_test(a_change_goes_on_when_completions_are_full),
        cmocka_unit_test(many_reads_at_once_are_all_answered),
        cmocka_unit_test(a_lost_stand_does_not_stop_the_machine),
        cmocka_unit_test(a_view_is_not_half_carried_out),
        cmocka_unit_test(a_learner_of_a_later_term_is_not_left_out),
        cmocka_unit_test(an_answer_about_another_snapshot),
        cmocka_unit_test(a_refusal_is_taken_back),
        cmocka_unit_test(a_claimed_vote_elects),
        cmocka_unit_test(what_waits_goes_with_the_first_entry),
        cmocka_unit_test(who_holds_more_claims_at_once),
        cmocka_unit_test(of_claims_that_cross_the_first_wins),
        cmocka_unit_test(who_hears_late_is_asked_again),
        cmocka_unit_test(a_broken_link_costs_no_election),
        cmocka_unit_test(what_is_executed_is_not_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
