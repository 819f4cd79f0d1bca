/*
 * Own proposals, from the caller's event until they are answered, and what the leader does with any proposal.
 *
 * A proposal that no leader was sent may be answered "nothing happened". One that was sent may be in a log: if the quorum
 * is lost meanwhile its outcome is unknown, and that is remembered, so that a repetition is never told that nothing
 * happened either. A leader that has no room, or does not know yet what is executed, has it sent again: what a proposer
 * has sent once may arrive at any time, so "never" is said only of what the sessions would refuse for ever.
 */
#include "consensus/engine.h"

/* ---- the map ---- */

proposal_t *proposal_find(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned place = e->proposal_map[proposal_map_find(e, session, sequence)];
    return place != 0 ? proposal_at(e, place) : NULL;
}

/* The one that stands at `hole` of the map. */
static inline void forget(agreement_t *e, unsigned hole)
{
    uint16_t place = e->proposal_map[hole];
    proposal_t *p = proposal_at(e, place);
    *(p->before ? &proposal_at(e, p->before)->after : &e->oldest) = p->after;
    *(p->after ? &proposal_at(e, p->after)->before : &e->newest) = p->before;
    if (e->unsent == place) e->unsent = p->after;
    e->n_refused -= p->refused;
    e->n_proposals--;
    p->after = e->free_proposal;
    e->free_proposal = place;
    for (unsigned mask = proposal_map_mask(e), at = (hole + 1) & mask; e->proposal_map[at] != 0;
         at = (at + 1) & mask) {
        const proposal_t *q = proposal_at(e, e->proposal_map[at]);
        if (((at - proposal_map_start(e, q->session, q->sequence)) & mask) < ((at - hole) & mask)) continue;
        e->proposal_map[hole] = e->proposal_map[at];
        hole = at;
    }
    e->proposal_map[hole] = 0;
}

/* ---- what may be in the log though its proposer was told "unknown": open addressing ---- */

/* Half as many places as the map has; half of them used. */
static unsigned unknown_mask(const agreement_t *e)
{
    return proposal_map_mask(e) / 2;
}

static unsigned unknown_start(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    return proposal_map_start(e, session, sequence) / 2;
}

static unsigned unknown_find(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned at = unknown_start(e, session, sequence);
    while (e->unknown[at].session != 0 &&
           (e->unknown[at].session != session || e->unknown[at].sequence != sequence))
        at = (at + 1) & unknown_mask(e);
    return at;
}

/* An opened session whose opening has been applied here and that is no more: nothing of it is ever executed. */
static bool has_ended(const agreement_t *e, uint64_t session)
{
    return (session & SESSION_OPENED) && (session & ~SESSION_OPENED) <= e->applied &&
           !session_find(e, session);
}

/* Of that session all up to that sequence. Of as many sessions as are kept so, the oldest becomes one of the old ones. */
static void unknown_add_until(agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned i = 0, oldest = e->unknown_until[0].session & SESSION_OPENED ? 0 : 1; /* never the own one */
    for (; i < e->n_unknown_until && e->unknown_until[i].session != session; i++) {
        bool opened = e->unknown_until[i].session & SESSION_OPENED;
        if (opened && e->unknown_until[i].session < e->unknown_until[oldest].session) oldest = i;
    }
    if (i == e->n_unknown_until) {
        if (i < UNKNOWN_SESSIONS_MAX) {
            e->n_unknown_until++;
        } else {
            i = oldest;
            if (e->unknown_until[i].session > e->unknown_old) e->unknown_old = e->unknown_until[i].session;
        }
        e->unknown_until[i] = (unknown_t){.session = session};
    }
    if (e->unknown_until[i].sequence < sequence) e->unknown_until[i].sequence = sequence;
}

/* Makes room: what is known one by one becomes one for each session that has not ended. */
static void unknown_compact(agreement_t *e)
{
    unsigned n = 0;
    for (unsigned i = 0; i < e->n_unknown_until; i++) {
        if (!has_ended(e, e->unknown_until[i].session)) e->unknown_until[n++] = e->unknown_until[i];
    }
    e->n_unknown_until = n;
    for (unsigned at = 0; at <= unknown_mask(e); at++) {
        unknown_t u = e->unknown[at];
        e->unknown[at] = (unknown_t){0};
        if (u.session != 0 && !has_ended(e, u.session)) unknown_add_until(e, u.session, u.sequence);
    }
    e->n_unknown = 0;
}

