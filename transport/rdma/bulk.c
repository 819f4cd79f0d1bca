/*
 * Regions and remote writes: a second queue pair of the link, so that bulk never delays slots, in a protection domain of
 * the link's own.
 *
 * A write goes as RDMA WRITEs of at most RDMA_BULK_PIECE bytes, straight from the caller's buffer into the peer's region,
 * and behind them a message, rdma_placed_t, with its number and its notify slot. The caller's buffer is registered while
 * the device reads it and no longer: nothing tells when the caller unmaps it, and a registration of what was there before
 * would write old bytes. On RoCE and InfiniBand the message's completion says that all of it is at the peer; on iWARP it
 * says that TCP has it, and the peer's word `placed` counts. After a break both say how many writes came whole, and the
 * sender goes on from there; a write that came in part is written again.
 *
 * A region that its owner destroys stays registered until the peer has said that nothing of it is on its way there.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define WRITE_SIZE_MAX (1ull << 48)

rf_err_t rdma_bulk_need(rdma_link_t *link)
{
    if (link->bulk) return RF_OK;
    rdma_bulk_t *bulk =
        aligned_alloc(RF_CACHE_LINE, (sizeof *bulk + RF_CACHE_LINE - 1) & ~(size_t)(RF_CACHE_LINE - 1));
    if (!bulk) return RF_ERR_NO_MEMORY;
    memset(bulk, 0, sizeof *bulk);
    link->bulk = bulk;
    return RF_OK;
}

void rdma_bulk_free(rdma_link_t *link)
{
    rdma_bulk_t *bulk = link->bulk;
    if (!bulk) return;
    for (unsigned i = 0; i < RDMA_REGIONS_MAX; i++) rdma_memory_free(&bulk->regions[i].memory);
    free(bulk);
    link->bulk = NULL;
}

static rdma_path_t *path_up(const rdma_link_t *link)
{
    rdma_path_t *path = link->lanes[RDMA_LANE_BULK].path;
    return path && path->stage == RDMA_STAGE_UP && !path->failed ? path : NULL;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static bool is_gone(const rdma_bulk_t *bulk, uint32_t region)
{
    uint32_t n = bulk->n_gone < RDMA_GONE_MAX ? bulk->n_gone : RDMA_GONE_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (bulk->gone[i] == region) return true;
    }
    return false;
}

static void pieces_release(rdma_bulk_t *bulk, const rdma_path_t *path)
{
    while (bulk->pieces_tail != bulk->pieces_head) {
        rdma_piece_t *piece = &bulk->pieces[bulk->pieces_tail % RDMA_PIECES_MAX];
        if (path && (int32_t)(path->completed - piece->end) < 0) return;
        ibv_dereg_mr(piece->mr);
        bulk->pieces_tail++;
    }
}

/* Posts the next piece of a write. False: not now. */
static bool piece_post(rdma_link_t *link, rdma_path_t *path, rdma_write_t *write)
{
    rdma_bulk_t *bulk = link->bulk;
    uint64_t left = write->size - write->sent;
    uint32_t size = left < RDMA_BULK_PIECE ? (uint32_t)left : RDMA_BULK_PIECE;
    const uint8_t *from = write->source + write->sent;
    struct ibv_sge part = {.addr = (uintptr_t)from, .length = size};
    struct ibv_send_wr request = {
        .sg_list = &part,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .wr.rdma = {.remote_addr = write->to.base + write->offset + write->sent, .rkey = write->to.rkey}};
    if (size <= path->inline_max) {
        request.send_flags = IBV_SEND_INLINE;
    } else {
        if (bulk->pieces_head - bulk->pieces_tail == RDMA_PIECES_MAX) return false;
        struct ibv_mr *mr = ibv_reg_mr(path->domain->pd, (void *)part.addr, size, 0);
        if (!mr) { /* when others are given back there may be room; if none are, the link cannot go on */
            if (bulk->pieces_head == bulk->pieces_tail) {
                rdma_memory_refused(rdma_endpoint_of(link), size);
                link->wrong = "nothing, but this end may lock no memory to send";
                rdma_attention(link);
            }
            return false;
        }
        part.lkey = mr->lkey;
        request.send_flags = IBV_SEND_SIGNALED;
        bulk->pieces[bulk->pieces_head++ % RDMA_PIECES_MAX] =
            (rdma_piece_t){.mr = mr, .end = path->posted + 1};
    }
    rdma_path_post(path, &request, 1);
    write->sent += size;
    return !path->failed;
}

