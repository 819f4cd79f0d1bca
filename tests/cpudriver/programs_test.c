/* What a program gets from the CPU driver, and what it is told when it cannot start; users. */
#include "suite.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void exit_status_passes_through(void **state)
{
    char out[256];
    (void)state;
    int status = harness_run(
        &suite, &(harness_spawn_t){.domain = 1, .argv = ARGV("/bin/sh", "-c", "echo hello; exit 7")}, out,
        sizeof out);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_string_equal(out, "hello\n");
    status =
        harness_run(&suite, &(harness_spawn_t){.domain = 2, .argv = ARGV("/bin/sh", "-c", "kill -SEGV $$")},
                    out, sizeof out);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    harness_stop(&suite);
}

static void program_gets_what_was_asked(void **state)
{
    (void)state;
    char out[1024], want[64];
    const char *const env[] = {"PATH=/bin:/usr/bin", "COLOUR=red fish", "RACKFISH_DISPATCHER_FD=9", NULL};
    int status = harness_run(
        &suite,
        &(harness_spawn_t){
            .domain = 1, .argv = ARGV(suite_domain, "facts"), .cwd = "/tmp", .umask = 077, .nofile = 123},
        out, sizeof out);
    print_message("%s", out);
    assert_int_equal(status, 0);
    snprintf(want, sizeof want, "uid %u gid %u ", suite.boot.system_uid, suite.boot.system_gid);
    assert_non_null(strstr(out, want));
    assert_non_null(strstr(out, "umask 077 files 123 cpus 1 policy 0 nnp 1 cwd /tmp"));
    assert_non_null(strstr(out, "pgid-leader 1"));
    assert_non_null(strstr(out, "fds 0 1 2 200\n"));
    if (harness_isolates(&suite)) assert_non_null(strstr(out, " pid 2 "));
    status = harness_run(&suite, &(harness_spawn_t){.domain = 2, .argv = ARGV("env"), .env = env}, out,
                         sizeof out);
    assert_int_equal(status, 0);
    assert_non_null(strstr(out, "COLOUR=red fish\n"));
    assert_non_null(strstr(out, "RACKFISH_DISPATCHER_FD=200\n"));
    assert_null(strstr(out, "RACKFISH_DISPATCHER_FD=9\n"));
    assert_non_null(strstr(out, "RACKFISH_MODULE_PATH=/nonexistent/modules\n"));
    harness_stop(&suite);
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    assert_int_equal(fchmod(fd, 0755), 0);
    close(fd);
}

