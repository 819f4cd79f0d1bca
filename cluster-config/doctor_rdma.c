/*
 * RDMA: devices and their ports, which GID a link would use, MTU, who may open them, limits, and what RoCE wants of the
 * network. Everything is read from /sys, so that it can be said also where libibverbs is not installed.
 */
#include "cluster-config/doctor_internal.h"

#include "base/os.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES_MAX  8
#define GIDS_MAX     256 /* that are looked at, a port */
#define NAME         64
#define PATH         512
#define ROCE_HEADERS 80 /* of a RoCE packet: IPv6, UDP, transport and extended headers, checksum */
#define MTU_MIN      256
#define MTU_MAX      4096

/* From best to worst, as transport/rdma chooses among the GIDs of a port. */
typedef enum gid_kind {
    GID_V2_IPV4,
    GID_V2_GLOBAL,
    GID_V2_LINK_LOCAL,
    GID_OTHER, /* InfiniBand and iWARP have one kind */
    GID_V1,
    GID_NONE,
} gid_kind_t;

static const char *const gid_names[] = {"RoCE v2, IPv4", "RoCE v2, IPv6", "RoCE v2, link-local", "",
                                        "RoCE v1"};

typedef struct gid {
    gid_kind_t kind;
    unsigned index;
    char text[NAME];
    char netdev[NAME];
} rdma_gid_t;

typedef struct rdma_port {
    char device[NAME];
    unsigned port;
    char state[NAME], layer[NAME];
    bool active, software, iwarp;
    bool meant; /* by what the configuration says of this host */
    rdma_gid_t gid;
} rdma_port_t;

/* What the configuration says of this host; "" and -1: nothing. */
typedef struct told {
    const char *device;
    long port, gid_index;
    bool write; /* slots by WRITE */
} told_t;

static const char *root_of(const doctor_t *doctor)
{
    return doctor->options->sys_root ? doctor->options->sys_root : "";
}

