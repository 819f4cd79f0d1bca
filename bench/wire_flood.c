/*
 * rf-wire-flood: what a wire between hosts carries by itself, with nothing of Rackfish in between: as many bytes as go, from one host
 * or several to one.
 *
 *   rf-wire-flood take udp|tcp|DEVICE SENDERS MS          on the receiver: prints "MB/s SHARE" of MS milliseconds
 *   rf-wire-flood give udp|tcp|DEVICE TO MS               on each sender; TO: an IPv4 address, of a DEVICE a MAC
 *
 * DEVICE is a DPDK port, as the EAL takes it ("net_af_packet0,iface=lan0"). MB are of what a frame carries, PAYLOAD bytes, as links
 * carry slots; SHARE is what the slowest sender got through, in percent of an equal share. The receiver waits until it has heard
 * all senders.
 */
#include "wire.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <poll.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT        4799
#define PAYLOAD     1408 /* 22 slots */
#define CHUNK       (64u << 10)
#define BUFFER      (4 << 20)
#define SENDERS_MAX 32
#define ETHER_TYPE  0x88b5             /* for local experiments */
#define WAIT_NS     (40 * RF_NS_PER_S) /* eight EALs start, and those that have begun spin */
#define TRIES       200                /* of 10 ms */

typedef struct flood {
    unsigned senders;
    uint64_t ns;
    uint64_t ids[SENDERS_MAX], bytes[SENDERS_MAX];
    unsigned n; /* heard so far */
    uint64_t since_ns;
} flood_t;

static int failed(const char *what)
{
    fprintf(stderr, "rf-wire-flood: %s: %m\n", what);
    return 1;
}

/* ---- counting ---- */

/* False: enough has been seen. Counting begins when all senders have been heard. */
static bool took(flood_t *f, uint64_t id, uint64_t bytes)
{
    unsigned i = 0;
    while (i < f->n && f->ids[i] != id) i++;
    if (i == f->n && f->n < SENDERS_MAX) f->ids[f->n++] = id;
    if (f->n < f->senders) return true;
    uint64_t now_ns = rf_clock_ns();
    if (f->since_ns == 0) f->since_ns = now_ns;
    if (i < SENDERS_MAX) f->bytes[i] += bytes;
    return now_ns - f->since_ns < f->ns;
}

static int say(const flood_t *f)
{
    uint64_t all = 0, least = UINT64_MAX;
    if (f->since_ns == 0) {
        fprintf(stderr, "rf-wire-flood: %u of %u senders came\n", f->n, f->senders);
        return 1;
    }
    for (unsigned i = 0; i < f->n; i++) {
        all += f->bytes[i];
        if (f->bytes[i] < least) least = f->bytes[i];
    }
    printf("%.1f %.1f\n", (double)all * 1e3 / (double)f->ns,
           all ? 100.0 * (double)least * f->n / (double)all : 0.0);
    return 0;
}

/* ---- the kernel's ---- */

static int take_udp(flood_t *f)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)}, from;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = BUFFER;
    char bytes[PAYLOAD];
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0) return failed("udp");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    for (uint64_t since_ns = rf_clock_ns(); f->since_ns || rf_clock_ns() - since_ns < WAIT_NS;) {
        socklen_t n = sizeof from;
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 1000) <= 0 && f->since_ns) break; /* they have gone */
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &n);
        if (got > 0 && !took(f, from.sin_addr.s_addr, (uint64_t)got)) break;
    }
    return say(f);
}

static int take_tcp(flood_t *f)
{
    static char bytes[CHUNK];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct pollfd fds[SENDERS_MAX];
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SENDERS_MAX) < 0)
        return failed("tcp");
    for (unsigned i = 0; i < f->senders; i++) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, (int)(WAIT_NS / RF_NS_PER_MS)) != 1) return say(f);
        fds[i] = (struct pollfd){.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC), .events = POLLIN};
    }
    for (bool more = true; more && poll(fds, f->senders, 1000) > 0;) {
        for (unsigned i = 0; i < f->senders && more; i++) {
            if (!(fds[i].revents & POLLIN)) continue;
            ssize_t got = recv(fds[i].fd, bytes, sizeof bytes, MSG_DONTWAIT);
            if (got == 0) return say(f);
            if (got > 0) more = took(f, i, (uint64_t)got);
        }
    }
    return say(f);
}

