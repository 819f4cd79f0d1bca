/* No second machine: one FORM entry, at index 1, the same for all; views only rise. Only who leaves in order leaves fewer than two voters. */
#include "sim.h"

/* By the leader: its newest voters are those of the view that it applies, since it begins no other before. */
static void check_two_voters(sim_world_t *w, sim_process_t *p, const agreement_apply_t *e)
{
    sim_ledger_t *l = &w->ledger;
    agreement_state_t s;
    agreement_query(p->engine, &s);
    if (s.role != AGREEMENT_ROLE_LEADER || s.joint || e->index <= l->voters_index) return;
    bool in_order = false;
    for (unsigned i = 0; i < e->n_changes; i++) in_order |= e->changes[i].in_order;
    if (s.n_voters < 2 && l->n_voters >= 2 && !in_order)
        sim_violation(w, "machine", "index %llu expels until one voter is left",
                      (unsigned long long)e->index);
    l->voters_index = e->index;
    l->n_voters = s.n_voters;
}

void check_machine_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *e)
{
    if (e->kind == AGREEMENT_ENTRY_VIEW || e->kind == AGREEMENT_ENTRY_FORM) check_two_voters(w, p, e);
    if (e->kind == AGREEMENT_ENTRY_VIEW && !e->duplicate && p->core == sim_ledger_at(w, e->index)->by)
        w->statistics->views++;
    if (e->kind != AGREEMENT_ENTRY_FORM) {
        if (e->index <= 1)
            sim_violation(w, "machine", "core %u begins its log with an entry of kind %d", p->core,
                          (int)e->kind);
        return;
    }
    uint64_t hash = sim_mix(e->term, e->n_changes);
    for (unsigned i = 0; i < e->n_changes; i++)
        hash = sim_mix(hash, (uint64_t)e->changes[i].member.incarnation << 16 | e->changes[i].member.core);
    hash |= 1;
    if (e->index != 1 || (w->ledger.formed_hash && w->ledger.formed_hash != hash))
        sim_violation(w, "machine", "core %u (incarnation %u) forms another machine, at index %llu", p->core,
                      p->incarnation, (unsigned long long)e->index);
    w->ledger.formed_hash = hash;
}
