/*
 * Regions: memory of a link that its peer may write and read, in the link's own protection domain.
 *
 * A region that its owner destroys stays registered until the peer has said that nothing of it is on its way there.
 *
 * A region outlives its device: the memory is the link's, and when the link's paths go over another device, or over the same
 * one that was removed and has come back, it is registered there. Its key is another then. The peer, whose owner has the key
 * of the time when it was told, is told by REGION_MOVED before it hears of the next path of the bulk lane.
 *
 *   owner    domain of the device released; another path: domain made, regions registered | REGION_MOVED ... OFFER or ANSWER
 *   peer     writes and reads by the key that was last said
 */
#include "transport/rdma/internal.h"

#include <string.h>

#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

void rdma_bulk_free(path_link_t *link)
{
    rdma_bulk_t *bulk = rdma_bulk_of(rdma_link_of(link));
    for (unsigned i = 0; i < RDMA_REGIONS_MAX; i++) rdma_memory_free(&bulk->regions[i].memory);
}

/* --- the device --------------------------------------------------------------------------------------------- */

bool rdma_bulk_shut(rdma_link_t *link)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    bool all = true;
    for (unsigned i = 0; bulk && i < bulk->regions_end; i++) {
        rdma_region_t *region = &bulk->regions[i];
        if (region->memory.mr) all = ibv_dereg_mr(region->memory.mr) == 0 && all;
        region->memory.mr = NULL;
        region->moved_due = false; /* that key is none any more */
    }
    return all;
}

/* Regions that had another device: nothing is written into those that are destroyed, so they need none. */
static rf_err_t regions_enter(rdma_link_t *link)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    for (unsigned i = 0; bulk && i < bulk->regions_end; i++) {
        rdma_region_t *region = &bulk->regions[i];
        if (!region->used || region->gone || region->memory.mr) continue;
        region->memory.mr = ibv_reg_mr(link->domain->pd, region->memory.base, region->memory.size, ACCESS);
        if (!region->memory.mr) {
            rdma_memory_refused(rdma_endpoint_of(&link->base), region->memory.size);
            return RF_ERR_NO_MEMORY;
        }
        region->moved_due = true;
    }
    return RF_OK;
}

void rdma_link_leave(rdma_link_t *link)
{
    rdma_bulk_shut(link);
    rdma_domain_release(link->domain);
    link->domain = NULL;
}

rf_err_t rdma_link_enter(rdma_link_t *link, rdma_device_t *device)
{
    if (link->domain && link->domain->pd->context != device->context) {
        if (link->domain->holders > 1) return RF_ERR_AGAIN; /* paths over the other device are still ending */
        rdma_link_leave(link);
    }
    if (link->domain) return RF_OK;
    rf_err_t err = rdma_domain_make(device, &link->domain);
    if (err == RF_OK) err = regions_enter(link);
    if (err != RF_OK && link->domain) rdma_link_leave(link);
    return err;
}

/* --- what the peer is told ---------------------------------------------------------------------------------- */

bool rdma_regions_push(rdma_link_t *link)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    bool all = true;
    for (unsigned i = 0; bulk && i < bulk->regions_end; i++) {
        rdma_region_t *region = &bulk->regions[i];
        if (region->gone_due) {
            rdma_region_gone_t gone = {.region = region->id};
            region->gone_due = !path_control_say(&link->base, RDMA_CONTROL_REGION_GONE, &gone, sizeof gone);
        }
        if (region->moved_due) {
            rdma_region_moved_t moved = {.region = region->id, .rkey = region->memory.mr->rkey};
            region->moved_due =
                !path_control_say(&link->base, RDMA_CONTROL_REGION_MOVED, &moved, sizeof moved);
        }
        all = all && !region->gone_due && !region->moved_due;
    }
    return all;
}

bool rdma_region_freed(rdma_link_t *link, uint64_t region)
{
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    for (unsigned i = 0; bulk && i < RDMA_REGIONS_MAX; i++) {
        rdma_region_t *r = &bulk->regions[i];
        if (!r->gone || r->gone_due || r->id != region) continue;
        rdma_memory_free(&r->memory);
        r->used = r->gone = false;
        return true;
    }
    return false;
}

/* --- operations --------------------------------------------------------------------------------------------- */

rf_err_t rdma_region_create(rf_link_t *link_head, size_t size, rf_region_t **out)
{
    rdma_link_t *link = rdma_link_of(path_link_of(link_head));
    if (size == 0 || size > PATH_WRITE_SIZE_MAX) return RF_ERR_INVALID;
    if (!link->device || link->device->gone || link_head->state == RF_LINK_STATE_DEAD) return RF_ERR_AGAIN;
    rf_err_t err = path_bulk_need(&link->base);
    if (err == RF_OK) err = rdma_link_enter(link, link->device);
    if (err != RF_OK) return err;
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    unsigned at = 0;
    while (at < RDMA_REGIONS_MAX && bulk->regions[at].used) at++;
    if (at == RDMA_REGIONS_MAX) return RF_ERR_LIMIT;
    rdma_region_t *region = &bulk->regions[at];
    err = rdma_memory_make(link->domain->pd, size, ACCESS, &region->memory);
    if (err != RF_OK) {
        rdma_memory_refused(link->device->endpoint, size);
        return err;
    }
    if (bulk->regions_end <= at) bulk->regions_end = at + 1;
    region->used = true;
    region->id = bulk->regions_made++;
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
    rdma_link_t *link = rdma_link_of(path_link_of(link_head));
    rdma_region_t *region = (rdma_region_t *)region_head;
    if (link_head->state == RF_LINK_STATE_DEAD || !link->base.control) { /* nothing can be on its way */
        rdma_memory_free(&region->memory);
        region->used = region->moved_due = false;
        return;
    }
    region->moved_due = false;
    region->gone = region->gone_due = true;
    rdma_regions_push(link);
}
