#include "cpudriver/scheduler.h"

#include "base/log.h"

void rf_scheduler_open(rf_cpudriver_t *driver)
{
    char why[160] = "the configuration asks for signals";
    driver->scheduler = NULL;
    if (driver->boot->sched != RF_SCHED_SIGNALS && rf_scheduler_cgroup.open(driver, why, sizeof why) == RF_OK)
        driver->scheduler = &rf_scheduler_cgroup;
    if (!driver->scheduler) {
        rf_log(driver->boot->sched == RF_SCHED_CGROUP ? RF_LOG_WARN : RF_LOG_INFO,
               "no cgroup scheduling: %s; time is sliced by signals", why);
        driver->scheduler = &rf_scheduler_signals;
        rf_scheduler_signals.open(driver, why, sizeof why);
    }
    rf_log(RF_LOG_INFO, "scheduler: %s", driver->scheduler_text);
}
