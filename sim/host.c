/*
 * What a host does about its cores, and says of others': evidence by the kernel, only of processes that are truly dead and
 * only from the same host; suspicion by silence; fencing; and starting a dead core's monitor again as what the log says
 * it is: a new incarnation.
 */
#include "groups.h"
#include "sim/monitors.h"
#include "sim/rdma.h"

#define JOIN_TIMEOUT_NS (100 * RF_NS_PER_MS)

void sim_host_died(sim_world_t *w, rf_core_t core, bool known)
{
    if (w->monitors) {
        sim_monitors_died(w, core, known);
        return;
    }
    if (w->rdma) {
        sim_rdma_died(w, core);
        return;
    }
    sim_process_t *p = &w->processes[core];
    unsigned host = w->host[core];
    for (unsigned i = w->host_first[host]; known && i < w->host_first[host + 1]; i++) {
        if (!w->processes[i].alive) continue;
        sim_event_t *event =
            sim_push(w, w->now_ns + sim_exponential(&w->choices, 100 * RF_NS_PER_US), SIM_EVENT_DEATH);
        event->core = (rf_core_t)i;
        event->life = w->processes[i].life;
        event->peer = (agreement_member_t){.core = core, .incarnation = p->incarnation};
        event->x = AGREEMENT_EVIDENCE_KERNEL;
    }
    if (w->groups) sim_groups_died(w, core);
    uint64_t mean_ms = w->phase == SIM_PHASE_SETTLE ? 1 : w->knobs.restart;
    p->join_due_ns = w->now_ns + sim_exponential(&w->choices, (mean_ms + 1) * RF_NS_PER_MS);
}

/* ---- restarts and joins ---- */

/* A random live member to ask; NULL: nobody is there. */
static sim_process_t *somebody(sim_world_t *w)
{
    for (unsigned i = 0; i < 32; i++) {
        sim_process_t *p = &w->processes[rf_prng_below(&w->choices, w->n_cores)];
        if (p->alive) return p;
    }
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->processes[i].alive) return &w->processes[i];
    }
    return NULL;
}

/* How many cores may join by one change: each may be a member that leaves and one that joins, beside both sets of voters. */
static unsigned joins_max(const sim_world_t *w)
{
    unsigned fit = (w->params.entry_max - 32) / 8 - 2 * AGREEMENT_VOTERS_MAX;
    return fit / 2 < AGREEMENT_CHANGES_MAX / 2 ? fit / 2 : AGREEMENT_CHANGES_MAX / 2;
}

/* Asks for the host's dead cores that are due, by one change. */
static void ask_for_joins(sim_world_t *w, unsigned host)
{
    rf_core_t first = RF_CORE_NONE;
    unsigned n = 0;
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        sim_process_t *p = &w->processes[i];
        if (p->alive || w->now_ns < p->join_due_ns || n == joins_max(w)) continue;
        if (w->steps_log && (i != w->seed % STEPS_CORES || p->incarnation > 1)) continue; /* one, once */
        n++;
        p->joining = true;
        p->host_stamp++;
        p->join_due_ns = w->now_ns + JOIN_TIMEOUT_NS;
        if (first == RF_CORE_NONE) first = (rf_core_t)i;
    }
    sim_process_t *asked = first == RF_CORE_NONE ? NULL : somebody(w);
    if (!asked) return;
    sim_event_t *event =
        sim_push(w, w->now_ns + sim_exponential(&w->choices, 20 * RF_NS_PER_US), SIM_EVENT_CHANGE);
    event->core = asked->core;
    event->life = asked->life;
    event->peer.core = first;
}

void sim_host_change(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    agreement_event_t e = {.kind = AGREEMENT_CHANGE};
    rf_core_t join[AGREEMENT_CHANGES_MAX];
    if (event->x == 1) {
        e.change.leave = &event->peer;
        e.change.n_leave = 1;
        e.change.sequence = sim_process_sequence(p, SIM_WAIT_LEAVE, event->peer.core, 0);
        check_once_change(w, agreement_own_session(p->engine), e.change.sequence);
        sim_process_step(w, p, &e);
        return;
    }
    unsigned host = w->host[event->peer.core], n = 0;
    for (unsigned i = event->peer.core; i < w->host_first[host + 1] && n < joins_max(w); i++) {
        if (!w->processes[i].alive && w->processes[i].joining) join[n++] = (rf_core_t)i;
    }
    if (n == 0 || join[0] != event->peer.core) return;
    e.change.join = join;
    e.change.n_join = n;
    e.change.sequence = sim_process_sequence(p, SIM_WAIT_JOIN, join[0], w->processes[join[0]].host_stamp);
    check_once_change(w, agreement_own_session(p->engine), e.change.sequence);
    sim_process_step(w, p, &e);
}

