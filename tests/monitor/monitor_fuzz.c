/*
 * Everything a monitor hears is hostile here: peers' messages, clients' requests, the CPU driver's answers and events,
 * descriptors without messages, answers to operations that never were. Nothing may crash it or break an invariant.
 *
 * The input is a sequence of events for core 1 of a formed machine of 2 x 2 cores with a dispatcher on it; each starts
 * with {what, who, type, length}.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

static world_t *world;
static monitor_t *monitor;
static void *saved;
static size_t saved_size;
static rf_domain_t running;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void prepare(void)
{
    world = world_new(2, 2, 1);
    world_form(world);
    test_client_t *node = world_node_client(world, 1);
    rf_assert(world_spawn(world, node, 1, &running) == RF_OK);
    test_client_t *c = world_dispatcher_client(world, 1, running, 0);
    rf_assert(world_name(world, c, RF_CLIENT_NAME_PUT, "name") == RF_OK);
    rf_assert(world_spawn(world, node, 1, NULL) == RF_OK);
    monitor = world->monitor[1];
    /* Without the two buffers for snapshots at its end: what is in them is hostile anyway, and copying them is slow. */
    saved_size = monitor_size(monitor->boot, 1) - 2 * SNAPSHOT_MAX;
    saved = malloc(saved_size);
    rf_assert(saved);
    memcpy(saved, monitor, saved_size);
}

/* A number of an operation that is under way, so that answers reach one. */
static uint32_t some_op(unsigned which)
{
    unsigned seen = 0;
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        if (monitor->ops[i].kind != OP_FREE && seen++ == which % 4) return op_id(monitor, &monitor->ops[i]);
    }
    return which;
}

/* The length that a type of peer message has, so that most get past the first check; 0: any. */
static size_t peer_length(uint8_t type)
{
    static const size_t header = sizeof(rf_wire_header_t);
    switch (type) {
    case PEER_SPAWN:
        return header + sizeof(peer_spawn_t);
    case PEER_SPAWN_MORE:
        return header + sizeof(peer_chunk_t);
    case PEER_SPAWNED:
        return header + sizeof(rf_client_spawned_t);
    case PEER_KILL:
        return header + sizeof(rf_kernel_signal_t);
    case PEER_KILLED:
        return header;
    case PEER_CONNECT:
        return header + sizeof(peer_connect_t);
    case PEER_CONNECTED:
        return header + sizeof(peer_connected_t);
    case PEER_DEATHS:
    case PEER_EXPELLED:
    case PEER_FENCED:
        return sizeof(peer_core_t);
    case PEER_HEARTBEAT:
        return sizeof(peer_heartbeat_t);
    case PEER_CONTACT:
        return sizeof(peer_contact_t);
    case PEER_DOMAIN_ENDED:
        return sizeof(peer_ended_t);
    case PEER_PING:
    case PEER_PONG:
        return sizeof(peer_ping_t);
    default:
        return 0;
    }
}

static void check_actions(const monitor_output_t *out)
{
    for (unsigned i = 0; i < out->n_actions; i++) {
        const monitor_action_t *a = &out->actions[i];
        rf_assert(a->n_fds <= MONITOR_FDS_MAX);
        switch (a->kind) {
        case MONITOR_DO_SEND_CLIENT:
        case MONITOR_DO_SEND_EVENT:
            rf_assert(a->client < MONITOR_CLIENTS_MAX && a->size <= 4096);
            break;
        case MONITOR_DO_SEND_PEER:
            rf_assert(a->core < 4 && a->core != 1 && a->size <= 4096);
            break;
        case MONITOR_DO_SEND_KERNEL:
            rf_assert(a->size <= 4096);
            break;
        case MONITOR_DO_BLOCK_PUT:
            rf_assert(a->offset + a->size <= a->total && a->total <= RF_SPAWN_BYTES_MAX);
            break;
        default:
            break;
        }
    }
}

/* A request of the registry whose sizes fit, so that most get past the first check. */
static void shape_registry(uint8_t *bytes, size_t length)
{
    rf_client_registry_t r;
    memcpy(&r, bytes + 8, sizeof r);
    size_t left = length - 8 - sizeof r;
    bytes[6] = (uint8_t)(RF_CLIENT_REGISTRY_CHANGE + bytes[6] % 3);
    r.what = (uint16_t)(bytes[6] == RF_CLIENT_REGISTRY_CHANGE ? RF_REGISTRY_PUT + r.what % 8
                                                              : RF_REGISTRY_GET + r.what % 4);
    r.kind = (uint8_t)(1 + r.kind % 5);
    r.flags &= bytes[6] == RF_CLIENT_REGISTRY_CHANGE ? 7 : 768;
    r.condition %= 6;
    r.name_size = (uint16_t)(left < 3 ? left : 3);
    r.value_size = (uint16_t)(bytes[6] == RF_CLIENT_REGISTRY_WATCH ? 0 : left - r.name_size);
    r.compare_size = 0;
    snprintf(r.user, sizeof r.user, "alice");
    memcpy(bytes + 8, &r, sizeof r);
    for (unsigned i = 0; i < r.name_size; i++) bytes[8 + sizeof r + i] |= 0x40;
}

