/* Making links and ending them: answers, refusals, close, fence, garbage, hostile peers. */
#include "conformance.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static bool incoming_at_b(world_t *world)
{
    return world->end[1].incoming > 0;
}

static void accepting_later(void **state)
{
    (void)state;
    world_t *world = world_open();
    end_t *a = &world->end[0], *b = &world->end[1];
    b->leave_incoming = true;
    end_connect(a);
    world_until(world, incoming_at_b, "the incoming link");
    for (unsigned i = 0; i < 50; i++) world_pump(world);
    assert_int_equal(a->up + b->up, 0);
    rf_slot_t slot = slot_make(0);
    assert_int_equal(world->fixture->transport->send(a->link, &slot, 1), 0);
    assert_int_equal(world->fixture->transport->accept(b->link, &b->accept), RF_OK);
    world_until(world, is_up, "the link to come up");
    world_stream(world, 0, 100);
    world_close(world);
}

static void rejecting(void **state)
{
    (void)state;
    world_t *world = world_open();
    end_t *a = &world->end[0], *b = &world->end[1];
    b->leave_incoming = true;
    end_connect(a);
    world_until(world, incoming_at_b, "the incoming link");
    world->fixture->transport->reject(b->link, RF_ERR_PERMISSION);
    b->link = NULL;
    world_until(world, is_a_ended, "the refusal");
    assert_int_equal(a->dead, 1);
    assert_int_equal(a->why, RF_ERR_PERMISSION);
    assert_int_equal(a->up, 0);
    world_close(world);
}

/* A second endpoint `a`, which says something else of itself. */
static rf_err_t refused_as(void (*change)(rf_hello_t *))
{
    world_t *world = world_open();
    end_t *a = &world->end[0];
    const rf_transport_t *t = world->fixture->transport;
    t->endpoint_close(a->endpoint);
    rf_endpoint_params_t params = world_params(world, 0);
    change(&params.self);
    assert_int_equal(t->endpoint_open(&params, &a->endpoint), RF_OK);
    end_connect(a);
    world_until(world, is_a_ended, "the refusal");
    assert_int_equal(a->dead, 1);
    assert_int_equal(a->up + world->end[1].up, 0);
    rf_err_t why = a->why;
    world_close(world);
    return why;
}

static void other_machine(rf_hello_t *hello)
{
    hello->machine.bytes[3] ^= 1;
}
static void other_major(rf_hello_t *hello)
{
    hello->version_major++;
}

static void strangers_are_refused(void **state)
{
    (void)state;
    assert_int_equal(refused_as(other_machine), RF_ERR_AUTH);
    assert_int_equal(refused_as(other_major), RF_ERR_VERSION);
}

static void minor_is_the_lower(void **state)
{
    (void)state;
    world_t *world = world_open();
    end_t *a = &world->end[0];
    const rf_transport_t *t = world->fixture->transport;
    t->endpoint_close(a->endpoint);
    rf_endpoint_params_t params = world_params(world, 0);
    params.self.version_minor = RF_VERSION_MINOR + 3;
    assert_int_equal(t->endpoint_open(&params, &a->endpoint), RF_OK);
    end_connect(a);
    world_until(world, is_up, "the link to come up");
    assert_int_equal(world->end[1].hello.version_minor, RF_VERSION_MINOR);
    assert_int_equal(a->hello.version_minor, RF_VERSION_MINOR);
    world_close(world);
}

/* A link has what it says of itself, not what its endpoint says. */
static void hello_of_one_link(void **state)
{
    (void)state;
    world_t *world = world_open();
    end_t *a = &world->end[0], *b = &world->end[1];
    rf_hello_t own = world_params(world, 0).self;
    own.core = 321;
    memset(own.token, 0xee, sizeof own.token);
    rf_link_params_t params = {.address = world->address, .socket = -1, .hello = &own, .user = world};
    assert_int_equal(world->fixture->transport->connect(a->endpoint, &params, &a->link), RF_OK);
    world_until(world, is_up, "the link to come up");
    assert_int_equal(b->hello.core, 321);
    assert_memory_equal(b->hello.token, own.token, sizeof own.token);
    assert_ptr_equal(a->link->user, world);
    world_close(world);
}

