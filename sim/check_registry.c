/*
 * The registry by the log: what whoever applied an entry first made of it is kept, change by change, and everything that any
 * client is told is held against it. What was acknowledged is there, once; what is read, at whichever monitor, is the
 * state at the revision that the answer names; a watcher is told of every change from where it asked, in order, or that some are
 * no longer kept. (That reads are as new as they say is for check_linearizable.c.)
 */
#include "sim/monitors.h"

#include <stdio.h>
#include <stdlib.h>

#define PAD(n) (((n) + 7) & ~(size_t)7)

static uint32_t number_of(const void *bytes, size_t size)
{
    char text[16] = "";
    memcpy(text, bytes, size < sizeof text - 1 ? size : sizeof text - 1);
    return (uint32_t)strtoul(text, NULL, 10);
}

static sim_change_t *new_change(sim_monitors_t *all)
{
    if (all->n_changes == all->max_changes) {
        all->max_changes = all->max_changes ? all->max_changes * 2 : 1024;
        all->changes = realloc(all->changes, all->max_changes * sizeof *all->changes);
        rf_assert(all->changes);
    }
    return &all->changes[all->n_changes++];
}

void check_registry_applied(sim_world_t *w, sim_process_t *p)
{
    sim_monitors_t *all = w->monitors;
    const registry_t *r = all->monitors[p->core].monitor->registry;
    registry_event_t e;
    if (registry_events_first(r) > all->revision + 1)
        sim_violation(w, "registry", "core %u is the first to hold revisions up to %llu", p->core,
                      (unsigned long long)registry_events_first(r));
    while (registry_event(r, all->revision + 1, "", 0, false, &e, NULL)) {
        sim_change_t *change = new_change(all);
        *change = (sim_change_t){.revision = e.revision, .what = e.what};
        snprintf(change->name, sizeof change->name, "%.*s", (int)e.name_size, e.name);
        change->value = number_of(e.value, e.value_size);
        all->revision = e.revision;
    }
    if (registry_revision(r) > all->revision) all->revision = registry_revision(r);
}