/* Reads a one-line file below the root, without its newline; false when there is none. */
static bool read_line(const doctor_t *doctor, char *out, size_t max, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static bool read_line(const doctor_t *doctor, char *out, size_t max, const char *format, ...)
{
    char path[PATH], tail[PATH];
    va_list args;
    va_start(args, format);
    vsnprintf(tail, sizeof tail, format, args);
    va_end(args);
    out[0] = '\0';
    int n = snprintf(path, sizeof path, "%s%s", root_of(doctor), tail);
    if (n < 0 || (size_t)n >= sizeof path || rf_file_read(path, out, max) < 0) return false;
    out[strcspn(out, "\n")] = '\0';
    return true;
}

static bool is_there(const doctor_t *doctor, const char *format, const char *word, int mode)
{
    char path[PATH], tail[PATH];
    snprintf(tail, sizeof tail, "%s%s", root_of(doctor), format);
    snprintf(path, sizeof path, "%.*s/%s", (int)(sizeof path - NAME - 1), tail, word);
    return access(path, mode) == 0;
}

static gid_kind_t kind_of(const rdma_port_t *port, const char *gid, const char *type)
{
    if (port->iwarp || strcmp(port->layer, "Ethernet") != 0 || !strstr(type, "RoCE")) return GID_OTHER;
    if (!strstr(type, "v2")) return GID_V1;
    if (strncmp(gid, "0000:0000:0000:0000:0000:ffff:", 30) == 0) return GID_V2_IPV4;
    return strncmp(gid, "fe80:", 5) == 0 ? GID_V2_LINK_LOCAL : GID_V2_GLOBAL;
}

/* The GID that a link would use when every route goes by this port; `only`: it is told which. */
static void best_gid(const doctor_t *doctor, rdma_port_t *port, long only)
{
    char folder[PATH / 2];
    snprintf(folder, sizeof folder, "/sys/class/infiniband/%.60s/ports/%u", port->device, port->port);
    port->gid = (rdma_gid_t){.kind = GID_NONE};
    for (unsigned i = only < 0 ? 0 : (unsigned)only; i < GIDS_MAX && (only < 0 || i == only); i++) {
        char gid[NAME], type[NAME];
        if (!read_line(doctor, gid, sizeof gid, "%s/gids/%u", folder, i)) break;
        if (strspn(gid, "0:") == strlen(gid)) continue;
        if (!read_line(doctor, type, sizeof type, "%s/gid_attrs/types/%u", folder, i)) type[0] = '\0';
        gid_kind_t kind = kind_of(port, gid, type);
        if (kind >= port->gid.kind) continue;
        port->gid.kind = kind;
        port->gid.index = i;
        snprintf(port->gid.text, sizeof port->gid.text, "%s", gid);
        (void)read_line(doctor, port->gid.netdev, sizeof port->gid.netdev, "%s/gid_attrs/ndevs/%u", folder,
                        i);
    }
}

static void port_read(const doctor_t *doctor, rdma_port_t *port, const told_t *told)
{
    static const char base[] = "/sys/class/infiniband";
    char type[NAME];
    port->iwarp = read_line(doctor, type, sizeof type, "%s/%.60s/node_type", base, port->device) &&
                  strstr(type, "RNIC");
    port->meant = (!told->device[0] || strcmp(told->device, port->device) == 0) &&
                  (told->port < 0 || told->port == (long)port->port);
    (void)read_line(doctor, port->state, sizeof port->state, "%s/%.60s/ports/%u/state", base, port->device,
                    port->port);
    (void)read_line(doctor, port->layer, sizeof port->layer, "%s/%.60s/ports/%u/link_layer", base,
                    port->device, port->port);
    port->active = strstr(port->state, "ACTIVE") != NULL;
    /* Soft-RoCE and soft-iWARP have no device of a bus behind them. */
    port->software = !is_there(doctor, "/sys/class/infiniband", port->device, F_OK) ||
                     !read_line(doctor, port->gid.text, sizeof port->gid.text, "%s/%.60s/device/vendor", base,
                                port->device);
    best_gid(doctor, port, port->meant ? told->gid_index : -1);
}

static unsigned list_ports(const doctor_t *doctor, rdma_port_t *ports, unsigned max, const told_t *told)
{
    char path[PATH];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/sys/class/infiniband", root_of(doctor));
    DIR *devices = opendir(path);
    if (!devices) return 0;
    for (struct dirent *entry; n < max && (entry = readdir(devices));) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= NAME) continue;
        for (unsigned port = 1; n < max; port++) {
            char state[NAME];
            if (!read_line(doctor, state, sizeof state, "/sys/class/infiniband/%s/ports/%u/state",
                           entry->d_name, port))
                break;
            ports[n] = (rdma_port_t){.port = port};
            memcpy(ports[n].device, entry->d_name, strlen(entry->d_name) + 1);
            port_read(doctor, &ports[n++], told);
        }
    }
    closedir(devices);
    return n;
}

/* ---- what is said of a port ---- */

static void say_port(doctor_t *doctor, const rdma_port_t *port, const told_t *told, rf_doctor_severity_t bad)
{
    if (!port->active) {
        doctor_finding(
            doctor, bad,
            "bring it up: ip link set NETDEV up, the cable, and on InfiniBand a subnet manager (opensm)",
            "%s port %u is not active (%s): no link can use it", port->device, port->port, port->state);
        return;
    }
    if (port->gid.kind == GID_NONE && port->meant && told->gid_index >= 0) {
        doctor_finding(doctor, bad, "correct 'gid_index' (`ibv_devinfo -v` lists them), or leave it out",
                       "%s port %u has no GID with index %ld, which the configuration wants", port->device,
                       port->port, told->gid_index);
        return;
    }
    if (port->gid.kind == GID_NONE) {
        doctor_finding(doctor, bad,
                       "give its network interface an address: ip address add ADDRESS/BITS dev NETDEV",
                       "%s port %u has no GID: no link can use it", port->device, port->port);
        return;
    }
    const char *name = gid_names[port->gid.kind];
    if (port->gid.kind == GID_V1 || port->gid.kind == GID_V2_LINK_LOCAL)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "give its network interface an IPv4 address, or set 'gid_index' in the configuration",
                       "%s port %u would use GID %u (%s), which no router passes on", port->device,
                       port->port, port->gid.index, name);
    else
        doctor_good(doctor, "%s port %u, %s, active; a link would use GID %u %s%s%s%s", port->device,
                    port->port, port->layer, port->gid.index, port->gid.text, *name ? " (" : "", name,
                    *name ? ")" : "");
}

