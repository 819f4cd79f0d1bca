/* Fenced means silent: once the log says that a member has left, nothing of its own session is executed; once it is
 * fenced, nothing that it sent is delivered. */
#include "sim.h"

static uint64_t own_session(agreement_member_t member)
{
    return (uint64_t)member.incarnation << 16 | member.core;
}

void check_fence_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *e)
{
    if (e->kind == AGREEMENT_ENTRY_VIEW) {
        for (unsigned i = 0; i < e->n_changes; i++) {
            if (e->changes[i].joined) continue;
            sim_ledger_command_t *left = sim_ledger_command(w, own_session(e->changes[i].member), 0, true);
            if (left->index == 0) left->index = e->index;
        }
    }
    if (e->kind != AGREEMENT_ENTRY_COMMAND || e->duplicate) return;
    const sim_ledger_command_t *left = sim_ledger_command(w, e->session, 0, false);
    if (left && left->index > 0 && left->index < e->index)
        sim_violation(
            w, "fence",
            "core %u executes at index %llu a command of core %llu, whose incarnation %llu left at %llu",
            p->core, (unsigned long long)e->index, (unsigned long long)(e->session & 0xffff),
            (unsigned long long)(e->session >> 16), (unsigned long long)left->index);
}

void check_fence_delivered(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    if (event->peer.incarnation <= w->fenced[event->peer.core])
        sim_violation(w, "fence", "core %u is given a message of core %u, incarnation %u, which is fenced",
                      p->core, event->peer.core, event->peer.incarnation);
}
