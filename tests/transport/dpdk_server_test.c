/*
 * The server of a link driver by itself: its port and the processes it serves are played here, so that what it does in a pass can be
 * counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/dpdk/driver/server.h"
#include "transport/dpdk/flow.h"
#include "transport/message.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN_USER  4242 /* neither the driver's nor root */
#define SENDERS      64
#define WINDOW       256
#define MTU          1500
#define FLOW_FIRST   1000 /* the peer's flow of process i: FLOW_FIRST + i */
#define SLOTS_MAX    32
#define PEER_FLOW    77
#define QUIET_PASSES 10

/* ---- a port: what is sent is noted ---- */

struct port {
    uint8_t bytes[MTU + PACKET_IP];
    uint32_t sent[PORT_BURST]; /* the flows of the frames of a burst */
    unsigned n;
};

static struct port wire;
static const uint8_t mac[PACKET_MAC] = {2, 0, 0, 0, 0, 1};

unsigned port_mtu(const port_t *port)
{
    (void)port;
    return MTU;
}
unsigned port_queues(const port_t *port)
{
    (void)port;
    return 1;
}
const uint8_t *port_mac(const port_t *port)
{
    (void)port;
    return mac;
}
bool port_tx_room(port_t *port)
{
    return port->n < PORT_BURST;
}
uint8_t *port_tx_next(port_t *port)
{
    return port->bytes;
}
void port_tx_put(port_t *port, size_t size, bool headers, bool unsealed)
{
    (void)size, (void)headers, (void)unsealed;
    uint32_t flow = 0;
    (void)rf_frame_flow(port->bytes + PACKET_HEAD, RF_FLOW_OVERHEAD, &flow);
    port->sent[port->n++] = flow;
}
void port_stats(port_t *port, port_stats_t *out)
{
    (void)port;
    *out = (port_stats_t){.up = true};
}

/* ---- processes ---- */

typedef struct process {
    rf_link_t link;
    unsigned uid;
    bool unknown; /* the kernel does not say whose it is */
    rf_err_t rejected;
    rf_slot_t says[SLOTS_MAX]; /* what the server is to poll */
    unsigned n_says, said;
    bool floods; /* and then slots without end */
    rf_assembler_t in;
    const char *counts; /* asks for the driver's counters, and wants this one */
    uint64_t counted;
    dpdk_opened_t opened;
    unsigned got; /* slots of the flow */
    bool
        full; /* its ring takes nothing, until it is polled: then there is room, and who was refused has been told */
    bool asleep;
    uint64_t woken;
} process_t;

static process_t processes[SENDERS + 1];
static rf_endpoint_params_t server_side;
static rf_endpoint_t endpoint;
static const rf_transport_t played;

static process_t *process_of(rf_link_t *link)
{
    return (process_t *)link;
}

static rf_err_t endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    server_side = *params;
    endpoint.transport = &played;
    *out = &endpoint;
    return RF_OK;
}
static void endpoint_close(rf_endpoint_t *closed)
{
    (void)closed;
}
static rf_err_t accept_link(rf_link_t *link, const rf_link_params_t *params)
{
    link->user = params->user;
    return RF_OK;
}
static rf_err_t credentials(rf_link_t *link, int *pid, unsigned *uid)
{
    *pid = 1;
    *uid = process_of(link)->uid;
    return process_of(link)->unknown ? RF_ERR_OS : RF_OK;
}
static void reject(rf_link_t *link, rf_err_t why)
{
    process_of(link)->rejected = why;
}
static unsigned room(rf_link_t *link, unsigned want)
{
    (void)link;
    return want;
}
static unsigned poll_slots(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    process_t *p = process_of(link);
    unsigned n = 0;
    p->full = false;
    while (n < max && p->said < p->n_says) out[n++] = p->says[p->said++];
    for (; n < max && p->floods; n++)
        out[n] = (rf_slot_t){.control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0)};
    return n;
}
static unsigned send_slots(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    process_t *p = process_of(link);
    if (p->full) return 0;
    for (unsigned i = 0; i < n; i++) {
        if (p->opened.place.flow != 0) {
            p->got++;
        } else if (rf_assembler_feed(&p->in, &slots[i]) == RF_OK) {
            if (p->counts) {
                dpdk_stats_t said;
                assert_int_equal(p->in.size, sizeof said);
                memcpy(&said, p->in.bytes, sizeof said);
                if (strcmp(said.name, p->counts) == 0) p->counted = said.value;
                continue;
            }
            assert_int_equal(p->in.type, DPDK_LOCAL_OPENED);
            assert_int_equal(dpdk_opened_decode(p->in.bytes, p->in.size, &p->opened), RF_OK);
        }
    }
    return n;
}
static rf_err_t flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}
static rf_err_t flush_process(rf_link_t *link)
{
    process_t *p = process_of(link);
    p->woken += p->asleep;
    p->asleep = false;
    return RF_OK;
}
static void stats(rf_link_t *link, rf_link_stats_t *out)
{
    *out = (rf_link_stats_t){.wakeups_sent = process_of(link)->woken};
}
static void arm(rf_link_t *link)
{
    (void)link;
}
static bool ready(rf_link_t *link)
{
    const process_t *p = process_of(link);
    return p->said < p->n_says || p->floods;
}
static void close_link(rf_link_t *link)
{
    (void)link;
}

