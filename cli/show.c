/* status, cores, nodes, ps, links, names, mem: the machine as one, as tables or JSON. */
#include "cli/show.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

static Rackfish__Empty empty = RACKFISH__EMPTY__INIT;

/* Every list message begins like this: its items, as protobuf-c lays them out. */
typedef struct list {
    ProtobufCMessage base;
    size_t n;
    ProtobufCMessage **items;
} list_t;

/* Moves the items of `more` behind those of `whole`. A long list comes in several replies. */
static bool list_append(list_t *whole, list_t *more)
{
    if (more->n == 0) return true;
    ProtobufCMessage **items = realloc(whole->items, (whole->n + more->n) * sizeof *items);
    if (!items) return false;
    memcpy(items + whole->n, more->items, more->n * sizeof *items);
    whole->items = items;
    whole->n += more->n;
    more->n = 0; /* they are whole's now; the array alone goes with `more` */
    return true;
}

/* Takes the further replies of a list. Says on standard error who could not be asked. */
static int show_ask_rest(const cli_t *cli, client_t *client, reply_t *whole)
{
    bool more = whole->more;
    while (more) {
        reply_t *next = NULL;
        rf_err_t err = client_receive(client, rf_clock_ns() + CLI_REPLY_TIMEOUT_MS * RF_NS_PER_MS, &next);
        if (err != RF_OK) return client_lost(cli, client, err);
        bool fits = next->id == whole->id && next->kind_case == whole->kind_case;
        more = next->id != whole->id || next->more;
        int status = next->id == whole->id && next->err != RF_OK ? client_refused(cli, next) : CLI_OK;
        if (status == CLI_OK && fits && !list_append((list_t *)whole->links, (list_t *)next->links))
            status = client_lost(cli, client, RF_ERR_NO_MEMORY);
        if (status == CLI_OK && fits && !more && next->message[0]) cli_error(cli, "%s", next->message);
        client_reply_free(next);
        if (status != CLI_OK) return status;
    }
    return CLI_OK;
}

int show_ask(const cli_t *cli, client_t *client, Rackfish__ControlRequest__KindCase kind,
             Rackfish__ControlReply__KindCase reply_kind, reply_t **reply)
{
    request_t request = REQUEST_INIT;
    request.kind_case = kind;
    request.status = &empty; /* the members of the union that are Empty share this place */
    int status = client_ask(cli, client, &request, CLI_REPLY_TIMEOUT_MS, reply);
    if (status != CLI_OK) return status;
    status = (*reply)->kind_case == reply_kind ? show_ask_rest(cli, client, *reply)
                                               : client_lost(cli, client, RF_ERR_PROTOCOL);
    if (status != CLI_OK) {
        client_reply_free(*reply);
        *reply = NULL;
    }
    return status;
}

int show_ask_resources(const cli_t *cli, client_t *client, reply_t **reply)
{
    reply_t *domains;
    int status = show_ask(cli, client, RACKFISH__CONTROL_REQUEST__KIND_DOMAINS,
                          RACKFISH__CONTROL_REPLY__KIND_DOMAINS, &domains);
    if (status != CLI_OK) return status;
    status = show_ask(cli, client, RACKFISH__CONTROL_REQUEST__KIND_RESOURCES,
                      RACKFISH__CONTROL_REPLY__KIND_RESOURCES, reply);
    for (size_t i = 0; status == CLI_OK && i < (*reply)->resources->n_resources; i++) {
        Rackfish__Resource *r = (*reply)->resources->resources[i];
        for (size_t k = 0; r->domain && !r->program[0] && k < domains->domains->n_domains; k++) {
            char *program = domains->domains->domains[k]->domain == r->domain
                                ? strdup(domains->domains->domains[k]->program)
                                : NULL;
            if (program) r->program = program; /* the reply's, and freed with it */
        }
    }
    client_reply_free(domains);
    return status;
}

