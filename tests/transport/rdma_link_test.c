/* Links of the RDMA medium without a device: slots, words and control messages as a peer might say them, at moments that a
 * device seldom hits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma_stand_in.h"

#include <sys/timerfd.h>
#include <unistd.h>

/* --- tests -------------------------------------------------------------------------------------------------- */

static void what_a_push_posted_may_be_acknowledged_within_it(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(2048, RING);
    queue_filled(link, RDMA_DEPTH_DEFAULT - 8);
    found = ACK_OF_ALL;
    assert_int_equal(path_send(&link->base.head, slots, 900), 900);
    assert_int_equal(rdma_flush(&link->base.head), RF_OK);
    assert_null(link->base.wrong);
    assert_int_equal(link->base.posted, 900);
    assert_in_range(link->base.acked, 1, 900);
    link_over(link);
}

static void what_a_push_posted_before_it_failed_may_have_come(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(2048, RING);
    queue_filled(link, RDMA_DEPTH_DEFAULT - 8);
    found = FAILURE;
    assert_int_equal(path_send(&link->base.head, slots, 900), 900);
    rdma_flush(&link->base.head);
    uint64_t came = link->base.posted;
    assert_true(came > 0);
    link->base.lanes[PATH_LANE_SLOTS].failed = false;
    assert_false(path_link_resume(&link->base, came + 1));
    assert_true(path_link_resume(&link->base, came));
    link_over(link);
}

/* The peer's ring is a quarter of what its link takes: what is asked for is what has been sent there, no more. */
static void room_is_asked_for_each_time(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(4 * RING, RING);
    found = SENT;
    assert_int_equal(path_send(&link->base.head, slots, 4 * RING), 4 * RING);
    rdma_flush(&link->base.head);
    assert_int_equal(link->base.posted, RING);
    assert_int_equal(path_send(&link->base.head, slots, 1), 0);
    assert_int_equal(wants, 1);
    assert_int_equal(said.count, RING);
    peer_says(0, RING);
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_ROOM], 1);
    assert_int_equal(link->base.posted, 2 * RING);
    found = SENT;
    assert_int_equal(path_send(&link->base.head, slots, RING), RING);
    assert_int_equal(path_send(&link->base.head, slots, 1), 0);
    assert_int_equal(wants, 2);
    assert_int_equal(said.count, 2 * RING);
    link_over(link);
}

/* A sleeper with slots that do not fit its peer's ring is woken when they do: it has asked, which the line does not answer. */
static void a_sleeper_with_slots_to_send_has_asked(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(2 * RING, RING);
    assert_int_equal(path_send(&link->base.head, slots, 2 * RING), 2 * RING);
    rdma_flush(&link->base.head);
    rdma_arm(&link->base.head);
    assert_int_equal(wants, 1);
    rdma_disarm(&link->base.head);
    line_says(link, RING / 2);
    rdma_line_hear(link);
    assert_int_equal(link->base.posted, RING + RING / 2);
    line_says(link, RING);
    rdma_line_hear(link);
    rdma_arm(&link->base.head);
    assert_int_equal(link->base.posted, 2 * RING);
    rdma_disarm(&link->base.head);
    assert_int_equal(path_send(&link->base.head, slots, RING), RING);
    rdma_flush(&link->base.head);
    rdma_arm(&link->base.head);
    assert_int_equal(wants, 2);
    assert_int_equal(said.count, 2 * RING);
    link_over(link);
}

static void a_smaller_ring_is_not_overrun(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(4096, RING);
    assert_int_equal(path_send(&link->base.head, slots, 1024), 1024);
    rdma_flush(&link->base.head);
    assert_int_equal(link->base.posted, 1024);
    link->paths[PATH_LANE_SLOTS]->peer.ring_slots = 256; /* as the next path's may be */
    assert_true(path_link_resume(&link->base, 1024));
    assert_int_equal(path_send(&link->base.head, slots, 1024), 1024);
    rdma_flush(&link->base.head);
    assert_int_equal(link->base.posted, 1024);
    found = SENT;
    peer_says(0, 1000);
    assert_int_equal(link->base.posted, 1000 + 256);
    link_over(link);
}

