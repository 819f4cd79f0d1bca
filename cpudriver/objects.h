/*
 * What a dispatcher's CPU driver turns into messages for it: timers, descriptors, signals. Each object keeps one note
 * of what was not told yet, so a full link delays and merges events but never loses one.
 */
#ifndef RF_CPUDRIVER_OBJECTS_H
#define RF_CPUDRIVER_OBJECTS_H

#include "cpudriver/core.h"

#define RF_TIMER_PERIOD_NS_MIN 1000000ull

/* Timers. */
void rf_timer_set(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, const rf_kernel_timer_t *timer);
void rf_timer_cancel(rf_dispatcher_t *dispatcher, uint32_t id);
void rf_timers_clear(rf_dispatcher_t *dispatcher);
/* The verb: notes expirations of all dispatchers. */
void rf_timers_run(rf_cpudriver_t *driver);

/* Watched descriptors: one event, then disarmed. */
/* May `fd` be watched? Only what the kernel itself implements: a poll of a file of a user-space file system would
 * wait for that file system. RF_ERR_INVALID otherwise. */
rf_err_t rf_watch_check(int fd);
/* Takes over `fd`, also on failure. */
rf_err_t rf_watch_add(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, const rf_kernel_watch_t *watch,
                      int fd);
rf_err_t rf_watch_rearm(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, const rf_kernel_watch_t *watch);
void rf_watch_remove(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, uint32_t id);
void rf_watches_clear(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);

/* Sends what is noted, as far as the link has room. */
void rf_objects_tell(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);

#endif
