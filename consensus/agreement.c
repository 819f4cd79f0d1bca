#include "consensus/engine.h"

static const char *const type_names[] = {
    [MESSAGE_FORWARD - 0xd0] = "FORWARD",   [MESSAGE_APPEND - 0xd0] = "APPEND",
    [MESSAGE_ACCEPTED - 0xd0] = "ACCEPTED", [MESSAGE_REFUSED - 0xd0] = "REFUSED",
    [MESSAGE_REPORT - 0xd0] = "REPORT",     [MESSAGE_COMMITTED - 0xd0] = "COMMITTED",
    [MESSAGE_READ - 0xd0] = "READ",         [MESSAGE_READ_INDEX - 0xd0] = "READ_INDEX",
    [MESSAGE_GROUP - 0xd0] = "GROUP",       [MESSAGE_GROUP_DONE - 0xd0] = "GROUP_DONE",
};

const char *agreement_type_name(uint8_t type)
{
    return type >= MESSAGE_FORWARD && type <= MESSAGE_GROUP_DONE ? type_names[type - 0xd0] : "?";
}

/* ---- memory ---- */

static bool params_valid(const agreement_params_t *p)
{
    bool power_of_two = p->log_max > 0 && (p->log_max & (p->log_max - 1)) == 0;
    return p->n_cores > 0 && p->n_cores <= RF_CORES_MAX && p->self.core < p->n_cores &&
           p->self.incarnation == 1 && power_of_two && p->log_max >= 16 && p->log_max <= 65536 &&
           p->entry_max >= 160 && p->entry_max <= AGREEMENT_ENTRY_MAX && p->proposals_max > 0 &&
           p->proposals_max <= AGREEMENT_WINDOW && p->sessions_max <= 4096 && p->resend_ns > 0 &&
           sizeof(wire_form_t) + (p->n_cores + 7u) / 8 <= p->entry_max;
}

/* Lays the parts out behind each other; with `memory` NULL it only counts. */
typedef struct layout {
    uint8_t *memory;
    size_t size;
} layout_t;

static void *take(layout_t *layout, size_t size)
{
    void *at = layout->memory ? layout->memory + layout->size : NULL;
    layout->size += (size + 15) & ~(size_t)15;
    return at;
}

static size_t lay_out(const agreement_params_t *p, uint8_t *memory)
{
    layout_t layout = {.memory = memory};
    agreement_t counted, *e = take(&layout, sizeof *e);
    if (!e) {
        memset(&counted, 0, sizeof counted);
        e = &counted;
    }
    size_t map = (p->n_cores + 7u) / 8;
    e->entry_stride = (sizeof(log_entry_t) + p->entry_max + 15) & ~(size_t)15;
    e->proposal_stride = (sizeof(proposal_t) + p->entry_max + 15) & ~(size_t)15;
    e->to_max = p->n_cores * AGREEMENT_MESSAGES_MAX;
    e->members = take(&layout, p->n_cores * sizeof *e->members);
    e->log = take(&layout, p->log_max * e->entry_stride);
    e->sessions = take(&layout, (p->n_cores + p->sessions_max) * sizeof *e->sessions);
    e->proposals = take(&layout, p->proposals_max * e->proposal_stride);
    e->group_bytes = take(&layout, p->entry_max);
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        e->group_ops[i].bytes = take(&layout, p->entry_max);
        e->group_ops[i].remaining = take(&layout, map);
        e->group_ops[i].unsent = take(&layout, map);
    }
    e->to = take(&layout, e->to_max * sizeof *e->to);
    e->buffers = take(&layout, AGREEMENT_MESSAGES_MAX * sizeof *e->buffers);
    return layout.size;
}

size_t agreement_size(const agreement_params_t *params)
{
    return params_valid(params) ? lay_out(params, NULL) : 0;
}

rf_err_t agreement_init(void *memory, size_t size, const agreement_params_t *params, agreement_t **out)
{
    size_t needed = agreement_size(params);
    if (needed == 0) return RF_ERR_INVALID;
    if (size < needed || (uintptr_t)memory % 16 != 0) return RF_ERR_NO_MEMORY;
    memset(memory, 0, needed);
    lay_out(params, memory);
    agreement_t *e = memory;
    e->params = *params;
    e->resend_at_ns = RF_NEVER;
    for (rf_core_t core = 0; core < params->n_cores; core++) e->members[core].incarnation = 1;
    *out = e;
    return RF_OK;
}

