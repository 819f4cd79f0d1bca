/*
 * Seals: secrets of flows, AES-128-GCM by whichever library this was built with (against published vectors, so that all make
 * the same bytes), keys by epoch, and what of a frame is readable before its seal is checked.
 */
#include "transport/dpdk/flow.h"
#include "transport/dpdk/seal_frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t key[] = "a key of the cluster";

static rf_seal_identity_t identity_make(void)
{
    rf_seal_identity_t id = {.machine = {{1}}, .core = {1, 2}, .incarnation = {3, 4}, .driver = {5, 6}};
    id.flow[0] = 7;
    id.flow[1] = 8;
    memset(id.nonce[0], 9, sizeof id.nonce[0]);
    memset(id.nonce[1], 10, sizeof id.nonce[1]);
    id.key = key;
    id.key_size = sizeof key;
    return id;
}

static void secret_depends_on_all(void **state)
{
    (void)state;
    uint8_t base[RF_SEAL_SECRET], again[RF_SEAL_SECRET];
    rf_seal_identity_t id = identity_make();
    assert_int_equal(rf_seal_secret(&id, base), RF_OK);
    assert_int_equal(rf_seal_secret(&id, again), RF_OK);
    assert_memory_equal(base, again, sizeof base);

    rf_seal_identity_t other[14];
    for (unsigned i = 0; i < 14; i++) other[i] = id;
    other[0].machine.bytes[15] ^= 1;
    for (unsigned i = 0; i < 2; i++) {
        other[1 + i].core[i] ^= 1;
        other[3 + i].incarnation[i] ^= 1;
        other[5 + i].driver[i] ^= 1ull << 63;
        other[7 + i].flow[i] ^= 1;
        other[9 + i].nonce[i][31] ^= 1;
    }
    other[11].lane = 1;
    other[12].key_size--;
    other[13].key = NULL;
    for (unsigned i = 0; i < 14; i++) {
        assert_int_equal(rf_seal_secret(&other[i], again), RF_OK);
        assert_memory_not_equal(base, again, sizeof base);
    }
}

static void flow_of_a_frame(void **state)
{
    (void)state;
    uint8_t frame[RF_FLOW_OVERHEAD] = {0x78, 0x56, 0x34, 0x12};
    uint32_t id = 0;
    assert_true(rf_frame_flow(frame, sizeof frame, &id));
    assert_int_equal(id, 0x12345678);
    assert_false(rf_frame_flow(frame, sizeof frame - 1, &id));
}

