/*
 * Sealing and opening frames: keys by direction and epoch (seal.h), nonces by number.
 *
 *   secret -- "to listener" / "to dialer" --> S(0) -- "next" --> S(1) -- "next" --> ...
 *                                              `- "key", "iv"     `- "key", "iv"
 *
 * The sealer holds the key of the epoch of its last frame. The opener holds those of the epoch of the newest authentic
 * frame, the one before (frames overtake each other) and the next, which an authentic frame makes the current one: a forged
 * number moves nothing.
 */
#ifndef RF_TRANSPORT_DPDK_SEAL_FRAME_H
#define RF_TRANSPORT_DPDK_SEAL_FRAME_H

#include "transport/dpdk/seal_cipher.h"

typedef struct seal_key {
    seal_cipher_t cipher;
    uint8_t iv[SEAL_CIPHER_IV];
} seal_key_t;

typedef struct seal_sealer {
    rf_seal_mode_t mode;
    uint8_t secret[RF_SEAL_SECRET]; /* of the epoch after `epoch` */
    uint64_t epoch;
    seal_key_t key;
} seal_sealer_t;

typedef struct seal_opener {
    rf_seal_mode_t mode;
    uint8_t secret[RF_SEAL_SECRET]; /* of the epoch after the next */
    uint64_t epoch;
    seal_key_t keys[3]; /* of an epoch e: keys[e % 3] */
} seal_opener_t;

/* `to_listener`: the direction. Both have to be zero before, and are ended also when init fails. */
rf_err_t seal_sealer_init(seal_sealer_t *sealer, rf_seal_mode_t mode, const uint8_t secret[RF_SEAL_SECRET],
                          bool to_listener);
rf_err_t seal_opener_init(seal_opener_t *opener, rf_seal_mode_t mode, const uint8_t secret[RF_SEAL_SECRET],
                          bool to_listener);
void seal_sealer_end(seal_sealer_t *sealer);
void seal_opener_end(seal_opener_t *opener);

/* Seals `size` bytes of which the last RF_SEAL_TAG become the tag. Numbers go upwards. An error: the library gave no key
 * for the next epoch. */
rf_err_t seal_frame(seal_sealer_t *sealer, uint8_t *frame, size_t size, uint64_t number);

/* RF_OK: authentic, and readable in place; RF_ERR_AUTH; RF_ERR_EXISTS: of an epoch that is over or not in sight, not
 * checked. Another error: the library gave no key for the next epoch. */
rf_err_t seal_frame_open(seal_opener_t *opener, uint8_t *frame, size_t size, uint64_t number);

#endif
