/*
 * Members: forming the machine, joining it, deaths, and leaving.
 *
 *   LINKING   my links to the other cores of my host (and, in incarnation 1, to core 0) are being made
 *     |       incarnation 1: all are up: READY to core 0              a later one: the machine has named it already, and
 *   READY                                                                   the leader's messages bring the log
 *     |       core 0: every configured core is READY or known dead, or the boot time has passed and a majority of the
 *     |       voters-to-be is there: the first entry of the log names the members
 *   FORMED    an applied view names this incarnation  --- EXPELLED: one without it is in force: this core ends
 *
 * A death is learnt from the kernel (a pidfd of this host's), or told by a monitor of the dead core's host. It counts here
 * at once (told), and the engine makes an entry of it. Silence (heartbeat.c) is only a suspicion: it goes to the engine
 * and counts when a view without the silent member is applied.
 *
 * Whoever has left is fenced (op_fence.c) before anything that waits for that goes on.
 */
#include "monitor/state.h"

static rf_core_t first_of_node(const monitor_t *m)
{
    return m->boot->nodes[m->node].first_core;
}

static bool is_joining(const monitor_t *m)
{
    return m->incarnation > 1;
}

void member_start(monitor_t *m)
{
    rf_core_t first = first_of_node(m), end = first + m->boot->nodes[m->node].n_cores;
    for (rf_core_t core = first; core < end; core++) {
        if (core != m->core && (core < m->core || is_joining(m))) peer_need(m, core);
    }
    if (m->core != 0 && !same_node(m, 0) && !is_joining(m)) peer_need(m, 0);
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
    peer_core_t self = {.core = m->core, .incarnation = m->incarnation};
    if (m->core == 0)
        m->cores[0].ready = true;
    else if (m->cores[0].link == PEER_LINKED)
        peer_send(m, 0, PEER_READY, &self, sizeof self, NULL, 0);
    else
        return;
    m->phase = PHASE_READY;
}

/* To be in the first view, which core 0 makes in its first life: that is not there, or there no more. */
static bool waits_in_vain(const monitor_t *m)
{
    bool waits = !is_joining(m) && (m->phase == PHASE_LINKING || m->phase == PHASE_READY);
    return waits && m->core != 0 && (m->cores[0].link != PEER_LINKED || m->cores[0].linked > 1);
}

/* Core 0 was there and has gone: the others know whether it had formed the machine, and whether that goes on without me. */
static bool core_0_has_gone(const monitor_t *m)
{
    return waits_in_vain(m) && m->cores[0].linked != 0;
}

/* All that it knows of who could agree is dead. The machine may have gone on without this core before they died, by a view that it has not
 * heard of: while it stood still, or was cut off. Whoever lives now in their places knows. */
static bool believes_it_lost(const monitor_t *m)
{
    return m->phase == PHASE_FORMED && m->agree.state.lost;
}

static bool asks_around(const monitor_t *m)
{
    return core_0_has_gone(m) || believes_it_lost(m);
}

/* Who is in the machine answers, if that goes on without me; who is not yet may be later. */
static void ask_whether_in(monitor_t *m, rf_core_t core)
{
    peer_core_t self = {.core = m->core, .incarnation = m->incarnation};
    peer_send(m, core, PEER_READY, &self, sizeof self, NULL, 0);
}

void member_linked(monitor_t *m, rf_core_t core)
{
    if (m->phase == PHASE_READY && core == 0) m->phase = PHASE_LINKING; /* a new link: say it again */
    if (core != 0 && !same_node(m, core) && asks_around(m)) ask_whether_in(m, core);
}

/* Whom of another host to dial for that: the lowest that listens and is not known to be dead; else one that is, who may live
 * again. Core 0 is dialled anyway while it is not known to be dead. RF_CORE_NONE: one is there, or is being dialled. */
