/*
 * Slots of a link: by SEND, or by WRITE into a ring of the receiver (ring.c); each receiver says which.
 *
 * Out: slots wait in a ring, which the device knows, until the peer's owner has taken them. flush() posts those not yet
 * posted, many a request, all requests of a call with one doorbell. A short request carries its slots inline; the slots of
 * a longer one are read by the device from the ring, where they stay until they are acknowledged.
 *
 * In: what has come is copied into the in-ring, and buffers of SENDs are posted again at once: a link whose owner takes
 * nothing holds up no other. The in-ring holds at most what this end said that it takes.
 *
 * Of SENDs, buffers at the receiver are promised: RDMA_MESSAGES for data messages, each of which is given back by the acknowledgement
 * of its last slot, and RDMA_WORDS for words. Of words there are on their way at most: one HELLO, one CLOSE, one WANT_ACK
 * and its answer, one probe, and explicit acknowledgements, of which at most four are said for a full ring, and four for
 * as many messages as are promised, before the peer has to take some of them to send more.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_DEFAULT     RF_RING_SLOTS_MIN
#define SLOTS_MAX_DEFAULT 4096
#define ACK_SHARE         4 /* an acknowledgement is said for each such part of a ring, or of the promised messages */
#define CONTROL_CALLERS   (~(RF_CONTROL_PARITY | 0xffffull << RF_CONTROL_ACK_SHIFT | RF_CONTROL_RESERVED))

static bool power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* --- rings -------------------------------------------------------------------------------------------------- */

rf_err_t rdma_link_attach(rdma_link_t *link, rdma_path_t *path)
{
    rdma_memory_t *memory = &link->ring_memory;
    path->ring_mr = ibv_reg_mr(path->domain->pd, memory->base, memory->size, IBV_ACCESS_LOCAL_WRITE);
    if (path->ring_mr) return RF_OK;
    rdma_memory_refused(rdma_endpoint_of(link), memory->size);
    return RF_ERR_NO_MEMORY;
}

/* Moves the ring to a larger one; the slots keep their numbers. */
static bool ring_grow(rdma_link_t *link, uint32_t size)
{
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    rdma_memory_t memory;
    if (path && path->retired.base && path->posted != path->completed)
        return false; /* once in the life of a request */
    if (rdma_memory_make(path ? path->domain->pd : NULL, size * sizeof(rf_slot_t), IBV_ACCESS_LOCAL_WRITE,
                         &memory) != RF_OK)
        return false;
    rf_slot_t *ring = (rf_slot_t *)memory.base;
    for (uint64_t i = link->acked; i < link->slots_head; i++)
        ring[i & (size - 1)] = link->ring[i & (link->ring_size - 1)];
    if (path) { /* what is posted is still read from the smaller one */
        rdma_memory_free(&path->retired);
        path->retired = link->ring_memory;
        path->retired.mr = path->ring_mr;
        path->ring_mr = memory.mr;
        memory.mr = NULL;
    } else {
        rdma_memory_free(&link->ring_memory);
    }
    link->ring_memory = memory;
    link->ring = ring;
    link->ring_size = size;
    return true;
}

static bool in_grow(rdma_link_t *link, uint32_t size)
{
    rf_slot_t *in = aligned_alloc(sizeof *in, size * sizeof *in);
    if (!in) return false;
    for (uint64_t i = link->delivered; i < link->accepted; i++)
        in[i & (size - 1)] = link->in[i & (link->in_size - 1)];
    free(link->in);
    link->in = in;
    link->in_size = size;
    return true;
}

rf_err_t rdma_link_size(rdma_link_t *link, const rf_link_params_t *params)
{
    uint32_t slots = params->slots ? params->slots : SLOTS_DEFAULT;
    uint32_t slots_max = params->slots_max ? params->slots_max : SLOTS_MAX_DEFAULT;
    if (slots_max < slots) slots_max = slots;
    if (!power_of_two(slots) || !power_of_two(slots_max) || slots_max > RF_RING_SLOTS_MAX)
        return RF_ERR_INVALID;
    if (slots > link->ring_size && !ring_grow(link, slots)) return RF_ERR_NO_MEMORY;
    link->slots_max = slots_max > link->ring_size ? slots_max : link->ring_size;
    link->in_max = link->slots_max;
    return RF_OK;
}

