/*
 * Whatever slots a peer sends: receiving never crashes, never hands out a message of a wrong type or size. The input is a run of
 * slots, 64 bytes each, fed through a medium made up for this.
 */
#include "internal.h"

#include "base/log.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *input;
static size_t left;

static unsigned fuzz_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    unsigned n = 0;
    (void)link;
    for (; n < max && left >= sizeof *out; left -= sizeof *out, input += sizeof *out) {
        rf_slot_t slot;
        memcpy(&slot, input, sizeof slot);
        if (!rf_control_valid(slot.control)) continue; /* the medium's own check */
        out[n++] = slot;
    }
    return n;
}

static void fuzz_nothing(rf_link_t *link)
{
    (void)link;
}
static rf_err_t fuzz_flush(rf_link_t *link)
{
    return (void)link, RF_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const rf_transport_t medium = {
        .name = "fuzz", .poll = fuzz_poll, .fence = fuzz_nothing, .close = fuzz_nothing, .flush = fuzz_flush};
    static rf_link_t link = {.transport = &medium};
    rf_client_connected_t about = {.channel = 1, .kind = RF_CHANNEL_URPC};
    rf_log_set_level(RF_LOG_ERROR);
    input = data;
    left = size;
    rf_channel_t *channel = rf_lib_channel_create(&about);
    channel->transport = &medium;
    channel->port.link = &link;
    channel->port.up = true;
    uint8_t reply_bytes[64];
    rf_message_t reply = {.bytes = reply_bytes, .room = sizeof reply_bytes};
    channel->calls[0] = (lib_call_t){.used = true, .tag = 1, .reply = &reply};
    static uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    rf_err_t err;
    while ((err = rf_lib_channel_take(channel, &message)) == RF_OK) {
        if (message.type < 1 || message.type > 15 || message.size > sizeof bytes) __builtin_trap();
        message.room = message.size % 2 ? 40 : sizeof bytes;
        if (rf_lib_channel_front(channel) && rf_lib_channel_take(channel, &message) == RF_ERR_TRUNCATED &&
            message.size <= message.room)
            __builtin_trap();
        message.room = sizeof bytes;
    }
    if (err != RF_ERR_AGAIN && err != RF_ERR_PROTOCOL) __builtin_trap();
    rf_lib_channel_destroy(channel, false);
    return 0;
}
