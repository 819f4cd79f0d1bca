/* What this host has, by hwloc: CPUs in the allowed set with package, NUMA node and cache; memory; model. */
#ifndef RF_CLUSTER_CONFIG_TOPOLOGY_H
#define RF_CLUSTER_CONFIG_TOPOLOGY_H

#include "base/error.h"
#include "base/types.h"

typedef struct rf_topology_cpu {
    uint16_t cpu;
    uint32_t package, numa, l3, core; /* UINT32_MAX: unknown; core: hardware threads of one core share it */
} rf_topology_cpu_t;

typedef struct rf_topology {
    unsigned n_cpus;
    rf_topology_cpu_t cpus[RF_CORES_PER_NODE_MAX];
    uint64_t memory_bytes;
    char cpu_model[128];
} rf_topology_t;

/* Discovers; takes some 20 ms. At start, one thread. */
rf_err_t rf_topology_discover(rf_topology_t *out);

#endif
