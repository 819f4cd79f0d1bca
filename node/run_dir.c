#include "node/run_dir.h"

#include "base/log.h"
#include "base/os.h"
#include "node/link_driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_TEXT_MAX   (RF_STATE_PROCESSES_MAX * 64)
#define DYING_TRIES      50 /* of 10 ms */
#define MACHINE_TEXT_MAX (RF_NODES_MAX * 128 + 1024)

rf_err_t rf_run_dir_default(const char *machine, char *out, size_t max)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n;
    if (geteuid() == 0)
        n = snprintf(out, max, "/run/rackfish/%s", machine);
    else if (runtime && runtime[0] == '/')
        n = snprintf(out, max, "%s/rackfish/%s", runtime, machine);
    else
        n = snprintf(out, max, "/tmp/rackfish-%u/%s", (unsigned)geteuid(), machine);
    return n > 0 && (size_t)n < max ? RF_OK : RF_ERR_LIMIT;
}

/* Makes `path`, or checks that it is a folder of ours that nobody else may write. */
static rf_err_t make_folder(const char *path, mode_t mode, char *error, size_t error_max)
{
    if (mkdir(path, mode) == 0) {
        if (chmod(path, mode) == 0) return RF_OK;
    } else if (errno == EEXIST) {
        struct stat st;
        if (lstat(path, &st) == 0) {
            if (!S_ISDIR(st.st_mode) || (st.st_mode & 022) || (st.st_uid != geteuid() && st.st_uid != 0)) {
                snprintf(error, error_max, "%s is not a folder of this user alone; remove it", path);
                return RF_ERR_PERMISSION;
            }
            return RF_OK;
        }
    }
    snprintf(error, error_max, "cannot make the folder %s: %s; name another by --run-dir", path,
             strerror(errno));
    return RF_ERR_OS;
}

/* The node's folder, the system user's. */
static rf_err_t make_node_folder(const rf_daemon_t *daemon, char *error, size_t error_max)
{
    if (mkdir(daemon->node_dir, 0700) < 0 && errno != EEXIST) {
        snprintf(error, error_max, "cannot make the folder %s: %s", daemon->node_dir, strerror(errno));
        return RF_ERR_OS;
    }
    struct stat st;
    if (lstat(daemon->node_dir, &st) < 0 || !S_ISDIR(st.st_mode) ||
        (st.st_uid != geteuid() && st.st_uid != daemon->system_uid)) {
        snprintf(error, error_max, "%s is not a folder of the system user; remove it", daemon->node_dir);
        return RF_ERR_PERMISSION;
    }
    if (st.st_uid != daemon->system_uid &&
        chown(daemon->node_dir, daemon->system_uid, daemon->system_gid) < 0) {
        snprintf(error, error_max, "cannot give %s to user %s: %s", daemon->node_dir, RF_SYSTEM_USER,
                 strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}

/* Locks the open lock file at `path`. False: another has it, or had it and removed it on its way out. */
static bool lock_is_ours(int fd, const char *path)
{
    struct stat here, there;
    return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &here) == 0 && stat(path, &there) == 0 &&
           here.st_ino == there.st_ino;
}

static void write_owner(rf_daemon_t *daemon, const char *path)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(daemon->lock_fd, 0) < 0 || pwrite(daemon->lock_fd, text, (size_t)length, 0) != length)
        rf_log(RF_LOG_WARN, "cannot write %s: %m", path);
}

/* Makes the node's folder and takes its lock. Tried again for a while: one that was killed or told to end a moment ago may
 * still be on its way out, and remove them. */
static rf_err_t take_lock(rf_daemon_t *daemon, char *error, size_t error_max)
{
    char path[RF_PATH_MAX + 16], text[32] = "";
    snprintf(path, sizeof path, "%s/lock", daemon->node_dir);
    for (unsigned tries = 0; tries <= DYING_TRIES; tries++) {
        if (tries > 0) rf_clock_sleep_ms(10);
        rf_err_t err = make_node_folder(daemon, error, error_max);
        if (err != RF_OK) return err;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == ENOENT) continue;
        if (fd < 0) {
            snprintf(error, error_max, "cannot open %s: %s", path, strerror(errno));
            return RF_ERR_OS;
        }
        if (lock_is_ours(fd, path)) {
            daemon->lock_fd = fd;
            write_owner(daemon, path);
            return RF_OK;
        }
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        close(fd);
    }
    snprintf(error, error_max,
             "node %s of machine %s is running already (rackfishd, pid %ld); 'rackfish down' stops it",
             daemon->config->nodes[daemon->node].name, daemon->config->machine, strtol(text, NULL, 10));
    return RF_ERR_EXISTS;
}

