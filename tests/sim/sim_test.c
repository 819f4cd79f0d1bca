/* The simulator's own parts: the search for linearizability, histories as text, knobs, models, and replay to the bit. */
#include "sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static bool read_history(const char *text, sim_history_t *history)
{
    char why[256];
    FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    assert_non_null(in);
    bool ok = sim_history_read(history, in, why, sizeof why);
    fclose(in);
    return ok;
}

static sim_linearizable_t judge(const char *text)
{
    sim_history_t history;
    char why[256];
    assert_true(read_history(text, &history));
    sim_linearizable_t result = check_linearizable(&history, 1000000, why, sizeof why);
    sim_history_free(&history);
    return result;
}

static void test_histories_that_are_linearizable(void **state)
{
    (void)state;
    assert_int_equal(judge("0 1 2 get k - none\n"), SIM_LINEARIZABLE);
    assert_int_equal(judge("0 1 2 put k a ok\n0 3 4 get k - a\n"), SIM_LINEARIZABLE);
    /* concurrent: either order */
    assert_int_equal(judge("0 1 9 put k a ok\n1 2 8 put k b ok\n2 10 11 get k - a\n"), SIM_LINEARIZABLE);
    assert_int_equal(judge("0 1 9 put k a ok\n1 2 8 put k b ok\n2 10 11 get k - b\n"), SIM_LINEARIZABLE);
    /* called at the time at which another returns: concurrent */
    assert_int_equal(judge("0 1 5 put k a ok\n1 5 6 get k - none\n"), SIM_LINEARIZABLE);
    /* without an outcome: late, or never */
    assert_int_equal(judge("0 1 - put k a ?\n1 5 6 get k - none\n1 7 8 get k - a\n"), SIM_LINEARIZABLE);
    assert_int_equal(judge("0 1 - put k a ?\n1 5 6 get k - none\n"), SIM_LINEARIZABLE);
    assert_int_equal(judge("0 1 2 put k a failed\n1 5 6 get k - none\n"), SIM_LINEARIZABLE);
    assert_int_equal(
        judge("0 1 2 cas k none>a ok\n0 3 4 cas k b>c no\n0 5 6 cas k a>b ok\n0 7 8 delete k - ok\n"
              "0 9 10 delete k - none\n"),
        SIM_LINEARIZABLE);
    /* the example of doc/history.md */
    assert_int_equal(
        judge("0 1000 2500 put name a ok\n1 1200 2600 get name - none\n1 3000 3900 cas name a>b ok\n"
              "2 3100 - delete name - ?\n0 5000 5600 get name - b\n"),
        SIM_LINEARIZABLE);
}

static void test_histories_that_are_not(void **state)
{
    (void)state;
    assert_int_equal(judge("0 1 2 get k - a\n"), SIM_NOT_LINEARIZABLE);
    assert_int_equal(judge("0 1 2 put k a ok\n0 3 4 get k - none\n"), SIM_NOT_LINEARIZABLE); /* lost */
    assert_int_equal(judge("0 1 2 put k a ok\n0 3 4 put k b ok\n1 5 6 get k - a\n"),
                     SIM_NOT_LINEARIZABLE); /* stale */
    assert_int_equal(judge("0 1 9 put k a ok\n1 2 3 get k - a\n1 4 5 get k - none\n"), SIM_NOT_LINEARIZABLE);
    assert_int_equal(judge("0 1 2 cas k none>a ok\n1 3 4 cas k none>b ok\n"), SIM_NOT_LINEARIZABLE);
    assert_int_equal(judge("0 1 2 put k a ok\n0 3 4 delete k - ok\n1 5 6 delete k - ok\n"),
                     SIM_NOT_LINEARIZABLE);
    assert_int_equal(judge("0 1 2 put k a failed\n1 5 6 get k - a\n"), SIM_NOT_LINEARIZABLE);
    /* an unknown one cannot take effect before its call */
    assert_int_equal(judge("1 1 2 get k - a\n0 3 - put k a ?\n"), SIM_NOT_LINEARIZABLE);
    /* executed twice: the second time after it was overwritten */
    assert_int_equal(judge("0 1 2 put k a ok\n0 3 4 put k b ok\n1 5 6 get k - b\n1 7 8 get k - a\n"),
                     SIM_NOT_LINEARIZABLE);
}

