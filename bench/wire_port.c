/* Wires of DPDK: one port a process, frames of a protocol of their own (0x88b5, for local experiments). */
#include "wire.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ETHER_TYPE   0x88b5
#define MBUFS        8191
#define MBUF_CACHE   256
#define RING         1024 /* descriptors */
#define LINK_WAIT_MS 5000
#define PACKET_SIZE  170 /* doc/protocol.md: 42 bytes of headers, 48 of the frame's, a slot, a tag of 16 */

static bool failed(const char *what, int error)
{
    fprintf(stderr, "rf-dpdk-bounce: %s: %s\n", what, rte_strerror(error < 0 ? -error : error));
    return false;
}

static bool eal_start(const wire_t *wire, const wire_end_t *end)
{
    char port[256], device[320], cpu[16], prefix[64];
    snprintf(port, sizeof port, wire->port[end->side], end->folder);
    snprintf(device, sizeof device, "--vdev=%s", port);
    snprintf(cpu, sizeof cpu, "%u", end->cpu);
    snprintf(prefix, sizeof prefix, "--file-prefix=rf-bounce-%d", (int)getpid());
    char *arguments[] = {(char[]){"rf-dpdk-bounce"},
                         (char[]){"-l"},
                         cpu,
                         (char[]){"--no-huge"},
                         (char[]){"-m"},
                         (char[]){"256"},
                         (char[]){"--no-pci"},
                         (char[]){"--no-telemetry"},
                         (char[]){"--no-shconf"},
                         (char[]){"--log-level=*:4"},
                         prefix,
                         device};
    setenv("RUNTIME_DIRECTORY", end->folder, 1); /* where the EAL makes a folder that it never removes */
    int n = rte_eal_init((int)(sizeof arguments / sizeof *arguments), arguments);
    return n >= 0 || failed("EAL", rte_errno);
}

static bool wait_for_link(void)
{
    struct rte_eth_link link;
    for (unsigned i = 0; i < LINK_WAIT_MS; i++) {
        if (rte_eth_link_get_nowait(0, &link) == 0 && link.link_status) return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return failed("no link", ETIMEDOUT);
}

bool wire_port_open(const wire_t *wire, wire_end_t *end)
{
    if (!eal_start(wire, end)) return false;
    if (rte_eth_dev_count_avail() == 0) return failed("no port", ENODEV);
    struct rte_eth_conf configuration = {0};
    struct rte_eth_dev_info info;
    uint16_t rx = RING, tx = RING;
    end->pool =
        rte_pktmbuf_pool_create("frames", MBUFS, MBUF_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (!end->pool) return failed("no memory for frames", rte_errno);
    int error = rte_eth_dev_info_get(0, &info);
    if (error == 0 && (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE))
        configuration.txmode.offloads = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    if (error == 0) error = rte_eth_dev_configure(0, 1, 1, &configuration);
    if (error == 0) error = rte_eth_dev_adjust_nb_rx_tx_desc(0, &rx, &tx);
    if (error == 0) error = rte_eth_rx_queue_setup(0, 0, rx, SOCKET_ID_ANY, NULL, end->pool);
    if (error == 0) error = rte_eth_tx_queue_setup(0, 0, tx, SOCKET_ID_ANY, NULL);
    if (error == 0) error = rte_eth_dev_start(0);
    if (error != 0) return failed("port", error);
    return wait_for_link();
}

/* What a link driver sends with one slot, as far as anybody on the way looks at it: UDP over IPv4, between addresses that no kernel has. */
static const uint8_t packet_head[] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,    2, 2,    2,    2,    2,    0x08, 0x00, /* to all, IPv4 */
    0x45, 0,    0,    156,  0,    0,    0x40, 0, 64,   17,   0x24, 0x53, 10,   254,
    0,    1,    10,   254,  0,    2,    0xc0, 1, 0x1b, 0xce, 0,    136,  0,    0}; /* to port 7118 */

static void fill_packet(struct rte_mbuf *mbuf, uint64_t number)
{
    uint8_t *bytes = rte_pktmbuf_mtod(mbuf, uint8_t *);
    memcpy(bytes, packet_head, sizeof packet_head);
    memcpy(bytes + sizeof packet_head, &number, sizeof number);
    mbuf->data_len = PACKET_SIZE;
    mbuf->pkt_len = mbuf->data_len;
}

static void fill(const wire_end_t *end, struct rte_mbuf *mbuf, uint64_t number, unsigned messages)
{
    struct rte_ether_hdr *header = rte_pktmbuf_mtod(mbuf, struct rte_ether_hdr *);
    uint8_t *message = (uint8_t *)(header + 1);
    if (end->packets) {
        fill_packet(mbuf, number);
        return;
    }
    memset(&header->dst_addr, 0xff, sizeof header->dst_addr);
    memset(&header->src_addr, 0x02, sizeof header->src_addr);
    header->ether_type = RTE_BE16(ETHER_TYPE);
    for (unsigned i = 0; i < messages; i++)
        memcpy(message + (size_t)i * WIRE_MESSAGE, &number, sizeof number);
    mbuf->data_len = (uint16_t)(sizeof *header + messages * WIRE_MESSAGE);
    mbuf->pkt_len = mbuf->data_len;
}

unsigned wire_port_send(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages)
{
    struct rte_mbuf *mbufs[WIRE_BURST];
    unsigned n = 0;
    if (end->held) mbufs[n++] = end->held;
    end->held = NULL;
    if (n < frames && rte_pktmbuf_alloc_bulk(end->pool, mbufs + n, frames - n) == 0) n = frames;
    for (unsigned i = 0; i < n; i++) fill(end, mbufs[i], number, messages);
    unsigned sent = rte_eth_tx_burst(0, 0, mbufs, (uint16_t)n);
    if (sent < n) rte_pktmbuf_free_bulk(mbufs + sent, n - sent);
    return sent;
}

static unsigned messages_of(wire_end_t *end, const struct rte_mbuf *mbuf)
{
    const struct rte_ether_hdr *header = rte_pktmbuf_mtod(mbuf, const struct rte_ether_hdr *);
    if (end->packets && mbuf->data_len == PACKET_SIZE) {
        memcpy(&end->number, rte_pktmbuf_mtod(mbuf, const uint8_t *) + sizeof packet_head,
               sizeof end->number);
        return 1;
    }
    if (mbuf->data_len < sizeof *header + WIRE_MESSAGE || header->ether_type != RTE_BE16(ETHER_TYPE))
        return 0;
    memcpy(&end->number, header + 1, sizeof end->number);
    return (mbuf->data_len - (unsigned)sizeof *header) / WIRE_MESSAGE;
}

unsigned wire_port_receive(wire_end_t *end)
{
    struct rte_mbuf *mbufs[WIRE_BURST];
    unsigned n = rte_eth_rx_burst(0, 0, mbufs, WIRE_BURST), messages = 0;
    for (unsigned i = 0; i < n; i++) messages += messages_of(end, mbufs[i]);
    /* The last one is kept for the answer, unless somebody else still needs it. */
    if (n > 0 && !end->held && rte_mbuf_refcnt_read(mbufs[n - 1]) == 1) end->held = mbufs[--n];
    if (n > 0) rte_pktmbuf_free_bulk(mbufs, n);
    return messages;
}