static void nobody_listens(void **state)
{
    (void)state;
    world_t *world = world_open_until(200 * RF_NS_PER_MS);
    end_t *a = &world->end[0];
    end_close(&world->end[1]);
    end_connect(a);
    world_until(world, is_a_ended, "the deadline");
    assert_int_equal(a->dead, 1);
    assert_int_equal(a->up, 0);
    assert_int_not_equal(a->why, RF_OK);
    world_close(world);
}

/* Everything flushed before close() arrives, then CLOSED, once; nothing after. */
static void close_in_order(void **state)
{
    (void)state;
    for (unsigned closer = 0; closer < 2; closer++) {
        world_t *world = world_linked(64, 1024);
        end_t *from = &world->end[closer], *to = &world->end[!closer];
        const rf_transport_t *t = world->fixture->transport;
        world_stream(world, closer, 10);
        unsigned sent = end_send(from, 50);
        assert_true(sent > 0);
        t->close(from->link);
        from->link = NULL;
        uint64_t since_ns = rf_clock_ns();
        while (to->closed + to->dead == 0) {
            world_pump(world);
            end_receive(to, 7);
            hang_check(since_ns, "the close");
        }
        assert_int_equal(to->got, from->sent);
        assert_int_equal(to->closed, 1);
        assert_int_equal(to->dead, 0);
        assert_int_equal(from->closed + from->dead, 0);
        assert_int_equal(to->link->state, RF_LINK_STATE_DEAD);
        rf_slot_t slot = slot_make(0);
        assert_int_equal(t->send(to->link, &slot, 1), 0);
        assert_int_equal(t->poll(to->link, &slot, 1), 0);
        assert_int_not_equal(t->flush(to->link), RF_OK);
        t->close(to->link);
        to->link = NULL;
        for (unsigned i = 0; i < 20; i++) world_pump(world);
        assert_int_equal(to->closed + to->dead, 1);
        world_close(world);
    }
}

static void both_close_at_once(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 64);
    for (unsigned side = 0; side < 2; side++) {
        end_send(&world->end[side], 20);
        world->fixture->transport->close(world->end[side].link);
        world->end[side].link = NULL;
    }
    for (unsigned i = 0; i < 100; i++) world_pump(world);
    assert_int_equal(world->end[0].closed + world->end[0].dead + world->end[1].closed + world->end[1].dead,
                     0);
    world_close(world);
}

/* close() under load, from within a callback, and again with a new link on the same endpoints. */
static void close_on_room(end_t *end, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)info;
    if (event == RF_LINK_ROOM && end->link) {
        end->world->fixture->transport->close(end->link);
        end->link = NULL;
    }
}

static void close_in_a_callback(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 64);
    end_t *a = &world->end[0], *b = &world->end[1];
    a->on_event = close_on_room;
    uint64_t since_ns = rf_clock_ns();
    bool refused = false;
    while (b->closed == 0) {
        if (a->link) {
            rf_slot_t none;
            if (!refused) refused = end_send(a, 64) < 64;
            world->fixture->transport->poll(a->link, &none, 1);
        }
        world_pump(world);
        end_receive(b, 16);
        hang_check(since_ns, "the close");
    }
    assert_int_equal(b->got, a->sent);
    assert_null(a->link);
    world->fixture->transport->close(b->link);
    a->on_event = NULL;
    a->sent = a->got = b->sent = b->got = 0;
    a->up = b->up = 0;
    b->link = NULL;
    end_connect(a);
    world_until(world, is_up, "a second link");
    world_stream(world, 0, 500);
    world_close(world);
}

