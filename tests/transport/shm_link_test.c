/* The shared-memory link, both ends in one thread: every step in a known order. */
#include "shm_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static const rf_transport_t *const shm = &rf_transport_shm;

typedef struct pair {
    shm_end_t a, b;
} pair_t;

static pair_t *pair_open(unsigned slots, unsigned slots_max)
{
    pair_t *pair = calloc(1, sizeof *pair);
    assert_non_null(pair);
    shm_end_open(&pair->a, NULL);
    shm_end_open(&pair->b, NULL);
    shm_ends_join(&pair->a, &pair->b, slots, slots_max);
    return pair;
}

static void pair_close(pair_t *pair)
{
    shm_end_close(&pair->a);
    shm_end_close(&pair->b);
    free(pair);
}

/* Sends numbers [from, to) as far as there is room; returns where it stopped. */
static uint64_t send_numbers(rf_link_t *link, uint64_t from, uint64_t to)
{
    while (from < to) {
        rf_slot_t slot = shm_test_slot(from);
        if (shm->send(link, &slot, 1) == 0) break;
        from++;
    }
    shm->flush(link);
    return from;
}

static uint64_t expect_numbers(rf_link_t *link, uint64_t from, unsigned max)
{
    rf_slot_t slots[128];
    unsigned n = shm->poll(link, slots, max < 128 ? max : 128);
    for (unsigned i = 0; i < n; i++) assert_true(shm_test_slot_is(&slots[i], from + i));
    return from + n;
}

static void slots_arrive_in_order(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    uint64_t sent = 0, got = 0;
    for (unsigned round = 0; round < 5000; round++) {
        sent = send_numbers(pair->a.link, sent, sent + round % 70);
        got = expect_numbers(pair->b.link, got, 1 + round % 90);
    }
    while (got < sent) got = expect_numbers(pair->b.link, got, 64);
    assert_int_equal(expect_numbers(pair->b.link, got, 64), got);
    rf_link_stats_t stats;
    shm->stats(pair->a.link, &stats);
    assert_int_equal(stats.slots_sent, sent);
    shm->stats(pair->b.link, &stats);
    assert_int_equal(stats.slots_received, got);
    pair_close(pair);
}

static void full_is_a_normal_answer(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    uint64_t sent = send_numbers(pair->a.link, 0, 1000);
    assert_int_equal(sent, 64 - RF_RING_SLOTS_RESERVED);
    assert_int_equal(pair->a.room, 0);
    rf_slot_t slot;
    assert_int_equal(shm->poll(pair->a.link, &slot, 1), 0);
    assert_int_equal(pair->a.room, 0);
    assert_int_equal(expect_numbers(pair->b.link, 0, 100), sent);
    assert_int_equal(expect_numbers(pair->b.link, sent, 100),
                     sent); /* found empty: the last are acknowledged */
    assert_int_equal(shm->poll(pair->a.link, &slot, 1), 0);
    assert_int_equal(pair->a.room, 1);
    assert_int_equal(send_numbers(pair->a.link, sent, sent + 56), sent + 56);
    pair_close(pair);
}

static void both_rings_full_do_not_deadlock(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    uint64_t a_sent = 0, b_sent = 0, a_got = 0, b_got = 0;
    for (unsigned round = 0; round < 200; round++) {
        a_sent = send_numbers(pair->a.link, a_sent, a_sent + 100);
        b_sent = send_numbers(pair->b.link, b_sent, b_sent + 100);
        assert_true(shm->room(pair->a.link, 1) == 0 && shm->room(pair->b.link, 1) == 0);
        a_got = expect_numbers(pair->a.link, a_got, 7 + round % 50);
        b_got = expect_numbers(pair->b.link, b_got, 7 + round % 50);
    }
    assert_true(a_got > 1000 && b_got > 1000);
    /* A ring filled to its limit still takes the closing slot. */
    shm->close(pair->a.link);
    pair->a.link = NULL;
    while (b_got < a_sent) b_got = expect_numbers(pair->b.link, b_got, 64);
    expect_numbers(pair->b.link, b_got, 64);
    assert_int_equal(pair->b.closed, 1);
    pair_close(pair);
}

