/*
 * Frames acknowledged and lost, round trips, probes, and the peer's death, after RFC 9002 (QUIC).
 *
 * Numbers are never used twice, so an acknowledgement says which sending it means, and every one is a measurement
 * (RFC 9002, 3). A frame is lost when others sent later came before it: `reorder` of them, or any after 9/8 of a round trip
 * (6.1). Where nothing comes at all, a probe goes after a while (6.2): new slots, or the first that is not acknowledged, or a PING;
 * only what its acknowledgement says is then lost. The first timeouts are equally long, and only those behind them twice as long each
 * (6.2.1 doubles at once): a burst of losses takes a window's end with the acknowledgements, and what is left of it takes probes; two
 * frames a round trip or so are less than any window. A peer that was asked acknowledges at once, so that its delay is no part of them.
 */
#include "transport/dpdk/flow_internal.h"

#define PROBE_FIRST_NS        RF_NS_PER_MS /* while no round trip was measured */
#define PROBES_STEADY         10u /* so many timeouts in a row are equally long, then each is twice the one before */
#define PROBES_SILENCE        (PROBES_STEADY + 2) /* so many in a row: the path has changed */
#define MTU_AGAIN_NS          (10 * RF_NS_PER_MS)
#define BLACK_HOLE_FRAMES     5u /* so many large frames lost in a row, and none acknowledged */
#define LOSS_TIME_MIN_DIVISOR 4  /* of probe_min_ns: the least time that a frame may be overtaken */

/* Base goes on over what is acknowledged. */
static void base_set(rf_flow_t *flow, uint64_t to)
{
    if (flow->n_acked > 0) flow->n_acked -= flow_bits_clear(flow->acked, flow->send_slots, flow->base, to);
    if (flow->n_lost > 0) flow->n_lost -= flow_bits_clear(flow->lost, flow->send_slots, flow->base, to);
    flow->base = to;
}

void flow_loss_advance_over(rf_flow_t *flow, uint64_t next)
{
    base_set(flow, next);
    if (flow->n_acked > 0)
        base_set(flow, flow_bits_find(flow->acked, flow->send_slots, flow->base, flow->sent, false));
}

static void slots_acked(rf_flow_t *flow, const flow_packet_t *packet)
{
    uint64_t from = flow_max(packet->first, flow->base), to = packet->first + packet->slots;
    if (from >= to) return;
    if (from == flow->base) {
        flow_loss_advance(flow, to);
        return;
    }
    flow->n_acked += flow_bits_set(flow->acked, NULL, flow->send_slots, from, to);
    if (flow->n_lost > 0) flow->n_lost -= flow_bits_clear(flow->lost, flow->send_slots, from, to);
}

static void leaves_flight(rf_flow_t *flow, const flow_packet_t *packet)
{
    flow->in_flight--;
    flow->in_flight_bytes -= packet->bytes;
    if (packet->flags & FLOW_FRAME_PAD) flow->mtu_in_flight = false;
}

static bool is_large(const rf_flow_t *flow, const flow_packet_t *packet)
{
    return packet->bytes > flow_frame_bytes(flow->frame_slots_safe);
}

/* RFC 8899, 4.3: larger frames got through, and do not any more. */
static void large_lost(rf_flow_t *flow, uint64_t now_ns)
{
    if (++flow->large_lost < BLACK_HOLE_FRAMES) return;
    flow->large_lost = 0;
    flow->frame_slots = flow->frame_slots_safe;
    flow->mtu_tries = 0;
    flow->mtu_ns = now_ns + MTU_AGAIN_NS;
}

static void packet_lost(rf_flow_t *flow, flow_packet_t *packet, uint64_t now_ns)
{
    leaves_flight(flow, packet);
    packet->state = FLOW_PACKET_LOST;
    if (packet->flags & FLOW_FRAME_PAD) { /* too large for the path, perhaps: no sign of congestion */
        flow->mtu_tries++;
        flow->mtu_ns = now_ns + flow->rtt_ns;
        return;
    }
    if (packet->flags & FLOW_FRAME_PING) flow->ping = true;
    uint64_t from = flow_max(packet->first, flow->base), to = packet->first + packet->slots;
    if (packet->slots > 0 && from >= to) return; /* it came: only the acknowledgement was lost */
    flow->n_lost += flow_bits_set(flow->lost, flow->acked, flow->send_slots, from, to);
    flow->stats.frames_lost++;
    flow_swift_lost(flow, packet->bytes);
    if (is_large(flow, packet)) large_lost(flow, now_ns);
}