/* The message behind the bytes. */
static void tail_post(rdma_path_t *path, rdma_write_t *write, uint64_t number)
{
    rdma_placed_t tail;
    memset(&tail, 0, sizeof tail);
    tail.write = number;
    tail.size = write->size;
    tail.has_notify = write->has_notify;
    if (write->has_notify) tail.notify = write->notify;
    struct ibv_sge part = {.addr = (uintptr_t)&tail, .length = sizeof tail};
    struct ibv_send_wr request = {.sg_list = &part,
                                  .num_sge = 1,
                                  .opcode = IBV_WR_SEND,
                                  .send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED};
    if (path->tails.base) { /* its place is free again when the write is done */
        rdma_placed_t *place = (rdma_placed_t *)path->tails.base + number % RDMA_WRITES_MAX;
        memcpy(place, &tail, sizeof tail);
        part.addr = (uintptr_t)place;
        part.lkey = path->tails.mr->lkey;
        request.send_flags = IBV_SEND_SIGNALED;
    }
    rdma_path_post(path, &request, 1);
    write->end = path->posted;
}

void rdma_bulk_pump(rdma_link_t *link)
{
    rdma_bulk_t *bulk = link->bulk;
    rdma_path_t *path = path_up(link);
    if (link->head.state != RF_LINK_STATE_UP || link->user_closed || link->end_pending) return;
    if (!path && bulk->done < bulk->head) {
        rdma_lane_t *lane = &link->lanes[RDMA_LANE_BULK];
        if (lane->path || lane->wanted) return;
        lane->wanted = true;
        lane->backoff_ns = RDMA_BACKOFF_NS_MIN;
        rdma_control_need(link, RDMA_LANE_BULK, rf_clock_ns());
    }
    while (path && !path->failed && bulk->posted < bulk->head && rdma_path_room(path) >= 2) {
        rdma_write_t *write = &bulk->writes[bulk->posted % RDMA_WRITES_MAX];
        if (write->sent < write->size && !is_gone(bulk, write->to.region)) {
            if (!piece_post(link, path, write)) return;
            continue;
        }
        tail_post(path, write, bulk->posted);
        link->stats.bytes_written += write->size;
        bulk->posted++;
    }
}

void rdma_bulk_detach(rdma_link_t *link)
{
    rdma_bulk_t *bulk = link->bulk;
    link->lanes[RDMA_LANE_BULK].wanted = false;
    if (!bulk) return;
    pieces_release(bulk, NULL);
    for (uint32_t i = bulk->notify_tail; i != bulk->notify_head; i++)
        bulk->notify[i % RDMA_BULK_BUFFERS].buffer = NULL;
}

bool rdma_bulk_resume(rdma_link_t *link, uint64_t peer_placed)
{
    rdma_bulk_t *bulk = link->bulk;
    if (peer_placed < bulk->done || peer_placed > bulk->posted) return false;
    bulk->done = bulk->posted = bulk->told = peer_placed;
    for (uint64_t i = bulk->posted; i < bulk->head; i++) bulk->writes[i % RDMA_WRITES_MAX].sent = 0;
    return true;
}

/* Regions that the peer wants to forget, and that nothing is on its way to. */
static void gone_say(rdma_link_t *link)
{
    rdma_bulk_t *bulk = link->bulk;
    while (bulk->n_freed < bulk->n_gone && bulk->done >= bulk->gone_after) {
        rdma_region_gone_t gone = {.region = bulk->gone[bulk->n_freed % RDMA_GONE_MAX]};
        if (!rdma_control_say(link, RDMA_CONTROL_REGION_FREE, &gone, sizeof gone)) return;
        bulk->n_freed++;
    }
}

void rdma_bulk_settle(rdma_link_t *link)
{
    rdma_bulk_t *bulk = link->bulk;
    rdma_path_t *path = link->lanes[RDMA_LANE_BULK].path;
    if (path) pieces_release(bulk, path);
    /* The device reads the bytes until the message's completion; with iWARP they may be on their way still. */
    while (path && bulk->done < bulk->posted && (!path->device->iwarp || bulk->done < bulk->told) &&
           (int32_t)(path->completed - bulk->writes[bulk->done % RDMA_WRITES_MAX].end) >= 0 && !path->failed)
        bulk->done++;
    gone_say(link);
    while (bulk->acked < bulk->done && !link->buried && !link->fenced && !link->user_closed) {
        uint64_t cookie = bulk->writes[bulk->acked++ % RDMA_WRITES_MAX].cookie;
        rdma_event(link, RF_LINK_WRITTEN, RF_OK, NULL, cookie);
    }
    if (!link->buried) rdma_bulk_pump(link);
}

