#include "monitor/keeper.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK_BYTES 16384
#define READY_MS    100

static _Alignas(64) char stack[STACK_BYTES];
static _Atomic(uint32_t) ready;

/* It shares the monitor's thread-local variables, errno and those of sanitizers among them: so bare system calls only, none of which
 * fails after `ready`. Every signal is blocked; KILL needs no leave. */
__attribute__((no_sanitize("thread", "address", "undefined"))) static int keep(void *monitor)
{
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (syscall(SYS_getppid) != (long)(intptr_t)monitor) syscall(SYS_exit_group, 0); /* it died before that */
    syscall(SYS_close_range, 0u, ~0u, 0u);
    atomic_store(&ready, 1);
    while (syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0) <= 0) {
    }
    return 0;
}

void keeper_start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    int pid = clone(keep, stack + sizeof stack, CLONE_VM, (void *)(intptr_t)getpid());
    int saved = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) rf_log(RF_LOG_INFO, "no keeper of the address space: %s", strerror(saved));
    for (unsigned i = 0; pid >= 0 && i < READY_MS && !atomic_load(&ready); i++) rf_clock_sleep_ms(1);
}
