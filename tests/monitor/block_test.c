/* Spawn blocks from clients: on whose behalf they run is decided here, on a copy that nobody else can change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "monitor/block.h"

#include "base/os.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char self[32];

static int make(const char *user, const char *argv0, uint32_t flags, uint8_t *bytes, size_t max, size_t *size)
{
    const char *argv[] = {argv0, "one", NULL}, *env[] = {"A=b", NULL};
    rf_spawn_t spawn = {.flags = flags,
                        .umask = 022,
                        .user = user,
                        .cwd = "/",
                        .executable = "/bin/true",
                        .n_args = 2,
                        .n_env = 1,
                        .argv = argv,
                        .env = env,
                        .span_args = (const uint8_t *)"old",
                        .span_args_size = 3};
    int fd;
    assert_int_equal(rf_spawn_encode(&spawn, bytes, max, size), RF_OK);
    assert_int_equal(rf_memory_create("test-block", *size, &fd), RF_OK);
    assert_int_equal(rf_write_all(fd, bytes, *size), RF_OK);
    return fd;
}

static rf_spawn_t decode(int fd, uint8_t *bytes, size_t max)
{
    static const char *pointers[64];
    struct stat st;
    rf_spawn_t spawn;
    assert_int_equal(fstat(fd, &st), 0);
    assert_true((size_t)st.st_size <= max);
    assert_int_equal(rf_memory_check(fd, (size_t)st.st_size), RF_OK); /* sealed, as the CPU driver wants it */
    assert_int_equal(block_read(fd, 0, bytes, (size_t)st.st_size), RF_OK);
    assert_int_equal(rf_spawn_decode(bytes, (size_t)st.st_size, &spawn, pointers, 64), RF_OK);
    return spawn;
}

static void users_are_forced_or_filled_in(void **state)
{
    (void)state;
    static const struct {
        const char *block, *forced; /* "=": the one who runs this test */
        rf_err_t err;
    } rows[] = {
        {"=", "", RF_OK},
        {"", "", RF_OK},
        {"", "=", RF_OK},
        {"=", "=", RF_OK},
        {"nobody", "=", RF_ERR_PERMISSION},
        {"no-such-user-here", "", RF_ERR_NOT_FOUND},
        {"a-name-that-is-longer-than-any-user-may-be", "", RF_ERR_LIMIT},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[4096];
        size_t size;
        monitor_block_t change = {0};
        block_result_t out = {.fd = -1};
        bool other = strcmp(self, "nobody") == 0;
        int fd = make(rows[i].block[0] == '=' ? self : rows[i].block, "/usr/bin/prog", 0, bytes, sizeof bytes,
                      &size);
        snprintf(change.user, sizeof change.user, "%s", rows[i].forced[0] == '=' ? self : rows[i].forced);
        rf_err_t err = block_copy(fd, &change, self, &out);
        if (!other) assert_int_equal(err, rows[i].err);
        if (err == RF_OK) {
            assert_string_equal(out.user, self);
            assert_int_equal(out.uid, geteuid());
            assert_string_equal(out.program, "prog");
            assert_string_equal(decode(out.fd, bytes, sizeof bytes).user, self);
            assert_int_equal(write(out.fd, "x", 1), -1); /* nobody changes it any more */
            close(out.fd);
        } else {
            assert_int_equal(out.fd, -1);
        }
        close(fd);
    }
}

static void flags_and_span_arguments_change(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    size_t size;
    int fd =
        make(self, "a\nb", RF_SPAWN_CONTROL | RF_SPAWN_STDIO | RF_SPAWN_DAEMON, bytes, sizeof bytes, &size);
    monitor_block_t change = {
        .flags_clear = RF_SPAWN_STDIO | RF_SPAWN_CONTROL, .span_args_set = true, .span_args_size = 5};
    memcpy(change.span_args, "fresh", 5);
    block_result_t out;
    assert_int_equal(block_copy(fd, &change, self, &out), RF_OK);
    assert_int_equal(out.flags, RF_SPAWN_DAEMON);
    assert_string_equal(out.program, "a?b");
    assert_int_equal(out.size, size + 2);
    rf_spawn_t spawn = decode(out.fd, bytes, sizeof bytes);
    assert_int_equal(spawn.span_args_size, 5);
    assert_memory_equal(spawn.span_args, "fresh", 5);
    assert_int_equal(spawn.flags, RF_SPAWN_DAEMON);
    assert_string_equal(spawn.argv[1], "one");
    assert_string_equal(spawn.env[0], "A=b");
    close(out.fd);
    close(fd);
}

static void what_is_no_block_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    size_t size;
    monitor_block_t change = {0};
    block_result_t out;
    int fd = make(self, "prog", 0, bytes, sizeof bytes, &size);
    for (size_t cut = 0; cut < size; cut += 7) /* at any length */
        assert_int_not_equal(block_copy_bytes(bytes, cut, &change, self, &out), RF_OK);
    close(fd);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(block_copy(pipe_fds[0], &change, self, &out), RF_ERR_PROTOCOL); /* must not block */
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* a file, which may lie on anything */
    assert_int_equal(block_copy(fd, &change, self, &out), RF_ERR_PROTOCOL);
    close(fd);
    assert_int_equal(rf_memory_create("short", 100, &fd), RF_OK);
    assert_int_equal(block_copy(fd, &change, self, &out), RF_ERR_PROTOCOL);
    close(fd);
    assert_int_equal(rf_memory_create("huge", RF_SPAWN_BYTES_MAX + 1, &fd), RF_OK);
    assert_int_equal(block_copy(fd, &change, self, &out), RF_ERR_PROTOCOL);
    assert_int_equal(block_read(fd, RF_SPAWN_BYTES_MAX, bytes, 10), RF_ERR_PROTOCOL); /* not that many */
    close(fd);
}

int main(void)
{
    const struct passwd *entry = getpwuid(geteuid());
    if (!entry) {
        fprintf(stderr, "skipped: the user who runs this has no name\n");
        return 77;
    }
    snprintf(self, sizeof self, "%s", entry->pw_name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_are_forced_or_filled_in),
        cmocka_unit_test(flags_and_span_arguments_change),
        cmocka_unit_test(what_is_no_block_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
