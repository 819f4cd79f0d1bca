/*
 * What came: first whether it is whole, new and authentic, which changes nothing but counters; then whether a flow may say
 * that, which changes nothing either; then all of it is done, and cannot fail.
 */
#include "transport/dpdk/flow_internal.h"

#include <string.h>

/* An authentic frame, its numbers widened to 64 bits. */
typedef struct said {
    flow_head_t head;
    const uint8_t *slots;
    uint64_t first;     /* of the slots */
    uint64_t next;      /* never beyond what was sent */
    uint64_t credit;    /* never less than was known */
    uint64_t acked_top; /* 0: nothing new is acknowledged */
} said_t;

static bool whole(const rf_flow_t *flow, const flow_head_t *head, size_t size)
{
    return head->format == FLOW_FORMAT && size == flow_frame_bytes(head->units) && head->flow == flow->id;
}

/* Has a frame of this number come, or would nobody know? */
static rf_err_t is_new(rf_flow_t *flow, uint64_t number)
{
    if (number >= flow->top) return RF_OK;
    if (flow->top - number > FLOW_REPLAY_BITS) {
        flow->stats.stale++;
        return RF_ERR_EXISTS;
    }
    if (flow_bit(flow->came, FLOW_REPLAY_BITS, number)) {
        flow->stats.replayed++;
        return RF_ERR_EXISTS;
    }
    return RF_OK;
}

static rf_err_t authentic(rf_flow_t *flow, uint8_t *frame, size_t size, uint64_t number)
{
    rf_err_t err = seal_frame_open(&flow->opener, frame, size, number);
    if (rf_likely(err == RF_OK)) return RF_OK;
    if (err == RF_ERR_AUTH) {
        flow->stats.forged++;
    } else if (err == RF_ERR_EXISTS) {
        flow->stats.stale++;
    } else {
        flow->over = err;
        flow->next_ns = 0;
    }
    return err;
}

/* What is acknowledged: only frames that were sent. */
static bool acks_allowed(const rf_flow_t *flow, said_t *said)
{
    const flow_head_t *head = &said->head;
    said->acked_top = 0;
    if (!(head->flags & FLOW_FRAME_ACKS)) return true;
    int64_t ahead = flow_ahead(flow->acked_top, head->largest);
    if (ahead < 0) {
        if ((uint64_t)-ahead > flow->acked_top) return false;
        if (ahead < -1) return true; /* older than what is known */
    }
    uint64_t largest = flow->acked_top + (uint64_t)ahead;
    if (largest >= flow->number) return false;
    if (largest < 64 && head->before & (~0ull >> largest)) return false; /* below number 0 */
    said->acked_top = largest + 1;
    return true;
}

/* Slots, only what has been credited, and nothing below slot 0. */
static bool slots_allowed(const rf_flow_t *flow, said_t *said)
{
    const flow_head_t *head = &said->head;
    if (head->units == 0) return true;
    if (head->flags & FLOW_FRAME_PAD) return head->flags & FLOW_FRAME_PING;
    int64_t ahead = flow_ahead(flow->next, head->sequence);
    if (ahead < 0 && (uint64_t)-ahead > flow->next) return false;
    said->first = flow->next + (uint64_t)ahead;
    return said->first + head->units <= flow->credit_said;
}

/* May a peer that keeps the rules say this? Fills in the rest of `said`. */
static bool allowed(const rf_flow_t *flow, said_t *said)
{
    const flow_head_t *head = &said->head;
    if (head->flags & ~FLOW_FRAME_FLAGS) return false;
    int64_t came = flow_ahead(flow->base, head->next), credit = flow_ahead(flow->credit, head->credit);
    if (came > (int64_t)(flow->sent - flow->base)) return false; /* slots that were never sent */
    said->next = came > 0 ? flow->base + (uint64_t)came : 0;
    said->credit = credit > 0 ? flow->credit + (uint64_t)credit : flow->credit;
    if (said->credit > flow->sent + RF_FLOW_SLOTS_MAX) return false; /* beyond any window */
    return acks_allowed(flow, said) && slots_allowed(flow, said);
}

static void number_came(rf_flow_t *flow, uint64_t number, uint64_t since_ns, uint64_t now_ns)
{
    if (number >= flow->top) {
        uint64_t skipped = number - flow->top;
        if (rf_unlikely(skipped >= FLOW_REPLAY_BITS))
            memset(flow->came, 0, sizeof flow->came);
        else if (rf_unlikely(skipped > 0))
            flow_bits_clear(flow->came, FLOW_REPLAY_BITS, flow->top, number);
        flow->top = number + 1;
        flow->top_ns = now_ns;
        flow->top_late_ns = (uint32_t)flow_min(now_ns - since_ns, UINT32_MAX);
    }
    flow_bit_set(flow->came, FLOW_REPLAY_BITS, number);
}