rdma_link_t *rdma_link_new(rdma_endpoint_t *ep, const rf_link_params_t *params)
{
    static const rf_link_params_t defaults;
    if (!params) params = &defaults;
    rdma_link_t *link = calloc(1, sizeof *link);
    if (!link) return NULL;
    link->head.transport = &rf_transport_rdma;
    link->head.endpoint = &ep->head;
    link->head.user = params->user;
    link->head.state = RF_LINK_STATE_CONNECTING;
    link->dead_ns = link->ack_due_at = link->close_at = RF_NEVER;
    for (unsigned i = 0; i < RDMA_LANES; i++) {
        link->lanes[i].offer_ns = link->lanes[i].overdue_ns = RF_NEVER;
        link->lanes[i].backoff_ns = RDMA_BACKOFF_NS_MIN;
    }
    link->control_in = calloc(1, sizeof *link->control_in);
    if (!link->control_in || !in_grow(link, SLOTS_DEFAULT) || rdma_link_size(link, params) != RF_OK) {
        rdma_memory_free(&link->ring_memory);
        free(link->in);
        free(link->control_in);
        free(link);
        return NULL;
    }
    link->next = ep->links;
    if (ep->links) ep->links->prev = link;
    ep->links = link;
    ep->n_links++;
    return link;
}

static bool acked(rdma_link_t *link, uint64_t delivered);

static inline uint32_t ring_free(const rdma_link_t *link)
{
    return link->ring_size - (uint32_t)(link->slots_head - link->acked);
}

/* --- out ---------------------------------------------------------------------------------------------------- */

/* The path that slots flow over now; NULL: none. */
static rdma_path_t *path_up(const rdma_link_t *link)
{
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    return path && path->stage == RDMA_STAGE_UP && !path->failed ? path : NULL;
}

/* The next request: how many slots, of one run of the ring, and of the peer's. 0: none, or the peer takes no more now. */
static uint32_t request_slots(const rdma_link_t *link, const rdma_path_t *path)
{
    const rdma_path_info_t *peer = &path->peer;
    uint32_t room = peer->ring ? peer->ring_slots : peer->slots_max;
    uint64_t n = link->slots_head - link->posted, out = link->posted - link->acked;
    uint64_t left = out < room ? room - out : 0; /* this path's peer may take less than the one before */
    uint32_t run = link->ring_size - ((uint32_t)link->posted & (link->ring_size - 1));
    uint32_t most = peer->ring ? RDMA_WRITE_SLOTS : RDMA_MESSAGE_SLOTS;
    uint32_t messages = peer->messages < RDMA_MESSAGES ? peer->messages : RDMA_MESSAGES;
    if (peer->ring) {
        uint32_t to = (uint32_t)(link->posted - path->first) & (peer->ring_slots - 1);
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
    rf_slot_t *first = &link->ring[link->posted & (link->ring_size - 1)];
    uint64_t number = link->posted - path->first, ack = (link->delivered & 0xffff) << RF_CONTROL_ACK_SHIFT;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t parity = peer->ring ? rdma_ring_parity(number + i, peer->ring_slots) : 0;
        first[i].control = (first[i].control & CONTROL_CALLERS) | ack | parity;
    }
    *part = (struct ibv_sge){
        .addr = (uintptr_t)first, .length = n * (uint32_t)sizeof *first, .lkey = path->ring_mr->lkey};
    *request = (struct ibv_send_wr){.sg_list = part,
                                    .num_sge = 1,
                                    .opcode = IBV_WR_SEND,
                                    .send_flags = part->length <= path->inline_max ? IBV_SEND_INLINE : 0};
    link->posted += n;
    if (peer->ring) {
        request->opcode = IBV_WR_RDMA_WRITE;
        request->wr.rdma.remote_addr = peer->ring + (number & (peer->ring_slots - 1)) * sizeof(rf_slot_t);
        request->wr.rdma.rkey = peer->ring_key;
    } else {
        link->ends[link->ends_head++ % RDMA_MESSAGES] = link->posted;
    }
}

/* An acknowledgement goes out, in whatever way. */
static void ack_said(rdma_link_t *link)
{
    link->delivered_said = link->delivered;
    link->say_ack = false;
    while (link->came_tail != link->came_head &&
           link->came[link->came_tail % RDMA_MESSAGES] <= link->delivered)
        link->came_tail++;
}

