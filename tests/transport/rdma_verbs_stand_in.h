/* What stands in for the verbs in tests of devices and queue pairs of the RDMA medium, and an endpoint with one device; everything else
 * is the medium's own. Included by one file of each test, after cmocka.h. */
#ifndef RF_TESTS_TRANSPORT_RDMA_VERBS_STAND_IN_H
#define RF_TESTS_TRANSPORT_RDMA_VERBS_STAND_IN_H

#include "transport/rdma/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#undef ibv_reg_mr

#define COMPLETIONS 5000 /* more than one look takes */

/* --- the verbs ---------------------------------------------------------------------------------------------- */

static struct ibv_context context;
static struct ibv_device the_device;
static struct ibv_cq cq;
static struct ibv_pd pd = {.context = &context};
static struct ibv_mr mr;
static struct ibv_qp qp = {.context = &context, .qp_num = 7};
static struct ibv_srq srq = {.context = &context};
static struct ibv_comp_channel channel;
static unsigned closed, made, destroyed, events_left, queued, inline_given;
static enum ibv_qp_state state_said = IBV_QPS_ERR;
static int query_fails, destroy_fails, dereg_fails;
static unsigned deregistered;
static bool flushes; /* a queue pair that ends completes all at once */
static uint64_t flushed_id;
static struct ibv_wc came; /* a message; no wr_id: none */
static struct ibv_async_event event_next = {.event_type = IBV_EVENT_DEVICE_FATAL};
static union ibv_gid gid_now;
static int gid_found;                 /* 0: there is one */
static unsigned registers = UINT_MAX; /* so many more registrations */
static unsigned registers_later;      /* ... when so many have been refused */
static const void *registered_at;     /* the last */
static unsigned domains;
static unsigned receives,
    shared_receives; /* requests posted to queue pairs' own queues, and to the shared one */
static const struct ibv_srq *shared_by; /* the last queue pair that was made */

static inline int poll_cq(struct ibv_cq *queue, int max, struct ibv_wc *wc)
{
    (void)queue;
    int n = 0;
    if (came.wr_id != 0) {
        wc[n++] = came;
        came.wr_id = 0;
    }
    for (; n < max && queued > 0; n++, queued--)
        wc[n] = (struct ibv_wc){.wr_id = flushed_id, .status = IBV_WC_WR_FLUSH_ERR, .qp_num = qp.qp_num};
    return n;
}

static inline int post_recv(struct ibv_qp *pair, struct ibv_recv_wr *request, struct ibv_recv_wr **bad)
{
    (void)pair, (void)request, (void)bad;
    receives++;
    return 0;
}

static inline int post_srq_recv(struct ibv_srq *queue, struct ibv_recv_wr *request, struct ibv_recv_wr **bad)
{
    (void)queue, (void)request, (void)bad;
    shared_receives++;
    return 0;
}

int ibv_get_async_event(struct ibv_context *of, struct ibv_async_event *event)
{
    (void)of;
    if (events_left == 0) return -1;
    events_left--;
    *event = event_next;
    return 0;
}

int ibv_query_gid(struct ibv_context *of, uint8_t port, int index, union ibv_gid *gid)
{
    (void)of, (void)port, (void)index;
    *gid = gid_now;
    return gid_found;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    (void)event;
}

int ibv_close_device(struct ibv_context *of)
{
    (void)of;
    closed++;
    return 0;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *of, void *at, size_t size, int access)
{
    (void)of, (void)size, (void)access;
    registered_at = at;
    if (registers == 0 || registers_later > 0) {
        registers_later -= registers_later > 0;
        errno = ENOMEM;
        return NULL;
    }
    registers--;
    return &mr;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *of, void *at, size_t size, uint64_t iova, unsigned access)
{
    (void)iova;
    return ibv_reg_mr(of, at, size, (int)access);
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *of)
{
    pd.context = of;
    domains++;
    return &pd;
}

int ibv_dealloc_pd(struct ibv_pd *of)
{
    (void)of;
    domains--;
    return 0;
}

int ibv_dereg_mr(struct ibv_mr *of)
{
    (void)of;
    deregistered++;
    return dereg_fails;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *of, struct ibv_qp_init_attr *attr)
{
    (void)of;
    made++;
    shared_by = attr->srq;
    attr->cap.max_inline_data = inline_given;
    return &qp;
}

