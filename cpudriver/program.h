/*
 * The last steps of a program's own process, between rf-init's fork and the program's first instruction: become the
 * user, give up every privilege, take limits, directory and terminal, and exec. Never returns: what goes wrong is
 * written to `failure`, a close-on-exec pipe that reads as its end when the exec succeeded.
 */
#ifndef RF_CPUDRIVER_PROGRAM_H
#define RF_CPUDRIVER_PROGRAM_H

#include "cpudriver/init.h"
#include "wire/spawn.h"

typedef struct rf_program {
    const rf_spawn_t *spawn;
    unsigned uid, gid;
    uint64_t nofile_soft;
    const char **env; /* spawn's, with the machine's own added */
    int executable;   /* descriptor, -1: by path */
    int failure;
} rf_program_t;

_Noreturn void rf_program_exec(const rf_program_t *program);

/* Gives up every capability but those of `keep` (a mask by capability number), for good. 0, or errno. */
int rf_privileges_drop(uint64_t keep);

/* The interpreter that running `head`, the first `size` bytes of a file, would need: from a "#!" line, or from an ELF
 * file's PT_INTERP. False when it needs none or is something else. Hostile bytes. */
bool rf_program_interpreter(const void *head, size_t size, char *out, size_t max);

#endif
