/* Queue pairs: made, joined, put in error, destroyed. */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"

#include <errno.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>

/* --- finding ------------------------------------------------------------------------------------------------ */

static rdma_path_t **bucket_of(rdma_endpoint_t *ep, uint32_t qpn)
{
    return &ep->by_qpn[qpn % RDMA_QPN_BUCKETS];
}

rdma_path_t *rdma_path_find(const rdma_device_t *device, uint32_t qpn)
{
    rdma_path_t *path = *bucket_of(device->endpoint, qpn);
    while (path && (path->qpn != qpn || path->device != device)) path = path->qpn_next;
    return path;
}

static bool path_enter(rdma_endpoint_t *ep, rdma_path_t *path)
{
    for (unsigned id = 0; id < RDMA_PATHS_MAX; id++) {
        if (ep->paths[id]) continue;
        path->id = (uint16_t)id;
        ep->paths[id] = path;
        if (ep->paths_end <= id) ep->paths_end = id + 1;
        rdma_path_t **bucket = bucket_of(ep, path->qpn);
        path->qpn_next = *bucket;
        *bucket = path;
        return true;
    }
    return false;
}

static void path_leave(rdma_endpoint_t *ep, rdma_path_t *path)
{
    rdma_path_t **at = bucket_of(ep, path->qpn);
    while (*at && *at != path) at = &(*at)->qpn_next;
    if (*at) *at = path->qpn_next;
    ep->paths[path->id] = NULL;
    while (ep->paths_end > 0 && !ep->paths[ep->paths_end - 1]) ep->paths_end--;
}

/* --- making ------------------------------------------------------------------------------------------------- */

/* Of slots by SEND, where who finds no buffer waits; the queue's buffers lie in the domain that has nothing else. On iWARP such a one
 * loses its connection: there each path has its own, which its peer alone can use up. */
static bool shares(const rdma_path_t *path)
{
    return !path->bulk && !path->written && !path->device->iwarp;
}

/* Requests of its own receive queue, at most. */
static uint32_t receives_of(const rdma_path_t *path)
{
    if (path->bulk) return RDMA_BULK_BUFFERS;
    if (path->written) return rdma_words_of(path->device, RDMA_RING_WORDS);
    return shares(path) ? 0 : RDMA_MESSAGES + rdma_words_of(path->device, RDMA_WORDS);
}

/* With as many bytes inline as the device allows, of what is wanted. */
static struct ibv_qp *queue_pair_make(rdma_path_t *path)
{
    rdma_device_t *device = path->device;
    uint32_t least = path->bulk ? (uint32_t)sizeof(rdma_placed_t) : (uint32_t)sizeof(rf_slot_t);
    for (uint32_t inlined = path->inline_size > least ? path->inline_size : least;; inlined /= 2) {
        struct ibv_qp_init_attr attr = {
            .send_cq = device->cq,
            .recv_cq = device->cq,
            .srq = shares(path) ? device->srq : NULL,
            .cap = {.max_send_wr = path->depth,
                    .max_recv_wr = receives_of(path),
                    .max_send_sge = 2,
                    .max_recv_sge = 1,
                    .max_inline_data = inlined},
            .qp_type = IBV_QPT_RC,
        };
        struct ibv_qp *qp = ibv_create_qp(path->domain->pd, &attr);
        if (qp || inlined < sizeof(rf_slot_t)) {
            path->inline_max = attr.cap.max_inline_data;
            if (path->inline_size > path->inline_max) path->inline_size = path->inline_max;
            return qp;
        }
    }
}

static bool path_init(rdma_path_t *path)
{
    const rdma_options_t *options = &path->device->endpoint->options;
    unsigned access = path->bulk || path->written ? IBV_ACCESS_REMOTE_WRITE : 0;
    if (path->bulk) access |= IBV_ACCESS_REMOTE_READ; /* of regions; no other memory is open to it */
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .pkey_index = (uint16_t)options->pkey_index,
        .port_num = (uint8_t)path->place.gid.port,
        .qp_access_flags = access,
    };
    return ibv_modify_qp(path->qp, &attr,
                         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0;
}

/* What this queue pair, all its requests failing at once, may leave in the completion queue; the shared receive queue's
 * have room of their own there. */
static uint32_t completions_of(const rdma_path_t *path)
{
    uint32_t reads = path->bulk && path->device->iwarp ? RDMA_READS : 0; /* which are late */
    return path->depth + receives_of(path) + reads;
}

