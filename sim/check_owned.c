/*
 * What belongs to somebody. A lock has one holder at a time: tokens rise, whoever is told of a grant has been granted it by
 * the log, and nobody else holds the lock by then whose core is still a member. An element of the queue is taken once. No
 * more than its parties pass a barrier at one opening. A name is exported by one dispatcher. And what an owner has goes with it, in
 * the entry that says that it has ended; not before, while it may still run, also under a monitor that stands still.
 */
#include "sim/monitors.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- what vanishes ---- */

static bool owner_lives(const monitor_t *m, uint64_t domain, uint64_t session)
{
    if (domain != RF_DOMAIN_NONE) {
        const domain_t *d = &m->domains[domain % MONITOR_DOMAINS_MAX];
        return d->id == domain && ((d->alive | d->ending | d->left) >> session & 1);
    }
    rf_core_t core = (rf_core_t)(session >> 48);
    if (core >= m->boot->n_cores) return false;
    return m->cores[core].holding > 0 ||
           (core_is_member(m, core) && registry_number_of(core, core_agreed(m, core), session) == session);
}

static void check_vanished(sim_world_t *w, const sim_process_t *p, const monitor_t *m)
{
    static const registry_kind_t kinds[] = {REGISTRY_KEY, REGISTRY_LOCK};
    char from[REGISTRY_NAME_MAX + 2];
    for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        registry_entry_t e;
        const char *prefix = kinds[k] == REGISTRY_KEY ? "e/" : "l/";
        size_t size = 0;
        while (registry_next(m->registry, kinds[k], prefix, 2, from, size, &e)) {
            bool owned = kinds[k] == REGISTRY_KEY ? e.ephemeral : e.domain != 0 || e.session != 0;
            if (owned && !owner_lives(m, e.domain, e.session))
                sim_violation(w, "owned",
                              "at core %u %s is still owned by %llu.%llu, which the log has ended", p->core,
                              e.name, (unsigned long long)e.domain, (unsigned long long)e.session);
            size = e.name_size + 1u;
            memcpy(from, e.name, size);
        }
    }
}

/* ---- locks ---- */

static void note_grant(sim_world_t *w, uint32_t lock, const registry_entry_t *e)
{
    sim_monitors_t *all = w->monitors;
    if (e->revision < all->last_token[lock])
        sim_violation(w, "lock", "lock %u is granted by token %llu after %llu", lock,
                      (unsigned long long)e->revision, (unsigned long long)all->last_token[lock]);
    all->last_token[lock] = e->revision;
    if (all->n_grants == all->max_grants) {
        all->max_grants = all->max_grants ? all->max_grants * 2 : 256;
        all->grants = realloc(all->grants, all->max_grants * sizeof *all->grants);
        rf_assert(all->grants);
    }
    all->grants[all->n_grants++] =
        (sim_grant_t){.token = e->revision, .domain = e->domain, .session = e->session, .lock = lock};
}

/* ---- what is another's ---- */

/* Clocks that stand still keep frozen hosts from freezing, which is what a fence by time leans on. */
static bool still_runs(sim_world_t *w, rf_core_t core, rf_domain_t domain)
{
    const fake_t *fake = &w->monitors->fake;
    return !w->knobs.clock_stop && w->processes[core].alive &&
           fake_core_runs(&fake->cores[core], sim_clock_local(w, w->host[core])) &&
           fake_dispatcher(&w->monitors->fake, core, domain, 0);
}

/* By no word of its own: it has been said to have gone. */
static void check_passed_on(sim_world_t *w, const sim_process_t *p, const monitor_t *m)
{
    sim_monitors_t *all = w->monitors;
    for (uint32_t lock = 0; lock < SIM_LOCKS; lock++) {
        const sim_holder_t *holder = &all->holders[lock];
        if (holder->domain != 0 && holder->token != all->now_held[lock].token &&
            still_runs(w, holder->core, holder->domain))
            sim_violation(w, "lock",
                          "core %u takes lock %u, by token %llu, from domain %llu, which runs on core %u",
                          p->core, lock, (unsigned long long)holder->token,
                          (unsigned long long)holder->domain, holder->core);
    }
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        const domain_t *d = &m->domains[i];
        if (d->id != 0 && d->state == RF_DOMAIN_ENDED && still_runs(w, d->cores[0], d->id))
            sim_violation(w, "still", "at core %u domain %llu has ended, and runs on core %u", p->core,
                          (unsigned long long)d->id, d->cores[0]);
    }
}

static void note_holder(sim_world_t *w, const monitor_t *m, uint32_t lock, const registry_entry_t *e)
{
    sim_holder_t *now = &w->monitors->now_held[lock];
    const domain_t *d = e ? &m->domains[e->domain % MONITOR_DOMAINS_MAX] : NULL;
    *now = (sim_holder_t){0};
    if (e && e->domain != 0 && d->id == e->domain)
        *now = (sim_holder_t){.token = e->revision, .domain = e->domain, .core = d->cores[0]};
}

