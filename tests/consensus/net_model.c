/*
 * What every replica has to agree on: the entries that were applied at an index, the commands in the order in which they were
 * executed, who led a term, and what was answered. The replicas' own machine only counts; what it counted is known here.
 */
#include "net_model.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void net_unsafe(net_t *n, const char *what)
{
    n->breach = what;
    if (n->unsafe) longjmp(*n->unsafe, 1);
    fprintf(stderr, "unsafe at %llu us: %s\n", (unsigned long long)(n->now_ns / US), what);
    abort();
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

/* A view that holds what a proposal of that session asked for: no one that only answers it. */
static void change_applied(net_t *n, const agreement_apply_t *a)
{
    for (unsigned i = n->n_proposed; i-- > 0;) {
        net_proposal_t *p = &n->proposed[i];
        if (p->number != 0 || p->session != a->session || p->sequence != a->sequence) continue;
        if (p->denied) net_unsafe(n, "a change is carried out that was said never to be");
        p->carried_out = true;
    }
}

static void change_answered(net_t *n, net_proposal_t *p)
{
    if (p->err == RF_OK || p->err == RF_ERR_UNKNOWN_OUTCOME) return;
    if (p->carried_out) net_unsafe(n, "a change is denied, but carried out");
    p->denied = true;
}

/* ---- the replicated machine ---- */

static rf_err_t machine_apply(void *context, const agreement_apply_t *a, uint64_t *value)
{
    net_core_t *c = context;
    net_t *n = *(net_t **)c->memory;
    if (a->index <= c->applied)
        net_unsafe(n, "an entry is applied again"); /* duplicates are not handed out */
    c->applied = a->index;
    uint64_t h = mix(mix(mix(a->index, a->term), (uint64_t)a->kind), mix(a->session, a->sequence)) | 1;
    if (a->kind != AGREEMENT_ENTRY_COMMAND) {
        h = mix(h, a->view);
        if (a->kind == AGREEMENT_ENTRY_VIEW && a->session != 0 && a->n_changes > 0) change_applied(n, a);
        for (unsigned i = 0; i < a->n_changes; i++)
            h = mix(h, (uint64_t)a->changes[i].member.incarnation << 20 | a->changes[i].member.core << 1 |
                           a->changes[i].joined);
    } else {
        uint64_t number;
        if (a->size < sizeof number) net_unsafe(n, "a command's bytes are lost");
        memcpy(&number, a->bytes, sizeof number);
        h = mix(h, number);
        if (number == 0 || number > n->next_number) net_unsafe(n, "a command that nobody proposed");
        if (c->n_done < n->n_history) {
            if (n->history[c->n_done] != number) net_unsafe(n, "replicas execute different commands");
        } else {
            if (n->executed[number]) net_unsafe(n, "a command is executed twice");
            if (n->denied[number]) net_unsafe(n, "a command is executed that was said never to be");
            n->executed[number] = 1;
            n->history[n->n_history] = number;
            n->hashes[n->n_history + 1] = mix(n->hashes[n->n_history], number);
            n->n_history++;
        }
        *value = c->n_done++;
    }
    h |= 1;
    if (a->index >= NET_LOG_MAX) net_unsafe(n, "an index beyond all that was proposed");
    if (n->entries[a->index] != 0 && n->entries[a->index] != h)
        net_unsafe(n, "logs differ at an applied index");
    n->entries[a->index] = h;
    return RF_OK;
}

static size_t machine_save(void *context, void *bytes, size_t max)
{
    net_core_t *c = context;
    net_t *n = *(net_t **)c->memory;
    uint64_t state[64] = {c->n_done, n->hashes[c->n_done], c->applied};
    size_t size = sizeof state < max ? sizeof state : max;
    if (n->knobs.snapshot_size > 0) memset(bytes, 0x5a, size = n->knobs.snapshot_size);
    memcpy(bytes, state, sizeof state);
    return size;
}

static rf_err_t machine_load(void *context, uint64_t index, const void *bytes, size_t size)
{
    net_core_t *c = context;
    net_t *n = *(net_t **)c->memory;
    uint64_t state[3];
    if (size < sizeof state) return RF_ERR_PROTOCOL;
    memcpy(state, bytes, sizeof state);
    if (state[0] > n->n_history || n->hashes[state[0]] != state[1] || state[2] != index)
        return RF_ERR_PROTOCOL;
    if (state[0] < c->n_done) net_unsafe(n, "a snapshot takes a replica back");
    c->n_done = state[0];
    c->applied = index;
    c->n_loads++;
    return RF_OK;
}

agreement_machine_t net_model_machine(net_core_t *core)
{
    return (agreement_machine_t){
        .context = core, .apply = machine_apply, .save = machine_save, .load = machine_load};
}

/* ---- after each step ---- */

void net_model_answered(net_t *n, rf_core_t core, const agreement_completion_t *c)
{
    net_core_t *at = &n->cores[core];
    if (c->kind == AGREEMENT_COMPLETED_READ) {
        net_read_t *r = &n->reads[c->cookie];
        if (r->answered) net_unsafe(n, "a read is answered twice");
        r->answered = true;
        r->err = c->err;
        if (c->err == RF_OK && at->n_done < r->needs)
            net_unsafe(n, "a read misses what was acknowledged before it");
        return;
    }
    net_proposal_t *p = NULL;
    for (unsigned i = n->n_proposed; i-- > 0 && !p;) {
        net_proposal_t *q = &n->proposed[i];
        if (q->core == core && q->incarnation == at->incarnation && q->session == c->session &&
            q->sequence == c->sequence && !q->answered)
            p = q;
    }
    if (!p) net_unsafe(n, "an answer to what nobody asked");
    p->answered = true;
    p->err = c->err;
    p->value = c->value;
    if (p->number == 0) {
        change_answered(n, p);
        return;
    }
    if (c->err == RF_OK) {
        if (c->value >= n->n_history || n->history[c->value] != p->number) net_unsafe(n, "a wrong result");
        if (c->value + 1 > n->n_acked) n->n_acked = c->value + 1;
    } else if (c->err == RF_ERR_UNKNOWN_OUTCOME) {
        n->maybe[p->number] = 1;
    } else if (!n->maybe[p->number]) {
        if (n->executed[p->number]) net_unsafe(n, "denied, but executed");
        n->denied[p->number] = 1;
    }
}

void net_model_check(net_t *n, rf_core_t core)
{
    net_core_t *c = &n->cores[core];
    agreement_state_t s;
    agreement_query(c->engine, &s);
    if (s.term < c->term) net_unsafe(n, "a term falls");
    if (s.committed < c->committed) net_unsafe(n, "what was committed is not any more");
    if (s.applied != c->applied) net_unsafe(n, "what is applied was not handed out");
    if (s.applied > s.committed || s.committed > s.last) net_unsafe(n, "indices out of order");
    c->term = s.term;
    c->committed = s.committed;
    if (s.role == AGREEMENT_ROLE_LEADER) {
        if (s.term >= NET_TERMS_MAX) net_unsafe(n, "a term beyond all elections");
        agreement_member_t *leader = &n->leaders[s.term], self = net_member(n, core);
        if (leader->core == RF_CORE_NONE) *leader = self;
        if (leader->core != self.core || leader->incarnation != self.incarnation)
            net_unsafe(n, "two leaders in one term");
    }
}

static uint64_t mix_bytes(uint64_t hash, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) hash = mix(hash, bytes[i]);
    return mix(hash, size);
}

