/*
 * What is sent next. In this order: slots to be sent again, slots that were never sent, a probe, a frame that tries the path's
 * MTU, a PING, an acknowledgement alone. Whatever it is, it carries acknowledgement and credit of the moment.
 *
 * What the peer acknowledges is bookkeeping: while the window is open anyway, it is done behind the slots that leave meanwhile.
 */
#include "transport/dpdk/flow_internal.h"

#include <string.h>

#define NUMBER_MAX (1ull << 56) /* epochs and sums stay far from wrapping */

/* A frame that is about to be made. */
typedef struct draft {
    uint64_t first;
    uint32_t slots, units; /* the same, but for PAD */
    uint8_t flags;
} draft_t;

/* What a frame may hold: after a probe that was not answered the next is of a size that the path surely takes. */
static uint64_t slots_max(const rf_flow_t *flow)
{
    return flow->probe_count > 1 ? flow->frame_slots_safe : flow->frame_slots;
}

/* Slots to be sent again, side by side. */
static void draft_again(const rf_flow_t *flow, draft_t *draft)
{
    draft->first = flow_bits_find(flow->lost, flow->send_slots, flow->base, flow->sent, true);
    uint64_t end = flow_min(draft->first + slots_max(flow), flow->sent);
    draft->slots =
        (uint32_t)(flow_bits_find(flow->lost, flow->send_slots, draft->first, end, false) - draft->first);
}

static void draft_new(const rf_flow_t *flow, draft_t *draft)
{
    draft->first = flow->sent;
    draft->slots = (uint32_t)flow_min(flow_min(flow->end, flow->credit) - flow->sent, slots_max(flow));
}

/* The first slots that are not acknowledged, whether they are on their way or not; they begin at `base`. */
static void draft_unacked(const rf_flow_t *flow, draft_t *draft)
{
    uint64_t end = flow_min(flow->base + slots_max(flow), flow->sent);
    if (flow->n_acked > 0) end = flow_bits_find(flow->acked, flow->send_slots, flow->base, end, true);
    draft->first = flow->base;
    draft->slots = (uint32_t)(end - flow->base);
}

/* There is an entry for one more frame. */
static bool remembers(const rf_flow_t *flow)
{
    return flow->in_flight == 0 || flow->number - flow->oldest < RF_FLOW_PACKETS_MAX / 2;
}

static bool may_leave(const rf_flow_t *flow, const draft_t *draft, uint64_t now_ns)
{
    if (flow->probes > 0) return true;
    return remembers(flow) && flow_swift_allows(flow, flow_frame_bytes(draft->slots), now_ns);
}

static bool sends_slots(rf_flow_t *flow, draft_t *draft, uint64_t now_ns)
{
    if (flow->n_lost > 0)
        draft_again(flow, draft);
    else if (flow->sent < flow->end && flow->sent < flow->credit)
        draft_new(flow, draft);
    else if (flow->probes > 0 && flow->base < flow->sent)
        draft_unacked(flow, draft);
    else
        return false;
    draft->units = draft->slots;
    return may_leave(flow, draft, now_ns);
}

/* A window that slots fill has no room for it, ever: it may go beyond, once a round trip. */
static bool tries_mtu(const rf_flow_t *flow, draft_t *draft, uint64_t now_ns)
{
    if (flow->frame_slots >= flow->frame_slots_max || flow->mtu_in_flight ||
        flow->mtu_tries >= FLOW_MTU_TRIES || flow->rtt_ns == 0 || now_ns < flow->mtu_ns ||
        !flow_swift_allows(flow, 0, now_ns))
        return false;
    draft->flags = FLOW_FRAME_PAD | FLOW_FRAME_PING | FLOW_FRAME_WANT_ACK;
    draft->units = flow->frame_slots_max;
    return true;
}

static bool decide(rf_flow_t *flow, draft_t *draft, uint64_t now_ns)
{
    if (sends_slots(flow, draft, now_ns)) return true;
    *draft = (draft_t){.first = flow->sent};
    if (tries_mtu(flow, draft, now_ns)) return true;
    if (flow->ping || flow->probes > 0) {
        draft->flags = FLOW_FRAME_PING | FLOW_FRAME_WANT_ACK;
        return true;
    }
    return flow->ack_ns <= now_ns;
}

