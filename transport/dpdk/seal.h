/*
 * The seal of a frame: AES-128-GCM (NIST SP 800-38D) with 16 bytes of tag, by a library.
 *
 *   RF_SEAL_SIGN     GMAC: the whole frame is authenticated and readable
 *   RF_SEAL_ENCRYPT  the first 16 bytes are authenticated and readable, the rest is enciphered too
 *   RF_SEAL_NONE     nothing: anybody on the wire can forge frames. For measurements only.
 *
 * Keys. From the flow's secret, HKDF (RFC 5869, SHA-256) makes a chain of secrets for each direction, one an epoch of
 * 2^RF_SEAL_EPOCH_BITS frames, and of each a key and an initialisation vector. The nonce is that vector XOR the frame's
 * number (RFC 9001, 5.3). The number says the epoch, so both ends change keys without a word, and at 2^20 frames of at
 * most 9,216 bytes a key enciphers at most 2^30 blocks, well below the limits of RFC 9001, B.1 for the same chance.
 */
#ifndef RF_TRANSPORT_DPDK_SEAL_H
#define RF_TRANSPORT_DPDK_SEAL_H

#include "base/error.h"
#include "base/types.h"

#define RF_SEAL_SECRET     32
#define RF_SEAL_NONCE      32
#define RF_SEAL_TAG        16
#define RF_SEAL_CLEAR      16 /* bytes of a frame that are never enciphered */
#define RF_SEAL_EPOCH_BITS 20

typedef enum rf_seal_mode { RF_SEAL_NONE = 0, RF_SEAL_SIGN = 1, RF_SEAL_ENCRYPT = 2 } rf_seal_mode_t;

/* Who has a flow with whom; [0] is the dialer of the control link, [1] its listener. All of it goes into the secret. */
typedef struct rf_seal_identity {
    rf_machine_id_t machine;
    rf_core_t core[2];
    rf_incarnation_t incarnation[2]; /* of the links' owners */
    uint64_t driver[2];              /* which life of the link driver, at each end */
    uint32_t flow[2];                /* the ids that each end drew */
    uint32_t lane;                   /* 0: slots, 1: bulk */
    uint8_t nonce[2]
                 [RF_SEAL_NONCE]; /* drawn for this flow by rf_random_secret(), said over the control link */
    const uint8_t *key; /* what both hold already, as the cluster's or the channel's key; NULL: nothing. */
    size_t key_size;    /* Without one the nonces are the secret, and the control link has to be encrypted. */
} rf_seal_identity_t;

/* HKDF-Extract(salt: both nonces, key) and Expand(identity). RF_ERR_NOT_SUPPORTED: the library refuses. */
rf_err_t rf_seal_secret(const rf_seal_identity_t *identity, uint8_t secret[RF_SEAL_SECRET]);

#endif
