/*
 * Linearizable reads (read index, Raft 6.4). The leader notes what is committed, which holds an entry of its own term,
 * makes sure that it still leads by a round that majorities answer, sent after the read came; the asker has the answer when
 * it has applied that much. While the leader holds a lease it needs no round.
 */
#include "consensus/engine.h"

static void complete(agreement_t *e, reading_t *r, rf_err_t err)
{
    engine_complete(
        e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_READ, .cookie = r->cookie, .err = err});
    r->used = false;
    e->n_reads--;
}

void read_start(agreement_t *e, uint64_t cookie)
{
    reading_t *r = NULL;
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && !r; i++) {
        if (!e->reads[i].used) r = &e->reads[i];
    }
    rf_err_t err = !e->formed || !member_in(e, e->params.self) ? RF_ERR_FORMING
                   : !e->quorum                                ? RF_ERR_NO_QUORUM
                   : !r                                        ? RF_ERR_AGAIN
                                                               : RF_OK;
    if (e->expelled) err = RF_ERR_SESSION;
    if (err != RF_OK) {
        engine_complete(
            e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_READ, .cookie = cookie, .err = err});
        return;
    }
    *r = (reading_t){
        .used = true, .id = ++e->read_next, .cookie = cookie, .index = UINT64_MAX, .since_ns = e->now_ns};
    e->n_reads++;
    e->due |= DUE_READS;
}

/* Completes what is applied; at the leader asks itself. */
void read_finish(agreement_t *e)
{
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && e->n_reads > 0; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used) continue;
        if (r->index == UINT64_MAX && !r->sent && leads(e)) {
            r->sent = true;
            read_serve(e, e->params.self, r->id);
        }
        if (r->index > e->applied) continue;
        if (completion_room(e) == 0) {
            e->output.more = true;
            return;
        }
        complete(e, r, RF_OK);
    }
}

void read_fail(agreement_t *e)
{
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && e->n_reads > 0 && completion_room(e) > 0; i++) {
        if (e->reads[i].used) complete(e, &e->reads[i], RF_ERR_NO_QUORUM);
    }
}

static void answer(agreement_t *e, agreement_member_t to, uint64_t id, uint64_t index)
{
    if (is_self(e, to)) {
        for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
            reading_t *r = &e->reads[i];
            if (!r->used || r->id != id) continue;
            if (index == UINT64_MAX)
                r->sent = false;
            else
                r->index = index;
            e->due |= DUE_READS;
        }
        return;
    }
    struct {
        wire_head_t head;
        wire_read_t read;
    } m = {.head = {.view = e->view, .term = e->term}, .read = {.id = id, .index = index}};
    send_one(e, MESSAGE_READ_INDEX, &m, sizeof m, to);
}

void read_serve(agreement_t *e, agreement_member_t from, uint64_t id)
{
    for (unsigned i = 0; i < e->n_served; i++) {
        if (same(e->served[i].from, from) && e->served[i].id == id) return;
    }
    bool ready = e->committed >= e->term_index;
    /* More than this output takes wait for a round: nobody asks again where links lose nothing. */
    bool room = is_self(e, from) || e->output.n_messages + 4 < AGREEMENT_MESSAGES_MAX;
    if (ready && room && role_lease_valid(e)) {
        answer(e, from, id, e->committed);
        return;
    }
    if (e->n_served == SERVED_READS_MAX) {
        answer(e, from, id, UINT64_MAX);
        return;
    }
    /* Before the first commit of its term the leader does not know what is committed (Raft 6.4): noted at the confirmation. */
    if (e->n_served == 0 || e->served[e->n_served - 1].round != e->round + 1 || !e->round_wanted)
        e->round_wanted = true;
    e->served[e->n_served++] = (served_read_t){
        .from = from, .id = id, .round = e->round + 1, .index = ready ? e->committed : UINT64_MAX};
    e->due |= DUE_SERVED;
}

void read_confirm(agreement_t *e)
{
    if (e->round_wanted && !e->holding) {
        e->round_wanted = false;
        role_next_round(e);
    }
    if (e->committed < e->term_index) return;
    uint64_t round = progress_majority(e, PROGRESS_ROUND, e->round);
    unsigned n = 0;
    for (unsigned i = 0; i < e->n_served; i++) {
        served_read_t s = e->served[i];
        if (s.index == UINT64_MAX) s.index = e->committed;
        if (s.round <= round && e->output.n_messages + 4 < AGREEMENT_MESSAGES_MAX)
            answer(e, s.from, s.id, s.index);
        else
            e->served[n++] = s;
        if (s.round <= round && n > 0 && e->served[n - 1].id == s.id) e->output.more = true;
    }
    e->n_served = n;
    if (n == 0) e->due &= ~(uint32_t)DUE_SERVED;
}

void read_unserve(agreement_t *e)
{
    e->n_served = 0;
    e->round_wanted = false;
    for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
        if (e->reads[i].used && e->reads[i].index == UINT64_MAX) e->reads[i].sent = false;
    }
}
