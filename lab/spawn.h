/*
 * Starting the kernel of one guest on this host, so that nothing of it can outlive the supervisor; or, where a guest is to have no kernel
 * of its own, what is process 1 of it in namespaces of this host's kernel.
 *
 * Each guest is a process of its own in namespaces of its own: pid (whoever ends its first process ends all of it, and the
 * kernel ends that one with the supervisor), mount (the host's files are read-only to it, and its memory is a file in a
 * tmpfs that goes with it), and user where the caller is not root. One without a kernel also has network, UTS and IPC, takes root,
 * and its network goes with it.
 */
#ifndef RF_LAB_SPAWN_H
#define RF_LAB_SPAWN_H

#include "base/error.h"
#include "lab/frame.h"

#include <sys/types.h>

typedef struct lab_guest_plan {
    unsigned guest, hosts; /* from 1; without a kernel, 0 is the wire between them */
    unsigned memory_mib;
    unsigned mtu;
    const char *device; /* "rxe", "siw", "both" or "none" */
    const char
        *kernel;     /* path of the User-Mode-Linux program, or of a folder of Debian's kernel; NULL: none */
    const char *lib; /* folder with guest-init.sh and rf-lab-guest */
    int line;        /* the guest's end of its serial line */
    int line_far;    /* ours; closed in the guest */
    int log;         /* its console */
    int cable[LAB_HOSTS_MAX + 1]; /* its end of the cable to each other guest; -1 for none */
} lab_guest_plan_t;

/* The pid of the guest's first process, a child of the caller; it exits when the guest is off. -1 and errno else. */
pid_t lab_guest_start(const lab_guest_plan_t *plan);

/* Whether such namespaces can be had here; when not, `why` says what is missing and how to mend it. */
bool lab_guest_possible(char *why, size_t max);

/* The same for guests without a kernel of their own: root, namespaces, bridges, a packet filter and overlays. */
bool lab_hosts_possible(char *why, size_t max);

/* To the first process, with a value (sigqueue): 1 stops the guest's kernel, or all its processes where it has none of its own, 0 lets
 * them go on. Of the real-time signals, which come in the order in which they were sent (signal(7)). */
#define LAB_SIGNAL_ORDER SIGRTMIN

#endif