static rf_core_t who_may_know(const monitor_t *m, rf_node_t node)
{
    rf_core_t first = m->boot->nodes[node].first_core, best = RF_CORE_NONE;
    for (rf_core_t core = first; core < first + m->boot->nodes[node].n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (core == 0 && !c->dead) continue;
        if (c->link == PEER_LINKED || c->link == PEER_DIALING) return RF_CORE_NONE;
        if (c->redial && !c->dead && c->address[0]) return RF_CORE_NONE;
        if (c->address[0] && (best == RF_CORE_NONE || (m->cores[best].dead && !c->dead))) best = core;
    }
    return best;
}

static void ask_around(monitor_t *m)
{
    m->ask_ns = m->now_ns + ASK_NS;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        if (m->cores[core].link == PEER_LINKED) ask_whether_in(m, core);
    }
    for (rf_node_t node = 0; node < m->boot->n_nodes && asks_around(m); node++) {
        rf_core_t core = node == m->node ? RF_CORE_NONE : who_may_know(m, node);
        if (core != RF_CORE_NONE) peer_try(m, core);
    }
}

/* Core 0 is asked to form. Once it has, whoever comes too late is to join as a new incarnation; any member says so. */
void member_ready(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    c->ready = true;
    if (m->phase == PHASE_LINKING || m->phase == PHASE_READY ||
        (core_is_member(m, core) && c->linked == core_agreed(m, core)))
        return;
    if (c->linked > 1 && c->linked > core_agreed(m, core))
        return; /* it may be in a view that is not known here yet */
    peer_core_t who = {.core = core, .incarnation = c->linked, .err = RF_ERR_TIMEOUT};
    peer_send(m, core, PEER_EXPELLED, &who, sizeof who, NULL, 0);
}

/* Of the voters that the whole configuration would have, a majority is among `members`. */
static bool voters_are_there(const monitor_t *m, const rf_core_t *members, unsigned n)
{
    static agreement_member_t all[RF_CORES_MAX];
    agreement_member_t voters[AGREEMENT_VOTERS_MAX];
    agreement_params_t params = agree_params(m->boot, m->core, m->incarnation);
    for (rf_core_t core = 0; core < m->boot->n_cores; core++)
        all[core] = (agreement_member_t){.core = core, .incarnation = 1};
    unsigned n_voters = agreement_choose_voters(&params, all, m->boot->n_cores, NULL, 0, voters), there = 0;
    for (unsigned i = 0; i < n_voters; i++) {
        for (unsigned k = 0; k < n; k++) there += members[k] == voters[i].core;
    }
    return 2 * there > n_voters;
}

/* Core 0: forms when everybody is there, or with those who are when the boot time has passed. */
static void try_to_form(monitor_t *m)
{
    rf_core_t members[RF_CORES_MAX];
    unsigned n = 0, missing = 0;
    bool late = m->now_ns >= m->form_ns;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->ready || (late && c->link == PEER_LINKED)) /* late: it waits in vain for a neighbour */
            members[n++] = core;
        else if (!c->dead)
            missing++;
    }
    if (missing > 0 && !late) return;
    if (!voters_are_there(m, members, n)) { /* also where all that are not there are known to be dead */
        if (!late) return;
        out_log(
            m, RF_LOG_WARN,
            "%u of %u cores did not come up, and without them there is no majority of the voters: waiting",
            m->boot->n_cores - n, m->boot->n_cores);
        m->form_ns = m->now_ns + BOOT_NS;
        return;
    }
    if (missing > 0)
        out_log(m, RF_LOG_WARN, "%u of %u cores did not come up in time: forming the machine without them",
                missing, m->boot->n_cores);
    m->forming = true;
    agree_form(m, members, n);
}

/* Links that everybody has from the start. */
static bool is_mine_to_dial(const monitor_t *m, rf_core_t core)
{
    if (core == m->core) return false;
    if (is_joining(m)) return same_node(m, core);
    return same_node(m, core) ? core < m->core : core == 0;
}

