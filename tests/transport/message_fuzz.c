/* Any slots into the assembler: it answers, and never holds more than a message. */
#include "transport/message.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static rf_assembler_t assembler;
    memset(&assembler, 0, sizeof assembler);
    for (; size >= sizeof(uint64_t); data += sizeof(uint64_t), size -= sizeof(uint64_t)) {
        rf_slot_t slot;
        memset(&slot, data[0], sizeof slot);
        memcpy(&slot.control, data, sizeof slot.control);
        rf_err_t err = rf_assembler_feed(&assembler, &slot);
        if (err != RF_OK && err != RF_ERR_AGAIN && err != RF_ERR_PROTOCOL) abort();
        if (assembler.size > RF_MESSAGE_MAX) abort();
    }
    return 0;
}
