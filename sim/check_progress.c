/* Progress after faults stop: within a bounded time every core is a member of one view again, all replicas hold the same
 * log, and every client gets its answers. */
#include "sim.h"

static uint64_t log_end(const sim_world_t *w)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->processes[i].alive && w->processes[i].replica->index > end)
            end = w->processes[i].replica->index;
    }
    return end;
}

bool check_progress(sim_world_t *w, char *why, size_t why_size)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        const sim_client_t *c = &w->clients[i];
        if (c->state == SIM_CLIENT_REST) continue;
        snprintf(why, why_size,
                 "client %u has no answer since %.3f ms (%s; through core %u, session %llx, sequence %llu)",
                 i, (double)(w->now_ns - c->started_ns) / 1e6,
                 c->state == SIM_CLIENT_OPENING ? "opening a session" : "operation", c->core,
                 (unsigned long long)c->session, (unsigned long long)c->sequence);
        return false;
    }
    uint64_t end = log_end(w), view = 0;
    rf_core_t leader = RF_CORE_NONE;
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *p = &w->processes[i];
        if (!p->alive) {
            snprintf(why, why_size, "core %u does not get back into the machine", i);
            return false;
        }
        agreement_state_t s;
        agreement_query(p->engine, &s);
        if (i == 0) view = s.view;
        if (leader == RF_CORE_NONE) leader = s.leader.core;
        if (s.formed && s.view == view && s.members == w->n_cores && !s.joint && p->replica->index == end &&
            s.leader.core == leader && leader != RF_CORE_NONE)
            continue;
        snprintf(why, why_size,
                 "core %u (incarnation %u): %s, view %llu of %llu, term %llu, %u members of %u%s, log at "
                 "%llu of %llu, role %d, "
                 "leader %d (others: %d), %u voters, quorum %d, lost %d",
                 i, p->incarnation, s.formed ? "formed" : "not formed", (unsigned long long)s.view,
                 (unsigned long long)view, (unsigned long long)s.term, s.members, w->n_cores,
                 s.joint ? " (joint)" : "", (unsigned long long)p->replica->index, (unsigned long long)end,
                 (int)s.role, (int)(int16_t)s.leader.core, (int)(int16_t)leader, s.n_voters, (int)s.quorum,
                 (int)s.lost);
        return false;
    }
    return true;
}
