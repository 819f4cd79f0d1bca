/* See seal_frame.h. */
#include "transport/dpdk/seal_frame.h"

#include "base/memory.h"

#include <gnutls/crypto.h>
#include <string.h>

/* HKDF-Expand with a label. `out` may be `secret`. */
static rf_err_t expand(const uint8_t secret[RF_SEAL_SECRET], const char *label, uint8_t *out, size_t size)
{
    uint8_t from[RF_SEAL_SECRET], text[16] = {0};
    memcpy(from, secret, sizeof from);
    size_t n = strlen(label);
    memcpy(text, label, n);
    gnutls_datum_t key = {from, sizeof from}, info = {text, (unsigned)n};
    int rc = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &key, &info, out, size);
    gnutls_memset(from, 0, sizeof from);
    return rc == GNUTLS_E_SUCCESS ? RF_OK : RF_ERR_NOT_SUPPORTED;
}

/* The key of an epoch from its secret, which becomes the next epoch's. */
static rf_err_t key_make(seal_key_t *key, uint8_t secret[RF_SEAL_SECRET])
{
    uint8_t bytes[SEAL_CIPHER_KEY];
    seal_cipher_end(&key->cipher);
    rf_err_t err = expand(secret, "key", bytes, sizeof bytes);
    if (err == RF_OK) err = expand(secret, "iv", key->iv, sizeof key->iv);
    if (err == RF_OK) err = expand(secret, "next", secret, RF_SEAL_SECRET);
    if (err == RF_OK) err = seal_cipher_init(&key->cipher, bytes);
    gnutls_memset(bytes, 0, sizeof bytes);
    return err;
}

static const char *direction(bool to_listener)
{
    return to_listener ? "to listener" : "to dialer";
}

rf_err_t seal_sealer_init(seal_sealer_t *sealer, rf_seal_mode_t mode, const uint8_t secret[RF_SEAL_SECRET],
                          bool to_listener)
{
    sealer->mode = mode;
    if (mode == RF_SEAL_NONE) return RF_OK;
    rf_err_t err = expand(secret, direction(to_listener), sealer->secret, sizeof sealer->secret);
    return err == RF_OK ? key_make(&sealer->key, sealer->secret) : err;
}

rf_err_t seal_opener_init(seal_opener_t *opener, rf_seal_mode_t mode, const uint8_t secret[RF_SEAL_SECRET],
                          bool to_listener)
{
    opener->mode = mode;
    if (mode == RF_SEAL_NONE) return RF_OK;
    rf_err_t err = expand(secret, direction(to_listener), opener->secret, sizeof opener->secret);
    if (err == RF_OK) err = key_make(&opener->keys[0], opener->secret);
    return err == RF_OK ? key_make(&opener->keys[1], opener->secret) : err;
}

void seal_sealer_end(seal_sealer_t *sealer)
{
    seal_cipher_end(&sealer->key.cipher);
    gnutls_memset(sealer, 0, sizeof *sealer);
}

void seal_opener_end(seal_opener_t *opener)
{
    for (unsigned i = 0; i < 3; i++) seal_cipher_end(&opener->keys[i].cipher);
    gnutls_memset(opener, 0, sizeof *opener);
}

/* The nonce of RFC 9001, 5.3: the vector XOR the number, right-aligned. */
static void nonce_make(uint8_t out[SEAL_CIPHER_IV], const uint8_t iv[SEAL_CIPHER_IV], uint64_t number)
{
    uint64_t low;
    memcpy(out, iv, SEAL_CIPHER_IV);
    memcpy(&low, iv + 4, sizeof low);
    low ^= __builtin_bswap64(number);
    memcpy(out + 4, &low, sizeof low);
}

static size_t clear_size(rf_seal_mode_t mode, size_t signed_size)
{
    return mode == RF_SEAL_ENCRYPT ? RF_SEAL_CLEAR : signed_size;
}

rf_err_t seal_frame(seal_sealer_t *sealer, uint8_t *frame, size_t size, uint64_t number)
{
    size_t signed_size = size - RF_SEAL_TAG;
    if (sealer->mode == RF_SEAL_NONE) {
        memset(frame + signed_size, 0, RF_SEAL_TAG);
        return RF_OK;
    }
    while (rf_unlikely(number >> RF_SEAL_EPOCH_BITS != sealer->epoch)) {
        rf_err_t err = key_make(&sealer->key, sealer->secret);
        if (err != RF_OK) return err;
        sealer->epoch++;
    }
    uint8_t nonce[SEAL_CIPHER_IV];
    nonce_make(nonce, sealer->key.iv, number);
    seal_cipher_seal(&sealer->key.cipher, nonce, frame, clear_size(sealer->mode, signed_size), signed_size);
    return RF_OK;
}

rf_err_t seal_frame_open(seal_opener_t *opener, uint8_t *frame, size_t size, uint64_t number)
{
    if (opener->mode == RF_SEAL_NONE) return RF_OK;
    uint64_t epoch = number >> RF_SEAL_EPOCH_BITS;
    if (epoch > opener->epoch + 1 || epoch + 1 < opener->epoch) return RF_ERR_EXISTS;
    const seal_key_t *key = &opener->keys[epoch % 3];
    size_t signed_size = size - RF_SEAL_TAG;
    uint8_t nonce[SEAL_CIPHER_IV];
    nonce_make(nonce, key->iv, number);
    if (!seal_cipher_open(&key->cipher, nonce, frame, clear_size(opener->mode, signed_size), signed_size))
        return RF_ERR_AUTH;
    if (rf_likely(epoch <= opener->epoch)) return RF_OK;
    opener->epoch = epoch; /* it has begun: the key before last makes way for the next */
    return key_make(&opener->keys[(epoch + 1) % 3], opener->secret);
}
