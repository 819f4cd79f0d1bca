/* registry: keys of the machine, read, changed and watched; and a lock held while a program runs. */
#include "cli/client.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/table.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define VALUE_MAX     512
#define TERM_GRACE_MS 5000 /* between TERM and KILL, when the lock is lost */

enum { OPTION_NEW = 0x100, OPTION_SEQUENTIAL, OPTION_REVISION, OPTION_LOCAL, OPTION_FROM, OPTION_KIND };

const cli_option_t cli_registry_options[] = {
    {"new", OPTION_NEW, NULL, "put: only if there is no such key"},
    {"sequential", OPTION_SEQUENTIAL, NULL, "put: NAME gets 16 digits that rise in the order of the log"},
    {"revision", OPTION_REVISION, "N", "put, del: only if revision N last changed it"},
    {"local", OPTION_LOCAL, NULL,
     "get, list: what the node knows now, instead of everything acknowledged before"},
    {"kind", OPTION_KIND, "KIND", "list: keys (default), locks, semaphores, barriers or queues"},
    {"prefix", 'p', NULL, "watch: all keys whose names begin with NAME"},
    {"from", OPTION_FROM, "N", "watch: from revision N on (default: what happens from now on)"},
    {"timeout", 't', "TIME", "lock: give up after this long, such as 5s"},
    {NULL, 0, NULL, NULL},
};

typedef struct options {
    bool new, sequential, local, prefix;
    uint64_t revision, from, timeout_ms;
    Rackfish__RegistryKind kind;
} options_t;

typedef int (*registry_fn)(const cli_t *cli, const options_t *o, int argc, char **argv);

static request_t wrap(Rackfish__RegistryRequest *r)
{
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_REGISTRY;
    request.registry = r;
    return request;
}

static Rackfish__RegistryRequest about(Rackfish__RegistryWhat what, char *name)
{
    Rackfish__RegistryRequest r;
    rackfish__registry_request__init(&r);
    r.what = what;
    r.name = name;
    return r;
}

/* One question, one reply; *reply is the caller's on CLI_OK. */
static int ask(const cli_t *cli, client_t *client, Rackfish__RegistryRequest *r, int timeout_ms,
               reply_t **reply)
{
    request_t request = wrap(r);
    int status = client_ask(cli, client, &request, timeout_ms, reply);
    if (status == CLI_OK && (*reply)->kind_case != RACKFISH__CONTROL_REPLY__KIND_REGISTRY) {
        client_reply_free(*reply);
        status = client_lost(cli, client, RF_ERR_PROTOCOL);
    }
    return status;
}

/* ---- get, list ---- */

static const char *const kind_names[] = {"key", "lock", "semaphore", "barrier", "queue"};

static void entry_json(const Rackfish__RegistryEntry *e)
{
    json_t json = json_on(stdout);
    json_object_begin(&json, NULL);
    json_string(&json, "name", e->name);
    json_string(&json, "kind", (unsigned)e->kind < 5 ? kind_names[e->kind] : "?");
    if (e->kind == RACKFISH__REGISTRY_KIND__REGISTRY_KEY)
        json_bytes(&json, "value", e->value.data, e->value.len);
    json_u64(&json, "revision", e->revision);
    json_u64(&json, "version", e->version);
    json_u64(&json, "created", e->created);
    json_bool(&json, "ephemeral", e->ephemeral);
    json_u64(&json, "domain", e->domain);
    json_u64(&json, "index", e->index);
    json_string(&json, "user", e->user);
    if (e->kind != RACKFISH__REGISTRY_KIND__REGISTRY_KEY) {
        json_u64(&json, "n", e->n);
        json_u64(&json, "used", e->used);
        json_u64(&json, "waiting", e->waiting);
    }
    json_object_end(&json);
    json_line_end(&json);
}

static int get(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    (void)argc;
    client_t client;
    reply_t *reply;
    Rackfish__RegistryRequest r = about(RACKFISH__REGISTRY_WHAT__REGISTRY_GET, argv[0]);
    r.linearizable = !o->local;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    status = ask(cli, &client, &r, CLI_REPLY_TIMEOUT_MS, &reply);
    if (status == CLI_OK) {
        const Rackfish__RegistryEntry *e =
            reply->registry->n_entries > 0 ? reply->registry->entries[0] : NULL;
        if (!e) {
            status = cli_error(cli, "there is no key \"%s\"", argv[0]);
        } else if (cli->json) {
            entry_json(e);
        } else {
            fwrite(e->value.data, 1, e->value.len, stdout);
            printf("\n");
        }
        client_reply_free(reply);
    }
    client_close(&client);
    return status;
}

