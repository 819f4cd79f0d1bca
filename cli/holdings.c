/* status --resources: what the monitors hold of their hosts, per core, and per host of several cores. */
#include "cli/show.h"

#include "cli/json.h"
#include "cli/table.h"

#include <stdlib.h>
#include <string.h>

static int by_core(const void *a, const void *b)
{
    const Rackfish__Holding *const *x = a, *const *y = b;
    return ((*x)->core > (*y)->core) - ((*x)->core < (*y)->core);
}

static const char *node_of(const Rackfish__CoreList *cores, uint32_t core)
{
    for (size_t i = 0; i < cores->n_cores; i++) {
        if (cores->cores[i]->core == core) return cores->cores[i]->node;
    }
    return "";
}

static void row_json(const Rackfish__Holding *h, const char *node)
{
    json_t json = json_on(stdout);
    json_object_begin(&json, NULL);
    json_u64(&json, "core", h->core);
    json_string(&json, "node", node);
    json_u64(&json, "descriptors", h->descriptors);
    json_u64(&json, "links", h->links);
    json_u64(&json, "queue_pairs", h->queue_pairs);
    json_u64(&json, "ring_bytes", h->ring_bytes);
    json_u64(&json, "pinned_bytes", h->pinned_bytes);
    json_object_end(&json);
    json_line_end(&json);
}

static void cells(table_t *table, const Rackfish__Holding *h)
{
    char text[32];
    table_cell(table, "%u", h->descriptors);
    table_cell(table, "%u", h->links);
    table_cell(table, "%u", h->queue_pairs);
    table_cell(table, "%s", table_bytes(text, sizeof text, h->ring_bytes));
    table_cell(table, "%s", table_bytes(text, sizeof text, h->pinned_bytes));
}

static void add(Rackfish__Holding *sum, const Rackfish__Holding *h)
{
    sum->descriptors += h->descriptors;
    sum->links += h->links;
    sum->queue_pairs += h->queue_pairs;
    sum->ring_bytes += h->ring_bytes;
    sum->pinned_bytes += h->pinned_bytes;
}

/* Cores of one node have numbers in a row. */
static void show(const cli_t *cli, const Rackfish__CoreList *cores, const Rackfish__HoldingList *list)
{
    table_t *table =
        cli->json ? NULL
                  : table_new("NODE CORE> DESCRIPTORS> LINKS> QUEUE-PAIRS> RINGS> PINNED>", cli->colour);
    qsort(list->holdings, list->n_holdings, sizeof *list->holdings, by_core);
    for (size_t i = 0, first = 0; i < list->n_holdings; i++) {
        const Rackfish__Holding *h = list->holdings[i];
        const char *node = node_of(cores, h->core);
        if (cli->json) {
            row_json(h, node);
            continue;
        }
        table_cell(table, "%s", node);
        table_cell(table, "%u", h->core);
        cells(table, h);
        bool last =
            i + 1 == list->n_holdings || strcmp(node, node_of(cores, list->holdings[i + 1]->core)) != 0;
        if (last && i > first) {
            Rackfish__Holding sum = RACKFISH__HOLDING__INIT;
            for (size_t k = first; k <= i; k++) add(&sum, list->holdings[k]);
            table_cell(table, "%s", node);
            table_cell(table, "all");
            cells(table, &sum);
        }
        if (last) first = i + 1;
    }
    if (table) table_print(table, stdout, 0);
}

int show_holdings(cli_t *cli)
{
    client_t client;
    reply_t *cores, *holdings;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    status = show_ask(cli, &client, RACKFISH__CONTROL_REQUEST__KIND_CORES,
                      RACKFISH__CONTROL_REPLY__KIND_CORES, &cores);
    if (status == CLI_OK) {
        status = show_ask(cli, &client, RACKFISH__CONTROL_REQUEST__KIND_HOLDINGS,
                          RACKFISH__CONTROL_REPLY__KIND_HOLDINGS, &holdings);
        if (status == CLI_OK) {
            show(cli, cores->cores, holdings->holdings);
            client_reply_free(holdings);
        }
        client_reply_free(cores);
    }
    client_close(&client);
    return status;
}
