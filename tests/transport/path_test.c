/* Links over paths (transport/path), over a medium that does what a test says: which paths are made, what breaks, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "path_control.h"

#include "base/clock.h"

#include <stdlib.h>

#define MAGIC  "RKFSHTST"
#define FORMAT 7
#define SLOTS  64
#define LATER  (3600 * RF_NS_PER_S)

/* --- the medium --------------------------------------------------------------------------------------------- */

typedef enum making { MAKES, MAKES_LATER, REFUSES } making_t;

static making_t making;
static bool joins_later;
static unsigned made[PATH_LANES], joined, dropped[PATH_LANES], events[RF_LINK_DEAD + 1];
static rf_err_t written_err, dead_err;
static path_word_t said;
static bool wakes; /* the medium says what has ended a sleep */

static void test_make(path_lane_t *lane, const path_info_t *offer)
{
    assert_true((offer != NULL) != lane->link->dialer);
    made[lane->number]++;
    if (making == MAKES) path_lane_made(lane);
    if (making == REFUSES) path_lane_refused(lane);
}

static rf_err_t test_info(path_lane_t *lane, path_info_t *out)
{
    (void)lane;
    out->kind = 1;
    return RF_OK;
}

static bool test_info_right(const path_info_t *info)
{
    return info->kind == 1;
}

static rf_err_t test_join(path_lane_t *lane, const path_info_t *peer)
{
    (void)lane;
    joined++;
    return peer->kind != 1 ? RF_ERR_PROTOCOL : joins_later ? RF_ERR_AGAIN : RF_OK;
}

static bool test_say(path_lane_t *lane, const path_word_t *word)
{
    (void)lane;
    said = *word;
    return true;
}

static void test_drop(path_lane_t *lane)
{
    dropped[lane->number]++;
}

static void test_failed(path_lane_t *lane)
{
    path_lane_lost(lane, RF_ERR_CLOSED, true);
}

static const char *test_overdue(const path_lane_t *lane)
{
    (void)lane;
    return "nothing comes up";
}

static bool test_hear(path_link_t *link)
{
    (void)link;
    return false;
}

static bool test_woken(path_endpoint_t *ep)
{
    (void)ep;
    return wakes;
}

static void test_progress(path_endpoint_t *ep, uint64_t now_ns)
{
    (void)ep, (void)now_ns;
}

static uint64_t test_rest(path_endpoint_t *ep, uint64_t now_ns)
{
    (void)ep, (void)now_ns;
    return RF_NEVER;
}

static void test_link(path_link_t *link)
{
    (void)link;
}

static void test_link_free(path_link_t *link)
{
    free(link->ring);
}

static bool test_grow(path_link_t *link, uint32_t size)
{
    rf_slot_t *ring = aligned_alloc(sizeof *ring, size * sizeof *ring);
    if (!ring) return false;
    free(link->ring);
    link->ring = ring;
    link->ring_size = size;
    return true;
}

/* A path takes everything at once. */
static void test_push(path_link_t *link)
{
    path_word_t word;
    if (!path_lane_up(&link->lanes[PATH_LANE_SLOTS])) return;
    link->posted = link->sent_max = link->slots_head;
    if (path_word_due(link, &word) && test_say(&link->lanes[PATH_LANE_SLOTS], &word))
        path_word_said(link, &word);
}

static void test_bulk_pump(path_link_t *link)
{
    link->bulk->posted = link->bulk->head;
}

static bool test_bulk_resume(path_link_t *link, uint64_t peer_placed)
{
    if (peer_placed > link->bulk->posted) return false;
    link->bulk->done = link->bulk->posted = peer_placed;
    return true;
}

static const rf_transport_t transport = {.name = "test", .room = path_room, .send = path_send};

