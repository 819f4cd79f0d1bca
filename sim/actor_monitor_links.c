/*
 * Links between monitors, as their shells see them (monitor/conn.c): dialled, answered or refused, in order and exactly once
 * while they are up, told of when they end. A cut between hosts holds back what is sent; when it lasts longer than the
 * link's deadline, or one side stands still for so long, the link has ended for both.
 *
 * A connection may break under a link while both ends live: who hears of it is told (MONITOR_PEER_BROKEN), at a time of its own, before or
 * behind what is on its way; the link goes on, in order and exactly once, when another connection has been made (transport/path), and
 * ends if none is made within its deadline. Also false: nothing has broken, or nothing for the other side.
 *
 * Each end has a generation: what is on its way on a link that has ended here meanwhile is dropped.
 */
#include "sim/monitors.h"

#include <stdio.h>
#include <stdlib.h>

#define BREAKS_PER 1000000000u /* messages; the knob `loss` counts in these */

/* ---- ends ---- */

/* Where the end towards that core is, or would be. */
static unsigned end_place(const sim_monitor_t *m, rf_core_t there)
{
    unsigned low = 0, high = m->n_ends;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (m->ends_there[middle] < there)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sim_end_t *sim_end_find(const sim_world_t *w, rf_core_t here, rf_core_t there)
{
    const sim_monitor_t *m = &w->monitors->monitors[here];
    unsigned at = end_place(m, there);
    return at < m->n_ends && m->ends_there[at] == there ? m->ends[at] : NULL;
}

sim_end_t *sim_end(sim_world_t *w, rf_core_t here, rf_core_t there)
{
    sim_monitor_t *m = &w->monitors->monitors[here];
    unsigned at = end_place(m, there);
    if (at < m->n_ends && m->ends_there[at] == there) return m->ends[at];
    if (m->n_ends == m->ends_max) {
        m->ends_max = m->ends_max ? m->ends_max * 2 : 8;
        m->ends = realloc(m->ends, m->ends_max * sizeof(sim_end_t *));
        m->ends_there = realloc(m->ends_there, m->ends_max * sizeof *m->ends_there);
        rf_assert(m->ends && m->ends_there);
    }
    sim_end_t *e = calloc(1, sizeof *e);
    rf_assert(e);
    e->lowest = 1;
    memmove(m->ends + at + 1, m->ends + at, (m->n_ends - at) * sizeof(sim_end_t *));
    memmove(m->ends_there + at + 1, m->ends_there + at, (m->n_ends++ - at) * sizeof *m->ends_there);
    m->ends_there[at] = there;
    return m->ends[at] = e;
}

/* ---- words between shells: an event each, without a message, since all may dial all of their host at once ---- */

typedef enum link_word {
    LINK_DIAL = 1,
    LINK_ACCEPTED,
    LINK_CLOSED,
    LINK_BROKEN /* the connection: the link goes on when it has been made again */
} link_word_t;

static bool cut_either(const sim_world_t *w, rf_core_t a, rf_core_t b)
{
    unsigned x = w->host[a], y = w->host[b];
    return x != y && (sim_network_cut(w, x, y) || sim_network_cut(w, y, x));
}

static uint64_t delay_ns(sim_world_t *w, rf_core_t a, rf_core_t b)
{
    uint64_t ns = w->host[a] == w->host[b]
                      ? 200 + sim_exponential(&w->network, 500)
                      : 10 * RF_NS_PER_US + sim_exponential(&w->network, 15 * RF_NS_PER_US);
    if (sim_chance(&w->network, w->knobs.tail)) ns *= sim_between(&w->network, 2, 100);
    return ns;
}

/* When what `from` says now reaches `to`: behind all that is on its way already. */
static uint64_t arrival_ns(sim_world_t *w, rf_core_t from, rf_core_t to, uint64_t at_ns)
{
    sim_end_t *e = sim_end(w, to, from);
    if (at_ns <= e->last_arrival_ns) at_ns = e->last_arrival_ns + 1;
    e->last_arrival_ns = at_ns;
    return at_ns;
}

static void say(sim_world_t *w, link_word_t word, rf_core_t from, rf_core_t to, uint32_t generation,
                rf_err_t err, uint64_t at_ns)
{
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_LINK);
    event->core = to;
    event->life = w->processes[to].life;
    event->peer = (agreement_member_t){.core = from, .incarnation = w->processes[from].incarnation};
    event->x = (uint64_t)err << 48 | (uint64_t)word << 32 | generation;
}

