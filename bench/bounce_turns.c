/* Turns between the pieces of rf-dpdk-bounce: see bounce.h. */
#include "bounce.h"

#include "base/clock.h"
#include "base/futex.h"

#define WARM_UP      200 /* samples that are not kept: of the one-way time at first, ... */
#define WARM_UP_TURN 20  /* ... and in each turn, while caches and rings are somebody else's */
#define WARM_UP_RATE 3   /* of the rate, in each turn: what waited is gone then */
#define WAIT_LOOK_NS (100 * RF_NS_PER_MS)

static void turn_set(bounce_turns_t *turns, uint32_t whose)
{
    atomic_store(&turns->whose, whose);
    rf_futex_wake_all(&turns->whose);
}

bool bounce_my_turn(const bounce_piece_t *piece)
{
    return atomic_load_explicit(&piece->turns->whose, memory_order_relaxed) == piece->place;
}

void bounce_wait(const bounce_piece_t *piece)
{
    const bounce_shared_t *shared = piece->shared;
    while (!atomic_load(&shared->done) && !atomic_load(&shared->failed)) {
        uint32_t whose = atomic_load(&piece->turns->whose);
        if (whose == piece->place) return;
        (void)rf_futex_wait(&piece->turns->whose, whose, rf_clock_ns() + WAIT_LOOK_NS);
    }
}

void bounce_ready(const bounce_piece_t *piece)
{
    bounce_turns_t *turns = piece->turns;
    if (atomic_fetch_add(&turns->ready, 1) + 1 == 2 * turns->n) turn_set(turns, 0);
    bounce_wait(piece);
}

bool bounce_keep(const bounce_piece_t *piece, double value)
{
    bounce_shared_t *shared = piece->shared;
    if (shared->n == 0 && shared->warm_left == 0) shared->warm_left = piece->one_way ? WARM_UP : WARM_UP_RATE;
    if (shared->warm_left > 1) {
        shared->warm_left--;
        return false;
    }
    shared->values[shared->n++] = value;
    if (shared->n < shared->samples && (piece->slice == 0 || shared->n % piece->slice != 0)) return false;
    shared->warm_left = piece->one_way ? WARM_UP_TURN : WARM_UP_RATE;
    if (shared->n == shared->samples) atomic_store(&shared->done, true);
    return true;
}

void bounce_hand_over(const bounce_piece_t *piece)
{
    bounce_turns_t *turns = piece->turns;
    uint32_t next = piece->place;
    if (atomic_load(&piece->shared->done)) atomic_store(&turns->over[piece->place], true);
    for (uint32_t i = 0; i < turns->n; i++) {
        next = (next + 1) % turns->n;
        if (!atomic_load(&turns->over[next])) break;
    }
    turn_set(turns, next);
}
