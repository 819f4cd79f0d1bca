#include "node/control_events.h"

#include "base/log.h"
#include "node/monitors.h"

#include <string.h>

typedef struct events_query {
    rf_operation_t operation;
    struct events_query *next, **link;
} events_query_t;

static events_query_t *listeners;

static void events_cancel(rf_operation_t *operation)
{
    events_query_t *query = (events_query_t *)operation;
    *query->link = query->next;
    if (query->next) query->next->link = query->link;
    rf_operation_end(operation);
}

void rf_query_events(rf_client_t *client, uint64_t id)
{
    events_query_t *query = rf_operation_new(client, id, sizeof *query, events_cancel);
    if (!query) return;
    query->next = listeners;
    query->link = &listeners;
    if (query->next) query->next->link = &query->next;
    listeners = query;
}

static const char *const what_names[] = {
    [RF_MACHINE_CORE_UP] = "core-up",
    [RF_MACHINE_CORE_DOWN] = "core-down",
    [RF_MACHINE_NODE_UP] = "node-up",
    [RF_MACHINE_NODE_DOWN] = "node-down",
    [RF_MACHINE_DOMAIN_STARTED] = "domain-started",
    [RF_MACHINE_DOMAIN_ENDED] = "domain-ended",
    [RF_MACHINE_CORE_LEAVING] = "core-leaving",
};

void rf_events_publish(rf_daemon_t *daemon, const rf_client_machine_event_t *event)
{
    if (event->what == 0 || event->what >= sizeof what_names / sizeof what_names[0]) return;
    Rackfish__MachineEvent shown;
    rackfish__machine_event__init(&shown);
    static char none[] = "";
    bool is_node = event->what == RF_MACHINE_NODE_UP || event->what == RF_MACHINE_NODE_DOWN;
    shown.what = (char *)(uintptr_t)what_names[event->what];
    shown.core = event->core == RF_CORE_NONE || is_node ? -1 : event->core;
    shown.node = event->node < daemon->config->n_nodes ? daemon->config->nodes[event->node].name : none;
    shown.domain = event->domain;
    shown.err = event->err;
    shown.at_ns = event->at_ns;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_EVENT;
    reply.event = &shown;
    for (events_query_t *query = listeners; query; query = query->next) {
        reply.id = query->operation.id;
        rf_client_reply(query->operation.client,
                        &reply); /* one who does not read is cut off by the connection */
    }
}

void rf_events_resubscribe(rf_daemon_t *daemon)
{
    if (daemon->events_core >= 0 || daemon->phase == RF_PHASE_DOWN || daemon->phase == RF_PHASE_GONE) return;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = rf_monitor_first(daemon, i);
        if (!core) return;
        i = (unsigned)(core - daemon->cores);
        rf_client_subscribe_t subscribe = {.mask = RF_EVENTS_CORES | RF_EVENTS_NODES | RF_EVENTS_DOMAINS};
        if (rf_monitor_tell(core, RF_CLIENT_SUBSCRIBE, &subscribe, sizeof subscribe) == RF_OK) {
            daemon->events_core = (int)i;
            return;
        }
    }
}
