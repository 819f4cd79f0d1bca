/*
 * Bare wires, for the raw limits of links over DPDK: two processes, one an end, exchange frames with nothing of Rackfish in
 * between. A wire is a table of operations; what is measured on it (bounce.c) is the same for all.
 *
 *   DPDK ports       net_virtio_user + net_vhost, net_memif: shared memory; net_af_packet, net_af_xdp: a veth pair
 *   kernel sockets   UDP and TCP on the same veth pair, spinning
 */
#ifndef RF_BENCH_WIRE_H
#define RF_BENCH_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#define WIRE_INTERFACE    "wire" /* of the veth pair, in the namespace of each end */
#define WIRE_MESSAGE      64     /* bytes of a message */
#define WIRE_MESSAGES_MAX 16     /* in a frame */
#define WIRE_BURST        32     /* frames */

typedef struct wire_end {
    unsigned side;      /* 0 measures, 1 answers */
    unsigned cpu;       /* it is pinned to */
    const char *folder; /* both ends', for their sockets */
    bool
        packets; /* DPDK: UDP over IPv4, as large as a link driver's with a slot; else as small as a message can be */
    uint64_t number; /* receive(): the first word of the last message that came */
    int fd;          /* of the kernel's wires */
    unsigned got;    /* bytes of a message that has come in part (TCP) */
    struct rte_mempool *pool;
    struct rte_mbuf *held; /* one that came, to be sent back */
} wire_end_t;

typedef struct wire {
    const char *name, *help;
    bool veth;           /* lies on a veth pair; else on files in `folder` */
    const char *port[2]; /* DPDK: the port of each end, as the EAL takes it; %s is the folder */

    /* Opens this end, waiting at most seconds for the other. False with a message on standard error. */
    bool (*open)(const struct wire *wire, wire_end_t *end);
    /* Sends `frames` (at most WIRE_BURST) of `messages` each, the first word of each message being `number`. Never waits; how many
     * frames went. */
    unsigned (*send)(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages);
    /* What has come: how many messages; sets `number`. Never waits. */
    unsigned (*receive)(wire_end_t *end);
} wire_t;

/* wire_port.c, wire_socket.c */
bool wire_port_open(const wire_t *wire, wire_end_t *end);
unsigned wire_port_send(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages);
unsigned wire_port_receive(wire_end_t *end);
bool wire_udp_open(const wire_t *wire, wire_end_t *end);
unsigned wire_udp_send(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages);
unsigned wire_udp_receive(wire_end_t *end);
bool wire_tcp_open(const wire_t *wire, wire_end_t *end);
unsigned wire_tcp_send(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages);
unsigned wire_tcp_receive(wire_end_t *end);

#endif
