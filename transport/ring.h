/*
 * The ring of slots that a sender keeps until their receiver's owner has taken them, for media whose ring is their own memory:
 * a power of two of slots, which keep their numbers, the count of slots since the link began, when the ring grows.
 */
#ifndef RF_TRANSPORT_RING_H
#define RF_TRANSPORT_RING_H

#include "transport/transport.h"

#include <string.h>

#define RF_RING_SLOTS_MAX_DEFAULT 4096

/* What a link's parameters ask for: slots to start with, and at most. RF_ERR_INVALID: no power of two, or too many. Pure. */
rf_err_t rf_ring_sizes(const rf_link_params_t *params, uint32_t *slots, uint32_t *slots_max);

/* Moves the slots [first, end) to a ring of `size`; *ring (NULL: none yet) is freed. False: no memory; nothing has changed. */
bool rf_ring_resize(rf_slot_t **ring, uint32_t *ring_size, uint32_t size, uint64_t first, uint64_t end);

/* What size, at most `size_max`, a ring has to have for `want` slots more than the `used` ones. */
static inline uint32_t rf_ring_size_for(uint32_t size, uint32_t size_max, uint32_t used, unsigned want)
{
    while (size - used < want && size < size_max) size *= 2;
    return size;
}

/* Slots between memory of this process's own, at any address: one, as they mostly come, is copied here, many by the library. */
static inline void rf_slots_copy(void *to, const void *from, size_t n)
{
    if (n == 1)
        memcpy(to, from, sizeof(rf_slot_t));
    else
        memcpy(to, from, n * sizeof(rf_slot_t));
}

/* Copies slots in, from number `at` on; of their control words, what is their caller's. */
static inline void rf_ring_put(rf_slot_t *ring, uint32_t size, uint64_t at, const rf_slot_t *slots,
                               unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rf_slot_t *to = &ring[(at + i) & (size - 1)];
        memcpy(to->words, slots[i].words, sizeof to->words);
        to->control = slots[i].control & RF_CONTROL_CALLERS;
    }
}

#endif
