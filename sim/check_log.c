/* Logs agree: whoever applies an index applies the same entry there, after the same entries (Raft, Figure 3.2: state
 * machine safety). `chain` covers all entries up to an index, and comes with a snapshot, so that one comparison at any
 * index compares everything before it. */
#include "sim.h"

static uint64_t entry_hash(const agreement_apply_t *e)
{
    uint64_t hash = sim_mix(e->index, e->term);
    hash = sim_mix(hash, (uint64_t)e->kind << 1 | e->duplicate);
    hash = sim_mix(hash, e->view);
    hash = sim_mix(hash, e->session);
    hash = sim_mix(hash, e->sequence);
    if (e->kind == AGREEMENT_ENTRY_COMMAND && !e->duplicate) hash = sim_hash_bytes(hash, e->bytes, e->size);
    for (unsigned i = 0; i < e->n_changes; i++) {
        const agreement_change_t *c = &e->changes[i];
        hash = sim_mix(hash, (uint64_t)c->member.incarnation << 32 | (uint64_t)c->member.core << 2 |
                                 (c->joined ? 2 : 0) | (c->in_order ? 1 : 0));
    }
    return hash | 1;
}

void check_log_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *e)
{
    sim_replica_t *r = p->replica;
    if (e->index <= r->index)
        sim_violation(w, "log", "core %u applies index %llu after %llu", p->core,
                      (unsigned long long)e->index, (unsigned long long)r->index);
    uint64_t hash = entry_hash(e);
    r->index = e->index;
    r->chain = sim_mix(r->chain, hash);
    sim_ledger_entry_t *known = sim_ledger_at(w, e->index);
    if (known->hash == 0) {
        *known = (sim_ledger_entry_t){.hash = hash, .chain = r->chain, .by = p->core};
    } else if (known->hash != hash || known->chain != r->chain) {
        sim_violation(w, "log",
                      "index %llu: core %u (incarnation %u) applies another entry%s than core %u did (term "
                      "%llu, kind %d, "
                      "session %llx, sequence %llu)",
                      (unsigned long long)e->index, p->core, p->incarnation,
                      known->hash == hash ? " before it" : "", known->by, (unsigned long long)e->term,
                      (int)e->kind, (unsigned long long)e->session, (unsigned long long)e->sequence);
    }
}

void check_log_loaded(sim_world_t *w, sim_process_t *p, uint64_t index)
{
    const sim_replica_t *r = p->replica;
    w->statistics->snapshots++;
    if (r->index > index || index < p->applied_max)
        sim_violation(w, "log",
                      "core %u loads a snapshot of index %llu that holds %llu, after having applied %llu",
                      p->core, (unsigned long long)index, (unsigned long long)r->index,
                      (unsigned long long)p->applied_max);
    sim_ledger_entry_t *known = sim_ledger_at(w, r->index);
    if (r->index > 0 && known->chain != r->chain)
        sim_violation(w, "log", "core %u loads a snapshot of index %llu whose history is not the log's",
                      p->core, (unsigned long long)index);
    p->applied_max = index;
}
