/* COMMITTED: the orderer is dead, and the sender knows the log to be committed up to here. Whatever was
 * committed, every live member holds (that is what committed means), so it can be applied here too. */
#include "consensus/engine.h"

void recv_committed(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_committed_t in;
    (void)from;
    if (engine_orders(e) || size != sizeof in) {
        engine_protocol_error(e, "ignoring COMMITTED: I order, or its size is wrong");
        return;
    }
    memcpy(&in, bytes, sizeof in);
    if (in.term != TERM) {
        engine_protocol_error(e, "ignoring COMMITTED: another term");
        return;
    }
    if (in.committed > e->last) {
        engine_ignore(e, "ignoring COMMITTED: of entries that I do not hold, so I was left out");
        return;
    }
    if (in.committed <= e->committed) return;
    e->committed = in.committed;
    if (e->lost) role_tell_committed(e); /* whoever told me may die before it has told everybody */
}