static void test_text_that_is_no_history(void **state)
{
    (void)state;
    static const char *const bad[] = {"0 1 2 put k a\n",    "0 1 2 put k a ok more\n", "x 1 2 put k a ok\n",
                                      "0 2 1 put k a ok\n", "0 1 2 swap k a ok\n",     "0 1 2 get k a a\n",
                                      "0 1 2 cas k a ok\n", "0 1 2 put k a no\n",      "0 1 - put k a ok\n",
                                      "0 1 2 put k a ?\n",  "0 1 2 cas k a> ok\n",     "-1 1 2 put k a ok\n"};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sim_history_t history;
        assert_false(read_history(bad[i], &history));
        sim_history_free(&history);
    }
}

static void test_history_is_written_as_it_is_read(void **state)
{
    (void)state;
    static const char text[] = "# client call return operation key argument result\n"
                               "0 1 2 put name a%20b ok\n1 2 - cas name none>c ?\n2 3 4 cas name a>c no\n"
                               "3 5 6 get name - none\n4 7 8 delete name - ok\n5 9 10 put other x failed\n";
    sim_history_t history;
    assert_true(read_history(text, &history));
    char *written = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&written, &size);
    sim_history_write(&history, out);
    fclose(out);
    assert_string_equal(written, text);
    free(written);
    sim_history_free(&history);
}

static void test_knobs(void **state)
{
    (void)state;
    sim_knob_choice_t choice;
    char why[128];
    assert_true(sim_knobs_parse("none", &choice, why, sizeof why));
    assert_int_equal(choice.values.crash, 0);
    assert_true(sim_knobs_parse("none,loss=2.5,one-way=3", &choice, why, sizeof why));
    assert_int_equal(choice.values.loss, 25000);
    assert_int_equal(choice.values.one_way, 3000);
    assert_int_equal(choice.fixed.loss, 1);
    assert_true(sim_knobs_parse("storm,crash=0", &choice, why, sizeof why));
    assert_true(choice.values.partition > 0 && choice.values.crash == 0);
    assert_false(sim_knobs_parse("lose", &choice, why, sizeof why));
    assert_false(sim_knobs_parse("loss=101", &choice, why, sizeof why));
    assert_false(sim_knobs_parse("loss=x", &choice, why, sizeof why));
    assert_false(sim_knobs_parse("loss=-1", &choice, why, sizeof why));
}

static void test_distributions(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 7);
    const sim_distribution_t d = {{100, 200, 300, 1000, 2000, 5000}};
    unsigned below = 0, tail = 0;
    uint64_t sum = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t ns = sim_distribution_draw(&d, &prng);
        assert_in_range(ns, 100, 5000);
        below += ns < 200;
        tail += ns >= 1000;
        sum += sim_exponential(&prng, 5000);
    }
    assert_in_range(below, 49000, 51000);
    assert_in_range(tail, 850, 1150);
    assert_in_range(sum / 100000, 4700, 5300);
}

static uint64_t run(uint64_t seed, const char *faults, sim_verdict_t *verdict)
{
    static sim_statistics_t statistics;
    char why[128];
    sim_options_t options = {.seed = seed,
                             .seeds = 1,
                             .operations = 200,
                             .jobs = 1,
                             .plan = -1,
                             .leases = -1,
                             .events_max = 10000000};
    assert_true(sim_knobs_parse(faults, &options.knobs, why, sizeof why));
    uint64_t hash;
    *verdict = sim_run(&options, seed, &statistics, &hash);
    return hash;
}

static void test_a_seed_replays_to_the_bit(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        sim_verdict_t first, again;
        uint64_t a = run(seed, seed % 2 ? "all" : "storm", &first),
                 b = run(seed, seed % 2 ? "all" : "storm", &again);
        assert_int_equal(a, b);
        assert_int_equal(first, again);
        assert_int_equal(first, SIM_OK);
    }
    sim_verdict_t verdict;
    assert_int_not_equal(run(1, "all", &verdict), run(2, "all", &verdict));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histories_that_are_linearizable),
        cmocka_unit_test(test_histories_that_are_not),
        cmocka_unit_test(test_text_that_is_no_history),
        cmocka_unit_test(test_history_is_written_as_it_is_read),
        cmocka_unit_test(test_knobs),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_a_seed_replays_to_the_bit),
    };
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
