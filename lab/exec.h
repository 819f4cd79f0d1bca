/* What the program of a guest is, and its command line: User-Mode Linux, QEMU with Debian's kernel, or a shell in namespaces. */
#ifndef RF_LAB_EXEC_H
#define RF_LAB_EXEC_H

#include "lab/spawn.h"

/* Becomes the guest's program, with the plan's line and cables and no other descriptor. Does not return. In a child of one thread. */
_Noreturn void lab_exec(const lab_guest_plan_t *plan);

#endif
