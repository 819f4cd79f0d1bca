/* Exporting a name, and withdrawing it: one proposal. Names belong to a dispatcher and vanish with it. */
#include "monitor/state.h"

void name_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const char *name)
{
    const client_t *c = &m->clients[client];
    rf_err_t err = !text_is_valid(name, RF_NAME_MAX)                                    ? RF_ERR_INVALID
                   : !m->formed                                                         ? RF_ERR_FORMING
                   : !m->quorum                                                         ? RF_ERR_NO_QUORUM
                   : request->op == RF_CLIENT_NAME_PUT && name_find(m, name) != NULL    ? RF_ERR_EXISTS
                   : request->op == RF_CLIENT_NAME_DELETE && name_find(m, name) == NULL ? RF_ERR_NOT_FOUND
                                                                                        : RF_OK;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_NAME, client, request, RF_NEVER);
    if (!op) return;
    command_t command = {.op = request->op == RF_CLIENT_NAME_PUT ? COMMAND_NAME_PUT : COMMAND_NAME_DELETE,
                         .core = m->core,
                         .incarnation = m->incarnation,
                         .domain = c->domain,
                         .index = c->index};
    memcpy(command.name, name, strlen(name) + 1);
    agree_propose(m, op, &command);
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    (void)value;
    op_reply(m, op, err, NULL, 0);
}

const op_class_t op_name_class = {.name = "name", .proposed = proposed};
