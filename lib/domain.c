/* Spawning, spanning, waiting, signals: requests to the monitor, wrapped in operations that can be waited for. */
#include "internal.h"

#include "base/os.h"
#include "wire/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define CWD_MAX 4096

void rf_lib_domain_info(const rf_client_domain_t *row, rf_domain_info_t *out)
{
    memset(out, 0, sizeof *out);
    out->domain = row->domain;
    out->state = (rf_domain_state_t)row->state;
    out->wait_status = row->wait_status;
    out->reason = row->reason < RF_ERR_COUNT ? row->reason : RF_ERR_PROTOCOL;
    out->dispatchers = row->n_dispatchers < RF_DISPATCHERS_PER_DOMAIN_MAX ? row->n_dispatchers
                                                                          : RF_DISPATCHERS_PER_DOMAIN_MAX;
    for (unsigned i = 0; i < out->dispatchers; i++) {
        out->cores[i] = row->cores[i];
        out->alive[i] = row->alive[i / 8] >> (i % 8) & 1;
    }
    out->started_ns = row->started_ns;
    out->ended_ns = row->ended_ns;
    snprintf(out->user, sizeof out->user, "%.*s", (int)sizeof row->user, row->user);
    snprintf(out->program, sizeof out->program, "%.*s", (int)sizeof row->program, row->program);
}
_Static_assert((int)RF_DOMAIN_STATE_STARTING == RF_DOMAIN_STARTING &&
                   (int)RF_DOMAIN_STATE_RUNNING == RF_DOMAIN_RUNNING &&
                   (int)RF_DOMAIN_STATE_ENDED == RF_DOMAIN_ENDED,
               "public states are the wire's");

/* ---- operations ---- */

rf_operation_t *rf_lib_operation_create(int kind)
{
    if (!rf_me.up || rf_me.n_operations == RF_OPERATIONS_MAX) return NULL;
    rf_operation_t *operation = calloc(1, sizeof *operation);
    if (!operation) return NULL;
    operation->kind = kind;
    operation->next = rf_me.operations;
    rf_me.operations = operation;
    rf_me.n_operations++;
    return operation;
}

void rf_lib_operation_free(rf_operation_t *operation)
{
    rf_lib_waitsets_forget(operation);
    for (rf_operation_t **at = &rf_me.operations; *at; at = &(*at)->next) {
        if (*at != operation) continue;
        *at = operation->next;
        rf_me.n_operations--;
        break;
    }
    if (operation->request) rf_lib_request_free(operation->request);
    free(operation);
}

rf_err_t rf_lib_no_operation(void)
{
    if (!rf_me.up) return rf_lib_fail(RF_ERR_NO_MACHINE, "call rf_init() first");
    return rf_lib_fail(RF_ERR_LIMIT, "%d operations are outstanding already, or no memory",
                       RF_OPERATIONS_MAX);
}

bool rf_operation_done(const rf_operation_t *operation)
{
    return operation->request->done;
}

void rf_operation_cancel(rf_operation_t *operation)
{
    if (!operation) return;
    bool waits = operation->kind == OPERATION_WAIT || operation->kind == OPERATION_REGISTRY;
    if (waits && operation->request && !operation->request->done) {
        rf_client_target_t target = {.domain = operation->request->tag};
        (void)rf_lib_tell(&rf_me.client, RF_CLIENT_CANCEL, &target,
                          sizeof target); /* lost: its answer is dropped */
    }
    if (operation->kind == OPERATION_REGISTRY && !operation->request->done) { /* the answer may be a grant */
        rf_lib_waitsets_forget(operation);
        operation->request->abandoned = operation;
        return;
    }
    if (operation->kind == OPERATION_REGISTRY) rf_lib_registry_abandoned(operation);
    rf_lib_operation_free(operation);
}

void rf_lib_operations_stop(void)
{
    while (rf_me.operations) rf_lib_operation_free(rf_me.operations);
}

static bool operation_ready(void *context)
{
    return rf_operation_done(context);
}

rf_err_t rf_lib_operation_block(rf_operation_t *operation, uint64_t deadline_ns)
{
    return rf_lib_block(&(lib_wait_t){operation_ready, NULL, operation}, deadline_ns);
}

