/* The registry's tables: objects by name and in order, users, owners, and values in blocks. */
#include "monitor/registry_inside.h"

/* ---- objects ---- */

/* FNV-1a, finished as splitmix64 does: enough against chance; against malice there are quotas. */
static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

static uint64_t hash_bytes(const registry_t *r, uint64_t h, const char *bytes, size_t size)
{
    h ^= r->params.seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) h = (h ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    return mix(h);
}

static int compare(unsigned kind, const char *name, size_t size, const object_t *o)
{
    if (kind != o->kind) return kind < o->kind ? -1 : 1;
    int order = memcmp(name, o->name, size < o->name_size ? size : o->name_size);
    if (order != 0) return order;
    return size == o->name_size ? 0 : size < o->name_size ? -1 : 1;
}

static uint32_t *object_bucket(const registry_t *r, unsigned kind, const char *name, size_t size)
{
    return &r->object_hash[hash_bytes(r, kind, name, size) & r->object_mask];
}

uint32_t object_find(const registry_t *r, unsigned kind, const char *name, size_t size)
{
    uint32_t at = ~*object_bucket(r, kind, name, size);
    while (at != NONE && compare(kind, name, size, &r->objects[at]) != 0) at = ~r->objects[at].hash_next;
    return at;
}

uint32_t object_at_or_above(const registry_t *r, unsigned kind, const char *name, size_t size)
{
    uint32_t best = NONE;
    for (uint32_t at = r->root; at != NONE;) {
        bool above = compare(kind, name, size, &r->objects[at]) <= 0;
        if (above) best = at;
        at = above ? r->objects[at].left : r->objects[at].right;
    }
    return best;
}

static void tree_insert(registry_t *r, uint32_t added)
{
    object_t *objects = r->objects, *o = &objects[added];
    uint32_t *at = &r->root;
    while (*at != NONE && objects[*at].priority >= o->priority)
        at = compare(o->kind, o->name, o->name_size, &objects[*at]) < 0 ? &objects[*at].left
                                                                        : &objects[*at].right;
    uint32_t rest = *at, *low = &o->left, *high = &o->right;
    *at = added;
    while (rest != NONE) { /* splits what was there around the new one */
        if (compare(o->kind, o->name, o->name_size, &objects[rest]) < 0) {
            *high = rest;
            high = &objects[rest].left;
            rest = *high;
        } else {
            *low = rest;
            low = &objects[rest].right;
            rest = *low;
        }
    }
    *low = *high = NONE;
}

static void tree_remove(registry_t *r, uint32_t removed)
{
    object_t *objects = r->objects, *o = &objects[removed];
    uint32_t *at = &r->root;
    while (*at != removed)
        at = compare(o->kind, o->name, o->name_size, &objects[*at]) < 0 ? &objects[*at].left
                                                                        : &objects[*at].right;
    uint32_t low = o->left, high = o->right;
    while (low != NONE && high != NONE) { /* joins its two sides */
        if (objects[low].priority >= objects[high].priority) {
            *at = low;
            at = &objects[low].right;
            low = *at;
        } else {
            *at = high;
            at = &objects[high].left;
            high = *at;
        }
    }
    *at = low != NONE ? low : high;
}

uint32_t object_add(registry_t *r, unsigned kind, const char *name, size_t size, uint32_t user)
{
    uint32_t at = r->object_free;
    rf_assert(at < r->params.objects_max && size <= REGISTRY_NAME_MAX);
    object_t *o = &r->objects[at];
    r->object_free = free_after(at, o->hash_next);
    r->draw += 0x9e3779b97f4a7c15u;
    *o = (object_t){.kind = (uint8_t)kind,
                    .name_size = (uint8_t)size,
                    .user = (uint16_t)user,
                    .priority = (uint32_t)mix(r->draw),
                    .ephemeral = NONE,
                    .blob_first = NONE,
                    .blob_last = NONE,
                    .line_first = NONE,
                    .line_last = NONE,
                    .waiting_first = NONE,
                    .created = r->revision,
                    .revision = r->revision};
    memcpy(o->name, name, size);
    uint32_t *bucket = object_bucket(r, kind, name, size);
    o->hash_next = *bucket;
    *bucket = ~at;
    tree_insert(r, at);
    r->users[user].objects++;
    r->usage.objects++;
    return at;
}

static void unchain(uint32_t *bucket, uint32_t removed, uint32_t *(*next)(registry_t *r, uint32_t at),
                    registry_t *r)
{
    while (~*bucket != removed) bucket = next(r, ~*bucket);
    *bucket = *next(r, removed);
}

static uint32_t *object_next(registry_t *r, uint32_t at)
{
    return &r->objects[at].hash_next;
}

void object_remove(registry_t *r, uint32_t object)
{
    object_t *o = &r->objects[object];
    rf_assert(o->line_first == NONE && o->ephemeral == NONE);
    while (o->blob_first != NONE) blob_remove_first(r, o);
    unchain(object_bucket(r, o->kind, o->name, o->name_size), object, object_next, r);
    tree_remove(r, object);
    uint32_t user = o->user;
    r->users[user].objects--;
    r->usage.objects--;
    o->kind = 0;
    o->hash_next = r->object_free + 1;
    r->object_free = object;
    user_release(r, user);
}

/* ---- users ---- */

static uint32_t *user_bucket(const registry_t *r, const char *name)
{
    return &r->user_hash[hash_bytes(r, 0, name, strnlen(name, REGISTRY_USER_MAX)) & r->user_mask];
}

