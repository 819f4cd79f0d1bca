/*
 * Regions, remote writes and remote reads: a second queue pair of the link, so that bulk never delays slots, in a protection domain
 * of the link's own.
 *
 * A write goes as RDMA WRITEs of at most RDMA_BULK_PIECE bytes, straight from the caller's buffer into the peer's region;
 * whatever is to go at a look, of all writes and reads, goes with one doorbell, which may be a system call. Behind its bytes, with a notify slot, comes a message, rdma_placed_t. On RoCE and InfiniBand
 * the last request's completion says that all of it is at the peer, so a write that notifies nobody has no message, and
 * wakes nobody; on iWARP, where it says that TCP has it, a READ of no bytes stands in the message's place. One speaks for all writes
 * before it, and costs a packet, a wake-up there, and a packet back. With up to WRITES_A_READ under way each has one; with up to WRITES_FEW
 * every second, which is as many as keep the wire busy; with more, each BYTES_A_READ has one, so that the places of the first are
 * taken again while the last are on the wire; of fewer bytes one READ at a time is under way, and the next is sent when it returns.
 * For writes with a message the peer's word `placed` counts there, which also keeps buffers for messages free. After a break both say up to which write all has come whole,
 * as far as they know, and the sender goes on from there: what came in part, or came and said nothing, is written again, which
 * its receiver cannot tell.
 *
 * A remote read goes as RDMA READs of such pieces, behind the writes that were asked for before it, which a queue pair that works in
 * order places first. READs are counted apart, since soft-iWARP completes what follows one before it. After a break a read is read
 * again, whole.
 *
 * What the device reads from, or reads into, must be registered. A region of the same link is. Of other memory the caller promises only
 * that it stays until WRITTEN or READ; so its registration stays as long as something is under way that uses it, shared by
 * all for whose bytes it serves, and no longer: nothing tells when the caller unmaps it, and a registration of what was
 * there before would write old bytes. For the same reason nothing new shares it once the request that it was made for is done:
 * of its bytes the caller promises then only those of the others. Why that stands in place of a registration cache over time, and who wants memory registered for
 * longer: doc/adr/0014-rdma-over-a-control-link.md, "Registration".
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 32 /* requests with one doorbell */
/* iWARP: above */
#define WRITES_FEW    4
#define WRITES_A_READ 2
#define READS_FEW     4
#define BYTES_A_READ  ((uint64_t)1 << 20)

static bool is_gone(const rdma_bulk_t *bulk, uint32_t region)
{
    uint32_t n = bulk->n_gone < RDMA_GONE_MAX ? bulk->n_gone : RDMA_GONE_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (bulk->gone[i] == region) return true;
    }
    return false;
}

/* --- what the device reads from, or into --------------------------------------------------------------------- */

static bool is_past(uint32_t count, uint32_t end)
{
    return (int32_t)(count - end) >= 0;
}

/* Gives back what nothing is under way from, or to, any more, and shuts what its owner may be told of; without a path, gives
 * back all. */
static void loans_release(rdma_bulk_t *bulk, const rdma_path_t *path)
{
    for (unsigned i = bulk->n_loans; i > 0; i--) {
        rdma_loan_t *loan = &bulk->loans[i - 1];
        if (path &&
            !(is_past(path->completed, loan->end) && is_past(path->reads_completed, loan->read_end))) {
            loan->shut |= is_past(loan->written ? path->reads_completed : path->completed, loan->made);
            continue;
        }
        ibv_dereg_mr(loan->mr);
        bulk->lent -= loan->size;
        *loan = bulk->loans[--bulk->n_loans];
    }
}

static bool within(const uint8_t *from, size_t size, const uint8_t *base, size_t whole)
{
    return from >= base && size <= whole && (size_t)(from - base) <= whole - size;
}

/* iWARP places a READ's answer by the key of where it goes (RFC 5040, 5.4), as it does a WRITE. */
static int access_of(const rdma_path_t *path, bool written)
{
    if (!written) return 0;
    return IBV_ACCESS_LOCAL_WRITE | (path->device->iwarp ? IBV_ACCESS_REMOTE_WRITE : 0);
}

