/* The two ends in two processes: killed, and stopped. */
#include "conformance.h"

#include <signal.h>
#include <stdlib.h>

/* Serves as end b: says its address, then `last_words` numbered slots, told through the pipe when flushed; then echoes
 * nothing and drains. */
static void serve(world_t *world, const child_t *parent, unsigned last_words)
{
    end_t *b = &world->end[1];
    end_open(world, 1);
    child_say(parent, world->address, sizeof world->address);
    while (b->up == 0) end_progress(b);
    while (b->sent < last_words) {
        end_send(b, (unsigned)(last_words - b->sent));
        end_receive(b, 64);
        end_progress(b);
    }
    child_say(parent, "f", 1);
    for (;;) {
        end_receive(b, 64);
        end_progress(b);
    }
}

static bool a_up(world_t *world)
{
    return world->end[0].up > 0;
}

/* A world of which only `a` is in this process. */
static world_t *world_with_child(child_t *child, unsigned last_words)
{
    world_t *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->fixture = conformance_fixture;
    world->deadline_ns = RF_NS_PER_S;
    rf_prng_seed(&world->prng, 5);
    if (world->fixture->open) world->fixture->open(world);
    *child = child_start(world, serve, last_words);
    child_hear(child, world->address, sizeof world->address);
    end_open(world, 0);
    end_connect(&world->end[0]);
    world_until(world, a_up, "the link to the other process");
    return world;
}

/* Killed in the midst of sending: everything it had flushed arrives, then DEAD, once. */
static void a_killed_peer(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_PROCESSES, "both ends live in one process")) return;
    child_t child;
    world_t *world = world_with_child(&child, 40);
    end_t *a = &world->end[0];
    char flushed;
    child_hear(&child, &flushed, 1);
    end_send(a, 30); /* unread at the peer: its death must not take what it said before with it */
    child_reap(&child);
    uint64_t since_ns = rf_clock_ns();
    while (a->dead + a->closed == 0) {
        end_progress(a);
        end_receive(a, 7);
        hang_check(since_ns, "the death of a killed peer");
    }
    assert_int_equal(a->got, 40);
    assert_int_equal(a->dead, 1);
    assert_int_equal(a->closed, 0);
    assert_int_equal(a->why, RF_ERR_PEER_DEAD);
    for (unsigned i = 0; i < 20; i++) end_progress(a);
    assert_int_equal(a->dead, 1);
    world_close(world);
}

/* A stopped peer is slow, not dead: its ring fills, nothing is lost, and all goes on when it does. */
static void a_stopped_peer(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_PROCESSES, "both ends live in one process")) return;
    child_t child;
    world_t *world = world_with_child(&child, 1);
    end_t *a = &world->end[0];
    char flushed;
    child_hear(&child, &flushed, 1);
    assert_int_equal(kill(child.pid, SIGSTOP), 0);
    uint64_t since_ns = rf_clock_ns();
    for (unsigned quiet = 0; quiet < 100;) {
        quiet = end_send(a, 64) == 0 ? quiet + 1 : 0;
        end_progress(a);
        end_receive(a, 1);
        hang_check(since_ns, "a full ring");
    }
    assert_int_equal(a->dead, 0);
    assert_int_equal(kill(child.pid, SIGCONT), 0);
    uint64_t goal = a->sent + 10000;
    since_ns = rf_clock_ns();
    while (a->sent < goal) {
        end_send(a, 64);
        end_progress(a);
        end_receive(a, 1);
        hang_check(since_ns, "a stopped peer to go on");
    }
    assert_int_equal(a->dead, 0);
    child_reap(&child);
    world_close(world);
}

const struct CMUnitTest cases_process[] = {
    cmocka_unit_test(a_killed_peer),
    cmocka_unit_test(a_stopped_peer),
};
const size_t cases_process_n = sizeof cases_process / sizeof *cases_process;
