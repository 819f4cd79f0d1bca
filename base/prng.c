#include "base/prng.h"

#include "base/assert.h"

#include <errno.h>
#include <sys/random.h>

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void rf_prng_seed(rf_prng_t *prng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        prng->s[i] = z ^ (z >> 31);
    }
}

uint64_t rf_prng_next(rf_prng_t *prng)
{
    uint64_t *s = prng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rf_prng_below(rf_prng_t *prng, uint64_t bound)
{
    rf_assert(bound > 0);
    return (uint64_t)(((unsigned __int128)rf_prng_next(prng) * bound) >> 64);
}

double rf_prng_unit(rf_prng_t *prng)
{
    return (double)(rf_prng_next(prng) >> 11) * 0x1.0p-53;
}

void rf_random_secret(void *bytes, uint64_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0 && errno == EINTR) continue;
        rf_assert(got > 0);
        at += got;
        size -= (uint64_t)got;
    }
}
