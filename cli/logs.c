/* logs: what the machine's processes wrote, by rackfishd, or from the run directory when none is left. */
#include "cli/client.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/machine.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const cli_option_t cli_logs_options[] = {
    {"follow", 'f', NULL, "go on as they grow"},
    {"lines", 'n', "N", "the last N lines of each (default: all that is kept)"},
    {NULL, 0, NULL, NULL},
};

/* Chunks arrive as read from files: put back together into lines, a log at a time. */
typedef struct log_line {
    char source[128];
    char text[8192];
    size_t used;
} log_line_t;

#define SOURCES_MAX 1024

typedef struct log_output {
    const cli_t *cli;
    json_t json;
    log_line_t *open[SOURCES_MAX];
    size_t n;
} log_output_t;

static void put_line(log_output_t *out, log_line_t *line)
{
    if (out->cli->json) {
        json_object_begin(&out->json, NULL);
        json_string(&out->json, "source", line->source);
        json_bytes(&out->json, "line", line->text, line->used);
        json_object_end(&out->json);
        json_line_end(&out->json);
    } else {
        printf("%s: %.*s\n", line->source, (int)line->used, line->text);
    }
    line->used = 0;
}

static log_line_t *line_of(log_output_t *out, const char *source)
{
    for (size_t i = 0; i < out->n; i++) {
        if (strcmp(out->open[i]->source, source) == 0) return out->open[i];
    }
    if (out->n == SOURCES_MAX) return NULL;
    log_line_t *line = calloc(1, sizeof *line);
    if (line) {
        snprintf(line->source, sizeof line->source, "%s", source);
        out->open[out->n++] = line;
    }
    return line;
}

static void put_bytes(log_output_t *out, const char *source, const char *bytes, size_t size)
{
    log_line_t *line = line_of(out, source);
    for (size_t i = 0; line && i < size; i++) {
        if (bytes[i] == '\n')
            put_line(out, line);
        else if (line->used < sizeof line->text)
            line->text[line->used++] = (unsigned char)bytes[i] < 0x20 && bytes[i] != '\t' ? '?' : bytes[i];
    }
}

static void put_rest(log_output_t *out)
{
    for (size_t i = 0; i < out->n; i++) {
        if (out->open[i]->used > 0) put_line(out, out->open[i]);
        free(out->open[i]);
    }
    out->n = 0;
}

/* The position behind which the last `lines` lines are. */
static long tail_start(FILE *in, uint64_t lines)
{
    if (lines == 0 || fseek(in, 0, SEEK_END) < 0) return 0;
    long at = ftell(in);
    uint64_t seen = 0;
    while (at > 0) {
        fseek(in, at - 1, SEEK_SET);
        if (fgetc(in) == '\n' && ++seen > lines) return at;
        at--;
    }
    return 0;
}

static bool is_log_of(const char *name, int core)
{
    char monitor[32], driver[32];
    size_t n = strlen(name);
    if (n < 4 || strcmp(name + n - 4, ".log") != 0) return false;
    snprintf(monitor, sizeof monitor, "monitor-%d.log", core);
    snprintf(driver, sizeof driver, "cpudriver-%d.log", core);
    return core < 0 || strcmp(name, monitor) == 0 || strcmp(name, driver) == 0;
}

static int logs_from_files(const cli_t *cli, int core, uint64_t lines, log_output_t *out)
{
    machine_dir_t dir;
    if (!machine_find(cli, &dir) || dir.n_nodes == 0) return CLI_NO_MACHINE;
    bool any = false;
    for (unsigned i = 0; i < dir.n_nodes; i++) {
        char folder[CLI_PATH_MAX], path[CLI_PATH_MAX], source[RF_NAME_MAX + 260], chunk[4096];
        struct dirent **entries;
        if (cli->via && strcmp(cli->via, dir.nodes[i]) != 0) continue;
        snprintf(folder, sizeof folder, "%s/%s", dir.path, dir.nodes[i]);
        int n = scandir(folder, &entries, NULL, alphasort);
        for (int e = 0; e < n; e++) {
            FILE *in = NULL;
            if (is_log_of(entries[e]->d_name, core) &&
                snprintf(path, sizeof path, "%s/%s", folder, entries[e]->d_name) < (int)sizeof path)
                in = fopen(path, "re");
            snprintf(source, sizeof source, "%s/%s", dir.nodes[i], entries[e]->d_name);
            free(entries[e]);
            if (!in) continue;
            any = true;
            fseek(in, tail_start(in, lines), SEEK_SET);
            for (size_t got; (got = fread(chunk, 1, sizeof chunk, in)) > 0;)
                put_bytes(out, source, chunk, got);
            fclose(in);
        }
        if (n >= 0) free(entries);
    }
    return any ? CLI_OK : CLI_FAILED;
}

