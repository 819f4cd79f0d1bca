/*
 * What the schema cannot say: forms, ranges, and that the parts fit each other. Works on the text alone;
 * nothing of this host is looked at, so that every host finds the same errors in the same file.
 */
#include "cluster-config/parse.h"

#include "base/assert.h"
#include "cluster-config/hostlist.h"
#include "config.pb-c.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEARTBEAT_MS_MIN     10
#define HEARTBEAT_MS_MAX     10000
#define HOST_DEADLINE_MS_MAX 600000
#define ELECTION_MS_MIN      20
#define ELECTION_MS_MAX      60000
#define LEASE_DRIFT_MIN      1 /* percent */
#define LEASE_DRIFT_MAX      40
#define HEARTBEATS_MIN       3 /* a host is not called dead for fewer missed heartbeats */
#define MEMORY_BYTES_MIN     (16ull << 20)
#define MEMORY_BYTES_MAX     (1ull << 50)
#define PORT_DEFAULT         7117
#define CPU_MAX              4095

typedef Rackfish__Config__Machine machine_t;
typedef Rackfish__Config__NodeDefaults defaults_t;
typedef Rackfish__Config__NodeGroup group_t;
typedef Rackfish__Config__TransportRule rule_t;
typedef Rackfish__Config__Rdma rdma_t;

static bool name_is_valid(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n >= RF_NAME_MAX || name[0] == '.' || name[0] == '-') return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static rf_err_t machine_name_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    const char *name = m->machine ? m->machine : "rackfish";
    if (!name_is_valid(name))
        return rf_reader_fail(reader, rf_reader_line(reader, m, "machine", 0),
                              "machine: '%.70s' is no name; use at most %d letters, digits, '-', '_' and '.'",
                              name, RF_NAME_MAX - 1);
    snprintf(config->machine, sizeof config->machine, "%s", name);
    return RF_OK;
}

static rf_err_t times_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    if (m->heartbeat_ms < HEARTBEAT_MS_MIN || m->heartbeat_ms > HEARTBEAT_MS_MAX)
        return rf_reader_fail(reader, rf_reader_line(reader, m, "heartbeat_ms", 0),
                              "heartbeat_ms: %u is out of range; write %d to %d", m->heartbeat_ms,
                              HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX);
    if (m->host_deadline_ms < HEARTBEATS_MIN * m->heartbeat_ms || m->host_deadline_ms > HOST_DEADLINE_MS_MAX)
        return rf_reader_fail(
            reader,
            rf_reader_line(reader, m, m->has_host_deadline_ms ? "host_deadline_ms" : "heartbeat_ms", 0),
            "host_deadline_ms: %u is out of range; write %u (%d heartbeats) to %d", m->host_deadline_ms,
            HEARTBEATS_MIN * m->heartbeat_ms, HEARTBEATS_MIN, HOST_DEADLINE_MS_MAX);
    if (m->election_ms < ELECTION_MS_MIN || m->election_ms > ELECTION_MS_MAX)
        return rf_reader_fail(reader, rf_reader_line(reader, m, "election_ms", 0),
                              "election_ms: %u is out of range; write %d to %d", m->election_ms,
                              ELECTION_MS_MIN, ELECTION_MS_MAX);
    config->election_ms = m->election_ms;
    config->heartbeat_ms = m->heartbeat_ms;
    config->host_deadline_ms = m->host_deadline_ms;
    if (m->lease_drift < LEASE_DRIFT_MIN || m->lease_drift > LEASE_DRIFT_MAX)
        return rf_reader_fail(reader, rf_reader_line(reader, m, "lease_drift", 0),
                              "lease_drift: %u is out of range; write %d to %d, in percent", m->lease_drift,
                              LEASE_DRIFT_MIN, LEASE_DRIFT_MAX);
    config->lease_ms = m->leases ? m->election_ms / 2 : 0;
    config->lease_drift = m->leases ? m->lease_drift : 0;
    config->leases_line = rf_reader_line(reader, m, "leases", 0);
    return RF_OK;
}

