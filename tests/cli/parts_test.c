/* The small parts of the command: numbers, durations, signals, names, tables, archives. */
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/show.h"
#include "cli/table.h"
#include "cli/ustar.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_numbers(void **state)
{
    (void)state;
    uint64_t n = 7;
    assert_true(cli_parse_number("0", 0, 10, &n));
    assert_int_equal(n, 0);
    static const char *const wrong[] = {"",   "-1", "+1", " 1", "1 ", "0x10", "11", "99999999999999999999999",
                                        "1e3"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(cli_parse_number(wrong[i], 0, 10, &n));
    assert_true(cli_parse_number("18446744073709551615", 0, UINT64_MAX, &n));
    assert_true(n == UINT64_MAX);
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } right[] = {{"500ms", 500}, {"3s", 3000},    {"2", 2000}, {"1.5s", 1500},
                 {"2m", 120000}, {"1h", 3600000}, {"0", 0}};
    static const char *const wrong[] = {"", "s", "-1s", "1d", "1s1", "nan", "inf", "1e99s"};
    uint64_t ms;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        assert_true(cli_parse_duration_ms(right[i].text, &ms));
        assert_int_equal(ms, right[i].ms);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(cli_parse_duration_ms(wrong[i], &ms));
}

static void test_signals(void **state)
{
    (void)state;
    int signo;
    assert_true(cli_parse_signal("TERM", &signo) && signo == SIGTERM);
    assert_true(cli_parse_signal("SIGKILL", &signo) && signo == SIGKILL);
    assert_true(cli_parse_signal("9", &signo) && signo == 9);
    assert_true(cli_parse_signal("0", &signo) && signo == 0);
    assert_false(cli_parse_signal("65", &signo));
    assert_false(cli_parse_signal("NOPE", &signo));
    assert_false(cli_parse_signal("", &signo));
    assert_string_equal(cli_signal_name(SIGHUP), "HUP");
}

static void test_machine_names(void **state)
{
    (void)state;
    static const char *const right[] = {"rackfish", "a", "test-1.b_C"};
    static const char *const wrong[] = {"", ".", "..", "-m", "a/b", "a b", "\xc3\xa4", ".hidden", "a\n"};
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) assert_true(machine_name_valid(right[i]));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) assert_false(machine_name_valid(wrong[i]));
    char text[RF_NAME_MAX + 1];
    memset(text, 'a', sizeof text);
    text[RF_NAME_MAX] = '\0';
    assert_false(machine_name_valid(text));
    text[RF_NAME_MAX - 1] = '\0';
    assert_true(machine_name_valid(text));
}

static void test_ranges(void **state)
{
    (void)state;
    char text[64];
    assert_string_equal(show_ranges(text, sizeof text, (const uint32_t[]){0, 1, 2, 5, 7, 8}, 6), "0-2,5,7-8");
    assert_string_equal(show_ranges(text, sizeof text, NULL, 0), "");
    char tiny[4]; /* cut, not overrun */
    show_ranges(tiny, sizeof tiny, (const uint32_t[]){100, 200, 300}, 3);
    assert_int_equal(tiny[3], '\0');
}

static void test_table(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    table_t *table = table_new("N> NAME LAST", false);
    table_cell(table, "7");
    table_cell(table, "\xc3\xa4"); /* one column wide */
    table_cell(table, "x");
    table_cell(table, "1234");
    table_cell_coloured(table, TABLE_BAD, "a\033b");
    table_cell(table, "yy");
    table_print(table, out, 0);
    fclose(out);
    assert_string_equal(text, "   N  NAME  LAST\n   7  \xc3\xa4     x\n1234  a?b   yy\n");
    free(text);
}

static void test_units(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(table_bytes(text, sizeof text, 1536), "1.5 KiB");
    assert_string_equal(table_ns(text, sizeof text, 999), "999 ns");
    assert_string_equal(table_ns(text, sizeof text, 38500), "38.5 us");
    assert_string_equal(table_duration(text, sizeof text, 7384000000000ull), "2 h 3 min");
}

/* Runs tar and compares what it prints. */
static void tar_says(const char *what, const char *archive, const char *member, const char *expected)
{
    int fds[2];
    char text[1024];
    size_t used = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], STDOUT_FILENO);
        execlp("tar", "tar", what, archive, member, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    for (ssize_t n; (n = read(fds[0], text + used, sizeof text - 1 - used)) > 0;) used += (size_t)n;
    close(fds[0]);
    text[used] = '\0';
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_string_equal(text, expected);
}

/* What is written can be listed and unpacked by tar. */
static void test_archive(void **state)
{
    (void)state;
    char path[] = "/tmp/rackfish-ustar-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    ustar_t tar;
    ustar_start(&tar, fd);
    char longer[200];
    memset(longer, 'd', sizeof longer);
    longer[120] = '/';
    longer[180] = '\0';
    assert_true(ustar_member(&tar, "top/a.txt"));
    ustar_write(&tar, "hello", 5);
    ustar_write(&tar, " there\n", 7);
    assert_true(ustar_member(&tar, longer));
    assert_true(ustar_member(&tar, "top/empty"));
    static const char *const wrong[] = {"", "/abs", "a/../b", "..", "a//b", "a/", "./a"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) assert_false(ustar_member(&tar, wrong[i]));
    assert_true(ustar_finish(&tar));
    close(fd);
    char expected[400];
    snprintf(expected, sizeof expected, "top/a.txt\n%s\ntop/empty\n", longer);
    tar_says("-tf", path, NULL, expected);
    tar_says("-xOf", path, "top/a.txt", "hello there\n");
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_durations),
        cmocka_unit_test(test_signals), cmocka_unit_test(test_machine_names),
        cmocka_unit_test(test_ranges),  cmocka_unit_test(test_table),
        cmocka_unit_test(test_units),   cmocka_unit_test(test_archive),
    };
    return cmocka_run_group_tests_name("cli_parts", tests, NULL, NULL);
}