static void ring_grows_for_a_long_message(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 1024);
    uint64_t sent = send_numbers(pair->a.link, 0, 30), got = 0;
    assert_true(shm->room(pair->a.link, 700) >= 700);
    sent = send_numbers(pair->a.link, sent, sent + 700);
    assert_int_equal(sent, 730);
    while (got < sent) {
        uint64_t before = got;
        got = expect_numbers(pair->b.link, got, 50);
        assert_true(got > before);
    }
    rf_link_stats_t stats;
    shm->stats(pair->b.link, &stats);
    assert_int_equal(stats.ring_slots_receive, 1024);
    assert_int_equal(stats.slots_received, 730);
    assert_true(shm->room(pair->a.link, 5000) < 5000);
    for (unsigned round = 0; round < 100; round++) {
        sent = send_numbers(pair->a.link, sent, sent + 333);
        while (got < sent) got = expect_numbers(pair->b.link, got, 100);
    }
    pair_close(pair);
}

static void old_acknowledgements_in_slots_are_passed_over(void **state)
{
    /* b's slot waits unread in a's ring while a sends three times 2^16 slots and learns of their delivery by b's line. */
    (void)state;
    pair_t *pair = pair_open(64, 64);
    assert_int_equal(send_numbers(pair->b.link, 0, 1), 1);
    uint64_t sent = 0, got = 0;
    while (sent < 3 * 65536 + 17) {
        sent = send_numbers(pair->a.link, sent, sent + 40);
        got = expect_numbers(pair->b.link, got, 64);
    }
    assert_int_equal(expect_numbers(pair->a.link, 0, 10), 1);
    assert_int_equal(pair->a.dead, 0);
    assert_int_equal(send_numbers(pair->b.link, 1, 2), 2);
    assert_int_equal(expect_numbers(pair->a.link, 1, 10), 2);
    assert_int_equal(pair->a.dead, 0);
    pair_close(pair);
}

static void orderly_close_comes_after_the_last_slot(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    send_numbers(pair->a.link, 0, 10);
    shm->close(pair->a.link);
    shm_end_progress(&pair->b);
    assert_int_equal(pair->b.closed + pair->b.dead, 0);
    assert_true(shm->ready(pair->b.link));
    assert_int_equal(expect_numbers(pair->b.link, 0, 64), 10);
    assert_int_equal(expect_numbers(pair->b.link, 10, 64), 10);
    assert_int_equal(pair->b.closed, 1);
    assert_int_equal(pair->b.dead, 0);
    rf_slot_t slot = shm_test_slot(0);
    assert_int_equal(shm->send(pair->b.link, &slot, 1), 0);
    assert_int_equal(shm->flush(pair->b.link), RF_ERR_CLOSED);
    shm->close(pair->b.link);
    pair_close(pair);
}

static void death_comes_after_the_last_slot(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    send_numbers(pair->a.link, 0, 10);
    shm_end_close(&pair->a); /* without ceremony, as when a process dies */
    shm_end_progress(&pair->b);
    assert_int_equal(expect_numbers(pair->b.link, 0, 4), 4);
    assert_int_equal(expect_numbers(pair->b.link, 4, 64), 10);
    assert_int_equal(expect_numbers(pair->b.link, 10, 64), 10);
    assert_int_equal(pair->b.dead, 1);
    assert_int_equal(pair->b.why, RF_ERR_PEER_DEAD);
    assert_int_equal(shm->flush(pair->b.link), RF_ERR_PEER_DEAD);
    pair_close(pair);
}

static unsigned rings_mapped(void)
{
    char line[512];
    unsigned n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "rackfish-ring") || strstr(line, "rackfish-head");
    fclose(maps);
    return n;
}

static void what_the_dead_leave_is_unmapped_by_the_fence(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    shm_end_close(&pair->a);
    shm_end_progress(&pair->b);
    assert_int_equal(pair->b.why, RF_ERR_PEER_DEAD);
    assert_int_equal(rings_mapped(), 4); /* two rings, two heads: not while others elect */
    shm->fence(pair->b.link);
    assert_int_equal(rings_mapped(), 0);
    shm->fence(pair->b.link);
    pair_close(pair);
}

static void death_with_an_empty_ring_needs_only_progress(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    pair->b.close_on_end = true;
    shm_end_close(&pair->a);
    shm_end_progress(&pair->b);
    assert_int_equal(pair->b.dead, 1);
    assert_null(pair->b.link);
    pair_close(pair);
}

static void fence_stops_delivery(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    send_numbers(pair->a.link, 0, 10);
    shm->fence(pair->b.link);
    rf_slot_t slot;
    assert_int_equal(shm->poll(pair->b.link, &slot, 1), 0);
    assert_false(shm->ready(pair->b.link));
    assert_int_equal(shm->flush(pair->b.link), RF_ERR_FENCED);
    shm_end_progress(&pair->b);
    assert_int_equal(pair->b.dead + pair->b.closed, 0);
    shm_end_progress(&pair->a);
    shm->poll(pair->a.link, &slot, 1);
    assert_int_equal(pair->a.dead, 1);
    shm->close(pair->b.link);
    pair_close(pair);
}

