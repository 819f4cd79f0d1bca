/* READ_INDEX, from the leader: the read is done when that much is applied here. */
#include "consensus/engine.h"

static bool take(agreement_t *e, const wire_read_t *read, bool from_leader)
{
    for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used || r->id != read->id || r->index != UINT64_MAX) continue;
        r->index = read->index;
        if (read->index == UINT64_MAX) { /* the leader has no room: later */
            r->sent = false;
            e->retry_at_ns = e->now_ns + engine_retry_ns(e);
        } else if (from_leader) {
            engine_lacks(e, read->index);
        }
        e->due |= DUE_READS;
        return true;
    }
    return false;
}

void recv_read_index(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_head_t head;
    wire_read_t read;
    if (size <= sizeof head || (size - sizeof head) % sizeof read != 0 ||
        (size - sizeof head) / sizeof read > AGREEMENT_READS_MAX) {
        engine_protocol_error(e, "ignoring READ_INDEX: of no such size");
        return;
    }
    memcpy(&head, bytes, sizeof head);
    bool from_leader = head.term == e->term && same(from, e->leader);
    if (from_leader) {
        e->leader_heard_ns = e->now_ns;
        if (!e->quorum) role_heard(e);
    }
    for (size_t at = sizeof head; at < size; at += sizeof read) {
        memcpy(&read, bytes + at, sizeof read);
        if (!take(e, &read, from_leader)) engine_ignore(e, "ignoring READ_INDEX: of no read that waits");
    }
}
