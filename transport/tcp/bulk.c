/*
 * Regions and remote writes: a second connection of the link, so that bulk never delays slots.
 *
 * A write goes as chunks of at most TCP_BULK_CHUNK_MAX bytes, straight from the caller's buffer into the peer's
 * region. The receiver counts writes placed whole, and says so in the frames of the main connection; after a break
 * both say in their hellos how far they are, and the sender goes on from there. Everything a peer says is checked
 * against the regions of this link alone: it can reach nothing else.
 */
#include "transport/tcp/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WRITE_SIZE_MAX (1ull << 48)

rf_err_t tcp_bulk_need(tcp_link_t *link)
{
    if (link->bulk) return RF_OK;
    tcp_bulk_state_t *bulk =
        aligned_alloc(RF_CACHE_LINE, (sizeof *bulk + RF_CACHE_LINE - 1) & ~(size_t)(RF_CACHE_LINE - 1));
    if (!bulk) return RF_ERR_NO_MEMORY;
    memset(bulk, 0, sizeof *bulk);
    bulk->dial_ns = RF_NEVER;
    bulk->backoff_ns = TCP_BACKOFF_NS_MIN;
    bulk->connect_ns = TCP_CONNECT_NS_MIN;
    link->bulk = bulk;
    return RF_OK;
}

void tcp_bulk_free(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    if (!bulk) return;
    for (unsigned i = 0; i < TCP_REGIONS_MAX; i++) {
        if (bulk->regions[i].used) munmap(bulk->regions[i].head.base, bulk->regions[i].head.size);
    }
    free(bulk);
    link->bulk = NULL;
}

/* --- the connection ----------------------------------------------------------------------------------------- */

void tcp_bulk_dial(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    if (!link->dialer || bulk->conn || bulk->setup || bulk->dial_ns != RF_NEVER) return;
    uint64_t now_ns = rf_clock_ns();
    uint64_t earliest_ns = bulk->dialled_ns + TCP_BACKOFF_NS_MIN;
    if (now_ns < earliest_ns) {
        bulk->dial_ns = earliest_ns;
        tcp_timer(tcp_endpoint_of(link), earliest_ns);
        return;
    }
    bulk->dialled_ns = now_ns;
    tcp_dial(link, true, now_ns);
}

void tcp_bulk_detach(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    tcp_conn_free(tcp_endpoint_of(link), bulk->conn);
    bulk->conn = NULL;
    bulk->dial_ns = RF_NEVER;
    bulk->asked = false;
    bulk->chunk_open = false;
    bulk->chunk_left = bulk->out_size = bulk->out_sent = 0;
    bulk->in_data = false;
    bulk->in_size = bulk->in_left = 0;
}

void tcp_bulk_attach(tcp_link_t *link, tcp_conn_t *conn, uint64_t peer_placed, uint64_t peer_partial)
{
    tcp_bulk_state_t *bulk = link->bulk;
    bool possible = peer_placed >= bulk->acked && peer_placed <= bulk->full;
    if (possible && peer_partial > 0)
        possible =
            peer_placed < bulk->head && peer_partial <= bulk->writes[peer_placed % TCP_WRITES_MAX].size;
    if (!possible) {
        tcp_conn_free(tcp_endpoint_of(link), conn);
        tcp_protocol_error(link, "counts of bytes never sent");
        return;
    }
    conn->role = TCP_ROLE_BULK;
    conn->link = link;
    conn->readable = conn->writable = true;
    bulk->conn = conn;
    bulk->asked = false;
    bulk->backoff_ns = TCP_BACKOFF_NS_MIN;
    bulk->connect_ns = TCP_CONNECT_NS_MIN;
    bulk->full = peer_placed;
    bulk->sent = peer_partial;
    tcp_bulk_placed(link, peer_placed);
    if (!link->buried) tcp_bulk_pump(link);
}

static void connection_lost(tcp_link_t *link)
{
    tcp_bulk_detach(link);
    if (link->bulk->acked == link->bulk->head) return;
    if (link->dialer) {
        tcp_bulk_dial(link);
    } else {
        link->say_bulk = link->bulk->asked = true;
        tcp_push(link);
    }
}

/* --- in ----------------------------------------------------------------------------------------------------- */

static tcp_region_t *region_find(tcp_bulk_state_t *bulk, uint64_t id)
{
    for (unsigned i = 0; i < TCP_REGIONS_MAX; i++) {
        if (bulk->regions[i].used && bulk->regions[i].id == id) return &bulk->regions[i];
    }
    return NULL;
}

