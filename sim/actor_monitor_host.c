/*
 * What rackfishd does around its monitors: tells them where those of other hosts listen and who has died, asks for the
 * next incarnation of a dead core and starts it, asks cores to leave; and the CPU drivers' fence. rackfishd is client 0 of
 * each monitor of its host.
 */
#include "sim/monitors.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define JOIN_PATIENCE_NS RF_NS_PER_S /* without an answer; then anew, by whomever */

uint32_t sim_monitors_ask(sim_world_t *w, rf_core_t core, uint32_t client, uint16_t op, const void *body,
                          size_t size)
{
    struct {
        rf_wire_header_t header;
        uint8_t body[4096 - sizeof(rf_wire_header_t)];
    } m = {.header = {.tag = ++w->monitors->next_tag, .op = op}};
    rf_assert(size <= sizeof m.body);
    if (size > 0) memcpy(m.body, body, size);
    monitor_event_t *event = sim_monitors_push(w, core, CHANNEL_CLIENT + client, MONITOR_CLIENT_MESSAGE, &m,
                                               sizeof m.header + size);
    event->client = client;
    event->type = RF_CLIENT_REQUEST;
    return m.header.tag;
}

static bool reaches(const sim_world_t *w, unsigned a, unsigned b)
{
    return a == b || (!sim_network_cut(w, a, b) && !sim_network_cut(w, b, a));
}

/* ---- addresses ---- */

/* The cores of `host` that listen now, in one word. */
static uint64_t lives_of(const sim_world_t *w, unsigned host)
{
    uint64_t lives = 1;
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++)
        lives = lives * 31 + (w->processes[i].alive ? w->processes[i].incarnation : 0);
    return lives;
}

static void put_address(const sim_world_t *w, rf_core_t of, rf_client_addresses_t *a)
{
    const sim_process_t *p = &w->processes[of];
    if (p->alive) snprintf(a->address[a->n], sizeof a->address[a->n], "c%u.%u", of, p->incarnation);
    a->n++;
}

/* In a large machine: of the cores that it has asked for. */
static void tell_wanted(sim_world_t *w, rf_core_t core, struct sim_want *want)
{
    const sim_process_t *p = &w->processes[want->core];
    unsigned host = w->host[want->core];
    if (!p->alive || want->told == p->incarnation || !reaches(w, host, w->host[core])) return;
    want->told = p->incarnation;
    rf_client_addresses_t a = {.node = (rf_node_t)host, .first = want->core, .medium = "sim"};
    put_address(w, want->core, &a);
    size_t size = offsetof(rf_client_addresses_t, address) + a.n * sizeof a.address[0];
    sim_monitors_ask(w, core, 0, RF_CLIENT_NODE_ADDRESSES, &a, size);
}

void sim_monitors_wants(sim_world_t *w, rf_core_t core, rf_core_t wanted)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    unsigned i = 0;
    if (w->n_cores <= SIM_TOLD_ALL) return;
    while (i < m->n_wants && m->wants[i].core != wanted) i++;
    if (i == m->wants_max) {
        m->wants_max = m->wants_max ? 2 * m->wants_max : 4;
        m->wants = realloc(m->wants, m->wants_max * sizeof *m->wants);
        rf_assert(m->wants);
    }
    if (i == m->n_wants) m->n_wants++;
    m->wants[i] = (struct sim_want){.core = wanted};
    tell_wanted(w, core, &m->wants[i]);
}

static void tell_addresses(sim_world_t *w, rf_core_t core)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    for (unsigned i = 0; i < m->n_wants; i++) tell_wanted(w, core, &m->wants[i]);
    if (!m->told_lives) return;
    for (unsigned h = 0; h < w->n_hosts; h++) {
        uint64_t lives = lives_of(w, h);
        if (h == w->host[core] || lives == m->told_lives[h] || !reaches(w, h, w->host[core])) continue;
        m->told_lives[h] = lives;
        for (unsigned from = w->host_first[h]; from < w->host_first[h + 1]; from += RF_CLIENT_ADDRESSES_MAX) {
            rf_client_addresses_t a = {.node = (rf_node_t)h, .first = (rf_core_t)from, .medium = "sim"};
            for (unsigned i = from; i < w->host_first[h + 1] && a.n < RF_CLIENT_ADDRESSES_MAX; i++)
                put_address(w, (rf_core_t)i, &a);
            sim_monitors_ask(w, core, 0, RF_CLIENT_NODE_ADDRESSES, &a, sizeof a);
        }
    }
}

