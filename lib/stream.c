/*
 * Streams of a channel: transport/stream.h with waiting and errors around it. The transport's streams write into a ring
 * that the peer made (remote writes); their slots are sorted out of the channel's by channel.c, their completions
 * arrive as link events.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define RING_BYTES_DEFAULT (1u << 20)
#define RING_BYTES_MIN     (64u << 10)
#define RING_BYTES_MAX     (64u << 20)

_Static_assert(RF_CHANNEL_STREAMS_MAX == RF_STREAMS_PER_LINK_MAX, "the public maximum is the transport's");

struct rf_channel_stream {
    rf_channel_t *channel; /* NULL: the channel has been closed */
    rf_stream_t *stream;
    unsigned id;
    unsigned waiters;
    bool closed; /* by the program, kept until its waiters have left */
};

/* The transport's functions take the streams of a link in one dense array. */
static void collect(rf_channel_t *channel)
{
    channel->n_streams = 0;
    for (unsigned i = 0; i < RF_CHANNEL_STREAMS_MAX; i++)
        if (channel->stream_handles[i])
            channel->streams[channel->n_streams++] = channel->stream_handles[i]->stream;
}

rf_err_t rf_channel_stream_open(rf_channel_t *channel, unsigned id, size_t ring_bytes,
                                rf_channel_stream_t **out)
{
    if (channel->port.end != RF_OK) return channel->port.end;
    if (ring_bytes == 0) ring_bytes = RING_BYTES_DEFAULT;
    if (id >= RF_CHANNEL_STREAMS_MAX || ring_bytes < RING_BYTES_MIN || ring_bytes > RING_BYTES_MAX ||
        (ring_bytes & (ring_bytes - 1)))
        return rf_lib_fail(RF_ERR_INVALID,
                           "a stream has an id below %d and a ring of 64 KiB to 64 MiB, a power of two",
                           RF_CHANNEL_STREAMS_MAX);
    if (channel->stream_handles[id]) return rf_lib_fail(RF_ERR_EXISTS, "stream %u is open already", id);
    rf_channel_stream_t *handle = calloc(1, sizeof *handle);
    if (!handle) return RF_ERR_NO_MEMORY;
    rf_err_t err = rf_stream_open(channel->port.link, id, ring_bytes, &handle->stream);
    if (err != RF_OK) {
        free(handle);
        return err;
    }
    handle->channel = channel;
    handle->id = id;
    channel->stream_handles[id] = handle;
    collect(channel);
    *out = handle;
    return RF_OK;
}

/* Takes the transport's stream away; the handle stays until the program closes it. */
static void detach(rf_channel_stream_t *stream)
{
    if (!stream->channel) return;
    stream->channel->stream_handles[stream->id] = NULL;
    collect(stream->channel);
    rf_stream_close(stream->stream);
    stream->channel = NULL;
    stream->stream = NULL;
}

static void free_if_left(rf_channel_stream_t *stream)
{
    if (stream->closed && stream->waiters == 0) free(stream);
}

void rf_channel_stream_close(rf_channel_stream_t *stream)
{
    if (!stream || stream->closed) return;
    rf_lib_waitsets_forget(stream);
    detach(stream);
    stream->closed = true;
    free_if_left(stream);
}

void rf_lib_streams_close(rf_channel_t *channel)
{
    for (unsigned i = 0; i < RF_CHANNEL_STREAMS_MAX; i++)
        if (channel->stream_handles[i]) rf_channel_stream_close(channel->stream_handles[i]);
}

void rf_lib_streams_slot(rf_channel_t *channel, const rf_slot_t *slot)
{
    rf_err_t err = rf_stream_slot(channel->port.link, channel->streams, channel->n_streams, slot);
    if (err != RF_OK) rf_lib_channel_poison(channel, "a stream slot that makes no sense");
}

void rf_lib_streams_written(rf_channel_t *channel, uint64_t cookie, rf_err_t err)
{
    if (!(cookie & RF_STREAM_COOKIE)) return;
    (void)rf_stream_written(channel->streams, channel->n_streams, cookie, err);
}

void rf_lib_streams_room(rf_channel_t *channel)
{
    const void *at;
    for (unsigned i = 0; i < channel->n_streams; i++) (void)rf_stream_peek(channel->streams[i], &at);
}

/* ---- waiting ---- */

typedef struct stream_wait {
    rf_channel_stream_t *stream;
    const void *in;
    void *out;
    const void **peeked;
    size_t size, moved;
    rf_err_t err;
} stream_wait_t;

/* What the channel has brought is taken; the reason it ended, if it has and nothing more can come. */
static rf_err_t look(rf_channel_stream_t *stream)
{
    if (stream->closed) return RF_ERR_CLOSED;
    rf_lib_channel_refill(stream->channel);
    return stream->channel->port.end;
}

static void stream_arm(void *context, lib_arm_t *arm)
{
    rf_channel_stream_t *stream = ((stream_wait_t *)context)->stream;
    if (!stream->closed) rf_lib_arm_channel(stream->channel, arm);
}

static rf_err_t wait_for(rf_channel_stream_t *stream, bool (*ready)(void *), stream_wait_t *w,
                         uint64_t deadline_ns)
{
    stream->waiters++;
    stream->channel->waiters++;
    rf_channel_t *channel = stream->channel;
    rf_err_t err = rf_lib_block(&(lib_wait_t){ready, stream_arm, w}, deadline_ns);
    stream->waiters--;
    free_if_left(stream);
    rf_lib_channel_leave(channel);
    return err == RF_OK ? w->err : err;
}

/* ---- writing ---- */

