/*
 * Between the CPU driver and rf-init, the first process of every dispatcher.
 *
 *   rf-cpudriver --clone3--> (in the new namespaces) --exec--> rf-init --fork--> the program
 *
 * rf-init gets: argv as below; the program's streams on 0, 1, 2; its kernel link on RF_DISPATCHER_FD; and the three
 * descriptors below. It tells what happens on RF_INIT_REPORT_FD, a SOCK_SEQPACKET socket whose other end the CPU driver
 * holds with SO_PASSCRED, so that the sender's pid arrives as the host sees it. When that end closes, rf-init ends
 * everything below it.
 *
 *   reports, in order:   CHILD (sent by the program's process) -> STARTED | FAILED -> ENDED
 */
#ifndef RF_CPUDRIVER_INIT_H
#define RF_CPUDRIVER_INIT_H

#include <stdint.h>

#define RF_INIT_REPORT_FD     202
#define RF_INIT_BLOCK_FD      203 /* the spawn block, sealed against everything */
#define RF_INIT_EXECUTABLE_FD 204 /* with RF_SPAWN_EXECUTABLE */
#define RF_INIT_FDS_END       205

/* argv of rf-init. */
enum {
    RF_INIT_ARG_NAME = 1, /* for people who look at `ps`: "core 2, domain 17.0" */
    RF_INIT_ARG_LIFE,     /* machine, core and incarnation, by which who fences the core finds it */
    RF_INIT_ARG_LEVEL,    /* rf_isolation_level_t */
    RF_INIT_ARG_UID,      /* whom the program runs as */
    RF_INIT_ARG_GID,
    RF_INIT_ARG_MODULES, /* value of RACKFISH_MODULE_PATH */
    RF_INIT_ARG_NOFILE,  /* soft limit on open files, unless the block has limits */
    RF_INIT_ARGS,
};

enum { RF_INIT_CHILD = 1, RF_INIT_STARTED, RF_INIT_FAILED, RF_INIT_ENDED };

typedef struct rf_init_report {
    uint32_t kind;
    uint32_t err;                             /* FAILED: rf_err_t */
    uint32_t os_errno;                        /* FAILED */
    int32_t wait_status;                      /* ENDED */
    uint64_t user_us, system_us, max_rss_kib; /* ENDED */
    char what[120];                           /* FAILED: on what, "chdir /nowhere" */
} rf_init_report_t;

#endif
