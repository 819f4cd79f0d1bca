/* What every member still has to be told, made from state: nothing is queued, so nothing can be lost by
 * dropping. */
#include "consensus/engine.h"

uint8_t *send_begin(agreement_t *e)
{
    if (e->output.n_messages == AGREEMENT_MESSAGES_MAX || e->to_max - e->n_to < e->params.n_cores) {
        e->output.more = true;
        return NULL;
    }
    return e->buffers[e->output.n_messages];
}

void send_end(agreement_t *e, uint8_t type, size_t size, const rf_core_t *to, unsigned n_to)
{
    rf_assert(size <= AGREEMENT_MESSAGE_MAX && n_to > 0);
    unsigned i = e->output.n_messages++;
    e->output.messages[i] =
        (agreement_message_t){.to = to, .n_to = n_to, .type = type, .bytes = e->buffers[i], .size = size};
}

static void send_to(agreement_t *e, uint8_t type, size_t size, rf_core_t core)
{
    rf_core_t *to = &e->to[e->n_to++];
    *to = core;
    send_end(e, type, size, to, 1);
}

static bool reachable(const agreement_t *e, rf_core_t core)
{
    return core != e->params.self.core && !e->members[core].dead;
}

/* Answers to what this step received. The output is empty before them: they always fit. */
static void send_replies(agreement_t *e)
{
    uint8_t *out;
    if (e->n_refusals > 0 && (out = send_begin(e))) {
        memcpy(out, e->refusals, e->n_refusals * sizeof *e->refusals);
        send_to(e, MESSAGE_REFUSED, e->n_refusals * sizeof *e->refusals, e->reply_to);
    }
    if (e->n_read_replies > 0 && (out = send_begin(e))) {
        memcpy(out, e->read_replies, e->n_read_replies * sizeof *e->read_replies);
        send_to(e, MESSAGE_READ_INDEX, e->n_read_replies * sizeof *e->read_replies, e->reply_to);
    }
    if (e->group_reply.number > 0 && !e->members[e->reply_to].dead && (out = send_begin(e))) {
        memcpy(out, &e->group_reply, sizeof e->group_reply);
        send_to(e, MESSAGE_GROUP_DONE, sizeof e->group_reply, e->reply_to);
    }
}

/* Puts entries from `first` on into an APPEND; returns how many fitted. */
static uint32_t put_entries(agreement_t *e, uint64_t first, uint8_t *out, size_t *size)
{
    uint32_t n = 0;
    for (uint64_t index = first; index <= e->last; index++, n++) {
        const log_entry_t *entry = log_at(e, index);
        rf_assert(entry->index == index);
        if (*size + sizeof(wire_entry_t) + engine_padded(entry->size) > AGREEMENT_MESSAGE_MAX) break;
        wire_entry_t head = {.view = entry->view,
                             .session = entry->session,
                             .sequence = entry->sequence,
                             .kind = entry->kind,
                             .size = entry->size};
        memcpy(out + *size, &head, sizeof head);
        *size += sizeof head;
        memset(out + *size, 0, engine_padded(entry->size));
        memcpy(out + *size, entry->bytes, entry->size);
        *size += engine_padded(entry->size);
    }
    return n;
}

static bool lacks(const agreement_t *e, rf_core_t core)
{
    const member_t *m = &e->members[core];
    return m->voting && reachable(e, core) && (m->sent < e->last || m->commit_sent < e->committed);
}

/* Orderer: one message for all members that were sent equally much. */
static void send_appends(agreement_t *e)
{
    for (rf_core_t first = 0; first < e->params.n_cores; first++) {
        while (lacks(e, first)) {
            uint8_t *out = send_begin(e);
            if (!out) return;
            uint64_t from = e->members[first].sent + 1;
            size_t size = sizeof(wire_append_t);
            uint32_t n = put_entries(e, from, out, &size);
            wire_append_t head = {
                .view = e->view, .term = TERM, .first = from, .committed = e->committed, .n = n};
            memcpy(out, &head, sizeof head);
            rf_core_t *to = &e->to[e->n_to];
            unsigned n_to = 0;
            for (rf_core_t core = first; core < e->params.n_cores; core++) {
                member_t *m = &e->members[core];
                if (!lacks(e, core) || m->sent + 1 != from) continue;
                to[n_to++] = core;
                m->sent += n;
                m->commit_sent = e->committed;
            }
            e->n_to += n_to;
            send_end(e, MESSAGE_APPEND, size, to, n_to);
        }
    }
}

static void send_accepted(agreement_t *e)
{
    /* The orderer frees its ring by what is applied: tell it in time, also when it sends nothing. */
    if (!e->accept_due && e->applied - e->applied_told < e->params.log_max / 4) return;
    uint8_t *out = send_begin(e);
    if (!out) return;
    wire_accepted_t m = {
        .view = e->view, .term = TERM, .match = e->last, .committed = e->committed, .applied = e->applied};
    memcpy(out, &m, sizeof m);
    send_to(e, MESSAGE_ACCEPTED, sizeof m, ORDERER);
    e->accept_due = false;
    e->applied_told = e->applied;
}

/* The next proposal to send: the lowest sequence first, so that a caller's order is kept where links keep it.
 */
static proposal_t *next_unsent(agreement_t *e)
{
    proposal_t *next = NULL;
    for (unsigned i = 0; i < e->params.proposals_max; i++) {
        proposal_t *p = proposal_at(e, i);
        if (p->used && !p->sent && (!next || p->sequence < next->sequence)) next = p;
    }
    return next;
}

