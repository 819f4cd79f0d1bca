/* The base library: what every other folder leans on. */
#include "base/clock.h"
#include "base/error.h"
#include "base/futex.h"
#include "base/histogram.h"
#include "base/log.h"
#include "base/os.h"
#include "base/prng.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void every_error_has_a_sentence(void **state)
{
    (void)state;
    for (int i = 0; i < RF_ERR_COUNT; i++) {
        assert_non_null(rf_err_text((rf_err_t)i));
        assert_non_null(rf_err_name((rf_err_t)i));
    }
    assert_string_equal(rf_err_name(RF_ERR_NO_QUORUM), "RF_ERR_NO_QUORUM");
    assert_string_equal(rf_err_text((rf_err_t)9999), "unknown error");
    assert_string_equal(rf_err_name((rf_err_t)-1), "RF_ERR_UNKNOWN");
}

static void a_seed_gives_one_sequence(void **state)
{
    (void)state;
    rf_prng_t a, b, c;
    rf_prng_seed(&a, 42);
    rf_prng_seed(&b, 42);
    rf_prng_seed(&c, 43);
    bool differs = false;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = rf_prng_next(&a);
        assert_int_equal(x, rf_prng_next(&b));
        differs |= x != rf_prng_next(&c);
    }
    assert_true(differs);
    for (int i = 0; i < 1000; i++) {
        assert_true(rf_prng_below(&a, 7) < 7);
        double u = rf_prng_unit(&a);
        assert_true(u >= 0 && u < 1);
    }
}

static void percentiles_are_within_their_error(void **state)
{
    (void)state;
    rf_histogram_t *h = calloc(1, sizeof *h), *other = calloc(1, sizeof *other);
    assert_non_null(h);
    assert_non_null(other);
    assert_int_equal(rf_histogram_percentile(h, 50), 0);
    rf_histogram_reset(h);
    for (uint64_t v = 1; v <= 100000; v++) rf_histogram_add(v % 2 ? h : other, v);
    rf_histogram_merge(h, other);
    assert_int_equal(h->count, 100000);
    assert_int_equal(h->min, 1);
    assert_int_equal(h->max, 100000);
    const double percents[] = {1, 50, 90, 99, 99.9};
    for (unsigned i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        double exact = percents[i] * 1000, got = (double)rf_histogram_percentile(h, percents[i]);
        assert_true(got >= exact * 0.98 && got <= exact * 1.02);
    }
    assert_int_equal(rf_histogram_percentile(h, 100), 100000);
    assert_true(rf_histogram_mean(h) > 49000 && rf_histogram_mean(h) < 51000);
    rf_histogram_add(h, UINT64_MAX); /* beyond the range: kept in the last bucket, the maximum is exact */
    assert_int_equal(rf_histogram_percentile(h, 100), (1ull << 40) - 1);
    free(h);
    free(other);
}

/* Runs `body` with standard error in a pipe and returns what was written. */
static void capture_log(void (*body)(void), char *out, size_t max)
{
    int pipe_fds[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(pipe_fds), 0);
    dup2(pipe_fds[1], STDERR_FILENO);
    close(pipe_fds[1]);
    body();
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t got = read(pipe_fds[0], out, max - 1);
    close(pipe_fds[0]);
    out[got > 0 ? got : 0] = 0;
}

static void log_hostile_and_long(void)
{
    char text[4 * RF_LOG_LINE_MAX];
    rf_log(RF_LOG_INFO, "name '%s'", "evil\n2026 error forged");
    rf_log(RF_LOG_DEBUG, "not shown");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    rf_log(RF_LOG_INFO, "%s", text);
}

static void log_lines_cannot_be_forged_and_are_bounded(void **state)
{
    (void)state;
    char out[8192];
    rf_log_init("test/0", RF_LOG_INFO);
    rf_log_set_level(RF_LOG_INFO);
    capture_log(log_hostile_and_long, out, sizeof out);
    assert_non_null(strstr(out, "evil?2026 error forged"));
    assert_null(strstr(out, "not shown"));
    unsigned lines = 0;
    for (char *at = out; *at; at++) lines += *at == '\n';
    assert_int_equal(lines, 2);
    assert_non_null(strstr(out, "...\n"));
}

static void log_levels_parse(void **state)
{
    (void)state;
    rf_log_level_t level = RF_LOG_ERROR;
    assert_true(rf_log_level_parse("debug", &level));
    assert_int_equal(level, RF_LOG_DEBUG);
    assert_false(rf_log_level_parse("loud", &level));
    uint64_t last = 0;
    assert_true(rf_log_once_per(&last, RF_NS_PER_S * 3600));
    assert_false(rf_log_once_per(&last, RF_NS_PER_S * 3600));
}