/* ---- deaths ---- */

void sim_monitors_died(sim_world_t *w, rf_core_t core, bool known)
{
    sim_process_t *p = &w->processes[core];
    if (sim_traces(w)) {
        const sim_monitor_t *m = &w->monitors->monitors[core];
        fprintf(stderr, "             core %u, incarnation %u, has died", core, p->incarnation);
        if (m->exits) fprintf(stderr, ": status %d", m->exit_status);
        fputc('\n', stderr);
    }
    sim_links_died(w, core, known);
    rf_client_dead_t dead = {.core = core, .incarnation = p->incarnation};
    for (unsigned i = 0; known && i < w->n_cores; i++) {
        if (w->processes[i].alive && reaches(w, w->host[core], w->host[i]))
            sim_monitors_ask(w, (rf_core_t)i, 0, RF_CLIENT_DEAD, &dead, sizeof dead);
    }
    sim_mclient_core_died(w, core);
    p->joining = false;
    uint64_t mean_ms = w->phase == SIM_PHASE_SETTLE ? 1 : w->knobs.restart;
    p->join_due_ns = w->now_ns + sim_exponential(&w->choices, (mean_ms + 1) * RF_NS_PER_MS);
}

rf_err_t sim_monitors_fence(void *world, rf_core_t core, const rf_kernel_fence_t *fence)
{
    sim_world_t *w = world;
    rf_assert(w->host[core] == w->host[fence->core]);
    if (w->faults_on && sim_chance(&w->choices, w->knobs.fence_late / 10)) return RF_ERR_TIMEOUT;
    const sim_process_t *p = &w->processes[fence->core];
    if (p->alive && p->incarnation == fence->incarnation) {
        sim_process_kill(w, fence->core);
        sim_host_died(w, fence->core, true);
    }
    if (w->fenced[fence->core] < fence->incarnation) w->fenced[fence->core] = fence->incarnation;
    return RF_OK;
}

/* ---- joins and leaves ---- */

/* Of all cores of a host that are due one monitor is asked, as rackfishd does; sometimes another at once, as by one that was killed before. */
static void ask_for_join(sim_world_t *w, rf_core_t core, rf_core_t at)
{
    sim_process_t *p = &w->processes[core];
    sim_monitor_t *m = &w->monitors->monitors[at];
    if (!w->processes[at].alive || !reaches(w, w->host[core], w->host[at])) return;
    if (m->n_asked == sizeof m->asked / sizeof m->asked[0]) return;
    rf_client_join_t join = {.core = core};
    p->joining = true;
    p->join_due_ns = w->now_ns + JOIN_PATIENCE_NS;
    m->asked[m->n_asked].core = core;
    m->asked[m->n_asked].stamp = ++p->host_stamp;
    m->asked[m->n_asked++].tag = sim_monitors_ask(w, at, 0, RF_CLIENT_JOIN, &join, sizeof join);
}

static void start(sim_world_t *w, rf_core_t core, rf_incarnation_t incarnation)
{
    if (w->fenced[core] < w->processes[core].incarnation) w->fenced[core] = w->processes[core].incarnation;
    sim_process_start(w, core, incarnation);
    w->statistics->restarts++;
    tell_addresses(w, core);
}

/* False: none is named. */
static bool start_named(sim_world_t *w, rf_core_t core)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    if (m->named == 0) return false;
    if (w->now_ns < m->start_ns && w->faults_on) return true;
    rf_incarnation_t incarnation = m->named;
    m->named = 0;
    start(w, core, incarnation);
    return true;
}

/* Its host is slow, or is cut off meanwhile: by then it may have been expelled already. */
static void start_later(sim_world_t *w, rf_core_t core, rf_incarnation_t incarnation)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    m->named = incarnation;
    m->start_ns = w->now_ns;
    if (w->faults_on && w->knobs.late_start > 0)
        m->start_ns += sim_exponential(&w->choices, w->knobs.late_start * RF_NS_PER_MS);
    start_named(w, core);
}

/* An incarnation is one process: whatever became of who asked, it is given once. */
static void check_given_once(sim_world_t *w, rf_core_t core, rf_incarnation_t incarnation)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    const unsigned max = sizeof m->given / sizeof m->given[0];
    for (unsigned i = 0; i < max; i++) {
        if (m->given[i] == incarnation)
            sim_violation(w, "machine", "incarnation %u of core %u is given twice", incarnation, core);
    }
    m->given[m->n_given++ % max] = incarnation;
}

