/*
 * Kill: a signal to every live dispatcher of a domain. One operation collects; one a dispatcher asks.
 *
 *   COLLECTING  (the client's)  until every part has answered: RF_OK if one was signalled, else the first error
 *   LINKING     (a part)        a link to the dispatcher's core is being made
 *   ASKING      (a part)        that core, or the own CPU driver, has been asked
 *   SERVING     (at that core)  its CPU driver has been asked
 */
#include "monitor/state.h"

enum { COLLECTING = 1, LINKING, ASKING, SERVING };

static void collect(monitor_t *m, op_t *parent, rf_err_t err)
{
    rf_assert(parent->kill.pending > 0);
    parent->kill.pending--;
    if (err == RF_OK)
        parent->kill.done++;
    else if (parent->kill.err == RF_OK)
        parent->kill.err = err;
    if (parent->kill.pending == 0)
        op_reply(m, parent, parent->kill.done > 0 ? RF_OK : parent->kill.err, NULL, 0);
}

static void part_done(monitor_t *m, op_t *op, rf_err_t err)
{
    op_t *parent = op_find(m, op->kill.parent, OP_KILL);
    op_end(m, op);
    if (parent) collect(m, parent, err);
}

static void ask_peer(monitor_t *m, op_t *op)
{
    rf_err_t err =
        peer_request(m, op, op->peer, PEER_KILL, &op->kill.signal, sizeof op->kill.signal, NULL, 0);
    op->state = ASKING;
    if (err != RF_OK) part_done(m, op, err);
}

static void ask_kernel(monitor_t *m, op_t *op)
{
    kernel_invoke(m, op_id(m, op), RF_KERNEL_SIGNAL, &op->kill.signal, sizeof op->kill.signal, NULL, 0);
}

/* Starts the part for one dispatcher. */
static rf_err_t ask(monitor_t *m, op_t *parent, const domain_t *d, unsigned index,
                    const rf_client_kill_t *request)
{
    op_t *op = op_begin(m, OP_KILL, m->now_ns + REQUEST_NS);
    if (!op) return RF_ERR_LIMIT;
    op->kill.parent = op_id(m, parent);
    op->kill.signal = (rf_kernel_signal_t){.domain = d->id,
                                           .index = (uint16_t)index,
                                           .signo = (uint16_t)request->signo,
                                           .whole = request->whole};
    op->state = ASKING;
    parent->kill.pending++;
    if (d->cores[index] == m->core) {
        ask_kernel(m, op);
        return RF_OK;
    }
    op->peer = d->cores[index];
    rf_err_t err = peer_need(m, op->peer);
    if (err == RF_OK)
        ask_peer(m, op);
    else if (err == RF_ERR_AGAIN)
        op->state = LINKING;
    else
        part_done(m, op, err);
    return RF_OK;
}

static bool may_signal(monitor_t *m, const client_t *c, const domain_t *d, const char *user)
{
    if (c->domain != RF_DOMAIN_NONE) {
        const domain_t *own = domain_find(m, c->domain);
        return own && strncmp(own->user, d->user, sizeof d->user) == 0;
    }
    return strncmp(user, d->user, sizeof d->user) == 0 || strcmp(user, "root") == 0 ||
           (m->owner[0] && strncmp(user, m->owner, sizeof m->owner) == 0);
}

void kill_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                  const rf_client_kill_t *body)
{
    domain_t *d = domain_find(m, body->domain);
    rf_err_t err = RF_OK;
    if (!d || domain_has_ended(d))
        err = RF_ERR_NOT_FOUND;
    else if (body->signo > 64 || strnlen(body->user, sizeof body->user) == sizeof body->user)
        err = RF_ERR_INVALID;
    else if (!may_signal(m, &m->clients[client], d, body->user))
        err = RF_ERR_PERMISSION;
    if (err != RF_OK || body->signo == 0) { /* 0 only asks */
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_KILL, client, request, RF_NEVER);
    if (!op) return;
    op->state = COLLECTING;
    op->kill.pending = 1; /* this request itself, until all parts have been started */
    op->kill.err = RF_OK;
    for (unsigned index = 0; index < d->n_dispatchers && err == RF_OK; index++) {
        if (dispatcher_is_alive(m, d, index)) err = ask(m, op, d, index, body);
    }
    if (err == RF_OK) err = op->kill.pending == 1 && op->kill.err == RF_OK ? RF_ERR_NOT_FOUND : op->kill.err;
    if (err == RF_OK) { /* the parts decide */
        if (--op->kill.pending == 0) op_reply(m, op, op->kill.done > 0 ? RF_OK : RF_ERR_NOT_FOUND, NULL, 0);
        return;
    }
    collect(m, op, err);
}

void kill_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    rf_kernel_signal_t signal;
    memcpy(&header, bytes, sizeof header);
    memcpy(&signal, bytes + sizeof header, sizeof signal);
    const local_t *local = local_find(m, signal.domain, signal.index);
    rf_err_t err = !local || local->state == LOCAL_ENDING   ? RF_ERR_NOT_FOUND
                   : signal.signo == 0 || signal.signo > 64 ? RF_ERR_INVALID
                                                            : RF_OK;
    op_t *op = err == RF_OK ? op_begin(m, OP_KILL, m->now_ns + REQUEST_NS) : NULL;
    if (!op) {
        rf_wire_header_t out = {.tag = header.tag, .err = (uint16_t)(err == RF_OK ? RF_ERR_AGAIN : err)};
        peer_send(m, from, PEER_KILLED, &out, sizeof out, NULL, 0);
        return;
    }
    op->state = SERVING;
    peer_asked(m, op, from, header.tag);
    op->kill.signal = signal;
    ask_kernel(m, op);
}

static void served(monitor_t *m, op_t *op, rf_err_t err)
{
    rf_wire_header_t out = {.tag = op->peer_tag, .err = (uint16_t)err};
    if (peer_waits(m, op)) peer_send(m, op->peer, PEER_KILLED, &out, sizeof out, NULL, 0);
    op_end(m, op);
}

void kill_peer_killed(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    memcpy(&header, bytes, sizeof header);
    op_t *op = op_find(m, header.tag, OP_KILL);
    if (!op || op->state != ASKING || op->peer != from) return;
    part_done(m, op, header.err < RF_ERR_COUNT ? (rf_err_t)header.err : RF_ERR_PROTOCOL);
}

static void kernel_answer(monitor_t *m, op_t *op, rf_err_t err, const uint8_t *bytes, size_t size)
{
    (void)bytes;
    (void)size;
    if (op->state == SERVING)
        served(m, op, err);
    else if (op->state == ASKING && op->peer == RF_CORE_NONE)
        part_done(m, op, err);
}

static void linked(monitor_t *m, op_t *op)
{
    if (op->state == LINKING) ask_peer(m, op);
}

static void peer_lost(monitor_t *m, op_t *op, rf_err_t err)
{
    if (op->state == LINKING || op->state == ASKING) part_done(m, op, err);
}

static void timeout(monitor_t *m, op_t *op)
{
    if (op->state == SERVING)
        served(m, op, RF_ERR_TIMEOUT);
    else
        part_done(m, op, RF_ERR_TIMEOUT);
}

const op_class_t op_kill_class = {
    .name = "kill", .peer_up = linked, .peer_lost = peer_lost, .kernel = kernel_answer, .timeout = timeout};
