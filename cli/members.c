/* core on|off and node add|remove: members come and go, by agreement. */
#include "cli/client.h"
#include "cli/up.h"

#include <string.h>

const cli_option_t cli_core_options[] = {
    {"wait", 'w', NULL, "off: when its domains have ended"},
    {"kill", 'k', NULL, "off: end its domains, by TERM and, after a grace, KILL"},
    {NULL, 0, NULL, NULL},
};

const cli_option_t cli_node_options[] = {
    {"wait", 'w', NULL, "remove: when its domains have ended"},
    {"kill", 'k', NULL, "remove: end its domains, by TERM and, after a grace, KILL"},
    {"config", 'c', "FILE", "add: the machine's configuration, if it was booted with one"},
    {NULL, 0, NULL, NULL},
};

#define CHANGE_TIMEOUT_MS 60000

static int ask(cli_t *cli, request_t *request, bool wait)
{
    client_t client;
    reply_t *reply;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    status = client_ask(cli, &client, request, wait ? -1 : CHANGE_TIMEOUT_MS, &reply);
    if (status == CLI_OK) client_reply_free(reply);
    client_close(&client);
    return status;
}

int cli_core(cli_t *cli, int argc, char **argv)
{
    Rackfish__CoreRequest body;
    rackfish__core_request__init(&body);
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == 'w') body.wait = true;
        if (c == 'k') body.kill = true;
    }
    uint64_t core;
    bool on = optind < argc && strcmp(argv[optind], "on") == 0;
    if (argc - optind != 2 || (!on && strcmp(argv[optind], "off") != 0) ||
        !cli_parse_number(argv[optind + 1], 0, RF_CORES_MAX - 1, &core))
        return cli_usage(cli, "takes on or off, and a core; `rackfish cores` lists them");
    if (body.wait && body.kill) return cli_usage(cli, "--wait for its domains or --kill them, not both");
    body.core = (uint32_t)core;
    request_t request = REQUEST_INIT;
    request.kind_case =
        on ? RACKFISH__CONTROL_REQUEST__KIND_CORE_ON : RACKFISH__CONTROL_REQUEST__KIND_CORE_OFF;
    request.core_on = &body; /* the members of the union that are CoreRequests share this place */
    return ask(cli, &request, body.wait);
}

int cli_node(cli_t *cli, int argc, char **argv)
{
    Rackfish__NodeRequest body;
    rackfish__node_request__init(&body);
    const char *config = NULL;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == 'w') body.wait = true;
        if (c == 'k') body.kill = true;
        if (c == 'c') config = optarg;
    }
    bool add = optind < argc && strcmp(argv[optind], "add") == 0;
    if (argc - optind != 2 || (!add && strcmp(argv[optind], "remove") != 0))
        return cli_usage(cli, "takes add or remove, and a node; `rackfish nodes` lists them");
    if (body.wait && body.kill) return cli_usage(cli, "--wait for its domains or --kill them, not both");
    if (add) return up_add_node(cli, argv[optind + 1], config);
    body.node = argv[optind + 1];
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_NODE_REMOVE;
    request.node_remove = &body;
    return ask(cli, &request, body.wait);
}
