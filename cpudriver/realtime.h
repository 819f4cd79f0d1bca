/* The CPU driver as SCHED_FIFO: it preempts what it serves, and blocks after each event. */
#ifndef RF_CPUDRIVER_REALTIME_H
#define RF_CPUDRIVER_REALTIME_H

#include <stdbool.h>
#include <sys/types.h>

/* Takes the priority, with a guard against a loop that never blocks. False, with errno, when this process may not. */
bool rf_realtime_start(void);

/* Gives it back, before the process ends: what runs at its end may wait for threads of lower priority. */
void rf_realtime_stop(void);

/*
 * waitpid() for a child. With `realtime`, this one call is made as an ordinary process: releasing a dead process
 * drops its entries of /proc in a loop that goes on while anybody holds one of them, and that may be a task of this
 * very CPU, which SCHED_FIFO would keep from running until the kernel throttles us.
 */
pid_t rf_realtime_reap(bool realtime, pid_t pid, int *status, int options);

#endif
