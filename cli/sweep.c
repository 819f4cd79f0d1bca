#include "cli/sweep.h"

#include "base/clock.h"
#include "base/os.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define STATE_BYTES_MAX (64u << 10)
#define PROCESSES_MAX   65536
#define FOLDER_DEPTH    8
#define ROUNDS_MAX      20 /* of looking for processes that were forked while we killed */

const char *sweep_role_name(sweep_role_t role)
{
    static const char *const names[] = {"rackfishd", "CPU driver", "monitor", "link driver",
                                        "domain process"};
    return names[role];
}

/* ---- collecting ---- */

static bool add_process(sweep_t *sweep, sweep_role_t role, int core, unsigned node, pid_t pid,
                        uint64_t start_time)
{
    for (size_t i = 0; i < sweep->n; i++) {
        if (sweep->processes[i].pid == pid && sweep->processes[i].start_time == start_time) return true;
    }
    if (pid <= 1 || pid == getpid() || sweep->n == PROCESSES_MAX) return true;
    int pidfd = rf_process_open(pid, start_time);
    if (pidfd < 0) return true;
    if (sweep->n == sweep->room) {
        size_t room = sweep->room ? 2 * sweep->room : 64;
        sweep_process_t *fresh = realloc(sweep->processes, room * sizeof *fresh);
        if (!fresh) {
            close(pidfd);
            return false;
        }
        sweep->processes = fresh;
        sweep->room = room;
    }
    sweep->processes[sweep->n++] = (sweep_process_t){role, core, node, pid, start_time, pidfd};
    return true;
}

/* Lines "role core pid start-time". What is not such a line is passed over: the file may be of a later version. */
static bool read_state(const machine_dir_t *dir, unsigned node, sweep_t *sweep)
{
    static char text[STATE_BYTES_MAX];
    static const struct {
        const char *name;
        sweep_role_t role;
    } roles[] = {{"node", SWEEP_NODE},
                 {"cpudriver", SWEEP_CPUDRIVER},
                 {"monitor", SWEEP_MONITOR},
                 {"linkdriver", SWEEP_LINK_DRIVER}};
    char path[CLI_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s/state", dir->path, dir->nodes[node]);
    if (rf_file_read(path, text, sizeof text) < 0) return true;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char role[16];
        int core, pid;
        uint64_t start_time;
        if (sscanf(line, "%15s %d %d %" SCNu64, role, &core, &pid, &start_time) != 4 || start_time == 0)
            continue;
        for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
            if (strcmp(role, roles[i].name) == 0 &&
                !add_process(sweep, roles[i].role, core, node, pid, start_time))
                return false;
        }
    }
    return true;
}

/* The control group that rackfishd wrote down, when it is one of ours below a cgroup mount. */
static bool read_cgroup(const machine_dir_t *dir, unsigned node, sweep_t *sweep)
{
    static char text[STATE_BYTES_MAX];
    char path[CLI_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s/machine", dir->path, dir->nodes[node]);
    if (rf_file_read(path, text, sizeof text) < 0) return true;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *group = line + 7;
        if (strncmp(line, "cgroup ", 7) != 0 || strncmp(group, "/sys/fs/cgroup/", 15) != 0 ||
            strstr(group, "..") || !strstr(group, "rackfish") || strlen(group) >= sizeof sweep->cgroups[0])
            continue;
        void *fresh = realloc(sweep->cgroups, (sweep->n_cgroups + 1) * sizeof sweep->cgroups[0]);
        if (!fresh) return false;
        sweep->cgroups = fresh;
        snprintf(sweep->cgroups[sweep->n_cgroups++], sizeof sweep->cgroups[0], "%s", group);
    }
    return true;
}

static bool collect_cgroup(const char *path, unsigned depth, sweep_t *sweep)
{
    char procs[CLI_PATH_MAX];
    snprintf(procs, sizeof procs, "%s/cgroup.procs", path);
    FILE *in = fopen(procs, "re");
    bool fine = true;
    for (int pid; in && fine && fscanf(in, "%d", &pid) == 1;) {
        uint64_t start_time = pid > 0 ? rf_process_start_time(pid) : 0;
        if (start_time) fine = add_process(sweep, SWEEP_DOMAIN, -1, 0, pid, start_time);
    }
    if (in) fclose(in);
    DIR *folder = depth > 0 ? opendir(path) : NULL;
    for (struct dirent *entry; folder && fine && (entry = readdir(folder));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
        char child[CLI_PATH_MAX];
        if (snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < (int)sizeof child)
            fine = collect_cgroup(child, depth - 1, sweep);
    }
    if (folder) closedir(folder);
    return fine;
}