static rf_err_t users_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    if (m->n_users > RF_CONFIG_USERS_MAX)
        return rf_reader_fail(reader, rf_reader_line(reader, m, "users", RF_CONFIG_USERS_MAX),
                              "users: more than %d; name a group, as in \"@hpc\"", RF_CONFIG_USERS_MAX);
    for (size_t i = 0; i < m->n_users; i++) {
        const char *user = m->users[i];
        if (!name_is_valid(user[0] == '@' ? user + 1 : user) || strlen(user) >= RF_NAME_MAX)
            return rf_reader_fail(reader, rf_reader_line(reader, m, "users", (unsigned)i),
                                  "users: '%.70s' is no user name; write a login name, or \"@group\"", user);
        snprintf(config->users[config->n_users++], RF_NAME_MAX, "%s", user);
    }
    return RF_OK;
}

/* "64G", "512M", "16GiB", "none". */
bool rf_config_memory_decode(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    if (strcmp(text, "none") == 0) {
        *bytes = 0;
        return true;
    }
    size_t digits = strspn(text, "0123456789");
    const char *unit = text[digits] ? strchr(units, toupper((unsigned char)text[digits])) : NULL;
    if (digits == 0 || digits > 6 || !unit) return false;
    const char *rest = text + digits + 1;
    if (*rest && strcmp(rest, "iB") != 0 && strcmp(rest, "B") != 0) return false;
    uint64_t value = 0;
    for (size_t i = 0; i < digits; i++) value = value * 10 + (uint64_t)(text[i] - '0');
    *bytes = value << (10 * (unit - units + 1));
    return *bytes >= MEMORY_BYTES_MIN && *bytes <= MEMORY_BYTES_MAX;
}

static bool cpu_decode(const char **p, unsigned *cpu)
{
    unsigned value = 0, digits = 0;
    for (; **p >= '0' && **p <= '9' && digits < 5; (*p)++, digits++)
        value = value * 10 + (unsigned)(**p - '0');
    *cpu = value;
    return digits > 0 && value <= CPU_MAX;
}

/* "0-7,16-23" into cpus; returns NULL, or what is wrong. */
static const char *cpu_list_decode(const char *text, rf_config_node_t *node)
{
    for (const char *p = text;; p++) {
        unsigned low, high;
        if (!cpu_decode(&p, &low))
            return "is no list of CPUs; write all, a count such as 8, or a list such as \"0-7,16-23\"";
        high = low;
        if (*p == '-') {
            p++;
            if (!cpu_decode(&p, &high)) return "is no list of CPUs; write a range as 0-7";
        }
        if (high < low) return "has a range that goes down; write the lower CPU first";
        for (unsigned cpu = low; cpu <= high; cpu++) {
            if (node->n_cores == RF_CORES_PER_NODE_MAX)
                return "has more CPUs than a node may have cores (256); name fewer";
            node->cpus[node->n_cores++] = (uint16_t)cpu;
        }
        if (*p == '\0') return NULL;
        if (*p != ',') return "is no list of CPUs; separate them by ',' as in \"0-7,16-23\"";
    }
}

static const char *cores_decode(const char *text, bool emulated, rf_config_node_t *node)
{
    if (strcmp(text, "all") == 0) {
        node->cores_form = RF_CONFIG_CORES_ALL;
        return NULL;
    }
    if (strspn(text, "0123456789") == strlen(text)) {
        unsigned long count = strlen(text) <= 5 ? strtoul(text, NULL, 10) : RF_CORES_PER_NODE_MAX + 1;
        if (count == 0) return "is no number of cores; write 1 or more (a single CPU is written as \"0-0\")";
        if (count > RF_CORES_PER_NODE_MAX) return "is more than a node may have cores (256); write fewer";
        node->cores_form = RF_CONFIG_CORES_COUNT;
        for (; node->n_cores < count; node->n_cores++) node->cpus[node->n_cores] = node->n_cores;
        return NULL;
    }
    node->cores_form = RF_CONFIG_CORES_LIST;
    const char *wrong = cpu_list_decode(text, node);
    if (wrong || emulated) return wrong;
    for (unsigned i = 0; i < node->n_cores; i++) {
        for (unsigned j = 0; j < i; j++) {
            if (node->cpus[i] == node->cpus[j])
                return "names a CPU twice; name it once (only with 'emulated: on' may cores share CPUs)";
        }
    }
    return NULL;
}

