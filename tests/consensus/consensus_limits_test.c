/*
 * What the engine does where something is full, far off, or dead at the worst moment: each a scripted run that once stopped it,
 * or made it say what was not so. Looks into the engine where nothing is to be seen from outside, so it includes engine.h.
 */
#include "net_script.h"
#include "consensus/engine.h"

#include <unistd.h>

static bool later_leader(net_t *n, void *term)
{
    rf_core_t leader = net_leader(n);
    return leader != RF_CORE_NONE && net_state(n, leader).term > *(uint64_t *)term;
}

/* Each leader's TERM entry reaches the other, whose answer is lost: more leaderships than there are entries reserved. */
static void leaderships_that_fail_on_a_full_ring(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .log_max = 16}, 1);
    net_isolate(n, 2, true);
    n->cut[1][0] = true;
    for (unsigned i = 0; i < 30; i++) net_propose(n, 0);
    net_run(n, 7 * MS);
    bool full = false;
    for (unsigned i = 0; i < 3 * AGREEMENT_LOG_RESERVED; i++) {
        uint64_t term =
            net_state(n, 0).term > net_state(n, 1).term ? net_state(n, 0).term : net_state(n, 1).term;
        n->cut[0][1] = n->cut[1][0] = false;
        if (!net_until(n, later_leader, &term, 60 * MS)) break;
        rf_core_t leader = net_leader(n);
        n->cut[1 - leader][leader] = true;
        net_run(n, 7 * MS); /* it is not answered, and steps down */
        agreement_state_t s = net_state(n, leader);
        full |= s.last == s.applied + 16;
    }
    assert_true(full);
    net_heal(n);
    goes_on(n, 1);
    net_run(n, 50 * MS);
    net_check_quiet(n);
    net_free(n);
}

/* A log that was sealed in a term is not given away to one that is longer, of an earlier term. */
static void a_sealed_log_is_of_that_term(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 5, .voters_max = 5}, 1);
    agreement_t *e = n->cores[4].engine;
    wire_append_t a = {.term = 7,
                       .prev_index = e->last,
                       .prev_term = 1,
                       .committed = e->committed,
                       .leader = {.core = 1, .incarnation = 1},
                       .flags = APPEND_ASK | APPEND_SEAL};
    net_isolate(n, 4, true);
    net_receive(n, 4, m1(1), MESSAGE_APPEND, &a, sizeof a);
    n->now_ns += 40 * MS;
    assert_int_equal(log_vote_term(e), 7);
    wire_vote_request_t longer = {.term = 9, .last_term = 6, .last_index = e->last + 3};
    net_receive(n, 4, m1(2), MESSAGE_VOTE_REQUEST, &longer, sizeof longer);
    assert_int_equal(e->voted.core, RF_CORE_NONE);
    wire_vote_request_t sealed = {.term = 9, .last_term = 7, .last_index = e->last};
    net_receive(n, 4, m1(3), MESSAGE_VOTE_REQUEST, &sealed, sizeof sealed);
    assert_int_equal(e->voted.core, 3);
    net_free(n);
}

/* A follower with more than the leader has, of an earlier term: sealing ends its log where the leader's ends; but not when the
 * leader has gone on since, and the message is an old one. */
static void sealing_ends_the_log(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .voters_max = 3}, 1);
    agreement_t *e = n->cores[2].engine;
    net_isolate(n, 2, true);
    uint64_t end = e->last;
    struct {
        wire_append_t head;
        wire_entry_t entry;
    } one = {.head = {.term = 5,
                      .prev_index = end,
                      .prev_term = 1,
                      .leader = {.core = 1, .incarnation = 1},
                      .n = 1},
             .entry = {.term = 5, .kind = AGREEMENT_ENTRY_TERM}};
    net_receive(n, 2, m1(1), MESSAGE_APPEND, &one, sizeof one);
    assert_int_equal(e->last, end + 1);
    wire_append_t seal = {.term = 6,
                          .prev_index = end,
                          .prev_term = 1,
                          .leader = {.core = 0, .incarnation = 1},
                          .flags = APPEND_SEAL};
    net_receive(n, 2, m1(0), MESSAGE_APPEND, &seal, sizeof seal);
    assert_int_equal(e->last, end);
    assert_int_equal(log_vote_term(e), 6);
    one.head.term = one.entry.term = 6;
    one.head.leader.core = 0;
    net_receive(n, 2, m1(0), MESSAGE_APPEND, &one, sizeof one);
    net_receive(n, 2, m1(0), MESSAGE_APPEND, &seal, sizeof seal);
    assert_int_equal(e->last, end + 1);
    net_free(n);
}