/* The first change at or above a revision. */
static size_t change_at(const sim_monitors_t *all, uint64_t revision)
{
    size_t low = 0, high = all->n_changes;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (all->changes[middle].revision < revision)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void check_registry_acknowledged(sim_world_t *w, const sim_mclient_t *c, uint64_t revision, const char *name,
                                 uint32_t value, bool deleted)
{
    sim_monitors_t *all = w->monitors;
    size_t at = change_at(all, revision);
    sim_change_t *change =
        at < all->n_changes && all->changes[at].revision == revision ? &all->changes[at] : NULL;
    bool same = change && strcmp(change->name, name) == 0 &&
                (deleted ? change->what == REGISTRY_EVENT_DELETED
                         : change->what == REGISTRY_EVENT_PUT && change->value == value);
    if (!same)
        sim_violation(w, "lost", "client %u is told that revision %llu %s %s, which the log does not say",
                      c->number, (unsigned long long)revision, deleted ? "deleted" : "changed", name);
    else if (change->acknowledged)
        sim_violation(w, "once", "client %u is told of revision %llu, which was somebody's before", c->number,
                      (unsigned long long)revision);
    else
        change->acknowledged = true;
}

/* ---- reading ---- */

static bool begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* The change that made a key what it was at a revision; NULL: it was not there. */
static const sim_change_t *state_at(const sim_monitors_t *all, const char *name, uint64_t revision)
{
    for (size_t i = change_at(all, revision + 1); i-- > 0;) {
        const sim_change_t *change = &all->changes[i];
        if (strcmp(change->name, name) == 0) return change->what == REGISTRY_EVENT_PUT ? change : NULL;
    }
    return NULL;
}

static unsigned count_at(const sim_world_t *w, const char *prefix, bool exact, uint64_t revision)
{
    char name[SIM_NAME_MAX];
    if (exact) return state_at(w->monitors, prefix, revision) != NULL;
    unsigned n = 0;
    for (uint32_t key = 0; key < w->n_keys; key++) {
        snprintf(name, sizeof name, "%s%u", prefix, key);
        n += state_at(w->monitors, name, revision) != NULL;
    }
    return n;
}

void check_registry_read(sim_world_t *w, sim_process_t *p, const char *prefix, bool exact,
                         const uint8_t *body, size_t size)
{
    rf_client_registry_page_t page = {0};
    memcpy(&page, body, size < sizeof page ? size : sizeof page);
    size_t at = sizeof page;
    if (page.revision > w->monitors->revision) {
        sim_violation(w, "registry", "core %u is at revision %llu, which nobody has applied", p->core,
                      (unsigned long long)page.revision);
        return;
    }
    for (unsigned i = 0; i < page.n && at + sizeof(rf_client_registry_entry_t) <= size; i++) {
        rf_client_registry_entry_t e;
        char name[SIM_NAME_MAX];
        memcpy(&e, body + at, sizeof e);
        snprintf(name, sizeof name, "%.*s", (int)e.name_size, (const char *)body + at + sizeof e);
        uint32_t value = number_of(body + at + sizeof e + e.name_size, e.value_size);
        const sim_change_t *change = state_at(w->monitors, name, page.revision);
        if (!change || change->value != value || change->revision != e.revision ||
            (exact ? strcmp(name, prefix) != 0 : !begins(name, prefix)))
            sim_violation(w, "registry", "core %u shows %s as %u at revision %llu, where the log has it %s%u",
                          p->core, name, value, (unsigned long long)page.revision,
                          change ? "" : "not there, ", change ? change->value : 0);
        at += PAD(sizeof e + e.name_size + e.value_size);
    }
    unsigned expected = count_at(w, prefix, exact, page.revision);
    if (page.n != expected && !page.more)
        sim_violation(w, "registry", "core %u shows %u keys %s at revision %llu; the log has %u", p->core,
                      page.n, prefix, (unsigned long long)page.revision, expected);
}

/* ---- watching ---- */

/* The first change that a watcher of that prefix is to be told of, at that place or behind it. */
static size_t next_told(const sim_monitors_t *all, const char *prefix, size_t at)
{
    while (at < all->n_changes && !begins(all->changes[at].name, prefix)) at++;
    return at;
}

bool check_registry_all_told(const sim_world_t *w, const sim_mclient_t *c)
{
    const sim_monitors_t *all = w->monitors;
    return next_told(all, c->prefix, change_at(all, c->watched)) == all->n_changes;
}

void check_registry_watched(sim_world_t *w, sim_process_t *p, sim_mclient_t *c, const uint8_t *body,
                            size_t size)
{
    const sim_monitors_t *all = w->monitors;
    rf_client_registry_events_t head = {0};
    memcpy(&head, body, size < sizeof head ? size : sizeof head);
    size_t at = sizeof head, next = next_told(all, c->prefix, change_at(all, c->watched));
    if (head.next <= c->watched || head.next > all->revision + 1)
        sim_violation(w, "watch", "client %u watches from revision %llu and is sent on to %llu of %llu",
                      c->number, (unsigned long long)c->watched, (unsigned long long)head.next,
                      (unsigned long long)all->revision);
    if (head.missed && registry_events_first(all->monitors[p->core].monitor->registry) <= c->watched)
        sim_violation(w, "watch", "core %u says that it lacks changes from revision %llu on, and has them",
                      p->core, (unsigned long long)c->watched);
    for (unsigned i = 0; i < head.n && at + sizeof(rf_client_registry_event_t) <= size;
         i++, next = next_told(all, c->prefix, next + 1)) {
        rf_client_registry_event_t e;
        char name[SIM_NAME_MAX];
        memcpy(&e, body + at, sizeof e);
        snprintf(name, sizeof name, "%.*s", (int)e.name_size, (const char *)body + at + sizeof e);
        const sim_change_t *change = next < all->n_changes ? &all->changes[next] : NULL;
        if (!change || change->revision != e.revision || (unsigned)change->what != e.what ||
            strcmp(change->name, name) != 0)
            sim_violation(
                w, "watch",
                "client %u is told by core %u of %s at revision %llu; the next change is of %s at %llu",
                c->number, p->core, name, (unsigned long long)e.revision, change ? change->name : "nothing",
                change ? (unsigned long long)change->revision : 0ull);
        at += PAD(sizeof e + e.name_size + e.value_size);
    }
    if (!head.missed && next < all->n_changes && all->changes[next].revision < head.next)
        sim_violation(w, "watch",
                      "client %u is sent on by core %u to revision %llu, and never told of %s at %llu",
                      c->number, p->core, (unsigned long long)head.next, all->changes[next].name,
                      (unsigned long long)all->changes[next].revision);
    c->watched = head.next;
}
