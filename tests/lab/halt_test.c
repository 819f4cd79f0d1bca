/* Whether processes stand still, and have gone, by this host's word. */
#include "lab/halt.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ALARM_S 60 /* a wait without an end fails */

static pid_t sleeper(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
}

/* A child that has one, whose pid it tells. */
static pid_t parent_of_sleeper(pid_t *grandchild)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pid_t child = sleeper();
        if (write(ends[1], &child, sizeof child) != sizeof child) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(ends[0], grandchild, sizeof *grandchild), sizeof *grandchild);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static void stop(pid_t pid)
{
    char path[64], state = 0;
    assert_int_equal(kill(pid, SIGSTOP), 0);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    while (state != 'T') {
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%*d %*s %c", &state), 1);
        fclose(file);
    }
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static void test_stands(void **state)
{
    (void)state;
    char why[160] = "", wanted[64];
    pid_t grandchild, child = parent_of_sleeper(&grandchild);
    assert_false(lab_guest_stands(getpid(), 1, why, sizeof why));
    snprintf(wanted, sizeof wanted, "process %d (", (int)child);
    assert_non_null(strstr(why, wanted));
    stop(child);
    /* A child's child counts where all are asked for, and only there. */
    assert_true(lab_guest_stands(getpid(), 1, why, sizeof why));
    assert_false(lab_guest_stands(getpid(), UINT_MAX, why, sizeof why));
    snprintf(wanted, sizeof wanted, "process %d (", (int)grandchild);
    assert_non_null(strstr(why, wanted));
    stop(grandchild);
    assert_true(lab_guest_stands(getpid(), UINT_MAX, why, sizeof why));
    end(child);
}

/* One that nobody has killed stands for one that cannot be: the wait ends all the same, and says which. */
static void test_wait_ended(void **state)
{
    (void)state;
    pid_t pids[3] = {sleeper(), 0, sleeper()}, left = pids[2];
    kill(pids[0], SIGKILL);
    alarm(ALARM_S);
    while (pids[0]) assert_false(lab_wait_ended(pids, 3, rf_clock_ns()));
    assert_int_equal(pids[2], left);
    kill(left, SIGKILL);
    assert_true(lab_wait_ended(pids, 3, RF_NEVER));
    assert_int_equal(pids[2], 0);
    alarm(0);
}

static void test_process_text(void **state)
{
    (void)state;
    char text[160];
    pid_t pid = sleeper();
    stop(pid);
    lab_process_text(pid, text, sizeof text);
    assert_non_null(strstr(text, "state T"));
    end(pid);
    lab_process_text(pid, text, sizeof text);
    assert_null(strstr(text, "state"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stands),
        cmocka_unit_test(test_wait_ended),
        cmocka_unit_test(test_process_text),
    };
    return cmocka_run_group_tests_name("lab_halt", tests, NULL, NULL);
}
