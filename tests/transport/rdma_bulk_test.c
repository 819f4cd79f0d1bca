/* Remote writes of the RDMA medium without a device: what is posted, registered, done, and what ends their link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma_bulk_stand_in.h"

static void a_write_is_one_doorbell(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, 65536, NULL); /* that nobody is told of */
    assert_int_equal(n_posted, 1);
    assert_int_equal(bulk_posted[0].opcode, IBV_WR_RDMA_WRITE);
    assert_true(bulk_posted[0].send_flags & IBV_SEND_SIGNALED);
    write_from(link, source, 65536, &slots[0]);
    assert_int_equal(doorbells, 2);
    assert_int_equal(n_posted, 3);
    assert_int_equal(bulk_posted[2].opcode, IBV_WR_SEND);
    assert_false(bulk_posted[1].send_flags & IBV_SEND_SIGNALED);
    assert_true(bulk_posted[2].send_flags & IBV_SEND_SIGNALED);
    write_from(link, source, 0, NULL); /* nothing else says that it is done */
    assert_int_equal(bulk_posted[3].opcode, IBV_WR_SEND);
    assert_int_equal(events[RF_LINK_WRITTEN], 0);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 3);
    path->device->iwarp = true;
    write_from(link, source, 65536, NULL); /* a READ says that it is there */
    assert_int_equal(n_posted, 6);
    assert_int_equal(bulk_posted[5].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_size[5], 0);
    assert_true(bulk_posted[4].send_flags & IBV_SEND_SIGNALED); /* soft-iWARP: else sent page by page */
    assert_true(bulk_posted[5].send_flags & IBV_SEND_SIGNALED);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 4);
    write_from(link, source, 65536, &slots[0]); /* and here the peer */
    assert_int_equal(bulk_posted[7].opcode, IBV_WR_SEND);
    assert_true(bulk_posted[6].send_flags & IBV_SEND_SIGNALED);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 4);
    assert_true(rdma_bulk_placed(link, 5));
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 5);
    rdma_bulk_detach(link);
    link_over(link);
}

/* The wire is busy with those before: system calls are what it costs. */
static void writes_behind_others_are_one_doorbell(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_ask(link, source, 65536, NULL); /* nothing is under way: it goes at once */
    assert_int_equal(doorbells, 1);
    for (unsigned i = 0; i < 3; i++) write_ask(link, source, 65536, i == 1 ? &slots[0] : NULL);
    assert_int_equal(doorbells, 1);
    assert_true(rdma_ready(&link->base.head)); /* nobody sleeps over them */
    path_link_settle(&link->base);
    assert_int_equal(doorbells, 2);
    assert_int_equal(n_posted, 5);
    assert_true(bulk_posted[1].send_flags & IBV_SEND_SIGNALED);
    assert_false(bulk_posted[2].send_flags & IBV_SEND_SIGNALED); /* its message's completion is its own */
    assert_int_equal(bulk_posted[3].opcode, IBV_WR_SEND);
    path->completed = 3;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 2);
    path->completed = 4;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 3);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 4);
    assert_int_equal(n_registered, 0);
    link_over(link);
}

/* More than a doorbell has, and more than the queue pair has room for. */
static void many_writes_are_few_doorbells(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_ask(link, source, 64, NULL);
    for (unsigned i = 1; i < PATH_WRITES_MAX; i++) write_ask(link, source, 64, &slots[0]);
    path_link_settle(&link->base);
    unsigned whole = 1 + 2 * (PATH_WRITES_MAX - 1);
    assert_true(path->posted <= path->depth);
    while (path->posted < whole) {
        uint32_t before = path->posted;
        path->completed = path->posted;
        path_link_settle(&link->base);
        assert_true(path->posted > before);
    }
    assert_true(doorbells <= 2 + whole / 16);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], PATH_WRITES_MAX);
    link_over(link);
}

