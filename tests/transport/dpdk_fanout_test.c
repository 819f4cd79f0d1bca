/*
 * A link driver on packet sockets whose number in the network namespace another has says so by its exit status, since another process
 * will do; whatever else is wrong does not look like that. In a network namespace of its own, as root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define START_MS 30000

static char folder[] = "/tmp/rackfish-fanout-XXXXXX";
static bool able;

/* Takes, on another interface, the number that DPDK gives this process's sockets of v0; for good, also when it is another program. */
static bool number_take(void)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex("lo")};
    unsigned number = ((unsigned)getpid() ^ if_nametoindex("v0")) & 0xffff;
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), group = (int)(number | PACKET_FANOUT_HASH << 16);
    return fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
           setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group) == 0;
}

/* Starts a link driver on v0: -1: it serves, and is ended; or the status with which it ends. */
static int driver_runs(bool number_is_taken)
{
    int ready[2], status;
    char byte, socket_text[64], ready_text[16];
    assert_int_equal(pipe(ready), 0);
    snprintf(socket_text, sizeof socket_text, "%s/s", folder);
    snprintf(ready_text, sizeof ready_text, "%d", ready[1]);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (number_is_taken && !number_take()) _exit(99);
        execl(RF_TEST_DRIVER, "rackfish-dpdk", "--socket", socket_text, "--device", "net_af_packet0,iface=v0",
              "--ready-fd", ready_text, NULL);
        _exit(127);
    }
    close(ready[1]);
    assert_int_equal(poll(&(struct pollfd){.fd = ready[0], .events = POLLIN}, 1, START_MS), 1);
    bool serves = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (serves) kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (serves) return -1;
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_number_that_is_free(void **state)
{
    (void)state;
    if (!able) skip();
    assert_int_equal(driver_runs(false), -1);
}

static void a_number_that_is_taken(void **state)
{
    (void)state;
    if (!able) skip();
    assert_int_equal(driver_runs(true), EX_TEMPFAIL);
}

static void an_interface_that_is_down(void **state)
{
    (void)state;
    if (!able) skip();
    assert_int_equal(system("ip link set v0 down"), 0);
    int status = driver_runs(false);
    assert_int_equal(system("ip link set v0 up"), 0);
    assert_int_not_equal(status, EX_TEMPFAIL);
}

static void an_interface_that_is_not_there(void **state)
{
    (void)state;
    if (!able) skip();
    assert_int_equal(system("ip link del v0"), 0);
    assert_int_equal(driver_runs(false), EXIT_FAILURE);
}

static int namespace_make(void **state)
{
    (void)state;
    able =
        geteuid() == 0 && unshare(CLONE_NEWNET) == 0 &&
        system("ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v1 up && ip link "
               "set v0 up") == 0;
    if (!able) puts("skipped: no network namespace of its own can be had (root, iproute2)");
    return mkdtemp(folder) ? 0 : -1;
}

static int folder_remove(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_that_is_free),
        cmocka_unit_test(a_number_that_is_taken),
        cmocka_unit_test(an_interface_that_is_down),
        cmocka_unit_test(an_interface_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, namespace_make, folder_remove);
}
