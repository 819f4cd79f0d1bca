/* READ, to the leader: what must I have applied? */
#include "consensus/engine.h"

void recv_read(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_read_t answers[AGREEMENT_READS_MAX];
    unsigned n = 0;
    if (size < sizeof(wire_head_t) || (size - sizeof(wire_head_t)) % sizeof *answers != 0 ||
        (size - sizeof(wire_head_t)) / sizeof *answers > AGREEMENT_READS_MAX) {
        engine_protocol_error(e, "ignoring READ: of no such size");
        return;
    }
    if (!leads(e)) {
        engine_ignore(e, "ignoring READ: not the leader");
        return;
    }
    for (size_t at = sizeof(wire_head_t); at < size; at += sizeof *answers) {
        memcpy(&answers[n], bytes + at, sizeof *answers);
        n += read_serve(e, from, answers[n].id, &answers[n].index);
    }
    if (n > 0) read_answer(e, from, answers, n);
}
