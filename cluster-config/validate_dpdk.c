/* What the schema cannot say of `dpdk`: which device it means, and ranges. Works on the text alone. */
#include "cluster-config/parse.h"

#include "base/assert.h"
#include "cluster-config/hostlist.h"
#include "config.pb-c.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTERFACE_MAX 15
#define MTU_MIN       1280
#define MTU_MAX       9000
#define MEMORY_MIN    (32ull << 20)
#define MEMORY_MAX    (64ull << 30)
#define CPU_MAX       4095
#define PREFIX_MAX    32

typedef Rackfish__Config__Dpdk dpdk_t;

static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

typedef struct pci {
    unsigned domain, bus, device, function;
} pci_t;

/* "0000:03:00.0", or "03:00.0" of domain 0. */
static bool pci_read(const char *text, pci_t *out)
{
    int end = -1;
    if (sscanf(text, "%4x:%2x:%2x.%1u%n", &out->domain, &out->bus, &out->device, &out->function, &end) == 4 &&
        end > 0 && text[end] == 0)
        return out->function < 8;
    end = -1;
    out->domain = 0;
    return sscanf(text, "%2x:%2x.%1u%n", &out->bus, &out->device, &out->function, &end) == 3 && end > 0 &&
           text[end] == 0 && out->function < 8;
}

/* A virtual device as the EAL's --vdev has it: "net_memif0,role=server,socket=/run/x". */
static bool is_vdev(const char *text)
{
    return strncmp(text, "net_", 4) == 0 && strspn(text, word) < strlen(text) && strspn(text + 4, word) > 0 &&
           !strpbrk(text, " \t\n'\"\\;&|<>$`");
}

static rf_err_t device_validate(rf_reader_t *reader, const dpdk_t *dpdk, rf_config_dpdk_t *out)
{
    static const char *const drivers[] = {"net_af_packet0", "net_af_xdp0"};
    int line = rf_reader_line(reader, dpdk, dpdk->device ? "device" : "interface", 0);
    pci_t pci;
    if (!dpdk->device && !dpdk->interface)
        return rf_reader_fail(
            reader, line,
            "dpdk: it names no port; add 'interface: eth1', or 'device:' with a PCI address or "
            "what DPDK's --vdev takes");
    if (dpdk->device && (dpdk->interface || dpdk->has_driver))
        return rf_reader_fail(
            reader, line,
            "dpdk: device: it stands beside 'interface' or 'driver'; write the one or the other");
    if (dpdk->device) {
        if (strlen(dpdk->device) >= sizeof out->device ||
            (!pci_read(dpdk->device, &pci) && !is_vdev(dpdk->device)))
            return rf_reader_fail(
                reader, line,
                "dpdk: device: '%.70s' is neither a PCI address such as \"0000:03:00.0\" nor a "
                "virtual device such as \"net_memif0,role=server,socket=/run/wire\"",
                dpdk->device);
        snprintf(out->device, sizeof out->device, "%s", dpdk->device);
        return RF_OK;
    }
    size_t n = strlen(dpdk->interface);
    if (n == 0 || n > INTERFACE_MAX || strspn(dpdk->interface, word) == 0 ||
        strpbrk(dpdk->interface, " /,=:\t\n'\"\\"))
        return rf_reader_fail(
            reader, line,
            "dpdk: interface: '%.40s' is no name of a network interface; write one that `ip link` shows",
            dpdk->interface);
    snprintf(out->interface, sizeof out->interface, "%s", dpdk->interface);
    int used =
        snprintf(out->device, sizeof out->device, "%s,iface=%s", drivers[dpdk->driver], dpdk->interface);
    if (dpdk->has_queues && dpdk->driver == RACKFISH__CONFIG__DPDK__DRIVER__af_packet)
        snprintf(out->device + used, sizeof out->device - (size_t)used, ",qpairs=%u", dpdk->queues);
    return RF_OK;
}

static rf_err_t numbers_validate(rf_reader_t *reader, const dpdk_t *dpdk, rf_config_dpdk_t *out)
{
    const struct {
        const char *name;
        bool given;
        uint32_t value, least, most;
    } numbers[] = {
        {"udp_port", true, dpdk->udp_port, 1, UINT16_MAX},
        {"mtu", dpdk->has_mtu, dpdk->mtu, MTU_MIN, MTU_MAX},
        {"cpu", dpdk->has_cpu, dpdk->cpu, 0, CPU_MAX},
        {"queues", dpdk->has_queues, dpdk->queues, 1, RF_DPDK_QUEUES_MAX},
    };
    uint64_t bytes = 0;
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (!numbers[i].given ||
            (numbers[i].value >= numbers[i].least && numbers[i].value <= numbers[i].most))
            continue;
        return rf_reader_fail(reader, rf_reader_line(reader, dpdk, numbers[i].name, 0),
                              "dpdk: %s: %u is out of range; write %u to %u", numbers[i].name,
                              numbers[i].value, numbers[i].least, numbers[i].most);
    }
    if (dpdk->memory &&
        (!rf_config_memory_decode(dpdk->memory, &bytes) || bytes < MEMORY_MIN || bytes > MEMORY_MAX))
        return rf_reader_fail(reader, rf_reader_line(reader, dpdk, "memory", 0),
                              "dpdk: memory: '%.40s' is no size from 32M to 64G; write a number and M or G",
                              dpdk->memory);
    out->udp_port = (uint16_t)dpdk->udp_port;
    out->mtu = dpdk->has_mtu ? (uint16_t)dpdk->mtu : 0;
    out->cpu = dpdk->has_cpu ? (int)dpdk->cpu : -1;
    out->memory_mib = (uint32_t)(bytes >> 20);
    out->queues = dpdk->has_queues ? dpdk->queues : 0;
    out->hugepages = dpdk->hugepages;
    out->encrypt = dpdk->encrypt;
    return RF_OK;
}

