/*
 * Byte streams on regions and remote writes.
 *
 *   writer                                             reader
 *     staging ring --- remote write + notify DATA --->   region (ring), available = DATA's count
 *     peer_consumed <--------- CREDIT ----------------   consumed
 *
 * All counts are of bytes since the stream was opened, 64 bits, and never wrap. A slot about a ring carries the ring's
 * tag, made from its key, so that what is late from a stream of the same id that was closed is not believed.
 *
 * Invariants: acked <= posted <= written; posted <= peer_consumed + peer_size; written - acked <= ring_size.
 *             consumed <= available <= consumed + ring_size.
 */
#include "transport/stream.h"

#include <stdlib.h>
#include <string.h>

#define RING_SIZE_MIN (64u << 10)
#define RING_SIZE_MAX (64u << 20)
#define PIECE_MAX                                                                                            \
    (256u << 10)          /* bytes of one remote write: bounded, so that slots beside it never wait long */
#define OUTSTANDING_MAX 8 /* remote writes of one stream; meanwhile small pieces gather in the staging ring */

_Static_assert(sizeof(uintptr_t) == 8, "a cookie is RF_STREAM_COOKIE and a pointer");

enum { STREAM_OPEN = 1, STREAM_DATA, STREAM_CREDIT, STREAM_FINISH, STREAM_CLOSE };

#define STREAM_ECHO 1u /* OPEN: the receiver's own OPEN is known, no answer is wanted */

typedef struct stream_slot {
    uint8_t op, id, flags, reserved;
    uint32_t
        tag; /* of the ring this is about: the sender's (OPEN, CREDIT) or the receiver's (DATA, FINISH, CLOSE) */
    uint64_t
        count; /* OPEN: size of the ring; DATA: bytes there; CREDIT: bytes consumed; FINISH: bytes in all */
    rf_region_key_t key; /* OPEN */
} stream_slot_t;
_Static_assert(sizeof(stream_slot_t) == 40, "wire layout");

struct rf_stream {
    rf_link_t *link;
    uint32_t id;
    bool closed; /* waits for its last remote writes */
    bool dead;   /* the peer's ring is gone */
    bool pumping;

    /* Out. */
    uint8_t *staging;
    size_t ring_size; /* of the staging ring and of the own region */
    bool peer_open, peer_closed;
    rf_region_key_t peer_key;
    uint32_t peer_tag;
    uint64_t peer_size, peer_consumed;
    uint64_t written, posted, acked;
    uint32_t first, outstanding;
    uint64_t ends[OUTSTANDING_MAX]; /* where each outstanding remote write ends */
    bool finished;

    /* In. */
    rf_region_t *region;
    uint32_t tag;
    uint64_t available, consumed, credit_said;
    bool end_known;
    uint64_t end;

    /* Slots that are due and did not fit yet. */
    bool say_open, say_echo, say_credit, say_finish;
};

static uint32_t tag_of(const rf_region_key_t *key)
{
    uint32_t hash = 2166136261u; /* FNV-1a: tells rings apart, proves nothing */
    for (unsigned i = 0; i < sizeof key->bytes; i++) hash = (hash ^ key->bytes[i]) * 16777619u;
    return hash;
}

static rf_slot_t slot_make(const rf_stream_t *stream, uint8_t op, uint32_t tag, uint64_t count)
{
    rf_slot_t slot;
    memset(&slot, 0, sizeof slot);
    stream_slot_t said = {.op = op, .id = (uint8_t)stream->id, .tag = tag, .count = count};
    memcpy(slot.payload, &said, sizeof said);
    slot.control = rf_control_make(RF_STREAM_SLOT, sizeof said, false, 0);
    return slot;
}

/* Sends one slot; false when there is no room now. */
static bool say(rf_stream_t *stream, const rf_slot_t *slot)
{
    const rf_transport_t *t = stream->link->transport;
    if (t->room(stream->link, 1) == 0 || t->send(stream->link, slot, 1) == 0) return false;
    t->flush(stream->link);
    return true;
}

