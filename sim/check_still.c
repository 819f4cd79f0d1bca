/*
 * Fenced means still: when any monitor takes a member that has left for fenced (monitor/op_fence.c), its process is gone, or,
 * where nobody was left on its host to see to that, none of its dispatchers runs: they are frozen, by their monitor, or because
 * it stood still and did not put off its lease. That leans on clocks that go, so it is not asked where a seed stops them.
 */
#include "sim/monitors.h"

#include <stdlib.h>

static bool any_runs(const sim_world_t *w, rf_core_t core)
{
    const fake_core_t *c = &w->monitors->fake.cores[core];
    if (!fake_core_runs(c, sim_clock_local(w, w->host[core]))) return false;
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        if (c->dispatchers[i].used) return true;
    }
    return false;
}

void check_still_stepped(sim_world_t *w, sim_process_t *p)
{
    sim_monitor_t *m = &w->monitors->monitors[p->core];
    if (m->n_fenced == m->monitor->n_fenced) return;
    m->n_fenced = m->monitor->n_fenced;
    if (!m->fenced) m->fenced = calloc(w->n_cores, sizeof *m->fenced);
    rf_assert(m->fenced);
    for (unsigned i = 0; i < w->n_cores; i++) {
        const core_t *c = &m->monitor->cores[i];
        if (c->fence != FENCE_DONE || c->left <= m->fenced[i]) continue;
        m->fenced[i] = c->left;
        const sim_process_t *q = &w->processes[i];
        if (!w->knobs.clock_stop && q->alive && q->incarnation == c->left && any_runs(w, (rf_core_t)i))
            sim_violation(w, "still",
                          "core %u takes core %u, incarnation %u, for fenced, and its dispatchers run",
                          p->core, i, c->left);
    }
}
