#include "cpudriver/share.h"

#define WEIGHT_PER_PERMILLE 10 /* 1000 permille are the largest weight of v2 */

bool rf_share_admits(uint32_t total, uint32_t old, uint32_t wanted)
{
    return wanted <= old || total - old + wanted <= RF_SHARE_RESERVED_MAX;
}

uint32_t rf_share_best_effort(uint32_t total)
{
    uint32_t left = total < 1000 ? 1000 - total : 0;
    return left > RF_SHARE_BEST_EFFORT_MIN ? left : RF_SHARE_BEST_EFFORT_MIN;
}

uint32_t rf_share_weight_permille(uint32_t permille)
{
    return permille * WEIGHT_PER_PERMILLE;
}

uint32_t rf_share_weight_best_effort(uint32_t weight)
{
    return weight * WEIGHT_PER_PERMILLE;
}

uint64_t rf_share_due(uint32_t total_reserved, uint32_t reserved_permille, uint32_t weight, uint32_t weights)
{
    if (reserved_permille > 0) return (uint64_t)reserved_permille * 1000;
    return weights == 0 ? 0 : (uint64_t)rf_share_best_effort(total_reserved) * 1000 * weight / weights;
}
