/*
 * Booting a machine.
 *
 *   up.c            what to do about a machine that is there already; progress and report
 *   up_options.c    its options
 *   up_emulated.c   writes the configuration of an emulated machine, hands over its listening sockets
 *   launch.c        the other hosts, by ssh or srun
 */
#ifndef RF_CLI_UP_H
#define RF_CLI_UP_H

#include "cli/machine.h"
#include "cli/starter.h"
#include "cluster-config/config.h"

#define UP_LINE_FD 3  /* descriptor that rackfishd writes its lines to */
#define UP_HIGH_FD 64 /* descriptors handed over lie at or above */

typedef enum launch { LAUNCH_NONE, LAUNCH_SSH, LAUNCH_SRUN } launch_t;

typedef struct up_options {
    const char *config, *node, *transport, *remote_path;
    launch_t launch;
    unsigned nodes, cores;
    bool shape_given; /* --nodes or --cores */
    const char *plan; /* NULL: as where a configuration does not say */
    bool encrypt, allow_root, one_sided, leases;
    bool transport_given, encrypt_given, one_sided_given, leases_given;
    bool from_stdin, relay, stay; /* at the far end of a launcher */
    const char *users[RF_CONFIG_USERS_MAX];
    unsigned n_users;
    uint64_t timeout_ms;
} up_options_t;

typedef struct up {
    cli_t *cli;
    up_options_t options;
    machine_dir_t dir;
    int lock;
    rf_config_t *config;
    char config_path[CLI_PATH_MAX];
    int listen_fds[RF_NODES_MAX]; /* emulated; -1 */
    starter_t starters[RF_NODES_MAX];
    size_t n_starters;
    bool fresh; /* a new machine, torn down when its boot fails */
    uint64_t started_ns;
} up_t;

/* Takes option `c` with its argument in optarg; checks all of them together. An exit status, with the message printed. */
int up_parse_option(const cli_t *cli, up_options_t *o, int c);
int up_check_options(const cli_t *cli, const up_options_t *o);

/* Writes key and configuration of an emulated machine into the run directory, and binds its sockets. */
int up_write_emulated(up_t *up);

/* Takes configuration and key from stdin into the run directory (the far end of a launcher). */
int up_read_stdin(up_t *up);

/* Starts rackfishd of one node of the configuration on this host. */
int up_start_node(up_t *up, rf_node_t node, bool form);

/* `node add`: starts a node of a running machine that is not up, on this host; its cores join. `config` NULL: the one of an
 * emulated machine. Returns an exit status. */
int up_add_node(cli_t *cli, const char *node, const char *config);

/* Starts the other hosts' rackfishds through the launcher. */
int up_launch_others(up_t *up, rf_node_t this_node);

/* doctor.c: what keeps this host from having the links that the configuration wants, told on stderr with what mends it.
 * `node`: which of its nodes this host is; RF_NODE_NONE: all. Returns an exit status. */
int cli_doctor_media(const cli_t *cli, const rf_config_t *config, rf_node_t node);

/* A program that comes with this one: beside it, or in ../libexec/rackfish; false with its message printed. */
bool up_find_program(const cli_t *cli, const char *name, char *path, size_t max);

#endif