/* ---- the step ---- */

void engine_complete(agreement_t *e, agreement_completion_t completion)
{
    rf_assert(e->output.n_completions < AGREEMENT_COMPLETIONS_MAX);
    e->output.completions[e->output.n_completions++] = completion;
}

static void receive(agreement_t *e, agreement_member_t from, uint8_t type, const uint8_t *bytes, size_t size)
{
    if (from.core >= e->params.n_cores || from.core == e->params.self.core || size > AGREEMENT_MESSAGE_MAX) {
        engine_protocol_error(e, "ignoring a message: from no such member, or too long");
        return;
    }
    if (e->members[from.core].incarnation != from.incarnation || e->members[from.core].dead) {
        engine_ignore(e, "ignoring a message: its sender is dead or of another incarnation");
        return;
    }
    switch (type) {
    case MESSAGE_FORWARD:
        recv_forward(e, from.core, bytes, size);
        break;
    case MESSAGE_APPEND:
        recv_append(e, from.core, bytes, size);
        break;
    case MESSAGE_ACCEPTED:
        recv_accepted(e, from.core, bytes, size);
        break;
    case MESSAGE_REFUSED:
        recv_refused(e, from.core, bytes, size);
        break;
    case MESSAGE_REPORT:
        recv_report(e, from.core, bytes, size);
        break;
    case MESSAGE_COMMITTED:
        recv_committed(e, from.core, bytes, size);
        break;
    case MESSAGE_READ:
        recv_read(e, from.core, bytes, size);
        break;
    case MESSAGE_READ_INDEX:
        recv_read_index(e, from.core, bytes, size);
        break;
    case MESSAGE_GROUP:
        recv_group(e, from.core, bytes, size);
        break;
    case MESSAGE_GROUP_DONE:
        recv_group_done(e, from.core, bytes, size);
        break;
    default:
        engine_protocol_error(e, "ignoring a message: no such type");
        break;
    }
}

/* The caller has applied an entry: its result is kept in its session, and answers the proposal if it was made
 * here. */
static void applied(agreement_t *e, uint64_t index, rf_err_t err, uint64_t value)
{
    rf_assert(index == e->applied + 1 && index <= e->handed);
    const log_entry_t *entry = log_at(e, index);
    rf_assert(entry->index == index);
    e->applied = index;
    if (entry->session == 0) return;
    if (entry->kind == AGREEMENT_ENTRY_SESSION_OPEN) {
        uint64_t id = SESSION_OPENED | index;
        bool opened = session_find(e, id) != NULL;
        err = opened ? RF_OK : RF_ERR_LIMIT;
        value = opened ? id : 0;
    } else if (entry->kind == AGREEMENT_ENTRY_SESSION_END) {
        uint64_t id;
        memcpy(&id, entry->bytes, sizeof id);
        session_t *ended = id & SESSION_OPENED ? session_find(e, id) : NULL;
        err = ended ? RF_OK : RF_ERR_NOT_FOUND;
        value = 0;
    }
    session_t *s = session_find(e, entry->session); /* its place may have gone to another since */
    if (s)
        s->results[entry->sequence % AGREEMENT_WINDOW] =
            (result_t){.sequence = entry->sequence, .err = (uint32_t)err, .value = value};
    proposal_t *p = proposal_find(e, entry->session, entry->sequence);
    if (!p) return;
    p->used = false;
    engine_complete(e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_PROPOSAL,
                                                .session = entry->session,
                                                .sequence = entry->sequence,
                                                .err = err,
                                                .value = value});
}

/* Orderer: the dead leave by an entry, as soon as the ring has room. */
static void append_deaths(agreement_t *e)
{
    if (!engine_orders(e) || e->last == 0) return;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        member_t *m = &e->members[core];
        if (!m->dead || !m->voting || m->down_appended) continue;
        wire_member_t who = {.core = core, .incarnation = m->incarnation};
        if (log_append(e, AGREEMENT_ENTRY_MEMBER_DOWN, 0, 0, &who, sizeof who) != RF_OK)
            return; /* tried again when members have applied more */
        m->down_appended = true;
    }
}

static void resend_when_due(agreement_t *e)
{
    if (e->params.resend_ns == RF_NEVER || e->resend_at_ns > e->now_ns) return;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) send_rewind(e, core);
    e->resend_at_ns = RF_NEVER;
}

