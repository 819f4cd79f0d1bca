/* REPORT: a member has evidence that others are dead. The orderer believes it, and makes entries of it. */
#include "consensus/engine.h"

void recv_report(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_member_t in;
    if (!engine_orders(e) || size == 0 || size % sizeof in != 0) {
        engine_protocol_error(e, "ignoring REPORT: I do not order, or its size is wrong");
        return;
    }
    if (e->members[from].state != AGREEMENT_MEMBER_IN) {
        engine_ignore(e, "ignoring REPORT: the sender is no member");
        return;
    }
    for (size_t at = 0; at < size; at += sizeof in) {
        memcpy(&in, bytes + at, sizeof in);
        if (in.core >= e->params.n_cores || in.core == from) {
            engine_protocol_error(e, "ignoring REPORT: of no core, or of its sender");
            return;
        }
        role_death(e, (agreement_member_t){.core = in.core, .incarnation = in.incarnation});
    }
}
