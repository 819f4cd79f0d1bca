/*
 * Questions and requests of the control API, one function each; all answer through the client, now or later.
 * A question about the whole machine is answered from the replica of any living local monitor; what only a core itself knows
 * (links, resources) is asked of each core, on other nodes through their rackfishds. A core that does not answer within
 * RF_ANSWER_NS, and a node that does not within twice that, is named in the last reply's message and not waited for.
 */
#ifndef RF_NODE_CONTROL_QUERIES_H
#define RF_NODE_CONTROL_QUERIES_H

#include "node/control_server.h"

void rf_query_status(rf_client_t *client, uint64_t id);
void rf_query_cores(rf_client_t *client, uint64_t id);
void rf_query_nodes(rf_client_t *client, uint64_t id);
void rf_query_domains(rf_client_t *client, uint64_t id);
void rf_query_names(rf_client_t *client, uint64_t id);
void rf_query_ping(rf_client_t *client, uint64_t id);

/* gather.c */
void rf_query_links(rf_client_t *client, uint64_t id);
void rf_query_resources(rf_client_t *client, uint64_t id);
void rf_query_holdings(rf_client_t *client, uint64_t id);

/* control_domains.c */
void rf_query_kill(rf_client_t *client, uint64_t id, const Rackfish__KillRequest *request);
void rf_query_wait(rf_client_t *client, uint64_t id, const Rackfish__WaitRequest *request);

/* control_registry.c */
void rf_query_registry(rf_client_t *client, uint64_t id, const Rackfish__RegistryRequest *request);
/* This node goes down: the session of the log, if one is open, ends. Before the monitors are told. */
void rf_registry_once_end(rf_daemon_t *daemon);
/* The client goes: so does what it owns in the registry. */
void rf_registry_client_end(rf_client_t *client);

/* A domain of the replica as the API shows it; `out` points into `domain` and `scratch`. */
typedef struct rf_domain_scratch {
    uint32_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX];
    protobuf_c_boolean alive[RF_DISPATCHERS_PER_DOMAIN_MAX];
} rf_domain_scratch_t;
void rf_domain_show(rf_client_domain_t *domain, rf_domain_scratch_t *scratch, Rackfish__Domain *out);

/* "" or what the machine can lose and go on, in words. */
void rf_survives_in_words(const rf_daemon_t *daemon, const rf_client_status_t *status, char *out, size_t max);

#endif