static void unknown_add(agreement_t *e, uint64_t session, uint64_t sequence)
{
    if (e->n_unknown > unknown_mask(e) / 2) unknown_compact(e);
    unsigned at = unknown_find(e, session, sequence);
    if (e->unknown[at].session != 0) return;
    e->unknown[at] = (unknown_t){.session = session, .sequence = sequence};
    e->n_unknown++;
}

static void unknown_remove(agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned mask = unknown_mask(e), hole = unknown_find(e, session, sequence);
    if (e->unknown[hole].session == 0) return;
    for (unsigned at = (hole + 1) & mask; e->unknown[at].session != 0; at = (at + 1) & mask) {
        unsigned start = unknown_start(e, e->unknown[at].session, e->unknown[at].sequence);
        if (((at - start) & mask) < ((at - hole) & mask)) continue;
        e->unknown[hole] = e->unknown[at];
        hole = at;
    }
    e->unknown[hole] = (unknown_t){0};
    e->n_unknown--;
}

bool proposal_may_be_in_log(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    if (e->n_unknown > 0 && e->unknown[unknown_find(e, session, sequence)].session != 0) return true;
    for (unsigned i = 0; i < e->n_unknown_until; i++) {
        if (e->unknown_until[i].session == session && sequence <= e->unknown_until[i].sequence) return true;
    }
    return (session & SESSION_OPENED) && session <= e->unknown_old;
}

/* ---- answers ---- */

void proposal_answer(agreement_t *e, uint64_t session, uint64_t sequence, rf_err_t err, uint64_t value)
{
    if (e->n_unknown > 0) unknown_remove(e, session, sequence);
    if (e->n_proposals == 0) return;
    unsigned at = proposal_map_find(e, session, sequence);
    if (e->proposal_map[at] == 0) return;
    forget(e, at);
    engine_complete_proposal(e, session, sequence, err, value);
}

/* RF_OK: take it on. RF_ERR_EXISTS: `value` and `err` answer it. Else: refused, and nothing happened. */
static rf_err_t check(const agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                      size_t size, rf_err_t *err, uint64_t *value)
{
    if (size > e->params.entry_max || sequence == 0 || session == 0) return RF_ERR_INVALID;
    if (e->expelled)
        return proposal_may_be_in_log(e, session, sequence) ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_SESSION;
    if (!e->formed || !member_in(e, e->params.self)) return RF_ERR_FORMING;
    bool exists = session_exists(e, session);
    const session_t *s = session_find(e, session);
    rf_err_t used = session_check(s, sequence);
    if (exists && used == RF_ERR_EXISTS) { /* a repetition: answered, not executed (Raft 6.3) */
        const result_t *r = session_result(s, sequence);
        if (!r && session == e->own_session) r = &e->own_results[sequence % AGREEMENT_WINDOW];
        bool kept = r && r->sequence == sequence;
        *err = kept ? (rf_err_t)r->err : RF_ERR_UNKNOWN_OUTCOME;
        *value = kept ? r->value : 0;
        return RF_ERR_EXISTS;
    }
    bool may_be = proposal_may_be_in_log(e, session, sequence);
    if (exists && used == RF_ERR_SESSION) return may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_SESSION;
    if (!e->quorum) return may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_NO_QUORUM;
    /* One that was opened may be known at the leader, not here yet: it knows. */
    if (!exists && session == e->own_session) return RF_ERR_SESSION;
    if (kind == AGREEMENT_ENTRY_VIEW && session != e->own_session) return RF_ERR_SESSION;
    if (e->n_proposals == e->params.proposals_max) return may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_AGAIN;
    return RF_OK;
}

void proposal_start(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size)
{
    unsigned at = proposal_map_find(e, session, sequence);
    if (e->proposal_map[at] != 0) {
        engine_ignore(e, "ignoring: that proposal is under way");
        return;
    }
    rf_err_t err = RF_OK;
    uint64_t value = 0;
    rf_err_t verdict = check(e, kind, session, sequence, size, &err, &value);
    if (verdict != RF_OK) {
        engine_complete_proposal(e, session, sequence, verdict == RF_ERR_EXISTS ? err : verdict, value);
        return;
    }
    proposal_t *p = proposal_new(e, at, kind, session, sequence, bytes, size);
    p->sent = false;
    p->ever_sent = proposal_may_be_in_log(e, session, sequence);
    if (!leads(e)) {
        proposal_unsend_one(e, p);
        return;
    }
    /* Straight into the log, unless others wait for room before it, or it may be in it already. */
    if (kind == AGREEMENT_ENTRY_VIEW || p->ever_sent || e->committed < e->term_index || e->transferring ||
        (e->due & DUE_PROPOSALS) || log_append(e, kind, session, sequence, bytes, size) != RF_OK) {
        proposal_unsend_one(e, p);
        return;
    }
    p->sent = p->ever_sent = true;
}

