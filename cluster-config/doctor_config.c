/* Whether the configuration fits this host and its network. */
#include "cluster-config/doctor_internal.h"

#include "base/clock.h"
#include "base/os.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define RESOLVE_NS_MAX (5 * RF_NS_PER_S) /* a dead name server must not make the preflight endless */

void doctor_check_node(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    if (!config || config->emulated) return;
    if (doctor->options->node >= config->n_nodes)
        doctor_finding(doctor, RF_DOCTOR_NOTE, "name it with --node, or add this host to the file",
                       "this host is none of the %u in %.120s", config->n_nodes, config->path);
    else
        doctor_good(doctor, "this host is '%s', %u of the machine's %u cores",
                    config->nodes[doctor->options->node].name, config->nodes[doctor->options->node].n_cores,
                    config->n_cores);
}

void doctor_check_key(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    /* A key that is missing, open or short never gets here: loading refuses it. */
    if (config)
        doctor_good(doctor, "%.150s holds %zu bytes and is closed to others", config->key_path,
                    config->key_size);
}

/* 0 when a listener could be had on any address, else errno. */
static int port_probe(uint16_t port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, error = 0;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool v6 = fd >= 0;
    if (!v6) fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const struct sockaddr *address = v6 ? (const void *)&any : (const void *)&any4;
    if (bind(fd, address, v6 ? sizeof any : sizeof any4) < 0 || listen(fd, 1) < 0) error = errno;
    close(fd);
    return error;
}

void doctor_check_ports(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    unsigned probed = 0, bad = 0;
    for (rf_node_t i = 0; config && i < config->n_nodes; i++) {
        uint16_t port = config->nodes[i].port;
        if (port == 0 || (!config->emulated && i != doctor->options->node)) continue;
        probed++;
        int error = port_probe(port);
        if (error == 0) continue;
        bad++;
        char place[300];
        rf_config_port_place(config, i, place, sizeof place);
        doctor_finding(doctor, RF_DOCTOR_FAIL,
                       error == EADDRINUSE
                           ? "choose another port there, or end what has it (is the machine up already?)"
                       : error == EACCES ? "choose a port above 1023 there, or start as root"
                                         : "mend the network of this host",
                       "%.150s: port %u of '%.40s' cannot be had: %s", place, port, config->nodes[i].name,
                       strerror(error));
    }
    if (probed > 0 && bad == 0) doctor_good(doctor, "%u port(s) are free", probed);
}

static bool is_numeric(const char *address)
{
    struct in6_addr any;
    return inet_pton(AF_INET, address, &any) == 1 || inet_pton(AF_INET6, address, &any) == 1;
}

void doctor_check_hosts(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    uint64_t deadline = rf_clock_ns() + RESOLVE_NS_MAX;
    unsigned resolved = 0, bad = 0, skipped = 0;
    for (rf_node_t i = 0; config && i < config->n_nodes; i++) {
        const rf_config_node_t *node = &config->nodes[i];
        struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM};
        if (is_numeric(node->address)) continue;
        if (rf_clock_ns() > deadline) {
            skipped++;
            continue;
        }
        int error = getaddrinfo(node->address, NULL, &hints, &found);
        if (error == 0) {
            freeaddrinfo(found);
            resolved++;
            continue;
        }
        if (bad++ < 8)
            doctor_finding(doctor, RF_DOCTOR_FAIL,
                           "give it an 'address', or add it to /etc/hosts or the name server",
                           "%.120s:%d: host '%s' cannot be resolved: %s", config->path, node->line,
                           node->address, gai_strerror(error));
    }
    if (skipped > 0)
        doctor_finding(doctor, RF_DOCTOR_NOTE, "give hosts an 'address', or mend the name server",
                       "names resolve slowly; %u host(s) were not looked up", skipped);
    else if (bad == 0 && resolved > 0)
        doctor_good(doctor, "%u host name(s) resolve", resolved);
}

