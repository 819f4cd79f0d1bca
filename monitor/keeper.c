#include "monitor/keeper.h"

#include "base/clock.h"
#include "base/log.h"
#include "wire/death.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES 16384
#define READY_MS    100
#define SIGNALS     (64 / 8) /* bytes of the kernel's set of signals */

static _Alignas(64) char stack[STACK_BYTES];
static _Atomic(uint32_t) ready;

/* It shares the monitor's thread-local variables, errno and those of sanitizers among them: so bare system calls only, none of which
 * fails after `ready`. Every signal is blocked; KILL needs no leave. */
__attribute__((no_sanitize("thread", "address", "undefined"))) static int keep(void *monitor)
{
    const uint64_t died = 1ull << (SIGTERM - 1);
    const struct timespec stay = {.tv_nsec = RF_DEATH_KEEPER_NS};
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    syscall(SYS_close_range, 0u, ~0u, 0u);
    syscall(SYS_setpriority, PRIO_PROCESS, 0, 19); /* what it does in the end keeps nobody waiting */
    atomic_store(&ready, 1);
    while (syscall(SYS_getppid) == (long)(intptr_t)monitor)
        syscall(SYS_rt_sigtimedwait, &died, NULL, NULL, SIGNALS);
    syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &stay, NULL);
    syscall(SYS_exit_group, 0);
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