/* A chunk's head is in: decides where its bytes go. False: it makes no sense. */
static bool chunk_check(tcp_bulk_state_t *bulk, const tcp_bulk_t *chunk)
{
    if (chunk->size > TCP_BULK_CHUNK_MAX || (chunk->flags & ~TCP_BULK_FLAGS) || chunk->reserved[0] ||
        chunk->reserved[1])
        return false;
    if (chunk->write != bulk->placed || chunk->done != bulk->partial || chunk->total > WRITE_SIZE_MAX ||
        chunk->done + chunk->size > chunk->total)
        return false;
    bool last = chunk->done + chunk->size == chunk->total;
    if (last != ((chunk->flags & TCP_BULK_LAST) != 0) ||
        (!last && ((chunk->flags & TCP_BULK_NOTIFY) || chunk->size == 0)))
        return false;
    if (chunk->region >= bulk->regions_made) return false;
    bulk->in_region = chunk->region;
    bulk->in_at = NULL;
    bulk->in_left = chunk->size;
    tcp_region_t *region = region_find(bulk, chunk->region);
    if (!region) return true; /* destroyed since the peer heard of it: its bytes are dropped */
    if (chunk->offset > region->head.size || chunk->size > region->head.size - chunk->offset) return false;
    bulk->in_at = (uint8_t *)region->head.base + chunk->offset;
    return true;
}

static uint32_t head_size(const tcp_bulk_state_t *bulk)
{
    tcp_bulk_t chunk;
    if (bulk->in_size < sizeof chunk) return sizeof chunk;
    memcpy(&chunk, bulk->in, sizeof chunk);
    return (uint32_t)(sizeof chunk + ((chunk.flags & TCP_BULK_NOTIFY) ? sizeof(rf_slot_t) : 0));
}

/* A chunk has been placed. False: its notify slot has no room yet. */
static bool chunk_done(tcp_bulk_state_t *bulk)
{
    tcp_bulk_t chunk;
    memcpy(&chunk, bulk->in, sizeof chunk);
    if (chunk.flags & TCP_BULK_NOTIFY) {
        if (bulk->notify_tail - bulk->notify_head == TCP_WRITES_MAX) return false;
        memcpy(&bulk->notify[bulk->notify_tail++ % TCP_WRITES_MAX], bulk->in + sizeof chunk,
               sizeof(rf_slot_t));
    }
    if (chunk.flags & TCP_BULK_LAST) {
        bulk->placed++;
        bulk->partial = 0;
    }
    bulk->in_data = false;
    bulk->in_size = 0;
    return true;
}

/* The head, and the notify slot if one follows, are whole. */
static bool head_take(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    tcp_bulk_t chunk;
    memcpy(&chunk, bulk->in, sizeof chunk);
    bool right = chunk_check(bulk, &chunk);
    if (right && (chunk.flags & TCP_BULK_NOTIFY)) {
        rf_slot_t slot;
        memcpy(&slot, bulk->in + sizeof chunk, sizeof slot);
        right = rf_control_valid(slot.control) && rf_control_type(slot.control) < RF_SLOT_TYPE_MEDIUM;
    }
    if (!right) tcp_protocol_error(link, "a remote write that makes no sense");
    bulk->in_data = right;
    return right;
}

static void pump_in(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    tcp_conn_t *conn = bulk->conn;
    uint8_t scratch[4096];
    uint32_t moved = 0;
    while (moved < TCP_BULK_QUANTUM) {
        if (bulk->in_data && bulk->in_left == 0) {
            if (!chunk_done(bulk)) return; /* poll() takes notify slots out and comes back */
            continue;
        }
        if (!bulk->in_data && bulk->in_size >= sizeof(tcp_bulk_t) && bulk->in_size == head_size(bulk)) {
            if (!head_take(link)) return;
            continue;
        }
        int64_t got;
        if (!bulk->in_data) {
            got = tcp_conn_recv(conn, bulk->in + bulk->in_size, head_size(bulk) - bulk->in_size);
            bulk->in_size += got > 0 ? (uint32_t)got : 0;
        } else {
            uint32_t size =
                bulk->in_at || bulk->in_left < sizeof scratch ? bulk->in_left : (uint32_t)sizeof scratch;
            got = tcp_conn_recv(conn, bulk->in_at ? bulk->in_at : scratch, size);
            if (got > 0) {
                bulk->in_at += bulk->in_at ? got : 0;
                bulk->in_left -= (uint32_t)got;
                bulk->partial += (uint64_t)got;
                link->stats.bytes_placed += (uint64_t)got;
            }
        }
        if (got == TCP_IO_AGAIN) return;
        if (got <= 0) {
            connection_lost(link);
            return;
        }
        moved += (uint32_t)got;
    }
    conn->readable = true; /* there may be more: the next pump looks */
}

