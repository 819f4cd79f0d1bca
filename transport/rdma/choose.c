#include "transport/rdma/choose.h"

#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>

enum { RANK_V2_IPV4, RANK_V2_GLOBAL, RANK_V2_LOCAL, RANK_V1, RANKS };
#define RANK_OFF_ROUTE 8 /* worse than every kind on the route */
#define IPOIB_QP                                                                                             \
    4 /* bytes of an IPoIB hardware address before its GID (RFC 4391, 9.1.1): flags, queue pair */

static bool is_ipv4(const uint8_t *gid)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(gid, prefix, sizeof prefix) == 0;
}

static bool is_link_local(const uint8_t *gid)
{
    return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80;
}

static unsigned rank_of_kind(const rdma_gid_t *gid)
{
    switch (gid->kind) {
    case RDMA_GID_IB:
    case RDMA_GID_IWARP:
        return 0;
    case RDMA_GID_ROCE_V2:
        return is_ipv4(gid->gid) ? RANK_V2_IPV4 : is_link_local(gid->gid) ? RANK_V2_LOCAL : RANK_V2_GLOBAL;
    case RDMA_GID_ROCE_V1:
        break;
    }
    return RANK_V1;
}

const char *rdma_gid_text(const rdma_gid_t *gid)
{
    static const char *const texts[RANKS] = {"RoCE v2, IPv4", "RoCE v2, global IPv6", "RoCE v2, link-local",
                                             "RoCE v1"};
    if (gid->kind == RDMA_GID_IB) return "InfiniBand";
    if (gid->kind == RDMA_GID_IWARP) return "iWARP";
    return texts[rank_of_kind(gid)];
}

bool rdma_port_below(unsigned type, const uint8_t *hardware, size_t size, uint8_t gid[RDMA_GID])
{
    if (type != ARPHRD_INFINIBAND || size != IPOIB_QP + RDMA_GID) return false;
    memcpy(gid, hardware + IPOIB_QP, RDMA_GID);
    return true;
}

static bool on_route(const rdma_source_t *route, const rdma_gid_t *gid)
{
    static const uint8_t none[RDMA_GID];
    if (gid->kind == RDMA_GID_IB)
        return memcmp(route->port, none, sizeof none) != 0 && memcmp(route->port, gid->gid, sizeof none) == 0;
    return route->netdev != 0 && gid->netdev == route->netdev;
}

static bool allowed(const rdma_options_t *options, const rdma_gid_t *gid)
{
    return (options->device[0] == 0 || strcmp(options->device, gid->device) == 0) &&
           (options->port == 0 || options->port == gid->port) &&
           (options->gid_index < 0 || options->gid_index == gid->index);
}

/* Lower is better; ties go to the one that comes first. */
static unsigned rank_of(const rdma_source_t *route, const rdma_gid_t *gid)
{
    unsigned rank = rank_of_kind(gid) + (on_route(route, gid) ? 0 : RANK_OFF_ROUTE);
    return rank * 2 + (memcmp(route->gid, gid->gid, RDMA_GID) == 0 ? 0 : 1);
}

/* Nothing fits: what is there, and what to do. */
static rf_err_t explain(const rdma_options_t *options, const rdma_gid_t *gids, unsigned n,
                        const rdma_gid_t *down, char *why, size_t why_max)
{
    bool device = false, port = false;
    char seen[128] = "";
    for (unsigned i = 0; i < n; i++) {
        bool this_device = options->device[0] == 0 || strcmp(options->device, gids[i].device) == 0;
        device |= this_device;
        port |= this_device && (options->port == 0 || options->port == gids[i].port);
        bool again = i > 0 && strcmp(gids[i].device, gids[i - 1].device) == 0;
        size_t used = strlen(seen);
        if (!again) snprintf(seen + used, sizeof seen - used, "%s%s", used ? ", " : "", gids[i].device);
    }
    if (down) {
        snprintf(why, why_max, "port %d of %s is down: bring its network device or cable up (`rdma link`)",
                 down->port, down->device);
        return RF_ERR_AGAIN;
    }
    if (n == 0)
        snprintf(why, why_max,
                 "this host has no RDMA device with a GID: load its driver, and give its network device an "
                 "address (`rdma link`, `ibv_devices`)");
    else if (!device)
        snprintf(why, why_max, "this host has no RDMA device '%s', but %s: correct device=", options->device,
                 seen);
    else if (!port)
        snprintf(why, why_max, "%s has no port %d: correct port= (`ibv_devinfo`)",
                 options->device[0] ? options->device : seen, options->port);
    else
        snprintf(why, why_max,
                 "%s has no GID with index %d: correct gid_index= (`ibv_devinfo -v` lists them), or leave it "
                 "out",
                 options->device[0] ? options->device : seen, options->gid_index);
    return RF_ERR_NOT_FOUND;
}

rf_err_t rdma_choose(const rdma_options_t *options, const rdma_source_t *route, const rdma_gid_t *gids,
                     unsigned n, unsigned *out, char *why, size_t why_max)
{
    const rdma_gid_t *best = NULL, *down = NULL;
    for (unsigned i = 0; i < n; i++) {
        const rdma_gid_t *gid = &gids[i];
        if (!allowed(options, gid)) continue;
        if (!gid->active)
            down = down ? down : gid;
        else if (!best || rank_of(route, gid) < rank_of(route, best))
            best = gid;
    }
    if (!best) return explain(options, gids, n, down, why, why_max);
    bool told = options->device[0] || options->port || options->gid_index >= 0;
    snprintf(why, why_max, "%s port %d GID %d (%s), %s%s", best->device, best->port, best->index,
             rdma_gid_text(best),
             best->kind == RDMA_GID_IWARP ? "the connection manager finds the route"
             : on_route(route, best)      ? "by the route to the peer"
                                          : "though the route to the peer goes over none of the active ports",
             told ? ", as configured" : "");
    *out = (unsigned)(best - gids);
    return RF_OK;
}
