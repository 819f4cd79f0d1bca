/* Requests that change the machine's members: join (of one node to another), core on|off, node remove. */
#include "node/rejoin.h"

#include "base/log.h"
#include "node/down.h"
#include "node/monitors.h"
#include "node/peers.h"
#include "node/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANGE_NS  (12 * RF_NS_PER_S)
#define UP_NS      (30 * RF_NS_PER_S) /* a core that is turned on */
#define UP_LOOK_NS (20 * RF_NS_PER_MS)

typedef struct member_query {
    rf_operation_t operation;
    rf_monitor_call_t call;
    rf_remote_t *remote; /* the node whose business it is */
    rf_local_core_t *core;
    rf_timer_t timer;
    uint64_t deadline_ns;
    struct removal *removal; /* of a core of this node, or of all */
} member_query_t;

/* Cores that leave. Outlives who asked for it, who may be cut off meanwhile: monitors that leave do not turn back, and a node that is half removed
 * is neither there nor to be added again. */
typedef struct removal {
    rf_daemon_t *daemon;
    member_query_t *query; /* NULL: who asked has gone */
    bool whole_node;
    unsigned n_left; /* cores that have not left yet */
    bool failed;
    struct leaving {
        struct removal *removal;
        rf_local_core_t *core;
        rf_monitor_call_t call;
        bool stays_off; /* it was between two lives, and is not to come back */
    } leaving[RF_CORES_PER_NODE_MAX];
} removal_t;

static void query_end(member_query_t *query)
{
    rf_monitor_call_cancel(&query->call);
    if (query->removal) query->removal->query = NULL;
    rf_timer_clear(&query->timer);
    rf_remote_close(query->remote);
    rf_operation_end(&query->operation);
}

static void query_cancel(rf_operation_t *operation)
{
    query_end((member_query_t *)operation);
}

static member_query_t *query_new(rf_client_t *client, uint64_t id)
{
    if (!client->privileged) {
        rf_client_error(client, id, RF_ERR_PERMISSION,
                        "only root and the machine's owner, %s, may change its members",
                        client->daemon->owner);
        return NULL;
    }
    return rf_operation_new(client, id, sizeof(member_query_t), query_cancel);
}

static void answer_ok(member_query_t *query, rf_incarnation_t incarnation)
{
    Rackfish__ControlReply reply;
    Rackfish__Joined joined;
    rackfish__control_reply__init(&reply);
    rackfish__joined__init(&joined);
    reply.id = query->operation.id;
    joined.incarnation = incarnation;
    if (incarnation > 0) {
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_JOINED;
        reply.joined = &joined;
    }
    rf_client_reply(query->operation.client, &reply);
    query_end(query);
}

/* ---- passed on to the node whose business it is ---- */

static void on_relayed(void *context, const uint8_t *bytes, size_t size)
{
    member_query_t *query = context;
    Rackfish__ControlReply *reply = rf_control_reply_unpack(bytes, size);
    if (reply) {
        reply->id = query->operation.id;
        rf_client_reply(query->operation.client, reply);
    } else {
        rf_client_error(query->operation.client, query->operation.id, RF_ERR_PROTOCOL,
                        "the other node's answer cannot be read");
    }
    rf_control_reply_free(reply);
    query_end(query);
}

static void on_relay_ended(void *context, rf_err_t err, const char *why)
{
    member_query_t *query = context;
    rf_client_error(query->operation.client, query->operation.id, err == RF_OK ? RF_ERR_CLOSED : err, "%s",
                    why);
    query_end(query);
}

static const rf_remote_handlers_t relay_handlers = {.on_frame = on_relayed, .on_ended = on_relay_ended};

static void relay(member_query_t *query, rf_node_t node, const Rackfish__ControlRequest *request)
{
    rf_client_t *client = query->operation.client;
    if (rf_remote_ask(client->daemon, node, client, request, &relay_handlers, query, &query->remote) == RF_OK)
        return;
    rf_client_error(client, query->operation.id, RF_ERR_CLOSED, "node %s is out of reach",
                    client->daemon->config->nodes[node].name);
    query_end(query);
}