/*
 * Who joins waits to be spoken to: it knows no view, and nobody dials it once it has been expelled, which can happen before it
 * has heard of its own view. So one that nobody speaks to for JOIN_SILENCE_NS ends; its rackfishd asks for the next incarnation.
 */
static uint64_t join_ends_ns(const monitor_t *m)
{
    if (!is_joining(m) || m->formed || m->phase > PHASE_READY) return RF_NEVER;
    return (m->heard_ns > m->started_ns ? m->heard_ns : m->started_ns) + JOIN_SILENCE_NS;
}

static void give_up_joining(monitor_t *m)
{
    out_log(m, RF_LOG_ERROR, "no member has spoken to this core for %u s: ending; it may join anew",
            (unsigned)(JOIN_SILENCE_NS / RF_NS_PER_S));
    m->phase = PHASE_EXPELLED;
    m->exit_status = MONITOR_EXIT_EXPELLED;
}

static void dial_due(monitor_t *m, rf_core_t from, rf_core_t to, bool forming)
{
    for (rf_core_t core = from; core < to; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_NONE && !c->dead && m->now_ns >= c->redial_ns &&
            (c->redial || (forming && is_mine_to_dial(m, core))))
            peer_need(m, core);
    }
}

void member_tick(monitor_t *m)
{
    bool forming = m->phase == PHASE_LINKING || m->phase == PHASE_READY;
    if (m->n_redials > 0) {
        dial_due(m, 0, m->boot->n_cores, forming);
    } else if (forming) { /* no others are mine to dial */
        rf_core_t first = first_of_node(m);
        if (m->node > 0) dial_due(m, 0, 1, forming);
        dial_due(m, first, first + m->boot->nodes[m->node].n_cores, forming);
    }
    if (m->exit_status < 0 && m->now_ns >= join_ends_ns(m)) give_up_joining(m);
    if (m->now_ns >= m->ask_ns && (waits_in_vain(m) || believes_it_lost(m))) ask_around(m);
    if (is_joining(m)) return;
    if (m->phase == PHASE_LINKING && mesh_is_up(m)) say_ready(m);
    if (m->core == 0 && m->phase == PHASE_READY && !m->forming) try_to_form(m);
    if (m->core == 0 && m->phase == PHASE_LINKING && m->now_ns >= m->form_ns) say_ready(m);
}

uint64_t member_next_ns(const monitor_t *m)
{
    bool forming = m->phase == PHASE_LINKING || m->phase == PHASE_READY;
    uint64_t next = forming && m->core == 0 && !is_joining(m) && !m->forming ? m->form_ns : RF_NEVER;
    if (m->exit_status < 0 && join_ends_ns(m) < next) next = join_ends_ns(m);
    if ((waits_in_vain(m) || believes_it_lost(m)) && m->ask_ns < next) next = m->ask_ns;
    for (rf_core_t core = 0; core < m->boot->n_cores && m->n_redials > 0; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_NONE && !c->dead && c->redial && c->redial_ns > m->now_ns && c->redial_ns < next)
            next = c->redial_ns;
    }
    return next;
}

static bool node_is_dead(const monitor_t *m, rf_node_t node)
{
    return heartbeat_gateway(m, node) == RF_CORE_NONE;
}

/* An applied view names me. */
static void in_the_machine(monitor_t *m)
{
    if (m->phase == PHASE_LINKING || m->phase == PHASE_READY) m->phase = PHASE_FORMED;
    if (m->formed) return;
    m->formed = true;
    m->heartbeat_ns = m->now_ns;
    m->silent_since_ns = m->now_ns;
    out_log(m, RF_LOG_INFO, "%s",
            m->incarnation > 1 ? "this core has joined the machine" : "the machine is formed");
}

static void set_member(monitor_t *m, rf_core_t core, bool member)
{
    m->members[core / 8] =
        (uint8_t)((m->members[core / 8] & ~(1u << core % 8)) | (unsigned)member << core % 8);
}

