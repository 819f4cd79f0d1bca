/* Every invariant of the registry; the work is in proportion to what is in it. */
#include "monitor/registry_inside.h"

typedef struct found {
    unsigned objects, claims, blocks;
} found_t;

static void check_line(const registry_t *r, uint32_t object, found_t *found)
{
    const object_t *o = &r->objects[object];
    uint32_t used = 0, waiting = 0, previous = NONE;
    for (uint32_t at = o->line_first; at != NONE; at = r->claims[at].line_next) {
        const claim_t *c = &r->claims[at];
        rf_assert(c->object == object && c->line_previous == previous);
        rf_assert(c->state == CLAIM_HELD || c->state == CLAIM_WAITING);
        if (c->state == CLAIM_WAITING && waiting++ == 0) rf_assert(o->waiting_first == at);
        if (c->state == CLAIM_HELD) {
            rf_assert(waiting == 0 && c->token > 0 && c->token <= r->revision);
            used += c->n;
        }
        uint32_t same = claim_find(r, c->wait);
        rf_assert(same != NONE && r->claims[same].wait == c->wait);
        found->claims++;
        previous = at;
    }
    rf_assert(o->line_last == previous && o->n_waiting == waiting &&
              (waiting > 0 || o->waiting_first == NONE));
    bool permits = o->kind == REGISTRY_LOCK || o->kind == REGISTRY_SEMAPHORE;
    rf_assert(permits ? o->used == used && used <= o->n : used == 0);
    /* Whoever stands first could not be granted: nobody waits in vain. */
    if (permits && waiting > 0) rf_assert(r->claims[o->waiting_first].n > o->n - used);
    if (o->kind == REGISTRY_LOCK) rf_assert(used == 1);
    if (o->kind == REGISTRY_BARRIER) rf_assert(waiting > 0 && waiting < o->n);
    if (o->kind == REGISTRY_QUEUE) rf_assert(waiting == 0 || o->used == 0);
}

static void check_object(const registry_t *r, uint32_t object, found_t *found)
{
    const object_t *o = &r->objects[object];
    unsigned blobs = 0;
    rf_assert(registry_name_is_valid(o->name, o->name_size) && o->created <= o->revision &&
              o->revision <= r->revision && o->version > 0);
    rf_assert(object_find(r, o->kind, o->name, o->name_size) == object);
    for (uint32_t b = o->blob_first; b != NONE; b = r->blocks[b].after) {
        unsigned n = 0;
        for (uint32_t at = b; at != NONE; at = r->blocks[at].next) n++;
        rf_assert(n == blocks_of(r->blocks[b].size) && r->blocks[b].size <= REGISTRY_VALUE_MAX);
        rf_assert(r->blocks[b].after != NONE || o->blob_last == b);
        rf_assert(r->users[r->blocks[b].user].blocks >= n);
        found->blocks += n;
        blobs++;
    }
    rf_assert(o->kind == REGISTRY_KEY     ? blobs == 1
              : o->kind == REGISTRY_QUEUE ? blobs == o->used
                                          : blobs == 0);
    if (o->kind == REGISTRY_QUEUE) rf_assert(o->used <= o->n);
    if (o->ephemeral != NONE) {
        rf_assert(r->claims[o->ephemeral].state == CLAIM_EPHEMERAL &&
                  r->claims[o->ephemeral].object == object);
        found->claims++;
    }
    check_line(r, object, found);
    found->objects++;
}

/* In order, and a heap. */
static void check_tree(const registry_t *r, found_t *found)
{
    uint32_t previous = NONE;
    for (uint32_t at = object_at_or_above(r, 0, "", 0); at != NONE;) {
        const object_t *o = &r->objects[at];
        if (previous != NONE) {
            const object_t *p = &r->objects[previous];
            int order = memcmp(p->name, o->name, REGISTRY_NAME_MAX); /* padded with zeroes */
            rf_assert(p->kind < o->kind || (p->kind == o->kind && order < 0));
        }
        rf_assert(o->left == NONE || r->objects[o->left].priority <= o->priority);
        rf_assert(o->right == NONE || r->objects[o->right].priority <= o->priority);
        check_object(r, at, found);
        previous = at;
        at = object_at_or_above(r, o->kind, o->name, o->name_size + 1u);
    }
}

void registry_check(const registry_t *r)
{
    found_t found = {0};
    unsigned claims = 0, of_owners = 0, objects = 0, of_users = 0, blocks = 0, users = 0;
    check_tree(r, &found);
    for (uint32_t at = r->claims_first, previous = NONE; at != NONE;
         previous = at, at = r->claims[at].all_next) {
        const claim_t *c = &r->claims[at];
        rf_assert(c->state != CLAIM_FREE && c->all_previous == previous && c->user < r->params.users_max);
        const owner_t *o = &r->owners[c->owner];
        rf_assert(registry_owner_find(r, o->domain, o->session) == c->owner);
        if (o->first == at) {
            for (uint32_t k = at; k != NONE; k = r->claims[k].owner_next) {
                rf_assert(r->claims[k].owner == c->owner);
                of_owners++;
            }
        }
        claims++;
    }
    for (uint32_t i = 0; i < r->params.users_max; i++) {
        const user_t *u = &r->users[i];
        if (u->name[0] == 0) continue;
        rf_assert(user_find(r, u->name) == i && u->objects + u->claims + u->blocks > 0);
        objects += u->objects;
        of_users += u->claims;
        blocks += u->blocks;
        users++;
    }
    rf_assert(claims == found.claims && claims == of_owners && claims == of_users &&
              claims == r->usage.claims);
    rf_assert(found.objects == objects && objects == r->usage.objects);
    rf_assert(found.blocks == blocks && blocks == r->usage.blocks && users == r->usage.users);
    rf_assert(r->events_first <= r->n_events && r->n_events - r->events_first <= r->params.events_max &&
              r->usage.events == r->n_events - r->events_first);
}
