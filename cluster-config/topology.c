/* By hwloc, with I/O devices left out (they cost 100 ms and nothing here asks for them). */
#include "cluster-config/topology.h"

#include "base/os.h"

#include <hwloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint32_t ancestor_index(hwloc_topology_t topology, hwloc_obj_t pu, hwloc_obj_type_t type)
{
    hwloc_obj_t above = hwloc_get_ancestor_obj_by_type(topology, type, pu);
    return above ? above->logical_index : UINT32_MAX;
}

static uint32_t numa_index(hwloc_topology_t topology, hwloc_obj_t pu)
{
    hwloc_obj_t node = NULL;
    while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL) {
        if (hwloc_bitmap_isset(node->cpuset, pu->os_index)) return node->os_index;
    }
    return UINT32_MAX;
}

static void model_copy(hwloc_topology_t topology, rf_topology_t *out)
{
    hwloc_obj_t package = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PACKAGE, NULL);
    const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!model) model = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), "CPUModel");
    snprintf(out->cpu_model, sizeof out->cpu_model, "%s", model ? model : "unknown");
}

rf_err_t rf_topology_discover(rf_topology_t *out)
{
    unsigned allowed[RF_CORES_PER_NODE_MAX];
    unsigned n_allowed = rf_cpu_allowed(allowed, RF_CORES_PER_NODE_MAX);
    hwloc_topology_t topology;
    if (n_allowed == 0 || hwloc_topology_init(&topology) < 0) return RF_ERR_OS;
    if (hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE) < 0 ||
        hwloc_topology_load(topology) < 0) {
        hwloc_topology_destroy(topology);
        return RF_ERR_OS;
    }
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < n_allowed; i++) {
        rf_topology_cpu_t *cpu = &out->cpus[out->n_cpus++];
        *cpu = (rf_topology_cpu_t){.cpu = (uint16_t)allowed[i],
                                   .package = UINT32_MAX,
                                   .numa = UINT32_MAX,
                                   .l3 = UINT32_MAX,
                                   .core = UINT32_MAX};
        hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(topology, allowed[i]);
        if (!pu) continue;
        cpu->package = ancestor_index(topology, pu, HWLOC_OBJ_PACKAGE);
        cpu->l3 = ancestor_index(topology, pu, HWLOC_OBJ_L3CACHE);
        cpu->core = ancestor_index(topology, pu, HWLOC_OBJ_CORE);
        cpu->numa = numa_index(topology, pu);
    }
    /* Of the kernel, as `free` has it: what hwloc adds up from the NUMA nodes lags behind where a virtual machine's memory
     * grows and shrinks. */
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    out->memory_bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes
                                                    : hwloc_get_root_obj(topology)->total_memory;
    model_copy(topology, out);
    hwloc_topology_destroy(topology);
    return RF_OK;
}