/* The link ends, but not under the hands of who is posting. */
static void loan_refused(rdma_link_t *link, const rdma_path_t *path, const uint8_t *base, uint32_t size,
                         bool written)
{
    rdma_endpoint_t *ep = path->device->endpoint;
    rdma_bulk_of(link)->refused = errno == EFAULT ? RF_ERR_INVALID : RF_ERR_NO_MEMORY;
    path_link_attention(&link->base);
    if (errno != EFAULT)
        rdma_memory_refused(ep, size);
    else if (rf_log_once_per(&ep->base.log_bulk_ns, PATH_LOG_INTERVAL_NS))
        rf_log(
            RF_LOG_ERROR,
            "rdma: a remote %s of the link to %s has %u bytes at %p that this process may not %s: the link "
            "ends; keep them until %s is told",
            written ? "read" : "write", link->base.address_text, size, (const void *)base,
            written ? "write" : "read", written ? "READ" : "WRITTEN");
}

static rdma_loan_t *loan_make(rdma_link_t *link, const rdma_path_t *path, const uint8_t *base, uint32_t size,
                              bool written, uint32_t made)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    bool full = bulk->n_loans == RDMA_LOANS_MAX || bulk->lent + size > RDMA_LENT_MAX;
    if (full && bulk->n_loans > 0) return NULL;
    struct ibv_mr *mr = ibv_reg_mr(path->domain->pd, (void *)(uintptr_t)base, size, access_of(path, written));
    if (!mr) { /* when others are given back there may be room; if none are, the link cannot go on */
        if (errno == EFAULT || bulk->n_loans == 0) loan_refused(link, path, base, size, written);
        return NULL;
    }
    rdma_loan_t *loan = &bulk->loans[bulk->n_loans++];
    *loan = (rdma_loan_t){.mr = mr,
                          .base = base,
                          .size = size,
                          .written = written,
                          .made = made,
                          .end = path->completed,
                          .read_end = path->reads_completed};
    bulk->lent += size;
    return loan;
}

/* The key, for the request (READ) that will be the path's `end`th, of what it reads from (has written). False: not now. */
static bool memory_key(rdma_link_t *link, const rdma_path_t *path, const uint8_t *base, uint32_t size,
                       bool written, uint32_t end, uint32_t *out)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    for (unsigned i = 0; i < bulk->regions_end; i++) {
        const rdma_memory_t *memory = &bulk->regions[i].memory;
        if (!memory->mr || bulk->regions[i].gone || !within(base, size, memory->base, memory->size)) continue;
        *out = memory->mr->lkey;
        return true;
    }
    rdma_loan_t *loan = NULL;
    for (unsigned i = 0; i < bulk->n_loans && !loan; i++) {
        rdma_loan_t *there = &bulk->loans[i];
        bool serves = !there->shut && there->written >= written;
        if (serves && within(base, size, there->base, there->size)) loan = there;
    }
    if (!loan) loan = loan_make(link, path, base, size, written, end);
    if (!loan) return false;
    *(written ? &loan->read_end : &loan->end) = end;
    *out = loan->mr->lkey;
    return true;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

/* Requests for one doorbell; a write's or read's begin at `own`. */
typedef struct batch {
    unsigned n, own, reads;
    struct ibv_send_wr requests[BATCH];
    struct ibv_sge parts[BATCH];
    rdma_placed_t tails[BATCH];
} batch_t;

/* How many requests it may have. */
static unsigned batch_limit(const rdma_path_t *path)
{
    return rdma_path_room(path) < BATCH ? rdma_path_room(path) : BATCH;
}

