/* Options, usage, errors: the parts of a command line tool that every sub-command needs. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_JSON = 0x1000, OPTION_VIA };

static const cli_option_t common_options[] = {
    {"help", 'h', NULL, "this text"},
    {"json", OPTION_JSON, NULL, "one JSON document, or one object a line"},
    {"machine", 'm', "NAME", "which machine (default: RACKFISH_MACHINE, or rackfish)"},
    {"via", OPTION_VIA, "NODE", "ask this node (default: the first that answers)"},
    {NULL, 0, NULL, NULL},
};

static void add_options(cli_t *cli, const cli_option_t *table, size_t *n, size_t *n_short)
{
    for (const cli_option_t *o = table; o && o->name; o++) {
        cli->long_options[(*n)++] =
            (struct option){o->name, o->argument ? required_argument : no_argument, NULL, o->id};
        if (o->id < 256) {
            cli->short_options[(*n_short)++] = (char)o->id;
            if (o->argument) cli->short_options[(*n_short)++] = ':';
        }
    }
}

const cli_command_t *cli_command_find(const char *name)
{
    for (const cli_command_t *c = cli_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0) return c;
    }
    return NULL;
}

static size_t count_options(const cli_option_t *table)
{
    size_t n = 0;
    while (table && table[n].name) n++;
    return n;
}

static bool build_options(cli_t *cli)
{
    size_t total = count_options(common_options) + count_options(cli->command->options);
    cli->long_options = calloc(total + 1, sizeof *cli->long_options);
    if (!cli->long_options) return false;
    size_t n = 0, n_short = 0;
    if (cli->command->stop_at_argument) cli->short_options[n_short++] = '+';
    cli->short_options[n_short++] = ':';
    add_options(cli, cli->command->options, &n, &n_short);
    add_options(cli, common_options, &n, &n_short);
    cli->short_options[n_short] = '\0';
    return true;
}

int cli_option_next(cli_t *cli, int argc, char **argv)
{
    if (!cli->long_options) {
        if (!build_options(cli)) {
            cli->status = cli_error(cli, "out of memory");
            return CLI_OPTION_STOP;
        }
        optind = 0;
    }
    for (;;) {
        int index = optind ? optind : 1;
        int c = getopt_long(argc, argv, cli->short_options, cli->long_options, NULL);
        switch (c) {
        case -1:
            return CLI_OPTION_END;
        case 'h':
            cli_help(cli->command, stdout);
            cli->status = CLI_OK;
            return CLI_OPTION_STOP;
        case OPTION_JSON:
            cli->json = true;
            break;
        case 'm':
            cli->machine = optarg;
            cli->machine_chosen = true;
            break;
        case OPTION_VIA:
            cli->via = optarg;
            break;
        case ':':
            cli->status = cli_usage(cli, "option %s needs an argument", argv[index]);
            return CLI_OPTION_STOP;
        case '?':
            cli->status = cli_usage(cli, "unknown option %s", argv[index]);
            return CLI_OPTION_STOP;
        default:
            return c;
        }
    }
}

static void print_options(const cli_option_t *table, FILE *out)
{
    for (const cli_option_t *o = table; o && o->name; o++) {
        char left[80];
        int n = o->id < 256 ? snprintf(left, sizeof left, "  -%c, --%s", o->id, o->name)
                            : snprintf(left, sizeof left, "      --%s", o->name);
        if (o->argument && n > 0 && (size_t)n < sizeof left)
            snprintf(left + n, sizeof left - (size_t)n, " %s", o->argument);
        fprintf(out, "%-28s %s\n", left, o->help);
    }
}

void cli_help(const cli_command_t *command, FILE *out)
{
    if (command) {
        fprintf(out, "Usage: rackfish %s [OPTION]...%s%s\n\n%s.\n", command->name,
                *command->arguments ? " " : "", command->arguments, command->summary);
        if (command->details) fprintf(out, "\n%s\n", command->details);
        fprintf(out, "\nOptions:\n");
        print_options(command->options, out);
        print_options(common_options, out);
        return;
    }
    fprintf(out, "Usage: rackfish [-m NAME] [--json] COMMAND [OPTION]... [ARGUMENT]...\n\n"
                 "A rack of Linux hosts as one multikernel machine.\n\nCommands:\n");
    for (const cli_command_t *c = cli_commands; c->name; c++)
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    fprintf(
        out,
        "\n`rackfish COMMAND --help` tells more. Exit status: 0 success, 1 failure, 2 wrong usage,\n"
        "3 no such machine, 4 no quorum, 5 deadline passed, 6 refused; run and wait: the program's own.\n");
}

static void complain(const cli_t *cli, const char *format, va_list list)
{
    char text[2048];
    vsnprintf(text, sizeof text, format, list);
    /* One line whatever it quotes: names may come from anywhere. */
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = *p == '\n' || *p == '\t' ? ' ' : '?';
    }
    if (cli->command)
        fprintf(stderr, "rackfish %s: %s\n", cli->command->name, text);
    else
        fprintf(stderr, "rackfish: %s\n", text);
}

int cli_error(const cli_t *cli, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    complain(cli, format, list);
    va_end(list);
    return CLI_FAILED;
}

int cli_usage(const cli_t *cli, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    complain(cli, format, list);
    va_end(list);
    fprintf(stderr, "Try `rackfish %s%s--help`.\n", cli->command ? cli->command->name : "",
            cli->command ? " " : "");
    return CLI_USAGE;
}

int cli_status_of(rf_err_t err)
{
    switch (err) {
    case RF_OK:
        return CLI_OK;
    case RF_ERR_NO_MACHINE:
        return CLI_NO_MACHINE;
    case RF_ERR_NO_QUORUM:
    case RF_ERR_FORMING:
    case RF_ERR_LOST:
        return CLI_NO_QUORUM;
    case RF_ERR_TIMEOUT:
        return CLI_TIMEOUT;
    case RF_ERR_PERMISSION:
    case RF_ERR_AUTH:
    case RF_ERR_VERSION:
        return CLI_REFUSED;
    default:
        return CLI_FAILED;
    }
}

bool cli_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    if (*text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || value < min || value > max) return false;
    *out = value;
    return true;
}

bool cli_parse_duration_ms(const char *text, uint64_t *out)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}};
    if ((*text < '0' || *text > '9') && *text != '.') return false;
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || !(value >= 0) || value > 1e9) return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].unit) == 0) {
            *out = (uint64_t)(value * units[i].ms + 0.5);
            return true;
        }
    }
    return false;
}

bool cli_parse_signal(const char *text, int *out)
{
    uint64_t number;
    if (cli_parse_number(text, 0, 64, &number)) {
        *out = (int)number;
        return true;
    }
    if (strncmp(text, "SIG", 3) == 0) text += 3;
    for (int s = 1; s < NSIG; s++) {
        const char *name = sigabbrev_np(s);
        if (name && strcmp(name, text) == 0) {
            *out = s;
            return true;
        }
    }
    return false;
}

const char *cli_signal_name(int signo)
{
    const char *name = sigabbrev_np(signo);
    static char number[16];
    if (name) return name;
    snprintf(number, sizeof number, "%d", signo);
    return number;
}
