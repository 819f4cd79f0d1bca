/*
 * The registry: keys with values, locks, semaphores, barriers and queues that the whole machine agrees on. A pure state
 * machine: a function of the commands applied to it, in order, and of nothing else.
 *
 *      registry_apply(registry, command) -> error, value          the log's entries
 *      registry_owner_leaves(), registry_owner_ended(), registry_core_...()   what the log says of dispatchers and cores
 *      registry_get(), registry_next(), registry_event()          reading, at any time
 *      registry_save(), registry_load()                           a snapshot as flat bytes
 *
 * No clock, I/O, randomness or allocation after init. Two replicas that applied the same commands answer everything
 * alike and save the same bytes (asserted by the tests).
 *
 * Revision: one number for the whole registry that rises with every change, so it is derived from the log. A key remembers
 * the revision that created it, the one that last changed it, and its version, which counts its changes from 1. The fencing
 * token of a lock is the revision that granted it (Burrows 2006, 2.4: sequencers).
 *
 * Owners: what must not outlive its maker is a *claim* of an owner: an ephemeral key or object, a lock or permits held, a
 * place in a line. An owner is a dispatcher (domain, index), or a session that a core's monitor has opened for a command
 * (domain 0, session = core << 48 | number). When the log says that it is to end, it leaves the lines; when it says that it has
 * ended, all its claims go, in the order in which they were made.
 *
 * Waiting is part of the agreed state: a claim that cannot be granted stands in its object's line, first come, first
 * served, and the command that makes it grantable grants it. A cancelled wait leaves by a command too, so a grant and a
 * time-out can never both be told. Who proposed the wait learns of its grant through the `answer` function.
 *
 *   kind        made by              gone with                     line
 *   KEY         PUT                  DELETE, its owner             -
 *   LOCK        first ACQUIRE        last claim                    holder, then waiters
 *   SEMAPHORE   CREATE with permits  DELETE, its owner             holders, then waiters
 *   BARRIER     first WAIT           its completion, last waiter   waiters
 *   QUEUE       CREATE with room     DELETE, its owner             waiters for messages
 *
 * Who may: everybody reads everything. An object belongs to the user who made it, and only that user, root and the
 * machine's owner change or use it; those named "shared/..." are everybody's. "machine/..." is made by root and the
 * machine's owner alone. Every user has quotas. (ZooKeeper's sequential and ephemeral nodes, Hunt et al. 2010, 2.1; etcd's
 * revisions and compare-and-swap.)
 *
 * RF_ERR_AGAIN is never a result: to the engine it means that nothing happened. Full and taken are RF_ERR_BUSY.
 *
 * Owner: one thread.
 */
#ifndef RF_MONITOR_REGISTRY_H
#define RF_MONITOR_REGISTRY_H

#include "base/error.h"
#include "base/types.h"

#define REGISTRY_NAME_MAX    127  /* bytes of a name */
#define REGISTRY_VALUE_MAX   512  /* bytes of a value or message */
#define REGISTRY_COMMAND_MAX 1024 /* bytes of a command; both values of a compare-and-swap have to fit */
#define REGISTRY_USER_MAX    32   /* with the final zero */
#define REGISTRY_SUFFIX      16   /* decimal digits that a sequential name gets */

typedef struct registry registry_t;

typedef struct registry_params {
    unsigned objects_max;              /* of all kinds */
    unsigned claims_max;               /* ephemeral, held and waiting together */
    unsigned blocks_max;               /* of REGISTRY_BLOCK bytes of value or message */
    unsigned users_max;                /* who have something here */
    unsigned events_max, events_bytes; /* kept for watchers */
    unsigned user_objects_max, user_claims_max, user_blocks_max; /* quotas */
    uint64_t seed; /* of the hash; need not be the same everywhere: nothing that can be asked depends on it */
} registry_params_t;

#define REGISTRY_BLOCK 64

typedef enum registry_kind {
    REGISTRY_KEY = 1,
    REGISTRY_LOCK = 2,
    REGISTRY_SEMAPHORE = 3,
    REGISTRY_BARRIER = 4,
    REGISTRY_QUEUE = 5,
    REGISTRY_KINDS
} registry_kind_t;

