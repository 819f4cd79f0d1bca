#include "node/control_queries.h"

#include "base/log.h"
#include "base/os.h"
#include "node/peers.h"
#include "node/cores.h"
#include "node/monitors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS_MAX 65536 /* kept of one list while its pages come in */

/*
 * A question to the replica: asked of the first living local monitor, and of the next when that one does not answer in time.
 * Lists come in pages; all pages are of one monitor, so a change of monitor starts the list again.
 */
typedef struct replica_query {
    rf_operation_t operation;
    rf_monitor_call_t call;
    uint16_t op;
    unsigned tried;     /* index of the core asked */
    size_t record_size; /* 0: no list */
    uint8_t *records;
    size_t n_records, capacity;
    uint64_t from;
    void (*answer)(struct replica_query *query, const void *body, size_t size);
} replica_query_t;

static void query_end(replica_query_t *query)
{
    rf_monitor_call_cancel(&query->call);
    free(query->records);
    query->records = NULL;
    rf_operation_end(&query->operation);
}

static void query_cancel(rf_operation_t *operation)
{
    query_end((replica_query_t *)operation);
}

static void on_replica_reply(void *context, rf_err_t err, const void *body, size_t size);

static void query_ask(replica_query_t *query)
{
    rf_daemon_t *daemon = query->operation.client->daemon;
    for (;;) {
        rf_local_core_t *core = rf_monitor_first(daemon, query->tried);
        if (!core) {
            rf_client_error(query->operation.client, query->operation.id, RF_ERR_PEER_DEAD,
                            "no monitor of node %s is in reach; ask another node, or 'rackfish logs'",
                            daemon->config->nodes[daemon->node].name);
            query_end(query);
            return;
        }
        query->tried = (unsigned)(core - daemon->cores);
        rf_client_list_t list = {.from = query->from};
        if (rf_monitor_call(core, &query->call, query->op, &list, query->record_size ? sizeof list : 0, NULL,
                            0, RF_ANSWER_NS, on_replica_reply, query) == RF_OK)
            return;
        query->tried++;
        query->from = query->n_records = 0;
    }
}

/* Keeps a page; RF_ERR_AGAIN: there is another. */
static rf_err_t keep_page(replica_query_t *query, const void *body, size_t size)
{
    rf_client_list_reply_t head;
    const void *records;
    rf_err_t err = rf_list_reply_parse(body, size, query->record_size, &head, &records);
    if (err != RF_OK) return err;
    if (query->n_records + head.n > query->capacity) {
        size_t capacity = 2 * query->capacity + head.n;
        uint8_t *grown =
            capacity <= RECORDS_MAX ? realloc(query->records, capacity * query->record_size) : NULL;
        if (!grown) return RF_ERR_LIMIT;
        query->records = grown;
        query->capacity = capacity;
    }
    if (head.n > 0)
        memcpy(query->records + query->n_records * query->record_size, records, head.n * query->record_size);
    query->n_records += head.n;
    if (!head.more) return RF_OK;
    if (head.next <= query->from) return RF_ERR_PROTOCOL;
    query->from = head.next;
    return RF_ERR_AGAIN;
}

static void on_replica_reply(void *context, rf_err_t err, const void *body, size_t size)
{
    replica_query_t *query = context;
    if (err == RF_OK && query->record_size) err = keep_page(query, body, size);
    if (err == RF_ERR_AGAIN) {
        query_ask(query);
        return;
    }
    if (err == RF_OK) {
        query->answer(query, body, size);
        query_end(query);
        return;
    }
    query->tried++;
    query->from = query->n_records = 0;
    query_ask(query);
}

static void query_start(rf_client_t *client, uint64_t id, uint16_t op, size_t record_size,
                        void (*answer)(replica_query_t *, const void *, size_t))
{
    replica_query_t *query = rf_operation_new(client, id, sizeof *query, query_cancel);
    if (!query) return;
    query->op = op;
    query->record_size = record_size;
    query->answer = answer;
    query_ask(query);
}

/* ---- status ---- */

static void list_cores(const rf_core_t *cores, unsigned n, char *out, size_t max)
{
    size_t at = 0;
    out[0] = 0;
    for (unsigned i = 0; i < n && i < RF_CLIENT_VOTERS_MAX && at < max; i++)
        at += (size_t)snprintf(out + at, max - at, "%s%u", i ? ", " : "", cores[i]);
}

