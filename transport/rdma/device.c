/*
 * Devices: finding and opening them, memory that they know, and the one completion queue through which everything that
 * comes from them is heard.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define SHUT_MAX         160
#define DRAIN_ROUNDS_MAX 64
#define HUGE_PAGE        (2u << 20)
#define EVENTS_MAX       64

/* --- memory ------------------------------------------------------------------------------------------------- */

static bool memory_map(struct ibv_pd *pd, size_t whole, int access, int huge, rdma_memory_t *out)
{
    void *base = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | huge, -1, 0);
    if (base == MAP_FAILED) return false;
    /* A child that writes must not get the pages that the device knows. */
    madvise(base, whole, MADV_DONTFORK);
    struct ibv_mr *mr = pd ? ibv_reg_mr(pd, base, whole, access) : NULL;
    if (pd && !mr) {
        int saved = errno;
        munmap(base, whole);
        errno = saved;
        return false;
    }
    *out = (rdma_memory_t){.base = base, .size = whole, .mr = mr};
    return true;
}

rf_err_t rdma_memory_make(struct ibv_pd *pd, size_t size, int access, rdma_memory_t *out)
{
    size_t whole = (size + RF_PAGE - 1) & ~(size_t)(RF_PAGE - 1);
    bool huge = whole >= HUGE_PAGE && whole % HUGE_PAGE == 0;
    bool made =
        (huge && memory_map(pd, whole, access, MAP_HUGETLB, out)) || memory_map(pd, whole, access, 0, out);
    return made ? RF_OK : RF_ERR_NO_MEMORY;
}

void rdma_memory_free(rdma_memory_t *memory)
{
    if (memory->mr) ibv_dereg_mr(memory->mr);
    if (memory->base) munmap(memory->base, memory->size);
    *memory = (rdma_memory_t){.base = NULL};
}

void rdma_memory_refused(rdma_endpoint_t *ep, size_t size)
{
    int saved = errno;
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (!rf_log_once_per(&ep->log_memory_ns, PATH_LOG_INTERVAL_NS)) return;
    errno = saved;
    if (limit.rlim_cur == RLIM_INFINITY)
        rf_log(RF_LOG_ERROR, "rdma: the device does not take %zu bytes of memory: %m", size);
    else
        rf_log(RF_LOG_ERROR,
               "rdma: cannot lock %zu bytes of memory for the device: %m; the limit is %llu KiB: raise it "
               "(`ulimit -l unlimited`, LimitMEMLOCK=infinity in the unit)",
               size, (unsigned long long)limit.rlim_cur >> 10);
}

rf_err_t rdma_domain_make(rdma_device_t *device, rdma_domain_t **out)
{
    rdma_domain_t *domain = calloc(1, sizeof *domain);
    if (!domain) return RF_ERR_NO_MEMORY;
    domain->pd = ibv_alloc_pd(device->context);
    if (!domain->pd) {
        rf_log(RF_LOG_ERROR, "rdma: %s gives no protection domain: %m; " RDMA_LIMITS, device->name);
        free(domain);
        return RF_ERR_OS;
    }
    domain->holders = 1;
    *out = domain;
    return RF_OK;
}

void rdma_domain_release(rdma_domain_t *domain)
{
    if (!domain || --domain->holders > 0) return;
    ibv_dealloc_pd(domain->pd);
    free(domain);
}

/* --- buffers for what is received --------------------------------------------------------------------------- */

static rdma_buffers_t *buffers_make(rdma_endpoint_t *ep, rdma_domain_t *domain, unsigned n, uint32_t size,
                                    rdma_path_t *path)
{
    rdma_buffers_t *buffers = calloc(1, sizeof *buffers + n * sizeof buffers->of[0]);
    if (!buffers) return NULL;
    if (rdma_memory_make(domain->pd, (size_t)n * size, IBV_ACCESS_LOCAL_WRITE, &buffers->memory) != RF_OK) {
        rdma_memory_refused(ep, (size_t)n * size);
        free(buffers);
        return NULL;
    }
    buffers->n = n;
    for (unsigned i = 0; i < n; i++)
        buffers->of[i] = (rdma_buffer_t){.bytes = buffers->memory.base + (size_t)i * size,
                                         .size = size,
                                         .lkey = buffers->memory.mr->lkey,
                                         .path = path};
    return buffers;
}