/* While something is under way from it, and no longer; a region always is. */
static void memory_is_registered_while_it_is_read(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, 65536, NULL);
    write_from(link, source + 4096, 8192, NULL); /* of the same bytes */
    assert_int_equal(registrations, 1);
    path->completed = 1;
    path_link_settle(&link->base); /* the first is done, the second is not */
    assert_int_equal(n_registered, 1);
    write_from(link, source + 4096, 65536, NULL); /* beyond them */
    assert_int_equal(registrations, 2);
    write_from(link, source + 32768, 4096, NULL);
    assert_int_equal(registrations, 2);
    all_done(link, path);
    assert_int_equal(n_registered, 0);
    rf_region_t *region;
    assert_int_equal(rdma_region_create(&link->base.head, 65536, &region), RF_OK);
    write_from(link, region->base, 65536, NULL);
    write_from(link, (const uint8_t *)region->base + 1, 65535, NULL);
    assert_int_equal(registrations, 2);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 6);
    link_over(link);
}

/* The caller has back what the first wrote, but for what the second still writes, and may have put other pages there: what is
 * registered of the first is the old ones. */
static void what_a_registration_was_made_for_is_done(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, 65536, NULL);
    write_from(link, source + 4096, 8192, NULL);
    assert_int_equal(registrations, 1);
    path->completed = 1;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    write_from(link, source + 32768, 4096, NULL);
    assert_int_equal(registrations, 2);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 3);
    read_into(link, source, 65536); /* the same of what is read into */
    read_into(link, source + 4096, 8192);
    assert_int_equal(registrations, 3);
    path->reads_completed = path->reads_posted - 1;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_READ], 1);
    read_into(link, source + 32768, 4096);
    assert_int_equal(registrations, 4);
    all_done(link, path);
    assert_int_equal(n_registered, 0);
    link_over(link);
}

static void not_more_is_registered_than_may_be(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, sizeof source, &slots[0]);
    assert_int_equal(n_posted, RDMA_LENT_MAX / RDMA_BULK_PIECE);
    path->completed = 1;
    path_link_settle(&link->base); /* one piece more */
    assert_int_equal(n_posted, RDMA_LENT_MAX / RDMA_BULK_PIECE + 1);
    assert_int_equal(n_registered, RDMA_LENT_MAX / RDMA_BULK_PIECE);
    for (unsigned i = 0; i < 4 && events[RF_LINK_WRITTEN] == 0; i++) all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(n_posted, sizeof source / RDMA_BULK_PIECE + 1);
    assert_int_equal(n_registered, 0);
    uint64_t bytes = 0;
    for (unsigned i = 0; i + 1 < n_posted; i++) {
        assert_int_equal(bulk_posted[i].wr.rdma.remote_addr, to.base + bytes);
        bytes += bulk_size[i];
    }
    assert_int_equal(bytes, sizeof source);
    link_over(link);
}

/* The peer knows of a write that said so; what said nothing behind it may have come, and is written again. */
static void a_break_does_not_need_the_quiet_writes(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, 65536, NULL);
    write_from(link, source, 65536, NULL);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_WRITTEN], 2);
    write_from(link, source, 65536, NULL);
    write_from(link, source, 65536, &slots[0]);
    write_from(link, source, 65536, NULL);
    assert_true(path_bulk_resume(&link->base, 0)); /* it was told of nothing */
    assert_int_equal(link->base.bulk->posted, 2);
    assert_int_equal(link->base.bulk->done, 2);
    n_posted = 0;
    path_bulk_pump(&link->base);
    assert_int_equal(n_posted, 4);
    assert_true(path_bulk_resume(&link->base, 4)); /* the fourth, and so the third */
    assert_int_equal(link->base.bulk->done, 4);
    assert_false(path_bulk_resume(&link->base, 6));
    path_bulk_pump(&link->base);
    write_from(link, source, 65536, &slots[0]);
    all_done(link, path); /* with that slot, which it has then */
    assert_false(path_bulk_resume(&link->base, 5));
    assert_true(path_bulk_resume(&link->base, 6));
    rdma_bulk_detach(link);
    link_over(link);
}

static bool peer_places(rdma_link_t *link, const rdma_placed_t *tail)
{
    rdma_buffer_t buffer = {.bytes = (uint8_t *)(uintptr_t)tail, .size = sizeof *tail};
    rdma_bulk_message(link, &buffer, sizeof *tail);
    return !link->base.wrong;
}

