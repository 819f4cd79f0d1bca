/* At most one leader a term (Raft, Figure 3.2: election safety), and no engine goes back in term or commit. */
#include "sim.h"

#include <stdlib.h>

#define TERMS_MAX (1u << 20)

void check_leader(sim_world_t *w, sim_process_t *p)
{
    agreement_state_t s;
    agreement_query(p->engine, &s);
    if (s.term < p->term_max)
        sim_violation(w, "leader", "core %u goes back from term %llu to %llu", p->core,
                      (unsigned long long)p->term_max, (unsigned long long)s.term);
    if (s.committed < p->committed_max || s.applied > s.committed || s.committed > s.last)
        sim_violation(w, "leader", "core %u: last %llu, committed %llu after %llu, applied %llu", p->core,
                      (unsigned long long)s.last, (unsigned long long)s.committed,
                      (unsigned long long)p->committed_max, (unsigned long long)s.applied);
    p->term_max = s.term;
    p->committed_max = s.committed;
    if (s.role != AGREEMENT_ROLE_LEADER) return;
    sim_ledger_t *l = &w->ledger;
    if (s.term >= TERMS_MAX) {
        sim_violation(w, "leader", "term %llu: elections without end", (unsigned long long)s.term);
        return;
    }
    if (s.term >= l->max_leaders) {
        size_t max = l->max_leaders ? l->max_leaders : 256;
        while (max <= s.term) max *= 2;
        l->leaders = realloc(l->leaders, max * sizeof *l->leaders);
        rf_assert(l->leaders);
        memset(l->leaders + l->max_leaders, 0, (max - l->max_leaders) * sizeof *l->leaders);
        l->max_leaders = max;
    }
    agreement_member_t *leader = &l->leaders[s.term];
    if (leader->incarnation == 0) {
        *leader = (agreement_member_t){.core = p->core, .incarnation = p->incarnation};
        w->statistics->elections++;
        sim_faults_led(w, p->core);
    } else if (leader->core != p->core || leader->incarnation != p->incarnation) {
        sim_violation(w, "leader", "term %llu has two leaders: core %u (incarnation %u) and core %u (%u)",
                      (unsigned long long)s.term, leader->core, leader->incarnation, p->core, p->incarnation);
    }
}
