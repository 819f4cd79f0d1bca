/* FORWARD, to the leader: proposals of another member. What is not in the log after it is said why: REFUSED. */
#include "consensus/engine.h"

static bool valid(const agreement_t *e, const wire_proposal_t *p, const uint8_t *bytes)
{
    if (p->session == 0 || p->sequence == 0 || p->size > e->params.entry_max) return false;
    switch (p->kind) {
    case AGREEMENT_ENTRY_COMMAND:
    case AGREEMENT_ENTRY_SESSION_OPEN:
        return true;
    case AGREEMENT_ENTRY_SESSION_END:
        return p->size == sizeof(uint64_t);
    case AGREEMENT_ENTRY_VIEW: {
        wire_request_t head;
        wire_member_t m;
        if (p->size < sizeof head) return false;
        memcpy(&head, bytes, sizeof head);
        size_t n = (size_t)head.n_join + head.n_leave;
        if (head.flags > REQUEST_EXPEL || head.n_join > AGREEMENT_CHANGES_MAX ||
            head.n_leave > AGREEMENT_CHANGES_MAX || p->size != sizeof head + n * sizeof m ||
            2u * head.n_join + head.n_leave > AGREEMENT_CHANGES_MAX ||
            sizeof(wire_view_t) + (2 * AGREEMENT_VOTERS_MAX + 2u * head.n_join + head.n_leave) * sizeof m >
                e->params.entry_max)
            return false;
        for (size_t i = 0; i < n; i++) {
            memcpy(&m, bytes + sizeof head + i * sizeof m, sizeof m);
            if (m.core >= e->params.n_cores) return false;
        }
        return true;
    }
    default:
        return false;
    }
}

void recv_forward(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    struct {
        wire_refused_head_t head;
        wire_refused_t refused[FORWARDS_MAX];
    } m;
    unsigned n = 0, n_refused = 0;
    for (size_t at = 0; at < size; n++) {
        wire_proposal_t p;
        if (n == FORWARDS_MAX || size - at < sizeof p) {
            engine_protocol_error(e, "ignoring the rest of FORWARD: cut short, or too many");
            return;
        }
        memcpy(&p, bytes + at, sizeof p);
        at += sizeof p;
        if (size - at < padded(p.size) || !valid(e, &p, bytes + at)) {
            engine_protocol_error(e, "ignoring the rest of FORWARD: a proposal that cannot be");
            return;
        }
        wire_refused_t *r = &m.refused[n_refused];
        proposal_order(e, &p, bytes + at, r);
        /* That it is held is worth saying only to one that asks again. */
        if (r->why != 0 && (r->why != REFUSED_HELD || p.again)) n_refused++;
        at += padded(p.size);
    }
    if (n_refused == 0) return;
    m.head = (wire_refused_head_t){
        .view = e->view, .term = e->term, .applied = e->applied, .leader = to_wire(e->leader, 0)};
    send_one(e, MESSAGE_REFUSED, &m, sizeof m.head + n_refused * sizeof *m.refused, from);
}