static struct ibv_send_wr *batch_add(batch_t *batch, enum ibv_wr_opcode opcode, const void *memory,
                                     uint32_t size)
{
    struct ibv_sge *part = &batch->parts[batch->n];
    struct ibv_send_wr *request = &batch->requests[batch->n++];
    *part = (struct ibv_sge){.addr = (uintptr_t)memory, .length = size};
    *request = (struct ibv_send_wr){
        .sg_list = part, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
    batch->reads += opcode == IBV_WR_RDMA_READ;
    return request;
}

static void batch_post(batch_t *batch, rdma_path_t *path)
{
    if (batch->n > 0) rdma_path_post(path, batch->requests, batch->n);
    batch->n = batch->reads = 0;
}

static rdma_region_key_t key_of(const rf_region_key_t *of)
{
    rdma_region_key_t key;
    memcpy(&key, of, sizeof key);
    return key;
}

/* What the region is registered as now: its owner may have had another device when it gave the key. */
static uint32_t rkey_of(const rdma_bulk_t *bulk, const rdma_region_key_t *key)
{
    for (uint32_t i = 0; i < bulk->n_moved; i++) {
        if (bulk->moved[i].region == key->region) return bulk->moved[i].rkey;
    }
    return key->rkey;
}

/* The next piece. False: not now. */
static bool piece_add(rdma_link_t *link, const rdma_path_t *path, uint64_t number, batch_t *batch)
{
    const path_write_t *write = &link->base.bulk->writes[number % PATH_WRITES_MAX];
    rdma_sending_t *sending = &rdma_bulk_of(link)->sending[number % PATH_WRITES_MAX];
    uint64_t left = write->size - sending->sent;
    uint32_t size = left < RDMA_BULK_PIECE ? (uint32_t)left : RDMA_BULK_PIECE, key = 0;
    const uint8_t *from = write->source + sending->sent;
    rdma_region_key_t to = key_of(&write->to);
    bool inlined = size <= path->inline_size;
    if (!inlined && !memory_key(link, path, from, size, false, path->posted + batch->n + 1, &key))
        return false;
    struct ibv_send_wr *request = batch_add(batch, IBV_WR_RDMA_WRITE, from, size);
    request->sg_list->lkey = key;
    if (inlined) request->send_flags |= IBV_SEND_INLINE;
    request->wr.rdma.remote_addr = to.base + write->offset + sending->sent;
    request->wr.rdma.rkey = rkey_of(rdma_bulk_of(link), &to);
    sending->sent += size;
    return true;
}

/* What is added next completes for the bytes, too: their last request need not. Soft-iWARP is asked to complete it all the same: of a
 * request that it need not, if it is of a page or more, it gives TCP the pages one by one (siw_qp_tx.c: use_sendpage), which takes
 * twice as long as its copying of one that it must. */
static void bytes_end(const rdma_path_t *path, batch_t *batch)
{
    if (batch->n > batch->own && !path->device->iwarp)
        batch->requests[batch->n - 1].send_flags &= ~(unsigned)IBV_SEND_SIGNALED;
}

/* The message behind the bytes, whose completion is theirs, too. */
static void tail_add(const rdma_path_t *path, const path_write_t *write, uint64_t number, batch_t *batch)
{
    rdma_placed_t *tail = &batch->tails[batch->n];
    if (path->tails.base) /* its place is free again when the write is done */
        tail = (rdma_placed_t *)path->tails.base + number % PATH_WRITES_MAX;
    memset(tail, 0, sizeof *tail);
    tail->write = number;
    tail->total = write->total;
    tail->has_notify = write->has_notify;
    if (write->has_notify) tail->notify = write->notify;
    bytes_end(path, batch);
    struct ibv_send_wr *request = batch_add(batch, IBV_WR_SEND, tail, sizeof *tail);
    if (path->tails.base)
        request->sg_list->lkey = path->tails.mr->lkey;
    else
        request->send_flags |= IBV_SEND_INLINE;
}

/* ... for the writes before `end`. */
static bool may_read_behind(const path_link_t *link, const rdma_path_t *path, const batch_t *batch,
                            uint64_t end)
{
    uint32_t reads = path->reads_posted + batch->reads - path->reads_completed;
    uint64_t under_way = end - link->bulk->done;
    if (reads == 0) return true;
    if (under_way <= WRITES_A_READ) return reads < READS_FEW;
    if (under_way > WRITES_FEW)
        return reads < READS_FEW && link->stats.bytes_written - path->read_at >= BYTES_A_READ;
    return reads < WRITES_FEW / WRITES_A_READ && end - path->read_to >= WRITES_A_READ;
}

/* What a READ that is posted now speaks for. */
static void read_speaks(const path_link_t *link, rdma_path_t *path, uint64_t end)
{
    path->read_to = end;
    path->read_at = link->stats.bytes_written;
    path->unread = 0;
}

/* Of no bytes: its answer comes after the bytes before it have been placed (RFC 5040, 5.5), which on iWARP the completion of
 * a WRITE does not say. For the writes before `end`. */
static void read_add(const path_link_t *link, rdma_path_t *path, uint64_t end, batch_t *batch)
{
    const path_write_t *write = &link->bulk->writes[(end - 1) % PATH_WRITES_MAX];
    rdma_region_key_t to = key_of(&write->to);
    struct ibv_send_wr *request = batch_add(batch, IBV_WR_RDMA_READ, path->buffers->memory.base, 0);
    request->sg_list->lkey = path->buffers->memory.mr->lkey;
    request->wr.rdma.remote_addr = to.base + write->offset;
    request->wr.rdma.rkey = rkey_of(rdma_bulk_of(rdma_path_link(path)), &to);
    read_speaks(link, path, end);
}

/* Behind the writes that had none of their own, now that one before has come back. Their region is there: its owner forgets it when they
 * are done (gone_say). */
static void read_behind(const path_link_t *link, rdma_path_t *path, batch_t *batch)
{
    if (path->unread == 0 || batch->n == batch_limit(path)) return;
    if (may_read_behind(link, path, batch, path->unread)) read_add(link, path, path->unread, batch);
}

/* Adds what there is room for of the next write. True: it is there wholly. */
static bool write_add(rdma_link_t *link, rdma_path_t *path, batch_t *batch)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    uint64_t number = bulk->base.posted;
    const path_write_t *write = &bulk->base.writes[number % PATH_WRITES_MAX];
    rdma_sending_t *sending = &bulk->sending[number % PATH_WRITES_MAX];
    unsigned limit = batch_limit(path);
    bool gone = is_gone(bulk, key_of(&write->to).region);
    batch->own = batch->n;
    while (!gone && sending->sent < write->size && batch->n + 1 < limit) {
        if (!piece_add(link, path, number, batch)) break;
    }
    bool whole = (gone || sending->sent == write->size) && batch->n < limit;
    if (!whole) return false;
    uint32_t next_read = path->reads_posted + batch->reads + 1;
    link->base.stats.bytes_written += write->size;
    sending->says = write->has_notify || batch->n == batch->own;
    bool reads = path->device->iwarp && !sending->says;
    if (sending->says)
        tail_add(path, write, number, batch);
    else if (reads && may_read_behind(&link->base, path, batch, number + 1))
        read_add(&link->base, path, number + 1, batch);
    else if (reads)
        path->unread = number + 1;
    sending->end = path->posted + batch->n;
    sending->read_end = reads ? next_read : path->reads_completed;
    sending->sent = 0; /* for the next in its place */
    bulk->base.posted++;
    return true;
}

