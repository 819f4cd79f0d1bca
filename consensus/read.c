/*
 * Linearizable reads by read index (Raft 6.4): ask the orderer how far the log is committed, answer when that
 * much is applied here. The orderer needs no round of its own for it: there is no other that could have been
 * elected.
 */
#include "consensus/engine.h"

void read_start(agreement_t *e, uint64_t cookie)
{
    rf_err_t err = e->lost ? RF_ERR_NO_QUORUM : e->view == 0 ? RF_ERR_FORMING : RF_ERR_AGAIN;
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && err == RF_ERR_AGAIN; i++) {
        reading_t *r = &e->reads[i];
        if (r->used) continue;
        *r = (reading_t){.used = true, .id = ++e->read_next, .cookie = cookie, .index = UINT64_MAX};
        if (engine_orders(e)) {
            r->sent = true;
            r->index = e->committed;
        }
        return;
    }
    engine_complete(e,
                    (agreement_completion_t){.kind = AGREEMENT_COMPLETED_READ, .cookie = cookie, .err = err});
}

void read_finish(agreement_t *e)
{
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && engine_completion_room(e) > 0; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used || r->index > e->applied) continue;
        r->used = false;
        engine_complete(
            e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_READ, .cookie = r->cookie, .err = RF_OK});
    }
}
