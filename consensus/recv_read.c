/* READ, to the leader: which index holds all that is committed now (read.c)? */
#include "consensus/engine.h"

void recv_read(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_read_t read;
    if (size < sizeof(wire_head_t) || (size - sizeof(wire_head_t)) % sizeof read != 0 ||
        (size - sizeof(wire_head_t)) / sizeof read > AGREEMENT_READS_MAX) {
        engine_protocol_error(e, "ignoring READ: of no such size");
        return;
    }
    if (!leads(e)) {
        engine_ignore(e, "ignoring READ: not the leader");
        return;
    }
    for (size_t at = sizeof(wire_head_t); at < size; at += sizeof read) {
        memcpy(&read, bytes + at, sizeof read);
        read_serve(e, from, read.id);
    }
}
