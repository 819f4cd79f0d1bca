/* Questions that this monitor answers at once, from its replica and what it was told besides. */
#include "monitor/state.h"

#include <stdio.h>

#define REPLY_ROOM (4096 - sizeof(rf_wire_header_t) - sizeof(rf_client_list_reply_t))

void query_domain(const monitor_t *m, const domain_t *d, rf_client_domain_t *out)
{
    *out = (rf_client_domain_t){.domain = d->id,
                                .state = d->state,
                                .wait_status = d->wait_status,
                                .reason = d->reason,
                                .n_dispatchers = d->n_dispatchers,
                                .started_ns = d->started_ns,
                                .ended_ns = d->ended_ns,
                                .user_us = d->user_us,
                                .system_us = d->system_us,
                                .max_rss_kib = d->max_rss_kib};
    if (d->state != RF_DOMAIN_ENDED && d->told_ended) {
        out->state = RF_DOMAIN_ENDED;
        out->wait_status = d->told_status;
        out->reason = d->told_reason;
        out->ended_ns = d->told_ns;
    }
    memcpy(out->cores, d->cores, sizeof out->cores);
    for (unsigned i = 0; i < d->n_dispatchers; i++) {
        if (dispatcher_is_alive(m, d, i)) out->alive[i / 8] |= (uint8_t)(1u << (i % 8));
    }
    memcpy(out->user, d->user, sizeof out->user);
    memcpy(out->program, d->program, sizeof out->program);
}

static void fill_name(const name_t *n, rf_client_name_t *out)
{
    *out = (rf_client_name_t){.domain = n->domain, .index = n->index, .core = n->core};
    memcpy(out->name, n->name, sizeof out->name);
}

static void reply_list(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint32_t n,
                       uint64_t next, bool more, const void *records, size_t record_size)
{
    rf_wire_header_t header = {.tag = request->tag, .op = request->op};
    struct {
        rf_wire_header_t header;
        rf_client_list_reply_t list;
    } head = {.header = header, .list = {.n = n, .more = more, .next = next}};
    monitor_action_t *action = out_action(m, MONITOR_DO_SEND_CLIENT);
    action->type = RF_CLIENT_REPLY;
    action->client = client;
    out_bytes(m, action, &head, sizeof head, records, n * record_size);
}

static bool is_proved_dead(const monitor_t *m, const agreement_member_t *voter)
{
    const core_t *c = &m->cores[voter->core];
    return c->dead_kernel && core_life(c) == voter->incarnation;
}

static void status(monitor_t *m, uint32_t client, const rf_wire_header_t *request)
{
    agreement_state_t agreed;
    agreement_query(m->agree.engine, &agreed);
    rf_client_status_t s = {.machine = m->boot->machine,
                            .view = agreed.view,
                            .term = agreed.term,
                            .log_committed = agreed.committed,
                            .log_applied = agreed.applied,
                            .leader = agreed.leader.core,
                            .core = m->core,
                            .cores = m->boot->n_cores,
                            .node = m->node,
                            .nodes = m->boot->n_nodes,
                            .has_quorum = m->quorum,
                            .n_voters = (uint16_t)agreed.n_voters,
                            .forming = !m->formed,
                            .lost = agreed.lost,
                            .joint = agreed.joint,
                            .frozen = m->frozen,
                            .survives_cores = agreed.survives,
                            .survives_hosts = agreed.survives_hosts,
                            .uptime_ns = m->now_ns - m->started_ns,
                            .incarnation = m->incarnation,
                            .lanes = !m->boot->one_sided   ? RF_CLIENT_LANES_OFF
                                     : agreed.lanes        ? (uint16_t)agreed.lanes
                                     : agreed.lane         ? agreed.lane
                                     : standby_is_unfit(m) ? RF_CLIENT_LANES_UNFIT
                                                           : 0,
                            .log_first = agreed.first,
                            .elections = agreed.elections,
                            .expulsions = agreed.expulsions,
                            .expulsions_silent = m->expulsions_silent,
                            .reads_leased = agreed.reads_leased,
                            .reads_asked = agreed.reads_asked,
                            .late_often_ns = lateness_often_ns(m),
                            .late_worst_ns = m->lateness.worst_ns,
                            .snapshots_sent = agreed.snapshots_sent,
                            .snapshots_loaded = agreed.snapshots_loaded};
    _Static_assert(AGREEMENT_VOTERS_MAX <= RF_CLIENT_VOTERS_MAX, "all voters are told");
    for (unsigned i = 0; i < agreed.n_voters && i < AGREEMENT_VOTERS_MAX; i++)
        s.voters[i] = agreed.voters[i].core;
    for (unsigned i = 0; i < agreed.n_waiting && i < AGREEMENT_VOTERS_MAX; i++) {
        if (!agreed.lost || is_proved_dead(m, &agreed.waiting[i]))
            s.waiting[s.n_waiting++] = agreed.waiting[i].core;
    }
    memcpy(s.machine_name, m->boot->machine_name, sizeof s.machine_name);
    memcpy(s.scheduler, m->scheduler, sizeof s.scheduler);
    memcpy(s.isolation, m->isolation, sizeof s.isolation);
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) s.cores_up += core_is_alive(m, core);
    for (rf_node_t node = 0; node < m->boot->n_nodes; node++)
        s.nodes_up += m->formed && heartbeat_gateway(m, node) != RF_CORE_NONE;
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++)
        s.domains += m->domains[i].id != 0 && !domain_has_ended(&m->domains[i]);
    client_reply(m, client, request->tag, request->op, RF_OK, &s, sizeof s);
}