static void oldest_set(rf_flow_t *flow)
{
    while (flow->oldest < flow->number && flow_packet(flow, flow->oldest)->state != FLOW_PACKET_IN_FLIGHT)
        flow->oldest++;
}

/* Which of those that were overtaken are lost; when the next one will be. */
static void detect(rf_flow_t *flow, uint64_t now_ns)
{
    uint64_t wait = flow_max(flow->rtt_ns + flow->rtt_ns / 8, flow->probe_min_ns / LOSS_TIME_MIN_DIVISOR);
    if (flow->reorder > FLOW_REORDER_MIN)
        wait += flow->rtt_ns; /* a path that reorders gets more time, RFC 8985, 3.3.2 */
    flow->loss_ns = RF_NEVER;
    for (uint64_t number = flow->oldest; number < flow->acked_top; number++) {
        flow_packet_t *packet = flow_packet(flow, number);
        if (packet->state != FLOW_PACKET_IN_FLIGHT) continue;
        if (number + flow->reorder < flow->acked_top || packet->sent_ns + wait <= now_ns)
            packet_lost(flow, packet, now_ns);
        else
            flow->loss_ns = flow_min(flow->loss_ns, packet->sent_ns + wait);
    }
    oldest_set(flow);
}

/* RFC 9002, 5.3. */
static void rtt_measured(rf_flow_t *flow, uint64_t rtt_ns)
{
    if (flow->rtt_ns == 0) {
        flow->rtt_ns = rtt_ns;
        flow->rtt_var_ns = rtt_ns / 2;
        return;
    }
    uint64_t off = rtt_ns > flow->rtt_ns ? rtt_ns - flow->rtt_ns : flow->rtt_ns - rtt_ns;
    flow->rtt_var_ns = (3 * flow->rtt_var_ns + off) / 4;
    flow->rtt_ns = (7 * flow->rtt_ns + rtt_ns) / 8;
}

/* It was held for lost and had come, late: frames overtake each other more than was thought (RFC 8985, 3.3.2). */
static void spurious(rf_flow_t *flow, const flow_packet_t *packet, uint64_t number)
{
    flow->stats.frames_spurious++;
    uint64_t behind = flow->acked_top - number;
    flow->reorder = (uint32_t)flow_min(flow_max(flow->reorder, behind + 1), FLOW_REORDER_MAX);
    flow_swift_unlost(flow, packet->bytes);
}

/* Frames from this number on have their entry; below, it is another's. */
static uint64_t remembered(const rf_flow_t *flow)
{
    return flow->number - flow_min(flow->number, RF_FLOW_PACKETS_MAX);
}

/* Returns the bytes that were in flight. */
static uint32_t packet_acked(rf_flow_t *flow, uint64_t number)
{
    flow_packet_t *packet = flow_packet(flow, number);
    uint32_t bytes = 0;
    if (packet->state == FLOW_PACKET_NONE) return 0;
    if (packet->state == FLOW_PACKET_IN_FLIGHT) {
        leaves_flight(flow, packet);
        bytes = packet->bytes;
    } else {
        spurious(flow, packet, number);
    }
    packet->state = FLOW_PACKET_NONE;
    if (is_large(flow, packet)) flow->large_lost = 0;
    if (packet->flags & FLOW_FRAME_PAD)
        flow->frame_slots = (uint32_t)flow_max(flow->frame_slots, packet->slots);
    else
        slots_acked(flow, packet);
    return bytes;
}

/* The bits of `before` that are news: acked_before is moved to where `top` stands. */
static uint64_t news(const rf_flow_t *flow, uint64_t top, uint64_t before)
{
    uint64_t ahead = top - flow->acked_top, known = 0;
    if (ahead < 64) known = flow->acked_before >> ahead;
    if (ahead >= 1 && ahead <= 64 && flow->acked_top > 0) known |= 1ull << (64 - ahead);
    return before & ~known;
}

/* Returns the bytes that were in flight, and a round trip if one was measured. */
static uint32_t frames_acked(rf_flow_t *flow, const flow_acks_t *acks, uint64_t *rtt_ns)
{
    uint64_t top = acks->top, fresh = news(flow, top, acks->before);
    uint32_t bytes = 0;
    bool further = top > flow->acked_top;
    flow->acked_top = top;
    flow->acked_before = acks->before;
    if (further && top - 1 >= remembered(flow)) {
        const flow_packet_t *packet = flow_packet(flow, top - 1);
        if (packet->state == FLOW_PACKET_IN_FLIGHT) {
            uint64_t passed = acks->came_ns - packet->sent_ns;
            *rtt_ns = flow_max(passed - flow_min(acks->ack_delay_ns, passed), 1);
            rtt_measured(flow, *rtt_ns);
        }
        bytes += packet_acked(flow, top - 1);
    }
    for (; fresh; fresh &= fresh - 1) {
        uint64_t number = top - 65 + (uint64_t)__builtin_ctzll(fresh);
        if (number >= remembered(flow)) bytes += packet_acked(flow, number);
    }
    return bytes;
}

