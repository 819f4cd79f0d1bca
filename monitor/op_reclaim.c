/*
 * Reclaiming what a core had that has left the view: locks and permits held, ephemeral things, exported names, its domains.
 *
 *   holding      the view without it has been applied: all that stays its own, but for places in lines. Part of the replica
 *      |         the core is fenced (op_fence.c): nothing of it runs any more
 *      |         the leader proposes RECLAIM; where that does not come about, any member that knows of the fence, a second later
 *   PROPOSING    until it is in the log
 *      |         not agreed on: again a second later
 *   reclaimed    the entry has been applied, at every replica alike: next holders, ends of domains
 *
 * Whoever proposes may die at any point: the replica says what is left to do, and the entry a second time does nothing.
 */
#include "monitor/state.h"

/* RF_NEVER: not before something happens. */
static uint64_t due_ns(const monitor_t *m, const core_t *c)
{
    if (c->holding == 0 || c->fence != FENCE_DONE || c->left < c->holding || c->reclaiming) return RF_NEVER;
    bool leads = m->agree.state.role == AGREEMENT_ROLE_LEADER;
    uint64_t turn_ns = leads ? 0 : c->fenced_ns + RECLAIM_NS;
    return turn_ns > c->reclaim_ns ? turn_ns : c->reclaim_ns;
}

static void propose(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    c->reclaim_ns = m->now_ns + RECLAIM_NS;
    op_t *op = op_begin(m, OP_RECLAIM, RF_NEVER);
    if (!op) return;
    c->reclaiming = true;
    op->fence.core = core;
    command_t command = {.op = COMMAND_RECLAIM, .core = core, .incarnation = c->holding, .at_ns = m->real_ns};
    agree_propose(m, op, &command);
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    (void)err;
    (void)value;
    m->cores[op->fence.core].reclaiming = false;
    op_end(m, op);
}

const op_class_t op_reclaim_class = {.name = "reclaim", .proposed = proposed};

void reclaim_tick(monitor_t *m)
{
    if (!m->reclaims_due || !m->quorum) return;
    m->reclaims_due = false;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (due_ns(m, c) <= m->now_ns) propose(m, core);
        m->reclaims_due |= c->holding != 0;
    }
}

uint64_t reclaim_next_ns(const monitor_t *m)
{
    uint64_t next = RF_NEVER;
    for (rf_core_t core = 0; m->reclaims_due && m->quorum && core < m->boot->n_cores; core++) {
        uint64_t due = due_ns(m, &m->cores[core]);
        if (due < next) next = due;
    }
    return next;
}
