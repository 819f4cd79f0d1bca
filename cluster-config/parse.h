/*
 * The steps from text to rf_config_t. Private to cluster-config, its tests and its fuzzer.
 *
 *   text --reader.c--> message --validate.c--> rf_config_t --resolve.c--> rf_config_t of this host
 *
 * Everything up to and with validation depends on the text alone; what depends on this host (key file, users,
 * CPUs) is resolution.
 */
#ifndef RF_CLUSTER_CONFIG_PARSE_H
#define RF_CLUSTER_CONFIG_PARSE_H

#include "cluster-config/config.h"
#include "cluster-config/reader.h"

/* Reads and validates a text; `name` is how errors call it. Looks at nothing but the text. On success *out is
 * to be freed with free() and, if `reader_out` is not NULL, *reader_out (the lines of all values) and
 * *message_out too, with rf_config_source_free(). */
typedef struct rf_config_source {
    rf_reader_t *reader;
    ProtobufCMessage *message;
} rf_config_source_t;
rf_err_t rf_config_parse(const char *name, const char *text, size_t size, rf_config_t **out,
                         rf_config_source_t *source_out, char *error);
void rf_config_source_free(rf_config_source_t *source);

/* validate.c: fills a zeroed *config from a Machine message. */
rf_err_t rf_config_validate(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_t *config);

/* validate.c: "64G", "512M", "16GiB", "none" (0 bytes); false when it is none of these. */
bool rf_config_memory_decode(const char *text, uint64_t *bytes);

/* validate_dpdk.c: fills in the ports of a zeroed *out from a Dpdk message, all but the addresses, which are one a host: those of the
 * nodes from `first` to the last one in *config. */
rf_err_t rf_config_dpdk_validate(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_node_t *out);
rf_err_t rf_config_dpdk_addresses(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_t *config,
                                  unsigned first);

/* validate.c: counts first_core of every node and n_cores again. RF_ERR_LIMIT above RF_CORES_MAX. */
rf_err_t rf_config_number_cores(rf_config_t *config);

/* resolve.c: key file, users, and the CPUs of the nodes that are this host. */
rf_err_t rf_config_resolve(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_t *config);

#endif
