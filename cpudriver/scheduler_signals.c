/*
 * Time slices without cgroups: measure, then stop who is ahead.
 *
 * Each dispatcher has a virtual time: the CPU time its processes used over the share it is due (share.h). Every slice
 * those more than AHEAD_NS ahead of the furthest behind are stopped by SIGSTOP, the others continued; so over a second
 * each gets its share, however many processes it forks. A dispatcher that slept joins at the time of the furthest
 * behind: sleeping saves nothing up. With fewer than two dispatchers that want time nobody is stopped, and the looks
 * become rare; with fewer than two dispatchers there are none.
 *
 * What it may not promise: a process that leaves by fork is found at the next full look (FULL_LOOK_SLICES), the host's own
 * scheduler decides among those that are not stopped, and a job that was stopped inside a domain goes on with it.
 */
#include "cpudriver/scheduler.h"

#include "base/clock.h"
#include "cpudriver/dispatcher.h"
#include "cpudriver/share.h"

#include <signal.h>
#include <stdio.h>

#define SLICE_NS          (40 * RF_NS_PER_MS)
#define SLICE_IDLE_NS_MAX (1280 * RF_NS_PER_MS)
#define AHEAD_NS          (40 * RF_NS_PER_MS)
#define FULL_LOOK_SLICES  8 /* in between only known processes are looked at */
#define IDLE_SLICES       4 /* without CPU time, until a dispatcher counts as not wanting any */

static rf_err_t signals_open(rf_cpudriver_t *driver, char *why, size_t why_max)
{
    (void)why, (void)why_max;
    snprintf(driver->scheduler_text, sizeof driver->scheduler_text,
             "time slices by signals; shares hold over seconds, not against hostile domains");
    return RF_OK;
}

static void signals_close(rf_cpudriver_t *driver)
{
    (void)driver;
}

static rf_err_t signals_add(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    (void)driver;
    d->ran_ns = d->virtual_ns = 0;
    d->idle_slices = 0;
    d->wants = d->stopped_by_scheduler = false;
    return RF_OK;
}

static void signals_remove(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    (void)driver, (void)d;
}

static int signals_entry_open(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    (void)driver, (void)d;
    return -1;
}

static rf_err_t signals_change(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint16_t reserved_permille,
                               uint16_t weight)
{
    (void)driver, (void)d, (void)reserved_permille, (void)weight;
    return RF_OK;
}

static bool schedulable(const rf_dispatcher_t *d)
{
    return d->state == RF_DISPATCHER_RUNNING && !d->frozen;
}

static void signals_update(rf_cpudriver_t *driver)
{
    unsigned n = 0;
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++)
        n += driver->dispatchers[i].state == RF_DISPATCHER_RUNNING ||
             driver->dispatchers[i].state == RF_DISPATCHER_STARTING;
    /* Sooner, never later: who comes and goes must not put the end of a slice off. */
    const uint64_t next_ns = rf_clock_ns() + SLICE_NS;
    driver->slices = 0;
    driver->slice_ns = SLICE_NS;
    if (n < 2)
        driver->slice_next_ns = RF_NEVER;
    else if (driver->slice_next_ns > next_ns)
        driver->slice_next_ns = next_ns;
    rf_core_wake_at(driver, driver->slice_next_ns);
    if (n < 2) {
        for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
            rf_dispatcher_t *d = &driver->dispatchers[i];
            if (d->stopped_by_scheduler) rf_dispatcher_signal_all(driver, d, SIGCONT);
            d->stopped_by_scheduler = false;
        }
    }
}

static rf_err_t signals_cpu_ns(rf_cpudriver_t *driver, const rf_dispatcher_t *d, uint64_t *out)
{
    (void)driver, (void)d, (void)out;
    return RF_ERR_NOT_SUPPORTED;
}

static rf_err_t signals_freeze(rf_cpudriver_t *driver, rf_dispatcher_t *d, bool frozen)
{
    (void)driver, (void)frozen;
    d->stopped_by_scheduler = false; /* whoever thaws continues it */
    return RF_ERR_NOT_SUPPORTED;
}

static void signals_yield(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    d->virtual_ns += SLICE_NS;
    if (driver->slice_next_ns != RF_NEVER) driver->slice_next_ns = rf_clock_ns();
}

