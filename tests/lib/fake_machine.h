/*
 * A machine in one process, for tests of librackfish: it speaks the CPU driver's and the monitor's side of wire/kernel.h and
 * wire/client.h with any number of domains, each a forked child that runs a function. No agreement, no isolation: names,
 * channels, spawn and events are answered from a few tables.
 */
#ifndef RF_TESTS_LIB_FAKE_MACHINE_H
#define RF_TESTS_LIB_FAKE_MACHINE_H

#include "rackfish.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FAKE_DOMAINS_MAX 8
#define FAKE_DEADLINE_MS 60000 /* the whole run: an upper bound against hanging */

/* One domain: domain id is its place + 1. Returns 0 when all is well. */
typedef struct fake_domain {
    int (*run)(void);
    rf_core_t core; /* domains with one core have LMP channels between them */
    rf_node_t node; /* domains of different nodes have network channels */
    int dies;       /* exit status is not looked at: it is meant to be killed or to fail */
} fake_domain_t;

/* Runs them all; returns how many failed. `medium` of channels between nodes. */
int fake_machine_run(const fake_domain_t *domains, unsigned n, const char *medium);

/* In a domain. */
#define CHECK(expr)                                                                                          \
    do {                                                                                                     \
        if (!(expr)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s failed (rf_reason: %s)\n", __FILE__, __LINE__, #expr, rf_reason());   \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)
#define CHECK_OK(expr) CHECK_ERR(expr, RF_OK)
#define CHECK_ERR(expr, wanted)                                                                              \
    do {                                                                                                     \
        rf_err_t got_ = (expr);                                                                              \
        if (got_ != (wanted)) {                                                                              \
            fprintf(stderr, "%s:%d: %s is %s, not %s (rf_reason: %s)\n", __FILE__, __LINE__, #expr,          \
                    rf_err_name(got_), rf_err_name(wanted), rf_reason());                                    \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)
#define SOON rf_deadline_ms(30000) /* generous: only a bound against hanging */

#endif