static void drop_held(sim_world_t *w, sim_end_t *e)
{
    while (e->held_first) {
        sim_message_t *message = e->held_first;
        e->held_first = message->next;
        sim_message_release(w, message);
    }
    e->held_last = NULL;
}

static void forget(sim_world_t *w, sim_end_t *e)
{
    e->state = SIM_END_NONE;
    e->full = false;
    drop_held(w, e);
}

static void break_link(sim_world_t *w, rf_core_t a, rf_core_t b, rf_err_t err)
{
    const sim_end_t *x = sim_end(w, a, b), *y = sim_end(w, b, a);
    if (x->state != SIM_END_NONE)
        say(w, LINK_CLOSED, b, a, x->generation, err, w->now_ns + delay_ns(w, b, a));
    if (y->state != SIM_END_NONE)
        say(w, LINK_CLOSED, a, b, y->generation, err, w->now_ns + delay_ns(w, a, b));
}

/* ---- what a monitor wants ---- */

static void dial(sim_world_t *w, sim_process_t *p, const monitor_action_t *a)
{
    sim_end_t *e = sim_end(w, p->core, a->core);
    const sim_process_t *to = &w->processes[a->core];
    if (e->state != SIM_END_NONE) return; /* it dialled first, and is not told yet */
    e->state = SIM_END_DIALING;
    e->generation = ++w->monitors->next_generation;
    e->incarnation = 0;
    bool far = w->host[p->core] != w->host[a->core];
    unsigned core, incarnation;
    bool addressed = !far || (sscanf(a->bytes, "c%u.%u", &core, &incarnation) == 2 &&
                              incarnation == to->incarnation && to->alive);
    if (far && (!addressed || cut_either(w, p->core, a->core))) /* tried again and again until then */
        say(w, LINK_CLOSED, a->core, p->core, e->generation, RF_ERR_TIMEOUT,
            w->now_ns + w->monitors->deadline_ns);
    else if (!to->alive)
        say(w, LINK_CLOSED, a->core, p->core, e->generation, RF_ERR_NOT_FOUND,
            w->now_ns + delay_ns(w, p->core, a->core));
    else
        say(w, LINK_DIAL, p->core, a->core, e->generation, RF_OK, w->now_ns + delay_ns(w, p->core, a->core));
}

static void transmit(sim_world_t *w, sim_process_t *p, rf_core_t to, sim_message_t *message)
{
    sim_end_t *there = sim_end(w, to, p->core);
    unsigned a = w->host[p->core], b = w->host[to];
    sim_packet_of(message)->event.core = p->core;
    sim_packet_of(message)->generation = sim_end(w, p->core, to)->generation;
    if ((a != b && sim_network_cut(w, a, b)) || there->held_first || there->remade_ns > w->now_ns) {
        message->next = NULL;
        *(there->held_last ? &there->held_last->next : &there->held_first) = message;
        there->held_last = message;
        return;
    }
    sim_packet_send(w, to, message,
                    arrival_ns(w, p->core, to, w->now_ns + p->cost_ns + delay_ns(w, p->core, to)));
    w->statistics->messages++;
}

/* A link whose other end has stopped reading takes nothing more at some time. */
static bool is_full(sim_world_t *w, rf_core_t to)
{
    return w->faults_on && sim_process_stalled(w, &w->processes[to]) &&
           sim_chance(&w->network, 10 * w->knobs.full);
}

static void send(sim_world_t *w, sim_process_t *p, const monitor_action_t *a)
{
    sim_end_t *e = sim_end(w, p->core, a->core);
    fake_t *fake = &w->monitors->fake;
    for (unsigned i = 0; i < a->n_fds; i++) fake_fd_check(fake, a->fds[i]);
    if (e->state != SIM_END_UP || e->full) return;
    if (is_full(w, a->core)) {
        e->full = true;
        return;
    }
    if (a->n_fds > 0) {
        rf_assert(w->host[p->core] == w->host[a->core]);
        sim_message_t *message = sim_packet_new(w, a->head, a->head_size);
        monitor_event_t *event = &sim_packet_of(message)->event;
        event->kind = MONITOR_PEER_FDS;
        for (unsigned i = 0; i < a->n_fds; i++) event->fds[event->n_fds++] = fake_fd_new(fake);
        transmit(w, p, a->core, message);
    }
    sim_message_t *message = sim_packet_new(w, a->bytes, a->size);
    message->type = a->type;
    sim_packet_of(message)->event.kind = MONITOR_PEER_MESSAGE;
    sim_packet_of(message)->event.type = a->type;
    transmit(w, p, a->core, message);
    if (w->faults_on && w->host[p->core] != w->host[a->core] &&
        rf_prng_below(&w->network, BREAKS_PER) < w->knobs.loss) {
        w->statistics->faults++;
        break_link(w, p->core, a->core, RF_ERR_TIMEOUT);
    }
}