static void a_message_speaks_for_what_came_before(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    bulk_up(link);
    assert_true(peer_places(link, &(rdma_placed_t){.write = 3, .total = 1000}));
    assert_int_equal(link->base.bulk->placed, 4);
    rf_link_stats_t stats;
    rdma_stats(&link->base.head, &stats);
    assert_int_equal(stats.bytes_placed, 1000);
    assert_false(peer_places(link, &(rdma_placed_t){.write = 3, .total = 1000}));
    link->base.wrong = NULL;
    assert_false(peer_places(link, &(rdma_placed_t){.write = 4, .total = 999}));
    link->base.wrong = NULL;
    assert_false(peer_places(link, &(rdma_placed_t){.write = UINT64_MAX, .total = 1000}));
    link->base.wrong = NULL;
    assert_true(peer_places(link, &(rdma_placed_t){.write = 4, .total = 1000}));
    link_over(link);
}

/* A remote write that waits for its lane. */
static rdma_link_t *link_with_a_write(void)
{
    rdma_link_t *link = link_up(64, RING);
    write_from(link, source, 64, NULL);
    return link;
}

static void a_wrong_key_ends_the_link(void **state)
{
    (void)state;
    rdma_link_t *link = link_with_a_write();
    rdma_path_t *path = bulk_up(link);
    path_bulk_pump(&link->base);
    assert_int_equal(link->base.bulk->posted, 1);
    link->base.lanes[PATH_LANE_BULK].failed = true;
    path->why = IBV_WC_REM_ACCESS_ERR;
    path_link_attention(&link->base);
    path_link_settle(&link->base);
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(events[RF_LINK_DEAD], 1);
    assert_int_equal(link->base.end_err, RF_ERR_PERMISSION);
    link_over(link);
}

/* Memory that cannot be registered is no word of the peer's: who asked is told why, when all that was under way is done. */
static void memory_that_is_refused_ends_the_link(void **state)
{
    (void)state;
    static const struct {
        int errno_;
        rf_err_t err;
    } ways[] = {{ENOMEM, RF_ERR_NO_MEMORY}, {EFAULT, RF_ERR_INVALID}};
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        rdma_link_t *link = link_up(64, RING);
        rdma_path_t *path = bulk_up(link);
        write_from(link, source, 65536, NULL);
        registering_fails = ENOMEM;
        write_from(link, source + 65536, 65536, NULL);
        path_link_settle(&link->base); /* there may be room when the first is done */
        assert_int_equal(events[RF_LINK_DEAD], 0);
        registering_fails = ways[way].errno_;
        all_done(link, path);
        assert_int_equal(events[RF_LINK_WRITTEN], 1);
        assert_true(link->base.attention);
        assert_null(link->base.wrong);
        path_link_settle(&link->base);
        registering_fails = 0;
        path_link_settle(&link->base);
        assert_int_equal(events[RF_LINK_WRITTEN], 2);
        assert_int_equal(events[RF_LINK_DEAD], 1);
        assert_int_equal(link->base.end_err, ways[way].err);
        assert_int_equal(link->base.stats.protocol_errors, 0);
        link_over(link);
    }
}

/* What the peer says has come is the owner's again only when the device has read it. */
static void a_write_is_done_when_the_device_says_so(void **state)
{
    (void)state;
    rdma_link_t *link = link_with_a_write();
    rdma_path_t *path = bulk_up(link);
    path_bulk_pump(&link->base);
    assert_int_equal(link->base.bulk->posted, 1);
    assert_true(rdma_bulk_placed(link, 1));
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 0);
    path->completed = path->posted;
    path_link_attention(&link->base);
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    link_over(link);
    /* On iWARP, where somebody is notified, both: TCP may still be reading what the device has finished with. */
    link = link_up(64, RING);
    write_from(link, source, 64, &slots[0]);
    path = bulk_up(link);
    device.iwarp = true;
    path_bulk_pump(&link->base);
    path->completed = path->posted;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 0);
    assert_true(rdma_bulk_placed(link, 1));
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_false(rdma_bulk_placed(link, 2));
    link_over(link);
}