void check_owned_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *entry)
{
    const monitor_t *m = w->monitors->monitors[p->core].monitor;
    command_t command = {0};
    if (entry->kind == AGREEMENT_ENTRY_COMMAND && entry->size == sizeof command)
        memcpy(&command, entry->bytes, sizeof command);
    for (uint32_t lock = 0; lock < SIM_LOCKS; lock++) {
        char name[SIM_NAME_MAX];
        registry_entry_t e;
        int size = snprintf(name, sizeof name, "l/%u", lock);
        bool held = registry_get(m->registry, REGISTRY_LOCK, name, (size_t)size, &e) &&
                    (e.domain != 0 || e.session != 0);
        if (held && e.revision != w->monitors->last_token[lock]) note_grant(w, lock, &e);
        note_holder(w, m, lock, held ? &e : NULL);
    }
    if (entry->kind == AGREEMENT_ENTRY_VIEW || command.op == COMMAND_DISPATCHER_STATE ||
        command.op == COMMAND_RECLAIM) {
        check_vanished(w, p, m);
        check_passed_on(w, p, m);
    }
    memcpy(w->monitors->holders, w->monitors->now_held, sizeof w->monitors->holders);
}

void check_owned_acquired(sim_world_t *w, sim_process_t *p, sim_mclient_t *c, uint64_t token)
{
    const sim_monitors_t *all = w->monitors;
    if (w->left[p->core] >= p->incarnation) return; /* it has left, and will learn so */
    const sim_grant_t *grant = NULL;
    for (size_t i = all->n_grants; i-- > 0 && !grant;) {
        if (all->grants[i].lock == c->lock && all->grants[i].token == token) grant = &all->grants[i];
    }
    if (!grant || grant->domain != c->domain || (c->domain == 0 && grant->session != c->session)) {
        sim_violation(w, "lock",
                      "client %u is told that it holds lock %u by token %llu; the log does not say so",
                      c->number, c->lock, (unsigned long long)token);
        return;
    }
    for (unsigned i = 0; i < w->n_clients; i++) {
        const sim_mclient_t *other = &all->clients[i];
        if (other == c || !other->up || other->token == 0 || other->lock != c->lock) continue;
        const sim_process_t *q = &w->processes[other->core];
        if (other->may_be_released || (other->state == SIM_M_WAITING && other->op == SIM_M_RELEASE)) continue;
        if (q->alive && q->life == other->life && w->left[other->core] < q->incarnation)
            sim_violation(w, "lock", "lock %u is client %u's by token %llu, and client %u's by %llu", c->lock,
                          c->number, (unsigned long long)token, other->number,
                          (unsigned long long)other->token);
    }
}

/* ---- names ---- */

void check_owned_named(sim_world_t *w, const sim_mclient_t *c)
{
    for (unsigned i = 0; i < w->n_clients && w->left[c->core] < w->processes[c->core].incarnation; i++) {
        const sim_mclient_t *other = &w->monitors->clients[i];
        if (other == c || !other->up || !other->named || other->name != c->name) continue;
        const sim_process_t *q = &w->processes[other->core];
        if (other->state == SIM_M_WAITING && other->op == SIM_M_UNNAME) continue;
        if (q->alive && q->life == other->life && w->left[other->core] < q->incarnation)
            sim_violation(w, "name", "name %u is client %u's and client %u's", c->name, c->number,
                          other->number);
    }
}

/* ---- the queue ---- */

sim_element_t *check_owned_element(sim_world_t *w, uint32_t value)
{
    sim_monitors_t *all = w->monitors;
    if (value >= all->max_elements) {
        uint32_t max = all->max_elements ? all->max_elements : 1024;
        while (max <= value) max *= 2;
        all->elements = realloc(all->elements, max * sizeof *all->elements);
        rf_assert(all->elements);
        memset(all->elements + all->max_elements, 0, (max - all->max_elements) * sizeof *all->elements);
        all->max_elements = max;
    }
    return &all->elements[value];
}

void check_owned_popped(sim_world_t *w, sim_mclient_t *c, uint32_t value)
{
    if (value > w->next_value || !check_owned_element(w, value)->pushed) {
        sim_violation(w, "queue", "client %u takes %u, which nobody has put in", c->number, value);
        return;
    }
    sim_element_t *element = check_owned_element(w, value);
    if (element->popped)
        sim_violation(w, "queue", "client %u takes %u, which was taken before", c->number, value);
    element->popped = true;
}

/* ---- barriers ---- */

void check_owned_barrier(sim_world_t *w, sim_mclient_t *c, uint64_t revision)
{
    sim_monitors_t *all = w->monitors;
    unsigned max = sizeof all->barriers / sizeof all->barriers[0], i;
    all->barrier_returns++;
    if (all->barrier_returns > all->barrier_calls)
        sim_violation(w, "barrier", "client %u passes, and fewer have come", c->number);
    for (i = 0; i < all->n_barriers && i < max; i++) {
        if (all->barriers[i].revision == revision) break;
    }
    if (i == all->n_barriers || i == max) {
        i = all->n_barriers++ % max;
        all->barriers[i].revision = revision;
        all->barriers[i].n = 0;
    }
    if (++all->barriers[i].n > 2)
        sim_violation(w, "barrier", "client %u is one too many to pass at revision %llu", c->number,
                      (unsigned long long)revision);
}
