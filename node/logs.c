#include "node/logs.h"

#include "base/log.h"
#include "base/os.h"
#include "node/gather.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_AFTER_NS (100 * RF_NS_PER_MS) /* so long several writes count as one */
#define FILES_MAX     (2 * RF_CORES_PER_NODE_MAX + RF_LOG_DOMAINS_MAX + 8)
#define PIECE         (32u << 10)
#define WATCH_MASK    (IN_MODIFY | IN_CREATE)

typedef struct logs_query logs_query_t;

struct rf_logs {
    int folder;
    int inotify_fd, watch;
    rf_source_t source;
    rf_timer_t timer;
    logs_query_t *followers;
};

typedef struct log_file {
    char name[RF_LOG_NAME_MAX];
    off_t offset; /* sent up to here */
    bool old;     /* NAME.1 comes first */
    off_t old_offset;
} log_file_t;

struct logs_query {
    rf_gather_t gather;
    int core;
    unsigned lines;
    bool follow;
    bool first_pass_done;
    bool privileged;
    uid_t uid;
    unsigned n_files, at;
    log_file_t *files;
    rf_timer_t timer;
    logs_query_t *next, **link;
};

/* ---- files ---- */

bool rf_log_matches(const char *name, int core)
{
    size_t length = strlen(name);
    unsigned number;
    int end = -1;
    if (length >= RF_LOG_NAME_MAX || length < 5 || strcmp(name + length - 4, ".log") != 0) return false;
    if (core < 0) return true;
    if (sscanf(name, "cpudriver-%u.log%n", &number, &end) == 1 && end == (int)length)
        return number == (unsigned)core;
    end = -1;
    return sscanf(name, "monitor-%u.log%n", &number, &end) == 1 && end == (int)length &&
           number == (unsigned)core;
}

off_t rf_log_tail_offset(int fd, off_t size, unsigned lines)
{
    char block[4096];
    unsigned seen = 0;
    /* A program can make its log as long as it likes, without writing a byte. */
    const off_t bound = 2 * (off_t)RF_LOG_BYTES_MAX, least = size > bound ? size - bound : 0;
    if (lines == 0) return 0;
    for (off_t end = size; end > least;) {
        off_t start = end - least > (off_t)sizeof block ? end - (off_t)sizeof block : least;
        ssize_t n = pread(fd, block, (size_t)(end - start), start);
        if (n <= 0) return least;
        for (ssize_t i = n - 1; i >= 0; i--) {
            /* The end of the last line does not start another. */
            if (block[i] == '\n' && start + i != size - 1 && ++seen == lines) return start + i + 1;
        }
        end = start;
    }
    return least;
}

