/*
 * The end of a dispatcher of this core. This monitor is the authority: who waits here is answered at once, everybody else
 * when the end is agreed on.
 *
 *   PROPOSING   DISPATCHER_STATE ended, until it is in the log
 *      |  no quorum: told to every monitor in reach, and to each that is linked later
 *   WAITING     for the quorum, then proposed again: the same end twice is the same as once
 *   gone
 */
#include "monitor/state.h"

enum { PROPOSING = 1, WAITING };

static void tell(monitor_t *m, rf_core_t to, const domain_t *d, unsigned index)
{
    peer_ended_t body = {.domain = d->id,
                         .index = (uint16_t)index,
                         .wait_status = index == 0 ? d->told_status : 0,
                         .reason = index == 0 ? (uint32_t)d->told_reason : RF_OK,
                         .ended_ns = index == 0 ? d->told_ns : m->real_ns};
    peer_send(m, to, PEER_DOMAIN_ENDED, &body, sizeof body, NULL, 0);
}

void end_tell_all(monitor_t *m, rf_core_t to)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        if (core == m->core || (to != RF_CORE_NONE && core != to) || !core_is_member(m, core)) continue;
        if (peer_need(m, core) != RF_OK) continue; /* being dialled: told when it is linked */
        for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
            const domain_t *d = &m->domains[i];
            if (d->id == 0 || d->state == RF_DOMAIN_ENDED || d->told_dead == 0) continue;
            for (unsigned index = 0; index < d->n_dispatchers; index++) {
                bool untold = (d->alive >> index & 1) && (d->told_dead >> index & 1);
                if (untold && d->cores[index] == m->core && !out_is_nearly_full(m)) tell(m, core, d, index);
            }
        }
    }
}

void end_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    peer_ended_t body;
    if (size != sizeof body) return;
    memcpy(&body, bytes, sizeof body);
    const domain_t *d = domain_find(m, body.domain);
    /* Only the core of a dispatcher speaks for it. */
    if (!d || body.index >= d->n_dispatchers || d->cores[body.index] != from) return;
    rf_err_t reason = body.reason < RF_ERR_COUNT ? (rf_err_t)body.reason : RF_OK;
    replica_tell_ended(m, body.domain, body.index, body.wait_status, reason, body.ended_ns);
}

void end_local(monitor_t *m, local_t *local, int32_t wait_status, rf_err_t reason)
{
    rf_assert(local->state == LOCAL_CREATING || local->state == LOCAL_RUNNING);
    local->state = LOCAL_ENDING;
    out_close_fd(m, &local->block_fd);
    out_close_fd(m, &local->executable_fd);
    op_t *op = op_begin(m, OP_END, RF_NEVER);
    rf_assert(op); /* OPS_RESERVED has one for every dispatcher */
    op->state = PROPOSING;
    op->end.domain = local->domain;
    op->end.index = local->index;
    command_t command = {.op = COMMAND_DISPATCHER_STATE,
                         .core = m->core,
                         .incarnation = m->incarnation,
                         .domain = local->domain,
                         .index = local->index,
                         .state = RF_DOMAIN_ENDED,
                         .wait_status = wait_status,
                         .reason = (uint32_t)reason,
                         .at_ns = m->real_ns};
    agree_propose(m, op, &command);
    replica_tell_ended(m, local->domain, local->index, wait_status, reason, m->real_ns);
}

void end_orphan(monitor_t *m, rf_domain_t domain, unsigned index)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        const op_t *known = &m->ops[i];
        if (known->kind == OP_END && known->end.domain == domain && known->end.index == index) return;
    }
    op_t *op = op_begin(m, OP_END, RF_NEVER);
    if (!op) return; /* it stays "starting", until this core leaves */
    op->state = PROPOSING;
    op->end.domain = domain;
    op->end.index = (uint16_t)index;
    command_t command = {.op = COMMAND_DISPATCHER_STATE,
                         .core = m->core,
                         .incarnation = m->incarnation,
                         .domain = domain,
                         .index = (uint16_t)index,
                         .state = RF_DOMAIN_ENDED,
                         .reason = RF_ERR_NO_QUORUM,
                         .at_ns = m->real_ns};
    agree_propose(m, op, &command);
}

void end_propose_again(monitor_t *m)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if ((op->kind != OP_END && op->kind != OP_RUNNING) || op->state != WAITING) continue;
        op->state = PROPOSING;
        agree_queue(m, op);
    }
}

/* Whatever could not be agreed on for want of a quorum waits for it. */
static bool waits(monitor_t *m, op_t *op, rf_err_t err)
{
    if (err != RF_ERR_NO_QUORUM && err != RF_ERR_UNKNOWN_OUTCOME && err != RF_ERR_FORMING) return false;
    op->state = WAITING;
    if (m->quorum) { /* it is back already */
        op->state = PROPOSING;
        agree_queue(m, op);
    }
    return true;
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    (void)value;
    const domain_t *d = domain_find(m, op->end.domain);
    local_t *local = local_find(m, op->end.domain, op->end.index);
    if ((err == RF_ERR_NO_QUORUM || err == RF_ERR_UNKNOWN_OUTCOME) && d) {
        for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
            if (core != m->core && core_is_member(m, core) && peer_need(m, core) == RF_OK)
                tell(m, core, d, op->end.index);
        }
    }
    if (waits(m, op, err)) return;
    if (local) local_free(m, local);
    op_end(m, op);
}

static void ran(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    (void)value;
    if (!waits(m, op, err))
        op_end(m, op); /* else it has ended, which does not matter to a program that runs */
}

const op_class_t op_running_class = {.name = "running", .proposed = ran};

const op_class_t op_end_class = {.name = "end", .proposed = proposed};
