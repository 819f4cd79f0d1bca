/* Virtual time and its events, and what happens to a packet on its way. Every draw comes from the one generator. */
#include "transport/sim/internal.h"

#include <stdlib.h>
#include <string.h>

#define PPM 1000000u

static rf_sim_path_t *path_of(const rf_sim_network_t *network, unsigned from, unsigned to)
{
    return &network->paths[from * RF_SIM_ENDPOINTS_MAX + to];
}

rf_err_t rf_sim_network_create(uint64_t seed, const rf_sim_path_t *path, rf_sim_network_t **out)
{
    rf_sim_network_t *network = calloc(1, sizeof *network);
    if (!network) return RF_ERR_NO_MEMORY;
    const size_t paths = (size_t)RF_SIM_ENDPOINTS_MAX * RF_SIM_ENDPOINTS_MAX;
    network->room_events = SIM_PACKETS_MAX * 2;
    network->paths = calloc(paths, sizeof *network->paths);
    network->last_at_ns = calloc(paths, sizeof *network->last_at_ns);
    network->ended = calloc(SIM_LINKS_MAX / 8, 1);
    network->events = calloc(network->room_events, sizeof *network->events);
    if (!network->paths || !network->last_at_ns || !network->ended || !network->events) {
        rf_sim_network_destroy(network);
        return RF_ERR_NO_MEMORY;
    }
    rf_prng_seed(&network->prng, seed);
    rf_sim_path_set(network, NULL, NULL, path);
    *out = network;
    return RF_OK;
}

void rf_sim_network_destroy(rf_sim_network_t *network)
{
    for (uint32_t i = 0; i < network->n_events; i++) free(network->events[i].packet);
    while (network->free_packets) {
        sim_packet_t *packet = network->free_packets;
        network->free_packets = packet->next;
        free(packet);
    }
    free(network->events);
    free(network->ended);
    free(network->last_at_ns);
    free(network->paths);
    free(network);
}

uint64_t rf_sim_now(const rf_sim_network_t *network)
{
    return network->now_ns;
}
uint64_t rf_sim_digest(const rf_sim_network_t *network)
{
    return network->digest;
}
void rf_sim_counts(const rf_sim_network_t *network, rf_sim_counts_t *out)
{
    *out = network->counts;
}

/* ---- the heap ---- */

static bool before(const sim_event_t *a, const sim_event_t *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static bool push(rf_sim_network_t *network, sim_event_t event)
{
    if (network->n_events == network->room_events) return false;
    event.order = network->orders++;
    uint32_t at = network->n_events++;
    while (at > 0 && before(&event, &network->events[(at - 1) / 2])) {
        network->events[at] = network->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    network->events[at] = event;
    return true;
}

static sim_event_t pop(rf_sim_network_t *network)
{
    sim_event_t first = network->events[0], last = network->events[--network->n_events];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= network->n_events) break;
        if (child + 1 < network->n_events && before(&network->events[child + 1], &network->events[child]))
            child++;
        if (!before(&network->events[child], &last)) break;
        network->events[at] = network->events[child];
        at = child;
    }
    network->events[at] = last;
    return first;
}

/* ---- packets ---- */

sim_packet_t *sim_packet_take(rf_sim_network_t *network)
{
    sim_packet_t *packet = network->free_packets;
    if (packet) {
        network->free_packets = packet->next;
    } else {
        if (network->n_packets == SIM_PACKETS_MAX) return NULL;
        packet = aligned_alloc(RF_CACHE_LINE, sizeof *packet);
        if (!packet) return NULL;
        network->n_packets++;
    }
    memset(packet, 0, offsetof(sim_packet_t, slots));
    return packet;
}

void sim_packet_free(rf_sim_network_t *network, sim_packet_t *packet)
{
    packet->next = network->free_packets;
    network->free_packets = packet;
}

static bool chance(rf_sim_network_t *network, uint32_t ppm)
{
    return ppm > 0 && rf_prng_below(&network->prng, PPM) < ppm;
}

