/* The command line of rf-lab, and its help. */
#include "lab/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS_DEFAULT  2
#define MEMORY_DEFAULT 256
#define MEMORY_MIN     128
#define MTU_DEFAULT    9000

void lab_print_help(FILE *out)
{
    fputs(
        "Usage: rackfish lab rdma|dpdk [OPTION]... [-- COMMAND [ARGUMENT]...]\n"
        "       rackfish lab COMMAND [OPTION]... [ARGUMENT]...\n"
        "\n"
        "A rack of Linux hosts on this one, on this host's files, which each sees read-only below what it "
        "writes.\n"
        "With RDMA devices each host is Linux itself as a process, with Soft-RoCE or soft-iWARP; with ports "
        "for DPDK\n"
        "it is a network namespace, and all are joined by one wire that can be made bad.\n"
        "\n"
        "  rdma              boots a lab; then a shell in guest 1, or COMMAND there and its exit status, and "
        "ends it\n"
        "  dpdk              the same, of hosts with ports for DPDK (takes root)\n"
        "  rdma -d, dpdk -d  boots a lab in the background, until `down`\n"
        "  exec N -- COMMAND runs a command in guest N as if it were here; its exit status\n"
        "  machine           makes one Rackfish machine of the guests (in the foreground `rdma` and `dpdk` "
        "do "
        "it\n"
        "                    themselves)\n"
        "  status            shows the guests; with --json as one object\n"
        "  cut A [B]         cuts the cable between guests A and B, or all cables of A\n"
        "  heal A [B]        mends it\n"
        "  wire [OPTION]...  dpdk: makes the wire between the hosts bad; without an option good again\n"
        "  kill N  boot N    pulls the plug of a guest, and starts it again with nothing kept\n"
        "  freeze N  thaw N  stops a guest in its tracks, and lets it go on\n"
        "  down              ends the lab; nothing is left\n"
        "  kernel            builds the guests' kernel, if there is none yet, and prints where it is\n"
        "\n"
        "Options:\n"
        "      --hosts N         guests, 2 to 5, of dpdk to 9 (default 2)\n"
        "      --device D        rdma: rxe (Soft-RoCE, default), siw (soft-iWARP), both, or none\n"
        "      --memory MIB      rdma: of each guest (default 256)\n"
        "      --mtu N           of the network (default 9000, an RDMA MTU of 4096; dpdk: 1500)\n"
        "      --name NAME       which lab of this host (default: lab)\n"
        "      --transport T     the machine's links between hosts: the lab's own, dpdk or rdma "
        "(default; on siw\n"
        "                        tcp), or tcp\n"
        "      --kernel K        rdma: uml, a kernel built for it (default), or stock, Debian's own in QEMU, "
        "slower; the\n"
        "                        other way is taken by itself where none can be built\n"
        "      --driver D        dpdk: of the machine's ports: af_packet (default) or af_xdp\n"
        "      --ports N         dpdk: of each host: 1 (default) or 2, with af_packet\n"
        "      --one-sided V     on or off (default): the machine's leaders write into voters' logs (rdma)\n"
        "      --no-machine      rdma, dpdk: leave the guests as they are\n"
        "  -d, --detach          rdma, dpdk: in the background\n"
        "      --while PID       rdma, dpdk, with -d: end the lab when that process ends\n"
        "  -t, --terminal        exec: give the command a terminal\n"
        "      --timeout SECONDS exec: kill the command when that has passed, and show what\n"
        "                        runs in its guest, or where that is (status 124)\n"
        "      --json            status: as JSON\n"
        "      --loss P          wire: P percent of the frames are lost, from 0.01 on\n"
        "      --burst N         wire: N of them in a row\n"
        "      --duplicate P     wire: P percent come twice\n"
        "      --reorder P       wire: P percent are overtaken by those that follow\n"
        "      --rate MBIT       wire: so many Mbit/s to each host, with 256 KiB of queue\n"
        "\n"
        "The first lab with RDMA devices builds its kernel, in about 7 minutes on two CPUs, and keeps it "
        "below\n"
        "~/.cache/rackfish.\n"
        "Exit status: the command's; 1 failed, 2 wrong usage, 3 no such lab, 77 this host cannot have one,\n"
        "124 time has passed, 125 the guest is off.\n",
        out);
}