void proposal_change(agreement_t *e, const agreement_event_t *event)
{
    struct {
        wire_request_t head;
        wire_member_t members[AGREEMENT_ENTRY_MAX / sizeof(wire_member_t)];
    } body = {.head = {.n_join = (uint16_t)event->change.n_join,
                       .n_leave = (uint16_t)event->change.n_leave,
                       .flags = event->change.expel ? REQUEST_EXPEL : 0}};
    unsigned n = event->change.n_join + event->change.n_leave;
    uint64_t session = e->own_session;
    bool sense =
        event->change.n_join <= AGREEMENT_CHANGES_MAX && event->change.n_leave <= AGREEMENT_CHANGES_MAX &&
        n > 0 &&
        /* beside two full sets of voters in one entry; who is in leaves by the same */
        sizeof(wire_view_t) + (2 * AGREEMENT_VOTERS_MAX + 2 * event->change.n_join + event->change.n_leave) *
                                  sizeof(wire_member_t) <=
            e->params.entry_max &&
        2 * event->change.n_join + event->change.n_leave <= AGREEMENT_CHANGES_MAX;
    for (unsigned i = 0; sense && i < event->change.n_join; i++) {
        sense = event->change.join[i] < e->params.n_cores;
        for (unsigned k = 0; sense && k < i; k++) sense = event->change.join[k] != event->change.join[i];
        body.members[i] = (wire_member_t){.core = event->change.join[i]};
    }
    for (unsigned i = 0; sense && i < event->change.n_leave; i++) {
        sense = event->change.leave[i].core < e->params.n_cores;
        body.members[event->change.n_join + i] = to_wire(event->change.leave[i], 0);
    }
    if (!sense) {
        engine_complete_proposal(e, session, event->change.sequence, RF_ERR_INVALID, 0);
        return;
    }
    proposal_start(e, AGREEMENT_ENTRY_VIEW, session, event->change.sequence, &body,
                   sizeof body.head + n * sizeof(wire_member_t));
}

/* ---- at the leader ---- */

static bool in_uncommitted_log(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    for (uint64_t i = e->last; i > e->applied; i--) {
        const wire_entry_t *entry = log_at(e, i);
        if (entry->session == session && entry->sequence == sequence) return true;
    }
    return false;
}

/* A change that this leader is to carry out, or is carrying out: it will be, whatever becomes of its session's window meanwhile (apply.c),
 * so "never" may not be said of it. */
static bool holds_change(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    const config_t *c = config_newest(e);
    if (defect(e, AGREEMENT_DEFECT_CHANGE_DENIED) &&
        session_check(session_find(e, session), sequence) == RF_ERR_SESSION)
        return false;
    return (e->request.used && e->request.session == session && e->request.sequence == sequence) ||
           (c->joint && c->session == session && c->sequence == sequence) ||
           in_uncommitted_log(e, session, sequence);
}

static void order_change(agreement_t *e, const wire_proposal_t *p, const uint8_t *bytes,
                         wire_refused_t *refused)
{
    wire_request_t head;
    wire_member_t m;
    memcpy(&head, bytes, sizeof head);
    if (e->request.used) {
        refused->why = REFUSED_FULL;
        return;
    }
    e->request.used = true;
    e->request.session = p->session;
    e->request.sequence = p->sequence;
    e->request.expel = head.flags & REQUEST_EXPEL;
    e->request.n_join = head.n_join;
    e->request.n_leave = head.n_leave;
    const uint8_t *at = bytes + sizeof head;
    for (unsigned i = 0; i < head.n_join; i++, at += sizeof m) {
        memcpy(&m, at, sizeof m);
        e->request.join[i] = m.core;
    }
    for (unsigned i = 0; i < head.n_leave; i++, at += sizeof m) {
        memcpy(&m, at, sizeof m);
        e->request.leave[i] = from_wire(m);
    }
    e->due |= DUE_CHANGE;
    refused->why = REFUSED_HELD;
}

