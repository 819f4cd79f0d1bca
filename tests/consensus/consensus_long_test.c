/*
 * What the engine does with what lasts: a change of members that has to wait while its session goes on; a cut that outlasts many attempts
 * to be elected; a transfer of the state while the log goes on. Each a scripted run.
 */
#include "net_script.h"
#include "consensus/engine.h"

static void goes_on_for_two_windows(net_t *n, rf_core_t core)
{
    for (unsigned i = 0; i < 2 * AGREEMENT_WINDOW; i++) goes_on(n, core);
}

static bool has_left(net_t *n, void *core)
{
    return agreement_member_state(n->cores[0].engine, *(rf_core_t *)core, NULL) == AGREEMENT_MEMBER_OUT;
}

/* A voter is dead, and nobody knows: another that wants to leave waits, while its session goes on beyond the window that tells what was
 * executed. The leader still holds the change: it may not say that it never will be. */
static void a_change_that_waits_is_not_denied(void **state)
{
    (void)state;
    for (unsigned by = 0; by < 3; by += 2) { /* by the leader itself, and by another */
        net_t *n = formed((net_knobs_t){.cores = 3}, 1);
        agreement_member_t leaver = {.core = 2, .incarnation = 1};
        assert_int_equal(net_leader(n), 0);
        net_kill(n, 1);
        net_run(n, 10 * MS);
        unsigned change = net_change(n, (rf_core_t)by, NULL, 0, &leaver, 1);
        goes_on_for_two_windows(n, (rf_core_t)by);
        net_run(n, 5 * MS); /* it is sent again meanwhile */
        assert_false(n->proposed[change].answered);
        net_tell_all(n, 1);
        assert_true(net_until(n, has_left, &leaver.core, 200 * MS));
        goes_on(n, 0);
        if (by == 0) assert_true(n->proposed[change].answered && n->proposed[change].err == RF_OK);
        net_free(n);
    }
}

static bool leaver_is_out(net_t *n, void *context)
{
    (void)context;
    return agreement_member_state(n->cores[0].engine, 2, NULL) == AGREEMENT_MEMBER_OUT;
}

/* One of three voters is cut off, or has died, and nobody has noticed; another asks to leave. Without the first the two that would be left are
 * no majority: so the change does not go into the log, where nobody could take it back, and the machine goes on. */
static void a_leave_does_not_wait_in_the_log_for_who_is_silent(void **state)
{
    (void)state;
    for (unsigned unasked = 0; unasked < 2; unasked++) {
        net_knobs_t knobs = {.cores = 3, .defects = unasked ? AGREEMENT_DEFECT_CHANGE_UNASKED : 0};
        for (rf_core_t by = 0; by < 3; by += 2) { /* through the leader, and by itself */
            net_t *n = formed(knobs, 1);
            agreement_member_t leaver = {.core = 2, .incarnation = 1};
            assert_int_equal(net_leader(n), 0);
            goes_on(n, 0);
            net_kill(n, 1); /* a moment ago it was heard */
            unsigned change = net_change(n, by, NULL, 0, &leaver, 1);
            net_run(n, 2 * MS);
            assert_int_equal(net_state(n, 0).joint, unasked);
            assert_false(n->proposed[change].answered);
            unsigned command = net_propose(n, 0);
            assert_true(net_answered(n, command, 50 * MS));
            assert_int_equal(n->proposed[command].err, unasked ? RF_ERR_UNKNOWN_OUTCOME : RF_OK);
            if (unasked) {
                assert_false(net_until(n, leaver_is_out, NULL, 1000 * MS)); /* for ever */
            } else {
                net_tell_all(n, 1);
                assert_true(net_until(n, leaver_is_out, NULL, 200 * MS));
                goes_on(n, 0);
            }
            net_free(n);
        }
    }
}

static bool grown_to(net_t *n, void *voters)
{
    agreement_state_t s = net_state(n, 0);
    return !s.joint && s.n_voters == *(unsigned *)voters;
}

/* Who learns has caught up, and has died before it is made a voter: of one voter the machine would need it. */
static void who_is_promoted_has_just_answered(void **state)
{
    (void)state;
    for (unsigned unasked = 0; unasked < 2; unasked++) {
        net_t *n =
            formed((net_knobs_t){.cores = 3, .defects = unasked ? AGREEMENT_DEFECT_CHANGE_UNASKED : 0}, 1);
        agreement_member_t leave[] = {net_member(n, 1), net_member(n, 2)};
        unsigned one = 1, two = 2;
        net_change(n, 0, NULL, 0, leave, 2);
        assert_true(net_until(n, grown_to, &one, 50 * MS));
        for (rf_core_t core = 1; core < 3; core++) net_kill(n, core);
        net_change(n, 0, (rf_core_t[]){1, 2}, 2, NULL, 0);
        net_run(n, MS);
        assert_int_equal(net_state(n, 0).members, 3);
        net_start(n, 1, 2);
        net_run(n, MS); /* it has caught up; the other one, which is wanted as well, is waited for */
        net_kill(n, 1);
        assert_int_equal(net_state(n, 0).n_voters, 1);
        bool grew = net_until(n, grown_to, &two, 50 * MS) || net_state(n, 0).joint;
        assert_int_equal(grew, unasked);
        unsigned command = net_propose(n, 0);
        assert_true(net_answered(n, command, 50 * MS));
        assert_int_equal(n->proposed[command].err == RF_OK, !unasked);
        net_free(n);
    }
}

