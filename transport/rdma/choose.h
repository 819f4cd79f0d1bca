/*
 * Which device, port and GID a path goes over. Pure: the table comes from device.c, or from a test.
 *
 * Among ports that are active, and that the options allow:
 *   1. those of the network device by which the route to the peer goes (InfiniBand: of the port below it), then others
 *   2. RoCE v2 with an IPv4 address, v2 with a global IPv6 address, v2 link-local, v1; InfiniBand and iWARP have one kind
 *   3. the GID that is the very address the route uses, then the lowest index
 */
#ifndef RF_TRANSPORT_RDMA_CHOOSE_H
#define RF_TRANSPORT_RDMA_CHOOSE_H

#include "transport/rdma/format.h"
#include "transport/rdma/options.h"

typedef enum rdma_gid_kind {
    RDMA_GID_IB,
    RDMA_GID_ROCE_V1,
    RDMA_GID_ROCE_V2,
    RDMA_GID_IWARP
} rdma_gid_kind_t;

typedef struct rdma_gid {
    char device[RDMA_NAME_MAX];
    int port, index;
    rdma_gid_kind_t kind;
    uint8_t gid[RDMA_GID];
    uint32_t netdev; /* interface index; 0: none */
    bool active;     /* the port */
} rdma_gid_t;

/* How packets to the peer leave this host. */
typedef struct rdma_source {
    uint32_t netdev;        /* interface index; 0: not known */
    uint8_t gid[RDMA_GID];  /* the source address as a GID: IPv4 is ::ffff:a.b.c.d */
    uint8_t port[RDMA_GID]; /* that interface is IP over InfiniBand: its port's GID; zeros: it is not */
} rdma_source_t;

/* The GID of the InfiniBand port below an interface with that hardware address, which names no interface itself. False: it is of another
 * kind (`type` is one of ARPHRD_*). */
bool rdma_port_below(unsigned type, const uint8_t *hardware, size_t size, uint8_t gid[RDMA_GID]);

/*
 * RF_OK: *out is the index into `gids`, `why` the reason. RF_ERR_NOT_FOUND: there is none (`why` says what is missing and
 * how to mend it); RF_ERR_AGAIN: there is one, but its port is down.
 */
rf_err_t rdma_choose(const rdma_options_t *options, const rdma_source_t *route, const rdma_gid_t *gids,
                     unsigned n, unsigned *out, char *why, size_t why_max);

/* "RoCE v2, IPv4" and so on. */
const char *rdma_gid_text(const rdma_gid_t *gid);

#endif
