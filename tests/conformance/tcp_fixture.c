/* TCP over loopback: plain, or encrypted when built with CONFORMANCE_TLS. */
#include "conformance.h"

#include "transport/tcp/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void tcp_address(world_t *world, char *out)
{
    (void)world;
    snprintf(out, RF_ADDRESS_MAX, "127.0.0.1:0");
}

#ifdef CONFORMANCE_TLS
static void tcp_params(world_t *world, unsigned side, rf_endpoint_params_t *params)
{
    (void)world, (void)side;
    static const uint8_t key[32] = "thirty-two bytes nobody may know";
    params->key = key;
    params->key_size = sizeof key;
}
#endif

static void tcp_break(world_t *world)
{
    (void)world;
    sockets_reset();
}

/* ---- a peer that breaks the rules, on a connection that is up ---- */

static void say(tcp_conn_t *conn, const void *bytes, size_t size)
{
    assert_int_equal(tcp_conn_send(conn, bytes, size), size);
}

typedef struct bad_frame {
    tcp_frame_t frame;
    uint64_t control; /* of one slot after it; 0: none */
} bad_frame_t;

/* `next` is the number of the next slot of a well-behaved peer. */
static bool hostile_frame(tcp_conn_t *conn, unsigned way, uint64_t next)
{
    const uint64_t good = rf_control_make(CONFORMANCE_SLOT, RF_SLOT_PAYLOAD, false, 0);
    const bad_frame_t bad[] = {
        {.frame = {.slots = TCP_SLOTS_PER_FRAME_MAX + 1, .sequence = next}},
        {.frame = {.flags = 0x80, .sequence = next}},
        {.frame = {.reserved = 1, .sequence = next}},
        {.frame = {.sequence = next + 1}},
        {.frame = {.sequence = UINT64_MAX}},
        {.frame = {.sequence = next, .delivered = 1000000}},
        {.frame = {.sequence = next, .placed = 1}},
        {.frame = {.sequence = next, .placed = UINT64_MAX}},
        {.frame = {.slots = 1, .flags = TCP_FRAME_CLOSE, .sequence = next}},
        {.frame = {.flags = TCP_FRAME_WANT_BULK, .sequence = next}},
        {.frame = {.slots = 1, .sequence = next}, .control = good & ~0xffull},
        {.frame = {.slots = 1, .sequence = next}, .control = good | 0xff},
        {.frame = {.slots = 1, .sequence = next}, .control = good | 63ull << RF_CONTROL_LENGTH_SHIFT},
        {.frame = {.slots = 1, .sequence = next}, .control = good | RF_CONTROL_PARITY},
        {.frame = {.slots = 1, .sequence = next}, .control = good | 1ull << 63},
    };
    if (way >= sizeof bad / sizeof *bad) return false;
    say(conn, &bad[way].frame, sizeof bad[way].frame);
    if (bad[way].frame.slots == 1 && bad[way].control) {
        rf_slot_t slot = {.control = bad[way].control};
        say(conn, &slot, sizeof slot);
    }
    return true;
}

/* Region 0 has 4096 bytes, and one write has been placed in it. */
static bool hostile_bulk(world_t *world, unsigned way)
{
    const tcp_bulk_t bad[] = {
        {.size = 1, .flags = TCP_BULK_LAST, .write = 1, .region = 7, .total = 1},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 1, .offset = 4096, .total = 1},
        {.size = 4097, .flags = TCP_BULK_LAST, .write = 1, .total = 4097},
        {.size = 8, .flags = TCP_BULK_LAST, .write = 1, .offset = UINT64_MAX - 3, .total = 8},
        {.size = TCP_BULK_CHUNK_MAX + 1, .flags = TCP_BULK_LAST, .write = 1, .total = TCP_BULK_CHUNK_MAX + 1},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 2, .total = 1},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 0, .total = 1},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 1, .done = 1, .total = 2},
        {.size = 2, .flags = TCP_BULK_LAST, .write = 1, .total = 1},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 1, .total = 2},
        {.size = 0, .write = 1, .total = 2},
        {.size = 1, .flags = TCP_BULK_NOTIFY, .write = 1, .total = 2},
        {.size = 1, .flags = 0x40, .write = 1, .total = 1},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 1, .total = 1, .reserved = {1}},
        {.size = 1, .flags = TCP_BULK_LAST, .write = 1, .done = UINT64_MAX, .total = 0},
        {.size = 0, .flags = TCP_BULK_LAST | TCP_BULK_NOTIFY, .write = 1}, /* its notify slot is of type 0 */
    };
    if (way >= sizeof bad / sizeof *bad) return false;
    world_written(world, false);
    tcp_conn_t *conn = tcp_link_of(world->end[0].link)->bulk->conn;
    say(conn, &bad[way], sizeof bad[way]);
    if (bad[way].flags & TCP_BULK_NOTIFY) {
        rf_slot_t slot = {.control = 0};
        say(conn, &slot, sizeof slot);
    }
    return true;
}

static bool tcp_hostile(world_t *world, unsigned side, unsigned way, bool *harmless)
{
    tcp_link_t *link = tcp_link_of(world->end[side].link);
    const unsigned frames = 15, junk = 2;
    if (way < frames) return hostile_frame(link->conn, way, link->slots_head);
    if (way == frames) { /* half a frame's head, and then silence */
        tcp_frame_t frame = {.sequence = link->slots_head};
        say(link->conn, &frame, sizeof frame / 2);
        *harmless = true;
        return true;
    }
    if (way < frames + junk) {
        uint8_t bytes[4096];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rf_prng_next(&world->prng);
        say(link->conn, bytes, sizeof bytes);
        return true;
    }
    return hostile_bulk(world, way - frames - junk);
}

static void tcp_half(world_t *world, unsigned side)
{
    tcp_link_t *link = tcp_link_of(world->end[side].link);
    tcp_frame_t frame = {.slots = 1, .sequence = link->slots_head};
    say(link->conn, &frame, sizeof frame / 2);
}

static const fixture_t fixture = {
#ifdef CONFORMANCE_TLS
    .name = "tcp-tls",
    .params = tcp_params,
#else
    .name = "tcp",
#endif
    .transport = &rf_transport_tcp,
    .flags = FIXTURE_BREAKS | FIXTURE_BULK | FIXTURE_THREADS | FIXTURE_PROCESSES,
    .deadline_ns = 20 * RF_NS_PER_S,
    .address = tcp_address,
    .break_connections = tcp_break,
    .garbage = sockets_garbage,
    .hostile = tcp_hostile,
    .half = tcp_half,
};

const fixture_t *conformance_fixture = &fixture;
