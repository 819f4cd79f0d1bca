/* The endpoint: which devices it has, what is heard of them, and how a link is fenced from them. */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define OPTIONS_VARIABLE "RACKFISH_RDMA"

static rdma_endpoint_t *endpoint_of(path_endpoint_t *ep)
{
    return (rdma_endpoint_t *)ep;
}

/* --- routes ------------------------------------------------------------------------------------------------- */

bool rdma_address_take(const char *address, struct sockaddr_storage *out, socklen_t *size)
{
    char host[RF_ADDRESS_MAX];
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= sizeof host) return false;
    bool bracket = address[0] == '[' && colon > address && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - address - 2 * bracket), address + bracket);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *found;
    if (getaddrinfo(host, "9", &hints, &found) != 0) return false; /* any port: nothing is sent */
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *size = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void gid_of(const struct sockaddr *address, uint8_t gid[RDMA_GID])
{
    memset(gid, 0, RDMA_GID);
    if (address->sa_family == AF_INET) {
        gid[10] = gid[11] = 0xff;
        memcpy(gid + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else {
        memcpy(gid, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, RDMA_GID);
    }
}

/* Of the InfiniBand port below that interface. */
static void port_of(const struct ifaddrs *all, uint32_t netdev, uint8_t gid[RDMA_GID])
{
    for (const struct ifaddrs *one = all; netdev != 0 && one; one = one->ifa_next) {
        if (!one->ifa_addr || one->ifa_addr->sa_family != AF_PACKET) continue;
        const struct sockaddr_ll *at = (const struct sockaddr_ll *)(const void *)one->ifa_addr;
        if ((uint32_t)at->sll_ifindex != netdev) continue;
        /* Longer than sll_addr, for which the C libraries keep 24 bytes here. */
        const uint8_t *hardware = (const uint8_t *)at + offsetof(struct sockaddr_ll, sll_addr);
        if (rdma_port_below(at->sll_hatype, hardware, at->sll_halen, gid)) return;
    }
}

void rdma_source_to(const char *address, rdma_source_t *out)
{
    struct sockaddr_storage at;
    socklen_t size;
    memset(out, 0, sizeof *out);
    if (!rdma_address_take(address, &at, &size)) return;
    int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && connect(fd, (struct sockaddr *)&at, size) == 0 &&
                 getsockname(fd, (struct sockaddr *)&at, &size) == 0;
    if (fd >= 0) close(fd);
    struct ifaddrs *all = NULL;
    if (!found || getifaddrs(&all) != 0) return;
    gid_of((struct sockaddr *)&at, out->gid);
    for (struct ifaddrs *one = all; one && out->netdev == 0; one = one->ifa_next) {
        uint8_t gid[RDMA_GID];
        if (!one->ifa_addr || one->ifa_addr->sa_family != at.ss_family) continue;
        gid_of(one->ifa_addr, gid);
        if (memcmp(gid, out->gid, sizeof gid) == 0) out->netdev = if_nametoindex(one->ifa_name);
    }
    port_of(all, out->netdev, out->port);
    freeifaddrs(all);
}

/* --- opening and closing ------------------------------------------------------------------------------------ */

static rf_err_t options_take(rdma_endpoint_t *ep, const char *given)
{
    char why[256];
    const char *text = given ? given : secure_getenv(OPTIONS_VARIABLE);
    rf_err_t err = rdma_options_parse(text, &ep->options, why, sizeof why);
    if (err != RF_OK) rf_log(RF_LOG_ERROR, "rdma: %s: %s", given ? "options" : OPTIONS_VARIABLE, why);
    return err;
}

static rf_err_t rdma_open(path_endpoint_t *base, const rf_endpoint_params_t *params)
{
    rdma_endpoint_t *ep = endpoint_of(base);
    ep->destroy_ns = RF_NEVER;
    ep->uevents = -1;
    ep->look = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    rf_err_t err = ep->look < 0 ? RF_ERR_OS : path_endpoint_watch(base, ep->look, &ep->look);
    if (err != RF_OK) rf_log(RF_LOG_ERROR, "rdma: cannot make a timer: %m");
    if (err == RF_OK) err = options_take(ep, params->medium);
    if (err != RF_OK) return err;
    setenv("RDMAV_ALLOW_DISASSOC_DESTROY", "1",
           0); /* libibverbs: of a device that is no more, all can be given back */
    rdma_removal_open(ep);
    /* A host without a device is told so at once; a port that is down may come up. */
    rdma_place_t place;
    if (params->address) rdma_source_to(params->address, &ep->listen_route);
    err = rdma_place_find(ep, &ep->listen_route, &place);
    return err == RF_ERR_AGAIN ? RF_OK : err;
}

static void rdma_end(path_endpoint_t *base)
{
    rdma_endpoint_t *ep = endpoint_of(base);
    for (unsigned i = ep->paths_end; i > 0; i--) {
        if (ep->paths[i - 1]) rdma_path_destroy(ep->paths[i - 1]);
    }
    rdma_cm_close(ep);
    for (unsigned i = 0; i < ep->n_devices; i++) {
        if (ep->devices[i]->gone && !rdma_device_is_there(ep->devices[i])) rdma_cm_removed(ep->devices[i]);
        rdma_device_close(ep->devices[i]);
    }
    rdma_removal_close(ep);
    if (ep->look >= 0) close(ep->look);
}

/* --- progress ----------------------------------------------------------------------------------------------- */

/* Completions and what befalls the device have a descriptor each: see device_open(). */
static void device_says(rdma_endpoint_t *ep, const void *tag)
{
    for (unsigned i = 0; i < ep->n_devices; i++) {
        rdma_device_t *device = ep->devices[i];
        if (tag == device) rdma_device_heard(device);
        if (tag == &device->context) rdma_device_async(device);
    }
}

static void rdma_heard(path_endpoint_t *base, void *tag)
{
    rdma_endpoint_t *ep = endpoint_of(base);
    if (tag == &ep->look) {
        uint64_t count;
        ssize_t ignored = read(ep->look, &count, sizeof count);
        (void)ignored;
        rdma_ring_looked(ep);
    } else if (tag == &ep->cm) {
        rdma_cm_heard(ep);
    } else if (tag == &ep->uevents) {
        rdma_removal_heard(ep);
    } else {
        device_says(ep, tag);
    }
}

/* A sleeper is woken by a completion, and one system call finds out: the set would say the same by two. */
static bool rdma_woken(path_endpoint_t *base)
{
    rdma_endpoint_t *ep = endpoint_of(base);
    bool any = false;
    for (unsigned i = 0; i < ep->n_devices; i++) {
        rdma_device_t *device = ep->devices[i];
        any |= device->notify && !device->gone && rdma_device_heard(device);
    }
    return any;
}

static void rdma_progress(path_endpoint_t *base, uint64_t now_ns)
{
    rdma_endpoint_t *ep = endpoint_of(base);
    (void)now_ns;
    for (unsigned i = 0; i < ep->n_devices; i++) rdma_device_drain(ep->devices[i]);
}

static uint64_t rdma_rest(path_endpoint_t *base, uint64_t now_ns)
{
    rdma_endpoint_t *ep = endpoint_of(base);
    if (ep->destroy_ns <= now_ns) rdma_paths_bury(ep, now_ns);
    return rdma_removal_sweep(ep) ? now_ns : ep->destroy_ns;
}

/* --- fencing ------------------------------------------------------------------------------------------------ */

/* Of a link's own domain: where its peer may write. Paths that die are among them; those that only SEND into shared
 * buffers are not, and nothing that comes over them is looked at. False: some may still be there. */
static bool paths_destroy(rdma_endpoint_t *ep, const rdma_domain_t *domain)
{
    bool all = true;
    for (unsigned i = ep->paths_end; domain && i > 0; i--) {
        rdma_path_t *path = i <= ep->paths_end ? ep->paths[i - 1] : NULL;
        if (path && path->domain == domain) all = rdma_path_destroy(path) && all;
    }
    return all;
}

/* The device neither says that the peer writes no more nor takes the memory back: nothing that this process says of it would be true.
 * With its end the kernel takes back both. */
static _Noreturn void unfenced(const path_link_t *base)
{
    rf_log(
        RF_LOG_ERROR,
        "rdma: the link to %s cannot be fenced: its device neither ends its queue pairs nor gives back the "
        "memory that its peer may write, and so this process ends, as a core that cannot fence must",
        base->address_text);
    abort();
}

static void rdma_fence(path_link_t *base)
{
    rdma_link_t *link = rdma_link_of(base);
    uint64_t before_ns = rf_clock_ns();
    bool stopped = true;
    for (unsigned i = 0; i < PATH_LANES; i++) {
        rdma_path_t *path = link->paths[i];
        rdma_path_kill(path);
        stopped = stopped && (!path || path->stopped);
    }
    bool ended = paths_destroy(rdma_endpoint_of(base), link->domain);
    if (!ended && !rdma_bulk_shut(link)) unfenced(base);
    uint64_t took_ns = rf_clock_ns() - before_ns;
    rf_log(ended && stopped ? RF_LOG_INFO : RF_LOG_WARN, "rdma: the link to %s is fenced: %s, after %llu us",
           base->address_text,
           !ended ? "its queue pairs are not known to be gone; nothing is read from them any more, and its "
                    "regions are shut"
           : !stopped     ? "its queue pairs are not known to be in error; nothing that comes is looked at"
           : link->domain ? "the queue pairs that its peer may write by are no more"
                          : "its queue pair is in error",
           (unsigned long long)(took_ns / RF_NS_PER_US));
}

/* --- the medium --------------------------------------------------------------------------------------------- */

const path_medium_t rdma_medium = {
    .transport = &rf_transport_rdma,
    .magic = RDMA_MAGIC,
    .format = RDMA_FORMAT,
    .info_size = sizeof(rdma_path_info_t),
    .word = RDMA_WORD,
    .word_flags = RDMA_WORD_FLAGS,
    .endpoint_size = sizeof(rdma_endpoint_t),
    .link_size = sizeof(rdma_link_t),
    .bulk_size = sizeof(rdma_bulk_t),
    .open = rdma_open,
    .close = rdma_end,
    .heard = rdma_heard,
    .woken = rdma_woken,
    .progress = rdma_progress,
    .rest = rdma_rest,
    .link_init = rdma_link_init,
    .link_free = rdma_link_free,
    .ring_grow = rdma_ring_grow,
    .hear = rdma_link_hear,
    .push = rdma_push,
    .keep = rdma_link_keep,
    .fence = rdma_fence,
    .message = rdma_bulk_control,
    .make = rdma_lane_make,
    .info = rdma_lane_info,
    .info_right = rdma_lane_info_right,
    .join = rdma_lane_join,
    .say = rdma_lane_say,
    .drop = rdma_lane_drop,
    .failed = rdma_lane_failed,
    .overdue = rdma_lane_overdue,
    .resume = rdma_resume,
    .bulk_free = rdma_bulk_free,
    .bulk_pump = rdma_bulk_pump,
    .bulk_resume = rdma_bulk_resume,
    .bulk_settle = rdma_bulk_settle,
};

rf_err_t rdma_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    return path_endpoint_open(&rdma_medium, params, out);
}
