/* Devices and queue pairs of the RDMA medium as a device seldom shows them: one that is pulled out, and what links have there; one
 * that completes more than is looked at at once; one that takes too little inline. The verbs are stood in for here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transport/rdma/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
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
static int query_fails;
static bool flushes; /* a queue pair that ends completes all at once */
static uint64_t flushed_id;
static struct ibv_wc came; /* a message; no wr_id: none */
static struct ibv_async_event event_next = {.event_type = IBV_EVENT_DEVICE_FATAL};
static union ibv_gid gid_now;
static int gid_found;                 /* 0: there is one */
static unsigned registers = UINT_MAX; /* so many more registrations */
static const void *registered_at;     /* the last */
static unsigned domains;

static int poll_cq(struct ibv_cq *queue, int max, struct ibv_wc *wc)
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

static int post_recv(struct ibv_qp *pair, struct ibv_recv_wr *request, struct ibv_recv_wr **bad)
{
    (void)pair, (void)request, (void)bad;
    return 0;
}

static int post_srq_recv(struct ibv_srq *queue, struct ibv_recv_wr *request, struct ibv_recv_wr **bad)
{
    (void)queue, (void)request, (void)bad;
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
    if (registers == 0) return NULL;
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
    return 0;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *of, struct ibv_qp_init_attr *attr)
{
    (void)of;
    made++;
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
    return 0;
}

/* --- an endpoint with one device ---------------------------------------------------------------------------- */

static rdma_endpoint_t *endpoint;
static rdma_domain_t domain = {.pd = &pd, .holders = 100};

static rdma_device_t *device_new(void)
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
                              .cq = &cq,
                              .srq = &srq};
    endpoint->devices[endpoint->n_devices++] = device;
    closed = made = destroyed = queued = events_left = domains = 0;
    endpoint->uevents = -1;
    inline_given = 256;
    flushes = false;
    return device;
}

static void endpoint_over(void)
{
    close(endpoint->base.epoll);
    free(endpoint);
}

static rdma_link_t *link_new(void)
{
    path_link_t *link = path_link_new(&endpoint->base, &(rf_link_params_t){.slots = 64, .slots_max = 64});
    assert_non_null(link);
    return rdma_link_of(link);
}

static void link_over(rdma_link_t *link)
{
    path_endpoint_enter(&endpoint->base);
    path_link_bury(&link->base);
    path_endpoint_leave(&endpoint->base);
}

/* --- tests -------------------------------------------------------------------------------------------------- */

/* A device whose descriptors say for ever that there is something, with a link that has a region there. */
static rdma_link_t *device_and_region(rdma_device_t **device, int fds[2], rf_region_t **region)
{
    *device = device_new();
    fds[0] = eventfd(1, EFD_CLOEXEC);
    fds[1] = eventfd(1, EFD_CLOEXEC);
    channel.fd = fds[0];
    context.async_fd = fds[1];
    (*device)->channel = &channel;
    for (unsigned i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = *device};
        assert_int_equal(epoll_ctl(endpoint->base.epoll, EPOLL_CTL_ADD, fds[i], &event), 0);
    }
    rdma_link_t *link = link_new();
    link->device = *device;
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, region), RF_OK);
    assert_int_equal(domains, 1);
    return link;
}

static void removed_by_its_driver(rdma_device_t *device)
{
    events_left = 1;
    rdma_device_async(device);
}

static void removed_says_the_kernel(rdma_device_t *device)
{
    static const char *const others[] = {"add@/devices/virtual/infiniband_verbs/uverbs7",
                                         "remove@/devices/virtual/infiniband_verbs/uverbs70",
                                         "remove@/devices/virtual/infiniband_mad/uverbs7",
                                         "remove@/devices/virtual/net/uverbs7",
                                         "remove@",
                                         ""};
    static const char message[] = "remove@/devices/virtual/infiniband_verbs/uverbs7\0ACTION=remove";
    snprintf(the_device.dev_name, sizeof the_device.dev_name, "uverbs7");
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        rdma_removal_take(endpoint, others[i], strlen(others[i]) + 1);
    rdma_removal_take(endpoint, message, strlen(message)); /* with no end */
    assert_false(device->gone);
    rdma_removal_take(endpoint, message, sizeof message);
    rdma_removal_take(endpoint, message, sizeof message); /* that it has gone is heard once */
}

static void removed_says_sys(rdma_device_t *device)
{
    snprintf(the_device.dev_path, sizeof the_device.dev_path, "/");
    rdma_removal_look(endpoint);
    assert_false(device->gone);
    snprintf(the_device.dev_path, sizeof the_device.dev_path, "/nowhere");
    rdma_removal_look(endpoint);
}

