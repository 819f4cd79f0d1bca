/*
 * Who is refused: on the bootstrap port of a waiting rackfishd, whoever does not hold the key or does not fit; on its control
 * socket, garbage and strangers. None of it may cost the node anything.
 */
#include "harness.h"

#include "base/os.h"
#include "base/types.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static harness_t h;
static pid_t node1;

static int set_up(void **state)
{
    (void)state;
    harness_open(&h, 2);
    node1 = harness_start(&h, 1, NULL, false, NULL);
    close(harness_control(&h, 1));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    harness_close(&h);
    return 0;
}

/* ---- bootstrap port ---- */

/* Sends the hello; the message of the refusal that must follow. */
static const char *refusal(Rackfish__Node__PeerHello *hello, rf_err_t wanted)
{
    static char text[1024];
    static uint8_t bytes[1 << 16];
    blocking_t b;
    assert_true(blocking_tls(&h, harness_connect(&h, 1), false, &b));
    assert_true(blocking_send_hello(&b, hello));
    ssize_t size = blocking_receive(&b, bytes, sizeof bytes);
    assert_true(size > 0);
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, (size_t)size);
    assert_non_null(frame);
    assert_int_equal(frame->kind_case, RACKFISH__NODE__PEER_FRAME__KIND_REFUSED);
    assert_int_equal(frame->refused->err, wanted);
    snprintf(text, sizeof text, "%s", frame->refused->message);
    rf_peer_frame_free(frame);
    assert_int_equal(blocking_receive(&b, bytes, sizeof bytes), -1);
    blocking_close(&b);
    assert_true(harness_lives(node1));
    return text;
}

static void another_version_is_refused_with_a_reason(void **state)
{
    (void)state;
    Rackfish__Node__PeerHello hello;
    harness_hello(&h, &hello);
    hello.major = 9;
    assert_non_null(strstr(refusal(&hello, RF_ERR_VERSION), "same release"));
}

static void another_configuration_is_refused_and_the_difference_named(void **state)
{
    (void)state;
    Rackfish__Node__PeerHello hello;
    uint8_t digest[32] = {1};
    char machine[] = "machine=m", encrypt[] = "encrypt=off";
    char *lines[] = {machine, encrypt};
    harness_hello(&h, &hello);
    hello.config_digest.data = digest;
    hello.config = lines;
    hello.n_config = 2;
    assert_non_null(strstr(refusal(&hello, RF_ERR_CONFIG), "encrypt=on here, encrypt=off there"));
}

static void a_node_that_claims_to_be_this_one_is_refused(void **state)
{
    (void)state;
    Rackfish__Node__PeerHello hello;
    char name[] = "node1";
    harness_hello(&h, &hello);
    hello.node = 1;
    hello.node_name = name;
    assert_non_null(strstr(refusal(&hello, RF_ERR_EXISTS), "two hosts"));
    hello.node = 7;
    refusal(&hello, RF_ERR_CONFIG);
}

static void the_lower_index_does_not_dial(void **state)
{
    (void)state;
    Rackfish__Node__PeerHello hello;
    harness_hello(&h, &hello);
    refusal(&hello, RF_ERR_PROTOCOL);
}

static void a_wrong_number_of_cores_is_refused(void **state)
{
    (void)state;
    Rackfish__Node__PeerHello hello;
    harness_hello(&h, &hello);
    hello.n_cores = 5;
    refusal(&hello, RF_ERR_CONFIG);
    hello.n_cores = 100000;
    refusal(&hello, RF_ERR_PROTOCOL);
}

static void garbage_costs_nothing(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    for (unsigned i = 0; i < 50; i++) {
        int fd = harness_connect(&h, 1);
        rf_err_t ignored = rf_write_all(fd, memset(bytes, (int)(i * 37), sizeof bytes), sizeof bytes);
        (void)ignored;
        close(fd);
    }
    assert_true(harness_log_has(&h, "node1/rackfishd.log", "to the bootstrap port"));
    Rackfish__Node__PeerHello hello;
    harness_hello(&h, &hello);
    hello.major = RF_PEER_MAJOR + 1;
    refusal(&hello, RF_ERR_VERSION); /* who holds the key is still heard */
}

