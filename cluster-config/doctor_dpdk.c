/*
 * DPDK: the ports that the configuration names (network interfaces or PCI devices), their driver program, and what they want of
 * the host. Everything is read from /sys, so that it can be said also where DPDK is not installed.
 */
#include "cluster-config/doctor_internal.h"

#include "base/os.h"

#include <dirent.h>
#include <libgen.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PATH    512
#define VIRTUAL "net_"

static bool read_line(const doctor_t *doctor, char *out, size_t max, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static bool read_line(const doctor_t *doctor, char *out, size_t max, const char *format, ...)
{
    char path[PATH], tail[PATH / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(tail, sizeof tail, format, args);
    va_end(args);
    out[0] = '\0';
    snprintf(path, sizeof path, "%.240s%s", doctor->options->sys_root ? doctor->options->sys_root : "", tail);
    if (rf_file_read(path, out, max) < 0) return false;
    out[strcspn(out, "\n")] = '\0';
    return true;
}

static bool exists(const doctor_t *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool exists(const doctor_t *doctor, const char *format, ...)
{
    char path[PATH], tail[PATH / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(tail, sizeof tail, format, args);
    va_end(args);
    snprintf(path, sizeof path, "%.240s%s", doctor->options->sys_root ? doctor->options->sys_root : "", tail);
    return access(path, F_OK) == 0;
}

static unsigned entries(const doctor_t *doctor, const char *folder, const char *prefix)
{
    char path[PATH];
    snprintf(path, sizeof path, "%.240s%.250s", doctor->options->sys_root ? doctor->options->sys_root : "",
             folder);
    DIR *dir = opendir(path);
    unsigned n = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        n += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (dir) closedir(dir);
    return n;
}

/* ---- the program ---- */

/* In a build folder beside us; installed, below libexec. */
static bool find_driver(char *out, size_t max)
{
    static const char *const folders[] = {"", "../libexec/rackfish/"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return false;
    self[n] = '\0';
    const char *folder = dirname(self);
    for (unsigned i = 0; i < sizeof folders / sizeof *folders; i++) {
        if (snprintf(out, max, "%s/%srackfish-dpdk", folder, folders[i]) < (int)max && access(out, X_OK) == 0)
            return true;
    }
    return false;
}

static void say_program(doctor_t *doctor, const rf_config_node_t *node)
{
    char program[PATH_MAX + 64];
    bool raw = false;
    if (!find_driver(program, sizeof program)) {
        doctor_finding(doctor, RF_DOCTOR_FAIL, "install libdpdk-dev and build Rackfish again",
                       "the configuration wants dpdk, and there is no rackfish-dpdk: built without DPDK");
        return;
    }
    for (unsigned i = 0; i < node->n_dpdk; i++) raw |= strncmp(node->dpdk[i].device, "net_af_", 7) == 0;
    bool may = doctor_capabilities() & (1ull << CAP_NET_RAW);
    if (raw && !may && getxattr(program, "security.capability", NULL, 0) <= 0)
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "start the machine as root, or: setcap cap_net_raw,cap_net_admin+ep on rackfish-dpdk",
                       "packet sockets take CAP_NET_RAW, which we do not have");
    else
        doctor_good(doctor, "rackfish-dpdk is there%s", raw ? ", and may open packet sockets" : "");
}

/* ---- a port on a network interface ---- */

static void say_mtu(doctor_t *doctor, const rf_config_dpdk_t *dpdk)
{
    char text[32], mend[160];
    if (!read_line(doctor, text, sizeof text, "/sys/class/net/%s/mtu", dpdk->interface)) return;
    unsigned long mtu = strtoul(text, NULL, 10);
    if (dpdk->mtu > mtu) {
        snprintf(mend, sizeof mend,
                 "at both ends and on the switch: ip link set %s mtu %u; or a smaller 'mtu'", dpdk->interface,
                 dpdk->mtu);
        doctor_finding(doctor, RF_DOCTOR_FAIL, mend, "%s has an MTU of %lu, and the configuration wants %u",
                       dpdk->interface, mtu, dpdk->mtu);
    } else {
        doctor_good(doctor, "%s has an MTU of %lu; links use what both ends have", dpdk->interface, mtu);
    }
}

static void say_interface(doctor_t *doctor, const rf_config_dpdk_t *dpdk, const char *place)
{
    char state[32], folder[80], mend[160];
    if (!exists(doctor, "/sys/class/net/%s", dpdk->interface)) {
        doctor_finding(doctor, RF_DOCTOR_FAIL, "correct 'interface' there; `ip link` shows those there are",
                       "%s: dpdk: this host has no network interface '%s'", place, dpdk->interface);
        return;
    }
    (void)read_line(doctor, state, sizeof state, "/sys/class/net/%s/operstate", dpdk->interface);
    if (strcmp(state, "up") != 0 && strcmp(state, "unknown") != 0) {
        snprintf(mend, sizeof mend, "ip link set %s up, and look at the cable", dpdk->interface);
        doctor_finding(doctor, RF_DOCTOR_FAIL, mend, "%s is %s: nothing can be sent over it", dpdk->interface,
                       state[0] ? state : "in an unknown state");
    } else {
        doctor_good(doctor, "%s is up", dpdk->interface);
    }
    say_mtu(doctor, dpdk);
    bool xdp = strncmp(dpdk->device, "net_af_xdp", 10) == 0;
    if (xdp)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "have another interface for 'address', or 'driver: af_packet', which shares it",
                       "af_xdp takes all frames of %s: hosts cannot reach each other by TCP over it",
                       dpdk->interface);
    snprintf(folder, sizeof folder, "/sys/class/net/%s/queues", dpdk->interface);
    unsigned queues = entries(doctor, folder, "rx-");
    if (xdp && queues > RF_DPDK_QUEUES_MAX) {
        snprintf(mend, sizeof mend, "ethtool -L %s combined %u", dpdk->interface, RF_DPDK_QUEUES_MAX);
        doctor_finding(doctor, RF_DOCTOR_FAIL, mend,
                       "%s has %u receive queues, and a link driver takes %u at most", dpdk->interface,
                       queues, RF_DPDK_QUEUES_MAX);
    }
}

/* ---- a PCI device ---- */

static void say_binding(doctor_t *doctor, const char *device)
{
    static const char *const own[] = {"vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core"};
    char path[PATH], driver[PATH] = "none", mend[160];
    snprintf(path, sizeof path, "%.240s/sys/bus/pci/devices/%.40s/driver",
             doctor->options->sys_root ? doctor->options->sys_root : "", device);
    ssize_t n = readlink(path, driver, sizeof driver - 1);
    if (n > 0) driver[n] = '\0';
    const char *name = strrchr(driver, '/') ? strrchr(driver, '/') + 1 : driver;
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++) {
        if (strcmp(name, own[i]) != 0) continue;
        doctor_good(doctor, "%s is bound to %s", device, name);
        return;
    }
    snprintf(mend, sizeof mend, "modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci %s (package dpdk)",
             device);
    doctor_finding(doctor, RF_DOCTOR_FAIL, mend,
                   "%s is bound to the kernel's driver %.40s, so that DPDK cannot have it", device, name);
}

static void say_pci(doctor_t *doctor, const rf_config_dpdk_t *dpdk, const char *place)
{
    char device[48];
    bool whole = strchr(dpdk->device, ':') != strrchr(dpdk->device, ':');
    snprintf(device, sizeof device, "%s%.40s", whole ? "" : "0000:", dpdk->device);
    if (!exists(doctor, "/sys/bus/pci/devices/%s", device)) {
        doctor_finding(doctor, RF_DOCTOR_FAIL, "correct 'device' there; `lspci -D` shows those there are",
                       "%s: dpdk: this host has no PCI device %s", place, device);
        return;
    }
    say_binding(doctor, device);
    if (entries(doctor, "/sys/kernel/iommu_groups", "") == 0)
        doctor_finding(
            doctor, RF_DOCTOR_NOTE,
            "switch it on in the firmware, and by intel_iommu=on or amd_iommu=on; without one: echo 1 "
            ">/sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
            "there is no IOMMU: vfio-pci wants one, and without it the device may write anywhere");
    struct rlimit limit;
    unsigned long long wanted = dpdk->memory_mib ? dpdk->memory_mib : RF_DPDK_MEMORY_MIB;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur >> 20 < wanted)
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "raise it: 'memlock' in /etc/security/limits.conf, LimitMEMLOCK= in the unit",
                       "%llu MiB may be locked; the port would lock %llu MiB",
                       (unsigned long long)limit.rlim_cur >> 20, wanted);
}

