/* Remote reads: bounds, order behind writes, breaks, fences, and what becomes of them when region or link end. */
#include "conformance.h"

#include <stdlib.h>
#include <string.h>

#define A           0
#define B           1
#define REGION_SIZE ((size_t)1 << 20)
#define AT_ONCE     8

static bool can_read(void)
{
    if (conformance_fixture->transport->flags & RF_TRANSPORT_REMOTE_READ) return true;
    rf_link_t *none = NULL;
    assert_int_equal(conformance_fixture->transport->remote_read(none, NULL, 0, NULL, 0, 0),
                     RF_ERR_NOT_SUPPORTED);
    print_message("[  not for %s ] it reads nothing of its peer's\n", conformance_fixture->name);
    return false;
}

/* Both ends go on, and nobody has sent a slot. */
static void pump_quiet(world_t *world)
{
    world_pump(world);
    for (unsigned side = 0; side < 2; side++) {
        rf_slot_t none;
        if (world->end[side].link)
            assert_int_equal(world->fixture->transport->poll(world->end[side].link, &none, 1), 0);
    }
}

static void until_read(world_t *world, unsigned n)
{
    uint64_t since_ns = rf_clock_ns();
    for (unsigned seen = world->end[A].read; world->end[A].read < n;) {
        pump_quiet(world);
        if (world->end[A].read != seen) since_ns = rf_clock_ns();
        seen = world->end[A].read;
        hang_check(since_ns, "READ");
    }
    assert_int_equal(world->end[A].read, n);
}

static uint8_t *bytes_new(size_t size)
{
    uint8_t *bytes = calloc(1, size);
    assert_non_null(bytes);
    return bytes;
}

/* What the region's owner put there, of any size and place, into memory of the caller's and into a region of the link. */
static void remote_reads(void **state)
{
    (void)state;
    if (!can_read()) return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    const size_t size = 3 << 20;
    rf_region_t *region, *own;
    assert_int_equal(t->region_create(b->link, size, &region), RF_OK);
    assert_int_equal(t->region_create(a->link, size, &own), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    uint8_t *memory = bytes_new(size + 2), *wanted = bytes_new(size);
    static const size_t sizes[] = {0,    1,      7,      64,     4096,    8191,
                                   8193, 100001, 262144, 262145, 1 << 20, (3 << 20) - 5};
    unsigned asked = 0;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (unsigned k = 0; k < 2; k++) {
            size_t offset = size - sizes[i] - i % 5;
            uint8_t *into = k ? own->base : memory + 1;
            bytes_fill(region->base, size, 2 * i + k);
            memcpy(wanted, (const uint8_t *)region->base + offset, sizes[i]);
            into[sizes[i]] = 0xa5;
            memory[0] = 0x5a;
            assert_int_equal(t->remote_read(a->link, &key, offset, into, sizes[i], 1000 + i), RF_OK);
            until_read(world, ++asked);
            assert_int_equal(a->read_err, RF_OK);
            assert_memory_equal(into, wanted, sizes[i]);
            assert_int_equal(into[sizes[i]], 0xa5); /* and no byte more */
            assert_int_equal(memory[0], 0x5a);
        }
    }
    rf_link_stats_t stats;
    t->stats(a->link, &stats);
    assert_true(stats.bytes_read >= 2 * ((3 << 20) - 5));
    assert_int_equal(a->written, 0);
    assert_int_equal(b->read, 0);
    free(memory);
    free(wanted);
    world_close(world);
}

