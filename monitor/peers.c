/*
 * Links to other monitors. Inside a host there is a full mesh from the start: the higher core dials the lower. Between
 * hosts a link is dialled when there is first something to say, and stays.
 */
#include "monitor/state.h"

static void set_redial(monitor_t *m, rf_core_t core, bool redial)
{
    core_t *c = &m->cores[core];
    if (c->redial != redial) m->n_redials += redial ? 1u : -1u;
    c->redial = redial;
}

static void set_wanted(monitor_t *m, rf_core_t core, bool wanted)
{
    core_t *c = &m->cores[core];
    if (c->wanted != wanted) m->n_wanted += wanted ? 1u : -1u;
    c->wanted = wanted;
}

static void ask_for_address(monitor_t *m, uint32_t client, rf_core_t core)
{
    rf_client_wanted_t body = {.core = core};
    client_event_fd(m, client, RF_CLIENT_EVENT_ADDRESS, 0, &body, sizeof body, -1);
}

void peer_ask_addresses(monitor_t *m, uint32_t client)
{
    for (rf_core_t core = 0; core < m->boot->n_cores && m->n_wanted > 0; core++) {
        if (m->cores[core].wanted) ask_for_address(m, client, core);
    }
}

/* Dialled when its address comes. */
static void want_address(monitor_t *m, rf_core_t core)
{
    bool asked = m->cores[core].wanted;
    set_wanted(m, core, true);
    for (uint32_t i = 0; i < MONITOR_CLIENTS_MAX && !asked; i++) {
        if (m->clients[i].used && m->clients[i].domain == RF_DOMAIN_NONE) ask_for_address(m, i, core);
    }
}

static void dial(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    c->link = PEER_DIALING;
    set_wanted(m, core, false);
    set_redial(m, core, false);
    monitor_action_t *action = out_action(m, MONITOR_DO_DIAL);
    action->core = core;
    out_bytes(m, action, c->address, strlen(c->address) + 1, NULL, 0);
}

static void try_to_dial(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    if (c->link == PEER_DIALING || m->now_ns < c->redial_ns) return;
    bool lower_dials = !m->formed && m->incarnation == 1 && same_node(m, core) && core > m->core;
    if (lower_dials) return; /* while the machine forms, only the higher core does */
    if (same_node(m, core) || c->address[0])
        dial(m, core);
    else
        want_address(m, core);
}

rf_err_t peer_need(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    rf_assert(core != m->core);
    if (c->dead || c->link == PEER_GONE || (m->formed && !core_is_member(m, core))) return RF_ERR_PEER_DEAD;
    if (c->link == PEER_LINKED) return RF_OK;
    try_to_dial(m, core);
    return RF_ERR_AGAIN;
}

bool peer_reach(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    core_t *c = &m->cores[core];
    if (core >= m->boot->n_cores || core == m->core) return false;
    if (c->link == PEER_LINKED) return c->linked == incarnation;
    if (c->link != PEER_GONE && incarnation >= core_life(c)) try_to_dial(m, core);
    return false;
}

void peer_try(monitor_t *m, rf_core_t core)
{
    try_to_dial(m, core);
}

void peer_address(monitor_t *m, rf_core_t core, const char *address)
{
    core_t *c = &m->cores[core];
    bool news = strcmp(c->address, address) != 0;
    c->address_news |= news;
    standby_note_members(m);
    memcpy(c->address, address, strlen(address) + 1);
    if (c->wanted && c->link == PEER_NONE) dial(m, core);
    if (news && c->link == PEER_DIALING)
        set_wanted(m, core, true); /* there, once the dial to the old one has failed */
}

void peer_answered(monitor_t *m, op_t *op)
{
    if (!op->counted) return;
    op->counted = false;
    if (m->cores[op->peer].unanswered > 0) m->cores[op->peer].unanswered--;
}

static void each_op_of(monitor_t *m, rf_core_t core, void (*tell)(monitor_t *m, op_t *op, rf_err_t err),
                       rf_err_t err)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX && m->n_ops > 0; i++) {
        if (m->ops[i].kind != OP_FREE && m->ops[i].peer == core) tell(m, &m->ops[i], err);
    }
}

static void tell_lost(monitor_t *m, op_t *op, rf_err_t err)
{
    const op_class_t *class = op_class_of(op);
    if (class->peer_lost) class->peer_lost(m, op, err);
}