static void say_what_is_due(rf_stream_t *stream)
{
    if (stream->say_open) {
        rf_slot_t slot = slot_make(stream, STREAM_OPEN, stream->tag, stream->ring_size);
        stream_slot_t said;
        memcpy(&said, slot.payload, sizeof said);
        said.flags = stream->say_echo ? STREAM_ECHO : 0;
        said.key = stream->region->key;
        memcpy(slot.payload, &said, sizeof said);
        stream->say_open = !say(stream, &slot);
    }
    if (stream->say_credit && !stream->say_open) {
        rf_slot_t slot = slot_make(stream, STREAM_CREDIT, stream->tag, stream->consumed);
        if (say(stream, &slot)) {
            stream->say_credit = false;
            stream->credit_said = stream->consumed;
        }
    }
    if (stream->say_finish && stream->peer_open) {
        rf_slot_t slot = slot_make(stream, STREAM_FINISH, stream->peer_tag, stream->written);
        stream->say_finish = !say(stream, &slot);
    }
}

/* Posts the next piece that lies in one run in both rings. False: nothing to post, or not now. */
static bool post(rf_stream_t *stream)
{
    uint64_t size = stream->written - stream->posted;
    uint64_t credit = stream->peer_consumed + stream->peer_size - stream->posted;
    uint64_t at = stream->posted & (stream->ring_size - 1), to = stream->posted & (stream->peer_size - 1);
    size = size < credit ? size : credit;
    size = size < stream->ring_size - at ? size : stream->ring_size - at;
    size = size < stream->peer_size - to ? size : stream->peer_size - to;
    size = size < PIECE_MAX ? size : PIECE_MAX;
    if (size == 0) return false;
    /* The books first: the write may be complete, and say so, before remote_write() returns. */
    uint64_t before = stream->posted;
    stream->posted += size;
    stream->ends[(stream->first + stream->outstanding++) % OUTSTANDING_MAX] = stream->posted;
    rf_slot_t notify = slot_make(stream, STREAM_DATA, stream->peer_tag, stream->posted);
    uint64_t cookie = RF_STREAM_COOKIE | (uint64_t)(uintptr_t)stream;
    rf_err_t err = stream->link->transport->remote_write(stream->link, &stream->peer_key, to,
                                                         stream->staging + at, size, &notify, cookie);
    if (err == RF_OK) return true;
    stream->posted = before;
    stream->outstanding--;
    stream->dead = err != RF_ERR_AGAIN;
    return false;
}

static void pump(rf_stream_t *stream)
{
    if (stream->pumping || stream->closed || stream->link->state == RF_LINK_STATE_DEAD) return;
    stream->pumping = true;
    say_what_is_due(stream);
    while (stream->peer_open && !stream->dead && stream->outstanding < OUTSTANDING_MAX && post(stream))
        continue;
    stream->pumping = false;
}

rf_err_t rf_stream_open(rf_link_t *link, unsigned id, size_t ring_size, rf_stream_t **out)
{
    if (id >= RF_STREAMS_PER_LINK_MAX || ring_size < RING_SIZE_MIN || ring_size > RING_SIZE_MAX ||
        (ring_size & (ring_size - 1)))
        return RF_ERR_INVALID;
    rf_stream_t *stream = calloc(1, sizeof *stream);
    if (!stream) return RF_ERR_NO_MEMORY;
    rf_err_t err = RF_ERR_NO_MEMORY;
    stream->staging = malloc(ring_size);
    if (!stream->staging) goto free_stream;
    err = link->transport->region_create(link, ring_size, &stream->region);
    if (err != RF_OK) goto free_staging;
    stream->link = link;
    stream->id = id;
    stream->ring_size = ring_size;
    stream->tag = tag_of(&stream->region->key);
    stream->say_open = true;
    pump(stream);
    *out = stream;
    return RF_OK;

free_staging:
    free(stream->staging);
free_stream:
    free(stream);
    return err;
}

