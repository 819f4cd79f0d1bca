/*
 * A shared-memory link with a pause before and after each of its operations, which a seed decides about: there the peer runs, as it
 * would had the kernel preempted the caller. With both ends on one CPU nothing else makes them alternate so often. And what the
 * two ends knew, for a report when they sleep for good.
 */
#ifndef RF_TESTS_TRANSPORT_SHM_SLOW_H
#define RF_TESTS_TRANSPORT_SHM_SLOW_H

#include "base/prng.h"
#include "transport/shm/internal.h"

#include <sched.h>
#include <stdio.h>
#include <time.h>

#define SHM_SLOW_NAP_NS 60000

static _Thread_local rf_prng_t shm_slow_prng;
static _Thread_local unsigned shm_slow_every =
    8; /* one pause in so many is long enough for the peer to fall asleep */

static inline unsigned shm_slow_below(unsigned bound)
{
    return (unsigned)rf_prng_below(&shm_slow_prng, bound);
}

static inline void shm_slow_pause(void)
{
    unsigned n = shm_slow_below(shm_slow_every);
    if (n == 0) {
        struct timespec nap = {.tv_nsec = shm_slow_below(SHM_SLOW_NAP_NS)};
        (void)nanosleep(&nap, NULL);
    } else if (n <= 4) {
        sched_yield();
    }
}

static inline unsigned shm_slow_room(rf_link_t *link, unsigned want)
{
    shm_slow_pause();
    unsigned n = rf_transport_shm.room(link, want);
    shm_slow_pause();
    return n;
}

static inline unsigned shm_slow_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    shm_slow_pause();
    n = rf_transport_shm.send(link, slots, n);
    shm_slow_pause();
    return n;
}

static inline rf_err_t shm_slow_flush(rf_link_t *link)
{
    shm_slow_pause();
    rf_err_t err = rf_transport_shm.flush(link);
    shm_slow_pause();
    return err;
}

static inline unsigned shm_slow_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    shm_slow_pause();
    unsigned n = rf_transport_shm.poll(link, out, max);
    shm_slow_pause();
    return n;
}

static inline void shm_slow_arm(rf_link_t *link)
{
    shm_slow_pause();
    rf_transport_shm.arm(link);
    shm_slow_pause();
}

static inline bool shm_slow_ready(rf_link_t *link)
{
    shm_slow_pause();
    bool ready = rf_transport_shm.ready(link);
    shm_slow_pause();
    return ready;
}

static inline void shm_slow_disarm(rf_link_t *link)
{
    shm_slow_pause();
    rf_transport_shm.disarm(link);
    shm_slow_pause();
}

static inline rf_err_t shm_slow_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset,
                                             const void *source, size_t size, const rf_slot_t *notify,
                                             uint64_t cookie)
{
    shm_slow_pause();
    rf_err_t err = rf_transport_shm.remote_write(link, key, offset, source, size, notify, cookie);
    shm_slow_pause();
    return err;
}

/* The table of such links; the caller keeps it. */
static inline rf_transport_t shm_slow_table(void)
{
    rf_transport_t slow = rf_transport_shm;
    slow.room = shm_slow_room;
    slow.send = shm_slow_send;
    slow.flush = shm_slow_flush;
    slow.poll = shm_slow_poll;
    slow.arm = shm_slow_arm;
    slow.ready = shm_slow_ready;
    slow.disarm = shm_slow_disarm;
    slow.remote_write = shm_slow_remote_write;
    return slow;
}

/* From its own thread, or from any other while that one sleeps for good. */
static inline void shm_slow_report(const rf_link_t *base)
{
    const shm_link_t *l = (const shm_link_t *)base;
    if (!l || !l->head) return;
    const shm_head_t *h = l->head, *p = l->out.peer_head;
    fprintf(stderr,
            "  head: asleep %u attention %u room_wanted %u ack %u notify_ack %u\n"
            "  peer: asleep %u attention %u room_wanted %u ack %u notify_ack %u\n"
            "  out: sent %llu flushed %llu limit %llu acked %llu base %llu slots %u/%u rung %u asked %u\n"
            "  in: received %llu published %llu look %u peer_wants_room %d attention_seen %u line_sent %llu\n"
            "  notify: full %d sent %llu received %u\n",
            h->asleep, h->attention, h->room_wanted, (uint32_t)h->ack, h->notify_ack, p->asleep, p->attention,
            p->room_wanted, (uint32_t)p->ack, p->notify_ack, (unsigned long long)l->out.sent,
            (unsigned long long)l->out.flushed, (unsigned long long)l->out.limit,
            (unsigned long long)l->acked, (unsigned long long)l->ring_base, l->out_slots, l->slots_max,
            l->rung, l->room_asked, (unsigned long long)l->in.received, (unsigned long long)l->in.published,
            l->in.look, l->in.peer_wants_room, l->in.attention_seen, (unsigned long long)l->line_sent,
            l->notify_full, (unsigned long long)l->notify_sent, l->notify_received);
}

#endif
