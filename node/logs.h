/*
 * The logs in the node's run directory: *.log, written by many processes through descriptors opened for appending. rackfishd
 * keeps them bounded: a file above RF_LOG_BYTES_MAX is copied to NAME.1 and cut to nothing (the writers' descriptors stay
 * good), and of the domains' logs the RF_LOG_DOMAINS_MAX newest are kept. It looks only after something was written.
 */
#ifndef RF_NODE_LOGS_H
#define RF_NODE_LOGS_H

#include "node/control_server.h"

#define RF_LOG_BYTES_MAX   (4u << 20)
#define RF_LOG_DOMAINS_MAX 256
#define RF_LOG_NAME_MAX    64

rf_err_t rf_logs_open(rf_daemon_t *daemon, char *error, size_t error_max);
void rf_logs_close(rf_daemon_t *daemon);

void rf_query_logs(rf_client_t *client, uint64_t id, const Rackfish__LogsRequest *request);

/* Lets the user of a detached domain read its log through rackfishd; others' are for root and the machine's owner. */
void rf_logs_give(rf_daemon_t *daemon, rf_domain_t domain, const char *user);

/* Does a file of the run directory belong to what was asked for? core -1: all. Pure. */
bool rf_log_matches(const char *name, int core);

/* Offset of the last `lines` lines of a file of `size` bytes; 0 lines: from its beginning. */
off_t rf_log_tail_offset(int fd, off_t size, unsigned lines);

/* Copies a log aside and cuts it. */
rf_err_t rf_log_rotate(int folder, const char *name);

#endif
