/*
 * Claims: what an owner has in the registry that must not outlive it.
 *
 * A line holds the claims of one object in the order in which they were made: those granted (HELD), then those that wait;
 * waiting_first is the boundary. Grants go strictly by that order (no small request overtakes a large one), so what is
 * granted is always a prefix.
 */
#include "monitor/registry_inside.h"

static uint32_t *claim_bucket(const registry_t *r, uint64_t wait)
{
    uint64_t h = (wait ^ r->params.seed) * 0x9e3779b97f4a7c15u;
    return &r->claim_hash[(h >> 32) & r->claim_mask];
}

uint32_t claim_find(const registry_t *r, uint64_t wait)
{
    uint32_t at = ~*claim_bucket(r, wait);
    while (at != NONE && r->claims[at].wait != wait) at = ~r->claims[at].hash_next;
    return at;
}

static void line_append(registry_t *r, object_t *o, uint32_t claim)
{
    claim_t *c = &r->claims[claim];
    c->line_previous = o->line_last;
    c->line_next = NONE;
    *(o->line_last == NONE ? &o->line_first : &r->claims[o->line_last].line_next) = claim;
    o->line_last = claim;
    if (c->state == CLAIM_WAITING) {
        if (o->waiting_first == NONE) o->waiting_first = claim;
        o->n_waiting++;
    } else {
        rf_assert(o->waiting_first == NONE);
        o->used += c->n;
    }
}

static void line_remove(registry_t *r, object_t *o, uint32_t claim)
{
    claim_t *c = &r->claims[claim];
    *(c->line_previous == NONE ? &o->line_first : &r->claims[c->line_previous].line_next) = c->line_next;
    *(c->line_next == NONE ? &o->line_last : &r->claims[c->line_next].line_previous) = c->line_previous;
    if (c->state == CLAIM_WAITING) {
        if (o->waiting_first == claim) o->waiting_first = c->line_next;
        o->n_waiting--;
    } else {
        o->used -= c->n;
    }
}

uint32_t claim_add(registry_t *r, claim_state_t state, uint32_t object, const registry_command_t *command,
                   uint32_t user)
{
    uint32_t at = r->claim_free;
    rf_assert(at < r->params.claims_max);
    claim_t *c = &r->claims[at];
    r->claim_free = free_after(at, c->hash_next);
    uint32_t owner = registry_owner_add(r, command->domain, command->session);
    owner_t *o = &r->owners[owner];
    *c = (claim_t){.state = (uint8_t)state,
                   .user = (uint16_t)user,
                   .object = object,
                   .owner = owner,
                   .n = command->n,
                   .cookie = command->cookie,
                   .line_next = NONE,
                   .line_previous = NONE,
                   .owner_next = NONE,
                   .owner_previous = o->last,
                   .all_next = NONE,
                   .all_previous = r->claims_last,
                   .wait = command->wait};
    *(o->last == NONE ? &o->first : &r->claims[o->last].owner_next) = at;
    o->last = at;
    *(r->claims_last == NONE ? &r->claims_first : &r->claims[r->claims_last].all_next) = at;
    r->claims_last = at;
    if (state == CLAIM_EPHEMERAL) {
        r->objects[object].ephemeral = at;
    } else {
        line_append(r, &r->objects[object], at);
        uint32_t *bucket = claim_bucket(r, c->wait);
        c->hash_next = *bucket;
        *bucket = ~at;
    }
    r->users[user].claims++;
    r->usage.claims++;
    return at;
}

void claim_remove(registry_t *r, uint32_t claim)
{
    claim_t *c = &r->claims[claim];
    owner_t *o = &r->owners[c->owner];
    if (c->state == CLAIM_EPHEMERAL) {
        r->objects[c->object].ephemeral = NONE;
    } else {
        line_remove(r, &r->objects[c->object], claim);
        uint32_t *bucket = claim_bucket(r, c->wait);
        while (~*bucket != claim) bucket = &r->claims[~*bucket].hash_next;
        *bucket = c->hash_next;
    }
    *(c->owner_previous == NONE ? &o->first : &r->claims[c->owner_previous].owner_next) = c->owner_next;
    *(c->owner_next == NONE ? &o->last : &r->claims[c->owner_next].owner_previous) = c->owner_previous;
    *(c->all_previous == NONE ? &r->claims_first : &r->claims[c->all_previous].all_next) = c->all_next;
    *(c->all_next == NONE ? &r->claims_last : &r->claims[c->all_next].all_previous) = c->all_previous;
    if (o->first == NONE) registry_owner_remove(r, c->owner);
    uint32_t user = c->user;
    r->users[user].claims--;
    r->usage.claims--;
    c->state = CLAIM_FREE;
    c->hash_next = r->claim_free + 1;
    r->claim_free = claim;
    user_release(r, user);
}

/* Called before the claim goes: its owner is still known. */
static void answer(registry_t *r, uint32_t claim, rf_err_t err, uint64_t revision, const void *bytes,
                   size_t size)
{
    if (!r->answer) return;
    const claim_t *c = &r->claims[claim];
    registry_answer_t a = {.wait = c->wait,
                           .domain = r->owners[c->owner].domain,
                           .session = r->owners[c->owner].session,
                           .cookie = c->cookie,
                           .err = err,
                           .revision = revision,
                           .bytes = bytes,
                           .size = size};
    r->answer(r->context, &a);
}