int ibv_modify_qp(struct ibv_qp *pair, struct ibv_qp_attr *attr, int mask)
{
    (void)pair, (void)attr, (void)mask;
    return 0;
}

int ibv_query_qp(struct ibv_qp *pair, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
    (void)pair, (void)mask, (void)init;
    attr->qp_state = state_said;
    return query_fails;
}

int ibv_destroy_qp(struct ibv_qp *pair)
{
    (void)pair;
    destroyed++;
    if (flushes) queued += COMPLETIONS;
    return destroy_fails;
}

/* --- an endpoint with one device ---------------------------------------------------------------------------- */

static rdma_endpoint_t *endpoint;
static rdma_domain_t domain = {.pd = &pd, .holders = 100};

static inline rdma_device_t *device_new(void)
{
    endpoint = calloc(1, sizeof *endpoint);
    rdma_device_t *device = calloc(1, sizeof *device);
    assert_true(endpoint && device);
    endpoint->base.epoll = epoll_create1(EPOLL_CLOEXEC);
    endpoint->base.medium = &rdma_medium;
    endpoint->base.kick = endpoint->look = -1;
    endpoint->base.timer_ns = endpoint->destroy_ns = RF_NEVER;
    endpoint->base.deadline_ns = PATH_DEADLINE_NS_DEFAULT;
    context.ops.poll_cq = poll_cq;
    context.ops.post_recv = post_recv;
    context.ops.post_srq_recv = post_srq_recv;
    context.device = &the_device;
    cq = (struct ibv_cq){.context = &context, .cqe = RDMA_CQ_ENTRIES};
    *device = (rdma_device_t){.name = "stand0",
                              .driver = "other",
                              .endpoint = endpoint,
                              .context = &context,
                              .domain = &domain,
                              .channel = &channel,
                              .cq = &cq,
                              .srq = &srq};
    endpoint->devices[endpoint->n_devices++] = device;
    closed = made = destroyed = queued = events_left = domains = receives = shared_receives = 0;
    endpoint->uevents = -1;
    inline_given = 256;
    flushes = false;
    return device;
}

static inline void endpoint_over(void)
{
    close(endpoint->base.epoll);
    free(endpoint);
}

/* With the endpoint, when its links and paths are over. */
static inline void device_over(rdma_device_t *device)
{
    rdma_buffers_free(device->buffers);
    free(device);
    endpoint_over();
}

static inline rdma_link_t *link_new(void)
{
    path_link_t *link = path_link_new(&endpoint->base, &(rf_link_params_t){.slots = 64, .slots_max = 64});
    assert_non_null(link);
    return rdma_link_of(link);
}

static inline void link_over(rdma_link_t *link)
{
    path_endpoint_enter(&endpoint->base);
    path_link_bury(&link->base);
    path_endpoint_leave(&endpoint->base);
}

/* --- paths over it -------------------------------------------------------------------------------------------- */

static inline rdma_path_t *path_new(rdma_device_t *device, rdma_link_t *link, rf_err_t *err)
{
    rdma_place_t place = {.device = device, .mtu = IBV_MTU_1024, .ethernet = true};
    rdma_path_t *path = NULL;
    *err = rdma_path_make(&link->base.lanes[PATH_LANE_SLOTS], &place, &path);
    return path;
}

static inline rdma_path_t *bulk_new(rdma_device_t *device, rdma_link_t *link, rf_err_t *err)
{
    rdma_place_t place = {.device = device, .mtu = IBV_MTU_1024, .ethernet = true};
    rdma_path_t *path = NULL;
    path_lane_t *lane = &link->base.lanes[PATH_LANE_BULK];
    assert_int_equal(path_bulk_need(&link->base), RF_OK);
    *err = rdma_path_make(lane, &place, &path);
    if (path) lane->stage = PATH_UP;
    return path;
}

static inline void paths_end(void)
{
    for (unsigned i = endpoint->paths_end; i > 0; i--) {
        if (endpoint->paths[i - 1]) rdma_path_destroy(endpoint->paths[i - 1]);
    }
}

#endif