rf_err_t rf_operation_wait(rf_operation_t *operation, rf_operation_result_t *result, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_operation_block(operation, deadline_ns);
    if (err != RF_OK) return err;
    const lib_request_t *request = operation->request;
    err = request->err;
    size_t wanted = operation->kind == OPERATION_WAIT       ? sizeof operation->reply.ended
                    : operation->kind == OPERATION_REGISTRY ? sizeof operation->reply.done
                                                            : sizeof operation->reply.spawned;
    if (err == RF_OK && request->out_size < wanted)
        err = rf_lib_fail(RF_ERR_PROTOCOL, "the monitor's answer is too short");
    if (err == RF_OK && result) {
        rf_operation_result_t r = {0};
        if (operation->kind == OPERATION_WAIT) {
            rf_lib_domain_info(&operation->reply.ended, &r.ended);
            r.domain = r.ended.domain;
        } else if (operation->kind == OPERATION_REGISTRY) {
            r.revision = operation->reply.done.revision;
            r.size = request->out_size - wanted;
            memcpy(r.message, operation->reply.message, r.size);
        } else {
            r.domain = operation->reply.spawned.domain;
            r.index = operation->reply.spawned.index;
            r.core = operation->reply.spawned.core;
        }
        *result = r;
    } else if (err != RF_OK && operation->kind != OPERATION_WAIT && operation->kind != OPERATION_REGISTRY &&
               request->out_size == wanted && operation->reply.spawned.what[0]) {
        const rf_client_spawned_t *spawned = &operation->reply.spawned;
        rf_lib_fail(err, "%.*s%s%s", (int)sizeof spawned->what, spawned->what, spawned->os_errno ? ": " : "",
                    spawned->os_errno ? strerror((int)spawned->os_errno) : "");
    }
    rf_lib_operation_free(operation);
    return err;
}

/* ---- the spawn block ---- */

static uint32_t current_umask(void)
{
    mode_t mask =
        umask(077); /* one host thread calls the library; there is no other way to read it everywhere */
    umask(mask);
    return mask & 0777;
}

/* The environment without the way to our own CPU driver; the caller frees the array. */
static const char **filter_env(const char *const *env, uint32_t *n_out)
{
    size_t n = 0, kept = 0, name = strlen(RF_ENV_DISPATCHER_FD);
    while (env && env[n]) n++;
    const char **out = malloc((n + 1) * sizeof *out);
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++)
        if (strncmp(env[i], RF_ENV_DISPATCHER_FD, name) != 0 || env[i][name] != '=') out[kept++] = env[i];
    out[kept] = NULL;
    *n_out = (uint32_t)kept;
    return out;
}

/* Puts the block into a sealed memory object. */
static rf_err_t publish(const rf_spawn_t *spawn, int *fd_out)
{
    size_t size = rf_spawn_size(spawn);
    if (size > RF_SPAWN_BYTES_MAX || (uint64_t)spawn->n_args + spawn->n_env > RF_SPAWN_ARGS_MAX)
        return rf_lib_fail(RF_ERR_LIMIT, "arguments and environment have more than %u bytes or %u strings",
                           RF_SPAWN_BYTES_MAX, RF_SPAWN_ARGS_MAX);
    int fd;
    rf_err_t err = rf_memory_create("rackfish-spawn", size, &fd);
    if (err != RF_OK) return err;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        err = rf_lib_fail(RF_ERR_OS, "mmap: %s", strerror(errno));
    } else {
        size_t written;
        err = rf_spawn_encode(spawn, at, size, &written);
        munmap(at, size);
    }
    if (err == RF_OK)
        *fd_out = fd;
    else
        close(fd);
    return err;
}

static rf_err_t make_block(const char *const *argv, const rf_spawn_options_t *options, bool with_streams,
                           int *fd)
{
    char cwd[CWD_MAX];
    if (options->cwd) {
        if (strlen(options->cwd) >= sizeof cwd)
            return rf_lib_fail(RF_ERR_INVALID, "the folder's name is too long");
        snprintf(cwd, sizeof cwd, "%s", options->cwd);
    } else if (!getcwd(cwd, sizeof cwd)) {
        return rf_lib_fail(RF_ERR_OS, "getcwd: %s", strerror(errno));
    }
    uint32_t n_args = 0, n_env;
    while (argv[n_args]) n_args++;
    const char **env = filter_env(options->env ? options->env : (const char *const *)environ, &n_env);
    if (!env) return RF_ERR_NO_MEMORY;
    rf_spawn_t spawn = {
        /* ROOT: the monitor takes it away again from those who do not run as root themselves. */
        .flags = RF_SPAWN_LIMITS_SET | RF_SPAWN_ROOT | (with_streams ? RF_SPAWN_STDIO : 0u),
        .umask = current_umask(),
        .reserved_permille = options->reserved_permille,
        .weight = options->weight,
        .user = "",
        .cwd = cwd,
        .executable = options->executable ? options->executable : argv[0],
        .n_args = n_args,
        .n_env = n_env,
        .argv = (const char **)(uintptr_t)argv,
        .env = env,
        .span_args = (const uint8_t *)"",
    };
    for (unsigned i = 0; i < RF_SPAWN_LIMITS; i++) {
        struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
        (void)getrlimit((__rlimit_resource_t)i, &limit);
        spawn.limits[i][0] = limit.rlim_cur;
        spawn.limits[i][1] = limit.rlim_max;
    }
    rf_err_t err = publish(&spawn, fd);
    free(env);
    return err;
}

