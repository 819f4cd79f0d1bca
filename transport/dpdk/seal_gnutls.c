/* AES-128-GCM by GnuTLS, where libipsec-mb is not. */
#include "transport/dpdk/seal_cipher.h"

#include <gnutls/crypto.h>
#include <string.h>

const char *const seal_cipher_library = "GnuTLS";

typedef struct gnutls_context {
    gnutls_aead_cipher_hd_t handle;
} gnutls_context_t;
_Static_assert(sizeof(gnutls_context_t) <= SEAL_CIPHER_SIZE, "the context fits");

static gnutls_aead_cipher_hd_t handle_of(const seal_cipher_t *cipher)
{
    return ((const gnutls_context_t *)cipher->context)->handle;
}

rf_err_t seal_cipher_init(seal_cipher_t *cipher, const uint8_t key[SEAL_CIPHER_KEY])
{
    uint8_t copy[SEAL_CIPHER_KEY];
    memcpy(copy, key, sizeof copy);
    gnutls_datum_t datum = {copy, sizeof copy};
    int rc = gnutls_aead_cipher_init(&((gnutls_context_t *)cipher->context)->handle,
                                     GNUTLS_CIPHER_AES_128_GCM, &datum);
    gnutls_memset(copy, 0, sizeof copy);
    if (rc == GNUTLS_E_MEMORY_ERROR) return RF_ERR_NO_MEMORY;
    return rc == GNUTLS_E_SUCCESS ? RF_OK : RF_ERR_NOT_SUPPORTED;
}

void seal_cipher_end(seal_cipher_t *cipher)
{
    if (handle_of(cipher)) gnutls_aead_cipher_deinit(handle_of(cipher));
    memset(cipher, 0, sizeof *cipher);
}

void seal_cipher_seal(const seal_cipher_t *cipher, const uint8_t iv[SEAL_CIPHER_IV], uint8_t *frame,
                      size_t clear, size_t size)
{
    giovec_t head = {frame, clear}, rest = {frame + clear, size - clear};
    size_t tag = RF_SEAL_TAG;
    /* Fails only for arguments that are not these. */
    gnutls_aead_cipher_encryptv2(handle_of(cipher), iv, SEAL_CIPHER_IV, &head, 1, &rest, size > clear,
                                 frame + size, &tag);
}

bool seal_cipher_open(const seal_cipher_t *cipher, const uint8_t iv[SEAL_CIPHER_IV], uint8_t *frame,
                      size_t clear, size_t size)
{
    giovec_t head = {frame, clear}, rest = {frame + clear, size - clear};
    return gnutls_aead_cipher_decryptv2(handle_of(cipher), iv, SEAL_CIPHER_IV, &head, 1, &rest, size > clear,
                                        frame + size, RF_SEAL_TAG) == GNUTLS_E_SUCCESS;
}