/* `rdma` of a group, or else of `defaults`, as a whole; written as transport/rdma takes it. */
static rf_err_t rdma_validate(rf_reader_t *reader, const rdma_t *rdma, rf_config_node_t *node)
{
    const struct {
        const char *name;
        bool given;
        uint32_t value, least, most;
    } numbers[] = {
        {"port", rdma->has_port, rdma->port, 1, 254},
        {"gid_index", rdma->has_gid_index, rdma->gid_index, 0, 255},
        {"traffic_class", rdma->has_traffic_class, rdma->traffic_class, 0, 255},
        {"service_level", rdma->has_service_level, rdma->service_level, 0, 15},
        {"mtu", rdma->has_mtu, rdma->mtu, 256, 4096},
        {"pkey_index", rdma->has_pkey_index, rdma->pkey_index, 0, 65535},
    };
    static const char *const modes[] = {"auto", "send", "write"};
    char *text = node->rdma;
    size_t used = 0;
    if (rdma->device) {
        if (!name_is_valid(rdma->device))
            return rf_reader_fail(
                reader, rf_reader_line(reader, rdma, "device", 0),
                "rdma: device: '%.70s' is no name of a device; write one that `ibv_devices` lists",
                rdma->device);
        snprintf(node->rdma_device, sizeof node->rdma_device, "%s", rdma->device);
        used = (size_t)snprintf(text, sizeof node->rdma, "device=%s", rdma->device);
    }
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint32_t value = numbers[i].value;
        bool size = strcmp(numbers[i].name, "mtu") == 0;
        if (!numbers[i].given) continue;
        if (value < numbers[i].least || value > numbers[i].most || (size && (value & (value - 1)) != 0))
            return rf_reader_fail(reader, rf_reader_line(reader, rdma, numbers[i].name, 0),
                                  size ? "rdma: %s: %u is no size of a packet; write %u to %u, a power of two"
                                       : "rdma: %s: %u is out of range; write %u to %u",
                                  numbers[i].name, value, numbers[i].least, numbers[i].most);
        used += (size_t)snprintf(text + used, sizeof node->rdma - used, "%s%s=%u", used ? "," : "",
                                 numbers[i].name, value);
    }
    if (rdma->has_mode)
        used += (size_t)snprintf(text + used, sizeof node->rdma - used, "%smode=%s", used ? "," : "",
                                 modes[rdma->mode]);
    rf_assert(used < sizeof node->rdma);
    return RF_OK;
}

static const ProtobufCMessage *dpdk_of(const machine_t *m, const group_t *group)
{
    const Rackfish__Config__Dpdk *dpdk = group->dpdk ? group->dpdk : m->defaults ? m->defaults->dpdk : NULL;
    return dpdk ? &dpdk->base : NULL;
}

