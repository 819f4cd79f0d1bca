/* Slots of a simulated link: out of a ring into packets, and out of packets into the receiver's ring. */
#include "transport/sim/internal.h"

#include "transport/ring.h"

#include <stdlib.h>
#include <string.h>

#define SAY_EVERY 16 /* slots taken that the peer is told of without being asked */

rf_err_t sim_link_size(sim_link_t *link, const rf_link_params_t *params)
{
    uint32_t slots, slots_max;
    rf_err_t err = rf_ring_sizes(params, &slots, &slots_max);
    if (err != RF_OK) return err;
    if (slots > link->ring_size &&
        !rf_ring_resize(&link->ring, &link->ring_size, slots, link->acked, link->slots_head))
        return RF_ERR_NO_MEMORY;
    link->slots_max = slots_max > link->ring_size ? slots_max : link->ring_size;
    return RF_OK;
}

sim_link_t *sim_link_new(sim_endpoint_t *ep, const rf_link_params_t *params, rf_err_t *err)
{
    static const rf_link_params_t defaults;
    if (!params) params = &defaults;
    *err = RF_ERR_LIMIT;
    if (ep->n_links == SIM_LINKS_PER_ENDPOINT_MAX) return NULL;
    *err = RF_ERR_NO_MEMORY;
    sim_link_t *link = calloc(1, sizeof *link);
    if (!link) return NULL;
    *err = sim_link_size(link, params);
    if (*err == RF_OK && !rf_ring_resize(&link->rx, &link->rx_size, RF_RING_SLOTS_MIN, 0, 0))
        *err = RF_ERR_NO_MEMORY;
    if (*err != RF_OK) {
        free(link->ring);
        free(link);
        return NULL;
    }
    link->head.transport = &rf_transport_sim;
    link->head.endpoint = &ep->head;
    link->head.user = params->user;
    link->head.state = RF_LINK_STATE_CONNECTING;
    link->hello = params->hello ? *params->hello : ep->self;
    link->timer_ns = RF_NEVER;
    link->next = ep->links;
    if (ep->links) ep->links->prev = link;
    ep->links = link;
    ep->n_links++;
    return link;
}

sim_packet_t *sim_link_packet(sim_link_t *link, sim_type_t type)
{
    sim_endpoint_t *ep = sim_endpoint_of(link);
    sim_packet_t *packet = sim_packet_take(ep->network);
    if (!packet) return NULL;
    packet->type = (uint8_t)type;
    packet->from = ep->place;
    packet->to = link->peer;
    packet->link = link->id;
    packet->to_dialer = !link->dialer;
    packet->received = link->rx_received;
    packet->delivered = link->delivered;
    packet->chunks_received = link->bulk ? link->bulk->received : 0;
    link->delivered_said = link->delivered;
    link->say = false;
    return packet;
}

bool sim_link_waits(const sim_link_t *link)
{
    if (link->head.state == RF_LINK_STATE_DEAD || link->end_pending) return false;
    if (link->head.state == RF_LINK_STATE_CONNECTING) return link->dialer;
    return link->head.state == RF_LINK_STATE_BROKEN || link->received < link->sent ||
           link->room_wanted != 0 || link->user_closed ||
           (link->bulk && link->bulk->acked < link->bulk->head);
}

/* Sends what has not been sent, or says what the peer has to know. */
void sim_link_transmit(sim_link_t *link)
{
    rf_sim_network_t *network = sim_endpoint_of(link)->network;
    if (link->head.state != RF_LINK_STATE_UP) return;
    while (link->sent < link->slots_head) {
        sim_packet_t *packet = sim_link_packet(link, SIM_DATA);
        if (!packet) return;
        uint64_t n = link->slots_head - link->sent;
        packet->n = (uint16_t)(n < SIM_PACKET_SLOTS ? n : SIM_PACKET_SLOTS);
        packet->sequence = link->sent;
        packet->want = link->room_wanted != 0;
        for (uint16_t i = 0; i < packet->n; i++)
            packet->slots[i] = link->ring[(link->sent + i) & (link->ring_size - 1)];
        if (link->sent < link->sent_max) link->stats.retransmitted += packet->n;
        link->sent += packet->n;
        if (link->sent > link->sent_max) link->sent_max = link->sent;
        link->stats.flushes++;
        sim_packet_send(network, packet);
    }
    if (link->user_closed) {
        sim_packet_t *packet = sim_link_packet(link, SIM_CLOSE);
        if (!packet) return;
        packet->sequence = link->slots_head;
        sim_packet_send(network, packet);
    } else if (link->say) {
        sim_packet_t *packet = sim_link_packet(link, SIM_DATA);
        if (!packet) return;
        packet->sequence = link->sent;
        link->stats.acks_explicit++;
        sim_packet_send(network, packet);
    }
}

void sim_link_take_data(sim_link_t *link, const sim_packet_t *packet)
{
    if (packet->n > 0 || packet->want) link->say = true;
    if (packet->sequence > link->rx_received) return; /* out of order: it comes again */
    for (uint16_t i = 0; i < packet->n; i++) {
        if (packet->sequence + i < link->rx_received) continue;
        if (link->rx_received - link->delivered == link->rx_size &&
            (link->rx_size == RF_RING_SLOTS_MAX ||
             !rf_ring_resize(&link->rx, &link->rx_size, link->rx_size * 2, link->delivered,
                             link->rx_received)))
            return;
        link->rx[link->rx_received++ & (link->rx_size - 1)] = packet->slots[i];
    }
}

