/*
 * Who is silent, and whether this host is in contact with the quorum.
 *
 * The lowest living member of a host is its gateway. Gateways send each other a heartbeat every heartbeat_ms: one stream per
 * pair of hosts, no matter how many cores. Inside a host the gateway asks the others now and then, and the next lowest
 * asks the gateway. Who was not heard for host_deadline_ms is reported to the engine as silent: a suspicion, which the leader
 * judges. Silence is counted in own beats, not in time: while this monitor itself could not run, it could not hear either,
 * and must not take its own sleep for another's death.
 *
 * Contact: that of the leader is as old as its round that a majority answered, in a term in which it has committed; the others ask. A
 * gateway asks the leader at every beat, and a heartbeat says how old its sender's contact is, and echoes when the receiver sent the one
 * before. So contact is known by when it was asked for, and never taken for younger than it is, however long a word has been on its way
 * or has lain here; inside a host, where there is one clock, by when it was said. And it is taken only from who has applied no view
 * that is not applied here. So whoever has contact of time t knows: no view beyond the own one was applied anywhere before t
 * (doc/agreement.md, Contact). A gateway whose contact is older than T_self tells the monitors of its host, and they have their
 * dispatchers frozen until it is back: the others may count on that once T_expel has passed (op_fence.c). While the gateway itself says
 * nothing for T_self, its watcher does so, by what it has heard of contact.
 *
 * A monitor that stands still can say nothing. So each puts off a lease that its CPU driver freezes the dispatchers at the end of
 * (wire/lease.h): to what it knows of contact, never to what it is told in messages that may have lain there while it stood still.
 */
#include "monitor/state.h"

rf_core_t heartbeat_gateway(const monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (core_is_alive(m, core)) return core;
    }
    return RF_CORE_NONE;
}

/* The next member of my host at or after `core`. */
static rf_core_t mate(const monitor_t *m, rf_core_t core)
{
    const rf_boot_node_t *n = &m->boot->nodes[m->node];
    for (; core < n->first_core + n->n_cores; core++) {
        if (core_is_alive(m, core)) return core;
    }
    return RF_CORE_NONE;
}

static bool is_in(const monitor_t *m)
{
    return m->formed && (m->phase == PHASE_FORMED || m->phase == PHASE_LEAVING);
}

static bool i_am_gateway(const monitor_t *m)
{
    return heartbeat_gateway(m, m->node) == m->core;
}

/* Whom I ask inside my host: the gateway everybody, the next one the gateway. */
static bool i_watch(const monitor_t *m, rf_core_t core)
{
    rf_core_t gateway = heartbeat_gateway(m, m->node);
    if (core == m->core || !same_node(m, core) || !core_is_alive(m, core)) return false;
    if (gateway == m->core) return true;
    return core == gateway && mate(m, gateway + 1) == m->core;
}

static bool i_beat(const monitor_t *m)
{
    if (!is_in(m)) return false;
    rf_core_t gateway = heartbeat_gateway(m, m->node);
    rf_core_t next = gateway == RF_CORE_NONE ? RF_CORE_NONE : mate(m, gateway + 1);
    return (gateway == m->core && (m->boot->n_nodes > 1 || next != RF_CORE_NONE)) || next == m->core;
}

/* ---- contact ---- */

static uint64_t heartbeat_ns(const monitor_t *m)
{
    return m->boot->heartbeat_ms * RF_NS_PER_MS;
}

static void have_contact(monitor_t *m, uint64_t at_ns)
{
    if (at_ns > m->contact_ns) m->contact_ns = at_ns;
}

void heartbeat_led(monitor_t *m)
{
    if (m->defects & MONITOR_DEFECT_LEASE_LED) have_contact(m, m->now_ns);
}

/* Which the leader has by its own rounds. */
static void note_own_contact(monitor_t *m)
{
    if (m->quorum) have_contact(m, agreement_contact_ns(m->agree.engine));
}

static uint64_t contact_age_ns(monitor_t *m)
{
    note_own_contact(m);
    return m->contact_ns == 0 || m->now_ns < m->contact_ns ? UINT64_MAX : m->now_ns - m->contact_ns;
}

