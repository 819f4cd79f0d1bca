/*
 * Own proposals, from the caller's event until they are answered, and what the leader does with any proposal.
 *
 * A proposal that no leader was sent may be answered "nothing happened". One that was sent may be in a log: if the quorum
 * is lost meanwhile its outcome is unknown, and that is remembered, so that a repetition is never told that nothing
 * happened either. A leader that has no room, or does not know yet what is executed, has it sent again: what a proposer
 * has sent once may arrive at any time, so "never" is said only of what the sessions would refuse for ever.
 */
#include "consensus/engine.h"

proposal_t *proposal_at(const agreement_t *e, unsigned i)
{
    return (proposal_t *)(void *)(e->proposals + (size_t)i * e->proposal_stride);
}

/* ---- the map: open addressing by session and sequence; place + 1 ---- */

static unsigned map_start(uint64_t session, uint64_t sequence)
{
    return (unsigned)((sequence * 0x9e3779b97f4a7c15ull + session) >>
                      56); /* apart: removal walks over neighbours */
}

static unsigned map_find(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned at = map_start(session, sequence);
    for (; e->proposal_map[at] != 0; at = (at + 1) & 255) {
        const proposal_t *p = proposal_at(e, e->proposal_map[at] - 1u);
        if (p->sequence == sequence && p->session == session) return at;
    }
    return 256;
}

proposal_t *proposal_find(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned at = map_find(e, session, sequence);
    return at < 256 ? proposal_at(e, e->proposal_map[at] - 1u) : NULL;
}

static void forget(agreement_t *e, proposal_t *p)
{
    unsigned hole = map_find(e, p->session, p->sequence);
    p->used = false;
    e->n_proposals--;
    e->free_proposals[e->params.proposals_max - e->n_proposals - 1] = e->proposal_map[hole];
    for (unsigned at = (hole + 1) & 255; e->proposal_map[at] != 0; at = (at + 1) & 255) {
        const proposal_t *q = proposal_at(e, e->proposal_map[at] - 1u);
        if (((at - map_start(q->session, q->sequence)) & 255) < ((at - hole) & 255)) continue;
        e->proposal_map[hole] = e->proposal_map[at];
        hole = at;
    }
    e->proposal_map[hole] = 0;
}

static proposal_t *take(agreement_t *e, uint64_t session, uint64_t sequence)
{
    if (e->n_proposals == e->params.proposals_max) return NULL;
    unsigned at = map_start(session, sequence);
    while (e->proposal_map[at] != 0) at = (at + 1) & 255;
    uint8_t place = e->free_proposals[e->params.proposals_max - e->n_proposals - 1];
    e->n_proposals++;
    e->proposal_map[at] = place;
    return proposal_at(e, place - 1u);
}

/* ---- what may be in the log though its proposer was told "unknown" ---- */

static unsigned unknown_find(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned i = 0;
    while (i < e->n_unknown && (e->unknown[i].session != session || e->unknown[i].sequence != sequence)) i++;
    return i;
}

static void unknown_add(agreement_t *e, uint64_t session, uint64_t sequence)
{
    if (unknown_find(e, session, sequence) < e->n_unknown) return;
    if (e->n_unknown == UNKNOWN_MAX) {
        e->unknown_all = true;
        return;
    }
    e->unknown[e->n_unknown++] = (unknown_t){.session = session, .sequence = sequence};
}

static bool may_be_in_log(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    return e->unknown_all || unknown_find(e, session, sequence) < e->n_unknown;
}

/* ---- answers ---- */

static void answer(agreement_t *e, uint64_t session, uint64_t sequence, rf_err_t err, uint64_t value)
{
    rf_assert(completion_room(e) > 0);
    agreement_completion_t *c = &e->output.completions[e->output.n_completions++];
    c->kind = AGREEMENT_COMPLETED_PROPOSAL;
    c->session = session;
    c->sequence = sequence;
    c->cookie = 0;
    c->err = err;
    c->value = value;
}

void proposal_answer(agreement_t *e, uint64_t session, uint64_t sequence, rf_err_t err, uint64_t value)
{
    if (e->n_unknown > 0) {
        unsigned i = unknown_find(e, session, sequence);
        if (i < e->n_unknown) e->unknown[i] = e->unknown[--e->n_unknown];
    }
    if (e->n_proposals == 0) return;
    proposal_t *p = proposal_find(e, session, sequence);
    if (!p) return;
    forget(e, p);
    answer(e, session, sequence, err, value);
}