void doctor_check_transports(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    const char *seen[8] = {"tcp"};
    unsigned n = 1;
    if (!doctor->options->transport) return;
    for (unsigned i = 0; config && i < config->n_nodes; i++) {
        for (unsigned j = 0; j < config->n_nodes && n < 8; j++) {
            const char *medium = config->medium[i][j];
            bool known = i == j;
            for (unsigned k = 0; k < n; k++) known |= strcmp(seen[k], medium) == 0;
            if (!known) seen[n++] = medium;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        char why[512] = "";
        if (doctor->options->transport(seen[i], why, sizeof why) == RF_OK)
            doctor_good(doctor, "transport %s can be loaded", seen[i]);
        else
            doctor_finding(doctor, RF_DOCTOR_FAIL, "install what it needs, or have tcp between the nodes",
                           "transport %s cannot be loaded: %s", seen[i], why[0] ? why : "no reason given");
    }
}

/* How many voters each node gets when all are up, as the monitors choose them: the nodes with fewest first, an odd number of three or
 * more. Returns how many in all; 0: `cores: all` of another host is not told yet. */
static unsigned voters_spread(const rf_config_t *config, unsigned *on_node)
{
    unsigned n = 0;
    memset(on_node, 0, RF_NODES_MAX * sizeof *on_node);
    for (unsigned i = 0; i < config->n_nodes; i++) {
        if (config->nodes[i].n_cores == 0) return 0;
    }
    bool found = true;
    unsigned last = 0;
    while (found && n < config->voters_max) {
        found = false;
        unsigned least = 0;
        for (unsigned i = 0; i < config->n_nodes; i++) {
            const rf_config_node_t *node = &config->nodes[i];
            unsigned room = config->n_voters == 0 ? node->n_cores : 0;
            for (unsigned k = 0; k < config->n_voters; k++)
                room += config->voters[k] >= node->first_core &&
                        config->voters[k] < node->first_core + node->n_cores;
            bool worse =
                found && (on_node[i] > on_node[least] ||
                          (on_node[i] == on_node[least] && node->witness >= config->nodes[least].witness));
            if (on_node[i] >= room || worse) continue;
            found = true;
            least = i;
        }
        if (!found) break;
        on_node[last = least]++;
        n++;
    }
    if (n > 2 && n % 2 == 0) {
        on_node[last]--;
        n--;
    }
    return n;
}

/* Media that take back memory which a peer may write (RF_TRANSPORT_TAKES_BACK). */
static bool takes_back(const char *medium)
{
    return strcmp(medium, "rdma") == 0 || strcmp(medium, "tcp") == 0;
}

/* Between two voters of different hosts there are two lanes, one for each to write; of each either end locks its 64 KiB (the lane, or
 * what its writes are made from), and what its link has for slots, and for bulk (doc/protocol.md, "What it costs"). */
#define STAR_CORES_MAX       (56 + RF_CONFIG_VOTERS_MAX) /* PLAN_STAR_MAX of consensus/plan.h, and who votes */
#define RING_LOCKED_BYTES    (4u << 10)
#define BUFFERS_LOCKED_BYTES (80u << 10)
#define SHARED_LOCKED_BYTES                                                                                  \
    (4096u << 10)                      /* of all buffers of a process, but on iWARP, where no link shares */
#define WORDS_LOCKED_BYTES (64u << 10) /* iWARP: more buffers of a link with bulk */
#define BULK_LOCKED_BYTES  (12u << 10)
#define LANE_QUEUE_PAIRS   2
#define LINKS_MAX          224 /* of a process: what its completion queue has room for */
#define LINKS_IWARP_MAX    120

static uint64_t lane_locked(bool iwarp)
{
    return (64u << 10) + RING_LOCKED_BYTES + BUFFERS_LOCKED_BYTES + BULK_LOCKED_BYTES +
           (iwarp ? WORDS_LOCKED_BYTES : 0);
}

/* Of a voter on that node; *over_rdma: those of them that are over RDMA. */
static unsigned lanes_of_voter(const rf_config_t *config, rf_node_t here, unsigned *over_rdma)
{
    unsigned on_node[RF_NODES_MAX], lanes = 0;
    *over_rdma = 0;
    if (!config->one_sided || voters_spread(config, on_node) == 0 || here >= config->n_nodes ||
        on_node[here] == 0)
        return 0;
    for (unsigned i = 0; i < config->n_nodes; i++) {
        if (i == here || !takes_back(config->medium[here][i])) continue;
        lanes += 2 * on_node[i];
        *over_rdma += strcmp(config->medium[here][i], "rdma") == 0 ? 2 * on_node[i] : 0;
    }
    return lanes;
}

/* Cores that a monitor here has links over RDMA to, if each has something to say to it: as a leader's, to whom all propose. */
static unsigned cores_over_rdma(const rf_config_t *config, rf_node_t here)
{
    unsigned cores = 0;
    if (!config || here >= config->n_nodes) return 0;
    for (unsigned i = 0; i < config->n_nodes; i++) {
        if (i == here || strcmp(config->medium[here][i], "rdma") != 0) continue;
        cores += config->nodes[i].n_cores ? config->nodes[i].n_cores : RF_CORES_PER_NODE_MAX;
    }
    return cores;
}

uint64_t doctor_rdma_locked(const rf_config_t *config, rf_node_t here, bool iwarp)
{
    unsigned links = cores_over_rdma(config, here), most = iwarp ? LINKS_IWARP_MAX : LINKS_MAX, lanes = 0;
    if (links == 0) return 0;
    if (links > most) links = most;
    lanes_of_voter(config, here, &lanes);
    uint64_t buffers = (uint64_t)(links + lanes) * BUFFERS_LOCKED_BYTES;
    uint64_t spared = !iwarp && buffers > SHARED_LOCKED_BYTES ? buffers - SHARED_LOCKED_BYTES : 0;
    return links * (uint64_t)(RING_LOCKED_BYTES + BUFFERS_LOCKED_BYTES) + lanes * lane_locked(iwarp) - spared;
}

void doctor_check_links(doctor_t *doctor)
{
    unsigned cores = cores_over_rdma(doctor->options->config, doctor->options->node);
    unsigned most = doctor_rdma_wire(doctor) == DOCTOR_WIRE_IWARP ? LINKS_IWARP_MAX : LINKS_MAX;
    if (cores > most)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "have tcp between some nodes, or see that not all cores propose or take part in group "
                       "operations",
                       "%u cores of other nodes are over rdma, and a monitor has room for %u such links: who "
                       "comes later waits",
                       cores, most);
}

