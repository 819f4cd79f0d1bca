/* A command's side of a session, against a supervisor that this test plays: what it sends comes at the moment that the case is about. */
#include "lab/lab.h"

#include "base/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define ALARM_S 60 /* a command that waits for ever fails */

static struct fake {
    lab_place_t place;
    int listener, fd;
    unsigned flushes;
    void (*before_flush)(
        unsigned n); /* the supervisor's turn: before the command sends for the n-th time, from 0 */
} fake;

rf_err_t __real_lab_flush(lab_buffer_t *out, int fd);
rf_err_t __wrap_lab_flush(lab_buffer_t *out, int fd);
rf_err_t __wrap_lab_flush(lab_buffer_t *out, int fd)
{
    if (fake.before_flush) fake.before_flush(fake.flushes++);
    return __real_lab_flush(out, fd);
}

static void fake_accept(void)
{
    fake.fd = accept(fake.listener, NULL, NULL);
    assert_true(fake.fd >= 0);
    /* Nobody else is to be served: what a command asks for afterwards is refused at once. */
    close(fake.listener);
    fake.listener = -1;
    unlink(fake.place.socket);
}

static void fake_send(lab_type_t type, const void *payload, size_t length)
{
    lab_buffer_t out = {.max = LAB_FRAME_MAX};
    assert_int_equal(lab_put(&out, type, 0, payload, length), RF_OK);
    assert_int_equal(__real_lab_flush(&out, fake.fd), RF_OK);
    assert_int_equal(lab_left(&out), 0);
    lab_free(&out);
}

static void fake_exit(uint32_t status)
{
    fake_send(LAB_EXIT, &status, sizeof status);
}

static void fake_close(void)
{
    close(fake.fd);
    fake.fd = -1;
}

static int set_up(void **state)
{
    (void)state;
    fake = (struct fake){.fd = -1};
    snprintf(fake.place.folder, sizeof fake.place.folder, "/tmp/rf-lab-client-XXXXXX");
    assert_non_null(mkdtemp(fake.place.folder));
    int n = snprintf(fake.place.socket, sizeof fake.place.socket, "%.100s/s", fake.place.folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(n > 0 && (size_t)n < sizeof address.sun_path);
    memcpy(address.sun_path, fake.place.socket, (size_t)n);
    fake.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fake.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fake.listener, 4), 0);
    alarm(ALARM_S);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    alarm(0);
    if (fake.fd >= 0) close(fake.fd);
    if (fake.listener >= 0) close(fake.listener);
    unlink(fake.place.socket);
    rmdir(fake.place.folder);
    return 0;
}

/* Runs a program with an empty stdin, and `output` as its stdout. */
static int run_program(int output, unsigned timeout_ms)
{
    static const char *const words[] = {"true"};
    lab_program_t program = {.guest = 1, .timeout_ms = timeout_ms, .arguments = words, .n_arguments = 1};
    fflush(NULL);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int before[2] = {fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)};
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    int status = lab_run_program(&fake.place, &program);
    dup2(before[0], STDIN_FILENO);
    dup2(before[1], STDOUT_FILENO);
    close(before[0]);
    close(before[1]);
    close(null);
    return status;
}

/* ---- the end comes while the command has something to send ---- */

static void output_then_the_end(unsigned n)
{
    if (n == 0) {
        fake_accept();
        fake_send(LAB_OUTPUT, "x", 1);
    } else if (fake.fd >= 0) {
        fake_exit(7);
        fake_close();
    }
}

static void test_an_end_behind_what_cannot_be_sent(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fake.before_flush = output_then_the_end;
    assert_int_equal(run_program(ends[1], 0), 7);
    close(ends[1]);
    char bytes[4];
    assert_int_equal(read(ends[0], bytes, sizeof bytes), 1);
    assert_int_equal(bytes[0], 'x');
    close(ends[0]);
}

static void the_end_at_once(unsigned n)
{
    if (n > 0) return;
    fake_accept();
    fake_exit(9);
    fake_close();
}

static void test_an_end_before_anything_is_sent(void **state)
{
    (void)state;
    fake.before_flush = the_end_at_once;
    assert_int_equal(run_program(STDOUT_FILENO, 0), 9);
}

static void gone_without_a_word(unsigned n)
{
    if (n > 0) return;
    fake_accept();
    fake_close();
}

static void test_a_supervisor_that_has_gone(void **state)
{
    (void)state;
    fake.before_flush = gone_without_a_word;
    assert_int_equal(run_program(STDOUT_FILENO, 0), LAB_LOST);
}

/* ---- nobody reads what it prints ---- */

static void output_and_no_end(unsigned n)
{
    if (n > 0) return;
    fake_accept();
    fake_send(LAB_OUTPUT, "x", 1);
}

static void output_and_the_end(unsigned n)
{
    if (n > 0) return;
    output_and_no_end(n);
    fake_exit(7);
}

static int full_pipe(int ends[2])
{
    static const char bytes[4096];
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    while (write(ends[1], bytes, sizeof bytes) > 0)
        ;
    return fcntl(ends[1], F_SETFL, 0);
}

static void test_a_deadline_holds_while_nobody_reads(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(full_pipe(ends), 0);
    fake.before_flush = output_and_no_end;
    assert_int_equal(run_program(ends[1], 200), LAB_TIMEOUT);
    close(ends[0]);
    close(ends[1]);
}

static void test_a_deadline_holds_after_the_end(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(full_pipe(ends), 0);
    fake.before_flush = output_and_the_end;
    assert_int_equal(run_program(ends[1], 200), LAB_TIMEOUT);
    close(ends[0]);
    close(ends[1]);
}

/* A reader that has gone costs the program nothing. */
static void test_a_reader_that_has_gone(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(full_pipe(ends), 0);
    close(ends[0]);
    fake.before_flush = output_and_the_end;
    assert_int_equal(run_program(ends[1], 0), 7);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_end_behind_what_cannot_be_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_end_before_anything_is_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_supervisor_that_has_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_deadline_holds_while_nobody_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_deadline_holds_after_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_reader_that_has_gone, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("lab_client", tests, NULL, NULL);
}
