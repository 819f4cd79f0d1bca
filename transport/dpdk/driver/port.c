#include "transport/dpdk/driver/port.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "transport/dpdk/driver/fanout.h"
#include "transport/dpdk/driver/xdp.h"

#include <ftw.h>
#include <linux/if_xdp.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARGUMENTS_MAX   24
#define ARGUMENT_MAX    256
#define DESCRIPTORS     512 /* of a queue, where the port has no wish of its own */
#define BUFFERS         4095
#define BUFFERS_MORE    (2 * DESCRIPTORS) /* for each further queue */
#define BUFFER_CACHE    256
#define DESCRIPTORS_MAX 1024 /* of the process, looked through for the port's sockets */
#define FOLDERS_DEEP    8
#define SMALL_PACKET    (3 * RF_CACHE_LINE)
#define CHECKSUMS       (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)

struct port {
    uint16_t id, mtu, queues, share; /* share: packets of a queue in a burst */
    bool offload, interrupts;
    char driver[32];
    uint8_t mac[PACKET_MAC];
    struct rte_mempool *pool;
    unsigned n_fds;
    int fds[PORT_FDS_MAX];
    uint64_t stuck_ns; /* since when the port takes nothing; 0: it does */
    unsigned n_tx;
    bool left; /* what is in `tx` was refused */
    struct rte_mbuf *spare;
    struct rte_mbuf *tx[PORT_BURST];
    unsigned n_rx;
    struct rte_mbuf *
        rx[RF_DPDK_QUEUES_MAX *
           PORT_SHARE]; /* of the last burst: given back before the next, since what they bring comes first */
    port_stats_t stats;
};

/* --- the environment ---------------------------------------------------------------------------------------- */

typedef struct arguments {
    int n;
    char text[ARGUMENTS_MAX][ARGUMENT_MAX];
    char *list[ARGUMENTS_MAX + 1];
} arguments_t;

