/* Progress of whole monitors after faults have stopped: within a bounded time every core is a member of one view again and has
 * applied the same log, every client has its answers, every watcher has been told of everything, what the machine says is
 * running is what runs, and nothing is owned by who has gone. Then: all replicas are equal, and the queue holds what was put in and
 * not taken. */
#include "sim/monitors.h"

#include <stdio.h>

static bool clients_rest(const sim_world_t *w, char *why, size_t why_size)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        const sim_mclient_t *c = &w->monitors->clients[i];
        if (c->kind == SIM_WATCHER ? c->up && check_registry_all_told(w, c) : c->state == SIM_M_REST)
            continue;
        snprintf(why, why_size,
                 "client %u is in state %d, operation %d since %.3f ms, through core %u; watched up to %llu "
                 "of %llu",
                 i, (int)c->state, (int)c->op, (double)(w->now_ns - c->called_ns) / 1e6, c->core,
                 (unsigned long long)c->watched, (unsigned long long)w->monitors->revision);
        return false;
    }
    return true;
}

static bool cores_rest(const sim_world_t *w, char *why, size_t why_size)
{
    uint64_t view = 0, end = 0;
    rf_core_t leader = RF_CORE_NONE;
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *p = &w->processes[i];
        if (!p->alive) {
            snprintf(why, why_size, "core %u does not get back into the machine", i);
            return false;
        }
        agreement_state_t s;
        agreement_query(p->engine, &s);
        const monitor_t *m = w->monitors->monitors[i].monitor;
        if (i == 0) view = s.view, leader = s.leader.core, end = p->replica->index;
        if (s.formed && s.view == view && s.members == w->n_cores && !s.joint && p->replica->index == end &&
            s.leader.core == leader && leader != RF_CORE_NONE && m->quorum && !m->frozen)
            continue;
        snprintf(
            why, why_size,
            "core %u (incarnation %u): view %llu of %llu, %u members of %u%s, log at %llu of %llu, leader %d "
            "(others: %d), phase %d, quorum %d, frozen %d",
            i, p->incarnation, (unsigned long long)s.view, (unsigned long long)view, s.members, w->n_cores,
            s.joint ? " (joint)" : "", (unsigned long long)p->replica->index, (unsigned long long)end,
            (int)(int16_t)s.leader.core, (int)(int16_t)leader, (int)m->phase, m->quorum, m->frozen);
        return false;
    }
    return true;
}

/* What the machine says is running is what runs. */
static bool domains_rest(sim_world_t *w, char *why, size_t why_size)
{
    const monitor_t *m = w->monitors->monitors[0].monitor;
    unsigned running = 0, agreed = 0;
    for (unsigned i = 0; i < w->n_cores; i++) {
        for (unsigned k = 0; k < MONITOR_LOCAL_MAX; k++)
            running += w->monitors->fake.cores[i].dispatchers[k].used;
    }
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        const domain_t *d = &m->domains[i];
        if (d->id == 0 || d->state == RF_DOMAIN_ENDED) continue;
        agreed++;
        if (d->state == RF_DOMAIN_RUNNING && fake_dispatcher(&w->monitors->fake, d->cores[0], d->id, 0))
            continue;
        snprintf(why, why_size, "domain %llu on core %u is in state %u, and %s", (unsigned long long)d->id,
                 d->cores[0], d->state,
                 fake_dispatcher(&w->monitors->fake, d->cores[0], d->id, 0) ? "runs" : "does not run");
        return false;
    }
    if (running == agreed) return true;
    snprintf(why, why_size, "%u domains run, and %u are agreed on", running, agreed);
    return false;
}

static bool owners_rest(const sim_world_t *w, char *why, size_t why_size)
{
    static const registry_kind_t kinds[] = {REGISTRY_KEY, REGISTRY_LOCK};
    const registry_t *r = w->monitors->monitors[0].monitor->registry;
    for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        char from[REGISTRY_NAME_MAX + 2];
        size_t size = 0;
        registry_entry_t e;
        while (registry_next(r, kinds[k], "", 0, from, size, &e)) {
            bool owned = e.domain != 0 || e.session != 0;
            bool holds = false;
            for (unsigned i = 0; i < w->n_clients && kinds[k] == REGISTRY_LOCK; i++)
                holds |= w->monitors->clients[i].token == e.revision;
            if (owned &&
                (!sim_mclient_owner_lives(w, e.domain, e.session) || (kinds[k] == REGISTRY_LOCK && !holds))) {
                snprintf(why, why_size, "%s is owned by %llu.%llu, who has gone or does not know", e.name,
                         (unsigned long long)e.domain, (unsigned long long)e.session);
                return false;
            }
            size = e.name_size + 1u;
            memcpy(from, e.name, size);
        }
    }
    return true;
}

bool check_monitors_at_rest(sim_world_t *w, char *why, size_t why_size)
{
    return clients_rest(w, why, why_size) && cores_rest(w, why, why_size) && domains_rest(w, why, why_size) &&
           owners_rest(w, why, why_size);
}

static void check_queue(sim_world_t *w)
{
    sim_monitors_t *all = w->monitors;
    uint64_t acknowledged = 0, pushed = 0, popped = 0, left = 0;
    registry_entry_t e;
    if (registry_get(all->monitors[0].monitor->registry, REGISTRY_QUEUE, "q", 1, &e)) left = e.used;
    for (uint32_t i = 0; i < all->max_elements; i++) {
        pushed += all->elements[i].pushed;
        acknowledged += all->elements[i].acknowledged;
        popped += all->elements[i].popped;
    }
    if (acknowledged > popped + left + all->pops_unknown || popped + left > pushed)
        sim_violation(
            w, "queue", "%llu were put in (%llu more perhaps), %llu taken (%llu more perhaps), %llu are left",
            (unsigned long long)acknowledged, (unsigned long long)(pushed - acknowledged),
            (unsigned long long)popped, (unsigned long long)all->pops_unknown, (unsigned long long)left);
}

void check_monitors_end(sim_world_t *w)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        monitor_check(w->monitors->monitors[i].monitor);
        if (i > 0) fake_check_pair(w->monitors->monitors[i].monitor, w->monitors->monitors[0].monitor);
    }
    check_queue(w);
}
