/* The engine by scenarios: what is done, and what must come of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net.h"

#include <stdlib.h>

#define AGREEMENT_TYPES 10

static net_t *formed(unsigned cores, uint64_t seed)
{
    net_knobs_t knobs = {.cores = cores};
    net_t *n = net_new(&knobs, seed);
    net_form(n);
    net_settle(n);
    return n;
}

static void parameters_are_checked(void **state)
{
    (void)state;
    agreement_params_t good = {.self = {.core = 1, .incarnation = 1},
                               .n_cores = 4,
                               .log_max = 64,
                               .entry_max = 160,
                               .proposals_max = 8,
                               .resend_ns = RF_NEVER};
    assert_true(agreement_size(&good) > 0);
    agreement_params_t bad[8];
    for (unsigned i = 0; i < 8; i++) bad[i] = good;
    bad[0].self.core = 4;
    bad[1].n_cores = 0;
    bad[2].log_max = 63;
    bad[3].log_max = 8;
    bad[4].entry_max = AGREEMENT_ENTRY_MAX + 1;
    bad[5].proposals_max = 0;
    bad[6].proposals_max = AGREEMENT_WINDOW + 1;
    bad[7].resend_ns = 0;
    agreement_t *engine;
    uint64_t room[4];
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(agreement_size(&bad[i]), 0);
        assert_int_equal(agreement_init(room, sizeof room, &bad[i], &engine), RF_ERR_INVALID);
    }
    assert_int_equal(agreement_init(room, sizeof room, &good, &engine), RF_ERR_NO_MEMORY);
}

static void forming_is_once_and_by_the_lowest(void **state)
{
    (void)state;
    net_knobs_t knobs = {.cores = 4};
    net_t *n = net_new(&knobs, 1);
    unsigned early = net_propose(n, 2);
    assert_int_equal(n->proposed[early].err, RF_ERR_FORMING);
    rf_core_t some[] = {0, 1, 2};
    agreement_event_t event = {.kind = AGREEMENT_FORM, .form = {.cores = some, .n_cores = 3}};
    net_step(n, 1, &event); /* not its to do */
    net_settle(n);
    assert_false(net_state(n, 1).formed);
    net_step(n, 0, &event);
    net_settle(n);
    for (rf_core_t core = 0; core < 3; core++) {
        agreement_state_t s = net_state(n, core);
        assert_true(s.formed && s.quorum);
        assert_int_equal(s.view, 1);
        assert_int_equal(s.term, 1);
        assert_int_equal(s.leader, 0);
        assert_int_equal(s.members, 3);
        assert_int_equal(s.voters, 3);
        assert_int_equal(s.survives, 0);
        assert_int_equal(agreement_member_state(n->cores[core].engine, 2), AGREEMENT_MEMBER_IN);
        assert_int_equal(agreement_member_state(n->cores[core].engine, 3), AGREEMENT_MEMBER_NONE);
    }
    assert_false(net_state(n, 3).formed); /* was not named: is told nothing */
    net_form(n);                          /* again: nothing comes of it */
    net_settle(n);
    assert_int_equal(net_state(n, 0).committed, 1);
    net_free(n);
}

static void another_machine_is_not_joined(void **state)
{
    (void)state;
    net_knobs_t knobs = {.cores = 2};
    net_t *n = net_new(&knobs, 1);
    agreement_params_t other = {.self = {.core = 1, .incarnation = 1},
                                .machine = {.bytes = {9}},
                                .n_cores = 2,
                                .log_max = 64,
                                .entry_max = 160,
                                .proposals_max = 8,
                                .sessions_max = 4,
                                .resend_ns = RF_NEVER};
    assert_int_equal(agreement_init(n->cores[1].memory, agreement_size(&other), &other, &n->cores[1].engine),
                     RF_OK);
    net_form(n);
    net_settle(n);
    assert_int_equal(net_state(n, 1).accepted, 0);
    assert_int_equal(net_state(n, 0).committed, 0);
    net_free(n);
}