/* Adds what each used since the last look to its virtual time. Returns how many want time. */
static unsigned account(rf_cpudriver_t *driver, uint64_t *behind_ns)
{
    uint64_t used[RF_CORE_DISPATCHERS_MAX + 1] = {0}; /* the last: the monitor's, which nobody slices */
    uint32_t weights = 0;
    unsigned n = 0;
    for (unsigned i = 0; i < driver->processes.n; i++) {
        const rf_process_t *process = &driver->processes.at[i];
        if (process->owner >= 0) used[process->owner] += process->cpu_ns;
    }
    *behind_ns = RF_NEVER;
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        if (!schedulable(d)) {
            d->wants = false;
            continue;
        }
        uint64_t ran_ns = used[i] > d->ran_ns ? used[i] - d->ran_ns : 0;
        d->slice_ns = ran_ns;
        if (used[i] > d->ran_ns) d->ran_ns = used[i];
        d->idle_slices = ran_ns > 0 || d->stopped_by_scheduler ? 0 : d->idle_slices + 1;
        bool wanted = d->wants;
        d->wants = d->idle_slices < IDLE_SLICES;
        d->joined = d->wants && !wanted;
        if (!d->wants) continue;
        n++;
        weights += d->reserved_permille ? 0 : d->weight;
        if (wanted && d->virtual_ns < *behind_ns) *behind_ns = d->virtual_ns;
    }
    const uint64_t joined_at_ns = *behind_ns == RF_NEVER ? 0 : *behind_ns;
    *behind_ns = RF_NEVER;
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        if (!d->wants) continue;
        if (d->joined && d->virtual_ns < joined_at_ns) d->virtual_ns = joined_at_ns;
        uint64_t due =
            rf_share_due(driver->reserved_permille_total, d->reserved_permille, d->weight, weights);
        d->virtual_ns += due ? d->slice_ns * 1000000 / due : d->slice_ns;
        if (d->virtual_ns < *behind_ns) *behind_ns = d->virtual_ns;
    }
    return n;
}

/*
 * Stops or continues one; again also what it forked since it was stopped. All are told to go on, also who does not stand still: its stop
 * may be on its way to it (it waits for a CPU, or inside the kernel), and nobody would continue it afterwards. SIGCONT takes such a stop back.
 */
static void enforce(rf_cpudriver_t *driver, unsigned index, bool stop)
{
    rf_dispatcher_t *d = &driver->dispatchers[index];
    if (!stop && !d->stopped_by_scheduler) return;
    d->stopped_by_scheduler = stop;
    for (unsigned i = 0; i < driver->processes.n; i++) {
        const rf_process_t *process = &driver->processes.at[i];
        if (process->owner != (int)index || process->is_root || (stop && process->state == 'T')) continue;
        kill(process->pid, stop ? SIGSTOP : SIGCONT);
    }
}

static void signals_tick(rf_cpudriver_t *driver)
{
    const uint64_t now_ns = rf_clock_ns();
    uint64_t behind_ns;
    if (now_ns < driver->slice_next_ns) {
        rf_core_wake_at(driver, driver->slice_next_ns);
        return;
    }
    if (driver->slices++ % FULL_LOOK_SLICES == 0)
        rf_dispatchers_scan(driver);
    else
        rf_processes_refresh(&driver->processes);
    unsigned wanting = account(driver, &behind_ns);
    for (unsigned i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        if (schedulable(d))
            enforce(driver, i, wanting >= 2 && d->wants && d->virtual_ns > behind_ns + AHEAD_NS);
    }
    if (wanting >= 2) {
        driver->slice_ns = SLICE_NS;
    } else {
        driver->slices = 0; /* rare looks are full ones */
        driver->slice_ns =
            driver->slice_ns * 2 < SLICE_IDLE_NS_MAX ? driver->slice_ns * 2 : SLICE_IDLE_NS_MAX;
    }
    driver->slice_next_ns = now_ns + driver->slice_ns;
    rf_core_wake_at(driver, driver->slice_next_ns);
}

const rf_scheduler_t rf_scheduler_signals = {
    .name = "signals",
    .open = signals_open,
    .close = signals_close,
    .add = signals_add,
    .remove = signals_remove,
    .entry_open = signals_entry_open,
    .change = signals_change,
    .update = signals_update,
    .cpu_ns = signals_cpu_ns,
    .freeze = signals_freeze,
    .yield = signals_yield,
    .tick = signals_tick,
};
