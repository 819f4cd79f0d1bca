/*
 * The boot block: what a CPU driver and its monitor are told about the machine, in one sealed memory object made by
 * rackfishd. Inherited as descriptor RF_BOOT_FD by the CPU driver, and passed on to the monitor the same way.
 *
 *   rackfishd  --exec-->  rf-cpudriver CORE INCARNATION  --exec-->  rf-monitor CORE INCARNATION
 *              boot block, RF_BOOT_FD                    boot block, RF_BOOT_FD; kernel link, RF_DISPATCHER_FD; lease, RF_LEASE_FD
 *
 * One block serves every life of a node's cores: which life a process is of is an argument. Incarnation 1 takes part in
 * forming the machine; a later one was assigned by the machine and joins it.
 *
 * Inside a host, monitors listen on <run_dir>/monitor-<core>.sock (shm) for peers and for rackfishd; a monitor is
 * found by that path alone. Monitors of other hosts are found by RF_CLIENT_NODE_ADDRESSES.
 */
#ifndef RF_WIRE_BOOT_H
#define RF_WIRE_BOOT_H

#include "wire/wire.h"

#define RF_BOOT_MAGIC 0x31425052u /* "RPB1" */
#define RF_BOOT_FD    201

/* How a CPU driver ended, by its exit status. */
enum {
    RF_CPUDRIVER_EXIT_OK = 0,     /* told to (TERM), or its monitor ended in order, with status 0 */
    RF_CPUDRIVER_EXIT_FAILED = 1, /* could not start, or lost its means; the log says why */
    RF_CPUDRIVER_EXIT_USAGE = 2,
    RF_CPUDRIVER_EXIT_EXPELLED =
        4, /* its monitor ended because the machine had gone on without it; else as MONITOR */
    RF_CPUDRIVER_EXIT_MONITOR = 3, /* its monitor died; every dispatcher of the core is dead and reaped */
};

#define RF_MONITOR_EXIT_EXPELLED 3 /* of rf-monitor, see there */

enum { RF_SCHED_AUTO = 0, RF_SCHED_CGROUP = 1, RF_SCHED_SIGNALS = 2 };

typedef struct rf_boot_node {
    char name[RF_NAME_MAX];
    char address[64]; /* numeric, what other nodes use */
    rf_core_t first_core, n_cores;
    uint32_t reserved;
} rf_boot_node_t;

typedef struct rf_boot_core {
    uint32_t numa;       /* UINT32_MAX: unknown */
    uint16_t cpu;        /* host CPU; of other nodes: as configured, informative */
    uint16_t cpu_shared; /* other cores share this CPU */
} rf_boot_core_t;

typedef struct rf_boot {
    uint32_t magic, size;
    rf_machine_id_t machine;
    char machine_name[RF_NAME_MAX];
    rf_node_t node, n_nodes;
    rf_core_t n_cores;
    uint16_t sched;      /* RF_SCHED_* wanted */
    uint16_t privileged; /* started as root: users differ */
    uint16_t allow_root;
    uint16_t encrypt;   /* TCP links */
    uint16_t one_sided; /* leaders of the agreement write into voters' lanes, where the medium allows it */
    uint32_t system_uid, system_gid; /* whom CPU driver and monitor run as */
    uint32_t owner_uid;              /* who did `up` */
    uint32_t heartbeat_ms;           /* between hosts; 100 usual */
    uint32_t host_deadline_ms;       /* silence after which a host is reported dead; 1000 usual */
    uint32_t election_ms;            /* silence of the leader after which a voter stands; 500 usual */
    uint32_t
        lease_ms; /* a leader's lease (not a core's, wire/lease.h): it answers reads alone for so long, less `lease_drift`; the same at all members; 0: never */
    uint32_t lease_drift; /* percent by which the rates of hosts' clocks may differ */
    uint32_t log_level;
    uint16_t voters_max; /* at most so many vote */
    uint16_t small;      /* 1: monitors have small tables, for many in one process; the same at all members */
    uint16_t weights[3]; /* of `plan`, where it is "weighted": agreement_weights_t */
    char plan[16];       /* who passes on what is agreed, by agreement_plan_name(); "": "host" */
    uint64_t memory_bytes_per_core; /* 0: no limit */
    uint8_t
        link_key[32]; /* pre-shared key of the machine's TCP links, derived from cluster key and machine id */
    char medium[RF_NODES_MAX][16];  /* medium towards each other node, "tcp" */
    char rdma[RF_RDMA_OPTIONS_MAX]; /* options of this node's RDMA endpoints; "": all is chosen */
    char
        dpdk[RF_DPDK_OPTIONS_MAX]; /* of its DPDK endpoints: where its link driver listens; "": it has none */
    char run_dir[256];             /* this node's: sockets, logs; 0700 */
    char libexec_dir[256];         /* rf-cpudriver, rf-monitor */
    char module_dir[256];          /* loadable transports */
    char cgroup
        [256]; /* "" or a folder below /sys/fs/cgroup whose cpu controller is this machine's to use and that
                                   the system user may write; best one folder for all nodes of a machine on one host,
                                   so that emulated cores share CPUs equally. v2: holds no process, has +cpu below.
                                   CPU drivers make and remove core-N in it */
    rf_boot_node_t nodes[RF_NODES_MAX];
    rf_boot_core_t cores[RF_CORES_MAX];
    rf_node_t node_of[RF_CORES_MAX]; /* where each core is: as the agreement wants it, which reads it here */
    uint32_t package_of[RF_CORES_MAX]; /* UINT32_MAX: unknown */
    uint8_t no_vote[RF_CORES_MAX];     /* 1: this core is none of the configured voters */
    uint8_t witness[RF_CORES_MAX];     /* 1: on a host that only votes: preferred last as leader */
} rf_boot_t;

/* Maps and checks a boot block; read-only, for the life of the process. RF_ERR_PROTOCOL if it is none. */
rf_err_t rf_boot_map(int fd, const rf_boot_t **out);

/* Makes a sealed, read-only-passed object of a block. */
rf_err_t rf_boot_publish(const rf_boot_t *boot, int *fd_out);

#endif
