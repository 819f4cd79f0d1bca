#include "node/gather.h"

#include "node/control_queries.h"
#include "node/monitors.h"
#include "wire/kernel.h"

#include <stdio.h>
#include <string.h>

static void gather_release(rf_gather_t *gather)
{
    rf_timer_clear(&gather->late);
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        rf_remote_close(gather->nodes[i].remote);
        gather->nodes[i].remote = NULL;
    }
    if (gather->release) gather->release(gather);
    rf_operation_end(&gather->operation);
}

static void gather_cancel(rf_operation_t *operation)
{
    gather_release((rf_gather_t *)operation);
}

/* The client takes more again: let the nodes go on that were held. */
static void gather_room(rf_operation_t *operation)
{
    rf_gather_t *gather = (rf_gather_t *)operation;
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        if (gather->nodes[i].remote) rf_remote_resume(gather->nodes[i].remote);
    }
}

void *rf_gather_new(rf_client_t *client, uint64_t id, size_t size)
{
    rf_gather_t *gather = rf_operation_new(client, id, size, gather_cancel);
    if (!gather) return NULL;
    gather->operation.room = gather_room;
    gather->outstanding = 1;
    return gather;
}

void rf_gather_missing(rf_gather_t *gather, const char *who)
{
    size_t at = strlen(gather->missing);
    snprintf(gather->missing + at, sizeof gather->missing - at, "%s%s", at ? ", " : "", who);
}

bool rf_gather_part_done(rf_gather_t *gather)
{
    if (--gather->outstanding > 0) return true;
    Rackfish__ControlReply last;
    rackfish__control_reply__init(&last);
    char message[320];
    last.id = gather->operation.id;
    if (gather->missing[0]) {
        snprintf(message, sizeof message, "out of reach: %s", gather->missing);
        last.message = message;
    }
    if (gather->finish)
        gather->finish(gather, &last);
    else
        rf_client_reply(gather->operation.client, &last);
    gather_release(gather);
    return false;
}

static void node_done(struct rf_gather_node *part, bool missing)
{
    rf_gather_t *gather = part->gather;
    const rf_daemon_t *daemon = gather->operation.client->daemon;
    rf_remote_close(part->remote);
    part->remote = NULL;
    if (missing) rf_gather_missing(gather, daemon->config->nodes[part->node].name);
    rf_gather_part_done(gather);
}

static void on_node_frame(void *context, const uint8_t *bytes, size_t size)
{
    struct rf_gather_node *part = context;
    rf_client_t *client = part->gather->operation.client;
    Rackfish__ControlReply *reply = rf_control_reply_unpack(bytes, size);
    if (!reply) {
        node_done(part, true);
        return;
    }
    bool more = reply->more;
    bool empty = reply->kind_case == RACKFISH__CONTROL_REPLY__KIND__NOT_SET;
    bool failed = reply->err != RF_OK;
    reply->id = part->gather->operation.id;
    reply->more = true;
    if (!failed && !empty) rf_client_reply(client, reply);
    rf_control_reply_free(reply);
    if (!more || failed)
        node_done(part, failed);
    else if (client->conn && rf_conn_full(client->conn))
        rf_remote_pause(part->remote);
}

static void on_node_ended(void *context, rf_err_t err, const char *why)
{
    (void)err;
    (void)why;
    node_done(context, true);
}

static const rf_remote_handlers_t node_handlers = {.on_frame = on_node_frame, .on_ended = on_node_ended};

static void gather_late(void *context)
{
    rf_gather_t *gather = context;
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        if (!gather->nodes[i].remote) continue;
        bool last = gather->outstanding == 1;
        node_done(&gather->nodes[i], true);
        if (last) return;
    }
}

void rf_gather_ask(rf_gather_t *gather, rf_node_t node, const Rackfish__ControlRequest *request)
{
    rf_client_t *client = gather->operation.client;
    struct rf_gather_node *part = &gather->nodes[node];
    *part = (struct rf_gather_node){.gather = gather, .node = node};
    gather->outstanding++;
    if (rf_remote_ask(client->daemon, node, client, request, &node_handlers, part, &part->remote) != RF_OK) {
        part->remote = NULL;
        node_done(part, true);
        return;
    }
    if (!gather->follow)
        rf_timer_set(&client->daemon->loop, &gather->late, rf_clock_ns() + 2 * RF_ANSWER_NS, gather_late,
                     gather);
}

void rf_gather_ask_others(rf_gather_t *gather, const Rackfish__ControlRequest *request)
{
    const rf_daemon_t *daemon = gather->operation.client->daemon;
    for (unsigned i = 0; i < daemon->config->n_nodes && !gather->operation.client->relayed; i++) {
        if (i != daemon->node) rf_gather_ask(gather, (rf_node_t)i, request);
    }
}