bool rdma_bulk_placed(rdma_link_t *link, uint64_t placed)
{
    rdma_bulk_t *bulk = link->bulk;
    if (!bulk || placed > bulk->posted) return false;
    if (placed > bulk->told) {
        bulk->told = placed;
        rdma_attention(link);
    }
    return true;
}

void rdma_bulk_fail(rdma_link_t *link, rf_err_t err)
{
    rdma_bulk_t *bulk = link->bulk;
    if (!bulk) return;
    while (bulk->acked < bulk->head && !link->buried && !link->fenced && !link->user_closed) {
        uint64_t number = bulk->acked++;
        uint64_t cookie = bulk->writes[number % RDMA_WRITES_MAX].cookie;
        rf_err_t why = number < bulk->done ? RF_OK : err;
        if (bulk->done < bulk->acked) bulk->done = bulk->acked;
        if (bulk->posted < bulk->done) bulk->posted = bulk->done;
        rdma_event(link, RF_LINK_WRITTEN, why, NULL, cookie);
    }
}

/* --- in ----------------------------------------------------------------------------------------------------- */

bool rdma_bulk_ready(const rdma_link_t *link)
{
    return link->bulk->notify_head != link->bulk->notify_tail;
}

uint64_t rdma_bulk_taken(const rdma_link_t *link)
{
    return link->bulk->placed - (link->bulk->notify_head - link->bulk->notify_tail);
}

bool rdma_bulk_message(rdma_link_t *link, rdma_buffer_t *buffer, uint32_t size)
{
    rdma_bulk_t *bulk = link->bulk;
    rdma_placed_t tail;
    if (size != sizeof tail) {
        rdma_link_wrong(link, "a remote write that makes no sense");
        return false;
    }
    memcpy(&tail, buffer->bytes, sizeof tail);
    bool right = tail.write == bulk->placed && tail.size <= WRITE_SIZE_MAX && tail.has_notify <= 1;
    for (unsigned i = 0; i < sizeof tail.reserved / sizeof *tail.reserved; i++)
        right = right && tail.reserved[i] == 0;
    if (right && tail.has_notify)
        right = rf_control_valid(tail.notify.control) &&
                rf_control_type(tail.notify.control) < RF_SLOT_TYPE_MEDIUM &&
                bulk->notify_head - bulk->notify_tail < RDMA_BULK_BUFFERS;
    if (!right) {
        rdma_link_wrong(link, "a remote write that makes no sense");
        return false;
    }
    bulk->placed++;
    link->stats.bytes_placed += tail.size;
    if (tail.has_notify && !link->user_closed) {
        bulk->notify[bulk->notify_head++ % RDMA_BULK_BUFFERS] =
            (rdma_notify_t){.slot = tail.notify, .buffer = buffer};
        return true;
    }
    if (link->device->iwarp) {
        link->say_ack = true;
        rdma_push(link);
    }
    return false;
}

unsigned rdma_bulk_notified(rdma_link_t *link, rf_slot_t *out, unsigned max)
{
    rdma_bulk_t *bulk = link->bulk;
    unsigned n = 0;
    while (n < max && bulk->notify_head != bulk->notify_tail) {
        rdma_notify_t *notify = &bulk->notify[bulk->notify_tail++ % RDMA_BULK_BUFFERS];
        out[n++] = notify->slot;
        if (notify->buffer) rdma_buffer_post(link->device, notify->buffer);
    }
    if (n > 0 && link->device->iwarp) {
        link->say_ack = true;
        rdma_push(link);
    }
    return n;
}

/* --- regions ------------------------------------------------------------------------------------------------ */

void rdma_bulk_region_gone(rdma_link_t *link, uint64_t region)
{
    if (rdma_bulk_need(link) != RF_OK) return; /* then it stays until the link ends */
    rdma_bulk_t *bulk = link->bulk;
    bulk->gone[bulk->n_gone++ % RDMA_GONE_MAX] = (uint32_t)region;
    bool partly = bulk->posted < bulk->head && bulk->writes[bulk->posted % RDMA_WRITES_MAX].sent > 0;
    bulk->gone_after = bulk->posted + partly;
    gone_say(link);
}

void rdma_bulk_region_free(rdma_link_t *link, uint64_t region)
{
    for (unsigned i = 0; link->bulk && i < RDMA_REGIONS_MAX; i++) {
        rdma_region_t *r = &link->bulk->regions[i];
        if (!r->gone || r->gone_due || r->id != region) continue;
        rdma_memory_free(&r->memory);
        r->used = r->gone = false;
        return;
    }
    rdma_link_wrong(link, "of a region that was never destroyed");
}

