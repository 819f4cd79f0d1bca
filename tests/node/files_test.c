/* What rackfishd keeps in its run directory: the state file, and the logs. */
#include "node/logs.h"
#include "node/link_driver.h"
#include "node/run_dir.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void state_survives_a_round_trip(void **unused)
{
    (void)unused;
    static rf_state_t state, again;
    static char text[64 * RF_STATE_PROCESSES_MAX];
    state.n = RF_STATE_PROCESSES_MAX;
    for (unsigned i = 0; i < state.n; i++) {
        state.processes[i] =
            (rf_state_process_t){.core = i % 3 ? (int)i : -1, .pid = (pid_t)i + 2, .start_time = i + 77};
        snprintf(state.processes[i].role, sizeof state.processes[i].role, "%s",
                 i % 2   ? "cpudriver"
                 : i % 3 ? "monitor"
                         : "node");
    }
    size_t size = rf_state_format(&state, text, sizeof text);
    assert_in_range(size, 1, sizeof text - 1);
    assert_int_equal(rf_state_parse(text, &again), RF_OK);
    assert_int_equal(again.n, state.n);
    for (unsigned i = 0; i < state.n; i++) {
        assert_string_equal(again.processes[i].role, state.processes[i].role);
        assert_int_equal(again.processes[i].core, state.processes[i].core);
        assert_int_equal(again.processes[i].pid, state.processes[i].pid);
        assert_int_equal(again.processes[i].start_time, state.processes[i].start_time);
    }
}

/* A link driver that starts again while another rackfishd's cores are being taken over. */
static void a_process_is_added_to_a_state(void **unused)
{
    (void)unused;
    static rf_state_t state;
    char folder[] = "/tmp/rackfish-state-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/state", folder);
    rf_state_process_t driver = {.role = RF_LINK_DRIVER_ROLE, .core = 1, .pid = 70, .start_time = 7};
    rf_run_dir_add_state(folder, &driver);
    static const char before[] = "cpudriver 3 50 5\nmonitor 3 60 6\nlinkdriver 0 65 6\nlinkdriver 1 70 7\n";
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(before, file);
    fclose(file);
    driver.pid = 80, driver.start_time = 8;
    rf_run_dir_add_state(folder, &driver);
    assert_int_equal(rf_run_dir_read_state(folder, &state), RF_OK);
    unsigned found = 0;
    assert_int_equal(state.n, 4); /* the other port's stays */
    for (unsigned i = 0; i < state.n; i++) {
        const rf_state_process_t *p = &state.processes[i];
        if (strcmp(p->role, RF_LINK_DRIVER_ROLE) == 0)
            found += p->core == 1 ? p->pid == 80 && p->start_time == 8 : p->pid == 65;
        if (strcmp(p->role, "monitor") == 0) found += p->pid == 60 && p->core == 3;
        if (strcmp(p->role, "cpudriver") == 0) found += p->pid == 50 && p->core == 3;
    }
    assert_int_equal(found, 4);
    unlink(path);
    rmdir(folder);
}

