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

/* By trying every order of every choice of unknown ones: what linearizable means, and nothing else. */
static bool any_order(const sim_operation_t *o, unsigned n, unsigned placed, uint32_t value)
{
    bool all = true;
    for (unsigned i = 0; i < n; i++) {
        if (placed >> i & 1) continue;
        bool known = o[i].outcome == SIM_DONE;
        all &= !known;
        bool first = true;
        for (unsigned k = 0; k < n; k++)
            first &= placed >> k & 1 || o[k].outcome != SIM_DONE || o[k].return_ns >= o[i].call_ns;
        if (!first) continue;
        bool fits = true;
        uint32_t next = value;
        if (o[i].kind == SIM_PUT) next = o[i].value;
        if (o[i].kind == SIM_GET) fits = !known || value == o[i].value;
        if (o[i].kind == SIM_CAS) {
            fits = !known || o[i].success == (value == o[i].expected);
            if (value == o[i].expected) next = o[i].value;
        }
        if (o[i].kind == SIM_DELETE) {
            fits = !known || o[i].success == (value != SIM_ABSENT);
            next = SIM_ABSENT;
        }
        if (fits && any_order(o, n, placed | 1u << i, next)) return true;
    }
    return all;
}

static void test_small_histories_are_judged_as_by_trying_all_orders(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 3);
    unsigned yes = 0, no = 0;
    for (unsigned round = 0; round < 60000; round++) {
        sim_operation_t o[7] = {0};
        unsigned n = 2 + (unsigned)rf_prng_below(&prng, 6), n_values = 2 + (unsigned)rf_prng_below(&prng, 4);
        bool distinct = rf_prng_below(&prng, 2), wide = rf_prng_below(&prng, 2);
        for (unsigned i = 0; i < n; i++) {
            static const uint8_t kinds[] = {SIM_PUT, SIM_GET, SIM_GET, SIM_CAS, SIM_DELETE};
            o[i].kind = kinds[rf_prng_below(&prng, sizeof kinds)];
            o[i].call_ns = 1 + rf_prng_below(&prng, 14);
            o[i].return_ns = o[i].call_ns + rf_prng_below(&prng, wide ? 14 : 4);
            o[i].outcome = rf_prng_below(&prng, 4) ? SIM_DONE : SIM_UNKNOWN;
            if (o[i].outcome == SIM_UNKNOWN) o[i].return_ns = RF_NEVER;
            o[i].success = rf_prng_below(&prng, 2);
            if (o[i].kind == SIM_GET && o[i].outcome == SIM_DONE)
                o[i].value = (uint32_t)rf_prng_below(&prng, n_values);
            if (o[i].kind == SIM_PUT || o[i].kind == SIM_CAS)
                o[i].value = distinct ? i + 1 : 1 + (uint32_t)rf_prng_below(&prng, n_values);
            if (o[i].kind == SIM_CAS) o[i].expected = (uint32_t)rf_prng_below(&prng, n_values);
        }
        sim_history_t history = {.operations = o, .n = n, .max = n};
        char why[256];
        bool expected = any_order(o, n, 0, SIM_ABSENT);
        sim_linearizable_t found = check_linearizable(&history, 1000000, why, sizeof why);
        if (found != (expected ? SIM_LINEARIZABLE : SIM_NOT_LINEARIZABLE)) {
            sim_history_write(&history, stderr);
            fail_msg("round %u: found %d", round, (int)found);
        }
        yes += expected;
        no += !expected;
    }
    assert_true(yes > 5000 && no > 5000);
}