enum {
    OPTION_HOSTS = 256,
    OPTION_DEVICE,
    OPTION_MEMORY,
    OPTION_MTU,
    OPTION_NAME,
    OPTION_TRANSPORT,
    OPTION_NO_MACHINE,
    OPTION_ONE_SIDED,
    OPTION_WHILE,
    OPTION_TIMEOUT,
    OPTION_JSON,
    OPTION_DRIVER,
    OPTION_PORTS,
    OPTION_KERNEL,
    OPTION_LOSS,
    OPTION_DUPLICATE,
    OPTION_REORDER,
    OPTION_BURST,
    OPTION_RATE,
};

int lab_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("rf-lab: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; `rackfish lab --help` explains\n", stderr);
    va_end(args);
    return LAB_USAGE;
}

bool lab_number(const char *text, unsigned long min, unsigned long max, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < min || value > max) return false;
    *out = (unsigned)value;
    return true;
}

static bool one_of(const char *word, const char *list)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at++) {
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0') && n) return true;
    }
    return false;
}

/* "0.1", "25": in hundredths of a percent. */
static bool percent(const char *text, unsigned *out)
{
    char *end;
    double value = strtod(text, &end);
    if (*text < '0' || *text > '9' || *end || !(value >= 0 && value <= 100)) return false;
    *out = (unsigned)(value * 100 + 0.5);
    return true;
}

static int parse_wire_option(rf_lab_t *lab, int c)
{
    const struct {
        int option;
        const char *name;
        unsigned *value;
    } percents[] = {{OPTION_LOSS, "loss", &lab->wire.loss},
                    {OPTION_DUPLICATE, "duplicate", &lab->wire.duplicate},
                    {OPTION_REORDER, "reorder", &lab->wire.reorder}};
    lab->wire.given = true;
    for (unsigned i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        if (percents[i].option == c && !percent(optarg, percents[i].value))
            return lab_usage("--%s takes percent, 0 to 100, not \"%s\"", percents[i].name, optarg);
    }
    if (c == OPTION_BURST && !lab_number(optarg, 1, 1000, &lab->wire.burst))
        return lab_usage("--burst takes 1 to 1000 frames, not \"%s\"", optarg);
    if (c == OPTION_RATE && !lab_number(optarg, 1, 100000, &lab->wire.rate_mbit))
        return lab_usage("--rate takes 1 to 100000 Mbit/s, not \"%s\"", optarg);
    return LAB_OK;
}

