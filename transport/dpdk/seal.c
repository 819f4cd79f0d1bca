/* Secrets of flows: HKDF over who talks to whom. */
#include "transport/dpdk/seal.h"

#include <gnutls/crypto.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the identity below is hashed as little-endian");

/* What goes into the secret, byte for byte the same at both ends. */
typedef struct seal_info {
    char label[16];
    uint8_t machine[16];
    uint64_t driver[2];
    uint32_t incarnation[2];
    uint32_t flow[2];
    uint16_t core[2];
    uint32_t lane;
} seal_info_t;
_Static_assert(sizeof(seal_info_t) == 72, "no padding is hashed");

rf_err_t rf_seal_secret(const rf_seal_identity_t *identity, uint8_t secret[RF_SEAL_SECRET])
{
    seal_info_t info = {.label = "rackfish flow 1", .lane = identity->lane};
    memcpy(info.machine, identity->machine.bytes, sizeof info.machine);
    for (unsigned i = 0; i < 2; i++) {
        info.driver[i] = identity->driver[i];
        info.incarnation[i] = identity->incarnation[i];
        info.flow[i] = identity->flow[i];
        info.core[i] = identity->core[i];
    }
    uint8_t salt[2 * RF_SEAL_NONCE], extracted[RF_SEAL_SECRET];
    memcpy(salt, identity->nonce[0], RF_SEAL_NONCE);
    memcpy(salt + RF_SEAL_NONCE, identity->nonce[1], RF_SEAL_NONCE);
    uint8_t none = 0;
    gnutls_datum_t salt_datum = {salt, sizeof salt};
    /* The library only reads it. */
    gnutls_datum_t key_datum = {identity->key ? (unsigned char *)(uintptr_t)identity->key : &none,
                                identity->key ? (unsigned)identity->key_size : 0};
    gnutls_datum_t extracted_datum = {extracted, sizeof extracted};
    gnutls_datum_t info_datum = {(unsigned char *)&info, sizeof info};
    bool ok =
        gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &key_datum, &salt_datum, extracted) == GNUTLS_E_SUCCESS &&
        gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &extracted_datum, &info_datum, secret, RF_SEAL_SECRET) ==
            GNUTLS_E_SUCCESS;
    gnutls_memset(salt, 0, sizeof salt);
    gnutls_memset(extracted, 0, sizeof extracted);
    return ok ? RF_OK : RF_ERR_NOT_SUPPORTED;
}
