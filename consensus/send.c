/* What every member still has to be told, made from state: nothing is queued, so nothing is lost by dropping. */
#include "consensus/engine.h"

void send_one(agreement_t *e, uint8_t type, const void *bytes, size_t size, agreement_member_t to)
{
    uint8_t *out = send_begin(e, size);
    if (!out || to.core == e->params.self.core) return; /* asked for again */
    memcpy(out, bytes, size);
    e->to[e->n_to] = to;
    send_end(e, type, size, 1);
}

/* ---- entries ---- */

/* What lies together is copied at once. */
uint32_t send_put_entries(const agreement_t *e, uint64_t first, uint64_t last, uint8_t *out, size_t *size,
                          size_t max)
{
    const uint64_t mask = e->params.log_max - 1;
    uint64_t index = first;
    while (index <= last) {
        uint32_t from = e->offsets[index & mask], end = from;
        while (index <= last && e->offsets[index & mask] == end) {
            const wire_entry_t *entry = (const wire_entry_t *)(const void *)(e->log + end);
            uint32_t need = (uint32_t)(sizeof *entry + padded(entry->size));
            if (*size + (end - from) + need > max) {
                last = 0;
                break;
            }
            end += need;
            index++;
        }
        memcpy(out + *size, e->log + from, end - from);
        *size += end - from;
    }
    return (uint32_t)(index - first);
}

static inline bool lacks(const agreement_t *e, const progress_t *p)
{
    if (p->dead || p->mode == PROGRESS_SNAPSHOT) return false;
    if (p->ask) return true;
    return p->mode == PROGRESS_STREAM &&
           (p->next <= (p->sets ? e->last : e->committed) || (p->commit_sent < e->committed && !e->lazy));
}

/* One message for all who are at the same place; learners have one each where the plan is so. False: the output is full, or it needs a snapshot that cannot be made before
 * the next step. */
static bool send_append(agreement_t *e, unsigned i)
{
    progress_t *p = &e->progress[i];
    if (p->next < e->first) return snapshot_start(e, p) && snapshot_send(e, p);
    uint64_t next = p->next;
    uint8_t mode = p->mode;
    bool feed = p->sets == 0;
    uint8_t *out = send_begin(e, AGREEMENT_MESSAGE_MAX);
    if (!out) return false;
    size_t size = sizeof(wire_append_t);
    uint32_t n = mode == PROGRESS_SILENT ? 0
                                         : send_put_entries(e, next, feed ? e->committed : e->last, out,
                                                            &size, AGREEMENT_MESSAGE_MAX);
    /* Entries are answered anyway; a voter whose place in the ring is needed is asked how far it is. */
    bool ask = false;
    unsigned n_to = 0;
    agreement_member_t *to = e->to + e->n_to;
    const unsigned end = feed && e->params.plan == AGREEMENT_PLAN_UNICAST ? i + 1 : e->n_progress;
    for (unsigned k = i; k < end; k++) {
        progress_t *q = &e->progress[k];
        if (q->next != next || (q->sets == 0) != feed || q->mode != mode || !lacks(e, q)) continue;
        ask |= q->ask || q->applied + e->params.log_max / 2 < e->committed;
        q->ask = false;
        q->next += n;
        q->commit_sent = e->committed;
        to[n_to++] = q->member;
    }
    bool seal = !feed && leads(e) && e->sealed_term == e->term && e->sealed_index == next - 1 + n;
    *(wire_append_t *)(void *)out = (wire_append_t){
        .view = e->view,
        .term = e->term,
        .prev_index = next - 1,
        .prev_term = log_term(e, next - 1),
        .committed = e->committed,
        .round = e->round,
        .leader = to_wire(feed && !e->quorum ? NOBODY : e->leader, 0),
        .n = n,
        .flags = (ask ? APPEND_ASK : 0u) | (feed ? APPEND_FEED : 0u) | (seal ? APPEND_SEAL : 0u)};
    send_end(e, MESSAGE_APPEND, size, n_to);
    if (!feed) e->lazy = false; /* what learners are sent tells no voter */
    return true;
}

