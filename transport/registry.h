/*
 * Finds a medium by name. Media linked into the program are registered by its composition; others are loadable
 * modules, "rackfish-<name>.so", whose only exported symbol is `rf_transport_module`, a const struct rf_transport.
 * Searched in the folder named by RACKFISH_MODULE_PATH (ignored when the program has more rights than its caller),
 * then relative to the program (../lib/rackfish, ../../lib/rackfish, ../modules), then in the installed folder.
 */
#ifndef RF_TRANSPORT_REGISTRY_H
#define RF_TRANSPORT_REGISTRY_H

#include "transport/transport.h"

/* Makes a linked-in medium known. At start, one thread. At most RF_TRANSPORTS_MAX. */
#define RF_TRANSPORTS_MAX 16
rf_err_t rf_transport_register(const rf_transport_t *transport);

/* RF_ERR_NOT_FOUND: neither registered nor loadable; `why` (may be NULL) then says what to install or where was
 * looked. RF_ERR_VERSION: a module of another ABI. */
rf_err_t rf_transport_find(const char *name, const rf_transport_t **out, char *why, size_t why_max);

#endif
