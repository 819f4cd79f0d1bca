/* Files that a program brings along: compared with this host's, asked for, received, and gone with the program. */
#include "base/os.h"
#include "node/ship.h"

#include <dirent.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_NS (20 * RF_NS_PER_S)

static rf_daemon_t node;
static char folder[64];

typedef struct outcome {
    unsigned done, asked;
    rf_err_t err;
    size_t n_paths;
    char paths[4][128];
    char why[512];
} outcome_t;

static void on_done(void *context, rf_err_t err, const char *why)
{
    outcome_t *o = context;
    o->done++;
    o->err = err;
    snprintf(o->why, sizeof o->why, "%s", why);
}

static void on_need(void *context, char **paths, size_t n_paths)
{
    outcome_t *o = context;
    o->asked++;
    o->n_paths = n_paths;
    for (size_t i = 0; i < n_paths && i < 4; i++) snprintf(o->paths[i], sizeof o->paths[i], "%s", paths[i]);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rf-ship-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(node.node_dir, sizeof node.node_dir, "%s/node0", folder);
    assert_int_equal(rf_loop_init(&node.loop), RF_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    rf_loop_finish(&node.loop);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void turn_until_settled(const outcome_t *o)
{
    uint64_t until = rf_clock_ns() + DEADLINE_NS;
    while (!o->done && !o->asked && rf_clock_ns() < until) rf_loop_turn(&node.loop, until);
    assert_true(o->done || o->asked);
}

static void sha256(const void *bytes, size_t size, uint8_t out[32])
{
    assert_int_equal(gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, size, out), 0);
}

static void start_with(Rackfish__RunStart *start, char *path, uint8_t hash[32], uint64_t size)
{
    rackfish__run_start__init(start);
    start->executable = path;
    start->executable_sha256 = (ProtobufCBinaryData){.data = hash, .len = 32};
    start->executable_size = size;
}

static rf_err_t send_piece(rf_ship_t *ship, const char *path, const void *bytes, size_t size, bool end)
{
    Rackfish__RunExecutable piece;
    rackfish__run_executable__init(&piece);
    piece.path = (char *)(uintptr_t)path;
    piece.data = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = size};
    piece.end = end;
    rf_ship_receive(ship, &piece);
    return RF_OK;
}

static void a_file_that_is_the_same_is_not_asked_for(void **state)
{
    (void)state;
    char path[128];
    uint8_t hash[32];
    snprintf(path, sizeof path, "%s/same", folder);
    assert_int_equal(rf_file_write(path, "content", 7), RF_OK);
    sha256("content", 7, hash);
    for (unsigned round = 0; round < 2; round++) { /* the second time from memory */
        outcome_t o = {0};
        Rackfish__RunStart start;
        rf_ship_t *ship;
        start_with(&start, path, hash, 7);
        assert_int_equal(rf_ship_start(&node, &start, "", on_done, on_need, &o, &ship), RF_OK);
        turn_until_settled(&o);
        assert_int_equal(o.done, 1);
        assert_int_equal(o.err, RF_OK);
        assert_int_equal(rf_ship_executable_fd(ship), -1);
        rf_ship_free(ship);
    }
}

/* Receives a shell script's stand-in: a real program, so that it can be executed from what was received. */
static void a_missing_executable_is_received_and_runs(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    char path[] = "/nowhere/true";
    uint8_t hash[32];
    int fd = open("/bin/true", O_RDONLY);
    ssize_t size = read(fd, bytes, sizeof bytes);
    close(fd);
    assert_in_range(size, 1, sizeof bytes - 1);
    sha256(bytes, (size_t)size, hash);
    outcome_t o = {0};
    Rackfish__RunStart start;
    rf_ship_t *ship;
    start_with(&start, path, hash, (uint64_t)size);
    assert_int_equal(rf_ship_start(&node, &start, "", on_done, on_need, &o, &ship), RF_OK);
    turn_until_settled(&o);
    assert_int_equal(o.done, 0);
    assert_int_equal(o.n_paths, 1);
    assert_string_equal(o.paths[0], path);
    for (ssize_t at = 0; at < size; at += 10000)
        send_piece(ship, path, bytes + at, size - at < 10000 ? (size_t)(size - at) : 10000,
                   size - at <= 10000);
    assert_int_equal(o.done, 1);
    assert_int_equal(o.err, RF_OK);
    int program = rf_ship_executable_fd(ship);
    assert_true(program >= 0);
    assert_int_equal(write(program, "x", 1), -1);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {path, NULL}, *env[] = {NULL};
        fexecve(program, argv, env);
        _exit(99);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    rf_ship_free(ship);
}

