/*
 * Domains: starting programs on any core, spanning this program to more cores, waiting, signals. Source:
 * lib/domain.c.
 */
#ifndef RACKFISH_DOMAIN_H
#define RACKFISH_DOMAIN_H

#include "rackfish/api.h"
#include "rackfish/error.h"
#include "rackfish/types.h"

RF_BEGIN_DECLS

#define RF_OPERATIONS_MAX      256 /* outstanding, of one dispatcher */
#define RF_SPAN_ARGS_BYTES_MAX 256

/* How a new domain's standard streams are made. */
typedef enum rf_spawn_streams {
    RF_SPAWN_STREAMS_AUTO = 0, /* the caller's own when the core is on this host, else as NONE */
    RF_SPAWN_STREAMS_NONE = 1, /* input is empty, output goes to the domain's log */
    RF_SPAWN_STREAMS_FDS = 2,  /* options->stdio; this host only */
} rf_spawn_streams_t;

/* NULL where these are asked for means all zero. */
typedef struct rf_spawn_options {
    const char *const *env; /* NULL-terminated "NAME=value"; NULL: the caller's */
    const char *cwd;        /* NULL: the caller's; a missing folder is an error */
    const char *executable; /* NULL: argv[0]; a name without a slash is looked up in PATH */
    rf_spawn_streams_t streams;
    int stdio[3];               /* with RF_SPAWN_STREAMS_FDS; they stay the caller's */
    uint16_t reserved_permille; /* of the core's time; 0: best effort */
    uint16_t weight;            /* of best effort, 1 to 1000; 0: 100 */
} rf_spawn_options_t;

typedef enum rf_domain_state {
    RF_DOMAIN_STATE_STARTING = 1,
    RF_DOMAIN_STATE_RUNNING = 2,
    RF_DOMAIN_STATE_ENDED = 3,
} rf_domain_state_t;

/* A row of the machine's domain table. */
typedef struct rf_domain_info {
    rf_domain_t domain;
    rf_domain_state_t state;
    int wait_status;      /* ENDED: of dispatcher 0, as wait(2) gives it */
    rf_err_t reason;      /* ENDED: RF_OK: it ended by itself; RF_ERR_PEER_DEAD: its core or host died; ... */
    uint16_t dispatchers; /* how many it has or had */
    rf_core_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX]; /* where dispatcher i is or was */
    bool alive[RF_DISPATCHERS_PER_DOMAIN_MAX];
    uint64_t started_ns, ended_ns; /* CLOCK_REALTIME; 0: not yet */
    char user[32];
    char program[RF_NAME_MAX]; /* last part of argv[0] */
} rf_domain_info_t;

/*
 * Starts `argv` (NULL-terminated, argv[0] first) as a new domain of the same user on `core`, wherever in the
 * machine that is; returns when it runs. umask and soft limits are the caller's. It lives on when the caller
 * ends.
 *
 * RF_ERR_EXEC: it could not be started; rf_reason() says what was missing. RF_ERR_PEER_DEAD: that core is
 * down. RF_ERR_NO_QUORUM. RF_ERR_NOT_FOUND: no such core. RF_ERR_TIMEOUT: it may still start.
 * RF_ERR_UNKNOWN_OUTCOME: the link with that core broke before it had answered, it may run; RF_ERR_CLOSED: it broke
 * earlier, nothing was started.
 */
RF_API rf_err_t rf_spawn(rf_core_t core, const char *const *argv, const rf_spawn_options_t *options,
                         rf_domain_t *out, uint64_t deadline_ns);

/*
 * One more dispatcher of this domain, on `core`: the same program with the same arguments, environment,
 * folder and user starts there, and finds `args` (at most RF_SPAN_ARGS_BYTES_MAX bytes) and its index in
 * rf_self(). Several on one core are allowed. All dispatchers of a domain end when dispatcher 0 does. Errors
 * as rf_spawn(); RF_ERR_LIMIT: too many dispatchers.
 */
RF_API rf_err_t rf_span(rf_core_t core, const void *args, size_t size, uint16_t *index, uint64_t deadline_ns);

/* Waits until a domain has ended, and says how. Any domain, any number of waiters. */
RF_API rf_err_t rf_wait_domain(rf_domain_t domain, rf_domain_info_t *ended, uint64_t deadline_ns);

/* Sends a signal to a domain of the same user (root and the machine's owner: to any): to the foreground
 * process group of each of its dispatchers, or with `whole` to every process of it. RF_ERR_PERMISSION,
 * RF_ERR_NOT_FOUND. RF_ERR_UNKNOWN_OUTCOME: a link broke before it was answered, the signal may have been sent. */
RF_API rf_err_t rf_kill(rf_domain_t domain, int signo, bool whole, uint64_t deadline_ns);

/* ---- the same, split-phase ---- */

typedef struct rf_operation rf_operation_t;

typedef struct rf_operation_result {
    rf_domain_t domain;     /* spawn, span: the domain */
    uint16_t index;         /* span: of the new dispatcher */
    rf_core_t core;         /* spawn, span */
    rf_domain_info_t ended; /* wait */
    uint64_t revision;      /* waits of registry.h: token or generation */
    size_t size;            /* pop */
    uint8_t message[512];
} rf_operation_result_t;

/* Start an operation and return at once; it is finished by rf_operation_wait() or rf_operation_cancel().
 * RF_ERR_AGAIN: the link to the monitor is full. */
RF_API rf_err_t rf_spawn_begin(rf_core_t core, const char *const *argv, const rf_spawn_options_t *options,
                               rf_operation_t **out);
RF_API rf_err_t rf_span_begin(rf_core_t core, const void *args, size_t size, rf_operation_t **out);
RF_API rf_err_t rf_wait_domain_begin(rf_domain_t domain, rf_operation_t **out);

/* Has it finished? Never blocks. */
RF_API bool rf_operation_done(const rf_operation_t *operation);

/* Waits for it, returns its own error or result, and frees it. With RF_ERR_TIMEOUT (only then, if `operation`
 * is not done) it goes on and is still the caller's. */
RF_API rf_err_t rf_operation_wait(rf_operation_t *operation, rf_operation_result_t *result,
                                  uint64_t deadline_ns);

/* Forgets it. A spawn or span may still happen; a wait of registry.h is left, or given back. NULL is allowed. */
RF_API void rf_operation_cancel(rf_operation_t *operation);

RF_END_DECLS

#endif
