#include "machine.h"

#include "base/clock.h"
#include "base/os.h"
#include "base/prng.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX 8192

extern char **environ;

static const char *const emulated_hosts[MACHINE_HOSTS] = {"node0", "node1", "node2"};
static const char *const real_hosts[MACHINE_HOSTS] = {"h0", "h1", "h2"};

/* ---- other programs ---- */

bool machine_run(const char *const *argv, bool quiet, char *out, size_t max)
{
    char output[OUTPUT_MAX];
    int ends[2], status = -1;
    pid_t child;
    size_t have = 0;
    if (pipe2(ends, O_CLOEXEC) < 0) return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    int failed = posix_spawnp(&child, argv[0], &actions, NULL, (char **)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    for (ssize_t n = 1; !failed && n > 0; have += n > 0 ? (size_t)n : 0)
        n = read(ends[0], output + have, have < sizeof output - 1 ? sizeof output - 1 - have : 0);
    output[have] = 0;
    close(ends[0]);
    while (!failed && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    bool ok = !failed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!ok && !quiet) fprintf(stderr, "rf-bench: %s %s: %s\n", argv[0], argv[1], output);
    if (out) snprintf(out, max, "%s", output);
    return ok;
}

static bool rackfish(const machine_t *m, bool quiet, char *out, size_t max, const char *first,
                     const char *second)
{
    const char *const argv[] = {m->command, "-m", m->name, first, second, NULL};
    return machine_run(argv, quiet, out, max);
}

/* ---- the network ---- */

static bool in_shell(const machine_t *m, const char *script, bool quiet)
{
    const char *const argv[] = {"sh", "-ec", script, "rf-bench", m->network, NULL};
    return machine_run(argv, quiet, NULL, 0);
}

static bool network_up(const machine_t *m)
{
    return in_shell(m,
                    "ip link add $1 type bridge\n"
                    "ip link set $1 up\n"
                    "for i in 0 1 2; do\n"
                    "    ip netns add $1-$i\n"
                    "    ip link add $1v$i type veth peer name eth0 netns $1-$i\n"
                    "    ip link set $1v$i master $1 up\n"
                    "    ip -n $1-$i link set lo up\n"
                    "    ip -n $1-$i address add 10.213.79.$((i + 1))/24 dev eth0\n"
                    "    ip -n $1-$i link set eth0 up\n"
                    "    ip netns exec $1-$i true\n"
                    "done\n",
                    true);
}

static void network_down(const machine_t *m)
{
    in_shell(m,
             "for i in 0 1 2; do ip netns del $1-$i || :; ip link del $1v$i || :; done; ip link del $1 || :",
             true);
}

bool machine_cut(const machine_t *m, unsigned host, bool cut)
{
    struct ifreq request = {.ifr_flags = 0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%.10sv%u", m->network, host % MACHINE_HOSTS);
    bool ok = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0;
    if (cut)
        request.ifr_flags = (short)(request.ifr_flags & ~IFF_UP);
    else
        request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
    ok = ok && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

/* ---- the machine ---- */

const char *machine_missing(bool namespaces)
{
    if (!namespaces) return NULL;
    if (geteuid() != 0) return "network namespaces take root";
    machine_t probe = {.network = "rfprobe"};
    bool ok = network_up(&probe);
    network_down(&probe);
    return ok ? NULL : "no network namespaces here, or no `ip` (iproute2)";
}

static bool write_config(const machine_t *m)
{
    char path[96], text[1024], key[65];
    uint8_t secret[32];
    rf_random_secret(secret, sizeof secret);
    for (unsigned i = 0; i < sizeof secret; i++) snprintf(key + 2 * i, 3, "%02x", secret[i]);
    snprintf(path, sizeof path, "%s/net.key", m->folder);
    if (rf_file_write(path, key, 64) != RF_OK || chmod(path, 0600) < 0) return false;
    int n = snprintf(text, sizeof text,
                     "machine: %s\nkey_file: net.key\nallow_root: on\ndefaults: {cores: \"1\"}\nnodes:\n",
                     m->name);
    for (unsigned i = 0; i < MACHINE_HOSTS; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "  - {hosts: %s, address: 10.213.79.%u}\n",
                      m->hosts[i], i + 1);
    snprintf(path, sizeof path, "%s/net.yaml", m->folder);
    return rf_file_write(path, text, (size_t)n) == RF_OK;
}

/* A shell in a session of its own, which takes everything down at the end of its input: when machine_end() closes the pipe, or when this
 * process ends in any other way. */
static bool keeper_begin(machine_t *m)
{
    static const char script[] =
        "read -r _; \"$2\" -m \"$3\" down --grace 0; "
        "for i in 0 1 2; do ip netns del $1-$i; ip link del $1v$i; done; ip link del $1; rm -rf \"$4\"";
    const char *const argv[] = {"sh",       "-c",    script,    "rf-bench", m->network,
                                m->command, m->name, m->folder, NULL};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return false;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    int failed = posix_spawnp(&m->keeper, argv[0], &actions, &attributes, (char **)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    if (failed) {
        close(ends[1]);
        m->keeper = 0;
        return false;
    }
    m->keeper_end = ends[1];
    return true;
}

bool machine_begin(machine_t *m, bool namespaces)
{
    *m = (machine_t){.namespaces = namespaces};
    ssize_t n = readlink("/proc/self/exe", m->self, sizeof m->self - 1);
    const char *slash = n > 0 ? strrchr(m->self, '/') : NULL;
    if (!slash || snprintf(m->command, sizeof m->command, "%.*s/rackfish", (int)(slash - m->self), m->self) >=
                      (int)sizeof m->command)
        return false;
    snprintf(m->name, sizeof m->name, "bench-%d", (int)getpid());
    snprintf(m->network, sizeof m->network, "rb%d", (int)getpid());
    snprintf(m->folder, sizeof m->folder, "/tmp/rackfish-bench.XXXXXX");
    memcpy(m->hosts, namespaces ? real_hosts : emulated_hosts, sizeof m->hosts);
    if (!mkdtemp(m->folder)) return false;
    if (!keeper_begin(m)) {
        rmdir(m->folder);
        return false;
    }
    return !namespaces || (write_config(m) && network_up(m));
}

void machine_end(machine_t *m)
{
    if (m->keeper == 0) return;
    close(m->keeper_end);
    while (waitpid(m->keeper, NULL, 0) < 0 && errno == EINTR) {
    }
    m->keeper = 0;
}

/* The far ends wait for each other, so all are started before any is waited for. */
static bool up_in_namespaces(const machine_t *m)
{
    char script[1024];
    snprintf(script, sizeof script,
             "pids=; for i in 0 1 2; do ip netns exec $1-$i %s up --config %s/net.yaml --node h$i & "
             "pids=\"$pids $!\"; done; "
             "for p in $pids; do wait $p; done",
             m->command, m->folder);
    return in_shell(m, script, false);
}

/* A string of a flat JSON object, up to its quotation mark. */
static bool json_text(const char *json, const char *key, char *out, size_t max)
{
    char name[32];
    snprintf(name, sizeof name, "\"%s\":\"", key);
    const char *at = strstr(json, name);
    if (!at) return false;
    at += strlen(name);
    return snprintf(out, max, "%.*s", (int)strcspn(at, "\""), at) < (int)max;
}

bool machine_up(machine_t *m)
{
    char output[OUTPUT_MAX];
    const char *const emulated[] = {m->command,
                                    "-m",
                                    m->name,
                                    "--json",
                                    "up",
                                    "--nodes",
                                    "3",
                                    "--cores",
                                    "1",
                                    "--encrypt",
                                    m->plain ? "off" : "on",
                                    "--leases",
                                    m->leases ? "on" : "off",
                                    NULL};
    if (m->namespaces) {
        for (unsigned i = 0; i < MACHINE_HOSTS; i++) machine_cut(m, i, false);
        snprintf(m->run_dir, sizeof m->run_dir, "/run/rackfish/%s", m->name);
        return up_in_namespaces(m);
    }
    return machine_run(emulated, false, output, sizeof output) &&
           json_text(output, "run_dir", m->run_dir, sizeof m->run_dir);
}

void machine_down(machine_t *m)
{
    const char *const argv[] = {m->command, "-m", m->name, "down", "--grace", "0", NULL};
    machine_run(argv, true, NULL, 0);
}

int machine_leader(const machine_t *m)
{
    char output[OUTPUT_MAX];
    if (!rackfish(m, true, output, sizeof output, "--json", "status")) return -1;
    const char *at = strstr(output, "\"leader\":");
    return at && at[9] >= '0' && at[9] <= '9' ? (int)strtol(at + 9, NULL, 10) : -1;
}

unsigned machine_pids(const machine_t *m, unsigned host, const char *role, pid_t *pids, unsigned max)
{
    char path[192], kind[32];
    unsigned n = 0;
    int core, pid;
    snprintf(path, sizeof path, "%s/%s/state", m->run_dir, m->hosts[host]);
    FILE *file = fopen(path, "re");
    char line[256];
    while (file && n < max && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%31s %d %d", kind, &core, &pid) == 3 && pid > 0 &&
            (!role || strcmp(kind, role) == 0))
            pids[n++] = pid;
    }
    if (file) fclose(file);
    return n;
}

bool machine_start(const machine_t *m, unsigned core, const char *const *words)
{
    char number[16];
    const char *argv[24] = {m->command, "-m", m->name, "run", "-d", "--core", number, "--"};
    unsigned n = 8;
    snprintf(number, sizeof number, "%u", core);
    while (*words && n < 23) argv[n++] = *words++;
    return machine_run(argv, false, NULL, 0);
}

uint64_t machine_said_ns(const machine_t *m, unsigned host, const char *words)
{
    char path[192], line[512];
    uint64_t ns = 0;
    snprintf(path, sizeof path, "%s/%s/monitor-%u.log", m->run_dir, m->hosts[host], host);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        struct tm at = {0};
        const char *rest = strstr(line, words) ? strptime(line, "%Y-%m-%dT%H:%M:%S", &at) : NULL;
        if (rest && *rest == '.')
            ns = (uint64_t)timegm(&at) * RF_NS_PER_S + strtoull(rest + 1, NULL, 10) * RF_NS_PER_US;
    }
    if (file) fclose(file);
    return ns;
}