static void put_on_its_way(rf_sim_network_t *network, sim_packet_t *packet, const rf_sim_path_t *path)
{
    uint64_t spread = path->delay_max_ns > path->delay_min_ns ? path->delay_max_ns - path->delay_min_ns : 0;
    uint64_t at_ns = network->now_ns + path->delay_min_ns;
    if (spread > 0) at_ns += rf_prng_below(&network->prng, spread + 1);
    uint64_t *last_at_ns = &network->last_at_ns[packet->from * RF_SIM_ENDPOINTS_MAX + packet->to];
    if (chance(network, path->reorder_ppm)) {
        at_ns += path->reorder_ns_max > 0 ? rf_prng_below(&network->prng, path->reorder_ns_max + 1) : 0;
        network->counts.reordered++;
    } else {
        if (at_ns < *last_at_ns) at_ns = *last_at_ns;
        *last_at_ns = at_ns;
    }
    packet->at_ns = at_ns;
    sim_event_t event = {.at_ns = at_ns, .packet = packet};
    if (!push(network, event)) {
        network->counts.lost++;
        sim_packet_free(network, packet);
    }
}

void sim_packet_send(rf_sim_network_t *network, sim_packet_t *packet)
{
    const rf_sim_path_t *path = path_of(network, packet->from, packet->to);
    network->counts.sent++;
    if (path->cut || chance(network, path->loss_ppm)) {
        network->counts.lost++;
        sim_packet_free(network, packet);
        return;
    }
    sim_packet_t *twin = chance(network, path->duplicate_ppm) ? sim_packet_take(network) : NULL;
    if (twin) {
        memcpy(twin, packet, sizeof *twin);
        network->counts.duplicated++;
        put_on_its_way(network, twin, path);
    }
    put_on_its_way(network, packet, path);
}

uint64_t sim_round_trip_ns(const rf_sim_network_t *network, uint16_t a, uint16_t b)
{
    return path_of(network, a, b)->delay_max_ns + path_of(network, b, a)->delay_max_ns;
}

void sim_timer_event(rf_sim_network_t *network, sim_endpoint_t *ep, uint64_t at_ns)
{
    sim_event_t event = {.at_ns = at_ns > network->now_ns ? at_ns : network->now_ns, .endpoint = ep->place};
    push(network, event);
}

static void digest(rf_sim_network_t *network, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        network->digest = (network->digest ^ ((value >> i * 8) & 0xff)) * 1099511628211ull; /* FNV-1a */
}

/* An endpoint that is gone: of its process the kernel answers, of its host nobody. */
static void answer_for_the_dead(rf_sim_network_t *network, const sim_packet_t *packet)
{
    if (packet->type == SIM_RESET || packet->type == SIM_HELLO) return;
    sim_packet_t *reset = sim_packet_take(network);
    if (!reset) return;
    reset->type = SIM_RESET;
    reset->status = RF_ERR_PEER_DEAD;
    reset->from = packet->to;
    reset->to = packet->from;
    reset->link = packet->link;
    reset->to_dialer = !packet->to_dialer;
    sim_packet_send(network, reset);
}

/* Delivers one packet into an inbox; NULL when nobody has to act on it. */
static sim_endpoint_t *arrive(rf_sim_network_t *network, sim_packet_t *packet)
{
    sim_endpoint_t *ep = network->endpoints[packet->to];
    if (!ep || ep->crashed) {
        if (!ep || !ep->silent) answer_for_the_dead(network, packet);
        sim_packet_free(network, packet);
        return NULL;
    }
    network->counts.delivered++;
    digest(network, packet->at_ns);
    digest(network, (uint64_t)packet->type << 32 | (uint64_t)packet->from << 16 | packet->to);
    digest(network, packet->link);
    digest(network, packet->sequence);
    digest(network, packet->delivered);
    packet->next = NULL;
    *ep->inbox_end = packet;
    ep->inbox_end = &packet->next;
    return ep;
}

rf_endpoint_t *rf_sim_step_until(rf_sim_network_t *network, uint64_t until_ns)
{
    while (network->n_events > 0 && network->events[0].at_ns <= until_ns) {
        sim_event_t event = pop(network);
        network->now_ns = event.at_ns;
        sim_endpoint_t *ep;
        if (event.packet) {
            ep = arrive(network, event.packet);
        } else {
            ep = network->endpoints[event.endpoint];
            if (ep && ep->timer_ns > network->now_ns)
                ep = NULL; /* the timer was moved; it has another event */
            if (ep && ep->crashed) ep = NULL;
        }
        if (ep) return &ep->head;
    }
    if (until_ns != RF_SIM_END && network->now_ns < until_ns) network->now_ns = until_ns;
    return NULL;
}