/* Whoever is behind, and gets more than the sealed log in one message, may have place for the sealed part alone: it says that it holds it,
 * and has not sealed it. So nothing is behind a seal until that is committed; here by a leader that has applied more since it sealed. */
static void nothing_goes_behind_a_seal_that_is_not_committed(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 5, .voters_max = 5, .log_max = 16}, 1);
    const agreement_t *from = n->cores[0].engine, *e = n->cores[1].engine;
    uint64_t begin = e->last, end = begin + 16;
    assert_int_equal(e->applied, begin);
    net_isolate(n, 1, true);
    while (from->last < end) goes_on(n, 0);

    struct {
        wire_append_t head;
        uint8_t entries[AGREEMENT_MESSAGE_MAX - sizeof(wire_append_t)];
    } all = {.head = {.term = 1,
                      .prev_index = begin,
                      .prev_term = 1,
                      .committed = begin,
                      .leader = {.core = 0, .incarnation = 1},
                      .n = 16}};
    size_t size = 0;
    assert_int_equal(send_put_entries(from, begin + 1, end, all.entries, &size, sizeof all.entries), 16);
    net_receive(n, 1, m1(0), MESSAGE_APPEND, &all, sizeof all.head + size);
    assert_int_equal(e->last, end);

    n->now_ns += 40 * MS;
    agreement_event_t tick = {.kind = AGREEMENT_TICK};
    net_step(n, 1, &tick);
    wire_vote_t vote = {.term = 2, .granted = VOTE_GRANTED, .pre = 1, .applied = begin + 12, .last = end};
    for (rf_core_t by = 2; by <= 3; by++) net_receive(n, 1, m1(by), MESSAGE_VOTE, &vote, sizeof vote);
    assert_int_equal(e->term, 2);
    assert_int_equal(e->role, AGREEMENT_ROLE_CANDIDATE);
    wire_append_t fed = {.term = 1,
                         .prev_index = begin + 12,
                         .prev_term = 1,
                         .committed = begin + 12,
                         .leader = {.core = RF_CORE_NONE},
                         .flags = APPEND_FEED};
    n->knobs.hold_percent = 100; /* it leads before it applies what it has just learned to be committed */
    net_receive(n, 1, m1(2), MESSAGE_APPEND, &fed, sizeof fed);
    n->knobs.hold_percent = 0;
    assert_int_equal(e->applied, begin);
    vote.pre = 0;
    for (rf_core_t by = 2; by <= 3; by++) {
        n->knobs.hold_percent = by == 2 ? 100 : 0;
        net_receive(n, 1, m1(by), MESSAGE_VOTE, &vote, sizeof vote);
    }
    assert_int_equal(e->role, AGREEMENT_ROLE_LEADER);
    assert_int_equal(e->sealed_index, end);
    assert_int_equal(e->applied, begin + 12);

    wire_accepted_t accepted = {
        .term = 2, .match = begin + 12, .committed = begin + 12, .applied = begin + 12};
    for (rf_core_t by = 2; by <= 3; by++)
        net_receive(n, 1, m1(by), MESSAGE_ACCEPTED, &accepted, sizeof accepted);
    net_propose(n, 1);
    n->now_ns += MS;
    net_step(n, 1, &tick);
    assert_int_equal(e->committed, begin + 12);
    assert_int_equal(e->last, end);
    accepted.match = end;
    for (rf_core_t by = 2; by <= 3; by++)
        net_receive(n, 1, m1(by), MESSAGE_ACCEPTED, &accepted, sizeof accepted);
    assert_int_equal(e->committed, end);
    assert_int_equal(e->last, end + 1); /* it goes on at once */
    net_free(n);
}