static void word_say(rdma_link_t *link, rdma_path_t *path)
{
    uint32_t flags = link->say;
    if (link->posted != link->slots_head) flags &= ~RDMA_WORD_CLOSE; /* not before the last slot */
    if (flags == 0 && !link->say_ack) return;
    rdma_word_t word = {.flags = flags,
                        .generation = path->generation,
                        .delivered = link->delivered,
                        .placed = link->bulk ? rdma_bulk_taken(link) : 0,
                        .count = link->posted};
    if (!rdma_path_say(path, &word)) return;
    link->say &= ~flags;
    if (flags & RDMA_WORD_WANT_ACK)
        link->ack_asked_at = link->posted; /* what is posted later is asked for later */
    if (flags & RDMA_WORD_GRANT) path->peer_sleeps = true;
    ack_said(link);
}

/* The receiver sleeps: this request wakes it; iWARP has no immediates, there a word does. */
static void ring_peer(rdma_link_t *link, rdma_path_t *path, struct ibv_send_wr *request)
{
    path->peer_sleeps = false;
    link->stats.wakeups_sent++;
    if (path->device->iwarp)
        link->say |= RDMA_WORD_RING;
    else
        request->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
}

void rdma_push(rdma_link_t *link)
{
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
        if (path->peer_sleeps && path->peer.ring) ring_peer(link, path, &requests[n - 1]);
        if (link->posted > link->sent_max)
            link->sent_max = link->posted; /* it may be acknowledged from here on */
        rdma_path_post(path, requests, n);
        if (path->failed) return;
        if (n == room && !rdma_device_drain(path->device)) break;
        if (path_up(link) != path) return;
    }
    if (sent) {
        link->stats.flushes++;
        ack_said(link);
    }
    if (link->say || link->say_ack) word_say(link, path);
}

/* A send was refused: the peer is asked to say what it has taken, unless it has been asked. */
static void room_ask(rdma_link_t *link)
{
    if (link->ack_asked_at > link->acked || link->slots_head == link->acked) return;
    link->ack_asked_at = link->slots_head;
    link->say |= RDMA_WORD_WANT_ACK;
    rdma_push(link);
}

void rdma_line_hear(rdma_link_t *link)
{
    const rdma_path_t *path = path_up(link);
    if (!path || !path->written) return;
    uint64_t delivered = rdma_line_read(path);
    if (delivered > link->acked && !acked(link, delivered))
        rdma_link_wrong(link, "an acknowledgement of slots never sent");
}

unsigned rdma_room(rf_link_t *link_head, unsigned want)
{
    rdma_link_t *link = rdma_link_of(link_head);
    if (want > ring_free(link)) rdma_line_hear(link);
    if ((link_head->state != RF_LINK_STATE_UP && link_head->state != RF_LINK_STATE_BROKEN) ||
        link->end_pending)
        return 0;
    uint32_t size = link->ring_size;
    while (size - (uint32_t)(link->slots_head - link->acked) < want && size < link->slots_max) size *= 2;
    if (size > link->ring_size && !ring_grow(link, size) && rf_log_level() >= RF_LOG_DEBUG)
        rf_log(RF_LOG_DEBUG, "rdma: a ring does not grow to %u slots now", size);
    unsigned free_slots = ring_free(link);
    if (free_slots < want) {
        link->room_wanted = want < link->ring_size ? want : link->ring_size;
        room_ask(link);
    }
    return free_slots;
}