static const rf_transport_t played = {.name = "played",
                                      .endpoint_open = endpoint_open,
                                      .endpoint_close = endpoint_close,
                                      .accept = accept_link,
                                      .peer_credentials = credentials,
                                      .reject = reject,
                                      .room = room,
                                      .poll = poll_slots,
                                      .send = send_slots,
                                      .flush = flush_process,
                                      .arm = arm,
                                      .ready = ready,
                                      .stats = stats,
                                      .close = close_link};

/* A link whose send() is what a process says. */
static unsigned say_slots(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    process_t *p = link->user;
    assert_true(p->n_says + n <= SLOTS_MAX);
    memcpy(p->says + p->n_says, slots, n * sizeof *slots);
    p->n_says += n;
    return n;
}
static const rf_transport_t saying = {.send = say_slots, .room = room, .flush = flush};

static void say(process_t *p, uint8_t type, const void *bytes, size_t size)
{
    rf_link_t link = {.transport = &saying, .user = p};
    assert_int_equal(rf_message_send(&link, type, bytes, size), RF_OK);
}

/* ---- the server ---- */

static server_t *server;
static uint64_t now_ns;

static unsigned pass(void)
{
    wire.n = 0;
    now_ns += 1000;
    server_turn(server, now_ns);
    server_pass(server);
    return wire.n;
}

static void start(void)
{
    server_options_t options = {.transport = &played,
                                .seal = RF_SEAL_SIGN,
                                .self = {.ipv4 = {10, 0, 0, 1}, .prefix = 24, .udp_port = 7118}};
    memcpy(options.self.mac, mac, sizeof mac);
    memset(processes, 0, sizeof processes);
    now_ns = RF_NS_PER_S;
    assert_int_equal(server_open(&options, &wire, &server), RF_OK);
    server_turn(server, now_ns);
}

static void opens(process_t *p, unsigned uid, unsigned lane)
{
    const dpdk_open_t open = {.format = DPDK_LOCAL_FORMAT,
                              .lane = (uint16_t)lane,
                              .slots = WINDOW,
                              .deadline_ns = 10 * RF_NS_PER_S};
    p->link.transport = &played;
    p->uid = uid;
    server_side.on_event(server_side.context, &p->link, RF_LINK_INCOMING, &(rf_link_event_info_t){0});
    say(p, DPDK_LOCAL_OPEN, &open, sizeof open);
    pass();
    assert_int_not_equal(p->opened.place.flow, 0);
}

static dpdk_join_t join_of(uint32_t flow)
{
    return (dpdk_join_t){.peer = {.driver = 1,
                                  .flow = flow,
                                  .credit = WINDOW,
                                  .frame_max = MTU - PACKET_IP_MTU,
                                  .ipv4 = {10, 0, 0, 2},
                                  .mac = {2, 0, 0, 0, 0, 2},
                                  .udp_port = 7118},
                         .seal = RF_SEAL_SIGN};
}