static void expect_failure(const char *sent_path, const char *bytes, size_t size, rf_err_t wanted)
{
    char path[] = "/nowhere/program";
    uint8_t hash[32];
    sha256("right", 5, hash);
    outcome_t o = {0};
    Rackfish__RunStart start;
    rf_ship_t *ship;
    start_with(&start, path, hash, 5);
    assert_int_equal(rf_ship_start(&node, &start, "", on_done, on_need, &o, &ship), RF_OK);
    turn_until_settled(&o);
    send_piece(ship, sent_path, bytes, size, true);
    assert_int_equal(o.done, 1);
    assert_int_equal(o.err, wanted);
    assert_true(o.why[0]);
    send_piece(ship, sent_path, bytes, size, true); /* what comes afterwards is ignored */
    assert_int_equal(o.done, 1);
    rf_ship_free(ship);
}

static void other_bytes_than_announced_are_refused(void **state)
{
    (void)state;
    expect_failure("/nowhere/program", "wrong", 5, RF_ERR_OS);
    expect_failure("/nowhere/program", "sho", 3, RF_ERR_OS);
    expect_failure("/nowhere/program", "too long", 8, RF_ERR_PROTOCOL);
    expect_failure("/etc/passwd", "right", 5, RF_ERR_PROTOCOL);
}

static void libraries_live_as_long_as_the_program(void **state)
{
    (void)state;
    char program[128], path_a[] = "/nowhere/liba.so.1", path_b[] = "/elsewhere/libb.so";
    uint8_t hash[32], hash_a[32], hash_b[32];
    snprintf(program, sizeof program, "%s/program", folder);
    assert_int_equal(rf_file_write(program, "p", 1), RF_OK);
    sha256("p", 1, hash);
    sha256("aa", 2, hash_a);
    sha256("bbb", 3, hash_b);
    Rackfish__SharedFile a, b, *files[] = {&a, &b};
    rackfish__shared_file__init(&a);
    rackfish__shared_file__init(&b);
    a.path = path_a;
    a.sha256 = (ProtobufCBinaryData){.data = hash_a, .len = 32};
    a.size = 2;
    b.path = path_b;
    b.sha256 = (ProtobufCBinaryData){.data = hash_b, .len = 32};
    b.size = 3;
    outcome_t o = {0};
    Rackfish__RunStart start;
    rf_ship_t *ship;
    start_with(&start, program, hash, 1);
    start.with_libs = true;
    start.libraries = files;
    start.n_libraries = 2;
    assert_int_equal(rf_ship_start(&node, &start, "", on_done, on_need, &o, &ship), RF_OK);
    turn_until_settled(&o);
    assert_int_equal(o.n_paths, 2);
    send_piece(ship, path_a, "aa", 2, true);
    assert_int_equal(o.done, 0);
    send_piece(ship, path_b, "bbb", 3, true);
    assert_int_equal(o.done, 1);
    assert_int_equal(o.err, RF_OK);
    assert_int_equal(rf_ship_executable_fd(ship), -1);
    const char *libraries = rf_ship_library_folder(ship);
    assert_non_null(libraries);
    char path[256], kept[256], text[16];
    struct stat st;
    snprintf(kept, sizeof kept, "%s", libraries);
    assert_int_equal(stat(kept, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0500);
    snprintf(path, sizeof path, "%.200s/liba.so.1", kept);
    assert_int_equal(rf_file_read(path, text, sizeof text), 2);
    snprintf(path, sizeof path, "%.200s/libb.so", kept);
    assert_int_equal(rf_file_read(path, text, sizeof text), 3);
    rf_ship_free(ship);
    assert_int_equal(access(kept, F_OK), -1);
}

static void devices_and_folders_are_no_executables(void **state)
{
    (void)state;
    char *const paths[] = {(char *)(uintptr_t) "/dev/zero", (char *)(uintptr_t) "/tmp"};
    for (unsigned i = 0; i < 2; i++) {
        uint8_t hash[32] = {0};
        outcome_t o = {0};
        Rackfish__RunStart start;
        rf_ship_t *ship;
        start_with(&start, paths[i], hash, 0);
        assert_int_equal(rf_ship_start(&node, &start, "", on_done, on_need, &o, &ship), RF_OK);
        turn_until_settled(&o);
        assert_int_equal(o.n_paths, 1);
        rf_ship_free(ship);
    }
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    char path[] = "relative";
    uint8_t hash[32] = {0};
    outcome_t o = {0};
    Rackfish__RunStart start;
    rf_ship_t *ship;
    start_with(&start, path, hash, 5);
    assert_int_equal(rf_ship_start(&node, &start, "", on_done, on_need, &o, &ship), RF_OK);
    turn_until_settled(&o);
    assert_int_equal(o.err, RF_ERR_INVALID);
    rf_ship_free(ship);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_is_the_same_is_not_asked_for),
        cmocka_unit_test(a_missing_executable_is_received_and_runs),
        cmocka_unit_test(other_bytes_than_announced_are_refused),
        cmocka_unit_test(libraries_live_as_long_as_the_program),
        cmocka_unit_test(devices_and_folders_are_no_executables),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
