/* Pieces of rf-dpdk-bounce, measured by turns: their processes, and how they compare. */
#include "bounce.h"
#include "bracket.h"
#include "folder.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LATENCY_SAMPLES 5000
#define SLICE           100 /* samples of a turn */
#define RATE_SAMPLES    100
#define RATE_SLICE      4
#define PIECE_NS_MAX    (60 * RF_NS_PER_S)

static void fail_all(const bounce_run_t *c)
{
    for (unsigned i = 0; i < c->n; i++) atomic_store(&c->pieces[i].shared->failed, true);
}

static bool is_end(const bounce_run_t *c, pid_t pid)
{
    bool is = false;
    for (unsigned i = 0; i < 2 * c->n; i++) is |= c->ends[i] == pid;
    return is;
}

static bool ends_well(const bounce_run_t *c)
{
    uint64_t until_ns = rf_clock_ns() + PIECE_NS_MAX;
    bool ok = true;
    for (unsigned left = 2 * c->n; left > 0;) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0 && is_end(c, pid)) {
            left--;
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) ok = false;
        }
        if (!ok || rf_clock_ns() > until_ns) {
            fail_all(c);
            if (pid < 0 && errno == ECHILD) return false;
            bool late = rf_clock_ns() > until_ns + RF_NS_PER_S;
            for (unsigned i = 0; i < 2 * c->n && late; i++)
                if (c->ends[i] > 0) kill(c->ends[i], SIGKILL);
            ok = false;
        }
        if (pid == 0) nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return ok;
}

/* Memory of all ends; the folders are theirs too. */
static bool prepare(bounce_run_t *c, bounce_turns_t *turns, bench_folder_t *folders)
{
    *turns = (bounce_turns_t){.whose = BOUNCE_TURNS, .n = c->n};
    for (unsigned i = 0; i < c->n; i++) c->pieces[i].shared = NULL;
    for (unsigned i = 0; i < c->n; i++) {
        bounce_piece_t *piece = &c->pieces[i];
        size_t size = sizeof(bounce_shared_t) + c->samples[i].max * sizeof(double);
        c->samples[i].n = 0;
        piece->shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (piece->shared == MAP_FAILED) {
            fprintf(stderr, "rf-dpdk-bounce: %s\n", strerror(errno));
            return false;
        }
        if (!bench_folder_make(&folders[i], "rf-bounce-")) return false;
        piece->shared->samples = c->samples[i].max;
        piece->folder = folders[i].path;
        piece->turns = turns;
        piece->place = i;
    }
    return true;
}

static bool run_ends(const bench_options_t *options, bounce_run_t *c)
{
    for (unsigned i = 0; i < 2 * c->n; i++) {
        unsigned side = i % 2;
        c->ends[i] = fork();
        if (c->ends[i] == 0) bounce_end(&c->pieces[i / 2], side, options->cores[side]);
        if (c->ends[i] < 0) fail_all(c);
    }
    for (unsigned i = 0; i < c->n; i++) (void)bounce_wire(&c->pieces[i], &c->ends[2 * i]);
    bool ok = ends_well(c);
    for (unsigned i = 0; i < c->n; i++) ok = ok && !atomic_load(&c->pieces[i].shared->failed);
    return ok;
}

static bool run_pieces(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    (void)samples, (void)raw; /* each piece has its own */
    bounce_run_t *c = context;
    static bench_folder_t folders[BOUNCE_TURNS];
    bounce_turns_t *turns =
        mmap(NULL, sizeof *turns, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turns == MAP_FAILED) return false;
    bool ok = prepare(c, turns, folders) && run_ends(options, c);
    for (unsigned i = 0; i < c->n; i++) {
        bounce_shared_t *shared = c->pieces[i].shared;
        bench_folder_remove(&folders[i]);
        if (!shared || shared == MAP_FAILED) break;
        for (uint32_t k = 0; ok && k < shared->n; k++) bench_samples_add(&c->samples[i], shared->values[k]);
        munmap(shared, sizeof(bounce_shared_t) + c->samples[i].max * sizeof(double));
    }
    munmap(turns, sizeof *turns);
    return ok;
}

