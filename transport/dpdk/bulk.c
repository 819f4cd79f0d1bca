/*
 * Regions and remote writes: a second flow of the link, with rings of its own, so that bulk never delays slots.
 *
 * A write goes as a head (dpdk_bulk_head_t), its notify slot if it has one, and its bytes, RF_SLOT_PAYLOAD a slot. The
 * receiver copies each slot's bytes from the driver's ring to where they belong, and says in a word how many writes have come
 * whole; that many are complete. After a break both say so again, and the sender goes on from there: a write that came in
 * part is written again. What is for a region that is no more is dropped, and counts as written.
 *
 * Notify slots wait in a queue of their own; while it is full nothing is taken, and the rings hold the peer back.
 */
#include "transport/dpdk/internal.h"

#include <string.h>
#include <sys/mman.h>

#define BATCH      32
#define PUMP_SLOTS 1024 /* of one link in one call */

static void region_free(dpdk_region_t *region)
{
    if (region->used) munmap(region->head.base, region->head.size);
    region->used = false;
}

void dpdk_bulk_free(path_link_t *link)
{
    for (unsigned i = 0; i < DPDK_REGIONS_MAX; i++) region_free(&dpdk_bulk_of(link)->regions[i]);
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static rf_slot_t head_make(const path_write_t *write, uint64_t number)
{
    rf_slot_t slot = {.control = rf_control_make(DPDK_BULK, sizeof(dpdk_bulk_head_t), false, 0)};
    dpdk_region_key_t to;
    memcpy(&to, &write->to, sizeof to);
    dpdk_bulk_head_t head = {.write = number,
                             .region = to.region,
                             .offset = write->offset,
                             .size = write->size,
                             .has_notify = write->has_notify};
    memcpy(slot.payload, &head, sizeof head);
    return slot;
}

/* The next slots of a write, at most BATCH; the write's state moves on by what is taken (slots_taken). */
static unsigned slots_make(const dpdk_bulk_t *bulk, const path_write_t *write, rf_slot_t *out)
{
    unsigned n = 0, heads = bulk->heads;
    uint64_t sent = bulk->sent;
    if (heads == 0) {
        out[n++] = head_make(write, bulk->base.posted);
        heads++;
    }
    if (heads == 1 && write->has_notify) out[n++] = write->notify;
    for (; n < BATCH && sent < write->size; n++) {
        uint64_t left = write->size - sent;
        unsigned size = left < RF_SLOT_PAYLOAD ? (unsigned)left : RF_SLOT_PAYLOAD;
        memcpy(out[n].payload, write->source + sent, size);
        if (size < RF_SLOT_PAYLOAD) memset(out[n].payload + size, 0, RF_SLOT_PAYLOAD - size);
        out[n].control = rf_control_make(DPDK_BYTES, size, false, 0);
        sent += size;
    }
    return n;
}

/* True: the write is wholly sent. */
static bool slots_taken(dpdk_bulk_t *bulk, const path_write_t *write, unsigned n)
{
    unsigned heads = 1 + (unsigned)write->has_notify;
    while (n > 0 && bulk->heads < heads) {
        bulk->heads++;
        n--;
    }
    uint64_t left = write->size - bulk->sent, bytes = (uint64_t)n * RF_SLOT_PAYLOAD;
    bulk->sent += bytes < left ? bytes : left;
    if (bulk->heads < heads || bulk->sent < write->size) return false;
    bulk->heads = 0;
    bulk->sent = 0;
    bulk->base.posted++;
    return true;
}

/* True: all of what was made was taken. */
static bool batch_send(path_link_t *link, rf_link_t *local)
{
    dpdk_bulk_t *bulk = dpdk_bulk_of(link);
    const path_write_t *write = &bulk->base.writes[bulk->base.posted % PATH_WRITES_MAX];
    rf_slot_t slots[BATCH];
    unsigned n = slots_make(bulk, write, slots);
    unsigned taken = local->transport->send(local, slots, n);
    if (slots_taken(bulk, write, taken)) link->stats.bytes_written += write->size;
    return taken == n;
}

static void placed_say(path_link_t *link)
{
    path_lane_t *lane = &link->lanes[PATH_LANE_BULK];
    dpdk_bulk_t *bulk = dpdk_bulk_of(link);
    if (bulk->base.placed == bulk->placed_said) return;
    path_word_t word = {.generation = lane->generation, .placed = bulk->base.placed};
    if (dpdk_path_say(lane, &word)) bulk->placed_said = bulk->base.placed;
}

void dpdk_bulk_pump(path_link_t *link)
{
    rf_link_t *local = dpdk_link_of(link)->paths[PATH_LANE_BULK].local;
    placed_say(link);
    for (unsigned i = 0; i < PUMP_SLOTS / BATCH && link->bulk->posted < link->bulk->head; i++) {
        if (!batch_send(link, local)) break;
    }
    local->transport->flush(local);
}

bool dpdk_bulk_resume(path_link_t *link, uint64_t peer_placed)
{
    dpdk_bulk_t *bulk = dpdk_bulk_of(link);
    uint64_t begun = bulk->base.posted + (bulk->heads > 0 || bulk->sent > 0);
    if (peer_placed < bulk->base.done || peer_placed > begun) return false;
    bulk->base.done = bulk->base.posted = peer_placed;
    bulk->heads = 0;
    bulk->sent = 0;
    bulk->open = false; /* it comes again, whole */
    bulk->placed_said = bulk->base.placed;
    return true;
}

/* --- in ----------------------------------------------------------------------------------------------------- */

static dpdk_region_t *region_find(dpdk_bulk_t *bulk, uint64_t id)
{
    for (unsigned i = 0; i < DPDK_REGIONS_MAX; i++) {
        if (bulk->regions[i].used && bulk->regions[i].id == id) return &bulk->regions[i];
    }
    return NULL;
}

static bool head_right(dpdk_bulk_t *bulk, const dpdk_bulk_head_t *head)
{
    if (head->write != bulk->base.placed || head->has_notify > 1 || head->reserved[0] || head->reserved[1] ||
        head->region >= bulk->regions_made || head->size > PATH_WRITE_SIZE_MAX ||
        head->offset > PATH_WRITE_SIZE_MAX)
        return false;
    const dpdk_region_t *region = region_find(bulk, head->region);
    return !region || (head->offset <= region->head.size && head->size <= region->head.size - head->offset);
}

static void write_whole(path_link_t *link)
{
    dpdk_bulk_t *bulk = dpdk_bulk_of(link);
    if (!bulk->open || bulk->came < bulk->now.size || bulk->notify_came != (bulk->now.has_notify == 1))
        return;
    bulk->open = false;
    bulk->base.placed++;
    link->stats.bytes_placed += bulk->now.size;
    if (bulk->now.has_notify) bulk->notify[bulk->base.notify_head++ % DPDK_NOTIFY_MAX] = bulk->now_notify;
}

static bool head_take(dpdk_bulk_t *bulk, const rf_slot_t *slot)
{
    dpdk_bulk_head_t head;
    memcpy(&head, slot->payload, sizeof head);
    if (bulk->open || rf_control_length(slot->control) != sizeof head || !head_right(bulk, &head))
        return false;
    bulk->now = head;
    bulk->open = true;
    bulk->notify_came = false;
    bulk->came = 0;
    return true;
}

static bool bytes_take(dpdk_bulk_t *bulk, const rf_slot_t *slot)
{
    unsigned size = rf_control_length(slot->control);
    uint64_t left = bulk->now.size - bulk->came;
    if (!bulk->open || bulk->notify_came != (bulk->now.has_notify == 1) || size == 0 || size > left ||
        (size < RF_SLOT_PAYLOAD && size != left))
        return false;
    dpdk_region_t *region = region_find(bulk, bulk->now.region);
    if (region) {
        uint8_t *to = (uint8_t *)region->head.base + bulk->now.offset + bulk->came;
        memcpy(to, slot->payload, size);
    }
    bulk->came += size;
    return true;
}

static bool word_take(path_link_t *link, const rf_slot_t *slot)
{
    path_bulk_t *bulk = link->bulk;
    path_word_t word;
    if (!path_word_read(&link->lanes[PATH_LANE_BULK], slot, &word) || word.flags || word.count ||
        word.delivered)
        return false;
    if (word.placed < bulk->done || word.placed > bulk->posted) return false;
    bulk->done = word.placed;
    path_link_attention(link);
    return true;
}

static bool slot_take(path_link_t *link, const rf_slot_t *slot)
{
    dpdk_bulk_t *bulk = dpdk_bulk_of(link);
    switch (rf_control_type(slot->control)) {
    case DPDK_WORD:
        return word_take(link, slot);
    case DPDK_BULK:
        return head_take(bulk, slot);
    case DPDK_BYTES:
        return bytes_take(bulk, slot);
    default: /* the notify slot, behind its head */
        if (!bulk->open || !bulk->now.has_notify || bulk->notify_came ||
            rf_control_type(slot->control) >= RF_SLOT_TYPE_MEDIUM)
            return false;
        bulk->now_notify = *slot;
        bulk->notify_came = true;
        return true;
    }
}

bool dpdk_bulk_take(dpdk_link_t *link, unsigned slots)
{
    path_link_t *base = &link->base;
    dpdk_bulk_t *bulk = dpdk_bulk_of(base);
    rf_link_t *local = link->paths[PATH_LANE_BULK].local;
    rf_slot_t batch[BATCH];
    unsigned n = BATCH;
    if (!path_lane_up(&base->lanes[PATH_LANE_BULK])) return false;
    /* A batch may make as many notify slots as half of it. */
    for (; !base->wrong && slots >= BATCH && n == BATCH; slots -= BATCH) {
        if (bulk->base.notify_head - bulk->base.notify_tail > DPDK_NOTIFY_MAX - BATCH) return false;
        n = local->transport->poll(local, batch, BATCH);
        for (unsigned i = 0; i < n && !base->wrong; i++) {
            if (slot_take(base, &batch[i]))
                write_whole(base);
            else
                path_link_wrong(base, "a remote write that makes no sense");
        }
    }
    placed_say(base);
    return n == BATCH;
}

unsigned dpdk_bulk_notified(dpdk_link_t *link, rf_slot_t *out, unsigned max)
{
    dpdk_bulk_t *bulk = dpdk_bulk_of(&link->base);
    unsigned n = 0;
    if (link->base.head.state == RF_LINK_STATE_CONNECTING) return 0;
    while (n < max && bulk->base.notify_head != bulk->base.notify_tail)
        out[n++] = bulk->notify[bulk->base.notify_tail++ % DPDK_NOTIFY_MAX];
    return n;
}

/* --- operations --------------------------------------------------------------------------------------------- */

rf_err_t dpdk_region_create(rf_link_t *link_head, size_t size, rf_region_t **out)
{
    path_link_t *link = path_link_of(link_head);
    if (size == 0 || size > PATH_WRITE_SIZE_MAX) return RF_ERR_INVALID;
    if (link_head->state == RF_LINK_STATE_DEAD) return RF_ERR_AGAIN;
    rf_err_t err = path_bulk_need(link);
    if (err != RF_OK) return err;
    dpdk_bulk_t *bulk = dpdk_bulk_of(link);
    dpdk_region_t *region = NULL;
    for (unsigned i = 0; i < DPDK_REGIONS_MAX && !region; i++)
        region = bulk->regions[i].used ? NULL : &bulk->regions[i];
    if (!region) return RF_ERR_LIMIT;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return RF_ERR_NO_MEMORY;
    *region = (dpdk_region_t){.head = {.base = base, .size = size}, .id = bulk->regions_made++, .used = true};
    dpdk_region_key_t key = {.region = region->id, .size = size};
    memcpy(&region->head.key, &key, sizeof key);
    *out = &region->head;
    return RF_OK;
}

void dpdk_region_destroy(rf_link_t *link, rf_region_t *region)
{
    (void)link;
    region_free((dpdk_region_t *)region);
}
