/* A real rf-monitor process with real links: this test is its CPU driver and its clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "monitor/shell.h"

#include "base/os.h"
#include "base/prng.h"
#include "transport/registry.h"
#include "transport/shm/shm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_NS (20 * RF_NS_PER_S) /* against hanging only */

typedef struct end { /* one of this test's links */
    rf_link_t *link;
    bool up, over;
    rf_err_t err;
    rf_assembler_t assembler;
} end_t;

static struct {
    pid_t pid;
    char folder[64];
    rf_boot_t boot;
    rf_endpoint_t *endpoint;
    end_t kernel;
} t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context;
    end_t *end = link->user;
    if (event == RF_LINK_UP) end->up = true;
    if (event == RF_LINK_CLOSED || event == RF_LINK_DEAD) {
        end->over = true;
        end->err = event == RF_LINK_CLOSED ? RF_ERR_CLOSED : info->err;
    }
    for (unsigned i = 0; event == RF_LINK_FDS && i < info->n_fds; i++) close(info->fds[i]);
}

static void progress(void)
{
    uint64_t next_ns;
    rf_transport_shm.endpoint_progress(t.endpoint, rf_clock_ns(), &next_ns);
}

/* The next message of a link: RF_OK, or RF_ERR_CLOSED when it is over; waits, within reason. */
static rf_err_t receive(end_t *end)
{
    uint64_t until = rf_clock_ns() + DEADLINE_NS;
    while (rf_clock_ns() < until) {
        rf_slot_t slot;
        progress();
        if (end->link->transport->poll(end->link, &slot, 1) == 0) {
            if (end->over) return RF_ERR_CLOSED;
            usleep(100);
            continue;
        }
        rf_err_t err = rf_assembler_feed(&end->assembler, &slot);
        if (err != RF_ERR_AGAIN) return err;
    }
    return RF_ERR_TIMEOUT;
}

static rf_err_t ask(end_t *end, uint32_t tag, uint16_t op)
{
    rf_wire_header_t header = {.tag = tag, .op = op};
    rf_err_t err = rf_message_send(end->link, RF_CLIENT_REQUEST, &header, sizeof header);
    if (err == RF_OK) end->link->transport->flush(end->link);
    return err;
}

/* Takes one reply, which must be this one. */
static void expect(end_t *end, uint32_t tag, void *body, size_t size)
{
    rf_wire_header_t header;
    assert_int_equal(receive(end), RF_OK);
    memcpy(&header, end->assembler.bytes, sizeof header);
    assert_int_equal(header.tag, tag);
    assert_int_equal(header.err, RF_OK);
    assert_true(end->assembler.size >= sizeof header + size);
    if (size > 0) memcpy(body, end->assembler.bytes + sizeof header, size);
}

static end_t *client_new(void)
{
    char path[RF_ADDRESS_MAX];
    end_t *end = calloc(1, sizeof *end);
    assert_non_null(end);
    snprintf(path, sizeof path, "%s/monitor-0.sock", t.folder);
    rf_link_params_t params = {.address = path, .socket = -1, .user = end};
    assert_int_equal(rf_transport_shm.connect(t.endpoint, &params, &end->link), RF_OK);
    uint64_t until = rf_clock_ns() + DEADLINE_NS;
    while (!end->up && !end->over && rf_clock_ns() < until) {
        progress();
        usleep(100);
    }
    assert_true(end->up);
    return end;
}

static void client_free(end_t *end)
{
    rf_transport_shm.close(end->link);
    free(end);
}

static void stop(void)
{
    if (t.pid > 0) {
        kill(t.pid, SIGKILL);
        waitpid(t.pid, NULL, 0);
        t.pid = 0;
    }
}

static void child(int socket)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rf_log_init("monitor/0", RF_LOG_ERROR);
    if (rf_transport_register(&rf_transport_shm) != RF_OK) _exit(100);
    static rf_lease_t lease;
    _exit(shell_run(&t.boot, 0, 1, socket, &lease));
}

static int set_up(void **state)
{
    (void)state;
    int pair[2];
    memset(&t, 0, sizeof t);
    snprintf(t.folder, sizeof t.folder, "/tmp/rackfish-shell-XXXXXX");
    if (!mkdtemp(t.folder) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -1;
    t.boot = (rf_boot_t){.magic = RF_BOOT_MAGIC,
                         .size = sizeof t.boot,
                         .n_nodes = 1,
                         .n_cores = 1,
                         .heartbeat_ms = 100,
                         .host_deadline_ms = 1000,
                         .election_ms = 500,
                         .owner_uid = geteuid()};
    t.boot.nodes[0].n_cores = 1;
    snprintf(t.boot.run_dir, sizeof t.boot.run_dir, "%s", t.folder);
    t.pid = fork();
    if (t.pid == 0) {
        close(pair[1]);
        child(pair[0]);
    }
    close(pair[0]);
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR, .kind = RF_ROLE_NODE},
                                   .on_event = on_event,
                                   .deadline_ns = DEADLINE_NS};
    if (rf_transport_shm.endpoint_open(&params, &t.endpoint) != RF_OK) return -1;
    rf_link_params_t kernel = {.socket = pair[1], .user = &t.kernel};
    return rf_transport_shm.connect(t.endpoint, &kernel, &t.kernel.link) == RF_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char path[RF_ADDRESS_MAX];
    stop();
    rf_transport_shm.endpoint_close(t.endpoint);
    snprintf(path, sizeof path, "%s/monitor-0.sock", t.folder);
    unlink(path);
    return rmdir(t.folder);
}