static void list_row(table_t *table, const Rackfish__RegistryEntry *e)
{
    bool key = e->kind == RACKFISH__REGISTRY_KIND__REGISTRY_KEY;
    table_cell(table, "%s", e->name);
    table_cell(table, "%llu", (unsigned long long)e->revision);
    key ? table_cell(table, "%llu", (unsigned long long)e->version) : table_cell(table, "-");
    key ? table_cell(table, "%zu", e->value.len) : table_cell(table, "%u/%u", e->used, e->n);
    table_cell(table, "%u", e->waiting);
    if (e->domain)
        table_cell(table, "%llu.%u", (unsigned long long)e->domain, e->index);
    else
        table_cell(table, "%s", e->ephemeral ? "command" : "-");
    table_cell(table, "%s", e->user);
}

static int list(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    static char everything[] = "";
    client_t client;
    Rackfish__RegistryRequest r =
        about(RACKFISH__REGISTRY_WHAT__REGISTRY_LIST, argc > 0 ? argv[0] : everything);
    r.kind = o->kind;
    r.linearizable = !o->local;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    request_t request = wrap(&r);
    table_t *table =
        cli->json ? NULL : table_new("NAME REVISION> VERSION> SIZE> WAITING> OWNER> USER", cli->colour);
    client_queue(&client, &request);
    for (bool more = true; more && status == CLI_OK;) {
        reply_t *reply;
        rf_err_t err = client_receive(&client, rf_clock_ns() + CLI_REPLY_TIMEOUT_MS * RF_NS_PER_MS, &reply);
        if (err != RF_OK) {
            status = client_lost(cli, &client, err);
            break;
        }
        more = reply->more;
        if (reply->err != RF_OK) {
            status = client_refused(cli, reply);
        } else if (reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_REGISTRY) {
            for (size_t i = 0; i < reply->registry->n_entries; i++) {
                if (cli->json)
                    entry_json(reply->registry->entries[i]);
                else
                    list_row(table, reply->registry->entries[i]);
            }
        }
        client_reply_free(reply);
    }
    if (table) table_print(table, stdout, 0);
    client_close(&client);
    return status;
}

/* ---- put, del, cas ---- */

/* One change; shows what it was given. */
static int change(const cli_t *cli, Rackfish__RegistryRequest *r)
{
    client_t client;
    reply_t *reply;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    r->sequence = 1;
    status = ask(cli, &client, r, CLI_REPLY_TIMEOUT_MS, &reply);
    if (status == CLI_OK) {
        const Rackfish__RegistryReply *done = reply->registry;
        if (cli->json) {
            json_t json = json_on(stdout);
            json_object_begin(&json, NULL);
            json_string(&json, "name", done->name[0] ? done->name : r->name);
            json_u64(&json, "revision", done->revision);
            json_object_end(&json);
            json_line_end(&json);
        } else if (done->name[0]) {
            printf("%s\n", done->name);
        }
        client_reply_free(reply);
    }
    client_close(&client);
    return status;
}

static ProtobufCBinaryData text(char *argument)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)argument, .len = strlen(argument)};
}

static int put(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    char room[VALUE_MAX + 1];
    Rackfish__RegistryRequest r = about(RACKFISH__REGISTRY_WHAT__REGISTRY_PUT, argv[0]);
    if (argc > 1) {
        r.value = text(argv[1]);
    } else {
        size_t size = fread(room, 1, sizeof room, stdin);
        if (ferror(stdin)) return cli_error(cli, "reading the value from stdin: %s", strerror(errno));
        if (size > VALUE_MAX) return cli_error(cli, "a value has at most %d bytes", VALUE_MAX);
        r.value = (ProtobufCBinaryData){.data = (uint8_t *)room, .len = size};
    }
    r.sequential = o->sequential;
    r.condition = o->revision ? RACKFISH__REGISTRY_CONDITION__REGISTRY_IF_REVISION
                  : o->new    ? RACKFISH__REGISTRY_CONDITION__REGISTRY_IF_ABSENT
                              : RACKFISH__REGISTRY_CONDITION__REGISTRY_ALWAYS;
    r.number = o->revision;
    return change(cli, &r);
}

