/*
 * What a peer can say to the RDMA medium: the first byte of the input chooses whether the rest is messages over the
 * slots' lane, over the bulk lane, or over the control link. There is no device: nothing goes out.
 */
#include "transport/rdma/internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A control link that delivers the input. */
typedef struct input_link {
    rf_link_t head;
    const uint8_t *bytes;
    size_t left;
} input_link_t;

static unsigned input_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    input_link_t *input = (input_link_t *)link;
    unsigned n = 0;
    for (; n < max && input->left >= sizeof *out; n++) {
        memcpy(&out[n], input->bytes, sizeof *out);
        input->bytes += sizeof *out;
        input->left -= sizeof *out;
    }
    return n;
}

static bool input_ready(rf_link_t *link)
{
    return ((input_link_t *)link)->left >= sizeof(rf_slot_t);
}

static unsigned output_room(rf_link_t *link, unsigned want)
{
    (void)link;
    return want;
}

static unsigned output_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link, (void)slots;
    return n;
}

static rf_err_t output_flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static void input_close(rf_link_t *link)
{
    (void)link;
}

static const rf_transport_t input_transport = {
    .name = "input",
    .poll = input_poll,
    .ready = input_ready,
    .room = output_room,
    .send = output_send,
    .flush = output_flush,
    .close = input_close,
};

static void nobody(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context, (void)link, (void)event, (void)info;
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
        rf_assert(link->delivered <= link->accepted && link->accepted - link->delivered <= link->in_max);
        rf_assert(link->acked <= link->posted && link->posted <= link->slots_head);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    rf_log_set_level(RF_LOG_ERROR);
    static rdma_device_t device;
    rdma_endpoint_t *ep = calloc(1, sizeof *ep);
    rf_assert(ep);
    ep->on_event = nobody;
    ep->timer_ns = RF_NEVER;
    ep->kick = -1;
    ep->in_progress = true;
    ep->deadline_ns = RDMA_DEADLINE_NS_DEFAULT;
    ep->log_device_ns = UINT64_MAX; /* said already */
    rdma_enter(ep);
    rdma_link_t *link = rdma_link_new(ep, NULL);
    rf_assert(link && rdma_bulk_need(link) == RF_OK);
    rdma_path_t path = {.failed = true, .link = link, .device = &device}; /* nothing is posted on it */
    device.endpoint = ep;
    link->device = &device;
    link->head.state = RF_LINK_STATE_UP;
    link->was_up = true;
    link->slots_head = link->posted = link->sent_max = 5;
    link->dialer = data[0] & 4;
    input_link_t input = {
        .head = {.transport = &input_transport, .user = link}, .bytes = data + 1, .left = size - 1};
    link->control = &input.head;
    switch (data[0] & 3) {
    case 0:
    case 1:
        messages(link, &path, data[0] & 1, data + 1, size - 1);
        break;
    default:
        rdma_control_poll(link, UINT32_MAX);
        break;
    }
    for (unsigned i = 0; i < 4 && link->attention && !link->buried; i++) rdma_link_settle(link);
    link->control = NULL;
    rdma_link_bury(link);
    rdma_leave(ep);
    free(ep);
    return 0;
}
