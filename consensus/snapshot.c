/*
 * Snapshots, for whoever is behind what the ring holds (Raft 5). A sender has one at a time, of the last applied entry when
 * it was made; several receivers share it while the ring still follows on it. In chunks, some in flight at once: twice as many with each
 * round trip, few again when a link was full or something is missing.
 *
 * Under load the ring may pass the snapshot before it has arrived. For a learner nothing waits: it is sent another. For a voter the
 * leader takes no command that would overwrite what comes next for it (RF_ERR_AGAIN, as ever when the ring is full), for one voter at once,
 * a tenth of the time at most, and only while that voter answers.
 *
 *      header | members | sessions | the caller's machine
 */
#include "consensus/engine.h"

#define CHUNK          (AGREEMENT_MESSAGE_MAX - sizeof(wire_snapshot_t))
#define CHUNKS_MIN     4 /* in flight to one receiver */
#define CHUNKS_MAX     32
#define HOLD_NS        (100 * RF_NS_PER_MS) /* at most, at once; then not for nine times as long as it was */
#define HOLD_SILENT_NS (20 * RF_NS_PER_MS)  /* without an answer: to load the largest takes less */

typedef struct wire_state {
    uint64_t index, term, view, config_index, config_view, session, sequence;
    uint32_t members_size, sessions_size;
    uint32_t machine_size;
    uint16_t n_changes;
    uint8_t joint, n_old, n_new, formed, reserved[6];
} wire_state_t; /* followed by n_old, n_new and n_changes members */
_Static_assert(sizeof(wire_state_t) == 80, "no padding");

#define HEAD_MAX                                                                                             \
    (sizeof(wire_state_t) + (2 * AGREEMENT_VOTERS_MAX + AGREEMENT_CHANGES_MAX) * sizeof(wire_member_t))

/* A byte a core: incarnation << 2 | state; INCARNATION_INLINE + 1 says that four bytes more hold it. */
static size_t members_save(const agreement_t *e, uint8_t *out)
{
    size_t size = 0;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        uint32_t word = e->members[core];
        if (word >> 2 <= INCARNATION_INLINE) {
            out[size++] = (uint8_t)word;
            continue;
        }
        out[size++] = (uint8_t)((INCARNATION_INLINE + 1) << 2 | (word & 3));
        memcpy(out + size, &word, sizeof word);
        size += sizeof word;
    }
    return size;
}

static bool members_load(agreement_t *e, const uint8_t *bytes, size_t size, bool take)
{
    size_t at = 0;
    unsigned n = 0, escapes = 0;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        if (at == size) return false;
        uint32_t word = bytes[at++];
        if (word >> 2 == INCARNATION_INLINE + 1) {
            if (size - at < sizeof word || ++escapes > ESCAPES_MAX) return false;
            memcpy(&word, bytes + at, sizeof word);
            at += sizeof word;
        }
        if ((word & 3) == 3) return false;
        if (!take) continue;
        n += (word & 3) == AGREEMENT_MEMBER_IN;
        if (e->members[core] != word && !(word == (1u << 2 | AGREEMENT_MEMBER_IN) && e->members[core] == 0)) {
            bit_set(e->dead, core, false);
            bit_set(e->believed, core, false);
            bit_set(e->silent, core, false);
        }
        e->members[core] = word;
    }
    if (take) {
        e->n_members = n;
        e->n_escapes = escapes;
    }
    return at == size;
}

size_t snapshot_engine_max(const agreement_params_t *p)
{
    size_t escapes = p->n_cores < ESCAPES_MAX ? p->n_cores : ESCAPES_MAX;
    return HEAD_MAX + p->n_cores + escapes * sizeof(uint32_t) + session_save_max(p);
}

/* ---- sending ---- */

