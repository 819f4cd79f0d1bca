/*
 * How rackfishd starts the link drivers of a node. What it starts here is a shell script that serves, fails, or wants to be
 * another process, as a file beside it says, and writes down each start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/link_driver.h"
#include "node/run_dir.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char program[] =
    "#!/bin/sh\n"
    "cd \"${0%/*}\"\n"
    "for a; do case $a in --socket=*) s=${a##*/} ;; --ready-fd=*) ready=yes ;; esac; done\n"
    "echo $$ >>started.$s\n"
    ". ./plan.$s\n"
    "[ -z \"$ready\" ] || { printf r >&3; exec 3>&-; }\n"
    "exec sleep 1000\n";
static const char serves[] = ":\n", fails[] = "echo 'there is no such device'; exit 1\n",
                  never[] = "exit 75\n",
                  third[] = "[ $(wc -l <started.$s) = 3 ] || exit 75\n"; /* by its third process */

static char folder[32];
static rf_daemon_t *daemon_of_test;

static void file_write(const char *name, const char *text, mode_t mode)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static unsigned starts_of(const char *socket)
{
    char path[128], line[32];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/started.%s", folder, socket);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) n++;
    if (file) fclose(file);
    return n;
}

/* A rackfishd of a node with so many ports, in the folder. */
static rf_daemon_t *daemon_make(unsigned ports)
{
    rf_daemon_t *daemon = calloc(1, sizeof *daemon);
    assert_non_null(daemon);
    daemon->config = calloc(1, sizeof *daemon->config);
    assert_non_null(daemon->config);
    daemon->system_uid = geteuid(), daemon->system_gid = getegid();
    daemon->config->n_nodes = 2;
    snprintf(daemon->config->medium[0][1], sizeof daemon->config->medium[0][1], "dpdk");
    rf_config_node_t *node = &daemon->config->nodes[0];
    node->n_cores = 1;
    node->n_dpdk = ports;
    for (unsigned i = 0; i < ports; i++) {
        node->dpdk[i].cpu = -1;
        snprintf(node->dpdk[i].device, sizeof node->dpdk[i].device, "net_null%u", i);
    }
    snprintf(daemon->node_dir, sizeof daemon->node_dir, "%s/n", folder);
    snprintf(daemon->libexec_dir, sizeof daemon->libexec_dir, "%s", folder);
    assert_true(mkdir(daemon->node_dir, 0700) == 0 || access(daemon->node_dir, W_OK) == 0);
    assert_int_equal(rf_loop_init(&daemon->loop), RF_OK);
    char error[RF_CONFIG_ERROR_MAX] = "";
    assert_int_equal(rf_link_drivers_prepare(daemon, error, sizeof error), RF_OK);
    return daemon_of_test = daemon;
}

/* It ends, and leaves its link drivers. */
static void daemon_forget(rf_daemon_t *daemon)
{
    rf_link_drivers_release(daemon);
    rf_loop_finish(&daemon->loop);
    free(daemon->config);
    free(daemon);
    daemon_of_test = NULL;
}

static int begin(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rackfish-links-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    file_write("rackfish-dpdk", program, 0700);
    return 0;
}

static int end(void **state)
{
    (void)state;
    char command[64];
    if (daemon_of_test) {
        rf_link_drivers_stop(daemon_of_test);
        daemon_forget(daemon_of_test);
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void it_serves(const rf_daemon_t *daemon, unsigned port)
{
    assert_true(daemon->link_drivers[port].pid > 0);
    assert_int_equal(kill(daemon->link_drivers[port].pid, 0), 0);
}

/* Nobody could end it later. */
static void one_that_cannot_be_watched_does_not_stay(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX] = "";
    file_write("plan.sock", serves, 0600);
    rf_daemon_t *daemon = daemon_make(1);
    int epoll_fd = daemon->loop.epoll_fd;
    daemon->loop.epoll_fd = -1;
    rf_err_t err = rf_link_drivers_start(daemon, error, sizeof error);
    daemon->loop.epoll_fd = epoll_fd;
    assert_int_equal(err, RF_ERR_OS);
    assert_non_null(strstr(error, "cannot watch the link driver"));
    assert_int_equal(daemon->link_drivers[0].pid, 0);
    assert_int_equal(daemon->link_drivers[0].pidfd, -1);
    assert_false(rf_timer_is_set(&daemon->link_drivers[0].look));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
    assert_int_equal(errno, ECHILD);
}

static void a_node_boots_with_the_ports_that_serve(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX] = "";
    file_write("plan.sock", fails, 0600);
    file_write("plan.sock1", serves, 0600);
    file_write("plan.sock2", fails, 0600);
    rf_daemon_t *daemon = daemon_make(3);
    assert_int_equal(rf_link_drivers_start(daemon, error, sizeof error), RF_OK);
    it_serves(daemon, 1);
    assert_int_equal(daemon->link_drivers[0].pid, 0);
    assert_int_equal(daemon->link_drivers[2].pid, 0);
    assert_true(rf_timer_is_set(&daemon->link_drivers[0].again)); /* they are tried again */
    assert_true(rf_timer_is_set(&daemon->link_drivers[2].again));
    assert_false(rf_timer_is_set(&daemon->link_drivers[1].again));
    assert_int_equal(starts_of("sock") + starts_of("sock1") + starts_of("sock2"), 3);
}

