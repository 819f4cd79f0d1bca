#include "cpudriver/realtime.h"

#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define PRIORITY      1
#define RTTIME_US_MAX 2000000 /* of running without ever blocking: then something is badly wrong */

static bool set_policy(int policy, int priority)
{
    const struct sched_param param = {.sched_priority = priority};
    return sched_setscheduler(0, policy | SCHED_RESET_ON_FORK, &param) == 0;
}

bool rf_realtime_start(void)
{
    struct rlimit guard;
    if (getrlimit(RLIMIT_RTTIME, &guard) < 0) return false;
    if (guard.rlim_cur > RTTIME_US_MAX) guard.rlim_cur = RTTIME_US_MAX;
    return setrlimit(RLIMIT_RTTIME, &guard) == 0 && set_policy(SCHED_FIFO, PRIORITY);
}

void rf_realtime_stop(void)
{
    set_policy(SCHED_OTHER, 0);
}

pid_t rf_realtime_reap(bool realtime, pid_t pid, int *status, int options)
{
    bool lowered = realtime && set_policy(SCHED_OTHER, 0);
    pid_t reaped;
    do {
        reaped = waitpid(pid, status, options);
    } while (reaped < 0 && errno == EINTR);
    if (lowered) set_policy(SCHED_FIFO, PRIORITY);
    return reaped;
}
