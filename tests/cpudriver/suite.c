#include "suite.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

harness_t suite;
char suite_domain[512], suite_mark[32];

harness_params_t usual = {.cgroup = true};
harness_params_t slices = {.sched = RF_SCHED_SIGNALS};
harness_params_t no_isolation = {.sched = RF_SCHED_SIGNALS, .no_namespaces = true};
harness_params_t unprivileged = {.uid = 65534};
harness_params_t unprivileged_no_isolation = {.uid = 65534, .no_namespaces = true};
harness_params_t privileged = {.cgroup = true, .uid = 65534, .privileged = true};

void suite_run(void **state)
{
    const suite_case_t *test = *state;
    void *params = test->params;
    harness_start(&suite, test->params);
    test->run(&params);
}

int suite_stop(void **state)
{
    (void)state;
    harness_give_up(&suite);
    return 0;
}

int suite_arguments(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s PROGRAMS TESTS [PATTERN]\n", argv[0]);
        return 2;
    }
    harness_bin = argv[1];
    harness_tests = argv[2];
    if (argc > 3) cmocka_set_test_filter(argv[3]);
    snprintf(suite_mark, sizeof suite_mark, "mark-%d", (int)getpid());
    snprintf(suite_domain, sizeof suite_domain, "%s/rf-test-domain", harness_tests);
    return 0;
}

rf_domain_t suite_sleeper(rf_domain_t domain, const char *what, int *out)
{
    rf_kernel_created_t created;
    char line[256];
    assert_int_equal(
        harness_create(&suite,
                       &(harness_spawn_t){.domain = domain, .argv = ARGV(suite_domain, what, suite_mark)},
                       &created, out),
        RF_OK);
    assert_true(created.pid > 0);
    harness_read(*out, line, sizeof line, true);
    assert_string_equal(line, "ready\n");
    return domain;
}

rf_err_t suite_ask_target(uint16_t op, rf_domain_t domain)
{
    rf_kernel_target_t target = {.domain = domain};
    return harness_ask(&suite, op, &target, sizeof target, NULL, 0, NULL, 0);
}

void suite_expect_failure(const harness_spawn_t *spawn, rf_err_t err, int os_errno, const char *what)
{
    rf_kernel_created_t created;
    rf_err_t got = harness_create(&suite, spawn, &created, NULL);
    if (got != err || (int)created.os_errno != os_errno || strcmp(created.what, what) != 0)
        fail_msg("%s '%s' errno %u instead of %s '%s' errno %d", rf_err_name(got), created.what,
                 created.os_errno, rf_err_name(err), what, os_errno);
}

rf_kernel_stat_t suite_stat(rf_domain_t domain)
{
    rf_kernel_target_t from = {.domain = domain};
    static rf_kernel_stats_t stats;
    assert_int_equal(
        harness_ask(&suite, RF_KERNEL_STAT_ALL, &from, sizeof from, NULL, 0, &stats, sizeof stats), RF_OK);
    assert_true(stats.n >= 1);
    assert_int_equal(stats.stat[0].domain, domain);
    return stats.stat[0];
}
