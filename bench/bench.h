/*
 * What a bench is: a name, a line of help, and a function that measures and hands results to bench_report().
 * README.md here says how to add one.
 */
#ifndef RF_BENCH_BENCH_H
#define RF_BENCH_BENCH_H

#include "base/error.h"
#include "base/types.h"

#include <stdio.h>

#define BENCH_BYTES_MAX   (16u << 20)
#define BENCH_SENDERS_MAX 16
#define BENCH_DEPTH_MAX   64

typedef enum bench_format {
    BENCH_TABLE,    /* for people */
    BENCH_JSON,     /* one object a line */
    BENCH_OSU,      /* as the OSU micro-benchmarks print */
    BENCH_PERFTEST, /* as ib_write_lat and ib_write_bw print */
} bench_format_t;

typedef struct bench_options {
    unsigned cores[2];    /* CPUs of the two sides */
    unsigned slots;       /* ring size; 0: the bench's own series */
    unsigned batch;       /* slots a flush; 0: the bench's own series */
    unsigned samples;     /* of each measured piece; 0: the bench's own number */
    unsigned outstanding; /* ordered, over TCP; 0: the bench's own choice */
    unsigned depth;       /* bulk: remote writes under way; 0: the bench's own choice */
    unsigned bytes;       /* of a remote write; 0: the bench's own series */
    unsigned senders;     /* incast: how many are waited for */
    unsigned rounds;      /* ordered --peers: how often all sides take turns; 0: the bench's own choice */
    unsigned tries;       /* brackets tried for a near one */
    unsigned near_ns;     /* a line bounce above that is far; 0: the default */
    bench_format_t format;
    bool events;           /* between hosts: sleep until something comes, rather than poll */
    FILE *hdr;             /* HdrHistogram percentile text of latencies; or NULL */
    const char *transport; /* --transport: the medium; NULL: the bench's own choice */
    const char *medium;    /* --medium: its own options, as rdma.h has them; NULL: none */
    bool through_lib;      /* urpc: between domains */
    bool peers;            /* other systems beside it, where they are installed */
    const char *machine;   /* -m NAME, for benches that need a running machine; or NULL */
    int argc;              /* what followed the options: a bench's own words */
    char **argv;
} bench_options_t;

/* The words after the options choose pieces of a bench by name; without any, all are measured. */
bool bench_wanted(const bench_options_t *options, const char *piece);

/* Says why a bench cannot do what it is asked for: nothing else is said then. RF_ERR_INVALID, for it to return. */
rf_err_t bench_refused(const char *bench, const char *why, ...) __attribute__((format(printf, 2, 3)));

typedef struct bench {
    const char *name, *help;
    /* RF_OK, or what went wrong; the bench has then said so on standard error. */
    rf_err_t (*run)(const bench_options_t *options);
} bench_t;

#endif
