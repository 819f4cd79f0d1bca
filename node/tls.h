/*
 * TLS 1.3 with the cluster's key between nodes: a pre-shared key under the identity "rackfish", with (EC)DHE for forward
 * secrecy, mutual by construction. A thin layer over GnuTLS on a non-blocking socket; one thread.
 *
 * Also the two derivations that use the cluster's key: the key of the machine's TCP links, and the token that lets a
 * domain started with --control use the control socket.
 */
#ifndef RF_NODE_TLS_H
#define RF_NODE_TLS_H

#include "base/error.h"
#include "base/types.h"

#define RF_TLS_IDENTITY "rackfish"

typedef struct rf_tls rf_tls_t;

/* Server side when `server`, else client. `fd` stays the caller's. */
rf_err_t rf_tls_open(bool server, int fd, const uint8_t *key, size_t key_size, rf_tls_t **out);
void rf_tls_close(rf_tls_t *tls);

/* RF_OK: both sides hold the key. RF_ERR_AGAIN: *wants_write says which way the socket must become ready.
 * RF_ERR_AUTH, RF_ERR_PROTOCOL, RF_ERR_CLOSED with one line in `why`. */
rf_err_t rf_tls_handshake(rf_tls_t *tls, bool *wants_write, char *why, size_t why_max);

/* Like read and write: *done > 0 with RF_OK; RF_ERR_AGAIN; RF_ERR_CLOSED; RF_ERR_PROTOCOL. */
rf_err_t rf_tls_read(rf_tls_t *tls, void *bytes, size_t size, size_t *done);
rf_err_t rf_tls_write(rf_tls_t *tls, const void *bytes, size_t size, size_t *done);

/* Bytes already decrypted, which the socket will not announce. */
bool rf_tls_pending(const rf_tls_t *tls);

/* HKDF-SHA256 of the cluster's key, salted with the machine's id; `purpose` keeps derivations apart. */
rf_err_t rf_key_derive(const uint8_t *key, size_t key_size, const rf_machine_id_t *machine,
                       const char *purpose, uint8_t out[32]);

/* The token of `user`'s domains that may use the control socket: 64 hexadecimal digits and a zero. */
rf_err_t rf_control_token(const uint8_t *key, size_t key_size, const rf_machine_id_t *machine,
                          const char *user, char out[65]);

#endif
