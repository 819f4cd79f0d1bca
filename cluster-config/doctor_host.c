/* Kernel, CPUs, clock, memory and limits. */
#include "cluster-config/doctor_internal.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#define KERNEL_MAJOR_MIN 5
#define KERNEL_MINOR_MIN 10 /* pidfds that can be waited for, close_range, clone3 */

bool doctor_medium_used(const doctor_t *doctor, const char *medium)
{
    const rf_config_t *config = doctor->options->config;
    for (unsigned i = 0; config && i < config->n_nodes; i++) {
        for (unsigned j = 0; j < config->n_nodes; j++) {
            if (strcmp(config->medium[i][j], medium) == 0) return true;
        }
    }
    return false;
}

void doctor_check_kernel(doctor_t *doctor)
{
    struct utsname name;
    unsigned major = 0, minor = 0;
    int fd;
    if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "check that it is Linux 5.10 or later",
                       "the kernel's version is unknown");
        return;
    }
    if (major < KERNEL_MAJOR_MIN || (major == KERNEL_MAJOR_MIN && minor < KERNEL_MINOR_MIN)) {
        doctor_finding(doctor, RF_DOCTOR_FAIL, "boot Linux 5.10 or later", "Linux %.60s is too old",
                       name.release);
        return;
    }
    if (rf_memory_create("rf-doctor", 4096, &fd) != RF_OK) {
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "allow memfd_create, which links need, in this container or kernel",
                       "Linux %.60s makes no sealed memory objects: %m", name.release);
        return;
    }
    close(fd);
    doctor_good(doctor, "Linux %.60s on %.30s", name.release, name.machine);
}

void doctor_check_cpus(doctor_t *doctor)
{
    unsigned cpus[RF_CORES_PER_NODE_MAX];
    unsigned n = rf_cpu_allowed(cpus, RF_CORES_PER_NODE_MAX);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    const rf_config_t *config = doctor->options->config;
    unsigned wanted = !config                                   ? 4
                      : config->emulated                        ? config->n_cores
                      : doctor->options->node < config->n_nodes ? config->nodes[doctor->options->node].n_cores
                                                                : 0;
    if (n == 0)
        doctor_finding(doctor, RF_DOCTOR_FAIL, "give this process CPUs (taskset, cpuset)",
                       "no CPU may be used: %m");
    else if (wanted > n)
        doctor_finding(doctor, RF_DOCTOR_NOTE, "use fewer cores, or more CPUs, for measurements",
                       "%u cores share %u CPU(s): right for trying out, latencies will be those of sharing",
                       wanted, n);
    else
        doctor_good(doctor, "%u of %ld online CPU(s) may be used", n, online);
}

void doctor_check_clock(doctor_t *doctor)
{
    static const char *const fast[] = {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"};
    char source[64] = "";
    if (rf_file_read("/sys/devices/system/clocksource/clocksource0/current_clocksource", source,
                     sizeof source) < 0) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "mount /sys to let it be read", "the clock source is unknown");
        return;
    }
    source[strcspn(source, "\n")] = '\0';
    for (unsigned i = 0; i < sizeof fast / sizeof *fast; i++) {
        if (strcmp(source, fast[i]) == 0) {
            doctor_good(doctor, "clock source %s", source);
            return;
        }
    }
    doctor_finding(doctor, RF_DOCTOR_NOTE, "boot with clocksource=tsc if the processor's counter is stable",
                   "clock source %s: reading the time costs a system call, and benches show it", source);
}

void doctor_check_memory(doctor_t *doctor)
{
    struct sysinfo info;
    rf_doctor_need_t need;
    const rf_config_t *config = doctor->options->config;
    if (sysinfo(&info) < 0) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "see that there is enough",
                       "the amount of memory is unknown: %m");
        return;
    }
    uint64_t total = (uint64_t)info.totalram * info.mem_unit;
    rf_doctor_need(config, doctor->options->node, &need);
    uint64_t promised = config && doctor->options->node < config->n_nodes
                            ? config->nodes[doctor->options->node].memory_bytes
                            : 0;
    if (promised > total)
        doctor_finding(doctor, RF_DOCTOR_NOTE, "lower 'memory' of this node",
                       "the configuration promises %llu MiB of this host, which has %llu MiB",
                       (unsigned long long)(promised >> 20), (unsigned long long)(total >> 20));
    else
        doctor_good(doctor, "%llu MiB; links need %llu KiB at first", (unsigned long long)(total >> 20),
                    (unsigned long long)((need.memory_bytes + 1023) >> 10));
}

void doctor_check_files(doctor_t *doctor)
{
    struct rlimit limit;
    rf_doctor_need_t need;
    rf_doctor_need(doctor->options->config, doctor->options->node, &need);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "look at 'ulimit -n'",
                       "the limit of open files is unknown: %m");
        return;
    }
    /* rackfishd raises the soft limit to the hard one when it starts. */
    unsigned long long wanted = need.files_per_process, most = limit.rlim_max;
    if (limit.rlim_max != RLIM_INFINITY && most < wanted)
        doctor_finding(doctor, doctor->root ? RF_DOCTOR_NOTE : RF_DOCTOR_FAIL,
                       "raise it: 'nofile' in /etc/security/limits.conf, LimitNOFILE= in the unit",
                       "%llu open files a process are allowed; this machine may want %llu", most, wanted);
    else
        doctor_good(doctor, "%llu open files a process are allowed; at most %llu are wanted", most, wanted);
}

