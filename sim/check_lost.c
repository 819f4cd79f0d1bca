/* Nothing acknowledged is lost: what a client was told is in the log, with the result that it was told, and every live
 * member holds it in the end. */
#include "sim.h"

void check_lost_acknowledged(sim_world_t *w, sim_process_t *p, uint64_t session, uint64_t sequence,
                             uint64_t value)
{
    sim_ledger_command_t *c = sim_ledger_command(w, session, sequence, false);
    if (!c || c->index == 0) {
        sim_violation(w, "lost", "core %u acknowledges session %llx, sequence %llu, which nobody has applied",
                      p->core, (unsigned long long)session, (unsigned long long)sequence);
        return;
    }
    if (c->value != value)
        sim_violation(w, "once", "session %llx, sequence %llu gave %llx, and core %u answers %llx",
                      (unsigned long long)session, (unsigned long long)sequence, (unsigned long long)c->value,
                      p->core, (unsigned long long)value);
    if (c->index > w->ledger.acknowledged) w->ledger.acknowledged = c->index;
}

void check_lost_end(sim_world_t *w)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *p = &w->processes[i];
        if (p->alive && p->replica->index < w->ledger.acknowledged)
            sim_violation(w, "lost", "index %llu was acknowledged, and core %u ends at %llu",
                          (unsigned long long)w->ledger.acknowledged, i,
                          (unsigned long long)p->replica->index);
    }
}