static void reads_stay_in_bounds(void **state)
{
    (void)state;
    if (!can_read()) return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    rf_region_t *region;
    assert_int_equal(t->region_create(world->end[B].link, 5000, &region), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    static uint8_t into[6000];
    rf_link_t *a = world->end[A].link;
    assert_int_equal(t->remote_read(a, &key, 0, into, 5001, 1), RF_ERR_INVALID);
    assert_int_equal(t->remote_read(a, &key, 5000, into, 1, 1), RF_ERR_INVALID);
    assert_int_equal(t->remote_read(a, &key, UINT64_MAX, into, 2, 1), RF_ERR_INVALID);
    assert_int_equal(t->remote_read(a, &key, 1, into, SIZE_MAX, 1), RF_ERR_INVALID);
    world_stream(world, A, 100);
    assert_int_equal(world->end[A].read, 0);
    world_close(world);
}

typedef struct order {
    uint64_t next; /* cookie */
    bool wrong;
} order_t;

static void note_order(end_t *end, rf_link_event_t event, const rf_link_event_info_t *info)
{
    order_t *order = end->user;
    if (event == RF_LINK_READ) order->wrong |= info->cookie != order->next++ || info->err != RF_OK;
}

/* Every byte of `read` is of the `i`th of `n` writes of so many bytes, or of a later one: those may be placed while it is read. */
static void check_behind(const uint8_t *read, const uint8_t *writes, size_t size, unsigned i, unsigned n)
{
    const uint8_t *own = writes + i * size;
    if (memcmp(read, own, size) == 0) return;
    for (size_t at = 0; at < size; at++) {
        bool there = false;
        for (unsigned k = i; k < n && !there; k++) there = read[at] == writes[k * size + at];
        if (!there) fail_msg("byte %zu of %zu of read %u is of no write since", at, size, i);
    }
}

/* A read has in it what was written before it was asked for, whether that is complete or not; of any size, anywhere. */
static void a_read_is_behind_the_writes(void **state)
{
    (void)state;
    if (!can_read()) return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A];
    order_t order = {0};
    a->user = &order;
    a->on_event = note_order;
    rf_region_t *region;
    assert_int_equal(t->region_create(world->end[B].link, REGION_SIZE, &region), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    uint8_t *source = bytes_new(AT_ONCE * REGION_SIZE / 4), *into = bytes_new(AT_ONCE * REGION_SIZE / 4);
    unsigned reads = 0, writes = 0;
    for (unsigned round = 0; round < 40; round++) {
        size_t size = 1 + rf_prng_below(&world->prng, round % 4 ? 5000 : REGION_SIZE / 4);
        size_t offset = rf_prng_below(&world->prng, REGION_SIZE - size + 1);
        bytes_fill(source, AT_ONCE * size, round);
        memset(into, 0, AT_ONCE * size);
        for (unsigned i = 0; i < AT_ONCE; i++) { /* each into the same place */
            assert_int_equal(t->remote_write(a->link, &key, offset, source + i * size, size, NULL, 7), RF_OK);
            assert_int_equal(t->remote_read(a->link, &key, offset, into + i * size, size, reads++), RF_OK);
            writes++;
        }
        until_read(world, reads);
        uint64_t since_ns = rf_clock_ns();
        while (a->written < writes) {
            pump_quiet(world);
            hang_check(since_ns, "WRITTEN");
        }
        /* Its own write, or a later one: never an older, and the last is the last. */
        assert_memory_equal(into + (AT_ONCE - 1) * size, source + (AT_ONCE - 1) * size, size);
        for (unsigned i = 0; i < AT_ONCE; i++) check_behind(into + i * size, source, size, i, AT_ONCE);
    }
    assert_false(order.wrong);
    free(source);
    free(into);
    world_close(world);
}

/* Each is complete once, and right, over connections that break; and writes beside them are notified once. */
static void reads_over_breaks(void **state)
{
    (void)state;
    if (!can_read() || !fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose"))
        return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    order_t order = {0};
    a->user = &order;
    a->on_event = note_order;
    rf_region_t *region, *written;
    assert_int_equal(t->region_create(b->link, REGION_SIZE, &region), RF_OK);
    assert_int_equal(t->region_create(b->link, REGION_SIZE, &written), RF_OK);
    rf_region_key_t key = world_key_over(world, region), to = world_key_over(world, written);
    uint8_t *into = bytes_new(AT_ONCE * REGION_SIZE), *source = bytes_new(REGION_SIZE);
    unsigned reads = 0, notified = 0;
    for (unsigned round = 0; round < 10; round++) {
        bytes_fill(region->base, REGION_SIZE, round);
        bytes_fill(source, REGION_SIZE, 100 + round);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            rf_slot_t notify = slot_make(round * AT_ONCE + i);
            assert_int_equal(t->remote_read(a->link, &key, 0, into + i * REGION_SIZE, REGION_SIZE, reads++),
                             RF_OK);
            assert_int_equal(t->remote_write(a->link, &to, 0, source, REGION_SIZE, &notify, 1), RF_OK);
        }
        uint64_t since_ns = rf_clock_ns();
        unsigned breaks = 0, wanted = (round + 1) * AT_ONCE;
        while (a->read < reads || a->written < wanted || notified < wanted) {
            rf_slot_t got;
            world_pump(world);
            assert_int_equal(t->poll(a->link, &got, 1), 0);
            if (t->poll(b->link, &got, 1) == 1) slot_check(&got, notified++);
            bool up = a->link->state == RF_LINK_STATE_UP && b->link->state == RF_LINK_STATE_UP;
            if (up && breaks < 2 && rf_prng_below(&world->prng, 10) == 0) {
                world->fixture->break_connections(world);
                since_ns = rf_clock_ns(); /* a link driver that starts again takes its time */
                breaks++;
            }
            hang_check(since_ns, "remote reads over breaks");
        }
        assert_int_equal(a->read, reads);
        assert_int_equal(a->written, wanted);
        for (unsigned i = 0; i < AT_ONCE; i++)
            assert_memory_equal(into + i * REGION_SIZE, region->base, REGION_SIZE);
        assert_memory_equal(written->base, source, REGION_SIZE);
    }
    assert_false(order.wrong);
    free(into);
    free(source);
    world_close(world);
}

/* The peer ends with reads outstanding: each is told of, before DEAD or CLOSED. */
static void reads_end_with_the_link(void **state)
{
    (void)state;
    if (!can_read()) return;
    world_t *world = world_open_until(400 * RF_NS_PER_MS);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    end_connect(a);
    world_until(world, is_up, "the link to come up");
    rf_region_t *region;
    assert_int_equal(t->region_create(b->link, REGION_SIZE, &region), RF_OK);
    rf_region_key_t key = world_key_over(world, region);
    uint8_t *into = bytes_new(REGION_SIZE);
    unsigned taken = 0;
    while (taken < 40 && t->remote_read(a->link, &key, 0, into, REGION_SIZE, taken) == RF_OK) taken++;
    assert_true(taken > 0);
    end_close(b);
    uint64_t since_ns = rf_clock_ns();
    while (a->dead + a->closed == 0) {
        rf_slot_t none;
        end_progress(a);
        if (world->fixture->step) world->fixture->step(world);
        t->poll(a->link, &none, 1);
        hang_check(since_ns, "the end");
    }
    assert_int_equal(a->read, taken);
    assert_int_not_equal(t->remote_read(a->link, &key, 0, into, 1, 0), RF_OK);
    world_close(world);
    free(into);
}

/* Closing tells of what is not complete, and nothing is placed after it. */
static void a_close_ends_reads(void **state)
{
    (void)state;
    if (!can_read()) return;
    for (unsigned fences = 0; fences < 2; fences++) {
        world_t *world = world_linked(64, 256);
        const rf_transport_t *t = world->fixture->transport;
        end_t *a = &world->end[A];
        rf_region_t *region;
        assert_int_equal(t->region_create(world->end[B].link, REGION_SIZE, &region), RF_OK);
        rf_region_key_t key = world_key_over(world, region);
        bytes_fill(region->base, REGION_SIZE, 1);
        uint8_t *into = bytes_new(AT_ONCE * REGION_SIZE), *seen = bytes_new(AT_ONCE * REGION_SIZE);
        for (unsigned i = 0; i < AT_ONCE; i++)
            assert_int_equal(t->remote_read(a->link, &key, 0, into + i * REGION_SIZE, REGION_SIZE, i), RF_OK);
        for (unsigned i = 0; i < 20; i++) pump_quiet(world); /* some may be on their way */
        if (fences) t->fence(a->link);
        unsigned told = a->read;
        memcpy(seen, into, AT_ONCE * REGION_SIZE);
        if (!fences) {
            t->close(a->link);
            a->link = NULL;
            told = AT_ONCE;
            memcpy(seen, into, AT_ONCE * REGION_SIZE);
        }
        world_until(world, is_b_ended, "the end at the other end");
        for (unsigned i = 0; i < 200; i++) world_pump(world);
        assert_int_equal(a->read, told);
        assert_memory_equal(into, seen, AT_ONCE * REGION_SIZE);
        world_close(world);
        free(into);
        free(seen);
    }
}

/* A region that its owner destroys while it is read: what was there, or that it is not there; the link goes on. */
static void a_region_that_is_gone_is_not_read(void **state)
{
    (void)state;
    if (!can_read()) return;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    uint8_t *into = bytes_new(AT_ONCE * REGION_SIZE);
    unsigned reads = 0;
    for (unsigned round = 0; round < 10; round++) {
        rf_region_t *region;
        assert_int_equal(t->region_create(b->link, REGION_SIZE, &region), RF_OK);
        rf_region_key_t key = world_key_over(world, region);
        memset(region->base, 0xee, REGION_SIZE);
        for (unsigned i = 0; i < AT_ONCE; i++)
            assert_int_equal(t->remote_read(a->link, &key, 0, into + i * REGION_SIZE, REGION_SIZE, i), RF_OK);
        reads += AT_ONCE;
        for (unsigned i = 0; i < round; i++) pump_quiet(world);
        t->region_destroy(b->link, region);
        until_read(world, reads);
        rf_err_t err = RF_OK;
        uint64_t since_ns = rf_clock_ns();
        while (err == RF_OK) { /* the word of it is on its way */
            memset(into, 0, 64);
            err = t->remote_read(a->link, &key, 0, into, 64, 0);
            pump_quiet(world);
            if (err == RF_OK) {
                until_read(world, ++reads);
                err = a->read_err;
            }
            hang_check(since_ns, "that the region is gone");
        }
        assert_int_equal(err, RF_ERR_NOT_FOUND);
    }
    world_stream(world, A, 100);
    assert_int_equal(a->dead + b->dead, 0);
    free(into);
    world_close(world);
}

const struct CMUnitTest cases_read[] = {
    cmocka_unit_test(remote_reads),
    cmocka_unit_test(reads_stay_in_bounds),
    cmocka_unit_test(a_read_is_behind_the_writes),
    cmocka_unit_test(reads_over_breaks),
    cmocka_unit_test(reads_end_with_the_link),
    cmocka_unit_test(a_close_ends_reads),
    cmocka_unit_test(a_region_that_is_gone_is_not_read),
};
const size_t cases_read_n = sizeof cases_read / sizeof *cases_read;