/* The node on which most voters are. */
static const char *node_with_most(const rf_daemon_t *daemon, const rf_client_status_t *status)
{
    unsigned on[RF_NODES_MAX] = {0}, most = 0;
    for (unsigned i = 0; i < status->n_voters && i < RF_CLIENT_VOTERS_MAX; i++) {
        rf_node_t node = rf_daemon_node_of_core(daemon, status->voters[i]);
        if (node != RF_NODE_NONE && ++on[node] > on[most]) most = node;
    }
    return daemon->config->nodes[most].name;
}

void rf_survives_in_words(const rf_daemon_t *daemon, const rf_client_status_t *status, char *out, size_t max)
{
    char most[RF_NAME_MAX + 64];
    snprintf(most, sizeof most, ", but not of node %s; %s", node_with_most(daemon, status),
             status->nodes == 2     ? "three nodes survive any one (the third may be a witness)"
             : status->nodes_up > 2 ? "`voters: 3` survives any one"
                                    : "three nodes survive any one");
    char who[64];
    list_cores(status->waiting, status->n_waiting, who, sizeof who);
    const char *even = status->n_voters > 2 && status->n_voters % 2 == 0
                           ? "; an even number of voters survives no "
                             "more than one less"
                           : "";
    if (status->forming)
        snprintf(out, max, "the machine is still forming");
    else if (status->lost)
        snprintf(
            out, max,
            "nothing: a majority of the voters is dead (core %s), and nothing can ever be agreed on again; "
            "'rackfish down' on every host and then 'rackfish up' form a new machine. What runs goes on",
            who);
    else if (!status->has_quorum)
        snprintf(out, max,
                 "no agreed changes now (the quorum is out of reach%s%s); running domains, open channels and "
                 "questions go on",
                 who[0] ? "; waiting for core " : "", who);
    else if (status->cores_up <= 1)
        snprintf(out, max, "nothing: only one core is up");
    else if (status->survives_cores == 0)
        snprintf(out, max,
                 "no death of a core that votes: agreed changes then stop, what runs goes on; three cores "
                 "survive one");
    else
        snprintf(out, max, "the death of any %u core%s%s%s%s", status->survives_cores,
                 status->survives_cores == 1 ? "" : "s",
                 status->nodes < 2             ? ""
                 : status->survives_hosts == 0 ? most
                 : status->survives_hosts == 1 ? ", or of any node"
                                               : ", or of several nodes",
                 "", even);
}

/* Which variant of append is in use, as the monitor that answered knows it. */
static void append_in_words(const rf_client_status_t *s, char *out, size_t max)
{
    bool leads = s->leader == s->core;
    if (s->lanes == RF_CLIENT_LANES_OFF)
        snprintf(out, max, "by messages");
    else if (s->lanes == RF_CLIENT_LANES_UNFIT)
        snprintf(out, max,
                 "by messages: one_sided is on, but only rdma and tcp between hosts take memory back");
    else if (s->lanes == 0)
        snprintf(out, max, "by messages at present, one-sided where the medium allows it");
    else if (leads)
        snprintf(out, max, "one-sided: this core, which leads, writes into the logs of %u voter%s", s->lanes,
                 s->lanes == 1 ? "" : "s");
    else
        snprintf(out, max, "one-sided: the leader writes into this core's log");
}