/* What rang a sleeper after its last look, and was taken in by the look of ready(), is all the ringing there is. */
static void a_ring_between_poll_and_arm_is_not_lost(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    rf_slot_t out[8];
    path->sleep.state = RDMA_GRANTED;
    rf_slot_t *ring = (rf_slot_t *)path->ring.base;
    ring[0].control = slots[0].control | RF_CONTROL_PARITY;
    assert_int_equal(rdma_poll(&link->base.head, out, 8), 1);
    assert_int_equal(rdma_poll(&link->base.head, out, 8), 0);
    rdma_arm(&link->base.head);
    found = RUNG;
    assert_true(rdma_ready(&link->base.head));
    rdma_disarm(&link->base.head);
    assert_false(rdma_ready(&link->base.head));
    rdma_arm(&link->base.head);
    assert_true(said.flags & RDMA_WORD_SLEEP);
    assert_false(rdma_ready(&link->base.head));
    link_over(link);
}

/* A peer writes slots, numbered in their first word from 0. */
static void peer_writes(rdma_path_t *path, uint64_t first, unsigned n)
{
    rf_slot_t *ring = (rf_slot_t *)path->ring.base;
    for (uint64_t i = first; i < first + n; i++) {
        ring[i % RING].words[0] = i;
        ring[i % RING].control = slots[0].control | rdma_ring_parity(i, RING);
    }
}

/* What poll() does not take stays in the ring, and is kept when the path ends. */
static void what_is_not_polled_outlives_its_path(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(1024, RING);
    rf_slot_t out[64];
    peer_writes(link->paths[PATH_LANE_SLOTS], 0, 40);
    assert_int_equal(rdma_poll(&link->base.head, out, 10), 10);
    assert_int_equal(link->base.accepted, 10);
    assert_true(rdma_ready(&link->base.head));
    path_link_broken(&link->base, RF_ERR_CLOSED);
    assert_int_equal(link->base.accepted, 40); /* which the next path's offer says */
    assert_int_equal(rdma_poll(&link->base.head, &out[10], 54), 30);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(out[i].words[0], i);
        assert_int_equal(out[i].control, slots[0].control);
    }
    link_over(link);
}

/* Lap after lap, in pieces of any size; of the in-ring nothing is used. */
static void a_ring_is_read_by_poll_alone(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(1024, RING);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    rf_slot_t out[512];
    uint64_t taken = 0;
    memset(link->in, 0xa5, link->in_size * sizeof *link->in);
    for (uint64_t written = 0; written < 5 * RING; written += 300) {
        peer_writes(path, written, 300);
        for (unsigned most = 1; taken < written + 300; most = most * 3 % 512) {
            unsigned n = rdma_poll(&link->base.head, out, most);
            assert_in_range(n, 1, most);
            for (unsigned i = 0; i < n; i++) assert_int_equal(out[i].words[0], taken++);
        }
        assert_int_equal(rdma_poll(&link->base.head, out, 512), 0);
    }
    for (unsigned i = 0; i < link->in_size; i++) assert_int_equal(link->in[i].words[0], 0xa5a5a5a5a5a5a5a5);
    link_over(link);
}

/* An acknowledgement is due for a quarter of the ring that the peer has, as far as can be seen: of who sends little it stays small. */
static void acknowledgements_follow_what_comes(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(1024, RING);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    rf_slot_t out[RING];
    uint64_t written = 0;
    rdma_resume(&link->base);
    const rf_link_stats_t *stats = &link->base.stats;
    for (; written < 640; written++) {
        peer_writes(path, written, 1);
        assert_int_equal(rdma_poll(&link->base.head, out, RING), 1);
    }
    assert_int_equal(stats->acks_explicit, 640 / 16);
    for (; written < 640 + 20 * 512; written += 512) {
        peer_writes(path, written, 512);
        for (unsigned taken = 0; taken < 512; taken += 32)
            assert_int_equal(rdma_poll(&link->base.head, out, 32), 32);
    }
    uint64_t before = stats->acks_explicit;
    for (unsigned i = 0; i < 20; i++, written += 512) {
        peer_writes(path, written, 512);
        assert_int_equal(rdma_poll(&link->base.head, out, RING), 512);
    }
    assert_in_range(before, 40 + 20 * 4, 40 + 20 * 4 + 16); /* 128 at last, of a ring of 512 */
    assert_int_equal(stats->acks_explicit, before + 20);
    assert_null(link->base.wrong);
    link_over(link);
}

