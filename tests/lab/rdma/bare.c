/*
 * Bare limits, by nothing but verbs, where a WRITE counts when it is at the peer: of a one-sided append, which is a WRITE to each of two
 * peers, until the first of the two is complete; and of bulk, of which so many are under way.
 *
 *   rdma_bare serve ADDRESS PORT                             on other hosts: has memory for one writer, and ends with it
 *   rdma_bare write SAMPLES ADDRESS PORT ADDRESS PORT        p50 and p99 in us
 *   rdma_bare bulk BYTES DEPTH WRITES ADDRESS PORT           MB/s over all
 *
 * On iWARP a WRITE's completion says only that TCP has it: there a READ of no bytes follows, as transport/rdma has it.
 */
#include "base/clock.h"

#include <poll.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEERS   2
#define BYTES   192 /* a record of one command of 64 bytes */
#define MOST    (1u << 20)
#define DEPTH   64 /* writes under way, at most */
#define READS   16 /* ... READs */
#define PAGE    4096
#define WARM_UP 200

typedef struct place {
    uint64_t address;
    uint32_t key, reserved;
} place_t;

typedef struct peer {
    struct rdma_cm_id *id;
    struct ibv_mr *mr;
    place_t there;
    uint32_t bytes, depth;
    uint64_t posted, completed;
    bool iwarp;
} peer_t;

static uint8_t memory[MOST] __attribute__((aligned(PAGE)));

static int fail(const char *what)
{
    fprintf(stderr, "rdma_bare: %s: %m\n", what);
    return 1;
}

static struct rdma_addrinfo *address_of(const char *address, const char *port, bool serves)
{
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP, .ai_flags = serves ? RAI_PASSIVE : 0}, *found;
    return rdma_getaddrinfo(address, port, &hints, &found) == 0 ? found : NULL;
}