static const path_medium_t medium = {.transport = &transport,
                                     .magic = MAGIC,
                                     .format = FORMAT,
                                     .info_size = sizeof(path_info_t),
                                     .word = RF_SLOT_TYPE_MEDIUM,
                                     .word_flags = PATH_WORD_MEDIUM - 1,
                                     .endpoint_size = sizeof(path_endpoint_t),
                                     .link_size = sizeof(path_link_t),
                                     .bulk_size = sizeof(path_bulk_t),
                                     .woken = test_woken,
                                     .progress = test_progress,
                                     .rest = test_rest,
                                     .hear = test_hear,
                                     .link_free = test_link_free,
                                     .ring_grow = test_grow,
                                     .push = test_push,
                                     .keep = test_link,
                                     .fence = test_link,
                                     .make = test_make,
                                     .info = test_info,
                                     .info_right = test_info_right,
                                     .join = test_join,
                                     .say = test_say,
                                     .drop = test_drop,
                                     .failed = test_failed,
                                     .overdue = test_overdue,
                                     .resume = test_link,
                                     .bulk_free = test_link,
                                     .bulk_pump = test_bulk_pump,
                                     .bulk_resume = test_bulk_resume};

/* --- a link ------------------------------------------------------------------------------------------------- */

static path_endpoint_t endpoint;
static void (*on_room)(path_link_t *link); /* NULL: nothing */

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context;
    events[event]++;
    if (event == RF_LINK_ROOM && on_room) on_room(path_link_of(link));
    if (event == RF_LINK_WRITTEN) written_err = info->err;
    if (event == RF_LINK_DEAD) dead_err = info->err;
}

static path_link_t *link_new(bool dialer)
{
    control_reset();
    memset(made, 0, sizeof made);
    memset(dropped, 0, sizeof dropped);
    memset(events, 0, sizeof events);
    making = MAKES;
    joined = 0;
    joins_later = false;
    endpoint = (path_endpoint_t){.head = {.transport = &transport},
                                 .medium = &medium,
                                 .on_event = on_event,
                                 .deadline_ns = PATH_DEADLINE_NS_DEFAULT,
                                 .epoll = -1,
                                 .kick = -1,
                                 .timer_ns = RF_NEVER};
    path_link_t *link = path_link_new(&endpoint, &(rf_link_params_t){.slots = SLOTS, .slots_max = SLOTS});
    assert_non_null(link);
    link->control = &control.head;
    link->dialer = dialer;
    control.head.user = link;
    const rf_hello_t hello = {.core = 1};
    path_control_event(&endpoint, &control.head, RF_LINK_UP, &(rf_link_event_info_t){.hello = &hello});
    return link;
}

static void link_over(path_link_t *link)
{
    path_endpoint_enter(&endpoint);
    path_link_bury(link);
    path_endpoint_leave(&endpoint);
}

static path_info_t info_of(unsigned lane, uint32_t generation)
{
    return (path_info_t){
        .magic = MAGIC, .format = FORMAT, .lane = (uint8_t)lane, .kind = 1, .generation = generation};
}

/* The peer does its part of what `lane` waits for; then the lane is up. */
static void comes_up(path_link_t *link, unsigned number, uint64_t accepted)
{
    path_lane_t *lane = &link->lanes[number];
    path_info_t info = info_of(number, lane->generation + !link->dialer);
    info.accepted = accepted;
    control_says(link->dialer ? PATH_CONTROL_ANSWER : PATH_CONTROL_OFFER, &info, sizeof info);
    path_lane_hello(lane);
    path_link_settle(link);
}

/* All that is due by a time, once. */
static void time_is(path_link_t *link, uint64_t now_ns)
{
    path_control_timers(link, now_ns);
    if (link->attention) path_link_settle(link);
}

static void writes(path_link_t *link)
{
    const path_region_key_t to = {.size = 64};
    rf_region_key_t key;
    memcpy(&key, &to, sizeof key);
    assert_int_equal(path_remote_write(&link->head, &key, 0, "x", 1, NULL, 0), RF_OK);
}

