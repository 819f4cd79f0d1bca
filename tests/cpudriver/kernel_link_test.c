/* Kernel links of real dispatchers: identity, timers, descriptors, signals, rights, hostility. */
#include "suite.h"

#include "base/clock.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void run_domain(const char *what)
{
    char out[1024];
    int status = harness_run(&suite, &(harness_spawn_t){.domain = 1, .argv = ARGV(suite_domain, what)}, out,
                             sizeof out);
    if (status != 0) fail_msg("domain %s: status %d: %s", what, status, out);
    if (out[0]) print_message("%s: %s", what, out);
}

static void timers_come_as_messages(void **state)
{
    (void)state;
    run_domain("timers");
    harness_stop(&suite);
}

static void descriptors_come_as_messages(void **state)
{
    (void)state;
    run_domain("watches");
    harness_stop(&suite);
}

static void rights_are_checked(void **state)
{
    (void)state;
    run_domain("rights");
    run_domain("null");
    harness_stop(&suite);
}

static void identity_and_way_to_the_monitor(void **state)
{
    rf_kernel_created_t created;
    harness_event_t event;
    char text[128];
    int out;
    (void)state;
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 17,
                                                       .index = 2,
                                                       .argv = ARGV(suite_domain, "identify"),
                                                       .span_args = "abc"},
                                    &created, &out),
                     RF_OK);
    harness_read(out, text, sizeof text, true);
    assert_string_equal(text, "domain 17.2 core 0 span abc\n");
    harness_event(&suite, RF_KERNEL_EVENT_STARTED, 17, &event);
    assert_true(event.fd >= 0);
    char ping[8];
    struct pollfd p = {.fd = event.fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, HARNESS_WAIT_MS), 1);
    assert_int_equal(recv(event.fd, ping, sizeof ping, 0), 5);
    assert_int_equal(send(event.fd, "pong", 5, 0), 5);
    close(event.fd);
    harness_read(out, text, sizeof text, false);
    assert_string_equal(text, "");
    assert_int_equal(harness_exited(&suite, 17), 0);
    close(out);
    rf_kernel_identity_t identity;
    assert_int_equal(harness_ask(&suite, RF_KERNEL_IDENTIFY, NULL, 0, NULL, 0, &identity, sizeof identity),
                     RF_OK);
    assert_int_equal(identity.domain, RF_DOMAIN_NONE);
    print_message("scheduler: %s\nisolation: %s\n", identity.scheduler, identity.isolation);
    harness_stop(&suite);
}

static void signals_come_as_messages(void **state)
{
    int out;
    char text[256];
    (void)state;
    suite_sleeper(1, "signals", &out);
    rf_kernel_signal_t signal = {.domain = 1, .signo = SIGUSR1};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0), RF_OK);
    signal.signo = SIGTERM;
    signal.whole = 1;
    poll(NULL, 0, 50);
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0), RF_OK);
    harness_read(out, text, sizeof text, false);
    assert_string_equal(text, "");
    assert_int_equal(harness_exited(&suite, 1), 0);
    close(out);
    harness_stop(&suite);
}

static void hostile_dispatcher_harms_only_itself(void **state)
{
    rf_kernel_created_t created;
    char text[256];
    int out, flood;
    (void)state;
    suite_sleeper(2, "flood", &flood);
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 1, .argv = ARGV(suite_domain, "hostile")},
                                    &created, &out),
                     RF_OK);
    uint64_t worst_ns = 0;
    for (unsigned i = 0; i < 50; i++) {
        uint64_t start_ns = rf_clock_ns();
        assert_int_equal(harness_ask(&suite, RF_KERNEL_NULL, NULL, 0, NULL, 0, NULL, 0), RF_OK);
        if (rf_clock_ns() - start_ns > worst_ns) worst_ns = rf_clock_ns() - start_ns;
        poll(NULL, 0, 5);
    }
    print_message("monitor's worst invocation beside a flood: %.1f ms\n", (double)worst_ns / 1e6);
    harness_read(out, text, sizeof text, false);
    assert_string_equal(text, "");
    assert_int_equal(harness_exited(&suite, 1), 0);
    close(out);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 2), RF_OK);
    harness_exited(&suite, 2);
    close(flood);
    run_domain("timers"); /* the next one is served as ever */
    harness_stop(&suite);
}

int main(int argc, char **argv)
{
    if (suite_arguments(argc, argv) != 0) return 2;
    const struct CMUnitTest tests[] = {
        TEST(identity_and_way_to_the_monitor, usual),
        TEST(identity_and_way_to_the_monitor, unprivileged),
        TEST(timers_come_as_messages, usual),
        TEST(descriptors_come_as_messages, usual),
        TEST(signals_come_as_messages, usual),
        TEST(rights_are_checked, usual),
        TEST(hostile_dispatcher_harms_only_itself, usual),
    };
    return cmocka_run_group_tests_name("cpudriver kernel links", tests, NULL, NULL);
}