/* After fence() nothing of the peer is delivered, whatever it sends; the peer learns that its link is over. */
static void fence_under_load(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 256);
    end_t *a = &world->end[0], *b = &world->end[1];
    const rf_transport_t *t = world->fixture->transport;
    world_stream(world, 0, 100);
    end_send(a, 64);
    for (unsigned i = 0; i < 10; i++) world_pump(world);
    t->fence(b->link);
    uint64_t since_ns = rf_clock_ns();
    while (a->closed + a->dead == 0) {
        rf_slot_t slots[8];
        assert_int_equal(t->poll(b->link, slots, 8), 0);
        assert_false(t->ready(b->link));
        if (a->link->state == RF_LINK_STATE_UP) end_send(a, 8);
        t->poll(a->link, slots, 8);
        world_pump(world);
        hang_check(since_ns, "the fenced peer to learn it");
    }
    assert_int_equal(b->dead + b->closed, 0);
    assert_int_equal(b->link->state, RF_LINK_STATE_DEAD);
    assert_int_equal(t->flush(b->link), RF_ERR_FENCED);
    rf_slot_t slot = slot_make(0);
    assert_int_equal(t->send(b->link, &slot, 1), 0);
    t->close(b->link);
    b->link = NULL;
    for (unsigned i = 0; i < 20; i++) world_pump(world);
    world_close(world);
}

/* The endpoint of the peer goes without a word: what had arrived is polled first, then DEAD, once. */
static void an_endpoint_goes(void **state)
{
    (void)state;
    world_t *world = world_open_until(400 * RF_NS_PER_MS);
    end_t *a = &world->end[0], *b = &world->end[1];
    end_connect(a);
    world_until(world, is_up, "the link to come up");
    world_stream(world, 0, 10);
    end_close(b);
    uint64_t since_ns = rf_clock_ns();
    while (a->dead + a->closed == 0) {
        rf_slot_t slots[8];
        world_pump(world);
        world->fixture->transport->poll(a->link, slots, 8);
        hang_check(since_ns, "the peer's death");
    }
    assert_int_equal(a->dead + a->closed, 1);
    world_close(world);
}

/* Strangers on the listening address: nonsense of every size, half a hello, many at once. The link beside them
 * goes on, and new ones are made. */
static void garbage_at_the_door(void **state)
{
    (void)state;
    if (!conformance_fixture->garbage) {
        print_message("[  not for %s ] nobody but a peer can speak to it\n", conformance_fixture->name);
        return;
    }
    world_t *world = world_linked(64, 256);
    uint8_t bytes[512];
    for (unsigned i = 0; i < 200; i++) {
        size_t size = rf_prng_below(&world->prng, sizeof bytes);
        for (size_t j = 0; j < size; j++) bytes[j] = (uint8_t)rf_prng_next(&world->prng);
        if (i % 4 == 0) memcpy(bytes, "RKFSHTCP", 8);
        if (!world->fixture->garbage(world, world->address, bytes, size)) break;
        end_progress(&world->end[1]);
        if (i % 20 == 0) world_stream(world, i / 20 % 2, 10);
    }
    world_stream(world, 0, 200);
    assert_int_equal(world->end[0].broken + world->end[0].dead + world->end[1].dead, 0);
    assert_int_equal(world->end[1].incoming, 1);
    world_close(world);
}

/* A peer that breaks the rules on a link that is up: its link ends with RF_ERR_PROTOCOL, or it harmed only itself. */
static void hostile_peers(void **state)
{
    (void)state;
    if (!conformance_fixture->hostile) {
        print_message("[  not for %s ] both ends are one trusted program\n", conformance_fixture->name);
        return;
    }
    for (unsigned way = 0;; way++) {
        world_t *world = world_linked(64, 256);
        end_t *victim = &world->end[1];
        world_stream(world, 0, 10);
        bool harmless = false;
        bool more = world->fixture->hostile(world, 0, way, &harmless);
        uint64_t since_ns = rf_clock_ns();
        for (unsigned i = 0; more && victim->dead + victim->closed == 0; i++) {
            rf_slot_t slots[8];
            world_pump(world);
            world->fixture->transport->poll(victim->link, slots, 8);
            if (harmless && i > 200) break;
            hang_check(since_ns, "the end of a hostile peer's link");
        }
        if (more && !harmless) {
            if (victim->dead != 1 || victim->why != RF_ERR_PROTOCOL)
                fail_msg("way %u: dead %u, %s", way, victim->dead, rf_err_name(victim->why));
            rf_link_stats_t stats;
            world->fixture->transport->stats(victim->link, &stats);
            assert_true(stats.protocol_errors > 0);
        }
        world_close(world);
        if (!more) return;
    }
}

