/*
 * No wake-up and no word of room is lost between two ends of a link on one CPU. Each end sends batches, asks for more room than there
 * is, writes to the other's region and receives; what was refused it tries again only after RF_LINK_ROOM, and when there is
 * nothing to do it sleeps with no deadline. Both asleep before all has arrived: the test fails, and says what they knew.
 *
 * shm_wake [ROUNDS [SEED [STUCK_MS]]]: more of the same, from another seed, with less patience.
 */
#include "shm_test.h"

#include "shm_slow.h"
#include "transport/wait.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#define SLOTS    (SANITIZED ? 600u : 3000u) /* each way */
#define WRITES   (SANITIZED ? 60u : 300u)
#define BATCH    200
#define POLL_MAX 70
#define WATCH_US 1000

static unsigned rounds = 20, stuck_ms = 20000;
static uint64_t seed = 1;

typedef struct side {
    shm_end_t end;
    rf_doorbell_t bell;
    rf_region_t *region;
    struct side *peer;
    unsigned place;
    uint64_t seed;
    bool preempted; /* by a timer too, inside the operations */
    rf_slot_t slots[BATCH];
    uint64_t sent, got;
    unsigned written, noted;
    unsigned room_seen;
    bool send_refused, write_refused;
    bool bad;
    _Atomic(uint64_t) steps;
    _Atomic(bool) done;
} side_t;

static bool side_done(const side_t *s)
{
    return s->sent == SLOTS && s->written == WRITES && s->got == SLOTS && s->noted == WRITES;
}

/* True: something went. */
static bool send_some(side_t *s)
{
    const rf_transport_t *t = s->end.link->transport;
    unsigned most = ((shm_link_t *)s->end.link)->slots_max - RF_RING_SLOTS_RESERVED;
    unsigned n = 1 + shm_slow_below(shm_slow_below(2) ? 12 : BATCH), taken;
    if (n > SLOTS - s->sent) n = (unsigned)(SLOTS - s->sent);
    if (n > most) n = most;
    if (shm_slow_below(3) == 0 && t->room(s->end.link, n) < n) { /* all or nothing, as messages go */
        s->send_refused = true;
        return false;
    }
    for (unsigned i = 0; i < n; i++) s->slots[i] = shm_test_slot(s->sent + i);
    taken = t->send(s->end.link, s->slots, n);
    s->sent += taken;
    if (taken < n) s->send_refused = true;
    if (shm_slow_below(2)) t->flush(s->end.link); /* else arm() does */
    return taken > 0;
}

static bool write_one(side_t *s)
{
    rf_slot_t notify = shm_test_slot(s->written);
    notify.control = rf_control_make(2, RF_SLOT_PAYLOAD, false, 0);
    rf_err_t err = s->end.link->transport->remote_write(s->end.link, &s->peer->region->key, 0, &s->written,
                                                        sizeof s->written, &notify, 0);
    s->written += err == RF_OK;
    s->write_refused = err == RF_ERR_AGAIN;
    s->bad |= err != RF_OK && err != RF_ERR_AGAIN;
    return err == RF_OK;
}

static bool receive_some(side_t *s)
{
    unsigned n = s->end.link->transport->poll(s->end.link, s->slots, 1 + shm_slow_below(POLL_MAX));
    for (unsigned i = 0; i < n; i++) {
        if (rf_control_type(s->slots[i].control) == 2)
            s->bad |= s->slots[i].words[0] != s->noted++;
        else
            s->bad |= !shm_test_slot_is(&s->slots[i], s->got++);
    }
    return n > 0;
}

static void sleep_until_rung(side_t *s)
{
    rf_link_t *link = s->end.link;
    uint32_t value = rf_doorbell_value(&s->bell);
    shm_slow_pause();
    if (!rf_wait_arm_all(&link, 1)) return;
    shm_slow_pause();
    (void)rf_doorbell_wait(&s->bell, value, RF_NEVER);
    rf_wait_disarm_all(&link, 1);
}

/* ---- preemption inside the operations ---- */

static _Thread_local timer_t preempt_timer;
static _Thread_local long preempt_ns;

static void preempt_again(void)
{
    struct itimerspec once = {.it_value.tv_nsec = preempt_ns};
    (void)timer_settime(preempt_timer, 0, &once, NULL);
}

static void preempt(int signo)
{
    (void)signo;
    int before = errno;
    struct timespec nap = {.tv_nsec = 1};
    (void)nanosleep(&nap, NULL);
    preempt_again();
    errno = before;
}

/* With SA_RESTART a futex wait without a deadline goes on after the signal, so that it hides no lost ring. */
static bool preempt_start(const side_t *s)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    if (!s->preempted || timer_create(CLOCK_MONOTONIC, &event, &preempt_timer) != 0) return false;
    preempt_ns = 30000 + (long)shm_slow_below(100000);
    preempt_again();
    return true;
}

/* ---- */