static void send_forwards(agreement_t *e)
{
    proposal_t *p = next_unsent(e);
    while (p) {
        uint8_t *out = send_begin(e);
        if (!out) return;
        size_t size = 0;
        unsigned n = 0;
        for (; p && n < REFUSALS_MAX; p = next_unsent(e), n++) {
            if (size + sizeof(wire_proposal_t) + engine_padded(p->size) > AGREEMENT_MESSAGE_MAX) break;
            wire_proposal_t head = {
                .session = p->session, .sequence = p->sequence, .kind = p->kind, .size = p->size};
            memcpy(out + size, &head, sizeof head);
            size += sizeof head;
            memset(out + size, 0, engine_padded(p->size));
            memcpy(out + size, p->bytes, p->size);
            size += engine_padded(p->size);
            p->sent = true;
        }
        send_to(e, MESSAGE_FORWARD, size, ORDERER);
    }
}

static void send_reports(agreement_t *e)
{
    uint8_t *out = NULL;
    size_t size = 0;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        member_t *m = &e->members[core];
        if (!m->report || m->report_sent) continue;
        if (!out && !(out = send_begin(e))) return;
        wire_member_t who = {.core = core, .incarnation = m->incarnation};
        if (size + sizeof who > AGREEMENT_MESSAGE_MAX) {
            e->output.more = true;
            break;
        }
        memcpy(out + size, &who, sizeof who);
        size += sizeof who;
        m->report_sent = true;
    }
    if (size > 0) send_to(e, MESSAGE_REPORT, size, ORDERER);
}

static void send_reads(agreement_t *e)
{
    uint8_t *out = NULL;
    size_t size = 0;
    for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used || r->sent) continue;
        if (!out && !(out = send_begin(e))) return;
        wire_read_t m = {.id = r->id};
        memcpy(out + size, &m, sizeof m);
        size += sizeof m;
        r->sent = true;
    }
    if (size > 0) send_to(e, MESSAGE_READ, size, ORDERER);
}

/* The orderer is dead: tell every survivor how far I know the log to be committed. */
static void send_committed(agreement_t *e)
{
    uint8_t *out = NULL;
    rf_core_t *to = NULL;
    unsigned n_to = 0;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        member_t *m = &e->members[core];
        if (m->commit_tells == 0 || m->state != AGREEMENT_MEMBER_IN || !reachable(e, core) ||
            e->committed == 0)
            continue;
        if (m->commit_sent >= e->committed) /* told; the resend timer takes it back */
            continue;
        if (!out) {
            if (!(out = send_begin(e))) return;
            to = &e->to[e->n_to];
        }
        to[n_to++] = core;
        m->commit_sent = e->committed;
        m->commit_tells--;
    }
    if (n_to > 0) {
        wire_committed_t m = {.view = e->view, .term = TERM, .committed = e->committed};
        memcpy(out, &m, sizeof m);
        e->n_to += n_to;
        send_end(e, MESSAGE_COMMITTED, sizeof m, to, n_to);
    }
}

static void send_groups(agreement_t *e)
{
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        group_op_t *op = &e->group_ops[i];
        if (!op->used || !op->started) continue;
        uint8_t *out = NULL;
        rf_core_t *to = NULL;
        unsigned n_to = 0;
        for (rf_core_t core = 0; core < e->params.n_cores; core++) {
            if (!group_bit(op->unsent, core)) continue;
            if (!out) {
                if (!(out = send_begin(e))) return;
                to = &e->to[e->n_to];
            }
            to[n_to++] = core;
        }
        if (n_to == 0) continue;
        memset(op->unsent, 0, (e->params.n_cores + 7u) / 8);
        wire_group_t head = {.number = op->number, .group = op->group, .epoch = op->epoch, .size = op->size};
        memcpy(out, &head, sizeof head);
        memcpy(out + sizeof head, op->bytes, op->size);
        e->n_to += n_to;
        send_end(e, MESSAGE_GROUP, sizeof head + op->size, to, n_to);
    }
}

void send_all(agreement_t *e)
{
    send_replies(e);
    if (engine_orders(e)) {
        send_appends(e);
    } else if (!e->lost) {
        send_accepted(e);
        send_reports(e);
        send_forwards(e);
        send_reads(e);
    } else {
        send_committed(e);
    }
    send_groups(e);
}

void send_rewind(agreement_t *e, rf_core_t core)
{
    member_t *m = &e->members[core];
    if (engine_orders(e)) {
        m->sent = m->match;
        m->commit_sent = m->commit_known;
    } else if (e->lost) {
        m->commit_sent = 0;
        if (e->params.resend_ns == RF_NEVER) m->commit_tells = 1;
    } else if (core == ORDERER) {
        e->accept_due = e->last > 0;
        for (unsigned i = 0; i < e->params.proposals_max; i++) proposal_at(e, i)->sent = false;
        for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) e->reads[i].sent = e->reads[i].index != UINT64_MAX;
        for (rf_core_t dead = 0; dead < e->params.n_cores; dead++) e->members[dead].report_sent = false;
    }
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        group_op_t *op = &e->group_ops[i];
        if (op->used && op->started && core != e->params.self.core && group_bit(op->remaining, core))
            op->unsent[core / 8] |= (uint8_t)(1u << (core % 8));
    }
}

bool send_waits(agreement_t *e)
{
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        if (e->group_ops[i].used) return true;
    }
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        const member_t *m = &e->members[core];
        if (!reachable(e, core)) {
            if (m->report && !e->lost) return true;
            continue;
        }
        if (engine_orders(e) && m->voting && (m->match < e->last || m->commit_known < e->committed))
            return true;
        if (e->lost && m->state == AGREEMENT_MEMBER_IN && m->commit_tells > 0) return true;
    }
    if (engine_orders(e) || e->lost) return false;
    for (unsigned i = 0; i < e->params.proposals_max; i++) {
        if (proposal_at(e, i)->used) return true;
    }
    for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
        if (e->reads[i].used) return true;
    }
    return false;
}
