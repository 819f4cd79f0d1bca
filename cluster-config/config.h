/*
 * The machine's configuration: one YAML file for all hosts, read against the schema in config.proto, checked
 * as a whole before anything starts. Every error is one line "FILE:LINE: cause; mend".
 *
 *   machine: rack            # name
 *   key_file: rack.key       # 32 to 64 random bytes, hex or raw, 0600; relative to this file
 *   encrypt: on              # TCP links
 *   allow_root: off
 *   users: [alice, "@hpc"]   # who may use the machine besides its owner and root; @ names a group
 *   heartbeat_ms: 100
 *   host_deadline_ms: 1000
 *   election_ms: 500
 *   voters: 5                # at most so many cores vote, or a list of them such as "0,4,8"; default 7, spread over hosts
 *   one_sided: off           # leaders write into voters' logs where the medium between them allows it (rdma)
 *   plan: host               # who passes on what is agreed: host, broadcast, unicast, package, weighted
 *   weights: {package: 4, host: 8, between: 8}   # of plan: weighted
 *   leases: off              # leaders answer reads alone for half of election_ms; unsafe where a host's clock may stand still
 *   lease_drift: 20          # percent by which hosts' clocks may differ in rate: taken off a lease
 *   log_level: info          # error, warn, info, debug; reloadable
 *   emulated: off            # every node is on this host; cores may share CPUs
 *   scheduler: auto          # auto, cgroup, signals
 *   defaults: {cores: all, memory: 4G, port: 7117}
 *   nodes:
 *     - hosts: rack[01-16]           # hostlist: one node each
 *       address: 10.0.0.[1-16]       # optional, as many as hosts; default: the name is resolved
 *       cores: 0-7,16-23             # host CPUs: all, a count such as 8, or a list; may repeat one when emulated
 *       memory: 64G                  # a core's share is memory / cores; optional
 *       port: 7117                   # of the bootstrap
 *       witness: off                 # on: its cores vote, and programs go there only by --core or --node
 *       rdma: {device: mlx5_0, port: 1, gid_index: 3, traffic_class: 106, service_level: 3, mtu: 4096, pkey_index: 0,
 *              mode: auto}           # of this host's RDMA links; what is not said is chosen
 *       dpdk: {interface: eth1, driver: af_packet, address: 10.1.0.7/24, gateway: 10.1.0.1, udp_port: 7118, mtu: 9000,
 *              memory: 64M, hugepages: off, cpu: 3, encrypt: off, queues: 4}   # of this host's DPDK port and its driver;
 *                                                    # or device: "0000:03:00.0", or as the EAL's --vdev has it;
 *                                                    # or ports: [{interface: eth1, address: ...}, ...], several
 *   transports:                      # between pairs of nodes; first match wins; default tcp
 *     - {between: [rack[01-08], rack[09-16]], use: tcp}
 */
#ifndef RF_CLUSTER_CONFIG_CONFIG_H
#define RF_CLUSTER_CONFIG_CONFIG_H

#include "base/error.h"
#include "base/types.h"

#include <stdio.h>

#define RF_CONFIG_USERS_MAX  64
#define RF_CONFIG_KEY_MIN    32
#define RF_CONFIG_KEY_MAX    64
#define RF_CONFIG_ERROR_MAX  640
#define RF_CONFIG_VOTERS_MAX 7
#define RF_CONFIG_WEIGHT_MAX 64 /* AGREEMENT_WEIGHT_MAX of consensus/agreement.h */
#define RF_DPDK_DEVICE_MAX   160
#define RF_DPDK_MEMORY_MIB   64 /* of a port whose configuration says nothing: the driver's default */

/* How `cores:` was written. */
enum { RF_CONFIG_CORES_ALL = 0, RF_CONFIG_CORES_COUNT = 1, RF_CONFIG_CORES_LIST = 2 };

/* A DPDK port of a node, and the program that drives it. Texts are "" and numbers 0 where the driver is to choose. */
typedef struct rf_config_dpdk {
    char device[RF_DPDK_DEVICE_MAX]; /* as the EAL takes it: "net_af_packet0,iface=eth1", "0000:03:00.0" */
    char interface[16];              /* of the host's, that the port lies on; "": none */
    char address[32], gateway[32];   /* IPv4, the first with its prefix: "10.1.0.7/24" */
    uint16_t udp_port, mtu;
    uint32_t memory_mib;
    int cpu;         /* -1: any */
    uint32_t queues; /* at most so many */
    bool hugepages, encrypt;
} rf_config_dpdk_t;

typedef struct rf_config_node {
    char name[RF_NAME_MAX];
    char address[64]; /* as configured, or the name; resolved to numeric by the node */
    uint16_t port;    /* 0: ephemeral, only when a listening descriptor is handed over (emulation) */
    rf_core_t first_core;
    rf_core_t n_cores; /* 0 until resolved, when `cores: all` names a host that is not this one */
    uint16_t
        cpus[RF_CORES_PER_NODE_MAX]; /* of another host with a count: 0, 1, ..., as good a guess as any */
    uint16_t cores_form;             /* RF_CONFIG_CORES_* */
    uint64_t memory_bytes;           /* 0: no limit */
    bool witness;                    /* only votes: programs go there only where asked to */
    char rdma
        [RF_RDMA_OPTIONS_MAX]; /* "device=mlx5_0,mtu=4096", as transport/rdma takes it; "": all is chosen */
    char rdma_device[RF_NAME_MAX]; /* "": any */
    unsigned n_dpdk;               /* 0: no port */
    rf_config_dpdk_t dpdk[RF_DPDK_PORTS_MAX];
    int line; /* where it stands in the file */
    int cores_line, port_line, witness_line, rdma_line,
        dpdk_line; /* where its cores, port, witness, rdma and dpdk do; those of `defaults` or of the node when not given */
} rf_config_node_t;

