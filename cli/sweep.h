/*
 * What a machine has left on this host, found without its rackfishd: from the state files that rackfishd writes (role,
 * core, pid, start time), its control groups, and the processes that descend from them. Every process is held by a pidfd
 * whose start time was checked before anything is sent to it, so that a pid used again is never hit.
 */
#ifndef RF_CLI_SWEEP_H
#define RF_CLI_SWEEP_H

#include "cli/machine.h"

#include <sys/types.h>

typedef enum sweep_role {
    SWEEP_NODE,
    SWEEP_CPUDRIVER,
    SWEEP_MONITOR,
    SWEEP_LINK_DRIVER,
    SWEEP_DOMAIN
} sweep_role_t;

typedef struct sweep_process {
    sweep_role_t role;
    int core;      /* -1: none */
    unsigned node; /* index in the machine_dir */
    pid_t pid;
    uint64_t start_time;
    int pidfd; /* -1: dead already, or never found */
} sweep_process_t;

typedef struct sweep {
    sweep_process_t *processes;
    size_t n, room;
    char (*cgroups)[CLI_PATH_MAX / 4];
    size_t n_cgroups;
} sweep_t;

/* Collects all living processes of the machine in `dir`. False: no memory. Call sweep_free in any case. */
bool sweep_collect(const machine_dir_t *dir, sweep_t *out);
void sweep_free(sweep_t *sweep);

/* How many of the collected are still alive; those of `role`, or of all when -1, of node index `node`, or of all when -1. */
size_t sweep_alive(const sweep_t *sweep, int role, int node);

/* A living rackfishd holds its lock. */
bool sweep_node_is_live(const machine_dir_t *dir, unsigned node);

/* A living rackfishd holds its lock, and takes no requests any more: it is about to be gone. */
bool sweep_node_is_ending(const machine_dir_t *dir, unsigned node);

/* Waits until all collected processes are dead; false when some are left after `timeout_ms`. */
bool sweep_wait(const sweep_t *sweep, int timeout_ms);

typedef struct sweep_report {
    size_t killed[SWEEP_DOMAIN + 1]; /* by role */
    size_t survivors;                /* that could not be killed */
    size_t files;                    /* entries removed that rackfishd had left */
    bool folder_left;                /* something could not be removed; errno says why */
} sweep_report_t;

/* Ends whatever is left, and removes control groups and the machine's folder. */
void sweep_run(const machine_dir_t *dir, sweep_t *sweep, int grace_ms, sweep_report_t *report);

const char *sweep_role_name(sweep_role_t role);

#endif