/* That a link ended says nothing of who was at its other end. Who has asked something over it hears what became of that when this is known:
 * that core is dead, or linked again. */
static void tell_broken(monitor_t *m, op_t *op, rf_err_t err)
{
    if (op->asked != 0)
        peer_answered(m, op);
    else
        tell_lost(m, op, err);
}

/* By another with the same life, which is told at once: what waits for a link has one. */
static void tell_replaced(monitor_t *m, op_t *op, rf_err_t err)
{
    (void)err;
    if (op->asked != 0 || op->peer_tag != 0) tell_broken(m, op, RF_ERR_CLOSED);
}

static void tell_linked(monitor_t *m, op_t *op, rf_err_t err)
{
    (void)err;
    const op_class_t *class = op_class_of(op);
    if (op->asked != 0 && !op->counted)
        tell_lost(m, op, op->asked == m->cores[op->peer].linked ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_PEER_DEAD);
    else if (class->peer_up)
        class->peer_up(m, op);
}

/* An operation waits for a link with that core. */
static bool op_waits(const monitor_t *m, rf_core_t core)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX && m->n_ops > 0; i++) {
        const op_t *op = &m->ops[i];
        if (op->kind != OP_FREE && op->peer == core && op->peer_tag == 0 && !op->counted) return true;
    }
    return false;
}

/* News that a monitor may have missed: deaths, and, while nothing can be agreed on, ends. */
static void tell_news(monitor_t *m, rf_core_t core)
{
    member_tell_deaths(m, core);
    if (m->formed && !m->quorum) end_tell_all(m, core);
}

void peer_fence(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    monitor_action_t *action = out_action(m, MONITOR_DO_FENCE_PEER);
    action->core = core;
    action->incarnation = incarnation;
}

void peer_up(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, const monitor_process_t *process)
{
    core_t *c = &m->cores[core];
    if (incarnation < core_life(c) || (incarnation == core_life(c) && (c->dead || c->link == PEER_GONE))) {
        /* It comes too late: the machine has gone on without it. */
        peer_core_t who = {.core = core, .incarnation = incarnation, .err = RF_ERR_PEER_DEAD};
        peer_send(m, core, PEER_EXPELLED, &who, sizeof who, NULL, 0);
        peer_fence(m, core, incarnation);
        if (c->link == PEER_DIALING)
            c->link = c->dead ? PEER_GONE : PEER_NONE; /* that was the answer: no other comes */
        return;
    }
    out_log(m, RF_LOG_DEBUG, "linked with core %u, incarnation %u", core, incarnation);
    if (c->link == PEER_LINKED) { /* another link has taken its place */
        unpark_all(m, true, core);
        each_op_of(m, core, c->linked == incarnation ? tell_replaced : tell_lost, RF_ERR_PEER_DEAD);
    }
    if (incarnation > core_life(c)) { /* the machine has named it, which is not known here yet */
        c->after_first = incarnation - 1;
        c->dead = c->dead_kernel = false;
        replica_tell_core_dead(m, core);
    }
    c->link = PEER_LINKED;
    c->linked = incarnation;
    if (core_is_member(m, core) && incarnation == core_agreed(m, core))
        c->address_news = false; /* it is this life's, not the next one's */
    if (process->incarnation != 0) c->process = *process;
    set_redial(m, core, false);
    c->heard_ns = m->heard_ns = m->now_ns;
    c->unanswered = 0;
    c->ping_sent_ns = 0;
    c->their_sent_ns = 0;
    agree_room(m, core);
    member_linked(m, core);
    each_op_of(m, core, tell_linked, RF_OK);
    tell_news(m, core);
    fence_tell(m, core);
    if (m->formed && m->boot->n_nodes > 1) heartbeat_tell_frozen(m, core);
}

/* What was dropped while it did not read: agreement makes its messages again, and news are told again. */
void peer_room(monitor_t *m, rf_core_t core)
{
    if (m->cores[core].link != PEER_LINKED) return;
    agree_room(m, core);
    tell_news(m, core);
}

