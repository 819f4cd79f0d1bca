/*
 * One-sided append at the leader: what a voter lacks is written into its lane instead of sent. Late-bound for each voter: it is
 * fed by messages until it has granted its lane in this term and has itself acknowledged where its log matches; from there
 * the lane takes over, what may be under way in messages is written once more, and a write that fails gives it back to
 * the messages. Rounds, and the question how far it has applied, always are messages: only the voter itself can answer those.
 *
 * A write that is placed counts as an acknowledgement of its last entry (progress.c counts no further). That stands only for a
 * write to the lane of now: `id` and term say so.
 */
#include "consensus/lane.h"

static lane_out_t *find(const agreement_t *e, agreement_member_t owner)
{
    lanes_t *l = e->lanes;
    for (unsigned i = 0; i < l->n_out; i++) {
        if (same(l->out[i].owner, owner)) return &l->out[i];
    }
    return NULL;
}

/* A place for it: that of one that is no lane of this term, if need be. */
static lane_out_t *place(agreement_t *e, agreement_member_t owner)
{
    lanes_t *l = e->lanes;
    lane_out_t *out = find(e, owner);
    if (out) return out;
    if (l->n_out < LANE_PEERS_MAX) return &l->out[l->n_out++];
    for (unsigned i = 0; i < l->n_out; i++) {
        if (l->out[i].term != e->term) return &l->out[i];
    }
    return NULL;
}

static bool is_open(const agreement_t *e, const lane_out_t *out)
{
    return out && out->open && out->term == e->term && leads(e);
}

unsigned lane_open(const agreement_t *e)
{
    unsigned n = 0;
    for (unsigned i = 0; i < e->lanes->n_out; i++) {
        const lane_out_t *out = &e->lanes->out[i];
        for (unsigned k = 0; k < e->n_voters && is_open(e, out); k++)
            n += same(e->progress[k].member, out->owner) && e->progress[k].mode == PROGRESS_LANE;
    }
    return n;
}

/* Nothing more is written there; its owner is fed by messages, unless it grants another. */
static void shut(agreement_t *e, lane_out_t *out)
{
    progress_t *p = progress_find(e, out->owner);
    out->open = false;
    if (p && p->mode == PROGRESS_LANE) progress_rewind(e, p);
}

void lane_granted(agreement_t *e, const agreement_lane_event_t *event)
{
    if (!leads(e) || event->term != e->term || event->id == 0) {
        engine_ignore(e, "ignoring: a lane of a term that I do not lead");
        return;
    }
    lane_out_t *out = place(e, event->peer);
    progress_t *p = progress_find(e, event->peer);
    if (!out) return;                                         /* messages do */
    if (p && p->mode == PROGRESS_LANE) progress_rewind(e, p); /* of the lane before, which broke */
    *out = (lane_out_t){.owner = event->peer,
                        .id = event->id,
                        .term = event->term,
                        .seed = lane_seed(e, event->peer, e->params.self, event->id, event->term),
                        .open = true};
    e->due |= DUE_FEED;
}

void lane_written(agreement_t *e, const agreement_lane_event_t *event)
{
    lane_out_t *out = find(e, event->peer);
    progress_t *p = progress_find(e, event->peer);
    bool current = is_open(e, out) && (event->id == out->id || defect(e, AGREEMENT_DEFECT_OLD_COMPLETION));
    if (!current) {
        engine_ignore(e, "ignoring: a write to a lane that is over");
        return;
    }
    if (event->err != RF_OK) {
        shut(e, out);
        return;
    }
    if (event->number <= out->placed || event->number > out->number) {
        engine_ignore(e, "ignoring: a write that was never made, or has been placed");
        return;
    }
    out->placed = event->number;
    uint64_t end = out->ends[event->number % AGREEMENT_LANE_WRITES_MAX];
    rf_assert(end <= e->last);
    if (!p || p->sets == 0) { /* it votes no more; it may again, in this term */
        engine_ignore(e, "ignoring: a write to the lane of one that does not vote");
        return;
    }
    if (end > p->match) {
        p->match = end;
        e->due |= DUE_COMMIT;
        if (p->next <= end) p->next = end + 1;
    }
    if (p->next <= e->last) e->due |= DUE_FEED; /* there is room again */
}

void lane_accepted(agreement_t *e, agreement_member_t from, uint64_t match, const wire_lane_t *taken)
{
    lane_out_t *out = find(e, from);
    if (!is_open(e, out)) return;
    if (match > out->acked) out->acked = match;
    if (taken &&
        taken->id > out->id) { /* this one has been revoked, and what came of its last writes was not heard */
        shut(e, out);
        return;
    }
    if (!taken || taken->id != out->id || taken->lines <= out->taken || taken->lines > out->lines) return;
    out->taken = taken->lines;
    e->due |= DUE_FEED;
}

