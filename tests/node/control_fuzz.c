/* Frames of the control socket, both ways, from hostile bytes: framing, then the messages. */
#include "node/conn.h"
#include "node/proto.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    size_t frame, wanted;
    for (size_t at = 0; at < size;) {
        rf_err_t err = rf_frame_decode(bytes + at, size - at, &frame, &wanted);
        if (err != RF_OK) {
            if (err == RF_ERR_AGAIN && wanted <= size - at) abort();
            break;
        }
        if (frame > RF_FRAME_MAX || frame > size - at - 4) abort();
        rf_control_request_free(rf_control_request_unpack(bytes + at + 4, frame));
        at += 4 + frame;
    }
    rf_control_request_free(rf_control_request_unpack(bytes, size));
    rf_control_reply_free(rf_control_reply_unpack(bytes, size));
    return 0;
}
