/* The registry: memory, commands, reading. Each command decides first, changes nothing until it cannot fail, then acts. */
#include "monitor/registry_inside.h"

#include <stdio.h>

#define USERS_LIMIT   4096
#define ENTRIES_LIMIT (1u << 20)
#define SHARED        "shared/"
#define MACHINE       "machine/"

/* ---- memory ---- */

static uint32_t buckets(unsigned entries)
{
    uint32_t n = 16;
    while (n < entries) n *= 2;
    return n;
}

/* Lays the tables out behind the header; with a registry also points it at them. */
static size_t lay_out(const registry_params_t *p, registry_t *r)
{
    size_t at = 0;
    uint8_t *base = (uint8_t *)r;
#define TABLE(field, type, count)                                                                            \
    do {                                                                                                     \
        if (r) r->field = (type *)(void *)(base + at);                                                       \
        at += ((count) * sizeof(type) + 15) & ~(size_t)15;                                                   \
    } while (0)
    at += (sizeof(registry_t) + 15) & ~(size_t)15;
    TABLE(objects, object_t, p->objects_max);
    TABLE(claims, claim_t, p->claims_max);
    TABLE(owners, owner_t, p->claims_max);
    TABLE(users, user_t, p->users_max);
    TABLE(blocks, block_t, p->blocks_max);
    TABLE(events, event_t, p->events_max);
    TABLE(event_bytes, uint8_t, p->events_bytes);
    TABLE(object_hash, uint32_t, buckets(p->objects_max));
    TABLE(claim_hash, uint32_t, buckets(p->claims_max));
    TABLE(owner_hash, uint32_t, buckets(p->claims_max));
    TABLE(user_hash, uint32_t, buckets(p->users_max));
    TABLE(loaded, loaded_t, p->objects_max);
#undef TABLE
    return at;
}

static bool params_valid(const registry_params_t *p)
{
    return p->objects_max > 0 && p->objects_max <= ENTRIES_LIMIT && p->claims_max > 0 &&
           p->claims_max <= ENTRIES_LIMIT && p->blocks_max > 0 && p->blocks_max <= ENTRIES_LIMIT &&
           p->users_max > 0 && p->users_max <= USERS_LIMIT && p->events_max > 0 &&
           (p->events_max & (p->events_max - 1)) == 0 && p->events_max <= ENTRIES_LIMIT &&
           p->events_bytes >= REGISTRY_NAME_MAX + REGISTRY_VALUE_MAX;
}

size_t registry_size(const registry_params_t *params)
{
    return params_valid(params) ? lay_out(params, NULL) : 0;
}

void registry_clear(registry_t *r)
{
    r->root = r->claims_first = r->claims_last = NONE;
    if (r->used) memset(r->objects, 0, (size_t)((uint8_t *)r->loaded - (uint8_t *)r->objects));
    r->used = false;
    r->object_free = r->claim_free = r->owner_free = r->user_free = r->block_free = 0;
    r->usage = (registry_usage_t){0};
    r->revision = 0;
    events_forget(r);
}

rf_err_t registry_init(void *memory, size_t size, const registry_params_t *params, registry_answer_fn answer,
                       void *context, registry_t **out)
{
    size_t wanted = registry_size(params);
    if (wanted == 0) return RF_ERR_INVALID;
    if (size < wanted) return RF_ERR_NO_MEMORY;
    registry_t *r = memory;
    *r = (registry_t){.params = *params, .answer = answer, .context = context, .draw = params->seed};
    lay_out(params, r);
    r->object_mask = buckets(params->objects_max) - 1;
    r->claim_mask = buckets(params->claims_max) - 1;
    r->user_mask = buckets(params->users_max) - 1;
    registry_clear(r);
    *out = r;
    return RF_OK;
}

/* ---- what a command needs ---- */

/* A command taken apart; all pointers into its bytes. */
typedef struct request {
    registry_command_t c;
    const char *name;
    const uint8_t *value, *compare;
    uint32_t object, user; /* found, or NONE */
} request_t;