static void errors_name_the_cause(void **state)
{
    char path[200], want[260], *image, *interpreter;
    struct stat st;
    (void)state;
    suite_expect_failure(&(harness_spawn_t){.domain = 1, .argv = ARGV("./nothing")}, RF_ERR_EXEC, ENOENT,
                         "exec ./nothing");
    suite_expect_failure(&(harness_spawn_t){.domain = 1, .argv = ARGV("no-such-program")}, RF_ERR_EXEC,
                         ENOENT, "exec no-such-program");
    suite_expect_failure(&(harness_spawn_t){.domain = 1, .argv = ARGV("/bin/true"), .cwd = "/nowhere"},
                         RF_ERR_OS, ENOENT, "chdir /nowhere");
    suite_expect_failure(&(harness_spawn_t){.domain = 1, .argv = ARGV("/etc/passwd")}, RF_ERR_EXEC, EACCES,
                         "exec /etc/passwd");

    snprintf(path, sizeof path, "%s/script", suite.run_dir);
    write_file(path, "#! /no/such/shell -x\n", 21);
    suite_expect_failure(&(harness_spawn_t){.domain = 1, .argv = ARGV(path)}, RF_ERR_EXEC, ENOENT,
                         "interpreter /no/such/shell");
    snprintf(path, sizeof path, "%s/plain", suite.run_dir);
    write_file(path, "exit 5\n", 7); /* no magic number: run by the shell, as a shell would */
    assert_int_equal(
        harness_run(&suite, &(harness_spawn_t){.domain = 2, .argv = ARGV(path)}, want, sizeof want), 5 << 8);

    int fd = open("/bin/true", O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    image = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    assert_true(image != MAP_FAILED);
    interpreter = memmem(image, (size_t)st.st_size, "/ld-linux", 9);
    if (interpreter) { /* else it is static */
        interpreter[1] = 'X';
        while (*--interpreter)
            ;
        snprintf(path, sizeof path, "%s/foreign", suite.run_dir);
        write_file(path, image, (size_t)st.st_size);
        snprintf(want, sizeof want, "interpreter %s", interpreter + 1);
        suite_expect_failure(&(harness_spawn_t){.domain = 1, .argv = ARGV(path)}, RF_ERR_EXEC, ENOENT, want);
    }
    munmap(image, (size_t)st.st_size);
    close(fd);
    harness_stop(&suite);
}

static void bad_creations_change_nothing(void **state)
{
    rf_kernel_created_t created;
    rf_kernel_create_t create = {.domain = 5, .n_fds = 1};
    int out, null = open("/dev/null", O_RDWR | O_CLOEXEC), garbage;
    (void)state;
    assert_int_equal(harness_ask(&suite, RF_KERNEL_CREATE, &create, sizeof create, NULL, 0, NULL, 0),
                     RF_ERR_INVALID);
    assert_int_equal(harness_ask(&suite, RF_KERNEL_CREATE, &create, sizeof create, &null, 1, NULL, 0),
                     RF_ERR_PROTOCOL);
    assert_int_equal(rf_memory_create("garbage", 4096, &garbage), RF_OK);
    assert_int_equal(harness_ask(&suite, RF_KERNEL_CREATE, &create, sizeof create, &garbage, 1, NULL, 0),
                     RF_ERR_PROTOCOL);
    create.domain = 0;
    assert_int_equal(harness_ask(&suite, RF_KERNEL_CREATE, &create, sizeof create, &garbage, 1, NULL, 0),
                     RF_ERR_INVALID);
    suite_sleeper(7, "escape", &out);
    assert_int_equal(
        harness_create(&suite, &(harness_spawn_t){.domain = 7, .argv = ARGV("/bin/true")}, &created, NULL),
        RF_ERR_EXISTS);
    assert_int_equal(
        harness_create(&suite,
                       &(harness_spawn_t){.domain = 8, .argv = ARGV("/bin/true"), .reserved_permille = 901},
                       &created, NULL),
        RF_ERR_LIMIT);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 4711), RF_ERR_NOT_FOUND);
    rf_kernel_signal_t signal = {.domain = 7, .signo = 999};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0),
                     RF_ERR_INVALID);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 7), RF_OK);
    assert_int_equal(harness_exited(&suite, 7), SIGKILL);
    close(out);
    close(null);
    close(garbage);
    harness_stop(&suite);
}

static void executable_by_descriptor(void **state)
{
    char out[64], path[200];
    (void)state;
    int fd = open("/bin/echo", O_RDONLY | O_CLOEXEC);
    assert_int_equal(harness_run(&suite,
                                 &(harness_spawn_t){.domain = 1,
                                                    .argv = ARGV("echo", "shipped"),
                                                    .flags = RF_SPAWN_EXECUTABLE,
                                                    .executable_fd = fd},
                                 out, sizeof out),
                     0);
    assert_string_equal(out, "shipped\n");
    close(fd);
    snprintf(path, sizeof path, "%s/script", suite.run_dir);
    write_file(path, "#!/bin/sh\necho script $1\n", 25);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(harness_run(&suite,
                                 &(harness_spawn_t){.domain = 2,
                                                    .argv = ARGV("script", "too"),
                                                    .flags = RF_SPAWN_EXECUTABLE,
                                                    .executable_fd = fd},
                                 out, sizeof out),
                     0);
    assert_string_equal(out, "script too\n");
    close(fd);
    harness_stop(&suite);
}

static void streams_end_with_the_program(void **state)
{
    int in[2], out[2];
    char text[64];
    rf_kernel_created_t created;
    (void)state;
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    const int stdio[3] = {in[0], out[1], out[1]};
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 1, .argv = ARGV("/bin/cat"), .stdio = stdio},
                                    &created, NULL),
                     RF_OK);
    close(in[0]);
    close(out[1]);
    assert_int_equal(write(in[1], "half\n", 5), 5);
    harness_read(out[0], text, sizeof text, true);
    assert_string_equal(text, "half\n");
    close(in[1]); /* cat sees its end, and ends; then nobody but us holds the pipe */
    harness_read(out[0], text, sizeof text, false);
    assert_string_equal(text, "");
    assert_int_equal(harness_exited(&suite, 1), 0);
    close(out[0]);
    harness_stop(&suite);
}

