/*
 * The `rackfish` command: what its sub-commands share.
 *
 * A sub-command is one entry of the table in commands.c: name, summary, options, and a function. It parses its options
 * with cli_option_next(), does its work through cli/client.h (a node's control socket) or, where no node answers, on the
 * run directory (cli/machine.h), and returns an exit status. One thread, blocking calls with deadlines.
 *
 * Output: results to stdout, as aligned tables or with --json as one document or one object a line; errors to stderr, one
 * line each that names cause and mend.
 */
#ifndef RF_CLI_CLI_H
#define RF_CLI_CLI_H

#include "base/error.h"
#include "base/types.h"

#include <getopt.h>
#include <stdio.h>

/* Exit statuses (cli/README.md). `run` and `wait` pass the program's own, and use the last four for themselves. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NO_MACHINE = 3,
    CLI_NO_QUORUM = 4,
    CLI_TIMEOUT = 5,
    CLI_REFUSED = 6,
    CLI_WAIT_TIMEOUT = 124,
    CLI_RUN_FAILED = 125,
    CLI_RUN_NOT_EXECUTABLE = 126,
    CLI_RUN_NOT_FOUND = 127,
};

#define CLI_PATH_MAX         4096
#define CLI_REPLY_TIMEOUT_MS 10000 /* for answers that need nothing but a node and its monitors */

typedef struct cli_option {
    const char *name; /* long name; NULL ends a table */
    int id; /* what cli_option_next returns: a letter (then also the short option), or 256 and above */
    const char *argument; /* what its argument is called; NULL: takes none */
    const char *help;
} cli_option_t;

typedef struct cli cli_t;

typedef struct cli_command {
    const char *name;
    const char *arguments; /* of the usage line */
    const char *summary;
    const char *details;         /* further paragraph of --help; may be NULL */
    const cli_option_t *options; /* besides --help, --json, -m and --via */
    bool stop_at_argument;       /* options end at the first argument, as `run` needs */
    int (*run)(cli_t *cli, int argc, char **argv);
} cli_command_t;

struct cli {
    const cli_command_t *command;
    const char *machine; /* -m, RACKFISH_MACHINE, or "rackfish" */
    bool machine_chosen; /* by -m or RACKFISH_MACHINE */
    const char *via;     /* --via: which node's socket; NULL: the first that answers */
    bool json;
    bool colour;                 /* stdout is a terminal that takes colours */
    int status;                  /* exit status, after cli_option_next returned CLI_OPTION_STOP */
    struct option *long_options; /* built from the command's table */
    char short_options[128];
};

extern const cli_command_t cli_commands[]; /* ends with a NULL name */

/* The command of that name; NULL when there is none. */
const cli_command_t *cli_command_find(const char *name);

enum { CLI_OPTION_END = 0, CLI_OPTION_STOP = -1 };

/* The next option of the sub-command: its id (argument in optarg), CLI_OPTION_END when only arguments are left (from
 * argv[optind] on), CLI_OPTION_STOP when cli->status is to be returned (--help, or a wrong option). */
int cli_option_next(cli_t *cli, int argc, char **argv);

/* Prints the help of a command, or of all when NULL. */
void cli_help(const cli_command_t *command, FILE *out);

/* Both print "rackfish COMMAND: TEXT" to stderr; usage adds how to get help. Return CLI_FAILED and CLI_USAGE. */
int cli_error(const cli_t *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_usage(const cli_t *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit status that an rf_err_t maps to. */
int cli_status_of(rf_err_t err);

/* Whole decimal numbers in [min, max]; durations "500ms", "3s", "2m" or plain seconds. False: not one. */
bool cli_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out);
bool cli_parse_duration_ms(const char *text, uint64_t *out);

/* A signal by number, "TERM" or "SIGTERM". False: none of that name. */
bool cli_parse_signal(const char *text, int *out);
const char *cli_signal_name(int signo); /* "TERM"; static storage */

/* The commands, one function a file or family. */
int cli_up(cli_t *cli, int argc, char **argv);
int cli_down(cli_t *cli, int argc, char **argv);
int cli_status(cli_t *cli, int argc, char **argv);
int cli_cores(cli_t *cli, int argc, char **argv);
int cli_nodes(cli_t *cli, int argc, char **argv);
int cli_ps(cli_t *cli, int argc, char **argv);
int cli_links(cli_t *cli, int argc, char **argv);
int cli_names(cli_t *cli, int argc, char **argv);
int cli_mem(cli_t *cli, int argc, char **argv);
int cli_ping(cli_t *cli, int argc, char **argv);
int cli_events(cli_t *cli, int argc, char **argv);
int cli_top(cli_t *cli, int argc, char **argv);
int cli_run(cli_t *cli, int argc, char **argv);
int cli_kill(cli_t *cli, int argc, char **argv);
int cli_wait(cli_t *cli, int argc, char **argv);
int cli_registry(cli_t *cli, int argc, char **argv);
int cli_logs(cli_t *cli, int argc, char **argv);
int cli_dump(cli_t *cli, int argc, char **argv);
int cli_doctor(cli_t *cli, int argc, char **argv);
int cli_bench(cli_t *cli, int argc, char **argv);
int cli_core(cli_t *cli, int argc, char **argv);
int cli_node(cli_t *cli, int argc, char **argv);
int cli_sim(cli_t *cli, int argc, char **argv);
int cli_lab(cli_t *cli, int argc, char **argv);
int cli_version(cli_t *cli, int argc, char **argv);

extern const cli_option_t cli_up_options[], cli_down_options[], cli_run_options[], cli_kill_options[],
    cli_wait_options[], cli_top_options[], cli_logs_options[], cli_dump_options[], cli_doctor_options[],
    cli_bench_options[], cli_core_options[], cli_node_options[], cli_ps_options[], cli_ping_options[],
    cli_registry_options[], cli_status_options[];

#endif