uint32_t user_find(const registry_t *r, const char *name)
{
    uint32_t at = ~*user_bucket(r, name);
    while (at != NONE && strncmp(r->users[at].name, name, REGISTRY_USER_MAX) != 0)
        at = ~r->users[at].hash_next;
    return at;
}

uint32_t user_add(registry_t *r, const char *name)
{
    uint32_t at = user_find(r, name);
    if (at != NONE) return at;
    at = r->user_free;
    rf_assert(at < r->params.users_max);
    user_t *u = &r->users[at];
    r->user_free = free_after(at, u->hash_next);
    *u = (user_t){0};
    memcpy(u->name, name, strnlen(name, REGISTRY_USER_MAX - 1));
    uint32_t *bucket = user_bucket(r, name);
    u->hash_next = *bucket;
    *bucket = ~at;
    r->usage.users++;
    return at;
}

static uint32_t *user_next(registry_t *r, uint32_t at)
{
    return &r->users[at].hash_next;
}

void user_release(registry_t *r, uint32_t user)
{
    user_t *u = &r->users[user];
    if (u->objects + u->claims + u->blocks > 0) return;
    unchain(user_bucket(r, u->name), user, user_next, r);
    u->name[0] = 0;
    u->hash_next = r->user_free + 1;
    r->user_free = user;
    r->usage.users--;
}

/* ---- owners ---- */

static uint32_t *owner_bucket(const registry_t *r, uint64_t domain, uint64_t session)
{
    return &r->owner_hash[mix(mix(domain ^ r->params.seed) ^ session) & r->claim_mask];
}

uint32_t registry_owner_find(const registry_t *r, uint64_t domain, uint64_t session)
{
    uint32_t at = ~*owner_bucket(r, domain, session);
    while (at != NONE && (r->owners[at].domain != domain || r->owners[at].session != session))
        at = ~r->owners[at].hash_next;
    return at;
}

uint32_t registry_owner_add(registry_t *r, uint64_t domain, uint64_t session)
{
    uint32_t at = registry_owner_find(r, domain, session);
    if (at != NONE) return at;
    at = r->owner_free;
    rf_assert(at < r->params.claims_max);
    owner_t *o = &r->owners[at];
    r->owner_free = free_after(at, o->hash_next);
    uint32_t *bucket = owner_bucket(r, domain, session);
    *o = (owner_t){.domain = domain, .session = session, .first = NONE, .last = NONE, .hash_next = *bucket};
    *bucket = ~at;
    return at;
}

static uint32_t *owner_next(registry_t *r, uint32_t at)
{
    return &r->owners[at].hash_next;
}

void registry_owner_remove(registry_t *r, uint32_t owner)
{
    owner_t *o = &r->owners[owner];
    unchain(owner_bucket(r, o->domain, o->session), owner, owner_next, r);
    o->first = NONE;
    o->hash_next = r->owner_free + 1;
    r->owner_free = owner;
}

/* ---- values ---- */

uint32_t blob_add(registry_t *r, const void *bytes, size_t size, uint32_t user)
{
    unsigned n = blocks_of(size);
    uint32_t first = r->block_free, at = first;
    const uint8_t *from = bytes;
    for (unsigned i = 0; i < n; i++) {
        rf_assert(at < r->params.blocks_max);
        block_t *b = &r->blocks[at];
        size_t part = size < REGISTRY_BLOCK ? size : REGISTRY_BLOCK;
        if (part > 0) memcpy(b->bytes, from, part);
        from += part;
        size -= part;
        at = free_after(at, b->next);
        b->next = i == n - 1 ? NONE : at;
    }
    r->block_free = at;
    block_t *head = &r->blocks[first];
    head->size = (uint16_t)(from - (const uint8_t *)bytes);
    head->after = NONE;
    head->user = (uint16_t)user;
    r->users[user].blocks += n;
    r->usage.blocks += n;
    return first;
}

void blob_remove(registry_t *r, uint32_t blob)
{
    uint32_t at = blob, user = r->blocks[blob].user;
    unsigned n = blocks_of(r->blocks[blob].size);
    while (r->blocks[at].next != NONE) {
        uint32_t next = r->blocks[at].next;
        r->blocks[at].next = next + 1;
        at = next;
    }
    r->blocks[at].next = r->block_free + 1;
    r->block_free = blob;
    r->users[user].blocks -= n;
    r->usage.blocks -= n;
    user_release(r, user);
}

void blob_read(const registry_t *r, uint32_t blob, void *out)
{
    size_t left = r->blocks[blob].size;
    uint8_t *to = out;
    for (uint32_t at = blob; left > 0; at = r->blocks[at].next) {
        size_t part = left < REGISTRY_BLOCK ? left : REGISTRY_BLOCK;
        memcpy(to, r->blocks[at].bytes, part);
        to += part;
        left -= part;
    }
}

bool blob_equals(const registry_t *r, uint32_t blob, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    if (r->blocks[blob].size != size) return false;
    for (uint32_t at = blob; size > 0; at = r->blocks[at].next) {
        size_t part = size < REGISTRY_BLOCK ? size : REGISTRY_BLOCK;
        if (memcmp(from, r->blocks[at].bytes, part) != 0) return false;
        from += part;
        size -= part;
    }
    return true;
}

void blob_append(registry_t *r, object_t *o, uint32_t blob)
{
    if (o->blob_first == NONE)
        o->blob_first = blob;
    else
        r->blocks[o->blob_last].after = blob;
    o->blob_last = blob;
}

void blob_remove_first(registry_t *r, object_t *o)
{
    uint32_t blob = o->blob_first;
    o->blob_first = r->blocks[blob].after;
    if (o->blob_first == NONE) o->blob_last = NONE;
    blob_remove(r, blob);
}
