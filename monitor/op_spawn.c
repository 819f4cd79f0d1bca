/*
 * Spawn: a new domain (or, for op_span.c, another dispatcher of one) on a core.
 *
 *   at the origin                                    at the target core's monitor
 *   CHECKING   the shell checks and copies the block
 *     |  own core ------------------------------------> PROPOSING
 *   LINKING    a link to the target is being made
 *     |  same host: block and descriptors together ---> CHECKING -> PROPOSING
 *   SENDING    other host: the block in pieces -------> RECEIVING -> PROPOSING
 *   REMOTE     waits for SPAWNED                        the domain's number is agreed on
 *                                                     CREATING: the CPU driver starts it
 *                                            <-------- SPAWNED, or the client's answer
 *
 * The target is the authority for its dispatchers: it proposes, creates, sees the exit and reports it.
 */
#include "monitor/state.h"

#include <stdio.h>

enum { CHECKING = 1, LINKING, SENDING, REMOTE, RECEIVING, PROPOSING, CREATING };

static void finish(monitor_t *m, op_t *op, rf_err_t err, uint32_t os_errno, const char *what)
{
    rf_client_spawned_t out = {
        .domain = op->spawn.domain, .index = op->spawn.index, .core = op->spawn.core, .os_errno = os_errno};
    snprintf(out.what, sizeof out.what, "%s", what);
    out_close_fds(m, op->spawn.fds, op->spawn.n_fds);
    op->spawn.n_fds = 0;
    if (op->transfer) {
        op->transfer = false;
        m->n_transfers--;
        if (op->state == RECEIVING) out_action(m, MONITOR_DO_BLOCK_DROP)->op = op_id(m, op);
    }
    if (peer_waits(m, op)) {
        rf_wire_header_t header = {.tag = op->peer_tag, .err = (uint16_t)err};
        peer_send(m, op->peer, PEER_SPAWNED, &header, sizeof header, &out, sizeof out);
    }
    op_reply(m, op, err, &out, sizeof out);
}

/* A place for the new dispatcher is taken before anything is agreed on. */
static void propose(monitor_t *m, op_t *op)
{
    bool by_node = op->client != NO_CLIENT && m->clients[op->client].domain == RF_DOMAIN_NONE;
    local_t *local = m->phase >= PHASE_LEAVING ? NULL : local_add(m, by_node);
    if (!local) {
        finish(m, op, m->phase >= PHASE_LEAVING ? RF_ERR_CLOSED : RF_ERR_LIMIT, 0,
               "this core runs no more dispatchers");
        return;
    }
    op->state = PROPOSING;
    op->spawn.local = (uint16_t)(local - m->locals);
    op_deadline(m, op, RF_NEVER); /* from here on the answer is certain to come */
    command_t command = {.op = op->spawn.span ? COMMAND_DISPATCHER_ADD : COMMAND_DOMAIN_ADD,
                         .core = m->core,
                         .incarnation = m->incarnation,
                         .uid = op->spawn.uid,
                         .domain = op->spawn.domain,
                         .at_ns = m->real_ns};
    memcpy(command.name, op->spawn.program, sizeof command.name);
    memcpy(command.user, op->spawn.user, sizeof command.user);
    agree_propose(m, op, &command);
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    local_t *local = &m->locals[op->spawn.local];
    rf_assert(op->state == PROPOSING && local->state == LOCAL_CREATING);
    if (err == RF_ERR_UNKNOWN_OUTCOME) {
        /* The leader changed meanwhile. Asked anew: if the first comes to be agreed on after all, it is ended as an orphan. */
        m->agree.retry_ns = m->now_ns + RETRY_NS;
        agree_queue(m, op);
        return;
    }
    if (err != RF_OK) {
        local_free(m, local);
        finish(m, op, err, 0, "the new domain could not be agreed on");
        return;
    }
    if (op->spawn.span)
        op->spawn.index = (uint16_t)value;
    else
        op->spawn.domain = value;
    local->domain = op->spawn.domain;
    local->index = op->spawn.index;
    local->flags = op->spawn.flags;
    local->block_size = op->spawn.size;
    op->state = CREATING;
    rf_kernel_create_t create = {.domain = local->domain, .index = local->index, .n_fds = op->spawn.n_fds};
    kernel_invoke(m, op_id(m, op), RF_KERNEL_CREATE, &create, sizeof create, op->spawn.fds, op->spawn.n_fds);
}