/* What earlier leaders may have committed is in this log, but not applied: a command is taken that cannot be decided by any of it, and is
 * none of it. Whether its session lives is decided where it is applied. */
static bool may_go_behind(const agreement_t *e, const wire_proposal_t *p)
{
    const session_t *s = session_find(e, p->session);
    return p->kind == AGREEMENT_ENTRY_COMMAND && session_exists(e, p->session) &&
           session_check(s, p->sequence) == RF_OK;
}

/* A session that has not begun in what is applied here, and may in what is not: a later leader, of which this one has not heard, may have
 * opened it, or let its member in. An opened one's id is its index; incarnations rise. */
static bool session_to_come(const agreement_t *e, uint64_t id)
{
    if (id & SESSION_OPENED) return (id & ~SESSION_OPENED) > e->applied;
    rf_core_t core = (rf_core_t)(id & 0xffff);
    return id >> 48 == 0 && core < e->params.n_cores &&
           (rf_incarnation_t)(id >> 16) > member_incarnation(e, core);
}

/* Decides from what is applied: so only when all that earlier leaders may have committed is. */
void proposal_order(agreement_t *e, const wire_proposal_t *p, const uint8_t *bytes, wire_refused_t *refused)
{
    *refused = (wire_refused_t){.session = p->session, .sequence = p->sequence};
    if (!leads(e) || e->transferring) {
        refused->why = leads(e) ? REFUSED_FULL : REFUSED_NOT_LEADER;
        return;
    }
    if (p->kind == AGREEMENT_ENTRY_VIEW && holds_change(e, p->session, p->sequence)) {
        refused->why = REFUSED_HELD;
        return;
    }
    if (e->committed < e->term_index || e->applied < e->term_index) {
        if (in_uncommitted_log(e, p->session, p->sequence)) {
            refused->why = REFUSED_HELD; /* those behind it are not held up */
            return;
        }
        if (!may_go_behind(e, p)) {
            refused->why = REFUSED_FULL;
            refused->value = 1;
            return;
        }
    }
    const session_t *s = session_find(e, p->session);
    rf_err_t used = session_check(s, p->sequence);
    if (!session_exists(e, p->session) && session_to_come(e, p->session)) {
        refused->why = REFUSED_FULL;
    } else if (!session_exists(e, p->session)) {
        refused->why = REFUSED_ERR;
        refused->err = RF_ERR_SESSION;
    } else if (used == RF_ERR_SESSION) {
        refused->why = REFUSED_ERR;
        refused->err = RF_ERR_SESSION;
    } else if (used == RF_ERR_EXISTS) {
        const result_t *r = session_result(s, p->sequence);
        bool kept = r && r->sequence == p->sequence;
        if (!r && p->session != e->own_session) { /* a member's own: its entry, or a snapshot, tells it */
            refused->why = REFUSED_HELD;
            return;
        }
        refused->why = REFUSED_ANSWER;
        refused->err = kept ? r->err : RF_ERR_UNKNOWN_OUTCOME;
        refused->value = kept ? r->value : 0;
    } else if (p->kind == AGREEMENT_ENTRY_VIEW) {
        order_change(e, p, bytes, refused);
    } else if (p->again && in_uncommitted_log(e, p->session, p->sequence)) {
        refused->why = REFUSED_HELD;
    } else if (log_append(e, (agreement_entry_kind_t)p->kind, p->session, p->sequence, bytes, p->size) !=
               RF_OK) {
        refused->why = REFUSED_FULL;
    }
}

/* ---- the epilogue ---- */

/* The leader says never; but it may have been executed before, and its entry be on the way here. */
void proposal_finish_refused(agreement_t *e)
{
    bool waiting = false;
    for (unsigned place = e->n_refused > 0 ? e->oldest : 0, after; place != 0; place = after) {
        const proposal_t *p = proposal_at(e, place);
        after = p->after;
        if (!p->refused) continue;
        if (p->refused_at > e->applied || completion_room(e) == 0) {
            waiting = true;
            continue;
        }
        bool unknown = p->loads != e->n_loads || proposal_may_be_in_log(e, p->session, p->sequence);
        proposal_answer(e, p->session, p->sequence,
                        unknown && p->err == RF_ERR_SESSION ? RF_ERR_UNKNOWN_OUTCOME : (rf_err_t)p->err, 0);
    }
    if (!waiting) e->due &= ~(uint32_t)DUE_REFUSED;
}

