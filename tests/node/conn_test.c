/* Framed connections and TLS between nodes, both ends in one thread over socket pairs. */
#include "base/os.h"
#include "node/conn.h"
#include "node/tls.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_NS (20 * RF_NS_PER_S) /* against hanging only */

typedef struct side {
    rf_conn_t *conn;
    unsigned frames, rooms, closed, ready;
    size_t bytes, last_size;
    uint8_t first, last;
    rf_err_t err;
    char why[160];
    bool echo;
} side_t;

static void on_ready(void *context)
{
    ((side_t *)context)->ready++;
}

static void on_frame(void *context, const uint8_t *bytes, size_t size)
{
    side_t *side = context;
    side->frames++;
    side->bytes += size;
    side->last_size = size;
    side->first = size ? bytes[0] : 0;
    side->last = size ? bytes[size - 1] : 0;
    if (side->echo) assert_true(rf_conn_send(side->conn, bytes, size));
}

static void on_room(void *context)
{
    ((side_t *)context)->rooms++;
}

static void on_closed(void *context, rf_err_t err, const char *why)
{
    side_t *side = context;
    side->closed++;
    side->err = err;
    snprintf(side->why, sizeof side->why, "%s", why);
}

static const rf_conn_handlers_t handlers = {
    .on_ready = on_ready, .on_frame = on_frame, .on_room = on_room, .on_closed = on_closed};

typedef struct pair {
    rf_loop_t loop;
    side_t a, b;
    int raw; /* the other end, when b has no connection */
} pair_t;

static void socket_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static void open_pair(pair_t *pair, bool second, const char *key_a, const char *key_b)
{
    int fds[2];
    memset(pair, 0, sizeof *pair);
    assert_int_equal(rf_loop_init(&pair->loop), RF_OK);
    socket_pair(fds);
    rf_tls_t *tls_a = NULL, *tls_b = NULL;
    if (key_a)
        assert_int_equal(rf_tls_open(false, fds[0], (const uint8_t *)key_a, strlen(key_a), &tls_a), RF_OK);
    if (key_b)
        assert_int_equal(rf_tls_open(true, fds[1], (const uint8_t *)key_b, strlen(key_b), &tls_b), RF_OK);
    assert_int_equal(rf_conn_open(&pair->loop, fds[0], tls_a, false, &handlers, &pair->a, &pair->a.conn),
                     RF_OK);
    pair->raw = fds[1];
    if (second)
        assert_int_equal(rf_conn_open(&pair->loop, fds[1], tls_b, false, &handlers, &pair->b, &pair->b.conn),
                         RF_OK);
}

static void close_pair(pair_t *pair)
{
    rf_conn_close(pair->a.conn);
    if (pair->b.conn)
        rf_conn_close(pair->b.conn);
    else
        close(pair->raw);
    rf_loop_finish(&pair->loop);
}

/* Turns the loop until the condition holds. */
#define turn_until(pair, condition)                                                                          \
    do {                                                                                                     \
        uint64_t until = rf_clock_ns() + DEADLINE_NS;                                                        \
        while (!(condition)) {                                                                               \
            assert_true(rf_clock_ns() < until);                                                              \
            rf_loop_turn(&(pair)->loop, rf_clock_ns() + 10 * RF_NS_PER_MS);                                  \
        }                                                                                                    \
    } while (0)

static void decoder_wants_what_is_missing(void **state)
{
    (void)state;
    size_t frame = 0, wanted = 0;
    const uint8_t bytes[] = {3, 0, 0, 0, 'a', 'b', 'c', 9};
    assert_int_equal(rf_frame_decode(bytes, 0, &frame, &wanted), RF_ERR_AGAIN);
    assert_int_equal(wanted, 4);
    assert_int_equal(rf_frame_decode(bytes, 6, &frame, &wanted), RF_ERR_AGAIN);
    assert_int_equal(wanted, 7);
    assert_int_equal(rf_frame_decode(bytes, 8, &frame, &wanted), RF_OK);
    assert_int_equal(frame, 3);
    const uint8_t large[] = {1, 0, 0x10, 0};
    assert_int_equal(rf_frame_decode(large, 4, &frame, &wanted), RF_ERR_PROTOCOL);
    const uint8_t largest[] = {0, 0, 0x10, 0};
    assert_int_equal(rf_frame_decode(largest, 4, &frame, &wanted), RF_ERR_AGAIN);
}