/* What it receives into, of its own. A word for each remote write outstanding comes only where there are such. */
static rf_err_t receives_make(rdma_path_t *path)
{
    if (shares(path)) return rdma_device_grow(path->device);
    if (path->bulk) return rdma_buffers_make(path, RDMA_BULK_BUFFERS, sizeof(rdma_placed_t));
    if (path->written) return rdma_buffers_make(path, receives_of(path), sizeof(rf_slot_t));
    uint32_t later = path->lane->link->bulk ? 0 : PATH_WRITES_MAX;
    return rdma_buffers_make(path, receives_of(path) - later, RDMA_BUFFER);
}

static void receives_post(const rdma_path_t *path, unsigned first)
{
    unsigned n = path->buffers ? path->buffers->n : 0;
    for (unsigned i = first; i < n; i++) rdma_buffer_post(path->device, &path->buffers->of[i]);
}

/* The link has remote writes from here on. */
static rf_err_t receives_widen(rdma_path_t *slots)
{
    bool small = slots && slots->buffers && !slots->written && !slots->buffers->next &&
                 slots->buffers->n < receives_of(slots);
    if (!small) return RF_OK;
    rf_err_t err = rdma_buffers_make(slots, receives_of(slots) - slots->buffers->n, RDMA_BUFFER);
    if (err == RF_OK) receives_post(slots, 0);
    return err;
}

static rf_err_t path_fill(rdma_path_t *path)
{
    rdma_device_t *device = path->device;
    rdma_endpoint_t *ep = device->endpoint;
    if (device->cq_promised + completions_of(path) > (uint32_t)device->cq->cqe) {
        if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR,
                   "rdma: as many queue pairs as the completion queue of %s has room for: more links of this "
                   "process would need another device",
                   device->name);
        return RF_ERR_LIMIT;
    }
    path->qp = queue_pair_make(path);
    if (!path->qp || !path_init(path)) {
        if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: %s gives no queue pair: %m; " RDMA_LIMITS, device->name);
        return RF_ERR_OS;
    }
    path->qpn = path->qp->qp_num;
    if (!path->bulk && path->inline_max < sizeof(rf_slot_t)) { /* words go inline */
        if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: %s takes %u bytes inline; a word needs %zu", device->name,
                   path->inline_max, sizeof(rf_slot_t));
        return RF_ERR_NOT_SUPPORTED;
    }
    rf_err_t err = receives_make(path);
    if (err == RF_OK && path->bulk && path->inline_max < sizeof(rdma_placed_t))
        err = rdma_memory_make(path->domain->pd, PATH_WRITES_MAX * sizeof(rdma_placed_t),
                               IBV_ACCESS_LOCAL_WRITE, &path->tails);
    if (err == RF_OK && path->written) err = rdma_ring_make(path);
    if (err == RF_OK && !path->bulk) err = rdma_link_attach(rdma_path_link(path), path);
    if (err == RF_OK && !path_enter(ep, path)) err = RF_ERR_LIMIT;
    if (err != RF_OK) return err;
    /* Last: what is posted is completed when the queue pair ends, and names buffers that must be there then. */
    if (path->bulk) path->held_back = rdma_bulk_waiting(rdma_path_link(path));
    receives_post(path, path->held_back);
    return RF_OK;
}

/* False: the device keeps it. */
static bool queue_pair_end(rdma_path_t *path)
{
    if (path->cm) rdma_destroy_id(path->cm);
    bool ended = !path->qp || ibv_destroy_qp(path->qp) == 0;
    path->cm = NULL;
    path->qp = NULL;
    return ended;
}

static void path_free(rdma_path_t *path)
{
    if (path->ring_mr) ibv_dereg_mr(path->ring_mr);
    queue_pair_end(path);
    rdma_buffers_free(path->buffers);
    rdma_memory_free(&path->retired);
    rdma_memory_free(&path->ring);
    rdma_memory_free(&path->tails);
    rdma_domain_release(path->domain);
    free(path);
}

static void path_limits(rdma_path_t *path)
{
    const rdma_device_t *device = path->device;
    const rdma_options_t *options = &device->endpoint->options;
    uint32_t depth = !path->bulk ? (uint32_t)options->depth : RDMA_BULK_DEPTH;
    uint32_t most = (uint32_t)device->attr.max_qp_wr;
    path->depth = depth < most ? depth : most;
    path->inline_size = (uint32_t)options->inline_size;
    path->signal_every = (uint32_t)options->signal_every;
    if (path->signal_every > path->depth / 2) path->signal_every = path->depth / 2;
}