/* --- tests -------------------------------------------------------------------------------------------------- */

static void a_dialer_offers_and_a_listener_answers(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    assert_int_equal(control.said[PATH_CONTROL_OFFER], 1);
    comes_up(link, PATH_LANE_SLOTS, 0);
    assert_int_equal(events[RF_LINK_UP], 1);
    path_lane_hello(&link->lanes[PATH_LANE_SLOTS]);
    assert_non_null(link->wrong);
    link_over(link);
    link = link_new(false);
    assert_int_equal(made[PATH_LANE_SLOTS], 0);
    comes_up(link, PATH_LANE_SLOTS, 0);
    assert_int_equal(control.said[PATH_CONTROL_ANSWER], 1);
    assert_int_equal(events[RF_LINK_UP], 1);
    path_info_t again = info_of(PATH_LANE_SLOTS, link->lanes[PATH_LANE_SLOTS].generation);
    control_says(PATH_CONTROL_OFFER, &again, sizeof again);
    assert_non_null(link->wrong);
    link_over(link);
}

/* A medium may take long to join what the answer says: another answer to the same offer begins nothing. */
static void a_second_answer_is_not_joined(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    path_lane_t *lane = &link->lanes[PATH_LANE_SLOTS];
    path_info_t answer = info_of(PATH_LANE_SLOTS, lane->generation);
    joins_later = true;
    control_says(PATH_CONTROL_ANSWER, &answer, sizeof answer);
    control_says(PATH_CONTROL_ANSWER, &answer, sizeof answer);
    assert_int_equal(joined, 1);
    path_lane_joined(lane);
    assert_int_equal(said.flags, PATH_WORD_HELLO);
    control_says(PATH_CONTROL_ANSWER, &answer, sizeof answer);
    assert_int_equal(joined, 1);
    path_lane_hello(lane);
    path_link_settle(link);
    assert_int_equal(events[RF_LINK_UP], 1);
    link_over(link);
}

/* What the peer has goes on over the next path; what it cannot have is nonsense. */
static void the_next_path_goes_on_from_what_came(void **state)
{
    (void)state;
    static rf_slot_t slots[8];
    for (unsigned i = 0; i < 8; i++) slots[i].control = rf_control_make(1, 8, false, 0);
    path_link_t *link = link_new(true);
    comes_up(link, PATH_LANE_SLOTS, 0);
    assert_int_equal(path_send(&link->head, slots, 8), 8);
    test_push(link);
    path_lane_failed(&link->lanes[PATH_LANE_SLOTS]);
    path_link_settle(link);
    assert_int_equal(events[RF_LINK_BROKEN], 1);
    time_is(link, link->lanes[PATH_LANE_SLOTS].offer_ns);
    comes_up(link, PATH_LANE_SLOTS, 5);
    assert_null(link->wrong);
    assert_int_equal(link->stats.retransmitted, 3);
    path_lane_failed(&link->lanes[PATH_LANE_SLOTS]);
    path_link_settle(link);
    time_is(link, link->lanes[PATH_LANE_SLOTS].offer_ns);
    comes_up(link, PATH_LANE_SLOTS, 9);
    assert_non_null(link->wrong);
    link_over(link);
}

/* One that never comes up is tried less and less often; one that came up and broke soon, within milliseconds. */
static void a_path_is_made_again_later_each_time(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    path_lane_t *lane = &link->lanes[PATH_LANE_SLOTS];
    comes_up(link, PATH_LANE_SLOTS, 0);
    making = REFUSES;
    path_lane_failed(lane);
    path_link_settle(link);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_not_equal(lane->offer_ns, RF_NEVER);
        time_is(link, lane->offer_ns);
    }
    assert_int_equal(lane->backoff_ns, PATH_BACKOFF_NS_MAX);
    making = MAKES;
    time_is(link, lane->offer_ns);
    comes_up(link, PATH_LANE_SLOTS, 0);
    uint64_t before_ns = rf_clock_ns();
    lane->up_ns = before_ns;
    path_lane_failed(lane);
    path_link_settle(link);
    assert_true(lane->offer_ns < before_ns + LATER);
    assert_true(lane->backoff_ns < PATH_BACKOFF_NS_MAX / 4);
    time_is(link, lane->offer_ns);
    comes_up(link, PATH_LANE_SLOTS, 0);
    lane->up_ns = 0; /* long ago */
    path_lane_failed(lane);
    path_link_settle(link);
    assert_int_equal(lane->backoff_ns, 2 * PATH_BACKOFF_NS_MIN);
    link_over(link);
}

