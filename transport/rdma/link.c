/*
 * Slots of a link: by SEND, or by WRITE into a ring of the receiver (ring.c); each receiver says which.
 *
 * Out: slots wait in a ring, which the device knows, until the peer's owner has taken them. flush() posts those not yet
 * posted, many a request, all requests of a call with one doorbell. A short request carries its slots inline; the slots of
 * a longer one are read by the device from the ring, where they stay until they are acknowledged.
 *
 * In: what has come is copied once, to who polls: out of the ring where the peer wrote it, or out of the buffer that a look
 * into the completion queue, by poll() itself, finds it in. What is found while nobody polls for it is copied into the
 * in-ring, and buffers of SENDs are posted again at once: a link whose owner takes nothing holds up no other. The in-ring
 * holds at most what this end said that it takes. Of the links of a device that are polled in turn, one looks into the queue
 * for all.
 *
 * Of SENDs, buffers at the receiver are promised: RDMA_MESSAGES for data messages, each of which is given back by the acknowledgement
 * of its last slot, and RDMA_WORDS for words. Of words there are on their way at most: one HELLO, one CLOSE, one WANT_ACK
 * and its answer, one since the control link broke, and explicit acknowledgements, of which at most four are said for as many slots as this
 * end takes, and four for as many messages as are promised, before the peer has to take some of them to send more. On iWARP, where a
 * word says that a remote write was taken, there may be one more for each write outstanding.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "transport/ring.h"

#include <stdlib.h>
#include <string.h>

#define IN_SLOTS  RF_RING_SLOTS_MIN /* of the in-ring, to start with */
#define ACK_SHARE 4 /* an acknowledgement is said for each such part of a ring, or of the promised messages */

/* --- rings -------------------------------------------------------------------------------------------------- */

rf_err_t rdma_link_attach(rdma_link_t *link, rdma_path_t *path)
{
    rdma_memory_t *memory = &link->ring_memory;
    path->ring_mr = ibv_reg_mr(path->domain->pd, memory->base, memory->size, IBV_ACCESS_LOCAL_WRITE);
    if (path->ring_mr) return RF_OK;
    rdma_memory_refused(path->device->endpoint, memory->size);
    return RF_ERR_NO_MEMORY;
}

/* What is posted is still read from the smaller one, until its path ends. */
bool rdma_ring_grow(path_link_t *base, uint32_t size)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    rdma_memory_t memory;
    if (path && path->retired.base && path->posted != path->completed)
        return false; /* once in the life of a request */
    if (rdma_memory_make(path ? path->domain->pd : NULL, size * sizeof(rf_slot_t), IBV_ACCESS_LOCAL_WRITE,
                         &memory) != RF_OK)
        return false;
    rf_slot_t *ring = (rf_slot_t *)memory.base;
    for (uint64_t i = base->acked; i < base->slots_head; i++)
        ring[i & (size - 1)] = base->ring[i & (base->ring_size - 1)];
    if (path) {
        rdma_memory_free(&path->retired);
        path->retired = link->ring_memory;
        path->retired.mr = path->ring_mr;
        path->ring_mr = memory.mr;
        memory.mr = NULL;
    } else {
        rdma_memory_free(&link->ring_memory);
    }
    link->ring_memory = memory;
    base->ring = ring;
    base->ring_size = size;
    return true;
}

static bool in_grow(rdma_link_t *link, uint32_t size)
{
    return rf_ring_resize(&link->in, &link->in_size, size, link->base.delivered, link->base.accepted);
}

rf_err_t rdma_link_init(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    link->ack_due_at = RF_NEVER;
    return in_grow(link, IN_SLOTS) ? RF_OK : RF_ERR_NO_MEMORY;
}

void rdma_link_free(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_memory_free(&link->ring_memory);
    rdma_domain_release(link->domain);
    free(link->in);
}

static bool acked(rdma_link_t *link, uint64_t delivered);

/* --- out ---------------------------------------------------------------------------------------------------- */

/* The path that slots flow over now; NULL: none. */
static rdma_path_t *path_up(const rdma_link_t *link)
{
    return rdma_path_up(link, PATH_LANE_SLOTS);
}

