/*
 * The ring of entries, in wire layout: several follow one another in memory as they do in a message, so that sending
 * them is one copy. An entry is never split: what does not fit before the end begins at 0. There is room for one more
 * of the largest entries than the ring may hold, so an entry that is held is never overwritten.
 *
 *      first_term | first ... applied ... committed ... last
 *
 * A seal stands for a TERM entry that the ring has no place for: leaderships that fail, one after the other, on a full ring use
 * up what is reserved. Their successor seals its log instead: whoever holds all of it, and nothing beyond, notes that
 * term at its end, and from then on its log counts as one of that term when votes are given; what a majority has sealed is
 * committed (VRR 4.2: a log is compared by the last view in which its replica was normal). No entry changes. Nothing is
 * appended behind a seal until it is committed: whoever has place for the sealed log alone would hold it, and not seal it.
 */
#include "consensus/engine.h"

/* At `last` + 1. */
static void put(agreement_t *e, const wire_entry_t *entry, const void *body)
{
    uint32_t need = (uint32_t)(sizeof *entry + padded(entry->size));
    rf_assert(entry->size <= e->params.entry_max);
    wire_entry_t *to = log_place(e, need);
    *to = *entry;
    if (entry->size % 8 != 0) memset((uint8_t *)to + need - 8, 0, 8);
    if (entry->size > 0) memcpy(to + 1, body, entry->size);
    e->last_term = entry->term;
    if (entry->kind == AGREEMENT_ENTRY_FORM || entry->kind == AGREEMENT_ENTRY_VIEW)
        config_take(e, to, e->last);
}

rf_err_t log_append(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size)
{
    rf_assert(leads(e) && size <= e->params.entry_max);
    if (e->sealed_term == e->term && e->committed < e->sealed_index) return RF_ERR_AGAIN;
    bool own = kind == AGREEMENT_ENTRY_FORM || kind == AGREEMENT_ENTRY_VIEW || kind == AGREEMENT_ENTRY_TERM;
    uint64_t index = e->last + 1 + (own ? 0 : AGREEMENT_LOG_RESERVED);
    if (index > e->params.log_max) {
        /* What it overwrites has been applied here, so a snapshot can stand for it; and by a majority, so that few need
         * one. A new leader knows that of its voters. */
        uint64_t overwrites = index - e->params.log_max;
        if (overwrites > e->applied) return RF_ERR_AGAIN;
        if (!own && overwrites > e->trim_limit) {
            e->trim_limit = snapshot_trim_limit(e, progress_majority(e, PROGRESS_APPLIED, e->applied));
            if (overwrites > e->trim_limit) return RF_ERR_AGAIN;
        }
    }
    wire_entry_t entry = {.term = e->term,
                          .session = session,
                          .sequence = sequence,
                          .kind = (uint16_t)kind,
                          .size = (uint16_t)size};
    put(e, &entry, bytes);
    /* Where others vote too, it is they who commit it: a majority holds no more than any of them does. */
    e->due |= DUE_FEED | (e->n_voters == 0 ? DUE_COMMIT : 0u);
    return RF_OK;
}

bool log_accept(agreement_t *e, const wire_entry_t *entry, const void *body)
{
    uint64_t index = e->last + 1;
    if (index > e->params.log_max && index - e->params.log_max > e->applied) return false;
    put(e, entry, body);
    return true;
}

void log_truncate(agreement_t *e, uint64_t last)
{
    rf_assert(last >= e->committed && last <= e->last);
    if (last == e->last) return;
    uint64_t term = log_term(e, last);
    e->last = last;
    e->last_term = term;
    if (last + 1 == e->first) {
        e->log_end = 0;
    } else {
        const wire_entry_t *entry = log_at(e, last);
        e->log_end = (uint32_t)((const uint8_t *)entry - e->log + sizeof *entry + padded(entry->size));
    }
    if (e->matched > last) e->matched = last;
    if (e->sealed_index > last) e->sealed_index = 0;
    if (e->pending &&
        config_newest(e)->index > last) { /* the configuration before it is in force again (Raft 4.1) */
        e->pending = false;
        config_changed(e);
    }
}

void log_commit(agreement_t *e, uint64_t committed)
{
    rf_assert(committed >= e->committed && committed <= e->last);
    if (committed == e->committed) return;
    bool first =
        e->committed < e->term_index && committed >= e->term_index; /* of its own term: changes may begin */
    e->committed = committed;
    e->due |= DUE_FEED;
    if (e->pending && config_newest(e)->index <= committed) {
        e->config ^= 1u;
        e->pending = false;
        e->due |= DUE_CHANGE;
        if (e->role != AGREEMENT_ROLE_LEARNER && !config_self_votes(e)) config_changed(e);
    }
    if (first && leads(e)) {
        e->due |= DUE_CHANGE | DUE_PROPOSALS;
        e->retry_at_ns = 0; /* what waited for it is ordered at once */
    }
    if (e->waits_term == e->term && !leads(e) && log_term(e, committed) == e->term) {
        e->waits_term = 0;
        e->retry_at_ns = 0;
    }
}

void log_seal(agreement_t *e, uint64_t index, uint64_t term)
{
    if (index < e->committed || index > e->last) return;
    if (index < e->last) {
        if (log_term(e, index + 1) == term) return; /* it was sealed before, and has gone on */
        log_truncate(e, index);
    }
    e->sealed_index = index;
    e->sealed_term = term;
}

void log_reset(agreement_t *e, uint64_t index, uint64_t term)
{
    if (e->sealed_index != index) e->sealed_index = 0;
    e->first = index + 1;
    e->last = e->committed = e->applied = e->matched = index;
    e->first_term = e->last_term = term;
    e->log_end = 0;
    e->pending = false;
}

bool log_entry_valid(const agreement_t *e, const wire_entry_t *entry, const uint8_t *body, uint64_t index)
{
    if (entry->term == 0 || entry->size > e->params.entry_max) return false;
    switch (entry->kind) {
    case AGREEMENT_ENTRY_FORM:
        return index == 1 && entry->session == 0 && entry->term == 1 &&
               config_form_valid(e, body, entry->size);
    case AGREEMENT_ENTRY_COMMAND:
    case AGREEMENT_ENTRY_SESSION_OPEN:
        return index > 1 && entry->session != 0 && entry->sequence > 0;
    case AGREEMENT_ENTRY_SESSION_END:
        return index > 1 && entry->session != 0 && entry->sequence > 0 && entry->size == sizeof(uint64_t);
    case AGREEMENT_ENTRY_VIEW:
        return index > 1 && config_view_valid(e, body, entry->size);
    case AGREEMENT_ENTRY_TERM:
        return index > 1 && entry->session == 0 && entry->size == 0;
    default:
        return false;
    }
}