rf_err_t rdma_path_make(path_lane_t *lane, const rdma_place_t *place, rdma_path_t **out)
{
    rdma_link_t *link = rdma_link_of(lane->link);
    bool bulk = lane->number == PATH_LANE_BULK;
    rdma_device_t *device = place->device;
    rdma_domain_t *domain = device->domain;
    const char *why;
    if (bulk && rdma_bulk_waiting(link) > rdma_bulk_may_wait(device)) return RF_ERR_AGAIN;
    if (device->endpoint->destroy_ns == 0) rdma_paths_bury(device->endpoint, 0);
    bool written = !bulk && rdma_placement(device->endpoint->options.mode, device->driver, device->iwarp,
                                           &why) == RDMA_MODE_WRITE;
    rf_err_t err = bulk ? receives_widen(link->paths[PATH_LANE_SLOTS]) : RF_OK;
    if (err == RF_OK && (bulk || written)) {
        err = rdma_link_enter(link, device);
        domain = link->domain;
    }
    if (err != RF_OK) return err;
    rdma_path_t *path = calloc(1, sizeof *path);
    if (!path) return RF_ERR_NO_MEMORY;
    domain->holders++;
    path->device = device;
    path->domain = domain;
    path->lane = lane;
    path->bulk = bulk;
    path->written = written;
    path->place = *place;
    path_limits(path);
    rf_random_secret(&path->psn, sizeof path->psn);
    path->psn &= RDMA_PSN_MASK;
    err = path_fill(path);
    if (err != RF_OK) {
        path_free(path);
        return err;
    }
    link->device = device;
    device->n_paths++;
    device->n_sharing += shares(path);
    device->cq_promised += completions_of(path);
    link->paths[lane->number] = path;
    *out = path;
    return RF_OK;
}

uint8_t rdma_reads_of(const rdma_device_t *device)
{
    int most = device->attr.max_qp_rd_atom < device->attr.max_qp_init_rd_atom
                   ? device->attr.max_qp_rd_atom
                   : device->attr.max_qp_init_rd_atom;
    return most < 1 ? 1 : most < RDMA_READS ? (uint8_t)most : RDMA_READS;
}

void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out)
{
    out->path.kind = path->device->iwarp;
    out->qpn = path->qp->qp_num;
    out->psn = path->psn;
    out->lid = path->place.lid;
    out->mtu = path->place.mtu;
    out->ethernet = path->place.ethernet;
    out->messages = RDMA_MESSAGES;
    out->slots_max = path->lane->link->slots_max;
    out->reads = rdma_reads_of(path->device);
    memcpy(out->gid, path->place.gid.gid, sizeof out->gid);
    rdma_ring_info(path, out);
}

rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer)
{
    const rdma_options_t *options = &path->device->endpoint->options;
    uint8_t reads = rdma_reads_of(path->device);
    path->peer = *peer;
    if (path->device->iwarp) {
        rf_err_t err = path->lane->link->dialer ? rdma_cm_dial(path) : RF_OK;
        return path->lane->link->dialer && err == RF_OK ? RF_ERR_AGAIN : err;
    }
    struct ibv_qp_attr receive = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = peer->mtu < path->place.mtu ? (enum ibv_mtu)peer->mtu : (enum ibv_mtu)path->place.mtu,
        .dest_qp_num = peer->qpn,
        .rq_psn = peer->psn,
        .max_dest_rd_atomic = reads,
        .min_rnr_timer = RDMA_RNR_TIMER,
        .ah_attr = {.dlid = peer->lid,
                    .sl = (uint8_t)options->service_level,
                    .is_global = path->place.ethernet,
                    .port_num = (uint8_t)path->place.gid.port,
                    .grh = {.sgid_index = (uint8_t)path->place.gid.index,
                            .hop_limit = RDMA_HOP_LIMIT,
                            .traffic_class = (uint8_t)options->traffic_class}},
    };
    memcpy(receive.ah_attr.grh.dgid.raw, peer->gid, sizeof peer->gid);
    struct ibv_qp_attr send = {
        .qp_state = IBV_QPS_RTS,
        .timeout = RDMA_ACK_TIMEOUT,
        .retry_cnt = RDMA_RETRIES,
        .rnr_retry = RDMA_RNR_FOR_EVER,
        .sq_psn = path->psn,
        .max_rd_atomic = peer->reads < reads ? (uint8_t)peer->reads : reads,
    };
    int failed = ibv_modify_qp(path->qp, &receive,
                               IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                   IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (!failed)
        failed = ibv_modify_qp(path->qp, &send,
                               IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                   IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    if (failed) {
        errno = failed > 0 ? failed : errno;
        if (rf_log_once_per(&path->device->endpoint->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(
                RF_LOG_WARN,
                "rdma: no path from GID %d of %s: %m; is the peer's GID reachable from there? (gid_index=)",
                path->place.gid.index, path->device->name);
        return RF_ERR_OS;
    }
    return RF_OK;
}

/* --- ending ------------------------------------------------------------------------------------------------- */

bool rdma_path_stop(const rdma_path_t *path)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    struct ibv_qp_init_attr init;
    if (ibv_modify_qp(path->qp, &attr, IBV_QP_STATE) != 0) return false;
    if (path->device->iwarp) return true; /* soft-iWARP's answer to a query leaves the state out */
    attr.qp_state = IBV_QPS_RESET;
    return ibv_query_qp(path->qp, &attr, IBV_QP_STATE, &init) == 0 && attr.qp_state == IBV_QPS_ERR;
}

void rdma_path_kill(rdma_path_t *path)
{
    if (!path || !path->lane) return;
    rdma_endpoint_t *ep = path->device->endpoint;
    rdma_link_t *link = rdma_path_link(path);
    rdma_cm_over(path);
    path->stopped = rdma_path_stop(path);
    if (path->bulk) rdma_device_drain_all(path->device); /* what came until then was said to be there */
    if (path->ring_mr) ibv_dereg_mr(path->ring_mr);
    path->ring_mr = NULL;
    rdma_memory_free(&path->retired);
    if (path->bulk) rdma_bulk_detach(link);
    link->paths[path->lane->number] = NULL;
    path->lane = NULL;
    path->destroy_ns = path->stopped ? rf_clock_ns() + RDMA_DYING_NS : 0;
    if (path->destroy_ns < ep->destroy_ns) ep->destroy_ns = path->destroy_ns;
    path_endpoint_timer(&ep->base, path->destroy_ns);
}

bool rdma_path_destroy(rdma_path_t *path)
{
    rdma_device_t *device = path->device;
    /* A driver may drop what is left of it, and shared buffers with that. */
    rdma_device_drain_all(device);
    bool ended = queue_pair_end(path) && path->stopped;
    /* What it completed names buffers that end here. */
    rdma_device_drain_all(device);
    path_leave(device->endpoint, path);
    device->n_paths--;
    device->n_sharing -= shares(path);
    device->cq_promised -= completions_of(path);
    path_free(path);
    return ended;
}

void rdma_paths_bury(rdma_endpoint_t *ep, uint64_t now_ns)
{
    ep->destroy_ns = RF_NEVER;
    for (unsigned i = 0; i < ep->paths_end; i++) {
        rdma_path_t *path = ep->paths[i];
        if (!path || path->lane) continue;
        if (path->destroy_ns <= now_ns)
            rdma_path_destroy(path);
        else if (path->destroy_ns < ep->destroy_ns)
            ep->destroy_ns = path->destroy_ns;
    }
}

/* --- sending ------------------------------------------------------------------------------------------------ */

void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        path->posted++;
        path->reads_posted += requests[i].opcode == IBV_WR_RDMA_READ;
        path->unsignalled++;
        if (path->unsignalled >= path->signal_every || (requests[i].send_flags & IBV_SEND_SIGNALED)) {
            requests[i].send_flags |= IBV_SEND_SIGNALED;
            path->unsignalled = 0;
        }
        requests[i].wr_id = (uint64_t)path->id << 48 | (uint64_t)path->posted << 1 | 1;
        requests[i].next = i + 1 < n ? &requests[i + 1] : NULL;
    }
    struct ibv_send_wr *bad;
    if (ibv_post_send(path->qp, requests, &bad) != 0) rdma_path_broken(path);
}

void rdma_path_failed(rdma_path_t *path, enum ibv_wc_status why)
{
    if (rdma_path_over(path)) return;
    path->why = why;
    path_lane_failed(path->lane);
}

void rdma_path_broken(rdma_path_t *path)
{
    rdma_path_failed(path, IBV_WC_GENERAL_ERR);
}

bool rdma_path_say(rdma_path_t *path, const path_word_t *word)
{
    if (rdma_path_room(path) == 0) return false;
    rf_slot_t slot = {.control = rf_control_make(RDMA_WORD, sizeof *word, false, 0)};
    memcpy(slot.payload, word, sizeof *word);
    struct ibv_sge part = {.addr = (uintptr_t)&slot, .length = sizeof slot};
    struct ibv_send_wr request = {
        .sg_list = &part, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_INLINE};
    rdma_path_post(path, &request, 1);
    return true;
}
