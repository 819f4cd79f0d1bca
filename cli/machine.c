#include "cli/machine.h"

#include "base/clock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PRIVILEGED_BASE "/run/rackfish"

bool machine_base(char *path, size_t max)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n;
    if (geteuid() == 0)
        n = snprintf(path, max, "%s", PRIVILEGED_BASE);
    else if (runtime && runtime[0] == '/')
        n = snprintf(path, max, "%s/rackfish", runtime);
    else
        n = snprintf(path, max, "/tmp/rackfish-%u", (unsigned)geteuid());
    return n > 0 && (size_t)n < max;
}

bool machine_base_prepare(const cli_t *cli, char *path, size_t max)
{
    if (!machine_base(path, max)) {
        cli_error(cli, "the path in XDG_RUNTIME_DIR is too long; choose a shorter one");
        return false;
    }
    bool privileged = geteuid() == 0;
    if (mkdir(path, privileged ? 0711 : 0700) == 0) {
        /* mkdir is subject to the umask; the mode is part of the contract. */
        if (chmod(path, privileged ? 0711 : 0700) < 0) {
            cli_error(cli, "chmod %s: %s", path, strerror(errno));
            return false;
        }
        return true;
    }
    if (errno != EEXIST) {
        cli_error(cli, "cannot create %s: %s; set XDG_RUNTIME_DIR to a folder of yours", path,
                  strerror(errno));
        return false;
    }
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
        cli_error(cli, "%s is not a folder that only you can write to; remove it or set XDG_RUNTIME_DIR",
                  path);
        return false;
    }
    return true;
}

bool machine_name_valid(const char *name)
{
    if (!isalnum((unsigned char)name[0]) || strlen(name) >= RF_NAME_MAX) return false;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && !strchr("-_.", *name)) return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

void machine_list_nodes(machine_dir_t *out)
{
    out->n_nodes = 0;
    DIR *dir = opendir(out->path);
    if (!dir) {
        /* A privileged machine's folder can be entered but not listed by others: ask for the usual names. */
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[RF_NAME_MAX];
        size_t n = strlen(entry->d_name);
        bool socket = n > 5 && strcmp(entry->d_name + n - 5, ".sock") == 0;
        if (socket) n -= 5;
        if (n >= sizeof name) continue;
        memcpy(name, entry->d_name, n);
        name[n] = '\0';
        struct stat st;
        if (!machine_name_valid(name) || fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !(socket ? S_ISSOCK(st.st_mode) : S_ISDIR(st.st_mode)))
            continue;
        bool known = false;
        for (unsigned i = 0; i < out->n_nodes && !known; i++) known = strcmp(out->nodes[i], name) == 0;
        if (!known && out->n_nodes < MACHINE_NODES_MAX) memcpy(out->nodes[out->n_nodes++], name, sizeof name);
    }
    closedir(dir);
    qsort(out->nodes, out->n_nodes, sizeof out->nodes[0], by_name);
}

static unsigned list_bases(char bases[2][CLI_PATH_MAX / 4])
{
    unsigned n = 0;
    if (machine_base(bases[0], sizeof bases[0])) n = 1;
    if (n == 0 || strcmp(bases[0], PRIVILEGED_BASE) != 0)
        snprintf(bases[n++], sizeof bases[0], "%s", PRIVILEGED_BASE);
    return n;
}

bool machine_find(const cli_t *cli, machine_dir_t *out)
{
    char bases[2][CLI_PATH_MAX / 4];
    unsigned n_bases = list_bases(bases);
    for (unsigned i = 0; i < n_bases; i++) {
        struct stat st;
        int n = snprintf(out->path, sizeof out->path, "%s/%s", bases[i], cli->machine);
        if (n < 0 || (size_t)n >= sizeof out->path || lstat(out->path, &st) < 0 || !S_ISDIR(st.st_mode))
            continue;
        machine_list_nodes(out);
        return true;
    }
    return false;
}

unsigned machine_each(void (*visit)(const char *name, void *context), void *context)
{
    char bases[2][CLI_PATH_MAX / 4];
    unsigned n_bases = list_bases(bases), total = 0;
    for (unsigned i = 0; i < n_bases; i++) {
        struct dirent **entries;
        int n = scandir(bases[i], &entries, NULL, alphasort);
        for (int e = 0; e < n; e++) {
            if (machine_name_valid(entries[e]->d_name) && entries[e]->d_type == DT_DIR) {
                visit(entries[e]->d_name, context);
                total++;
            }
            free(entries[e]);
        }
        if (n >= 0) free(entries);
    }
    return total;
}

int machine_lock(const char *path, int timeout_ms)
{
    uint64_t deadline = rf_clock_ns() + (uint64_t)timeout_ms * RF_NS_PER_MS;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -1;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (rf_clock_ns() > deadline) {
            close(fd);
            return -1;
        }
        rf_clock_sleep_ms(20);
    }
    return fd;
}