/* All that a caller can see of a step. */
void net_model_hash(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    uint64_t h = mix(n->hash, core);
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *m = &out->messages[i];
        h = mix_bytes(mix(h, m->type), m->bytes, m->size);
        for (unsigned k = 0; k < m->n_to; k++) h = mix(mix(h, m->to[k].core), m->to[k].incarnation);
    }
    for (unsigned i = 0; i < out->n_completions; i++) {
        const agreement_completion_t *c = &out->completions[i];
        h = mix(mix(mix(mix(h, (uint64_t)c->kind), (uint64_t)c->err), c->session), c->sequence);
        h = mix(mix(h, c->cookie), c->value);
    }
    h = mix(mix(mix(h, out->n_messages), out->n_completions), (uint64_t)out->err);
    h = mix(mix(mix(h, out->applied_from), out->applied_to), out->next_tick_ns);
    h = mix(h, out->view_changed | (unsigned)out->role_changed << 1 | (unsigned)out->loaded << 2 |
                   (unsigned)out->more << 3 | (unsigned)out->expelled << 4);
    n->hash = mix_bytes(h, (const uint8_t *)out->ignored, out->ignored ? strlen(out->ignored) : 0);
}

void net_check_quiet(net_t *n)
{
    uint64_t done = UINT64_MAX;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        const net_core_t *c = &n->cores[core];
        if (!c->alive || agreement_member_state(c->engine, core, NULL) != AGREEMENT_MEMBER_IN) continue;
        if (done == UINT64_MAX) done = c->n_done;
        if (c->n_done != done) net_unsafe(n, "replicas differ at rest");
    }
    if (done < n->n_acked) net_unsafe(n, "what was acknowledged is lost");
}