rf_err_t rf_run_dir_prepare(rf_daemon_t *daemon, char *error, size_t error_max)
{
    const char *node_name = daemon->config->nodes[daemon->node].name;
    rf_err_t err;
    if (daemon->options.run_dir) {
        if (snprintf(daemon->run_dir, sizeof daemon->run_dir, "%s", daemon->options.run_dir) >=
            (int)sizeof daemon->run_dir)
            goto too_long;
    } else if (rf_run_dir_default(daemon->config->machine, daemon->run_dir, sizeof daemon->run_dir) !=
               RF_OK) {
        goto too_long;
    }
    if (daemon->run_dir[0] != '/' || snprintf(daemon->node_dir, sizeof daemon->node_dir, "%s/%s",
                                              daemon->run_dir, node_name) >= (int)sizeof daemon->node_dir)
        goto too_long;

    char base[RF_PATH_MAX];
    snprintf(base, sizeof base, "%s", daemon->run_dir);
    *strrchr(base, '/') = 0;
    mode_t mode = daemon->privileged ? 0711 : 0700;
    if (base[0] && (err = make_folder(base, mode, error, error_max)) != RF_OK) return err;
    if ((err = make_folder(daemon->run_dir, mode, error, error_max)) != RF_OK) return err;
    return take_lock(daemon, error, error_max);

too_long:
    snprintf(
        error, error_max,
        "the run directory %s is not absolute, or longer than %d bytes with the node's name; name another by "
        "--run-dir",
        daemon->options.run_dir ? daemon->options.run_dir : daemon->run_dir, RF_RUN_DIR_MAX - 1);
    return RF_ERR_LIMIT;
}

rf_err_t rf_state_parse(const char *text, rf_state_t *out)
{
    out->n = 0;
    while (*text) {
        size_t length = strcspn(text, "\n");
        char line[96];
        if (length >= sizeof line || text[length] != '\n' || out->n == RF_STATE_PROCESSES_MAX)
            return RF_ERR_PROTOCOL;
        memcpy(line, text, length);
        line[length] = 0;
        text += length + 1;
        rf_state_process_t process;
        int pid, end = -1;
        if (sscanf(line, "%15s %d %d %" SCNu64 "%n", process.role, &process.core, &pid, &process.start_time,
                   &end) != 4 ||
            end < 0 || line[end] || pid <= 1 || process.start_time == 0 || process.core < -1 ||
            process.core >= RF_CORES_MAX)
            return RF_ERR_PROTOCOL;
        if (strcmp(process.role, "node") != 0 && strcmp(process.role, "cpudriver") != 0 &&
            strcmp(process.role, "monitor") != 0 && strcmp(process.role, RF_LINK_DRIVER_ROLE) != 0)
            return RF_ERR_PROTOCOL;
        process.pid = pid;
        out->processes[out->n++] = process;
    }
    return RF_OK;
}

size_t rf_state_format(const rf_state_t *state, char *out, size_t max)
{
    size_t at = 0;
    for (unsigned i = 0; i < state->n && at < max; i++) {
        const rf_state_process_t *p = &state->processes[i];
        int n = snprintf(out + at, max - at, "%s %d %d %" PRIu64 "\n", p->role, p->core, (int)p->pid,
                         p->start_time);
        at += n > 0 ? (size_t)n : 0;
    }
    return at < max ? at : max;
}

static void state_add(rf_state_t *state, const char *role, int core, pid_t pid, uint64_t start_time)
{
    if (pid <= 1 || start_time == 0 || state->n == RF_STATE_PROCESSES_MAX) return;
    rf_state_process_t *p = &state->processes[state->n++];
    *p = (rf_state_process_t){.core = core, .pid = pid, .start_time = start_time};
    snprintf(p->role, sizeof p->role, "%s", role);
}

