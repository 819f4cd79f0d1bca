/*
 * Messages longer than a slot: cut into slots with `more` set on all but the last, put together by the receiver.
 * All or nothing: a message is taken whole or not at all, so a caller never holds half of one.
 */
#ifndef RF_TRANSPORT_MESSAGE_H
#define RF_TRANSPORT_MESSAGE_H

#include "transport/transport.h"

#define RF_MESSAGE_MAX 4096 /* bytes of a control message; bulk and streams have their own ways */

/* Sends `size` <= RF_MESSAGE_MAX bytes as one message of `type` (below RF_SLOT_TYPE_MEDIUM). Needs a flush. RF_ERR_AGAIN: no
 * room for all of it; nothing was sent. */
rf_err_t rf_message_send(rf_link_t *link, uint8_t type, const void *bytes, size_t size);

/* The same from two parts, a header and a body. */
rf_err_t rf_message_send2(rf_link_t *link, uint8_t type, const void *head, size_t head_size, const void *body,
                          size_t body_size);

/* Puts one link's slots together. Zero-initialise. */
typedef struct rf_assembler {
    uint32_t size;
    uint8_t type;
    bool open;
    uint8_t bytes[RF_MESSAGE_MAX] __attribute__((aligned(8)));
} rf_assembler_t;

/* Feeds one polled slot. RF_OK: a whole message is in (type, bytes, size), until the next call. RF_ERR_AGAIN: more is to come.
 * RF_ERR_PROTOCOL: type changed within a message, or it is too long; the caller ends the link. */
rf_err_t rf_assembler_feed(rf_assembler_t *assembler, const rf_slot_t *slot);

#endif
