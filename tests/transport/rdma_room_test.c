/* How many queue pairs of the RDMA medium there is room for, and what is received into: the completion queue, the shared receive queue,
 * and what each has of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma_verbs_stand_in.h"

/* Makes paths for slots until one is refused; those before it are dying, and so there still. Returns how many there are. */
static unsigned paths_until_refused(rdma_device_t *device, rdma_link_t *link)
{
    rf_err_t err = RF_OK;
    for (unsigned n = 0; n <= RDMA_PATHS_MAX; n++) {
        rdma_path_t *path = path_new(device, link, &err);
        if (!path) break;
        rdma_path_kill(path);
    }
    assert_int_equal(err, RF_ERR_LIMIT);
    return device->n_paths;
}

/* What all queue pairs together may complete has room in the completion queue: one too many is refused, and has it when another has
 * ended. */
static void queue_pairs_are_as_many_as_are_heard(void **state)
{
    (void)state;
    static const struct {
        bool iwarp, written;
        unsigned promised, paths;
    } ways[] = {{false, false, RDMA_SHARED_BUFFERS_MAX, 224}, {false, true, 0, 204}, {true, false, 0, 120}};
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        rdma_device_t *device = device_new();
        rdma_link_t *link = link_new();
        rf_err_t err;
        endpoint->options.depth = 128;
        endpoint->options.mode = ways[way].written ? RDMA_MODE_WRITE : RDMA_MODE_AUTO;
        device->attr = (struct ibv_device_attr){.max_srq_wr = RDMA_SHARED_BUFFERS_MAX, .max_qp_wr = 1024};
        device->iwarp = ways[way].iwarp;
        device->cq_promised = ways[way].promised;
        assert_int_equal(paths_until_refused(device, link), ways[way].paths);
        rdma_path_destroy(endpoint->paths[3]);
        assert_non_null(path_new(device, link, &err));
        rdma_path_kill(link->paths[PATH_LANE_SLOTS]);
        assert_int_equal(paths_until_refused(device, link), ways[way].paths);
        paths_end();
        assert_int_equal(device->cq_promised, ways[way].promised);
        assert_int_equal(device->n_paths + device->n_sharing, 0);
        link_over(link);
        device_over(device);
    }
}

/* However much a device could complete, an endpoint has a table of queue pairs. */
static void queue_pairs_are_as_many_as_have_a_place(void **state)
{
    (void)state;
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    cq.cqe = 1 << 30;
    endpoint->options.depth = 128;
    device->attr = (struct ibv_device_attr){.max_srq_wr = RDMA_SHARED_BUFFERS_MAX, .max_qp_wr = 1024};
    assert_int_equal(paths_until_refused(device, link), RDMA_PATHS_MAX);
    assert_int_equal(made, RDMA_PATHS_MAX + 1);
    assert_int_equal(destroyed, 1);
    cq.cqe = RDMA_CQ_ENTRIES; /* which are looked through as the paths end */
    paths_end();
    link_over(link);
    device_over(device);
}

/* Each path for slots brings its share of buffers to the shared queue until that is full, and uses what there is after that; a path of
 * bulk, which has its own, brings none. */
static void the_shared_queue_grows_with_those_that_share_it(void **state)
{
    (void)state;
    enum { EACH = RDMA_MESSAGES + RDMA_WORDS, MOST = 3 * EACH + 10 };
    rdma_device_t *device = device_new();
    rdma_link_t *links[5];
    rf_err_t err;
    device->attr.max_srq_wr = MOST;
    for (unsigned i = 0; i < 5; i++) {
        links[i] = link_new();
        assert_non_null(path_new(device, links[i], &err));
        assert_ptr_equal(shared_by, &srq);
        assert_non_null(bulk_new(device, links[i], &err));
        assert_null(shared_by);
        rdma_path_t *path = links[i]->paths[PATH_LANE_SLOTS];
        rdma_path_kill(path);
        rdma_path_destroy(path);
        assert_non_null(path_new(device, links[i], &err)); /* with what the one before it brought */
        assert_int_equal(device->n_buffers, (i < 3 ? i + 1 : 3) * EACH);
        assert_int_equal(shared_receives, device->n_buffers);
    }
    for (unsigned i = 0; i < 5; i++) link_over(links[i]);
    paths_end();
    assert_int_equal(device->n_sharing, 0);
    device_over(device);
}

/* On iWARP, where who finds no buffer loses its connection, a peer has those of its own link alone, whatever it sends; those for words that
 * tell of remote writes are there from the first of these on. */
static void on_iwarp_a_peer_has_its_own_buffers(void **state)
{
    (void)state;
    enum { EACH = RDMA_MESSAGES + RDMA_WORDS };
    rdma_device_t *device = device_new();
    rdma_link_t *link = link_new();
    rf_err_t err;
    device->attr.max_srq_wr = RDMA_SHARED_BUFFERS_MAX;
    device->iwarp = true;
    rdma_path_t *path = path_new(device, link, &err);
    assert_non_null(path);
    assert_null(shared_by);
    assert_int_equal(receives, EACH);
    link->base.lanes[PATH_LANE_SLOTS].stage = PATH_UP;
    rf_slot_t word = {.control = rf_control_make(RDMA_WORD, sizeof(path_word_t), false, 0)};
    for (unsigned i = 0; i < 2 * EACH; i++) { /* each is posted again where it came from */
        rdma_buffer_t *buffer = &path->buffers->of[i % EACH];
        memcpy(buffer->bytes, &word, sizeof word);
        came = (struct ibv_wc){.wr_id = (uintptr_t)buffer, .byte_len = sizeof word, .opcode = IBV_WC_RECV};
        rdma_device_drain(device);
    }
    assert_int_equal(receives, 3 * EACH);
    receives = 0;
    assert_non_null(bulk_new(device, link, &err));
    assert_int_equal(receives, PATH_WRITES_MAX + RDMA_BULK_BUFFERS);
    rdma_path_kill(link->paths[PATH_LANE_BULK]);
    receives = 0;
    assert_non_null(bulk_new(device, link, &err)); /* the slots' path has them */
    assert_int_equal(receives, RDMA_BULK_BUFFERS);
    rdma_path_kill(path);
    receives = 0;
    assert_non_null(path_new(device, link, &err));
    assert_int_equal(receives, EACH + PATH_WRITES_MAX);
    assert_int_equal(shared_receives, 0);
    link_over(link);
    paths_end();
    device_over(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_pairs_are_as_many_as_are_heard),
        cmocka_unit_test(queue_pairs_are_as_many_as_have_a_place),
        cmocka_unit_test(the_shared_queue_grows_with_those_that_share_it),
        cmocka_unit_test(on_iwarp_a_peer_has_its_own_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