static void remote_writes_have_a_way_of_their_own(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    rf_region_t *region;
    assert_int_equal(shm->region_create(pair->b.link, 100000, &region), RF_OK);
    send_numbers(pair->a.link, 0, 1000); /* the ring is full: notify slots go all the same */
    rf_slot_t notify = {.words = {42}, .control = rf_control_make(9, 8, false, 0)};
    unsigned written = 0;
    while (shm->remote_write(pair->a.link, &region->key, 99990, "0123456789", 10, &notify, 5) == RF_OK)
        written++;
    assert_int_equal(pair->a.written, written);
    assert_true(written >= 8);
    assert_memory_equal((char *)region->base + 99990, "0123456789", 10);
    assert_int_equal(shm->remote_write(pair->a.link, &region->key, 99991, "0123456789", 10, NULL, 5),
                     RF_ERR_INVALID);
    assert_int_equal(shm->remote_write(pair->a.link, &region->key, UINT64_MAX, "0", 1, NULL, 5),
                     RF_ERR_INVALID);
    rf_region_key_t wrong = {.bytes = {99}};
    assert_int_equal(shm->remote_write(pair->a.link, &wrong, 0, "0", 1, NULL, 5), RF_ERR_NOT_FOUND);

    unsigned notified = 0, ordinary = 0;
    rf_slot_t slots[1];
    for (unsigned i = 0; i < 1000; i++) {
        if (shm->poll(pair->b.link, slots, 1) == 0) continue;
        if (rf_control_type(slots[0].control) == 9)
            notified++;
        else
            assert_true(shm_test_slot_is(&slots[0], ordinary++));
    }
    assert_int_equal(notified, written);
    assert_int_equal(ordinary, 56);
    shm->poll(pair->a.link, slots, 1);
    assert_int_equal(pair->a.room, 1);
    rf_link_stats_t stats;
    shm->stats(pair->b.link, &stats);
    assert_int_equal(stats.bytes_placed, written * 10);
    shm->region_destroy(pair->b.link, region);
    shm_end_progress(&pair->a);
    pair_close(pair);
}

/* What was refused in two ways is granted one by one: with the ring grown, nobody sleeps over a full notify ring. */
static void room_in_either_ring_is_told(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 128);
    rf_link_t *a = pair->a.link, *b = pair->b.link;
    rf_region_t *region;
    rf_slot_t slots[64], notify = {.control = rf_control_make(9, 0, false, 0)};
    assert_int_equal(shm->region_create(b, RF_PAGE, &region), RF_OK);
    while (shm->remote_write(a, &region->key, 0, "0", 1, &notify, 0) == RF_OK) continue;
    assert_int_equal(send_numbers(a, 0, 100), 64 - RF_RING_SLOTS_RESERVED);
    shm->arm(a); /* the ring grows */
    assert_true(shm->ready(a));
    shm->disarm(a);
    assert_int_equal(shm->poll(a, slots, 64), 0);
    assert_int_equal(pair->a.room, 1);
    assert_int_equal(send_numbers(a, 56, 100), 100);

    shm->arm(a);
    rf_full_fence();
    assert_false(shm->ready(a)); /* asleep over the notify ring */
    rf_link_stats_t stats;
    uint64_t got = 0;
    while (got < 100 + 32) got += shm->poll(b, slots, 64);
    shm->stats(b, &stats);
    assert_int_equal(stats.wakeups_sent, 1);
    assert_true(shm->ready(a));
    shm->disarm(a);
    assert_int_equal(shm->poll(a, slots, 64), 0);
    assert_int_equal(pair->a.room, 2);
    assert_int_equal(shm->remote_write(a, &region->key, 0, "0", 1, &notify, 0), RF_OK);
    pair_close(pair);
}

