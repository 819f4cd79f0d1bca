/* rackfish-dpdk: the link driver of one port (DPDK). See `--help` and transport/dpdk/dpdk.h. What it does is in loop.h. */
#include "base/clock.h"
#include "base/log.h"
#include "transport/dpdk/driver/ask.h"
#include "transport/dpdk/driver/loop.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sysexits.h>
#include <unistd.h>

#define UDP_PORT_DEFAULT   7118
#define MEMORY_MIB_DEFAULT 64
#define PREFIX_DEFAULT     24
#define MTU_MIN            1052 /* the smallest frame of a flow, with its IPv4 and UDP headers */
#define MTU_MAX            9244

enum { EXIT_USAGE = 2 };

typedef struct options {
    port_options_t port;
    server_options_t server;
    uint8_t mac[PACKET_MAC];
    bool has_address, json;
    const char *stats;
    int ready_fd;
} options_t;

static volatile sig_atomic_t stopping;

static void stop(int signal)
{
    (void)signal;
    stopping = 1;
}

/* --- options ------------------------------------------------------------------------------------------------ */

static const char usage[] =
    "usage: rackfish-dpdk --socket PATH --device DEVICE [options]\n"
    "       rackfish-dpdk --stats PATH [--json]\n"
    "The link driver of one port: carries the links of this host's monitors and domains over it. Started by "
    "rackfishd\n"
    "where the configuration says `dpdk:`.\n"
    "  --socket PATH     where processes of this host connect\n"
    "  --device DEVICE   as DPDK names it: a PCI address, 0000:03:00.0, or a virtual device, "
    "net_af_packet0,iface=eth1\n"
    "  --address A[/N]   IPv4 address of the port and length of its network's prefix (24); default: "
    "169.254.x.y/16,\n"
    "                    from its MAC address\n"
    "  --gateway A       IPv4 address by which other networks are reached\n"
    "  --udp-port N      on which frames are received (7118)\n"
    "  --mac M           instead of the port's\n"
    "  --mtu N           instead of the port's, 1052 to 9244\n"
    "  --memory MIB      for packets and queues (64)\n"
    "  --hugepages       from hugetlbfs; default: ordinary pages\n"
    "  --cpu N           which it runs on\n"
    "  --queues N        for receiving, if the port has so many: flows are spread over them, and one that "
    "overflows\n"
    "                    takes nothing from the others (1; packet and XDP sockets: all that there are)\n"
    "  --encrypt         slots are enciphered; default: frames are authenticated, and readable\n"
    "  --unsealed        frames may be neither: anybody on the wire can forge them. For measurements\n"
    "  --ready-fd N      a byte is written there when the socket listens\n"
    "  --stats PATH      print the counters of the driver that listens there; --json: as an object\n";

static bool number_take(const char *text, unsigned long least, unsigned long most, unsigned *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < least || value > most) return false;
    *out = (unsigned)value;
    return true;
}

static bool address_take(const char *text, packet_self_t *self)
{
    char address[INET_ADDRSTRLEN + 4];
    unsigned prefix = PREFIX_DEFAULT;
    snprintf(address, sizeof address, "%s", text);
    char *slash = strchr(address, '/');
    if (slash) {
        *slash = 0;
        if (!number_take(slash + 1, 1, 32, &prefix)) return false;
    }
    self->prefix = (uint8_t)prefix;
    return inet_pton(AF_INET, address, self->ipv4) == 1 && self->ipv4[0] != 0 && self->ipv4[0] < 224;
}

static bool mac_take(const char *text, uint8_t mac[PACKET_MAC])
{
    int end = 0;
    int n = sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
                   &mac[5], &end);
    return n == PACKET_MAC && text[end] == 0 && !(mac[0] & 1);
}

static const struct option names[] = {
    {"socket", 1, NULL, 's'},  {"device", 1, NULL, 'd'},   {"address", 1, NULL, 'a'},
    {"gateway", 1, NULL, 'g'}, {"udp-port", 1, NULL, 'u'}, {"mac", 1, NULL, 'm'},
    {"mtu", 1, NULL, 't'},     {"memory", 1, NULL, 'M'},   {"hugepages", 0, NULL, 'H'},
    {"cpu", 1, NULL, 'c'},     {"encrypt", 0, NULL, 'e'},  {"unsealed", 0, NULL, 'n'},
    {"queues", 1, NULL, 'q'},  {"ready-fd", 1, NULL, 'r'}, {"stats", 1, NULL, 'S'},
    {"json", 0, NULL, 'j'},    {"help", 0, NULL, 'h'},     {NULL, 0, NULL, 0}};

