/* A small seeded generator (xoshiro256**, Blackman and Vigna 2018, seeded by splitmix64). Not for secrets. */
#ifndef RF_BASE_PRNG_H
#define RF_BASE_PRNG_H

#include <stdint.h>

typedef struct rf_prng {
    uint64_t s[4];
} rf_prng_t;

void rf_prng_seed(rf_prng_t *prng, uint64_t seed);
uint64_t rf_prng_next(rf_prng_t *prng);

/* Uniform in [0, bound); bound > 0. */
uint64_t rf_prng_below(rf_prng_t *prng, uint64_t bound);

/* Uniform in [0, 1). */
double rf_prng_unit(rf_prng_t *prng);

/* Fills `bytes` with secrets from the kernel (getrandom). Aborts if the kernel has none. */
void rf_random_secret(void *bytes, uint64_t size);

#endif
