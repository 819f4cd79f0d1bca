#include "cli/up.h"

#include <string.h>

enum {
    OPTION_NODES = 256,
    OPTION_CORES,
    OPTION_LAUNCH,
    OPTION_TRANSPORT,
    OPTION_ENCRYPT,
    OPTION_ONE_SIDED,
    OPTION_LEASES,
    OPTION_ALLOW_ROOT,
    OPTION_NO_ALLOW_ROOT,
    OPTION_USER,
    OPTION_NODE,
    OPTION_TIMEOUT,
    OPTION_REMOTE_PATH,
    OPTION_FROM_STDIN,
    OPTION_RELAY,
    OPTION_STAY,
    OPTION_PLAN,
};

const cli_option_t cli_up_options[] = {
    {"nodes", OPTION_NODES, "N", "emulate N nodes on this host (default 2)"},
    {"cores", OPTION_CORES, "M", "... of M cores each (default 2)"},
    {"config", 'f', "FILE", "boot this host's entry of a configuration instead"},
    {"node", OPTION_NODE, "NAME", "... this entry, when the host's name does not tell"},
    {"launch", OPTION_LAUNCH, "HOW", "... and the other hosts: ssh, srun or none (default none)"},
    {"remote-path", OPTION_REMOTE_PATH, "PATH", "... with rackfish at this path there (default: as here)"},
    {"transport", OPTION_TRANSPORT, "NAME", "between emulated nodes: tcp or rdma (default tcp)"},
    {"encrypt", OPTION_ENCRYPT, "on|off", "links between emulated nodes (default on)"},
    {"one-sided", OPTION_ONE_SIDED, "on|off", "leaders write into voters' logs (default off)"},
    {"plan", OPTION_PLAN, "NAME", "who passes on what is agreed, as in a configuration (default host)"},
    {"leases", OPTION_LEASES, "on|off", "leaders answer reads alone (default off)"},
    {"allow-root", OPTION_ALLOW_ROOT, NULL, "root may run programs (default when root emulates)"},
    {"no-allow-root", OPTION_NO_ALLOW_ROOT, NULL, "root may not"},
    {"user", OPTION_USER, "NAME", "who else may use it, @NAME for a group; may be repeated"},
    {"timeout", OPTION_TIMEOUT, "TIME", "give up a boot after this long (default 60s)"},
    {"from-stdin", OPTION_FROM_STDIN, NULL, "for launchers: configuration and key come on stdin"},
    {"relay", OPTION_RELAY, NULL, "for launchers: progress as lines on stdout"},
    {"stay", OPTION_STAY, NULL, "stay until the machine ends"},
    {NULL, 0, NULL, NULL},
};

static int parse_on_off(const cli_t *cli, const char *name, bool *out)
{
    if (strcmp(optarg, "on") != 0 && strcmp(optarg, "off") != 0)
        return cli_usage(cli, "--%s takes on or off, not \"%s\"", name, optarg);
    *out = strcmp(optarg, "on") == 0;
    return CLI_OK;
}

static int parse_count(const cli_t *cli, const char *name, uint64_t max, unsigned *out)
{
    uint64_t number;
    if (!cli_parse_number(optarg, 1, max, &number))
        return cli_usage(cli, "--%s takes a number from 1 to %llu, not \"%s\"", name, (unsigned long long)max,
                         optarg);
    *out = (unsigned)number;
    return CLI_OK;
}

static int parse_launch(const cli_t *cli, launch_t *out)
{
    static const char *const names[] = {[LAUNCH_NONE] = "none", [LAUNCH_SSH] = "ssh", [LAUNCH_SRUN] = "srun"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(optarg, names[i]) == 0) {
            *out = (launch_t)i;
            return CLI_OK;
        }
    }
    return cli_usage(cli, "--launch takes ssh, srun or none, not \"%s\"", optarg);
}

