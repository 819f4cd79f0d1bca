/* User, capabilities, namespaces, cgroup, scheduling class, run directory. */
#include "cluster-config/doctor_internal.h"

#include "base/os.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SYSTEM_USER "rackfish"

void doctor_check_user(doctor_t *doctor)
{
    if (!doctor->root)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "start it as root where programs of several users must be kept apart",
                       "started by an ordinary user: system processes and programs all run as you");
    else if (!getpwnam(SYSTEM_USER))
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "create it: useradd --system --no-create-home --shell /usr/sbin/nologin " SYSTEM_USER,
                       "there is no user '" SYSTEM_USER
                       "' for the system processes of a machine started by root");
    else
        doctor_good(doctor, "system processes will run as '" SYSTEM_USER "'");
}

uint64_t doctor_capabilities(void)
{
    char text[4096];
    if (rf_file_read("/proc/self/status", text, sizeof text) < 0) return 0;
    const char *at = strstr(text, "\nCapEff:");
    return at ? strtoull(at + strlen("\nCapEff:"), NULL, 16) : 0;
}

void doctor_check_capabilities(doctor_t *doctor)
{
    static const struct {
        int number;
        const char *name;
        bool needed;
    } wanted[] = {
        {CAP_SETUID, "SETUID", true},
        {CAP_SETGID, "SETGID", true},
        {CAP_KILL, "KILL", true},
        {CAP_CHOWN, "CHOWN", true},
        {CAP_DAC_OVERRIDE, "DAC_OVERRIDE", true},
        {CAP_FOWNER, "FOWNER", true},
        {CAP_SYS_ADMIN, "SYS_ADMIN", false},
        {CAP_SYS_NICE, "SYS_NICE", false},
        {CAP_SYS_RESOURCE, "SYS_RESOURCE", false},
    };
    if (!doctor->root) {
        doctor_good(doctor, "none are needed by a machine of one user");
        return;
    }
    uint64_t have = doctor_capabilities();
    char missing[160] = "";
    bool fatal = false;
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (have & (1ull << wanted[i].number)) continue;
        size_t used = strlen(missing);
        snprintf(missing + used, sizeof missing - used, "%s%s", used ? " " : "", wanted[i].name);
        fatal |= wanted[i].needed;
    }
    if (missing[0])
        doctor_finding(doctor, fatal ? RF_DOCTOR_FAIL : RF_DOCTOR_NOTE,
                       "give this container its capabilities, or start as an ordinary user",
                       "root here lacks capabilities: %s", missing);
    else
        doctor_good(doctor, "root has all that are wanted");
}

/* What a domain gets: a PID and a mount namespace with a /proc of its own; the user namespace only without root. */
enum { ATTEMPT_OK = 0, ATTEMPT_UNSHARE = 1, ATTEMPT_FORK = 2, ATTEMPT_PROC = 3 };

static int namespaces_attempt(int flags)
{
    if (unshare(flags) < 0) return ATTEMPT_UNSHARE;
    pid_t pid = fork();
    if (pid < 0) return ATTEMPT_FORK;
    if (pid == 0) {
        if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
            _exit(ATTEMPT_PROC);
        _exit(ATTEMPT_OK);
    }
    int status = 0;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : ATTEMPT_FORK;
}

static int namespaces_attempt_root(void)
{
    return namespaces_attempt(CLONE_NEWPID | CLONE_NEWNS);
}
static int namespaces_attempt_user(void)
{
    return namespaces_attempt(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS);
}

void doctor_check_isolation(doctor_t *doctor)
{
    const char *kind = doctor->root ? "PID and mount" : "user, PID and mount";
    switch (doctor_try(doctor->root ? namespaces_attempt_root : namespaces_attempt_user)) {
    case ATTEMPT_OK:
        doctor_good(doctor, "each domain gets its own %s namespaces%s", kind,
                    doctor->root ? " and runs as its own user" : "");
        return;
    case ATTEMPT_PROC:
        doctor_finding(doctor, RF_DOCTOR_NOTE, "in a container, leave /proc unmasked",
                       "domains get %s namespaces, but no /proc of their own", kind);
        return;
    default:
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       doctor->root ? "give this container CAP_SYS_ADMIN"
                                    : "allow user namespaces (sysctl user.max_user_namespaces, "
                                      "kernel.unprivileged_userns_clone), or start as root",
                       "no %s namespaces may be made; domains would not be isolated from each other", kind);
    }
}

/* The mount point of the cpu controller (v1), else of the unified hierarchy (v2). */
static bool cgroup_mount(char *point, bool *v2)
{
    char line[4096], options[512], type[32], at[256];
    bool found = false;
    FILE *mounts = fopen("/proc/self/mounts", "re");
    while (mounts && fgets(line, sizeof line, mounts)) {
        if (sscanf(line, "%*s %255s %31s %511s", at, type, options) != 3) continue;
        char padded[520];
        snprintf(padded, sizeof padded, ",%s,", options);
        bool v1 = strcmp(type, "cgroup") == 0 && strstr(padded, ",cpu,");
        if (!v1 && (found || strcmp(type, "cgroup2") != 0)) continue;
        memcpy(point, at, sizeof at);
        *v2 = !v1;
        found = true;
        if (v1) break;
    }
    if (mounts) fclose(mounts);
    return found;
}

