/*
 * The link driver: its packets' headers, and processes that say nonsense to it. It runs on a port that has no wire (net_null), so
 * that all that happens is between it and a process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/dpdk/driver/packet.h"
#include "transport/dpdk/local.h"
#include "transport/message.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_NS  (30 * RF_NS_PER_S)
#define START_MS 30000

static const packet_self_t self = {
    .mac = {2, 0, 0, 0, 0, 1}, .ipv4 = {10, 0, 0, 1}, .prefix = 24, .udp_port = 7118};
static const packet_self_t other = {
    .mac = {2, 0, 0, 0, 0, 2}, .ipv4 = {10, 0, 0, 2}, .prefix = 24, .udp_port = 7119};

/* ---- packets ---- */

static uint32_t sum(const uint8_t *bytes, size_t size, uint32_t start)
{
    uint32_t s = start;
    for (size_t i = 0; i < size; i++) s += (uint32_t)bytes[i] << (i % 2 ? 0 : 8);
    while (s >> 16) s = (s & 0xffff) + (s >> 16);
    return s;
}

static size_t make(uint8_t *bytes, size_t size, bool offload)
{
    packet_head_make(&other, self.mac, self.ipv4, self.udp_port, 77, bytes);
    for (size_t i = 0; i < size; i++) bytes[PACKET_HEAD + i] = (uint8_t)(i * 7 + 1);
    packet_finish(bytes, size, offload);
    return PACKET_HEAD + size;
}

static void a_packet_is_read_as_it_was_made(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 1001; size += 77) {
        uint8_t bytes[1200];
        packet_t packet;
        size_t whole = make(bytes, size, false);
        assert_int_equal(packet_read(&self, bytes, whole, false, &packet), PACKET_FLOW);
        assert_ptr_equal(packet.frame, bytes + PACKET_HEAD);
        assert_int_equal(packet.size, size);
        assert_int_equal(sum(bytes + PACKET_IP, 20, 0), 0xffff);
        assert_int_equal(bytes[PACKET_UDP + 6] | bytes[PACKET_UDP + 7], 0);
        /* What a port makes of it that computes checksums: the one's complement of the sum of all, where the pseudo header's stood. */
        make(bytes, size, true);
        assert_int_equal(bytes[PACKET_IP + 10] | bytes[PACKET_IP + 11], 0);
        uint32_t pseudo = sum(bytes + PACKET_IP + 12, 8, 17 + (uint32_t)size + 8);
        assert_int_equal(bytes[PACKET_UDP + 6] << 8 | bytes[PACKET_UDP + 7], pseudo);
    }
}

/* Padded by Ethernet: what IPv4 says counts. */
static void padding_is_not_part_of_a_frame(void **state)
{
    (void)state;
    uint8_t bytes[PACKET_ETHER_MIN] = {0};
    packet_t packet;
    make(bytes, 3, false);
    assert_int_equal(packet_read(&self, bytes, sizeof bytes, false, &packet), PACKET_FLOW);
    assert_int_equal(packet.size, 3);
}

static void what_is_not_for_us_is_left(void **state)
{
    (void)state;
    uint8_t good[200], bytes[200];
    packet_t packet;
    size_t whole = make(good, 64, false);
    /* MAC, type, IPv4's version, length, fragment, protocol, checksum, address; UDP's port and length */
    const unsigned at[] = {5, 12, 14, 16, 20, 21, 23, 24, 33, 37, 38, 39};
    for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
        memcpy(bytes, good, whole);
        bytes[at[i]] ^= 1;
        assert_int_equal(packet_read(&self, bytes, whole, false, &packet), PACKET_OTHER);
    }
    for (size_t size = 0; size < whole; size++) {
        memcpy(bytes, good, whole);
        assert_int_equal(packet_read(&self, bytes, size, false, &packet), PACKET_OTHER);
    }
}

static void arp_is_asked_and_answered(void **state)
{
    (void)state;
    uint8_t question[PACKET_ARP], answer[PACKET_ARP];
    packet_t packet;
    packet_arp_ask(&other, self.ipv4, question);
    assert_int_equal(packet_read(&self, question, sizeof question, false, &packet), PACKET_ARP_ASKED);
    assert_memory_equal(packet.mac, other.mac, sizeof other.mac);
    packet_arp_answer(&self, &packet, answer);
    assert_int_equal(packet_read(&other, answer, sizeof answer, false, &packet), PACKET_ARP_TOLD);
    assert_memory_equal(packet.mac, self.mac, sizeof self.mac);
    assert_memory_equal(packet.ipv4, self.ipv4, sizeof self.ipv4);
    packet_arp_ask(&other, (const uint8_t[]){10, 0, 0, 9}, question);
    assert_int_equal(packet_read(&self, question, sizeof question, false, &packet), PACKET_OTHER);
}

