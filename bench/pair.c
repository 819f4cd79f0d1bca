#include "pair.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/os.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct side {
    bench_side_fn run;
    void *context;
    unsigned core;
    _Atomic(unsigned) *ready; /* counts the sides that are pinned; SIDE_FAILED: give up */
} side_t;

#define SIDE_FAILED 0x100u

static void *side_main(void *argument)
{
    side_t *side = argument;
    if (rf_cpu_pin(side->core) != RF_OK) {
        fprintf(stderr, "rf-bench: CPU %u is not this process's to use: choose others with --cores\n",
                side->core);
        atomic_fetch_or(side->ready, SIDE_FAILED);
        return NULL;
    }
    atomic_fetch_add(side->ready, 1);
    unsigned ready;
    while ((ready = atomic_load(side->ready)) < 2) rf_cpu_pause();
    if (ready < SIDE_FAILED) side->run(side->context);
    return NULL;
}

bool bench_pair_run(const unsigned cores[2], bench_side_fn first, bench_side_fn second, void *context)
{
    _Atomic(unsigned) ready = 0;
    side_t sides[2] = {{first, context, cores[0], &ready}, {second, context, cores[1], &ready}};
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        if (pthread_create(&threads[i], NULL, side_main, &sides[i]) != 0) {
            fprintf(stderr, "rf-bench: cannot start a thread\n");
            atomic_fetch_or(&ready, SIDE_FAILED);
            for (unsigned j = 0; j < i; j++) pthread_join(threads[j], NULL);
            return false;
        }
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    return atomic_load(&ready) < SIDE_FAILED;
}

double bench_ns_per_tick(void)
{
    return 1000.0 / (double)rf_clock_ticks_per_us();
}
