/*
 * The steady state: what a machine does nearly all the time, straight through and in few instructions. A leader with a
 * quorum and nothing else to do takes a proposal; its voters an APPEND that goes on where their logs end; it their ACCEPTED.
 *
 * A shortcut does exactly what the general code would do with that event (proposal.c, recv_append.c, recv_accepted.c, and
 * finish() of agreement.c), or nothing at all. What all of them rely on is worked out once, by steady_state() after each
 * step that went the general way, and no shortcut ends it; what depends on the event is looked at here. The test
 * steady_is_the_same runs whole machines with shortcuts and without, and compares all that comes out.
 */
#include "consensus/engine.h"

/* As they come: at any address. */
typedef wire_append_t append_in_t __attribute__((aligned(1)));
typedef wire_accepted_t accepted_in_t __attribute__((aligned(1)));
typedef wire_entry_t entry_in_t __attribute__((aligned(1)));

/* In the view, alive as far as is known here, and not about to be expelled. */
static bool well(const agreement_t *e, agreement_member_t m)
{
    return member_in(e, m) && !bit_get(e->dead, m.core) && !bit_get(e->believed, m.core);
}

steady_t steady_state(const agreement_t *e)
{
    const config_t *c = config_newest(e);
    bool usual = e->formed && e->quorum && !e->expelled && !e->lost && !e->pending && !c->joint &&
                 e->n_reads == 0 && e->applied == e->committed && e->n_group_left == 0 &&
                 e->params.defects == 0 && !e->params.plain && e->stand_to.core == RF_CORE_NONE &&
                 member_in(e, e->params.self);
    if (!usual) return STEADY_NOT;
    if (leads(e)) {
        if ((e->due & ~(uint32_t)(DUE_FEED | DUE_COMMIT)) != 0 || e->transferring ||
            e->committed < e->term_index || e->n_served > 0 || e->n_suspicions > 0 || e->change_round != 0 ||
            (e->sealed_index != 0 && e->sealed_index == e->last) || config_sets(e, c, e->params.self) == 0)
            return STEADY_NOT;
        for (unsigned i = 0; i < e->n_voters; i++) {
            if (!well(e, e->progress[i].member)) return STEADY_NOT;
        }
        return STEADY_LEADS;
    }
    bool idle = e->role == AGREEMENT_ROLE_FOLLOWER && (e->due & ~(uint32_t)DUE_FEED) == 0 &&
                e->waits_term == 0 && e->last > 0 && e->spread_term == e->term &&
                e->leader.core != RF_CORE_NONE && !e->leader_unheard && well(e, e->leader);
    return idle ? STEADY_FOLLOWS : STEADY_NOT;
}

static inline void end_step(agreement_t *e, uint64_t next_tick_ns)
{
    earlier(&next_tick_ns, e->groups_tick_ns);
    e->output.next_tick_ns = next_tick_ns;
    e->output.only_notice = e->lazy;
    rf_assert(e->applied <= e->committed && e->committed <= e->last && e->first <= e->last + 1);
}

/* The first message of the output, as send_end(). */
static inline void send_first(agreement_t *e, uint8_t type, size_t size, unsigned n_to)
{
    rf_assert(e->output.n_messages == 0 && size <= AGREEMENT_MESSAGE_MAX);
    e->output.n_messages = 1;
    e->n_to = n_to;
    e->arena_used = (uint32_t)padded(size);
    agreement_message_t *m = e->output.messages;
    m->to = e->to;
    m->n_to = n_to;
    m->type = type;
    m->bytes = e->arena;
    m->size = size;
    if (e->resend_at_ns == RF_NEVER && e->params.resend_ns != RF_NEVER)
        e->resend_at_ns = e->now_ns + e->params.resend_ns;
}

/* ---- the leader ---- */

/* A new command of the session that was used last: nobody would refuse it. */
static inline bool propose(agreement_t *e, const agreement_event_t *event)
{
    uint64_t session = event->propose.session, sequence = event->propose.sequence;
    size_t size = event->propose.size;
    const session_t *s = e->session_last;
    if (s->id != session || session == 0 || sequence <= s->high || size > e->params.entry_max || size == 0 ||
        e->n_proposals == e->params.proposals_max || !(session & SESSION_OPENED || session == e->own_session))
        return false;
    uint64_t index = e->last + 1 + AGREEMENT_LOG_RESERVED;
    if (index > e->params.log_max &&
        (index - e->params.log_max > e->applied || index - e->params.log_max > e->trim_limit))
        return false;
    unsigned at = proposal_map_find(e, session, sequence);
    if (e->proposal_map[at] != 0) return false;
    if ((e->n_unknown | e->n_unknown_until | e->unknown_old) != 0 &&
        proposal_may_be_in_log(e, session, sequence))
        return false;
    proposal_t *p =
        proposal_new(e, at, AGREEMENT_ENTRY_COMMAND, session, sequence, event->propose.bytes, size);
    p->sent = p->ever_sent = true;

    uint32_t need = (uint32_t)(sizeof(wire_entry_t) + padded(size));
    wire_entry_t *entry = log_place(e, need);
    entry->term = e->last_term = e->term;
    entry->session = session;
    entry->sequence = sequence;
    entry->kind = AGREEMENT_ENTRY_COMMAND;
    entry->size = (uint16_t)size;
    entry->reserved = 0;
    if (size % 8 != 0) memset((uint8_t *)entry + need - 8, 0, 8);
    copy_bytes(entry + 1, event->propose.bytes, size);
    e->due |= DUE_FEED | (e->n_voters == 0 ? DUE_COMMIT : 0u);
    return true;
}

