#include "raw.h"

#include "pair.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/os.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK_SLOTS 16384
#define WARM_UP     1000 /* samples or rounds before the first that counts */

extern char **environ;

/* A bare slot: 56 bytes and a sequence number that appears last. */
typedef struct bare_slot {
    _Atomic(uint64_t) words[7];
    _Atomic(uint64_t) sequence;
} rf_cache_aligned bare_slot_t;

static inline void bare_write(bare_slot_t *slot, uint64_t sequence)
{
    for (unsigned i = 0; i < 7; i++) atomic_store_explicit(&slot->words[i], sequence, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
}

/* The same with moves of two words, which leave room for more slots on their way: for streams. */
typedef uint64_t pair_t __attribute__((vector_size(16), may_alias));

static inline void bare_write_wide(bare_slot_t *slot, uint64_t sequence)
{
    pair_t *pairs = (pair_t *)slot;
    for (unsigned i = 0; i < 3; i++) pairs[i] = (pair_t){sequence, sequence};
    atomic_store_explicit(&slot->words[6], sequence, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
}

static inline uint64_t bare_read(bare_slot_t *slot)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < 7; i++) sum += atomic_load_explicit(&slot->words[i], memory_order_relaxed);
    return sum;
}

static inline void bare_wait(bare_slot_t *slot, uint64_t sequence)
{
    while (atomic_load_explicit(&slot->sequence, memory_order_acquire) != sequence)
        ;
}

/* ---- bounce ---- */

typedef struct bounce {
    bare_slot_t *there, *back; /* rings */
    uint64_t mask;
    unsigned samples;
    bench_samples_t *out;
    _Atomic(uint64_t) sum; /* so that the payload is read */
} bounce_t;

static void bounce_first(void *context)
{
    bounce_t *b = context;
    double half = bench_ns_per_tick() / 2 / BENCH_ROUNDS_PER_SAMPLE;
    uint64_t sum = 0, before = rf_clock_ticks(), i = 0;
    for (unsigned sample = 0; sample < b->samples; sample++) {
        for (unsigned round = 0; round < BENCH_ROUNDS_PER_SAMPLE; round++) {
            i++;
            bare_write(&b->there[i & b->mask], i);
            bare_wait(&b->back[i & b->mask], i);
            sum += bare_read(&b->back[i & b->mask]);
        }
        uint64_t now = rf_clock_ticks();
        if (sample >= WARM_UP) bench_samples_add(b->out, (double)(now - before) * half);
        before = now;
    }
    b->sum += sum;
}

static void bounce_second(void *context)
{
    bounce_t *b = context;
    uint64_t sum = 0;
    for (uint64_t i = 1; i <= (uint64_t)b->samples * BENCH_ROUNDS_PER_SAMPLE; i++) {
        bare_wait(&b->there[i & b->mask], i);
        sum += bare_read(&b->there[i & b->mask]);
        bare_write(&b->back[i & b->mask], i);
    }
    b->sum += sum;
}

static bare_slot_t *bare_ring(unsigned slots)
{
    size_t size = slots * sizeof(bare_slot_t) < RF_PAGE ? RF_PAGE : slots * sizeof(bare_slot_t);
    bare_slot_t *ring = aligned_alloc(RF_PAGE, size);
    if (!ring) {
        fprintf(stderr, "rf-bench: no memory for a ring of %u slots\n", slots);
        return NULL;
    }
    memset(ring, 0, size);
    return ring;
}

bool raw_slot_bounce(const unsigned cores[2], unsigned slots, unsigned samples, bench_samples_t *out)
{
    bounce_t b = {.mask = slots - 1, .samples = samples + WARM_UP, .out = out};
    b.there = bare_ring(slots);
    b.back = bare_ring(slots);
    bool ok = b.there && b.back && bench_pair_run(cores, bounce_first, bounce_second, &b);
    free(b.there);
    free(b.back);
    return ok;
}

bool raw_line_bounce(const unsigned cores[2], unsigned samples, bench_samples_t *out)
{
    return raw_slot_bounce(cores, 1, samples, out);
}

/* ---- stream ---- */

typedef struct stream {
    rf_cache_aligned _Atomic(uint64_t) taken; /* written by the reader, once a quarter of the ring */
    bare_slot_t *ring;
    unsigned slots, chunks;
    bench_samples_t *out;
    _Atomic(uint64_t) sum;
} stream_t;

static void stream_writer(void *context)
{
    stream_t *s = context;
    uint64_t total = (uint64_t)s->chunks * CHUNK_SLOTS, limit = s->slots, mask = s->slots - 1;
    for (uint64_t i = 0; i < total; i++) {
        while (i == limit) limit = atomic_load_explicit(&s->taken, memory_order_acquire) + s->slots;
        bare_write_wide(&s->ring[i & mask], i + 1);
    }
}

static void stream_reader(void *context)
{
    stream_t *s = context;
    double ns_per_tick = bench_ns_per_tick();
    uint64_t mask = s->slots - 1, quarter = s->slots / 4, next = 0, sum = 0, before = rf_clock_ticks();
    for (unsigned chunk = 0; chunk < s->chunks; chunk++) {
        for (unsigned i = 0; i < CHUNK_SLOTS; i++, next++) {
            bare_slot_t *slot = &s->ring[next & mask];
            bare_wait(slot, next + 1);
            sum += bare_read(slot);
            if ((next + 1) % quarter == 0) atomic_store_explicit(&s->taken, next + 1, memory_order_release);
        }
        uint64_t now = rf_clock_ticks();
        if (chunk > 0)
            bench_samples_add(s->out, CHUNK_SLOTS * 1000.0 / ((double)(now - before) * ns_per_tick));
        before = now;
    }
    s->sum += sum;
}

