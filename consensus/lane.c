/*
 * One-sided append at the owner of a lane: granting it, reading it, and the one rule that all rests on: no member leaves a
 * term while the leader of that term can write its lane, nor before it has read all that was placed there (Mu, OSDI 2020,
 * 5.2: fence, then read the tail, then vote; doc/agreement.md). So what a leader is told is placed counts as if it had been
 * received and acknowledged: whatever this member does in a later term it does with that in its log.
 *
 * A record is taken as the APPEND that it stands for (recv_append.c), except that it is not answered: its completion was.
 */
#include "consensus/lane.h"

size_t lane_size(const agreement_params_t *p)
{
    (void)p;
    return sizeof(lanes_t);
}

void lane_init(agreement_t *e, void *memory)
{
    lanes_t *l = memory;
    memset(l, 0, offsetof(lanes_t, record));
    l->leader = NOBODY;
    e->lanes = l;
}

agreement_lane_output_t *lane_output(agreement_t *e)
{
    agreement_lane_output_t *out = &e->lanes->output;
    if (!e->output.lane) {
        out->order = AGREEMENT_LANE_KEEP;
        out->again = false;
        out->n_writes = 0;
        e->output.lane = out;
    }
    return out;
}

/* ---- granting and revoking ---- */

static unsigned ready_find(const lanes_t *l, agreement_member_t m)
{
    unsigned i = 0;
    while (i < l->n_ready && !same(l->ready[i], m)) i++;
    return i;
}

static void set_ready(lanes_t *l, agreement_member_t m, bool ready)
{
    unsigned i = ready_find(l, m);
    if (!ready && i < l->n_ready) {
        l->ready[i] = l->ready[--l->n_ready];
    } else if (ready && i == l->n_ready && l->n_ready < LANE_PEERS_MAX) {
        l->ready[l->n_ready++] = m;
    }
}

/* A voter lets the leader that it follows write. */
static bool grants(const agreement_t *e)
{
    const lanes_t *l = e->lanes;
    return l->state == LANE_NONE && e->role == AGREEMENT_ROLE_FOLLOWER && e->formed && !e->expelled &&
           e->leader.core != RF_CORE_NONE && !is_self(e, e->leader) && !e->leader_dead &&
           ready_find(l, e->leader) < l->n_ready;
}

static void grant(agreement_t *e)
{
    lanes_t *l = e->lanes;
    l->state = LANE_GRANTED;
    l->leader = e->leader;
    l->term = e->term;
    l->id++;
    l->seed = lane_seed(e, e->params.self, l->leader, l->id, l->term);
    l->lines = l->said_lines = 0;
    l->said_applied = e->applied;
    l->ordered = false;
    agreement_lane_output_t *out = lane_output(e);
    out->order = AGREEMENT_LANE_GRANT;
    out->peer = l->leader;
    out->id = l->id;
    out->term = l->term;
}

static void revoke(agreement_t *e)
{
    lanes_t *l = e->lanes;
    l->ordered = true;
    agreement_lane_output_t *out = lane_output(e);
    rf_assert(out->order == AGREEMENT_LANE_KEEP);
    out->order = AGREEMENT_LANE_REVOKE;
    out->peer = l->leader;
    out->id = l->id;
    out->term = l->term;
}

void lane_finish(agreement_t *e)
{
    const lanes_t *l = e->lanes;
    if (l->state == LANE_REVOKING && !l->ordered) revoke(e);
    if (grants(e)) grant(e);
}

void lane_query(const agreement_t *e, agreement_state_t *out)
{
    out->lane = e->lanes->state == LANE_GRANTED;
    out->lanes = lane_open(e);
}

uint64_t agreement_lane_next(const agreement_t *e, uint32_t *offset)
{
    const lanes_t *l = e->lanes;
    if (!l || l->state != LANE_GRANTED || e->expelled) return 0;
    uint64_t start = lane_record_start(e->params.lane_lines, l->lines);
    *offset = (uint32_t)(start & (e->params.lane_lines - 1)) * AGREEMENT_LANE_LINE;
    return start + 1;
}