/* Of this term, from a voter that misses nothing. */
static inline bool accepted(agreement_t *e, const agreement_event_t *event)
{
    const accepted_in_t *m = event->receive.bytes;
    progress_t *p = e->progress;
    const progress_t *end = p + e->n_voters;
    while (p < end && !same(p->member, event->receive.from)) p++;
    if (p == end || event->receive.size != sizeof *m || p->mode != PROGRESS_STREAM || p->candidate ||
        m->term != e->term || m->flags != 0 || m->match > e->last || m->applied > m->committed ||
        m->committed > e->last)
        return false;
    p->heard_ns = e->now_ns;
    if (m->applied > p->applied) p->applied = m->applied;
    if (m->match > p->match) {
        p->match = m->match;
        if (m->match > e->committed) e->due |= DUE_COMMIT;
        if (p->next <= m->match) p->next = m->match + 1;
    }
    if (p->next <= e->last) e->due |= DUE_FEED;
    if (m->round > p->round && m->round <= e->round) p->round = m->round;
    return true;
}

/* There is one set, and it votes itself: what half of the set besides it holds is committed. */
static inline void commit(agreement_t *e)
{
    unsigned half = config_newest(e)->n_new / 2u, n = 0;
    uint64_t held = half > 0 ? 0 : e->last;
    for (unsigned i = 0; i < e->n_voters; i++) {
        uint64_t match = e->progress[i].match;
        n += match > e->committed;
        if (match > held) held = match;
    }
    if (n < half) return;
    if (half > 1) held = progress_majority(e, PROGRESS_MATCH, e->last);
    rf_assert(held > e->committed && held >= e->term_index && held <= e->last);
    e->committed = held;
}

/* To all other voters the same entries, which lie together. False: they need not be the same, or not only these. */
static inline bool feed(agreement_t *e)
{
    progress_t *p = e->progress;
    const unsigned n = e->n_voters;
    const uint64_t next = p->next;
    if (n == 0 || n != e->n_progress || next > e->last || next < e->first) return false;
    const uint32_t from = e->offsets[next & (e->params.log_max - 1)];
    const uint32_t used = e->log_end - from; /* of no use if they begin again between */
    if (from >= e->log_end || used > AGREEMENT_MESSAGE_MAX - sizeof(wire_append_t)) return false;
    for (unsigned i = 0; i < n; i++) {
        if (p[i].next != next || p[i].mode != PROGRESS_STREAM || p[i].ask || p[i].dead ||
            p[i].applied + e->params.log_max / 2 < e->committed)
            return false;
    }
    for (unsigned i = 0; i < n; i++) {
        p[i].next = e->last + 1;
        p[i].commit_sent = e->committed;
        e->to[i] = p[i].member;
    }
    wire_append_t *head = (wire_append_t *)(void *)e->arena;
    head->view = e->view;
    head->term = e->term;
    head->prev_index = next - 1;
    head->prev_term = log_term(e, next - 1);
    head->committed = e->committed;
    head->round = e->round;
    head->leader = to_wire(e->leader, 0);
    head->n = (uint32_t)(e->last + 1 - next);
    head->flags = 0;
    copy_bytes(head + 1, e->log + from, used);
    send_first(e, MESSAGE_APPEND, sizeof *head + used, n);
    e->lazy = false;
    e->due &= ~(uint32_t)DUE_FEED;
    return true;
}

static inline void finish_leader(agreement_t *e)
{
    if (e->due & DUE_COMMIT) {
        e->due &= ~(uint32_t)DUE_COMMIT;
        commit(e);
    }
    uint64_t applied = e->applied;
    if (applied != e->committed) {
        apply_committed(e);
        /* As in finish(): those who learn of it by a message of its own. */
        e->lazy = e->output.n_completions >= e->applied - applied;
        if (!e->lazy || e->n_progress != e->n_voters) e->due |= DUE_FEED;
    }
    if ((e->due & DUE_FEED) && !feed(e)) send_all(e);
    if (e->groups) engine_groups_finish(e);
    uint64_t next = e->resend_at_ns;
    earlier(&next, e->heartbeat_at_ns);
    earlier(&next, e->check_at_ns);
    if (e->lazy)
        next = e->now_ns;
    else if (e->n_candidates > 0)
        next = engine_next_tick_ns(e);
    end_step(e, next);
}

/* ---- a voter that follows ---- */

