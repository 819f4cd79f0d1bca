/*
 * Connect: a channel between two dispatchers, by exported name or by dispatcher. No monitor touches it afterwards.
 *
 *   at the asker's monitor                              at the exporter's monitor (the same, on one core)
 *   RESOURCES  same host: a socket pair; other host: a token and a key for this channel alone
 *   LINKING    a link to the exporter's monitor is being made
 *   ASKED      CONNECT, with one end of the pair -----> ASKING: EVENT_INCOMING to the exporter, which answers ACCEPT,
 *                                           <---------- between hosts with the address it listens on: CONNECTED
 *   the client's answer: the other end of the pair, or address, token and key
 *
 * On one core one operation plays both parts, and goes from RESOURCES to ASKING.
 */
#include "monitor/state.h"

#define SLOTS_MAX 32768 /* of a ring (transport/slot.h) */

enum { RESOURCES = 1, LINKING, ASKED, ASKING };

static uint16_t kind_of(const monitor_t *m, rf_core_t a, rf_core_t b)
{
    if (a == b) return RF_CHANNEL_LMP;
    return m->boot->node_of[a] == m->boot->node_of[b] ? RF_CHANNEL_URPC : RF_CHANNEL_NETWORK;
}

/* What one side is told of the other. */
static rf_client_connected_t describe(const monitor_t *m, const op_t *op, bool to_asker)
{
    const rf_boot_t *boot = m->boot;
    rf_core_t a = op->connect.from_core, b = op->connect.core;
    bool same_cpu = boot->node_of[a] == boot->node_of[b] && boot->cores[a].cpu == boot->cores[b].cpu;
    rf_client_connected_t out = {.channel = op->connect.channel,
                                 .domain = to_asker ? op->connect.domain : op->connect.from_domain,
                                 .index = to_asker ? op->connect.index : op->connect.from_index,
                                 .core = to_asker ? op->connect.core : op->connect.from_core,
                                 .kind = op->connect.kind,
                                 .same_cpu = same_cpu};
    const char *medium = "shm";
    if (op->connect.kind == RF_CHANNEL_NETWORK) {
        medium = boot->medium[boot->node_of[to_asker ? b : a]];
        memcpy(out.token, op->connect.token, sizeof out.token);
        memcpy(out.key, op->connect.key, sizeof out.key);
    }
    memcpy(out.medium, medium, strnlen(medium, sizeof out.medium - 1));
    return out;
}

static void fail(monitor_t *m, op_t *op, rf_err_t err)
{
    out_close_fds(m, op->connect.fds, 2);
    if (op->connect.exporter != NO_CLIENT) m->clients[op->connect.exporter].incoming--;
    op->connect.exporter = NO_CLIENT;
    if (peer_waits(m, op)) {
        rf_wire_header_t header = {.tag = op->peer_tag, .err = (uint16_t)err};
        peer_connected_t body = {0};
        peer_send(m, op->peer, PEER_CONNECTED, &header, sizeof header, &body, sizeof body);
    }
    op_reply(m, op, err, NULL, 0);
}

/* The asker's answer. */
static void connected(monitor_t *m, op_t *op, uint32_t uid, const char *address)
{
    rf_client_connected_t out = describe(m, op, true);
    const domain_t *d = domain_find(m, op->connect.domain);
    out.uid = uid;
    if (d) memcpy(out.user, d->user, sizeof out.user);
    memcpy(out.address, address, sizeof out.address);
    out.address[sizeof out.address - 1] = 0;
    if (op->client == NO_CLIENT) { /* gone meanwhile */
        fail(m, op, RF_ERR_PEER_DEAD);
        return;
    }
    if (op->connect.fds[0] >= 0) {
        client_reply_fd(m, op->client, op->client_tag, op->client_op, &out, sizeof out, op->connect.fds[0]);
        out_close_fds(m, op->connect.fds, 2);
    } else {
        client_reply(m, op->client, op->client_tag, op->client_op, RF_OK, &out, sizeof out);
    }
    op_end(m, op);
}

/* Exporter's side: hands the incoming channel to the exporter. */
static void offer(monitor_t *m, op_t *op)
{
    local_t *local = local_find(m, op->connect.domain, op->connect.index);
    if (!local || local->client == NO_CLIENT) {
        fail(m, op, RF_ERR_NOT_FOUND);
        return;
    }
    client_t *c = &m->clients[local->client];
    if (c->incoming >= INCOMING_MAX) {
        fail(m, op, RF_ERR_AGAIN);
        return;
    }
    c->incoming++;
    op->connect.exporter = local->client;
    op->state = ASKING;
    rf_client_incoming_t out = {.channel = describe(m, op, false), .slots = op->connect.slots};
    out.channel.uid = op->connect.from_uid;
    memcpy(out.channel.user, op->connect.from_user, sizeof out.channel.user);
    memcpy(out.name, op->connect.name, sizeof out.name);
    client_event_fd(m, local->client, RF_CLIENT_EVENT_INCOMING, op->connect.channel, &out, sizeof out,
                    op->connect.fds[1]);
    out_close_fd(m, &op->connect.fds[1]);
}

