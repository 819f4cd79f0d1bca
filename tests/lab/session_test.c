/* The commands' side of the supervisor, whose guests this test plays: what it does when there is no descriptor for a command. */
#include "lab/session.h"

#include "base/clock.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define HANG_NS (60 * RF_NS_PER_S)

lab_supervisor_t lab;
static lab_place_t place;
static lab_options_t options = {.name = "test", .hosts = 2, .device = "rxe"};
static struct pollfd fds[LAB_SESSION_FDS];

bool lab_guest_boot(unsigned g)
{
    (void)g;
    return false;
}

void lab_guest_off(unsigned g)
{
    lab.guests[g].state = LAB_STATE_OFF;
    lab_sessions_guest_off(g);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(place.folder, sizeof place.folder, "/tmp/rf-lab-session-XXXXXX");
    assert_non_null(mkdtemp(place.folder));
    snprintf(place.socket, sizeof place.socket, "%.60s/s", place.folder);
    lab = (lab_supervisor_t){.options = &options, .place = &place, .parts = 2};
    assert_true(lab_sessions_open());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(place.socket);
    rmdir(place.folder);
    return 0;
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, place.socket, strlen(place.socket));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int turn(void)
{
    int again_ms = lab_sessions_prepare(fds);
    if (poll(fds, LAB_SESSION_FDS, again_ms) > 0) lab_sessions_read(fds);
    return again_ms;
}

/* Asks for the end, which the supervisor notes at once. */
static void ask_down(int fd)
{
    lab_buffer_t out = {.max = LAB_FRAME_MAX};
    assert_int_equal(lab_put(&out, LAB_ASK, 0, "down", sizeof "down"), RF_OK);
    assert_int_equal(lab_flush(&out, fd), RF_OK);
    lab_free(&out);
}

static void test_without_descriptors_it_pauses(void **state)
{
    struct rlimit before, none;
    (void)state;
    int fd = dial();
    ask_down(fd);
    assert_int_equal(lab_sessions_prepare(fds), -1);
    assert_int_equal(poll(fds, LAB_SESSION_FDS, 0), 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    lab_sessions_read(fds);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    int again_ms = lab_sessions_prepare(fds);
    if (fds[0].fd >= 0) fail_msg("it would be called again at once, for ever");
    assert_true(again_ms > 0);
    for (uint64_t end_ns = rf_clock_ns() + HANG_NS; !lab.stop && rf_clock_ns() < end_ns;) turn();
    assert_true(lab.stop);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_without_descriptors_it_pauses, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("lab session", tests, NULL, NULL);
}
