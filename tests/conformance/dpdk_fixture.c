/*
 * DPDK between two endpoints of one process, by two link drivers: over virtio_user and vhost (shared memory, a real NIC
 * driver's data path, no root needed; CONFORMANCE_VIRTIO is more of its arguments), over memif (CONFORMANCE_MEMIF), or over a
 * veth pair in a network namespace of its own (root; CONFORMANCE_VETH is by which driver), where link drivers are also killed
 * and started again. With CONFORMANCE_PORTS both ends have two ports with a wire each, and with CONFORMANCE_QUEUES ports have two
 * queues; at the end, then, both must have carried something.
 */
#include "conformance.h"
#include "path_fixture.h"

#include "../transport/dpdk_wire.h"

#include "transport/dpdk/internal.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say_skip(const char *why)
{
    printf("skipped: %s\n", why);
    fflush(stdout);
    _exit(77);
}

/* ---- drivers ---- */

static pid_t owner;

#ifndef CONFORMANCE_QUEUES
#define CONFORMANCE_QUEUES 1
#endif
#ifdef CONFORMANCE_PORTS
#define PORTS 2
#else
#define PORTS 1
#endif
#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define QUEUES     TEXT(CONFORMANCE_QUEUES)
#if CONFORMANCE_QUEUES > 1
#define MORE ",qpairs=" QUEUES
#else
#define MORE
#endif

#if defined CONFORMANCE_VETH
static const char *const ports[PORTS][DPDK_WIRE_SIDES] = {
    {"net_" CONFORMANCE_VETH "0,iface=va" MORE, "net_" CONFORMANCE_VETH "0,iface=vb" MORE},
#ifdef CONFORMANCE_PORTS
    {"net_" CONFORMANCE_VETH "0,iface=wa" MORE, "net_" CONFORMANCE_VETH "0,iface=wb" MORE},
#endif
};
static const char *const veth = "ip link set lo up && for w in v w; do "
                                "ip link add ${w}a numtxqueues " QUEUES " numrxqueues " QUEUES " type veth "
                                "peer name ${w}b numtxqueues " QUEUES " numrxqueues " QUEUES " && "
                                "ip link set ${w}a up && ip link set ${w}b up || exit 1; done";

static void wire_make(void)
{
    if (geteuid() != 0) say_skip("a veth pair needs root");
    if (unshare(CLONE_NEWNET) != 0 || system(veth) != 0) say_skip("no network namespace or veth pair here");
}
#elif defined CONFORMANCE_MEMIF
static const char *const ports[PORTS][DPDK_WIRE_SIDES] = {
    {"net_memif0,role=server,id=0,socket=%s/wire,socket-abstract=no",
     "net_memif0,role=client,id=0,socket=%s/wire,socket-abstract=no"}};
#else
static const char *const ports[PORTS][DPDK_WIRE_SIDES] = {{"net_vhost0,iface=%s/wire,queues=" QUEUES,
                                                           "net_virtio_user0,path=%s/wire,queues=" QUEUES
                                                           ",queue_size=256" CONFORMANCE_VIRTIO}};
#endif

static bool whole; /* all cases run, not one alone */
static bool port_used[DPDK_WIRE_SIDES][PORTS], queue_used[DPDK_WIRE_SIDES][CONFORMANCE_QUEUES];

/* What there are several of is used. A driver that is killed counts anew: it is asked before. */
static void usage_note(unsigned side, unsigned port)
{
    if (PORTS > 1) port_used[side][port] |= dpdk_wire_stat(side, port, "slots_received") > 0;
    for (unsigned queue = 0; queue < CONFORMANCE_QUEUES && CONFORMANCE_QUEUES > 1; queue++) {
        char name[16];
        snprintf(name, sizeof name, "rx_queue_%u", queue);
        queue_used[side][queue] |= dpdk_wire_stat(side, port, name) > 0;
    }
}

static bool all_used(void)
{
    bool used = true;
    for (unsigned side = 0; side < DPDK_WIRE_SIDES; side++) {
        for (unsigned port = 0; port < PORTS; port++) usage_note(side, port);
        for (unsigned port = 0; port < PORTS && PORTS > 1; port++) used &= port_used[side][port];
        for (unsigned queue = 0; queue < CONFORMANCE_QUEUES && CONFORMANCE_QUEUES > 1; queue++)
            used &= queue_used[side][queue];
    }
    return used;
}

__attribute__((destructor)) static void drivers_end(void)
{
    bool used = owner != getpid() || !whole || all_used();
    dpdk_wire_end();
    if (used) return;
    fprintf(stderr, "not all ports or queues have carried something\n");
    _exit(1);
}

__attribute__((constructor)) static void drivers_start(int argc, char **argv)
{
    (void)argv;
    whole = argc == 1;
#ifdef CONFORMANCE_VETH
    wire_make();
#endif
    owner = getpid();
    if (!dpdk_wire_begin_ports(RF_TEST_DRIVER, PORTS, ports))
        say_skip("rackfish-dpdk does not start here; its log says why");
}