/* A receiver that finds slots each time it polls is told all the same, in the next poll. */
static void a_stream_of_slots_holds_up_no_event(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(1024, RING);
    rdma_path_t *path = bulk_up(link);
    rf_slot_t out[64], *ring = (rf_slot_t *)link->paths[PATH_LANE_SLOTS]->ring.base;
    write_from(link, source, 4096, NULL);
    path->completed = path->posted;
    path_link_attention(&link->base); /* as the completion's taker does */
    for (unsigned i = 0; i < 2; i++) {
        ring[i].control = slots[0].control | RF_CONTROL_PARITY;
        assert_int_equal(rdma_poll(&link->base.head, out, 64), 1);
    }
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    link_over(link);
}

/* On iWARP the writer waits for a word that its write was taken: slots that go out in its place do not say so, and one
 * that was lost with its path is said again. */
static void that_a_write_was_taken_is_said_whatever_else_goes_out(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, 0);
    const rf_slot_t slot = {.control = rf_control_make(1, 8, false, 0)};
    rf_slot_t out[2];
    bulk_up(link);
    device.iwarp = true;
    assert_true(peer_places(link, &(rdma_placed_t){.total = 64, .has_notify = 1, .notify = slot}));
    assert_int_equal(path_send(&link->base.head, &slot, 1), 1); /* not flushed yet */
    assert_int_equal(rdma_poll(&link->base.head, out, 2), 1);
    assert_int_equal(link->base.posted, 1);
    assert_int_equal(said.placed, 1);
    memset(&said, 0, sizeof said);
    assert_true(path_link_resume(&link->base, 1)); /* nothing to send */
    assert_int_equal(said.placed, 1);
    memset(&said, 0, sizeof said);
    assert_true(path_link_resume(&link->base, 0)); /* a slot is sent again */
    assert_int_equal(said.placed, 1);
    assert_false(link->base.say_ack);
    link_over(link);
}

static bool peer_moves(rdma_link_t *link, uint32_t region, uint32_t rkey)
{
    rdma_region_moved_t moved = {.region = region, .rkey = rkey};
    return rdma_bulk_control(&link->base, RDMA_CONTROL_REGION_MOVED, (uint8_t *)&moved, sizeof moved);
}

/* A region whose owner has had to register it anew is written and read by the key that it said last. */
static void a_region_that_has_moved_has_another_key(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, 65536, NULL);
    assert_int_equal(bulk_posted[0].wr.rdma.rkey, to.rkey);
    assert_true(peer_moves(link, to.region + 1, 99)); /* another one */
    assert_true(peer_moves(link, to.region, 11));
    assert_true(path_bulk_resume(&link->base, 0)); /* over the next path, from the beginning */
    path_bulk_pump(&link->base);
    assert_int_equal(bulk_posted[1].wr.rdma.rkey, 11);
    read_into(link, source, 4096);
    assert_int_equal(bulk_posted[2].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[2].wr.rdma.rkey, 11);
    assert_true(peer_moves(link, to.region, 12));
    path->device->iwarp = true;
    write_from(link, source, 65536, NULL);
    assert_int_equal(bulk_posted[3].wr.rdma.rkey, 12);
    assert_int_equal(bulk_posted[4].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[4].wr.rdma.rkey, 12);
    path->device->iwarp = false;
    all_done(link, path);
    /* No more than it can have; one that it destroys makes room. */
    for (uint32_t i = 2; i < RDMA_REGIONS_MAX; i++) assert_true(peer_moves(link, to.region + i, 99));
    assert_true(peer_moves(link, to.region + 1, 98));
    assert_false(peer_moves(link, to.region + RDMA_REGIONS_MAX, 99));
    rdma_region_gone_t gone = {.region = to.region + 1};
    assert_true(rdma_bulk_control(&link->base, RDMA_CONTROL_REGION_GONE, (uint8_t *)&gone, sizeof gone));
    assert_true(peer_moves(link, to.region + RDMA_REGIONS_MAX, 99));
    link_over(link);
}