/* An acknowledgement is asked for four times a window, so that neither waits for the other, and one may be lost. */
static bool wants_ack(const rf_flow_t *flow, const draft_t *draft)
{
    uint64_t window = flow_min(flow->window >> 8, flow->send_slots * sizeof(rf_slot_t));
    return flow->want_ack_bytes + flow_frame_bytes(draft->slots) >= window / 4;
}

/* Field by field where it belongs: a copy would be read in larger pieces than it was just written, and wait. */
static void head_write(const rf_flow_t *flow, uint8_t *out, const draft_t *draft, uint64_t now_ns)
{
    flow_head_at_t *head = (flow_head_at_t *)out;
    uint64_t acks = 0, largest = 0, before = 0, ack_delay_ns = 0, late_ns = 0;
    if (flow->top > 0) {
        largest = flow->top - 1;
        uint64_t offset = largest % 64;
        const uint64_t *came = flow->came;
        uint64_t low = came[(largest / 64 - 1) % (FLOW_REPLAY_BITS / 64)],
                 high = came[largest / 64 % (FLOW_REPLAY_BITS / 64)];
        acks = FLOW_FRAME_ACKS;
        before = offset ? low >> offset | high << (64 - offset) : low;
        ack_delay_ns = flow_min(now_ns - flow->top_ns, UINT32_MAX);
        late_ns = flow->top_late_ns;
    }
    head->flow = flow->id_peer;
    head->format = FLOW_FORMAT;
    head->flags = (uint8_t)(draft->flags | acks);
    head->units = (uint16_t)draft->units;
    head->number = flow->number;
    head->sequence = (uint32_t)draft->first;
    head->next = (uint32_t)flow->next;
    head->credit = (uint32_t)(flow->taken + flow->receive_slots);
    head->largest = (uint32_t)largest;
    head->before = before;
    head->ack_delay_ns = (uint32_t)ack_delay_ns;
    head->late_ns = (uint32_t)late_ns;
}

static void slots_write(const rf_flow_t *flow, uint8_t *out, const draft_t *draft)
{
    uint64_t at = draft->first & (flow->send_slots - 1);
    size_t n = (size_t)flow_min(draft->slots, flow->send_slots - at);
    rf_slots_copy(out, &flow->send[at], n);
    if (rf_unlikely(n < draft->slots))
        rf_slots_copy(out + n * sizeof(rf_slot_t), flow->send, draft->slots - n);
}

/* The slots of a draft have left. */
static void slots_sent(rf_flow_t *flow, const draft_t *draft)
{
    uint64_t end = draft->first + draft->slots;
    if (draft->first == flow->sent) {
        flow->sent = end;
        flow->stats.slots_sent += draft->slots;
    } else {
        flow->stats.slots_resent += draft->slots;
        if (flow->n_lost > 0)
            flow->n_lost -= flow_bits_clear(flow->lost, flow->send_slots, draft->first, end);
    }
}

/* A frame that is owed an acknowledgement has left. */
static void owed(rf_flow_t *flow, const draft_t *draft, uint32_t bytes, uint64_t now_ns)
{
    *flow_loss_entry(flow, now_ns) = (flow_packet_t){
        .sent_ns = now_ns,
        .first = draft->first,
        .slots = (uint16_t)draft->units,
        .bytes = (uint16_t)bytes,
        .state = FLOW_PACKET_IN_FLIGHT,
        .flags = draft->flags,
    };
    if (flow->in_flight == 0) flow->oldest = flow->number; /* those before only acknowledged */
    flow->in_flight++;
    flow->in_flight_bytes += bytes;
    flow->last_owed_ns = now_ns;
    if (draft->flags & FLOW_FRAME_WANT_ACK) flow->asked_top = flow->number + 1;
    if (flow->owed_ns == RF_NEVER) flow->owed_ns = now_ns;
    flow->want_ack_bytes = draft->flags & FLOW_FRAME_WANT_ACK ? 0 : flow->want_ack_bytes + bytes;
    if (draft->flags & FLOW_FRAME_PAD)
        flow->mtu_in_flight = true;
    else if (draft->flags & FLOW_FRAME_PING)
        flow->ping = false;
    if (flow->probes > 0) {
        flow->probes--;
        flow->stats.probes_sent++;
    }
    flow_swift_sent(flow, bytes, now_ns);
}