bool registry_name_is_valid(const char *name, size_t size)
{
    if (size == 0 || size > REGISTRY_NAME_MAX) return false;
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)name[i] <= ' ' || name[i] == 127) return false;
    return true;
}

static bool begins_with(const request_t *q, const char *prefix)
{
    size_t size = strlen(prefix);
    return q->c.name_size >= size && memcmp(q->name, prefix, size) == 0;
}

static rf_err_t check_permission(const registry_t *r, const request_t *q)
{
    if ((q->c.flags & REGISTRY_PRIVILEGED) || begins_with(q, SHARED)) return RF_OK;
    if (q->object == NONE) return begins_with(q, MACHINE) ? RF_ERR_PERMISSION : RF_OK;
    return q->user != NONE && r->objects[q->object].user == q->user ? RF_OK : RF_ERR_PERMISSION;
}

/* Is there room, and quota, for so much more? */
static rf_err_t check_room(const registry_t *r, const request_t *q, unsigned objects, unsigned claims,
                           unsigned blocks)
{
    static const user_t nobody;
    const registry_params_t *p = &r->params;
    const user_t *u = q->user != NONE ? &r->users[q->user] : &nobody;
    bool fits = r->usage.objects + objects <= p->objects_max && r->usage.claims + claims <= p->claims_max &&
                r->usage.blocks + blocks <= p->blocks_max &&
                (q->user != NONE || r->usage.users < p->users_max) &&
                (objects == 0 || u->objects + objects <= p->user_objects_max) &&
                (claims == 0 || u->claims + claims <= p->user_claims_max) &&
                (blocks == 0 || u->blocks + blocks <= p->user_blocks_max);
    return fits ? RF_OK : RF_ERR_LIMIT;
}

static bool has_owner(const request_t *q)
{
    return q->c.domain != 0 || q->c.session != 0;
}

static uint32_t add_object(registry_t *r, request_t *q, unsigned kind)
{
    q->user = user_add(r, q->c.user);
    q->object = object_add(r, kind, q->name, q->c.name_size, q->user);
    return q->object;
}

static rf_err_t check_condition(const registry_t *r, const request_t *q)
{
    const object_t *o = q->object != NONE ? &r->objects[q->object] : NULL;
    switch (q->c.condition) {
    case REGISTRY_ALWAYS:
        return RF_OK;
    case REGISTRY_IF_ABSENT:
        return o ? RF_ERR_EXISTS : RF_OK;
    case REGISTRY_IF_PRESENT:
        return o ? RF_OK : RF_ERR_NOT_FOUND;
    case REGISTRY_IF_REVISION:
        return !o ? RF_ERR_NOT_FOUND : o->revision == q->c.number ? RF_OK : RF_ERR_BUSY;
    case REGISTRY_IF_VERSION:
        return !o ? RF_ERR_NOT_FOUND : o->version == q->c.number ? RF_OK : RF_ERR_BUSY;
    case REGISTRY_IF_VALUE:
        if (q->c.kind != REGISTRY_KEY) return RF_ERR_INVALID;
        if (!o) return RF_ERR_NOT_FOUND;
        return blob_equals(r, o->blob_first, q->compare, q->c.compare_size) ? RF_OK : RF_ERR_BUSY;
    default:
        return RF_ERR_INVALID;
    }
}

/* ---- commands ---- */

/* A sequential name is what the revision makes of it: unique, and rising in the order of the log. */
static rf_err_t name_in_sequence(const registry_t *r, request_t *q, char *room)
{
    size_t size = (size_t)q->c.name_size + REGISTRY_SUFFIX;
    if (size > REGISTRY_NAME_MAX || q->c.condition != REGISTRY_ALWAYS) return RF_ERR_INVALID;
    snprintf(room, REGISTRY_NAME_MAX + 1, "%.*s%0*llu", (int)q->c.name_size, q->name, REGISTRY_SUFFIX,
             (unsigned long long)(r->revision + 1) % 10000000000000000ull);
    q->name = room;
    q->c.name_size = (uint16_t)size;
    q->object = object_find(r, REGISTRY_KEY, room, size);
    return q->object == NONE ? RF_OK : RF_ERR_EXISTS; /* somebody wrote it by hand */
}

