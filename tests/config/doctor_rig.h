/* What the tests of the preflight share. */
#ifndef RF_TESTS_CONFIG_DOCTOR_RIG_H
#define RF_TESTS_CONFIG_DOCTOR_RIG_H

#include "cluster-config/doctor_internal.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "right_config.h"

static rf_doctor_report_t report;
/* Most tests are of these: the others, which take their time, are run once. */
static const char *const of_devices[] = {"memlock", "hugepages", "rdma", "mtu", "dpdk", "capabilities", NULL};

/* The first of that check and severity in `report`; NULL: none. */
static inline const rf_doctor_finding_t *finding(const char *check, rf_doctor_severity_t severity)
{
    for (unsigned i = 0; i < report.n; i++) {
        if (strcmp(report.findings[i].check, check) == 0 && report.findings[i].severity == severity)
            return &report.findings[i];
    }
    return NULL;
}

/* Whether a finding of that check and severity has `text` in it. */
static inline bool says(const char *check, rf_doctor_severity_t severity, const char *text)
{
    for (unsigned i = 0; i < report.n; i++) {
        const rf_doctor_finding_t *f = &report.findings[i];
        if (strcmp(f->check, check) == 0 && f->severity == severity && strstr(f->what, text)) return true;
    }
    return false;
}

#endif