/* ---- the end of a term ---- */

bool lane_bars_term(agreement_t *e)
{
    lanes_t *l = e->lanes;
    if (l->state == LANE_NONE) return false;
    if (l->state == LANE_GRANTED) l->state = LANE_REVOKING;
    if (defect(e, AGREEMENT_DEFECT_VOTE_BEFORE_FENCE)) return false;
    rf_assert(e->term == l->term && !leads(e));
    l->barred = true;
    engine_ignore(e, "a later term: when the lane of this one is fenced and read");
    return true;
}

bool lane_bars_standing(agreement_t *e, bool evidence, bool transfer)
{
    lanes_t *l = e->lanes;
    if (!lane_bars_term(e)) return false;
    l->barred = false; /* no message */
    l->stands = true;
    l->stands_on_evidence = evidence;
    l->stands_by_transfer = transfer;
    return true;
}

void lane_hold(agreement_t *e, const agreement_event_t *event)
{
    lanes_t *l = e->lanes;
    if (!l->barred) return;
    l->barred = false;
    if (l->holds) return; /* others are made again by whoever sent them */
    l->holds = true;
    l->held = *event;
    memcpy(l->held_bytes, event->receive.bytes, event->receive.size);
    l->held.receive.bytes = l->held_bytes;
}

/* ---- reading ---- */

typedef enum taken { TAKEN, TAKEN_NONE, TAKEN_FULL, TAKEN_NONSENSE } taken_t;

/* The APPEND that it stands for, as bytes. */
static size_t as_append(const agreement_t *e, const lane_record_t *r, uint8_t *message)
{
    const lanes_t *l = e->lanes;
    bool known = r->prev_index + 1 >= e->first && r->prev_index <= e->last;
    wire_append_t head = {.view = e->view,
                          .term = l->term,
                          .prev_index = r->prev_index,
                          .prev_term = known ? log_term(e, r->prev_index) : 0,
                          .committed = r->committed,
                          .round = r->round,
                          .leader = to_wire(l->leader, 0),
                          .n = r->n,
                          .flags = r->flags};
    memcpy(message, &head, sizeof head);
    memcpy(message + sizeof head, r + 1, r->size);
    return sizeof head + r->size;
}

/* The leader has not heard of all this: not how far this member has come in the lane, nor in applying. */
static bool owes_answer(const agreement_t *e)
{
    const lanes_t *l = e->lanes;
    return l->lines - l->said_lines >= e->params.lane_lines / 4 ||
           e->applied - l->said_applied >= e->params.log_max / 4;
}

static taken_t take(agreement_t *e, const uint64_t *lines)
{
    lanes_t *l = e->lanes;
    lane_record_t *r = (lane_record_t *)(void *)l->record;
    uint64_t start = lane_record_start(e->params.lane_lines, l->lines);
    if (!lane_record_read(lines, e->params.lane_lines, start, l->seed,
                          defect(e, AGREEMENT_DEFECT_TORN_RECORD), r))
        return TAKEN_NONE;
    bool sense = !(r->flags & APPEND_FEED) && r->prev_index <= e->matched && r->n <= AGREEMENT_MESSAGE_MAX;
    uint8_t *message = (uint8_t *)l->message;
    bool answered = e->ack_due;
    if (sense) recv_append(e, l->leader, message, as_append(e, r, message));
    if (!sense || e->output.err == RF_ERR_PROTOCOL) {
        e->ack_due = answered;
        return TAKEN_NONSENSE;
    }
    if (e->matched < r->prev_index + r->n) { /* the ring is full of what is not applied here */
        e->ack_due = answered;
        return TAKEN_FULL;
    }
    l->lines = start + lane_record_lines(r->size);
    e->ack_due = answered || (r->flags & APPEND_ASK) || owes_answer(e);
    return TAKEN;
}

/* All that is there, at most `max`: then TAKEN. */
static taken_t take_all(agreement_t *e, const uint64_t *lines, uint64_t max)
{
    taken_t taken = TAKEN;
    for (uint64_t i = 0; i < max && taken == TAKEN && !e->expelled; i++) {
        taken = take(e, lines);
        if (taken != TAKEN_FULL) continue;
        apply_committed(e);
        taken = take(e, lines);
    }
    return taken;
}

