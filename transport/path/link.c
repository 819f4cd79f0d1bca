/*
 * Slots of a link, as far as they do not depend on what they go over; and what its owner is told.
 *
 * A slot is copied into the ring, where it stays until the peer's owner has taken it: a path that ends takes nothing with it,
 * and the next goes on from what the peer says has come.
 */
#include "transport/path/path.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/ring.h"

#include <stdlib.h>
#include <string.h>

/* --- links -------------------------------------------------------------------------------------------------- */

rf_err_t path_link_size(path_link_t *link, const rf_link_params_t *params)
{
    uint32_t slots, slots_max;
    rf_err_t err = rf_ring_sizes(params, &slots, &slots_max);
    if (err != RF_OK) return err;
    if (slots > link->ring_size && !path_medium_of(link)->ring_grow(link, slots)) return RF_ERR_NO_MEMORY;
    link->slots_max = slots_max > link->ring_size ? slots_max : link->ring_size;
    return RF_OK;
}

path_link_t *path_link_new(path_endpoint_t *ep, const rf_link_params_t *params)
{
    static const rf_link_params_t defaults;
    if (!params) params = &defaults;
    path_link_t *link = calloc(1, ep->medium->link_size);
    if (!link) return NULL;
    link->head.transport = ep->medium->transport;
    link->head.endpoint = &ep->head;
    link->head.user = params->user;
    link->head.state = RF_LINK_STATE_CONNECTING;
    link->self = ep->self;
    link->dead_ns = link->close_at = RF_NEVER;
    for (unsigned i = 0; i < PATH_LANES; i++) {
        link->lanes[i].link = link;
        link->lanes[i].number = i;
        link->lanes[i].offer_ns = link->lanes[i].overdue_ns = RF_NEVER;
        link->lanes[i].backoff_ns = PATH_BACKOFF_NS_MIN;
    }
    link->control_in = calloc(1, sizeof *link->control_in);
    rf_err_t err = link->control_in ? path_link_size(link, params) : RF_ERR_NO_MEMORY;
    if (err == RF_OK && ep->medium->link_init) err = ep->medium->link_init(link);
    if (err != RF_OK) {
        ep->medium->link_free(link);
        free(link->control_in);
        free(link);
        return NULL;
    }
    link->next = ep->links;
    if (ep->links) ep->links->prev = link;
    ep->links = link;
    ep->n_links++;
    return link;
}

