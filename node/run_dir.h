/*
 * The run directory, which is all that survives rackfishd on a host:
 *
 *   base/MACHINE/             privileged: 0711 root; else 0700
 *      NODE.sock              control socket
 *      NODE.dpdk/sock         where the link driver serves monitors and dispatchers, of further ports sock1...; 0711, the system
 *                             user's
 *      NODE.lib-*             private libraries of running programs (ship.c)
 *      NODE/                  0700, owned by the system user
 *         lock                flock()ed by the living rackfishd
 *         machine             machine id, boot settings that a restarted rackfishd needs
 *         state               one line a process: role core pid start-time
 *         monitor-CORE.sock, *.log
 *
 * base is /run/rackfish for root, else $XDG_RUNTIME_DIR/rackfish, else /tmp/rackfish-UID.
 */
#ifndef RF_NODE_RUN_DIR_H
#define RF_NODE_RUN_DIR_H

#include "node/daemon.h"

#define RF_STATE_PROCESSES_MAX (2 * RF_CORES_PER_NODE_MAX + 1 + RF_DPDK_PORTS_MAX)

typedef struct rf_state_process {
    char role[16]; /* node, cpudriver, monitor, linkdriver */
    int core;      /* -1: none; of a link driver its port */
    pid_t pid;
    uint64_t start_time;
} rf_state_process_t;

typedef struct rf_state {
    unsigned n;
    rf_state_process_t processes[RF_STATE_PROCESSES_MAX];
} rf_state_t;

/* The folder of a machine by the rules above. */
rf_err_t rf_run_dir_default(const char *machine, char *out, size_t max);

/* Makes the folders for a node and takes its lock. RF_ERR_EXISTS: a living rackfishd has it. `error` is one line. */
rf_err_t rf_run_dir_prepare(rf_daemon_t *daemon, char *error, size_t error_max);

/* Pure halves of the state file: text <-> struct. Parsing refuses what it does not understand (RF_ERR_PROTOCOL). */
rf_err_t rf_state_parse(const char *text, rf_state_t *out);
size_t rf_state_format(const rf_state_t *state, char *out, size_t max);

/* Writes the state of now; failures are logged. */
void rf_run_dir_write_state(rf_daemon_t *daemon);
/* Puts one process into the state that is there, in place of that of its role and core; failures are logged. */
void rf_run_dir_add_state(const char *node_dir, const rf_state_process_t *process);
rf_err_t rf_run_dir_read_state(const char *node_dir, rf_state_t *out);

/* The machine's id, places of the nodes and control group, kept for a restarted rackfishd. RF_ERR_NOT_FOUND: none yet. */
rf_err_t rf_run_dir_write_machine(rf_daemon_t *daemon);
rf_err_t rf_run_dir_read_machine(rf_daemon_t *daemon);

/* Removes everything of this node, and what an emulated machine shares once its last node is gone. */
void rf_run_dir_remove(const char *run_dir, const char *node_name);

#endif
