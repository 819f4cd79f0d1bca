#include "cpudriver/lease.h"

#include "base/clock.h"
#include "base/log.h"
#include "cpudriver/dispatcher.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LOOK_AGAIN_NS (20 * RF_NS_PER_MS) /* at a lease that is over */

static void on_timer(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    uint64_t expirations;
    (void)events;
    if (read(source->fd, &expirations, sizeof expirations) > 0) driver->lease_armed_ns = RF_NEVER;
}

rf_err_t rf_lease_open(rf_cpudriver_t *driver)
{
    rf_err_t err = rf_lease_create(&driver->lease_fd, &driver->lease);
    if (err != RF_OK) return err;
    driver->lease_armed_ns = RF_NEVER;
    int timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    return timer < 0 ? RF_ERR_OS
                     : rf_source_open(driver, &driver->lease_timer, timer, EPOLLIN, on_timer, NULL);
}

/* Once, for the time read now: who puts it off does not wake us, so it is read again then. */
static void arm(rf_cpudriver_t *driver, uint64_t until_ns)
{
    if (driver->lease_armed_ns <= until_ns) return;
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)(until_ns / RF_NS_PER_S), .tv_nsec = (long)(until_ns % RF_NS_PER_S)}};
    if (timerfd_settime(driver->lease_timer.fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
        driver->lease_armed_ns = until_ns;
    else
        rf_log(RF_LOG_ERROR, "the end of this core's lease cannot be waited for");
}

static bool anything_runs(const rf_cpudriver_t *driver)
{
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_state_t state = driver->dispatchers[i].state;
        if (state == RF_DISPATCHER_STARTING || state == RF_DISPATCHER_RUNNING) return true;
    }
    return false;
}

void rf_lease_freeze(rf_cpudriver_t *driver, bool frozen)
{
    driver->frozen_told = frozen;
    rf_lease_run(driver);
}

void rf_lease_run(rf_cpudriver_t *driver)
{
    if (driver->stopping) return; /* everything is being ended, and thawed for that */
    const uint64_t until_ns = atomic_load(&driver->lease->until_ns);
    const bool runs = anything_runs(driver), over = runs && until_ns <= rf_clock_boot_ns();
    if (over != driver->lease_over)
        rf_log(RF_LOG_WARN, "%s",
               over ? "the monitor has not put this core's lease off: its dispatchers are frozen"
                    : "the monitor has put this core's lease off: its dispatchers go on");
    driver->lease_over = over;
    const bool frozen = driver->frozen_told || over;
    /* Also who was started meanwhile. */
    if (frozen || driver->frozen_all) rf_dispatchers_freeze_all(driver, frozen);
    /* One that is over may be put off a moment too late for this look, and nobody says so then. */
    if (runs && until_ns != RF_NEVER) arm(driver, over ? rf_clock_boot_ns() + LOOK_AGAIN_NS : until_ns);
}
