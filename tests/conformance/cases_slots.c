/* Slots: order, exactly once, batches, back-pressure, fragments, statistics. */
#include "conformance.h"

#include <string.h>

static void order_and_once(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 256);
    end_t *a = &world->end[0], *b = &world->end[1];
    uint64_t since_ns = rf_clock_ns();
    for (unsigned round = 0; round < 2000 || a->sent <= 1000; round++) {
        hang_check(since_ns, "a thousand slots to be taken");
        end_send(a, (unsigned)rf_prng_below(&world->prng, 100));
        end_send(b, (unsigned)rf_prng_below(&world->prng, 10));
        end_receive(b, 1 + (unsigned)rf_prng_below(&world->prng, 64));
        end_receive(a, 1 + (unsigned)rf_prng_below(&world->prng, 64));
        world_pump(world);
    }
    since_ns = rf_clock_ns();
    while (b->got < a->sent || a->got < b->sent) {
        if (end_receive(b, 64) + end_receive(a, 64) == 0) world_pump(world);
        hang_check(since_ns, "the rest of the slots");
    }
    for (unsigned i = 0; i < 100; i++) {
        world_pump(world);
        assert_int_equal(end_receive(a, 64), 0);
        assert_int_equal(end_receive(b, 64), 0);
    }
    world_close(world);
}

static void the_hello_arrives(void **state)
{
    (void)state;
    world_t *world = world_linked(0, 0);
    assert_int_equal(world->end[1].incoming, 1);
    for (unsigned side = 0; side < 2; side++) {
        end_t *end = &world->end[side];
        rf_endpoint_params_t other = world_params(world, !side);
        assert_int_equal(end->up, 1);
        assert_int_equal(end->hello.core, other.self.core);
        assert_int_equal(end->hello.kind, other.self.kind);
        assert_int_equal(end->hello.incarnation, other.self.incarnation);
        assert_memory_equal(end->hello.token, other.self.token, RF_TOKEN_SIZE);
        assert_memory_equal(&end->link->peer.machine, &other.self.machine, sizeof other.self.machine);
        assert_int_equal(end->link->state, RF_LINK_STATE_UP);
    }
    world_close(world);
}

static void single_and_batched(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 1024);
    static const unsigned sizes[] = {1, 2, 7, 8, 32, 55, 63, 64};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        end_t *a = &world->end[0], *b = &world->end[1];
        uint64_t since_ns = rf_clock_ns();
        while (end_send(a, sizes[i]) == 0) {
            end_receive(b, 64);
            world_pump(world);
            hang_check(since_ns, "room for a batch");
        }
        while (b->got < a->sent) {
            if (end_receive(b, sizes[i]) == 0) world_pump(world);
            hang_check(since_ns, "a batch");
        }
    }
    world_close(world);
}

/* Slots of every length and with every flag a caller may set arrive as they were; nothing else of the word does. */
static void contents_are_kept(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 1024);
    const rf_transport_t *t = world->fixture->transport;
    for (unsigned length = 0; length <= RF_SLOT_PAYLOAD; length++) {
        uint64_t since_ns = rf_clock_ns();
        rf_slot_t slot, got;
        memset(&slot, (int)length, sizeof slot);
        slot.control =
            rf_control_make((uint8_t)(1 + length * 3), length, length % 2, (uint16_t)(length * 997));
        while (t->send(world->end[0].link, &slot, 1) == 0) {
            world_pump(world);
            hang_check(since_ns, "room for a slot");
        }
        assert_int_equal(t->flush(world->end[0].link), RF_OK);
        while (t->poll(world->end[1].link, &got, 1) == 0) {
            world_pump(world);
            hang_check(since_ns, "a slot");
        }
        assert_memory_equal(got.payload, slot.payload, RF_SLOT_PAYLOAD);
        assert_int_equal(rf_control_type(got.control), rf_control_type(slot.control));
        assert_int_equal(rf_control_length(got.control), length);
        assert_int_equal(rf_control_more(got.control), length % 2);
        assert_int_equal(rf_control_view(got.control), (uint16_t)(length * 997));
    }
    world_close(world);
}

/* Full is a normal answer, and ROOM follows once there is room. */
static void full_then_room(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 64);
    end_t *a = &world->end[0], *b = &world->end[1];
    const rf_transport_t *t = world->fixture->transport;
    for (unsigned round = 0; round < 20; round++) {
        uint64_t since_ns = rf_clock_ns();
        unsigned room = a->room, taken;
        do {
            taken = end_send(a, 64);
            world_pump(world); /* a medium may buffer more on its way: until nothing moves */
            hang_check(since_ns, "a ring to be full");
        } while (taken == 64);
        for (unsigned quiet = 0; quiet < 50;) {
            quiet = end_send(a, 64) == 0 ? quiet + 1 : 0;
            world_pump(world);
            hang_check(since_ns, "a full ring");
        }
        assert_int_equal(t->room(a->link, 1), 0);
        assert_int_equal(a->room, room);
        while (b->got < a->sent || a->room == room) {
            if (end_receive(b, 64) == 0) world_pump(world);
            rf_slot_t none;
            assert_int_equal(t->poll(a->link, &none, 1), 0);
            hang_check(since_ns, "room");
        }
        assert_true(t->room(a->link, 1) > 0);
        assert_int_equal(end_send(a, 1), 1);
    }
    rf_link_stats_t stats;
    t->stats(a->link, &stats);
    assert_true(stats.full > 0);
    world_close(world);
}

