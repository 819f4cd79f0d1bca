/* The table of operations: the one symbol that the medium exports, under one name or the other. */
#include "transport/tcp/internal.h"

#include "transport/module.h"

const rf_transport_t rf_transport_tcp = {
    .abi = RF_TRANSPORT_ABI,
    .name = "tcp",
    .flags = RF_TRANSPORT_REMOTE_WRITE | RF_TRANSPORT_ENCRYPTS | RF_TRANSPORT_TAKES_BACK,
    .endpoint_open = tcp_endpoint_open,
    .endpoint_close = tcp_endpoint_close,
    .endpoint_address = tcp_endpoint_address,
    .endpoint_fd = tcp_endpoint_fd,
    .endpoint_progress = tcp_endpoint_progress,
    .connect = tcp_connect,
    .accept = tcp_accept,
    .reject = tcp_reject,
    .room = tcp_room,
    .send = tcp_send,
    .flush = tcp_flush,
    .poll = tcp_poll,
    .arm = tcp_arm,
    .ready = tcp_ready,
    .disarm = tcp_disarm,
    .region_create = tcp_region_create,
    .region_destroy = tcp_region_destroy,
    .remote_write = tcp_remote_write,
    .remote_read = rf_missing_remote_read,
    .pass_fds = rf_missing_pass_fds,
    .fence = tcp_fence,
    .close = tcp_close,
    .stats = tcp_stats,
    .peer_credentials = rf_missing_peer_credentials,
};

RF_TRANSPORT_EXPORT(rf_transport_tcp)
