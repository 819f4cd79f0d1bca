/*
 * The shared-memory link between two threads and two processes: streams, growth under load, sleeping and waking
 * without a loss, death in the middle. The other side is a process that dies with this one.
 */
#include "shm_test.h"

#include "transport/wait.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const rf_transport_t *const shm = &rf_transport_shm;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SCALE 10
#else
#define SCALE 1
#endif
#define STREAM_SLOTS          (300000 / SCALE)
#define HAMMER_ROUNDS_DEFAULT 20000
#define TEST_DEADLINE_NS      (200 * RF_NS_PER_S)
#define SLEEP_NS_MAX          (10 * RF_NS_PER_S)

/* One side as a thread or process has it: its end, its bell. */
typedef struct side {
    shm_end_t end;
    rf_doorbell_t bell; /* no word: it waits in poll() */
    rf_wait_t wait;
    uint64_t deadline_ns;
    unsigned lost; /* sleeps that only their timeout ended, though there was something */
} side_t;

static void side_open(side_t *side, int socket, bool futex, unsigned slots, unsigned slots_max)
{
    memset(side, 0, sizeof *side);
    side->bell.fd = -1;
    if (futex) assert_int_equal(rf_doorbell_create(&side->bell), RF_OK);
    shm_end_open(&side->end, futex ? &side->bell : NULL);
    shm_end_connect(&side->end, socket, slots, slots_max);
    rf_wait_init(&side->wait, 0);
    side->deadline_ns = rf_clock_ns() + TEST_DEADLINE_NS;
    while (!side->end.up && !side->end.dead && rf_clock_ns() < side->deadline_ns) {
        struct pollfd p = {.fd = shm->endpoint_fd(side->end.endpoint), .events = POLLIN};
        poll(&p, 1, 10);
        shm_end_progress(&side->end);
    }
}

static void side_close(side_t *side)
{
    shm_end_close(&side->end);
    rf_doorbell_destroy(&side->bell);
}

static bool side_over(side_t *side)
{
    return side->end.dead || side->end.closed;
}

/* Blocks until there is something, the way its bell is meant to be waited on. */
static bool side_block(side_t *side)
{
    if (rf_clock_ns() >= side->deadline_ns) return false;
    rf_link_t *link = side->end.link;
    bool timed_out;
    if (side->bell.word) {
        rf_err_t err = rf_wait_links(&side->wait, &side->bell, &link, 1, rf_clock_ns() + SLEEP_NS_MAX);
        timed_out = err == RF_ERR_TIMEOUT;
    } else {
        if (!rf_wait_arm_all(&link, 1)) return true;
        struct pollfd p = {.fd = shm->endpoint_fd(side->end.endpoint), .events = POLLIN};
        timed_out = poll(&p, 1, (int)(SLEEP_NS_MAX / RF_NS_PER_MS)) == 0;
        rf_wait_disarm_all(&link, 1);
        shm_end_progress(&side->end);
    }
    if (timed_out && shm->ready(link)) side->lost++;
    return true;
}

/* Sends [0, total) in batches of changing size, sleeping when full. */
static bool send_stream(side_t *side, uint64_t total)
{
    rf_slot_t slots[96], none;
    uint64_t sent = 0;
    unsigned round = 0;
    while (sent < total && !side_over(side)) {
        unsigned n = 1 + round++ % 96;
        n = total - sent < n ? (unsigned)(total - sent) : n;
        for (unsigned i = 0; i < n; i++) slots[i] = shm_test_slot(sent + i);
        unsigned taken = shm->send(side->end.link, slots, n);
        shm->flush(side->end.link);
        sent += taken;
        if (taken == n) continue;
        if (!side_block(side)) return false;
        shm->poll(side->end.link, &none, 1);
    }
    return sent == total;
}

static bool receive_stream(side_t *side, uint64_t total)
{
    rf_slot_t slots[70];
    uint64_t got = 0;
    while (got < total) {
        unsigned n = shm->poll(side->end.link, slots, 70);
        for (unsigned i = 0; i < n; i++) {
            if (!shm_test_slot_is(&slots[i], got + i)) return false;
        }
        got += n;
        if (n == 0 && (side_over(side) || !side_block(side))) return false;
    }
    return true;
}

/* ---- two threads ---- */

typedef struct stream {
    int socket;
    bool futex;
    unsigned slots, slots_max;
    bool sends, ok;
    rf_link_stats_t stats;
} stream_t;

static void *stream_main(void *context)
{
    stream_t *s = context;
    side_t *side = calloc(1, sizeof *side);
    side_open(side, s->socket, s->futex, s->slots, s->slots_max);
    s->ok = side->end.up && (s->sends ? send_stream(side, STREAM_SLOTS) : receive_stream(side, STREAM_SLOTS));
    shm->stats(side->end.link, &s->stats);
    shm->close(side->end.link);
    side_close(side);
    free(side);
    return NULL;
}

static void stream_threads(bool first, bool second, unsigned slots_max, uint32_t *ring_slots)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    stream_t sides[2] = {
        {.socket = pair[0], .futex = first, .slots = 64, .slots_max = slots_max, .sends = true},
        {.socket = pair[1], .futex = second, .slots = 64, .slots_max = slots_max}};
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, stream_main, &sides[i]), 0);
    for (unsigned i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_true(sides[0].ok);
    assert_true(sides[1].ok);
    *ring_slots = sides[0].stats.ring_slots_send;
}

