#include "monitor/state.h"

#include <stdio.h>

/* ---- memory ---- */

static size_t padded(size_t size)
{
    return (size + 63) & ~(size_t)63;
}

static size_t tables_size(const rf_boot_t *boot)
{
    return padded(sizeof(monitor_t)) + padded(boot->n_cores * sizeof(core_t)) +
           2 * padded((boot->n_cores + 7u) / 8);
}

size_t monitor_size(const rf_boot_t *boot, rf_core_t core)
{
    agreement_params_t params = agree_params(boot, core, 1);
    registry_params_t registry = registry_params_of(boot);
    return tables_size(boot) + padded(registry_size(&registry)) + agreement_size(&params);
}

rf_err_t monitor_init(void *memory, size_t size, const rf_boot_t *boot, rf_core_t core,
                      rf_incarnation_t incarnation, const char *owner, uint64_t now_ns, monitor_t **out)
{
    if (core >= boot->n_cores || boot->node_of[core] != boot->node || boot->heartbeat_ms == 0 ||
        boot->election_ms == 0 || incarnation == 0)
        return RF_ERR_INVALID;
    if (size < monitor_size(boot, core)) return RF_ERR_NO_MEMORY;
    monitor_t *m = memory;
    m->boot = boot;
    snprintf(m->owner, sizeof m->owner, "%s", owner);
    m->core = core;
    m->incarnation = incarnation;
    m->node = boot->node;
    m->started_ns = m->now_ns = now_ns;
    m->form_ns = now_ns + BOOT_NS;
    m->next_deadline_ns = m->due_ns = RF_NEVER;
    m->heartbeat_ns = m->lease_ns = m->lane.due_ns = RF_NEVER;
    m->exit_status = -1;
    m->cores = (core_t *)(void *)((uint8_t *)memory + padded(sizeof *m));
    m->members = (uint8_t *)m->cores + padded(boot->n_cores * sizeof(core_t));
    m->named = m->members + padded((boot->n_cores + 7u) / 8);
    uint8_t *registry = (uint8_t *)memory + tables_size(boot);
    registry_params_t params = registry_params_of(boot);
    uint8_t *engine = registry + padded(registry_size(&params));
    rf_assert(REPLICA_MAX + registry_save_max(&params) <= SNAPSHOT_MAX);
    m->cores[core].after_first = incarnation - 1;
    rf_err_t err =
        registry_init(registry, registry_size(&params), &params, registry_answered, m, &m->registry);
    if (err == RF_OK) err = agree_init(m, engine, size - (size_t)(engine - (uint8_t *)memory));
    if (err == RF_OK) *out = m;
    return err;
}

/* ---- operations ---- */

static const op_class_t *const classes[] = {
    [OP_SPAWN] = &op_spawn_class,   [OP_END] = &op_end_class,           [OP_RUNNING] = &op_running_class,
    [OP_WAIT] = &op_wait_class,     [OP_KILL] = &op_kill_class,         [OP_CONNECT] = &op_connect_class,
    [OP_NAME] = &op_name_class,     [OP_LINKS] = &op_links_class,       [OP_STATS] = &op_stats_class,
    [OP_LISTEN] = &op_listen_class, [OP_SHUTDOWN] = &op_shutdown_class, [OP_CHANGE] = &op_change_class,
    [OP_FENCE] = &op_fence_class,   [OP_RECLAIM] = &op_reclaim_class,   [OP_REGISTRY] = &op_registry_class,
    [OP_READ] = &op_read_class,     [OP_WATCH] = &op_watch_class,       [OP_SESSION] = &op_session_class,
    [OP_ONCE] = &op_once_class,     [OP_HOLDINGS] = &op_holdings_class,
};

const op_class_t *op_class_of(const op_t *op)
{
    return classes[op->kind];
}

op_t *op_begin(monitor_t *m, op_kind_t kind, uint64_t deadline_ns)
{
    unsigned limit = kind == OP_END || kind == OP_RUNNING ? MONITOR_OPS_MAX : MONITOR_OPS_MAX - OPS_RESERVED;
    if (m->n_ops >= limit) return NULL;
    while (m->ops[m->op_next].kind != OP_FREE) m->op_next = (m->op_next + 1) % MONITOR_OPS_MAX;
    op_t *op = &m->ops[m->op_next];
    m->op_next = (m->op_next + 1) % MONITOR_OPS_MAX;
    uint16_t generation = (uint16_t)(op->generation + 1);
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->generation = generation ? generation : 1;
    op->client = NO_CLIENT;
    op->peer = RF_CORE_NONE;
    op_deadline(m, op, deadline_ns);
    m->n_ops++;
    return op;
}