static int del(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    (void)argc;
    Rackfish__RegistryRequest r = about(RACKFISH__REGISTRY_WHAT__REGISTRY_DELETE, argv[0]);
    r.condition = o->revision ? RACKFISH__REGISTRY_CONDITION__REGISTRY_IF_REVISION
                              : RACKFISH__REGISTRY_CONDITION__REGISTRY_ALWAYS;
    r.number = o->revision;
    return change(cli, &r);
}

static int cas(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    (void)o;
    (void)argc;
    Rackfish__RegistryRequest r = about(RACKFISH__REGISTRY_WHAT__REGISTRY_PUT, argv[0]);
    r.condition = RACKFISH__REGISTRY_CONDITION__REGISTRY_IF_VALUE;
    r.compare = text(argv[1]);
    r.value = text(argv[2]);
    return change(cli, &r);
}

/* ---- watch ---- */

static void show_event(const cli_t *cli, const Rackfish__RegistryEvent *e)
{
    static const char *const whats[] = {"?", "put", "deleted", "expired"};
    const char *what = (unsigned)e->what < 4 ? whats[e->what] : whats[0];
    if (cli->json) {
        json_t json = json_on(stdout);
        json_object_begin(&json, NULL);
        json_string(&json, "what", what);
        json_string(&json, "name", e->name);
        json_bytes(&json, "value", e->value.data, e->value.len);
        json_u64(&json, "revision", e->revision);
        json_u64(&json, "version", e->version);
        json_object_end(&json);
        json_line_end(&json);
        return;
    }
    printf("%llu %s %s", (unsigned long long)e->revision, what, e->name);
    if (e->what == RACKFISH__REGISTRY_EVENT__WHAT__PUT) {
        printf(" ");
        fwrite(e->value.data, 1, e->value.len, stdout);
    }
    printf("\n");
    fflush(stdout);
}

static int watch(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    static char everything[] = "";
    client_t client;
    Rackfish__RegistryRequest r =
        about(RACKFISH__REGISTRY_WHAT__REGISTRY_WATCH, argc > 0 ? argv[0] : everything);
    r.prefix = o->prefix || argc == 0;
    r.number = o->from;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    request_t request = wrap(&r);
    client_queue(&client, &request);
    while (status == CLI_OK) {
        reply_t *reply;
        rf_err_t err = client_receive(&client, RF_NEVER, &reply);
        if (err != RF_OK) {
            status = client_lost(cli, &client, err);
            break;
        }
        if (reply->err != RF_OK) {
            status = client_refused(cli, reply);
        } else if (reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_REGISTRY) {
            const Rackfish__RegistryReply *page = reply->registry;
            if (page->missed)
                cli_error(cli, "events before revision %llu are no longer kept: look at the keys again",
                          (unsigned long long)page->next);
            for (size_t i = 0; i < page->n_events; i++) show_event(cli, page->events[i]);
        }
        client_reply_free(reply);
        if (ferror(stdout)) status = CLI_FAILED;
    }
    client_close(&client);
    return status;
}

/* ---- lock ---- */

/* Waits until the program ends or the connection, and with it the lock, is lost; then the program is ended. */
static int follow(const cli_t *cli, client_t *client, pid_t pid)
{
    int wait_status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool lost = false;
    for (bool running = pidfd >= 0; running;) {
        struct pollfd fds[2] = {{.fd = pidfd, .events = POLLIN},
                                {.fd = lost ? -1 : client->fd, .events = POLLIN}};
        int n = poll(fds, 2, lost ? TERM_GRACE_MS : -1);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) kill(pid, SIGKILL);
        running = n >= 0 && !(fds[0].revents & POLLIN);
        if (!running || lost || !fds[1].revents) continue;
        reply_t *reply;
        rf_err_t err = client_receive(client, rf_clock_ns(), &reply);
        if (err == RF_OK) client_reply_free(reply);
        if (err == RF_OK || err == RF_ERR_TIMEOUT) continue;
        lost = true;
        cli_error(cli, "the connection is lost, and the lock with it: ending the program");
        kill(pid, SIGTERM);
    }
    if (pidfd >= 0) close(pidfd);
    while (waitpid(pid, &wait_status, 0) < 0)
        if (errno != EINTR) return CLI_RUN_FAILED;
    if (lost) return CLI_RUN_FAILED;
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

