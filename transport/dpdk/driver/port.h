/*
 * One port of DPDK: its environment (EAL), its queues, its packet buffers. The only file that calls libdpdk.
 *
 * EAL starts once a process and cannot be started again: a port is opened once, and given back by the end of the process.
 *
 * Sending has two steps, so that a flow writes its frame straight into the packet: port_tx_room(), port_tx_next(),
 * port_tx_put() as often as there is room, then port_tx_flush(). What the port does not take stays for the next flush;
 * while anything stays there is no room, and after PORT_STUCK_NS it is dropped: flows send it again.
 *
 * Receiving, a port may have several queues: its NIC spreads flows over them (RSS, by addresses and ports), and each is looked at in
 * each burst. Where one overflows, flows in the others lose nothing.
 */
#ifndef RF_DPDK_DRIVER_PORT_H
#define RF_DPDK_DRIVER_PORT_H

#include "base/error.h"
#include "base/types.h"
#include "transport/dpdk/driver/packet.h"

#define PORT_BURST    32
#define PORT_SHARE    8 /* packets of a queue in a burst, at least: drivers of NICs take fewer for none */
#define PORT_FDS_MAX  RF_DPDK_QUEUES_MAX
#define PORT_STUCK_NS 10000000ull

typedef struct port_options {
    const char *device;      /* EAL's: a PCI address, or a virtual device with its arguments */
    const char *file_prefix; /* of EAL's files; unique on the host */
    unsigned memory_mib;
    bool hugepages;
    int cpu;            /* -1: any */
    unsigned mtu;       /* 0: the port's */
    unsigned queues;    /* for receiving, if the port has so many; 0: one */
    const uint8_t *mac; /* NULL: the port's */
} port_options_t;

typedef struct port_stats {
    uint64_t rx_packets, rx_bursts, tx_packets, tx_bursts, tx_stuck, no_buffers, rx_segmented;
    uint64_t rx_missed, rx_errors, tx_errors; /* as the device counts */
    uint64_t rx_queue[RF_DPDK_QUEUES_MAX];    /* packets of each */
    bool up;
} port_stats_t;

typedef struct port port_t;

/* RF_ERR_BUSY: this process cannot have it, and another may: fanout.h. */
rf_err_t port_open(const port_options_t *options, port_t **out);
void port_close(port_t *port);

unsigned port_mtu(const port_t *port);
const uint8_t *port_mac(const port_t *port);
const char *port_driver(const port_t *port);
unsigned port_queues(const port_t *port);

/* Receives a burst of packets, up to PORT_BURST of one queue or PORT_SHARE of each of many, and hands each to `take`, whose
 * bytes are its until it returns; how many. `checked`: the port found the IPv4 header right. */
typedef void (*port_take_fn)(void *context, uint8_t *bytes, size_t size, bool checked);
unsigned port_rx(port_t *port, port_take_fn take, void *context);

/* Nothing waits from before, and there is a buffer. */
bool port_tx_room(port_t *port);
/* Where the next packet goes: room for its headers and a frame of the MTU. Only after port_tx_room(). */
uint8_t *port_tx_next(port_t *port);
/* Takes it: `headers` bytes before `size` of a frame; the checksums are completed here. headers 0: as it is. */
void port_tx_put(port_t *port, size_t size, bool headers, bool unsealed);
/* True: everything is gone. */
bool port_tx_flush(port_t *port, uint64_t now_ns);

/* Descriptors that become readable when packets come, for an epoll set, or 0: it has none, and has to be looked at.
 * Armed before each sleep, disarmed after it; after arming look once more. */
unsigned port_fds(const port_t *port, int fds[PORT_FDS_MAX]);
void port_arm(port_t *port);
void port_disarm(port_t *port);

void port_stats(port_t *port, port_stats_t *out);

#endif