unsigned rdma_send(rf_link_t *link_head, const rf_slot_t *slots, unsigned n)
{
    rdma_link_t *link = rdma_link_of(link_head);
    if (rf_unlikely(link_head->state != RF_LINK_STATE_UP)) {
        if (link_head->state != RF_LINK_STATE_BROKEN || link->end_pending) return 0;
    }
    if (rf_unlikely(n > ring_free(link))) {
        unsigned room = rdma_room(link_head, n);
        if (room < n) {
            link->stats.full++;
            n = room;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        rf_slot_t *to = &link->ring[(link->slots_head + i) & (link->ring_size - 1)];
        memcpy(to, &slots[i], sizeof *to);
        to->control &= CONTROL_CALLERS;
    }
    link->slots_head += n;
    return n;
}

rf_err_t rdma_flush(rf_link_t *link_head)
{
    rdma_link_t *link = rdma_link_of(link_head);
    if (rf_unlikely(link_head->state == RF_LINK_STATE_DEAD || link->end_pending))
        return link->fenced                     ? RF_ERR_FENCED
               : link->end_err == RF_ERR_CLOSED ? RF_ERR_CLOSED
                                                : RF_ERR_PEER_DEAD;
    if (link->slots_head != link->posted) rdma_push(link);
    return RF_OK;
}

/* --- in ----------------------------------------------------------------------------------------------------- */

/* The peer's owner has taken `delivered` slots. False: it cannot have. */
static bool acked(rdma_link_t *link, uint64_t delivered)
{
    if (delivered > link->sent_max) return false;
    if (delivered <= link->acked) return true;
    link->acked = delivered;
    if (link->posted < delivered) link->posted = delivered;
    while (link->ends_tail != link->ends_head && link->ends[link->ends_tail % RDMA_MESSAGES] <= delivered)
        link->ends_tail++;
    if (link->room_wanted != 0) {
        if (ring_free(link) >= link->room_wanted) {
            link->room_wanted = 0;
            link->room_due = true;
            rdma_attention(link);
        } else {
            room_ask(link);
        }
    }
    if (link->posted != link->slots_head) rdma_push(link); /* the peer has buffers again */
    return true;
}

/* A slot may be taken later than a word or the line that was said after it: what is older is nothing new. */
static bool acked16(rdma_link_t *link, uint64_t control)
{
    int16_t more = (int16_t)((uint16_t)(control >> RF_CONTROL_ACK_SHIFT) - (uint16_t)link->acked);
    return more <= 0 || acked(link, link->acked + (uint64_t)more);
}

static void word_take(rdma_link_t *link, rdma_path_t *path, const rf_slot_t *slot)
{
    rdma_word_t word;
    memcpy(&word, slot->payload, sizeof word);
    if (rf_control_length(slot->control) != sizeof word || (word.flags & ~RDMA_WORD_FLAGS) ||
        (word.flags & RDMA_WORD_HELLO) || word.generation != path->generation || word.reserved[0] ||
        word.reserved[1] || word.reserved[2]) {
        rdma_link_wrong(link, "a word that makes no sense");
        return;
    }
    if (path->written) rdma_ring_take(link, path); /* what was written before it */
    if (!acked(link, word.delivered)) {
        rdma_link_wrong(link, "an acknowledgement of slots never sent");
        return;
    }
    if (word.placed != 0 && !rdma_bulk_placed(link, word.placed)) {
        rdma_link_wrong(link, "an acknowledgement of bytes never sent");
        return;
    }
    /* A ring may hold more by now than when the word was said. */
    bool counted = path->written ? word.count <= link->accepted : word.count == link->accepted;
    if (((word.flags & RDMA_WORD_WANT_ACK) && !counted) ||
        ((word.flags & RDMA_WORD_CLOSE) && word.count != link->accepted)) {
        rdma_link_wrong(link, "a count of slots never sent");
        return;
    }
    if (word.flags & RDMA_WORD_WANT_ACK) link->ack_due_at = word.count;
    if (word.flags & RDMA_WORD_CLOSE) {
        link->close_at = word.count;
        rdma_attention(link);
    }
    rdma_sleep_word(link, path, word.flags);
    if (link->ack_due_at <= link->delivered) {
        link->ack_due_at = RF_NEVER;
        link->say_ack = true;
    }
    if (link->say || link->say_ack) rdma_push(link);
}

static bool slot_right(const rf_slot_t *slot)
{
    return rf_control_valid(slot->control) && rf_control_type(slot->control) < RF_SLOT_TYPE_MEDIUM &&
           !(slot->control & RF_CONTROL_PARITY);
}

void rdma_link_accept(rdma_link_t *link, rdma_path_t *path, const rf_slot_t *slots, uint32_t n)
{
    uint64_t after = link->accepted - link->delivered + n;
    uint32_t in_size = link->in_size;
    while (in_size < after && in_size < link->in_max) in_size *= 2;
    if (after > link->in_max || link->close_at != RF_NEVER) {
        rdma_link_wrong(link, "more slots than there was room for");
        return;
    }
    if (in_size > link->in_size && !in_grow(link, in_size)) {
        rdma_path_broken(path); /* the slots come again over the next */
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!slot_right(&slots[i])) {
            rdma_link_wrong(link, "a slot that makes no sense");
            return;
        }
        link->in[(link->accepted + i) & (link->in_size - 1)] = slots[i];
    }
    link->accepted += n;
    if (link->user_closed) link->delivered = link->accepted; /* nobody takes them any more */
    if (!acked16(link, slots[n - 1].control)) rdma_link_wrong(link, "an acknowledgement of slots never sent");
}

