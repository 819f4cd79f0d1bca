/* What the parts of the preflight share. Private to cluster-config. */
#ifndef RF_CLUSTER_CONFIG_DOCTOR_INTERNAL_H
#define RF_CLUSTER_CONFIG_DOCTOR_INTERNAL_H

#include "cluster-config/doctor.h"

/* One run: what is asked, what was found. Findings beyond RF_DOCTOR_FINDINGS_MAX are dropped. */
typedef struct doctor {
    const rf_doctor_options_t *options;
    rf_doctor_report_t *report;
    const char *check; /* that is running */
    bool root;         /* a machine started by us would be a privileged one */
} doctor_t;

typedef void (*doctor_check_fn)(doctor_t *doctor);

void doctor_good(doctor_t *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For notes and failures: `mend` is a whole sentence or command of its own. */
void doctor_finding(doctor_t *doctor, rf_doctor_severity_t severity, const char *mend, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

/* Runs `attempt` in a forked child, at most five seconds: its exit status (0 to 125), or -1 when it died or hung. */
int doctor_try(int (*attempt)(void));

/* Whether the configuration uses that medium between any two nodes. */
bool doctor_medium_used(const doctor_t *doctor, const char *medium);

/* doctor_host.c: what the host is */
void doctor_check_kernel(doctor_t *doctor);
void doctor_check_cpus(doctor_t *doctor);
void doctor_check_clock(doctor_t *doctor);
void doctor_check_memory(doctor_t *doctor);
void doctor_check_memlock(doctor_t *doctor);
void doctor_check_hugepages(doctor_t *doctor);
void doctor_check_files(doctor_t *doctor);
void doctor_check_processes(doctor_t *doctor);

/* doctor_delays.c: how late it lets processes run */
void doctor_check_delays(doctor_t *doctor);
/* What these say of the timeouts; sorts them. */
void doctor_judge_delays(doctor_t *doctor, uint64_t *late_ns, unsigned n);

/* doctor_rdma.c: its RDMA devices */
void doctor_check_rdma(doctor_t *doctor);
/* What its links over RDMA go by. Of several kinds, or none, that are up and meant: RoCE. */
typedef enum doctor_wire {
    DOCTOR_WIRE_ROCE,
    DOCTOR_WIRE_IWARP,
    DOCTOR_WIRE_INFINIBAND,
} doctor_wire_t;
doctor_wire_t doctor_rdma_wire(const doctor_t *doctor);
/* Whether links over RoCE to who is reached by that interface go by another, since none of its ports that they may use has that one: which. */
bool doctor_roce_elsewhere(const doctor_t *doctor, const char *netdev, char *out, size_t max);
/* Bytes, without Ethernet's, of the largest packet of a link over RoCE between these two where packets of `mtu` bytes pass. */
unsigned doctor_roce_packet(const rf_config_t *config, rf_node_t a, rf_node_t b, unsigned mtu);

/* doctor_mtu.c: whether other hosts get the largest packets that it sends them over RDMA */
void doctor_check_mtu(doctor_t *doctor);

/* doctor_dpdk.c: its port for DPDK */
void doctor_check_dpdk(doctor_t *doctor);

/* doctor_rights.c: what we may do on it */
uint64_t doctor_capabilities(void); /* ours, a bit each; 0 where the kernel does not tell */
void doctor_check_user(doctor_t *doctor);
void doctor_check_capabilities(doctor_t *doctor);
void doctor_check_isolation(doctor_t *doctor);
void doctor_check_cgroup(doctor_t *doctor);
void doctor_check_realtime(doctor_t *doctor);
void doctor_check_programs(doctor_t *doctor);
void doctor_check_run_dir(doctor_t *doctor);

/* doctor_config.c: whether the configuration fits it */
/* Bytes that the one process of that node locks for certain which has most links over RDMA: a leader, to whom all cores propose. Rings
 * that grow are not among them, which stay small where no more may be locked. 0: no link, or the node is not known. */
uint64_t doctor_rdma_locked(const rf_config_t *config, rf_node_t here, bool iwarp);
/* Whether a monitor has room for all the links over RDMA that it may come to have. */
void doctor_check_links(doctor_t *doctor);
void doctor_check_node(doctor_t *doctor);
void doctor_check_key(doctor_t *doctor);
void doctor_check_ports(doctor_t *doctor);
void doctor_check_hosts(doctor_t *doctor);
void doctor_check_transports(doctor_t *doctor);
void doctor_check_voters(doctor_t *doctor);
void doctor_check_plan(doctor_t *doctor);
void doctor_check_lanes(doctor_t *doctor);
void doctor_check_leases(doctor_t *doctor);

#endif
