/*
 * Clients: the dispatchers of this core, and rackfishd. Who a client is comes from where its link came from (the CPU
 * driver's word for a dispatcher, the listening socket for rackfishd), never from what it says.
 */
#include "monitor/state.h"

enum { D = 1, N = 2, BOTH = 3 };

void client_up(monitor_t *m, uint32_t client, rf_domain_t domain, uint16_t index)
{
    rf_assert(client < MONITOR_CLIENTS_MAX && !m->clients[client].used);
    m->clients[client] =
        (client_t){.used = true, .domain = domain, .index = index, .event_next = m->event_last + 1};
    if (domain == RF_DOMAIN_NONE) {
        peer_ask_addresses(m, client);
        return;
    }
    local_t *local = local_find(m, domain, index);
    if (!local || local->client != NO_CLIENT) { /* it ended meanwhile */
        client_close(m, client, "no such dispatcher");
        return;
    }
    local->client = client;
}

void client_gone(monitor_t *m, uint32_t client)
{
    client_t *c = &m->clients[client];
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_FREE) continue;
        const op_class_t *class = op_class_of(op);
        if (class->client_gone) class->client_gone(m, op, client);
        if (op->kind == OP_FREE || op->client != client) continue;
        c->outstanding--; /* it goes on, but answers nobody */
        op->client = NO_CLIENT;
    }
    unpark_all(m, false, client);
    registry_session_client_gone(m, client);
    local_t *local = local_find(m, c->domain, c->index);
    if (local && local->client == client) local->client = NO_CLIENT;
    rf_assert(c->outstanding == 0);
    c->used = false;
    m->n_subscribers -= c->mask != 0;
    c->mask = 0;
}

static void addresses(monitor_t *m, const rf_client_addresses_t *a)
{
    for (unsigned i = 0; i < a->n && i < RF_CLIENT_ADDRESSES_MAX; i++) {
        unsigned core = a->first + i;
        if (core >= m->boot->n_cores || m->boot->node_of[core] != a->node || same_node(m, (rf_core_t)core))
            continue;
        if (text_is_valid(a->address[i], sizeof a->address[i]))
            peer_address(m, (rf_core_t)core, a->address[i]);
    }
}

/* Requests with the struct that follows their header. */
static const struct {
    uint8_t who;
    uint16_t size;
} requests[] = {
    [RF_CLIENT_PING] = {BOTH, 0},
    [RF_CLIENT_STATUS] = {BOTH, 0},
    [RF_CLIENT_CORES] = {BOTH, sizeof(rf_client_list_t)},
    [RF_CLIENT_DOMAINS] = {BOTH, sizeof(rf_client_list_t)},
    [RF_CLIENT_NAMES] = {BOTH, sizeof(rf_client_list_t)},
    [RF_CLIENT_LINKS] = {BOTH, sizeof(rf_client_list_t)},
    [RF_CLIENT_STATS] = {BOTH, sizeof(rf_client_list_t)},
    [RF_CLIENT_HOLDINGS] = {BOTH, sizeof(rf_client_list_t)},
    [RF_CLIENT_NAME_PUT] = {D, sizeof(rf_client_name_request_t)},
    [RF_CLIENT_NAME_DELETE] = {D, sizeof(rf_client_name_request_t)},
    [RF_CLIENT_NAME_GET] = {BOTH, sizeof(rf_client_name_request_t)},
    [RF_CLIENT_CONNECT] = {D, sizeof(rf_client_connect_t)},
    [RF_CLIENT_ACCEPT] = {D, sizeof(rf_client_accept_t)},
    [RF_CLIENT_SPAWN] = {BOTH, sizeof(rf_client_spawn_t)},
    [RF_CLIENT_SPAN] = {D, sizeof(rf_client_spawn_t)},
    [RF_CLIENT_WAIT] = {BOTH, sizeof(rf_client_target_t)},
    [RF_CLIENT_KILL] = {BOTH, sizeof(rf_client_kill_t)},
    [RF_CLIENT_SUBSCRIBE] = {BOTH, sizeof(rf_client_subscribe_t)},
    [RF_CLIENT_CANCEL] = {BOTH, sizeof(rf_client_target_t)},
    [RF_CLIENT_NODE_ADDRESSES] = {N, offsetof(rf_client_addresses_t,
                                              address)}, /* and n addresses; a missing one is empty */
    [RF_CLIENT_LISTEN_ADDRESS] = {N, 0},
    [RF_CLIENT_REGISTRY_CHANGE] = {BOTH, sizeof(rf_client_registry_t)},
    [RF_CLIENT_REGISTRY_READ] = {BOTH, sizeof(rf_client_registry_t)},
    [RF_CLIENT_REGISTRY_WATCH] = {BOTH, sizeof(rf_client_registry_t)},
    [RF_CLIENT_REGISTRY_ONCE] = {N, sizeof(rf_client_once_t) + sizeof(rf_client_registry_t)},
    [RF_CLIENT_ONCE_OPEN] = {N, 0},
    [RF_CLIENT_ONCE_END] = {N, sizeof(rf_client_session_t)},
    [RF_CLIENT_SESSION_OPEN] = {N, 0},
    [RF_CLIENT_SESSION_END] = {N, sizeof(rf_client_session_t)},
    [RF_CLIENT_RELOAD] = {N, sizeof(rf_client_reload_t)},
    [RF_CLIENT_JOIN] = {N, sizeof(rf_client_join_t)},
    [RF_CLIENT_LEAVE] = {N, sizeof(rf_client_leave_t)},
    [RF_CLIENT_DEAD] = {N, sizeof(rf_client_dead_t)},
    [RF_CLIENT_SHUTDOWN] = {N, 0},
};