void rdma_buffers_free(rdma_buffers_t *buffers)
{
    while (buffers) {
        rdma_buffers_t *next = buffers->next;
        rdma_memory_free(&buffers->memory);
        free(buffers);
        buffers = next;
    }
}

void rdma_buffer_post(rdma_device_t *device, rdma_buffer_t *buffer)
{
    struct ibv_sge part = {.addr = (uintptr_t)buffer->bytes, .length = buffer->size, .lkey = buffer->lkey};
    struct ibv_recv_wr request = {.wr_id = (uintptr_t)buffer, .sg_list = &part, .num_sge = 1}, *bad;
    int failed = buffer->path ? ibv_post_recv(buffer->path->qp, &request, &bad)
                              : ibv_post_srq_recv(device->srq, &request, &bad);
    if (failed && buffer->path) rdma_path_broken(buffer->path);
}

static uint32_t shared_max(const rdma_device_t *device)
{
    uint32_t has = (uint32_t)device->attr.max_srq_wr;
    return has < RDMA_SHARED_BUFFERS_MAX ? has : RDMA_SHARED_BUFFERS_MAX;
}

rf_err_t rdma_device_grow(rdma_device_t *device)
{
    const uint32_t each = RDMA_MESSAGES + RDMA_WORDS;
    if (device->n_buffers >= (device->n_sharing + 1) * each) return RF_OK;
    if (device->n_buffers + each > shared_max(device)) return RF_OK; /* who finds no buffer waits for one */
    rdma_buffers_t *more = buffers_make(device->endpoint, device->domain, each, RDMA_BUFFER, NULL);
    if (!more) return RF_ERR_NO_MEMORY;
    more->next = device->buffers;
    device->buffers = more;
    device->n_buffers += each;
    for (unsigned i = 0; i < more->n; i++) rdma_buffer_post(device, &more->of[i]);
    return RF_OK;
}

rf_err_t rdma_buffers_make(rdma_path_t *path, unsigned n, uint32_t size)
{
    rdma_buffers_t *more = buffers_make(path->device->endpoint, path->domain, n, size, path);
    if (!more) return RF_ERR_NO_MEMORY;
    more->next = path->buffers;
    path->buffers = more;
    return RF_OK;
}

/* --- opening ------------------------------------------------------------------------------------------------ */

static const char *driver_of(const struct ibv_device_attr *attr)
{
    switch (attr->vendor_id) {
    case 0xffffff:
        return "rxe";
    case 0x626d74:
        return "siw";
    case 0x02c9:
    case 0x15b3:
        return "mlx";
    default:
        return "other";
    }
}

static rdma_device_t *device_opened(rdma_endpoint_t *ep, const char *name)
{
    for (unsigned i = 0; i < ep->n_devices; i++) {
        if (!ep->devices[i]->gone && strcmp(ep->devices[i]->name, name) == 0) return ep->devices[i];
    }
    return NULL;
}

