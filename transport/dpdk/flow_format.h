/*
 * A frame behind UDP, byte for byte: little-endian, at any alignment.
 *
 *    0  flow         u32  the receiver's id of the flow                                          } always readable,
 *    4  format       u8   FLOW_FORMAT                                                            } and authenticated
 *    5  flags        u8   FLOW_FRAME_*                                                           }
 *    6  units        u16  how many times 64 bytes follow the head: slots, or zeros with PAD      }
 *    8  number       u64  of this frame, from 0; never used twice under one secret               }
 *   16  sequence     u32  number of the first slot, its low 32 bits       } enciphered with RF_SEAL_ENCRYPT
 *   20  next         u32  all slots below this have come here             }
 *   24  credit       u32  slots below this are taken here                 }
 *   28  largest      u32  ACKS: largest number of a frame that came here  }
 *   32  before       u64  ACKS: bit i: frame `largest - 64 + i` came too  }
 *   40  ack_delay_ns u32  ACKS: since `largest` came, until this frame    }
 *   44  late_ns      u32  ACKS: before which `largest` may have waited here, unseen }
 *   48  units x 64 bytes                                                  }
 *       tag          16 bytes, over all of the above
 *
 * A frame's size is RF_FLOW_OVERHEAD + 64 * units, nothing else. A frame with slots, or with PING, is owed an
 * acknowledgement. Numbers of 32 bits are widened by their receiver to the nearest one to what it knows.
 */
#ifndef RF_TRANSPORT_DPDK_FLOW_FORMAT_H
#define RF_TRANSPORT_DPDK_FLOW_FORMAT_H

#include "transport/dpdk/flow.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format below is little-endian");

#define FLOW_FORMAT 2

#define FLOW_FRAME_ACKS     1u /* `largest`, `before`, `ack_delay_ns` say something */
#define FLOW_FRAME_WANT_ACK 2u /* acknowledge now, not later */
#define FLOW_FRAME_PING     4u /* owed an acknowledgement also without slots */
#define FLOW_FRAME_PAD      8u /* the units are zeros: does a frame of this size come through? */
#define FLOW_FRAME_FLAGS    15u

typedef struct flow_head {
    uint32_t flow;
    uint8_t format;
    uint8_t flags;
    uint16_t units;
    uint64_t number;
    uint32_t sequence;
    uint32_t next;
    uint32_t credit;
    uint32_t largest;
    uint64_t before;
    uint32_t ack_delay_ns;
    uint32_t late_ns;
} flow_head_t;
_Static_assert(sizeof(flow_head_t) == 48, "wire layout");

/* One in a frame, where it may stand at any address. */
typedef flow_head_t flow_head_at_t __attribute__((aligned(1)));

_Static_assert(offsetof(flow_head_t, sequence) == RF_SEAL_CLEAR, "what is never enciphered");
_Static_assert(sizeof(flow_head_t) + RF_SEAL_TAG == RF_FLOW_OVERHEAD, "head and tag");
_Static_assert(sizeof(rf_slot_t) == 64, "a unit is a slot");

/* How far the nearest number with these low 32 bits is ahead of `known` (below 0: behind it). */
static inline int64_t flow_ahead(uint64_t known, uint32_t low)
{
    return (int32_t)(low - (uint32_t)known);
}

#endif