typedef struct process_row {
    pid_t pid, parent, session;
    uint64_t start_time;
    bool ours;
} process_row_t;

static bool parse_stat(pid_t pid, process_row_t *row)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (rf_file_read(path, text, sizeof text) < 0) return false;
    const char *end = strrchr(text, ')'); /* the name may hold anything */
    unsigned long long start;
    int parent, session;
    if (!end ||
        sscanf(end + 1, " %*c %d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &parent, &session, &start) != 3)
        return false;
    *row = (process_row_t){pid, parent, session, start, false};
    return true;
}

/* All processes of the host that this process may see. The caller frees. */
static process_row_t *list_processes(size_t *n)
{
    DIR *folder = opendir("/proc");
    process_row_t *rows = NULL;
    size_t room = 0;
    *n = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        if (*n == room) {
            room = room ? 2 * room : 512;
            process_row_t *fresh = realloc(rows, room * sizeof *rows);
            if (!fresh) break;
            rows = fresh;
        }
        if (parse_stat((pid_t)strtol(entry->d_name, NULL, 10), &rows[*n])) (*n)++;
    }
    if (folder) closedir(folder);
    return rows;
}

/* Descendants of what was collected (but not of rackfishd itself, whose children are CPU drivers), and members of their
 * sessions. Orphans of a domain stay below its rf-init, a PID namespace's first process or a subreaper. */
static bool collect_descendants(sweep_t *sweep)
{
    size_t n;
    process_row_t *rows = list_processes(&n);
    bool fine = true;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < n; i++) {
            if (rows[i].ours || rows[i].pid == getpid()) continue;
            for (size_t k = 0; k < sweep->n && !rows[i].ours; k++) {
                const sweep_process_t *p = &sweep->processes[k];
                if (p->role != SWEEP_NODE)
                    rows[i].ours = rows[i].parent == p->pid || rows[i].pid == p->pid ||
                                   (p->role != SWEEP_DOMAIN && rows[i].session == p->pid);
            }
            for (size_t k = 0; k < n && !rows[i].ours; k++)
                rows[i].ours = rows[k].ours && rows[k].pid == rows[i].parent;
            changed |= rows[i].ours;
        }
    }
    for (size_t i = 0; i < n && fine; i++) {
        if (rows[i].ours) fine = add_process(sweep, SWEEP_DOMAIN, -1, 0, rows[i].pid, rows[i].start_time);
    }
    free(rows);
    return fine;
}

static bool collect_domains(sweep_t *sweep)
{
    for (size_t i = 0; i < sweep->n_cgroups; i++) {
        if (!collect_cgroup(sweep->cgroups[i], FOLDER_DEPTH, sweep)) return false;
    }
    return collect_descendants(sweep);
}

bool sweep_collect(const machine_dir_t *dir, sweep_t *out)
{
    *out = (sweep_t){.n = 0};
    for (unsigned i = 0; i < dir->n_nodes; i++) {
        if (!read_state(dir, i, out) || !read_cgroup(dir, i, out)) return false;
    }
    return collect_domains(out);
}

void sweep_free(sweep_t *sweep)
{
    for (size_t i = 0; i < sweep->n; i++) close(sweep->processes[i].pidfd);
    free(sweep->processes);
    free(sweep->cgroups);
    *sweep = (sweep_t){.n = 0};
}

