/*
 * What watchers are told: the last changes of keys, in order of revision, in a ring of events and a ring of their bytes
 * (name, then value). Whoever wants an event that is no longer there is told so; nobody is waited for.
 */
#include "monitor/registry_inside.h"

static event_t *event_at(const registry_t *r, uint64_t i)
{
    return &r->events[i & (r->params.events_max - 1)];
}

static void drop_first(registry_t *r)
{
    r->events_since = event_at(r, r->events_first++)->revision + 1;
}

void event_add(registry_t *r, registry_event_what_t what, const object_t *o, const void *value, size_t size)
{
    uint64_t room = r->params.events_bytes, at = r->events_end;
    size_t wanted = o->name_size + size;
    if (at % room + wanted > room) at += room - at % room; /* not over the edge */
    while (r->events_first < r->n_events && (r->n_events - r->events_first == r->params.events_max ||
                                             at + wanted - event_at(r, r->events_first)->position > room))
        drop_first(r);
    event_t *e = event_at(r, r->n_events++);
    *e = (event_t){.revision = o->revision,
                   .version = o->version,
                   .position = at,
                   .name_size = o->name_size,
                   .value_size = (uint16_t)size,
                   .what = (uint8_t)what};
    memcpy(r->event_bytes + at % room, o->name, o->name_size);
    if (size > 0) memcpy(r->event_bytes + at % room + o->name_size, value, size);
    r->events_end = at + wanted;
    r->usage.events = (unsigned)(r->n_events - r->events_first);
}

void events_forget(registry_t *r)
{
    r->events_first = r->n_events;
    r->events_since = r->revision + 1;
    r->usage.events = 0;
}

uint64_t registry_events_first(const registry_t *r)
{
    return r->events_since;
}

bool registry_event(const registry_t *r, uint64_t from, const char *name, size_t size, bool exact,
                    registry_event_t *out, uint64_t *scanned)
{
    uint64_t low = r->events_first, high = r->n_events;
    while (low < high) { /* the first at or above `from` */
        uint64_t middle = low + (high - low) / 2;
        if (event_at(r, middle)->revision < from)
            low = middle + 1;
        else
            high = middle;
    }
    for (uint64_t i = low; i < r->n_events; i++) {
        const event_t *e = event_at(r, i);
        const uint8_t *bytes = r->event_bytes + e->position % r->params.events_bytes;
        if (e->name_size < size || (exact && e->name_size != size) || memcmp(bytes, name, size) != 0)
            continue;
        *out = (registry_event_t){.what = (registry_event_what_t)e->what,
                                  .revision = e->revision,
                                  .version = e->version,
                                  .name_size = e->name_size,
                                  .value_size = e->value_size,
                                  .name = (const char *)bytes,
                                  .value = bytes + e->name_size};
        if (scanned) *scanned = e->revision;
        return true;
    }
    if (scanned) *scanned = r->revision + 1;
    return false;
}
