/* ACCEPTED, from whoever is fed: how far its log is the leader's, and how far it has applied. */
#include "consensus/engine.h"

void recv_accepted(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_accepted_t m;
    if (size != sizeof m) {
        engine_protocol_error(e, "ignoring ACCEPTED: of no such size");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    if (m.term > UINT64_MAX / 2 || m.applied > m.committed || m.match > UINT64_MAX / 2 ||
        m.committed > UINT64_MAX / 2) {
        engine_protocol_error(e, "ignoring ACCEPTED: it cannot be");
        return;
    }
    if (m.term > e->term) {
        if (!leads(e) || config_sets(e, config_newest(e), from) != 0) role_adopt_term(e, m.term);
        if (!leads(e)) {
            engine_ignore(e, "ignoring ACCEPTED: of a later term");
            return;
        }
    }
    progress_t *p = progress_find(e, from);
    if (!p) {
        engine_ignore(e, "ignoring ACCEPTED: its sender is not fed here");
        return;
    }
    if (p->sets != 0 && m.term < e->term) {
        engine_ignore(e, "ignoring ACCEPTED: of an earlier term");
        return;
    }
    /* A learner's log is what is committed, whatever the term. */
    uint64_t match = p->sets != 0 ? m.match : m.committed;
    if (match > e->last) {
        engine_ignore(e, "ignoring ACCEPTED: of more than there is");
        return;
    }
    p->heard_ns = e->now_ns;
    if (p->mode == PROGRESS_PROBE) p->mode = PROGRESS_STREAM;
    if (m.applied > p->applied) p->applied = m.applied;
    if (match > p->match) {
        p->match = match;
        e->due |= DUE_COMMIT;
        if (p->next <= match) p->next = match + 1;
        if (p->candidate) e->due |= DUE_CHANGE;
    }
    if (p->next > p->match + 1 && (m.flags & ACCEPTED_REJECT)) {
        p->next = p->match + 1;
        e->due |= DUE_FEED;
    }
    if (p->next <= e->last) e->due |= DUE_FEED;
    if (p->sets == 0 || !leads(e)) return;
    if (m.round > p->round && m.round <= e->round) {
        p->round = m.round;
        if (e->params.lease_ns > 0) {
            uint64_t round = progress_majority(e, PROGRESS_ROUND, e->round);
            uint64_t lease = e->params.lease_ns - e->params.lease_ns / 1000000 * e->params.drift_ppm;
            if (round + ROUNDS_KEPT > e->round &&
                e->rounds_ns[round % ROUNDS_KEPT] + lease > e->lease_until_ns && round > 0)
                e->lease_until_ns = e->rounds_ns[round % ROUNDS_KEPT] + lease;
        }
    }
}