static void nonsense_is_no_state(void **unused)
{
    (void)unused;
    static rf_state_t state;
    const char *const bad[] = {
        "cpudriver 0 123 456",       /* no end of line */
        "cpudriver 0 123\n",         /* too little */
        "cpudriver 0 123 456 789\n", /* too much */
        "cpudriver 0 1 456\n",       /* init is never ours */
        "cpudriver 0 -5 456\n",      /* nor is a group */
        "cpudriver 0 123 0\n",       /* any process would fit */
        "cpudriver 99999 123 456\n", /* no such core */
        "init 0 123 456\n",          /* no such role */
        "\n",                        /* nothing */
        "averyveryverylongrole 0 123 456\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(rf_state_parse(bad[i], &state), RF_ERR_PROTOCOL);
    assert_int_equal(rf_state_parse("", &state), RF_OK);
    assert_int_equal(state.n, 0);
}

static void logs_belong_to_cores(void **unused)
{
    (void)unused;
    assert_true(rf_log_matches("rackfishd.log", -1));
    assert_true(rf_log_matches("domain-7.0.log", -1));
    assert_false(rf_log_matches("rackfishd.log", 0));
    assert_true(rf_log_matches("monitor-12.log", 12));
    assert_true(rf_log_matches("cpudriver-12.log", 12));
    assert_false(rf_log_matches("monitor-12.log", 1));
    assert_false(rf_log_matches("monitor-12.log.1", -1));
    assert_false(rf_log_matches("state", -1));
    assert_false(rf_log_matches(".log", -1));
}

static int temporary_folder(char path[64])
{
    snprintf(path, 64, "/tmp/rf-node-files-XXXXXX");
    assert_non_null(mkdtemp(path));
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    return fd;
}

static void the_last_lines_are_found(void **unused)
{
    (void)unused;
    char path[64];
    int folder = temporary_folder(path);
    int fd = openat(folder, "x.log", O_RDWR | O_CREAT, 0600);
    off_t starts[3000], size = 0;
    for (unsigned i = 0; i < 3000; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "line %u%s\n", i, i % 7 ? "" : " which is longer");
        starts[i] = size;
        assert_int_equal(write(fd, line, (size_t)n), n);
        size += n;
    }
    assert_int_equal(rf_log_tail_offset(fd, size, 1), starts[2999]);
    assert_int_equal(rf_log_tail_offset(fd, size, 10), starts[2990]);
    assert_int_equal(rf_log_tail_offset(fd, size, 2999), starts[1]);
    assert_int_equal(rf_log_tail_offset(fd, size, 3000), 0);
    assert_int_equal(rf_log_tail_offset(fd, size, 5000), 0);
    assert_int_equal(rf_log_tail_offset(fd, size, 0), 0);
    assert_int_equal(rf_log_tail_offset(fd, 0, 5), 0);
    close(fd);
    unlinkat(folder, "x.log", 0);
    close(folder);
    rmdir(path);
}

static void rotation_keeps_writers_writing(void **unused)
{
    (void)unused;
    char path[64], text[64];
    int folder = temporary_folder(path);
    int writer = openat(folder, "x.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_int_equal(write(writer, "before\n", 7), 7);
    assert_int_equal(rf_log_rotate(folder, "x.log"), RF_OK);
    assert_int_equal(write(writer, "after\n", 6), 6);
    int fd = openat(folder, "x.log", O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), 6);
    assert_memory_equal(text, "after\n", 6);
    close(fd);
    fd = openat(folder, "x.log.1", O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), 7);
    close(fd);
    close(writer);
    unlinkat(folder, "x.log", 0);
    unlinkat(folder, "x.log.1", 0);
    close(folder);
    rmdir(path);
}

static void removing_leaves_other_nodes_alone(void **unused)
{
    (void)unused;
    char path[64];
    int folder = temporary_folder(path);
    mkdirat(folder, "node0", 0700);
    mkdirat(folder, "node1", 0700);
    mkdirat(folder, "node0.lib-12ab", 0500);
    close(openat(folder, "config.yaml", O_CREAT | O_WRONLY, 0600));
    close(openat(folder, "node0/state", O_CREAT | O_WRONLY, 0600));
    rf_run_dir_remove(path, "node0");
    assert_int_equal(faccessat(folder, "node0", F_OK, 0), -1);
    assert_int_equal(faccessat(folder, "node0.lib-12ab", F_OK, 0), -1);
    assert_int_equal(faccessat(folder, "node1", F_OK, 0), 0);
    assert_int_equal(faccessat(folder, "config.yaml", F_OK, 0), 0);
    rf_run_dir_remove(path, "node1");
    assert_int_equal(access(path, F_OK), -1);
    close(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_survives_a_round_trip),
        cmocka_unit_test(a_process_is_added_to_a_state),
        cmocka_unit_test(nonsense_is_no_state),
        cmocka_unit_test(logs_belong_to_cores),
        cmocka_unit_test(the_last_lines_are_found),
        cmocka_unit_test(rotation_keeps_writers_writing),
        cmocka_unit_test(removing_leaves_other_nodes_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