/* What ended the link is told after the slots that came before, which poll() has still to return. */
static void slots_come_before_the_event_that_ends_their_link(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(1024, RING);
    rf_slot_t out[64], *ring = (rf_slot_t *)link->paths[PATH_LANE_SLOTS]->ring.base;
    ring[0].control = slots[0].control | RF_CONTROL_PARITY;
    ring[1].control = RDMA_WORD | RF_CONTROL_PARITY;
    assert_int_equal(rdma_poll(&link->base.head, out, 64), 1);
    assert_int_equal(events[RF_LINK_DEAD], 0);
    assert_int_equal(rdma_poll(&link->base.head, out, 64), 0);
    rdma_poll(&link->base.head, out, 64);
    assert_int_equal(events[RF_LINK_DEAD], 1);
    link_over(link);
}

/* What makes sense before it is delivered. */
static void nonsense_in_a_ring_ends_the_link(void **state)
{
    (void)state;
    static const uint64_t nonsense[] = {0, RDMA_WORD, 1 | 57ull << RF_CONTROL_LENGTH_SHIFT, 1 | 1ull << 63};
    for (unsigned i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        rdma_link_t *link = link_up(1024, RING);
        rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
        rf_slot_t out[8];
        peer_writes(path, 0, 4);
        ((rf_slot_t *)path->ring.base)[2].control = nonsense[i] | RF_CONTROL_PARITY;
        assert_int_equal(rdma_poll(&link->base.head, out, 8), 2);
        assert_non_null(link->base.wrong);
        assert_int_equal(rdma_poll(&link->base.head, out, 8), 0);
        assert_int_equal(link->base.end_err, RF_ERR_PROTOCOL);
        link_over(link);
    }
}

/* Slots by SEND that a look finds while their link is polled: to the caller what fits, the rest into the in-ring. */
static void slots_by_send_go_to_who_polls(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(1024, 0);
    rf_slot_t out[64];
    for (unsigned i = 0; i < 100; i++) slots[i].words[0] = i;
    memset(link->in, 0xa5, link->in_size * sizeof *link->in);
    n_found = 40, found = SLOTS;
    assert_int_equal(rdma_poll(&link->base.head, out, 64), 40);
    for (unsigned i = 0; i < 40; i++) assert_int_equal(out[i].words[0], i);
    for (unsigned i = 0; i < link->in_size; i++) assert_int_equal(link->in[i].words[0], 0xa5a5a5a5a5a5a5a5);
    n_found = 100, found = SLOTS;
    assert_int_equal(rdma_poll(&link->base.head, out, 20), 20);
    for (unsigned i = 0; i < 20; i++) assert_int_equal(out[i].words[0], i);
    n_found = 16, found = SLOTS; /* behind what waits */
    assert_int_equal(rdma_poll(&link->base.head, out, 60), 60);
    for (unsigned i = 0; i < 60; i++) assert_int_equal(out[i].words[0], 20 + i);
    assert_int_equal(rdma_poll(&link->base.head, out, 64), 36);
    for (unsigned i = 0; i < 36; i++) assert_int_equal(out[i].words[0], i < 20 ? 80 + i : i - 20);
    assert_null(link->base.wrong);
    link_over(link);
}

/* Links that are polled in turn look into their queue once a turn; when who looked is polled no more, another looks. */
static void one_look_serves_all_who_are_polled(void **state)
{
    (void)state;
    rdma_link_t *links[3];
    rf_slot_t out[8];
    for (unsigned i = 0; i < 3; i++) {
        const rf_link_params_t params = {.slots = 64};
        links[i] = i == 0 ? link_up(64, 0) : rdma_link_of(path_link_new(&endpoint.base, &params));
        links[i]->device = &device;
        links[i]->base.head.state = RF_LINK_STATE_UP;
    }
    device.n_paths = 3;
    looks = 0;
    for (unsigned i = 0; i < 300; i++) rdma_poll(&links[i % 3]->base.head, out, 8);
    assert_in_range(looks, 99, 101);
    for (unsigned i = 0; i < 300; i++) rdma_poll(&links[1 + i % 2]->base.head, out, 8);
    assert_in_range(looks, 247, 252);
    for (unsigned i = 0; i < 300; i++) rdma_poll(&links[0]->base.head, out, 8);
    assert_in_range(looks, 544, 553);
    for (unsigned i = 0; i < 3; i++) link_over(links[i]);
}