/* A row: in a machine of `cores`, `proposer` proposes with the log of `laggard` held back. */
static void nothing_is_acknowledged_before_all_hold_it(void **state)
{
    (void)state;
    static const struct {
        unsigned cores;
        rf_core_t proposer, laggard;
    } rows[] = {{2, 0, 1}, {2, 1, 1}, {3, 0, 2}, {3, 1, 2}, {3, 2, 2}, {5, 4, 3}, {5, 0, 4}};
    for (unsigned r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        net_t *n = formed(rows[r].cores, r);
        unsigned p = net_propose(n, rows[r].proposer);
        /* Deliver everything but what is for the laggard from the orderer. */
        net_message_t *held[64];
        unsigned n_held = 0;
        for (;;) {
            for (unsigned i = 0; i < n->n_flight;) {
                if (n->flight[i]->to == rows[r].laggard) {
                    held[n_held++] = n->flight[i];
                    memmove(&n->flight[i], &n->flight[i + 1], (n->n_flight - i - 1) * sizeof *n->flight);
                    n->n_flight--;
                } else {
                    i++;
                }
            }
            if (!net_deliver(n)) break;
        }
        assert_false(n->proposed[p].answered);
        for (unsigned i = 0; i < n_held; i++) n->flight[n->n_flight++] = held[i];
        net_settle(n);
        assert_true(n->proposed[p].answered);
        assert_int_equal(n->proposed[p].err, RF_OK);
        net_check_quiet(n);
        net_free(n);
    }
}

static void a_repetition_is_answered_not_executed(void **state)
{
    (void)state;
    net_t *n = formed(3, 3);
    uint64_t session = agreement_own_session(n->cores[2].engine);
    unsigned first = net_propose_as(n, 2, session, 1, 77);
    net_settle(n);
    assert_int_equal(n->proposed[first].value, 770);
    unsigned again = net_propose_as(n, 2, session, 1, 77);
    net_settle(n);
    assert_int_equal(n->proposed[again].err, RF_OK);
    assert_int_equal(n->proposed[again].value, 770);
    /* Through another monitor too: its replica knows the result. */
    unsigned elsewhere = net_propose_as(n, 1, session, 1, 77);
    net_settle(n);
    assert_int_equal(n->proposed[elsewhere].value, 770);
    assert_int_equal(n->cores[0].n_log, 1);
    /* Older than the window: never executed. */
    for (uint64_t s = 2; s <= AGREEMENT_WINDOW + 2; s++) {
        net_propose_as(n, 2, session, s, 100 + s);
        net_settle(n);
    }
    unsigned old = net_propose_as(n, 2, session, 1, 77);
    net_settle(n);
    assert_int_equal(n->proposed[old].err, RF_ERR_SESSION);
    unsigned zero = net_propose_as(n, 2, session, 0, 5);
    assert_int_equal(n->proposed[zero].err, RF_ERR_INVALID);
    net_free(n);
}

static void sessions_open_and_end(void **state)
{
    (void)state;
    net_t *n = formed(3, 4);
    uint64_t ids[5];
    for (unsigned i = 0; i < 5; i++) {
        unsigned at = n->n_proposed++;
        net_core_t *c = &n->cores[1];
        n->proposed[at] = (net_proposal_t){.core = 1,
                                           .session = agreement_own_session(c->engine),
                                           .sequence = ++c->next_sequence,
                                           .number = 1000 + i};
        agreement_event_t open = {.kind = AGREEMENT_SESSION_OPEN, .session = {.sequence = c->next_sequence}};
        net_step(n, 1, &open);
        net_settle(n);
        assert_int_equal(n->proposed[at].err, i < 4 ? RF_OK : RF_ERR_LIMIT); /* sessions_max */
        ids[i] = n->proposed[at].value;
    }
    unsigned p = net_propose_as(n, 2, ids[0], 1, 5); /* by whom does not matter */
    net_settle(n);
    assert_int_equal(n->proposed[p].err, RF_OK);
    unsigned at = n->n_proposed++;
    n->proposed[at] = (net_proposal_t){
        .core = 2, .session = agreement_own_session(n->cores[2].engine), .sequence = 1, .number = 2000};
    agreement_event_t end = {.kind = AGREEMENT_SESSION_END, .session = {.sequence = 1, .session = ids[0]}};
    net_step(n, 2, &end);
    net_settle(n);
    assert_int_equal(n->proposed[at].err, RF_OK);
    p = net_propose_as(n, 0, ids[0], 2, 6);
    net_settle(n);
    assert_int_equal(n->proposed[p].err, RF_ERR_SESSION);
    p = net_propose_as(n, 1, 12345, 1, 7);
    assert_int_equal(n->proposed[p].err, RF_ERR_SESSION);
    net_free(n);
}

