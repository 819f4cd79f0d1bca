/* What the tests of the real CPU driver share: one driver at a time, fixtures, and the usual questions. */
#ifndef RF_TESTS_CPUDRIVER_SUITE_H
#define RF_TESTS_CPUDRIVER_SUITE_H

#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

extern harness_t suite;
/* Path of the program that tests run as a domain; and an argument of it, so that tests beside this one do not count. */
extern char suite_domain[512], suite_mark[32];

/* How a CPU driver is started: fixtures. */
extern harness_params_t usual, slices, no_isolation, unprivileged, unprivileged_no_isolation, privileged;

/* One test with one fixture. The driver is started in the test itself, since only there cmocka lets it be skipped. */
typedef struct suite_case {
    void (*run)(void **state); /* *state: the fixture */
    harness_params_t *params;
} suite_case_t;
void suite_run(void **state);
int suite_stop(void **state);
#define TEST(f, params)                                                                                      \
    ((struct CMUnitTest){#f " (" #params ")", suite_run, NULL, suite_stop, &(suite_case_t){f, &params}})

/* argv: folder of programs, folder of test programs, and a pattern of tests. 2: misuse. */
int suite_arguments(int argc, char **argv);

/* A domain that has said "ready", and is still there when its signal comes. */
rf_domain_t suite_sleeper(rf_domain_t domain, const char *what, int *out);
rf_err_t suite_ask_target(uint16_t op, rf_domain_t domain);
void suite_expect_failure(const harness_spawn_t *spawn, rf_err_t err, int os_errno, const char *what);
rf_kernel_stat_t suite_stat(rf_domain_t domain);

#endif