static void sealed_memory_is_told_from_other_memory(void **state)
{
    (void)state;
    int fd, readonly;
    assert_int_equal(rf_memory_create("test", 8192, &fd), RF_OK);
    assert_int_equal(rf_memory_check(fd, 8192), RF_OK);
    assert_int_equal(rf_memory_check(fd, 4096), RF_ERR_PROTOCOL);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(rf_memory_reopen_readonly(fd, &readonly), RF_OK);
    assert_ptr_equal(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, readonly, 0), MAP_FAILED);
    close(readonly);
    close(fd);
    int unsealed = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(unsealed, 8192), 0);
    assert_int_equal(rf_memory_check(unsealed, 8192), RF_ERR_PROTOCOL);
    close(unsealed);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(rf_memory_check(pipe_fds[0], 0), RF_ERR_PROTOCOL);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void descriptors_travel_and_surplus_ones_are_closed(void **state)
{
    (void)state;
    int pair[2], got[RF_FDS_PER_MESSAGE_MAX];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    unsigned before = open_descriptors();
    const int send[3] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
    char text[16];
    size_t size = sizeof text;
    assert_int_equal(rf_fd_receive(pair[1], text, &size, got, 3), RF_ERR_AGAIN);
    assert_int_equal(rf_fd_send(pair[0], "abc", 3, send, 3), RF_OK);
    size = sizeof text;
    assert_int_equal(rf_fd_receive(pair[1], text, &size, got, 3), RF_OK);
    assert_int_equal(size, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
        close(got[i]);
    }
    assert_int_equal(rf_fd_send(pair[0], "abc", 3, send, 3), RF_OK);
    size = sizeof text;
    assert_int_equal(rf_fd_receive(pair[1], text, &size, got, 2), RF_ERR_PROTOCOL);
    assert_int_equal(rf_fd_send(pair[0], "0123456789", 10, send, 1), RF_OK);
    size = 4; /* cut */
    assert_int_equal(rf_fd_receive(pair[1], text, &size, got, 3), RF_ERR_PROTOCOL);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(rf_fd_send(pair[0], "x", 1, send, RF_FDS_PER_MESSAGE_MAX + 1), RF_ERR_INVALID);
    close(pair[0]);
    size = sizeof text;
    assert_int_equal(rf_fd_receive(pair[1], text, &size, got, 3), RF_ERR_CLOSED);
    assert_int_equal(rf_fd_send(pair[1], "x", 1, NULL, 0), RF_ERR_CLOSED);
    close(pair[1]);
}

static void a_full_socket_says_again(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    rf_err_t err = RF_OK;
    for (int i = 0; i < 100000 && err == RF_OK; i++) err = rf_fd_send(pair[0], "0123456789", 10, NULL, 0);
    assert_int_equal(err, RF_ERR_AGAIN);
    close(pair[0]);
    close(pair[1]);
}

static void a_process_is_named_by_pid_and_start_time(void **state)
{
    (void)state;
    uint64_t start = rf_process_start_time(getpid());
    assert_true(start > 0);
    int fd = rf_process_open(getpid(), start);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(rf_process_open(getpid(), start + 1), -1);
    assert_int_equal(errno, ESRCH);
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    fd = rf_process_open(child, 0);
    assert_true(fd >= 0);
    assert_int_equal(rf_process_wait_dead(fd, 10), RF_ERR_TIMEOUT);
    kill(child, SIGKILL);
    assert_int_equal(rf_process_wait_dead(fd, 10000), RF_OK);
    close(fd);
    waitpid(child, NULL, 0);
}

static void files_are_replaced_whole(void **state)
{
    (void)state;
    char folder[] = "/tmp/rackfish-base-XXXXXX", path[64], text[32];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    assert_int_equal(rf_file_write(path, "one", 3), RF_OK);
    assert_int_equal(rf_file_write(path, "second", 6), RF_OK);
    assert_int_equal(rf_file_read(path, text, sizeof text), 6);
    assert_string_equal(text, "second");
    assert_int_equal(rf_file_read(path, text, 4), 3); /* cut to the room there is */
    unlink(path);
    assert_int_equal(rf_file_read(path, text, sizeof text), -1);
    assert_int_equal(rmdir(folder), 0); /* no temporary file was left */
}

static void *wake_later(void *word)
{
    _Atomic(uint32_t) *w = word;
    struct timespec t = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&t, NULL);
    atomic_store(w, 1);
    rf_futex_wake(w);
    return NULL;
}

static void futex_waits_wakes_and_times_out(void **state)
{
    (void)state;
    _Atomic(uint32_t) word = 0;
    assert_int_equal(rf_futex_wait(&word, 0, rf_clock_ns() + 5 * RF_NS_PER_MS), RF_ERR_TIMEOUT);
    assert_int_equal(rf_futex_wait(&word, 1, RF_NEVER), RF_OK); /* differs already */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_later, &word), 0);
    uint64_t deadline = rf_clock_ns() + 30 * RF_NS_PER_S;
    while (atomic_load(&word) == 0) assert_int_equal(rf_futex_wait(&word, 0, deadline), RF_OK);
    pthread_join(thread, NULL);
}

static void ticks_have_a_rate(void **state)
{
    (void)state;
    assert_true(rf_clock_ticks_per_us() > 0);
    assert_int_equal(rf_clock_ticks_per_us(), rf_clock_ticks_per_us());
}

static void cpus_are_pinned_within_the_allowed_set(void **state)
{
    (void)state;
    unsigned cpus[1024], now[1024];
    unsigned n = rf_cpu_allowed(cpus, 1024);
    assert_true(n > 0);
    assert_int_equal(rf_cpu_pin(cpus[n - 1]), RF_OK);
    assert_int_equal(rf_cpu_allowed(now, 1024), 1);
    assert_int_equal(now[0], cpus[n - 1]);
    assert_int_equal(rf_cpu_pin(1u << 20), RF_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_a_sentence),
        cmocka_unit_test(a_seed_gives_one_sequence),
        cmocka_unit_test(percentiles_are_within_their_error),
        cmocka_unit_test(log_lines_cannot_be_forged_and_are_bounded),
        cmocka_unit_test(log_levels_parse),
        cmocka_unit_test(sealed_memory_is_told_from_other_memory),
        cmocka_unit_test(descriptors_travel_and_surplus_ones_are_closed),
        cmocka_unit_test(a_full_socket_says_again),
        cmocka_unit_test(a_process_is_named_by_pid_and_start_time),
        cmocka_unit_test(files_are_replaced_whole),
        cmocka_unit_test(futex_waits_wakes_and_times_out),
        cmocka_unit_test(ticks_have_a_rate),
        cmocka_unit_test(cpus_are_pinned_within_the_allowed_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
