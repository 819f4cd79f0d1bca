/*
 * A CPU driver without processes, for tests of its parts: a monitor and two dispatchers whose kernel links swallow what
 * is sent and remember the last answer.
 */
#ifndef RF_TESTS_CPUDRIVER_FAKE_DRIVER_H
#define RF_TESTS_CPUDRIVER_FAKE_DRIVER_H

#include "cpudriver/core.h"

#define FAKE_OWN   1 /* domain of dispatchers[0] */
#define FAKE_OTHER 2 /* domain of dispatchers[1] */

extern rf_cpudriver_t fake_driver;
extern unsigned fake_room; /* slots that links take; 0: full */

typedef struct fake_answer {
    unsigned n; /* messages since the last fake_reset() */
    uint8_t type;
    rf_wire_header_t header;
    uint8_t body[4096];
} fake_answer_t;
extern fake_answer_t fake_answer;

/* As good as new; call before each use. */
void fake_reset(void);

/* Puts descriptors where an invocation looks for its own. */
void fake_park(rf_dispatcher_t *dispatcher, uint32_t tag, uint16_t op, const int *fds, unsigned n);

#endif