/* Everything that a request may carry, aligned. */
typedef union body {
    rf_client_list_t list;
    rf_client_name_request_t name;
    rf_client_connect_t connect;
    rf_client_accept_t accept;
    rf_client_spawn_t spawn;
    rf_client_target_t target;
    rf_client_kill_t kill;
    rf_client_subscribe_t subscribe;
    rf_client_addresses_t addresses;
    rf_client_reload_t reload;
    rf_client_join_t join;
    rf_client_leave_t leave;
    rf_client_dead_t dead;
    struct {
        rf_client_registry_t head;
        uint8_t bytes[RF_CLIENT_REGISTRY_BYTES_MAX];
    } registry;
    struct {
        rf_client_once_t once;
        rf_client_registry_t head;
        uint8_t bytes[RF_CLIENT_REGISTRY_BYTES_MAX];
    } once;
    rf_client_session_t session;
} body_t;

static void dispatch(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const body_t *body,
                     size_t size)
{
    client_t *c = &m->clients[client];
    switch (request->op) {
    case RF_CLIENT_LINKS:
        links_request(m, client, request, body->list.from);
        return;
    case RF_CLIENT_STATS:
        stats_request(m, client, request, body->list.from);
        return;
    case RF_CLIENT_HOLDINGS:
        holdings_request(m, client, request);
        return;
    case RF_CLIENT_NAME_PUT:
    case RF_CLIENT_NAME_DELETE:
        name_request(m, client, request, body->name.name);
        return;
    case RF_CLIENT_CONNECT:
        connect_request(m, client, request, &body->connect);
        return;
    case RF_CLIENT_ACCEPT:
        connect_accept(m, client, &body->accept);
        return; /* no reply */
    case RF_CLIENT_SPAWN:
        spawn_request(m, client, request, &body->spawn);
        return;
    case RF_CLIENT_SPAN:
        span_request(m, client, request, &body->spawn);
        return;
    case RF_CLIENT_WAIT:
        wait_request(m, client, request, body->target.domain);
        return;
    case RF_CLIENT_KILL:
        kill_request(m, client, request, &body->kill);
        return;
    case RF_CLIENT_REGISTRY_CHANGE:
        registry_change(m, client, request, &body->registry.head, size, NULL);
        return;
    case RF_CLIENT_REGISTRY_ONCE:
        registry_change(m, client, request, &body->once.head, size - sizeof body->once.once,
                        &body->once.once);
        return;
    case RF_CLIENT_ONCE_OPEN:
    case RF_CLIENT_ONCE_END:
        once_request(m, client, request, body->session.session);
        return;
    case RF_CLIENT_REGISTRY_READ:
        registry_read(m, client, request, &body->registry.head, size);
        return;
    case RF_CLIENT_REGISTRY_WATCH:
        registry_watch(m, client, request, &body->registry.head, size);
        return;
    case RF_CLIENT_SESSION_OPEN:
        registry_session_open(m, client, request);
        return;
    case RF_CLIENT_SESSION_END:
        registry_session_end(m, client, request, body->session.session);
        return;
    case RF_CLIENT_LISTEN_ADDRESS:
        listen_request(m, client, request);
        return;
    case RF_CLIENT_JOIN:
        join_request(m, client, request, body->join.core);
        return;
    case RF_CLIENT_LEAVE:
        leave_request(m, client, request, &body->leave);
        return;
    case RF_CLIENT_SHUTDOWN:
        shutdown_request(m, client, request);
        return;
    case RF_CLIENT_DEAD: /* rackfishd saw it by a pidfd, or that of the core's node told it */
        if (body->dead.core < m->boot->n_cores) peer_told_died(m, body->dead.core, body->dead.incarnation);
        break;
    case RF_CLIENT_CANCEL:
        wait_cancel(m, client, (uint32_t)body->target.domain);
        break;
    case RF_CLIENT_SUBSCRIBE:
        if (c->mask == 0) c->event_next = m->event_last + 1;
        m->n_subscribers -= c->mask != 0;
        c->mask = body->subscribe.mask & (RF_EVENTS_CORES | RF_EVENTS_NODES | RF_EVENTS_DOMAINS);
        m->n_subscribers += c->mask != 0;
        break;
    case RF_CLIENT_NODE_ADDRESSES:
        addresses(m, &body->addresses);
        break;
    case RF_CLIENT_RELOAD:
        if (body->reload.log_level > RF_LOG_DEBUG) {
            client_reply(m, client, request->tag, request->op, RF_ERR_INVALID, NULL, 0);
            return;
        }
        out_action(m, MONITOR_DO_LOG_LEVEL)->type = (uint8_t)body->reload.log_level;
        break;
    default:
        break;
    }
    client_reply(m, client, request->tag, request->op, RF_OK, NULL, 0);
}

