/*
 * APPEND: entries from index `first` on, and how far the log is committed.
 *
 * There is one orderer for ever, so an index never gets a second entry: what is held already is skipped, a
 * gap is left for the resend.
 */
#include "consensus/engine.h"

static bool entry_valid(const agreement_t *e, const wire_entry_t *entry, const uint8_t *bytes, uint64_t index)
{
    switch (entry->kind) {
    case AGREEMENT_ENTRY_FORM:
        return index == 1 && entry->session == 0 && role_form_valid(e, bytes, entry->size);
    case AGREEMENT_ENTRY_COMMAND:
    case AGREEMENT_ENTRY_SESSION_OPEN:
        return index > 1 && entry->session != 0 && entry->sequence > 0;
    case AGREEMENT_ENTRY_SESSION_END:
        return index > 1 && entry->session != 0 && entry->sequence > 0 && entry->size == sizeof(uint64_t);
    case AGREEMENT_ENTRY_MEMBER_DOWN: {
        wire_member_t who;
        if (index == 1 || entry->session != 0 || entry->size != sizeof who) return false;
        memcpy(&who, bytes, sizeof who);
        return who.core < e->params.n_cores && who.core != ORDERER && who.core != e->params.self.core &&
               e->members[who.core].incarnation == who.incarnation;
    }
    default:
        return false;
    }
}

void recv_append(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_append_t head;
    if (from != ORDERER || size < sizeof head) {
        engine_protocol_error(e, "ignoring APPEND: not from the orderer, or cut short");
        return;
    }
    memcpy(&head, bytes, sizeof head);
    if (head.term != TERM || head.first == 0 || head.first > UINT64_MAX / 2) {
        engine_protocol_error(e, "ignoring APPEND: another term");
        return;
    }
    size_t at = sizeof head;
    uint64_t index = head.first;
    for (uint32_t i = 0; i < head.n; i++, index++) {
        wire_entry_t entry;
        if (size - at < sizeof entry) {
            engine_protocol_error(e, "ignoring APPEND: cut short");
            return;
        }
        memcpy(&entry, bytes + at, sizeof entry);
        at += sizeof entry;
        if (entry.size > e->params.entry_max || size - at < engine_padded(entry.size) ||
            !entry_valid(e, &entry, bytes + at, index)) {
            engine_protocol_error(e, "ignoring APPEND: an entry that cannot be");
            return;
        }
        if (index == e->last + 1 && !log_accept(e, &entry, bytes + at))
            engine_ignore(e, "ignoring entries: my log ring is full until I have applied more");
        at += engine_padded(entry.size);
    }
    if (at != size) {
        engine_protocol_error(e, "ignoring the rest of APPEND: too long");
        return;
    }
    if (head.first > e->last + 1) engine_ignore(e, "ignoring entries: some before them are missing");

    uint64_t committed = head.committed < e->last ? head.committed : e->last;
    if (committed > e->committed) e->committed = committed;
    /* On links that lose nothing an empty APPEND, which only commits, needs no answer. */
    if (head.n > 0 || e->params.resend_ns != RF_NEVER) e->accept_due = true;
}
