#include "cli/up.h"

#include "base/clock.h"
#include "cli/down.h"
#include "cli/json.h"
#include "cli/show.h"
#include "cli/sweep.h"
#include "cli/table.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_NODES     2
#define DEFAULT_CORES     2
#define BOOT_TIMEOUT_MS   60000
#define LOCK_TIMEOUT_MS   10000
#define ENDING_TIMEOUT_MS 20000 /* for nodes that are going down */

bool up_find_program(const cli_t *cli, const char *name, char *path, size_t max)
{
    static const char *const folders[] = {"", "../libexec/rackfish/", "../lib/rackfish/"};
    char self[CLI_PATH_MAX / 2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        slash[1] = '\0';
        for (unsigned i = 0; i < sizeof folders / sizeof folders[0]; i++) {
            if (snprintf(path, max, "%s%s%s", self, folders[i], name) < (int)max && access(path, X_OK) == 0)
                return true;
        }
    }
    cli_error(cli,
              "%s is neither beside this program nor in ../libexec/rackfish; is Rackfish installed whole?",
              name);
    return false;
}

/* ---- one node ---- */

/* rackfishd's stderr. In a privileged machine it goes on as the system user, who has to be able to rotate it. */
static int open_log(const up_t *up, const char *node, char *path, size_t max)
{
    char folder[CLI_PATH_MAX / 2 + RF_NAME_MAX];
    snprintf(folder, sizeof folder, "%s/%s", up->dir.path, node);
    if (mkdir(folder, 0700) < 0 && errno != EEXIST) return -1;
    snprintf(path, max, "%s/rackfishd.log", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    const struct passwd *system_user = geteuid() == 0 ? getpwnam("rackfish") : NULL;
    if (fd >= 0 && system_user && fchown(fd, system_user->pw_uid, system_user->pw_gid) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int up_start_node(up_t *up, rf_node_t node, bool form)
{
    char program[CLI_PATH_MAX], listen_fd[16], ready_fd[16];
    const char *name = up->config->nodes[node].name;
    starter_t *starter = &up->starters[up->n_starters];
    *starter = (starter_t){.fd = -1};
    snprintf(starter->name, sizeof starter->name, "%s", name);
    if (!up_find_program(up->cli, "rackfishd", program, sizeof program)) return CLI_FAILED;
    int log_fd = open_log(up, name, starter->log, sizeof starter->log);
    if (log_fd < 0)
        return cli_error(up->cli, "cannot write the log of node %s in %s: %s", name, up->dir.path,
                         strerror(errno));
    const char *argv[16] = {program, "--config", up->config_path, "--node", name, "--run-dir", up->dir.path};
    size_t n = 7;
    snprintf(ready_fd, sizeof ready_fd, "%d", UP_LINE_FD);
    argv[n++] = "--ready-fd";
    argv[n++] = ready_fd;
    if (form) argv[n++] = "--form";
    if (up->listen_fds[node] >= 0) {
        snprintf(listen_fd, sizeof listen_fd, "%d", up->listen_fds[node]);
        argv[n++] = "--listen-fd";
        argv[n++] = listen_fd;
    }
    starter_exec_t exec = {.argv = argv,
                           .log_fd = log_fd,
                           .stdin_fd = -1,
                           .pass_fd = up->listen_fds[node],
                           .line_fd_target = UP_LINE_FD};
    bool started = starter_start(starter, &exec);
    int saved = errno;
    close(log_fd);
    if (up->listen_fds[node] >= 0) {
        close(up->listen_fds[node]);
        up->listen_fds[node] = -1;
    }
    if (!started) return cli_error(up->cli, "cannot start rackfishd: %s", strerror(saved));
    up->n_starters++;
    return CLI_OK;
}

/* ---- progress ---- */

static void show_progress(const starter_t *starters, size_t n, void *context)
{
    const up_t *up = context;
    size_t ready = 0;
    const starter_t *waiting = NULL;
    for (size_t i = 0; i < n; i++) {
        ready += starters[i].state == STARTER_READY;
        if (starters[i].state == STARTER_WAITING && !waiting) waiting = &starters[i];
    }
    if (up->options.relay) {
        if (waiting) printf("progress %s\n", waiting->said);
        fflush(stdout);
        return;
    }
    if (!isatty(STDERR_FILENO)) return;
    double seconds = (double)(rf_clock_ns() - up->started_ns) / 1e9;
    fprintf(stderr, "\r\033[K%zu of %zu node%s ready, %.1f s", ready, n, n == 1 ? "" : "s", seconds);
    if (waiting && waiting->said[0]) fprintf(stderr, "; %s: %.60s", waiting->name, waiting->said);
    fflush(stderr);
}

static void clear_progress(const up_t *up)
{
    if (!up->options.relay && isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
}

/* ---- what is there already ---- */

typedef struct found {
    unsigned n_live, n_dead_with_cores, n_dead;
    bool live[RF_NODES_MAX], cores[RF_NODES_MAX]; /* by index in dir.nodes */
} found_t;

static bool look_around(const up_t *up, found_t *found)
{
    sweep_t sweep;
    bool fine = sweep_collect(&up->dir, &sweep);
    *found = (found_t){.n_live = 0};
    for (unsigned i = 0; i < up->dir.n_nodes && fine; i++) {
        found->live[i] = sweep_node_is_live(&up->dir, i);
        found->cores[i] =
            sweep_alive(&sweep, SWEEP_CPUDRIVER, (int)i) + sweep_alive(&sweep, SWEEP_MONITOR, (int)i) > 0;
        found->n_live += found->live[i];
        found->n_dead_with_cores += !found->live[i] && found->cores[i];
        found->n_dead += !found->live[i] && !found->cores[i];
    }
    sweep_free(&sweep);
    return fine;
}

static int index_of(const machine_dir_t *dir, const char *node)
{
    for (unsigned i = 0; i < dir->n_nodes; i++) {
        if (strcmp(dir->nodes[i], node) == 0) return (int)i;
    }
    return -1;
}

/* Nothing of it lives: what it left is removed, so that the new one starts from nothing. The far end of a launcher has
 * just written its files there: they stay. */
static int clear_leftovers(up_t *up)
{
    if (up->options.from_stdin || up->dir.n_nodes == 0) return CLI_OK;
    sweep_t sweep;
    sweep_report_t report;
    if (!sweep_collect(&up->dir, &sweep)) {
        sweep_free(&sweep);
        return cli_error(up->cli, "out of memory");
    }
    sweep_run(&up->dir, &sweep, 0, &report);
    sweep_free(&sweep);
    close(up->lock);
    up->lock = -1;
    up->dir.n_nodes = 0;
    return CLI_OK;
}

/* Nodes that were told to end a moment ago are waited for: they remove their folder, and the machine's after the last. */
static void let_ending_end(up_t *up)
{
    uint64_t deadline = rf_clock_ns() + ENDING_TIMEOUT_MS * RF_NS_PER_MS;
    machine_list_nodes(&up->dir);
    for (unsigned i = 0; i < up->dir.n_nodes; i++) {
        while (sweep_node_is_ending(&up->dir, i) && rf_clock_ns() < deadline) rf_clock_sleep_ms(2);
    }
}

/* Makes the machine's folder, takes its lock and lists its nodes; again when a `down` removed it in between. */
static int take_folder(up_t *up)
{
    char base[CLI_PATH_MAX / 4];
    for (unsigned i = 0; i < 10; i++) {
        let_ending_end(up);
        if (!machine_base_prepare(up->cli, base, sizeof base))
            return CLI_FAILED; /* the last to end removed it */
        if (mkdir(up->dir.path, geteuid() == 0 ? 0711 : 0700) == 0) {
            if (chmod(up->dir.path, geteuid() == 0 ? 0711 : 0700) < 0) break;
        } else if (errno == ENOENT) {
            continue;
        } else if (errno != EEXIST) {
            break;
        }
        up->lock = machine_lock(up->dir.path, LOCK_TIMEOUT_MS);
        struct stat here, there;
        if (up->lock >= 0 && fstat(up->lock, &here) == 0 && stat(up->dir.path, &there) == 0 &&
            here.st_ino == there.st_ino) {
            if (here.st_uid != geteuid())
                return cli_error(up->cli, "%s belongs to another user; choose another name with -m",
                                 up->dir.path);
            machine_list_nodes(&up->dir);
            return CLI_OK;
        }
        if (up->lock < 0 && errno == EWOULDBLOCK)
            return cli_error(up->cli,
                             "another `rackfish up` or `down` of machine \"%s\" is at work; try again",
                             up->cli->machine);
        if (up->lock >= 0) close(up->lock);
        up->lock = -1;
    }
    return cli_error(up->cli, "cannot create %s: %s", up->dir.path, strerror(errno));
}

static int load_config(up_t *up)
{
    char error[RF_CONFIG_ERROR_MAX];
    if (rf_config_load(up->config_path, &up->config, error) == RF_OK) {
        if (up->config->warning[0])
            fprintf(stderr, "rackfish: warning: %s:%s\n", up->config->path, up->config->warning);
        return CLI_OK;
    }
    return cli_error(up->cli, "%s", error);
}

/* ---- the two ways to boot ---- */

static int already_up(const up_t *up)
{
    return cli_error(up->cli,
                     "machine \"%s\" is up already; `rackfish -m %s down` ends it, -m NAME boots another",
                     up->cli->machine, up->cli->machine);
}

/* rackfishd of some nodes died and their cores live: new ones take them over. */
static int readopt(up_t *up, const found_t *found, bool only_this, rf_node_t this_node)
{
    unsigned started = 0;
    for (rf_node_t i = 0; i < up->config->n_nodes; i++) {
        int k = index_of(&up->dir, up->config->nodes[i].name);
        if ((only_this && i != this_node) || k < 0 || found->live[k]) continue;
        /* Also one that died with its cores: these join again as new incarnations. */
        int status = up_start_node(up, i, false);
        if (status != CLI_OK) return status;
        started++;
    }
    return started ? CLI_OK : already_up(up);
}

static int start_emulated(up_t *up)
{
    found_t found;
    int status = take_folder(up);
    if (status != CLI_OK) return status;
    if (!look_around(up, &found)) return cli_error(up->cli, "out of memory");
    if (found.n_live + found.n_dead_with_cores > 0) {
        snprintf(up->config_path, sizeof up->config_path, "%s/config.yaml", up->dir.path);
        if (access(up->config_path, R_OK) < 0) return already_up(up); /* booted with --config, elsewhere */
        status = load_config(up);
        return status == CLI_OK ? readopt(up, &found, false, 0) : status;
    }
    up->fresh = true;
    if (up->dir.n_nodes > 0) {
        status = clear_leftovers(up);
        if (status == CLI_OK) status = take_folder(up);
    } else {
        /* A boot that was cut off may have left these two. */
        char path[CLI_PATH_MAX];
        snprintf(path, sizeof path, "%s/config.yaml", up->dir.path);
        unlink(path);
    }
    if (status == CLI_OK) status = up_write_emulated(up);
    if (status == CLI_OK) status = load_config(up);
    if (status == CLI_OK) status = cli_doctor_media(up->cli, up->config, RF_NODE_NONE);
    for (rf_node_t i = 0; status == CLI_OK && i < up->config->n_nodes; i++)
        status = up_start_node(up, i, i == 0);
    return status;
}

static int start_configured(up_t *up)
{
    char base[CLI_PATH_MAX / 4], path[CLI_PATH_MAX];
    found_t found;
    int status = load_config(up);
    if (status != CLI_OK) return status;
    if (up->cli->machine_chosen && strcmp(up->cli->machine, up->config->machine) != 0)
        return cli_usage(up->cli, "%s is about machine \"%s\", not \"%s\"", up->config_path,
                         up->config->machine, up->cli->machine);
    up->cli->machine = up->config->machine;
    rf_node_t this_node = rf_config_this_node(up->config, up->options.node);
    if (this_node == RF_NODE_NONE)
        return cli_error(up->cli,
                         up->options.node ? "%s has no node \"%s\""
                                          : "%s has no entry for this host; name one with --node%s",
                         up->config_path, up->options.node ? up->options.node : "");
    if (!machine_base_prepare(up->cli, base, sizeof base)) return CLI_FAILED;
    snprintf(up->dir.path, sizeof up->dir.path, "%s/%s", base, up->config->machine);
    status = take_folder(up);
    if (status != CLI_OK) return status;
    if (!look_around(up, &found)) return cli_error(up->cli, "out of memory");
    int k = index_of(&up->dir, up->config->nodes[this_node].name);
    if (k >= 0 && found.live[k]) return already_up(up);
    if (k >= 0 && found.cores[k]) return readopt(up, &found, true, this_node);
    up->fresh = found.n_live + found.n_dead_with_cores == 0;
    if (up->fresh && k >= 0) {
        status = clear_leftovers(up);
        if (status == CLI_OK && up->lock < 0) status = take_folder(up);
    }
    if (status != CLI_OK) return status;
    /* A node that once was part of a machine joins; only node 0 of a new one forms it. */
    snprintf(path, sizeof path, "%s/%s/machine", up->dir.path, up->config->nodes[this_node].name);
    bool form = this_node == 0 && access(path, F_OK) < 0;
    status = cli_doctor_media(up->cli, up->config, this_node);
    if (status == CLI_OK) status = up_start_node(up, this_node, form);
    if (status != CLI_OK) return status;
    /* Its rackfishd has a lock of its own now; other nodes may have this host and folder. */
    close(up->lock);
    up->lock = -1;
    return up_launch_others(up, this_node);
}

/* ---- the report ---- */

static int report_machine(up_t *up)
{
    client_t client;
    reply_t *reply;
    double seconds = (double)(rf_clock_ns() - up->started_ns) / 1e9;
    int status = client_open(up->cli, &client);
    if (status != CLI_OK) return status;
    status = show_ask(up->cli, &client, RACKFISH__CONTROL_REQUEST__KIND_STATUS,
                      RACKFISH__CONTROL_REPLY__KIND_STATUS, &reply);
    client_close(&client);
    if (status != CLI_OK) return status;
    const Rackfish__Status *s = reply->status;
    if (up->cli->json) {
        json_t json = json_on(stdout);
        json_object_begin(&json, NULL);
        json_string(&json, "machine", s->machine);
        json_u64(&json, "nodes", s->nodes);
        json_u64(&json, "nodes_up", s->nodes_up);
        json_u64(&json, "cores", s->cores);
        json_u64(&json, "cores_up", s->cores_up);
        json_double(&json, "seconds", seconds);
        json_bool(&json, "taken_over", !up->fresh);
        json_string(&json, "survives", s->survives);
        json_string(&json, "scheduler", s->scheduler);
        json_string(&json, "isolation", s->isolation);
        json_string(&json, "run_dir", up->dir.path);
        json_object_end(&json);
        json_line_end(&json);
    } else if (!up->options.relay) {
        printf("machine \"%s\" %s: %u node%s, %u core%s, in %.2f s\n", s->machine,
               up->fresh ? "is up" : "is up again, its cores taken over", s->nodes_up,
               s->nodes_up == 1 ? "" : "s", s->cores_up, s->cores_up == 1 ? "" : "s", seconds);
        printf("survives: %s\n", s->survives);
        if (strncmp(s->isolation, "none", 4) == 0) printf("isolation: %s\n", s->isolation);
    }
    client_reply_free(reply);
    return CLI_OK;
}

static int report_failure(up_t *up, int outcome)
{
    if (outcome == CLI_TIMEOUT) {
        for (size_t i = 0; i < up->n_starters; i++) {
            const starter_t *s = &up->starters[i];
            if (s->state == STARTER_WAITING)
                cli_error(up->cli, "node %s was not ready within %.0f s%s%s; its log is %s", s->name,
                          (double)up->options.timeout_ms / 1000, s->said[0] ? ", it was at: " : "", s->said,
                          s->log[0] ? s->log : "on its host");
        }
        return CLI_TIMEOUT;
    }
    for (size_t i = 0; i < up->n_starters; i++) {
        if (up->starters[i].state == STARTER_FAILED)
            cli_error(up->cli, "node %s: %s", up->starters[i].name, up->starters[i].said);
    }
    return outcome;
}

/* A node of the folder that somebody else brought up meanwhile. */
static bool others_live(const up_t *up)
{
    for (unsigned i = 0; i < up->dir.n_nodes; i++) {
        bool ours = false;
        for (size_t k = 0; k < up->n_starters && !ours; k++)
            ours = strcmp(up->starters[k].name, up->dir.nodes[i]) == 0;
        if (!ours && sweep_node_is_live(&up->dir, i)) return true;
    }
    return false;
}

/* All or nothing: a boot that failed is taken back. Nodes that others brought up in this folder stay. */
static void take_back(up_t *up)
{
    /* TERM to rackfishd takes its cores down; what is still there after a while is swept. */
    for (size_t i = 0; i < up->n_starters; i++) kill(up->starters[i].pid, SIGTERM);
    for (size_t i = 0; i < up->n_starters; i++) {
        for (unsigned k = 0; k < 150 && waitpid(up->starters[i].pid, NULL, WNOHANG) == 0; k++)
            rf_clock_sleep_ms(20);
    }
    if (!up->fresh || !up->dir.path[0]) return;
    machine_list_nodes(&up->dir);
    if (others_live(up)) return;
    sweep_t sweep;
    sweep_report_t report;
    if (sweep_collect(&up->dir, &sweep)) sweep_run(&up->dir, &sweep, 0, &report);
    sweep_free(&sweep);
    char base[CLI_PATH_MAX];
    if (machine_base(base, sizeof base)) rmdir(base);
}

/* --stay: rackfishd is our child; when it ends, so do we. */
static int stay(up_t *up)
{
    int result = CLI_OK;
    for (size_t i = 0; i < up->n_starters; i++) {
        int status = 0;
        while (waitpid(up->starters[i].pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) result = CLI_FAILED;
    }
    return result;
}

static int boot(up_t *up)
{
    int status;
    if (!starter_signals()) return cli_error(up->cli, "signalfd: %s", strerror(errno));
    if (up->options.from_stdin) {
        status = up_read_stdin(up);
        if (status == CLI_OK) status = start_configured(up);
    } else if (up->options.config) {
        status = start_configured(up);
    } else {
        status = start_emulated(up);
    }
    if (status == CLI_OK) {
        uint64_t deadline = up->started_ns + up->options.timeout_ms * RF_NS_PER_MS;
        status = starter_follow(up->starters, up->n_starters, deadline, show_progress, up);
        clear_progress(up);
        if (status != CLI_OK) status = report_failure(up, status);
    }
    if (status != CLI_OK && up->n_starters + (size_t)up->fresh > 0) take_back(up);
    return status;
}

static int add_node(up_t *up, const char *node)
{
    found_t found;
    int status = take_folder(up);
    if (status == CLI_OK) status = load_config(up);
    if (status != CLI_OK) return status;
    if (!look_around(up, &found)) return cli_error(up->cli, "out of memory");
    rf_node_t i = rf_config_this_node(up->config, node);
    if (i == RF_NODE_NONE) return cli_error(up->cli, "%s has no node \"%s\"", up->config_path, node);
    int k = index_of(&up->dir, node);
    if (k >= 0 && found.live[k]) return cli_error(up->cli, "node %s is up already", node);
    status = up_start_node(up, i, false);
    if (status != CLI_OK) return status;
    uint64_t deadline = up->started_ns + up->options.timeout_ms * RF_NS_PER_MS;
    status = starter_follow(up->starters, up->n_starters, deadline, show_progress, up);
    clear_progress(up);
    if (status != CLI_OK) status = report_failure(up, status);
    if (status != CLI_OK) take_back(up);
    return status;
}

int up_add_node(cli_t *cli, const char *node, const char *config)
{
    static up_t up; /* large */
    up = (up_t){
        .cli = cli, .lock = -1, .started_ns = rf_clock_ns(), .options = {.timeout_ms = BOOT_TIMEOUT_MS}};
    memset(up.listen_fds, -1, sizeof up.listen_fds);
    char base[CLI_PATH_MAX / 4];
    if (!machine_base_prepare(cli, base, sizeof base)) return CLI_FAILED;
    snprintf(up.dir.path, sizeof up.dir.path, "%s/%s", base, cli->machine);
    snprintf(up.config_path, sizeof up.config_path, "%s/config.yaml", up.dir.path);
    if (config) {
        char *absolute = realpath(config, NULL);
        snprintf(up.config_path, sizeof up.config_path, "%s", absolute ? absolute : config);
        free(absolute);
    } else if (access(up.config_path, R_OK) < 0) {
        return cli_error(cli, "machine \"%s\" is no emulated machine of this host; give its --config",
                         cli->machine);
    }
    if (!starter_signals()) return cli_error(cli, "signalfd: %s", strerror(errno));
    int status = add_node(&up, node);
    if (up.lock >= 0) close(up.lock);
    free(up.config);
    return status;
}

int cli_up(cli_t *cli, int argc, char **argv)
{
    static up_t up; /* large */
    up = (up_t){.cli = cli,
                .lock = -1,
                .started_ns = rf_clock_ns(),
                .options = {.nodes = DEFAULT_NODES,
                            .cores = DEFAULT_CORES,
                            .transport = "tcp",
                            .encrypt = true,
                            .allow_root = geteuid() == 0,
                            .timeout_ms = BOOT_TIMEOUT_MS}};
    memset(up.listen_fds, -1, sizeof up.listen_fds);
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        int status = up_parse_option(cli, &up.options, c);
        if (status != CLI_OK) return status;
    }
    if (optind < argc)
        return cli_usage(cli, "takes no arguments, but \"%s\" was given; name the machine with -m",
                         argv[optind]);
    int status = up_check_options(cli, &up.options);
    if (status != CLI_OK) return status;
    if (!machine_name_valid(cli->machine))
        return cli_usage(cli, "\"%s\" is no name for a machine: letters, digits, - _ and . only",
                         cli->machine);
    if (up.options.config) {
        char *absolute = realpath(up.options.config, NULL);
        snprintf(up.config_path, sizeof up.config_path, "%s", absolute ? absolute : up.options.config);
        free(absolute);
    } else if (!up.options.from_stdin) {
        char base[CLI_PATH_MAX / 4];
        if (!machine_base_prepare(cli, base, sizeof base)) return CLI_FAILED;
        snprintf(up.dir.path, sizeof up.dir.path, "%s/%s", base, cli->machine);
    }
    status = boot(&up);
    if (up.lock >= 0) close(up.lock);
    if (status == CLI_OK) status = report_machine(&up);
    if (status == CLI_OK && up.options.relay)
        for (size_t i = 0; i < up.n_starters; i++) printf("ready %s\n", up.starters[i].name);
    fflush(stdout);
    if (status == CLI_OK && up.options.stay) status = stay(&up);
    free(up.config);
    if (status > 128) {
        signal(status - 128, SIG_DFL);
        sigset_t none;
        sigemptyset(&none);
        raise(status - 128);
        sigprocmask(SIG_SETMASK, &none, NULL);
    }
    return status;
}