static void answer_status(replica_query_t *query, const void *body, size_t size)
{
    rf_client_t *client = query->operation.client;
    rf_daemon_t *daemon = client->daemon;
    rf_client_status_t s;
    if (size < sizeof s) {
        rf_client_error(client, query->operation.id, RF_ERR_PROTOCOL, "the monitor's answer is cut short");
        return;
    }
    memcpy(&s, body, sizeof s);
    s.scheduler[sizeof s.scheduler - 1] = s.isolation[sizeof s.isolation - 1] = 0;
    s.machine_name[sizeof s.machine_name - 1] = 0;
    char append[96];
    append_in_words(&s, append, sizeof append);
    char survives[256], answered_by[RF_NAME_MAX + 32];
    rf_survives_in_words(daemon, &s, survives, sizeof survives);
    snprintf(answered_by, sizeof answered_by, "%s, core %u", daemon->config->nodes[daemon->node].name,
             s.core);
    Rackfish__Status status;
    rackfish__status__init(&status);
    status.machine = s.machine_name;
    status.machine_id = (ProtobufCBinaryData){.data = s.machine.bytes, .len = sizeof s.machine.bytes};
    status.view = s.view;
    status.term = s.term;
    status.log_committed = s.log_committed;
    status.log_applied = s.log_applied;
    status.leader = s.leader == RF_CORE_NONE ? -1 : s.leader;
    status.cores = s.cores;
    status.cores_up = s.cores_up;
    status.nodes = s.nodes;
    status.nodes_up = s.nodes_up;
    status.has_quorum = s.has_quorum;
    status.voters = s.n_voters;
    uint32_t voters[RF_CLIENT_VOTERS_MAX], waiting[RF_CLIENT_VOTERS_MAX];
    status.voter = voters;
    for (unsigned i = 0; i < s.n_voters && i < RF_CLIENT_VOTERS_MAX; i++)
        voters[status.n_voter++] = s.voters[i];
    status.waiting = waiting;
    for (unsigned i = 0; i < s.n_waiting && i < RF_CLIENT_VOTERS_MAX; i++)
        waiting[status.n_waiting++] = s.waiting[i];
    char *witnesses[RF_NODES_MAX];
    status.witness = witnesses;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (daemon->config->nodes[i].witness) witnesses[status.n_witness++] = daemon->config->nodes[i].name;
    }
    status.lost = s.lost;
    status.joint = s.joint;
    status.frozen = s.frozen;
    status.survives_cores = s.survives_cores;
    status.survives_nodes = s.survives_hosts;
    status.log_first = s.log_first;
    status.elections = s.elections;
    status.expulsions = s.expulsions;
    status.expulsions_silent = s.expulsions_silent;
    status.late_often_ns = s.late_often_ns;
    status.late_worst_ns = s.late_worst_ns;
    status.expelled_alive = daemon->expelled_alive;
    status.snapshots_sent = s.snapshots_sent;
    status.snapshots_loaded = s.snapshots_loaded;
    status.incarnation = s.incarnation;
    status.append = append;
    status.plan = daemon->config->plan;
    status.lease_ms = s.cores > 1 ? daemon->config->lease_ms : 0;
    status.lease_drift = s.cores > 1 ? daemon->config->lease_drift : 0;
    status.reads_leased = s.reads_leased;
    status.reads_asked = s.reads_asked;
    status.lanes = s.lanes >= RF_CLIENT_LANES_UNFIT ? 0 : s.lanes;
    status.domains = s.domains;
    status.forming = s.forming;
    status.survives = survives;
    status.uptime_ns = s.uptime_ns;
    status.scheduler = s.scheduler;
    status.isolation = s.isolation;
    status.encrypted = daemon->config->encrypt;
    status.answered_by = answered_by;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = query->operation.id;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_STATUS;
    reply.status = &status;
    rf_client_reply(client, &reply);
}

void rf_query_status(rf_client_t *client, uint64_t id)
{
    query_start(client, id, RF_CLIENT_STATUS, 0, answer_status);
}

/* ---- cores ---- */

static const char *core_state(unsigned state)
{
    return state == RF_CORE_UP ? "up" : state == RF_CORE_JOINING ? "joining" : "down";
}

static int32_t known_or_none(uint32_t number)
{
    return number == UINT32_MAX ? -1 : (int32_t)number;
}

/* Packs n protobuf messages of one type in replies of at most this many. */
#define LIST_PART 500

static void answer_cores(replica_query_t *query, const void *body, size_t size)
{
    (void)body;
    (void)size;
    rf_client_t *client = query->operation.client;
    rf_client_core_t *records = (rf_client_core_t *)(void *)query->records;
    Rackfish__Core items[LIST_PART], *pointers[LIST_PART];
    size_t at = 0;
    do {
        size_t n = query->n_records - at < LIST_PART ? query->n_records - at : LIST_PART;
        for (size_t i = 0; i < n; i++) {
            rf_client_core_t *r = &records[at + i];
            r->node_name[sizeof r->node_name - 1] = 0;
            rackfish__core__init(&items[i]);
            items[i].core = r->core;
            items[i].node = r->node_name;
            items[i].cpu = r->cpu;
            items[i].state = (char *)(uintptr_t)core_state(r->state);
            items[i].incarnation = r->incarnation;
            items[i].package = known_or_none(r->package);
            items[i].numa = known_or_none(r->numa);
            items[i].witness =
                r->node < client->daemon->config->n_nodes && client->daemon->config->nodes[r->node].witness;
            for (size_t k = 0; k < query->n_records; k++)
                items[i].shared_cpu |= &records[k] != r && records[k].cpu == r->cpu &&
                                       (records[k].node == r->node || client->daemon->config->emulated);
            pointers[i] = &items[i];
        }
        at += n;
        Rackfish__CoreList list;
        rackfish__core_list__init(&list);
        list.n_cores = n;
        list.cores = pointers;
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = query->operation.id;
        reply.more = at < query->n_records;
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_CORES;
        reply.cores = &list;
        rf_client_reply(client, &reply);
    } while (at < query->n_records);
}