/* What was acknowledged is looked at behind slots that come or go with it (rf_flow_transmit()). */
static void acks_keep(rf_flow_t *flow, const said_t *said, uint64_t since_ns, uint64_t now_ns)
{
    if (flow->acks.top > 0) flow_loss_acks(flow);
    flow->acks = (flow_acks_t){.top = said->acked_top,
                               .before = said->head.before,
                               .ack_delay_ns = said->head.ack_delay_ns,
                               .late_ns = said->head.late_ns + (now_ns - since_ns),
                               .came_ns = now_ns,
                               .in_flight_bytes = flow->in_flight_bytes};
}

/* When these are to be acknowledged: RFC 9000, 13.2.1, at most so many frames a word. */
static void owe(rf_flow_t *flow, const said_t *said, bool in_order, uint64_t now_ns)
{
    if (said->head.units == 0 && !(said->head.flags & FLOW_FRAME_PING)) return;
    flow->unacked++;
    if (!in_order || said->head.flags & FLOW_FRAME_WANT_ACK || flow->unacked >= FLOW_ACK_FRAMES)
        flow->ack_ns = 0;
    else
        flow->ack_ns = flow_min(flow->ack_ns, now_ns + flow->ack_delay_ns);
}

static void copy_in(rf_flow_t *flow, const uint8_t *slots, uint64_t first, uint64_t end)
{
    uint64_t at = first & (flow->receive_slots - 1);
    size_t n = (size_t)flow_min(end - first, flow->receive_slots - at);
    rf_slots_copy(&flow->receive[at], slots, n);
    if (rf_unlikely(n < end - first))
        rf_slots_copy(flow->receive, slots + n * sizeof(rf_slot_t), (size_t)(end - first - n));
}

/* The slots of a frame into the window, in their places. */
static void slots_came(rf_flow_t *flow, const said_t *said)
{
    uint64_t n = said->head.units, end = said->first + n, from = flow_max(said->first, flow->next);
    if (rf_unlikely(end <= flow->next)) {
        flow->stats.slots_repeated += n;
        return;
    }
    copy_in(flow, said->slots + (from - said->first) * sizeof(rf_slot_t), from, end);
    if (rf_likely(from == flow->next && flow->beyond <= flow->next)) { /* in order, and nothing is missing */
        flow->next = flow->beyond = end;
        flow->stats.slots_received += end - from;
        flow->stats.slots_repeated += n - (end - from);
        return;
    }
    uint64_t fresh = flow_bits_set(flow->seen, NULL, flow->receive_slots, from, end);
    flow->stats.slots_received += fresh;
    flow->stats.slots_repeated += n - fresh;
    flow->beyond = flow_max(flow->beyond, end);
    uint64_t next = flow_bits_find(flow->seen, flow->receive_slots, flow->next, flow->beyond, false);
    flow_bits_clear(flow->seen, flow->receive_slots, flow->next, next);
    flow->next = next;
}

rf_err_t rf_flow_receive(rf_flow_t *flow, uint8_t *frame, size_t size, uint64_t now_ns)
{
    return rf_flow_receive_since(flow, frame, size, now_ns, now_ns);
}

rf_hot rf_err_t rf_flow_receive_since(rf_flow_t *flow, uint8_t *frame, size_t size, uint64_t since_ns,
                                      uint64_t now_ns)
{
    said_t said;
    if (flow->over != RF_OK) return flow->over;
    if (size < RF_FLOW_OVERHEAD || size > RF_FLOW_FRAME_MAX) {
        flow->stats.truncated++;
        return RF_ERR_TRUNCATED;
    }
    memcpy(&said.head, frame, RF_SEAL_CLEAR);
    if (!whole(flow, &said.head, size)) {
        flow->stats.truncated++;
        return RF_ERR_TRUNCATED;
    }
    rf_err_t err = is_new(flow, said.head.number);
    if (err == RF_OK) err = authentic(flow, frame, size, said.head.number);
    if (err != RF_OK) return err;

    memcpy(&said.head, frame, sizeof said.head);
    said.slots = frame + sizeof said.head;
    if (!allowed(flow, &said)) {
        flow->over = RF_ERR_PROTOCOL;
        flow->next_ns = 0;
        return RF_ERR_PROTOCOL;
    }

    bool in_order = said.head.number == flow->top;
    number_came(flow, said.head.number, since_ns, now_ns);
    if (said.next > flow->base) flow_loss_advance(flow, said.next);
    if (said.acked_top > 0) acks_keep(flow, &said, since_ns, now_ns);
    flow->credit = said.credit;
    owe(flow, &said, in_order, now_ns);
    if (said.head.units > 0 && !(said.head.flags & FLOW_FRAME_PAD)) slots_came(flow, &said);
    flow->heard_ns = now_ns;
    flow->owed_ns = flow->in_flight > 0 ? now_ns : RF_NEVER;
    flow->next_ns = 0;
    flow->stats.frames_received++;
    flow->stats.bytes_received += size;
    return RF_OK;
}
