/* The raw limits by themselves: what every other bench's ratio stands on. */
#include "bracket.h"
#include "raw.h"

#define SLOTS_DEFAULT 64

typedef struct limit {
    const char *what, *unit;
    unsigned samples;
    bool between_cores, scale_to_us;
    bool (*run)(const bench_options_t *options, bench_samples_t *out);
} limit_t;

static unsigned ring_slots(const bench_options_t *options)
{
    return options->slots ? options->slots : SLOTS_DEFAULT;
}

static bool line(const bench_options_t *o, bench_samples_t *s)
{
    return raw_line_bounce(o->cores, s->max, s);
}

static bool bounce(const bench_options_t *o, bench_samples_t *s)
{
    return raw_slot_bounce(o->cores, ring_slots(o), s->max, s);
}

static bool stream(const bench_options_t *o, bench_samples_t *s)
{
    return raw_slot_stream(o->cores, ring_slots(o), s->max, s);
}
static bool handover(const bench_options_t *o, bench_samples_t *s)
{
    return raw_futex_handover(o->cores[0], s->max, s);
}
static bool wake(const bench_options_t *o, bench_samples_t *s)
{
    return raw_futex_wake(o->cores, s->max, s);
}
static bool call(const bench_options_t *o, bench_samples_t *s)
{
    return raw_syscall(o->cores[0], s->max, s);
}
static bool tcp(const bench_options_t *o, bench_samples_t *s)
{
    return raw_tcp_pingpong(o->cores, s->max, s);
}
static bool tcp_blocking(const bench_options_t *o, bench_samples_t *s)
{
    return raw_tcp_blocking(o->cores, s->max, s);
}
static bool spawn(const bench_options_t *o, bench_samples_t *s)
{
    return raw_spawn_wait(o->cores[0], s->max, s);
}

static const limit_t limits[] = {
    {"line bounce, one way", "ns", 20000, true, false, line},
    {"slot bounce, one way", "ns", 20000, true, false, bounce},
    {"slot stream", "M/s", 200, true, false, stream},
    {"futex hand-over and back", "us", 20000, false, true, handover},
    {"futex wake, other core", "us", 2000, true, true, wake},
    {"system call", "ns", 20000, false, false, call},
    {"TCP loopback, one way", "us", 20000, true, true, tcp},
    {"TCP loopback, one way, asleep", "us", 5000, true, true, tcp_blocking},
    {"spawn and wait", "us", 100, false, true, spawn},
};

static bool piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                  bench_samples_t *raw)
{
    (void)raw;
    const limit_t *limit = context;
    if (!limit->run(options, samples)) return false;
    for (uint32_t i = 0; limit->scale_to_us && i < samples->n; i++) samples->values[i] /= 1000;
    return true;
}

static rf_err_t run(const bench_options_t *options)
{
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        const limit_t *limit = &limits[i];
        bench_samples_t samples;
        bench_samples_init(&samples, options->samples ? options->samples : limit->samples);
        limit_t copy = *limit;
        bracket_t bracket = {.placement = BENCH_ONE_CORE};
        bool ok = limit->between_cores ? bracket_run(options, piece, &copy, &samples, NULL, &bracket)
                                       : piece(options, &copy, &samples, NULL);
        if (ok) {
            bench_result_t result = {.bench = "limits",
                                     .what = limit->what,
                                     .unit = limit->unit,
                                     .samples = &samples,
                                     .placement = bracket.placement};
            if (limit->run == stream || limit->run == bounce)
                bench_result_param(&result, "slots", ring_slots(options));
            bench_report(options, &result);
        }
        bench_samples_free(&samples);
        if (!ok) return RF_ERR_OS;
    }
    return RF_OK;
}

const bench_t bench_limits = {"limits", "the raw limits: bounce, stream, futex, system call, TCP, spawn",
                              run};
