/*
 * URPC: links between processes of one host, through memory. No system call on the data path but the wake-up of a
 * sleeping peer.
 *
 * Two ways to make a link: listen on a path and connect to it; or both ends connect() over the two ends of one
 * SOCK_SEQPACKET socket pair (rf_link_params.socket), which needs no listener; there, a process that does not know
 * its machine yet may say zeros in its hello. A connect to a path on which nobody listens yet is tried again until
 * the endpoint's deadline.
 *
 * A peer that blocks on a futex doorbell is woken by that; any other is woken by a message on the link's side
 * socket, which makes its endpoint_fd readable: a process that waits in epoll has endpoint_fd in its set.
 *
 * Relays: slots of types from 0xf0 on belong to a medium, and end a link that carries them. An endpoint with the `medium`
 * RF_SHM_RELAY takes those of types from RF_SHM_RELAYED on as its owner's: links of another medium to its driver.
 */
#ifndef RF_TRANSPORT_SHM_H
#define RF_TRANSPORT_SHM_H

#include "transport/transport.h"

#define RF_SHM_RELAY   "relay" /* rf_endpoint_params_t.medium */
#define RF_SHM_RELAYED 0xf8    /* first type that is passed on */

extern const rf_transport_t rf_transport_shm;

#endif