/* Whoever says it: its descriptors leave the set, links leave it with what they have there, and it is closed; but not before the
 * last path has ended, nor while a link waits to be freed. A region stays. */
static void a_device_that_is_pulled_out_is_let_go(void **state)
{
    (void)state;
    void (*const ways[])(rdma_device_t *) = {removed_by_its_driver, removed_says_the_kernel,
                                             removed_says_sys};
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        rdma_device_t *device;
        rf_region_t *region, *none;
        int fds[2];
        rdma_link_t *link = device_and_region(&device, fds, &region);
        memcpy(region->base, "kept", sizeof "kept");
        struct epoll_event ready[4];
        assert_int_equal(epoll_wait(endpoint->base.epoll, ready, 4, 0), 2);
        device->n_paths = 1;
        ways[way](device);
        assert_true(device->gone);
        assert_int_equal(epoll_wait(endpoint->base.epoll, ready, 4, 0), 0);
        assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &none), RF_ERR_AGAIN);
        assert_false(rdma_removal_sweep(endpoint));
        assert_int_equal(endpoint->n_devices, 1);
        device->n_paths = 0;
        device->channel = NULL;
        device->cq = NULL;
        device->srq = NULL;
        path_link_t other;
        endpoint->base.graveyard = &other;
        assert_true(rdma_removal_sweep(endpoint));
        assert_int_equal(closed, 0);
        endpoint->base.graveyard = NULL;
        assert_false(rdma_removal_sweep(endpoint));
        assert_int_equal(endpoint->n_devices, 0);
        assert_int_equal(closed, 1);
        assert_int_equal(domains, 0);
        assert_null(link->device);
        assert_null(link->domain);
        assert_string_equal((const char *)region->base, "kept");
        assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &none), RF_ERR_AGAIN);
        link_over(link);
        close(fds[0]);
        close(fds[1]);
        endpoint_over();
    }
}

/* A region is registered at the device that the next path goes over, not while paths over the one before are ending. */
static void regions_follow_their_link(void **state)
{
    (void)state;
    rdma_device_t *device;
    rf_region_t *region, *left;
    int fds[2];
    rdma_link_t *link = device_and_region(&device, fds, &region);
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &left), RF_OK);
    link->base.control = &link->base.head; /* there is one, and it takes nothing */
    rdma_region_t *first = &rdma_bulk_of(link)->regions[0], *second = first + 1;
    second->gone = true;
    struct ibv_context other = {.device = &the_device};
    rdma_device_t second_device = *device;
    second_device.context = &other;
    link->domain->holders = 2;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_ERR_AGAIN);
    link->domain->holders = 1;
    registered_at = NULL;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_OK);
    assert_ptr_equal(registered_at, region->base);
    assert_int_equal(domains, 1);
    assert_true(first->moved_due && !second->moved_due);
    assert_null(second->memory.mr);
    first->moved_due = false;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_OK); /* it is there */
    assert_false(first->moved_due);
    first->moved_due = true; /* it could not be said, and that device is removed, too */
    rdma_link_leave(link);
    assert_true(rdma_regions_push(link));
    second->gone = false;
    registers = 1; /* where no more memory may be locked it has none, and tries again */
    assert_int_equal(rdma_link_enter(link, &second_device), RF_ERR_NO_MEMORY);
    assert_true(rdma_regions_push(link));
    assert_int_equal(domains, 0);
    assert_null(link->domain);
    registers = UINT_MAX;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_OK);
    assert_true(first->moved_due && second->moved_due);
    link->base.control = NULL;
    link_over(link);
    assert_int_equal(domains, 0);
    close(fds[0]);
    close(fds[1]);
    free(device);
    endpoint_over();
}

/* The kernel's messages come to a socket of the endpoint's; those of others are not believed. */
static void strangers_say_nothing_of_devices(void **state)
{
    (void)state;
    static const char message[] = "remove@/devices/virtual/infiniband_verbs/uverbs7";
    rdma_device_t *device = device_new();
    snprintf(the_device.dev_name, sizeof the_device.dev_name, "uverbs7");
    rdma_removal_open(endpoint);
    if (endpoint->uevents < 0) skip(); /* not allowed here */
    struct sockaddr_nl at;
    socklen_t size = sizeof at;
    assert_int_equal(getsockname(endpoint->uevents, (struct sockaddr *)&at, &size), 0);
    at.nl_groups = 0;
    int stranger = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    ssize_t sent = sendto(stranger, message, sizeof message, 0, (struct sockaddr *)&at, sizeof at);
    struct epoll_event ready;
    if (sent > 0) assert_int_equal(epoll_wait(endpoint->base.epoll, &ready, 1, 0), 1);
    rdma_removal_heard(endpoint);
    assert_false(device->gone);
    close(stranger);
    rdma_removal_close(endpoint);
    assert_int_equal(epoll_wait(endpoint->base.epoll, &ready, 1, 0), 0);
    free(device);
    endpoint_over();
}