static void without_any_it_does_not_boot(void **state)
{
    (void)state;
    for (unsigned ports = 1; ports <= 2; ports++) {
        char error[RF_CONFIG_ERROR_MAX] = "";
        file_write("plan.sock", fails, 0600);
        file_write("plan.sock1", fails, 0600);
        rf_daemon_t *daemon = daemon_make(ports);
        assert_int_equal(rf_link_drivers_start(daemon, error, sizeof error), RF_ERR_OS);
        assert_non_null(strstr(error, "there is no such device"));
        rf_link_drivers_stop(daemon);
        daemon_forget(daemon);
    }
    char error[RF_CONFIG_ERROR_MAX] = "";
    rf_daemon_t *daemon = daemon_make(1); /* one that takes over cores that live boots all the same */
    daemon->adopted = true;
    assert_int_equal(rf_link_drivers_start(daemon, error, sizeof error), RF_OK);
    assert_true(rf_timer_is_set(&daemon->link_drivers[0].again));
}

static void another_process_may_have_the_port(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX] = "";
    file_write("plan.sock", third, 0600);
    rf_daemon_t *daemon = daemon_make(1);
    assert_int_equal(rf_link_drivers_start(daemon, error, sizeof error), RF_OK);
    it_serves(daemon, 0);
    assert_int_equal(starts_of("sock"), 3);
}

static void not_every_process_can_be_tried(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX] = "";
    file_write("plan.sock", never, 0600);
    rf_daemon_t *daemon = daemon_make(1);
    assert_int_not_equal(rf_link_drivers_start(daemon, error, sizeof error), RF_OK);
    assert_non_null(strstr(error, "does not start"));
    assert_in_range(starts_of("sock"), 2, 20);
}

/* As another rackfishd wrote it down, also one that knew of one port only and gave it no number. */
static void the_next_rackfishd_adopts_them(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX] = "", text[128];
    static const char *const recorded[] = {"0", "-1"};
    file_write("plan.sock", serves, 0600);
    rf_daemon_t *first = daemon_make(1);
    assert_int_equal(rf_link_drivers_start(first, error, sizeof error), RF_OK);
    pid_t pid = first->link_drivers[0].pid;
    uint64_t start_time = first->link_drivers[0].start_time;
    daemon_forget(first);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(text, sizeof text, RF_LINK_DRIVER_ROLE " %s %d %lu\n", recorded[i], (int)pid,
                 (unsigned long)start_time);
        file_write("n/state", text, 0600);
        rf_daemon_t *next = daemon_make(1);
        assert_int_equal(rf_link_drivers_start(next, error, sizeof error), RF_OK);
        assert_int_equal(next->link_drivers[0].pid, pid);
        assert_int_equal(starts_of("sock"), 1);
        if (i == 0) daemon_forget(next);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_that_cannot_be_watched_does_not_stay, begin, end),
        cmocka_unit_test_setup_teardown(a_node_boots_with_the_ports_that_serve, begin, end),
        cmocka_unit_test_setup_teardown(without_any_it_does_not_boot, begin, end),
        cmocka_unit_test_setup_teardown(another_process_may_have_the_port, begin, end),
        cmocka_unit_test_setup_teardown(not_every_process_can_be_tried, begin, end),
        cmocka_unit_test_setup_teardown(the_next_rackfishd_adopts_them, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