static void full_is_an_answer(void **state)
{
    (void)state;
    net_knobs_t knobs = {.cores = 2, .log_max = 16};
    net_t *n = net_new(&knobs, 5);
    net_form(n);
    net_settle(n);
    unsigned ok = 0, again = 0;
    for (unsigned i = 0; i < 32; i++) {
        unsigned p = net_propose(n, 0); /* nothing is delivered meanwhile: the ring fills */
        again += n->proposed[p].answered && n->proposed[p].err == RF_ERR_AGAIN;
    }
    assert_true(again > 0);
    net_settle(n);
    for (unsigned i = 0; i < n->n_proposed; i++) ok += n->proposed[i].err == RF_OK;
    assert_int_equal(ok + again, 32);
    assert_true(ok >= 16 - AGREEMENT_LOG_RESERVED - 1);
    unsigned p = net_propose(n, 0);
    net_settle(n);
    assert_int_equal(n->proposed[p].err, RF_OK);
    /* The same from a member: refused by message. */
    for (unsigned i = 0; i < 32; i++) net_propose(n, 1);
    net_settle(n);
    net_check_quiet(n);
    net_free(n);
}

static void a_dead_member_leaves_and_the_rest_goes_on(void **state)
{
    (void)state;
    for (unsigned reporter = 0; reporter < 2; reporter++) {
        net_t *n = formed(4, 6);
        net_kill(n, 3);
        unsigned p = net_propose(n, 1);
        net_settle(n);
        assert_false(n->proposed[p].answered); /* waits for the one that cannot answer */
        net_tell_death(n, (rf_core_t)reporter, 3);
        net_settle(n);
        assert_int_equal(n->proposed[p].err, RF_OK);
        for (rf_core_t core = 0; core < 3; core++) {
            agreement_state_t s = net_state(n, core);
            assert_int_equal(s.view, 2);
            assert_int_equal(s.members, 3);
            assert_int_equal(agreement_member_state(n->cores[core].engine, 3), AGREEMENT_MEMBER_DOWN);
        }
        net_tell_death(n, 2, 3); /* late news change nothing */
        net_settle(n);
        assert_int_equal(net_state(n, 0).view, 2);
        net_check_quiet(n);
        net_free(n);
    }
}

static void without_the_orderer_nothing_is_agreed(void **state)
{
    (void)state;
    net_t *n = formed(3, 7);
    unsigned before = net_propose(n, 1);
    net_settle(n);
    unsigned under_way = net_propose(n, 2); /* FORWARD is lost with the orderer */
    net_kill(n, 0);
    net_settle(n);
    assert_false(n->proposed[under_way].answered);
    net_tell_death(n, 1, 0);
    net_tell_death(n, 2, 0);
    assert_int_equal(n->proposed[under_way].err, RF_ERR_UNKNOWN_OUTCOME);
    for (rf_core_t core = 1; core < 3; core++) {
        agreement_state_t s = net_state(n, core);
        assert_false(s.quorum);
        assert_int_equal(s.leader, RF_CORE_NONE);
        unsigned p = net_propose(n, core);
        assert_true(n->proposed[p].answered); /* at once */
        assert_int_equal(n->proposed[p].err, RF_ERR_NO_QUORUM);
    }
    net_settle(n);
    assert_int_equal(n->proposed[before].err, RF_OK);
    agreement_event_t read = {.kind = AGREEMENT_READ, .read = {.cookie = 1}};
    net_step(n, 1, &read);
    assert_int_equal(n->cores[1].read_err, RF_ERR_NO_QUORUM);
    net_check_quiet(n);
    net_free(n);
}

