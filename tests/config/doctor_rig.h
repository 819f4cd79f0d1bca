/* What the tests of the preflight share. */
#ifndef RF_TESTS_CONFIG_DOCTOR_RIG_H
#define RF_TESTS_CONFIG_DOCTOR_RIG_H

#include "cluster-config/doctor_internal.h"
#include "cluster-config/parse.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static rf_doctor_report_t report;
/* Most tests are of these: the others, which take their time, are run once. */
static const char *const of_devices[] = {"memlock", "hugepages", "rdma", "mtu", "dpdk", "capabilities", NULL};

/* A configuration that is right. */
static inline rf_config_t *parse(const char *text)
{
    char error[RF_CONFIG_ERROR_MAX] = "";
    rf_config_t *config = NULL;
    rf_err_t err = rf_config_parse("text", text, strlen(text), &config, NULL, error);
    assert_string_equal(error, "");
    assert_int_equal(err, RF_OK);
    return config;
}

/* The first of that check and severity in `report`; NULL: none. */
static inline const rf_doctor_finding_t *finding(const char *check, rf_doctor_severity_t severity)
{
    for (unsigned i = 0; i < report.n; i++) {
        if (strcmp(report.findings[i].check, check) == 0 && report.findings[i].severity == severity)
            return &report.findings[i];
    }
    return NULL;
}

#endif
