/*
 * The litmus test of placement: does this device ever show a slot's control word before the rest of the slot?
 *
 *   rdma_litmus read ADDRESS PORT SLOTS     on one host: polls a ring, checks every slot, says how many
 *   rdma_litmus write ADDRESS PORT SLOTS    on the other: fills the ring by RDMA WRITE
 *   rdma_litmus wrong ADDRESS PORT SLOTS    ... with the control word in a WRITE of its own before the rest: the reader must see it
 *
 * A slot is 64 bytes at a multiple of 64, as in transport/slot.h: seven words, each made of the slot's number and the word's
 * place, then the control word, made of the number and a checksum of the seven. The reader polls the control word of
 * the slot it waits for, and takes the seven as soon as the number is there: one that is still of the lap before, or of
 * nothing, is a violation. WRITEs are of 1 to 64 slots, as transport/rdma makes them, and 64 or fewer are under way.
 */
#include "base/memory.h"

#include <inttypes.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING        16384 /* more than the medium's: less waiting for the line */
#define WRITE_SLOTS 64    /* RDMA_WRITE_SLOTS */
#define DEPTH       64
#define WORDS       7
#define LINE_EVERY  4096

typedef struct slot {
    uint64_t words[WORDS];
    uint64_t control;
} rf_cache_aligned slot_t;

/* The reader's ring, and the writer's line, where the reader says how many it has taken. */
static slot_t ring[RING]; /* reader: written by the peer; writer: what it writes from */
static uint64_t line[8]
    __attribute__((aligned(64))); /* writer: [0] written by the peer; reader: what it says */

typedef struct place {
    uint64_t address;
    uint32_t key, reserved;
} place_t;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t word_of(uint64_t number, unsigned place)
{
    return mix(number * WORDS + place + 1);
}

static uint64_t control_of(uint64_t number, const uint64_t *words)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < WORDS; i++) sum = mix(sum ^ words[i]);
    return (number + 1) << 24 | (sum & 0xffffff); /* never 0 */
}

static int fail(const char *what)
{
    fprintf(stderr, "rdma_litmus: %s: %m\n", what);
    return 1;
}

static bool drain(struct rdma_cm_id *id, unsigned *under_way)
{
    struct ibv_wc done[16];
    int n = ibv_poll_cq(id->send_cq, 16, done);
    for (int i = 0; i < n; i++) {
        if (done[i].status != IBV_WC_SUCCESS) {
            fprintf(stderr, "rdma_litmus: a WRITE failed: %s\n", ibv_wc_status_str(done[i].status));
            return false;
        }
        --*under_way;
    }
    return n >= 0;
}

static bool post(struct rdma_cm_id *id, void *bytes, size_t size, const struct ibv_mr *mr, uint64_t address,
                 uint32_t key, unsigned *under_way)
{
    while (*under_way == DEPTH) {
        if (!drain(id, under_way)) return false;
    }
    ++*under_way;
    return rdma_post_write(id, NULL, bytes, size, (struct ibv_mr *)(uintptr_t)mr, IBV_SEND_SIGNALED, address,
                           key) == 0;
}

static int read_all(struct rdma_cm_id *id, const struct ibv_mr *mr, const place_t *peer, uint64_t slots)
{
    uint64_t wrong = 0;
    unsigned under_way = 0;
    for (uint64_t number = 0; number < slots; number++) {
        const slot_t *slot = &ring[number % RING];
        uint64_t control, words[WORDS];
        while ((control = __atomic_load_n(&slot->control, __ATOMIC_ACQUIRE)) >> 24 != number + 1) {
            if (under_way > 0 && !drain(id, &under_way)) return 1;
        }
        memcpy(words, slot->words, sizeof words);
        bool good = control == control_of(number, words);
        for (unsigned i = 0; i < WORDS; i++) good &= words[i] == word_of(number, i);
        if (!good && wrong++ < 10) printf("slot %" PRIu64 " was seen before its payload\n", number);
        if ((number + 1) % LINE_EVERY != 0 && number + 1 != slots) continue;
        while (under_way > 0) { /* the source is written again */
            if (!drain(id, &under_way)) return 1;
        }
        line[0] = number + 1;
        if (!post(id, line, sizeof *line, mr, peer->address, peer->key, &under_way)) return fail("WRITE");
    }
    while (under_way > 0) {
        if (!drain(id, &under_way)) return 1;
    }
    printf("%" PRIu64 " slots checked, %" PRIu64 " seen before their payload\n", slots, wrong);
    return wrong ? 1 : 0;
}

