/*
 * MTU on the way: whether other hosts get the largest packet that this host sends them over RDMA. Over RoCE it carries 4096 bytes, or what
 * `mtu` of either end says, or less where this end's interface has no room for that. If it does not arrive since the other end's MTU is
 * smaller, links use smaller packets; if a switch's is, they stall. Over iWARP it is one of the interface's MTU, as any of TCP's.
 * InfiniBand's is the subnet manager's: nothing is asked; nor where RoCE leaves this host by another interface than packets to the
 * host's address do, since then they say nothing of it: that is said.
 *
 * A datagram of that size, not to be cut on its way, goes to a port there that nobody listens on. That it was refused comes back when it
 * was taken; of who does not say so, a small one after it tells whether that host says so at all. Nobody needs a right for that, and
 * nothing of Rackfish need run there. A host says so once a second to the same one, after the first few (icmp_ratelimit).
 */
#include "cluster-config/doctor_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT        "9"                   /* discard */
#define WAIT_NS     (1500 * RF_NS_PER_MS) /* for answers to one size */
#define TRIES       4 /* in that time: one may be lost; the last is more than a second after the first */
#define HEADERS     (20 + 8)
#define HEADERS_V6  (40 + 8)
#define PAYLOAD_MAX 65507
#define NOTES_MAX   4

enum { LARGE, SMALL, SIZES };

typedef struct probe {
    int fds[SIZES]; /* -1: not, or not any more */
    bool taken[SIZES];
    unsigned packet; /* bytes of the large one; 0: not known */
    unsigned payload;
    char netdev[IF_NAMESIZE];    /* by which packets go there; "": not known */
    char elsewhere[IF_NAMESIZE]; /* ... RoCE's go by this one; "": by the same */
    const rf_config_node_t *node;
} probe_t;

/* A socket whose datagrams are not cut, and whose errors are those of that host. */
static int socket_to(const struct addrinfo *to)
{
    int probe = IP_PMTUDISC_PROBE, probe6 = IPV6_PMTUDISC_PROBE;
    int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool v6 = to->ai_family == AF_INET6;
    if (fd >= 0 &&
        setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
                   v6 ? &probe6 : &probe, sizeof probe) == 0 &&
        connect(fd, to->ai_addr, to->ai_addrlen) == 0)
        return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static bool same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    if (!a || a->sa_family != b->ss_family) return false;
    if (a->sa_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                      &((const struct sockaddr_in *)(const void *)b)->sin_addr, sizeof(struct in_addr)) == 0;
    return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

/* By which interface that socket's packets go, as transport/rdma finds it: by the address that they come from. */
static void netdev_of(int fd, char out[IF_NAMESIZE])
{
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    struct ifaddrs *all = NULL;
    if (getsockname(fd, (struct sockaddr *)&own, &size) < 0 || getifaddrs(&all) < 0) return;
    for (const struct ifaddrs *one = all; one && !out[0]; one = one->ifa_next) {
        if (same_address(one->ifa_addr, &own)) snprintf(out, IF_NAMESIZE, "%s", one->ifa_name);
    }
    freeifaddrs(all);
}

