#include "transport/ring.h"

#include <stdlib.h>

static bool power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

rf_err_t rf_ring_sizes(const rf_link_params_t *params, uint32_t *slots, uint32_t *slots_max)
{
    *slots = params->slots ? params->slots : RF_RING_SLOTS_MIN;
    *slots_max = params->slots_max ? params->slots_max : RF_RING_SLOTS_MAX_DEFAULT;
    if (*slots_max < *slots) *slots_max = *slots;
    bool right = power_of_two(*slots) && power_of_two(*slots_max) && *slots_max <= RF_RING_SLOTS_MAX;
    return right ? RF_OK : RF_ERR_INVALID;
}

bool rf_ring_resize(rf_slot_t **ring, uint32_t *ring_size, uint32_t size, uint64_t first, uint64_t end)
{
    rf_slot_t *fresh = aligned_alloc(sizeof *fresh, size * sizeof *fresh);
    if (!fresh) return false;
    for (uint64_t i = first; i < end; i++) fresh[i & (size - 1)] = (*ring)[i & (*ring_size - 1)];
    free(*ring);
    *ring = fresh;
    *ring_size = size;
    return true;
}
