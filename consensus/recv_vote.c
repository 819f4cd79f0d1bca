/* VOTE, to a candidate. */
#include "consensus/engine.h"

void recv_vote(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_vote_t m;
    if (size != sizeof m) {
        engine_protocol_error(e, "ignoring VOTE: of no such size");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    if (!term_possible(e, m.term)) {
        engine_protocol_error(e, "ignoring VOTE: it cannot be");
        return;
    }
    bool granted = m.granted == VOTE_GRANTED;
    if (granted && m.pre == 0) role_claimed(e, m.term);
    if (m.granted == VOTE_BEHIND && e->role == AGREEMENT_ROLE_CANDIDATE) role_behind(e);
    if (m.granted == 0 && m.pre == 0 && m.term == e->term && e->role == AGREEMENT_ROLE_CANDIDATE)
        role_split(e);
    if (!granted && m.term > e->term && e->role == AGREEMENT_ROLE_CANDIDATE &&
        config_sets(e, config_newest(e), from) != 0) {
        role_adopt_term(e, m.term);
        return;
    }
    if (e->role != AGREEMENT_ROLE_CANDIDATE || !granted || (m.pre != 0) != e->pre ||
        m.term != e->term + e->pre) {
        engine_ignore(e, "ignoring VOTE: not given, or for no election of now");
        return;
    }
    role_granted(e, from, &m);
}