static void what_makes_a_path_is_not_waited_for_for_ever(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    path_lane_t *lane = &link->lanes[PATH_LANE_SLOTS];
    path_lane_drop(lane);
    making = MAKES_LATER;
    path_lane_need(lane, rf_clock_ns());
    time_is(link, lane->offer_ns);
    assert_int_equal(lane->stage, PATH_MAKING);
    uint32_t generation = lane->generation;
    making = MAKES;
    time_is(link, lane->overdue_ns);
    if (lane->stage == PATH_NONE) time_is(link, lane->offer_ns);
    assert_int_equal(dropped[PATH_LANE_SLOTS], 2);
    assert_int_equal(lane->generation, generation + 1);
    assert_int_equal(lane->stage, PATH_OFFERED);
    link_over(link);
}

/* It makes none itself: it says so, as soon as the control link takes it. */
static void a_listener_asks_for_what_it_has_lost(void **state)
{
    (void)state;
    path_link_t *link = link_new(false);
    comes_up(link, PATH_LANE_SLOTS, 0);
    control.full = true;
    path_lane_failed(&link->lanes[PATH_LANE_SLOTS]);
    path_link_settle(link);
    assert_int_equal(control.said[PATH_CONTROL_LOST], 0);
    control.full = false;
    path_control_push(link);
    assert_int_equal(control.said[PATH_CONTROL_LOST], 1);
    path_lost_t lost;
    memcpy(&lost, control.last.payload, sizeof lost);
    assert_int_equal(lost.generation, link->lanes[PATH_LANE_SLOTS].generation);
    assert_int_equal(lost.err, RF_OK);
    making = REFUSES;
    path_info_t offer = info_of(PATH_LANE_SLOTS, lost.generation + 1);
    control_says(PATH_CONTROL_OFFER, &offer, sizeof offer);
    assert_int_equal(control.said[PATH_CONTROL_LOST], 2);
    link_over(link);
}

/* Slots go on, but no lane for bulk is to be had. */
static void writes_that_never_get_there_end_the_link(void **state)
{
    (void)state;
    for (unsigned dialer = 0; dialer < 2; dialer++) {
        path_link_t *link = link_new(dialer);
        comes_up(link, PATH_LANE_SLOTS, 0);
        making = REFUSES;
        writes(link);
        uint64_t until_ns = link->bulk->stuck_ns;
        assert_true(path_control_next(link) <= until_ns);
        time_is(link, until_ns - 1);
        assert_int_equal(events[RF_LINK_DEAD], 0);
        time_is(link, until_ns);
        assert_int_equal(events[RF_LINK_WRITTEN], 1);
        assert_int_equal(written_err, RF_ERR_TIMEOUT);
        assert_int_equal(events[RF_LINK_DEAD], 1);
        assert_int_equal(dead_err, RF_ERR_TIMEOUT);
        link_over(link);
    }
}

