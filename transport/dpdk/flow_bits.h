/* A ring of bits, one for each number of a window: bit `number & (bits - 1)`; `bits` is a power of two from 64. */
#ifndef RF_TRANSPORT_DPDK_FLOW_BITS_H
#define RF_TRANSPORT_DPDK_FLOW_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool flow_bit(const uint64_t *ring, uint64_t bits, uint64_t number)
{
    return ring[(number & (bits - 1)) / 64] >> (number % 64) & 1;
}

static inline void flow_bit_set(uint64_t *ring, uint64_t bits, uint64_t number)
{
    ring[(number & (bits - 1)) / 64] |= 1ull << (number % 64);
}

/* The bits from `from` on, up to `to` or the end of their word: *n of them, of which the set ones are returned. */
static inline uint64_t flow_bits_mask(uint64_t from, uint64_t to, uint64_t *n)
{
    uint64_t offset = from % 64, room = 64 - offset;
    *n = to - from < room ? to - from : room;
    return (*n == 64 ? ~0ull : (1ull << *n) - 1) << offset;
}

/* Clears [from, to), and says how many bits were set there. */
static inline uint64_t flow_bits_clear(uint64_t *ring, uint64_t bits, uint64_t from, uint64_t to)
{
    uint64_t cleared = 0, n;
    for (; from < to; from += n) {
        uint64_t mask = flow_bits_mask(from, to, &n), *word = &ring[(from & (bits - 1)) / 64];
        cleared += (uint64_t)__builtin_popcountll(*word & mask);
        *word &= ~mask;
    }
    return cleared;
}

/* The first number in [from, to) whose bit is `value`; `to` when there is none. */
static inline uint64_t flow_bits_find(const uint64_t *ring, uint64_t bits, uint64_t from, uint64_t to,
                                      bool value)
{
    uint64_t n;
    for (; from < to; from += n) {
        uint64_t mask = flow_bits_mask(from, to, &n), word = ring[(from & (bits - 1)) / 64];
        uint64_t found = (value ? word : ~word) & mask;
        if (found) return from - from % 64 + (uint64_t)__builtin_ctzll(found);
    }
    return to;
}

/* Sets those bits of [from, to) in `ring` that are clear in `except` (which may be NULL); how many were clear before. */
static inline uint64_t flow_bits_set(uint64_t *ring, const uint64_t *except, uint64_t bits, uint64_t from,
                                     uint64_t to)
{
    uint64_t fresh = 0, n;
    for (; from < to; from += n) {
        uint64_t index = (from & (bits - 1)) / 64, mask = flow_bits_mask(from, to, &n);
        if (except) mask &= ~except[index];
        fresh += (uint64_t)__builtin_popcountll(mask & ~ring[index]);
        ring[index] |= mask;
    }
    return fresh;
}

#endif