unsigned tcp_bulk_notified(tcp_link_t *link, rf_slot_t *out, unsigned max)
{
    tcp_bulk_state_t *bulk = link->bulk;
    unsigned n = 0;
    while (n < max && bulk->notify_head != bulk->notify_tail)
        out[n++] = bulk->notify[bulk->notify_head++ % TCP_WRITES_MAX];
    return n;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static void chunk_make(tcp_bulk_state_t *bulk)
{
    const tcp_write_t *write = &bulk->writes[bulk->full % TCP_WRITES_MAX];
    uint64_t left = write->size - bulk->sent;
    uint32_t size = left < TCP_BULK_CHUNK_MAX ? (uint32_t)left : TCP_BULK_CHUNK_MAX;
    tcp_bulk_t chunk = {.size = size,
                        .write = bulk->full,
                        .region = write->region,
                        .offset = write->offset + bulk->sent,
                        .done = bulk->sent,
                        .total = write->size};
    bulk->out_size = sizeof chunk;
    bulk->out_sent = 0;
    if (size == left) {
        chunk.flags |= TCP_BULK_LAST;
        if (write->has_notify) {
            chunk.flags |= TCP_BULK_NOTIFY;
            memcpy(bulk->out + sizeof chunk, &write->notify, sizeof write->notify);
            bulk->out_size += (uint32_t)sizeof write->notify;
        }
    }
    memcpy(bulk->out, &chunk, sizeof chunk);
    bulk->chunk_left = size;
    if (size > 0 && size <= TCP_BULK_COPY_MAX) {
        memcpy(bulk->out + bulk->out_size, write->source + bulk->sent, size);
        bulk->out_size += size;
        bulk->sent += size;
        bulk->chunk_left = 0;
    }
    bulk->chunk_open = true;
}

static void pump_out(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    uint32_t moved = 0;
    while (moved < TCP_BULK_QUANTUM) {
        if (!bulk->chunk_open) {
            if (bulk->full == bulk->head) return;
            chunk_make(bulk);
        }
        const tcp_write_t *write = &bulk->writes[bulk->full % TCP_WRITES_MAX];
        int64_t sent = 0;
        if (bulk->out_sent < bulk->out_size) {
            sent = tcp_conn_send(bulk->conn, bulk->out + bulk->out_sent, bulk->out_size - bulk->out_sent);
            bulk->out_sent += sent > 0 ? (uint32_t)sent : 0;
        } else if (bulk->chunk_left > 0) {
            sent = tcp_conn_send(bulk->conn, write->source + bulk->sent, bulk->chunk_left);
            bulk->chunk_left -= sent > 0 ? (uint32_t)sent : 0;
            bulk->sent += sent > 0 ? (uint64_t)sent : 0;
        }
        if (sent == TCP_IO_AGAIN) return;
        if (sent < 0) {
            connection_lost(link);
            return;
        }
        moved += (uint32_t)sent;
        if (bulk->out_sent == bulk->out_size && bulk->chunk_left == 0) {
            bulk->chunk_open = false;
            if (bulk->sent == write->size) {
                link->stats.bytes_written += write->size;
                bulk->full++;
                bulk->sent = 0;
            }
        }
    }
}

bool tcp_bulk_ready(const tcp_link_t *link)
{
    const tcp_bulk_state_t *bulk = link->bulk;
    if (!bulk) return false;
    uint32_t waiting = bulk->notify_tail - bulk->notify_head;
    if (waiting > 0) return true;
    return bulk->conn && link->head.state == RF_LINK_STATE_UP &&
           (tcp_conn_more(bulk->conn) ||
            (bulk->conn->writable && (bulk->full < bulk->head || bulk->chunk_open)));
}

void tcp_bulk_pump(tcp_link_t *link)
{
    tcp_bulk_state_t *bulk = link->bulk;
    if (bulk->pumping || link->head.state != RF_LINK_STATE_UP || link->user_closed || link->end_pending)
        return;
    bulk->pumping = true;
    if (bulk->conn && tcp_conn_more(bulk->conn)) pump_in(link);
    if (bulk->conn && bulk->conn->writable) pump_out(link);
    if (!bulk->conn && link->conn && bulk->acked < bulk->head) {
        if (link->dialer) {
            tcp_bulk_dial(link);
        } else if (!bulk->asked) {
            link->say_bulk = bulk->asked = true;
            tcp_push(link);
        }
    }
    bulk->pumping = false;
    if (bulk->placed != bulk->placed_said && link->conn) {
        link->say_ack = true;
        tcp_push(link);
    }
    if (tcp_bulk_ready(link)) tcp_endpoint_of(link)->bulk_busy = true;
}

bool tcp_bulk_placed(tcp_link_t *link, uint64_t placed)
{
    tcp_bulk_state_t *bulk = link->bulk;
    if (!bulk || placed > bulk->full) return false;
    while (bulk->acked < placed && !link->buried && !link->fenced && !link->user_closed) {
        uint64_t cookie = bulk->writes[bulk->acked++ % TCP_WRITES_MAX].cookie;
        tcp_event(link, RF_LINK_WRITTEN, RF_OK, NULL, cookie);
    }
    return true;
}

void tcp_bulk_fail(tcp_link_t *link, rf_err_t err)
{
    tcp_bulk_state_t *bulk = link->bulk;
    if (!bulk) return;
    while (bulk->acked < bulk->head && !link->buried && !link->fenced && !link->user_closed) {
        uint64_t cookie = bulk->writes[bulk->acked++ % TCP_WRITES_MAX].cookie;
        if (bulk->full < bulk->acked) bulk->full = bulk->acked;
        tcp_event(link, RF_LINK_WRITTEN, err, NULL, cookie);
    }
}

/* --- operations --------------------------------------------------------------------------------------------- */

rf_err_t tcp_region_create(rf_link_t *link_head, size_t size, rf_region_t **out)
{
    tcp_link_t *link = tcp_link_of(link_head);
    if (size == 0 || size > WRITE_SIZE_MAX) return RF_ERR_INVALID;
    rf_err_t err = tcp_bulk_need(link);
    if (err != RF_OK) return err;
    tcp_region_t *region = NULL;
    for (unsigned i = 0; i < TCP_REGIONS_MAX && !region; i++)
        region = link->bulk->regions[i].used ? NULL : &link->bulk->regions[i];
    if (!region) return RF_ERR_LIMIT;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return RF_ERR_NO_MEMORY;
    region->used = true;
    region->id = link->bulk->regions_made++;
    region->head.base = base;
    region->head.size = size;
    tcp_region_key_t key = {.region = region->id, .size = size};
    memcpy(&region->head.key, &key, sizeof key);
    *out = &region->head;
    return RF_OK;
}

void tcp_region_destroy(rf_link_t *link_head, rf_region_t *region_head)
{
    tcp_bulk_state_t *bulk = tcp_link_of(link_head)->bulk;
    tcp_region_t *region = (tcp_region_t *)region_head;
    munmap(region->head.base, region->head.size);
    region->used = false;
    if (bulk->in_region == region->id) bulk->in_at = NULL;
}

rf_err_t tcp_remote_write(rf_link_t *link_head, const rf_region_key_t *key, uint64_t offset,
                          const void *source, size_t size, const rf_slot_t *notify, uint64_t cookie)
{
    tcp_link_t *link = tcp_link_of(link_head);
    if (link_head->state == RF_LINK_STATE_DEAD || link->end_pending)
        return link->fenced ? RF_ERR_FENCED : RF_ERR_PEER_DEAD;
    tcp_region_key_t to;
    memcpy(&to, key, sizeof to);
    if (to.reserved != 0 || size > WRITE_SIZE_MAX || offset > to.size || size > to.size - offset)
        return RF_ERR_INVALID;
    if (notify &&
        (!rf_control_valid(notify->control) || rf_control_type(notify->control) >= RF_SLOT_TYPE_MEDIUM))
        return RF_ERR_INVALID;
    rf_err_t err = tcp_bulk_need(link);
    if (err != RF_OK) return err;
    tcp_bulk_state_t *bulk = link->bulk;
    if (bulk->head - bulk->acked == TCP_WRITES_MAX) return RF_ERR_AGAIN;
    tcp_write_t *write = &bulk->writes[bulk->head % TCP_WRITES_MAX];
    *write = (tcp_write_t){
        .region = to.region, .offset = offset, .size = size, .cookie = cookie, .source = source};
    if (notify) {
        write->has_notify = true;
        write->notify = *notify;
    }
    bulk->head++;
    tcp_enter(tcp_endpoint_of(link));
    tcp_bulk_pump(link);
    tcp_leave(tcp_endpoint_of(link));
    return RF_OK;
}
