/*
 * Snapshots of the registry: flat bytes, little-endian, packed.
 *
 *   head    magic, version, revision, how many users, objects, claims
 *   users   {size, name}                        in the order in which what follows names them
 *   objects {head, name, blobs: {size, user, bytes}}    in order of (kind, name)
 *   claims  {record}                            in the order in which they were made, which is the order of every line
 *
 * Loading reads the bytes twice: once to check everything that building relies on, changing nothing; then to build.
 */
#include "monitor/registry_inside.h"

#define MAGIC   0x47524652u /* "RFRG" */
#define VERSION 1u

typedef struct save_head {
    uint32_t magic, version;
    uint64_t revision;
    uint32_t n_users, n_objects, n_claims, reserved;
} save_head_t;

typedef struct save_object {
    uint8_t kind, name_size;
    uint16_t user;
    uint32_t n, n_blobs, reserved;
    uint64_t created, revision, version;
} save_object_t;

typedef struct save_blob {
    uint16_t size, user;
} save_blob_t;

typedef struct save_claim {
    uint8_t state, reserved;
    uint16_t user;
    uint32_t object, n, cookie;
    uint64_t wait, token, domain, session;
} save_claim_t;
_Static_assert(sizeof(save_head_t) == 32 && sizeof(save_object_t) == 40 && sizeof(save_blob_t) == 4 &&
                   sizeof(save_claim_t) == 48,
               "saved layout");

size_t registry_save_max(const registry_params_t *p)
{
    return sizeof(save_head_t) + p->users_max * (size_t)REGISTRY_USER_MAX +
           p->objects_max * (sizeof(save_object_t) + REGISTRY_NAME_MAX) +
           p->blocks_max * (sizeof(save_blob_t) + REGISTRY_BLOCK) + p->claims_max * sizeof(save_claim_t);
}

/* ---- saving ---- */

typedef struct writer {
    uint8_t *at;
    size_t left;
    bool full;
} writer_t;

static void write_bytes(writer_t *w, const void *bytes, size_t size)
{
    if (size > w->left) w->full = true;
    if (w->full) return;
    memcpy(w->at, bytes, size);
    w->at += size;
    w->left -= size;
}

static uint32_t next_object(const registry_t *r, uint32_t object)
{
    if (object == NONE) return object_at_or_above(r, 0, "", 0);
    const object_t *o = &r->objects[object];
    return object_at_or_above(r, o->kind, o->name,
                              o->name_size + 1u); /* with its final zero: the least above it */
}

static void save_user(registry_t *r, uint32_t user, uint32_t *n, writer_t *w)
{
    user_t *u = &r->users[user];
    if (u->ordinal != NONE) return;
    u->ordinal = (*n)++;
    uint8_t size = (uint8_t)strlen(u->name);
    write_bytes(w, &size, sizeof size);
    write_bytes(w, u->name, size);
}

/* In the order in which the rest will name them. */
static void save_users(registry_t *r, writer_t *w)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->params.users_max; i++) r->users[i].ordinal = NONE;
    for (uint32_t at = NONE; (at = next_object(r, at)) != NONE;) {
        save_user(r, r->objects[at].user, &n, w);
        for (uint32_t b = r->objects[at].blob_first; b != NONE; b = r->blocks[b].after)
            save_user(r, r->blocks[b].user, &n, w);
    }
    for (uint32_t at = r->claims_first; at != NONE; at = r->claims[at].all_next)
        save_user(r, r->claims[at].user, &n, w);
    rf_assert(n == r->usage.users);
}

static void save_object(registry_t *r, object_t *o, writer_t *w)
{
    save_object_t s = {.kind = o->kind,
                       .name_size = o->name_size,
                       .user = (uint16_t)r->users[o->user].ordinal,
                       .n = o->n,
                       .created = o->created,
                       .revision = o->revision,
                       .version = o->version};
    for (uint32_t b = o->blob_first; b != NONE; b = r->blocks[b].after) s.n_blobs++;
    write_bytes(w, &s, sizeof s);
    write_bytes(w, o->name, o->name_size);
    for (uint32_t b = o->blob_first; b != NONE; b = r->blocks[b].after) {
        save_blob_t head = {.size = r->blocks[b].size, .user = (uint16_t)r->users[r->blocks[b].user].ordinal};
        blob_read(r, b, r->message);
        write_bytes(w, &head, sizeof head);
        write_bytes(w, r->message, head.size);
    }
}

