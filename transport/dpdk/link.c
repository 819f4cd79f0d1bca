/*
 * Slots of a link.
 *
 * Out: a slot is copied into the ring here, where it stays until the peer's owner has taken it, and from there into the
 * driver's ring of shared memory. In: slots go from the driver's ring straight to the caller.
 *
 * Acknowledgement is asked for: the sender says WANT_ACK, a word among its slots, for each quarter of its ring, and when a
 * send is refused; the answer is a word with `delivered`, said when the owner has polled everything before the question.
 */
#include "transport/dpdk/internal.h"

#include "base/clock.h"
#include "transport/ring.h"

#include <stdlib.h>
#include <string.h>

#define ACK_SHARE     4 /* an acknowledgement is asked for each such part of the ring */
#define DISCARD_BATCH 32

bool dpdk_ring_grow(path_link_t *link, uint32_t size)
{
    return rf_ring_resize(&link->ring, &link->ring_size, size, link->acked, link->slots_head);
}

/* What slots flow over now; NULL: nothing. */
static inline rf_link_t *local_up(const path_link_t *link)
{
    bool up = path_lane_up(&link->lanes[PATH_LANE_SLOTS]);
    return rf_likely(up) ? dpdk_link_of(link)->paths[PATH_LANE_SLOTS].local : NULL;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static void word_say(path_link_t *link)
{
    path_word_t word;
    if (path_word_due(link, &word) && dpdk_path_say(&link->lanes[PATH_LANE_SLOTS], &word))
        path_word_said(link, &word);
}

/* Into the driver's ring, as far as it takes; one run of this ring at a time. */
static bool slots_put(path_link_t *link, rf_link_t *local)
{
    const rf_transport_t *shm = local->transport;
    bool put = false;
    while (link->posted != link->slots_head) {
        uint32_t at = (uint32_t)link->posted & (link->ring_size - 1);
        uint64_t n = link->slots_head - link->posted, run = link->ring_size - at;
        if (n > run) n = run;
        unsigned taken = shm->send(local, &link->ring[at], (unsigned)n);
        if (taken == 0) break;
        put = true;
        link->posted += taken;
    }
    if (link->posted > link->sent_max)
        link->sent_max = link->posted; /* it may be acknowledged from here on */
    return put;
}

void dpdk_push(path_link_t *link)
{
    rf_link_t *local = local_up(link);
    if (!local) return;
    if (slots_put(link, local)) {
        link->stats.flushes++;
        if (link->posted - link->ack_asked_at >= link->ring_size / ACK_SHARE) link->say |= PATH_WORD_WANT_ACK;
    }
    if (rf_unlikely(link->say || link->say_ack)) word_say(link);
    local->transport->flush(local);
}

rf_err_t dpdk_flush(rf_link_t *link_head)
{
    path_link_t *link = path_link_of(link_head);
    if (rf_unlikely(link_head->state == RF_LINK_STATE_DEAD || link->end_pending)) return path_link_over(link);
    if (link->slots_head != link->posted) dpdk_push(link);
    return RF_OK;
}

/* --- in ----------------------------------------------------------------------------------------------------- */

static void word_take(path_link_t *link, const rf_slot_t *slot)
{
    path_word_t word;
    if (!path_word_read(&link->lanes[PATH_LANE_SLOTS], slot, &word) || (word.flags & PATH_WORD_HELLO) ||
        word.placed) {
        path_link_wrong(link, "a word that makes no sense");
        return;
    }
    if (!path_link_acked(link, word.delivered)) {
        path_link_wrong(link, "an acknowledgement of slots never sent");
        return;
    }
    if ((word.flags & (PATH_WORD_WANT_ACK | PATH_WORD_CLOSE)) && word.count != link->accepted) {
        path_link_wrong(link, "a count of slots never sent");
        return;
    }
    if (word.flags & PATH_WORD_WANT_ACK) link->say_ack = true;
    if (word.flags & PATH_WORD_CLOSE) {
        link->close_at = word.count;
        path_link_attention(link);
    }
}

/* Takes words out of `n` slots that came; returns how many are left, in order. They are accepted then. */
static unsigned words_take(path_link_t *link, rf_slot_t *slots, unsigned n)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < n; i++) {
        if (rf_unlikely(rf_control_type(slots[i].control) >= RF_SLOT_TYPE_MEDIUM)) {
            if (!link->wrong) word_take(link, &slots[i]);
            continue;
        }
        if (rf_unlikely(link->wrong != NULL || link->close_at != RF_NEVER)) {
            if (!link->wrong) path_link_wrong(link, "slots behind its close");
            break;
        }
        if (kept != i) slots[kept] = slots[i];
        kept++;
        link->accepted++;
    }
    return kept;
}

static inline uint32_t left_of(const path_link_t *link)
{
    return (uint32_t)(link->accepted - link->delivered);
}

