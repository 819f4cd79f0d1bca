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

rdma_path_t *rdma_path_find(rdma_endpoint_t *ep, uint32_t qpn)
{
    rdma_path_t *path = *bucket_of(ep, qpn);
    while (path && path->qpn != qpn) path = path->qpn_next;
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

/* With as many bytes inline as the device allows, of what is wanted. */
static struct ibv_qp *queue_pair_make(rdma_path_t *path)
{
    rdma_device_t *device = path->device;
    bool slots = path->lane == RDMA_LANE_SLOTS;
    bool shares =
        slots &&
        !path->written; /* a shared receive queue's buffers lie in the domain that has nothing else */
    for (uint32_t inlined = RDMA_INLINE;; inlined /= 2) {
        struct ibv_qp_init_attr attr = {
            .send_cq = device->cq,
            .recv_cq = device->cq,
            .srq = shares ? device->srq : NULL,
            .cap = {.max_send_wr = slots ? RDMA_SEND_DEPTH : RDMA_BULK_DEPTH,
                    .max_recv_wr = shares  ? 0
                                   : slots ? RDMA_RING_WORDS
                                           : RDMA_BULK_BUFFERS,
                    .max_send_sge = 2,
                    .max_recv_sge = 1,
                    .max_inline_data = inlined},
            .qp_type = IBV_QPT_RC,
        };
        path->depth = attr.cap.max_send_wr;
        struct ibv_qp *qp = ibv_create_qp(path->domain->pd, &attr);
        if (qp || inlined < sizeof(rf_slot_t)) {
            path->inline_max = attr.cap.max_inline_data;
            return qp;
        }
    }
}

static bool path_init(rdma_path_t *path)
{
    const rdma_options_t *options = &path->device->endpoint->options;
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .pkey_index = (uint16_t)options->pkey_index,
        .port_num = (uint8_t)path->place.gid.port,
        .qp_access_flags = path->lane == RDMA_LANE_BULK || path->written ? IBV_ACCESS_REMOTE_WRITE : 0,
    };
    return ibv_modify_qp(path->qp, &attr,
                         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0;
}

/* What this queue pair, all its requests failing at once, may leave in the completion queue; the shared receive queue's
 * have room of their own there. */
static uint32_t completions_of(const rdma_path_t *path)
{
    if (path->lane == RDMA_LANE_BULK) return RDMA_BULK_DEPTH + RDMA_BULK_BUFFERS;
    return RDMA_SEND_DEPTH + (path->written ? RDMA_RING_WORDS : 0);
}

static rf_err_t path_fill(rdma_path_t *path)
{
    rdma_device_t *device = path->device;
    rdma_endpoint_t *ep = device->endpoint;
    if (device->cq_promised + completions_of(path) > (uint32_t)device->cq->cqe) {
        if (rf_log_once_per(&ep->log_path_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: as many queue pairs as the completion queue of %s has room for",
                   device->name);
        return RF_ERR_LIMIT;
    }
    if (path->lane == RDMA_LANE_SLOTS && !path->written) {
        rf_err_t err = rdma_device_grow(device);
        if (err != RF_OK) return err;
    }
    path->qp = queue_pair_make(path);
    if (!path->qp || !path_init(path)) {
        if (rf_log_once_per(&ep->log_path_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: %s gives no queue pair: %m", device->name);
        return RF_ERR_OS;
    }
    path->qpn = path->qp->qp_num;
    if (path->lane == RDMA_LANE_SLOTS && path->inline_max < sizeof(rf_slot_t)) { /* words go inline */
        if (rf_log_once_per(&ep->log_path_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: %s takes %u bytes inline; a word needs %zu", device->name,
                   path->inline_max, sizeof(rf_slot_t));
        return RF_ERR_NOT_SUPPORTED;
    }
    rf_err_t err = RF_OK;
    if (path->lane == RDMA_LANE_BULK)
        err = rdma_buffers_make(path, RDMA_BULK_BUFFERS, sizeof(rdma_placed_t));
    else if (path->written)
        err = rdma_buffers_make(path, RDMA_RING_WORDS, sizeof(rf_slot_t));
    for (unsigned i = 0; path->buffers && i < path->buffers->n; i++)
        rdma_buffer_post(device, &path->buffers->of[i]);
    if (err == RF_OK && path->lane == RDMA_LANE_BULK && path->inline_max < sizeof(rdma_placed_t))
        err = rdma_memory_make(path->domain->pd, RDMA_WRITES_MAX * sizeof(rdma_placed_t),
                               IBV_ACCESS_LOCAL_WRITE, &path->tails);
    if (err == RF_OK && path->written) err = rdma_ring_make(path);
    if (err == RF_OK && path->lane == RDMA_LANE_SLOTS) err = rdma_link_attach(path->link, path);
    if (err != RF_OK) return err;
    return path_enter(ep, path) ? RF_OK : RF_ERR_LIMIT;
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

rf_err_t rdma_path_make(rdma_link_t *link, unsigned lane, uint32_t generation, const rdma_place_t *place,
                        rdma_path_t **out)
{
    rdma_device_t *device = place->device;
    rdma_domain_t *domain = device->domain;
    const char *why;
    bool written = lane == RDMA_LANE_SLOTS && rdma_placement(device->endpoint->options.mode, device->driver,
                                                             device->iwarp, &why) == RDMA_MODE_WRITE;
    if (lane == RDMA_LANE_BULK || written) {
        rf_err_t err = link->domain ? RF_OK : rdma_domain_make(device, &link->domain);
        if (err != RF_OK) return err;
        domain = link->domain;
        if (domain->pd->context != device->context)
            return RF_ERR_AGAIN; /* the regions are the other device's */
    }
    rdma_path_t *path = calloc(1, sizeof *path);
    if (!path) return RF_ERR_NO_MEMORY;
    domain->holders++;
    path->device = device;
    path->domain = domain;
    path->link = link;
    path->lane = lane;
    path->written = written;
    path->generation = generation;
    path->place = *place;
    rf_random_secret(&path->psn, sizeof path->psn);
    path->psn &= RDMA_PSN_MASK;
    rf_err_t err = path_fill(path);
    if (err != RF_OK) {
        path_free(path);
        return err;
    }
    link->device = device;
    device->n_paths++;
    device->cq_promised += completions_of(path);
    link->lanes[lane].path = path;
    *out = path;
    return RF_OK;
}

void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out)
{
    const rdma_link_t *link = path->link;
    *out = (rdma_path_info_t){
        .magic = RDMA_MAGIC,
        .format = RDMA_FORMAT,
        .lane = (uint8_t)path->lane,
        .iwarp = path->device->iwarp,
        .generation = path->generation,
        .qpn = path->qp->qp_num,
        .psn = path->psn,
        .lid = path->place.lid,
        .mtu = path->place.mtu,
        .ethernet = path->place.ethernet,
        .messages = RDMA_MESSAGES,
        .slots_max = link->in_max,
        .accepted = path->lane == RDMA_LANE_SLOTS ? link->accepted : link->bulk->placed,
    };
    memcpy(out->gid, path->place.gid.gid, sizeof out->gid);
    rdma_ring_info(path, out);
}

rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer)
{
    const rdma_options_t *options = &path->device->endpoint->options;
    path->peer = *peer;
    if (path->device->iwarp) return path->stage == RDMA_STAGE_OFFERED ? rdma_cm_dial(path) : RF_OK;
    struct ibv_qp_attr receive = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = peer->mtu < path->place.mtu ? (enum ibv_mtu)peer->mtu : (enum ibv_mtu)path->place.mtu,
        .dest_qp_num = peer->qpn,
        .rq_psn = peer->psn,
        .max_dest_rd_atomic = 1,
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
        .max_rd_atomic = 1,
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
        if (rf_log_once_per(&path->device->endpoint->log_path_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(
                RF_LOG_WARN,
                "rdma: no path from GID %d of %s: %m; is the peer's GID reachable from there? (gid_index=)",
                path->place.gid.index, path->device->name);
        return RF_ERR_OS;
    }
    return RF_OK;
}

/* --- ending ------------------------------------------------------------------------------------------------- */

void rdma_path_kill(rdma_path_t *path)
{
    if (!path || path->stage == RDMA_STAGE_DYING) return;
    rdma_link_t *link = path->link;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    ibv_modify_qp(path->qp, &attr, IBV_QP_STATE);
    if (path->ring_mr) ibv_dereg_mr(path->ring_mr);
    path->ring_mr = NULL;
    rdma_memory_free(&path->retired);
    if (path->lane == RDMA_LANE_BULK) rdma_bulk_detach(link);
    path->stage = RDMA_STAGE_DYING;
    path->destroy_ns = rf_clock_ns() + RDMA_DYING_NS;
    path->link = NULL;
    link->lanes[path->lane].path = NULL;
    rdma_timer(path->device->endpoint, path->destroy_ns);
}

rf_err_t rdma_path_confirm(const rdma_path_t *path)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    struct ibv_qp_init_attr init;
    if (ibv_modify_qp(path->qp, &attr, IBV_QP_STATE) != 0) return RF_ERR_OS;
    if (ibv_query_qp(path->qp, &attr, IBV_QP_STATE, &init) != 0) return RF_ERR_OS;
    return attr.qp_state == IBV_QPS_ERR ? RF_OK : RF_ERR_OS;
}

bool rdma_path_destroy(rdma_path_t *path)
{
    rdma_device_t *device = path->device;
    /* A driver may drop what is left of it, and shared buffers with that. */
    rdma_device_drain_all(device);
    bool ended = queue_pair_end(path);
    /* What it completed names buffers that end here. */
    rdma_device_drain_all(device);
    path_leave(device->endpoint, path);
    device->n_paths--;
    device->cq_promised -= completions_of(path);
    path_free(path);
    return ended;
}

/* --- sending ------------------------------------------------------------------------------------------------ */

void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        path->posted++;
        path->unsignalled++;
        if (path->unsignalled >= RDMA_SIGNAL_EVERY || (requests[i].send_flags & IBV_SEND_SIGNALED)) {
            requests[i].send_flags |= IBV_SEND_SIGNALED;
            path->unsignalled = 0;
        }
        requests[i].wr_id = (uint64_t)path->id << 48 | (uint64_t)path->posted << 1 | 1;
        requests[i].next = i + 1 < n ? &requests[i + 1] : NULL;
    }
    struct ibv_send_wr *bad;
    if (ibv_post_send(path->qp, requests, &bad) != 0) rdma_path_broken(path);
}

void rdma_path_broken(rdma_path_t *path)
{
    if (path->failed || path->stage == RDMA_STAGE_DYING) return;
    path->failed = true;
    path->why = IBV_WC_GENERAL_ERR;
    rdma_attention(path->link);
}

bool rdma_path_say(rdma_path_t *path, const rdma_word_t *word)
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
