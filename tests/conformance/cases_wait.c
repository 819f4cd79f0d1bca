/* Waiting: no wake-up is lost, both ends in threads of their own, hammering at the moment between looking and sleeping. */
#include "conformance.h"

#include "transport/stream.h"
#include "transport/wait.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#define ROUNDS    4000
#define PAUSE_MAX 2000
#define SLEEP_MS  20000 /* a wake-up that has not come by then is lost */

static unsigned burst(rf_prng_t *prng)
{
    return 1 + (unsigned)rf_prng_below(prng, 5);
}

/* How long a sleeper may sleep before the medium wants to be called. */
static int until_ms(uint64_t next_ns)
{
    uint64_t now_ns = rf_clock_ns();
    uint64_t left_ms = next_ns > now_ns ? (next_ns - now_ns) / RF_NS_PER_MS + 1 : 0;
    return left_ms < SLEEP_MS ? (int)left_ms : SLEEP_MS;
}

/* Blocks until the endpoint has something, by the protocol of transport/wait.h. */
static void sleep_in_poll(end_t *end)
{
    uint64_t next_ns;
    const rf_transport_t *t = end->world->fixture->transport;
    t->endpoint_progress(end->endpoint, rf_clock_ns(), &next_ns);
    if (!rf_wait_arm_all(&end->link, 1)) return;
    struct pollfd p = {.fd = t->endpoint_fd(end->endpoint), .events = POLLIN};
    int timeout_ms = until_ms(next_ns);
    int n = poll(&p, 1, timeout_ms);
    rf_wait_disarm_all(&end->link, 1);
    if (n == 0 && timeout_ms == SLEEP_MS) fail_msg("a wake-up was lost");
    t->endpoint_progress(end->endpoint, rf_clock_ns(), &next_ns);
}

static void sleep_on_futex(end_t *end)
{
    uint64_t next_ns;
    rf_wait_t wait;
    rf_wait_init(&wait, 0);
    const rf_transport_t *t = end->world->fixture->transport;
    t->endpoint_progress(end->endpoint, rf_clock_ns(), &next_ns);
    uint64_t deadline_ns = rf_clock_ns() + SLEEP_MS * RF_NS_PER_MS;
    if (rf_wait_links(&wait, &end->doorbell, &end->link, 1, deadline_ns) == RF_ERR_TIMEOUT)
        fail_msg("a wake-up was lost");
}

static void (*sleeper)(end_t *end);

/* Sends bursts of random size and waits, asleep, until each slot has come back. */
static void *asker(void *context)
{
    end_t *end = context;
    rf_prng_t prng;
    rf_prng_seed(&prng, 11);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned n = burst(&prng);
        uint64_t since_ns = rf_clock_ns();
        while (n > 0) {
            unsigned sent = end_send(end, n);
            n -= sent;
            if (sent == 0) end_receive(end, 64);
            hang_check(since_ns, "room for a burst");
        }
        /* Now and then a pause of random length, so that the other end is met at every point of falling asleep. */
        for (uint64_t spin = rf_prng_below(&prng, PAUSE_MAX); spin > 0; spin--) rf_cpu_pause();
        while (end->got < end->sent) {
            if (end_receive(end, 64) == 0) sleeper(end);
            hang_check(since_ns, "a burst to come back");
        }
    }
    return NULL;
}

static uint64_t goal;

static void *echoer(void *context)
{
    end_t *end = context;
    uint64_t since_ns = rf_clock_ns();
    while (end->sent < goal) {
        unsigned n = end_receive(end, 64);
        if (n > 0) since_ns = rf_clock_ns();
        while (n > 0) {
            n -= end_send(end, n);
            hang_check(since_ns, "room for an echo");
        }
        if (end->got == end->sent && end->sent < goal) sleeper(end);
        hang_check(since_ns, "a burst to echo");
    }
    return NULL;
}

static void hammer(bool doorbell, void (*with)(end_t *end))
{
    if (!fixture_can(FIXTURE_THREADS, "its two ends share one virtual time, and nobody sleeps")) return;
    conformance_doorbell = doorbell;
    world_t *world = world_linked(64, 256);
    sleeper = with;
    rf_prng_t prng;
    rf_prng_seed(&prng, 11);
    goal = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        goal += burst(&prng);
        (void)rf_prng_below(&prng, PAUSE_MAX); /* the asker draws its pauses from the same numbers */
    }
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, asker, &world->end[0]), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, echoer, &world->end[1]), 0);
    for (unsigned i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_int_equal(world->end[0].got, goal);
    conformance_doorbell = true;
    world_close(world);
}

static void no_wake_up_is_lost_in_poll(void **state)
{
    (void)state;
    hammer(false, sleep_in_poll);
}

static void no_wake_up_is_lost_on_a_futex(void **state)
{
    (void)state;
    if (!(conformance_fixture->transport->flags & RF_TRANSPORT_POLLS_MEMORY)) {
        print_message("[  not for %s ] who waits on a futex for it is woken by its CPU driver\n",
                      conformance_fixture->name);
        return;
    }
    hammer(true, sleep_on_futex);
}

