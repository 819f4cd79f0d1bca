/* Events of the machine: one subscription to one living local monitor, passed on to all clients who asked. */
#ifndef RF_NODE_CONTROL_EVENTS_H
#define RF_NODE_CONTROL_EVENTS_H

#include "node/control_server.h"

void rf_query_events(rf_client_t *client, uint64_t id);

/* A monitor reported one. */
void rf_events_publish(rf_daemon_t *daemon, const rf_client_machine_event_t *event);

/* Subscribes to another monitor if the present one is out of reach. */
void rf_events_resubscribe(rf_daemon_t *daemon);

#endif