static void a_stream_with_sleeping_sides(void **state)
{
    (void)state;
    uint32_t slots;
    stream_threads(true, true, 64, &slots);
    assert_int_equal(slots, 64);
    stream_threads(true, false, 64, &slots);
    stream_threads(false, true, 64, &slots);
    stream_threads(false, false, 64, &slots);
}

static void a_ring_grows_under_load(void **state)
{
    /* The sender sleeps over a full ring sooner or later: that is when traffic asks for a larger one. */
    (void)state;
    uint32_t slots;
    stream_threads(true, true, 4096, &slots);
    assert_true(slots > 64);
}

/* ---- hammering ---- */

static uint64_t hammer_rounds = HAMMER_ROUNDS_DEFAULT;

typedef struct hammer {
    int socket;
    bool futex;
    uint64_t rounds;
    bool first, ok;
    unsigned lost;
} hammer_t;

/* One slot there, one back; both sides block for each. */
static void *hammer_main(void *context)
{
    hammer_t *h = context;
    side_t *side = calloc(1, sizeof *side);
    side_open(side, h->socket, h->futex, 64, 64);
    h->ok = side->end.up;
    for (uint64_t i = 0; i < h->rounds && h->ok; i++) {
        rf_slot_t slot = shm_test_slot(i);
        if (h->first) {
            h->ok = shm->send(side->end.link, &slot, 1) == 1;
            shm->flush(side->end.link);
        }
        while (h->ok && shm->poll(side->end.link, &slot, 1) == 0)
            h->ok = !side_over(side) && side_block(side);
        h->ok = h->ok && shm_test_slot_is(&slot, i);
        if (!h->first && h->ok) {
            h->ok = shm->send(side->end.link, &slot, 1) == 1;
            shm->flush(side->end.link);
        }
    }
    h->lost = side->lost;
    side_close(side);
    free(side);
    return NULL;
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    uint64_t rounds = hammer_rounds / SCALE;
    static const bool futex[][2] = {{true, true}, {true, false}};
    for (unsigned k = 0; k < 2; k++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        hammer_t sides[2] = {{.socket = pair[0], .futex = futex[k][0], .rounds = rounds, .first = true},
                             {.socket = pair[1], .futex = futex[k][1], .rounds = rounds}};
        pthread_t threads[2];
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, hammer_main, &sides[i]), 0);
        for (unsigned i = 0; i < 2; i++) pthread_join(threads[i], NULL);

        assert_true(sides[0].ok);
        assert_int_equal(sides[0].lost + sides[1].lost, 0);
    }
}

/* ---- two processes ---- */

static pid_t fork_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(100);
    }
    return pid;
}

static void a_killed_peer_is_noticed_in_the_middle(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 10; round++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        pid_t pid = fork_child();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(pair[0]);
            side_t side;
            side_open(&side, pair[1], true, 64, 1024);
            send_stream(&side, UINT64_MAX); /* until it is killed */
            _exit(0);
        }
        close(pair[1]);
        side_t *side = calloc(1, sizeof *side);
        side_open(side, pair[0], false, 64, 64);
        assert_int_equal(side->end.up, 1);
        uint64_t got = 0, kill_at = 1000 + round * 777;
        bool killed = false;
        while (!side->end.dead) {
            assert_true(rf_clock_ns() < side->deadline_ns);
            rf_slot_t slots[32];
            unsigned n = shm->poll(side->end.link, slots, 32);
            for (unsigned i = 0; i < n; i++)
                assert_true(shm_test_slot_is(&slots[i], got + i)); /* whole slots only, in order */
            got += n;
            if (!killed && got >= kill_at) {
                kill(pid, SIGKILL);
                killed = true;
            }
            if (n == 0) side_block(side);
        }
        assert_int_equal(side->end.why, RF_ERR_PEER_DEAD);
        assert_int_equal(side->end.closed, 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        shm->close(side->end.link);
        side_close(side);
        free(side);
    }
}

static void two_processes_stream_both_ways(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork_child();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(pair[0]);
        side_t side;
        side_open(&side, pair[1], true, 64, 1024);
        bool ok = receive_stream(&side, STREAM_SLOTS) && send_stream(&side, STREAM_SLOTS);
        shm->close(side.end.link);
        _exit(ok ? 0 : 1);
    }
    close(pair[1]);
    side_t *side = calloc(1, sizeof *side);
    side_open(side, pair[0], true, 64, 1024);
    assert_true(send_stream(side, STREAM_SLOTS));
    assert_true(receive_stream(side, STREAM_SLOTS));
    rf_slot_t slot;
    while (!side_over(side) && side_block(side)) shm->poll(side->end.link, &slot, 1);
    assert_int_equal(side->end.closed, 1);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    side_close(side);
    free(side);
}

/* With a number: only the hammering, so many rounds of two sleeps each, for each pair of doorbells. */
int main(int argc, char **argv)
{
    if (argc > 1) {
        const struct CMUnitTest hammer[] = {cmocka_unit_test(no_wake_up_is_lost)};
        hammer_rounds = strtoull(argv[1], NULL, 10);
        return cmocka_run_group_tests(hammer, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_peer_is_noticed_in_the_middle),
        cmocka_unit_test(two_processes_stream_both_ways),
        cmocka_unit_test(a_stream_with_sleeping_sides),
        cmocka_unit_test(a_ring_grows_under_load),
        cmocka_unit_test(no_wake_up_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
