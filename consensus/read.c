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
            r->sent = !read_serve(e, e->params.self, r->id, &r->index) || r->index != UINT64_MAX;
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

void read_answer(agreement_t *e, agreement_member_t to, const wire_read_t *reads, unsigned n)
{
    struct {
        wire_head_t head;
        wire_read_t reads[AGREEMENT_READS_MAX];
    } m = {.head = {.view = e->view, .term = e->term}};
    memcpy(m.reads, reads, n * sizeof *reads);
    send_one(e, MESSAGE_READ_INDEX, &m, sizeof m.head + n * sizeof *reads, to);
}

bool read_serve(agreement_t *e, agreement_member_t from, uint64_t id, uint64_t *index)
{
    for (unsigned i = 0; i < e->n_served; i++) {
        if (same(e->served[i].from, from) && e->served[i].id == id) return false;
    }
    bool ready = e->committed >= e->term_index;
    if (ready && role_lease_valid(e)) {
        *index = e->committed;
        e->n_reads_leased++;
        return true;
    }
    if (e->n_served == SERVED_READS_MAX) {
        *index = UINT64_MAX;
        return true;
    }
    /* Before the first commit of its term the leader does not know what is committed (Raft 6.4): noted at the confirmation. */
    if (e->n_served == 0 || e->served[e->n_served - 1].round != e->round + 1 || !e->round_wanted)
        e->round_wanted = true;
    e->n_reads_asked++;
    e->served[e->n_served++] = (served_read_t){
        .from = from, .id = id, .round = e->round + 1, .index = ready ? e->committed : UINT64_MAX};
    e->due |= DUE_SERVED;
    return false;
}

/* All that is confirmed of the member that asked for served[first], in one message. */
static void answer_member(agreement_t *e, unsigned first, uint64_t round, bool *done)
{
    agreement_member_t to = e->served[first].from;
    wire_read_t reads[AGREEMENT_READS_MAX];
    unsigned n = 0;
    for (unsigned i = first; i < e->n_served && n < AGREEMENT_READS_MAX; i++) {
        const served_read_t *s = &e->served[i];
        if (done[i] || s->round > round || !same(s->from, to)) continue;
        reads[n++] = (wire_read_t){.id = s->id, .index = s->index == UINT64_MAX ? e->committed : s->index};
        done[i] = true;
    }
    if (!is_self(e, to)) {
        read_answer(e, to, reads, n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < AGREEMENT_READS_MAX; k++) {
            if (e->reads[k].used && e->reads[k].id == reads[i].id) e->reads[k].index = reads[i].index;
        }
    }
    e->due |= DUE_READS;
}

void read_confirm(agreement_t *e)
{
    if (e->round_wanted && !e->holding) {
        e->round_wanted = false;
        role_next_round(e);
    }
    if (e->committed < e->term_index) return;
    uint64_t round = progress_majority(e, PROGRESS_ROUND, e->round);
    bool done[SERVED_READS_MAX] = {false};
    unsigned n = 0;
    for (unsigned i = 0; i < e->n_served; i++) {
        bool confirmed = e->served[i].round <= round;
        bool room = e->output.n_messages + 4 < AGREEMENT_MESSAGES_MAX || is_self(e, e->served[i].from);
        if (confirmed && !done[i] && room) answer_member(e, i, round, done);
        if (confirmed && !done[i]) e->output.more = true;
    }
    for (unsigned i = 0; i < e->n_served; i++) {
        if (!done[i]) e->served[n++] = e->served[i];
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