void rdma_link_message(rdma_link_t *link, rdma_path_t *path, const uint8_t *bytes, uint32_t size)
{
    const rf_slot_t *slots = (const rf_slot_t *)bytes;
    uint32_t n = size / (uint32_t)sizeof *slots;
    if (link->wrong || link->end_pending) return;
    if (size % sizeof *slots != 0 || n == 0 || n > RDMA_MESSAGE_SLOTS) {
        rdma_link_wrong(link, "a message of no whole slots");
        return;
    }
    if (n == 1 && rf_control_type(slots[0].control) == RDMA_WORD) {
        word_take(link, path, &slots[0]);
        return;
    }
    if (path->written || link->came_head - link->came_tail == RDMA_MESSAGES) {
        rdma_link_wrong(link, path->written ? "slots by SEND" : "more slots than there was room for");
        return;
    }
    uint64_t after = link->accepted + n;
    rdma_link_accept(link, path, slots, n);
    if (link->accepted == after) link->came[link->came_head++ % RDMA_MESSAGES] = after;
}

bool rdma_link_take(rdma_link_t *link)
{
    rdma_path_t *path = path_up(link);
    if (!path) return false;
    uint64_t before = link->accepted;
    rdma_device_drain(path->device);
    if (path_up(link) == path && path->written) {
        rdma_ring_take(link, path);
        if (link->room_wanted != 0 || link->posted != link->slots_head) rdma_line_hear(link);
    }
    return link->accepted != before;
}

bool rdma_link_served(const rdma_link_t *link)
{
    return link->delivered == link->accepted && (!link->bulk || !rdma_bulk_ready(link));
}

static unsigned serve(rdma_link_t *link, rf_slot_t *out, unsigned max)
{
    uint64_t there = link->head.state == RF_LINK_STATE_CONNECTING ? 0 : link->accepted - link->delivered;
    unsigned n = there < max ? (unsigned)there : max;
    for (unsigned i = 0; i < n; i++) {
        memcpy(&out[i], &link->in[(link->delivered + i) & (link->in_size - 1)], sizeof *out);
        out[i].control &= CONTROL_CALLERS;
    }
    link->delivered += n;
    return n;
}

/* Says what has been taken, when enough has been, or the peer asked. */
static void ack_if_due(rdma_link_t *link)
{
    bool asked = link->delivered >= link->ack_due_at;
    uint32_t late = link->came_tail + RDMA_MESSAGES / ACK_SHARE - 1;
    bool messages = link->came_head - link->came_tail >= RDMA_MESSAGES / ACK_SHARE &&
                    link->came[late % RDMA_MESSAGES] <= link->delivered;
    if (!asked && !messages && link->delivered - link->delivered_said < link->in_size / ACK_SHARE) return;
    link->stats.acks_explicit++;
    rdma_path_t *path = path_up(link);
    if (!asked && path && path->peer.line) {
        if (rdma_line_write(path, link->delivered)) ack_said(link);
        return;
    }
    if (asked) link->ack_due_at = RF_NEVER;
    link->say_ack = true;
    rdma_push(link);
}

unsigned rdma_poll(rf_link_t *link_head, rf_slot_t *out, unsigned max)
{
    rdma_link_t *link = rdma_link_of(link_head);
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    if (link->fenced || max == 0) return 0;
    rdma_enter(ep);
    unsigned n = serve(link, out, max);
    if (n < max) {
        if (!rdma_link_take(link) && link->device) rdma_device_drain(link->device);
        if (rf_unlikely(link->attention) && n == 0) rdma_link_settle(link);
        if (link->buried || link->fenced) goto leave;
        n += serve(link, out + n, max - n);
        if (link->bulk && n < max) n += rdma_bulk_notified(link, out + n, max - n);
    }
    if (n > 0)
        ack_if_due(link);
    else if (rf_unlikely(link->end_pending || link->close_at != RF_NEVER))
        rdma_link_settle(link);
leave:
    rdma_leave(ep);
    return n;
}

void rdma_arm(rf_link_t *link_head)
{
    rdma_link_t *link = rdma_link_of(link_head);
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    if (link->device) rdma_device_arm(link->device);
    if (path && path->written && link->posted != link->slots_head) room_ask(link); /* the line wakes nobody */
    if (path && path == path_up(link) && path->written) rdma_sleep_arm(link, path);
    link->armed = true;
}