static void shut(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void probe_open(probe_t *probe, const doctor_t *doctor, rf_node_t there, bool roce)
{
    const rf_config_t *config = doctor->options->config;
    rf_node_t here = doctor->options->node;
    struct addrinfo *to = NULL, hints = {.ai_socktype = SOCK_DGRAM};
    *probe = (probe_t){.fds = {-1, -1}, .node = &config->nodes[there]};
    if (getaddrinfo(probe->node->address, PORT, &hints, &to) != 0) return; /* "hosts" says so */
    bool v6 = to->ai_family == AF_INET6;
    int mtu = 0;
    socklen_t size = sizeof mtu;
    for (unsigned i = 0; i < SIZES; i++) probe->fds[i] = socket_to(to);
    freeaddrinfo(to);
    if (getsockopt(probe->fds[LARGE], v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu, &size) <
        0)
        return;
    netdev_of(probe->fds[LARGE], probe->netdev);
    if (roce && probe->netdev[0] &&
        doctor_roce_elsewhere(doctor, probe->netdev, probe->elsewhere, sizeof probe->elsewhere)) {
        for (unsigned i = 0; i < SIZES; i++) shut(&probe->fds[i]);
        return;
    }
    unsigned headers = v6 ? HEADERS_V6 : HEADERS;
    unsigned packet = roce ? doctor_roce_packet(config, here, there, (unsigned)mtu) : (unsigned)mtu;
    probe->payload = packet - headers < PAYLOAD_MAX ? packet - headers : PAYLOAD_MAX;
    probe->packet = probe->payload + headers;
}

static void probe_send(const probe_t *probe, unsigned which)
{
    static const uint8_t zeros[PAYLOAD_MAX];
    ssize_t ignored = send(probe->fds[which], zeros, which == LARGE ? probe->payload : 1, 0);
    (void)ignored;
}

/* What has come back. False: nothing more is waited for. */
static bool probe_hear(probe_t *probe, unsigned which)
{
    uint8_t byte;
    if (probe->fds[which] < 0) return false;
    if (recv(probe->fds[which], &byte, 1, 0) >= 0 || errno == EAGAIN) return true;
    probe->taken[which] = errno == ECONNREFUSED;
    shut(&probe->fds[which]);
    return false;
}

/* Sends that size to all, and listens until each has answered or the time is over. */
static void probe_all(probe_t *probes, unsigned n, unsigned which)
{
    uint64_t step_ns = WAIT_NS / TRIES, next_ns = rf_clock_ns(), end_ns = next_ns + WAIT_NS, now_ns;
    while ((now_ns = rf_clock_ns()) < end_ns) {
        struct pollfd fds[RF_NODES_MAX];
        unsigned n_fds = 0;
        for (unsigned i = 0; i < n; i++) {
            if (!probe_hear(&probes[i], which)) continue;
            if (now_ns >= next_ns) probe_send(&probes[i], which);
            fds[n_fds++] = (struct pollfd){.fd = probes[i].fds[which], .events = POLLIN};
        }
        if (n_fds == 0) return;
        if (now_ns >= next_ns) next_ns += step_ns;
        poll(fds, n_fds, (int)(step_ns / RF_NS_PER_MS / 4));
    }
}

static void say_mute(doctor_t *doctor, const probe_t *probes, unsigned n, unsigned mute)
{
    const rf_config_node_t *first = NULL;
    for (unsigned i = n; i > 0; i--) {
        if (!probes[i - 1].taken[SMALL] && !probes[i - 1].elsewhere[0]) first = probes[i - 1].node;
    }
    if (!first) return;
    doctor_finding(doctor, RF_DOCTOR_NOTE,
                   "have it up, with ICMP let through; or compare `ip link` there with that here",
                   "%u host(s), '%.40s' first, do not say whether they get RDMA's largest packets", mute,
                   first->name);
}

static unsigned say_elsewhere(doctor_t *doctor, const probe_t *probes, unsigned n)
{
    const probe_t *first = NULL;
    unsigned elsewhere = 0;
    for (unsigned i = n; i > 0; i--) {
        if (!probes[i - 1].elsewhere[0]) continue;
        first = &probes[i - 1];
        elsewhere++;
    }
    if (first)
        doctor_finding(
            doctor, RF_DOCTOR_NOTE,
            "compare `ip link` of both ends and the switch's MTU; or give 'address' the hosts' addresses in "
            "the network of that interface",
            "whether %u host(s), '%.40s' first, get RDMA's largest packets was not asked: those go by "
            "%s, and packets to the configured address by %s",
            elsewhere, first->node->name, first->elsewhere, first->netdev);
    return elsewhere;
}

void doctor_check_mtu(doctor_t *doctor)
{
    static probe_t probes[RF_NODES_MAX];
    const rf_config_t *config = doctor->options->config;
    rf_node_t here = doctor->options->node;
    unsigned n = 0, taken = 0, refused = 0, least = 0;
    if (!config || config->emulated || here >= config->n_nodes) return;
    doctor_wire_t wire = doctor_rdma_wire(doctor);
    if (wire == DOCTOR_WIRE_INFINIBAND) return;
    for (rf_node_t i = 0; i < config->n_nodes; i++) {
        if (i != here && strcmp(config->medium[here][i], "rdma") == 0)
            probe_open(&probes[n++], doctor, i, wire == DOCTOR_WIRE_ROCE);
    }
    probe_all(probes, n, LARGE);
    for (unsigned i = 0; i < n; i++) {
        if (probes[i].taken[LARGE]) shut(&probes[i].fds[SMALL]);
    }
    probe_all(probes, n, SMALL);
    for (unsigned i = 0; i < n; i++) {
        probe_t *probe = &probes[i];
        for (unsigned k = 0; k < SIZES; k++) shut(&probe->fds[k]);
        if (probe->taken[LARGE]) {
            if (taken++ == 0 || probe->packet < least) least = probe->packet;
            probe->taken[SMALL] = true;
        } else if (probe->taken[SMALL] && refused++ < NOTES_MAX) {
            doctor_finding(doctor, RF_DOCTOR_NOTE,
                           wire == DOCTOR_WIRE_IWARP
                               ? "the same MTU at both ends and on the switch (ip link set NETDEV mtu 9000)"
                               : "the same MTU at both ends and on the switch (ip link set NETDEV mtu 9000), "
                                 "or a smaller 'mtu' below 'rdma'",
                           "'%.40s' (%.60s) gets no packets of %u bytes, the largest of RDMA from here",
                           probe->node->name, probe->node->address, probe->packet);
        }
    }
    unsigned elsewhere = say_elsewhere(doctor, probes, n);
    say_mute(doctor, probes, n, n - taken - refused - elsewhere);
    if (taken > 0 && taken == n)
        doctor_good(doctor, "%u other host(s) get packets of %u bytes, the largest of RDMA from here", taken,
                    least);
}