bool lane_serves(agreement_t *e, progress_t *p)
{
    const lane_out_t *out = find(e, p->member);
    /* `match` is of this term, and what its owner said: so the lane begins with what goes on there. */
    bool can = is_open(e, out) && p->sets != 0 && !p->dead && !p->candidate && p->match > 0 &&
               p->match + 1 >= e->first;
    if (p->mode == PROGRESS_LANE && (!can || p->next < e->first)) { /* it is behind the ring: by messages */
        progress_rewind(e, p);
        return false;
    }
    if (p->mode == PROGRESS_LANE) return true;
    if (!can || p->mode != PROGRESS_STREAM) return false;
    p->mode = PROGRESS_LANE;
    p->next = p->match + 1;
    return true;
}

/* The log is sealed where such an APPEND ends. */
static uint32_t seal_flag(const agreement_t *e, uint64_t end)
{
    return e->sealed_term == e->term && e->sealed_index == end ? APPEND_SEAL : 0u;
}

/* By a message: an answer that nobody else can give. It goes on from what its owner said that it holds. */
static bool ask(agreement_t *e, progress_t *p, const lane_out_t *out)
{
    uint8_t *at = send_begin(e, sizeof(wire_append_t));
    if (!at) return false;
    uint64_t prev = out->acked + 1 >= e->first && out->acked > 0 ? out->acked : p->match;
    wire_append_t m = {.view = e->view,
                       .term = e->term,
                       .prev_index = prev,
                       .prev_term = log_term(e, prev),
                       .committed = e->committed,
                       .round = e->round,
                       .leader = to_wire(e->leader, 0),
                       .flags = APPEND_ASK | seal_flag(e, prev)};
    memcpy(at, &m, sizeof m);
    e->to[e->n_to] = p->member;
    send_end(e, MESSAGE_APPEND, sizeof m, 1);
    p->ask = false;
    return true;
}

/* One record. False: the lane has no room for the largest. */
static bool write(agreement_t *e, progress_t *p, lane_out_t *out)
{
    lanes_t *l = e->lanes;
    uint64_t start = lane_record_start(e->params.lane_lines, out->lines);
    if (out->number - out->placed == AGREEMENT_LANE_WRITES_MAX ||
        start + LANE_RECORD_LINES - out->taken > e->params.lane_lines)
        return false;
    agreement_lane_output_t *output = lane_output(e);
    uint8_t *bytes = (uint8_t *)l->arena + (size_t)output->n_writes * LANE_RECORD_BYTES;
    lane_record_t *r = (lane_record_t *)(void *)bytes;
    size_t size = 0;
    uint32_t n = send_put_entries(e, p->next, e->last, bytes + sizeof *r, &size, LANE_ENTRIES_MAX);
    uint64_t end = p->next - 1 + n;
    bool wanted = p->applied + e->params.log_max / 2 < e->committed;
    *r = (lane_record_t){.prev_index = p->next - 1,
                         .committed = e->committed,
                         .round = e->round,
                         .flags = (uint16_t)((wanted ? APPEND_ASK : 0u) | seal_flag(e, end)),
                         .size = (uint16_t)size,
                         .n = n};
    uint32_t all = lane_record_end(r, start, out->seed);
    out->lines = start + all / AGREEMENT_LANE_LINE;
    out->ends[++out->number % AGREEMENT_LANE_WRITES_MAX] = end;
    output->writes[output->n_writes++] =
        (agreement_write_t){.to = p->member,
                            .id = out->id,
                            .number = out->number,
                            .offset = (uint32_t)(start & (e->params.lane_lines - 1)) * AGREEMENT_LANE_LINE,
                            .size = all,
                            .bytes = bytes};
    p->next = end + 1;
    p->commit_sent = e->committed;
    e->lazy = false;
    return true;
}

bool lane_feed(agreement_t *e, progress_t *p)
{
    lane_out_t *out = find(e, p->member);
    rf_assert(is_open(e, out) && p->mode == PROGRESS_LANE && p->next >= e->first);
    if (p->ask && !ask(e, p, out)) return false;
    while (p->next <= e->last || (p->commit_sent < e->committed && !e->lazy)) {
        if (lane_output(e)->n_writes == AGREEMENT_WRITES_MAX) {
            e->output.more = true;
            return false;
        }
        if (!write(e, p, out)) break; /* until some are placed, or taken */
    }
    return true;
}