/* The next request: how many slots, of one run of the ring, and of the peer's. 0: none, or the peer takes no more now. */
static uint32_t request_slots(const rdma_link_t *link, const rdma_path_t *path)
{
    const rdma_path_info_t *peer = &path->peer;
    if (link->base.posted == link->base.slots_head) return 0;
    uint32_t room = peer->ring ? peer->ring_slots : peer->slots_max;
    uint64_t n = link->base.slots_head - link->base.posted, out = link->base.posted - link->base.acked;
    uint64_t left = out < room ? room - out : 0; /* this path's peer may take less than the one before */
    uint32_t run = link->base.ring_size - ((uint32_t)link->base.posted & (link->base.ring_size - 1));
    uint32_t most = peer->ring ? RDMA_WRITE_SLOTS : RDMA_MESSAGE_SLOTS;
    uint32_t messages = peer->messages < RDMA_MESSAGES ? peer->messages : RDMA_MESSAGES;
    if (peer->ring) {
        uint32_t to = (uint32_t)(link->base.posted - path->first) & (peer->ring_slots - 1);
        if (peer->ring_slots - to < run) run = peer->ring_slots - to;
    } else if (link->ends_head - link->ends_tail >= messages) {
        return 0;
    }
    n = n < left ? n : left;
    n = n < run ? n : run;
    return (uint32_t)(n < most ? n : most);
}

static void request_make(rdma_link_t *link, const rdma_path_t *path, uint32_t n, struct ibv_sge *part,
                         struct ibv_send_wr *request)
{
    const rdma_path_info_t *peer = &path->peer;
    rf_slot_t *first = &link->base.ring[link->base.posted & (link->base.ring_size - 1)];
    uint64_t number = link->base.posted - path->first, ack = (link->base.delivered & 0xffff)
                                                             << RF_CONTROL_ACK_SHIFT;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t parity = peer->ring ? rdma_ring_parity(number + i, peer->ring_slots) : 0;
        first[i].control = (first[i].control & RF_CONTROL_CALLERS) | ack | parity;
    }
    *part = (struct ibv_sge){
        .addr = (uintptr_t)first, .length = n * (uint32_t)sizeof *first, .lkey = path->ring_mr->lkey};
    *request = (struct ibv_send_wr){.sg_list = part,
                                    .num_sge = 1,
                                    .opcode = IBV_WR_SEND,
                                    .send_flags = part->length <= path->inline_size ? IBV_SEND_INLINE : 0};
    link->base.posted += n;
    if (peer->ring) {
        request->opcode = IBV_WR_RDMA_WRITE;
        request->wr.rdma.remote_addr = peer->ring + (number & (peer->ring_slots - 1)) * sizeof(rf_slot_t);
        request->wr.rdma.rkey = peer->ring_key;
    } else {
        link->ends[link->ends_head++ % RDMA_MESSAGES] = link->base.posted;
    }
}

/* An acknowledgement goes out, in whatever way; that remote writes were taken is said by words alone. */
static void ack_said(rdma_link_t *link)
{
    link->delivered_said = link->base.delivered;
    link->base.say_ack = rdma_bulk_owes(link);
    while (link->came_tail != link->came_head &&
           link->came[link->came_tail % RDMA_MESSAGES] <= link->base.delivered)
        link->came_tail++;
}

static void word_say(rdma_link_t *link, rdma_path_t *path)
{
    path_link_t *base = &link->base;
    path_word_t word;
    if (!path_word_due(base, &word)) return;
    word.placed = base->bulk ? rdma_bulk_taken(link) : 0;
    if (!rdma_path_say(path, &word)) return;
    path_word_said(base, &word);
    rdma_bulk_said(link, word.placed);
    if (word.flags & RDMA_WORD_GRANT) rdma_sleep_grants(&path->sleep);
    ack_said(link);
}

/* The receiver sleeps: this request wakes it; iWARP has no immediates, there a word does. */
static void ring_peer(rdma_link_t *link, rdma_path_t *path, struct ibv_send_wr *request)
{
    link->base.stats.wakeups_sent++;
    if (path->device->iwarp)
        link->base.say |= RDMA_WORD_RING;
    else
        request->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
}