static void grant_permits(registry_t *r, object_t *o)
{
    while (o->waiting_first != NONE && r->claims[o->waiting_first].n <= o->n - o->used) {
        uint32_t first = o->waiting_first;
        claim_t *c = &r->claims[first];
        o->waiting_first = c->line_next;
        o->n_waiting--;
        o->used += c->n;
        c->state = CLAIM_HELD;
        c->token = ++r->revision;
        answer(r, first, RF_OK, c->token, NULL, 0);
    }
}

static void open_barrier(registry_t *r, object_t *o)
{
    if (o->n_waiting < o->n) return;
    uint64_t generation = ++r->revision;
    while (o->line_first != NONE) {
        answer(r, o->line_first, RF_OK, generation, NULL, 0);
        claim_remove(r, o->line_first);
    }
}

static void hand_out_messages(registry_t *r, object_t *o)
{
    while (o->waiting_first != NONE && o->blob_first != NONE) {
        size_t size = r->blocks[o->blob_first].size;
        blob_read(r, o->blob_first, r->message);
        blob_remove_first(r, o);
        o->used--;
        answer(r, o->waiting_first, RF_OK, ++r->revision, r->message, size);
        claim_remove(r, o->waiting_first);
    }
}

void object_settle(registry_t *r, uint32_t object)
{
    object_t *o = &r->objects[object];
    switch (o->kind) {
    case REGISTRY_LOCK:
    case REGISTRY_SEMAPHORE:
        grant_permits(r, o);
        break;
    case REGISTRY_BARRIER:
        open_barrier(r, o);
        break;
    case REGISTRY_QUEUE:
        hand_out_messages(r, o);
        break;
    default:
        break;
    }
    if ((o->kind == REGISTRY_LOCK || o->kind == REGISTRY_BARRIER) && o->line_first == NONE)
        object_remove(r, object);
}

void object_delete(registry_t *r, uint32_t object, registry_event_what_t what)
{
    object_t *o = &r->objects[object];
    o->revision = ++r->revision;
    if (o->kind == REGISTRY_KEY) event_add(r, what, o, NULL, 0);
    while (o->line_first != NONE) {
        if (r->claims[o->line_first].state == CLAIM_WAITING)
            answer(r, o->line_first, RF_ERR_CANCELLED, r->revision, NULL, 0);
        claim_remove(r, o->line_first);
    }
    if (o->ephemeral != NONE) claim_remove(r, o->ephemeral);
    object_remove(r, object);
}

/* The last place first: whoever stands in a line twice is granted nothing while it goes. */
void registry_owner_leaves(registry_t *r, uint64_t domain, uint64_t session)
{
    uint32_t owner = registry_owner_find(r, domain, session);
    for (uint32_t at = owner == NONE ? NONE : r->owners[owner].last, previous; at != NONE; at = previous) {
        previous = r->claims[at].owner_previous;
        if (r->claims[at].state != CLAIM_WAITING) continue;
        uint32_t object = r->claims[at].object;
        answer(r, at, RF_ERR_PEER_DEAD, r->revision, NULL, 0);
        claim_remove(r, at);
        object_settle(r, object);
    }
}

/* Places in lines first, so that nothing is granted to the dead; then what it held, in the order in which it came by it. */
void registry_owner_ended(registry_t *r, uint64_t domain, uint64_t session)
{
    uint32_t owner;
    registry_owner_leaves(r, domain, session);
    while ((owner = registry_owner_find(r, domain, session)) != NONE) {
        uint32_t at = r->owners[owner].first, object = r->claims[at].object;
        if (r->claims[at].state == CLAIM_EPHEMERAL) {
            object_delete(r, object, REGISTRY_EVENT_EXPIRED);
            continue;
        }
        claim_remove(r, at);
        object_settle(r, object);
    }
}

static bool is_session_of(const owner_t *owner, rf_core_t core)
{
    return owner->domain == 0 && owner->session >> 48 == core;
}

bool registry_core_leaves(registry_t *r, rf_core_t core)
{
    bool holds = false;
    for (uint32_t at = r->claims_first; at != NONE;) {
        owner_t owner = r->owners[r->claims[at].owner];
        bool of_it = is_session_of(&owner, core);
        if (of_it && r->claims[at].state == CLAIM_WAITING) {
            registry_owner_leaves(r, 0, owner.session);
            at = r->claims_first; /* any other may have gone with it */
            holds = false;
            continue;
        }
        holds |= of_it;
        at = r->claims[at].all_next;
    }
    return holds;
}

void registry_core_ended(registry_t *r, rf_core_t core, rf_incarnation_t member)
{
    for (uint32_t at = r->claims_first; at != NONE;) {
        owner_t owner = r->owners[r->claims[at].owner];
        bool lives = member > 0 && registry_number_of(core, member, owner.session) == owner.session;
        if (is_session_of(&owner, core) && !lives) {
            registry_owner_ended(r, 0, owner.session);
            at = r->claims_first; /* any other may have gone with it */
        } else {
            at = r->claims[at].all_next;
        }
    }
}