static void joins(process_t *p, unsigned uid, unsigned lane)
{
    dpdk_join_t join = join_of((uint32_t)(FLOW_FIRST + (p - processes)));
    opens(p, uid, lane);
    say(p, DPDK_LOCAL_JOIN, &join, sizeof join);
    pass();
}

/* A monitor's slot leaves in the first frame of the next pass, whoever else sends, and however long the others have waited. */
static void urgent_first(unsigned uid, unsigned lane)
{
    start();
    for (unsigned i = 0; i < SENDERS / 2; i++) joins(&processes[i], uid, lane);
    process_t *monitor = &processes[SENDERS];
    joins(monitor, 0, PATH_LANE_SLOTS);
    for (unsigned i = SENDERS / 2; i < SENDERS; i++) joins(&processes[i], uid, lane);
    for (unsigned i = 0; i < SENDERS; i++) processes[i].floods = true;
    bool sent[SENDERS] = {false};
    for (unsigned round = 0; round < QUIET_PASSES; round++) {
        unsigned n = pass();
        assert_true(n > 0 && n <= PORT_BURST);
        for (unsigned i = 0; i < n; i++) sent[wire.sent[i] - FLOW_FIRST] = true;
        const rf_slot_t word = {.control = rf_control_make(1, 8, false, 0)};
        monitor->says[0] = word;
        monitor->n_says = 1;
        monitor->said = 0;
        n = pass();
        assert_true(n > 1 && n <= PORT_BURST); /* the others come on too */
        assert_int_equal(wire.sent[0], FLOW_FIRST + SENDERS);
        for (unsigned i = 1; i < n; i++) sent[wire.sent[i] - FLOW_FIRST] = true;
    }
    for (unsigned i = 0; i < SENDERS; i++) assert_true(sent[i]);
    server_close(server);
}

static void monitors_are_before_domains(void **state)
{
    (void)state;
    urgent_first(DOMAIN_USER, PATH_LANE_SLOTS);
}

static void monitors_are_before_bulk(void **state)
{
    (void)state;
    urgent_first(0, PATH_LANE_BULK);
}

/* Urgent flows do not keep the others from the port. */
static void others_come_on_beside_monitors(void **state)
{
    (void)state;
    start();
    for (unsigned i = 0; i < SENDERS; i++) joins(&processes[i], 0, PATH_LANE_SLOTS);
    process_t *domain = &processes[SENDERS];
    joins(domain, DOMAIN_USER, PATH_LANE_SLOTS);
    for (unsigned i = 0; i <= SENDERS; i++) processes[i].floods = true;
    unsigned n = pass(), of_domain = 0;
    for (unsigned i = 0; i < n; i++) of_domain += wire.sent[i] == FLOW_FIRST + SENDERS;
    assert_int_equal(n, PORT_BURST / 2 + of_domain);
    assert_true(of_domain > 0);
    server_close(server);
}

/* The other end of a process's flow. */
static rf_flow_t *peer_open(const process_t *p, const dpdk_join_t *join)
{
    rf_flow_params_t params = {.id = PEER_FLOW,
                               .id_peer = p->opened.place.flow,
                               .dialer = true,
                               .seal = RF_SEAL_SIGN,
                               .frame_max = join->peer.frame_max,
                               .send_slots = WINDOW,
                               .receive_slots = WINDOW,
                               .credit = WINDOW,
                               .deadline_ns = RF_NS_PER_S};
    memcpy(params.secret, join->secret, sizeof params.secret);
    rf_flow_t *peer;
    assert_int_equal(rf_flow_open(&params, now_ns, &peer), RF_OK);
    return peer;
}

