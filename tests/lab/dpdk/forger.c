/*
 * A forger on the wire of links over DPDK: sees every frame that passes given interfaces, and sends to their hosts what nobody of the
 * machine has sent. What a link driver must survive: nothing of it may be delivered, and nobody may starve.
 *
 *   dpdk_forger [--seconds N] [--rate FRAMES] [--seed N] [--port UDP] [--kinds LIST] INTERFACE...
 *
 *   replay     a frame that was seen, once more: at once, later, and many times
 *   flip       the same with one to four bits turned, anywhere behind the Ethernet header
 *   cut        the same, shorter; half of them with lengths that say so
 *   splice     the first half of one, the second of another
 *   random     the addresses and the head of one that was seen, then noise; or noise from the start
 *   spoof      from another host's addresses: a frame of that pair, or noise
 *   arp        says that another host's address, as its link driver has it, is at the forger's
 *
 * INTERFACE is a port of the wire, seen from the middle: what it sends out goes to its host. --rate 0 is a flood, as fast as it goes.
 * It prints one JSON object: what was seen, and what of each kind was sent. One thread, no memory after start; needs CAP_NET_RAW.
 */
#include "base/clock.h"
#include "base/prng.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_MAX    8
#define FRAME_MAX    9216
#define SEEN_MAX     512
#define IP_AT        14
#define UDP_AT       34
#define PAYLOAD_AT   42
#define HEAD_KEPT    16 /* bytes of the payload that `random` keeps now and then: what finds the flow */
#define FLOOD_BURST  256
#define BURST_MAX    4096
#define LOOKS_A_TURN 256

typedef enum kind { REPLAY, FLIP, CUT, SPLICE, RANDOM, SPOOF, ARP, KINDS } kind_t;
static const char *const kind_names[] = {"replay", "flip", "cut", "splice", "random", "spoof", "arp"};

typedef struct seen {
    unsigned port; /* to whose host it went */
    size_t size;
    uint8_t bytes[FRAME_MAX];
} seen_t;

static struct {
    unsigned n_ports;
    int sockets[PORTS_MAX];
    struct sockaddr_ll addresses[PORTS_MAX];
    uint8_t own[PORTS_MAX][ETH_ALEN]; /* of the wire's end of each port */
    unsigned udp_port, seconds, rate;
    bool wanted[KINDS];
    rf_prng_t prng;
    seen_t *seen; /* a ring */
    uint64_t n_seen, sent[KINDS], refused;
    uint8_t frame[FRAME_MAX];
} forger = {.udp_port = 7118, .seconds = 5, .rate = 20000};

static volatile sig_atomic_t ended;

static void end(int signo)
{
    (void)signo;
    ended = 1;
}

static bool failed(const char *what)
{
    fprintf(stderr, "dpdk_forger: %s: %s\n", what, strerror(errno));
    return false;
}

static bool port_open(const char *name)
{
    unsigned i = forger.n_ports;
    struct sockaddr_ll *address = &forger.addresses[i];
    socklen_t length = sizeof *address;
    *address = (struct sockaddr_ll){.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    address->sll_ifindex = (int)if_nametoindex(name);
    if (address->sll_ifindex == 0) return failed(name);
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof *address) < 0 ||
        getsockname(fd, (struct sockaddr *)address, &length) < 0)
        return failed(name);
    memcpy(forger.own[i], address->sll_addr, ETH_ALEN);
    forger.sockets[forger.n_ports++] = fd;
    return true;
}

static bool is_ours(const uint8_t *frame, size_t size)
{
    uint16_t type, port;
    if (size < PAYLOAD_AT + HEAD_KEPT) return false;
    memcpy(&type, frame + 12, sizeof type);
    memcpy(&port, frame + UDP_AT + 2, sizeof port);
    return ntohs(type) == ETH_P_IP && frame[IP_AT] == 0x45 && frame[IP_AT + 9] == IPPROTO_UDP &&
           ntohs(port) == forger.udp_port;
}

/* Keeps what goes out to a port's host, of links alone: an ARP answer made of a frame of the host's kernel would cut off all of its TCP, control
 * links too (cluster-config/README.md says what helps). (What a socket sends is not shown to itself.) */