static void start(sim_world_t *w, rf_core_t core, rf_incarnation_t incarnation)
{
    sim_process_t *p = &w->processes[core];
    /* What the dead one has left is fenced before its core's number is used again by this host. */
    if (w->fenced[core] < p->incarnation) w->fenced[core] = p->incarnation;
    if (w->steps_log) steps_log_started_anew(w->steps_log, core);
    sim_process_start(w, core, incarnation);
    w->statistics->restarts++;
    sim_network_room(w);
    unsigned host = w->host[core];
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        sim_process_t *dead = &w->processes[i];
        if (dead->alive || dead->incarnation == 0) continue;
        sim_event_t *event =
            sim_push(w, w->now_ns + sim_exponential(&w->choices, 5 * RF_NS_PER_MS), SIM_EVENT_DEATH);
        event->core = core;
        event->life = p->life;
        event->peer = (agreement_member_t){.core = dead->core, .incarnation = dead->incarnation};
        event->x = AGREEMENT_EVIDENCE_KERNEL;
    }
}

void sim_host_changed(sim_world_t *w, sim_process_t *p, const sim_waiter_t *waiter, rf_err_t err,
                      uint64_t value)
{
    if (sim_traces(w))
        fprintf(stderr, "             core %u answers the change about core %u: %s, %llu\n", p->core,
                waiter->who, rf_err_name(err), (unsigned long long)value);
    if (waiter->kind != SIM_WAIT_JOIN) return;
    sim_process_t *first = &w->processes[waiter->who];
    if (first->alive || !first->joining || first->host_stamp != waiter->stamp) return;
    unsigned host = w->host[first->core];
    for (unsigned i = first->core; i < w->host_first[host + 1]; i++) {
        sim_process_t *core = &w->processes[i];
        if (core->alive || !core->joining) continue;
        core->joining = false;
        core->join_due_ns = w->now_ns + sim_exponential(&w->choices, 5 * RF_NS_PER_MS);
        if (err != RF_OK) continue;
        rf_incarnation_t incarnation = 0;
        if (core == first)
            incarnation = (rf_incarnation_t)value;
        else if (agreement_member_state(p->engine, core->core, &incarnation) != AGREEMENT_MEMBER_IN)
            continue;
        if (incarnation <= core->incarnation) {
            if (core == first)
                sim_violation(w, "machine", "core %u was to join anew, and was given incarnation %u after %u",
                              core->core, incarnation, core->incarnation);
            continue;
        }
        start(w, core->core, incarnation);
    }
}

/* ---- fencing ---- */

static void tell_fenced(sim_world_t *w, agreement_member_t member)
{
    if (w->fenced[member.core] < member.incarnation) w->fenced[member.core] = member.incarnation;
    if (w->steps_groups) steps_groups_fenced(w->steps_groups, member.core);
    for (unsigned i = 0; i < w->n_cores; i++) {
        sim_process_t *p = &w->processes[i];
        if (!p->alive) continue;
        sim_event_t *event =
            sim_push(w, w->now_ns + sim_exponential(&w->choices, 200 * RF_NS_PER_US), SIM_EVENT_FENCED);
        event->core = p->core;
        event->life = p->life;
        event->peer = member;
    }
}

static void push_kill(sim_world_t *w, agreement_member_t member, uint64_t mean_ns)
{
    sim_push(w, w->now_ns + sim_exponential(&w->choices, mean_ns), SIM_EVENT_KILL)->peer = member;
}

void sim_host_departed(sim_world_t *w, agreement_member_t member)
{
    if (member.core >= w->n_cores || member.incarnation <= w->left[member.core]) return;
    w->left[member.core] = member.incarnation;
    w->n_departures++;
    bool late = w->faults_on && sim_chance(&w->choices, w->knobs.fence_late);
    push_kill(w, member, late ? 20 * RF_NS_PER_MS : 60 * RF_NS_PER_US);
}

