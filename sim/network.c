/* Links: what is lost, delayed, doubled, overtaken and cut; and the receiver's fence. Without the knobs a link delivers
 * everything, once and in order, as a real one does until it breaks. */
#include "sim/monitors.h"

#include <stdlib.h>

#define IN_FLIGHT_MAX 20000u /* of a small machine: more feed on themselves */

static void grow_links(sim_world_t *w)
{
    uint32_t old_max = w->links_max, max = old_max ? old_max * 2 : 256;
    sim_link_t *old = w->links;
    w->links = calloc(max, sizeof *w->links);
    rf_assert(w->links);
    w->links_max = max;
    for (uint32_t i = 0; i < old_max; i++) {
        if (!old[i].key) continue;
        uint32_t at = (uint32_t)(old[i].key * 0x9e3779b1u) & (max - 1);
        while (w->links[at].key) at = (at + 1) & (max - 1);
        w->links[at] = old[i];
    }
    free(old);
}

static sim_link_t *find_link(sim_world_t *w, rf_core_t from, rf_core_t to)
{
    if (w->n_links * 2 >= w->links_max) grow_links(w);
    uint32_t key = ((uint32_t)from << 16 | to) + 1, at = (uint32_t)(key * 0x9e3779b1u) & (w->links_max - 1);
    while (w->links[at].key && w->links[at].key != key) at = (at + 1) & (w->links_max - 1);
    sim_link_t *link = &w->links[at];
    if (!link->key) {
        link->key = key;
        w->n_links++;
    }
    return link;
}

uint64_t sim_network_delay(sim_world_t *w, rf_core_t from, rf_core_t to)
{
    rf_prng_t *prng = &w->network;
    uint64_t delay_ns;
    if (w->options->model) {
        const sim_model_t *m = w->options->model;
        delay_ns = sim_distribution_draw(&m->latency[sim_model_edge(m, from, to)], prng);
        delay_ns += rf_prng_below(prng, (uint64_t)m->poll_ns * w->n_cores +
                                            1); /* the receiver looks at one after the other */
    } else if (w->host[from] == w->host[to]) {
        delay_ns = 200 + sim_exponential(prng, 500);
    } else {
        delay_ns = 10 * RF_NS_PER_US + sim_exponential(prng, 15 * RF_NS_PER_US);
    }
    if (sim_chance(prng, w->knobs.tail)) delay_ns *= sim_between(prng, 2, 100);
    return delay_ns;
}

/* One copy on its way; `late_ns` more than the link takes. */
static void fly(sim_world_t *w, const sim_process_t *from, const sim_process_t *to, sim_message_t *message,
                uint64_t at_ns, bool damaged)
{
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_MESSAGE);
    event->core = to->core;
    event->life = to->life;
    event->peer = (agreement_member_t){.core = from->core, .incarnation = from->incarnation};
    event->message = message;
    event->x = damaged;
    message->references++;
    w->statistics->messages++;
    if (++w->in_flight > (w->n_cores > 64 ? 64u * w->n_cores : IN_FLIGHT_MAX))
        sim_stuck(w, "%u messages are on their way at once: a flood", w->in_flight);
}

/* Cut short, which every decoder must notice; bytes are never changed, since links carry them unchanged. */
static void fly_damaged(sim_world_t *w, const sim_process_t *from, const sim_process_t *to,
                        const sim_message_t *message, uint64_t at_ns)
{
    size_t size = (size_t)rf_prng_below(&w->network, message->size + 1);
    sim_message_t *copy = sim_message_new(w, message->type, message->bytes, size);
    fly(w, from, to, copy, at_ns, true);
    sim_message_release(w, copy);
}

/* Whether the member has left, as far as that process knows. */
static bool left_by(const sim_process_t *p, agreement_member_t member)
{
    rf_incarnation_t last = 0;
    agreement_member_state_t state = agreement_member_state(p->engine, member.core, &last);
    return member.incarnation < last || (member.incarnation == last && state == AGREEMENT_MEMBER_OUT);
}

/* The link of `sender` is not taken by `by`, which says so. */
static void refuse(sim_world_t *w, const sim_process_t *by, const sim_process_t *sender)
{
    unsigned a = w->host[by->core], b = w->host[sender->core];
    if (rf_prng_below(&w->network, 4) != 0 || (a != b && sim_network_cut(w, a, b))) return;
    sim_event_t *refused =
        sim_push(w, w->now_ns + sim_network_delay(w, by->core, sender->core), SIM_EVENT_REFUSED);
    refused->core = sender->core;
    refused->life = sender->life;
}

void sim_network_dial(sim_world_t *w, const sim_process_t *from, rf_core_t core)
{
    const sim_process_t *by = &w->processes[core];
    unsigned a = w->host[from->core], b = w->host[core];
    if (!by->alive || by == from || (a != b && sim_network_cut(w, a, b))) return;
    if (left_by(by, (agreement_member_t){.core = from->core, .incarnation = from->incarnation}))
        refuse(w, by, from);
}

