/*
 * The engine inside the monitor. Everything that concerns it is queued and then worked off by one loop, agree_run():
 * entries are applied strictly one after the other, whatever applying one sets in motion.
 */
#include "monitor/state.h"

agreement_params_t agree_params(const rf_boot_t *boot, rf_core_t core)
{
    return (agreement_params_t){
        .self = {.core = core, .incarnation = 1},
        .machine = boot->machine,
        .n_cores = boot->n_cores,
        .log_max = AGREE_LOG_MAX,
        .entry_max = AGREE_ENTRY_MAX,
        .proposals_max = AGREE_PROPOSALS_MAX,
        .sessions_max = 0,
        .resend_ns = RF_NEVER, /* links lose nothing; a new link is reported as room */
    };
}

rf_err_t agree_init(monitor_t *m, void *memory, size_t size)
{
    agreement_params_t params = agree_params(m->boot, m->core);
    m->agree.tick_ns = RF_NEVER;
    return agreement_init(memory, size, &params, &m->agree.engine);
}

static void send_messages(monitor_t *m, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *message = &out->messages[i];
        for (unsigned k = 0; k < message->n_to; k++) {
            /* Dropped where there is no link yet: the engine makes it again when there is (agree_room). */
            if (peer_need(m, message->to[k]) == RF_OK)
                peer_send(m, message->to[k], message->type, message->bytes, message->size, NULL, 0);
        }
    }
}

static void queue_applies(monitor_t *m, const agreement_output_t *out)
{
    agree_t *a = &m->agree;
    for (unsigned i = 0; i < out->n_applies; i++) {
        const agreement_apply_t *in = &out->applies[i];
        rf_assert(a->n_applies < AGREE_LOG_MAX);
        unsigned at = (a->applies_head + a->n_applies++) % AGREE_LOG_MAX;
        a->applies[at].index = in->index;
        a->applies[at].kind = in->kind;
        a->applies[at].core = in->member.core;
        a->applies[at].size = in->size;
        if (in->size > 0 && in->size <= AGREE_ENTRY_MAX) memcpy(a->applies[at].bytes, in->bytes, in->size);
    }
}

static void complete_read(monitor_t *m, const agreement_completion_t *completion)
{
    op_t *op = op_find(m, (uint32_t)completion->cookie, OP_FREE);
    m->agree.n_reading--;
    if (op && op_class_of(op)->readable) op_class_of(op)->readable(m, op, completion->err);
}

static void complete(monitor_t *m, const agreement_completion_t *completion)
{
    agree_t *a = &m->agree;
    if (completion->kind == AGREEMENT_COMPLETED_READ) complete_read(m, completion);
    if (completion->kind != AGREEMENT_COMPLETED_PROPOSAL) return;
    for (unsigned i = 0; i < a->n_inflight; i++) {
        if (a->inflight[i].sequence != completion->sequence) continue;
        op_t *op = op_find(m, a->inflight[i].op, OP_FREE);
        a->inflight[i] = a->inflight[--a->n_inflight];
        if (!op || !op->proposing) return;
        op->proposing = false;
        if (completion->err == RF_ERR_AGAIN) { /* the log is full, for now */
            a->retry_ns = m->now_ns + RETRY_NS;
            agree_propose_bytes(m, op, op->proposal, op->proposal_size);
            return;
        }
        op_class_of(op)->proposed(m, op, completion->err, completion->value);
        return;
    }
}

static void note_state(monitor_t *m)
{
    agreement_state_t state;
    agreement_query(m->agree.engine, &state);
    bool had = m->quorum;
    m->quorum = state.quorum;
    if (had && !state.quorum) {
        out_log(m, RF_LOG_ERROR,
                "core %u, which orders changes, is dead: nothing can be agreed on until the machine is "
                "formed anew; what "
                "runs goes on",
                0);
        end_tell_all(m, RF_CORE_NONE);
    }
}

static void step(monitor_t *m, agreement_event_t *event, bool *more)
{
    event->now_ns = m->now_ns;
    const agreement_output_t *out = agreement_step(m->agree.engine, event);
    m->agree.tick_ns = out->next_tick_ns;
    *more = out->more;
    if (out->ignored) out_log(m, RF_LOG_DEBUG, "agreement: %s", out->ignored);
    if (out->err != RF_OK) m->agree.received_err = out->err;
    send_messages(m, out);
    queue_applies(m, out);
    bool view_changed = out->view_changed;
    for (unsigned i = 0; i < out->n_completions; i++) complete(m, &out->completions[i]);
    if (view_changed) note_state(m);
}

static void apply_next(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    unsigned at = a->applies_head;
    command_t command;
    a->applies_head = (at + 1) % AGREE_LOG_MAX;
    a->n_applies--;
    agreement_event_t event = {.kind = AGREEMENT_APPLIED};
    event.applied.index = a->applies[at].index;
    switch (a->applies[at].kind) {
    case AGREEMENT_ENTRY_FORM:
        member_formed(m);
        break;
    case AGREEMENT_ENTRY_MEMBER_DOWN:
        replica_member_down(m, a->applies[at].core);
        member_dead(m, a->applies[at].core, RF_ERR_PEER_DEAD, false);
        break;
    case AGREEMENT_ENTRY_COMMAND:
        event.applied.err = replica_apply(m, a->applies[at].bytes, a->applies[at].size, &event.applied.value);
        /* Committed by an orderer that died before it said so: the spawn was given up, nothing runs. */
        memcpy(&command, a->applies[at].bytes, sizeof command);
        if (event.applied.err == RF_OK && !m->quorum && command.op == COMMAND_DOMAIN_ADD &&
            command.core == m->core)
            replica_tell_ended(m, event.applied.value, 0, 0, RF_ERR_NO_QUORUM, m->real_ns);
        break;
    case AGREEMENT_ENTRY_VOID:
        event.applied.err = RF_ERR_PROTOCOL;
        break;
    default:
        break;
    }
    step(m, &event, more);
}

