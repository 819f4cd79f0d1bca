/* Regions, remote writes and streams: bounds, notification, order beside slots, breaks, hostile peers. */
#include "conformance.h"

#include "transport/stream.h"

#include <stdlib.h>
#include <string.h>

#define NOTIFY_TYPE 3

static bool can_bulk(void)
{
    return fixture_can(FIXTURE_BULK, "it moves no bulk");
}

static void poll_a(world_t *world)
{
    rf_slot_t none;
    assert_int_equal(world->fixture->transport->poll(world->end[0].link, &none, 1), 0);
}

/* The bytes are there when the notify slot is; WRITTEN gives the buffer back. */
static void remote_writes(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    const size_t size = 3 << 20;
    rf_region_t *region;
    assert_int_equal(t->region_create(b->link, size, &region), RF_OK);
    assert_int_equal(region->size, size);
    rf_region_key_t key = world_key_over(world, region);
    uint8_t *source = malloc(size);
    assert_non_null(source);
    static const size_t sizes[] = {0,    1,      7,      64,     4096,    8192,
                                   8193, 100001, 262144, 262145, 1 << 20, (3 << 20) - 5};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t since_ns = rf_clock_ns();
        size_t offset = size - sizes[i] - i % 5;
        bytes_fill(source, sizes[i], i);
        rf_slot_t notify = slot_make(i), got;
        notify.control = rf_control_make(NOTIFY_TYPE, RF_SLOT_PAYLOAD, false, (uint16_t)i);
        unsigned written = a->written;
        assert_int_equal(t->remote_write(a->link, &key, offset, source, sizes[i], &notify, 1000 + i), RF_OK);
        t->flush(a->link);
        while (t->poll(b->link, &got, 1) == 0) {
            world_pump(world);
            poll_a(world);
            hang_check(since_ns, "a notify slot");
        }
        assert_int_equal(rf_control_type(got.control), NOTIFY_TYPE);
        assert_memory_equal(got.words, notify.words, sizeof got.words);
        assert_memory_equal((uint8_t *)region->base + offset, source, sizes[i]);
        while (a->written == written) {
            world_pump(world);
            poll_a(world);
            rf_slot_t none;
            assert_int_equal(t->poll(b->link, &none, 1), 0);
            hang_check(since_ns, "WRITTEN");
        }
        assert_int_equal(a->written, written + 1);
        assert_int_equal(a->written_err, RF_OK);
    }
    rf_link_stats_t stats;
    t->stats(a->link, &stats);
    assert_true(stats.bytes_written >= 3 << 20);
    t->stats(b->link, &stats);
    assert_true(stats.bytes_placed >= 3 << 20);
    t->region_destroy(b->link, region);
    free(source);
    world_close(world);
}