/* Nothing there: not ready; a slot flushed: ready, armed or not; and poll() works in either state. */
static void ready_tells_the_truth(void **state)
{
    (void)state;
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    for (unsigned round = 0; round < 20; round++) {
        uint64_t since_ns = rf_clock_ns();
        if (round % 2) t->arm(b->link);
        assert_int_equal(end_send(a, 1), 1);
        while (!t->ready(b->link)) {
            world_pump(world);
            hang_check(since_ns, "ready");
        }
        while (b->got < a->sent) {
            if (end_receive(b, 8) == 0) world_pump(world);
            hang_check(since_ns, "a slot that was said to be ready");
        }
        if (round % 2) t->disarm(b->link);
        /* What is left may be word of the medium itself: it does not last. */
        while (t->ready(b->link)) {
            assert_int_equal(end_receive(b, 8), 0);
            world_pump(world);
            hang_check(since_ns, "quiet");
        }
    }
    world_close(world);
}

/* ---- streams between sleepers ---- */

#define STREAM_BYTES (32ull << 20)
#define STREAM_RING  (256u << 10)

typedef struct streamer {
    rf_stream_t *stream;
    uint64_t written, read;
    bool finished, ended;
} streamer_t;

static void stream_event(end_t *end, rf_link_event_t event, const rf_link_event_info_t *info)
{
    streamer_t *me = end->user;
    if (event == RF_LINK_WRITTEN)
        assert_int_equal(rf_stream_written(&me->stream, 1, info->cookie, info->err), RF_OK);
}

static uint8_t stream_byte(uint64_t at)
{
    return (uint8_t)(at * 13 >> 5);
}

/* Moves what can be moved; false: nothing can now. */
static bool stream_move(end_t *end, streamer_t *me, uint8_t *bytes, size_t size)
{
    bool moved = false;
    rf_slot_t slots[16];
    unsigned n = end->world->fixture->transport->poll(end->link, slots, 16);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(rf_stream_slot(end->link, &me->stream, 1, &slots[i]), RF_OK);
    moved |= n > 0;
    size_t chunk = STREAM_BYTES - me->written < size ? (size_t)(STREAM_BYTES - me->written) : size;
    if (rf_stream_room(me->stream) > 0 && chunk > 0) {
        for (size_t i = 0; i < chunk; i++) bytes[i] = stream_byte(me->written + i);
        size_t taken = rf_stream_write(me->stream, bytes, chunk);
        me->written += taken;
        moved |= taken > 0;
    }
    if (me->written == STREAM_BYTES && !me->finished) me->finished = rf_stream_finish(me->stream) == RF_OK;
    size_t got = 0;
    rf_err_t err = rf_stream_read(me->stream, bytes, size, &got);
    if (err == RF_OK) {
        for (size_t i = 0; i < got; i++)
            if (bytes[i] != stream_byte(me->read + i))
                fail_msg("byte %llu differs", (unsigned long long)(me->read + i));
        me->read += got;
        moved = true;
    } else if (err == RF_ERR_CLOSED) {
        me->ended = true;
    }
    return moved;
}

static void *stream_side(void *context)
{
    end_t *end = context;
    streamer_t *me = end->user;
    static uint8_t buffers[2][100000];
    assert_int_equal(rf_stream_open(end->link, 0, STREAM_RING, &me->stream), RF_OK);
    for (uint64_t since_ns = rf_clock_ns();;) {
        bool moved = stream_move(end, me, buffers[end->side], sizeof buffers[0]);
        if (me->ended && me->finished && rf_stream_drained(me->stream)) break;
        if (moved) since_ns = rf_clock_ns();
        if (!moved) sleeper(end);
        hang_check(since_ns, "bytes of a stream");
    }
    return NULL;
}

/* Both ends stream to each other as fast as they can and sleep when they cannot: neither is left asleep. */
static void streams_between_sleepers(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_THREADS, "its two ends share one virtual time, and nobody sleeps") ||
        !fixture_can(FIXTURE_BULK, "it moves no bulk"))
        return;
    conformance_doorbell = false;
    world_t *world = world_linked(64, 256);
    sleeper = sleep_in_poll;
    streamer_t streamers[2];
    memset(streamers, 0, sizeof streamers);
    pthread_t threads[2];
    for (unsigned side = 0; side < 2; side++) {
        world->end[side].user = &streamers[side];
        world->end[side].on_event = stream_event;
    }
    for (unsigned side = 0; side < 2; side++)
        assert_int_equal(pthread_create(&threads[side], NULL, stream_side, &world->end[side]), 0);
    for (unsigned side = 0; side < 2; side++) pthread_join(threads[side], NULL);
    for (unsigned side = 0; side < 2; side++) {
        assert_int_equal(streamers[side].read, STREAM_BYTES);
        rf_stream_close(streamers[side].stream);
        world->fixture->transport->close(world->end[side].link);
        world->end[side].link = NULL;
    }
    conformance_doorbell = true;
    world_close(world);
}

const struct CMUnitTest cases_wait[] = {
    cmocka_unit_test(ready_tells_the_truth),
    cmocka_unit_test(no_wake_up_is_lost_in_poll),
    cmocka_unit_test(no_wake_up_is_lost_on_a_futex),
    cmocka_unit_test(streams_between_sleepers),
};
const size_t cases_wait_n = sizeof cases_wait / sizeof *cases_wait;
