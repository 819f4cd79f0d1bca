/*
 * Inside of the registry; only monitor/registry*.c include it.
 *
 *   registry.c          memory; commands checked and dispatched; quotas and permission; reading
 *   registry_table.c    objects found by name, in order of name; users, owners; values in blocks
 *   registry_claims.c   claims: ephemeral, held, waiting; lines and grants
 *   registry_events.c   what watchers are told
 *   registry_save.c     snapshots
 *   registry_check.c    invariants
 *
 * Everything is an index into a table; NONE ends a list. Free entries are chained. Objects are found by a hash, and in
 * order of (kind, name) by a treap (Seidel and Aragon 1996) whose priorities are drawn from `draw`: the shape differs between
 * replicas, which nobody can see, and cannot be spoilt by choosing names.
 */
#ifndef RF_MONITOR_REGISTRY_INSIDE_H
#define RF_MONITOR_REGISTRY_INSIDE_H

#include "monitor/registry.h"

#include "base/assert.h"

#include <string.h>

#define NONE UINT32_MAX

/*
 * Links of hash chains are stored as complements, and a free entry's says which is the next free one, plus 1; 0: the one behind it. So tables
 * of which nothing was ever used are all 0, and what was never used is never touched.
 */
static inline uint32_t free_after(uint32_t at, uint32_t stored)
{
    return stored == 0 ? at + 1 : stored - 1;
}

typedef struct object {
    uint8_t kind; /* 0: free */
    uint8_t name_size;
    uint16_t user;
    uint32_t hash_next; /* also of the free list */
    uint32_t left, right, priority;
    uint32_t n, used;
    uint32_t ephemeral;             /* the claim it lives by; NONE */
    uint32_t blob_first, blob_last; /* KEY: its value; QUEUE: messages, oldest first */
    uint32_t line_first, line_last; /* claims: those that hold, then those that wait */
    uint32_t waiting_first, n_waiting;
    uint32_t ordinal; /* while saving: its place in the snapshot */
    uint64_t created, revision, version;
    char name[REGISTRY_NAME_MAX + 1];
} object_t;

typedef enum claim_state { CLAIM_FREE, CLAIM_EPHEMERAL, CLAIM_WAITING, CLAIM_HELD } claim_state_t;

typedef struct claim {
    uint8_t state;
    uint16_t user;
    uint32_t object, owner, n, cookie;
    uint32_t line_next, line_previous;
    uint32_t owner_next, owner_previous;
    uint32_t all_next, all_previous; /* of all claims, in the order in which they were made */
    uint32_t hash_next;              /* by wait; also of the free list */
    uint64_t wait, token;
} claim_t;

typedef struct owner {
    uint64_t domain, session;
    uint32_t first, last; /* claims, in the order in which they were made */
    uint32_t hash_next;
} owner_t;

typedef struct user {
    char name[REGISTRY_USER_MAX]; /* "" : free */
    uint32_t objects, claims, blocks;
    uint32_t ordinal; /* while saving */
    uint32_t hash_next;
} user_t;

/* What loading has seen of an object: checked before anything is replaced. */
typedef struct loaded {
    uint8_t kind;
    bool ephemeral;
    uint32_t n, used, waiting;
} loaded_t;

typedef struct block {
    uint32_t next;  /* of this blob; free: free_after() */
    uint32_t after; /* first block: the next blob of the queue */
    uint16_t size;  /* first block: bytes of the blob */
    uint16_t user;  /* first block: who pays for it */
    uint8_t bytes[REGISTRY_BLOCK];
} block_t;

typedef struct event {
    uint64_t revision, version, position; /* position: of its bytes in the ring, never wrapping */
    uint16_t name_size, value_size;
    uint8_t what;
} event_t;

struct registry {
    registry_params_t params;
    registry_answer_fn answer;
    void *context;
    uint64_t revision, draw;
    uint32_t root;
    uint32_t claims_first, claims_last;
    uint32_t object_free, claim_free, owner_free, user_free, block_free; /* as many as there are: none */
    bool used; /* since it was cleared: the tables are not all 0 */
    registry_usage_t usage;
    uint64_t n_events, events_first; /* ever kept; the oldest that is (both counts), and */
    uint64_t events_since;           /* ... the revision from which all are kept */
    uint64_t events_end;             /* position behind the last one's bytes */
    object_t *objects;
    claim_t *claims;
    owner_t *owners;
    user_t *users;
    block_t *blocks;
    event_t *events;
    uint8_t *event_bytes;
    uint32_t *object_hash, *claim_hash, *owner_hash,
        *user_hash; /* as many buckets as entries, a power of two */
    uint32_t object_mask, claim_mask, user_mask;
    loaded_t *loaded;
    uint8_t message[REGISTRY_VALUE_MAX];
};

/* ---- registry.c ---- */
void registry_clear(registry_t *r); /* everything but the parameters */
bool registry_name_is_valid(const char *name, size_t size);

/* ---- registry_table.c ---- */
uint32_t object_find(const registry_t *r, unsigned kind, const char *name, size_t size);
/* The first in order of (kind, name) that is not below this one. */
uint32_t object_at_or_above(const registry_t *r, unsigned kind, const char *name, size_t size);
uint32_t object_add(registry_t *r, unsigned kind, const char *name, size_t size,
                    uint32_t user);                 /* there is room */
void object_remove(registry_t *r, uint32_t object); /* has no claims any more */
uint32_t user_find(const registry_t *r, const char *name);
uint32_t user_add(registry_t *r, const char *name); /* found or made; there is room */
void user_release(registry_t *r, uint32_t user);    /* frees it if it has nothing left */
uint32_t registry_owner_find(const registry_t *r, uint64_t domain, uint64_t session);
uint32_t registry_owner_add(registry_t *r, uint64_t domain,
                            uint64_t session); /* found or made: as many as claims */
void registry_owner_remove(registry_t *r, uint32_t owner);
static inline unsigned blocks_of(size_t size)
{
    return size == 0 ? 1 : (unsigned)((size + REGISTRY_BLOCK - 1) / REGISTRY_BLOCK);
}
uint32_t blob_add(registry_t *r, const void *bytes, size_t size, uint32_t user); /* there is room */
void blob_remove(registry_t *r, uint32_t blob);
void blob_read(const registry_t *r, uint32_t blob, void *out);
bool blob_equals(const registry_t *r, uint32_t blob, const void *bytes, size_t size);
void blob_append(registry_t *r, object_t *o, uint32_t blob);
void blob_remove_first(registry_t *r, object_t *o);

/* ---- registry_claims.c ---- */
uint32_t claim_find(const registry_t *r, uint64_t wait);
/* There is room. EPHEMERAL ones are not in a line; HELD ones only while none waits. */
uint32_t claim_add(registry_t *r, claim_state_t state, uint32_t object, const registry_command_t *c,
                   uint32_t user);
/* Takes a claim away from object and owner, and frees it; what it held is free again, but not granted yet. */
void claim_remove(registry_t *r, uint32_t claim);
/* Grants whatever the object can now grant, and forgets a lock or barrier that nobody claims. */
void object_settle(registry_t *r, uint32_t object);
/* Its waiters are told, its claims go, it goes. */
void object_delete(registry_t *r, uint32_t object, registry_event_what_t what);

/* ---- registry_events.c ---- */
void event_add(registry_t *r, registry_event_what_t what, const object_t *o, const void *value, size_t size);
void events_forget(registry_t *r);

#endif