static rdma_path_t *path_new(rdma_device_t *device, rdma_link_t *link, rf_err_t *err)
{
    rdma_place_t place = {.device = device, .mtu = IBV_MTU_1024, .ethernet = true};
    rdma_path_t *path = NULL;
    *err = rdma_path_make(&link->base.lanes[PATH_LANE_SLOTS], &place, &path);
    return path;
}

static void heard(rdma_device_t *device, enum ibv_event_type type, int port)
{
    event_next = (struct ibv_async_event){.event_type = type, .element = {.port_num = port}};
    events_left = 1;
    rdma_device_async(device);
    event_next = (struct ibv_async_event){.event_type = IBV_EVENT_DEVICE_FATAL};
}

/* Paths over a port that goes down, and from a GID that changes or goes, are over at once; others are not. */
static void what_a_port_says_ends_its_paths(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    enum { N = 3 };
    rdma_link_t *links[N];
    rdma_path_t *paths[N];
    rf_err_t err;
    for (unsigned i = 0; i < N; i++) {
        links[i] = link_new();
        paths[i] = path_new(device, links[i], &err);
        assert_int_equal(err, RF_OK);
        paths[i]->place.gid = (rdma_gid_t){.port = i < 2 ? 1 : 2, .index = 1, .gid = {1}};
    }
    gid_now = (union ibv_gid){.raw = {1}};
    heard(device, IBV_EVENT_GID_CHANGE, 1); /* of another index */
    for (unsigned i = 0; i < N; i++) assert_false(links[i]->base.lanes[PATH_LANE_SLOTS].failed);
    heard(device, IBV_EVENT_PORT_ERR, 2);
    assert_false(links[0]->base.lanes[PATH_LANE_SLOTS].failed);
    assert_true(links[2]->base.lanes[PATH_LANE_SLOTS].failed);
    paths[0]->place.gid.gid[0] = 2; /* it was another before */
    heard(device, IBV_EVENT_GID_CHANGE, 1);
    assert_true(links[0]->base.lanes[PATH_LANE_SLOTS].failed);
    assert_false(links[1]->base.lanes[PATH_LANE_SLOTS].failed);
    gid_found = ENOENT;
    heard(device, IBV_EVENT_GID_CHANGE, 1);
    gid_found = 0;
    assert_true(links[1]->base.lanes[PATH_LANE_SLOTS].failed);
    assert_false(device->gone);
    for (unsigned i = 0; i < N; i++) link_over(links[i]);
    for (unsigned i = endpoint->paths_end; i > 0; i--) rdma_path_destroy(endpoint->paths[i - 1]);
    rdma_buffers_free(device->buffers);
    free(device);
    endpoint_over();
}

/* A queue pair's number is its own among those of its device only: what comes at one device is not its namesake's at another,
 * whichever was made first. */
static void numbers_are_a_devices_own(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    device->attr.max_srq_wr = RDMA_SHARED_BUFFERS_MAX;
    rdma_device_t second = *device;
    snprintf(second.name, sizeof second.name, "stand1");
    endpoint->devices[endpoint->n_devices++] = &second;
    rdma_device_t *const devices[] = {device, &second};
    enum { N = 2 };
    rdma_link_t *links[N];
    rdma_path_t *paths[N];
    rf_err_t err;
    for (unsigned i = 0; i < N; i++) {
        links[i] = link_new();
        paths[i] = path_new(devices[i], links[i], &err);
        assert_int_equal(err, RF_OK);
        links[i]->base.lanes[PATH_LANE_SLOTS].stage = PATH_UP;
    }
    assert_int_equal(paths[0]->qpn, paths[1]->qpn);
    for (unsigned i = 0; i < N; i++) assert_ptr_equal(rdma_path_find(devices[i], qp.qp_num), paths[i]);
    for (unsigned i = 0; i < N;
         i++) { /* a message of no slot, which no link may send, at the shared receive queue */
        came = (struct ibv_wc){
            .wr_id = (uintptr_t)&devices[i]->buffers->of[0], .opcode = IBV_WC_RECV, .qp_num = qp.qp_num};
        assert_null(links[i]->base.wrong);
        rdma_device_drain(devices[i]);
        assert_non_null(links[i]->base.wrong);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_false(links[i]->base.lanes[PATH_LANE_SLOTS].failed);
        event_next = (struct ibv_async_event){.event_type = IBV_EVENT_QP_FATAL, .element = {.qp = &qp}};
        events_left = 1;
        rdma_device_async(devices[i]);
        assert_true(links[i]->base.lanes[PATH_LANE_SLOTS].failed);
    }
    event_next = (struct ibv_async_event){.event_type = IBV_EVENT_DEVICE_FATAL};
    for (unsigned i = 0; i < N; i++) link_over(links[i]);
    for (unsigned i = endpoint->paths_end; i > 0; i--) rdma_path_destroy(endpoint->paths[i - 1]);
    for (unsigned i = 0; i < N; i++) assert_null(rdma_path_find(devices[i], qp.qp_num));
    for (unsigned i = 0; i < N; i++) rdma_buffers_free(devices[i]->buffers);
    free(device);
    endpoint_over();
}