/* Nothing is to be sent: until when. */
static void sleeps(rf_flow_t *flow, uint64_t now_ns)
{
    uint64_t next_ns = flow_min(flow_loss_next_ns(flow), flow->ack_ns);
    if (flow->in_flight_bytes == 0) {
        bool slots = flow->n_lost > 0 || (flow->sent < flow->end && flow->sent < flow->credit);
        if (slots) next_ns = flow_min(next_ns, flow->paced_ns);
    }
    bool stalled = flow->sent < flow->end && flow->sent >= flow->credit;
    if (stalled && !flow->stalled) flow->stats.credit_stalls++;
    flow->stalled = stalled;
    flow->next_ns = flow_max(next_ns, now_ns + 1);
}

/* One frame of new slots that may leave whatever is acknowledged goes before the last word that came of that is looked at, and timers: that
 * is done in the next call, which follows at once. A frame of any size may leave here, so that one does. */
static bool goes_first(rf_flow_t *flow, draft_t *draft, uint64_t now_ns)
{
    bool fresh =
        flow->n_lost == 0 && flow->probes == 0 && flow->sent < flow->end && flow->sent < flow->credit;
    if (flow->acks.top == 0 || flow->acks.waited || !fresh || flow->number >= NUMBER_MAX ||
        !remembers(flow) || !flow_swift_allows(flow, flow_frame_bytes(flow->frame_slots), now_ns))
        return false;
    flow->acks.waited = true;
    draft_new(flow, draft);
    draft->units = draft->slots;
    return true;
}

/* What is due before a frame is decided upon; then that. */
static bool goes_then(rf_flow_t *flow, draft_t *draft, uint64_t now_ns)
{
    if (flow->acks.top > 0) flow_loss_acks(flow);
    flow_loss_timers(flow, now_ns);
    if (flow->over == RF_OK && flow->number >= NUMBER_MAX) flow->over = RF_ERR_LIMIT;
    if (flow->over != RF_OK) {
        flow->next_ns = RF_NEVER;
        return false;
    }
    if (decide(flow, draft, now_ns)) return true;
    sleeps(flow, now_ns);
    return false;
}

rf_hot size_t rf_flow_transmit(rf_flow_t *flow, uint8_t *out, size_t max, uint64_t now_ns)
{
    draft_t draft = {0};
    if (flow->over != RF_OK) {
        flow->next_ns = RF_NEVER;
        return 0;
    }
    flow_loss_listened(flow, now_ns);
    if (!goes_first(flow, &draft, now_ns) && !goes_then(flow, &draft, now_ns)) return 0;
    uint32_t size = flow_frame_bytes(draft.units);
    rf_debug(size <= max);
    (void)max;
    if (draft.slots > 0 && (flow->probes > 0 || wants_ack(flow, &draft))) draft.flags |= FLOW_FRAME_WANT_ACK;
    if (flow->ping && draft.slots > 0) draft.flags |= FLOW_FRAME_PING; /* rides along */

    head_write(flow, out, &draft, now_ns);
    if (draft.slots > 0)
        slots_write(flow, out + sizeof(flow_head_t), &draft);
    else if (draft.units > 0)
        memset(out + sizeof(flow_head_t), 0, draft.units * sizeof(rf_slot_t));
    rf_err_t err = seal_frame(&flow->sealer, out, size, flow->number);
    if (err != RF_OK) {
        flow->over = err;
        flow->next_ns = RF_NEVER;
        return 0;
    }

    if (draft.slots > 0 || draft.flags & FLOW_FRAME_PING) {
        owed(flow, &draft, size, now_ns);
    } else {
        flow_loss_entry(flow, now_ns)->state = FLOW_PACKET_NONE;
        flow->stats.acks_sent++;
    }
    if (draft.slots > 0) slots_sent(flow, &draft);
    flow->number++;
    flow->credit_said = flow->taken + flow->receive_slots;
    flow->ack_ns = RF_NEVER;
    flow->unacked = 0;
    flow->next_ns = 0;
    flow->stats.frames_sent++;
    flow->stats.bytes_sent += size;
    return size;
}