void rf_run_dir_write_state(rf_daemon_t *daemon)
{
    static rf_state_t state;
    static char text[STATE_TEXT_MAX];
    char path[RF_PATH_MAX + 16];
    state.n = 0;
    state_add(&state, "node", -1, getpid(), rf_process_start_time(getpid()));
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++) {
        const rf_link_driver_t *driver = &daemon->link_drivers[i];
        state_add(&state, RF_LINK_DRIVER_ROLE, (int)i, driver->pid, driver->start_time);
    }
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        const rf_local_core_t *core = &daemon->cores[i];
        if (core->life != RF_LIFE_STARTING && core->life != RF_LIFE_UP) continue;
        state_add(&state, "cpudriver", core->core, core->pid, core->start_time);
        state_add(&state, "monitor", core->core, core->monitor_pid, core->monitor_start_time);
    }
    size_t size = rf_state_format(&state, text, sizeof text);
    snprintf(path, sizeof path, "%s/state", daemon->node_dir);
    if (rf_file_write(path, text, size) != RF_OK)
        rf_log(RF_LOG_ERROR, "cannot write %s: %m; a restarted rackfishd would not find its cores", path);
}

void rf_run_dir_add_state(const char *node_dir, const rf_state_process_t *process)
{
    static rf_state_t before, state;
    static char text[STATE_TEXT_MAX];
    char path[RF_PATH_MAX + 16];
    state.n = 0;
    if (rf_run_dir_read_state(node_dir, &before) != RF_OK) before.n = 0;
    state_add(&state, process->role, process->core, process->pid, process->start_time);
    for (unsigned i = 0; i < before.n && state.n < RF_STATE_PROCESSES_MAX; i++) {
        const rf_state_process_t *other = &before.processes[i];
        if (strcmp(other->role, process->role) != 0 || other->core != process->core)
            state.processes[state.n++] = *other;
    }
    size_t size = rf_state_format(&state, text, sizeof text);
    snprintf(path, sizeof path, "%s/state", node_dir);
    if (rf_file_write(path, text, size) != RF_OK)
        rf_log(RF_LOG_ERROR, "cannot write %s: %m; a restarted rackfishd would not find process %d", path,
               (int)process->pid);
}