/* From the leader: commands of its term, or none, that go on where the log ends. All of them fit the ring as they are. */
static inline bool append(agreement_t *e, const agreement_event_t *event)
{
    const agreement_member_t from = event->receive.from;
    const size_t size = event->receive.size;
    const append_in_t *head = event->receive.bytes;
    if (size < sizeof *head || size > AGREEMENT_MESSAGE_MAX || !same(from, e->leader) ||
        head->leader.core != from.core || head->leader.incarnation != from.incarnation ||
        head->term != e->term || head->prev_index != e->last || head->prev_term != e->last_term ||
        e->matched != e->last || (head->flags & ~(uint32_t)APPEND_ASK) != 0)
        return false;
    const uint8_t *entries = (const uint8_t *)(head + 1), *at = entries;
    uint32_t left = (uint32_t)(size - sizeof *head);
    const uint32_t n = head->n, used = left, log_max = e->params.log_max;
    const uint64_t last = e->last + n;
    if ((last > log_max && last - log_max > e->applied) || e->log_end + used > e->log_size) return false;
    for (uint32_t i = 0; i < n; i++) {
        const entry_in_t *entry = (const entry_in_t *)(const void *)at;
        if (left < sizeof *entry || entry->kind != AGREEMENT_ENTRY_COMMAND || entry->term != e->term ||
            entry->session == 0 || entry->sequence == 0 || entry->size > e->params.entry_max)
            return false;
        uint32_t need = (uint32_t)(sizeof *entry + padded(entry->size));
        if (left < need) return false;
        left -= need;
        at += need;
    }
    if (left != 0) return false;

    if (n > 0) {
        if (last - e->first >= log_max) { /* what it takes the place of */
            e->first_term = log_at(e, last - log_max)->term;
            e->first = last - log_max + 1;
        }
        copy_bytes(e->log + e->log_end, entries, used);
        uint32_t offset = e->log_end;
        for (uint64_t index = e->last + 1;; index++) {
            e->offsets[index & (log_max - 1)] = offset;
            if (index == last) break;
            const wire_entry_t *entry = (const wire_entry_t *)(const void *)(e->log + offset);
            offset += (uint32_t)(sizeof *entry + padded(entry->size));
        }
        e->log_end += used;
        e->last = e->matched = last;
        e->last_term = e->term;
    }
    e->ack_to = e->parent =
        e->leader; /* which is who sent it; but whole in memory, not just written in parts */
    e->ack_flags = 0;
    e->ack_round = head->round;
    if (n > 0 || (head->flags & APPEND_ASK)) e->ack_due = true;
    e->leader_heard_ns = e->parent_heard_ns = e->now_ns;
    e->attempts = 0;
    e->election_at_ns = add_ns(add_ns(e->now_ns, e->params.election_ns), e->spread_ns);
    if (head->committed > e->known_committed) e->known_committed = head->committed;
    uint64_t committed = head->committed < last ? head->committed : last;
    if (committed > e->committed) {
        e->committed = committed;
        if (e->n_progress > 0) e->due |= DUE_FEED;
    }
    return true;
}

static inline void finish_follower(agreement_t *e)
{
    if (e->applied != e->committed) apply_committed(e);
    if (e->due & DUE_FEED) {
        send_all(e);
    } else if (e->ack_due) {
        send_ack_put(e);
        send_first(e, MESSAGE_ACCEPTED, sizeof(wire_accepted_t), 1);
    }
    if (e->groups) engine_groups_finish(e);
    uint64_t next = e->resend_at_ns;
    earlier(&next, e->election_at_ns);
    if (e->params.election_ns != RF_NEVER)
        earlier(&next, add_ns(e->leader_heard_ns, 3 * e->params.election_ns));
    end_step(e, next);
}

/* ---- one function an event, each with registers to itself ---- */

static inline bool held(agreement_t *e, const agreement_event_t *event)
{
    e->n_shortcuts++;
    if (!event->hold || completion_room(e) <= AGREEMENT_COMPLETIONS_MAX / 2) return false;
    e->output.next_tick_ns = e->now_ns;
    e->output.only_notice = false;
    return true;
}

static __attribute__((noinline)) bool step_proposal(agreement_t *e, const agreement_event_t *event)
{
    if (!propose(e, event)) return false;
    if (!held(e, event)) finish_leader(e);
    return true;
}

static __attribute__((noinline)) bool step_accepted(agreement_t *e, const agreement_event_t *event)
{
    if (!accepted(e, event)) return false;
    if (!held(e, event)) finish_leader(e);
    return true;
}

static __attribute__((noinline)) bool step_append(agreement_t *e, const agreement_event_t *event)
{
    if (!append(e, event)) return false;
    if (!held(e, event)) finish_follower(e);
    return true;
}

bool steady_step(agreement_t *e, const agreement_event_t *event)
{
    if (event->kind == AGREEMENT_PROPOSE) return e->steady == STEADY_LEADS && step_proposal(e, event);
    if (event->kind != AGREEMENT_RECEIVE) return false;
    if (event->receive.type == MESSAGE_ACCEPTED) return e->steady == STEADY_LEADS && step_accepted(e, event);
    return event->receive.type == MESSAGE_APPEND && e->steady == STEADY_FOLLOWS && step_append(e, event);
}