void op_deadline(monitor_t *m, op_t *op, uint64_t deadline_ns)
{
    op->deadline_ns = deadline_ns;
    if (deadline_ns < m->next_deadline_ns) m->next_deadline_ns = deadline_ns;
}

void op_end(monitor_t *m, op_t *op)
{
    rf_assert(op->kind != OP_FREE && m->n_ops > 0);
    peer_answered(m, op);
    if (op->client != NO_CLIENT) {
        rf_assert(m->clients[op->client].outstanding > 0);
        m->clients[op->client].outstanding--;
    }
    if (op->kind == OP_WAIT) m->n_waits--;
    if (op->kind == OP_WATCH) m->n_watches--;
    if (op->kind == OP_REGISTRY) registry_op_ended(m, op);
    op->kind = OP_FREE;
    op->proposing = false;
    m->n_ops--;
}

uint32_t op_id(const monitor_t *m, const op_t *op)
{
    return (uint32_t)op->generation << 16 | (uint32_t)(op - m->ops);
}

op_t *op_find(monitor_t *m, uint32_t id, op_kind_t kind)
{
    uint32_t index = id & 0xffff;
    if (index >= MONITOR_OPS_MAX) return NULL;
    op_t *op = &m->ops[index];
    if (op->kind == OP_FREE || op->generation != id >> 16 || (kind != OP_FREE && op->kind != kind))
        return NULL;
    return op;
}

/* What the dispatchers of one user, and all dispatchers together, have outstanding here. */
static void count_outstanding(monitor_t *m, const client_t *client, unsigned *same_user, unsigned *all)
{
    const domain_t *own = domain_find(m, client->domain);
    *same_user = *all = 0;
    for (unsigned i = 0; i < MONITOR_CLIENTS_MAX; i++) {
        const client_t *c = &m->clients[i];
        const domain_t *d = c->used ? domain_find(m, c->domain) : NULL;
        if (!d) continue;
        *all += c->outstanding;
        if (own && strncmp(d->user, own->user, sizeof d->user) == 0) *same_user += c->outstanding;
    }
}

/* A hostile domain must not use up what others, and rackfishd, need. */
static rf_err_t may_begin(monitor_t *m, const client_t *c)
{
    unsigned same_user, all;
    if (c->outstanding >= MONITOR_CLIENT_REQUESTS_MAX) return RF_ERR_AGAIN;
    if (c->domain == RF_DOMAIN_NONE) return RF_OK;
    count_outstanding(m, c, &same_user, &all);
    return same_user >= OPS_PER_USER_MAX || all >= OPS_DISPATCHERS_MAX ? RF_ERR_LIMIT : RF_OK;
}

op_t *op_begin_for_client(monitor_t *m, op_kind_t kind, uint32_t client, const rf_wire_header_t *request,
                          uint64_t deadline_ns)
{
    client_t *c = &m->clients[client];
    rf_err_t err = may_begin(m, c);
    op_t *op = err == RF_OK ? op_begin(m, kind, deadline_ns) : NULL;
    if (!op) {
        client_reply(m, client, request->tag, request->op, err == RF_OK ? RF_ERR_LIMIT : err, NULL, 0);
        return NULL;
    }
    c->outstanding++;
    op->client = client;
    op->client_tag = request->tag;
    op->client_op = request->op;
    return op;
}

void op_reply(monitor_t *m, op_t *op, rf_err_t err, const void *body, size_t size)
{
    if (op->client != NO_CLIENT) client_reply(m, op->client, op->client_tag, op->client_op, err, body, size);
    op_end(m, op);
}

static void expire(monitor_t *m)
{
    if (m->now_ns < m->next_deadline_ns) return;
    m->next_deadline_ns = RF_NEVER;
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_FREE) continue;
        if (op->deadline_ns <= m->now_ns) {
            op->deadline_ns = RF_NEVER;
            op_class_of(op)->timeout(m, op);
        } else if (op->deadline_ns < m->next_deadline_ns) {
            m->next_deadline_ns = op->deadline_ns;
        }
    }
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t latest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- the step ---- */

