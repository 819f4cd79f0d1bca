/*
 * Links over TCP, encrypted with TLS 1.3 (pre-shared key and ephemeral Diffie-Hellman) when the endpoint has a key.
 *
 * A program that links `transport_tcp` registers this table; others load "rackfish-tcp.so" through the registry.
 * Another medium whose control links these are names itself in `rf_endpoint_params_t.medium` ("rdma"): a peer of another
 * medium is refused by RF_ERR_CONFIG, before anything else is said.
 *
 * Addresses are numeric, "192.0.2.7:4711" or "[2001:db8::7]:4711"; port 0 listens on any free one.
 */
#ifndef RF_TRANSPORT_TCP_TCP_H
#define RF_TRANSPORT_TCP_TCP_H

#include "transport/transport.h"

extern const rf_transport_t rf_transport_tcp;

#endif
