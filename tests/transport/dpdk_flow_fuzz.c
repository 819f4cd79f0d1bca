/*
 * What can be said to a flow. The first byte chooses: the rest is raw bytes from the wire, or heads and slots of a peer that
 * holds the key. In between the flow sends, takes, and time passes; what holds of a flow is checked after each step.
 */
#include "dpdk_flow_check.h"

#include "base/assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SLOTS 64

typedef struct input {
    const uint8_t *bytes;
    size_t left;
} input_t;

static uint8_t take_byte(input_t *in)
{
    if (in->left == 0) return 0;
    in->left--;
    return *in->bytes++;
}

static size_t take_bytes(input_t *in, void *out, size_t n)
{
    if (n > in->left) n = in->left;
    memcpy(out, in->bytes, n);
    in->bytes += n;
    in->left -= n;
    return n;
}

static rf_flow_t *open_flow(bool dialer, rf_seal_mode_t mode)
{
    rf_flow_params_t params = {.id = dialer ? 1 : 2,
                               .id_peer = dialer ? 2 : 1,
                               .dialer = dialer,
                               .seal = mode,
                               .frame_max = 8972,
                               .send_slots = SLOTS,
                               .receive_slots = SLOTS,
                               .credit = SLOTS,
                               .deadline_ns = RF_NS_PER_S};
    rf_flow_t *flow;
    rf_assert(rf_flow_open(&params, 0, &flow) == RF_OK);
    return flow;
}

/* The owner of the flow: sends some, takes some. */
static void owner(rf_flow_t *flow, uint8_t what, uint64_t now_ns)
{
    rf_slot_t *slots;
    const rf_slot_t *came;
    uint8_t frame[RF_FLOW_FRAME_MAX];
    unsigned n = rf_flow_send_span(flow, &slots), want = what & 15;
    if (n > want) n = want;
    for (unsigned i = 0; i < n; i++) memset(&slots[i], i, sizeof slots[i]);
    rf_flow_send_commit(flow, n);
    n = rf_flow_take_span(flow, &came);
    rf_assert(n <= SLOTS);
    if (what & 16) rf_flow_take_commit(flow, n);
    if (what & 32) rf_flow_watch(flow, what & 64, now_ns);
    for (unsigned i = 0; i < 40 && rf_flow_transmit(flow, frame, sizeof frame, now_ns) > 0; i++)
        flow_check(flow);
}

static void says_raw(rf_flow_t *flow, input_t *in, uint64_t now_ns)
{
    uint8_t frame[512];
    size_t size = take_bytes(in, frame, (size_t)take_byte(in) * 2);
    rf_flow_receive(flow, frame, size, now_ns);
}

/* A head of the input's own, or one near to what would be right; sealed. */
static void says_sealed(rf_flow_t *flow, rf_flow_t *peer, input_t *in, uint64_t now_ns)
{
    uint8_t frame[RF_FLOW_FRAME_MAX] = {0}, what = take_byte(in);
    flow_head_t head = {.flags = take_byte(in) & FLOW_FRAME_FLAGS,
                        .sequence = (uint32_t)flow->next + (uint32_t)(int8_t)take_byte(in),
                        .next = (uint32_t)flow->base + (uint32_t)(int8_t)take_byte(in),
                        .credit = (uint32_t)flow->credit + (uint32_t)(int8_t)take_byte(in),
                        .largest = (uint32_t)flow->acked_top + (uint32_t)(int8_t)take_byte(in),
                        .units = take_byte(in) % 80};
    if (what & 1) take_bytes(in, &head, sizeof head);
    if (what & 2) take_bytes(in, &head.before, sizeof head.before);
    if (what & 4) peer->number += take_byte(in);
    if (what & 8) peer->number += (uint64_t)take_byte(in) << 13;
    head.flow = flow->id;
    head.format = FLOW_FORMAT;
    head.number = peer->number++;
    head.units %= 140;
    size_t size = flow_frame_bytes(head.units);
    memcpy(frame, &head, sizeof head);
    if (seal_frame(&peer->sealer, frame, size, head.number) != RF_OK) return;
    rf_err_t err = rf_flow_receive(flow, frame, size, now_ns);
    rf_assert(err == RF_OK || err == RF_ERR_PROTOCOL || err == RF_ERR_PEER_DEAD || err == RF_ERR_EXISTS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t in = {data, size};
    uint8_t kind = take_byte(&in);
    rf_seal_mode_t mode = (rf_seal_mode_t)((kind >> 1) % 3);
    rf_flow_t *flow = open_flow(true, mode), *peer = open_flow(false, mode);
    uint64_t now_ns = 0;
    while (in.left > 0 && rf_flow_state(flow) == RF_OK) {
        uint8_t pause = take_byte(&in);
        now_ns += (uint64_t)(pause & 15) << (pause >> 4) * 2;
        owner(flow, take_byte(&in), now_ns);
        if (kind & 1)
            says_raw(flow, &in, now_ns);
        else
            says_sealed(flow, peer, &in, now_ns);
        flow_check(flow);
    }
    rf_flow_close(flow);
    rf_flow_close(peer);
    return 0;
}
