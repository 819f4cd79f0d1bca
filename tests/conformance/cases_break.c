/* Connections that break and are made again: each slot exactly once, in order. */
#include "conformance.h"

static void exactly_once_over_breaks(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose")) return;
    world_t *world = world_linked(64, 512);
    end_t *a = &world->end[0], *b = &world->end[1];
    uint64_t since_ns = rf_clock_ns();
    unsigned breaks = 0;
    for (unsigned round = 0; breaks < 20; round++) {
        end_send(a, (unsigned)rf_prng_below(&world->prng, 100));
        end_send(b, (unsigned)rf_prng_below(&world->prng, 100));
        end_receive(b, (unsigned)rf_prng_below(&world->prng, 64));
        end_receive(a, (unsigned)rf_prng_below(&world->prng, 64));
        world_pump(world);
        bool both_up = a->link->state == RF_LINK_STATE_UP && b->link->state == RF_LINK_STATE_UP;
        if (both_up && rf_prng_below(&world->prng, 20) == 0) {
            world->fixture->break_connections(world);
            since_ns = rf_clock_ns();
            breaks++;
        }
        hang_check(since_ns, "a link to be made again");
    }
    while (b->got < a->sent || a->got < b->sent) {
        if (end_receive(b, 64) + end_receive(a, 64) == 0) world_pump(world);
        hang_check(since_ns, "the rest of the slots");
    }
    for (unsigned i = 0; i < 100; i++) {
        world_pump(world);
        assert_int_equal(end_receive(a, 64) + end_receive(b, 64), 0);
    }
    assert_true(a->broken > 0 && b->broken > 0);
    while (a->link->state != RF_LINK_STATE_UP || b->link->state != RF_LINK_STATE_UP) {
        end_receive(a, 1);
        end_receive(b, 1);
        world_pump(world);
        hang_check(since_ns, "the link to be up again");
    }
    assert_int_equal(a->up, a->broken + 1);
    assert_int_equal(b->up, b->broken + 1);
    rf_link_stats_t stats;
    world->fixture->transport->stats(a->link, &stats);
    assert_int_equal(stats.broken, a->broken);
    world_close(world);
}

static bool a_broken(world_t *world)
{
    return world->end[0].link->state == RF_LINK_STATE_BROKEN;
}

/* While it is broken a link takes slots, as far as there is room, and delivers them afterwards. */
static void sending_while_broken(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose")) return;
    world_t *world = world_linked(64, 64);
    end_t *a = &world->end[0], *b = &world->end[1];
    world_stream(world, 0, 100);
    world->fixture->break_connections(world);
    uint64_t since_ns = rf_clock_ns();
    while (!a_broken(world)) {
        rf_slot_t none;
        world->fixture->transport->poll(a->link, &none, 1);
        end_progress(a);
        hang_check(since_ns, "the break");
    }
    unsigned sent = end_send(a, 1000);
    assert_true(sent > 0 && sent <= 64);
    assert_int_equal(end_send(a, 1), 0);
    unsigned room = a->room;
    while (b->got < a->sent || a->room == room) {
        rf_slot_t none;
        world_pump(world);
        end_receive(b, 64);
        world->fixture->transport->poll(a->link, &none, 1);
        hang_check(since_ns, "what was sent while broken");
    }
    world_close(world);
}

/* The peer does not come back: after the deadline the link is dead, and says so once. */
static void broken_until_the_deadline(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose")) return;
    world_t *world = world_open_until(300 * RF_NS_PER_MS);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0];
    end_connect(a);
    world_until(world, is_up, "the link to come up");
    world->fixture->break_connections(world);
    uint64_t since_ns = rf_clock_ns();
    while (a->dead == 0) { /* b makes no progress meanwhile: nobody answers */
        rf_slot_t none;
        end_progress(a);
        if (world->fixture->step) world->fixture->step(world);
        t->poll(a->link, &none, 1);
        hang_check(since_ns, "the deadline");
    }
    assert_int_equal(a->broken, 1);
    assert_int_equal(a->why, RF_ERR_PEER_DEAD);
    assert_int_not_equal(t->flush(a->link), RF_OK);
    t->close(a->link);
    world_close(world);
}

/* Closed while broken: what was flushed is still brought over. */
static void close_while_broken(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_BREAKS, "its link is memory and has no connection to lose")) return;
    world_t *world = world_linked(64, 256);
    end_t *a = &world->end[0], *b = &world->end[1];
    world_stream(world, 0, 50);
    end_send(a, 60);
    world->fixture->break_connections(world);
    world->fixture->transport->close(a->link);
    a->link = NULL;
    uint64_t since_ns = rf_clock_ns();
    while (b->closed + b->dead == 0) {
        world_pump(world);
        end_receive(b, 64);
        hang_check(since_ns, "the close over a break");
    }
    assert_int_equal(b->closed, 1);
    assert_int_equal(b->got, a->sent);
    world_close(world);
}

const struct CMUnitTest cases_break[] = {
    cmocka_unit_test(exactly_once_over_breaks),
    cmocka_unit_test(sending_while_broken),
    cmocka_unit_test(broken_until_the_deadline),
    cmocka_unit_test(close_while_broken),
};
const size_t cases_break_n = sizeof cases_break / sizeof *cases_break;