/* The next piece of a read. False: not now. */
static bool ask_add(rdma_link_t *link, const rdma_path_t *path, path_read_t *read, batch_t *batch)
{
    uint64_t left = read->size - read->sent;
    uint32_t size = left < RDMA_BULK_PIECE ? (uint32_t)left : RDMA_BULK_PIECE, key = 0;
    uint8_t *into = read->into + read->sent;
    rdma_region_key_t from = key_of(&read->from);
    uint32_t end = path->reads_posted + batch->reads + 1;
    if (!memory_key(link, path, into, size, true, end, &key)) return false;
    struct ibv_send_wr *request = batch_add(batch, IBV_WR_RDMA_READ, into, size);
    request->sg_list->lkey = key;
    request->wr.rdma.remote_addr = from.base + read->offset + read->sent;
    request->wr.rdma.rkey = rkey_of(rdma_bulk_of(link), &from);
    read->sent += size;
    return true;
}

/* Adds what there is room for of the next read. True: all of it is there. */
static bool asks_add(rdma_link_t *link, rdma_path_t *path, batch_t *batch)
{
    path_bulk_t *bulk = link->base.bulk;
    path_read_t *read = &bulk->reads[bulk->read_posted % PATH_READS_MAX];
    unsigned limit = path->device->iwarp && batch_limit(path) > batch->n ? batch->n + 1 : batch_limit(path);
    batch->own = batch->n;
    if (is_gone(rdma_bulk_of(link), key_of(&read->from).region)) read->err = RF_ERR_NOT_FOUND;
    while (read->err == RF_OK && read->sent < read->size && batch->n < limit) {
        if (!ask_add(link, path, read, batch)) break;
    }
    bool any = batch->n > batch->own, whole = read->err != RF_OK || read->sent == read->size;
    if (any) read_speaks(&link->base, path, bulk->posted); /* these are behind the writes, too */
    if (!whole) return false;
    read->end = path->reads_posted + batch->reads; /* an empty one is done with the one before it */
    read->sent = 0;
    bulk->read_posted++;
    if (!any) path_link_attention(&link->base);
    return true;
}