static void frames_cross(pair_t *pair)
{
    pair->b.echo = true;
    uint8_t *frame = calloc(1, RF_FRAME_MAX);
    frame[0] = 7;
    frame[RF_FRAME_MAX - 1] = 9;
    assert_true(rf_conn_send(pair->a.conn, "", 0));
    for (unsigned i = 1; i <= 1000; i++) assert_true(rf_conn_send(pair->a.conn, frame, i));
    assert_true(rf_conn_send(pair->a.conn, frame, RF_FRAME_MAX));
    turn_until(pair, pair->a.frames == 1002);
    assert_int_equal(pair->a.bytes, 1000 * 1001 / 2 + RF_FRAME_MAX);
    assert_int_equal(pair->a.last_size, RF_FRAME_MAX);
    assert_int_equal(pair->a.first, 7);
    assert_int_equal(pair->a.last, 9);
    free(frame);
}

static void plain_frames_cross(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, true, NULL, NULL);
    frames_cross(&pair);
    close_pair(&pair);
}

static void encrypted_frames_cross(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, true, "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef");
    frames_cross(&pair);
    assert_int_equal(pair.a.ready, 1);
    assert_int_equal(pair.b.ready, 1);
    close_pair(&pair);
}

static void another_key_is_refused(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, true, "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdeX");
    assert_true(rf_conn_send(pair.a.conn, "secret", 6));
    turn_until(&pair, pair.b.closed == 1);
    assert_int_equal(pair.b.err, RF_ERR_AUTH);
    turn_until(&pair, pair.a.closed == 1);
    assert_int_equal(pair.a.err, RF_ERR_AUTH);
    assert_non_null(strstr(pair.a.why, "key"));
    assert_int_equal(pair.b.frames, 0);
    assert_int_equal(pair.a.ready + pair.b.ready, 0);
    close_pair(&pair);
}

static void garbage_ends_a_handshake(void **state)
{
    (void)state;
    pair_t pair;
    int fds[2];
    memset(&pair, 0, sizeof pair);
    rf_loop_init(&pair.loop);
    socket_pair(fds);
    rf_tls_t *tls;
    assert_int_equal(rf_tls_open(true, fds[0], (const uint8_t *)"0123456789abcdef", 16, &tls), RF_OK);
    assert_int_equal(rf_conn_open(&pair.loop, fds[0], tls, false, &handlers, &pair.a, &pair.a.conn), RF_OK);
    pair.raw = fds[1];
    const char *request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_int_equal(write(pair.raw, request, strlen(request)), (ssize_t)strlen(request));
    turn_until(&pair, pair.a.closed == 1);
    assert_int_equal(pair.a.err, RF_ERR_PROTOCOL);
    assert_int_equal(pair.a.ready, 0);
    close_pair(&pair);
}

static void a_frame_too_long_ends_the_connection(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, false, NULL, NULL);
    const uint8_t large[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    assert_int_equal(write(pair.raw, large, sizeof large), sizeof large);
    turn_until(&pair, pair.a.closed == 1);
    assert_int_equal(pair.a.err, RF_ERR_PROTOCOL);
    assert_false(rf_conn_send(pair.a.conn, "x", 1));
    close_pair(&pair);
}

static void a_peer_that_does_not_read_is_cut_off(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, false, NULL, NULL);
    uint8_t *frame = calloc(1, RF_FRAME_MAX);
    unsigned sent = 0;
    while (sent < 100 && rf_conn_send(pair.a.conn, frame, RF_FRAME_MAX)) sent++;
    assert_in_range(sent, 2, 20);
    assert_true(rf_conn_full(pair.a.conn));
    assert_int_equal(pair.a.closed, 0); /* never from inside a call */
    turn_until(&pair, pair.a.closed == 1);
    assert_int_equal(pair.a.err, RF_ERR_LIMIT);
    free(frame);
    close_pair(&pair);
}

