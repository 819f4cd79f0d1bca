/* Questions about the machine, answered by the monitor of this core from its replica, and its events. */
#include "internal.h"

#include <string.h>

#define REPLY_MAX (RF_MESSAGE_MAX - sizeof(rf_wire_header_t))

rf_err_t rf_machine_info(rf_machine_info_t *out, uint64_t deadline_ns)
{
    rf_client_status_t status;
    rf_err_t err = rf_lib_request(&rf_me.client, RF_CLIENT_STATUS, NULL, 0, &status, sizeof status,
                                  sizeof status, NULL, NULL, deadline_ns);
    if (err != RF_OK) return err;
    rf_machine_info_t info = {
        .machine = status.machine,
        .view = status.view,
        .leader = status.leader,
        .cores = status.cores,
        .cores_up = status.cores_up,
        .nodes = status.nodes,
        .nodes_up = status.nodes_up,
        .has_quorum = status.has_quorum,
        .domains = status.domains,
        .survives_cores = status.survives_cores,
        .uptime_ns = status.uptime_ns,
    };
    snprintf(info.name, sizeof info.name, "%.*s", (int)sizeof status.machine_name, status.machine_name);
    *out = info;
    return RF_OK;
}

/* ---- lists ---- */

/* Asks for rows from `from` on, again and again, until `max` are there or there are no more; `copy` moves one of `row_size` bytes. */
static rf_err_t list(uint16_t op, uint64_t from, size_t row_size,
                     void (*copy)(void *rows, unsigned i, const uint8_t *row), void *rows, unsigned max,
                     unsigned *n_out, uint64_t *next_out, uint64_t (*key)(const uint8_t *row),
                     uint64_t deadline_ns)
{
    uint8_t reply[REPLY_MAX];
    unsigned n = 0;
    uint64_t next = from;
    while (next != UINT64_MAX && n < max) {
        rf_client_list_t request = {.from = next};
        size_t size;
        rf_err_t err = rf_lib_request(&rf_me.client, op, &request, sizeof request, reply,
                                      sizeof(rf_client_list_reply_t), sizeof reply, &size, NULL, deadline_ns);
        if (err != RF_OK) return err;
        rf_client_list_reply_t head;
        memcpy(&head, reply, sizeof head);
        if (head.n > (size - sizeof head) / row_size || (head.more && head.next <= next))
            return rf_lib_fail(RF_ERR_PROTOCOL, "the monitor's list makes no sense");
        unsigned i = 0;
        for (; i < head.n && n < max; i++) copy(rows, n++, reply + sizeof head + i * row_size);
        if (i < head.n)
            next = key(reply + sizeof head + i * row_size); /* rows left over */
        else
            next = head.more ? head.next : UINT64_MAX;
        if (i < head.n && next == 0) next = from + n; /* rows without a key of their own: counted */
    }
    *n_out = n;
    if (next_out) *next_out = next;
    return RF_OK;
}

static void copy_core(void *rows, unsigned i, const uint8_t *row)
{
    rf_client_core_t from;
    memcpy(&from, row, sizeof from);
    rf_core_info_t *to = &((rf_core_info_t *)rows)[i];
    *to = (rf_core_info_t){.core = from.core,
                           .node = from.node,
                           .cpu = from.cpu,
                           .state = (rf_core_state_t)from.state,
                           .incarnation = from.incarnation,
                           .package = from.package,
                           .numa = from.numa};
    snprintf(to->node_name, sizeof to->node_name, "%.*s", (int)sizeof from.node_name, from.node_name);
}

static uint64_t core_key(const uint8_t *row)
{
    rf_client_core_t core;
    memcpy(&core, row, sizeof core);
    return core.core;
}

rf_err_t rf_core_list(uint64_t from, rf_core_info_t *rows, unsigned max, unsigned *n, uint64_t *next,
                      uint64_t deadline_ns)
{
    return list(RF_CLIENT_CORES, from, sizeof(rf_client_core_t), copy_core, rows, max, n, next, core_key,
                deadline_ns);
}