/* False: there is nothing, or not all of what is next can be added now. */
static bool next_add(rdma_link_t *link, rdma_path_t *path, batch_t *batch)
{
    const path_bulk_t *bulk = link->base.bulk;
    if (bulk->read_posted < bulk->read_head &&
        bulk->reads[bulk->read_posted % PATH_READS_MAX].after <= bulk->posted)
        return asks_add(link, path, batch);
    return bulk->posted < bulk->head && write_add(link, path, batch);
}

/* Of READs that reach it together soft-iWARP answers now and then a later one first, and its requester, to which that is too long or
 * goes elsewhere, ends the connection (siw_qp_rx.c: siw_init_rresp takes an idle sender for an empty queue). So there each has a
 * doorbell of its own; that is no proof against it, but made it rare, and a break is mended. */
static bool batch_ends(const batch_t *batch, const rdma_path_t *path)
{
    return path->device->iwarp && batch->reads > 0;
}

void rdma_bulk_pump(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_path_t *path;
    batch_t batch;
    batch.n = batch.reads = 0;
    while ((path = rdma_path_up(link, PATH_LANE_BULK))) {
        bool more = next_add(link, path, &batch);
        if (!more) read_behind(base, path, &batch);
        if (!more && batch.n == 0) break;
        if (!more || batch_ends(&batch, path)) batch_post(&batch, path);
    }
}

void rdma_bulk_failed(path_lane_t *lane, enum ibv_wc_status why)
{
    path_link_t *link = lane->link;
    bool over = link->head.state == RF_LINK_STATE_DEAD || link->end_pending;
    if (why != IBV_WC_REM_ACCESS_ERR || over) {
        path_lane_lost(lane, RF_ERR_CLOSED, lane->stage != PATH_UP || path_bulk_waits(link->bulk));
        return;
    }
    if (rf_log_once_per(&path_endpoint_of(link)->log_bulk_ns, PATH_LOG_INTERVAL_NS))
        rf_log(
            RF_LOG_ERROR,
            "rdma: %s refuses a remote write or read (%s): its key is of no region there, or it leaves the "
            "region; the link ends: use the key that the region's owner gave over this link",
            link->address_text, ibv_wc_status_str(why));
    path_lane_impossible(lane, RF_ERR_PERMISSION);
}

void rdma_bulk_detach(rdma_link_t *link)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    if (!bulk) return;
    loans_release(bulk, NULL);
    for (uint32_t i = bulk->base.notify_tail; i != bulk->base.notify_head; i++)
        bulk->notify[i % RDMA_BULK_BUFFERS].buffer = NULL;
}

bool rdma_bulk_resume(path_link_t *link, uint64_t peer_placed)
{
    rdma_bulk_t *bulk = rdma_bulk_of(rdma_link_of(link));
    path_bulk_t *base = &bulk->base;
    /* It need not know of all that is done, but of what it was told. */
    if (peer_placed > base->posted || peer_placed < bulk->said) return false;
    if (base->done < peer_placed) base->done = peer_placed;
    base->posted = bulk->told = base->done;
    memset(bulk->sending, 0, sizeof bulk->sending);
    return true;
}

