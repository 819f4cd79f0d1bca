/* The real CPU driver, with the test as its monitor. argv: folder of programs, folder of test programs. */
#include "harness.h"

#include "base/clock.h"
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static harness_t h;
static char domain_path[512];

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static int start(void **state)
{
    const harness_params_t *params = *state;
    harness_start(&h, params);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    if (h.driver > 0) harness_cleanup(&h);
    return 0;
}

/* ---- programs ---- */

static void exit_status_passes_through(void **state)
{
    char out[256];
    (void)state;
    int status =
        harness_run(&h, &(harness_spawn_t){.domain = 1, .argv = ARGV("/bin/sh", "-c", "echo hello; exit 7")},
                    out, sizeof out);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_string_equal(out, "hello\n");
    status = harness_run(&h, &(harness_spawn_t){.domain = 2, .argv = ARGV("/bin/sh", "-c", "kill -SEGV $$")},
                         out, sizeof out);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    harness_stop(&h);
}

int main(int argc, char **argv)
{
    static harness_params_t usual = {.cgroup = true};
    if (argc < 3) {
        fprintf(stderr, "usage: %s PROGRAMS TESTS\n", argv[0]);
        return 2;
    }
    harness_bin = argv[1];
    harness_tests = argv[2];
    snprintf(domain_path, sizeof domain_path, "%s/rf-test-domain", harness_tests);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate_setup_teardown(exit_status_passes_through, start, stop, &usual),
    };
    return cmocka_run_group_tests_name("cpudriver", tests, NULL, NULL);
}