static void answer(monitor_t *m, const monitor_event_t *event)
{
    op_t *op = op_find(m, event->op, OP_FREE);
    if (op && op_class_of(op)->answer) {
        op_class_of(op)->answer(m, op, event);
        return;
    }
    for (unsigned i = 0; i < event->n_fds; i++) { /* nobody waits for it any more */
        int fd = event->fds[i];
        out_close_fd(m, &fd);
    }
}

static void handle(monitor_t *m, const monitor_event_t *event)
{
    bool core_valid = event->core < m->boot->n_cores && event->core != m->core;
    bool client_valid = event->client < MONITOR_CLIENTS_MAX && m->clients[event->client].used;
    switch (event->kind) {
    case MONITOR_TICK:
        break;
    case MONITOR_KERNEL_UP:
        kernel_up(m);
        break;
    case MONITOR_KERNEL_MESSAGE:
        kernel_message(m, event->type, event->bytes, event->size);
        break;
    case MONITOR_KERNEL_FDS:
        kernel_fds(m, event);
        break;
    case MONITOR_PEER_UP:
        rf_assert(core_valid);
        peer_up(m, event->core, event->incarnation, &event->process);
        break;
    case MONITOR_PEER_DIED:
        rf_assert(core_valid);
        peer_process_died(m, event->core, event->incarnation);
        break;
    case MONITOR_PEER_DOWN:
        rf_assert(core_valid);
        peer_down(m, event->core, event->err);
        break;
    case MONITOR_PEER_BROKEN:
        rf_assert(core_valid);
        peer_broken(m, event->core);
        break;
    case MONITOR_PEER_ROOM:
        rf_assert(core_valid);
        peer_room(m, event->core);
        break;
    case MONITOR_PEER_MESSAGE:
        rf_assert(core_valid);
        peer_message(m, event->core, event->type, event->bytes, event->size);
        break;
    case MONITOR_PEER_FDS: {
        peer_fds_t head = {0};
        rf_assert(core_valid);
        if (event->size == sizeof head) memcpy(&head, event->bytes, sizeof head);
        park_fds(m, true, event->core, head.tag, event);
        break;
    }
    case MONITOR_CLIENT_UP:
        client_up(m, event->client, event->domain, event->index);
        break;
    case MONITOR_CLIENT_GONE:
        if (client_valid) client_gone(m, event->client);
        break;
    case MONITOR_CLIENT_FULL:
        if (client_valid) {
            client_t *c = &m->clients[event->client];
            uint32_t back = (uint32_t)c->event_next - event->op;
            c->blocked = true;
            if (back <= c->event_next && back <= MONITOR_EVENTS_KEPT) c->event_next -= back;
        }
        break;
    case MONITOR_CLIENT_ROOM:
        if (client_valid) m->clients[event->client].blocked = false;
        break;
    case MONITOR_CLIENT_MESSAGE:
        if (client_valid) client_message(m, event->client, event->type, event->bytes, event->size);
        break;
    case MONITOR_CLIENT_FDS: {
        rf_client_fds_t head = {0};
        if (event->size == sizeof head) memcpy(&head, event->bytes, sizeof head);
        park_fds(m, false, client_valid ? event->client : NO_CLIENT, head.tag, event);
        break;
    }
    case MONITOR_BLOCK:
    case MONITOR_CHUNK:
    case MONITOR_SOCKETPAIR:
    case MONITOR_RANDOM:
    case MONITOR_LISTENING:
    case MONITOR_LINK_STATS:
    case MONITOR_HOLDINGS:
        answer(m, event);
        break;
    case MONITOR_LANE_READY:
    case MONITOR_LANE_UNREADY:
    case MONITOR_LANE_LINES:
    case MONITOR_LANE_REVOKED:
    case MONITOR_LANE_GRANTED:
    case MONITOR_LANE_WRITTEN:
        rf_assert(core_valid);
        standby_event(m, event);
        break;
    }
}