/* The local core that is meant; else NULL, and the query is answered or passed on. */
static rf_local_core_t *local_core(member_query_t *query, Rackfish__ControlRequest__KindCase kind,
                                   const Rackfish__CoreRequest *body)
{
    rf_client_t *client = query->operation.client;
    rf_daemon_t *daemon = client->daemon;
    rf_local_core_t *core = rf_daemon_core(daemon, (int)body->core);
    if (core) return core;
    rf_node_t node =
        body->core < RF_CORES_MAX ? rf_daemon_node_of_core(daemon, (int)body->core) : RF_NODE_NONE;
    if (node == RF_NODE_NONE || client->relayed) {
        rf_client_error(client, query->operation.id, RF_ERR_INVALID,
                        "there is no core %u; 'rackfish cores' lists them", body->core);
        query_end(query);
        return NULL;
    }
    Rackfish__CoreRequest copy = *body;
    Rackfish__ControlRequest request;
    rackfish__control_request__init(&request);
    request.id = 1;
    request.kind_case = kind;
    request.core_on = &copy; /* the members of the union that are CoreRequests share this place */
    relay(query, node, &request);
    return NULL;
}

/* ---- join: another node asks for an incarnation of a core of its own ---- */

static void on_joined(void *context, rf_err_t err, const void *body, size_t size)
{
    member_query_t *query = context;
    rf_client_joined_t joined = {0};
    if (err == RF_OK && size >= sizeof joined) memcpy(&joined, body, sizeof joined);
    if (err == RF_OK && joined.incarnation > 0) {
        answer_ok(query, joined.incarnation);
        return;
    }
    rf_client_error(query->operation.client, query->operation.id, err == RF_OK ? RF_ERR_PROTOCOL : err,
                    "the machine assigns no incarnation now: %s", rf_err_text(err));
    query_end(query);
}

void rf_query_join(rf_client_t *client, uint64_t id, const Rackfish__CoreRequest *request)
{
    member_query_t *query = query_new(client, id);
    if (!query) return;
    rf_client_join_t join = {.core = request->core < RF_CORES_MAX ? (rf_core_t)request->core : RF_CORE_NONE};
    rf_local_core_t *core = rf_monitor_first(client->daemon, 0);
    if (core && rf_monitor_call(core, &query->call, RF_CLIENT_JOIN, &join, sizeof join, NULL, 0, CHANGE_NS,
                                on_joined, query) == RF_OK)
        return;
    rf_client_error(client, id, RF_ERR_PEER_DEAD, "no monitor of this node answers");
    query_end(query);
}

/* ---- core on ---- */

static void look_whether_up(void *context);

static void on_up_status(void *context, rf_err_t err, const void *body, size_t size)
{
    member_query_t *query = context;
    rf_client_status_t status;
    if (err == RF_OK && size >= sizeof status) {
        memcpy(&status, body, sizeof status);
        if (!status.forming) {
            answer_ok(query, 0);
            return;
        }
    }
    rf_timer_set(&query->operation.client->daemon->loop, &query->timer, rf_clock_ns() + UP_LOOK_NS,
                 look_whether_up, query);
}

static void look_whether_up(void *context)
{
    member_query_t *query = context;
    rf_client_t *client = query->operation.client;
    if (rf_clock_ns() >= query->deadline_ns) {
        rf_client_error(client, query->operation.id, RF_ERR_TIMEOUT,
                        "core %u has not joined yet; it goes on trying ('rackfish logs %u')",
                        query->core->core, query->core->core);
        query_end(query);
        return;
    }
    if (query->core->link_up && rf_monitor_call(query->core, &query->call, RF_CLIENT_STATUS, NULL, 0, NULL, 0,
                                                RF_ANSWER_NS, on_up_status, query) == RF_OK)
        return;
    rf_timer_set(&client->daemon->loop, &query->timer, rf_clock_ns() + UP_LOOK_NS, look_whether_up, query);
}