void proposal_refuse(agreement_t *e, proposal_t *p, uint32_t err, uint64_t applied)
{
    rf_assert(!p->refused && err < RF_ERR_COUNT);
    p->refused = true;
    p->err = (uint16_t)err;
    p->refused_at = applied;
    e->n_refused++;
    e->due |= DUE_REFUSED;
}

static uint16_t place_of(const agreement_t *e, const proposal_t *p)
{
    return p->after ? proposal_at(e, p->after)->before : e->newest;
}

void proposal_unsend_one(agreement_t *e, proposal_t *p)
{
    p->sent = false;
    if (e->unsent == 0 || p->order < proposal_at(e, e->unsent)->order) e->unsent = place_of(e, p);
    e->due |= DUE_PROPOSALS;
}

void proposal_unsend(agreement_t *e)
{
    for (unsigned place = e->oldest; place != 0; place = proposal_at(e, place)->after)
        proposal_at(e, place)->sent = false; /* those refused: as well, they are not sent */
    e->unsent = e->oldest;
    if (e->n_proposals > 0) e->due |= DUE_PROPOSALS;
}

void proposal_unsend_overdue(agreement_t *e)
{
    for (unsigned place = e->oldest; place != 0; place = proposal_at(e, place)->after) {
        proposal_t *p = proposal_at(e, place);
        if (!p->refused && p->sent && add_ns(p->sent_ns, e->params.resend_ns) <= e->now_ns)
            proposal_unsend_one(e, p);
    }
}

void proposal_lead(agreement_t *e)
{
    proposal_unsend(e);
}

void proposal_fail(agreement_t *e)
{
    while (e->oldest != 0 && completion_room(e) > 0) {
        const proposal_t *p = proposal_at(e, e->oldest);
        bool may_be = p->ever_sent || proposal_may_be_in_log(e, p->session, p->sequence);
        uint64_t session = p->session, sequence = p->sequence;
        forget(e, proposal_map_find(e, session, sequence));
        if (may_be) unknown_add(e, session, sequence);
        engine_complete_proposal(e, session, sequence, may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_NO_QUORUM, 0);
    }
}

/* Those whose entries went by in a snapshot: their results are not known here. */
void proposal_after_load(agreement_t *e)
{
    e->due &= ~(uint32_t)DUE_LOADED;
    for (unsigned place = e->oldest, after; place != 0; place = after) {
        if (completion_room(e) == 0) {
            e->due |= DUE_LOADED;
            e->output.more = true;
            return;
        }
        const proposal_t *p = proposal_at(e, place);
        after = p->after;
        const session_t *s = session_find(e, p->session);
        rf_err_t used = session_check(s, p->sequence);
        if (used == RF_OK) continue;
        const result_t *r = used == RF_ERR_EXISTS ? session_result(s, p->sequence) : NULL;
        bool kept = r && r->sequence == p->sequence;
        proposal_answer(e, p->session, p->sequence, kept ? (rf_err_t)r->err : RF_ERR_UNKNOWN_OUTCOME,
                        kept ? r->value : 0);
    }
}

bool proposal_overdue(const agreement_t *e, uint64_t since_ns)
{
    if (e->role == AGREEMENT_ROLE_LEARNER) { /* it hears nothing as long as nothing happens */
        uint64_t oldest = e->oldest != 0 ? proposal_at(e, e->oldest)->since_ns : RF_NEVER;
        for (unsigned i = 0; i < AGREEMENT_READS_MAX && e->n_reads > 0; i++) {
            if (e->reads[i].used) earlier(&oldest, e->reads[i].since_ns);
        }
        if (oldest == RF_NEVER) return false;
        if (oldest > since_ns) since_ns = oldest;
    }
    return e->now_ns >= add_ns(since_ns, 3 * e->params.election_ns);
}

/* The oldest that is to be sent. */
proposal_t *proposal_next_unsent(agreement_t *e)
{
    for (; e->unsent != 0; e->unsent = proposal_at(e, e->unsent)->after) {
        proposal_t *p = proposal_at(e, e->unsent);
        if (!p->sent && !p->refused) return p;
    }
    return NULL;
}
