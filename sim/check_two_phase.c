/* Two-phase operations: all or nothing, whoever dies (no operation is applied by one and aborted by another, or
 * applied after its caller was told that nothing has happened); and stable before visible (nobody applies it, and the caller is
 * not answered, before every member that is not fenced has recorded it).
 *
 * An abort is presumed, not recorded: if all who know of it are fenced, and the caller has not been told, then the caller's
 * request is as new to the next owner. So an abort binds while one that has aborted is not fenced; what is applied binds for
 * ever. */
#include "groups.h"

static void check_stable(sim_world_t *w, sim_process_t *p, uint32_t number, uint64_t group, const char *what)
{
    const sim_group_op_t *op = &w->groups->ops[number];
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *m = &w->processes[i];
        agreement_member_t member = {.core = m->core, .incarnation = m->incarnation};
        if (!m->alive || m->incarnation <= w->fenced[i] || !sim_group_holds(w, member, group, op->first_ns))
            continue;
        if (op->prepared[i] == m->incarnation || op->applied[i] == m->incarnation) continue;
        sim_violation(
            w, "two-phase",
            "operation %llu of core %u on group %llu is %s at core %u before core %u has recorded it",
            (unsigned long long)op->id.counter, op->id.member.core, (unsigned long long)group, what, p->core,
            i);
    }
}

/* Somebody who is not fenced has aborted it. */
static bool is_aborted(const sim_world_t *w, const sim_group_op_t *op)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (op->aborted[i] > w->fenced[i]) return true;
    }
    return false;
}

static void check_atomic(sim_world_t *w, const sim_process_t *p, const sim_group_op_t *op)
{
    bool aborted = is_aborted(w, op);
    if (op->is_applied && (aborted || op->is_refused))
        sim_violation(
            w, "two-phase", "operation %llu of core %u on group %llu is applied and %s; core %u sees it",
            (unsigned long long)op->id.counter, op->id.member.core, (unsigned long long)op->id.group,
            aborted ? "aborted" : "answered as not done", p->core);
}

void check_two_phase_applied(sim_world_t *w, sim_process_t *p, uint32_t number, const uint64_t *groups,
                             unsigned n_groups)
{
    sim_group_op_t *op = &w->groups->ops[number];
    op->is_applied = true;
    check_atomic(w, p, op);
    for (unsigned i = 0; i < n_groups; i++) check_stable(w, p, number, groups[i], "applied");
}

void check_two_phase_aborted(sim_world_t *w, sim_process_t *p, uint32_t number)
{
    sim_group_op_t *op = &w->groups->ops[number];
    op->aborted[p->core] = p->incarnation;
    check_atomic(w, p, op);
}

void check_two_phase_completed(sim_world_t *w, sim_process_t *p, uint32_t number)
{
    sim_group_op_t *op = &w->groups->ops[number];
    op->is_answered = true;
    if (is_aborted(w, op) || op->is_refused)
        sim_violation(
            w, "two-phase", "operation %llu of core %u on group %llu is answered as done, and was aborted",
            (unsigned long long)op->id.counter, op->id.member.core, (unsigned long long)op->id.group);
    check_stable(w, p, number, op->id.group, "answered");
}

void check_two_phase_refused(sim_world_t *w, sim_process_t *p, uint32_t number, rf_err_t err)
{
    sim_group_op_t *op = &w->groups->ops[number];
    (void)err;
    op->is_refused = true;
    check_atomic(w, p, op);
}
