/*
 * Fencing who has left the view: nothing of that core may run any more before it is said to be fenced.
 *
 *   DUE      a view without (core, incarnation) has been applied; its links are not read from then on. Who leaves in order
 *     |      has a moment to end by itself
 *     |      a member is on its host: the lowest other one, or its own next incarnation, has its CPU driver kill and reap all
 *     |      processes of that core
 *   ASKED ------ answered: FENCED to every member; not in time: its host is to be expelled, said by FENCED as well, again and again.
 *     |      A leader that is itself on that host makes way for one that is not. Until the host has left it is tried again
 *     |      nobody is there: that host's CPU drivers have frozen its dispatchers T_self after its last contact with the
 *     |      quorum, which was before the view, or, if its monitors were stopped, at the end of their leases; so after T_expel,
 *     |      which is longer by more than clocks differ, nothing runs
 *   DONE     the engine is told; what the core had is reclaimed (op_reclaim.c)
 *
 * Every member goes through the same states by itself; if who is to do it dies too, the next one begins again.
 */
#include "monitor/state.h"

/* Whoever is DUE or FAILED is within the range: only this is looked through at each tick. */
static void is_due(monitor_t *m, rf_core_t core)
{
    if (!m->fences_due || core < m->fences_from) m->fences_from = core;
    if (!m->fences_due || core > m->fences_to) m->fences_to = core;
    m->fences_due = true;
}

static void done(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    c->fence = FENCE_DONE;
    m->n_fenced++;
    c->fenced_ns = m->now_ns;
    agree_fenced(m, core);
}

void fence_known(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    core_t *c = &m->cores[core];
    if (incarnation > c->told_fenced) c->told_fenced = incarnation;
    if (c->left > 0 && c->left <= incarnation && c->fence != FENCE_DONE) done(m, core);
}

void fence_left(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, bool in_order)
{
    core_t *c = &m->cores[core];
    if (incarnation <= c->left) return;
    c->left = incarnation;
    c->fence = FENCE_DUE;
    c->expel_ns = m->now_ns + boot_expel_ns(m->boot);
    c->fence_ns = in_order ? m->now_ns + FENCE_GRACE_NS : m->now_ns;
    c->fence_said = false;
    is_due(m, core);
    if (incarnation <= c->told_fenced) done(m, core);
}

/* Who fences a core: the lowest other living member of its host; if there is none, what that core is by now. RF_CORE_NONE: nobody. */
static rf_core_t fencer(const monitor_t *m, rf_core_t core)
{
    const rf_boot_node_t *n = &m->boot->nodes[m->boot->node_of[core]];
    for (rf_core_t other = n->first_core; other < n->first_core + n->n_cores; other++) {
        if (other != core && core_is_alive(m, other)) return other;
    }
    return core_is_alive(m, core) ? core : RF_CORE_NONE;
}

static void tell(monitor_t *m, rf_core_t to, rf_core_t core, rf_err_t err)
{
    peer_core_t who = {.core = core, .incarnation = m->cores[core].left, .err = (uint32_t)err};
    peer_send(m, to, PEER_FENCED, &who, sizeof who, NULL, 0);
}

void fence_tell(monitor_t *m, rf_core_t to)
{
    const rf_boot_node_t *n = &m->boot->nodes[m->node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->fence == FENCE_DONE && c->left > 0) tell(m, to, core, RF_OK);
    }
}

static void ask(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    op_t *op = op_begin(m, OP_FENCE, m->now_ns + 2 * FENCE_MS * RF_NS_PER_MS);
    if (!op) return; /* again at the next tick */
    c->fence = FENCE_ASKED;
    op->fence.core = core;
    op->fence.incarnation = c->left;
    rf_kernel_fence_t fence = {.core = core, .incarnation = c->left, .deadline_ms = FENCE_MS};
    if (c->process.incarnation == c->left) {
        fence.monitor_pid = c->process.monitor_pid;
        fence.monitor_start = c->process.monitor_start;
        fence.driver_pid = c->process.driver_pid;
        fence.driver_start = c->process.driver_start;
    }
    kernel_invoke(m, op_id(m, op), RF_KERNEL_FENCE, &fence, sizeof fence, NULL, 0);
}

/* Something of it may still run: the leader expels its whole host; one of that host cannot, and makes way. */
static void host_is_to_leave(monitor_t *m, rf_core_t core)
{
    if (m->agree.state.role != AGREEMENT_ROLE_LEADER || m->boot->n_nodes < 2) return;
    if (same_node(m, core))
        agree_transfer(m);
    else
        expel_node(m, m->boot->node_of[core]);
}