static void descriptors_pass(void **state)
{
    (void)state;
    pair_t *pair = pair_open(64, 64);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(shm->pass_fds(pair->a.link, "hello", 5, ends, 2), RF_OK);
    assert_true(shm->ready(pair->b.link));
    rf_slot_t slot;
    assert_int_equal(shm->poll(pair->b.link, &slot, 1), 0);
    assert_int_equal(pair->b.fds, 1);
    assert_int_equal(pair->b.n_fds, 2);
    assert_memory_equal(pair->b.bytes, "hello", 5);
    assert_int_equal(write(pair->b.fd[1], "x", 1), 1);
    char c;
    assert_int_equal(read(ends[0], &c, 1), 1);
    for (unsigned i = 0; i < 2; i++) {
        close(ends[i]);
        close(pair->b.fd[i]);
    }
    /* Descriptors that nobody asked for come before the end of a peer that closed. */
    assert_int_equal(shm->pass_fds(pair->a.link, "bye", 3, NULL, 0), RF_OK);
    shm->close(pair->a.link);
    for (unsigned i = 0; i < 3; i++) shm->poll(pair->b.link, &slot, 1);
    assert_int_equal(pair->b.fds, 2);
    assert_int_equal(pair->b.closed, 1);
    pair_close(pair);
}

/* ---- listening ---- */

typedef struct house {
    shm_end_t server, client;
    char folder[32], path[64];
} house_t;

static house_t *house_open(void)
{
    house_t *house = calloc(1, sizeof *house);
    assert_non_null(house);
    snprintf(house->folder, sizeof house->folder, "/tmp/rf-shm-XXXXXX");
    assert_non_null(mkdtemp(house->folder));
    snprintf(house->path, sizeof house->path, "%s/sock", house->folder);
    return house;
}

static void house_listen(house_t *house)
{
    rf_endpoint_params_t params = shm_end_params(&house->server);
    params.address = house->path;
    assert_int_equal(shm->endpoint_open(&params, &house->server.endpoint), RF_OK);
}

static void house_close(house_t *house)
{
    shm_end_close(&house->client);
    shm_end_close(&house->server);
    assert_int_equal(rmdir(house->folder), 0); /* the socket file is gone */
    free(house);
}

static void house_progress(house_t *house)
{
    for (int i = 0; i < 4; i++) {
        shm_end_progress(&house->client);
        shm_end_progress(&house->server);
    }
}

static void listener_sees_the_token(void **state)
{
    (void)state;
    house_t *house = house_open();
    house_listen(house);
    shm_end_open(&house->client, NULL);
    rf_hello_t hello = shm_end_params(&house->client).self;
    hello.kind = 3;
    hello.core = 17;
    memset(hello.token, 0xab, sizeof hello.token);
    rf_link_params_t params = {.address = house->path, .socket = -1, .hello = &hello, .user = house};
    assert_int_equal(shm->connect(house->client.endpoint, &params, &house->client.link), RF_OK);
    assert_ptr_equal(house->client.link->user, house);
    house_progress(house);
    assert_int_equal(house->server.incoming, 1);
    assert_int_equal(house->client.up, 0);
    assert_int_equal(house->server.hello.kind, 3);
    assert_int_equal(house->server.hello.core, 17);
    assert_memory_equal(house->server.hello.token, hello.token, sizeof hello.token);
    int pid;
    unsigned uid;
    assert_int_equal(shm->peer_credentials(house->server.link, &pid, &uid), RF_OK);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, getuid());
    assert_int_equal(shm->accept(house->server.link, NULL), RF_OK);
    house_progress(house);
    assert_int_equal(house->client.up, 1);
    assert_int_equal(house->server.up, 1);
    assert_int_equal(send_numbers(house->client.link, 0, 5), 5);
    assert_int_equal(expect_numbers(house->server.link, 0, 64), 5);
    char address[RF_ADDRESS_MAX];
    assert_int_equal(shm->endpoint_address(house->server.endpoint, address, sizeof address), RF_OK);
    assert_string_equal(address, house->path);
    house_close(house);
}

static void listener_may_come_later(void **state)
{
    (void)state;
    house_t *house = house_open();
    shm_end_open(&house->client, NULL);
    rf_link_params_t params = {.address = house->path, .socket = -1};
    assert_int_equal(shm->connect(house->client.endpoint, &params, &house->client.link), RF_OK);
    uint64_t next;
    shm->endpoint_progress(house->client.endpoint, rf_clock_ns(), &next);
    assert_true(next != RF_NEVER);
    house_listen(house);
    uint64_t until = rf_clock_ns() + SHM_TEST_DEADLINE_NS;
    while (house->server.incoming == 0 && rf_clock_ns() < until) house_progress(house);
    assert_int_equal(shm->accept(house->server.link, NULL), RF_OK);
    house_progress(house);
    assert_int_equal(house->client.up, 1);
    house_close(house);
}

