/* The table of operations: the one symbol that the medium exports, under one name or the other. */
#include "transport/rdma/internal.h"

#include "transport/module.h"

const rf_transport_t rf_transport_rdma = {
    .abi = RF_TRANSPORT_ABI,
    .name = "rdma",
    .flags = RF_TRANSPORT_REMOTE_WRITE | RF_TRANSPORT_REMOTE_READ | RF_TRANSPORT_TAKES_BACK,
    .endpoint_open = rdma_endpoint_open,
    .endpoint_close = path_endpoint_close,
    .endpoint_address = path_endpoint_address,
    .endpoint_fd = path_endpoint_fd,
    .endpoint_progress = path_endpoint_progress,
    .connect = path_connect,
    .accept = path_accept,
    .reject = path_reject,
    .room = rdma_room,
    .send = path_send,
    .flush = rdma_flush,
    .poll = rdma_poll,
    .arm = rdma_arm,
    .ready = rdma_ready,
    .disarm = rdma_disarm,
    .region_create = rdma_region_create,
    .region_destroy = rdma_region_destroy,
    .remote_write = path_remote_write,
    .remote_read = path_remote_read,
    .pass_fds = rf_missing_pass_fds,
    .fence = path_fence,
    .close = path_close,
    .stats = rdma_stats,
    .peer_credentials = rf_missing_peer_credentials,
};

RF_TRANSPORT_EXPORT(rf_transport_rdma)
