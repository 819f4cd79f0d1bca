/*
 * The other hosts of a machine, by ssh or srun. At the far end runs
 *
 *   rackfish up --from-stdin --relay --node NAME
 *
 * which reads "RFUP1 CONFIG-BYTES KEY-BYTES\n", the configuration and the key from its stdin into private files of the run
 * directory there, boots its node, and relays rackfishd's lines to stdout. Neither configuration nor key is ever on a
 * command line or in a shared file.
 */
#include "cli/up.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_BYTES_MAX (1u << 20)
#define PRIVATE_KEY      "key_file: cluster.key"

static char *read_whole(const char *path, size_t max, size_t *size)
{
    char *text = malloc(max + 1);
    ssize_t n = text ? rf_file_read(path, text, max + 1) : -1;
    if (n < 0) {
        free(text);
        return NULL;
    }
    *size = (size_t)n;
    return text;
}

/* Where the top-level line "key_file: ..." starts and how long it is; false when there is none. */
static bool find_key_line(const char *text, size_t *at, size_t *size)
{
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        if (strncmp(line, "key_file:", 9) == 0) {
            *at = (size_t)(line - text);
            *size = n;
            return true;
        }
        line += n + (line[n] == '\n');
    }
    return false;
}

/* The parcel for one or all far ends, as a memory file to be their stdin. -1 with the message printed. */
static int make_parcel(const up_t *up)
{
    size_t config_size, at, line;
    char *text = read_whole(up->config_path, CONFIG_BYTES_MAX, &config_size);
    if (!text) {
        cli_error(up->cli, "cannot read %s: %s", up->config_path, strerror(errno));
        return -1;
    }
    if (!find_key_line(text, &at, &line)) {
        cli_error(up->cli, "%s: `key_file: PATH` has to stand in a line of its own to be sent to other hosts",
                  up->config_path);
        free(text);
        return -1;
    }
    static const char hex_digits[] = "0123456789abcdef";
    char key[2 * RF_CONFIG_KEY_MAX + 1];
    size_t key_size = 0;
    for (size_t i = 0; i < up->config->key_size; i++) {
        key[key_size++] = hex_digits[up->config->key[i] >> 4];
        key[key_size++] = hex_digits[up->config->key[i] & 15];
    }
    key[key_size++] = '\n';
    int fd = memfd_create("rackfish-up", MFD_CLOEXEC);
    size_t sent_size = config_size - line + strlen(PRIVATE_KEY);
    bool ok = fd >= 0 && dprintf(fd, "RFUP1 %zu %zu\n", sent_size, key_size) > 0 &&
              rf_write_all(fd, text, at) == RF_OK &&
              rf_write_all(fd, PRIVATE_KEY, strlen(PRIVATE_KEY)) == RF_OK &&
              rf_write_all(fd, text + at + line, config_size - at - line) == RF_OK &&
              rf_write_all(fd, key, key_size) == RF_OK;
    explicit_bzero(key, sizeof key);
    free(text);
    if (!ok) {
        cli_error(up->cli, "cannot pack the configuration: %s", strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    return fd;
}

/* A descriptor of its own for each far end: they share nothing, not even an offset. */
static int reopen(int fd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool start_far_end(up_t *up, const char *name, const char *const *argv, int parcel, unsigned expected)
{
    starter_t *starter = &up->starters[up->n_starters];
    *starter = (starter_t){.fd = -1, .expected = expected};
    snprintf(starter->name, sizeof starter->name, "%s", name);
    int stdin_fd = reopen(parcel);
    starter_exec_t exec = {
        .argv = argv, .log_fd = -1, .stdin_fd = stdin_fd, .pass_fd = -1, .line_fd_target = STDOUT_FILENO};
    bool started = stdin_fd >= 0 && starter_start(starter, &exec);
    if (stdin_fd >= 0) close(stdin_fd);
    if (!started) {
        cli_error(up->cli, "cannot start %s for %s: %s", argv[0], name, strerror(errno));
        return false;
    }
    up->n_starters++;
    return true;
}

/* The `rackfish` to call there: --remote-path, else where this one is. */
static bool remote_program(const up_t *up, char *path, size_t max)
{
    if (up->options.remote_path) {
        snprintf(path, max, "%s", up->options.remote_path);
        return true;
    }
    ssize_t n = readlink("/proc/self/exe", path, max - 1);
    if (n <= 0) return false;
    path[n] = '\0';
    return true;
}

/* What a far end's shell would take apart has no place in a path that it is given. */
static bool plain_word(const char *text)
{
    return *text && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-@:") ==
                        strlen(text);
}

static int launch_ssh(up_t *up, rf_node_t this_node, const char *program, int parcel)
{
    const char *ssh = getenv("RACKFISH_SSH");
    char timeout[32];
    snprintf(timeout, sizeof timeout, "%llums", (unsigned long long)up->options.timeout_ms);
    for (rf_node_t i = 0; i < up->config->n_nodes; i++) {
        const rf_config_node_t *node = &up->config->nodes[i];
        if (i == this_node) continue;
        const char *host = node->address[0] ? node->address : node->name;
        const char *const argv[] = {ssh ? ssh : "ssh",
                                    "-oBatchMode=yes",
                                    "-oConnectTimeout=10",
                                    host,
                                    program,
                                    "up",
                                    "--from-stdin",
                                    "--relay",
                                    "--node",
                                    node->name,
                                    "--timeout",
                                    timeout,
                                    NULL};
        if (!start_far_end(up, node->name, argv, parcel, 1)) return CLI_FAILED;
    }
    return CLI_OK;
}

static int launch_srun(up_t *up, rf_node_t this_node, const char *program, int parcel)
{
    const char *srun = getenv("RACKFISH_SRUN");
    unsigned others = 0;
    char hosts[RF_NODES_MAX * RF_NAME_MAX] = "", count[16], timeout[32];
    for (rf_node_t i = 0; i < up->config->n_nodes; i++) {
        size_t n = strlen(hosts);
        if (i == this_node) continue;
        snprintf(hosts + n, sizeof hosts - n, "%s%s", others ? "," : "", up->config->nodes[i].name);
        others++;
    }
    if (others == 0) return CLI_OK;
    if (!srun && !getenv("SLURM_JOB_ID"))
        return cli_usage(up->cli, "--launch srun works inside a Slurm allocation; get one with salloc");
    snprintf(count, sizeof count, "%u", others);
    snprintf(timeout, sizeof timeout, "%llums", (unsigned long long)up->options.timeout_ms);
    /* Slurm ends a step's processes with the step: the far end stays as long as its rackfishd does. */
    const char *const argv[] = {srun ? srun : "srun",
                                "--nodes",
                                count,
                                "--ntasks",
                                count,
                                "--ntasks-per-node",
                                "1",
                                "--nodelist",
                                hosts,
                                "--input",
                                "all",
                                "--overlap",
                                program,
                                "up",
                                "--from-stdin",
                                "--relay",
                                "--stay",
                                "--timeout",
                                timeout,
                                NULL};
    return start_far_end(up, "srun", argv, parcel, others) ? CLI_OK : CLI_FAILED;
}

int up_launch_others(up_t *up, rf_node_t this_node)
{
    char program[CLI_PATH_MAX];
    if (up->options.launch == LAUNCH_NONE || up->config->n_nodes < 2) return CLI_OK;
    if (!remote_program(up, program, sizeof program) || !plain_word(program))
        return cli_error(
            up->cli, "the path of `rackfish` on the other hosts must be plain; give it with --remote-path");
    int parcel = make_parcel(up);
    if (parcel < 0) return CLI_FAILED;
    int status = up->options.launch == LAUNCH_SSH ? launch_ssh(up, this_node, program, parcel)
                                                  : launch_srun(up, this_node, program, parcel);
    close(parcel);
    return status;
}

static bool write_private(const up_t *up, const char *name, const char *bytes, size_t size, char *path,
                          size_t max)
{
    snprintf(path, max, "%s/%s", up->dir.path, name);
    return rf_file_write(path, bytes, size) == RF_OK;
}

/* The machine's name stands in the configuration, which is not parsed yet: folder first, by its `machine:` line. */
static bool machine_of(const char *text, char *name, size_t max)
{
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, "machine:", 8) != 0) continue;
        const char *start = line + 8 + strspn(line + 8, " \t'\"");
        size_t n = strcspn(start, " \t'\"#\r\n");
        if (n == 0 || n >= max) return false;
        snprintf(name, max, "%.*s", (int)n, start);
        return machine_name_valid(name);
    }
    return false;
}

