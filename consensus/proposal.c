/* Own proposals: from the caller's event until they are answered; and what the orderer does with any
 * proposal. */
#include "consensus/engine.h"

proposal_t *proposal_at(agreement_t *e, unsigned i)
{
    return (proposal_t *)(void *)(e->proposals + i * e->proposal_stride);
}

proposal_t *proposal_find(agreement_t *e, uint64_t session, uint64_t sequence)
{
    for (unsigned i = 0; i < e->params.proposals_max; i++) {
        proposal_t *p = proposal_at(e, i);
        if (p->used && p->session == session && p->sequence == sequence) return p;
    }
    return NULL;
}

static proposal_t *find_free(agreement_t *e)
{
    for (unsigned i = 0; i < e->params.proposals_max; i++) {
        proposal_t *p = proposal_at(e, i);
        if (!p->used) return p;
    }
    return NULL;
}

rf_err_t proposal_order(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                        const void *bytes, size_t size)
{
    session_t *s = session_find(e, session);
    if (!s || s->ended) return RF_ERR_SESSION;
    rf_err_t err = window_check(&s->appended, sequence);
    if (err == RF_ERR_EXISTS) return RF_OK; /* in the log already: applying it answers */
    if (err != RF_OK) return err;
    if (window_check(&s->refused, sequence) != RF_OK) return RF_ERR_AGAIN;
    err = log_append(e, kind, session, sequence, bytes, size);
    window_mark(err == RF_OK ? &s->appended : &s->refused, sequence);
    return err;
}

/* RF_OK: under way. RF_ERR_EXISTS: answered from the results kept. */
static rf_err_t check(agreement_t *e, uint64_t session, uint64_t sequence, size_t size,
                      agreement_completion_t *answer)
{
    if (size > e->params.entry_max || sequence == 0) return RF_ERR_INVALID;
    session_t *s = e->view > 0 ? session_find(e, session) : NULL;
    const result_t *result = s ? session_result(s, sequence) : NULL;
    if (result) { /* a repetition: answered, not executed (Raft 6.3) */
        answer->err = (rf_err_t)result->err;
        answer->value = result->value;
        return RF_ERR_EXISTS;
    }
    /* Too old to know whether it was executed: refused before anything else is said. */
    if (s && window_check(&s->applied, sequence) == RF_ERR_SESSION) return RF_ERR_SESSION;
    if (e->lost) return RF_ERR_NO_QUORUM;
    if (e->view == 0) return RF_ERR_FORMING;
    if (!s || s->ended) return RF_ERR_SESSION;
    return RF_OK;
}

void proposal_step(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                   const void *bytes, size_t size)
{
    if (proposal_find(e, session, sequence)) {
        engine_ignore(e, "ignoring: that proposal is under way");
        return;
    }
    agreement_completion_t answer = {
        .kind = AGREEMENT_COMPLETED_PROPOSAL, .session = session, .sequence = sequence};
    rf_err_t err = check(e, session, sequence, size, &answer);
    proposal_t *p = err == RF_OK ? find_free(e) : NULL;
    if (err == RF_OK && !p) err = RF_ERR_AGAIN;
    if (err == RF_OK && engine_orders(e)) err = proposal_order(e, kind, session, sequence, bytes, size);
    if (err != RF_OK) {
        if (err != RF_ERR_EXISTS) answer.err = err;
        engine_complete(e, answer);
        return;
    }
    p->used = true;
    p->sent = engine_orders(e);
    p->kind = (uint16_t)kind;
    p->size = (uint16_t)size;
    p->session = session;
    p->sequence = sequence;
    if (size > 0) memcpy(p->bytes, bytes, size);
}
