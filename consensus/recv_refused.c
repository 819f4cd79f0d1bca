/* REFUSED, from a member that was sent FORWARD: what became of it, where the log does not say. */
#include "consensus/engine.h"

/* A learner has only hearsay of who leads: that one says it does not. */
static void follow_instead(agreement_t *e, agreement_member_t from, const wire_refused_head_t *head)
{
    agreement_member_t leader = from_wire(head->leader);
    e->retry_at_ns = e->now_ns + engine_retry_ns(e);
    if (e->role != AGREEMENT_ROLE_LEARNER || !same(from, e->leader) || head->term < e->term ||
        !term_possible(e, head->term) || leader.core >= e->params.n_cores || is_self(e, leader) ||
        same(leader, from))
        return;
    if (head->term > e->term && !role_adopt_term(e, head->term)) return;
    role_follow(e, leader);
}

void recv_refused(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_refused_head_t head;
    if (size < sizeof head || (size - sizeof head) % sizeof(wire_refused_t) != 0 ||
        (size - sizeof head) / sizeof(wire_refused_t) > FORWARDS_MAX) {
        engine_protocol_error(e, "ignoring REFUSED: of no such size");
        return;
    }
    memcpy(&head, bytes, sizeof head);
    bool from_leader = head.term == e->term && same(from, e->leader) && same(from, from_wire(head.leader));
    if (from_leader) {
        e->leader_heard_ns = e->now_ns;
        engine_lacks(e, head.applied);
        if (!e->quorum) role_heard(e);
    }
    for (size_t at = sizeof head; at < size; at += sizeof(wire_refused_t)) {
        wire_refused_t r;
        memcpy(&r, bytes + at, sizeof r);
        if (r.why == REFUSED_EXPELLED) {
            if (head.view > e->view && e->formed) e->expelled = true;
            continue;
        }
        proposal_t *p = e->n_proposals > 0 ? proposal_find(e, r.session, r.sequence) : NULL;
        if (!p || p->refused || completion_room(e) == 0) continue;
        switch (r.why) {
        case REFUSED_NOT_LEADER:
            follow_instead(e, from, &head);
            proposal_unsend_one(e, p);
            break;
        case REFUSED_FULL:
            proposal_unsend_one(e, p);
            e->retry_at_ns = e->now_ns + engine_retry_ns(e);
            if (r.why == REFUSED_FULL && r.value == 1 && from_leader) {
                e->waits_term = e->term;
                if (e->committed > 0 && log_term(e, e->committed) == e->term)
                    e->retry_at_ns = 0; /* meanwhile */
            }
            break;
        case REFUSED_ANSWER:
            proposal_answer(e, r.session, r.sequence,
                            r.err < RF_ERR_COUNT ? (rf_err_t)r.err : RF_ERR_UNKNOWN_OUTCOME, r.value);
            break;
        case REFUSED_ERR:
            proposal_refuse(e, p, r.err > 0 && r.err < RF_ERR_COUNT ? r.err : (uint32_t)RF_ERR_SESSION,
                            head.applied);
            break;
        default:
            break;
        }
    }
}