static void argument(arguments_t *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void argument(arguments_t *a, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(a->text[a->n], ARGUMENT_MAX, format, values);
    va_end(values);
    a->list[a->n] = a->text[a->n];
    a->n++;
}

static bool is_pci(const char *device)
{
    unsigned domain, bus, place, function;
    return sscanf(device, "%x:%x:%x.%x", &domain, &bus, &place, &function) == 4 ||
           sscanf(device, "%x:%x.%x", &bus, &place, &function) == 3;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

/* EAL makes a folder for what processes would share, and never removes it: here it lasts as long as its start. */
static int eal_init(arguments_t *a)
{
    char folder[] = "/tmp/rackfish-eal-XXXXXX";
    bool made = mkdtemp(folder) != NULL;
    if (made) setenv("RUNTIME_DIRECTORY", folder, 1);
    int code = rte_eal_init(a->n, a->list);
    if (made) nftw(folder, remove_one, FOLDERS_DEEP, FTW_DEPTH | FTW_PHYS);
    return code;
}

/* Rings of packet sockets that stay in the caches: with DPDK's own 512 frames a packet takes a tenth longer. A window of bulk still fits. */
static const char *packet_ring(const char *device)
{
    bool ours =
        strncmp(device, "net_af_packet", strlen("net_af_packet")) == 0 && !strstr(device, ",framecnt=");
    return ours ? ",framecnt=256" : "";
}

static rf_err_t eal_start(const port_options_t *options)
{
    static arguments_t a; /* EAL keeps pointers to them */
    char queues[32];
    if (strlen(options->device) >= ARGUMENT_MAX - 40) return RF_ERR_CONFIG;
    argument(&a, "rackfish-dpdk");
    argument(&a, "--no-telemetry");
    argument(&a, "%s", options->hugepages ? "--in-memory" : "--no-shconf"); /* nothing stays behind */
    argument(&a, "--log-level=*:4");
    argument(&a, "--file-prefix=%s", options->file_prefix);
    argument(&a, "-m");
    argument(&a, "%u", options->memory_mib);
    if (options->cpu >= 0)
        argument(&a, "--lcores=0@%d", options->cpu);
    else
        argument(&a, "--lcores=0@(0-%ld)", sysconf(_SC_NPROCESSORS_ONLN) - 1);
    if (!options->hugepages) argument(&a, "--no-huge");
    if (is_pci(options->device)) {
        argument(&a, "--allow=%s", options->device);
    } else {
        argument(&a, "--no-pci");
        argument(&a, "--vdev=%s%s%s", options->device, xdp_queues(options->device, queues, sizeof queues),
                 packet_ring(options->device));
    }
    rf_err_t err = xdp_take(options->device);
    if (err != RF_OK) return err;
    if (eal_init(&a) >= 0) return RF_OK;
    rf_log(RF_LOG_ERROR, "DPDK does not start on %s: %s; check the device, and that %s", options->device,
           rte_strerror(rte_errno),
           options->hugepages ? "there are enough free hugepages" : "there is enough memory");
    return RF_ERR_OS;
}

/* --- the port ----------------------------------------------------------------------------------------------- */

static rf_err_t refused(const char *what, int code)
{
    rf_log(RF_LOG_ERROR,
           "the port refuses %s: %s; see what the configuration asks of it, and DPDK's page on its driver",
           what, rte_strerror(-code));
    return RF_ERR_OS;
}

static rf_err_t buffers_make(port_t *port)
{
    size_t size = RTE_PKTMBUF_HEADROOM + PACKET_IP + port->mtu + 2 * RF_CACHE_LINE;
    if (size < RTE_MBUF_DEFAULT_BUF_SIZE) size = RTE_MBUF_DEFAULT_BUF_SIZE;
    unsigned n = BUFFERS + (port->queues - 1u) * BUFFERS_MORE;
    port->pool = rte_pktmbuf_pool_create("rackfish", n, BUFFER_CACHE, 0, (uint16_t)size, SOCKET_ID_ANY);
    if (port->pool) return RF_OK;
    rf_log(RF_LOG_ERROR, "no memory for %u packets of %zu bytes: give more with --memory", n, size);
    return RF_ERR_NO_MEMORY;
}

/* So many as are wanted, and as there are. Those of a kernel's interface all get packets, wanted or not. */
static uint16_t queues_of(const struct rte_eth_dev_info *info, unsigned wanted)
{
    unsigned most = info->max_rx_queues < info->max_tx_queues ? info->max_rx_queues : info->max_tx_queues;
    bool all = strncmp(info->driver_name, "net_af_", 7) == 0;
    if (most > RF_DPDK_QUEUES_MAX) most = RF_DPDK_QUEUES_MAX;
    if (wanted == 0) wanted = 1;
    return (uint16_t)(all || wanted > most ? most : wanted);
}

/* By addresses and ports: a sender's port is drawn from the flow's id (packet.h). */
static void spread_set(const port_t *port, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf)
{
    uint64_t udp = info->flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_UDP;
    if (port->queues < 2 || !udp) return;
    conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf->rx_adv_conf.rss_conf.rss_hf = udp;
}

static int queues_start(port_t *port, const struct rte_eth_dev_info *info, bool interrupts)
{
    struct rte_eth_conf conf = {.intr_conf.rxq = interrupts};
    uint16_t rx = DESCRIPTORS, tx = DESCRIPTORS;
    port->offload = (info->tx_offload_capa & CHECKSUMS) == CHECKSUMS;
    if (port->offload) conf.txmode.offloads |= CHECKSUMS;
    conf.rxmode.offloads |= info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
    if (port->offload) conf.rxmode.offloads |= info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
    conf.rxmode.mtu = port->mtu;
    spread_set(port, info, &conf);
    int code = rte_eth_dev_configure(port->id, port->queues, port->queues, &conf);
    if (code == 0) code = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &rx, &tx);
    for (uint16_t i = 0; i < port->queues && code == 0; i++) {
        code = rte_eth_rx_queue_setup(port->id, i, rx, SOCKET_ID_ANY, NULL, port->pool);
        if (code == 0) code = rte_eth_tx_queue_setup(port->id, i, tx, SOCKET_ID_ANY, NULL);
    }
    if (code == 0) code = rte_eth_dev_start(port->id);
    return code;
}

static rf_err_t address_take(port_t *port, const uint8_t *wanted)
{
    struct rte_ether_addr mac;
    int code = rte_eth_macaddr_get(port->id, &mac);
    if (code != 0) return refused("to tell its address", code);
    memcpy(port->mac, wanted ? wanted : mac.addr_bytes, sizeof port->mac);
    if (!wanted || memcmp(wanted, mac.addr_bytes, sizeof port->mac) == 0) return RF_OK;
    memcpy(mac.addr_bytes, wanted, sizeof mac.addr_bytes);
    if (rte_eth_dev_default_mac_addr_set(port->id, &mac) == 0) return RF_OK;
    code = rte_eth_promiscuous_enable(port->id);
    return code == 0 ? RF_OK : refused("another address", code);
}

/* The sockets through which a driver in the kernel hands over packets: they say when there are some. */
static void sockets_find(port_t *port)
{
    for (int fd = 3; fd < DESCRIPTORS_MAX && port->n_fds < PORT_FDS_MAX; fd++) {
        int domain;
        socklen_t size = sizeof domain;
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
            (domain == AF_PACKET || domain == AF_XDP))
            port->fds[port->n_fds++] = fd;
    }
}

