/* Queue pairs of the RDMA medium as a device seldom shows them: what ends them, and what is left when they do; one that completes more
 * than is looked at at once; one that takes too little inline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma_verbs_stand_in.h"

#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A device, and links each with a path over it. */
typedef struct rig {
    rdma_device_t *device;
    unsigned n;
    rdma_link_t *links[3];
    rdma_path_t *paths[3];
} rig_t;

static rig_t rig_new(unsigned n)
{
    rig_t rig = {.device = device_new(), .n = n};
    for (unsigned i = 0; i < n; i++) {
        rf_err_t err;
        rig.links[i] = link_new();
        rig.paths[i] = path_new(rig.device, rig.links[i], &err);
        assert_int_equal(err, RF_OK);
    }
    return rig;
}

static void rig_over(rig_t *rig)
{
    for (unsigned i = 0; i < rig->n; i++) link_over(rig->links[i]);
    paths_end();
    device_over(rig->device);
}

static bool failed(const rig_t *rig, unsigned i)
{
    return rig->links[i]->base.lanes[PATH_LANE_SLOTS].failed;
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
    rig_t rig = rig_new(3);
    for (unsigned i = 0; i < rig.n; i++)
        rig.paths[i]->place.gid = (rdma_gid_t){.port = i < 2 ? 1 : 2, .index = 1, .gid = {1}};
    gid_now = (union ibv_gid){.raw = {1}};
    heard(rig.device, IBV_EVENT_GID_CHANGE, 1); /* of another index */
    for (unsigned i = 0; i < rig.n; i++) assert_false(failed(&rig, i));
    heard(rig.device, IBV_EVENT_PORT_ERR, 2);
    assert_false(failed(&rig, 0));
    assert_true(failed(&rig, 2));
    rig.paths[0]->place.gid.gid[0] = 2; /* it was another before */
    heard(rig.device, IBV_EVENT_GID_CHANGE, 1);
    assert_true(failed(&rig, 0));
    assert_false(failed(&rig, 1));
    gid_found = ENOENT;
    heard(rig.device, IBV_EVENT_GID_CHANGE, 1);
    gid_found = 0;
    assert_true(failed(&rig, 1));
    assert_false(rig.device->gone);
    rig_over(&rig);
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
    paths_end();
    for (unsigned i = 0; i < N; i++) assert_null(rdma_path_find(devices[i], qp.qp_num));
    rdma_buffers_free(second.buffers);
    device_over(device);
}

/* What a queue pair completed names memory that ends with it: all of it is taken out of the queue before. */
static void nothing_that_a_path_completed_is_left(void **state)
{
    (void)state;
    rig_t rig = rig_new(1);
    flushed_id = (uint64_t)rig.paths[0]->id << 48 | 1;
    rdma_path_kill(rig.paths[0]);
    flushes = true;
    assert_true(rdma_path_destroy(rig.paths[0]));
    assert_int_equal(queued, 0);
    assert_int_equal(rig.device->n_paths, 0);
    assert_null(rdma_path_find(rig.device, qp.qp_num));
    flushes = false;
    rig_over(&rig);
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
        rig_t rig = rig_new(1);
        rf_err_t err;
        rig.device->iwarp = ways[way].iwarp;
        state_said = ways[way].said;
        query_fails = ways[way].fails;
        rdma_path_kill(rig.paths[0]);
        state_said = IBV_QPS_ERR;
        query_fails = 0;
        assert_int_equal(destroyed, 0); /* who is killing may be looking at it */
        rig.device->iwarp = false;
        path_new(rig.device, rig.links[0], &err);
        assert_int_equal(err, RF_OK);
        assert_int_equal(destroyed, ways[way].destroyed);
        rig_over(&rig);
    }
}

/* A fence that is told of a queue pair's end, but not that it was in error, shuts the regions (rdma_fence). */
static void an_end_without_error_is_not_certain(void **state)
{
    (void)state;
    rig_t rig = rig_new(1);
    state_said = IBV_QPS_RTS;
    rdma_path_kill(rig.paths[0]);
    state_said = IBV_QPS_ERR;
    assert_false(rdma_path_destroy(rig.paths[0]));
    assert_int_equal(destroyed, 1);
    rig_over(&rig);
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
        device_over(device);
    }
}

