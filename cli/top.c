/* top: who uses the machine's cores now, refreshed on a terminal. */
#include "cli/show.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/table.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

const cli_option_t cli_top_options[] = {
    {"once", '1', NULL, "one table, then end (also when stdout is no terminal)"},
    {"delay", 'd', "TIME", "between refreshes (default 1s)"},
    {NULL, 0, NULL, NULL},
};

typedef struct usage {
    const Rackfish__Resource *now;
    double cpu_percent; /* of one core */
} usage_t;

static bool same_part(const Rackfish__Resource *a, const Rackfish__Resource *b)
{
    return a->core == b->core && a->domain == b->domain && a->index == b->index;
}

static int by_use(const void *a, const void *b)
{
    const usage_t *x = a, *y = b;
    if (x->cpu_percent != y->cpu_percent) return x->cpu_percent < y->cpu_percent ? 1 : -1;
    if (x->now->core != y->now->core) return x->now->core > y->now->core ? 1 : -1;
    return (x->now->domain > y->now->domain) - (x->now->domain < y->now->domain);
}

/* The rates between two samples, busiest first. NULL: no memory. */
static usage_t *rates(const Rackfish__ResourceList *before, const Rackfish__ResourceList *now)
{
    usage_t *list = calloc(now->n_resources + 1, sizeof *list);
    if (!list) return NULL;
    double elapsed = now->at_ns > before->at_ns ? (double)(now->at_ns - before->at_ns) : 1;
    for (size_t i = 0; i < now->n_resources; i++) {
        list[i].now = now->resources[i];
        for (size_t k = 0; k < before->n_resources; k++) {
            const Rackfish__Resource *old = before->resources[k];
            if (same_part(old, list[i].now) && list[i].now->cpu_ns > old->cpu_ns) {
                list[i].cpu_percent = 100 * (double)(list[i].now->cpu_ns - old->cpu_ns) / elapsed;
                break;
            }
        }
    }
    qsort(list, now->n_resources, sizeof *list, by_use);
    return list;
}

static void usage_json(const usage_t *list, size_t n)
{
    json_t json = json_on(stdout);
    for (size_t i = 0; i < n; i++) {
        const Rackfish__Resource *r = list[i].now;
        json_object_begin(&json, NULL);
        json_u64(&json, "core", r->core);
        json_u64(&json, "domain", r->domain);
        json_u64(&json, "index", r->index);
        json_string(&json, "program", r->domain ? r->program : "(system)");
        json_double(&json, "cpu_percent", list[i].cpu_percent);
        json_u64(&json, "cpu_ns", r->cpu_ns);
        json_u64(&json, "rss_kib", r->rss_kib);
        json_u64(&json, "processes", r->processes);
        json_u64(&json, "reserved_permille", r->reserved_permille);
        json_u64(&json, "weight", r->weight);
        json_object_end(&json);
        json_line_end(&json);
    }
}

static void usage_table(const cli_t *cli, const usage_t *list, size_t n, size_t rows, size_t width)
{
    table_t *table =
        table_new("CORE> DOMAIN> PART> CPU> TIME> RESIDENT> PROCESSES> SHARE> PROGRAM", cli->colour);
    for (size_t i = 0; i < n && i < rows; i++) {
        const Rackfish__Resource *r = list[i].now;
        char text[32];
        table_cell(table, "%u", r->core);
        r->domain ? table_cell(table, "%llu", (unsigned long long)r->domain) : table_cell(table, "-");
        r->domain ? table_cell(table, "%u", r->index) : table_cell(table, "-");
        table_cell(table, "%.1f %%", list[i].cpu_percent);
        table_cell(table, "%s", table_duration(text, sizeof text, r->cpu_ns));
        table_cell(table, "%s", table_bytes(text, sizeof text, r->rss_kib << 10));
        table_cell(table, "%u", r->processes);
        if (r->reserved_permille)
            table_cell(table, "%u.%u %%", r->reserved_permille / 10, r->reserved_permille % 10);
        else if (r->domain)
            table_cell(table, "weight %u", r->weight);
        else
            table_cell(table, "-");
        table_cell_coloured(table, r->domain ? TABLE_PLAIN : TABLE_DIM, "%s",
                            r->domain ? r->program : "(system)");
    }
    table_print(table, stdout, width);
}