static void waiting_find(port_t *port)
{
    /* A port that takes the setting and has no descriptor all the same complains of it. */
    rte_log_set_level_pattern("lib.ethdev", RTE_LOG_CRIT);
    for (uint16_t i = 0; i < port->queues && port->interrupts; i++) {
        int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(port->id, i);
        if (fd < 0) {
            port->n_fds = 0; /* one that says nothing would be slept through */
            break;
        }
        port->fds[port->n_fds++] = fd;
    }
    rte_log_set_level_pattern("lib.ethdev", RTE_LOG_WARNING);
    if (port->n_fds == 0) sockets_find(port);
}

static rf_err_t no_port(const char *device)
{
    if (fanout_is_taken(device)) {
        rf_log(
            RF_LOG_WARN,
            "%s: DPDK gives its packet sockets the number of another interface's here: start another process",
            device);
        return RF_ERR_BUSY;
    }
    rf_log(RF_LOG_ERROR, "DPDK finds no port at %s: is its driver installed, and the device bound to it?",
           device);
    return RF_ERR_NOT_FOUND;
}

rf_err_t port_open(const port_options_t *options, port_t **out)
{
    rf_err_t err = eal_start(options);
    if (err != RF_OK) return err;
    port_t *port = calloc(1, sizeof *port);
    if (!port) return RF_ERR_NO_MEMORY;
    struct rte_eth_dev_info info;
    int code = -ENODEV;
    uint16_t id;
    RTE_ETH_FOREACH_DEV(id)
    {
        port->id = id;
        code = rte_eth_dev_info_get(id, &info);
    }
    if (code != 0) {
        free(port);
        return no_port(options->device);
    }
    snprintf(port->driver, sizeof port->driver, "%s", info.driver_name);
    uint16_t mtu = RTE_ETHER_MTU;
    rte_eth_dev_get_mtu(port->id, &mtu);
    if (options->mtu && options->mtu != mtu) mtu = (uint16_t)options->mtu;
    if (info.max_mtu && mtu > info.max_mtu) mtu = info.max_mtu;
    port->mtu = mtu;
    port->queues = queues_of(&info, options->queues);
    port->share = port->queues * PORT_SHARE > PORT_BURST ? PORT_SHARE : (uint16_t)(PORT_BURST / port->queues);
    err = buffers_make(port);
    if (err == RF_OK) {
        code = queues_start(port, &info, true);
        port->interrupts = code == 0;
        if (code != 0) code = queues_start(port, &info, false);
        if (code != 0) err = refused("its queues", code);
    }
    if (err == RF_OK) err = address_take(port, options->mac);
    if (err != RF_OK) {
        free(port);
        return err;
    }
    waiting_find(port);
    *out = port;
    return RF_OK;
}

