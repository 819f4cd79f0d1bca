#include "bracket.h"

#include "raw.h"

#include "base/clock.h"

#include <unistd.h>

#define BOUNCE_SAMPLES 5000
#define NEAR_FACTOR    1.25 /* of the best bounce of the run; far is 4 to 5 times it */
#define NEAR_NS_DEFAULT                                                                                      \
    120 /* a line between two cores of one die takes 20 to 100 ns, one over a fabric more */
#define CALIBRATIONS  8
#define PIECE_SECONDS 120 /* then the program is ended by SIGALRM: something hangs */
#define FAR_PAUSE_NS  (200 * RF_NS_PER_MS)

static double best_ns; /* of the run; the bench is single-threaded between pieces */

static bool bounce(const unsigned cores[2], double *p50_ns)
{
    bench_samples_t samples;
    bench_samples_init(&samples, BOUNCE_SAMPLES);
    bool ok = raw_line_bounce(cores, BOUNCE_SAMPLES, &samples);
    *p50_ns = bench_samples_percentile(&samples, 50);
    bench_samples_free(&samples);
    if (ok && (best_ns == 0 || *p50_ns < best_ns)) best_ns = *p50_ns;
    return ok;
}

static void pause_a_while(void)
{
    struct timespec t = {.tv_nsec = (long)FAR_PAUSE_NS};
    nanosleep(&t, NULL);
}

static bool calibrate(const unsigned cores[2])
{
    double p50_ns;
    for (unsigned i = 0; i < CALIBRATIONS; i++) {
        if (!bounce(cores, &p50_ns)) return false;
    }
    return true;
}

bool bracket_run(const bench_options_t *options, bracket_piece_fn piece, void *context,
                 bench_samples_t *samples, bench_samples_t *raw, bracket_t *out)
{
    if (best_ns == 0 && !calibrate(options->cores)) return false;
    for (unsigned try = 0;; try++) {
        double before_ns, after_ns;
        samples->n = 0;
        if (raw) raw->n = 0;
        alarm(PIECE_SECONDS);
        if (!bounce(options->cores, &before_ns) || !piece(options, context, samples, raw) ||
            !bounce(options->cores, &after_ns))
            return false;
        alarm(0);
        double worse = before_ns > after_ns ? before_ns : after_ns;
        double near_ns = options->near_ns ? options->near_ns : NEAR_NS_DEFAULT;
        out->placement = worse <= best_ns * NEAR_FACTOR && worse <= near_ns ? BENCH_NEAR : BENCH_FAR;
        out->bounce_p50_ns = (before_ns + after_ns) / 2;
        if (out->placement == BENCH_NEAR || try + 1 >= options->tries) return true;
        pause_a_while();
    }
}