static void propose_next(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    uint32_t id = a->queue[a->queue_head];
    a->queue_head = (a->queue_head + 1) % MONITOR_OPS_MAX;
    a->n_queue--;
    op_t *op = op_find(m, id, OP_FREE);
    if (!op || !op->proposing) return; /* ended meanwhile */
    agreement_event_t event = {.kind = AGREEMENT_PROPOSE};
    event.propose.session = agreement_own_session(a->engine);
    event.propose.sequence = ++a->sequence;
    event.propose.bytes = op->proposal;
    event.propose.size = op->proposal_size;
    a->inflight[a->n_inflight].sequence = a->sequence;
    a->inflight[a->n_inflight].op = id;
    a->n_inflight++;
    step(m, &event, more);
}

static void read_next(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    uint32_t id = a->reads[a->reads_head];
    a->reads_head = (a->reads_head + 1) % MONITOR_OPS_MAX;
    a->n_reads--;
    if (!op_find(m, id, OP_FREE)) return; /* ended meanwhile */
    a->n_reading++;
    agreement_event_t event = {.kind = AGREEMENT_READ, .read = {.cookie = id}};
    step(m, &event, more);
}

static bool tell_deaths_and_rooms(monitor_t *m, bool *more)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        if (c->death_due || c->room_due) {
            agreement_event_t event = {.kind = c->death_due ? AGREEMENT_DEATH : AGREEMENT_ROOM};
            event.peer = (agreement_member_t){.core = core, .incarnation = 1};
            if (c->death_due)
                c->death_due = false;
            else
                c->room_due = false;
            step(m, &event, more);
            return true;
        }
    }
    return false;
}

/* Works off everything; `first` may be NULL. */
static void run(monitor_t *m, agreement_event_t *first)
{
    agree_t *a = &m->agree;
    rf_assert(!a->busy);
    a->busy = true;
    bool more = false;
    if (first) step(m, first, &more);
    for (;;) {
        if (a->n_applies > 0) {
            apply_next(m, &more);
        } else if (more) {
            agreement_event_t event = {.kind = AGREEMENT_TICK};
            step(m, &event, &more);
        } else if (tell_deaths_and_rooms(m, &more)) {
            continue;
        } else if (a->n_queue > 0 && a->n_inflight < AGREE_PROPOSALS_MAX && m->now_ns >= a->retry_ns) {
            propose_next(m, &more);
        } else if (a->n_reads > 0 && a->n_reading < AGREEMENT_READS_MAX) {
            read_next(m, &more);
        } else {
            break;
        }
    }
    a->busy = false;
}

void agree_tick(monitor_t *m)
{
    if (m->now_ns < m->agree.tick_ns) {
        run(m, NULL);
        return;
    }
    agreement_event_t event = {.kind = AGREEMENT_TICK};
    run(m, &event);
}

void agree_propose(monitor_t *m, op_t *op, const command_t *command)
{
    op->command = *command;
    agree_propose_bytes(m, op, &op->command, sizeof op->command);
}

void agree_propose_bytes(monitor_t *m, op_t *op, const void *bytes, size_t size)
{
    agree_t *a = &m->agree;
    rf_assert(!op->proposing && size <= AGREE_ENTRY_MAX);
    op->proposing = true;
    op->proposal = bytes;
    op->proposal_size = (uint16_t)size;
    rf_assert(a->n_queue < MONITOR_OPS_MAX);
    a->queue[(a->queue_head + a->n_queue++) % MONITOR_OPS_MAX] = op_id(m, op);
}

void agree_read(monitor_t *m, op_t *op)
{
    agree_t *a = &m->agree;
    if (a->n_reads == MONITOR_OPS_MAX) { /* of operations that ended meanwhile: only a flood of them */
        op_class_of(op)->readable(m, op, RF_ERR_AGAIN);
        return;
    }
    a->reads[(a->reads_head + a->n_reads++) % MONITOR_OPS_MAX] = op_id(m, op);
}

void agree_form(monitor_t *m, const rf_core_t *cores, unsigned n)
{
    agreement_event_t event = {.kind = AGREEMENT_FORM, .form = {.cores = cores, .n_cores = n}};
    run(m, &event);
}

void agree_death(monitor_t *m, rf_core_t core)
{
    m->cores[core].death_due = true;
}

void agree_room(monitor_t *m, rf_core_t core)
{
    m->cores[core].room_due = true;
}

rf_err_t agree_receive(monitor_t *m, rf_core_t from, uint8_t type, const void *bytes, size_t size)
{
    agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
    event.receive.from = (agreement_member_t){.core = from, .incarnation = 1};
    event.receive.type = type;
    event.receive.bytes = bytes;
    event.receive.size = size;
    m->agree.received_err = RF_OK;
    run(m, &event);
    return m->agree.received_err;
}