void rdma_disarm(rf_link_t *link)
{
    rdma_link_of(link)->armed = false;
}

bool rdma_ready(rf_link_t *link_head)
{
    rdma_link_t *link = rdma_link_of(link_head);
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    if (link->fenced) return false;
    if (link->delivered == link->accepted && !rdma_link_take(link) && link->device)
        rdma_device_drain(link->device);
    const rdma_path_t *path = path_up(link);
    bool rung = link->armed && path && path->written &&
                path->sleep == RDMA_AWAKE; /* since arm(), and that was all the ringing there is */
    return link->delivered != link->accepted || link->attention || ep->attention || rung ||
           (link->end_pending && rdma_link_served(link)) || (link->bulk && rdma_bulk_ready(link));
}

void rdma_link_settle(rdma_link_t *link)
{
    link->attention = false;
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path, *bulk = link->lanes[RDMA_LANE_BULK].path;
    if (link->wrong && !link->end_pending && link->head.state != RF_LINK_STATE_DEAD) {
        link->stats.protocol_errors++;
        if (rf_log_once_per(&rdma_endpoint_of(link)->log_garbage_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "rdma: the peer at %s sent %s; its link ends", link->address_text,
                   link->wrong);
        link->accepted = link->delivered;
        rdma_link_end(link, RF_ERR_PROTOCOL);
        return;
    }
    if (bulk && bulk->failed) {
        rdma_path_kill(bulk);
        if (link->bulk->acked != link->bulk->head) rdma_control_need(link, RDMA_LANE_BULK, rf_clock_ns());
    }
    if (path && path->failed) {
        if (path->stage == RDMA_STAGE_UP && rf_log_level() >= RF_LOG_DEBUG)
            rf_log(RF_LOG_DEBUG, "rdma: the path to %s failed: %s", link->address_text,
                   ibv_wc_status_str(path->why));
        link->up_due = false;
        rdma_link_broken(link, path->why == IBV_WC_RETRY_EXC_ERR ? RF_ERR_TIMEOUT : RF_ERR_CLOSED);
        if (link->buried) return;
    }
    if (link->up_due && link->head.state != RF_LINK_STATE_DEAD) {
        link->up_due = false;
        const rf_hello_t peer = link->head.peer;
        link->head.state = RF_LINK_STATE_UP;
        rdma_event(link, RF_LINK_UP, RF_OK, &peer, 0);
        if (link->buried) return;
    }
    if (link->room_due) {
        link->room_due = false;
        rdma_event(link, RF_LINK_ROOM, RF_OK, NULL, 0);
        if (link->buried) return;
    }
    if (link->bulk) rdma_bulk_settle(link);
    if (link->buried) return;
    if (link->close_at != RF_NEVER && link->close_at == link->delivered && rdma_link_served(link)) {
        rdma_link_closed(link);
        return;
    }
    if (link->end_pending) rdma_link_end_settle(link);
}

bool rdma_link_resume(rdma_link_t *link, uint64_t peer_accepted)
{
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    if (peer_accepted < link->acked || peer_accepted > link->sent_max) return false;
    path->first = link->posted = peer_accepted;
    link->stats.retransmitted += link->sent_max - peer_accepted;
    link->ends_head = link->ends_tail = link->came_head = link->came_tail = 0;
    link->delivered_said = link->delivered;
    link->ack_due_at = RF_NEVER;
    link->ack_asked_at = link->acked;
    link->say = link->user_closed ? RDMA_WORD_CLOSE : 0;
    link->say_ack = link->delivered != 0;
    if (link->room_wanted != 0) {
        link->ack_asked_at = link->slots_head;
        link->say |= RDMA_WORD_WANT_ACK;
    }
    link->was_up = link->up_due = true;
    link->up_ns = rf_clock_ns();
    if (!link->user_closed) link->dead_ns = RF_NEVER;
    rdma_push(link);
    return true;
}

void rdma_stats(rf_link_t *link_head, rf_link_stats_t *out)
{
    rdma_link_t *link = rdma_link_of(link_head);
    link->stats.slots_sent = link->slots_head;
    link->stats.slots_received = link->delivered;
    link->stats.ring_slots_send = link->ring_size;
    link->stats.ring_slots_receive = link->in_size;
    *out = link->stats;
}
