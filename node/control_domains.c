#include "node/control_queries.h"

#include "node/monitors.h"

#include <stdio.h>
#include <string.h>

/* Asked of any living local monitor; what belongs to another core is its business. */
typedef struct domain_query {
    rf_operation_t operation;
    rf_monitor_call_t call;
    uint64_t domain;
    uint64_t deadline_ns; /* wait; 0: none */
} domain_query_t;

static void domain_cancel(rf_operation_t *operation)
{
    rf_monitor_call_cancel(&((domain_query_t *)operation)->call);
    rf_operation_end(operation);
}

static domain_query_t *domain_query_start(rf_client_t *client, uint64_t id, uint64_t domain, uint16_t op,
                                          const void *body, size_t size, uint64_t timeout_ns,
                                          rf_monitor_done_fn done)
{
    domain_query_t *query = rf_operation_new(client, id, sizeof *query, domain_cancel);
    if (!query) return NULL;
    query->domain = domain;
    rf_local_core_t *core = rf_monitor_first(client->daemon, 0);
    rf_err_t err = core
                       ? rf_monitor_call(core, &query->call, op, body, size, NULL, 0, timeout_ns, done, query)
                       : RF_ERR_PEER_DEAD;
    if (err == RF_OK) return query;
    rf_client_error(client, id, err, "no monitor of node %s answers: %s; ask another node",
                    client->daemon->config->nodes[client->daemon->node].name, rf_err_text(err));
    rf_operation_end(&query->operation);
    return NULL;
}

static void on_kill_reply(void *context, rf_err_t err, const void *body, size_t size)
{
    (void)body;
    (void)size;
    domain_query_t *query = context;
    rf_client_t *client = query->operation.client;
    uint64_t id = query->operation.id;
    if (err == RF_OK) {
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = id;
        rf_client_reply(client, &reply);
    } else if (err == RF_ERR_NOT_FOUND) {
        rf_client_error(client, id, err, "there is no running domain %llu; 'rackfish ps' lists them",
                        (unsigned long long)query->domain);
    } else if (err == RF_ERR_PERMISSION) {
        rf_client_error(client, id, err, "domain %llu belongs to another user",
                        (unsigned long long)query->domain);
    } else {
        rf_client_error(client, id, err, "domain %llu was not signalled: %s",
                        (unsigned long long)query->domain, rf_err_text(err));
    }
    rf_operation_end(&query->operation);
}

void rf_query_kill(rf_client_t *client, uint64_t id, const Rackfish__KillRequest *request)
{
    if (request->signal < 0 || request->signal > 64) {
        rf_client_error(client, id, RF_ERR_INVALID, "%d is no signal number; 1 to 64 are", request->signal);
        return;
    }
    rf_client_kill_t kill = {.domain = request->domain, .signo = (uint32_t)request->signal, .whole = 1};
    snprintf(kill.user, sizeof kill.user, "%s", client->privileged ? "root" : client->user);
    domain_query_start(client, id, request->domain, RF_CLIENT_KILL, &kill, sizeof kill, RF_ANSWER_NS,
                       on_kill_reply);
}

static void on_wait_reply(void *context, rf_err_t err, const void *body, size_t size);

/* The monitor that was asked has died, which says nothing of the domain: another one is asked. */
static bool wait_elsewhere(domain_query_t *query)
{
    rf_local_core_t *core = rf_monitor_first(query->operation.client->daemon, 0);
    rf_client_target_t target = {.domain = query->domain};
    uint64_t now_ns = rf_clock_ns(), left_ns = 0;
    if (query->deadline_ns != 0) left_ns = query->deadline_ns > now_ns ? query->deadline_ns - now_ns : 1;
    return core && rf_monitor_call(core, &query->call, RF_CLIENT_WAIT, &target, sizeof target, NULL, 0,
                                   left_ns, on_wait_reply, query) == RF_OK;
}

static void on_wait_reply(void *context, rf_err_t err, const void *body, size_t size)
{
    domain_query_t *query = context;
    if (err == RF_ERR_PEER_DEAD && wait_elsewhere(query)) return;
    rf_client_t *client = query->operation.client;
    uint64_t id = query->operation.id;
    rf_client_domain_t domain;
    if (err == RF_OK && size < sizeof domain) err = RF_ERR_PROTOCOL;
    if (err == RF_OK) {
        rf_domain_scratch_t scratch;
        Rackfish__Domain shown;
        memcpy(&domain, body, sizeof domain);
        rf_domain_show(&domain, &scratch, &shown);
        Rackfish__ControlReply reply;
        rackfish__control_reply__init(&reply);
        reply.id = id;
        reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_DOMAIN;
        reply.domain = &shown;
        rf_client_reply(client, &reply);
    } else if (err == RF_ERR_NOT_FOUND) {
        rf_client_error(client, id, err, "there is no domain %llu, and none is remembered",
                        (unsigned long long)query->domain);
    } else if (err == RF_ERR_TIMEOUT) {
        rf_client_error(client, id, err, "domain %llu still runs", (unsigned long long)query->domain);
    } else {
        rf_client_error(client, id, err, "waiting for domain %llu ended: %s",
                        (unsigned long long)query->domain, rf_err_text(err));
    }
    rf_operation_end(&query->operation);
}

void rf_query_wait(rf_client_t *client, uint64_t id, const Rackfish__WaitRequest *request)
{
    rf_client_target_t target = {.domain = request->domain};
    uint64_t timeout_ms = request->timeout_ms < UINT32_MAX ? request->timeout_ms : UINT32_MAX;
    domain_query_t *query = domain_query_start(client, id, request->domain, RF_CLIENT_WAIT, &target,
                                               sizeof target, timeout_ms * RF_NS_PER_MS, on_wait_reply);
    if (query && timeout_ms > 0) query->deadline_ns = rf_clock_ns() + timeout_ms * RF_NS_PER_MS;
}