static void usage_head(const Rackfish__Status *status, const usage_t *list, size_t n)
{
    double total = 0;
    uint64_t rss_kib = 0;
    char text[32], up[32];
    for (size_t i = 0; i < n; i++) {
        total += list[i].cpu_percent;
        rss_kib += list[i].now->rss_kib;
    }
    printf(
        "%s  up %s  %u/%u nodes  %u/%u cores  %u domain%s  quorum %s  cpu %.1f %% of one core  memory %s\n\n",
        status->machine, table_duration(up, sizeof up, status->uptime_ns), status->nodes_up, status->nodes,
        status->cores_up, status->cores, status->domains, status->domains == 1 ? "" : "s",
        status->has_quorum ? "yes" : "NO", total, table_bytes(text, sizeof text, rss_kib << 10));
}

typedef struct screen {
    bool live;
    bool keys; /* stdin is a terminal in character mode */
    struct termios before;
    int signals;
} screen_t;

static void screen_open(screen_t *screen)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    screen->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    screen->keys = tcgetattr(STDIN_FILENO, &screen->before) == 0 && tcgetpgrp(STDIN_FILENO) == getpgrp();
    if (screen->keys) {
        struct termios raw = screen->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs("\033[?1049h\033[?25l", stdout); /* the alternate screen, no cursor */
}

static void screen_close(screen_t *screen)
{
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (screen->keys) tcsetattr(STDIN_FILENO, TCSANOW, &screen->before);
    close(screen->signals);
}

/* Waits for the next refresh. False: the user wants to end. */
static bool screen_wait(screen_t *screen, uint64_t delay_ms)
{
    struct pollfd p[2] = {{.fd = screen->signals, .events = POLLIN},
                          {.fd = screen->keys ? STDIN_FILENO : -1, .events = POLLIN}};
    if (poll(p, 2, (int)delay_ms) <= 0) return true;
    if (p[1].revents) {
        char key;
        if (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q' || key == 3) return false;
    }
    struct signalfd_siginfo info;
    while (read(screen->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGWINCH) return false;
    }
    return true;
}

int cli_top(cli_t *cli, int argc, char **argv)
{
    uint64_t delay_ms = 1000;
    bool once = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == '1') once = true;
        if (c == 'd' && (!cli_parse_duration_ms(optarg, &delay_ms) || delay_ms < 10 || delay_ms > 3600000))
            return cli_usage(cli, "--delay takes a time from 10ms to 1h, not \"%s\"", optarg);
    }
    if (optind < argc) return cli_usage(cli, "takes no arguments, but \"%s\" was given", argv[optind]);
    client_t client;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    screen_t screen = {.live = !once && !cli->json && isatty(STDOUT_FILENO)};
    reply_t *before = NULL, *now = NULL, *machine = NULL;
    status = show_ask_resources(cli, &client, &before);
    if (status == CLI_OK && screen.live) screen_open(&screen);
    uint64_t pause_ms = delay_ms < 300 ? delay_ms : 300; /* the first rates soon */
    while (status == CLI_OK) {
        if (!screen.live)
            rf_clock_sleep_ms((unsigned)delay_ms);
        else if (!screen_wait(&screen, pause_ms))
            break;
        pause_ms = delay_ms;
        status = show_ask_resources(cli, &client, &now);
        if (status == CLI_OK)
            status = show_ask(cli, &client, RACKFISH__CONTROL_REQUEST__KIND_STATUS,
                              RACKFISH__CONTROL_REPLY__KIND_STATUS, &machine);
        if (status != CLI_OK) break;
        size_t n = now->resources->n_resources;
        usage_t *list = rates(before->resources, now->resources);
        struct winsize size = {0};
        if (screen.live) {
            if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 5)
                size = (struct winsize){.ws_row = 24, .ws_col = 80};
            fputs("\033[H\033[J", stdout);
        }
        if (!list) {
            status = cli_error(cli, "out of memory");
        } else if (cli->json) {
            usage_json(list, n);
        } else {
            usage_head(machine->status, list, n);
            usage_table(cli, list, n, screen.live ? size.ws_row - 4u : n, size.ws_col);
        }
        free(list);
        fflush(stdout);
        client_reply_free(machine);
        machine = NULL;
        client_reply_free(before);
        before = now;
        now = NULL;
        if (!screen.live) break;
    }
    if (screen.live && before) {
        screen_close(&screen);
        /* What was said meanwhile went with the screen. */
        if (status != CLI_OK) cli_error(cli, "the machine stopped answering; `rackfish status` says more");
    }
    client_reply_free(before);
    client_reply_free(now);
    client_reply_free(machine);
    client_close(&client);
    return status;
}