/* A register of 40 clients that lose an eighth of their answers: the search must come to an end. */
static void test_many_unknown_outcomes_are_decided(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        sim_history_t history = {0};
        rf_prng_t prng;
        rf_prng_seed(&prng, seed);
        uint32_t value = SIM_ABSENT, last = 0;
        uint64_t busy_until_ns[40] = {0};
        for (uint64_t now_ns = 100; now_ns < 40000; now_ns += rf_prng_below(&prng, 20)) {
            unsigned client = (unsigned)rf_prng_below(&prng, 40);
            if (busy_until_ns[client] >= now_ns) continue;
            busy_until_ns[client] = now_ns + rf_prng_below(&prng, 100);
            sim_operation_t o = {.client = client,
                                 .kind = (uint8_t)(SIM_PUT + rf_prng_below(&prng, 4)),
                                 .call_ns = now_ns - rf_prng_below(&prng, 90),
                                 .return_ns = busy_until_ns[client],
                                 .outcome = SIM_DONE,
                                 .success = true};
            if (o.kind == SIM_PUT || o.kind == SIM_CAS) o.value = ++last;
            if (o.kind == SIM_CAS) o.expected = rf_prng_below(&prng, 3) ? value : last - 1;
            if (o.kind == SIM_CAS) o.success = value == o.expected;
            if (o.kind == SIM_DELETE) o.success = value != SIM_ABSENT;
            if (o.kind == SIM_GET) o.value = value;
            bool lost = rf_prng_below(&prng, 8) == 0, executed = !lost || rf_prng_below(&prng, 2);
            if (executed && (o.kind == SIM_PUT || (o.kind == SIM_CAS && o.success))) value = o.value;
            if (executed && o.kind == SIM_DELETE) value = SIM_ABSENT;
            if (lost) {
                o.outcome = SIM_UNKNOWN;
                o.return_ns = RF_NEVER;
                if (o.kind == SIM_GET) o.value = 0;
            }
            sim_history_add(&history, &o);
        }
        char why[256];
        assert_int_equal(check_linearizable(&history, 1000000, why, sizeof why), SIM_LINEARIZABLE);
        /* The last read of all sees what was overwritten long ago. */
        sim_operation_t stale = {.client = 41,
                                 .kind = SIM_GET,
                                 .call_ns = 50000,
                                 .return_ns = 50001,
                                 .outcome = SIM_DONE,
                                 .value = 0};
        for (size_t i = 0; i < history.n && stale.value == 0; i++) {
            const sim_operation_t *o = &history.operations[i];
            if (o->kind == SIM_PUT && o->outcome == SIM_DONE) stale.value = o->value;
        }
        sim_history_add(&history, &stale);
        assert_int_equal(check_linearizable(&history, 1000000, why, sizeof why), SIM_NOT_LINEARIZABLE);
        sim_history_free(&history);
    }
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
    assert_int_equal(choice.fixed.loss, SIM_KNOB_BY_NAME);
    assert_true(sim_knobs_suit(&choice, SIM_OF_MONITOR, why, sizeof why));
    assert_true(sim_knobs_parse("storm,crash=0", &choice, why, sizeof why));
    assert_true(choice.values.partition > 0 && choice.values.crash == 0);
    assert_true(sim_knobs_parse("all,transfer=0", &choice, why, sizeof why));
    assert_true(sim_knobs_suit(&choice, SIM_OF_MONITOR, why, sizeof why));
    assert_int_equal(choice.values.duplicate, 0);
    assert_true(choice.values.loss > 0);
    assert_true(sim_knobs_parse("none,duplicate", &choice, why, sizeof why));
    assert_true(sim_knobs_suit(&choice, SIM_OF_ENGINE, why, sizeof why));
    assert_false(sim_knobs_suit(&choice, SIM_OF_MONITOR, why, sizeof why));
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
        cmocka_unit_test(test_small_histories_are_judged_as_by_trying_all_orders),
        cmocka_unit_test(test_many_unknown_outcomes_are_decided),
        cmocka_unit_test(test_text_that_is_no_history),
        cmocka_unit_test(test_history_is_written_as_it_is_read),
        cmocka_unit_test(test_knobs),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_a_seed_replays_to_the_bit),
    };
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