static void copy_domain(void *rows, unsigned i, const uint8_t *row)
{
    rf_client_domain_t from;
    memcpy(&from, row, sizeof from);
    rf_lib_domain_info(&from, &((rf_domain_info_t *)rows)[i]);
}

static uint64_t domain_key(const uint8_t *row)
{
    rf_client_domain_t domain;
    memcpy(&domain, row, sizeof domain);
    return domain.domain;
}

rf_err_t rf_domain_list(uint64_t from, rf_domain_info_t *rows, unsigned max, unsigned *n, uint64_t *next,
                        uint64_t deadline_ns)
{
    return list(RF_CLIENT_DOMAINS, from, sizeof(rf_client_domain_t), copy_domain, rows, max, n, next,
                domain_key, deadline_ns);
}

static void name_info(const rf_client_name_t *from, rf_name_info_t *to)
{
    *to = (rf_name_info_t){.domain = from->domain, .index = from->index, .core = from->core};
    snprintf(to->name, sizeof to->name, "%.*s", (int)sizeof from->name, from->name);
}

static void copy_name(void *rows, unsigned i, const uint8_t *row)
{
    rf_client_name_t from;
    memcpy(&from, row, sizeof from);
    name_info(&from, &((rf_name_info_t *)rows)[i]);
}

static uint64_t no_key(const uint8_t *row)
{
    (void)row;
    return 0;
}

rf_err_t rf_name_list(uint64_t from, rf_name_info_t *rows, unsigned max, unsigned *n, uint64_t *next,
                      uint64_t deadline_ns)
{
    return list(RF_CLIENT_NAMES, from, sizeof(rf_client_name_t), copy_name, rows, max, n, next, no_key,
                deadline_ns);
}

rf_err_t rf_name_find(const char *name, rf_name_info_t *out, uint64_t deadline_ns)
{
    rf_client_name_request_t request = {0};
    if (!name || !*name || strlen(name) >= RF_NAME_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "a name has 1 to %d bytes", RF_NAME_MAX - 1);
    snprintf(request.name, sizeof request.name, "%s", name);
    rf_client_name_t found;
    rf_err_t err = rf_lib_request(&rf_me.client, RF_CLIENT_NAME_GET, &request, sizeof request, &found,
                                  sizeof found, sizeof found, NULL, NULL, deadline_ns);
    if (err == RF_OK) name_info(&found, out);
    return err;
}

/* ---- events ---- */

void rf_lib_machine_event(const rf_client_machine_event_t *event)
{
    rf_me.machine_events[rf_me.machine_count++ % LIB_MACHINE_EVENTS] = (rf_machine_event_t){
        .what = (rf_machine_event_what_t)event->what,
        .err = event->err < RF_ERR_COUNT ? (rf_err_t)event->err : RF_ERR_PROTOCOL,
        .core = event->core,
        .node = event->node,
        .domain = event->domain,
        .at_ns = event->at_ns,
    };
}
_Static_assert((int)RF_MACHINE_EVENT_CORE_UP == RF_MACHINE_CORE_UP &&
                   (int)RF_MACHINE_EVENT_DOMAIN_ENDED == RF_MACHINE_DOMAIN_ENDED &&
                   (int)RF_MACHINE_EVENT_CORE_LEAVING == RF_MACHINE_CORE_LEAVING &&
                   (int)RF_MACHINE_EVENTS_CORES == RF_EVENTS_CORES &&
                   (int)RF_MACHINE_EVENTS_NODES == RF_EVENTS_NODES &&
                   (int)RF_MACHINE_EVENTS_DOMAINS == RF_EVENTS_DOMAINS,
               "public events are the wire's");

rf_err_t rf_lib_machine_subscribe(uint32_t mask, uint64_t deadline_ns)
{
    if ((rf_me.machine_mask | mask) == rf_me.machine_mask) return RF_OK;
    rf_client_subscribe_t request = {.mask = rf_me.machine_mask | mask};
    rf_err_t err = rf_lib_request(&rf_me.client, RF_CLIENT_SUBSCRIBE, &request, sizeof request, NULL, 0, 0,
                                  NULL, NULL, deadline_ns);
    if (err == RF_OK) rf_me.machine_mask = request.mask;
    return err;
}