static rf_err_t gateway_validate(rf_reader_t *reader, const dpdk_t *dpdk, rf_config_dpdk_t *out)
{
    struct in_addr any;
    if (!dpdk->gateway) return RF_OK;
    if (inet_pton(AF_INET, dpdk->gateway, &any) != 1 || !dpdk->address)
        return rf_reader_fail(reader, rf_reader_line(reader, dpdk, "gateway", 0), "dpdk: gateway: '%.40s' %s",
                              dpdk->gateway,
                              dpdk->address ? "is no IPv4 address; write one such as 10.1.0.1"
                                            : "goes with an 'address' of the port; add it");
    snprintf(out->gateway, sizeof out->gateway, "%s", dpdk->gateway);
    return RF_OK;
}

static rf_err_t port_validate(rf_reader_t *reader, const dpdk_t *dpdk, rf_config_dpdk_t *out)
{
    rf_err_t err = device_validate(reader, dpdk, out);
    if (err == RF_OK) err = numbers_validate(reader, dpdk, out);
    return err == RF_OK ? gateway_validate(reader, dpdk, out) : err;
}

/* Which of its keys stands beside `ports`; NULL: none. */
static const char *beside_ports(const dpdk_t *dpdk)
{
    const struct {
        const char *name;
        bool given;
    } keys[] = {
        {"interface", dpdk->interface}, {"driver", dpdk->has_driver},
        {"device", dpdk->device},       {"address", dpdk->address},
        {"gateway", dpdk->gateway},     {"udp_port", dpdk->has_udp_port},
        {"mtu", dpdk->has_mtu},         {"memory", dpdk->memory},
        {"cpu", dpdk->has_cpu},         {"hugepages", dpdk->has_hugepages},
        {"encrypt", dpdk->has_encrypt}, {"queues", dpdk->has_queues},
    };
    for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (keys[i].given) return keys[i].name;
    }
    return NULL;
}

/* What a port is called on its host: its interface, also where `device` says it in the EAL's words; else its device. */
static void place_of(const rf_config_dpdk_t *port, char *out, size_t max)
{
    static const char iface[] = "iface=";
    pci_t pci;
    const char *word_at = strncmp(port->device, "net_af_", 7) == 0 ? strstr(port->device, iface) : NULL;
    if (word_at) {
        word_at += sizeof iface - 1;
        snprintf(out, max, "%.*s", (int)strcspn(word_at, ","), word_at);
    } else if (pci_read(port->device, &pci)) {
        snprintf(out, max, "%04x:%02x:%02x.%u", pci.domain, pci.bus, pci.device, pci.function);
    } else {
        snprintf(out, max, "%s", port->device);
    }
}

/* A port has one link driver. */
static rf_err_t others_validate(rf_reader_t *reader, const dpdk_t *dpdk, const rf_config_dpdk_t *ports,
                                unsigned index)
{
    char place[sizeof ports->device], other[sizeof place];
    place_of(&ports[index], place, sizeof place);
    for (unsigned i = 0; i < index; i++) {
        place_of(&ports[i], other, sizeof other);
        if (strcmp(place, other) == 0)
            return rf_reader_fail(reader, rf_reader_line(reader, dpdk, "ports", index),
                                  "dpdk: ports: %.80s is there twice; name each once", place);
    }
    return RF_OK;
}