void port_close(port_t *port)
{
    rte_eth_dev_stop(port->id);
    rte_eth_dev_close(port->id);
    rte_eal_cleanup();
    free(port);
}

unsigned port_mtu(const port_t *port)
{
    return port->mtu;
}

const uint8_t *port_mac(const port_t *port)
{
    return port->mac;
}

const char *port_driver(const port_t *port)
{
    return port->driver;
}

unsigned port_queues(const port_t *port)
{
    return port->queues;
}

/* --- packets ------------------------------------------------------------------------------------------------ */

/* Headers and a slot, whose lines may all be at another core. */
static inline void small_packet_fetch(const struct rte_mbuf *m)
{
    const uint8_t *bytes = rte_pktmbuf_mtod(m, const uint8_t *);
    for (size_t at = 0; at < SMALL_PACKET; at += RF_CACHE_LINE) rte_prefetch0(bytes + at);
}

/* The same lines, to be written. Processors that lack the instruction do nothing. */
static void small_packet_own(struct rte_mbuf *m)
{
    uint8_t *bytes = rte_pktmbuf_mtod(m, uint8_t *) - RF_CACHE_LINE; /* a device's own head comes before */
    for (size_t at = 0; at < RF_CACHE_LINE + SMALL_PACKET; at += RF_CACHE_LINE)
#ifdef __x86_64__
        __asm__ volatile("prefetchw %0" : : "m"(bytes[at]));
#else
        __builtin_prefetch(bytes + at, 1);
#endif
}

/* A sum of 0 is none (RFC 768), as of sealed frames; there are ports that call that wrong. */
static bool udp_sum_bad(const struct rte_mbuf *m)
{
    if (rf_likely((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) != RTE_MBUF_F_RX_L4_CKSUM_BAD)) return false;
    const uint8_t *sum = rte_pktmbuf_mtod(m, const uint8_t *) + PACKET_UDP + 6;
    return m->data_len < PACKET_HEAD || sum[0] != 0 || sum[1] != 0;
}

/* A queue is asked for a few first: there are ports that get as many buffers ready as they are asked for, and give them back when
 * nothing came (vhost with packed rings: 300 ns for 32). */
static unsigned queue_burst(port_t *port, uint16_t queue, struct rte_mbuf **out)
{
    unsigned n = rte_eth_rx_burst(port->id, queue, out, PORT_SHARE);
    if (rf_likely(n == 0)) return 0;
    if (n > PORT_SHARE / 2 && n < port->share)
        n += rte_eth_rx_burst(port->id, queue, out + n, (uint16_t)(port->share - n));
    port->stats.rx_queue[queue] += n;
    return n;
}

static unsigned burst(port_t *port)
{
    unsigned n = 0;
    for (uint16_t i = 0; i < port->queues; i++) n += queue_burst(port, i, port->rx + n);
    return n;
}

unsigned port_rx(port_t *port, port_take_fn take, void *context)
{
    if (port->n_rx > 0) rte_pktmbuf_free_bulk(port->rx, port->n_rx);
    unsigned n = port->n_rx = burst(port);
    if (n == 0) return 0;
    for (unsigned i = 0; i < n && i < 4; i++) small_packet_fetch(port->rx[i]);
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = port->rx[i];
        if (i + 4 < n) small_packet_fetch(port->rx[i + 4]);
        uint64_t sum = m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
        if (m->nb_segs == 1 && sum != RTE_MBUF_F_RX_IP_CKSUM_BAD && !udp_sum_bad(m))
            take(context, rte_pktmbuf_mtod(m, uint8_t *), m->data_len, sum == RTE_MBUF_F_RX_IP_CKSUM_GOOD);
        else
            port->stats.rx_segmented++;
    }
    port->stats.rx_packets += n;
    port->stats.rx_bursts++;
    return n;
}