void client_message(monitor_t *m, uint32_t client, uint8_t type, const uint8_t *bytes, size_t size)
{
    rf_wire_header_t request;
    if (type != RF_CLIENT_REQUEST || size < sizeof request) {
        client_close(m, client, "it sent what is no request");
        return;
    }
    memcpy(&request, bytes, sizeof request);
    bytes += sizeof request;
    size -= sizeof request;
    unsigned who = request.op < sizeof requests / sizeof requests[0] ? requests[request.op].who : 0;
    if (who == 0 || size < requests[request.op].size || size > sizeof(body_t)) {
        client_close(m, client, "it sent a request that does not exist, or of the wrong size");
        return;
    }
    body_t body;
    memset(&body, 0, sizeof body);
    memcpy(&body, bytes, size);
    if (!(who & (m->clients[client].domain == RF_DOMAIN_NONE ? N : D))) {
        client_reply(m, client, request.tag, request.op, RF_ERR_PERMISSION, NULL, 0);
        return;
    }
    rf_domain_t domain = m->clients[client].domain;
    if (domain != RF_DOMAIN_NONE && !domain_find(m, domain)) {
        /* It ended so long ago that its user is forgotten: on whose behalf could anything be done? */
        client_reply(m, client, request.tag, request.op, RF_ERR_CLOSED, NULL, 0);
        return;
    }
    if (query_answer(m, client, &request, (const uint8_t *)&body)) return;
    dispatch(m, client, &request, &body, size);
}
