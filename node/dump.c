#include "node/dump.h"

#include "base/os.h"
#include "node/cores.h"
#include "node/gather.h"
#include "node/logs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FILES_MAX 2048
#define PIECE     (64u << 10)
#define TEXT_MAX  (256u << 10)

typedef struct dump_query {
    rf_gather_t gather;
    unsigned n_files, at;
    char (*files)[RF_LOG_NAME_MAX + 8]; /* of the run directory */
    int fd;
    bool config_sent, summary_sent;
    rf_timer_t timer;
} dump_query_t;

static bool send_part(dump_query_t *query, const char *name, const void *bytes, size_t size, bool end)
{
    rf_client_t *client = query->gather.operation.client;
    char path[RF_NAME_MAX + RF_LOG_NAME_MAX + 16];
    snprintf(path, sizeof path, "%s/%s", client->daemon->config->nodes[client->daemon->node].name, name);
    Rackfish__DumpFile file;
    rackfish__dump_file__init(&file);
    file.path = path;
    file.data = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = size};
    file.end = end;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = query->gather.operation.id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_DUMP;
    reply.dump = &file;
    return rf_client_reply(client, &reply);
}

/* What this rackfishd knows, for a person. */
static void send_summary(dump_query_t *query)
{
    const rf_daemon_t *daemon = query->gather.operation.client->daemon;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct utsname host;
    if (!out) return;
    uname(&host);
    fprintf(out, "%s\nhost: %s %s %s %s\n", RF_SOFTWARE, host.nodename, host.sysname, host.release,
            host.machine);
    fprintf(out, "machine: %s, node %s (%u), %u of %u cores alive\n", daemon->config->machine,
            daemon->config->nodes[daemon->node].name, daemon->node, rf_cores_alive(daemon), daemon->n_cores);
    fprintf(out, "privileged: %s\ncgroup: %s\nrun directory: %s\n", daemon->privileged ? "yes" : "no",
            daemon->cgroup[0] ? daemon->cgroup : "none", daemon->node_dir);
    fprintf(out, "cpu: %s, %u allowed; memory: %llu bytes\n", daemon->topology.cpu_model,
            daemon->topology.n_cpus, (unsigned long long)daemon->topology.memory_bytes);
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        const rf_local_core_t *core = &daemon->cores[i];
        fprintf(out, "core %u: CPU driver %d, monitor %d, %s\n", core->core, (int)core->pid,
                (int)core->monitor_pid,
                core->life == RF_LIFE_UP     ? "up"
                : core->life == RF_LIFE_DOWN ? "down"
                                             : "starting");
        const pid_t pids[] = {core->pid, core->monitor_pid};
        for (unsigned p = 0; p < 2; p++) {
            char path[40], status[4096];
            snprintf(path, sizeof path, "/proc/%d/status", (int)pids[p]);
            if (pids[p] > 0 && rf_file_read(path, status, sizeof status) > 0) fprintf(out, "%s\n", status);
        }
    }
    if (fclose(out) == 0) send_part(query, "summary.txt", text, size < TEXT_MAX ? size : TEXT_MAX, true);
    free(text);
}

static void send_config(dump_query_t *query)
{
    const rf_daemon_t *daemon = query->gather.operation.client->daemon;
    char *text = malloc(TEXT_MAX);
    ssize_t n = text ? rf_file_read(daemon->config->path, text, TEXT_MAX) : -1;
    if (n >= 0) send_part(query, "config.yaml", text, (size_t)n, true);
    free(text);
}

static bool wanted(const char *name)
{
    size_t length = strlen(name);
    if (strcmp(name, "state") == 0 || strcmp(name, "machine") == 0 || rf_log_matches(name, -1)) return true;
    return length > 6 && length < RF_LOG_NAME_MAX + 8 && strcmp(name + length - 6, ".log.1") == 0;
}

static void scan(dump_query_t *query)
{
    DIR *folder = opendir(query->gather.operation.client->daemon->node_dir);
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) && query->n_files < FILES_MAX) {
        if (wanted(entry->d_name))
            memcpy(query->files[query->n_files++], entry->d_name, strlen(entry->d_name) + 1);
    }
    if (folder) closedir(folder);
}

/* Sends until the client is full; room() brings it back. */
static void dump_pump(void *context)
{
    static uint8_t bytes[PIECE];
    dump_query_t *query = context;
    rf_client_t *client = query->gather.operation.client;
    while (client->conn && !rf_conn_full(client->conn)) {
        if (!query->summary_sent) {
            query->summary_sent = true;
            send_summary(query);
            continue;
        }
        if (!query->config_sent) {
            query->config_sent = true;
            send_config(query);
            continue;
        }
        if (query->at == query->n_files) {
            rf_gather_part_done(&query->gather);
            return;
        }
        const char *name = query->files[query->at];
        if (query->fd < 0) {
            char path[RF_PATH_MAX + RF_LOG_NAME_MAX + 16];
            snprintf(path, sizeof path, "%s/%s", client->daemon->node_dir, name);
            query->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        }
        ssize_t n = query->fd >= 0 ? read(query->fd, bytes, sizeof bytes) : 0;
        bool end = n <= 0;
        if (!send_part(query, name, bytes, end ? 0 : (size_t)n, end)) return;
        if (end) {
            if (query->fd >= 0) close(query->fd);
            query->fd = -1;
            query->at++;
        }
    }
}

static void dump_room(rf_operation_t *operation)
{
    dump_query_t *query = (dump_query_t *)operation;
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        if (query->gather.nodes[i].remote) rf_remote_resume(query->gather.nodes[i].remote);
    }
    rf_timer_set(&operation->client->daemon->loop, &query->timer, 0, dump_pump, query);
}

static void dump_release(rf_gather_t *gather)
{
    dump_query_t *query = (dump_query_t *)gather;
    rf_timer_clear(&query->timer);
    if (query->fd >= 0) close(query->fd);
    free(query->files);
    query->files = NULL;
}

void rf_query_dump(rf_client_t *client, uint64_t id)
{
    if (!client->privileged) {
        rf_client_error(client, id, RF_ERR_PERMISSION,
                        "only root and the machine's owner, %s, may have everything", client->daemon->owner);
        return;
    }
    dump_query_t *query = rf_gather_new(client, id, sizeof *query);
    if (!query) return;
    query->fd = -1;
    query->gather.release = dump_release;
    query->gather.operation.room = dump_room;
    query->files = calloc(FILES_MAX, sizeof *query->files);
    if (!query->files) {
        rf_gather_part_done(&query->gather);
        return;
    }
    scan(query);
    Rackfish__Empty empty;
    rackfish__empty__init(&empty);
    Rackfish__ControlRequest request;
    rackfish__control_request__init(&request);
    request.id = 1;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_DUMP;
    request.dump = &empty;
    query->gather.follow = true; /* a large log may take its time */
    rf_gather_ask_others(&query->gather, &request);
    rf_timer_set(&client->daemon->loop, &query->timer, 0, dump_pump, query);
}