const char *show_ranges(char *buffer, size_t max, const uint32_t *numbers, size_t n)
{
    size_t used = 0;
    buffer[0] = '\0';
    for (size_t i = 0; i < n && used < max;) {
        size_t last = i;
        while (last + 1 < n && numbers[last + 1] == numbers[last] + 1) last++;
        int k = last > i ? snprintf(buffer + used, max - used, "%s%u-%u", used ? "," : "", numbers[i],
                                    numbers[last])
                         : snprintf(buffer + used, max - used, "%s%u", used ? "," : "", numbers[i]);
        used += k > 0 ? (size_t)k : 0;
        i = last + 1;
    }
    return buffer;
}

static table_colour_t state_colour(const char *state)
{
    if (strcmp(state, "up") == 0 || strcmp(state, "running") == 0) return TABLE_GOOD;
    if (strcmp(state, "down") == 0 || strcmp(state, "dead") == 0 || strcmp(state, "broken") == 0)
        return TABLE_BAD;
    return TABLE_DIM;
}

/* Runs a command that has no options of its own and shows one reply. */
typedef void (*show_fn)(const cli_t *cli, const client_t *client, const reply_t *reply);

static int show_simple(cli_t *cli, int argc, char **argv, Rackfish__ControlRequest__KindCase kind,
                       Rackfish__ControlReply__KindCase reply_kind, show_fn show)
{
    if (cli_option_next(cli, argc, argv) == CLI_OPTION_STOP) return cli->status;
    if (optind < argc) return cli_usage(cli, "takes no arguments, but \"%s\" was given", argv[optind]);
    client_t client;
    reply_t *reply;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    status = kind == RACKFISH__CONTROL_REQUEST__KIND_RESOURCES
                 ? show_ask_resources(cli, &client, &reply)
                 : show_ask(cli, &client, kind, reply_kind, &reply);
    if (status == CLI_OK) {
        show(cli, &client, reply);
        client_reply_free(reply);
    }
    client_close(&client);
    return status;
}

/* ---- status ---- */

static void status_json(const Rackfish__Status *s)
{
    json_t json = json_on(stdout);
    json_object_begin(&json, NULL);
    json_string(&json, "machine", s->machine);
    json_hex(&json, "machine_id", s->machine_id.data, s->machine_id.len);
    json_u64(&json, "view", s->view);
    json_u64(&json, "term", s->term);
    json_u64(&json, "log_committed", s->log_committed);
    json_u64(&json, "log_applied", s->log_applied);
    if (s->leader >= 0)
        json_i64(&json, "leader", s->leader);
    else
        json_null(&json, "leader");
    json_bool(&json, "has_quorum", s->has_quorum);
    json_bool(&json, "forming", s->forming);
    json_u64(&json, "voters", s->voters);
    json_numbers(&json, "voter", s->voter, s->n_voter);
    json_numbers(&json, "waiting", s->waiting, s->n_waiting);
    json_array_begin(&json, "witnesses");
    for (size_t i = 0; i < s->n_witness; i++) json_string(&json, NULL, s->witness[i]);
    json_array_end(&json);
    json_bool(&json, "lost", s->lost);
    json_bool(&json, "joint", s->joint);
    json_bool(&json, "frozen", s->frozen);
    json_u64(&json, "survives_cores", s->survives_cores);
    json_u64(&json, "survives_nodes", s->survives_nodes);
    json_u64(&json, "log_first", s->log_first);
    json_u64(&json, "elections", s->elections);
    json_u64(&json, "expulsions", s->expulsions);
    json_u64(&json, "expulsions_silent", s->expulsions_silent);
    json_u64(&json, "expelled_alive", s->expelled_alive);
    json_u64(&json, "late_often_ns", s->late_often_ns);
    json_u64(&json, "late_worst_ns", s->late_worst_ns);
    json_u64(&json, "snapshots_sent", s->snapshots_sent);
    json_u64(&json, "snapshots_loaded", s->snapshots_loaded);
    json_u64(&json, "incarnation", s->incarnation);
    json_u64(&json, "nodes", s->nodes);
    json_u64(&json, "nodes_up", s->nodes_up);
    json_u64(&json, "cores", s->cores);
    json_u64(&json, "cores_up", s->cores_up);
    json_u64(&json, "domains", s->domains);
    json_string(&json, "survives", s->survives);
    json_u64(&json, "uptime_ns", s->uptime_ns);
    json_string(&json, "scheduler", s->scheduler);
    json_string(&json, "isolation", s->isolation);
    json_bool(&json, "encrypted", s->encrypted);
    json_string(&json, "append", s->append);
    json_string(&json, "plan", s->plan);
    json_u64(&json, "lanes", s->lanes);
    json_u64(&json, "lease_ms", s->lease_ms);
    json_u64(&json, "lease_drift", s->lease_drift);
    json_u64(&json, "reads_leased", s->reads_leased);
    json_u64(&json, "reads_asked", s->reads_asked);
    json_string(&json, "answered_by", s->answered_by);
    json_object_end(&json);
    json_line_end(&json);
}