/* Local media pass descriptors, which arrive open and close-on-exec; the others say that they cannot. */
static void keep_fd(end_t *end, rf_link_event_t event, const rf_link_event_info_t *info)
{
    if (event != RF_LINK_FDS) return;
    assert_int_equal(info->n_fds, 2);
    assert_int_equal(info->size, 5);
    assert_memory_equal(info->bytes, "hello", 5);
    int *kept = end->user;
    kept[0] = info->fds[0];
    kept[1] = info->fds[1];
}

static void descriptors_pass(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    int ends[2], kept[2] = {-1, -1};
    assert_int_equal(pipe(ends), 0);
    b->user = kept;
    b->on_event = keep_fd;
    rf_err_t err = t->pass_fds(a->link, "hello", 5, ends, 2);
    assert_int_equal(err, t->flags & RF_TRANSPORT_PASS_FDS ? RF_OK : RF_ERR_NOT_SUPPORTED);
    uint64_t since_ns = rf_clock_ns();
    while (err == RF_OK && b->fds == 0) {
        world_pump(world);
        hang_check(since_ns, "descriptors");
    }
    if (err == RF_OK) {
        char byte = 0;
        assert_int_equal(write(kept[1], "x", 1), 1);
        assert_int_equal(read(ends[0], &byte, 1), 1);
        assert_int_equal(byte, 'x');
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(fcntl(kept[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
            close(kept[i]);
        }
    }
    close(ends[0]);
    close(ends[1]);
    world_stream(world, 0, 10);
    world_close(world);
}

/* Many links on one pair of endpoints do not mix. */
#define LINKS 20
typedef struct many {
    rf_link_t *a[LINKS], *b[LINKS];
    unsigned up, n_b;
} many_t;

static void many_event(end_t *end, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)info;
    many_t *many = end->user;
    many->up += event == RF_LINK_UP;
}

static void many_links(void **state)
{
    (void)state;
    world_t *world = world_open();
    const rf_transport_t *t = world->fixture->transport;
    many_t many = {.up = 0};
    end_t *a = &world->end[0], *b = &world->end[1];
    a->user = b->user = &many;
    a->on_event = b->on_event = many_event;
    for (unsigned i = 0; i < LINKS; i++) {
        uint64_t since_ns = rf_clock_ns();
        b->link = NULL;
        end_connect(a);
        many.a[i] = a->link;
        while (many.up < 2 * (i + 1)) {
            world_pump(world);
            hang_check(since_ns, "links");
        }
        many.b[i] = b->link;
    }
    for (unsigned round = 0; round < 50; round++) {
        uint64_t since_ns = rf_clock_ns();
        for (unsigned i = 0; i < LINKS; i++) {
            rf_slot_t slot = slot_make(i * 1000 + round);
            while (t->send(many.a[i], &slot, 1) == 0) {
                world_pump(world);
                hang_check(since_ns, "room on one of many links");
            }
            t->flush(many.a[i]);
        }
        for (unsigned i = 0; i < LINKS; i++) {
            rf_slot_t slot;
            while (t->poll(many.b[i], &slot, 1) == 0) {
                world_pump(world);
                hang_check(since_ns, "a slot on one of many links");
            }
            slot_check(&slot, i * 1000 + round);
        }
    }
    for (unsigned i = 0; i < LINKS; i++) {
        t->close(many.a[i]);
        t->close(many.b[i]);
    }
    world_close(world);
}

const struct CMUnitTest cases_life[] = {
    cmocka_unit_test(accepting_later),       cmocka_unit_test(rejecting),
    cmocka_unit_test(strangers_are_refused), cmocka_unit_test(minor_is_the_lower),
    cmocka_unit_test(hello_of_one_link),     cmocka_unit_test(nobody_listens),
    cmocka_unit_test(close_in_order),        cmocka_unit_test(both_close_at_once),
    cmocka_unit_test(close_in_a_callback),   cmocka_unit_test(fence_under_load),
    cmocka_unit_test(an_endpoint_goes),      cmocka_unit_test(garbage_at_the_door),
    cmocka_unit_test(hostile_peers),         cmocka_unit_test(many_links),
    cmocka_unit_test(descriptors_pass),
};
const size_t cases_life_n = sizeof cases_life / sizeof *cases_life;