static bool somebody_leads(net_t *n, void *before)
{
    rf_core_t leader = net_leader(n);
    return leader != RF_CORE_NONE && net_state(n, leader).term > *(uint64_t *)before;
}

/* The leader is dead, and only one of the others was told; then these are cut off from each other. Who knows of the death stands without
 * asking first, but not for ever: terms that rise all the time come so far that nobody else believes them (term_possible). */
static void who_is_cut_off_after_a_death_raises_no_terms(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 1);
    assert_int_equal(net_leader(n), 0);
    uint64_t before = net_state(n, 0).term;
    net_kill(n, 0);
    net_isolate(n, 1, true);
    net_tell_death(n, 1, 0, AGREEMENT_EVIDENCE_KERNEL);
    net_run(n, 1000 * MS);
    uint64_t soon = net_state(n, 1).term;
    net_run(n, 20000 * MS);
    assert_int_equal(net_state(n, 1).term, soon);
    assert_true(soon <= before + EVIDENCE_STANDS);
    assert_int_equal(net_state(n, 2).term, before);
    assert_false(net_state(n, 1).quorum);
    net_heal(n);
    assert_true(net_until(n, somebody_leads, &before, 100 * MS));
    goes_on(n, 1);
    goes_on(n, 2);
    net_free(n);
}

/* So many commands a second, for so long, at the leader. How many were answered. */
static unsigned load(net_t *n, unsigned per_s, uint64_t ns)
{
    unsigned done = 0, first = n->n_proposed;
    for (uint64_t until = n->now_ns + ns; n->now_ns < until;) {
        net_propose(n, net_leader(n));
        net_run(n, RF_NS_PER_S / per_s);
    }
    for (unsigned i = first; i < n->n_proposed; i++)
        done += n->proposed[i].answered && n->proposed[i].err == RF_OK;
    return done;
}

static bool is_behind(const net_t *n, rf_core_t core)
{
    return net_state(n, core).applied + n->knobs.log_max < net_state(n, net_leader(n)).committed;
}

/* A voter was stopped for longer than the ring lasts, and the load goes on: it is sent the state, for which the ring keeps what follows. */
static void a_voter_catches_up_under_load(void **state)
{
    (void)state;
    for (unsigned log_max = 64; log_max <= 256; log_max *= 4) {
        net_t *n = formed((net_knobs_t){.cores = 3, .log_max = log_max, .snapshot_size = 1500000}, 1);
        load(n, 60000, 2 * MS);
        n->cores[2].stalled_until_ns = n->now_ns + 10 * MS;
        load(n, 60000, 10 * MS);
        assert_true(is_behind(n, 2));
        unsigned loads = n->cores[2].n_loads;
        load(n, 60000, 50 * MS);
        assert_int_equal(n->cores[2].n_loads, loads + 1);
        assert_false(is_behind(n, 2));
        net_free(n);
    }
}

/* For a learner nobody waits: it is there before the ring has gone on past what it was sent, by as many chunks in flight as links take. */
static void a_learner_catches_up_under_load(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .log_max = 256, .snapshot_size = 1500000}, 1);
    const agreement_t *e = n->cores[0].engine;
    n->cores[3].stalled_until_ns = n->now_ns + 10 * MS;
    load(n, 60000, 10 * MS);
    assert_true(is_behind(n, 3));
    for (unsigned i = 0; i < 20; i++) {
        load(n, 60000, MS);
        assert_false(e->hold.on);
    }
    assert_false(is_behind(n, 3));
    net_free(n);
}

static rf_core_t any_learner(const net_t *n, rf_core_t from)
{
    agreement_state_t s = net_state(n, 0);
    for (rf_core_t core = from; core < n->knobs.cores; core++) {
        bool votes = false;
        for (unsigned i = 0; i < s.n_voters; i++) votes |= s.voters[i].core == core;
        if (!votes) return core;
    }
    return RF_CORE_NONE;
}

/* Who learns behind a slow line: the ring goes on past each snapshot before it has arrived. It is expelled after behind_ns, by whomever it
 * is fed, hears of it, and the others go on; when the load is over its next incarnation is there. */
