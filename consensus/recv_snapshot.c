/* SNAPSHOT: a chunk of one (snapshot.c), taken in order; and its answer, which says what is held. */
#include "consensus/engine.h"

static void answer(agreement_t *e, agreement_member_t to, uint64_t id, uint64_t offset)
{
    wire_snapshot_ack_t m = {.view = e->view, .term = e->term, .id = id, .offset = offset};
    send_one(e, MESSAGE_SNAPSHOT_ACK, &m, sizeof m, to);
}

void recv_snapshot(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_snapshot_t m;
    if (size <= sizeof m) {
        engine_protocol_error(e, "ignoring SNAPSHOT: cut short");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    size_t n = size - sizeof m;
    if (m.total > e->snapshot_size || m.offset >= m.total || n > m.total - m.offset || m.id == 0 ||
        m.index == 0 || m.index > UINT64_MAX / 2 || !term_possible(e, m.term) || m.index_term > m.term) {
        engine_protocol_error(e, "ignoring SNAPSHOT: it cannot be");
        return;
    }
    if (e->expelled || (leads(e) && m.term <= e->term)) {
        engine_ignore(e, "ignoring SNAPSHOT: I have been expelled, or lead");
        return;
    }
    if (m.term > e->term && !role_adopt_term(e, m.term)) return;
    if (m.term == e->term && same(from, from_wire(m.leader))) role_follow(e, from);
    if (m.index_term == e->term && e->role == AGREEMENT_ROLE_CANDIDATE && !e->pre)
        role_step_down(e); /* what is committed was committed by this term's leader, and that is another */
    e->parent_heard_ns = e->now_ns;
    if (m.index <= e->committed) {
        engine_ignore(e, "ignoring SNAPSHOT: that much is known to be committed");
        answer(e, from, m.id, m.total);
        return;
    }
    if (m.index <= e->last && m.index + 1 >= e->first && log_term(e, m.index) == m.index_term) {
        /* The log holds it: what the snapshot says is that it is committed. What follows may have been acknowledged. */
        if (e->matched < m.index) e->matched = m.index;
        log_commit(e, m.index);
        answer(e, from, m.id, m.total);
        return;
    }
    if (!same(e->in.from, from) || e->in.id != m.id || e->in.total != m.total || e->in.index != m.index) {
        if (m.offset != 0) {
            engine_ignore(e, "ignoring SNAPSHOT: its beginning is missing");
            answer(e, from, m.id, 0);
            return;
        }
        if (e->in.id != 0 && !same(e->in.from, from) &&
            add_ns(e->in.heard_ns, 8 * engine_retry_ns(e)) > e->now_ns) {
            engine_ignore(e, "ignoring SNAPSHOT: another is under way");
            return;
        }
        e->in.from = from;
        e->in.id = m.id;
        e->in.index = m.index;
        e->in.index_term = m.index_term;
        e->in.total = m.total;
        e->in.got = 0;
    }
    e->in.heard_ns = e->now_ns;
    if (m.offset == e->in.got) {
        memcpy(e->in.bytes + m.offset, bytes + sizeof m, n);
        e->in.got += n;
    }
    uint64_t got = e->in.got;
    if (got == e->in.total) {
        e->in.id = 0;
        e->in.from = NOBODY;
        if (!snapshot_load(e)) {
            engine_protocol_error(e, "ignoring SNAPSHOT: it does not load");
            return;
        }
    }
    answer(e, from, m.id, got);
}

void recv_snapshot_ack(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_snapshot_ack_t m;
    if (size != sizeof m) {
        engine_protocol_error(e, "ignoring SNAPSHOT_ACK: of no such size");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    progress_t *p = progress_find(e, from);
    if (!p) {
        engine_ignore(e, "ignoring SNAPSHOT_ACK: its sender is not fed here");
        return;
    }
    p->heard_ns = e->now_ns;
    snapshot_acked(e, p, m.id, m.offset);
}