static int parse_option(rf_lab_t *lab, int c)
{
    unsigned owner;
    switch (c) {
    case OPTION_HOSTS:
        if (!lab_number(optarg, 2, LAB_HOSTS_MAX - 1, &lab->options.hosts))
            return lab_usage("--hosts takes 2 to %d, of guests with a kernel of their own %d, not \"%s\"",
                             LAB_HOSTS_MAX - 1, LAB_GUESTS_MAX, optarg);
        break;
    case OPTION_DEVICE:
        if (!one_of(optarg, "rxe siw both none"))
            return lab_usage("no device \"%s\": rxe, siw, both or none", optarg);
        lab->options.device = optarg;
        break;
    case OPTION_MEMORY:
        if (!lab_number(optarg, MEMORY_MIN, 65536, &lab->options.memory_mib))
            return lab_usage("--memory takes MiB from %d on, not \"%s\"", MEMORY_MIN, optarg);
        break;
    case OPTION_MTU:
        if (!lab_number(optarg, 1280, 9000, &lab->options.mtu))
            return lab_usage("--mtu takes 1280 to 9000, not \"%s\"", optarg);
        lab->mtu_given = true;
        break;
    case OPTION_NAME:
        if (!*optarg || strlen(optarg) > 40 ||
            strspn(optarg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") !=
                strlen(optarg))
            return lab_usage("\"%s\" is no name for a lab: letters, digits, - and _ only", optarg);
        lab->options.name = optarg;
        break;
    case OPTION_TRANSPORT:
        if (!one_of(optarg, "rdma dpdk tcp"))
            return lab_usage("no transport \"%s\": rdma, dpdk or tcp", optarg);
        lab->transport = optarg;
        break;
    case OPTION_ONE_SIDED:
        if (!one_of(optarg, "on off")) return lab_usage("--one-sided takes on or off, not \"%s\"", optarg);
        lab->one_sided = strcmp(optarg, "on") == 0;
        break;
    case OPTION_NO_MACHINE:
        lab->machine = false;
        break;
    case 'd':
        lab->options.background = true;
        break;
    case OPTION_WHILE:
        if (!lab_number(optarg, 1, 1u << 30, &owner))
            return lab_usage("--while takes a process, not \"%s\"", optarg);
        lab->options.owner = (pid_t)owner;
        break;
    case 't':
        lab->terminal = true;
        break;
    case OPTION_TIMEOUT:
        if (!lab_number(optarg, 1, 1000000, &lab->timeout_s))
            return lab_usage("--timeout takes seconds, not \"%s\"", optarg);
        break;
    case OPTION_JSON:
        lab->json = true;
        break;
    case OPTION_DRIVER:
        if (!one_of(optarg, "af_packet af_xdp"))
            return lab_usage("no driver \"%s\": af_packet or af_xdp", optarg);
        lab->driver = optarg;
        break;
    case OPTION_PORTS:
        if (!lab_number(optarg, 1, 2, &lab->ports))
            return lab_usage("--ports takes 1 or 2, not \"%s\"", optarg);
        break;
    case OPTION_KERNEL:
        if (!one_of(optarg, "uml stock")) return lab_usage("no kernel \"%s\": uml or stock", optarg);
        lab->kernel = optarg;
        break;
    case OPTION_LOSS:
    case OPTION_DUPLICATE:
    case OPTION_REORDER:
    case OPTION_BURST:
    case OPTION_RATE:
        return parse_wire_option(lab, c);
    case ':':
        return lab_usage("option %s needs an argument", lab->words[optind - 1]);
    default:
        return lab_usage("unknown option %s", lab->words[optind - 1]);
    }
    return LAB_OK;
}

void lab_options_init(rf_lab_t *lab)
{
    *lab = (rf_lab_t){.options = {.name = "lab",
                                  .hosts = HOSTS_DEFAULT,
                                  .memory_mib = MEMORY_DEFAULT,
                                  .mtu = MTU_DEFAULT,
                                  .device = "rxe"},
                      .driver = "af_packet",
                      .ports = 1,
                      .machine = true};
}

int lab_parse_options(rf_lab_t *lab, int argc, char **argv)
{
    static const struct option options[] = {
        {"hosts", required_argument, NULL, OPTION_HOSTS},
        {"device", required_argument, NULL, OPTION_DEVICE},
        {"memory", required_argument, NULL, OPTION_MEMORY},
        {"mtu", required_argument, NULL, OPTION_MTU},
        {"name", required_argument, NULL, OPTION_NAME},
        {"transport", required_argument, NULL, OPTION_TRANSPORT},
        {"one-sided", required_argument, NULL, OPTION_ONE_SIDED},
        {"no-machine", no_argument, NULL, OPTION_NO_MACHINE},
        {"detach", no_argument, NULL, 'd'},
        {"while", required_argument, NULL, OPTION_WHILE},
        {"terminal", no_argument, NULL, 't'},
        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
        {"json", no_argument, NULL, OPTION_JSON},
        {"driver", required_argument, NULL, OPTION_DRIVER},
        {"ports", required_argument, NULL, OPTION_PORTS},
        {"kernel", required_argument, NULL, OPTION_KERNEL},
        {"loss", required_argument, NULL, OPTION_LOSS},
        {"duplicate", required_argument, NULL, OPTION_DUPLICATE},
        {"reorder", required_argument, NULL, OPTION_REORDER},
        {"burst", required_argument, NULL, OPTION_BURST},
        {"rate", required_argument, NULL, OPTION_RATE},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    lab->words = argv;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "+:dth", options, NULL)) != -1;) {
        if (c == 'h') {
            lab_print_help(stdout);
            return -1;
        }
        int status = parse_option(lab, c);
        if (status != LAB_OK) return status;
    }
    if (lab->ports > 1 && strcmp(lab->driver, "af_xdp") == 0)
        return lab_usage("--ports 2 is for af_packet: XDP sockets would take all frames of both interfaces");
    lab->words = argv + optind;
    lab->n_words = (unsigned)(argc - optind);
    return LAB_OK;
}
