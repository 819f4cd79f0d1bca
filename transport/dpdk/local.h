/*
 * What a process and its host's link driver say to each other before slots flow: over the link of shared memory
 * (transport/shm, RF_SHM_RELAY) that carries one flow. Messages of type DPDK_LOCAL_* (transport/message.h):
 *
 *   process                                 driver
 *     | OPEN(how many slots) ----------------> |  draws a flow id
 *     | <------------- OPENED(where it stands) |  or REFUSED(why), and closes
 *     | JOIN(the other end, the secret) -----> |  frames flow
 *     | slots, unchanged <-------------------> |  ... until either end of the link of shared memory ends:
 *
 * The process ends it, dies or fences: the driver puts DPDK_END behind its last slot (it cannot
 * tell a fence, and need not: who fences reads nothing any more). DPDK_END comes from the other end, the other end is
 * silent until the deadline, or the driver ends: the process sees its link closed, or dead.
 *
 * A STATS message instead of OPEN is answered by STATS messages, dpdk_stats_t, one a message, and a close.
 */
#ifndef RF_TRANSPORT_DPDK_LOCAL_H
#define RF_TRANSPORT_DPDK_LOCAL_H

#include "transport/dpdk/format.h"

#define DPDK_LOCAL_FORMAT 1

enum {
    DPDK_LOCAL_OPEN = 1,
    DPDK_LOCAL_OPENED,
    DPDK_LOCAL_REFUSED,
    DPDK_LOCAL_JOIN,
    DPDK_LOCAL_STATS,
};

typedef struct dpdk_open {
    uint16_t format;
    uint16_t lane;
    uint32_t slots;       /* of each window; the driver may take less */
    uint64_t deadline_ns; /* a peer that owes an answer for so long is dead */
} dpdk_open_t;
_Static_assert(sizeof(dpdk_open_t) == 16, "layout between processes");

typedef struct dpdk_opened {
    uint16_t format;
    uint16_t seal; /* the weakest rf_seal_mode_t that is allowed over this port */
    uint32_t reserved;
    dpdk_place_t place;
} dpdk_opened_t;
_Static_assert(sizeof(dpdk_opened_t) == 40, "layout between processes");

typedef struct dpdk_refused {
    uint32_t err;
} dpdk_refused_t;

typedef struct dpdk_join {
    dpdk_place_t peer;
    uint8_t secret[RF_SEAL_SECRET];
    uint8_t seal;
    uint8_t dialer;
    uint8_t reserved[6];
} dpdk_join_t;
_Static_assert(sizeof(dpdk_join_t) == 72, "layout between processes");

/* One counter of the driver. */
typedef struct dpdk_stats {
    char name[40]; /* zero-terminated, letters and '_' */
    uint64_t value;
} dpdk_stats_t;
_Static_assert(sizeof(dpdk_stats_t) == 48, "layout between processes");

/* Each checks what came: RF_ERR_PROTOCOL, or RF_ERR_VERSION of another format. Pure. */
rf_err_t dpdk_open_decode(const uint8_t *bytes, size_t size, dpdk_open_t *out);
rf_err_t dpdk_opened_decode(const uint8_t *bytes, size_t size, dpdk_opened_t *out);
rf_err_t dpdk_join_decode(const uint8_t *bytes, size_t size, dpdk_join_t *out);
/* A place that another host said. */
bool dpdk_place_valid(const dpdk_place_t *place);

#endif