/* The median of turn `i` of a piece. */
static double turn_median(const bounce_piece_t *piece, const bench_samples_t *samples, uint32_t i)
{
    double values[SLICE];
    bench_samples_t turn = {.values = values, .n = piece->slice, .max = piece->slice};
    memcpy(values, samples->values + (size_t)i * piece->slice, piece->slice * sizeof *values);
    return bench_samples_percentile(&turn, 50);
}

/* How a piece compares with the first one: the median over all turns of what each was, beside the first one's turn before it. */
static double paired_ratio(const bounce_run_t *c, unsigned i)
{
    uint32_t n = c->samples[i].n / c->pieces[i].slice;
    bench_samples_t ratios;
    bench_samples_init(&ratios, n);
    for (uint32_t k = 0; k < n; k++)
        bench_samples_add(&ratios, turn_median(&c->pieces[i], &c->samples[i], k) /
                                       turn_median(&c->pieces[0], &c->samples[0], k));
    double ratio = bench_samples_percentile(&ratios, 50);
    bench_samples_free(&ratios);
    return ratio;
}

static void name_of(const bounce_piece_t *piece, char *out, size_t max)
{
    static const char *const seals[] = {"", " signed", " encrypted"};
    snprintf(out, max, "%s %s%s%s%s", piece->wire->name, piece->driver ? "driver " : "",
             piece->one_way ? "one-way" : "rate", piece->driver ? seals[piece->seal] : "",
             piece->packets ? ", driver-sized" : "");
}

static void report(const bench_options_t *options, bounce_run_t *c, bench_placement_t placement)
{
    double ratios[BOUNCE_TURNS] = {0};
    for (unsigned i = 1; i < c->n; i++) ratios[i] = paired_ratio(c, i);
    double raw_p50 = c->n > 1 ? bench_samples_percentile(&c->samples[0], 50) : 0;
    for (unsigned i = 0; i < c->n; i++) {
        char what[64];
        name_of(&c->pieces[i], what, sizeof what);
        bench_result_t result = {.bench = "dpdk",
                                 .what = what,
                                 .unit = c->pieces[i].one_way ? "ns" : "M/s",
                                 .samples = &c->samples[i],
                                 .raw = i > 0 ? "bare wire, turn by turn" : NULL,
                                 .raw_p50 = raw_p50,
                                 .ratio = ratios[i],
                                 .placement = placement};
        if (!c->pieces[i].one_way && !c->pieces[i].driver) /* a driver fills its frames */
            bench_result_param(&result, "per_frame", c->pieces[i].messages);
        bench_report(options, &result);
    }
}

bool bounce_measure(const bench_options_t *options, bounce_run_t *c)
{
    bracket_t bracket;
    bool one_way = c->pieces[0].one_way;
    unsigned slice = one_way ? SLICE : RATE_SLICE;
    unsigned n = options->samples ? options->samples : one_way ? LATENCY_SAMPLES : RATE_SAMPLES;
    if (c->n > 1) n = (n + slice - 1) / slice * slice;
    for (unsigned i = 0; i < c->n; i++) {
        c->pieces[i].slice = c->n > 1 ? slice : 0;
        bench_samples_init(&c->samples[i], n);
    }
    bool ok = bracket_run(options, run_pieces, c, &c->samples[0], NULL, &bracket);
    if (ok)
        report(options, c, bracket.placement);
    else
        fprintf(stderr, "rf-dpdk-bounce: %s %s%s could not be measured here\n", c->pieces[0].wire->name,
                c->n > 1 ? "driver " : "", one_way ? "one-way" : "rate");
    for (unsigned i = 0; i < c->n; i++) bench_samples_free(&c->samples[i]);
    return ok;
}
