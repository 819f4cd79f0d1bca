/*
 * RDMA between two endpoints of one process, over a device of this host: the one that has the address in
 * RACKFISH_RDMA_ADDRESS (default 127.0.0.1: any). Skipped where there is no RDMA device.
 */
#include "conformance.h"

#include "transport/rdma/internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 1024

static const char *host(void)
{
    const char *chosen = getenv("RACKFISH_RDMA_ADDRESS");
    return chosen ? chosen : "127.0.0.1";
}

__attribute__((constructor)) static void skip_without_device(void)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    if (list) ibv_free_device_list(list);
    if (n > 0) return;
    printf("skipped: this host has no RDMA device (tests/lab has guests that do)\n");
    fflush(stdout);
    _exit(77);
}

static void rdma_address(world_t *world, char *out)
{
    (void)world;
    snprintf(out, RF_ADDRESS_MAX, "%s:0", host());
}

/* Every queue pair of this process is in error, and every connection of its control links is reset: which of the two an
 * end notices first is up to it. */
static void rdma_break(world_t *world)
{
    bool controls = rf_prng_below(&world->prng, 2) == 0;
    for (unsigned side = 0; side < 2; side++) {
        rdma_endpoint_t *ep = (rdma_endpoint_t *)world->end[side].endpoint;
        for (unsigned i = 0; ep && i < ep->paths_end; i++) {
            struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
            if (ep->paths[i] && ep->paths[i]->stage == RDMA_STAGE_UP) {
                ibv_modify_qp(ep->paths[i]->qp, &attr, IBV_QP_STATE);
                ep->paths[i]->link->say |= RDMA_WORD_PROBE; /* as if something had been on its way */
            }
        }
    }
    for (int fd = 3; controls && fd < DESCRIPTORS_MAX; fd++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0 || peer.ss_family != AF_INET) continue;
        struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
        (void)!connect(fd, &nowhere, sizeof nowhere);
    }
}