static void make(agreement_t *e)
{
    const config_t *c = config_committed(e);
    uint8_t *out = e->out.bytes;
    wire_state_t s = {.index = e->applied,
                      .term = log_term(e, e->applied),
                      .view = e->view,
                      .config_index = c->index,
                      .config_view = c->view,
                      .session = c->session,
                      .sequence = c->sequence,
                      .n_changes = c->joint ? c->n_changes : 0,
                      .joint = c->joint,
                      .n_old = c->n_old,
                      .n_new = c->n_new,
                      .formed = e->formed};
    size_t size = sizeof s;
    for (unsigned i = 0; i < s.n_old; i++, size += sizeof(wire_member_t))
        memcpy(out + size,
               &(wire_member_t){.core = c->voters_old[i].core, .incarnation = c->voters_old[i].incarnation},
               sizeof(wire_member_t));
    for (unsigned i = 0; i < s.n_new; i++, size += sizeof(wire_member_t))
        memcpy(out + size,
               &(wire_member_t){.core = c->voters_new[i].core, .incarnation = c->voters_new[i].incarnation},
               sizeof(wire_member_t));
    memcpy(out + size, c->changes, s.n_changes * sizeof(wire_member_t));
    size += s.n_changes * sizeof(wire_member_t);
    s.members_size = (uint32_t)members_save(e, out + size);
    size += s.members_size;
    s.sessions_size = (uint32_t)session_save(e, out + size);
    size += s.sessions_size;
    size_t machine =
        e->params.state_machine.save(e->params.state_machine.context, out + size, e->params.snapshot_max);
    s.machine_size = (uint32_t)(machine <= e->params.snapshot_max ? machine : 0);
    memcpy(out, &s, sizeof s);
    e->out.id = (e->n_snapshots++ << 16 | e->params.self.core) + 1;
    e->out.index = s.index;
    e->out.term = s.term;
    e->out.size = (uint32_t)(size + s.machine_size);
}

/* Needs the committed configuration to be the applied one, and something applied. False: when the rest is applied, which
 * the output says by `more`. */
bool snapshot_start(agreement_t *e, progress_t *p)
{
    transfer_t *t = &e->transfers[p - e->progress];
    if (e->applied == 0 || e->applied != e->committed) return false;
    bool usable = e->out.id != 0 && e->out.index + 1 >= e->first;
    if (!usable) make(e);
    *t = (transfer_t){.id = e->out.id, .moved = t->moved};
    p->window = CHUNKS_MIN;
    p->mode = PROGRESS_SNAPSHOT;
    return true;
}

bool snapshot_send(agreement_t *e, progress_t *p)
{
    transfer_t *t = &e->transfers[p - e->progress];
    if (t->id != e->out.id || e->out.index + 1 < e->first) { /* the ring has gone on past it: another */
        if (!snapshot_start(e, p)) return false;
    }
    while (t->sent < e->out.size && t->sent - t->acked < p->window * CHUNK) {
        uint8_t *out = send_begin(e, AGREEMENT_MESSAGE_MAX);
        if (!out) return false;
        wire_snapshot_t head = {.view = e->view,
                                .term = e->term,
                                .id = e->out.id,
                                .index = e->out.index,
                                .index_term = e->out.term,
                                .total = e->out.size,
                                .offset = t->sent,
                                .leader = to_wire(e->leader, 0)};
        uint32_t n = e->out.size - t->sent < CHUNK ? e->out.size - t->sent : (uint32_t)CHUNK;
        memcpy(out, &head, sizeof head);
        memcpy(out + sizeof head, e->out.bytes + t->sent, n);
        e->to[e->n_to] = p->member;
        send_end(e, MESSAGE_SNAPSHOT, sizeof head + n, 1);
        t->sent += n;
    }
    return true;
}

void snapshot_lost(agreement_t *e, progress_t *p)
{
    transfer_t *t = &e->transfers[p - e->progress];
    t->sent = t->acked;
    p->window = CHUNKS_MIN;
}

/* ---- what follows on a voter's ---- */

/* The voter for whom the ring is held; NULL: none any more. Looked at when there is no room, and when another might be. */
static const progress_t *held(agreement_t *e)
{
    if (!e->hold.on) return NULL;
    const progress_t *p = progress_find(e, e->hold.member);
    bool there = p && p->mode != PROGRESS_SNAPSHOT && p->match >= e->hold.floor &&
                 p->match + e->params.log_max / 4 >= e->committed;
    if (p && !there && !p->dead && p->sets != 0 && e->now_ns < add_ns(e->hold.since_ns, HOLD_NS) &&
        e->now_ns < add_ns(p->heard_ns, HOLD_SILENT_NS))
        return p;
    uint64_t took_ns = e->now_ns - e->hold.since_ns;
    e->hold.on = false;
    e->hold.next_ns = e->hold.since_ns + 10 * (took_ns < HOLD_NS ? took_ns : HOLD_NS);
    return NULL;
}

static void hold(agreement_t *e, const progress_t *p)
{
    if (p->sets == 0 || !leads(e) || held(e) || e->now_ns < e->hold.next_ns) return;
    e->hold.on = true;
    e->hold.member = p->member;
    e->hold.floor = e->out.index;
    e->hold.since_ns = e->now_ns;
    if (e->trim_limit > e->hold.floor) e->trim_limit = e->hold.floor;
}

