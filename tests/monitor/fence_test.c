/*
 * A real monitor process and two lives of its neighbour, played by this test, over each medium between monitors: once the
 * machine has named the later life, nothing that the earlier one still sends is heard, it cannot link again, and no memory that
 * it still maps is used for anything. (What fence() itself has to keep, for every medium: tests/conformance/cases_fence.c.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "monitor/shell.h"

#include "base/os.h"
#include "transport/registry.h"
#include "transport/shm/shm.h"
#include "transport/tcp/tcp.h"
#ifdef RF_TEST_DRIVER /* where DPDK is */
#include "../transport/dpdk_wire.h"
#include "transport/dpdk/dpdk.h"
#endif

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_NS (20 * RF_NS_PER_S) /* against hanging only */
#define OBJECTS_MAX 256
#define PINGS       50

typedef struct life { /* one process's presence, as the monitor sees it */
    const rf_transport_t *transport;
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    bool up, over;
    rf_err_t err;
    rf_assembler_t assembler;
} life_t;

static struct {
    pid_t pid;
    char folder[64], address[RF_ADDRESS_MAX]; /* address: where the monitor listens, for this medium */
    const rf_transport_t *medium;
    const char *options; /* of the lives' endpoints */
    bool hosts;          /* the neighbour is on another host */
    rf_boot_t boot;
    life_t node, kernel; /* rackfishd and the CPU driver */
} t;

static bool is_over_dpdk(void)
{
    return strcmp(t.medium->name, "dpdk") == 0;
}

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    life_t *life = context;
    (void)link;
    if (event == RF_LINK_UP) life->up = true;
    if (event == RF_LINK_CLOSED || event == RF_LINK_DEAD) {
        life->over = true;
        life->err = event == RF_LINK_CLOSED ? RF_ERR_CLOSED : info->err;
    }
    for (unsigned i = 0; event == RF_LINK_FDS && i < info->n_fds; i++) close(info->fds[i]);
}

static void progress(life_t *life)
{
    uint64_t next_ns;
    life->transport->endpoint_progress(life->endpoint, rf_clock_ns(), &next_ns);
}

static void life_open(life_t *life, const rf_transport_t *transport, uint16_t role, rf_core_t core,
                      rf_incarnation_t incarnation)
{
    *life = (life_t){.transport = transport};
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR,
                                            .version_minor = RF_VERSION_MINOR,
                                            .kind = role,
                                            .core = core,
                                            .incarnation = incarnation},
                                   .on_event = on_event,
                                   .context = life,
                                   .medium = transport == t.medium ? (void *)(uintptr_t)t.options : NULL,
                                   .deadline_ns = DEADLINE_NS};
    if (transport == t.medium && is_over_dpdk()) { /* always encrypted, for the secrets of its flows */
        params.key = t.boot.link_key;
        params.key_size = sizeof t.boot.link_key;
    }
    assert_int_equal(transport->endpoint_open(&params, &life->endpoint), RF_OK);
}

static void life_close(life_t *life)
{
    if (!life->endpoint) return;
    life->transport->endpoint_close(life->endpoint);
    life->endpoint = NULL;
}

/* Links with the monitor; how it ended if it did not come up. */
static rf_err_t dial(life_t *life, const char *address, int socket)
{
    rf_link_params_t params = {.address = address, .socket = socket, .user = life};
    uint64_t until = rf_clock_ns() + DEADLINE_NS;
    rf_err_t err = life->transport->connect(life->endpoint, &params, &life->link);
    if (err != RF_OK) return err;
    while (!life->up && !life->over && rf_clock_ns() < until) {
        progress(life);
        usleep(100);
    }
    return life->up ? RF_OK : life->over ? life->err : RF_ERR_TIMEOUT;
}

/* The next message; RF_ERR_CLOSED when the link is over and empty. */
static rf_err_t receive(life_t *life, uint64_t wait_ns)
{
    uint64_t until = rf_clock_ns() + wait_ns;
    while (rf_clock_ns() < until) {
        rf_slot_t slot;
        progress(life);
        if (life->link->transport->poll(life->link, &slot, 1) == 0) {
            if (life->over) return RF_ERR_CLOSED;
            usleep(100);
            continue;
        }
        rf_err_t err = rf_assembler_feed(&life->assembler, &slot);
        if (err != RF_ERR_AGAIN) return err;
    }
    return RF_ERR_TIMEOUT;
}

