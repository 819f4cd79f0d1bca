#include "node/conn.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LENGTH_SIZE     4u
#define IN_START_SIZE   (16u << 10)
#define READS_PER_TURN  32
#define FRAMES_PER_TURN 64

rf_err_t rf_frame_decode(const uint8_t *bytes, size_t size, size_t *frame_size, size_t *wanted)
{
    if (size < LENGTH_SIZE) {
        *wanted = LENGTH_SIZE;
        return RF_ERR_AGAIN;
    }
    size_t length =
        (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    if (length > RF_FRAME_MAX) return RF_ERR_PROTOCOL;
    if (size < LENGTH_SIZE + length) {
        *wanted = LENGTH_SIZE + length;
        return RF_ERR_AGAIN;
    }
    *frame_size = length;
    return RF_OK;
}

static void end_with(rf_conn_t *conn, rf_err_t err, const char *why)
{
    if (conn->closed || conn->closing) return;
    conn->closed = true;
    rf_loop_remove(conn->loop, &conn->source);
    rf_timer_clear(&conn->again);
    if (conn->finishing) {
        rf_conn_close(conn);
        return;
    }
    conn->handlers->on_closed(conn->context, err, why);
}

static void fail_now(void *context)
{
    rf_conn_t *conn = context;
    end_with(conn, conn->failure, conn->failure_why);
}

/* Ends the connection in the loop's next turn: for failures inside the owner's own calls. */
static void fail_later(rf_conn_t *conn, rf_err_t err, const char *why)
{
    if (conn->failure != RF_OK) return;
    conn->failure = err;
    conn->failure_why = why;
    rf_loop_remove(conn->loop, &conn->source);
    rf_timer_set(conn->loop, &conn->again, 0, fail_now, conn);
}

static bool is_over(const rf_conn_t *conn)
{
    return conn->closed || conn->closing || conn->failure != RF_OK;
}

/* What epoll should watch for now. */
static void update_events(rf_conn_t *conn)
{
    if (is_over(conn)) return;
    uint32_t events = 0;
    if (conn->connecting || rf_conn_queued(conn) > 0) events |= EPOLLOUT;
    if (!conn->connecting && !conn->paused && !conn->finishing) events |= EPOLLIN;
    rf_loop_modify(conn->loop, &conn->source, events);
}

static rf_err_t raw_read(rf_conn_t *conn, void *bytes, size_t size, size_t *done)
{
    if (conn->tls) return rf_tls_read(conn->tls, bytes, size, done);
    ssize_t n;
    do {
        n = recv(conn->source.fd, bytes, size, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        *done = (size_t)n;
        return RF_OK;
    }
    return n < 0 && errno == EAGAIN ? RF_ERR_AGAIN : RF_ERR_CLOSED;
}

static rf_err_t raw_write(rf_conn_t *conn, const void *bytes, size_t size, size_t *done)
{
    if (conn->tls) return rf_tls_write(conn->tls, bytes, size, done);
    ssize_t n;
    do {
        n = send(conn->source.fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        *done = (size_t)n;
        return RF_OK;
    }
    return errno == EAGAIN ? RF_ERR_AGAIN : RF_ERR_CLOSED;
}

static void flush_out(rf_conn_t *conn)
{
    while (conn->ready && !is_over(conn) && conn->out_start < conn->out_end) {
        size_t done = 0;
        rf_err_t err = raw_write(conn, conn->out + conn->out_start, conn->out_end - conn->out_start, &done);
        if (err == RF_ERR_AGAIN) break;
        if (err != RF_OK) {
            fail_later(conn, RF_ERR_CLOSED, "the connection broke while sending");
            return;
        }
        conn->out_start += done;
    }
    if (conn->out_start == conn->out_end) conn->out_start = conn->out_end = 0;
    if (conn->finishing && conn->out_end == 0) {
        rf_conn_close(conn);
        return;
    }
    update_events(conn);
}

static bool reserve_in(rf_conn_t *conn, size_t wanted)
{
    if (conn->in_start > 0 &&
        (conn->in_start == conn->in_end || conn->in_start + wanted > conn->in_capacity)) {
        memmove(conn->in, conn->in + conn->in_start, conn->in_end - conn->in_start);
        conn->in_end -= conn->in_start;
        conn->in_start = 0;
    }
    if (wanted <= conn->in_capacity) return true;
    size_t capacity = conn->in_capacity ? conn->in_capacity : IN_START_SIZE;
    while (capacity < wanted) capacity *= 2;
    uint8_t *bytes = realloc(conn->in, capacity);
    if (!bytes) return false;
    conn->in = bytes;
    conn->in_capacity = capacity;
    return true;
}

static void input(rf_conn_t *conn)
{
    unsigned reads = 0, frames = 0;
    while (!is_over(conn) && !conn->paused && !conn->finishing) {
        size_t frame_size = 0, wanted = 0;
        rf_err_t err =
            rf_frame_decode(conn->in + conn->in_start, conn->in_end - conn->in_start, &frame_size, &wanted);
        if (err == RF_OK) {
            if (++frames > FRAMES_PER_TURN) break;
            const uint8_t *frame = conn->in + conn->in_start + LENGTH_SIZE;
            conn->in_start += LENGTH_SIZE + frame_size;
            conn->handlers->on_frame(conn->context, frame, frame_size);
            continue;
        }
        if (err != RF_ERR_AGAIN) {
            end_with(conn, RF_ERR_PROTOCOL, "a message is longer than the protocol allows");
            return;
        }
        if (reads++ >= READS_PER_TURN) break;
        if (!reserve_in(conn, wanted)) {
            end_with(conn, RF_ERR_NO_MEMORY, "no memory for a message");
            return;
        }
        size_t done = 0;
        err = raw_read(conn, conn->in + conn->in_end, conn->in_capacity - conn->in_end, &done);
        if (err == RF_ERR_AGAIN) return;
        if (err != RF_OK) {
            end_with(conn, err,
                     err == RF_ERR_CLOSED ? "the peer closed the connection"
                                          : "the peer broke the TLS session");
            return;
        }
        conn->in_end += done;
    }
}

static void input_again(void *context);

/* Reads on; if anything is left that epoll will not announce, comes back in the next turn. */
static void run_input(rf_conn_t *conn)
{
    input(conn);
    if (is_over(conn) || conn->paused || conn->finishing) return;
    size_t frame_size, wanted;
    bool frame_left = rf_frame_decode(conn->in + conn->in_start, conn->in_end - conn->in_start, &frame_size,
                                      &wanted) != RF_ERR_AGAIN;
    if (frame_left || (conn->tls && rf_tls_pending(conn->tls)))
        rf_timer_set(conn->loop, &conn->again, 0, input_again, conn);
}

static void input_again(void *context)
{
    rf_conn_t *conn = context;
    run_input(conn);
}

static void handshake(rf_conn_t *conn)
{
    bool wants_write = false;
    char why[160];
    rf_err_t err = rf_tls_handshake(conn->tls, &wants_write, why, sizeof why);
    if (err == RF_ERR_AGAIN) {
        rf_loop_modify(conn->loop, &conn->source, wants_write ? EPOLLOUT : EPOLLIN);
        return;
    }
    if (err != RF_OK) {
        end_with(conn, err, why);
        return;
    }
    conn->ready = true;
    if (conn->handlers->on_ready) conn->handlers->on_ready(conn->context);
    if (is_over(conn)) return;
    update_events(conn);
    flush_out(conn);
    if (!is_over(conn)) run_input(conn);
}

static void on_events(void *context, uint32_t events)
{
    rf_conn_t *conn = context;
    if (conn->connecting) {
        int failed = 0;
        socklen_t size = sizeof failed;
        getsockopt(conn->source.fd, SOL_SOCKET, SO_ERROR, &failed, &size);
        if (failed) {
            end_with(conn, RF_ERR_CLOSED, strerror(failed));
            return;
        }
        if (!(events & EPOLLOUT)) return;
        conn->connecting = false;
    }
    if (!conn->ready) {
        if (conn->tls) {
            handshake(conn);
            return;
        }
        conn->ready = true;
    }
    if (events & EPOLLOUT) {
        flush_out(conn);
        if (is_over(conn)) return;
        if (conn->was_full && rf_conn_queued(conn) < RF_CONN_FULL / 2) {
            conn->was_full = false;
            if (conn->handlers->on_room) conn->handlers->on_room(conn->context);
            if (is_over(conn)) return;
        }
    }
    if (events & (EPOLLHUP | EPOLLERR) && (conn->paused || conn->finishing)) {
        end_with(conn, RF_ERR_CLOSED, "the peer closed the connection");
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) run_input(conn);
}

rf_err_t rf_conn_open(rf_loop_t *loop, int fd, rf_tls_t *tls, bool connecting,
                      const rf_conn_handlers_t *handlers, void *context, rf_conn_t **out)
{
    rf_err_t err = RF_ERR_NO_MEMORY;
    rf_conn_t *conn = calloc(1, sizeof *conn);
    if (!conn) goto close_fd;
    conn->loop = loop;
    conn->tls = tls;
    conn->handlers = handlers;
    conn->context = context;
    conn->connecting = connecting;
    conn->ready = !tls;
    if (!reserve_in(conn, IN_START_SIZE)) goto free_conn;
    /* A TLS client speaks first: it is woken by being able to write. */
    uint32_t events = connecting ? EPOLLOUT : tls ? EPOLLIN | EPOLLOUT : EPOLLIN;
    err = rf_loop_add(loop, &conn->source, fd, events, on_events, conn);
    if (err != RF_OK) goto free_conn;
    *out = conn;
    return RF_OK;

free_conn:
    free(conn->in);
    free(conn);
close_fd:
    rf_tls_close(tls);
    close(fd);
    return err;
}

rf_err_t rf_conn_replace(rf_conn_t *conn, int fd, rf_tls_t *tls)
{
    rf_assert(conn->connecting && !is_over(conn));
    rf_source_t old = conn->source;
    rf_tls_t *old_tls = conn->tls;
    rf_err_t err = rf_loop_add(conn->loop, &conn->source, fd, EPOLLOUT, on_events, conn);
    if (err == RF_OK) {
        conn->tls = tls;
        rf_loop_remove(conn->loop, &old);
        tls = old_tls;
        fd = old.fd;
    }
    rf_tls_close(tls);
    close(fd);
    return err;
}

uint8_t *rf_conn_reserve(rf_conn_t *conn, size_t size)
{
    if (is_over(conn) || size > RF_FRAME_MAX) return NULL;
    size_t whole = LENGTH_SIZE + size;
    if (rf_conn_queued(conn) + whole > RF_CONN_QUEUE_MAX) {
        fail_later(conn, RF_ERR_LIMIT, "the peer does not take what it asked for");
        return NULL;
    }
    /* Moved only when at least as much was sent as waits: each byte moves at most once on the average. */
    if (conn->out_start > 0 && conn->out_end + whole > conn->out_capacity &&
        conn->out_start >= rf_conn_queued(conn)) {
        memmove(conn->out, conn->out + conn->out_start, rf_conn_queued(conn));
        conn->out_end -= conn->out_start;
        conn->out_start = 0;
    }
    if (conn->out_end + whole > conn->out_capacity) {
        size_t capacity = conn->out_capacity ? conn->out_capacity : IN_START_SIZE;
        while (capacity < conn->out_end + whole) capacity *= 2;
        uint8_t *bytes = realloc(conn->out, capacity);
        if (!bytes) {
            fail_later(conn, RF_ERR_NO_MEMORY, "no memory for a message");
            return NULL;
        }
        conn->out = bytes;
        conn->out_capacity = capacity;
    }
    uint8_t *at = conn->out + conn->out_end;
    for (unsigned i = 0; i < LENGTH_SIZE; i++) at[i] = (uint8_t)(size >> (8 * i));
    conn->out_reserved = whole;
    return at + LENGTH_SIZE;
}

void rf_conn_commit(rf_conn_t *conn)
{
    rf_assert(conn->out_reserved > 0);
    bool was_empty = rf_conn_queued(conn) == 0;
    conn->out_end += conn->out_reserved;
    conn->out_reserved = 0;
    if (was_empty && conn->ready)
        flush_out(conn);
    else
        update_events(conn);
}

bool rf_conn_send(rf_conn_t *conn, const void *bytes, size_t size)
{
    uint8_t *room = rf_conn_reserve(conn, size);
    if (!room) return false;
    memcpy(room, bytes, size);
    rf_conn_commit(conn);
    return true;
}

bool rf_conn_full(rf_conn_t *conn)
{
    if (rf_conn_queued(conn) < RF_CONN_FULL) return false;
    conn->was_full = true;
    return true;
}

void rf_conn_pause(rf_conn_t *conn)
{
    conn->paused = true;
    if (conn->ready) update_events(conn);
}

void rf_conn_resume(rf_conn_t *conn)
{
    if (!conn->paused || is_over(conn)) return;
    conn->paused = false;
    if (conn->ready) {
        update_events(conn);
        rf_timer_set(conn->loop, &conn->again, 0, input_again, conn);
    }
}

static void finish_late(void *context)
{
    rf_conn_close(context);
}

void rf_conn_finish(rf_conn_t *conn, unsigned deadline_ms)
{
    if (!conn || conn->closing) return;
    conn->finishing = true;
    if (is_over(conn) || rf_conn_queued(conn) == 0) {
        rf_conn_close(conn);
        return;
    }
    rf_timer_set(conn->loop, &conn->again, rf_clock_ns() + deadline_ms * RF_NS_PER_MS, finish_late, conn);
    update_events(conn);
}

void rf_conn_close(rf_conn_t *conn)
{
    if (!conn || conn->closing) return;
    conn->closing = true;
    rf_loop_remove(conn->loop, &conn->source);
    rf_timer_clear(&conn->again);
    if (conn->tls) rf_tls_close(conn->tls);
    conn->tls = NULL;
    close(conn->source.fd);
    free(conn->in);
    free(conn->out);
    conn->in = conn->out = NULL;
    rf_loop_free_later(conn->loop, &conn->garbage);
}