/* A ring grows while there is traffic for it, up to its maximum, and loses nothing. */
static void rings_grow(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 1024);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0];
    uint64_t since_ns = rf_clock_ns();
    while (t->room(a->link, 500) < 500) {
        end_receive(&world->end[1], 64);
        world_pump(world);
        hang_check(since_ns, "a larger ring");
    }
    unsigned sent = 0;
    while (sent < 500) {
        sent += end_send(a, 500 - sent);
        hang_check(since_ns, "room that was said to be there");
    }
    assert_int_equal(sent, 500);
    world_stream(world, 0, 5000);
    rf_link_stats_t stats;
    t->stats(a->link, &stats);
    assert_true(stats.ring_slots_send >= 512 && stats.ring_slots_send <= 1024);
    world_close(world);
}

/* Both ends fill their rings before either takes anything: neither may wait for the other for ever. */
static void both_rings_full(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 64);
    end_t *a = &world->end[0], *b = &world->end[1];
    for (unsigned round = 0; round < 10; round++) {
        uint64_t since_ns = rf_clock_ns();
        for (unsigned quiet = 0; quiet < 50;) {
            quiet = end_send(a, 64) + end_send(b, 64) == 0 ? quiet + 1 : 0;
            world_pump(world);
            hang_check(since_ns, "full rings");
        }
        while (a->got < b->sent || b->got < a->sent) {
            if (end_receive(a, 7) + end_receive(b, 7) == 0) world_pump(world);
            hang_check(since_ns, "full rings to drain");
        }
    }
    world_stream(world, 0, 500);
    world_stream(world, 1, 500);
    world_close(world);
}

/* Messages of every size are cut and put together again; a message that does not fit is not sent in part. */
static void fragments(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 128);
    const rf_transport_t *t = world->fixture->transport;
    rf_link_t *from = world->end[0].link, *to = world->end[1].link;
    static rf_assembler_t assembler;
    memset(&assembler, 0, sizeof assembler);
    uint8_t bytes[RF_MESSAGE_MAX];
    uint64_t since_ns = rf_clock_ns();
    unsigned sent = 0, got = 0, refused = 0;
    const unsigned n = 400;
    while (got < n) {
        while (sent < n) {
            unsigned size = sent * 977 % (RF_MESSAGE_MAX + 1), head = size / 3;
            for (unsigned i = 0; i < size; i++) bytes[i] = (uint8_t)(i * 31 + sent);
            rf_err_t err =
                rf_message_send2(from, (uint8_t)(1 + sent % 200), bytes, head, bytes + head, size - head);
            if (err == RF_ERR_AGAIN) {
                refused++;
                break;
            }
            assert_int_equal(err, RF_OK);
            sent++;
        }
        t->flush(from);
        rf_slot_t slots[16], none;
        assert_int_equal(t->poll(from, &none, 1), 0);
        unsigned k = t->poll(to, slots, 16);
        for (unsigned i = 0; i < k; i++) {
            rf_err_t err = rf_assembler_feed(&assembler, &slots[i]);
            if (err == RF_ERR_AGAIN) continue;
            assert_int_equal(err, RF_OK);
            assert_int_equal(assembler.size, got * 977 % (RF_MESSAGE_MAX + 1));
            assert_int_equal(assembler.type, 1 + got % 200);
            for (unsigned j = 0; j < assembler.size; j++) {
                if (assembler.bytes[j] != (uint8_t)(j * 31 + got))
                    fail_msg("message %u differs at byte %u", got, j);
            }
            got++;
        }
        if (k == 0)
            world_pump(world);
        else
            since_ns = rf_clock_ns();
        hang_check(since_ns, "messages");
    }
    assert_true(refused > 0);
    world_close(world);
}

static void statistics(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 64);
    world_stream(world, 0, 1000);
    world_stream(world, 1, 300);
    rf_link_stats_t a, b;
    const rf_transport_t *t = world->fixture->transport;
    t->stats(world->end[0].link, &a);
    t->stats(world->end[1].link, &b);
    assert_int_equal(a.slots_sent, 1000);
    assert_int_equal(a.slots_received, 300);
    assert_int_equal(b.slots_sent, 300);
    assert_int_equal(b.slots_received, 1000);
    assert_true(a.flushes > 0 && a.flushes <= 2000);
    assert_int_equal(a.broken, 0);
    assert_int_equal(a.protocol_errors + b.protocol_errors, 0);
    assert_true(a.ring_slots_send >= 64 && b.ring_slots_receive >= 64);
    world_close(world);
}

static void sizes_are_checked(void **state)
{
    (void)state;
    world_t *world = world_open();
    const rf_transport_t *t = world->fixture->transport;
    rf_link_t *link = NULL;
    rf_link_params_t params = {.address = world->address, .socket = -1, .slots = 100};
    assert_int_not_equal(t->connect(world->end[0].endpoint, &params, &link), RF_OK);
    params.slots = 64;
    params.slots_max = RF_RING_SLOTS_MAX * 2;
    assert_int_not_equal(t->connect(world->end[0].endpoint, &params, &link), RF_OK);
    assert_null(link);
    world_close(world);
}

const struct CMUnitTest cases_slots[] = {
    cmocka_unit_test(order_and_once),     cmocka_unit_test(the_hello_arrives),
    cmocka_unit_test(single_and_batched), cmocka_unit_test(contents_are_kept),
    cmocka_unit_test(full_then_room),     cmocka_unit_test(rings_grow),
    cmocka_unit_test(both_rings_full),    cmocka_unit_test(fragments),
    cmocka_unit_test(statistics),         cmocka_unit_test(sizes_are_checked),
};
const size_t cases_slots_n = sizeof cases_slots / sizeof *cases_slots;
