/* What a lane asks of this medium (transport/path/path.h): which path is made for it, and what follows its end. */
#include "transport/rdma/internal.h"

#include "base/log.h"
#include "base/prng.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const rdma_path_info_t *info_of(const path_info_t *info)
{
    return (const rdma_path_info_t *)(const void *)info;
}

/* --- making ------------------------------------------------------------------------------------------------- */

static void route_of(const path_link_t *link, rdma_source_t *out)
{
    if (link->dialer)
        rdma_source_to(link->address_text, out);
    else
        *out = rdma_endpoint_of(link)->listen_route;
}

/* The route by which a dialer's GID is reached, where it is an address and listening said nothing. */
static void route_back(const path_link_t *link, const rdma_path_info_t *peer, rdma_source_t *out)
{
    route_of(link, out);
    if (out->netdev != 0 || !peer->ethernet) return;
    char address[RF_ADDRESS_MAX];
    const uint8_t *g = peer->gid;
    static const uint8_t ipv4[12] = {[10] = 0xff, 0xff};
    char text[INET6_ADDRSTRLEN];
    if (memcmp(g, ipv4, sizeof ipv4) == 0)
        snprintf(address, sizeof address, "%u.%u.%u.%u:1", g[12], g[13], g[14], g[15]);
    else if (inet_ntop(AF_INET6, g, text, sizeof text))
        snprintf(address, sizeof address, "[%s]:1", text);
    else
        return;
    rdma_source_to(address, out);
}

/* A port that is down may come up, and what has been there before is waited for; else there is no sense in trying again. */
static void refused(path_lane_t *lane, rf_err_t err)
{
    bool later = err == RF_ERR_AGAIN || err == RF_ERR_LIMIT || lane->link->was_up;
    if (later || lane->number == PATH_LANE_BULK)
        path_lane_refused(lane);
    else
        path_lane_impossible(lane, err);
}

static bool fits(const rdma_place_t *place, const rdma_path_info_t *offer)
{
    return !offer || (offer->path.kind == place->device->iwarp && offer->ethernet == place->ethernet);
}

void rdma_lane_make(path_lane_t *lane, const path_info_t *said)
{
    path_link_t *link = lane->link;
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    const rdma_path_info_t *offer = said ? info_of(said) : NULL;
    rdma_source_t route;
    rdma_place_t place;
    rdma_path_t *path;
    if (offer)
        route_back(link, offer, &route);
    else
        route_of(link, &route);
    rf_err_t err = rdma_place_find(ep, &route, &place);
    if (err == RF_OK && !fits(&place, offer)) {
        if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(
                RF_LOG_WARN,
                "rdma: no path to %s: one end has iWARP, RoCE or InfiniBand and the other another of them: "
                "choose with device=",
                link->address_text);
        path_lane_impossible(lane, RF_ERR_NOT_SUPPORTED);
        return;
    }
    if (err == RF_OK) err = rdma_path_make(lane, &place, &path);
    if (err == RF_OK)
        path_lane_made(lane);
    else
        refused(lane, err);
}

/* --- saying and joining ------------------------------------------------------------------------------------- */

rf_err_t rdma_lane_info(path_lane_t *lane, path_info_t *out)
{
    rdma_path_t *path = rdma_path_of(lane);
    rdma_path_info_t *info = (rdma_path_info_t *)(void *)out;
    rdma_path_info(path, info);
    /* Keys that have changed are said before the path over which they are used. */
    if (path->bulk && !rdma_regions_push(rdma_path_link(path))) return RF_ERR_AGAIN;
    if (!path->device->iwarp || lane->link->dialer) return RF_OK;
    rf_random_secret(path->token, sizeof path->token);
    memcpy(info->token, path->token, sizeof info->token);
    return rdma_cm_listen(path->device, &info->port);
}

bool rdma_lane_info_right(const path_info_t *said)
{
    const rdma_path_info_t *info = info_of(said);
    return said->kind <= 1 && info->qpn <= RDMA_PSN_MASK && info->psn <= RDMA_PSN_MASK &&
           info->mtu >= IBV_MTU_256 && info->mtu <= IBV_MTU_4096 && info->messages > 0 &&
           info->slots_max > 0 && (info->ring == 0) == (info->ring_slots == 0) &&
           (info->ring_slots & (info->ring_slots - 1)) == 0 && info->ring_slots <= RDMA_RING_SLOTS &&
           info->ethernet <= 1 && info->reads > 0 && info->reserved[0] == 0 && info->reserved[1] == 0;
}

rf_err_t rdma_lane_join(path_lane_t *lane, const path_info_t *peer)
{
    return rdma_path_join(rdma_path_of(lane), info_of(peer));
}

bool rdma_lane_say(path_lane_t *lane, const path_word_t *word)
{
    return rdma_path_say(rdma_path_of(lane), word);
}

/* --- ending ------------------------------------------------------------------------------------------------- */

void rdma_lane_drop(path_lane_t *lane)
{
    rdma_path_kill(rdma_path_of(lane));
}

void rdma_lane_failed(path_lane_t *lane)
{
    enum ibv_wc_status why = rdma_path_of(lane)->why;
    if (lane->number == PATH_LANE_BULK) {
        rdma_bulk_failed(lane, why);
        return;
    }
    if (lane->stage == PATH_UP && rf_log_level() >= RF_LOG_DEBUG)
        rf_log(RF_LOG_DEBUG, "rdma: the path to %s failed: %s", lane->link->address_text,
               ibv_wc_status_str(why));
    path_lane_lost(lane, why == IBV_WC_RETRY_EXC_ERR ? RF_ERR_TIMEOUT : RF_ERR_CLOSED, true);
}

const char *rdma_lane_overdue(const path_lane_t *lane)
{
    return lane->number == PATH_LANE_SLOTS
               ? "the path for slots does not come up: check that GIDs reach each other, MTUs, and that no "
                 "firewall drops UDP port 4791"
               : "the path for bulk does not come up: check that GIDs reach each other, MTUs, and that no "
                 "firewall drops UDP port 4791";
}