/* ---- lists that each core of this node gives: links, resources, holdings ---- */

typedef struct core_list {
    rf_gather_t gather;
    uint16_t op;
    unsigned n;
    struct core_part {
        struct core_list *list;
        rf_monitor_call_t call;
        rf_local_core_t *core;
        uint64_t from;
    } parts[RF_CORES_PER_NODE_MAX];
} core_list_t;

static void core_list_release(rf_gather_t *gather)
{
    core_list_t *list = (core_list_t *)gather;
    for (unsigned i = 0; i < list->n; i++) rf_monitor_call_cancel(&list->parts[i].call);
}

#define LINK_RECORDS_MAX ((4096 - sizeof(rf_wire_header_t)) / sizeof(rf_client_link_t))
#define STAT_RECORDS_MAX ((4096 - sizeof(rf_wire_header_t)) / sizeof(rf_kernel_stat_t))

static void send_links(core_list_t *list, const rf_client_link_t *records, size_t n)
{
    static char connecting[] = "connecting", up[] = "up", broken[] = "broken", dead[] = "dead";
    char *const states[] = {connecting, up, broken, dead};
    Rackfish__Link items[LINK_RECORDS_MAX], *pointers[LINK_RECORDS_MAX];
    char texts[LINK_RECORDS_MAX][sizeof records->medium + sizeof records->address];
    n = n < LINK_RECORDS_MAX ? n : LINK_RECORDS_MAX;
    for (size_t i = 0; i < n; i++) {
        const rf_client_link_t *r = &records[i];
        rackfish__link__init(&items[i]);
        items[i].from = r->from;
        items[i].to = r->to;
        items[i].medium = texts[i];
        snprintf(texts[i], sizeof r->medium, "%.*s", (int)sizeof r->medium - 1, r->medium);
        items[i].address = texts[i] + sizeof r->medium;
        snprintf(items[i].address, sizeof r->address, "%.*s", (int)sizeof r->address - 1, r->address);
        items[i].state = r->state < 4 ? states[r->state] : dead;
        items[i].encrypted = r->encrypted;
        items[i].one_way_ns_p50 = r->one_way_ns_p50;
        items[i].slots_sent = r->slots_sent;
        items[i].slots_received = r->slots_received;
        items[i].broken = r->broken;
        pointers[i] = &items[i];
    }
    Rackfish__LinkList links;
    rackfish__link_list__init(&links);
    links.n_links = n;
    links.links = pointers;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = list->gather.operation.id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_LINKS;
    reply.links = &links;
    rf_client_reply(list->gather.operation.client, &reply);
}

static void send_resources(core_list_t *list, const rf_local_core_t *core, const rf_kernel_stat_t *records,
                           size_t n)
{
    Rackfish__Resource items[STAT_RECORDS_MAX], *pointers[STAT_RECORDS_MAX];
    n = n < STAT_RECORDS_MAX ? n : STAT_RECORDS_MAX;
    for (size_t i = 0; i < n; i++) {
        const rf_kernel_stat_t *r = &records[i];
        rackfish__resource__init(&items[i]);
        items[i].core = core->core;
        items[i].domain = r->domain;
        items[i].index = r->index;
        items[i].processes = r->processes;
        items[i].cpu_ns = r->cpu_ns;
        items[i].rss_kib = r->rss_kib;
        items[i].reserved_permille = r->reserved_permille;
        items[i].weight = r->weight;
        pointers[i] = &items[i];
    }
    Rackfish__ResourceList resources;
    rackfish__resource_list__init(&resources);
    resources.n_resources = n;
    resources.resources = pointers;
    resources.at_ns = rf_clock_ns();
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = list->gather.operation.id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RESOURCES;
    reply.resources = &resources;
    rf_client_reply(list->gather.operation.client, &reply);
}

/* One a core. */
static void send_holdings(core_list_t *list, const rf_local_core_t *core, const rf_client_holdings_t *r,
                          size_t n)
{
    Rackfish__Holding item, *pointer = &item;
    rackfish__holding__init(&item);
    if (n == 0) return;
    item.core = core->core;
    item.descriptors = r->descriptors;
    item.links = r->links;
    item.queue_pairs = r->queue_pairs;
    item.ring_bytes = r->ring_bytes;
    item.pinned_bytes = r->pinned_bytes;
    Rackfish__HoldingList holdings;
    rackfish__holding_list__init(&holdings);
    holdings.n_holdings = 1;
    holdings.holdings = &pointer;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = list->gather.operation.id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_HOLDINGS;
    reply.holdings = &holdings;
    rf_client_reply(list->gather.operation.client, &reply);
}