/* Remote writes with a notify slot each come over this path, the first into that buffer. */
static void notifies_come(rdma_link_t *link, rdma_path_t *path, unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n; i++) {
        rdma_placed_t placed = {.write = link->base.bulk->placed,
                                .has_notify = 1,
                                .notify.control = rf_control_make(1, 8, false, 0)};
        memcpy(path->buffers->of[i].bytes, &placed, sizeof placed);
        came = (struct ibv_wc){
            .wr_id = (uintptr_t)&path->buffers->of[i], .byte_len = sizeof placed, .opcode = IBV_WC_RECV};
        rdma_device_drain(path->device);
    }
}

/* How a child that fences a link with a bulk path and a region of the stand-in's device ended: as waitpid() says. */
static int end_of_a_fence(void)
{
    int status = -1;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        rf_err_t err;
        rf_region_t *region;
        rdma_device_t *device = device_new();
        rdma_link_t *link = link_new();
        link->device = device;
        prctl(PR_SET_DUMPABLE, 0); /* no core file */
        state_said = IBV_QPS_RTS;
        if (!bulk_new(device, link, &err) || rdma_region_create(&link->base.head, RF_PAGE, &region) != RF_OK)
            _exit(2);
        deregistered = 0;
        rdma_medium.fence(&link->base);
        _exit(rdma_bulk_of(link)->regions[0].memory.mr ? 3 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* A device that neither ends a queue pair nor gives back the memory that a peer may write is not fenced from, and the process does not
 * go on as if it were. */
static void what_cannot_be_fenced_ends_the_process(void **state)
{
    (void)state;
    int status = end_of_a_fence();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* the memory is taken back */
    destroy_fails = EIO;
    status = end_of_a_fence();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    dereg_fails = EIO;
    status = end_of_a_fence();
    destroy_fails = dereg_fails = 0;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* What a fence of this link says in the log. */
static void fence_heard(rdma_link_t *link, char *out, size_t max)
{
    int log = memfd_create("log", MFD_CLOEXEC), stderr_was = dup(STDERR_FILENO);
    rf_log_level_t level = rf_log_level();
    assert_true(log >= 0 && stderr_was >= 0 && dup2(log, STDERR_FILENO) >= 0);
    rf_log_set_level(RF_LOG_INFO);
    rdma_medium.fence(&link->base);
    rf_log_set_level(level);
    assert_true(dup2(stderr_was, STDERR_FILENO) >= 0);
    ssize_t n = pread(log, out, max - 1, 0);
    assert_true(n > 0);
    out[n] = '\0';
    close(log);
    close(stderr_was);
}

/* A fence says of a link's queue pairs what the device has said of them; also where only slots come, by SEND. */
static void a_fence_says_what_is_known(void **state)
{
    (void)state;
    static const struct {
        enum ibv_qp_state said;
        const char *text;
    } ways[] = {{IBV_QPS_ERR, "its queue pair is in error"}, {IBV_QPS_RTS, "not known to be in error"}};
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        rig_t rig = rig_new(1);
        state_said = ways[way].said;
        char said[1024];
        fence_heard(rig.links[0], said, sizeof said);
        state_said = IBV_QPS_ERR;
        if (!strstr(said, ways[way].text)) fail_msg("'%s' is not in '%s'", ways[way].text, said);
        rig_over(&rig);
    }
}

/* Notify slots that wait for poll() take their places in the table with them over a break: the next path receives only what the table has
 * places for, and more as they are served. */
static void notify_slots_that_wait_outlast_their_path(void **state)
{
    (void)state;
    enum { WAIT = 60, MORE = RDMA_BULK_BUFFERS - WAIT };
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    rf_slot_t slots[RDMA_BULK_BUFFERS + 1];
    rf_err_t err;
    rdma_path_t *path = bulk_new(device, link, &err);
    assert_int_equal(receives, RDMA_BULK_BUFFERS);
    notifies_come(link, path, 0, WAIT);
    assert_int_equal(receives, RDMA_BULK_BUFFERS);
    rdma_path_kill(path);
    receives = 0;
    path = bulk_new(device, link, &err);
    assert_int_equal(err, RF_OK);
    assert_int_equal(receives, MORE);
    notifies_come(link, path, WAIT, MORE);
    assert_null(link->base.wrong);
    assert_int_equal(rdma_bulk_notified(link, slots, 4), 4);
    assert_int_equal(receives, MORE + 4);
    notifies_come(link, path, WAIT - 4, 4);
    assert_null(link->base.wrong);
    /* All places are taken: not even HELLO would find a buffer. */
    rdma_path_kill(path);
    receives = 0;
    assert_null(bulk_new(device, link, &err));
    assert_int_equal(err, RF_ERR_AGAIN);
    assert_int_equal(rdma_bulk_notified(link, slots, 1), 1);
    device->iwarp = true; /* where as many as may be on their way must find one */
    assert_null(bulk_new(device, link, &err));
    assert_int_equal(err, RF_ERR_AGAIN);
    device->iwarp = false;
    path = bulk_new(device, link, &err);
    assert_int_equal(err, RF_OK);
    assert_int_equal(receives, 1);
    link->base.user_closed = true; /* nobody takes them any more, nor what comes */
    rdma_path_kill(path);
    receives = 0;
    path = bulk_new(device, link, &err);
    assert_int_equal(receives, RDMA_BULK_BUFFERS);
    link->base.user_closed = false;
    rdma_path_kill(path);
    receives = 0;
    path = bulk_new(device, link, &err);
    assert_int_equal(receives, 1);
    assert_int_equal(rdma_bulk_notified(link, slots, RDMA_BULK_BUFFERS), RDMA_BULK_BUFFERS - 1);
    assert_int_equal(receives, RDMA_BULK_BUFFERS);
    assert_int_equal(path->held_back, 0);
    notifies_come(link, path, 0, RDMA_BULK_BUFFERS);
    assert_null(link->base.wrong);
    rdma_path_kill(path);
    paths_end();
    link_over(link);
    device_over(device);
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
    device_over(device);
}

/* What a queue pair has been given to receive into is completed when it ends, and freed with it: one whose making fails has been given
 * nothing, whatever failed. */
static void what_is_not_made_has_nothing_posted(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    rdma_place_t place = {.device = device, .mtu = IBV_MTU_1024, .ethernet = true};
    rdma_path_t *path;
    assert_int_equal(path_bulk_need(&link->base), RF_OK);
    inline_given = 96; /* less than what goes behind a remote write: it needs memory of its own, too, */
    registers = 1;     /* ... which there is not */
    flushes = true;
    assert_int_equal(rdma_path_make(&link->base.lanes[PATH_LANE_BULK], &place, &path), RF_ERR_NO_MEMORY);
    assert_int_equal(destroyed, 1);
    assert_int_equal(receives, 0);
    registers = UINT_MAX;
    for (unsigned i = 0; i < RDMA_PATHS_MAX; i++)
        endpoint->paths[i] = (rdma_path_t *)&place; /* no place left */
    assert_int_equal(rdma_path_make(&link->base.lanes[PATH_LANE_BULK], &place, &path), RF_ERR_LIMIT);
    assert_int_equal(destroyed, 2);
    assert_int_equal(receives, 0);
    memset(endpoint->paths, 0, sizeof endpoint->paths);
    assert_int_equal(rdma_path_make(&link->base.lanes[PATH_LANE_BULK], &place, &path), RF_OK);
    assert_int_equal(receives, RDMA_BULK_BUFFERS);
    flushes = false;
    rdma_path_kill(path);
    assert_true(rdma_path_destroy(path));
    link_over(link);
    device_over(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_port_says_ends_its_paths),
        cmocka_unit_test(numbers_are_a_devices_own),
        cmocka_unit_test(nothing_that_a_path_completed_is_left),
        cmocka_unit_test(what_is_not_in_error_ends_before_another_begins),
        cmocka_unit_test(an_end_without_error_is_not_certain),
        cmocka_unit_test(what_came_before_an_end_is_heard),
        cmocka_unit_test(what_cannot_be_fenced_ends_the_process),
        cmocka_unit_test(a_fence_says_what_is_known),
        cmocka_unit_test(notify_slots_that_wait_outlast_their_path),
        cmocka_unit_test(a_word_has_to_fit_inline),
        cmocka_unit_test(what_is_not_made_has_nothing_posted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