void doctor_check_processes(doctor_t *doctor)
{
    struct rlimit limit;
    rf_doctor_need_t need;
    char text[32] = "";
    rf_doctor_need(doctor->options->config, doctor->options->node, &need);
    unsigned long long wanted = need.processes + 64, most = RLIM_INFINITY;
    if (!doctor->root && getrlimit(RLIMIT_NPROC, &limit) == 0) most = limit.rlim_cur;
    if (rf_file_read("/proc/sys/kernel/pid_max", text, sizeof text) > 0 && strtoull(text, NULL, 10) < most)
        most = strtoull(text, NULL, 10);
    if (most < wanted)
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "raise it: 'nproc' in /etc/security/limits.conf, TasksMax= in the unit",
                       "%llu processes are allowed; this machine wants %llu and those of its programs", most,
                       (unsigned long long)need.processes);
    else
        doctor_good(doctor, "%llu processes are allowed; this machine itself is %llu", most,
                    (unsigned long long)need.processes);
}

#define RDMA_QUEUES_BYTES (2048u << 10) /* the completion queue: doc/protocol.md, "What it costs" */

void doctor_check_memlock(doctor_t *doctor)
{
    struct rlimit limit;
    uint64_t locked = doctor_rdma_locked(doctor->options->config, doctor->options->node,
                                         doctor_rdma_wire(doctor) == DOCTOR_WIRE_IWARP);
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "look at 'ulimit -l'",
                       "the limit of locked memory is unknown: %m");
        return;
    }
    unsigned long long kib = limit.rlim_cur == RLIM_INFINITY ? ~0ull : limit.rlim_cur >> 10;
    bool pins = doctor_medium_used(doctor, "rdma");
    if (limit.rlim_cur < locked)
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "raise it: 'memlock' in /etc/security/limits.conf, LimitMEMLOCK= in the unit",
                       "%llu KiB may be locked; a monitor's links over RDMA lock %llu KiB", kib,
                       (unsigned long long)(locked >> 10));
    else if (limit.rlim_cur == RLIM_INFINITY)
        doctor_good(doctor, "any amount of memory may be locked");
    else if (pins && limit.rlim_cur < locked + RDMA_QUEUES_BYTES)
        doctor_finding(
            doctor, RF_DOCTOR_NOTE,
            "raise it: 'memlock' in /etc/security/limits.conf, LimitMEMLOCK= in the unit",
            "%llu KiB may be locked; a monitor's links over RDMA lock %llu, and a driver that pins its "
            "queues (mlx5) %u more",
            kib, (unsigned long long)(locked >> 10), RDMA_QUEUES_BYTES >> 10);
    else
        doctor_good(doctor, "%llu KiB may be locked; %s %llu", kib,
                    pins ? "a monitor's links over RDMA lock" : "shm and tcp lock",
                    (unsigned long long)(locked >> 10));
}

void doctor_check_hugepages(doctor_t *doctor)
{
    char text[16384];
    unsigned long long total = 0, kib = 0, wanted_mib = 0;
    if (rf_file_read("/proc/meminfo", text, sizeof text) > 0) {
        const char *at = strstr(text, "HugePages_Total:"), *size = strstr(text, "Hugepagesize:");
        if (at) total = strtoull(at + strlen("HugePages_Total:"), NULL, 10);
        if (size) kib = strtoull(size + strlen("Hugepagesize:"), NULL, 10);
    }
    const rf_config_t *config = doctor->options->config;
    rf_node_t node = doctor->options->node;
    bool huge = false, device = false, rdma = doctor_medium_used(doctor, "rdma");
    if (config && node < config->n_nodes && doctor_medium_used(doctor, "dpdk")) {
        for (unsigned i = 0; i < config->nodes[node].n_dpdk; i++) {
            const rf_config_dpdk_t *port = &config->nodes[node].dpdk[i];
            huge |= port->hugepages;
            device |= !port->interface[0];
            if (port->hugepages) wanted_mib += port->memory_mib ? port->memory_mib : RF_DPDK_MEMORY_MIB;
        }
    }
    if (total == 0 && huge)
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "reserve some: sysctl vm.nr_hugepages=256; or 'hugepages: off'",
                       "%.80s:%d: dpdk: hugepages is on, and none are reserved", config->path,
                       config->nodes[node].dpdk_line);
    else if (total * kib >> 10 < wanted_mib)
        doctor_finding(doctor, RF_DOCTOR_FAIL, "reserve more: sysctl vm.nr_hugepages; or less 'memory'",
                       "%.80s:%d: dpdk: the ports take %llu MiB of huge pages, and %llu MiB are reserved",
                       config->path, config->nodes[node].dpdk_line, wanted_mib, total * kib >> 10);
    else if (total == 0 && device)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "reserve some and use them: sysctl vm.nr_hugepages=256, 'hugepages: on'",
                       "no huge pages are reserved; a DPDK device is faster with them");
    else if (total == 0 && rdma)
        doctor_finding(
            doctor, RF_DOCTOR_NOTE, "reserve some, if programs have such regions: sysctl vm.nr_hugepages=256",
            "no huge pages are reserved; regions over RDMA of 2 MiB and its multiples lie in them where "
            "there are any");
    else
        doctor_good(doctor, "%llu huge pages are reserved%s", total,
                    total == 0 ? "; nothing that is configured wants any" : "");
}