/* Bytes, at most `most`, that a RoCE packet carries where packets of `mtu` bytes pass. */
static unsigned long roce_payload(unsigned long mtu, unsigned long most)
{
    unsigned long payload = MTU_MIN;
    while (payload * 2 <= most && payload * 2 + ROCE_HEADERS <= mtu) payload *= 2;
    return payload;
}

static void say_mtu(doctor_t *doctor, const rdma_port_t *port)
{
    char text[NAME];
    if (!port->gid.netdev[0] ||
        !read_line(doctor, text, sizeof text, "/sys/class/net/%s/mtu", port->gid.netdev))
        return;
    unsigned long mtu = strtoul(text, NULL, 10), rdma = roce_payload(mtu, MTU_MAX);
    if (port->gid.kind == GID_OTHER) return; /* iWARP segments as TCP does */
    if (rdma < MTU_MAX) {
        char mend[160];
        snprintf(mend, sizeof mend, "for bulk, at both ends and on the switch: ip link set %s mtu 9000",
                 port->gid.netdev);
        doctor_finding(doctor, RF_DOCTOR_NOTE, mend,
                       "%s: %s has an MTU of %lu, so that RDMA packets carry %lu bytes of 4096", port->device,
                       port->gid.netdev, mtu, rdma);
    } else {
        doctor_good(doctor, "%s: %s has an MTU of %lu, RDMA packets carry 4096 bytes", port->device,
                    port->gid.netdev, mtu);
    }
}

/* RoCE on an adapter: without flow control or congestion control a full switch drops, and RDMA recovers slowly. */
static void say_lossless(doctor_t *doctor, const rdma_port_t *port)
{
    if (port->software || port->gid.kind == GID_OTHER || port->gid.kind == GID_NONE) return;
    bool ecn = false, known = false;
    for (unsigned priority = 0; priority < 8; priority++) {
        char text[NAME];
        if (!read_line(doctor, text, sizeof text, "/sys/class/net/%s/ecn/roce_np/enable/%u", port->gid.netdev,
                       priority))
            continue;
        known = true;
        ecn = ecn || text[0] == '1';
    }
    char mend[200];
    snprintf(mend, sizeof mend,
             "see 'dcb pfc show dev %.40s' and the switch: PFC or ECN (DCQCN) on the priority of the "
             "configured traffic class",
             port->gid.netdev);
    if (known && ecn)
        doctor_good(doctor, "%s: ECN is on for RoCE; the switch must mark too", port->device);
    else
        doctor_finding(doctor, RF_DOCTOR_NOTE, mend, "%s: %s", port->device,
                       known ? "ECN is off for RoCE; a full switch would drop packets"
                             : "whether RoCE traffic is lossless cannot be seen from here");
}

/* Slots by WRITE rely on an order of placement that is not promised (transport/rdma/placement.c): of devices in software it is known. */
static void say_torn(doctor_t *doctor, const rdma_port_t *port)
{
    if (!port->iwarp && !port->software) return;
    doctor_finding(
        doctor, RF_DOCTOR_NOTE, "leave 'mode' out, or set it to auto: it is for measuring only here",
        "%s: the configuration has slots come by WRITE, though %s", port->device,
        port->iwarp ? "iWARP promises no order of placement: one may be taken torn"
                    : "Soft-RoCE was seen to show slots before their payload: one may be taken torn");
}

/* ---- what the host lets us do ---- */

static void say_access(doctor_t *doctor, rf_doctor_severity_t bad)
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/dev/infiniband", root_of(doctor));
    DIR *folder = opendir(path);
    unsigned verbs = 0, open = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (strncmp(entry->d_name, "uverbs", 6) != 0) continue;
        verbs++;
        open += is_there(doctor, "/dev/infiniband", entry->d_name, R_OK | W_OK);
    }
    if (folder) closedir(folder);
    if (verbs == 0)
        doctor_finding(doctor, bad, "modprobe ib_uverbs",
                       "there is no /dev/infiniband/uverbs*: programs cannot reach the devices");
    else if (open < verbs)
        doctor_finding(doctor, bad,
                       "chmod 666 /dev/infiniband/uverbs*, for good by a udev rule (package rdma-core)",
                       "%u of %u devices below /dev/infiniband may not be opened by us", verbs - open, verbs);
    if (verbs && !is_there(doctor, "/dev/infiniband", "rdma_cm", R_OK | W_OK))
        doctor_finding(
            doctor, RF_DOCTOR_NOTE,
            "modprobe rdma_ucm, which iWARP needs; and let us open /dev/infiniband/rdma_cm",
            "connections by rdma_cm cannot be made: /dev/infiniband/rdma_cm is not there, or not for us");
}

