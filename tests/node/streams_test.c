/* The streams of a program that rackfishd started, without a program: the test has its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/run_streams.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TTY_EOF 0x04

static void end_of_input(rf_run_streams_t *streams)
{
    Rackfish__RunData data;
    rackfish__run_data__init(&data);
    data.stream = RACKFISH__RUN_STREAM__STDIN;
    data.end = true;
    assert_int_equal(rf_run_streams_data(streams, &data), RF_OK);
}

/* Its end is a byte: a program that does not read for a while must be told of it all the same. A pipe stands in for the
 * terminal, since it is known when one is full. */
static void a_full_terminal_is_told_its_end_later(void **state)
{
    (void)state;
    int fds[2];
    uint8_t bytes[4096] = {0};
    rf_daemon_t *daemon = calloc(1, sizeof *daemon);
    assert_non_null(daemon);
    assert_int_equal(rf_loop_init(&daemon->loop), RF_OK);
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    while (write(fds[1], bytes, sizeof bytes) > 0) continue;
    rf_run_streams_t streams = {.daemon = daemon, .tty = true, .stdin_fd = fds[1]};
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++) streams.outputs[i].fd = -1;
    end_of_input(&streams);
    assert_int_equal(streams.stdin_fd, fds[1]);
    assert_true(streams.stdin_watched);
    bool told = false;
    for (ssize_t n; !told && (n = read(fds[0], bytes, sizeof bytes)) > 0;) {
        told = memchr(bytes, TTY_EOF, (size_t)n) != NULL;
        rf_loop_turn(&daemon->loop, rf_clock_ns());
    }
    assert_true(told);
    assert_int_equal(streams.stdin_fd, -1);
    assert_false(streams.stdin_watched);
    rf_run_streams_close(&streams);
    close(fds[0]);
    rf_loop_finish(&daemon->loop);
    free(daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_terminal_is_told_its_end_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
