/*
 * How the dispatchers of a core share it. Two mechanisms, chosen when the CPU driver starts (boot->sched, and what
 * the host offers) and told in rf_kernel_identity.scheduler:
 *
 *   cgroup    one group a dispatcher under a cpu controller, v1 or v2 (scheduler_cgroup.c)
 *   signals   the CPU driver measures and stops who is ahead of its share, by SIGSTOP and SIGCONT
 *             (scheduler_signals.c); costs a look at the processes every slice, only while two compete
 *
 * A dispatcher's reserved_permille and weight are the slot's fields; whoever changes them calls update().
 */
#ifndef RF_CPUDRIVER_SCHEDULER_H
#define RF_CPUDRIVER_SCHEDULER_H

#include "cpudriver/core.h"

struct rf_scheduler {
    const char *name;
    /* RF_ERR_NOT_SUPPORTED: not on this host; `why` says what is missing. Fills driver->scheduler_text. */
    rf_err_t (*open)(rf_cpudriver_t *driver, char *why, size_t why_max);
    /* Removes everything this CPU driver made. */
    void (*close)(rf_cpudriver_t *driver);
    /* Reserves what a new dispatcher needs; its share is in the slot. Not yet in force. */
    rf_err_t (*add)(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);
    /* All its processes are gone. */
    void (*remove)(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);
    /* What a new process joins by, see enter(); the caller closes it. -1: nothing to join. */
    int (*entry_open)(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);
    /* In the new process, before it starts anything: joins. 0, or errno. NULL: nothing to join. */
    int (*enter)(const rf_cpudriver_t *driver, int entry);
    /* Does all of changing a share that the host may refuse; the caller then sets the fields and calls update(). */
    rf_err_t (*change)(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, uint16_t reserved_permille,
                       uint16_t weight);
    void (*update)(rf_cpudriver_t *driver);
    /* Fills driver->processes with this dispatcher's alone, as those of `owner`; false: look at all of the host. NULL where
     * it is not known who belongs to whom. */
    bool (*members)(rf_cpudriver_t *driver, const rf_dispatcher_t *dispatcher, int owner);
    /* CPU time of all its processes, dead ones too. RF_ERR_NOT_SUPPORTED: ask /proc. */
    rf_err_t (*cpu_ns)(rf_cpudriver_t *driver, const rf_dispatcher_t *dispatcher, uint64_t *out);
    /* Stops all of it, also what it forks meanwhile. RF_ERR_NOT_SUPPORTED: use signals. */
    rf_err_t (*freeze)(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, bool frozen);
    void (*yield)(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher); /* may be NULL: nothing to do */
    void (*tick)(rf_cpudriver_t *driver);                               /* may be NULL; the verb */
};

extern const rf_scheduler_t rf_scheduler_cgroup;
extern const rf_scheduler_t rf_scheduler_signals;

/* Chooses and opens one; never fails, since signals work everywhere. */
void rf_scheduler_open(rf_cpudriver_t *driver);

#endif
