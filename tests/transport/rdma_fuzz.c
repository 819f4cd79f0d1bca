/*
 * What a peer can say to the RDMA medium: the first byte of the input chooses whether the rest is messages over the
 * slots' lane, over the bulk lane, what it writes into the ring and the line, or messages over the control link; and which end
 * this is. There is no device: nothing goes out.
 */
#include "transport/rdma/internal.h"

#include "path_fuzz.h"

#include "base/log.h"

#define FUZZ_RING 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const rdma_link_t *link)
{
    path_fuzz_check(&link->base);
    rf_assert(link->base.accepted - link->base.delivered <= link->base.slots_max);
}

static void messages(rdma_link_t *link, rdma_path_t *path, bool bulk, const uint8_t *data, size_t size)
{
    rf_slot_t aligned[RDMA_MESSAGE_SLOTS + 1];
    while (size >= 2) { /* a length, and so many bytes */
        uint32_t n = (uint32_t)(data[0] | data[1] << 8) % (RDMA_BUFFER + 1);
        data += 2;
        size -= 2;
        if (n > size) n = (uint32_t)size;
        memcpy(aligned, data, n);
        rdma_buffer_t buffer = {.bytes = (uint8_t *)aligned, .size = sizeof aligned};
        if (bulk)
            rdma_bulk_message(link, &buffer, n);
        else
            rdma_link_message(link, path, buffer.bytes, n);
        data += n;
        size -= n;
        check(link);
    }
}

/* The peer has our ring: a place, and bytes that it writes there; between such writes the ring is looked at, or slept. */
static void writes(rdma_link_t *link, rdma_path_t *path, const uint8_t *data, size_t size)
{
    _Alignas(RF_CACHE_LINE) static uint8_t ring[(FUZZ_RING + 1) * sizeof(rf_slot_t)];
    memset(ring, 0, sizeof ring);
    path->written = true;
    path->ring = (rdma_memory_t){.base = ring, .size = sizeof ring};
    path->ring_slots = FUZZ_RING;
    while (size >= 3 && !link->base.wrong) {
        size_t at = (size_t)(data[0] | data[1] << 8) % sizeof ring, n = data[2] & 0x7f;
        bool sleeps = data[2] & 0x80;
        data += 3;
        size -= 3;
        if (n > size) n = size;
        if (n > sizeof ring - at) n = sizeof ring - at;
        memcpy(ring + at, data, n);
        data += n;
        size -= n;
        rf_slot_t out[FUZZ_RING / 2];
        uint64_t before = link->base.accepted, last;
        unsigned read = rdma_ring_read(path, before, out, FUZZ_RING / 2, &last); /* as poll() does */
        for (unsigned i = 0; i < read; i++) rf_assert(rdma_control_right(out[i].control));
        link->paths[PATH_LANE_SLOTS] = path;
        rdma_ring_take(link, path);
        rf_assert(link->base.accepted - before >= read || link->base.wrong);
        rdma_line_hear(link);
        if (sleeps) rdma_sleep_rung(&path->sleep);
        link->paths[PATH_LANE_SLOTS] = NULL; /* it is no path that could be killed */
        rf_assert(link->base.accepted - before <= FUZZ_RING);
        check(link);
        uint64_t left = link->base.accepted - link->base.delivered;
        unsigned taken = rdma_poll(&link->base.head, out, FUZZ_RING / 2);
        rf_assert(taken <= left + FUZZ_RING);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    rf_log_set_level(RF_LOG_ERROR);
    static rdma_device_t device;
    path_endpoint_t *ep = path_fuzz_endpoint(&rdma_medium);
    path_link_t *base = path_fuzz_link(ep, data[0] & 4);
    rdma_link_t *link = rdma_link_of(base);
    path_lane_t *lane = &base->lanes[(data[0] & 3) == 1 ? PATH_LANE_BULK : PATH_LANE_SLOTS];
    rdma_path_t path = {.lane = lane, .device = &device};
    lane->failed = true;                                /* nothing is posted on it */
    rdma_endpoint_of(base)->log_device_ns = UINT64_MAX; /* said already */
    device.endpoint = (rdma_endpoint_t *)ep;
    device.draining = true; /* it has no queue to look into */
    link->device = &device;
    input_link_t input = {
        .head = {.transport = &input_transport, .user = base}, .bytes = data + 1, .left = size - 1};
    base->control = &input.head;
    switch (data[0] & 3) {
    case 3:
        writes(link, &path, data + 1, size - 1);
        break;
    case 0:
    case 1:
        messages(link, &path, data[0] & 1, data + 1, size - 1);
        break;
    default:
        path_control_poll(base, UINT32_MAX);
        break;
    }
    lane->failed = false; /* it was none */
    for (unsigned i = 0; i < 4 && base->attention && !base->buried; i++) path_link_settle(base);
    path_fuzz_over(base);
    return 0;
}
