/* READ_INDEX: that far; the read is answered when that much is applied here. */
#include "consensus/engine.h"

void recv_read_index(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_read_t in;
    if (from != ORDERER || size == 0 || size % sizeof in != 0) {
        engine_protocol_error(e, "ignoring READ_INDEX: not from the orderer, or its size is wrong");
        return;
    }
    for (size_t at = 0; at < size; at += sizeof in) {
        memcpy(&in, bytes + at, sizeof in);
        for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
            reading_t *r = &e->reads[i];
            if (r->used && r->id == in.id && r->index == UINT64_MAX) r->index = in.index;
        }
    }
}
