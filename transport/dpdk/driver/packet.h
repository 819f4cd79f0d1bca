/*
 * Ethernet, IPv4, UDP and ARP of one port, as far as flows need them. Pure: bytes in, bytes out.
 *
 *   0         14                  34        42
 *   +---------+-------------------+---------+----------------------
 *   | Ethernet| IPv4, no options  | UDP     | frame of a flow
 *   +---------+-------------------+---------+----------------------
 *
 * The source port is drawn from the flow's id, so that switches and receivers spread flows over paths and queues (RFC 7637
 * does the same); the destination port is the receiver's. Fragments are neither sent nor taken.
 */
#ifndef RF_DPDK_DRIVER_PACKET_H
#define RF_DPDK_DRIVER_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PACKET_MAC       6
#define PACKET_HEAD      42 /* bytes before a flow's frame */
#define PACKET_IP        14
#define PACKET_UDP       34
#define PACKET_IP_MTU    28 /* bytes of an MTU that are not a flow's frame */
#define PACKET_ARP       42
#define PACKET_ETHER_MIN 60 /* shorter ones are padded with zeros */

/* Who a port is on the wire. */
typedef struct packet_self {
    uint8_t mac[PACKET_MAC];
    uint8_t ipv4[4];
    uint8_t prefix;     /* bits of the network */
    uint8_t gateway[4]; /* zeros: none */
    uint16_t udp_port;
} packet_self_t;

typedef enum packet_kind {
    PACKET_OTHER, /* not for us */
    PACKET_FLOW,
    PACKET_ARP_ASKED, /* for our address */
    PACKET_ARP_TOLD,  /* an answer to us */
} packet_kind_t;

/* What came; pointers into the packet. */
typedef struct packet {
    packet_kind_t kind;
    uint8_t *frame; /* FLOW: behind UDP */
    size_t size;
    const uint8_t *mac, *ipv4; /* ARP: the sender's */
} packet_t;

/* Reads a packet's headers. `checked`: the port has found the IPv4 header's checksum right. */
packet_kind_t packet_read(const packet_self_t *self, uint8_t *bytes, size_t size, bool checked,
                          packet_t *out);

/* The first bytes of a flow's packet, of which its headers are but for UDP's checksum, that nobody reads here: a packet with the same ones
 * as one that packet_read() has found to be a flow's is one, too, if it is as long. */
#define PACKET_SAME 40
static inline bool packet_is_same(const uint8_t bytes[PACKET_SAME], const uint8_t known[PACKET_SAME])
{
    uint64_t differ = 0, word, other;
    for (unsigned i = 0; i < PACKET_SAME; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        memcpy(&other, known + i, sizeof other);
        differ |= word ^ other;
    }
    return differ == 0;
}

/* The headers of a flow's packets, without lengths; the sum of IPv4's stands where its checksum will. */
void packet_head_make(const packet_self_t *self, const uint8_t mac[PACKET_MAC], const uint8_t ipv4[4],
                      uint16_t udp_port, uint32_t flow, uint8_t head[PACKET_HEAD]);

/* Completes the headers before a frame of `size` bytes; they came from packet_head_make(). `offload`: the port computes the checksums;
 * else IPv4's is computed here, and UDP has none (RFC 768): a seal is more than that, and without one the wire's CRC has to do. */
void packet_finish(uint8_t *bytes, size_t size, bool offload);

/* ARP (RFC 826): an answer to who asked, or a question for `wanted`. PACKET_ARP bytes. */
void packet_arp_answer(const packet_self_t *self, const packet_t *asked, uint8_t *out);
void packet_arp_ask(const packet_self_t *self, const uint8_t wanted[4], uint8_t *out);

/* Reached without a gateway. */
bool packet_is_near(const packet_self_t *self, const uint8_t ipv4[4]);

#endif