/* The parts of a group that all its nodes share, from the group or else from `defaults`. */
static rf_err_t group_common_validate(rf_reader_t *reader, const machine_t *m, const group_t *group,
                                      rf_config_node_t *node)
{
    const defaults_t *defaults = m->defaults;
    node->line = rf_reader_line(reader, group, "hosts", 0);

    const void *where = group->cores || !defaults || !defaults->cores ? (const void *)group : defaults;
    const char *cores = group->cores ? group->cores : defaults && defaults->cores ? defaults->cores : "all";
    node->cores_line = rf_reader_line(reader, where, "cores", 0);
    const char *wrong = cores_decode(cores, m->emulated, node);
    if (wrong) return rf_reader_fail(reader, node->cores_line, "cores: '%.60s' %s", cores, wrong);

    where = group->memory || !defaults || !defaults->memory ? (const void *)group : defaults;
    const char *memory = group->memory                  ? group->memory
                         : defaults && defaults->memory ? defaults->memory
                                                        : "none";
    if (!rf_config_memory_decode(memory, &node->memory_bytes))
        return rf_reader_fail(
            reader, rf_reader_line(reader, where, "memory", 0),
            "memory: '%.40s' is no size from 16M to 1024T; write a number and K, M, G or T, or none", memory);

    where = group->has_port || !defaults || !defaults->has_port ? (const void *)group : defaults;
    uint32_t port = group->has_port                  ? group->port
                    : defaults && defaults->has_port ? defaults->port
                                                     : PORT_DEFAULT;
    node->port_line = rf_reader_line(reader, where, "port", 0);
    if (port > UINT16_MAX || (port == 0 && !m->emulated))
        return rf_reader_fail(reader, node->port_line, "port: %u is out of range; write 1 to 65535", port);
    node->port = (uint16_t)port;
    node->witness = group->witness;
    node->witness_line = rf_reader_line(reader, group, "witness", 0);

    where = group->rdma || !defaults || !defaults->rdma ? (const void *)group : defaults;
    const rdma_t *rdma = group->rdma ? group->rdma : defaults ? defaults->rdma : NULL;
    node->rdma_line = rf_reader_line(reader, where, "rdma", 0);
    rf_err_t err = rdma ? rdma_validate(reader, rdma, node) : RF_OK;
    if (err != RF_OK) return err;

    where = group->dpdk || !defaults || !defaults->dpdk ? (const void *)group : defaults;
    const ProtobufCMessage *dpdk = dpdk_of(m, group);
    node->dpdk_line = rf_reader_line(reader, where, "dpdk", 0);
    return dpdk ? rf_config_dpdk_validate(reader, dpdk, node) : RF_OK;
}

/* Same host: names differ at most in case, or one port at one address. */
static bool address_equal(const char *a, const char *b)
{
    struct in6_addr a6, b6;
    struct in_addr a4, b4;
    if (inet_pton(AF_INET, a, &a4) == 1 && inet_pton(AF_INET, b, &b4) == 1) return a4.s_addr == b4.s_addr;
    if (inet_pton(AF_INET6, a, &a6) == 1 && inet_pton(AF_INET6, b, &b6) == 1)
        return memcmp(&a6, &b6, sizeof a6) == 0;
    return strcasecmp(a, b) == 0;
}

static bool address_is_valid(const char *address)
{
    struct in6_addr any;
    if (inet_pton(AF_INET, address, &any) == 1 || inet_pton(AF_INET6, address, &any) == 1) return true;
    /* Digits and dots that are no address are a mistake, not a name. */
    return name_is_valid(address) && strspn(address, "0123456789.") != strlen(address);
}

static rf_err_t node_add(rf_reader_t *reader, rf_config_t *config, const rf_config_node_t *fresh,
                         int address_line)
{
    if (!name_is_valid(fresh->name))
        return rf_reader_fail(reader, fresh->line,
                              "hosts: '%.70s' is no host name; use letters, digits, '-' and '.'",
                              fresh->name);
    if (!address_is_valid(fresh->address))
        return rf_reader_fail(reader, address_line,
                              "address: '%.70s' is neither an IP address nor a host name; mend it",
                              fresh->address);
    for (unsigned i = 0; i < config->n_nodes; i++) {
        const rf_config_node_t *other = &config->nodes[i];
        if (strcasecmp(other->name, fresh->name) == 0)
            return rf_reader_fail(reader, fresh->line, "host '%s' is already named in line %d; name it once",
                                  fresh->name, other->line);
        if (fresh->port != 0 && other->port == fresh->port && address_equal(other->address, fresh->address))
            return rf_reader_fail(
                reader, address_line,
                "host '%s' has address %s and port %u of host '%s' (line %d); give it its own", fresh->name,
                fresh->address, fresh->port, other->name, other->line);
    }
    if (config->n_nodes == RF_NODES_MAX)
        return rf_reader_fail(reader, fresh->line, "more than %d hosts; a machine has at most so many",
                              RF_NODES_MAX);
    config->nodes[config->n_nodes++] = *fresh;
    return RF_OK;
}

