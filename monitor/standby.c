/*
 * One-sided append (doc/agreement.md) between the engine and the links that it needs (lane_links.c): for whom this core keeps a
 * lane in readiness, and what engine and shell say to each other about lanes.
 *
 * Each voter keeps one link to every other voter of another host, over which nobody but that one may write, ready before it is
 * needed: a new leader is granted a lane by one message. A lane is good for one grant: when it is revoked its link is fenced, and another
 * link with fresh memory takes its place.
 *
 *      NONE -- another voter, whose address is known --> DIALLED -- it could be granted --> READY -- link ended --> NONE
 *                                                                                             |                      ^
 *                                                              GRANT of the engine: GRANTED --'--- REVOKED, all taken '
 *
 * A link that ends before it was ready is dialled again after a time that doubles: what keeps it away (locked memory that is refused, a
 * version that differs) may take its time to be mended. One that has been ready is dialled at once.
 */
#include "monitor/state.h"

#define AGAIN_NS     (100 * RF_NS_PER_MS) /* after a link that ended, and between looks for an address */
#define AGAIN_NS_MAX (10 * RF_NS_PER_S)   /* ... after many in a row that were never ready */

static bool enabled(const monitor_t *m)
{
    return m->boot->one_sided && m->boot->n_nodes > 1;
}

static bool votes(const monitor_t *m, rf_core_t core, rf_incarnation_t incarnation)
{
    const agreement_state_t *s = &m->agree.state;
    for (unsigned i = 0; i < s->n_voters; i++) {
        if (s->voters[i].core == core && s->voters[i].incarnation == incarnation) return true;
    }
    return false;
}

static bool serves(const monitor_t *m)
{
    return (m->phase == PHASE_FORMED || m->phase == PHASE_LEAVING) && m->formed &&
           votes(m, m->core, m->incarnation);
}

static agreement_member_t standby_member(const monitor_t *m, rf_core_t core)
{
    return (agreement_member_t){.core = core, .incarnation = m->cores[core].standby.incarnation};
}

static monitor_action_t *lane_action(monitor_t *m, monitor_action_kind_t kind, rf_core_t core)
{
    monitor_action_t *action = out_action(m, kind);
    action->core = core;
    action->incarnation = m->cores[core].standby.incarnation;
    return action;
}

/* ---- what the engine says ---- */

void standby_act(monitor_t *m, const agreement_lane_output_t *out)
{
    for (unsigned i = 0; i < out->n_writes; i++) {
        const agreement_write_t *w = &out->writes[i];
        monitor_action_t *action = out_action(m, MONITOR_DO_LANE_WRITE);
        action->core = w->to.core;
        action->incarnation = w->to.incarnation;
        action->lane = w->id;
        action->number = w->number;
        action->offset = w->offset;
        out_bytes(m, action, w->bytes, w->size, NULL, 0);
    }
    m->lane.again |= out->again;
    if (out->order == AGREEMENT_LANE_KEEP) return;
    core_t *c = &m->cores[out->peer.core];
    bool grant = out->order == AGREEMENT_LANE_GRANT;
    if (grant) {
        c->standby.state = STANDBY_GRANTED;
        c->standby.incarnation = out->peer.incarnation;
    }
    monitor_action_t *action =
        lane_action(m, grant ? MONITOR_DO_LANE_GRANT : MONITOR_DO_LANE_REVOKE, out->peer.core);
    action->lane = out->id;
    action->number = out->term;
    out_log(m, RF_LOG_DEBUG, "lane %llu, of term %llu, for core %u: %s", (unsigned long long)out->id,
            (unsigned long long)out->term, out->peer.core, grant ? "granted" : "taken back");
}

/* ---- what the shell says ---- */

static void tell(monitor_t *m, agreement_lane_event_t lane)
{
    agreement_event_t event = {.kind = AGREEMENT_LANE, .lane = lane};
    agree_lane(m, &event);
}

/* Who is not ready is granted nothing. */
static void unready(monitor_t *m, rf_core_t core, uint64_t again_ns)
{
    standby_t *s = &m->cores[core].standby;
    agreement_member_t peer = standby_member(m, core);
    bool was = s->state >= STANDBY_READY;
    s->state = STANDBY_NONE;
    s->redial_ns = again_ns;
    m->lane.due_ns = m->now_ns;
    if (was) tell(m, (agreement_lane_event_t){.kind = AGREEMENT_LANE_UNREADY, .peer = peer});
}

/* Nobody writes it any more, because the engine wanted it so, or because its link ended. Until its tail has been taken it stays
 * granted: another link would take the place of its memory. */
