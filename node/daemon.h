/*
 * rackfishd: one process a node. It boots the node's cores, supervises them, serves the control socket, pumps the streams
 * of programs, and meets the other nodes' rackfishds. It holds nothing that the machine could lose: everything here can be
 * found again from the run directory, the monitors and the peers, and its death stops no core.
 *
 *   main.c         arguments, the table of start-up steps, the main loop
 *   run_dir.c      folders, lock, state file, machine id            privileges.c   becoming the system user
 *   cgroup.c       the node's control groups                        boot.c         from "nothing" to "ready"
 *   cores.c        CPU drivers: start, adopt, supervise             monitors.c     client links to the monitors
 *   answers.c      whether a process still comes round to its socket
 *   link_driver.c  the processes that drive the DPDK ports    spawn.c        starting processes
 *   evidence.c     which monitors of another node are dead, by what its rackfishd says
 *   rejoin.c       cores that come back as new incarnations         control_members.c   core on|off, node remove
 *   form.c         who draws the machine's id, and starts first incarnations
 *   bootstrap.c peers.c peer_hello.c remote.c   the other nodes      tls.c conn.c   their connections
 *   control_*.c    the control socket and its questions             run_*.c ship.c programs
 *   logs.c dump.c reload.c down.c                                   what their names say
 *
 * One thread, one event loop; every module hangs its sources and timers into it and never blocks. (Looking up users may,
 * for as long as the host's name service takes.)
 */
#ifndef RF_NODE_DAEMON_H
#define RF_NODE_DAEMON_H

#include "base/error.h"
#include "base/types.h"
#include "cluster-config/config.h"
#include "cluster-config/topology.h"
#include "node/answers.h"
#include "node/loop.h"
#include "transport/transport.h"
#include "wire/boot.h"
#include "wire/client.h"

#include <sys/types.h>

#define RF_PATH_MAX      256
#define RF_RUN_DIR_MAX   90 /* so that sockets in it have room: 107 bytes are allowed */
#define RF_SOFTWARE      "rackfishd " RF_PROJECT_VERSION
#define RF_USER_MAX      32
#define RF_CONTROL_MAJOR 1
#define RF_CONTROL_MINOR 0
#define RF_ONCE_WINDOW                                                                                       \
    64 /* changes of a session of the log that may be outstanding (consensus/agreement.h) */
#define RF_ANSWER_NS (2 * RF_NS_PER_S) /* for a monitor to answer; another node gets twice that */

typedef struct rf_daemon rf_daemon_t;
typedef struct rf_peers rf_peers_t;
typedef struct rf_bootstrap rf_bootstrap_t;
typedef struct rf_control rf_control_t;
typedef struct rf_logs rf_logs_t;
typedef struct rf_monitor_call rf_monitor_call_t;
struct rf_run;

typedef struct rf_options {
    const char *config_path;
    const char *node_name;
    const char *run_dir; /* NULL: by the rules of run_dir.c */
    bool form;           /* this node draws the machine's id, if a majority knows none */
    bool log_stderr;
    int listen_fd; /* -1: listens by itself */
    int ready_fd;  /* -1: nobody asks */
} rf_options_t;

typedef enum rf_core_life { RF_LIFE_NONE, RF_LIFE_STARTING, RF_LIFE_UP, RF_LIFE_DOWN } rf_core_life_t;

/* One core of this node. */
typedef struct rf_local_core {
    rf_daemon_t *daemon;
    rf_core_t core; /* machine-wide */
    rf_core_life_t life;
    rf_incarnation_t incarnation; /* which life of it; 0: not known (adopted) */
    bool off;                     /* turned off: it does not come back by itself */
    unsigned leaving;             /* so often its monitor was asked to leave, and has not answered */
    bool expelled;                /* ended because the machine had gone on without it */
    struct rf_rejoin *rejoin;     /* rejoin.c */
    bool child;                   /* started by this process, so that its exit status is ours to fetch */
    /* cores.c */
    pid_t pid;
    uint64_t start_time;
    int pidfd;
    rf_source_t source;
    rf_timer_t stopped; /* its CPU driver was seen stopped: looked at again then */
    /* monitors.c */
    rf_link_t *link;
    bool link_up;
    rf_link_t *link_gone; /* of a monitor that has died: closed a little later */
    rf_timer_t close_gone;
    pid_t monitor_pid;
    int monitor_pidfd; /* -1: not watched */
    rf_source_t monitor_source;
    rf_incarnation_t monitor_incarnation; /* as it says in its hello */
    uint64_t monitor_start_time;
    bool looked;           /* evidence.c: nothing of it ran here but what this life has started or adopted */
    bool unsure;           /* the end of a monitor of it was not seen: nothing is said of it any more */
    rf_incarnation_t dead; /* the last one whose end was seen */
    struct rf_assembler *assembler;
    rf_monitor_call_t *calls;
    rf_timer_t retry;
    rf_timer_t tell_again;                      /* peers.c: it did not take what it was told of deaths */
    char listen_address[RF_CLIENT_ADDRESS_MAX]; /* for monitors of other hosts; "" not known yet */
} rf_local_core_t;