static void half_open_connections_give_way(void **state)
{
    (void)state;
    int fds[64];
    for (unsigned i = 0; i < 64; i++) fds[i] = harness_connect(&h, 1);
    Rackfish__Node__PeerHello hello;
    harness_hello(&h, &hello);
    hello.major = RF_PEER_MAJOR + 1;
    refusal(&hello, RF_ERR_VERSION);
    char byte;
    assert_true(recv(fds[0], &byte, 1, 0) <= 0); /* the oldest were closed to make room */
    for (unsigned i = 0; i < 64; i++) close(fds[i]);
    assert_true(harness_lives(node1));
}

static void garbage_inside_tls_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[256];
    blocking_t b;
    assert_true(blocking_tls(&h, harness_connect(&h, 1), false, &b));
    memset(bytes, 0xff, sizeof bytes);
    assert_true(blocking_send(&b, bytes, sizeof bytes));
    assert_int_equal(blocking_receive(&b, bytes, sizeof bytes), -1);
    blocking_close(&b);
    assert_true(harness_lives(node1));
}

static void another_key_is_refused_on_both_sides(void **state)
{
    (void)state;
    pid_t node0 = harness_start(&h, 0, "another key, of 32 bytes or more.", false, NULL);
    assert_true(harness_log_has(&h, "node1/rackfishd.log", "does not hold this machine's key"));
    assert_true(harness_log_has(&h, "node0/rackfishd.log", "does not hold this machine's key"));
    assert_true(harness_lives(node0));
    assert_true(harness_lives(node1));
    kill(node0, SIGTERM);
    assert_int_equal(waitpid(node0, NULL, 0), node0);
}

/* ---- control socket ---- */

static ssize_t control_ask(int fd, Rackfish__ControlRequest *request, uint8_t *bytes, size_t max)
{
    uint8_t packed[4096];
    blocking_t b = {.fd = fd};
    size_t size = rackfish__control_request__pack(request, packed);
    if (!blocking_send(&b, packed, size)) return -1;
    return blocking_receive(&b, bytes, max);
}

static Rackfish__ControlReply *control_hello(int fd, uint32_t major)
{
    static uint8_t bytes[1 << 16];
    Rackfish__Hello hello;
    rackfish__hello__init(&hello);
    Rackfish__ControlRequest request;
    rackfish__control_request__init(&request);
    hello.major = major;
    request.id = 1;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_HELLO;
    request.hello = &hello;
    ssize_t size = control_ask(fd, &request, bytes, sizeof bytes);
    return size > 0 ? rf_control_reply_unpack(bytes, (size_t)size) : NULL;
}

static void hello_is_answered_while_booting(void **state)
{
    (void)state;
    int fd = harness_control(&h, 1);
    Rackfish__ControlReply *reply = control_hello(fd, 1);
    assert_non_null(reply);
    assert_int_equal(reply->kind_case, RACKFISH__CONTROL_REPLY__KIND_HELLO);
    assert_string_equal(reply->hello->machine, "m");
    assert_string_equal(reply->hello->node, "node1");
    rf_control_reply_free(reply);

    uint8_t bytes[4096];
    Rackfish__Empty empty;
    rackfish__empty__init(&empty);
    Rackfish__ControlRequest request;
    rackfish__control_request__init(&request);
    request.id = 2;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_STATUS;
    request.status = &empty;
    ssize_t size = control_ask(fd, &request, bytes, sizeof bytes);
    assert_true(size > 0);
    reply = rf_control_reply_unpack(bytes, (size_t)size);
    assert_int_equal(reply->id, 2);
    assert_int_equal(reply->err, RF_ERR_PEER_DEAD);
    assert_non_null(strstr(reply->message, "no monitor of node node1"));
    rf_control_reply_free(reply);
    close(fd);
}

