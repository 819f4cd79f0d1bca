/*
 * What two RDMA endpoints say to each other beyond transport/path/format.h, byte for byte: little-endian, naturally aligned,
 * sizes asserted. A path is a pair of queue pairs, one at each end.
 *
 * Queue pair (reliable connected). A message is
 *
 *   data   1 to RDMA_MESSAGE_SLOTS slots, in order; their control words carry the acknowledgement
 *   word   one slot of type RDMA_WORD, which its receiver's owner never sees: path_word_t
 */
#ifndef RF_TRANSPORT_RDMA_FORMAT_H
#define RF_TRANSPORT_RDMA_FORMAT_H

#include "transport/path/format.h"

#define RDMA_FORMAT        5
#define RDMA_MAGIC         "RKFSHRDM"
#define RDMA_MESSAGE_SLOTS 16
#define RDMA_GID           16
#define RDMA_TOKEN         16

enum {
    RDMA_CONTROL_REGION_GONE = PATH_CONTROL_MEDIUM, /* rdma_region_gone_t: write there no more ... */
    RDMA_CONTROL_REGION_FREE,  /* ... and: nothing of this end is on its way there any more */
    RDMA_CONTROL_REGION_MOVED, /* rdma_region_moved_t: its key, from the next path of the bulk lane on */
};

/* One end of a path: a queue pair and what the other end has to know of it. */
typedef struct rdma_path_info {
    path_info_t path;  /* its kind: 1: iWARP, by rdma_cm, to `port`, with `token`; 0: by the numbers here */
    uint32_t qpn, psn; /* 24 bits each */
    uint16_t lid;
    uint8_t mtu;      /* enum ibv_mtu of the port */
    uint8_t ethernet; /* 1: RoCE, addressed by GID; 0: InfiniBand */
    uint8_t gid[RDMA_GID];
    uint32_t messages;  /* data messages that this end takes before the first of them is acknowledged */
    uint32_t slots_max; /* slots that this end takes before the first of them is acknowledged */
    uint32_t line_key;
    uint64_t ring; /* 0: SEND me slots; else WRITE them here: address, key and slots of a ring */
    uint32_t ring_key, ring_slots;
    uint64_t line;  /* where this end's acknowledgement line for the slots it sends is; 0: none */
    uint16_t port;  /* iWARP: ANSWER: where the listener's rdma_cm listens */
    uint16_t reads; /* READs of the other end that this one serves at once; at least 1 */
    uint16_t reserved[2];
    uint8_t token[RDMA_TOKEN];
} rdma_path_info_t;
_Static_assert(sizeof(rdma_path_info_t) == 112, "wire layout");

typedef struct rdma_region_gone {
    uint64_t region;
} rdma_region_gone_t;
_Static_assert(sizeof(rdma_region_gone_t) == 8, "wire layout");

typedef struct rdma_region_moved {
    uint32_t region, rkey;
} rdma_region_moved_t;
_Static_assert(sizeof(rdma_region_moved_t) == sizeof(rdma_region_gone_t), "wire layout");

#define RDMA_WORD RF_SLOT_TYPE_MEDIUM

#define RDMA_WORD_SLEEP PATH_WORD_MEDIUM        /* I want to sleep: from GRANT on, ring me */
#define RDMA_WORD_GRANT (PATH_WORD_MEDIUM << 1) /* the next flush rings */
#define RDMA_WORD_RING  (PATH_WORD_MEDIUM << 2) /* wake up: there are slots */
#define RDMA_WORD_FLAGS ((PATH_WORD_MEDIUM << 3) - 1)

/* Behind the bytes of a remote write that has a notify slot, on the bulk path. It speaks for the writes before it that had
 * none, too: a queue pair works in order. */
typedef struct rdma_placed {
    uint64_t write; /* its number, from 0 */
    uint64_t total; /* bytes of all remote writes of the link up to here */
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
_Static_assert(sizeof(rdma_region_key_t) == sizeof(path_region_key_t) &&
                   offsetof(rdma_region_key_t, size) == offsetof(path_region_key_t, size),
               "wire layout");

#endif