static int give_socket(bool tcp, const char *to, uint64_t ns)
{
    static char bytes[CHUNK];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0), size = BUFFER;
    if (fd < 0 || inet_pton(AF_INET, to, &at.sin_addr) != 1) return failed(to);
    if (!tcp) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    for (unsigned i = 0; connect(fd, (struct sockaddr *)&at, sizeof at) < 0; i++) {
        if (i == TRIES) return failed("connect");
        rf_clock_sleep_ms(10);
    }
    for (uint64_t since_ns = rf_clock_ns(); rf_clock_ns() - since_ns < ns;) {
        if (send(fd, bytes, tcp ? CHUNK : PAYLOAD, MSG_NOSIGNAL) < 0 && tcp) break; /* it has seen enough */
    }
    return 0;
}

/* ---- a port ---- */

typedef struct frame {
    struct rte_ether_hdr head;
    uint64_t id;
} frame_t;

static bool port_open(const char *device, wire_end_t *end)
{
    const wire_t wire = {.name = "port", .port = {device, device}};
    *end = (wire_end_t){.folder = "/tmp", .cpu = 0};
    return wire_port_open(&wire, end);
}

static int take_port(flood_t *f, const char *device)
{
    wire_end_t end;
    if (!port_open(device, &end)) return 1;
    puts("ready");
    fflush(stdout);
    bool more = true;
    for (uint64_t since_ns = rf_clock_ns(); more && (f->since_ns || rf_clock_ns() - since_ns < WAIT_NS);) {
        struct rte_mbuf *mbufs[WIRE_BURST];
        unsigned n = rte_eth_rx_burst(0, 0, mbufs, WIRE_BURST);
        for (unsigned i = 0; i < n; i++) {
            const frame_t *frame = rte_pktmbuf_mtod(mbufs[i], const frame_t *);
            if (mbufs[i]->data_len >= sizeof *frame && frame->head.ether_type == RTE_BE16(ETHER_TYPE) && more)
                more = took(f, frame->id, PAYLOAD);
        }
        if (n > 0) rte_pktmbuf_free_bulk(mbufs, n);
    }
    return say(f);
}

static int give_port(const char *device, const char *to, uint64_t ns)
{
    wire_end_t end;
    struct rte_ether_addr mac, own;
    if (rte_ether_unformat_addr(to, &mac) != 0) return failed(to);
    if (!port_open(device, &end) || rte_eth_macaddr_get(0, &own) != 0) return 1;
    uint64_t id = 0;
    memcpy(&id, &own, sizeof own);
    for (uint64_t since_ns = rf_clock_ns(); rf_clock_ns() - since_ns < ns;) {
        struct rte_mbuf *mbufs[WIRE_BURST];
        if (rte_pktmbuf_alloc_bulk(end.pool, mbufs, WIRE_BURST) != 0) continue;
        for (unsigned i = 0; i < WIRE_BURST; i++) {
            frame_t *frame = rte_pktmbuf_mtod(mbufs[i], frame_t *);
            *frame = (frame_t){.head = {.dst_addr = mac, .src_addr = own, .ether_type = RTE_BE16(ETHER_TYPE)},
                               .id = id};
            mbufs[i]->data_len = (uint16_t)(sizeof frame->head + PAYLOAD);
            mbufs[i]->pkt_len = mbufs[i]->data_len;
        }
        unsigned sent = rte_eth_tx_burst(0, 0, mbufs, WIRE_BURST);
        if (sent < WIRE_BURST) rte_pktmbuf_free_bulk(mbufs + sent, WIRE_BURST - sent);
    }
    return 0;
}

int main(int argc, char **argv)
{
    enum { EXIT_USAGE = 2 };
    bool take = argc == 5 && strcmp(argv[1], "take") == 0, give = argc == 5 && strcmp(argv[1], "give") == 0;
    unsigned long ms = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
    flood_t f = {.senders = take ? (unsigned)strtoul(argv[3], NULL, 10) : 1, .ns = ms * RF_NS_PER_MS};
    if ((!take && !give) || ms == 0 || f.senders == 0 || f.senders > SENDERS_MAX) {
        fprintf(
            stderr,
            "usage: rf-wire-flood take udp|tcp|DEVICE SENDERS MS, rf-wire-flood give udp|tcp|DEVICE TO MS\n");
        return EXIT_USAGE;
    }
    bool udp = strcmp(argv[2], "udp") == 0, tcp = strcmp(argv[2], "tcp") == 0;
    if (give) return udp || tcp ? give_socket(tcp, argv[3], f.ns) : give_port(argv[2], argv[3], f.ns);
    return udp ? take_udp(&f) : tcp ? take_tcp(&f) : take_port(&f, argv[2]);
}