static void send_feed(agreement_t *e)
{
    for (unsigned i = 0; i < e->n_progress; i++) {
        progress_t *p = &e->progress[i];
        if (e->lanes && lane_serves(e, p)) {
            if (!lane_feed(e, p)) return;
            continue;
        }
        if (!p->dead && p->mode == PROGRESS_SNAPSHOT && !snapshot_send(e, p)) return;
        while (lacks(e, p)) {
            if (!send_append(e, i)) return;
        }
    }
    e->due &= ~(uint32_t)DUE_FEED;
}

static void send_stand(agreement_t *e)
{
    const progress_t *p = progress_find(e, e->stand_to);
    if (!p || p->dead) {
        e->stand_to = NOBODY;
        return;
    }
    if (p->match < e->last) return;
    wire_vote_request_t m = {.view = e->view, .term = e->term, .flags = VOTE_STAND};
    send_one(e, MESSAGE_VOTE_REQUEST, &m, sizeof m, e->stand_to);
    e->stand_to = NOBODY; /* the resend timer says it again */
}

/* ---- everything else ---- */

static bool leader_in_reach(const agreement_t *e)
{
    return e->leader.core != RF_CORE_NONE && e->leader.core != e->params.self.core && !e->leader_dead &&
           !e->leader_unheard;
}

static void send_ack(agreement_t *e)
{
    uint8_t *out = send_begin(e, sizeof(wire_accepted_t) + sizeof(wire_lane_t));
    if (!out) return;
    size_t more = e->lanes ? lane_ack_put(e, out + sizeof(wire_accepted_t)) : 0;
    if (more > 0) e->ack_flags |= ACCEPTED_LANE;
    send_ack_put(e);
    send_end(e, MESSAGE_ACCEPTED, sizeof(wire_accepted_t) + more, 1);
}

static void send_votes(agreement_t *e)
{
    e->due &= ~(uint32_t)DUE_VOTES;
    if (e->role != AGREEMENT_ROLE_CANDIDATE) return;
    uint8_t *out = send_begin(e, sizeof(wire_vote_request_t));
    if (!out) {
        e->due |= DUE_VOTES;
        return;
    }
    const config_t *c = config_newest(e);
    agreement_member_t *to = e->to + e->n_to;
    unsigned n = 0;
    for (unsigned i = 0; i < c->n_new + (c->joint ? c->n_old : 0u); i++) {
        agreement_member_t m = i < c->n_new ? c->voters_new[i] : c->voters_old[i - c->n_new];
        bool again = i >= c->n_new && config_find(e, c->voters_new, c->n_new, m) < c->n_new;
        if (m.core != e->params.self.core && !again && !member_dead(e, m)) to[n++] = m;
    }
    if (n == 0) return;
    wire_vote_request_t m = {.view = e->view,
                             .term = e->term + e->pre,
                             .last_term = log_vote_term(e),
                             .last_index = e->last,
                             .flags = (e->pre ? VOTE_PRE : 0u) |
                                      (e->pre && e->leader_unheard ? VOTE_CLAIM : 0u) |
                                      (e->stands_by_transfer ? VOTE_TRANSFER : 0u)};
    if (e->leader_dead) {
        m.flags |= VOTE_EVIDENCE;
        m.dead = to_wire(e->dead_leader, 0);
    }
    memcpy(out, &m, sizeof m);
    send_end(e, MESSAGE_VOTE_REQUEST, sizeof m, n);
}

static void send_forwards(agreement_t *e)
{
    if (e->now_ns < e->retry_at_ns) return;
    if (!leader_in_reach(e)) return;
    for (;;) {
        uint8_t *out = NULL;
        size_t size = 0;
        unsigned n = 0;
        proposal_t *p;
        while (n < FORWARDS_MAX && (p = proposal_next_unsent(e)) != NULL) {
            if (size + sizeof(wire_proposal_t) + padded(p->size) > AGREEMENT_MESSAGE_MAX) break;
            if (!out && !(out = send_begin(e, AGREEMENT_MESSAGE_MAX))) return;
            wire_proposal_t head = {.session = p->session,
                                    .sequence = p->sequence,
                                    .kind = p->kind,
                                    .size = p->size,
                                    .again = p->ever_sent};
            memcpy(out + size, &head, sizeof head);
            size += sizeof head;
            memset(out + size, 0, padded(p->size));
            memcpy(out + size, p->bytes, p->size);
            size += padded(p->size);
            p->sent = p->ever_sent = true;
            p->sent_ns = e->now_ns;
            n++;
        }
        if (n == 0) break;
        e->to[e->n_to] = e->leader;
        send_end(e, MESSAGE_FORWARD, size, 1);
    }
    e->due &= ~(uint32_t)DUE_PROPOSALS;
}