/* RF_OK: take it on. RF_ERR_EXISTS: `value` and `err` answer it. Else: refused, and nothing happened. */
static rf_err_t check(const agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                      size_t size, rf_err_t *err, uint64_t *value)
{
    if (size > e->params.entry_max || sequence == 0 || session == 0) return RF_ERR_INVALID;
    if (e->expelled) return may_be_in_log(e, session, sequence) ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_SESSION;
    if (!e->formed || !member_in(e, e->params.self)) return RF_ERR_FORMING;
    bool exists = session_exists(e, session);
    const session_t *s = session_find(e, session);
    rf_err_t used = session_check(s, sequence);
    if (exists && used == RF_ERR_EXISTS) { /* a repetition: answered, not executed (Raft 6.3) */
        const result_t *r = session_result(e, s, sequence);
        if (!r && session == agreement_own_session(e)) r = &e->own_results[sequence % AGREEMENT_WINDOW];
        bool kept = r && r->sequence == sequence;
        *err = kept ? (rf_err_t)r->err : RF_ERR_UNKNOWN_OUTCOME;
        *value = kept ? r->value : 0;
        return RF_ERR_EXISTS;
    }
    bool may_be = may_be_in_log(e, session, sequence);
    if (exists && used == RF_ERR_SESSION) return may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_SESSION;
    if (!e->quorum) return may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_NO_QUORUM;
    /* One that was opened may be known at the leader, not here yet: it knows. */
    if (!exists && session == agreement_own_session(e)) return RF_ERR_SESSION;
    if (kind == AGREEMENT_ENTRY_VIEW && session != agreement_own_session(e)) return RF_ERR_SESSION;
    if (e->n_proposals == e->params.proposals_max) return may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_AGAIN;
    return RF_OK;
}

void proposal_start(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size)
{
    if (e->n_proposals > 0 && proposal_find(e, session, sequence)) {
        engine_ignore(e, "ignoring: that proposal is under way");
        return;
    }
    rf_err_t err = RF_OK;
    uint64_t value = 0;
    rf_err_t verdict = check(e, kind, session, sequence, size, &err, &value);
    if (verdict != RF_OK) {
        answer(e, session, sequence, verdict == RF_ERR_EXISTS ? err : verdict, value);
        return;
    }
    proposal_t *p = take(e, session, sequence);
    p->used = true;
    p->sent = p->refused = false;
    p->ever_sent = e->n_unknown > 0 && may_be_in_log(e, session, sequence);
    p->kind = (uint16_t)kind;
    p->size = (uint16_t)size;
    p->session = session;
    p->sequence = sequence;
    p->since_ns = e->now_ns;
    p->loads = e->n_loads;
    p->order = ++e->proposal_order;
    if (size > 0) memcpy(p->bytes, bytes, size);
    if (!leads(e)) {
        e->due |= DUE_PROPOSALS;
        return;
    }
    /* Straight into the log, unless others wait for room before it, or it may be in it already. */
    if (kind == AGREEMENT_ENTRY_VIEW || p->ever_sent || e->committed < e->term_index || e->transferring ||
        (e->due & DUE_PROPOSALS) || log_append(e, kind, session, sequence, bytes, size) != RF_OK) {
        e->due |= DUE_PROPOSALS;
        return;
    }
    p->sent = p->ever_sent = true;
}

