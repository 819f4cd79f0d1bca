/*
 * Links over any NIC that DPDK drives: slots in authenticated UDP frames, by a link driver (`rackfish-dpdk`, a process of
 * its own for each port; transport/dpdk/driver). Loaded as "rackfish-dpdk.so"; built only where DPDK's development files
 * are installed.
 *
 *   process                        link driver                          link driver            process
 *   rf_link_t  -- shared memory --  flow  -- frames -- port ~~~~ port -- frames --  flow  -- ...  rf_link_t
 *        '------------ control link: transport/tcp, with TLS if there is a key ----------------'
 *
 * Addresses are those of transport/tcp: the connection there is the link's *control link*. Over it the two ends show who
 * they are, and say where their flows are and what is secret about them.
 *
 * What a link has sent it keeps until the link at the other end has taken it. So a link driver may die at any instant: the
 * link is BROKEN until there is one again, and goes on where its other end stands.
 *
 * Options of an endpoint are a string, `rf_endpoint_params_t.medium` (in a machine: rackfishd makes it), else the
 * environment's RACKFISH_DPDK:
 *
 *   driver=/run/rackfish/NAME/HOST.dpdk/sock      where this host's link driver listens
 *
 * A host with several ports has a link driver each, one after another with ';' between:
 *
 *   driver=PATH,net=10.1.0.7/24,gateway;driver=PATH,net=10.2.0.7/24
 *
 *   net       the port's address and network        gateway   the port has one to other networks
 *
 * Each path goes over one port at either end. Who dials takes them in turn, other cores others first, and the next one when a path
 * ended or did not come up: so links share the ports, and go on over the others when one is out of order. Who is dialled takes one
 * in the network of the port that is offered, else one with a gateway, else refuses.
 */
#ifndef RF_TRANSPORT_DPDK_DPDK_H
#define RF_TRANSPORT_DPDK_DPDK_H

#include "transport/transport.h"

extern const rf_transport_t rf_transport_dpdk;

#endif