static void a_learner_behind_a_slow_line_is_expelled(void **state)
{
    (void)state;
    for (unsigned by_parent = 0; by_parent < 2; by_parent++) {
        net_t *n = formed((net_knobs_t){.cores = 6,
                                        .per_host = 3,
                                        .voters_max = 3,
                                        .log_max = 64,
                                        .plan = by_parent ? AGREEMENT_PLAN_HOST : AGREEMENT_PLAN_BROADCAST,
                                        .snapshot_size = 1500000,
                                        .behind_ns = 60 * MS},
                          1);
        assert_int_equal(net_leader(n), 0);
        rf_core_t learner = any_learner(n, 3);
        assert_int_not_equal(learner, RF_CORE_NONE);
        bool parent[2] = {progress_find(n->cores[0].engine, net_member(n, learner)) != NULL,
                          progress_find(n->cores[3].engine, net_member(n, learner)) != NULL};
        assert_true(parent[by_parent] && !parent[!by_parent]);
        for (rf_core_t core = 0; core < 6; core++) n->slow_ns[core][learner] = 100 * US; /* 320 Mbit/s */
        load(n, 20000, 3 * MS);
        n->cores[learner].stalled_until_ns = n->now_ns + 10 * MS;
        load(n, 20000, 10 * MS);
        assert_true(is_behind(n, learner));
        for (unsigned i = 0; i < 20 && n->cores[learner].alive; i++) load(n, 20000, 10 * MS);
        assert_true(n->cores[learner].expelled);
        agreement_state_t s = net_state(n, 0);
        assert_int_equal(s.expulsions, 1);
        assert_int_equal(s.members, 5);
        assert_int_equal(s.expelled_behind, 1);
        assert_int_equal(s.behind.core, learner);
        goes_on(n, 0);
        net_change(n, 1, &learner, 1, NULL, 0);
        net_run(n, 5 * MS);
        net_start(n, learner, 2);
        net_run(n, 50 * MS);
        assert_int_equal(net_state(n, learner).applied, net_state(n, 0).applied);
        net_kill(n, learner); /* its next life merely dies */
        net_tell_all(n, learner);
        net_run(n, 50 * MS);
        assert_int_equal(net_state(n, 0).members, 5);
        assert_int_equal(net_state(n, 0).expelled_behind, 1);
        net_free(n);
    }
}

/* Its parent cannot reach it any more, or not hear it; it is fed by the leader, and lacks nothing: so it stays, whatever its parent knows. */
static void who_is_fed_by_another_is_not_behind(void **state)
{
    (void)state;
    for (unsigned both = 0; both < 2; both++) {
        net_t *n = formed((net_knobs_t){.cores = 6,
                                        .per_host = 3,
                                        .voters_max = 3,
                                        .log_max = 64,
                                        .plan = AGREEMENT_PLAN_HOST,
                                        .behind_ns = 100 * MS},
                          1);
        rf_core_t learner = any_learner(n, 3);
        assert_non_null(progress_find(n->cores[3].engine, net_member(n, learner)));
        n->cut[3][learner] = true;
        n->cut[learner][3] = both;
        for (unsigned i = 0; i < 100; i++) {
            goes_on(n, 0);
            net_run(n, 5 * MS);
        }
        assert_int_equal(net_state(n, 0).members, 6);
        assert_int_equal(net_state(n, learner).applied, net_state(n, 0).applied);
        net_free(n);
    }
}

/* A learner that nobody feeds any more proposes, or asks what it must have applied, all the time. The leader answers, and what it answers
 * says that more is committed: so the learner has itself fed by the leader, as soon as one that is merely behind. */
static void who_hears_the_leader_and_is_not_fed_asks(void **state)
{
    (void)state;
    for (unsigned reads = 0; reads < 2; reads++) {
        net_t *n =
            formed((net_knobs_t){.cores = 6, .per_host = 3, .voters_max = 3, .plan = AGREEMENT_PLAN_HOST}, 1);
        rf_core_t learner = any_learner(n, 3);
        const agreement_t *e = n->cores[learner].engine;
        const uint64_t fetches = e->n_fetches;
        n->slow_ns[3][learner] = 500 * US; /* it is told by the leader of what is on its way */
        for (unsigned i = 0; i < 20; i++) {
            net_run(n, 10 * MS);
            goes_on(n, 0);
            net_read(n, learner);
        }
        net_run(n, 5 * MS);
        assert_int_equal(e->n_fetches, fetches);
        net_cut(n, 3, learner, true);
        const uint64_t since_ns = n->now_ns;
        goes_on(n, 0);
        unsigned first = n->n_proposed;
        while (net_state(n, learner).applied < net_state(n, 0).applied) {
            assert_true(n->now_ns < since_ns + 20 * MS);
            if (reads)
                net_read(n, learner);
            else
                net_propose(n, learner);
            net_run(n, 500 * US);
        }
        net_run(n, 5 * MS);
        for (unsigned i = first; i < n->n_proposed; i++)
            assert_true(n->proposed[i].answered && n->proposed[i].err == RF_OK);
        for (unsigned i = 0; i < n->n_reads; i++)
            assert_true(n->reads[i].answered && n->reads[i].err == RF_OK);
        net_free(n);
    }
}

