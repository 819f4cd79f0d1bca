/* doctor: what of this host would keep a machine from starting, or make it slower or less isolated than it could be. */
#include "cluster-config/doctor.h"

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/machine.h"
#include "cli/table.h"
#include "cli/up.h"
#include "transport/registry.h"

#include <stdlib.h>
#include <string.h>

const cli_option_t cli_doctor_options[] = {
    {"config", 'f', "FILE", "look at what this configuration needs here"},
    {"node", 'n', "NAME", "... as this entry of it"},
    {NULL, 0, NULL, NULL},
};

static const char *const severity_names[] = {
    [RF_DOCTOR_GOOD] = "good", [RF_DOCTOR_NOTE] = "note", [RF_DOCTOR_FAIL] = "FAIL"};

static void print_findings(const cli_t *cli, const rf_doctor_report_t *report)
{
    static const table_colour_t colours[] = {
        [RF_DOCTOR_GOOD] = TABLE_GOOD, [RF_DOCTOR_NOTE] = TABLE_BOLD, [RF_DOCTOR_FAIL] = TABLE_BAD};
    unsigned counts[3] = {0};
    for (unsigned i = 0; i < report->n; i++) {
        const rf_doctor_finding_t *f = &report->findings[i];
        counts[f->severity]++;
        printf("%s%-4s%s  %-12s %s\n", table_escape(colours[f->severity], cli->colour),
               severity_names[f->severity], table_escape(TABLE_PLAIN, cli->colour), f->check, f->what);
        if (f->mend[0]) printf("      %-12s mend: %s\n", "", f->mend);
    }
    printf("%u good, %u note%s, %u failure%s\n", counts[RF_DOCTOR_GOOD], counts[RF_DOCTOR_NOTE],
           counts[RF_DOCTOR_NOTE] == 1 ? "" : "s", counts[RF_DOCTOR_FAIL],
           counts[RF_DOCTOR_FAIL] == 1 ? "" : "s");
}

static void json_findings(const rf_doctor_report_t *report)
{
    json_t json = json_on(stdout);
    for (unsigned i = 0; i < report->n; i++) {
        const rf_doctor_finding_t *f = &report->findings[i];
        json_object_begin(&json, NULL);
        json_string(&json, "severity", f->severity == RF_DOCTOR_FAIL ? "fail" : severity_names[f->severity]);
        json_string(&json, "check", f->check);
        json_string(&json, "what", f->what);
        json_string(&json, "mend", f->mend);
        json_object_end(&json);
        json_line_end(&json);
    }
}

static rf_err_t can_have_transport(const char *name, char *why, size_t why_max)
{
    const rf_transport_t *transport;
    return rf_transport_find(name, &transport, why, why_max);
}

int cli_doctor_media(const cli_t *cli, const rf_config_t *config, rf_node_t node)
{
    static const char *const checks[] = {"rdma", "dpdk", "transports", "leases", NULL};
    bool special = false; /* tcp is told by those who need it, and shm comes with the program */
    for (unsigned i = 0; i < config->n_nodes; i++) {
        for (unsigned j = 0; j < config->n_nodes; j++)
            special |= i != j && strcmp(config->medium[i][j], "tcp") != 0;
    }
    if (!special && config->lease_ms == 0) return CLI_OK;
    rf_doctor_options_t options = {
        .config = config, .node = node, .transport = can_have_transport, .only = checks};
    rf_doctor_report_t report;
    rf_doctor_run(&options, &report);
    for (unsigned i = 0; i < report.n; i++) {
        const rf_doctor_finding_t *f = &report.findings[i];
        bool warns = f->severity == RF_DOCTOR_NOTE && strcmp(f->check, "leases") == 0;
        if (f->severity == RF_DOCTOR_FAIL || warns)
            cli_error(cli, "%s%s; mend: %s", warns ? "warning: " : "", f->what, f->mend);
    }
    return rf_doctor_worst(&report) == RF_DOCTOR_FAIL ? CLI_FAILED : CLI_OK;
}

int cli_doctor(cli_t *cli, int argc, char **argv)
{
    const char *path = NULL, *node = NULL;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        if (c == 'f')
            path = optarg;
        else
            node = optarg;
    }
    if (optind < argc) return cli_usage(cli, "takes no arguments, but \"%s\" was given", argv[optind]);
    rf_config_t *config = NULL;
    char error[RF_CONFIG_ERROR_MAX], base[CLI_PATH_MAX];
    if (path && rf_config_load(path, &config, error) != RF_OK) return cli_error(cli, "%s", error);
    if (!machine_base(base, sizeof base)) {
        free(config);
        return cli_error(cli, "the path in XDG_RUNTIME_DIR is too long; choose a shorter one");
    }
    rf_doctor_options_t options = {
        .config = config,
        .node = config ? rf_config_this_node(config, node) : RF_NODE_NONE,
        .run_base = base,
        .transport = can_have_transport,
    };
    rf_doctor_report_t report;
    rf_doctor_run(&options, &report);
    free(config);
    if (cli->json)
        json_findings(&report);
    else
        print_findings(cli, &report);
    return rf_doctor_worst(&report) == RF_DOCTOR_FAIL ? CLI_FAILED : CLI_OK;
}
