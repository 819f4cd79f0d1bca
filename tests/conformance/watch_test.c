/* What watch.c tells of a case that hangs, and that it ends it: each in a process of its own, whose standard error is read. */
#include "conformance.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOLD_MAX 65536

/* The status with which a process ends that is `hangs`, and what it told. */
static int ends_with(void (*hangs)(void), char told[TOLD_MAX])
{
    int ends[2], status;
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        dup2(ends[1], STDOUT_FILENO); /* a case that fails there goes on as this program does */
        close(ends[0]);
        watch_start();
        watch_case("the_case");
        hangs();
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t k; n < TOLD_MAX - 1 && (k = read(ends[0], told + n, TOLD_MAX - 1 - n)) > 0;) n += (size_t)k;
    told[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void says(const char *told, const char *text)
{
    if (!strstr(told, text)) fail_msg("nothing says \"%s\": %s", text, told);
}

static void blocks_in_a_call(void)
{
    hang_check(rf_clock_ns(), "something before");
    for (;;) pause();
}

static void a_blocked_case_ends(void **state)
{
    static char told[TOLD_MAX];
    (void)state;
    assert_int_equal(ends_with(blocks_in_a_call, told), 1);
    says(told, "the_case is blocked");
    says(told, "waited for something before");
    says(told, "thread ");
    says(told, "test_conformance_watch("); /* a frame of the thread's own word */
    assert_null(strstr(told, "does not answer"));
}

/* One that no signal reaches. */
static void blocks_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (;;) pause();
}

static void a_thread_that_does_not_answer_is_no_obstacle(void **state)
{
    static char told[TOLD_MAX];
    (void)state;
    assert_int_equal(ends_with(blocks_signals, told), 1);
    says(told, "does not answer");
}

/* Between cases nobody is blocked. */
static void rests(void)
{
    watch_case(NULL);
    usleep(3 * CONFORMANCE_BLOCKED_MS * 1000);
}

static void who_rests_is_let_alone(void **state)
{
    static char told[TOLD_MAX];
    (void)state;
    assert_int_equal(ends_with(rests, told), 0);
    assert_string_equal(told, "");
}

static void waits_too_long(void)
{
    hang_check(rf_clock_ns() - CONFORMANCE_HANG_NS - 1, "Godot");
}

static void a_wait_without_end_fails(void **state)
{
    static char told[TOLD_MAX];
    (void)state;
    assert_int_not_equal(ends_with(waits_too_long, told), 0);
    says(told, "the_case waits in vain for Godot");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_blocked_case_ends),
        cmocka_unit_test(a_thread_that_does_not_answer_is_no_obstacle),
        cmocka_unit_test(who_rests_is_let_alone),
        cmocka_unit_test(a_wait_without_end_fails),
    };
    return cmocka_run_group_tests_name("conformance_watch", tests, NULL, NULL);
}
