#include "consensus/engine.h"

log_entry_t *log_at(agreement_t *e, uint64_t index)
{
    rf_assert(index > 0);
    return (log_entry_t *)(void *)(e->log + (index & (e->params.log_max - 1)) * e->entry_stride);
}

/* The oldest entry that somebody may still need: every live voting member has applied what is before it. */
static uint64_t applied_by_all(const agreement_t *e)
{
    uint64_t least = e->applied;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        const member_t *m = &e->members[core];
        if (m->voting && !m->dead && core != e->params.self.core && m->applied < least) least = m->applied;
    }
    return least;
}

static void put(agreement_t *e, agreement_entry_kind_t kind, uint64_t view, uint64_t session,
                uint64_t sequence, const void *bytes, size_t size)
{
    rf_assert(size <= e->params.entry_max);
    log_entry_t *entry = log_at(e, e->last + 1);
    entry->index = e->last + 1;
    entry->view = view;
    entry->session = session;
    entry->sequence = sequence;
    entry->kind = (uint16_t)kind;
    entry->size = (uint16_t)size;
    if (size > 0) memcpy(entry->bytes, bytes, size);
    e->last++;
}

rf_err_t log_append(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size)
{
    rf_assert(engine_orders(e) && !e->lost);
    uint64_t used = e->last - applied_by_all(e);
    bool membership = kind == AGREEMENT_ENTRY_FORM || kind == AGREEMENT_ENTRY_MEMBER_DOWN;
    if (used + (membership ? 0 : AGREEMENT_LOG_RESERVED) >= e->params.log_max) return RF_ERR_AGAIN;
    put(e, kind, e->view, session, sequence, bytes, size);
    return RF_OK;
}

bool log_accept(agreement_t *e, const wire_entry_t *entry, const void *bytes)
{
    if (e->last - e->applied >= e->params.log_max) return false;
    put(e, (agreement_entry_kind_t)entry->kind, entry->view, entry->session, entry->sequence, bytes,
        entry->size);
    return true;
}

void log_commit(agreement_t *e)
{
    if (!engine_orders(e) || e->last == e->committed) return;
    /* Committed is what every live member holds: read-one/write-all. */
    uint64_t held = e->last;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        const member_t *m = &e->members[core];
        if (m->voting && !m->dead && core != e->params.self.core && m->match < held) held = m->match;
    }
    if (held > e->committed) e->committed = held;
}

/*
 * Membership and sessions are the engine's own part of the replicated state, and change as entries are handed
 * out. False: the entry contradicts what is applied already. No orderer appends such a one, so at the orderer
 * it is asserted; a member that is sent one executes nothing.
 */
static bool apply_internal(agreement_t *e, const log_entry_t *entry)
{
    if (entry->session != 0) {
        session_t *s = session_find(e, entry->session);
        if (!s || window_check(&s->applied, entry->sequence) != RF_OK) return false;
        window_mark(&s->applied, entry->sequence); /* exactly once */
    }
    switch (entry->kind) {
    case AGREEMENT_ENTRY_FORM:
        role_form_apply(e, entry);
        return true;
    case AGREEMENT_ENTRY_MEMBER_DOWN: {
        wire_member_t who;
        memcpy(&who, entry->bytes, sizeof who);
        member_t *m = &e->members[who.core];
        if (m->state != AGREEMENT_MEMBER_IN) return false;
        m->state = AGREEMENT_MEMBER_DOWN;
        m->dead = true;
        m->report = false;
        e->sessions[who.core].ended = true;
        e->view++;
        e->output.view_changed = true;
        group_member_died(e, who.core);
        return true;
    }
    case AGREEMENT_ENTRY_SESSION_OPEN:
        session_open(e, SESSION_OPENED | entry->index);
        return true;
    case AGREEMENT_ENTRY_SESSION_END: {
        uint64_t id;
        memcpy(&id, entry->bytes, sizeof id);
        session_t *s = id & SESSION_OPENED ? session_find(e, id) : NULL;
        if (s) s->ended = true;
        return true;
    }
    default:
        return true;
    }
}

void log_hand_out(agreement_t *e)
{
    agreement_output_t *out = &e->output;
    rf_assert(e->applied <= e->handed && e->handed <= e->committed && e->committed <= e->last);
    while (e->handed < e->committed && out->n_applies < AGREEMENT_APPLIES_MAX) {
        log_entry_t *entry = log_at(e, e->handed + 1);
        rf_assert(entry->index == e->handed + 1);
        e->handed++;
        agreement_apply_t *apply = &out->applies[out->n_applies++];
        *apply = (agreement_apply_t){
            .index = entry->index,
            .view = entry->view,
            .kind = (agreement_entry_kind_t)entry->kind,
            .session = entry->session,
            .sequence = entry->sequence,
        };
        if (entry->kind == AGREEMENT_ENTRY_COMMAND) {
            apply->bytes = entry->bytes;
            apply->size = entry->size;
        } else if (entry->kind == AGREEMENT_ENTRY_MEMBER_DOWN) {
            wire_member_t who;
            memcpy(&who, entry->bytes, sizeof who);
            apply->member = (agreement_member_t){.core = who.core, .incarnation = who.incarnation};
        }
        if (!apply_internal(e, entry)) {
            rf_assert(!engine_orders(e));
            apply->kind = AGREEMENT_ENTRY_VOID;
            engine_protocol_error(e, "not executing an entry: it contradicts what was applied before");
        }
    }
}
