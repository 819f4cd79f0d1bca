/*
 * Where machines of this host live: their run directories.
 *
 *   base               /run/rackfish for root, else $XDG_RUNTIME_DIR/rackfish, else /tmp/rackfish-UID
 *   base/NAME/         one machine; NODE.sock is a node's control socket, NODE/ its private folder
 *
 * Commands that look for a machine try the own base and then /run/rackfish, so that users reach a privileged
 * installation.
 */
#ifndef RF_CLI_MACHINE_H
#define RF_CLI_MACHINE_H

#include "cli/cli.h"

#define MACHINE_NODES_MAX RF_NODES_MAX

typedef struct machine_dir {
    char path[CLI_PATH_MAX / 2]; /* base/NAME */
    unsigned n_nodes;
    char nodes[MACHINE_NODES_MAX][RF_NAME_MAX]; /* that have a folder or a socket here, sorted */
} machine_dir_t;

/* The base that `up` creates machines in; false when its path is too long. */
bool machine_base(char *path, size_t max);

/* Creates the base, or checks that an existing one is safe to use (ours, not writable by others). Prints its error. */
bool machine_base_prepare(const cli_t *cli, char *path, size_t max);

/* A name that is safe as a folder's and in output: letters, digits, '-', '_' and '.', not first, below RF_NAME_MAX. */
bool machine_name_valid(const char *name);

/* Finds the run directory of cli->machine and lists its nodes. False when there is none. */
bool machine_find(const cli_t *cli, machine_dir_t *out);

/* Lists the nodes of the run directory out->path. */
void machine_list_nodes(machine_dir_t *out);

/* Calls `visit` for each machine's name in both bases, sorted within a base; returns how many. */
unsigned machine_each(void (*visit)(const char *name, void *context), void *context);

/* Locks a machine's run directory against another `up` or `down`, waiting at most `timeout_ms`; -1 when it is taken. The
 * lock goes with the descriptor. */
int machine_lock(const char *path, int timeout_ms);

#endif
