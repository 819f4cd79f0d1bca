/*
 * The frames in which rf-lab, its commands and the guests talk: over a Unix stream socket between a command and the
 * supervisor, over a serial line between the supervisor and each guest. Both carry bytes in order and lose none.
 *
 *   0        4      6         8
 *   +--------+------+---------+----------------
 *   | length | type | session | payload, `length` bytes
 *   +--------+------+---------+----------------
 *
 * A session is one program that runs in one guest, or one question to the supervisor. Its output is under credit: a guest
 * sends at most LAB_WINDOW bytes that the command has not yet written out, so that a command that reads slowly holds up
 * nobody else on the line; its input likewise. Towards a guest the whole line is under credit besides, LAB_LINE_WINDOW
 * bytes: a terminal that is written faster than it is read stops for good (User-Mode Linux 6.1, line_unthrottle). line.h
 * says what is done about a guest that does not answer.
 */
#ifndef RF_LAB_FRAME_H
#define RF_LAB_FRAME_H

#include "base/error.h"
#include "base/types.h"

#include <stddef.h>
#include <stdint.h>

#define LAB_PAYLOAD_MAX  16384
#define LAB_FRAME_MAX    (8 + LAB_PAYLOAD_MAX)
#define LAB_WINDOW       (256 * 1024)
#define LAB_LINE_WINDOW  2048
#define LAB_HOSTS_MAX    10 /* with the wire between them, where that is one, too */
#define LAB_GUESTS_MAX   5  /* of them with a kernel of their own */
#define LAB_SESSIONS_MAX 256
#define LAB_CHUNK        4096 /* of a program's input or output in one frame */

typedef enum lab_type {
    LAB_ASK = 1, /* command -> supervisor: words, each ended by 0; answered by OUTPUT, ERROR and EXIT */
    LAB_RUN, /* command -> guest: lab_run_t, then working directory, arguments and environment, each ended by 0 */
    LAB_INPUT,       /* command -> guest: bytes for the program's stdin */
    LAB_INPUT_END,   /* command -> guest */
    LAB_INPUT_MORE,  /* guest -> command: u32, so many bytes of input have been taken */
    LAB_OUTPUT,      /* guest -> command: bytes of its stdout */
    LAB_ERROR,       /* guest -> command: bytes of its stderr */
    LAB_OUTPUT_MORE, /* command -> guest: u32, so many bytes have been written out */
    LAB_SIGNAL,      /* command -> guest: u32, for the program's process group */
    LAB_SIZE,        /* command -> guest: u16 rows, u16 columns of the terminal */
    LAB_GONE,        /* supervisor -> guest: nobody waits for the session any more, end it */
    LAB_EXIT,        /* guest -> command: u32 exit status, 128 + N for a signal; ends the session */
    LAB_LINE_MORE,   /* guest -> supervisor: u32, so many bytes have been read from the line */
    LAB_READY,       /* guest -> supervisor: u32 LAB_VERSION; network and device are there */
    LAB_NUDGE,       /* supervisor -> guest: nothing, but that it is read (line.h) */
} lab_type_t;

#define LAB_VERSION 2

typedef struct lab_run {
    uint16_t guest; /* from 1; read by the supervisor */
    uint16_t terminal;
    uint16_t rows, columns;
    uint16_t n_arguments, n_environment;
} lab_run_t;

/* Bytes on their way: what was read and is not yet decoded, or is not yet written. Grows as needed up to `max`. */
typedef struct lab_buffer {
    uint8_t *bytes;
    size_t begin, end, room, max;
} lab_buffer_t;

typedef struct lab_frame {
    lab_type_t type;
    uint16_t session;
    uint32_t length;
    const uint8_t *payload; /* in the buffer, until the next lab_read */
} lab_frame_t;

/* Appends a frame; RF_ERR_NO_MEMORY beyond the buffer's max. */
rf_err_t lab_put(lab_buffer_t *out, lab_type_t type, uint16_t session, const void *payload, size_t length);
rf_err_t lab_put_u32(lab_buffer_t *out, lab_type_t type, uint16_t session, uint32_t value);

/* Appends bytes as they are. */
rf_err_t lab_append(lab_buffer_t *out, const void *bytes, size_t length);

/* Writes as much as `fd` takes now (it does not block). RF_OK also when some is left; RF_ERR_CLOSED when it is over. */
rf_err_t lab_flush(lab_buffer_t *out, int fd);

/* The same, at most *room bytes, which is lessened by what was written. */
rf_err_t lab_flush_some(lab_buffer_t *out, int fd, size_t *room);

/* Reads what is there. RF_ERR_AGAIN: nothing; RF_ERR_CLOSED: the end, or an error. */
rf_err_t lab_read(lab_buffer_t *in, int fd);

/* The next whole frame, if there is one: RF_OK, RF_ERR_AGAIN, or RF_ERR_PROTOCOL when these are no frames. */
rf_err_t lab_next(lab_buffer_t *in, lab_frame_t *frame);

/* The payload as a number; 0 when it is none. */
uint32_t lab_u32(const lab_frame_t *frame);

size_t lab_left(const lab_buffer_t *buffer);
void lab_free(lab_buffer_t *buffer);

#endif
