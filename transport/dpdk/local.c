#include "transport/dpdk/local.h"

#include "transport/dpdk/flow.h"

#include <string.h>

bool dpdk_place_valid(const dpdk_place_t *place)
{
    bool unicast = !(place->mac[0] & 1) && place->ipv4[0] != 0 && place->ipv4[0] < 224;
    return unicast && place->udp_port != 0 && place->flow != 0 && place->credit >= RF_FLOW_SLOTS_MIN &&
           place->credit <= RF_FLOW_SLOTS_MAX && place->frame_max >= RF_FLOW_FRAME_MIN &&
           place->frame_max <= RF_FLOW_FRAME_MAX;
}

rf_err_t dpdk_open_decode(const uint8_t *bytes, size_t size, dpdk_open_t *out)
{
    dpdk_open_t open;
    if (size < sizeof open.format) return RF_ERR_PROTOCOL;
    memcpy(&open.format, bytes, sizeof open.format);
    if (open.format != DPDK_LOCAL_FORMAT) return RF_ERR_VERSION;
    if (size != sizeof open) return RF_ERR_PROTOCOL;
    memcpy(&open, bytes, sizeof open);
    if (open.lane >= PATH_LANES || open.slots == 0 || (open.slots & (open.slots - 1)) != 0 ||
        open.slots > RF_FLOW_SLOTS_MAX || open.deadline_ns == 0)
        return RF_ERR_PROTOCOL;
    *out = open;
    return RF_OK;
}

rf_err_t dpdk_opened_decode(const uint8_t *bytes, size_t size, dpdk_opened_t *out)
{
    dpdk_opened_t opened;
    if (size < sizeof opened.format) return RF_ERR_PROTOCOL;
    memcpy(&opened.format, bytes, sizeof opened.format);
    if (opened.format != DPDK_LOCAL_FORMAT) return RF_ERR_VERSION;
    if (size != sizeof opened) return RF_ERR_PROTOCOL;
    memcpy(&opened, bytes, sizeof opened);
    if (opened.seal > RF_SEAL_ENCRYPT || opened.reserved != 0 || !dpdk_place_valid(&opened.place))
        return RF_ERR_PROTOCOL;
    *out = opened;
    return RF_OK;
}

rf_err_t dpdk_join_decode(const uint8_t *bytes, size_t size, dpdk_join_t *out)
{
    static const uint8_t zero[sizeof out->reserved];
    dpdk_join_t join;
    if (size != sizeof join) return RF_ERR_PROTOCOL;
    memcpy(&join, bytes, sizeof join);
    if (join.seal > RF_SEAL_ENCRYPT || join.dialer > 1 || memcmp(join.reserved, zero, sizeof zero) != 0 ||
        !dpdk_place_valid(&join.peer))
        return RF_ERR_PROTOCOL;
    *out = join;
    return RF_OK;
}