static void a_term_that_cannot_be(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3}, 1);
    uint64_t far = UINT64_MAX / 2;
    for (rf_core_t to = 0; to < 4; to++) {
        rf_core_t liar = to == 3 ? 2 : 3;
        wire_accepted_t accepted = {.view = 1, .term = far};
        wire_vote_request_t request = {
            .term = far, .last_term = far, .last_index = 100, .flags = VOTE_TRANSFER};
        wire_vote_t vote = {.term = far};
        wire_append_t append = {.term = far, .leader = {.core = RF_CORE_NONE}, .flags = APPEND_FEED};
        struct {
            wire_snapshot_t head;
            uint8_t byte;
        } snapshot = {.head = {.term = far, .id = 1, .index = 100, .total = 5000}};
        net_receive(n, to, m1(liar), MESSAGE_ACCEPTED, &accepted, sizeof accepted);
        net_receive(n, to, m1(liar), MESSAGE_VOTE_REQUEST, &request, sizeof request);
        net_receive(n, to, m1(liar), MESSAGE_VOTE, &vote, sizeof vote);
        net_receive(n, to, m1(liar), MESSAGE_APPEND, &append, sizeof append);
        net_receive(n, to, m1(liar), MESSAGE_SNAPSHOT, &snapshot, sizeof snapshot.head + 1);
        assert_true(net_state(n, to).term < 100);
    }
    goes_on(n, 1);
    rf_core_t leader = net_leader(n);
    net_kill(n, leader);
    net_tell_all(n, leader);
    goes_on(n, leader == 1 ? 2 : 1);
    net_free(n);
}

/* What went unanswered long ago does not make every later refusal an unknown outcome. */
static void what_is_unknown_is_not_everything(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 1);
    unsigned n_unknown = 0;
    for (unsigned round = 0; round < 6; round++) {
        net_isolate(n, 2, true);
        unsigned first = n->n_proposed;
        for (unsigned i = 0; i < 40; i++) net_propose(n, 2);
        assert_true(net_all_answered(n, 100 * MS));
        for (unsigned i = first; i < n->n_proposed; i++)
            n_unknown += n->proposed[i].err == RF_ERR_UNKNOWN_OUTCOME;
        if (round < 5) {
            net_isolate(n, 2, false);
            net_run(n, 30 * MS);
            goes_on(n, 2);
        }
    }
    assert_true(n_unknown > 3 * AGREEMENT_WINDOW);
    assert_false(net_state(n, 2).quorum);
    unsigned p = net_propose(n, 2);
    assert_true(n->proposed[p].answered);
    assert_int_equal(n->proposed[p].err, RF_ERR_NO_QUORUM);
    /* but those that were: still unknown, the first of them too */
    uint64_t sequence = 0;
    for (unsigned i = 0; i < n->n_proposed && sequence == 0; i++) {
        if (n->proposed[i].err == RF_ERR_UNKNOWN_OUTCOME) sequence = n->proposed[i].sequence;
    }
    p = net_propose_as(n, 2, agreement_own_session(n->cores[2].engine), sequence, n->next_number);
    assert_int_equal(n->proposed[p].err, RF_ERR_UNKNOWN_OUTCOME);
    net_free(n);
}