static rdma_path_info_t info_of(uint32_t generation)
{
    return (rdma_path_info_t){.path = {.magic = RDMA_MAGIC, .format = RDMA_FORMAT, .generation = generation},
                              .mtu = IBV_MTU_1024,
                              .messages = RDMA_MESSAGES,
                              .slots_max = 64,
                              .reads = 1,
                              .ethernet = 1};
}

static void a_closed_link_makes_no_path(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    peer_says(PATH_WORD_CLOSE, 0);
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_CLOSED], 1);
    path_lost_t lost = {.generation = 1};
    control_says(PATH_CONTROL_LOST, &lost, sizeof lost);
    path_control_event(&endpoint.base, &control.head, RF_LINK_BROKEN, NULL);
    assert_int_equal(path_control_next(&link->base), RF_NEVER);
    path_control_timers(&link->base, RF_NEVER - 1);
    rdma_path_info_t answer = info_of(2);
    control_says(PATH_CONTROL_ANSWER, &answer, sizeof answer);
    assert_int_equal(n_paths, 1);
    path_link_settle(&link->base);
    assert_int_equal(link->base.head.state, RF_LINK_STATE_DEAD);
    assert_int_equal(events[RF_LINK_UP], 0);
    link_over(link);
}

/* Whose owner has gone: the endpoint alone arms the queue for it, and looks again, since what was there wakes nobody. */
static void a_closed_link_is_woken_by_its_queue(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, 0);
    assert_int_equal(path_send(&link->base.head, slots, 1), 1);
    path_close(&link->base.head);
    assert_true(link->base.user_closed && !link->base.buried);
    arms = 0, n_found = 8, comes_as_armed = SLOTS;
    rdma_link_hear(&link->base);
    assert_int_equal(arms, 1);
    assert_int_equal(link->base.accepted, 8);
    assert_int_equal(link->base.delivered, 8);
    link_over(link);
}

/* Each that comes sooner than an honest dialer's is turned away: so many paths as there was time for, and the first. */
static void offers_in_a_row_make_one_path(void **state)
{
    (void)state;
    const unsigned offers = 10;
    rdma_link_t *link = link_up(64, RING);
    link->base.dialer = false;
    uint64_t since_ns = rf_clock_ns();
    for (uint32_t generation = 2; generation < 2 + offers; generation++) {
        rdma_path_info_t offer = info_of(generation);
        control_says(PATH_CONTROL_OFFER, &offer, sizeof offer);
    }
    uint64_t times = (rf_clock_ns() - since_ns) / (PATH_BACKOFF_NS_MIN / 2);
    assert_null(link->base.wrong);
    assert_in_range(n_paths, 2, 2 + times);
    unsigned refused = offers - (n_paths - 1);
    assert_int_equal(control.said[PATH_CONTROL_LOST], refused + 1); /* and the path that was there */
    assert_int_equal(link->base.lanes[PATH_LANE_SLOTS].generation, 1 + offers);
    link_over(link);
}

/* Another format may be of another size. */
static void another_format_is_called_so(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    link->base.dialer = false;
    uint8_t offer[sizeof(rdma_path_info_t) + 8] = RDMA_MAGIC;
    offer[offsetof(path_info_t, format)] = RDMA_FORMAT + 1;
    control_says(PATH_CONTROL_OFFER, offer, sizeof offer);
    assert_null(link->base.wrong);
    assert_int_equal(link->base.end_err, RF_ERR_VERSION);
    link_over(link);
    link = link_up(64, RING);
    link->base.dialer = false;
    offer[offsetof(path_info_t, format)] = RDMA_FORMAT;
    control_says(PATH_CONTROL_OFFER, offer, sizeof offer);
    assert_non_null(link->base.wrong);
    link_over(link);
}