static void writes_stay_in_bounds(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    rf_region_t *region;
    assert_int_equal(t->region_create(world->end[1].link, 5000, &region), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    static const uint8_t source[6000];
    rf_link_t *a = world->end[0].link;
    assert_int_equal(t->remote_write(a, &key, 0, source, 5001, NULL, 1), RF_ERR_INVALID);
    assert_int_equal(t->remote_write(a, &key, 5000, source, 1, NULL, 1), RF_ERR_INVALID);
    assert_int_equal(t->remote_write(a, &key, UINT64_MAX, source, 2, NULL, 1), RF_ERR_INVALID);
    rf_slot_t medium = {.control = rf_control_make(RF_SLOT_TYPE_MEDIUM, 0, false, 0)};
    assert_int_equal(t->remote_write(a, &key, 0, source, 1, &medium, 1), RF_ERR_INVALID);
    rf_region_t *none;
    assert_int_not_equal(t->region_create(world->end[1].link, 0, &none), RF_OK);
    world_stream(world, 0, 100);
    world_close(world);
}

/* Remote writes come to completion, each once, over connections that break. */
static void bulk_over_breaks(void **state)
{
    (void)state;
    if (!can_bulk() || !fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose"))
        return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    const size_t size = 2 << 20;
    rf_region_t *region;
    assert_int_equal(t->region_create(b->link, size, &region), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    uint8_t *source = malloc(size);
    assert_non_null(source);
    for (unsigned i = 0; i < 20; i++) {
        bytes_fill(source, size, i);
        rf_slot_t notify = slot_make(i), got;
        unsigned written = a->written;
        assert_int_equal(t->remote_write(a->link, &key, 0, source, size, &notify, i), RF_OK);
        uint64_t since_ns = rf_clock_ns();
        unsigned notified = 0, breaks = 0;
        while (notified == 0 || a->written == written) {
            world_pump(world);
            poll_a(world);
            if (t->poll(b->link, &got, 1) == 1) {
                slot_check(&got, i);
                notified++;
                assert_memory_equal(region->base, source, size);
            }
            bool up = a->link->state == RF_LINK_STATE_UP && b->link->state == RF_LINK_STATE_UP;
            if (up && breaks < 2 && rf_prng_below(&world->prng, 10) == 0) {
                world->fixture->break_connections(world);
                since_ns = rf_clock_ns(); /* a link driver that starts again takes its time */
                breaks++;
            }
            hang_check(since_ns, "a remote write over breaks");
        }
        assert_int_equal(notified, 1);
        assert_int_equal(a->written, written + 1);
    }
    free(source);
    world_close(world);
}

/* The peer ends with writes outstanding: each buffer comes back, before DEAD or CLOSED. */
static void writes_end_with_the_link(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    world_t *world = world_open_until(400 * RF_NS_PER_MS);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    end_connect(a);
    world_until(world, is_up, "the link to come up");
    rf_region_t *region;
    assert_int_equal(t->region_create(b->link, 1 << 20, &region), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    static uint8_t source[1 << 20];
    unsigned taken = 0;
    while (taken < 40 && t->remote_write(a->link, &key, 0, source, sizeof source, NULL, taken) == RF_OK)
        taken++;
    end_close(b);
    uint64_t since_ns = rf_clock_ns();
    while (a->dead + a->closed == 0) {
        rf_slot_t none;
        end_progress(a);
        if (world->fixture->step) world->fixture->step(world);
        t->poll(a->link, &none, 1);
        hang_check(since_ns, "the end");
    }
    assert_int_equal(a->written, taken);
    assert_int_not_equal(t->remote_write(a->link, &key, 0, source, 1, NULL, 0), RF_OK);
    world_close(world);
}

/* ---- streams ---- */

typedef struct streams {
    rf_stream_t *stream[2][2]; /* side, id */
} streams_t;

static void stream_event(end_t *end, rf_link_event_t event, const rf_link_event_info_t *info)
{
    streams_t *streams = end->user;
    if (event == RF_LINK_WRITTEN && (info->cookie & RF_STREAM_COOKIE))
        assert_int_equal(rf_stream_written(streams->stream[end->side], 2, info->cookie, info->err), RF_OK);
}

/* Polls one end: numbered slots are checked, stream slots go to the streams. */
static unsigned stream_poll(world_t *world, streams_t *streams, unsigned side)
{
    end_t *end = &world->end[side];
    rf_slot_t slots[32];
    unsigned n = world->fixture->transport->poll(end->link, slots, 32);
    for (unsigned i = 0; i < n; i++) {
        if (rf_control_type(slots[i].control) == RF_STREAM_SLOT)
            assert_int_equal(rf_stream_slot(end->link, streams->stream[side], 2, &slots[i]), RF_OK);
        else
            slot_check(&slots[i], end->got++);
    }
    return n;
}

static void streams_open(world_t *world, streams_t *streams, unsigned side, size_t ring)
{
    for (unsigned id = 0; id < 2; id++)
        assert_int_equal(rf_stream_open(world->end[side].link, id, ring, &streams->stream[side][id]), RF_OK);
}

static world_t *world_with_streams(streams_t *streams)
{
    world_t *world = world_linked(64, 256);
    memset(streams, 0, sizeof *streams);
    for (unsigned side = 0; side < 2; side++) {
        world->end[side].user = streams;
        world->end[side].on_event = stream_event;
    }
    return world;
}

static void streams_close(world_t *world, streams_t *streams)
{
    for (unsigned side = 0; side < 2; side++)
        for (unsigned id = 0; id < 2; id++) rf_stream_close(streams->stream[side][id]);
    for (unsigned side = 0; side < 2; side++) { /* gives back what their last remote writes hold */
        world->fixture->transport->close(world->end[side].link);
        world->end[side].link = NULL;
    }
    world_close(world);
}

/*
 * `total` bytes each way over two streams of different speed, beside heartbeats. A heartbeat is sent every time the one
 * before has come back; it is late when the streams move more than `late` bytes meanwhile.
 */
static void stream_run(world_t *world, streams_t *streams, uint64_t total, uint64_t late)
{
    uint8_t *out = malloc(1 << 20), *in = malloc(1 << 20), *wanted = malloc(1 << 20);
    assert_non_null(out);
    assert_non_null(in);
    assert_non_null(wanted);
    uint64_t written[2][2] = {{0}}, read[2][2] = {{0}}, since_ns = rf_clock_ns(), moved = 0, beat_at = 0,
             beats = 0;
    bool done = false, finished[2][2] = {{0}}, ended[2][2] = {{0}}, broke = false;
    while (!done) {
        uint64_t before = moved;
        done = true;
        for (unsigned side = 0; side < 2; side++) {
            for (unsigned id = 0; id < 2; id++) {
                rf_stream_t *s = streams->stream[side][id];
                size_t chunk = 1 + rf_prng_below(&world->prng, id ? 200000 : 5000);
                if (chunk > total - written[side][id]) chunk = (size_t)(total - written[side][id]);
                for (size_t i = 0; i < chunk; i++) out[i] = (uint8_t)((written[side][id] + i) * 31 >> 3);
                size_t n = rf_stream_write(s, out, chunk);
                written[side][id] += n;
                moved += n;
                if (written[side][id] == total && !finished[side][id])
                    finished[side][id] = rf_stream_finish(s) == RF_OK;
                size_t got = 0;
                rf_err_t err = rf_stream_read(s, in, 1 + rf_prng_below(&world->prng, 1 << 18), &got);
                if (err == RF_OK) {
                    for (size_t i = 0; i < got; i++) wanted[i] = (uint8_t)((read[side][id] + i) * 31 >> 3);
                    assert_memory_equal(in, wanted, got);
                    read[side][id] += got;
                    moved += got;
                } else if (err == RF_ERR_CLOSED) {
                    ended[side][id] = true;
                    assert_int_equal(read[side][id], total);
                } else {
                    assert_int_equal(err, RF_ERR_AGAIN);
                }
                done = done && ended[side][id] && rf_stream_drained(s);
            }
        }
        /* The heartbeat: a to b, and back. */
        end_t *a = &world->end[0], *b = &world->end[1];
        if (a->sent == a->got) {
            if (end_send(a, 1) == 1) beat_at = moved;
        }
        if (b->got > b->sent) end_send(b, 1);
        stream_poll(world, streams, 0);
        stream_poll(world, streams, 1);
        if (a->sent == a->got)
            beats++;
        else if (!broke && moved - beat_at > late)
            fail_msg("a heartbeat is late: %llu bytes have moved since",
                     (unsigned long long)(moved - beat_at));
        world_pump(world);
        if (moved != before) since_ns = rf_clock_ns();
        hang_check(since_ns, "streams");
    }
    assert_true(beats > 0);
    free(out);
    free(in);
    free(wanted);
}

static void streams_beside_a_heartbeat(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    streams_t streams;
    world_t *world = world_with_streams(&streams);
    streams_open(world, &streams, 0, 1 << 20);
    streams_open(world, &streams, 1, 256 << 10);
    const char *large = getenv("RACKFISH_CONFORMANCE_BULK_MIB");
    uint64_t total = large ? strtoull(large, NULL, 10) << 18 : 4 << 20; /* four streams in all */
    stream_run(world, &streams, total, 16 << 20);
    streams_close(world, &streams);
}

/* What was opened at one end long before the other works all the same. */
static void a_stream_opened_late(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    streams_t streams;
    world_t *world = world_with_streams(&streams);
    streams_open(world, &streams, 0, 64 << 10);
    assert_int_equal(rf_stream_write(streams.stream[0][0], "x", 1), 0);
    for (unsigned i = 0; i < 50; i++) {
        world_pump(world);
        stream_poll(world, &streams, 0);
        rf_slot_t slots[8]; /* b knows no stream yet: the slots go nowhere */
        unsigned n = world->fixture->transport->poll(world->end[1].link, slots, 8);
        for (unsigned k = 0; k < n; k++)
            assert_int_equal(rf_stream_slot(world->end[1].link, NULL, 0, &slots[k]), RF_OK);
    }
    streams_open(world, &streams, 1, 128 << 10);
    stream_run(world, &streams, 300000, 16 << 20);
    streams_close(world, &streams);
}

static void streams_over_breaks(void **state)
{
    (void)state;
    if (!can_bulk() || !fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose"))
        return;
    streams_t streams;
    world_t *world = world_with_streams(&streams);
    streams_open(world, &streams, 0, 64 << 10);
    streams_open(world, &streams, 1, 64 << 10);
    uint64_t written = 0, read = 0, since_ns = rf_clock_ns();
    const uint64_t total = 3 << 20;
    static uint8_t bytes[50000];
    unsigned breaks = 0;
    while (read < total) {
        size_t chunk = sizeof bytes < total - written ? sizeof bytes : (size_t)(total - written);
        for (size_t i = 0; i < chunk; i++) bytes[i] = (uint8_t)((written + i) * 7 >> 2);
        written += rf_stream_write(streams.stream[0][0], bytes, chunk);
        size_t got = 0;
        if (rf_stream_read(streams.stream[1][0], bytes, sizeof bytes, &got) == RF_OK) {
            for (size_t i = 0; i < got; i++)
                if (bytes[i] != (uint8_t)((read + i) * 7 >> 2))
                    fail_msg("byte %llu differs", (unsigned long long)(read + i));
            read += got;
        }
        stream_poll(world, &streams, 0);
        stream_poll(world, &streams, 1);
        world_pump(world);
        bool up =
            world->end[0].link->state == RF_LINK_STATE_UP && world->end[1].link->state == RF_LINK_STATE_UP;
        if (up && breaks < 20 && rf_prng_below(&world->prng, 6) == 0) {
            world->fixture->break_connections(world);
            since_ns = rf_clock_ns();
            breaks++;
        }
        hang_check(since_ns, "a stream over breaks");
    }
    assert_true(breaks > 3);
    streams_close(world, &streams);
}

/* As many words and messages as there can be on their way to an end that does nothing: there is room for all of them. */
static void what_a_writer_is_told_finds_room(void **state)
{
    (void)state;
    if (!can_bulk() || !fixture_can(FIXTURE_PROCESSES, "its link breaks when the test wants it to")) return;
    const unsigned rounds = 512;
    world_t *world = world_linked(4096, 4096);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    rf_region_t *region;
    rf_slot_t slot = slot_make(0);
    unsigned writes = 0, taken = 0;
    assert_int_equal(t->region_create(b->link, 4096, &region), RF_OK);
    world_written(world, true); /* from here on there is a way for bulk */
    uint64_t before = a->written;
    while (t->remote_write(a->link, &region->key, 0, "x", 1, &slot, 0) == RF_OK) writes++;
    assert_true(writes > 0);
    for (unsigned i = 0; i < rounds; i++) {
        end_send(b, 1);
        taken += t->poll(b->link, &slot, 1);
        end_progress(b);
    }
    uint64_t since_ns = rf_clock_ns();
    while (a->got < b->sent || taken < writes || a->written < before + writes) {
        end_receive(a, 64);
        taken += t->poll(b->link, &slot, 1);
        world_pump(world);
        hang_check(since_ns, "what was said to a writer");
    }
    assert_int_equal(a->broken + b->broken, 0);
    world_close(world);
}

/* Slots of a hostile peer: nothing it says moves a count out of its ring. */
static void hostile_stream_slots(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    streams_t streams;
    world_t *world = world_with_streams(&streams);
    streams_open(world, &streams, 0, 64 << 10);
    streams_open(world, &streams, 1, 64 << 10);
    uint64_t since_ns = rf_clock_ns();
    while (rf_stream_room(streams.stream[0][0]) == 0 || rf_stream_room(streams.stream[1][0]) == 0) {
        world_pump(world);
        stream_poll(world, &streams, 0);
        stream_poll(world, &streams, 1);
        hang_check(since_ns, "streams to open");
    }
    /* Changes to slots as a stream would send them: op, id, flags, reserved, tag, count. */
    rf_slot_t slot;
    unsigned refused = 0;
    for (unsigned i = 0; i < 20000; i++) {
        for (unsigned w = 0; w < 7; w++) slot.words[w] = rf_prng_next(&world->prng);
        slot.payload[0] = (uint8_t)rf_prng_below(&world->prng, 8);
        slot.payload[1] = (uint8_t)rf_prng_below(&world->prng, 3);
        slot.payload[2] = (uint8_t)rf_prng_below(&world->prng, 2);
        slot.payload[3] = 0;
        slot.control = rf_control_make(RF_STREAM_SLOT, 40, false, 0);
        refused += rf_stream_slot(world->end[0].link, streams.stream[0], 2, &slot) == RF_ERR_PROTOCOL;
        const void *bytes;
        assert_true(rf_stream_peek(streams.stream[0][0], &bytes) <= 64 << 10);
    }
    assert_true(refused > 0);
    slot.control = rf_control_make(RF_STREAM_SLOT, 3, false, 0);
    assert_int_equal(rf_stream_slot(world->end[0].link, streams.stream[0], 2, &slot), RF_ERR_PROTOCOL);
    streams_close(world, &streams);
}

static void a_closed_stream_is_noticed(void **state)
{
    (void)state;
    if (!can_bulk()) return;
    streams_t streams;
    world_t *world = world_with_streams(&streams);
    streams_open(world, &streams, 0, 64 << 10);
    streams_open(world, &streams, 1, 64 << 10);
    uint64_t since_ns = rf_clock_ns();
    while (rf_stream_write(streams.stream[0][0], "last words", 10) == 0) {
        world_pump(world);
        stream_poll(world, &streams, 0);
        stream_poll(world, &streams, 1);
        hang_check(since_ns, "streams to open");
    }
    while (!rf_stream_drained(streams.stream[0][0])) {
        char text[16];
        size_t got;
        world_pump(world);
        stream_poll(world, &streams, 0);
        stream_poll(world, &streams, 1);
        rf_stream_read(streams.stream[1][0], text, sizeof text, &got);
        hang_check(since_ns, "the stream to drain");
    }
    rf_stream_close(streams.stream[0][0]);
    streams.stream[0][0] = NULL;
    rf_err_t err = RF_ERR_AGAIN;
    while (err == RF_ERR_AGAIN) {
        char text[16];
        size_t got;
        world_pump(world);
        stream_poll(world, &streams, 0);
        stream_poll(world, &streams, 1);
        err = rf_stream_read(streams.stream[1][0], text, sizeof text, &got);
        hang_check(since_ns, "the stream's end");
    }
    assert_int_equal(err, RF_ERR_CLOSED);
    assert_int_equal(rf_stream_write(streams.stream[1][0], "x", 1), 0);
    /* The id can be used again once both ends have closed it. */
    rf_stream_close(streams.stream[1][0]);
    for (unsigned side = 0; side < 2; side++)
        assert_int_equal(rf_stream_open(world->end[side].link, 0, 64 << 10, &streams.stream[side][0]), RF_OK);
    while (rf_stream_write(streams.stream[1][0], "again", 5) == 0) {
        world_pump(world);
        stream_poll(world, &streams, 0);
        stream_poll(world, &streams, 1);
        hang_check(since_ns, "the stream to open again");
    }
    streams_close(world, &streams);
}

const struct CMUnitTest cases_bulk[] = {
    cmocka_unit_test(remote_writes),
    cmocka_unit_test(writes_stay_in_bounds),
    cmocka_unit_test(bulk_over_breaks),
    cmocka_unit_test(writes_end_with_the_link),
    cmocka_unit_test(streams_beside_a_heartbeat),
    cmocka_unit_test(a_stream_opened_late),
    cmocka_unit_test(streams_over_breaks),
    cmocka_unit_test(what_a_writer_is_told_finds_room),
    cmocka_unit_test(hostile_stream_slots),
    cmocka_unit_test(a_closed_stream_is_noticed),
};
const size_t cases_bulk_n = sizeof cases_bulk / sizeof *cases_bulk;