/* More reads than the leader keeps: those it has no room for are told so, all of them, and come again. */
static void reads_that_find_no_room(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 9, .voters_max = 3, .lossless = true}, 1);
    agreement_t *e = n->cores[0].engine;
    assert_int_equal(net_leader(n), 0);
    rf_core_t voter[2] = {0, 0};
    for (unsigned i = 0, k = 0; i < 3; i++) {
        if (net_state(n, 0).voters[i].core != 0) voter[k++] = net_state(n, 0).voters[i].core;
    }
    for (unsigned i = 0; i < 2; i++) net_cut(n, 0, voter[i], true);
    for (rf_core_t c = 1; c < 9; c++) {
        if (c == voter[0] || c == voter[1]) continue;
        net_cut(n, 0, c, true);
        for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) net_read(n, c);
        net_cut(n, 0, c, false); /* all in one READ */
    }
    net_run(n, MS);
    assert_int_equal(e->n_served, SERVED_READS_MAX);
    for (unsigned i = 0; i < 2; i++) net_cut(n, 0, voter[i], false);
    net_run(n, 30 * MS);
    for (unsigned i = 0; i < n->n_reads; i++) {
        assert_true(n->reads[i].answered);
        assert_int_equal(n->reads[i].err, RF_OK);
    }
    net_free(n);
}

/* The leader alone has a change in its log whose new voters then die: the old ones live, nothing is lost, and they go on. */
static void new_voters_die_before_the_change_is_committed(void **state)
{
    (void)state;
    net_t *n =
        formed((net_knobs_t){.cores = 5, .voters_max = 3, .defects = AGREEMENT_DEFECT_CHANGE_UNASKED}, 1);
    agreement_state_t s = net_state(n, 0);
    assert_int_equal(net_leader(n), 0);
    agreement_member_t leave[2];
    for (unsigned i = 0, k = 0; i < 3; i++) {
        if (s.voters[i].core != 0) leave[k++] = s.voters[i];
    }
    net_isolate(n, 0, true); /* as when they are cut off just after they have answered */
    net_change(n, 0, NULL, 0, leave, 2);
    assert_true(net_state(n, 0).joint);
    for (rf_core_t c = 1; c < 5; c++) {
        if (c == leave[0].core || c == leave[1].core) continue;
        net_kill(n, c);
        net_tell_death(n, 0, c, AGREEMENT_EVIDENCE_KERNEL);
    }
    assert_false(net_state(n, 0).lost);
    net_heal(n);
    net_run(n, 20 * MS);
    goes_on(n, 0);
    net_free(n);
}

/* As many cores as have room for it have come back often; one of them comes back once more, and takes none of that room. */
static void who_has_come_back_often_comes_back(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3}, 1);
    rf_core_t often[] = {3};
    net_kill(n, 3);
    net_tell_all(n, 3);
    net_run(n, 20 * MS);
    for (rf_core_t core = 0; core < 3; core++) {
        agreement_t *e = n->cores[core].engine;
        assert_int_equal(agreement_member_state(e, 3, NULL), AGREEMENT_MEMBER_OUT);
        e->members[3] = 70u << 2 | AGREEMENT_MEMBER_OUT;
        e->n_escapes = ESCAPES_MAX;
    }
    unsigned join = net_change(n, 1, often, 1, NULL, 0);
    assert_true(net_answered(n, join, 20 * MS));
    assert_int_equal(n->proposed[join].err, RF_OK);
    assert_int_equal(n->proposed[join].value, 71);
    assert_int_equal(n->cores[0].engine->n_escapes, ESCAPES_MAX);
    net_free(n);
}

static void a_dead_majority_is_lost(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3}, 1);
    for (rf_core_t c = 1; c < 3; c++) {
        assert_false(net_state(n, 0).lost);
        net_kill(n, c);
        net_tell_death(n, 0, c, AGREEMENT_EVIDENCE_KERNEL);
    }
    assert_true(net_state(n, 0).lost);
    net_free(n);
}

