/* Freezing, changing shares, many dispatchers. */
#include "suite.h"

#include "base/clock.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

static void freeze_and_thaw(void **state)
{
    rf_kernel_created_t created;
    (void)state;
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 3, .argv = ARGV(suite_domain, "spin", "2")},
                                    &created, NULL),
                     RF_OK);
    for (unsigned i = 0; i < 500 && suite_stat(3).processes < 3; i++) poll(NULL, 0, 20);
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

/* What it has said since it was last asked, or before it ended. */
static size_t said(int out)
{
    char bytes[4096];
    size_t n = 0;
    ssize_t more = 1;
    struct pollfd p = {.fd = out, .events = POLLIN};
    while (more > 0 && poll(&p, 1, 0) == 1) {
        more = read(out, bytes, sizeof bytes);
        if (more > 0) n += (size_t)more;
    }
    return n;
}

static bool is_silent(int out)
{
    said(out);
    poll(NULL, 0, 200);
    return said(out) == 0;
}

/* For a second. One that was in the kernel when it was frozen may get through with that before. */
static bool falls_silent(int out)
{
    unsigned silent = 0;
    for (unsigned i = 0; i < 100 && silent < 5; i++) silent = is_silent(out) ? silent + 1 : 0;
    return silent == 5;
}

static void freeze_all(bool frozen)
{
    rf_kernel_freeze_all_t body = {.frozen = frozen};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_FREEZE_ALL, &body, sizeof body, NULL, 0, NULL, 0), RF_OK);
}

/* Nobody says anything to the CPU driver when the lease ends. */
static void a_lease_that_ends_freezes(void **state)
{
    static const char talk[] = "while :; do echo; sleep 0.01; done";
    rf_kernel_created_t created;
    int out, other;
    (void)state;
    assert_int_equal(harness_create(&suite, &(harness_spawn_t){.domain = 3, .argv = ARGV("sh", "-c", talk)},
                                    &created, &out),
                     RF_OK);
    uint64_t ends_ns = rf_clock_boot_ns() + 3 * RF_NS_PER_S; /* to be put off before that */
    harness_lease(&suite, ends_ns);
    assert_int_equal(harness_ask(&suite, RF_KERNEL_NULL, NULL, 0, NULL, 0, NULL, 0), RF_OK);
    harness_lease(&suite,
                  ends_ns + RF_NS_PER_S); /* put off while the CPU driver sleeps: it finds that out itself */
    for (unsigned i = 0; i < 300 && !suite_stat(3).frozen; i++) poll(NULL, 0, 100);
    assert_true(rf_clock_boot_ns() >= ends_ns + RF_NS_PER_S);
    assert_int_equal(suite_stat(3).frozen, 1);
    assert_true(falls_silent(out));

    freeze_all(false); /* the monitor does not want it frozen; the lease does */
    assert_true(is_silent(out));
    assert_int_equal(harness_create(&suite, &(harness_spawn_t){.domain = 4, .argv = ARGV("sh", "-c", talk)},
                                    &created, &other),
                     RF_OK);
    for (unsigned i = 0; i < 300 && !suite_stat(4).frozen; i++) poll(NULL, 0, 100);
    assert_int_equal(suite_stat(4).frozen, 1);
    assert_true(falls_silent(other));

    harness_lease(&suite, rf_clock_boot_ns() + 1000 * RF_NS_PER_S); /* which nobody says: it looks again */
    bool both = false; /* not at any time, where they take turns by signals */
    for (unsigned i = 0; i < 100 && !both; i++) both = !is_silent(out) && !is_silent(other);
    assert_true(both);
    assert_int_equal(suite_stat(3).frozen, 0);
    freeze_all(true); /* the lease does not matter */
    assert_true(falls_silent(out));
    freeze_all(false);
    harness_stop(&suite);
    close(out);
    close(other);
}

/* It may have been expelled: what is frozen is ended as it is, and runs no more, not even to end in order. */
static void a_frozen_core_ends_without_a_thaw(void **state)
{
    static const char talk[] = "trap 'echo ends; exit' TERM; while :; do echo; sleep 0.01; done";
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        bool by_lease = i > 0;
        rf_kernel_created_t created;
        int out;
        assert_int_equal(harness_create(&suite,
                                        &(harness_spawn_t){.domain = 3, .argv = ARGV("sh", "-c", talk)},
                                        &created, &out),
                         RF_OK);
        if (by_lease) harness_lease(&suite, rf_clock_boot_ns());
        freeze_all(!by_lease);
        assert_true(falls_silent(out));
        harness_stop(&suite);
        assert_int_equal(said(out), 0);
        close(out);
        if (!by_lease) harness_start(&suite, *state);
    }
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

/*
 * Slices: a process whose stop has not reached it when it is to go on does not stand still for ever afterwards. The first domain is due more
 * than half, so that the second is stopped while its first process cannot be.
 */
static void who_stops_late_goes_on(void **state)
{
    (void)state;
    rf_kernel_created_t created;
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 1,
                                                       .argv = ARGV(suite_domain, "spin", "0"),
                                                       .reserved_permille = 600},
                                    &created, NULL),
                     RF_OK);
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 2, .argv = ARGV(suite_domain, "late")},
                                    &created, NULL),
                     RF_OK);
    uint64_t until_ns = rf_clock_ns() + 60 * RF_NS_PER_S;
    while (suite_stat(2).cpu_ns < RF_NS_PER_S / 2 && rf_clock_ns() < until_ns) poll(NULL, 0, 20);
    assert_true(suite_stat(2).cpu_ns >= RF_NS_PER_S / 2); /* half of it after its child */
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
        TEST(freeze_and_thaw, usual),
        TEST(freeze_and_thaw, no_isolation),
        TEST(a_lease_that_ends_freezes, usual),
        TEST(a_lease_that_ends_freezes, no_isolation),
        TEST(a_frozen_core_ends_without_a_thaw, usual),
        TEST(a_frozen_core_ends_without_a_thaw, no_isolation),
        TEST(shares_can_be_changed, usual),
        TEST(shares_can_be_changed, slices),
        TEST(who_stops_late_goes_on, slices),
        TEST(many_dispatchers, usual),
    };
    return cmocka_run_group_tests_name("cpudriver scheduling", tests, NULL, NULL);
}