void rf_query_core_on(rf_client_t *client, uint64_t id, const Rackfish__CoreRequest *request)
{
    member_query_t *query = query_new(client, id);
    if (!query) return;
    query->core = local_core(query, RACKFISH__CONTROL_REQUEST__KIND_CORE_ON, request);
    if (!query->core) return;
    query->core->off = false;
    rf_rejoin_now(query->core);
    query->deadline_ns = rf_clock_ns() + UP_NS;
    look_whether_up(query);
}

/* ---- core off, node remove ---- */

static uint32_t mode_of(bool wait, bool kill)
{
    return kill ? RF_LEAVE_KILL : wait ? RF_LEAVE_WAIT : RF_LEAVE_IF_IDLE;
}

static void say_not_left(const removal_t *removal, const rf_local_core_t *core, rf_err_t err,
                         unsigned dispatchers)
{
    rf_client_t *client = removal->query->operation.client;
    uint64_t id = removal->query->operation.id;
    if (err == RF_ERR_BUSY && dispatchers > 0)
        rf_client_error(client, id, err, "%u domain%s run%s on core %u; --wait for them or --kill them",
                        dispatchers, dispatchers == 1 ? "" : "s", dispatchers == 1 ? "s" : "", core->core);
    else if (err == RF_ERR_BUSY)
        rf_client_error(client, id, err, "core %u is joining, or leaves already; try again later",
                        core->core);
    else if (err == RF_ERR_PERMISSION)
        rf_client_error(client, id, err, "%s; 'rackfish down' ends it",
                        removal->whole_node ? "that is the last node of the machine"
                                            : "that is the last core of the machine");
    else
        rf_client_error(client, id, err, "core %u has not left: %s", core->core, rf_err_text(err));
}

/* One of those that were to leave has, or not. */
static void removal_settle(removal_t *removal, const rf_local_core_t *core, rf_err_t err,
                           unsigned dispatchers)
{
    if (err != RF_OK && !removal->failed) {
        removal->failed = true;
        if (removal->query) say_not_left(removal, core, err, dispatchers);
    }
    if (--removal->n_left > 0) return;
    rf_daemon_t *daemon = removal->daemon;
    for (unsigned i = 0; i < daemon->n_cores && removal->failed; i++) {
        if (!removal->leaving[i].stays_off) continue;
        daemon->cores[i].off = false;
        rf_rejoin_now(&daemon->cores[i]);
    }
    bool down = removal->whole_node && !removal->failed;
    if (removal->query) {
        removal->query->removal = NULL;
        if (removal->failed)
            query_end(removal->query);
        else
            answer_ok(removal->query, 0);
    }
    free(removal);
    if (down) rf_down_begin(daemon, RF_DOWN_GRACE_MS);
}

static void on_left(void *context, rf_err_t err, const void *body, size_t size)
{
    struct leaving *leaving = context;
    rf_local_core_t *core = leaving->core;
    rf_client_left_t left = {0};
    if (size >= sizeof left) memcpy(&left, body, sizeof left);
    core->leaving--;
    if (err == RF_ERR_PEER_DEAD) err = RF_OK; /* gone all the same, and it does not come back */
    bool stays =
        err != RF_OK && err != RF_ERR_UNKNOWN_OUTCOME; /* else it leaves later, and does not come back */
    if (stays && core->leaving == 0) core->off = false;
    removal_settle(leaving->removal, core, err, left.dispatchers);
}

/* Asks one core to leave, or, if it does and waits for what runs there, to wait no more; it counts among those that have not until
 * removal_settle(). */
