/*
 * A flow: a reliable, ordered, authenticated path of slots between two link drivers, over frames that may be lost,
 * repeated, reordered, delayed, forged or replayed. It is the whole protocol of transport/dpdk and nothing else: no
 * sockets, no clock, no allocation after rf_flow_open(); time and frames come in as arguments, so that the same code runs
 * in the link driver and on the virtual network of tests/transport/dpdk_flow_*.c.
 *
 *   owner of the slots                      flow                                  port
 *   send_span, send_commit  ->  send window     ->  frames  ->  transmit  ->  bytes behind UDP
 *   take_span, take_commit  <-  receive window  <-  checks  <-  receive   <-  bytes behind UDP
 *
 * Invariants
 *   - Slots are numbered from 0 on each direction; what take_span shows is each slot once, in that order.
 *   - A frame's number is never used twice: it is the nonce of its seal. What is sent again goes in a new frame.
 *   - A slot stays in the send window until the peer's flow has it; the receive window has room for all that was credited.
 *   - A frame that does not hold the key, was seen before, or is not whole changes nothing but a counter.
 *   - All memory is bounded by the two windows and RF_FLOW_PACKETS_MAX, and taken by rf_flow_open().
 *
 * What a flow's acknowledgement is not: end to end. It frees the copy in this driver; the links at both ends keep theirs
 * until the link at the other end has taken the slots, since drivers may die (ARCHITECTURE.md, "Links").
 *
 * Sources: loss detection and probes RFC 9002 (QUIC); congestion control Swift (Kumar and others, SIGCOMM 2020), losses
 * weighed as DCTCP weighs marks (Alizadeh and others, SIGCOMM 2010), the path's least round trip as BBR looks for it;
 * path MTU RFC 8899. The frame, byte by byte, is in
 * transport/dpdk/flow_format.h and doc/protocol.md.
 *
 * Threads: a flow belongs to one thread. Time: any monotonic clock in nanoseconds that never runs backwards; all calls of
 * a flow use the same one.
 */
#ifndef RF_TRANSPORT_DPDK_FLOW_H
#define RF_TRANSPORT_DPDK_FLOW_H

#include "base/clock.h"
#include "base/error.h"
#include "transport/dpdk/seal.h"
#include "transport/slot.h"

#define RF_FLOW_FRAME_MIN                                                                                    \
    1024u /* smallest rf_flow_params.frame_safe: everything fits a path of any MTU in use */
#define RF_FLOW_FRAME_MAX   9216u  /* largest rf_flow_params.frame_max */
#define RF_FLOW_SLOTS_MIN   64u    /* smallest and ... */
#define RF_FLOW_SLOTS_MAX   32768u /* ... largest window, as of rings (transport/transport.h) */
#define RF_FLOW_PACKETS_MAX 1024u  /* frames that are remembered until they are acknowledged */
#define RF_FLOW_OVERHEAD    64u    /* bytes of a frame that are not slots: head and tag */

typedef struct rf_flow rf_flow_t;

typedef struct rf_flow_params {
    uint32_t id;      /* in frames that come; drawn by this driver, by which it finds the flow */
    uint32_t id_peer; /* in frames that go: what the peer drew */
    bool dialer;      /* which direction is whose: true on exactly one side */
    rf_seal_mode_t seal;
    uint8_t secret[RF_SEAL_SECRET]; /* of this life of the flow, the same on both sides: rf_seal_secret() */

    uint32_t frame_max; /* bytes behind UDP that the port takes, up to RF_FLOW_FRAME_MAX */
    uint32_t
        frame_safe; /* bytes that the path surely takes; 0: RF_FLOW_FRAME_MIN. Larger frames are tried first. */
    uint32_t send_slots,
        receive_slots; /* windows, powers of two from RF_FLOW_SLOTS_MIN to RF_FLOW_SLOTS_MAX */
    uint32_t credit; /* slots the peer takes before it has said anything: its receive_slots, from its offer */

    /* A peer that owes an answer and is silent for so long is dead. */
    uint64_t deadline_ns;
    /* An acknowledgement waits so long for a frame to ride on; 0: 200 us. The same on both sides. */
    uint64_t ack_delay_ns;
    /* The least wait for an acknowledgement before a probe; 0: 100 us. */
    uint64_t probe_min_ns;
    /* Round trip that is aimed at on a busy path; on a longer path half of it may queue. 0: 50 us. */
    uint64_t delay_target_ns;
} rf_flow_params_t;

typedef struct rf_flow_stats {
    /* counts */
    uint64_t slots_sent;                   /* that left for the first time */
    uint64_t slots_resent;                 /* that left again */
    uint64_t slots_received;               /* that came for the first time */
    uint64_t slots_repeated;               /* that had come before */
    uint64_t frames_sent, frames_received; /* the latter: authentic and new */
    uint64_t acks_sent;                    /* frames without slots that only acknowledge */
    uint64_t probes_sent;                  /* after silence of the peer */
    uint64_t frames_lost;                  /* held for lost ... */
    uint64_t frames_spurious;              /* ... and acknowledged later: reordered or late */
    uint64_t credit_stalls;                /* times that the peer's credit ran out */
    uint64_t bytes_sent, bytes_received;   /* behind UDP */
    /* frames that changed nothing */
    uint64_t forged;    /* the seal does not fit */
    uint64_t replayed;  /* of a number that has come */
    uint64_t stale;     /* of a number that is too old, or too far ahead, to be checked */
    uint64_t truncated; /* not as long as their head says, or no frame of this format at all */
    /* now */
    uint64_t rtt_ns, rtt_var_ns, rtt_min_ns; /* 0: not measured yet */
    uint32_t window_bytes;                   /* of congestion control; below frame_bytes: paced */
    uint32_t in_flight_bytes,
        frame_bytes; /* sent and neither acknowledged nor lost; largest frame now in use */
    uint32_t slots_waiting, slots_unacked; /* in the send window: never sent; sent and not acknowledged */
} rf_flow_stats_t;

