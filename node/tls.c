#include "node/tls.h"

#include "base/log.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Only TLS 1.3, only pre-shared keys with an ephemeral exchange. */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK"

struct rf_tls {
    gnutls_session_t session;
    gnutls_psk_client_credentials_t client;
    gnutls_psk_server_credentials_t server;
    uint8_t key[64];
    size_t key_size;
    bool send_again; /* GnuTLS holds an encrypted record that the socket did not take */
};

static int server_key(gnutls_session_t session, const char *identity, gnutls_datum_t *key)
{
    rf_tls_t *tls = gnutls_session_get_ptr(session);
    if (strcmp(identity, RF_TLS_IDENTITY) != 0) return -1;
    key->data = gnutls_malloc(tls->key_size);
    if (!key->data) return -1;
    memcpy(key->data, tls->key, tls->key_size);
    key->size = (unsigned)tls->key_size;
    return 0;
}

rf_err_t rf_tls_open(bool server, int fd, const uint8_t *key, size_t key_size, rf_tls_t **out)
{
    rf_tls_t *tls = calloc(1, sizeof *tls);
    if (!tls) return RF_ERR_NO_MEMORY;
    if (key_size > sizeof tls->key) {
        free(tls);
        return RF_ERR_INVALID;
    }
    memcpy(tls->key, key, key_size);
    tls->key_size = key_size;
    int e = gnutls_init(&tls->session, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK |
                                           GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
    if (e < 0) goto free_tls;
    gnutls_session_set_ptr(tls->session, tls);
    if ((e = gnutls_priority_set_direct(tls->session, PRIORITIES, NULL)) < 0) goto free_tls;
    if (server) {
        if ((e = gnutls_psk_allocate_server_credentials(&tls->server)) < 0) goto free_tls;
        gnutls_psk_set_server_credentials_function(tls->server, server_key);
        e = gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, tls->server);
    } else {
        if ((e = gnutls_psk_allocate_client_credentials(&tls->client)) < 0) goto free_tls;
        gnutls_datum_t datum = {.data = tls->key, .size = (unsigned)key_size};
        if ((e = gnutls_psk_set_client_credentials(tls->client, RF_TLS_IDENTITY, &datum,
                                                   GNUTLS_PSK_KEY_RAW)) < 0)
            goto free_tls;
        e = gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, tls->client);
    }
    if (e < 0) goto free_tls;
    gnutls_handshake_set_timeout(tls->session, GNUTLS_INDEFINITE_TIMEOUT); /* the caller keeps the deadline */
    gnutls_transport_set_int(tls->session, fd);
    *out = tls;
    return RF_OK;

free_tls:
    rf_log(RF_LOG_ERROR, "TLS could not be set up: %s", gnutls_strerror(e));
    rf_tls_close(tls);
    return RF_ERR_NOT_SUPPORTED;
}

void rf_tls_close(rf_tls_t *tls)
{
    if (!tls) return;
    if (tls->session) gnutls_deinit(tls->session);
    if (tls->server) gnutls_psk_free_server_credentials(tls->server);
    if (tls->client) gnutls_psk_free_client_credentials(tls->client);
    gnutls_memset(tls->key, 0, sizeof tls->key);
    free(tls);
}

/* Another key shows as a binder that does not verify (server) or as an alert about it (client). */
static bool means_other_key(const rf_tls_t *tls, int e)
{
    if (e == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        gnutls_alert_description_t alert = gnutls_alert_get(tls->session);
        return alert == GNUTLS_A_DECRYPT_ERROR || alert == GNUTLS_A_BAD_RECORD_MAC ||
               alert == GNUTLS_A_UNKNOWN_PSK_IDENTITY || alert == GNUTLS_A_ILLEGAL_PARAMETER ||
               alert == GNUTLS_A_HANDSHAKE_FAILURE;
    }
    return e == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER || e == GNUTLS_E_DECRYPTION_FAILED ||
           e == GNUTLS_E_INSUFFICIENT_CREDENTIALS || e == GNUTLS_E_NO_CIPHER_SUITES ||
           e == GNUTLS_E_MISSING_EXTENSION;
}