typedef struct rf_config {
    char machine[RF_NAME_MAX];
    char path[4096]; /* the file, absolute */
    char key_path[4096];
    uint8_t key[RF_CONFIG_KEY_MAX];
    size_t key_size;
    bool encrypt, allow_root, emulated, one_sided;
    uint32_t heartbeat_ms, host_deadline_ms, election_ms;
    uint32_t lease_ms;    /* for so long, less its drift, a leader answers reads alone; 0: leases are off */
    uint32_t lease_drift; /* percent by which the rates of hosts' clocks may differ; 0: leases are off */
    int leases_line;      /* of the file, for who speaks of them; 0: not written */
    unsigned voters_max;  /* at most so many cores vote */
    unsigned n_voters;    /* listed ones; 0: chosen */
    rf_core_t voters[RF_CONFIG_VOTERS_MAX];
    char plan[16];                                /* "host", "broadcast", "unicast", "package", "weighted" */
    uint16_t weights[3];                          /* of "weighted": package, host, between; else 0 */
    char warning[RF_CONFIG_ERROR_MAX];            /* "LINE: what works and is hardly meant"; "": nothing */
    uint32_t log_level;                           /* rf_log_level_t */
    uint32_t sched;                               /* 0 auto, 1 cgroup, 2 signals: RF_SCHED_* of wire/boot.h */
    char users[RF_CONFIG_USERS_MAX][RF_NAME_MAX]; /* "@name": a group */
    unsigned n_users;
    rf_node_t n_nodes;
    rf_core_t n_cores;
    rf_config_node_t nodes[RF_NODES_MAX];
    char medium[RF_NODES_MAX][RF_NODES_MAX][16];
} rf_config_t;

/* Reads and checks. On failure returns RF_ERR_CONFIG with one line in `error` (RF_CONFIG_ERROR_MAX bytes),
 * *out unchanged. The node of this host, if it can be told by name or address, has its CPUs checked against
 * those this process may use; a node that is chosen in another way (rackfishd --node) is checked by
 * rf_config_resolve_local(). Not thread-safe (user lookups); at start. The caller frees *out with free(). It
 * holds the key: explicit_bzero first. */
rf_err_t rf_config_load(const char *path, rf_config_t **out, char *error);

/* The configuration of an emulated machine on this host, as YAML text: `nodes` hosts node0.. with `cores`
 * cores each, the CPUs this process may use dealt round robin over all cores. ports[i] is node i's bootstrap
 * port. What `rackfish up
 * --nodes N --cores M` writes into the run directory; read back by rf_config_load, so that there is one code
 * path. */
typedef struct rf_config_emulation {
    const char *machine;
    unsigned nodes, cores;
    const uint16_t *ports;
    const char *key_file;
    const char *transport; /* "tcp", "rdma" */
    const char *plan;      /* NULL: by default */
    bool encrypt, allow_root, one_sided, leases;
    const char *const *users;
    unsigned n_users;
} rf_config_emulation_t;
rf_err_t rf_config_write_emulated(const rf_config_emulation_t *emulation, FILE *out, char *error);

/* Which settings differ in a way that needs a restart: writes their names, comma-separated, into `names`; ""
 * if none. */
void rf_config_not_reloadable(const rf_config_t *running, const rf_config_t *fresh, char *names, size_t max);

/* Takes `node` to be this host: `cores: all` and counts become CPUs that this process may use, and listed
 * CPUs must be among them (RF_ERR_CONFIG and one line in `error`, config unchanged). Core numbers of all
 * nodes are counted again. */
rf_err_t rf_config_resolve_local(rf_config_t *config, rf_node_t node, char *error);

/* Tells how many cores another host with `cores: all` turned out to have (from its hello), and counts all
 * core numbers again. RF_ERR_LIMIT above the named maxima, RF_ERR_INVALID when the node has another number
 * already. */
rf_err_t rf_config_resolve_remote(rf_config_t *config, rf_node_t node, rf_core_t n_cores);

/* All that is said of a port, as one line in a form of its own: equal when, and only when, the settings are. */
void rf_config_dpdk_text(const rf_config_dpdk_t *dpdk, char *out, size_t max);

/* "FILE:LINE" of where a node's port is configured, for whoever finds it in use. */
void rf_config_port_place(const rf_config_t *config, rf_node_t node, char *place, size_t max);

/* A hash (SHA-256) of all that must be equal on every host: everything but what is reloadable (log level,
 * users) and this host's paths and CPUs. */
void rf_config_digest(const rf_config_t *config, uint8_t digest[32]);

/* The node of this host: by wanted name (NULL: none), hostname, or address of a local interface; RF_NODE_NONE
 * if it is not in the file. */
rf_node_t rf_config_this_node(const rf_config_t *config, const char *wanted_name);

#endif
