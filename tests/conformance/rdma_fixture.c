/*
 * RDMA between two endpoints of one process, over a device of this host: the one that has the address in
 * RACKFISH_RDMA_ADDRESS (default 127.0.0.1: any). Skipped where there is no RDMA device.
 *
 * With RACKFISH_RDMA_REMOVE connections break because the device is removed: that is a command of the shell, which removes it, says so in
 * a line, and has it come back.
 */
#include "conformance.h"
#include "path_fixture.h"

#include "transport/rdma/internal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static FILE *shell; /* removes the device, and has it come back; NULL: it is there */

static void device_is_back(world_t *world)
{
    char line[16];
    (void)world;
    if (!shell) return;
    while (fgets(line, sizeof line, shell)) {
    }
    assert_int_equal(pclose(shell), 0);
    shell = NULL;
}

/* Both ends let go of the device, or its removal would never end. Its coming back goes on beside the test. */
static void device_remove(world_t *world, const char *command)
{
    char line[16];
    device_is_back(world);
    shell = popen(command, "re");
    assert_non_null(shell);
    struct pollfd said = {.fd = fileno(shell), .events = POLLIN};
    uint64_t since_ns = rf_clock_ns();
    while (poll(&said, 1, 1) == 0) {
        for (unsigned side = 0; side < 2; side++)
            if (world->end[side].endpoint) end_progress(&world->end[side]);
        hang_check(since_ns, "the device to be removed");
    }
    assert_non_null(fgets(line, sizeof line, shell));
}

/* Every queue pair of this process is in error, and every connection of its control links is reset: which of the two an
 * end notices first is up to it. */
static void rdma_break(world_t *world)
{
    const char *remove = getenv("RACKFISH_RDMA_REMOVE");
    if (remove) {
        device_remove(world, remove);
        return;
    }
    bool controls = rf_prng_below(&world->prng, 2) == 0;
    for (unsigned side = 0; side < 2; side++) {
        rdma_endpoint_t *ep = (rdma_endpoint_t *)world->end[side].endpoint;
        for (unsigned i = 0; ep && i < ep->paths_end; i++) {
            struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
            if (ep->paths[i] && ep->paths[i]->lane && ep->paths[i]->lane->stage == PATH_UP) {
                ibv_modify_qp(ep->paths[i]->qp, &attr, IBV_QP_STATE);
                ep->paths[i]->lane->link->say_ack = true; /* as if something had been on its way */
            }
        }
    }
    if (controls) sockets_reset();
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

/* A region has been written to once; then a message that does not fit. */
static bool hostile_bulk(world_t *world, unsigned way)
{
    rdma_placed_t bad[] = {
        {.write = 0, .total = 1},
        {.write = UINT64_MAX, .total = 1},
        {.write = 1, .total = 1, .has_notify = 2},
        {.write = 1, .total = 1, .reserved = {1}},
        {.write = 1, .total = 1, .has_notify = 1},
        {.write = 1, .total = 0},
    };
    if (way >= sizeof bad / sizeof *bad) return false;
    world_written(world, true);
    rdma_path_t *path = rdma_link_of(path_link_of(world->end[0].link))->paths[PATH_LANE_BULK];
    struct ibv_mr *mr = ibv_reg_mr(path->domain->pd, bad, sizeof bad, 0);
    assert_non_null(mr);
    struct ibv_sge part = {.addr = (uintptr_t)&bad[way], .length = sizeof bad[way], .lkey = mr->lkey};
    struct ibv_send_wr request = {
        .sg_list = &part, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    uint32_t done = path->posted + 1;
    uint64_t since_ns = rf_clock_ns();
    rdma_path_post(path, &request, 1);
    while ((int32_t)(path->completed - done) < 0 && !rdma_path_over(path)) {
        rdma_device_drain(path->device);
        hang_check(since_ns, "a hostile message to be sent");
    }
    ibv_dereg_mr(mr);
    return true;
}

static bool rdma_hostile(world_t *world, unsigned side, unsigned way, bool *harmless)
{
    path_link_t *link = path_link_of(world->end[side].link);
    rdma_path_t *path = rdma_link_of(link)->paths[PATH_LANE_SLOTS];
    const unsigned slots = 7;
    if (way < slots) return hostile_slot(path, way, link->slots_head, harmless);
    way -= slots;
    if (way < PATH_HOSTILE_WAYS) return path_hostile(link, way);
    way -= PATH_HOSTILE_WAYS;
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
        path_word_t word = {.generation = path->lane->generation};
        rdma_path_say(path, &word);
        *harmless = true;
        return true;
    }
    if (way == 3) {
        rdma_region_gone_t gone = {.region = 12345};
        return path_control_say(link, RDMA_CONTROL_REGION_FREE, &gone, sizeof gone);
    }
    return hostile_bulk(world, way - 4);
}

static const fixture_t fixture = {
    .name = "rdma",
    .transport = &rf_transport_rdma,
    .flags = FIXTURE_BREAKS | FIXTURE_BULK | FIXTURE_THREADS | FIXTURE_PROCESSES,
    .deadline_ns = 20 * RF_NS_PER_S,
    .open = device_is_back,
    .address = rdma_address,
    .break_connections = rdma_break,
    .garbage = sockets_garbage,
    .hostile = rdma_hostile,
    .explain = path_explain,
};

const fixture_t *conformance_fixture = &fixture;