int up_parse_option(const cli_t *cli, up_options_t *o, int c)
{
    switch (c) {
    case OPTION_NODES:
        o->shape_given = true;
        return parse_count(cli, "nodes", RF_NODES_MAX, &o->nodes);
    case OPTION_CORES:
        o->shape_given = true;
        return parse_count(cli, "cores", RF_CORES_PER_NODE_MAX, &o->cores);
    case 'f':
        o->config = optarg;
        return CLI_OK;
    case OPTION_NODE:
        o->node = optarg;
        return CLI_OK;
    case OPTION_LAUNCH:
        return parse_launch(cli, &o->launch);
    case OPTION_REMOTE_PATH:
        o->remote_path = optarg;
        return CLI_OK;
    case OPTION_TRANSPORT:
        if (strcmp(optarg, "dpdk") == 0)
            return cli_usage(
                cli,
                "nodes of one host have no DPDK port each; `rackfish lab dpdk` makes hosts that have, and "
                "--config takes a machine with `dpdk:`");
        if (strcmp(optarg, "tcp") != 0 && strcmp(optarg, "rdma") != 0)
            return cli_usage(cli, "no transport \"%s\" between nodes; there are tcp and rdma", optarg);
        o->transport = optarg;
        o->transport_given = true;
        return CLI_OK;
    case OPTION_ENCRYPT:
        o->encrypt_given = true;
        return parse_on_off(cli, "encrypt", &o->encrypt);
    case OPTION_ONE_SIDED:
        o->one_sided_given = true;
        return parse_on_off(cli, "one-sided", &o->one_sided);
    case OPTION_PLAN:
        o->plan = optarg;
        return CLI_OK;
    case OPTION_LEASES:
        o->leases_given = true;
        return parse_on_off(cli, "leases", &o->leases);
    case OPTION_ALLOW_ROOT:
    case OPTION_NO_ALLOW_ROOT:
        o->allow_root = c == OPTION_ALLOW_ROOT;
        return CLI_OK;
    case OPTION_USER:
        if (o->n_users == RF_CONFIG_USERS_MAX)
            return cli_usage(cli, "more than %d users; name a group with @NAME", RF_CONFIG_USERS_MAX);
        o->users[o->n_users++] = optarg;
        return CLI_OK;
    case OPTION_TIMEOUT:
        if (!cli_parse_duration_ms(optarg, &o->timeout_ms) || o->timeout_ms < 100 || o->timeout_ms > 3600000)
            return cli_usage(cli, "--timeout takes a time from 100ms to 1h, not \"%s\"", optarg);
        return CLI_OK;
    case OPTION_FROM_STDIN:
        o->from_stdin = true;
        return CLI_OK;
    case OPTION_RELAY:
        o->relay = true;
        return CLI_OK;
    default:
        o->stay = true;
        return CLI_OK;
    }
}

int up_check_options(const cli_t *cli, const up_options_t *o)
{
    if ((o->config || o->from_stdin) && o->shape_given)
        return cli_usage(cli, "--config says itself how many nodes and cores; leave out --nodes and --cores");
    if (o->config && o->one_sided_given)
        return cli_usage(
            cli,
            "--config says itself whether leaders write into voters' logs: leave out --one-sided and "
            "write `one_sided: %s` into %s, the same on all hosts",
            o->one_sided ? "on" : "off", o->config);
    if (o->config && o->leases_given)
        return cli_usage(
            cli,
            "--config says itself whether leaders answer reads alone: leave out --leases and write "
            "`leases: %s` into %s, the same on all hosts",
            o->leases ? "on" : "off", o->config);
    if (o->config && o->encrypt_given)
        return cli_usage(
            cli,
            "--config says itself whether it encrypts: leave out --encrypt and write `encrypt: %s` into "
            "%s, the same on all hosts",
            o->encrypt ? "on" : "off", o->config);
    const char *other = o->transport_given ? "transport" : o->n_users ? "user" : o->plan ? "plan" : NULL;
    if (o->config && other)
        return cli_usage(cli, "--config says itself what --%s does: leave it out and write it into %s", other,
                         o->config);
    if (o->config && o->from_stdin) return cli_usage(cli, "--config and --from-stdin exclude each other");
    if (!o->config && !o->from_stdin && (o->launch != LAUNCH_NONE || o->node))
        return cli_usage(cli, "--launch and --node go with --config");
    if ((uint64_t)o->nodes * o->cores > RF_CORES_MAX)
        return cli_usage(cli, "%u nodes of %u cores are more than the %d cores of a machine", o->nodes,
                         o->cores, RF_CORES_MAX);
    return CLI_OK;
}