/* Told that nothing was done, with nothing else asked that may be: so this incarnation does not leave in order. */
static void leave_told(sim_world_t *w, const sim_process_t *asked, rf_err_t err)
{
    sim_monitor_t *m = &w->monitors->monitors[asked->core];
    if (m->leave.incarnation != asked->incarnation || m->leave.unanswered == 0) return;
    m->leave.unanswered--;
    m->leave.unsure |= err == RF_OK || err == RF_ERR_UNKNOWN_OUTCOME;
    if (m->leave.unanswered == 0 && !m->leave.unsure) m->leave.denied = asked->incarnation;
}

void sim_monitors_told(sim_world_t *w, sim_process_t *asked, const rf_wire_header_t *header,
                       const uint8_t *body, size_t size)
{
    sim_monitor_t *m = &w->monitors->monitors[asked->core];
    if (header->op == RF_CLIENT_SPAWN || header->op == RF_CLIENT_KILL) {
        sim_mclient_told(w, asked, 0, header, body, size);
        return;
    }
    if (header->op == RF_CLIENT_LEAVE) {
        leave_told(w, asked, (rf_err_t)header->err);
        return;
    }
    for (unsigned i = 0; i < m->n_asked; i++) {
        if (m->asked[i].tag != header->tag) continue;
        rf_core_t core = m->asked[i].core;
        uint32_t stamp = m->asked[i].stamp;
        m->asked[i] = m->asked[--m->n_asked];
        sim_process_t *p = &w->processes[core];
        rf_client_joined_t joined = {0};
        memcpy(&joined, body, size < sizeof joined ? size : sizeof joined);
        if (header->err == RF_OK) check_given_once(w, core, joined.incarnation);
        if (p->alive || p->host_stamp != stamp || !reaches(w, w->host[core], w->host[asked->core])) return;
        p->joining = false;
        p->join_due_ns = w->now_ns + sim_exponential(&w->choices, 20 * RF_NS_PER_MS);
        if (header->err != RF_OK) return;
        if (joined.incarnation <= p->incarnation)
            sim_violation(w, "machine", "core %u was to join anew, and was given incarnation %u after %u",
                          core, joined.incarnation, p->incarnation);
        else
            start_later(w, core, joined.incarnation);
        return;
    }
}

void sim_monitors_left(sim_world_t *w, agreement_member_t member)
{
    if (w->monitors->monitors[member.core].leave.denied == member.incarnation)
        sim_violation(w, "once", "core %u (incarnation %u) leaves in order, and was told that it does not",
                      member.core, member.incarnation);
}

void sim_monitors_leave(sim_world_t *w, rf_core_t core)
{
    sim_monitor_t *m = &w->monitors->monitors[core];
    const sim_process_t *p = &w->processes[core];
    if (m->leave.incarnation != p->incarnation) {
        memset(&m->leave, 0, sizeof m->leave);
        m->leave.incarnation = p->incarnation;
    }
    m->leave.unanswered++;
    m->leave.denied = 0;
    rf_client_leave_t leave = {.mode = (uint32_t)rf_prng_below(&w->faults, 3)};
    if (leave.mode == RF_LEAVE_WAIT) leave.mode = RF_LEAVE_KILL; /* its dispatchers would stay */
    sim_monitors_ask(w, core, 0, RF_CLIENT_LEAVE, &leave, sizeof leave);
}

void sim_monitors_look(sim_world_t *w, unsigned host)
{
    sim_links_look(w, host);
    sim_links_room(w, host);
    rf_core_t at = (rf_core_t)rf_prng_below(&w->choices, w->n_cores);
    rf_core_t again = (rf_core_t)rf_prng_below(&w->choices, w->n_cores * (w->faults_on ? 4 : 1024));
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        const sim_process_t *p = &w->processes[i];
        if (p->alive)
            tell_addresses(w, (rf_core_t)i);
        else if (!start_named(w, (rf_core_t)i) && w->phase != SIM_PHASE_FORMING &&
                 w->now_ns >= p->join_due_ns && (w->knobs.restart > 0 || w->phase == SIM_PHASE_SETTLE)) {
            ask_for_join(w, (rf_core_t)i, at);
            if (again < w->n_cores) ask_for_join(w, (rf_core_t)i, again);
        }
    }
    if (w->phase == SIM_PHASE_END) return;
    uint64_t period_ns = w->params.silence_ns / 3;
    sim_push(w, w->now_ns + period_ns / 2 + rf_prng_below(&w->choices, period_ns), SIM_EVENT_HOST)->x = host;
}
