/*
 * Near and far. Two CPUs of a shared virtual machine can sit close together or far apart, and flip every few
 * seconds; everything between cores then slows several times. So each measured piece stands between two short bare
 * bounces. It counts as near when both are close to the best bounce of the whole run and below --near-ns; else it is tried again, and
 * the last try is reported as far, which makes it inconclusive.
 */
#ifndef RF_BENCH_BRACKET_H
#define RF_BENCH_BRACKET_H

#include "result.h"

typedef struct bracket {
    bench_placement_t placement;
    double bounce_p50_ns; /* of a line, one way, mean of before and after */
} bracket_t;

/* Measures once: fills `samples` (emptied before each try); and its raw limit into `raw` where it is not the bounce
 * itself. False stops the bench. */
typedef bool (*bracket_piece_fn)(const bench_options_t *options, void *context, bench_samples_t *samples,
                                 bench_samples_t *raw);

/* Runs the piece until it was near, at most options->tries times. `raw` may be NULL. */
bool bracket_run(const bench_options_t *options, bracket_piece_fn piece, void *context,
                 bench_samples_t *samples, bench_samples_t *raw, bracket_t *out);

#endif
