/*
 * Life of a dispatcher: from rf_init() to rf_finish(). Source: lib/life.c.
 *
 * A program becomes part of a machine by being started in one: `rackfish run -- prog`, rf_spawn() or
 * rf_span(). It finds the way to its CPU driver in its environment (RACKFISH_DISPATCHER_FD).
 */
#ifndef RACKFISH_LIFE_H
#define RACKFISH_LIFE_H

#include "rackfish/api.h"
#include "rackfish/error.h"
#include "rackfish/types.h"

RF_BEGIN_DECLS

/* Who and where this dispatcher is. Strings and span_args live until rf_finish(). */
typedef struct rf_self {
    rf_machine_id_t machine;
    const char *machine_name;
    const char *node_name;
    const char *host_address; /* numeric address by which other nodes reach this host */
    rf_domain_t domain;
    uint16_t index;            /* which dispatcher of the domain: 0 is where it was spawned */
    rf_core_t core;            /* machine-wide number of the core this dispatcher runs on */
    rf_node_t node;            /* that core's node */
    rf_core_t cores;           /* cores of the machine, up or not */
    rf_node_t nodes;           /* nodes of the machine */
    rf_core_t node_first_core; /* this node's cores are [node_first_core, node_first_core + node_cores) */
    rf_core_t node_cores;
    uint16_t cpu;          /* host CPU of this core */
    bool cpu_shared;       /* emulated: other cores of the machine run on the same CPU, so nothing polls */
    bool encrypted;        /* channels to other hosts are encrypted */
    const void *span_args; /* what rf_span() was given; NULL for index 0 */
    size_t span_args_size;
} rf_self_t;

/*
 * Connects this process to its CPU driver and to the monitor of its core. Once a process, before everything
 * else; the calling host thread owns the library from then on. Takes about a millisecond.
 *
 * RF_ERR_NO_MACHINE: the program was not started inside a machine. RF_ERR_VERSION: the machine is of another
 * major version. RF_ERR_EXISTS: already initialised. RF_ERR_TIMEOUT, RF_ERR_PEER_DEAD, RF_ERR_OS,
 * RF_ERR_NO_MEMORY.
 */
RF_API rf_err_t rf_init(uint64_t deadline_ns);

/* This dispatcher. NULL before rf_init() and after rf_finish(). Any thread, while the library is initialised.
 */
RF_API const rf_self_t *rf_self(void);

/* Closes all channels in order (peers first get everything that was flushed), withdraws all names, frees
 * everything, also threads that have not returned. Only from the thread that called rf_init(), not from a
 * user-level thread. Does nothing if the library is not initialised. Leaving the process without it looks to
 * peers like a death. */
RF_API void rf_finish(void);

/* One line on why the last call that failed did so, naming cause and mend; "" when there is nothing to add to
 * rf_err_text(). Static storage, until the next call that fails. */
RF_API const char *rf_reason(void);

/* Version of the library at run time, "0.1.0". Static storage. Any thread. */
RF_API const char *rf_version(void);

RF_END_DECLS

#endif