static void leave(removal_t *removal, rf_local_core_t *core, uint32_t mode)
{
    struct leaving *leaving = &removal->leaving[core - core->daemon->cores];
    rf_client_leave_t body = {.mode = mode, .whole_node = removal->whole_node};
    *leaving = (struct leaving){.removal = removal, .core = core};
    removal->n_left++;
    rf_err_t err = core->leaving && mode != RF_LEAVE_KILL
                       ? RF_ERR_BUSY
                       : rf_monitor_call(core, &leaving->call, RF_CLIENT_LEAVE, &body, sizeof body, NULL, 0,
                                         0, on_left, leaving);
    if (err != RF_OK) {
        removal_settle(removal, core, err, 0);
        return;
    }
    core->off = true;
    core->leaving++;
}

/* It counts one itself, until all were asked: end with removal_settle(removal, NULL, RF_OK, 0). NULL: no memory, and the query has ended. */
static removal_t *removal_new(member_query_t *query, bool whole_node)
{
    removal_t *removal = calloc(1, sizeof *removal);
    if (!removal) {
        rf_client_error(query->operation.client, query->operation.id, RF_ERR_NO_MEMORY,
                        "this node has no memory left");
        query_end(query);
        return NULL;
    }
    *removal = (removal_t){
        .daemon = query->operation.client->daemon, .query = query, .whole_node = whole_node, .n_left = 1};
    query->removal = removal;
    return removal;
}

void rf_query_core_off(rf_client_t *client, uint64_t id, const Rackfish__CoreRequest *request)
{
    member_query_t *query = query_new(client, id);
    if (!query) return;
    query->core = local_core(query, RACKFISH__CONTROL_REQUEST__KIND_CORE_OFF, request);
    if (!query->core) return;
    if (query->core->life == RF_LIFE_DOWN) {
        query->core->off = true; /* it does not come back */
        answer_ok(query, 0);
    } else if (!query->core->link_up) {
        rf_client_error(client, id, RF_ERR_PEER_DEAD, "core %u does not answer; it will be expelled",
                        query->core->core);
        query_end(query);
    } else {
        removal_t *removal = removal_new(query, false);
        if (!removal) return;
        leave(removal, query->core, mode_of(request->wait, request->kill));
        removal_settle(removal, NULL, RF_OK, 0);
    }
}

/* True: it was not yet. */
static bool turn_off(rf_local_core_t *core)
{
    bool was = core->off;
    core->off = true;
    return !was;
}

void rf_query_node_remove(rf_client_t *client, uint64_t id, const Rackfish__NodeRequest *request)
{
    rf_daemon_t *daemon = client->daemon;
    member_query_t *query = query_new(client, id);
    if (!query) return;
    unsigned node = 0;
    while (node < daemon->config->n_nodes && strcmp(daemon->config->nodes[node].name, request->node) != 0)
        node++;
    if (node == daemon->config->n_nodes) {
        rf_client_error(client, id, RF_ERR_NOT_FOUND, "there is no node '%s'; 'rackfish nodes' lists them",
                        request->node);
        query_end(query);
        return;
    }
    if (!rf_peer_is_connected(daemon, (rf_node_t)node)) {
        rf_client_error(
            client, id, RF_ERR_NOT_FOUND,
            "node %s is not up, or out of reach: nothing is there to be removed; 'rackfish nodes' shows "
            "who is, 'rackfish node add %s' there brings it back",
            request->node, request->node);
        query_end(query);
        return;
    }
    if (node != daemon->node) {
        Rackfish__NodeRequest copy = *request;
        Rackfish__ControlRequest forward;
        rackfish__control_request__init(&forward);
        forward.id = 1;
        forward.kind_case = RACKFISH__CONTROL_REQUEST__KIND_NODE_REMOVE;
        forward.node_remove = &copy;
        relay(query, (rf_node_t)node, &forward);
        return;
    }
    removal_t *removal = removal_new(query, true);
    if (!removal) return;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[i];
        if (core->link_up)
            leave(removal, core, mode_of(request->wait, request->kill));
        else
            removal->leaving[i].stays_off = turn_off(core);
    }
    removal_settle(removal, NULL, RF_OK, 0);
}