static void watch(unsigned port)
{
    for (unsigned i = 0; i < LOOKS_A_TURN; i++) {
        struct sockaddr_ll from;
        socklen_t length = sizeof from;
        ssize_t n = recvfrom(forger.sockets[port], forger.frame, sizeof forger.frame, MSG_TRUNC,
                             (struct sockaddr *)&from, &length);
        if (n < 0) return;
        if (from.sll_pkttype != PACKET_OUTGOING || (size_t)n > sizeof forger.frame) continue;
        if (!is_ours(forger.frame, (size_t)n)) continue;
        seen_t *seen = &forger.seen[forger.n_seen++ % SEEN_MAX];
        seen->port = port;
        seen->size = (size_t)n;
        memcpy(seen->bytes, forger.frame, seen->size);
    }
}

/* ---- what is sent ---- */

static uint64_t below(uint64_t bound)
{
    return rf_prng_below(&forger.prng, bound);
}

static const seen_t *any_seen(void)
{
    uint64_t n = forger.n_seen < SEEN_MAX ? forger.n_seen : SEEN_MAX;
    return &forger.seen[below(n)];
}

static uint16_t ip_checksum(const uint8_t *header)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < 20; i += 2) sum += (uint32_t)header[i] << 8 | header[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* Lengths and checksum of the headers as they should be for a frame of that size. */
static void set_lengths(uint8_t *frame, size_t size)
{
    uint16_t ip = htons((uint16_t)(size - IP_AT)), udp = htons((uint16_t)(size - UDP_AT));
    if (size < PAYLOAD_AT) return;
    memcpy(frame + IP_AT + 2, &ip, sizeof ip);
    memcpy(frame + UDP_AT + 4, &udp, sizeof udp);
    memset(frame + UDP_AT + 6, 0, 2);
    memset(frame + IP_AT + 10, 0, 2);
    uint16_t sum = htons(ip_checksum(frame + IP_AT));
    memcpy(frame + IP_AT + 10, &sum, sizeof sum);
}

static void noise(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)rf_prng_next(&forger.prng);
}

