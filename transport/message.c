#include "transport/message.h"

#include <string.h>

#define SLOTS_PER_MESSAGE_MAX ((RF_MESSAGE_MAX + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD)

rf_err_t rf_message_send(rf_link_t *link, uint8_t type, const void *bytes, size_t size)
{
    return rf_message_send2(link, type, bytes, size, NULL, 0);
}

/* Copies up to `room` bytes of the message at `offset`, over the seam between head and body. */
static unsigned copy_piece(uint8_t *to, size_t room, size_t offset, const uint8_t *head, size_t head_size,
                           const uint8_t *body, size_t body_size)
{
    unsigned copied = 0;
    if (offset < head_size) {
        size_t n = head_size - offset < room ? head_size - offset : room;
        memcpy(to, head + offset, n);
        copied = (unsigned)n;
    }
    size_t at = offset + copied - head_size;
    if (copied < room && offset + copied >= head_size && at < body_size) {
        size_t n = body_size - at < room - copied ? body_size - at : room - copied;
        memcpy(to + copied, body + at, n);
        copied += (unsigned)n;
    }
    return copied;
}

rf_err_t rf_message_send2(rf_link_t *link, uint8_t type, const void *head, size_t head_size, const void *body,
                          size_t body_size)
{
    if (type == 0 || type >= RF_SLOT_TYPE_MEDIUM || head_size > RF_MESSAGE_MAX ||
        body_size > RF_MESSAGE_MAX - head_size)
        return RF_ERR_INVALID;
    if (link->state == RF_LINK_STATE_DEAD) return RF_ERR_CLOSED;
    size_t size = head_size + body_size;
    unsigned n = size == 0 ? 1 : (unsigned)((size + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD);
    if (link->transport->room(link, n) < n) return RF_ERR_AGAIN;

    rf_slot_t slots[SLOTS_PER_MESSAGE_MAX];
    for (unsigned i = 0; i < n; i++) {
        unsigned length = copy_piece(slots[i].payload, RF_SLOT_PAYLOAD, (size_t)i * RF_SLOT_PAYLOAD, head,
                                     head_size, body, body_size);
        memset(slots[i].payload + length, 0, RF_SLOT_PAYLOAD - length);
        slots[i].control = rf_control_make(type, length, i + 1 < n, 0);
    }
    return link->transport->send(link, slots, n) == n ? RF_OK : RF_ERR_CLOSED;
}

rf_err_t rf_assembler_feed(rf_assembler_t *assembler, const rf_slot_t *slot)
{
    uint8_t type = rf_control_type(slot->control);
    unsigned length = rf_control_length(slot->control);
    bool more = rf_control_more(slot->control);

    /* All but the last slot of a message are full, so a message is bounded in slots as well as in bytes. */
    if (!rf_control_valid(slot->control) || (more && length != RF_SLOT_PAYLOAD)) return RF_ERR_PROTOCOL;
    uint32_t before = assembler->open ? assembler->size : 0;
    if (assembler->open && (type != assembler->type || length == 0)) return RF_ERR_PROTOCOL;
    if (length > RF_MESSAGE_MAX - before) return RF_ERR_PROTOCOL;

    memcpy(assembler->bytes + before, slot->payload, length);
    assembler->size = before + length;
    assembler->type = type;
    assembler->open = more;
    return more ? RF_ERR_AGAIN : RF_OK;
}
