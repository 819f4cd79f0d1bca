/* Both ends of shared-memory links in this process, over socket pairs, exactly as two processes would have them. */
#ifndef RF_BENCH_SHM_PAIR_H
#define RF_BENCH_SHM_PAIR_H

#include "bench.h"

#include "transport/shm/shm.h"

#include <stdatomic.h>

#define SHM_PAIR_LINKS_MAX 512

typedef struct shm_pair {
    rf_endpoint_t *endpoints[2];
    rf_doorbell_t bells[2]; /* futex */
    rf_link_t *links[2][SHM_PAIR_LINKS_MAX];
    unsigned n_links;
    _Atomic(bool) failed; /* a link ended */
} shm_pair_t;

/* Opens `n_links` links with rings of `slots`, all up. False, with a message, when it cannot. */
bool shm_pair_open(shm_pair_t *pair, unsigned n_links, unsigned slots);
void shm_pair_close(shm_pair_t *pair);

/* One slot, flushed, as soon as there is room. */
static inline void shm_pair_send(rf_link_t *link, uint64_t number)
{
    rf_slot_t slot = {.words = {number}, .control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0)};
    while (rf_transport_shm.send(link, &slot, 1) == 0)
        ;
    rf_transport_shm.flush(link);
}

/* The next slot's number, spinning. */
static inline uint64_t shm_pair_poll(rf_link_t *link)
{
    rf_slot_t slot;
    while (rf_transport_shm.poll(link, &slot, 1) == 0)
        ;
    return slot.words[0];
}

#endif
