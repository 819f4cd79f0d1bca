#include "cli/run.h"

#include "cli/show.h"
#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OPTION_ALL = 256,
    OPTION_STDIN,
    OPTION_CHDIR,
    OPTION_ENV,
    OPTION_WITH_LIBS,
    OPTION_RESERVE,
    OPTION_WEIGHT,
    OPTION_CONTROL,
};

const cli_option_t cli_run_options[] = {
    {"core", 'c', "N", "on this core"},
    {"node", 'n', "NODE", "on a core of this node"},
    {"all", OPTION_ALL, NULL, "on every core that is up, witnesses' excepted, one domain each"},
    {"detach", 'd', NULL, "do not wait: print the domain's id; output goes to its log"},
    {"tty", 't', NULL, "give it a terminal"},
    {"label", 'l', NULL, "with --all: put the core before each line"},
    {"stdin", OPTION_STDIN, "WHO", "with --all: stdin goes to the first (default) or to all"},
    {"chdir", OPTION_CHDIR, "DIR", "its working directory (default: this one)"},
    {"env", OPTION_ENV, "NAME=VALUE", "set a variable on top of this environment; NAME alone unsets it"},
    {"with-libs", OPTION_WITH_LIBS, NULL, "ship its shared libraries too, where they differ"},
    {"reserve", OPTION_RESERVE, "PERCENT", "reserve this share of the core"},
    {"weight", OPTION_WEIGHT, "N", "weight among best effort, 1 to 1000 (default 100)"},
    {"control", OPTION_CONTROL, NULL, "it may use the control socket, such as run rackfish"},
    {NULL, 0, NULL, NULL},
};

typedef struct run_options {
    int64_t core; /* -1: any */
    const char *node, *chdir;
    bool all, detach, tty, label, stdin_all, with_libs, control;
    uint32_t reserved_permille, weight;
} run_options_t;

extern char **environ;

static int parse_reserve(const cli_t *cli, const char *text, uint32_t *permille)
{
    char *end;
    double percent = strtod(text, &end);
    if (*end == '%') end++;
    if (end == text || *end || !(percent >= 0.1) || percent > 100) {
        cli_usage(cli, "--reserve takes a percentage from 0.1 to 100, not \"%s\"", text);
        return CLI_RUN_FAILED;
    }
    *permille = (uint32_t)(percent * 10 + 0.5);
    return CLI_OK;
}

/* --env: in our own environment, which is then forwarded. */
static bool set_variable(const char *text)
{
    const char *equals = strchr(text, '=');
    if (equals == text || !*text) return false;
    if (!equals) return unsetenv(text) == 0;
    char *name = strndup(text, (size_t)(equals - text));
    bool done = name && setenv(name, equals + 1, 1) == 0;
    free(name);
    return done;
}

static int parse_option(const cli_t *cli, run_options_t *o, int c)
{
    uint64_t number;
    switch (c) {
    case 'c':
        if (!cli_parse_number(optarg, 0, RF_CORES_MAX - 1, &number)) {
            cli_usage(cli, "--core takes a core's number, not \"%s\"; `rackfish cores` lists them", optarg);
            return CLI_RUN_FAILED;
        }
        o->core = (int64_t)number;
        return CLI_OK;
    case 'n':
        o->node = optarg;
        return CLI_OK;
    case OPTION_ALL:
        o->all = true;
        return CLI_OK;
    case 'd':
        o->detach = true;
        return CLI_OK;
    case 't':
        o->tty = true;
        return CLI_OK;
    case 'l':
        o->label = true;
        return CLI_OK;
    case OPTION_STDIN:
        if (strcmp(optarg, "all") != 0 && strcmp(optarg, "first") != 0) {
            cli_usage(cli, "--stdin takes first or all, not \"%s\"", optarg);
            return CLI_RUN_FAILED;
        }
        o->stdin_all = strcmp(optarg, "all") == 0;
        return CLI_OK;
    case OPTION_CHDIR:
        o->chdir = optarg;
        return CLI_OK;
    case OPTION_ENV:
        if (!set_variable(optarg)) {
            cli_usage(cli, "--env takes NAME=VALUE, not \"%s\"", optarg);
            return CLI_RUN_FAILED;
        }
        return CLI_OK;
    case OPTION_WITH_LIBS:
        o->with_libs = true;
        return CLI_OK;
    case OPTION_RESERVE:
        return parse_reserve(cli, optarg, &o->reserved_permille);
    case OPTION_WEIGHT:
        if (!cli_parse_number(optarg, 1, 1000, &number)) {
            cli_usage(cli, "--weight takes a number from 1 to 1000, not \"%s\"", optarg);
            return CLI_RUN_FAILED;
        }
        o->weight = (uint32_t)number;
        return CLI_OK;
    default:
        o->control = true;
        return CLI_OK;
    }
}