size_t lane_ack_put(const agreement_t *e, void *out)
{
    lanes_t *l = e->lanes;
    if (l->state == LANE_NONE || !same(e->ack_to, l->leader) || e->term != l->term) return 0;
    wire_lane_t m = {.id = l->id, .lines = l->lines};
    memcpy(out, &m, sizeof m);
    l->said_lines = l->lines;
    l->said_applied = e->applied;
    return sizeof m;
}

/* ---- events ---- */

static void lines_changed(agreement_t *e, const agreement_lane_event_t *event)
{
    lanes_t *l = e->lanes;
    if (l->state != LANE_GRANTED || event->id != l->id || e->term != l->term) {
        engine_ignore(e, "ignoring: not my lane of now");
        return;
    }
    if (e->expelled) return;
    switch (take_all(e, event->lines, LANE_TAKES_MAX)) {
    case TAKEN:
    case TAKEN_FULL:
        lane_output(e)->again = true;
        break;
    case TAKEN_NONSENSE: /* what follows it can never be read: another lane, if need be */
        l->state = LANE_REVOKING;
        break;
    case TAKEN_NONE:
        break;
    }
}

static void go_on(agreement_t *e)
{
    lanes_t *l = e->lanes;
    uint64_t term = e->term;
    if (l->holds) {
        l->holds = false;
        l->held.now_ns = e->now_ns;
        engine_receive(e, &l->held);
    }
    bool stands = l->stands && e->term == term && !leads(e);
    l->stands = false;
    if (stands) role_stand(e, false, l->stands_on_evidence, l->stands_by_transfer);
}

/* What was placed at some time before says nothing of whether its writer lives now: who asked for a vote is not to be refused for it. */
static taken_t take_tail(agreement_t *e, const uint64_t *lines)
{
    uint64_t heard_ns = e->leader_heard_ns, election_at_ns = e->election_at_ns;
    bool unheard = e->leader_unheard;
    taken_t taken = take_all(e, lines, UINT64_MAX);
    e->leader_heard_ns = heard_ns;
    e->election_at_ns = election_at_ns;
    e->leader_unheard = unheard;
    return taken;
}

static void revoked(agreement_t *e, const agreement_lane_event_t *event)
{
    lanes_t *l = e->lanes;
    if (l->state == LANE_NONE || event->id != l->id) {
        engine_ignore(e, "ignoring: that lane was over");
        return;
    }
    l->state = LANE_REVOKING;
    l->ordered = true;
    bool careless = defect(e, AGREEMENT_DEFECT_VOTE_BEFORE_FENCE) && e->term != l->term;
    rf_assert(e->term == l->term || careless);
    taken_t taken = event->lines && !careless ? take_tail(e, event->lines) : TAKEN_NONE;
    if (taken == TAKEN_FULL) { /* what it waits for is applied by then */
        lane_output(e)->again = true;
        return;
    }
    l->state = LANE_NONE;
    go_on(e);
}

void lane_event(agreement_t *e, const agreement_lane_event_t *event)
{
    if (event->kind != AGREEMENT_LANE_LINES && event->kind != AGREEMENT_LANE_REVOKED &&
        (event->peer.core >= e->params.n_cores || event->peer.core == e->params.self.core)) {
        engine_ignore(e, "ignoring: a lane of no such member");
        return;
    }
    switch (event->kind) {
    case AGREEMENT_LANE_READY:
    case AGREEMENT_LANE_UNREADY:
        set_ready(e->lanes, event->peer, event->kind == AGREEMENT_LANE_READY);
        break;
    case AGREEMENT_LANE_LINES:
        lines_changed(e, event);
        break;
    case AGREEMENT_LANE_REVOKED:
        revoked(e, event);
        break;
    case AGREEMENT_LANE_GRANTED:
        lane_granted(e, event);
        break;
    case AGREEMENT_LANE_WRITTEN:
        lane_written(e, event);
        break;
    }
}