/* The next frame of it, with a slot, in a packet for the server; of so many bytes. */
static size_t peer_packet(rf_flow_t *peer, uint8_t bytes[MTU])
{
    const packet_self_t sender = {
        .mac = {2, 0, 0, 0, 0, 2}, .ipv4 = {10, 0, 0, 2}, .prefix = 24, .udp_port = 7118};
    const uint8_t to[] = {10, 0, 0, 1};
    rf_slot_t *slots;
    assert_true(rf_flow_send_span(peer, &slots) > 0);
    slots[0] = (rf_slot_t){.control = rf_control_make(1, 8, false, 0)};
    rf_flow_send_commit(peer, 1);
    size_t size = rf_flow_transmit(peer, bytes + PACKET_HEAD, MTU - PACKET_HEAD, now_ns);
    assert_true(size > 0);
    packet_head_make(&sender, mac, to, 7118, PEER_FLOW, bytes);
    packet_finish(bytes, size, false);
    return PACKET_HEAD + size;
}

/* A slot from there comes. */
static void peer_sends(rf_flow_t *peer)
{
    uint8_t bytes[MTU];
    size_t size = peer_packet(peer, bytes);
    server_packet(server, bytes, size, false);
}

/* A frame overtakes the JOIN that stands in the ring of the process already: it is taken, not dropped. */
static void a_frame_may_come_before_its_join_was_heard(void **state)
{
    (void)state;
    start();
    process_t *p = &processes[0];
    opens(p, 0, PATH_LANE_SLOTS);
    dpdk_join_t join = join_of(PEER_FLOW);
    memset(join.secret, 7, sizeof join.secret);
    say(p, DPDK_LOCAL_JOIN, &join, sizeof join);
    rf_flow_t *peer = peer_open(p, &join);
    peer_sends(peer);
    pass();
    assert_int_equal(p->got, 1);
    rf_flow_close(peer);
    server_close(server);
}

/* That the packet before was good says nothing of one that differs from it, or is shorter. */
static void a_packet_after_another_is_read_as_well(void **state)
{
    (void)state;
    /* MAC, type, IPv4's version, length, fragment, protocol, checksum, address; UDP's port and length */
    const unsigned at[] = {5, 12, 14, 16, 20, 21, 23, 24, 33, 37, 38, 39};
    uint8_t bytes[MTU];
    start();
    process_t *p = &processes[0];
    opens(p, 0, PATH_LANE_SLOTS);
    dpdk_join_t join = join_of(PEER_FLOW);
    say(p, DPDK_LOCAL_JOIN, &join, sizeof join);
    rf_flow_t *peer = peer_open(p, &join);
    peer_sends(peer);
    peer_sends(peer);
    pass();
    assert_int_equal(p->got, 2);
    size_t size = peer_packet(peer, bytes);
    for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
        bytes[at[i]] ^= 1;
        server_packet(server, bytes, size, false);
        bytes[at[i]] ^= 1;
    }
    server_packet(server, bytes, size - 1, false);
    server_packet(server, bytes, PACKET_HEAD, false);
    pass();
    assert_int_equal(p->got, 2);
    server_packet(server, bytes, size, false);
    pass();
    assert_int_equal(p->got, 3);
    rf_flow_close(peer);
    server_close(server);
}

/* As a process hears it that asks for all of them. */
static uint64_t counter(const char *name)
{
    process_t *p = &processes[SENDERS];
    *p = (process_t){.link.transport = &played, .counts = name, .counted = UINT64_MAX};
    server_side.on_event(server_side.context, &p->link, RF_LINK_INCOMING, &(rf_link_event_info_t){0});
    say(p, DPDK_LOCAL_STATS, NULL, 0);
    pass();
    return p->counted;
}

/* One that names a flow which nobody has here, or has no more, or does not have yet, is counted; nobody is handed or answered anything. */
static void a_frame_of_no_flow_is_nobodys(void **state)
{
    (void)state;
    start();
    process_t *p = &processes[0], *later = &processes[1];
    opens(p, 0, PATH_LANE_SLOTS);
    opens(later, 0, PATH_LANE_SLOTS);
    dpdk_join_t join = join_of(PEER_FLOW);
    say(p, DPDK_LOCAL_JOIN, &join, sizeof join);
    pass();
    rf_flow_t *peer = peer_open(p, &join);
    const uint32_t mine = p->opened.place.flow;
    const uint32_t ids[] = {0,
                            mine + 2 /* nobody's place */,
                            mine + SERVER_CLIENTS_MAX /* its place, in another life */,
                            mine ^ 1u << 31,
                            UINT32_MAX,
                            later->opened.place.flow /* not joined */};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        uint8_t bytes[MTU];
        size_t size = peer_packet(peer, bytes);
        for (unsigned k = 0; k < sizeof mine; k++) bytes[PACKET_HEAD + k] = (uint8_t)(ids[i] >> 8 * k);
        server_packet(server, bytes, size, false);
        assert_int_equal(pass(), 0);
        assert_int_equal(counter("packets_strange"), i + 1);
        assert_int_equal(p->got + later->got, 0);
    }
    now_ns += RF_NS_PER_MS; /* its own: those that went elsewhere are lost, and come again */
    for (unsigned i = 0; i < 3; i++) peer_sends(peer);
    assert_true(pass() > 0);
    rf_flow_close(peer);
    server_close(server);
}