void rf_query_cores(rf_client_t *client, uint64_t id)
{
    query_start(client, id, RF_CLIENT_CORES, sizeof(rf_client_core_t), answer_cores);
}

/* ---- nodes ---- */

static uint64_t memory_available(void)
{
    char text[4096];
    if (rf_file_read("/proc/meminfo", text, sizeof text) < 0) return 0;
    const char *at = strstr(text, "MemAvailable:");
    return at ? strtoull(at + 13, NULL, 10) * 1024 : 0;
}

static void answer_nodes(replica_query_t *query, const void *body, size_t size)
{
    (void)body;
    (void)size;
    rf_client_t *client = query->operation.client;
    rf_daemon_t *daemon = client->daemon;
    const rf_client_core_t *records = (const rf_client_core_t *)(const void *)query->records;
    Rackfish__Node items[RF_NODES_MAX], *pointers[RF_NODES_MAX];
    unsigned n_nodes = daemon->config->n_nodes;
    for (unsigned i = 0; i < n_nodes; i++) {
        rackfish__node__init(&items[i]);
        items[i].name = daemon->config->nodes[i].name;
        items[i].node = i;
        items[i].address = daemon->places[i].address;
        items[i].first_core = daemon->places[i].first_core;
        items[i].cores = daemon->places[i].n_cores;
        items[i].witness = daemon->config->nodes[i].witness;
        for (size_t k = 0; k < query->n_records; k++)
            items[i].cores_up += records[k].node == i && records[k].state == RF_CORE_UP;
        const char *state = items[i].cores_up == 0                       ? "down"
                            : rf_peer_is_connected(daemon, (rf_node_t)i) ? "up"
                                                                         : "up, its rackfishd out of reach";
        items[i].state = (char *)(uintptr_t)state;
        const char *model = "";
        if (i == daemon->node) {
            items[i].memory_bytes = daemon->topology.memory_bytes;
            model = daemon->topology.cpu_model;
        } else {
            rf_peer_host(daemon, (rf_node_t)i, &items[i].memory_bytes, &model);
        }
        /* Emulated nodes share this host's memory; of other hosts' free memory only they know. */
        if (i == daemon->node || daemon->config->emulated) items[i].memory_free_bytes = memory_available();
        items[i].cpu_model = (char *)(uintptr_t)model;
        pointers[i] = &items[i];
    }
    Rackfish__NodeList list;
    rackfish__node_list__init(&list);
    list.n_nodes = n_nodes;
    list.nodes = pointers;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = query->operation.id;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_NODES;
    reply.nodes = &list;
    rf_client_reply(client, &reply);
}

void rf_query_nodes(rf_client_t *client, uint64_t id)
{
    query_start(client, id, RF_CLIENT_CORES, sizeof(rf_client_core_t), answer_nodes);
}

/* ---- domains ---- */

void rf_domain_show(rf_client_domain_t *domain, rf_domain_scratch_t *scratch, Rackfish__Domain *out)
{
    static char starting[] = "starting", running[] = "running", ended[] = "ended";
    rackfish__domain__init(out);
    unsigned n = domain->n_dispatchers < RF_DISPATCHERS_PER_DOMAIN_MAX ? domain->n_dispatchers
                                                                       : RF_DISPATCHERS_PER_DOMAIN_MAX;
    domain->user[sizeof domain->user - 1] = 0;
    domain->program[sizeof domain->program - 1] = 0;
    for (unsigned i = 0; i < n; i++) {
        scratch->cores[i] = domain->cores[i];
        scratch->alive[i] = domain->alive[i / 8] >> (i % 8) & 1;
    }
    out->domain = domain->domain;
    out->state = domain->state == RF_DOMAIN_ENDED     ? ended
                 : domain->state == RF_DOMAIN_RUNNING ? running
                                                      : starting;
    out->user = domain->user;
    out->program = domain->program;
    out->n_cores = out->n_alive = n;
    out->cores = scratch->cores;
    out->alive = scratch->alive;
    out->wait_status = domain->wait_status;
    out->reason = domain->reason;
    out->started_ns = domain->started_ns;
    out->ended_ns = domain->ended_ns;
}

static void answer_domains(replica_query_t *query, const void *body, size_t size)
{
    (void)body;
    (void)size;
    enum { PART = 64 };
    rf_client_t *client = query->operation.client;
    rf_client_domain_t *records = (rf_client_domain_t *)(void *)query->records;
    rf_domain_scratch_t scratch[PART];
    Rackfish__Domain items[PART], *pointers[PART];
    size_t at = 0;
    do {
        size_t n = query->n_records - at < PART ? query->n_records - at : PART;
        for (size_t i = 0; i < n; i++) {
            rf_domain_show(&records[at + i], &scratch[i], &items[i]);
            pointers[i] = &items[i];
        }
        at += n;
        Rackfish__DomainList list;
        rackfish__domain_list__init(&list);
        list.n_domains = n;
        list.domains = pointers;
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = query->operation.id;
        reply.more = at < query->n_records;
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_DOMAINS;
        reply.domains = &list;
        if (!rf_client_reply(client, &reply)) return;
    } while (at < query->n_records);
}

