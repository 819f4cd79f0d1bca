/* One-phase completeness: when the caller is answered, every member that may still run has applied the operation. So no access
 * through a stale mapping is possible after unmap or revoke have returned: a stalled member counts, for its domains
 * run on; only one that is fenced does not. */
#include "groups.h"

void check_one_phase_completed(sim_world_t *w, sim_process_t *p, uint32_t number)
{
    sim_group_op_t *op = &w->groups->ops[number];
    op->is_answered = true;
    group_info_t info;
    if (!sim_group_members(p, op->id.group, &info)) return;
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *m = &w->processes[i];
        agreement_member_t member = {.core = m->core, .incarnation = m->incarnation};
        if (!m->alive || m->incarnation <= w->fenced[i] ||
            !sim_group_holds(w, member, op->id.group, op->first_ns))
            continue;
        if (op->applied[i] == m->incarnation) continue;
        sim_violation(w, "one-phase",
                      "operation %llu of core %u on group %llu is answered, and core %u (incarnation %u) has "
                      "not applied it",
                      (unsigned long long)op->id.counter, op->id.member.core,
                      (unsigned long long)op->id.group, i, m->incarnation);
    }
}