static int logs_from_node(const cli_t *cli, client_t *client, request_t *request, log_output_t *out)
{
    bool follow = request->logs->follow;
    if (!client_queue(client, request)) return cli_error(cli, "the request is too large");
    for (;;) {
        reply_t *reply;
        uint64_t deadline = follow ? RF_NEVER : rf_clock_ns() + CLI_REPLY_TIMEOUT_MS * RF_NS_PER_MS;
        rf_err_t err = client_receive(client, deadline, &reply);
        if (err != RF_OK) {
            put_rest(out);
            return client_lost(cli, client, err);
        }
        int status = reply->err == RF_OK ? CLI_OK : client_refused(cli, reply);
        bool more = reply->more;
        if (status == CLI_OK && reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_LOGS)
            put_bytes(out, reply->logs->source, (const char *)reply->logs->data.data, reply->logs->data.len);
        client_reply_free(reply);
        fflush(stdout);
        if (status != CLI_OK || !more || ferror(stdout)) {
            put_rest(out);
            return status;
        }
    }
}

int cli_logs(cli_t *cli, int argc, char **argv)
{
    Rackfish__LogsRequest logs;
    rackfish__logs_request__init(&logs);
    uint64_t lines = 0, core = 0;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == 'f') logs.follow = true;
        if (c == 'n' && !cli_parse_number(optarg, 1, UINT32_MAX, &lines))
            return cli_usage(cli, "--lines takes a number, not \"%s\"", optarg);
    }
    logs.core = -1;
    logs.lines = (uint32_t)lines;
    if (optind + 1 < argc)
        return cli_usage(cli, "takes one core, but also \"%s\" was given", argv[optind + 1]);
    if (optind < argc) {
        if (!cli_parse_number(argv[optind], 0, RF_CORES_MAX - 1, &core))
            return cli_usage(cli, "\"%s\" is no core's number; `rackfish cores` lists them", argv[optind]);
        logs.core = (int32_t)core;
    }
    log_output_t *out = calloc(1, sizeof *out);
    if (!out) return cli_error(cli, "out of memory");
    out->cli = cli;
    out->json = json_on(stdout);
    int status = CLI_NO_MACHINE;
    machine_dir_t dir;
    client_t client = {.fd = -1};
    bool live = false;
    if (machine_name_valid(cli->machine) && machine_find(cli, &dir)) {
        for (unsigned i = 0; i < dir.n_nodes && !live; i++) {
            char path[CLI_PATH_MAX], why[256];
            if (cli->via && strcmp(cli->via, dir.nodes[i]) != 0) continue;
            snprintf(path, sizeof path, "%s/%s.sock", dir.path, dir.nodes[i]);
            live = client_connect(&client, path, 3000, why, sizeof why) == RF_OK;
        }
    }
    if (!live) {
        status = logs_from_files(cli, (int)logs.core, lines, out);
        put_rest(out);
        /* Another user's folder cannot be listed, but its sockets may be open to this one; or it says why not. */
        if (status != CLI_OK) live = (status = client_open(cli, &client)) == CLI_OK;
    }
    if (live) {
        request_t request = REQUEST_INIT;
        request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_LOGS;
        request.logs = &logs;
        if (cli->via) logs.node = (char *)(uintptr_t)cli->via;
        status = logs_from_node(cli, &client, &request, out);
        client_close(&client);
    }
    free(out);
    return status;
}