void sim_network_send(sim_world_t *w, sim_process_t *from, agreement_member_t member, sim_message_t *message,
                      uint64_t at_ns)
{
    if (member.core >= w->n_cores) {
        sim_violation(w, "protocol", "core %u sends to core %u, which does not exist", from->core,
                      member.core);
        return;
    }
    sim_process_t *to = &w->processes[member.core];
    sim_link_t *link = find_link(w, from->core, member.core);
    unsigned a = w->host[from->core], b = w->host[member.core];
    rf_prng_t *prng = &w->network;
    const sim_knobs_t *k = &w->knobs;
    if (!to->alive || to->incarnation != member.incarnation || (a != b && sim_network_cut(w, a, b))) {
        link->dropped = true;
        bool stray =
            to->alive && to->incarnation > member.incarnation && !(a != b && sim_network_cut(w, a, b));
        if (stray && w->faults_on && sim_chance(prng, k->stray))
            fly(w, from, to, message, at_ns + sim_network_delay(w, from->core, member.core), true);
        /* Another life of that core answers the dialling, and knows who has left. */
        if (to->alive && to->incarnation > member.incarnation && w->actor == &sim_actor_engine &&
            left_by(to, (agreement_member_t){.core = from->core, .incarnation = from->incarnation}))
            refuse(w, to, from);
        return;
    }
    if (at_ns < link->full_until_ns) return;
    if (w->faults_on && sim_chance(prng, k->full)) {
        link->full_until_ns = at_ns + sim_exponential(prng, 200 * RF_NS_PER_US) + 1;
        sim_event_t *event = sim_push(w, link->full_until_ns, SIM_EVENT_ROOM);
        event->core = from->core;
        event->life = from->life;
        event->peer = member;
        return;
    }
    if (a != b && w->faults_on && sim_chance(prng, k->loss)) return;
    if (w->options->model) {
        const sim_model_t *m = w->options->model;
        uint64_t gap_ns = sim_distribution_draw(&m->gap[sim_model_edge(m, from->core, member.core)], prng);
        if (at_ns < link->last_departure_ns + gap_ns) at_ns = link->last_departure_ns + gap_ns;
        link->last_departure_ns = at_ns;
    }
    uint64_t arrival_ns = at_ns + sim_network_delay(w, from->core, member.core);
    if (a != b && w->faults_on && sim_chance(prng, k->reorder)) {
        arrival_ns += sim_exponential(prng, 500 * RF_NS_PER_US);
    } else {
        if (arrival_ns <= link->last_arrival_ns) arrival_ns = link->last_arrival_ns + 1;
        link->last_arrival_ns = arrival_ns;
    }
    fly(w, from, to, message, arrival_ns, false);
    if (a != b && w->faults_on && sim_chance(prng, k->duplicate))
        fly(w, from, to, message, arrival_ns + sim_exponential(prng, RF_NS_PER_MS), false);
    if (w->faults_on && sim_chance(prng, k->garbage)) {
        uint64_t later_ns = arrival_ns + sim_exponential(prng, 50 * RF_NS_PER_MS);
        if (rf_prng_next(prng) & 1)
            fly_damaged(w, from, to, message, later_ns);
        else if (k->duplicate > 0)
            fly(w, from, to, message, later_ns, false);
    }
}

agreement_member_t sim_network_sender(const sim_world_t *w, const sim_event_t *event)
{
    agreement_member_t from = event->peer;
    const sim_process_t *now = &w->processes[from.core];
    if (w->options->sim_defects & SIM_DEFECT_RING_REUSED && now->alive) from.incarnation = now->incarnation;
    return from;
}

bool sim_network_deliver(sim_world_t *w, sim_process_t *to, const sim_event_t *event)
{
    agreement_member_t from = event->peer;
    if (from.incarnation > w->left[from.core]) return true;
    bool fenced = from.incarnation <= w->fenced[from.core];
    if (!fenced && !left_by(to, from)) return true;
    /* It has left, as the receiver knows, and the receiver may be late in closing its links. */
    if (!fenced && w->faults_on && sim_chance(&w->network, w->knobs.fence_late)) return true;
    const sim_process_t *sender = &w->processes[from.core];
    if (sender->alive && sender->incarnation == from.incarnation) refuse(w, to, sender);
    return false;
}

void sim_network_room(sim_world_t *w)
{
    if (w->monitors) {
        sim_links_heal(w);
        return;
    }
    for (uint32_t i = 0; i < w->links_max; i++) {
        sim_link_t *link = &w->links[i];
        if (!link->key || !link->dropped) continue;
        sim_process_t *from = &w->processes[(link->key - 1) >> 16],
                      *to = &w->processes[(link->key - 1) & 0xffff];
        if (sim_network_cut(w, w->host[from->core], w->host[to->core])) continue;
        if (!from->alive || !to->alive) continue;
        link->dropped = false;
        sim_event_t *event =
            sim_push(w, w->now_ns + sim_exponential(&w->network, RF_NS_PER_MS), SIM_EVENT_ROOM);
        event->core = from->core;
        event->life = from->life;
        event->peer = (agreement_member_t){.core = to->core, .incarnation = to->incarnation};
    }
}
