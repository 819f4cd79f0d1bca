/* Who may have an interface: one of our processes, whatever others do to the name by which they agree on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transport/dpdk/driver/claim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRANGER 65534

static char name[64];

/* A process that does `what`, says '1' or '0', and stays. */
static pid_t process(bool (*what)(unsigned), unsigned argument, bool *said)
{
    int pipes[2];
    char byte;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        byte = what(argument) ? '1' : '0';
        if (write(pipes[1], &byte, 1) == 1) pause();
        _exit(0);
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    close(pipes[0]);
    *said = byte == '1';
    return pid;
}

static void ends(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool claims(unsigned argument)
{
    (void)argument;
    return claim_take(name);
}

static pid_t claimer(bool expected)
{
    bool got;
    pid_t pid = process(claims, 0, &got);
    assert_int_equal(got, expected);
    return pid;
}

/* As a stranger: takes the name itself, so that whoever claims it later cannot have that, and listens there. */
static bool stranger_takes(unsigned argument)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", name), fd;
    (void)argument;
    return setgid(STRANGER) == 0 && setuid(STRANGER) == 0 && (fd = socket(AF_UNIX, SOCK_SEQPACKET, 0)) >= 0 &&
           bind(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0 &&
           listen(fd, 1) == 0;
}

/* As a stranger: whoever has it. */
static bool stranger_claims(unsigned argument)
{
    return setgid(STRANGER) == 0 && setuid(STRANGER) == 0 && claims(argument);
}

static void one_of_ours_has_it(void **state)
{
    (void)state;
    pid_t first = claimer(true);
    ends(claimer(false));
    ends(first);
    ends(claimer(true));
}

static void strangers_do_not_keep_us_out(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    bool took;
    pid_t stranger = process(stranger_takes, 0, &took);
    assert_true(took);
    pid_t first = claimer(true);
    ends(claimer(false)); /* ours keep each other out */
    ends(stranger);
    ends(claimer(false)); /* also when what is in no claim's way any more was in the first's */
    stranger = process(stranger_takes, 0, &took);
    assert_true(took);
    ends(claimer(false));
    ends(first);
    ends(claimer(true));
    ends(stranger);
}

static void a_stranger_s_claim_is_none(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    bool claimed;
    pid_t stranger = process(stranger_claims, 0, &claimed);
    assert_true(claimed);
    ends(claimer(true));
    ends(stranger);
}

/* eth1, and a VLAN of it. */
static void names_that_begin_alike_are_two(void **state)
{
    (void)state;
    size_t n = strlen(name);
    pid_t first = claimer(true);
    snprintf(name + n, sizeof name - n, ".100");
    pid_t second = claimer(true);
    name[n] = 0;
    ends(claimer(false));
    ends(second);
    ends(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_ours_has_it),
        cmocka_unit_test(strangers_do_not_keep_us_out),
        cmocka_unit_test(a_stranger_s_claim_is_none),
        cmocka_unit_test(names_that_begin_alike_are_two),
    };
    snprintf(name, sizeof name, "rackfish-claim-test-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