/* Ports of one node: by their networks links choose among them. */
static rf_err_t several_validate(rf_reader_t *reader, const dpdk_t *dpdk, rf_config_node_t *out)
{
    const char *beside = beside_ports(dpdk);
    int line = rf_reader_line(reader, dpdk, "ports", 0);
    if (beside)
        return rf_reader_fail(reader, rf_reader_line(reader, dpdk, beside, 0),
                              "dpdk: %s: it stands beside 'ports'; write it with each port that it is for",
                              beside);
    if (dpdk->n_ports > RF_DPDK_PORTS_MAX)
        return rf_reader_fail(reader, line, "dpdk: ports: %zu of them; a node has at most %d", dpdk->n_ports,
                              RF_DPDK_PORTS_MAX);
    for (unsigned i = 0; i < dpdk->n_ports; i++) {
        const dpdk_t *port = dpdk->ports[i];
        line = rf_reader_line(reader, dpdk, "ports", i);
        if (port->n_ports > 0)
            return rf_reader_fail(reader, line, "dpdk: ports: a port has none of its own; remove them");
        if (dpdk->n_ports > 1 && !port->address)
            return rf_reader_fail(reader, line,
                                  "dpdk: ports: of several each has an address, by which links choose; add "
                                  "'address: 10.1.0.7/24'");
        rf_err_t err = port_validate(reader, port, &out->dpdk[i]);
        if (err == RF_OK) err = others_validate(reader, dpdk, out->dpdk, i);
        if (err != RF_OK) return err;
    }
    out->n_dpdk = (unsigned)dpdk->n_ports;
    return RF_OK;
}

rf_err_t rf_config_dpdk_validate(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_node_t *out)
{
    rf_assert(message->descriptor == &rackfish__config__dpdk__descriptor);
    const dpdk_t *dpdk = (const dpdk_t *)message;
    if (dpdk->n_ports > 0) return several_validate(reader, dpdk, out);
    out->n_dpdk = 1;
    return port_validate(reader, dpdk, &out->dpdk[0]);
}

/* "10.1.0.[1-16]/24": the hostlist, and where its prefix begins. */
static const char *prefix_of(const char *text, char *list, size_t max)
{
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    if (n >= max) return NULL;
    memcpy(list, text, n);
    list[n] = 0;
    return slash ? slash + 1 : "";
}

/* Whose that address is; NULL: nobody's yet. */
static const rf_config_node_t *owner_of(const rf_config_t *config, const char *address)
{
    size_t n = strlen(address);
    for (unsigned i = 0; i < config->n_nodes; i++) {
        for (unsigned port = 0; port < config->nodes[i].n_dpdk; port++) {
            const char *other = config->nodes[i].dpdk[port].address;
            if (strncmp(other, address, n) == 0 && (other[n] == 0 || other[n] == '/'))
                return &config->nodes[i];
        }
    }
    return NULL;
}

/* Of the port of that number of each node from `first` on. */
static rf_err_t addresses_take(rf_reader_t *reader, const dpdk_t *dpdk, unsigned port, rf_config_t *config,
                               unsigned first)
{
    rf_config_node_t *nodes = &config->nodes[first];
    size_t n_nodes = config->n_nodes - first;
    char list[256], cause[160], names[RF_NODES_MAX][RF_NAME_MAX];
    size_t n = 0;
    if (!dpdk->address) return RF_OK;
    int line = rf_reader_line(reader, dpdk, "address", 0);
    const char *prefix = prefix_of(dpdk->address, list, sizeof list);
    if (!prefix || (*prefix && (strspn(prefix, "0123456789") != strlen(prefix) || strlen(prefix) > 2 ||
                                strtoul(prefix, NULL, 10) > PREFIX_MAX)))
        return rf_reader_fail(reader, line, "dpdk: address: '%.60s' has no prefix such as /24 at its end",
                              dpdk->address);
    if (rf_hostlist_expand(list, names[0], RF_NAME_MAX, RF_NODES_MAX, &n, cause, sizeof cause) != RF_OK)
        return rf_reader_fail(reader, line,
                              "dpdk: address: bad hostlist '%.60s': %s; write it like 10.1.0.[1-16]/24",
                              dpdk->address, cause);
    if (n != n_nodes)
        return rf_reader_fail(reader, line, "dpdk: address: %zu address(es) for %zu host(s); give one each",
                              n, n_nodes);
    for (size_t i = 0; i < n; i++) {
        struct in_addr any;
        if (inet_pton(AF_INET, names[i], &any) != 1)
            return rf_reader_fail(reader, line,
                                  "dpdk: address: '%.60s' is no IPv4 address; write one such as 10.1.0.7/24",
                                  names[i]);
        const rf_config_node_t *owner = owner_of(config, names[i]);
        if (owner)
            return rf_reader_fail(reader, line,
                                  "dpdk: address: %s of host '%s' is an address of host '%s' already; give "
                                  "each port its own",
                                  names[i], nodes[i].name, owner->name);
        snprintf(nodes[i].dpdk[port].address, sizeof nodes[i].dpdk[port].address, "%.15s%s%s", names[i],
                 *prefix ? "/" : "", prefix);
    }
    return RF_OK;
}

rf_err_t rf_config_dpdk_addresses(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_t *config,
                                  unsigned first)
{
    const dpdk_t *dpdk = (const dpdk_t *)message;
    rf_err_t err = RF_OK;
    if (dpdk->n_ports == 0) return addresses_take(reader, dpdk, 0, config, first);
    for (unsigned i = 0; i < dpdk->n_ports && err == RF_OK; i++)
        err = addresses_take(reader, dpdk->ports[i], i, config, first);
    return err;
}
