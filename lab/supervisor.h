/*
 * What the two halves of the supervisor share: it owns the guests (supervisor.c), and talks with commands (session.c). One thread.
 */
#ifndef RF_LAB_SUPERVISOR_H
#define RF_LAB_SUPERVISOR_H

#include "lab/lab.h"
#include "lab/line.h"

#define LAB_BUFFER_MAX ((size_t)16 << 20) /* of bytes that wait for a command, or for a guest */

typedef enum lab_state { LAB_STATE_OFF, LAB_STATE_BOOTING, LAB_STATE_READY, LAB_STATE_FROZEN } lab_state_t;

typedef struct lab_guest {
    lab_state_t state;
    pid_t pid; /* 0: none */
    int log;
    lab_line_t line;
    unsigned boots;
} lab_guest_t;

typedef struct lab_supervisor {
    const lab_options_t *options;
    const lab_place_t *place;
    const char *kernel; /* NULL: guests have none of their own */
    unsigned parts;     /* guests, and the wire where it is one */
    bool stop;
    lab_guest_t guests[LAB_HOSTS_MAX + 1]; /* from 1 */
} lab_supervisor_t;

extern lab_supervisor_t lab;

/* False and errno: it is off. */
bool lab_guest_boot(unsigned g);

/* Its process has ended (then pid is 0: the number may be another's), or is to. */
void lab_guest_off(unsigned g);

#endif
