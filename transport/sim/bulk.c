/*
 * Regions and remote writes on the simulated network: a write is cut into chunks that are numbered over the life of the
 * link, go in order, and are sent again from the first that was not acknowledged.
 */
#include "transport/sim/internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct sim_region_key {
    uint64_t region, size, reserved;
} sim_region_key_t;
_Static_assert(sizeof(sim_region_key_t) == RF_REGION_KEY_SIZE, "a key fits");

rf_err_t sim_bulk_need(sim_link_t *link)
{
    if (link->bulk) return RF_OK;
    sim_bulk_t *bulk = aligned_alloc(RF_CACHE_LINE, sizeof *bulk);
    if (!bulk) return RF_ERR_NO_MEMORY;
    memset(bulk, 0, sizeof *bulk);
    link->bulk = bulk;
    return RF_OK;
}

void sim_bulk_free(sim_link_t *link)
{
    if (!link->bulk) return;
    for (unsigned i = 0; i < SIM_REGIONS_MAX; i++) {
        if (link->bulk->regions[i].used) free(link->bulk->regions[i].head.base);
    }
    free(link->bulk);
    link->bulk = NULL;
}

static uint64_t chunks_of(uint64_t size)
{
    return size == 0 ? 1 : (size + SIM_CHUNK - 1) / SIM_CHUNK;
}

/* The write that chunk number `chunk` belongs to, one of the queue. */
static const sim_write_t *write_of(const sim_bulk_t *bulk, uint64_t chunk)
{
    uint64_t i = bulk->writes_done;
    while (bulk->queue[i % SIM_WRITES_MAX].chunks <= chunk) i++;
    return &bulk->queue[i % SIM_WRITES_MAX];
}

void sim_bulk_transmit(sim_link_t *link)
{
    sim_bulk_t *bulk = link->bulk;
    if (!bulk || link->head.state != RF_LINK_STATE_UP) return;
    while (bulk->sent < bulk->head && bulk->sent < bulk->acked + SIM_CHUNKS_AT_ONCE) {
        sim_packet_t *packet = sim_link_packet(link, SIM_BULK);
        if (!packet) return;
        const sim_write_t *write = write_of(bulk, bulk->sent);
        uint64_t first = write->chunks - chunks_of(write->size);
        uint64_t at = (bulk->sent - first) * SIM_CHUNK;
        packet->sequence = bulk->sent++;
        packet->region = write->region;
        packet->offset = write->offset + at;
        packet->size = (uint32_t)(write->size - at < SIM_CHUNK ? write->size - at : SIM_CHUNK);
        packet->last = bulk->sent == write->chunks;
        packet->has_notify = packet->last && write->has_notify;
        if (packet->has_notify) packet->notify = write->notify;
        if (packet->size > 0) memcpy(packet->bytes, write->source + at, packet->size);
        sim_packet_send(sim_endpoint_of(link)->network, packet);
    }
}

void sim_bulk_take(sim_link_t *link, const sim_packet_t *packet)
{
    if (sim_bulk_need(link) != RF_OK) return;
    sim_bulk_t *bulk = link->bulk;
    link->say = true;
    if (packet->sequence != bulk->received) return; /* twice, or out of order */
    if (packet->has_notify) {
        if (bulk->notify_tail - bulk->notify_head == SIM_WRITES_MAX)
            return; /* comes again when there is room */
        bulk->notify[bulk->notify_tail++ % SIM_WRITES_MAX] = packet->notify;
    }
    for (unsigned i = 0; i < SIM_REGIONS_MAX; i++) {
        sim_region_t *region = &bulk->regions[i];
        if (region->used && region->id == packet->region && packet->offset <= region->head.size &&
            packet->size <= region->head.size - packet->offset)
            memcpy((uint8_t *)region->head.base + packet->offset, packet->bytes, packet->size);
    }
    link->stats.bytes_placed += packet->size;
    bulk->received++;
}