/* Reads the hello of node 1 and says node 0's. */
static bool hellos_cross(blocking_t *b, Rackfish__Node__PeerPurpose purpose)
{
    static uint8_t bytes[1 << 16];
    Rackfish__Node__PeerHello hello;
    ssize_t size = blocking_receive(b, bytes, sizeof bytes);
    Rackfish__Node__PeerFrame *frame = size > 0 ? rf_peer_frame_unpack(bytes, (size_t)size) : NULL;
    if (!frame) return false;
    assert_int_equal(frame->kind_case, RACKFISH__NODE__PEER_FRAME__KIND_HELLO);
    assert_int_equal(frame->hello->purpose, purpose);
    rf_peer_frame_free(frame);
    harness_hello(&h, &hello);
    return blocking_send_hello(b, &hello);
}

/* Of connections to node 0 that its kernel has not let in: how many there were since `ports` was cleared. */
static unsigned tries_seen(bool ports[1 << 16])
{
    char line[256];
    unsigned n = 0, from, to, state;
    FILE *table = fopen("/proc/net/tcp", "r");
    assert_non_null(table);
    while (fgets(line, sizeof line, table)) {
        if (sscanf(line, " %*u: %*x:%x %*x:%x %x", &from, &to, &state) == 3 && to == h.ports[0] &&
            state == 2 /* SYN sent */)
            ports[from & 0xffff] = true;
    }
    fclose(table);
    for (unsigned i = 0; i < 1 << 16; i++) n += ports[i];
    return n;
}

static void a_lost_connect_is_tried_again_and_loses_nothing(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 16];
    static bool ports[1 << 16];
    blocking_t standing, session;
    while (!blocking_accept(&h, 0, &standing) ||
           !hellos_cross(&standing, RACKFISH__NODE__PEER_PURPOSE__STANDING))
        blocking_close(&standing); /* dials of earlier tests, which node 1 has given up */
    assert_true(harness_log_has(&h, "node1/rackfishd.log", "node node0 is connected"));

    /* A kernel whose queue is full drops what asks for a place in it, as a bad wire would. */
    assert_int_equal(listen(h.listen_fds[0], 0), 0);
    int filler = harness_connect(&h, 0);
    int control = harness_control(&h, 1);
    rf_control_reply_free(control_hello(control, 1));
    Rackfish__Empty empty;
    rackfish__empty__init(&empty);
    Rackfish__ControlRequest request;
    rackfish__control_request__init(&request);
    request.id = 2;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_LINKS;
    request.links = &empty;
    blocking_t client = {.fd = control};
    size_t size = rackfish__control_request__pack(&request, bytes);
    assert_true(blocking_send(&client, bytes, size));
    struct pollfd answered = {.fd = control, .events = POLLIN};
    while (tries_seen(ports) < 3) assert_int_equal(poll(&answered, 1, 10), 0); /* it has not given up */
    assert_int_equal(listen(h.listen_fds[0], 16), 0);
    close(accept(h.listen_fds[0], NULL, NULL));
    close(filler);

    assert_true(blocking_accept(&h, 0, &session));
    assert_true(hellos_cross(&session, RACKFISH__NODE__PEER_PURPOSE__CONTROL));
    ssize_t got = blocking_receive(&session, bytes, sizeof bytes);
    assert_true(got > 0);
    Rackfish__ControlRequest *asked = rf_control_request_unpack(bytes, (size_t)got);
    assert_non_null(asked);
    assert_int_equal(asked->kind_case, RACKFISH__CONTROL_REQUEST__KIND_LINKS);
    Rackfish__ControlReply answer;
    rackfish__control_reply__init(&answer);
    answer.id = asked->id;
    rf_control_request_free(asked);
    size = rackfish__control_reply__pack(&answer, bytes);
    assert_true(blocking_send(&session, bytes, size));
    got = blocking_receive(&client, bytes, sizeof bytes);
    assert_true(got > 0);
    Rackfish__ControlReply *reply = rf_control_reply_unpack(bytes, (size_t)got);
    assert_non_null(reply);
    assert_string_equal(reply->message, ""); /* nobody was out of reach */
    assert_false(reply->more);
    rf_control_reply_free(reply);
    blocking_close(&session);
    blocking_close(&standing);
    close(control);
}

