/*
 * APPEND: entries after prev_index, and how far the log is committed. From the leader of the term, to voters: the log
 * matching property holds because entries are taken only after one that is known to be the same (Raft 3.5). With FEED,
 * from whoever: entries that are committed, all of them; they need no term to be believed.
 *
 * What is committed here is in the log of whoever may send this. So an APPEND that begins inside it matches there, and if
 * something is missing the answer is what is known to be the same: the sender goes on from that.
 */
#include "consensus/engine.h"

typedef struct append {
    wire_append_t head;
    const uint8_t *entries;
    size_t size;
} append_t;

static bool well_formed(agreement_t *e, const append_t *a)
{
    size_t at = 0;
    uint64_t index = a->head.prev_index + 1, term = a->head.prev_term;
    for (uint32_t i = 0; i < a->head.n; i++, index++) {
        wire_entry_t entry;
        if (a->size - at < sizeof entry) return false;
        memcpy(&entry, a->entries + at, sizeof entry);
        at += sizeof entry;
        if (entry.size > e->params.entry_max || a->size - at < padded(entry.size) || entry.term < term ||
            entry.term > a->head.term)
            return false;
        bool plain = entry.kind == AGREEMENT_ENTRY_COMMAND && entry.session != 0 && entry.sequence > 0 &&
                     index > 1 && entry.term > 0;
        if (!plain && !log_entry_valid(e, &entry, a->entries + at, index)) return false;
        term = entry.term;
        at += padded(entry.size);
    }
    return at == a->size;
}

/* The first APPEND of all, to one that knows nothing: only what a machine is formed with may begin so. */
static bool forms_me(const agreement_t *e, const append_t *a)
{
    wire_form_t form;
    const wire_entry_t *entry = (const wire_entry_t *)(const void *)a->entries;
    if (e->params.self.incarnation != 1) return true; /* joins: what it is fed is what it gets to know */
    const uint8_t *body = a->entries + sizeof *entry;
    memcpy(&form, body, sizeof form);
    const uint8_t *list = body + sizeof form + form.n_voters * sizeof(rf_core_t);
    rf_core_t lowest = 0;
    while (lowest < e->params.n_cores && !config_form_member(&form, list, lowest)) lowest++;
    return config_form_member(&form, list, e->params.self.core) &&
           (a->head.term > 1 || (a->head.leader.core == lowest && a->head.leader.incarnation == 1));
}

static void reject(agreement_t *e, const char *why)
{
    engine_ignore(e, why);
    e->ack_flags |= ACCEPTED_REJECT;
    e->ack_due = true;
}

static void commit(agreement_t *e, uint64_t committed)
{
    if (committed > e->matched) committed = e->matched;
    if (committed > e->committed) log_commit(e, committed);
}

/* The log is the sender's up to prev_index. */
static void take_entries(agreement_t *e, const append_t *a)
{
    uint64_t index = a->head.prev_index;
    if (index > e->matched) e->matched = index;
    commit(e, a->head.committed);
    const uint8_t *at = a->entries;
    for (uint32_t i = 0; i < a->head.n; i++) {
        wire_entry_t entry;
        memcpy(&entry, at, sizeof entry);
        const uint8_t *body = at + sizeof entry;
        at = body + padded(entry.size);
        index++;
        if (index <= e->last) {
            if (index <= e->committed || log_term(e, index) == entry.term) { /* held already */
                if (index > e->matched) e->matched = index;
                continue;
            }
            log_truncate(e, index - 1);
        }
        bool configures = entry.kind == AGREEMENT_ENTRY_VIEW || entry.kind == AGREEMENT_ENTRY_FORM;
        if (configures && e->pending) commit(e, a->head.committed);
        if (configures &&
            e->pending) { /* the leader starts a change when the one before is committed, and says so */
            engine_protocol_error(e, "ignoring entries: two changes of membership at once");
            return;
        }
        if (!log_accept(e, &entry, body)) {
            commit(e, a->head.committed);
            apply_committed(e);
            if (!log_accept(e, &entry, body)) {
                reject(e, "ignoring entries: my log ring is full until I have applied more");
                return;
            }
        }
        e->matched = index;
    }
    uint64_t end = a->head.prev_index + a->head.n;
    bool seal = (a->head.flags & APPEND_SEAL) && !(a->head.flags & APPEND_FEED);
    if (seal && index == end && e->matched >= end) log_seal(e, end, a->head.term);
    commit(e, a->head.committed);
}