static bool option_take(int name, const char *value, options_t *out)
{
    unsigned n;
    bool right = true;
    packet_self_t *self = &out->server.self;
    switch (name) {
    case 's':
        out->server.socket = value;
        break;
    case 'd':
        out->port.device = value;
        break;
    case 'a':
        out->has_address = right = address_take(value, self);
        break;
    case 'g':
        right = inet_pton(AF_INET, value, self->gateway) == 1;
        break;
    case 'u':
        right = number_take(value, 1, UINT16_MAX, &n);
        if (right) self->udp_port = (uint16_t)n;
        break;
    case 'm':
        right = mac_take(value, out->mac);
        out->port.mac = out->mac;
        break;
    case 't':
        right = number_take(value, MTU_MIN, MTU_MAX, &out->port.mtu);
        break;
    case 'M':
        right = number_take(value, 16, 1 << 20, &out->port.memory_mib);
        break;
    case 'H':
        out->port.hugepages = true;
        break;
    case 'c':
        right = number_take(value, 0, UINT16_MAX, &n);
        if (right) out->port.cpu = (int)n;
        break;
    case 'e':
        out->server.seal = RF_SEAL_ENCRYPT;
        break;
    case 'n':
        out->server.seal = RF_SEAL_NONE;
        break;
    case 'q':
        right = number_take(value, 1, RF_DPDK_QUEUES_MAX, &out->port.queues);
        break;
    case 'r':
        right = number_take(value, 0, 1 << 20, &n);
        if (right) out->ready_fd = (int)n;
        break;
    case 'S':
        out->stats = value;
        break;
    case 'j':
        out->json = true;
        break;
    default:
        return false;
    }
    if (!right) fprintf(stderr, "rackfish-dpdk: \"%s\" is no value for that option; see --help\n", value);
    return right;
}

/* 0, or the status to exit with. */
static int options_take(int argc, char **argv, options_t *out)
{
    *out = (options_t){.port = {.cpu = -1, .memory_mib = MEMORY_MIB_DEFAULT},
                       .server = {.seal = RF_SEAL_SIGN, .self = {.udp_port = UDP_PORT_DEFAULT}},
                       .ready_fd = -1};
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (name == 'h') {
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        }
        if (!option_take(name, optarg, out)) return EXIT_USAGE;
    }
    bool whole = optind == argc && (out->stats || (out->server.socket && out->port.device));
    if (!whole) fputs(usage, stderr);
    return whole ? 0 : EXIT_USAGE;
}

/* --- the program -------------------------------------------------------------------------------------------- */

static void address_default(const uint8_t *mac, packet_self_t *self)
{
    const uint8_t local[4] = {169, 254, (uint8_t)(mac[4] % 254 + 1), mac[5]};
    memcpy(self->ipv4, local, sizeof local);
    self->prefix = 16;
}

static void signals_set(void)
{
    struct sigaction end = {.sa_handler = stop}, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

static rf_err_t run(options_t *options)
{
    char prefix[32];
    port_t *port;
    server_t *server = NULL;
    loop_t *loop = NULL;
    if (ask_is_there(options->server.socket)) {
        rf_log(RF_LOG_ERROR, "a link driver serves %s already: stop it first", options->server.socket);
        return RF_ERR_EXISTS;
    }
    snprintf(prefix, sizeof prefix, "rackfish-%d", getpid());
    options->port.file_prefix = prefix;
    rf_err_t err = port_open(&options->port, &port);
    if (err != RF_OK) return err;
    packet_self_t *self = &options->server.self;
    memcpy(self->mac, port_mac(port), sizeof self->mac);
    if (!options->has_address) address_default(self->mac, self);
    if (port_mtu(port) < MTU_MIN) {
        rf_log(RF_LOG_ERROR,
               "the port's MTU is %u; it has to be at least %u: `ip link set DEV mtu 1500`, or where the "
               "kernel does not "
               "have it, `mtu: 1500` of the port in the configuration",
               port_mtu(port), MTU_MIN);
        err = RF_ERR_CONFIG;
    }
    if (err == RF_OK) err = server_open(&options->server, port, &server);
    if (err == RF_OK) err = loop_open(port, server, &loop);
    if (err == RF_OK) {
        rf_log(RF_LOG_INFO,
               "%s is %02x:%02x:%02x:%02x:%02x:%02x, %u.%u.%u.%u/%u, UDP port %u, MTU %u, %u queue%s (%s%s)",
               options->port.device, self->mac[0], self->mac[1], self->mac[2], self->mac[3], self->mac[4],
               self->mac[5], self->ipv4[0], self->ipv4[1], self->ipv4[2], self->ipv4[3], self->prefix,
               self->udp_port, port_mtu(port), port_queues(port), port_queues(port) == 1 ? "" : "s",
               port_driver(port), loop_is_blind(loop) ? "; it says not when packets come" : "");
        if (options->ready_fd >= 0) {
            if (write(options->ready_fd, "r", 1) != 1) rf_log(RF_LOG_WARN, "nobody hears that it is ready");
            close(options->ready_fd);
        }
        loop_run(loop, &stopping);
    }
    if (server) server_close(server);
    if (loop) loop_close(loop);
    port_close(port);
    return err;
}

int main(int argc, char **argv)
{
    options_t options;
    rf_log_init("dpdk", RF_LOG_INFO);
    int status = options_take(argc, argv, &options);
    if (status != 0) return status;
    if (options.stats) return ask_stats(options.stats, options.json) == RF_OK ? EXIT_SUCCESS : EXIT_FAILURE;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    signals_set();
    rf_err_t err = run(&options);
    return err == RF_OK ? EXIT_SUCCESS : err == RF_ERR_BUSY ? EX_TEMPFAIL : EXIT_FAILURE;
}