static void revoked(monitor_t *m, const monitor_event_t *event)
{
    rf_core_t core = event->core;
    agreement_lane_event_t lane = {.kind = AGREEMENT_LANE_REVOKED,
                                   .peer = {.core = core, .incarnation = event->incarnation},
                                   .id = event->lane.id,
                                   .lines = event->lane.lines};
    bool granted = m->cores[core].standby.state == STANDBY_GRANTED;
    if (granted)
        tell(m, (agreement_lane_event_t){.kind = AGREEMENT_LANE_UNREADY, .peer = standby_member(m, core)});
    m->lane.again = false;
    tell(m, lane);
    bool again = m->lane.again; /* REVOKED once more */
    monitor_action_t *action = out_action(m, again ? MONITOR_DO_LANE_REVOKE : MONITOR_DO_LANE_DROP);
    action->core = core;
    action->incarnation = event->incarnation;
    action->lane = event->lane.id;
    if (!granted || again) return;
    m->cores[core].standby.state = STANDBY_NONE;
    m->cores[core].standby.redial_ns = m->lane.due_ns = m->now_ns;
}

/* How long to wait, this time. */
static uint64_t again_ns(standby_t *s)
{
    s->again_ns = s->again_ns == 0 ? AGAIN_NS : 2 * s->again_ns;
    if (s->again_ns > AGAIN_NS_MAX) s->again_ns = AGAIN_NS_MAX;
    return s->again_ns;
}

void standby_event(monitor_t *m, const monitor_event_t *event)
{
    agreement_member_t peer = {.core = event->core, .incarnation = event->incarnation};
    standby_t *s = &m->cores[event->core].standby;
    bool mine = s->incarnation == event->incarnation;
    agreement_lane_event_t lane = {.peer = peer, .id = event->lane.id};
    switch (event->kind) {
    case MONITOR_LANE_READY:
        if (!mine || s->state != STANDBY_DIALLED) return;
        s->state = STANDBY_READY;
        s->again_ns = 0;
        lane.kind = AGREEMENT_LANE_READY;
        tell(m, lane);
        break;
    case MONITOR_LANE_UNREADY:
        if (mine) s->unfit = event->err == RF_ERR_NOT_SUPPORTED;
        if (mine && s->state != STANDBY_NONE && s->state != STANDBY_GRANTED)
            unready(m, event->core, s->unfit ? RF_NEVER : m->now_ns + again_ns(s));
        break;
    case MONITOR_LANE_REVOKED:
        revoked(m, event);
        break;
    case MONITOR_LANE_LINES:
        lane.kind = AGREEMENT_LANE_LINES;
        lane.lines = event->lane.lines;
        tell(m, lane);
        break;
    case MONITOR_LANE_GRANTED:
        lane.kind = AGREEMENT_LANE_GRANTED;
        lane.term = event->lane.number;
        tell(m, lane);
        break;
    case MONITOR_LANE_WRITTEN:
        lane.kind = AGREEMENT_LANE_WRITTEN;
        lane.number = event->lane.number;
        lane.err = event->err;
        tell(m, lane);
        break;
    default:
        break;
    }
}

bool standby_is_unfit(const monitor_t *m)
{
    bool unfit = false;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (core == m->core || same_node(m, core) || !core_is_alive(m, core) || !votes(m, core, core_life(c)))
            continue;
        if (!c->standby.unfit) return false;
        unfit = true;
    }
    return unfit;
}

/* ---- links in readiness ---- */

static void keep_ready(monitor_t *m, rf_core_t core, bool serving)
{
    core_t *c = &m->cores[core];
    standby_t *s = &c->standby;
    bool wanted = serving && core != m->core && !same_node(m, core) && core_is_alive(m, core) &&
                  votes(m, core, core_life(c));
    bool useless = !wanted || s->incarnation != core_life(c);
    if (useless && (s->state == STANDBY_DIALLED || s->state == STANDBY_READY)) {
        lane_action(m, MONITOR_DO_LANE_DROP, core);
        unready(m, core, m->now_ns);
    }
    if (s->incarnation != core_life(c) &&
        (s->again_ns != 0 || s->unfit)) { /* of its next life nothing is known */
        s->again_ns = 0;
        s->unfit = false;
        s->redial_ns = m->now_ns;
    }
    if (!wanted || s->state != STANDBY_NONE) return;
    if (!c->address[0] || m->now_ns < s->redial_ns) {
        uint64_t at_ns = c->address[0] ? s->redial_ns : m->now_ns + AGAIN_NS;
        if (at_ns < m->lane.due_ns) m->lane.due_ns = at_ns;
        return;
    }
    s->state = STANDBY_DIALLED;
    s->incarnation = core_life(c);
    monitor_action_t *action = lane_action(m, MONITOR_DO_LANE_STANDBY, core);
    out_bytes(m, action, c->address, strlen(c->address) + 1, NULL, 0);
}

void standby_tick(monitor_t *m)
{
    if (!enabled(m) || m->now_ns < m->lane.due_ns) return;
    bool serving = serves(m);
    m->lane.due_ns = RF_NEVER;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) keep_ready(m, core, serving);
    if (m->lane.due_ns <= m->now_ns) m->out->more = true; /* what was given up is dialled anew */
}

void standby_note_members(monitor_t *m)
{
    m->lane.due_ns = m->now_ns;
}

uint64_t standby_next_ns(const monitor_t *m)
{
    return enabled(m) ? m->lane.due_ns : RF_NEVER;
}

void standby_look(const monitor_t *m, monitor_output_t *out)
{
    out->lane_number = enabled(m) ? agreement_lane_next(m->agree.engine, &out->lane_offset) : 0;
}