/*
 * Makes a flow. The only call that allocates (with GnuTLS as the seal also each new key, once in 2^20 frames); `params` is the
 * caller's again.
 * RF_ERR_INVALID: a parameter is out of its range; RF_ERR_NO_MEMORY; RF_ERR_NOT_SUPPORTED: no cipher.
 */
rf_err_t rf_flow_open(const rf_flow_params_t *params, uint64_t now_ns, rf_flow_t **out);
/* Forgets the flow and its keys. NULL is allowed. */
void rf_flow_close(rf_flow_t *flow);

/*
 * Sending: `*slots` becomes where the next slots are to be written, straight into the window; the return value is how many
 * (0: full), fewer than there is room for where the window wraps. commit(n) hands the first n over; contents are not looked
 * at. Room comes back as the peer's flow acknowledges; there is no event, look again after receive().
 */
unsigned rf_flow_send_span(rf_flow_t *flow, rf_slot_t **slots);
void rf_flow_send_commit(rf_flow_t *flow, unsigned n);

/*
 * Taking: `*slots` becomes where the next slots stand, in order; the return value is how many (0: none). They stay valid,
 * and the same, until commit(n) gives the first n back, which is what grants the peer credit. Bytes are those of the
 * peer's slots, whatever they are: who believes them has to check control words.
 */
unsigned rf_flow_take_span(rf_flow_t *flow, const rf_slot_t **slots);
/* True: there is more. */
bool rf_flow_take_commit(rf_flow_t *flow, unsigned n);

/*
 * What came behind UDP for this flow (rf_frame_flow() finds it). `frame` may be overwritten (it is deciphered in place) and
 * is the caller's. Slots are copied into the window.
 *   RF_OK             taken in (also: nothing new in it)
 *   RF_ERR_TRUNCATED  not whole;  RF_ERR_AUTH  forged;  RF_ERR_EXISTS  replayed or stale: nothing changed but a counter
 *   RF_ERR_PROTOCOL   authentic, but no flow may say that: nothing of it is taken, and the flow is over
 *   any other         the flow is over: rf_flow_state()
 */
rf_err_t rf_flow_receive(rf_flow_t *flow, uint8_t *frame, size_t size, uint64_t now_ns);
/* The same of a frame that came between `since_ns`, when this host last looked, and `now_ns`. What of a round trip may have been spent
 * so, waiting for a host that was busy or off its CPU, is no sign of a busy path. */
rf_err_t rf_flow_receive_since(rf_flow_t *flow, uint8_t *frame, size_t size, uint64_t since_ns,
                               uint64_t now_ns);

/*
 * Writes the next frame, sealed, to `out`, which has room for `max` >= frame_max bytes at any alignment, and returns its
 * size; 0: nothing is to be sent now. A frame that was returned counts as sent: a port that cannot take it loses it, so
 * ask only when the port has room. Fairness between flows is the caller's: one frame a flow in turn.
 */
size_t rf_flow_transmit(rf_flow_t *flow, uint8_t *out, size_t max, uint64_t now_ns);

/*
 * When to call transmit() again at the latest, though nothing else happens: 0: now; RF_NEVER: only after a commit or a
 * receive. Cheap: a load.
 */
uint64_t rf_flow_next_ns(const rf_flow_t *flow);

/*
 * While `on`, somebody waits for the peer: after a quarter of the deadline in silence it is asked for a sign of life, so
 * that its death is noticed though nothing is sent. Off at first; a flow that is idle and not watched sends nothing.
 */
void rf_flow_watch(rf_flow_t *flow, bool on, uint64_t now_ns);

/*
 * RF_OK; or why the flow is over: RF_ERR_PEER_DEAD (silent until the deadline), RF_ERR_PROTOCOL, RF_ERR_LIMIT (frame numbers
 * are used up: make a new flow, after 2^56 frames). A flow that is over sends and takes in nothing; what has come
 * before can still be taken.
 */
rf_err_t rf_flow_state(const rf_flow_t *flow);

/* True when all slots that were committed are acknowledged by the peer's flow. */
bool rf_flow_drained(const rf_flow_t *flow);

void rf_flow_stats(const rf_flow_t *flow, rf_flow_stats_t *out);

/* The flow id of a frame, from its clear first bytes; false: too short to have one. */
static inline bool rf_frame_flow(const uint8_t *frame, size_t size, uint32_t *id)
{
    if (size < RF_FLOW_OVERHEAD) return false;
    *id = (uint32_t)frame[0] | (uint32_t)frame[1] << 8 | (uint32_t)frame[2] << 16 | (uint32_t)frame[3] << 24;
    return true;
}

#endif