static void another_major_version_is_refused(void **state)
{
    (void)state;
    int fd = harness_control(&h, 1);
    Rackfish__ControlReply *reply = control_hello(fd, 99);
    assert_non_null(reply);
    assert_int_equal(reply->err, RF_ERR_VERSION);
    rf_control_reply_free(reply);
    close(fd);
}

static void control_garbage_is_closed(void **state)
{
    (void)state;
    uint8_t bytes[1 << 16];
    const struct {
        uint8_t bytes[16];
        size_t size;
    } cases[] = {
        {{0xff, 0xff, 0xff, 0xff}, 4},             /* too long */
        {{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 8}, /* no protobuf */
        {{2, 0, 0, 0, 0x08, 0x01}, 6},             /* a request before hello */
        {{'G', 'E', 'T', ' ', '/', '\n'}, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = harness_control(&h, 1);
        blocking_t b = {.fd = fd};
        assert_int_equal(rf_write_all(fd, cases[i].bytes, cases[i].size), RF_OK);
        ssize_t size;
        while ((size = blocking_receive(&b, bytes, sizeof bytes)) >= 0) {
            Rackfish__ControlReply *reply = rf_control_reply_unpack(bytes, (size_t)size);
            assert_non_null(reply);
            assert_int_equal(reply->err, RF_ERR_PROTOCOL);
            rf_control_reply_free(reply);
        }
        close(fd);
    }
    assert_true(harness_lives(node1));
}

static void a_foreign_user_is_refused(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: only root can be somebody else\n");
        return;
    }
    close(harness_control(&h, 1));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint8_t bytes[4096];
        if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0) _exit(2);
        blocking_t b = {.fd = harness_control(&h, 1)};
        ssize_t size = blocking_receive(&b, bytes, sizeof bytes);
        Rackfish__ControlReply *reply = size > 0 ? rf_control_reply_unpack(bytes, (size_t)size) : NULL;
        bool refused = reply && reply->err == RF_ERR_PERMISSION && strstr(reply->message, "users:");
        _exit(refused && blocking_receive(&b, bytes, sizeof bytes) < 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(harness_log_has(&h, "node1/rackfishd.log", "refused user nobody"));
}

static void a_second_rackfishd_is_refused(void **state)
{
    (void)state;
    char text[512];
    int ready_fd, status;
    pid_t second = harness_start(&h, 1, NULL, false, &ready_fd);
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    ssize_t n = read(ready_fd, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = 0;
    assert_non_null(strstr(text, "error node node1 of machine m is running already"));
    close(ready_fd);
    close(harness_control(&h, 1)); /* and the first is not disturbed */
}

static void down_leaves_nothing(void **state)
{
    (void)state;
    int status;
    kill(node1, SIGTERM);
    assert_int_equal(waitpid(node1, &status, 0), node1);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(access(h.run_dir, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_is_answered_while_booting),
        cmocka_unit_test(another_version_is_refused_with_a_reason),
        cmocka_unit_test(another_configuration_is_refused_and_the_difference_named),
        cmocka_unit_test(a_node_that_claims_to_be_this_one_is_refused),
        cmocka_unit_test(the_lower_index_does_not_dial),
        cmocka_unit_test(a_wrong_number_of_cores_is_refused),
        cmocka_unit_test(garbage_costs_nothing),
        cmocka_unit_test(half_open_connections_give_way),
        cmocka_unit_test(garbage_inside_tls_is_refused),
        cmocka_unit_test(another_key_is_refused_on_both_sides),
        cmocka_unit_test(a_lost_connect_is_tried_again_and_loses_nothing),
        cmocka_unit_test(another_major_version_is_refused),
        cmocka_unit_test(control_garbage_is_closed),
        cmocka_unit_test(a_foreign_user_is_refused),
        cmocka_unit_test(a_second_rackfishd_is_refused),
        cmocka_unit_test(down_leaves_nothing),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