static void what_one_survivor_saw_committed_all_apply(void **state)
{
    (void)state;
    /* Core 1 has its answer; core 2 holds the entry, but was never told that it is committed. */
    net_t *n = formed(3, 8);
    unsigned p = net_propose(n, 1);
    while (!n->proposed[p].answered) assert_true(net_deliver(n));
    for (unsigned i = 0; i < n->n_flight; i++) free(n->flight[i]);
    n->n_flight = 0;
    net_kill(n, 0);
    net_tell_death(n, 1, 0);
    net_tell_death(n, 2, 0);
    net_settle(n);
    assert_int_equal(n->cores[2].n_log, 1);
    net_check_quiet(n);
    net_free(n);
}

static void reads_see_what_was_committed_before(void **state)
{
    (void)state;
    net_t *n = formed(3, 9);
    agreement_event_t read = {.kind = AGREEMENT_READ, .read = {.cookie = 9}};
    for (rf_core_t core = 0; core < 3; core++) {
        unsigned p = net_propose(n, (rf_core_t)((core + 1) % 3));
        while (!n->proposed[p].answered) net_deliver(n);
        net_step(n, core, &read);
        while (n->cores[core].reads_done == 0) assert_true(net_deliver(n));
        assert_int_equal(n->cores[core].read_err, RF_OK);
        assert_true(n->cores[core].n_log > core);
        net_settle(n);
    }
    for (unsigned i = 0; i < AGREEMENT_READS_MAX + 1; i++) net_step(n, 1, &read);
    assert_int_equal(n->cores[1].read_err, RF_ERR_AGAIN);
    net_free(n);
}

static void one_phase_completes_when_all_have_applied_or_died(void **state)
{
    (void)state;
    net_t *n = formed(4, 10);
    rf_core_t group[] = {0, 1, 2, 3};
    for (uint64_t i = 1; i <= 20; i++) {
        agreement_event_t event = {.kind = AGREEMENT_GROUP_ONE};
        event.group.cookie = i;
        event.group.group = 7;
        event.group.epoch = 1;
        event.group.cores = group;
        event.group.n_cores = 4;
        event.group.bytes = &i;
        event.group.size = sizeof i;
        net_step(n, 2, &event);
    }
    net_settle(n);
    assert_int_equal(n->cores[2].groups_done, 20);
    for (rf_core_t core = 0; core < 4; core++) {
        assert_int_equal(n->cores[core].n_group, 20);
        for (uint64_t i = 0; i < 20; i++) assert_int_equal(n->cores[core].group_log[i], i + 1); /* in order */
    }
    uint64_t payload = 99;
    agreement_event_t last = {.kind = AGREEMENT_GROUP_ONE};
    last.group.cookie = 99;
    last.group.cores = group;
    last.group.n_cores = 4;
    last.group.bytes = &payload;
    last.group.size = sizeof payload;
    net_kill(n, 0); /* no orderer needed */
    net_step(n, 2, &last);
    net_settle(n);
    assert_int_equal(n->cores[2].groups_done, 20);
    net_tell_death(n, 2, 0);
    net_settle(n);
    assert_int_equal(n->cores[2].groups_done, 21);
    agreement_event_t two = last;
    two.kind = AGREEMENT_GROUP_TWO;
    net_step(n, 2, &two);
    assert_int_equal(n->cores[2].group_err, RF_ERR_NOT_SUPPORTED);
    net_free(n);
}

