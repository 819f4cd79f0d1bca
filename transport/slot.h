/*
 * The slot: what every medium carries. One cache line, written so that its last eight bytes appear last.
 *
 *   byte 0                                                     56                64
 *        +------------------------------------------------------+-----------------+
 *        | payload, 56 bytes                                    | control word    |
 *        +------------------------------------------------------+-----------------+
 *
 *   control word, from bit 0:  type 8 | length 6 | more 1 | parity 1 | ack 16 | view filter 16 | reserved 16
 *
 *   type         what the payload is; 0 is never sent, 0xf0 and up belong to the medium
 *   length       payload bytes used, 0 to 56
 *   more         the message goes on in the next slot of this link
 *   parity       flips each time a ring wraps: the receiver knows a fresh slot by it; set by the medium
 *   ack          low 16 bits of the count of slots delivered in the other direction; set by the medium
 *   view filter  low 16 bits of the view the sender was in: a filter, never the proof (AGREEMENT: epochs travel
 *                as full 64-bit numbers in the payload)
 *   reserved     sent as zero, and refused otherwise
 */
#ifndef RF_TRANSPORT_SLOT_H
#define RF_TRANSPORT_SLOT_H

#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RF_SLOT_PAYLOAD     56
#define RF_SLOT_TYPE_MEDIUM 0xf0 /* first type that belongs to the medium itself */

typedef struct rf_slot {
    union {
        uint64_t words[7];
        uint8_t payload[RF_SLOT_PAYLOAD];
    };
    uint64_t control;
} rf_cache_aligned rf_slot_t;

_Static_assert(sizeof(rf_slot_t) == RF_CACHE_LINE, "a slot is one cache line");
_Static_assert(offsetof(rf_slot_t, control) == 56, "the control word is written last");

#define RF_CONTROL_LENGTH_SHIFT 8
#define RF_CONTROL_MORE         (1ull << 14)
#define RF_CONTROL_PARITY       (1ull << 15)
#define RF_CONTROL_ACK_SHIFT    16
#define RF_CONTROL_VIEW_SHIFT   32
#define RF_CONTROL_RESERVED     (0xffffull << 48)
/* What of a control word is its caller's; the rest is the medium's. */
#define RF_CONTROL_CALLERS (~(RF_CONTROL_PARITY | 0xffffull << RF_CONTROL_ACK_SHIFT | RF_CONTROL_RESERVED))

/* The control word as a caller sets it; parity and ack are the medium's. */
static inline uint64_t rf_control_make(uint8_t type, unsigned length, bool more, uint16_t view)
{
    return (uint64_t)type | (uint64_t)length << RF_CONTROL_LENGTH_SHIFT | (more ? RF_CONTROL_MORE : 0) |
           (uint64_t)view << RF_CONTROL_VIEW_SHIFT;
}

static inline uint8_t rf_control_type(uint64_t c)
{
    return (uint8_t)c;
}
static inline unsigned rf_control_length(uint64_t c)
{
    return (unsigned)(c >> RF_CONTROL_LENGTH_SHIFT) & 63;
}
static inline bool rf_control_more(uint64_t c)
{
    return (c & RF_CONTROL_MORE) != 0;
}
static inline uint16_t rf_control_ack(uint64_t c)
{
    return (uint16_t)(c >> RF_CONTROL_ACK_SHIFT);
}
static inline uint16_t rf_control_view(uint64_t c)
{
    return (uint16_t)(c >> RF_CONTROL_VIEW_SHIFT);
}

/* What a receiver checks of bytes from outside before it believes them. */
static inline bool rf_control_valid(uint64_t c)
{
    return rf_control_type(c) != 0 && rf_control_length(c) <= RF_SLOT_PAYLOAD && !(c & RF_CONTROL_RESERVED);
}

#endif
