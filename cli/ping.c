/* ping: how fast a node and its monitors answer, with percentiles. */
#include "cli/show.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/table.h"

#include <stdlib.h>

const cli_option_t cli_ping_options[] = {
    {"count", 'c', "N", "how many rounds (default 1)"},
    {"interval", 'i', "TIME", "pause between rounds (default 100ms)"},
    {NULL, 0, NULL, NULL},
};

typedef struct ping_series {
    uint32_t core; /* UINT32_MAX: the node itself */
    uint64_t *ns;
} ping_series_t;

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t percentile(const uint64_t *sorted, size_t n, unsigned percent)
{
    size_t rank = (n * percent + 99) / 100;
    return sorted[rank ? rank - 1 : 0];
}

static void show_pings(const cli_t *cli, const client_t *client, ping_series_t *series, size_t n_series,
                       size_t n)
{
    json_t json = json_on(stdout);
    table_t *table = cli->json ? NULL : table_new("WHO N> MIN> P50> P99> MAX>", cli->colour);
    for (size_t i = 0; i < n_series; i++) {
        uint64_t *ns = series[i].ns;
        qsort(ns, n, sizeof *ns, compare_u64);
        if (cli->json) {
            json_object_begin(&json, NULL);
            if (series[i].core == UINT32_MAX)
                json_string(&json, "node", client->node);
            else
                json_u64(&json, "core", series[i].core);
            json_u64(&json, "n", n);
            json_u64(&json, "min_ns", ns[0]);
            json_u64(&json, "p50_ns", percentile(ns, n, 50));
            json_u64(&json, "p99_ns", percentile(ns, n, 99));
            json_u64(&json, "max_ns", ns[n - 1]);
            json_object_end(&json);
            json_line_end(&json);
            continue;
        }
        char text[32];
        if (series[i].core == UINT32_MAX)
            table_cell(table, "node %s", client->node);
        else
            table_cell(table, "core %u", series[i].core);
        table_cell(table, "%zu", n);
        table_cell(table, "%s", table_ns(text, sizeof text, ns[0]));
        table_cell(table, "%s", table_ns(text, sizeof text, percentile(ns, n, 50)));
        table_cell(table, "%s", table_ns(text, sizeof text, percentile(ns, n, 99)));
        table_cell(table, "%s", table_ns(text, sizeof text, ns[n - 1]));
    }
    if (!cli->json) table_print(table, stdout, 0);
}

int cli_ping(cli_t *cli, int argc, char **argv)
{
    uint64_t count = 1, interval_ms = 100;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == 'c' && !cli_parse_number(optarg, 1, 100000, &count))
            return cli_usage(cli, "--count takes a number from 1 to 100000, not \"%s\"", optarg);
        if (c == 'i' && (!cli_parse_duration_ms(optarg, &interval_ms) || interval_ms > 3600000))
            return cli_usage(cli, "--interval takes a time such as 100ms, not \"%s\"", optarg);
    }
    if (optind < argc) return cli_usage(cli, "takes no arguments, but \"%s\" was given", argv[optind]);
    client_t client;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    ping_series_t *series = NULL;
    size_t n_series = 0, done = 0;
    for (; done < count && status == CLI_OK; done++) {
        reply_t *reply;
        if (done > 0) rf_clock_sleep_ms(interval_ms);
        uint64_t before = rf_clock_ns();
        status = show_ask(cli, &client, RACKFISH__CONTROL_REQUEST__KIND_PING,
                          RACKFISH__CONTROL_REPLY__KIND_PING, &reply);
        if (status != CLI_OK) break;
        uint64_t round_trip = rf_clock_ns() - before;
        const Rackfish__PingReply *ping = reply->ping;
        size_t n = 1 + (ping->n_core < ping->n_monitor_ns ? ping->n_core : ping->n_monitor_ns);
        if (!series) {
            series = calloc(n, sizeof *series);
            for (size_t i = 0; series && i < n; i++) {
                series[i].core = i == 0 ? UINT32_MAX : ping->core[i - 1];
                series[i].ns = calloc(count, sizeof *series[i].ns);
                if (!series[i].ns) status = cli_error(cli, "out of memory");
            }
            n_series = series ? n : 0;
        }
        if (!series)
            status = cli_error(cli, "out of memory");
        else if (n != n_series)
            status = cli_error(cli, "cores came or went while pinging; try again");
        for (size_t i = 0; i < n && status == CLI_OK; i++)
            series[i].ns[done] =
                i == 0 ? (ping->node_ns ? ping->node_ns : round_trip) : ping->monitor_ns[i - 1];
        client_reply_free(reply);
    }
    if (status == CLI_OK) show_pings(cli, &client, series, n_series, done);
    for (size_t i = 0; i < n_series; i++) free(series[i].ns);
    free(series);
    client_close(&client);
    return status;
}
