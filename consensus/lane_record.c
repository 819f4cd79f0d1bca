/* Records of a lane: where they begin, and whether all of one is there. Words are read one by one, each whole: what lies there
 * may be changing, by a device, in any order. */
#include "consensus/lane.h"

/* Each word depends on all before it; a part that is of another time gives the same only by a chance of 2^-64. */
static uint64_t fold(uint64_t hash, uint64_t word)
{
    unsigned __int128 product =
        (unsigned __int128)(hash ^ word ^ 0x9e3779b97f4a7c15ull) * 0xd6e8feb86659fd93ull;
    return (uint64_t)product ^ (uint64_t)(product >> 64) ^ (hash << 1 | hash >> 63);
}

uint64_t lane_seed(const agreement_t *e, agreement_member_t owner, agreement_member_t leader, uint64_t id,
                   uint64_t term)
{
    uint64_t words[sizeof(rf_machine_id_t) / 8], hash = id;
    memcpy(words, e->params.machine.bytes, sizeof words);
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) hash = fold(hash, words[i]);
    hash = fold(hash, (uint64_t)owner.core << 32 | owner.incarnation);
    hash = fold(hash, (uint64_t)leader.core << 32 | leader.incarnation);
    return fold(hash, term);
}

/* The checksum's own place counts as the seed. */
static uint64_t checksum(const uint64_t *words, size_t n, uint64_t seed)
{
    uint64_t hash = fold(seed, words[0]);
    for (size_t i = 2; i < n; i++) hash = fold(hash, words[i]);
    return hash;
}

uint64_t lane_record_start(unsigned lane_lines, uint64_t lines)
{
    uint64_t left = lane_lines - (lines & (lane_lines - 1));
    return left < LANE_RECORD_LINES ? lines + left : lines;
}

uint32_t lane_record_end(lane_record_t *record, uint64_t line, uint64_t seed)
{
    rf_assert(record->size <= LANE_ENTRIES_MAX && record->size % 8 == 0);
    uint32_t used = (uint32_t)sizeof *record + record->size;
    uint32_t bytes = (uint32_t)lane_record_lines(record->size) * AGREEMENT_LANE_LINE;
    memset((uint8_t *)record + used, 0, bytes - used);
    record->line = line + 1;
    record->checksum = checksum((const uint64_t *)(const void *)record, bytes / 8, seed);
    return bytes;
}

bool lane_record_read(const uint64_t *lane, unsigned lane_lines, uint64_t start, uint64_t seed, bool torn,
                      lane_record_t *out)
{
    const uint64_t *from = lane + (start & (lane_lines - 1)) * (AGREEMENT_LANE_LINE / 8);
    uint64_t *to = (uint64_t *)(void *)out;
    if (__atomic_load_n(from, __ATOMIC_ACQUIRE) != start + 1) return false;
    for (size_t i = 0; i < sizeof *out / 8; i++) to[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    if (out->line != start + 1 || out->size > LANE_ENTRIES_MAX || out->size % 8 != 0) return false;
    size_t words = lane_record_lines(out->size) * (AGREEMENT_LANE_LINE / 8);
    for (size_t i = sizeof *out / 8; i < words; i++) to[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    return torn || out->checksum == checksum(to, words, seed);
}