static size_t record_size_of(uint16_t op)
{
    return op == RF_CLIENT_LINKS      ? sizeof(rf_client_link_t)
           : op == RF_CLIENT_HOLDINGS ? sizeof(rf_client_holdings_t)
                                      : sizeof(rf_kernel_stat_t);
}

static void on_core_page(void *context, rf_err_t err, const void *body, size_t size);

static rf_err_t ask_core(struct core_part *part)
{
    rf_client_list_t from = {.from = part->from};
    return rf_monitor_call(part->core, &part->call, part->list->op, &from, sizeof from, NULL, 0, RF_ANSWER_NS,
                           on_core_page, part);
}

static void core_missing(struct core_part *part)
{
    char who[16];
    snprintf(who, sizeof who, "core %u", part->core->core);
    rf_gather_missing(&part->list->gather, who);
}

static void on_core_page(void *context, rf_err_t err, const void *body, size_t size)
{
    struct core_part *part = context;
    core_list_t *list = part->list;
    rf_client_list_reply_t head = {0};
    const void *records = NULL;
    if (err == RF_OK) err = rf_list_reply_parse(body, size, record_size_of(list->op), &head, &records);
    if (err == RF_OK && list->op == RF_CLIENT_LINKS)
        send_links(list, records, head.n);
    else if (err == RF_OK && list->op == RF_CLIENT_HOLDINGS)
        send_holdings(list, part->core, records, head.n);
    else if (err == RF_OK)
        send_resources(list, part->core, records, head.n);
    if (err == RF_OK && head.more && head.next > part->from) {
        part->from = head.next;
        if (ask_core(part) == RF_OK) return;
        err = RF_ERR_PEER_DEAD;
    }
    if (err != RF_OK) core_missing(part);
    rf_gather_part_done(&list->gather);
}

static void finish_links(rf_gather_t *gather, Rackfish__ControlReply *last)
{
    Rackfish__LinkList links;
    rackfish__link_list__init(&links);
    last->kind_case = RACKFISH__CONTROL_REPLY__KIND_LINKS;
    last->links = &links;
    rf_client_reply(gather->operation.client, last);
}

static void finish_resources(rf_gather_t *gather, Rackfish__ControlReply *last)
{
    Rackfish__ResourceList resources;
    rackfish__resource_list__init(&resources);
    resources.at_ns = rf_clock_ns();
    last->kind_case = RACKFISH__CONTROL_REPLY__KIND_RESOURCES;
    last->resources = &resources;
    rf_client_reply(gather->operation.client, last);
}

static void finish_holdings(rf_gather_t *gather, Rackfish__ControlReply *last)
{
    Rackfish__HoldingList holdings;
    rackfish__holding_list__init(&holdings);
    last->kind_case = RACKFISH__CONTROL_REPLY__KIND_HOLDINGS;
    last->holdings = &holdings;
    rf_client_reply(gather->operation.client, last);
}

/* `kind`: one of the requests that say nothing more: the same question, for the other nodes. */
static void query_core_lists(rf_client_t *client, uint64_t id, uint16_t op,
                             void (*finish)(rf_gather_t *, Rackfish__ControlReply *),
                             Rackfish__ControlRequest__KindCase kind)
{
    rf_daemon_t *daemon = client->daemon;
    Rackfish__Empty empty;
    rackfish__empty__init(&empty);
    Rackfish__ControlRequest request;
    rackfish__control_request__init(&request);
    request.id = 1;
    request.kind_case = kind;
    request.links = &empty; /* the members of the union that are Empty share this place */
    core_list_t *list = rf_gather_new(client, id, sizeof *list);
    if (!list) return;
    list->op = op;
    list->gather.finish = finish;
    list->gather.release = core_list_release;
    rf_gather_ask_others(&list->gather, &request);
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (!daemon->cores[i].link_up) continue;
        struct core_part *part = &list->parts[list->n++];
        *part = (struct core_part){.list = list, .core = &daemon->cores[i]};
        list->gather.outstanding++;
        if (ask_core(part) != RF_OK) {
            core_missing(part);
            rf_gather_part_done(&list->gather);
        }
    }
    rf_gather_part_done(&list->gather);
}

void rf_query_links(rf_client_t *client, uint64_t id)
{
    query_core_lists(client, id, RF_CLIENT_LINKS, finish_links, RACKFISH__CONTROL_REQUEST__KIND_LINKS);
}

void rf_query_resources(rf_client_t *client, uint64_t id)
{
    query_core_lists(client, id, RF_CLIENT_STATS, finish_resources,
                     RACKFISH__CONTROL_REQUEST__KIND_RESOURCES);
}

void rf_query_holdings(rf_client_t *client, uint64_t id)
{
    query_core_lists(client, id, RF_CLIENT_HOLDINGS, finish_holdings,
                     RACKFISH__CONTROL_REQUEST__KIND_HOLDINGS);
}