static rf_err_t put(registry_t *r, request_t *q, uint64_t *value)
{
    char room[REGISTRY_NAME_MAX + 1];
    bool ephemeral = q->c.flags & REGISTRY_EPHEMERAL;
    if (q->c.kind != REGISTRY_KEY || (ephemeral && !has_owner(q))) return RF_ERR_INVALID;
    rf_err_t err = q->c.flags & REGISTRY_SEQUENTIAL ? name_in_sequence(r, q, room) : RF_OK;
    if (err == RF_OK) err = check_permission(r, q);
    if (err == RF_OK) err = check_condition(r, q);
    if (err != RF_OK) return err;
    object_t *o = q->object != NONE ? &r->objects[q->object] : NULL;
    /* Who lives by whom is settled when a key is made. */
    if (o && ephemeral) {
        const owner_t *owner = o->ephemeral != NONE ? &r->owners[r->claims[o->ephemeral].owner] : NULL;
        if (!owner || owner->domain != q->c.domain || owner->session != q->c.session) return RF_ERR_EXISTS;
    }
    unsigned wanted = blocks_of(q->c.value_size);
    unsigned given =
        o && q->user == r->blocks[o->blob_first].user ? blocks_of(r->blocks[o->blob_first].size) : 0;
    err = check_room(r, q, !o, !o && ephemeral, wanted > given ? wanted - given : 0);
    if (err != RF_OK) return err;

    r->revision++;
    q->user = user_add(r, q->c.user);
    if (!o) {
        uint32_t object = add_object(r, q, REGISTRY_KEY);
        o = &r->objects[object];
        if (ephemeral) claim_add(r, CLAIM_EPHEMERAL, object, &q->c, q->user);
    } else {
        r->users[q->user].claims++; /* keeps the user while the old value goes */
        blob_remove(r, o->blob_first);
        r->users[q->user].claims--;
    }
    o->blob_first = o->blob_last = blob_add(r, q->value, q->c.value_size, q->user);
    o->revision = r->revision;
    o->version++;
    event_add(r, REGISTRY_EVENT_PUT, o, q->value, q->c.value_size);
    *value = r->revision;
    return RF_OK;
}

static rf_err_t delete (registry_t *r, request_t *q, uint64_t *value)
{
    if (q->c.kind != REGISTRY_KEY && q->c.kind != REGISTRY_SEMAPHORE && q->c.kind != REGISTRY_QUEUE)
        return RF_ERR_INVALID;
    if (q->object == NONE) return RF_ERR_NOT_FOUND;
    rf_err_t err = check_permission(r, q);
    if (err == RF_OK) err = check_condition(r, q);
    if (err != RF_OK) return err;
    object_delete(r, q->object, REGISTRY_EVENT_DELETED);
    *value = r->revision;
    return RF_OK;
}

static rf_err_t create(registry_t *r, request_t *q, uint64_t *value)
{
    bool ephemeral = q->c.flags & REGISTRY_EPHEMERAL;
    if ((q->c.kind != REGISTRY_SEMAPHORE && q->c.kind != REGISTRY_QUEUE) || q->c.n == 0 ||
        (ephemeral && !has_owner(q)))
        return RF_ERR_INVALID;
    rf_err_t err = check_permission(r, q);
    if (err != RF_OK) return err;
    if (q->object != NONE) {
        *value = r->objects[q->object].revision;
        return r->objects[q->object].n == q->c.n ? RF_OK : RF_ERR_EXISTS;
    }
    err = check_room(r, q, 1, ephemeral, 0);
    if (err != RF_OK) return err;

    r->revision++;
    uint32_t object = add_object(r, q, q->c.kind);
    r->objects[object].n = q->c.n;
    r->objects[object].version = 1;
    q->c.n = 0; /* of the claim: it takes no permits */
    if (ephemeral) claim_add(r, CLAIM_EPHEMERAL, object, &q->c, q->user);
    *value = r->revision;
    return RF_OK;
}

