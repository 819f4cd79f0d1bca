/* A guest's line: the window, what is beyond it, and whom it wakes. Times are this test's. */
#include "lab/line.h"

#include "base/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define START      (1000 * RF_NS_PER_S)
#define BUFFER_MAX (1 << 20)

typedef struct fixture {
    lab_line_t line;
    int guest; /* its end */
} fixture_t;

static int set_up(void **state)
{
    static fixture_t f;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    lab_line_open(&f.line, ends[0], BUFFER_MAX, START);
    f.guest = ends[1];
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_t *f = *state;
    lab_line_close(&f->line);
    close(f->guest);
    return 0;
}

/* What the guest reads, at most `max` bytes. */
static size_t guest_reads(fixture_t *f, size_t max)
{
    static uint8_t bytes[BUFFER_MAX];
    ssize_t n = recv(f->guest, bytes, max < sizeof bytes ? max : sizeof bytes, 0);
    return n > 0 ? (size_t)n : 0;
}

static void put_bytes(fixture_t *f, size_t size)
{
    static uint8_t bytes[BUFFER_MAX];
    assert_int_equal(lab_append(&f->line.out, bytes, size), RF_OK);
}

static void test_window(void **state)
{
    fixture_t *f = *state;
    put_bytes(f, 5000);
    assert_int_equal(lab_line_flush(&f->line, START), RF_OK);
    assert_int_equal(guest_reads(f, SIZE_MAX), LAB_LINE_WINDOW);
    assert_int_equal(lab_line_unread(&f->line), LAB_LINE_WINDOW);
    lab_line_taken(&f->line, 1000, START);
    assert_int_equal(lab_line_flush(&f->line, START), RF_OK);
    assert_int_equal(guest_reads(f, SIZE_MAX), 1000);
    /* More than was sent is not believed. */
    lab_line_taken(&f->line, 1 << 30, START);
    assert_int_equal(lab_line_unread(&f->line), 0);
    assert_int_equal(f->line.room, LAB_LINE_WINDOW);
}

/* Runs the supervisor's part until `until`: the bytes that it sends meanwhile. */
static size_t run(fixture_t *f, bool busy, uint64_t *now, uint64_t until)
{
    size_t sent = 0;
    for (;;) {
        uint64_t due = lab_line_due(&f->line, busy);
        if (due > until) break;
        if (due > *now) *now = due;
        lab_line_nudge(&f->line, busy, *now);
        assert_int_equal(lab_line_flush(&f->line, *now), RF_OK);
        sent += guest_reads(f, SIZE_MAX);
    }
    *now = until;
    return sent;
}

/* A guest that has missed its interrupt, the window used up: single bytes of what waits, seldomer and seldomer, never too many. */
static void test_window_used_up(void **state)
{
    fixture_t *f = *state;
    uint64_t now = START;
    put_bytes(f, 5000);
    assert_int_equal(lab_line_flush(&f->line, now), RF_OK);
    assert_int_equal(guest_reads(f, SIZE_MAX), LAB_LINE_WINDOW);
    size_t first = run(f, true, &now, START + RF_NS_PER_S);
    assert_true(first >= 1 && first <= 3);
    assert_true(lab_line_silent_ns(&f->line, now) == RF_NS_PER_S);
    size_t more = run(f, true, &now, START + 20000 * RF_NS_PER_S);
    assert_int_equal(first + more, LAB_LINE_BEYOND);
    assert_int_equal(lab_line_unread(&f->line), LAB_LINE_WINDOW + LAB_LINE_BEYOND);
    /* It wakes, reads all, and the window is what it was; nothing was lost or sent twice. */
    lab_line_taken(&f->line, LAB_LINE_WINDOW + LAB_LINE_BEYOND, now);
    assert_int_equal(f->line.room, LAB_LINE_WINDOW);
    assert_int_equal(f->line.beyond, 0);
    assert_true(lab_line_silent_ns(&f->line, now + RF_NS_PER_S) == 0);
    assert_int_equal(lab_line_flush(&f->line, now), RF_OK);
    assert_int_equal(guest_reads(f, SIZE_MAX), 5000 - LAB_LINE_WINDOW - LAB_LINE_BEYOND);
}

/* All was sent, and is not read: empty frames, which are whole. */
static void test_all_was_sent(void **state)
{
    fixture_t *f = *state;
    uint64_t now = START;
    assert_int_equal(lab_put_u32(&f->line.out, LAB_SIGNAL, 1, 15), RF_OK);
    assert_int_equal(lab_line_flush(&f->line, now), RF_OK);
    assert_int_equal(guest_reads(f, SIZE_MAX), 12);
    size_t nudges = run(f, false, &now, START + 10 * RF_NS_PER_S);
    assert_true(nudges >= 8 && nudges % 8 == 0);
    assert_int_equal(lab_line_unread(&f->line), 12 + nudges);
    /* The first of its answers ends the silence, the last one the nudges. */
    lab_line_taken(&f->line, 12, now);
    assert_true(lab_line_silent_ns(&f->line, now) == 0);
    lab_line_taken(&f->line, nudges, now);
    assert_true(lab_line_due(&f->line, false) == RF_NEVER);
}

/* A guest in which programs run and that says nothing may be unable to: one frame, now and then; it owes an answer from then on. */
static void test_quiet(void **state)
{
    fixture_t *f = *state;
    uint64_t now = START;
    assert_true(lab_line_due(&f->line, false) == RF_NEVER);
    assert_int_equal(run(f, false, &now, START + 100 * RF_NS_PER_S), 0);
    assert_true(lab_line_due(&f->line, true) < START + 10 * RF_NS_PER_S);
    lab_line_nudge(&f->line, true, now);
    assert_int_equal(lab_line_flush(&f->line, now), RF_OK);
    lab_frame_t frame;
    lab_buffer_t in = {.max = BUFFER_MAX};
    assert_int_equal(lab_read(&in, f->guest), RF_OK);
    assert_int_equal(lab_next(&in, &frame), RF_OK);
    assert_int_equal(frame.type, LAB_NUDGE);
    assert_int_equal(lab_next(&in, &frame), RF_ERR_AGAIN);
    lab_free(&in);
    assert_true(lab_line_silent_ns(&f->line, now + RF_NS_PER_S) == RF_NS_PER_S);
    /* What it says, whatever that is, begins the time anew. */
    assert_int_equal(send(f->guest, "x", 1, 0), 1);
    now += RF_NS_PER_S;
    assert_int_equal(lab_line_read(&f->line, now), RF_OK);
    assert_true(lab_line_silent_ns(&f->line, now) == 0);
    lab_line_taken(&f->line, 8, now);
    assert_true(lab_line_due(&f->line, true) > now + RF_NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_window, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_window_used_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_was_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_quiet, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("lab_line", tests, NULL, NULL);
}