int up_read_stdin(up_t *up)
{
    static char name[RF_NAME_MAX];
    size_t config_size, key_size;
    char head[64], base[CLI_PATH_MAX / 4], key[2 * RF_CONFIG_KEY_MAX + 2], path[CLI_PATH_MAX];
    if (!fgets(head, sizeof head, stdin) || sscanf(head, "RFUP1 %zu %zu", &config_size, &key_size) != 2 ||
        config_size > CONFIG_BYTES_MAX || key_size >= sizeof key)
        return cli_error(up->cli, "--from-stdin is for launchers: what came is no configuration of theirs");
    char *text = malloc(config_size + 1);
    if (!text || fread(text, 1, config_size, stdin) != config_size ||
        fread(key, 1, key_size, stdin) != key_size) {
        free(text);
        return cli_error(up->cli, "the configuration was cut off on its way; is the launcher still there?");
    }
    text[config_size] = '\0';
    int status = CLI_OK;
    if (!machine_of(text, name, sizeof name))
        status = cli_error(up->cli, "the configuration needs a line `machine: NAME`");
    else if (!machine_base_prepare(up->cli, base, sizeof base))
        status = CLI_FAILED;
    if (status == CLI_OK) {
        up->cli->machine = name;
        snprintf(up->dir.path, sizeof up->dir.path, "%s/%s", base, name);
        if (mkdir(up->dir.path, geteuid() == 0 ? 0711 : 0700) < 0 && errno != EEXIST)
            status = cli_error(up->cli, "cannot create %s: %s", up->dir.path, strerror(errno));
    }
    if (status == CLI_OK && (!write_private(up, "cluster.key", key, key_size, path, sizeof path) ||
                             !write_private(up, "config.yaml", text, config_size, path, sizeof path)))
        status = cli_error(up->cli, "cannot write %s: %s", path, strerror(errno));
    snprintf(up->config_path, sizeof up->config_path, "%s/config.yaml", up->dir.path);
    explicit_bzero(key, sizeof key);
    free(text);
    return status;
}
