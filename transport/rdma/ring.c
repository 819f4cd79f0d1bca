/*
 * Slots by WRITE, and how their receiver sleeps.
 *
 * The sender writes slots into a ring in the receiver's memory, which its owner polls: the ring of URPC, with the same
 * parity that flips each lap, filled by the device. Behind the ring lies the line, where the receiver's peer writes how many of the
 * slots sent from here its owner has taken. Ring and line are of one path: fresh memory, a fresh key, the slots numbered
 * from where the path began.
 *
 * A plain WRITE completes nothing at its target, so sleep is agreed: sleep.h. tests/transport/rdma_sleep_test.c runs it in virtual time,
 * with delays, stalls and deaths; the simulator runs what is decided between many processes.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"

#include <string.h>
#include <sys/timerfd.h>

rf_err_t rdma_ring_make(rdma_path_t *path)
{
    const path_link_t *link = path->lane->link;
    uint32_t slots = link->slots_max < RDMA_RING_SLOTS ? link->slots_max : RDMA_RING_SLOTS;
    size_t size = (slots + 1) * sizeof(rf_slot_t);
    rf_err_t err = rdma_memory_make(path->domain->pd, size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
                                    &path->ring);
    if (err != RF_OK) {
        rdma_memory_refused(path->device->endpoint, size);
        return err;
    }
    path->ring_slots = slots;
    path->ring_first = link->accepted;
    return RF_OK;
}

void rdma_ring_info(const rdma_path_t *path, rdma_path_info_t *out)
{
    if (!path->ring.base) return;
    out->ring = (uintptr_t)path->ring.base;
    out->ring_key = out->line_key = path->ring.mr->rkey;
    out->ring_slots = path->ring_slots;
    out->line = out->ring + path->ring_slots * sizeof(rf_slot_t);
}

/* The slot in its place, and its control word without the parity. NULL: it has not been written yet. */
static inline const rf_slot_t *written(const rdma_path_t *path, uint64_t at, uint64_t *control)
{
    uint64_t number = at - path->ring_first;
    const rf_slot_t *slot = (const rf_slot_t *)path->ring.base + (number & (path->ring_slots - 1));
    *control = __atomic_load_n(&slot->control, __ATOMIC_ACQUIRE) ^ rdma_ring_parity(number, path->ring_slots);
    return *control & RF_CONTROL_PARITY ? NULL : slot;
}

bool rdma_ring_written(const rdma_path_t *path, uint64_t at)
{
    uint64_t control;
    return written(path, at, &control) != NULL;
}

unsigned rdma_ring_read(const rdma_path_t *path, uint64_t at, rf_slot_t *out, unsigned max, uint64_t *last)
{
    const rf_slot_t *slot;
    uint64_t control;
    unsigned n = 0;
    *last = rf_control_make(1, 0, false, 0);
    while (n < max && (slot = written(path, at + n, &control))) {
        *last = control; /* once: the peer may write it again */
        if (!rdma_control_right(control)) break;
        memcpy(out[n].words, slot->words, sizeof slot->words);
        out[n++].control = control & RF_CONTROL_CALLERS;
    }
    return n;
}

void rdma_ring_take(rdma_link_t *link, rdma_path_t *path)
{
    const path_link_t *base = &link->base;
    const rf_slot_t *slot;
    uint64_t before = base->accepted, last = before - 1;
    rf_slot_t copy;
    /* Once around: the peer of a closed link is acknowledged as it writes, and might never stop. */
    while (!base->wrong && base->accepted != last && base->accepted - before < path->ring_slots) {
        last = base->accepted;
        if (!(slot = written(path, last, &copy.control))) break;
        memcpy(copy.words, slot->words, sizeof copy.words);
        rdma_link_accept(link, path, &copy, 1);
    }
}

/* --- the line ----------------------------------------------------------------------------------------------- */

uint64_t rdma_line_read(const rdma_path_t *path)
{
    const uint8_t *line = path->ring.base + path->ring_slots * sizeof(rf_slot_t);
    return __atomic_load_n((const uint64_t *)(const void *)line, __ATOMIC_ACQUIRE);
}

bool rdma_line_write(rdma_path_t *path, uint64_t delivered)
{
    if (rdma_path_room(path) == 0) return false;
    struct ibv_sge part = {.addr = (uintptr_t)&delivered, .length = sizeof delivered};
    struct ibv_send_wr request = {.sg_list = &part,
                                  .num_sge = 1,
                                  .opcode = IBV_WR_RDMA_WRITE,
                                  .send_flags = IBV_SEND_INLINE,
                                  .wr.rdma = {.remote_addr = path->peer.line, .rkey = path->peer.line_key}};
    rdma_path_post(path, &request, 1);
    return true;
}

/* --- sleeping ----------------------------------------------------------------------------------------------- */

/* One timer for all: the earliest of what they want. */
static void look_in(rdma_endpoint_t *ep, uint64_t ns)
{
    uint64_t before_ns = ep->look_ns;
    if (!rdma_sleep_timer(&ep->look_ns, ns)) return;
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(ns / RF_NS_PER_S), .tv_nsec = (long)(ns % RF_NS_PER_S)}};
    if (timerfd_settime(ep->look, 0, &at, NULL) != 0) ep->look_ns = before_ns;
}

void rdma_ring_looked(rdma_endpoint_t *ep)
{
    ep->look_ns = 0;
}

void rdma_ring_arm(rdma_link_t *link, rdma_path_t *path)
{
    uint64_t look_ns;
    if (rdma_sleep_arm(&path->sleep, &look_ns)) {
        link->base.say |= RDMA_WORD_SLEEP;
        rdma_push(&link->base);
    }
    if (look_ns != 0) look_in(path->device->endpoint, look_ns);
}

void rdma_ring_word(rdma_link_t *link, rdma_path_t *path, uint32_t flags)
{
    if (flags & RDMA_WORD_SLEEP) link->base.say |= RDMA_WORD_GRANT;
    if (flags & RDMA_WORD_GRANT) rdma_sleep_granted(&path->sleep);
    if (flags & RDMA_WORD_RING) rdma_sleep_rung(&path->sleep);
}
