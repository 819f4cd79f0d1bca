/*
 * Streams: bytes of any amount beside a channel's messages, in order, with memory and credit of their own, so
 * that they do not delay messages. Received in place, without a copy. Source: lib/stream.c,
 * transport/stream.h.
 *
 * Each of up to RF_CHANNEL_STREAMS_MAX streams of a channel goes both ways. Both ends open the same id; what
 * is written before the peer opened waits. Stream bytes and messages are not ordered against each other.
 *
 * Credit for streams travels on the channel itself: a program that leaves more than a few dozen messages
 * unreceived holds up its streams too.
 */
#ifndef RACKFISH_STREAM_H
#define RACKFISH_STREAM_H

#include "rackfish/channel.h"

RF_BEGIN_DECLS

#define RF_CHANNEL_STREAMS_MAX 8

typedef struct rf_channel_stream rf_channel_stream_t;

/* Opens stream `id` (below RF_CHANNEL_STREAMS_MAX) with room for `ring_bytes` incoming bytes: a power of two,
 * 64 KiB to 64 MiB; 0: 1 MiB. RF_ERR_EXISTS: open already. RF_ERR_NOT_SUPPORTED: this medium has no streams.
 */
RF_API rf_err_t rf_channel_stream_open(rf_channel_t *channel, unsigned id, size_t ring_bytes,
                                       rf_channel_stream_t **out);

/* Takes as many bytes as there is room for and says how many; RF_ERR_AGAIN: none. Never blocks. The bytes are
 * copied. */
RF_API rf_err_t rf_channel_stream_try_write(rf_channel_stream_t *stream, const void *bytes, size_t size,
                                            size_t *written);

/* Writes all of it. With RF_ERR_TIMEOUT part of it may have been written: `*written` (may be NULL) is set in
 * every case. */
RF_API rf_err_t rf_channel_stream_write(rf_channel_stream_t *stream, const void *bytes, size_t size,
                                        size_t *written, uint64_t deadline_ns);

/* Copies out between 1 and `size` bytes. RF_ERR_CLOSED: the peer finished the stream or closed the channel,
 * and all was read. */
RF_API rf_err_t rf_channel_stream_read(rf_channel_stream_t *stream, void *bytes, size_t size, size_t *got,
                                       uint64_t deadline_ns);

/* The readable bytes that lie in one piece, where they arrived; at least 1. They stay readable until
 * consumed. A hostile peer can change them meanwhile: copy what a decision depends on. */
RF_API rf_err_t rf_channel_stream_peek(rf_channel_stream_t *stream, const void **bytes, size_t *size,
                                       uint64_t deadline_ns);

/* Gives back the first `size` bytes of what was peeked. */
RF_API void rf_channel_stream_consume(rf_channel_stream_t *stream, size_t size);

/* No more will be written: the peer's read ends after the last byte. The other direction goes on. */
RF_API rf_err_t rf_channel_stream_finish(rf_channel_stream_t *stream, uint64_t deadline_ns);

/* Waits until the peer's program has read everything written. */
RF_API rf_err_t rf_channel_stream_drain(rf_channel_stream_t *stream, uint64_t deadline_ns);

/* Ends this side of the stream at once and frees it. Bytes not yet read by the peer may be lost: drain first.
 */
RF_API void rf_channel_stream_close(rf_channel_stream_t *stream);

RF_END_DECLS

#endif