/* The peer frees a region before it can know that the region is to go. */
static void a_region_is_not_freed_before_it_was_asked_for(void **state)
{
    (void)state;
    static struct ibv_pd pd;
    static rdma_domain_t domain = {.pd = &pd, .holders = 1};
    rdma_link_t *link = link_up(64, RING);
    rf_region_t *region;
    link->domain = &domain;
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &region), RF_OK);
    control.full = true;
    rdma_region_destroy(&link->base.head, region);
    rdma_region_gone_t gone = {.region = 0};
    control_says(RDMA_CONTROL_REGION_FREE, &gone, sizeof gone);
    assert_non_null(link->base.wrong);
    assert_non_null(rdma_bulk_of(link)->regions[0].memory.base);
    link_over(link);
}

/* --- sleepers and routes ------------------------------------------------------------------------------------------ */

static uint64_t look_due_ns(void)
{
    struct itimerspec due;
    assert_int_equal(timerfd_gettime(endpoint.look, &due), 0);
    return (uint64_t)due.it_value.tv_sec * RF_NS_PER_S + (uint64_t)due.it_value.tv_nsec;
}

/* All sleepers have one timer: it goes off for the first of them. */
static void the_first_sleeper_looks_first(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    endpoint.look = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    path->sleep.state = RDMA_ASKED;
    const uint64_t long_ns = 10000 * RF_NS_PER_S; /* beside which nothing here takes long */
    path->sleep.look_ns = 4 * long_ns;
    rdma_ring_arm(link, path);
    assert_in_range(look_due_ns(), 2 * long_ns, 4 * long_ns);
    path->sleep.look_ns = long_ns; /* another's */
    rdma_ring_arm(link, path);
    assert_in_range(look_due_ns(), 1, long_ns);
    path->sleep.look_ns = 100 * long_ns;
    rdma_ring_arm(link, path);
    assert_in_range(look_due_ns(), 1, long_ns);
    rdma_ring_looked(&endpoint);
    path->sleep.look_ns = 100 * long_ns;
    rdma_ring_arm(link, path);
    assert_in_range(look_due_ns(), 50 * long_ns, 100 * long_ns);
    close(endpoint.look);
    endpoint.look = -1;
    link_over(link);
}

/* A GID is an IPv4 address only where it is mapped so; else its last bytes are some other host's. */
static void the_route_back_is_to_the_gid(void **state)
{
    (void)state;
    static const uint8_t one[RDMA_GID] = {[15] = 1}, mapped[RDMA_GID] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
    const uint8_t *const gids[] = {one, mapped};
    for (unsigned i = 0; i < 2; i++) {
        rdma_link_t *link = link_up(64, RING);
        link->base.dialer = false;
        rdma_path_info_t offer = info_of(2);
        memcpy(offer.gid, gids[i], sizeof offer.gid);
        control_says(PATH_CONTROL_OFFER, &offer, sizeof offer);
        bool routed = i != 0 || asked.netdev != 0; /* a host may be without IPv6 */
        if (routed) assert_memory_equal(asked.gid, gids[i], RDMA_GID);
        link_over(link);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_push_posted_may_be_acknowledged_within_it),
        cmocka_unit_test(what_a_push_posted_before_it_failed_may_have_come),
        cmocka_unit_test(room_is_asked_for_each_time),
        cmocka_unit_test(a_sleeper_with_slots_to_send_has_asked),
        cmocka_unit_test(a_smaller_ring_is_not_overrun),
        cmocka_unit_test(a_ring_between_poll_and_arm_is_not_lost),
        cmocka_unit_test(what_is_not_polled_outlives_its_path),
        cmocka_unit_test(a_ring_is_read_by_poll_alone),
        cmocka_unit_test(acknowledgements_follow_what_comes),
        cmocka_unit_test(slots_come_before_the_event_that_ends_their_link),
        cmocka_unit_test(nonsense_in_a_ring_ends_the_link),
        cmocka_unit_test(slots_by_send_go_to_who_polls),
        cmocka_unit_test(one_look_serves_all_who_are_polled),
        cmocka_unit_test(a_closed_link_makes_no_path),
        cmocka_unit_test(a_closed_link_is_woken_by_its_queue),
        cmocka_unit_test(offers_in_a_row_make_one_path),
        cmocka_unit_test(another_format_is_called_so),
        cmocka_unit_test(a_region_is_not_freed_before_it_was_asked_for),
        cmocka_unit_test(the_first_sleeper_looks_first),
        cmocka_unit_test(the_route_back_is_to_the_gid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
