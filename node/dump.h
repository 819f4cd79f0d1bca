/* A bundle for a report: state, logs and configuration of every node, never a key. */
#ifndef RF_NODE_DUMP_H
#define RF_NODE_DUMP_H

#include "node/control_server.h"

void rf_query_dump(rf_client_t *client, uint64_t id);

#endif
