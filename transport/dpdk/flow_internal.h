/*
 * The state of a flow, and what its parts call of each other:
 *
 *   flow.c           its life, the two windows, statistics
 *   flow_transmit.c  what is sent next, and when
 *   flow_receive.c   checks of what came; the receive window; when to acknowledge
 *   flow_loss.c      frames acknowledged and lost, round trips, probes, death
 *   flow_swift.c     how much may be under way
 *
 * Send window, slot numbers (64 bits, never reused):
 *
 *      base            sent              end           base + send_slots
 *       |  acknowledged  |  never sent    |  room          |
 *       |  or not: bits  |                |                |
 *
 * Receive window:
 *
 *      taken           next             beyond         taken + receive_slots = what a frame says as `credit`
 *       |  to be taken   |  came out of   |  room          |
 *       |                |  order: bits   |                |
 */
#ifndef RF_TRANSPORT_DPDK_FLOW_INTERNAL_H
#define RF_TRANSPORT_DPDK_FLOW_INTERNAL_H

#include "base/assert.h"
#include "transport/dpdk/flow_bits.h"
#include "transport/dpdk/flow_format.h"
#include "transport/dpdk/seal_frame.h"
#include "transport/ring.h"

#include <string.h>

#define FLOW_REPLAY_BITS 1024u /* how far back a frame's number is still known to be new */
#define FLOW_ACK_FRAMES                                                                                      \
    16u /* so many frames are acknowledged at once, at the latest; below the 64 of `before` */
#define FLOW_REORDER_MIN   3u  /* frames that may overtake one before it is lost: RFC 9002, 6.1.1 */
#define FLOW_REORDER_MAX   48u /* what that may grow to on a path that reorders */
#define FLOW_MTU_TRIES     3u
#define FLOW_WINDOW_FRAMES 10u /* congestion window at first, as RFC 6928 */
#define FLOW_WINDOW_LEAST  64u /* and at least: a 64th of a frame */
#define FLOW_PACE_MAX_NS   (10 * RF_NS_PER_MS)

enum { FLOW_PACKET_NONE, FLOW_PACKET_IN_FLIGHT, FLOW_PACKET_LOST };

/* A frame that was sent, until its entry is needed for another: entry `number % RF_FLOW_PACKETS_MAX`. */
typedef struct flow_packet {
    uint64_t sent_ns;
    uint64_t first; /* slot */
    uint16_t slots, bytes;
    uint8_t state; /* FLOW_PACKET_*; NONE: owed nothing, or acknowledged */
    uint8_t flags; /* FLOW_FRAME_* */
} flow_packet_t;
_Static_assert(sizeof(flow_packet_t) == 24, "eight in three cache lines");

/* What a frame says with ACKS, checked already. */
typedef struct flow_acks {
    uint64_t top; /* `largest` widened, plus one; 0: nothing */
    uint64_t before;
    uint64_t ack_delay_ns; /* from when the peer saw `largest` until it said so */
    uint64_t late_ns;      /* for which that, and this word of it, may have waited unseen */
    uint64_t came_ns;
    uint32_t in_flight_bytes; /* when it came */
    bool waited;              /* a frame has gone before it was looked at */
} flow_acks_t;

struct rf_flow {
    rf_err_t over;    /* RF_OK: it lives */
    uint32_t id_peer; /* params, see there */
    uint32_t id;
    bool watch;
    uint32_t send_slots, receive_slots;
    uint64_t next_ns;

    /* sending slots */
    rf_slot_t *send;
    uint64_t base, sent, end;
    uint64_t credit;        /* slots below this may be sent */
    uint64_t *acked, *lost; /* bits of [base, sent): acknowledged; to be sent again (never both) */
    uint64_t n_acked, n_lost;
    uint32_t frame_slots; /* of the largest frame in use */
    bool stalled;         /* by credit; counted once */

    /* frames under way */
    flow_packet_t *packets;
    uint64_t number;    /* of the next frame */
    uint64_t oldest;    /* no frame below is in flight */
    uint32_t in_flight; /* frames that are owed an acknowledgement ... */
    uint32_t in_flight_bytes;
    uint64_t acked_top;      /* largest number acknowledged, plus one; 0: none */
    uint64_t acked_before;   /* as `before` of the frame that said so */
    uint64_t last_owed_ns;   /* when the last frame that is owed an acknowledgement left */
    uint64_t asked_top;      /* number of the last that asked for it at once, plus one; 0: none */
    uint32_t want_ack_bytes; /* sent since the last WANT_ACK */
    uint32_t reorder;        /* FLOW_REORDER_MIN .. MAX */
    uint64_t loss_ns;        /* when a frame that was overtaken is lost; or RF_NEVER */
    flow_acks_t acks;        /* the last word that came of them, not looked at yet */