static void networks_have_prefixes(void **state)
{
    (void)state;
    packet_self_t p = self;
    const uint8_t near[] = {10, 0, 0, 200}, far[] = {10, 0, 1, 1};
    assert_true(packet_is_near(&p, near));
    assert_false(packet_is_near(&p, far));
    p.prefix = 16;
    assert_true(packet_is_near(&p, far));
    p.prefix = 32;
    assert_false(packet_is_near(&p, near));
    assert_true(packet_is_near(&p, p.ipv4));
}

/* ---- processes ---- */

static char folder[] = "/tmp/rackfish-driver-XXXXXX";
static char path[64];
static pid_t driver;

typedef struct client {
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    bool up, over;
    rf_assembler_t in;
} client_t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    client_t *client = context;
    (void)link, (void)info;
    client->up |= event == RF_LINK_UP;
    client->over |= event == RF_LINK_DEAD || event == RF_LINK_CLOSED;
}

static int driver_start(void **state)
{
    (void)state;
    int ready[2];
    char text[16], byte;
    if (!mkdtemp(folder) || pipe(ready) != 0) return -1;
    snprintf(path, sizeof path, "%s/s", folder);
    snprintf(text, sizeof text, "%d", ready[1]);
    driver = fork();
    if (driver == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(RF_TEST_DRIVER, "rackfish-dpdk", "--socket", path, "--device", "net_null0", "--address",
              "10.0.0.1", "--ready-fd", text, NULL);
        _exit(127);
    }
    close(ready[1]);
    struct pollfd fd = {.fd = ready[0], .events = POLLIN};
    bool up = poll(&fd, 1, START_MS) == 1 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    return up ? 0 : -1;
}

/* It ends in order, and leaves nothing behind. */
static int driver_stop(void **state)
{
    (void)state;
    int status = -1;
    kill(driver, SIGTERM);
    waitpid(driver, &status, 0);
    bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0 && access(path, F_OK) != 0;
    return rmdir(folder) == 0 && clean ? 0 : -1;
}

static void client_step(client_t *client, uint64_t since_ns)
{
    uint64_t next_ns;
    const struct timespec moment = {.tv_nsec = 100000};
    rf_transport_shm.endpoint_progress(client->endpoint, rf_clock_ns(), &next_ns);
    nanosleep(&moment, NULL);
    assert_true(rf_clock_ns() - since_ns < HANG_NS);
}

static void client_open(client_t *client)
{
    memset(client, 0, sizeof *client);
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR, .version_minor = RF_VERSION_MINOR},
        .on_event = on_event,
        .context = client,
        .deadline_ns = HANG_NS};
    rf_link_params_t link = {.address = path, .socket = -1};
    uint64_t since_ns = rf_clock_ns();
    assert_int_equal(rf_transport_shm.endpoint_open(&params, &client->endpoint), RF_OK);
    assert_int_equal(rf_transport_shm.connect(client->endpoint, &link, &client->link), RF_OK);
    while (!client->up) client_step(client, since_ns);
}

static void client_say(client_t *client, uint8_t type, const void *bytes, size_t size)
{
    assert_int_equal(rf_message_send(client->link, type, bytes, size), RF_OK);
    rf_transport_shm.flush(client->link);
}

/* The type of the next message; 0: the link ended first. */
static uint8_t client_hear(client_t *client)
{
    uint64_t since_ns = rf_clock_ns();
    rf_slot_t slot;
    for (;;) {
        if (rf_transport_shm.poll(client->link, &slot, 1) == 1) {
            rf_err_t err = rf_assembler_feed(&client->in, &slot);
            if (err == RF_OK) return client->in.type;
            assert_int_equal(err, RF_ERR_AGAIN);
        } else if (client->over) {
            return 0;
        } else {
            client_step(client, since_ns);
        }
    }
}

static void client_close(client_t *client)
{
    rf_transport_shm.endpoint_close(client->endpoint);
}