static int lock(const cli_t *cli, const options_t *o, int argc, char **argv)
{
    client_t client;
    reply_t *reply;
    Rackfish__RegistryRequest r = about(RACKFISH__REGISTRY_WHAT__REGISTRY_ACQUIRE, argv[0]);
    r.kind = RACKFISH__REGISTRY_KIND__REGISTRY_LOCK;
    r.timeout_ms = o->timeout_ms;
    if (argc < 2) return cli_usage(cli, "lock NAME -- which program?");
    if (client_open(cli, &client) != CLI_OK) return CLI_RUN_FAILED;
    int status =
        ask(cli, &client, &r, o->timeout_ms ? (int)o->timeout_ms + CLI_REPLY_TIMEOUT_MS : -1, &reply);
    if (status != CLI_OK) {
        client_close(&client);
        return status == CLI_TIMEOUT ? CLI_WAIT_TIMEOUT : CLI_RUN_FAILED;
    }
    char token[32];
    snprintf(token, sizeof token, "%llu", (unsigned long long)reply->registry->revision);
    client_reply_free(reply);
    setenv("RACKFISH_LOCK_TOKEN", token, 1);
    extern char **environ;
    pid_t pid;
    signal(SIGINT, SIG_IGN); /* the program's to handle; the lock is given up behind it */
    signal(SIGQUIT, SIG_IGN);
    posix_spawnattr_t attributes;
    sigset_t usual;
    sigemptyset(&usual);
    sigaddset(&usual, SIGINT);
    sigaddset(&usual, SIGQUIT);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    int os_errno = posix_spawnp(&pid, argv[1], NULL, &attributes, argv + 1, environ);
    posix_spawnattr_destroy(&attributes);
    if (os_errno != 0) {
        cli_error(cli, "%s: %s", argv[1], strerror(os_errno));
        status = os_errno == ENOENT ? CLI_RUN_NOT_FOUND : CLI_RUN_NOT_EXECUTABLE;
    } else {
        status = follow(cli, &client, pid);
    }
    client_close(&client);
    return status;
}

/* ---- the command ---- */

static const struct {
    const char *name;
    int min, max; /* arguments */
    registry_fn run;
    const char *usage;
} verbs[] = {
    {"get", 1, 1, get, "get NAME"},
    {"put", 1, 2, put, "put NAME [VALUE]"},
    {"del", 1, 1, del, "del NAME"},
    {"cas", 3, 3, cas, "cas NAME EXPECTED VALUE"},
    {"list", 0, 1, list, "list [PREFIX]"},
    {"watch", 0, 1, watch, "watch [NAME]"},
    {"lock", 2, 1 << 16, lock, "lock NAME -- PROGRAM [ARGUMENT]..."},
};
#define N_VERBS (sizeof verbs / sizeof verbs[0])

static bool parse_kind(const char *name, Rackfish__RegistryKind *out)
{
    for (unsigned i = 0; i < sizeof kind_names / sizeof kind_names[0]; i++) {
        size_t size = strlen(kind_names[i]);
        if (strncmp(name, kind_names[i], size) != 0 || (name[size] && strcmp(name + size, "s") != 0))
            continue;
        *out = (Rackfish__RegistryKind)i;
        return true;
    }
    return false;
}

int cli_registry(cli_t *cli, int argc, char **argv)
{
    options_t o = {0};
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        bool right = true;
        if (c == CLI_OPTION_STOP) return cli->status;
        o.new |= c == OPTION_NEW;
        o.sequential |= c == OPTION_SEQUENTIAL;
        o.local |= c == OPTION_LOCAL;
        o.prefix |= c == 'p';
        if (c == OPTION_REVISION) right = cli_parse_number(optarg, 1, UINT64_MAX, &o.revision);
        if (c == OPTION_FROM) right = cli_parse_number(optarg, 1, UINT64_MAX, &o.from);
        if (c == 't') right = cli_parse_duration_ms(optarg, &o.timeout_ms) && o.timeout_ms > 0;
        if (c == OPTION_KIND) right = parse_kind(optarg, &o.kind);
        if (!right) return cli_usage(cli, "\"%s\" is not what that option takes", optarg);
    }
    if (o.new + o.sequential + (o.revision != 0) > 1)
        return cli_usage(cli, "--new, --sequential and --revision exclude each other");
    const char *wanted = optind < argc ? argv[optind] : "";
    int n = argc - optind - 1;
    for (unsigned i = 0; i < N_VERBS; i++) {
        if (strcmp(verbs[i].name, wanted) != 0) continue;
        if (n < verbs[i].min || n > verbs[i].max) return cli_usage(cli, "usage: %s", verbs[i].usage);
        return verbs[i].run(cli, &o, n, argv + optind + 1);
    }
    return cli_usage(cli, "get, put, del, cas, list, watch or lock?");
}