/* A learner that asked the leader because it heard nothing is fed by it until it has caught up, not until the next view. */
static void who_has_caught_up_is_let_go(void **state)
{
    (void)state;
    net_t *n =
        formed((net_knobs_t){.cores = 9, .per_host = 3, .voters_max = 3, .plan = AGREEMENT_PLAN_HOST}, 1);
    assert_int_equal(net_leader(n), 0);
    agreement_t *e = n->cores[0].engine;
    for (rf_core_t c = 4; c < 9; c++) {
        if (net_state(n, c).role != AGREEMENT_ROLE_LEARNER) continue;
        wire_fetch_t fetch = {.view = 1, .term = 1, .match = 1};
        net_receive(n, 0, m1(c), MESSAGE_FETCH, &fetch, sizeof fetch);
        assert_non_null(progress_find(e, m1(c)));
    }
    goes_on(n, 8);
    net_run(n, 5 * MS);
    for (rf_core_t c = 4; c < 9; c++) {
        if (net_state(n, c).role != AGREEMENT_ROLE_LEARNER) continue;
        assert_null(progress_find(e, m1(c)));
        goes_on(n, c); /* its parent feeds it */
    }
    net_free(n);
}

/* More is committed by one message than a step can answer, while somebody else needs a snapshot: the rest comes first. */
static void a_snapshot_waits_for_what_is_to_be_applied(void **state)
{
    (void)state;
    alarm(30); /* the step once never returned */
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3, .log_max = 256}, 1);
    rf_core_t learner = 3;
    assert_int_equal(net_leader(n), 0);
    assert_int_equal(net_state(n, learner).role, AGREEMENT_ROLE_LEARNER);
    net_isolate(n, 2, true);
    net_isolate(n, learner, true);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned k = 0; k < 20; k++) net_propose(n, 0);
        assert_true(net_all_answered(n, 10 * MS));
    }
    n->cut[1][0] = true;
    for (unsigned i = 0; i < AGREEMENT_COMPLETIONS_MAX; i++) net_propose(n, 0);
    net_run(n, 200 * US);
    n->cut[0][1] = true;
    net_run(n, 100 * US);
    n->cut[1][0] = false;
    unsigned other = net_propose(n, 1);
    net_run(n, 100 * US);
    n->cut[1][0] = true;
    n->cut[0][1] = false;
    net_run(n, 2 * MS);
    assert_int_equal(net_state(n, 1).last, net_state(n, 0).last);
    agreement_t *e = n->cores[0].engine;
    assert_true(e->last > e->committed + AGREEMENT_COMPLETIONS_MAX);
    progress_find(e, m1(learner))->mode = PROGRESS_STREAM; /* as of one that was not asked meanwhile */
    wire_fetch_t fetch = {.view = 1, .term = 1, .match = 1};
    agreement_event_t asks = {.kind = AGREEMENT_RECEIVE, .now_ns = n->now_ns, .hold = true};
    asks.receive.from = m1(learner);
    asks.receive.type = MESSAGE_FETCH;
    asks.receive.bytes = &fetch;
    asks.receive.size = sizeof fetch;
    agreement_step(e, &asks);
    wire_accepted_t all = {
        .view = 1, .term = 1, .match = e->last, .committed = e->committed, .applied = e->applied};
    net_receive(n, 0, m1(1), MESSAGE_ACCEPTED, &all, sizeof all);
    net_heal(n);
    assert_true(net_answered(n, other, 50 * MS));
    net_run(n, 50 * MS);
    assert_int_equal(net_state(n, learner).applied, net_state(n, 0).applied);
    alarm(0);
    net_free(n);
}

/* Silent voters that turn out to be dead: the change that needs them is given up then, not when something else happens. */
static void silence_becomes_death(void **state)
{
    (void)state;
    net_t *n = formed(
        (net_knobs_t){
            .cores = 5, .voters_max = 3, .no_timeouts = true, .defects = AGREEMENT_DEFECT_CHANGE_UNASKED},
        1);
    agreement_state_t s = net_state(n, 0);
    assert_int_equal(net_leader(n), 0);
    agreement_member_t leave[2];
    for (unsigned i = 0, k = 0; i < 3; i++) {
        if (s.voters[i].core != 0) leave[k++] = s.voters[i];
    }
    net_isolate(n, 0, true);
    net_change(n, 0, NULL, 0, leave, 2);
    assert_true(net_state(n, 0).joint);
    for (unsigned told = 0; told < 2; told++) {
        for (rf_core_t c = 1; c < 5; c++) {
            if (c == leave[0].core || c == leave[1].core) continue;
            net_kill(n, c);
            net_tell_death(n, 0, c, told ? AGREEMENT_EVIDENCE_KERNEL : AGREEMENT_EVIDENCE_SILENCE);
        }
        if (told) break;
        net_run(n, 40 * MS);
        assert_int_equal(net_state(n, 0).role, AGREEMENT_ROLE_LEADER);
    }
    assert_int_not_equal(net_state(n, 0).role, AGREEMENT_ROLE_LEADER);
    net_free(n);
}