static void ask_peer(monitor_t *m, op_t *op)
{
    peer_connect_t body = {.channel = op->connect.channel,
                           .domain = op->connect.domain,
                           .from_domain = op->connect.from_domain,
                           .index = op->connect.index,
                           .from_index = op->connect.from_index,
                           .from_core = op->connect.from_core,
                           .kind = op->connect.kind,
                           .slots = op->connect.slots,
                           .from_uid = op->connect.from_uid};
    memcpy(body.from_user, op->connect.from_user, sizeof body.from_user);
    memcpy(body.name, op->connect.name, sizeof body.name);
    memcpy(body.token, op->connect.token, sizeof body.token);
    memcpy(body.key, op->connect.key, sizeof body.key);
    unsigned n_fds = op->connect.fds[1] >= 0;
    op->state = ASKED;
    rf_err_t err =
        peer_request(m, op, op->connect.core, PEER_CONNECT, &body, sizeof body, &op->connect.fds[1], n_fds);
    if (err != RF_OK) {
        fail(m, op, err);
        return;
    }
    out_close_fd(m, &op->connect.fds[1]);
}

static void go_on(monitor_t *m, op_t *op)
{
    if (op->connect.core == m->core) {
        offer(m, op);
        return;
    }
    rf_err_t err = peer_need(m, op->connect.core);
    op->peer = op->connect.core;
    if (err == RF_OK)
        ask_peer(m, op);
    else if (err == RF_ERR_AGAIN)
        op->state = LINKING;
    else
        fail(m, op, err);
}

static rf_err_t find(monitor_t *m, const rf_client_connect_t *body, rf_domain_t *domain, unsigned *index)
{
    *domain = body->domain;
    *index = body->index;
    if (body->name[0]) {
        if (!text_is_valid(body->name, sizeof body->name)) return RF_ERR_INVALID;
        const name_t *n = name_find(m, body->name);
        if (!n) return RF_ERR_NOT_FOUND;
        *domain = n->domain;
        *index = n->index;
    }
    const domain_t *d = domain_find(m, *domain);
    if (!d || *index >= d->n_dispatchers) return RF_ERR_NOT_FOUND;
    return dispatcher_is_alive(m, d, *index) ? RF_OK : RF_ERR_PEER_DEAD;
}

void connect_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                     const rf_client_connect_t *body)
{
    const client_t *c = &m->clients[client];
    rf_domain_t domain = RF_DOMAIN_NONE;
    unsigned index = 0;
    rf_err_t err = find(m, body, &domain, &index);
    if (err == RF_OK && ((body->slots & (body->slots - 1)) != 0 || body->slots > SLOTS_MAX))
        err = RF_ERR_INVALID;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_CONNECT, client, request, m->now_ns + REQUEST_NS);
    if (!op) return;
    const domain_t *from = domain_find(m, c->domain);
    op->state = RESOURCES;
    op->connect.fds[0] = op->connect.fds[1] = -1;
    op->connect.exporter = NO_CLIENT;
    op->connect.channel = (uint64_t)m->core << 48 | 1ull << 40 | (++m->channel_next & 0xffffffffffull);
    op->connect.domain = domain;
    op->connect.index = (uint16_t)index;
    op->connect.core = domain_find(m, domain)->cores[index];
    op->connect.from_domain = c->domain;
    op->connect.from_index = c->index;
    op->connect.from_core = m->core;
    op->connect.kind = kind_of(m, m->core, op->connect.core);
    op->connect.slots = body->slots;
    memcpy(op->connect.name, body->name, sizeof op->connect.name);
    if (from) {
        op->connect.from_uid = from->uid;
        memcpy(op->connect.from_user, from->user, sizeof op->connect.from_user);
    }
    bool network = op->connect.kind == RF_CHANNEL_NETWORK;
    out_action(m, network ? MONITOR_DO_RANDOM : MONITOR_DO_SOCKETPAIR)->op = op_id(m, op);
}

static void shell_answer(monitor_t *m, op_t *op, const monitor_event_t *event)
{
    if (op->state != RESOURCES) return;
    if (event->err != RF_OK) {
        fail(m, op, event->err);
        return;
    }
    if (event->kind == MONITOR_SOCKETPAIR && event->n_fds == 2) {
        op->connect.fds[0] = event->fds[0];
        op->connect.fds[1] = event->fds[1];
    } else if (event->kind == MONITOR_RANDOM &&
               event->size == sizeof op->connect.token + sizeof op->connect.key) {
        memcpy(op->connect.token, event->bytes, sizeof op->connect.token);
        memcpy(op->connect.key, (const uint8_t *)event->bytes + sizeof op->connect.token,
               sizeof op->connect.key);
    } else {
        fail(m, op, RF_ERR_OS);
        return;
    }
    go_on(m, op);
}