/* The block (and a shipped executable) are kept for spanning; the streams belong to the program alone. */
static void keep_fds(op_t *op, local_t *local)
{
    unsigned last = op->spawn.n_fds - 1u;
    local->block_fd = op->spawn.fds[0];
    op->spawn.fds[0] = -1;
    if (op->spawn.flags & RF_SPAWN_EXECUTABLE) {
        local->executable_fd = op->spawn.fds[last];
        op->spawn.fds[last] = -1;
    }
}

static void created(monitor_t *m, op_t *op, rf_err_t err, const uint8_t *bytes, size_t size)
{
    rf_kernel_created_t out = {0};
    if (op->state != CREATING) return;
    if (size >= sizeof out) memcpy(&out, bytes, sizeof out);
    out.what[sizeof out.what - 1] = 0;
    local_t *local = local_find(m, op->spawn.domain, op->spawn.index);
    bool runs = local && local->state == LOCAL_CREATING; /* else it has exited already */
    if (err != RF_OK) {
        if (runs) end_local(m, local, 0, err);
        finish(m, op, err, out.os_errno, out.what);
        return;
    }
    if (runs) {
        local->state = LOCAL_RUNNING;
        keep_fds(op, local);
        op_t *running = op_begin(m, OP_RUNNING, RF_NEVER);
        if (running) {
            command_t command = {.op = COMMAND_DISPATCHER_STATE,
                                 .core = m->core,
                                 .incarnation = m->incarnation,
                                 .domain = local->domain,
                                 .index = local->index,
                                 .state = RF_DOMAIN_RUNNING,
                                 .at_ns = m->real_ns};
            agree_propose(m, running, &command);
        }
        const domain_t *d = domain_find(m, local->domain);
        if (d && domain_has_ended(d))
            local_kill_domain(m, local->domain); /* it ended while this one started */
    }
    finish(m, op, RF_OK, 0, "");
}

/* ---- the origin ---- */

static void send_to_target(monitor_t *m, op_t *op)
{
    peer_spawn_t body = {.domain = op->spawn.span ? op->spawn.domain : RF_DOMAIN_NONE,
                         .size = op->spawn.size};
    bool local_host = same_node(m, op->spawn.core);
    body.n_fds = local_host ? op->spawn.n_fds : 0;
    rf_err_t err =
        peer_request(m, op, op->spawn.core, PEER_SPAWN, &body, sizeof body, op->spawn.fds, body.n_fds);
    if (err != RF_OK) {
        finish(m, op, err, 0, "too many requests to that core are unanswered");
        return;
    }
    if (local_host) out_close_fds(m, op->spawn.fds, op->spawn.n_fds);
    op->state = local_host ? REMOTE : SENDING;
}

void spawn_check_span(op_t *op)
{
    op->state = CHECKING;
}

static void checked(monitor_t *m, op_t *op)
{
    if (op->spawn.core == m->core) {
        propose(m, op);
        return;
    }
    rf_err_t err = peer_need(m, op->spawn.core);
    op->peer = op->spawn.core;
    if (err == RF_OK)
        send_to_target(m, op);
    else if (err == RF_ERR_AGAIN)
        op->state = LINKING;
    else
        finish(m, op, err, 0, "that core is dead");
}

static void linked(monitor_t *m, op_t *op)
{
    if (op->state == LINKING) send_to_target(m, op);
}

