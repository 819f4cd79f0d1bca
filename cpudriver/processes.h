/*
 * Which processes of the host belong to which dispatcher: those that descend from its rf-init. In a PID namespace, and
 * with a subreaper, an orphan becomes rf-init's child, so double-forking, new sessions and new groups change nothing.
 *
 * A table is a snapshot of /proc: use it at once.
 */
#ifndef RF_CPUDRIVER_PROCESSES_H
#define RF_CPUDRIVER_PROCESSES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define RF_PROCESSES_MAX 8192 /* of the host; a larger host is seen in part, and that is logged */
#define RF_PROCESS_HASH  16384

typedef struct rf_process {
    pid_t pid, parent, group;
    int16_t owner;   /* index into the roots given, -1: nobody's */
    bool is_root;    /* it is that rf-init itself */
    char state;      /* as in /proc: R S D T Z ... */
    uint64_t cpu_ns; /* its own and its reaped children's, in steps of 10 ms */
    uint64_t rss_kib;
} rf_process_t;

typedef struct rf_processes {
    unsigned n;
    bool cut_logged;
    rf_process_t at[RF_PROCESSES_MAX];
    uint16_t hash[RF_PROCESS_HASH]; /* pid -> index + 1 */
} rf_processes_t;

/* Parses one /proc/PID/stat; false when it is not one. `page_kib` and `tick_ns` are the host's units. */
bool rf_process_parse(const char *text, uint64_t page_kib, uint64_t tick_ns, rf_process_t *out);

/* Looks at every process of the host, and gives each its owner. */
void rf_processes_scan(rf_processes_t *table, const pid_t *roots, unsigned n_roots);

/* Looks at the processes whose pids `list` has, one a line; all are `owner`'s, and `root` is its rf-init. */
void rf_processes_read(rf_processes_t *table, int list, int owner, pid_t root);

/* Looks again only at those that have an owner; the dead are dropped, the new are not seen. */
void rf_processes_refresh(rf_processes_t *table);

/* The owners, without looking: for tests, and after filling `at` and `n` by hand. */
void rf_processes_label(rf_processes_t *table, const pid_t *roots, unsigned n_roots);

/* Signals every process of `owner` but its rf-init. Returns how many. */
unsigned rf_processes_signal(const rf_processes_t *table, int owner, int signo);

#endif