void rdma_push(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_path_t *path = path_up(link);
    if (!path) return;
    struct ibv_send_wr requests[RDMA_POST_BATCH];
    struct ibv_sge parts[RDMA_POST_BATCH];
    bool sent = false;
    for (;;) {
        unsigned n = 0;
        uint32_t slots, room = rdma_path_room(path);
        while (n < RDMA_POST_BATCH && n < room && (slots = request_slots(link, path)) > 0) {
            request_make(link, path, slots, &parts[n], &requests[n]);
            n++;
        }
        if (n == 0) break;
        sent = true;
        if (path->peer.ring && rdma_sleep_rings(&path->sleep)) ring_peer(link, path, &requests[n - 1]);
        if (base->posted > base->sent_max)
            base->sent_max = base->posted; /* it may be acknowledged from here on */
        rdma_path_post(path, requests, n);
        if (rdma_path_over(path)) return;
        if (n == room && !rdma_device_drain(path->device)) break;
        if (path_up(link) != path) return;
    }
    if (sent) {
        base->stats.flushes++;
        ack_said(link);
    }
    if (base->say || base->say_ack) word_say(link, path);
}

void rdma_line_hear(rdma_link_t *link)
{
    const rdma_path_t *path = path_up(link);
    if (!path || !path->written) return;
    uint64_t delivered = rdma_line_read(path);
    if (delivered > link->base.acked && !acked(link, delivered))
        path_link_wrong(&link->base, "an acknowledgement of slots never sent");
}

unsigned rdma_room(rf_link_t *link_head, unsigned want)
{
    const path_link_t *base = path_link_of(link_head);
    if (want > path_ring_free(base)) rdma_line_hear(rdma_link_of(base));
    return path_room(link_head, want);
}

rf_err_t rdma_flush(rf_link_t *link_head)
{
    path_link_t *base = path_link_of(link_head);
    if (rf_unlikely(link_head->state == RF_LINK_STATE_DEAD || base->end_pending)) return path_link_over(base);
    if (base->slots_head != base->posted) rdma_push(base);
    return RF_OK;
}

/* --- in ----------------------------------------------------------------------------------------------------- */

/* The peer's owner has taken `delivered` slots. False: it cannot have. */
static bool acked(rdma_link_t *link, uint64_t delivered)
{
    path_link_t *base = &link->base;
    if (delivered <= base->acked) return true;
    if (!path_link_acked(base, delivered)) return false;
    while (link->ends_tail != link->ends_head && link->ends[link->ends_tail % RDMA_MESSAGES] <= delivered)
        link->ends_tail++;
    if (base->posted != base->slots_head) rdma_push(base); /* the peer has buffers again */
    return true;
}

/* A slot may be taken later than a word or the line that was said after it: what is older is nothing new. */
static bool acked16(rdma_link_t *link, uint64_t control)
{
    int16_t more = (int16_t)((uint16_t)(control >> RF_CONTROL_ACK_SHIFT) - (uint16_t)link->base.acked);
    return more <= 0 || acked(link, link->base.acked + (uint64_t)more);
}

static void word_take(rdma_link_t *link, rdma_path_t *path, const rf_slot_t *slot)
{
    path_link_t *base = &link->base;
    path_word_t word;
    if (!path_word_read(path->lane, slot, &word) || (word.flags & PATH_WORD_HELLO)) {
        path_link_wrong(base, "a word that makes no sense");
        return;
    }
    if (path->written) {
        rdma_ring_take(link, path);       /* what was written before it */
        if (rdma_path_over(path)) return; /* there was no memory for it */
    }
    if (!acked(link, word.delivered)) {
        path_link_wrong(&link->base, "an acknowledgement of slots never sent");
        return;
    }
    if (word.placed != 0 && !rdma_bulk_placed(link, word.placed)) {
        path_link_wrong(&link->base, "an acknowledgement of bytes never sent");
        return;
    }
    /* A ring may hold more by now than when the word was said. */
    bool counted = path->written ? word.count <= link->base.accepted : word.count == link->base.accepted;
    if (((word.flags & PATH_WORD_WANT_ACK) && !counted) ||
        ((word.flags & PATH_WORD_CLOSE) && word.count != link->base.accepted)) {
        path_link_wrong(&link->base, "a count of slots never sent");
        return;
    }
    if (word.flags & PATH_WORD_WANT_ACK) link->ack_due_at = word.count;
    if (word.flags & PATH_WORD_CLOSE) {
        link->base.close_at = word.count;
        path_link_attention(&link->base);
    }
    rdma_ring_word(link, path, word.flags);
    if (link->ack_due_at <= link->base.delivered) {
        link->ack_due_at = RF_NEVER;
        link->base.say_ack = true;
    }
    if (link->base.say || link->base.say_ack) rdma_push(&link->base);
}