static void show_status(const cli_t *cli, const client_t *client, const reply_t *reply)
{
    const Rackfish__Status *s = reply->status;
    (void)client;
    if (cli->json) {
        status_json(s);
        return;
    }
    bool c = cli->colour;
    char text[64], leader[64], voters[64];
    bool whole = s->cores_up == s->cores && s->nodes_up == s->nodes;
    if (s->leader >= 0)
        snprintf(leader, sizeof leader, "core %d", s->leader);
    else
        snprintf(leader, sizeof leader, "none in reach");
    printf("machine    %s%s%s (", table_escape(TABLE_BOLD, c), s->machine, table_escape(TABLE_PLAIN, c));
    for (size_t i = 0; i < s->machine_id.len; i++) printf("%02x", s->machine_id.data[i]);
    printf(")\nup         %s\n", table_duration(text, sizeof text, s->uptime_ns));
    printf("nodes      %s%u of %u up%s\n", table_escape(whole ? TABLE_GOOD : TABLE_BAD, c), s->nodes_up,
           s->nodes, table_escape(TABLE_PLAIN, c));
    printf("cores      %s%u of %u up%s\n", table_escape(whole ? TABLE_GOOD : TABLE_BAD, c), s->cores_up,
           s->cores, table_escape(TABLE_PLAIN, c));
    printf("domains    %u\n", s->domains);
    printf("view       %llu, term %llu, leader %s%s\n", (unsigned long long)s->view,
           (unsigned long long)s->term, leader, s->joint ? ", its voters are changing" : "");
    printf("voters     %u: core%s %s\n", s->voters, s->voters == 1 ? "" : "s",
           show_ranges(voters, sizeof voters, s->voter, s->n_voter));
    for (size_t i = 0; i < s->n_witness; i++)
        printf("witness    node %s: votes, and runs only what --core or --node sends there\n", s->witness[i]);
    printf("log        %llu committed, %llu applied\n", (unsigned long long)s->log_committed,
           (unsigned long long)s->log_applied);
    printf("append     %s\n", s->append);
    printf("plan       %s\n", s->plan);
    if (s->lease_ms > 0)
        printf(
            "reads      by the leader alone while it holds a lease, of %u ms less %u %%; as leader this core "
            "answered %llu so, and asked a majority for %llu\n",
            s->lease_ms, s->lease_drift, (unsigned long long)s->reads_leased,
            (unsigned long long)s->reads_asked);
    printf("changes    %llu election%s, %llu expulsion%s, seen by this core",
           (unsigned long long)s->elections, s->elections == 1 ? "" : "s", (unsigned long long)s->expulsions,
           s->expulsions == 1 ? "" : "s");
    if (s->expulsions_silent > 0)
        printf("; %llu on silence, no kernel had said that they were dead",
               (unsigned long long)s->expulsions_silent);
    putchar('\n');
    printf("lateness   p99.9 %.1f ms, worst %.1f ms: of this core's monitor, when it was due\n",
           (double)s->late_often_ns / 1e6, (double)s->late_worst_ns / 1e6);
    if (s->expelled_alive > 0)
        printf(
            "falsely    %llu core%s of this node %s expelled while running: silent for too long, not dead\n",
            (unsigned long long)s->expelled_alive, s->expelled_alive == 1 ? "" : "s",
            s->expelled_alive == 1 ? "was" : "were");
    const char *quorum = s->forming      ? "no: the machine is still forming"
                         : s->has_quorum ? "yes"
                         : s->lost       ? "no, never again: a majority of the voters is dead"
                                         : "no: agreed changes are refused until its cores are back";
    printf("quorum     %s%s%s\n", table_escape(s->has_quorum ? TABLE_GOOD : TABLE_BAD, c), quorum,
           table_escape(TABLE_PLAIN, c));
    printf("survives   %s\n", s->survives);
    if (s->n_waiting > 0)
        printf("%s  core%s %s\n", s->lost ? "lost     " : "waits for", s->n_waiting == 1 ? "" : "s",
               show_ranges(voters, sizeof voters, s->waiting, s->n_waiting));
    if (s->frozen) printf("frozen     the domains of this node, which has no contact with the quorum\n");
    printf("links      TCP %s\n", s->encrypted ? "encrypted" : "not encrypted");
    printf("scheduler  %s\n", s->scheduler);
    printf("isolation  %s\n", s->isolation);
    printf("answered   by %s\n", s->answered_by);
}