/* Into the line, and granted at once if it can be: what is not tried stays there. */
static rf_err_t stand_in_line(registry_t *r, request_t *q, bool now, uint64_t *value)
{
    if ((q->c.flags & REGISTRY_TRY) && !now) return RF_ERR_BUSY;
    if (claim_find(r, q->c.wait) != NONE) return RF_ERR_EXISTS;
    bool makes = q->object == NONE;
    rf_err_t err = check_room(r, q, makes, 1, 0);
    if (err != RF_OK) return err;

    r->revision++;
    q->user = user_add(r, q->c.user);
    if (makes) {
        uint32_t object = add_object(r, q, q->c.kind);
        r->objects[object].n = q->c.kind == REGISTRY_LOCK ? 1 : q->c.n;
        r->objects[object].version = 1;
    }
    claim_add(r, CLAIM_WAITING, q->object, &q->c, q->user);
    object_settle(r, q->object);
    *value = now ? r->revision : 0;
    return RF_OK;
}

static rf_err_t acquire(registry_t *r, request_t *q, uint64_t *value)
{
    if (!has_owner(q)) return RF_ERR_INVALID;
    if (q->c.kind == REGISTRY_LOCK)
        q->c.n = 1;
    else if (q->c.kind != REGISTRY_SEMAPHORE || q->c.n == 0)
        return RF_ERR_INVALID;
    rf_err_t err = check_permission(r, q);
    if (err != RF_OK) return err;
    const object_t *o = q->object != NONE ? &r->objects[q->object] : NULL;
    if (q->c.kind == REGISTRY_SEMAPHORE && !o) return RF_ERR_NOT_FOUND;
    if (o && q->c.n > o->n) return RF_ERR_INVALID; /* never */
    return stand_in_line(r, q, !o || (o->waiting_first == NONE && q->c.n <= o->n - o->used), value);
}

static rf_err_t barrier_wait(registry_t *r, request_t *q, uint64_t *value)
{
    if (!has_owner(q) || q->c.kind != REGISTRY_BARRIER || q->c.n == 0) return RF_ERR_INVALID;
    rf_err_t err = check_permission(r, q);
    if (err != RF_OK) return err;
    const object_t *o = q->object != NONE ? &r->objects[q->object] : NULL;
    if (o && o->n != q->c.n) return RF_ERR_EXISTS; /* others are waiting for another number */
    uint32_t n = q->c.n;
    return stand_in_line(r, q, (o ? o->n_waiting : 0) + 1 == n, value);
}

static rf_err_t pop(registry_t *r, request_t *q, uint64_t *value)
{
    if (!has_owner(q) || q->c.kind != REGISTRY_QUEUE) return RF_ERR_INVALID;
    if (q->object == NONE) return RF_ERR_NOT_FOUND;
    rf_err_t err = check_permission(r, q);
    if (err != RF_OK) return err;
    q->c.n = 0;
    return stand_in_line(r, q, r->objects[q->object].blob_first != NONE, value);
}

static rf_err_t push(registry_t *r, request_t *q, uint64_t *value)
{
    if (q->c.kind != REGISTRY_QUEUE) return RF_ERR_INVALID;
    if (q->object == NONE) return RF_ERR_NOT_FOUND;
    rf_err_t err = check_permission(r, q);
    if (err != RF_OK) return err;
    object_t *o = &r->objects[q->object];
    if (o->used == o->n) return RF_ERR_BUSY;
    err = check_room(r, q, 0, 0, blocks_of(q->c.value_size));
    if (err != RF_OK) return err;

    o->revision = ++r->revision;
    o->version++;
    blob_append(r, o, blob_add(r, q->value, q->c.value_size, user_add(r, q->c.user)));
    o->used++;
    *value = r->revision;
    object_settle(r, q->object);
    return RF_OK;
}

