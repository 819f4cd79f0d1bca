/* FORWARD: a member's proposals, to be ordered. What cannot be is answered by REFUSED, all in one message. */
#include "consensus/engine.h"

static bool kind_may_be_proposed(uint16_t kind, size_t size)
{
    switch (kind) {
    case AGREEMENT_ENTRY_COMMAND:
        return true;
    case AGREEMENT_ENTRY_SESSION_OPEN:
        return size == 0;
    case AGREEMENT_ENTRY_SESSION_END:
        return size == sizeof(uint64_t);
    default:
        return false;
    }
}

void recv_forward(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    if (!engine_orders(e)) {
        engine_protocol_error(e, "ignoring FORWARD: I do not order");
        return;
    }
    if (e->view == 0 || e->members[from].state != AGREEMENT_MEMBER_IN) {
        engine_ignore(e, "ignoring FORWARD: the sender is no member");
        return;
    }
    size_t at = 0;
    while (at < size) {
        wire_proposal_t p;
        if (size - at < sizeof p) {
            engine_protocol_error(e, "ignoring FORWARD: cut short");
            return;
        }
        memcpy(&p, bytes + at, sizeof p);
        at += sizeof p;
        if (p.size > e->params.entry_max || size - at < engine_padded(p.size) || p.sequence == 0 ||
            !kind_may_be_proposed(p.kind, p.size)) {
            engine_protocol_error(e, "ignoring FORWARD: a proposal that cannot be");
            return;
        }
        rf_err_t err =
            proposal_order(e, (agreement_entry_kind_t)p.kind, p.session, p.sequence, bytes + at, p.size);
        at += engine_padded(p.size);
        if (err != RF_OK && e->n_refusals < REFUSALS_MAX) {
            e->reply_to = from;
            e->refusals[e->n_refusals++] =
                (wire_refused_t){.session = p.session, .sequence = p.sequence, .err = (uint32_t)err};
        }
    }
}
