/* events: cores, nodes and domains as they come and go. */
#include "cli/client.h"

#include "base/clock.h"
#include "cli/json.h"

#include <string.h>
#include <time.h>

int cli_events(cli_t *cli, int argc, char **argv)
{
    if (cli_option_next(cli, argc, argv) == CLI_OPTION_STOP) return cli->status;
    if (optind < argc) return cli_usage(cli, "takes no arguments, but \"%s\" was given", argv[optind]);
    client_t client;
    int status = client_open(cli, &client);
    if (status != CLI_OK) return status;
    Rackfish__Empty empty = RACKFISH__EMPTY__INIT;
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_EVENTS;
    request.events = &empty;
    client_queue(&client, &request);
    json_t json = json_on(stdout);
    for (reply_t *reply; status == CLI_OK;) {
        rf_err_t err = client_receive(&client, RF_NEVER, &reply);
        if (err != RF_OK) {
            status = client_lost(cli, &client, err);
            break;
        }
        if (reply->err != RF_OK) {
            status = client_refused(cli, reply);
        } else if (reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_EVENT && cli->json) {
            const Rackfish__MachineEvent *e = reply->event;
            json_object_begin(&json, NULL);
            json_string(&json, "what", e->what);
            json_u64(&json, "at_ns", e->at_ns);
            json_i64(&json, "core", e->core);
            json_string(&json, "node", e->node);
            json_u64(&json, "domain", e->domain);
            json_string(&json, "err", rf_err_name((rf_err_t)e->err));
            json_object_end(&json);
            json_line_end(&json);
        } else if (reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_EVENT) {
            const Rackfish__MachineEvent *e = reply->event;
            char when[32] = "";
            time_t seconds = (time_t)(e->at_ns / RF_NS_PER_S);
            struct tm tm;
            if (localtime_r(&seconds, &tm)) strftime(when, sizeof when, "%H:%M:%S", &tm);
            printf("%s.%03u %s", when, (unsigned)(e->at_ns / RF_NS_PER_MS % 1000), e->what);
            if (e->domain) printf(" domain %llu", (unsigned long long)e->domain);
            if (e->core >= 0) printf(" core %d", e->core);
            if (e->node && e->node[0]) printf(" node %s", e->node);
            if (e->err) printf(": %s", rf_err_text((rf_err_t)e->err));
            printf("\n");
            fflush(stdout);
        }
        client_reply_free(reply);
        if (ferror(stdout)) status = CLI_FAILED;
    }
    client_close(&client);
    return status;
}