static bool core_on_this_node(rf_core_t core)
{
    return core >= rf_me.self.node_first_core && core - rf_me.self.node_first_core < rf_me.self.node_cores;
}

rf_err_t rf_spawn_begin(rf_core_t core, const char *const *argv, const rf_spawn_options_t *options,
                        rf_operation_t **out)
{
    static const rf_spawn_options_t none;
    if (!options) options = &none;
    if (!argv || !argv[0] || options->reserved_permille > 1000 || options->weight > 1000)
        return rf_lib_fail(RF_ERR_INVALID, "rf_spawn: no argv[0], or a share out of its range");
    if (rf_me.up && core >= rf_me.self.cores)
        return rf_lib_fail(RF_ERR_NOT_FOUND, "there is no core %u: the machine has %u", core,
                           rf_me.self.cores);
    if (options->streams == RF_SPAWN_STREAMS_FDS && !core_on_this_node(core))
        return rf_lib_fail(RF_ERR_NOT_SUPPORTED, "streams can be passed only to cores of this host");
    rf_operation_t *operation = rf_lib_operation_create(OPERATION_SPAWN);
    if (!operation) return rf_lib_no_operation();

    int fds[4] = {-1, -1, -1, -1}, null = -1;
    bool with_streams = options->streams == RF_SPAWN_STREAMS_FDS ||
                        (options->streams == RF_SPAWN_STREAMS_AUTO && core_on_this_node(core));
    for (int i = 0; with_streams && i < 3; i++) {
        fds[1 + i] = options->streams == RF_SPAWN_STREAMS_FDS ? options->stdio[i] : i;
        if (fcntl(fds[1 + i], F_GETFD) >= 0) continue;
        if (null < 0) null = open("/dev/null", O_RDWR | O_CLOEXEC);
        fds[1 + i] = null;
    }
    rf_err_t err = make_block(argv, options, with_streams, &fds[0]);
    if (err == RF_OK) {
        rf_client_spawn_t request = {.core = core, .n_fds = with_streams ? 4 : 1};
        err =
            rf_lib_request_start(&rf_me.client, RF_CLIENT_SPAWN, &request, sizeof request, fds, request.n_fds,
                                 &operation->reply, sizeof operation->reply, &operation->request);
    }
    if (fds[0] >= 0) close(fds[0]);
    if (null >= 0) close(null);
    if (err != RF_OK)
        rf_lib_operation_free(operation);
    else
        *out = operation;
    return err;
}

rf_err_t rf_span_begin(rf_core_t core, const void *args, size_t size, rf_operation_t **out)
{
    rf_client_spawn_t request = {.core = core, .span_args_size = (uint16_t)size};
    if (size > RF_SPAN_ARGS_BYTES_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "rf_span: at most %d bytes of arguments", RF_SPAN_ARGS_BYTES_MAX);
    if (rf_me.up && core >= rf_me.self.cores)
        return rf_lib_fail(RF_ERR_NOT_FOUND, "there is no core %u: the machine has %u", core,
                           rf_me.self.cores);
    if (size) memcpy(request.span_args, args, size);
    rf_operation_t *operation = rf_lib_operation_create(OPERATION_SPAN);
    if (!operation) return rf_lib_no_operation();
    rf_err_t err = rf_lib_request_start(&rf_me.client, RF_CLIENT_SPAN, &request, sizeof request, NULL, 0,
                                        &operation->reply, sizeof operation->reply, &operation->request);
    if (err != RF_OK)
        rf_lib_operation_free(operation);
    else
        *out = operation;
    return err;
}
_Static_assert(RF_SPAN_ARGS_BYTES_MAX == RF_SPAN_ARGS_MAX, "the public maximum is the wire's");