static bool write_ready(void *context)
{
    stream_wait_t *w = context;
    w->err = look(w->stream);
    if (w->err != RF_OK) return true;
    size_t n = rf_stream_write(w->stream->stream, (const char *)w->in + w->moved, w->size - w->moved);
    w->moved += n;
    if (n) (void)w->stream->channel->transport->flush(w->stream->channel->port.link);
    return w->moved == w->size;
}

rf_err_t rf_channel_stream_try_write(rf_channel_stream_t *stream, const void *bytes, size_t size,
                                     size_t *written)
{
    stream_wait_t w = {.stream = stream, .in = bytes, .size = size};
    (void)write_ready(&w);
    if (w.err != RF_OK) return w.err;
    if (w.moved == 0 && size > 0) return RF_ERR_AGAIN;
    *written = w.moved;
    return RF_OK;
}

rf_err_t rf_channel_stream_write(rf_channel_stream_t *stream, const void *bytes, size_t size, size_t *written,
                                 uint64_t deadline_ns)
{
    stream_wait_t w = {.stream = stream, .in = bytes, .size = size};
    rf_err_t err = wait_for(stream, write_ready, &w, deadline_ns);
    if (written) *written = w.moved;
    return err;
}

static bool finish_ready(void *context)
{
    stream_wait_t *w = context;
    w->err = look(w->stream);
    if (w->err != RF_OK) return true;
    w->err = rf_stream_finish(w->stream->stream);
    if (w->err == RF_ERR_AGAIN) return false;
    if (w->err == RF_OK) w->err = w->stream->channel->transport->flush(w->stream->channel->port.link);
    return true;
}

rf_err_t rf_channel_stream_finish(rf_channel_stream_t *stream, uint64_t deadline_ns)
{
    stream_wait_t w = {.stream = stream};
    return wait_for(stream, finish_ready, &w, deadline_ns);
}

static bool drain_ready(void *context)
{
    stream_wait_t *w = context;
    w->err = look(w->stream);
    if (!w->stream->closed && rf_stream_drained(w->stream->stream))
        w->err = RF_OK;
    else if (w->err == RF_OK)
        return false;
    return true;
}

rf_err_t rf_channel_stream_drain(rf_channel_stream_t *stream, uint64_t deadline_ns)
{
    stream_wait_t w = {.stream = stream};
    return wait_for(stream, drain_ready, &w, deadline_ns);
}

/* ---- reading ---- */

/* Bytes that have arrived are read even when the channel has ended since. */
static bool read_ready(void *context)
{
    stream_wait_t *w = context;
    rf_err_t end = look(w->stream);
    if (w->stream->closed) {
        w->err = RF_ERR_CLOSED;
        return true;
    }
    w->err = rf_stream_read(w->stream->stream, w->out, w->size, &w->moved);
    if ((w->err == RF_ERR_AGAIN || w->err == RF_ERR_PEER_DEAD) && end != RF_OK) w->err = end;
    if (w->err == RF_OK && end == RF_OK)
        (void)w->stream->channel->transport->flush(w->stream->channel->port.link);
    return w->err != RF_ERR_AGAIN;
}

rf_err_t rf_channel_stream_read(rf_channel_stream_t *stream, void *bytes, size_t size, size_t *got,
                                uint64_t deadline_ns)
{
    stream_wait_t w = {.stream = stream, .out = bytes, .size = size};
    rf_err_t err = wait_for(stream, read_ready, &w, deadline_ns);
    if (err == RF_OK) *got = w.moved;
    return err;
}

static bool peek_ready(void *context)
{
    stream_wait_t *w = context;
    rf_err_t end = look(w->stream);
    if (w->stream->closed) {
        w->err = RF_ERR_CLOSED;
        return true;
    }
    w->moved = rf_stream_peek(w->stream->stream, w->peeked);
    w->err = RF_OK;
    if (w->moved > 0) return true;
    char none;
    size_t got;
    w->err = rf_stream_read(w->stream->stream, &none, 0, &got); /* tells the end from "none now" */
    if (w->err == RF_OK) w->err = RF_ERR_AGAIN;
    if ((w->err == RF_ERR_AGAIN || w->err == RF_ERR_PEER_DEAD) && end != RF_OK) w->err = end;
    return w->err != RF_ERR_AGAIN;
}

rf_err_t rf_channel_stream_peek(rf_channel_stream_t *stream, const void **bytes, size_t *size,
                                uint64_t deadline_ns)
{
    const void *at = NULL;
    stream_wait_t w = {.stream = stream, .peeked = &at};
    rf_err_t err = wait_for(stream, peek_ready, &w, deadline_ns);
    if (err != RF_OK) return err;
    *bytes = at;
    *size = w.moved;
    return RF_OK;
}

void rf_channel_stream_consume(rf_channel_stream_t *stream, size_t size)
{
    rf_stream_consume(stream->stream, size);
    if (stream->channel->port.end == RF_OK)
        (void)stream->channel->transport->flush(stream->channel->port.link);
}

/* ---- for wait sets ---- */

uint32_t rf_lib_stream_events(rf_channel_stream_t *stream, uint32_t wanted)
{
    rf_err_t end = look(stream);
    uint32_t events = end != RF_OK ? RF_EVENT_ENDED | RF_EVENT_READABLE : 0;
    if (wanted & RF_EVENT_READABLE) {
        const void *at;
        char none;
        size_t got;
        if (rf_stream_peek(stream->stream, &at) > 0 ||
            rf_stream_read(stream->stream, &none, 0, &got) == RF_ERR_CLOSED)
            events |= RF_EVENT_READABLE;
    }
    if ((wanted & RF_EVENT_WRITABLE) && end == RF_OK && rf_stream_room(stream->stream) > 0)
        events |= RF_EVENT_WRITABLE;
    return events;
}

rf_channel_t *rf_lib_stream_channel(const rf_channel_stream_t *stream)
{
    return stream->channel;
}
