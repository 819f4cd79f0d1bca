/*
 * The preflight: what of this host would keep a machine from starting, or make it slower or less isolated than it could be.
 * Each check looks, changes nothing that stays, and says what it saw and how to mend it. `rackfish doctor` prints it.
 *
 *   RF_DOCTOR_GOOD   as it should be
 *   RF_DOCTOR_NOTE   works, with something less: the finding says what
 *   RF_DOCTOR_FAIL   the machine, or the configured one, cannot start like this
 */
#ifndef RF_CLUSTER_CONFIG_DOCTOR_H
#define RF_CLUSTER_CONFIG_DOCTOR_H

#include "base/error.h"
#include "cluster-config/config.h"

#define RF_DOCTOR_FINDINGS_MAX 64

typedef enum rf_doctor_severity { RF_DOCTOR_GOOD, RF_DOCTOR_NOTE, RF_DOCTOR_FAIL } rf_doctor_severity_t;

typedef struct rf_doctor_finding {
    rf_doctor_severity_t severity;
    char check[32]; /* which check, a word to grep for: "memlock", "files", "ports", ... */
    char what[600]; /* what was seen, one line */
    char mend[240]; /* what to do, one line; "" when good */
} rf_doctor_finding_t;

typedef struct rf_doctor_report {
    unsigned n;
    rf_doctor_finding_t findings[RF_DOCTOR_FINDINGS_MAX];
} rf_doctor_report_t;

/* Whether a transport can be had here; RF_OK, or an error with the reason in `why`. The command passes a function on the
 * transport registry (which this folder must not know). */
typedef rf_err_t (*rf_doctor_transport_fn)(const char *name, char *why, size_t why_max);

typedef struct rf_doctor_options {
    const rf_config_t *config; /* what is to be started; NULL: an emulated machine of 2 hosts with 2 cores */
    rf_node_t node;            /* which of its nodes this host is; RF_NODE_NONE: not known */
    const char *run_base;      /* folder of all machines' run directories, "/run/rackfish" */
    rf_doctor_transport_fn transport; /* NULL: not checked */
    const char *const *only;          /* names of checks, ended by NULL: no others; NULL: every one */
    const char
        *sys_root; /* a folder to look for /sys, /dev/infiniband and /proc/cpuinfo in instead of /; NULL: / */
} rf_doctor_options_t;

/* Runs the checks. Takes up to a few seconds where host names must be resolved. One thread; it forks. */
void rf_doctor_run(const rf_doctor_options_t *options, rf_doctor_report_t *report);

/* Whether users other than root and the owner can get to `path`: every folder on the way lets them. When not, `closed`
 * names the first that does not. The programs of a machine started by root must be reachable so. */
bool rf_doctor_reachable(const char *path, char *closed, size_t max);

/* The worst severity of a report. */
rf_doctor_severity_t rf_doctor_worst(const rf_doctor_report_t *report);

/* What a node of the configuration needs on its host, computed: each core of it has a link to each other core of the host,
 * to its CPU driver and to rackfishd, and core 0 and the gateways have links to other hosts. */
typedef struct rf_doctor_need {
    uint64_t files_per_process; /* of the one that needs most: a monitor, or rackfishd */
    uint64_t files_all;
    uint64_t processes;    /* without domains */
    uint64_t memory_bytes; /* of rings, at their first size */
} rf_doctor_need_t;
void rf_doctor_need(const rf_config_t *config, rf_node_t node, rf_doctor_need_t *need);

#endif