/* Regions that the peer wants to forget, and that nothing is on its way to. */
static void gone_say(rdma_link_t *link)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    while (bulk->n_freed < bulk->n_gone && bulk->base.done >= bulk->gone_after &&
           bulk->base.read_done >= bulk->gone_after_reads) {
        rdma_region_gone_t gone = {.region = bulk->gone[bulk->n_freed % RDMA_GONE_MAX]};
        if (!path_control_say(&link->base, RDMA_CONTROL_REGION_FREE, &gone, sizeof gone)) return;
        bulk->n_freed++;
    }
}

static void reads_settle(path_bulk_t *bulk, const rdma_path_t *path)
{
    while (path && !rdma_path_over(path) && bulk->read_done < bulk->read_posted &&
           is_past(path->reads_completed, bulk->reads[bulk->read_done % PATH_READS_MAX].end))
        bulk->read_done++;
}

void rdma_bulk_settle(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    if (bulk->refused != RF_OK) {
        path_lane_impossible(&base->lanes[PATH_LANE_BULK], bulk->refused);
        bulk->refused = RF_OK;
    }
    const rdma_path_t *path = link->paths[PATH_LANE_BULK];
    if (path) loans_release(bulk, path);
    /* On iWARP a message's completion says that TCP has it, and the peer's word that it was taken. */
    while (path && bulk->base.done < bulk->base.posted && !rdma_path_over(path)) {
        const rdma_sending_t *sending = &bulk->sending[bulk->base.done % PATH_WRITES_MAX];
        if (!is_past(path->completed, sending->end) || !is_past(path->reads_completed, sending->read_end))
            break;
        if (path->device->iwarp && sending->says && bulk->base.done >= bulk->told) break;
        bulk->base.done++;
        if (sending->says) bulk->said = bulk->base.done;
    }
    reads_settle(&bulk->base, path);
    gone_say(link);
}

bool rdma_bulk_placed(rdma_link_t *link, uint64_t placed)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    if (!bulk || placed > bulk->base.posted) return false;
    if (placed > bulk->told) {
        bulk->told = placed;
        path_link_attention(&link->base);
    }
    return true;
}

/* --- in ----------------------------------------------------------------------------------------------------- */

uint64_t rdma_bulk_taken(const rdma_link_t *link)
{
    const path_bulk_t *bulk = link->base.bulk;
    return bulk->placed - (bulk->notify_head - bulk->notify_tail);
}

bool rdma_bulk_owes(const rdma_link_t *link)
{
    const rdma_bulk_t *bulk = rdma_bulk_of(link);
    return bulk && link->device && link->device->iwarp && rdma_bulk_taken(link) != bulk->taken_said;
}

void rdma_bulk_said(rdma_link_t *link, uint64_t taken)
{
    if (link->base.bulk) rdma_bulk_of(link)->taken_said = taken;
}

bool rdma_bulk_message(rdma_link_t *link, rdma_buffer_t *buffer, uint32_t size)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    rdma_placed_t tail;
    if (size != sizeof tail) {
        path_link_wrong(&link->base, "a remote write that makes no sense");
        return false;
    }
    memcpy(&tail, buffer->bytes, sizeof tail);
    bool right = tail.write >= bulk->base.placed && tail.write != UINT64_MAX &&
                 tail.total >= link->base.stats.bytes_placed && tail.has_notify <= 1;
    for (unsigned i = 0; i < sizeof tail.reserved / sizeof *tail.reserved; i++)
        right = right && tail.reserved[i] == 0;
    if (right && tail.has_notify)
        right = rf_control_valid(tail.notify.control) &&
                rf_control_type(tail.notify.control) < RF_SLOT_TYPE_MEDIUM &&
                rdma_bulk_waiting(link) < RDMA_BULK_BUFFERS;
    if (!right) {
        path_link_wrong(&link->base, "a remote write that makes no sense");
        return false;
    }
    bulk->base.placed = tail.write + 1;
    link->base.stats.bytes_placed = tail.total;
    if (tail.has_notify && !link->base.user_closed) {
        bulk->notify[bulk->base.notify_head++ % RDMA_BULK_BUFFERS] =
            (rdma_notify_t){.slot = tail.notify, .buffer = buffer};
        return true;
    }
    if (link->device->iwarp) {
        link->base.say_ack = true;
        rdma_push(&link->base);
    }
    return false;
}