static int serve(const char *address, const char *port)
{
    struct ibv_qp_init_attr attr = {.cap = {2 * DEPTH, 4, 1, 1, 0}, .qp_type = IBV_QPT_RC};
    struct rdma_addrinfo *found = address_of(address, port, true);
    struct rdma_cm_id *listener, *id;
    if (!found || rdma_create_ep(&listener, found, NULL, &attr) != 0 || rdma_listen(listener, 1) != 0 ||
        rdma_get_request(listener, &id) != 0)
        return fail("nobody connects");
    struct ibv_mr *mr = ibv_reg_mr(id->pd, memory, sizeof memory,
                                   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
    if (!mr) return fail("no memory");
    place_t mine = {.address = (uintptr_t)memory, .key = mr->rkey};
    struct rdma_conn_param param = {.private_data = &mine,
                                    .private_data_len = sizeof mine,
                                    .responder_resources = READS,
                                    .initiator_depth = READS,
                                    .retry_count = 6,
                                    .rnr_retry_count = 6};
    if (rdma_accept(id, &param) != 0) return fail("accept");
    struct rdma_cm_event *event; /* that it is gone; meanwhile the device works alone */
    return rdma_get_cm_event(id->channel, &event) == 0 ? 0 : fail("waiting");
}

static bool meet(peer_t *peer, const char *address, const char *port)
{
    struct ibv_qp_init_attr attr = {.cap = {2 * DEPTH, 4, 1, 1, 0}, .qp_type = IBV_QPT_RC};
    struct rdma_addrinfo *found = address_of(address, port, false);
    if (!found || rdma_create_ep(&peer->id, found, NULL, &attr) != 0) return false;
    struct rdma_conn_param param = {
        .responder_resources = READS, .initiator_depth = READS, .retry_count = 6, .rnr_retry_count = 6};
    peer->mr = rdma_reg_msgs(peer->id, memory, sizeof memory);
    peer->iwarp = peer->id->verbs->device->transport_type == IBV_TRANSPORT_IWARP;
    if (!peer->mr || rdma_connect(peer->id, &param) != 0) return false;
    memcpy(&peer->there, peer->id->event->param.conn.private_data, sizeof peer->there);
    return true;
}

static bool drain(peer_t *peer)
{
    struct ibv_wc done[16];
    int n = ibv_poll_cq(peer->id->send_cq, 16, done);
    for (int i = 0; i < n; i++) {
        if (done[i].status != IBV_WC_SUCCESS) {
            fprintf(stderr, "rdma_bare: %s\n", ibv_wc_status_str(done[i].status));
            return false;
        }
        peer->completed += !peer->iwarp || done[i].opcode == IBV_WC_RDMA_READ;
    }
    return n >= 0;
}

static bool post(peer_t *peer)
{
    struct ibv_sge part = {.addr = (uintptr_t)memory, .length = peer->bytes, .lkey = peer->mr->lkey},
                   none = part;
    struct ibv_send_wr read = {.sg_list = &none, .num_sge = 1, .opcode = IBV_WR_RDMA_READ}, *bad;
    struct ibv_send_wr write = {.sg_list = &part, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    none.length = 0;
    read.wr.rdma.remote_addr = write.wr.rdma.remote_addr = peer->there.address;
    read.wr.rdma.rkey = write.wr.rdma.rkey = peer->there.key;
    read.send_flags = IBV_SEND_SIGNALED;
    if (!peer->iwarp || peer->bytes >= PAGE)
        write.send_flags = IBV_SEND_SIGNALED; /* transport/rdma/bulk.c, bytes_end() */
    if (peer->iwarp) write.next = &read;
    while (peer->posted - peer->completed == peer->depth) {
        if (!drain(peer)) return false;
    }
    peer->posted++;
    return ibv_post_send(peer->id->qp, &write, &bad) == 0;
}

static bool once(peer_t *peers)
{
    for (unsigned i = 0; i < PEERS; i++) {
        if (!post(&peers[i])) return false;
    }
    for (bool first = false; !first;) {
        for (unsigned i = 0; i < PEERS; i++) {
            if (!drain(&peers[i])) return false;
            first = first || peers[i].completed == peers[i].posted;
        }
    }
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int measure(peer_t *peers, unsigned samples)
{
    double *us = calloc(samples, sizeof *us);
    if (!us) return fail("samples");
    for (unsigned i = 0; i < samples + WARM_UP; i++) {
        uint64_t before = rf_clock_ticks();
        if (!once(peers)) return 1;
        if (i >= WARM_UP)
            us[i - WARM_UP] = (double)(rf_clock_ticks() - before) / (double)rf_clock_ticks_per_us();
    }
    qsort(us, samples, sizeof *us, ascending);
    printf("%.2f %.2f\n", us[samples / 2], us[samples - 1 - samples / 100]);
    free(us);
    for (unsigned i = 0; i < PEERS; i++) rdma_disconnect(peers[i].id);
    return 0;
}

static int bulk(peer_t *peer, unsigned long writes)
{
    uint64_t began = rf_clock_ticks();
    for (unsigned long i = 0; i < writes; i++) {
        if (!post(peer)) return 1;
    }
    while (peer->completed != peer->posted) {
        if (!drain(peer)) return 1;
    }
    double us = (double)(rf_clock_ticks() - began) / (double)rf_clock_ticks_per_us();
    printf("%.1f\n", (double)writes * peer->bytes / us);
    rdma_disconnect(peer->id);
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: rdma_bare serve ADDRESS PORT | write SAMPLES ADDRESS PORT ADDRESS PORT |\n"
                    "       bulk BYTES DEPTH WRITES ADDRESS PORT (to 1 MiB, 64 under way)\n");
    return 2;
}

int main(int argc, char **argv)
{
    peer_t peers[PEERS];
    unsigned long of[3] = {0};
    for (int i = 0; i < 3 && argc == 7; i++) of[i] = strtoul(argv[2 + i], NULL, 10);
    for (int i = 0; i < PEERS; i++) peers[i] = (peer_t){.bytes = BYTES, .depth = DEPTH};
    if (argc == 4 && strcmp(argv[1], "serve") == 0) return serve(argv[2], argv[3]);
    if (argc != 7) return usage();
    if (strcmp(argv[1], "bulk") == 0) {
        if (of[0] < 1 || of[0] > MOST || of[1] < 1 || of[1] > DEPTH || of[2] < 1) return usage();
        peers[0].bytes = (uint32_t)of[0];
        peers[0].depth = (uint32_t)of[1];
        return meet(&peers[0], argv[5], argv[6]) ? bulk(&peers[0], of[2]) : fail("no connection");
    }
    if (strcmp(argv[1], "write") != 0 || of[0] < 100 || of[0] > 1000000) return usage();
    for (int i = 0; i < PEERS; i++) {
        if (!meet(&peers[i], argv[3 + 2 * i], argv[4 + 2 * i])) return fail("no connection");
    }
    return measure(peers, (unsigned)of[0]);
}