void path_link_stats(const path_link_t *link, rf_link_stats_t *out)
{
    *out = link->stats;
    out->slots_sent = link->slots_head;
    out->slots_received = link->delivered;
    out->ring_slots_send = out->ring_slots_receive = link->ring_size;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

void path_link_ask(path_link_t *link)
{
    if (link->ack_asked_at > link->acked || link->slots_head == link->acked) return;
    link->say |= PATH_WORD_WANT_ACK;
    path_medium_of(link)->push(link);
}

unsigned path_room(rf_link_t *link_head, unsigned want)
{
    path_link_t *link = path_link_of(link_head);
    if ((link_head->state != RF_LINK_STATE_UP && link_head->state != RF_LINK_STATE_BROKEN) ||
        link->end_pending)
        return 0;
    uint32_t used = (uint32_t)(link->slots_head - link->acked);
    uint32_t size = rf_ring_size_for(link->ring_size, link->slots_max, used, want);
    if (size > link->ring_size && !path_medium_of(link)->ring_grow(link, size) &&
        rf_log_level() >= RF_LOG_DEBUG)
        rf_log(RF_LOG_DEBUG, "%s: a ring does not grow to %u slots now", path_name_of(link), size);
    unsigned free_slots = path_ring_free(link);
    if (free_slots < want) {
        link->room_wanted = want < link->ring_size ? want : link->ring_size;
        path_link_ask(link);
    }
    return free_slots;
}

unsigned path_send(rf_link_t *link_head, const rf_slot_t *slots, unsigned n)
{
    path_link_t *link = path_link_of(link_head);
    if (rf_unlikely(link_head->state != RF_LINK_STATE_UP)) {
        if (link_head->state != RF_LINK_STATE_BROKEN || link->end_pending) return 0;
    }
    if (rf_unlikely(n > path_ring_free(link))) {
        unsigned room = link_head->transport->room(link_head, n);
        if (room < n) {
            link->stats.full++;
            n = room;
        }
    }
    rf_ring_put(link->ring, link->ring_size, link->slots_head, slots, n);
    link->slots_head += n;
    return n;
}

rf_err_t path_link_over(const path_link_t *link)
{
    return link->fenced ? RF_ERR_FENCED : link->end_err == RF_ERR_CLOSED ? RF_ERR_CLOSED : RF_ERR_PEER_DEAD;
}

bool path_link_acked(path_link_t *link, uint64_t delivered)
{
    if (delivered > link->sent_max) return false;
    if (delivered <= link->acked) return true;
    link->acked = delivered;
    if (link->posted < delivered) link->posted = delivered;
    if (link->room_wanted == 0) return true;
    if (path_ring_free(link) >= link->room_wanted) {
        link->room_wanted = 0;
        link->room_due = true;
        path_link_attention(link);
    } else {
        path_link_ask(link);
    }
    return true;
}

bool path_link_resume(path_link_t *link, uint64_t peer_accepted)
{
    if (peer_accepted < link->acked || peer_accepted > link->sent_max) return false;
    link->posted = peer_accepted;
    link->stats.retransmitted += link->sent_max - peer_accepted;
    link->ack_asked_at = link->acked;
    link->say = link->user_closed ? PATH_WORD_CLOSE : 0;
    link->say_ack = link->delivered != 0;
    if (link->room_wanted != 0) link->say |= PATH_WORD_WANT_ACK;
    link->was_up = link->up_due = true;
    if (!link->user_closed) link->dead_ns = RF_NEVER;
    path_medium_of(link)->resume(link);
    path_medium_of(link)->push(link);
    return true;
}

/* --- words -------------------------------------------------------------------------------------------------- */

bool path_word_read(const path_lane_t *lane, const rf_slot_t *slot, path_word_t *out)
{
    const path_medium_t *medium = path_medium_of(lane->link);
    memcpy(out, slot->payload, sizeof *out);
    bool zero = true;
    for (unsigned i = 0; i < sizeof out->reserved / sizeof *out->reserved; i++)
        zero = zero && out->reserved[i] == 0;
    return rf_control_type(slot->control) == medium->word &&
           rf_control_length(slot->control) == sizeof *out && zero && !(out->flags & ~medium->word_flags) &&
           out->generation == lane->generation;
}

bool path_word_due(const path_link_t *link, path_word_t *out)
{
    uint32_t flags = link->say;
    if (link->posted != link->slots_head) flags &= ~PATH_WORD_CLOSE; /* not before the last slot */
    if (flags == 0 && !link->say_ack) return false;
    *out = (path_word_t){.flags = flags,
                         .generation = link->lanes[PATH_LANE_SLOTS].generation,
                         .delivered = link->delivered,
                         .count = link->posted};
    return true;
}

void path_word_said(path_link_t *link, const path_word_t *word)
{
    link->say &= ~word->flags;
    link->say_ack = false;
    if (word->flags & PATH_WORD_WANT_ACK)
        link->ack_asked_at = link->posted; /* what is posted later is asked for later */
}

/* --- what the owner is told --------------------------------------------------------------------------------- */

static void wrong_settle(path_link_t *link)
{
    link->stats.protocol_errors++;
    if (rf_log_once_per(&path_endpoint_of(link)->log_garbage_ns, PATH_LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "%s: the peer at %s sent %s; its link ends", path_name_of(link),
               link->address_text, link->wrong);
    link->delivered = link->accepted;
    path_link_end(link, RF_ERR_PROTOCOL);
}

void path_link_settle(path_link_t *link)
{
    link->attention = false;
    if (link->wrong && !link->end_pending && link->head.state != RF_LINK_STATE_DEAD) {
        wrong_settle(link);
        return;
    }
    for (unsigned i = PATH_LANES; i > 0; i--) { /* bulk first: what it says may end the link */
        if (link->lanes[i - 1].failed) path_medium_of(link)->failed(&link->lanes[i - 1]);
        if (link->buried) return;
    }
    if (link->up_due && link->head.state != RF_LINK_STATE_DEAD) {
        link->up_due = false;
        const rf_hello_t peer = link->head.peer;
        link->head.state = RF_LINK_STATE_UP;
        path_link_event(link, RF_LINK_UP, RF_OK, &peer, 0);
        if (link->buried) return;
    }
    if (link->room_due) {
        link->room_due = false;
        path_link_event(link, RF_LINK_ROOM, RF_OK, NULL, 0);
        if (link->buried) return;
    }
    if (link->posted != link->slots_head || link->say || link->say_ack) path_medium_of(link)->push(link);
    if (link->bulk) path_bulk_settle(link);
    if (link->buried) return;
    if (link->close_at != RF_NEVER && link->close_at == link->delivered && path_link_served(link)) {
        path_link_closed(link);
        return;
    }
    if (link->end_pending) path_link_end_settle(link);
}
