/* Remote writes and reads of a link that rdma_stand_in.h has brought up: its bulk path, what is asked of it, and its being done. Included by
 * one file of each test, after cmocka.h. */
#ifndef RF_TESTS_TRANSPORT_RDMA_BULK_STAND_IN_H
#define RF_TESTS_TRANSPORT_RDMA_BULK_STAND_IN_H

#include "rdma_stand_in.h"

static uint8_t source[8 * RDMA_BULK_PIECE];
static const rdma_region_key_t to = {.base = RF_PAGE, .size = sizeof source, .rkey = 7};

static inline rdma_path_t *bulk_up(rdma_link_t *link)
{
    static rdma_buffers_t buffers = {.memory = {.mr = &registered}};
    static struct ibv_pd pd;
    static rdma_domain_t domain = {.pd = &pd, .holders = 1};
    rdma_path_t *path;
    rdma_place_t place = {.device = &device};
    link->domain = &domain;
    n_posted = doorbells = n_registered = registrations = 0;
    assert_int_equal(path_bulk_need(&link->base), RF_OK);
    assert_int_equal(rdma_path_make(&link->base.lanes[PATH_LANE_BULK], &place, &path), RF_OK);
    link->base.lanes[PATH_LANE_BULK].stage = PATH_UP;
    path->domain = &domain;
    path->buffers = &buffers;
    return path;
}

/* Asks for it; behind others under way it waits for the next look. */
static inline void write_ask(rdma_link_t *link, const uint8_t *from, size_t size, const rf_slot_t *notify)
{
    rf_region_key_t key;
    memcpy(&key, &to, sizeof key);
    assert_int_equal(path_remote_write(&link->base.head, &key, 0, from, size, notify, 0), RF_OK);
}

/* ... which comes at once. */
static inline void write_from(rdma_link_t *link, const uint8_t *from, size_t size, const rf_slot_t *notify)
{
    write_ask(link, from, size, notify);
    path_link_settle(&link->base);
}

static inline void read_into(rdma_link_t *link, uint8_t *into, size_t size)
{
    rf_region_key_t key;
    memcpy(&key, &to, sizeof key);
    assert_int_equal(path_remote_read(&link->base.head, &key, 4096, into, size, 0), RF_OK);
}

/* Everything posted is done; what waited for that is posted. */
static inline void all_done(rdma_link_t *link, rdma_path_t *path)
{
    path->completed = path->posted;
    path->reads_completed = path->reads_posted;
    path_link_settle(&link->base);
}

#endif