/* One-sided append: what it takes here, and where it cannot be. */
void doctor_check_lanes(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    rf_node_t here = doctor->options->node;
    unsigned lanes, over_rdma, n_unfit = 0;
    if (!config || !config->one_sided) return;
    if (config->n_nodes < 2) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "leave it out", "%.80s: one_sided is of no use on one host",
                       config->path);
        return;
    }
    for (unsigned i = 0; i < config->n_nodes; i++) {
        for (unsigned j = i + 1; j < config->n_nodes; j++) {
            const char *medium = config->medium[i][j];
            if (takes_back(medium) || n_unfit++ > 0) continue;
            doctor_finding(doctor, RF_DOCTOR_NOTE, "let `transports` say rdma there, or leave one_sided out",
                           "%.80s: one_sided: %.16s between '%.40s' and '%.40s' takes no memory back: "
                           "entries go there by "
                           "messages",
                           config->path, medium, config->nodes[i].name, config->nodes[j].name);
        }
    }
    lanes = lanes_of_voter(config, here, &over_rdma);
    if (lanes > 0)
        doctor_good(
            doctor, "each voter here has %u lanes: %u queue pairs, and %llu KiB locked", lanes,
            over_rdma * LANE_QUEUE_PAIRS,
            (unsigned long long)(over_rdma * lane_locked(doctor_rdma_wire(doctor) == DOCTOR_WIRE_IWARP)) >>
                10);
}