static void *side_main(void *context)
{
    side_t *s = context;
    rf_prng_seed(&shm_slow_prng, s->seed);
    shm_slow_every = 8u << shm_slow_below(6);
    (void)prctl(PR_SET_TIMERSLACK, 1);
    bool timed = preempt_start(s);
    while (!side_done(s) && !s->bad && !s->end.dead) {
        atomic_fetch_add_explicit(&s->steps, 1, memory_order_relaxed);
        if (s->end.room != s->room_seen) {
            s->room_seen = s->end.room;
            s->send_refused = s->write_refused = false;
        }
        bool acted = false;
        if (s->sent < SLOTS && !s->send_refused) acted |= send_some(s);
        if (s->written < WRITES && !s->write_refused && shm_slow_below(2)) acted |= write_one(s);
        if (shm_slow_below(4)) acted |= receive_some(s);
        bool could = (s->sent < SLOTS && !s->send_refused) || (s->written < WRITES && !s->write_refused);
        if (!acted && !could && s->end.room == s->room_seen && !receive_some(s) &&
            s->end.room == s->room_seen)
            sleep_until_rung(s);
    }
    s->end.link->transport->flush(s->end.link);
    if (timed) timer_delete(preempt_timer);
    atomic_store(&s->done, true);
    return NULL;
}

static side_t *side_new(unsigned place, bool preempted)
{
    side_t *s = aligned_alloc(RF_CACHE_LINE, (sizeof *s + RF_CACHE_LINE - 1) & ~(size_t)(RF_CACHE_LINE - 1));
    assert_non_null(s);
    memset(s, 0, sizeof *s);
    s->place = place;
    s->seed = seed * 2 + place;
    s->preempted = preempted;
    assert_int_equal(rf_doorbell_create(&s->bell), RF_OK);
    shm_end_open(&s->end, &s->bell);
    return s;
}

static void side_free(side_t *s)
{
    shm_end_close(&s->end);
    rf_doorbell_destroy(&s->bell);
    free(s);
}

/* Waits for both; false when neither has moved for too long. */
static bool watch(side_t *const *sides)
{
    uint64_t steps = 0, moved_ns = rf_clock_ns();
    while (!atomic_load(&sides[0]->done) || !atomic_load(&sides[1]->done)) {
        usleep(WATCH_US);
        uint64_t now = atomic_load(&sides[0]->steps) + atomic_load(&sides[1]->steps), now_ns = rf_clock_ns();
        if (now != steps) moved_ns = now_ns;
        steps = now;
        if (now_ns - moved_ns < stuck_ms * RF_NS_PER_MS) continue;
        fprintf(stderr, "seed %llu: both sleep for good\n", (unsigned long long)seed);
        for (unsigned i = 0; i < 2; i++) {
            const side_t *s = sides[i];
            fprintf(stderr, " side %u: sent %llu got %llu written %u noted %u refused %d %d\n", i,
                    (unsigned long long)s->sent, (unsigned long long)s->got, s->written, s->noted,
                    s->send_refused, s->write_refused);
            shm_slow_report(s->end.link);
        }
        return false;
    }
    return true;
}

static bool one_round(bool preempted)
{
    static rf_transport_t slow;
    slow = shm_slow_table();
    side_t *sides[2] = {side_new(0, preempted), side_new(1, preempted)};
    static const unsigned most[] = {64, 128, 256, 1024};
    shm_ends_join(&sides[0]->end, &sides[1]->end, 64, most[seed % 4]);
    for (unsigned i = 0; i < 2; i++) {
        sides[i]->peer = sides[!i];
        sides[i]->end.link->transport = &slow;
        assert_int_equal(rf_transport_shm.region_create(sides[i]->end.link, RF_PAGE, &sides[i]->region),
                         RF_OK);
    }
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, side_main, sides[i]), 0);
    bool ok = watch(sides);
    if (!ok) { /* their threads stay asleep: leave them be */
        for (unsigned i = 0; i < 2; i++) pthread_detach(threads[i]);
        return false;
    }
    for (unsigned i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    ok = !sides[0]->bad && !sides[1]->bad && side_done(sides[0]) && side_done(sides[1]);
    for (unsigned i = 0; i < 2; i++) side_free(sides[i]);
    return ok;
}

static void run_rounds(bool preempted)
{
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    uint64_t first = seed;
    unsigned failed = 0;
    for (unsigned i = 0; i < rounds; i++, seed++) failed += !one_round(preempted);
    seed = first;
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(failed, 0);
}

static void between_the_operations(void **state)
{
    (void)state;
    run_rounds(false);
}

static void inside_the_operations(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = preempt, .sa_flags = SA_RESTART};
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    run_rounds(true);
}

int main(int argc, char **argv)
{
    if (argc > 1) rounds = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2) seed = strtoull(argv[2], NULL, 10);
    if (argc > 3) stuck_ms = (unsigned)strtoul(argv[3], NULL, 10);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(between_the_operations),
        cmocka_unit_test(inside_the_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