/* ---- the fixture ---- */

static void dpdk_address(world_t *world, char *out)
{
    (void)world;
    snprintf(out, RF_ADDRESS_MAX, "127.0.0.1:0");
}

static void dpdk_params(world_t *world, unsigned side, rf_endpoint_params_t *params)
{
    (void)world;
    params->medium = (void *)(uintptr_t)dpdk_wire_option(side % DPDK_WIRE_SIDES);
}

/* The drivers need a CPU too: a test that spins without end would keep them from one. */
static void dpdk_step(world_t *world)
{
    (void)world;
    const struct timespec moment = {.tv_nsec = 20000};
    nanosleep(&moment, NULL);
}

/* Links of shared memory to the drivers end, flows with them. */
static void links_shut(void)
{
    pid_t pids[DPDK_WIRE_SIDES * PORTS];
    for (unsigned i = 0; i < DPDK_WIRE_SIDES * PORTS; i++)
        pids[i] = dpdk_wire_pid(i % DPDK_WIRE_SIDES, i / DPDK_WIRE_SIDES);
    sockets_shut(pids, DPDK_WIRE_SIDES * PORTS);
}

static void dpdk_break(world_t *world)
{
#ifdef CONFORMANCE_VETH
    if (rf_prng_below(&world->prng, 3) == 0) { /* the link driver dies, and comes again */
        unsigned side = (unsigned)rf_prng_below(&world->prng, DPDK_WIRE_SIDES);
        unsigned port = (unsigned)rf_prng_below(&world->prng, PORTS);
        usage_note(side, port);
        dpdk_wire_kill(side, port);
        if (!dpdk_wire_start(side, port)) say_skip("rackfish-dpdk does not start here; its log says why");
        return;
    }
#endif
    (void)world;
    links_shut();
}

/* ---- a peer that breaks the rules, on a link that is up ---- */

static void put(path_lane_t *lane, const rf_slot_t *slot)
{
    rf_link_t *local = dpdk_path_of(lane)->local;
    assert_int_equal(local->transport->send(local, slot, 1), 1);
    local->transport->flush(local);
}

static bool hostile_slot(path_lane_t *lane, unsigned way)
{
    const uint8_t types[] = {DPDK_BULK, DPDK_BYTES, DPDK_WORD + 4, 0xff};
    if (way >= sizeof types) return false;
    put(lane, &(rf_slot_t){.control = rf_control_make(types[way], RF_SLOT_PAYLOAD, false, 0)});
    return true;
}

/* A head that does not fit, or bytes without one. */
static bool hostile_bulk(world_t *world, unsigned way)
{
    const dpdk_bulk_head_t bad[] = {
        {.write = 0, .size = 1},
        {.write = 2, .size = 1},
        {.write = 1, .region = 7, .size = 1},
        {.write = 1, .offset = 4096, .size = 1},
        {.write = 1, .size = 4097},
        {.write = 1, .offset = UINT64_MAX - 3, .size = 8},
        {.write = 1, .size = 1, .has_notify = 2},
        {.write = 1, .size = 1, .reserved = {0, 1}},
    };
    const unsigned heads = sizeof bad / sizeof *bad;
    if (way > heads) return false;
    world_written(world, false);
    path_lane_t *lane = &path_link_of(world->end[0].link)->lanes[PATH_LANE_BULK];
    rf_slot_t slot = {.control = rf_control_make(DPDK_BULK, sizeof *bad, false, 0)};
    if (way < heads)
        memcpy(slot.payload, &bad[way], sizeof bad[way]);
    else
        slot.control = rf_control_make(DPDK_BYTES, 5, false, 0);
    put(lane, &slot);
    return true;
}

static bool dpdk_hostile(world_t *world, unsigned side, unsigned way, bool *harmless)
{
    (void)harmless;
    path_link_t *link = path_link_of(world->end[side].link);
    path_lane_t *lane = &link->lanes[PATH_LANE_SLOTS];
    const unsigned slots = 4;
    if (way < slots) return hostile_slot(lane, way);
    way -= slots;
    return way < PATH_HOSTILE_WAYS ? path_hostile(link, way) : hostile_bulk(world, way - PATH_HOSTILE_WAYS);
}

static const fixture_t fixture = {
    .name = "dpdk",
    .transport = &rf_transport_dpdk,
    .flags = FIXTURE_BREAKS | FIXTURE_BULK | FIXTURE_THREADS | FIXTURE_PROCESSES,
    .deadline_ns = 20 * RF_NS_PER_S,
    .address = dpdk_address,
    .params = dpdk_params,
    .step = dpdk_step,
    .break_connections = dpdk_break,
    .garbage = sockets_garbage,
    .hostile = dpdk_hostile,
    .explain = path_explain,
};

const fixture_t *conformance_fixture = &fixture;
