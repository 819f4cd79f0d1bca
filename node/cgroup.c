#include "node/cgroup.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOUNTS_MAX    65536
#define REMOVE_DEPTH  8
#define REMOVE_ROUNDS 50 /* of 10 ms: a killed process leaves its group a moment later */

/* True when `word` is one of the comma-separated `list`. */
static bool list_has(const char *list, const char *word)
{
    size_t size = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, word, size) == 0 && (at[size] == 0 || at[size] == ',')) return true;
    }
    return false;
}

/* Where the cpu controller (v1), else the unified hierarchy (v2), is mounted. */
static bool find_mount(char *out, size_t max, bool *v2)
{
    static char text[MOUNTS_MAX];
    if (rf_file_read("/proc/self/mounts", text, sizeof text) < 0) return false;
    bool found = false;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char point[RF_PATH_MAX], type[32], options[256];
        if (sscanf(line, "%*s %255s %31s %255s", point, type, options) != 3) continue;
        if (strcmp(type, "cgroup") == 0 && list_has(options, "cpu")) {
            snprintf(out, max, "%s", point);
            *v2 = false;
            return true;
        }
        if (strcmp(type, "cgroup2") == 0) {
            snprintf(out, max, "%s", point);
            *v2 = found = true;
        }
    }
    return found;
}

static bool file_has_word(const char *folder, const char *file, const char *word)
{
    char path[RF_PATH_MAX + 32], text[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (rf_file_read(path, text, sizeof text) < 0) return false;
    char *save = NULL;
    for (char *at = strtok_r(text, " \n", &save); at; at = strtok_r(NULL, " \n", &save)) {
        if (strcmp(at, word) == 0) return true;
    }
    return false;
}

static bool file_put(const char *folder, const char *file, const char *text)
{
    char path[RF_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

/* v2, not root: this process's own group, if it was delegated to this user. Its processes move to a leaf of their own,
 * since a group with controllers for its children may hold none. */
static bool delegated_group(const char *mount, char *out, size_t max)
{
    char text[4096], self[RF_PATH_MAX], leaf[RF_PATH_MAX + 32], pid[16];
    if (rf_file_read("/proc/self/cgroup", text, sizeof text) < 0) return false;
    char *line = strstr(text, "0::/");
    if (!line || (line != text && line[-1] != '\n')) return false;
    line += 3;
    line[strcspn(line, "\n")] = 0;
    if (snprintf(self, sizeof self, "%s%s", mount, line) >= (int)sizeof self) return false;
    snprintf(leaf, sizeof leaf, "%s/cgroup.subtree_control", self);
    if (access(leaf, W_OK) < 0 || !file_has_word(self, "cgroup.controllers", "cpu")) return false;
    snprintf(leaf, sizeof leaf, "%s/rackfishd", self);
    if (mkdir(leaf, 0755) < 0 && errno != EEXIST) return false;
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (!file_put(leaf, "cgroup.procs", pid)) return false;
    return snprintf(out, max, "%s", self) < (int)max;
}

static bool give_to_system_user(const rf_daemon_t *daemon, const char *folder)
{
    static const char *const files[] = {"cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"};
    if (chown(folder, daemon->system_uid, daemon->system_gid) < 0) return false;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[RF_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        if (chown(path, daemon->system_uid, daemon->system_gid) < 0 && errno != ENOENT) return false;
    }
    return true;
}

/* The reason for none, or NULL. */
static const char *prepare(rf_daemon_t *daemon)
{
    char base[RF_PATH_MAX], above[RF_PATH_MAX + 16], folder[RF_PATH_MAX + 32 + RF_NAME_MAX];
    bool v2;
    if (!find_mount(base, sizeof base, &v2)) return "no cgroup hierarchy with a cpu controller is mounted";
    if (v2 && !daemon->privileged) {
        char mount[RF_PATH_MAX];
        memcpy(mount, base, sizeof mount);
        if (!delegated_group(mount, base, sizeof base))
            return "no cgroup with the cpu controller is delegated to this user";
    }
    if (v2 && !file_has_word(base, "cgroup.controllers", "cpu"))
        return "the cpu controller is not in cgroup v2's hierarchy";
    snprintf(above, sizeof above, "%s/rackfish", base);
    /* By run directory: another machine may have the same name and another place. FNV-1a. */
    uint32_t place = 2166136261u;
    for (const char *c = daemon->run_dir; *c; c++) place = (place ^ (uint8_t)*c) * 16777619u;
    snprintf(folder, sizeof folder, "%s/%s-%08x", above, daemon->config->machine, place);
    if (strlen(folder) >= sizeof daemon->cgroup) return "its path is too long";
    if ((mkdir(above, 0755) < 0 && errno != EEXIST) || (mkdir(folder, 0755) < 0 && errno != EEXIST))
        return "this user may make no cgroup for the cpu controller";
    if (v2 && (!file_put(base, "cgroup.subtree_control", "+cpu") ||
               !file_put(above, "cgroup.subtree_control", "+cpu") ||
               !file_put(folder, "cgroup.subtree_control", "+cpu"))) {
        rmdir(folder);
        rmdir(above);
        return "the cpu controller could not be turned on below it";
    }
    if (daemon->privileged && !give_to_system_user(daemon, folder)) {
        rmdir(folder);
        rmdir(above);
        return "the cgroup could not be given to the system user";
    }
    memcpy(daemon->cgroup, folder, strlen(folder) + 1); /* its length was checked above */
    return NULL;
}

void rf_cgroup_prepare(rf_daemon_t *daemon)
{
    daemon->cgroup[0] = 0;
    if (daemon->config->sched == RF_SCHED_SIGNALS) return;
    const char *reason = prepare(daemon);
    if (reason) rf_log(RF_LOG_INFO, "no cgroup: %s; cores slice time by signals", reason);
}

static void kill_members(int folder)
{
    int fd = openat(folder, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    int pid;
    while (file && fscanf(file, "%d", &pid) == 1) {
        if (pid > 1 && pid != getpid()) kill(pid, SIGKILL);
    }
    if (file)
        fclose(file);
    else if (fd >= 0)
        close(fd);
}

/* Kills and removes depth first; true when the group is gone. */
static bool remove_group(int parent, const char *name, unsigned depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT;
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return false;
    }
    struct dirent *entry;
    while (depth > 0 && (entry = readdir(folder))) {
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') remove_group(fd, entry->d_name, depth - 1);
    }
    kill_members(fd);
    closedir(folder);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT;
}

void rf_cgroup_remove(const char *cgroup, const rf_core_t *cores, unsigned n_cores)
{
    if (!cgroup[0]) return;
    int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    for (unsigned i = 0; i < n_cores; i++) {
        char name[32];
        snprintf(name, sizeof name, "core-%u", cores[i]);
        bool gone = false;
        for (unsigned round = 0; round < REMOVE_ROUNDS && !(gone = remove_group(fd, name, REMOVE_DEPTH));
             round++)
            rf_clock_sleep_ms(10);
        if (!gone) rf_log(RF_LOG_WARN, "cannot remove the cgroup %s/%s: %m", cgroup, name);
    }
    close(fd);
    char above[RF_PATH_MAX];
    if (rmdir(cgroup) == 0) {
        snprintf(above, sizeof above, "%s", cgroup);
        *strrchr(above, '/') = 0;
        rmdir(above); /* fails, rightly, while another machine has a folder in it */
    }
}