static void room_is_told_once_it_is_there(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, true, NULL, NULL);
    uint8_t *frame = calloc(1, RF_FRAME_MAX);
    rf_conn_pause(pair.b.conn);
    while (!rf_conn_full(pair.a.conn)) assert_true(rf_conn_send(pair.a.conn, frame, RF_FRAME_MAX));
    rf_loop_turn(&pair.loop, 0);
    assert_int_equal(pair.a.rooms, 0);
    assert_int_equal(pair.b.frames, 0);
    rf_conn_resume(pair.b.conn);
    turn_until(&pair, pair.a.rooms == 1 && rf_conn_queued(pair.a.conn) == 0);
    free(frame);
    close_pair(&pair);
}

static void finishing_sends_what_is_queued(void **state)
{
    (void)state;
    pair_t pair;
    open_pair(&pair, true, NULL, NULL);
    uint8_t *frame = calloc(1, RF_FRAME_MAX);
    for (unsigned i = 0; i < 4; i++) assert_true(rf_conn_send(pair.a.conn, frame, RF_FRAME_MAX));
    rf_conn_finish(pair.a.conn, 10000);
    turn_until(&pair, pair.b.closed == 1);
    assert_int_equal(pair.b.frames, 4);
    assert_int_equal(pair.a.closed, 0);
    assert_int_equal(pair.b.err, RF_ERR_CLOSED);
    free(frame);
    rf_conn_close(pair.b.conn);
    rf_loop_finish(&pair.loop);
}

static void count_up(void *context)
{
    ++*(unsigned *)context;
}

static void timers_fire_in_order_and_can_be_cleared(void **state)
{
    (void)state;
    rf_loop_t loop;
    unsigned a = 0, b = 0, c = 0;
    rf_timer_t first = {0}, second = {0}, third = {0};
    assert_int_equal(rf_loop_init(&loop), RF_OK);
    uint64_t now = rf_clock_ns();
    rf_timer_set(&loop, &third, now + DEADLINE_NS, count_up, &c);
    rf_timer_set(&loop, &second, now + 2000, count_up, &b);
    rf_timer_set(&loop, &first, now + 1000, count_up, &a);
    assert_ptr_equal(loop.timers, &first);
    rf_timer_clear(&second);
    while (!a) rf_loop_turn(&loop, rf_clock_ns() + RF_NS_PER_MS);
    assert_int_equal(b, 0);
    assert_int_equal(c, 0);
    assert_false(rf_timer_is_set(&first));
    assert_true(rf_timer_is_set(&third));
    rf_timer_clear(&third);
    rf_loop_finish(&loop);
}

static void derived_keys_differ_by_all_that_goes_in(void **state)
{
    (void)state;
    uint8_t a[32], b[32];
    rf_machine_id_t one = {{1}}, two = {{2}};
    const uint8_t key[32] = {5};
    assert_int_equal(rf_key_derive(key, sizeof key, &one, "links", a), RF_OK);
    assert_int_equal(rf_key_derive(key, sizeof key, &one, "links", b), RF_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(rf_key_derive(key, sizeof key, &two, "links", b), RF_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(rf_key_derive(key, sizeof key, &one, "other", b), RF_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(rf_key_derive(key, sizeof key - 1, &one, "links", b), RF_OK);
    assert_memory_not_equal(a, b, sizeof a);
    char alice[65], bob[65];
    assert_int_equal(rf_control_token(key, sizeof key, &one, "alice", alice), RF_OK);
    assert_int_equal(rf_control_token(key, sizeof key, &one, "bob", bob), RF_OK);
    assert_int_equal(strlen(alice), 64);
    assert_string_not_equal(alice, bob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoder_wants_what_is_missing),
        cmocka_unit_test(plain_frames_cross),
        cmocka_unit_test(encrypted_frames_cross),
        cmocka_unit_test(another_key_is_refused),
        cmocka_unit_test(garbage_ends_a_handshake),
        cmocka_unit_test(a_frame_too_long_ends_the_connection),
        cmocka_unit_test(a_peer_that_does_not_read_is_cut_off),
        cmocka_unit_test(room_is_told_once_it_is_there),
        cmocka_unit_test(finishing_sends_what_is_queued),
        cmocka_unit_test(timers_fire_in_order_and_can_be_cleared),
        cmocka_unit_test(derived_keys_differ_by_all_that_goes_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