rf_err_t rf_run_dir_read_state(const char *node_dir, rf_state_t *out)
{
    static char text[STATE_TEXT_MAX];
    char path[RF_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/state", node_dir);
    out->n = 0;
    if (rf_file_read(path, text, sizeof text) < 0) return errno == ENOENT ? RF_ERR_NOT_FOUND : RF_ERR_OS;
    return rf_state_parse(text, out);
}

rf_err_t rf_run_dir_write_machine(rf_daemon_t *daemon)
{
    static char text[MACHINE_TEXT_MAX];
    char path[RF_PATH_MAX + 16];
    size_t at = (size_t)snprintf(text, sizeof text, "id ");
    for (unsigned i = 0; i < sizeof daemon->machine.bytes; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%02x", daemon->machine.bytes[i]);
    at += (size_t)snprintf(text + at, sizeof text - at, "\ncgroup %s\n",
                           daemon->cgroup[0] ? daemon->cgroup : "-");
    for (unsigned i = 0; i < daemon->config->n_nodes; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "place %u %u\n", i, daemon->places[i].n_cores);
    at += (size_t)snprintf(text + at, sizeof text - at, "lease %u %u\n", daemon->config->lease_ms,
                           daemon->config->lease_drift);
    snprintf(path, sizeof path, "%s/machine", daemon->node_dir);
    rf_err_t err = rf_file_write(path, text, at);
    if (err != RF_OK) rf_log(RF_LOG_ERROR, "cannot write %s: %m", path);
    return err;
}

rf_err_t rf_run_dir_read_machine(rf_daemon_t *daemon)
{
    static char text[MACHINE_TEXT_MAX];
    char path[RF_PATH_MAX + 16], cgroup[RF_PATH_MAX];
    snprintf(path, sizeof path, "%s/machine", daemon->node_dir);
    if (rf_file_read(path, text, sizeof text) < 0) return errno == ENOENT ? RF_ERR_NOT_FOUND : RF_ERR_OS;
    rf_machine_id_t id;
    rf_core_t n_cores[RF_NODES_MAX] = {0};
    if (strncmp(text, "id ", 3) != 0) return RF_ERR_PROTOCOL;
    for (unsigned i = 0; i < sizeof id.bytes; i++) {
        if (sscanf(text + 3 + 2 * i, "%2hhx", &id.bytes[i]) != 1) return RF_ERR_PROTOCOL;
    }
    const char *line = strchr(text, '\n');
    if (!line || sscanf(line + 1, "cgroup %255s", cgroup) != 1) return RF_ERR_PROTOCOL;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        unsigned node, cores;
        line = strchr(line + 1, '\n');
        if (!line || sscanf(line + 1, "place %u %u", &node, &cores) != 2 || node != i || cores == 0 ||
            cores > RF_CORES_PER_NODE_MAX)
            return RF_ERR_PROTOCOL;
        n_cores[i] = (rf_core_t)cores;
    }
    unsigned lease_ms = 0, drift = 0; /* one that was written before there were leases has none */
    if ((line = strchr(line + 1, '\n')) != NULL && line[1] &&
        sscanf(line + 1, "lease %u %u", &lease_ms, &drift) != 2)
        return RF_ERR_PROTOCOL;
    /* All members lean on the same lease: those that run keep theirs, and who joins them is compared with that (hello). */
    daemon->lease_kept = daemon->config->lease_ms != lease_ms || daemon->config->lease_drift != drift;
    daemon->config->lease_ms = lease_ms;
    daemon->config->lease_drift = drift;
    daemon->machine = id;
    daemon->machine_known = true;
    snprintf(daemon->cgroup, sizeof daemon->cgroup, "%s", strcmp(cgroup, "-") == 0 ? "" : cgroup);
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) daemon->places[i].n_cores = n_cores[i];
    return RF_OK;
}

/* Removes a folder of plain files, sockets and folders one level deep; not following links. A lock goes last: while it is
 * there nobody takes the folder for a dead node's. */
static void remove_folder(int parent, const char *name, unsigned depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strcmp(entry->d_name, "lock") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) < 0 && errno == EISDIR && depth > 0)
            remove_folder(fd, entry->d_name, depth - 1);
    }
    unlinkat(fd, "lock", 0);
    closedir(folder);
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0)
        rf_log(RF_LOG_WARN, "cannot remove the folder %s: %m", name);
}

/* True when no node is left in the machine's folder: neither a socket nor a folder. */
static bool machine_is_empty(int fd)
{
    bool empty = true;
    DIR *folder = fdopendir(dup(fd));
    if (!folder) return false;
    rewinddir(folder);
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] != '.' && (entry->d_type == DT_DIR || entry->d_type == DT_SOCK)) empty = false;
    }
    closedir(folder);
    return empty;
}

void rf_run_dir_remove(const char *run_dir, const char *node_name)
{
    int fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    char name[RF_NAME_MAX + 16], prefix[RF_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s.sock", node_name);
    snprintf(prefix, sizeof prefix, "%s.lib-", node_name);
    unlinkat(fd, name, 0);
    DIR *folder = fdopendir(dup(fd));
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) remove_folder(fd, entry->d_name, 0);
    }
    if (folder) closedir(folder);
    snprintf(name, sizeof name, "%s%s", node_name, RF_LINK_DRIVER_FOLDER);
    remove_folder(fd, name, 0);
    remove_folder(fd, node_name, 1);
    if (machine_is_empty(fd)) {
        /* What `rackfish up` wrote for an emulated machine; a configuration elsewhere is not ours to touch. */
        unlinkat(fd, "config.yaml", 0);
        unlinkat(fd, "cluster.key", 0);
        if (rmdir(run_dir) == 0) {
            char base[RF_PATH_MAX];
            snprintf(base, sizeof base, "%s", run_dir);
            char *slash = strrchr(base, '/');
            if (slash && slash != base) {
                *slash = 0;
                const char *last = strrchr(base, '/');
                if (last && strncmp(last, "/rackfish", 9) == 0) rmdir(base);
            }
        }
    }
    close(fd);
}
