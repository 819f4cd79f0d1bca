/* The table of commands. */
#include "cli/cli.h"
#include "cli/json.h"

static int cli_help_command(cli_t *cli, int argc, char **argv);

const cli_command_t cli_commands[] = {
    {"up", "", "boots a machine: an emulated one on this host, or the hosts of a configuration",
     "Without --config: N nodes of M cores on this host, by the same code path as real hosts; cores share "
     "CPUs when\n"
     "there are more of them. With --config: this host's entry of the file, and with --launch the others.\n"
     "Where rackfishd of a running machine has died, `up` starts it again and it takes its cores over.",
     cli_up_options, false, cli_up},
    {"down", "", "ends a machine and leaves nothing of it, also when its rackfishd is dead", NULL,
     cli_down_options, false, cli_down},
    {"status", "", "shows the machine: view, leader, quorum, what it survives", NULL, cli_status_options,
     false, cli_status},
    {"cores", "", "lists the cores of all nodes", NULL, NULL, false, cli_cores},
    {"nodes", "", "lists the nodes", NULL, NULL, false, cli_nodes},
    {"ps", "", "lists the domains of the machine", NULL, cli_ps_options, false, cli_ps},
    {"run", "[--] PROGRAM [ARGUMENT]...", "runs a program on any core as if it were local",
     "Environment, directory, umask and soft limits go with it, stdin, stdout and stderr come back; INT, "
     "TERM, QUIT,\n"
     "HUP, TSTP and CONT reach it. Its exit status is this command's, and a signal that ends it ends this "
     "command.\n"
     "125: rackfish itself failed; 126: the program cannot be executed; 127: there is none of that name.\n"
     "With --all the exit status is the highest.",
     cli_run_options, true, cli_run},
    {"kill", "ID...", "sends a signal to all of a domain", NULL, cli_kill_options, false, cli_kill},
    {"wait", "ID...", "waits for domains to end",
     "The exit status is that of the last one, 128 + N when signal N ended it, 124 when the timeout passed,\n"
     "125 when it was lost with its core or rackfish failed.",
     cli_wait_options, false, cli_wait},
    {"core", "on|off N", "turns a core on or off, by agreement",
     "off: the core leaves the machine in order. It is refused while domains run there, unless they are "
     "waited for or "
     "killed.\n"
     "on: it joins again as a new incarnation.",
     cli_core_options, false, cli_core},
    {"node", "add|remove NODE", "adds a node of the configuration to a running machine, or removes it",
     "remove: all its cores leave in order, and the node stops. add: on the node's own host; its cores join.",
     cli_node_options, false, cli_node},
    {"registry", "get|put|del|cas|list|watch|lock [ARGUMENT]...",
     "keys and locks that the whole machine agrees on",
     "get NAME                      prints a key's value\n"
     "put NAME [VALUE]              makes or changes a key; without VALUE from stdin\n"
     "del NAME                      deletes it\n"
     "cas NAME EXPECTED VALUE       changes it if its value is EXPECTED\n"
     "list [PREFIX]                 lists keys, or with --kind other objects\n"
     "watch [NAME]                  prints changes as they happen\n"
     "lock NAME -- PROGRAM...       runs a program while holding a lock; its token is in "
     "RACKFISH_LOCK_TOKEN.\n"
     "                              Exit status: the program's; 124: the timeout passed; 125: the lock was "
     "lost",
     cli_registry_options, false, cli_registry},
    {"links", "", "lists the links between monitors, with medium and latency", NULL, NULL, false, cli_links},
    {"names", "", "lists the names that domains export", NULL, NULL, false, cli_names},
    {"mem", "", "shows the memory of system and domains", NULL, NULL, false, cli_mem},
    {"top", "", "shows who uses the cores, live", NULL, cli_top_options, false, cli_top},
    {"ping", "", "measures how fast node and monitors answer", NULL, cli_ping_options, false, cli_ping},
    {"events", "", "prints cores, nodes and domains as they come and go", NULL, NULL, false, cli_events},
    {"logs", "[CORE]", "prints what the machine's processes wrote", NULL, cli_logs_options, false, cli_logs},
    {"dump", "", "bundles state and logs for a report", NULL, cli_dump_options, false, cli_dump},
    {"doctor", "", "preflight: says what is wrong with this host and how to mend it", NULL,
     cli_doctor_options, false, cli_doctor},
    {"bench", "NAME [ARGUMENT]...", "measures; boots a machine for it when none is up",
     "`rackfish bench list` says what there is.", cli_bench_options, true, cli_bench},
    {"sim", "[ARGUMENT]...", "simulates a machine with everything going wrong that can, from one seed",
     "`rackfish sim --help` says what there is. Exit status: 0 all is well, 1 wrong usage, 3 unsafe, 4 "
     "stuck.",
     NULL, true, cli_sim},
    {"lab", "rdma|dpdk|exec|status|down... [ARGUMENT]...",
     "a rack of emulated hosts with RDMA devices, or ports for DPDK, on this one",
     "`rackfish lab --help` says what there is.", NULL, true, cli_lab},
    {"version", "", "prints the version", NULL, NULL, false, cli_version},
    {"help", "[COMMAND]", "explains a command", NULL, NULL, false, cli_help_command},
    {NULL, NULL, NULL, NULL, NULL, false, NULL},
};

static int cli_help_command(cli_t *cli, int argc, char **argv)
{
    if (cli_option_next(cli, argc, argv) == CLI_OPTION_STOP) return cli->status;
    if (optind == argc) {
        cli_help(NULL, stdout);
        return CLI_OK;
    }
    const cli_command_t *command = cli_command_find(argv[optind]);
    if (!command) return cli_usage(cli, "no command \"%s\"", argv[optind]);
    cli_help(command, stdout);
    return CLI_OK;
}

int cli_version(cli_t *cli, int argc, char **argv)
{
    if (cli_option_next(cli, argc, argv) == CLI_OPTION_STOP) return cli->status;
    if (cli->json) {
        json_t json = json_on(stdout);
        json_object_begin(&json, NULL);
        json_string(&json, "version", RF_PROJECT_VERSION);
        json_object_end(&json);
        json_line_end(&json);
    } else {
        printf("rackfish %s\n", RF_PROJECT_VERSION);
    }
    return CLI_OK;
}
