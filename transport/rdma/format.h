/*
 * What two RDMA endpoints say to each other, byte for byte: little-endian, naturally aligned, sizes asserted.
 *
 * Control link (an exactly-once link of transport/tcp; messages of type RDMA_CONTROL_*):
 *
 *   dialer                                            listener
 *     | OFFER(generation, its queue pair) ----------->  |  makes one, ready to receive and send
 *     | <---------- ANSWER(generation, its queue pair)  |
 *     | ready to receive and send                       |
 *     | HELLO over the queue pair ------------------->  |  UP
 *     | <------------------- HELLO over the queue pair  |  UP at the dialer
 *     | <------------------------------------ LOST, or  |  either end's queue pair failed: the dialer offers anew
 *
 * Queue pair (reliable connected). A message is
 *
 *   data   1 to RDMA_MESSAGE_SLOTS slots, in order; their control words carry the acknowledgement
 *   word   one slot of type RDMA_WORD, which its receiver's owner never sees: rdma_word_t
 *
 * `delivered` is how many of the other end's slots their owner has taken, and acknowledges them; `accepted` is how many
 * have come, and is where a new path goes on. Counts are of the life of the link, over all its paths.
 */
#ifndef RF_TRANSPORT_RDMA_FORMAT_H
#define RF_TRANSPORT_RDMA_FORMAT_H

#include "transport/transport.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats below are little-endian");

#define RDMA_FORMAT        1
#define RDMA_MAGIC         "RKFSHRDM"
#define RDMA_MESSAGE_SLOTS 16
#define RDMA_GID           16
#define RDMA_TOKEN         16

enum {
    RDMA_CONTROL_OFFER = 1,
    RDMA_CONTROL_ANSWER,
    RDMA_CONTROL_LOST,        /* rdma_lost_t: offer anew; or why there will be no path */
    RDMA_CONTROL_CLOSED,      /* all slots up to CLOSE have been taken: the closer need not stay */
    RDMA_CONTROL_REGION_GONE, /* rdma_region_gone_t: write there no more ... */
    RDMA_CONTROL_REGION_FREE, /* ... and: nothing of this end is on its way there any more */
};

enum { RDMA_LANE_SLOTS = 0, RDMA_LANE_BULK = 1, RDMA_LANES = 2 };

/* One end of a path: a queue pair and what the other end has to know of it. */
typedef struct rdma_path_info {
    uint8_t magic[8];
    uint16_t format;
    uint8_t lane;  /* RDMA_LANE_* */
    uint8_t iwarp; /* 1: by rdma_cm, to `port`, with `token`; 0: by the numbers here */
    uint32_t generation;
    uint32_t qpn, psn; /* 24 bits each */
    uint16_t lid;
    uint8_t mtu;      /* enum ibv_mtu of the port */
    uint8_t ethernet; /* 1: RoCE, addressed by GID; 0: InfiniBand */
    uint8_t gid[RDMA_GID];
    uint32_t messages;  /* data messages that this end takes before the first of them is acknowledged */
    uint32_t slots_max; /* slots that this end takes before the first of them is acknowledged */
    uint64_t accepted;  /* slots (bulk: remote writes) that have come at this end */
    uint64_t ring;      /* 0: SEND me slots; else WRITE them here: address, key and slots of a ring */
    uint32_t ring_key, ring_slots;
    uint64_t line; /* where this end's acknowledgement line for the slots it sends is; 0: none */
    uint32_t line_key;
    uint16_t port; /* iWARP: ANSWER: where the listener's rdma_cm listens */
    uint16_t reserved;
    uint8_t token[RDMA_TOKEN];
} rdma_path_info_t;
_Static_assert(sizeof(rdma_path_info_t) == 112, "wire layout");

typedef struct rdma_lost {
    uint32_t generation;
    uint16_t lane;
    uint16_t err; /* rf_err_t; RF_OK: a new offer is welcome */
} rdma_lost_t;
_Static_assert(sizeof(rdma_lost_t) == 8, "wire layout");

typedef struct rdma_region_gone {
    uint64_t region;
} rdma_region_gone_t;
_Static_assert(sizeof(rdma_region_gone_t) == 8, "wire layout");

#define RDMA_WORD RF_SLOT_TYPE_MEDIUM

#define RDMA_WORD_HELLO    1u  /* first on a path, each way */
#define RDMA_WORD_WANT_ACK 2u  /* say `delivered` as soon as everything sent before this has been taken */
#define RDMA_WORD_CLOSE    4u  /* the sender closed; it has sent `count` slots in all */
#define RDMA_WORD_SLEEP    8u  /* I want to sleep: from GRANT on, ring me */
#define RDMA_WORD_GRANT    16u /* the next flush rings */
#define RDMA_WORD_RING     32u /* wake up: there are slots */
#define RDMA_WORD_PROBE    64u /* nothing: whether it comes over is what counts */
#define RDMA_WORD_FLAGS    127u

/* The payload of a word. */
typedef struct rdma_word {
    uint32_t flags;
    uint32_t generation;
    uint64_t delivered;
    uint64_t placed; /* remote writes of the other end that were taken whole */
    uint64_t count;  /* CLOSE, WANT_ACK: slots sent so far */
    uint64_t reserved[3];
} rdma_word_t;
_Static_assert(sizeof(rdma_word_t) == RF_SLOT_PAYLOAD, "a word fills the payload of a slot");

/* Behind the bytes of each remote write, on the bulk path. */
typedef struct rdma_placed {
    uint64_t write; /* its number, from 0 */
    uint64_t size;
    uint32_t has_notify;
    uint32_t reserved[11];
    rf_slot_t notify;
} rdma_placed_t;
_Static_assert(sizeof(rdma_placed_t) == 128, "wire layout");

typedef struct rdma_region_key {
    uint64_t base;
    uint64_t size;
    uint32_t rkey;
    uint32_t region;
} rdma_region_key_t;
_Static_assert(sizeof(rdma_region_key_t) == RF_REGION_KEY_SIZE, "wire layout");

#endif