size_t rf_stream_room(const rf_stream_t *stream)
{
    if (!stream->peer_open || stream->peer_closed || stream->dead || stream->finished ||
        stream->link->state == RF_LINK_STATE_DEAD)
        return 0;
    return stream->ring_size - (size_t)(stream->written - stream->acked);
}

size_t rf_stream_write(rf_stream_t *stream, const void *bytes, size_t size)
{
    pump(stream);
    size_t room = rf_stream_room(stream);
    if (size > room) size = room;
    if (size == 0) return 0;
    size_t at = (size_t)stream->written & (stream->ring_size - 1);
    size_t piece = size < stream->ring_size - at ? size : stream->ring_size - at;
    memcpy(stream->staging + at, bytes, piece);
    memcpy(stream->staging, (const uint8_t *)bytes + piece, size - piece);
    stream->written += size;
    pump(stream);
    return size;
}

bool rf_stream_drained(const rf_stream_t *stream)
{
    return stream->peer_consumed == stream->written;
}

rf_err_t rf_stream_finish(rf_stream_t *stream)
{
    if (!stream->finished) {
        stream->finished = true;
        stream->say_finish = true;
    }
    pump(stream);
    return stream->say_finish ? RF_ERR_AGAIN : RF_OK;
}

size_t rf_stream_peek(rf_stream_t *stream, const void **bytes)
{
    pump(stream);
    size_t at = (size_t)stream->consumed & (stream->ring_size - 1);
    uint64_t size = stream->available - stream->consumed;
    if (size > stream->ring_size - at) size = stream->ring_size - at;
    *bytes = (const uint8_t *)stream->region->base + at;
    return (size_t)size;
}

void rf_stream_consume(rf_stream_t *stream, size_t size)
{
    uint64_t there = stream->available - stream->consumed;
    stream->consumed += size < there ? size : there;
    /* A quarter of the ring is worth a slot; and the last byte, so that the writer knows it is read. */
    uint64_t unsaid = stream->consumed - stream->credit_said;
    if (unsaid >= stream->ring_size / 4 || (unsaid > 0 && stream->consumed == stream->available))
        stream->say_credit = true;
    pump(stream);
}

rf_err_t rf_stream_read(rf_stream_t *stream, void *out, size_t size, size_t *got)
{
    size_t copied = 0;
    while (copied < size) {
        const void *bytes;
        size_t n = rf_stream_peek(stream, &bytes);
        if (n == 0) break;
        if (n > size - copied) n = size - copied;
        memcpy((uint8_t *)out + copied, bytes, n);
        rf_stream_consume(stream, n);
        copied += n;
    }
    if (copied > 0 || stream->available > stream->consumed) {
        *got = copied;
        return RF_OK;
    }
    pump(stream);
    if ((stream->end_known && stream->consumed == stream->end) || stream->peer_closed) return RF_ERR_CLOSED;
    return stream->link->state == RF_LINK_STATE_DEAD ? RF_ERR_PEER_DEAD : RF_ERR_AGAIN;
}

/* ---- what the peer says ---- */

static rf_err_t heard_open(rf_stream_t *stream, const stream_slot_t *said)
{
    if (said->count < RING_SIZE_MIN || said->count > RING_SIZE_MAX || (said->count & (said->count - 1)) ||
        said->tag != tag_of(&said->key))
        return RF_ERR_PROTOCOL;
    if (stream
            ->peer_open) /* the answer to our own, or of the peer's next stream of this id: not for this one */
        return RF_OK;
    stream->peer_open = true;
    stream->peer_key = said->key;
    stream->peer_tag = said->tag;
    stream->peer_size = said->count;
    if (!(said->flags & STREAM_ECHO)) { /* ours may have come before the peer opened */
        stream->say_open = true;
        stream->say_echo = true;
    }
    return RF_OK;
}