rf_err_t rf_tls_handshake(rf_tls_t *tls, bool *wants_write, char *why, size_t why_max)
{
    int e;
    do {
        e = gnutls_handshake(tls->session);
    } while (e == GNUTLS_E_INTERRUPTED || (e < 0 && e != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(e)));
    if (e == GNUTLS_E_AGAIN) {
        *wants_write = gnutls_record_get_direction(tls->session) == 1;
        return RF_ERR_AGAIN;
    }
    if (e == GNUTLS_E_SUCCESS) return RF_OK;
    bool other_key = means_other_key(tls, e);
    if (e != GNUTLS_E_FATAL_ALERT_RECEIVED && e != GNUTLS_E_PREMATURE_TERMINATION && e != GNUTLS_E_PULL_ERROR)
        gnutls_alert_send_appropriate(tls->session, e);
    if (other_key) {
        snprintf(why, why_max, "it does not hold this machine's key; give all hosts the same key file");
        return RF_ERR_AUTH;
    }
    if (e == GNUTLS_E_PREMATURE_TERMINATION || e == GNUTLS_E_PULL_ERROR || e == GNUTLS_E_PUSH_ERROR) {
        snprintf(why, why_max, "it closed the connection before it proved that it holds the key");
        return RF_ERR_CLOSED;
    }
    snprintf(why, why_max, "it does not speak TLS 1.3 with a pre-shared key (%s)", gnutls_strerror(e));
    return RF_ERR_PROTOCOL;
}

rf_err_t rf_tls_read(rf_tls_t *tls, void *bytes, size_t size, size_t *done)
{
    for (unsigned tries = 0; tries < 16; tries++) {
        ssize_t n = gnutls_record_recv(tls->session, bytes, size);
        if (n > 0) {
            *done = (size_t)n;
            return RF_OK;
        }
        if (n == 0 || n == GNUTLS_E_PREMATURE_TERMINATION) return RF_ERR_CLOSED;
        if (n == GNUTLS_E_AGAIN) return RF_ERR_AGAIN;
        if (n == GNUTLS_E_REHANDSHAKE || (n != GNUTLS_E_INTERRUPTED && gnutls_error_is_fatal((int)n)))
            return n == GNUTLS_E_PULL_ERROR ? RF_ERR_CLOSED : RF_ERR_PROTOCOL;
    }
    return RF_ERR_AGAIN;
}

rf_err_t rf_tls_write(rf_tls_t *tls, const void *bytes, size_t size, size_t *done)
{
    ssize_t n;
    do {
        n = tls->send_again ? gnutls_record_send(tls->session, NULL, 0)
                            : gnutls_record_send(tls->session, bytes, size);
    } while (n == GNUTLS_E_INTERRUPTED);
    if (n == GNUTLS_E_AGAIN) {
        tls->send_again = true;
        return RF_ERR_AGAIN;
    }
    tls->send_again = false;
    if (n < 0) return RF_ERR_CLOSED;
    *done = (size_t)n;
    return RF_OK;
}

bool rf_tls_pending(const rf_tls_t *tls)
{
    return gnutls_record_check_pending(tls->session) > 0;
}

rf_err_t rf_key_derive(const uint8_t *key, size_t key_size, const rf_machine_id_t *machine,
                       const char *purpose, uint8_t out[32])
{
    uint8_t extracted[32];
    uint8_t salt_bytes[sizeof machine->bytes], secret_bytes[64];
    if (key_size > sizeof secret_bytes) return RF_ERR_INVALID;
    memcpy(salt_bytes, machine->bytes, sizeof salt_bytes);
    memcpy(secret_bytes, key, key_size);
    gnutls_datum_t secret = {.data = secret_bytes, .size = (unsigned)key_size};
    gnutls_datum_t salt = {.data = salt_bytes, .size = sizeof salt_bytes};
    char purpose_bytes[64];
    int length = snprintf(purpose_bytes, sizeof purpose_bytes, "rackfish 1 %s", purpose);
    if (length < 0 || (size_t)length >= sizeof purpose_bytes) return RF_ERR_INVALID;
    int e = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &secret, &salt, extracted);
    if (e >= 0) {
        gnutls_datum_t pseudo = {.data = extracted, .size = sizeof extracted};
        gnutls_datum_t info = {.data = (uint8_t *)purpose_bytes, .size = (unsigned)length};
        e = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &pseudo, &info, out, 32);
    }
    gnutls_memset(extracted, 0, sizeof extracted);
    gnutls_memset(secret_bytes, 0, sizeof secret_bytes);
    return e >= 0 ? RF_OK : RF_ERR_NOT_SUPPORTED;
}

rf_err_t rf_control_token(const uint8_t *key, size_t key_size, const rf_machine_id_t *machine,
                          const char *user, char out[65])
{
    uint8_t control_key[32], mac[32];
    rf_err_t err = rf_key_derive(key, key_size, machine, "control token", control_key);
    if (err != RF_OK) return err;
    int e = gnutls_hmac_fast(GNUTLS_MAC_SHA256, control_key, sizeof control_key, user, strlen(user), mac);
    gnutls_memset(control_key, 0, sizeof control_key);
    if (e < 0) return RF_ERR_NOT_SUPPORTED;
    for (unsigned i = 0; i < sizeof mac; i++) snprintf(out + 2 * i, 3, "%02x", mac[i]);
    return RF_OK;
}