static void fence(sim_world_t *w, sim_process_t *p, const monitor_action_t *a)
{
    sim_end_t *e = sim_end(w, p->core, a->core);
    if (e->lowest <= a->incarnation) e->lowest = a->incarnation + 1;
    if (e->state != SIM_END_UP || e->incarnation > a->incarnation) return;
    const sim_end_t *there = sim_end(w, a->core, p->core);
    uint64_t at_ns = arrival_ns(w, p->core, a->core, w->now_ns + p->cost_ns + delay_ns(w, p->core, a->core));
    bool unheard = cut_either(w, p->core, a->core) || there->held_first;
    if (w->processes[a->core].alive)
        say(w, LINK_CLOSED, p->core, a->core, e->generation, unheard ? RF_ERR_TIMEOUT : RF_ERR_FENCED,
            unheard ? w->now_ns + w->monitors->deadline_ns : at_ns);
    forget(w, e);
}

void sim_links_act(sim_world_t *w, sim_process_t *p, const monitor_action_t *a)
{
    if (a->kind == MONITOR_DO_DIAL)
        dial(w, p, a);
    else if (a->kind == MONITOR_DO_SEND_PEER)
        send(w, p, a);
    else
        fence(w, p, a);
}

/* ---- what comes ---- */

static void push_died(sim_world_t *w, rf_core_t to, rf_core_t core, rf_incarnation_t incarnation)
{
    sim_message_t *message = sim_packet_new(w, NULL, 0);
    monitor_event_t *event = &sim_packet_of(message)->event;
    event->kind = MONITOR_PEER_DIED;
    event->core = core;
    event->incarnation = incarnation;
    sim_packet_send(w, to, message, w->now_ns + sim_exponential(&w->network, 100 * RF_NS_PER_US));
}

/* The link with `peer` is up on this side: `out` says so. */
static void up(sim_world_t *w, const sim_process_t *p, sim_end_t *e, agreement_member_t peer,
               uint32_t generation, monitor_event_t *out)
{
    e->state = SIM_END_UP;
    e->generation = generation;
    e->incarnation = peer.incarnation;
    e->full = false;
    e->remade_ns = 0;
    out->kind = MONITOR_PEER_UP;
    out->incarnation = peer.incarnation;
    if (w->host[peer.core] != w->host[p->core]) return;
    e->watched = peer.incarnation;
    out->process.incarnation = peer.incarnation;
    out->process.monitor_pid = 1000 + peer.core;
    out->process.driver_pid = 2000 + peer.core;
    const sim_process_t *other = &w->processes[peer.core];
    if (!other->alive || other->incarnation != peer.incarnation)
        push_died(w, p->core, peer.core, peer.incarnation);
}

static bool dialled(sim_world_t *w, const sim_process_t *p, sim_end_t *e, agreement_member_t by,
                    uint32_t generation, monitor_event_t *out)
{
    rf_core_t from = by.core;
    const sim_process_t *dialer = &w->processes[from];
    if (!dialer->alive || dialer->incarnation != by.incarnation) return false;
    uint64_t back_ns = arrival_ns(w, p->core, from, w->now_ns + delay_ns(w, p->core, from));
    rf_err_t err = RF_OK;
    if (by.incarnation < e->lowest) err = RF_ERR_FENCED;
    if (err == RF_OK && e->state == SIM_END_UP && e->incarnation < by.incarnation) {
        e->lowest = by.incarnation; /* the machine has named a later one: this is no more */
        forget(w, e);
    }
    if (err == RF_OK && e->state != SIM_END_NONE && (e->state == SIM_END_UP || from < p->core))
        err = RF_ERR_EXISTS;
    if (err != RF_OK) {
        say(w, LINK_CLOSED, p->core, from, generation, err, back_ns);
        return false;
    }
    up(w, p, e, by, generation, out);
    say(w, LINK_ACCEPTED, p->core, from, generation, RF_OK, back_ns);
    return true;
}

static bool closed(sim_world_t *w, sim_end_t *e, rf_err_t err, monitor_event_t *out)
{
    forget(w, e);
    out->kind = MONITOR_PEER_DOWN;
    out->err = err;
    return true;
}