/* Voters that leave for learners that have had nothing to say for long: those are asked. */
static void voters_leave_for_silent_learners(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 5, .voters_max = 3}, 1);
    net_run(n, 50 * MS);
    agreement_state_t s = net_state(n, 0);
    assert_int_equal(net_leader(n), 0);
    agreement_member_t leave[2];
    for (unsigned i = 0, k = 0; i < 3; i++) {
        if (s.voters[i].core != 0) leave[k++] = s.voters[i];
    }
    unsigned p = net_change(n, 0, NULL, 0, leave, 2);
    assert_true(net_answered(n, p, 200 * MS));
    assert_int_equal(n->proposed[p].err, RF_OK);
    assert_int_equal(net_state(n, 0).members, 3);
    net_free(n);
}

/* Who has become a voter is none that may become one: its answers take the short way. */
static void who_votes_is_no_candidate(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 4, .voters_max = 3}, 1);
    assert_int_equal(net_leader(n), 0);
    agreement_state_t s = net_state(n, 0);
    rf_core_t dead = s.voters[0].core != 0 ? s.voters[0].core : s.voters[1].core;
    net_kill(n, dead);
    net_tell_all(n, dead);
    net_run(n, 50 * MS);
    s = net_state(n, 0);
    assert_int_equal(s.n_voters, 3);
    for (unsigned i = 0; i < 3; i++) {
        if (s.voters[i].core == 0) continue;
        assert_int_not_equal(s.voters[i].core, dead);
        assert_false(progress_find(n->cores[0].engine, s.voters[i])->candidate);
    }
    net_free(n);
}

static struct {
    unsigned n_changes;
    bool kill; /* who is to become a voter, at once, and nobody knows */
    rf_core_t dead[AGREEMENT_VOTERS_MAX];
    unsigned n_dead;
} promotion;

static void watch_promotion(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    const agreement_t *e = n->cores[core].engine;
    const config_t *c = config_newest(e);
    unsigned n_kept = 0;
    (void)out;
    if (core != 0 || !c->joint || promotion.n_dead > 0) return;
    promotion.n_changes++;
    for (unsigned i = 0; i < c->n_new; i++) {
        agreement_member_t m = c->voters_new[i];
        bool kept = config_find(e, c->voters_old, c->n_old, m) < c->n_old;
        n_kept += kept;
        if (kept || !promotion.kill) continue;
        net_kill(n, m.core);
        promotion.dead[promotion.n_dead++] = m.core;
    }
    assert_true(2 * n_kept > c->n_new);
}

static bool one_votes_on_each_host(net_t *n, void *context)
{
    agreement_state_t s = net_state(n, 0);
    bool there[3] = {false};
    (void)context;
    for (unsigned i = 0; i < s.n_voters; i++) there[n->host[s.voters[i].core]] = true;
    return !s.joint && s.n_voters == 3 && there[0] && there[1] && there[2];
}