void dpdk_link_keep(path_link_t *base)
{
    dpdk_link_t *link = dpdk_link_of(base);
    rf_link_t *local = link->paths[PATH_LANE_SLOTS].local;
    if (base->lanes[PATH_LANE_SLOTS].stage != PATH_UP || base->user_closed) return;
    rf_slot_t slots[DISCARD_BATCH];
    uint32_t n, left = left_of(base);
    if (link->left_from > 0) memmove(link->left, link->left + link->left_from, left * sizeof *link->left);
    link->left_from = 0;
    while (!base->wrong && (n = local->transport->poll(local, slots, DISCARD_BATCH)) > 0) {
        if (left + n > RF_RING_SLOTS_MAX) { /* no ring takes so many */
            path_link_wrong(base, "more slots than there was room for");
            return;
        }
        rf_slot_t *more = realloc(link->left, (left + n) * sizeof *more);
        if (!more) return; /* what is not taken comes again */
        link->left = more;
        n = words_take(base, slots, n);
        memcpy(link->left + left, slots, n * sizeof *slots);
        left += n;
    }
}

static void discard_all(path_link_t *base, rf_link_t *local)
{
    rf_slot_t slots[DISCARD_BATCH];
    unsigned n;
    while (!base->wrong && (n = local->transport->poll(local, slots, DISCARD_BATCH)) > 0) {
        words_take(base, slots, n);
        base->delivered = base->accepted;
    }
}

void dpdk_link_discard(dpdk_link_t *link)
{
    path_link_t *base = &link->base;
    rf_link_t *local = local_up(base);
    if (!local) return;
    discard_all(base, local);
    local->transport->arm(local); /* nobody else does, and there may come more */
    rf_full_fence();
    if (local->transport->ready(local)) discard_all(base, local); /* it came before the driver saw it armed */
}

/* What ended paths have left, oldest first. */
static unsigned serve_left(dpdk_link_t *link, rf_slot_t *out, unsigned max)
{
    path_link_t *base = &link->base;
    if (rf_likely(base->delivered == base->accepted) || base->head.state == RF_LINK_STATE_CONNECTING)
        return 0;
    unsigned n = left_of(base) < max ? left_of(base) : max;
    memcpy(out, link->left + link->left_from, n * sizeof *out);
    link->left_from += n;
    base->delivered += n;
    return n;
}

static unsigned serve(dpdk_link_t *link, rf_slot_t *out, unsigned max)
{
    path_link_t *base = &link->base;
    unsigned n = serve_left(link, out, max);
    rf_link_t *local = local_up(base);
    if (!local || n == max) return n;
    if (rf_unlikely(base->attention) && (base->up_due || base->wrong)) return n; /* settling comes first */
    unsigned came = local->transport->poll(local, out + n, max - n);
    if (came == 0) return n;
    unsigned kept = words_take(base, out + n, came);
    base->delivered += kept;
    if (rf_unlikely(base->say_ack || base->say)) dpdk_push(base);
    return n + kept;
}

/* A path in the making, bulk, and what the owner is to be told. */
static unsigned attend(dpdk_link_t *link, rf_slot_t *out, unsigned max)
{
    path_link_t *base = &link->base;
    path_lane_t *lane = &base->lanes[PATH_LANE_SLOTS];
    unsigned n = 0;
    if (lane->stage != PATH_NONE && lane->stage != PATH_UP) dpdk_path_hear(lane);
    if (base->bulk && !base->buried) {
        dpdk_bulk_take(link, DISCARD_BATCH);
        n = dpdk_bulk_notified(link, out, max);
    }
    if (base->attention && n == 0 && !base->buried) path_link_settle(base);
    return n;
}

unsigned dpdk_poll(rf_link_t *link_head, rf_slot_t *out, unsigned max)
{
    path_link_t *base = path_link_of(link_head);
    dpdk_link_t *link = dpdk_link_of(base);
    path_endpoint_t *ep = path_endpoint_of(base);
    if (base->fenced || max == 0) return 0;
    path_endpoint_enter(ep);
    unsigned n = serve(link, out, max);
    if (n < max && (base->attention || base->bulk || base->lanes[PATH_LANE_SLOTS].stage != PATH_UP))
        n += attend(link, out + n, n ? 0 : max);
    if (n == 0 && !base->buried && !base->fenced && (base->end_pending || base->close_at != RF_NEVER))
        path_link_settle(base);
    path_endpoint_leave(ep);
    return n;
}

void dpdk_arm(rf_link_t *link_head)
{
    dpdk_link_t *link = dpdk_link_of(path_link_of(link_head));
    for (unsigned i = 0; i < PATH_LANES; i++) {
        rf_link_t *local = link->paths[i].local;
        if (local) local->transport->arm(local);
    }
}

void dpdk_disarm(rf_link_t *link_head)
{
    dpdk_link_t *link = dpdk_link_of(path_link_of(link_head));
    for (unsigned i = 0; i < PATH_LANES; i++) {
        rf_link_t *local = link->paths[i].local;
        if (local) local->transport->disarm(local);
    }
}

bool dpdk_ready(rf_link_t *link_head)
{
    const path_link_t *base = path_link_of(link_head);
    if (base->fenced) return false;
    for (unsigned i = 0; i < PATH_LANES; i++) {
        rf_link_t *local = dpdk_link_of(base)->paths[i].local;
        if (local && local->transport->ready(local)) return true;
    }
    return !path_link_served(base) || base->attention || path_endpoint_of(base)->attention ||
           base->end_pending;
}

void dpdk_stats(rf_link_t *link, rf_link_stats_t *out)
{
    path_link_stats(path_link_of(link), out);
}