static unsigned gids_of(struct ibv_context *context, rdma_gid_t *out, unsigned max)
{
    struct ibv_gid_entry entries[RDMA_GIDS_MAX];
    const char *name = ibv_get_device_name(context->device);
    bool iwarp = context->device->transport_type == IBV_TRANSPORT_IWARP;
    ssize_t found = ibv_query_gid_table(context, entries, RDMA_GIDS_MAX, 0);
    unsigned n = 0;
    for (ssize_t i = 0; i < found && n < max; i++) {
        struct ibv_port_attr port;
        if (ibv_query_port(context, (uint8_t)entries[i].port_num, &port) != 0) continue;
        rdma_gid_t *gid = &out[n++];
        memset(gid, 0, sizeof *gid);
        snprintf(gid->device, sizeof gid->device, "%s", name);
        gid->port = (int)entries[i].port_num;
        gid->index = (int)entries[i].gid_index;
        gid->kind = iwarp                                         ? RDMA_GID_IWARP
                    : port.link_layer != IBV_LINK_LAYER_ETHERNET  ? RDMA_GID_IB
                    : entries[i].gid_type == IBV_GID_TYPE_ROCE_V2 ? RDMA_GID_ROCE_V2
                                                                  : RDMA_GID_ROCE_V1;
        memcpy(gid->gid, entries[i].gid.raw, sizeof gid->gid);
        gid->netdev = entries[i].ndev_ifindex;
        gid->active = port.state == IBV_PORT_ACTIVE;
    }
    return n;
}

/* `shut`: the last device that cannot be opened, and why; "": there is none. */
static unsigned gids_list(rdma_endpoint_t *ep, rdma_gid_t *out, unsigned max, char shut[SHUT_MAX])
{
    int n_devices = 0;
    struct ibv_device **list = ibv_get_device_list(&n_devices);
    unsigned n = 0;
    shut[0] = '\0';
    for (int i = 0; list && i < n_devices; i++) {
        const rdma_device_t *opened = device_opened(ep, ibv_get_device_name(list[i]));
        struct ibv_context *context = opened ? opened->context : ibv_open_device(list[i]);
        if (!context) {
            snprintf(shut, SHUT_MAX, "%s: %m", ibv_get_device_name(list[i]));
            continue;
        }
        n += gids_of(context, out + n, max - n);
        if (!opened) ibv_close_device(context);
    }
    if (list) ibv_free_device_list(list);
    return n;
}

static bool watch(rdma_endpoint_t *ep, int fd, void *tag)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           path_endpoint_watch(&ep->base, fd, tag) == RF_OK;
}

static struct ibv_context *context_open(const char *name)
{
    int n_devices = 0;
    struct ibv_device **list = ibv_get_device_list(&n_devices);
    struct ibv_context *context = NULL;
    for (int i = 0; list && i < n_devices && !context; i++) {
        if (strcmp(ibv_get_device_name(list[i]), name) == 0) context = ibv_open_device(list[i]);
    }
    if (list) ibv_free_device_list(list);
    return context;
}

static rf_err_t device_open(rdma_endpoint_t *ep, const char *name, rdma_device_t **out)
{
    if (ep->n_devices == RDMA_DEVICES_MAX) return RF_ERR_LIMIT;
    rdma_device_t *device = calloc(1, sizeof *device);
    if (!device) return RF_ERR_NO_MEMORY;
    snprintf(device->name, sizeof device->name, "%s", name);
    device->endpoint = ep;
    rf_err_t err = RF_ERR_OS;
    device->context = context_open(name);
    if (!device->context || ibv_query_device(device->context, &device->attr) != 0) {
        rf_log(RF_LOG_ERROR, "rdma: cannot open %s: %m; may this user use /dev/infiniband/uverbs*?", name);
        goto close_device;
    }
    device->iwarp = device->context->device->transport_type == IBV_TRANSPORT_IWARP;
    snprintf(device->driver, sizeof device->driver, "%s", driver_of(&device->attr));
    int entries = device->attr.max_cqe < RDMA_CQ_ENTRIES ? device->attr.max_cqe : RDMA_CQ_ENTRIES;
    struct ibv_srq_init_attr shared = {.attr = {.max_wr = shared_max(device), .max_sge = 1}};
    device->cq_promised = device->iwarp ? 0 : shared.attr.max_wr;
    err = rdma_domain_make(device, &device->domain);
    if (err != RF_OK) goto close_device;
    err = RF_ERR_OS;
    device->channel = ibv_create_comp_channel(device->context);
    if (device->channel) device->cq = ibv_create_cq(device->context, entries, NULL, device->channel, 0);
    if (device->cq && !device->iwarp) device->srq = ibv_create_srq(device->domain->pd, &shared);
    if (!device->cq || !(device->srq || device->iwarp) || !watch(ep, device->channel->fd, device) ||
        !watch(ep, device->context->async_fd, &device->context)) {
        rf_log(RF_LOG_ERROR, "rdma: %s gives no queues: %m; " RDMA_LIMITS, name);
        goto close_device;
    }
    ep->devices[ep->n_devices++] = device;
    *out = device;
    return RF_OK;

close_device:
    rdma_device_close(device);
    return err;
}