void flow_loss_acks(rf_flow_t *flow)
{
    const flow_acks_t acks = flow->acks;
    uint64_t rtt_ns = 0;
    flow->acks.top = 0;
    if (acks.top < flow->acked_top) return; /* overtaken by a later word */
    uint32_t bytes = frames_acked(flow, &acks, &rtt_ns);
    if (flow->in_flight == 0) flow->owed_ns = RF_NEVER;
    if (bytes == 0) return;
    flow->probe_count = 0;
    oldest_set(flow);
    if (flow->oldest < flow->acked_top)
        detect(flow, acks.came_ns);
    else
        flow->loss_ns = RF_NEVER;
    flow_swift_acked(flow, &acks, bytes, rtt_ns);
}

flow_packet_t *flow_loss_entry(rf_flow_t *flow, uint64_t now_ns)
{
    flow_packet_t *packet = flow_packet(flow, flow->number);
    if (packet->state == FLOW_PACKET_IN_FLIGHT) {
        packet_lost(flow, packet, now_ns);
        packet->state = FLOW_PACKET_NONE;
        oldest_set(flow);
    }
    return packet;
}

/* RFC 9002, 6.2.1, in microseconds; an eighth of the deadline at most, so that several go before it. */
static uint64_t probe_ns(const rf_flow_t *flow)
{
    uint64_t wait = PROBE_FIRST_NS;
    if (flow->rtt_ns > 0)
        wait = flow_max(flow->rtt_ns + 4 * flow->rtt_var_ns, flow->probe_min_ns) +
               (flow->asked_top > flow->acked_top ? 0 : flow->ack_delay_ns);
    if (flow->probe_count > PROBES_STEADY) wait <<= flow_min(flow->probe_count - PROBES_STEADY, 20);
    return flow->last_owed_ns + flow_min(wait, flow->deadline_ns / 8);
}

static bool waits_for_peer(const rf_flow_t *flow)
{
    return flow->watch || (flow->sent < flow->end && flow->sent >= flow->credit && flow->n_lost == 0);
}

uint64_t flow_loss_next_ns(const rf_flow_t *flow)
{
    uint64_t next_ns = flow->loss_ns;
    if (flow->owed_ns != RF_NEVER) next_ns = flow_min(next_ns, flow->owed_ns + flow->deadline_ns);
    if (flow->in_flight > 0)
        next_ns = flow_min(next_ns, probe_ns(flow));
    else if (waits_for_peer(flow))
        next_ns = flow_min(next_ns, flow->heard_ns + flow->deadline_ns / 4);
    return next_ns;
}

/* Silence only counts while somebody listened: a driver that was stopped must not find all peers dead. */
void flow_loss_listened(rf_flow_t *flow, uint64_t now_ns)
{
    uint64_t away = now_ns - flow->called_ns;
    if (flow->owed_ns != RF_NEVER && away > flow->deadline_ns / 4) flow->owed_ns += away;
    flow->called_ns = now_ns;
}

static void probe(rf_flow_t *flow, uint64_t now_ns)
{
    flow->probe_count++;
    flow->probes = flow->probe_count > 1 ? 2 : 1; /* RFC 9002, 6.2.4 */
    if (flow->probe_count == PROBES_SILENCE) flow_swift_silence(flow, now_ns);
}

void flow_loss_timers(rf_flow_t *flow, uint64_t now_ns)
{
    if (flow->owed_ns != RF_NEVER && now_ns >= flow->owed_ns + flow->deadline_ns) {
        flow->over = RF_ERR_PEER_DEAD;
        return;
    }
    if (flow->loss_ns <= now_ns) detect(flow, now_ns);
    if (flow->in_flight > 0) {
        if (flow->probes == 0 && now_ns >= probe_ns(flow)) probe(flow, now_ns);
    } else if (!flow->ping && waits_for_peer(flow) && now_ns >= flow->heard_ns + flow->deadline_ns / 4) {
        flow->ping = true;
    }
}