/* Better voters on two other hosts come at once: not more of them at a time than the others can do without. */
static void a_majority_is_not_replaced_at_once(void **state)
{
    (void)state;
    for (int kill = 0; kill < 2; kill++) {
        const rf_core_t join[2] = {3, 6};
        memset(&promotion, 0, sizeof promotion);
        promotion.kill = kill;
        net_t *n = net_new(&(net_knobs_t){.cores = 9, .per_host = 3, .voters_max = 3}, 1);
        for (rf_core_t c = 3; c < 9; c++) net_kill(n, c);
        net_form(n);
        net_run(n, 20 * MS);
        assert_int_equal(net_state(n, 0).n_voters, 3);
        n->watch = watch_promotion;
        unsigned p = net_change(n, 0, join, 2, NULL, 0);
        assert_true(net_answered(n, p, 50 * MS));
        for (unsigned i = 0; i < 2; i++) net_start(n, join[i], 2);
        if (!kill) {
            assert_true(net_until(n, one_votes_on_each_host, NULL, RF_NS_PER_S));
            assert_int_equal(promotion.n_changes >= 2, 1);
        } else {
            net_run(n, 500 * MS);
            assert_true(promotion.n_dead > 0);
            for (unsigned i = 0; i < promotion.n_dead; i++)
                net_tell_death(n, 0, promotion.dead[i], AGREEMENT_EVIDENCE_SILENCE);
            net_run(n, 500 * MS);
        }
        goes_on(n, 0);
        net_free(n);
    }
}

static bool has_loaded(net_t *n, void *core)
{
    return n->cores[*(rf_core_t *)core].n_loads > 0;
}

/* A snapshot has passed over more own proposals than a step can answer: the next steps answer the rest. */
static void a_snapshot_that_answers_much(void **state)
{
    (void)state;
    const unsigned each = AGREEMENT_COMPLETIONS_MAX * 3 / 4;
    net_t *n =
        formed((net_knobs_t){.cores = 4, .voters_max = 3, .log_max = 256, .proposals_max = 2 * each}, 1);
    rf_core_t learner = 3;
    assert_int_equal(net_leader(n), 0);
    assert_int_equal(net_state(n, learner).role, AGREEMENT_ROLE_LEARNER);
    unsigned opens = net_session(n, learner, AGREEMENT_SESSION_OPEN, 0);
    assert_true(net_answered(n, opens, 50 * MS));
    uint64_t session = n->proposed[opens].value;
    for (rf_core_t c = 0; c < 3; c++) n->cut[c][learner] = true;
    uint64_t before = net_state(n, 0).applied;
    unsigned first = n->n_proposed;
    for (unsigned i = 0; i < each; i++) {
        net_propose(n, learner);
        net_propose_as(n, learner, session, i + 1, ++n->next_number);
    }
    net_run(n, 3 * MS);
    assert_true(net_state(n, 0).applied >= before + 2 * each);
    for (unsigned i = 0; i < 30; i++) {
        unsigned last = 0;
        for (unsigned k = 0; k < 20; k++) last = net_propose(n, 0);
        assert_true(net_answered(n, last, 10 * MS));
    }
    assert_true(net_state(n, 0).first > before + 2 * each);
    for (unsigned i = 0; i < 2 * each; i++) assert_false(n->proposed[first + i].answered);
    net_heal(n);
    assert_true(net_until(n, has_loaded, &learner, 100 * MS));
    for (unsigned i = 0; i < 2 * each; i++) assert_true(n->proposed[first + i].answered);
    goes_on(n, learner);
    net_free(n);
}

/* The lease ends before the shortest promise that clocks of that drift can make of it, also when it is short. */
static void a_short_lease_drifts_too(void **state)
{
    (void)state;
    const uint64_t lease_ns = 1900 * US;
    net_t *n = formed((net_knobs_t){.cores = 3, .lease_ns = lease_ns}, 1);
    agreement_t *e = n->cores[0].engine;
    net_run(n, 2 * MS);
    uint64_t sent_ns = e->rounds_ns[progress_majority(e, PROGRESS_ROUND, e->round) % ROUNDS_KEPT];
    uint64_t drift_ns = lease_ns / 1000; /* 1000 ppm */
    e->now_ns = sent_ns + lease_ns - drift_ns - 1;
    assert_true(role_lease_valid(e));
    e->now_ns++;
    assert_false(role_lease_valid(e));
    net_free(n);
}