const cli_option_t cli_status_options[] = {
    {"resources", 'r', NULL,
     "instead: descriptors, links, queue pairs, rings and pinned memory of each core's monitor"},
    {NULL, 0, NULL, NULL},
};

int cli_status(cli_t *cli, int argc, char **argv)
{
    bool resources = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == 'r') resources = true;
    }
    if (resources && optind == argc) return show_holdings(cli);
    return show_simple(cli, argc, argv, RACKFISH__CONTROL_REQUEST__KIND_STATUS,
                       RACKFISH__CONTROL_REPLY__KIND_STATUS, show_status);
}

/* ---- cores ---- */

static void show_cores(const cli_t *cli, const client_t *client, const reply_t *reply)
{
    const Rackfish__CoreList *list = reply->cores;
    (void)client;
    if (cli->json) {
        json_t json = json_on(stdout);
        for (size_t i = 0; i < list->n_cores; i++) {
            const Rackfish__Core *core = list->cores[i];
            json_object_begin(&json, NULL);
            json_u64(&json, "core", core->core);
            json_string(&json, "node", core->node);
            json_string(&json, "state", core->state);
            json_u64(&json, "incarnation", core->incarnation);
            json_u64(&json, "cpu", core->cpu);
            json_bool(&json, "shared_cpu", core->shared_cpu);
            json_bool(&json, "witness", core->witness);
            json_i64(&json, "package", core->package);
            json_i64(&json, "numa", core->numa);
            json_object_end(&json);
            json_line_end(&json);
        }
        return;
    }
    table_t *table = table_new("CORE> NODE STATE LIFE> CPU> SHARED PACKAGE> NUMA>", cli->colour);
    for (size_t i = 0; i < list->n_cores; i++) {
        const Rackfish__Core *core = list->cores[i];
        table_cell(table, "%u", core->core);
        table_cell(table, "%s", core->node);
        table_cell_coloured(table, state_colour(core->state), "%s", core->state);
        table_cell(table, "%u", core->incarnation);
        table_cell(table, "%u", core->cpu);
        table_cell(table, "%s", core->shared_cpu ? "yes" : "no");
        core->package >= 0 ? table_cell(table, "%d", core->package) : table_cell(table, "-");
        core->numa >= 0 ? table_cell(table, "%d", core->numa) : table_cell(table, "-");
    }
    table_print(table, stdout, 0);
}

int cli_cores(cli_t *cli, int argc, char **argv)
{
    return show_simple(cli, argc, argv, RACKFISH__CONTROL_REQUEST__KIND_CORES,
                       RACKFISH__CONTROL_REPLY__KIND_CORES, show_cores);
}

/* ---- nodes ---- */

