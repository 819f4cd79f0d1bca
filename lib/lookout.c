/*
 * The lookout: a host thread of the library's own that does nothing but watch our epoll instance and ring our doorbell when
 * something in it is ready, so that the dispatcher blocks on one futex word for everything.
 *
 * Why not the CPU driver (RF_KERNEL_FD_WATCH)? It refuses epoll instances, and rightly: whoever polls one asks every file in it, and a
 * domain can put files in it whose answer never comes (FUSE). And a descriptor that it held itself would keep a pipe or socket
 * open that the program has closed. See doc/adr.
 *
 *   dispatcher                      lookout
 *     RESTING -> ARMED, wake ────────► poll(epoll) ...
 *     blocks on the doorbell           ready: ARMED -> FIRED, ring
 *     FIRED: looks at the descriptors ◄┘
 *     before it blocks again: -> ARMED, wake
 *
 * The two share this one word; the lookout touches no other state. Readiness is a level: arming too early fires again.
 */
#include "internal.h"

#include "base/futex.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STACK_BYTES (128u << 10)

static struct {
    pthread_t thread;
    bool running;
    int epoll, stop_fd;
    const rf_doorbell_t *doorbell;
    _Atomic(uint32_t) state;
} lookout;

enum { RESTING, ARMED, FIRED, STOPPING };

static void *lookout_main(void *argument)
{
    prctl(PR_SET_NAME, "rf-lookout");
    struct pollfd fds[2] = {{.fd = lookout.epoll, .events = POLLIN},
                            {.fd = lookout.stop_fd, .events = POLLIN}};
    for (uint32_t state; (state = atomic_load(&lookout.state)) != STOPPING;) {
        if (state != ARMED) {
            (void)rf_futex_wait(&lookout.state, state, RF_NEVER);
            continue;
        }
        if (poll(fds, 2, -1) <= 0 || !fds[0].revents) continue;
        if (atomic_compare_exchange_strong(&lookout.state, &state, FIRED)) rf_doorbell_ring(lookout.doorbell);
    }
    return argument;
}

rf_err_t rf_lib_lookout_start(int epoll, const rf_doorbell_t *doorbell)
{
    lookout.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (lookout.stop_fd < 0) return rf_lib_fail(RF_ERR_OS, "eventfd: %s", strerror(errno));
    lookout.epoll = epoll;
    lookout.doorbell = doorbell;
    atomic_store(&lookout.state, RESTING);
    /* Signals are the program's: none is delivered here. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int rc = pthread_create(&lookout.thread, &attributes, lookout_main, NULL);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        close(lookout.stop_fd);
        return rf_lib_fail(RF_ERR_OS, "pthread_create: %s", strerror(rc));
    }
    lookout.running = true;
    return RF_OK;
}

void rf_lib_lookout_stop(void)
{
    if (!lookout.running) return;
    lookout.running = false;
    atomic_store(&lookout.state, STOPPING);
    rf_futex_wake(&lookout.state);
    (void)eventfd_write(lookout.stop_fd, 1);
    pthread_join(lookout.thread, NULL);
    close(lookout.stop_fd);
}

bool rf_lib_lookout_fired(void)
{
    return atomic_load_explicit(&lookout.state, memory_order_acquire) == FIRED;
}

void rf_lib_lookout_arm(void)
{
    if (!lookout.running || atomic_load_explicit(&lookout.state, memory_order_relaxed) == ARMED) return;
    atomic_store(&lookout.state, ARMED);
    rf_futex_wake(&lookout.state);
}