static bool votes_here(net_t *n, void *core)
{
    agreement_state_t s = net_state(n, net_leader(n));
    for (unsigned i = 0; i < s.n_voters && !s.joint; i++) {
        if (s.voters[i].core == *(rf_core_t *)core) return true;
    }
    return false;
}

/* Two voters are on one host; one that comes on another host takes the place of one of them. */
static void one_of_two_voters_is_replaced(void **state)
{
    (void)state;
    rf_core_t far = 2;
    net_t *n = formed((net_knobs_t){.cores = 3, .per_host = 2, .voters_max = 2}, 1);
    assert_true(votes_here(n, &far));
    agreement_member_t leave = m1(far);
    assert_true(net_answered(n, net_change(n, 0, NULL, 0, &leave, 1), 50 * MS));
    net_kill(n, far);
    assert_false(votes_here(n, &far));
    unsigned join = net_change(n, 0, &far, 1, NULL, 0);
    assert_true(net_answered(n, join, 50 * MS));
    net_start(n, far, (rf_incarnation_t)n->proposed[join].value);
    assert_true(net_until(n, votes_here, &far, 200 * MS));
    goes_on(n, far);
    assert_int_equal(net_state(n, far).n_voters, 2);
    net_run(n, 20 * MS);
    net_check_quiet(n);
    net_free(n);
}

/* A round that majorities have answered is no contact before an entry of the own term is committed: those who answered it may hold less
 * than others have applied, as one that comes back far behind does. */
static void a_leader_without_a_commit_has_no_contact(void **state)
{
    (void)state;
    net_t *n = formed((net_knobs_t){.cores = 3, .log_max = 16}, 1);
    assert_true(agreement_contact_ns(n->cores[0].engine) > 0);
    net_isolate(n, 2, true);
    for (unsigned i = 0; i < 60; i++) {
        unsigned p = net_propose(n, 0);
        assert_true(net_answered(n, p, 10 * MS));
    }
    net_run(n, 2 * MS);
    uint64_t term = net_state(n, 0).term, answered_ns = 0;
    net_kill(n, 0);
    net_tell_all(n, 0);
    net_heal(n);
    assert_true(net_until(n, later_leader, &term, 200 * MS));
    assert_int_equal(net_leader(n), 1);
    agreement_t *e = n->cores[1].engine;
    for (unsigned us = 0; us < 200000 && agreement_contact_ns(e) == 0; us++) {
        if (progress_majority(e, PROGRESS_ROUND, e->round) != 0 && answered_ns == 0) answered_ns = e->now_ns;
        net_run(n, US);
    }
    assert_true(agreement_contact_ns(e) > 0 && e->committed >= e->term_index);
    assert_true(answered_ns != 0 && answered_ns < e->now_ns); /* so it had been answered before */
    net_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_two_voters_is_replaced),
        cmocka_unit_test(a_leader_without_a_commit_has_no_contact),
        cmocka_unit_test(leaderships_that_fail_on_a_full_ring),
        cmocka_unit_test(a_sealed_log_is_of_that_term),
        cmocka_unit_test(sealing_ends_the_log),
        cmocka_unit_test(nothing_goes_behind_a_seal_that_is_not_committed),
        cmocka_unit_test(a_term_that_cannot_be),
        cmocka_unit_test(what_is_unknown_is_not_everything),
        cmocka_unit_test(reads_that_find_no_room),
        cmocka_unit_test(new_voters_die_before_the_change_is_committed),
        cmocka_unit_test(who_has_come_back_often_comes_back),
        cmocka_unit_test(a_dead_majority_is_lost),
        cmocka_unit_test(who_has_caught_up_is_let_go),
        cmocka_unit_test(a_snapshot_waits_for_what_is_to_be_applied),
        cmocka_unit_test(a_short_lease_drifts_too),
        cmocka_unit_test(silence_becomes_death),
        cmocka_unit_test(voters_leave_for_silent_learners),
        cmocka_unit_test(who_votes_is_no_candidate),
        cmocka_unit_test(a_majority_is_not_replaced_at_once),
        cmocka_unit_test(a_snapshot_that_answers_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
