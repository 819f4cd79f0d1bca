/* spawn: starting a domain and waiting for its end, beside posix_spawn() and waitpid() of the same program. */
#include "domain.h"
#include "pair.h"
#include "raw.h"

#include "base/clock.h"

#define SAMPLES 200
#define SLICES  4

static rf_err_t spawns(rf_core_t core, unsigned n, bench_samples_t *out)
{
    static const char *const argv[] = {"true", NULL};
    double us_per_tick = bench_ns_per_tick() / 1000;
    for (unsigned i = 0; i < n; i++) {
        uint64_t before = rf_clock_ticks();
        rf_domain_t domain;
        rf_domain_info_t ended;
        rf_err_t err = rf_spawn(core, argv, NULL, &domain, rf_deadline_ms(BENCH_DOMAIN_MS));
        if (err == RF_OK) err = rf_wait_domain(domain, &ended, rf_deadline_ms(BENCH_DOMAIN_MS));
        if (err != RF_OK || ended.wait_status != 0) {
            fprintf(stderr, "rf-bench: spawn on core %u: %s %s\n", core, rf_err_text(err), rf_reason());
            return err == RF_OK ? RF_ERR_EXEC : err;
        }
        bench_samples_add(out, (double)(rf_clock_ticks() - before) * us_per_tick);
    }
    return RF_OK;
}

static rf_err_t measure(const bench_options_t *options, rf_core_t core, const char *what)
{
    unsigned n = options->samples ? options->samples : SAMPLES;
    bench_samples_t samples, raw;
    bench_samples_init(&samples, n + SLICES);
    bench_samples_init(&raw, n + SLICES);
    rf_err_t err = RF_OK;
    for (unsigned slice = 0; slice < SLICES && err == RF_OK; slice++) {
        if (!raw_spawn_wait(rf_self()->cpu, n / SLICES + 1, &raw))
            err = RF_ERR_OS;
        else
            err = spawns(core, n / SLICES + 1, &samples);
    }
    if (err == RF_OK) {
        bench_result_t result = {.bench = "spawn",
                                 .what = what,
                                 .unit = "us",
                                 .samples = &samples,
                                 .raw = "posix_spawn and wait",
                                 .raw_p50 = bench_samples_percentile(&raw, 50) / 1000,
                                 .placement = BENCH_ONE_CORE};
        bench_result_param(&result, "core", core);
        bench_report(options, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
    return err;
}

static rf_err_t run(const bench_options_t *options)
{
    rf_err_t err = bench_domain_enter(options);
    if (err == RF_OK) err = measure(options, rf_self()->core, "spawn and wait, own core");
    if (err == RF_OK && rf_self()->cores > 1)
        err = measure(options, (rf_core_t)((rf_self()->core + 1) % rf_self()->cores),
                      "spawn and wait, next core");
    rf_finish();
    return err;
}

const bench_t bench_spawn = {"spawn", "starting a domain and waiting for its end; in a machine", run};
