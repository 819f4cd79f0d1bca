/* READs of the RDMA medium without a device: remote reads, and what on iWARP says that the writes before it are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma_bulk_stand_in.h"

/* A read goes behind the writes before it, in pieces, into memory that the device may write; and is done when all of it is. */
static void a_read_is_done_when_the_device_says_so(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    write_from(link, source, 65536, NULL);
    read_into(link, source, 65536); /* what is lent to be read from may not be written */
    assert_int_equal(registrations, 2);
    assert_int_equal(last_access, IBV_ACCESS_LOCAL_WRITE);
    write_from(link, source, 4096, NULL); /* ... and the other way round it may */
    assert_int_equal(registrations, 2);
    assert_int_equal(n_posted, 3);
    assert_int_equal(bulk_posted[1].opcode, IBV_WR_RDMA_READ);
    assert_true(bulk_posted[1].send_flags & IBV_SEND_SIGNALED);
    assert_int_equal(bulk_posted[1].wr.rdma.remote_addr, to.base + 4096);
    assert_int_equal(bulk_posted[1].wr.rdma.rkey, to.rkey);
    path->completed = 1;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(events[RF_LINK_READ], 0);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_READ], 1);
    assert_int_equal(n_registered, 0);
    path->device->iwarp = true; /* places the answer by a key of where it goes */
    read_into(link, source, 2 * RDMA_BULK_PIECE);
    assert_int_equal(last_access, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    assert_int_equal(n_posted, 5);
    write_from(link, source, 65536, NULL);
    path->completed = path->posted; /* soft-iWARP: of what is behind a READ, before it */
    path->reads_completed = path->reads_posted - 2;
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_READ], 1);
    assert_int_equal(events[RF_LINK_WRITTEN], 2);
    read_into(link, NULL, 0); /* in its turn */
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_READ], 1);
    all_done(link, path);
    assert_int_equal(events[RF_LINK_READ], 3);
    path->posted++; /* a word, of whose completion nothing is said */
    read_into(link, NULL, 0);
    path_link_settle(&link->base);
    assert_int_equal(events[RF_LINK_READ], 4);
    link_over(link);
}

static unsigned reads_posted(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_posted; i++) n += bulk_posted[i].opcode == IBV_WR_RDMA_READ;
    return n;
}

/* So many of the READs have come back. */
static void reads_back(rdma_link_t *link, rdma_path_t *path, uint32_t n)
{
    path->completed = path->posted; /* of what is behind a READ, soft-iWARP says it before */
    path->reads_completed = n;
    path_link_settle(&link->base);
}

/* On iWARP. Of two writes each has a READ of its own, of a few every second, of more and small ones one is under way at a time: it stands
 * behind all writes that have none, and none of those is done before it is back. */
static void a_read_speaks_for_the_writes_before_it(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    path->device->iwarp = true;
    for (unsigned i = 0; i < 10; i++) write_from(link, source, 65536, NULL);
    assert_int_equal(n_posted, 12);
    assert_int_equal(bulk_posted[1].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[3].opcode, IBV_WR_RDMA_READ);
    reads_back(link, path, 1);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    assert_int_equal(n_posted, 12);
    reads_back(link, path, 2);
    assert_int_equal(events[RF_LINK_WRITTEN], 2);
    assert_int_equal(n_posted, 13); /* nothing is left that it does not speak for */
    assert_int_equal(bulk_posted[12].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[12].wr.rdma.rkey, to.rkey);
    reads_back(link, path, 3);
    assert_int_equal(events[RF_LINK_WRITTEN], 10);
    /* A remote read is such a READ, too. */
    for (unsigned i = 0; i < 5; i++) write_from(link, source, 65536, NULL);
    assert_int_equal(reads_posted(), 5);
    read_into(link, source, 4096);
    assert_int_equal(reads_posted(), 6);
    reads_back(link, path, 5);
    assert_int_equal(events[RF_LINK_WRITTEN], 12);
    reads_back(link, path, 6);
    assert_int_equal(events[RF_LINK_WRITTEN], 15);
    assert_int_equal(reads_posted(), 6);
    /* Four at a time. */
    for (unsigned i = 0; i < 4; i++) write_from(link, source, 65536, NULL);
    assert_int_equal(reads_posted(), 8);
    reads_back(link, path, 7);
    assert_int_equal(events[RF_LINK_WRITTEN], 16);
    assert_int_equal(reads_posted(), 9); /* for the last two */
    write_from(link, source, 65536, NULL);
    reads_back(link, path, 8);
    assert_int_equal(events[RF_LINK_WRITTEN], 17);
    assert_int_equal(reads_posted(), 9);
    write_from(link, source, 65536, NULL);
    assert_int_equal(reads_posted(), 10);
    reads_back(link, path, 10);
    assert_int_equal(events[RF_LINK_WRITTEN], 21);
    link_over(link);
}