/* Who passes on what is agreed. */
void doctor_check_plan(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    if (!config) return;
    bool star = strcmp(config->plan, "broadcast") == 0 || strcmp(config->plan, "unicast") == 0;
    if (star && config->n_cores > STAR_CORES_MAX)
        doctor_finding(
            doctor, RF_DOCTOR_NOTE, "`plan: host` asks less of one core",
            "%.80s: plan: %s: one core cannot feed the %u others: it feeds some, and these feed the rest",
            config->path, config->plan, config->n_cores - 1u);
    else if (config->weights[0] > 0)
        doctor_good(doctor, "plan weighted: %u in a package, %u in a host, %u between hosts",
                    config->weights[0], config->weights[1], config->weights[2]);
    else
        doctor_good(doctor, "plan %s", config->plan);
}

void doctor_check_voters(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    unsigned on_node[RF_NODES_MAX], nodes = 0, gone = 0, most = 0;
    if (!config) return;
    if (config->warning[0])
        doctor_finding(doctor, RF_DOCTOR_NOTE, "write an odd number", "%.80s:%.150s", config->path,
                       config->warning);
    unsigned n = voters_spread(config, on_node);
    if (n == 0) {
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       "write the number of cores, or look at `rackfish status` when it is up",
                       "with 'cores: all' it is not told yet which losses the machine survives");
        return;
    }
    for (;; nodes++) { /* those with most voters may be the ones that die */
        unsigned worst = 0;
        for (unsigned i = 1; i < config->n_nodes; i++) {
            if (on_node[i] > on_node[worst]) worst = i;
        }
        if (nodes == 0) most = worst;
        if (on_node[worst] == 0 || n - gone - on_node[worst] <= n / 2) break;
        gone += on_node[worst];
        on_node[worst] = 0;
    }
    unsigned cores = (n - 1) / 2;
    if (nodes > 0)
        doctor_good(doctor,
                    "%u voters: the machine survives the death of any %u core(s), or of any %u node(s)", n,
                    cores, nodes);
    else if (config->n_nodes > 1 && cores > 0)
        doctor_finding(doctor, RF_DOCTOR_NOTE,
                       config->n_nodes == 2
                           ? "three nodes survive any one; the third may only vote (`witness: on`)"
                           : "`voters: 3` survives any one",
                       "%u voter(s): it survives the death of any %u core(s), but not of node %.60s, which "
                       "has most of them",
                       n, cores, config->nodes[most].name);
    else if (cores > 0)
        doctor_good(doctor, "%u voters: the machine survives the death of any %u core(s)", n, cores);
    else
        doctor_finding(doctor, RF_DOCTOR_NOTE, "three cores survive any one",
                       "%u voter(s): when a core that votes dies, nothing can be agreed on any more", n);
}

/* As far as the processor tells. */
static bool is_virtual(const doctor_t *doctor)
{
    static char text[16384];
    char path[512];
    const char *root = doctor->options->sys_root ? doctor->options->sys_root : "";
    snprintf(path, sizeof path, "%.240s/proc/cpuinfo", root);
    if (rf_file_read(path, text, sizeof text) > 0 && strstr(text, " hypervisor")) return true;
    snprintf(path, sizeof path, "%.240s/sys/hypervisor/type", root);
    return access(path, F_OK) == 0;
}

void doctor_check_leases(doctor_t *doctor)
{
    const rf_config_t *config = doctor->options->config;
    if (!config || config->lease_ms == 0) return;
    if (is_virtual(doctor))
        doctor_finding(
            doctor, RF_DOCTOR_NOTE, "leave `leases` out, or see that it is never paused, saved or moved",
            "%.80s:%d: leases are on, and this host is a virtual machine: while it is paused its clock "
            "stands still, and its reads may then miss what others have agreed on",
            config->path, config->leases_line);
    else
        doctor_good(doctor, "leases of %u ms; the clocks of hosts may differ in rate by %u %%",
                    config->lease_ms, config->lease_drift);
}
