/*
 * One-sided append, scripted: each test carries out what the engines say about lanes, or withholds it. What random runs find is
 * the simulator's (rf-sim --one-sided). Looks into records, so it includes lane.h.
 */
#include "net.h"
#include "consensus/lane.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#define LINES AGREEMENT_LANE_LINES_MIN
#define WORDS (LINES * AGREEMENT_LANE_LINE / 8)

/* What the engines have put out, of three cores. */
static struct script {
    uint64_t lane[3][WORDS];
    agreement_lane_output_t order[3]; /* the last one */
    unsigned n_orders[3];
    agreement_write_t writes[64]; /* to anybody; the bytes are in the lane */
    unsigned n_writes;
    bool withhold;       /* writes are not carried out */
    unsigned votes;      /* VOTE messages put out */
    unsigned said[3];    /* messages of all kinds */
    unsigned n_again[3]; /* wants to be shown its lane again at once */
} s;

static void watch(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    (void)n;
    s.said[core] += out->n_messages;
    for (unsigned i = 0; i < out->n_messages; i++) s.votes += out->messages[i].type == MESSAGE_VOTE;
    if (!out->lane) return;
    s.n_again[core] += out->lane->again;
    if (out->lane->order != AGREEMENT_LANE_KEEP) {
        s.order[core] = *out->lane;
        s.n_orders[core]++;
    }
    for (unsigned i = 0; i < out->lane->n_writes; i++) {
        const agreement_write_t *w = &out->lane->writes[i];
        assert_true(s.n_writes < 64 && w->offset + w->size <= sizeof s.lane[0]);
        assert_true(w->offset % AGREEMENT_LANE_LINE == 0 && w->size % AGREEMENT_LANE_LINE == 0);
        s.writes[s.n_writes++] = *w;
        if (!s.withhold) memcpy((uint8_t *)s.lane[w->to.core] + w->offset, w->bytes, w->size);
    }
}

static void lane(net_t *n, rf_core_t core, agreement_lane_event_t event)
{
    net_step(n, core, &(agreement_event_t){.kind = AGREEMENT_LANE, .lane = event});
}

/* Core 0 leads, 1 and 2 have granted it their lanes, and it knows. */
static net_t *granted(void)
{
    memset(&s, 0, sizeof s);
    net_t *n = net_new(&(net_knobs_t){.cores = 3, .lane_lines = LINES}, 1);
    n->watch = watch;
    net_form(n);
    net_run(n, 3 * MS);
    for (rf_core_t core = 1; core < 3; core++) {
        assert_int_equal(s.n_orders[core], 0); /* nobody said that it can */
        lane(n, core, (agreement_lane_event_t){.kind = AGREEMENT_LANE_READY, .peer = net_member(n, 0)});
        assert_int_equal(s.order[core].order, AGREEMENT_LANE_GRANT);
        assert_int_equal(s.order[core].peer.core, 0);
        assert_int_equal(s.order[core].term, 1);
        lane(n, 0,
             (agreement_lane_event_t){.kind = AGREEMENT_LANE_GRANTED,
                                      .peer = net_member(n, core),
                                      .id = s.order[core].id,
                                      .term = s.order[core].term});
    }
    net_run(n, 2 * MS);
    s.n_writes = 0;
    return n;
}

static void written(net_t *n, rf_core_t by, uint64_t number, rf_err_t err)
{
    lane(n, 0,
         (agreement_lane_event_t){.kind = AGREEMENT_LANE_WRITTEN,
                                  .peer = net_member(n, by),
                                  .id = s.order[by].id,
                                  .number = number,
                                  .err = err});
}

static void shown(net_t *n, rf_core_t core, agreement_lane_kind_t kind)
{
    lane(n, core, (agreement_lane_event_t){.kind = kind, .id = s.order[core].id, .lines = s.lane[core]});
}

/* A candidate asks, whom the leader has asked to stand. */
static void ask_for_vote(net_t *n, rf_core_t to, uint64_t term, uint64_t last_term, uint64_t last)
{
    wire_vote_request_t m = {
        .view = 1, .term = term, .last_term = last_term, .last_index = last, .flags = VOTE_TRANSFER};
    net_receive(n, to, net_member(n, 2), MESSAGE_VOTE_REQUEST, &m, sizeof m);
}

/* ---- records ---- */