static rf_err_t hostlist_decode(rf_reader_t *reader, int line, const char *key, const char *text, char *names,
                                size_t *count)
{
    char cause[160];
    rf_err_t err = rf_hostlist_expand(text, names, RF_NAME_MAX, RF_NODES_MAX, count, cause, sizeof cause);
    if (err != RF_OK)
        return rf_reader_fail(reader, line, "%s: bad hostlist '%.60s': %s; write it like rack[01-16]", key,
                              text, cause);
    return RF_OK;
}

static rf_err_t group_validate(rf_reader_t *reader, const machine_t *m, unsigned index, rf_config_t *config)
{
    const group_t *group = m->nodes[index];
    char names[RF_NODES_MAX][RF_NAME_MAX], addresses[RF_NODES_MAX][RF_NAME_MAX];
    size_t n_names = 0, n_addresses = 0;
    rf_config_node_t common = {0};

    if (!group->hosts)
        return rf_reader_fail(reader, rf_reader_line(reader, group, NULL, 0),
                              "nodes[%u] has no hosts; add 'hosts: NAME' or a hostlist such as rack[01-16]",
                              index);
    rf_err_t err = group_common_validate(reader, m, group, &common);
    if (err != RF_OK) return err;
    err = hostlist_decode(reader, common.line, "hosts", group->hosts, names[0], &n_names);
    if (err != RF_OK) return err;
    int address_line = rf_reader_line(reader, group, group->address ? "address" : "hosts", 0);
    if (group->address) {
        err = hostlist_decode(reader, address_line, "address", group->address, addresses[0], &n_addresses);
        if (err != RF_OK) return err;
        if (n_addresses != n_names)
            return rf_reader_fail(reader, address_line,
                                  "address: %zu address(es) for %zu host(s); give one each", n_addresses,
                                  n_names);
    }
    unsigned first = config->n_nodes;
    for (size_t i = 0; i < n_names; i++) {
        rf_config_node_t node = common;
        snprintf(node.name, sizeof node.name, "%s", names[i]);
        snprintf(node.address, sizeof node.address, "%s", group->address ? addresses[i] : names[i]);
        err = node_add(reader, config, &node, address_line);
        if (err != RF_OK) return err;
    }
    const ProtobufCMessage *dpdk = dpdk_of(m, group);
    return dpdk ? rf_config_dpdk_addresses(reader, dpdk, config, first) : RF_OK;
}

rf_err_t rf_config_number_cores(rf_config_t *config)
{
    unsigned total = 0;
    for (unsigned i = 0; i < config->n_nodes; i++) total += config->nodes[i].n_cores;
    if (total > RF_CORES_MAX) return RF_ERR_LIMIT;
    rf_core_t next = 0;
    for (unsigned i = 0; i < config->n_nodes; i++) {
        config->nodes[i].first_core = next;
        next = (rf_core_t)(next + config->nodes[i].n_cores);
    }
    config->n_cores = next;
    return RF_OK;
}

static rf_err_t nodes_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    if (m->n_nodes == 0)
        return rf_reader_fail(reader, rf_reader_line(reader, m, "nodes", 0),
                              "no nodes; add 'nodes:' with an entry '- hosts: NAME'");
    for (unsigned i = 0; i < m->n_nodes; i++) {
        rf_err_t err = group_validate(reader, m, i, config);
        if (err != RF_OK) return err;
    }
    if (rf_config_number_cores(config) != RF_OK)
        return rf_reader_fail(reader, config->nodes[config->n_nodes - 1].cores_line,
                              "more than %d cores in all; a machine has at most so many", RF_CORES_MAX);
    return RF_OK;
}