/* The leader takes its own as it takes others'. */
static void order_own(agreement_t *e)
{
    proposal_t *p;
    if (e->now_ns < e->retry_at_ns) return;
    while ((p = proposal_next_unsent(e)) != NULL) {
        wire_proposal_t head = {.session = p->session,
                                .sequence = p->sequence,
                                .kind = p->kind,
                                .size = p->size,
                                .again = p->ever_sent};
        wire_refused_t refused;
        if (completion_room(e) == 0) {
            e->output.more = true;
            return;
        }
        proposal_order(e, &head, p->bytes, &refused);
        if (refused.why == REFUSED_FULL || refused.why == REFUSED_NOT_LEADER) {
            e->retry_at_ns = e->now_ns + engine_retry_ns(e);
            return;
        }
        p->sent = p->ever_sent = true;
        if (refused.why == REFUSED_ANSWER) {
            proposal_answer(e, p->session, p->sequence, (rf_err_t)refused.err, refused.value);
        } else if (refused.why == REFUSED_ERR) {
            proposal_refuse(e, p, refused.err, e->applied);
        }
    }
    e->due &= ~(uint32_t)DUE_PROPOSALS;
}

static void send_reads(agreement_t *e)
{
    struct {
        wire_head_t head;
        wire_read_t reads[AGREEMENT_READS_MAX];
    } m = {.head = {.view = e->view, .term = e->term}};
    unsigned n = 0;
    if (!leader_in_reach(e) || e->now_ns < e->retry_at_ns) return;
    if (e->n_reads > 0 && !send_begin(e, sizeof m))
        return; /* no room now: nothing repeats it where links lose nothing */
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && e->n_reads > 0; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used || r->sent || r->index != UINT64_MAX) continue;
        m.reads[n++] = (wire_read_t){.id = r->id};
        r->sent = true;
    }
    if (n > 0) send_one(e, MESSAGE_READ, &m, sizeof m.head + n * sizeof *m.reads, e->leader);
    e->due &= ~(uint32_t)DUE_READS;
}

static void send_reports(agreement_t *e)
{
    if (!leader_in_reach(e) || !e->formed) return;
    uint8_t *out = send_begin(e, AGREEMENT_MESSAGE_MAX);
    if (!out) return;
    size_t size = sizeof(wire_head_t);
    for (unsigned i = 0; i < (e->params.n_cores + 7u) / 8; i++) {
        if ((e->dead[i] | e->silent[i]) == 0) continue;
        for (unsigned core = i * 8; core < i * 8 + 8 && core < e->params.n_cores; core++) {
            bool dead = bit_get(e->dead, core), silent = bit_get(e->silent, core) && e->n_silent_tells < 3;
            if ((!dead && !silent) || member_state(e, (rf_core_t)core) != AGREEMENT_MEMBER_IN) continue;
            wire_member_t who = {.core = (rf_core_t)core,
                                 .flags = dead ? AGREEMENT_EVIDENCE_KERNEL : AGREEMENT_EVIDENCE_SILENCE,
                                 .incarnation = member_incarnation(e, (rf_core_t)core)};
            if (who.core == e->leader.core || size + sizeof who > AGREEMENT_MESSAGE_MAX) continue;
            memcpy(out + size, &who, sizeof who);
            size += sizeof who;
        }
    }
    if (member_in(e, e->stuck) && !same(e->stuck, e->leader) &&
        size + sizeof(wire_member_t) <= AGREEMENT_MESSAGE_MAX) { /* again when it is looked at again */
        wire_member_t who = to_wire(e->stuck, AGREEMENT_EVIDENCE_BEHIND);
        memcpy(out + size, &who, sizeof who);
        size += sizeof who;
    }
    e->stuck = NOBODY;
    e->due &= ~(uint32_t)DUE_REPORTS;
    e->reported = size > sizeof(wire_head_t);
    e->n_silent_tells++;
    if (size == sizeof(wire_head_t)) return;
    wire_head_t head = {.view = e->view, .term = e->term};
    memcpy(out, &head, sizeof head);
    e->to[e->n_to] = e->leader;
    send_end(e, MESSAGE_REPORT, size, 1);
}