static void beat_to(monitor_t *m, rf_core_t core, bool wants_answer)
{
    core_t *c = &m->cores[core];
    peer_heartbeat_t beat = {.sent_ns = m->now_ns,
                             .echo_ns = c->their_sent_ns,
                             .contact_age_ns = contact_age_ns(m),
                             .view = m->agree.state.view,
                             .wants_answer = wants_answer};
    if (peer_need(m, core) == RF_OK) peer_send(m, core, PEER_HEARTBEAT, &beat, sizeof beat, NULL, 0);
}

void heartbeat_received(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    core_t *c = &m->cores[from];
    peer_heartbeat_t beat;
    if (size != sizeof beat) return;
    memcpy(&beat, bytes, sizeof beat);
    c->their_sent_ns = beat.sent_ns;
    uint64_t at_ns = same_node(m, from) ? beat.sent_ns : beat.echo_ns;
    bool behind = beat.view > m->agree.state.view && !(m->defects & MONITOR_DEFECT_CONTACT_BEHIND);
    if (at_ns <= m->now_ns && beat.contact_age_ns < at_ns && !behind)
        have_contact(m, at_ns - beat.contact_age_ns);
    if (beat.wants_answer) beat_to(m, from, false);
}

static void freeze_all(monitor_t *m)
{
    rf_kernel_freeze_all_t body = {.frozen = m->frozen};
    if (m->kernel_up && !(m->defects & MONITOR_DEFECT_NOT_FROZEN))
        kernel_invoke(m, 0, RF_KERNEL_FREEZE_ALL, &body, sizeof body, NULL, 0);
}

void heartbeat_frozen(monitor_t *m, bool frozen)
{
    if (m->frozen == frozen) return;
    m->frozen = frozen;
    out_log(m, RF_LOG_WARN, "%s",
            frozen ? "this host has no contact with the machine: its dispatchers are frozen"
                   : "this host has contact with the machine again: its dispatchers go on");
    freeze_all(m);
    agree_note_state(m);
}

/* Who says whether this host has contact: the gateway, or, while it says nothing itself, the one that watches it. */
rf_core_t heartbeat_speaker(const monitor_t *m)
{
    rf_core_t gateway = heartbeat_gateway(m, m->node);
    if (gateway == RF_CORE_NONE || gateway == m->core) return gateway;
    bool silent = core_heard_ns(m, &m->cores[gateway]) + boot_self_ns(m->boot) < m->now_ns;
    rf_core_t next = silent ? mate(m, gateway + 1) : RF_CORE_NONE;
    return next == RF_CORE_NONE ? gateway : next;
}

void heartbeat_tell_frozen(monitor_t *m, rf_core_t to)
{
    peer_contact_t body = {.frozen = m->frozen};
    if (m->contact_ns == 0) return;
    if (heartbeat_speaker(m) == m->core && same_node(m, to))
        peer_send(m, to, PEER_CONTACT, &body, sizeof body, NULL, 0);
}

static void judge_contact(monitor_t *m)
{
    note_own_contact(m);
    if (m->contact_ns == 0) return; /* a core that joined and has heard of no contact yet: the leases judge */
    bool frozen = m->boot->n_nodes > 1 && m->now_ns > m->contact_ns + boot_self_ns(m->boot);
    if (frozen == m->frozen) return;
    heartbeat_frozen(m, frozen);
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        if (core != m->core && same_node(m, core) && m->cores[core].link == PEER_LINKED)
            heartbeat_tell_frozen(m, core);
    }
}

/* ---- silence ---- */

static void suspect(monitor_t *m, rf_core_t core, const char *what)
{
    out_log(m, RF_LOG_WARN, "%s was not heard for %u ms", what, m->boot->host_deadline_ms);
    agree_death(m, core, AGREEMENT_EVIDENCE_SILENCE);
}

/* Anything was heard of a host here since the last beat. */
static bool host_was_heard(const monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (core_heard_ns(m, &m->cores[core]) >= m->beat_ns) return true;
    }
    return false;
}

static void host_is_silent(monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (core_is_alive(m, core)) agree_death(m, core, AGREEMENT_EVIDENCE_SILENCE);
    }
    out_log(m, RF_LOG_WARN, "node %s was not heard for %u ms", n->name, m->boot->host_deadline_ms);
}

