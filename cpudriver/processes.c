#include "cpudriver/processes.h"

#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAT_BYTES 1024
#define DEPTH_MAX  4096 /* of the tree of processes; a longer chain is a lie of a torn snapshot */

bool rf_process_parse(const char *text, uint64_t page_kib, uint64_t tick_ns, rf_process_t *out)
{
    long long field[25] = {0};
    const char *at = strrchr(text, ')'); /* the name may hold brackets and spaces */
    if (!at || at[1] != ' ' || !at[2]) return false;
    rf_process_t process = {.pid = (pid_t)strtol(text, NULL, 10), .state = at[2], .owner = -1};
    at += 3;
    for (int i = 4; i <= 24; i++) { /* numbered as in proc(5) */
        char *end;
        field[i] = strtoll(at, &end, 10);
        if (end == at) return false;
        at = end;
    }
    process.parent = (pid_t)field[4];
    process.group = (pid_t)field[5];
    process.cpu_ns =
        ((uint64_t)field[14] + (uint64_t)field[15] + (uint64_t)field[16] + (uint64_t)field[17]) * tick_ns;
    process.rss_kib = field[24] > 0 ? (uint64_t)field[24] * page_kib : 0;
    if (process.pid <= 0) return false;
    *out = process;
    return true;
}

static bool look(int proc, pid_t pid, rf_process_t *out)
{
    char path[32], text[STAT_BYTES];
    snprintf(path, sizeof path, "%d/stat", (int)pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0) return false;
    text[got] = 0;
    return rf_process_parse(text, (uint64_t)sysconf(_SC_PAGESIZE) / 1024,
                            1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK), out);
}

static unsigned bucket(pid_t pid)
{
    return (unsigned)pid * 2654435761u % RF_PROCESS_HASH;
}

static rf_process_t *find(rf_processes_t *table, pid_t pid)
{
    for (unsigned at = bucket(pid); table->hash[at]; at = (at + 1) % RF_PROCESS_HASH) {
        rf_process_t *process = &table->at[table->hash[at] - 1];
        if (process->pid == pid) return process;
    }
    return NULL;
}

void rf_processes_label(rf_processes_t *table, const pid_t *roots, unsigned n_roots)
{
    enum { UNKNOWN = -2 };
    memset(table->hash, 0, sizeof table->hash);
    for (unsigned i = 0; i < table->n; i++) {
        unsigned at = bucket(table->at[i].pid);
        while (table->hash[at]) at = (at + 1) % RF_PROCESS_HASH;
        table->hash[at] = (uint16_t)(i + 1);
        table->at[i].owner = UNKNOWN;
        table->at[i].is_root = false;
    }
    for (unsigned i = 0; i < n_roots; i++) {
        rf_process_t *root = roots[i] > 0 ? find(table, roots[i]) : NULL;
        if (root) {
            root->owner = (int16_t)i;
            root->is_root = true;
        }
    }
    for (unsigned i = 0; i < table->n; i++) {
        /* Up to the first whose owner is known, and the same way again to write it down. */
        rf_process_t *process = &table->at[i];
        int16_t owner = -1;
        for (unsigned depth = 0; process && depth < DEPTH_MAX; depth++) {
            if (process->owner != UNKNOWN) {
                owner = process->owner;
                break;
            }
            process = find(table, process->parent);
        }
        process = &table->at[i];
        for (unsigned depth = 0; process && process->owner == UNKNOWN && depth < DEPTH_MAX; depth++) {
            process->owner = owner;
            process = find(table, process->parent);
        }
    }
}

void rf_processes_scan(rf_processes_t *table, const pid_t *roots, unsigned n_roots)
{
    table->n = 0;
    DIR *proc = opendir("/proc");
    if (proc) {
        for (struct dirent *entry; (entry = readdir(proc));) {
            pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
            if (pid <= 0) continue;
            if (table->n == RF_PROCESSES_MAX) {
                if (!table->cut_logged)
                    rf_log(RF_LOG_WARN, "this host has more than %u processes; figures are of a part of them",
                           RF_PROCESSES_MAX);
                table->cut_logged = true;
                break;
            }
            if (look(dirfd(proc), pid, &table->at[table->n])) table->n++;
        }
        closedir(proc);
    }
    rf_processes_label(table, roots, n_roots);
}

void rf_processes_read(rf_processes_t *table, int list, int owner, pid_t root)
{
    char text[4096];
    size_t held = 0;
    ssize_t got;
    table->n = 0;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0) return;
    while ((got = read(list, text + held, sizeof text - 1 - held)) > 0) {
        text[held + (size_t)got] = 0;
        char *line = text;
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            rf_process_t *process = &table->at[table->n];
            if (table->n == RF_PROCESSES_MAX || !look(proc, (pid_t)strtol(line, NULL, 10), process)) continue;
            process->owner = (int16_t)owner;
            process->is_root = process->pid == root;
            table->n++;
        }
        held = strlen(line); /* a line that goes on in the next piece */
        memmove(text, line, held);
        if (held == sizeof text - 1) break; /* no list of pids has such a line */
    }
    close(proc);
}

void rf_processes_refresh(rf_processes_t *table)
{
    unsigned kept = 0;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0) return;
    for (unsigned i = 0; i < table->n; i++) {
        rf_process_t now;
        if (table->at[i].owner < 0 || !look(proc, table->at[i].pid, &now)) continue;
        now.owner = table->at[i].owner;
        now.is_root = table->at[i].is_root;
        table->at[kept++] = now;
    }
    table->n = kept;
    close(proc);
}

unsigned rf_processes_signal(const rf_processes_t *table, int owner, int signo)
{
    unsigned n = 0;
    for (unsigned i = 0; i < table->n; i++) {
        const rf_process_t *process = &table->at[i];
        if (process->owner == owner && !process->is_root && process->state != 'Z' &&
            kill(process->pid, signo) == 0)
            n++;
    }
    return n;
}