enum registry_op {
    REGISTRY_OP_FIRST = 64,
    REGISTRY_PUT = 64, /* kind KEY; value; a condition; EPHEMERAL, SEQUENTIAL -> the key's new revision */
    REGISTRY_DELETE, /* any kind but LOCK and BARRIER; a condition -> the revision. Its waiters are answered CANCELLED */
    REGISTRY_CREATE, /* SEMAPHORE, QUEUE: n permits, or messages at most; EPHEMERAL. OK: it is there, with that n */
    REGISTRY_ACQUIRE, /* LOCK, SEMAPHORE (n permits); TRY -> the token, or 0: it waits */
    REGISTRY_RELEASE, /* LOCK, SEMAPHORE: number is the token */
    REGISTRY_WAIT,    /* BARRIER of n parties -> the revision at which all had come, or 0: it waits */
    REGISTRY_PUSH,    /* QUEUE: value. RF_ERR_BUSY: full */
    REGISTRY_POP,     /* QUEUE; TRY -> a revision, or 0: it waits. The message goes to the answer */
    REGISTRY_CANCEL, /* the wait `wait` -> 1: it has left the line; 0: it is not in one. GIVE_BACK: also what it was granted */
    REGISTRY_SESSION_END, /* of the session that is the owner */
    REGISTRY_OP_LAST = REGISTRY_SESSION_END,
};

enum { /* flags of a command */
       REGISTRY_EPHEMERAL = 1,
       REGISTRY_SEQUENTIAL = 2,
       REGISTRY_TRY = 4,        /* RF_ERR_BUSY instead of waiting */
       REGISTRY_PRIVILEGED = 8, /* on behalf of root or of the machine's owner */
       REGISTRY_GIVE_BACK = 16,
       REGISTRY_FLAGS = 31,
};

enum { /* conditions of PUT and DELETE; unfulfilled: RF_ERR_BUSY, or NOT_FOUND, EXISTS */
       REGISTRY_ALWAYS = 0,
       REGISTRY_IF_ABSENT = 1,   /* PUT */
       REGISTRY_IF_REVISION = 2, /* `number` last changed it */
       REGISTRY_IF_VERSION = 3,  /* `number` is its version */
       REGISTRY_IF_VALUE = 4,    /* it holds the `compare` bytes */
       REGISTRY_IF_PRESENT = 5,
       REGISTRY_CONDITIONS
};

/* A command: this, then name, value and compare, back to back. Who proposes it vouches for user, owner and PRIVILEGED. */
typedef struct registry_command {
    uint16_t op;
    uint8_t kind, condition;
    uint16_t flags, name_size, value_size, compare_size;
    uint32_t n;
    uint64_t domain, session; /* the owner: a dispatcher's domain and index; 0 and a session; 0 and 0: none */
    uint64_t wait; /* ACQUIRE, WAIT, POP, CANCEL: the proposer's number of this wait, never used twice */
    uint64_t number;
    uint32_t cookie; /* ... and what it finds it by */
    uint32_t reserved;
    char user[REGISTRY_USER_MAX];
} registry_command_t;
_Static_assert(sizeof(registry_command_t) == 88, "wire layout");
_Static_assert(sizeof(registry_command_t) + REGISTRY_NAME_MAX + REGISTRY_VALUE_MAX <= REGISTRY_COMMAND_MAX,
               "every value fits");

/* How a proposer numbers waits and sessions: core, incarnation (its lowest bits: whatever an older one had is gone), count. */
static inline uint64_t registry_number_of(rf_core_t core, rf_incarnation_t incarnation, uint64_t count)
{
    return (uint64_t)core << 48 | (uint64_t)(incarnation & 0xff) << 40 | (count & 0xffffffffffull);
}

/* A wait has come to its end: granted (RF_OK), or its object was deleted (RF_ERR_CANCELLED), or its owner ended
 * (RF_ERR_PEER_DEAD). Also called for one that never had to wait. `bytes`: a popped message, valid during the call. */
typedef struct registry_answer {
    uint64_t wait, domain, session; /* of the command that made it */
    uint32_t cookie;
    rf_err_t err;
    uint64_t revision; /* the token, or the barrier's generation */
    const void *bytes;
    size_t size;
} registry_answer_t;

typedef void (*registry_answer_fn)(void *context, const registry_answer_t *answer);

/* Bytes it needs; 0: senseless parameters. */
size_t registry_size(const registry_params_t *params);

/* In `memory` (16-byte aligned, registry_size bytes, all 0, the caller's). `answer` is called from within apply and whatever
 * says that owners leave or have ended; it must not change the registry. It may be NULL. */
rf_err_t registry_init(void *memory, size_t size, const registry_params_t *params, registry_answer_fn answer,
                       void *context, registry_t **out);

/*
 * Applies a command; the bytes are checked. What fails changes nothing.
 *   RF_ERR_INVALID      makes no sense; a name that is empty, too long or not printable
 *   RF_ERR_PERMISSION   another user's
 *   RF_ERR_LIMIT        a quota or a named maximum
 *   RF_ERR_NOT_FOUND    no such object, token or key
 *   RF_ERR_EXISTS       IF_ABSENT; CREATE with another n
 *   RF_ERR_BUSY         the condition does not hold; TRY could not be granted; the queue is full
 */