static void boots_and_asks_its_cpu_driver(void **state)
{
    (void)state;
    rf_wire_header_t header;
    assert_int_equal(receive(&t.kernel), RF_OK);
    memcpy(&header, t.kernel.assembler.bytes, sizeof header);
    assert_int_equal(t.kernel.assembler.type, RF_KERNEL_INVOKE);
    assert_int_equal(header.op, RF_KERNEL_IDENTIFY);
    end_t *c = client_new();
    rf_client_status_t status;
    assert_int_equal(ask(c, 1, RF_CLIENT_STATUS), RF_OK);
    expect(c, 1, &status, sizeof status);
    assert_int_equal(status.cores_up, 1);
    assert_false(status.forming);
    client_free(c);
}

/* More answers than the ring holds, none read meanwhile: all come, in order. */
static void answers_wait_for_a_slow_client(void **state)
{
    (void)state;
    enum { N = 400 };
    end_t *c = client_new(), *other = client_new();
    for (uint32_t i = 1; i <= N; i++) {
        while (ask(c, i, RF_CLIENT_STATUS) == RF_ERR_AGAIN) progress();
        if (i % 50 == 0) { /* others are served all the time */
            assert_int_equal(ask(other, i, RF_CLIENT_PING), RF_OK);
            expect(other, i, NULL, 0);
        }
    }
    rf_client_status_t status;
    for (uint32_t i = 1; i <= N; i++) expect(c, i, &status, sizeof status);
    client_free(c);
    client_free(other);
}

static void who_never_reads_loses_its_link(void **state)
{
    (void)state;
    end_t *c = client_new(), *other = client_new();
    uint32_t n = 0, answers = 0, idle = 0;
    rf_err_t err;
    while (!c->over && n < 20000 && idle < 2000) { /* until nothing more is taken */
        err = ask(c, n + 1, RF_CLIENT_STATUS);
        n += err == RF_OK;
        idle = err == RF_OK ? 0 : idle + 1;
        if (err != RF_OK) usleep(100);
        progress();
    }
    while ((err = receive(c)) == RF_OK) answers++; /* what was said before the end is there */
    assert_int_equal(err, RF_ERR_CLOSED);
    assert_true(answers > 0 && answers < n);
    assert_int_equal(ask(other, 7, RF_CLIENT_PING), RF_OK);
    expect(other, 7, NULL, 0);
    client_free(c);
    client_free(other);
}

static void garbage_costs_only_its_sender(void **state)
{
    (void)state;
    end_t *c = client_new(), *other = client_new();
    rf_prng_t prng;
    rf_prng_seed(&prng, 5);
    for (unsigned i = 0; i < 2000 && !c->over; i++) {
        rf_slot_t slot;
        for (unsigned k = 0; k < 7; k++) slot.words[k] = rf_prng_next(&prng);
        slot.control = rf_control_make((uint8_t)(1 + rf_prng_below(&prng, 0xef)),
                                       (unsigned)rf_prng_below(&prng, 57), rf_prng_below(&prng, 2), 0);
        c->link->transport->send(c->link, &slot, 1);
        c->link->transport->flush(c->link);
        progress();
    }
    assert_int_equal(receive(c), RF_ERR_CLOSED);
    assert_int_equal(ask(other, 8, RF_CLIENT_PING), RF_OK);
    expect(other, 8, NULL, 0);
    client_free(c);
    client_free(other);
}

static void ends_with_its_cpu_driver(void **state)
{
    (void)state;
    int status = 0;
    rf_transport_shm.close(t.kernel.link);
    progress();
    assert_int_equal(waitpid(t.pid, &status, 0), t.pid);
    t.pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), MONITOR_EXIT_FAILED);
}

static void shuts_down_when_told(void **state)
{
    (void)state;
    int status = 0;
    end_t *c = client_new();
    assert_int_equal(ask(c, 3, RF_CLIENT_SHUTDOWN), RF_OK);
    expect(c, 3, NULL, 0); /* the answer comes before the end */
    assert_int_equal(waitpid(t.pid, &status, 0), t.pid);
    t.pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), MONITOR_EXIT_SHUTDOWN);
    client_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(boots_and_asks_its_cpu_driver, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_wait_for_a_slow_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_never_reads_loses_its_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage_costs_only_its_sender, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ends_with_its_cpu_driver, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shuts_down_when_told, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
