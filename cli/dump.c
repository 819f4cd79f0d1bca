/* dump: state and logs of a machine in one archive, for a report. */
#include "cli/client.h"

#include "base/clock.h"
#include "cli/json.h"
#include "cli/machine.h"
#include "cli/ustar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define DUMP_TIMEOUT_MS 30000

const cli_option_t cli_dump_options[] = {
    {"output", 'o', "FILE", "where to (default: rackfish-MACHINE-TIME.tar here)"},
    {NULL, 0, NULL, NULL},
};

typedef struct dump {
    ustar_t tar;
    char top[2 * RF_NAME_MAX]; /* folder of all members */
    char open[300];            /* member being written */
    size_t files;
} dump_t;

static bool dump_open(dump_t *dump, const char *path)
{
    char member[600];
    if (strcmp(dump->open, path) == 0) return true;
    snprintf(member, sizeof member, "%s/%s", dump->top, path);
    if (!ustar_member(&dump->tar, member)) return false;
    snprintf(dump->open, sizeof dump->open, "%s", path);
    dump->files++;
    return true;
}

/* What a live machine says of itself: rackfishd streams files in pieces. */
static int dump_from_node(const cli_t *cli, client_t *client, dump_t *dump)
{
    Rackfish__Empty empty = RACKFISH__EMPTY__INIT;
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_DUMP;
    request.dump = &empty;
    if (!client_queue(client, &request)) return CLI_FAILED;
    for (;;) {
        reply_t *reply;
        rf_err_t err = client_receive(client, rf_clock_ns() + DUMP_TIMEOUT_MS * RF_NS_PER_MS, &reply);
        if (err != RF_OK) return client_lost(cli, client, err);
        int status = reply->err == RF_OK ? CLI_OK : client_refused(cli, reply);
        bool more = reply->more;
        if (status == CLI_OK && reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_DUMP) {
            if (dump_open(dump, reply->dump->path))
                ustar_write(&dump->tar, reply->dump->data.data, reply->dump->data.len);
            else
                cli_error(cli, "node %s sent a file named \"%s\"; left out", client->node, reply->dump->path);
        }
        client_reply_free(reply);
        if (status != CLI_OK || !more) return status;
    }
}

/* Regular files below `folder`, without keys: what a dead machine left. */
static void dump_from_files(dump_t *dump, const char *folder, const char *prefix, unsigned depth)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        char path[CLI_PATH_MAX], member[300];
        struct stat st;
        bool wanted = name[0] != '.' && !strstr(name, ".key") &&
                      snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path &&
                      snprintf(member, sizeof member, "%s%s", prefix, name) < (int)sizeof member - 1 &&
                      lstat(path, &st) == 0;
        if (wanted && S_ISDIR(st.st_mode) && depth > 0 && !strstr(name, ".lib-")) {
            char below[sizeof member + 1];
            snprintf(below, sizeof below, "%s/", member);
            dump_from_files(dump, path, below, depth - 1);
        } else if (wanted && S_ISREG(st.st_mode)) {
            char chunk[16384];
            int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
            if (fd >= 0 && dump_open(dump, member)) {
                for (ssize_t got; (got = read(fd, chunk, sizeof chunk)) > 0;)
                    ustar_write(&dump->tar, chunk, (size_t)got);
            }
            if (fd >= 0) close(fd);
        }
        free(entries[i]);
    }
    if (n >= 0) free(entries);
}

static void dump_about(dump_t *dump, const char *how)
{
    char text[1024], when[64];
    struct utsname host;
    time_t now = time(NULL);
    struct tm tm;
    if (uname(&host) < 0 || !gmtime_r(&now, &tm) || !dump_open(dump, "about.txt")) return;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    int n = snprintf(
        text, sizeof text,
        "time     %s\nhost     %s\nkernel   %s %s %s\ncpus     %ld\ncommand  rackfish %s\nstate    %s\n",
        when, host.nodename, host.sysname, host.release, host.machine, sysconf(_SC_NPROCESSORS_ONLN),
        RF_PROJECT_VERSION, how);
    ustar_write(&dump->tar, text, (size_t)n);
}

int cli_dump(cli_t *cli, int argc, char **argv)
{
    const char *output = NULL;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        output = optarg;
    }
    if (optind < argc)
        return cli_usage(cli, "takes no arguments, but \"%s\" was given; name the file with -o",
                         argv[optind]);
    machine_dir_t dir;
    client_t client;
    if (!machine_name_valid(cli->machine) || !machine_find(cli, &dir))
        return client_open(cli, &client); /* says what there is */
    char why[256], path[CLI_PATH_MAX + 8], stamp[32], default_output[CLI_PATH_MAX];
    bool live = false;
    for (unsigned i = 0; i < dir.n_nodes && !live; i++) {
        snprintf(path, sizeof path, "%s/%s.sock", dir.path, dir.nodes[i]);
        live = client_connect(&client, path, 3000, why, sizeof why) == RF_OK;
    }
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    snprintf(default_output, sizeof default_output, "rackfish-%s-%s.tar", cli->machine, stamp);
    output = output ? output : default_output;
    /* Beside its final name first: what has that name is whole. */
    snprintf(path, sizeof path, "%s.part", output);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int status = CLI_OK;
    if (fd < 0) {
        status = cli_error(cli, "cannot write %s: %s", path, strerror(errno));
    } else {
        dump_t dump = {.files = 0};
        snprintf(dump.top, sizeof dump.top, "rackfish-%s", cli->machine);
        ustar_start(&dump.tar, fd);
        dump_about(&dump,
                   live ? "up, as its nodes told" : "without a living rackfishd, from the run directory");
        if (live)
            status = dump_from_node(cli, &client, &dump);
        else
            dump_from_files(&dump, dir.path, "", 2);
        if (!ustar_finish(&dump.tar)) status = cli_error(cli, "cannot write %s: %s", path, strerror(errno));
        close(fd);
        if (status == CLI_OK && rename(path, output) < 0)
            status = cli_error(cli, "cannot rename %s to %s: %s", path, output, strerror(errno));
        if (status != CLI_OK)
            unlink(path);
        else if (cli->json) {
            json_t json = json_on(stdout);
            json_object_begin(&json, NULL);
            json_string(&json, "file", output);
            json_u64(&json, "members", dump.files);
            json_bool(&json, "live", live);
            json_object_end(&json);
            json_line_end(&json);
        } else {
            printf("%s: %zu files\n", output, dump.files);
        }
    }
    if (live) client_close(&client);
    return status;
}