/* So many beats without a word are the deadline; one less, so that silence is known within it. */
static unsigned silent_max(const monitor_t *m)
{
    unsigned max = m->boot->host_deadline_ms / m->boot->heartbeat_ms;
    return max > 2 ? max - 1 : max;
}

static void beat_to_hosts(monitor_t *m)
{
    for (rf_node_t node = 0; node < m->boot->n_nodes; node++) {
        rf_core_t gateway = heartbeat_gateway(m, node);
        if (node == m->node || gateway == RF_CORE_NONE) continue;
        core_t *c = &m->cores[gateway];
        bool fresh = !m->beating; /* I have just become the gateway, and nobody beat to me before */
        m->silent[node] = fresh || host_was_heard(m, node) ? 0 : (uint16_t)(m->silent[node] + 1);
        c->silent = fresh || core_heard_ns(m, c) >= m->beat_ns ? 0 : (uint16_t)(c->silent + 1);
        if (m->silent[node] >= silent_max(m)) {
            m->silent[node] = 0; /* said again if it goes on */
            host_is_silent(m, node);
        } else if (c->silent >= silent_max(m)) {
            c->silent = 0;
            suspect(m, gateway, "the gateway of another host");
        }
        beat_to(m, gateway, gateway == m->agree.state.leader.core);
    }
}

static void beat_to_mates(monitor_t *m)
{
    const rf_boot_node_t *n = &m->boot->nodes[m->node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        core_t *c = &m->cores[core];
        if (!i_watch(m, core)) continue;
        c->silent = !m->beating || core_heard_ns(m, c) >= m->beat_ns ? 0 : (uint16_t)(c->silent + 1);
        /* Asked only now and then, it may answer only so often. */
        if (c->silent >= silent_max(m) + WATCH_BEATS) {
            c->silent = 0;
            suspect(m, core, "a core of this host");
        }
        if (m->n_beats % WATCH_BEATS != 0 && c->silent <= WATCH_BEATS) continue;
        beat_to(m, core, true);
        /* Again and again: it may take me for its gateway only since, and have heard another state from the last one. */
        if (m->boot->n_nodes > 1 && c->link == PEER_LINKED) heartbeat_tell_frozen(m, core);
    }
}

/* Its contact is the youngest. As another host's gateway it has been asked with the others (beat_to_hosts). */
static void beat_to_leader(monitor_t *m)
{
    rf_core_t leader = m->agree.state.leader.core;
    if (m->boot->n_nodes < 2 || leader >= m->boot->n_cores || leader == m->core) return;
    rf_node_t node = m->boot->node_of[leader];
    bool asked = i_am_gateway(m) && node != m->node && heartbeat_gateway(m, node) == leader;
    if (!asked && core_is_alive(m, leader)) beat_to(m, leader, true);
}

void heartbeat_tick(monitor_t *m)
{
    if (!i_beat(m)) {
        m->beating = false;
        return;
    }
    if (m->beating && m->now_ns < m->heartbeat_ns) return;
    m->n_beats++;
    if (i_am_gateway(m)) {
        beat_to_hosts(m);
        judge_contact(m);
        beat_to_leader(m);
    } else if (heartbeat_speaker(m) == m->core) {
        judge_contact(m);
        beat_to_leader(m);
    }
    beat_to_mates(m);
    m->beating = true;
    m->beat_ns = m->now_ns;
    m->heartbeat_ns = m->now_ns + heartbeat_ns(m);
}

/* One that had ended, and has not any more, is told to the CPU driver: it looks at it only when it is awake. */
uint64_t heartbeat_lease_ns(monitor_t *m)
{
    bool limited = m->formed && m->boot->n_nodes > 1 &&
                   !(m->defects & (MONITOR_DEFECT_NOT_FROZEN | MONITOR_DEFECT_NO_LEASE));
    if (limited) note_own_contact(m);
    uint64_t lease_ns = limited ? m->contact_ns + boot_lease_ns(m->boot) : RF_NEVER;
    if (m->lease_ns <= m->now_ns && lease_ns > m->now_ns) freeze_all(m);
    m->lease_ns = lease_ns;
    return lease_ns;
}

uint64_t heartbeat_next_ns(const monitor_t *m)
{
    return i_beat(m) ? m->heartbeat_ns : RF_NEVER;
}
