/* down: ends a machine and leaves nothing of it on this host, with or without its rackfishd. */
#include "cli/down.h"

#include "base/clock.h"
#include "cli/client.h"
#include "cli/json.h"
#include "cli/sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TIMEOUT_MS 30000
#define GRACE_MS        2000
#define DOWN_SLACK_MS   15000 /* on top of the grace: what ending all processes of a large machine takes */
#define OTHERS_SLACK_MS 5000  /* ... and the other nodes of this host, once the first has ended */

enum { OPTION_GRACE = 256, OPTION_THIS_NODE };

const cli_option_t cli_down_options[] = {
    {"grace", 'g', "TIME", "between TERM and KILL for programs (default 2s)"},
    {"this-host", OPTION_THIS_NODE, NULL, "end only this host's part"},
    {NULL, 0, NULL, NULL},
};

/* Asks the machine to end itself. False, with the cause in `why`, when nobody does it. */
static bool ask(const machine_dir_t *dir, uint64_t grace_ms, bool this_host, char *why, size_t why_max)
{
    client_t client;
    snprintf(why, why_max, "no rackfishd answers");
    for (unsigned i = 0; i < dir->n_nodes; i++) {
        char path[CLI_PATH_MAX], cause[256];
        snprintf(path, sizeof path, "%s/%s.sock", dir->path, dir->nodes[i]);
        rf_err_t err = client_connect(&client, path, 3000, cause, sizeof cause);
        if (err != RF_OK) {
            if (err != RF_ERR_NO_MACHINE)
                snprintf(why, why_max, "node %s: %s", dir->nodes[i], cause[0] ? cause : rf_err_text(err));
            continue;
        }
        Rackfish__DownRequest down = RACKFISH__DOWN_REQUEST__INIT;
        down.grace_ms = grace_ms ? (uint32_t)grace_ms : 1; /* 0 would be the node's own default */
        down.this_node_only = this_host;
        request_t request = REQUEST_INIT;
        request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_DOWN;
        request.down = &down;
        client_queue(&client, &request);
        uint64_t deadline = rf_clock_ns() + (grace_ms + DOWN_SLACK_MS) * RF_NS_PER_MS;
        reply_t *reply = NULL;
        err = client_receive(&client, deadline, &reply);
        bool refused = err == RF_OK && reply->err != RF_OK;
        if (refused)
            snprintf(why, why_max, "node %s: %s", dir->nodes[i], reply->message);
        else if (err != RF_OK && err != RF_ERR_CLOSED)
            snprintf(why, why_max, "node %s: %s", dir->nodes[i], rf_err_text(err));
        client_reply_free(reply);
        /* The answer comes first, then this node ends, and with it the connection. */
        while (!refused && err == RF_OK && (err = client_receive(&client, deadline, &reply)) == RF_OK)
            client_reply_free(reply);
        client_close(&client);
        if (!refused && err == RF_ERR_CLOSED) return true;
    }
    return false;
}

/* Who is neither root nor the folder's owner cannot see or end anything behind rackfishd's back. */
static bool may_sweep(const machine_dir_t *dir)
{
    struct stat st;
    return geteuid() == 0 || (lstat(dir->path, &st) == 0 && st.st_uid == geteuid());
}

static void remove_empty_base(void)
{
    char base[CLI_PATH_MAX];
    if (machine_base(base, sizeof base)) rmdir(base); /* fails while another machine is in it, as it should */
}

