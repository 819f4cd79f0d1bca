/* AES-128-GCM by Intel's multi-buffer library (Debian: libipsec-mb-dev), through its direct calls: no jobs, no queue. */
#include "transport/dpdk/seal_cipher.h"

#include <gnutls/gnutls.h>
#include <intel-ipsec-mb.h>
#include <string.h>
#include <threads.h>

_Static_assert(sizeof(struct gcm_key_data) <= SEAL_CIPHER_SIZE, "the context fits");
_Static_assert(_Alignof(struct gcm_key_data) <= 64, "the context is aligned");

const char *const seal_cipher_library = "libipsec-mb";

/* The library's table of functions for this processor; only read once it is made. */
static IMB_MGR *manager;

static void manager_make(void)
{
    manager = alloc_mb_mgr(0);
    if (manager) init_mb_mgr_auto(manager, NULL);
}

rf_err_t seal_cipher_init(seal_cipher_t *cipher, const uint8_t key[SEAL_CIPHER_KEY])
{
    static once_flag once = ONCE_FLAG_INIT;
    call_once(&once, manager_make);
    if (!manager) return RF_ERR_NO_MEMORY;
    if (manager->gcm128_pre == NULL) return RF_ERR_NOT_SUPPORTED;
    IMB_AES128_GCM_PRE(manager, key, (struct gcm_key_data *)cipher->context);
    return RF_OK;
}

void seal_cipher_end(seal_cipher_t *cipher)
{
    gnutls_memset(cipher, 0, sizeof *cipher);
}

void seal_cipher_seal(const seal_cipher_t *cipher, const uint8_t iv[SEAL_CIPHER_IV], uint8_t *frame,
                      size_t clear, size_t size)
{
    struct gcm_context_data scratch;
    IMB_AES128_GCM_ENC(manager, (const struct gcm_key_data *)cipher->context, &scratch, frame + clear,
                       frame + clear, size - clear, iv, frame, clear, frame + size, RF_SEAL_TAG);
}

bool seal_cipher_open(const seal_cipher_t *cipher, const uint8_t iv[SEAL_CIPHER_IV], uint8_t *frame,
                      size_t clear, size_t size)
{
    struct gcm_context_data scratch;
    uint64_t said[2], is[2];
    _Static_assert(sizeof said == RF_SEAL_TAG, "a tag is two words");
    memcpy(said, frame + size, sizeof said);
    IMB_AES128_GCM_DEC(manager, (const struct gcm_key_data *)cipher->context, &scratch, frame + clear,
                       frame + clear, size - clear, iv, frame, clear, (uint8_t *)is, RF_SEAL_TAG);
    return ((said[0] ^ is[0]) | (said[1] ^ is[1])) == 0;
}