void sim_host_kill(sim_world_t *w, const sim_event_t *event)
{
    sim_process_t *p = &w->processes[event->peer.core];
    if (p->alive && p->incarnation == event->peer.incarnation) {
        bool mate = false, failed = w->faults_on && sim_chance(&w->choices, w->knobs.fence_late / 4);
        unsigned host = w->host[p->core];
        for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
            if (i != p->core && w->processes[i].alive && !sim_process_stalled(w, &w->processes[i]))
                mate = true;
        }
        /* Nobody there to reap it: it ends when it learns that it is fenced, at the latest when its host is reached. */
        if ((!mate && !w->groups) || failed) {
            push_kill(w, event->peer, 5 * RF_NS_PER_MS);
            return;
        }
        w->statistics->expulsions++;
        sim_process_kill(w, p->core);
        sim_host_died(w, p->core, true);
    }
    tell_fenced(w, event->peer);
}

/* ---- looking after all of it ---- */

/* Members that this host has not heard for longer than the timeout are reported by one of its processes. */
static void report_silence(sim_world_t *w, unsigned host)
{
    sim_process_t *reporter = NULL;
    unsigned first = w->host_first[host], n = w->host_first[host + 1] - first;
    unsigned from = (unsigned)rf_prng_below(&w->choices, n);
    for (unsigned i = 0; i < n && !reporter; i++) {
        sim_process_t *p = &w->processes[first + (from + i) % n];
        if (p->alive && !p->carrying && p->busy_until_ns <= w->now_ns) reporter = p;
    }
    if (!reporter) return;
    for (unsigned i = 0; i < w->n_cores; i++) {
        sim_process_t *p = &w->processes[i];
        rf_incarnation_t incarnation = 0;
        if (agreement_member_state(reporter->engine, (rf_core_t)i, &incarnation) != AGREEMENT_MEMBER_IN)
            continue;
        unsigned other = w->host[i];
        uint64_t since_ns = RF_NEVER;
        if (!p->alive || p->incarnation != incarnation || p->quiet_since_ns != RF_NEVER)
            since_ns = p->quiet_since_ns == RF_NEVER ? 0 : p->quiet_since_ns;
        if (p->alive && p->incarnation > incarnation) since_ns = 0;
        if (p->alive && p->incarnation < incarnation) since_ns = p->started_ns;
        if (other != host && sim_network_cut(w, other, host) && w->cut_since_ns[other][host] < since_ns)
            since_ns = w->cut_since_ns[other][host];
        if (since_ns == RF_NEVER || w->now_ns < since_ns + w->params.silence_ns) continue;
        sim_event_t *event = sim_push(w, w->now_ns + 1, SIM_EVENT_DEATH);
        event->core = reporter->core;
        event->life = reporter->life;
        event->peer = (agreement_member_t){.core = (rf_core_t)i, .incarnation = incarnation};
        event->x = AGREEMENT_EVIDENCE_SILENCE;
    }
}

/*
 * One that was started and that nobody feeds is of an incarnation that has left already. A joiner that nobody speaks to
 * for long ends; one that waits to be formed dials the others, and is told. Either is started anew.
 */
static void end_forgotten(sim_world_t *w, unsigned host)
{
    uint64_t patience_ns = 10 * (w->params.silence_ns + w->params.election_ns);
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        sim_process_t *p = &w->processes[i];
        if (!p->alive || p->incarnation > w->left[i]) continue;
        agreement_state_t state;
        agreement_query(p->engine, &state);
        if (state.formed) continue;
        if (p->incarnation == 1) {
            sim_network_dial(w, p, (rf_core_t)rf_prng_below(&w->choices, w->n_cores));
            continue;
        }
        if (w->now_ns < p->started_ns + patience_ns) continue;
        sim_process_kill(w, (rf_core_t)i);
        sim_host_died(w, (rf_core_t)i, true);
    }
}

void sim_host_look(sim_world_t *w, unsigned host)
{
    if (w->monitors) {
        sim_monitors_look(w, host);
        return;
    }
    if (w->rdma) {
        sim_rdma_look(w, host);
        return;
    }
    if (w->groups) {
        sim_groups_look(w, host);
        return;
    }
    if (w->phase != SIM_PHASE_FORMING) {
        end_forgotten(w, host);
        bool never = w->options->sim_defects & SIM_DEFECT_NEVER_REJOINS;
        if (!never && (w->knobs.restart > 0 || w->phase == SIM_PHASE_SETTLE)) ask_for_joins(w, host);
        report_silence(w, host);
    }
    if (w->phase == SIM_PHASE_END) return;
    uint64_t period_ns = w->params.silence_ns / 3;
    sim_push(w, w->now_ns + period_ns / 2 + rf_prng_below(&w->choices, period_ns), SIM_EVENT_HOST)->x = host;
}