/* The group of the unified hierarchy in which this process is, as a path. */
static bool cgroup_own(const char *mount, char *path, size_t max)
{
    char text[4096];
    if (rf_file_read("/proc/self/cgroup", text, sizeof text) < 0) return false;
    char *line = strstr(text, "0::/");
    if (!line) return false;
    line[strcspn(line, "\n")] = '\0';
    return snprintf(path, max, "%s%s", mount, line + 3) < (int)max;
}

static bool cgroup_offers_cpu(const char *group)
{
    char path[600], text[512] = " ";
    snprintf(path, sizeof path, "%.500s/cgroup.controllers", group);
    if (rf_file_read(path, text + 1, sizeof text - 2) < 0) return false;
    text[strcspn(text, "\n")] = ' ';
    return strstr(text, " cpu ") != NULL;
}

void doctor_check_cgroup(doctor_t *doctor)
{
    static const char less[] = "cores would slice time by signals: shares are coarser";
    char mount_point[256], group[512];
    bool v2;
    if (!cgroup_mount(mount_point, &v2)) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "mount cgroup v2 at /sys/fs/cgroup",
                       "no cgroup with the cpu controller is mounted; %s", less);
        return;
    }
    snprintf(group, sizeof group, "%s", mount_point);
    if (v2 && !doctor->root && !cgroup_own(mount_point, group, sizeof group))
        snprintf(group, sizeof group, "%s", mount_point);
    if (v2 && !cgroup_offers_cpu(group))
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "delegate the cpu controller: Delegate=cpu in the unit or slice",
                       "cgroup v2 does not offer the cpu controller at %.120s; %s", group, less);
    else if (access(group, W_OK) < 0)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       v2 ? "start it with: systemd-run --user --scope -p Delegate=yes" : "start it as root",
                       "the cpu controller at %.120s is not ours to use; %s", group, less);
    else
        doctor_good(doctor, "cgroup %s with the cpu controller at %.120s", v2 ? "v2" : "v1", group);
}

static int realtime_attempt(void)
{
    return sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}) == 0 ? 0 : 1;
}

void doctor_check_realtime(doctor_t *doctor)
{
    if (doctor_try(realtime_attempt) == 0)
        doctor_good(doctor, "CPU drivers may run ahead of what they serve (SCHED_FIFO)");
    else
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "start it as root, or give CAP_SYS_NICE (AmbientCapabilities= in the unit)",
                       "no SCHED_FIFO: CPU drivers can be preempted by what they serve");
}

void doctor_check_run_dir(doctor_t *doctor)
{
    const char *base = doctor->options->run_base;
    if (!base) return;
    const rf_config_t *config = doctor->options->config;
    struct sockaddr_un address;
    size_t longest_node = strlen("node00");
    for (unsigned i = 0; config && i < config->n_nodes; i++) {
        size_t length = strlen(config->nodes[i].name);
        longest_node = length > longest_node ? length : longest_node;
    }
    size_t longest = strlen(base) + 1 + strlen(config ? config->machine : "rackfish") + 1 + longest_node +
                     strlen("/monitor-1023.sock");
    if (longest >= sizeof address.sun_path) {
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "use a shorter name for the machine, its nodes, or XDG_RUNTIME_DIR",
                       "socket paths below %.100s would have %zu bytes; the kernel takes %zu", base, longest,
                       sizeof address.sun_path - 1);
        return;
    }
    /* The folder itself, or the nearest one above that is there already. */
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s", base);
    while (stat(path, &st) < 0 && errno == ENOENT && strrchr(path, '/')) {
        char *slash = strrchr(path, '/');
        slash[slash == path ? 1 : 0] = '\0';
    }
    if (access(path, W_OK | X_OK) < 0)
        doctor_finding(doctor, RF_DOCTOR_FAIL, "make it writable, or set XDG_RUNTIME_DIR to a folder that is",
                       "the run directory %.100s cannot be made: %.100s: %m", base, path);
    else if (strcmp(path, base) == 0 && st.st_uid != geteuid())
        doctor_finding(doctor, RF_DOCTOR_FAIL, "remove it if it is not needed, or set XDG_RUNTIME_DIR",
                       "the run directory %.100s belongs to another user", base);
    else
        doctor_good(doctor, "run directories go below %.150s", base);
}

bool rf_doctor_reachable(const char *path, char *closed, size_t max)
{
    char whole[PATH_MAX];
    struct stat st;
    if (!realpath(path, whole)) {
        snprintf(closed, max, "%s", path);
        return false;
    }
    /* "/usr", "/usr/bin", and so on to the path itself: what is executed or searched must let others do so. */
    for (char *end = whole; end; end = strchr(end + 1, '/')) {
        char *cut = strchr(end + 1, '/');
        if (cut) *cut = '\0';
        bool open = stat(whole, &st) == 0 && (st.st_mode & S_IXOTH);
        if (!open) {
            snprintf(closed, max, "%s", whole);
            return false;
        }
        if (cut) *cut = '/';
    }
    return true;
}

void doctor_check_programs(doctor_t *doctor)
{
    char closed[160];
    if (!doctor->root || rf_doctor_reachable("/proc/self/exe", closed, sizeof closed)) return;
    doctor_finding(doctor, RF_DOCTOR_FAIL,
                   "install it where everybody may go: cmake --install build/release --prefix /usr/local",
                   "the programs are below %.150s, which the user '" SYSTEM_USER "' may not enter", closed);
}
