/* kill and wait: machine-wide, by domain id. */
#include "cli/client.h"

#include "base/clock.h"
#include "cli/json.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

const cli_option_t cli_kill_options[] = {
    {"signal", 's', "SIGNAL", "which, by name or number (default TERM); also as -SIGNAL"},
    {NULL, 0, NULL, NULL},
};

const cli_option_t cli_wait_options[] = {
    {"timeout", 't', "TIME", "give up after this long, such as 5s"},
    {NULL, 0, NULL, NULL},
};

/* Rewrites the traditional -9, -KILL, -SIGKILL into an option that getopt knows; the argument is `--signal=KILL`. */
static void rewrite_signal(int argc, char **argv, char *room, size_t max)
{
    int signo;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] == '-' && argv[i][1] != '\0' && argv[i][1] != 's' &&
            cli_parse_signal(argv[i] + 1, &signo)) {
            snprintf(room, max, "--signal=%s", argv[i] + 1);
            argv[i] = room;
            return;
        }
    }
}

static bool parse_domain(const char *text, uint64_t *out)
{
    return cli_parse_number(text, 1, UINT64_MAX, out);
}

int cli_kill(cli_t *cli, int argc, char **argv)
{
    int signo = SIGTERM;
    char rewritten[64];
    rewrite_signal(argc, argv, rewritten, sizeof rewritten);
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (!cli_parse_signal(optarg, &signo))
            return cli_usage(cli, "\"%s\" is no signal; give a name such as TERM or a number", optarg);
    }
    if (optind == argc) return cli_usage(cli, "which domain? `rackfish ps` lists them");
    for (int i = optind; i < argc; i++) {
        uint64_t domain;
        if (!parse_domain(argv[i], &domain)) return cli_usage(cli, "\"%s\" is no domain's id", argv[i]);
    }
    client_t client;
    int worst = client_open(cli, &client);
    if (worst != CLI_OK) return worst;
    for (int i = optind; i < argc; i++) {
        Rackfish__KillRequest kill_request = RACKFISH__KILL_REQUEST__INIT;
        parse_domain(argv[i], &kill_request.domain);
        kill_request.signal = signo;
        request_t request = REQUEST_INIT;
        request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_KILL;
        request.kill = &kill_request;
        reply_t *reply;
        int status = client_ask(cli, &client, &request, CLI_REPLY_TIMEOUT_MS, &reply);
        if (status == CLI_OK)
            client_reply_free(reply);
        else
            worst = status;
    }
    client_close(&client);
    return worst;
}

/* Shows how a domain ended; returns the exit status that stands for it. */
static int show_end(const cli_t *cli, const Rackfish__Domain *domain)
{
    int result, status = domain->wait_status;
    json_t json = json_on(stdout);
    if (cli->json) {
        json_object_begin(&json, NULL);
        json_u64(&json, "domain", domain->domain);
    }
    if (domain->reason != RF_OK) {
        result = CLI_RUN_FAILED;
        if (cli->json) json_string(&json, "reason", rf_err_name((rf_err_t)domain->reason));
        cli_error(cli, "domain %llu was lost: %s", (unsigned long long)domain->domain,
                  domain->reason == RF_ERR_PEER_DEAD ? "its core or host died"
                                                     : rf_err_text((rf_err_t)domain->reason));
    } else if (WIFSIGNALED(status)) {
        result = 128 + WTERMSIG(status);
        if (cli->json)
            json_i64(&json, "signal", WTERMSIG(status));
        else
            printf("domain %llu: signal %s\n", (unsigned long long)domain->domain,
                   cli_signal_name(WTERMSIG(status)));
    } else {
        result = WEXITSTATUS(status);
        if (cli->json)
            json_i64(&json, "exit", result);
        else
            printf("domain %llu: exit %d\n", (unsigned long long)domain->domain, result);
    }
    if (cli->json) {
        json_object_end(&json);
        json_line_end(&json);
    }
    fflush(stdout);
    return result;
}

int cli_wait(cli_t *cli, int argc, char **argv)
{
    uint64_t timeout_ms = 0;
    bool limited = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        limited = true;
        if (!cli_parse_duration_ms(optarg, &timeout_ms))
            return cli_usage(cli, "--timeout takes a time such as 5s, not \"%s\"", optarg);
    }
    if (optind == argc) return cli_usage(cli, "for which domain? `rackfish ps` lists them");
    for (int i = optind; i < argc; i++) {
        uint64_t domain;
        if (!parse_domain(argv[i], &domain)) return cli_usage(cli, "\"%s\" is no domain's id", argv[i]);
    }
    client_t client;
    if (client_open(cli, &client) != CLI_OK) return CLI_RUN_FAILED;
    uint64_t deadline = limited ? rf_clock_ns() + timeout_ms * RF_NS_PER_MS : RF_NEVER;
    int result = CLI_OK;
    for (int i = optind; i < argc; i++) {
        Rackfish__WaitRequest wait_request = RACKFISH__WAIT_REQUEST__INIT;
        parse_domain(argv[i], &wait_request.domain);
        uint64_t now = rf_clock_ns();
        /* 0 would be "for ever": the last moment is a millisecond. The connection's deadline is a little later. */
        if (limited)
            wait_request.timeout_ms = now + RF_NS_PER_MS < deadline ? (deadline - now) / RF_NS_PER_MS : 1;
        request_t request = REQUEST_INIT;
        request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_WAIT;
        request.wait = &wait_request;
        reply_t *reply;
        int status = client_ask(cli, &client, &request,
                                limited ? (int)wait_request.timeout_ms + CLI_REPLY_TIMEOUT_MS : -1, &reply);
        if (status == CLI_OK && reply->kind_case != RACKFISH__CONTROL_REPLY__KIND_DOMAIN) {
            client_reply_free(reply);
            status = client_lost(cli, &client, RF_ERR_PROTOCOL);
        }
        if (status != CLI_OK) {
            result = status == CLI_TIMEOUT ? CLI_WAIT_TIMEOUT : CLI_RUN_FAILED;
            continue;
        }
        result = show_end(cli, reply->domain);
        client_reply_free(reply);
    }
    client_close(&client);
    return result;
}