static int check_options(const cli_t *cli, const run_options_t *o)
{
    const char *wrong = NULL;
    if ((o->core >= 0) + (o->node != NULL) + o->all > 1)
        wrong = "--core, --node and --all exclude each other; give one of them";
    else if (o->all && o->tty)
        wrong = "--tty goes with one program, not with --all";
    else if (o->detach && o->tty)
        wrong = "--tty and --detach exclude each other: a detached program has no terminal";
    else if ((o->label || o->stdin_all) && !o->all)
        wrong = "--label and --stdin all go with --all";
    if (!wrong) return CLI_OK;
    cli_usage(cli, "%s", wrong);
    return CLI_RUN_FAILED;
}

/* The environment without what belongs to a dispatcher: a domain's own descriptor is not its child's. */
static char **forwarded_environment(size_t *n)
{
    size_t count = 0;
    while (environ[count]) count++;
    char **list = calloc(count + 1, sizeof *list);
    *n = 0;
    for (size_t i = 0; list && i < count; i++) {
        if (strncmp(environ[i], "RACKFISH_DISPATCHER_FD=", 23) != 0) list[(*n)++] = environ[i];
    }
    return list;
}

static mode_t current_umask(void)
{
    mode_t mask = umask(077);
    umask(mask);
    return mask;
}

/* Cores that are up, in order. The caller frees. */
static int list_cores(const cli_t *cli, uint32_t **cores, size_t *n)
{
    client_t client;
    reply_t *reply;
    *n = 0;
    if (client_open(cli, &client) != CLI_OK) return CLI_RUN_FAILED;
    int status = show_ask(cli, &client, RACKFISH__CONTROL_REQUEST__KIND_CORES,
                          RACKFISH__CONTROL_REPLY__KIND_CORES, &reply);
    client_close(&client);
    if (status != CLI_OK) return CLI_RUN_FAILED;
    *cores = calloc(reply->cores->n_cores + 1, sizeof **cores);
    for (size_t i = 0; *cores && i < reply->cores->n_cores; i++) {
        const Rackfish__Core *core = reply->cores->cores[i];
        if (strcmp(core->state, "up") == 0 && !core->witness) (*cores)[(*n)++] = core->core;
    }
    client_reply_free(reply);
    if (*n > 0) return CLI_OK;
    cli_error(cli, "no core is up");
    return CLI_RUN_FAILED;
}

static void die_by(int signo)
{
    sigset_t set;
    struct rlimit none = {0, 0}; /* the program may have left a core file; another of ours would mislead */
    setrlimit(RLIMIT_CORE, &none);
    signal(signo, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, signo);
    fflush(NULL);
    raise(signo);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    /* A signal whose default is to be ignored, or ours is blocked for good: as a shell would say it. */
    _exit(128 + signo);
}

typedef struct prepared { /* what a plan points to */
    executable_file_t files[1 + EXECUTABLE_LIBRARIES_MAX];
    Rackfish__SharedFile libraries[EXECUTABLE_LIBRARIES_MAX];
    Rackfish__SharedFile *library_list[EXECUTABLE_LIBRARIES_MAX];
    uint64_t soft[RLIM_NLIMITS], hard[RLIM_NLIMITS];
    char cwd[CLI_PATH_MAX];
    char **env;
    uint32_t *cores;
} prepared_t;

static int prepare_directory(const cli_t *cli, const run_options_t *o, prepared_t *p)
{
    /* --chdir is a directory of the target host: absolute as it is, relative to this one by name only. */
    if (o->chdir && o->chdir[0] == '/') {
        snprintf(p->cwd, sizeof p->cwd, "%s", o->chdir);
        return CLI_OK;
    }
    if (!getcwd(p->cwd, sizeof p->cwd)) {
        cli_error(cli, "this directory: %s; give one with --chdir", strerror(errno));
        return CLI_RUN_FAILED;
    }
    if (o->chdir) {
        size_t n = strlen(p->cwd);
        if (snprintf(p->cwd + n, sizeof p->cwd - n, "/%s", o->chdir) >= (int)(sizeof p->cwd - n)) {
            cli_error(cli, "the path of --chdir is too long");
            return CLI_RUN_FAILED;
        }
    }
    return CLI_OK;
}