static void peer_lost(monitor_t *m, op_t *op, rf_err_t err)
{
    if (op->peer_tag != 0) { /* of the origin: without the rest of the block there is nothing to start */
        if (op->state == RECEIVING) finish(m, op, err, 0, "");
        return;
    }
    if (op->state != LINKING && op->state != SENDING && op->state != REMOTE) return;
    if (err == RF_ERR_PEER_DEAD)
        finish(m, op, err, 0, "that core is dead");
    else if (op->state == LINKING)
        finish(m, op, err, 0, "there is no link with that core");
    else if (op->state == SENDING)
        finish(m, op, RF_ERR_CLOSED, 0, "the link with that core broke: nothing was started");
    else
        finish(m, op, err, 0,
               "the link with that core broke before it had answered: it may have been started");
}

static void timeout(monitor_t *m, op_t *op)
{
    finish(m, op, RF_ERR_TIMEOUT, 0, "no answer from that core");
}

static bool n_fds_fit(unsigned n_fds, uint32_t flags)
{
    unsigned wanted = 1 + (flags & RF_SPAWN_STDIO ? 3u : 0u) + (flags & RF_SPAWN_EXECUTABLE ? 1u : 0u);
    return n_fds == wanted;
}

/* BLOCK: the copy of the block; CHUNK: a piece to send. */
static void shell_answer(monitor_t *m, op_t *op, const monitor_event_t *event)
{
    if (event->kind == MONITOR_BLOCK && (op->state == CHECKING || op->state == RECEIVING)) {
        int fds[8];
        memcpy(fds, event->fds, sizeof fds);
        if (event->err != RF_OK || event->n_fds == 0) {
            finish(m, op, event->err, 0, "the spawn block is refused");
            return;
        }
        if (op->transfer) {
            op->transfer = false;
            m->n_transfers--;
        }
        op->spawn.fds[0] = fds[0];
        if (op->spawn.n_fds == 0) op->spawn.n_fds = 1;
        if (event->n_fds == 2) op->spawn.fds[op->spawn.n_fds++] = fds[1]; /* span: the shipped executable */
        op->spawn.size = event->block.size;
        op->spawn.flags = event->block.flags;
        op->spawn.uid = event->block.uid;
        memcpy(op->spawn.user, event->block.user, sizeof op->spawn.user);
        memcpy(op->spawn.program, event->block.program, sizeof op->spawn.program);
        if (!n_fds_fit(op->spawn.n_fds, op->spawn.flags)) {
            finish(m, op, RF_ERR_INVALID, 0, "descriptors do not fit the flags of the spawn block");
            return;
        }
        checked(m, op);
    } else if (event->kind == MONITOR_CHUNK && op->state == SENDING) {
        if (event->err != RF_OK || event->size > PEER_CHUNK_MAX) {
            finish(m, op, event->err, 0, "the spawn block cannot be read");
            return;
        }
        struct {
            rf_wire_header_t header;
            peer_chunk_t chunk;
        } head = {.header = {.tag = op_id(m, op)},
                  .chunk = {.offset = op->spawn.sent, .size = (uint32_t)event->size}};
        peer_send(m, op->spawn.core, PEER_SPAWN_CHUNK, &head, sizeof head, event->bytes, event->size);
        op->spawn.sent += (uint32_t)event->size;
        if (op->spawn.sent == op->spawn.size) op->state = REMOTE;
    }
}

const op_class_t op_spawn_class = {.name = "spawn",
                                   .proposed = proposed,
                                   .peer_up = linked,
                                   .peer_lost = peer_lost,
                                   .kernel = created,
                                   .answer = shell_answer,
                                   .timeout = timeout};

static rf_err_t check(monitor_t *m, const rf_client_spawn_t *body, const char **what)
{
    *what = "";
    if (m->phase >= PHASE_LEAVING) return RF_ERR_CLOSED;
    if (!m->formed) return RF_ERR_FORMING;
    if (body->core >= m->boot->n_cores) {
        *what = "there is no such core";
        return RF_ERR_INVALID;
    }
    if (body->core != m->core && !core_is_alive(m, body->core)) {
        *what = "that core is dead";
        return RF_ERR_PEER_DEAD;
    }
    if (!m->quorum) return RF_ERR_NO_QUORUM;
    if (!same_node(m, body->core) && body->n_fds > 1) {
        *what = "descriptors do not travel to another host";
        return RF_ERR_NOT_SUPPORTED;
    }
    return RF_OK;
}