void peer_down(monitor_t *m, rf_core_t core, rf_err_t err)
{
    core_t *c = &m->cores[core];
    bool was_linked = c->link == PEER_LINKED;
    if (c->link == PEER_GONE) return;
    if (err == RF_ERR_FENCED) {
        member_expelled(m, core, err);
        return;
    }
    unpark_all(m, true, core);
    c->link = PEER_NONE;
    c->unanswered = 0;
    c->ready = false;
    c->redial_ns = m->now_ns + REDIAL_NS;
    /* The end of a link proves nothing about a process: that it died says its host's kernel (peer_process_died), or a view.
     * Inside a host it is made again by the higher core; between hosts when there is something to say. */
    bool ended = err == RF_ERR_PEER_DEAD || err == RF_ERR_TIMEOUT || err == RF_ERR_CLOSED;
    bool again =
        ended || err == RF_ERR_EXISTS || err == RF_ERR_NOT_FOUND || err == RF_ERR_AGAIN || err == RF_ERR_OS;
    if ((was_linked || !again) && m->formed) each_op_of(m, core, tell_broken, err);
    bool mine = !m->formed || c->wanted || (same_node(m, core) && core < m->core && core_is_alive(m, core)) ||
                op_waits(m, core);
    set_redial(m, core, again && mine && !c->dead);
    out_log(m, again ? RF_LOG_DEBUG : RF_LOG_WARN, "no link with core %u: %s", core, rf_err_text(err));
}

/* Of the leader that is the first sign of its death: its kernel closes its connections. The engine asks the other voters whether they
 * hear it, and waits for no word of its host. */
void peer_broken(monitor_t *m, rf_core_t core)
{
    bool leads =
        m->agree.state.leader.core == core && m->agree.state.leader.incarnation == m->cores[core].linked;
    if (m->formed && leads && m->cores[core].link == PEER_LINKED)
        agree_death(m, core, AGREEMENT_EVIDENCE_SILENCE);
}

void peer_process_died(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    core_t *c = &m->cores[core];
    if (core != m->core && incarnation == core_life(c)) member_dead(m, core, true);
}

/* Of another host's core all rackfishds tell their own monitors: if each of these spread it, it would be as many messages as there are links. */
void peer_told_died(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    if (core != m->core && incarnation == core_life(&m->cores[core]))
        member_dead(m, core, same_node(m, core));
}

void peer_fail_ops(monitor_t *m, rf_core_t core)
{
    each_op_of(m, core, tell_lost, RF_ERR_PEER_DEAD);
}

static void garbage(monitor_t *m, rf_core_t core, const char *what)
{
    if (m->logged_ns[0] != 0 && m->now_ns - m->logged_ns[0] < RF_NS_PER_S) return;
    m->logged_ns[0] = m->now_ns;
    out_log(m, RF_LOG_WARN, "ignoring %s from core %u: %s", what, core, rf_err_text(RF_ERR_PROTOCOL));
}