/* A process that drives one of this node's DPDK ports (link_driver.c). */
typedef struct rf_link_driver {
    struct rf_daemon *daemon;
    unsigned port; /* which: as in rf_config_node_t.dpdk */
    pid_t pid;     /* 0: none runs */
    uint64_t start_time, started_ns, pause_ns;
    int pidfd;
    bool child;
    rf_source_t source;
    rf_timer_t again; /* it is started again then */
    rf_timer_t look;  /* whether it still answers, while it runs */
    rf_answers_t answers;
    unsigned asks; /* since the last look, for which there was no room */
} rf_link_driver_t;

/* What this node knows of each node's place in the machine. */
typedef struct rf_place {
    rf_core_t first_core, n_cores; /* n_cores 0: not told yet (cores: all) */
    char address[64];              /* numeric */
} rf_place_t;

/* form.c: who may start first incarnations. */
typedef struct rf_form_node {
    bool takes_part;   /* in a machine, it has said on its connection */
    bool admitted;     /* this node, which drew the id, has told a life of it FIRST: */
    uint8_t first[16]; /* this one */
    bool again;        /* another one has come since */
} rf_form_node_t;

typedef struct rf_form {
    bool drew;  /* the id is of this life */
    bool first; /* told so, by this life of that node: */
    rf_node_t former;
    uint8_t former_instance[16];
    bool former_lost; /* that node has been started anew */
    bool came_again;  /* the forming node knows an earlier life of this one */
    rf_form_node_t nodes[RF_NODES_MAX];
} rf_form_t;

struct rf_daemon {
    rf_options_t options;
    rf_config_t *config;
    uint8_t config_digest[32];
    rf_topology_t topology;
    rf_node_t node;
    rf_place_t places[RF_NODES_MAX];
    rf_core_t machine_cores; /* 0 until every place is known */

    bool privileged;
    uid_t system_uid, owner_uid;
    gid_t system_gid;
    char owner[RF_USER_MAX];

    char run_dir[RF_RUN_DIR_MAX];  /* base/MACHINE */
    char node_dir[RF_RUN_DIR_MAX]; /* base/MACHINE/NODE */
    char cgroup[RF_PATH_MAX];      /* "" : none */
    char libexec_dir[RF_PATH_MAX];
    char module_dir[RF_PATH_MAX];
    int lock_fd;
    int ready_fd;
    int boot_fd; /* the boot block, for cores that are started again; -1: not made yet */

    bool machine_known; /* its id: this node takes part in it */
    bool join_only;     /* the machine was formed before this node came: its cores join */
    rf_form_t form;
    bool adopted;    /* an earlier rackfishd booted this node */
    bool left_as_is; /* ends without touching its cores and files: they are not its to end */
    rf_machine_id_t machine;
    uint64_t started_ns;
    rf_err_t join_err; /* why no core of this node could join; RF_OK: one could, or nobody has answered */

    rf_loop_t loop;
    const rf_transport_t *shm;
    rf_endpoint_t *endpoint;
    rf_source_t endpoint_source, signal_source;
    rf_timer_t endpoint_timer, boot_timer, down_timer;
    int signal_fd;

    rf_link_driver_t link_drivers[RF_DPDK_PORTS_MAX];
    unsigned n_cores;
    rf_local_core_t cores[RF_CORES_PER_NODE_MAX];
    bool lease_kept;         /* of cores that run: their lease is not the one of the file */
    unsigned next_core;      /* where the next program without a wish goes */
    uint64_t expelled_alive; /* cores of this node that the machine went on without while they ran */
    unsigned next_node;      /* ... of a witness, which sends it to another node */
    int events_core;         /* index of the monitor subscribed to; -1 none */

    uint8_t instance[16]; /* random, of this life of rackfishd */
    rf_bootstrap_t *bootstrap;
    rf_peers_t *peers;
    rf_control_t *control;
    rf_logs_t *logs;
    struct rf_run *runs;
    struct rf_rejoin_way *rejoin_ways; /* rejoin.c */
    struct { /* the session of the log that changes for command lines are made in: control_registry.c */
        uint64_t id, sequence;                /* 0: none is open; last used */
        uint64_t outstanding[RF_ONCE_WINDOW]; /* sequences by their remainder; 0: none */
    } once;

    enum { RF_PHASE_BOOTING, RF_PHASE_READY, RF_PHASE_DOWN, RF_PHASE_GONE } phase;
    int exit_status;
};

/* The local core with this machine-wide number; NULL when it is not of this node. */
rf_local_core_t *rf_daemon_core(rf_daemon_t *daemon, int core);

/* The node that a core belongs to; RF_NODE_NONE when there is no such core. */
rf_node_t rf_daemon_node_of_core(const rf_daemon_t *daemon, int core);

#endif
