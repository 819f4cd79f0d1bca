/*
 * Hosts: the lowest live core of a host is its gateway. Gateways send each other a heartbeat every heartbeat_ms; a host
 * that was not heard for host_deadline_ms, by anything that any core of it says to me, is suspected with all its cores:
 * the leader judges (member_silent). One stream per pair of hosts, no matter how many cores.
 *
 * Silence is counted in own beats, not in time: while this monitor itself could not run, it could not hear either, and
 * must not take its own sleep for another's death.
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

/* Anything was heard of a host here since the last beat. */
static bool was_heard(const monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (m->cores[core].heard_ns >= m->beat_ns) return true;
    }
    return false;
}

static void host_silent(monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    out_log(m, RF_LOG_WARN, "node %s was not heard for %u ms", n->name, m->boot->host_deadline_ms);
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        member_silent(m, core, RF_ERR_TIMEOUT);
    }
}

void heartbeat_tick(monitor_t *m)
{
    if (!i_beat(m)) {
        m->beating = false;
        return;
    }
    if (m->now_ns < m->heartbeat_ns) return;
    /* One beat less than the deadline holds, so that a death is known within it. */
    unsigned silent_max = m->boot->host_deadline_ms / m->boot->heartbeat_ms;
    if (silent_max > 2) silent_max--;
    for (rf_node_t node = 0; node < m->boot->n_nodes; node++) {
        rf_core_t gateway = heartbeat_gateway(m, node);
        if (node == m->node || gateway == RF_CORE_NONE) continue;
        /* Not beating: I have just become the gateway, and nobody beat to me before. */
        m->silent[node] = !m->beating || was_heard(m, node) ? 0 : (uint16_t)(m->silent[node] + 1);
        if (m->silent[node] >= silent_max) {
            host_silent(m, node);
            m->silent[node] = 0; /* said again after as long */
        }
        if (peer_need(m, gateway) == RF_OK) peer_send(m, gateway, PEER_HEARTBEAT, NULL, 0, NULL, 0);
    }
    m->beating = true;
    m->beat_ns = m->now_ns;
    m->heartbeat_ns = m->now_ns + m->boot->heartbeat_ms * RF_NS_PER_MS;
}

uint64_t heartbeat_next_ns(const monitor_t *m)
{
    return i_beat(m) ? m->heartbeat_ns : RF_NEVER;
}