/* A link driver polls: who shares its CPU waits for it. */
static void say_cpus(doctor_t *doctor, const rf_config_node_t *node, const char *place)
{
    for (unsigned i = 0; i < node->n_dpdk; i++) {
        int cpu = node->dpdk[i].cpu;
        const char *other = NULL;
        for (unsigned j = 0; j < i && cpu >= 0; j++) {
            if (node->dpdk[j].cpu == cpu) other = "another port's link driver";
        }
        for (unsigned j = 0; j < node->n_cores && cpu >= 0 && node->cores_form == RF_CONFIG_CORES_LIST; j++) {
            if (node->cpus[j] == cpu) other = "a core of the machine";
        }
        if (!other) continue;
        doctor_finding(doctor, RF_DOCTOR_NOTE, "give it a 'cpu' of its own, or none",
                       "%s: dpdk: CPU %d of a link driver, which polls, is also that of %s", place, cpu,
                       other);
    }
}

void doctor_check_dpdk(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    rf_node_t node = doctor->options->node;
    char place[128];
    if (!doctor_medium_used(doctor, "dpdk")) {
        doctor_good(doctor, "no link over DPDK is wanted; to try it: rackfish lab dpdk");
        return;
    }
    if (node >= config->n_nodes || config->nodes[node].n_dpdk == 0) return; /* another host's */
    snprintf(place, sizeof place, "%.80s:%d", config->path, config->nodes[node].dpdk_line);
    say_program(doctor, &config->nodes[node]);
    say_cpus(doctor, &config->nodes[node], place);
    for (unsigned i = 0; i < config->nodes[node].n_dpdk; i++) {
        const rf_config_dpdk_t *dpdk = &config->nodes[node].dpdk[i];
        if (dpdk->interface[0])
            say_interface(doctor, dpdk, place);
        else if (strncmp(dpdk->device, VIRTUAL, strlen(VIRTUAL)) != 0)
            say_pci(doctor, dpdk, place);
    }
}
