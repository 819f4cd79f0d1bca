/*
 * A framed connection: a 4-byte little-endian length, at most RF_FRAME_MAX, and that many bytes, both ways, over a
 * non-blocking stream socket, plain (control socket) or under TLS (between nodes). Never blocks.
 *
 *   in    bytes are gathered until a frame is whole; then on_frame(). While paused nothing is read.
 *   out   frames are packed straight into one queue of at most RF_CONN_QUEUE_MAX bytes and sent as the peer takes them.
 *         rf_conn_full() asks callers to hold on; on_room() follows. A peer that lets the queue overflow is cut off.
 *
 * Callbacks come only from the loop, never from inside a call of the owner, so that sending is safe anywhere. on_closed()
 * comes at most once; nothing comes after it. The owner then (or at any time) calls rf_conn_close(), also inside callbacks.
 */
#ifndef RF_NODE_CONN_H
#define RF_NODE_CONN_H

#include "node/loop.h"
#include "node/tls.h"

#include <stddef.h>

#define RF_FRAME_MAX      (1u << 20)
#define RF_CONN_QUEUE_MAX (8u << 20) /* beyond it the peer is cut off */
#define RF_CONN_FULL      (1u << 20) /* from here on callers should hold on */

typedef struct rf_conn_handlers {
    void (*on_ready)(void *context); /* TLS: authenticated; may be NULL */
    void (*on_frame)(void *context, const uint8_t *bytes, size_t size);
    void (*on_room)(void *context); /* the queue fell below RF_CONN_FULL / 2 after it was full; may be NULL */
    /* RF_ERR_CLOSED: the peer ended the stream. `why` is one line. */
    void (*on_closed)(void *context, rf_err_t err, const char *why);
} rf_conn_handlers_t;

typedef struct rf_conn {
    rf_garbage_t garbage;
    rf_loop_t *loop;
    rf_source_t source;
    rf_timer_t again; /* input is left over from the last turn */
    rf_tls_t *tls;
    const rf_conn_handlers_t *handlers;
    void *context;
    uint8_t *in, *out;
    size_t in_start, in_end, in_capacity;
    size_t out_start, out_end, out_capacity, out_reserved;
    rf_err_t failure; /* not RF_OK: on_closed() will come in the next turn */
    const char *failure_why;
    bool ready, paused, was_full, closed, closing, finishing, connecting;
} rf_conn_t;

/* Takes over `fd` (closed with the connection, also when this fails) and `tls` (NULL: plain; same ownership).
 * `connecting`: a connect() on fd is still under way. */
rf_err_t rf_conn_open(rf_loop_t *loop, int fd, rf_tls_t *tls, bool connecting,
                      const rf_conn_handlers_t *handlers, void *context, rf_conn_t **out);

/* Another socket, whose connect() is under way, instead of one whose connect() has not been answered: what is queued goes out over
 * it. From a timer, not from within an event. Takes over both as above; when it fails the connection goes on with what it has. */
rf_err_t rf_conn_replace(rf_conn_t *conn, int fd, rf_tls_t *tls);

/* Room for one frame of exactly `size` bytes at the end of the queue, to be filled at once and committed; NULL when
 * the connection has ended, `size` is above RF_FRAME_MAX, or the queue overflows (the connection then ends). */
uint8_t *rf_conn_reserve(rf_conn_t *conn, size_t size);
void rf_conn_commit(rf_conn_t *conn);

/* Copies one frame into the queue; false as above. */
bool rf_conn_send(rf_conn_t *conn, const void *bytes, size_t size);

static inline size_t rf_conn_queued(const rf_conn_t *conn)
{
    return conn->out_end - conn->out_start;
}

/* Its connect() has not been answered yet. */
static inline bool rf_conn_is_connecting(const rf_conn_t *conn)
{
    return conn->connecting;
}

/* True: callers should hold on until on_room(). */
bool rf_conn_full(rf_conn_t *conn);

void rf_conn_pause(rf_conn_t *conn);
void rf_conn_resume(rf_conn_t *conn);

/* Sends what is queued (at most `deadline_ms` long), then closes: the owner lets go of it now, no callbacks follow. */
void rf_conn_finish(rf_conn_t *conn, unsigned deadline_ms);

/* Closes now; no callbacks follow. */
void rf_conn_close(rf_conn_t *conn);

/* Decoder of the framing alone, pure: looks at the `size` bytes at `bytes`. RF_OK: a frame of *frame_size bytes starts at
 * bytes + 4. RF_ERR_AGAIN: *wanted bytes in all are needed. RF_ERR_PROTOCOL: no such frame is allowed. */
rf_err_t rf_frame_decode(const uint8_t *bytes, size_t size, size_t *frame_size, size_t *wanted);

#endif