static bool rdma_garbage(world_t *world, const char *address, const uint8_t *bytes, size_t size)
{
    (void)world;
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *colon = strrchr(address, ':');
    to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    assert_int_equal(inet_pton(AF_INET, host(), &to.sin_addr), 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    if (size > 0) (void)!send(fd, bytes, size, MSG_NOSIGNAL);
    close(fd);
    return true;
}

/* ---- a peer that breaks the rules, on a link that is up ---- */

static void post(rdma_path_t *path, const void *bytes, uint32_t size)
{
    struct ibv_sge part = {.addr = (uintptr_t)bytes, .length = size};
    struct ibv_send_wr request = {.sg_list = &part,
                                  .num_sge = 1,
                                  .opcode = IBV_WR_SEND,
                                  .send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED};
    rdma_path_post(path, &request, 1);
}

/* One slot, in the way that the other end takes slots. */
static void put(rdma_path_t *path, rf_slot_t slot, uint64_t sent)
{
    uint64_t number = sent - path->first;
    struct ibv_sge part = {.addr = (uintptr_t)&slot, .length = sizeof slot};
    struct ibv_send_wr request = {.sg_list = &part,
                                  .num_sge = 1,
                                  .opcode = IBV_WR_RDMA_WRITE,
                                  .send_flags = IBV_SEND_INLINE,
                                  .wr.rdma = {.rkey = path->peer.ring_key}};
    if (path->peer.ring) {
        request.wr.rdma.remote_addr = path->peer.ring + (number & (path->peer.ring_slots - 1)) * sizeof slot;
        slot.control ^= rdma_ring_parity(number, path->peer.ring_slots);
    } else {
        request.opcode = IBV_WR_SEND;
    }
    rdma_path_post(path, &request, 1);
}

static bool hostile_slot(rdma_path_t *path, unsigned way, uint64_t sent, bool *harmless)
{
    const uint64_t good = rf_control_make(CONFORMANCE_SLOT, RF_SLOT_PAYLOAD, false, 0);
    const uint64_t bad[] = {
        good & ~0xffull,
        good | 0xff,
        good | 63ull << RF_CONTROL_LENGTH_SHIFT,
        good | 1ull << 63,
        good | 999ull << RF_CONTROL_ACK_SHIFT,
        rf_control_make(RDMA_WORD + 1, RF_SLOT_PAYLOAD, false, 0),
        good | RF_CONTROL_PARITY, /* in a ring: not there yet */
    };
    if (way >= sizeof bad / sizeof *bad) return false;
    *harmless = path->peer.ring && (bad[way] & RF_CONTROL_PARITY);
    put(path, (rf_slot_t){.control = bad[way]}, sent);
    return true;
}

/* The line says that slots were taken which were never sent. */
static void hostile_line(rdma_path_t *path)
{
    if (path->peer.line)
        rdma_line_write(path, UINT64_MAX);
    else
        post(path, "half a slot", 11);
}

static bool hostile_word(rdma_path_t *path, unsigned way, uint64_t sent)
{
    const uint32_t g = path->generation;
    const rdma_word_t bad[] = {
        {.flags = 1u << 30, .generation = g},
        {.flags = RDMA_WORD_HELLO, .generation = g},
        {.flags = RDMA_WORD_PROBE, .generation = g + 1},
        {.generation = g, .delivered = 1000000},
        {.generation = g, .delivered = UINT64_MAX},
        {.generation = g, .placed = 1},
        {.generation = g, .reserved = {0, 0, 1}},
        {.flags = RDMA_WORD_CLOSE, .generation = g, .count = sent + 1},
        {.flags = RDMA_WORD_WANT_ACK, .generation = g, .count = UINT64_MAX},
    };
    if (way >= sizeof bad / sizeof *bad) return false;
    rdma_path_say(path, &bad[way]);
    return true;
}

/* Nonsense over the control link. */
static bool hostile_control(rdma_link_t *link, unsigned way)
{
    uint8_t bytes[sizeof(rdma_path_info_t)];
    memset(bytes, 0xa5, sizeof bytes);
    rdma_lost_t lost = {.lane = 9};
    rdma_region_gone_t gone = {.region = 12345};
    switch (way) {
    case 0:
        return rdma_control_say(link, RDMA_CONTROL_OFFER, bytes, sizeof bytes);
    case 1:
        return rdma_control_say(link, RDMA_CONTROL_OFFER, bytes, 7);
    case 2:
        return rdma_control_say(link, RDMA_CONTROL_ANSWER, bytes, sizeof bytes);
    case 3:
        return rdma_control_say(link, RDMA_CONTROL_LOST, &lost, sizeof lost);
    case 4:
        return rdma_control_say(link, RDMA_CONTROL_CLOSED, NULL, 0);
    case 5:
        return rdma_control_say(link, RDMA_CONTROL_REGION_FREE, &gone, sizeof gone);
    case 6:
        return rdma_control_say(link, 99, bytes, 64);
    default:
        return false;
    }
}

/* A region has been written to once; then a message that does not fit. */
static bool hostile_bulk(world_t *world, unsigned way)
{
    rdma_placed_t bad[] = {
        {.write = 0},
        {.write = 2},
        {.write = 1, .has_notify = 2},
        {.write = 1, .reserved = {1}},
        {.write = 1, .has_notify = 1},
        {.write = 1, .size = UINT64_MAX},
    };
    if (way >= sizeof bad / sizeof *bad) return false;
    const rf_transport_t *t = &rf_transport_rdma;
    end_t *a = &world->end[0], *b = &world->end[1];
    rf_region_t *region;
    assert_int_equal(t->region_create(b->link, 4096, &region), RF_OK);
    assert_int_equal(t->remote_write(a->link, &region->key, 0, "x", 1, NULL, 0), RF_OK);
    uint64_t since_ns = rf_clock_ns();
    while (a->written == 0) {
        rf_slot_t none;
        world_pump(world);
        t->poll(a->link, &none, 1);
        t->poll(b->link, &none, 1);
        hang_check(since_ns, "the bulk lane");
    }
    rdma_path_t *path = rdma_link_of(a->link)->lanes[RDMA_LANE_BULK].path;
    struct ibv_mr *mr = ibv_reg_mr(path->domain->pd, bad, sizeof bad, 0);
    assert_non_null(mr);
    struct ibv_sge part = {.addr = (uintptr_t)&bad[way], .length = sizeof bad[way], .lkey = mr->lkey};
    struct ibv_send_wr request = {
        .sg_list = &part, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    uint32_t done = path->posted + 1;
    rdma_path_post(path, &request, 1);
    while ((int32_t)(path->completed - done) < 0 && !path->failed) rdma_device_drain(path->device);
    ibv_dereg_mr(mr);
    return true;
}

static bool rdma_hostile(world_t *world, unsigned side, unsigned way, bool *harmless)
{
    rdma_link_t *link = rdma_link_of(world->end[side].link);
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    const unsigned slots = 7, words = 9, controls = 7;
    if (way < slots) return hostile_slot(path, way, link->slots_head, harmless);
    way -= slots;
    if (way < words) return hostile_word(path, way, link->slots_head);
    way -= words;
    if (way < controls) return hostile_control(link, way);
    way -= controls;
    if (way == 0) { /* no whole slot */
        post(path, "half a slot", 11);
        return true;
    }
    if (way == 1) {
        hostile_line(path);
        *harmless = path->peer.line != 0; /* it is looked at when room is wanted */
        return true;
    }
    if (way == 2) { /* a word that says nothing */
        rdma_word_t word = {.generation = path->generation};
        rdma_path_say(path, &word);
        *harmless = true;
        return true;
    }
    return hostile_bulk(world, way - 3);
}

static const fixture_t fixture = {
    .name = "rdma",
    .transport = &rf_transport_rdma,
    .flags = FIXTURE_BREAKS | FIXTURE_BULK | FIXTURE_THREADS | FIXTURE_PROCESSES,
    .deadline_ns = 20 * RF_NS_PER_S,
    .address = rdma_address,
    .break_connections = rdma_break,
    .garbage = rdma_garbage,
    .hostile = rdma_hostile,
};

const fixture_t *conformance_fixture = &fixture;