static void set_agreed(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    core_t *c = &m->cores[core];
    m->named[core / 8] |= (uint8_t)(1u << core % 8);
    if (incarnation > 1 || c->agreed > 0) c->agreed = incarnation;
}

void member_joined(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    core_t *c = &m->cores[core];
    rf_node_t node = m->boot->node_of[core];
    bool node_was_dead = node_is_dead(m, node);
    set_member(m, core, true);
    set_agreed(m, core, incarnation);
    if (c->address_news) c->address_news = false;
    if (m->formed && m->silent_since_ns < m->now_ns) c->heard_ns = m->now_ns;
    if (incarnation > core_life(c)) {
        c->after_first = incarnation - 1;
        c->dead = c->dead_kernel = false; /* that was its last life */
        if (c->link == PEER_GONE) c->link = PEER_NONE;
    } else if (c->dead && incarnation == core_life(c)) {
        agree_death(m, core, c->dead_kernel ? AGREEMENT_EVIDENCE_KERNEL : AGREEMENT_EVIDENCE_SILENCE);
    }
    machine_event(m, RF_MACHINE_CORE_UP, RF_OK, core, node, RF_DOMAIN_NONE);
    if (node_was_dead && m->formed) machine_event(m, RF_MACHINE_NODE_UP, RF_OK, core, node, RF_DOMAIN_NONE);
    if (core == m->core && incarnation == m->incarnation) in_the_machine(m);
}

static void say_down(monitor_t *m, rf_core_t core, rf_err_t err)
{
    rf_node_t node = m->boot->node_of[core];
    machine_event(m, RF_MACHINE_CORE_DOWN, err, core, node, RF_DOMAIN_NONE);
    if (!node_is_dead(m, node)) return;
    out_log(m, RF_LOG_WARN, "node %s is down: %s", m->boot->nodes[node].name, rf_err_text(err));
    machine_event(m, RF_MACHINE_NODE_DOWN, err, core, node, RF_DOMAIN_NONE);
}

void member_left(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, bool in_order)
{
    core_t *c = &m->cores[core];
    rf_err_t err = in_order                                        ? RF_ERR_CLOSED
                   : c->dead_kernel && core_life(c) == incarnation ? RF_ERR_PEER_DEAD
                                                                   : RF_ERR_TIMEOUT;
    set_member(m, core, false);
    if (incarnation > core_agreed(m, core)) set_agreed(m, core, incarnation);
    if (!m->loading) replica_core_left(m, core); /* a snapshot says itself what is left */
    if (core == m->core) {                       /* the engine says whether that was I */
        if (incarnation < m->incarnation) fence_left(m, core, incarnation, in_order);
        return;
    }
    if (m->defects & MONITOR_DEFECT_LEFT_HEARD) {
        fence_left(m, core, incarnation, in_order);
        return;
    }
    if (incarnation >= core_life(c)) {
        bool known = c->dead;
        if (c->link == PEER_LINKED) { /* while it can still hear: then listen no more */
            peer_core_t who = {.core = core, .incarnation = incarnation, .err = (uint32_t)err};
            peer_send(m, core, PEER_EXPELLED, &who, sizeof who, NULL, 0);
        }
        c->after_first = incarnation - 1;
        c->dead = true;
        c->dead_err = err;
        c->link = PEER_GONE;
        m->n_redials -= c->redial;
        c->redial = false;
        /* Its next incarnation listens elsewhere: rackfishd tells, or has told already, for the log may be behind. */
        if (m->formed && !c->address_news) c->address[0] = 0;
        unpark_all(m, true, core);
        if (m->formed)
            out_log(m, RF_LOG_WARN, "core %u, incarnation %u, has left the machine: %s", core, incarnation,
                    in_order ? "it was asked to" : rf_err_text(err));
        if (!known) say_down(m, core, err);
        peer_fail_ops(m, core);
    }
    peer_fence(m, core, incarnation);
    fence_left(m, core, incarnation, in_order);
}

