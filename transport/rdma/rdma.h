/*
 * Links over RDMA: InfiniBand, RoCE and iWARP, by libibverbs and librdmacm. Loaded as "rackfish-rdma.so"; built only
 * where rdma-core's development files are installed.
 *
 * Addresses are those of transport/tcp: the connection there, with TLS if there is a key, is the link's *control link*.
 * Over it the two ends show who they are, and exchange what is secret about their queue pairs.
 *
 * Options of an endpoint are a string, `rf_endpoint_params_t.medium` (in a machine: `rdma` of the node's entry in the
 * configuration), else the environment's RACKFISH_RDMA:
 *
 *   device=mlx5_0,port=1,gid_index=3,traffic_class=106,service_level=3,mtu=4096,pkey_index=0,mode=send
 *
 * What is not named is chosen: see transport/rdma/choose.h. `mode` is "send", "write" or "auto": how the other end puts
 * slots here, see transport/rdma/placement.h. For measuring there are three more, whose defaults are good: inline=256 (bytes up
 * to which a request carries what it sends), signal=16 (requests for slots until one completes) and depth=128 (such requests
 * under way); a device that takes less is given less.
 */
#ifndef RF_TRANSPORT_RDMA_RDMA_H
#define RF_TRANSPORT_RDMA_RDMA_H

#include "transport/transport.h"

extern const rf_transport_t rf_transport_rdma;

#endif