static void unhex(const char *hex, uint8_t *out)
{
    for (; *hex; hex += 2) {
        char pair[3] = {hex[0], hex[1], 0};
        *out++ = (uint8_t)strtoul(pair, NULL, 16);
    }
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, cases 1, 3 and 4. */
static void published_vectors(void **state)
{
    (void)state;
    print_message("sealed by %s\n", seal_cipher_library);
    static const char text[] = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                               "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
    static const char cipher_text[] = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
                                      "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091";
    static const struct {
        const char *key, *iv, *clear, *text, *cipher, *tag;
    } vectors[] = {
        {"00000000000000000000000000000000", "000000000000000000000000", "", "", "",
         "58e2fccefa7e3061367f1d57a4e7455a"},
        {"00000000000000000000000000000000", "000000000000000000000000", "",
         "00000000000000000000000000000000", "0388dace60b6a392f328c2b971b2fe78",
         "ab6e47d42cec13bdf53a67b21257bddf"},
        {"feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
         "feedfacedeadbeeffeedfacedeadbeefabaddad2", text, cipher_text, "5bc94fbc3221a5db94fae95ae7121a47"},
    };
    for (unsigned i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t k[16], iv[12], frame[256] = {0}, expected[256] = {0};
        unhex(vectors[i].key, k);
        unhex(vectors[i].iv, iv);
        size_t clear = strlen(vectors[i].clear) / 2, size = clear + strlen(vectors[i].text) / 2;
        unhex(vectors[i].clear, frame);
        unhex(vectors[i].text, frame + clear);
        unhex(vectors[i].clear, expected);
        unhex(vectors[i].cipher, expected + clear);
        unhex(vectors[i].tag, expected + size);
        seal_cipher_t cipher = {0};
        assert_int_equal(seal_cipher_init(&cipher, k), RF_OK);
        seal_cipher_seal(&cipher, iv, frame, clear, size);
        assert_memory_equal(frame, expected, size + RF_SEAL_TAG);
        assert_true(seal_cipher_open(&cipher, iv, frame, clear, size));
        unhex(vectors[i].text, expected + clear);
        assert_memory_equal(frame, expected, size);
        seal_cipher_end(&cipher);
    }
}

typedef struct ends {
    seal_sealer_t sealer;
    seal_opener_t opener;
} ends_t;

static ends_t *ends_make(rf_seal_mode_t mode)
{
    ends_t *ends = aligned_alloc(64, (sizeof *ends + 63) / 64 * 64);
    uint8_t secret[RF_SEAL_SECRET] = "known to both";
    assert_non_null(ends);
    memset(ends, 0, sizeof *ends);
    assert_int_equal(seal_sealer_init(&ends->sealer, mode, secret, true), RF_OK);
    assert_int_equal(seal_opener_init(&ends->opener, mode, secret, true), RF_OK);
    return ends;
}

static void ends_free(ends_t *ends)
{
    seal_sealer_end(&ends->sealer);
    seal_opener_end(&ends->opener);
    free(ends);
}

/* Schedule of keys, nonce and tag together, as Python's hmac and AESGCM make them from doc/protocol.md. */
static void same_bytes_as_documented(void **state)
{
    (void)state;
    static const char *const tags[] = {"fc2c7562628ece336e9037808cf57591",
                                       "0e779d716b60b541a5a30752858df2f2"};
    for (unsigned mode = RF_SEAL_SIGN; mode <= RF_SEAL_ENCRYPT; mode++) {
        ends_t *ends = ends_make((rf_seal_mode_t)mode);
        uint8_t frame[128] = {1, 2, 3}, expected[16];
        assert_int_equal(seal_frame(&ends->sealer, frame, sizeof frame, (3ull << RF_SEAL_EPOCH_BITS) + 5),
                         RF_OK);
        unhex(tags[mode - RF_SEAL_SIGN], expected);
        assert_memory_equal(frame + 112, expected, 16);
        ends_free(ends);
    }
}

static rf_err_t through(ends_t *ends, uint64_t number, int flip)
{
    uint8_t frame[192], plain[192];
    for (unsigned i = 0; i < sizeof frame; i++) plain[i] = (uint8_t)(i * 3 + number);
    memcpy(frame, plain, sizeof frame);
    assert_int_equal(seal_frame(&ends->sealer, frame, sizeof frame, number), RF_OK);
    if (flip >= 0) frame[flip / 8] ^= (uint8_t)(1 << flip % 8);
    rf_err_t err = seal_frame_open(&ends->opener, frame, sizeof frame, number);
    if (err == RF_OK) assert_memory_equal(frame, plain, sizeof frame - RF_SEAL_TAG);
    return err;
}

static void every_bit_counts(void **state)
{
    (void)state;
    for (unsigned mode = RF_SEAL_SIGN; mode <= RF_SEAL_ENCRYPT; mode++) {
        ends_t *ends = ends_make((rf_seal_mode_t)mode);
        assert_int_equal(through(ends, 0, -1), RF_OK);
        for (int bit = 0; bit < 192 * 8; bit++)
            assert_int_equal(through(ends, 1 + (uint64_t)bit, bit), RF_ERR_AUTH);
        ends_free(ends);
    }
}

static void enciphered_or_not(void **state)
{
    (void)state;
    for (unsigned mode = RF_SEAL_NONE; mode <= RF_SEAL_ENCRYPT; mode++) {
        ends_t *ends = ends_make((rf_seal_mode_t)mode);
        uint8_t frame[128] = {0}, plain[128] = {0};
        assert_int_equal(seal_frame(&ends->sealer, frame, sizeof frame, 9), RF_OK);
        assert_memory_equal(frame, plain, RF_SEAL_CLEAR);
        if (mode == RF_SEAL_ENCRYPT)
            assert_memory_not_equal(frame + RF_SEAL_CLEAR, plain, sizeof frame - RF_SEAL_CLEAR - RF_SEAL_TAG);
        else
            assert_memory_equal(frame, plain, sizeof frame - RF_SEAL_TAG);
        ends_free(ends);
    }
}

/* Frames of an epoch before and after the newest are opened, those further off not even tried. */
static void keys_change_by_number(void **state)
{
    (void)state;
    const uint64_t epoch = 1ull << RF_SEAL_EPOCH_BITS;
    ends_t *ends = ends_make(RF_SEAL_SIGN), *old = ends_make(RF_SEAL_SIGN);
    for (uint64_t e = 0; e < 7; e++) {
        assert_int_equal(through(ends, e * epoch, -1), RF_OK);
        assert_int_equal(through(ends, e * epoch + epoch - 1, -1), RF_OK);
        assert_int_equal(ends->opener.epoch, e);
    }
    /* Late ones of the epoch before still come; of two before not. */
    uint8_t frame[64] = {0}, late[64] = {0}, wrong[64] = {0};
    assert_int_equal(seal_frame(&old->sealer, late, sizeof late, 4 * epoch), RF_OK);
    assert_int_equal(seal_frame(&old->sealer, frame, sizeof frame, 5 * epoch + 77), RF_OK);
    assert_int_equal(seal_frame_open(&ends->opener, frame, sizeof frame, 5 * epoch + 77), RF_OK);
    assert_int_equal(seal_frame_open(&ends->opener, late, sizeof late, 4 * epoch), RF_ERR_EXISTS);
    /* A forged number moves no key. */
    seal_opener_t *copy = malloc(sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, &ends->opener, sizeof *copy);
    assert_int_equal(seal_frame_open(&ends->opener, wrong, sizeof wrong, 7 * epoch), RF_ERR_AUTH);
    assert_int_equal(seal_frame_open(&ends->opener, wrong, sizeof wrong, 8 * epoch), RF_ERR_EXISTS);
    assert_int_equal(seal_frame_open(&ends->opener, wrong, sizeof wrong, UINT64_MAX), RF_ERR_EXISTS);
    assert_memory_equal(copy, &ends->opener, sizeof *copy);
    free(copy);
    ends_free(ends);
    ends_free(old);
}

/* What one end says does not open at that end. */
static void directions_differ(void **state)
{
    (void)state;
    ends_t *ends = ends_make(RF_SEAL_SIGN);
    uint8_t secret[RF_SEAL_SECRET] = "known to both", frame[64] = {0};
    seal_opener_end(&ends->opener);
    assert_int_equal(seal_opener_init(&ends->opener, RF_SEAL_SIGN, secret, false), RF_OK);
    assert_int_equal(seal_frame(&ends->sealer, frame, sizeof frame, 0), RF_OK);
    assert_int_equal(seal_frame_open(&ends->opener, frame, sizeof frame, 0), RF_ERR_AUTH);
    ends_free(ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret_depends_on_all), cmocka_unit_test(flow_of_a_frame),
        cmocka_unit_test(published_vectors),     cmocka_unit_test(same_bytes_as_documented),
        cmocka_unit_test(every_bit_counts),      cmocka_unit_test(enciphered_or_not),
        cmocka_unit_test(keys_change_by_number), cmocka_unit_test(directions_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