static bool is_alive(const sweep_process_t *process)
{
    struct pollfd p = {.fd = process->pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

size_t sweep_alive(const sweep_t *sweep, int role, int node)
{
    size_t n = 0;
    for (size_t i = 0; i < sweep->n; i++) {
        const sweep_process_t *p = &sweep->processes[i];
        n += (role < 0 || (int)p->role == role) && (node < 0 || (int)p->node == node) && is_alive(p);
    }
    return n;
}

bool sweep_node_is_live(const machine_dir_t *dir, unsigned node)
{
    char path[CLI_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s/lock", dir->path, dir->nodes[node]);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool live = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    close(fd);
    return live;
}

bool sweep_node_is_ending(const machine_dir_t *dir, unsigned node)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s.sock", dir->path, dir->nodes[node]);
    if (n < 0 || (size_t)n >= sizeof address.sun_path || !sweep_node_is_live(dir, node)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    bool refused = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 &&
                   (errno == ECONNREFUSED || errno == ENOENT);
    close(fd);
    return refused;
}

bool sweep_wait(const sweep_t *sweep, int timeout_ms)
{
    uint64_t deadline = rf_clock_ns() + (uint64_t)timeout_ms * RF_NS_PER_MS;
    for (size_t i = 0; i < sweep->n; i++) {
        uint64_t now = rf_clock_ns();
        int left = now < deadline ? (int)((deadline - now) / RF_NS_PER_MS) : 0;
        if (rf_process_wait_dead(sweep->processes[i].pidfd, left) != RF_OK && is_alive(&sweep->processes[i]))
            return false;
    }
    return true;
}

/* ---- ending ---- */

static void send_signal(const sweep_t *sweep, int role, int signo)
{
    for (size_t i = 0; i < sweep->n; i++) {
        const sweep_process_t *p = &sweep->processes[i];
        if (((int)p->role == role || role < 0) && is_alive(p)) pidfd_send_signal(p->pidfd, signo, NULL, 0);
    }
}

/* Removes what is in the folder behind `fd`, following no links; counts what it removed. */
static void empty_folder(int fd, unsigned depth, size_t *removed)
{
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (unlinkat(fd, entry->d_name, 0) == 0) {
            (*removed)++;
        } else if ((errno == EISDIR || errno == EPERM) && depth > 0) {
            int child = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (child >= 0) empty_folder(child, depth - 1, removed);
            if (unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0) (*removed)++;
        }
    }
    closedir(folder);
}

static void remove_cgroup(const char *path, unsigned depth)
{
    DIR *folder = depth > 0 ? opendir(path) : NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char child[CLI_PATH_MAX];
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
            snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < (int)sizeof child)
            remove_cgroup(child, depth - 1);
    }
    if (folder) closedir(folder);
    /* The kernel lets go of a group a moment after its last process. */
    for (unsigned i = 0; i < 50 && rmdir(path) < 0 && errno == EBUSY; i++) rf_clock_sleep_ms(10);
}

static void end_processes(sweep_t *sweep, int grace_ms, sweep_report_t *report)
{
    /* In order: rackfishd may still do it properly; a CPU driver ends its domains when it is asked to. */
    if (grace_ms > 0 && sweep_alive(sweep, -1, -1) > 0) {
        send_signal(sweep, SWEEP_NODE, SIGTERM);
        send_signal(sweep, SWEEP_CPUDRIVER, SIGTERM);
        send_signal(sweep, SWEEP_DOMAIN, SIGTERM);
        sweep_wait(sweep, grace_ms);
    }
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        for (int role = SWEEP_NODE; role <= SWEEP_DOMAIN; role++) {
            report->killed[role] += sweep_alive(sweep, role, -1);
            send_signal(sweep, role, SIGKILL);
        }
        sweep_wait(sweep, 2000);
        size_t before = sweep->n;
        if (!collect_domains(sweep) || sweep->n == before) break;
    }
    report->survivors = sweep_alive(sweep, -1, -1);
}

void sweep_run(const machine_dir_t *dir, sweep_t *sweep, int grace_ms, sweep_report_t *report)
{
    *report = (sweep_report_t){.survivors = 0};
    end_processes(sweep, grace_ms, report);
    for (size_t i = 0; i < sweep->n_cgroups; i++) remove_cgroup(sweep->cgroups[i], FOLDER_DEPTH);
    int fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return; /* gone already */
    empty_folder(fd, FOLDER_DEPTH, &report->files);
    report->folder_left = rmdir(dir->path) < 0 && errno != ENOENT;
}