size_t registry_save(registry_t *r, void *bytes, size_t max)
{
    writer_t w = {.at = bytes, .left = max};
    save_head_t head = {.magic = MAGIC,
                        .version = VERSION,
                        .revision = r->revision,
                        .n_users = r->usage.users,
                        .n_objects = r->usage.objects,
                        .n_claims = r->usage.claims};
    write_bytes(&w, &head, sizeof head);
    save_users(r, &w);
    uint32_t ordinal = 0;
    for (uint32_t at = NONE; (at = next_object(r, at)) != NONE;) {
        r->objects[at].ordinal = ordinal++;
        save_object(r, &r->objects[at], &w);
    }
    for (uint32_t at = r->claims_first; at != NONE; at = r->claims[at].all_next) {
        const claim_t *c = &r->claims[at];
        save_claim_t s = {.state = c->state,
                          .user = (uint16_t)r->users[c->user].ordinal,
                          .object = r->objects[c->object].ordinal,
                          .n = c->n,
                          .cookie = c->cookie,
                          .wait = c->wait,
                          .token = c->token,
                          .domain = r->owners[c->owner].domain,
                          .session = r->owners[c->owner].session};
        write_bytes(&w, &s, sizeof s);
    }
    return w.full ? 0 : max - w.left;
}

/* ---- loading ---- */

typedef struct reader {
    const uint8_t *at;
    size_t left;
} reader_t;

static const void *read_bytes(reader_t *in, size_t size)
{
    if (size > in->left) return NULL;
    const void *bytes = in->at;
    in->at += size;
    in->left -= size;
    return bytes;
}

static bool read_record(reader_t *in, void *out, size_t size)
{
    const void *bytes = read_bytes(in, size);
    if (bytes) memcpy(out, bytes, size);
    return bytes != NULL;
}

typedef struct loading {
    save_head_t head;
    uint32_t users_named; /* of the users, so many are named so far: they come in that order */
    size_t n_blocks;
    registry_owner_fn lives; /* NULL: nobody asks */
    const void *context;
} loading_t;

static bool check_user(loading_t *l, uint32_t user)
{
    if (user > l->users_named || user >= l->head.n_users) return false;
    if (user == l->users_named) l->users_named++;
    return true;
}

static bool read_user(reader_t *in, char *name)
{
    uint8_t size;
    if (!read_record(in, &size, sizeof size) || size == 0 || size >= REGISTRY_USER_MAX) return false;
    const char *bytes = read_bytes(in, size);
    if (!bytes || memchr(bytes, 0, size)) return false;
    memset(name, 0, REGISTRY_USER_MAX);
    memcpy(name, bytes, size);
    return true;
}

/* No name twice: at most users_max of them, so comparing all is bounded. */
static bool check_users(const loading_t *l, reader_t *in)
{
    reader_t first = *in;
    char name[REGISTRY_USER_MAX], other[REGISTRY_USER_MAX];
    for (uint32_t i = 0; i < l->head.n_users; i++) {
        if (!read_user(in, name)) return false;
        reader_t again = first;
        for (uint32_t k = 0; k < i; k++)
            if (!read_user(&again, other) || strcmp(name, other) == 0) return false;
    }
    return true;
}

static bool kind_keeps(const save_object_t *o)
{
    switch (o->kind) {
    case REGISTRY_KEY:
        return o->n_blobs == 1 && o->n == 0;
    case REGISTRY_LOCK:
        return o->n_blobs == 0 && o->n == 1;
    case REGISTRY_SEMAPHORE:
    case REGISTRY_BARRIER:
        return o->n_blobs == 0 && o->n > 0;
    case REGISTRY_QUEUE:
        return o->n_blobs <= o->n && o->n > 0;
    default:
        return false;
    }
}

static bool check_object(const registry_t *r, loading_t *l, reader_t *in, const char **last,
                         save_object_t *last_object, loaded_t *out)
{
    save_object_t o;
    if (!read_record(in, &o, sizeof o) || !kind_keeps(&o) || !check_user(l, o.user)) return false;
    const char *name = read_bytes(in, o.name_size);
    if (!name || !registry_name_is_valid(name, o.name_size)) return false;
    if (o.created > o.revision || o.revision > l->head.revision || o.version == 0) return false;
    if (*last && o.kind == last_object->kind) {
        size_t common = o.name_size < last_object->name_size ? o.name_size : last_object->name_size;
        int order = memcmp(*last, name, common);
        if (order > 0 || (order == 0 && last_object->name_size >= o.name_size)) return false;
    } else if (*last && o.kind < last_object->kind) {
        return false;
    }
    *last = name;
    *last_object = o;
    for (uint32_t i = 0; i < o.n_blobs; i++) {
        save_blob_t blob;
        if (!read_record(in, &blob, sizeof blob) || blob.size > REGISTRY_VALUE_MAX ||
            !check_user(l, blob.user) || !read_bytes(in, blob.size))
            return false;
        l->n_blocks += blocks_of(blob.size);
        if (l->n_blocks > r->params.blocks_max) return false;
    }
    *out = (loaded_t){.kind = o.kind, .n = o.n, .used = o.kind == REGISTRY_QUEUE ? o.n_blobs : 0};
    return true;
}

