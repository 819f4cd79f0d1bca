/*
 * A listening socket in the loop. Connections that there is no descriptor or memory for stay in its queue, and would be said to be
 * there again and again: it is taken out of the loop for a pause instead, and the log says why.
 *
 * Thread: the loop's.
 */
#ifndef RF_NODE_LISTENER_H
#define RF_NODE_LISTENER_H

#include "node/loop.h"

#include <sys/socket.h>

typedef struct rf_listener {
    rf_loop_t *loop;
    rf_source_t source;
    rf_timer_t again;
    rf_source_fn fn;
    void *context;
    const char *what;
    uint64_t logged_ns;
} rf_listener_t;

/* Calls `fn` when there is somebody to accept. The listener and the non-blocking `fd` are the caller's and stay until
 * rf_listener_close(); `what` is for the log ("the control socket") and must stay, too. */
rf_err_t rf_listener_open(rf_listener_t *listener, rf_loop_t *loop, int fd, const char *what, rf_source_fn fn,
                          void *context);

/* A connection, non-blocking and close-on-exec; -1: none now. `from` and `size` as for accept(2). */
int rf_listener_accept(rf_listener_t *listener, struct sockaddr *from, socklen_t *size);

/* The descriptor stays open. Harmless on a zeroed one and on one that is closed. */
void rf_listener_close(rf_listener_t *listener);

#endif