/* What the peer has to know of regions is said before the next path of the bulk lane. */
static void keys_are_said_before_their_path(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    bulk_up(link);
    rf_region_t *kept, *destroyed;
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &kept), RF_OK);
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &destroyed), RF_OK);
    rdma_region_t *regions = rdma_bulk_of(link)->regions;
    for (unsigned i = 0; i < 2; i++) regions[i].moved_due = true;
    path_lane_t *lane = &link->base.lanes[PATH_LANE_BULK];
    uint8_t info[PATH_INFO_MAX] __attribute__((aligned(8)));
    control.full = true;
    rdma_region_destroy(&link->base.head, destroyed);
    assert_int_equal(rdma_lane_info(lane, (path_info_t *)(void *)info), RF_ERR_AGAIN);
    control.full = false;
    assert_int_equal(rdma_lane_info(lane, (path_info_t *)(void *)info), RF_OK);
    assert_int_equal(control.said[RDMA_CONTROL_REGION_MOVED], 1);
    assert_int_equal(control.said[RDMA_CONTROL_REGION_GONE], 1);
    assert_false(regions[0].moved_due || regions[1].moved_due || regions[1].gone_due);
    link_over(link);
}

/* The owner closes from the event that its close causes; both are one close. */
static void a_close_within_a_close(void **state)
{
    (void)state;
    rdma_link_t *link = link_with_a_write();
    bulk_up(link);
    path_bulk_pump(&link->base);
    closes_when_written = true;
    path_close(&link->base.head);
    assert_false(closes_when_written);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(endpoint.base.n_lingering, 1);
    link_over(link);
    assert_int_equal(endpoint.base.n_lingering, 0);
    assert_int_equal(endpoint.base.n_links, 0);
}

/* Whatever the reason, and also where slots go on. */
static void writes_that_never_get_there_end_the_link(void **state)
{
    (void)state;
    rdma_link_t *link = link_with_a_write();
    uint64_t until_ns = link->base.bulk->stuck_ns;
    assert_int_not_equal(until_ns, RF_NEVER);
    assert_true(path_control_next(&link->base) <= until_ns);
    path_bulk_timers(&link->base, until_ns - 1);
    assert_int_equal(link->base.head.state, RF_LINK_STATE_UP);
    path_bulk_timers(&link->base, until_ns);
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(events[RF_LINK_DEAD], 1);
    assert_int_equal(link->base.end_err, RF_ERR_TIMEOUT);
    link_over(link);
    /* One got there: a lane that fails again has all the time again. */
    link = link_with_a_write();
    bulk_up(link);
    path_bulk_pump(&link->base);
    assert_true(path_bulk_resume(&link->base, 1));
    assert_int_equal(link->base.bulk->stuck_ns, RF_NEVER);
    link_over(link);
    /* A lane that is up is waited for. */
    link = link_with_a_write();
    bulk_up(link);
    path_bulk_pump(&link->base);
    path_bulk_timers(&link->base, link->base.bulk->stuck_ns);
    assert_int_equal(link->base.head.state, RF_LINK_STATE_UP);
    link_over(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_is_one_doorbell),
        cmocka_unit_test(writes_behind_others_are_one_doorbell),
        cmocka_unit_test(many_writes_are_few_doorbells),
        cmocka_unit_test(memory_is_registered_while_it_is_read),
        cmocka_unit_test(what_a_registration_was_made_for_is_done),
        cmocka_unit_test(not_more_is_registered_than_may_be),
        cmocka_unit_test(a_break_does_not_need_the_quiet_writes),
        cmocka_unit_test(a_message_speaks_for_what_came_before),
        cmocka_unit_test(a_wrong_key_ends_the_link),
        cmocka_unit_test(memory_that_is_refused_ends_the_link),
        cmocka_unit_test(a_write_is_done_when_the_device_says_so),
        cmocka_unit_test(a_stream_of_slots_holds_up_no_event),
        cmocka_unit_test(that_a_write_was_taken_is_said_whatever_else_goes_out),
        cmocka_unit_test(a_region_that_has_moved_has_another_key),
        cmocka_unit_test(keys_are_said_before_their_path),
        cmocka_unit_test(a_close_within_a_close),
        cmocka_unit_test(writes_that_never_get_there_end_the_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