static void feed(monitor_event_t *event)
{
    for (unsigned i = 0; i < 100; i++) {
        monitor_step(monitor, event, world->output);
        check_actions(world->output);
        if (!world->output->more) break;
        event->kind = MONITOR_TICK;
    }
    monitor_check(monitor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world) prepare();
    memcpy(monitor, saved, saved_size);
    uint64_t now_ns = world->now_ns;
    static const rf_core_t peers[] = {0, 2, 3, 0};
    for (unsigned n = 0; size >= 4 && n < 64 && monitor->exit_status < 0; n++) {
        uint8_t what = data[0], who = data[1], type = data[2];
        size_t length = (size_t)data[3] * 16 + who / 16;
        data += 4;
        size -= 4;
        if (length > size) length = size;
        if (length > 4096) length = 4096;
        size_t given = length;
        bool peer = what % 16 < 4, client = what % 16 >= 4 && what % 16 < 7;
        if (peer && (what & 16)) type = (uint8_t)(0x90 + type % 17);
        if (peer && (what & 64) && peer_length(type) > 0) length = peer_length(type);
        if (client && (what & 64)) length = 8 + 300; /* enough for any request but addresses */
        uint8_t *bytes = calloc(1, length > given ? length : given ? given : 1); /* reading beyond is seen */
        rf_assert(bytes);
        memcpy(bytes, data, given);
        data += given;
        size -= given;
        if ((who & 8) && length >= 4) {
            uint32_t id = some_op(who);
            memcpy(bytes, &id, sizeof id);
        }
        monitor_event_t event = {.now_ns = now_ns,
                                 .real_ns = now_ns,
                                 .core = peers[who % 4],
                                 .type = type,
                                 .client = who % 3,
                                 .bytes = bytes,
                                 .size = length,
                                 .op = some_op(type)};
        switch (what % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
            event.kind = MONITOR_PEER_MESSAGE;
            if (what & 32) event.type = (uint8_t)(0xd0 + type % 16);
            break;
        case 4:
        case 5:
        case 6:
            event.kind = MONITOR_CLIENT_MESSAGE;
            event.type = RF_CLIENT_REQUEST;
            if (length >= 8) bytes[7] = 0, bytes[6] = type % 39;
            if ((what & 32) && length >= 8 + sizeof(rf_client_registry_t)) shape_registry(bytes, length);
            break;
        case 7:
        case 8:
            event.kind = MONITOR_KERNEL_MESSAGE;
            event.type = type % 2 ? RF_KERNEL_REPLY : RF_KERNEL_EVENT;
            break;
        case 9:
            event.kind = type % 3 == 0   ? MONITOR_KERNEL_FDS
                         : type % 3 == 1 ? MONITOR_PEER_FDS
                                         : MONITOR_CLIENT_FDS;
            event.n_fds = type % 9;
            for (unsigned i = 0; i < 8; i++) event.fds[i] = 1000 + (int)i;
            break;
        case 10:
            event.kind = type % 4 == 0   ? MONITOR_PEER_DIED
                         : type % 4 == 1 ? MONITOR_PEER_UP
                         : type % 4 == 2 ? MONITOR_PEER_BROKEN
                                         : MONITOR_PEER_DOWN;
            event.incarnation = 1 + type / 64;
            event.err = (rf_err_t)(who % RF_ERR_COUNT);
            break;
        case 11:
            event.kind = type % 2 ? MONITOR_CLIENT_GONE : MONITOR_CLIENT_FULL;
            event.op = type;
            break;
        case 12:
            event.kind = (monitor_event_kind_t)(MONITOR_BLOCK + type % 6);
            event.err = who & 4 ? RF_OK : (rf_err_t)(who % RF_ERR_COUNT);
            event.n_fds = who % 3;
            event.fds[0] = 2000;
            event.fds[1] = 2001;
            event.block.size = 100 + type;
            snprintf(event.block.user, sizeof event.block.user, "alice");
            break;
        case 13:
            event.kind = type % 2 ? MONITOR_PEER_ROOM : MONITOR_CLIENT_ROOM;
            break;
        default:
            event.kind = MONITOR_TICK;
            now_ns += (uint64_t)type * 50 * RF_NS_PER_MS;
            event.now_ns = event.real_ns = now_ns;
            break;
        }
        feed(&event);
        free(bytes);
    }
    return 0;
}