static uint32_t ring_free(const sim_link_t *link)
{
    return link->ring_size - (uint32_t)(link->slots_head - link->acked);
}

void sim_link_take_counts(sim_link_t *link, const sim_packet_t *packet)
{
    if (packet->received > link->received && packet->received <= link->sent_max) {
        link->received = packet->received;
        if (link->sent < link->received) link->sent = link->received;
    }
    if (packet->delivered > link->acked && packet->delivered <= link->received)
        link->acked = packet->delivered;
    sim_bulk_acked(link, packet->chunks_received);
    if (link->buried) return;
    if (link->room_wanted != 0 && ring_free(link) >= link->room_wanted) {
        link->room_wanted = 0;
        sim_event(link, RF_LINK_ROOM, RF_OK, 0);
    }
}

unsigned sim_room(rf_link_t *link_head, unsigned want)
{
    sim_link_t *link = sim_link_of(link_head);
    bool takes = link_head->state == RF_LINK_STATE_UP || link_head->state == RF_LINK_STATE_BROKEN;
    if (!takes || link->end_pending || link->peer_closed) return 0;
    uint32_t used = (uint32_t)(link->slots_head - link->acked);
    uint32_t size = rf_ring_size_for(link->ring_size, link->slots_max, used, want);
    if (size > link->ring_size)
        rf_ring_resize(&link->ring, &link->ring_size, size, link->acked,
                       link->slots_head); /* else it stays as it is */
    unsigned room = ring_free(link);
    if (room < want) {
        link->room_wanted = want < link->ring_size ? want : link->ring_size;
        sim_link_timer(link);
    }
    return room;
}

unsigned sim_send(rf_link_t *link_head, const rf_slot_t *slots, unsigned n)
{
    sim_link_t *link = sim_link_of(link_head);
    unsigned room = sim_room(link_head, n);
    if (room < n) {
        link->stats.full++;
        n = room;
    }
    rf_ring_put(link->ring, link->ring_size, link->slots_head, slots, n);
    link->slots_head += n;
    return n;
}

rf_err_t sim_flush(rf_link_t *link_head)
{
    sim_link_t *link = sim_link_of(link_head);
    if (link_head->state == RF_LINK_STATE_DEAD || link->end_pending)
        return link->fenced                     ? RF_ERR_FENCED
               : link->end_err == RF_ERR_CLOSED ? RF_ERR_CLOSED
                                                : RF_ERR_PEER_DEAD;
    if (link->sent < link->slots_head && !sim_inert(sim_endpoint_of(link))) {
        sim_link_transmit(link);
        sim_link_timer(link);
    }
    return RF_OK;
}

unsigned sim_poll(rf_link_t *link_head, rf_slot_t *out, unsigned max)
{
    sim_link_t *link = sim_link_of(link_head);
    sim_endpoint_t *ep = sim_endpoint_of(link);
    if (sim_inert(ep) || link->fenced) return 0;
    sim_enter(ep);
    sim_inbox(ep);
    unsigned n = 0;
    if (!link->buried && !link->fenced) {
        while (n < max && link->delivered < link->rx_received)
            out[n++] = link->rx[link->delivered++ & (link->rx_size - 1)];
        sim_bulk_t *bulk = link->bulk;
        while (n < max && bulk && bulk->notify_head != bulk->notify_tail)
            out[n++] = bulk->notify[bulk->notify_head++ % SIM_WRITES_MAX];
        if (link->delivered - link->delivered_said >= SAY_EVERY) {
            link->say = true;
            sim_link_transmit(link);
        }
        if (n == 0) sim_link_settle(link);
    }
    sim_leave(ep);
    return n;
}

void sim_arm(rf_link_t *link)
{
    (void)link;
} /* nobody sleeps in virtual time */

void sim_disarm(rf_link_t *link)
{
    (void)link;
}

bool sim_ready(rf_link_t *link_head)
{
    sim_link_t *link = sim_link_of(link_head);
    sim_endpoint_t *ep = sim_endpoint_of(link);
    if (sim_inert(ep) || link->fenced) return false;
    for (const sim_packet_t *packet = ep->inbox; packet; packet = packet->next) {
        if (packet->link == link->id && packet->to_dialer == link->dialer) return true;
    }
    return link->delivered < link->rx_received || link->up_due || link->broken_due || link->end_pending ||
           link->closed_pending || (link->bulk && link->bulk->notify_head != link->bulk->notify_tail);
}

void sim_stats(rf_link_t *link_head, rf_link_stats_t *out)
{
    sim_link_t *link = sim_link_of(link_head);
    link->stats.slots_sent = link->slots_head;
    link->stats.slots_received = link->delivered;
    link->stats.ring_slots_send = link->ring_size;
    link->stats.ring_slots_receive = link->rx_size;
    *out = link->stats;
}