/* To everybody here and at the other end who may not see it himself. Only first-hand news spread, and a gateway passes on
 * to its host what another host tells. */
static void spread(monitor_t *m, rf_core_t dead, rf_err_t err, bool first_hand)
{
    bool gateway = heartbeat_gateway(m, m->node) == m->core;
    peer_core_t who = {.core = dead, .incarnation = core_life(&m->cores[dead]), .err = (uint32_t)err};
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_LINKED && !c->dead && (first_hand || (gateway && same_node(m, core))))
            peer_send(m, core, PEER_DEATHS, &who, sizeof who, NULL, 0);
    }
}

void member_tell_deaths(monitor_t *m, rf_core_t to)
{
    bool some = false;
    for (rf_core_t core = 0; core < m->boot->n_cores && m->formed && m->some_dead; core++) {
        const core_t *c = &m->cores[core];
        some |= c->dead_kernel;
        if (!c->dead_kernel || !c->dead || !core_is_member(m, core) || core_agreed(m, core) != core_life(c))
            continue; /* what is agreed, the log tells */
        peer_core_t who = {.core = core, .incarnation = core_life(c), .err = (uint32_t)c->dead_err};
        peer_send(m, to, PEER_DEATHS, &who, sizeof who, NULL, 0);
    }
    if (m->formed) m->some_dead = some;
}

/* The kernel of its host says that `core`, in the incarnation that is meant now, is dead. */
void member_dead(monitor_t *m, rf_core_t core, bool first_hand)
{
    core_t *c = &m->cores[core];
    if (core == m->core) return;
    bool known = c->dead;
    c->dead_kernel = m->some_dead = true;
    if (core_is_member(m, core) && core_agreed(m, core) == core_life(c))
        agree_death(m, core, AGREEMENT_EVIDENCE_KERNEL);
    if (known) return;
    c->dead = true;
    c->dead_err = RF_ERR_PEER_DEAD;
    c->ready = false;
    c->link = PEER_GONE;
    out_log(m, m->phase == PHASE_SHUTDOWN ? RF_LOG_DEBUG : RF_LOG_WARN, "core %u is dead: %s%s", core,
            rf_err_text(RF_ERR_PEER_DEAD), first_hand ? "" : " (as told)");
    peer_fence(m, core, core_life(c));
    unpark_all(m, true, core);
    say_down(m, core, RF_ERR_PEER_DEAD);
    spread(m, core, RF_ERR_PEER_DEAD, first_hand);
    replica_tell_core_dead(m, core);
    peer_fail_ops(m, core);
}

void member_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size)
{
    peer_core_t who;
    for (size_t at = 0; size - at >= sizeof who; at += sizeof who) {
        memcpy(&who, bytes + at, sizeof who);
        if (who.core >= m->boot->n_cores || who.core == m->core) continue;
        /* Of its own host a monitor hears from the kernel; a gateway passes on what another host's told it. */
        bool speaks = m->boot->node_of[from] == m->boot->node_of[who.core] || same_node(m, from);
        if (speaks && who.incarnation == core_life(&m->cores[who.core])) member_dead(m, who.core, false);
    }
}

void member_expelled(monitor_t *m, rf_core_t from, rf_err_t err)
{
    if (m->exit_status >= 0 || m->phase == PHASE_EXPELLED || m->phase == PHASE_SHUTDOWN) return;
    if (leave_done(m)) return; /* it was asked to leave, and has */
    if (from == RF_CORE_NONE)
        out_log(m, RF_LOG_ERROR, "a view without this core is in force: ending; it may join anew");
    else
        out_log(m, RF_LOG_ERROR,
                "core %u says that the machine goes on without this core (%s): ending; it may join anew",
                from, rf_err_text(err > 0 && err < RF_ERR_COUNT ? err : RF_ERR_PEER_DEAD));
    m->phase = PHASE_EXPELLED;
    m->exit_status = MONITOR_EXIT_EXPELLED;
}
