/*
 * Stopping a guest, letting it go on, and its end, seen from this host: whether its processes stand still, and whether they have gone.
 * Whoever is told of a stop or an end may count on it, so that neither is told before it is so.
 */
#ifndef RF_LAB_HALT_H
#define RF_LAB_HALT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LAB_HALT_TIMEOUT_MS 10000 /* for all of it; what takes longer is stuck in this host's kernel */

/* Orders the guest's first process (spawn.h) to stop it, or to let it go on. Orders are carried out in the order in which they are
 * given, each by what it says: the last one holds. False and errno: it could not be told. */
bool lab_guest_order(pid_t first, bool stop);

/* Whether all processes below `first` stand still, `levels` deep (1: its children); where not, `why` names one that does not. */
bool lab_guest_stands(pid_t first, unsigned levels, char *why, size_t max);

/* Waits for the end of the caller's children, which have been killed; those that ended become 0. False: some have not at
 * `deadline_ns` (CLOCK_MONOTONIC). */
bool lab_wait_ended(pid_t *pids, size_t n, uint64_t deadline_ns);

/* What this host says of a process: "process 4711 (name), state D"; "process 4711" where it says nothing. */
void lab_process_text(pid_t pid, char *text, size_t max);

#endif
