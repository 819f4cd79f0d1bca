/* Exactly once: a (session, sequence) is executed at one index and has one result, however often it was sent; and never
 * after a client was told that it was not executed (Raft 6.3). A change of members is executed by the view that holds it. */
#include "sim.h"

void check_once_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *e, uint64_t value)
{
    bool change = e->kind == AGREEMENT_ENTRY_VIEW && e->session != 0 && e->n_changes > 0;
    if (e->kind != AGREEMENT_ENTRY_COMMAND && !change) return;
    if (change) value = 0; /* its result is who asked's alone */
    sim_ledger_command_t *c = sim_ledger_command(w, e->session, e->sequence, true);
    if (e->duplicate) {
        w->statistics->duplicates++;
        if (c->index == 0)
            sim_violation(w, "once",
                          "core %u takes session %llx, sequence %llu for executed, which it never was",
                          p->core, (unsigned long long)e->session, (unsigned long long)e->sequence);
        return;
    }
    if (c->refused)
        sim_violation(
            w, "once",
            "session %llx, sequence %llu is executed at index %llu, and was answered as not executed",
            (unsigned long long)e->session, (unsigned long long)e->sequence, (unsigned long long)e->index);
    if (c->index == 0) {
        c->index = e->index;
        c->value = value;
    } else if (c->index != e->index) {
        sim_violation(w, "once",
                      "session %llx, sequence %llu is executed at index %llu and by core %u again at %llu",
                      (unsigned long long)e->session, (unsigned long long)e->sequence,
                      (unsigned long long)c->index, p->core, (unsigned long long)e->index);
    } else if (c->value != value) {
        sim_violation(w, "once", "session %llx, sequence %llu has two results: %llx and, at core %u, %llx",
                      (unsigned long long)e->session, (unsigned long long)e->sequence,
                      (unsigned long long)c->value, p->core, (unsigned long long)value);
    }
}

void check_once_refused(sim_world_t *w, uint64_t session, uint64_t sequence)
{
    sim_ledger_command_t *c = sim_ledger_command(w, session, sequence, true);
    if (c->index > 0)
        sim_violation(
            w, "once", "session %llx, sequence %llu is answered as not executed, and was at index %llu",
            (unsigned long long)session, (unsigned long long)sequence, (unsigned long long)c->index);
    c->refused = true;
}

void check_once_change(sim_world_t *w, uint64_t session, uint64_t sequence)
{
    sim_ledger_command(w, session, sequence, true)->change = true;
}

void check_once_changed(sim_world_t *w, uint64_t session, uint64_t sequence, rf_err_t err)
{
    const sim_ledger_command_t *c = sim_ledger_command(w, session, sequence, false);
    if (c && c->change && err != RF_OK && err != RF_ERR_UNKNOWN_OUTCOME)
        check_once_refused(w, session, sequence);
}
