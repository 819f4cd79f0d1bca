/* The table of operations: the one symbol that the medium exports, under one name or the other. */
#include "transport/rdma/internal.h"

const rf_transport_t rf_transport_rdma = {
    .abi = RF_TRANSPORT_ABI,
    .name = "rdma",
    .flags = RF_TRANSPORT_REMOTE_WRITE,
    .endpoint_open = rdma_endpoint_open,
    .endpoint_close = rdma_endpoint_close,
    .endpoint_address = rdma_endpoint_address,
    .endpoint_fd = rdma_endpoint_fd,
    .endpoint_progress = rdma_endpoint_progress,
    .connect = rdma_link_connect,
    .accept = rdma_link_accept_incoming,
    .reject = rdma_link_reject,
    .room = rdma_room,
    .send = rdma_send,
    .flush = rdma_flush,
    .poll = rdma_poll,
    .arm = rdma_arm,
    .ready = rdma_ready,
    .disarm = rdma_disarm,
    .region_create = rdma_region_create,
    .region_destroy = rdma_region_destroy,
    .remote_write = rdma_remote_write,
    .pass_fds = rf_missing_pass_fds,
    .fence = rdma_fence,
    .close = rdma_close,
    .stats = rdma_stats,
    .peer_credentials = rf_missing_peer_credentials,
};

#ifdef RF_TRANSPORT_MODULE /* built as rackfish-rdma.so: what the registry looks for */
#include "base/log.h"

#include <errno.h>

extern const rf_transport_t rf_transport_module
    __attribute__((alias("rf_transport_rdma"), visibility("default")));

/* The module has a log of its own: it speaks in the program's name. */
__attribute__((constructor)) static void log_as_the_program(void)
{
    rf_log_init(program_invocation_short_name, RF_LOG_INFO);
}
#endif