static void show_nodes(const cli_t *cli, const client_t *client, const reply_t *reply)
{
    const Rackfish__NodeList *list = reply->nodes;
    (void)client;
    if (cli->json) {
        json_t json = json_on(stdout);
        for (size_t i = 0; i < list->n_nodes; i++) {
            const Rackfish__Node *node = list->nodes[i];
            json_object_begin(&json, NULL);
            json_string(&json, "name", node->name);
            json_u64(&json, "node", node->node);
            json_string(&json, "address", node->address);
            json_string(&json, "state", node->state);
            json_u64(&json, "first_core", node->first_core);
            json_u64(&json, "cores", node->cores);
            json_u64(&json, "cores_up", node->cores_up);
            json_bool(&json, "witness", node->witness);
            json_u64(&json, "memory_bytes", node->memory_bytes);
            json_u64(&json, "memory_free_bytes", node->memory_free_bytes);
            json_string(&json, "cpu_model", node->cpu_model);
            json_object_end(&json);
            json_line_end(&json);
        }
        return;
    }
    table_t *table = table_new("NODE> NAME STATE ADDRESS CORES UP> MEMORY> FREE> CPU", cli->colour);
    for (size_t i = 0; i < list->n_nodes; i++) {
        const Rackfish__Node *node = list->nodes[i];
        char cores[32], memory[32];
        if (node->cores > 1)
            snprintf(cores, sizeof cores, "%u-%u", node->first_core, node->first_core + node->cores - 1);
        else
            snprintf(cores, sizeof cores, "%u", node->first_core);
        table_cell(table, "%u", node->node);
        table_cell(table, "%s", node->name);
        table_cell_coloured(table, state_colour(node->state), "%s%s", node->state,
                            node->witness ? ", witness" : "");
        table_cell(table, "%s", node->address);
        table_cell(table, "%s", node->cores ? cores : "-");
        table_cell(table, "%u", node->cores_up);
        table_cell(table, "%s",
                   node->memory_bytes ? table_bytes(memory, sizeof memory, node->memory_bytes) : "-");
        table_cell(table, "%s",
                   node->memory_bytes ? table_bytes(memory, sizeof memory, node->memory_free_bytes) : "-");
        table_cell(table, "%s", node->cpu_model);
    }
    table_print(table, stdout, 0);
}

int cli_nodes(cli_t *cli, int argc, char **argv)
{
    return show_simple(cli, argc, argv, RACKFISH__CONTROL_REQUEST__KIND_NODES,
                       RACKFISH__CONTROL_REPLY__KIND_NODES, show_nodes);
}

/* ---- ps ---- */

const cli_option_t cli_ps_options[] = {
    {"all", 'a', NULL, "also domains that have ended"},
    {NULL, 0, NULL, NULL},
};

static void status_words(const Rackfish__Domain *domain, char *text, size_t max)
{
    int status = domain->wait_status;
    if (strcmp(domain->state, "ended") != 0)
        snprintf(text, max, "-");
    else if (domain->reason != RF_OK)
        snprintf(text, max, "%s",
                 domain->reason == RF_ERR_PEER_DEAD ? "lost: its core died"
                                                    : rf_err_text((rf_err_t)domain->reason));
    else if (WIFSIGNALED(status))
        snprintf(text, max, "signal %s", cli_signal_name(WTERMSIG(status)));
    else
        snprintf(text, max, "exit %d", WEXITSTATUS(status));
}

static void domain_json(json_t *json, const Rackfish__Domain *domain)
{
    bool ended = strcmp(domain->state, "ended") == 0;
    json_object_begin(json, NULL);
    json_u64(json, "domain", domain->domain);
    json_string(json, "state", domain->state);
    json_string(json, "user", domain->user);
    json_string(json, "program", domain->program);
    json_array_begin(json, "cores");
    for (size_t i = 0; i < domain->n_cores; i++) json_u64(json, NULL, domain->cores[i]);
    json_array_end(json);
    json_array_begin(json, "alive");
    for (size_t i = 0; i < domain->n_alive; i++) json_bool(json, NULL, domain->alive[i]);
    json_array_end(json);
    json_u64(json, "started_ns", domain->started_ns);
    if (ended) {
        json_u64(json, "ended_ns", domain->ended_ns);
        if (domain->reason != RF_OK)
            json_string(json, "reason", rf_err_name((rf_err_t)domain->reason));
        else if (WIFSIGNALED(domain->wait_status))
            json_i64(json, "signal", WTERMSIG(domain->wait_status));
        else
            json_i64(json, "exit", WEXITSTATUS(domain->wait_status));
    }
    json_object_end(json);
    json_line_end(json);
}

