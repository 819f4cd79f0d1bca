#include "node/listener.h"

#include "base/log.h"

#include <errno.h>

#define PAUSE_NS (100 * RF_NS_PER_MS)
#define LOG_NS   (10 * RF_NS_PER_S)

static void listen_again(void *context)
{
    rf_listener_t *listener = context;
    if (rf_loop_add(listener->loop, &listener->source, listener->source.fd, EPOLLIN, listener->fn,
                    listener->context) != RF_OK)
        rf_timer_set(listener->loop, &listener->again, rf_clock_ns() + PAUSE_NS, listen_again, listener);
}

static void pause_listening(rf_listener_t *listener)
{
    if (rf_log_once_per(&listener->logged_ns, LOG_NS))
        rf_log(RF_LOG_ERROR,
               "cannot accept on %s: %m; who connects waits, and it is tried again ten times a second; raise "
               "the "
               "limit of open files (LimitNOFILE= of its unit, ulimit -n), or free memory",
               listener->what);
    rf_loop_remove(listener->loop, &listener->source);
    rf_timer_set(listener->loop, &listener->again, rf_clock_ns() + PAUSE_NS, listen_again, listener);
}

rf_err_t rf_listener_open(rf_listener_t *listener, rf_loop_t *loop, int fd, const char *what, rf_source_fn fn,
                          void *context)
{
    *listener = (rf_listener_t){.loop = loop, .fn = fn, .context = context, .what = what};
    return rf_loop_add(loop, &listener->source, fd, EPOLLIN, fn, context);
}

int rf_listener_accept(rf_listener_t *listener, struct sockaddr *from, socklen_t *size)
{
    int fd = accept4(listener->source.fd, from, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
        pause_listening(listener);
    return fd;
}

void rf_listener_close(rf_listener_t *listener)
{
    if (!listener->loop) return;
    rf_timer_clear(&listener->again);
    rf_loop_remove(listener->loop, &listener->source);
    *listener = (rf_listener_t){0};
}