/* In the in-ring there is room for so many. False: the path is over, and they come again over the next; or the link is. */
static bool in_make_room(rdma_link_t *link, rdma_path_t *path, uint64_t n)
{
    uint32_t size = link->in_size;
    while (size < n && size < link->base.slots_max) size *= 2;
    if (n > link->base.slots_max || link->base.close_at != RF_NEVER) {
        path_link_wrong(&link->base, "more slots than there was room for");
        return false;
    }
    bool there = size == link->in_size || in_grow(link, size);
    if (!there) rdma_path_broken(path);
    return there;
}

void rdma_link_accept(rdma_link_t *link, rdma_path_t *path, const rf_slot_t *slots, uint32_t n)
{
    path_link_t *base = &link->base;
    uint64_t held = base->accepted - base->delivered;
    uint32_t room = link->out_max - link->out_n, direct = held != 0 ? 0 : n < room ? n : room;
    if (!in_make_room(link, path, held + n)) return;
    for (uint32_t i = 0; i < n; i++) {
        rf_slot_t *to =
            i < direct ? &link->out[link->out_n + i] : &link->in[(base->accepted + i) & (link->in_size - 1)];
        if (!rdma_control_right(slots[i].control)) {
            path_link_wrong(base, "a slot that makes no sense");
            return;
        }
        memcpy(to->words, slots[i].words, sizeof to->words);
        to->control = slots[i].control & RF_CONTROL_CALLERS;
    }
    base->accepted += n;
    base->delivered += direct;
    link->out_n += direct;
    if (base->user_closed) base->delivered = base->accepted; /* nobody takes them any more */
    if (!acked16(link, slots[n - 1].control)) path_link_wrong(base, "an acknowledgement of slots never sent");
}

void rdma_link_message(rdma_link_t *link, rdma_path_t *path, const uint8_t *bytes, uint32_t size)
{
    const rf_slot_t *slots = (const rf_slot_t *)bytes;
    uint32_t n = size / (uint32_t)sizeof *slots;
    if (link->base.wrong || link->base.end_pending) return;
    if (size % sizeof *slots != 0 || n == 0 || n > RDMA_MESSAGE_SLOTS) {
        path_link_wrong(&link->base, "a message of no whole slots");
        return;
    }
    if (n == 1 && rf_control_type(slots[0].control) == RDMA_WORD) {
        word_take(link, path, &slots[0]);
        return;
    }
    if (path->written || link->came_head - link->came_tail == RDMA_MESSAGES) {
        path_link_wrong(&link->base, path->written ? "slots by SEND" : "more slots than there was room for");
        return;
    }
    uint64_t after = link->base.accepted + n;
    rdma_link_accept(link, path, slots, n);
    if (link->base.accepted == after) link->came[link->came_head++ % RDMA_MESSAGES] = after;
}

void rdma_link_take(rdma_link_t *link)
{
    rdma_path_t *path = path_up(link);
    if (!path) return;
    rdma_device_drain(path->device);
    if (path_up(link) == path && path->written) rdma_ring_take(link, path);
}

/* The slots' path ends: what has come over it is taken, once nothing more can come. */
void rdma_link_keep(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    path_lane_t *lane = &base->lanes[PATH_LANE_SLOTS];
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    if (!path) return;
    rdma_device_drain(path->device);
    if (!path->written || lane->stage != PATH_UP) return;
    rdma_path_stop(path);
    lane->failed = true; /* nothing is sent over it any more */
    rdma_ring_take(link, path);
}

bool rdma_link_hear(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    if (base->user_closed) {
        rdma_link_take(link);
        if (link->device) rdma_device_arm(link->device); /* its owner does not any more */
        rdma_link_take(link);                            /* what came before it was armed wakes nobody */
    }
    if (base->room_wanted != 0 || base->posted != base->slots_head) rdma_line_hear(link);
    if (base->bulk) rdma_bulk_push_control(link);
    return false;
}

