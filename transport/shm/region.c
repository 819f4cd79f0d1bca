/*
 * Regions: the side that is written to makes a sealed memory object and passes it over the side socket; a remote
 * read is a copy out of it, a remote write one into it, then a slot in the notify ring, which has nothing to do with the ring of ordinary slots.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_round(size_t size)
{
    return (size + RF_PAGE - 1) & ~(size_t)(RF_PAGE - 1);
}

rf_err_t shm_region_create(rf_link_t *base, size_t size, rf_region_t **out)
{
    shm_link_t *link = (shm_link_t *)base;
    if (size == 0 || size > SHM_REGION_SIZE_MAX) return RF_ERR_INVALID;
    if (link->phase != SHM_UP) return link->end != RF_OK ? link->end : RF_ERR_AGAIN;
    unsigned place = 0;
    while (place < SHM_REGIONS_MAX && link->regions[place]) place++;
    if (place == SHM_REGIONS_MAX) return RF_ERR_LIMIT;
    shm_region_t *region = calloc(1, sizeof *region);
    if (!region) return RF_ERR_NO_MEMORY;

    int fd;
    rf_err_t err = rf_memory_create("rackfish-region", page_round(size), &fd);
    if (err != RF_OK) goto free_region;
    void *memory = mmap(NULL, page_round(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        err = RF_ERR_OS;
        goto close_memory;
    }
    region->id = ++link->region_next;
    region->mapped = page_round(size);
    region->base.base = memory;
    region->base.size = size;
    memcpy(region->base.key.bytes, &region->id, sizeof region->id);
    err = shm_side_region(link, region->id, size, fd);
    if (err != RF_OK) {
        munmap(memory, region->mapped);
        goto close_memory;
    }
    close(fd);
    link->regions[place] = region;
    *out = &region->base;
    return RF_OK;

close_memory:
    close(fd);
free_region:
    free(region);
    return err;
}

static void free_region(shm_region_t *region)
{
    munmap(region->base.base, region->mapped);
    free(region);
}

void shm_region_destroy(rf_link_t *base, rf_region_t *wanted)
{
    shm_link_t *link = (shm_link_t *)base;
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        shm_region_t *region = link->regions[i];
        if (!region || &region->base != wanted) continue;
        if (link->phase == SHM_UP) shm_side_drop(link, region->id);
        free_region(region);
        link->regions[i] = NULL;
        return;
    }
}

void shm_regions_free(shm_link_t *link)
{
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        if (link->regions[i]) free_region(link->regions[i]);
        link->regions[i] = NULL;
    }
}

static shm_peer_region_t *find_peer_region(shm_link_t *link, uint64_t id)
{
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        if (link->peer_regions[i].memory && link->peer_regions[i].id == id) return &link->peer_regions[i];
    }
    return NULL;
}

bool shm_region_adopt(shm_link_t *link, uint64_t id, uint64_t size, int fd)
{
    if (size == 0 || size > SHM_REGION_SIZE_MAX || find_peer_region(link, id) ||
        rf_memory_check(fd, page_round(size)) != RF_OK)
        return false;
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        shm_peer_region_t *region = &link->peer_regions[i];
        if (region->memory) continue;
        void *memory = mmap(NULL, page_round(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED) return false;
        *region = (shm_peer_region_t){.id = id, .size = size, .memory = memory};
        return true;
    }
    return false;
}

void shm_region_drop(shm_link_t *link, uint64_t id)
{
    shm_peer_region_t *region = find_peer_region(link, id);
    if (!region) return;
    munmap(region->memory, page_round(region->size));
    *region = (shm_peer_region_t){0};
}

/* Writes one slot into the notify ring; the caller has seen that there is room. */
static void notify_write(shm_link_t *link, const rf_slot_t *slot)
{
    shm_cell_t *cell = &link->head->notify[link->notify_sent % SHM_NOTIFY_SLOTS];
    uint64_t parity = link->notify_sent / SHM_NOTIFY_SLOTS % 2 ? 0 : RF_CONTROL_PARITY;
    uint64_t control = rf_control_make(rf_control_type(slot->control), rf_control_length(slot->control),
                                       rf_control_more(slot->control), rf_control_view(slot->control));
    for (unsigned i = 0; i < 7; i++)
        atomic_store_explicit(&cell->words[i], slot->words[i], memory_order_relaxed);
    atomic_store_explicit(&cell->control, control | parity, memory_order_release);
    link->notify_sent++;
}

