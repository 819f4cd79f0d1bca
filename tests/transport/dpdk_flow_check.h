/* What holds of a flow at any time, whatever its peer says. */
#ifndef RF_TESTS_TRANSPORT_DPDK_FLOW_CHECK_H
#define RF_TESTS_TRANSPORT_DPDK_FLOW_CHECK_H

#include "transport/dpdk/flow_internal.h"

static inline uint64_t flow_check_bits(const uint64_t *ring, uint64_t bits)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < bits / 64; i++) n += (uint64_t)__builtin_popcountll(ring[i]);
    return n;
}

static inline void flow_check(const rf_flow_t *flow)
{
    rf_assert(flow->base <= flow->sent && flow->sent <= flow->end &&
              flow->end - flow->base <= flow->send_slots);
    rf_assert(flow->sent <= flow->credit && flow->credit <= flow->sent + RF_FLOW_SLOTS_MAX);
    rf_assert(flow->n_acked == flow_check_bits(flow->acked, flow->send_slots));
    rf_assert(flow->n_lost == flow_check_bits(flow->lost, flow->send_slots));
    rf_assert(flow->n_acked + flow->n_lost <= flow->sent - flow->base);
    rf_assert(flow->n_acked == 0 || !flow_bit(flow->acked, flow->send_slots, flow->base));

    rf_assert(flow->taken <= flow->next && flow->next <= flow->credit_said);
    rf_assert(flow->beyond <= flow->credit_said && flow->credit_said <= flow->taken + flow->receive_slots);
    rf_assert(!flow_bit(flow->seen, flow->receive_slots, flow->next) ||
              flow->next - flow->taken == flow->receive_slots);

    uint32_t frames = 0, bytes = 0;
    for (unsigned i = 0; i < RF_FLOW_PACKETS_MAX; i++) {
        if (flow->packets[i].state != FLOW_PACKET_IN_FLIGHT) continue;
        frames++;
        bytes += flow->packets[i].bytes;
    }
    rf_assert(frames == flow->in_flight && bytes == flow->in_flight_bytes);
    rf_assert(flow->oldest <= flow->number && flow->acked_top <= flow->number);
    rf_assert(flow->window > 0 && flow->frame_slots >= flow->frame_slots_safe &&
              flow->frame_slots <= flow->frame_slots_max);
}

#endif