void peer_message(monitor_t *m, rf_core_t core, uint8_t type, const uint8_t *bytes, size_t size)
{
    static const struct {
        uint8_t least, exact; /* bytes; exact 0: at least */
        void (*handle)(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
    } requests[] = {
        [PEER_SPAWN - PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(peer_spawn_t), 1, spawn_peer},
        [PEER_SPAWN_CHUNK -
            PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(peer_chunk_t), 0, spawn_peer_chunk},
        [PEER_SPAWN_MORE -
            PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(peer_chunk_t), 1, spawn_peer_more},
        [PEER_SPAWNED -
            PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(rf_client_spawned_t), 1, spawn_peer_spawned},
        [PEER_KILL - PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(rf_kernel_signal_t), 1, kill_peer},
        [PEER_KILLED - PEER_SPAWN] = {sizeof(rf_wire_header_t), 1, kill_peer_killed},
        [PEER_CONNECT - PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(peer_connect_t), 1, connect_peer},
        [PEER_CONNECTED -
            PEER_SPAWN] = {sizeof(rf_wire_header_t) + sizeof(peer_connected_t), 1, connect_peer_connected},
    };
    core_t *c = &m->cores[core];
    if (c->link != PEER_LINKED) return; /* fenced: nothing of it is listened to any more */
    c->heard_ns = m->heard_ns = m->now_ns;
    if (type >= AGREEMENT_TYPE_FIRST && type <= AGREEMENT_TYPE_LAST) {
        if (type == PEER_AGREEMENT_APPEND) heartbeat_led(m);
        if (agree_receive(m, core, type, bytes, size) != RF_OK) garbage(m, core, agreement_type_name(type));
        return;
    }
    if (type >= PEER_SPAWN && type <= PEER_TYPE_LAST) {
        unsigned i = type - PEER_SPAWN;
        if (size < requests[i].least || (requests[i].exact && size != requests[i].least))
            garbage(m, core, "a request of the wrong size");
        else if (m->formed)
            requests[i].handle(m, core, bytes, size);
        return;
    }
    switch (type) {
    case PEER_READY:
        member_ready(m, core);
        break;
    case PEER_HEARTBEAT:
        heartbeat_received(m, core, bytes, size);
        break;
    case PEER_CONTACT: {
        peer_contact_t contact;
        if (size != sizeof contact || !same_node(m, core)) {
            garbage(m, core, "CONTACT");
            break;
        }
        memcpy(&contact, bytes, sizeof contact);
        if (m->boot->n_nodes > 1 && heartbeat_speaker(m) == core) heartbeat_frozen(m, contact.frozen != 0);
        break;
    }
    case PEER_FENCED:
        fence_told(m, core, bytes, size);
        break;
    case PEER_DEATHS:
        member_told(m, core, bytes, size);
        break;
    case PEER_DOMAIN_ENDED:
        end_told(m, core, bytes, size);
        break;
    case PEER_EXPELLED: {
        peer_core_t who;
        if (size != sizeof who) {
            garbage(m, core, "EXPELLED");
            break;
        }
        memcpy(&who, bytes, sizeof who);
        if (who.core == m->core && who.incarnation >= m->incarnation)
            member_expelled(m, core, (rf_err_t)who.err);
        break;
    }
    case PEER_PING:
        if (size == sizeof(peer_ping_t)) peer_send(m, core, PEER_PONG, bytes, size, NULL, 0);
        break;
    case PEER_PONG:
        links_pong(m, core, bytes, size);
        break;
    default:
        garbage(m, core, "a message of no known type");
        break;
    }
}

/* ---- descriptors that come before their message ---- */

/* A place for one more set; NULL: the sender, or all dispatchers together, have too many already. */
static parked_t *parked_place(monitor_t *m, bool peer, uint32_t who)
{
    parked_t *place = NULL;
    unsigned used = 0, own = 0;
    for (unsigned i = 0; i < MONITOR_PARKED_FDS_MAX; i++) {
        parked_t *p = &m->parked[i];
        if (!p->used && !place) place = p;
        used += p->used;
        own += p->used && p->peer == peer && p->who == who;
    }
    bool trusted = peer || m->clients[who].domain == RF_DOMAIN_NONE;
    if (own >= (peer ? PEER_REQUESTS_MAX : MONITOR_CLIENT_REQUESTS_MAX)) return NULL;
    return trusted || used < MONITOR_PARKED_FDS_MAX - PARKED_RESERVED ? place : NULL;
}

void park_fds(monitor_t *m, bool peer, uint32_t who, uint32_t tag, const monitor_event_t *event)
{
    int fds[8];
    bool fits = event->n_fds > 0 && event->n_fds <= MONITOR_FDS_MAX && who != NO_CLIENT;
    parked_t *place = fits ? parked_place(m, peer, who) : NULL;
    memcpy(fds, event->fds, sizeof fds);
    if (!place) {
        out_close_fds(m, fds, event->n_fds <= 8 ? event->n_fds : 8);
        return;
    }
    *place = (parked_t){.used = true, .peer = peer, .who = who, .tag = tag, .n_fds = event->n_fds};
    memcpy(place->fds, fds, event->n_fds * sizeof *fds);
}

unsigned unpark_fds(monitor_t *m, bool peer, uint32_t who, uint32_t tag, int *fds)
{
    for (unsigned i = 0; i < MONITOR_PARKED_FDS_MAX; i++) {
        parked_t *p = &m->parked[i];
        if (!p->used || p->peer != peer || p->who != who || p->tag != tag) continue;
        p->used = false;
        memcpy(fds, p->fds, p->n_fds * sizeof *fds);
        return p->n_fds;
    }
    return 0;
}

void unpark_all(monitor_t *m, bool peer, uint32_t who)
{
    for (unsigned i = 0; i < MONITOR_PARKED_FDS_MAX; i++) {
        parked_t *p = &m->parked[i];
        if (!p->used || p->peer != peer || p->who != who) continue;
        p->used = false;
        out_close_fds(m, p->fds, p->n_fds);
    }
}
