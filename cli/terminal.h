/*
 * Our own terminal in raw mode for `run -t`, put back on every way out: normal return, exit(), death by a signal that can
 * be caught. One terminal a process.
 */
#ifndef RF_CLI_TERMINAL_H
#define RF_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

/* Puts the terminal on stdin into raw mode; false when stdin is none or we are not in its foreground. */
bool terminal_raw(void);

/* Puts back what terminal_raw changed. Async-signal-safe; does nothing the second time. */
void terminal_restore(void);

/* Size of the terminal on stdin, stdout or stderr; false and 24 x 80 when there is none. */
bool terminal_size(uint32_t *rows, uint32_t *columns);

/* True when stdin may be read without being stopped: no terminal, or we are in its foreground. */
bool terminal_may_read(void);

#endif
