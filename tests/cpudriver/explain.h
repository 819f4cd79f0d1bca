/* What a CPU driver that does not answer is doing: for the log of a test that failed, where nobody can look any more. */
#ifndef RF_TESTS_CPUDRIVER_EXPLAIN_H
#define RF_TESTS_CPUDRIVER_EXPLAIN_H

#include <sys/types.h>

/*
 * Prints, of `driver` and everything below it: state, where it is in the kernel, which signals it holds, how long it ran and
 * how long it waited for its CPU; of everybody else: who is in real time or cannot be interrupted; and how short of CPU,
 * memory and disk the host is. Needs root for the places in the kernel.
 */
void explain_silence(pid_t driver);

#endif