void proposal_change(agreement_t *e, const agreement_event_t *event)
{
    struct {
        wire_request_t head;
        wire_member_t members[AGREEMENT_ENTRY_MAX / sizeof(wire_member_t)];
    } body = {.head = {.n_join = (uint16_t)event->change.n_join, .n_leave = (uint16_t)event->change.n_leave}};
    unsigned n = event->change.n_join + event->change.n_leave;
    uint64_t session = agreement_own_session(e);
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
        answer(e, session, event->change.sequence, RF_ERR_INVALID, 0);
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

static void order_change(agreement_t *e, const wire_proposal_t *p, const uint8_t *bytes,
                         wire_refused_t *refused)
{
    const config_t *c = config_newest(e);
    wire_request_t head;
    wire_member_t m;
    memcpy(&head, bytes, sizeof head);
    if ((e->request.used && e->request.session == p->session && e->request.sequence == p->sequence) ||
        (c->joint && c->session == p->session && c->sequence == p->sequence) ||
        in_uncommitted_log(e, p->session, p->sequence)) {
        refused->why = REFUSED_HELD;
        return;
    }
    if (e->request.used) {
        refused->why = REFUSED_FULL;
        return;
    }
    e->request.used = true;
    e->request.session = p->session;
    e->request.sequence = p->sequence;
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

/* Decides from what is applied: so only when all that earlier leaders may have committed is. */
void proposal_order(agreement_t *e, const wire_proposal_t *p, const uint8_t *bytes, wire_refused_t *refused)
{
    *refused = (wire_refused_t){.session = p->session, .sequence = p->sequence};
    if (!leads(e) || e->transferring) {
        refused->why = leads(e) ? REFUSED_FULL : REFUSED_NOT_LEADER;
        return;
    }
    if (e->committed < e->term_index || e->applied < e->term_index) {
        refused->why = REFUSED_FULL;
        refused->value = 1;
        return;
    }
    const session_t *s = session_find(e, p->session);
    rf_err_t used = session_check(s, p->sequence);
    if (!session_exists(e, p->session)) {
        refused->why = REFUSED_ERR;
        refused->err = RF_ERR_SESSION;
    } else if (used == RF_ERR_SESSION) {
        refused->why = REFUSED_ERR;
        refused->err = RF_ERR_SESSION;
    } else if (used == RF_ERR_EXISTS) {
        const result_t *r = session_result(e, s, p->sequence);
        bool kept = r && r->sequence == p->sequence;
        if (!r &&
            p->session != agreement_own_session(e)) { /* a member's own: its entry, or a snapshot, tells it */
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
    for (unsigned i = 0; i < e->params.proposals_max; i++) {
        proposal_t *p = proposal_at(e, i);
        if (!p->used || !p->refused) continue;
        if (p->refused_at > e->applied || completion_room(e) == 0) {
            waiting = true;
            continue;
        }
        bool unknown = p->loads != e->n_loads || may_be_in_log(e, p->session, p->sequence);
        proposal_answer(e, p->session, p->sequence,
                        unknown && p->err == RF_ERR_SESSION ? RF_ERR_UNKNOWN_OUTCOME : (rf_err_t)p->err, 0);
    }
    if (!waiting) e->due &= ~(uint32_t)DUE_REFUSED;
}

void proposal_unsend(agreement_t *e)
{
    for (unsigned i = 0; i < e->params.proposals_max && e->n_proposals > 0; i++) {
        proposal_t *p = proposal_at(e, i);
        if (p->used && !p->refused) p->sent = false;
    }
    if (e->n_proposals > 0) e->due |= DUE_PROPOSALS;
}

void proposal_lead(agreement_t *e)
{
    proposal_unsend(e);
}

void proposal_fail(agreement_t *e)
{
    for (unsigned i = 0; i < e->params.proposals_max && e->n_proposals > 0 && completion_room(e) > 0; i++) {
        proposal_t *p = proposal_at(e, i);
        if (!p->used) continue;
        bool may_be = p->ever_sent || may_be_in_log(e, p->session, p->sequence);
        uint64_t session = p->session, sequence = p->sequence;
        forget(e, p);
        if (may_be) unknown_add(e, session, sequence);
        answer(e, session, sequence, may_be ? RF_ERR_UNKNOWN_OUTCOME : RF_ERR_NO_QUORUM, 0);
    }
}

/* Those whose entries went by in a snapshot: their results are not known here. */
void proposal_after_load(agreement_t *e)
{
    for (unsigned i = 0; i < e->params.proposals_max && completion_room(e) > 0; i++) {
        proposal_t *p = proposal_at(e, i);
        if (!p->used) continue;
        const session_t *s = session_find(e, p->session);
        rf_err_t used = session_check(s, p->sequence);
        if (used == RF_OK) continue;
        const result_t *r = used == RF_ERR_EXISTS ? session_result(e, s, p->sequence) : NULL;
        bool kept = r && r->sequence == p->sequence;
        proposal_answer(e, p->session, p->sequence, kept ? (rf_err_t)r->err : RF_ERR_UNKNOWN_OUTCOME,
                        kept ? r->value : 0);
    }
}

bool proposal_overdue(const agreement_t *e, uint64_t since_ns)
{
    if (e->role == AGREEMENT_ROLE_LEARNER) { /* it hears nothing as long as nothing happens */
        uint64_t oldest = RF_NEVER;
        for (unsigned i = 0; i < e->params.proposals_max && e->n_proposals > 0; i++) {
            const proposal_t *p = proposal_at(e, i);
            if (p->used) earlier(&oldest, p->since_ns);
        }
        for (unsigned i = 0; i < AGREEMENT_READS_MAX && e->n_reads > 0; i++) {
            if (e->reads[i].used) earlier(&oldest, e->reads[i].since_ns);
        }
        if (oldest == RF_NEVER) return false;
        if (oldest > since_ns) since_ns = oldest;
    }
    return e->now_ns >= add_ns(since_ns, 3 * e->params.election_ns);
}

/* The oldest that is to be sent. The queue may name places that were answered and taken anew meanwhile. */
proposal_t *proposal_next_unsent(agreement_t *e)
{
    proposal_t *next = NULL;
    if (e->n_proposals == 0) return NULL;
    for (unsigned i = 0; i < e->params.proposals_max; i++) {
        proposal_t *p = proposal_at(e, i);
        if (p->used && !p->sent && !p->refused && (!next || p->order < next->order)) next = p;
    }
    return next;
}