static void a_new_link_brings_up_who_fell_behind(void **state)
{
    (void)state;
    net_t *n = formed(3, 11);
    for (unsigned i = 0; i < 20; i++) net_propose(n, 1);
    while (n->n_flight > 0) { /* all lost: the links were not there */
        free(n->flight[--n->n_flight]);
    }
    net_settle(n);
    assert_false(n->proposed[0].answered);
    for (rf_core_t core = 0; core < 3; core++) {
        for (rf_core_t to = 0; to < 3; to++) {
            agreement_event_t room = {.kind = AGREEMENT_ROOM, .peer = {.core = to, .incarnation = 1}};
            if (to != core) net_step(n, core, &room);
        }
    }
    net_settle(n);
    net_check_quiet(n);
    for (unsigned i = 0; i < 20; i++) assert_int_equal(n->proposed[i].err, RF_OK);
    net_free(n);
}

static void nonsense_is_ignored_with_a_reason(void **state)
{
    (void)state;
    net_t *n = formed(3, 12);
    for (unsigned type = 0xd0; type <= 0xe0; type++) {
        for (rf_core_t from = 0; from < 5; from++) {
            uint8_t bytes[48];
            memset(bytes, (int)(type + from), sizeof bytes);
            agreement_event_t event = {.kind = AGREEMENT_RECEIVE, .now_ns = n->now_ns};
            event.receive.from = (agreement_member_t){.core = from, .incarnation = from == 4 ? 2 : 1};
            event.receive.type = (uint8_t)type;
            event.receive.bytes = bytes;
            event.receive.size = sizeof bytes - type % 7;
            const agreement_output_t *out = agreement_step(n->cores[1].engine, &event);
            assert_non_null(out->ignored);
            assert_int_equal(out->n_applies, 0);
        }
    }
    assert_string_equal(agreement_type_name(0xd1), "APPEND");
    assert_string_equal(agreement_type_name(0x10), "?");
    net_propose(n, 1);
    net_settle(n);
    net_check_quiet(n);
    net_free(n);
}

static void the_same_events_give_the_same_messages(void **state)
{
    (void)state;
    uint64_t hash[2] = {0, 0};
    for (unsigned run = 0; run < 2; run++) {
        net_t *n = formed(4, 13);
        for (unsigned i = 0; i < 200; i++) {
            net_propose(n, (rf_core_t)(i % 4));
            for (unsigned k = 0; k < 10 && n->n_flight > 0; k++) {
                const net_message_t *m = n->flight[n->n_flight - 1];
                for (size_t b = 0; b < m->size; b++) hash[run] = hash[run] * 31 + m->bytes[b];
                net_deliver(n);
            }
        }
        net_settle(n);
        net_check_quiet(n);
        net_free(n);
    }
    assert_true(hash[0] == hash[1] && hash[0] != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_checked),
        cmocka_unit_test(forming_is_once_and_by_the_lowest),
        cmocka_unit_test(another_machine_is_not_joined),
        cmocka_unit_test(nothing_is_acknowledged_before_all_hold_it),
        cmocka_unit_test(a_repetition_is_answered_not_executed),
        cmocka_unit_test(sessions_open_and_end),
        cmocka_unit_test(full_is_an_answer),
        cmocka_unit_test(a_dead_member_leaves_and_the_rest_goes_on),
        cmocka_unit_test(without_the_orderer_nothing_is_agreed),
        cmocka_unit_test(what_one_survivor_saw_committed_all_apply),
        cmocka_unit_test(reads_see_what_was_committed_before),
        cmocka_unit_test(one_phase_completes_when_all_have_applied_or_died),
        cmocka_unit_test(a_new_link_brings_up_who_fell_behind),
        cmocka_unit_test(nonsense_is_ignored_with_a_reason),
        cmocka_unit_test(the_same_events_give_the_same_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