void rf_query_domains(rf_client_t *client, uint64_t id)
{
    query_start(client, id, RF_CLIENT_DOMAINS, sizeof(rf_client_domain_t), answer_domains);
}

/* ---- names ---- */

static void answer_names(replica_query_t *query, const void *body, size_t size)
{
    (void)body;
    (void)size;
    rf_client_t *client = query->operation.client;
    rf_client_name_t *records = (rf_client_name_t *)(void *)query->records;
    Rackfish__Name items[LIST_PART], *pointers[LIST_PART];
    size_t at = 0;
    do {
        size_t n = query->n_records - at < LIST_PART ? query->n_records - at : LIST_PART;
        for (size_t i = 0; i < n; i++) {
            rf_client_name_t *r = &records[at + i];
            r->name[sizeof r->name - 1] = 0;
            rackfish__name__init(&items[i]);
            items[i].name = r->name;
            items[i].domain = r->domain;
            items[i].index = r->index;
            items[i].core = r->core;
            pointers[i] = &items[i];
        }
        at += n;
        Rackfish__NameList list;
        rackfish__name_list__init(&list);
        list.n_names = n;
        list.names = pointers;
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = query->operation.id;
        reply.more = at < query->n_records;
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_NAMES;
        reply.names = &list;
        if (!rf_client_reply(client, &reply)) return;
    } while (at < query->n_records);
}

void rf_query_names(rf_client_t *client, uint64_t id)
{
    query_start(client, id, RF_CLIENT_NAMES, sizeof(rf_client_name_t), answer_names);
}

/* ---- ping ---- */

typedef struct ping_query {
    rf_operation_t operation;
    unsigned outstanding, n;
    uint64_t started_ns;
    struct ping_one {
        struct ping_query *query;
        rf_monitor_call_t call;
        uint32_t core;
        uint64_t sent_ns, took_ns; /* took 0: no answer */
    } ones[RF_CORES_PER_NODE_MAX];
} ping_query_t;

static void ping_cancel(rf_operation_t *operation)
{
    ping_query_t *query = (ping_query_t *)operation;
    for (unsigned i = 0; i < query->n; i++) rf_monitor_call_cancel(&query->ones[i].call);
    rf_operation_end(operation);
}

static void ping_answer(ping_query_t *query)
{
    uint64_t monitor_ns[RF_CORES_PER_NODE_MAX];
    uint32_t cores[RF_CORES_PER_NODE_MAX];
    Rackfish__PingReply ping;
    rackfish__ping_reply__init(&ping);
    for (unsigned i = 0; i < query->n; i++) {
        monitor_ns[i] = query->ones[i].took_ns;
        cores[i] = query->ones[i].core;
    }
    ping.node_ns = rf_clock_ns() - query->started_ns;
    ping.n_monitor_ns = ping.n_core = query->n;
    ping.monitor_ns = monitor_ns;
    ping.core = cores;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = query->operation.id;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_PING;
    reply.ping = &ping;
    rf_client_reply(query->operation.client, &reply);
    rf_operation_end(&query->operation);
}

static void on_pong(void *context, rf_err_t err, const void *body, size_t size)
{
    (void)body;
    (void)size;
    struct ping_one *one = context;
    if (err == RF_OK) one->took_ns = rf_clock_ns() - one->sent_ns;
    if (--one->query->outstanding == 0) ping_answer(one->query);
}

void rf_query_ping(rf_client_t *client, uint64_t id)
{
    rf_daemon_t *daemon = client->daemon;
    ping_query_t *query = rf_operation_new(client, id, sizeof *query, ping_cancel);
    if (!query) return;
    query->started_ns = rf_clock_ns();
    query->outstanding = 1;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        struct ping_one *one = &query->ones[query->n++];
        *one = (struct ping_one){.query = query, .core = daemon->cores[i].core, .sent_ns = rf_clock_ns()};
        if (rf_monitor_call(&daemon->cores[i], &one->call, RF_CLIENT_PING, NULL, 0, NULL, 0, RF_ANSWER_NS,
                            on_pong, one) == RF_OK)
            query->outstanding++;
    }
    if (--query->outstanding == 0) ping_answer(query);
}
