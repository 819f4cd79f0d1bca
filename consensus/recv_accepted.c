/* ACCEPTED: a member holds the log up to `match`, knows `committed`, has applied `applied`. */
#include "consensus/engine.h"

void recv_accepted(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_accepted_t in;
    if (!engine_orders(e) || size != sizeof in) {
        engine_protocol_error(e, "ignoring ACCEPTED: I do not order, or its size is wrong");
        return;
    }
    memcpy(&in, bytes, sizeof in);
    member_t *m = &e->members[from];
    if (!m->voting) {
        engine_ignore(e, "ignoring ACCEPTED: the sender is no member");
        return;
    }
    if (in.term != TERM || in.match > e->last || in.committed > e->committed || in.applied > in.committed ||
        in.committed > in.match) {
        engine_protocol_error(e, "ignoring ACCEPTED: of entries that I never sent");
        return;
    }
    if (in.match > m->match) m->match = in.match;
    if (m->sent < m->match) m->sent = m->match;
    if (in.committed > m->commit_known) m->commit_known = in.committed;
    if (in.applied > m->applied) m->applied = in.applied;
}