void recv_append(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    append_t a = {.entries = bytes + sizeof a.head, .size = size - sizeof a.head};
    if (size < sizeof a.head) {
        engine_protocol_error(e, "ignoring APPEND: cut short");
        return;
    }
    memcpy(&a.head, bytes, sizeof a.head);
    bool feed = a.head.flags & APPEND_FEED;
    agreement_member_t leader = from_wire(a.head.leader);
    if (a.head.prev_index > UINT64_MAX / 2 || a.head.n > AGREEMENT_MESSAGE_MAX || a.head.term == 0 ||
        !term_possible(e, a.head.term) || (leader.core >= e->params.n_cores && leader.core != RF_CORE_NONE) ||
        (!feed && !same(leader, from)) || !well_formed(e, &a) ||
        (feed && a.head.committed < a.head.prev_index + a.head.n)) {
        engine_protocol_error(e, "ignoring APPEND: it cannot be");
        return;
    }
    if (e->expelled) {
        engine_ignore(e, "ignoring APPEND: I have been expelled");
        return;
    }
    e->ack_to = from;
    e->ack_flags = feed ? ACCEPTED_FEED : 0;
    e->ack_round = a.head.round;
    if (!e->formed && e->last == 0 && a.head.n > 0 && a.head.prev_index == 0 && !forms_me(e, &a)) {
        engine_ignore(e, "ignoring APPEND: a machine that this core is no member of");
        return;
    }
    if (!feed && a.head.term < e->term) {
        reject(e, "ignoring APPEND: of an earlier term");
        e->ack_round = 0;
        return;
    }
    if (!feed && leads(e) && a.head.term == e->term) {
        engine_protocol_error(e, "ignoring APPEND: I lead this term");
        return;
    }
    if (a.head.term > e->term && !role_adopt_term(e, a.head.term)) return;
    if (!e->formed && e->last == 0 && e->params.self.incarnation == 1 && a.head.prev_index > 0) {
        reject(e, "ignoring entries: the first are missing");
        return;
    }
    if (!feed) {
        if (e->leader.core != RF_CORE_NONE && !same(e->leader, from)) {
            engine_protocol_error(e, "ignoring APPEND: another leads this term");
            return;
        }
        role_follow(e, from);
    } else if (!leads(e) && a.head.term == e->term && !is_self(e, leader)) {
        if (e->leader.core == RF_CORE_NONE && leader.core != RF_CORE_NONE)
            role_follow(e, leader);
        else if (e->role == AGREEMENT_ROLE_LEARNER && leader.core != RF_CORE_NONE)
            role_heard(e);
    }
    e->parent = from;
    if (leader.core != RF_CORE_NONE)
        e->parent_heard_ns = e->now_ns; /* else it feeds, but knows of no quorum */
    if (a.head.committed > e->known_committed) e->known_committed = a.head.committed;
    if (leads(e)) return; /* a leader has all that is committed */

    /* Fed entries that come out of turn, or differ from what is not committed here: only what is committed counts. */
    bool matches = a.head.prev_index <= e->committed ||
                   (a.head.prev_index <= e->last && log_term(e, a.head.prev_index) == a.head.prev_term);
    if (feed && !matches && a.head.prev_index <= e->last) log_truncate(e, a.head.prev_index - 1);
    if (!matches) {
        if (e->matched < e->committed) e->matched = e->committed;
        reject(e, "ignoring entries: some before them are missing or differ");
        return;
    }
    take_entries(e, &a);
    if (feed && !same(from, e->leader)) e->fed_ns = e->now_ns;
    if (feed && same(from, e->leader) && e->fed_ns > e->fetched_ns &&
        add_ns(e->fed_ns, e->params.election_ns) > e->now_ns)
        e->ack_flags |= ACCEPTED_FED;
    if (a.head.n > 0 || (a.head.flags & APPEND_ASK)) e->ack_due = true;
}
