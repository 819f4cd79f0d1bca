/* READ: how far is the log committed? */
#include "consensus/engine.h"

void recv_read(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    if (!engine_orders(e) || size == 0 || size % sizeof(wire_read_t) != 0 ||
        size / sizeof(wire_read_t) > AGREEMENT_READS_MAX) {
        engine_protocol_error(e, "ignoring READ: I do not order, or its size is wrong");
        return;
    }
    for (size_t at = 0; at < size; at += sizeof(wire_read_t)) {
        wire_read_t *reply = &e->read_replies[e->n_read_replies++];
        memcpy(reply, bytes + at, sizeof *reply);
        reply->index = e->committed;
    }
    e->reply_to = from;
}