static bool accepted(sim_world_t *w, const sim_process_t *p, sim_end_t *e, agreement_member_t by,
                     uint32_t generation, monitor_event_t *out)
{
    bool mine = e->state == SIM_END_DIALING && e->generation == generation;
    if (mine && by.incarnation >= e->lowest) {
        up(w, p, e, by, generation, out);
        return true;
    }
    if (w->processes[by.core].alive)
        say(w, LINK_CLOSED, p->core, by.core, generation, RF_ERR_CLOSED,
            arrival_ns(w, p->core, by.core, w->now_ns + delay_ns(w, p->core, by.core)));
    return mine && closed(w, e, RF_ERR_NOT_FOUND, out);
}

/* Nothing of a member that has left is listened to, once its leaving is known here. */
static void check_listens(sim_world_t *w, const sim_process_t *p, rf_core_t from,
                          rf_incarnation_t incarnation)
{
    const core_t *c = &w->monitors->monitors[p->core].monitor->cores[from];
    if (c->link == PEER_LINKED && c->linked == incarnation && incarnation <= c->left)
        sim_violation(w, "fence", "core %u listens to core %u, incarnation %u, which it knows to have left",
                      p->core, from, incarnation);
}

bool sim_links_take(sim_world_t *w, const sim_process_t *p, const sim_packet_t *packet)
{
    const sim_end_t *e = sim_end_find(w, p->core, packet->event.core);
    if (!e || e->state != SIM_END_UP || e->generation != packet->generation) return false;
    check_listens(w, p, packet->event.core, e->incarnation);
    return true;
}

bool sim_links_event(sim_world_t *w, sim_process_t *p, const sim_event_t *event, monitor_event_t *out)
{
    uint32_t generation = (uint32_t)event->x;
    sim_end_t *e = sim_end(w, p->core, event->peer.core);
    *out = (monitor_event_t){.core = event->peer.core};
    switch ((link_word_t)(event->x >> 32 & 0xffff)) {
    case LINK_DIAL:
        return dialled(w, p, e, event->peer, generation, out);
    case LINK_ACCEPTED:
        return accepted(w, p, e, event->peer, generation, out);
    case LINK_CLOSED:
        return e->state != SIM_END_NONE && e->generation == generation &&
               closed(w, e, (rf_err_t)(event->x >> 48), out);
    case LINK_BROKEN:
        out->kind = MONITOR_PEER_BROKEN;
        return e->state == SIM_END_UP && e->generation == generation;
    default:
        rf_assert(!"a word that shells do not say");
        return false;
    }
}

/* ---- what happens to links ---- */

void sim_links_start(sim_world_t *w, rf_core_t core)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    for (unsigned i = 0; i < m->n_ends; i++) {
        drop_held(w, m->ends[i]);
        *m->ends[i] = (sim_end_t){.lowest = 1};
    }
}

void sim_links_died(sim_world_t *w, rf_core_t core, bool known)
{
    rf_incarnation_t incarnation = w->processes[core].incarnation;
    for (unsigned i = 0; i < w->n_cores; i++) {
        rf_core_t other = (rf_core_t)i;
        if (other == core || !w->processes[i].alive) continue;
        const sim_end_t *e = sim_end_find(w, other, core);
        if (!e) continue;
        bool near = w->host[i] == w->host[core];
        if (near && known && e->watched == incarnation) push_died(w, other, core, incarnation);
        if (e->state == SIM_END_NONE) continue;
        bool heard = known && (near || (!cut_either(w, other, core) && rf_prng_below(&w->network, 2)));
        say(w, LINK_CLOSED, core, other, e->generation, heard ? RF_ERR_PEER_DEAD : RF_ERR_TIMEOUT,
            w->now_ns + (heard ? delay_ns(w, core, other) : w->monitors->deadline_ns));
    }
}

/* For longer than a link's deadline, from one of them to the other. */
static bool out_of_reach(const sim_world_t *w, rf_core_t a, rf_core_t b)
{
    unsigned x = w->host[a], y = w->host[b];
    const sim_process_t *p = &w->processes[a];
    if (sim_network_cut(w, x, y) && w->now_ns > w->cut_since_ns[x][y] + w->monitors->deadline_ns) return true;
    return p->alive && p->quiet_since_ns != RF_NEVER && sim_process_stalled(w, p) &&
           w->now_ns > p->quiet_since_ns + w->monitors->deadline_ns;
}

void sim_links_look(sim_world_t *w, unsigned host)
{
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        const sim_monitor_t *m = &w->monitors->monitors[i];
        for (unsigned k = end_place(m, (rf_core_t)w->host_first[host + 1]); k < m->n_ends; k++) {
            rf_core_t a = (rf_core_t)i, b = m->ends_there[k];
            const sim_end_t *back = sim_end_find(w, b, a);
            if (m->ends[k]->state != SIM_END_UP && (!back || back->state != SIM_END_UP)) continue;
            if (out_of_reach(w, a, b) || out_of_reach(w, b, a)) break_link(w, a, b, RF_ERR_TIMEOUT);
        }
    }
}

