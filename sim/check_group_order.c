/*
 * Members apply the operations on a group in one order, each once: that of one who has held it from the beginning is a
 * prefix of that of any other. One that has left is none any more, though it may run until it is fenced: what only such
 * ones have applied may go another way, unless it was answered.
 */
#include "groups.h"

#include <stdlib.h>

/* Whether a member that has not left has applied it. */
static bool stands(const sim_world_t *w, const sim_group_op_t *op)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *p = &w->processes[i];
        if (p->alive && op->applied[i] == p->incarnation && p->incarnation > w->left[i]) return true;
    }
    return op->is_answered;
}

void check_group_order_applied(sim_world_t *w, sim_process_t *p, uint32_t op, uint64_t group,
                               uint64_t position, uint64_t holds_since_ns)
{
    sim_groups_t *l = w->groups;
    unsigned g = (unsigned)group - 1;
    if (l->ops[op].applied[p->core] == p->incarnation && l->ops[op].id.group == group)
        sim_violation(w, "group-order", "core %u applies operation %llu of core %u on group %llu twice",
                      p->core, (unsigned long long)l->ops[op].id.counter, l->ops[op].id.member.core,
                      (unsigned long long)group);
    if (holds_since_ns > l->formed_ns[g]) return; /* joined later: it has what was before from elsewhere */
    if (p->incarnation <= w->left[p->core]) return;
    if (position < l->n_order[g] && l->order[g][position] != op && !stands(w, &l->ops[l->order[g][position]]))
        l->n_order[g] = (uint32_t)position;
    if (position > l->n_order[g]) return; /* those before it are only known by members that have left */
    if (position == l->n_order[g]) {
        if (l->n_order[g] == l->max_order[g]) {
            l->max_order[g] = l->max_order[g] ? l->max_order[g] * 2 : 256;
            l->order[g] = realloc(l->order[g], l->max_order[g] * sizeof *l->order[g]);
            rf_assert(l->order[g]);
        }
        l->order[g][l->n_order[g]++] = op;
    } else if (l->order[g][position] != op) {
        sim_violation(w, "group-order",
                      "group %llu: core %u applies as its %lluth operation that of core %u, counter %llu; "
                      "others had that of core "
                      "%u, counter %llu",
                      (unsigned long long)group, p->core, (unsigned long long)position,
                      l->ops[op].id.member.core, (unsigned long long)l->ops[op].id.counter,
                      l->ops[l->order[g][position]].id.member.core,
                      (unsigned long long)l->ops[l->order[g][position]].id.counter);
    }
}