static bool is_owner(const registry_t *r, const claim_t *claim, const request_t *q)
{
    const owner_t *o = &r->owners[claim->owner];
    return o->domain == q->c.domain && o->session == q->c.session;
}

static rf_err_t release(registry_t *r, request_t *q, uint64_t *value)
{
    if (q->c.kind != REGISTRY_LOCK && q->c.kind != REGISTRY_SEMAPHORE) return RF_ERR_INVALID;
    uint32_t owner = registry_owner_find(r, q->c.domain, q->c.session);
    uint32_t at = owner == NONE || q->object == NONE ? NONE : r->owners[owner].first;
    while (at != NONE && (r->claims[at].object != q->object || r->claims[at].state != CLAIM_HELD ||
                          r->claims[at].token != q->c.number))
        at = r->claims[at].owner_next; /* as many as that owner has, a quota */
    if (at == NONE) return RF_ERR_NOT_FOUND;
    *value = ++r->revision;
    claim_remove(r, at);
    object_settle(r, q->object);
    return RF_OK;
}

static rf_err_t cancel(registry_t *r, request_t *q, uint64_t *value)
{
    uint32_t at = claim_find(r, q->c.wait);
    if (at == NONE || !is_owner(r, &r->claims[at], q)) return RF_OK;
    const claim_t *claim = &r->claims[at];
    bool held = claim->state == CLAIM_HELD && (q->c.flags & REGISTRY_GIVE_BACK);
    if (claim->state != CLAIM_WAITING && !held) return RF_OK;
    uint32_t object = claim->object;
    r->revision++;
    claim_remove(r, at);
    object_settle(r, object);
    *value = 1;
    return RF_OK;
}

static rf_err_t decode(const registry_t *r, const void *bytes, size_t size, request_t *q)
{
    registry_command_t *c = &q->c;
    if (size < sizeof *c || size > REGISTRY_COMMAND_MAX) return RF_ERR_INVALID;
    memcpy(c, bytes, sizeof *c);
    bool named = c->op != REGISTRY_CANCEL && c->op != REGISTRY_SESSION_END;
    size_t user_size = strnlen(c->user, sizeof c->user);
    if (c->op < REGISTRY_OP_FIRST || c->op > REGISTRY_OP_LAST || (c->flags & ~REGISTRY_FLAGS) != 0 ||
        c->condition >= REGISTRY_CONDITIONS || user_size == 0 || user_size == sizeof c->user ||
        c->value_size > REGISTRY_VALUE_MAX || c->compare_size > REGISTRY_VALUE_MAX ||
        size != sizeof *c + c->name_size + c->value_size + c->compare_size)
        return RF_ERR_INVALID;
    q->name = (const char *)bytes + sizeof *c;
    q->value = (const uint8_t *)q->name + c->name_size;
    q->compare = q->value + c->value_size;
    if (named ? !registry_name_is_valid(q->name, c->name_size) || c->kind == 0 || c->kind >= REGISTRY_KINDS
              : c->name_size > 0)
        return RF_ERR_INVALID;
    q->user = user_find(r, c->user);
    q->object = named ? object_find(r, c->kind, q->name, c->name_size) : NONE;
    return RF_OK;
}

rf_err_t registry_apply(registry_t *r, const void *bytes, size_t size, uint64_t *value)
{
    request_t q;
    *value = 0;
    rf_err_t err = decode(r, bytes, size, &q);
    if (err != RF_OK) return err;
    r->used = true;
    switch (q.c.op) {
    case REGISTRY_PUT:
        return put(r, &q, value);
    case REGISTRY_DELETE:
        return delete (r, &q, value);
    case REGISTRY_CREATE:
        return create(r, &q, value);
    case REGISTRY_ACQUIRE:
        return acquire(r, &q, value);
    case REGISTRY_RELEASE:
        return release(r, &q, value);
    case REGISTRY_WAIT:
        return barrier_wait(r, &q, value);
    case REGISTRY_PUSH:
        return push(r, &q, value);
    case REGISTRY_POP:
        return pop(r, &q, value);
    case REGISTRY_CANCEL:
        return cancel(r, &q, value);
    default: /* REGISTRY_SESSION_END */
        if (q.c.domain != 0 || q.c.session == 0) return RF_ERR_INVALID;
        registry_owner_ended(r, 0, q.c.session);
        return RF_OK;
    }
}

