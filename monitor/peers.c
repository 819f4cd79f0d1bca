/*
 * Links to other monitors. Inside a host there is a full mesh from the start: the higher core dials the lower. Between
 * hosts a link is dialled when there is first something to say, and stays.
 */
#include "monitor/state.h"

static void dial(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    c->link = PEER_DIALING;
    c->wanted = c->redial = false;
    monitor_action_t *action = out_action(m, MONITOR_DO_DIAL);
    action->core = core;
    out_bytes(m, action, c->address, strlen(c->address) + 1, NULL, 0);
}

rf_err_t peer_need(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    rf_assert(core != m->core);
    if (c->dead || c->link == PEER_GONE) return RF_ERR_PEER_DEAD;
    if (c->link == PEER_LINKED) return RF_OK;
    if (c->link == PEER_DIALING || m->now_ns < c->redial_ns) return RF_ERR_AGAIN;
    if (same_node(m, core)) {
        if (core < m->core) dial(m, core);
    } else if (c->address[0]) {
        dial(m, core);
    } else {
        c->wanted = true;
    }
    return RF_ERR_AGAIN;
}

void peer_address(monitor_t *m, rf_core_t core, const char *address)
{
    core_t *c = &m->cores[core];
    memcpy(c->address, address, strlen(address) + 1);
    if (c->wanted) peer_need(m, core);
}

void peer_answered(monitor_t *m, op_t *op)
{
    if (!op->counted) return;
    op->counted = false;
    if (m->cores[op->peer].unanswered > 0) m->cores[op->peer].unanswered--;
}

static void each_op_of(monitor_t *m, rf_core_t core, bool up)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        if (op->kind == OP_FREE || op->peer != core) continue;
        const op_class_t *class = op_class_of(op);
        if (up && class->peer_up)
            class->peer_up(m, op);
        else if (!up && class->peer_dead)
            class->peer_dead(m, op);
    }
}

void peer_up(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    if (c->dead || c->link == PEER_GONE) { /* it comes too late: the machine has gone on without it */
        peer_core_t who = {.core = core, .incarnation = 1, .err = RF_ERR_PEER_DEAD};
        peer_send(m, core, PEER_EXPELLED, &who, sizeof who, NULL, 0);
        out_action(m, MONITOR_DO_FENCE_PEER)->core = core;
        return;
    }
    out_log(m, RF_LOG_DEBUG, "linked with core %u", core);
    c->link = PEER_LINKED;
    c->redial = false;
    c->heard_ns = m->now_ns;
    c->unanswered = 0;
    c->ping_sent_ns = 0;
    agree_room(m, core);
    member_linked(m, core);
    each_op_of(m, core, true);
    member_tell_deaths(m, core);
    if (m->formed && !m->quorum) end_tell_all(m, core);
}

/* What was dropped while it did not read: agreement makes its messages again, and news are told again. */
void peer_room(monitor_t *m, rf_core_t core)
{
    if (m->cores[core].link != PEER_LINKED) return;
    agree_room(m, core);
    member_tell_deaths(m, core);
    if (m->formed && !m->quorum) end_tell_all(m, core);
}

void peer_down(monitor_t *m, rf_core_t core, rf_err_t err)
{
    core_t *c = &m->cores[core];
    bool was_linked = c->link == PEER_LINKED;
    if (c->dead || c->link == PEER_GONE) return;
    if (err == RF_ERR_FENCED) {
        member_expelled(m, core, err);
        return;
    }
    unpark_all(m, true, core);
    c->unanswered = 0;
    c->ready = false;
    /* Inside a host the end of a link that was there is evidence of a death: the kernel says so at once. */
    bool ended = err == RF_ERR_PEER_DEAD || err == RF_ERR_TIMEOUT || err == RF_ERR_CLOSED;
    if (was_linked && ended && same_node(m, core)) {
        c->link = PEER_GONE;
        member_dead(m, core, err, true, true);
        return;
    }
    if (was_linked && ended && m->formed) { /* a suspicion; it may be linked with again */
        member_silent(m, core, err);
        peer_fail_ops(m, core);
    }
    /* A dial that failed says nothing of the peer, who may be slow, or dial me: tried again, while the operations that
     * wait have deadlines of their own. What trying again cannot change (a wrong key, another version) ends them. */
    c->link = PEER_NONE;
    c->redial_ns = m->now_ns + REDIAL_NS;
    c->redial = ended || err == RF_ERR_EXISTS || err == RF_ERR_NOT_FOUND || err == RF_ERR_AGAIN;
    out_log(m, c->redial ? RF_LOG_DEBUG : RF_LOG_WARN, "no link with core %u: %s", core, rf_err_text(err));
    if (!c->redial && m->formed) each_op_of(m, core, false);
}

void peer_fail_ops(monitor_t *m, rf_core_t core)
{
    each_op_of(m, core, false);
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
    if (c->dead || c->link != PEER_LINKED) return; /* fenced: nothing of it is listened to any more */
    c->heard_ns = m->now_ns;
    if (type >= AGREEMENT_TYPE_FIRST && type <= AGREEMENT_TYPE_LAST) {
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
        break; /* heard, that is all */
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