/* The rdma controller of our cgroup, where one limits handles or objects. */
static void say_cgroup(doctor_t *doctor)
{
    char groups[4096], limits[512], path[PATH];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root_of(doctor));
    if (rf_file_read(path, groups, sizeof groups) < 0) return;
    const char *at = strstr(groups, "0::");
    char tree[PATH / 4] = "/sys/fs/cgroup";
    const char *v1 = strstr(groups, ":rdma:");
    if (v1) {
        at = v1 + 3;
        snprintf(tree, sizeof tree, "/sys/fs/cgroup/rdma");
    }
    if (!at) return;
    at += 3;
    int n = (int)strcspn(at, "\n");
    snprintf(path, sizeof path, "%s%s%.*s/rdma.max", root_of(doctor), tree, n < 256 ? n : 256, at);
    if (rf_file_read(path, limits, sizeof limits) <= 0) return;
    for (char *line = limits, *save = NULL; (line = strtok_r(line, "\n", &save)); line = NULL) {
        if (strstr(line, "hca_handle=max") && strstr(line, "hca_object=max")) continue;
        doctor_finding(doctor, RF_DOCTOR_NOTE, "raise rdma.max of the cgroup that the machine runs in",
                       "this cgroup limits RDMA objects: %.100s", line);
        return;
    }
}

/* Nothing that the configuration wants is there: which device or port it named, or none. */
static void say_missing(doctor_t *doctor, const rdma_port_t *ports, unsigned n, const told_t *told)
{
    bool device = false;
    char seen[160] = "";
    const rf_config_t *config = doctor->options->config;
    for (unsigned i = 0; i < n; i++) {
        size_t used = strlen(seen);
        device |= !told->device[0] || strcmp(told->device, ports[i].device) == 0;
        if (i == 0 || strcmp(ports[i].device, ports[i - 1].device) != 0)
            snprintf(seen + used, sizeof seen - used, "%s%.40s", used ? ", " : "", ports[i].device);
    }
    if (device)
        doctor_finding(doctor, RF_DOCTOR_FAIL, "correct 'port' there, or leave it out",
                       "%.80s:%d: rdma: %.60s has no port %ld", config->path,
                       config->nodes[doctor->options->node].rdma_line, told->device[0] ? told->device : seen,
                       told->port);
    else if (n > 0)
        doctor_finding(doctor, RF_DOCTOR_FAIL, "correct 'device' there, or leave it out",
                       "%.80s:%d: rdma: this host has no device '%.40s', but %.60s", config->path,
                       config->nodes[doctor->options->node].rdma_line, told->device, seen);
    else
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       "load the adapter's driver; without one, over any network: rdma link add rxe0 type "
                       "rxe netdev NETDEV",
                       "the configuration wants rdma, and this host has no RDMA device");
}

/* A number in the options as the medium takes them, "device=mlx5_0,port=1"; -1: it is not there. */
static long number_told(const char *options, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = options; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, size) == 0 && at[size] == '=') return strtol(at + size + 1, NULL, 10);
    }
    return -1;
}

static told_t told_of(const doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    rf_node_t node = doctor->options->node;
    if (!config || node >= config->n_nodes) return (told_t){.device = "", .port = -1, .gid_index = -1};
    return (told_t){.device = config->nodes[node].rdma_device,
                    .port = number_told(config->nodes[node].rdma, "port"),
                    .gid_index = number_told(config->nodes[node].rdma, "gid_index"),
                    .write = strstr(config->nodes[node].rdma, "mode=write") != NULL};
}