/* The epilogue of every step: everything that follows from state alone. */
static void finish(agreement_t *e)
{
    append_deaths(e);
    log_commit(e);
    log_hand_out(e);
    if (e->lost) role_fail_proposals(e);
    read_finish(e);
    group_finish(e);
    send_all(e);
    if (e->params.resend_ns != RF_NEVER) {
        if (!send_waits(e))
            e->resend_at_ns = RF_NEVER;
        else if (e->resend_at_ns == RF_NEVER)
            e->resend_at_ns = e->now_ns + e->params.resend_ns;
    }
    e->output.next_tick_ns = e->resend_at_ns;
    if (e->handed < e->committed || engine_completion_room(e) == 0) e->output.more = true;
    rf_assert(e->applied <= e->handed && e->handed <= e->committed && e->committed <= e->last);
}

const agreement_output_t *agreement_step(agreement_t *e, const agreement_event_t *event)
{
    rf_assert(event->now_ns >= e->now_ns);
    e->now_ns = event->now_ns;
    e->output.n_messages = e->output.n_applies = e->output.n_completions = e->output.n_group_applies = 0;
    e->output.view_changed = e->output.more = false;
    e->output.ignored = NULL;
    e->output.err = RF_OK;
    e->n_to = e->n_refusals = e->n_read_replies = 0;
    e->group_reply.number = 0;

    switch (event->kind) {
    case AGREEMENT_TICK:
        resend_when_due(e);
        break;
    case AGREEMENT_RECEIVE:
        receive(e, event->receive.from, event->receive.type, event->receive.bytes, event->receive.size);
        break;
    case AGREEMENT_ROOM:
        if (event->peer.core < e->params.n_cores && event->peer.core != e->params.self.core)
            send_rewind(e, event->peer.core);
        break;
    case AGREEMENT_DEATH:
        role_death(e, event->member);
        break;
    case AGREEMENT_FORM:
        role_form(e, event->form.cores, event->form.n_cores);
        break;
    case AGREEMENT_PROPOSE:
        proposal_step(e, AGREEMENT_ENTRY_COMMAND, event->propose.session, event->propose.sequence,
                      event->propose.bytes, event->propose.size);
        break;
    case AGREEMENT_SESSION_OPEN:
        proposal_step(e, AGREEMENT_ENTRY_SESSION_OPEN, agreement_own_session(e), event->session.sequence,
                      NULL, 0);
        break;
    case AGREEMENT_SESSION_END:
        proposal_step(e, AGREEMENT_ENTRY_SESSION_END, agreement_own_session(e), event->session.sequence,
                      &event->session.session, sizeof event->session.session);
        break;
    case AGREEMENT_APPLIED:
        applied(e, event->applied.index, event->applied.err, event->applied.value);
        break;
    case AGREEMENT_READ:
        read_start(e, event->read.cookie);
        break;
    case AGREEMENT_GROUP_ONE:
    case AGREEMENT_GROUP_TWO:
        group_start(e, event);
        break;
    case AGREEMENT_GROUP_APPLIED:
        group_applied(e, event->group_applied.owner, event->group_applied.number);
        break;
    }
    finish(e);
    return &e->output;
}

/* ---- questions ---- */

uint64_t agreement_own_session(const agreement_t *e)
{
    return (uint64_t)e->params.self.incarnation << 16 | e->params.self.core;
}

void agreement_query(const agreement_t *e, agreement_state_t *out)
{
    *out = (agreement_state_t){
        .view = e->view,
        .term = e->view > 0 ? TERM : 0,
        .accepted = e->last,
        .committed = e->committed,
        .applied = e->applied,
        .leader = e->view > 0 && !e->lost ? ORDERER : RF_CORE_NONE,
        .survives = 0, /* the loss of the orderer, any time, stops agreed changes */
        .formed = e->view > 0,
        .quorum = e->view > 0 && !e->lost,
    };
    for (rf_core_t core = 0; core < e->params.n_cores; core++)
        out->members += e->members[core].state == AGREEMENT_MEMBER_IN && !e->members[core].dead;
    out->voters = out->members;
}

agreement_member_state_t agreement_member_state(const agreement_t *e, rf_core_t core)
{
    return core < e->params.n_cores ? (agreement_member_state_t)e->members[core].state
                                    : AGREEMENT_MEMBER_NONE;
}