/* Whose path has ended: one that the path there is now was not given (path_fill). */
static void held_back_post(rdma_link_t *link)
{
    rdma_path_t *path = link->paths[PATH_LANE_BULK];
    if (!path || path->held_back == 0) return;
    rdma_buffer_t *buffer = &path->buffers->of[--path->held_back];
    if (!rdma_path_over(path)) rdma_buffer_post(path->device, buffer);
}

unsigned rdma_bulk_notified(rdma_link_t *link, rf_slot_t *out, unsigned max)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    unsigned n = 0;
    while (n < max && bulk->base.notify_head != bulk->base.notify_tail) {
        rdma_notify_t *notify = &bulk->notify[bulk->base.notify_tail++ % RDMA_BULK_BUFFERS];
        out[n++] = notify->slot;
        if (notify->buffer)
            rdma_buffer_post(link->device, notify->buffer);
        else
            held_back_post(link);
    }
    if (n > 0 && link->device && link->device->iwarp) {
        link->base.say_ack = true;
        rdma_push(&link->base);
    }
    return n;
}

/* --- what the peer says of its regions ----------------------------------------------------------------------- */

static void moved_forget(rdma_bulk_t *bulk, uint32_t region)
{
    for (uint32_t i = bulk->n_moved; i > 0; i--) {
        if (bulk->moved[i - 1].region == region) bulk->moved[i - 1] = bulk->moved[--bulk->n_moved];
    }
}

/* The peer has destroyed a region. */
static void region_gone(rdma_link_t *link, uint64_t region)
{
    if (path_bulk_need(&link->base) != RF_OK) return; /* then it stays until the link ends */
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    bulk->gone[bulk->n_gone++ % RDMA_GONE_MAX] = (uint32_t)region;
    moved_forget(bulk, (uint32_t)region);
    bool partly =
        bulk->base.posted < bulk->base.head && bulk->sending[bulk->base.posted % PATH_WRITES_MAX].sent > 0;
    bulk->gone_after = bulk->base.posted + partly;
    partly = bulk->base.read_posted < bulk->base.read_head &&
             bulk->base.reads[bulk->base.read_posted % PATH_READS_MAX].sent > 0;
    bulk->gone_after_reads = bulk->base.read_posted + partly;
    gone_say(link);
}

/* A region of the peer has another key. False: it cannot have so many. */
static bool region_moved(rdma_link_t *link, const rdma_region_moved_t *moved)
{
    rf_err_t err = path_bulk_need(&link->base);
    if (err != RF_OK) { /* writes to come would go astray */
        path_link_end(&link->base, err);
        return true;
    }
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    moved_forget(bulk, moved->region);
    if (bulk->n_moved == RDMA_REGIONS_MAX) return false;
    bulk->moved[bulk->n_moved++] = *moved;
    return true;
}

bool rdma_bulk_control(path_link_t *base, uint8_t type, const uint8_t *bytes, size_t size)
{
    rdma_link_t *link = rdma_link_of(base);
    rdma_region_gone_t gone;
    rdma_region_moved_t moved;
    if (size != sizeof gone) return false;
    memcpy(&gone, bytes, sizeof gone);
    memcpy(&moved, bytes, sizeof moved);
    switch (type) {
    case RDMA_CONTROL_REGION_GONE:
        region_gone(link, gone.region);
        return true;
    case RDMA_CONTROL_REGION_FREE:
        return rdma_region_freed(link, gone.region);
    case RDMA_CONTROL_REGION_MOVED:
        return region_moved(link, &moved);
    default:
        return false;
    }
}

void rdma_bulk_push_control(rdma_link_t *link)
{
    rdma_regions_push(link);
    gone_say(link);
}
