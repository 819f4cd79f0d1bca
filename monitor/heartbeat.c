/*
 * Hosts: the lowest live core of a host is its gateway. Gateways send each other a heartbeat every heartbeat_ms; a host
 * whose gateway was not heard for host_deadline_ms, by anything it says, is dead with all its cores. One stream per pair
 * of hosts, no matter how many cores.
 */
#include "monitor/state.h"

rf_core_t heartbeat_gateway(const monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (!m->cores[core].dead) return core;
    }
    return RF_CORE_NONE;
}

static bool i_beat(const monitor_t *m)
{
    return m->formed && m->boot->n_nodes > 1 && m->phase == PHASE_FORMED &&
           heartbeat_gateway(m, m->node) == m->core;
}

/* When anything was last heard of a host here. */
static uint64_t heard_of(const monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    uint64_t latest = 0;
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (m->cores[core].heard_ns > latest) latest = m->cores[core].heard_ns;
    }
    return latest;
}

static void host_died(monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    out_log(m, RF_LOG_WARN, "node %s was not heard for %u ms", n->name, m->boot->host_deadline_ms);
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (m->cores[core].member) member_dead(m, core, RF_ERR_TIMEOUT, true);
    }
}

void heartbeat_tick(monitor_t *m)
{
    if (!i_beat(m)) {
        m->beating = false;
        return;
    }
    if (m->now_ns < m->heartbeat_ns) return;
    uint64_t deadline_ns = m->boot->host_deadline_ms * RF_NS_PER_MS;
    for (rf_node_t node = 0; node < m->boot->n_nodes; node++) {
        rf_core_t gateway = heartbeat_gateway(m, node);
        if (node == m->node || gateway == RF_CORE_NONE) continue;
        if (!m->beating) { /* I have just become the gateway: nobody beat to me before */
            m->cores[gateway].heard_ns = m->now_ns;
        } else if (m->now_ns - heard_of(m, node) > deadline_ns) {
            host_died(m, node);
            continue;
        }
        if (peer_need(m, gateway) == RF_OK) peer_send(m, gateway, PEER_HEARTBEAT, NULL, 0, NULL, 0);
    }
    m->beating = true;
    m->heartbeat_ns = m->now_ns + m->boot->heartbeat_ms * RF_NS_PER_MS;
}

uint64_t heartbeat_next_ns(const monitor_t *m) { return i_beat(m) ? m->heartbeat_ns : RF_NEVER; }
