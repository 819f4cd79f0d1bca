/* ACCEPTED, from whoever is fed: how far its log is the leader's, and how far it has applied. */
#include "consensus/engine.h"

void recv_accepted(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_accepted_t m;
    wire_lane_t lane;
    if (size >= sizeof m) memcpy(&m, bytes, sizeof m);
    if (size != sizeof m && (size != sizeof m + sizeof lane || !(m.flags & ACCEPTED_LANE))) {
        engine_protocol_error(e, "ignoring ACCEPTED: of no such size");
        return;
    }
    bool has_lane = size > sizeof m;
    if (has_lane) memcpy(&lane, bytes + sizeof m, sizeof lane);
    if (!term_possible(e, m.term) || m.applied > m.committed || m.match > UINT64_MAX / 2 ||
        m.committed > UINT64_MAX / 2) {
        engine_protocol_error(e, "ignoring ACCEPTED: it cannot be");
        return;
    }
    if (m.term > e->term) {
        if (!leads(e) || config_sets(e, config_newest(e), from) != 0 || member_in(e, from))
            role_adopt_term(e, m.term);
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
    /* It may have more from another: from here it is fed what is known to be committed here. */
    if (p->sets == 0 && match > e->committed) match = e->committed;
    if (match > e->last) {
        engine_ignore(e, "ignoring ACCEPTED: of more than there is");
        return;
    }
    p->heard_ns = e->now_ns;
    if (e->lanes && p->sets != 0) lane_accepted(e, from, match, has_lane ? &lane : NULL);
    bool missing = m.flags & ACCEPTED_REJECT;
    if (p->mode == PROGRESS_SILENT || (p->mode == PROGRESS_PROBE && !missing)) p->mode = PROGRESS_STREAM;
    if (m.applied > p->applied) p->applied = m.applied;
    if (match > p->match) {
        p->match = match;
        e->due |= DUE_COMMIT;
        if (p->next <= match) p->next = match + 1;
        if (p->candidate) e->due |= DUE_CHANGE;
    }
    /* Of many on their way each is answered so: only the first takes it back, and only one message goes out until one fits.
     * Others that were overtaken may be answered after that: not again before the resend timer would. */
    transfer_t *t = &e->transfers[p - e->progress];
    bool answered = e->params.resend_ns != RF_NEVER && add_ns(t->rewound_ns, e->params.resend_ns) > e->now_ns;
    if (missing && p->mode == PROGRESS_STREAM && p->next > p->match + 1 && !answered) {
        t->rewound_ns = e->now_ns;
        p->mode = PROGRESS_PROBE;
        p->next = p->match + 1;
        p->ask = true;
        e->due |= DUE_FEED;
    }
    if (p->next <= e->last) e->due |= DUE_FEED;
    if (e->change_round != 0) e->due |= DUE_CHANGE;
    bool learns = m.flags & ACCEPTED_FEED; /* what it answered then promises nothing as a voter */
    if (leads(e) && learns == (p->sets == 0) && m.round > p->round && m.round <= e->round) p->round = m.round;
    if (p->sets != 0 && leads(e)) return;
    /* Fed because it asked, or had just joined: it has caught up, and its parent in the plan feeds it as well. */
    if (p->fetched && (m.flags & ACCEPTED_FED) && p->match > 0 &&
        p->match + e->params.log_max / 4 >= e->committed)
        progress_configure(e);
}
