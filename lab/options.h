/* The command line of rf-lab: what was asked for. */
#ifndef RF_LAB_OPTIONS_H
#define RF_LAB_OPTIONS_H

#include "lab/lab.h"

#include <stdio.h>

typedef struct rf_lab {
    lab_options_t options;
    lab_place_t place;
    const char *transport; /* NULL: the lab's own if it is there */
    const char *driver;    /* of DPDK ports */
    unsigned ports;        /* of each host */
    const char *kernel;    /* "uml", "stock"; NULL: the first that can be had */
    struct {
        unsigned loss, duplicate, reorder; /* in 1/100 % */
        unsigned burst, rate_mbit;
        bool given;
    } wire;
    bool machine, one_sided, terminal, json, mtu_given;
    unsigned timeout_s;
    char **words; /* after the options */
    unsigned n_words;
} rf_lab_t;

/* Prints the usage of all commands. */
void lab_print_help(FILE *out);

/* Says what is wrong with the command line; LAB_USAGE. */
int lab_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number of decimal digits from `min` to `max`, and nothing after it. */
bool lab_number(const char *text, unsigned long min, unsigned long max, unsigned *out);

/* The defaults. */
void lab_options_init(rf_lab_t *lab);

/* Takes the options up to the first word that is none; leaves that and those after it in `words`. LAB_OK, LAB_USAGE with the
 * reason printed, or -1: the help was asked for and printed. */
int lab_parse_options(rf_lab_t *lab, int argc, char **argv);

#endif