static void a_record_of_which_a_part_is_missing_is_none(void **state)
{
    (void)state;
    static uint64_t memory[WORDS], before[WORDS], record[LANE_RECORD_BYTES / 8], out[LANE_RECORD_BYTES / 8];
    lane_record_t *r = (lane_record_t *)(void *)record, *read = (lane_record_t *)(void *)out;
    const uint64_t seed = 42, start = 2 * LINES + 7;
    memset(before, 0xa5, sizeof before);
    memset(record, 0x11, sizeof record);
    *r = (lane_record_t){.prev_index = 8, .committed = 7, .size = 200, .n = 1};
    uint32_t old = lane_record_end(r, start - LINES, seed); /* what a lap before has left there */
    memcpy(before + 7 * 8, record, old);
    *r = (lane_record_t){.prev_index = 9, .committed = 8, .size = 200, .n = 1};
    record[10] = 77;
    uint32_t size = lane_record_end(r, start, seed);
    assert_int_equal(size, old);
    for (unsigned missing = 0; missing < size / 8; missing++) {
        if (record[missing] == before[7 * 8 + missing]) continue; /* the same then and now */
        memcpy(memory, before, sizeof memory);
        for (unsigned i = 0; i < size / 8; i++) {
            if (i != missing) memory[7 * 8 + i] = record[i];
        }
        assert_false(lane_record_read(memory, LINES, start, seed, false, read));
    }
    memcpy(memory + 7 * 8, record, size);
    assert_true(lane_record_read(memory, LINES, start, seed, false, read));
    assert_memory_equal(read, record, size);
    assert_false(lane_record_read(memory, LINES, start, seed + 1, false, read));     /* of another lane */
    assert_false(lane_record_read(memory, LINES, start - LINES, seed, false, read)); /* of another lap */
}

static void records_do_not_begin_where_they_might_not_end(void **state)
{
    (void)state;
    for (uint64_t lines = 0; lines < 4 * LINES; lines++) {
        uint64_t start = lane_record_start(LINES, lines);
        assert_true(start >= lines && start % LINES + LANE_RECORD_LINES <= LINES);
        assert_int_equal(lane_record_start(LINES, start), start);
    }
}

/* ---- the leader ---- */

static void what_is_placed_commits_without_a_word_from_its_owner(void **state)
{
    (void)state;
    net_t *n = granted();
    net_isolate(n, 0, true); /* no message passes */
    unsigned p = net_propose(n, 0);
    assert_int_equal(s.n_writes, 2);
    assert_false(n->proposed[p].answered);
    written(n, 1, s.writes[0].number, RF_OK);
    assert_true(n->proposed[p].answered);
    assert_int_equal(n->proposed[p].err, RF_OK);
    uint64_t last = net_state(n, 1).last;
    shown(n, 1, AGREEMENT_LANE_LINES);
    assert_int_equal(net_state(n, 1).last, last + 1);
    net_heal(n);
    net_run(n, 5 * MS);
    net_free(n);
}

static void a_write_to_a_lane_that_is_over_counts_for_nothing(void **state)
{
    (void)state;
    net_t *n = granted();
    net_isolate(n, 0, true);
    s.withhold = true;
    unsigned p = net_propose(n, 0);
    agreement_lane_event_t event = {.kind = AGREEMENT_LANE_WRITTEN, .peer = net_member(n, 1)};
    event.number = s.writes[0].number;
    event.id = s.order[1].id + 1;
    lane(n, 0, event);
    event.id = s.order[1].id;
    event.number = s.writes[0].number + 1; /* never made */
    lane(n, 0, event);
    event.peer.incarnation++;
    event.number = s.writes[0].number;
    lane(n, 0, event);
    assert_false(n->proposed[p].answered);
    net_free(n);
}

static void a_write_that_fails_gives_the_voter_back_to_messages(void **state)
{
    (void)state;
    net_t *n = granted();
    s.withhold = true;
    unsigned p = net_propose(n, 0);
    for (rf_core_t core = 1; core < 3; core++) written(n, core, s.writes[0].number, RF_ERR_PEER_DEAD);
    assert_true(net_answered(n, p, 5 * MS));
    unsigned before = s.n_writes;
    p = net_propose(n, 0);
    assert_true(net_answered(n, p, 5 * MS));
    assert_int_equal(s.n_writes, before);
    net_free(n);
}