/* Kills what stayed for so long that it must be stuck, and reports it. */
static int sweep_and_report(const cli_t *cli, const machine_dir_t *dir, sweep_t *sweep, int grace_ms,
                            const char *why, uint64_t started_ns)
{
    sweep_report_t report;
    sweep_run(dir, sweep, grace_ms, &report);
    remove_empty_base();
    size_t killed = 0;
    for (int role = 0; role <= SWEEP_DOMAIN; role++) killed += report.killed[role];
    double seconds = (double)(rf_clock_ns() - started_ns) / 1e9;
    if (cli->json) {
        json_t json = json_on(stdout);
        json_object_begin(&json, NULL);
        json_string(&json, "machine", cli->machine);
        json_bool(&json, "graceful", !why);
        json_double(&json, "seconds", seconds);
        json_object_begin(&json, "killed");
        static const char *const keys[] = {"rackfishd", "cpudriver", "monitor", "link_driver", "domain"};
        for (int role = 0; role <= SWEEP_DOMAIN; role++) json_u64(&json, keys[role], report.killed[role]);
        json_object_end(&json);
        json_u64(&json, "survivors", report.survivors);
        json_object_end(&json);
        json_line_end(&json);
    } else {
        if (why) printf("%s: ended machine \"%s\" without its rackfishd\n", why, cli->machine);
        for (int role = 0; role <= SWEEP_DOMAIN; role++) {
            if (report.killed[role] > 0)
                printf("killed %zu %s%s\n", report.killed[role], sweep_role_name((sweep_role_t)role),
                       report.killed[role] == 1 ? ""
                       : role == SWEEP_DOMAIN   ? "es"
                                                : "s");
        }
        if (report.survivors == 0 && !report.folder_left)
            printf("machine \"%s\" is down%s (%.2f s)\n", cli->machine,
                   killed ? "" : "; nothing had to be killed", seconds);
    }
    if (report.survivors > 0)
        return cli_error(cli,
                         "%zu process%s could not be killed: not yours, or stuck in the kernel; try as root",
                         report.survivors, report.survivors == 1 ? "" : "es");
    if (report.folder_left) return cli_error(cli, "cannot remove all of %s: %s", dir->path, strerror(errno));
    return CLI_OK;
}

int cli_down(cli_t *cli, int argc, char **argv)
{
    uint64_t grace_ms = GRACE_MS;
    bool this_host = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == OPTION_THIS_NODE) this_host = true;
        if (c == 'g' && (!cli_parse_duration_ms(optarg, &grace_ms) || grace_ms > 3600000))
            return cli_usage(cli, "--grace takes a time up to 1h, such as 5s, not \"%s\"", optarg);
    }
    if (optind < argc)
        return cli_usage(cli, "takes no arguments, but \"%s\" was given; choose a machine with -m",
                         argv[optind]);
    if (!machine_name_valid(cli->machine))
        return cli_usage(cli, "\"%s\" is no name of a machine: letters, digits, - _ and . only",
                         cli->machine);
    machine_dir_t dir;
    if (!machine_find(cli, &dir)) {
        /* Down is where it should be: calling twice is no error. */
        if (cli->json)
            printf("{\"machine\":\"%s\",\"graceful\":true,\"seconds\":0}\n", cli->machine);
        else
            printf("machine \"%s\" is down already\n", cli->machine);
        return CLI_OK;
    }
    return down_machine(cli, &dir, grace_ms, this_host);
}

int down_machine(const cli_t *cli, const machine_dir_t *dir, uint64_t grace_ms, bool this_host)
{
    uint64_t started_ns = rf_clock_ns();
    bool sweeper = may_sweep(dir);
    int lock = sweeper ? machine_lock(dir->path, LOCK_TIMEOUT_MS) : -1;
    if (sweeper && lock < 0) {
        if (errno == ENOENT) return CLI_OK;
        return cli_error(cli, "another `rackfish up` or `down` of machine \"%s\" is at work; try again",
                         cli->machine);
    }
    /* Who is there before anybody ends: what rackfishd forgets is found all the same. */
    sweep_t sweep = {.n = 0};
    if (sweeper && !sweep_collect(dir, &sweep)) {
        sweep_free(&sweep);
        close(lock);
        return cli_error(cli, "out of memory");
    }
    char why[512];
    bool asked = ask(dir, grace_ms, this_host, why, sizeof why);
    int status;
    if (!sweeper) {
        status = asked ? CLI_OK
                       : cli_error(cli, "%s, and machine \"%s\" belongs to somebody else; ask its owner", why,
                                   cli->machine);
        if (asked && !cli->json) printf("machine \"%s\" is down\n", cli->machine);
        return status;
    }
    /* The node that was asked has gone; the others of an emulated machine are on their way. */
    if (asked) sweep_wait(&sweep, (int)grace_ms + OTHERS_SLACK_MS);
    status = sweep_and_report(cli, dir, &sweep, asked ? 0 : (int)grace_ms, asked ? NULL : why, started_ns);
    sweep_free(&sweep);
    close(lock);
    return status;
}
