/*
 * Identities of the machine (doc/protocol.md, "Identities"). Installed as <rackfish/types.h>.
 *
 *   machine      128 random bits drawn when the machine is formed; in every hello
 *   node         index of a host in the configuration, 0-based
 *   core         machine-wide index of a core: node 0's cores first, then node 1's, ...
 *   incarnation  one life of a core's monitor, numbered by agreement, from 1; a restarted one is a new one
 *   domain       a program with its own protection, numbered by agreement, from 1, never reused
 *   dispatcher   (domain, index): the part of a domain on one core; index 0 is where it was spawned
 */
#ifndef RF_BASE_TYPES_H
#define RF_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint16_t rf_node_t;
typedef uint16_t rf_core_t;
typedef uint32_t rf_incarnation_t;
typedef uint64_t rf_domain_t;

#define RF_NODE_NONE   ((rf_node_t)UINT16_MAX)
#define RF_CORE_NONE   ((rf_core_t)UINT16_MAX)
#define RF_DOMAIN_NONE ((rf_domain_t)0)

/* Who runs a privileged installation; its domains run as those who asked for them. */
#define RF_SYSTEM_USER "rackfish"

/* Named maxima of one machine. The simulator's machines may be larger: sim/CMakeLists.txt. */
#ifndef RF_CORES_MAX
#define RF_NODES_MAX 64
#define RF_CORES_MAX 1024
#endif
#define RF_CORES_PER_NODE_MAX         256
#define RF_NAME_MAX                   64  /* bytes of a name with its final zero: channels, nodes, machines */
#define RF_RDMA_OPTIONS_MAX           192 /* bytes of an RDMA endpoint's options: transport/rdma/rdma.h */
#define RF_DPDK_PORTS_MAX             8   /* of a node, each with a link driver of its own */
#define RF_DPDK_QUEUES_MAX            16u /* of a port, for receiving */
#define RF_DPDK_OPTIONS_MAX           1280 /* bytes of a DPDK endpoint's options: transport/dpdk/dpdk.h */
#define RF_DISPATCHERS_PER_DOMAIN_MAX 64

typedef struct rf_machine_id {
    uint8_t bytes[16];
} rf_machine_id_t;

typedef struct rf_dispatcher_id {
    rf_domain_t domain;
    uint16_t index;
} rf_dispatcher_id_t;

#endif