static rf_err_t heard_data(rf_stream_t *stream, const stream_slot_t *said)
{
    if (said->tag != stream->tag) return RF_OK;
    if (said->count < stream->available || said->count - stream->consumed > stream->ring_size ||
        (stream->end_known && said->count > stream->end))
        return RF_ERR_PROTOCOL;
    stream->available = said->count;
    return RF_OK;
}

static rf_err_t heard_credit(rf_stream_t *stream, const stream_slot_t *said)
{
    if (!stream->peer_open || said->tag != stream->peer_tag) return RF_OK;
    if (said->count < stream->peer_consumed || said->count > stream->posted) return RF_ERR_PROTOCOL;
    stream->peer_consumed = said->count;
    return RF_OK;
}

static rf_err_t heard_finish(rf_stream_t *stream, const stream_slot_t *said)
{
    if (said->tag != stream->tag) return RF_OK;
    if (said->count < stream->available || (stream->end_known && said->count != stream->end))
        return RF_ERR_PROTOCOL;
    stream->end_known = true;
    stream->end = said->count;
    return RF_OK;
}

rf_err_t rf_stream_slot(rf_link_t *link, rf_stream_t *const *streams, unsigned n, const rf_slot_t *slot)
{
    stream_slot_t said;
    if (rf_control_length(slot->control) != sizeof said || rf_control_more(slot->control))
        return RF_ERR_PROTOCOL;
    memcpy(&said, slot->payload, sizeof said);
    if (said.id >= RF_STREAMS_PER_LINK_MAX || said.reserved != 0 || (said.flags & ~STREAM_ECHO) ||
        said.op < STREAM_OPEN || said.op > STREAM_CLOSE)
        return RF_ERR_PROTOCOL;
    rf_stream_t *stream = NULL;
    for (unsigned i = 0; i < n && !stream; i++) {
        if (streams[i] && streams[i]->link == link && streams[i]->id == said.id) stream = streams[i];
    }
    if (!stream) return RF_OK; /* not open yet, or no more: an OPEN is answered when it is */
    rf_err_t err = RF_OK;
    switch (said.op) {
    case STREAM_OPEN:
        err = heard_open(stream, &said);
        break;
    case STREAM_DATA:
        err = heard_data(stream, &said);
        break;
    case STREAM_CREDIT:
        err = heard_credit(stream, &said);
        break;
    case STREAM_FINISH:
        err = heard_finish(stream, &said);
        break;
    default: /* STREAM_CLOSE */
        if (said.tag == stream->tag) stream->peer_closed = true;
        break;
    }
    if (err == RF_OK) pump(stream);
    return err;
}

static void stream_free(rf_stream_t *stream)
{
    free(stream->staging);
    free(stream);
}

rf_err_t rf_stream_written(rf_stream_t *const *streams, unsigned n, uint64_t cookie, rf_err_t err)
{
    (void)streams,
        (void)n; /* the stream may be closed, and in no table any more: the cookie is what finds it */
    if (!(cookie & RF_STREAM_COOKIE)) return RF_ERR_INVALID;
    rf_stream_t *stream = (rf_stream_t *)(uintptr_t)(cookie & ~RF_STREAM_COOKIE);
    stream->acked = stream->ends[stream->first];
    stream->first = (stream->first + 1) % OUTSTANDING_MAX;
    stream->outstanding--;
    if (err != RF_OK) stream->dead = true;
    if (!stream->closed)
        pump(stream);
    else if (stream->outstanding == 0)
        stream_free(stream);
    return RF_OK;
}

void rf_stream_close(rf_stream_t *stream)
{
    bool dead = stream->link->state == RF_LINK_STATE_DEAD;
    if (!dead && stream->peer_open && !stream->peer_closed) {
        rf_slot_t slot = slot_make(stream, STREAM_CLOSE, stream->peer_tag, 0);
        say(stream, &slot); /* if there is no room the peer learns it with the link's end */
    }
    stream->link->transport->region_destroy(stream->link, stream->region);
    stream->closed = true;
    if (dead || stream->outstanding == 0) stream_free(stream);
}