int cli_ps(cli_t *cli, int argc, char **argv)
{
    bool all = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        all = true;
    }
    if (optind < argc) return cli_usage(cli, "takes no arguments, but \"%s\" was given", argv[optind]);
    client_t client;
    reply_t *reply;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    status = show_ask(cli, &client, RACKFISH__CONTROL_REQUEST__KIND_DOMAINS,
                      RACKFISH__CONTROL_REPLY__KIND_DOMAINS, &reply);
    if (status != CLI_OK) {
        client_close(&client);
        return status;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * RF_NS_PER_S + (uint64_t)now.tv_nsec;
    json_t json = json_on(stdout);
    table_t *table = cli->json ? NULL : table_new("ID> STATE USER CORES TIME> RESULT PROGRAM", cli->colour);
    for (size_t i = 0; i < reply->domains->n_domains; i++) {
        const Rackfish__Domain *domain = reply->domains->domains[i];
        bool ended = strcmp(domain->state, "ended") == 0;
        if (ended && !all) continue;
        if (cli->json) {
            domain_json(&json, domain);
            continue;
        }
        char text[128];
        uint64_t until = ended && domain->ended_ns ? domain->ended_ns : now_ns;
        table_cell(table, "%llu", (unsigned long long)domain->domain);
        table_cell_coloured(table, state_colour(domain->state), "%s", domain->state);
        table_cell(table, "%s", domain->user);
        table_cell(table, "%s", show_ranges(text, sizeof text, domain->cores, domain->n_cores));
        table_cell(
            table, "%s",
            table_duration(text, sizeof text, until > domain->started_ns ? until - domain->started_ns : 0));
        status_words(domain, text, sizeof text);
        table_cell(table, "%s", text);
        table_cell(table, "%s", domain->program);
    }
    if (!cli->json) table_print(table, stdout, 0);
    client_reply_free(reply);
    client_close(&client);
    return CLI_OK;
}

/* ---- links ---- */

static void show_links(const cli_t *cli, const client_t *client, const reply_t *reply)
{
    const Rackfish__LinkList *list = reply->links;
    (void)client;
    if (cli->json) {
        json_t json = json_on(stdout);
        for (size_t i = 0; i < list->n_links; i++) {
            const Rackfish__Link *link = list->links[i];
            json_object_begin(&json, NULL);
            json_u64(&json, "from", link->from);
            json_u64(&json, "to", link->to);
            json_string(&json, "medium", link->medium);
            json_string(&json, "state", link->state);
            json_bool(&json, "encrypted", link->encrypted);
            if (link->one_way_ns_p50)
                json_u64(&json, "one_way_ns_p50", link->one_way_ns_p50);
            else
                json_null(&json, "one_way_ns_p50");
            json_u64(&json, "slots_sent", link->slots_sent);
            json_u64(&json, "slots_received", link->slots_received);
            json_u64(&json, "broken", link->broken);
            json_string(&json, "address", link->address);
            json_object_end(&json);
            json_line_end(&json);
        }
        return;
    }
    table_t *table =
        table_new("FROM> TO> MEDIUM STATE ONE-WAY> SENT> RECEIVED> BROKEN> ENCRYPTED", cli->colour);
    for (size_t i = 0; i < list->n_links; i++) {
        const Rackfish__Link *link = list->links[i];
        char text[32];
        table_cell(table, "%u", link->from);
        table_cell(table, "%u", link->to);
        table_cell(table, "%s", link->medium);
        table_cell_coloured(table, state_colour(link->state), "%s", link->state);
        table_cell(table, "%s",
                   link->one_way_ns_p50 ? table_ns(text, sizeof text, link->one_way_ns_p50) : "-");
        table_cell(table, "%llu", (unsigned long long)link->slots_sent);
        table_cell(table, "%llu", (unsigned long long)link->slots_received);
        table_cell(table, "%llu", (unsigned long long)link->broken);
        table_cell(table, "%s", link->encrypted ? "yes" : "no");
    }
    table_print(table, stdout, 0);
}

