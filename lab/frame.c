#include "lab/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER 8

size_t lab_left(const lab_buffer_t *buffer)
{
    return buffer->end - buffer->begin;
}

void lab_free(lab_buffer_t *buffer)
{
    free(buffer->bytes);
    buffer->bytes = NULL;
    buffer->begin = buffer->end = buffer->room = 0;
}

/* Makes room for `more` bytes behind the end. */
static rf_err_t reserve(lab_buffer_t *buffer, size_t more)
{
    size_t left = lab_left(buffer);
    if (left + more > buffer->max) return RF_ERR_NO_MEMORY;
    if (buffer->end + more <= buffer->room) return RF_OK;
    if (buffer->begin > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->begin, left);
        buffer->begin = 0;
        buffer->end = left;
    }
    if (left + more <= buffer->room) return RF_OK;
    size_t room = buffer->room ? buffer->room : 2 * LAB_FRAME_MAX;
    while (room < left + more) room *= 2;
    uint8_t *bytes = realloc(buffer->bytes, room);
    if (!bytes) return RF_ERR_NO_MEMORY;
    buffer->bytes = bytes;
    buffer->room = room;
    return RF_OK;
}

rf_err_t lab_put(lab_buffer_t *out, lab_type_t type, uint16_t session, const void *payload, size_t length)
{
    if (length > LAB_PAYLOAD_MAX) return RF_ERR_INVALID;
    rf_err_t err = reserve(out, HEADER + length);
    if (err != RF_OK) return err;
    uint32_t size = (uint32_t)length;
    uint16_t kind = (uint16_t)type;
    uint8_t *at = out->bytes + out->end;
    memcpy(at, &size, 4);
    memcpy(at + 4, &kind, 2);
    memcpy(at + 6, &session, 2);
    if (length) memcpy(at + HEADER, payload, length);
    out->end += HEADER + length;
    return RF_OK;
}

rf_err_t lab_put_u32(lab_buffer_t *out, lab_type_t type, uint16_t session, uint32_t value)
{
    return lab_put(out, type, session, &value, sizeof value);
}

rf_err_t lab_append(lab_buffer_t *out, const void *bytes, size_t length)
{
    rf_err_t err = reserve(out, length);
    if (err != RF_OK) return err;
    memcpy(out->bytes + out->end, bytes, length);
    out->end += length;
    return RF_OK;
}

rf_err_t lab_flush_some(lab_buffer_t *out, int fd, size_t *room)
{
    while (out->begin<out->end && * room> 0) {
        size_t size = lab_left(out) < *room ? lab_left(out) : *room;
        ssize_t n = write(fd, out->bytes + out->begin, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return RF_OK;
        if (n <= 0) return RF_ERR_CLOSED;
        out->begin += (size_t)n;
        *room -= (size_t)n;
    }
    if (out->begin == out->end) out->begin = out->end = 0;
    return RF_OK;
}

rf_err_t lab_flush(lab_buffer_t *out, int fd)
{
    size_t room = SIZE_MAX;
    return lab_flush_some(out, fd, &room);
}

rf_err_t lab_read(lab_buffer_t *in, int fd)
{
    rf_err_t err = reserve(in, LAB_FRAME_MAX);
    if (err != RF_OK) return err;
    ssize_t n;
    do {
        n = read(fd, in->bytes + in->end, in->room - in->end);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) return RF_ERR_AGAIN;
    if (n <= 0) return RF_ERR_CLOSED;
    in->end += (size_t)n;
    return RF_OK;
}

rf_err_t lab_next(lab_buffer_t *in, lab_frame_t *frame)
{
    if (lab_left(in) < HEADER) return RF_ERR_AGAIN;
    const uint8_t *at = in->bytes + in->begin;
    uint16_t type;
    memcpy(&frame->length, at, 4);
    memcpy(&type, at + 4, 2);
    memcpy(&frame->session, at + 6, 2);
    if (frame->length > LAB_PAYLOAD_MAX || type < LAB_ASK || type > LAB_NUDGE) return RF_ERR_PROTOCOL;
    if (lab_left(in) < HEADER + frame->length) return RF_ERR_AGAIN;
    frame->type = (lab_type_t)type;
    frame->payload = at + HEADER;
    in->begin += HEADER + frame->length;
    return RF_OK;
}

uint32_t lab_u32(const lab_frame_t *frame)
{
    uint32_t value = 0;
    if (frame->length >= sizeof value) memcpy(&value, frame->payload, sizeof value);
    return value;
}
