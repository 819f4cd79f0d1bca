/*
 * The lease of a core: until when its dispatchers may run without a further word of its monitor. One word of memory that a CPU driver
 * shares with its monitor, which inherits it as descriptor RF_LEASE_FD.
 *
 *   monitor      writes it whenever it is put off: to what is known of this host's contact with the quorum (monitor/heartbeat.c)
 *   CPU driver   reads it when the time has come that it last read, and freezes the core's dispatchers if it has not been put off
 *
 * So a host whose monitors are stopped, all of them, freezes itself, and costs nothing meanwhile: nobody is woken to put it off.
 */
#ifndef RF_WIRE_LEASE_H
#define RF_WIRE_LEASE_H

#include "wire/wire.h"

#include <stdatomic.h>

#define RF_LEASE_FD 202

typedef struct rf_lease {
    _Atomic(uint64_t) until_ns; /* CLOCK_BOOTTIME; RF_NEVER: it has no end */
} rf_lease_t;

/* A new one, without an end, and a descriptor of it, which is the caller's. RF_ERR_OS, RF_ERR_NO_MEMORY. */
rf_err_t rf_lease_create(int *fd, rf_lease_t **out);
/* The one that was inherited. RF_ERR_PROTOCOL: `fd` is none. */
rf_err_t rf_lease_map(int fd, rf_lease_t **out);

#endif