/* Out of the in-ring. */
static inline unsigned serve(rdma_link_t *link, rf_slot_t *out, unsigned max)
{
    uint64_t there = link->base.accepted - link->base.delivered;
    if (rf_likely(there == 0) || link->base.head.state == RF_LINK_STATE_CONNECTING) return 0;
    unsigned n = there < max ? (unsigned)there : max;
    for (unsigned i = 0; i < n; i++)
        memcpy(&out[i], &link->in[(link->base.delivered + i) & (link->in_size - 1)], sizeof *out);
    link->base.delivered += n;
    return n;
}

/* The path whose ring poll() may read; NULL: none. */
static rdma_path_t *ring_open(const rdma_link_t *link)
{
    const path_link_t *base = &link->base;
    rdma_path_t *path = path_up(link);
    bool reads = path && path->written && base->head.state != RF_LINK_STATE_CONNECTING && !base->wrong &&
                 base->close_at == RF_NEVER;
    return reads ? path : NULL;
}

/* Out of the ring that the peer writes; nothing waits in the in-ring. */
static unsigned ring_serve(rdma_link_t *link, const rdma_path_t *path, rf_slot_t *out, unsigned max)
{
    path_link_t *base = &link->base;
    uint64_t last;
    unsigned n = rdma_ring_read(path, base->accepted, out, max, &last);
    base->accepted += n;
    base->delivered += n;
    if (n < max && !rdma_control_right(last))
        path_link_wrong(base, "a slot that makes no sense");
    else if (n > 0 && !acked16(link, last))
        path_link_wrong(base, "an acknowledgement of slots never sent");
    return n;
}

/* One look into the completion queue serves all links that are polled in turn: who looked last looks again. If it is not
 * polled any more, another does, when all might have been since. */
static void queue_look(rdma_link_t *link)
{
    rdma_device_t *device = link->device;
    if (!device || (device->looker != link && ++device->passed_over < device->n_paths)) return;
    device->looker = link;
    device->passed_over = 0;
    rdma_device_drain(device);
}

/* What has come, straight to who polls. */
static unsigned take(rdma_link_t *link, rf_slot_t *out, unsigned max)
{
    path_link_t *base = &link->base;
    link->out = out;
    link->out_n = 0;
    link->out_max = base->head.state == RF_LINK_STATE_CONNECTING ? 0 : max;
    queue_look(link);
    unsigned n = link->out_n;
    link->out_max = link->out_n = 0;
    n += serve(link, out + n, max - n);
    const rdma_path_t *path = ring_open(link);
    if (!path) return n;
    if (n < max) n += ring_serve(link, path, out + n, max - n);
    if (base->room_wanted != 0 || base->posted != base->slots_head) rdma_line_hear(link);
    return n;
}

/* A peer that has sent more, since the last acknowledgement, than four of them speak for has a larger ring: acknowledgements follow
 * that ring, so that it grows with what there is to send, and not because its owner hears late. Those of SENDs follow the
 * promised messages. */
static void ack_less_often(rdma_link_t *link, const rdma_path_t *path)
{
    uint64_t full = link->delivered_said + (uint64_t)ACK_SHARE * link->ack_every;
    if (link->ack_every >= link->ack_most) return;
    if (link->base.delivered > full || (ring_open(link) == path && rdma_ring_written(path, full)))
        link->ack_every *= 2;
}

/* Says what has been taken, when enough has been, or the peer asked. */
static void ack_if_due(rdma_link_t *link)
{
    bool asked = link->base.delivered >= link->ack_due_at;
    bool due = asked || link->base.delivered - link->delivered_said >= link->ack_every;
    if (!due && link->came_head - link->came_tail >= RDMA_MESSAGES / ACK_SHARE) {
        uint32_t late = link->came_tail + RDMA_MESSAGES / ACK_SHARE - 1;
        due = link->came[late % RDMA_MESSAGES] <= link->base.delivered;
    }
    if (!due) return;
    link->base.stats.acks_explicit++;
    rdma_path_t *path = path_up(link);
    if (path && path->written) ack_less_often(link, path);
    if (!asked && path && path->peer.line) {
        if (rdma_line_write(path, link->base.delivered)) ack_said(link);
        return;
    }
    if (asked) link->ack_due_at = RF_NEVER;
    link->base.say_ack = true;
    rdma_push(&link->base);
}

