/* Hostlists and topology. */
#include "cluster-config/hostlist.h"
#include "cluster-config/topology.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define MAX 16

static rf_err_t expand(const char *text, char *joined, size_t joined_max)
{
    char names[MAX][16], error[128] = "";
    size_t n = 0, used = 0;
    rf_err_t err = rf_hostlist_expand(text, names[0], sizeof names[0], MAX, &n, error, sizeof error);
    joined[0] = '\0';
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(joined + used, joined_max - used, "%s%s", i ? " " : "", names[i]);
    assert_true((err == RF_OK) == (error[0] == '\0'));
    return err;
}

static void test_good(void **state)
{
    (void)state;
    static const struct {
        const char *text, *names;
    } cases[] = {
        {"rack01", "rack01"},
        {"rack[01-03]", "rack01 rack02 rack03"},
        {"rack[8-11]", "rack8 rack9 rack10 rack11"},
        {"rack[08-11,20],login", "rack08 rack09 rack10 rack11 rack20 login"},
        {"a[1,1]", "a1 a1"},
        {"r[1-2]-ib", "r1-ib r2-ib"},
        {"10.0.0.[1-3]", "10.0.0.1 10.0.0.2 10.0.0.3"},
        {"fd00::1,fd00::2", "fd00::1 fd00::2"},
        {"[1-2]", "1 2"},
        {"x[99-101]", "x99 x100 x101"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char joined[256];
        assert_int_equal(expand(cases[i].text, joined, sizeof joined), RF_OK);
        assert_string_equal(joined, cases[i].names);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {"",          ",",
                                      "a,",        "a[",
                                      "a]",        "a[]",
                                      "a[1",       "a[1-]",
                                      "a[-1]",     "a[2-1]",
                                      "a[1][2]",   "a[b]",
                                      "a b",       "a[1,]",
                                      "a[1-2-3]",  "a\x01b",
                                      "a\xc3\xa4", "a[1 - 2]",
                                      "a[[1]]",    "a[1234567890]",
                                      "a;b",       "name-too-long-for-it"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        char joined[256];
        assert_int_equal(expand(bad[i], joined, sizeof joined), RF_ERR_CONFIG);
    }
    char joined[256];
    assert_int_equal(expand("a[0-999999999]", joined, sizeof joined), RF_ERR_LIMIT);
    assert_int_equal(expand("a[1-16],b", joined, sizeof joined), RF_ERR_LIMIT);
}

static void test_topology(void **state)
{
    (void)state;
    rf_topology_t topology;
    assert_int_equal(rf_topology_discover(&topology), RF_OK);
    assert_true(topology.n_cpus >= 1);
    assert_true(topology.memory_bytes > 1 << 20);
    for (unsigned i = 1; i < topology.n_cpus; i++)
        assert_true(topology.cpus[i].cpu > topology.cpus[i - 1].cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_topology),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