static void tell_failed(monitor_t *m, rf_core_t core)
{
    m->cores[core].fence_ns = m->now_ns + FENCE_AGAIN_NS;
    for (rf_core_t to = 0; to < m->boot->n_cores; to++) {
        if (m->cores[to].link == PEER_LINKED && !m->cores[to].dead) tell(m, to, core, RF_ERR_TIMEOUT);
    }
    host_is_to_leave(m, core);
}

static void answered(monitor_t *m, op_t *op, rf_err_t err)
{
    rf_core_t core = op->fence.core;
    core_t *c = &m->cores[core];
    bool of_it =
        op->fence.incarnation == c->left; /* else a later life has left since, and is asked about by itself */
    op_end(m, op);
    if (c->fence != FENCE_ASKED || !of_it) return;
    if (err == RF_ERR_LIMIT) {
        c->fence = FENCE_DUE;
        is_due(m, core);
        return;
    }
    if (err == RF_OK) {
        for (rf_core_t to = 0; to < m->boot->n_cores; to++) {
            if (m->cores[to].link == PEER_LINKED && !m->cores[to].dead) tell(m, to, core, RF_OK);
        }
        done(m, core);
        return;
    }
    if (!c->fence_said)
        out_log(m, RF_LOG_ERROR, "core %u cannot be fenced (%s): its host is to leave the machine", core,
                rf_err_text(err));
    c->fence_said = true;
    c->fence = FENCE_FAILED; /* until the host has left: then by time */
    is_due(m, core);
    tell_failed(m, core);
}

static void kernel_answer(monitor_t *m, op_t *op, rf_err_t err, const uint8_t *bytes, size_t size)
{
    (void)bytes;
    (void)size;
    answered(m, op, err);
}

static void timeout(monitor_t *m, op_t *op)
{
    answered(m, op, RF_ERR_TIMEOUT);
}

const op_class_t op_fence_class = {.name = "fence", .kernel = kernel_answer, .timeout = timeout};

void fence_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    peer_core_t who;
    if (size != sizeof who) return;
    memcpy(&who, bytes, sizeof who);
    if (who.core >= m->boot->n_cores || m->boot->node_of[from] != m->boot->node_of[who.core]) return;
    const core_t *c = &m->cores[who.core];
    if (who.err != RF_OK) {
        /* Not by a late word: its host has left, and may have come back. */
        if (who.incarnation == c->left && c->fence != FENCE_DONE) host_is_to_leave(m, who.core);
        return;
    }
    /* Also if the view has not been applied here; but not of a life that is nowhere near: it would count for all up to it. */
    rf_incarnation_t agreed = core_agreed(m, who.core);
    rf_incarnation_t newest = agreed > core_life(c) ? agreed : core_life(c);
    if (who.incarnation <= newest || who.incarnation - newest == 1) fence_known(m, who.core, who.incarnation);
}

void fence_tick(monitor_t *m)
{
    if (!m->fences_due) return;
    rf_core_t from = m->fences_from, to = m->fences_to;
    m->fences_due = false;
    for (rf_core_t core = from; core <= to; core++) {
        core_t *c = &m->cores[core];
        if (c->fence != FENCE_DUE && c->fence != FENCE_FAILED) continue;
        rf_core_t by = fencer(m, core);
        if (by == RF_CORE_NONE && m->now_ns >= c->expel_ns) {
            done(m, core);
            continue;
        }
        bool now = m->now_ns >= c->fence_ns || (c->fence == FENCE_DUE && c->dead_kernel);
        if (now && by == m->core && m->kernel_up && m->exit_status < 0) ask(m, core);
        if (c->fence == FENCE_DUE || c->fence == FENCE_FAILED) is_due(m, core);
    }
}

uint64_t fence_next_ns(const monitor_t *m)
{
    uint64_t next = RF_NEVER;
    for (rf_core_t core = m->fences_from; m->fences_due && core <= m->fences_to; core++) {
        const core_t *c = &m->cores[core];
        bool open = c->fence == FENCE_DUE || c->fence == FENCE_FAILED;
        if (open && c->expel_ns > m->now_ns && c->expel_ns < next) next = c->expel_ns;
        if (open && c->fence_ns > m->now_ns && c->fence_ns < next) next = c->fence_ns;
    }
    return next;
}