static size_t make_flip(uint8_t *frame, size_t size)
{
    for (uint64_t n = 1 + below(4); n > 0; n--) {
        size_t bit = IP_AT * 8 + below((size - IP_AT) * 8);
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    return size;
}

static size_t make_cut(uint8_t *frame, size_t size)
{
    size_t left = ETH_HLEN + below(size - ETH_HLEN);
    if (below(2)) set_lengths(frame, left);
    return left;
}

static size_t make_splice(uint8_t *frame, size_t size)
{
    const seen_t *other = any_seen();
    size_t at = PAYLOAD_AT + below(size - PAYLOAD_AT);
    if (other->size <= at) return size;
    memcpy(frame + at, other->bytes + at, other->size - at);
    set_lengths(frame, other->size);
    return other->size;
}

static size_t make_random(uint8_t *frame, size_t size)
{
    static const size_t from[] = {0, ETH_HLEN, UDP_AT, PAYLOAD_AT, PAYLOAD_AT + HEAD_KEPT};
    size_t at = from[below(sizeof from / sizeof *from)];
    size_t wanted = at + 1 + below(1400);
    noise(frame + at, wanted - at);
    (void)size;
    if (at >= UDP_AT && wanted > PAYLOAD_AT) set_lengths(frame, wanted);
    return wanted;
}

/* As if from the host of another frame that was seen: its source addresses. */
static size_t make_spoof(uint8_t *frame, size_t size)
{
    const seen_t *other = any_seen();
    memcpy(frame + ETH_ALEN, other->bytes + ETH_ALEN, ETH_ALEN);
    memcpy(frame + IP_AT + 12, other->bytes + IP_AT + 12, 4);
    if (below(2)) noise(frame + PAYLOAD_AT, size - PAYLOAD_AT);
    set_lengths(frame, size);
    return size;
}

/* A gratuitous answer: the source of the frame is at the wire's own MAC. */
static size_t make_arp(uint8_t *frame, unsigned port)
{
    static const uint8_t head[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2};
    uint8_t source[4], target[4], to[ETH_ALEN];
    memcpy(source, frame + IP_AT + 12, 4);
    memcpy(target, frame + IP_AT + 16, 4);
    memcpy(to, frame, ETH_ALEN);
    memcpy(frame + ETH_ALEN, forger.own[port], ETH_ALEN);
    memcpy(frame + 12, head, sizeof head);
    memcpy(frame + 22, forger.own[port], ETH_ALEN);
    memcpy(frame + 28, source, 4);
    memcpy(frame + 32, to, ETH_ALEN);
    memcpy(frame + 38, target, 4);
    return PAYLOAD_AT;
}

static size_t make(kind_t kind, unsigned port, uint8_t *frame, size_t size)
{
    switch (kind) {
    case FLIP:
        return make_flip(frame, size);
    case CUT:
        return make_cut(frame, size);
    case SPLICE:
        return make_splice(frame, size);
    case RANDOM:
        return make_random(frame, size);
    case SPOOF:
        return make_spoof(frame, size);
    case ARP:
        return make_arp(frame, port);
    default:
        return size;
    }
}

static void forge_one(void)
{
    kind_t kind;
    do {
        kind = (kind_t)below(KINDS);
    } while (!forger.wanted[kind]);
    const seen_t *seen = any_seen();
    memcpy(forger.frame, seen->bytes, seen->size);
    size_t size = make(kind, seen->port, forger.frame, seen->size);
    if (size < ETH_HLEN) size = ETH_HLEN;
    if (send(forger.sockets[seen->port], forger.frame, size, MSG_DONTWAIT) == (ssize_t)size)
        forger.sent[kind]++;
    else
        forger.refused++;
}

/* ---- the loop ---- */

static void forge(void)
{
    uint64_t begun_ns = rf_clock_ns(), until_ns = begun_ns + forger.seconds * RF_NS_PER_S, due = 0;
    for (uint64_t now_ns; !ended && (now_ns = rf_clock_ns()) < until_ns;) {
        for (unsigned i = 0; i < forger.n_ports; i++) watch(i);
        if (forger.n_seen == 0) {
            rf_clock_sleep_ms(1);
            begun_ns = rf_clock_ns();
            continue;
        }
        uint64_t wanted = forger.rate ? (now_ns - begun_ns) * forger.rate / RF_NS_PER_S : due + FLOOD_BURST;
        if (wanted > due + BURST_MAX) due = wanted - BURST_MAX; /* we were kept from it */
        for (; due < wanted; due++) forge_one();
        if (forger.rate) rf_clock_sleep_ms(1);
    }
}

static void report(void)
{
    printf("{\"seen\":%llu", (unsigned long long)forger.n_seen);
    for (unsigned i = 0; i < KINDS; i++)
        printf(",\"%s\":%llu", kind_names[i], (unsigned long long)forger.sent[i]);
    printf(",\"refused\":%llu}\n", (unsigned long long)forger.refused);
}

static bool kinds_take(const char *list)
{
    memset(forger.wanted, 0, sizeof forger.wanted);
    char copy[128], *rest = copy, *word;
    snprintf(copy, sizeof copy, "%s", list);
    while ((word = strsep(&rest, ","))) {
        unsigned i = 0;
        while (i < KINDS && strcmp(kind_names[i], word) != 0) i++;
        if (i == KINDS) {
            fprintf(stderr, "dpdk_forger: there is no kind \"%s\"\n", word);
            return false;
        }
        forger.wanted[i] = true;
    }
    return true;
}

static bool option_take(int c, const char *value)
{
    char *rest = NULL;
    unsigned long number = c == 'k' ? 0 : strtoul(value, &rest, 10);
    if (c == 'k') return kinds_take(value);
    if (*value < '0' || *value > '9' || *rest || number > 1u << 30) return false;
    if (c == 's') forger.seconds = (unsigned)number;
    if (c == 'r') forger.rate = (unsigned)number;
    if (c == 'x') rf_prng_seed(&forger.prng, number);
    if (c == 'p') forger.udp_port = (unsigned)number;
    return true;
}

int main(int argc, char **argv)
{
    enum { EXIT_USAGE = 2 };
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'}, {"rate", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 'x'},    {"port", required_argument, NULL, 'p'},
        {"kinds", required_argument, NULL, 'k'},   {NULL, 0, NULL, 0},
    };
    rf_prng_seed(&forger.prng, 1);
    memset(forger.wanted, 1, sizeof forger.wanted);
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == '?' || !option_take(c, optarg)) return EXIT_USAGE;
    }
    forger.seen = calloc(SEEN_MAX, sizeof *forger.seen);
    if (!forger.seen || optind == argc || argc - optind > PORTS_MAX) return EXIT_USAGE;
    for (int i = optind; i < argc; i++) {
        if (!port_open(argv[i])) return EXIT_FAILURE;
    }
    signal(SIGTERM, end);
    signal(SIGINT, end);
    forge();
    report();
    return forger.n_seen > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