doctor_wire_t doctor_rdma_wire(const doctor_t *doctor)
{
    rdma_port_t ports[DEVICES_MAX];
    told_t told = told_of(doctor);
    unsigned n = list_ports(doctor, ports, DEVICES_MAX, &told), iwarp = 0, infiniband = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!ports[i].meant || !ports[i].active) continue;
        if (ports[i].iwarp)
            iwarp++;
        else if (strcmp(ports[i].layer, "InfiniBand") == 0)
            infiniband++;
        else
            return DOCTOR_WIRE_ROCE;
    }
    return iwarp ? DOCTOR_WIRE_IWARP : infiniband ? DOCTOR_WIRE_INFINIBAND : DOCTOR_WIRE_ROCE;
}

/* Whether one of the port's GIDs that a link may use is of that interface. */
static bool has_netdev(const doctor_t *doctor, const rdma_port_t *port, long only, const char *netdev)
{
    char gid[NAME], of[NAME];
    for (unsigned i = only < 0 ? 0 : (unsigned)only; i < GIDS_MAX && (only < 0 || i == only); i++) {
        if (!read_line(doctor, gid, sizeof gid, "/sys/class/infiniband/%.60s/ports/%u/gids/%u", port->device,
                       port->port, i))
            break;
        if (strspn(gid, "0:") != strlen(gid) &&
            read_line(doctor, of, sizeof of, "/sys/class/infiniband/%.60s/ports/%u/gid_attrs/ndevs/%u",
                      port->device, port->port, i) &&
            strcmp(of, netdev) == 0)
            return true;
    }
    return false;
}

bool doctor_roce_elsewhere(const doctor_t *doctor, const char *netdev, char *out, size_t max)
{
    rdma_port_t ports[DEVICES_MAX];
    told_t told = told_of(doctor);
    unsigned n = list_ports(doctor, ports, DEVICES_MAX, &told);
    const rdma_port_t *best = NULL;
    for (unsigned i = 0; i < n; i++) {
        const rdma_port_t *port = &ports[i];
        if (!port->meant || !port->active || port->iwarp || !port->gid.netdev[0]) continue;
        if (has_netdev(doctor, port, told.gid_index, netdev)) return false;
        if (!best || port->gid.kind < best->gid.kind) best = port;
    }
    if (best) snprintf(out, max, "%s", best->gid.netdev);
    return best;
}

unsigned doctor_roce_packet(const rf_config_t *config, rf_node_t a, rf_node_t b, unsigned mtu)
{
    long most = MTU_MAX,
         told[] = {number_told(config->nodes[a].rdma, "mtu"), number_told(config->nodes[b].rdma, "mtu")};
    for (unsigned i = 0; i < 2; i++) {
        if (told[i] > 0 && told[i] < most) most = told[i];
    }
    return (unsigned)roce_payload(mtu, (unsigned long)most) + ROCE_HEADERS;
}

void doctor_check_rdma(doctor_t *doctor)
{
    rdma_port_t ports[DEVICES_MAX];
    told_t told = told_of(doctor);
    unsigned n = list_ports(doctor, ports, DEVICES_MAX, &told), meant = 0, usable = 0;
    bool wanted = doctor_medium_used(doctor, "rdma");
    for (unsigned i = 0; i < n; i++) {
        if (!ports[i].meant) continue;
        meant++;
        usable += ports[i].active && ports[i].gid.kind != GID_NONE;
    }
    if (meant == 0 && wanted)
        say_missing(doctor, ports, n, &told);
    else if (n == 0)
        doctor_good(doctor, "no RDMA device, and none is wanted; to try it: rackfish lab rdma");
    for (unsigned i = 0; i < n; i++) {
        /* A port that lies idle harms nobody as long as another can be used. */
        bool needed = wanted && usable == 0 && ports[i].meant;
        say_port(doctor, &ports[i], &told, needed ? RF_DOCTOR_FAIL : RF_DOCTOR_NOTE);
        if (!ports[i].active || ports[i].gid.kind == GID_NONE) continue;
        say_mtu(doctor, &ports[i]);
        say_lossless(doctor, &ports[i]);
        if (told.write && ports[i].meant) say_torn(doctor, &ports[i]);
    }
    if (n == 0) return;
    say_access(doctor, wanted ? RF_DOCTOR_FAIL : RF_DOCTOR_NOTE);
    say_cgroup(doctor);
}