static void open_terminal(int *master, int *slave, int stdio[3])
{
    assert_int_equal(openpty(master, slave, NULL, NULL, NULL), 0);
    fcntl(*master, F_SETFD, FD_CLOEXEC);
    fcntl(*slave, F_SETFD, FD_CLOEXEC);
    stdio[0] = stdio[1] = stdio[2] = *slave;
}

static void terminal(void **state)
{
    int master, slave;
    char text[128];
    rf_kernel_created_t created;
    (void)state;
    int stdio[3];
    open_terminal(&master, &slave, stdio);
    harness_spawn_t spawn = {
        .domain = 1, .argv = ARGV(suite_domain, "terminal"), .stdio = stdio, .flags = RF_SPAWN_TTY};
    assert_int_equal(harness_create(&suite, &spawn, &created, NULL), RF_OK);
    harness_read(master, text, sizeof text, true);
    assert_string_equal(text, "tty 1 leader 1 foreground 1\r\n");
    assert_int_equal(harness_exited(&suite, 1), 0);
    close(master);
    close(slave);
    open_terminal(&master, &slave, stdio); /* the other was hung up with its session */
    /* A shell puts its job in the foreground of the terminal: that is whom signals go to, not the shell. */
    spawn =
        (harness_spawn_t){.domain = 2,
                          .argv = ARGV("/bin/sh", "-mc", "sleep 10071; echo status $?; read line; exit 3"),
                          .stdio = stdio,
                          .flags = RF_SPAWN_TTY};
    assert_int_equal(harness_create(&suite, &spawn, &created, NULL), RF_OK);
    close(slave); /* from here on only the domain's, so that reading ends with it */
    for (unsigned i = 0; i < 500 && harness_processes_with("sleep 10071") < 2; i++)
        poll(NULL, 0, 10); /* sh and its sleep */
    poll(NULL, 0, 100);
    rf_kernel_signal_t signal = {.domain = 2, .signo = SIGTERM};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0), RF_OK);
    do harness_read(master, text, sizeof text, true);
    while (text[0] && !strstr(text, "status 143"));
    assert_non_null(strstr(text, "status 143"));
    assert_int_equal(write(master, "go\n", 3), 3);
    assert_int_equal(harness_exited(&suite, 2), 3 << 8);
    close(master);
    harness_stop(&suite);
}

static void signals_reach_the_program(void **state)
{
    rf_kernel_created_t created;
    char line[64];
    int out;
    (void)state;
    harness_spawn_t spawn = {
        .domain = 1,
        .argv = ARGV("/bin/sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 1; done")};
    assert_int_equal(harness_create(&suite, &spawn, &created, &out), RF_OK);
    harness_read(out, line, sizeof line, true);
    rf_kernel_signal_t signal = {.domain = 1, .signo = SIGTERM};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0), RF_OK);
    harness_read(out, line, sizeof line, false);
    assert_non_null(strstr(line, "got\n")); /* its shell may say more */
    assert_int_equal(harness_exited(&suite, 1), 9 << 8);
    close(out);
    /* Stopping works although nobody else is in its session: its group is no orphan. */
    assert_int_equal(harness_create(&suite, &(harness_spawn_t){.domain = 2, .argv = ARGV("sleep", "1000")},
                                    &created, NULL),
                     RF_OK);
    char path[64], text[512] = "";
    signal = (rf_kernel_signal_t){.domain = 2, .signo = SIGTSTP};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0), RF_OK);
    snprintf(path, sizeof path, "/proc/%d/stat", created.pid);
    for (unsigned i = 0; i < 500 && !strstr(text, ") T "); i++) {
        poll(NULL, 0, 10);
        rf_file_read(path, text, sizeof text);
    }
    assert_non_null(strstr(text, ") T "));
    signal = (rf_kernel_signal_t){.domain = 2, .signo = SIGKILL, .whole = 1};
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0, NULL, 0), RF_OK);
    assert_int_equal(harness_exited(&suite, 2), SIGKILL);
    harness_stop(&suite);
}

/* ---- users ---- */