rf_endpoint_t *rf_sim_step(rf_sim_network_t *network)
{
    return rf_sim_step_until(network, RF_SIM_END);
}

/* ---- knobs ---- */

void rf_sim_path_set(rf_sim_network_t *network, rf_endpoint_t *from, rf_endpoint_t *to,
                     const rf_sim_path_t *path)
{
    for (unsigned i = 0; i < RF_SIM_ENDPOINTS_MAX; i++) {
        if (from && i != ((sim_endpoint_t *)from)->place) continue;
        for (unsigned j = 0; j < RF_SIM_ENDPOINTS_MAX; j++) {
            if (!to || j == ((sim_endpoint_t *)to)->place) *path_of(network, i, j) = *path;
        }
    }
}

void rf_sim_cut(rf_sim_network_t *network, rf_endpoint_t *from, rf_endpoint_t *to, bool both, bool cut)
{
    unsigned i = ((sim_endpoint_t *)from)->place, j = ((sim_endpoint_t *)to)->place;
    path_of(network, i, j)->cut = cut;
    if (both) path_of(network, j, i)->cut = cut;
}

void rf_sim_stall(rf_endpoint_t *endpoint, bool stalled)
{
    sim_endpoint_t *ep = (sim_endpoint_t *)endpoint;
    ep->stalled = stalled;
    if (!stalled) { /* what waited is acted on now */
        ep->timer_ns = ep->network->now_ns;
        sim_timer_event(ep->network, ep, ep->timer_ns);
    }
}

void rf_sim_crash(rf_endpoint_t *endpoint, bool host)
{
    sim_endpoint_t *ep = (sim_endpoint_t *)endpoint;
    ep->crashed = true;
    ep->silent = host;
}

/* Packets between the two that are on their way, or arrived and not acted on, are gone. */
static void drop_between(rf_sim_network_t *network, unsigned a, unsigned b)
{
    uint32_t n = network->n_events;
    sim_event_t *events = network->events;
    network->n_events = 0;
    for (uint32_t i = 0; i < n; i++) {
        sim_event_t event = events[i];
        sim_packet_t *packet = event.packet;
        if (packet && ((packet->from == a && packet->to == b) || (packet->from == b && packet->to == a))) {
            network->counts.lost++;
            sim_packet_free(network, packet);
            continue;
        }
        uint32_t at = network->n_events++; /* never ahead of i: the heap is built again in place */
        while (at > 0 && before(&event, &events[(at - 1) / 2])) {
            events[at] = events[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        events[at] = event;
    }
}

static void drop_inbox(rf_sim_network_t *network, sim_endpoint_t *ep, unsigned from)
{
    sim_packet_t **at = &ep->inbox;
    while (*at) {
        sim_packet_t *packet = *at;
        if (packet->from != from) {
            at = &packet->next;
            continue;
        }
        *at = packet->next;
        network->counts.lost++;
        sim_packet_free(network, packet);
    }
    ep->inbox_end = at;
}

void rf_sim_break(rf_sim_network_t *network, rf_endpoint_t *a_head, rf_endpoint_t *b_head)
{
    sim_endpoint_t *ends[2] = {(sim_endpoint_t *)a_head, (sim_endpoint_t *)b_head};
    drop_between(network, ends[0]->place, ends[1]->place);
    for (unsigned i = 0; i < 2; i++) {
        drop_inbox(network, ends[i], ends[!i]->place);
        for (sim_link_t *link = ends[i]->links; link; link = link->next) {
            if (link->peer != ends[!i]->place || link->head.state != RF_LINK_STATE_UP) continue;
            link->head.state = RF_LINK_STATE_BROKEN;
            link->broken_due = true;
            link->stats.broken++;
            link->contact_ns = network->now_ns;
            sim_link_timer(link);
        }
    }
}