static void send_fetch(agreement_t *e)
{
    e->due &= ~(uint32_t)DUE_FETCH;
    const config_t *c = config_newest(e);
    agreement_member_t to = e->leader;
    if ((to.core == RF_CORE_NONE || e->leader_dead || !e->quorum) &&
        c->n_new > 0) /* any voter has what is committed */
        to = c->voters_new[(e->params.self.core + e->n_fetches) % c->n_new];
    e->n_fetches++;
    if (to.core == RF_CORE_NONE || to.core == e->params.self.core) return;
    wire_fetch_t m = {.view = e->view, .term = e->term, .match = e->committed};
    send_one(e, MESSAGE_FETCH, &m, sizeof m, to);
}

static void send_left(agreement_t *e)
{
    e->due &= ~(uint32_t)DUE_LEFT;
    for (unsigned i = 0; i < e->n_left && leads(e); i++) {
        struct {
            wire_refused_head_t head;
            wire_refused_t refused;
        } m = {.head = {.view = e->view,
                        .term = e->term,
                        .applied = e->applied,
                        .leader = to_wire(e->leader, 0)},
               .refused = {.why = REFUSED_EXPELLED}};
        send_one(e, MESSAGE_REFUSED, &m, sizeof m, e->left[i]);
    }
    e->n_left = 0;
}

void send_all(agreement_t *e)
{
    if (e->ack_due) send_ack(e);
    uint32_t due = e->due;
    if (due & DUE_PROPOSALS) {
        if (leads(e)) {
            order_own(e);
            if (e->due & DUE_CHANGE) { /* that was one */
                e->due &= ~(uint32_t)DUE_CHANGE;
                change_step(e);
            }
            if (leads(e)) progress_commit(e);
            apply_committed(e);
        } else {
            send_forwards(e);
        }
        due |= e->due;
    }
    if (due & DUE_FEED) send_feed(e);
    if ((due & (DUE_VOTES | DUE_READS | DUE_REPORTS | DUE_FETCH | DUE_LEFT)) == 0 &&
        e->stand_to.core == RF_CORE_NONE)
        return;
    if (e->stand_to.core != RF_CORE_NONE) send_stand(e);
    if (due & DUE_LEFT) send_left(e);
    if (due & DUE_VOTES) send_votes(e);
    if (leads(e)) { /* it knows; whoever leads after it is told then */
        e->due &= ~(uint32_t)DUE_REPORTS;
        return;
    }
    if (due & DUE_REPORTS) send_reports(e);
    if (due & DUE_READS) send_reads(e);
    if (due & DUE_FETCH) send_fetch(e);
}

void send_again(agreement_t *e)
{
    e->resend_at_ns = RF_NEVER;
    progress_resend(e);
    if (!leads(e)) proposal_unsend_overdue(e);
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && e->n_reads > 0; i++) {
        if (e->reads[i].used && e->reads[i].index == UINT64_MAX) e->reads[i].sent = false;
        e->due |= DUE_READS;
    }
    if (e->n_served > 0 && leads(e)) role_next_round(e);
    if (e->reported) e->due |= DUE_REPORTS;
    if (e->role == AGREEMENT_ROLE_CANDIDATE) e->due |= DUE_VOTES;
    if (progress_waits(e) || e->n_proposals > 0 || e->n_reads > 0 || e->role == AGREEMENT_ROLE_CANDIDATE)
        earlier(&e->resend_at_ns, e->now_ns + e->params.resend_ns);
}
