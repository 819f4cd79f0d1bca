/* What subscribers are told. One ring for all; each client has a place in it, so a slow one delays nobody, and one that
 * lags more than the ring loses the oldest. */
#include "monitor/state.h"

void machine_event(monitor_t *m, uint32_t what, rf_err_t err, rf_core_t core, rf_node_t node,
                   rf_domain_t domain)
{
    m->event_last++;
    if (m->n_subscribers == 0) return; /* who subscribes is told what comes then */
    m->events[m->event_last % MONITOR_EVENTS_KEPT] = (rf_client_machine_event_t){.what = what,
                                                                                 .err = (uint32_t)err,
                                                                                 .core = core,
                                                                                 .node = node,
                                                                                 .domain = domain,
                                                                                 .at_ns = m->real_ns};
}

static uint32_t class_of(uint32_t what)
{
    switch (what) {
    case RF_MACHINE_CORE_UP:
    case RF_MACHINE_CORE_DOWN:
    case RF_MACHINE_CORE_LEAVING:
        return RF_EVENTS_CORES;
    case RF_MACHINE_NODE_UP:
    case RF_MACHINE_NODE_DOWN:
        return RF_EVENTS_NODES;
    default:
        return RF_EVENTS_DOMAINS;
    }
}

void machine_events_deliver(monitor_t *m)
{
    for (uint32_t i = 0; i < MONITOR_CLIENTS_MAX && m->n_subscribers > 0; i++) {
        client_t *c = &m->clients[i];
        if (!c->used || c->mask == 0 || c->blocked || c->event_next > m->event_last) continue;
        if (m->event_last - c->event_next >= MONITOR_EVENTS_KEPT) {
            out_log(m, RF_LOG_WARN, "a subscriber reads too slowly and misses %llu events",
                    (unsigned long long)(m->event_last - c->event_next + 1 - MONITOR_EVENTS_KEPT));
            c->event_next = m->event_last + 1 - MONITOR_EVENTS_KEPT;
        }
        for (; c->event_next <= m->event_last; c->event_next++) {
            if (out_is_nearly_full(m)) {
                m->out->more = true;
                return;
            }
            const rf_client_machine_event_t *event = &m->events[c->event_next % MONITOR_EVENTS_KEPT];
            if (!(class_of(event->what) & c->mask)) continue;
            rf_wire_header_t header = {.op = RF_CLIENT_EVENT_MACHINE};
            monitor_action_t *action = out_action(m, MONITOR_DO_SEND_EVENT);
            action->type = RF_CLIENT_EVENT;
            action->client = i;
            action->op = (uint32_t)c->event_next;
            out_bytes(m, action, &header, sizeof header, event, sizeof *event);
        }
    }
}