/* The loop yields to a process that was woken, and is told of it once. */
static void who_was_woken_is_told_once(void **state)
{
    (void)state;
    start();
    process_t *p = &processes[0];
    opens(p, 0, PATH_LANE_SLOTS);
    dpdk_join_t join = join_of(PEER_FLOW);
    say(p, DPDK_LOCAL_JOIN, &join, sizeof join);
    pass();
    rf_flow_t *peer = peer_open(p, &join);
    for (unsigned i = 0; i < 3; i++) {
        p->asleep = i != 1;
        peer_sends(peer);
        pass();
        assert_int_equal(p->got, i + 1);
        assert_int_equal(server_woke(server), i != 1); /* one that polls needs no CPU of ours */
        assert_false(server_woke(server));
    }
    rf_flow_close(peer);
    server_close(server);
}

/* A ring is full, and has room when the same turn polls it, which is the only word of it: nobody sleeps over what waits for it. */
static void room_that_comes_in_between_is_used(void **state)
{
    (void)state;
    start();
    process_t *p = &processes[0];
    opens(p, 0, PATH_LANE_SLOTS);
    dpdk_join_t join = join_of(PEER_FLOW);
    say(p, DPDK_LOCAL_JOIN, &join, sizeof join);
    pass();
    rf_flow_t *peer = peer_open(p, &join);
    peer_sends(peer);
    p->full = true;
    pass();
    assert_int_equal(p->got, 0);
    uint64_t next_ns = RF_NEVER;
    assert_false(server_arm(server, &next_ns));
    pass();
    assert_int_equal(p->got, 1);
    next_ns = RF_NEVER;
    assert_true(server_arm(server, &next_ns));
    rf_flow_close(peer);
    server_close(server);
}

/* A user has so many and no more; nobody has one whose user is not known. Each hears why. */
static void who_may_not_come_hears_why(void **state)
{
    (void)state;
    static process_t many[SERVER_CLIENTS_USER_MAX + 1];
    start();
    process_t *unknown = &processes[0];
    unknown->link.transport = &played;
    unknown->unknown = true;
    server_side.on_event(server_side.context, &unknown->link, RF_LINK_INCOMING, &(rf_link_event_info_t){0});
    assert_int_equal(unknown->rejected, RF_ERR_OS);
    for (unsigned i = 0; i <= SERVER_CLIENTS_USER_MAX; i++) {
        many[i].link.transport = &played;
        many[i].uid = DOMAIN_USER;
        server_side.on_event(server_side.context, &many[i].link, RF_LINK_INCOMING,
                             &(rf_link_event_info_t){0});
        assert_int_equal(many[i].rejected, i < SERVER_CLIENTS_USER_MAX ? RF_OK : RF_ERR_LIMIT);
    }
    server_close(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monitors_are_before_domains),
        cmocka_unit_test(monitors_are_before_bulk),
        cmocka_unit_test(others_come_on_beside_monitors),
        cmocka_unit_test(a_frame_may_come_before_its_join_was_heard),
        cmocka_unit_test(a_packet_after_another_is_read_as_well),
        cmocka_unit_test(a_frame_of_no_flow_is_nobodys),
        cmocka_unit_test(who_was_woken_is_told_once),
        cmocka_unit_test(room_that_comes_in_between_is_used),
        cmocka_unit_test(who_may_not_come_hears_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
