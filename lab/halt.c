#include "lab/halt.h"
#include "lab/spawn.h"

#include "base/clock.h"
#include "base/os.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define PROCESSES_MAX 4096
#define LOOK_MS       5

bool lab_guest_order(pid_t first, bool stop)
{
    return sigqueue(first, LAB_SIGNAL_ORDER, (union sigval){.sival_int = stop}) == 0;
}

/* State, parent and name of a process, or thread, by its stat file; false: it has gone. */
static bool read_stat(const char *path, char *state, pid_t *parent, char *name, size_t max)
{
    char text[512];
    ssize_t n = rf_file_read(path, text, sizeof text - 1);
    if (n <= 0) return false;
    text[n] = '\0';
    const char *begin = strchr(text, '('), *end = strrchr(text, ')');
    int number;
    if (!begin || !end || sscanf(end + 1, " %c %d", state, &number) != 2) return false;
    *parent = number;
    snprintf(name, max, "%.*s", (int)(end - begin) + 1, begin);
    return true;
}

void lab_process_text(pid_t pid, char *text, size_t max)
{
    char path[64], name[64], state;
    pid_t parent;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_stat(path, &state, &parent, name, sizeof name))
        snprintf(text, max, "process %d %s, state %c", (int)pid, name, state);
    else
        snprintf(text, max, "process %d", (int)pid);
}

/* Stopped, by a signal or its tracer, or ended. */
static bool is_still(char state)
{
    return strchr("TtZXx", state) != NULL;
}

/* Each thread of a process; one that comes or goes meanwhile shows that not all of them stand. */
static bool threads_stand(pid_t pid, char *why, size_t max)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    if (!folder) return true; /* gone */
    bool still = true;
    for (struct dirent *entry; still && (entry = readdir(folder));) {
        int thread = (int)strtol(entry->d_name, NULL, 10);
        char name[64], state;
        pid_t parent;
        if (thread <= 0) continue;
        snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, thread);
        if (!read_stat(path, &state, &parent, name, sizeof name) || is_still(state)) continue;
        snprintf(why, max, "process %d %s is in state %c", (int)pid, name, state);
        still = false;
    }
    closedir(folder);
    return still;
}

typedef struct family {
    struct {
        pid_t pid, parent;
        unsigned level; /* below the first; 0: not of them, as far as is known */
    } of[PROCESSES_MAX];
    size_t n;
} family_t;

static bool read_processes(family_t *family)
{
    DIR *folder = opendir("/proc");
    if (!folder) return false;
    family->n = 0;
    for (struct dirent *entry; family->n < PROCESSES_MAX && (entry = readdir(folder));) {
        char path[64], name[64], state;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10), parent;
        if (pid <= 0) continue;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        if (!read_stat(path, &state, &parent, name, sizeof name)) continue;
        family->of[family->n].pid = pid;
        family->of[family->n].parent = parent;
        family->of[family->n++].level = 0;
    }
    closedir(folder);
    return true;
}

/* Finds those whose parents are known to be of them; false: there are no more. */
static bool find_next_level(family_t *family, pid_t first, unsigned level)
{
    bool found = false;
    for (size_t i = 0; i < family->n; i++) {
        if (family->of[i].level) continue;
        bool is_child = level == 1 && family->of[i].parent == first;
        for (size_t j = 0; level > 1 && !is_child && j < family->n; j++)
            is_child = family->of[j].level == level - 1 && family->of[j].pid == family->of[i].parent;
        if (!is_child) continue;
        family->of[i].level = level;
        found = true;
    }
    return found;
}

bool lab_guest_stands(pid_t first, unsigned levels, char *why, size_t max)
{
    static family_t family;
    if (!read_processes(&family)) {
        snprintf(why, max, "/proc cannot be read");
        return false;
    }
    for (unsigned level = 1; level <= levels && find_next_level(&family, first, level); level++)
        ;
    for (size_t i = 0; i < family.n; i++) {
        if (family.of[i].level && !threads_stand(family.of[i].pid, why, max)) return false;
    }
    return true;
}

bool lab_wait_ended(pid_t *pids, size_t n, uint64_t deadline_ns)
{
    for (;;) {
        size_t left = 0;
        for (size_t i = 0; i < n; i++) {
            if (pids[i] > 0 && waitpid(pids[i], NULL, WNOHANG) != 0) pids[i] = 0;
            left += pids[i] > 0;
        }
        if (left == 0) return true;
        if (rf_clock_ns() >= deadline_ns) return false;
        rf_clock_sleep_ms(LOOK_MS);
    }
}