static rf_err_t ping(life_t *life, uint64_t number)
{
    peer_ping_t body = {.sent_ns = number};
    rf_err_t err = rf_message_send(life->link, PEER_PING, &body, sizeof body);
    return err == RF_OK ? life->link->transport->flush(life->link) : err;
}

/* The monitor answers this life: everything else that it says meanwhile is passed over. */
static void answers(life_t *life, uint64_t number)
{
    assert_int_equal(ping(life, number), RF_OK);
    for (;;) {
        peer_ping_t body = {0};
        assert_int_equal(receive(life, DEADLINE_NS), RF_OK);
        if (life->assembler.type != PEER_PONG) continue;
        memcpy(&body, life->assembler.bytes, sizeof body);
        assert_int_equal(body.sent_ns, number);
        return;
    }
}

/* The memory objects of links that the monitor maps, by inode. */
static unsigned objects(unsigned long out[OBJECTS_MAX])
{
    char path[64], line[512];
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)t.pid);
    FILE *maps = fopen(path, "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        unsigned long inode;
        if (!strstr(line, "/memfd:rackfish-")) continue;
        if (sscanf(line, "%*s %*s %*s %*s %lu", &inode) == 1 && n < OBJECTS_MAX) out[n++] = inode;
    }
    fclose(maps);
    return n;
}

static bool contains(const unsigned long *set, unsigned n, unsigned long inode)
{
    for (unsigned i = 0; i < n; i++) {
        if (set[i] == inode) return true;
    }
    return false;
}

static void child(int socket)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rf_log_init("monitor/0", RF_LOG_ERROR);
    if (rf_transport_register(&rf_transport_shm) != RF_OK ||
        rf_transport_register(&rf_transport_tcp) != RF_OK ||
        (is_over_dpdk() && rf_transport_register(t.medium) != RF_OK))
        _exit(100);
    static rf_lease_t lease;
    _exit(shell_run(&t.boot, 0, 1, socket, &lease));
}

static void ask_where_it_listens(void)
{
    rf_wire_header_t header = {.tag = 1, .op = RF_CLIENT_LISTEN_ADDRESS};
    char path[RF_ADDRESS_MAX];
    snprintf(path, sizeof path, "%s/monitor-0.sock", t.folder);
    if (!t.hosts) {
        snprintf(t.address, sizeof t.address, "%s", path);
        return;
    }
    life_open(&t.node, &rf_transport_shm, RF_ROLE_NODE, RF_CORE_NONE, 0);
    assert_int_equal(dial(&t.node, path, -1), RF_OK);
    assert_int_equal(rf_message_send(t.node.link, RF_CLIENT_REQUEST, &header, sizeof header), RF_OK);
    t.node.link->transport->flush(t.node.link);
    assert_int_equal(receive(&t.node, DEADLINE_NS), RF_OK);
    memcpy(&header, t.node.assembler.bytes, sizeof header);
    assert_int_equal(header.err, RF_OK);
    snprintf(t.address, sizeof t.address, "%.*s", (int)sizeof t.address - 1,
             (const char *)t.node.assembler.bytes + sizeof header);
}

static void start(const rf_transport_t *medium, const char *options, const char *monitors_options)
{
    int pair[2];
    memset(&t, 0, sizeof t);
    t.medium = medium;
    t.options = options;
    t.hosts = medium != &rf_transport_shm;
    snprintf(t.folder, sizeof t.folder, "/tmp/rackfish-fence-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    t.boot = (rf_boot_t){.magic = RF_BOOT_MAGIC,
                         .size = sizeof t.boot,
                         .n_nodes = t.hosts ? 2 : 1,
                         .n_cores = 2,
                         .heartbeat_ms = 100,
                         .host_deadline_ms = 60000,
                         .election_ms = 500,
                         .owner_uid = geteuid()};
    t.boot.nodes[0] = (rf_boot_node_t){.address = "127.0.0.1", .n_cores = t.hosts ? 1 : 2};
    t.boot.nodes[1] = (rf_boot_node_t){.address = "127.0.0.1", .first_core = 1, .n_cores = 1};
    t.boot.node_of[1] = t.hosts ? 1 : 0;
    snprintf(t.boot.medium[1], sizeof t.boot.medium[1], "%s", t.hosts ? medium->name : "tcp");
    snprintf(t.boot.dpdk, sizeof t.boot.dpdk, "%s", monitors_options);
    snprintf(t.boot.run_dir, sizeof t.boot.run_dir, "%s", t.folder);
    t.pid = fork();
    if (t.pid == 0) {
        close(pair[1]);
        child(pair[0]);
    }
    close(pair[0]);
    life_open(&t.kernel, &rf_transport_shm, RF_ROLE_CPUDRIVER, RF_CORE_NONE, 0);
    assert_int_equal(dial(&t.kernel, NULL, pair[1]), RF_OK);
    ask_where_it_listens();
}

