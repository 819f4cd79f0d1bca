/*
 * AES-128-GCM under one key, by a library: seal_ipsecmb.c where libipsec-mb is (Debian, x86_64), else seal_gnutls.c. Both
 * make the same bytes (tests/transport/dpdk_flow_seal_test.c runs on each). Measured for one tag, 112, 1,472 and 8,972
 * bytes signed: libipsec-mb 1.3 23, 71, 375 ns; GnuTLS 3.7.9 57, 213, 1,070; nettle 3.8.1 47, 350, 3,600; OpenSSL 3.0
 * 171, 326, 1,180.
 */
#ifndef RF_TRANSPORT_DPDK_SEAL_CIPHER_H
#define RF_TRANSPORT_DPDK_SEAL_CIPHER_H

#include "transport/dpdk/seal.h"

#define SEAL_CIPHER_KEY  16
#define SEAL_CIPHER_IV   12
#define SEAL_CIPHER_SIZE 1088 /* of a library's context; asserted by each */

typedef struct seal_cipher {
    _Alignas(64) uint8_t context[SEAL_CIPHER_SIZE];
} seal_cipher_t;

/* The library's name, for reports. */
extern const char *const seal_cipher_library;

/* RF_ERR_NOT_SUPPORTED, RF_ERR_NO_MEMORY. A cipher that was made is ended before it is made again. */
rf_err_t seal_cipher_init(seal_cipher_t *cipher, const uint8_t key[SEAL_CIPHER_KEY]);
void seal_cipher_end(seal_cipher_t *cipher);

/*
 * [frame, frame + clear) is authenticated, the `size - clear` bytes behind it are enciphered in place and authenticated;
 * the tag is written behind them.
 */
void seal_cipher_seal(const seal_cipher_t *cipher, const uint8_t iv[SEAL_CIPHER_IV], uint8_t *frame,
                      size_t clear, size_t size);
/* The reverse: false when the tag does not fit. Takes as long for each wrong tag. */
bool seal_cipher_open(const seal_cipher_t *cipher, const uint8_t iv[SEAL_CIPHER_IV], uint8_t *frame,
                      size_t clear, size_t size);

#endif