/* "5", or "0,4,8" into voters; returns NULL, or what is wrong. */
static const char *voters_decode(const char *text, rf_config_t *config)
{
    unsigned value = 0, n = 0;
    const char *end = text;
    bool count = strspn(text, "0123456789") == strlen(text);
    do {
        unsigned digits = 0;
        for (value = 0; *end >= '0' && *end <= '9' && digits < 6; end++, digits++)
            value = value * 10 + (unsigned)(*end - '0');
        if (digits == 0)
            return "is neither a number nor a list of cores; write 5, or \"0,4,8\" for these cores";
        if (count) break;
        while (*end == ' ') end++;
        if (*end != ',' && *end != '\0')
            return "is no list of cores; separate their numbers by ',' as in \"0,4,8\"";
        if (n == RF_CONFIG_VOTERS_MAX) return "lists more voters than a machine may have (7); name fewer";
        for (unsigned i = 0; i < n; i++) {
            if (config->voters[i] == value) return "names a core twice; name it once";
        }
        if (value >= RF_CORES_MAX)
            return "names a core that no machine has; `rackfish cores` numbers them from 0";
        config->voters[n++] = (rf_core_t)value;
        if (*end == ',') {
            for (end++; *end == ' ';) end++;
            if (*end == '\0') break; /* "0," : this one core, not the first count */
        }
    } while (*end);
    config->n_voters = n;
    if (!count) config->voters_max = n;
    if (!count) return NULL;
    if (*end || value == 0 || value > RF_CONFIG_VOTERS_MAX)
        return "is out of range; write 1 to 7, or a list of cores such as \"0,4,8\"";
    config->voters_max = value;
    return NULL;
}

static bool cores_are_told(const rf_config_t *config)
{
    for (unsigned i = 0; i < config->n_nodes; i++) {
        if (config->nodes[i].n_cores == 0) return false;
    }
    return true;
}

static rf_err_t voters_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    int line = rf_reader_line(reader, m, "voters", 0);
    config->voters_max = RF_CONFIG_VOTERS_MAX;
    if (!m->voters) return RF_OK;
    const char *wrong = voters_decode(m->voters, config);
    if (wrong) return rf_reader_fail(reader, line, "voters: '%.60s' %s", m->voters, wrong);
    /* `cores: all` of another host is told when the hosts meet: rackfishd looks again. */
    for (unsigned i = 0; i < config->n_voters && cores_are_told(config); i++) {
        if (config->voters[i] >= config->n_cores)
            return rf_reader_fail(reader, line, "voters: there is no core %u; the machine has cores 0 to %u",
                                  config->voters[i], config->n_cores - 1u);
    }
    if (config->voters_max % 2 == 0)
        snprintf(config->warning, sizeof config->warning,
                 "%d: voters: an even number, %u, survives no more deaths than %u; %s", line,
                 config->voters_max, config->voters_max - 1,
                 config->voters_max == 2 ? "with two, nothing can be agreed on when either is dead; write 3"
                                         : "one of them stands by; write an odd number");
    return RF_OK;
}

/* Whether a core of that node may vote, as far as the configuration tells. */
static bool node_may_vote(const rf_config_t *config, const rf_config_node_t *node)
{
    if (config->n_voters == 0 || !cores_are_told(config)) return true;
    for (unsigned i = 0; i < config->n_voters; i++) {
        if (config->voters[i] >= node->first_core && config->voters[i] < node->first_core + node->n_cores)
            return true;
    }
    return false;
}