uint64_t registry_session_above(const registry_t *r, rf_core_t core, uint64_t session)
{
    uint64_t least = 0;
    for (uint32_t at = r->claims_first; at != NONE; at = r->claims[at].all_next) {
        const owner_t *o = &r->owners[r->claims[at].owner];
        if (o->domain == 0 && o->session >> 48 == core && o->session > session &&
            (least == 0 || o->session < least))
            least = o->session;
    }
    return least;
}

/* ---- reading ---- */

uint64_t registry_revision(const registry_t *r)
{
    return r->revision;
}

static void describe(const registry_t *r, uint32_t object, registry_entry_t *out)
{
    const object_t *o = &r->objects[object];
    *out = (registry_entry_t){.kind = (registry_kind_t)o->kind,
                              .ephemeral = o->ephemeral != NONE,
                              .name_size = o->name_size,
                              .created = o->created,
                              .revision = o->revision,
                              .version = o->version,
                              .n = o->n,
                              .used = o->used,
                              .waiting = o->n_waiting,
                              .handle = object};
    uint32_t claim = o->ephemeral;
    if (o->kind == REGISTRY_LOCK && o->line_first != o->waiting_first) {
        claim = o->line_first;
        out->revision = r->claims[claim].token;
    }
    if (claim != NONE) {
        out->domain = r->owners[r->claims[claim].owner].domain;
        out->session = r->owners[r->claims[claim].owner].session;
    }
    if (o->kind == REGISTRY_KEY) out->value_size = r->blocks[o->blob_first].size;
    memcpy(out->name, o->name, o->name_size);
    memcpy(out->user, r->users[o->user].name, sizeof out->user);
}

bool registry_get(const registry_t *r, registry_kind_t kind, const char *name, size_t size,
                  registry_entry_t *out)
{
    uint32_t object = size <= REGISTRY_NAME_MAX ? object_find(r, kind, name, size) : NONE;
    if (object == NONE) return false;
    describe(r, object, out);
    return true;
}

bool registry_next(const registry_t *r, registry_kind_t kind, const char *prefix, size_t prefix_size,
                   const char *from, size_t from_size, registry_entry_t *out)
{
    size_t common = prefix_size < from_size ? prefix_size : from_size;
    int order = memcmp(from, prefix, common);
    bool from_is_above = order > 0 || (order == 0 && from_size > prefix_size);
    uint32_t at = from_is_above ? object_at_or_above(r, kind, from, from_size)
                                : object_at_or_above(r, kind, prefix, prefix_size);
    if (at == NONE) return false;
    const object_t *o = &r->objects[at];
    if (o->kind != kind || o->name_size < prefix_size || memcmp(o->name, prefix, prefix_size) != 0)
        return false;
    describe(r, at, out);
    return true;
}

void registry_value(const registry_t *r, const registry_entry_t *entry, void *out)
{
    rf_assert(entry->handle < r->params.objects_max && r->objects[entry->handle].kind == REGISTRY_KEY);
    blob_read(r, r->objects[entry->handle].blob_first, out);
}

registry_wait_state_t registry_wait_state(const registry_t *r, uint64_t wait, uint64_t *token)
{
    uint32_t at = claim_find(r, wait);
    if (at == NONE) return REGISTRY_WAIT_NONE;
    *token = r->claims[at].token;
    return r->claims[at].state == CLAIM_HELD ? REGISTRY_WAIT_HELD : REGISTRY_WAIT_WAITING;
}

void registry_usage(const registry_t *r, registry_usage_t *out)
{
    *out = r->usage;
}
