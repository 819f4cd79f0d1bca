/*
 * The table of invocations: what a dispatcher may ask of its CPU driver.
 *
 * Each is two functions (seL4's decode and invoke). Decode looks at the arguments, checks the caller's right,
 * reserves everything the host must give (slot, process, descriptors, group), and may fail, changing nothing.
 * Invoke commits, and cannot fail. The capability system comes behind this table: its decode looks rights up in the
 * caller's capability space instead of in the `monitor_only` column.
 */
#ifndef RF_CPUDRIVER_INVOCATION_H
#define RF_CPUDRIVER_INVOCATION_H

#include "cpudriver/core.h"
#include "cpudriver/dispatcher.h"

/* What decode worked out for invoke. */
typedef struct rf_decoded {
    uint32_t tag;
    rf_dispatcher_t *target;
    union {
        rf_kernel_timer_t timer;
        struct {
            rf_kernel_watch_t watch;
            int fd;
        } watch;
        rf_kernel_signals_t signals;
        rf_kernel_share_t share;
        rf_kernel_signal_t signal;
        rf_kernel_target_t from;
        rf_kernel_fence_t fence;
        rf_kernel_freeze_all_t freeze_all;
        int client_sockets[2]; /* IDENTIFY: dispatcher's end, monitor's end; -1: none */
    };
} rf_decoded_t;

typedef struct rf_answer {
    rf_err_t err;
    bool deferred; /* comes later, from rf_dispatchers_settle() */
    uint16_t size;
    union {
        rf_kernel_identity_t identity;
        rf_kernel_stat_t stat;
        rf_kernel_stats_t stats;
        rf_kernel_created_t created;
    };
} rf_answer_t;

typedef struct rf_invocation {
    uint16_t op;
    const char *name;
    bool monitor_only;
    uint16_t argument_size;
    rf_err_t (*decode)(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                       rf_decoded_t *out, rf_answer_t *why);
    void (*invoke)(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                   rf_answer_t *answer);
} rf_invocation_t;

/* Handles one message: decodes, invokes, answers. Hostile bytes. RF_ERR_PROTOCOL: not an invocation at all, the
 * caller ends the link; everything else is answered, and RF_OK. */
rf_err_t rf_invocation_handle(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *bytes,
                              size_t size);

#endif