/* What a queue pair completed names memory that ends with it: all of it is taken out of the queue before. */
static void nothing_that_a_path_completed_is_left(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    rf_err_t err;
    rdma_path_t *path = path_new(device, link, &err);
    assert_int_equal(err, RF_OK);
    flushed_id = (uint64_t)path->id << 48 | 1;
    rdma_path_kill(path);
    flushes = true;
    assert_true(rdma_path_destroy(path));
    assert_int_equal(queued, 0);
    assert_int_equal(device->n_paths, 0);
    assert_null(rdma_path_find(device, qp.qp_num));
    flushes = false;
    link_over(link);
    rdma_buffers_free(device->buffers);
    free(device);
    endpoint_over();
}

/* Of a queue pair that does not say that it is in error, a peer may write still: it is no more before another is made. */
static void what_is_not_in_error_ends_before_another_begins(void **state)
{
    (void)state;
    const struct {
        enum ibv_qp_state said;
        int fails;
        bool iwarp; /* where a query does not tell */
        unsigned destroyed;
    } ways[] = {{IBV_QPS_ERR, 0, false, 0},
                {IBV_QPS_RTS, 0, false, 1},
                {IBV_QPS_ERR, EIO, false, 1},
                {IBV_QPS_RESET, 0, true, 0}};
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        rdma_device_t *device = device_new();
        rdma_link_t *link = link_new();
        rf_err_t err;
        rdma_path_t *path = path_new(device, link, &err);
        assert_int_equal(err, RF_OK);
        device->iwarp = ways[way].iwarp;
        state_said = ways[way].said;
        query_fails = ways[way].fails;
        rdma_path_kill(path);
        state_said = IBV_QPS_ERR;
        query_fails = 0;
        assert_int_equal(destroyed, 0); /* who is killing may be looking at it */
        device->iwarp = false;
        path_new(device, link, &err);
        assert_int_equal(err, RF_OK);
        assert_int_equal(destroyed, ways[way].destroyed);
        link_over(link);
        for (unsigned i = endpoint->paths_end; i > 0; i--) {
            if (endpoint->paths[i - 1]) rdma_path_destroy(endpoint->paths[i - 1]);
        }
        rdma_buffers_free(device->buffers);
        free(device);
        endpoint_over();
    }
}

/* A fence that is told of a queue pair's end, but not that it was in error, shuts the regions (rdma_fence). */
static void an_end_without_error_is_not_certain(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    rf_err_t err;
    rdma_path_t *path = path_new(device, link, &err);
    assert_int_equal(err, RF_OK);
    state_said = IBV_QPS_RTS;
    rdma_path_kill(path);
    state_said = IBV_QPS_ERR;
    assert_false(rdma_path_destroy(path));
    assert_int_equal(destroyed, 1);
    link_over(link);
    rdma_buffers_free(device->buffers);
    free(device);
    endpoint_over();
}