/* On iWARP. Of many bytes under way each MiB has a READ of its own, at most four at a time: some of them are done, and their places
 * taken, long before the last. */
static void a_read_speaks_for_a_mib_of_writes(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    path->device->iwarp = true;
    for (unsigned i = 0; i < 40; i++) write_from(link, source, 65536, NULL);
    assert_int_equal(n_posted, 44);
    assert_int_equal(bulk_posted[1].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[3].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[20].opcode, IBV_WR_RDMA_READ); /* behind the 18th write */
    assert_int_equal(bulk_posted[37].opcode, IBV_WR_RDMA_READ); /* behind the 34th */
    reads_back(link, path, 2);
    assert_int_equal(events[RF_LINK_WRITTEN], 2);
    reads_back(link, path, 3);
    assert_int_equal(events[RF_LINK_WRITTEN], 18);
    assert_int_equal(reads_posted(), 4); /* the last six are no MiB: they wait for the last of these */
    reads_back(link, path, 4);
    assert_int_equal(events[RF_LINK_WRITTEN], 34);
    assert_int_equal(reads_posted(), 5);
    reads_back(link, path, 5);
    assert_int_equal(events[RF_LINK_WRITTEN], 40);
    assert_int_equal(reads_posted(), 5);
    link_over(link);
}

/* A break says nothing of reads: what is not here is read again, and no write a second time that the peer was told of. */
static void a_read_that_a_break_cuts_off_is_read_again(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    read_into(link, source, 4096);
    all_done(link, path);
    read_into(link, source, 4096);
    write_from(link, source, 4096, &slots[0]);
    read_into(link, source, 6 * RDMA_BULK_PIECE); /* of which some is posted */
    assert_true(link->base.bulk->read_posted == 2 && link->base.bulk->reads[2].sent > 0);
    rdma_bulk_detach(link);
    assert_true(path_bulk_resume(&link->base, 1));
    assert_int_equal(link->base.bulk->read_posted, 1);
    n_posted = 0;
    path->posted = path->completed = path->reads_posted = path->reads_completed = 0;
    path_bulk_pump(&link->base);
    assert_int_equal(bulk_posted[0].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_size[0], 4096);
    assert_int_equal(bulk_posted[1].opcode, IBV_WR_RDMA_READ);
    assert_int_equal(bulk_posted[1].wr.rdma.remote_addr, to.base + 4096); /* from its beginning */
    for (unsigned i = 0; i < 4; i++) all_done(link, path);
    assert_int_equal(events[RF_LINK_READ], 3);
    assert_int_equal(events[RF_LINK_WRITTEN], 1);
    link_over(link);
}

/* A region that the peer has destroyed is read no more; and stays with the peer until what is asked of it has come. */
static void a_region_that_is_gone_is_not_read(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = bulk_up(link);
    rdma_bulk_t *bulk = rdma_bulk_of(link);
    read_into(link, source, 4096);
    rdma_region_gone_t gone = {.region = to.region};
    assert_true(rdma_bulk_control(&link->base, RDMA_CONTROL_REGION_GONE, (uint8_t *)&gone, sizeof gone));
    assert_int_equal(bulk->n_freed, 0);
    n_posted = 0;
    read_into(link, source, 4096);
    assert_int_equal(n_posted, 0);
    all_done(link, path);
    assert_int_equal(bulk->n_freed, 1);
    assert_int_equal(events[RF_LINK_READ], 2);
    assert_int_equal(last_err, RF_ERR_NOT_FOUND);
    link_over(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_is_done_when_the_device_says_so),
        cmocka_unit_test(a_read_speaks_for_the_writes_before_it),
        cmocka_unit_test(a_read_speaks_for_a_mib_of_writes),
        cmocka_unit_test(a_read_that_a_break_cuts_off_is_read_again),
        cmocka_unit_test(a_region_that_is_gone_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
