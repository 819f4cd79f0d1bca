/* REFUSED: proposals of mine that the orderer did not append, and why. */
#include "consensus/engine.h"

void recv_refused(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_refused_t in;
    if (from != ORDERER || size == 0 || size % sizeof in != 0 || size / sizeof in > REFUSALS_MAX) {
        engine_protocol_error(e, "ignoring REFUSED: not from the orderer, or its size is wrong");
        return;
    }
    for (size_t at = 0; at < size; at += sizeof in) {
        memcpy(&in, bytes + at, sizeof in);
        if (in.err == RF_OK || in.err >= RF_ERR_COUNT) {
            engine_protocol_error(e, "ignoring REFUSED: no such error");
            return;
        }
        proposal_t *p = proposal_find(e, in.session, in.sequence);
        if (!p) {
            engine_ignore(e, "ignoring REFUSED: answered already");
            continue;
        }
        p->used = false;
        engine_complete(e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_PROPOSAL,
                                                    .session = in.session,
                                                    .sequence = in.sequence,
                                                    .err = (rf_err_t)in.err});
    }
}
