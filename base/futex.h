/* The futex system call, on words shared between processes. */
#ifndef RF_BASE_FUTEX_H
#define RF_BASE_FUTEX_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdint.h>

/* Blocks while *word == expected, until woken or `deadline_ns` (CLOCK_MONOTONIC, RF_NEVER for none).
 * RF_OK: woken, or the word differs, or interrupted; look again. RF_ERR_TIMEOUT: the deadline passed. */
rf_err_t rf_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline_ns);

/* Wakes one waiter. One system call. */
void rf_futex_wake(_Atomic(uint32_t) *word);

/* Wakes all waiters: for words in memory that others hold too, where a stranger may be waiting as well. */
void rf_futex_wake_all(_Atomic(uint32_t) *word);

#endif