int cli_links(cli_t *cli, int argc, char **argv)
{
    return show_simple(cli, argc, argv, RACKFISH__CONTROL_REQUEST__KIND_LINKS,
                       RACKFISH__CONTROL_REPLY__KIND_LINKS, show_links);
}

/* ---- names ---- */

static void show_names(const cli_t *cli, const client_t *client, const reply_t *reply)
{
    const Rackfish__NameList *list = reply->names;
    (void)client;
    json_t json = json_on(stdout);
    table_t *table = cli->json ? NULL : table_new("NAME DOMAIN> PART> CORE>", cli->colour);
    for (size_t i = 0; i < list->n_names; i++) {
        const Rackfish__Name *name = list->names[i];
        if (cli->json) {
            json_object_begin(&json, NULL);
            json_string(&json, "name", name->name);
            json_u64(&json, "domain", name->domain);
            json_u64(&json, "index", name->index);
            json_u64(&json, "core", name->core);
            json_object_end(&json);
            json_line_end(&json);
            continue;
        }
        table_cell(table, "%s", name->name);
        table_cell(table, "%llu", (unsigned long long)name->domain);
        table_cell(table, "%u", name->index);
        table_cell(table, "%u", name->core);
    }
    if (!cli->json) table_print(table, stdout, 0);
}

int cli_names(cli_t *cli, int argc, char **argv)
{
    return show_simple(cli, argc, argv, RACKFISH__CONTROL_REQUEST__KIND_NAMES,
                       RACKFISH__CONTROL_REPLY__KIND_NAMES, show_names);
}

/* ---- mem ---- */

static void show_mem(const cli_t *cli, const client_t *client, const reply_t *reply)
{
    const Rackfish__ResourceList *list = reply->resources;
    (void)client;
    json_t json = json_on(stdout);
    table_t *table =
        cli->json ? NULL : table_new("CORE> DOMAIN> PART> PROCESSES> RESIDENT> PROGRAM", cli->colour);
    uint64_t total_kib = 0;
    for (size_t i = 0; i < list->n_resources; i++) {
        const Rackfish__Resource *r = list->resources[i];
        total_kib += r->rss_kib;
        if (cli->json) {
            json_object_begin(&json, NULL);
            json_u64(&json, "core", r->core);
            json_u64(&json, "domain", r->domain);
            json_u64(&json, "index", r->index);
            json_u64(&json, "processes", r->processes);
            json_u64(&json, "rss_kib", r->rss_kib);
            json_string(&json, "program", r->domain ? r->program : "(system)");
            json_object_end(&json);
            json_line_end(&json);
            continue;
        }
        char text[32];
        table_cell(table, "%u", r->core);
        r->domain ? table_cell(table, "%llu", (unsigned long long)r->domain) : table_cell(table, "-");
        r->domain ? table_cell(table, "%u", r->index) : table_cell(table, "-");
        table_cell(table, "%u", r->processes);
        table_cell(table, "%s", table_bytes(text, sizeof text, r->rss_kib << 10));
        table_cell_coloured(table, r->domain ? TABLE_PLAIN : TABLE_DIM, "%s",
                            r->domain ? r->program : "(system)");
    }
    if (!cli->json) {
        char text[32];
        table_print(table, stdout, 0);
        printf("total %s\n", table_bytes(text, sizeof text, total_kib << 10));
    }
}

int cli_mem(cli_t *cli, int argc, char **argv)
{
    return show_simple(cli, argc, argv, RACKFISH__CONTROL_REQUEST__KIND_RESOURCES,
                       RACKFISH__CONTROL_REPLY__KIND_RESOURCES, show_mem);
}