rf_err_t rf_wait_domain_begin(rf_domain_t domain, rf_operation_t **out)
{
    rf_client_target_t target = {.domain = domain};
    rf_operation_t *operation = rf_lib_operation_create(OPERATION_WAIT);
    if (!operation) return rf_lib_no_operation();
    operation->domain = domain;
    rf_err_t err = rf_lib_request_start(&rf_me.client, RF_CLIENT_WAIT, &target, sizeof target, NULL, 0,
                                        &operation->reply, sizeof operation->reply, &operation->request);
    if (err != RF_OK)
        rf_lib_operation_free(operation);
    else
        *out = operation;
    return err;
}

/* ---- the same, in one call ---- */

typedef struct begin_wait {
    int kind;
    rf_core_t core;
    const char *const *argv;
    const rf_spawn_options_t *options;
    const void *args;
    size_t size;
    rf_domain_t domain;
    rf_operation_t *operation;
    rf_err_t err;
} begin_wait_t;

static bool begin_ready(void *context)
{
    begin_wait_t *w = context;
    switch (w->kind) {
    case OPERATION_SPAWN:
        w->err = rf_spawn_begin(w->core, w->argv, w->options, &w->operation);
        break;
    case OPERATION_SPAN:
        w->err = rf_span_begin(w->core, w->args, w->size, &w->operation);
        break;
    default:
        w->err = rf_wait_domain_begin(w->domain, &w->operation);
        break;
    }
    return w->err != RF_ERR_AGAIN;
}

/* A full link tells when it has room; a side socket too full for descriptors tells nobody. */
static void begin_arm(void *context, lib_arm_t *arm)
{
    if (((begin_wait_t *)context)->kind == OPERATION_SPAWN) rf_lib_arm_nap(arm);
}

static rf_err_t run_operation(begin_wait_t *w, rf_operation_result_t *result, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_block(&(lib_wait_t){begin_ready, begin_arm, w}, deadline_ns);
    if (err == RF_OK) err = w->err;
    if (err != RF_OK) return err;
    err = rf_operation_wait(w->operation, result, deadline_ns);
    /* TIMEOUT can also be the monitor's own answer; then the operation is gone. */
    if (err == RF_ERR_TIMEOUT) {
        for (rf_operation_t *at = rf_me.operations; at; at = at->next)
            if (at == w->operation) {
                rf_operation_cancel(at);
                break;
            }
    }
    return err;
}

rf_err_t rf_spawn(rf_core_t core, const char *const *argv, const rf_spawn_options_t *options,
                  rf_domain_t *out, uint64_t deadline_ns)
{
    rf_operation_result_t result;
    begin_wait_t w = {.kind = OPERATION_SPAWN, .core = core, .argv = argv, .options = options};
    rf_err_t err = run_operation(&w, &result, deadline_ns);
    if (err == RF_OK) *out = result.domain;
    return err;
}

rf_err_t rf_span(rf_core_t core, const void *args, size_t size, uint16_t *index, uint64_t deadline_ns)
{
    rf_operation_result_t result;
    begin_wait_t w = {.kind = OPERATION_SPAN, .core = core, .args = args, .size = size};
    rf_err_t err = run_operation(&w, &result, deadline_ns);
    if (err == RF_OK) *index = result.index;
    return err;
}

rf_err_t rf_wait_domain(rf_domain_t domain, rf_domain_info_t *ended, uint64_t deadline_ns)
{
    rf_operation_result_t result;
    begin_wait_t w = {.kind = OPERATION_WAIT, .domain = domain};
    rf_err_t err = run_operation(&w, &result, deadline_ns);
    if (err == RF_OK && ended) *ended = result.ended;
    return err;
}

rf_err_t rf_kill(rf_domain_t domain, int signo, bool whole, uint64_t deadline_ns)
{
    if (signo < 1 || signo > 64) return rf_lib_fail(RF_ERR_INVALID, "rf_kill: signals are 1 to 64");
    rf_client_kill_t request = {.domain = domain, .signo = (uint32_t)signo, .whole = whole};
    return rf_lib_request(&rf_me.client, RF_CLIENT_KILL, &request, sizeof request, NULL, 0, 0, NULL, NULL,
                          deadline_ns);
}