rf_err_t registry_apply(registry_t *r, const void *bytes, size_t size, uint64_t *value);

/* The log says that this dispatcher (domain, index) has ended: all its claims go. */
void registry_owner_ended(registry_t *r, uint64_t domain, uint64_t session);
/* ... that it is to end, and may still run: it leaves all lines, and keeps what it holds. */
void registry_owner_leaves(registry_t *r, uint64_t domain, uint64_t session);
/* The same of all sessions of a core that leaves the view. Whether they hold anything. */
bool registry_core_leaves(registry_t *r, rf_core_t core);
/* ... and that nothing runs any more of what that core was: its sessions end, but for those of `member`, its incarnation that is in the
 * view now; 0: none is. */
void registry_core_ended(registry_t *r, rf_core_t core, rf_incarnation_t member);
/* The least session of that core above `session` that owns something here; 0: none. */
uint64_t registry_session_above(const registry_t *r, rf_core_t core, uint64_t session);

/* ---- reading ---- */

typedef struct registry_entry {
    registry_kind_t kind;
    bool ephemeral;
    uint16_t name_size;
    uint64_t created, revision, version;
    uint64_t domain, session; /* of an ephemeral one, and the holder of a LOCK; else 0 */
    uint32_t n, used; /* permits and how many are taken; parties; messages at most and how many there are */
    uint32_t waiting;
    size_t value_size; /* KEY */
    char name[REGISTRY_NAME_MAX + 1];
    char user[REGISTRY_USER_MAX];
    uint32_t handle; /* for registry_value(), until the next change */
} registry_entry_t;

uint64_t registry_revision(const registry_t *r);
bool registry_get(const registry_t *r, registry_kind_t kind, const char *name, size_t size,
                  registry_entry_t *out);
/* The first object of that kind whose name begins with `prefix` and is not below `from`; false: none. */
bool registry_next(const registry_t *r, registry_kind_t kind, const char *prefix, size_t prefix_size,
                   const char *from, size_t from_size, registry_entry_t *out);
/* Copies a key's value; `out` has REGISTRY_VALUE_MAX bytes. */
void registry_value(const registry_t *r, const registry_entry_t *entry, void *out);

typedef enum registry_event_what {
    REGISTRY_EVENT_PUT = 1,     /* made (version 1) or changed */
    REGISTRY_EVENT_DELETED = 2, /* by a command */
    REGISTRY_EVENT_EXPIRED = 3, /* with its owner */
} registry_event_what_t;

typedef struct registry_event {
    registry_event_what_t what;
    uint64_t revision, version;
    uint16_t name_size, value_size;
    const char *name; /* these two until the next change */
    const void *value;
} registry_event_t;

/* The oldest revision whose events are all still kept: a watcher that asks for an earlier one has missed some. */
uint64_t registry_events_first(const registry_t *r);
/* The first event of a key at or above revision `from`; false: none yet. `exact`: of this key, else of all with that
 * prefix. `*scanned` (may be NULL): no other event matches below it. */
bool registry_event(const registry_t *r, uint64_t from, const char *name, size_t size, bool exact,
                    registry_event_t *out, uint64_t *scanned);

typedef enum registry_wait_state {
    REGISTRY_WAIT_NONE = 0,
    REGISTRY_WAIT_WAITING = 1,
    REGISTRY_WAIT_HELD = 2
} registry_wait_state_t;
/* What became of a wait, after a snapshot was loaded; `*token` if it is held. */
registry_wait_state_t registry_wait_state(const registry_t *r, uint64_t wait, uint64_t *token);

typedef struct registry_usage {
    unsigned objects, claims, blocks, users, events;
} registry_usage_t;
void registry_usage(const registry_t *r, registry_usage_t *out);

/* ---- snapshot ---- */

/* Bytes that save() may need at most, and now. */
size_t registry_save_max(const registry_params_t *params);
/* Writes everything but the kept events; returns how many bytes, 0 if `max` is too few. Same state, same bytes. */
size_t registry_save(registry_t *r, void *bytes, size_t max);
/* Replaces the state. RF_ERR_PROTOCOL: the bytes are none that save() writes, or do not fit these parameters; the state
 * is as it was. Afterwards no events are kept: watchers are told that they may have missed some. */
rf_err_t registry_load(registry_t *r, const void *bytes, size_t size);

/* Whether load() would take these bytes, and every owner that they name lives; changes nothing. */
typedef bool (*registry_owner_fn)(const void *context, uint64_t domain, uint64_t session);
bool registry_fits(const registry_t *r, const void *bytes, size_t size, registry_owner_fn lives,
                   const void *context);

/* Asserts every invariant; for tests and fuzzers. */
void registry_check(const registry_t *r);

#endif
