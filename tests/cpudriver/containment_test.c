/* Nothing outlives its domain, its CPU driver or its monitor. */
#include "suite.h"

#include "relay.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void nothing_outlives_its_domain(void **state)
{
    char out[64];
    int fd;
    (void)state;
    assert_int_equal(
        harness_run(&suite, &(harness_spawn_t){.domain = 1, .argv = ARGV(suite_domain, "leave", suite_mark)},
                    out, sizeof out),
        0);
    assert_int_equal(harness_processes_with(suite_mark), 0);
    suite_sleeper(2, "escape", &fd);
    assert_int_equal(harness_processes_with(suite_mark), 4);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 2), RF_OK);
    assert_int_equal(harness_exited(&suite, 2), SIGKILL);
    assert_int_equal(harness_processes_with(suite_mark), 0);
    close(fd);
    suite_sleeper(3, "escape", &fd);
    close(fd);
    harness_stop(&suite); /* TERM is ignored by the runaways */
}

static void killed_driver_leaves_nothing(void **state)
{
    int fd;
    (void)state;
    suite_sleeper(1, "escape", &fd);
    kill(suite.driver, SIGKILL);
    assert_int_equal(harness_driver_status(&suite), 128 + SIGKILL);
    assert_true(harness_gone(suite_mark));
    close(fd);
    harness_cleanup(&suite);
}

static void dead_monitor_ends_the_core(void **state)
{
    int fd;
    (void)state;
    suite_sleeper(1, "escape", &fd);
    relay_t relay = {.type = RELAY_EXIT, .size = 1, .bytes = {5}};
    assert_int_equal(send(suite.sock, &relay, offsetof(relay_t, bytes) + 1, 0), offsetof(relay_t, bytes) + 1);
    assert_int_equal(harness_driver_status(&suite), RF_CPUDRIVER_EXIT_MONITOR);
    assert_int_equal(harness_processes_with(suite_mark), 0);
    close(fd);
    harness_cleanup(&suite);
}

static void monitor_that_ends_in_order_ends_the_core(void **state)
{
    (void)state;
    relay_t relay = {.type = RELAY_EXIT, .size = 1, .bytes = {0}};
    assert_int_equal(send(suite.sock, &relay, offsetof(relay_t, bytes) + 1, 0), offsetof(relay_t, bytes) + 1);
    assert_int_equal(harness_driver_status(&suite), RF_CPUDRIVER_EXIT_OK);
    harness_cleanup(&suite);
}

static void init_killed_by_its_domain(void **state)
{
    (void)state;
    char out[256], script[256], sleeper[64];
    snprintf(sleeper, sizeof sleeper, "sleep 4321.%07d", (int)getpid());
    snprintf(script, sizeof script, "setsid %s & sleep 0.1; kill -9 $PPID; echo alive; sleep 0.3; exit 4",
             sleeper);
    /* With a PID namespace the kernel protects rf-init; without one, the CPU driver notices and cleans up. */
    int status = harness_run(&suite, &(harness_spawn_t){.domain = 1, .argv = ARGV("/bin/sh", "-c", script)},
                             out, sizeof out);
    if (harness_isolates(&suite))
        assert_int_equal(status, 4 << 8);
    else
        assert_true(WIFSIGNALED(status));
    assert_true(harness_gone(sleeper));
    harness_stop(&suite);
}

int main(int argc, char **argv)
{
    if (suite_arguments(argc, argv) != 0) return 2;
    const struct CMUnitTest tests[] = {
        TEST(nothing_outlives_its_domain, usual),
        TEST(nothing_outlives_its_domain, no_isolation),
        TEST(nothing_outlives_its_domain, unprivileged),
        TEST(killed_driver_leaves_nothing, usual),
        TEST(killed_driver_leaves_nothing, no_isolation),
        TEST(killed_driver_leaves_nothing, unprivileged),
        TEST(dead_monitor_ends_the_core, usual),
        TEST(dead_monitor_ends_the_core, no_isolation),
        TEST(monitor_that_ends_in_order_ends_the_core, usual),
        TEST(init_killed_by_its_domain, usual),
        TEST(init_killed_by_its_domain, no_isolation),
        TEST(init_killed_by_its_domain, unprivileged_no_isolation),
    };
    return cmocka_run_group_tests_name("cpudriver containment", tests, NULL, NULL);
}