static void nobody_listens(void **state)
{
    (void)state;
    house_t *house = house_open();
    shm_end_t *client = &house->client;
    rf_endpoint_params_t params = shm_end_params(client);
    params.deadline_ns = 20 * RF_NS_PER_MS;
    assert_int_equal(shm->endpoint_open(&params, &client->endpoint), RF_OK);
    rf_link_params_t link = {.address = house->path, .socket = -1};
    assert_int_equal(shm->connect(client->endpoint, &link, &client->link), RF_OK);
    uint64_t until = rf_clock_ns() + SHM_TEST_DEADLINE_NS;
    while (client->dead == 0 && rf_clock_ns() < until) shm_end_progress(client);
    assert_int_equal(client->dead, 1);
    assert_int_equal(client->why, RF_ERR_NOT_FOUND);
    house_close(house);
}

static void rejection_says_why(void **state)
{
    (void)state;
    house_t *house = house_open();
    house_listen(house);
    shm_end_open(&house->client, NULL);
    rf_link_params_t params = {.address = house->path, .socket = -1};
    assert_int_equal(shm->connect(house->client.endpoint, &params, &house->client.link), RF_OK);
    house_progress(house);
    shm->reject(house->server.link, RF_ERR_PERMISSION);
    house_progress(house);
    assert_int_equal(house->client.dead, 1);
    assert_int_equal(house->client.why, RF_ERR_PERMISSION);
    house_close(house);
}

static void strangers_are_refused(void **state)
{
    (void)state;
    struct {
        rf_err_t err;
        uint16_t major;
        uint8_t machine;
    } cases[] = {{RF_ERR_VERSION, RF_VERSION_MAJOR + 1, 7}, {RF_ERR_AUTH, RF_VERSION_MAJOR, 8}};
    for (unsigned i = 0; i < 2; i++) {
        house_t *house = house_open();
        house_listen(house);
        shm_end_open(&house->client, NULL);
        rf_hello_t hello = shm_end_params(&house->client).self;
        hello.version_major = cases[i].major;
        memset(hello.machine.bytes, cases[i].machine, sizeof hello.machine.bytes);
        rf_link_params_t params = {.address = house->path, .socket = -1, .hello = &hello};
        assert_int_equal(shm->connect(house->client.endpoint, &params, &house->client.link), RF_OK);
        house_progress(house);
        assert_int_equal(house->server.incoming, 0);
        assert_int_equal(house->client.dead, 1);
        assert_int_equal(house->client.why, cases[i].err);
        house_close(house);
    }
}

static void a_path_in_use_is_not_taken(void **state)
{
    (void)state;
    house_t *house = house_open();
    house_listen(house);
    rf_endpoint_params_t params = shm_end_params(&house->client);
    params.address = house->path;
    assert_int_equal(shm->endpoint_open(&params, &house->client.endpoint), RF_ERR_EXISTS);
    house->client.endpoint = NULL;
    house_close(house);
}

static void minor_versions_meet_at_the_lower(void **state)
{
    (void)state;
    shm_end_t a = {0}, b = {0};
    rf_endpoint_params_t params = shm_end_params(&a);
    params.self.version_minor = 9;
    assert_int_equal(shm->endpoint_open(&params, &a.endpoint), RF_OK);
    params = shm_end_params(&b);
    params.self.version_minor = 4;
    assert_int_equal(shm->endpoint_open(&params, &b.endpoint), RF_OK);
    shm_ends_join(&a, &b, 0, 0);
    assert_int_equal(a.link->peer.version_minor, 4);
    assert_int_equal(b.link->peer.version_minor, 4);
    shm_end_close(&a);
    shm_end_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_arrive_in_order),
        cmocka_unit_test(full_is_a_normal_answer),
        cmocka_unit_test(both_rings_full_do_not_deadlock),
        cmocka_unit_test(ring_grows_for_a_long_message),
        cmocka_unit_test(old_acknowledgements_in_slots_are_passed_over),
        cmocka_unit_test(orderly_close_comes_after_the_last_slot),
        cmocka_unit_test(death_comes_after_the_last_slot),
        cmocka_unit_test(what_the_dead_leave_is_unmapped_by_the_fence),
        cmocka_unit_test(death_with_an_empty_ring_needs_only_progress),
        cmocka_unit_test(fence_stops_delivery),
        cmocka_unit_test(remote_writes_have_a_way_of_their_own),
        cmocka_unit_test(room_in_either_ring_is_told),
        cmocka_unit_test(descriptors_pass),
        cmocka_unit_test(listener_sees_the_token),
        cmocka_unit_test(listener_may_come_later),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(rejection_says_why),
        cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(a_path_in_use_is_not_taken),
        cmocka_unit_test(minor_versions_meet_at_the_lower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
