/* A flow's life, its two windows, and what it counts. */
#include "transport/dpdk/flow_internal.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_ACK_DELAY_NS    (200 * RF_NS_PER_US)
#define DEFAULT_PROBE_MIN_NS    (100 * RF_NS_PER_US)
#define DEFAULT_DELAY_TARGET_NS (50 * RF_NS_PER_US)
#define TIME_MAX_NS             (3600 * RF_NS_PER_S) /* of any parameter: sums stay far from overflow */

static bool window_valid(uint32_t slots)
{
    return slots >= RF_FLOW_SLOTS_MIN && slots <= RF_FLOW_SLOTS_MAX && (slots & (slots - 1)) == 0;
}

static bool params_valid(const rf_flow_params_t *p)
{
    uint32_t safe = p->frame_safe ? p->frame_safe : RF_FLOW_FRAME_MIN;
    return p->seal <= RF_SEAL_ENCRYPT && window_valid(p->send_slots) && window_valid(p->receive_slots) &&
           p->credit <= RF_FLOW_SLOTS_MAX && safe >= RF_FLOW_FRAME_MIN && p->frame_max >= safe &&
           p->frame_max <= RF_FLOW_FRAME_MAX && p->deadline_ns >= RF_NS_PER_MS &&
           p->deadline_ns <= TIME_MAX_NS && p->ack_delay_ns <= p->deadline_ns / 8 &&
           p->probe_min_ns <= p->deadline_ns / 8 && p->delay_target_ns <= TIME_MAX_NS;
}

static size_t align_line(size_t size)
{
    return (size + RF_CACHE_LINE - 1) / RF_CACHE_LINE * RF_CACHE_LINE;
}

/* Where the arrays stand behind the flow; with NULL only the size. */
static size_t lay_out(rf_flow_t *flow, uint32_t send_slots, uint32_t receive_slots)
{
    size_t send = align_line(sizeof *flow);
    size_t receive = send + send_slots * sizeof(rf_slot_t);
    size_t packets = receive + receive_slots * sizeof(rf_slot_t);
    size_t acked = packets + RF_FLOW_PACKETS_MAX * sizeof(flow_packet_t);
    size_t lost = acked + send_slots / 8, seen = lost + send_slots / 8;
    size_t size = align_line(seen + receive_slots / 8);
    if (flow) {
        uint8_t *bytes = (uint8_t *)flow;
        flow->send = (rf_slot_t *)(bytes + send);
        flow->receive = (rf_slot_t *)(bytes + receive);
        flow->packets = (flow_packet_t *)(bytes + packets);
        flow->acked = (uint64_t *)(bytes + acked);
        flow->lost = (uint64_t *)(bytes + lost);
        flow->seen = (uint64_t *)(bytes + seen);
        flow->memory_size = size;
    }
    return size;
}

rf_err_t rf_flow_open(const rf_flow_params_t *p, uint64_t now_ns, rf_flow_t **out)
{
    if (!params_valid(p)) return RF_ERR_INVALID;
    size_t size = lay_out(NULL, p->send_slots, p->receive_slots);
    rf_flow_t *flow = aligned_alloc(RF_CACHE_LINE, size);
    if (!flow) return RF_ERR_NO_MEMORY;
    memset(flow, 0, size);
    lay_out(flow, p->send_slots, p->receive_slots);
    flow->id = p->id;
    flow->id_peer = p->id_peer;
    flow->send_slots = p->send_slots;
    flow->receive_slots = p->receive_slots;
    flow->credit = p->credit;
    flow->credit_said = p->receive_slots; /* by our offer */
    flow->reorder = FLOW_REORDER_MIN;
    flow->loss_ns = flow->ack_ns = flow->owed_ns = RF_NEVER;
    flow->heard_ns = flow->called_ns = now_ns;
    flow->deadline_ns = p->deadline_ns;
    flow->ack_delay_ns =
        p->ack_delay_ns ? p->ack_delay_ns : flow_min(DEFAULT_ACK_DELAY_NS, p->deadline_ns / 8);
    flow->probe_min_ns =
        p->probe_min_ns ? p->probe_min_ns : flow_min(DEFAULT_PROBE_MIN_NS, p->deadline_ns / 8);
    flow->delay_target_ns = p->delay_target_ns ? p->delay_target_ns : DEFAULT_DELAY_TARGET_NS;
    flow->frame_slots_safe =
        ((p->frame_safe ? p->frame_safe : RF_FLOW_FRAME_MIN) - RF_FLOW_OVERHEAD) / sizeof(rf_slot_t);
    flow->frame_slots_max = (p->frame_max - RF_FLOW_OVERHEAD) / sizeof(rf_slot_t);
    flow->frame_slots = flow->frame_slots_safe;
    flow_swift_init(flow);
    rf_err_t err = seal_sealer_init(&flow->sealer, p->seal, p->secret, p->dialer);
    if (err == RF_OK) err = seal_opener_init(&flow->opener, p->seal, p->secret, !p->dialer);
    if (err != RF_OK) {
        rf_flow_close(flow);
        return err;
    }
    *out = flow;
    return RF_OK;
}

