/*
 * Members: forming the machine, and deaths.
 *
 *   LINKING   my links to the other cores of my host and to core 0 are being made
 *     |       all are up: READY to core 0
 *   READY
 *     |       core 0: every configured core is READY or known dead, or the boot time has passed: the first entry of the
 *     |       log names the members; everybody: that entry is applied
 *   FORMED  --- EXPELLED: the others go on without me; this core ends
 *
 * A death is learnt from the kernel (a link of the host's mesh), or told by a monitor that did. It counts here at once
 * (told), is told to everybody in reach, and goes to the engine as evidence. A host's silence (heartbeat.c) and a broken
 * link between hosts are suspicions: they count when a majority has agreed on it, so that of two hosts that are cut
 * apart one at most goes on without the other.
 */
#include "monitor/state.h"

static rf_core_t first_of_node(const monitor_t *m)
{
    return m->boot->nodes[m->node].first_core;
}

void member_start(monitor_t *m)
{
    for (rf_core_t core = first_of_node(m); core < m->core; core++) peer_need(m, core);
    if (m->core != 0 && !same_node(m, 0)) peer_need(m, 0);
    member_tick(m);
}

static bool mesh_is_up(const monitor_t *m)
{
    rf_core_t first = first_of_node(m);
    for (rf_core_t core = first; core < first + m->boot->nodes[m->node].n_cores; core++) {
        if (core != m->core && m->cores[core].link != PEER_LINKED && !m->cores[core].dead) return false;
    }
    return true;
}

static void say_ready(monitor_t *m)
{
    peer_core_t self = {.core = m->core, .incarnation = 1};
    if (m->core == 0)
        m->cores[0].ready = true;
    else if (m->cores[0].link == PEER_LINKED)
        peer_send(m, 0, PEER_READY, &self, sizeof self, NULL, 0);
    else
        return;
    m->phase = PHASE_READY;
}

void member_linked(monitor_t *m, rf_core_t core)
{
    if (m->phase == PHASE_READY && core == 0) m->phase = PHASE_LINKING; /* a new link: say it again */
}

void member_ready(monitor_t *m, rf_core_t core)
{
    if (m->core == 0) m->cores[core].ready = true;
}

/* Core 0: forms when everybody is there, or with those who are when the boot time has passed. */
static void try_to_form(monitor_t *m)
{
    rf_core_t members[RF_CORES_MAX];
    unsigned n = 0, missing = 0;
    bool late = m->now_ns >= m->started_ns + BOOT_NS;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->ready || (late && c->link == PEER_LINKED)) /* late: it waits in vain for a neighbour */
            members[n++] = core;
        else if (!c->dead)
            missing++;
    }
    if (missing > 0 && !late) return;
    if (missing > 0)
        out_log(m, RF_LOG_WARN, "%u of %u cores did not come up in time: forming the machine without them",
                missing, m->boot->n_cores);
    m->forming = true;
    agree_form(m, members, n);
}

/* Links that everybody has: to the lower cores of the host, and to core 0. */
static bool is_mine_to_dial(const monitor_t *m, rf_core_t core)
{
    return core != m->core && (same_node(m, core) ? core < m->core : core == 0);
}

void member_tick(monitor_t *m)
{
    bool forming = m->phase == PHASE_LINKING || m->phase == PHASE_READY;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_NONE && !c->dead && m->now_ns >= c->redial_ns &&
            (c->redial || (forming && is_mine_to_dial(m, core))))
            peer_need(m, core);
    }
    if (m->phase == PHASE_LINKING && mesh_is_up(m)) say_ready(m);
    if (m->core == 0 && m->phase == PHASE_READY && !m->forming) try_to_form(m);
    if (m->core == 0 && m->phase == PHASE_LINKING && m->now_ns >= m->started_ns + BOOT_NS) say_ready(m);
}

uint64_t member_next_ns(const monitor_t *m)
{
    bool forming = m->phase == PHASE_LINKING || m->phase == PHASE_READY;
    uint64_t next = forming && m->core == 0 && !m->forming ? m->started_ns + BOOT_NS : RF_NEVER;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_NONE && !c->dead && c->redial && c->redial_ns > m->now_ns && c->redial_ns < next)
            next = c->redial_ns;
    }
    return next;
}

void member_formed(monitor_t *m, const uint8_t *members)
{
    unsigned n = 0;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        c->member = members[core / 8] >> (core % 8) & 1;
        c->heard_ns = m->now_ns;
        if (c->member) {
            n++;
            machine_event(m, RF_MACHINE_CORE_UP, RF_OK, core, m->boot->cores[core].node, RF_DOMAIN_NONE);
        } else {
            c->dead = true; /* it did not come up in time, and can only join as a new incarnation */
            c->dead_err = RF_ERR_TIMEOUT;
        }
    }
    m->formed = true;
    if (m->phase != PHASE_SHUTDOWN) m->phase = PHASE_FORMED;
    m->heartbeat_ns = m->now_ns;
    out_log(m, RF_LOG_INFO, "the machine is formed: %u of %u cores", n, m->boot->n_cores);
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        if (c->dead && c->member) agree_death(m, core);
        if (c->dead && c->link == PEER_LINKED) {
            c->link = PEER_GONE;
            peer_core_t who = {.core = core, .incarnation = 1, .err = RF_ERR_TIMEOUT};
            peer_send(m, core, PEER_EXPELLED, &who, sizeof who, NULL, 0);
            out_action(m, MONITOR_DO_FENCE_PEER)->core = core;
        }
    }
}

