/*
 * Span: another dispatcher of the caller's own domain, on another core: the same program, arguments, environment and
 * user, told apart by its index and its span arguments. The spawn block is kept where a dispatcher runs, so any of them
 * can span. From the checked block on it goes the way of op_spawn.c.
 */
#include "monitor/state.h"

static rf_err_t check(monitor_t *m, uint32_t client, const rf_client_spawn_t *body, local_t **out)
{
    const client_t *c = &m->clients[client];
    const domain_t *d = domain_find(m, c->domain);
    local_t *local = local_find(m, c->domain, c->index);
    if (m->phase >= PHASE_LEAVING) return RF_ERR_CLOSED;
    if (body->core >= m->boot->n_cores || body->span_args_size > RF_SPAN_ARGS_MAX) return RF_ERR_INVALID;
    if (body->core != m->core && !core_is_alive(m, body->core)) return RF_ERR_PEER_DEAD;
    if (!m->quorum) return RF_ERR_NO_QUORUM;
    if (!d || domain_has_ended(d) || !local || local->block_fd < 0) return RF_ERR_NOT_FOUND;
    if (d->n_dispatchers == RF_DISPATCHERS_PER_DOMAIN_MAX) return RF_ERR_LIMIT;
    *out = local;
    return RF_OK;
}

void span_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                  const rf_client_spawn_t *body)
{
    local_t *local = NULL;
    rf_err_t err = check(m, client, body, &local);
    if (err != RF_OK) {
        rf_client_spawned_t out = {.core = body->core};
        client_reply(m, client, request->tag, request->op, err, &out, sizeof out);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_SPAWN, client, request, m->now_ns + SPAWN_NS);
    if (!op) return;
    spawn_check_span(op);
    op->spawn.span = true;
    op->spawn.domain = local->domain;
    op->spawn.core = body->core;
    op->spawn.n_fds = 1;
    op->spawn.fds[0] = -1;

    bool ship = (local->flags & RF_SPAWN_EXECUTABLE) && local->executable_fd >= 0 && same_node(m, body->core);
    monitor_block_t change = {.span_args_set = true, .span_args_size = body->span_args_size};
    change.flags_clear = RF_SPAWN_STDIO | RF_SPAWN_TTY | (ship ? 0u : (uint32_t)RF_SPAWN_EXECUTABLE);
    memcpy(change.span_args, body->span_args, body->span_args_size);
    monitor_action_t *action = out_action(m, MONITOR_DO_BLOCK);
    action->op = op_id(m, op);
    action->fds[0] = local->block_fd;
    action->fds[1] = local->executable_fd;
    action->n_fds = ship ? 2 : 1;
    out_bytes(m, action, &change, sizeof change, NULL, 0);
}
