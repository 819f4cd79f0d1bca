/*
 * Replicas in one thread, whose messages are calls: what the engine alone costs. No clock is read: the engine gets a time
 * that stands still, and nothing is ever lost.
 *
 * A message is handed to its receivers from where the engine made it; what they send in turn is copied into a queue, since
 * an output lasts only until the engine's next step.
 */
#ifndef RF_BENCH_AGREE_DIRECT_H
#define RF_BENCH_AGREE_DIRECT_H

#include "agree_replica.h"

#define AGREE_QUEUE_MAX 1024 /* messages on their way at once, a power of two */

typedef struct agree_direct agree_direct_t;
typedef void (*agree_completion_fn)(void *context, const agreement_completion_t *completion);

/* False, with a message, when the machine does not form. `on_completion` may be NULL. */
agree_direct_t *agree_direct_open(const agree_config_t *config);
void agree_direct_close(agree_direct_t *direct);

agree_replica_t *agree_direct_replica(agree_direct_t *direct, unsigned i);

/* Steps replica `i`, and all others for as long as there are messages. Returns how many proposals were answered with RF_OK
 * anywhere meanwhile. */
unsigned agree_direct_step(agree_direct_t *direct, unsigned i, const agreement_event_t *event);

/* From now on: when (rf_clock_ticks) the last answer was given. 0: not yet. */
void agree_direct_time(agree_direct_t *direct);
uint64_t agree_direct_answered_ticks(const agree_direct_t *direct);

/* Messages and bytes so far, each counted once a receiver. */
uint64_t agree_direct_messages(const agree_direct_t *direct);
uint64_t agree_direct_bytes(const agree_direct_t *direct);

#endif