static const dpdk_open_t open_right = {
    .format = DPDK_LOCAL_FORMAT, .lane = PATH_LANE_SLOTS, .slots = 256, .deadline_ns = RF_NS_PER_S};

static void opens(client_t *client, dpdk_opened_t *out)
{
    client_open(client);
    client_say(client, DPDK_LOCAL_OPEN, &open_right, sizeof open_right);
    assert_int_equal(client_hear(client), DPDK_LOCAL_OPENED);
    assert_int_equal(dpdk_opened_decode(client->in.bytes, client->in.size, out), RF_OK);
}

static void flows_have_ids_of_their_own(void **state)
{
    (void)state;
    client_t a, b;
    dpdk_opened_t first, second;
    opens(&a, &first);
    opens(&b, &second);
    assert_int_equal(first.place.driver, second.place.driver);
    assert_int_not_equal(first.place.flow, second.place.flow);
    assert_int_equal(first.place.credit, 256);
    assert_int_equal(first.place.udp_port, 7118);
    client_close(&a);
    client_close(&b);
}

static void refused(uint8_t type, const void *bytes, size_t size, bool after_open, rf_err_t why)
{
    client_t client;
    dpdk_opened_t opened;
    dpdk_refused_t said;
    if (after_open)
        opens(&client, &opened);
    else
        client_open(&client);
    client_say(&client, type, bytes, size);
    assert_int_equal(client_hear(&client), DPDK_LOCAL_REFUSED);
    assert_int_equal(client.in.size, sizeof said);
    memcpy(&said, client.in.bytes, sizeof said);
    assert_int_equal(said.err, why);
    assert_int_equal(client_hear(&client), 0);
    client_close(&client);
}

static dpdk_join_t join_right(void)
{
    return (dpdk_join_t){.peer = {.driver = 1,
                                  .flow = 5,
                                  .credit = 64,
                                  .frame_max = 1472,
                                  .ipv4 = {10, 0, 0, 2},
                                  .mac = {2, 0, 0, 0, 0, 2},
                                  .udp_port = 7118},
                         .seal = RF_SEAL_SIGN};
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    dpdk_open_t open = open_right;
    dpdk_join_t join = join_right();
    refused(DPDK_LOCAL_OPEN, &open, sizeof open - 1, false, RF_ERR_PROTOCOL);
    refused(DPDK_LOCAL_OPEN, NULL, 0, false, RF_ERR_PROTOCOL);
    refused(99, &open, sizeof open, false, RF_ERR_PROTOCOL);
    refused(DPDK_LOCAL_JOIN, &join, sizeof join, false, RF_ERR_PROTOCOL);
    refused(DPDK_LOCAL_OPEN, &open, sizeof open, true, RF_ERR_PROTOCOL);
    open.format++;
    refused(DPDK_LOCAL_OPEN, &open, sizeof open, false, RF_ERR_VERSION);
    open = open_right;
    open.slots = 3;
    refused(DPDK_LOCAL_OPEN, &open, sizeof open, false, RF_ERR_PROTOCOL);
    join.seal = RF_SEAL_NONE; /* weaker than this driver allows */
    refused(DPDK_LOCAL_JOIN, &join, sizeof join, true, RF_ERR_PERMISSION);
    join = join_right();
    join.peer.mac[0] = 1; /* a group */
    refused(DPDK_LOCAL_JOIN, &join, sizeof join, true, RF_ERR_PROTOCOL);
    join = join_right();
    join.peer.ipv4[0] = 224;
    refused(DPDK_LOCAL_JOIN, &join, sizeof join, true, RF_ERR_PROTOCOL);
    join = join_right();
    join.peer.frame_max = 60000;
    refused(DPDK_LOCAL_JOIN, &join, sizeof join, true, RF_ERR_PROTOCOL);
}

/* Nobody answers on this wire: after the deadline that OPEN named, the link to the driver is closed. */
static void a_silent_peer_is_dead_at_the_deadline(void **state)
{
    (void)state;
    client_t client;
    dpdk_opened_t opened;
    dpdk_join_t join = join_right();
    opens(&client, &opened);
    client_say(&client, DPDK_LOCAL_JOIN, &join, sizeof join);
    uint64_t since_ns = rf_clock_ns();
    client_say(&client, 1, "hello", 5);
    assert_int_equal(client_hear(&client), 0);
    assert_true(rf_clock_ns() - since_ns >= RF_NS_PER_S);
    client_close(&client);
}