/* What the owner has to be told. Runs callbacks. False: the link is over. */
static bool settle(path_link_t *base)
{
    path_endpoint_t *ep = path_endpoint_of(base);
    path_endpoint_enter(ep);
    path_link_settle(base);
    bool goes_on = !base->buried && !base->fenced;
    path_endpoint_leave(ep);
    return goes_on;
}

unsigned rdma_poll(rf_link_t *link_head, rf_slot_t *out, unsigned max)
{
    path_link_t *base = path_link_of(link_head);
    rdma_link_t *link = rdma_link_of(base);
    if (rf_unlikely(base->fenced || max == 0)) return 0;
    /* What the look before has left; not what this one leaves while it has slots: they come first. */
    if (rf_unlikely(base->attention) && base->accepted == base->delivered && !settle(base)) return 0;
    unsigned n = serve(link, out, max);
    if (n < max) {
        n += take(link, out + n, max - n);
        if (rf_unlikely(base->attention) && n == 0) {
            if (!settle(base)) return 0;
            n = serve(link, out, max);
        }
        if (base->bulk && n < max) n += rdma_bulk_notified(link, out + n, max - n);
    }
    if (n > 0)
        ack_if_due(link);
    else if (rf_unlikely(base->end_pending || base->close_at != RF_NEVER))
        settle(base);
    return n;
}

void rdma_arm(rf_link_t *link_head)
{
    path_link_t *base = path_link_of(link_head);
    rdma_link_t *link = rdma_link_of(base);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    if (link->device) rdma_device_arm(link->device);
    if (path && path->written && base->posted != base->slots_head)
        path_link_ask(base); /* the line wakes nobody */
    if (path && path == path_up(link) && path->written) rdma_ring_arm(link, path);
    link->armed = true;
}

void rdma_disarm(rf_link_t *link)
{
    rdma_link_of(path_link_of(link))->armed = false;
}

bool rdma_ready(rf_link_t *link_head)
{
    path_link_t *base = path_link_of(link_head);
    rdma_link_t *link = rdma_link_of(base);
    path_endpoint_t *ep = path_endpoint_of(base);
    if (base->fenced) return false;
    rdma_device_t *device = link->device;
    if (path_link_served(base) && device && !(device->notify && device->looked)) rdma_device_drain(device);
    rdma_path_t *path = path_up(link);
    /* What waited for room in the queue pair: its last completions may just have been taken, and no other will wake anybody. */
    bool waits = base->posted != base->slots_head || base->say || base->say_ack;
    if (waits && path && rdma_path_room(path) > 0) rdma_push(base);
    const rdma_path_t *reads = ring_open(link);
    bool rung = link->armed && path && path->written && rdma_sleep_over(&path->sleep);
    if (reads) rdma_line_hear(link);
    bool more = device && device->notify && !device->looked && !device->gone; /* a look that came to no end */
    return !path_link_served(base) || base->attention || ep->attention || rung || more || base->end_pending ||
           (reads && rdma_ring_written(reads, base->accepted));
}

void rdma_resume(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    path->first = base->posted;
    /* A peer that takes little may keep as little for what it sends. */
    uint32_t ring = path->written ? path->ring_slots : base->slots_max;
    link->ack_most = (ring < path->peer.slots_max ? ring : path->peer.slots_max) / ACK_SHARE;
    bool grows = path->written && path->peer.line && link->ack_most > RF_RING_SLOTS_MIN / ACK_SHARE;
    link->ack_every = grows ? RF_RING_SLOTS_MIN / ACK_SHARE : link->ack_most;
    link->ends_head = link->ends_tail = link->came_head = link->came_tail = 0;
    link->delivered_said = base->delivered;
    link->ack_due_at = RF_NEVER;
    rdma_bulk_said(link, 0); /* what the path before took with it */
    base->say_ack |= rdma_bulk_owes(link);
}

void rdma_stats(rf_link_t *link_head, rf_link_stats_t *out)
{
    path_link_stats(path_link_of(link_head), out);
    const rdma_link_t *link = rdma_link_of(path_link_of(link_head));
    const rdma_path_t *path = path_up(link);
    out->ring_slots_receive = path && path->written ? path->ring_slots : link->in_size;
    for (unsigned i = 0; i < PATH_LANES; i++) out->queue_pairs += link->paths[i] != NULL;
}
