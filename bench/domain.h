/*
 * Benches that run inside a machine: rf-bench is a domain of it, and spans itself to where its peer has to be. Started outside, it
 * starts itself inside, with `rackfish run --core 0`.
 *
 *   dispatcher 0   runs the bench: bench_domain_enter(), then bench_domain_peer()
 *   dispatcher 1   is a peer: bench_domain_enter() serves, and does not return
 */
#ifndef RF_BENCH_DOMAIN_H
#define RF_BENCH_DOMAIN_H

#include "bench.h"

#include "base/memory.h"

#include <rackfish.h>

#define BENCH_DOMAIN_MS 20000 /* for anything that should be quick */

/* Message types between a bench and its peer. */
enum {
    BENCH_ECHO = 1, /* comes back as it is */
    BENCH_SINK = 2, /* taken, not answered */
    BENCH_SUNK =
        3, /* 8 bytes: how many SINKs to expect, counted from here; answered by an empty one when all are there */
    BENCH_HANDOVER =
        4, /* bench_handover_t: hands the core over and back by bare futexes; answered first by an empty one */
};

typedef struct bench_handover {
    uint32_t rounds;
    char path[60]; /* of the memory */
} bench_handover_t;

/* The memory of a bare hand-over: one word each way. */
typedef struct bench_words {
    rf_cache_aligned _Atomic(uint32_t) there;
    rf_cache_aligned _Atomic(uint32_t) back;
} bench_words_t;

void bench_words_give(_Atomic(uint32_t) *word, uint32_t value);
void bench_words_take(_Atomic(uint32_t) *word, uint32_t value); /* whose last value was one less */
/* Hands back what it is handed, `rounds` times. */
void bench_words_answer(bench_words_t *words, uint32_t rounds);

/* Joins the machine. RF_OK in dispatcher 0; a peer serves and exits; outside a machine the process is replaced by `rackfish run`. */
rf_err_t bench_domain_enter(const bench_options_t *options);

/* Starts a peer on `core` and connects it. */
rf_err_t bench_domain_peer(rf_core_t core, rf_channel_t **out);

/* The CPUs of two cores; false, with a message, when there is no such core, or both share one CPU. */
bool bench_domain_cpus(rf_core_t first, rf_core_t second, unsigned cpus[2]);

#endif