static unsigned driver_descriptors(void)
{
    char name[64];
    unsigned n = 0;
    snprintf(name, sizeof name, "/proc/%d/fd", (int)driver);
    DIR *fds = opendir(name);
    assert_non_null(fds);
    while (readdir(fds)) n++;
    closedir(fds);
    return n;
}

/* Descriptors and memory that a process passes are neither kept nor mapped: they cost it its link. */
static void gifts_are_refused(void **state)
{
    (void)state;
    unsigned before = driver_descriptors();
    for (unsigned i = 0; i < 20; i++) {
        client_t client;
        int fds[2];
        rf_region_t *region;
        client_open(&client);
        assert_int_equal(pipe(fds), 0);
        if (i % 2)
            assert_int_equal(client.link->transport->region_create(client.link, 4096, &region), RF_OK);
        else
            assert_int_equal(client.link->transport->pass_fds(client.link, "x", 1, fds, 2), RF_OK);
        assert_int_equal(client_hear(&client), 0);
        client_close(&client);
        close(fds[0]);
        close(fds[1]);
    }
    uint64_t since_ns = rf_clock_ns();
    while (driver_descriptors() > before) {
        assert_true(rf_clock_ns() - since_ns < HANG_NS);
        rf_clock_sleep_ms(5);
    }
}

/* Clients come and go by hundreds, in every state: the driver forgets them. */
static void nobody_is_kept(void **state)
{
    (void)state;
    client_t client;
    dpdk_opened_t opened;
    dpdk_join_t join = join_right();
    for (unsigned i = 0; i < 300; i++) {
        if (i % 3 == 0)
            client_open(&client);
        else
            opens(&client, &opened);
        if (i % 3 == 2) client_say(&client, DPDK_LOCAL_JOIN, &join, sizeof join);
        client_close(&client);
    }
    uint64_t since_ns = rf_clock_ns(), clients = 1;
    dpdk_stats_t stat;
    while (clients > 0) {
        assert_true(rf_clock_ns() - since_ns < HANG_NS);
        client_open(&client);
        client_say(&client, DPDK_LOCAL_STATS, NULL, 0);
        while (client_hear(&client) == DPDK_LOCAL_STATS) {
            assert_int_equal(client.in.size, sizeof stat);
            memcpy(&stat, client.in.bytes, sizeof stat);
            if (strcmp(stat.name, "clients") == 0) clients = stat.value;
        }
        client_close(&client);
    }
}

/* A second one for the same processes ends before it touches the port, which would cost the living one its packets. */
static void a_second_driver_leaves_the_first_alone(void **state)
{
    (void)state;
    int said[2], status;
    char text[1024] = "";
    assert_int_equal(pipe(said), 0);
    pid_t second = fork();
    if (second == 0) {
        dup2(said[1], STDERR_FILENO);
        execl(RF_TEST_DRIVER, "rackfish-dpdk", "--socket", path, "--device", "net_of_no_kind0", NULL);
        _exit(127);
    }
    close(said[1]);
    size_t n = 0;
    for (ssize_t k; n < sizeof text - 1 && (k = read(said[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)k;
    close(said[0]);
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
    assert_non_null(strstr(text, "already"));
    assert_null(strstr(text, "DPDK does not start"));
    client_t client;
    dpdk_opened_t opened;
    opens(&client, &opened);
    client_close(&client);
}

int main(void)
{
    const struct CMUnitTest packets[] = {
        cmocka_unit_test(a_packet_is_read_as_it_was_made), cmocka_unit_test(padding_is_not_part_of_a_frame),
        cmocka_unit_test(what_is_not_for_us_is_left),      cmocka_unit_test(arp_is_asked_and_answered),
        cmocka_unit_test(networks_have_prefixes),
    };
    const struct CMUnitTest processes[] = {
        cmocka_unit_test(flows_have_ids_of_their_own),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(a_silent_peer_is_dead_at_the_deadline),
        cmocka_unit_test(gifts_are_refused),
        cmocka_unit_test(a_second_driver_leaves_the_first_alone),
        cmocka_unit_test(nobody_is_kept),
    };
    return cmocka_run_group_tests(packets, NULL, NULL) +
           cmocka_run_group_tests(processes, driver_start, driver_stop);
}