bool port_tx_room(port_t *port)
{
    if (port->left || port->n_tx == PORT_BURST) return false;
    if (rf_unlikely(!port->spare)) port->spare = rte_pktmbuf_alloc(port->pool);
    if (rf_unlikely(!port->spare)) port->stats.no_buffers++;
    return port->spare != NULL;
}

/* The next packet's buffer, which another core may have read last: its lines come while nobody waits for them. */
static void spare_get_ready(port_t *port)
{
    port->spare = rte_pktmbuf_alloc(port->pool);
    if (port->spare) small_packet_own(port->spare);
}

uint8_t *port_tx_next(port_t *port)
{
    return rte_pktmbuf_mtod(port->spare, uint8_t *);
}

void port_tx_put(port_t *port, size_t size, bool headers, bool unsealed)
{
    struct rte_mbuf *m = port->spare;
    uint8_t *bytes = rte_pktmbuf_mtod(m, uint8_t *);
    port->spare = NULL;
    if (headers) {
        bool offload = port->offload && unsealed;
        packet_finish(bytes, size, offload);
        size += PACKET_HEAD;
        if (offload) {
            m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_UDP_CKSUM;
            m->l2_len = PACKET_IP;
            m->l3_len = PACKET_UDP - PACKET_IP;
        }
    }
    if (size < PACKET_ETHER_MIN) {
        memset(bytes + size, 0, PACKET_ETHER_MIN - size);
        size = PACKET_ETHER_MIN;
    }
    m->data_len = (uint16_t)size;
    m->pkt_len = (uint32_t)size;
    port->tx[port->n_tx++] = m;
}

/* The port takes nothing: its link is down, or its peer gone. */
static void tx_drop(port_t *port)
{
    rte_pktmbuf_free_bulk(port->tx, port->n_tx);
    port->stats.tx_stuck += port->n_tx;
    port->n_tx = 0;
    port->left = false;
    port->stuck_ns = 0;
}

bool port_tx_flush(port_t *port, uint64_t now_ns)
{
    if (port->n_tx == 0) return true;
    unsigned n = rte_eth_tx_burst(port->id, 0, port->tx, (uint16_t)port->n_tx);
    port->stats.tx_packets += n;
    port->stats.tx_bursts += n > 0;
    port->n_tx -= n;
    port->left = port->n_tx > 0;
    if (rf_likely(!port->left)) {
        port->stuck_ns = 0;
        if (!port->spare) spare_get_ready(port);
        return true;
    }
    memmove(port->tx, port->tx + n, port->n_tx * sizeof(struct rte_mbuf *));
    if (n > 0 || port->stuck_ns == 0)
        port->stuck_ns = now_ns;
    else if (now_ns - port->stuck_ns > PORT_STUCK_NS)
        tx_drop(port);
    return false;
}

/* --- waiting ------------------------------------------------------------------------------------------------ */

unsigned port_fds(const port_t *port, int fds[PORT_FDS_MAX])
{
    memcpy(fds, port->fds, port->n_fds * sizeof *fds);
    return port->n_fds;
}

void port_arm(port_t *port)
{
    for (uint16_t i = 0; i < port->queues && port->interrupts; i++) rte_eth_dev_rx_intr_enable(port->id, i);
}

void port_disarm(port_t *port)
{
    for (uint16_t i = 0; i < port->queues && port->interrupts; i++) rte_eth_dev_rx_intr_disable(port->id, i);
}

void port_stats(port_t *port, port_stats_t *out)
{
    struct rte_eth_stats device;
    struct rte_eth_link link = {0};
    if (rte_eth_stats_get(port->id, &device) == 0) {
        port->stats.rx_missed = device.imissed + device.rx_nombuf;
        port->stats.rx_errors = device.ierrors;
        port->stats.tx_errors = device.oerrors;
    }
    rte_eth_link_get_nowait(port->id, &link);
    port->stats.up = link.link_status == RTE_ETH_LINK_UP;
    *out = port->stats;
}
