/* READ_INDEX, from the leader: the read is done when that much is applied here. */
#include "consensus/engine.h"

void recv_read_index(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    struct {
        wire_head_t head;
        wire_read_t read;
    } m;
    if (size != sizeof m) {
        engine_protocol_error(e, "ignoring READ_INDEX: of no such size");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    if (m.head.term == e->term && same(from, e->leader)) {
        e->leader_heard_ns = e->now_ns;
        if (!e->quorum) role_heard(e);
    }
    for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used || r->id != m.read.id || r->index != UINT64_MAX) continue;
        r->index = m.read.index;
        if (m.read.index == UINT64_MAX) { /* the leader has no room: later */
            r->sent = false;
            e->retry_at_ns = e->now_ns + engine_retry_ns(e);
        }
        e->due |= DUE_READS;
        return;
    }
    engine_ignore(e, "ignoring READ_INDEX: of no read that waits");
}
