/*
 * Stream slots of a hostile peer, on the simulated medium: the input is a list of slots, each preceded by a byte that
 * says what the victim's program does meanwhile. Counts stay inside the rings whatever comes.
 */
#include "base/clock.h"
#include "transport/sim/sim.h"
#include "transport/stream.h"

#include <stdlib.h>
#include <string.h>

#define RING      (64u << 10)
#define TAG_RIGHT 0x80u /* of the byte before a slot: its tag is made right */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct ends {
    rf_endpoint_t *endpoints[2];
    rf_link_t *links[2];
    rf_stream_t *streams[2];
    unsigned up;
} ends_t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    ends_t *ends = context;
    if (event == RF_LINK_INCOMING) {
        ends->links[1] = link;
        link->transport->accept(link, NULL);
    }
    ends->up += event == RF_LINK_UP;
    if (event == RF_LINK_WRITTEN) rf_stream_written(ends->streams, 2, info->cookie, info->err);
}

static void turn(rf_sim_network_t *network, ends_t *ends)
{
    rf_slot_t slots[32];
    uint64_t next_ns;
    rf_sim_step_until(network, rf_sim_now(network) + RF_NS_PER_US);
    for (unsigned i = 0; i < 2; i++) {
        rf_transport_sim.endpoint_progress(ends->endpoints[i], rf_sim_now(network), &next_ns);
        if (ends->links[i])
            rf_transport_sim.poll(ends->links[i], slots, 32); /* the peer's own slots are not the input */
    }
}

static void program(rf_stream_t *stream, uint8_t what)
{
    static uint8_t bytes[5000];
    const void *there;
    size_t got;
    switch (what % 6) {
    case 0:
        rf_stream_write(stream, bytes, sizeof bytes);
        break;
    case 1:
        rf_stream_read(stream, bytes, sizeof bytes, &got);
        break;
    case 2:
        rf_stream_consume(stream, what);
        break;
    case 3:
        rf_stream_finish(stream);
        break;
    default:
        break;
    }
    if (rf_stream_peek(stream, &there) > RING || rf_stream_room(stream) > RING) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static rf_sim_network_t *network;
    static unsigned used;
    rf_sim_path_t path = {.delay_min_ns = 1, .delay_max_ns = 1};
    if (used + 2 > RF_SIM_ENDPOINTS_MAX) {
        rf_sim_network_destroy(network);
        network = NULL;
        used = 0;
    }
    if (!network && rf_sim_network_create(1, &path, &network) != RF_OK) abort();
    ends_t ends = {.up = 0};
    used += 2;
    for (unsigned i = 0; i < 2; i++) {
        rf_endpoint_params_t params = {
            .on_event = on_event, .context = &ends, .address = i ? "b" : NULL, .medium = network};
        params.self.version_major = RF_VERSION_MAJOR;
        if (rf_transport_sim.endpoint_open(&params, &ends.endpoints[i]) != RF_OK) abort();
    }
    rf_link_params_t params = {.address = "b", .socket = -1};
    if (rf_transport_sim.connect(ends.endpoints[0], &params, &ends.links[0]) != RF_OK) abort();
    while (ends.up < 2) turn(network, &ends);
    for (unsigned id = 0; id < 2; id++)
        if (rf_stream_open(ends.links[0], id, RING, &ends.streams[id]) != RF_OK) abort();

    rf_region_t *region; /* of the peer: what a right OPEN names */
    if (rf_transport_sim.region_create(ends.links[1], RING, &region) != RF_OK) abort();
    uint32_t tag = 2166136261u;
    for (unsigned i = 0; i < sizeof region->key.bytes; i++) tag = (tag ^ region->key.bytes[i]) * 16777619u;
    for (size_t at = 0; at + 1 + 40 <= size; at += 1 + 40) {
        rf_slot_t slot;
        memset(&slot, 0, sizeof slot);
        memcpy(slot.payload, data + at + 1, 40);
        if (data[at] & TAG_RIGHT) {
            memcpy(slot.payload + 4, &tag, sizeof tag);
            memcpy(slot.payload + 16, &region->key, sizeof region->key);
        }
        slot.control = rf_control_make(RF_STREAM_SLOT, 40, false, 0);
        rf_stream_slot(ends.links[0], ends.streams, 2, &slot);
        program(ends.streams[data[at] & 1], data[at] >> 1 & 31);
        if (data[at] & 0x40) turn(network, &ends);
    }
    for (unsigned id = 0; id < 2; id++) rf_stream_close(ends.streams[id]);
    rf_transport_sim.close(ends.links[0]);
    for (unsigned i = 0; i < 2; i++) rf_transport_sim.endpoint_close(ends.endpoints[i]);
    return 0;
}