/* Nor when the link was just being made again at the time when they would have been given up. */
static void a_break_does_not_let_them_wait_for_ever(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    path_lane_t *slots = &link->lanes[PATH_LANE_SLOTS];
    comes_up(link, PATH_LANE_SLOTS, 0);
    making = REFUSES;
    writes(link);
    uint64_t until_ns = link->bulk->stuck_ns;
    path_lane_failed(slots);
    path_link_settle(link);
    path_bulk_timers(link, until_ns);
    assert_int_equal(link->head.state, RF_LINK_STATE_BROKEN);
    link->lanes[PATH_LANE_BULK].offer_ns = RF_NEVER; /* nothing but the slots' lane is due */
    making = MAKES;
    time_is(link, slots->offer_ns);
    comes_up(link, PATH_LANE_SLOTS, 0);
    assert_int_equal(events[RF_LINK_UP], 2);
    assert_int_not_equal(link->bulk->stuck_ns, RF_NEVER);
    time_is(link, link->bulk->stuck_ns);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(dead_err, RF_ERR_TIMEOUT);
    link_over(link);
}

/* One that got there gives the others all the time again, and a lane that is up is waited for. */
static void writes_that_get_there_are_waited_for(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    comes_up(link, PATH_LANE_SLOTS, 0);
    writes(link);
    writes(link);
    uint64_t until_ns = link->bulk->stuck_ns;
    time_is(link, link->lanes[PATH_LANE_BULK].offer_ns);
    comes_up(link, PATH_LANE_BULK, 0);
    assert_int_equal(link->bulk->posted, 2);
    path_bulk_timers(link, until_ns);
    assert_int_equal(link->head.state, RF_LINK_STATE_UP);
    link->bulk->done = 1;
    path_link_attention(link);
    path_link_settle(link);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(written_err, RF_OK);
    assert_int_equal(link->bulk->stuck_ns, RF_NEVER);
    link_over(link);
}

static void a_closed_link_stays_until_the_peer_has_taken_everything(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    comes_up(link, PATH_LANE_SLOTS, 0);
    path_close(&link->head);
    assert_int_equal(said.flags, PATH_WORD_CLOSE);
    assert_int_equal(endpoint.n_lingering, 1);
    path_endpoint_enter(&endpoint);
    control_says(PATH_CONTROL_CLOSED, NULL, 0);
    assert_int_equal(endpoint.n_links, 0);
    path_endpoint_leave(&endpoint);
}

/* The peer is gone, and not all that it sent has been polled: who closes then has its buffers back, too. */
static void a_close_before_the_end_is_told_ends_the_writes(void **state)
{
    (void)state;
    path_link_t *link = link_new(true);
    comes_up(link, PATH_LANE_SLOTS, 0);
    writes(link);
    link->accepted = 1;
    path_link_end(link, RF_ERR_PEER_DEAD);
    assert_true(link->end_pending);
    assert_int_equal(events[RF_LINK_WRITTEN], 0);
    path_close(&link->head);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(written_err, RF_ERR_PEER_DEAD);
    assert_int_equal(events[RF_LINK_DEAD], 0);
    assert_int_equal(endpoint.n_links, 0);
}

/* --- walks over the links ----------------------------------------------------------------------------------- */

#define LINKS 5

static rf_endpoint_t control_endpoint = {.transport = &control_transport};
static path_link_t *links[LINKS]; /* the first is the first of a walk */
static unsigned turns[LINKS];

static void room_comes(path_link_t *link)
{
    link->room_due = true;
    path_link_attention(link);
}

/* Links that are up, all of them to be told of room. */
static void links_new(void)
{
    path_link_t *last = link_new(true);
    endpoint.control = &control_endpoint;
    for (unsigned i = LINKS; i > 0; i--) {
        links[i - 1] =
            i == LINKS ? last
                       : path_link_new(&endpoint, &(rf_link_params_t){.slots = SLOTS, .slots_max = SLOTS});
        assert_non_null(links[i - 1]);
        links[i - 1]->control = NULL;
        room_comes(links[i - 1]);
        turns[i - 1] = 0;
    }
}

static unsigned turn_of(const path_link_t *link)
{
    unsigned i = 0;
    while (links[i] != link) i++;
    turns[i]++;
    return i;
}