static int write_all(struct rdma_cm_id *id, const struct ibv_mr *mr, const place_t *peer, uint64_t slots,
                     bool wrong)
{
    unsigned under_way = 0;
    for (uint64_t number = 0; number < slots;) {
        uint64_t at = number % RING, n = wrong ? 1 : 1 + mix(number) % WRITE_SLOTS;
        uint64_t there = peer->address + at * sizeof *ring;
        if (n > RING - at) n = RING - at;
        if (n > slots - number) n = slots - number;
        /* What the reader has taken has also left: the source may be filled again. */
        while (number + n - __atomic_load_n(&line[0], __ATOMIC_ACQUIRE) > RING) {
            if (!drain(id, &under_way)) return 1;
        }
        for (uint64_t i = 0; i < n; i++) {
            slot_t *slot = &ring[at + i];
            for (unsigned k = 0; k < WORDS; k++) slot->words[k] = word_of(number + i, k);
            slot->control = control_of(number + i, slot->words);
        }
        if (wrong && !post(id, &ring[at].control, sizeof ring->control, mr, there + sizeof ring->words,
                           peer->key, &under_way))
            return fail("WRITE");
        if (!post(id, &ring[at], wrong ? sizeof ring->words : n * sizeof *ring, mr, there, peer->key,
                  &under_way))
            return fail("WRITE");
        number += n;
    }
    while (__atomic_load_n(&line[0], __ATOMIC_ACQUIRE) < slots) {
        if (!drain(id, &under_way)) return 1;
    }
    return 0;
}

/* A queue pair with its peer's place; `mr` is of what the peer writes, `source` of what is written from here. */
static struct rdma_cm_id *meet(bool reads, const char *address, const char *port, struct ibv_mr **source,
                               place_t *peer)
{
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP, .ai_flags = reads ? RAI_PASSIVE : 0}, *found;
    struct ibv_qp_init_attr attr = {.cap = {DEPTH, 4, 1, 1, 0}, .qp_type = IBV_QPT_RC};
    struct rdma_cm_id *listener = NULL, *id = NULL;
    if (rdma_getaddrinfo(address, port, &hints, &found) != 0) return NULL;
    if (rdma_create_ep(reads ? &listener : &id, found, NULL, &attr) != 0) return NULL;
    if (reads && (rdma_listen(listener, 1) != 0 || rdma_get_request(listener, &id) != 0)) return NULL;
    struct ibv_mr *target =
        reads ? rdma_reg_write(id, ring, sizeof ring) : rdma_reg_write(id, line, sizeof line);
    *source = reads ? rdma_reg_msgs(id, line, sizeof line) : rdma_reg_msgs(id, ring, sizeof ring);
    if (!target || !*source) return NULL;
    place_t mine = {.address = (uintptr_t)target->addr, .key = target->rkey};
    struct rdma_conn_param param = {
        .private_data = &mine, .private_data_len = sizeof mine, .retry_count = 6, .rnr_retry_count = 6};
    if (reads) memcpy(peer, id->event->param.conn.private_data, sizeof *peer);
    if (reads ? rdma_accept(id, &param) != 0 : rdma_connect(id, &param) != 0) return NULL;
    if (!reads) memcpy(peer, id->event->param.conn.private_data, sizeof *peer);
    return id;
}

int main(int argc, char **argv)
{
    bool reads = argc == 5 && strcmp(argv[1], "read") == 0;
    bool wrong = argc == 5 && strcmp(argv[1], "wrong") == 0;
    uint64_t slots = argc == 5 ? strtoull(argv[4], NULL, 10) : 0;
    if (slots == 0 || slots >> 39 != 0 || (!reads && !wrong && strcmp(argv[1], "write") != 0)) {
        fprintf(stderr, "usage: rdma_litmus read|write|wrong ADDRESS PORT SLOTS\n");
        return 2;
    }
    struct ibv_mr *source = NULL;
    place_t peer;
    struct rdma_cm_id *id = meet(reads, argv[2], argv[3], &source, &peer);
    if (!id) return fail("no connection");
    return reads ? read_all(id, source, &peer, slots) : write_all(id, source, &peer, slots, wrong);
}