static bool node_is_dead(const monitor_t *m, rf_node_t node)
{
    const rf_boot_node_t *n = &m->boot->nodes[node];
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++) {
        if (!m->cores[core].dead) return false;
    }
    return true;
}

/* To everybody here and at the other end who may not see it himself. Only first-hand news spread, and a gateway passes on
 * to its host what another host tells. */
static void spread(monitor_t *m, rf_core_t dead, rf_err_t err, bool first_hand)
{
    bool gateway = heartbeat_gateway(m, m->node) == m->core;
    peer_core_t who = {.core = dead, .incarnation = 1, .err = (uint32_t)err};
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_LINKED && !c->dead && (first_hand || (gateway && same_node(m, core))))
            peer_send(m, core, PEER_DEATHS, &who, sizeof who, NULL, 0);
    }
}

void member_tell_deaths(monitor_t *m, rf_core_t to)
{
    for (rf_core_t core = 0; core < m->boot->n_cores && m->formed; core++) {
        const core_t *c = &m->cores[core];
        if (!c->dead || !c->member || c->down) continue; /* what is agreed, the log tells */
        peer_core_t who = {.core = core, .incarnation = 1, .err = (uint32_t)c->dead_err};
        peer_send(m, to, PEER_DEATHS, &who, sizeof who, NULL, 0);
    }
}

void member_dead(monitor_t *m, rf_core_t core, rf_err_t err, bool first_hand, bool kernel)
{
    core_t *c = &m->cores[core];
    if (core == m->core || c->dead) return;
    rf_node_t node = m->boot->cores[core].node;
    c->dead = true;
    c->dead_err = err;
    c->ready = false;
    out_log(m, m->phase == PHASE_SHUTDOWN ? RF_LOG_DEBUG : RF_LOG_WARN, "core %u is dead: %s%s", core,
            rf_err_text(err), first_hand ? "" : " (told by another monitor)");
    if (c->link == PEER_LINKED) { /* expelled while it can still hear: tell it, then listen no more */
        peer_core_t who = {.core = core, .incarnation = 1, .err = (uint32_t)err};
        peer_send(m, core, PEER_EXPELLED, &who, sizeof who, NULL, 0);
        out_action(m, MONITOR_DO_FENCE_PEER)->core = core;
    } else if (c->link == PEER_DIALING) {
        out_action(m, MONITOR_DO_FENCE_PEER)->core = core;
    }
    c->link = PEER_GONE;
    unpark_all(m, true, core);
    machine_event(m, RF_MACHINE_CORE_DOWN, err, core, node, RF_DOMAIN_NONE);
    if (node_is_dead(m, node)) {
        out_log(m, RF_LOG_WARN, "node %s is dead: %s", m->boot->nodes[node].name, rf_err_text(err));
        machine_event(m, RF_MACHINE_NODE_DOWN, err, core, node, RF_DOMAIN_NONE);
    }
    spread(m, core, err, first_hand);
    if (kernel) agree_death(m, core);
    replica_tell_core_dead(m, core);
    peer_fail_ops(m, core);
}

void member_silent(monitor_t *m, rf_core_t core, rf_err_t err)
{
    if (!m->cores[core].member || m->cores[core].dead) return;
    out_log(m, m->phase == PHASE_SHUTDOWN ? RF_LOG_DEBUG : RF_LOG_WARN, "core %u is out of reach: %s", core,
            rf_err_text(err));
    agree_suspect(m, core);
}

void member_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    peer_core_t who;
    for (size_t at = 0; size - at >= sizeof who; at += sizeof who) {
        memcpy(&who, bytes + at, sizeof who);
        if (who.core >= m->boot->n_cores || who.incarnation != 1) continue;
        rf_err_t err = who.err > 0 && who.err < RF_ERR_COUNT ? (rf_err_t)who.err : RF_ERR_PEER_DEAD;
        if (who.core == m->core)
            member_expelled(m, from, err);
        else
            /* First-hand news come from the dead one's host; a gateway passes them on to its own. */
            member_dead(m, who.core, err, false, true);
    }
}

void member_expelled(monitor_t *m, rf_core_t from, rf_err_t err)
{
    if (m->phase == PHASE_EXPELLED || m->phase == PHASE_SHUTDOWN) return;
    if (from == RF_CORE_NONE)
        out_log(m, RF_LOG_ERROR,
                "the machine goes on without this core: ending; start it again to join anew");
    else
        out_log(m, RF_LOG_ERROR,
                "core %u says that the machine goes on without this core (%s): ending; start it again to "
                "join anew",
                from, rf_err_text(err > 0 && err < RF_ERR_COUNT ? err : RF_ERR_PEER_DEAD));
    m->phase = PHASE_EXPELLED;
    m->exit_status = MONITOR_EXIT_EXPELLED;
}
