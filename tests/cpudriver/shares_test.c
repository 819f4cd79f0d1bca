/* Shares hold under load, and the monitor is still answered. */
#include "suite.h"

#include "base/clock.h"

#include <poll.h>
#include <stdlib.h>

#define SHARES_SECONDS 10

static int compare_ns(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/*
 * Two reserved shares and a best-effort domain that forks three spinning children, on one core, while the monitor keeps
 * asking. Figures are printed; what is asserted is generous, since others may use the same CPU.
 */
static void measure_shares(unsigned seconds, double slack)
{
    enum { DOMAINS = 3, PROBES_MAX = 20000 };
    static const uint16_t reserved[DOMAINS] = {500, 300, 0};
    static uint64_t answers_ns[PROBES_MAX];
    static const char *const children[DOMAINS] = {"0", "0", "3"};
    rf_kernel_created_t created;
    uint64_t before[DOMAINS], used[DOMAINS], total = 0;
    unsigned probes = 0;
    for (unsigned i = 0; i < DOMAINS; i++)
        assert_int_equal(harness_create(&suite,
                                        &(harness_spawn_t){.domain = i + 1,
                                                           .argv = ARGV(suite_domain, "spin", children[i]),
                                                           .reserved_permille = reserved[i]},
                                        &created, NULL),
                         RF_OK);
    poll(NULL, 0, 1000);
    for (unsigned i = 0; i < DOMAINS; i++) before[i] = suite_stat(i + 1).cpu_ns;
    for (uint64_t end_ns = rf_clock_ns() + seconds * RF_NS_PER_S; rf_clock_ns() < end_ns; poll(NULL, 0, 5)) {
        uint64_t start_ns = rf_clock_ns();
        assert_int_equal(harness_ask(&suite, RF_KERNEL_NULL, NULL, 0, NULL, 0, NULL, 0), RF_OK);
        if (probes < PROBES_MAX) answers_ns[probes++] = rf_clock_ns() - start_ns;
    }
    for (unsigned i = 0; i < DOMAINS; i++) {
        used[i] = suite_stat(i + 1).cpu_ns - before[i];
        total += used[i];
    }
    qsort(answers_ns, probes, sizeof answers_ns[0], compare_ns);
    print_message(
        "over %u s: %.1f %% (50 reserved), %.1f %% (30 reserved), %.1f %% (best effort, 4 processes); "
        "monitor answers: p50 %.3f ms, p99 %.3f ms, worst %.3f ms of %u\n",
        seconds, 100.0 * (double)used[0] / (double)total, 100.0 * (double)used[1] / (double)total,
        100.0 * (double)used[2] / (double)total, (double)answers_ns[probes / 2] / 1e6,
        (double)answers_ns[probes * 99 / 100] / 1e6, (double)answers_ns[probes - 1] / 1e6, probes);
    for (unsigned i = 0; i < 2; i++) {
        double share = 1000.0 * (double)used[i] / (double)total;
        assert_true(share > reserved[i] - 10 * slack && share < reserved[i] + 10 * slack);
    }
}

static void shares_hold(void **state)
{
    (void)state;
    if (!suite.cgroup[0]) {
        print_message("skipped: no cgroup cpu controller for us on this host\n");
        harness_cleanup(&suite);
        skip();
    }
    measure_shares(SHARES_SECONDS, 10);
    harness_stop(&suite);
}

static void slices_hold(void **state)
{
    (void)state;
    measure_shares(SHARES_SECONDS, 20);
    harness_stop(&suite);
}

int main(int argc, char **argv)
{
    if (suite_arguments(argc, argv) != 0) return 2;
    const struct CMUnitTest tests[] = {
        TEST(shares_hold, usual),
        TEST(slices_hold, slices),
    };
    return cmocka_run_group_tests_name("cpudriver shares", tests, NULL, NULL);
}
