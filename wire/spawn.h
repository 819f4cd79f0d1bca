/*
 * The spawn block: everything a new dispatcher's process needs, in one sealed memory object or a run of bytes.
 *
 *   +--------------+---------------------------------------------------------------+
 *   | spawn_header | strings, each with its final zero: user, cwd, executable,     |
 *   |              | argv[0..n_args), env[0..n_env), then span_args bytes          |
 *   +--------------+---------------------------------------------------------------+
 *
 * It may come from a hostile domain: decode checks everything before anything is used (fuzzed).
 */
#ifndef RF_WIRE_SPAWN_H
#define RF_WIRE_SPAWN_H

#include "wire/wire.h"

#define RF_SPAWN_MAGIC     0x31535052u /* "RPS1" */
#define RF_SPAWN_BYTES_MAX (2u << 20)  /* like the host's own limit for arguments and environment */
#define RF_SPAWN_ARGS_MAX  16384
#define RF_SPAWN_LIMITS    16 /* RLIMIT_NLIMITS */
#define RF_SPAN_ARGS_MAX   256

enum {                                /* flags */
       RF_SPAWN_TTY = 1u << 0,        /* stdin is a terminal: new session, controlling terminal */
       RF_SPAWN_CONTROL = 1u << 1,    /* may use the control socket */
       RF_SPAWN_ROOT = 1u << 2,       /* the machine allows root */
       RF_SPAWN_EXECUTABLE = 1u << 3, /* the executable itself comes as the last descriptor */
       RF_SPAWN_STDIO = 1u << 4,      /* stdin, stdout, stderr come as descriptors; else null and the log */
       RF_SPAWN_LIMITS_SET = 1u << 5,
       RF_SPAWN_DAEMON = 1u << 6, /* `run -d` */
};

typedef struct rf_spawn_header {
    uint32_t magic;
    uint32_t size; /* of the whole block */
    uint32_t flags;
    uint32_t umask;
    uint32_t n_args, n_env;
    uint16_t reserved_permille; /* share of the core; 0: best effort */
    uint16_t weight;            /* best effort; 0: 100 */
    uint16_t span_args_size;
    uint16_t reserved;
    uint64_t limits[RF_SPAWN_LIMITS][2]; /* soft, hard */
} rf_spawn_header_t;
_Static_assert(sizeof(rf_spawn_header_t) == 32 + 256, "wire layout");

/* A decoded block; all pointers lead into the bytes it was decoded from. argv and env end with NULL and are the
 * caller's memory, given to decode. */
typedef struct rf_spawn {
    uint32_t flags, umask;
    uint16_t reserved_permille, weight;
    const char *user; /* "" : the spawner's own */
    const char *cwd;
    const char *executable; /* a path, or a name looked up in the env's PATH when it holds no slash */
    uint32_t n_args, n_env;
    const char **argv;
    const char **env;
    const uint8_t *span_args;
    uint16_t span_args_size;
    uint64_t limits[RF_SPAWN_LIMITS][2];
} rf_spawn_t;

/* Bytes that encoding `spawn` takes. */
size_t rf_spawn_size(const rf_spawn_t *spawn);

/* Writes the block into `out` (at least rf_spawn_size). RF_ERR_LIMIT when larger than RF_SPAWN_BYTES_MAX or too many. */
rf_err_t rf_spawn_encode(const rf_spawn_t *spawn, void *out, size_t max, size_t *size);

/*
 * Checks `bytes` and fills `*spawn`. `pointers` has room for `pointers_max` entries (n_args + n_env + 2 are needed).
 * RF_ERR_PROTOCOL: not a block. RF_ERR_LIMIT: too many strings. `bytes` must not change afterwards: copy it out of
 * shared memory first.
 */
rf_err_t rf_spawn_decode(const void *bytes, size_t size, rf_spawn_t *spawn, const char **pointers,
                         size_t pointers_max);

#endif