bool raw_slot_stream(const unsigned cores[2], unsigned slots, unsigned chunks, bench_samples_t *out)
{
    stream_t s = {.slots = slots, .chunks = chunks + 1, .out = out};
    s.ring = bare_ring(slots);
    bool ok = s.ring && bench_pair_run(cores, stream_writer, stream_reader, &s);
    free(s.ring);
    return ok;
}

/* ---- futex ---- */

static void futex_wait(_Atomic(uint32_t) *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic(uint32_t) *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

typedef struct handover {
    rf_cache_aligned _Atomic(uint32_t) there;
    rf_cache_aligned _Atomic(uint32_t) back;
    unsigned rounds;
    bench_samples_t *out;
} handover_t;

static void handover_first(void *context)
{
    handover_t *h = context;
    double ns_per_tick = bench_ns_per_tick();
    for (uint32_t i = 1; i <= h->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        atomic_store(&h->there, i);
        futex_wake(&h->there);
        while (atomic_load(&h->back) != i) futex_wait(&h->back, i - 1);
        if (i > WARM_UP) bench_samples_add(h->out, (double)(rf_clock_ticks() - before) * ns_per_tick);
    }
}

static void handover_second(void *context)
{
    handover_t *h = context;
    for (uint32_t i = 1; i <= h->rounds; i++) {
        while (atomic_load(&h->there) != i) futex_wait(&h->there, i - 1);
        atomic_store(&h->back, i);
        futex_wake(&h->back);
    }
}

bool raw_futex_handover(unsigned core, unsigned rounds, bench_samples_t *out)
{
    handover_t h = {.rounds = rounds + WARM_UP, .out = out};
    unsigned cores[2] = {core, core};
    return bench_pair_run(cores, handover_first, handover_second, &h);
}

/* The waker gives the other side time to fall asleep; that it did cannot be seen, but it nearly always has. */
static void wake_first(void *context)
{
    enum { SLEEP_TICKS_US = 30 };
    handover_t *h = context;
    double ns_per_tick = bench_ns_per_tick();
    uint64_t pause_ticks = SLEEP_TICKS_US * rf_clock_ticks_per_us();
    for (uint32_t i = 1; i <= h->rounds; i++) {
        uint64_t start = rf_clock_ticks();
        while (rf_clock_ticks() - start < pause_ticks) rf_cpu_pause();
        uint64_t before = rf_clock_ticks();
        atomic_store(&h->there, i);
        futex_wake(&h->there);
        while (atomic_load_explicit(&h->back, memory_order_acquire) != i)
            ;
        bench_samples_add(h->out, (double)(rf_clock_ticks() - before) * ns_per_tick);
    }
}

static void wake_second(void *context)
{
    handover_t *h = context;
    for (uint32_t i = 1; i <= h->rounds; i++) {
        while (atomic_load(&h->there) != i) futex_wait(&h->there, i - 1);
        atomic_store_explicit(&h->back, i, memory_order_release);
    }
}

bool raw_futex_wake(const unsigned cores[2], unsigned rounds, bench_samples_t *out)
{
    handover_t h = {.rounds = rounds, .out = out};
    return bench_pair_run(cores, wake_first, wake_second, &h);
}

/* ---- system call ---- */

typedef struct alone {
    unsigned core, rounds;
    bench_samples_t *out;
    bool ok;
} alone_t;

static void *syscall_main(void *context)
{
    enum { CALLS_PER_SAMPLE = 16 };
    alone_t *a = context;
    a->ok = rf_cpu_pin(a->core) == RF_OK;
    double ns_per_call = bench_ns_per_tick() / CALLS_PER_SAMPLE;
    for (unsigned i = 0; a->ok && i < a->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        for (unsigned j = 0; j < CALLS_PER_SAMPLE; j++) syscall(SYS_getppid);
        bench_samples_add(a->out, (double)(rf_clock_ticks() - before) * ns_per_call);
    }
    return NULL;
}

/* In a thread of its own, so that the caller's CPUs stay as they are. */
static bool run_alone(void *(*body)(void *), unsigned core, unsigned rounds, bench_samples_t *out)
{
    alone_t a = {.core = core, .rounds = rounds, .out = out};
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, &a) != 0) return false;
    pthread_join(thread, NULL);
    return a.ok;
}

bool raw_syscall(unsigned core, unsigned rounds, bench_samples_t *out)
{
    return run_alone(syscall_main, core, rounds, out);
}

/* ---- spawn ---- */

static void *spawn_main(void *context)
{
    alone_t *a = context;
    a->ok = rf_cpu_pin(a->core) == RF_OK;
    double ns_per_tick = bench_ns_per_tick();
    char *const argv[] = {(char[]){"true"}, NULL};
    for (unsigned i = 0; a->ok && i < a->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        pid_t pid;
        int status;
        a->ok = posix_spawnp(&pid, "true", NULL, NULL, argv, environ) == 0 && waitpid(pid, &status, 0) == pid;
        if (a->ok) bench_samples_add(a->out, (double)(rf_clock_ticks() - before) * ns_per_tick);
    }
    return NULL;
}

bool raw_spawn_wait(unsigned core, unsigned rounds, bench_samples_t *out)
{
    return run_alone(spawn_main, core, rounds, out);
}