static void a_full_lane_waits_until_its_owner_has_read(void **state)
{
    (void)state;
    net_t *n = granted();
    net_cut(n, 0, 2, true);
    unsigned done = 0;
    for (unsigned round = 0; round < 400; round++) { /* several laps */
        s.n_writes = 0;
        net_propose(n, 0);
        for (unsigned i = 0; i < s.n_writes; i++) {
            if (s.writes[i].to.core == 1) written(n, 1, s.writes[i].number, RF_OK);
        }
        net_run(n, 100 * US);
        if (round % 16 == 15) {
            s.n_writes = 0;
            shown(n, 1, AGREEMENT_LANE_LINES);
            net_run(n, MS);
            for (unsigned i = 0; i < s.n_writes; i++) {
                if (s.writes[i].to.core == 1) written(n, 1, s.writes[i].number, RF_OK);
            }
        }
    }
    for (unsigned i = 0; i < n->n_proposed; i++) done += n->proposed[i].answered && !n->proposed[i].err;
    assert_true(done > 300);
    shown(n, 1, AGREEMENT_LANE_LINES);
    assert_true(net_state(n, 1).last + 64 > net_state(n, 0).last);
    net_free(n);
}

/* ---- its owner ---- */

static void nobody_votes_before_its_lane_is_fenced_and_read(void **state)
{
    (void)state;
    net_t *n = granted();
    net_isolate(n, 0, true);
    unsigned p = net_propose(n, 0); /* in lane 1, and not looked at */
    written(n, 1, s.writes[0].number, RF_OK);
    assert_true(n->proposed[p].answered);
    agreement_state_t before = net_state(n, 1);
    ask_for_vote(n, 1, 2, 1, before.last); /* as long as what 1 knows that it holds */
    assert_int_equal(s.order[1].order, AGREEMENT_LANE_REVOKE);
    assert_int_equal(net_state(n, 1).term, 1);
    assert_int_equal(s.votes, 0);
    ask_for_vote(n, 1, 3, 1, before.last); /* others wait, too, or are lost */
    assert_int_equal(s.votes, 0);
    shown(n, 1, AGREEMENT_LANE_LINES); /* not until it is confirmed */
    assert_int_equal(net_state(n, 1).last, before.last);
    shown(n, 1, AGREEMENT_LANE_REVOKED);
    agreement_state_t after = net_state(n, 1);
    assert_int_equal(after.last, before.last + 1);
    assert_int_equal(after.term, 2);
    assert_int_equal(s.votes, 1);
    ask_for_vote(n, 2, 2, 1, after.last); /* the refused one cannot lead */
    net_heal(n);
    net_run(n, 100 * MS);
    assert_true(net_state(n, 2).committed >= after.last || net_state(n, 1).committed >= after.last);
    net_free(n);
}

/* Its writer may have placed it at any time before. */
static void what_is_read_last_is_no_sign_of_life(void **state)
{
    (void)state;
    net_t *n = granted();
    net_isolate(n, 0, true);
    net_propose(n, 0); /* in lane 1, and not looked at */
    agreement_state_t before = net_state(n, 1);
    n->now_ns += 60 * RF_NS_PER_S; /* nobody has heard the leader for long */
    wire_vote_request_t m = {.view = 1, .term = 2, .last_term = 1, .last_index = before.last + 1};
    net_receive(n, 1, net_member(n, 2), MESSAGE_VOTE_REQUEST, &m, sizeof m);
    assert_int_equal(s.order[1].order, AGREEMENT_LANE_REVOKE);
    shown(n, 1, AGREEMENT_LANE_REVOKED);
    assert_int_equal(net_state(n, 1).last, before.last + 1);
    assert_int_equal(net_state(n, 1).term, 2);
    net_free(n);
}

static void nobody_stands_before_its_lane_is_fenced_and_read(void **state)
{
    (void)state;
    net_t *n = granted();
    net_propose(n, 0);
    uint64_t last = net_state(n, 1).last;
    net_kill(n, 0);
    net_tell_death(n, 1, 0, AGREEMENT_EVIDENCE_KERNEL);
    assert_int_equal(s.order[1].order, AGREEMENT_LANE_REVOKE);
    assert_int_equal(net_state(n, 1).term, 1);
    assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_FOLLOWER);
    shown(n, 1, AGREEMENT_LANE_REVOKED);
    assert_int_equal(net_state(n, 1).term, 2);
    assert_int_equal(net_state(n, 1).role, AGREEMENT_ROLE_CANDIDATE);
    assert_int_equal(net_state(n, 1).last, last + 1);
    net_free(n);
}

static void one_lane_is_open_at_a_time(void **state)
{
    (void)state;
    net_t *n = granted();
    lane(n, 1, (agreement_lane_event_t){.kind = AGREEMENT_LANE_READY, .peer = net_member(n, 2)});
    assert_int_equal(s.n_orders[1], 1);
    uint64_t id = s.order[1].id;
    shown(n, 1, AGREEMENT_LANE_REVOKED); /* it broke: not asked for */
    assert_int_equal(s.n_orders[1], 2);  /* another for the same leader */
    assert_int_equal(s.order[1].order, AGREEMENT_LANE_GRANT);
    assert_int_equal(s.order[1].id, id + 1);
    lane(n, 1, (agreement_lane_event_t){.kind = AGREEMENT_LANE_REVOKED, .id = id, .lines = s.lane[1]});
    assert_int_equal(s.n_orders[1], 2); /* the old one's */
    net_free(n);
}

