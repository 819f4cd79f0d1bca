/* Freezing, changing shares, many dispatchers. */
#include "suite.h"

#include "base/clock.h"

#include <poll.h>
#include <signal.h>

static void freeze_and_thaw(void **state)
{
    rf_kernel_created_t created;
    (void)state;
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 3, .argv = ARGV(suite_domain, "spin", "2")},
                                    &created, NULL),
                     RF_OK);
    poll(NULL, 0, 300);
    assert_int_equal(suite_ask_target(RF_KERNEL_FREEZE, 3), RF_OK);
    poll(NULL, 0, 50);
    rf_kernel_stat_t before = suite_stat(3);
    assert_int_equal(before.frozen, 1);
    assert_int_equal(before.processes, 3);
    poll(NULL, 0, 300);
    assert_true(suite_stat(3).cpu_ns - before.cpu_ns < 20 * RF_NS_PER_MS);
    assert_int_equal(suite_ask_target(RF_KERNEL_THAW, 3), RF_OK);
    for (unsigned i = 0; i < 500 && suite_stat(3).cpu_ns < before.cpu_ns + 50 * RF_NS_PER_MS; i++)
        poll(NULL, 0, 20);
    assert_true(suite_stat(3).cpu_ns >= before.cpu_ns + 50 * RF_NS_PER_MS);
    assert_int_equal(suite_ask_target(RF_KERNEL_FREEZE, 3), RF_OK);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 3), RF_OK); /* frozen or not */
    assert_int_equal(harness_exited(&suite, 3), SIGKILL);
    harness_stop(&suite);
}

static void shares_can_be_changed(void **state)
{
    rf_kernel_created_t created;
    rf_kernel_share_t share = {.domain = 3, .reserved_permille = 600};
    (void)state;
    for (rf_domain_t domain = 3; domain <= 4; domain++)
        assert_int_equal(harness_create(&suite,
                                        &(harness_spawn_t){.domain = domain, .argv = ARGV("sleep", "1000")},
                                        &created, NULL),
                         RF_OK);
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SHARE_SET, &share, sizeof share, NULL, 0, NULL, 0), RF_OK);
    share.domain = 4;
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SHARE_SET, &share, sizeof share, NULL, 0, NULL, 0),
                     RF_ERR_LIMIT);
    share.reserved_permille = 300;
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SHARE_SET, &share, sizeof share, NULL, 0, NULL, 0), RF_OK);
    share = (rf_kernel_share_t){.domain = 3, .weight = 40};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SHARE_SET, &share, sizeof share, NULL, 0, NULL, 0), RF_OK);
    assert_int_equal(suite_stat(3).weight, 40);
    assert_int_equal(suite_stat(3).reserved_permille, 0);
    assert_int_equal(suite_stat(4).reserved_permille, 300);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 4), RF_OK);
    harness_exited(&suite, 4);
    share = (rf_kernel_share_t){.domain = 3, .reserved_permille = 900};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SHARE_SET, &share, sizeof share, NULL, 0, NULL, 0), RF_OK);
    harness_stop(&suite);
}

static void many_dispatchers(void **state)
{
    enum { SLOTS = 128 };
    rf_kernel_created_t created;
    rf_kernel_target_t from = {.domain = 1};
    static rf_kernel_stats_t stats;
    (void)state;
    for (rf_domain_t domain = SLOTS; domain >= 1; domain--)
        assert_int_equal(harness_create(&suite,
                                        &(harness_spawn_t){.domain = domain, .argv = ARGV("sleep", "1000")},
                                        &created, NULL),
                         RF_OK);
    assert_int_equal(
        harness_create(&suite, &(harness_spawn_t){.domain = SLOTS + 1, .argv = ARGV("true")}, &created, NULL),
        RF_ERR_LIMIT);
    for (unsigned seen = 0; seen < SLOTS; seen += stats.n) {
        assert_int_equal(
            harness_ask(&suite, RF_KERNEL_STAT_ALL, &from, sizeof from, NULL, 0, &stats, sizeof stats),
            RF_OK);
        for (unsigned i = 0; i < stats.n; i++) assert_int_equal(stats.stat[i].domain, seen + i + 1);
        assert_int_equal(stats.more, seen + stats.n < SLOTS);
        from.domain = stats.stat[stats.n - 1].domain + 1;
    }
    harness_stop(&suite);
}

int main(int argc, char **argv)
{
    if (suite_arguments(argc, argv) != 0) return 2;
    const struct CMUnitTest tests[] = {
        TEST(freeze_and_thaw, usual),       TEST(freeze_and_thaw, no_isolation),
        TEST(shares_can_be_changed, usual), TEST(shares_can_be_changed, slices),
        TEST(many_dispatchers, usual),
    };
    return cmocka_run_group_tests_name("cpudriver scheduling", tests, NULL, NULL);
}