/* Remote writes that the sender's device has told it of: who is notified hears of them, whatever comes at the same time. */
static void what_came_before_an_end_is_heard(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        rdma_device_t *device = device_new();
        rdma_link_t *link = link_new();
        rdma_place_t place = {.device = device, .mtu = IBV_MTU_1024, .ethernet = true};
        rdma_path_t *path;
        path_lane_t *lane = &link->base.lanes[PATH_LANE_BULK];
        assert_int_equal(path_bulk_need(&link->base), RF_OK);
        assert_int_equal(rdma_path_make(lane, &place, &path), RF_OK);
        lane->stage = PATH_UP;
        rdma_placed_t placed = {.has_notify = 1, .notify.control = rf_control_make(1, 8, false, 0)};
        memcpy(path->buffers->of[0].bytes, &placed, sizeof placed);
        came = (struct ibv_wc){
            .wr_id = (uintptr_t)&path->buffers->of[0], .byte_len = sizeof placed, .opcode = IBV_WC_RECV};
        if (way == 0) {
            int fds[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
            channel.fd = fds[0];
            context.async_fd = fds[1];
            device->channel = &channel;
            rdma_device_removed(device);
            close(fds[0]);
            close(fds[1]);
        }
        if (way == 1) heard(device, IBV_EVENT_PORT_ERR, 0);
        if (way == 2) rdma_path_failed(path, IBV_WC_WR_FLUSH_ERR); /* something else was noticed first */
        rdma_path_kill(path);
        assert_int_equal(link->base.bulk->placed, 1);
        rf_slot_t slot;
        assert_int_equal(rdma_bulk_notified(link, &slot, 1), 1);
        assert_int_equal(rdma_bulk_notified(link, &slot, 1), 0);
        assert_true(rdma_path_destroy(path));
        link_over(link);
        rdma_buffers_free(device->buffers);
        free(device);
        endpoint_over();
    }
}

/* Words go inline, always: a device that does not take one is refused, not written to. */
static void a_word_has_to_fit_inline(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    rf_err_t err;
    inline_given = sizeof(rf_slot_t) / 2;
    assert_null(path_new(device, link, &err));
    assert_int_equal(err, RF_ERR_NOT_SUPPORTED);
    assert_int_equal(destroyed, made);
    assert_null(link->paths[PATH_LANE_SLOTS]);
    link_over(link);
    rdma_buffers_free(device->buffers);
    free(device);
    endpoint_over();
}

/* Of the mapping that begins there, in KiB; 0: there is none. */
static unsigned page_kib(const void *base)
{
    char line[256], begins[32];
    unsigned kib = 0;
    bool there = false;
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    snprintf(begins, sizeof begins, "%lx-", (unsigned long)(uintptr_t)base);
    while (fgets(line, sizeof line, maps)) {
        there = there || strncmp(line, begins, strlen(begins)) == 0;
        if (there && sscanf(line, "KernelPageSize: %u kB", &kib) == 1) break;
    }
    fclose(maps);
    return kib;
}

/* Memory of whole huge pages lies in such, as long as the host has any; then, and where it has none, in others. (A guest of
 * tests/lab/rdma/stock_test.sh has some.) */
static void whole_huge_pages_are_used(void **state)
{
    (void)state;
    enum { HUGE_KIB = 2048, MAX = 64 };
    rdma_memory_t memory[MAX], other;
    assert_int_equal(rdma_memory_make(&pd, (HUGE_KIB << 10) + 1, 0, &other), RF_OK);
    assert_int_equal(other.size, (HUGE_KIB << 10) + RF_PAGE);
    assert_int_equal(page_kib(other.base), RF_PAGE >> 10); /* not whole */
    rdma_memory_free(&other);
    unsigned n = 0, huge = 0;
    bool more = true;
    for (; n < MAX && more; n++) {
        assert_int_equal(rdma_memory_make(&pd, HUGE_KIB << 10, 0, &memory[n]), RF_OK);
        assert_int_equal(memory[n].size, HUGE_KIB << 10);
        memset(memory[n].base, (int)n, memory[n].size);
        more = page_kib(memory[n].base) == HUGE_KIB;
        huge += more;
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(memory[i].base[(HUGE_KIB << 10) - 1], i);
        rdma_memory_free(&memory[i]);
        assert_null(memory[i].base);
    }
    print_message("%u huge pages were had%s\n", huge, more ? ", and there were more" : "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_is_pulled_out_is_let_go),
        cmocka_unit_test(regions_follow_their_link),
        cmocka_unit_test(strangers_say_nothing_of_devices),
        cmocka_unit_test(what_a_port_says_ends_its_paths),
        cmocka_unit_test(numbers_are_a_devices_own),
        cmocka_unit_test(nothing_that_a_path_completed_is_left),
        cmocka_unit_test(what_is_not_in_error_ends_before_another_begins),
        cmocka_unit_test(an_end_without_error_is_not_certain),
        cmocka_unit_test(what_came_before_an_end_is_heard),
        cmocka_unit_test(a_word_has_to_fit_inline),
        cmocka_unit_test(whole_huge_pages_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
