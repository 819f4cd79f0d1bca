/* Wait: answered when the domain is seen to have ended, agreed or told. May take for ever; CANCEL ends it. */
#include "monitor/state.h"

static void answer(monitor_t *m, op_t *op, const domain_t *d)
{
    rf_client_domain_t out;
    query_domain(m, d, &out);
    op_reply(m, op, RF_OK, &out, sizeof out);
}

void wait_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, rf_domain_t domain)
{
    const domain_t *d = domain_find(m, domain);
    bool by_node = m->clients[client].domain == RF_DOMAIN_NONE;
    bool too_many = !by_node && m->n_waits >= OPS_WAITS_MAX && d && !domain_has_ended(d);
    rf_err_t err = !d ? RF_ERR_NOT_FOUND : too_many ? RF_ERR_LIMIT : RF_OK;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_WAIT, client, request, RF_NEVER);
    if (!op) return;
    m->n_waits++;
    op->wait.domain = domain;
    if (domain_has_ended(d)) answer(m, op, d);
}

void wait_cancel(monitor_t *m, uint32_t client, uint32_t tag)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_REGISTRY && op->client == client && op->client_tag == tag) {
            registry_cancel(m, op);
            return;
        }
        if ((op->kind == OP_WAIT || op->kind == OP_WATCH) && op->client == client && op->client_tag == tag) {
            op_reply(m, op, RF_ERR_CANCELLED, NULL, 0);
            return;
        }
    }
}

void wait_domain_ended(monitor_t *m, rf_domain_t domain)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX && m->n_waits > 0; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_WAIT && op->wait.domain == domain) answer(m, op, domain_find(m, domain));
    }
}

/* A snapshot took its place: it ended so long ago that the machine does not know it any more. */
void wait_domain_forgotten(monitor_t *m, rf_domain_t domain)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX && m->n_waits > 0; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_WAIT && op->wait.domain == domain) op_reply(m, op, RF_ERR_NOT_FOUND, NULL, 0);
    }
}

static void client_went(monitor_t *m, op_t *op, uint32_t client)
{
    if (op->client == client) op_end(m, op);
}

const op_class_t op_wait_class = {.name = "wait", .client_gone = client_went};