void spawn_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_spawn_t *body)
{
    int fds[MONITOR_FDS_MAX];
    unsigned n_fds = unpark_fds(m, false, client, request->tag, fds);
    if (n_fds == 0 || n_fds != body->n_fds) {
        out_close_fds(m, fds, n_fds);
        client_close(m, client, "it asked to spawn without the descriptors it announced");
        return;
    }
    const char *what;
    rf_err_t err = check(m, body, &what);
    op_t *op = err == RF_OK ? op_begin_for_client(m, OP_SPAWN, client, request, m->now_ns + SPAWN_NS) : NULL;
    if (!op) {
        out_close_fds(m, fds, n_fds);
        if (err == RF_OK) return; /* answered */
        rf_client_spawned_t out = {.core = body->core};
        snprintf(out.what, sizeof out.what, "%s", what);
        client_reply(m, client, request->tag, request->op, err, &out, sizeof out);
        return;
    }
    op->state = CHECKING;
    op->spawn.core = body->core;
    op->spawn.n_fds = (uint16_t)n_fds;
    memcpy(op->spawn.fds, fds, sizeof fds);

    /* A dispatcher spawns as its own user, with no more rights than it has. */
    monitor_block_t change = {.consume = true};
    const client_t *c = &m->clients[client];
    if (c->domain != RF_DOMAIN_NONE) {
        const domain_t *d = domain_find(m, c->domain);
        const local_t *local = local_find(m, c->domain, c->index);
        change.flags_clear = (RF_SPAWN_CONTROL | RF_SPAWN_ROOT) & ~(local ? local->flags : 0u);
        if (d) memcpy(change.user, d->user, sizeof change.user);
    }
    monitor_action_t *action = out_action(m, MONITOR_DO_BLOCK);
    action->op = op_id(m, op);
    action->fds[0] = fds[0];
    action->n_fds = 1;
    out_bytes(m, action, &change, sizeof change, NULL, 0);
    op->spawn.fds[0] = -1; /* given away */
}

/* ---- between the two ---- */

static op_t *find_target_op(monitor_t *m, rf_core_t from, uint32_t peer_tag)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_SPAWN && op->state == RECEIVING && op->peer == from && op->peer_tag == peer_tag)
            return op;
    }
    return NULL;
}

static void refuse(monitor_t *m, rf_core_t to, uint32_t tag, rf_err_t err, const char *what)
{
    rf_wire_header_t header = {.tag = tag, .err = (uint16_t)err};
    rf_client_spawned_t out = {.core = m->core};
    snprintf(out.what, sizeof out.what, "%s", what);
    peer_send(m, to, PEER_SPAWNED, &header, sizeof header, &out, sizeof out);
}

static void ask_for_more(monitor_t *m, op_t *op)
{
    struct {
        rf_wire_header_t header;
        peer_chunk_t chunk;
    } more = {.header = {.tag = op->peer_tag}, .chunk = {.offset = op->spawn.sent}};
    peer_send(m, op->peer, PEER_SPAWN_MORE, &more, sizeof more, NULL, 0);
}

