/*
 * VOTE_REQUEST: from a candidate, or from the leader to its successor (STAND).
 *
 * A vote is one incarnation's, which one process has (doc/agreement.md, incarnations): by that it is counted. While the leader was heard of late, or may hold a lease by this voter's promise, only the
 * kernel's evidence of that leader's death, or its own wish, makes it vote (Raft 4.2.3, 6.4.1).
 */
#include "consensus/engine.h"

static bool up_to_date(const agreement_t *e, const wire_vote_request_t *m)
{
    uint64_t term = log_vote_term(e);
    return m->last_term > term || (m->last_term == term && m->last_index >= e->last);
}

static bool bound_to_leader(const agreement_t *e, const wire_vote_request_t *m)
{
    if (m->flags & VOTE_TRANSFER) return false;
    if (leads(e)) return true;
    if (e->leader_dead && e->leader.core != RF_CORE_NONE) return false;
    if (defect(e, AGREEMENT_DEFECT_ELECT_IN_LEASE)) return false;
    if (role_promised(e)) return true;
    /* Who stands first may have heard the leader's last message a little before the others: so a little less. */
    return e->leader.core != RF_CORE_NONE && e->params.election_ns != RF_NEVER &&
           add_ns(e->leader_heard_ns, e->params.election_ns - e->params.election_ns / 8) > e->now_ns;
}

static void answer(agreement_t *e, agreement_member_t to, const wire_vote_request_t *m, bool granted)
{
    wire_vote_t vote = {.view = e->view,
                        .term = granted ? m->term : e->term,
                        .granted = granted            ? VOTE_GRANTED
                                   : up_to_date(e, m) ? 0
                                                      : VOTE_BEHIND,
                        .pre = (m->flags & VOTE_PRE) != 0 && !(granted && (m->flags & VOTE_CLAIM)),
                        .applied = e->applied,
                        .last = e->last};
    send_one(e, MESSAGE_VOTE, &vote, sizeof vote, to);
}

static void stand(agreement_t *e, agreement_member_t from, const wire_vote_request_t *m)
{
    if (m->term != e->term || !same(from, e->leader) || e->role != AGREEMENT_ROLE_FOLLOWER) {
        engine_ignore(e, "ignoring VOTE_REQUEST: not for me to stand");
        return;
    }
    role_stand(e, false, false, true);
}

/* Once a term, to a log at least as long as the own one (Raft 3.4, 3.6.1). */
static bool vote(agreement_t *e, agreement_member_t to, const wire_vote_request_t *m)
{
    if (m->term > e->term && !role_adopt_term(e, m->term)) return false;
    bool free = e->voted.core == RF_CORE_NONE || same(e->voted, to);
    bool granted = free && up_to_date(e, m) && !leads(e) && e->leader.core == RF_CORE_NONE;
    if (granted) {
        e->voted = to;
        role_voted(e, (m->flags & VOTE_CLAIM) != 0);
    } else if (!up_to_date(e, m)) {
        role_outrun(e);
    }
    answer(e, to, m, granted);
    return granted;
}

/* Two claims that cross: without this both would vote for the other, and neither would stand. */
static bool outranks_claim(const agreement_t *e, const wire_vote_request_t *m)
{
    bool claims = e->role == AGREEMENT_ROLE_CANDIDATE && e->pre && e->leader_unheard;
    bool equal = m->last_term == log_vote_term(e) && m->last_index == e->last;
    return claims && equal && m->term == e->term + 1 && role_is_first(e);
}

vote_after_all_t vote_after_all(agreement_t *e)
{
    wire_vote_request_t m = e->asked_for;
    agreement_member_t to = e->asked;
    bool late = e->now_ns > add_ns(e->asked_ns, STAGGER_NS * EVIDENCE_TURNS);
    e->asked = NOBODY;
    if (to.core == RF_CORE_NONE || late || m.term <= e->term || bound_to_leader(e, &m)) return VOTE_NOBODY;
    if (!up_to_date(e, &m)) return VOTE_CANNOT_WIN;
    if (e->lanes) m.flags &= ~(uint32_t)VOTE_CLAIM; /* to enter a term may take a while (lane.c) */
    if (m.flags & VOTE_CLAIM) return vote(e, to, &m) ? VOTE_GIVEN : VOTE_NOBODY;
    answer(e, to, &m, true);
    return VOTE_GIVEN;
}

/* One that votes no more and does not know it yet: its parent in the plan may not feed it. */
static void feed_former_voter(agreement_t *e, agreement_member_t m)
{
    if (!member_in(e, m) || config_sets(e, config_newest(e), m) != 0) return;
    progress_t *p = progress_find(e, m);
    if (!p && (p = progress_add(e, m)) != NULL) p->fetched = true;
}

void recv_vote_request(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_vote_request_t m;
    if (size != sizeof m) {
        engine_protocol_error(e, "ignoring VOTE_REQUEST: of no such size");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    if (m.term == 0 || !term_possible(e, m.term) || m.last_index > UINT64_MAX / 2) {
        engine_protocol_error(e, "ignoring VOTE_REQUEST: it cannot be");
        return;
    }
    if (m.flags & VOTE_STAND) {
        stand(e, from, &m);
        return;
    }
    bool careless = defect(e, AGREEMENT_DEFECT_NEW_INCARNATION_VOTES);
    /*
     * One that does not vote in the log it holds, or that its log does not name yet, may be a voter in the candidate's, which may
     * need its vote to go on: to form, or to end a change whose entries have not come here. It is the only process that this
     * incarnation was ever given to, and so has forgotten nothing; a log that is short, or empty, is a follower's. Only
     * candidates whose sets name this very incarnation count it.
     */
    bool may = !e->expelled;
    if (!may && !careless) {
        engine_ignore(e, "ignoring VOTE_REQUEST: I have been expelled");
        return;
    }
    if ((m.flags & VOTE_EVIDENCE) && m.dead.core < e->params.n_cores && !member_dead(e, from_wire(m.dead))) {
        e->hears_candidate = true;
        change_died(e, from_wire(m.dead), AGREEMENT_EVIDENCE_KERNEL, false); /* true by contract */
        e->hears_candidate = false;
    }
    e->output.ignored = NULL;
    if (m.term < e->term || ((m.flags & VOTE_PRE) && m.term == e->term) || bound_to_leader(e, &m)) {
        if ((m.flags & VOTE_PRE) && m.term > e->term && !leads(e)) {
            e->asked = from;
            e->asked_for = m;
            e->asked_ns = e->now_ns;
        }
        engine_ignore(e, "refusing a vote: a leader is there, or of an earlier term");
        if (leads(e)) feed_former_voter(e, from);
        answer(e, from, &m, false);
        return;
    }
    bool ahead = (m.flags & VOTE_CLAIM) && up_to_date(e, &m);
    if (ahead && outranks_claim(e, &m)) {
        engine_ignore(e, "refusing a vote: claims them itself, with as much, and is of a better rank");
        answer(e, from, &m, false);
        e->due |= DUE_VOTES; /* that one may have heard the leader when it was asked */
        return;
    }
    if ((m.flags & VOTE_PRE) && !ahead) {
        answer(e, from, &m, up_to_date(e, &m));
        if (!up_to_date(e, &m)) role_outrun(e);
        return;
    }
    vote(e, from, &m);
}
