/*
 * A byte stream in each direction of a link, with a ring and credits of its own, so that it never delays the
 * link's messages. Built on regions and remote writes, so it is the same on every medium that has them: each side
 * makes a ring region, tells the other its key, and the sender writes into it as far as credit goes.
 * The link's owner hands slots of type RF_STREAM_SLOT to rf_stream_slot(), and RF_LINK_WRITTEN events whose cookie
 * has RF_STREAM_COOKIE set to rf_stream_written().
 */
#ifndef RF_TRANSPORT_STREAM_H
#define RF_TRANSPORT_STREAM_H

#include "transport/transport.h"

#define RF_STREAM_SLOT          0xe0         /* slot type used by streams */
#define RF_STREAM_COOKIE        (1ull << 63) /* set in cookies of remote writes made by streams */
#define RF_STREAMS_PER_LINK_MAX 8

typedef struct rf_stream rf_stream_t;

/* Both ends open the same `id` (below RF_STREAMS_PER_LINK_MAX); `ring_size` is a power of two, 64 KiB to 64 MiB. */
rf_err_t rf_stream_open(rf_link_t *link, unsigned id, size_t ring_size, rf_stream_t **out);

/* Takes up to `size` bytes and returns how many; 0 when full, when not open at the other end, or dead. The bytes are copied. */
size_t rf_stream_write(rf_stream_t *stream, const void *bytes, size_t size);

/* How many bytes write() would take now. */
size_t rf_stream_room(const rf_stream_t *stream);

/* Everything written has been read by the peer's program. */
bool rf_stream_drained(const rf_stream_t *stream);

/* No more will be written: the peer's read sees the end after the last byte. RF_ERR_AGAIN: the link has no room to
 * say so now; call it again. */
rf_err_t rf_stream_finish(rf_stream_t *stream);

/* Copies out up to `size` bytes. RF_OK with *got > 0; RF_ERR_AGAIN: none now; RF_ERR_CLOSED: the end; RF_ERR_PEER_DEAD:
 * the link ended before that. */
rf_err_t rf_stream_read(rf_stream_t *stream, void *out, size_t size, size_t *got);

/* Without a copy: the readable bytes that lie in one piece, and giving them back. From an untrusted peer the bytes may
 * change under the reader: copy before deciding anything by them. */
size_t rf_stream_peek(rf_stream_t *stream, const void **bytes);
void rf_stream_consume(rf_stream_t *stream, size_t size);

/* Feeds a slot or a completion. RF_ERR_PROTOCOL for nonsense; the caller ends the link. Completions are fed also for
 * streams that have been closed. */
rf_err_t rf_stream_slot(rf_link_t *link, rf_stream_t *const *streams, unsigned n, const rf_slot_t *slot);
rf_err_t rf_stream_written(rf_stream_t *const *streams, unsigned n, uint64_t cookie, rf_err_t err);

/* Ends this side and frees it; before its link is closed, by close(). Not from within rf_stream_written(). Bytes that the peer has
 * not read may be lost: see rf_stream_drained(). */
void rf_stream_close(rf_stream_t *stream);

#endif
