/* Listening sockets of rackfishd when there are no descriptors: it must neither spin nor forget who waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#define HANG_NS (60 * RF_NS_PER_S)

typedef struct server {
    rf_loop_t loop;
    rf_listener_t listener;
    unsigned calls, failures;
    int fd, accepted, err;
    struct sockaddr_un address;
} server_t;

static void on_listen(void *context, uint32_t events)
{
    (void)events;
    server_t *server = context;
    server->calls++;
    int fd = rf_listener_accept(&server->listener, NULL, NULL);
    server->err = errno;
    if (fd >= 0) server->accepted = fd;
    if (fd < 0) server->failures++;
}

static void server_open(server_t *server)
{
    socklen_t size = sizeof server->address;
    *server = (server_t){.accepted = -1};
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sa_family_t family = AF_UNIX; /* and nothing else: the kernel chooses a name */
    assert_int_equal(
        bind(server->fd, (struct sockaddr *)&(struct sockaddr_un){.sun_family = family}, sizeof family), 0);
    assert_int_equal(getsockname(server->fd, (struct sockaddr *)&server->address, &size), 0);
    assert_int_equal(listen(server->fd, 4), 0);
    assert_int_equal(rf_loop_init(&server->loop), RF_OK);
    assert_int_equal(rf_listener_open(&server->listener, &server->loop, server->fd, "the test's socket",
                                      on_listen, server),
                     RF_OK);
}

static int dial(const server_t *server)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 6); /* an abstract name of the kernel's */
    assert_int_equal(connect(fd, (const struct sockaddr *)&server->address, size), 0);
    return fd;
}

static void server_close(server_t *server)
{
    rf_listener_close(&server->listener);
    rf_listener_close(&server->listener); /* harmless */
    rf_loop_finish(&server->loop);
    if (server->accepted >= 0) close(server->accepted);
    close(server->fd);
}

static void who_connects_is_accepted(void **state)
{
    (void)state;
    server_t server;
    server_open(&server);
    int fd = dial(&server);
    rf_loop_turn(&server.loop, RF_NEVER);
    assert_true(server.accepted >= 0);
    assert_int_equal(fcntl(server.accepted, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(fcntl(server.accepted, F_GETFD), FD_CLOEXEC);
    close(fd);
    server_close(&server);
}

static void without_descriptors_it_pauses(void **state)
{
    (void)state;
    server_t server;
    struct rlimit before, none;
    server_open(&server);
    int fd = dial(&server);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rf_loop_turn(&server.loop, RF_NEVER);
    int err = server.err;
    bool listens = server.listener.source.active, due = rf_timer_is_set(&server.listener.again);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(server.failures, 1);
    assert_int_equal(err, EMFILE);
    assert_false(listens); /* else it is called again at once, for ever */
    assert_true(due);
    for (uint64_t end_ns = rf_clock_ns() + HANG_NS; server.accepted < 0 && rf_clock_ns() < end_ns;)
        rf_loop_turn(&server.loop, end_ns);
    assert_true(server.accepted >= 0);
    assert_int_equal(server.calls, 2);
    close(fd);
    server_close(&server);
}

static void a_paused_one_can_be_closed(void **state)
{
    (void)state;
    server_t server;
    struct rlimit before, none;
    server_open(&server);
    int fd = dial(&server);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rf_loop_turn(&server.loop, RF_NEVER);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    rf_listener_close(&server.listener);
    assert_null(server.loop.timers);
    close(fd);
    server_close(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_connects_is_accepted),
        cmocka_unit_test(without_descriptors_it_pauses),
        cmocka_unit_test(a_paused_one_can_be_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