void rdma_bulk_shut(rdma_link_t *link)
{
    for (unsigned i = 0; i < RDMA_REGIONS_MAX; i++) {
        rdma_memory_t *memory = &link->bulk->regions[i].memory;
        if (memory->mr) ibv_dereg_mr(memory->mr);
        memory->mr = NULL;
    }
}

void rdma_bulk_push_control(rdma_link_t *link)
{
    rdma_bulk_t *bulk = link->bulk;
    for (unsigned i = 0; i < RDMA_REGIONS_MAX; i++) {
        rdma_region_t *region = &bulk->regions[i];
        if (!region->gone_due) continue;
        rdma_region_gone_t gone = {.region = region->id};
        region->gone_due = !rdma_control_say(link, RDMA_CONTROL_REGION_GONE, &gone, sizeof gone);
    }
    gone_say(link);
}

rf_err_t rdma_region_create(rf_link_t *link_head, size_t size, rf_region_t **out)
{
    rdma_link_t *link = rdma_link_of(link_head);
    if (size == 0 || size > WRITE_SIZE_MAX) return RF_ERR_INVALID;
    if (!link->device || link_head->state == RF_LINK_STATE_DEAD) return RF_ERR_AGAIN;
    rf_err_t err = rdma_bulk_need(link);
    if (err == RF_OK && !link->domain) err = rdma_domain_make(link->device, &link->domain);
    if (err != RF_OK) return err;
    rdma_region_t *region = NULL;
    for (unsigned i = 0; i < RDMA_REGIONS_MAX && !region; i++)
        region = link->bulk->regions[i].used ? NULL : &link->bulk->regions[i];
    if (!region) return RF_ERR_LIMIT;
    err = rdma_memory_make(link->domain->pd, size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
                           &region->memory);
    if (err != RF_OK) {
        rdma_memory_refused(rdma_endpoint_of(link), size);
        return err;
    }
    region->used = true;
    region->id = link->bulk->regions_made++;
    region->head.base = region->memory.base;
    region->head.size = size;
    rdma_region_key_t key = {.base = (uintptr_t)region->memory.base,
                             .size = size,
                             .rkey = region->memory.mr->rkey,
                             .region = region->id};
    memcpy(&region->head.key, &key, sizeof key);
    *out = &region->head;
    return RF_OK;
}

void rdma_region_destroy(rf_link_t *link_head, rf_region_t *region_head)
{
    rdma_link_t *link = rdma_link_of(link_head);
    rdma_region_t *region = (rdma_region_t *)region_head;
    if (link_head->state == RF_LINK_STATE_DEAD || !link->control) { /* nothing can be on its way */
        rdma_memory_free(&region->memory);
        region->used = false;
        return;
    }
    region->gone = region->gone_due = true;
    rdma_control_push(link);
}

rf_err_t rdma_remote_write(rf_link_t *link_head, const rf_region_key_t *key, uint64_t offset,
                           const void *source, size_t size, const rf_slot_t *notify, uint64_t cookie)
{
    rdma_link_t *link = rdma_link_of(link_head);
    if (link_head->state == RF_LINK_STATE_DEAD || link->end_pending)
        return link->fenced ? RF_ERR_FENCED : RF_ERR_PEER_DEAD;
    rdma_region_key_t to;
    memcpy(&to, key, sizeof to);
    if (size > WRITE_SIZE_MAX || offset > to.size || size > to.size - offset) return RF_ERR_INVALID;
    if (notify &&
        (!rf_control_valid(notify->control) || rf_control_type(notify->control) >= RF_SLOT_TYPE_MEDIUM))
        return RF_ERR_INVALID;
    rf_err_t err = rdma_bulk_need(link);
    if (err != RF_OK) return err;
    rdma_bulk_t *bulk = link->bulk;
    if (bulk->head - bulk->acked == RDMA_WRITES_MAX) return RF_ERR_AGAIN;
    rdma_write_t *write = &bulk->writes[bulk->head % RDMA_WRITES_MAX];
    *write = (rdma_write_t){.to = to, .offset = offset, .size = size, .cookie = cookie, .source = source};
    if (notify) {
        write->has_notify = true;
        write->notify = *notify;
    }
    bulk->head++;
    rdma_enter(rdma_endpoint_of(link));
    rdma_bulk_pump(link);
    rdma_leave(rdma_endpoint_of(link));
    return RF_OK;
}