/* The peer's region that this key names. */
static rf_err_t region_named(shm_link_t *link, const rf_region_key_t *key, shm_peer_region_t **out)
{
    uint64_t id;
    memcpy(&id, key->bytes, sizeof id);
    *out = find_peer_region(link, id);
    if (*out) return RF_OK;
    /* The key may have overtaken the region: it came in a slot, the region is in the side socket. */
    shm_enter(link);
    shm_side_drain(link);
    if (!shm_leave(link)) return RF_ERR_CLOSED;
    *out = find_peer_region(link, id);
    return *out ? RF_OK : link->end != RF_OK ? link->end : RF_ERR_NOT_FOUND;
}

rf_err_t shm_remote_read(rf_link_t *base, const rf_region_key_t *key, uint64_t offset, void *destination,
                         size_t size, uint64_t cookie)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->phase != SHM_UP) return link->end != RF_OK ? link->end : RF_ERR_AGAIN;
    shm_peer_region_t *region;
    rf_err_t err = region_named(link, key, &region);
    if (err != RF_OK) return err;
    if (offset > region->size || size > region->size - offset) return RF_ERR_INVALID;
    if (size > 0) memcpy(destination, (const uint8_t *)region->memory + offset, size);
    link->stats.bytes_read += size;
    shm_enter(link);
    shm_event(link, RF_LINK_READ, &(rf_link_event_info_t){.err = RF_OK, .cookie = cookie});
    shm_leave(link);
    return RF_OK;
}

rf_err_t shm_remote_write(rf_link_t *base, const rf_region_key_t *key, uint64_t offset, const void *source,
                          size_t size, const rf_slot_t *notify, uint64_t cookie)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->phase != SHM_UP) return link->end != RF_OK ? link->end : RF_ERR_AGAIN;
    if (notify &&
        (!rf_control_valid(notify->control) || rf_control_type(notify->control) >= RF_SLOT_TYPE_MEDIUM))
        return RF_ERR_INVALID;
    shm_peer_region_t *region;
    rf_err_t err = region_named(link, key, &region);
    if (err != RF_OK) return err;
    if (offset > region->size || size > region->size - offset) return RF_ERR_INVALID;
    if (notify) {
        uint32_t acked = atomic_load_explicit(&link->out.peer_head->notify_ack, memory_order_acquire);
        uint32_t outstanding = (uint32_t)link->notify_sent - acked;
        if (outstanding > SHM_NOTIFY_SLOTS) {
            shm_protocol_error(link, "its acknowledgement of notify slots is out of range");
            return RF_ERR_PROTOCOL;
        }
        if (outstanding == SHM_NOTIFY_SLOTS) {
            link->notify_full = true;
            link->in.look |= SHM_LOOK_ROOM;
            link->stats.full++;
            return RF_ERR_AGAIN;
        }
    }

    if (size > 0) memcpy((uint8_t *)region->memory + offset, source, size);
    link->stats.bytes_written += size;
    atomic_store_explicit(&link->head->bytes_written, link->stats.bytes_written, memory_order_relaxed);
    if (notify) {
        notify_write(link, notify);
        link->stats.slots_sent++;
        shm_attention(link);
    }
    shm_enter(link);
    shm_event(link, RF_LINK_WRITTEN, &(rf_link_event_info_t){.err = RF_OK, .cookie = cookie});
    shm_leave(link);
    return RF_OK;
}