static void links_over(void)
{
    on_room = NULL;
    path_endpoint_enter(&endpoint);
    while (endpoint.links) path_link_bury(endpoint.links);
    path_endpoint_leave(&endpoint);
}

static void the_first_always_has_more(path_link_t *link)
{
    const unsigned many = 1000;
    if (turn_of(link) == 0 && turns[0] < many) room_comes(link);
}

/* One to which something happens all the time does not keep the others waiting, nor whoever called. */
static void links_have_their_turns(void **state)
{
    (void)state;
    uint64_t next_ns;
    links_new();
    on_room = the_first_always_has_more;
    path_endpoint_progress(&endpoint.head, 1, &next_ns);
    for (unsigned i = 0; i < LINKS; i++) assert_int_equal(turns[i], 1);
    assert_int_equal(next_ns, 1); /* there is more */
    path_endpoint_progress(&endpoint.head, 1, &next_ns);
    assert_int_equal(turns[0], 2);
    assert_int_equal(turns[1], 1);
    links_over();
}

/* The second closes whichever is before it, itself, and the two behind it. */
static void the_second_closes_others(path_link_t *link)
{
    if (turn_of(link) != 1) return;
    for (unsigned i = 0; i + 1 < LINKS; i++) path_close(&links[i]->head);
}

static void a_callback_closes_any_link(void **state)
{
    (void)state;
    uint64_t next_ns;
    links_new();
    on_room = the_second_closes_others;
    path_endpoint_progress(&endpoint.head, 1, &next_ns);
    for (unsigned i = 0; i < LINKS; i++) assert_int_equal(turns[i], i < 2 || i == LINKS - 1);
    assert_int_equal(endpoint.n_links, 1);
    links_over();
}

static uint64_t progress_at(uint64_t now_ns)
{
    uint64_t next_ns;
    path_endpoint_progress(&endpoint.head, now_ns, &next_ns);
    return next_ns;
}

/* Who knows what has woken it does not look at everything each time; but in time, however often it is woken. */
static void who_is_woken_often_looks_at_the_rest_in_time(void **state)
{
    (void)state;
    links_new();
    control_reset();
    wakes = true;
    progress_at(1);
    assert_int_equal(control.looks, 1);
    uint64_t due_ns = progress_at(2);
    assert_int_equal(control.looks, 1);
    assert_int_not_equal(due_ns, RF_NEVER); /* it comes back, though nothing else happens */
    assert_int_equal(progress_at(due_ns - 1), due_ns);
    control.next_ns = due_ns + 7;
    progress_at(due_ns);
    assert_int_equal(control.looks, 2);
    assert_int_equal(progress_at(due_ns + 1), due_ns + 7); /* what the control links want to be called for */
    control.next_ns = 0;
    progress_at(due_ns + 7);
    assert_int_equal(control.looks, 3);
    wakes = false;
    progress_at(due_ns + 8);
    assert_int_equal(control.looks, 4);
    links_over();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dialer_offers_and_a_listener_answers),
        cmocka_unit_test(a_second_answer_is_not_joined),
        cmocka_unit_test(the_next_path_goes_on_from_what_came),
        cmocka_unit_test(a_path_is_made_again_later_each_time),
        cmocka_unit_test(what_makes_a_path_is_not_waited_for_for_ever),
        cmocka_unit_test(a_listener_asks_for_what_it_has_lost),
        cmocka_unit_test(writes_that_never_get_there_end_the_link),
        cmocka_unit_test(a_break_does_not_let_them_wait_for_ever),
        cmocka_unit_test(writes_that_get_there_are_waited_for),
        cmocka_unit_test(a_closed_link_stays_until_the_peer_has_taken_everything),
        cmocka_unit_test(a_close_before_the_end_is_told_ends_the_writes),
        cmocka_unit_test(links_have_their_turns),
        cmocka_unit_test(a_callback_closes_any_link),
        cmocka_unit_test(who_is_woken_often_looks_at_the_rest_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
