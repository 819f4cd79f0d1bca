/*
 * Does a process that listens on a socket of this host still come round to it? A process that is stopped, or hangs, is not dead: its
 * socket takes connections, and nobody looks at them. So one is made that says nothing and is over at once: whoever comes round to
 * it closes it too, and that is the answer.
 *
 * The caller's timer is the clock: what is counted are looks, so that a host that slept, or a caller that was stopped itself, takes
 * nobody for dead.
 */
#ifndef RF_NODE_ANSWERS_H
#define RF_NODE_ANSWERS_H

#include <stdbool.h>

typedef struct rf_answers {
    int fd;          /* the connection that is under way; -1: none */
    bool ever;       /* it has answered since rf_answers_begin() */
    bool full;       /* it could not be asked: as many wait there as may */
    unsigned silent; /* looks in a row without an answer */
} rf_answers_t;

void rf_answers_begin(rf_answers_t *answers);
void rf_answers_end(rf_answers_t *answers);

/* One look, to be called at even distances. Never waits. Returns how many in a row have found no answer; 0: there was one. */
unsigned rf_answers_look(rf_answers_t *answers, const char *socket);

/* Where the last look left it `full`: tries to ask, between two looks. Who may connect may also see to it that many wait; one that is
 * asked often enough gets its turn all the same, so that they do not make silence of a process that works. */
void rf_answers_ask(rf_answers_t *answers, const char *socket);

#endif