void spawn_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    peer_spawn_t body;
    memcpy(&header, bytes, sizeof header);
    memcpy(&body, bytes + sizeof header, sizeof body);
    int fds[MONITOR_FDS_MAX];
    unsigned n_fds = unpark_fds(m, true, from, header.tag, fds);
    if (n_fds != body.n_fds || header.tag == 0 || body.size == 0 || body.size > RF_SPAWN_BYTES_MAX) {
        out_close_fds(m, fds, n_fds);
        refuse(m, from, header.tag, RF_ERR_PROTOCOL, "descriptors were lost on the way");
        return;
    }
    op_t *op = n_fds > 0 || m->n_transfers < MONITOR_TRANSFERS_MAX
                   ? op_begin(m, OP_SPAWN, m->now_ns + SPAWN_NS)
                   : NULL;
    if (!op) {
        out_close_fds(m, fds, n_fds);
        refuse(m, from, header.tag, RF_ERR_AGAIN, "that core is busy with other spawns");
        return;
    }
    peer_asked(m, op, from, header.tag);
    op->spawn.core = m->core;
    op->spawn.span = body.domain != RF_DOMAIN_NONE;
    op->spawn.domain = body.domain;
    op->spawn.size = body.size;
    if (n_fds == 0) {
        op->state = RECEIVING;
        op->transfer = true;
        m->n_transfers++;
        ask_for_more(m, op);
        return;
    }
    op->state = CHECKING;
    op->spawn.n_fds = (uint16_t)n_fds;
    memcpy(op->spawn.fds, fds, sizeof fds);
    monitor_block_t change = {.consume = true};
    monitor_action_t *action = out_action(m, MONITOR_DO_BLOCK);
    action->op = op_id(m, op);
    action->fds[0] = fds[0];
    action->n_fds = 1;
    out_bytes(m, action, &change, sizeof change, NULL, 0);
    op->spawn.fds[0] = -1;
}

void spawn_peer_chunk(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    rf_wire_header_t header;
    peer_chunk_t chunk;
    memcpy(&header, bytes, sizeof header);
    memcpy(&chunk, bytes + sizeof header, sizeof chunk);
    bytes += sizeof header + sizeof chunk;
    size -= sizeof header + sizeof chunk;
    op_t *op = find_target_op(m, from, header.tag);
    if (!op) return; /* given up meanwhile */
    if (chunk.size != size || size == 0 || chunk.offset != op->spawn.sent ||
        size > op->spawn.size - op->spawn.sent) {
        finish(m, op, RF_ERR_PROTOCOL, 0, "pieces of the spawn block do not fit");
        return;
    }
    monitor_action_t *action = out_action(m, MONITOR_DO_BLOCK_PUT);
    action->op = op_id(m, op);
    action->offset = op->spawn.sent;
    action->total = op->spawn.size;
    out_bytes(m, action, bytes, size, NULL, 0);
    op->spawn.sent += chunk.size;
    if (op->spawn.sent < op->spawn.size) ask_for_more(m, op);
}

void spawn_peer_more(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    peer_chunk_t chunk;
    memcpy(&header, bytes, sizeof header);
    memcpy(&chunk, bytes + sizeof header, sizeof chunk);
    op_t *op = op_find(m, header.tag, OP_SPAWN);
    if (!op || op->state != SENDING || op->peer != from || chunk.offset != op->spawn.sent) return;
    uint32_t left = op->spawn.size - op->spawn.sent;
    monitor_action_t *action = out_action(m, MONITOR_DO_BLOCK_GET);
    action->op = op_id(m, op);
    action->offset = op->spawn.sent;
    action->size = left < PEER_CHUNK_MAX ? left : PEER_CHUNK_MAX;
    action->fds[0] = op->spawn.fds[0];
    action->n_fds = 1;
}

void spawn_peer_spawned(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    rf_client_spawned_t out;
    memcpy(&header, bytes, sizeof header);
    memcpy(&out, bytes + sizeof header, sizeof out);
    op_t *op = op_find(m, header.tag, OP_SPAWN);
    if (!op || op->peer != from || op->peer_tag != 0 || (op->state != SENDING && op->state != REMOTE)) return;
    out.what[sizeof out.what - 1] = 0;
    op->spawn.domain = out.domain;
    op->spawn.index = out.index;
    finish(m, op, header.err < RF_ERR_COUNT ? (rf_err_t)header.err : RF_ERR_PROTOCOL, out.os_errno, out.what);
}
