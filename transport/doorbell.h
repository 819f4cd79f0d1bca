/*
 * The doorbell: the one thing a process blocks on. A sender rings it when, after publishing, it sees that the
 * receiver of that link is asleep.
 *
 *   futex     a word in a sealed memory object of its own; dispatchers (same-core hand-over 4.5 us there and back)
 *   none      for processes that wait in epoll: CPU drivers, monitors, the node. Peers on shared memory wake them through the
 *             link's side socket, which makes endpoint_fd readable. (An eventfd that peers held could make its ringers block.)
 *
 * Asleep words live in the memory of each link, never in the doorbell: a hostile holder of the doorbell can cause
 * spurious wake-ups, but cannot make another link's asleep word be overlooked. It could move waiters off the word
 * with FUTEX_REQUEUE, so a doorbell is given only to peers that may delay this process.
 *
 * Owner: one process, one thread waits. Ringing: any thread of any process that holds it.
 */
#ifndef RF_TRANSPORT_DOORBELL_H
#define RF_TRANSPORT_DOORBELL_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct rf_doorbell {
    int fd;                  /* memory object: what is passed to peers; owned */
    _Atomic(uint32_t) *word; /* mapped; NULL: none */
} rf_doorbell_t;

/* Makes a doorbell for this process. */
rf_err_t rf_doorbell_create(rf_doorbell_t *out);

/* Takes over a doorbell that a peer passed: checks seals and size, so that ringing can neither fault nor block. Owns `fd` on
 * success, leaves it to the caller otherwise. */
rf_err_t rf_doorbell_adopt(int fd, rf_doorbell_t *out);

void rf_doorbell_destroy(rf_doorbell_t *doorbell);

/* Rings: one system call. */
void rf_doorbell_ring(const rf_doorbell_t *doorbell);

/* Take the value before arming the links, then wait while it is unchanged. Spurious returns are normal.
 * RF_ERR_TIMEOUT after `deadline_ns` (CLOCK_MONOTONIC, RF_NEVER for none). */
static inline uint32_t rf_doorbell_value(const rf_doorbell_t *doorbell)
{
    return atomic_load_explicit(doorbell->word, memory_order_acquire);
}
rf_err_t rf_doorbell_wait(const rf_doorbell_t *doorbell, uint32_t value, uint64_t deadline_ns);

#endif
