/* What the checkers remember of the log and of what was answered, over all processes of a run. */
#include "sim.h"

#include <stdlib.h>

sim_ledger_entry_t *sim_ledger_at(sim_world_t *w, uint64_t index)
{
    sim_ledger_t *l = &w->ledger;
    if (index >= l->max_log) {
        size_t max = l->max_log ? l->max_log : 4096;
        while (max <= index) max *= 2;
        l->log = realloc(l->log, max * sizeof *l->log);
        rf_assert(l->log);
        memset(l->log + l->max_log, 0, (max - l->max_log) * sizeof *l->log);
        l->max_log = max;
    }
    if (index >= l->n_log) l->n_log = index + 1;
    return &l->log[index];
}

static sim_ledger_command_t *find(sim_ledger_t *l, uint64_t session, uint64_t sequence)
{
    size_t at = sim_mix(session * 31, sequence) & (l->max_commands - 1);
    while (l->commands[at].session &&
           (l->commands[at].session != session || l->commands[at].sequence != sequence))
        at = (at + 1) & (l->max_commands - 1);
    return &l->commands[at];
}

static void grow(sim_ledger_t *l)
{
    sim_ledger_command_t *old = l->commands;
    size_t n = l->max_commands;
    l->max_commands = n ? n * 2 : 4096;
    l->commands = calloc(l->max_commands, sizeof *l->commands);
    rf_assert(l->commands);
    for (size_t i = 0; i < n; i++) {
        if (old[i].session) *find(l, old[i].session, old[i].sequence) = old[i];
    }
    free(old);
}

sim_ledger_command_t *sim_ledger_command(sim_world_t *w, uint64_t session, uint64_t sequence, bool add)
{
    sim_ledger_t *l = &w->ledger;
    if (l->n_commands * 2 >= l->max_commands) grow(l);
    sim_ledger_command_t *c = find(l, session, sequence);
    if (c->session) return c;
    if (!add) return NULL;
    l->n_commands++;
    c->session = session;
    c->sequence = sequence;
    return c;
}

void sim_ledger_free(sim_world_t *w)
{
    free(w->ledger.log);
    free(w->ledger.commands);
    free(w->ledger.leaders);
}