void connect_accept(monitor_t *m, uint32_t client, const rf_client_accept_t *body)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if (op->kind != OP_CONNECT || op->state != ASKING || op->connect.exporter != client ||
            op->connect.channel != body->channel)
            continue;
        bool network = op->connect.kind == RF_CHANNEL_NETWORK;
        rf_err_t err = body->err < RF_ERR_COUNT ? (rf_err_t)body->err : RF_ERR_PROTOCOL;
        if (err == RF_OK && network && !text_is_valid(body->address, sizeof body->address))
            err = RF_ERR_PROTOCOL;
        if (err != RF_OK) {
            fail(m, op, err);
            return;
        }
        const domain_t *d = domain_find(m, op->connect.domain);
        uint32_t uid = d ? d->uid : 0;
        m->clients[client].incoming--;
        op->connect.exporter = NO_CLIENT;
        if (op->peer_tag == 0) {
            connected(m, op, uid, body->address);
            return;
        }
        rf_wire_header_t header = {.tag = op->peer_tag};
        peer_connected_t out = {.uid = uid};
        if (network) memcpy(out.address, body->address, sizeof out.address);
        if (peer_waits(m, op))
            peer_send(m, op->peer, PEER_CONNECTED, &header, sizeof header, &out, sizeof out);
        op_end(m, op);
        return;
    }
}

void connect_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    peer_connect_t body;
    memcpy(&header, bytes, sizeof header);
    memcpy(&body, bytes + sizeof header, sizeof body);
    int fds[MONITOR_FDS_MAX];
    unsigned n_fds = unpark_fds(m, true, from, header.tag, fds);
    bool valid = header.tag != 0 && body.from_core == from && body.kind == kind_of(m, from, m->core) &&
                 n_fds == (body.kind == RF_CHANNEL_URPC ? 1u : 0u) &&
                 strnlen(body.from_user, sizeof body.from_user) < sizeof body.from_user &&
                 strnlen(body.name, sizeof body.name) < sizeof body.name;
    op_t *op = valid ? op_begin(m, OP_CONNECT, m->now_ns + REQUEST_NS) : NULL;
    if (!op) {
        rf_wire_header_t out = {.tag = header.tag, .err = valid ? RF_ERR_AGAIN : RF_ERR_PROTOCOL};
        peer_connected_t none = {0};
        out_close_fds(m, fds, n_fds);
        peer_send(m, from, PEER_CONNECTED, &out, sizeof out, &none, sizeof none);
        return;
    }
    peer_asked(m, op, from, header.tag);
    op->connect.fds[0] = -1;
    op->connect.fds[1] = n_fds > 0 ? fds[0] : -1;
    op->connect.exporter = NO_CLIENT;
    op->connect.channel = body.channel;
    op->connect.domain = body.domain;
    op->connect.index = body.index;
    op->connect.core = m->core;
    op->connect.from_domain = body.from_domain;
    op->connect.from_index = body.from_index;
    op->connect.from_core = from;
    op->connect.kind = body.kind;
    op->connect.slots = body.slots;
    op->connect.from_uid = body.from_uid;
    memcpy(op->connect.from_user, body.from_user, sizeof op->connect.from_user);
    memcpy(op->connect.name, body.name, sizeof op->connect.name);
    memcpy(op->connect.token, body.token, sizeof op->connect.token);
    memcpy(op->connect.key, body.key, sizeof op->connect.key);
    offer(m, op);
}

void connect_peer_connected(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    (void)size;
    rf_wire_header_t header;
    peer_connected_t body;
    memcpy(&header, bytes, sizeof header);
    memcpy(&body, bytes + sizeof header, sizeof body);
    op_t *op = op_find(m, header.tag, OP_CONNECT);
    if (!op || op->state != ASKED || op->peer != from) return;
    if (header.err != RF_OK)
        fail(m, op, header.err < RF_ERR_COUNT ? (rf_err_t)header.err : RF_ERR_PROTOCOL);
    else
        connected(m, op, body.uid, body.address);
}

static void linked(monitor_t *m, op_t *op)
{
    if (op->state == LINKING) ask_peer(m, op);
}

/* A channel that the asker has not got is none to it, though the exporter may have its end. */
static void peer_lost(monitor_t *m, op_t *op, rf_err_t err)
{
    fail(m, op, err == RF_ERR_UNKNOWN_OUTCOME ? RF_ERR_CLOSED : err);
}

static void timeout(monitor_t *m, op_t *op)
{
    fail(m, op, RF_ERR_TIMEOUT);
}

static void client_went(monitor_t *m, op_t *op, uint32_t client)
{
    if (op->connect.exporter == client) fail(m, op, RF_ERR_PEER_DEAD);
}

const op_class_t op_connect_class = {.name = "connect",
                                     .peer_up = linked,
                                     .peer_lost = peer_lost,
                                     .answer = shell_answer,
                                     .timeout = timeout,
                                     .client_gone = client_went};
