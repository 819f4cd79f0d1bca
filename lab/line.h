/*
 * A guest's line as the supervisor sees it: what may be sent, and whether the guest still takes what was sent.
 *
 * For each byte that it has read a guest says so (LAB_LINE_MORE); until then it owes an answer. One that owes may have missed the
 * interrupt of its serial line: User-Mode Linux 6.1 handles interrupts within interrupts, and both work on one list of events
 * (os-Linux/irq.c), and one that comes between its last look and its sleep is found when it wakes for something else
 * (os_idle_sleep). The next byte would wake it, but there is none once the window is used up. So it is nudged: by one byte beyond the
 * window if some wait, else by an empty frame. So is, now and then, one that says nothing while programs run in it: what it
 * says may be what is stuck.
 *
 * Invariant: sent and not read = LAB_LINE_WINDOW + beyond - room, at most LAB_LINE_WINDOW + LAB_LINE_BEYOND. Times are CLOCK_MONOTONIC ns.
 */
#ifndef RF_LAB_LINE_H
#define RF_LAB_LINE_H

#include "lab/frame.h"

#define LAB_LINE_BEYOND                                                                                      \
    1024 /* for nudges; a terminal stops for good when it holds more than 3967 bytes that nobody reads */

typedef struct lab_line {
    int fd;
    size_t room;   /* bytes that may be sent now */
    size_t beyond; /* of them, or of what was sent, more than the window: to be taken back */
    lab_buffer_t in, out;
    uint64_t heard_ns;    /* when it said something last */
    uint64_t owes_ns;     /* since when it owes an answer and has said nothing; 0: it owes none */
    uint64_t nudge_at_ns; /* if it still owes then */
    uint64_t interval_ns; /* between nudges, growing */
    unsigned nudges;      /* since it said something last */
} lab_line_t;

/* Begins with a guest that is starting; `fd` is the line's from now on. */
void lab_line_open(lab_line_t *line, int fd, size_t buffer_max, uint64_t now_ns);
void lab_line_close(lab_line_t *line);

/* Sends what it may of `out`. RF_ERR_CLOSED: the guest has ended. */
rf_err_t lab_line_flush(lab_line_t *line, uint64_t now_ns);

/* As lab_read. */
rf_err_t lab_line_read(lab_line_t *line, uint64_t now_ns);

/* The guest has read `bytes` more. */
void lab_line_taken(lab_line_t *line, size_t bytes, uint64_t now_ns);

/* When lab_line_nudge is due next, RF_NEVER where it is not; `busy`: programs run in the guest. */
uint64_t lab_line_due(const lab_line_t *line, bool busy);

/* Wakes the guest if that is due: the caller flushes. */
void lab_line_nudge(lab_line_t *line, bool busy, uint64_t now_ns);

/* Its silence until now was not its own: it was frozen. */
void lab_line_forgive(lab_line_t *line, uint64_t now_ns);

/* Bytes sent that the guest has not read. */
size_t lab_line_unread(const lab_line_t *line);

/* For how long it has owed an answer and said nothing. */
uint64_t lab_line_silent_ns(const lab_line_t *line, uint64_t now_ns);

#endif
