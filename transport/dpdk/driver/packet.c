#include "transport/dpdk/driver/packet.h"

#include <arpa/inet.h>
#include <string.h>

#define ETHER_IPV4   0x0800
#define ETHER_ARP    0x0806
#define IP_PLAIN     0x45 /* version 4, 20 bytes */
#define IP_WHOLE     0x4000
#define IP_FRAGMENT  0x3fff /* more to come, or not the first */
#define IP_UDP       17
#define IP_HOPS      64
#define IP_SIZE      20
#define UDP_SIZE     8
#define ARP_ETHERNET 1
#define ARP_REQUEST  1
#define ARP_REPLY    2
#define PORT_DYNAMIC 0xc000 /* the first of the ports that nobody is assigned (RFC 6335) */

static const uint8_t broadcast[PACKET_MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* RFC 1071. */
static uint32_t fold_up(uint32_t sum)
{
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    return (uint16_t)~fold_up(sum);
}

/* Two bytes as they stand there, in this machine's order. */
static uint32_t word(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Of an IPv4 header, in this machine's order too: 0xffff where its checksum is right. Two bytes at a time: a larger load from several
 * stores that have just been made would wait for all of them. */
static uint16_t header_sum(const uint8_t *ip)
{
    uint32_t sum = word(ip) + word(ip + 2) + word(ip + 4) + word(ip + 6) + word(ip + 8) + word(ip + 10) +
                   word(ip + 12) + word(ip + 14) + word(ip + 16) + word(ip + 18);
    return (uint16_t)fold_up(sum);
}

static packet_kind_t read_arp(const packet_self_t *self, const uint8_t *bytes, size_t size, packet_t *out)
{
    const uint8_t *arp = bytes + PACKET_IP;
    if (size < PACKET_ARP || get16(arp) != ARP_ETHERNET || get16(arp + 2) != ETHER_IPV4 ||
        arp[4] != PACKET_MAC || arp[5] != 4 || memcmp(arp + 24, self->ipv4, 4) != 0)
        return PACKET_OTHER;
    out->mac = arp + 8;
    out->ipv4 = arp + 14;
    switch (get16(arp + 6)) {
    case ARP_REQUEST:
        return PACKET_ARP_ASKED;
    case ARP_REPLY:
        return PACKET_ARP_TOLD;
    default:
        return PACKET_OTHER;
    }
}

static packet_kind_t read_flow(const packet_self_t *self, uint8_t *bytes, size_t size, bool checked,
                               packet_t *out)
{
    uint8_t *ip = bytes + PACKET_IP, *udp = bytes + PACKET_UDP;
    if (size < PACKET_HEAD || ip[0] != IP_PLAIN || ip[9] != IP_UDP || (get16(ip + 6) & IP_FRAGMENT) ||
        memcmp(ip + 16, self->ipv4, 4) != 0 || get16(udp + 2) != self->udp_port)
        return PACKET_OTHER;
    size_t total = get16(ip + 2), behind = get16(udp + 4);
    if (total < IP_SIZE + UDP_SIZE || total > size - PACKET_IP || behind < UDP_SIZE ||
        behind > total - IP_SIZE)
        return PACKET_OTHER;
    if (!checked && header_sum(ip) != 0xffff) return PACKET_OTHER;
    out->frame = udp + UDP_SIZE;
    out->size = behind - UDP_SIZE;
    return PACKET_FLOW;
}

packet_kind_t packet_read(const packet_self_t *self, uint8_t *bytes, size_t size, bool checked, packet_t *out)
{
    out->kind = PACKET_OTHER;
    if (size < PACKET_IP) return PACKET_OTHER;
    uint16_t type = get16(bytes + 12);
    if (type == ETHER_ARP)
        out->kind = read_arp(self, bytes, size, out);
    else if (type == ETHER_IPV4 && memcmp(bytes, self->mac, PACKET_MAC) == 0)
        out->kind = read_flow(self, bytes, size, checked, out);
    return out->kind;
}

void packet_head_make(const packet_self_t *self, const uint8_t mac[PACKET_MAC], const uint8_t ipv4[4],
                      uint16_t udp_port, uint32_t flow, uint8_t head[PACKET_HEAD])
{
    memset(head, 0, PACKET_HEAD);
    memcpy(head, mac, PACKET_MAC);
    memcpy(head + 6, self->mac, PACKET_MAC);
    put16(head + 12, ETHER_IPV4);
    uint8_t *ip = head + PACKET_IP, *udp = head + PACKET_UDP;
    ip[0] = IP_PLAIN;
    put16(ip + 6, IP_WHOLE);
    ip[8] = IP_HOPS;
    ip[9] = IP_UDP;
    memcpy(ip + 12, self->ipv4, 4);
    memcpy(ip + 16, ipv4, 4);
    put16(udp, PORT_DYNAMIC | ((flow ^ flow >> 14) & 0x3fff));
    put16(udp + 2, udp_port);
    uint16_t sum = header_sum(ip); /* packet_finish() needs only add the length */
    memcpy(ip + 10, &sum, sizeof sum);
}

void packet_finish(uint8_t *bytes, size_t size, bool offload)
{
    uint8_t *ip = bytes + PACKET_IP, *udp = bytes + PACKET_UDP;
    uint32_t length = (uint32_t)size + UDP_SIZE, known = get16(ip + 10);
    put16(ip + 2, length + IP_SIZE);
    put16(udp + 4, length);
    put16(ip + 10, offload ? 0 : fold(known + length + IP_SIZE));
    if (!offload) return;
    uint32_t addresses = (uint32_t)get16(ip + 12) + get16(ip + 14) + get16(ip + 16) + get16(ip + 18);
    put16(udp + 6, fold_up(addresses + IP_UDP + length)); /* the pseudo header: the port goes on from there */
}

static void arp_make(const packet_self_t *self, unsigned operation, const uint8_t mac[PACKET_MAC],
                     const uint8_t ipv4[4], uint8_t *out)
{
    memcpy(out, mac ? mac : broadcast, PACKET_MAC);
    memcpy(out + 6, self->mac, PACKET_MAC);
    put16(out + 12, ETHER_ARP);
    uint8_t *arp = out + PACKET_IP;
    put16(arp, ARP_ETHERNET);
    put16(arp + 2, ETHER_IPV4);
    arp[4] = PACKET_MAC;
    arp[5] = 4;
    put16(arp + 6, operation);
    memcpy(arp + 8, self->mac, PACKET_MAC);
    memcpy(arp + 14, self->ipv4, 4);
    memset(arp + 18, 0, PACKET_MAC);
    if (mac) memcpy(arp + 18, mac, PACKET_MAC);
    memcpy(arp + 24, ipv4, 4);
}

void packet_arp_answer(const packet_self_t *self, const packet_t *asked, uint8_t *out)
{
    arp_make(self, ARP_REPLY, asked->mac, asked->ipv4, out);
}

void packet_arp_ask(const packet_self_t *self, const uint8_t wanted[4], uint8_t *out)
{
    arp_make(self, ARP_REQUEST, NULL, wanted, out);
}

bool packet_is_near(const packet_self_t *self, const uint8_t ipv4[4])
{
    uint32_t mine, its;
    memcpy(&mine, self->ipv4, 4);
    memcpy(&its, ipv4, 4);
    uint32_t mask = self->prefix == 0 ? 0 : ~0u << (32 - self->prefix);
    return ((ntohl(mine) ^ ntohl(its)) & mask) == 0;
}