/* What comes in the lane of one that has left is nothing to it: it says nothing more, and does not look for ever. */
static void who_is_expelled_takes_nothing(void **state)
{
    (void)state;
    net_t *n = granted();
    net_isolate(n, 1, true);
    agreement_member_t leave = net_member(n, 1);
    unsigned change = net_change(n, 0, NULL, 0, &leave, 1);
    for (unsigned i = 0; i < 50 && !n->proposed[change].answered; i++) {
        for (unsigned k = 0; k < s.n_writes; k++) written(n, s.writes[k].to.core, s.writes[k].number, RF_OK);
        s.n_writes = 0;
        net_propose(n, 0);
        net_run(n, 100 * US);
        shown(n, 1, AGREEMENT_LANE_LINES);
        shown(n, 2, AGREEMENT_LANE_LINES);
    }
    assert_true(n->proposed[change].answered);
    net_heal(n); /* so that it is told */
    net_run(n, 20 * MS);
    assert_true(n->cores[1].expelled);
    n->cores[1].alive = true; /* it has not ended yet */
    agreement_state_t before = net_state(n, 1);
    unsigned said = s.said[1], orders = s.n_orders[1], again = s.n_again[1];
    for (unsigned round = 0; round < 100; round++) {
        shown(n, 1, AGREEMENT_LANE_LINES);
        for (unsigned i = 0; i < WORDS; i++) s.lane[1][i] ^= round * 0x9e3779b97f4a7c15;
    }
    assert_true(net_state(n, 1).last == before.last && net_state(n, 1).applied == before.applied);
    assert_true(s.said[1] == said && s.n_orders[1] == orders && s.n_again[1] == again);
    net_free(n);
}

static void garbage_in_a_lane_is_nothing_or_ends_it(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 1);
    for (unsigned round = 0; round < 300; round++) {
        net_t *n = granted();
        uint64_t last = net_state(n, 1).last;
        uint64_t seed = lane_seed(n->cores[1].engine, net_member(n, 1), net_member(n, 0), s.order[1].id, 1);
        for (unsigned i = 0; i < WORDS; i++) s.lane[1][i] = rf_prng_next(&prng);
        if (round % 2) { /* with a checksum that is right */
            uint64_t lines = n->cores[1].engine->lanes->lines;
            lane_record_t *r = (lane_record_t *)(void *)(s.lane[1] + lines % LINES * 8);
            r->size = (uint16_t)(rf_prng_below(&prng, 64) * 8);
            r->prev_index = round % 4 == 1 ? last : rf_prng_next(&prng);
            r->n = (uint32_t)rf_prng_below(&prng, 4);
            r->flags &= 15;
            if (r->size == 0) r->n = 1;
            lane_record_end(r, lines, seed);
        }
        unsigned orders = s.n_orders[1];
        shown(n, 1, AGREEMENT_LANE_LINES);
        assert_int_equal(net_state(n, 1).last, last);
        if (round % 2 && s.n_orders[1] > orders) assert_int_equal(s.order[1].order, AGREEMENT_LANE_REVOKE);
        shown(n, 1, AGREEMENT_LANE_REVOKED);
        assert_int_equal(net_state(n, 1).last, last);
        net_free(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_of_which_a_part_is_missing_is_none),
        cmocka_unit_test(records_do_not_begin_where_they_might_not_end),
        cmocka_unit_test(what_is_placed_commits_without_a_word_from_its_owner),
        cmocka_unit_test(a_write_to_a_lane_that_is_over_counts_for_nothing),
        cmocka_unit_test(a_write_that_fails_gives_the_voter_back_to_messages),
        cmocka_unit_test(a_full_lane_waits_until_its_owner_has_read),
        cmocka_unit_test(nobody_votes_before_its_lane_is_fenced_and_read),
        cmocka_unit_test(what_is_read_last_is_no_sign_of_life),
        cmocka_unit_test(nobody_stands_before_its_lane_is_fenced_and_read),
        cmocka_unit_test(one_lane_is_open_at_a_time),
        cmocka_unit_test(who_is_expelled_takes_nothing),
        cmocka_unit_test(garbage_in_a_lane_is_nothing_or_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