/* As if the claim were made now: would it hold, or wait, as it says? */
static bool check_claim(const registry_t *r, loading_t *l, reader_t *in)
{
    save_claim_t c;
    if (!read_record(in, &c, sizeof c) || c.object >= l->head.n_objects || !check_user(l, c.user) ||
        (c.domain == 0 && c.session == 0) || c.reserved != 0 ||
        (l->lives && !l->lives(l->context, c.domain, c.session)))
        return false;
    loaded_t *o = &r->loaded[c.object];
    bool permits = o->kind == REGISTRY_LOCK || o->kind == REGISTRY_SEMAPHORE;
    switch (c.state) {
    case CLAIM_EPHEMERAL:
        if (o->ephemeral || o->kind == REGISTRY_LOCK || o->kind == REGISTRY_BARRIER) return false;
        o->ephemeral = true;
        return c.token == 0;
    case CLAIM_HELD:
        if (!permits || o->waiting > 0 || c.n == 0 || c.n > o->n - o->used || c.token == 0 ||
            c.token > l->head.revision)
            return false;
        o->used += c.n;
        return true;
    case CLAIM_WAITING:
        if (c.token != 0 || o->kind == REGISTRY_KEY) return false;
        if (permits && (c.n == 0 || c.n > o->n || (o->waiting == 0 && c.n <= o->n - o->used))) return false;
        if (o->kind == REGISTRY_BARRIER && o->waiting + 1 >= o->n) return false;
        if (o->kind == REGISTRY_QUEUE && o->used > 0) return false;
        o->waiting++;
        return true;
    default:
        return false;
    }
}

static bool check(const registry_t *r, loading_t *l, reader_t in)
{
    if (!read_record(&in, &l->head, sizeof l->head) || l->head.magic != MAGIC || l->head.version != VERSION ||
        l->head.reserved != 0 || l->head.n_users > r->params.users_max ||
        l->head.n_objects > r->params.objects_max || l->head.n_claims > r->params.claims_max)
        return false;
    if (!check_users(l, &in)) return false;
    const char *last = NULL;
    save_object_t last_object = {0};
    for (uint32_t i = 0; i < l->head.n_objects; i++)
        if (!check_object(r, l, &in, &last, &last_object, &r->loaded[i])) return false;
    for (uint32_t i = 0; i < l->head.n_claims; i++)
        if (!check_claim(r, l, &in)) return false;
    for (uint32_t i = 0; i < l->head.n_objects; i++) {
        const loaded_t *o = &r->loaded[i];
        if (o->kind == REGISTRY_LOCK && o->used == 0) return false;
        if (o->kind == REGISTRY_BARRIER && o->waiting == 0) return false;
    }
    return in.left == 0 && l->users_named == l->head.n_users;
}

static void build_object(registry_t *r, reader_t *in, uint32_t ordinal)
{
    save_object_t o;
    save_blob_t blob;
    read_record(in, &o, sizeof o);
    const char *name = read_bytes(in, o.name_size);
    uint32_t at = object_add(r, o.kind, name, o.name_size, o.user);
    object_t *object = &r->objects[at];
    object->n = o.n;
    object->created = o.created;
    object->revision = o.revision;
    object->version = o.version;
    r->loaded[ordinal].n = at; /* from now on: where it is */
    for (uint32_t i = 0; i < o.n_blobs; i++) {
        read_record(in, &blob, sizeof blob);
        blob_append(r, object, blob_add(r, read_bytes(in, blob.size), blob.size, blob.user));
        object->used += o.kind == REGISTRY_QUEUE;
    }
}

static void build(registry_t *r, const loading_t *l, reader_t in)
{
    char name[REGISTRY_USER_MAX];
    save_claim_t c;
    registry_clear(r);
    r->used = true;
    r->revision = l->head.revision;
    read_bytes(&in, sizeof l->head);
    for (uint32_t i = 0; i < l->head.n_users; i++) {
        read_user(&in, name);
        uint32_t user = user_add(r, name);
        rf_assert(user == i); /* the free list starts in order */
    }
    for (uint32_t i = 0; i < l->head.n_objects; i++) build_object(r, &in, i);
    for (uint32_t i = 0; i < l->head.n_claims; i++) {
        read_record(&in, &c, sizeof c);
        registry_command_t as_made = {
            .n = c.n, .cookie = c.cookie, .wait = c.wait, .domain = c.domain, .session = c.session};
        uint32_t claim = claim_add(r, (claim_state_t)c.state, r->loaded[c.object].n, &as_made, c.user);
        r->claims[claim].token = c.token;
    }
    events_forget(r);
}

bool registry_fits(const registry_t *r, const void *bytes, size_t size, registry_owner_fn lives,
                   const void *context)
{
    loading_t l = {.lives = lives, .context = context};
    return check(r, &l, (reader_t){.at = bytes, .left = size});
}

rf_err_t registry_load(registry_t *r, const void *bytes, size_t size)
{
    loading_t l = {0};
    reader_t in = {.at = bytes, .left = size};
    if (!check(r, &l, in)) return RF_ERR_PROTOCOL;
    build(r, &l, in);
    return RF_OK;
}