void rdma_device_close(rdma_device_t *device)
{
    if (device->srq) ibv_destroy_srq(device->srq);
    if (device->cq) ibv_destroy_cq(device->cq);
    if (device->channel) ibv_destroy_comp_channel(device->channel);
    rdma_buffers_free(device->buffers);
    rdma_domain_release(device->domain);
    if (device->context) ibv_close_device(device->context);
    free(device);
}

static enum ibv_mtu mtu_at_most(enum ibv_mtu port, int bytes)
{
    enum ibv_mtu mtu = port;
    while (bytes > 0 && mtu > IBV_MTU_256 && (128 << mtu) > bytes) mtu--;
    return mtu;
}

rf_err_t rdma_place_find(rdma_endpoint_t *ep, const rdma_source_t *route, rdma_place_t *out)
{
    char why[256] = "", shut[SHUT_MAX];
    rdma_gid_t *gids = calloc(RDMA_GIDS_MAX, sizeof *gids);
    if (!gids) return RF_ERR_NO_MEMORY;
    unsigned n = gids_list(ep, gids, RDMA_GIDS_MAX, shut), at = 0;
    rf_err_t err = rdma_choose(&ep->options, route, gids, n, &at, why, sizeof why);
    rdma_gid_t gid = gids[at];
    free(gids);
    if (n == 0 && shut[0] != '\0') {
        if (rf_log_once_per(&ep->log_device_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR,
                   "rdma: cannot open %s; may this user use /dev/infiniband/uverbs*? (chmod 666, for good by "
                   "a udev rule)",
                   shut);
        return RF_ERR_PERMISSION;
    }
    if (err != RF_OK) {
        if (rf_log_once_per(&ep->log_device_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: no path: %s", why);
        return err;
    }
    rdma_device_t *device = device_opened(ep, gid.device);
    if (!device && (err = device_open(ep, gid.device, &device)) != RF_OK) return err;
    struct ibv_port_attr port;
    if (ibv_query_port(device->context, (uint8_t)gid.port, &port) != 0) return RF_ERR_AGAIN;
    *out = (rdma_place_t){.device = device,
                          .gid = gid,
                          .lid = port.lid,
                          .mtu = (uint8_t)mtu_at_most(port.active_mtu, ep->options.mtu),
                          .ethernet = port.link_layer == IBV_LINK_LAYER_ETHERNET};
    if (route->netdev != 0 && strcmp(why, ep->chosen) != 0) {
        const char *reason;
        rdma_mode_t mode = rdma_placement(ep->options.mode, device->driver, device->iwarp, &reason);
        snprintf(ep->chosen, sizeof ep->chosen, "%s", why);
        rf_log(rdma_placement_doubtful(mode, device->driver, device->iwarp) ? RF_LOG_WARN : RF_LOG_INFO,
               "rdma: over %s; slots come by %s: %s", why, mode == RDMA_MODE_WRITE ? "WRITE" : "SEND",
               reason);
    }
    return RF_OK;
}

/* --- completions -------------------------------------------------------------------------------------------- */

/* True: the buffer is kept. */
static bool message_came(rdma_path_t *path, rdma_buffer_t *buffer, uint32_t size)
{
    rdma_link_t *link = rdma_path_link(path);
    if (path->lane->stage == PATH_UP) {
        if (path->bulk) return rdma_bulk_message(link, buffer, size);
        rdma_link_message(link, path, buffer->bytes, size);
        return false;
    }
    rf_slot_t slot;
    path_word_t word;
    if (size == sizeof slot) {
        memcpy(&slot, buffer->bytes, sizeof slot);
        if (path_word_read(path->lane, &slot, &word) && (word.flags & PATH_WORD_HELLO)) {
            path_lane_hello(path->lane);
            return false;
        }
    }
    path_link_wrong(&link->base, "something before HELLO");
    return false;
}

/* A send request's wr_id: bit 0 set, then the path's count of posted requests, then its id. */
static void request_done(rdma_endpoint_t *ep, const struct ibv_wc *wc)
{
    unsigned id = (unsigned)(wc->wr_id >> 48);
    rdma_path_t *path = id < RDMA_PATHS_MAX ? ep->paths[id] : NULL;
    if (!path) return;
    uint32_t number = (uint32_t)(wc->wr_id >> 1);
    if ((int32_t)(number - path->completed) > 0) path->completed = number;
    if (wc->status == IBV_WC_SUCCESS) path->reads_completed += wc->opcode == IBV_WC_RDMA_READ;
    if (wc->status != IBV_WC_SUCCESS)
        rdma_path_failed(path, wc->status);
    else if (path->bulk && path->lane)
        path_link_attention(path->lane->link);
}

static void request_came(rdma_device_t *device, const struct ibv_wc *wc)
{
    rdma_buffer_t *buffer = (rdma_buffer_t *)(uintptr_t)wc->wr_id;
    rdma_path_t *path = buffer->path ? buffer->path : rdma_path_find(device, wc->qp_num);
    bool kept = false;
    if (path && path->lane) {
        if (wc->status != IBV_WC_SUCCESS)
            rdma_path_failed(path, wc->status);
        else if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
            rdma_sleep_rung(&path->sleep);
        else if (!rdma_path_over(path) || (path->bulk && path->lane->stage == PATH_UP))
            kept = message_came(path, buffer,
                                wc->byte_len); /* of a write that is done, says the sender's device */
    }
    if (kept) return;
    if (!buffer->path || !rdma_path_over(path)) rdma_buffer_post(device, buffer);
}

static bool drain(rdma_device_t *device, unsigned rounds)
{
    struct ibv_wc wc[RDMA_POLL_BATCH];
    bool any = false;
    if (device->draining) return false; /* order: what was taken first is dealt with first */
    device->draining = true;
    for (unsigned round = 0; round < rounds; round++) {
        int n = ibv_poll_cq(device->cq, RDMA_POLL_BATCH, wc);
        for (int i = 0; i < n; i++) {
            if (wc[i].wr_id & 1)
                request_done(device->endpoint, &wc[i]);
            else
                request_came(device, &wc[i]);
        }
        any |= n > 0;
        if (n < RDMA_POLL_BATCH) {
            device->looked = device->notify;
            break;
        }
    }
    device->draining = false;
    return any;
}

bool rdma_device_drain(rdma_device_t *device)
{
    return drain(device, DRAIN_ROUNDS_MAX);
}

void rdma_device_drain_all(rdma_device_t *device)
{
    drain(device, (unsigned)device->cq->cqe / RDMA_POLL_BATCH + 1);
}

void rdma_device_arm(rdma_device_t *device)
{
    if (device->notify || device->gone) return;
    device->notify = ibv_req_notify_cq(device->cq, 0) == 0;
    device->looked = false;
}

bool rdma_device_heard(rdma_device_t *device)
{
    struct ibv_cq *cq;
    void *context;
    /* One, since it is asked for again only after it has been heard: no system call finds out that there are no more. */
    if (ibv_get_cq_event(device->channel, &cq, &context) != 0) return false;
    ibv_ack_cq_events(device->cq, 1);
    device->notify = device->looked = false;
    return true;
}

/* Every path over this port (0: over the device) is lost at once, rather than after all retries. */
static void paths_fail(rdma_device_t *device, int port, enum ibv_wc_status why)
{
    rdma_endpoint_t *ep = device->endpoint;
    for (unsigned i = 0; i < ep->paths_end; i++) {
        rdma_path_t *path = ep->paths[i];
        if (path && path->device == device && (port == 0 || path->place.gid.port == port))
            rdma_path_failed(path, why);
    }
}

void rdma_device_removed(rdma_device_t *device)
{
    int epoll = device->endpoint->base.epoll;
    if (device->gone) return;
    rf_log(RF_LOG_WARN, "rdma: %s is let go; links over it go on over another, or when it is opened again",
           device->name);
    rdma_device_drain_all(device); /* what came before is heard before */
    paths_fail(device, 0, IBV_WC_FATAL_ERR);
    device->gone = true; /* its descriptors may stay readable for ever */
    epoll_ctl(epoll, EPOLL_CTL_DEL, device->channel->fd, NULL);
    epoll_ctl(epoll, EPOLL_CTL_DEL, device->context->async_fd, NULL);
}

/* Paths from a GID that is no more, or another now: its peers hear nothing from there. */
static void gids_look(rdma_device_t *device)
{
    rdma_endpoint_t *ep = device->endpoint;
    for (unsigned i = 0; !device->iwarp && i < ep->paths_end; i++) {
        rdma_path_t *path = ep->paths[i];
        if (!path || path->device != device || rdma_path_over(path)) continue;
        const rdma_gid_t *gid = &path->place.gid;
        union ibv_gid now;
        if (ibv_query_gid(device->context, (uint8_t)gid->port, gid->index, &now) == 0 &&
            memcmp(now.raw, gid->gid, sizeof now.raw) == 0)
            continue;
        if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "rdma: GID %d of port %d of %s has changed: paths from it are made anew",
                   gid->index, gid->port, device->name);
        rdma_path_failed(path, IBV_WC_RESP_TIMEOUT_ERR);
    }
}

void rdma_device_async(rdma_device_t *device)
{
    struct ibv_async_event event;
    rdma_device_drain_all(device); /* what came before is heard before */
    for (unsigned n = 0; n < EVENTS_MAX && ibv_get_async_event(device->context, &event) == 0; n++) {
        int port = event.element.port_num;
        rdma_path_t *path = NULL;
        switch (event.event_type) {
        case IBV_EVENT_CQ_ERR: /* nothing more would be heard from it, or received: another opening has others */
        case IBV_EVENT_SRQ_ERR:
            rf_log(RF_LOG_ERROR, "rdma: %s: %s", device->name, ibv_event_type_str(event.event_type));
            rdma_device_removed(device);
            break;
        case IBV_EVENT_DEVICE_FATAL:
            rdma_device_removed(device);
            break;
        case IBV_EVENT_PORT_ERR:
            rf_log(RF_LOG_WARN, "rdma: port %d of %s is down", port, device->name);
            paths_fail(device, port, IBV_WC_RESP_TIMEOUT_ERR);
            break;
        case IBV_EVENT_GID_CHANGE:
            gids_look(device);
            break;
        case IBV_EVENT_PORT_ACTIVE:
            rf_log(RF_LOG_INFO, "rdma: port %d of %s is up", port, device->name);
            break;
        case IBV_EVENT_QP_FATAL:
        case IBV_EVENT_QP_REQ_ERR:
        case IBV_EVENT_QP_ACCESS_ERR:
            path = rdma_path_find(device, event.element.qp->qp_num);
            if (path) rdma_path_failed(path, IBV_WC_FATAL_ERR);
            break;
        default:
            break;
        }
        ibv_ack_async_event(&event);
    }
}