    /* receiving */
    rf_slot_t *receive;
    uint64_t taken, next, beyond;
    uint64_t credit_said;
    uint64_t *seen;       /* bits of [next, beyond) */
    uint64_t top;         /* largest number that came, plus one; 0: none */
    uint64_t top_ns;      /* when it came, or was seen ... */
    uint32_t top_late_ns; /* ... so long after it may have come */
    uint64_t came[FLOW_REPLAY_BITS / 64];
    uint64_t ack_ns;  /* when an acknowledgement is to leave: 0: now; RF_NEVER: none is due */
    uint32_t unacked; /* frames that are owed one */

    /* round trips and probes */
    uint64_t rtt_ns, rtt_var_ns; /* smoothed; 0: not measured yet */
    uint64_t path_last_ns;       /* the last one, without what the hosts may have spent */
    uint32_t probe_count;        /* in a row, without an answer */
    uint32_t probes;             /* to be sent now, whatever the windows say */
    bool ping;                   /* to be sent now, though there are no slots */
    uint64_t heard_ns;           /* when an authentic frame came last */
    uint64_t owed_ns;            /* since when the peer owes a sign of life; or RF_NEVER */
    uint64_t called_ns;          /* last transmit() */
    uint64_t deadline_ns, ack_delay_ns, probe_min_ns, delay_target_ns; /* params */

    /* path MTU */
    uint32_t frame_slots_safe, frame_slots_max;
    uint32_t mtu_tries;
    uint32_t large_lost; /* frames above the safe size, since one was acknowledged */
    bool mtu_in_flight;
    uint64_t mtu_ns; /* not before */

    /* congestion */
    uint64_t window;        /* bytes x 256 */
    uint64_t window_known;  /* up to here it grows fast: half of what there was before a silence */
    uint64_t rtt_least_ns;  /* of the path, when nothing waits; 0: not measured yet */
    uint64_t least_seen_ns; /* when a round trip was about that */
    uint64_t drain_end_ns;  /* until then only one frame at a time */
    uint64_t target_ns;     /* of the round trip */
    uint64_t
        scaling_ns; /* of it what small windows get, with the window and frame for which it was computed */
    uint64_t scaling_window;
    uint32_t scaling_slots;
    uint64_t decreased_ns;            /* when the window was last made smaller */
    uint64_t paced_ns;                /* window below a frame: not before */
    uint64_t round_end;               /* the round is over when this number is acknowledged */
    uint32_t round_acked, round_lost; /* bytes */

    rf_flow_stats_t stats;
    size_t memory_size; /* of this and the arrays behind it: one block */
    seal_sealer_t sealer;
    seal_opener_t opener;
};

/* flow_loss.c */

/* Looks at `flow->acks`, which are nothing then. */
void flow_loss_acks(rf_flow_t *flow);
/* All slots below `next` are acknowledged, where some were lost, or came out of order; base < next <= sent. */
void flow_loss_advance_over(rf_flow_t *flow, uint64_t next);
/* In each call of rf_flow_transmit(): somebody listens. */
void flow_loss_listened(rf_flow_t *flow, uint64_t now_ns);
/* Timers: what is lost by now, whether to probe, whether the peer is dead. */
void flow_loss_timers(rf_flow_t *flow, uint64_t now_ns);
/* The next of those timers. */
uint64_t flow_loss_next_ns(const rf_flow_t *flow);
/* The entry for frame `flow->number`, which is about to be sent; what it held before is given up. */
flow_packet_t *flow_loss_entry(rf_flow_t *flow, uint64_t now_ns);

/* flow_swift.c */

void flow_swift_init(rf_flow_t *flow);
/* By `acks` so many bytes were acknowledged; `rtt_ns`: a round trip without the peer's delay; 0: none was measured. */
void flow_swift_acked(rf_flow_t *flow, const flow_acks_t *acks, uint32_t bytes, uint64_t rtt_ns);
/* A frame was held for lost; or was not, after all. */
void flow_swift_lost(rf_flow_t *flow, uint32_t bytes);
void flow_swift_unlost(rf_flow_t *flow, uint32_t bytes);
/* Silence in spite of several probes. */
void flow_swift_silence(rf_flow_t *flow, uint64_t now_ns);
/* May a frame of this size leave now? If only pacing forbids it, `flow->paced_ns` says when it may. */
bool flow_swift_allows(const rf_flow_t *flow, uint32_t bytes, uint64_t now_ns);
void flow_swift_sent(rf_flow_t *flow, uint32_t bytes, uint64_t now_ns);

static inline flow_packet_t *flow_packet(const rf_flow_t *flow, uint64_t number)
{
    return &flow->packets[number % RF_FLOW_PACKETS_MAX];
}

static inline uint32_t flow_frame_bytes(uint64_t slots)
{
    return RF_FLOW_OVERHEAD + (uint32_t)slots * (uint32_t)sizeof(rf_slot_t);
}

/* All slots below `next` are acknowledged; base < next <= sent. */
static inline void flow_loss_advance(rf_flow_t *flow, uint64_t next)
{
    if (rf_likely(flow->n_acked == 0 && flow->n_lost == 0))
        flow->base = next;
    else
        flow_loss_advance_over(flow, next);
}

static inline uint64_t flow_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t flow_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