static int prepare_files(const cli_t *cli, const run_options_t *o, const char *program, prepared_t *p,
                         run_plan_t *plan)
{
    const char *path = getenv("PATH");
    int status = executable_find(cli, program, path ? path : "/usr/local/bin:/usr/bin:/bin", &p->files[0]);
    if (status != CLI_OK) return status;
    Rackfish__RunStart *start = &plan->start;
    start->executable = p->files[0].path;
    plan->files = p->files;
    plan->n_files = 1;
    if (!p->files[0].known) return CLI_OK;
    start->executable_sha256 = (ProtobufCBinaryData){sizeof p->files[0].sha256, p->files[0].sha256};
    start->executable_size = p->files[0].size;
    start->executable_mode = p->files[0].mode;
    if (!o->with_libs) return CLI_OK;
    size_t n;
    if (executable_libraries(cli, p->files[0].path, &p->files[1], EXECUTABLE_LIBRARIES_MAX, &n) != CLI_OK)
        return CLI_RUN_FAILED;
    for (size_t i = 0; i < n; i++) {
        Rackfish__SharedFile *library = p->library_list[i] = &p->libraries[i];
        rackfish__shared_file__init(library);
        library->path = p->files[1 + i].path;
        library->sha256 = (ProtobufCBinaryData){sizeof p->files[0].sha256, p->files[1 + i].sha256};
        library->size = p->files[1 + i].size;
    }
    plan->n_files = 1 + n;
    start->with_libs = true;
    start->libraries = p->library_list;
    start->n_libraries = n;
    return CLI_OK;
}

static int prepare(const cli_t *cli, const run_options_t *o, int argc, char **argv, prepared_t *p,
                   run_plan_t *plan)
{
    Rackfish__RunStart *start = &plan->start;
    rackfish__run_start__init(start);
    int status = prepare_directory(cli, o, p);
    if (status == CLI_OK) status = prepare_files(cli, o, argv[0], p, plan);
    if (status == CLI_OK && o->all) status = list_cores(cli, &p->cores, &plan->n_cores);
    if (status != CLI_OK) return status;
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
        struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
        getrlimit((__rlimit_resource_t)i, &limit);
        p->soft[i] = limit.rlim_cur;
        p->hard[i] = limit.rlim_max;
    }
    p->env = forwarded_environment(&start->n_env);
    if (!p->env) {
        cli_error(cli, "out of memory");
        return CLI_RUN_FAILED;
    }
    start->env = p->env;
    start->argv = argv;
    start->n_argv = (size_t)argc;
    start->core = (int32_t)o->core;
    if (o->node) start->node = (char *)(uintptr_t)o->node;
    start->cwd = p->cwd;
    start->umask = (uint32_t)current_umask();
    start->limits_soft = p->soft;
    start->limits_hard = p->hard;
    start->n_limits_soft = start->n_limits_hard = RLIM_NLIMITS;
    start->tty = o->tty;
    if (o->tty) terminal_size(&start->rows, &start->columns);
    start->detach = o->detach;
    start->control = o->control;
    start->reserved_permille = o->reserved_permille;
    start->weight = o->weight;
    start->stdout_credit = start->stderr_credit = o->all ? RUN_CREDIT_ALL : RUN_CREDIT;
    plan->cores = p->cores;
    plan->label = o->label;
    plan->stdin_all = o->stdin_all;
    plan->interactive = o->tty;
    return CLI_OK;
}

int cli_run(cli_t *cli, int argc, char **argv)
{
    run_options_t o = {.core = -1};
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status == CLI_OK ? CLI_OK : CLI_RUN_FAILED;
        if (parse_option(cli, &o, c) != CLI_OK) return CLI_RUN_FAILED;
    }
    if (check_options(cli, &o) != CLI_OK) return CLI_RUN_FAILED;
    if (optind == argc) {
        cli_usage(cli, "which program?");
        return CLI_RUN_FAILED;
    }
    prepared_t *p = calloc(1, sizeof *p);
    if (!p) {
        cli_error(cli, "out of memory");
        return CLI_RUN_FAILED;
    }
    run_plan_t plan = {.n_files = 0};
    int signo = 0, status = prepare(cli, &o, argc - optind, argv + optind, p, &plan);
    if (status == CLI_OK) status = run_sessions(cli, &plan, &signo);
    free(p->env);
    free(p->cores);
    free(p);
    if (signo) die_by(signo);
    return status;
}
