/*
 * The end of a medium's table.c: where it is built as a loadable module (RF_TRANSPORT_MODULE), what the registry looks for,
 * under a name that all modules have in common; the one symbol that a module exports. A module has a log of its own: it
 * speaks in the program's name.
 */
#ifndef RF_TRANSPORT_MODULE_H
#define RF_TRANSPORT_MODULE_H

#include "transport/transport.h"

#ifdef RF_TRANSPORT_MODULE
#include "base/log.h"

#include <errno.h>

#define RF_TRANSPORT_EXPORT(table)                                                                           \
    extern const rf_transport_t rf_transport_module __attribute__((alias(#table), visibility("default")));   \
    __attribute__((constructor)) static void log_as_the_program(void)                                        \
    {                                                                                                        \
        rf_log_init(program_invocation_short_name, RF_LOG_INFO);                                             \
    }
#else
#define RF_TRANSPORT_EXPORT(table)
#endif

#endif