/* A witness adds a vote to those of two hosts or more. */
static rf_err_t witnesses_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    (void)m;
    unsigned others = 0;
    for (unsigned i = 0; i < config->n_nodes; i++) others += !config->nodes[i].witness;
    for (unsigned i = 0; i < config->n_nodes; i++) {
        const rf_config_node_t *node = &config->nodes[i];
        if (!node->witness) continue;
        if (others == 0)
            return rf_reader_fail(
                reader, node->witness_line,
                "witness: every host is one, and programs would go nowhere; leave it out for "
                "the hosts that are to run them");
        if (others == 1)
            return rf_reader_fail(reader, node->witness_line,
                                  "witness: beside '%s' there is only one host that is none, and losing that "
                                  "one stops everything; name another host, or leave it out",
                                  node->name);
        if (config->voters_max < 3)
            return rf_reader_fail(
                reader, node->witness_line,
                "witness: '%s' is of no use among fewer than three voters; write 'voters: 3' "
                "or more",
                node->name);
        if (!node_may_vote(config, node))
            return rf_reader_fail(
                reader, node->witness_line,
                "witness: 'voters' lists no core of '%s', which then does nothing; list one "
                "of its cores, from %u on",
                node->name, node->first_core);
    }
    return RF_OK;
}

/* Which nodes a hostlist of a rule names. */
static rf_err_t rule_side_decode(rf_reader_t *reader, const rule_t *rule, unsigned side,
                                 const rf_config_t *config, bool *named)
{
    char names[RF_NODES_MAX][RF_NAME_MAX];
    const char *known[RF_NODES_MAX];
    size_t n = 0;
    int line = rf_reader_line(reader, rule, "between", side);
    rf_err_t err = hostlist_decode(reader, line, "between", rule->between[side], names[0], &n);
    if (err != RF_OK) return err;
    for (unsigned i = 0; i < config->n_nodes; i++) known[i] = config->nodes[i].name;
    for (size_t i = 0; i < n; i++) {
        unsigned at = 0;
        while (at < config->n_nodes && strcasecmp(known[at], names[i]) != 0) at++;
        if (at == config->n_nodes) {
            const char *nearest = rf_reader_nearest(names[i], known, config->n_nodes);
            return rf_reader_fail(reader, line, "between: host '%s' is not among the nodes; %s%s%s", names[i],
                                  nearest ? "did you mean '" : "add it there", nearest ? nearest : "",
                                  nearest ? "'?" : "");
        }
        named[at] = true;
    }
    return RF_OK;
}

static rf_err_t rule_validate(rf_reader_t *reader, const rule_t *rule, rf_config_t *config)
{
    static const char *const media[] = {"tcp", "rdma", "dpdk"};
    int line = rf_reader_line(reader, rule, "use", 0);
    if (rule->n_between != 2)
        return rf_reader_fail(
            reader, rf_reader_line(reader, rule, "between", 0),
            "between: %zu hostlist(s); write two, as in [rack[01-08], rack[09-16]] with quotes",
            rule->n_between);
    if (!rule->use) return rf_reader_fail(reader, line, "a transport rule without 'use'; add 'use: tcp'");
    bool known = false;
    for (unsigned i = 0; i < sizeof media / sizeof *media; i++) known |= strcmp(rule->use, media[i]) == 0;
    if (!known) {
        const char *nearest = rf_reader_nearest(rule->use, media, sizeof media / sizeof *media);
        return rf_reader_fail(reader, line, "use: '%.20s' is no transport between hosts; did you mean '%s'?",
                              rule->use, nearest ? nearest : "tcp");
    }
    bool one[RF_NODES_MAX] = {false}, two[RF_NODES_MAX] = {false};
    rf_err_t err = rule_side_decode(reader, rule, 0, config, one);
    if (err == RF_OK) err = rule_side_decode(reader, rule, 1, config, two);
    if (err != RF_OK) return err;
    for (unsigned i = 0; i < config->n_nodes; i++) {
        for (unsigned j = 0; j < config->n_nodes; j++) {
            bool meant = (one[i] && two[j]) || (one[j] && two[i]);
            if (meant && i != j && config->medium[i][j][0] == '\0')
                snprintf(config->medium[i][j], sizeof config->medium[i][j], "%.15s", rule->use);
        }
    }
    return RF_OK;
}