static void cores(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from)
{
    rf_client_core_t records[REPLY_ROOM / sizeof(rf_client_core_t)];
    uint32_t n = 0;
    uint64_t core = from;
    for (; core < m->boot->n_cores && n < sizeof records / sizeof records[0]; core++) {
        rf_node_t node = m->boot->node_of[core];
        rf_client_core_t *r = &records[n++];
        *r = (rf_client_core_t){.core = (rf_core_t)core,
                                .node = node,
                                .cpu = m->boot->cores[core].cpu,
                                .state = !m->formed                         ? RF_CORE_JOINING
                                         : core_is_alive(m, (unsigned)core) ? RF_CORE_UP
                                                                            : RF_CORE_DOWN,
                                .incarnation = core_agreed(m, (unsigned)core),
                                .package = m->boot->package_of[core],
                                .numa = m->boot->cores[core].numa};
        memcpy(r->node_name, m->boot->nodes[node].name, sizeof r->node_name);
    }
    reply_list(m, client, request, n, core, core < m->boot->n_cores, records, sizeof records[0]);
}

/* The domain with the lowest number at or above `from`. */
static domain_t *next_domain(monitor_t *m, uint64_t from)
{
    domain_t *best = NULL;
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        if (d->id != 0 && d->id >= from && (!best || d->id < best->id)) best = d;
    }
    return best;
}

static void domains(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from)
{
    rf_client_domain_t records[REPLY_ROOM / sizeof(rf_client_domain_t)];
    uint32_t n = 0;
    domain_t *d = next_domain(m, from);
    for (; d && n < sizeof records / sizeof records[0]; d = next_domain(m, d->id + 1))
        query_domain(m, d, &records[n++]);
    reply_list(m, client, request, n, d ? d->id : 0, d != NULL, records, sizeof records[0]);
}

static void names(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from)
{
    rf_client_name_t records[REPLY_ROOM / sizeof(rf_client_name_t)];
    uint32_t n = 0;
    uint64_t i = from;
    for (; i < MONITOR_NAMES_MAX && n < sizeof records / sizeof records[0]; i++) {
        const name_t *name = &m->names[i];
        if (name->used && name_is_alive(m, name)) fill_name(name, &records[n++]);
    }
    reply_list(m, client, request, n, i, i < MONITOR_NAMES_MAX, records, sizeof records[0]);
}

static void name_get(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const char *text)
{
    rf_client_name_t out;
    const name_t *n = text_is_valid(text, RF_NAME_MAX) ? name_find(m, text) : NULL;
    if (!n || !name_is_alive(m, n)) {
        client_reply(m, client, request->tag, request->op, RF_ERR_NOT_FOUND, NULL, 0);
        return;
    }
    fill_name(n, &out);
    client_reply(m, client, request->tag, request->op, RF_OK, &out, sizeof out);
}

bool query_answer(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const uint8_t *body)
{
    uint64_t from;
    memcpy(&from, body, sizeof from);
    switch (request->op) {
    case RF_CLIENT_PING:
        client_reply(m, client, request->tag, request->op, RF_OK, NULL, 0);
        return true;
    case RF_CLIENT_STATUS:
        status(m, client, request);
        return true;
    case RF_CLIENT_CORES:
        cores(m, client, request, from);
        return true;
    case RF_CLIENT_DOMAINS:
        domains(m, client, request, from);
        return true;
    case RF_CLIENT_NAMES:
        names(m, client, request, from);
        return true;
    case RF_CLIENT_NAME_GET:
        name_get(m, client, request, (const char *)body);
        return true;
    default:
        return false;
    }
}