void sim_bulk_acked(sim_link_t *link, uint64_t chunks)
{
    sim_bulk_t *bulk = link->bulk;
    if (!bulk || chunks <= bulk->acked || chunks > bulk->head) return;
    bulk->acked = chunks;
    if (bulk->sent < chunks) bulk->sent = chunks;
    while (bulk->writes_done < bulk->writes &&
           bulk->queue[bulk->writes_done % SIM_WRITES_MAX].chunks <= chunks && !link->buried &&
           !link->fenced && !link->user_closed) {
        const sim_write_t *write = &bulk->queue[bulk->writes_done++ % SIM_WRITES_MAX];
        link->stats.bytes_written += write->size;
        sim_event(link, RF_LINK_WRITTEN, RF_OK, write->cookie);
    }
    sim_bulk_transmit(link);
}

void sim_bulk_fail(sim_link_t *link, rf_err_t err)
{
    sim_bulk_t *bulk = link->bulk;
    if (!bulk) return;
    bulk->acked = bulk->sent = bulk->head;
    while (bulk->writes_done < bulk->writes) {
        uint64_t cookie = bulk->queue[bulk->writes_done++ % SIM_WRITES_MAX].cookie;
        sim_event(link, RF_LINK_WRITTEN, err, cookie);
    }
}

rf_err_t sim_region_create(rf_link_t *link_head, size_t size, rf_region_t **out)
{
    sim_link_t *link = sim_link_of(link_head);
    if (size == 0) return RF_ERR_INVALID;
    rf_err_t err = sim_bulk_need(link);
    if (err != RF_OK) return err;
    sim_region_t *region = NULL;
    for (unsigned i = 0; i < SIM_REGIONS_MAX && !region; i++)
        region = link->bulk->regions[i].used ? NULL : &link->bulk->regions[i];
    if (!region) return RF_ERR_LIMIT;
    region->head.base = calloc(1, size);
    if (!region->head.base) return RF_ERR_NO_MEMORY;
    region->used = true;
    region->id = link->bulk->regions_made++;
    region->head.size = size;
    sim_region_key_t key = {.region = region->id, .size = size};
    memcpy(&region->head.key, &key, sizeof key);
    *out = &region->head;
    return RF_OK;
}

void sim_region_destroy(rf_link_t *link, rf_region_t *region_head)
{
    (void)link;
    sim_region_t *region = (sim_region_t *)region_head;
    free(region->head.base);
    region->used = false;
}

rf_err_t sim_remote_write(rf_link_t *link_head, const rf_region_key_t *key, uint64_t offset,
                          const void *source, size_t size, const rf_slot_t *notify, uint64_t cookie)
{
    sim_link_t *link = sim_link_of(link_head);
    if (link_head->state == RF_LINK_STATE_DEAD || link->end_pending || link->closed_pending)
        return link->fenced ? RF_ERR_FENCED : RF_ERR_PEER_DEAD;
    sim_region_key_t to;
    memcpy(&to, key, sizeof to);
    if (to.reserved != 0 || offset > to.size || size > to.size - offset) return RF_ERR_INVALID;
    if (notify &&
        (!rf_control_valid(notify->control) || rf_control_type(notify->control) >= RF_SLOT_TYPE_MEDIUM))
        return RF_ERR_INVALID;
    rf_err_t err = sim_bulk_need(link);
    if (err != RF_OK) return err;
    sim_bulk_t *bulk = link->bulk;
    if (bulk->writes - bulk->writes_done == SIM_WRITES_MAX) return RF_ERR_AGAIN;
    sim_write_t *write = &bulk->queue[bulk->writes++ % SIM_WRITES_MAX];
    bulk->head += chunks_of(size);
    *write = (sim_write_t){.region = to.region,
                           .offset = offset,
                           .size = size,
                           .cookie = cookie,
                           .chunks = bulk->head,
                           .source = source,
                           .has_notify = notify != NULL};
    if (notify) write->notify = *notify;
    if (!sim_inert(sim_endpoint_of(link))) sim_bulk_transmit(link);
    sim_link_timer(link);
    return RF_OK;
}
