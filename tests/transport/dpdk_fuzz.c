/*
 * What others can say to the DPDK medium and its driver. The first byte of the input chooses: slots over the lane for slots, or
 * for bulk, or messages over the control link, to a link; what the driver says to a process and a process to its driver; or a
 * packet on the wire. There is no driver: nothing goes out.
 */
#include "transport/dpdk/internal.h"

#include "path_fuzz.h"

#include "base/log.h"
#include "transport/dpdk/driver/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define POLLS 64

static void link_polls(path_link_t *link)
{
    rf_slot_t slots[7];
    for (unsigned i = 0; i < POLLS && !link->buried; i++) {
        unsigned n = dpdk_poll(&link->head, slots, 1 + i % 7);
        for (unsigned k = 0; k < n; k++) rf_assert(rf_control_type(slots[k].control) < RF_SLOT_TYPE_MEDIUM);
        path_fuzz_check(link);
    }
}

/* One link, whose peer says the input over one of its ways. */
static void link_hears(unsigned way, const uint8_t *data, size_t size)
{
    path_endpoint_t *ep = path_fuzz_endpoint(&dpdk_medium);
    path_link_t *link = path_fuzz_link(ep, way & 4);
    rf_region_t *region;
    rf_assert(dpdk_region_create(&link->head, 300, &region) == RF_OK);
    input_link_t silent = {.head = {.transport = &input_transport}};
    input_link_t input = {
        .head = {.transport = &input_transport}, .bytes = data, .left = size, .checked = true};
    dpdk_endpoint_of(link)->log_driver_ns = UINT64_MAX; /* said already */
    link->bulk->head = link->bulk->posted = 3;
    link->control = way % 4 == 2 ? &input.head : &silent.head;
    for (unsigned i = 0; i < PATH_LANES; i++) {
        dpdk_link_of(link)->paths[i].local = i == way % 4 ? &input.head : &silent.head;
        link->lanes[i].stage = PATH_UP;
    }
    if (way % 4 == 2) path_control_poll(link, UINT32_MAX);
    link_polls(link);
    dpdk_link_keep(link);
    path_fuzz_over(link);
}

static void driver_hears(const uint8_t *data, size_t size)
{
    dpdk_open_t open;
    dpdk_opened_t opened;
    dpdk_join_t join;
    if (dpdk_open_decode(data, size, &open) == RF_OK) rf_assert(open.slots > 0 && open.lane < PATH_LANES);
    if (dpdk_opened_decode(data, size, &opened) == RF_OK) rf_assert(dpdk_place_valid(&opened.place));
    if (dpdk_join_decode(data, size, &join) == RF_OK) rf_assert(dpdk_place_valid(&join.peer));
}

static void port_hears(const uint8_t *data, size_t size)
{
    const packet_self_t self = {
        .mac = {2, 0, 0, 0, 0, 1}, .ipv4 = {10, 0, 0, 1}, .prefix = 24, .udp_port = 0x1bce};
    uint8_t *bytes = malloc(size ? size : 1), answer[PACKET_ARP];
    packet_t packet;
    rf_assert(bytes);
    memcpy(bytes, data, size);
    for (unsigned checked = 0; checked < 2; checked++) {
        packet_kind_t kind = packet_read(&self, bytes, size, checked, &packet);
        if (kind == PACKET_FLOW)
            rf_assert(packet.frame >= bytes + PACKET_HEAD && packet.frame + packet.size <= bytes + size);
        if (kind == PACKET_ARP_ASKED) packet_arp_answer(&self, &packet, answer);
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    rf_log_set_level(RF_LOG_ERROR);
    switch (data[0] & 7) {
    case 3:
        driver_hears(data + 1, size - 1);
        break;
    case 7:
        port_hears(data + 1, size - 1);
        break;
    default:
        link_hears(data[0] & 7, data + 1, size - 1);
        break;
    }
    return 0;
}