static int tear_down(void **state)
{
    (void)state;
    char path[RF_ADDRESS_MAX];
    if (t.pid > 0) {
        kill(t.pid, SIGKILL);
        waitpid(t.pid, NULL, 0);
    }
    life_close(&t.node);
    life_close(&t.kernel);
    snprintf(path, sizeof path, "%s/monitor-0.sock", t.folder);
    unlink(path);
    rmdir(t.folder);
#ifdef RF_TEST_DRIVER
    dpdk_wire_end();
#endif
    return 0;
}

/* Options: of both lives' endpoints, and of the monitor's. */
static void an_earlier_life_is_fenced(const rf_transport_t *medium, const char *options,
                                      const char *monitors_options)
{
    life_t earlier, later, again;
    unsigned long before[OBJECTS_MAX], with[OBJECTS_MAX], after[OBJECTS_MAX];
    start(medium, options, monitors_options);
    unsigned n_before = objects(before);
    life_open(&earlier, medium, RF_ROLE_MONITOR, 1, 1);
    assert_int_equal(dial(&earlier, t.address, -1), RF_OK);
    answers(&earlier, 1);
    unsigned n_with = objects(with);
    assert_true(medium == &rf_transport_tcp || n_with > n_before);

    /* It stalls: it does nothing any more, not even look. Meanwhile its core comes back. */
    life_open(&later, medium, RF_ROLE_MONITOR, 1, 2);
    assert_int_equal(dial(&later, t.address, -1), RF_OK);
    answers(&later, 2);
    unsigned n_after = objects(after);
    for (unsigned i = 0; i < n_with;
         i++) { /* what they shared, which `earlier` still maps, is not mapped there */
        if (!contains(before, n_before, with[i])) assert_false(contains(after, n_after, with[i]));
    }

    /* It goes on, and says what it had to say. */
    for (unsigned i = 0; i < PINGS && ping(&earlier, 100 + i) == RF_OK; i++) answers(&later, 200 + i);
    answers(&later, 3);
    rf_err_t err;
    while ((err = receive(&earlier, DEADLINE_NS)) == RF_OK)
        assert_int_not_equal(earlier.assembler.type, PEER_PONG);
    assert_int_equal(err, RF_ERR_CLOSED);
    answers(&later, 4);

    /* And comes again. */
    life_open(&again, medium, RF_ROLE_MONITOR, 1, 1);
    assert_int_equal(dial(&again, t.address, -1), RF_ERR_FENCED);
    answers(&later, 5);
    n_after = objects(after);
    for (unsigned i = 0; i < n_with; i++) {
        if (!contains(before, n_before, with[i])) assert_false(contains(after, n_after, with[i]));
    }
    life_close(&earlier);
    life_close(&later);
    life_close(&again);
}

static void over_shm(void **state)
{
    (void)state;
    an_earlier_life_is_fenced(&rf_transport_shm, NULL, "");
}

static void over_tcp(void **state)
{
    (void)state;
    an_earlier_life_is_fenced(&rf_transport_tcp, NULL, "");
}

#ifdef RF_TEST_DRIVER
static void over_dpdk(void **state)
{
    (void)state;
    if (!dpdk_wire_begin(RF_TEST_DRIVER, dpdk_wire_virtio)) skip(); /* its log says why */
    an_earlier_life_is_fenced(&rf_transport_dpdk, dpdk_wire_option(1), dpdk_wire_option(0));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(over_shm, tear_down),
        cmocka_unit_test_teardown(over_tcp, tear_down),
#ifdef RF_TEST_DRIVER
        cmocka_unit_test_teardown(over_dpdk, tear_down),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