uint64_t snapshot_trim_limit(agreement_t *e, uint64_t limit)
{
    const progress_t *p = held(e);
    if (!p) return limit;
    uint64_t floor = p->match > e->hold.floor ? p->match : e->hold.floor;
    return floor < limit ? floor : limit;
}

void snapshot_acked(agreement_t *e, progress_t *p, uint64_t id, uint64_t offset)
{
    transfer_t *t = &e->transfers[p - e->progress];
    if (p->mode == PROGRESS_SNAPSHOT && t->id != e->out.id) e->due |= DUE_FEED; /* another was made since */
    if (p->mode != PROGRESS_SNAPSHOT || t->id != id || id != e->out.id || offset > e->out.size) return;
    if (offset == e->out.size) {
        e->n_snapshots_sent++;
        p->mode = PROGRESS_STREAM;
        if (e->out.index > p->match && p->sets == 0) p->match = e->out.index;
        p->next = e->out.index + 1;
        p->ask = true;
        *t = (transfer_t){.moved = t->moved};
    } else if (offset >= t->acked) {
        if (offset > t->acked && p->window < CHUNKS_MAX) p->window++;
        hold(e, p);
        t->acked = (uint32_t)offset;
        if (t->sent < t->acked) t->sent = t->acked;
    } else {
        t->acked = (uint32_t)offset; /* it began again */
        snapshot_lost(e, p);
    }
    e->due |= DUE_FEED;
}

/* ---- loading ---- */

/* All of it is in e->in. Checks everything, then takes it. */
bool snapshot_load(agreement_t *e)
{
    const uint8_t *bytes = e->in.bytes;
    size_t total = e->in.total, at = sizeof(wire_state_t);
    wire_state_t s;
    wire_member_t m[2 * AGREEMENT_VOTERS_MAX + AGREEMENT_CHANGES_MAX];
    if (total < sizeof s) return false;
    memcpy(&s, bytes, sizeof s);
    size_t n = (size_t)s.n_old + s.n_new + s.n_changes;
    if (s.n_old > AGREEMENT_VOTERS_MAX || s.n_new > AGREEMENT_VOTERS_MAX || s.n_new == 0 || s.joint > 1 ||
        s.formed != 1 || (s.joint != 0) != (s.n_old > 0) || s.n_changes > AGREEMENT_CHANGES_MAX ||
        s.index != e->in.index || s.term != e->in.index_term || s.index <= e->committed ||
        sizeof(wire_view_t) + n * sizeof *m >
            e->params.entry_max || /* a leader would write it as one entry */
        total - at < n * sizeof *m)
        return false;
    memcpy(m, bytes + at, n * sizeof *m);
    at += n * sizeof *m;
    if (total - at != (size_t)s.members_size + s.sessions_size + s.machine_size) return false;
    for (size_t i = 0; i < n; i++) {
        if (m[i].core >= e->params.n_cores || m[i].incarnation == 0 || m[i].incarnation > INCARNATION_MAX)
            return false;
    }
    if (!members_load(e, bytes + at, s.members_size, false) ||
        session_load(e, bytes + at + s.members_size, s.sessions_size, false) != s.sessions_size)
        return false;
    if (e->params.state_machine.load(e->params.state_machine.context, s.index,
                                     bytes + at + s.members_size + s.sessions_size, s.machine_size) != RF_OK)
        return false;

    members_load(e, bytes + at, s.members_size, true);
    session_load(e, bytes + at + s.members_size, s.sessions_size, true);
    log_reset(e, s.index, s.term);
    e->view = s.view;
    config_t *c = &e->configs[e->config];
    c->index = s.config_index;
    c->view = s.config_view;
    c->session = s.session;
    c->sequence = s.sequence;
    c->joint = s.joint;
    c->n_old = s.n_old;
    c->n_new = s.n_new;
    c->n_changes = s.n_changes;
    for (unsigned i = 0; i < s.n_old; i++) c->voters_old[i] = from_wire(m[i]);
    for (unsigned i = 0; i < s.n_new; i++) c->voters_new[i] = from_wire(m[s.n_old + i]);
    memcpy(c->changes, m + s.n_old + s.n_new, s.n_changes * sizeof *m);
    e->n_loads++;
    e->out.id = 0;
    if (member_incarnation(e, e->params.self.core) > e->params.self.incarnation ||
        (member_incarnation(e, e->params.self.core) == e->params.self.incarnation &&
         !member_in(e, e->params.self)))
        e->expelled = true;
    e->output.loaded = true;
    e->output.applied_from = s.index + 1;
    e->output.applied_to = s.index;
    engine_groups_loaded(e);
    apply_membership(e);
    proposal_after_load(e);
    return true;
}
