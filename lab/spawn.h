/*
 * Starting the kernel of one guest on this host, so that nothing of it can outlive the supervisor.
 *
 * Each guest is a process of its own in namespaces of its own: pid (whoever ends its first process ends all of it, and the
 * kernel ends that one with the supervisor), mount (the host's files are read-only to it, and its memory is a file in a
 * tmpfs that goes with it), and user where the caller is not root.
 */
#ifndef RF_LAB_SPAWN_H
#define RF_LAB_SPAWN_H

#include "base/error.h"
#include "lab/frame.h"

#include <sys/types.h>

typedef struct lab_guest_plan {
    unsigned guest, hosts; /* from 1 */
    unsigned memory_mib;
    unsigned mtu;
    const char *device;           /* "rxe", "siw", "both" or "none" */
    const char *kernel;           /* path of the User-Mode-Linux program */
    const char *lib;              /* folder with guest-init.sh and rf-lab-guest */
    int line;                     /* the guest's end of its serial line */
    int line_far;                 /* ours; closed in the guest */
    int log;                      /* its console */
    int cable[LAB_HOSTS_MAX + 1]; /* its end of the cable to each other guest; -1 for none */
} lab_guest_plan_t;

/* The pid of the guest's first process, a child of the caller; it exits when the guest is off. -1 and errno else. */
pid_t lab_guest_start(const lab_guest_plan_t *plan);

/* Whether such namespaces can be had here; when not, `why` says what is missing and how to mend it. */
bool lab_guest_possible(char *why, size_t max);

/* SIGUSR1 to the first process stops the guest's kernel, SIGUSR2 lets it go on. */
#define LAB_SIGNAL_FREEZE SIGUSR1
#define LAB_SIGNAL_THAW   SIGUSR2

#endif