void rf_flow_close(rf_flow_t *flow)
{
    if (!flow) return;
    seal_sealer_end(&flow->sealer);
    seal_opener_end(&flow->opener);
    free(flow);
}

/* How many of the slots from `number` on, at most `n`, stand side by side in a window. */
static unsigned side_by_side(uint64_t number, uint64_t n, uint32_t window)
{
    return (unsigned)flow_min(n, window - (number & (window - 1)));
}

unsigned rf_flow_send_span(rf_flow_t *flow, rf_slot_t **slots)
{
    *slots = &flow->send[flow->end & (flow->send_slots - 1)];
    return side_by_side(flow->end, flow->base + flow->send_slots - flow->end, flow->send_slots);
}

void rf_flow_send_commit(rf_flow_t *flow, unsigned n)
{
    rf_debug(flow->end + n <= flow->base + flow->send_slots);
    flow->end += n;
    if (n > 0 && flow->over == RF_OK) flow->next_ns = 0;
}

unsigned rf_flow_take_span(rf_flow_t *flow, const rf_slot_t **slots)
{
    *slots = &flow->receive[flow->taken & (flow->receive_slots - 1)];
    return side_by_side(flow->taken, flow->next - flow->taken, flow->receive_slots);
}

/* The peer is told of new credit when it has used half of what it knew, a quarter of a window at a time. */
static void credit_tell(rf_flow_t *flow)
{
    uint64_t credit = flow->taken + flow->receive_slots;
    if (flow->credit_said - flow->next >= flow->receive_slots / 2 ||
        credit - flow->credit_said < flow->receive_slots / 4 || flow->over != RF_OK)
        return;
    /* Where it is owed an acknowledgement, it will ask again if that is lost; else the news is owed one itself. */
    if (flow->unacked > 0)
        flow->ack_ns = 0;
    else
        flow->ping = true;
    flow->next_ns = 0;
}

bool rf_flow_take_commit(rf_flow_t *flow, unsigned n)
{
    rf_debug(flow->taken + n <= flow->next);
    flow->taken += n;
    credit_tell(flow);
    return flow->taken < flow->next;
}

uint64_t rf_flow_next_ns(const rf_flow_t *flow)
{
    return flow->next_ns;
}

void rf_flow_watch(rf_flow_t *flow, bool on, uint64_t now_ns)
{
    if (flow->watch == on || flow->over != RF_OK) return;
    flow->watch = on;
    flow->heard_ns = flow_max(flow->heard_ns, now_ns - flow_min(now_ns, flow->deadline_ns / 4));
    flow->next_ns = 0;
}

rf_err_t rf_flow_state(const rf_flow_t *flow)
{
    return flow->over;
}

bool rf_flow_drained(const rf_flow_t *flow)
{
    return flow->base == flow->end;
}

void rf_flow_stats(const rf_flow_t *flow, rf_flow_stats_t *out)
{
    *out = flow->stats;
    out->rtt_ns = flow->rtt_ns;
    out->rtt_var_ns = flow->rtt_var_ns;
    out->rtt_min_ns = flow->rtt_least_ns;
    out->window_bytes = (uint32_t)(flow->window >> 8);
    out->in_flight_bytes = flow->in_flight_bytes;
    out->frame_bytes = flow_frame_bytes(flow->frame_slots);
    out->slots_waiting = (uint32_t)(flow->end - flow->sent);
    out->slots_unacked = (uint32_t)(flow->sent - flow->base);
}