/* A learner is said not to catch up while a change waits, and is heard before it could go: it stays, and is not counted as expelled for that. */
static void who_is_heard_in_time_is_not_expelled(void **state)
{
    (void)state;
    for (unsigned heard = 0; heard < 2; heard++) {
        net_t *n =
            formed((net_knobs_t){.cores = 6, .per_host = 3, .voters_max = 3, .plan = AGREEMENT_PLAN_HOST}, 1);
        rf_core_t learner = any_learner(n, 3), dead;
        for (dead = 1; progress_find(n->cores[0].engine, net_member(n, dead)) == NULL; dead++) continue;
        struct {
            wire_head_t head;
            wire_member_t who;
        } report = {.head = {.view = 1, .term = n->cores[0].engine->term},
                    .who = to_wire(net_member(n, learner), AGREEMENT_EVIDENCE_BEHIND)};
        assert_int_equal(net_leader(n), 0);
        net_kill(n, dead);
        net_tell_death(n, 0, dead, AGREEMENT_EVIDENCE_KERNEL);
        net_receive(n, 0, net_member(n, 3), MESSAGE_REPORT, &report, sizeof report);
        assert_int_equal(net_state(n, 0).members, 6);
        if (heard) net_propose(n, learner);
        net_run(n, 50 * MS);
        agreement_state_t s = net_state(n, 0);
        assert_int_equal(s.members, heard ? 5 : 4);
        assert_int_equal(s.expelled_behind, heard ? 0 : 1);
        assert_true(heard || s.behind.core == learner);
        net_free(n);
    }
}

static bool dead_is_out(net_t *n, void *dead)
{
    return agreement_member_state(n->cores[net_leader(n)].engine, *(rf_core_t *)dead, NULL) ==
           AGREEMENT_MEMBER_OUT;
}

/* Answers that take longer than the time after which they are asked for again are answers nevertheless. */
static void voters_change_where_answers_are_slow(void **state)
{
    (void)state;
    for (uint64_t far_ns = 500 * US; far_ns < 2000 * US; far_ns += 400 * US) {
        net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3}, 1);
        n->far_ns = far_ns;
        net_run(n, 50 * MS);
        agreement_state_t s = net_state(n, net_leader(n));
        rf_core_t dead = s.voters[0].core == net_leader(n) ? s.voters[1].core : s.voters[0].core;
        net_kill(n, dead);
        net_tell_all(n, dead);
        assert_true(net_until(n, dead_is_out, &dead, 500 * MS));
        net_free(n);
    }
}

/* The one that is waited for stops again on the way: the others go on after HOLD_SILENT_NS, and it is not waited for again soon. */
static void a_voter_that_stops_again_holds_nobody_up(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .log_max = 64, .snapshot_size = 1500000}, 1);
    load(n, 60000, 2 * MS);
    n->cores[2].stalled_until_ns = n->now_ns + 10 * MS;
    load(n, 60000, 10 * MS + 500 * US);
    const agreement_t *e = n->cores[0].engine;
    assert_true(e->hold.on);
    net_kill(n, 2);
    unsigned done = load(n, 60000, 60 * MS);
    assert_true(done > 6 * 3600 / 10); /* of six tenths a part was held up */
    assert_true(load(n, 60000, 5 * MS) > 290);
    net_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_that_waits_is_not_denied),
        cmocka_unit_test(a_leave_does_not_wait_in_the_log_for_who_is_silent),
        cmocka_unit_test(who_is_promoted_has_just_answered),
        cmocka_unit_test(who_is_cut_off_after_a_death_raises_no_terms),
        cmocka_unit_test(a_voter_catches_up_under_load),
        cmocka_unit_test(a_learner_catches_up_under_load),
        cmocka_unit_test(a_learner_behind_a_slow_line_is_expelled),
        cmocka_unit_test(who_is_fed_by_another_is_not_behind),
        cmocka_unit_test(who_hears_the_leader_and_is_not_fed_asks),
        cmocka_unit_test(who_is_heard_in_time_is_not_expelled),
        cmocka_unit_test(voters_change_where_answers_are_slow),
        cmocka_unit_test(a_voter_that_stops_again_holds_nobody_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
