/* A process that is stopped is told from one that works, and from one that is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "node/answers.h"
#include "transport/transport.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_NS (30 * RF_NS_PER_S)

extern const rf_transport_t rf_transport_shm;

static char folder[] = "/tmp/rackfish-answers-XXXXXX";
static char path[64];
static unsigned links; /* in the process that serves: it must hear of none */

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context, (void)link, (void)event, (void)info;
    links++;
}

/* What a link driver does with its socket. Ends with 0 on SIGTERM if it heard of no link. */
static volatile sig_atomic_t stopping;
static void stop(int signal)
{
    (void)signal;
    stopping = 1;
}

static pid_t serve(void)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGTERM, stop);
        rf_endpoint_params_t params = {.on_event = on_event, .address = path};
        rf_endpoint_t *endpoint;
        if (rf_transport_shm.endpoint_open(&params, &endpoint) != RF_OK) _exit(9);
        if (write(ready[1], "r", 1) != 1) _exit(9);
        while (!stopping) {
            uint64_t next_ns;
            struct pollfd fd = {.fd = rf_transport_shm.endpoint_fd(endpoint), .events = POLLIN};
            poll(&fd, 1, 20);
            rf_transport_shm.endpoint_progress(endpoint, rf_clock_ns(), &next_ns);
        }
        rf_transport_shm.endpoint_close(endpoint);
        _exit(links != 0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void until_it_answers(rf_answers_t *answers)
{
    uint64_t since_ns = rf_clock_ns();
    while (rf_answers_look(answers, path) > 0) {
        assert_true(rf_clock_ns() - since_ns < HANG_NS);
        rf_clock_sleep_ms(5);
    }
}

static void stopped_is_not_working(void **state)
{
    (void)state;
    rf_answers_t answers;
    pid_t pid = serve();
    rf_answers_begin(&answers);
    assert_int_equal(rf_answers_look(&answers, path), 1); /* nothing was asked before */
    until_it_answers(&answers);
    assert_true(answers.ever);

    int status;
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    (void)rf_answers_look(&answers, path); /* may be an answer to what was asked before */
    unsigned before = rf_answers_look(&answers, path);
    for (unsigned i = 1; i <= 300; i++) /* more than ever wait at once: it is one that waits */
        assert_int_equal(rf_answers_look(&answers, path), before + i);

    assert_int_equal(kill(pid, SIGCONT), 0);
    until_it_answers(&answers);
    rf_answers_end(&answers);
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void nobody_there_is_silence(void **state)
{
    (void)state;
    rf_answers_t answers;
    rf_answers_begin(&answers);
    for (unsigned i = 1; i <= 5; i++) assert_int_equal(rf_answers_look(&answers, path), i);
    assert_false(answers.ever);
    pid_t pid = serve(); /* one that comes late */
    until_it_answers(&answers);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    (void)rf_answers_look(&answers, path);
    (void)rf_answers_look(&answers, path); /* its end closed what waited there */
    assert_true(rf_answers_look(&answers, path) > 0);
    rf_answers_end(&answers);
    unlink(path);
}

/* As many wait as may: it is asked again, and an answer that comes late is one. */
static void others_who_wait_are_no_silence(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0), others[8], n = 0, fd;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    do {
        assert_in_range(n, 0, 7);
        others[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
    } while (connect(others[n++], (struct sockaddr *)&address, sizeof address) == 0);

    rf_answers_t answers;
    rf_answers_begin(&answers);
    assert_int_equal(rf_answers_look(&answers, path), 1);
    assert_true(answers.full);
    rf_answers_ask(&answers, path);
    assert_true(answers.full);
    assert_int_equal(answers.silent, 1); /* asking counts for nothing */
    close(accept(listener, NULL, NULL));
    rf_answers_ask(&answers, path);
    assert_false(answers.full);
    while ((fd = accept(listener, NULL, NULL)) >= 0) close(fd);
    assert_int_equal(rf_answers_look(&answers, path), 0);
    rf_answers_end(&answers);

    while (n > 0) close(others[--n]);
    close(listener);
    unlink(path);
    rf_answers_begin(&answers);
    assert_int_equal(rf_answers_look(&answers, path), 1);
    assert_false(answers.full); /* nobody is there at all */
}

static int folder_make(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/s", folder);
    return 0;
}

static int folder_remove(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopped_is_not_working),
        cmocka_unit_test(nobody_there_is_silence),
        cmocka_unit_test(others_who_wait_are_no_silence),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
