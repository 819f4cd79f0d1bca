/*
 * What two ends of a link over DPDK say to each other beyond transport/path/format.h, byte for byte: little-endian, naturally
 * aligned, sizes asserted. An end of a path is a flow at its host's link driver.
 *
 * Flow: slots, in order (transport/dpdk/flow.h is how), among which are
 *
 *   word   one slot of type DPDK_WORD, which its receiver's owner never sees: path_word_t
 *   end    one slot of type DPDK_END, put in by the driver of an end that is no more, after its last slot; the other driver
 *          ends its link to its process there
 *   bulk   on the lane for bulk: a head, DPDK_BULK, with its notify slot behind it if it has one, and then the bytes, in
 *          slots of type DPDK_BYTES
 */
#ifndef RF_TRANSPORT_DPDK_FORMAT_H
#define RF_TRANSPORT_DPDK_FORMAT_H

#include "transport/dpdk/seal.h"
#include "transport/path/format.h"
#include "transport/shm/shm.h"

#define DPDK_FORMAT 2
#define DPDK_MAGIC  "RKFSHDPD"

/* A driver's end of a flow, and how frames find it. */
typedef struct dpdk_place {
    uint64_t driver; /* which life of the link driver; never two the same */
    uint32_t flow;
    uint32_t credit;    /* slots that this end's flow takes before it has said anything */
    uint32_t frame_max; /* bytes behind UDP that its port takes */
    uint8_t ipv4[4];
    uint8_t mac[6];
    uint16_t udp_port;
} dpdk_place_t;
_Static_assert(sizeof(dpdk_place_t) == 32, "wire layout");

/* One end of a path: a flow and what the other end has to know of it. */
typedef struct dpdk_path_info {
    path_info_t
        path; /* its kind: the rf_seal_mode_t that this end asks for; the stronger of the two counts */
    dpdk_place_t place;
    uint8_t nonce[RF_SEAL_NONCE];
} dpdk_path_info_t;
_Static_assert(sizeof(dpdk_path_info_t) == 88, "wire layout");

#define DPDK_WORD  RF_SHM_RELAYED
#define DPDK_END   (RF_SHM_RELAYED + 1)
#define DPDK_BULK  (RF_SHM_RELAYED + 2)
#define DPDK_BYTES (RF_SHM_RELAYED + 3)

/* The payload of a bulk head. */
typedef struct dpdk_bulk_head {
    uint64_t write; /* its number, from 0 */
    uint64_t region;
    uint64_t offset, size;
    uint64_t has_notify; /* 1: the next slot is what the owner gets once the bytes are there */
    uint64_t reserved[2];
} dpdk_bulk_head_t;
_Static_assert(sizeof(dpdk_bulk_head_t) == RF_SLOT_PAYLOAD, "a bulk head fills the payload of a slot");

typedef struct dpdk_region_key {
    uint64_t region;
    uint64_t size;
    uint64_t reserved;
} dpdk_region_key_t;
_Static_assert(sizeof(dpdk_region_key_t) == sizeof(path_region_key_t) &&
                   offsetof(dpdk_region_key_t, size) == offsetof(path_region_key_t, size),
               "wire layout");

#endif
