/*
 * What a bench is: a name, a line of help, and a function that measures and hands results to bench_report().
 * README.md here says how to add one.
 */
#ifndef RF_BENCH_BENCH_H
#define RF_BENCH_BENCH_H

#include "base/error.h"
#include "base/types.h"

#include <stdio.h>

typedef struct bench_options {
    unsigned cores[2];    /* CPUs of the two sides */
    unsigned slots;       /* ring size; 0: the bench's own series */
    unsigned batch;       /* slots a flush; 0: the bench's own series */
    unsigned samples;     /* of each measured piece; 0: the bench's own number */
    unsigned outstanding; /* ordered, over TCP; 0: the bench's own choice */
    unsigned rounds;      /* ordered --peers: how often all sides take turns; 0: the bench's own choice */
    unsigned tries;       /* brackets tried for a near one */
    unsigned near_ns;     /* a line bounce above that is far; 0: the default */
    bool json;
    FILE *hdr;             /* HdrHistogram percentile text of latencies; or NULL */
    const char *transport; /* --transport: the medium; NULL: the bench's own choice */
    bool through_lib;      /* urpc: between domains */
    bool peers;            /* other systems beside it, where they are installed */
    const char *machine;   /* -m NAME, for benches that need a running machine; or NULL */
    int argc;              /* what followed the options: a bench's own words */
    char **argv;
} bench_options_t;

/* The words after the options choose pieces of a bench by name; without any, all are measured. */
bool bench_wanted(const bench_options_t *options, const char *piece);

typedef struct bench {
    const char *name, *help;
    /* RF_OK, or what went wrong; the bench has then said so on standard error. */
    rf_err_t (*run)(const bench_options_t *options);
} bench_t;

#endif
