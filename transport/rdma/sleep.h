/*
 * How the receiver of slots that come by WRITE sleeps: what each end of a path decides, apart from how it is said and written. The
 * transport (ring.c, link.c) and the simulator (sim/actor_rdma.c) both go by it; consensus/model/sleep.pml is the same, searched.
 *
 * A plain WRITE completes nothing at its target, so sleep is agreed:
 *
 *   receiver    AWAKE --arm: SLEEP--> ASKED --GRANT came--> GRANTED --rung--> AWAKE
 *   sender      on SLEEP: answers GRANT, and after that the last request of its next flush rings, once
 *
 * A receiver that is about to sleep does, in this order: it has its device tell of completions; arms; takes what completions there are,
 * and what is in its ring; and sleeps if there is nothing, and it was not rung since it armed.
 *
 * Nothing is overlooked. What was written before GRANT is in the ring when GRANT, which completes, has come; what is
 * written after it rings, which completes, too. The receiver sleeps while ASKED as well: GRANT wakes it, and if that is not said soon,
 * as by a sender that does something else, a timer does, and it looks at its ring: after 1 ms first, then each time after twice as
 * long. (Polling until GRANT takes the CPU from a sender that shares it.) A receiver that was woken by something else stays
 * GRANTED and may sleep again without a word.
 *
 * Of one owner, the endpoint's thread; nothing blocks, nothing fails, no memory is kept.
 */
#ifndef RF_TRANSPORT_RDMA_SLEEP_H
#define RF_TRANSPORT_RDMA_SLEEP_H

#include "base/clock.h"

#include <stdbool.h>
#include <stdint.h>

#define RDMA_LOOK_NS_MIN RF_NS_PER_MS
#define RDMA_LOOK_NS_MAX (64 * RF_NS_PER_MS)

typedef enum rdma_sleep_state { RDMA_AWAKE, RDMA_ASKED, RDMA_GRANTED } rdma_sleep_state_t;

/* Of one end of a path; zero: a path that begins. */
typedef struct rdma_sleep {
    rdma_sleep_state_t state; /* of this end, as a receiver */
    bool peer_sleeps;         /* the next flush is to ring */
    uint64_t look_ns;         /* while ASKED: how long it sleeps next before it looks by itself */
} rdma_sleep_t;

/* This end is about to sleep. True: SLEEP is to be said. *look_ns: it looks by itself after so long; 0: it need not. */
bool rdma_sleep_arm(rdma_sleep_t *sleep, uint64_t *look_ns);
/* GRANT has come, and what was written before it has been taken. */
void rdma_sleep_granted(rdma_sleep_t *sleep);
/* The peer has rung, and what was written before that can be seen. */
void rdma_sleep_rung(rdma_sleep_t *sleep);
/* Armed, it was rung before it slept: that was all the ringing there is, so it looks, and arms anew. */
static inline bool rdma_sleep_over(const rdma_sleep_t *sleep)
{
    return sleep->state == RDMA_AWAKE;
}
/* GRANT is on its way, behind all that was written. */
void rdma_sleep_grants(rdma_sleep_t *sleep);
/* Slots are about to be posted. True: the last request of them rings. */
bool rdma_sleep_rings(rdma_sleep_t *sleep);

/* The sleepers of a process share one timer. *set_ns: it goes off at the latest so long from when it was set; 0: it is not set. True: it
 * is to be set to go off after `ns`. */
bool rdma_sleep_timer(uint64_t *set_ns, uint64_t ns);

#endif