static void privileged_programs_have_their_own_user(void **state)
{
    char out[1024], script[512];
    rf_kernel_created_t created;
    struct passwd *daemon = getpwnam("daemon");
    (void)state;
    if (!daemon) skip();
    harness_spawn_t spawn = {.domain = 1, .argv = ARGV(suite_domain, "facts"), .user = "daemon"};
    assert_int_equal(harness_run(&suite, &spawn, out, sizeof out), 0);
    print_message("%s", out);
    snprintf(script, sizeof script, "uid %u gid %u ", daemon->pw_uid, daemon->pw_gid);
    assert_non_null(strstr(out, script));
    suite_expect_failure(&(harness_spawn_t){.domain = 2, .argv = ARGV("true"), .user = "no-such-user"},
                         RF_ERR_NOT_FOUND, 0, "user no-such-user");
    suite_expect_failure(&(harness_spawn_t){.domain = 2, .argv = ARGV("true"), .user = "root"},
                         RF_ERR_PERMISSION, 0, "user root, without allow_root: root");
    suite_expect_failure(&(harness_spawn_t){.domain = 2, .argv = ARGV("true"), .user = ""}, RF_ERR_PERMISSION,
                         0, "user (none was named)");
    assert_int_equal(harness_create(&suite,
                                    &(harness_spawn_t){.domain = 2, .argv = ARGV("true"), .user = "nobody"},
                                    &created, NULL),
                     RF_ERR_PERMISSION); /* here nobody is the system's own */
    /* Nothing of the system is in sight or in reach. */
    snprintf(
        script, sizeof script,
        "test $(ls -d /proc/[0-9]* | wc -l) -le 6 && ! kill -0 %d 2>/dev/null && ! kill -9 1 2>/dev/null && "
        "! ls %s 2>/dev/null && ! cat /proc/1/environ 2>/dev/null && ! ls /proc/1/fd 2>/dev/null && "
        "test $(awk '/^CapEff/ {print $2}' /proc/self/status) = 0000000000000000 && echo kept in",
        (int)suite.driver, suite.run_dir);
    spawn = (harness_spawn_t){.domain = 3, .argv = ARGV("/bin/sh", "-c", script), .user = "daemon"};
    if (harness_isolates(&suite)) {
        assert_int_equal(harness_run(&suite, &spawn, out, sizeof out), 0);
        assert_string_equal(out, "kept in\n");
    } else {
        print_message("this host refuses PID namespaces: what a program sees of others is not looked at\n");
    }
    spawn = (harness_spawn_t){.domain = 4,
                              .argv = ARGV("/bin/sh", "-c", "id -u; cat /proc/self/status | grep CapEff"),
                              .user = "root",
                              .flags = RF_SPAWN_ROOT};
    assert_int_equal(harness_run(&suite, &spawn, out, sizeof out), 0);
    print_message("root: %s", out);
    assert_memory_equal(out, "0\n", 2);
    rf_kernel_share_t share = {.domain = 5, .reserved_permille = 100};
    assert_int_equal(
        harness_create(&suite,
                       &(harness_spawn_t){.domain = 5, .argv = ARGV("sleep", "1000"), .user = "daemon"},
                       &created, NULL),
        RF_OK);
    assert_int_equal(harness_ask(&suite, RF_KERNEL_SHARE_SET, &share, sizeof share, NULL, 0, NULL, 0), RF_OK);
    assert_int_equal(suite_ask_target(RF_KERNEL_DESTROY, 5), RF_OK);
    assert_int_equal(harness_exited(&suite, 5), SIGKILL);
    harness_stop(&suite);
}

int main(int argc, char **argv)
{
    if (suite_arguments(argc, argv) != 0) return 2;
    const struct CMUnitTest tests[] = {
        TEST(exit_status_passes_through, usual),
        TEST(exit_status_passes_through, slices),
        TEST(exit_status_passes_through, no_isolation),
        TEST(exit_status_passes_through, unprivileged),
        TEST(exit_status_passes_through, unprivileged_no_isolation),
        TEST(program_gets_what_was_asked, usual),
        TEST(program_gets_what_was_asked, no_isolation),
        TEST(program_gets_what_was_asked, unprivileged),
        TEST(errors_name_the_cause, usual),
        TEST(bad_creations_change_nothing, usual),
        TEST(executable_by_descriptor, usual),
        TEST(streams_end_with_the_program, usual),
        TEST(terminal, usual),
        TEST(terminal, unprivileged),
        TEST(signals_reach_the_program, usual),
        TEST(signals_reach_the_program, no_isolation),
        TEST(privileged_programs_have_their_own_user, privileged),
    };
    return cmocka_run_group_tests_name("cpudriver programs", tests, NULL, NULL);
}
