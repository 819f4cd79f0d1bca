/* The table of operations: the one symbol that the medium exports, under one name or the other. */
#include "transport/dpdk/internal.h"

#include "transport/module.h"

const rf_transport_t rf_transport_dpdk = {
    .abi = RF_TRANSPORT_ABI,
    .name = "dpdk",
    .flags = RF_TRANSPORT_REMOTE_WRITE,
    .endpoint_open = dpdk_endpoint_open,
    .endpoint_close = path_endpoint_close,
    .endpoint_address = path_endpoint_address,
    .endpoint_fd = path_endpoint_fd,
    .endpoint_progress = path_endpoint_progress,
    .connect = path_connect,
    .accept = path_accept,
    .reject = path_reject,
    .room = path_room,
    .send = path_send,
    .flush = dpdk_flush,
    .poll = dpdk_poll,
    .arm = dpdk_arm,
    .ready = dpdk_ready,
    .disarm = dpdk_disarm,
    .region_create = dpdk_region_create,
    .region_destroy = dpdk_region_destroy,
    .remote_write = path_remote_write,
    .remote_read = rf_missing_remote_read,
    .pass_fds = rf_missing_pass_fds,
    .fence = path_fence,
    .close = path_close,
    .stats = dpdk_stats,
    .peer_credentials = rf_missing_peer_credentials,
};

RF_TRANSPORT_EXPORT(rf_transport_dpdk)