void monitor_step(monitor_t *m, const monitor_event_t *event, monitor_output_t *output)
{
    rf_assert(event->now_ns >= m->now_ns);
    m->now_ns = event->now_ns;
    m->real_ns = event->real_ns;
    m->out = output;
    output->n_actions = 0;
    output->n_bytes = 0;
    output->more = false;

    if (!m->begun) {
        m->begun = true;
        member_start(m);
    }
    if (m->due_ns <= m->now_ns) lateness_note(m, m->due_ns);
    handle(m, event);
    expire(m);
    member_tick(m);
    heartbeat_tick(m);
    fence_tick(m);
    reclaim_tick(m);
    leave_tick(m);
    links_tick(m);
    registry_sessions_tick(m);
    agree_tick(m);
    standby_tick(m);
    machine_events_deliver(m);
    registry_watches_deliver(m);
    shutdown_progress(m);
    output->lease_ns = heartbeat_lease_ns(m);

    uint64_t next = earliest(m->next_deadline_ns, m->agree.tick_ns);
    next = earliest(next, member_next_ns(m));
    next = earliest(next, heartbeat_next_ns(m));
    next = earliest(next, fence_next_ns(m));
    next = earliest(next, reclaim_next_ns(m));
    next = earliest(next, standby_next_ns(m));
    if (m->pinging) next = earliest(next, m->ping_deadline_ns);
    uint64_t join_ns = latest(m->agree.joins_ns, m->agree.retry_ns);
    if (m->agree.joins_ns != 0 && m->agree.joins == 0 && join_ns > m->now_ns) next = earliest(next, join_ns);
    if (m->agree.n_queue > 0 && m->agree.retry_ns > m->now_ns) next = earliest(next, m->agree.retry_ns);
    output->next_tick_ns = next;
    m->due_ns = next > m->now_ns && !output->more ? next : RF_NEVER;
    standby_look(m, output);
    if (m->exit_status >= 0) {
        monitor_action_t *action = out_action(m, MONITOR_DO_EXIT);
        action->size = (size_t)m->exit_status;
    }
    m->out = NULL;
}

void monitor_check(const monitor_t *m)
{
    unsigned ops = 0, waits = 0, live = 0, transfers = 0;
    unsigned outstanding[MONITOR_CLIENTS_MAX] = {0};
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        const op_t *op = &m->ops[i];
        if (op->kind == OP_FREE) continue;
        ops++;
        waits += op->kind == OP_WAIT;
        if (op->client != NO_CLIENT) {
            rf_assert(op->client < MONITOR_CLIENTS_MAX && m->clients[op->client].used);
            outstanding[op->client]++;
        }
        transfers += op->kind == OP_SPAWN && op->transfer;
        rf_assert(op->deadline_ns == RF_NEVER || op->deadline_ns >= m->next_deadline_ns);
    }
    rf_assert(ops == m->n_ops && waits == m->n_waits && transfers == m->n_transfers);
    for (unsigned i = 0; i < MONITOR_CLIENTS_MAX; i++)
        rf_assert(m->clients[i].outstanding == outstanding[i] &&
                  outstanding[i] <= MONITOR_CLIENT_REQUESTS_MAX);
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        const domain_t *d = &m->domains[i];
        if (d->id == 0) continue;
        rf_assert(d->id % MONITOR_DOMAINS_MAX == i && d->id <= m->domain_last);
        rf_assert(d->n_dispatchers >= 1 && d->n_dispatchers <= RF_DISPATCHERS_PER_DOMAIN_MAX);
        rf_assert((d->state == RF_DOMAIN_ENDED) == !((d->alive | d->left) & 1));
        rf_assert((d->alive & d->ending) == 0 && ((d->alive | d->ending) & d->left) == 0);
        rf_assert(d->state == RF_DOMAIN_ENDED ? d->alive == 0 : d->ending == 0);
        for (unsigned k = 0; k < d->n_dispatchers; k++) {
            rf_assert(d->cores[k] < m->boot->n_cores);
            if (d->left >> k & 1) rf_assert(m->cores[d->cores[k]].holding != 0);
        }
        live += domain_is_kept(d);
    }
    rf_assert(live == m->n_domains_live);
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        const name_t *n = &m->names[i];
        if (!n->used) continue;
        const domain_t *d = &m->domains[n->domain % MONITOR_DOMAINS_MAX];
        rf_assert(d->id == n->domain && n->index < d->n_dispatchers &&
                  ((d->alive | d->ending | d->left) >> n->index & 1));
    }
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        if (l->state != LOCAL_FREE && l->client != NO_CLIENT)
            rf_assert(m->clients[l->client].used && m->clients[l->client].domain == l->domain);
    }
    registry_check(m->registry);
    rf_assert(m->agree.n_inflight <= AGREE_PROPOSALS_MAX && !m->agree.busy);
}
