/*
 * The processes of this host that the driver serves: each link of shared memory carries one flow (transport/dpdk/local.h).
 *
 *   process -- ring --> send window --> frames --> port           one copy from the ring into the window, straight;
 *   process <-- ring -- receive window <-- frames <-- port        one from the window into the ring
 *
 * Invariants
 *   - A client has a flow from JOIN on. Its id's low bits are its place in the table: a packet finds it by one load.
 *   - When a process's link has ended, what it had flushed is still sent, and DPDK_END behind it. When DPDK_END has come, and
 *     everything before it has been handed over, the link to the process is closed. A flow that is drained, or whose peer is
 *     silent until the deadline, is forgotten: nothing is kept for ever.
 *   - All of it belongs to the loop's thread (loop.c).
 */
#ifndef RF_DPDK_DRIVER_SERVER_H
#define RF_DPDK_DRIVER_SERVER_H

#include "transport/dpdk/driver/port.h"
#include "transport/dpdk/local.h"

#define SERVER_CLIENTS_MAX      4096 /* a power of two: low bits of flow ids */
#define SERVER_CLIENTS_USER_MAX 256  /* of a user that is neither the driver's nor root */
#define SERVER_WINDOW           4096 /* slots of a flow's windows, at most ... */
#define SERVER_WINDOW_USER      1024 /* ... of such a user */

typedef struct server_options {
    const char *socket;              /* where processes connect */
    const rf_transport_t *transport; /* over which; NULL: shared memory. Others are for benches and tests. */
    packet_self_t self;
    rf_seal_mode_t seal; /* the weakest that is allowed */
} server_options_t;

typedef struct server server_t;

rf_err_t server_open(const server_options_t *options, port_t *port, server_t **out);
void server_close(server_t *server);

/* A turn of the loop begins; all of it happens at this time. */
void server_turn(server_t *server, uint64_t now_ns);

/* A packet came. For port_rx(). */
void server_packet(void *server, uint8_t *bytes, size_t size, bool checked);

/* Moves slots and frames of clients, a bounded number each, until a burst of the port is full: first of the urgent ones, then of the
 * others in turn. True: something moved. */
bool server_pass(server_t *server);

/* A process that slept was woken since this was asked last. */
bool server_woke(server_t *server);

/* Links that come and go. `*next_ns`: when at the latest again. */
void server_progress(server_t *server, uint64_t now_ns, uint64_t *next_ns);

/* Before a sleep: when something is due at the latest, and everything that wakes. False: there is something to do. */
bool server_arm(server_t *server, uint64_t *next_ns);
void server_disarm(server_t *server);
/* Readable when a process wants something. */
int server_fd(server_t *server);

#endif