/* Links over DPDK need a port at both ends. */
static rf_err_t ports_validate(rf_reader_t *reader, const rule_t *rule, const rf_config_t *config)
{
    for (unsigned i = 0; i < config->n_nodes && strcmp(rule->use, "dpdk") == 0; i++) {
        for (unsigned j = 0; j < config->n_nodes; j++) {
            if (strcmp(config->medium[i][j], "dpdk") != 0 || config->nodes[i].n_dpdk > 0) continue;
            return rf_reader_fail(
                reader, rf_reader_line(reader, rule, "use", 0),
                "use: dpdk: host '%s' has no port for it; add 'dpdk: {interface: eth1}' to its entry of "
                "nodes",
                config->nodes[i].name);
        }
    }
    return RF_OK;
}

static rf_err_t transports_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    for (size_t i = 0; i < m->n_transports; i++) {
        rf_err_t err = rule_validate(reader, m->transports[i], config);
        if (err == RF_OK) err = ports_validate(reader, m->transports[i], config);
        if (err != RF_OK) return err;
    }
    for (unsigned i = 0; i < config->n_nodes; i++) {
        for (unsigned j = 0; j < config->n_nodes; j++) {
            if (config->medium[i][j][0] == '\0')
                snprintf(config->medium[i][j], sizeof config->medium[i][j], "%s", i == j ? "shm" : "tcp");
        }
    }
    return RF_OK;
}

static rf_err_t plan_validate(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    const ProtobufCEnumDescriptor *plans = &rackfish__config__machine__plan__descriptor;
    const Rackfish__Config__Weights none = RACKFISH__CONFIG__WEIGHTS__INIT,
                                    *w = m->weights ? m->weights : &none;
    const bool weighted = m->plan == RACKFISH__CONFIG__MACHINE__PLAN__weighted;
    const struct {
        const char *name;
        uint32_t value;
    } weights[] = {{"package", w->package}, {"host", w->host}, {"between", w->between}};
    snprintf(config->plan, sizeof config->plan, "%s",
             protobuf_c_enum_descriptor_get_value(plans, m->plan)->name);
    if (m->weights && !weighted)
        return rf_reader_fail(reader, rf_reader_line(reader, m, "weights", 0),
                              "weights: they are of another plan; write plan: weighted, or leave them out");
    for (unsigned i = 0; i < 3 && weighted; i++) {
        if (weights[i].value < 1 || weights[i].value > RF_CONFIG_WEIGHT_MAX)
            return rf_reader_fail(reader, rf_reader_line(reader, w, weights[i].name, 0),
                                  "weights: %s: %u is out of range; write 1 to %d", weights[i].name,
                                  weights[i].value, RF_CONFIG_WEIGHT_MAX);
        config->weights[i] = (uint16_t)weights[i].value;
    }
    return RF_OK;
}

rf_err_t rf_config_validate(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_t *config)
{
    rf_assert(message->descriptor == &rackfish__config__machine__descriptor);
    const machine_t *m = (const machine_t *)message;
    static rf_err_t (*const steps[])(rf_reader_t *, const machine_t *, rf_config_t *) = {
        machine_name_validate, times_validate,     users_validate,      nodes_validate,
        voters_validate,       witnesses_validate, transports_validate, plan_validate,
    };
    config->encrypt = m->encrypt;
    config->allow_root = m->allow_root;
    config->emulated = m->emulated;
    config->one_sided = m->one_sided;
    config->log_level = (uint32_t)m->log_level;
    config->sched = (uint32_t)m->scheduler;
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        rf_err_t err = steps[i](reader, m, config);
        if (err != RF_OK) return err;
    }
    return RF_OK;
}