/* `to` hears that its connection with `from` has broken. */
static void say_broken(sim_world_t *w, rf_core_t from, rf_core_t to)
{
    say(w, LINK_BROKEN, from, to, sim_end(w, to, from)->generation, RF_ERR_TIMEOUT,
        w->now_ns + delay_ns(w, from, to) + sim_exponential(&w->faults, 200 * RF_NS_PER_US));
}

void sim_links_break(sim_world_t *w, rf_core_t a, rf_core_t b)
{
    sim_end_t *x = sim_end(w, a, b), *y = sim_end(w, b, a);
    if (x->state != SIM_END_UP || y->state != SIM_END_UP || x->generation != y->generation) return;
    unsigned who = (unsigned)rf_prng_below(&w->faults, 4); /* 0, 1: both */
    if (who != 2) say_broken(w, b, a);
    if (who != 3) say_broken(w, a, b);
    if (rf_prng_below(&w->faults, 4) == 0) return; /* it was only said */
    const uint64_t means_ns[] = {RF_NS_PER_MS, 10 * RF_NS_PER_MS, w->monitors->deadline_ns};
    uint64_t after_ns = sim_exponential(&w->faults, means_ns[rf_prng_below(&w->faults, 3)]) + 1;
    if (after_ns < w->monitors->deadline_ns) {
        x->remade_ns = y->remade_ns = w->now_ns + after_ns;
        sim_faults_remake(w, w->now_ns + after_ns);
        return;
    }
    x->remade_ns = y->remade_ns = RF_NEVER;
    say(w, LINK_CLOSED, b, a, x->generation, RF_ERR_TIMEOUT, w->now_ns + w->monitors->deadline_ns);
    say(w, LINK_CLOSED, a, b, y->generation, RF_ERR_TIMEOUT, w->now_ns + w->monitors->deadline_ns);
}

void sim_links_cut(sim_world_t *w)
{
    unsigned who =
        (unsigned)rf_prng_below(&w->faults, 4); /* 0, 1: both; 2, 3: of the two the one, or the other */
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_monitor_t *m = &w->monitors->monitors[i];
        for (unsigned k = 0; k < m->n_ends && m->ends_there[k] < i; k++) {
            rf_core_t a = (rf_core_t)i, b = m->ends_there[k];
            if (!cut_either(w, a, b)) continue;
            const sim_end_t *back = sim_end_find(w, b, a);
            if (who != 2 && m->ends[k]->state == SIM_END_UP) say_broken(w, b, a);
            if (who != 3 && back && back->state == SIM_END_UP) say_broken(w, a, b);
        }
    }
}

/* Cuts may have ended: what was held back goes on, in order; and who was full may have room. */
void sim_links_heal(sim_world_t *w)
{
    for (unsigned to = 0; to < w->n_cores; to++) {
        const sim_monitor_t *m = &w->monitors->monitors[to];
        for (unsigned i = 0; i < m->n_ends; i++) {
            sim_end_t *e = m->ends[i];
            rf_core_t from = m->ends_there[i];
            if (sim_network_cut(w, w->host[from], w->host[to])) continue;
            if (w->faults_on && e->remade_ns > w->now_ns) continue;
            e->remade_ns = 0;
            while (e->held_first) {
                sim_message_t *message = e->held_first;
                e->held_first = message->next;
                if (!e->held_first) e->held_last = NULL;
                sim_packet_send(
                    w, (rf_core_t)to, message,
                    arrival_ns(w, from, (rf_core_t)to, w->now_ns + delay_ns(w, from, (rf_core_t)to)));
            }
        }
    }
}

void sim_links_room(sim_world_t *w, unsigned host)
{
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        const sim_monitor_t *m = &w->monitors->monitors[i];
        for (unsigned k = 0; k < m->n_ends; k++) {
            sim_end_t *e = m->ends[k];
            if (!e->full || !w->processes[i].alive || sim_process_stalled(w, &w->processes[m->ends_there[k]]))
                continue;
            e->full = false;
            sim_event_t *event = sim_push(w, w->now_ns + 1, SIM_EVENT_ROOM);
            event->core = (rf_core_t)i;
            event->life = w->processes[i].life;
            event->peer.core = m->ends_there[k];
        }
    }
}