rf_err_t rf_log_rotate(int folder, const char *name)
{
    char old[RF_LOG_NAME_MAX + 8];
    snprintf(old, sizeof old, "%s.1", name);
    int from = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int to = openat(folder, old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    rf_err_t err = from >= 0 && to >= 0 ? RF_OK : RF_ERR_OS;
    ssize_t n = 1;
    /* A writer in a hurry adds while this copies: what is beyond twice the bound is not worth keeping. */
    for (off_t copied = 0; err == RF_OK && n > 0 && copied < 2 * (off_t)RF_LOG_BYTES_MAX; copied += n) {
        n = sendfile(to, from, NULL, 1 << 20);
        if (n < 0) err = RF_ERR_OS;
    }
    if (err == RF_OK && ftruncate(from, 0) < 0) err = RF_ERR_OS;
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    return err;
}

static DIR *open_folder(const rf_logs_t *logs)
{
    int fd = openat(logs->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (!folder && fd >= 0) close(fd);
    return folder;
}

static void keep_domain_logs_bounded(const rf_logs_t *logs)
{
    for (unsigned round = 0; round < 64; round++) {
        DIR *folder = open_folder(logs);
        struct dirent *entry;
        char oldest[256] = "";
        struct timespec oldest_time = {0};
        unsigned n = 0;
        while (folder && (entry = readdir(folder))) {
            struct stat st;
            if (strncmp(entry->d_name, "domain-", 7) != 0 ||
                fstatat(logs->folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                continue;
            n++;
            if (!oldest[0] || st.st_mtim.tv_sec < oldest_time.tv_sec ||
                (st.st_mtim.tv_sec == oldest_time.tv_sec && st.st_mtim.tv_nsec < oldest_time.tv_nsec)) {
                snprintf(oldest, sizeof oldest, "%s", entry->d_name);
                oldest_time = st.st_mtim;
            }
        }
        if (folder) closedir(folder);
        if (n <= RF_LOG_DOMAINS_MAX || unlinkat(logs->folder, oldest, 0) < 0) return;
    }
}

static void rotate_large(const rf_logs_t *logs)
{
    DIR *folder = open_folder(logs);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        struct stat st;
        if (rf_log_matches(entry->d_name, -1) &&
            fstatat(logs->folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            st.st_size > (off_t)RF_LOG_BYTES_MAX && rf_log_rotate(logs->folder, entry->d_name) != RF_OK)
            rf_log(RF_LOG_WARN, "the log %s could not be rotated: %m", entry->d_name);
    }
    if (folder) closedir(folder);
}

/* ---- asking ---- */

void rf_logs_give(rf_daemon_t *daemon, rf_domain_t domain, const char *user)
{
    char name[RF_LOG_NAME_MAX];
    const struct passwd *entry = daemon->privileged ? getpwnam(user) : NULL;
    snprintf(name, sizeof name, "domain-%llu.0.log", (unsigned long long)domain);
    if (entry && fchownat(daemon->logs->folder, name, entry->pw_uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0)
        rf_log(RF_LOG_WARN, "%s cannot be given to %s: %m", name, user);
}

/* The logs of the system are for all who may use the machine; those of domains for their user. */
static bool may_read(const logs_query_t *query, const char *name, const struct stat *st)
{
    return query->privileged || strncmp(name, "domain-", 7) != 0 || st->st_uid == query->uid;
}

static log_file_t *find_file(logs_query_t *query, const char *name)
{
    for (unsigned i = 0; i < query->n_files; i++) {
        if (strcmp(query->files[i].name, name) == 0) return &query->files[i];
    }
    return NULL;
}

/* Adds files that are not known yet; the first time, only their last lines are wanted. */
static void scan_files(logs_query_t *query)
{
    rf_logs_t *logs = query->gather.operation.client->daemon->logs;
    DIR *folder = open_folder(logs);
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) && query->n_files < FILES_MAX) {
        struct stat st;
        if (!rf_log_matches(entry->d_name, query->core) || find_file(query, entry->d_name)) continue;
        log_file_t *file = &query->files[query->n_files];
        *file = (log_file_t){0};
        memcpy(file->name, entry->d_name, strlen(entry->d_name));
        int fd = openat(logs->folder, file->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && may_read(query, file->name, &st)) {
            if (!query->first_pass_done) file->offset = rf_log_tail_offset(fd, st.st_size, query->lines);
            /* All that is kept is wanted, or the last lines reach into the older file. */
            file->old = !query->first_pass_done && file->offset == 0;
            query->n_files++;
        }
        close(fd);
    }
    if (folder) closedir(folder);
}

static bool send_piece(logs_query_t *query, const char *name, const uint8_t *bytes, size_t size)
{
    rf_client_t *client = query->gather.operation.client;
    char source[RF_NAME_MAX + RF_LOG_NAME_MAX + 2];
    snprintf(source, sizeof source, "%s/%s", client->daemon->config->nodes[client->daemon->node].name, name);
    Rackfish__LogData data;
    rackfish__log_data__init(&data);
    data.source = source;
    data.data = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = size};
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = query->gather.operation.id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_LOGS;
    reply.logs = &data;
    return rf_client_reply(client, &reply);
}

/* Sends what there is of one file from *offset on. False: the client is full (or gone); go on later. */
static bool send_file(logs_query_t *query, const char *name, const char *shown, off_t *offset, unsigned lines)
{
    static uint8_t bytes[PIECE];
    rf_client_t *client = query->gather.operation.client;
    int fd = openat(client->daemon->logs->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return true;
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_size < *offset) *offset = 0; /* it was cut meanwhile */
    if (lines > 0) *offset = rf_log_tail_offset(fd, st.st_size, lines);
    bool done = false;
    while (client->conn && !rf_conn_full(client->conn)) {
        ssize_t n = pread(fd, bytes, sizeof bytes, *offset);
        if (n <= 0) {
            done = true;
            break;
        }
        if (!send_piece(query, shown, bytes, (size_t)n)) break;
        *offset += n;
    }
    close(fd);
    return done;
}

static void logs_pump(void *context)
{
    logs_query_t *query = context;
    for (; query->at < query->n_files; query->at++) {
        log_file_t *file = &query->files[query->at];
        char old[RF_LOG_NAME_MAX + 8];
        snprintf(old, sizeof old, "%s.1", file->name);
        if (file->old && query->lines == 0 && !send_file(query, old, file->name, &file->old_offset, 0))
            return; /* room() brings us back */
        file->old = false;
        if (!send_file(query, file->name, file->name, &file->offset, 0)) return;
    }
    query->first_pass_done = true;
    if (!query->follow) rf_gather_part_done(&query->gather);
}

static void logs_room(rf_operation_t *operation)
{
    logs_query_t *query = (logs_query_t *)operation;
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        if (query->gather.nodes[i].remote) rf_remote_resume(query->gather.nodes[i].remote);
    }
    if (query->at < query->n_files)
        rf_timer_set(&operation->client->daemon->loop, &query->timer, 0, logs_pump, query);
}

static void logs_release(rf_gather_t *gather)
{
    logs_query_t *query = (logs_query_t *)gather;
    rf_timer_clear(&query->timer);
    if (query->link) {
        *query->link = query->next;
        if (query->next) query->next->link = query->link;
    }
    free(query->files);
    query->files = NULL;
}

void rf_query_logs(rf_client_t *client, uint64_t id, const Rackfish__LogsRequest *request)
{
    rf_daemon_t *daemon = client->daemon;
    rf_node_t node = RF_NODE_NONE; /* all */
    if (request->core >= 0 && (node = rf_daemon_node_of_core(daemon, request->core)) == RF_NODE_NONE) {
        rf_client_error(client, id, RF_ERR_NOT_FOUND, "there is no core %d", request->core);
        return;
    }
    for (unsigned i = 0; request->node[0] && node == RF_NODE_NONE; i++) {
        if (i == daemon->config->n_nodes) {
            rf_client_error(client, id, RF_ERR_NOT_FOUND, "there is no node %.64s", request->node);
            return;
        }
        if (strcmp(daemon->config->nodes[i].name, request->node) == 0) node = (rf_node_t)i;
    }
    logs_query_t *query = rf_gather_new(client, id, sizeof *query);
    if (!query) return;
    query->gather.release = logs_release;
    query->gather.follow = request->follow;
    query->gather.operation.room = logs_room;
    query->core = request->core;
    query->lines = request->lines;
    query->follow = request->follow;
    const struct passwd *entry = getpwnam(client->user);
    query->privileged = client->privileged;
    query->uid = entry ? entry->pw_uid : (uid_t)-1;
    query->files = calloc(FILES_MAX, sizeof *query->files);

    Rackfish__ControlRequest forward;
    rackfish__control_request__init(&forward);
    Rackfish__LogsRequest copy = *request;
    forward.id = 1;
    forward.kind_case = RACKFISH__CONTROL_REQUEST__KIND_LOGS;
    forward.logs = &copy;
    if (node == RF_NODE_NONE)
        rf_gather_ask_others(&query->gather, &forward);
    else if (node != daemon->node)
        rf_gather_ask(&query->gather, node, &forward);
    if (!query->files || (node != RF_NODE_NONE && node != daemon->node)) {
        rf_gather_part_done(&query->gather);
        return;
    }
    if (query->follow) {
        query->next = daemon->logs->followers;
        query->link = &daemon->logs->followers;
        if (query->next) query->next->link = &query->next;
        daemon->logs->followers = query;
    }
    scan_files(query);
    rf_timer_set(&daemon->loop, &query->timer, 0, logs_pump, query);
}

/* ---- looking after writes ---- */

static void watch_again(rf_daemon_t *daemon)
{
    rf_logs_t *logs = daemon->logs;
    logs->watch = inotify_add_watch(logs->inotify_fd, daemon->node_dir, WATCH_MASK);
}

static void look(void *context)
{
    rf_daemon_t *daemon = context;
    rf_logs_t *logs = daemon->logs;
    watch_again(daemon); /* first: what is written while this looks counts */
    for (logs_query_t *query = logs->followers; query; query = query->next) {
        if (!query->first_pass_done || query->at < query->n_files) continue;
        scan_files(query);
        query->at = 0;
        rf_timer_set(&daemon->loop, &query->timer, 0, logs_pump, query);
    }
    rotate_large(logs);
    keep_domain_logs_bounded(logs);
}

static void on_inotify(void *context, uint32_t events)
{
    (void)events;
    rf_daemon_t *daemon = context;
    rf_logs_t *logs = daemon->logs;
    char drained[4096];
    if (logs->watch >= 0 && !rf_timer_is_set(&logs->timer)) {
        /* Not watched while waiting to look: a busy writer costs one look in LOOK_AFTER_NS, not one a line. */
        inotify_rm_watch(logs->inotify_fd, logs->watch);
        logs->watch = -1;
        rf_timer_set(&daemon->loop, &logs->timer, rf_clock_ns() + LOOK_AFTER_NS, look, daemon);
    }
    while (read(logs->inotify_fd, drained, sizeof drained) > 0) {
    }
}

rf_err_t rf_logs_open(rf_daemon_t *daemon, char *error, size_t error_max)
{
    rf_logs_t *logs = calloc(1, sizeof *logs);
    if (!logs) {
        snprintf(error, error_max, "no memory for the logs");
        return RF_ERR_NO_MEMORY;
    }
    daemon->logs = logs;
    logs->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    logs->folder = open(daemon->node_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (logs->folder < 0 || logs->inotify_fd < 0 ||
        rf_loop_add(&daemon->loop, &logs->source, logs->inotify_fd, EPOLLIN, on_inotify, daemon) != RF_OK) {
        snprintf(error, error_max,
                 "cannot watch the logs in %s: %s; fs.inotify.max_user_instances may be too low",
                 daemon->node_dir, strerror(errno));
        return RF_ERR_OS;
    }
    watch_again(daemon);
    return RF_OK;
}

void rf_logs_close(rf_daemon_t *daemon)
{
    rf_logs_t *logs = daemon->logs;
    if (!logs) return;
    rf_timer_clear(&logs->timer);
    rf_loop_remove(&daemon->loop, &logs->source);
    if (logs->inotify_fd >= 0) close(logs->inotify_fd);
    if (logs->folder >= 0) close(logs->folder);
    free(logs);
    daemon->logs = NULL;
}
