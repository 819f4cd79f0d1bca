/* The `rackfish` command. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A name that is close to `wanted`: it starts alike, or two letters are swapped, missing or too many. */
static const char *closest(const char *wanted)
{
    for (const cli_command_t *c = cli_commands; c->name; c++) {
        size_t same = 0, n = strlen(c->name), m = strlen(wanted);
        while (same < n && c->name[same] == wanted[same]) same++;
        size_t tail = 0;
        while (tail + same < n && tail + same < m && c->name[n - 1 - tail] == wanted[m - 1 - tail]) tail++;
        if (same >= 3 || (same + tail + 2 >= n && n + 1 >= m && m + 1 >= n && same + tail > 1))
            return c->name;
    }
    return NULL;
}

static bool want_colour(void)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no_colour && *no_colour) && term && strcmp(term, "dumb") != 0;
}

/* Options before the command: -m NAME, --machine NAME, --via NODE, --json, --help, --version. The last two are the name of a command,
 * `instead` of one that is given. */
static int global_options(cli_t *cli, int argc, char **argv, const char **instead)
{
    enum { OPTION_JSON = 256, OPTION_VIA };
    static const struct option options[] = {
        {"machine", required_argument, NULL, 'm'}, {"via", required_argument, NULL, OPTION_VIA},
        {"json", no_argument, NULL, OPTION_JSON},  {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},       {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "+:m:hV", options, NULL)) != -1;) {
        switch (c) {
        case 'm':
            cli->machine = optarg;
            cli->machine_chosen = true;
            break;
        case OPTION_VIA:
            cli->via = optarg;
            break;
        case OPTION_JSON:
            cli->json = true;
            break;
        case 'h':
            *instead = "help";
            break;
        case 'V':
            *instead = "version";
            break;
        case ':':
            return cli_usage(cli, "option %s needs an argument", argv[optind - 1]);
        default:
            return cli_usage(cli, "unknown option %s", argv[optind - 1]);
        }
    }
    return CLI_OK;
}

/* What was printed must have arrived: a full disk is a failure. */
static int finish(const cli_t *cli, int status)
{
    bool failed = fflush(stdout) != 0 || ferror(stdout);
    if (failed && status == CLI_OK) return cli_error(cli, "cannot write to stdout");
    return status;
}

/* A standard stream that is closed becomes /dev/null: else the first socket we open would be taken for it. */
static void fill_standard_streams(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO) close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_streams();
    cli_t cli = {.machine = getenv("RACKFISH_MACHINE")};
    cli.machine_chosen = cli.machine && *cli.machine;
    if (!cli.machine_chosen) cli.machine = "rackfish";
    cli.colour = want_colour();
    const char *instead = NULL;
    int status = global_options(&cli, argc, argv, &instead);
    if (status != CLI_OK) return status;
    if (optind == argc && !instead) {
        cli_help(NULL, stderr);
        return CLI_USAGE;
    }
    const char *name = instead ? instead : argv[optind];
    const cli_command_t *command = cli_command_find(name);
    if (!command) {
        const char *similar = closest(name);
        return similar ? cli_usage(&cli, "no command \"%s\"; did you mean \"%s\"?", name, similar)
                       : cli_usage(&cli, "no command \"%s\"", name);
    }
    cli.command = command;
    char *alone[] = {argv[0], NULL};
    argc = instead ? 1 : argc - optind;
    argv = instead ? alone : argv + optind;
    status = finish(&cli, command->run(&cli, argc, argv));
    free(cli.long_options);
    return status;
}
